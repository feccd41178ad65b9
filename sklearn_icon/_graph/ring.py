"""Exact neighbours of the rows of several ranks: each pair of rows is compared by one of the ranks that hold them.

Those of very many rows are searched in cells; see `cells`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from joblib import effective_n_jobs
from scipy import sparse

from .._core.group import group
from .._core.pieces import at_once, slices
from .._core.rows import row_digests
from .._core.types import Array, Jobs
from .exact import copies
from .search import TREE_FEATURES, Neighbors, is_short, search
from .space import Space
from .ties import k_smallest, row_keys

_ROWS_AT_ONCE, _NUMBERS_AT_ONCE = 4096, 1 << 24
_MUTUAL_PAIRS = 5e7  # of rows of two ranks, compared for both at once: fewer take less time than loading compiled loops


def ring_neighbors(space: Space, k: int, n_jobs: Jobs) -> Neighbors:
    """The k nearest of the rows of all ranks for those of this one: what one process finds, ties included.

    Where each rank would compare more pairs than one process does in an exact search, rows are searched in `cells`.
    Else, of two ranks one sends its rows to the other, which finds the nearest of both among each other and sends back
    what is of these; two that are opposite in the ring do half of it each. Held at a time are the rows of another rank,
    the k nearest of each row, and a digest of every row.
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
    if rows.shape[1] > TREE_FEATURES and not is_short(n / ranks.size**0.5, rows.shape[1]):
        from .cells import cell_neighbors

        found = cell_neighbors(space, k, n_jobs)
        if found is not None:
            return found
    return _ring(space, k, n_jobs)


