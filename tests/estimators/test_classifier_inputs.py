"""`ICONClassifier` on what others' data hold: classes of no weight, outliers, odd numbers of rows, any unit."""

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris, load_wine, make_blobs
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import RobustScaler, StandardScaler

from sklearn_icon import ICONClassifier, ICONCrossModal, ICONEmbedding, encoders, learned
from sklearn_icon._objective.batches import batch_count, shuffled
from sklearn_icon.encoders._networks import build_module
from sklearn_icon.encoders._scaling import input_scale

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
MODELS = {
    "linear": ICONClassifier(),
    "l1": ICONClassifier(l1_ratio=1.0),
    "divergence": ICONClassifier(divergence="jensen_shannon", max_iter=1000),
    "mlp": ICONClassifier(encoder="mlp", random_state=0),
    "student_t": ICONClassifier(learned="student_t", encoder="mlp", random_state=0),
}
each = pytest.mark.parametrize("estimator", MODELS.values(), ids=MODELS)


@each
@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_without_weight_is_a_class_that_nothing_is(estimator, absent):
    weight = np.where(y == absent, 0.0, 2.0)
    proba = estimator.fit(X, y, sample_weight=weight).predict_proba(X)
    assert estimator.classes_.tolist() == [0, 1, 2] and np.isfinite(proba).all()
    assert proba[y != absent, absent].max() < 0.1
    assert (estimator.predict(X)[y != absent] == y[y != absent]).mean() > 0.8


@pytest.mark.parametrize(
    "settings",
    [
        {"learned": "harmonic", "encoder": "mlp"},
        {"learned": "harmonic", "encoder": "linear", "debias": 0.2},
        {"debias": 0.2},
        {"learned": "cosine", "encoder": "mlp"},
        {"learned": learned.UniformMixture(learned.StudentT(), 0.3), "encoder": "mlp"},
        {"divergence": "squared_hellinger"},
        {"encoder": "mlp", "early_stopping": True},
        {"supervisory": "propagated_label"},
        {"supervisory": "same_class", "encoder": "mlp"},
    ],
    ids=str,
)
def test_nothing_is_of_a_class_without_weight_by_any_model(settings):
    model = ICONClassifier(max_iter=5, tol=0, random_state=0, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = model.fit(X, y, sample_weight=np.where(y == 1, 0.0, 2.0))
    proba = fitted.predict_proba(X)
    assert proba[:, 1].max() < 1e-10 and np.isfinite(fitted.decision_function(X)).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)


@pytest.mark.parametrize("estimator", [MODELS["linear"], MODELS["l1"], MODELS["mlp"]])
@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c"]])
def test_one_class_left_with_weight(estimator, labels):
    names = np.resize(labels, 30)
    estimator.fit(X[:30], names, sample_weight=names == "b")
    assert set(estimator.predict(X)) == {"b"} and estimator.classes_.tolist() == labels
    loss = log_loss(names, estimator.predict_proba(X[:30]), labels=labels)
    assert np.isfinite(loss)


def test_a_class_weight_of_zero():
    fitted = ICONClassifier(class_weight={0: 1, 1: 0, 2: 1}).fit(X, y)
    assert fitted.predict_proba(X)[:, 1].max() < 1e-10


def test_in_ensembles_that_draw_few_rows():
    few = np.r_[0:4, 50:54, 100:103]
    bag = BaggingClassifier(ICONClassifier(), n_estimators=20, max_samples=3, random_state=0).fit(X[few], y[few])
    assert np.isfinite(bag.predict_proba(X)).all()
    pair = [("a", ICONClassifier()), ("b", ICONClassifier(C=0.1))]
    vote = VotingClassifier(pair, voting="soft").fit(X, y, sample_weight=np.where(y == 2, 0.0, 1.0))
    assert 2 not in vote.predict(X)


@pytest.mark.parametrize("unit", [1e-300, 1e-20, 1e20, 1e40, 1e300])
def test_the_unit_of_weights_is_that_of_C(unit):
    weight = np.random.RandomState(0).uniform(size=len(y))
    expected = ICONClassifier(C=0.5).fit(X, y, weight).predict_proba(X)
    given = ICONClassifier(C=0.5 / unit).fit(X, y, unit * weight).predict_proba(X)
    np.testing.assert_allclose(given, expected, atol=1e-8)
    assert np.isfinite(
        ICONClassifier(encoder="mlp", max_iter=2, random_state=0).fit(X, y, unit * weight).loss_curve_
    ).all()


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_many_labels_a_row_are_for_others(container):
    with pytest.raises(ValueError, match=r"y of shape \(150, 3\).*OneVsRestClassifier or .*MultiOutputClassifier"):
        ICONClassifier().fit(X, container((X[:, :3] > 0).astype(int)))


