"""New rows, the training embedding fixed: each is placed by minimising its own divergence, whatever its batch."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from .._core.team import Team
from .._core.types import Array
from .._objective.grid import GridPotential
from ..learned import Learned
from ..learned._base import CAUCHY

_STEPS, _STARTS = 100, 10
_MOMENTUM = 0.8
_ROWS_AT_ONCE = 64
_MAX_STEP = 5.0
_SPACING = 0.4  # of a grid that is laid once for all new rows
_GRID_ROWS = 3000  # frozen rows from which on their potential is read off a grid
_MARGIN = 10.0  # kernel widths that a row may go beyond the frozen ones
_FLOOR = 1e-7


def block_size(n_new: int, frozen: np.ndarray) -> int:
    """How many numbers an operation on a block of new rows takes, or the threads of a team share."""
    by_grid = len(frozen) > _GRID_ROWS and frozen.shape[1] <= 2
    return (n_new if by_grid else min(n_new, _ROWS_AT_ONCE)) * frozen.size


def place_rows(weights: sparse.csr_array, frozen: Array, learned: Learned, kept: dict | None = None) -> Array:
    """Minimise D(p(.|new) || q(.|new)) over the place of each new row, the frozen rows being the keys.

    With k the kernel and s_j = |z - z_j|^2, the row's loss is -sum_j p_j log k(s_j) + log sum_j k(s_j). A row starts
    at the weighted mean of its positives, or where one of its ten heaviest is if the loss is lower
    there: between far clusters the loss is flat, and no descent leaves. It goes on with momentum, at a rate set by the
    kernel's own curvature at zero; beside many frozen rows of one or two dimensions, the second sum is interpolated.
    A kernel that is not smooth at zero keeps its best start, one that is no function of the squared distance the
    weighted mean.

    Parameters
    ----------
    weights : csr_array of shape (n_new, n_frozen)
        p(.|new), rows that sum to one.
    frozen : ndarray of shape (n_frozen, n_components)
    learned : Learned
    kept : dict, default=None
        Holds the potential of the frozen rows for the next call.

    Returns
    -------
    ndarray of shape (n_new, n_components), float64
    """
    columns, values = _padded(weights)
    start = np.einsum("ik,ikd->id", values, frozen[columns].astype(np.float64))
    if not learned.euclidean or not len(start):
        return start
    smooth, learned = learned.smooth_at_zero, learned.rounded()
    heaviest = np.argsort(-values, axis=1, kind="stable")[:, :_STARTS]
    starts = np.concatenate([start[:, None], frozen[np.take_along_axis(columns, heaviest, axis=1)]], axis=1)
    if len(frozen) > _GRID_ROWS and frozen.shape[1] <= 2 and smooth and learned.slope_terms is not None:
        return _settle(starts, columns, values, frozen, learned, {} if kept is None else kept)
    rate = _rate(learned) if smooth else 0.0
    keys = torch.from_numpy(np.ascontiguousarray(frozen.T, dtype=np.float64))
    placed = np.empty_like(start)
    for first in range(0, len(start), _ROWS_AT_ONCE):
        block = np.arange(first, first + _ROWS_AT_ONCE) % len(start)  # full blocks: equal shapes round equally
        starts_at, positives, weight = (torch.from_numpy(a[block]) for a in (starts, columns, values))
        z = _best(starts_at, positives, weight, keys, learned)
        done = (_descend(z, positives, weight, keys, learned, rate) if smooth else z).numpy()
        placed[block[: len(start) - first]] = done[: len(start) - first]
    return placed


def _padded(weights: sparse.csr_array) -> tuple[Array, Array]:
    """(columns, values) of sparse rows as rectangular arrays; padding has weight zero."""
    counts = np.diff(weights.indptr)
    columns = np.zeros((weights.shape[0], max(counts.max(initial=0), 1)), dtype=np.int64)
    values = np.zeros(columns.shape)
    filled = np.arange(columns.shape[1]) < counts[:, None]
    columns[filled], values[filled] = weights.indices, weights.data
    return columns, values


def _rate(learned: Learned) -> float:
    """The rate at which a kernel's own curvature at zero is met."""
    return -0.25 / float(learned.slope(torch.zeros((), dtype=torch.float64)))


