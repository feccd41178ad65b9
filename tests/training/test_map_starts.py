"""Where maps start: from the data, from arrays of any kind; and that a fitted map shares no memory with anyone."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn.datasets import make_blobs

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, supervisory
from sklearn_icon._training.initialization import given_map, initial_map

X, y = make_blobs(120, 6, centers=3, cluster_std=4, random_state=3)
RNG = np.random.RandomState(0)
PLANE = RNG.standard_normal((120, 2))
LINE = np.linspace(-1, 1, 120)


def fit(init, n_components=2, **options):
    return ICONEmbedding(n_components, init=init, perplexity=10, max_iter=250, random_state=0, **options).fit(X)


USUAL = fit("pca").kl_divergence_


@pytest.mark.parametrize(
    "start",
    [
        np.zeros((120, 2)),
        np.full((120, 2), 0.1),
        np.c_[LINE, np.zeros(120)],
        np.c_[LINE, LINE] * 1e-3,
        np.c_[LINE, 2 * LINE] + 7,
        np.c_[np.full(120, 1e9), 1e-3 * LINE],
        PLANE * 1e-300,
        PLANE * 1e6,
        PLANE * 1e300,
        PLANE + 1e8,
        (PLANE * 10).astype(int),
        PLANE > 0,
        PLANE.astype(np.float16),
        PLANE.tolist(),
        pd.DataFrame(PLANE),
    ],
)
def test_any_start_of_numbers_gives_a_map(start):
    m = fit(start)
    assert m.embedding_.std(axis=0).min() > 1 and m.kl_divergence_ < 1.15 * USUAL


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_no_width_in_a_direction_of_the_data_itself(n_components):
    line = LINE[:, None] * np.array([1.0, 2.0, 0.0])
    Z = ICONEmbedding(n_components, perplexity=10, random_state=0).fit_transform(line)
    assert np.linalg.eigvalsh(np.atleast_2d(np.cov(Z.T)))[0] > 0.1


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (PLANE[:-1], r"shape \(119, 2\).*shape \(120, 2\)"),
        (PLANE[:, :1], r"shape \(120, 1\)"),
        (PLANE[:, 0], r"shape \(120,\)"),
        (np.where(PLANE > 2, np.nan, PLANE), "NaN or infinity: nan in row"),
        (np.where(PLANE > 2, -np.inf, PLANE), "NaN or infinity: -inf in row"),
        (np.ma.masked_greater(PLANE, 2), "NaN"),
        (PLANE.astype(complex), "complex128"),
        (PLANE.astype(str), "real numbers"),
        ([[1.0, 2.0], [3.0]], "real numbers"),
        (np.array([[None, "a"]] * 120, dtype=object), "real numbers"),
    ],
)
def test_other_arrays_are_refused_by_name_before_any_work(monkeypatch, start, message):
    monkeypatch.setattr(supervisory.Gaussian, "conditional", None)
    with pytest.raises(ValueError, match=f"init .*{message}"):
        fit(start)


@pytest.mark.parametrize("start", [None, 3, "umap"])
def test_what_is_no_array_is_refused(start):
    with pytest.raises(ValueError, match="'init' parameter"):
        fit(start)


def test_usual_arrays_are_taken_as_they_are():
    p = supervisory.Gaussian(perplexity=10).conditional(X)
    for start in (PLANE, PLANE * 30, PLANE * 1e-3 + 0.5):
        found = initial_map(start, 2, X, p, np.random.RandomState(0))
        np.testing.assert_array_equal(found, start)
        assert not np.shares_memory(found, start)
    assert given_map(PLANE.astype(np.float32), (120, 2)).dtype == np.float64


@pytest.mark.parametrize("frame", ["pandas", "polars"])
@pytest.mark.parametrize(
    "estimator",
    [
        ICONEmbedding(perplexity=10, max_iter=30, random_state=0),
        ICONEmbedding(init="spectral", perplexity=10, max_iter=30, random_state=0),
        ICONEmbedding(encoder="linear", perplexity=10, max_iter=30, random_state=0),
        ICONEmbedding(encoder="mlp", perplexity=10, max_iter=30, random_state=0),
        ICONClustering(3, max_iter=30, n_init=1, random_state=0),
        ICONClassifier(),
    ],
    ids=repr,
)
def test_a_global_output_container_reaches_no_inner_transformer(estimator, frame):
    pytest.importorskip(frame)
    plain = sklearn.clone(estimator).fit(X, y)
    with sklearn.config_context(transform_output=frame):
        framed = sklearn.clone(estimator).fit(X, y)
    for name, value in vars(plain).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(vars(framed)[name], value)


def arrays_within(value, found, seen):
    """All arrays that an object holds, however deep."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray) and value.dtype != object:
        found.append(value)
    elif sparse.issparse(value):
        found += [value.data, value.indices, value.indptr]
    elif isinstance(value, dict):
        for part in value.values():
            arrays_within(part, found, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            arrays_within(part, found, seen)
    elif hasattr(value, "__dict__") and type(value).__module__.startswith("sklearn_icon"):
        arrays_within(vars(value), found, seen)


COUNTS = np.random.RandomState(0).poisson(2.0, (120, 8)).astype(float)
OWNERS = {
    "map": (ICONEmbedding(perplexity=10, max_iter=20, random_state=0), X, None),
    "map from an array": (ICONEmbedding(perplexity=10, init=PLANE, max_iter=1, random_state=0), X, None),
    "linear map": (ICONEmbedding(encoder="linear", perplexity=10, max_iter=5, random_state=0), X, None),
    "orthonormal": (ICONEmbedding(encoder=encoders.Linear(), perplexity=10, max_iter=5, random_state=0), X, None),
    "mlp": (ICONEmbedding(encoder="mlp", perplexity=10, max_iter=5, random_state=0), X, None),
    "counts": (
        ICONEmbedding(supervisory="counts", normalization="conditional", max_iter=5, random_state=0),
        COUNTS,
        None,
    ),
    "clusters": (ICONClustering(3, max_iter=20, n_init=1, random_state=0), X, None),
    "classifier": (ICONClassifier(), X, y),
    "pairs": (ICONCrossModal(2, max_iter=3, random_state=0), X, X[:, ::-1].copy()),
}


@pytest.mark.parametrize("kind", ["float64", "float32", "csr"])
@pytest.mark.parametrize("name", OWNERS)
def test_fitted_state_is_the_estimators_own(name, kind):
    estimator, rows, target = OWNERS[name]
    estimator = sklearn.clone(estimator)
    rows = sparse.csr_matrix(rows) if kind == "csr" else rows.astype(kind)
    given = [rows, target, getattr(estimator, "init", None)]
    if hasattr(estimator, "fit_transform") and name != "pairs":
        given.append(estimator.fit_transform(rows, target))
        given.append(estimator.transform(rows[:5]))
    else:
        given.append(estimator.fit(rows, target).predict(rows) if name != "pairs" else None)
        if name == "pairs":
            estimator.fit(rows, target)
    outside, inside, params = [], [], estimator.get_params(deep=False)
    arrays_within(given, outside, set())
    arrays_within({name: value for name, value in vars(estimator).items() if name not in params}, inside, set())
    assert inside
    for array in outside:
        assert not any(np.shares_memory(array, own) for own in inside)
