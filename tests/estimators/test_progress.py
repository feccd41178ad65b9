"""What a fit tells: lines, scikit-learn's callbacks, the report, and its HTML."""

import html
import logging
import pickle
import re
from io import StringIO

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, learned, methods
from sklearn_icon._core.versions import SITE
from sklearn_icon._estimators.routes import ROUTES

try:
    from sklearn.callback import ProgressBar, ScoringMonitor
except ImportError:
    ProgressBar = None
with_callbacks = pytest.mark.skipif(ProgressBar is None, reason="scikit-learn has callbacks from 1.9 on")
RNG = np.random.RandomState(11)
X = RNG.randn(90, 5) + 4 * (np.arange(90) % 3)[:, None]
Y = np.arange(90) % 3
PAIRED = X[:, ::-1] + 0.1
MODELS = {
    "map": ICONEmbedding(perplexity=9, max_iter=120),
    "linear map": ICONEmbedding(encoder="linear", max_iter=60),
    "map by a network": ICONEmbedding(encoder="mlp", max_iter=20),
    "word map": ICONEmbedding(
        supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional"
    ),
    "chosen clusters": ICONClustering(3),
    "linear clusters": ICONClustering(3, encoder="linear", max_iter=60),
    "k-means": methods.get("k-means").make_estimator(n_clusters=3),
    "spectral": methods.get("spectral").make_estimator(n_clusters=3),
    "softmax": ICONClassifier(),
    "network": ICONClassifier(encoder="mlp", max_iter=40, early_stopping=True),
    "supcon": ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=10),
    "pairs": ICONCrossModal(2, max_iter=20),
    "linear pairs": ICONCrossModal(2, encoder="linear", learned="student_t"),
}
each = pytest.mark.parametrize("kind", list(MODELS))
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def fit(kind, model=None, **params):
    model = clone(MODELS[kind]).set_params(random_state=0) if model is None else model
    model.set_params(**params)
    if kind == "word map":
        return model.fit(np.abs(np.round(X)) + 1)
    return model.fit(X, PAIRED if "pairs" in kind else Y if isinstance(model, ICONClassifier) else None)


@each
def test_lines_of_every_fit(kind, capsys):
    model = fit(kind, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    if kind in ("k-means", "spectral"):  # scikit-learn's KMeans has lines of its own
        lines = [line for line in lines if line.startswith("[")]
    assert len(lines) >= 2
    assert all(line.startswith(f"[{type(model).__name__}] ") for line in lines)
    assert re.search(r"fitted in \d+\.\d\d s: (1 iteration|\d+ iterations)\b", lines[-1])
    ran = sum(n for _, n, _ in vars(model).get("phases_", ()))
    assert not ran or f": {ran} iteration" in lines[-1]
    steps = [line for line in lines if ": iteration " in line]
    assert all(re.search(r": iteration \d+, loss -?\d+\.\d+, \d+\.\d\d s$", line) for line in steps)
    fit(kind, verbose=2)
    assert len(capsys.readouterr().out.splitlines()) >= len(lines)
    fit(kind, verbose=0)
    assert capsys.readouterr().out == ""


def test_losses_of_starts_side_by_side_are_those_of_one(capsys):
    fit("linear clusters", verbose=1)
    seen = [float(loss) for loss in re.findall(r"loss (\S+),", capsys.readouterr().out)]
    assert len(seen) > 3
    assert max(seen) < 2 * min(seen)


def test_lines_go_to_logging_where_that_is_set_up(capsys):
    logger, text = logging.getLogger("sklearn_icon"), StringIO()
    handler = logging.StreamHandler(text)
    logger.addHandler(handler)
    level = logger.level
    try:
        logger.setLevel(logging.INFO)
        fit("map", verbose=1)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    assert text.getvalue().count("[ICONEmbedding]") > 2
    assert capsys.readouterr().out == ""


@each
def test_reports(kind):
    model = fit(kind)
    report = model.fit_report_
    assert report["seed"] == 0
    assert report["p"] == str(model.supervisory_)
    assert report["device"] == "cpu"
    assert report["route"] in {route.name for route in ROUTES if route.estimator == type(model).__name__}
    assert report.get("stop_reason") or report["chosen"]
    over_rows = isinstance(model, (ICONEmbedding, ICONClustering))
    assert report.get("neighbor_recall") == (1.0 if over_rows else None)
    assert ("components" in report) == (over_rows and kind != "word map")
    assert report.get("duplicates") == (None if kind == "word map" or is_classifier(model) else 0)
    assert report["n_iter"] == np.ravel(model.n_iter_)[0]
    assert next(iter(report["stages"])) == "preparation"
    assert sum(report["stages"].values()) == pytest.approx(report["seconds"], abs=0.05)
    assert not hasattr(model, "_progress")
    assert pickle.loads(pickle.dumps(model)).fit_report_ == report
    final = [getattr(model, name) for name in ("kl_divergence_", "loss_") if hasattr(model, name)]
    if final or len(model.loss_curve_):
        assert report["loss"] == (final or model.loss_curve_)[-1]


def test_reports_count_parts_and_repeated_rows():
    two = np.vstack([np.zeros((8, 2)), np.ones((9, 2)), RNG.randn(40, 2), RNG.randn(30, 2) + 1e3])
    for rows in (two, two.astype(np.float32), sparse.csr_array(two)):
        report = ICONEmbedding(perplexity=3, n_neighbors=9, max_iter=50, random_state=0).fit(rows).fit_report_
        assert (report["components"], report["duplicates"]) == (2, 15)
    assert "seed" in report
    assert ICONEmbedding(max_iter=20).fit(X).fit_report_["seed"] is None


def test_a_failed_fit_keeps_the_report_of_the_last():
    model = fit("map")
    report = model.fit_report_
    with pytest.raises(ValueError, match="perplexity"):
        model.set_params(perplexity=500.5).fit(X)
    assert model.fit_report_ is report
    assert not hasattr(model, "_progress")


# --- HTML -----------------------------------------------------------------------------------------------------------

tables = pytest.mark.skipif(
    not hasattr(BaseEstimator, "_get_params_html"), reason="scikit-learn shows tables of parameters from 1.7 on"
)


@tables
@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (ICONEmbedding(), ["Gaussian()", "StudentT()", "Lookup()"]),
        (ICONEmbedding(supervisory="knn", encoder="mlp"), ["UniformKNN()", "MLP()"]),
        (ICONClustering(3), ["SharedCluster()", "chosen among candidates"]),
        (ICONClassifier(), ["DataLabel()", "Linear()"]),
        (ICONCrossModal(), ["CrossModalPairs()"]),
    ],
)
def test_html_tells_what_none_stands_for(model, shown):
    for page in (estimator_html_repr(model), estimator_html_repr(make_pipeline(StandardScaler(), model))):
        assert "p, q and encoder" in page
        assert all(text in page for text in shown)
        assert "Fit report" not in page
    page = estimator_html_repr(model)
    assert 'href="https://scikit-learn.org' not in page
    assert f'href="{SITE}/generated/sklearn_icon.{type(model).__name__}.html' in page