def _settle(starts: Array, columns: Array, values: Array, frozen: Array, learned: Learned, kept: dict) -> Array:
    """Places of all rows after all steps; the potential of the frozen rows is interpolated on a grid."""
    from .._objective.loops import settle

    dim = frozen.shape[1]
    z, plane = np.empty((len(starts), 2)), np.zeros((*starts.shape[:2], 2))
    plane[:, :, :dim] = starts
    of, found = (repr(learned), learned.slope_terms, dim), kept.get("potential")
    if found is None or found[0] != of or not np.array_equal(found[1][:, :dim], frozen):
        potential, keys = GridPotential(learned, spacing=_SPACING), np.zeros((len(frozen), 2))
        keys[:, :dim] = frozen
        laid = potential.field(torch.from_numpy(keys), _MARGIN * potential.scale)
        found = kept["potential"] = of, keys, _rate(learned), laid
    _, keys, rate, (field, origin, per_unit, low, high) = found
    grid, descent = (field, origin, per_unit, _FLOOR, low, high), (_STEPS, rate, _MOMENTUM, _MAX_STEP)
    team = Team()
    arrays = (plane, (columns, values, keys), learned.slope_terms, grid, descent)
    team.run(settle, [(*arrays, share.start, share.stop, z) for share in team.split(len(z))])
    return z[:, :dim]


def _best(starts: Tensor, columns: Tensor, values: Tensor, keys: Tensor, learned: Learned) -> Tensor:
    """The start of each row of a block where its loss is least."""
    losses = []
    for z in starts.unbind(1):
        of_positives, of_all = (
            (z.T[:, :, None] - others).square().sum(0) for others in (keys[:, columns], keys[:, None])
        )
        losses.append(_log_sum(of_all, learned) - (values * learned.log_kernel(of_positives)).sum(1))
    best = torch.stack(losses, dim=1).argmin(1)
    return starts[torch.arange(len(starts)), best]


def _descend(z: Tensor, columns: Tensor, values: Tensor, keys: Tensor, learned: Learned, rate: float) -> Tensor:
    """Places of a block of rows after all steps; only elementwise operations and sums along rows."""
    positives = keys[:, columns]
    velocity = torch.zeros_like(z)
    for _ in range(_STEPS):
        pull = _force(values, z.T[:, :, None] - positives, learned)
        push = _push(z.T[:, :, None] - keys[:, None, :], learned)
        velocity = _MOMENTUM * velocity - rate * (push - pull).T
        norm = velocity.square().sum(1, keepdim=True).sqrt()
        z = z + velocity * (_MAX_STEP / norm.clamp_min(_MAX_STEP))
    return z


def _force(weights: Tensor, offsets: Tensor, learned: Learned) -> Tensor:
    """sum_j w_j d log k / dz = sum_j w_j h(s_j) 2 (z - z_j), shape (n_components, n_rows)."""
    return 2 * (weights * learned.slope(offsets.square().sum(0)) * offsets).sum(2)


def _log_sum(sq: Tensor, learned: Learned) -> Tensor:
    """log sum_j k(s_j) of each row."""
    if learned.slope_terms == CAUCHY:  # no sum of it underflows: one logarithm
        return learned.kernel_and_slope(sq, torch.empty_like(sq))[0].sum(1).log()
    return learned.log_kernel(sq).logsumexp(1)


def _push(offsets: Tensor, learned: Learned) -> Tensor:
    """d log sum_j k(s_j) / dz, shape (n_components, n_rows)."""
    sq = offsets.square().sum(0)
    if learned.slope_terms == CAUCHY:  # as above: no logarithms
        kernel, slope = learned.kernel_and_slope(sq, torch.empty_like(sq))
        return 2 * (slope * offsets).sum(2) / kernel.sum(1)
    return 2 * (learned.log_kernel(sq).softmax(1) * learned.slope(sq) * offsets).sum(2)
