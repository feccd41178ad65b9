"""Nearest candidates among many rows: tiles of squared distances by matrix product, a compiled scan for the smallest.

Each row keeps a buffer of the nearest keys seen so far and the largest distance that still enters it; a scan looks
closer only where a run of distances holds one below. Among themselves, rows are searched in pairs of blocks, each
tile once for its rows and once for its columns. In a round, blocks meet as in a tournament, every block once, so
threads share no buffer, and the result is the same for any number of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from .._core.compiled import njit
from .._core.pieces import room
from .._core.pools import blas_in_one_thread
from .._core.types import Array

_BLOCK = 1024
_TILE = 128
_RUN = 16  # one register
_FAR = np.float32(1e38)
_STEP = 8  # features between two looks at the farthest candidate so far
_PIVOTS = 256
FAR_NORM = 1e15  # of rows that products in single precision cannot tell apart: none is anyone's candidate
_FINITE = {"nnan", "nsz", "reassoc", "contract", "arcp"}


def nearest_candidates(X: Array, right: Array | None, n_candidates: int, n_threads: int) -> tuple[Array, Array]:
    """(the keys nearest to each row, squared distance that no other is within), of rows in single precision.

    Candidates come unordered, -1 where there are too few. `right` is the right one of the `factors` of a reference;
    without one, rows are searched among themselves, each a candidate of its own. The distance holds but for rounding
    and rows beyond `FAR_NORM`, and is -1 where those left too few candidates.
    """
    own, n = right is None, len(X)
    order = _near_together(X) if own else np.arange(n)
    left, of_rows = factors(X[order])
    right = of_rows if right is None else right
    rows = _Rows(left if own else left[:n], n_candidates)
    with blas_in_one_thread():
        blocks = _blocks(len(rows.left))
        if len(blocks) == 1:
            _meet(rows, right, blocks[0], blocks[0] if own else None)
        else:
            rounds = _tournament(blocks) if own else [[(block, None) for block in blocks]]
            with ThreadPoolExecutor(n_threads) as pool:
                for meetings in rounds:
                    list(pool.map(partial(_meet, rows, right), *zip(*meetings, strict=True)))
    _settle(rows.sq_limit, rows.count[:n], rows.sq, rows.keys, n_candidates)
    found = rows.keys[:n, :n_candidates]
    candidates, sq_limit = np.empty((n, n_candidates), dtype=np.int32), np.empty(n, dtype=np.float32)
    candidates[order] = np.where(found < 0, -1, order.astype(np.int32)[found]) if own else found
    sq_limit[order] = rows.sq_limit[:n]
    return candidates, sq_limit


def _near_together(X: Array) -> Array:
    """An order of the rows in which those nearest to the same pivot follow each other."""
    X = np.clip(X, -FAR_NORM, FAR_NORM)
    pivots = X[:: max(1, len(X) // _PIVOTS)]
    sq = np.einsum("ij,ij->i", pivots, pivots)
    nearest = [(sq - 2 * (X[part] @ pivots.T)).argmin(axis=1) for part in _blocks(len(X))]
    return np.argsort(np.concatenate(nearest), kind="stable")


class _Rows:
    """The left factor of rows, and the buffers of their nearest keys."""

    def __init__(self, left: Array, n_candidates: int) -> None:
        self.left, self.n_candidates = left, n_candidates
        shape = (len(left), 2 * n_candidates)
        self.sq, self.keys = room(shape, np.float32), room(shape, np.int32)
        self.count, self.sq_limit = np.zeros(len(left), dtype=np.int32), np.full(len(left), _FAR)

    def buffers(self, rows: slice) -> tuple[Array, Array, Array, Array]:
        """What a scan writes of some rows."""
        return self.sq_limit[rows], self.count[rows], self.sq[rows], self.keys[rows]


def factors(X: Array) -> tuple[Array, Array]:
    """(left, right), whose product is all squared distances; rows that fill up the last run are far from all."""
    n, width = X.shape
    sq = np.full(-(-n // _RUN) * _RUN, _FAR)
    sq[:n] = np.einsum("ij,ij->i", X, X)
    far = sq[:n] > FAR_NORM**2
    if far.any():
        X, sq[:n][far] = np.where(far[:, None], np.float32(0), X), _FAR
    left, right = np.ones((len(sq), width + 2), np.float32), np.ones((width + 2, len(sq)), np.float32)
    left[:, :-2], right[:-2] = 0, 0
    left[:n, :-2], left[:, -2] = -2 * X, sq
    right[:-2, :n], right[-1] = X.T, sq
    return left, right


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]


def _tournament(blocks: list[slice]) -> Iterator[list[tuple]]:
    """Rounds in which no block takes part twice: every block meets itself, then every other once (circle method)."""
    yield [(block, block) for block in blocks]
    circle = blocks + [None] * (len(blocks) % 2)
    half = len(circle) // 2
    for _ in range(len(circle) - 1):
        yield [pair for pair in zip(circle[:half], circle[: half - 1 : -1], strict=True) if None not in pair]
        circle.insert(1, circle.pop())


def _meet(rows: _Rows, right: Array, block: slice, other: slice | None) -> None:
    """Offer the keys of another block to a block, and its rows to that one; without one, all keys to it."""
    for keys in [other] if other else _blocks(right.shape[1]):
        for start in range(block.start, block.stop, _TILE):
            part = slice(start, min(start + _TILE, block.stop))
            tile = rows.left[part] @ right[:, keys]
            if keys.start == (block.start if other else 0) and tile.shape[1] > rows.n_candidates:
                nearest = np.partition(tile, rows.n_candidates - 1, axis=1)[:, rows.n_candidates - 1]
                rows.sq_limit[part] = np.nextafter(nearest, _FAR)
            _offer_to_rows(tile, keys.start, *rows.buffers(part), rows.n_candidates)
            if other and other != block:
                _offer_to_columns(tile, start, *rows.buffers(other), rows.n_candidates)


@njit(nogil=True, fastmath=_FINITE)
def _offer_to_rows(
    tile: Array, first: int, limit: Array, count: Array, sq: Array, keys: Array, n_candidates: int
) -> None:
    """Enter (sq, key) of a tile into the buffers of its rows; keys are columns counted from `first`."""
    for i in range(tile.shape[0]):
        for start in range(0, tile.shape[1], _RUN):
            lowest = _FAR
            for j in range(start, start + _RUN):
                lowest = min(lowest, tile[i, j])
            if lowest < limit[i]:
                for j in range(start, start + _RUN):
                    if tile[i, j] < limit[i]:
                        _enter(i, tile[i, j], first + j, limit, count, sq, keys, n_candidates)


@njit(nogil=True, fastmath=_FINITE)
def _offer_to_columns(
    tile: Array, first: int, limit: Array, count: Array, sq: Array, keys: Array, n_candidates: int
) -> None:
    """Enter (sq, key) of a tile into the buffers of its columns; keys are rows counted from `first`."""
    for i in range(tile.shape[0]):
        for start in range(0, tile.shape[1], _RUN):
            lowest = _FAR
            for j in range(start, start + _RUN):
                lowest = min(lowest, tile[i, j] - limit[j])
            if lowest < 0:
                for j in range(start, start + _RUN):
                    if tile[i, j] < limit[j]:
                        _enter(j, tile[i, j], first + i, limit, count, sq, keys, n_candidates)


@njit(nogil=True)
def _enter(
    i: int, value: float, key: int, limit: Array, count: Array, sq: Array, keys: Array, n_candidates: int
) -> None:
    """Append to a buffer; a full one keeps its nearest."""
    at = count[i]
    sq[i, at], keys[i, at] = value, key
    count[i] = at + 1
    if at + 1 == sq.shape[1]:
        limit[i] = _keep_smallest(sq[i], keys[i], at + 1, n_candidates)
        count[i] = n_candidates


@njit(nogil=True)
def _keep_smallest(values: Array, keys: Array, n: int, k: int) -> float:
    """Bring the k smallest of the first n values, and their keys, to the front; return the largest of them."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                keys[left], keys[right] = keys[right], keys[left]
                left += 1
                right -= 1
        if k - 1 <= right:
            high = right
        elif k - 1 >= left:
            low = left
        else:
            break
    largest = values[0]
    for a in range(1, k):
        largest = max(largest, values[a])
    return largest


