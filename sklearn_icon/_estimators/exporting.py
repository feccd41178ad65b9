"""`export`: what a fitted estimator computes of new rows, as a module that needs only NumPy or as ONNX.

A predictor is a chain of steps (name, arrays), each a function of rows z:

    scale(shift, factor)  (z - shift) factor            cut(limit)       z limit / max(limit, root mean square of z)
    affine(W, b)          z W + b                       relu()           max(z, 0)
    unit()                z / |z|                       pick(columns)    z[:, columns]
    softmax()             exp(z) / sum exp(z)
"""

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from .._core.versions import __version__

_MODULE = '''"""{estimator} of sklearn_icon {version}: {methods}, with NumPy only.

The numbers are in the .npz file beside this one.
"""

from pathlib import Path

import numpy as np

with np.load(Path(__file__).with_suffix(".npz"), allow_pickle=False) as _file:
    _ARRAYS = {{name: _file[name] for name in _file}}
_CHAINS = {chains!r}


def _scale(z, shift, factor):
    return (z - shift) * factor


def _cut(z, limit):
    z = np.clip(z, np.finfo(z.dtype).min, np.finfo(z.dtype).max)
    top = np.maximum(np.abs(z).max(axis=1, keepdims=True), 1)
    size = top * (np.linalg.norm(z / top, axis=1, keepdims=True) / z.shape[1] ** 0.5)
    return z * (limit / np.maximum(size, limit))


def _affine(z, weight, bias):
    return z @ weight + bias


def _relu(z):
    return np.maximum(z, 0)


def _unit(z):
    top = np.abs(z).max(axis=1, keepdims=True)
    z = z / np.where(top == 0, 1, top)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1)


def _pick(z, columns):
    return z[:, columns]


def _softmax(z):
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def _run(name, X):
    n_features, chain = _CHAINS[name]
    z = np.asarray(X, dtype=np.float64)
    z = z.reshape(len(z), -1)
    if z.shape[1] != n_features:
        raise ValueError(f"{{name}} reads {{n_features}} features, but got {{z.shape[1]}}.")
    for step, arrays in chain:
        z = globals()["_" + step](z, *(_ARRAYS[array] for array in arrays))
    return z
'''
_ROWS = '''

def {name}(X):
    """Rows of shape (n_samples, {n_outputs}) for X of shape (n_samples, n_features)."""
    return _run("{name}", X)
'''
_LABELS = '''

def predict(X):
    """The likeliest class of each row."""
    return _ARRAYS["classes"][_run("predict_proba", X).argmax(axis=1)]
'''


class Predictor:
    """Chains of steps by the name of their method, and the classes among which `predict` chooses."""

    def __init__(self, estimator: Any, chains: dict[str, list], classes: Any = None) -> None:
        self.estimator, self.chains, self.classes = estimator, chains, classes

    def write(self, path: Any) -> None:
        """By the ending of the path: ".py", with ".npz" beside it, or ".onnx"."""
        path, writers = Path(path), {".py": self._write_numpy, ".onnx": self._write_onnx}
        if path.suffix not in writers:
            raise ValueError(f"path={str(path)!r} ends in neither '.py', a module that needs only NumPy, nor '.onnx'.")
        writers[path.suffix](path)

    def _write_numpy(self, path: Path) -> None:
        arrays: dict[str, Any] = {}
        named: dict[str, tuple[int, list]] = {}
        for name, chain in self.chains.items():
            named[name] = _n_inputs(chain), []
            for place, (step, values) in enumerate(chain):
                keys = [f"{name}_{place}_{number}" for number in range(len(values))]
                arrays |= dict(zip(keys, values, strict=True))
                named[name][1].append((step, keys))
        parts = [
            _MODULE.format(
                estimator=type(self.estimator).__name__,
                methods=" and ".join([*self.chains, *["predict"] * (self.classes is not None)]),
                version=__version__,
                chains=named,
            )
        ]
        parts += [_ROWS.format(name=name, n_outputs=_width(chain)) for name, chain in self.chains.items()]
        if self.classes is not None:
            arrays["classes"] = self.classes.astype(str) if self.classes.dtype == object else self.classes
            parts.append(_LABELS)
        np.savez(path.with_suffix(".npz"), **arrays)
        path.write_text("".join(parts), encoding="utf-8")

    def _write_onnx(self, path: Path) -> None:
        try:
            import onnx
        except ImportError:
            raise ImportError("export to '.onnx' needs the package onnx: pip install onnx. '.py' needs none.") from None
        graph, inputs = _Graph(onnx), {}
        for name, chain in self.chains.items():
            last = "y" if name == "transform_y" else "X"
            graph.width = inputs[last] = _n_inputs(chain)
            for step, values in chain:
                last = vars(_Graph)[step](graph, last, *values)
            graph.add("Identity", [last], to=name)
            graph.outputs.append((name, np.dtype(np.float64), [f"n_{last}", _width(chain)]))
        if self.classes is not None:
            graph.labels("predict_proba", self.classes)
        path.write_bytes(graph.model(inputs, type(self.estimator).__name__).SerializeToString())


