"""Rows far from all others, in the fit or after it: numbers stay finite, and the others have theirs."""

import numpy as np
import pytest
import torch
from covering import covering
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned
from sklearn_icon._estimators.classifier import _FAR, _log_kernel
from sklearn_icon.encoders._networks import build_module, encode, torch_dtype
from sklearn_icon.encoders._scaling import FARTHEST, column_factors, nearer

each_precision = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def three_groups(n=90, d=4, seed=3, far=None, dtype=np.float64):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    X = rng.normal(size=(n, d)) + 6 * np.eye(3, d)[y]
    if far is not None:
        X[8, 1] = far
    return X.astype(dtype), y


CLASSIFIERS = {
    "softmax": ICONClassifier(),
    "total variation": ICONClassifier(divergence="total_variation"),
    "Jensen-Shannon": ICONClassifier(divergence="jensen_shannon"),
    "Student-t": ICONClassifier(learned="student_t"),
    "harmonic": ICONClassifier(learned="harmonic"),
    "cosine": ICONClassifier(learned="cosine"),
    "contrast": ICONClassifier(supervisory="same_class", encoder="linear", max_iter=3, random_state=0),
    "network": ICONClassifier(encoder="mlp", random_state=0),
}


@pytest.mark.parametrize("name, far, dtype", covering(CLASSIFIERS, [1e14, -2e36], [np.float32, np.float64]))
def test_one_far_row_leaves_classes_to_the_others(name, far, dtype):
    (X, y), classifier = three_groups(far=far, dtype=dtype), clone(CLASSIFIERS[name])
    others = np.arange(len(y)) != 8
    classifier.fit(X, y)
    assert classifier.score(X[others], y[others]) > 0.9
    assert np.isfinite(classifier.predict_proba(X)).all()


@pytest.mark.parametrize(
    "settings, container, dtype",
    covering(
        [{"learned": learned.SharedCluster()}, {"divergence": "squared_hellinger"}, {"encoder": "mlp"}],
        [np.array, sparse.csr_array],
        [np.float32, np.float64],
    ),
)
def test_one_far_row_leaves_clusters_to_the_others(settings, container, dtype):
    X, y = three_groups(far=2e36, dtype=dtype)
    clusters = ICONClustering(3, n_init=1, max_iter=40, random_state=0, **settings).fit(container(X))
    assert adjusted_rand_score(*(np.delete(labels, 8) for labels in (y, clusters.labels_))) > 0.9
    assert np.isfinite(clusters.predict_proba(container(X))).all()


@each_precision
def test_one_far_row_in_a_linear_map(dtype):
    X, _ = three_groups(far=2e36, dtype=dtype)
    model = ICONEmbedding(encoder="linear", perplexity=10, random_state=0).fit(X)
    assert np.isfinite(model.kl_divergence_)
    np.testing.assert_allclose(model.transform(X), model.embedding_, rtol=1e-4, atol=1e-4)
    assert (np.delete(model.embedding_, 8, axis=0).std(axis=0) > 1).all()


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
def test_rows_are_brought_nearer_in_their_direction(container):
    X = np.random.default_rng(0).normal(size=(7, 3))
    shift = np.zeros(3) if container is sparse.csr_array else np.array([1.0, -2.0, 0.5])
    assert nearer(container(X), shift, 2.0, 1e3) is not None
    X[4] *= 1e9
    found = nearer(container(X), shift, 2.0, 1e3)
    found = found.toarray() if sparse.issparse(found) else found
    np.testing.assert_array_equal(np.delete(found, 4, axis=0), np.delete(X, 4, axis=0))
    offset, given = found[4] - shift, X[4] - shift
    np.testing.assert_allclose(offset / np.linalg.norm(offset), given / np.linalg.norm(given))
    assert 2 * np.linalg.norm(offset) / 3**0.5 == pytest.approx(1e3)


