"""Walks on a graph: where they first meet certain rows."""

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, cg

_TOLERANCE = 1e-8


def first_met(weights, known, values):
    """Mean value of the known row that a walk from each other row meets first.

    ::

        f_i = sum_j w_ij f_j / sum_j w_ij      where i is not known,     f_i given where it is

    Parameters
    ----------
    weights : sparse matrix of shape (n, n)
        Symmetric, non-negative.
    known : ndarray of bool, shape (n,)
    values : ndarray of shape (n_known, m)
        Non-negative.

    Returns
    -------
    ndarray of shape (n - n_known, m)
        Zero where no known row can be reached.
    """
    part = connected_components(weights, directed=False)[1]
    reached = np.flatnonzero(~known & np.isin(part, part[known]))
    rows = sparse.csr_array(weights, dtype=np.float64)[reached]
    degree = np.asarray(rows.sum(axis=1)).ravel()
    laplacian = sparse.diags_array(degree) - rows[:, reached]
    jacobi = LinearOperator(laplacian.shape, lambda vector: vector.ravel() / degree)
    found = np.zeros((len(known), values.shape[1]))
    for column, towards in enumerate((rows[:, known] @ values).T):
        found[reached, column] = cg(laplacian, towards, rtol=_TOLERANCE, M=jacobi)[0]
    return np.maximum(found[~known], 0)