class _Graph:
    """The nodes of an ONNX graph, each of which is added by what it computes."""

    def __init__(self, onnx: Any) -> None:
        self.onnx, self.width = onnx, 0
        self.nodes: list = []
        self.constants: list = []
        self.outputs: list = []

    def constant(self, value: Any) -> str:
        """The name of a constant."""
        value, name = np.asarray(value), f"constant_{len(self.constants)}"
        kind = self.onnx.TensorProto.STRING if value.dtype.kind in "OU" else None
        if kind is None:
            self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        else:
            text = [str(each).encode() for each in value]
            self.constants.append(self.onnx.helper.make_tensor(name, kind, value.shape, text))
        return name

    def number(self, value: Any) -> str:
        """The name of a constant of double precision, as rows are."""
        return self.constant(np.asarray(value, dtype=np.float64))

    def add(self, operator: str, inputs: list, to: str | None = None, **options: Any) -> str:
        """The name of what a node returns."""
        name = to or f"step_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [name], **options))
        return name

    def scale(self, z: str, shift: Any, factor: Any) -> str:
        return self.add("Mul", [self.add("Sub", [z, self.number(shift)]), self.number(factor)])

    def cut(self, z: str, limit: Any) -> str:
        largest = np.finfo(np.float64).max
        z, width = self.add("Clip", [z, self.number(-largest), self.number(largest)]), self.number(sqrt(self.width))
        top = self.add("Max", [self._top(z), self.number(1)])
        size = self.add("Mul", [top, self.add("Div", [self._length(self.add("Div", [z, top])), width])])
        return self.add("Mul", [z, self.add("Div", [self.number(limit), self.add("Max", [size, self.number(limit)])])])

    def affine(self, z: str, weight: Any, bias: Any) -> str:
        return self.add("Add", [self.add("MatMul", [z, self.number(weight)]), self.number(bias)])

    def relu(self, z: str) -> str:
        return self.add("Relu", [z])

    def unit(self, z: str) -> str:
        z = self.add("Div", [z, self.add("Max", [self._top(z), self.number(np.finfo(np.float64).tiny)])])
        return self.add("Div", [z, self.add("Max", [self._length(z), self.number(1)])])

    def pick(self, z: str, columns: Any) -> str:
        return self.add("Gather", [z, self.constant(columns.astype(np.int64))], axis=1)

    def softmax(self, z: str) -> str:
        return self.add("Softmax", [z], axis=1)

    def labels(self, probabilities: str, classes: Any) -> None:
        """The output "predict"."""
        likeliest = self.add("ArgMax", [probabilities], axis=1, keepdims=0)
        self.add("Gather", [self.constant(classes), likeliest], to="predict", axis=0)
        self.outputs.append(("predict", classes.dtype, ["n_X"]))

    def model(self, inputs: dict[str, int], name: str) -> Any:
        """The whole, checked."""
        helper = self.onnx.helper

        def info(of: str, dtype: Any, shape: list) -> Any:
            text = dtype.kind in "OU"
            kind = self.onnx.TensorProto.STRING if text else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return helper.make_tensor_value_info(of, kind, shape)

        outputs = [info(*each) for each in self.outputs]
        rows = [info(of, np.dtype(np.float64), [f"n_{of}", width]) for of, width in inputs.items()]
        graph = helper.make_graph(self.nodes, name, rows, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        model.producer_name, model.producer_version = "sklearn_icon", __version__
        self.onnx.checker.check_model(model)
        return model

    def _top(self, z: str) -> str:
        return self.add("ReduceMax", [self.add("Abs", [z]), self.constant(np.array([1]))], keepdims=1)

    def _length(self, z: str) -> str:
        return self.add("ReduceL2", [z, self.constant(np.array([1]))], keepdims=1)


def _n_inputs(chain: list) -> int:
    """Columns of what a chain reads."""
    return next(values[0].shape[0] for step, values in chain if step == "affine")


def _width(chain: list) -> int:
    """Columns of what a chain returns."""
    shaping: dict[str, Any] = {"affine": lambda weight, _: weight.shape[1], "pick": len}
    return [shaping[step](*values) for step, values in chain if step in shaping][-1]


def steps_of(encoder: Any, state: dict, n_inputs: int, n_outputs: int) -> list:
    """The steps of an encoder; a TypeError where it is neither a linear map nor a perceptron."""
    from ..encoders._networks import load_module

    return _steps(load_module(encoder, n_inputs, n_outputs, state), encoder)


def _steps(module: Any, encoder: Any) -> list:
    """The steps of a torch module; of exactly these classes, as others compute more."""
    import torch
    from torch.nn.utils.parametrize import type_before_parametrizations

    from ..encoders import _layers
    from ..encoders._networks import UnitRows, _InputScale, _Rows

    def all_of(parts: Any) -> list:
        return [step for part in parts for step in _steps(part, encoder)]

    known = {
        torch.nn.Sequential: all_of,
        _Rows: all_of,
        torch.nn.Linear: _of_linear,
        _layers.Linear: _of_linear,
        torch.nn.ReLU: lambda module: [("relu", [])],
        UnitRows: lambda module: [("unit", [])],
        _InputScale: _of_scale,
    }
    cls = type_before_parametrizations(module)
    if cls not in known:
        raise TypeError(
            f"export writes linear maps and MLPs, but {encoder} holds a {cls.__name__}; use torch.onnx.export "
            "of your module, or encoder='mlp'."
        )
    return known[cls](module)


def _of_linear(module: Any) -> list:
    weight = module.weight.detach().numpy().T.astype(np.float64)
    bias = np.zeros(weight.shape[1], weight.dtype) if module.bias is None else module.bias.detach().double().numpy()
    return [("affine", [weight, bias])]


def _of_scale(module: Any) -> list:
    parts = {name: value.double().numpy() for name, value in module.named_buffers()}
    cut = [("cut", [parts[name]]) for name in ("limit",) if name in parts]
    return [("scale", [parts["shift"], parts["factor"]]), *cut]


def logits(coef: Any, intercept: Any, n_classes: int) -> list:
    """Softmax regression, of two classes with a column of zeros for the first."""
    weight, bias = np.asarray(coef, dtype=np.float64).T, np.asarray(intercept, dtype=np.float64)
    bias = np.broadcast_to(bias, weight.shape[1])
    if n_classes == 2:
        weight, bias = np.hstack([0 * weight, weight]), np.hstack([0 * bias, bias])
    return [("affine", [weight, bias])]