def test_a_loss_without_bound_is_refused_before_anything_is_computed(monkeypatch):
    from sklearn_icon import supervisory

    monkeypatch.setattr(supervisory.DataLabel, "conditional", lambda *_, **__: pytest.fail("p was computed"))
    for q in (learned.WideGaussian(), "wide_gaussian"):
        with pytest.raises(ValueError, match=r"WideGaussian\(\) against prototypes of the classes falls without bound"):
            ICONClassifier(learned=q, encoder="mlp").fit(X, y)


# --- encoders -----------------------------------------------------------------------------------------------------


class Linear(encoders.MLP):
    """Of a name that says something else."""


class Deeper(encoders.Linear):
    """A linear map no more."""

    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        return encoders.MLP((8,)).build(n_inputs, n_outputs, seed=seed, dtype=dtype)


@pytest.mark.parametrize("own, same", [(Linear((8,)), encoders.MLP((8,))), (Deeper(), encoders.MLP((8,)))])
def test_encoders_are_what_they_build(own, same):
    ours, theirs = (ICONClassifier(encoder=part, max_iter=20, random_state=0).fit(X, y) for part in (own, same))
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    assert not hasattr(ours, "coef_")


def test_an_orthonormal_map_stays_one():
    fitted = ICONClassifier(encoder=encoders.Linear(orthonormal=True), max_iter=500).fit(X, y)
    maps = fitted.transform(np.eye(4)) - fitted.transform(np.zeros((1, 4)))
    np.testing.assert_allclose(maps.T @ maps, np.eye(3), atol=1e-6)


def with_outliers(size, n=400, seed=0):
    rows, labels = make_blobs(n, 6, centers=4, random_state=seed)
    rows[:3] = size * np.random.RandomState(seed).normal(size=(3, 6))
    return rows, labels


OUTLIERS = [1e3, 1e6, 1e15]


@pytest.mark.parametrize("size, dtype", list(zip(OUTLIERS, [np.float32, np.float64, np.float32], strict=True)))
@pytest.mark.parametrize("own_scaler", [False, True])
def test_a_network_learns_beside_outliers(size, dtype, own_scaler):
    rows, labels = with_outliers(size, n=200)
    rows = (RobustScaler().fit_transform(rows) if own_scaler else rows).astype(dtype)
    fitted = ICONClassifier(encoder="mlp", random_state=0).fit(rows, labels)
    assert fitted.score(rows[3:], labels[3:]) > 0.95 and np.isfinite(fitted.predict_proba(rows)).all()


def test_maps_and_pairs_by_networks_beside_outliers():
    rows, labels = with_outliers(1e6, n=160)
    contrast = ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=20, random_state=0).fit(rows, labels)
    assert contrast.score(rows[3:], labels[3:]) > 0.95
    pairs = ICONCrossModal(encoder="mlp", encoder_y="mlp", max_iter=120, random_state=0).fit(rows, rows[:, ::-1] / 7)
    assert pairs.score(rows[3:], rows[3:, ::-1] / 7) > 0.5
    model = ICONEmbedding(encoder="mlp", supervisory="same_class", max_iter=40, random_state=0)
    places = model.fit_transform(rows, labels)
    centres = np.stack([places[3:][labels[3:] == c].mean(axis=0) for c in range(4)])
    nearest = np.square(places[3:, None] - centres).sum(axis=2).argmin(axis=1)
    assert (nearest == labels[3:]).mean() > 0.9


@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_scales_of_ordinary_rows_are_mean_and_deviation(by_column, container):
    rows, weight = 3 + 2 * np.random.RandomState(0).normal(size=(500, 7)), np.random.RandomState(1).uniform(size=500)
    shift, factor = input_scale(container(rows), weight, by_column)
    mean = np.average(rows, axis=0, weights=weight)
    if sparse.issparse(container(rows)) and by_column:
        assert not shift.any()
    else:
        np.testing.assert_allclose(shift, mean if by_column else mean.mean())
    spread = mean if by_column and not sparse.issparse(container(rows)) else mean.mean()
    np.testing.assert_allclose(1 / factor**2, np.average(np.square(rows - spread).mean(axis=1), weights=weight))


