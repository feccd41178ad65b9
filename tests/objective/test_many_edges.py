"""Loops over many edges give the bits of scipy's operations."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from sklearn_icon._core import pieces
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._objective import objective
from sklearn_icon._objective.many_edges import (
    each_pair_once,
    edges_to,
    mean_with_transpose,
    sum_with_turned,
    summed_here,
    turned_rows,
)

PARTS = ("indptr", "indices", "data")


def rows_at_random(n, dtype):
    rng = np.random.RandomState(n)
    weights = sparse.csr_array(sparse.random(n, n, density=0.2, random_state=n) + sparse.eye(n))
    weights.data = rng.lognormal(0, 3, len(weights.data)).astype(dtype)
    return weights


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mean_with_transpose(monkeypatch, dtype):
    weights, mass = rows_at_random(40, dtype), np.random.RandomState(0).rand(40)
    weights.data[3], mass[7] = 1e-30, 0  # a row that does not count
    mass[[4, 5]] = 1e-310  # products that vanish
    expected = objective._symmetric(weights, mass)
    assert expected.nnz < (weights + weights.T).nnz
    monkeypatch.setattr(objective, "_MANY_EDGES", 1)
    found = objective._symmetric(weights, mass)
    for part in PARTS:
        assert_array_equal(getattr(found, part), getattr(expected, part))
        assert getattr(found, part).dtype == getattr(expected, part).dtype


@pytest.mark.parametrize("cuts", [[0, 15, 40], [0, 0, 13, 40], [0, 1, 20, 40]])
def test_rows_of_ranks_are_those_of_one_process(cuts):
    weights, single = rows_at_random(40, np.float64), np.dtype(np.float32)
    whole = mean_with_transpose(weights, np.full(40, 1 / 40)).astype(single)
    shards, summed = [sparse.csr_array(weights[first:last]) for first, last in pairwise(cuts)], 0
    for shard, (first, last) in zip(shards, pairwise(cuts), strict=True):
        turned = turned_rows([edges_to(other, first, last) for other in shards], np.array(cuts[:-1]), shard.shape)
        joint = sum_with_turned(shard, turned, np.full(40, 0.5 / 40), single)
        for part in PARTS:
            assert_array_equal(getattr(joint, part), getattr(sparse.csr_array(whole[first:last]), part))
        here = summed_here(joint, first)
        assert (here != here.T).nnz == 0
        summed = summed + here
    assert summed.nnz == whole.nnz and (summed != whole).nnz == 0  # each pair by one of its ranks


def test_each_pair_once():
    weights, order = rows_at_random(30, np.float64), np.random.RandomState(1).permutation(30).astype(np.int32)
    weights = sparse.csr_array(weights + weights.T)
    upper = sparse.csr_array(sparse.triu(weights[order][:, order], 1), dtype=np.float32)
    for part, found in zip(PARTS, each_pair_once(weights, order, np.dtype(np.float32)), strict=True):
        assert_array_equal(found, getattr(upper, part))


def test_rows_are_normalised_alike_in_parts(monkeypatch):
    from sklearn_icon._core import conditional

    weights = rows_at_random(33, np.float64)
    expected = Conditional.from_weights(weights, exclude_self=True).weights
    assert not expected.diagonal().any()
    monkeypatch.setattr(conditional, "_ROWS_AT_ONCE", 5)
    found = Conditional.from_weights(weights, exclude_self=True).weights
    for part in PARTS:
        assert_array_equal(getattr(found, part), getattr(expected, part))


def is_in_a_file(part):
    return type(part) is np.memmap or (part is not None and is_in_a_file(part.base))


def test_edges_of_a_bounded_fit_lie_in_files(monkeypatch):
    weights = Conditional.from_weights(sparse.random(300, 300, density=0.1, random_state=2), exclude_self=True).weights
    order, mass = np.random.RandomState(3).permutation(300).astype(np.int32), np.full(300, 1 / 300)
    usual = mean_with_transpose(weights, mass)
    with pieces.within(1.0):
        copied = Conditional.from_weights(weights).weights
        bounded = mean_with_transpose(weights, mass)
        upper = each_pair_once(bounded, order, np.dtype(np.float32))
    assert all(map(is_in_a_file, (copied.data, bounded.data, bounded.indices, *upper[1:])))
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(vars(bounded)[name], vars(usual)[name])
    for found, of_memory in zip(upper, each_pair_once(usual, order, np.dtype(np.float32)), strict=True):
        np.testing.assert_array_equal(found, of_memory)
