"""Neighbours of rows that are hard: far rows, ties, scales, degenerate columns; and what is refused, and how."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph

from sklearn_icon import ICONClustering, ICONEmbedding
from sklearn_icon._graph import brute_force, exact, search, space
from sklearn_icon._graph.neighbors import cross_neighbors, nearest_neighbors
from sklearn_icon.metrics import trustworthiness
from sklearn_icon.supervisory import Gaussian, StudentT, UniformKNN

SEARCHES = ["scan", "brute", "tree", "compiled"]


def set_search(monkeypatch, kind):
    monkeypatch.setattr(search, "_TREE_ROWS", 0 if kind == "tree" else np.inf)
    monkeypatch.setattr(search, "_FEW_ROWS", np.inf if kind == "scan" else 0)
    if kind == "compiled":
        monkeypatch.setattr(space, "_COMPILED_ROWS", 0)
        monkeypatch.setattr(brute_force, "_BLOCK", 64)
        monkeypatch.setattr(brute_force, "_TILE", 24)


@pytest.fixture(params=SEARCHES)
def searched(request, monkeypatch):
    set_search(monkeypatch, request.param)
    return request.param


def sq_distances(X, reference):
    """In extended precision, from differences."""
    difference = X[:, None].astype(np.longdouble) - reference.astype(np.longdouble)
    return (difference**2).sum(axis=2)


def check(found, X, reference, rtol):
    D = np.sqrt(sq_distances(X, reference))
    if X is reference:
        np.fill_diagonal(D, np.inf)
    k = found.indices.shape[1]
    np.testing.assert_allclose(found.distances.astype(np.longdouble), np.sort(D, axis=1)[:, :k], rtol=rtol)
    np.testing.assert_allclose(
        found.distances.astype(np.longdouble), np.take_along_axis(D, found.indices, axis=1), rtol=rtol
    )
    assert all(len(set(row)) == k for row in found.indices)


def hard(kind, n=300, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    if kind == "one cell":
        X[5, 2] = 1e16
    elif kind == "fill values":
        X[rng.integers(n, size=7), rng.integers(d, size=7)] = 9.97e36
    elif kind == "sentinel":
        X = 100 + 10 * X
        X[[3, 8], 1] = -2147483648
    elif kind == "heavy tails":
        X = rng.standard_cauchy(size=(n, d)) ** 5
    elif kind == "many scales":
        X *= 10.0 ** rng.integers(-60, 60, size=(n, 1))
    elif kind == "offset":
        X = np.round(X * 100) + 1e8
    elif kind == "offset and sentinel":
        X = np.round(X * 100) + 1e6
        X[0] = -1
    elif kind == "zeros":
        X[: n // 2] = 0
    return X


KINDS = ["one cell", "fill values", "sentinel", "heavy tails", "many scales", "offset", "offset and sentinel", "zeros"]


@pytest.mark.parametrize("kind", KINDS)
def test_hard_rows_have_the_right_neighbours(searched, kind):
    X = hard(kind)
    check(nearest_neighbors(X, 20), X, X, 1e-9)
    new = hard(kind, 12, seed=1)
    whole = cross_neighbors(new, X, 20)
    check(whole, new, X, 1e-9)
    alone = cross_neighbors(new[3:4], X, 20)
    np.testing.assert_array_equal(alone.indices[0], whole.indices[3])
    np.testing.assert_array_equal(alone.distances[0], whole.distances[3])


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("kind", ["fill values", "sentinel", "offset"])
def test_hard_rows_in_single_precision(kind):
    X = hard(kind).astype(np.float32)
    check(nearest_neighbors(X, 20), X, X, 1e-6)


@pytest.mark.parametrize("searched", ["brute", "compiled"], indirect=True)
@pytest.mark.parametrize("kind", ["one cell", "fill values", "sentinel"])
def test_far_rows_cost_the_others_no_comparison_with_all(searched, kind, monkeypatch):
    scanned, scan = [], exact._scan
    monkeypatch.setattr(exact, "_scan", lambda space, k, rows: scanned.append(len(rows)) or scan(space, k, rows))
    nearest_neighbors(hard(kind, 600), 20)
    assert sum(scanned) < 0.1 * 600


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-150, 1e150, 1e200, 1e300])
def test_scale_changes_no_neighbour(scale):
    X = hard("plain")
    plain, scaled = nearest_neighbors(X, 9), nearest_neighbors(X * scale, 9)
    np.testing.assert_array_equal(scaled.indices, plain.indices)
    np.testing.assert_allclose(scaled.distances / scale, plain.distances, rtol=1e-12)
    cross = cross_neighbors((X[:5] + 0.1) * scale, X * scale, 9)
    np.testing.assert_array_equal(cross.indices, cross_neighbors(X[:5] + 0.1, X, 9).indices)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.sampled_from(SEARCHES), st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 3), st.integers(0, 300))
def test_integers_of_any_kind(kind, seed, d, levels, far):
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_search(monkeypatch, kind)
        rng = np.random.default_rng(seed)
        X = rng.integers(0, levels + 1, size=(90, d)).astype(float)
        X[rng.integers(90)] += 10.0**far if far < 140 else 0
        check(nearest_neighbors(X, 8, random_state=seed), X, X, 1e-9)


def test_distances_that_no_number_holds_are_refused():
    X = hard("plain")
    with pytest.raises(ValueError, match=r"rows of X and X are beyond the range of float64 in metric='sqeuclidean'"):
        nearest_neighbors(X * 1e-200, 5, metric="sqeuclidean")
    with pytest.raises(ValueError, match=r"beyond the range of float32 .* bring the features to a scale nearer one"):
        nearest_neighbors((X * 1e30).astype(np.float32), 5, metric="sqeuclidean")


@pytest.mark.parametrize("container", [np.array, sp.csr_array])
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e200])
def test_cosines_of_tiny_and_huge_rows(container, scale):
    X = np.abs(hard("plain"))
    X[:, 1:3][X[:, 1:3] < 1] = 0
    mixed = X.copy()
    mixed[::3] *= scale
    expected = nearest_neighbors(X, 9, metric="cosine")
    found = nearest_neighbors(container(mixed), 9, metric="cosine")
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("density", [0.02, 0.4])
def test_sparse_rows_agree_with_dense_ones(metric, dtype, density):
    S = sp.random_array((250, 120), density=density, rng=3, format="lil", dtype=dtype)
    S[:, 0] = 1
    S[7] = S[9]
    S[11] = S[9] * dtype(1 + 1e-6)
    S = sp.csr_array(S)
    found, expected = (nearest_neighbors(rows, 30, metric=metric) for rows in (S, S.toarray()))
    rtol = 1e-9 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found.distances, expected.distances, rtol=rtol, atol=rtol**2)
    assert found.distances[7, 0] == 0
    cross = cross_neighbors(S[:20], S, 30, metric=metric)
    alone = cross_neighbors(S[4:5], S, 30, metric=metric)
    np.testing.assert_array_equal(alone.distances[0], cross.distances[4])
    np.testing.assert_array_equal(alone.indices[0], cross.indices[4])


PLAIN = hard("plain")


@pytest.mark.parametrize(
    ("X", "metric", "message"),
    [
        (
            np.c_[PLAIN, PLAIN[:, :1] + PLAIN[:, 1:2]],
            "mahalanobis",
            r"metric='mahalanobis' .*\[\d\] \(1 in all\) of X.*PCA",
        ),
        (np.c_[PLAIN[:, :2], np.full(300, 3.0), PLAIN], "mahalanobis", r"others: \[.*2.*\] \(3 in all\) of X"),
        (PLAIN[:4], "mahalanobis", r"which has 4 rows"),
        (PLAIN * np.r_[1, 1e-200, 1, 1], "mahalanobis", r"under- or overflow in columns \[1\] .* of X: scale"),
        (PLAIN * np.r_[1, 1e200, 1, 1e300], "mahalanobis", r"under- or overflow in columns \[1, 3\] .* of X: scale"),
        (
            PLAIN * np.r_[1, 1e-200, 1, 1],
            "seuclidean",
            r"variance of X is not positive in columns \[1\].*: drop or scale",
        ),
        (
            PLAIN * np.r_[1, 1e200, 1, 1],
            "seuclidean",
            r"variance of X is not positive in columns \[1\].*: drop or scale",
        ),
        (
            np.c_[PLAIN[:, :2], np.full(300, 0.1), PLAIN],
            "seuclidean",
            r"not positive in columns \[2\] \(1 in all\): drop",
        ),
        (np.r_[PLAIN, np.full((2, 4), 0.3)], "correlation", r"equal numbers; rows \[300, 301\] \(2 in all\) of X"),
        (np.zeros((9, 3)), "braycurtis", r"metric='braycurtis' gives distances that are not finite"),
    ],
)
def test_undefined_metrics_say_where_and_what_helps(X, metric, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(X, 2, metric=metric)


@pytest.mark.parametrize(
    ("metric", "params", "message"),
    [
        ("euclidean", {"gamma": 1}, r"metric_params=\['gamma'\] are unknown: metric='euclidean' takes \['w'\]"),
        ("minkowski", {"P": 3}, r"\['P'\] are unknown: metric='minkowski' takes \['p', 'w'\]"),
        ("haversine", {"r": 3}, r"\['r'\] are unknown: metric='haversine' takes no parameters"),
        ("seuclidean", {"V": np.ones(3)}, r"V in metric_params has shape \(3,\), but X has 4 columns"),
        ("seuclidean", {"V": np.array([1.0, 0, 2, -1])}, r"V in metric_params is not positive in columns \[1, 3\]"),
        ("mahalanobis", {"VI": np.eye(3)}, r"VI in metric_params has shape \(3, 3\), but X has 4 columns"),
        ("mahalanobis", {"VI": np.diag([1.0, 1, 1, -2])}, r"VI .* positive semi-definite .* least eigenvalue is -2"),
        ("mahalanobis", {"V": np.eye(5)}, r"V in metric_params has shape \(5, 5\), but X has 4 columns"),
        ("mahalanobis", {"V": np.diag([1.0, 1, 1, 0])}, r"V .* positive definite .* least eigenvalue is 0"),
    ],
)
def test_parameters_of_metrics_are_checked(metric, params, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(PLAIN, 5, metric=metric, metric_params=params)


@pytest.mark.parametrize("container", [np.array, sp.csr_array])
def test_callables_are_held_to_distances(container):
    rows = container(np.abs(PLAIN[:40]))
    with pytest.raises(ValueError, match=r"needs distances, but that of \[\d+, \d+\] is -[\d.]+, which is negative"):
        nearest_neighbors(rows, 3, metric=lambda a, b: -np.abs(a - b).sum())
    with pytest.raises(ValueError, match=r"not finite for some of these rows, as nan between rows of X and X"):
        nearest_neighbors(rows, 3, metric=lambda a, b: np.nan)
    with pytest.raises(ValueError, match=r"as inf between rows of X and reference"):
        cross_neighbors(rows[:3], rows, 3, metric=lambda a, b: np.inf)


@pytest.mark.parametrize(
    "returned, named", [("far", "'far'"), (None, "None"), (1j, "1j"), (np.ones(2), r"array\(\[1., 1.\]\)")], ids=str
)
@pytest.mark.parametrize("container", [np.array, sp.csr_array])
def test_callables_return_numbers(container, returned, named):
    def metric(a, b):
        return returned

    rows, told = container(PLAIN[:9]), rf"metric=<function .*metric.* has to return a number .*, but returned {named}"
    with pytest.raises(ValueError, match=told):
        nearest_neighbors(rows, 3, metric=metric)
    with pytest.raises(ValueError, match=told):
        Gaussian(sigma=1.0, metric=metric).log_rows_with_self(PLAIN[:9])
    with pytest.raises(ValueError, match=told):
        trustworthiness(PLAIN[:9], PLAIN[:9], n_neighbors=2, metric=metric)


@pytest.mark.parametrize("sigma", [1.0, 1e140])
def test_distances_whose_squares_overflow_under_a_width(sigma):
    rows, told = 1e170 * PLAIN[:9], "some distances have squares beyond the range .* sigma=1"
    with pytest.raises(ValueError, match=told):
        Gaussian(sigma=sigma).conditional(rows)
    with pytest.raises(ValueError, match=told):
        Gaussian(sigma=sigma).log_rows_with_self(rows)


@pytest.mark.parametrize("container", [np.array, sp.csr_array])
def test_rounding_of_precomputed_distances_is_zero(container):
    D = pairwise_distances(PLAIN[:60])
    rounded = D + np.where(D == 0, -1e-12, 0)
    rounded[3, 4] = rounded[4, 3] = -1e-12
    kept = rounded.copy()
    found = nearest_neighbors(container(rounded), 5, metric="precomputed")
    assert found.distances.min() == 0
    assert found.indices[3, 0] == 4
    np.testing.assert_array_equal(rounded, kept)
    rounded[6, 9] = -0.25
    for find in (nearest_neighbors, lambda D, k, metric: cross_neighbors(D, None, k, metric=metric)):
        with pytest.raises(ValueError, match=r"that of \[6, 9\] is -0.25, which is negative; clip it at 0"):
            find(container(rounded), 5, metric="precomputed")


def test_matrices_that_hold_no_distances_are_refused():
    D = pairwise_distances(PLAIN[:60])
    for half, which in ((np.triu(D), "upper"), (np.tril(D), "lower")):
        with pytest.raises(ValueError, match=rf"only the {which} triangle is there: entry \[.*pass D \+ D.T"):
            nearest_neighbors(half, 5, metric="precomputed")
    uneven = D.copy()
    uneven[7, 30] += 1
    with pytest.raises(ValueError, match=r"symmetric matrix, but entry \[7, 30\] is [\d.]+ and \[30, 7\]"):
        nearest_neighbors(uneven, 5, metric="precomputed")
    similar = np.exp(-D)
    for S in (similar, sp.csr_array(similar)):
        with pytest.raises(ValueError, match=r"entry \[0, 0\] is 1 and every row is largest on the diagonal"):
            nearest_neighbors(S, 5, metric="precomputed")
    slightly = D * (1 + 1e-6 * np.random.default_rng(0).normal(size=D.shape))
    assert nearest_neighbors(slightly, 5, metric="precomputed").exact


def graph_of(X, k, include_self):
    return sp.csr_array(kneighbors_graph(X, k, mode="distance", include_self=include_self))


@pytest.mark.parametrize("n", [120, 400, 2100])
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("spec", [Gaussian(perplexity=10), StudentT(df=3.0, perplexity=10), Gaussian(sigma=1.5)])
def test_a_graph_of_neighbours_is_enough_at_any_number_of_rows(spec, n, include_self):
    X = hard("plain", n)
    for k in (31, 35):
        graph = graph_of(X, k, include_self)
        p = clone(spec).set_params(metric="precomputed").conditional(graph)
        used = k - include_self if spec.sigma or n <= 2000 else min(31, k - include_self)
        expected = clone(spec).set_params(n_neighbors=used).conditional(X)
        np.testing.assert_allclose(p.toarray(), expected.toarray(), atol=1e-9)
    by_transformer = KNeighborsTransformer(n_neighbors=31, mode="distance").fit_transform(X)
    p = clone(spec).set_params(metric="precomputed").conditional(by_transformer)
    expected = clone(spec).set_params(n_neighbors=31).conditional(X)
    np.testing.assert_allclose(p.toarray(), expected.toarray(), atol=1e-9)


def test_a_graph_of_few_neighbours():
    graph = graph_of(PLAIN, 9, False)
    with pytest.warns(UserWarning, match="=15 is too large for a graph of 9 neighbors a row; using n_neighbors=9"):
        p = UniformKNN(metric="precomputed").conditional(graph)
    np.testing.assert_allclose(p.toarray(), UniformKNN(n_neighbors=9).conditional(PLAIN).toarray())
    with pytest.warns(UserWarning, match="=30 is too large for a graph of 9 neighbors a row; using perplexity=3"):
        Gaussian(metric="precomputed").conditional(graph)
    with pytest.raises(ValueError, match=r"perplexity=12 needs .* a graph of 9 neighbors a row.*n_neighbors=37\)"):
        Gaussian(perplexity=12, metric="precomputed").conditional(graph)
    for spec in (UniformKNN(n_neighbors=10), Gaussian(perplexity=5, n_neighbors=10)):
        with pytest.raises(ValueError, match="row 0 of the precomputed graph has 9 neighbours, but n_neighbors=10"):
            spec.set_params(metric="precomputed").conditional(graph)
    lone = graph.tolil()
    lone[17] = 0
    with pytest.raises(ValueError, match="a graph of 0 neighbors a row, no more in row 17; lower"):
        Gaussian(perplexity=1, metric="precomputed").conditional(lone.tocsr())


@pytest.mark.filterwarnings("ignore:.*stopped after")
def test_estimators_read_graphs_of_few_neighbours():
    graph = graph_of(PLAIN, 9, True)
    few = ICONClustering(3, metric="precomputed", random_state=0, max_iter=20)
    assert len(few.fit(graph).labels_) == len(PLAIN)
    with pytest.warns(UserWarning, match="n_neighbors=15 is too large for a graph of 8 neighbors a row"):
        few.set_params(supervisory="knn").fit(graph)
    for name in ("gaussian", "student_t"):
        map_ = ICONEmbedding(supervisory=name, metric="precomputed", perplexity=5, random_state=0, max_iter=20)
        assert np.isfinite(map_.fit_transform(graph)).all()
