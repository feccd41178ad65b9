"""A quadratic plus absolute values, by coordinate descent that ends where its signs solve it exactly."""

import numpy as np
from scipy import linalg

_SWEEPS, _SWEEPS_A_TRIAL = 12, 3
_PRECISION = 1e-10


def lasso(Q: np.ndarray, q: np.ndarray, l1: float, w: np.ndarray) -> np.ndarray:
    """The minimum of w^T Q w / 2 - q^T w + l1 |w|_1 for a positive definite Q, from a start.

    A few sweeps over the coordinates find which are zero and the signs of the others, for which the minimum is that
    of a quadratic; it is taken where it has those signs, and the gradient at the zeros allows them. Where columns
    nearly depend on each other sweeps take very many steps, and signs are then changed one by one.
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
            return w
        coordinates = np.arange(len(w)) if sweep % _SWEEPS_A_TRIAL == 0 else np.flatnonzero(w)
    return _by_signs(Q, q, l1, w)


def _with_its_signs(Q, q, l1, w):
    """The minimum among vectors of the signs of w, where it has them and is the minimum of all; else None."""
    signs = np.sign(w)
    exact = _minimum_of_signs(Q, q, l1, signs)
    if exact is None or (exact * signs < 0).any():
        return None
    slope = np.abs(q - Q @ exact)
    slope[signs != 0] = 0.0
    return exact if slope.max(initial=0.0) <= l1 * (1 + _PRECISION) else None


def _minimum_of_signs(Q, q, l1, signs):
    """The minimum of w^T Q w / 2 - q^T w + l1 signs^T w among vectors that are zero where signs are."""
    support, exact = np.flatnonzero(signs), np.zeros(len(q))
    if len(support):
        factor, info = linalg.lapack.dpotrf(Q[np.ix_(support, support)])
        if info:
            return None
        exact[support] = linalg.lapack.dpotrs(factor, q[support] - l1 * signs[support])[0]
    return exact


def _by_signs(Q, q, l1, w):
    """The minimum by a search over signs: Lee, Battle, Raina and Ng, "Efficient sparse coding algorithms", 2007.

    The minimum for given signs is gone to as far as the objective falls, past points at which a coordinate is zero;
    once it has the signs asked for, the zero at which the gradient is the steepest gets one.
    """
    signs = np.sign(w)
    for _ in range(10 * len(w) + 10):
        aim = _minimum_of_signs(Q, q, l1, signs)
        if aim is None:
            return w
        if (aim * signs >= 0).all():
            w, signs = aim, np.sign(aim)
        else:
            before, w = w, _lowest_between(Q, q, l1, w, aim)
            if np.array_equal(before, w):
                return w
            signs = np.sign(w)
            continue
        slope = np.where(signs == 0, q - Q @ w, 0.0)
        steepest = int(np.abs(slope).argmax())
        if abs(slope[steepest]) <= l1 * (1 + _PRECISION):
            return w
        signs[steepest] = np.sign(slope[steepest])
    return w


def _lowest_between(Q, q, l1, w, aim):
    """The lowest of the points from w to aim at which a coordinate is zero, which is then so exactly, and both ends."""
    step = aim - w
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.where(w * aim < 0, -w / step, np.inf)
    ends = np.unique(np.append(at[at < 1], [0.0, 1.0]))
    change = ends * (step @ (Q @ w - q)) + ends**2 * (step @ (Q @ step)) / 2
    change += l1 * (np.abs(w + ends[:, None] * step).sum(axis=1) - np.abs(w).sum())
    best = ends[int(change.argmin())]
    there = w + best * step
    there[at == best] = 0.0
    return w if best == 0 else there
