"""Walks on a graph: what they visit before they end."""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

_TOLERANCE = 1e-8


def visits(weights, values, alpha):
    """Sums over the rows that walks visit, each step of which happens with probability alpha.

    ::

        F = (I - alpha D^-1/2 W D^-1/2)^-1 V

    Parameters
    ----------
    weights : sparse matrix of shape (n, n)
        W, symmetric and non-negative, with row sums D.
    values : ndarray of shape (n, m)
        V, non-negative.
    alpha : float in (0, 1)

    Returns
    -------
    ndarray of shape (n, m)
        Zero where no row of a value above zero can be reached.

    References
    ----------
    Zhou, Bousquet, Lal, Weston and Schoelkopf, "Learning with local and global consistency", NIPS 2003, eq. 2.
    """
    degree = np.asarray(weights.sum(axis=1), dtype=np.float64).ravel()
    scale = sparse.diags_array(np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0))
    system = sparse.csr_array(sparse.eye_array(len(degree)) - alpha * (scale @ weights @ scale))
    columns = [cg(system, column, rtol=_TOLERANCE, atol=0.0)[0] for column in values.T]
    return np.maximum(np.stack(columns, axis=1), 0)
