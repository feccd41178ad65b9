"""Neighbour searches against plain loops, and what they promise of ties, batches, threads and errors."""

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph
from threadpoolctl import threadpool_info, threadpool_limits

from sklearn_icon import ICONEmbedding
from sklearn_icon._core.team import torch_threads
from sklearn_icon._graph import brute_force as _brute_force
from sklearn_icon._graph import exact, proposals
from sklearn_icon._graph import neighbors as _neighbors
from sklearn_icon._graph import search as _search
from sklearn_icon._graph import space as _space
from sklearn_icon._graph.neighbors import count_components, cross_neighbors, nearest_neighbors

WEIGHTS = np.arange(1.0, 6)


def haversine(a, b):
    half = np.sin((a[0] - b[0]) / 2) ** 2 + np.cos(a[0]) * np.cos(b[0]) * np.sin((a[1] - b[1]) / 2) ** 2
    return 2 * np.arcsin(np.sqrt(half))


def euclidean(a, b):
    return np.sqrt(np.sum((a - b) ** 2))


# Each distance written out, and the arguments that the metric takes.
METRICS = {
    "euclidean": (euclidean, {}),
    "l2": (euclidean, {}),
    "sqeuclidean": (lambda a, b: np.sum((a - b) ** 2), {}),
    "manhattan": (lambda a, b: np.sum(abs(a - b)), {}),
    "cityblock": (lambda a, b: np.sum(abs(a - b)), {}),
    "chebyshev": (lambda a, b: np.max(abs(a - b)), {}),
    "minkowski": (lambda a, b: np.sum(abs(a - b) ** 3) ** (1 / 3), {"p": 3}),
    "cosine": (lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)), {}),
    "correlation": (lambda a, b: 1 - np.corrcoef(a, b)[0, 1], {}),
    "canberra": (lambda a, b: np.sum(abs(a - b) / (abs(a) + abs(b))), {}),
    "braycurtis": (lambda a, b: np.sum(abs(a - b)) / np.sum(abs(a + b)), {}),
    "haversine": (haversine, {}),
    "hamming": (lambda a, b: np.mean(a != b), {}),
    "jaccard": (lambda a, b: np.sum((a != 0) != (b != 0)) / max(np.sum((a != 0) | (b != 0)), 1), {}),
    "seuclidean": (lambda a, b: np.sqrt(np.sum((a - b) ** 2 / WEIGHTS)), {"V": WEIGHTS}),
    "mahalanobis": (lambda a, b: np.sqrt(np.sum((a - b) ** 2 * WEIGHTS)), {"VI": np.diag(WEIGHTS)}),
}


def blobs(n=60, d=5, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(3, d))[rng.integers(3, size=n)] * 3 + rng.normal(size=(n, d))).astype(dtype)


def rows_for(metric, **kwargs):
    if metric == "haversine":
        return blobs(d=2, **kwargs) / 5
    X = blobs(**kwargs)
    return np.round(X) if metric in ("hamming", "jaccard") else X


def by_loops(X, reference, k, distance):
    """(indices, distances) of the k smallest (distance, index); a row is not its own neighbour."""
    indices, distances = [], []
    for i, x in enumerate(X.astype(np.float64)):
        pairs = [
            (distance(x, y), j) for j, y in enumerate(reference.astype(np.float64)) if X is not reference or j != i
        ]
        distances.append([d for d, _ in sorted(pairs)[:k]])
        indices.append([j for _, j in sorted(pairs)[:k]])
    return np.array(indices), np.array(distances)


def global_state():
    name, keys, *position = np.random.get_state()  # noqa: NPY002 - nobody is to change it
    return name, keys.tolist(), position


def assert_close(found, indices, distances, rtol=1e-9):
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=rtol, atol=rtol)


