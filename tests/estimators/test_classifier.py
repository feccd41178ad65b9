"""`ICONClassifier`: LogisticRegression's optimum, other losses, weights, and parameters that reach the solver."""

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import expit, softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from solver_settings import settings_of

from sklearn_icon import ICONClassifier, encoders, learned
from sklearn_icon._optim import train as _train
from sklearn_icon._optim.solver import SolverResult
from sklearn_icon._training import prototypes as _prototypes

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
SOLVED = {"tol": 1e-8, "max_iter": 5000}


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits])
@pytest.mark.parametrize("C", [0.1, 1.0])
def test_default_is_logistic_regression(load, C):
    rows, labels = load(return_X_y=True)
    rows = StandardScaler().fit_transform(rows)
    ours = ICONClassifier(C=C, **(SOLVED | {"tol": 1e-10})).fit(rows, labels)
    theirs = LogisticRegression(C=C, **SOLVED).fit(rows, labels)
    scale = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5 * scale)
    theirs = LogisticRegression(C=C, solver="newton-cholesky", **SOLVED).fit(rows, labels)  # nearer to the optimum
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5 * scale)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5 * scale)
    np.testing.assert_allclose(ours.decision_function(rows), theirs.decision_function(rows), atol=1e-4 * scale)


def test_weights_of_samples_and_classes_do_as_in_logistic_regression():
    weights = np.random.RandomState(0).uniform(size=len(y))
    balanced = dict(enumerate(weights.sum() / 3 / np.bincount(y, weights=weights)))
    for class_weight, same in ((None, None), ("balanced", balanced), ({0: 1, 1: 5, 2: 0.5}, {0: 1, 1: 5, 2: 0.5})):
        ours = ICONClassifier(class_weight=class_weight, **SOLVED).fit(X, y, sample_weight=weights)
        theirs = LogisticRegression(class_weight=same, **SOLVED).fit(X, y, sample_weight=weights)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)


def test_as_accurate_as_logistic_regression_on_digits():
    rows, labels = load_digits(return_X_y=True)
    split = train_test_split(rows / 16, labels, stratify=labels, random_state=0)
    scores = [e.fit(split[0], split[2]).score(split[1], split[3]) for e in (ICONClassifier(), LogisticRegression())]
    assert scores[0] >= scores[1] - 0.005


FITTED = {
    "linear": ICONClassifier(),
    "student_t": ICONClassifier(learned="student_t", max_iter=1000, random_state=0),
    "harmonic": ICONClassifier(learned=learned.Harmonic(n=2.0), encoder="mlp", max_iter=100, random_state=0),
    "cosine": ICONClassifier(learned="cosine", encoder="mlp", max_iter=100, random_state=0),
    "mixture": ICONClassifier(
        learned=learned.UniformMixture(learned.Gaussian(metric="dot"), 0.1),
        encoder="mlp",
        max_iter=200,
        random_state=0,
    ),
    "total_variation": ICONClassifier(divergence="total_variation", encoder="mlp", random_state=0),
    "smoothed": ICONClassifier(debias=0.1),
    "same_class": ICONClassifier(supervisory="same_class", max_iter=200, random_state=0),
}
each = pytest.mark.parametrize("estimator", FITTED.values(), ids=FITTED)


@each
def test_every_loss_classifies(estimator):
    split = train_test_split(X, y, stratify=y, random_state=0)
    assert clone(estimator).fit(split[0], split[2]).score(split[1], split[3]) > 0.9


