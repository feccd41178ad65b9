"""Neighbours of rows that a bounded fit has no room for: exact in blocks, or of very many in the cells of a partition.

Rows are read by blocks, and once in the order of cells, into a temporary file of as many bytes as they have in single
precision; what is compared then lies together in it. See `partition`.
"""

from __future__ import annotations

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.utils import gen_batches

from .._core.interrupts import raise_if_interrupted
from .._core.pieces import at_once, room
from .._core.rows import row_digests
from .._core.types import Array, Jobs
from .exact import SPARE, copies, rank
from .proposals import SAMPLE, NearZero, missing_or_copies
from .ring import neighbors_in_blocks, scanned
from .search import Neighbors, is_short, most_neighbors
from .space import Space

_MOST_COMPARED = 2e14  # squared rows times columns, an hour or so
_RANKED = 1024  # rows of a thread


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
    from .partition import cells_needed, part, partition_candidates

    n, near = len(space.X), NearZero(space)
    sample = np.linspace(0, n - 1, min(n, 2 * SAMPLE), dtype=np.intp)
    indices, sq = scanned(space, k, space.X[sample], sample, n_jobs)
    partition = part(near, space.seed)
    n_cells = cells_needed(partition, sample[1::2], indices[1::2])
    if n_cells is None:
        return None
    candidates = partition_candidates(near, partition, n_cells, min(k + 1 + SPARE, n), effective_n_jobs(n_jobs))
    found = _ranked(space, candidates, partition.order[partition.order >= 0], k, n_jobs)
    within = found.distances[sample[::2]] <= space.finished(sq[::2, -1:]) * (1 + 16 * np.finfo(space.dtype).eps)
    return found._replace(recall=float(within.mean()))


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
