"""How pairs are solved where both maps are linear: all rows at once, by L-BFGS from the solution of PLS.

    minimise   L(X R_x, y R_y)  +  (|R_x|^2 + |R_y|^2) / 2n,     columns of X and y standardised

The penalty is that of a standard normal prior on the weights, and is left out where q knows no lengths. R_x and R_y
start at the first singular vectors of X^T y. Solutions that differ by a rotation are the same: components are ordered
by variance, and signed.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import linalg, sparse

from .._core.unit_rows import unit_rows
from .._optim.solver import minimize
from ..encoders._networks import build_module, load_module, state_arrays
from .pairs import Pairs, Temperature, batch_of_pairs, on_sphere, symmetric_loss

_ITERATIONS, _WINDOW = 200, 5
_COLUMNS = 1024  # at the most, of either modality
_FAR = 20.0  # quartile ranges, beyond which cells say nothing of a column's centre and units


def solves_all_rows(X: Any, y: Any, learned: Any, encoders: tuple, is_smooth: bool) -> bool:
    """Whether both maps are free linear ones of few columns, and the loss is smooth."""
    flat = X.ndim == y.ndim == 2
    linear = flat and all(encoder.is_linear and not encoder.orthonormal for encoder in encoders)
    few = linear and max(X.shape[1], y.shape[1]) <= _COLUMNS
    return few and is_smooth and not learned.unmixed().is_limit


def solve_linear_pairs(
    X: Any,
    y: Any,
    uniform: float,
    learned: Any,
    encoders: tuple,
    n_components: int,
    options: dict,
    *,
    max_iter,
    tol,
    on_step,
) -> Pairs:
    """Both maps, from all pairs; arguments as those of `solve_pairs`."""
    sides = [_Side(rows) for rows in (X, y)]
    found = linalg.svd(sides[0].near.T @ sides[1].near / X.shape[0], full_matrices=False)
    kind = {"dtype": torch.float64, "device": options["device"]}
    starts = [_columns(part, n_components) for part in (found[0], found[2].T)]
    params = [torch.as_tensor(start, **kind).requires_grad_() for start in starts]
    rows = [torch.as_tensor(side.rows, **kind) for side in sides]
    temperature = Temperature(learned, **kind)
    batch = batch_of_pairs(X.shape[0], temperature.learned, options["divergence"], uniform, params[0].detach())

    def loss() -> torch.Tensor:
        temperature.set()
        z, w = (side @ param for side, param in zip(rows, params, strict=True))
        if on_sphere(learned):
            return symmetric_loss(batch, unit_rows(z), unit_rows(w))
        penalty = sum(param.square().sum() for param in params) / (2 * X.shape[0])
        return symmetric_loss(batch, z, w) + penalty

    values: list[float] = []

    def stops(n_iter: int, value: float) -> bool:
        values.append(value)
        told = bool(on_step is not None and on_step(n_iter, value))
        return told or (n_iter > _WINDOW and values[-1 - _WINDOW] - value < tol * max(1.0, abs(value)))

    max_iter = _ITERATIONS if max_iter == "auto" else max_iter
    result = minimize(loss, params + temperature.params, method="lbfgs", max_iter=max_iter, tol=tol, on_step=stops)
    columns = _along_axes(sides, [param.detach().cpu().numpy() for param in params])
    maps = [side.map(part) for side, part in zip(sides, columns, strict=True)]
    states = [
        _state(encoder, side, items, one, options["dtype"])
        for encoder, side, items, one in zip(encoders, sides, (X, y), maps, strict=True)
    ]
    return Pairs((states[0], states[1]), temperature.final(), result)


class _Side:
    """A modality's standardised columns along their principal axes."""

    def __init__(self, X: Any):
        dense = (X.toarray() if sparse.issparse(X) else np.asarray(X)).astype(np.float64)
        self.mean, spread = _usual(dense)
        constant = spread <= dense.shape[0] * np.finfo(X.dtype).eps * np.abs(dense).max(axis=0)
        self.units = np.where(constant, 1, spread)
        standard = np.where(constant, 0, (dense - self.mean) / self.units)
        _, sizes, axes = linalg.svd(standard, full_matrices=False)
        kept = sizes > max(dense.shape) * np.finfo(X.dtype).eps * max(sizes[0], np.finfo(np.float64).tiny)
        self.axes = axes[kept].T
        self.rows = standard @ self.axes

    @property
    def near(self) -> np.ndarray:
        """Rows, those far off drawn near."""
        return np.clip(self.rows, -_FAR, _FAR)

    def map(self, columns: np.ndarray) -> np.ndarray:
        """The map of centred columns of X that a map of these coordinates is."""
        return (self.axes @ columns) / self.units[:, None]


def _usual(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of columns, without what lies many quartile ranges off."""
    low, middle, high = np.quantile(dense, (0.25, 0.5, 0.75), axis=0)
    far = (high > low) & (np.abs(dense - middle) > _FAR * (high - low))
    usual = np.ma.masked_array(dense, far)
    return np.asarray(usual.mean(axis=0)), np.asarray(usual.std(axis=0))


def _columns(vectors: np.ndarray, n_components: int) -> np.ndarray:
    """The first singular vectors, zeros where there are fewer than components."""
    first = vectors[:, :n_components]
    return np.pad(first, ((0, 0), (0, n_components - first.shape[1])))


def _along_axes(sides: list, columns: list) -> list:
    """Both maps turned so that components come in order of variance, the largest weights of X positive."""
    scores = np.concatenate([side.rows @ part for side, part in zip(sides, columns, strict=True)])
    axes = linalg.eigh(scores.T @ scores)[1][:, ::-1]
    weights = sides[0].axes @ columns[0] @ axes
    signs = np.sign(weights[np.abs(weights).argmax(axis=0), np.arange(weights.shape[1])])
    return [part @ axes * np.where(signs == 0, 1, signs) for part in columns]


def _state(encoder: Any, side: _Side, X: Any, columns: np.ndarray, dtype: torch.dtype) -> dict:
    """The state of the encoder's module."""
    module = build_module(encoder, X, columns.shape[1], 0, dtype)
    scale, linear = module
    with torch.no_grad():
        scale.shift.copy_(torch.as_tensor(side.mean))
        scale.factor.fill_(1)
        linear.weight.copy_(torch.as_tensor(columns.T))
        linear.bias.zero_()
    return state_arrays(module)


class Affine(NamedTuple):
    """s = x @ columns + shift."""

    columns: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, encoder: Any, state: dict, n_features: int, n_components: int) -> "Affine":
        """The map of a fitted linear encoder, before rows are scaled to unit length."""
        *scale, linear = load_module(encoder, n_features, n_components, state)
        columns, shift = linear.weight.detach().double().numpy().T, np.zeros(n_components)
        if linear.bias is not None:
            shift = shift + linear.bias.detach().double().numpy()
        for part in scale:
            columns = columns * np.reshape(part.factor.double().numpy(), (-1, 1))
            shift = shift - part.shift.double().numpy() @ columns
        return cls(columns, shift)

    def __call__(self, X: Any) -> np.ndarray:
        return X @ self.columns + self.shift
