"""Neighbours of rows that a bounded fit has no room for: exact in blocks, or of very many in the cells of a partition.

Rows are read by blocks, and once in the order of cells, into a temporary file of as many bytes as they have in single
precision, or of their leading principal components where these tell neighbours as well; what is compared then lies
together in it. See `partition`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.utils import gen_batches

from .._core.interrupts import raise_if_interrupted
from .._core.pieces import at_once, room, slices
from .._core.rows import row_digests
from .._core.types import Array, Jobs
from .exact import SPARE, copies, rank
from .proposals import SAMPLE, NearZero, missing_or_copies
from .ring import neighbors_in_blocks, scanned
from .search import Neighbors, is_short, most_neighbors
from .space import Space

_MOST_COMPARED = 2e14  # squared rows times columns, an hour or so
_RANKED = 1024  # rows of a thread
_WIDTHS, _OF_COLUMNS = (64, 128, 192, 256), 1 / 3  # principal components, the fewest that do; a part of the columns
_KEPT, _MORE = 0.995, 31  # of the neighbours, among as many candidates and so many more by these components
_FOUND, _LOOKS = 0.95, (2, 47)  # of them in the cells that are compared; looks at neighbours' neighbours, of so many
_FEWEST = 8  # cells that are compared there: of rows that meet those of one or two alone no looks reach another
_NUMBERS_AT_ONCE = 1 << 22


def neighbors_on_disk(space: Space, k: int, n_jobs: Jobs) -> Neighbors:
    """The k nearest of dense rows among each other, exact wherever a search in memory is, or cells tell too little."""
    n, width = space.X.shape
    most_neighbors(space, k)
    found = None if is_short(n, width) else _neighbors_by_cells(space, k, n_jobs)
    if found is None and n**2 * width > _MOST_COMPARED:
        raise MemoryError(
            f"the neighbours of {n} rows of {width} columns lie in too many cells of a partition to be searched in "
            "these, and a search of all pairs on disk takes hours; raise max_memory, or reduce the columns, as by "
            "sklearn.decomposition.IncrementalPCA."
        )
    return found or neighbors_in_blocks(space, k, n_jobs, at_once(n * width) // width)


def _neighbors_by_cells(space: Space, k: int, n_jobs: Jobs) -> Neighbors | None:
    """Those in the nearest cells of a partition, with their recall; None where most rows would meet most others."""
    from .partition import FOUND, LOOKS, cells_needed, part, partition_candidates

    near: Any = NearZero(space)
    n, n_candidates, found_in_cells, looks = len(space.X), k + 1 + SPARE, FOUND, LOOKS
    sample = np.linspace(0, n - 1, min(n, 2 * SAMPLE), dtype=np.intp)
    indices, sq = scanned(space, k, space.X[sample], sample, n_jobs)
    judged = np.arange(1, len(sample), 4)
    judged = judged[sq[judged, -1] > 0]  # which of many copies are neighbours says nothing
    narrow = _narrow(space, near, sample[judged], indices[judged], n_jobs)
    if narrow is not None:
        near, n_candidates, found_in_cells, looks = narrow, k + 1 + _MORE, _FOUND, _LOOKS
    partition = part(near, space.seed)
    n_cells = cells_needed(partition, sample[1::2], indices[1::2], found_in_cells)
    if n_cells is None:
        return None
    n_cells = n_cells if narrow is None else max(n_cells, _FEWEST)
    n_threads = effective_n_jobs(n_jobs)
    candidates = partition_candidates(near, partition, n_cells, min(n_candidates, n), n_threads, looks)
    found = _ranked(space, candidates, partition.order[partition.order >= 0], k, n_jobs)
    within = found.distances[sample[::2]] <= space.finished(sq[::2, -1:]) * (1 + 16 * np.finfo(space.dtype).eps)
    return found._replace(recall=float(within.mean()))


def _narrow(space: Space, near: NearZero, sample: Array, known: Array, n_jobs: Jobs) -> Array | None:
    """Leading principal components of all rows, in which the known neighbours of some are near, too; None of others."""
    from .partition import is_usual, sampled

    n, width = near.shape
    widths = [w for w in _WIDTHS if w <= _OF_COLUMNS * width]
    if not (widths and len(sample)) or width**2 > at_once(_NUMBERS_AT_ONCE):  # of a covariance
        return None
    some = near[sampled(n, np.random.RandomState(space.seed))]
    some = some[is_usual(some)]
    some -= some.mean(axis=0)
    axes = np.linalg.eigh(some.T @ some)[1][:, : -1 - widths[-1] : -1]
    rows: Any = room((n, widths[-1]), np.float32)
    for part in slices(n, max(1, at_once(_NUMBERS_AT_ONCE) // width)):
        np.matmul(near[part], axes, out=rows[part])
    for w in widths:
        narrow = replace(space, X=rows[:, :w], reference=rows[:, :w])
        found = scanned(narrow, min(known.shape[1] + _MORE, n - 1), rows[sample, :w], sample, n_jobs)[0]
        if np.mean([np.isin(*pair).mean() for pair in zip(known, found, strict=True)]) >= _KEPT:
            return rows[:, :w]
    return None


def _ranked(space: Space, candidates: Array, order: Array, k: int, n_jobs: Jobs) -> Neighbors:
    """The nearest of the candidates of rows, which are read in an order, and of all rows where a doubt is left."""
    shape, last = (len(order), k), np.empty(len(order))
    indices, distances = room(shape, np.int32 if len(order) < 2**31 else np.intp), room(shape, space.dtype)

    def settle(rows: Array) -> None:
        indices[rows], distances[rows], last[rows] = rank(space, k, candidates[rows], rows)

    Parallel(n_jobs=n_jobs, require="sharedmem")(
        delayed(settle)(order[part]) for part in gen_batches(len(order), _RANKED)
    )
    raise_if_interrupted()
    unsure = np.flatnonzero(missing_or_copies(True, last))
    if unsure.size:
        few, copied = copies(row_digests(space.X), space.seed, k, unsure)
        indices[unsure[~few]], distances[unsure[~few]] = copied[~few], 0
        rest = unsure[few]
        indices[rest], sq = scanned(space, k, space.X[rest], rest, n_jobs)
        distances[rest] = space.finished(sq)
    return Neighbors(indices, distances, exact=False)
