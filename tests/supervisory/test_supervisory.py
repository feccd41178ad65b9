from itertools import product
from math import exp, log, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.optimize import brentq
from sklearn.base import clone
from sklearn.manifold._t_sne import _joint_probabilities

from sklearn_icon import supervisory
from sklearn_icon._core.spec import resolve
from sklearn_icon._graph.neighbors import nearest_neighbors
from sklearn_icon.supervisory import (
    Counts,
    CrossModalPairs,
    DataLabel,
    FuzzyUnion,
    Gaussian,
    Graph,
    Identity,
    PositivePairs,
    PropagatedLabel,
    RandomWalk,
    SameClass,
    Spectral,
    StudentT,
    Supervisory,
    UniformKNN,
    UniformMixture,
)

N = 12


# --- oracles: the formulas by loops -------------------------------------------------------------------------------


def euclidean(X):
    return np.array([[sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True))) for y in X] for x in X.tolist()])


def cosine(X):
    def distance(x, y):
        return 1 - sum(x * y) / sqrt(sum(x * x) * sum(y * y))

    return np.array([[distance(x, y) for y in X] for x in X])


def nearest(distances, i, k):
    return sorted((j for j in range(len(distances)) if j != i), key=lambda j: (distances[i][j], j))[:k]


def kernel_row(distances, i, keys, kernel):
    values = {j: kernel(distances[i][j]) for j in keys}
    row = np.zeros(len(distances))
    for j in keys:
        row[j] = values[j] / sum(values.values())
    return row


def gaussian(sigma):
    return lambda d: exp(-(d**2) / (2 * sigma**2))


def student_t(df, sigma):
    return lambda d: (1 + d**2 / (df * sigma**2)) ** (-(df + 1) / 2)


def entropy(row):
    return -sum(p * log(p) for p in row if p > 0)


def fixed_width(kernel, k=N - 1):
    return lambda D: np.array([kernel_row(D, i, nearest(D, i, k), kernel) for i in range(len(D))])


def of_perplexity(kernel_of, perplexity, k=N - 1):
    def row(D, i):
        keys = nearest(D, i, k)

        def excess(log_sigma):
            return entropy(kernel_row(D, i, keys, kernel_of(exp(log_sigma)))) - log(perplexity)

        return kernel_row(D, i, keys, kernel_of(exp(brentq(excess, log(0.2), log(50), xtol=1e-13))))

    return lambda D: np.array([row(D, i) for i in range(len(D))])


def uniform_nearest(k):
    return lambda D: np.array([[1 / k if j in nearest(D, i, k) else 0 for j in range(len(D))] for i in range(len(D))])


def neighbor_graph(k):
    """The graph of k neighbours, symmetrised, from distances."""

    def graph(D):
        directed = np.array([[float(j in nearest(D, i, k)) for j in range(len(D))] for i in range(len(D))])
        return (directed + directed.T) / 2

    return graph


def on_eigenvectors(rows, n_components):
    """Rows of a p between rows of the leading eigenvectors of D^(-1/2) W D^(-1/2), over the roots of the degrees."""

    def of_graph(weights):
        weights = (weights.toarray() if sparse.issparse(weights) else np.array(weights)).astype(float)
        alone = ~weights.any(axis=1)
        weights[alone, alone] = 1  # a row without an edge is a part of its own
        roots = np.sqrt(weights.sum(axis=1))
        vectors = np.linalg.eigh(weights / roots / roots[:, None])[1][:, : -n_components - 1 : -1]
        return rows(euclidean(vectors / roots[:, None]))

    return of_graph


def same_group(y):
    rows = np.zeros((len(y), len(y)))
    for i, j in product(range(len(y)), repeat=2):
        if i != j and y[i] == y[j]:
            rows[i, j] = 1 / (sum(label == y[i] for label in y) - 1)
    return rows


def labels_shared(y):
    y = (y.toarray() if sparse.issparse(y) else y).tolist()
    shared = [[sum(a * b for a, b in zip(u, v, strict=True)) for v in y] for u in y]
    return row_shares(shared, drop_self=True)


def of_unlabelled(rows, unknown, otherwise):
    """The rows of known label as they are, the others from another p."""
    return lambda X, y: np.where(np.reshape(unknown(y), (-1, 1)), otherwise(euclidean(X)), rows(y))


def one_hot(y):
    classes = sorted(set(y))
    return np.array([[float(label == c) for c in classes] for label in y])


def row_shares(matrix, drop_self=False):
    matrix = matrix.toarray() if sparse.issparse(matrix) else np.array(matrix)
    rows = np.zeros(matrix.shape)
    for i, row in enumerate(matrix.astype(float)):
        total = sum(w for j, w in enumerate(row) if not (drop_self and j == i))
        for j, w in enumerate(row):
            if total > 0 and not (drop_self and j == i):
                rows[i, j] = w / total
    return rows


def mixed(rows, alpha, exclude_self):
    result = np.array(rows)
    n_rows, n_keys = rows.shape
    for i, j in product(range(n_rows), range(n_keys)):
        is_key = any(rows[i]) and not (exclude_self and i == j)
        result[i, j] = (1 - alpha) * rows[i, j] + alpha / (n_keys - exclude_self) if is_key else 0
    return result


def walked(rows, n_steps, binary, exclude_self):
    power, total = np.eye(len(rows)), np.zeros(rows.shape)
    for _ in range(n_steps):
        power = np.array([[sum(power[i] * rows[:, j]) for j in range(len(rows))] for i in range(len(rows))])
        total = total + power
    return row_shares(total > 0 if binary else total, drop_self=exclude_self)


# --- data and cases -----------------------------------------------------------------------------------------------


