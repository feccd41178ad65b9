"""Nearest neighbours, exact wherever that is affordable.

The k neighbours of row i are the k smallest distances `d(x_i, y_j)`. Of rows equally far, for which there is not room
for all, a permutation of j chooses: another one for each i, so that no row is everybody's neighbour. It follows from
`random_state` and from i, or for a new row from its values: a new row has the same neighbours in any batch. Neighbours
come by distance, equally far ones by index. Searches by matrix product, tree, partition or descent only propose
candidates, whose distances are computed afresh; a row that this may have cost a neighbour is compared with all others.
The cosine distance is `|u - v|^2 / 2` of unit rows.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed, effective_n_jobs
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array, check_random_state

from .._core.device import accelerator
from .._core.group import group
from .._core.interrupts import raise_if_interrupted
from .._core.pools import library_threads
from .._core.quiet import quiet
from .._core.rows import mixed_bits, row_digests
from .._core.types import Array, Jobs, Metric, Rows, Seed
from .checks import SHIFT_FREE, checked_matrix, without_negatives
from .space import Space, space_of, sq_norms
from .ties import k_smallest, row_keys

# Largest n^2 (40 + features) searched exactly: 235k rows of 50 features, 78k of 784. That takes no longer than the
# approximate search does in a fresh process, where it compiles.
_EXACT_LIMIT = 5e12
_OTHER_COST = 40  # of a feature of sparse rows, or in a distance that is not euclidean
_TREE_ROWS, _TREE_FEATURES = 5_000, 6  # a k-d tree is faster from so many rows among themselves, up to so many features
_TREE_PAIRS = 2e9  # compared for the sake of ties; beyond, the order of the tree settles them
# On a GPU: rows from which on it is the sooner, and the largest n^2 (40 + features), some 80 s of an H200 (7.4 s for a
# million rows of 50 features; benchmarks/gpu.py).
_DEVICE_ROWS, _DEVICE_LIMIT = 5_000, 1e15
_FEW_ROWS = 1_000  # up to so many, all distances of a row are looked through
_SPARE = 8  # candidates beyond the neighbours wanted
_DESCENT_WIDTH = 31  # neighbours kept by the approximate search: with 16 it loses up to 40%, with 31 up to 12%
_SAMPLE = 256  # rows whose neighbours are compared with the exact ones
_FARTHEST = 1e17  # of numbers in single precision whose squares are summed
_BLOCK = 2**22  # distances that a thread holds at a time

_DESCENT_LOCK = Lock()  # not every threading layer of numba takes two at a time
_DESCENT = {"braycurtis", "canberra", "correlation", "cosine", "hamming", "haversine", "jaccard"} | SHIFT_FREE

_Run: TypeAlias = Callable[[Callable[[Array], tuple], Array], Any]
"""Arrays that a function returns for rows, in blocks; see `_in_blocks`."""
_Doubt: TypeAlias = Callable[[Array], Array]
"""Which rows may lack neighbours, by the squared distance of their last one."""


class Neighbors(NamedTuple):
    """Neighbours, nearest first: `distances[i, a]` is the distance from row i to row `indices[i, a]`.

    `recall` is the fraction of true neighbours among those found, measured on a sample of rows where not `exact`.
    """

    indices: Array
    distances: Array
    exact: bool
    recall: float = 1.0


def nearest_neighbors(
    X: Rows,
    n_neighbors: int,
    *,
    metric: Metric = "euclidean",
    metric_params: dict | None = None,
    n_jobs: Jobs = None,
    random_state: Seed = None,
    ranked: bool = True,
    name: str = "X",
) -> Neighbors:
    """The n_neighbors smallest distances `d(x_i, x_j)`, j != i, of each row i, in single precision where X is.

    A row is excluded by its index: its copies are neighbours, at distance 0. The result is exact, and the same for any
    number of threads, up to some 100,000 rows (the more, the fewer features), in metrics that lack an approximate
    search, and in up to 6 features. Otherwise a partition proposes the neighbours, of dense rows in euclidean and
    cosine distance that lend themselves to one, or pynndescent does, and their distances are computed afresh. Where a
    fit works on CUDA, the euclidean neighbours of 5,000 and more dense rows are exact up to some millions.

    Where metric is "precomputed", X holds distances (n, n), dense, or sparse with each row's candidates as its explicit
    entries. In a fit by several ranks X holds those of this one, and indices are numbers among the rows of all: always
    exact, of dense rows in euclidean, squared euclidean and cosine distance alone.

    On sparse rows metrics are "euclidean", "sqeuclidean", "manhattan", "cosine" or a callable. `V` (seuclidean) and
    `VI` (mahalanobis) default to those of the rows searched. `random_state` seeds the permutations that settle ties,
    where None is 0, and the approximate search, which repeats its bits with the same number of threads. Without
    `ranked` neighbours come by index, sooner, where they are all other rows. `name` is for errors.
    """
    X = _validated(X, name)
    if metric == "precomputed":
        X = checked_matrix(X)
    space = space_of(X, X, metric, metric_params, (name, name), True, _seed_of_ties(random_state))
    if group().several:
        from .ring import ring_neighbors

        return ring_neighbors(space, n_neighbors, n_jobs)
    return _search(space, n_neighbors, n_jobs, random_state, ranked)


def cross_neighbors(
    X: Rows,
    reference: Rows,
    n_neighbors: int,
    *,
    metric: Metric = "euclidean",
    metric_params: dict | None = None,
    n_jobs: Jobs = None,
    random_state: Seed = None,
) -> Neighbors:
    """The n_neighbors smallest distances `d(x_i, y_j)` of each row x_i of X, for the rows y_j of reference.

    Always exact: a row has the same neighbours, bit for bit, alone and in any batch. n_neighbors is at most the number
    of reference rows. Where metric is "precomputed", X holds distances (n_new, n_reference) and reference is ignored.
    Otherwise as `nearest_neighbors`.
    """
    X = _validated(X, "X")
    if metric == "precomputed":
        X = without_negatives(X, "metric='precomputed'")
        reference = sp.csr_array((X.shape[1], X.shape[1]), dtype=X.dtype)  # stands in for the unknown rows
    else:
        reference = _validated(reference, "reference")
        if X.shape[1] != reference.shape[1]:
            raise ValueError(f"X has {X.shape[1]} features, but the reference has {reference.shape[1]}")
        if sp.issparse(X) != sp.issparse(reference):
            X, reference = sp.csr_array(X), sp.csr_array(reference)
    names, seed = ("X", "reference"), _seed_of_ties(random_state)
    return _search(space_of(X, reference, metric, metric_params, names, False, seed), n_neighbors, n_jobs, random_state)


def graph_neighbors(X: Rows) -> int:
    """How many other rows each row of a graph of distances has as neighbours, or all others where X is dense."""
    if not sp.issparse(X):
        return X.shape[0] - 1
    graph = _validated(X, "X")
    r = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    return int(np.bincount(r[r != graph.indices], minlength=graph.shape[0]).min())


def _seed_of_ties(random_state: Seed) -> int:
    """A number that follows from a seed; a generator is left as it is."""
    return 0 if random_state is None else int(deepcopy(check_random_state(random_state)).randint(2**31 - 1))


def count_components(indices: Array) -> Array:
    """Sizes, largest first, of the connected components of the graph that joins i to every `indices[i, a]`."""
    n, k = indices.shape
    edges = (np.ones(n * k, dtype=bool), (np.repeat(np.arange(n), k), np.ravel(indices)))
    labels = connected_components(sp.csr_array(edges, shape=(n, n)), directed=False)[1]
    return np.sort(np.bincount(labels))[::-1]


def _validated(rows: Rows, name: str) -> Rows:
    rows = check_array(rows, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", input_name=name)
    if sp.issparse(rows):  # with 32-bit indices if possible, as not every search takes others
        narrow = np.int32 if max(rows.nnz, rows.shape[1]) < 2**31 else np.int64
        indices, indptr = (array.astype(narrow, copy=False) for array in (rows.indices, rows.indptr))
        rows = type(rows)((rows.data, indices, indptr), shape=rows.shape)
        if not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
    return rows


def _search(space: Space, k: int, n_jobs: Jobs, random_state: Seed, ranked: bool = True) -> Neighbors:
    """Propose candidates, rank them by distances computed afresh, and scan all rows where that leaves a doubt.

    Of rows of one rank among several the search is exact, however many there are.
    """
    (n, width), sparse = space.reference.shape, sp.issparse(space.X)
    limit, name = (n - 1, "n - 1") if space.own else (n, "n_reference")
    if not isinstance(k, int | np.integer) or not 1 <= k <= limit:
        raise ValueError(f"n_neighbors={k!r} must be an integer from 1 to {name} = {limit}")
    if sparse and space.metric == "precomputed":
        return _search_graph(space, k)
    cost = _OTHER_COST * space.X.nnz / n if sparse else width * (1 if space.root else _OTHER_COST)
    descent = space.own and space.metric in _DESCENT and set(space.params) <= {"p", "V", "VI"}
    total = n**2 * (40.0 + cost)
    alone = space.first_row is None
    affordable = total <= _EXACT_LIMIT or not (descent and alone)
    least = _TREE_ROWS if space.own else min(_TREE_ROWS, _FEW_ROWS)
    tree = bool(space.root) and not sparse and width <= _TREE_FEATURES and n >= max(least, 20 * k)
    if space.compiled and n_jobs is None:
        from .._core.team import n_threads

        n_jobs = n_threads()
    run, rows = partial(_in_blocks, n, n_jobs), np.arange(space.X.shape[0])
    if k == limit and space.own and not ranked:
        indices, distances = run(partial(_others, space), rows)
        return Neighbors(indices, distances, exact=True)
    large = n >= _DEVICE_ROWS and not (sparse or tree)
    device = accelerator() if alone and space.own and space.root and large else None
    if device is not None and total <= _DEVICE_LIMIT:
        return _search_on(device, space, k, rows, run)
    by_products = bool(space.root) and not sparse and n >= max(_FEW_ROWS, 4 * (k + _SPARE))
    if affordable and not (by_products or tree):
        indices, distances = _scan_all(space, k, rows, run)
        return Neighbors(indices, distances, exact=True)
    candidates: Any
    if tree or (affordable and not space.compiled):
        candidates, doubt = _propose(space, k, tree, n_jobs)
    elif affordable:
        candidates, doubt = _propose_compiled(space, k, n_jobs)
    else:
        candidates = _propose_by_partition(space, k, n_jobs, run) if space.compiled else None
        if candidates is None:
            candidates = _descend(space, k, n_jobs, random_state)
        doubt = partial(_missing_or_copies, bool(space.root) and not sparse)
    return _nearest_of(space, k, candidates, doubt, run, exact=affordable or tree)


def _nearest_of(space: Space, k: int, candidates: Array, doubt: _Doubt, run: _Run, exact: bool) -> Neighbors:
    """The nearest of the candidates, and of all rows where a doubt is left; where not exact, how many are found."""
    n, rows = space.reference.shape[0], np.arange(space.X.shape[0])
    indices, distances, last = run(lambda part: _rank(space, k, candidates[part], part), rows)
    unsure = rows[doubt(last)]
    if unsure.size:
        indices[unsure], distances[unsure] = _scan_all(space, k, unsure, run)
    if exact:
        return Neighbors(indices, distances, exact=True)
    sample = np.linspace(0, n - 1, min(n, _SAMPLE), dtype=np.intp)
    farthest = _scan_all(space, k, sample, run)[1][:, -1:]
    near = distances[sample] <= farthest * (1 + 16 * np.finfo(space.dtype).eps)
    return Neighbors(indices, distances, exact=False, recall=float(near.mean()))


def _missing_or_copies(has_copies: bool, last: Array) -> Array:
    """Which rows lack neighbours, or have only copies as such, of which there may be more."""
    return np.isinf(last) | (has_copies & (last == 0))


def _search_on(device: str, space: Space, k: int, rows: Array, run: _Run) -> Neighbors:
    """By a device of torch; here what is left to choose among equally far rows, and what rounding leaves in doubt."""
    from .cuda import nearest_rows

    candidates, sq_distances, sure, settled = nearest_rows(space.X, k, _SPARE, device)
    indices, distances = candidates[:, :k].copy(), _finished(space, np.where(sure[:, None], sq_distances, 0))
    left = rows[sure & ~settled]
    if left.size:
        indices[left], distances[left], _ = run(lambda part: _rank(space, k, candidates[part], part), left)
    if not sure.all():
        indices[~sure], distances[~sure] = _scan_all(space, k, rows[~sure], run)
    return Neighbors(indices, distances, exact=True)


def _in_blocks(n: int, n_jobs: Jobs, function: Callable[[Array], tuple], rows: Array) -> Any:
    """Arrays = function(rows), in threads that take a block of rows at a time."""
    size = int(np.clip(_BLOCK // n, 32, 4096))
    blocks = (delayed(function)(rows[start : start + size]) for start in range(0, len(rows), size))
    found = Parallel(n_jobs=n_jobs, require="sharedmem")(blocks)
    raise_if_interrupted()
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _propose(space: Space, k: int, tree: bool, n_jobs: Jobs) -> tuple[Array, _Doubt]:
    """(candidates, what leaves a doubt) by scikit-learn's searches, of a tree among rows in random order."""
    n, n_candidates = space.reference.shape[0], k + space.own + _SPARE
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


