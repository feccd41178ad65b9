"""Exact neighbours of the rows of several ranks: shards go round, each row keeps its nearest so far."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from scipy import sparse

from .._core.group import group
from .._core.rows import row_digests
from .._core.types import Array, Jobs
from .exact import copies
from .search import Neighbors, search
from .space import Space
from .ties import k_smallest, row_keys

_ROWS_AT_ONCE = 4096


def ring_neighbors(space: Space, k: int, n_jobs: Jobs) -> Neighbors:
    """The k nearest of the rows of all ranks for those of this one: what one process finds, ties included.

    Each shard is searched as one process searches among other rows, n^2 / R pairs a rank; a shard and the k nearest of
    each row are held at a time, and a digest of every row.
    """
    ranks, rows = group(), space.X
    n = ranks.total(rows.shape[0])
    if sparse.issparse(rows) or not space.root:
        what = "X is sparse" if sparse.issparse(rows) else f"metric={space.metric!r}"
        raise ValueError(
            f"{what}, of which neighbours are not searched over ranks; use dense rows and metric='euclidean', "
            "'sqeuclidean' or 'cosine', or fit on one process."
        )
    if not 1 <= k <= n - 1:
        raise ValueError(f"n_neighbors={k!r} must be an integer from 1 to n - 1 = {n - 1}")
    squared = replace(space, root=np.positive, unit=1.0, dtype=np.float64, first_row=ranks.first)
    indices, sq = np.empty((rows.shape[0], k), dtype=np.intp), np.empty((rows.shape[0], k))
    n_found = 0
    for first, shard in ranks.visitors(rows):
        own = first == ranks.first
        visit = replace(squared, reference=rows if own else shard, own=own, first_key=first)
        found = search(visit, min(k, len(shard) - own), n_jobs, 0)
        del visit, shard
        n_found = _keep_nearest(indices, sq, n_found, found, squared)
        del found
    rest, copied = copies(ranks.gathered(row_digests(rows)), space.seed, k, np.arange(len(rows)) + ranks.first)
    indices[~rest], sq[~rest] = copied[~rest], 0
    return Neighbors(indices, space.finished(sq), exact=True)


def _keep_nearest(indices: Array, sq: Array, n_found: int, found: Neighbors, space: Space) -> int:
    """How many neighbours of each row are known, of those that are wanted: its first columns and those of a visit."""
    n_new = min(indices.shape[1], n_found + found.indices.shape[1])
    for start in range(0, len(indices), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        columns = np.hstack([indices[part, :n_found], found.indices[part]])
        order = np.argsort(columns, axis=1)
        both = np.take_along_axis(np.hstack([sq[part, :n_found], found.distances[part]]), order, axis=1)
        columns = np.take_along_axis(columns, order, axis=1)
        nearest = k_smallest(both, columns, n_new, partial(_keys_at, start, space))
        indices[part, :n_new], sq[part, :n_new] = nearest
    return n_new


def _keys_at(start: int, space: Space, at: Array) -> Array:
    """What settles ties of the rows at some positions from a start on."""
    return row_keys(at + start + (space.first_row or 0), space.seed)
