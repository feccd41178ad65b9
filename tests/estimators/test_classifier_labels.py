"""`ICONClassifier`: labels that are shares, unknown ones, rows held out, and a temperature that is learned."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sklearn_icon import ICONClassifier, ICONEmbedding, encoders, learned
from sklearn_icon._optim.early_stopping import EarlyStopping

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
SOLVED = {"tol": 1e-8, "max_iter": 5000}


# --- shares of classes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["linear", "mlp"])
def test_one_hot_shares_are_labels(encoder):
    estimator = ICONClassifier(encoder=encoder, max_iter=50, tol=0, random_state=0, class_weight={0: 1, 1: 2, 2: 5})
    hard, soft = clone(estimator).fit(X, y), clone(estimator).fit(X, np.eye(3)[y])
    np.testing.assert_allclose(soft.predict_proba(X), hard.predict_proba(X), atol=1e-12)
    assert soft.classes_.tolist() == [0, 1, 2]


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_shares_are_rows_with_weights():
    shares = np.random.RandomState(0).dirichlet(np.ones(3), size=len(X))
    soft = ICONClassifier(**SOLVED).fit(X, shares)
    copies, labels = np.repeat(X, 3, axis=0), np.tile(np.arange(3), len(X))
    weighted = LogisticRegression(**SOLVED).fit(copies, labels, sample_weight=shares.ravel())
    np.testing.assert_allclose(soft.coef_, weighted.coef_, atol=1e-5)


def test_names_of_the_columns_are_the_classes():
    pandas = pytest.importorskip("pandas")
    classifier = ICONClassifier().fit(X, pandas.DataFrame(np.eye(3)[y], columns=["a", "b", "c"]))
    assert set(classifier.predict(X)) == {"a", "b", "c"}


@pytest.mark.parametrize("row, least", [([0.5, 0.2, 0.2], "0.9"), ([1.5, -0.5, 0.0], "1")])
def test_shares_that_are_none(row, least):
    shares = np.eye(3)[y]
    shares[7] = row
    with pytest.raises(ValueError, match=rf"its row 7 sums to {least} with a least value of .*divide rows by their"):
        ICONClassifier().fit(X, shares)


def test_shares_are_for_p_over_classes():
    with pytest.raises(ValueError, match=r"holds class probabilities, which SameClass\(\) does not read"):
        ICONClassifier(supervisory="same_class").fit(X, np.eye(3)[y])


# --- unknown labels -----------------------------------------------------------------------------------------------


def few_labels(share, seed=0):
    rows, labels = load_digits(return_X_y=True)
    hidden = np.random.RandomState(seed).uniform(size=len(labels)) > share
    return rows / 16, labels, hidden


@pytest.mark.parametrize("encoder", ["linear", "mlp"])
def test_unknown_labels_help(encoder):
    rows, labels, hidden = few_labels(0.03)
    options = {"encoder": encoder, "max_iter": 30 if encoder == "mlp" else 500, "random_state": 0}
    every = ICONClassifier(supervisory="propagated_label", **options).fit(rows, np.where(hidden, -1, labels))
    alone = ICONClassifier(**options).fit(rows[~hidden], labels[~hidden])
    assert every.classes_.tolist() == list(range(10))
    assert every.score(rows[hidden], labels[hidden]) > alone.score(rows[hidden], labels[hidden]) + 0.05


def test_all_labels_known_is_the_plain_classifier():
    np.testing.assert_allclose(
        ICONClassifier(supervisory="propagated_label").fit(X, y).coef_, ICONClassifier().fit(X, y).coef_
    )


def test_minus_one_is_a_class_elsewhere():
    target = np.where(y == 0, -1, 1)
    assert ICONClassifier().fit(X, target).classes_.tolist() == [-1, 1]
    with pytest.raises(ValueError, match="only one class, 1;"):
        ICONClassifier(supervisory="propagated_label").fit(X, target)


def test_strings_are_known():
    names = np.array(["a", "b", "c"])[y]
    assert ICONClassifier(supervisory="propagated_label").fit(X, names).score(X, names) > 0.9
    some = names.astype(object)
    some[::2] = -1
    assert ICONClassifier(supervisory="propagated_label").fit(X, some).score(X, names) > 0.8


# --- rows held out ------------------------------------------------------------------------------------------------

STOPPED = {
    "linear": ICONClassifier(C=1e4, max_iter=500, tol=0),
    "mlp": ICONClassifier(encoder=encoders.MLP(hidden=(64,)), learning_rate=0.01, max_iter=200),
    "harmonic": ICONClassifier(learned=learned.Harmonic(n=20.0), encoder="mlp", max_iter=200),
}


@pytest.mark.parametrize("estimator", STOPPED.values(), ids=STOPPED)
def test_early_stopping_ends_where_held_out_rows_are_best(estimator):
    rows, labels = load_digits(return_X_y=True)
    train, test, of_train, of_test = train_test_split(rows / 16, labels, train_size=400, random_state=0)
    stopped = clone(estimator).set_params(early_stopping=True, n_iter_no_change=5, random_state=0)
    stopped.fit(train, of_train)
    curve = stopped.validation_loss_curve_
    assert len(curve) == stopped.n_iter_ == int(curve.argmin()) + 6 < estimator.max_iter
    held = train_test_split(np.arange(400), test_size=0.1, stratify=of_train, random_state=_split_state(stopped))[1]
    assert log_loss(of_train[held], stopped.predict_proba(train[held])) == pytest.approx(curve.min(), rel=1e-6)
    assert stopped.score(test, of_test) > 0.85


def _split_state(fitted):
    """The random state as it was when the rows were held out: after the seed of the weights."""
    state = np.random.RandomState(fitted.random_state)
    state.randint(np.iinfo(np.int32).max)
    return state


def test_without_early_stopping_nothing_is_held_out():
    assert len(ICONClassifier().fit(X, y).validation_loss_curve_) == 0


def test_unknown_labels_are_not_held_out():
    rows, labels, hidden = few_labels(0.1)
    options = {"supervisory": "propagated_label", "early_stopping": True, "random_state": 0}
    assert ICONClassifier(**options).fit(rows, np.where(hidden, -1, labels)).score(rows, labels) > 0.8


def test_early_stopping_needs_classes():
    with pytest.raises(ValueError, match=r"early_stopping=True needs p over classes, not SameClass\(\)"):
        ICONClassifier(supervisory="same_class", early_stopping=True).fit(X, y)


def test_the_watch_stops_and_keeps_the_best():
    import torch

    losses, param = iter([3.0, 1.0, 2.0, 1.5, 4.0]), torch.zeros(1)
    watch = EarlyStopping(lambda: torch.tensor(next(losses)), [param], 2, 2)
    stops = []
    for step in range(1, 9):
        param.fill_(step)
        stops.append(bool(watch(step, 0.0)))
    assert stops == [False] * 7 + [True]
    watch.restore()
    assert float(param) == 4 and watch.losses == [3.0, 1.0, 2.0, 1.5]


# --- a temperature that is learned --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["linear", "mlp"])
def test_a_learned_temperature_lowers_the_loss(encoder):
    rows, labels = (part[::3] for part in load_digits(return_X_y=True))
    options = {"encoder": encoder, "max_iter": 30, "random_state": 0}
    with pytest.warns(match="before it converged") if encoder == "linear" else _nothing():
        fixed, free = (
            ICONClassifier(learned=learned.Gaussian(metric="cosine", tau=tau), **options).fit(rows, labels)
            for tau in (0.3, "learn")
        )
    assert isinstance(free.learned_.tau, float) and free.learned_.tau not in (0.1, 0.3)
    assert free.get_params()["learned"].tau == "learn"
    assert log_loss(labels, free.predict_proba(rows)) < log_loss(labels, fixed.predict_proba(rows))


@pytest.mark.parametrize(
    "estimator",
    [
        ICONClassifier(learned=learned.Gaussian(metric="dot", tau="learn")),
        ICONClassifier(learned=learned.UniformMixture(learned.Gaussian(metric="cosine", tau="learn"), 0.1)),
        ICONClassifier(supervisory="same_class", learned=learned.Gaussian(metric="cosine", tau="learn")),
        ICONEmbedding(learned=learned.Gaussian(metric="cosine", tau="learn")),
    ],
)
def test_where_no_temperature_is_learned(estimator):
    with pytest.raises(ValueError, match="is learned by ICONClassifier and ICONCrossModal, of a cosine, alone; give"):
        estimator.fit(X, y)