@each
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_are_the_softmax_of_the_logits(estimator, n_classes):
    rows, labels = X[y < n_classes], y[y < n_classes]
    classifier = clone(estimator).set_params(max_iter=20).fit(rows, labels)
    logits, proba = classifier.decision_function(rows), classifier.predict_proba(rows)
    expected = softmax(logits, axis=1) if n_classes == 3 else np.column_stack([expit(-logits), expit(logits)])
    np.testing.assert_allclose(proba, expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(np.log(proba), classifier.predict_log_proba(rows), rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(classifier.predict(rows), classifier.classes_[proba.argmax(axis=1)])
    assert classifier.transform(rows).shape == (len(rows), len(classifier.get_feature_names_out()))


@each
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pickles_and_repeats(estimator):
    estimator = clone(estimator).set_params(max_iter=20)
    classifier = pickle.loads(pickle.dumps(clone(estimator).fit(X, y)))
    torch.manual_seed(9)
    np.testing.assert_array_equal(clone(estimator).fit(X, y).predict_proba(X), classifier.predict_proba(X))


def test_smoothing_lowers_confidence_as_smoothed_targets_do():
    smooth, plain = (ICONClassifier(debias=a).fit(X, y).predict_proba(X).max(axis=1).mean() for a in (0.3, 0.0))
    assert smooth < plain


def test_sparse_rows_do_as_dense_ones():
    rows = np.where(X < 0, 0, X)
    dense = ICONClassifier(**SOLVED).fit(rows, y)
    other = ICONClassifier(**SOLVED).fit(sparse.csr_matrix(rows), y)
    np.testing.assert_allclose(other.coef_, dense.coef_, atol=1e-6)
    np.testing.assert_allclose(other.predict_proba(sparse.csr_array(rows)), dense.predict_proba(rows), atol=1e-6)


def test_an_mlp_learns_what_no_line_can():
    rows = np.random.RandomState(0).uniform(-1, 1, size=(600, 2))
    labels = (rows.prod(axis=1) > 0).astype(int)
    assert ICONClassifier(encoder="mlp", random_state=0).fit(rows, labels).score(rows, labels) > 0.95
    assert ICONClassifier().fit(rows, labels).score(rows, labels) < 0.7


def test_coefficients_only_where_linear():
    classifier = ICONClassifier(encoder="mlp", max_iter=5, random_state=0).fit(X, y)
    assert not hasattr(classifier, "coef_")
    with pytest.raises(AttributeError, match=r"with .* and MLP\(\) is not linear in X"):
        classifier.intercept_  # noqa: B018


def test_warm_start_is_where_the_last_fit_ended():
    classifier = ICONClassifier(warm_start=True, tol=1e-6, max_iter=500).fit(X, y)
    first = classifier.n_iter_
    assert classifier.fit(X, y).n_iter_[0] < first[0] / 2


def test_warns_unless_converged():
    from sklearn.exceptions import ConvergenceWarning

    with pytest.warns(
        ConvergenceWarning, match="ICONClassifier stopped after 2 iterations before it converged; raise max_iter"
    ):
        ICONClassifier(max_iter=2).fit(X, y)


def test_in_a_calibrator_and_a_pipeline():
    calibrated = CalibratedClassifierCV(ICONClassifier(), cv=3).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    features = make_pipeline(ICONClassifier(encoder="mlp", max_iter=30, random_state=0), LogisticRegression())
    assert cross_val_score(features, X, y, cv=3).min() > 0.9


def test_sample_weights_are_routed():
    weights = np.where(y == 2, 0.01, 1.0)
    with config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, ICONClassifier().set_fit_request(sample_weight=True))
        routed = pipeline.fit(X, y, sample_weight=weights).predict_proba(X)
    direct = ICONClassifier().fit(X, y, sample_weight=weights).predict_proba(X)
    np.testing.assert_allclose(routed, direct, atol=1e-6)
    assert np.abs(direct - ICONClassifier().fit(X, y).predict_proba(X)).max() > 0.1


CHANGES = {
    "learned": "student_t",
    "learned__tau": 0.5,
    "encoder": "mlp",
    "divergence": "squared_hellinger",
    "debias": 0.2,
    "C": 0.1,
    "class_weight": {0: 1, 1: 2, 2: 3},
    "max_iter": 21,
    "tol": 1e-2,
    "supervisory": "same_class",
    "fit_intercept": False,
    "penalty": "l1",
    "l1_ratio": 0.5,
}


def what_the_solver_receives(monkeypatch, estimator):
    """The solver's options, with the value and the gradients of its objective one step from the start."""
    received = []

    def spy(objective, params, solver, *, max_iter, **_):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for param in params:
                param.add_(torch.randn(param.shape, generator=generator, dtype=param.dtype))
        value = objective()
        gradients = [gradient.numpy() for gradient in torch.autograd.grad(value, params)]
        received.append((settings_of(solver), max_iter, float(value.detach()), gradients))
        return SolverResult(0.0, 1, np.zeros(1), "converged")

    def spy_on_regression(rows, targets, weight, penalty, start, **options):
        options = {name: option for name, option in options.items() if not callable(option)}
        received.append((rows, targets, weight, penalty, start.fit_intercept, options))
        n_logits = targets.shape[1]
        return np.zeros((n_logits, rows.shape[1])), np.zeros(n_logits), SolverResult(0.0, 1, np.zeros(1), "converged")

    monkeypatch.setattr(_train, "minimize", spy)
    monkeypatch.setattr(_prototypes, "solve_softmax", spy_on_regression)
    estimator.fit(X, y)
    return repr(received)


BASE = ICONClassifier(learned=learned.Gaussian(metric="dot"), random_state=0)
NETWORK = ICONClassifier(encoder=encoders.MLP(hidden=(4,)), random_state=0)


@pytest.mark.parametrize(
    "base, parameter, value",
    [(BASE, *change) for change in CHANGES.items()]
    + [(BASE, "early_stopping", True), (clone(BASE).set_params(early_stopping=True), "validation_fraction", 0.3)]
    + [(NETWORK, "learning_rate", 0.1), (NETWORK, "random_state", 1), (NETWORK, "encoder__hidden", (5,))],
)
def test_every_parameter_reaches_the_solver(monkeypatch, base, parameter, value):
    before = what_the_solver_receives(monkeypatch, clone(base))
    assert what_the_solver_receives(monkeypatch, clone(base)) == before
    assert what_the_solver_receives(monkeypatch, clone(base).set_params(**{parameter: value})) != before


def test_where_newtons_method_does_not_run_few_coefficients_are_the_same(monkeypatch):
    """As on a GPU."""
    rows = load_digits().data[:500] / 16
    labels = load_digits().target[:500]
    exact = ICONClassifier().fit(rows, labels)
    monkeypatch.setattr(_prototypes, "solves_exactly", lambda *_: False)
    np.testing.assert_allclose(ICONClassifier().fit(rows, labels).coef_, exact.coef_, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*stopped after")
@pytest.mark.parametrize("n_classes", [2, 3])
def test_coefficients_that_are_assigned_before_a_fit(n_classes):
    X, y = np.random.RandomState(3).normal(size=(60, 4)), np.arange(60) % n_classes
    fitted, given = ICONClassifier().fit(X, y), ICONClassifier(warm_start=True, max_iter=1)
    given.intercept_, given.coef_, given.classes_ = fitted.intercept_, fitted.coef_.tolist(), fitted.classes_
    np.testing.assert_array_equal(given.predict_proba(X), fitted.predict_proba(X))
    assert given.fit(X, y).loss_curve_[0] == pytest.approx(fitted.loss_curve_[-1], rel=1e-12)
    with pytest.raises(ValueError, match=r"coef_ has shape \(1, 3\), but is of \(n_classes, or 1 of two, 4\)"):
        given.coef_ = np.ones((1, 3))
    for other in (ICONClassifier(encoder="mlp", max_iter=1), ICONClassifier(encoder="mlp", max_iter=1).fit(X, y)):
        with pytest.raises(AttributeError, match="is not linear in X"):
            other.coef_ = fitted.coef_
