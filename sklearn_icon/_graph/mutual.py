"""Neighbours of rows among others, and of these among the rows: each pair is compared once, for both of its ends.

Each row has `farthest` from before: the squared distance of the last neighbour that is known, beyond which none counts.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

import numpy as np

from .._core.compiled import njit
from .._core.pools import blas_in_one_thread
from .._core.types import Array
from .brute_force import (
    _FAR,
    _TILE,
    FAR_NORM,
    _blocks,
    _mixed,
    _offer_to_columns,
    _offer_to_rows,
    _Rows,
    _settle,
    factors,
    pair_sq_distances,
)
from .exact import SPARE, in_blocks, scan_all
from .proposals import error_of_products, near_zero
from .space import Space, sq_norms

_OTHERS_AT_ONCE = 1 << 14

Take: TypeAlias = Callable[[int, Array, Array, Array], None]
"""Is told (the first of a block of rows, how many were found of each, which ones, their squared distances)."""


def nearest_of_both(
    spaces: tuple[Space, Space], k: int, farthest: tuple[Array, Array], takes: tuple[Take, Take], n_threads: int
) -> None:
    """Tell the k nearest of each row, and others within `farthest`; spaces are of rows among others, and of these."""
    (space, back), (take, take_back) = spaces, takes
    others, rows, scale = near_zero(back)
    side = _Side(space, rows, farthest[0], scale, k)
    for first in range(0, len(others), _OTHERS_AT_ONCE):
        part = slice(first, first + _OTHERS_AT_ONCE)
        facing = _Side(back.part(part), others[part], farthest[1][part], scale, k, first)
        _meet(side, facing, n_threads)
        facing.hand_over(take_back, n_threads)
    side.hand_over(take, n_threads)


class _Side:
    """Rows from a first one on, near zero, with buffers of candidates no farther than neighbours from before."""

    def __init__(self, space: Space, near: Array, farthest: Array, scale: float, k: int, first: int = 0) -> None:
        self.space, self.scale, self.farthest, self.first = space, scale, farthest, first
        self.k = min(k, len(space.reference))
        self.norm, self.width = np.sqrt(sq_norms(near)), near.shape[1]
        left, self.right = factors(near)
        self.rows = _Rows(left, self.k + SPARE)
        limit = farthest / scale**2 + 2 * self._error(farthest)
        self.rows.sq_limit[: len(near)] = np.nextafter(np.minimum(limit, _FAR).astype(np.float32), _FAR)

    def _error(self, sq: Array, rows: Array | slice = slice(None)) -> Array:
        """Of the products, of distances in the space."""
        return error_of_products(self.norm[rows], self.norm[rows] + np.sqrt(sq) / self.scale, self.width)

    def hand_over(self, take: Take, n_threads: int) -> None:
        """Compare what the buffers hold afresh, and tell it by blocks."""
        buffers, rows = self.rows, np.arange(len(self.norm))
        self.full = buffers.count >= buffers.n_candidates  # others lack none within the limit
        _settle(buffers.sq_limit, buffers.count, buffers.sq, buffers.keys, buffers.n_candidates)
        in_blocks(buffers.n_candidates * 32, n_threads, partial(self._hand_block, take), rows)

    def _hand_block(self, take: Take, rows: Array) -> tuple[Array]:
        space, found = self.space, self.rows.keys[rows, : self.rows.n_candidates]
        found = found[:, : max(int((found >= 0).sum(axis=1).max()), 1)]
        ends = np.repeat(rows, found.shape[1]), found.ravel()
        sq = pair_sq_distances(space.X, space.reference, *ends).reshape(found.shape)
        sq[found < 0] = np.inf
        near, keys = sq <= self.farthest[rows, None], found + np.int64(space.first_key)
        unsure = self._doubt(sq, rows)
        if unsure.any():
            alone = partial(in_blocks, len(space.reference), 1)
            scanned = scan_all(space, self.k, rows[unsure], alone)
            keys, sq, near = (_widened(part, self.k) for part in (keys, sq, near))
            keys[unsure, : self.k], sq[unsure, : self.k] = scanned
            near[unsure] = np.arange(near.shape[1]) < self.k
        take(self.first + int(rows[0]), near.sum(axis=1), keys[near], sq[near])
        return (rows,)

    def _doubt(self, sq: Array, rows: Array) -> Array:
        """Which rows may lack neighbours, by the squared distances of the candidates."""
        unsure = self.norm[rows] + np.sqrt(self.farthest[rows]) / self.scale >= FAR_NORM
        full = np.flatnonzero(self.full[rows] & ~unsure)
        if full.size:
            last = np.minimum(np.partition(sq[full], self.k - 1, axis=1)[:, self.k - 1], self.farthest[rows[full]])
            beyond = self.rows.sq_limit[rows[full]] - self._error(last, rows[full])
            unsure[full] = last / self.scale**2 * (1 + 32 * np.finfo(self.space.dtype).eps) >= beyond
        return unsure


def _widened(found: Array, n_columns: int) -> Array:
    """With as many columns at least."""
    return np.pad(found, ((0, 0), (0, max(0, n_columns - found.shape[1]))))


def _meet(side: _Side, facing: _Side, n_threads: int) -> None:
    """Offer rows all of the other side, and these the rows: in a turn no block takes part twice."""
    blocks, others = _blocks(len(side.rows.left)), _blocks(len(facing.rows.left))
    n = max(len(blocks), len(others))
    with blas_in_one_thread(), ThreadPoolExecutor(n_threads) as pool:
        for turn in range(n):
            met = [(block, (i + turn) % n) for i, block in enumerate(blocks) if (i + turn) % n < len(others)]
            list(pool.map(lambda pair: _meet_block(side.rows, facing, pair[0], others[pair[1]]), met))


def _meet_block(rows: _Rows, facing: _Side, block: slice, other: slice) -> None:
    for start in range(block.start, block.stop, _TILE):
        part = slice(start, min(start + _TILE, block.stop))
        tile = rows.left[part] @ facing.right[:, other]
        _offer_to_rows(tile, facing.first + other.start, *rows.buffers(part), rows.n_candidates)
        _offer_to_columns(tile, start, *facing.rows.buffers(other), facing.rows.n_candidates)


@njit(nogil=True)
def keep_nearer(indices: Array, sq: Array, row_keys: Array, ends: Array, keys: Array, found: Array) -> None:
    """Enter (keys, found) from ends[i] to ends[i + 1] among the nearest of row i: by distance, equal ones by index.

    Of equally far ones in the last places those stay whose place in the permutation of the row is low.
    """
    k = sq.shape[1]
    for i in range(len(sq)):
        for e in range(ends[i], ends[i + 1]):
            d, j = found[e], keys[e]
            if d > sq[i, k - 1]:
                continue
            out = k - 1  # the place that is given up
            if sq[i, k - 1] < np.inf and (d == sq[i, k - 1] or sq[i, k - 2 if k > 1 else 0] == sq[i, k - 1]):
                out = _last_of_tied(indices[i], sq[i], row_keys[i], d, j)
            if out < 0:
                continue
            for a in range(out, k - 1):
                indices[i, a], sq[i, a] = indices[i, a + 1], sq[i, a + 1]
            at = k - 1
            while at > 0 and (sq[i, at - 1] > d or (sq[i, at - 1] == d and indices[i, at - 1] > j)):
                indices[i, at], sq[i, at] = indices[i, at - 1], sq[i, at - 1]
                at -= 1
            indices[i, at], sq[i, at] = j, d


@njit(nogil=True)
def _last_of_tied(indices: Array, sq: Array, row_key: int, d: float, j: int) -> int:
    """Which of the entries as far as the last is the last in the permutation; -1 is the new one, if as far."""
    k = len(sq)
    out, last = -1, np.uint64(0)
    if d == sq[k - 1]:
        last = _mixed(row_key ^ _mixed(np.uint64(j)))
    a = k - 1
    while a >= 0 and sq[a] == sq[k - 1]:
        tie = _mixed(row_key ^ _mixed(np.uint64(indices[a])))
        if (out < 0 and d < sq[k - 1]) or tie > last:
            out, last = a, tie
        a -= 1
    return out
