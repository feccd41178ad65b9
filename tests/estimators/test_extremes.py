"""Parameters at extremes, and parameters that change once a fit is done."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned, methods

FITTED = {
    "lookup": lambda: ICONEmbedding(random_state=0, max_iter=40),
    "linear map": lambda: ICONEmbedding(encoder="linear", random_state=0, max_iter=5),
    "network map": lambda: ICONEmbedding(encoder="mlp", random_state=0, max_iter=2),
    "clusters": lambda: ICONClustering(3, random_state=0),
    "linear clusters": lambda: ICONClustering(3, encoder="linear", random_state=0, max_iter=5),
    "pairs": lambda: ICONCrossModal(2, encoder="mlp", random_state=0, max_iter=2),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FITTED)
def test_what_was_fitted_does_not_follow_parameters_that_change(name, dtype):
    X = np.random.RandomState(4).randn(70, 5).astype(dtype)
    model = FITTED[name]().fit(X, X[:, :3] if name == "pairs" else None)
    before, names = model.transform(X[:9] + 1), list(model.get_feature_names_out())
    given = model.get_params()
    changed = {"n_components": 9, "n_clusters": 1000, "encoder": "linear", "metric": "cosine", "debias": 0.5}
    model.set_params(**{key: value for key, value in changed.items() if key in given})
    assert_array_equal(model.transform(X[:9] + 1), before)
    assert list(model.get_feature_names_out()) == names
    with pytest.raises(ValueError, match=r"n_samples|n_components|debias"):
        model.set_params(n_clusters=1000) if "n_clusters" in given else model.set_params(debias=2.0)
        model.fit(X, X[:, :3] if name == "pairs" else None)
    assert_array_equal(model.transform(X[:9] + 1), before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [1e-320, 1e-200, 1e-40, 1e40, 1e200, 1e308])
def test_kernels_of_extreme_width_are_refused_by_name(value, dtype):
    X, y = np.random.RandomState(4).randn(40, 3).astype(dtype), np.arange(40) % 2
    for learned_, name in (
        (learned.Gaussian(sigma=value), "sigma"),
        (learned.Gaussian(metric="dot", tau=value), "tau"),
    ):
        for model in (ICONEmbedding(learned=learned_, encoder="linear"), ICONClassifier(learned=learned_)):
            with pytest.raises(ValueError, match=f"'{name}' parameter of Gaussian must be .* in the range"):
                model.fit(X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("tol", [1e-300, 1e200, 1e308])
@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_any_tolerance_fits(tol, penalty):
    X, y = np.random.RandomState(4).randn(40, 3), np.arange(40) % 3
    assert np.isfinite(ICONClassifier(tol=tol, penalty=penalty, max_iter=9).fit(X, y).coef_).all()


def test_weights_of_a_graph_that_are_not_finite_name_the_kernel():
    X = np.random.RandomState(4).randn(40, 3).astype(np.float32)
    model = methods.get("spectral").make_estimator(n_clusters=2, affinity="rbf", gamma=1e200)
    with pytest.raises(ValueError, match=r"the affinity of Spectral\(.* not finite: scale X, or change gamma"):
        model.fit(X)


@pytest.mark.parametrize(
    ("unit", "orthonormal"), [(1e-250, False), (1e-160, True), (1e-160, False), (1e150, False), (1e250, False)]
)
def test_linear_pairs_of_rows_in_extreme_units_predict(unit, orthonormal):
    rng = np.random.RandomState(5)
    X, Y = rng.randn(60, 4), rng.randn(60, 3)
    Y[:, 0] += X[:, 1]
    encoder = encoders.Linear(orthonormal=orthonormal)
    pairs = ICONCrossModal(2, encoder=encoder, encoder_y=encoder, random_state=0, max_iter=20).fit(X * unit, Y)
    for found in (pairs.coef_, pairs.x_rotations_, pairs.x_loadings_, pairs.x_weights_):
        assert np.isfinite(found).all()
    predicted = pairs.predict(X * unit)
    scores = pairs.transform(X * unit)
    assert np.isfinite(predicted).all() and np.isfinite(scores).all()
    assert np.corrcoef(predicted[:, 0], Y[:, 0])[0, 1] > 0.4
