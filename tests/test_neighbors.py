"""Neighbour searches against plain loops, and what they promise about ties, batches, threads and errors."""

import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph

from sklearn_icon import _neighbors
from sklearn_icon._neighbors import count_components, cross_neighbors, nearest_neighbors

# name: (distance of two rows written out, arguments of the metric)
METRICS = {
    "euclidean": (lambda a, b: np.sqrt(np.sum((a - b) ** 2)), {}),
    "l2": (lambda a, b: np.sqrt(np.sum((a - b) ** 2)), {}),
    "sqeuclidean": (lambda a, b: np.sum((a - b) ** 2), {}),
    "manhattan": (lambda a, b: np.sum(abs(a - b)), {}),
    "cityblock": (lambda a, b: np.sum(abs(a - b)), {}),
    "chebyshev": (lambda a, b: np.max(abs(a - b)), {}),
    "minkowski": (lambda a, b: np.sum(abs(a - b) ** 3) ** (1 / 3), {"p": 3}),
    "cosine": (lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)), {}),
    "correlation": (lambda a, b: 1 - np.corrcoef(a, b)[0, 1], {}),
    "canberra": (lambda a, b: np.sum(abs(a - b) / np.maximum(abs(a) + abs(b), 1e-300)), {}),
    "braycurtis": (lambda a, b: np.sum(abs(a - b)) / np.sum(abs(a + b)), {}),
    "hamming": (lambda a, b: np.mean(a != b), {}),
    "jaccard": (lambda a, b: np.sum((a != 0) != (b != 0)) / max(np.sum((a != 0) | (b != 0)), 1), {}),
    "seuclidean": (lambda a, b: np.sqrt(np.sum((a - b) ** 2 / [1, 2, 3, 4, 5])), {"V": np.arange(1.0, 6)}),
    "mahalanobis": (lambda a, b: np.sqrt((a - b) @ np.diag([1, 2, 3, 4, 5]) @ (a - b)), {"VI": np.diag(np.arange(1.0, 6))}),
}


def blobs(n=60, d=5, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(3, d))[rng.integers(3, size=n)] * 3 + rng.normal(size=(n, d))).astype(dtype)


def loop_neighbors(X, reference, k, distance, own):
    """(indices, distances) of the k smallest (distance, index), found by loops."""
    X, reference = np.asarray(X, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    pairs = [
        sorted((float(distance(x, y)), j) for j, y in enumerate(reference) if not (own and j == i))[:k]
        for i, x in enumerate(X)
    ]
    return np.array([[j for _, j in row] for row in pairs]), np.array([[d for d, _ in row] for row in pairs])


def assert_same(one, other):
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.distances, other.distances)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_loops(metric, dtype):
    distance, params = METRICS[metric]
    X, new = blobs(dtype=dtype), blobs(n=7, dtype=dtype, seed=1)
    if metric in ("hamming", "jaccard"):
        X, new = np.round(X).astype(dtype), np.round(new).astype(dtype)
    rtol = 1e-9 if dtype == np.float64 else 1e-5
    found = nearest_neighbors(X, 10, metric=metric, metric_params=params)
    indices, distances = loop_neighbors(X, X, 10, distance, own=True)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=rtol, atol=rtol)
    assert found.distances.dtype == dtype
    assert found.exact is True
    found = cross_neighbors(new, X, 10, metric=metric, metric_params=params)
    indices, distances = loop_neighbors(new, X, 10, distance, own=False)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=rtol, atol=rtol)
    assert found.distances.dtype == dtype


def test_haversine_agrees_with_loops():
    X = blobs(d=2) / 5

    def distance(a, b):
        half = np.sin((a[0] - b[0]) / 2) ** 2 + np.cos(a[0]) * np.cos(b[0]) * np.sin((a[1] - b[1]) / 2) ** 2
        return 2 * np.arcsin(np.sqrt(half))

    found = nearest_neighbors(X, 5, metric="haversine")
    indices, distances = loop_neighbors(X, X, 5, distance, own=True)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances)


