"""Sparse rows of many edges, by compiled loops in threads and without arrays of their ends: the bits of scipy's."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from .._core.compiled import njit
from .._core.pieces import room
from .._core.team import Team
from .._core.types import Array


def mean_with_transpose(weights: sparse.csr_array, row_mass: Array) -> sparse.csr_array:
    """(m_i w_ij + m_j w_ji) / 2 of square weights whose rows are in order."""
    return sum_with_turned(weights, _transposed(weights, Team()), row_mass / 2, row_mass.dtype)


def sum_with_turned(
    weights: sparse.csr_array, turned: sparse.csr_array, factor: Array, dtype: np.dtype
) -> sparse.csr_array:
    """f_i w_ij + f_j t_ij, t_ij being the w_ji of another rank where there are several; rows of both are in order."""
    team, n = Team(), weights.shape[0]
    ends = weights.indptr, weights.indices, turned.indptr, turned.indices
    counts, parts = np.zeros(n + 1, dtype=np.int64), team.split(n)
    team.run(_count, [(*ends, part.start, part.stop, counts) for part in parts])
    indptr = np.cumsum(counts)
    narrow = np.int32 if max(indptr[-1], weights.shape[1]) <= np.iinfo(np.int32).max else np.int64
    indptr = indptr.astype(narrow)
    indices, data = room((int(indptr[-1]),), narrow), room((int(indptr[-1]),), dtype)
    values, out = (weights.data, turned.data, factor), (indptr, indices, data)
    team.run(_join, [(*ends, values, out, part.start, part.stop) for part in parts])
    joined = sparse.csr_array((data, indices, indptr), shape=weights.shape)
    if not data.all():  # of products too small for a number
        joined.eliminate_zeros()
    return joined


def edges_to(weights: sparse.csr_array, first: int, last: int) -> Array:
    """(row, key, weight) of the edges whose keys are from a first one to before a last, turned: each is a row then."""
    ends = weights.indptr, weights.indices, first, last
    part = np.empty(_count_to(*ends), dtype=[("row", np.int32), ("key", np.int32), ("weight", weights.dtype)])
    _fill_to(*ends, weights.data, part["row"], part["key"], part["weight"])
    return part


def turned_rows(parts: list[Array], firsts: Array, shape: tuple[int, int]) -> sparse.csr_array:
    """Rows from what `edges_to` gives of all ranks, in their order, which begin at some keys; takes the parts away."""
    kind = np.int32 if max(sum(map(len, parts)), *shape) <= np.iinfo(np.int32).max else np.int64
    indptr = np.zeros(shape[0] + 1, dtype=kind)
    for part in parts:
        _count_rows(part["row"], indptr)
    np.cumsum(indptr, out=indptr)
    at, indices, data = indptr[:-1].copy(), np.empty(indptr[-1], kind), np.empty(indptr[-1], parts[0]["weight"].dtype)
    for first in firsts:
        part = parts.pop(0)
        _fill_rows(part["row"], part["key"], part["weight"], first, at, indices, data)
    return sparse.csr_array((data, indices, indptr), shape=shape)


def summed_here(rows: sparse.csr_array, first: int) -> sparse.csr_array:
    """The symmetric matrix of pairs that a rank sums over: those of its rows, and every other one that it shares."""
    n, edges = rows.shape[1], (rows.indptr, rows.indices, first, rows.data)
    indptr = np.zeros(n + 1, dtype=np.int64)
    _enter_here(*edges, indptr[1:], rows.indices[:0], rows.data[:0])
    np.cumsum(indptr, out=indptr)
    narrow = np.int32 if max(indptr[-1], n) <= np.iinfo(np.int32).max else np.int64
    indices, data = np.empty(indptr[-1], narrow), np.empty(indptr[-1], rows.dtype)
    _enter_here(*edges, indptr[:-1].copy(), indices, data)
    return sparse.csr_array((data, indices, indptr.astype(narrow)), shape=(n, n))


def _transposed(weights: sparse.csr_array, team: Team) -> sparse.csr_array:
    """Of square weights: each thread enters the columns of its rows after those of the threads before it."""
    n, parts = weights.shape[0], team.split_by_weight(np.diff(weights.indptr))
    at = np.zeros((len(parts), n + 1), dtype=weights.indptr.dtype)
    own = [(weights.indptr, weights.indices, part.start, part.stop) for part in parts]
    team.run(_count_columns, [(*rows, counts) for rows, counts in zip(own, at, strict=True)])
    before = np.cumsum(at[:, :n], axis=0)
    indptr = np.concatenate([at[:1, n], np.cumsum(before[-1])], dtype=at.dtype)
    at[0, :n] = indptr[:n]
    at[1:, :n] = indptr[:n] + before[:-1]
    indices, data = room((weights.nnz,), weights.indices.dtype), room((weights.nnz,), weights.data.dtype)
    team.run(_turn, [(*rows, weights.data, starts, indices, data) for rows, starts in zip(own, at, strict=True)])
    return sparse.csr_array((data, indices, indptr), shape=weights.shape)


def each_pair_once(weights: sparse.csr_array, order: Array, dtype: np.dtype) -> tuple[Array, Array, Array]:
    """(indptr, indices, data) of the upper half of symmetric weights, row and column a being row order[a] of theirs."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order), dtype=order.dtype)
    indptr = np.zeros(len(order) + 1, dtype=weights.indptr.dtype)
    _count_upper(weights.indptr, weights.indices, order, rank, indptr)
    np.cumsum(indptr, out=indptr)
    indices, data = room((int(indptr[-1]),), weights.indices.dtype), room((int(indptr[-1]),), dtype)
    _fill_upper(weights.indptr, weights.indices, weights.data, order, rank, indptr[:-1].copy(), indices, data)
    return indptr, indices, data


