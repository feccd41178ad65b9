"""A quadratic plus absolute values, by coordinate descent that ends where its signs solve it exactly."""

import numpy as np
from scipy import linalg

_SWEEPS, _SWEEPS_A_TRIAL = 1000, 3
_PRECISION = 1e-10


def lasso(Q: np.ndarray, q: np.ndarray, l1: float, w: np.ndarray) -> np.ndarray:
    """The minimum of w^T Q w / 2 - q^T w + l1 |w|_1 for Q of positive diagonal, from a start.

    A few sweeps over the coordinates find which are zero and the signs of the others, for which the minimum is that
    of a quadratic; it is taken where it has those signs, and the gradient at the zeros allows them.
    """
    w, diagonal = w.copy(), np.diag(Q).copy()
    rest = q - Q @ w
    coordinates = np.arange(len(w))
    for sweep in range(1, _SWEEPS + 1):
        largest = 0.0
        for j in coordinates:
            before, pull = w[j], rest[j] + diagonal[j] * w[j]
            after = np.sign(pull) * max(abs(pull) - l1, 0.0) / diagonal[j]
            if after != before:
                rest -= Q[:, j] * (after - before)
                w[j] = after
                largest = max(largest, diagonal[j] ** 0.5 * abs(after - before))
        exact = _with_its_signs(Q, q, l1, w) if sweep % _SWEEPS_A_TRIAL == 0 or not largest else None
        if exact is not None:
            return exact
        if not largest:
            break
        coordinates = np.arange(len(w)) if sweep % _SWEEPS_A_TRIAL == 0 else np.flatnonzero(w)
    return w


def _with_its_signs(Q, q, l1, w):
    """The minimum among vectors of the signs of w, where it has them and is the minimum of all; else None."""
    support, exact = np.flatnonzero(w), np.zeros_like(w)
    if len(support):
        signs = np.sign(w[support])
        try:
            factor = linalg.cho_factor(Q[np.ix_(support, support)])
        except linalg.LinAlgError:
            return None
        exact[support] = linalg.cho_solve(factor, q[support] - l1 * signs)
        if (exact[support] * signs <= 0).any():
            return None
    slope = np.abs(q - Q @ exact)
    slope[support] = 0.0
    return exact if slope.max(initial=0.0) <= l1 * (1 + _PRECISION) else None