def assert_nearest(found, X, reference, distance, rtol=1e-9):
    """The k smallest distances of each row, at rows that lie so far, each once, by distance and then by index."""
    k = found.indices.shape[1]
    np.testing.assert_allclose(found.distances, by_loops(X, reference, k, distance)[1], rtol=rtol, atol=rtol)
    for i, row in enumerate(found.indices):
        assert len(set(row)) == k
        assert not (X is reference and i in row)
        of_row = [distance(X[i].astype(float), reference[j].astype(float)) for j in row]
        np.testing.assert_allclose(found.distances[i], of_row, rtol=rtol, atol=rtol)
        equal = np.diff(found.distances[i]) == 0
        assert (np.diff(row)[equal] > 0).all()


def assert_same(one, other):
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.distances, other.distances)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_loops(metric, dtype):
    distance, params = METRICS[metric]
    X, new = rows_for(metric, dtype=dtype), rows_for(metric, n=7, dtype=dtype, seed=1)
    rtol = 1e-9 if dtype == np.float64 else 1e-5
    own = nearest_neighbors(X, 10, metric=metric, metric_params=params)
    cross = cross_neighbors(new, X, 10, metric=metric, metric_params=params)
    if metric not in ("hamming", "jaccard"):  # sorted by index alone where the loop's rounding does not decide
        assert_close(own, *by_loops(X, X, 10, distance), rtol)
        assert_close(cross, *by_loops(new, X, 10, distance), rtol)
    np.testing.assert_allclose(own.distances, by_loops(X, X, 10, distance)[1], rtol=rtol, atol=rtol)
    np.testing.assert_allclose(cross.distances, by_loops(new, X, 10, distance)[1], rtol=rtol, atol=rtol)
    assert own.distances.dtype == cross.distances.dtype == dtype
    assert own.exact is True and cross.exact is True


@pytest.mark.parametrize("container", [sp.csr_array, sp.csr_matrix, sp.coo_array])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan", "cosine"])
def test_sparse_agrees_with_dense(metric, container):
    dense = np.maximum(blobs(), 0)
    dense[:, 0] += 1
    dense_found = nearest_neighbors(dense, 8, metric=metric)
    assert_close(nearest_neighbors(container(dense), 8, metric=metric), dense_found.indices, dense_found.distances)
    dense_found = cross_neighbors(dense[:4] * 2, dense, 8, metric=metric)
    for new in (dense[:4] * 2, container(dense[:4] * 2)):
        found = cross_neighbors(new, container(dense), 8, metric=metric)
        assert_close(found, dense_found.indices, dense_found.distances)


def test_callables_on_dense_and_sparse_rows():
    X = blobs()

    def power(a, b, p):
        return (abs(a - b) ** p).sum() ** (1 / p)

    expected = nearest_neighbors(X, 6, metric="minkowski", metric_params={"p": 3})
    for rows in (X, sp.csr_array(X)):
        found = nearest_neighbors(rows, 6, metric=power, metric_params={"p": 3})
        assert_close(found, expected.indices, expected.distances)


@pytest.mark.parametrize(("p", "name"), [(1, "manhattan"), (2, "euclidean"), (np.inf, "chebyshev"), (None, "l2")])
def test_minkowski_by_its_other_names(p, name):
    params = None if p is None else {"p": p}
    assert_same(
        nearest_neighbors(blobs(), 6, metric="minkowski", metric_params=params),
        nearest_neighbors(blobs(), 6, metric=name),
    )


def test_weights_of_features():
    expected = nearest_neighbors(blobs() * np.sqrt(WEIGHTS), 6)
    found = nearest_neighbors(blobs(), 6, metric="euclidean", metric_params={"w": WEIGHTS})
    assert_close(found, expected.indices, expected.distances)


@pytest.mark.parametrize("metric", ["seuclidean", "mahalanobis"])
def test_scale_is_that_of_the_searched_rows(metric):
    X = blobs()
    scale = {"V": X.var(axis=0, ddof=1)} if metric == "seuclidean" else {"VI": np.linalg.inv(np.cov(X.T))}
    for new in (X, blobs(n=1, seed=1)):
        found = cross_neighbors(new, X, 6, metric=metric)
        expected = cross_neighbors(new, X, 6, metric=metric, metric_params=scale)
        assert_close(found, expected.indices, expected.distances)


