"""Softmax regression by Newton's method: derivatives, the optimum under every penalty, and what one option changes."""

import numpy as np
import pytest
from scipy import linalg, optimize, sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sklearn_icon import ICONClassifier
from sklearn_icon._optim.lasso import lasso
from sklearn_icon._training import softmax
from sklearn_icon._training.softmax import solve_softmax
from sklearn_icon._training.softmax_loss import Penalty, Softmax, Start

EYE = {2: np.array([[0.0], [1.0]]), 3: linalg.helmert(3).T}


def problem(n_classes, kind, l2=0.3, fit_intercept=True, n=40, d=5):
    rng = np.random.RandomState(0)
    X = np.where(rng.uniform(size=(n, d)) < 0.4, 0, rng.normal(size=(n, d))) + (3 if kind == "offset" else 0)
    targets, weight = rng.dirichlet(np.ones(n_classes), size=n), rng.dirichlet(np.ones(n))
    rows = sparse.csr_array(X) if kind == "sparse" else X
    loss = Softmax(rows, targets, weight, Penalty(0.0, l2), fit_intercept, EYE[n_classes])
    return loss, rng.normal(size=(n_classes - 1, d + 1))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("kind", ["dense", "offset", "sparse"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_derivatives(n_classes, kind, fit_intercept):
    loss, V = problem(n_classes, kind, fit_intercept=fit_intercept)
    if not fit_intercept:
        V[:, -1] = 0.0
    q = loss.value(V)[1]
    gradient, hessian = loss.gradient(V, q), loss.hessian(q)
    free = np.tile(np.append(np.ones(V.shape[1] - 1), fit_intercept), len(V)).astype(bool)
    for direction in np.eye(V.size)[free]:
        step = 1e-5 * direction.reshape(V.shape)
        slope = (loss.value(V + step)[0] - loss.value(V - step)[0]) / 2e-5
        assert np.vdot(gradient, direction) == pytest.approx(slope, abs=1e-8)
        ends = [loss.gradient(W, loss.value(W)[1]) for W in (V + step, V - step)]
        np.testing.assert_allclose(hessian @ direction, ((ends[0] - ends[1]) / 2e-5).ravel(), atol=1e-8)
        product = loss.product(direction.reshape(V.shape), q).ravel()
        np.testing.assert_allclose(product[free], (hessian @ direction)[free], atol=1e-12)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_blocks_are_those_of_the_hessian_but_for_rows_that_hardly_count(kind):
    loss, V = problem(3, kind, l2=1e-3)
    loss.basis, loss.shape = np.eye(3), (3, V.shape[1])  # the coordinates of classes
    q = loss.value(np.vstack([20 * V, V[:1]]))[1]
    size = V.shape[1]
    whole = [loss.hessian(q)[start : start + size, start : start + size] for start in range(0, 3 * size, size)]
    missing = linalg.eigvalsh(whole - loss.blocks(q))
    assert -1e-12 < missing.min() and 1e-9 < missing.max() <= 1e-3


@pytest.mark.parametrize("n_classes", [2, 3])
def test_single_precision_does_what_double_does(n_classes):
    loss, V = problem(n_classes, "offset", n=700)
    loss._pieces = [slice(0, 500), slice(500, 700)]
    single = loss.in_single_precision()
    (value, q), (rough, of_rough) = loss.value(V), single.value(V)
    assert rough == pytest.approx(value, rel=1e-6) and of_rough.dtype == np.float32
    np.testing.assert_allclose(single.gradient(V, of_rough), loss.gradient(V, q), atol=1e-6)
    np.testing.assert_allclose(single.product(V, of_rough), loss.product(V, q), atol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_single_precision_is_not_used_where_it_holds_no_squares(size):
    X, y = load_iris(return_X_y=True)
    X = np.hstack([X * size, X])
    rows = Softmax(X, np.eye(3)[y], np.full(150, 1 / 150), Penalty(0.0, 0.1), True, EYE[3])
    assert rows.in_single_precision() is None


@pytest.mark.parametrize("l1", [0.0, 0.3, 3.0, 100.0])
def test_lasso(l1):
    rng = np.random.RandomState(1)
    half = rng.normal(size=(12, 9))
    Q, q = half.T @ half, 4 * rng.normal(size=9)
    w = lasso(Q, q, l1, np.ones(9))
    slope = q - Q @ w
    np.testing.assert_allclose(slope[w != 0], l1 * np.sign(w[w != 0]), atol=1e-10)
    assert (np.abs(slope[w == 0]) <= l1 + 1e-10).all()
    assert (w == 0).all() == (l1 == 100.0)


DATA = {
    "iris": load_iris(return_X_y=True),
    "wine": load_wine(return_X_y=True),
    "cancer": load_breast_cancer(return_X_y=True),
    "digits": tuple(part[:400] for part in load_digits(return_X_y=True)),
}
each = pytest.mark.parametrize("name", DATA)


def near(ours, theirs, rtol=1e-6):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=rtol * np.abs(other).max(), rtol=0)


@each
def test_one_optimum_at_the_default_tolerance(name):
    """Of dense and sparse rows, weights and copies, columns of any unit."""
    X, y = DATA[name]
    fitted = ICONClassifier().fit(X, y)
    near([ICONClassifier().fit(sparse.csr_array(X), y).coef_], [fitted.coef_])
    solved = ICONClassifier(tol=1e-10, max_iter=1000).fit(X, y)
    near([fitted.coef_, fitted.intercept_], [solved.coef_, solved.intercept_])
    counts = np.random.RandomState(0).randint(0, 4, size=len(y))
    weighted = ICONClassifier().fit(X, y, sample_weight=counts)
    copies = ICONClassifier().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    near([weighted.coef_, weighted.intercept_], [copies.coef_, copies.intercept_])


@each
def test_many_rows_that_stay_sparse_do_as_dense_ones(name, monkeypatch):
    X, y = DATA[name]
    fitted = ICONClassifier().fit(X, y)
    monkeypatch.setattr(softmax, "_is_small", lambda X: False)
    near([ICONClassifier().fit(sparse.csr_array(X), y).coef_], [fitted.coef_])


@each
@pytest.mark.parametrize("first", [0, 15])
def test_steps_by_products_end_where_exact_ones_do(name, first, monkeypatch):
    X, y = DATA[name]
    X = StandardScaler().fit_transform(X)
    exact = ICONClassifier().fit(X, y)
    monkeypatch.setattr(softmax, "_FEW_COEFFICIENTS", 0)
    monkeypatch.setattr(softmax, "_FIRST_STEPS", first)
    near([ICONClassifier().fit(X, y).coef_], [exact.coef_])


@pytest.mark.parametrize("C", [0.02, 0.5])
@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
@pytest.mark.parametrize("name", ["iris", "cancer", "wine"])
def test_elastic_net_is_the_peers(name, l1_ratio, C):
    X, y = DATA[name]
    X = StandardScaler().fit_transform(X)
    ours = ICONClassifier(C=C, l1_ratio=l1_ratio).fit(X, y)
    theirs = LogisticRegression(C=C, l1_ratio=l1_ratio, solver="saga", tol=1e-8, max_iter=50000, random_state=0)
    theirs.fit(X, y)
    near([ours.coef_, ours.intercept_], [theirs.coef_, theirs.intercept_], 2e-4)
    assert ((ours.coef_ == 0) == (np.abs(theirs.coef_) < 1e-6)).all()


@pytest.mark.parametrize("l1_ratio", [0.4, 1.0])
def test_elastic_net_of_many_coefficients(l1_ratio, monkeypatch):
    X, y = make_classification(150, 40, n_informative=6, n_classes=3, random_state=2)
    by_newton = ICONClassifier(C=0.2, l1_ratio=l1_ratio).fit(X, y)
    monkeypatch.setattr(softmax, "MOST_COEFFICIENTS", 10)
    by_lbfgs = ICONClassifier(C=0.2, l1_ratio=l1_ratio, tol=1e-8, max_iter=5000).fit(sparse.csr_array(X), y)
    near([by_lbfgs.coef_], [by_newton.coef_], 1e-4)
    assert (by_newton.coef_ == 0).sum() > 20


def test_a_path_of_l1_penalties():
    """From all zero on, each from the last one's coefficients; columns that never were needed stay zero."""
    X, y = DATA["wine"]
    X, y = X[y != 2], y[y != 2]
    X = X / X.max(axis=0)
    classifier = ICONClassifier(penalty="l1", solver="liblinear", warm_start=True, intercept_scaling=10000.0)
    strengths, paths = np.logspace(-0.01, 3, 8) / np.abs(X.T @ (y - y.mean())).max(), []
    for C in strengths:
        paths.append(classifier.set_params(C=C).fit(X, y).coef_.ravel().copy())
        alone = ICONClassifier(C=C, l1_ratio=1.0).fit(X, y)
        near([paths[-1]], [alone.coef_.ravel()], 1e-6) if alone.coef_.any() else None
    counts = [np.count_nonzero(path) for path in paths]
    assert counts[0] == 0 < counts[1] < counts[-1]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_without_intercept(n_classes):
    X, y = make_classification(200, 6, n_informative=4, n_classes=n_classes, flip_y=0.2, random_state=0)
    ours = ICONClassifier(fit_intercept=False).fit(X + 1, y)
    theirs = LogisticRegression(fit_intercept=False, tol=1e-10, max_iter=5000).fit(X + 1, y)
    near([ours.coef_], [theirs.coef_], 1e-5)
    assert not ours.intercept_.any()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("spelling", [{"C": np.inf}, {"penalty": None}, {"penalty": "l2", "C": np.inf}])
def test_no_penalty(n_classes, spelling):
    X, y = make_classification(300, 6, n_informative=4, n_redundant=2, n_classes=n_classes, flip_y=0.3, random_state=1)
    ours = ICONClassifier(**spelling).fit(X, y)  # columns depend on each other: the shortest of all optima
    theirs = LogisticRegression(C=np.inf, tol=1e-9, max_iter=5000).fit(X, y)
    near([ours.coef_, ours.intercept_], [theirs.coef_, theirs.intercept_], 1e-4)


def test_classes_that_a_line_parts_have_an_end():
    X, y = DATA["iris"]
    classifier = ICONClassifier(C=np.inf, max_iter=500).fit(X[:100], y[:100])
    assert np.isfinite(classifier.coef_).all() and classifier.predict_proba(X[:100]).max(axis=1).min() > 0.99


def test_soft_targets_against_a_general_solver():
    loss, _ = problem(3, "dense", l2=0.01)
    best = optimize.minimize(lambda v: loss.value(v.reshape(2, 6))[0], np.zeros(12), tol=1e-12)
    coef, intercept, result = solve_softmax(
        loss.rows + loss.mean,
        loss.targets.T,
        loss.weight,
        loss.penalty,
        Start(),
        max_iter=100,
        tol=1e-6,
        on_step=None,
    )
    assert result.loss == pytest.approx(best.fun, abs=1e-9) and result.status == "converged"
    assert coef.sum(axis=0) == pytest.approx(0, abs=1e-9) and intercept.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_single_precision_far_from_zero(dtype, offset):
    X, y = DATA["iris"]
    rows = (X + offset).astype(dtype)
    ours, exact = (ICONClassifier(C=10.0).fit(part, y) for part in (rows, rows.astype(np.float64)))
    assert ours.coef_.dtype == dtype
    near([ours.coef_], [exact.coef_], 1e-6)
    near([ours.predict_proba(rows)], [exact.predict_proba(rows.astype(np.float64))], 1e-6)


def test_coefficients_may_be_assigned_and_sparse():
    X, y = DATA["cancer"]
    classifier = ICONClassifier(C=0.01, l1_ratio=1.0).fit(StandardScaler().fit_transform(X), y)
    logits = classifier.decision_function(X)
    assert sparse.issparse(classifier.sparsify().coef_)
    np.testing.assert_allclose(classifier.decision_function(X), logits)
    np.testing.assert_allclose(classifier.decision_function(sparse.csr_array(X)), logits)
    assert isinstance(classifier.densify().coef_, np.ndarray)
    classifier.coef_, classifier.intercept_ = np.zeros_like(classifier.coef_), np.array([1.0])
    np.testing.assert_allclose(classifier.decision_function(X), 1.0)
    assert not hasattr(ICONClassifier(encoder="mlp"), "sparsify")


def test_iterations():
    X, y = DATA["digits"]
    classifier = ICONClassifier().fit(X / 16, y)
    assert classifier.n_iter_.shape == (1,) and classifier.n_iter_[0] == len(classifier.loss_curve_)
    assert (np.diff(classifier.loss_curve_) < 1e-9).all()
    with pytest.warns(match="ICONClassifier stopped after 3 iterations before it converged"):
        assert ICONClassifier(max_iter=3).fit(X, y).n_iter_[0] == 3


@pytest.mark.parametrize(
    "params, message",
    [
        ({"encoder": "mlp", "l1_ratio": 0.5}, "l1_ratio=0.5 is for softmax regression"),
        ({"learned": "student_t", "fit_intercept": False}, "fit_intercept=False is for softmax regression"),
        ({"supervisory": "same_class", "solver": "saga"}, "solver='saga' is for softmax regression"),
        ({"encoder": "mlp", "max_iter": 0}, "max_iter=0 is for softmax regression"),
        ({"divergence": "jensen_shannon", "penalty": "l1"}, "l1_ratio=1 needs divergence='kl'"),
        ({"early_stopping": True, "penalty": "l1"}, "l1_ratio=1 needs divergence='kl'"),
        ({"dual": True}, "Solver auto supports only dual=False"),
        ({"solver": "sag", "l1_ratio": 0.1}, "Solver sag supports only 'l2' or None penalties"),
        ({"solver": "liblinear"}, "does not support multiclass classification; use solver='auto'"),
        ({"penalty": "elasticnet", "l1_ratio": None}, "penalty='elasticnet' needs l1_ratio"),
    ],
)
def test_what_means_nothing_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        ICONClassifier(**params).fit(*DATA["iris"])


@pytest.mark.parametrize("params", [{"penalty": "l2", "l1_ratio": 0.5}, {"penalty": "l1", "l1_ratio": 0.0}])
def test_penalty_counts_where_it_and_its_ratio_differ(params):
    with pytest.warns(match=f"Inconsistent values: penalty={params['penalty']} with l1_ratio={params['l1_ratio']}"):
        fitted = ICONClassifier(**params).fit(*DATA["iris"])
    assert (fitted.coef_ == 0).any() == (params["penalty"] == "l1")


def test_no_penalty_ignores_its_strength():
    with pytest.warns(match="Setting penalty=None will ignore the C=4"):
        ICONClassifier(penalty=None, C=4).fit(*DATA["wine"])


@pytest.mark.parametrize("weak", [1e-6, 1e-3, 0.3])
@pytest.mark.parametrize("rank", [3, 12, 30])
def test_lasso_of_dependent_columns_is_a_minimum(weak, rank):
    rng = np.random.RandomState(rank)
    rows = rng.normal(size=(rank, 30))
    Q, q = rows.T @ rows / rank + 1e-10 * np.eye(30), rows.T @ rng.normal(size=rank) / rank
    for start in (np.zeros(30), rng.normal(size=30)):
        found = lasso(Q, q, weak, start)
        slope = Q @ found - q
        assert (np.abs(slope + weak * np.sign(found))[found != 0] <= 1e-5 * weak).all()
        assert (np.abs(slope) <= weak * (1 + 1e-5)).all()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [1e2, 1e4, 1e6])
def test_weak_elastic_net_of_dependent_columns_takes_few_steps(n_classes, C):
    rng = np.random.RandomState(n_classes)
    free = rng.normal(size=(160, 4))
    rows = np.hstack([free, free @ rng.normal(size=(4, 5)), rng.normal(size=(160, 6))])
    y = (free @ rng.normal(size=(4, n_classes)) + 2 * rng.normal(size=(160, n_classes))).argmax(axis=1)
    for l1_ratio in (0.5, 1.0):
        fit = ICONClassifier(C=C, l1_ratio=l1_ratio).fit(rows, y)
        assert fit.n_iter_[0] <= 20
        slope = (np.eye(n_classes)[y] - fit.predict_proba(rows))[:, -len(fit.coef_) :].T @ rows / len(rows)
        slope -= (1 - l1_ratio) / (C * len(rows)) * fit.coef_
        assert (np.abs(slope) <= l1_ratio / (C * len(rows)) * (1 + 1e-3) + 1e-9).all()
        assert not fit.coef_[:, 4:9].all()  # not all of columns that depend on each other


@pytest.mark.parametrize("params", [{}, {"penalty": "l1"}])
def test_no_iteration_leaves_zeros(params):
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="stopped after 0 iterations"):
        fit = ICONClassifier(max_iter=0, **params).fit(X, y)
    assert fit.n_iter_.tolist() == [0]
    assert not fit.coef_.any() and not fit.intercept_.any()


