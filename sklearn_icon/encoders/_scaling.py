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
FAR = 10.0  # times the median, at which sizes of rows and spreads of columns are cut; rows of ordinary data are nearer
FARTHEST = 1e5  # spreads, at which rows are cut for linear maps: beyond, they would drown all others in training
_MEASURED_ROWS = 512  # that say where the middle is
_LARGEST, _SMALLEST = np.finfo(np.float64).max, np.finfo(np.float64).tiny


def input_scale(
    X: Rows, sample_weight: Array | None = None, by_column: bool = True, columns: Array | None = None
) -> tuple[Any, Any]:
    """(shift, factor): means of columns, or of all numbers, and one over the overall standard deviation.

    ::

        shift = m + sum_i s_i a_i (x_i - m) / sum_i s_i a_i,     1 / factor^2 = sum_i s_i a_i^2 |x_i - shift|^2 / d
        a_i = min(1, 10 median_j |x_j - m| / |x_i - m|),     m the median

    so that a row counts as one that is ten times as far from the middle as the median row at the most. The shift of
    sparse rows is zero where each column has its own. Rows are those of all ranks. Where there are `columns`, as of
    `column_factors`, lengths are those of offsets times these, and so is the factor.
    """
    fraction = row_fractions(X, sample_weight)
    offsets = _Offsets(X, fraction, by_column, columns)
    size = offsets.sizes()
    median = _median_size(size, fraction)
    near, unit = _nearness(size, median), offsets.unit(median)
    if group().largest(float(near is not None)):
        near = np.ones(len(fraction)) if near is None else near
    mean, variance = _moments(offsets, fraction, near, unit)
    factor = unit / np.sqrt(variance) if variance > 0 else 1.0
    by = 1.0 if columns is None else columns
    return offsets.middle + mean / (unit * by), factor * by


def column_factors(X: Rows, sample_weight: Array | None = None) -> Array | None:
    """c_j = min(1, 10 median_k s_k / s_j), s_j the median size of what is not zero in column j, or None if all are 1.

    Sizes are those of some rows, less their median where they are dense.
    """
    fraction = row_fractions(X, sample_weight)
    offsets, some = _Offsets(X, fraction), _measured(fraction)
    entries = sparse.coo_array(offsets.block(some))
    column, size = group().gathered(entries.col), group().gathered(np.abs(entries.data))
    weight = group().gathered(fraction[some][entries.row])
    order = np.lexsort((size, column))
    column, size, below = column[order], size[order], np.cumsum(weight[order])
    known, first = np.unique(column, return_index=True)
    if not len(known):
        return None
    start, end = np.append(0, below)[first], below[np.append(first[1:], len(below)) - 1]
    at = np.clip(np.searchsorted(below, (start + end) / 2), first, len(below) - 1)
    spread = np.zeros(X.shape[1])
    spread[known] = size[at]
    bound = FAR * np.median(size[at])
    return bound / np.maximum(spread, bound) if spread.max() > bound else None


def _moments(offsets: _Offsets, fraction: Array, near: Array | None, unit: float) -> tuple[Any, Any]:
    """The mean of offsets, and their variance, in units; those of far rows are shortened."""
    total, every = group().total, list(gen_batches(max(1, len(fraction)), ROWS_AT_ONCE))
    times = None if near is None and unit == 1 else (1.0 if near is None else near) * np.full(len(fraction), unit)
    of_mean, of_square = (1.0, 1.0) if near is None else (total(fraction @ near), total(fraction @ near**2))
    mean = total(sum(np.asarray(fraction[part] @ offsets.block(part, times)) for part in every)) / of_mean
    if sparse.issparse(offsets.X):
        square = total(sum(np.asarray(fraction[part] @ offsets.block(part, times).power(2)) for part in every))
        variance = square.mean() - of_square * mean.mean() ** 2
        return np.zeros(len(mean)) if offsets.by_column else mean.mean(), variance
    mean, square = mean if offsets.by_column else mean.mean(), 0.0
    for part in every:
        gaps = offsets.block(part, times)
        gaps -= mean if near is None else near[part, None] * mean
        square = square + fraction[part] @ np.square(gaps, out=gaps)
    return mean, total(square).mean()


