"""Which of equally far rows are neighbours: a permutation settles it, another one for each row."""

import numpy as np

from .._core.rows import mixed_bits


def row_keys(rows, seed):
    """A pseudo-random 64-bit number of each row, from its index or from a digest of its values."""
    return mixed_bits(np.asarray(rows).astype(np.uint64) ^ mixed_bits(np.array([seed], dtype=np.uint64)))


def tie_keys(keys, columns):
    """The place of each column in the permutation of each row, as 64-bit numbers to sort by."""
    return mixed_bits(keys ^ mixed_bits(columns.astype(np.uint64)))


def k_smallest(distances, columns, k, keys_of):
    """The columns of the k smallest distances of each row, ties for the last place by the row's permutation.

    Parameters
    ----------
    distances : ndarray of shape (n, m)
    columns : ndarray of int of shape (m,) or (n, m), ascending
    k : int
    keys_of : callable (positions of rows) -> ndarray of uint64, their `row_keys`

    Returns
    -------
    (ndarray of int, ndarray), each of shape (n, k), by distance, equal ones by column
    """
    n = len(distances)
    limit = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    chosen = distances <= limit
    rows = np.flatnonzero(chosen.sum(axis=1) > k)
    if rows.size:
        near, tied = distances[rows] < limit[rows], distances[rows] == limit[rows]
        numbers = tie_keys(keys_of(rows)[:, None], columns[rows] if columns.ndim > 1 else columns[None])
        numbers = np.where(
            np.isinf(limit[rows]), np.arange(distances.shape[1], dtype=np.uint64), numbers
        )  # no neighbours
        last = k - near.sum(axis=1, keepdims=True) - 1
        bound = np.take_along_axis(np.sort(np.where(tied, numbers, np.iinfo(np.uint64).max), axis=1), last, axis=1)
        chosen[rows] = near | (tied & (numbers <= bound))
    at = np.nonzero(chosen)[1].reshape(n, k)
    d = np.take_along_axis(distances, at, axis=1)
    order = np.argsort(d, axis=1, kind="stable")
    at = np.take_along_axis(at, order, axis=1)
    found = np.take_along_axis(columns, at, axis=1) if columns.ndim > 1 else columns[at]
    return found, np.take_along_axis(d, order, axis=1)
