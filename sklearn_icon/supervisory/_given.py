"""Specs of p that are given: each row itself, pairs, a graph, counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array
from sklearn.utils.validation import _num_samples

from .._core.conditional import Conditional
from .._core.rows import shape_of
from .._core.types import Array, Jobs, Rows, Seed
from .._graph.checks import place_of
from ._base import Supervisory

if TYPE_CHECKING:
    from torch import Tensor

    from ._base import Partners

GRAPH_OF_FEATURES = (
    "A graph of rows of features is G = sklearn.neighbors.kneighbors_graph(X, 10), symmetrised: (G + G.T) / 2."
)


def without_negatives(weights: Rows, name: str, what: str) -> Rows:
    """Finite weights or counts, none of them negative."""
    weights = check_array(weights, accept_sparse="csr", input_name=name)
    least = (weights.data if sparse.issparse(weights) else weights).min(initial=0)
    if least < 0:
        row, column = place_of(weights, lambda values: values == least)
        raise ValueError(
            f"Negative values in data passed to {name}: {what} of [{row}, {column}] is {least:g}; pass none "
            "below zero, such as exp of them."
        )
    return weights


class Identity(Supervisory):
    """Each row is its own only neighbour, the p of PCA.

    ::

        p(j|i) = 1[i = j],     self included, also in q

    Examples
    --------
    >>> from sklearn_icon.supervisory import Identity
    >>> Identity().conditional([[0.0], [1.0]]).toarray()
    array([[1., 0.],
           [0., 1.]])
    """

    excludes_self = False
    batch_is_whole = False

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        return Conditional(sparse.eye_array(_num_samples(X), format="csr"))

    def of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """By torch; see `Supervisory.of_batch`."""
        from ._batch import normalized_rows, own_keys

        return normalized_rows(self, own_keys(rows, n_keys, like.device), rows, like)

    def partners_of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> Partners:
        """Each row's own key; see `Supervisory.partners_of_batch`."""
        from ._batch import own_partners

        return own_partners(rows, like)


class CrossModalPairs(Supervisory):
    """Row i of one modality belongs to row i of the other, the p of CLIP.

    ::

        p(j|i) = 1[j is i's partner in the other modality],     keys are the other modality's rows

    References
    ----------
    Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021.

    Examples
    --------
    >>> from sklearn_icon.supervisory import CrossModalPairs
    >>> CrossModalPairs().conditional([[0.0], [1.0]], [[5.0], [6.0]]).shape
    (2, 2)
    """

    keys = "partners"
    needs_y = "the other modality"
    excludes_self = False
    batch_is_whole = False

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        return Conditional(sparse.eye_array(_num_samples(self._require_y(X, y)), format="csr"))

    def batch_needs(self, y: Any) -> str:
        """Labels that say which rows are partners, where there are any: partners themselves come as keys."""
        return "" if y is None else self.needs_y

    def check_batch_y(self, y: Tensor) -> Tensor | None:
        """Labels, or None where y holds the other modality's items; see `Supervisory.check_batch_y`."""
        from ._batch import is_other_modality

        y = y.ravel() if y.shape[1:] == (1,) else y
        return None if y.ndim > 1 and is_other_modality(y) else y

    def of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """By torch; see `Supervisory.of_batch`."""
        from ._batch import normalized_rows, own_keys, same_label

        weights = own_keys(rows, n_keys, like.device) if y is None else same_label(y, rows, like)
        return normalized_rows(self, weights, rows, like)

    def partners_of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> Partners:
        """Each row's own key, or those of its label; see `Supervisory.partners_of_batch`."""
        from ._batch import own_partners, same_label_partners

        if y is None:
            return own_partners(rows, like)
        return same_label_partners(self, y, rows, n_keys) if y.ndim == 1 else None


class Graph(Supervisory):
    """A given weighted graph.

    ::

        p(j|i) = w_ij / sum_k w_ik

    The square, non-negative matrix of weights is `y` where one is given, else `X`.

    Raises
    ------
    ValueError
        At `conditional`: the matrix is not square or has negative weights.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from sklearn_icon.supervisory import Graph
    >>> Graph().conditional(csr_array([[0, 3, 1], [1, 0, 0], [1, 0, 0]])).toarray()
    array([[0.  , 0.75, 0.25],
           [1.  , 0.  , 0.  ],
           [1.  , 0.  , 0.  ]])
    """

    batch_is_whole = False

    pairwise = True

    def reads(self, X: Rows, y: Any = None) -> str:
        """The graph, where y is not that; see `Supervisory.reads`."""
        return "graph" if y is None else "features"

    def take(self, y: Any, rows: Array) -> Any:
        """Rows and columns of a graph, rows of what is none; see `Supervisory.take`."""
        left = super().take(y, rows)
        square = left is not None and shape_of(y) == (shape_of(y)[0],) * 2
        return left[:, rows] if square else left

    def batch_needs(self, y: Any) -> str:
        """The graph, of which X is none in a batch."""
        return "the batch's matrix of weights"

    def of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """By torch; see `Supervisory.of_batch`."""
        from ._batch import matrix_rows

        return matrix_rows(self, y, rows, n_keys, like)

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        weights = X if y is None else self._require_y(X, y)
        weights = without_negatives(weights, "graph", "the weight")
        if weights.shape[0] != weights.shape[1]:
            raise ValueError(
                f"Graph() needs a square matrix of weights, got shape {weights.shape}; pass the graph as X or as y. "
                f"{GRAPH_OF_FEATURES}"
            )
        return Conditional.from_weights(weights, exclude_self=True)


class Counts(Supervisory):
    """Counts of a token given a context, the p of masked and next-token prediction.

    ::

        p(t|i) = n_it / n_i,     n_i = sum_u n_iu,     keys are the tokens
        mean_i D_i = sum_i n_i D_i / sum_i n_i

    The context x token count matrix, dense or sparse, is `y` where that is 2-D, else `X`: labels that a pipeline passes
    on are not read. A context counts in the mean as often as it has tokens; divide rows by their sums to count all
    alike.

    Raises
    ------
    ValueError
        At `conditional`: negative counts, or counts of another number of rows than X has.

    Examples
    --------
    >>> from sklearn_icon.supervisory import Counts
    >>> Counts().conditional([[0.0]], [[3, 1]]).toarray()
    array([[0.75, 0.25]])
    """

    keys = "tokens"
    excludes_self = False
    batch_is_whole = False
    weighs_rows = True

    def reads(self, X: Rows, y: Any = None) -> str:
        """The counts, where y does not hold them; see `Supervisory.reads`."""
        return "counts" if self.in_X(y) else "features"

    def batch_needs(self, y: Any) -> str:
        """The counts, of which X holds none in a batch."""
        return "the batch's matrix of counts"

    def of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """By torch; see `Supervisory.of_batch`."""
        from ._batch import matrix_rows

        return matrix_rows(self, y, rows, n_keys, like)

    @staticmethod
    def in_X(y: Any) -> bool:
        """Whether X holds the counts, as y does not."""
        return y is None or (not sparse.issparse(y) and np.asarray(y).ndim < 2)

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        counts, name = (X, "X") if self.in_X(y) else (self._require_y(X, y), "y")
        return Conditional.from_weights(without_negatives(counts, name, "the count"))