def make_data(dtype=np.float64):
    """What each kind of spec reads: (X, y) by kind."""
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(N, 3)).astype(dtype), rng.normal(size=(N, 2)).astype(dtype)
    weights = np.triu(rng.uniform(size=(N, N)) * (rng.uniform(size=(N, N)) < 0.4), 1)
    weights = (weights + weights.T).astype(dtype)
    weights[:, 5] = weights[5] = 0
    labels = np.array(list("aabbbacccabz"))
    indicator = np.array([[int(c) for c in row] for row in "101 011 001 000 110 111 000 100 010 001 101 000".split()])
    shares = rng.dirichlet(np.ones(4), size=N).astype(dtype)
    counts = rng.poisson(1.0, size=(N, 5)).astype(dtype)
    counts[2] = 0
    return {
        "X": (X, None),
        "distances": (euclidean(X.astype(float)).astype(dtype), None),
        "graph": (sparse.csr_matrix(weights), None),
        "graph as y": (X, weights),
        "features as y": (X, Y),
        "labels": (X, labels),
        "partial labels": (X, np.array([0, 5, -1, 5, 5, 0, 0, -1, -1, 5, -1, 7])),
        "indicator": (X, indicator),
        "sparse indicator": (X, sparse.csr_matrix(indicator)),
        "views": (X, np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 4])),
        "partners": (X, Y),
        "shares": (X, shares),
        "counts": (X, counts),
        "sparse counts": (X, sparse.csr_matrix(counts)),
    }


def permuted(kind, X, y, order):
    """The same items in another order."""
    if kind in ("distances", "graph"):
        return X[order][:, order], y
    if kind == "graph as y":
        return X[order], y[order][:, order]
    return X[order], None if y is None else y[order]


class Case(NamedTuple):
    """A spec, what it reads, its oracle, and what it declares."""

    spec: Supervisory
    kind: str
    oracle: Any
    exclude_self: bool = True
    tolerance: float = 1e-13
    keys_are_rows: bool = True


def on_X(rows, distances=euclidean):
    return lambda X, y: rows(distances(X))


_KNN = uniform_nearest(3)
BASES = {
    "gaussian-perplexity": Case(Gaussian(perplexity=4.0), "X", on_X(of_perplexity(gaussian, 4.0)), tolerance=2e-5),
    "gaussian-perplexity-neighbors": Case(
        Gaussian(perplexity=3.0, n_neighbors=5), "X", on_X(of_perplexity(gaussian, 3.0, 5)), tolerance=2e-5
    ),
    "gaussian-sigma": Case(Gaussian(sigma=0.8), "X", on_X(fixed_width(gaussian(0.8)))),
    "gaussian-sigma-neighbors": Case(Gaussian(sigma=0.8, n_neighbors=4), "X", on_X(fixed_width(gaussian(0.8), 4))),
    "gaussian-narrow": Case(Gaussian(sigma=0), "X", on_X(uniform_nearest(1))),
    "gaussian-cosine": Case(Gaussian(sigma=0.5, metric="cosine"), "X", on_X(fixed_width(gaussian(0.5)), cosine)),
    "gaussian-minkowski": Case(
        Gaussian(sigma=1.0, metric="minkowski", metric_params={"p": 3}),
        "X",
        on_X(
            fixed_width(gaussian(1.0)),
            lambda X: np.array([[(abs(x - y) ** 3).sum() ** (1 / 3) for y in X] for x in X]),
        ),
    ),
    "gaussian-precomputed": Case(
        Gaussian(sigma=0.8, metric="precomputed"), "distances", lambda X, y: fixed_width(gaussian(0.8))(X)
    ),
    "gaussian-companion": Case(
        Gaussian(sigma=0.8, source="y"), "features as y", lambda X, y: fixed_width(gaussian(0.8))(euclidean(y))
    ),
    "student-sigma": Case(StudentT(df=2.0, sigma=0.7), "X", on_X(fixed_width(student_t(2.0, 0.7)))),
    "student-neighbors": Case(
        StudentT(df=0.5, sigma=0.7, n_neighbors=3), "X", on_X(fixed_width(student_t(0.5, 0.7), 3))
    ),
    "student-perplexity": Case(
        StudentT(df=5.0, perplexity=8), "X", on_X(of_perplexity(lambda s: student_t(5.0, s), 8)), tolerance=2e-5
    ),
    "knn": Case(UniformKNN(n_neighbors=3), "X", on_X(_KNN)),
    "knn-companion": Case(UniformKNN(n_neighbors=3, source="y"), "features as y", lambda X, y: _KNN(euclidean(y))),
    "spectral": Case(
        Spectral(Gaussian(sigma=0.3), n_components=3, n_neighbors=4),
        "X",
        lambda X, y: on_eigenvectors(fixed_width(gaussian(0.3)), 3)(neighbor_graph(3)(euclidean(X))),
    ),
    "spectral-graph": Case(
        Spectral(UniformKNN(n_neighbors=3), n_components=4), "graph", lambda X, y: on_eigenvectors(_KNN, 4)(X)
    ),
    "identity": Case(
        Identity(), "X", lambda X, y: np.array([[float(i == j) for j in range(N)] for i in range(N)]), False
    ),
    "graph": Case(Graph(), "graph", lambda X, y: row_shares(X, drop_self=True)),
    "graph-y": Case(Graph(), "graph as y", lambda X, y: row_shares(y, drop_self=True)),
    "same-class": Case(SameClass(), "labels", lambda X, y: same_group(y)),
    "same-class-partial": Case(
        SameClass(unlabelled=UniformKNN(n_neighbors=3)),
        "partial labels",
        of_unlabelled(
            lambda y: same_group([c if c >= 0 else f"alone {i}" for i, c in enumerate(y)]), lambda y: y < 0, _KNN
        ),
    ),
    "shared-labels": Case(SameClass(), "indicator", lambda X, y: labels_shared(y)),
    "shared-labels-sparse": Case(SameClass(), "sparse indicator", lambda X, y: labels_shared(y)),
    "shared-labels-partial": Case(
        SameClass(unlabelled=Gaussian(sigma=0.8)),
        "indicator",
        of_unlabelled(labels_shared, lambda y: y.sum(axis=1) == 0, fixed_width(gaussian(0.8))),
    ),
    "positive-pairs": Case(PositivePairs(), "views", lambda X, y: same_group(y)),
    "cross-modal": Case(
        CrossModalPairs(),
        "partners",
        lambda X, y: np.array([[float(i == j) for j in range(N)] for i in range(N)]),
        False,
        keys_are_rows=False,
    ),
    "data-label": Case(DataLabel(), "labels", lambda X, y: one_hot(y), False, keys_are_rows=False),
    "data-label-shares": Case(DataLabel(), "shares", lambda X, y: row_shares(y), False, keys_are_rows=False),
    "counts": Case(Counts(), "counts", lambda X, y: row_shares(y), False, keys_are_rows=False),
    "counts-sparse": Case(Counts(), "sparse counts", lambda X, y: row_shares(y), False, keys_are_rows=False),
}


