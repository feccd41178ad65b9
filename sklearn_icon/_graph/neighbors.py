"""Nearest neighbours, exact wherever that is affordable.

The k neighbours of row i are the k smallest pairs `(d(x_i, y_j), j)` in lexicographic order: of equally far rows the
lower index comes first. Euclidean distances come from `sum_f (x_if - y_jf)^2` in double precision, so copies lie at
distance 0, and neither a common offset nor the other rows of a batch change a result. Searches by matrix product, tree
or descent only propose candidates; a row that this may have cost a neighbour is compared with all others. The cosine
distance is `|u - v|^2 / 2` of unit rows.
"""

from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed, effective_n_jobs
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import PAIRWISE_BOOLEAN_FUNCTIONS, euclidean_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array, check_random_state
from threadpoolctl import threadpool_limits

from .._core.device import accelerator
from .._core.interrupts import raise_if_interrupted
from .._core.quiet import quiet

# Largest n^2 (40 + features) searched exactly: 235k rows of 50 features, 78k of 784. That takes no longer than the
# approximate search does in a fresh process, where it compiles.
_EXACT_LIMIT = 5e12
_COMPILED_ROWS = 10_000  # from so many rows on, compiled loops scan the matrix products
_OTHER_COST = 40  # of a feature of sparse rows, or in a distance that is not euclidean
_TREE_ROWS, _TREE_FEATURES = 5_000, 6  # a k-d tree is faster from so many rows, up to so many features
# On a GPU: rows from which on it is the sooner, and the largest n^2 (40 + features), some 80 s of an H200 (7.4 s for a
# million rows of 50 features; benchmarks/gpu.py).
_DEVICE_ROWS, _DEVICE_LIMIT = 5_000, 1e15
_SPARE = 8  # candidates beyond the neighbours wanted
_DESCENT_WIDTH = 31  # neighbours kept by the approximate search: with 16 it loses up to 40%, with 31 up to 12%
_SAMPLE = 256  # rows whose neighbours are compared with the exact ones
_BLOCK = 2**22  # distances that a thread holds at a time

_DESCENT_LOCK = Lock()  # not every threading layer of numba takes two at a time

_NAMES = {"l2": "euclidean", "l1": "manhattan", "cityblock": "manhattan"}
_ROOTS = {"euclidean": np.sqrt, "sqeuclidean": np.positive, "cosine": partial(np.multiply, 0.5)}
_SHIFT_FREE = {"chebyshev", "euclidean", "mahalanobis", "manhattan", "minkowski", "seuclidean", "sqeuclidean"}
_DESCENT = {"braycurtis", "canberra", "correlation", "cosine", "hamming", "haversine", "jaccard"} | _SHIFT_FREE
_SPARSE = {"cosine", "euclidean", "manhattan", "precomputed", "sqeuclidean"}


class Neighbors(NamedTuple):
    """Neighbours, nearest first: `distances[i, a]` is the distance from row i to row `indices[i, a]`.

    `recall` is the share of true neighbours among those found, measured on a sample of rows where not `exact`.
    """

    indices: np.ndarray
    distances: np.ndarray
    exact: bool
    recall: float = 1.0


class _Space(NamedTuple):
    """The rows to search from and among; where `root` is set, a distance is `root(squared euclidean)`."""

    X: Any
    reference: Any
    metric: Any
    params: dict
    root: Any
    sq_max: float  # largest squared norm of a reference row, where `root` is set
    dtype: Any
    compiled: bool  # whether loops of our own do the work
    own: bool  # the rows are searched among themselves, and none is its own neighbour