@njit(nogil=True)
def _settle(limit: Array, count: Array, sq: Array, keys: Array, n_candidates: int) -> None:
    """Bring the nearest of every buffer to its front."""
    for i in range(len(count)):
        if count[i] < n_candidates:
            keys[i, count[i] :] = -1
            limit[i] = -1
        else:
            limit[i] = _keep_smallest(sq[i], keys[i], count[i], n_candidates)


@njit(nogil=True, fastmath=_FINITE)
def pair_sq_distances(X: Array, reference: Array, rows: Array, keys: Array) -> Array:
    """|x_r - y_k|^2 of each pair (r, k), from differences in double precision."""
    out = np.empty(len(rows))
    for a in range(len(rows)):
        total = 0.0
        for f in range(X.shape[1]):
            difference = np.float64(X[rows[a], f]) - np.float64(reference[keys[a], f])
            total += difference * difference
        out[a] = total
    return out


@njit(nogil=True)
def scan_candidates(X: Array, reference: Array, own: Array, keys: Array, first: int, n_candidates: int) -> Array:
    """The nearest of all reference rows but `own[i]` to each row X[i], in double precision, by brute force.

    Equally far ones are chosen by `tie_keys(keys[i], first + j)`. A sum that exceeds the farthest so far is broken off.
    """
    found = np.empty((len(X), n_candidates), dtype=np.int64)
    for i in range(len(X)):
        sq, ties = np.full(n_candidates, np.inf), np.full(n_candidates, np.uint64(0xFFFFFFFFFFFFFFFF))
        at = np.full(n_candidates, -1)
        for j in range(len(reference)):
            if j == own[i]:
                continue
            total, f = 0.0, 0
            while f < X.shape[1] and total <= sq[0]:
                for g in range(f, min(f + _STEP, X.shape[1])):
                    difference = np.float64(X[i, g]) - np.float64(reference[j, g])
                    total += difference * difference
                f += _STEP
            if total <= sq[0]:
                tie = _mixed(keys[i] ^ _mixed(np.uint64(first + j)))
                if total < sq[0] or tie < ties[0]:
                    _replace_top(sq, ties, at, total, tie, j)
        found[i] = at
    return found


@njit(nogil=True)
def _mixed(x: np.uint64) -> np.uint64:
    """As `mixed_bits`."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(nogil=True)
def _replace_top(sq: Array, ties: Array, at: Array, new_sq: float, new_tie: int, new_at: int) -> None:
    """Put an entry in place of the largest (sq, tie) of a heap, and restore its order."""
    n, i = len(sq), 0
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and (
            sq[child + 1] > sq[child] or (sq[child + 1] == sq[child] and ties[child + 1] > ties[child])
        ):
            child += 1
        if sq[child] < new_sq or (sq[child] == new_sq and ties[child] <= new_tie):
            break
        sq[i], ties[i], at[i] = sq[child], ties[child], at[child]
        i = child
    sq[i], ties[i], at[i] = new_sq, new_tie, new_at
