"""Estimators in files without code: bit for bit there and back, and nothing else is read."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import skops.io
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris

import sklearn_icon
from sklearn_icon import (
    ICONClassifier,
    ICONClustering,
    ICONCrossModal,
    ICONEmbedding,
    encoders,
    learned,
    methods,
    supervisory,
)
from sklearn_icon._estimators import saving

X, Y = load_iris(return_X_y=True)
X = X[::2] + 1e-3 * np.random.RandomState(3).randn(75, 4)
Y = Y[::2]
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
COUNTS = np.round(X * 3)
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:the graph has 2 components"),
]


def given(model, X=X, y=None):
    return model, X, y


FITS = {
    "map": given(ICONEmbedding(perplexity=8, max_iter=100)),
    "map, single": given(ICONEmbedding(perplexity=8, max_iter=100), X.astype(np.float32)),
    "map, sparse": given(ICONEmbedding(perplexity=8, max_iter=100), sparse.csr_matrix(X)),
    "map of distances": given(ICONEmbedding(metric="precomputed", perplexity=8, max_iter=60), None),
    "map of a graph": given(ICONEmbedding(supervisory="graph", max_iter=60), "graph"),
    "learned tail": given(ICONEmbedding(learned=learned.StudentT(df="learn"), perplexity=8, max_iter=120)),
    "knn, mixed": given(ICONEmbedding(supervisory=supervisory.UniformMixture(supervisory.UniformKNN(7), 0.1))),
    "pca": given(methods.get("pca").make_estimator()),
    "linear map": given(ICONEmbedding(encoder="linear", max_iter=40)),
    "network map": given(ICONEmbedding(encoder=encoders.MLP(hidden=(7,)), max_iter=20)),
    "word map": given(
        ICONEmbedding(supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional"), COUNTS
    ),
    "labels": given(ICONEmbedding(supervisory="same_class", normalization="conditional", max_iter=30), y=Y),
    "chosen": given(ICONClustering(3)),
    "chosen, graph": given(ICONClustering(3, supervisory="graph"), "graph"),
    "linear clusters": given(ICONClustering(3, encoder="linear", max_iter=60)),
    "network clusters": given(ICONClustering(3, encoder="mlp", max_iter=60)),
    "discovered classes": given(ICONClustering(3, supervisory="same_class"), y=np.where(np.arange(75) % 3, -1, 40 - Y)),
    "lookup clusters": given(ICONClustering(3, encoder="lookup", max_iter=60)),
    "k-means": given(methods.get("k-means").make_estimator(n_clusters=3)),
    "spectral": given(methods.get("spectral").make_estimator(n_clusters=3)),
    "cut": given(methods.get("normalized-cuts").make_estimator(n_clusters=3), "graph"),
    "softmax": given(ICONClassifier(), y=NAMES),
    "two classes": given(ICONClassifier(), y=Y > 0),
    "objects": given(ICONClassifier(), y=NAMES.astype(object)),
    "elastic": given(ICONClassifier(l1_ratio=0.5, C=2.0), y=Y),
    "harmonic": given(ICONClassifier(learned=learned.Harmonic()), y=Y),
    "network": given(ICONClassifier(encoder="mlp", max_iter=30, early_stopping=True), y=NAMES),
    "supcon": given(ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=5), y=Y),
    "pairs": given(ICONCrossModal(2, max_iter=10), y=X[:, ::-1]),
    "linear pairs": given(ICONCrossModal(3, encoder="linear"), y=X[:, ::-1]),
    "not fitted": given(
        ICONClassifier(C=np.inf, learned=learned.Gaussian(metric="cosine", tau=0.5), class_weight={0: 2.5, "a": 1})
    ),
}


def fitted(name):
    model, rows, y = FITS[name]
    if name == "not fitted":
        return model, X
    model = clone(model).set_params(random_state=0)
    if rows is None:
        rows = np.linalg.norm(X[:, None] - X, axis=2)
    elif isinstance(rows, str):
        rows = supervisory.UniformKNN(8).conditional(X).weights
    return model.fit(rows, y), rows


def same(a, b):
    """Whether two values are one, bit for bit."""
    if sparse.issparse(a):
        parts = [(getattr(a, part), getattr(b, part)) for part in ("data", "indices", "indptr")]
        return type(a) is type(b) and a.shape == b.shape and all(same(*each) for each in parts)
    if isinstance(a, np.ndarray) and a.dtype != object:
        alike = (a.dtype, a.shape, a.flags.c_contiguous) == (b.dtype, b.shape, b.flags.c_contiguous)
        return alike and a.tobytes() == b.tobytes()
    if isinstance(a, np.ndarray):
        return b.dtype == object and a.tolist() == b.tolist()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dict__"):
        return type(a) is type(b) and same(vars(a), vars(b))
    return type(a) is type(b) and (a == b or a != a)


@pytest.mark.parametrize("name", list(FITS))
def test_there_and_back(name, tmp_path):
    model, rows = fitted(name)
    model.save(tmp_path / "file.safetensors")
    back = sklearn_icon.load(tmp_path / "file.safetensors")
    assert type(back) is type(model)
    told = {key: value for key, value in vars(model).items() if key != "neighbors_graph_"}  # which no file keeps
    assert same(told, vars(back))
    content = skops.io.dumps(model)
    types = [kind.split(".") for kind in skops.io.get_untrusted_types(data=content)]
    ours = [kind[1] for kind in types if kind[0] == "sklearn_icon"]
    assert set(ours) <= {"FittedRows", *dir(sklearn_icon)}
    assert all(kind[0] in ("sklearn_icon", "scipy") for kind in types)
    from_skops = skops.io.loads(content, trusted=[".".join(kind) for kind in types])
    for method in ("transform", "predict", "predict_proba", "decision_function"):
        if name != "not fitted" and hasattr(model, method):
            try:
                answer = getattr(model, method)(rows)
            except ValueError:
                continue  # such as labels, of which new rows have none
            assert same(answer, getattr(back, method)(rows))
            assert same(answer, getattr(from_skops, method)(rows))
    if name != "not fitted":
        back.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "file.safetensors").read_bytes()
        assert clone(back).get_params(deep=False).keys() == model.get_params(deep=False).keys()


def test_others_read_the_numbers(tmp_path):
    """By the layout that safetensors documents."""
    model = ICONClassifier().fit(X, Y)
    model.save(tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    assert all(set(entry) == {"dtype", "shape", "data_offsets"} for entry in header.values())
    coef = [entry for entry in header.values() if entry["shape"] == list(model.coef_.shape)]
    start, stop = coef[0]["data_offsets"]
    numbers = np.frombuffer(content[8 + length :][start:stop]).reshape(coef[0]["shape"])
    assert any(np.array_equal(numbers, kept) for kept in (model.coef_, model.prototypes_))


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"metric": lambda a, b: 0.0}, "metric"),
        ({"random_state": np.random.RandomState(0)}, "random_state"),
        ({"encoder": encoders.Module(lambda n_inputs, n_outputs: None)}, "encoder.factory"),
        ({"supervisory": supervisory.PositivePairs(augment=np.negative)}, "supervisory.augment"),
    ],
)
def test_code_is_not_saved(params, named, tmp_path):
    with pytest.raises(TypeError, match=rf"^{named} holds"):
        ICONEmbedding(**params).save(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_classes_of_ones_own_are_not_saved(tmp_path):
    class Own(ICONClassifier):
        pass

    class Kernel(learned.StudentT):
        pass

    for model in (Own(), ICONEmbedding(learned=Kernel())):
        with pytest.raises(TypeError, match="pickle"):
            model.save(tmp_path / "file")


# --- what is not read -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "file"
    ICONEmbedding(perplexity=5, max_iter=20, random_state=0).fit(X[:30]).save(path)
    return path.read_bytes()


def refused(content, path, match="cannot be loaded"):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        sklearn_icon.load(path)


def forged(content, change_document=None, change_header=None):
    """A file whose document and header are changed, and whose digest is right."""
    length = int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    document = json.loads(header["__metadata__"]["sklearn_icon"])
    if change_document:
        change_document(document)
    if change_header:
        change_header(header)
    text = json.dumps(document)
    header["__metadata__"] = {"sklearn_icon": text, "sha256": saving._digest(text, [numbers])}
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + numbers


def test_a_forged_file_that_changes_nothing_loads(content, tmp_path):
    (tmp_path / "file").write_bytes(forged(content))
    assert sklearn_icon.load(tmp_path / "file").n_iter_ == 19


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 100, -1, -8, -1000])
def test_cut_files(content, cut, tmp_path):
    refused(content[:cut], tmp_path / "file")


def test_changed_files(content, tmp_path):
    rng = np.random.RandomState(0)
    for _ in range(60):
        place, changed = rng.randint(len(content)), bytearray(content)
        changed[place] ^= 1 << rng.randint(8)
        refused(bytes(changed), tmp_path / "file")
    refused(content + b"\0", tmp_path / "file")
    refused(content[:-8] + content[-16:-8], tmp_path / "file")


FORGERIES = {
    "another format": lambda document: document.update(format=2),
    "another class": lambda document: document.update(estimator="os.system"),
    "a method": lambda document: document["state"].update(fit=1),
    "magic": lambda document: document["state"].update(__class__=1),
    "a foreign spec": lambda document: document["state"].update(learned_={"spec": ["os", "system"], "parameters": {}}),
    "no spec": lambda document: document["state"].update(learned_={"spec": ["learned", "NAMES"], "parameters": {}}),
    "a spec's parameter": lambda document: document["state"].update(
        learned_={"spec": ["learned", "StudentT"], "parameters": {"df": -1.0}}
    ),
    "a parameter": lambda document: document["state"].update(perplexity=-3),
    "a parameter less": lambda document: document["state"].pop("perplexity"),
    "a kind": lambda document: document["state"].update(embedding_={"pickle": "x"}),
    "nothing": lambda document: document["state"].update(embedding_={}),
    "a list": lambda document: document["state"].update(embedding_=[1]),
    "an array that is not there": lambda document: document["state"].update(embedding_={"array": [999, "C", True]}),
    "a negative place": lambda document: document["state"].update(embedding_={"array": [-1, "C", True]}),
    "rows": lambda document: document["state"].update(_fitted_rows={"rows": {"kind": "features"}}),
    "a format that equals": lambda document: document.update(format=True),
    "no version": lambda document: document.update(version="__class__"),
    "a number for p": lambda document: document["state"].update(supervisory=2**70),
    "a number for the spec of the fit": lambda document: document["state"].update(encoder_=True),
    "words for a number": lambda document: document["state"].update(learning_rate_="os"),
    "words for a curve": lambda document: document["state"].update(loss_curve_=""),
    "a curve for a map": lambda document: document["state"].update(embedding_=document["state"]["loss_curve_"]),
    "another number of columns": lambda document: document["state"].update(n_features_in_=3),
    "another report": lambda document: document["state"]["fit_report_"]["dict"].update(seconds=None),
}


@pytest.mark.parametrize("forgery", list(FORGERIES))
def test_forged_documents(content, forgery, tmp_path):
    refused(forged(content, FORGERIES[forgery]), tmp_path / "file")


def test_deep_documents(content, tmp_path):
    length = int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    text = '{"format": 1, "state": ' + '{"list": [' * 100_000 + "]}" * 100_000 + "}"
    header["__metadata__"] = {"sklearn_icon": text, "sha256": saving._digest(text, [numbers])}
    encoded = json.dumps(header).encode()
    refused(len(encoded).to_bytes(8, "little") + encoded + numbers, tmp_path / "file")


@pytest.mark.parametrize("shape", [[2**60, 2**60], [10**12], [-1], [2, -3], [1.5], ["3"], [True], None, [1] * 65])
def test_huge_and_impossible_shapes(content, shape, tmp_path):
    refused(forged(content, change_header=lambda header: header["0"].update(shape=shape)), tmp_path / "file")


@pytest.mark.parametrize("offsets", [[0, 2**62], [-8, 8], [8, 0], [1, 9], [0], None, "ab"])
def test_impossible_offsets(content, offsets, tmp_path):
    changed = forged(content, change_header=lambda header: header["1"].update(data_offsets=offsets))
    refused(changed, tmp_path / "file")


def test_nan_in_what_was_learned(content, tmp_path):
    model = ICONEmbedding(perplexity=5, max_iter=20, random_state=0).fit(X[:30])
    model.embedding_[3, 1] = np.nan
    model.save(tmp_path / "file")
    with pytest.raises(ValueError, match="embedding_ holds NaN"):
        sklearn_icon.load(tmp_path / "file")


def test_another_version_warns_and_another_format_is_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(forged(content, lambda document: document.update(version="0.9.1")))
    with pytest.warns(UserWarning, match=r"0\.9\.1"):
        sklearn_icon.load(tmp_path / "file")
    refused(forged(content, lambda document: document.update(format=7)), tmp_path / "file", "format is not 1")


EARLY = {"clf": ICONClassifier, "clu": ICONClustering, "emb": ICONEmbedding, "xm": ICONCrossModal}


@pytest.mark.parametrize("name", EARLY)
def test_files_from_before_a_parameter_came_load_at_its_default(name):
    """Written by `save` when it came, by fits of 40 rows of 4 columns."""
    path = Path(__file__).parents[1] / "data" / f"early_{name}.safetensors"
    with pytest.warns(UserWarning, match=r"0\.2\.0 .*, before these parameters .*: .*checkpoint=None.*, and is"):
        model = sklearn_icon.load(path)
    assert type(model) is EARLY[name] and model.checkpoint is None is model.max_memory
    rows = np.random.RandomState(0).randn(40, 4)[:3]
    for method in ("transform", "predict_proba"):
        if hasattr(model, method):
            assert np.isfinite(getattr(model, method)(rows)).all()
    refitted = clone(model).fit(np.random.RandomState(0).randn(40, 4), np.random.RandomState(1).randn(40, 2).argmax(1))
    assert np.isfinite(refitted.transform(rows)).all()


@pytest.mark.parametrize("name", EARLY)
def test_only_parameters_that_came_later_may_be_missing(name):
    path = Path(__file__).parents[1] / "data" / f"early_{name}.safetensors"
    document, _ = saving.parsed(saving.read(path))
    missing = EARLY[name]().get_params(deep=False).keys() - document["state"].keys()
    assert missing == saving._CAME_LATER & EARLY[name]().get_params(deep=False).keys()


def test_links_and_folders(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    os.symlink(tmp_path / "file", tmp_path / "link")
    with pytest.raises(ValueError, match="symbolic link"):
        sklearn_icon.load(tmp_path / "link")
    with pytest.raises(ValueError, match="symbolic link"):
        ICONEmbedding().save(tmp_path / "link")
    with pytest.raises(OSError):
        sklearn_icon.load(tmp_path)
    with pytest.raises(OSError):
        sklearn_icon.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="lies in a folder that is not there; make it first"):
        ICONEmbedding().save(tmp_path / "none" / "file")
    with pytest.raises(IsADirectoryError, match="is a folder; pass the path of a file"):
        ICONEmbedding().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
