"""Ctrl-C in a fit: what was reached is kept, or the estimator is as it was."""

import signal
import threading

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, learned
from sklearn_icon._core import interrupts
from sklearn_icon._graph import exact
from sklearn_icon._optim import solver

RNG = np.random.RandomState(5)
X = RNG.randn(80, 6)
Y = np.arange(80) % 2
KINDS = {
    "map": ICONEmbedding(perplexity=5, max_iter=90),
    "linear map": ICONEmbedding(encoder="linear", max_iter=90),
    "counts": ICONEmbedding(supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional"),
    "clusters": ICONClustering(3, encoder="linear", max_iter=60),
    "clusters by a network": ICONClustering(3, encoder="mlp", max_iter=60),
    "softmax": ICONClassifier(C=1e3, divergence="squared_hellinger"),
    "network": ICONClassifier(encoder="mlp", max_iter=40),
    "supcon": ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=40),
    "pairs": ICONCrossModal(3, max_iter=30),
}
each_kind = pytest.mark.parametrize("kind", list(KINDS))
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def usual_handler():
    """Ctrl-C as it comes, also in a process that was started in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fit(kind, model=None):
    model = clone(KINDS[kind]).set_params(random_state=0) if model is None else model
    rows = np.round(np.abs(X) * 5) + 1 if kind == "counts" else X
    return model.fit(rows, X[:, :3] if kind == "pairs" else None if kind == "counts" else Y)


def press():
    signal.raise_signal(signal.SIGINT)


def pressing_at_step(monkeypatch, number):
    """Press Ctrl-C within a step of the first training."""
    record, count = solver._Progress.record, [0]

    def recorded(self, *of_step):
        count[0] += 1
        if count[0] == number:
            press()
        return record(self, *of_step)

    monkeypatch.setattr(solver._Progress, "record", recorded)


@each_kind
@pytest.mark.parametrize("step", [1, 3])
def test_training_stops_and_what_was_reached_is_kept(kind, step, monkeypatch):
    pressing_at_step(monkeypatch, step)
    name = type(KINDS[kind]).__name__
    with pytest.warns(RuntimeWarning, match=f"{name} was interrupted (at|in) .*{step}; the last whole step is kept"):
        model = fit(kind)
    for method in ("transform", "predict_proba"):
        if hasattr(model, method):
            assert np.isfinite(getattr(model, method)(np.abs(X[:5]) if kind == "counts" else X[:5])).all()
    if kind not in ("supcon", "clusters by a network"):  # where another training follows
        assert (model.n_iter_ + 1 if kind == "map" else len(model.loss_curve_)) == step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@each_kind
def test_an_interrupt_before_training_leaves_nothing(kind, monkeypatch):
    minimize = solver.raise_if_interrupted
    monkeypatch.setattr(solver, "raise_if_interrupted", lambda: (press(), minimize()))
    model = clone(KINDS[kind])
    own = set(vars(model))
    with pytest.raises(KeyboardInterrupt):
        fit(kind, model)
    assert set(vars(model)) == own
    with pytest.raises(NotFittedError):
        model.transform(X)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_in_a_search_leaves_the_last_fit(monkeypatch):
    model = fit("map")
    before = model.embedding_
    monkeypatch.setattr(exact, "raise_if_interrupted", lambda: (press(), interrupts.raise_if_interrupted()))
    with pytest.raises(KeyboardInterrupt):
        fit("map", model)
    assert model.embedding_ is before


def test_a_second_interrupt_is_raised_at_once(monkeypatch):
    monkeypatch.setattr(exact, "raise_if_interrupted", lambda: (press(), press()))
    with pytest.raises(KeyboardInterrupt):
        fit("map")


def test_an_interrupt_after_the_last_step(monkeypatch):
    from sklearn_icon._training import maps

    losses_of = maps.losses_of
    monkeypatch.setattr(maps, "losses_of", lambda *args: (press(), losses_of(*args))[1])
    with pytest.warns(RuntimeWarning, match="ICONEmbedding was interrupted after its last step; it is complete"):
        model = fit("map")
    assert np.isfinite(model.kl_divergence_)


def test_a_grid_search_stops(monkeypatch):
    pressing_at_step(monkeypatch, 2)
    search = GridSearchCV(clone(KINDS["softmax"]), {"C": [1.0, 10.0]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, Y)


def test_a_pipeline_goes_on(monkeypatch):
    pressing_at_step(monkeypatch, 2)
    with pytest.warns(RuntimeWarning, match="ICONClassifier was interrupted at iteration 2"):
        assert make_pipeline(StandardScaler(), clone(KINDS["softmax"])).fit(X, Y).predict(X).shape == (80,)


def test_handlers_of_others_stay(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        pressing_at_step(monkeypatch, 2)
        assert fit("map").stop_reason_ != "interrupted"
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [True]


def test_fits_in_other_threads_leave_handlers_alone():
    found = []
    thread = threading.Thread(target=lambda: found.append(fit("softmax")))
    thread.start()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    thread.join()
    assert found
