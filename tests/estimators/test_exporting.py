"""`export`: a module of NumPy alone and ONNX compute what the estimator does."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, supervisory

RNG = np.random.RandomState(6)
X = (RNG.standard_normal((90, 5)) + 4 * (np.arange(90) % 3)[:, None]) * [1, 20, 1, 0.1, 1] + 7
Y, OTHER = np.arange(90) % 3, RNG.standard_normal((90, 4))
FAR = np.vstack([X[:20] + 0.3, 1e6 * X[:3], -1e4 * X[3:5]])  # rows that are shortened, too
QUICK = {"max_iter": 15, "random_state": 0}


def tanh(n_inputs, n_outputs):
    return torch.nn.Sequential(torch.nn.Linear(n_inputs, n_outputs), torch.nn.Tanh())


def noisy(batch):
    return batch + 0.1 * torch.randn_like(batch)


class Doubled(torch.nn.Sequential):
    """More than its parts."""

    def forward(self, x):
        return 2 * super().forward(x)


def doubled(n_inputs, n_outputs):
    return Doubled(torch.nn.Linear(n_inputs, n_outputs))


CASES = {
    "linear-map": (ICONEmbedding(encoder="linear", perplexity=8, **QUICK), None),
    "orthonormal-map": (ICONEmbedding(encoder=encoders.Linear(orthonormal=True), perplexity=8, **QUICK), None),
    "network-map": (ICONEmbedding(3, encoder=encoders.MLP(hidden=(8, 6)), perplexity=8, **QUICK), None),
    "simclr": (
        ICONEmbedding(
            2,
            supervisory=supervisory.PositivePairs(noisy),
            encoder=encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP(hidden=(8,)), n_outputs=4)),
            **QUICK,
        ),
        None,
    ),
    "unit-rows": (
        ICONEmbedding(
            encoder=encoders.MLP(hidden=(8,)),
            learned="wide_gaussian",
            normalization="conditional",
            perplexity=8,
            **QUICK,
        ),
        None,
    ),
    "clusters": (ICONClustering(3, encoder="linear", n_init=2, **QUICK), None),
    "network-clusters": (ICONClustering(3, encoder=encoders.MLP(hidden=(8,)), n_init=2, **QUICK), None),
    "softmax": (ICONClassifier(), Y),
    "two-classes": (ICONClassifier(), Y > 0),
    "words": (ICONClassifier(), np.array(["a", "bb", "ccc"])[Y]),
    "supcon": (ICONClassifier(supervisory="same_class", encoder=encoders.MLP(hidden=(8,)), **QUICK), Y),
    "network": (ICONClassifier(encoder=encoders.MLP(hidden=(8,)), **QUICK), Y),
    "cosine": (ICONClassifier(learned="cosine", encoder=encoders.MLP(hidden=(8,)), **QUICK), Y),
    "pairs": (ICONCrossModal(3, encoder="linear", **QUICK), OTHER),
    "flat-pairs": (ICONCrossModal(2, encoder_y=encoders.MLP(hidden=(8,)), **QUICK), OTHER),
}


def outputs(estimator):
    """What the estimator computes, by the names of exported functions."""
    if isinstance(estimator, ICONCrossModal):
        return {"transform": (estimator.transform(FAR),), "transform_y": (estimator.transform_y(OTHER),)}
    names = ["transform"] if isinstance(estimator, ICONEmbedding) else ["predict_proba", "predict"]
    return {name: (getattr(estimator, name)(FAR),) for name in names}


def assert_close(found, wanted):
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(np.asarray(found).astype(wanted.dtype), wanted)


@pytest.fixture(scope="module", params=CASES)
def fitted(request):
    estimator, y = CASES[request.param]
    return clone(estimator).fit(X, y)


def test_numpy_alone(fitted, tmp_path):
    fitted.export(tmp_path / "predictor.py")
    np.save(tmp_path / "X.npy", FAR)
    np.save(tmp_path / "y.npy", OTHER)
    names = list(outputs(fitted))
    code = (
        "import sys, numpy as np, predictor\n"
        "assert not {'torch', 'sklearn', 'scipy', 'sklearn_icon'} & set(sys.modules)\n"
        f"for name in {names}:\n"
        "    rows = np.load('y.npy' if name == 'transform_y' else 'X.npy')\n"
        "    np.save(name + '.out.npy', getattr(predictor, name)(rows))\n"
        "try:\n"
        f"    getattr(predictor, {names[0]!r})(np.ones((2, 9)))\n"
        "except ValueError as error:\n"
        "    assert '9' in str(error)\n"
        "else:\n"
        "    raise AssertionError('9 columns were read')\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    for name, (wanted,) in outputs(fitted).items():
        assert_close(np.load(tmp_path / f"{name}.out.npy"), wanted)


def test_onnx(fitted, tmp_path):
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    fitted.export(tmp_path / "model.onnx")
    evaluator = ReferenceEvaluator(str(tmp_path / "model.onnx"))
    given = {name: {"X": FAR, "y": OTHER}[name] for name in evaluator.input_names}
    found = dict(zip(evaluator.output_names, evaluator.run(None, given), strict=True))
    assert found.keys() == outputs(fitted).keys()
    for name, (wanted,) in outputs(fitted).items():
        assert_close(found[name], wanted)


def test_a_class_without_weight(tmp_path):
    estimator = ICONClassifier(learned="cosine", encoder=encoders.MLP(hidden=(8,)), **QUICK)
    proba = estimator.fit(X, Y, sample_weight=np.where(Y == 2, 0.0, 1.0)).predict_proba(X)
    estimator.export(tmp_path / "fewer.py")
    space: dict = {"__file__": str(tmp_path / "fewer.py")}
    exec((tmp_path / "fewer.py").read_text(), space)
    assert_close(space["predict_proba"](X), proba)
    assert proba[:, 2].max() < 1e-10


def test_single_precision(tmp_path):
    estimator = ICONEmbedding(encoder=encoders.MLP(hidden=(8,)), perplexity=8, **QUICK).fit(X.astype(np.float32))
    estimator.export(tmp_path / "single.py")
    space: dict = {"__file__": str(tmp_path / "single.py")}
    exec((tmp_path / "single.py").read_text(), space)
    wanted = estimator.transform(X.astype(np.float32))
    np.testing.assert_allclose(space["transform"](X), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "estimator, path, error, message",
    [
        (ICONEmbedding(perplexity=8, **QUICK), "m.py", TypeError, "maps new rows, but that of the fit is Lookup"),
        (ICONClassifier(learned="harmonic", random_state=0), "m.py", TypeError, "compares these with prototypes"),
        (
            ICONEmbedding(encoder=encoders.Module(tanh), perplexity=8, **QUICK),
            "m.py",
            TypeError,
            "linear maps and MLPs, but .* holds a Tanh",
        ),
        (
            ICONClassifier(encoder=encoders.Module(doubled), **QUICK),
            "m.py",
            TypeError,
            "linear maps and MLPs, but .* holds a Doubled",
        ),
        (ICONClassifier(), "m.joblib", ValueError, "ends in neither '.py'"),
    ],
    ids=["lookup", "prototypes", "module", "subclass", "ending"],
)
def test_what_is_refused(estimator, path, error, message, tmp_path):
    with pytest.raises(error, match=message):
        estimator.fit(X, Y).export(tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_without_onnx(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx"):
        ICONClassifier().fit(X, Y).export(tmp_path / "model.onnx")