def mixture_of(case, alpha):
    return case._replace(
        spec=UniformMixture(case.spec, alpha),
        oracle=lambda X, y: mixed(case.oracle(X, y), alpha, case.exclude_self),
    )


def walk_of(case, n_steps, binary):
    return case._replace(
        spec=RandomWalk(case.spec, n_steps, binary=binary),
        oracle=lambda X, y: walked(case.oracle(X, y), n_steps, binary, case.exclude_self),
        tolerance=10 * case.tolerance,
    )


CASES = dict(BASES)
for name, case in BASES.items():
    CASES[f"mixture-{name}"] = mixture_of(case, 0.3)
    if case.keys_are_rows:
        CASES[f"walk-{name}"] = walk_of(case, 3, False)
        CASES[f"reach-{name}"] = walk_of(case, 2, True)
CASES["one-step"] = walk_of(BASES["knn"], 1, False)
CASES["one-step-binary"] = walk_of(BASES["graph"], 1, True)
CASES["mixture-walk"] = mixture_of(walk_of(BASES["knn"], 2, False), 0.4)
CASES["mixture-mixture"] = mixture_of(BASES["knn"], 0.4)._replace(
    spec=UniformMixture(UniformMixture(BASES["knn"].spec, 0.25), 0.2)
)

each_case = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])


def conditional(case, X, y):
    return case.spec.validate().conditional(X, y)


def as_double(array):
    if array is None or array.dtype.kind != "f":
        return array
    return array.astype(np.float64)


# --- one suite over every spec ------------------------------------------------------------------------------------


@each_case
def test_equals_the_formula(case):
    X, y = make_data()[case.kind]
    assert_allclose(conditional(case, X, y).toarray(), case.oracle(X, y), rtol=0, atol=case.tolerance)


@each_case
def test_equals_the_formula_in_single_precision(case):
    X, y = make_data(np.float32)[case.kind]
    expected = case.oracle(as_double(X), as_double(y))
    assert_allclose(conditional(case, X, y).toarray(), expected, rtol=0, atol=max(2e-6, 2 * case.tolerance))


@each_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_sum_to_one_and_self_mass_is_as_declared(case, dtype):
    X, y = make_data(dtype)[case.kind]
    p = conditional(case, X, y)
    dense = p.toarray()
    assert_allclose(dense.sum(axis=1), p.has_positives, rtol=1e-6 if dtype == np.float32 else 1e-12)
    assert (dense >= 0).all()
    assert p.exclude_self == case.exclude_self
    if case.exclude_self:
        assert_array_equal(np.diag(dense), 0)
    assert p.n_choices == dense.shape[1] - case.exclude_self
    assert (dense.shape[0] == dense.shape[1] == N) or not case.spec.over_rows
    assert case.spec.over_rows == case.keys_are_rows


@each_case
def test_the_order_of_the_items_does_not_matter(case):
    X, y = make_data()[case.kind]
    order = np.random.default_rng(1).permutation(N)
    expected = conditional(case, X, y).toarray()[order]
    if expected.shape[1] == N:
        expected = expected[:, order]
    actual = conditional(case, *permuted(case.kind, X, y, order)).toarray()
    assert_allclose(actual, expected, rtol=0, atol=1e-12)


@each_case
def test_inputs_and_spec_are_left_alone(case):
    (X, y), (X_before, y_before) = make_data()[case.kind], make_data()[case.kind]
    parameters = case.spec.get_params()
    conditional(case, X, y)
    for after, before in ((X, X_before), (y, y_before)):
        if sparse.issparse(before):
            assert abs(after - before).nnz == 0
        elif before is not None:
            assert_array_equal(after, before)
    assert case.spec.get_params() == parameters
    assert not any(name.endswith("_") for name in vars(case.spec))


@each_case
def test_clone_and_parameters_round_trip(case):
    copy = clone(case.spec)
    assert copy is not case.spec
    assert repr(copy) == repr(case.spec)
    parameters = copy.get_params(deep=True)
    copy.set_params(**parameters)
    assert repr(copy.get_params()) == repr(parameters)
    X, y = make_data()[case.kind]
    assert_array_equal(copy.conditional(X, y).toarray(), conditional(case, X, y).toarray())


@each_case
def test_lists_are_read_like_arrays(case):
    X, y = make_data()[case.kind]
    if sparse.issparse(X) or sparse.issparse(y):
        assert_array_equal(
            case.spec.conditional(sparse.csr_array(X), None if y is None else sparse.csr_array(y)).toarray(),
            conditional(case, X, y).toarray(),
        )
    else:
        actual = case.spec.conditional(X.tolist(), None if y is None else y.tolist())
        assert_array_equal(actual.toarray(), conditional(case, X, y).toarray())