def test_mahalanobis_reads_a_covariance_or_its_inverse():
    X, V = blobs(), np.cov(blobs(seed=2).T) + np.diag(np.arange(blobs().shape[1]))
    found = nearest_neighbors(X, 6, metric="mahalanobis", metric_params={"V": V})
    expected = nearest_neighbors(X, 6, metric="mahalanobis", metric_params={"VI": np.linalg.inv(V)})
    assert_close(found, expected.indices, expected.distances)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("container", [np.array, sp.csr_array])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_among_equal_rows_none_is_everybodys_neighbour(metric, container, dtype):
    X = container(np.full((200, 3), 0.1, dtype=dtype))
    found = nearest_neighbors(X, 7, metric=metric)
    np.testing.assert_array_equal(found.distances, 0)
    assert not np.any(found.indices == np.arange(200)[:, None])
    assert (np.diff(found.indices, axis=1) > 0).all()
    assert np.bincount(found.indices.ravel(), minlength=200).max() < 25  # 7 on average
    assert_same(
        nearest_neighbors(X, 7, metric=metric, random_state=0), nearest_neighbors(X, 7, metric=metric, random_state=0)
    )
    others = nearest_neighbors(X, 7, metric=metric, random_state=1)
    assert np.mean(others.indices == found.indices) < 0.3


@pytest.fixture(params=["scan", "brute", "tree", "compiled"])
def searched(request, monkeypatch):
    monkeypatch.setattr(_search, "_TREE_ROWS", 0 if request.param == "tree" else np.inf)
    monkeypatch.setattr(_search, "_FEW_ROWS", np.inf if request.param == "scan" else 0)
    if request.param == "compiled":
        monkeypatch.setattr(_space, "_COMPILED_ROWS", 0)
        monkeypatch.setattr(_brute_force, "_BLOCK", 64)
        monkeypatch.setattr(_brute_force, "_TILE", 24)


def tied_rows(kind):
    rng = np.random.default_rng(0)
    if kind == "one-hot":
        return np.eye(300)
    if kind == "scaled one-hot":
        X = np.eye(300)[:, :12] + np.eye(12)[rng.integers(12, size=300)]
        return (X - X.mean(axis=0)) / X.std(axis=0)
    if kind == "grid":
        return rng.integers(0, 3, size=(300, 3)).astype(float)
    distinct = 6 if kind == "copies" else 100
    return rng.normal(size=(distinct, 3))[rng.integers(distinct, size=300)]


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("kind", ["copies", "grid", "few copies", "one-hot", "scaled one-hot"])
def test_ties(kind):
    X = tied_rows(kind)
    new = X[:9] + 1
    found, cross = nearest_neighbors(X, 12), cross_neighbors(new, X, 12)
    assert_nearest(found, X, X, euclidean)
    assert_nearest(cross, new, X, euclidean)
    assert_same(nearest_neighbors(X, 12, random_state=3), nearest_neighbors(X, 12, random_state=3))
    state = np.random.RandomState(3)
    assert_same(nearest_neighbors(X, 12, random_state=state), nearest_neighbors(X, 12, random_state=state))
    for rows in ([4], [8, 4]):
        part = cross_neighbors(new[rows], X, 12)
        np.testing.assert_array_equal(part.indices, cross.indices[rows])
        np.testing.assert_array_equal(part.distances, cross.distances[rows])


@pytest.mark.parametrize("searched", ["scan", "brute", "compiled"], indirect=True)
@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("scale", [1, 0.3])
def test_ties_of_all_rows_make_no_hubs(scale):
    X = scale * np.eye(300)
    found = nearest_neighbors(X, 20, random_state=0)
    assert np.bincount(found.indices.ravel(), minlength=300).max() < 45  # 20 on average
    assert np.mean(nearest_neighbors(X, 20, random_state=1).indices == found.indices) < 0.2


