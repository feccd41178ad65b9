"""Which of equally far rows are neighbours: a permutation settles it, another one for each row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._core.rows import mixed_bits
from .._core.types import Array


def row_keys(rows: Array, seed: int) -> Array:
    """A pseudo-random 64-bit number of each row, from its index or from a digest of its values."""
    return mixed_bits(np.asarray(rows).astype(np.uint64) ^ mixed_bits(np.array([seed], dtype=np.uint64)))


def tie_keys(keys: Array, columns: Array) -> Array:
    """The place of each column in the permutation of each row, as 64-bit numbers to sort by."""
    return mixed_bits(keys ^ mixed_bits(columns.astype(np.uint64)))


def k_smallest(distances: Array, columns: Array, k: int, keys_of: Callable[[Array], Array]) -> tuple[Array, Array]:
    """(columns, distances) of the k smallest of each row, by distance, equal ones by column.

    Columns ascend, one row of them for all or each its own. Ties for the last place go by the row's permutation:
    `keys_of` gives the `row_keys` of rows at some positions.
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