def _propose_compiled(space: Space, k: int, n_jobs: Jobs) -> tuple[Array, _Doubt]:
    """(candidates, what leaves a doubt), by products in single precision of rows brought near zero."""
    from .brute_force import FAR_NORM, nearest_candidates

    X, reference, scale = _near_zero(space)
    n_candidates = min(len(reference), k + space.own + _SPARE)
    candidates, sq_limit = nearest_candidates(X, reference, n_candidates, effective_n_jobs(n_jobs))
    if n_candidates == len(reference):
        return candidates, np.isinf
    norm = np.sqrt(sq_norms(X))

    def doubt(last: Array) -> Array:
        """Rows farther from the centre than `reach` are no neighbours; the error of products with others is bounded."""
        sq = last / scale**2
        reach = norm + np.sqrt(sq)
        single, width = np.finfo(np.float32), X.shape[1] + 16
        error = width * (2 * single.eps * (norm**2 + reach**2) + single.tiny)
        return ~((sq * (1 + 32 * np.finfo(space.dtype).eps) < sq_limit - error) & (reach < FAR_NORM))

    return candidates, doubt


def _propose_by_partition(space: Space, k: int, n_jobs: Jobs, run: _Run) -> Array | None:
    """Candidates in the nearest cells of a partition, or None where that would compare most rows with most others."""
    from .partition import cells_needed, part, partition_candidates

    X, n = _near_zero(space)[0], len(space.X)
    partition, sample = part(X, space.seed), np.linspace(0, n - 1, min(n, _SAMPLE) + 2, dtype=np.intp)[1:-1:2]
    n_cells = cells_needed(partition, sample, _scan_all(space, k, sample, run)[0])
    if n_cells is None:
        return None
    return partition_candidates(X, partition, n_cells, min(k + 1 + _SPARE, n), effective_n_jobs(n_jobs))


