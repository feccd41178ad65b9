"""Searches over hard partitions: the cost is D of hard memberships, and no single move lowers it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_icon._conditional import Conditional
from sklearn_icon._objective import Objective
from sklearn_icon._search import agreed_groups, cost_table, search
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