@each_case
def test_what_is_missing_is_said(case):
    X, y = make_data()[case.kind]
    if not case.spec.needs_y:
        assert case.kind in ("X", "distances", "graph", "graph as y", "counts", "sparse counts")
        return
    assert y is not None
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None") as error:
        case.spec.conditional(X)
    assert case.spec.needs_y in str(error.value)


# --- parameters ---------------------------------------------------------------------------------------------------

BAD = [
    *[(cls(**{name: value}), name) for cls in (Gaussian, StudentT, UniformKNN) for name, value in [
        ("n_neighbors", 0), ("n_neighbors", 2.5), ("n_neighbors", "many"), ("metric", 3),
        ("metric_params", [1]), ("source", "Z"),
    ]],
    *[(cls(**{name: value}), name) for cls in (Gaussian, StudentT) for name, value in [
        ("perplexity", 0.5), ("perplexity", "30"), ("perplexity", None), ("sigma", -1.0),
        ("sigma", "wide"),
    ]],
    (StudentT(sigma=0), "sigma"),
    (StudentT(df=0), "df"),
    (StudentT(df=None), "df"),
    (UniformKNN(n_neighbors=None), "n_neighbors"),
    (SameClass(n_positives=0), "n_positives"),
    (SameClass(unlabelled="knn"), "unlabelled"),
    (SameClass(unlabelled=UniformKNN), "unlabelled"),
    (UniformMixture(SameClass(), -0.1), "alpha"),
    (UniformMixture(SameClass(), 1.1), "alpha"),
    (UniformMixture(SameClass(), None), "alpha"),
    (UniformMixture("same_class", 0.1), "base"),
    (UniformMixture(SameClass, 0.1), "base"),
    (RandomWalk(SameClass(), 0), "n_steps"),
    (RandomWalk(SameClass(), 1.5), "n_steps"),
    (RandomWalk(SameClass(), 2, binary="yes"), "binary"),
    (RandomWalk(None, 2), "base"),
    (Spectral(None), "base"),
    (Spectral(Gaussian(sigma=-1)), "sigma"),
    (Spectral(Gaussian(), n_components=0), "n_components"),
    (Spectral(Gaussian(), affinity="nothing of the kind"), "affinity"),
    (Spectral(Gaussian(), n_neighbors=1), "n_neighbors"),
    (UniformMixture(Gaussian(perplexity=0.5), 0.1), "perplexity"),
    (RandomWalk(UniformMixture(UniformKNN(n_neighbors=0), 0.1), 2), "n_neighbors"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "name"), BAD)
def test_bad_parameters_are_named(spec, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of .* must be") as error:
        spec.validate()
    owner = spec
    while name not in owner.get_params(deep=False):
        owner = owner.base
    assert type(owner).__name__ in str(error.value)


def test_nested_parameters_reach_the_rows():
    X, _ = make_data()["X"]
    spec = UniformMixture(RandomWalk(Gaussian(perplexity=3.0), 2), 0.1)
    before = spec.conditional(X).toarray()
    for change in ({"base__base__perplexity": 6.0}, {"base__n_steps": 1}, {"base__binary": True}, {"alpha": 0.5}):
        changed = clone(spec).set_params(**change)
        assert abs(changed.conditional(X).toarray() - before).max() > 1e-3, change
    assert_array_equal(spec.conditional(X).toarray(), before)


def test_every_parameter_of_a_neighborhood_matters():
    X, y = make_data()["features as y"]
    for spec, changes in [
        (Gaussian(perplexity=3.0), [{"perplexity": 4.0}, {"sigma": 1.0}, {"n_neighbors": 5}, {"metric": "cosine"}]),
        (StudentT(sigma=1.0), [{"df": 2.0}, {"sigma": 2.0}, {"n_neighbors": 5}, {"metric": "cosine"}]),
        (UniformKNN(n_neighbors=3), [{"n_neighbors": 4}, {"metric": "cosine"}]),
        (FuzzyUnion(n_neighbors=4), [{"n_neighbors": 5}, {"metric": "cosine"}]),
    ]:
        before = spec.conditional(X, y).toarray()
        for change in [*changes, {"source": "y"}, {"metric": "minkowski", "metric_params": {"p": 1}}]:
            changed = clone(spec).set_params(**change).conditional(X, y).toarray()
            assert abs(changed - before).max() > 1e-6, (spec, change)


def test_names_make_specs():
    for name, make in supervisory.NAMES.items():
        assert str(resolve(name, Supervisory, supervisory.NAMES, "supervisory")) == str(make())
    with pytest.raises(ValueError, match=r"supervisory='tsne' is not known; use one of \['counts'"):
        resolve("tsne", Supervisory, supervisory.NAMES, "supervisory")
    with pytest.raises(TypeError, match=r"supervisory=Gaussian is a class; pass an instance, Gaussian\(...\)"):
        resolve(Gaussian, Supervisory, supervisory.NAMES, "supervisory")
    with pytest.raises(TypeError, match=r"supervisory must be None, one of .*sklearn_icon\.supervisory; got 3"):
        resolve(3, Supervisory, supervisory.NAMES, "supervisory")
    given_spec = Gaussian(perplexity=3.0)
    resolved = resolve(given_spec, Supervisory, supervisory.NAMES, "supervisory")
    assert resolved is not given_spec
    assert resolved.perplexity == 3.0
    with pytest.raises(ValueError, match="perplexity"):
        resolve(Gaussian(perplexity=0.1), Supervisory, supervisory.NAMES, "supervisory")


# --- known values -------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**16), st.integers(4, 25), st.floats(0.1, 0.9))
def test_rows_have_the_perplexity_asked_for(seed, n, share):
    X = np.random.default_rng(seed).normal(size=(n, 4))
    perplexity = 1.5 + share * (n - 2.5)
    rows = Gaussian(perplexity=perplexity).conditional(X).toarray()
    assert_allclose([exp(entropy(row)) for row in rows], perplexity, rtol=1.1e-5)


@pytest.mark.parametrize("perplexity", [3.0, 10.0, 25.0])
def test_joint_form_agrees_with_scikit_learn(perplexity):
    X = np.random.default_rng(0).normal(size=(40, 5))
    P = Gaussian(perplexity=perplexity).conditional(X).toarray()
    condensed = _joint_probabilities((euclidean(X) ** 2).astype(np.float32), perplexity, 0)
    assert_allclose(((P + P.T) / 80)[np.triu_indices(40, 1)], condensed, rtol=0, atol=1e-4 / 40)


def test_a_large_data_set_keeps_three_perplexities_of_neighbors(monkeypatch):
    X = np.random.default_rng(0).normal(size=(30, 3))
    monkeypatch.setattr(supervisory._neighborhoods, "_FULL_ROWS", 29)
    p = Gaussian(perplexity=4.5).conditional(X)
    assert_array_equal(np.diff(p.weights.indptr), int(3 * 4.5) + 1)
    assert_allclose(p.toarray(), of_perplexity(gaussian, 4.5, 14)(euclidean(X)), rtol=0, atol=2e-5)
    assert_array_equal(np.diff(Gaussian(sigma=1.0).conditional(X).weights.indptr), 29)
    assert_array_equal(np.diff(Gaussian(perplexity=4.5, n_neighbors=20).conditional(X).weights.indptr), 20)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Gaussian(perplexity=12), "perplexity=12 needs at least 13 samples, got 12; set perplexity to at most 11"),
        (StudentT(perplexity=30), "perplexity=30 needs at least 31 samples, got 12"),
        (Gaussian(perplexity=5, n_neighbors=4), "perplexity=5 needs at least that many neighbors, but n_neighbors=4"),
        (Gaussian(sigma=1.0, n_neighbors=12), "n_neighbors=12 must be an integer from 1 to n - 1 = 11"),
        (UniformKNN(n_neighbors=12), "n_neighbors=12 must be an integer from 1 to n - 1 = 11"),
    ],
)
def test_what_the_rows_cannot_carry_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        spec.conditional(make_data()["X"][0])