def _ring(space: Space, k: int, n_jobs: Jobs) -> Neighbors:
    """All pairs of rows of all ranks."""
    ranks, rows = group(), space.X
    squared = replace(space, root=np.positive, unit=1.0, dtype=np.float64, first_row=ranks.first)
    nearest = Nearest(squared, k)
    if len(rows) > 1:
        visit = replace(squared, own=True, first_key=ranks.first)
        found, n_known = search(visit, min(k, len(rows) - 1), n_jobs, 0), min(k, len(rows) - 1)
        nearest.indices[:, :n_known], nearest.sq[:, :n_known] = found.indices, found.distances
        del found
    shards = [_Shard(rank, *shard) for rank, shard in enumerate(ranks.objects((ranks.first, len(rows)), "a ring"))]
    for by in range(1, ranks.size // 2 + 1):
        _visit(nearest, shards, by, n_jobs)
    rest, copied = copies(ranks.gathered(row_digests(rows)), space.seed, k, np.arange(len(rows)) + ranks.first)
    nearest.indices[~rest], nearest.sq[~rest] = copied[~rest], 0
    return Neighbors(nearest.indices, space.finished(nearest.sq), exact=True)


def neighbors_in_blocks(space: Space, k: int, n_jobs: Jobs, n_at_once: int) -> Neighbors:
    """The k nearest of dense rows among each other, of which two blocks are in memory at a time, each pair once."""
    n = len(space.X)
    squared = replace(space, root=np.positive, unit=1.0, dtype=np.float64, first_row=0)
    n_blocks = int(np.clip(-(-n // max(n_at_once, 1)), 1, max(1, n // (k + 1))))  # of more rows than neighbours
    nearest, cuts = Nearest(squared, k), np.linspace(0, n, n_blocks + 1).astype(int)
    blocks = [slice(int(first), int(last)) for first, last in pairwise(cuts)]
    for block in blocks:
        rows, n_known = np.array(space.X[block]), min(k, block.stop - block.start - 1)
        visit = replace(squared, X=rows, reference=rows, first_row=block.start, first_key=block.start)
        found = search(visit, n_known, n_jobs, 0)
        nearest.indices[block, :n_known], nearest.sq[block, :n_known] = found.indices, found.distances
        del found
    for number, block in enumerate(blocks):
        rows = np.array(space.X[block])
        for other in blocks[number + 1 :]:
            firsts = block.start, other.start
            spaces = _facing(squared, rows, np.array(space.X[other]), firsts)
            farthest = nearest.sq[block, -1].copy(), nearest.sq[other, -1].copy()
            takes = (partial(_from, start, nearest.take) for start in firsts)
            _find(spaces, k, farthest, tuple(takes), n_jobs, n**2)
            del spaces
    rest, copied = copies(row_digests(space.X), space.seed, k, np.arange(n))
    nearest.indices[~rest], nearest.sq[~rest] = copied[~rest], 0
    return Neighbors(nearest.indices, space.finished(nearest.sq), exact=True)


def _from(start: int, take: Callable, first: int, *found: Array) -> None:
    """Tell of rows that are numbered from a start on."""
    take(start + first, *found)


def _facing(space: Space, rows: Array, others: Array, firsts: tuple[int, int]) -> tuple[Space, Space]:
    """Spaces of rows among others, and of these among the rows, from the numbers of the first of each on."""
    one = replace(space, X=rows, reference=others, own=False, first_row=firsts[0], first_key=firsts[1])
    return one, replace(one, X=others, reference=rows, first_row=firsts[1], first_key=firsts[0])


class _Shard(NamedTuple):
    """Where the rows of a rank are among those of all."""

    rank: int
    first: int
    n: int


def scanned(space: Space, k: int, rows: Array, numbers: Array, n_jobs: Jobs) -> tuple[Array, Array]:
    """(indices, squared distances) of the k nearest of some rows, by their numbers, among all others of all ranks.

    Rows that are searched are read once, by blocks.
    """
    ranks, X = group(), space.X
    some = replace(space, root=np.positive, unit=1.0, dtype=np.float64, own=False, first_row=0, X=rows)
    nearest, parts = Nearest(some, k + 1), slices(len(X), max(1, at_once(_NUMBERS_AT_ONCE) // X.shape[1]))
    for part in parts:
        visit = replace(some, reference=np.array(X[part]), first_key=ranks.first + part.start)
        keys, sq = search(visit, min(k + 1, len(visit.reference)), n_jobs, 0)[:2]
        nearest.take(0, np.full(len(rows), keys.shape[1]), keys.ravel(), sq.ravel())
    if ranks.several:
        of_ranks = [ranks.gathered(found[None]) for found in (nearest.indices, nearest.sq)]
        nearest = Nearest(some, k + 1)
        for keys, sq in zip(*of_ranks, strict=True):
            nearest.take(0, np.full(len(rows), k + 1), keys.ravel(), sq.ravel())
    others = nearest.indices != numbers[:, None]
    others[others.all(axis=1), -1] = False
    return nearest.indices[others].reshape(-1, k), nearest.sq[others].reshape(-1, k)


class Nearest:
    """The nearest so far of each row of this rank, with squared distances, infinite ones of none."""

    def __init__(self, space: Space, k: int) -> None:
        self.space, self.k = space, k
        self.indices = np.full((len(space.X), k), -1, dtype=np.intp)
        self.sq = np.full((len(space.X), k), np.inf)

    def take(self, first: int, counts: Array, keys: Array, sq: Array) -> None:
        """Keep the nearest of what is known and of what was found of some rows from a first one on."""
        ends = np.concatenate([[0], np.cumsum(counts)])
        for start in range(0, len(counts), _ROWS_AT_ONCE):
            of_rows = ends[start : start + _ROWS_AT_ONCE + 1]
            part = slice(first + start, first + start + len(of_rows) - 1)
            found = slice(of_rows[0], of_rows[-1])
            self._take(part, of_rows - of_rows[0], keys[found], sq[found])

    def _take(self, part: slice, ends: Array, keys: Array, sq: Array) -> None:
        of_rows = row_keys(np.arange(part.start, part.stop) + (self.space.first_row or 0), self.space.seed)
        if self.space.compiled:
            from .mutual import keep_nearer

            keep_nearer(self.indices[part], self.sq[part], of_rows, ends, keys, sq)
            return
        there = np.arange(np.diff(ends).max(initial=0)) < np.diff(ends)[:, None]
        more, of_more = np.full(there.shape, -1), np.full(there.shape, np.inf)
        more[there], of_more[there] = keys, sq
        columns = np.hstack([self.indices[part], more])
        order = np.argsort(columns, axis=1)
        both = np.take_along_axis(np.hstack([self.sq[part], of_more]), order, axis=1)
        columns = np.take_along_axis(columns, order, axis=1)
        self.indices[part], self.sq[part] = k_smallest(both, columns, self.k, lambda at: of_rows[at])


class _Returned:
    """What is found of the rows of another rank."""

    def __init__(self, n: int) -> None:
        self.blocks: dict[int, tuple[Array, Array]] = {}
        self.kind = np.dtype([("key", np.int32 if n < 2**31 else np.int64), ("sq", np.float64)])

    def take(self, first: int, counts: Array, keys: Array, sq: Array) -> None:
        """Keep it."""
        edges = np.empty(len(keys), dtype=self.kind)
        edges["key"], edges["sq"] = keys, sq
        self.blocks[first] = counts, edges

    def of_all(self) -> tuple[Array, Array]:
        """(how many are of each row, all of them)."""
        blocks = [self.blocks.pop(first) for first in sorted(self.blocks)]
        none = [(np.empty(0, dtype=np.intp), np.empty(0, dtype=self.kind))]
        counts, edges = zip(*(blocks or none), strict=True)
        return np.concatenate(counts), np.concatenate(edges)


def _visit(nearest: Nearest, shards: list[_Shard], by: int, n_jobs: Jobs) -> None:
    """Find the neighbours among the rows of this rank and of that which is so many before, of both; hear of another."""
    ranks, space, k = group(), nearest.space, nearest.k
    here, guest, host = (shards[(ranks.rank + step) % len(shards)] for step in (0, -by, by))
    (own, others), (_, sent) = _compared(here, guest, by, len(shards)), _compared(host, here, by, len(shards))
    visitors = ranks.turned(space.X[sent], by)
    farthest = ranks.turned(nearest.sq[sent, -1], by)
    returned = _Returned(sum(shard.n for shard in shards))
    if len(visitors) and own.stop > own.start:
        firsts = here.first + own.start, guest.first + others.start
        takes = partial(_from, own.start, nearest.take), returned.take
        known = nearest.sq[own, -1].copy(), farthest
        spaces = _facing(space, space.X[own], visitors, firsts)
        _find(spaces, k, known, takes, n_jobs, len(visitors) * (own.stop - own.start))
        del spaces
    del visitors
    counts, edges = (ranks.turned(part, -by) for part in returned.of_all())
    nearest.take(sent.start, counts, edges["key"], edges["sq"])


def _compared(host: _Shard, guest: _Shard, by: int, n_ranks: int) -> tuple[slice, slice]:
    """Rows of the host and of the guest that are compared by the host; two that are each other's hosts share them."""
    half = (host if host.rank < guest.rank else guest).n // 2 if 2 * by == n_ranks else 0
    if not half:
        nothing = 2 * by == n_ranks and host.rank < guest.rank  # a lone row is compared by the other
        return slice(0, 0 if nothing else host.n), slice(0, guest.n)
    if host.rank < guest.rank:
        return slice(0, half), slice(0, guest.n)
    return slice(0, host.n), slice(half, guest.n)


def _find(
    spaces: tuple[Space, Space], k: int, farthest: tuple[Array, Array], takes: tuple, n_jobs: Jobs, n_pairs: int
) -> None:
    """Tell takes the nearest of rows among others, and of these among the rows; so many pairs are compared in all."""
    known = all(np.isfinite(part).all() for part in farthest)
    if known and spaces[0].X.shape[1] > TREE_FEATURES and n_pairs >= _MUTUAL_PAIRS:
        from .._core.team import n_threads
        from .mutual import nearest_of_both

        nearest_of_both(spaces, k, farthest, takes, n_threads() if n_jobs is None else effective_n_jobs(n_jobs))
        return
    for one, most, take in zip(spaces, farthest, takes, strict=True):
        keys, sq = search(one, min(k, len(one.reference)), n_jobs, 0)[:2]
        near = sq <= most[:, None]
        take(0, near.sum(axis=1), keys[near], sq[near])
