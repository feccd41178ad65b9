"""The table as data: every record is there, is found, cannot be changed, and makes the estimator that it describes."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph

import sklearn_icon
from sklearn_icon import methods, supervisory

CANONICAL = """
sne t-sne pca umap parametric-umap infonc-t-sne neg-t-sne ncvis largevis exaggerated-t-sne dreams
spectral-contrastive dcl debiased-infonce hard-negatives dhel mv-infonce cacr swav siglip
infonce simclr moco-v3 t-simclr t-simcne vicreg triplet supcon x-sample lgsimclr clip cmc cross-entropy
harmonic mlm k-means spectral ncut dcd pmi infonce-clustering debiased-infonce-clustering
""".split()
GAPS = """
dual-t-sne doubly-t-sne sne-graph t-sne-graph sne-uniform t-sne-uniform t-clip t-supcon average-margin-clip
average-margin-supcon triplet-clip triplet-supcon error-rate t-k-means supervised-clustering several-heads
category-discovery
""".split()
each = pytest.mark.parametrize("name", CANONICAL + GAPS)


def specs_of(thing):
    return {name: repr(getattr(thing, name)) for name in ("supervisory", "learned", "encoder")}


def test_every_name_is_there():
    assert sorted(methods.names(published=True)) == sorted(CANONICAL)
    assert sorted(methods.names(published=False)) == sorted(GAPS)
    assert sorted(methods.names()) == sorted(CANONICAL + GAPS)


def test_names_of_families():
    by_family = [name for family in methods.FAMILIES for name in methods.names(family)]
    assert sorted(by_family) == sorted(methods.names())
    assert methods.names("language") == ["mlm"]
    assert "t-supcon" not in methods.names("supervised", published=True)
    with pytest.raises(ValueError, match=r"family='maps' is not known; use one of \['dimensionality reduction', "):
        methods.names("maps")


@each
def test_a_record_makes_the_estimator_that_it_describes(name):
    method = methods.get(name)
    estimator = method.make_estimator()
    assert type(estimator) is getattr(sklearn_icon, method.estimator)
    assert specs_of(estimator) == specs_of(method)
    wanted = {"divergence": method.divergence, **dict(method.parameters)}
    if method.estimator == "ICONEmbedding":
        wanted["normalization"] = method.normalization
    assert wanted.items() <= estimator.get_params(deep=False).items()
    assert getattr(estimator, "debias", 0.0) == method.debias
    defaults = type(estimator)().get_params(deep=False)
    set_here = {*wanted, "supervisory", "learned", "encoder", "debias"}
    left = {key: value for key, value in estimator.get_params(deep=False).items() if key not in set_here}
    assert left == {key: value for key, value in defaults.items() if key not in set_here}


@each
def test_a_record_says_what_it_is(name):
    method = methods.get(name)
    assert method.name == name
    assert method.family in methods.FAMILIES
    assert method.published == (name in CANONICAL)
    assert method.equals
    assert not method.equals.endswith(".")
    assert ("I-Con" in method.reference) == (not method.published or "infonce-clustering" in name)
    assert bool(method.supervisory.needs_y) == method.reads.startswith("y: ")
    assert method.row in methods.ROWS.values()
    assert method.column in methods.COLUMNS.values()
    for spec in (method.supervisory, method.learned, method.encoder):
        spec.validate()


@each
def test_a_record_cannot_be_changed(name):
    method = methods.get(name)
    with pytest.raises(FrozenInstanceError):
        method.divergence = "total_variation"
    before = specs_of(method)
    for spec in (method.supervisory, method.learned, method.encoder):
        spec.set_params(**dict.fromkeys(spec.get_params(deep=False)))
    estimator = methods.get(name).make_estimator()
    assert specs_of(estimator) == specs_of(methods.get(name)) == before
    for parameter in ("supervisory", "learned", "encoder"):
        assert getattr(estimator, parameter) is not getattr(methods.get(name).make_estimator(), parameter)
    assert method == methods.get(name)
    assert hash(method) == hash(methods.get(name))
    assert specs_of(clone(estimator)) == specs_of(pickle.loads(pickle.dumps(methods.get(name)))) == before


def test_one_method_for_each_name():
    plain = [methods._plain(name) for m in map(methods.get, methods.names()) for name in {m.name, *m.aliases}]
    assert len(plain) == len(set(plain))


@pytest.mark.parametrize(
    "typed, name",
    [
        *[(typed, "t-sne") for typed in ("t-SNE", "tsne", "T_SNE", " t sne ")],
        ("kmeans", "k-means"),
        ("K-Means", "k-means"),
        ("ncut", "ncut"),
        ("Normalized Cuts", "ncut"),
        ("infonce", "infonce"),
        ("NTXent", "simclr"),
        ("SimCLR", "simclr"),
        ("moco", "moco-v3"),
        ("logistic regression", "cross-entropy"),
        ("softmax", "cross-entropy"),
        ("BERT", "mlm"),
        ("word2vec", "mlm"),
        ("spectral clustering", "spectral"),
        ("Debiased InfoNCE clustering", "debiased-infonce-clustering"),
        ("TEMI", "pmi"),
        ("principal_component_analysis", "pca"),
    ],
)
def test_names_whatever_their_case_and_punctuation(typed, name):
    assert methods.get(typed).name == name


def test_unknown_names_get_near_ones():
    with pytest.raises(ValueError, match="method 'tsnee' is not known; did you mean 't-sne' or "):
        methods.get("tsnee")
    with pytest.raises(ValueError, match="did you mean 'k-means'"):
        methods.get("k-meens")
    with pytest.raises(ValueError, match=r"method 'zzz' is not known; methods.names\(\) lists them"):
        methods.get("zzz")


def test_parameters_go_on_top():
    t_sne = methods.get("t-sne")
    assert t_sne.make_estimator(perplexity=7, max_iter=3).get_params()["supervisory__perplexity"] == 7
    assert t_sne.make_estimator(supervisory__perplexity=8, divergence="jensen_shannon").supervisory.perplexity == 8
    assert t_sne.make_estimator(learned__df=3.0).learned.df == 3
    assert t_sne.supervisory.perplexity == methods.get("t-sne").supervisory.perplexity == 30
    own = supervisory.Gaussian(perplexity=9)
    assert t_sne.make_estimator(supervisory=own, perplexity=5).supervisory is own
    assert own.perplexity == 9
    walk = methods.get("infonce-clustering").make_estimator(n_clusters=3, n_neighbors=4, metric="cosine").supervisory
    assert (walk.base.n_neighbors, walk.base.metric) == (4, "cosine")
    spectral = methods.get("spectral").make_estimator(n_neighbors=7).supervisory
    assert (spectral.n_neighbors, spectral.base.n_neighbors) == (7, None)


@pytest.mark.parametrize("name, wrong", [("t-sne", {"C": 1.0}), ("pca", {"perplexity": 5}), ("ncut", {"metric": "l1"})])
def test_parameters_that_nothing_reads_are_refused(name, wrong):
    with pytest.raises(ValueError, match=f"Invalid parameter {next(iter(wrong))!r}"):
        methods.get(name).make_estimator(**wrong)


def data_for(method):
    """What fit reads, of the irises."""
    X, y = load_iris(return_X_y=True)
    graph = kneighbors_graph(X, 20, include_self=False)
    read = {
        "weights": (graph.maximum(graph.T),),
        "token": (X.round().astype(float),),
        "item": (X, np.arange(150) // 2),
        "companion": (X[:, :2], X[:, 2:]),
        "class labels": (X, y),
        "assignments": (X, np.random.default_rng(0).dirichlet(np.ones(4), size=150)),
        "modality": (X[:, :2], X[:, 2:]),
    }
    return next((data for words, data in read.items() if words in method.reads), (X,))


@pytest.mark.filterwarnings(
    "ignore:.*stopped after", "ignore:.*clusters are in use", "ignore:the graph has .* components"
)
@each
def test_every_method_fits(name):
    method = methods.get(name)
    few = {"n_clusters": 3} if method.estimator == "ICONClustering" else {}
    estimator = method.make_estimator(max_iter=20, random_state=0, **few)
    data = data_for(method)
    estimator.fit(*data)
    assert np.isfinite(estimator.loss_curve_).all()
    fitted = {part: repr(getattr(estimator, part + "_")) for part in specs_of(method)}
    if isinstance(method.supervisory, supervisory.Spectral):  # what it leaves open, the estimator and the data settle
        method.supervisory.set_params(n_components=3, affinity="nearest_neighbors")
    assert specs_of(method) == fitted or "tau" in method.learned.learns
    found = estimator.embedding_ if method.estimator == "ICONEmbedding" else estimator.transform(data[0])
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0


@pytest.mark.filterwarnings("ignore:.*stopped after")
@pytest.mark.parametrize("name", [name for name in methods.names() if methods.get(name).learned.is_limit])
def test_limits_are_debiased_as_others_are(name):
    X, y = load_digits(return_X_y=True)
    X, y, method = X[:200], y[:200], methods.get(name)
    estimator = method.make_estimator(debias=0.3, max_iter=20, random_state=0)
    if method.estimator == "ICONCrossModal":
        score, chance = estimator.fit(X[:, :32], X[:, 32:]).score(X[:, :32], X[:, 32:]), 1 / len(X)
    elif method.estimator == "ICONClassifier":
        score, chance = estimator.fit(X[::2], y[::2]).score(X[1::2], y[1::2]), 0.1
    else:
        rows = np.concatenate([X, X + np.random.RandomState(0).normal(size=X.shape)])  # two views of each
        Z, labels = estimator.fit_transform(rows, np.tile(np.arange(len(X)), 2)), np.tile(y, 2)
        score, chance = KNeighborsClassifier(5).fit(Z[::2], labels[::2]).score(Z[1::2], labels[1::2]), 0.1
    assert np.isfinite(estimator.loss_curve_).all()
    assert score > (4 if method.encoder.parametric else 2) * chance  # a lookup map has hardly begun


@pytest.mark.parametrize(
    "name, estimator",
    [
        ("t-sne", "ICONEmbedding"),
        ("debiased-infonce-clustering", "ICONClustering"),
        ("cross-entropy", "ICONClassifier"),
        ("clip", "ICONCrossModal"),
    ],
)
def test_defaults_of_the_estimators_are_cells(name, estimator):
    ours, default = methods.get(name).make_estimator(), getattr(sklearn_icon, estimator)()
    assert repr(ours._resolve_specs()) == repr(default._resolve_specs())
    if estimator == "ICONClustering":
        default.set_params(debias=default._uniform(default._resolve_specs()[1]))  # what "auto" stands for
    left = [{k: v for k, v in e.get_params(deep=False).items() if k not in specs_of(e)} for e in (ours, default)]
    assert left[0] == left[1]