def test_defaults_shrink_with_a_warning():
    X, _ = make_data()["X"]
    with pytest.warns(UserWarning, match="default perplexity=30 is too large for 12 samples; using perplexity=3.66667"):
        p = Gaussian().conditional(X)
    assert_allclose(p.toarray(), of_perplexity(gaussian, 11 / 3)(euclidean(X)), rtol=0, atol=2e-5)
    with pytest.warns(UserWarning, match="default perplexity=30 .* using perplexity=2. Set perplexity explicitly"):
        p = Gaussian(n_neighbors=6).conditional(X)
    assert_allclose(p.toarray(), of_perplexity(gaussian, 2.0, 6)(euclidean(X)), rtol=0, atol=2e-5)
    with pytest.warns(UserWarning, match="default n_neighbors=15 is too large for 12 samples; using n_neighbors=11"):
        p = UniformKNN().conditional(X)
    assert_allclose(p.toarray(), uniform_nearest(11)(euclidean(X)), rtol=1e-14)
    assert UniformKNN().conditional(np.arange(16.0)[:, None]).weights.nnz == 16 * 15


@pytest.mark.parametrize("spec", [Gaussian, StudentT])
def test_a_perplexity_between_the_other_rows_and_all(spec):
    X = np.random.default_rng(0).normal(size=(14, 3))
    with pytest.warns(UserWarning, match="perplexity=13.4 is above that of uniform weights on the 13 other rows"):
        p = spec(perplexity=13.4).conditional(X)
    assert_allclose(p.toarray(), (1 - np.eye(14)) / 13, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "spec",
    [
        Gaussian(perplexity=4.0),
        Gaussian(sigma=0.8, n_neighbors=6),
        StudentT(df=2.0, sigma=1.0),
        UniformKNN(n_neighbors=4),
    ],
)
def test_new_rows_follow_the_same_kernel(spec):
    X, _ = make_data()["X"]
    p = spec.conditional(X)
    neighbors = nearest_neighbors(X, int(np.diff(p.weights.indptr).max()))
    rows = spec.rows_at(neighbors.distances)
    assert_allclose(rows, np.take_along_axis(p.toarray(), neighbors.indices, axis=1), rtol=1e-12)


def test_new_rows_use_the_perplexity_that_the_default_shrank_to():
    X, _ = make_data()["X"]
    with pytest.warns(UserWarning, match="default perplexity"):
        p = Gaussian().conditional(X)
    neighbors = nearest_neighbors(X, N - 1)
    expected = np.take_along_axis(p.toarray(), neighbors.indices, axis=1)
    assert_allclose(Gaussian().rows_at(neighbors.distances), expected, rtol=1e-12)


def test_a_walk_leaves_the_uniform_mass_as_it_is():
    X, _ = make_data()["X"]
    p = RandomWalk(UniformMixture(UniformKNN(n_neighbors=3), 0.3), 2).conditional(X)
    walk = RandomWalk(UniformKNN(n_neighbors=3), 2).conditional(X)
    assert p.uniform == pytest.approx(0.3, rel=1e-15)
    assert_allclose(p.toarray(), walk.mix(0.3).toarray(), rtol=1e-14)


@pytest.mark.parametrize("base", [DataLabel(), CrossModalPairs(), UniformMixture(DataLabel(), 0.1)])
def test_no_walk_over_keys_that_are_no_rows(base):
    X = np.arange(3.0)[:, None]
    with pytest.raises(
        ValueError, match=rf"RandomWalk\(\) needs keys that are rows, but {type(base.plain()).__name__}"
    ):
        RandomWalk(base, 2).conditional(X, np.array([0, 1, 2]) if not isinstance(base, CrossModalPairs) else X)


