"""Whatever a stranger passes: a result that is finite and in its range, or an error of the library's own.

A few draws each; ICON_EXAMPLES=1000 draws as many, other ones each time.
"""

import math
import os
import re
import traceback
import warnings
from functools import partial

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

import sklearn_icon
from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, learned, methods, supervisory
from sklearn_icon import metrics as scores
from sklearn_icon import plotting as pictures
from sklearn_icon.nn import ICONLoss

EXAMPLES = int(os.environ.get("ICON_EXAMPLES", "0"))
OWN = (
    "sklearn_icon",
    "sklearn/utils",
    "sklearn/base",
    "sklearn/metrics",
    "sklearn/neighbors",
    "sklearn/model_selection",
)
FAILING = re.compile("invalid value|overflow|divide by zero|of empty")
MAPS = {"knn_recall": {"n_neighbors": 3}, "trustworthiness": {"n_neighbors": 2}, "random_triplet_accuracy": {}}


def drawn(usual):
    """As many examples as the environment says, or a few that are the same each time."""
    return settings(
        max_examples=EXAMPLES or usual,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate] if not EXAMPLES else list(Phase),
        suppress_health_check=list(HealthCheck),
    )


def answer(call, *args, **kwargs):
    """(what a call returns,), or nothing where it refuses in its own words; numbers that fail silently are an error."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            returned = call(*args, **kwargs)
        silent = [str(each.message) for each in told if issubclass(each.category, RuntimeWarning)]
        assert not list(filter(FAILING.search, silent)), silent
        return (returned,)
    except (ValueError, TypeError, AttributeError, MemoryError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        assert any(part in last for part in OWN), f"{type(error).__name__} of {last}: {error}"
        assert str(error)
        return ()


numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-300, 5e-324, 1e-160, 1e150, 1e300, 1.7e308, 1e8, -1e10]),
    st.floats(-10, 10),
)
promised = st.one_of(st.sampled_from([0.0, 1.0, 1e-300, 1e150, -1e150, 1e10]), st.floats(-10, 10), st.floats(-10, 10))
spoilt = st.one_of(numbers, numbers, numbers, st.sampled_from([math.nan, math.inf, -math.inf]))


@st.composite
def rows(
    draw, n=None, d=None, values=numbers, dtypes=("f8", "f8", "f4", "f2", "i8", "?", "O"), scales=(1, 1, 1e-300, 1e100)
):
    """Rows of any precision, scale and offset, repeated ones and constant columns among them."""
    n = draw(st.integers(0, 12)) if n is None else n
    d = draw(st.integers(0, 4)) if d is None else d
    dtype = draw(st.sampled_from(dtypes))
    X = np.array(draw(st.lists(values, min_size=n * d, max_size=n * d)), dtype=float).reshape(n, d)
    if draw(st.booleans()) and n:
        X = X[np.array(draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n)))]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = X * draw(st.sampled_from(scales)) + draw(st.sampled_from([0, 0, 1e8]))
        X = np.clip(np.nan_to_num(X), -1e18, 1e18).astype(dtype) if dtype in ("i8", "?") else X.astype(dtype)
    return np.asfortranarray(X) if draw(st.booleans()) else X


def labels(n):
    return st.one_of(
        st.lists(st.integers(-1, 3), min_size=n, max_size=n),
        st.lists(st.sampled_from(["a", "b", "", "ü"]), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 1.0, 0.5, math.nan]), min_size=n, max_size=n),
        st.lists(st.sampled_from([0, 1, 2**53 + 1, 2**53]), min_size=n, max_size=n),
        st.lists(st.sampled_from([None, 1, "a"]), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
    )


lengths = st.integers(0, 9)


@pytest.mark.parametrize("name", MAPS)
@drawn(40)
@given(data=st.data())
def test_scores_of_maps(name, data):
    n = data.draw(lengths)
    score, X = getattr(scores, name), data.draw(rows(n, values=spoilt))
    Z = data.draw(rows(n if data.draw(st.integers(0, 9)) else n + 1, values=spoilt))
    options = {name: data.draw(st.sampled_from([1, value, 8, 0])) for name, value in MAPS[name].items()}
    for value in answer(score, X, Z, **options):
        assert 0 <= value <= 1
    for value in answer(score, X, X, **options):
        if name == "knn_recall":
            assert value == 1


@drawn(60)
@given(data=st.data())
def test_clustering_accuracy(data):
    n = data.draw(lengths)
    y, c = data.draw(labels(n)), data.draw(labels(n))
    weight = data.draw(st.one_of(st.none(), st.lists(spoilt, min_size=n, max_size=n)))
    for value in answer(scores.clustering_accuracy, y, c, sample_weight=weight):
        assert 0 <= value <= 1 + 1e-12
    for value in answer(scores.clustering_accuracy, y, y, sample_weight=weight):
        assert value == pytest.approx(1)


@st.composite
def probabilities(draw, n):
    """Rows that sum to one, in any precision, as a rule."""
    k = draw(st.integers(1, 4))
    raw = np.array(draw(st.lists(st.floats(0, 1), min_size=n * k, max_size=n * k))).reshape(n, k) + 1e-9
    dtype = draw(st.sampled_from(["f8", "f4", "f2"]))
    p = (raw / raw.sum(axis=1, keepdims=True)).astype(dtype)
    spoil = draw(st.sampled_from([None, None, None, np.nan, -1.0, 2.0]))
    if spoil is not None and p.size:
        p[0, 0] = spoil
    return p


@drawn(40)
@given(data=st.data())
def test_calibration_errors(data):
    n = data.draw(lengths)
    y, p = data.draw(labels(n)), data.draw(probabilities(n))
    classes = data.draw(st.sampled_from([None, list(range(p.shape[1])), ["a", "b", "c"]]))
    n_bins = data.draw(st.sampled_from([1, 15, 0, 2.5]))
    for value in answer(scores.expected_calibration_error, y, p, n_bins=n_bins, labels=classes):
        assert 0 <= value <= 1 + 1e-3


def picture(kind, data):
    """A call that makes a Display of drawn data."""
    n = data.draw(lengths)
    y = data.draw(labels(n if data.draw(st.integers(0, 9)) else n + 1))
    if kind == "map":
        coloured = (
            {"values": data.draw(st.lists(spoilt, min_size=n, max_size=n))} if data.draw(st.booleans()) else {"y": y}
        )
        return partial(pictures.EmbeddingDisplay.from_embedding, data.draw(rows(n, values=spoilt)), **coloured)
    if kind == "loss":
        curve = data.draw(st.lists(spoilt, max_size=9))
        where = data.draw(st.one_of(st.none(), st.lists(st.integers(-2, 50), min_size=len(curve), max_size=len(curve))))
        return lambda: pictures.LossCurveDisplay(curve, iterations=where).plot()
    if kind == "calibration":
        return partial(pictures.ReliabilityDisplay.from_predictions, y, data.draw(probabilities(n)))
    if kind == "sizes":
        memberships = data.draw(st.one_of(st.none(), probabilities(n)))
        return partial(pictures.ClusterSizesDisplay.from_predictions, y, memberships)
    if kind == "silhouettes":
        return partial(pictures.SilhouetteDisplay.from_predictions, data.draw(rows(n, values=spoilt)), y)
    q = data.draw(rows(n, values=spoilt))
    return partial(
        pictures.RetrievalDisplay.from_predictions, q, queries=data.draw(st.sampled_from([1, 5, [0], [9], []]))
    )


@pytest.mark.parametrize("kind", ["map", "loss", "calibration", "sizes", "silhouettes", "retrieval"])
@drawn(12)
@given(data=st.data())
def test_displays(kind, data):
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    try:
        for display in answer(picture(kind, data)):
            answer(display.figure_.canvas.draw)
            assert np.isfinite([*display.ax_.get_xlim(), *display.ax_.get_ylim()]).all()
    finally:
        plt.close("all")
        matplotlib.use(backend)


KERNELS = {
    **{name: lambda name=name: name for name in learned.NAMES},
    "cosine": lambda: learned.Gaussian(metric="cosine", tau=0.1),
    "dot": lambda: learned.Gaussian(metric="dot"),
    "learned tau": lambda: learned.Gaussian(metric="cosine", tau="learn"),
    "learned df": lambda: learned.StudentT(df="learn"),
}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("kernel", KERNELS)
@drawn(25)
@given(data=st.data())
def test_losses_of_batches(kernel, data):
    n, d = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    name = data.draw(st.sampled_from(sorted(supervisory.NAMES)))
    divergence = data.draw(
        st.sampled_from(["kl", "reverse_kl", "jensen_shannon", "total_variation", "squared_hellinger"])
    )
    z = torch.tensor(np.asarray(data.draw(rows(n, d, dtypes=("f8",)))), dtype=torch.float64)
    z = (z * data.draw(st.sampled_from([1.0, 1e-20, 1e10]))).to(data.draw(st.sampled_from(DTYPES)))
    keys = data.draw(st.sampled_from([None, "rows", "classes"]))
    y = {
        "labels": torch.tensor(data.draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n))),
        "rows": torch.arange(n * 2.0).reshape(n, 2) ** 2,
        "square": torch.ones(n, n) - torch.eye(n),
        "none": None,
    }[data.draw(st.sampled_from(["labels", "rows", "square", "none"]))]
    z.requires_grad_()
    made = answer(ICONLoss, name, KERNELS[kernel](), divergence, debias=data.draw(st.sampled_from([0.0, 0.1, 0.9])))
    for loss in made:
        others = {None: None, "rows": z.detach().flip(0), "classes": z.detach()[:1].repeat(4, 1)}[keys]
        usual = bool(torch.isfinite(z).all() and z.detach().abs().amax() < torch.finfo(z.dtype).max ** 0.25)
        for value in answer(loss, z, y, others):
            if not usual:
                continue
            assert torch.isfinite(value), value
            value.backward()
            assert torch.isfinite(z.grad).all()


@drawn(60)
@given(name=st.one_of(st.text(max_size=20), st.sampled_from(methods.names()), st.integers(), st.none()))
def test_names_of_methods(name):
    for method in answer(methods.get, name):
        assert method.name in methods.names()
        assert methods.get(f" {method.name.upper()}_").name == method.name
    for found in answer(methods.names, name):
        assert set(found) <= set(methods.names())


ESTIMATORS = {
    "map": ICONEmbedding(perplexity=3, max_iter=5),
    "network map": ICONEmbedding(perplexity=3, encoder="mlp", max_iter=3),
    "clusters": ICONClustering(2),
    "network clusters": ICONClustering(2, encoder="mlp", max_iter=3),
    "classes": ICONClassifier(),
    "prototypes": ICONClassifier(learned="student_t", max_iter=5),
    "pairs": ICONCrossModal(2, max_iter=3),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@drawn(6)
@given(data=st.data())
def test_saved_estimators_answer_alike(name, data, tmp_path_factory):
    n, d = data.draw(st.integers(8, 16)), data.draw(st.integers(1, 4))
    of_fit = {"values": promised, "scales": (1, 1e-140), "dtypes": ("f8", "f8", "i8")}
    X = data.draw(rows(n, d, **of_fit))
    y = X[:, :1] if name == "pairs" else np.array(data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n)))
    new = data.draw(rows(3, d, **of_fit))
    for model in answer(clone(ESTIMATORS[name]).set_params(random_state=0).fit, X, y):
        path = tmp_path_factory.mktemp("saved") / "file"
        model.save(path)
        back = sklearn_icon.load(path)
        for method in ("transform", "predict", "predict_proba"):
            if hasattr(model, method):
                one, other = (answer(getattr(each, method), new) for each in (model, back))
                assert len(one) == len(other)
                for a, b in zip(one, other, strict=True):
                    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
                    assert a.dtype.kind not in "f" or not np.isnan(a).any()


@pytest.mark.parametrize("name", ["map", "clusters", "classes", "pairs"])
@drawn(60)
@given(data=st.data())
def test_parameters_are_set_or_refused(name, data, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.getbasetemp())  # a drawn checkpoint is a file, whatever its name
    model = clone(ESTIMATORS[name])
    known = sorted(model.get_params())
    key = data.draw(
        st.one_of(st.sampled_from(known), st.text(min_size=1, max_size=12), st.sampled_from(known).map("{}__a".format))
    )
    value = data.draw(
        st.one_of(st.none(), st.integers(-3, 3), st.floats(), st.text(max_size=5), st.lists(st.integers()))
    )
    before = model.get_params()
    if answer(model.set_params, **{key: value}):
        found = model.get_params()[key]
        assert found is value or found == value
        X = np.random.RandomState(0).standard_normal((12, 3))
        answer(clone(model).fit, X, X if name == "pairs" else np.arange(12) % 2)
        assert model.get_params()[key] is found
    else:
        assert key not in before
