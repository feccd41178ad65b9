"""Nearest neighbours, exact wherever that is affordable.

The k neighbours of row i are the k smallest distances `d(x_i, y_j)`. Of rows equally far, for which there is not room
for all, a permutation of j chooses: another one for each i, so that no row is everybody's neighbour. It follows from
`random_state` and from i, or for a new row from its values: a new row has the same neighbours in any batch. Neighbours
come by distance, equally far ones by index. Searches by matrix product, tree, partition or descent only propose
candidates, whose distances are computed afresh; a row that this may have cost a neighbour is compared with all others.
The cosine distance is `|u - v|^2 / 2` of unit rows.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from sklearn.utils import check_array, check_random_state

from .._core.device import accelerator
from .._core.group import group
from .._core.types import Array, Jobs, Metric, Rows, Seed
from .checks import checked_matrix, without_negatives
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
from .space import Space, space_of

# Largest n^2 (40 + features) searched exactly: 235k rows of 50 features, 78k of 784. That takes no longer than the
# approximate search does in a fresh process, where it compiles.
_EXACT_LIMIT = 5e12
_OTHER_COST = 40  # of a feature of sparse rows, or in a distance that is not euclidean
_TREE_ROWS, _TREE_FEATURES = 5_000, 6  # a k-d tree is faster from so many rows among themselves, up to so many features
# On a GPU: rows from which on it is the sooner, and the largest n^2 (40 + features), some 80 s of an H200 (7.4 s for a
# million rows of 50 features; benchmarks/gpu.py).
_DEVICE_ROWS, _DEVICE_LIMIT = 5_000, 1e15
_FEW_ROWS = 1_000  # up to so many, all distances of a row are looked through


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
    return search(space, n_neighbors, n_jobs, random_state, ranked)


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
    return search(space_of(X, reference, metric, metric_params, names, False, seed), n_neighbors, n_jobs, random_state)


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


def search(space: Space, k: int, n_jobs: Jobs, random_state: Seed, ranked: bool = True) -> Neighbors:
    """Propose candidates, rank them by distances computed afresh, and scan all rows where that leaves a doubt.

    Of rows of one rank among several the search is exact, however many there are.
    """
    (n, width), sparse, limit = space.reference.shape, sp.issparse(space.X), _most_neighbors(space, k)
    if sparse and space.metric == "precomputed":
        return Neighbors(*nearest_of_graph(space, k), exact=True)
    cost = _OTHER_COST * space.X.nnz / n if sparse else width * (1 if space.root else _OTHER_COST)
    descent = space.own and space.metric in DESCENT and set(space.params) <= {"p", "V", "VI"}
    total = n**2 * (40.0 + cost)
    alone = space.first_row is None
    affordable = total <= _EXACT_LIMIT or not (descent and alone)
    least = _TREE_ROWS if space.own else min(_TREE_ROWS, _FEW_ROWS)
    tree = bool(space.root) and not sparse and width <= _TREE_FEATURES and n >= max(least, 20 * k)
    if space.compiled and n_jobs is None:
        from .._core.team import n_threads

        n_jobs = n_threads()
    run, rows = partial(in_blocks, n, n_jobs), np.arange(space.X.shape[0])
    if k == limit and space.own and not ranked:
        indices, distances = run(partial(others, space), rows)
        return Neighbors(indices, distances, exact=True)
    large = n >= _DEVICE_ROWS and not (sparse or tree)
    device = accelerator() if alone and space.own and space.root and large else None
    if device is not None and total <= _DEVICE_LIMIT:
        return _search_on(device, space, k, rows, run)
    by_products = bool(space.root) and not sparse and n >= max(_FEW_ROWS, 4 * (k + SPARE))
    if affordable and not (by_products or tree):
        indices, distances = scan_all(space, k, rows, run)
        return Neighbors(indices, distances, exact=True)
    candidates: Any
    if tree or (affordable and not space.compiled):
        candidates, doubt = propose(space, k, tree, n_jobs)
    elif affordable:
        candidates, doubt = propose_compiled(space, k, n_jobs)
    else:
        candidates = propose_by_partition(space, k, n_jobs, run) if space.compiled else None
        if candidates is None:
            candidates = descend(space, k, n_jobs, random_state)
        doubt = partial(missing_or_copies, bool(space.root) and not sparse)
    return _nearest_of(space, k, candidates, doubt, run, exact=affordable or tree)


def _most_neighbors(space: Space, k: int) -> int:
    """How many neighbours a row can have; refuses more."""
    n = space.reference.shape[0]
    limit, name = (n - 1, "n - 1") if space.own else (n, "n_reference")
    if not isinstance(k, int | np.integer) or not 1 <= k <= limit:
        raise ValueError(f"n_neighbors={k!r} must be an integer from 1 to {name} = {limit}")
    return limit


def _nearest_of(space: Space, k: int, candidates: Array, doubt: Doubt, run: Run, exact: bool) -> Neighbors:
    """The nearest of the candidates, and of all rows where a doubt is left; where not exact, how many are found."""
    n, rows = space.reference.shape[0], np.arange(space.X.shape[0])
    indices, distances, last = run(lambda part: rank(space, k, candidates[part], part), rows)
    unsure = rows[doubt(last)]
    if unsure.size:
        indices[unsure], distances[unsure] = scan_all(space, k, unsure, run)
    if exact:
        return Neighbors(indices, distances, exact=True)
    sample = np.linspace(0, n - 1, min(n, SAMPLE), dtype=np.intp)
    farthest = scan_all(space, k, sample, run)[1][:, -1:]
    near = distances[sample] <= farthest * (1 + 16 * np.finfo(space.dtype).eps)
    return Neighbors(indices, distances, exact=False, recall=float(near.mean()))


def _search_on(device: str, space: Space, k: int, rows: Array, run: Run) -> Neighbors:
    """By a device of torch; here what is left to choose among equally far rows, and what rounding leaves in doubt."""
    from .cuda import nearest_rows

    candidates, sq_distances, sure, settled = nearest_rows(space.X, k, SPARE, device)
    indices, distances = candidates[:, :k].copy(), finished(space, np.where(sure[:, None], sq_distances, 0))
    left = rows[sure & ~settled]
    if left.size:
        indices[left], distances[left], _ = run(lambda part: rank(space, k, candidates[part], part), left)
    if not sure.all():
        indices[~sure], distances[~sure] = scan_all(space, k, rows[~sure], run)
    return Neighbors(indices, distances, exact=True)