@pytest.mark.parametrize("rows", [sp.csr_array, sp.csr_matrix, sp.coo_array])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan", "cosine", lambda a, b: abs(a - b).sum()])
def test_sparse_agrees_with_dense(metric, rows):
    dense = np.maximum(blobs(), 0) + np.eye(60, 5)
    dense[:, 0] += 1
    found = nearest_neighbors(rows(dense), 8, metric=metric)
    expected = nearest_neighbors(dense, 8, metric="manhattan" if callable(metric) else metric)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-9, atol=1e-12)
    new = cross_neighbors(dense[:4], rows(dense), 8, metric=metric)
    np.testing.assert_allclose(new.distances[:, 0], 0, atol=1e-12)


def test_callable_with_arguments_and_minkowski_names():
    X = blobs()

    def power(a, b, p):
        return np.sum(abs(a - b) ** p) ** (1 / p)

    assert_same_up_to_rounding = partial_close(nearest_neighbors(X, 6, metric="minkowski", metric_params={"p": 3}))
    assert_same_up_to_rounding(nearest_neighbors(X, 6, metric=power, metric_params={"p": 3}))
    for p, name in [(1, "manhattan"), (2, "euclidean"), (np.inf, "chebyshev")]:
        assert_same(nearest_neighbors(X, 6, metric="minkowski", metric_params={"p": p}), nearest_neighbors(X, 6, metric=name))
    weighted = nearest_neighbors(X, 6, metric="euclidean", metric_params={"w": np.arange(1.0, 6)})
    partial_close(nearest_neighbors(X * np.sqrt(np.arange(1.0, 6)), 6))(weighted)


def partial_close(expected):
    def check(found):
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.distances, expected.distances)

    return check


@pytest.mark.parametrize("metric", ["seuclidean", "mahalanobis"])
def test_default_scale_is_that_of_the_searched_rows(metric):
    X, new = blobs(), blobs(n=5, seed=1)
    scale = {"V": X.var(axis=0, ddof=1)} if metric == "seuclidean" else {"VI": np.linalg.inv(np.cov(X.T))}
    partial_close(nearest_neighbors(X, 6, metric=metric, metric_params=scale))(nearest_neighbors(X, 6, metric=metric))
    partial_close(cross_neighbors(new, X, 6, metric=metric, metric_params=scale))(
        cross_neighbors(new, X, 6, metric=metric)
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", [2, 9])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_equal_rows_are_neighbours_in_index_order(metric, d, dtype):
    n, k = 50, 7
    for rows in (np.full((n, d), 0.1, dtype=dtype), sp.csr_array(np.full((n, d), 0.1, dtype=dtype))):
        found = nearest_neighbors(rows, k, metric=metric)
        others = np.array([[j for j in range(n) if j != i][:k] for i in range(n)])
        np.testing.assert_array_equal(found.indices, others)
        np.testing.assert_array_equal(found.distances, 0)


@pytest.mark.parametrize("tree", [False, True])
def test_many_copies_and_ties(tree, monkeypatch):
    monkeypatch.setattr(_neighbors, "_TREE_ROWS", 0 if tree else np.inf)
    rng = np.random.default_rng(0)
    for X in (rng.normal(size=(6, 3))[rng.integers(6, size=300)], rng.integers(0, 3, size=(300, 3)).astype(float)):
        found = nearest_neighbors(X, 12)
        indices, distances = loop_neighbors(X, X, 12, METRICS["euclidean"][0], own=True)
        np.testing.assert_allclose(found.distances, distances, atol=1e-15)
        np.testing.assert_array_equal(found.indices, indices)
        assert_same(cross_neighbors(X[:9], X, 12), cross_neighbors(X, X, 12)._replace(indices=0) if False else slice_rows(cross_neighbors(X, X, 12), 9))
