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
from dataclasses import replace
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from sklearn.utils import check_array, check_random_state

from .._core.group import group
from .._core.pieces import has_room
from .._core.types import Array, Jobs, Metric, Rows, Seed
from .checks import checked_matrix, without_negatives
from .on_disk import neighbors_on_disk
from .ring import ring_neighbors
from .search import Neighbors, bytes_of_search, search
from .shared import shared
from .space import as_scikit_learn, space_of
from .ties import k_smallest

_MOST_INDEXED = 1 << 26  # numbers of a reference that is searched again, up to which they are kept in single precision


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

    Those of up to 2,048 rows to all others are in the precision of scikit-learn's `pairwise_distances`.

    A row is excluded by its index: its copies are neighbours, at distance 0. The result is exact, and the same for any
    number of threads, up to some 100,000 rows (the more, the fewer features), in metrics that lack an approximate
    search, and in up to 6 features. Otherwise a partition proposes the neighbours, of dense rows in euclidean and
    cosine distance that lend themselves to one, or pynndescent does, and their distances are computed afresh. Where a
    fit works on CUDA, the euclidean neighbours of 5,000 and more dense rows are exact up to 333,000 of 50 features, and
    beyond come from a partition.

    Where metric is "precomputed", X holds distances (n, n), dense, or sparse with each row's candidates as its explicit
    entries. In a fit by several ranks X holds those of this one, and indices are numbers among the rows of all, of
    dense rows in euclidean, squared euclidean and cosine distance alone: exact, or of very many in cells (`cells`).

    On sparse rows metrics are "euclidean", "sqeuclidean", "manhattan", "cosine" or a callable. `V` (seuclidean) and
    `VI` (mahalanobis) default to those of the rows searched. `random_state` seeds the permutations that settle ties,
    where None is 0, and the approximate search, which repeats its bits with the same number of threads. Without
    `ranked` neighbours come by index, sooner, where they are all other rows. `name` is for errors.
    """
    X = _validated(X, name)
    if metric == "precomputed":
        X = checked_matrix(X)
    space = space_of(X, X, metric, metric_params, (name, name), True, _seed_of_ties(random_state))
    space = as_scikit_learn(space, X, n_neighbors)
    if group().several:
        return ring_neighbors(space, n_neighbors, n_jobs)
    n, width = space.X.shape
    if space.root and not sp.issparse(space.X) and not has_room(n * bytes_of_search(width, n_neighbors)):
        return neighbors_on_disk(space, n_neighbors, n_jobs)
    how = metric, metric_params
    return shared(X, how, n_neighbors, lambda rank: search(space, n_neighbors, n_jobs, random_state, rank), ranked)


def cross_neighbors(
    X: Rows,
    reference: Rows,
    n_neighbors: int,
    *,
    metric: Metric = "euclidean",
    metric_params: dict | None = None,
    n_jobs: Jobs = None,
    random_state: Seed = None,
    kept: dict | None = None,
) -> Neighbors:
    """The n_neighbors smallest distances `d(x_i, y_j)` of each row x_i of X, for the rows y_j of reference.

    Always exact: a row has the same neighbours, bit for bit, alone and in any batch. n_neighbors is at most the number
    of reference rows. Where metric is "precomputed", X holds distances (n_new, n_reference) and reference is ignored.
    Otherwise as `nearest_neighbors`. `kept` holds what a caller's reference was made into, for its next calls, whose
    rows it has validated.
    """
    space = None if kept is None or metric_params or sp.issparse(X) else kept.get(metric)
    if space is not None:
        return search(space.of_rows(np.ascontiguousarray(X)), n_neighbors, n_jobs, random_state)
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
    space = space_of(X, reference, metric, metric_params, names, False, seed)
    if kept is not None and space.lasts:
        kept[metric] = replace(space, index={}) if space.reference.size <= _MOST_INDEXED else space
    return search(space, n_neighbors, n_jobs, random_state)


def cross_neighbors_of_ranks(
    X: Rows, reference: Rows, n_neighbors: int, *, metric: Metric, metric_params: dict | None, n_jobs: Jobs
) -> tuple[Array, Array]:
    """(indices, distances) as of `cross_neighbors` for the rows of this rank among those that all hold in reference.

    Each rank finds the nearest of its own for the rows of all; those of all ranks are put together as one process
    settles ties, by squared distances.
    """
    ranks, X, reference = group(), _validated(X, "X"), _validated(reference, "reference")
    n_new, (first, n) = ranks.objects(X.shape[0]), ranks.first_of(reference.shape[0])
    sparse = sp.issparse(X) or sp.issparse(reference)
    if not sparse:
        space = space_of(ranks.gathered(X), reference, metric, metric_params, ("X", "reference"), False, 0)
    if sparse or not space.root:
        what = "they are sparse" if sparse else f"metric={metric!r}"
        raise ValueError(
            f"new rows are placed over ranks where they are dense and metric is 'euclidean', 'sqeuclidean' or "
            f"'cosine', but {what}; call distributed.gather(map) on every rank, and transform by the map that rank 0 "
            "gets."
        )
    squared = replace(space, root=np.positive, unit=1.0, dtype=np.dtype(np.float64), first_key=first)
    found, ends = search(squared, min(n_neighbors, reference.shape[0]), n_jobs, None), np.cumsum([0, *n_new])
    swapped = (
        ranks.swapped([part[start:end].ravel() for start, end in pairwise(ends)])
        for part in (found.indices, found.distances)
    )
    indices, sq = (np.hstack([part.reshape(X.shape[0], -1) for part in of_ranks]) for of_ranks in swapped)
    order = np.argsort(indices, axis=1)
    indices, sq = (np.take_along_axis(part, order, axis=1) for part in (indices, sq))
    own = replace(space, X=space.X[ends[ranks.rank] : ends[ranks.rank + 1]])
    indices, sq = k_smallest(sq, indices, min(n_neighbors, n), own.keys)
    return indices, space.finished(sq)


def graph_neighbors(X: Rows) -> Array:
    """How many other rows each row of a sparse graph of distances has as neighbours."""
    graph = _validated(X, "X")
    r = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    return np.bincount(r[r != graph.indices], minlength=graph.shape[0])


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
    numbers, few = [np.float64, np.float32], 0 if group().several else 1  # other ranks may have all rows
    rows = check_array(rows, accept_sparse="csr", dtype=numbers, order="C", input_name=name, ensure_min_samples=few)
    if sp.issparse(rows):  # with 32-bit indices if possible, as not every search takes others
        narrow = np.int32 if max(rows.nnz, rows.shape[1]) < 2**31 else np.int64
        indices, indptr = (array.astype(narrow, copy=False) for array in (rows.indices, rows.indptr))
        rows = type(rows)((rows.data, indices, indptr), shape=rows.shape)
        if not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
    return rows
