"""The table of routes: every line is solved, and what none takes is refused before p is computed."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_icon import (
    ICONClassifier,
    ICONClustering,
    ICONCrossModal,
    ICONEmbedding,
    encoders,
    learned,
    supervisory,
)
from sklearn_icon._estimators import routes

RNG = np.random.RandomState(0)
X = RNG.normal(size=(40, 4))
LABELS = np.arange(40) % 2
COUNTS = RNG.poisson(1.0, size=(40, 6)) + 1.0


def shifted(batch):
    return batch + 0.1


VIEWS = supervisory.PositivePairs(shifted)
K_MEANS = {"supervisory": supervisory.Gaussian(sigma=0), "encoder": "lookup", "divergence": "reverse_kl"}
SOFT_K_MEANS = K_MEANS | {"supervisory": supervisory.Gaussian(sigma=1.0)}
CUT = {"supervisory": supervisory.UniformKNN(5), "encoder": "lookup", "debias": 1}
FITTED = {
    ("ICONEmbedding", "tokens"): (ICONEmbedding(supervisory="counts", normalization="conditional"), COUNTS, None),
    ("ICONEmbedding", "views"): (ICONEmbedding(supervisory=VIEWS, encoder="linear", max_iter=5), X, None),
    ("ICONEmbedding", "rows", "encoder"): (ICONEmbedding(encoder="mlp", max_iter=5, perplexity=5), X, None),
    ("ICONEmbedding", "rows", "map"): (ICONEmbedding(max_iter=20, perplexity=5), X, None),
    ("ICONClustering", "rows, by default"): (ICONClustering(2), X, None),
    ("ICONClustering", "rows, sigma=0"): (ICONClustering(2, **K_MEANS), X, None),
    ("ICONClustering", "rows, all pairs"): (ICONClustering(2, **SOFT_K_MEANS), X, None),
    ("ICONClustering", "rows, debias=1"): (ICONClustering(2, **CUT), X, None),
    ("ICONClustering", "rows or views"): (ICONClustering(2, encoder="linear", max_iter=12), X, None),
    ("ICONClassifier", "rows"): (ICONClassifier(supervisory="same_class", max_iter=2), X, LABELS),
    ("ICONClassifier", "classes", "softmax regression"): (ICONClassifier(), X, LABELS),
    ("ICONClassifier", "classes", "prototypes"): (ICONClassifier(learned="student_t", encoder="mlp"), X, LABELS),
    ("ICONCrossModal", "partners"): (ICONCrossModal(2), X, X[:, ::-1]),
}


def test_every_line_of_the_table_is_tried():
    lines = {(route.estimator, route.keys): [] for route in routes.ROUTES}
    for route in routes.ROUTES:
        lines[route.estimator, route.keys].append(route.name)
    expected = {key if len(names) == 1 else (*key, name) for key, names in lines.items() for name in names}
    assert set(FITTED) == expected


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("line", list(FITTED), ids=" ".join)
def test_a_line_is_what_solves(line, monkeypatch):
    taken, find = [], routes.route_of

    def spy(estimator, case):
        taken.append(next(r for r in routes.ROUTES if r.estimator == estimator and r.takes(case)))
        return find(estimator, case)

    estimator, rows, y = FITTED[line]
    for module in ("base", "embedding", "clustering", "classifier"):
        monkeypatch.setattr(f"sklearn_icon._estimators.{module}.route_of", spy)
    fitted = clone(estimator).set_params(random_state=0).fit(rows, y)
    assert fitted.fit_report_["route"] == taken[0].name
    assert {(route.estimator, route.keys) for route in taken[:1]} == {line[:2]}
    assert line[2:] in ((), (taken[0].name,))


REFUSED = {
    "an encoder for memberships": ICONEmbedding(learned=learned.SharedCluster()),
    "tokens in the joint form": ICONEmbedding(supervisory="counts"),
    "tokens on a grid": ICONEmbedding(supervisory="counts", normalization="conditional", method="interpolation"),
    "views in a lookup": ICONEmbedding(supervisory=VIEWS),
    "views all at once": ICONEmbedding(supervisory=VIEWS, encoder="linear", method="exact"),
    "a loss without bound": ICONEmbedding(learned=learned.WideGaussian(), encoder="linear"),
    "late exaggeration of another divergence": ICONEmbedding(divergence="jensen_shannon", late_exaggeration=2.0),
    "late exaggeration of a network": ICONEmbedding(late_exaggeration=2.0, encoder="mlp"),
    "a pull of a network": ICONEmbedding(init_weight=1.0, encoder="mlp"),
    "a pull of tokens": ICONEmbedding(supervisory="counts", normalization="conditional", init_weight=1.0),
    "a grid of a kernel that is not smooth": ICONEmbedding(learned="harmonic", method="interpolation"),
    "a grid of three dimensions": ICONEmbedding(3, method="interpolation"),
    "a grid of a debiased p": ICONEmbedding(method="interpolation", debias=0.1),
    "a grid of a network": ICONEmbedding(encoder="mlp", method="interpolation"),
    "drawn keys of another divergence": ICONEmbedding(method="sampled", divergence="jensen_shannon"),
    "drawn keys of learned degrees of freedom": ICONEmbedding(learned=learned.StudentT(df="learn"), method="sampled"),
    "a start without features": ICONEmbedding(supervisory=supervisory.UniformKNN(2, "precomputed"), init="pca"),
    "classes as keys of a map": ICONEmbedding(supervisory="data_label"),
    "a kernel as clusters": ICONClustering(2, learned=learned.StudentT()),
    "walks of views": ICONClustering(2, supervisory=supervisory.RandomWalk(VIEWS, 2), encoder="linear"),
    "distances to no centres": ICONClustering(2, metric="precomputed", output="distances"),
    "k-means by degree": ICONClustering(2, **K_MEANS | {"learned": learned.SharedCluster(weights="degree")}),
    "k-means by a map": ICONClustering(2, **K_MEANS | {"encoder": "linear"}),
    "neighbours as classes": ICONClassifier(supervisory="knn"),
    "a lookup of classes": ICONClassifier(encoder=encoders.Lookup()),
    "early stopping without classes": ICONClassifier(supervisory="same_class", early_stopping=True),
    "a lookup of pairs": ICONCrossModal(2, encoder=encoders.Lookup()),
}


@pytest.mark.parametrize("why", list(REFUSED))
def test_what_no_line_takes_is_refused_before_p_is_computed(why, monkeypatch):
    estimator = clone(REFUSED[why])
    rows = COUNTS if estimator.supervisory == "counts" else X
    distances = "precomputed" in repr(estimator)
    rows = np.abs(rows @ rows.T - np.diag(np.square(rows).sum(1))) if distances else rows
    computed = []
    for spec in _classes():
        monkeypatch.setattr(spec, "conditional", lambda *_, **__: computed.append(1))
    of_classes = LABELS if estimator.supervisory is not None else None
    y = {"ICONClassifier": LABELS, "ICONCrossModal": X}.get(type(estimator).__name__, of_classes)
    with pytest.raises(ValueError, match=r"use |such as |got "):
        estimator.fit(rows, y)
    assert not computed


def _classes():
    """All classes of p that compute one themselves."""
    classes = {value for value in vars(supervisory).values() if isinstance(value, type)}
    return [value for value in classes if "conditional" in vars(value)]


def test_the_guide_holds_the_table():
    guide = Path(__file__).parents[2] / "docs" / "user_guide.rst"
    assert routes.table() in guide.read_text()