def test_partners_come_one_to_one():
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[3, 2\]"):
        CrossModalPairs().conditional(np.zeros((3, 1)), np.zeros((2, 1)))


def test_counts_are_y_where_that_is_a_matrix_else_X():
    X, counts = make_data()["counts"]
    expected = row_shares(counts)
    labels = np.arange(N) % 2
    for y in (None, labels, labels.tolist(), list("abcabcabcabc")):
        assert_allclose(Counts().conditional(counts, y).toarray(), expected, rtol=1e-14)
    for y in (counts, counts.tolist(), sparse.csr_array(counts), sparse.coo_matrix(counts)):
        assert_allclose(Counts().conditional(X, y).toarray(), expected, rtol=1e-14)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[12, 5\]"):
        Counts().conditional(X, counts[:5])
    with pytest.raises(ValueError, match="Negative values in data"):
        Counts().conditional(X)


@pytest.mark.parametrize(
    ("spec", "graph", "message"),
    [
        (Graph(), np.ones((3, 2)), r"Graph\(\) needs a square matrix of weights, got shape \(3, 2\)"),
        (
            Graph(),
            np.eye(3) - 0.5 * np.eye(3, k=1),
            r"passed to graph: the weight of \[0, 1\] is -0\.5; pass none below",
        ),
        (
            Graph(),
            sparse.csr_array(-np.eye(3, k=-2)),
            r"passed to graph: the weight of \[2, 0\] is -1; pass none below",
        ),
        (Counts(), -np.ones((3, 3)), r"Negative values in data passed to y: the count of \[0, 0\] is -1"),
        (Graph(), np.full((3, 3), np.nan), "NaN"),
    ],
)
def test_what_is_no_graph_is_refused(spec, graph, message):
    with pytest.raises(ValueError, match=message):
        spec.conditional(np.zeros((3, 1)), graph)


def test_degrees_are_those_of_the_graph():
    W, _ = make_data()["graph"]
    p = Graph().conditional(W)
    assert_allclose(p.degrees, W.toarray().sum(axis=1), rtol=1e-14)
    assert_array_equal(p.has_positives, np.arange(N) != 5)


def test_threads_and_seed_do_not_change_small_data():
    X, _ = make_data()["X"]
    for spec in (Gaussian(perplexity=4.0), UniformKNN(n_neighbors=3), RandomWalk(UniformKNN(n_neighbors=3), 2)):
        other = spec.conditional(X, n_jobs=2, random_state=5).toarray()
        assert_array_equal(other, spec.conditional(X, n_jobs=1, random_state=0).toarray())


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1e8, 1e100])
@pytest.mark.parametrize(
    "spec", [Gaussian(perplexity=4.0), StudentT(df=5.0, perplexity=8.0), UniformKNN(n_neighbors=3)]
)
def test_the_scale_of_the_data_does_not_matter(spec, scale):
    X, _ = make_data()["X"]
    assert_allclose(spec.conditional(scale * X).toarray(), spec.conditional(X).toarray(), rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    "spec", [Gaussian(perplexity=3.0), Gaussian(sigma=1.0), StudentT(sigma=1.0), StudentT(perplexity=3)]
)
def test_equal_rows_share_evenly(spec):
    rows = spec.conditional(np.ones((6, 2))).toarray()
    assert_allclose(rows, (1 - np.eye(6)) / 5, rtol=1e-12)


@pytest.mark.parametrize(
    "spec", [Gaussian(sigma=1.0), Gaussian(perplexity=1.0), StudentT(sigma=1.0), UniformKNN(n_neighbors=1)]
)
@pytest.mark.parametrize("distance", [0.0, 1.0, 1e6])
def test_two_rows_have_each_other(spec, distance):
    assert_array_equal(spec.conditional([[0.0], [distance]]).toarray(), [[0, 1], [1, 0]])


def test_far_rows_keep_their_nearest():
    rows = Gaussian(sigma=1.0).conditional([[0.0], [1.0], [1e6]]).toarray()
    assert_array_equal(rows, [[0, 1, 0], [1, 0, 0], [0, 1, 0]])


def test_rows_that_no_label_reaches_have_no_positive():
    rows = np.array([[0.0], [1.0], [2.0], [50.0], [51.0], [52.0]])
    p = PropagatedLabel(UniformKNN(n_neighbors=2)).conditional(rows, [-1, 3, 5, -1, -1, -1])
    assert_array_equal(p.has_positives, [True, True, True, False, False, False])


def test_labels_are_carried_over_graphs_and_kernels_too():
    graph = sparse.csr_array(np.array([[0, 1, 0], [1, 0, 3], [0, 3, 0]], dtype=float))
    p = PropagatedLabel(Graph()).conditional(graph, ["no", "no", "yes"])
    assert_array_equal(p.toarray(), [[1, 0], [1, 0], [0, 1]])
    p = PropagatedLabel(Graph()).conditional(graph, [0, -1, 1]).toarray()[1]
    assert p[1] > p[0] > 0.3  # the heavier edge


def test_labels_that_cannot_be_carried():
    with pytest.raises(ValueError, match="y holds no label but -1"):
        PropagatedLabel().conditional(np.eye(20), np.full(20, -1))
    with pytest.raises(ValueError, match=r"carries labels over p between rows of X, which DataLabel\(\) is not"):
        PropagatedLabel(DataLabel()).conditional(np.eye(3), [0, 1, -1])