@pytest.mark.parametrize("largest", [1.01e30, 1e100])
def test_liblinear_by_name_takes_no_huge_values(largest):
    X = np.array([[0.0], [1.0], [largest], [2.0]])
    for rows in (X, sparse.csr_array(X)):
        with pytest.raises(ValueError, match="Using the 'liblinear' solver while X contains a maximum value > 1e30"):
            ICONClassifier(solver="liblinear").fit(rows, [0, 1, 1, 0])
    assert ICONClassifier().fit(X, [0, 1, 1, 0]).predict(X)[2] == 1


@pytest.mark.parametrize("C", [1.0, 100.0])
@pytest.mark.parametrize("width", [30, 240])
def test_probabilities_of_weights_are_those_of_copies(width, C):
    """Whichever way Newton's steps are solved for."""
    rng = np.random.RandomState(7)
    X, y, counts = rng.rand(120, width), rng.randint(0, 3, 120), rng.randint(0, 5, 120)
    weighted = ICONClassifier(C=C).fit(X, y, sample_weight=counts).predict_proba(X)
    copies = ICONClassifier(C=C).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts)).predict_proba(X)
    np.testing.assert_allclose(weighted, copies, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("C, decades", [(1e6, 0), (1.0, 12)])
def test_flat_directions_are_solved_too(C, decades):
    """Coefficients of a weak penalty, and of columns of unlike units, by products with the Hessian."""
    X, y = load_digits(return_X_y=True)
    X = X * 10.0 ** np.linspace(-decades / 2, decades / 2, X.shape[1])
    counts = np.random.RandomState(1).randint(1, 3, len(X))
    weighted = ICONClassifier(C=C, max_iter=300).fit(X, y, sample_weight=counts)
    order = np.random.RandomState(2).permutation(counts.sum())
    copies = ICONClassifier(C=C, max_iter=300).fit(np.repeat(X, counts, axis=0)[order], np.repeat(y, counts)[order])
    assert weighted.coef_.size > softmax._FEW_COEFFICIENTS
    np.testing.assert_allclose(weighted.coef_, copies.coef_, rtol=0, atol=1e-6 * np.abs(copies.coef_).max())


@pytest.mark.parametrize("data", [load_breast_cancer, load_iris, load_wine])
@pytest.mark.parametrize("C", [0.1, 1.0, 1000.0])
def test_a_last_step_by_the_last_factor_is_exact(data, C):
    X, y = data(return_X_y=True)
    fits = [ICONClassifier(C=C, tol=tol).fit(StandardScaler().fit_transform(X), y) for tol in (1e-4, 0)]
    np.testing.assert_allclose(fits[0].coef_, fits[1].coef_, rtol=0, atol=1e-9 * np.abs(fits[1].coef_).max())
