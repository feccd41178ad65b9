"""The exact part of a search: rows compared with candidates, or with all others, by distances computed afresh."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed
from scipy.spatial.distance import cdist

from .._core.interrupts import raise_if_interrupted
from .._core.pieces import slices
from .._core.rows import mixed_bits, row_digests
from .._core.types import Array, Jobs
from .space import Space
from .ties import k_smallest, row_keys

_BLOCK = 2**22  # distances that a thread holds at a time
SPARE = 8  # candidates beyond the neighbours wanted

Run: TypeAlias = Callable[[Callable[[Array], tuple], Array], Any]
"""Arrays that a function returns for rows, in blocks; see `in_blocks`."""


def in_blocks(n: int, n_jobs: Jobs, function: Callable[[Array], tuple], rows: Array) -> Any:
    """Arrays = function(rows), in threads that take a block of rows at a time."""
    whole: list[Array] = []
    lock = Lock()

    def enter(part: slice) -> None:
        found = function(rows[part])
        with lock:
            whole.extend(np.empty((len(rows), *one.shape[1:]), one.dtype) for one in found if len(whole) < len(found))
        for one, all_rows in zip(found, whole, strict=True):
            all_rows[part] = one

    parts = list(slices(len(rows), int(np.clip(_BLOCK // n, 32, 4096))))
    if len(parts) == 1:  # joblib's own beginning takes longer than a row
        enter(parts[0])
    else:
        Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(enter)(part) for part in parts)
    raise_if_interrupted()
    return tuple(whole)


def _keys_at(space: Space, rows: Array, at: Array) -> Array:
    """`Space.keys` of the rows at some positions."""
    return space.keys(rows[at])


def rank(space: Space, k: int, candidates: Array, rows: Array) -> tuple[Array, Array, Array]:
    """The k nearest of the candidates (-1 is none) of a block of rows, and the last one's squared distance."""
    c = np.sort(candidates, axis=1)
    if space.root:
        d = space.pairs(np.repeat(rows, c.shape[1]), c.ravel()).reshape(c.shape)
    else:
        near = (space.to_all(space.X[[i]], space.reference[j]) for i, j in zip(rows, c, strict=True))
        d = np.concatenate(list(near))
    d[(c < 0) | (space.own & (c == rows[:, None]))] = np.inf
    indices, d = k_smallest(d, c + space.first_key, k, partial(_keys_at, space, rows))
    return indices, finished(space, d), d[:, -1]


def finished(space: Space, d: Array) -> Array:
    """Distances from squared ones where these are compared; infinite ones are to be computed anew."""
    return space.finished(np.where(np.isinf(d), 0, d)) if space.root else d


def scan_all(space: Space, k: int, rows: Array, run: Run) -> tuple[Array, Array]:
    """(indices, distances) of the k nearest of all reference rows, copies first."""
    indices, distances = np.empty((len(rows), k), dtype=np.intp), np.zeros((len(rows), k), dtype=space.dtype)
    rest = np.ones(len(rows), dtype=bool)
    if space.own and space.root and not sp.issparse(space.X) and space.first_row is None:
        rest, indices = copies(row_digests(space.reference), space.seed, k, rows)
    if rest.any():
        indices[rest], distances[rest] = run(partial(_scan, space, k), rows[rest])
    return indices, distances


def copies(digests: Array, seed: int, k: int, rows: Array) -> tuple[Array, Array]:
    """(which rows have fewer than k copies, k copies of each of the others): copies in a random order, from any on.

    All rows have their digests; equal ones are copies.
    """
    n = len(digests)
    shuffled = np.argsort(mixed_bits(row_keys(np.arange(n), seed)), kind="stable")
    order = shuffled[np.argsort(digests[shuffled], kind="stable")]
    first = np.flatnonzero(np.r_[True, np.diff(digests[order]) != 0])
    sizes = np.diff(np.r_[first, n])
    group, place = np.repeat(np.arange(len(first)), sizes)[np.argsort(order)], np.argsort(order)
    rest = sizes[group[rows]] <= k
    indices = np.empty((len(rows), k), dtype=np.intp)
    few = rows[~rest]
    size, start = sizes[group[few], None], first[group[few], None]
    turn = (row_keys(few, seed)[:, None] + np.arange(k, dtype=np.uint64)) % (size - 1).astype(np.uint64)
    found = order[start + (place[few, None] - start + 1 + turn.astype(np.intp)) % size]
    indices[~rest] = np.sort(found, axis=1)
    return rest, indices