def nearest_neighbors(
    X, n_neighbors, *, metric="euclidean", metric_params=None, n_jobs=None, random_state=None, ranked=True, name="X"
) -> Neighbors:
    """The n_neighbors smallest `(d(x_i, x_j), j)`, j != i, of each row i.

    A row is excluded by its index: its copies are neighbours, at distance 0. The result is exact, and the same for any
    number of threads, up to some 100,000 rows (the more, the fewer features), in metrics that lack an approximate
    search, and in up to 6 features (where of so many rows ties for the last place are settled repeatably, but not by
    index). Otherwise pynndescent proposes the neighbours, and their distances are computed afresh. Where a fit works on
    CUDA, the euclidean neighbours of 5,000 and more dense rows are exact up to some millions.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n, n_features)
        The rows; where metric is "precomputed" their distances (n, n), dense, or sparse with each row's candidates as
        its explicit entries.
    n_neighbors : int
        Number of neighbours, at most n - 1.
    metric : str or callable
        Any metric of `sklearn.neighbors.NearestNeighbors` for complete data; on sparse rows "euclidean",
        "sqeuclidean", "manhattan", "cosine" or a callable.
    metric_params : dict, optional
        Arguments of the metric. `V` (seuclidean) and `VI` (mahalanobis) default to those of the rows searched.
    n_jobs : int, optional
        Number of threads; None leaves it to scikit-learn, to pynndescent and to `joblib.parallel_config`.
    random_state : int, RandomState or None
        Seed of the approximate search, which repeats its bits with the same number of threads.
    ranked : bool, default=True
        Whether the nearest come first even where all other rows are neighbours; else these come by index, sooner.
    name : str, default="X"
        What errors call the rows.

    Returns
    -------
    Neighbors
        Indices and distances of shape (n, n_neighbors), in single precision where X is; whether they are
        exact, and what share of them is found.
    """
    X = _validated(X, name)
    if metric == "precomputed" and X.shape[0] != X.shape[1]:
        raise ValueError(f"metric='precomputed' needs a square matrix of distances, got shape {X.shape}")
    return _search(_space(X, X, metric, metric_params, name), n_neighbors, n_jobs, random_state, ranked)


def cross_neighbors(
    X, reference, n_neighbors, *, metric="euclidean", metric_params=None, n_jobs=None, random_state=None
) -> Neighbors:
    """The n_neighbors smallest `(d(x_i, y_j), j)` of each row x_i of X, for the rows y_j of reference.

    Always exact: a row has the same neighbours, bit for bit, alone and in any batch. n_neighbors is at most the number
    of reference rows. Where metric is "precomputed", X holds distances (n_new, n_reference) and reference is ignored.
    Nothing is random; otherwise as `nearest_neighbors`.
    """
    X = _validated(X, "X")
    if metric == "precomputed":
        reference = sp.csr_array((X.shape[1], X.shape[1]), dtype=X.dtype)  # stands in for the unknown rows
    else:
        reference = _validated(reference, "reference")
        if X.shape[1] != reference.shape[1]:
            raise ValueError(f"X has {X.shape[1]} features, but the reference has {reference.shape[1]}")
        if sp.issparse(X) != sp.issparse(reference):
            X, reference = sp.csr_array(X), sp.csr_array(reference)
    return _search(
        _space(X, reference, metric, metric_params, "reference", own=False), n_neighbors, n_jobs, random_state
    )


def count_components(indices) -> np.ndarray:
    """Sizes, largest first, of the connected components of the graph that joins i to every `indices[i, a]`."""
    n, k = indices.shape
    edges = (np.ones(n * k, dtype=bool), (np.repeat(np.arange(n), k), np.ravel(indices)))
    labels = connected_components(sp.csr_array(edges, shape=(n, n)), directed=False)[1]
    return np.sort(np.bincount(labels))[::-1]