def with_extremes(kind, size, dtype=np.float64):
    """Three groups, some numbers that are extreme, and which rows are not."""
    X, y = three_groups(dtype=dtype)
    rng, ordinary = np.random.default_rng(5), np.arange(len(y)) > 3
    if kind == "rows":
        X[:4] = size * rng.uniform(-1, 1, size=(4, X.shape[1]))
        return X, y, ordinary
    extra = {"noise": rng.normal(size=len(y)) / 9, "constant": np.ones(len(y)), "few": 1.0 - ordinary}[kind] * size
    return np.column_stack([X, extra]).astype(dtype), y, ordinary if kind == "few" else ordinary | True


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize(
    ("size", "dtype"), [(1e7, np.float32), (3e37, np.float32), (1e16, np.float64), (1e306, np.float64)]
)
@pytest.mark.parametrize("kind", ["rows", "noise", "constant", "few"])
def test_a_network_sees_what_is_beside_extremes(kind, size, dtype, container):
    X, y, ordinary = with_extremes(kind, size, dtype)
    scale = build_module(encoders.MLP((4,)), container(X), 2, 0, torch_dtype(X))[0]
    seen = scale(torch.from_numpy(X)).numpy().astype(np.float64)
    assert np.isfinite(seen).all() and np.abs(seen).max() < 10.1 * X.shape[1] ** 0.5
    means = np.stack([seen[ordinary][y[ordinary] == c, :3].mean(axis=0) for c in range(3)])
    nearest = np.square(seen[:, None, :3] - means).sum(axis=2).argmin(axis=1)
    assert (nearest == y)[ordinary].mean() > 0.95
    assert np.ptp(means, axis=0).min() > 0.05


@pytest.mark.parametrize(("kind", "size"), [("noise", 1e200), ("rows", 1e250)])
def test_networks_of_all_kinds_beside_extremes(kind, size):
    X, y, ordinary = with_extremes(kind, size)
    assert ICONClassifier(encoder="mlp", random_state=0).fit(X, y).score(X[ordinary], y[ordinary]) > 0.95
    pairs = ICONCrossModal(encoder="mlp", encoder_y="mlp", max_iter=120, random_state=0).fit(X, three_groups()[0])
    assert pairs.score(X[ordinary], three_groups()[0][ordinary]) > 0.5
    model = ICONEmbedding(encoder="mlp", supervisory="same_class", max_iter=40, random_state=0)
    embedding = model.fit_transform(X, y)[ordinary]
    means = np.stack([embedding[y[ordinary] == c].mean(axis=0) for c in range(3)])
    assert (np.square(embedding[:, None] - means).sum(axis=2).argmin(axis=1) == y[ordinary]).mean() > 0.95


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
def test_clusters_of_rows_whose_squares_overflow(container):
    X, y = three_groups()
    X[8, 1] = 1e200
    clusters = ICONClustering(3, random_state=0).fit(container(X))  # warnings are errors
    assert adjusted_rand_score(np.delete(y, 8), np.delete(clusters.labels_, 8)) > 0.9


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
def test_spreads_of_columns_are_cut_at_ten_times_their_median(container):
    X = np.random.default_rng(1).uniform(0.5, 1.5, size=(300, 5)) * np.array([0.1, 1, 1, 9, 5000.0])
    factors = column_factors(container(X))
    np.testing.assert_array_equal(factors[:4], 1)
    assert 0.5 < 5000 * factors[4] / 10 < 2
    copied = column_factors(container(np.repeat(X, 3, axis=0)))
    weighted = column_factors(container(X), np.full(300, 3.0))
    np.testing.assert_allclose([copied, weighted], [factors] * 2, rtol=0.1)
    assert column_factors(container(X[:, :4])) is None and column_factors(container(np.zeros((5, 2)))) is None


def test_linear_maps_of_ordinary_rows_have_no_limit():
    X, _ = three_groups()
    assert build_module(encoders.Linear(), X, 2, 0, torch_double())[0].limit is None
    module = build_module(encoders.Linear(), three_groups(far=1e12)[0], 2, 0, torch_double())
    assert module[0].limit == FARTHEST
    far = encode(module, np.array([[0, 1e20, 0, 0], [0, 1e25, 0, 0.0]]))
    np.testing.assert_allclose(far[0], far[1], rtol=1e-6)


def torch_double():
    return torch.float64


