"""Rows that differ, each with the weight of its copies."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from .._core.rows import row_digests

_DENSE, _FULL = 1 << 22, 0.1  # numbers of a sparse matrix that is made dense, and how many of them it holds


class Distinct(NamedTuple):
    """Rows that differ: what each weighs, where it stands first in X, and which of them each row of X is.

    `known` is the number of each row's class, -1 where unknown; None where no classes are.
    """

    rows: Any
    weight: np.ndarray
    first: np.ndarray
    inverse: np.ndarray
    holds: str
    known: np.ndarray | None = None

    @classmethod
    def of(cls, X: Any, holds: str, sample_weight: np.ndarray, known: np.ndarray | None = None) -> "Distinct":
        """Those of X; of distances or a graph, and where equal rows may be of two classes, all rows."""
        if holds != "features" or known is not None:
            return cls(X, sample_weight, np.arange(X.shape[0]), np.arange(X.shape[0]), holds, known)
        size = np.prod(X.shape)
        X = X.toarray() if sparse.issparse(X) and X.nnz >= _FULL * size and size <= _DENSE else X
        first, inverse = np.unique(row_digests(X), return_index=True, return_inverse=True)[1:]
        order = np.argsort(first)
        first, inverse = first[order], np.argsort(order)[inverse]
        return cls(
            X if len(first) == X.shape[0] else X[first], np.bincount(inverse, sample_weight), first, inverse, holds
        )

    @property
    def n_free(self) -> int:
        """How many are of no known class."""
        return len(self.weight) if self.known is None else int((self.known < 0).sum())

    def apart(self) -> np.ndarray:
        """Labels under which each is a cluster of its own, or in that of its known class."""
        labels = np.arange(len(self.weight)) if self.known is None else self.known.copy()
        labels[labels < 0] = labels.max(initial=-1) + 1 + np.arange((labels < 0).sum())
        return labels

    @property
    def features(self) -> Any:
        """The rows, or None where they have no features."""
        return self.rows if self.holds == "features" else None

    def some(self, which: np.ndarray) -> "Distinct":
        """A part of them, and a row of each known class, which stands for nothing else."""
        if self.known is None:
            return Distinct(self.rows[which], self.weight[which], which, which, self.holds)
        first = np.unique(self.known, return_index=True)[1]
        which = np.union1d(which, first)
        return Distinct(self.rows[which], self.weight[which], which, which, self.holds, self.known[which])
