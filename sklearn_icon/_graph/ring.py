"""Exact neighbours of the rows of several ranks: shards go round, each row keeps its nearest so far."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from scipy import sparse

from .._core.group import group
from .._core.rows import row_digests
from .._core.types import Array, Jobs
from .neighbors import Neighbors, _search, copies
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
    indices, sq = np.empty((rows.shape[0], 0), dtype=np.intp), np.empty((rows.shape[0], 0))
    for first, shard in ranks.visitors(rows):
        own = first == ranks.first
        visit = replace(squared, reference=rows if own else shard, own=own, first_key=first)
        found = _search(visit, min(k, len(shard) - own), n_jobs, 0)
        indices, sq = _nearest_of_both((indices, sq), (found.indices, found.distances), k, squared)
        del visit, shard, found
    rest, copied = copies(ranks.gathered(row_digests(rows)), space.seed, k, np.arange(len(rows)) + ranks.first)
    indices[~rest], sq[~rest] = copied[~rest], 0
    return Neighbors(indices, space.finished(sq), exact=True)


def _nearest_of_both(one: tuple[Array, Array], other: tuple[Array, Array], k: int, space: Space) -> tuple[Array, Array]:
    """(numbers, squared distances) of the k nearest of two lists of each row, or of as many as there are."""
    k, parts = min(k, one[0].shape[1] + other[0].shape[1]), []
    for start in range(0, len(one[0]), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        columns, sq = (np.hstack([left[part], right[part]]) for left, right in zip(one, other, strict=True))
        order = np.argsort(columns, axis=1)
        columns, sq = np.take_along_axis(columns, order, axis=1), np.take_along_axis(sq, order, axis=1)
        parts.append(k_smallest(sq, columns, k, partial(_keys_at, start, space)))
    indices, distances = zip(*parts, strict=True)
    return np.concatenate(indices), np.concatenate(distances)


def _keys_at(start: int, space: Space, at: Array) -> Array:
    """What settles ties of the rows at some positions from a start on."""
    return row_keys(at + start + (space.first_row or 0), space.seed)
