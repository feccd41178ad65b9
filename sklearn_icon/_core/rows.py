"""Rows: which are equal, by digests, duplicates and rows seen before; and those of sparse matrices as all can read."""

from __future__ import annotations

from math import frexp, prod
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight

from .group import group
from .spec import shown
from .types import Metric, Rows

_ROWS_AT_ONCE, _NUMBERS_AT_ONCE = 4096, 1 << 18
_PARTS_IN_THREADS = 32
_COMPARED = 16  # digests up to which a comparison with all takes less time than sorting these
_ORDINARY = {4: (1e-12, 1e12, 120), 8: (1e-30, 1e30, 1000)}  # sizes whose squares are; the largest exponent


def with_int32_indices(X: Rows) -> Rows:
    """A copy of a csr matrix with 32-bit indices where they suffice, as k-means takes no wider ones; else X itself."""
    if not sparse.issparse(X) or X.indices.dtype == X.indptr.dtype == np.int32 or max(X.nnz, *X.shape) >= 2**31:
        return X
    return type(X)((X.data.copy(), X.indices.astype(np.int32), X.indptr.astype(np.int32)), shape=X.shape)


def row_digests(X: Rows) -> np.ndarray:
    """A 64-bit digest of each row's values: equal rows have equal digests, dense or sparse."""
    if sparse.issparse(X):
        X = sparse.csr_array(X, copy=True)
        X.sum_duplicates()
        sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(_entry_digests(X.indices, X.data))])
        return np.diff(sums[X.indptr]).view(np.int64)
    n_rows = min(_ROWS_AT_ONCE, max(1, _NUMBERS_AT_ONCE // max(X.shape[1], 1)))
    columns, starts = np.arange(X.shape[1]), range(0, max(X.shape[0], 1), n_rows)

    def of_rows(start: int) -> np.ndarray:
        return _entry_digests(columns, X[start : start + n_rows]).sum(axis=1)

    if len(starts) < _PARTS_IN_THREADS:
        return np.concatenate([of_rows(start) for start in starts]).view(np.int64)
    from .team import in_threads

    return np.concatenate(in_threads(of_rows, starts)).view(np.int64)


def digests_of(columns: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """A 64-bit digest of each row's words; those that are zero do not count."""
    return _mixed(columns, bits).sum(axis=1, dtype=np.uint64).view(np.int64)


def _mixed(columns: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """A pseudo-random number of each (column, word), zero where the word is zero."""
    return np.where(bits != 0, mixed_bits(bits ^ mixed_bits(columns.astype(np.uint64) + np.uint64(1))), np.uint64(0))


def _entry_digests(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A pseudo-random number of each (column, value), zero where the value is zero."""
    return _mixed(columns, (values.astype(np.float64) + 0.0).view(np.uint64))  # one zero only


def mixed_bits(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers that changes about half of all bits where one changes (splitmix64's finalizer)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def match_rows(digests: np.ndarray, known_digests: np.ndarray) -> np.ndarray:
    """For each digest the first position at which it is known, or -1."""
    if len(digests) <= _COMPARED:
        equal = digests[:, None] == known_digests
        return np.where(equal.any(axis=1), equal.argmax(axis=1), -1)
    order = np.argsort(known_digests, kind="stable")
    position = np.searchsorted(known_digests, digests, sorter=order)
    candidate = order[np.minimum(position, len(order) - 1)]
    return np.where(known_digests[candidate] == digests, candidate, -1)


def average_duplicates(values: np.ndarray, X: Rows | None) -> np.ndarray:
    """Give equal rows of X one value: the mean of theirs. Without features (X is None) no rows are equal.

    Where X holds the rows of one rank, values are those of all ranks.
    """
    if X is None:
        return values
    digests = group().gathered(row_digests(X))
    first, inverse, counts = np.unique(digests, return_inverse=True, return_counts=True)
    if len(first) == len(digests):
        return values
    sums = np.zeros((len(first), values.shape[1]))
    np.add.at(sums, inverse, values)
    merged = (sums / counts[:, None])[inverse].astype(values.dtype)
    return np.where((counts[inverse] > 1)[:, None], merged, values)


def rows_of(items: Rows) -> Rows:
    """Items of any shape as rows of features; sparse rows are such."""
    return items.reshape(len(items), prod(items.shape[1:])) if items.ndim > 2 else items


def _size(numbers: np.ndarray) -> float:
    """The largest, whatever its sign."""
    return max(float(numbers.max(initial=0)), -float(numbers.min(initial=0)))


def refuse_tiny(X: Rows) -> None:
    """A ValueError where all numbers are so small that none can be divided by."""
    size = _size(X.data if sparse.issparse(X) else X)
    if 0 < size < np.finfo(np.float64).tiny:
        raise ValueError(
            f"no number of X is above {size:.3g} in size, which is below the smallest that float64 divides by, "
            f"{np.finfo(np.float64).tiny:.3g}; bring the features to a scale nearer one, such as by StandardScaler."
        )


def unit_of(X: Rows) -> float:
    """A power of two that brings rows near one where sums of their squares would vanish or overflow, else one."""
    numbers = X.data if sparse.issparse(X) else X
    size = _size(numbers)
    low, high, most = _ORDINARY.get(numbers.dtype.itemsize, _ORDINARY[8])
    if size == 0 or low <= size <= high:
        return 1.0
    return 2.0 ** min(max(-frexp(size)[1], -most), most)


def in_units(X: Rows, unit: float) -> Rows:
    """Rows times a power of two; themselves where it is one."""
    return X if unit == 1 else X * unit


def is_itself(init: Any) -> bool:
    """Whether a start is given as numbers, not by a name or as a function."""
    return not (isinstance(init, str) or callable(init))


def of_numbers(metric: Metric) -> Metric:
    """A metric that is a function, as one that returns numbers or says what it returned; a name as it is."""
    if not callable(metric):
        return metric

    def distance(a: Any, b: Any, **params: Any) -> float:
        found = metric(a, b, **params)
        try:
            return float(found)
        except (TypeError, ValueError):
            raise ValueError(
                f"metric={shown(metric)} has to return a number for two rows, but returned {shown(found)}."
            ) from None

    return distance


def is_fixed(X: Any) -> bool:
    """Whether dense rows cannot be written to, as those of a file that is opened to be read."""
    try:
        return memoryview(X).readonly
    except TypeError:
        return False


def shape_of(items: Any) -> tuple[int, ...]:
    """The shape of what may be no array yet."""
    return items.shape if hasattr(items, "shape") else np.asarray(items).shape


def refuse_hidden(items: Any, name: str) -> None:
    """Refuse what a plain array does not hold: masks, bfloat16, and the history of tensors that require a gradient."""
    if type(items) is np.ndarray:
        return
    if np.ma.is_masked(items):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(items)} masked entries, whose mask would be ignored; "
            f"fill them, as by sklearn.impute.SimpleImputer().fit_transform({name}.filled(np.nan)), or drop their rows."
        )
    if getattr(items, "requires_grad", False):
        raise ValueError(
            f"{name} is a tensor that requires a gradient, which estimators do not hand on; pass {name}.detach(), or "
            "use sklearn_icon.nn.ICONLoss in a training loop of your own."
        )
    if str(getattr(items, "dtype", "")) == "torch.bfloat16":
        raise ValueError(f"{name} is a tensor of bfloat16, which NumPy has not got; pass {name}.float().")


def row_weights(sample_weight: Any, X: Rows) -> np.ndarray:
    """Weights of rows, of which one at least is not zero."""
    refuse_hidden(sample_weight, "sample_weight")
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():  # older scikit-learn lets this pass
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def copy_counts(sample_weight: Any, X: Rows) -> np.ndarray | None:
    """How many times each row is there; None where each is there once."""
    if sample_weight is None:
        return None
    weights = row_weights(sample_weight, X)
    broken = np.flatnonzero(weights != np.floor(weights))
    if len(broken):
        raise ValueError(
            "sample_weight says how many copies of a row there are, which are neighbours of each other and of other "
            f"rows: whole numbers, but got {weights[broken[0]]:g} in row {broken[0]}. Round them, such as "
            "np.rint(sample_weight / sample_weight[sample_weight > 0].min())."
        )
    if not 2 <= weights.sum() < np.iinfo(np.int32).max:
        raise ValueError(
            f"sample_weight asks for {weights.sum():g} rows with all copies; a fit needs at least 2 and fewer than "
            "2^31. Divide the weights, and round them."
        )
    return None if (weights == 1).all() else weights.astype(np.int64)


def with_copies(items: Any, counts: np.ndarray) -> Any:
    """Each row as many times as it is there, its copies side by side."""
    return items[np.repeat(np.arange(len(counts)), counts)]


def mean_of_copies(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean over the copies of each row; zero of rows that are not there."""
    there = np.flatnonzero(counts)
    means = np.zeros((len(counts), *values.shape[1:]), dtype=values.dtype)
    sums = np.add.reduceat(values, (np.cumsum(counts) - counts)[there], axis=0, dtype=np.float64)
    means[there] = sums / counts[there].reshape(-1, *[1] * (values.ndim - 1))
    return means


def check_item_shape(items: Rows, shape: tuple[int, ...], name: str) -> None:
    """Refuse items of another shape than those of the fit."""
    if items.shape[1:] != shape:
        raise ValueError(f"{name} holds items of shape {items.shape[1:]}, but was fitted on items of shape {shape}.")