@pytest.mark.parametrize("scale", [1e3, 1e30, 1e150, 1e300])
@pytest.mark.parametrize(
    "q",
    ["student_t", "harmonic", "cosine", learned.Gaussian(), learned.UniformMixture(learned.StudentT(), 0.1)],
    ids=str,
)
def test_new_rows_however_far(q, scale):
    X, y = three_groups()
    model = ICONClassifier(learned=q).fit(X, y)
    P = model.predict_proba(scale * X)
    assert np.isfinite(P).all() and np.allclose(P.sum(axis=1), 1)
    if scale >= 1e30 and isinstance(q, learned.Gaussian):  # the key in whose direction a row is has it all
        z = model.transform(X * 1e30) / 1e30
        np.testing.assert_array_equal(model.predict(scale * X), (z @ model.prototypes_.T).argmax(axis=1))
        np.testing.assert_allclose(P.max(axis=1), 1)
    if scale >= 1e30 and q == "student_t":  # equally far from all keys
        np.testing.assert_allclose(P, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("q", [learned.Gaussian(2.0), learned.StudentT(3.0), learned.Gaussian(0.5)], ids=str)
@pytest.mark.parametrize("size", [0.9, 1.1])
def test_log_kernels_of_far_rows(q, size):
    rng = np.random.default_rng(1)
    keys, z = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    z *= size * _FAR * np.abs(keys).max() / np.abs(z).max(axis=1, keepdims=True)
    long_z, long_keys = z.astype(np.longdouble), keys.astype(np.longdouble)
    sq = ((long_z[:, None] - long_keys) ** 2).sum(axis=2)
    if isinstance(q, learned.Gaussian):
        exact = -sq / (2 * q.sigma**2)
    else:
        exact = -(q.df + 1) / 2 * np.log1p(sq / q.df)
    found = _log_kernel(q, z, keys)
    difference = (found - found[:, :1]) - (exact - exact[:, :1]).astype(np.float64)
    scale = 1 if isinstance(q, learned.StudentT) else np.abs(exact - exact[:, :1]).max()
    assert np.abs(difference).max() < 1e-4 * scale


@each_precision
def test_clusters_in_use_share_new_rows(dtype):
    X, _ = three_groups(dtype=dtype)
    with pytest.warns(UserWarning, match="clusters are in use|distinct clusters"):
        model = ICONClustering(5, encoder="linear", learned="cluster", random_state=0).fit(X[np.arange(90) % 3])
    P = model.predict_proba((1e8 * X).astype(dtype))
    assert np.isfinite(P).all() and np.allclose(P.sum(axis=1), 1)


def test_overflow_says_what_X_holds():
    X, _ = three_groups(dtype=np.float32)
    model = ICONEmbedding(encoder="linear", perplexity=10, random_state=0, max_iter=5).fit(X)
    X = X.astype(np.float64)
    X[11] = 1e300
    with pytest.raises(ValueError, match=r"X, which holds 1e\+300 .* first is row 11: rescale it"):
        model.transform(X)


SMALL = np.random.RandomState(8).standard_normal((60, 4)) + 4 * (np.arange(60) % 3)[:, None]
SCALED = {
    "map": ICONEmbedding(perplexity=5, max_iter=20),
    "clusters": ICONClustering(3),
    "linear clusters": ICONClustering(3, encoder="linear", max_iter=20),
    "network clusters": ICONClustering(3, encoder="mlp", max_iter=3),
    "softmax": ICONClassifier(),
    "prototypes": ICONClassifier(learned="student_t", max_iter=20),
    "network": ICONClassifier(encoder="mlp", max_iter=3),
    "pairs": ICONCrossModal(4, max_iter=3),
    "linear pairs": ICONCrossModal(2, max_iter=3),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize(("scale", "dtype"), [(1e30, "f4"), (1e-36, "f4"), (1e150, "f8"), (1e-300, "f8")])
def test_any_scale_is_fitted_without_a_word(name, scale, dtype):
    X = (SMALL * scale).astype(dtype)
    model = clone(SCALED[name]).set_params(random_state=0).fit(X, X[:, :3] if "pairs" in name else np.arange(60) % 3)
    assert np.isfinite(model.transform(X[:7])).all()
    if "clusters" in name:
        assert adjusted_rand_score(model.labels_, np.arange(60) % 3) > 0.8


def test_maps_know_no_smallest_scale():
    assert np.isfinite(clone(SCALED["map"]).fit_transform(SMALL * 1e-311)).all()


@pytest.mark.parametrize("name", ["clusters", "prototypes", "network", "pairs", "linear pairs"])
def test_scales_below_all_normal_numbers_are_refused(name):
    X = SMALL * 1e-311
    with pytest.raises(ValueError, match="bring the features to a scale nearer one"):
        clone(SCALED[name]).fit(X, X[:, :3] if "pairs" in name else np.arange(60) % 3)