@tables
@each
def test_html_has_the_report_of_the_fit(kind):
    model = fit(kind)
    page = estimator_html_repr(model)
    assert "Fit report" in page
    assert html.escape(str(model.encoder_)) in page
    assert "preparation " in page
    text = str(learned.StudentT()) if kind == "map" else None
    assert text is None or text in page


@tables
def test_html_of_specs_that_are_not_valid():
    assert "no such spec" in estimator_html_repr(ICONEmbedding(supervisory="no such spec"))


# --- callbacks ------------------------------------------------------------------------------------------------------


class Recorder:
    """Counts what it is told."""

    def __init__(self, stop_at=None):
        self.began, self.ended, self.paths, self.stop_at = [], [], [], stop_at
        self.set_up = self.torn_down = 0

    def setup(self, estimator, context):
        self.set_up += 1

    def teardown(self, estimator, context):
        self.torn_down += 1

    def on_fit_task_begin(self, estimator, context):
        self.began.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        self.ended.append(context.task_name)
        return context.task_name == "iteration" and self.ended.count("iteration") == self.stop_at


@with_callbacks
@each
def test_callbacks_are_told_of_stages_and_iterations(kind):
    plain, recorder = fit(kind), Recorder()
    model = clone(MODELS[kind]).set_params(random_state=0).set_callbacks(recorder)
    fit(kind, model)
    assert (recorder.set_up, recorder.torn_down) == (1, 1)
    assert recorder.began[:2] == ["fit", "preparation"]
    assert recorder.ended[-1] == "fit"
    assert sorted(recorder.began) == sorted(recorder.ended)
    assert set(model.fit_report_["stages"]) == set(recorder.began) - {"fit", "iteration"}
    assert ("iteration" in recorder.began) == ("iteration" in recorder.ended)
    for name in ("embedding_", "labels_", "prototypes_", "loss_curve_"):  # and change nothing
        if name in vars(plain):
            np.testing.assert_array_equal(getattr(model, name), getattr(plain, name))


@with_callbacks
def test_callbacks_may_stop_a_stage():
    recorder = Recorder(stop_at=7)
    model = ICONClassifier(encoder="mlp", random_state=0).set_callbacks(recorder).fit(X, Y)
    assert len(model.loss_curve_) == 7
    assert model.predict(X).shape == (90,)


@with_callbacks
def test_callbacks_are_torn_down_where_a_fit_fails():
    recorder = Recorder()
    with pytest.raises(ValueError, match="perplexity"):
        ICONEmbedding(perplexity=500.5).set_callbacks(recorder).fit(X)
    assert (recorder.set_up, recorder.torn_down) == (1, 1)


@with_callbacks
@pytest.mark.parametrize("scoring", ["accuracy", ["accuracy", "neg_log_loss"]])
def test_a_score_of_each_fit(scoring):
    monitor = ScoringMonitor(scoring=scoring)
    model = ICONClassifier().set_callbacks(monitor).fit(X, Y)
    (row,) = monitor.get_logs().data
    assert row["task_name"] == "fit"
    assert row["accuracy"] == model.score(X, Y)
    monitor = ScoringMonitor(scoring="accuracy")
    pipeline = make_pipeline(StandardScaler(), ICONClassifier().set_callbacks(monitor)).fit(X, Y)
    assert monitor.get_logs().data[0]["accuracy"] == pipeline.score(X, Y)
    monitor = ScoringMonitor(scoring="accuracy")
    GridSearchCV(ICONClassifier().set_callbacks(monitor), {"C": [0.1, 1.0]}, cv=2).fit(X, Y)
    assert len(monitor.get_logs().data) == 5


@with_callbacks
@pytest.mark.parametrize("kind", ["map", "chosen clusters", "softmax", "pairs"])
def test_progress_bars_alone_and_within(kind, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "200")
    model, scaler = clone(MODELS[kind]), StandardScaler()
    y = PAIRED if kind == "pairs" else Y
    model.set_callbacks(ProgressBar())
    model.fit(X, y)
    assert "preparation" in capsys.readouterr().out
    model.set_callbacks()
    search = GridSearchCV(make_pipeline(scaler, model), {f"{type(model).__name__.lower()}__random_state": [0, 1]}, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, y)
    shown = capsys.readouterr().out
    assert "GridSearchCV" in shown
    assert f"{type(model).__name__} - fit" in shown
