"""Which search finds the neighbours of the rows of a space: exact wherever that is affordable."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.utils import gen_batches

from .._core.device import accelerator
from .._core.types import Array, Jobs, Seed
from .exact import SPARE, Run, finished, in_blocks, nearest_of_graph, others, rank, scan_all
from .proposals import (
    DESCENT,
    SAMPLE,
    Doubt,
    descend,
    missing_or_copies,
    propose,
    propose_by_partition,
    propose_compiled,
)
from .space import Space

# Largest n^2 (40 + features) searched exactly: 235k rows of 50 features, 78k of 784. That takes no longer than the
# approximate search does in a fresh process, where it compiles.
_EXACT_LIMIT = 5e12
_OTHER_COST = 40  # of a feature of sparse rows, or in a distance that is not euclidean
_TREE_ROWS, TREE_FEATURES = 5_000, 6  # a k-d tree is faster from so many rows among themselves, up to so many features
# On a GPU: rows from which on it is the sooner, and the largest n^2 (40 + features), some 80 s of an H200 (7.4 s for a
# million rows of 50 features; benchmarks/gpu.py).
_DEVICE_ROWS, _DEVICE_LIMIT = 5_000, 1e15
_DEVICE_ALL = 1e13  # up to which all are compared there: a second for 333,000 rows of 50 features
_ROWS_IN_A_THREAD = 1 << 13  # of distances
_FEW_ROWS = 1_000  # up to so many, all distances of a row are looked through
_NUMBERS_A_CANDIDATE = 32  # that are held while candidates are ranked: blocks of a thousand rows or so
_BYTES_OF_NUMBER, _BYTES_OF_CANDIDATE = 21, 16  # of X, and of a candidate
_SCANNED_ROWS = 16  # new ones, up to which a scan takes less time than products need to begin


class Neighbors(NamedTuple):
    """Neighbours, nearest first: `distances[i, a]` is the distance from row i to row `indices[i, a]`.

    `recall` is the fraction of true neighbours among those found, measured on a sample of rows where not `exact`.
    """

    indices: Array
    distances: Array
    exact: bool
    recall: float = 1.0


def bytes_of_search(width: float, k: int) -> float:
    """What a search holds of each row: numbers in the precisions it compares them in, and candidates."""
    return _BYTES_OF_NUMBER * width + _BYTES_OF_CANDIDATE * (k + SPARE)


def is_short(n: int, cost: float) -> bool:
    """Whether a search among n rows, of so many columns or the cost of as many, is exact."""
    return n**2 * (40.0 + cost) <= _EXACT_LIMIT


def search(space: Space, k: int, n_jobs: Jobs, random_state: Seed, ranked: bool = True) -> Neighbors:
    """Propose candidates, rank them by distances computed afresh, and scan all rows where that leaves a doubt.

    Of rows of one rank among several the search is exact, however many there are.
    """
    (n, width), sparse, limit = space.reference.shape, sp.issparse(space.X), most_neighbors(space, k)
    if sparse and space.metric == "precomputed":
        return Neighbors(*nearest_of_graph(space, k), exact=True)
    cost = _OTHER_COST * space.X.nnz / n if sparse else width * (1 if space.root else _OTHER_COST)
    descent = space.own and space.metric in DESCENT and set(space.params) <= {"p", "V", "VI"}
    alone = space.first_row is None
    affordable = is_short(n, cost) or not (descent and alone)
    least = _TREE_ROWS if space.own else min(_TREE_ROWS, _FEW_ROWS)
    tree = bool(space.root) and not sparse and width <= TREE_FEATURES and n >= max(least, 20 * k)
    if space.compiled and n_jobs is None:
        from .._core.team import n_threads

        n_jobs = n_threads()
    run, rows = partial(in_blocks, n, n_jobs), np.arange(space.X.shape[0])
    if k == limit and space.own and not ranked:
        indices, distances = run(partial(others, space), rows)
        return Neighbors(indices, distances, exact=True)
    large = n >= _DEVICE_ROWS and not (sparse or tree)
    device = accelerator() if alone and space.own and space.root and large else None
    if device is not None and n**2 * (40.0 + cost) <= _DEVICE_LIMIT:
        compares_all = n**2 * (40.0 + cost) <= _DEVICE_ALL
        return _search_on(device, space, k, rows, run, None if compares_all else _sample_of(n, 4 * SAMPLE))
    by_products = bool(space.root) and not sparse and n >= max(_FEW_ROWS, 4 * (k + SPARE))
    scanned = space.compiled and not space.own and len(rows) <= _SCANNED_ROWS and space.index is None
    if affordable and (scanned or not (by_products or tree)):
        indices, distances = scan_all(space, k, rows, run)
        return Neighbors(indices, distances, exact=True)
    candidates: Any
    if tree or (affordable and not space.compiled):
        candidates, doubt = propose(space, k, tree, n_jobs)
    elif affordable:
        candidates, doubt = propose_compiled(space, k, n_jobs)
    else:
        sample = partial(_exact_neighbors, space, k, n_jobs)
        candidates = propose_by_partition(space, k, n_jobs, sample) if space.compiled else None
        if candidates is None:
            candidates = descend(space, k, n_jobs, random_state)
        doubt = partial(missing_or_copies, bool(space.root) and not sparse)
    return _nearest_of(space, k, candidates, doubt, run, n_jobs, exact=affordable or tree)


def most_neighbors(space: Space, k: int) -> int:
    """How many neighbours a row can have; refuses more."""
    n = space.reference.shape[0]
    limit, name = (n - 1, "n - 1") if space.own else (n, "n_reference")
    if not isinstance(k, int | np.integer) or not 1 <= k <= limit:
        raise ValueError(f"n_neighbors={k!r} must be an integer from 1 to {name} = {limit}")
    return limit


def _nearest_of(
    space: Space, k: int, candidates: Array, doubt: Doubt, run: Run, n_jobs: Jobs, exact: bool
) -> Neighbors:
    """The nearest of the candidates, and of all rows where a doubt is left; where not exact, how many are found."""
    n, rows = space.reference.shape[0], np.arange(space.X.shape[0])
    ranked = partial(in_blocks, candidates.shape[1] * _NUMBERS_A_CANDIDATE, n_jobs)
    indices, distances, last = ranked(lambda part: rank(space, k, candidates[part], part), rows)
    unsure = rows[doubt(last)]
    if unsure.size:
        indices[unsure], distances[unsure] = scan_all(space, k, unsure, run)
    if exact:
        return Neighbors(indices, distances, exact=True)
    sample = _sample_of(n)
    farthest = _exact_neighbors(space, k, n_jobs, sample).distances[:, -1:]
    near = distances[sample] <= farthest * (1 + 16 * np.finfo(space.dtype).eps)
    return Neighbors(indices, distances, exact=False, recall=float(near.mean()))


def _sample_of(n: int, size: int = SAMPLE) -> Array:
    """Rows whose neighbours among all tell how many an approximate search finds."""
    return np.linspace(0, n - 1, min(n, size), dtype=np.intp)


def _exact_neighbors(space: Space, k: int, n_jobs: Jobs, rows: Array) -> Neighbors:
    """Of some rows among all others, each row without itself or, beside as many copies, without one of these."""
    if not space.compiled:
        n = space.reference.shape[0]
        return Neighbors(*scan_all(space, k, rows, partial(in_blocks, n, n_jobs)), exact=True)
    found = search(replace(space, X=space.X[rows], own=False), k + 1, n_jobs, None)
    others = found.indices != rows[:, None]
    others[others.all(axis=1), 0] = False
    indices, distances = (part[others].reshape(len(rows), k) for part in found[:2])
    return Neighbors(indices, distances, exact=True)


def _search_on(device: str, space: Space, k: int, rows: Array, run: Run, sample: Array | None) -> Neighbors:
    """By a device of torch; here what is left to choose among equally far rows, and what rounding leaves in doubt."""
    from .._core.team import in_threads
    from .cuda import nearest_rows

    found = nearest_rows(space.X, k, SPARE, device, sample=sample, seed=space.seed)
    candidates, sq_distances, sure, settled, recall = found
    indices, distances = candidates[:, :k].copy(), np.empty((len(rows), k), dtype=space.dtype)

    def finish(part: slice) -> None:
        distances[part] = finished(space, np.where(sure[part, None], sq_distances[part], 0))

    in_threads(finish, list(gen_batches(len(rows), _ROWS_IN_A_THREAD)))
    left = rows[sure & ~settled]
    if left.size:
        indices[left], distances[left], _ = run(lambda part: rank(space, k, candidates[part], part), left)
    if not sure.all():
        indices[~sure], distances[~sure] = scan_all(space, k, rows[~sure], run)
    return Neighbors(indices, distances, exact=recall is None, recall=1.0 if recall is None else recall)