@pytest.mark.parametrize("metric", ["manhattan", "hamming", "precomputed"])
def test_ties_in_other_metrics(metric):
    X = np.random.default_rng(0).integers(0, 2, size=(120, 6)).astype(float)
    if metric == "precomputed":
        X = pairwise_distances(X, metric="manhattan")
    found = nearest_neighbors(X, 10, metric=metric, random_state=0)
    D = X if metric == "precomputed" else pairwise_distances(X, metric=metric)
    D = np.where(np.eye(120), np.inf, D)
    np.testing.assert_allclose(found.distances, np.sort(D, axis=1)[:, :10])
    np.testing.assert_allclose(found.distances, np.take_along_axis(D, found.indices, axis=1))
    assert np.any(nearest_neighbors(X, 10, metric=metric, random_state=1).indices != found.indices)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_common_offset_changes_nothing(dtype):
    X = np.round(blobs(), 3 if dtype == np.float64 else 0)
    moved = (X + (2.0**20 if dtype == np.float32 else 1e9)).astype(dtype)
    found = nearest_neighbors(moved, 9)
    np.testing.assert_array_equal(found.distances, by_loops(moved, moved, 9, euclidean)[1].astype(dtype))
    np.testing.assert_allclose(found.distances, nearest_neighbors(X, 9).distances, rtol=1e-5)


def test_far_row_does_not_blur_the_others():
    X = np.vstack([blobs(), np.full((1, 5), 1e11)])
    assert_close(nearest_neighbors(X, 9), *by_loops(X, X, 9, euclidean))


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 17, 64])
def test_batch_never_changes_a_row(d, dtype):
    X, new = blobs(400, d, dtype), blobs(40, d, dtype, seed=1)
    new[:5] = X[:5]
    for metric in ("euclidean", "manhattan") if d == 1 else ("euclidean", "cosine", "manhattan", "correlation"):
        if d == 2 and metric == "correlation":
            continue  # is 0 or 2, but for rounding
        whole = cross_neighbors(new, X, 9, metric=metric)
        for rows in ([3], [39], [0, 1], list(range(11, 30))):
            part = cross_neighbors(new[rows], X, 9, metric=metric)
            np.testing.assert_array_equal(part.indices, whole.indices[rows])
            np.testing.assert_array_equal(part.distances, whole.distances[rows])


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_batch_never_changes_a_sparse_row(metric):
    X, new = (sp.random_array((n, 50), density=0.3, format="csr", rng=n) for n in (300, 40))
    whole = cross_neighbors(new, X, 9, metric=metric)
    for i in range(40):
        part = cross_neighbors(new[[i]], X, 9, metric=metric)
        np.testing.assert_array_equal(part.indices[0], whole.indices[i])
        np.testing.assert_array_equal(part.distances[0], whole.distances[i])


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_threads_and_blocks_change_nothing(metric, monkeypatch):
    X = blobs(500)
    expected = nearest_neighbors(X, 9, metric=metric)
    for n_jobs in (1, 2, -1):
        assert_same(nearest_neighbors(X, 9, metric=metric, n_jobs=n_jobs), expected)
    monkeypatch.setattr(exact, "_BLOCK", 1)
    assert_same(nearest_neighbors(X, 9, metric=metric, n_jobs=2), expected)


@pytest.mark.parametrize(("n_jobs", "limit"), [(None, None), (1, 1), (2, 2)])
def test_number_of_threads_reaches_scikit_learn(n_jobs, limit, monkeypatch):
    limits = []
    monkeypatch.setattr(_search, "_TREE_ROWS", 0)
    monkeypatch.setattr(proposals, "library_threads", lambda limit: limits.append(limit) or nullcontext())
    nearest_neighbors(blobs(200), 5, n_jobs=n_jobs)
    assert limits == [limit]


def test_distances_are_symmetric():
    for metric in ("euclidean", "cosine"):
        found = cross_neighbors(blobs(), blobs(), 60, metric=metric)
        full = np.empty((60, 60))
        np.put_along_axis(full, found.indices, found.distances, axis=1)
        np.testing.assert_array_equal(full, full.T)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_precomputed_distances_agree_with_features(dtype):
    X, new = blobs(dtype=dtype), blobs(n=7, dtype=dtype, seed=1)
    own, cross = nearest_neighbors(X, 6), cross_neighbors(new, X, 6)
    D = pairwise_distances(X).astype(dtype)
    found = nearest_neighbors(D, 6, metric="precomputed")
    assert_close(found, own.indices, own.distances, 1e-5)
    assert found.distances.dtype == dtype
    np.fill_diagonal(D, 5)  # a row's distance from itself is ignored
    assert_same(nearest_neighbors(D, 6, metric="precomputed"), found)
    found = cross_neighbors(pairwise_distances(new, X), None, 6, metric="precomputed")
    assert_close(found, cross.indices, cross.distances, 1e-5)


