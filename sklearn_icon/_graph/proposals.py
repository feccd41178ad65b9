"""Candidates for neighbours, and what leaves a doubt whether one is missing among them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state

from .._core.pieces import slices
from .._core.pools import library_threads
from .._core.quiet import quiet
from .._core.types import Array, Jobs, Seed
from .checks import SHIFT_FREE
from .exact import SPARE
from .space import Space, sq_norms

_TREE_PAIRS = 2e9  # compared for the sake of ties; beyond, the order of the tree settles them
_DESCENT_WIDTH = 31  # neighbours kept by the approximate search: with 16 it loses up to 40%, with 31 up to 12%
SAMPLE = 256  # rows whose neighbours are compared with the exact ones
_FARTHEST = 1e17  # of numbers in single precision whose squares are summed

_DESCENT_LOCK = Lock()  # not every threading layer of numba takes two at a time
DESCENT = {"braycurtis", "canberra", "correlation", "cosine", "hamming", "haversine", "jaccard"} | SHIFT_FREE

Doubt: TypeAlias = Callable[[Array], Array]
"""Which rows may lack neighbours, by the squared distance of their last one."""


def missing_or_copies(has_copies: bool, last: Array) -> Array:
    """Which rows lack neighbours, or have only copies as such, of which there may be more."""
    return np.isinf(last) | (has_copies & (last == 0))


def propose(space: Space, k: int, tree: bool, n_jobs: Jobs) -> tuple[Array, Doubt]:
    """(candidates, what leaves a doubt) by scikit-learn's searches, of a tree among rows in random order."""
    n, n_candidates = space.reference.shape[0], k + space.own + SPARE
    if tree:
        order = np.random.RandomState(space.seed).permutation(n)
        rows, reference, norm, rounding = space.X, space.reference[order], 0.0, 0.0
    else:
        rows, reference, sq_left, _, rounding = space.products
        order, norm = np.arange(n), np.sqrt(sq_left)
    search = NearestNeighbors(algorithm="kd_tree" if tree else "brute", n_jobs=n_jobs).fit(reference)
    with library_threads(None if n_jobs is None else effective_n_jobs(n_jobs)):
        distances, candidates = search.kneighbors(rows, n_candidates)
    beyond = distances[:, -1].astype(np.float64) ** 2

    def doubt(last: Array) -> Array:
        error = rounding * (norm**2 + (norm + np.sqrt(last)) ** 2)
        unsure = last * (1 + 32 * np.finfo(reference.dtype).eps) >= beyond - error
        few = not tree or np.count_nonzero(unsure & (last > 0)) * float(n) <= _TREE_PAIRS
        return unsure if few else unsure & (last == 0)

    return order[candidates], doubt


def propose_compiled(space: Space, k: int, n_jobs: Jobs) -> tuple[Array, Doubt]:
    """(candidates, what leaves a doubt), by products in single precision of rows brought near zero."""
    from .brute_force import FAR_NORM, nearest_candidates

    n = len(space.reference)
    n_candidates = min(n, k + space.own + SPARE)
    near, right = (NearZero(space), None) if space.own else _reference_of(space)
    X, scale = near.of(space.X), near.scale
    candidates, sq_limit = nearest_candidates(X, right, n_candidates, effective_n_jobs(n_jobs))
    if n_candidates == n:
        return candidates, np.isinf
    norm = np.sqrt(sq_norms(X))

    def doubt(last: Array) -> Array:
        """Rows farther from the centre than `reach` are no neighbours; the error of products with others is bounded."""
        sq = last / scale**2
        reach = norm + np.sqrt(sq)
        error = error_of_products(norm, reach, X.shape[1])
        return ~((sq * (1 + 32 * np.finfo(space.dtype).eps) < sq_limit - error) & (reach < FAR_NORM))

    return candidates, doubt