def test_positives_that_are_drawn(monkeypatch):
    target = np.array([0] * 5 + [1] * 9 + [2])
    every = SameClass().conditional(np.eye(15), target)
    drawn = SameClass(n_positives=4000).conditional(np.eye(15), target, random_state=0)
    assert_array_equal(drawn.has_positives, every.has_positives)
    assert_allclose(drawn.toarray(), every.toarray(), atol=0.03)
    assert_array_equal(drawn.toarray() > 0, every.toarray() > 0)
    monkeypatch.setattr(supervisory._labels, "_MOST_PAIRS", 100)
    assert SameClass().conditional(np.eye(15), target, random_state=0).weights.nnz < 15 * 14
    again = [SameClass(n_positives=3).conditional(np.eye(15), target, random_state=0).toarray() for _ in range(2)]
    assert_array_equal(*again)


def test_shared_labels_that_are_drawn(monkeypatch):
    X, indicator = make_data()["indicator"]
    every = SameClass().conditional(X, indicator)
    drawn = SameClass(n_positives=4000).conditional(X, indicator, random_state=0)
    assert_allclose(drawn.toarray(), every.toarray(), atol=0.03)
    assert_array_equal(drawn.toarray() > 0, every.toarray() > 0)
    monkeypatch.setattr(supervisory._labels, "_MOST_PAIRS", 10)
    monkeypatch.setattr(supervisory._labels, "_DRAWN_POSITIVES", 2)
    assert np.diff(SameClass().conditional(X, sparse.csr_array(indicator)).weights.indptr).max() <= 2


def test_minus_one_is_a_class_until_rows_may_be_unlabelled():
    X, target = make_data()["partial labels"]
    assert SameClass().conditional(X, target).toarray()[2, 7] == 1 / 3
    partly = SameClass(unlabelled=UniformKNN(n_neighbors=3))
    for y in (target, target.astype(float), target.astype(object), target[:, None]):
        assert_array_equal(partly.conditional(X, y).toarray(), partly.conditional(X, target).toarray())
    known = np.array(list("abababababab"))
    assert_array_equal(partly.conditional(X, known).toarray(), SameClass().conditional(X, known).toarray())
    nothing = partly.conditional(X, np.full(N, -1))
    assert_array_equal(nothing.toarray(), UniformKNN(n_neighbors=3).conditional(X).toarray())


def test_parameters_of_unlabelled_rows_reach_p():
    X, target = make_data()["partial labels"]
    spec = SameClass(unlabelled=Gaussian(perplexity=3.0))
    before = spec.conditional(X, target).toarray()
    changed = clone(spec).set_params(unlabelled__perplexity=5.0).conditional(X, target).toarray()
    assert abs(changed - before)[target < 0].max() > 1e-3
    assert_array_equal(changed[target >= 0], before[target >= 0])
    with pytest.raises(ValueError, match="The 'perplexity' parameter of Gaussian"):
        SameClass(unlabelled=Gaussian(perplexity=0.5)).validate()


@pytest.mark.parametrize("base", [SameClass(), DataLabel(), Gaussian(source="y"), UniformMixture(UniformKNN(), 0.1)])
def test_unlabelled_rows_need_a_p_over_rows(base):
    with pytest.raises(ValueError, match=r"must be a p between rows of X alone, such as UniformKNN\(\)"):
        SameClass(unlabelled=base).validate()


@pytest.mark.parametrize(
    "y", [np.full((N, 2), 0.5), np.arange(2 * N).reshape(N, 2), sparse.csr_array(np.full((N, 2), 3))]
)
def test_an_indicator_holds_zeros_and_ones(y):
    with pytest.raises(ValueError, match=r"y of shape \(12, 2\) must hold 0 and 1, .* pass class labels as 1-D"):
        SameClass().conditional(np.zeros((N, 1)), y)


def test_companion_features_are_dense_sparse_or_one_column():
    X, Y = make_data()["features as y"]
    Y = np.where(Y > 0, Y, 0)
    spec = Gaussian(sigma=0.8, source="y")
    dense = spec.conditional(X, Y)
    assert_allclose(spec.conditional(X, sparse.csr_array(Y)).toarray(), dense.toarray(), atol=1e-12)
    assert_array_equal(spec.conditional(X, Y[:, 0]).toarray(), spec.conditional(X, Y[:, :1]).toarray())
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        spec.conditional(X, Y[:4])


# --- no width, and eigenvectors -----------------------------------------------------------------------------------