class _Offsets:
    """Rows less their median, or sparse ones as they are, times a number for each column where there are such."""

    def __init__(self, X: Rows, fraction: Array, by_column: bool = True, columns: Array | None = None) -> None:
        self.X, self.by_column, self.columns, self.own_unit = X, by_column, columns, unit_of(X)
        self.middle: Any = np.float64(0)
        if not sparse.issparse(X):
            some = _measured(fraction)
            rows = group().gathered(X[some].reshape(len(some), -1))
            self.middle = _median(rows, group().gathered(fraction[some])) if by_column else np.float64(np.median(rows))

    def block(self, part: Any, times: Array | None = None) -> Any:
        """Some of them, each times a number, in double precision."""
        if sparse.issparse(self.X):
            block = sparse.csr_array(self.X[part], dtype=np.float64)
            block = block if times is None else sparse.diags_array(times[part]) @ block
            return block if self.columns is None else block @ sparse.diags_array(self.columns)
        rows = self.X[part]
        with np.errstate(over="ignore"):
            block = np.subtract(rows.reshape(len(rows), -1), self.middle, dtype=np.float64)
        if self.own_unit < 1:
            np.clip(block, -_LARGEST, _LARGEST, out=block)
        for factor in (self.columns, None if times is None else times[part, None]):
            block = block if factor is None else np.multiply(block, factor, out=block)
        return block

    def sizes(self) -> Array:
        """Their lengths."""
        parts = gen_batches(max(1, self.X.shape[0]), ROWS_AT_ONCE)
        return np.concatenate([_lengths(self.block(part), self.own_unit == 1) for part in parts])

    def unit(self, median: float) -> float:
        """A power of two that brings the median length near one where rows are not ordinary, else one."""
        unit = -group().largest(-self.own_unit)
        if unit > 1:
            refuse_tiny(self.X)
        return unit if unit == 1 or not median else unit_of(np.array([median]))


def may_exceed(X: Rows, shift: Any, factor: float, limit: float) -> bool:
    """Whether a scaled row, of any rank, may be longer, in root mean square, than a limit."""
    return bool((group().largest(max(X.max(), -X.min())) + np.abs(shift).max()) * factor > limit)


def nearer(X: Rows, shift: Any, factor: float, limit: float) -> Rows:
    """Rows of which none is farther from the shift, or sparse ones from zero, than a limit over the factor."""
    if not may_exceed(X, shift, factor, limit):
        return X
    largest = limit / factor * X.shape[1] ** 0.5
    if sparse.issparse(X):
        sizes = _lengths(sparse.csr_array(X, dtype=np.float64), unit_of(X) == 1)
        return X.multiply((largest / np.maximum(sizes, largest)).astype(X.dtype)[:, None]).tocsr()
    offsets = X.astype(np.float64) - shift
    sizes = _lengths(offsets, unit_of(X) == 1)[:, None]
    return np.where(sizes > largest, shift + offsets * (largest / np.maximum(sizes, largest)), X).astype(X.dtype)


def row_fractions(X: Rows, sample_weight: Array | None) -> Array:
    """Each row's fraction of all weight."""
    if sample_weight is None:
        return np.full(X.shape[0], 1 / group().total(X.shape[0]))
    return sample_weight / group().total(sample_weight.sum())


def nearness(X: Rows, fraction: Array, by_column: bool = True) -> Array | None:
    """a_i = min(1, 10 median size / size of row i), or None where all are one."""
    size = _Offsets(X, fraction, by_column).sizes()
    return _nearness(size, _median_size(size, fraction))


def _nearness(size: Array, median: float) -> Array | None:
    bound = FAR * median
    return bound / np.maximum(size, bound) if median and size.max(initial=0) > bound else None


def _median_size(size: Array, fraction: Array) -> float:
    """That of all rows with a weight that are not in the middle, zero where there are none."""
    counts = (fraction > 0) & (size > 0)
    sizes, fractions = group().gathered(size[counts]), group().gathered(fraction[counts])
    return float(_median(sizes, fractions)) if len(sizes) else 0.0


def _lengths(rows: Rows, ordinary: bool) -> Array:
    """Lengths of rows; unless they are ordinary, each is divided by its largest entry before it is squared."""
    if not ordinary:
        top = np.asarray(abs(rows).max(axis=1).todense() if sparse.issparse(rows) else abs(rows).max(axis=1)).ravel()
        by = 1 / np.clip(top, _SMALLEST, None)
        rows = sparse.diags_array(by) @ rows if sparse.issparse(rows) else rows * by[:, None]
        with np.errstate(over="ignore"):
            return np.minimum(_lengths(rows, True) / by, _LARGEST)
    if sparse.issparse(rows):
        return np.sqrt(np.asarray(rows.power(2).sum(axis=1)).ravel())
    return np.sqrt(np.einsum("ij,ij->i", rows, rows))


def _measured(fraction: Array) -> Array:
    """The rows of this rank among some of those of all ranks that have a weight."""
    counted = np.flatnonzero(fraction)
    first, n_counted = group().first_of(len(counted))
    every = -(-n_counted // _MEASURED_ROWS)
    return counted[-first % every :: every]


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