def test_precomputed_graph_agrees_with_features():
    X, new = blobs(), blobs(n=7, seed=1)
    own, cross = nearest_neighbors(X, 6), cross_neighbors(new, X, 6)
    transformer = KNeighborsTransformer(mode="distance", n_neighbors=9).fit(X)
    shuffled = sp.csr_array(transformer.transform(X))
    for row in range(60):
        part = slice(shuffled.indptr[row], shuffled.indptr[row + 1])
        order = np.random.default_rng(row).permutation(10)
        shuffled.indices[part], shuffled.data[part] = shuffled.indices[part][order], shuffled.data[part][order]
    shuffled.has_sorted_indices = False
    without_self = kneighbors_graph(X, 6, mode="distance", include_self=False)
    for graph in (transformer.transform(X), shuffled, without_self, sp.csr_array(pairwise_distances(X))):
        found = nearest_neighbors(graph, 6, metric="precomputed")
        assert_close(found, own.indices, own.distances)
    found = cross_neighbors(transformer.transform(new), None, 6, metric="precomputed")
    assert_close(found, cross.indices, cross.distances)


def test_precomputed_copies_are_chosen_alike_in_dense_and_sparse_matrices():
    D = np.round(pairwise_distances(np.repeat(blobs(10), 6, axis=0)), 9)
    full = sp.csr_array((D.ravel(), np.tile(np.arange(60), 60), np.arange(0, 3601, 60)), shape=(60, 60))
    own = nearest_neighbors(D, 8, metric="precomputed")
    assert_same(nearest_neighbors(full, 8, metric="precomputed"), own)
    np.testing.assert_allclose(own.distances, np.sort(D, axis=1)[:, 1:9])


def test_short_rows_of_a_graph_are_named():
    graph = kneighbors_graph(blobs(), 6, mode="distance").tolil()
    graph[[4, 9]] = 0
    graph[4, [1, 2, 4]] = 1
    with pytest.raises(ValueError, match=r"row 4 of the precomputed graph has 2 neighbours, but n_neighbors=5.*KNeigh"):
        nearest_neighbors(graph.tocsr(), 5, metric="precomputed")
    with pytest.raises(ValueError, match=r"row 4 of the precomputed graph has 3 neighbours"):
        cross_neighbors(graph.tocsr(), None, 5, metric="precomputed")


def test_inputs_and_global_state_stay_as_they_are():
    dense, state = np.asfortranarray(blobs() + 100), global_state()
    unsorted = sp.csr_array(dense)
    unsorted.indices, unsorted.data = unsorted.indices[::-1].copy(), unsorted.data[::-1].copy()
    unsorted.has_sorted_indices = False
    for X in (dense, dense.astype(np.float32), unsorted, pairwise_distances(dense)):
        metrics = ["precomputed"] if X.shape[0] == X.shape[1] else ["euclidean", "cosine", "manhattan"]
        kept = X.copy()
        for array in (X.data, X.indices, X.indptr) if sp.issparse(X) else (X,):
            array.flags.writeable = False
        for metric in metrics:
            nearest_neighbors(X, 5, metric=metric)
            cross_neighbors(X, X, 5, metric=metric)
        if sp.issparse(X):
            np.testing.assert_array_equal(X.indices, kept.indices)
        np.testing.assert_array_equal(X.toarray() if sp.issparse(X) else X, kept.toarray() if sp.issparse(X) else kept)
    assert global_state() == state


