"""`Conditional`: the value that every supervisory spec returns and every objective reads."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import gen_batches

from .pieces import room
from .types import Array, Rows

_ROWS_AT_ONCE, _ROWS_IN_A_THREAD = 1 << 16, 1 << 13


def rows_of_table(values: Array, columns: Array, n_columns: int) -> sparse.csr_array:
    """Sparse rows of equally many entries, with 32-bit indices where they suffice."""
    narrow = np.int32 if max(values.size, n_columns) <= np.iinfo(np.int32).max else np.int64
    indptr = np.arange(0, values.size + 1, values.shape[1], dtype=narrow)
    return sparse.csr_array(
        (values.ravel(), columns.ravel().astype(narrow, copy=False), indptr), shape=(len(values), n_columns)
    )


def no_positives() -> ValueError:
    """The error where no row is left to learn from."""
    return ValueError(
        "no row has a positive: every p(.|i) is empty, so there is nothing to learn from; check the labels, groups, "
        "counts or graph."
    )


@dataclass(frozen=True, eq=False)
class Conditional:
    """A row-stochastic distribution over keys, sparse plus uniform.

    ::

        p(j|i) = (1 - uniform) * weights[i, j] + uniform / n_choices

    over the keys of row i: all columns, without column i where `exclude_self`. The uniform part is one
    number, so debiasing costs no memory (I-Con, section 3.3).

    Parameters
    ----------
    weights : csr_array of shape (n_rows, n_keys)
        Non-negative; each row sums to one, or to zero for a row that has no positive key. Such a row
        takes no part in any average.
    uniform : float in [0, 1], default=0.0
        Mass spread evenly over all keys of a row.
    exclude_self : bool, default=False
        Whether key i is row i itself and hence no key of row i.
    degrees : ndarray of shape (n_rows,), default=None
        The row sums before they were normalised: a graph's degrees. None: all one.
    recall : float, default=1.0
        The fraction of true neighbours that an approximate search found; 1 where it was exact, or there was none.
    neighbors : Neighbors, default=None
        What a search found, where p lives on the neighbours of rows.
    first : int, default=0
        The key that is row 0 itself, where these are rows of one rank among several.
    weighs_rows : bool, default=False
        Whether rows count in an average as much as their degrees.

    Raises
    ------
    ValueError
        Rows that sum to neither one nor zero, negative weights, weight on an excluded self, a uniform mass
        outside [0, 1].
    """

    weights: sparse.csr_array
    uniform: float = 0.0
    exclude_self: bool = False
    degrees: np.ndarray | None = None
    recall: float = 1.0
    neighbors: Any = None
    first: int = 0
    weighs_rows: bool = False
    _checked: Any = field(default=None, repr=False)  # weights, without a key or not, and sums: of `replace`, not again

    def __post_init__(self) -> None:
        if not 0.0 <= self.uniform <= 1.0:
            raise ValueError(f"uniform must lie in [0, 1], got {self.uniform}.")
        kind = self.exclude_self, self.first
        if self._checked is None or self._checked[0] is not self.weights or self._checked[1] != kind:
            object.__setattr__(self, "_checked", (self.weights, kind, self._checked_sums()))

    def _checked_sums(self) -> np.ndarray:
        """The sums of rows, of weights that are a distribution of each row or nothing."""
        sums = self._row_sums()
        if self.weights.data.size and not self.weights.data.min() >= 0:
            raise ValueError("weights must be non-negative and finite.")
        tolerance = 1e-4 if self.weights.dtype == np.float32 else 1e-8
        if not np.all((np.abs(sums - 1) < tolerance) | (sums == 0)):
            raise ValueError("every row of weights must sum to one, or to zero; see Conditional.from_weights.")
        if self.exclude_self and np.any(self.weights.diagonal(self.first)):
            raise ValueError("weights put mass on a row itself although exclude_self=True.")
        return sums

    @classmethod
    def from_weights(
        cls, weights: Rows, *, uniform: float = 0.0, exclude_self: bool = False, recall: float = 1.0, first: int = 0
    ) -> Conditional:
        """Normalise the rows of any non-negative matrix, dense or sparse; empty rows stay empty."""
        weights = _copied(sparse.csr_array(weights))
        if exclude_self and weights.diagonal(first).any():
            rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
            weights.data[rows + first == weights.indices] = 0
        weights.sum_duplicates()
        weights.eliminate_zeros()
        sums, indptr = np.asarray(weights.sum(axis=1)).ravel(), weights.indptr
        for part in gen_batches(weights.shape[0], _ROWS_AT_ONCE):
            counts = np.diff(indptr[part.start : part.stop + 1])
            weights.data[indptr[part.start] : indptr[part.stop]] /= np.repeat(sums[part], counts)
        if max(weights.nnz, *weights.shape) <= np.iinfo(np.int32).max:  # half the memory, and what scikit-learn accepts
            parts = weights.indices, weights.indptr
            weights.indices, weights.indptr = (part.astype(np.int32, copy=False) for part in parts)
        return cls(weights, uniform, exclude_self, sums, recall, first=first)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_keys)."""
        return self.weights.shape

    @property
    def among_all(self) -> sparse.csr_array:
        """The weights of rows of one rank, by the numbers of these among the rows of all; others are empty."""
        before, after = self.first, self.shape[1] - self.first - self.shape[0]
        indptr = np.pad(self.weights.indptr, (before, after), mode="edge")
        return sparse.csr_array((self.weights.data, self.weights.indices, indptr), shape=(self.shape[1],) * 2)

    @property
    def n_choices(self) -> int:
        """How many keys each row chooses from."""
        return self.weights.shape[1] - self.exclude_self

    @cached_property
    def has_positives(self) -> np.ndarray:
        """Boolean mask of the rows that put mass on some key."""
        return self._checked[2] > 0

    def _row_sums(self) -> np.ndarray:
        sums, indptr = np.zeros(self.weights.shape[0], self.weights.dtype), self.weights.indptr
        filled = np.flatnonzero(indptr[1:] > indptr[:-1])  # as `weights.sum(axis=1)`, which takes three times as long
        if len(filled):
            sums[filled] = np.add.reduceat(self.weights.data, indptr[filled])
        return sums

    def masses(self, weight: np.ndarray) -> np.ndarray:
        """What rows of these weights put on each key, less the uniform mass."""
        of_entries = np.repeat(weight, np.diff(self.weights.indptr)) * self.weights.data
        return np.bincount(self.weights.indices, of_entries, self.weights.shape[1])

    def mix(self, alpha: float) -> Conditional:
        """(1 - alpha) p + alpha / n_choices: the same rows, debiased."""
        return replace(self, uniform=1 - (1 - self.uniform) * (1 - alpha)) if alpha else self

    def with_copies(self, counts: np.ndarray) -> Conditional:
        """p where key j is there counts[j] times, its copies taken together: p(j|i) ~ w_ij counts[j].

        Degrees are those of the graph with copies; the uniform mass stays.
        """
        copies = Conditional.from_weights(
            self.weights * counts, uniform=self.uniform, exclude_self=self.exclude_self, recall=self.recall
        )
        return (
            copies
            if self.degrees is None
            else replace(copies, degrees=self.degrees * copies.degrees, weighs_rows=self.weighs_rows)
        )

    def take(self, rows: np.ndarray) -> Conditional:
        """Some of the rows, in the order given; for keys that are not the rows."""
        return Conditional(self.weights[rows], self.uniform)

    def with_keys(self, numbers: np.ndarray, n_keys: int) -> Conditional:
        """The same over more keys: column k there is column numbers[k] of n_keys; the others have no weight."""
        if self.weights.shape[1] == n_keys:
            return self
        parts = self.weights.data, np.asarray(numbers)[self.weights.indices], self.weights.indptr
        return replace(self, weights=sparse.csr_array(parts, shape=(self.weights.shape[0], n_keys)))

    def unmixed(self) -> Conditional:
        """The same rows without the uniform part."""
        return replace(self, uniform=0.0)

    def toarray(self) -> np.ndarray:
        """The dense (n_rows, n_keys) matrix; rows without positives are zero."""
        dense = (1 - self.uniform) * self.weights.toarray() + self.uniform / max(self.n_choices, 1)
        if self.exclude_self:
            own = np.arange(min(self.shape[0], self.shape[1] - self.first))
            dense[own, own + self.first] = 0
        return dense * self.has_positives[:, None]


