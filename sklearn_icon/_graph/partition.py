"""Nearest candidates among very many rows: a partition into cells, products with the rows of the nearest cells.

Rows are parted by k-means of a sample. Rows of a cell are compared, tile by tile as in `brute_force`, with those of
the cells whose centres lie nearest to its own; a pass over neighbours' neighbours finds most of what lies elsewhere.
How many cells are compared follows from the data: as many as hold the neighbours of some rows that were compared with
all, where that is worth it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils import gen_batches

from .._core.compiled import njit
from .._core.interrupts import raise_if_interrupted
from .._core.pieces import at_once, room, slices
from .._core.pools import blas_in_one_thread
from .._core.quiet import quiet
from .._core.types import Array
from .brute_force import _FAR, _FINITE, _RUN, _TILE, FAR_NORM, _enter, _keep_smallest, _offer_to_rows, _Rows, _settle

_SAMPLE_OF_A_CELL = 32  # rows from which its centre is found
_STEPS = 10  # of k-means
_USUAL = 1e3  # norms that are not outliers, where half of all are below one
FOUND = 0.97  # of the neighbours, in the cells that are compared
_MOST = 0.3  # of all rows to compare a row with; beyond, the partition tells too little
LOOKS = 1, 12  # at neighbours, and how many of them, whose as many nearest are looked at
_NUMBERS_AT_ONCE, _ROWS_AT_ONCE = 1 << 22, 4096  # of rows that are read, and that are looked at


class Partition(NamedTuple):
    """Rows by cell: `order` holds -1 where a cell is filled up to whole runs; cell c is `order[starts[c]:starts[c+1]]`.

    `near[c]` are all cells by the distance of their centres from that of c, itself first.
    """

    order: Array
    starts: Array
    cell: Array
    near: Array


def part(X: Any, seed: int) -> Partition:
    """Cells of about as many rows as there are cells; X gives rows in single precision by slices and numbers."""
    rng, sq = np.random.RandomState(seed), np.concatenate([_sq_norms(X[block]) for block in _blocks_of(X)])
    centres = centres_of(X[usual_rows(sq, rng)], len(X), rng)
    cell = cells_of(X, centres)
    starts, order = in_runs(cell, len(centres))
    return Partition(order, starts, cell, nearest_cells(centres))


def _blocks_of(X: Any) -> Iterator[slice]:
    return slices(len(X), max(1, at_once(_NUMBERS_AT_ONCE) // X.shape[1]))


def usual_rows(sq: Array, rng: np.random.RandomState) -> Array:
    """Numbers of the rows from which centres are found, of those that are usual by their squared norms."""
    usual = np.flatnonzero(sq < _USUAL**2)
    n_sampled = _SAMPLE_OF_A_CELL * max(1, int(np.sqrt(len(sq))))
    return rng.choice(usual, min(len(usual), n_sampled), replace=False)


def is_usual(rows: Array) -> Array:
    """Which rows lie not so far away that k-means, which takes the mean from all rows, would see nothing else."""
    return _sq_norms(rows) < _USUAL**2


def sampled(n: int, rng: np.random.RandomState) -> Array:
    """Numbers of the rows from which centres of n are found, in order."""
    return np.sort(rng.permutation(n)[: _SAMPLE_OF_A_CELL * max(1, int(np.sqrt(n)))])


def centres_of(sample: Array, n: int, rng: np.random.RandomState) -> Array:
    """Centres of the cells of n rows, by k-means of a sample."""
    n_cells = min(max(1, int(np.sqrt(n))), len(sample))
    centres = sample[rng.choice(len(sample), n_cells, replace=False)]
    means = KMeans(n_cells, init=centres, n_init=1, max_iter=_STEPS, tol=0)
    with quiet(category=ConvergenceWarning):  # fewer distinct rows
        return means.fit(sample).cluster_centers_


def cells_of(X: Any, centres: Array) -> Array:
    """The cell of each row: that of the nearest centre."""
    parts = [pairwise_distances_argmin(X[block], centres) for block in _blocks_of(X)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)


def in_runs(cell: Array, n_cells: int) -> tuple[Array, Array]:
    """(where each cell starts, rows by cell), each cell filled up to whole runs by -1."""
    sizes = np.bincount(cell, minlength=n_cells)
    starts, by_cell = np.r_[0, np.cumsum(-(-sizes // _RUN) * _RUN)], np.argsort(cell, kind="stable")
    order, within = np.full(starts[-1], -1), np.arange(len(cell)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    order[within + np.repeat(starts[:-1], sizes)] = by_cell
    return starts, order


def nearest_cells(centres: Array) -> Array:
    """All cells by the distance of their centres from that of each, itself first."""
    gaps = _sq_norms(centres) - 2 * centres @ centres.T
    np.fill_diagonal(gaps, -np.inf)
    return np.argsort(gaps, axis=1, kind="stable")


def cells_needed(partition: Partition, rows: Array, neighbors: Array, found: float = FOUND) -> int | None:
    """How many of the nearest cells hold most neighbours of some rows, or None where these are too many rows."""
    own = partition.cell[rows]
    rank_of_cell = np.argsort(partition.near[own], axis=1)
    ranks = np.take_along_axis(rank_of_cell, partition.cell[neighbors], axis=1)
    n_cells = int(np.quantile(ranks, found, method="higher")) + 1
    sizes = np.diff(partition.starts)
    compared = sizes[partition.near[:, :n_cells]].sum(axis=1) @ sizes / sizes.sum()
    return n_cells if compared <= _MOST * len(partition.cell) else None


def _sq_norms(X: Array) -> Array:
    return np.einsum("ij,ij->i", X, X)


def partition_candidates(
    X: Any, partition: Partition, n_cells: int, n_candidates: int, n_threads: int, looks: tuple[int, int] = LOOKS
) -> Array:
    """The keys nearest to each row among those of the nearest cells and among neighbours' neighbours; -1 is none.

    looks is (how often, how many neighbours).
    """
    n_looks, n_nearest = looks[0], min(looks[1], n_candidates)
    order, starts, _, near = partition
    rows = _Rows(by_cell(X, order), n_candidates)
    cells = [slice(start, stop) for start, stop in pairwise(starts)]
    blocks = [range(start, min(start + 8 * n_threads, len(cells))) for start in range(0, len(cells), 8 * n_threads)]
    with blas_in_one_thread(), ThreadPoolExecutor(n_threads) as pool:
        for block in blocks:
            others = [[cells[c] for c in near[own, :n_cells]] for own in block]
            list(pool.map(partial(meet, rows, rows.left), [cells[own] for own in block], others))
            raise_if_interrupted()
        _settle(rows.sq_limit, rows.count, rows.sq, rows.keys, n_candidates)
        parts = list(gen_batches(len(order), _ROWS_AT_ONCE))
        for _ in range(n_looks):
            list(pool.map(lambda p: _bring_nearest(rows.sq[p], rows.keys[p], n_candidates, n_nearest), parts))
            nearest = room((len(order), n_nearest), np.int32)
            nearest[:] = rows.keys[:, :n_nearest]
            rows.count[:] = n_candidates
            rows.count[rows.keys[:, n_candidates - 1] < 0] = 0  # too few to look at others
            look = partial(_look_at_part, rows, nearest, n_candidates)
            list(pool.map(look, parts))
            raise_if_interrupted()
    candidates = room((len(partition.cell), n_candidates), np.int32)
    for part in parts:
        there, found = order[part] >= 0, rows.keys[part, :n_candidates]
        candidates[order[part][there]] = np.where(found < 0, -1, order[found])[there]
    return candidates


def by_cell(X: Any, order: Array) -> Array:
    """(-2 x, |x|^2, 1) of the rows in an order, of which -1 and rows that are too far for products are far from all."""
    left = room((len(order), X.shape[1] + 2), np.float32)
    for part in slices(len(order), _ROWS_AT_ONCE):
        rows = X[np.maximum(order[part], 0)]
        sq = _sq_norms(rows)
        far = (sq > FAR_NORM**2) | (order[part] < 0)
        rows[far], sq[far] = 0, _FAR
        np.multiply(rows, -2, out=left[part, :-2])
        left[part, -2], left[part, -1] = sq, 1
    return left


def meet(rows: _Rows, reference: Array, cell: slice, others: list[slice]) -> None:
    """Offer the keys of other cells of a reference to the rows of a cell."""
    own = rows.left[cell] * np.float32(-0.5)
    own[:, -2], own[:, -1] = 1, rows.left[cell, -2]
    for start in range(cell.start, cell.stop, _TILE):
        part = slice(start, min(start + _TILE, cell.stop))
        for number, keys in enumerate(others):
            tile = own[start - cell.start : part.stop - cell.start] @ reference[keys].T
            if number == 0 and tile.shape[1] > rows.n_candidates:
                nearest = np.partition(tile, rows.n_candidates - 1, axis=1)[:, rows.n_candidates - 1]
                rows.sq_limit[part] = np.nextafter(nearest, _FAR)
            _offer_to_rows(tile, keys.start, *rows.buffers(part), rows.n_candidates)


def _look_at_part(rows: _Rows, nearest: Array, n_candidates: int, part: slice) -> None:
    _look_further(part.start, rows.left, nearest, *rows.buffers(part), n_candidates)


@njit(nogil=True)
def _bring_nearest(sq: Array, keys: Array, n_candidates: int, n_nearest: int) -> None:
    """Bring the few nearest of every full buffer to its front."""
    for i in range(len(sq)):
        if keys[i, n_candidates - 1] >= 0 and n_candidates > n_nearest:
            _keep_smallest(sq[i], keys[i], n_candidates, n_nearest)


@njit(nogil=True, fastmath=_FINITE)
def _look_further(
    first: int, left: Array, nearest: Array, limit: Array, count: Array, sq: Array, keys: Array, n_candidates: int
) -> None:
    """Offer to rows the nearest of their nearest, of those that are not yet in their buffers."""
    seen = np.full(len(left), -1, dtype=np.int32)
    for i in range(len(limit)):
        if count[i] < n_candidates:
            continue
        seen[first + i] = i
        for a in range(n_candidates):
            seen[keys[i, a]] = i
        for a in nearest[first + i]:
            for b in nearest[a]:
                if b < 0 or seen[b] == i:
                    continue
                seen[b] = i
                total = np.float32(0)
                for f in range(left.shape[1] - 2):
                    difference = left[first + i, f] - left[b, f]
                    total += difference * difference
                total /= np.float32(4)
                if total < limit[i]:
                    _enter(i, total, b, limit, count, sq, keys, n_candidates)
        if count[i] > n_candidates:
            limit[i] = _keep_smallest(sq[i], keys[i], count[i], n_candidates)