def _reference_of(space: Space) -> tuple[NearZero, Array]:
    """The reference near zero and its right factor; those of before where it is searched again."""
    from .brute_force import factors

    index = {} if space.index is None else space.index
    if not index:
        near = NearZero(space)
        index["near"] = near, factors(near.of(space.reference))[1]
    return index["near"]


def error_of_products(norm: Array, reach: Array, width: int) -> Array:
    """Of squared distances in single precision, of rows to others, from norms and from those of the farthest others."""
    single = np.finfo(np.float32)
    return (width + 16) * (2 * single.eps * (norm**2 + reach**2) + single.tiny)


def propose_by_partition(space: Space, k: int, n_jobs: Jobs, exact: Callable[[Array], Any]) -> Array | None:
    """Candidates in the nearest cells of a partition, or None where that would compare most rows with most others.

    `exact` finds the neighbours of some rows among all.
    """
    from .partition import cells_needed, part, partition_candidates

    n, X = len(space.X), NearZero(space)
    partition, sample = part(X, space.seed), np.linspace(0, n - 1, min(n, SAMPLE) + 2, dtype=np.intp)[1:-1:2]
    n_cells = cells_needed(partition, sample, exact(sample).indices)
    if n_cells is None:
        return None
    return partition_candidates(X, partition, n_cells, min(k + 1 + SPARE, n), effective_n_jobs(n_jobs))


def near_zero(space: Space) -> tuple[Array, Array, float]:
    """(rows, reference, scale): in single precision, about the centre and in units of a usual distance from it."""
    near = NearZero(space)
    reference = near.of(space.reference)
    return (reference if space.own else near.of(space.X)), reference, near.scale


class NearZero:
    """Rows of a reference by slices and numbers, about its centre, in units of a usual distance: single precision."""

    def __init__(self, space: Space) -> None:
        self.rows, self.shape = space.reference, space.reference.shape
        sample = self.rows[:: max(1, len(self.rows) // 1024)]
        self.centre = np.median(sample, axis=0).astype(np.float64)
        norms = np.sqrt(sq_norms(sample - self.centre))
        self.scale = 2.0 ** np.ceil(np.log2(np.median(norms[norms > 0]) if norms.any() else 1.0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Array:
        return self.of(self.rows[rows])

    def of(self, rows: Array) -> Array:
        """(rows - centre) / scale; the farthest, which are no neighbours, are brought nearer."""
        out = np.empty(rows.shape, dtype=np.float32)
        for part in slices(len(rows), 4096):
            out[part] = np.clip((rows[part] - self.centre) / self.scale, -_FARTHEST, _FARTHEST)
        return out


def _descent_class() -> Any:
    from pynndescent import NNDescent

    return NNDescent


def descend(space: Space, k: int, n_jobs: Jobs, random_state: Seed) -> Array:
    """Candidates from pynndescent: the row itself as a rule, -1 where it finds none."""
    rng = np.random.RandomState() if random_state is None else check_random_state(random_state)
    rows = space.reference.astype(np.float32)
    rows = sp.csr_matrix(rows) if sp.issparse(rows) else rows  # pynndescent 0.5 knows no sparse arrays
    import numba

    from .._core.compiled import with_cache
    from .._core.team import n_threads

    # Of missing neighbours, which are repaired; numba on pynndescent's code.
    with _DESCENT_LOCK, quiet(module="pynndescent"), quiet(category=numba.errors.NumbaWarning):
        NNDescent = with_cache(_descent_class)
        before = numba.get_num_threads()
        try:
            return NNDescent(
                rows,
                metric="euclidean" if space.root else space.metric,
                metric_kwds=space.params,
                n_neighbors=min(rows.shape[0], max(k + 1, _DESCENT_WIDTH)),
                n_jobs=min(n_threads(n_jobs), before),
                random_state=int(rng.randint(np.iinfo(np.int32).max)),
            ).neighbor_graph[0]
        finally:
            numba.set_num_threads(before)
