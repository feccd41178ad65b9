"""Walks on a graph: what they visit before they end."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

from .._core.types import Array

_TOLERANCE = 1e-8


def visits(weights: sparse.csr_array, values: Array, alpha: float) -> Array:
    """Sums over the rows that walks visit, each step of which happens with probability alpha in (0, 1).

    ::

        F = (I - alpha D^-1/2 W D^-1/2)^-1 V

    W is symmetric and non-negative with row sums D, V of shape (n, m) non-negative; F is zero where no row of a value
    above zero can be reached. See Zhou et al., "Learning with local and global consistency", NIPS 2003, eq. 2.
    """
    degree = np.asarray(weights.sum(axis=1), dtype=np.float64).ravel()
    scale = sparse.diags_array(np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0))
    system = sparse.csr_array(sparse.eye_array(len(degree)) - alpha * (scale @ weights @ scale))
    columns = [cg(system, column, rtol=_TOLERANCE, atol=0.0)[0] for column in values.T]
    return np.maximum(np.stack(columns, axis=1), 0)