def _copied(weights: sparse.csr_array) -> sparse.csr_array:
    """A copy of floating-point numbers, wherever there is room for it; rows of a table have their columns in order."""
    single, n = weights.dtype == np.float32, weights.shape[0]
    data, indices = (
        room((weights.nnz,), np.float32 if single else np.float64),
        room((weights.nnz,), weights.indices.dtype),
    )
    copy = sparse.csr_array((data, indices, weights.indptr.copy()), shape=weights.shape)
    width = weights.nnz // max(n, 1)
    if weights.has_sorted_indices or (np.diff(weights.indptr) != width).any():
        data[:], indices[:] = weights.data, weights.indices
        return copy

    def fill(part: slice) -> None:
        columns, values = (numbers.reshape(n, width)[part] for numbers in (weights.indices, weights.data))
        order = columns.argsort(axis=1)
        indices.reshape(n, width)[part] = np.take_along_axis(columns, order, axis=1)
        data.reshape(n, width)[part] = np.take_along_axis(values, order, axis=1)

    parts = list(gen_batches(n, _ROWS_IN_A_THREAD))
    if len(parts) == 1:
        fill(parts[0])
    else:
        from .team import in_threads

        in_threads(fill, parts)
    return copy


def warn_rows_without_positives(p: Conditional, counted: np.ndarray | bool = True) -> None:
    """One warning where some rows, of those that count, have no positive and are left out; an error where all are."""
    if not (p.has_positives & counted).any():
        raise no_positives()
    warn_left_out(~p.has_positives & counted, stacklevel=4)


def warn_left_out(is_left_out: np.ndarray, stacklevel: int = 3) -> None:
    """One warning where rows are left out."""
    missing = np.flatnonzero(is_left_out)
    if len(missing):
        warnings.warn(
            f"{len(missing)} of {len(is_left_out)} rows have no positive under p and are left out of the average; "
            f"the first are {missing[:5].tolist()}.",
            UserWarning,
            stacklevel=stacklevel,
        )


def view_conditional(n_items: int, n_views: int) -> Conditional:
    """p of views, draw after draw: uniform over the other views of the same item."""
    n = n_views * n_items
    rows = np.arange(n)
    others = (rows[:, None] + n_items * np.arange(1, n_views)) % n
    weights = np.full(others.size, 1 / (n_views - 1))
    indptr = (n_views - 1) * np.arange(n + 1)
    return Conditional(sparse.csr_array((weights, others.ravel(), indptr), shape=(n, n)), exclude_self=True)
