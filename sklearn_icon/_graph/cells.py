"""Neighbours among very many rows of several ranks: in the cells of a partition that ranks share.

Each cell is of one rank, to which its rows are sent. Rows of a cell go in turn to the ranks that have some of the cells
nearest to it, are compared with the rows of these, and what is found comes back; in the end it goes to the ranks that
the rows came from. How many cells are near follows from the neighbours of some rows, which all ranks search among all
of theirs; so does the recall that is told.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from joblib import effective_n_jobs

from .._core.group import group
from .._core.pools import blas_in_one_thread
from .._core.rows import row_digests
from .._core.team import n_threads
from .._core.types import Array, Jobs
from .brute_force import _Rows, _settle
from .exact import SPARE, copies, in_blocks, rank
from .partition import (
    Partition,
    by_cell,
    cells_needed,
    cells_of,
    centres_of,
    in_runs,
    is_usual,
    meet,
    nearest_cells,
    sampled,
)
from .proposals import SAMPLE, NearZero
from .ring import Nearest, scanned
from .search import Neighbors
from .space import Space


def cell_neighbors(space: Space, k: int, n_jobs: Jobs) -> Neighbors | None:
    """Most of the k nearest of the rows of all ranks for those of this one; None where most rows would meet most."""
    ranks, n, own = group(), group().total(len(space.X)), len(space.X)
    judged = np.linspace(0, n - 1, min(n, 2 * SAMPLE), dtype=np.intp)
    known, sq_known = _exactly(space, k, _of_this_rank(judged, own), n_jobs)
    near, cells = _partition(space, n)
    n_cells = ranks.objects(cells_needed(cells.all, judged[1::2], known[1::2]), "near cells")[0]
    if n_cells is None:
        return None
    indices, sq = _searched(space, k, near, cells, n_cells, n_jobs)
    few, copied = copies(ranks.gathered(row_digests(space.X)), space.seed, k, np.arange(own) + ranks.first)
    indices[~few], sq[~few] = copied[~few], 0
    missing = np.flatnonzero(np.isinf(sq[:, -1]))
    found = _exactly(space, k, missing, n_jobs)
    before = ranks.first_of(len(missing))[0]
    indices[missing], sq[missing] = (part[before : before + len(missing)] for part in found)
    farthest = np.full(n, np.nan)
    farthest[judged] = sq_known[:, -1]
    rows = _of_this_rank(judged[::2], own)
    within = sq[rows] <= farthest[rows + ranks.first, None] * (1 + 64 * np.finfo(space.dtype).eps)
    recall = ranks.total(float(within.sum())) / (k * len(judged[::2]))
    return Neighbors(indices, space.finished(sq), exact=False, recall=recall)


def _of_this_rank(numbers: Array, n: int) -> Array:
    """Those of rows of this rank, as it numbers them, which has n."""
    own = numbers - group().first
    return own[(own >= 0) & (own < n)]


def _exactly(space: Space, k: int, rows: Array, n_jobs: Jobs) -> tuple[Array, Array]:
    """(indices, squared distances) of some rows of each rank, for those of all ranks, by comparison with all rows."""
    ranks = group()
    some, numbers = ranks.gathered(space.X[rows]), ranks.gathered(rows + ranks.first)
    return scanned(space, k, some, numbers, n_jobs) if len(some) else (np.empty((0, k), np.intp), np.empty((0, k)))


class _Cells(NamedTuple):
    """The partition of all rows, the cells of the rows of this rank, and the rank that each cell is of."""

    all: Partition
    own: Array
    owner: Array


def _partition(space: Space, n: int) -> tuple[NearZero, _Cells]:
    """(rows about their centre in single precision, cells), from a sample of all; ranks have cells side by side."""
    ranks, X, rng = group(), space.X, np.random.RandomState(space.seed)
    near = NearZero(replace(space, reference=ranks.gathered(X[:: max(1, n // 1024)])))
    some = near.of(X[_of_this_rank(sampled(n, rng), len(X))])
    sample, shared = ranks.to_first(some[is_usual(some)]), None
    if sample is not None:
        centres = centres_of(sample, n, rng)
        direction = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)[2][0]
        shared = centres, np.argsort(centres @ direction)
    centres, line = ranks.objects(shared, "cells")[0]
    own = np.concatenate([cells_of(near.of(part), centres) for part in np.array_split(X, len(X) // 65_536 + 1)])
    of_all = ranks.gathered(own.astype(np.int32))
    sizes = np.bincount(of_all, minlength=len(centres))
    owner = np.empty(len(centres), dtype=np.intp)
    owner[line] = (np.cumsum(sizes[line]) - sizes[line] / 2) * ranks.size // n
    starts = np.append(0, np.cumsum(sizes))
    return near, _Cells(Partition(np.empty(0), starts, of_all, nearest_cells(centres)), own, owner)


def _searched(space: Space, k: int, near: NearZero, cells: _Cells, n_cells: int, n_jobs: Jobs) -> tuple[Array, Array]:
    """(indices, squared distances) of the rows of this rank, found by the ranks of their cells."""
    ranks, width = group(), space.X.shape[1]
    to = cells.owner[cells.own]
    order = np.lexsort((cells.own, to))
    cuts = [slice(a, b) for a, b in pairwise(np.searchsorted(to[order], np.arange(ranks.size + 1)))]
    rows = ranks.swapped([space.X[order[cut]].ravel() for cut in cuts])
    counts = [len(part) // width for part in rows]
    named = [
        ranks.swapped([part[order[cut]] for cut in cuts]) for part in (cells.own, np.arange(len(to)) + ranks.first)
    ]
    of_cells, numbers = (np.concatenate(parts) for parts in named)
    sort = np.argsort(of_cells, kind="stable")
    here = np.concatenate(rows).reshape(-1, width)[sort]
    del rows
    host = _Host(replace(space, X=here, reference=here), k, near, cells, n_cells, of_cells[sort], numbers[sort])
    nearest = host.search(n_threads() if n_jobs is None else effective_n_jobs(n_jobs))
    found, back = [], np.cumsum([0, *counts])
    for part in (nearest.indices, nearest.sq):
        as_they_came = np.empty_like(part)
        as_they_came[sort] = part
        parts = ranks.swapped([as_they_came[a:b].ravel() for a, b in pairwise(back)])
        whole = np.empty((len(to), k), dtype=part.dtype)
        whole[order] = np.concatenate(parts).reshape(-1, k)
        found.append(whole)
    return found[0], found[1]


class _Host:
    """The rows of the cells of this rank, by cell, with their numbers; others visit them."""

    def __init__(
        self, space: Space, k: int, near: NearZero, cells: _Cells, n_cells: int, cell: Array, numbers: Array
    ) -> None:
        self.k, self.near, self.cell, self.numbers, self.owner = k, near, cell, numbers, cells.owner
        self.space = replace(space, root=np.positive, unit=1.0, dtype=np.float64, first_row=0)
        self.near_cells = cells.all.near[:, :n_cells]
        self.starts, self.order = in_runs(cell, len(self.owner))
        self.reference = by_cell(near.of(space.X), self.order)

    def search(self, n_jobs: int) -> Nearest:
        """The nearest of the rows, by numbers of all, from what this rank and the others find."""
        ranks, nearest, X = group(), Nearest(self.space, self.k), self.space.X
        for by in range(ranks.size):
            goes = (self.owner[self.near_cells] == (ranks.rank + by) % ranks.size).any(axis=1)[self.cell]
            leaving = X[goes], self.cell[goes], nearest.sq[goes, -1]
            visitors = [ranks.turned(part, by) for part in leaving] if by else leaving
            rows, cell, farthest = visitors
            found = self._compared(rows, cell, farthest, by == 0, n_jobs)
            counts, keys, sq = (ranks.turned(part, -by) for part in found) if by else found
            of_all = np.zeros(len(X), dtype=np.intp)
            of_all[goes] = counts
            nearest.take(0, of_all, keys, sq)
        return nearest

    def _compared(self, X: Array, cell: Array, farthest: Array, own: bool, n_jobs: int) -> tuple[Array, Array, Array]:
        """(how many were found of each visitor, numbers of what was found, squared distances)."""
        starts, order = in_runs(cell, len(self.owner))
        n_candidates = min(self.k + own + SPARE, len(self.numbers))
        if not len(X) or n_candidates < 1:
            return np.zeros(len(X), dtype=np.intp), np.empty(0, dtype=np.intp), np.empty(0)
        rows = _Rows(self.reference if own else by_cell(self.near.of(X), order), n_candidates)
        there = [c for c in range(len(self.owner)) if starts[c] < starts[c + 1]]
        others = [
            [slice(*self.starts[j : j + 2]) for j in self.near_cells[c] if np.ptp(self.starts[j : j + 2])]
            for c in there
        ]
        with blas_in_one_thread(), ThreadPoolExecutor(n_jobs) as pool:
            list(pool.map(partial(meet, rows, self.reference), [slice(*starts[c : c + 2]) for c in there], others))
        _settle(rows.sq_limit, rows.count, rows.sq, rows.keys, n_candidates)
        kept = order >= 0
        found = rows.keys[kept, :n_candidates]
        candidates = np.empty_like(found)
        candidates[order[kept]] = np.where(found < 0, -1, self.order[found])
        visit = replace(self.space, X=X, own=own, first_row=None)
        k = min(self.k, n_candidates)
        indices, sq, _ = in_blocks(
            32 * n_candidates, n_jobs, lambda at: rank(visit, k, candidates[at], at), np.arange(len(X))
        )
        close = (indices >= 0) & (sq <= farthest[:, None])
        return close.sum(axis=1), self.numbers[indices[close]], sq[close]