@njit(nogil=True)
def _count_columns(indptr: Array, indices: Array, first: int, last: int, counts: Array) -> None:
    """counts[j] = entries of rows in column j."""
    for e in range(indptr[first], indptr[last]):
        counts[indices[e]] += 1


@njit(nogil=True)
def _turn(
    indptr: Array, indices: Array, first: int, last: int, values: Array, at: Array, rows: Array, turned: Array
) -> None:
    """Enter each entry of rows at its column, which begins at `at`."""
    for i in range(first, last):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            rows[at[j]], turned[at[j]] = i, values[e]
            at[j] += 1


@njit(nogil=True)
def _count(
    indptr: Array, indices: Array, of_indptr: Array, of_indices: Array, first: int, last: int, counts: Array
) -> None:
    """counts[i + 1] = entries of row i of a matrix or of another, rows in order."""
    for i in range(first, last):
        a, b, end, of_end = indptr[i], of_indptr[i], indptr[i + 1], of_indptr[i + 1]
        both = 0
        while a < end and b < of_end:
            both += indices[a] == of_indices[b]
            a, b = a + (indices[a] <= of_indices[b]), b + (indices[a] >= of_indices[b])
        counts[i + 1] = end - indptr[i] + of_end - of_indptr[i] - both


@njit(nogil=True)
def _join(
    indptr: Array,
    indices: Array,
    of_indptr: Array,
    of_indices: Array,
    values: tuple,
    out: tuple,
    first: int,
    last: int,
) -> None:
    """Rows of a matrix and its transpose, each entry times the factor of the row that it is of, added."""
    (data, turned, factor), (out_indptr, out_indices, out_data) = values, out
    for i in range(first, last):
        a, b, end, of_end = indptr[i], of_indptr[i], indptr[i + 1], of_indptr[i + 1]
        for at in range(out_indptr[i], out_indptr[i + 1]):
            own = a < end and (b == of_end or indices[a] <= of_indices[b])
            other = b < of_end and (a == end or of_indices[b] <= indices[a])
            value, j = 0.0, 0
            if own:
                value, j = data[a] * factor[i], indices[a]
            if other:
                j = of_indices[b]
                value += turned[b] * factor[j]
            out_indices[at], out_data[at] = j, value
            a, b = a + own, b + other


@njit(nogil=True)
def _count_upper(indptr: Array, indices: Array, order: Array, rank: Array, counts: Array) -> None:
    """counts[a + 1] = entries of row a, in the new order, that lie right of the diagonal."""
    for a in range(len(order)):
        for e in range(indptr[order[a]], indptr[order[a] + 1]):
            counts[a + 1] += rank[indices[e]] > a


@njit(nogil=True)
def _fill_upper(
    indptr: Array, indices: Array, data: Array, order: Array, rank: Array, at: Array, columns: Array, values: Array
) -> None:
    """Enter columns one after the other, so that each row's are in order; `at` is where those of each row begin."""
    for b in range(len(order)):
        for e in range(indptr[order[b]], indptr[order[b] + 1]):
            a = rank[indices[e]]
            if a < b:
                columns[at[a]], values[at[a]] = b, data[e]
                at[a] += 1


@njit(nogil=True)
def _count_to(indptr: Array, indices: Array, first: int, last: int) -> int:
    """How many entries lie in some columns."""
    count = 0
    for e in range(indptr[-1]):
        count += first <= indices[e] < last
    return count


@njit(nogil=True)
def _fill_to(
    indptr: Array, indices: Array, first: int, last: int, data: Array, rows: Array, keys: Array, weights: Array
) -> None:
    """The entries that lie in some columns, turned."""
    at = 0
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            if first <= indices[e] < last:
                rows[at], keys[at], weights[at] = indices[e] - first, i, data[e]
                at += 1


@njit(nogil=True)
def _count_rows(rows: Array, counts: Array) -> None:
    """counts[i + 1] += edges of row i."""
    for e in range(len(rows)):
        counts[rows[e] + 1] += 1


@njit(nogil=True)
def _fill_rows(rows: Array, keys: Array, weights: Array, first: int, at: Array, columns: Array, values: Array) -> None:
    """Enter edges at their rows, whose next entries are `at`."""
    for e in range(len(rows)):
        i = rows[e]
        columns[at[i]], values[at[i]] = keys[e] + first, weights[e]
        at[i] += 1


@njit(nogil=True)
def _enter_here(
    indptr: Array, indices: Array, first: int, data: Array, at: Array, columns: Array, values: Array
) -> None:
    """Enter the pairs that are summed here at both of their rows, whose next entries are `at`; without room, count."""
    last = first + len(indptr) - 1
    for i in range(first, last):
        for e in range(indptr[i - first], indptr[i - first + 1]):
            j = indices[e]
            inside = first <= j < last
            if inside or (i < j) == ((i + j) % 2 == 0):  # of two ranks one sums over a pair
                if len(columns):
                    columns[at[i]], values[at[i]] = j, data[e]
                at[i] += 1
                if not inside:
                    if len(columns):
                        columns[at[j]], values[at[j]] = i, data[e]
                    at[j] += 1