@pytest.mark.parametrize("k", [0, 13, 2.5, -1])
def test_number_of_neighbours_is_checked(k):
    with pytest.raises(ValueError, match=rf"n_neighbors={k} must be an integer from 1 to n - 1 = 11"):
        nearest_neighbors(blobs(12), k)
    with pytest.raises(ValueError, match=rf"n_neighbors={k} must be an integer from 1 to n_reference = 12"):
        cross_neighbors(blobs(3), blobs(12), k)


def test_largest_number_of_neighbours():
    assert nearest_neighbors(blobs(12), 11).indices.shape == (12, 11)
    assert cross_neighbors(blobs(3), blobs(12), np.int64(12)).indices.shape == (3, 12)
    assert nearest_neighbors([[0.0], [1.0]], 1).indices.tolist() == [[1], [0]]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan", "precomputed"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_all_others_come_by_index_where_no_rank_is_asked(metric, dtype):
    X = np.vstack([blobs(12), blobs(3)]).astype(dtype)  # three copies among them
    X = pairwise_distances(X).astype(dtype) if metric == "precomputed" else X
    others, ranked = (nearest_neighbors(X, 14, metric=metric, ranked=r) for r in (False, True))
    assert others.distances.dtype == (np.float64 if metric == "manhattan" else dtype)  # as scikit-learn's
    assert others.indices.tolist() == [[j for j in range(15) if j != i] for i in range(15)]
    expected = np.empty_like(others.distances)
    np.put_along_axis(expected, ranked.indices - (ranked.indices > np.arange(15)[:, None]), ranked.distances, axis=1)
    np.testing.assert_allclose(others.distances, expected, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("container", [np.array, sp.csr_array])
def test_cosine_of_zero_rows(container):
    X = blobs()
    with pytest.raises(
        ValueError, match=r"metric='cosine' is undefined for rows of zeros; rows \[3\] \(1 in all\) of X"
    ):
        nearest_neighbors(container(np.where(np.arange(60)[:, None] == 3, 0, X)), 5, metric="cosine")
    X[10:17] = 0
    listed = r"rows \[10, 11, 12, 13, 14, \.\.\.\] \(7 in all\) of {} are zero: drop them, or use metric='euclidean'"
    with pytest.raises(ValueError, match=listed.format("X")):
        cross_neighbors(container(X), container(blobs()), 5, metric="cosine")
    with pytest.raises(ValueError, match=listed.format("reference")):
        cross_neighbors(container(blobs()), container(X), 5, metric="cosine")


@pytest.mark.parametrize(
    ("X", "metric", "message"),
    [
        (blobs(), "precomputed", r"needs a square matrix of distances, got shape \(60, 5\)"),
        (-np.eye(9), "precomputed", r"\[0, 0\] is -1, which is negative"),
        (sp.csr_array(-np.eye(9)), "precomputed", r"\[0, 0\] is -1, which is negative"),
        (sp.csr_array(blobs()), "canberra", r"does not work on sparse rows; choose one of \['cosine', 'euclidean'"),
        (blobs(), "euclid distance", "(?i)unknown .*metric"),
        (np.ones((9, 3)), "correlation", r"rows of equal numbers; rows \[0, 1, 2, 3, 4, \.\.\.\] \(9 in all\) of X"),
        (np.full((9, 3), np.nan), "euclidean", "X contains NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_cannot_be_searched_is_refused(X, metric, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(X, 2, metric=metric)


def test_features_of_new_rows_are_checked():
    with pytest.raises(ValueError, match="X has 4 features, but the reference has 5"):
        cross_neighbors(blobs(d=4), blobs(), 3)
    with pytest.raises(ValueError, match="reference contains NaN"):
        cross_neighbors(blobs(), blobs() * np.nan, 3)


@pytest.fixture
def large(monkeypatch):
    """Every data set counts as too large to be searched exactly."""
    monkeypatch.setattr(_search, "_EXACT_LIMIT", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("large")
def test_approximate_search():
    X = blobs(1200, 8)
    state = global_state()
    found = nearest_neighbors(X, 10, random_state=0)
    assert found.exact is False
    assert 0.9 < found.recall <= 1
    farthest = np.sort(pairwise_distances(X), axis=1)[:, 10:11]
    assert np.mean(found.distances <= farthest * (1 + 1e-12)) >= 0.95
    np.testing.assert_allclose(found.distances, np.linalg.norm(X[:, None] - X[found.indices], axis=2), rtol=1e-14)
    assert_same(nearest_neighbors(X, 10, random_state=0), found)
    assert_same(nearest_neighbors(X, 10, random_state=np.random.RandomState(0)), found)
    assert np.mean(nearest_neighbors(X.astype(np.float32), 10, n_jobs=1).indices == found.indices) > 0.9
    cosine = nearest_neighbors(X, 10, metric="cosine", random_state=0)
    assert np.mean(cosine.indices == cross_neighbors(X, X, 11, metric="cosine").indices[:, 1:]) >= 0.95
    assert global_state() == state


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("n_threads", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_fit_on_an_approximate_search_leaves_the_threads(n_threads):
    numba.get_num_threads()  # the first call starts numba's threads, and sets OpenMP's count, which torch reads
    with torch_threads(n_threads), threadpool_limits(n_threads):
        before = torch.get_num_threads(), numba.get_num_threads(), threadpool_info()
        ICONEmbedding(supervisory="knn", max_iter=2, random_state=0).fit(blobs(1200, 8, np.float32))
        assert (torch.get_num_threads(), numba.get_num_threads(), threadpool_info()) == before


@pytest.fixture
def holey_descent(large, monkeypatch):
    """A stand-in for pynndescent that loses some neighbours, some rows themselves, and all of row 7."""

    def descent(rows, metric, metric_kwds, n_neighbors, n_jobs, random_state):
        assert n_neighbors == 31, "few neighbours are found among more candidates"
        if sp.issparse(rows):  # what version 0.5 demands
            assert sp.isspmatrix_csr(rows) and rows.indices.dtype == np.int32
            rows = rows.toarray()
        indices = np.argsort(pairwise_distances(rows, metric=metric, **metric_kwds), axis=1)[:, :n_neighbors]
        indices[3:9, -30:] = -1
        indices[20, :-1] = indices[20, 1:]
        indices[7] = -1
        return SimpleNamespace(neighbor_graph=(indices, None))

    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=descent))


@pytest.mark.usefixtures("holey_descent")
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "manhattan", "minkowski", "canberra"])
def test_missing_neighbours_are_found(metric):
    X, params = blobs(), {"p": 3} if metric == "minkowski" else {}
    state = global_state()
    found = nearest_neighbors(X, 6, metric=metric, metric_params=params)
    assert global_state() == state
    assert (found.exact, found.recall) == (False, 1)
    assert_close(found, *by_loops(X, X, 6, METRICS[metric][0]))
    if metric in ("euclidean", "cosine", "manhattan"):
        rows = sp.csr_array(X)
        rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
        assert_close(nearest_neighbors(rows, 6, metric=metric), found.indices, found.distances)


@pytest.mark.usefixtures("holey_descent")
def test_common_offset_survives_the_single_precision_of_the_approximate_search():
    X = np.round(blobs(), 6)
    np.testing.assert_allclose(nearest_neighbors(X + 1e8, 6).distances, nearest_neighbors(X, 6).distances, rtol=1e-5)


@pytest.mark.usefixtures("large")
def test_measured_recall(monkeypatch):
    X = blobs(500, 8)
    true = nearest_neighbors(X, 10, random_state=0)
    worse = true.indices.copy()
    worse[:, :3] = np.argsort(pairwise_distances(X), axis=1)[:, -3:]  # three of ten are the farthest instead
    monkeypatch.setattr(_search, "descend", lambda *_: worse)
    assert nearest_neighbors(X, 10).recall == pytest.approx(0.7 * true.recall, abs=0.02)


@pytest.mark.parametrize("n", [37, 64, 200, 301])
@pytest.mark.parametrize("k", [5, 36])
def test_candidates_of_tiles(monkeypatch, n, k):
    monkeypatch.setattr(_brute_force, "_BLOCK", 64)
    monkeypatch.setattr(_brute_force, "_TILE", 24)
    rng = np.random.default_rng(n)
    X, new = (rng.normal(size=(size, 4)).astype(np.float32) for size in (n, 23))
    for rows in (X, new):
        sq = np.square(rows[:, None].astype(float) - X).sum(2)
        right = None if rows is X else _brute_force.factors(X)[1]
        for n_threads in (1, 3):
            candidates, sq_limit = _brute_force.nearest_candidates(rows, right, k, n_threads)
            np.testing.assert_array_equal(np.sort(candidates), np.sort(np.argsort(sq, axis=1)[:, :k]))
            np.testing.assert_allclose(sq_limit, np.sort(sq, axis=1)[:, k - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_a_reference_that_is_kept_is_searched_alike(monkeypatch, metric, far):
    monkeypatch.setattr(_space, "_COMPILED_ROWS", 0)
    rng = np.random.default_rng(0)
    X, new, kept = rng.normal(size=(3000, 9)) + far, rng.normal(size=(40, 9)) + far, {}
    X[:30], new[0], new[1] = X[30], X[30], 1e3 * X[5]
    expected = cross_neighbors(new, X, 12, metric=metric)
    for rows in (slice(0, 1), slice(0, 40), slice(3, 4), slice(1, 20)):  # the first without an index, which follows
        found = cross_neighbors(new[rows], X, 12, metric=metric, kept=kept)
        np.testing.assert_array_equal(found.indices, expected.indices[rows])
        np.testing.assert_array_equal(found.distances, expected.distances[rows])
    found = cross_neighbors(np.asfortranarray(new), X, 12, metric=metric, kept=kept)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert list(kept[metric].index) == ["near"]
    monkeypatch.setattr(_neighbors, "_MOST_INDEXED", X.size - 1)
    many = {}
    found = [cross_neighbors(new[:5], X, 12, metric=metric, kept=many) for _ in range(2)]
    np.testing.assert_array_equal(found[1].indices, expected.indices[:5])
    assert many[metric].index is None


@pytest.mark.usefixtures("large")
def test_large_data_that_need_no_approximation(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynndescent", None)  # importing it fails
    X = blobs()
    for metric in ("yule", lambda a, b: abs(a - b).sum()):
        assert nearest_neighbors(np.round(X), 4, metric=metric).exact is True
    assert nearest_neighbors(pairwise_distances(X), 4, metric="precomputed").exact is True
    assert cross_neighbors(X, X, 4).exact is True
    monkeypatch.setattr(_search, "_TREE_ROWS", 0)
    found = nearest_neighbors(X, 3)
    assert found.exact is True
    assert_close(found, *by_loops(X, X, 3, euclidean))
    monkeypatch.setattr(exact, "_scan", None)  # comparing all rows is not needed to know copies
    equal = nearest_neighbors(np.ones((100, 2)), 3)
    np.testing.assert_array_equal(equal.distances, 0)
    assert not np.any(equal.indices == np.arange(100)[:, None])
    with pytest.raises(ImportError):
        nearest_neighbors(blobs(d=9), 4)


def test_small_data_import_nothing_heavy():
    code = """
import sys
import numpy as np
from sklearn_icon._graph.neighbors import cross_neighbors, nearest_neighbors
X = np.random.default_rng(0).normal(size=(2000, 9))
for rows, metric in ((X, "euclidean"), (X[:, :2], "euclidean"), (X[:100], "manhattan")):
    nearest_neighbors(rows, 5, metric=metric)
    cross_neighbors(rows, rows, 5, metric=metric)
print({"pynndescent", "numba", "torch", "matplotlib"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_components_of_the_symmetrised_graph():
    chain = np.array([[1], [2], [3], [2], [5], [4], [7], [6], [6]])
    np.testing.assert_array_equal(count_components(chain), [4, 3, 2])
    far = np.vstack([blobs(30), blobs(12) + 1e3])
    np.testing.assert_array_equal(count_components(nearest_neighbors(far, 10).indices), [30, 12])
    assert count_components(nearest_neighbors(blobs(), 30).indices).tolist() == [60]
