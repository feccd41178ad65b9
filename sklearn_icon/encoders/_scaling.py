"""How rows are centred and scaled for encoders: a few extreme ones have a bounded say."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import gen_batches

from .._core.group import group
from .._core.rows import refuse_tiny, unit_of
from .._core.types import Array, Rows

ROWS_AT_ONCE = 8192
FAR = 10.0  # times the median size, at which a row's size is cut; rows of ordinary data are all nearer
FARTHEST = 1e5  # spreads, at which rows are cut for linear maps: beyond, they would drown all others in training
_MEASURED_ROWS = 512  # that say where the middle is


def input_scale(X: Rows, sample_weight: Array | None = None, by_column: bool = True) -> tuple[Any, float]:
    """(shift, factor): means of columns, or of all numbers, and one over the overall standard deviation.

    ::

        shift = sum_i s_i a_i x_i / sum_i s_i a_i,     1 / factor^2 = sum_i s_i a_i^2 |x_i - shift|^2 / d
        a_i = min(1, 10 median_j |x_j - m| / |x_i - m|),     m the median

    so that a row counts as one that is ten times as far from the middle as the median row at the most. The shift of
    sparse rows is zero where each column has its own. Rows are those of all ranks.
    """
    total = group().total
    unit = -group().largest(-unit_of(X))
    if unit > 1:
        refuse_tiny(X)
    if unit != 1 and X.dtype == np.float32:  # whose squares, of rows beside one far row, would vanish
        return input_scale(X.astype(np.float64), sample_weight, by_column)
    if unit != 1:
        shift, factor = input_scale(X * unit, sample_weight, by_column)
        return shift / unit, factor * unit
    fraction = row_fractions(X, sample_weight)
    near = nearness(X, fraction, by_column)
    if group().largest(float(near is not None)):
        near = np.ones(len(fraction)) if near is None else near
    of_mean = fraction if near is None else fraction * near / total(fraction @ near)
    of_square = fraction if near is None else fraction * near**2
    if sparse.issparse(X):
        mean = total(np.asarray(of_mean @ X))
        shift = np.zeros(X.shape[1]) if by_column else mean.mean()
        of_all = 1.0 if near is None else total(of_square.sum())
        variance = total(np.asarray(of_square @ X.multiply(X))).mean() - of_all * mean.mean() ** 2
    else:
        blocks = [(part, X[part].reshape(len(fraction[part]), -1)) for part in gen_batches(len(X), ROWS_AT_ONCE)]
        if by_column:
            shift = total(sum(of_mean[part] @ block.astype(np.float64) for part, block in blocks))
            variance = total(sum(of_square[part] @ np.square(block - shift) for part, block in blocks)).mean()
        else:
            shift = total(sum(of_mean[part] @ block.mean(axis=1, dtype=np.float64) for part, block in blocks))
            variance = total(sum(of_square[part] @ np.square(block - shift).mean(axis=1) for part, block in blocks))
    return shift, 1 / np.sqrt(variance) if variance > 0 else 1.0


def may_exceed(X: Rows, shift: Any, factor: float, limit: float) -> bool:
    """Whether a scaled row, of any rank, may be longer, in root mean square, than a limit."""
    return bool((group().largest(max(X.max(), -X.min())) + np.abs(shift).max()) * factor > limit)


def nearer(X: Rows, shift: Any, factor: float, limit: float) -> Rows:
    """Rows of which none is farther from the shift, or sparse ones from zero, than a limit over the factor."""
    if not may_exceed(X, shift, factor, limit):
        return X
    largest = limit / factor * X.shape[1] ** 0.5
    if sparse.issparse(X):
        sizes = sparse.linalg.norm(X.astype(np.float64), axis=1)
        return X.multiply((largest / np.maximum(sizes, largest)).astype(X.dtype)[:, None]).tocsr()
    offsets = X.astype(np.float64) - shift
    sizes = np.linalg.norm(offsets, axis=1, keepdims=True)
    return np.where(sizes > largest, shift + offsets * (largest / np.maximum(sizes, largest)), X).astype(X.dtype)


def row_fractions(X: Rows, sample_weight: Array | None) -> Array:
    """Each row's fraction of all weight."""
    if sample_weight is None:
        return np.full(X.shape[0], 1 / group().total(X.shape[0]))
    return sample_weight / group().total(sample_weight.sum())


def nearness(X: Rows, fraction: Array, by_column: bool = True) -> Array | None:
    """a_i = min(1, 10 median size / size of row i), or None where all are one."""
    size = _sizes(X, fraction, by_column)
    counts = (fraction > 0) & (size > 0)
    sizes, fractions = group().gathered(size[counts]), group().gathered(fraction[counts])
    if not len(sizes):
        return None
    bound = FAR * _median(sizes, fractions)
    return bound / np.maximum(size, bound) if size.max(initial=0) > bound else None


def _sizes(X: Rows, fraction: Array, by_column: bool) -> Array:
    """Distances of the rows from the middle of some of them; of sparse rows from zero."""
    if sparse.issparse(X):
        return np.sqrt(np.asarray(X.multiply(X).sum(axis=1), dtype=np.float64).ravel())
    counted = np.flatnonzero(fraction)
    first, n_counted = group().first_of(len(counted))
    every = -(-n_counted // _MEASURED_ROWS)
    some = counted[-first % every :: every]
    rows = group().gathered(X[some].reshape(len(some), -1))
    if by_column:
        middle = _median(rows, group().gathered(fraction[some]))
    else:
        middle = np.median(rows)
    sizes = np.empty(len(X))
    for part in gen_batches(len(X), ROWS_AT_ONCE):
        block = X[part].reshape(len(sizes[part]), -1) - middle
        sizes[part] = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
    return sizes


def _median(values: Array, weight: Array) -> Array:
    """The weighted median of each column, the lower one of two."""
    if weight.min() == weight.max():
        middle = (len(values) - 1) // 2
        return np.partition(values, middle, axis=0)[middle].astype(np.float64)
    order = np.argsort(values, axis=0, kind="stable")
    below = np.cumsum(weight[order], axis=0)
    first = (below < 0.5 * below[-1]).sum(axis=0)
    at = np.take_along_axis(order, np.expand_dims(first, 0), axis=0)
    return np.take_along_axis(values, at, axis=0)[0].astype(np.float64)