def test_no_width_shares_ties():
    line = np.array([[0.0], [1.0], [2.0], [5.0]])
    wanted = [[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert_array_equal(Gaussian(sigma=0).conditional(line).toarray(), wanted)
    copies = np.r_[np.zeros(40), np.arange(1, 4)][:, None]  # more ties than are searched at first
    p = Gaussian(sigma=0).conditional(copies).toarray()
    assert_allclose(p[:40, :40], (1 - np.eye(40)) / 39)
    assert_allclose(p[40, :40], 1 / 41)
    assert p[40, 41] == p[40, 0]


def test_no_width_is_the_limit():
    X, _ = make_data()["X"]
    limit = Gaussian(sigma=0)
    assert_allclose(limit.conditional(X).toarray(), Gaussian(sigma=1e-3).conditional(X).toarray(), atol=1e-12)
    assert_array_equal(np.exp(limit.log_rows_with_self(X)), np.eye(N))
    assert_array_equal(limit.rows_at(np.array([[1.0, 1.0, 2.0]])), [[0.5, 0.5, 0.0]])
    assert limit.narrow
    assert not Gaussian(sigma=1e-3).narrow
    assert not Gaussian().narrow


def test_every_parameter_of_eigenvectors_matters():
    X, _ = make_data()["X"]
    spec = Spectral(Gaussian(sigma=0.3), n_components=3, n_neighbors=4)
    before = spec.conditional(X).toarray()
    for change in ({"base__sigma": 0.5}, {"n_components": 4}, {"n_neighbors": 5}):
        assert abs(clone(spec).set_params(**change).conditional(X).toarray() - before).max() > 1e-3, change


def test_which_matrices_are_graphs():
    graph = make_data()["graph"][0]
    auto, given_graph, features = (
        Spectral(Gaussian(), affinity=a) for a in ("auto", "precomputed", "nearest_neighbors")
    )
    for matrix, is_graph in ((graph, True), (graph.toarray(), False), (sparse.triu(graph, format="csr"), False)):
        assert auto.reads_graph(matrix) == is_graph
        assert given_graph.reads_graph(matrix)
        assert not features.reads_graph(matrix)
    assert not auto.reads_graph(graph[:5])
    dense = clone(given_graph).set_params(base__sigma=0.3, n_components=4)
    wanted = clone(auto).set_params(base__sigma=0.3, n_components=4).conditional(graph).toarray()
    assert_allclose(dense.conditional(graph.toarray()).toarray(), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        ({"n_components": None}, np.ones((20, 2)), r"n_components=None in Spectral.* stands for n_clusters"),
        ({"n_components": 21}, np.ones((20, 2)), r"n_components=21 in .* at most n_samples=20"),
        ({"affinity": "precomputed"}, np.ones((20, 2)), r"needs a square .*kneighbors_graph\(X, 10\), symmetrised"),
        ({"affinity": "precomputed"}, np.triu(np.ones((20, 20))), r"symmetric graph of weights; .* \(X \+ X.T\) / 2"),
        ({"affinity": "precomputed"}, -np.ones((20, 20)), "Negative values in data"),
    ],
)
def test_eigenvectors_say_what_they_need(change, rows, message):
    spec = Spectral(UniformKNN(3), n_components=2).set_params(**change).validate()
    with pytest.raises(ValueError, match=message):
        spec.conditional(rows)


def test_eigenvectors_of_few_rows():
    with pytest.warns(UserWarning, match="the default n_neighbors=10 is too large for 6 samples; using n_neighbors=6"):
        Spectral(UniformKNN(2), n_components=2).conditional(np.arange(6.0)[:, None] ** 2)


@pytest.mark.parametrize("base", [SameClass(), Graph(), Gaussian(source="y"), UniformKNN(metric="precomputed")])
def test_eigenvectors_take_the_place_of_features(base):
    for spec in (Spectral(base), Spectral(RandomWalk(base, 2))):
        with pytest.raises(ValueError, match="must measure distances between rows of X"):
            spec.validate()


@pytest.mark.parametrize("make", [Gaussian, StudentT])
@pytest.mark.parametrize("sigma", [1e-170, 1e-280, 3e155, 1e300])
def test_widths_without_a_square_are_refused(make, sigma):
    for refuse in (make(sigma=sigma).validate, lambda: make(sigma=sigma).conditional(np.eye(5))):
        with pytest.raises(
            ValueError,
            match=rf"sigma={sigma:g} has a square beyond".replace("+", r"\+") + " .* double precision; bring X",
        ):
            refuse()


@pytest.mark.parametrize("make", [Gaussian, StudentT])
@pytest.mark.parametrize("scale", [1e-140, 1e-60, 1e60, 1e140])
def test_scale_changes_no_row(make, scale):
    X = np.random.default_rng(1).normal(size=(30, 4))
    rows = make(perplexity=7).conditional(X).toarray()
    assert_allclose(make(perplexity=7).conditional(X * scale).toarray(), rows, atol=1e-5)
    rows = make(sigma=0.7).conditional(X).toarray()
    assert_allclose(make(sigma=0.7 * scale).conditional(X * scale).toarray(), rows, rtol=1e-8)


# --- UMAP's p -------------------------------------------------------------------------------------------------------


def local_fuzzy(X, k):
    """w_ij by loops; s_i by bisection."""
    n, d = len(X), euclidean(X)
    v = np.zeros((n, n))
    for i in range(n):
        others = sorted((d[i][j], j) for j in range(n) if j != i)[: k - 1]
        rho = min([e for e, _ in others if e > 0], default=0.0)
        low, high = 1e-3 * sum(e for e, _ in others) / k, 1e6
        for _ in range(200):
            s = (low + high) / 2
            above = sum(np.exp(-max(0, e - rho) / s) for e, _ in others) > np.log2(k)
            low, high = (low, s) if above else (s, high)
        for e, j in others:
            v[i, j] = np.exp(-max(0, e - rho) / s)
    return v + v.T - v * v.T


@pytest.mark.parametrize("k", [2, 3, 8])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_fuzzy_union_by_loops(k, scale):
    X = np.random.default_rng(k).normal(size=(25, 3))
    w = local_fuzzy(X, k)
    p = FuzzyUnion(n_neighbors=k).conditional(scale * X)
    assert p.weighs_rows
    assert_allclose(p.degrees, w.sum(axis=1), rtol=1e-8)
    assert_allclose(p.toarray(), w / w.sum(axis=1, keepdims=True), rtol=1e-8, atol=1e-12)


def test_fuzzy_union_of_umap_learn():
    umap = pytest.importorskip("umap.umap_", reason="a peer of the benchmarks")
    X = np.random.default_rng(0).normal(size=(300, 5))
    theirs = umap.fuzzy_simplicial_set(X, 15, np.random.RandomState(0), "euclidean")[0].toarray()
    p = FuzzyUnion().conditional(X)
    assert_allclose(p.toarray() * p.degrees[:, None], theirs, atol=1e-4)  # to which theirs searches


def test_fuzzy_union_of_few_or_equal_rows():
    with pytest.warns(UserWarning, match="n_neighbors=15 is too large for 6 samples; using n_neighbors=6"):
        assert FuzzyUnion().conditional(np.arange(6.0)[:, None]).weights.nnz == 30
    assert_allclose(FuzzyUnion(n_neighbors=4).conditional(np.zeros((9, 2))).toarray().sum(axis=1), 1)
