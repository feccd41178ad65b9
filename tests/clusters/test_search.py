"""Searches over hard partitions: the cost is D of hard memberships, and no single move lowers it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

from sklearn_icon._clusters.local_search import _flow, agreed_groups, cost_table, search
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._objective.objective import Objective
from sklearn_icon.learned import SharedCluster, UniformMixture

N, K, OF_Q = 12, 3, 0.1


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=(N, N)) + 3 * (np.arange(N)[:, None] // 4 == np.arange(N) // 4)
    weights += weights.T
    np.fill_diagonal(weights, 0)
    return weights


def divergence(weights, labels, divergence, of_p):
    """D of hard memberships, the row itself among the keys."""
    p = Conditional.from_weights(weights).mix(of_p)
    logits = torch.as_tensor(1e3 * np.eye(K)[labels])
    return float(Objective(p, UniformMixture(SharedCluster(), OF_Q), divergence=divergence)(logits))


@pytest.mark.parametrize("of_p", [0.0, 0.3])
@pytest.mark.parametrize("name", ["kl", "jensen_shannon", "total_variation", "squared_hellinger"])
def test_costs_are_divergences_less_a_constant_and_no_move_lowers_them(weights, name, of_p):
    for _ in range(200):  # to a symmetric matrix whose rows sum to one, so that a group's flow tells all of its row's
        weights = weights / weights.sum(axis=1, keepdims=True)
        weights = (weights + weights.T) / 2
    table, rng = cost_table(name, N, of_p, OF_Q), np.random.RandomState(0)
    if name != "kl":  # p is positive on several keys of a row, each a part of its mass: only KL is linear in it
        weights = np.roll(np.eye(N), 1, axis=0)
        weights[[0, 4, 8]] = np.eye(N)[[3, 7, 11]]
    labels, costs = search((weights + weights.T) / 2 / N, np.full(N, 1 / N), K, table, rng, n_searches=8)
    found = np.array([divergence(weights, label, name, of_p) for label in labels])
    assert_allclose(costs - costs[0], found - found[0], atol=2e-6)
    for label, value in zip(labels, found, strict=True):
        for row in range(N):
            for cluster in range(K):
                moved = label.copy()
                moved[row] = cluster
                assert divergence(weights, moved, name, of_p) > value - 1e-5


def test_searches_repeat_their_bits(weights):
    weights /= weights.sum()
    table = cost_table("kl", N, 0.3, 0.3)
    runs = [search(weights, weights.sum(axis=1), K, table, np.random.RandomState(1), 5) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)


def test_groups_are_what_partitions_agree_on():
    partitions = np.array([[0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 2, 2]])
    groups = agreed_groups(partitions, n_clusters=3)
    assert [np.flatnonzero(groups == groups[row]).tolist() for row in (0, 2, 3, 4)] == [[0, 1], [2], [3], [4, 5]]


def test_small_groups_join_the_large_one_most_like_them():
    rng, n_clusters = np.random.RandomState(0), 2
    blocks = rng.randint(n_clusters, size=(9, 4)).repeat(500, axis=1)
    noise = rng.uniform(size=blocks.shape) < 0.1
    partitions = np.where(noise, 1 - blocks, blocks)
    signs, sizes = np.unique(partitions, axis=1, return_counts=True)
    assert len(sizes) > 60  # those at the most that are kept, 30 a cluster
    groups = agreed_groups(partitions, n_clusters)
    assert len(np.unique(groups)) == 60
    kept = signs[:, np.argsort(-sizes, kind="stable")[:60]]
    of_rows = [np.unique(partitions[:, groups == group], axis=1, return_counts=True) for group in range(60)]
    heads = np.stack([own[:, counts.argmax()] for own, counts in of_rows], axis=1)
    np.testing.assert_array_equal(heads, kept)
    alike = (partitions[:, :, None] == kept[:, None]).sum(axis=0)
    np.testing.assert_array_equal(alike[np.arange(2000), groups], alike.max(axis=1))


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4])
def test_flow_is_that_of_all_walks(n_steps):
    rng = np.random.RandomState(0)
    dense = rng.uniform(size=(30, 30)) * (rng.uniform(size=(30, 30)) < 0.2)
    dense /= np.maximum(dense.sum(axis=1, keepdims=True), 1e-12)
    members, weights = np.eye(6)[rng.randint(6, size=30)], rng.uniform(size=30)
    p = Conditional(sparse.csr_array(dense))
    walks = sum(np.linalg.matrix_power(dense, step) for step in range(1, n_steps + 1))
    expected = (members * weights[:, None]).T @ walks @ members
    expected = (expected + expected.T) / (2 * expected.sum())
    assert_allclose(_flow(p, n_steps, sparse.csr_array(members), weights), expected, atol=1e-15)
