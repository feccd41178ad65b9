"""How pairs are solved where both maps are linear: all rows at once, by L-BFGS from the solution of PLS.

    minimise   L(X R_x, y R_y)  +  (|R_x|^2 + |R_y|^2) / 2n,     columns of X and y standardised

Of many rows L is the mean over blocks of them, a random partition that stays, in which rows are each other's keys.

The penalty is that of a standard normal prior on the weights, and is left out where q knows no lengths. R_x and R_y
start at the first singular vectors of X^T y. Solutions that differ by a rotation are the same: components are ordered
by variance, and signed.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import linalg, sparse

from .._core.rows import refuse_tiny, rows_of, unit_of
from .._core.unit_rows import unit_rows
from .._objective.batches import shuffled
from .._objective.loss import Loss
from .._optim.methods import LBFGS
from .._optim.train import Problem, Run, Training, sum_of, train
from ..encoders import Encoder
from ..encoders._networks import build_module, load_module, state_arrays
from ..learned import Learned
from .given import Modalities
from .pairs import Pairs, Temperature, batch_of_pairs, on_sphere, symmetric_loss

_ITERATIONS, _WINDOW = 200, 5
_COLUMNS = 1024  # at the most, of either modality
_EQUAL = 4  # roundings of a column's largest number, within which it is constant
_FAR = 20.0  # quartile ranges, beyond which cells say nothing of a column's centre and units


def solves_all_rows(sides: Modalities, learned: Learned, encoders: tuple[Encoder, Encoder], is_smooth: bool) -> bool:
    """Whether both maps are free linear ones of few columns, and the loss is smooth."""
    linear = all(encoder.is_linear and not encoder.orthonormal for encoder in encoders)
    return linear and sides.most_columns <= _COLUMNS and is_smooth and not learned.unmixed().is_limit


def solve_linear_pairs(
    sides: Modalities,
    uniform: float,
    loss: Loss,
    encoders: tuple[Encoder, Encoder],
    n_components: int,
    training: Training,
    run: Run,
) -> Pairs:
    """Both maps, from all pairs within blocks of at most `training.batch_size` rows."""
    double, axes = run._replace(dtype=torch.float64), [_Side(rows_of(items)) for items in sides]
    linear = _LinearPairs(axes, uniform, loss, n_components, int(training.batch_size or sides.n_rows), double)
    stops = _Falling(training.tol, run.report("training", training.max_iter or _ITERATIONS))
    problem = Problem(linear.loss, linear.params + linear.temperature.params)
    result = train(
        problem, LBFGS(training.tol), training.max_iter or _ITERATIONS, double._replace(report=lambda *stage: stops)
    )
    columns = _along_axes(axes, [param.detach().cpu().numpy() for param in linear.params])
    maps = [side.map(part) for side, part in zip(axes, columns, strict=True)]
    states = [
        _state(encoder, side, rows_of(items), one, run.dtype)
        for encoder, side, items, one in zip(encoders, axes, sides, maps, strict=True)
    ]
    return Pairs((states[0], states[1]), linear.temperature.final(), result)


class _LinearPairs:
    """Two maps, from the solution of PLS, and the loss of all pairs within blocks."""

    def __init__(self, sides: list["_Side"], uniform: float, loss: Loss, n_components: int, block_rows: int, run: Run):
        found = linalg.svd(sides[0].near.T @ sides[1].near / len(sides[0].rows), full_matrices=False)
        starts = [_columns(part, n_components) for part in (found[0], found[2].T)]
        self.params = [torch.as_tensor(start, **run.like).requires_grad_() for start in starts]
        n = len(sides[0].rows)
        blocks = [slice(None)] if n <= block_rows else shuffled(n, block_rows, np.random.RandomState(run.seed))
        self.blocks = [[torch.as_tensor(side.rows[block], **run.like) for side in sides] for block in blocks]
        self.n_rows = n
        self.temperature, self.unit = Temperature(loss.learned, **run.like), on_sphere(loss.learned)
        about = self.temperature.learned, loss.divergence, uniform, self.params[0].detach()
        self.batches = {len(x): batch_of_pairs(len(x), *about) for x, _ in self.blocks}

    def loss(self, batch: Any = None) -> Any:
        """The mean over blocks, penalised where q knows lengths."""
        if len(self.blocks) == 1:
            return self._of_block(*self.blocks[0])
        of_blocks = (len(block[0]) / self.n_rows * self._of_block(*block) for block in self.blocks)
        return sum_of(of_blocks, [*self.params, *self.temperature.params])

    def _of_block(self, *sides: torch.Tensor) -> Any:
        self.temperature.set()
        z, w = (side @ param for side, param in zip(sides, self.params, strict=True))
        batch = self.batches[len(z)]
        if self.unit:
            return symmetric_loss(batch, unit_rows(z), unit_rows(w))
        penalty: Any = sum(param.square().sum() for param in self.params) / (2 * self.n_rows)
        return symmetric_loss(batch, z, w) + penalty


class _Falling:
    """Stops where the loss hardly falls within a few steps; tells another of each."""

    def __init__(self, tol: float, report: Any):
        self.tol, self.report, self.values = tol, report, list[float]()

    def __call__(self, n_iter: int, value: float) -> bool:
        self.values.append(value)
        told = bool(self.report is not None and self.report(n_iter, value))
        before = self.values[-1 - _WINDOW] if n_iter > _WINDOW else np.inf
        return told or before - value < self.tol * max(1.0, abs(value))


class _Side:
    """A modality's standardised columns along their principal axes."""

    def __init__(self, X: Any):
        dense = (X.toarray() if sparse.issparse(X) else np.asarray(X)).astype(np.float64)
        refuse_tiny(dense)
        unit = unit_of(dense)
        mean, spread = _usual(dense * unit)
        constant = spread <= _EQUAL * np.finfo(X.dtype).eps * np.abs(dense * unit).max(axis=0)
        self.mean, self.units = mean / unit, np.where(constant, 1, spread) / unit
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


def _state(encoder: Encoder, side: _Side, X: Any, columns: np.ndarray, dtype: torch.dtype) -> dict:
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
    def of(cls, encoder: Encoder, state: dict, n_features: int, n_components: int) -> "Affine":
        """The map of a fitted linear encoder, before rows are scaled to unit length."""
        *scale, linear = load_module(encoder, n_features, n_components, state)
        columns, shift = linear.weight.detach().double().numpy().T, np.zeros(n_components)
        if linear.bias is not None:
            shift = shift + linear.bias.detach().double().numpy()
        for part in scale:
            columns = columns * np.reshape(part.factor.double().numpy(), (-1, 1))
            shift = shift - np.broadcast_to(part.shift.double().numpy(), n_features) @ columns  # one for all of items
        return cls(columns, shift)

    def __call__(self, X: Any) -> np.ndarray:
        return X @ self.columns + self.shift
