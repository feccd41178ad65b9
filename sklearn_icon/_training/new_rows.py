"""p(.|new): how rows that were not fitted relate to those that were."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from scipy import sparse

from .. import supervisory
from .._core.conditional import Conditional, rows_of_table
from .._core.group import group
from .._core.pieces import OWN_COPY, is_above, room
from .._core.rows import is_fixed, match_rows, row_digests
from .._core.types import Array, Jobs, Rows
from .._graph.neighbors import cross_neighbors, cross_neighbors_of_ranks

_NEIGHBORS = 15
_KEPT: WeakKeyDictionary = WeakKeyDictionary()
_LISTED = 91  # neighbours of a row where p lives on all: those of the default perplexity


def held_by(p_spec: supervisory.Supervisory, X: Rows, y: Any) -> str:
    """What X holds: "features", "distances", a "graph" or "counts" of tokens.

    Raises
    ------
    ValueError
        Distances or a graph that are not square.
    """
    X_holds = p_spec.reads(X, y)
    if X_holds in ("distances", "graph") and X.shape[0] != X.shape[1]:
        remedy = f" {supervisory.GRAPH_OF_FEATURES}" if X_holds == "graph" else ""
        what = {"distances": "distance matrix", "graph": "matrix (weights of a graph of the rows)"}[X_holds]
        raise ValueError(f"X must be a square {what}, got shape {X.shape}.{remedy}")
    return X_holds


def neighbor_graph(p: Conditional) -> sparse.csr_array:
    """Distances to the neighbours that p lives on, and to the row itself, as of `KNeighborsTransformer`.

    Where those are all rows, to the nearest 91.
    """
    indices, distances = p.neighbors.indices, p.neighbors.distances
    n, k = indices.shape
    if k == p.shape[1] - 1:
        nearest = np.argpartition(distances, min(_LISTED, k) - 1, axis=1)[:, :_LISTED]
        nearest = np.take_along_axis(nearest, np.take_along_axis(distances, nearest, axis=1).argsort(axis=1), axis=1)
        indices, distances = (np.take_along_axis(part, nearest, axis=1) for part in (indices, distances))
    shape = n, indices.shape[1] + 1
    with_self = (
        room(shape, np.int32 if p.shape[1] <= np.iinfo(np.int32).max else np.int64),
        room(shape, distances.dtype),
    )
    with_self[0][:, 0], with_self[0][:, 1:] = np.arange(n) + p.first, indices
    with_self[1][:, 0], with_self[1][:, 1:] = 0, distances
    return rows_of_table(with_self[1], with_self[0], p.shape[1])


class FittedRows:
    """The rows of a fit, kept to relate new rows to them.

    Parameters
    ----------
    X : ndarray or csr matrix
        What was fitted.
    kind : {"features", "distances", "graph", "counts"}
        What X holds.
    p : Conditional
        p of the fit.
    p_spec : Supervisory
    y : array-like or None
        What p read in addition to X. New rows are like those without a label.
    """

    __module__ = "sklearn_icon"  # for files that name the classes they hold

    def __init__(self, X: Rows, kind: str, p: Conditional, p_spec: supervisory.Supervisory, y: Any) -> None:
        self.kind, self.n_rows = kind, X.shape[0]
        n_positives, kernel = np.diff(p.weights.indptr)[p_spec.like_new(y)], p_spec.neighborhood
        few = _NEIGHBORS if kernel is not None and kernel.narrow else 0  # among which the nearest ones are sought
        self.n_positives = max(few, int(group().largest(n_positives.max(initial=0)))) or _NEIGHBORS
        in_place = kind == "features" and is_fixed(X) and is_above(OWN_COPY * X.nbytes)
        self.X = None if kind != "features" else X if in_place else X.copy()
        self.digests: Any = row_digests(X) if kind != "distances" else None

    def put(self, of_rows: Callable[[Any], Any]) -> FittedRows:
        """A copy with each array of rows as a function makes it of this one's."""
        changed = copy(self)
        changed.X, changed.digests = (None if part is None else of_rows(part) for part in (self.X, self.digests))
        changed.n_rows = None if changed.digests is None else len(changed.digests)
        return changed

    @property
    def kept(self) -> dict:
        """What these rows were made into to relate others to them, as long as they live: neither copied nor saved."""
        return _KEPT.setdefault(self, {})

    def seen(self, X: Rows) -> Array:
        """The first fitted row that each row of features, counts or a graph's weights equals, or -1."""
        return match_rows(row_digests(X), group().gathered(self.digests))

    def weights(self, X: Rows, p_spec: supervisory.Supervisory, n_jobs: Jobs = None) -> tuple[sparse.csr_array, Array]:
        """Relate new rows.

        A new row's p lives on its nearest fitted rows, as many as a fitted row has, with the kernel of the
        spec where that is a function of distance to X, and uniform over 15 neighbours where it is not.

        Parameters
        ----------
        X : array or sparse matrix of shape (n_new, n_features) or (n_new, n_rows)
            Features; or distances or graph weights to the fitted rows.
        p_spec : Supervisory
        n_jobs : int, default=None

        Returns
        -------
        weights : csr_array of shape (n_new, n_rows)
            p(.|new); a row of zeros where a graph has no edge.
        seen : ndarray of int of shape (n_new,)
            The first fitted row that the new row equals, or -1.
        """
        if self.kind == "graph":
            return Conditional.from_weights(X).weights, self.seen(X)
        metric = "precomputed" if self.kind == "distances" else "euclidean"
        kernel, n_positives = supervisory.UniformKNN(metric=metric), _NEIGHBORS
        if p_spec.neighborhood is not None:
            kernel, n_positives = p_spec.neighborhood, self.n_positives
        how: dict[str, Any] = {"metric": kernel.metric, "metric_params": kernel.metric_params, "n_jobs": n_jobs}
        if group().several:
            indices, distances = cross_neighbors_of_ranks(X, self.X, n_positives, **how)
        else:
            indices, distances = cross_neighbors(X, self.X, min(n_positives, self.n_rows), kept=self.kept, **how)[:2]
        weights = rows_of_table(kernel.rows_at(distances), indices, group().total(self.n_rows))
        if self.kind == "features":
            return weights, self.seen(X)
        return weights, np.where(distances[:, 0] == 0, indices[:, 0], -1)