@pytest.mark.parametrize("by_column", [True, False])
def test_scales_beside_outliers_are_nearly_those_without(by_column):
    rows = 3 + 2 * np.random.RandomState(0).normal(size=(500, 7))
    shift, factor = input_scale(rows, None, by_column)
    rows[::100] *= 1e8
    other_shift, other_factor = input_scale(rows, None, by_column)
    np.testing.assert_allclose(other_shift, shift, atol=1.0)
    assert 0.5 * factor < other_factor <= factor * 1.01


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
def test_rows_are_shortened_and_the_others_left(shape):
    rows = np.random.RandomState(0).normal(size=(50, *shape))
    rows[0] *= 1e6
    module = build_module(encoders.MLP((4,)), rows, 2, 0, torch.float64)
    z = module[0](torch.as_tensor(rows)).flatten(1)
    plain = (torch.as_tensor(rows) - module[0].shift).flatten(1) * module[0].factor
    torch.testing.assert_close(z[1:], plain[1:], rtol=0, atol=0)
    assert float(z[0].square().mean().sqrt()) == pytest.approx(10)
    torch.testing.assert_close(torch.nn.functional.normalize(z[:1]), torch.nn.functional.normalize(plain[:1]))


# --- minibatches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 255, 256, 257, 513])
@pytest.mark.parametrize("size", [1, 2, 3, 256])
def test_minibatches_hold_every_row_once_and_never_one_alone(n, size):
    parts = shuffled(n, size, np.random.RandomState(0))
    assert len(parts) == batch_count(n, size)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(n))
    sizes = [len(part) for part in parts]
    assert min(sizes) >= min(n, 2) and max(sizes) <= max(size, 3) and max(sizes) - min(sizes) <= 1


def with_batch_norm(n_in, n_out):
    return torch.nn.Sequential(torch.nn.Linear(n_in, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, n_out))


@pytest.mark.parametrize("n", [129, 257, 385])
@pytest.mark.parametrize("supervisory", ["data_label", "same_class"])
def test_batch_norm_sees_no_row_alone(n, supervisory):
    rows = np.random.RandomState(0).normal(size=(n, 3))
    encoder = encoders.Module(with_batch_norm)
    ICONClassifier(supervisory=supervisory, encoder=encoder, max_iter=1, random_state=0).fit(rows, np.arange(n) % 2)


@pytest.mark.parametrize("n, batch_size", [(5, 2), (9, 4), (257, 256)])
def test_nor_does_it_where_pairs_are_trained(n, batch_size):
    rows = np.random.RandomState(0).normal(size=(n, 3))
    encoder = encoders.Module(with_batch_norm)
    pairs = ICONCrossModal(2, encoder=encoder, encoder_y=encoder, batch_size=batch_size, max_iter=1, random_state=0)
    pairs.fit(rows, rows[:, ::-1])


# --- early stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["linear", "mlp"])
@pytest.mark.parametrize("rare", [2, 3])
def test_early_stopping_with_rare_classes(encoder, rare):
    labels = y.copy()
    labels[: 50 - rare] = 1
    fitted = ICONClassifier(encoder=encoder, early_stopping=True, max_iter=200, random_state=0).fit(X, labels)
    assert fitted.classes_.tolist() == [0, 1, 2] and len(fitted.validation_loss_curve_)
    assert np.isfinite(fitted.predict_proba(X)).all()


def test_early_stopping_needs_rows_to_hold_out():
    with pytest.raises(ValueError, match=r"early_stopping=True holds out .* row 0 is the only one of its class"):
        ICONClassifier(early_stopping=True).fit(X[[0, 50, 100]], y[[0, 50, 100]])
    one_row = np.array([[0.4, 0.6]])
    with pytest.raises(ValueError, match="Found array with 1 sample"):
        ICONClassifier(early_stopping=True).fit(X[:1], one_row)


def test_wine_as_it_is_given():
    """Columns of units that differ by a factor of a thousand."""
    rows, labels = load_wine(return_X_y=True)
    ours = ICONClassifier().fit(rows, labels)
    theirs = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(rows, labels)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6 * np.abs(theirs.coef_).max())