def _validated(rows, name):
    rows = check_array(rows, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", input_name=name)
    if sp.issparse(rows):  # with 32-bit indices if possible, as not every search takes others
        narrow = np.int32 if max(rows.nnz, rows.shape[1]) < 2**31 else np.int64
        indices, indptr = (array.astype(narrow, copy=False) for array in (rows.indices, rows.indptr))
        rows = type(rows)((rows.data, indices, indptr), shape=rows.shape)
        if not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
    return rows


def _space(X, reference, metric, metric_params, name, own=True) -> _Space:
    """The problem in a canonical form: the metric's plain name, all its parameters, the rows it compares."""
    metric, params = _NAMES.get(metric, metric), dict(metric_params or {})
    if metric == "minkowski" and set(params) <= {"p"} and params.get("p", 2) in (1, 2, np.inf):
        metric = {1: "manhattan", 2: "euclidean", np.inf: "chebyshev"}[params.pop("p", 2)]
    if sp.issparse(X) and not callable(metric) and metric not in _SPARSE:
        raise ValueError(f"metric={metric!r} does not work on sparse rows; choose one of {sorted(_SPARSE)}")
    if metric == "precomputed" and X.min() < 0:
        raise ValueError("metric='precomputed' needs distances, but some are negative; clip them at 0")
    dtype, root = np.result_type(X.dtype, reference.dtype), None if params else _ROOTS.get(metric)
    convert = partial(_compared, metric, _exact_shift(reference) if metric in _SHIFT_FREE else 0)
    reference = convert(reference, name)
    if metric == "seuclidean":
        params.setdefault("V", reference.var(axis=0, ddof=1, dtype=np.float64))
    elif metric == "mahalanobis":
        params.setdefault("VI", np.linalg.inv(np.atleast_2d(np.cov(reference, rowvar=False))))
    X, sq_max = reference if own else convert(X, "X"), _sq_norms(reference).max() if root else 0.0
    compiled = bool(root) and not sp.issparse(X) and reference.shape[0] >= _COMPILED_ROWS
    return _Space(X, reference, metric, params, root, sq_max, dtype, compiled, own)


def _exact_shift(rows):
    """An offset of all rows that floating point subtracts without error (Sterbenz's lemma)."""
    if sp.issparse(rows):
        return 0
    low, high = rows.min(axis=0), rows.max(axis=0)
    return np.where(((low > 0) & (high <= 2 * low)) | ((high < 0) & (low >= 2 * high)), rows[0], 0)


def _compared(metric, shift, rows, name):
    """Rows less the shift, as truth values for a boolean metric, of unit length for the cosine."""
    if metric in PAIRWISE_BOOLEAN_FUNCTIONS:
        return rows != 0
    if metric != "cosine":
        return rows - shift if np.any(shift) else rows
    norms = np.sqrt(_sq_norms(rows))
    bad = np.flatnonzero(norms == 0)
    if bad.size:
        listed = ", ".join(map(str, bad[:5])) + (", ..." if bad.size > 5 else "")
        raise ValueError(
            f"metric='cosine' is undefined for rows of zeros; rows [{listed}] ({bad.size} in all) of {name} are zero: "
            "drop them, or use metric='euclidean'"
        )
    inverse = 1 / norms[:, None]
    return rows.multiply(inverse).tocsr() if sp.issparse(rows) else rows * inverse


def _sq_norms(rows):
    """Sums of squares in double precision, each the same for a row alone and among others."""
    if sp.issparse(rows):
        return np.asarray(rows.astype(np.float64).power(2).sum(axis=1)).ravel()
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


def _search(space, k, n_jobs, random_state, ranked=True) -> Neighbors:
    """Propose candidates, rank them by distances computed afresh, and scan all rows where that leaves a doubt."""
    (n, width), sparse = space.reference.shape, sp.issparse(space.X)
    limit, name = (n - 1, "n - 1") if space.own else (n, "n_reference")
    if not isinstance(k, int | np.integer) or not 1 <= k <= limit:
        raise ValueError(f"n_neighbors={k!r} must be an integer from 1 to {name} = {limit}")
    if sparse and space.metric == "precomputed":
        return _search_graph(space, k)
    cost = _OTHER_COST * space.X.nnz / n if sparse else width * (1 if space.root else _OTHER_COST)
    descent = space.own and space.metric in _DESCENT and set(space.params) <= {"p", "V", "VI"}
    total = n**2 * (40.0 + cost)
    affordable = total <= _EXACT_LIMIT or not descent
    tree = bool(space.root) and not sparse and width <= _TREE_FEATURES and n >= max(_TREE_ROWS, 20 * k)
    if space.compiled and n_jobs is None:
        from .._core.team import n_threads

        n_jobs = n_threads()
    run, rows = partial(_in_blocks, n, n_jobs), np.arange(space.X.shape[0])
    if k == limit and space.own and not (ranked or sparse):
        indices, distances = run(partial(_others, space), rows)
        return Neighbors(indices, distances, exact=True)
    device = accelerator() if space.own and space.root and not (sparse or tree) and n >= _DEVICE_ROWS else None
    if device is not None and total <= _DEVICE_LIMIT:
        return _search_on(device, space, k, rows, run)
    if affordable and not space.root:
        indices, distances = run(partial(_scan, space, k), rows)
        return Neighbors(indices, distances, exact=True)
    if affordable and space.compiled and not tree:
        candidates, beyond = _propose_compiled(space, k, n_jobs)
    elif affordable or tree:
        candidates, beyond = _propose(space, k, tree, n_jobs)
    else:
        candidates, beyond = _descend(space, k, n_jobs, random_state), np.inf
    indices, distances = run(partial(_rank, space, k, candidates), rows)
    sure = distances[:, -1] * (1 + 16 * np.finfo(space.dtype).eps) < (beyond if affordable else np.inf)
    if not sure.all():
        indices[~sure], distances[~sure] = run(partial(_scan, space, k), rows[~sure])
    if affordable or tree:
        return Neighbors(indices, distances, exact=True)
    sample = np.linspace(0, n - 1, min(n, _SAMPLE), dtype=np.intp)
    farthest = run(partial(_scan, space, k), sample)[1][:, -1:]
    near = distances[sample] <= farthest * (1 + 16 * np.finfo(space.dtype).eps)
    return Neighbors(indices, distances, exact=False, recall=float(near.mean()))


def _search_on(device, space, k, rows, run) -> Neighbors:
    """By a device of torch; here what is left to choose among equally far rows, and what rounding leaves in doubt."""
    from .cuda import nearest_rows

    candidates, sq_distances, sure, settled = nearest_rows(space.X, k, _SPARE, device)
    indices, distances = candidates[:, :k].copy(), space.root(sq_distances).astype(space.dtype, copy=False)
    for left, search in ((sure & ~settled, partial(_rank, space, k, candidates)), (~sure, partial(_scan, space, k))):
        if left.any():
            indices[left], distances[left] = run(search, rows[left])
    return Neighbors(indices, distances, exact=True)


def _in_blocks(n, n_jobs, function, rows):
    """(indices, distances) = function(rows), in threads that take a block of rows at a time."""
    size = int(np.clip(_BLOCK // n, 32, 4096))
    blocks = (delayed(function)(rows[start : start + size]) for start in range(0, len(rows), size))
    found = Parallel(n_jobs=n_jobs, require="sharedmem")(blocks)
    raise_if_interrupted()
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _propose(space, k, tree, n_jobs):
    """(candidates, a distance that no other row comes within) for each row, by scikit-learn's fast searches."""
    n, n_candidates = space.reference.shape[0], k + space.own + _SPARE
    if n_candidates >= n:
        return np.broadcast_to(np.arange(n), (space.X.shape[0], n)), np.inf
    search = NearestNeighbors(algorithm="kd_tree" if tree else "brute", n_jobs=n_jobs).fit(space.reference)
    with threadpool_limits(None if n_jobs is None else effective_n_jobs(n_jobs)):
        distances, candidates = search.kneighbors(space.X, n_candidates)
    beyond = distances[:, -1].astype(np.float64) ** 2 - _sq_error(space, space.X)
    return candidates, space.root(np.maximum(beyond, 0))


def _propose_compiled(space, k, n_jobs):
    """As `_propose`, by products in single precision of rows brought near zero."""
    from .brute_force import nearest_candidates

    low, high = space.reference.min(axis=0), space.reference.max(axis=0)
    centre = low / 2 + high / 2
    scale = 2.0 ** np.ceil(np.log2(max((high - centre).max(), np.finfo(np.float64).tiny)))
    reference = _rescaled(space.reference, centre, scale)
    X = reference if space.own else _rescaled(space.X, centre, scale)
    n_candidates = min(len(reference), k + space.own + _SPARE)
    candidates, sq_limit = nearest_candidates(X, reference, n_candidates, effective_n_jobs(n_jobs))
    if n_candidates == len(reference):
        return candidates, np.inf
    sq = _sq_norms(X)
    largest = sq.max() if space.own else _sq_norms(reference).max()
    beyond = sq_limit - 2 * np.finfo(np.float32).eps * (X.shape[1] + 16) * (sq + largest)
    return candidates, space.root(np.maximum(beyond, 0) * scale**2)


def _rescaled(rows, centre, scale):
    """(rows - centre) / scale in single precision."""
    out = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), 4096):
        part = slice(start, start + 4096)
        out[part] = (rows[part] - centre) / scale
    return out


def _sq_error(space, rows):
    """Bound on the error of the squared distances of rows that come from a matrix product."""
    return 2 * np.finfo(np.float64).eps * (rows.shape[1] + 16) * (_sq_norms(rows) + space.sq_max)


def _rank(space, k, candidates, rows):
    """The k nearest of the candidates (-1 is none) of a block of rows."""
    c = np.sort(candidates[rows], axis=1)
    if space.root:
        d = _pair_distances(space, np.repeat(rows, c.shape[1]), c.ravel()).reshape(c.shape)
    else:
        near = (_distances(space, space.X[[i]], space.reference[j]) for i, j in zip(rows, c, strict=True))
        d = np.concatenate(list(near))
    d[(c < 0) | (space.own & (c == rows[:, None]))] = np.inf
    order = np.argsort(d, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(c, order, axis=1), np.take_along_axis(d, order, axis=1)


def _scan(space, k, rows):
    """The k nearest of all reference rows for a block of rows."""
    X = space.X[rows]
    d = _distances(space, X, space.reference)
    if space.own:
        d[np.arange(len(rows)), rows] = np.inf
    limit = np.partition(d, k - 1, axis=1)[:, k - 1 : k]
    if space.root:
        limit = limit * (1 + 16 * np.finfo(space.dtype).eps) + 2 * _sq_error(space, X)[:, None]
    r, c = np.divmod(np.flatnonzero(d <= limit), d.shape[1])
    return _first(r, c, _pair_distances(space, rows[r], c) if space.root else d[r, c], k)


def _others(space, rows):
    """All other rows of a block of dense rows, by index."""
    if space.root:
        d = space.root(cdist(space.X[rows], space.reference, "sqeuclidean")).astype(space.dtype, copy=False)
    else:
        d = _distances(space, space.X[rows], space.reference)
    other = np.arange(d.shape[1]) != rows[:, None]
    shape = len(rows), d.shape[1] - 1
    return np.nonzero(other)[1].reshape(shape), d[other].reshape(shape)


def _pair_distances(space, r, c):
    """Distances of the pairs (r[a], c[a]) from differences, in chunks that fit a cache."""
    if space.compiled:
        from .brute_force import pair_sq_distances

        return space.root(pair_sq_distances(space.X, space.reference, r, c)).astype(space.dtype, copy=False)
    out = np.empty(len(r))
    step = 2**14 if sp.issparse(space.X) else 2**15 // space.X.shape[1] + 1
    for start in range(0, len(r), step):
        part = slice(start, start + step)
        out[part] = _sq_norms(space.X[r[part]].astype(np.float64, copy=False) - space.reference[c[part]])
    return space.root(out).astype(space.dtype, copy=False)


def _distances(space, X, reference):
    """All distances, each pair on its own; where `root` is set, rounded squared ones from a matrix product."""
    if space.metric == "precomputed":
        return X
    if space.root:
        return euclidean_distances(X, reference, squared=True)
    if sp.issparse(X) or space.metric == "haversine":
        d = pairwise_distances(X, reference, metric=space.metric, **space.params)
    else:
        d = cdist(X, reference, "cityblock" if space.metric == "manhattan" else space.metric, **space.params)
    if not np.isfinite(d).all():
        raise ValueError(f"metric={space.metric!r} gives distances that are not finite for some of these rows")
    return d.astype(space.dtype, copy=False)


def _first(r, c, d, k):
    """The k smallest (d, c) of each row r, where r is sorted, and c within r."""
    order = np.lexsort((d, r))
    take = order[np.searchsorted(r, np.arange(r[-1] + 1))[:, None] + np.arange(k)]
    return c[take], d[take]


def _search_graph(space, k) -> Neighbors:
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
    indices, distances = _first(r, c, d, k)
    return Neighbors(indices, distances, exact=True)


def _descend(space, k, n_jobs, random_state):
    """Candidates from pynndescent: the row itself as a rule, -1 where it finds none."""
    rng = np.random.RandomState() if random_state is None else check_random_state(random_state)
    rows = space.reference.astype(np.float32)
    rows = sp.csr_matrix(rows) if sp.issparse(rows) else rows  # pynndescent 0.5 knows no sparse arrays
    import numba

    from .._core.team import n_threads

    # Of missing neighbours, which are repaired; numba on pynndescent's code.
    with _DESCENT_LOCK, quiet(module="pynndescent"), quiet(category=numba.errors.NumbaWarning):
        from pynndescent import NNDescent

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