def _scan(space: Space, k: int, rows: Array) -> tuple[Array, Array]:
    """The k nearest of all reference rows for a block of rows."""
    n = space.reference.shape[0]
    if space.compiled:
        from .brute_force import scan_candidates

        own, n_candidates = rows if space.own else np.full(len(rows), -1), min(k + SPARE, n - space.own)
        keys = space.keys(rows)
        candidates = scan_candidates(space.X[rows], space.reference, own, keys, space.first_key, n_candidates)
        return rank(space, k, candidates, rows)[:2]
    if not space.root:
        d = space.to_all(space.X[rows], space.reference)
        d = d.copy() if space.own and space.metric == "precomputed" else d
    elif sp.issparse(space.X):
        d = space.sq_to_all(rows)
    else:
        d = _sq_near(space, k, rows)
    if space.own:
        d[np.arange(len(rows)), rows] = np.inf
    indices, d = k_smallest(d, np.arange(n) + space.first_key, k, partial(_keys_at, space, rows))
    return indices, (space.finished(d) if space.root else d.astype(space.dtype, copy=False))


def _sq_near(space: Space, k: int, rows: Array) -> Array:
    """Squared distances of a block of dense rows to those that may be among the k nearest; of others infinite."""
    left, right, sq_left, sq_right, rounding = space.products
    d = left[rows] @ right.T
    d *= -2
    d += sq_left[rows, None]
    d += sq_right
    if space.own:
        d[np.arange(len(rows)), rows] = np.inf
    if not rounding:
        return d
    limit = np.maximum(np.partition(d, k - 1, axis=1)[:, k - 1], 0)
    norm = np.sqrt(sq_left[rows])
    near = d <= (limit + 2 * rounding * (norm**2 + (norm + np.sqrt(limit)) ** 2))[:, None]
    r, c = np.nonzero(near)
    d.fill(np.inf)
    d[r, c] = space.pairs(rows[r], c)
    return d


def others(space: Space, rows: Array) -> tuple[Array, Array]:
    """All other rows of a block, by index."""
    n = space.reference.shape[0]
    if not space.root:
        d = space.to_all(space.X[rows], space.reference)
    elif sp.issparse(space.X):
        d = space.finished(space.sq_to_all(rows))
    else:
        d = space.finished(cdist(space.X[rows], space.reference, "sqeuclidean"))
    other = np.arange(n) != rows[:, None]
    shape = len(rows), n - 1
    return np.nonzero(other)[1].reshape(shape), d[other].reshape(shape)


def nearest_of_graph(space: Space, k: int) -> tuple[Array, Array]:
    """(indices, distances) of the k nearest of those that a sparse matrix of distances holds of each row."""
    n, c, d = space.X.shape[0], space.X.indices, space.X.data
    r = np.repeat(np.arange(n), np.diff(space.X.indptr))
    if space.own:
        r, c, d = r[r != c], c[r != c], d[r != c]
    counts = np.bincount(r, minlength=n)
    short = np.flatnonzero(counts < k)
    if short.size:
        raise ValueError(
            f"row {short[0]} of the precomputed graph has {counts[short[0]]} neighbours, but n_neighbors={k}: build it "
            f"with more, as by KNeighborsTransformer(mode='distance', n_neighbors={k}), or ask for fewer"
        )
    indices, distances = np.empty((n, k), dtype=np.intp), np.empty((n, k), dtype=d.dtype)
    starts = np.r_[0, np.cumsum(counts)]
    for size in np.unique(counts):  # rows of as many neighbours at once, as a rule all
        rows = np.flatnonzero(counts == size)
        at = starts[rows, None] + np.arange(size)
        indices[rows], distances[rows] = k_smallest(d[at], c[at], k, partial(_keys_at, space, rows))
    return indices, distances
