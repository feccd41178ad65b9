"""p(.|new): how rows that were not fitted relate to those that were."""

import numpy as np
from scipy import sparse

from .. import supervisory
from .._core.conditional import Conditional
from .._core.rows import match_rows, row_digests
from .._core.spec import unwrapped
from .._graph.neighbors import cross_neighbors
from ..supervisory._base import measured
from ..supervisory._spectral import spectral_of

_NEIGHBORS = 15


def input_kind(p_spec, X, y):
    """What X holds: "features", "distances", a "graph" or "counts" of tokens.

    Raises
    ------
    ValueError
        Distances or a graph that are not square.
    """
    spec, spectral = measured(p_spec), spectral_of(p_spec)
    if spectral is not None:
        if not spectral.reads_graph(X):
            return "features"
        kind = "graph"
    elif isinstance(spec, supervisory.Graph) and (y is None or spec is not unwrapped(p_spec)):
        kind = "graph"
    elif getattr(spec, "metric", None) == "precomputed" and spec.source == "X":
        kind = "distances"
    elif isinstance(spec, supervisory.Counts) and spec.in_X(y):
        return "counts"
    else:
        return "features"
    if X.shape[0] != X.shape[1]:
        remedy = f" {supervisory.GRAPH_OF_FEATURES}" if kind == "graph" else ""
        raise ValueError(f"X must be a square matrix ({kind} between rows), got shape {X.shape}.{remedy}")
    return kind


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
        What p read beside X. New rows are like those without a label.
    """

    def __init__(self, X, kind, p, p_spec, y):
        self.kind, self.n_rows = kind, X.shape[0]
        n_positives = np.diff(p.weights.indptr)
        if measured(p_spec) is not unwrapped(p_spec):
            n_positives = n_positives[np.diff(unwrapped(p_spec).labels(y).indptr) == 0]
        few = _NEIGHBORS if measured(p_spec).narrow else 0  # among which the nearest ones are sought
        self.n_positives = max(few, int(n_positives.max(initial=0))) or _NEIGHBORS
        self.X = X if kind == "features" else None
        self.digests = row_digests(X) if kind != "distances" else None

    def seen(self, X):
        """The first fitted row that each row of features, counts or a graph's weights equals, or -1."""
        return match_rows(row_digests(X), self.digests)

    def weights(self, X, p_spec, n_jobs=None):
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
        spec = measured(p_spec)
        by_kernel = spectral_of(p_spec) is None and hasattr(spec, "rows_at") and spec.source == "X"
        neighbors = cross_neighbors(
            X,
            self.X,
            min(self.n_positives if by_kernel else _NEIGHBORS, self.n_rows),
            metric=spec.metric if by_kernel else "euclidean",
            metric_params=spec.metric_params if by_kernel else None,
            n_jobs=n_jobs,
        )
        if by_kernel:
            rows = spec.rows_at(neighbors.distances)
        else:
            rows = np.full(neighbors.distances.shape, 1 / neighbors.distances.shape[1])
        indptr = np.arange(0, rows.size + 1, rows.shape[1])
        weights = sparse.csr_array((rows.ravel(), neighbors.indices.ravel(), indptr), shape=(X.shape[0], self.n_rows))
        if self.kind == "features":
            return weights, self.seen(X)
        return weights, np.where(neighbors.distances[:, 0] == 0, neighbors.indices[:, 0], -1)