def _near_zero(space: Space) -> tuple[Array, Array, float]:
    """(rows, reference, scale): in single precision, about the centre and in units of a usual distance from it."""
    sample = space.reference[:: max(1, len(space.reference) // 1024)]
    centre = np.median(sample, axis=0).astype(np.float64)
    norms = np.sqrt(sq_norms(sample - centre))
    scale = 2.0 ** np.ceil(np.log2(np.median(norms[norms > 0]) if norms.any() else 1.0))
    reference = _rescaled(space.reference, centre, scale)
    return (reference if space.own else _rescaled(space.X, centre, scale)), reference, scale


def _rescaled(rows: Array, centre: Array, scale: float) -> Array:
    """(rows - centre) / scale in single precision; the farthest, which are no neighbours, are brought nearer."""
    out = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), 4096):
        part = slice(start, start + 4096)
        out[part] = np.clip((rows[part] - centre) / scale, -_FARTHEST, _FARTHEST)
    return out


def _keys_at(space: Space, rows: Array, at: Array) -> Array:
    """`Space.keys` of the rows at some positions."""
    return space.keys(rows[at])


def _rank(space: Space, k: int, candidates: Array, rows: Array) -> tuple[Array, Array, Array]:
    """The k nearest of the candidates (-1 is none) of a block of rows, and the last one's squared distance."""
    c = np.sort(candidates, axis=1)
    if space.root:
        d = space.pairs(np.repeat(rows, c.shape[1]), c.ravel()).reshape(c.shape)
    else:
        near = (space.to_all(space.X[[i]], space.reference[j]) for i, j in zip(rows, c, strict=True))
        d = np.concatenate(list(near))
    d[(c < 0) | (space.own & (c == rows[:, None]))] = np.inf
    indices, d = k_smallest(d, c + space.first_key, k, partial(_keys_at, space, rows))
    return indices, _finished(space, d), d[:, -1]


def _finished(space: Space, d: Array) -> Array:
    """Distances from squared ones where these are compared; infinite ones are to be computed anew."""
    return space.finished(np.where(np.isinf(d), 0, d)) if space.root else d


def _scan_all(space: Space, k: int, rows: Array, run: _Run) -> tuple[Array, Array]:
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

        own, n_candidates = rows if space.own else np.full(len(rows), -1), min(k + _SPARE, n - space.own)
        keys = space.keys(rows)
        candidates = scan_candidates(space.X[rows], space.reference, own, keys, space.first_key, n_candidates)
        return _rank(space, k, candidates, rows)[:2]
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


def _others(space: Space, rows: Array) -> tuple[Array, Array]:
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


def _search_graph(space: Space, k: int) -> Neighbors:
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
    return Neighbors(indices, distances, exact=True)


def _descent_class() -> Any:
    from pynndescent import NNDescent

    return NNDescent


def _descend(space: Space, k: int, n_jobs: Jobs, random_state: Seed) -> Array:
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
