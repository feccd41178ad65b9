"""Rows that differ, each with the weight of its copies."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from .._core.rows import row_digests

_DENSE, _FULL = 1 << 22, 0.1  # numbers of a sparse matrix that is made dense, and how many of them it holds


class Distinct(NamedTuple):
    """Rows that differ: what each weighs, where it stands first in X, and which of them each row of X is."""

    rows: Any
    weight: np.ndarray
    first: np.ndarray
    inverse: np.ndarray
    holds: str

    @classmethod
    def of(cls, X: Any, holds: str, sample_weight: np.ndarray) -> "Distinct":
        """Those of X; of distances or a graph all rows."""
        if holds != "features":
            return cls(X, sample_weight, np.arange(X.shape[0]), np.arange(X.shape[0]), holds)
        size = np.prod(X.shape)
        X = X.toarray() if sparse.issparse(X) and X.nnz >= _FULL * size and size <= _DENSE else X
        first, inverse = np.unique(row_digests(X), return_index=True, return_inverse=True)[1:]
        order = np.argsort(first)
        first, inverse = first[order], np.argsort(order)[inverse]
        return cls(
            X if len(first) == X.shape[0] else X[first], np.bincount(inverse, sample_weight), first, inverse, holds
        )

    @property
    def features(self) -> Any:
        """The rows, or None where they have no features."""
        return self.rows if self.holds == "features" else None

    def some(self, which: np.ndarray) -> "Distinct":
        """A part of them, which stands for nothing else."""
        return Distinct(self.rows[which], self.weight[which], which, which, self.holds)
