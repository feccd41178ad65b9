"""From distances to affinities: kernels of a distance, and the bandwidth that gives a row its perplexity."""

import numpy as np

_MAX_STEPS = 64
_CHUNK = 1 << 17
_ENTROPY_TOLERANCE = 1e-5
_FIRST_STEP = 4.0  # in log s^2, outside a bracket
_LOG_ZERO = -800.0  # whose exponential is zero
_LOG_RANGE, _LOG_MARGIN = 700.0, 60.0  # of log s^2 in double precision; beyond the least and largest distance


def gaussian_log_affinity(sq_distances, sq_sigma):
    """-d^2 / (2 s^2)."""
    return -sq_distances / (2 * sq_sigma)


def narrow_log_affinity(sq_distances, sq_sigma):
    """The limit of a Gaussian of no width, its largest value one: 0 at a row's least distance, else minus infinity."""
    return np.where(sq_distances == sq_distances.min(axis=1, keepdims=True), 0.0, -np.inf)


def student_t_log_affinity(sq_distances, sq_sigma, df):
    """-(nu + 1) / 2 * log(1 + d^2 / (nu s^2))."""
    return -(df + 1) / 2 * np.log1p(sq_distances / (df * sq_sigma))


def normalize_log_rows(log_affinities):
    """Exponentiate each row after subtracting its log-sum: rows of probabilities."""
    weights = np.exp(log_affinities - log_affinities.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _rows_and_entropies(log_affinities):
    """(rows of probabilities, -sum_j p_j log p_j of each), of affinities a: log sum e^a - sum p a."""
    shifted = log_affinities - log_affinities.max(axis=1, keepdims=True)
    if shifted.min() < _LOG_ZERO:
        np.maximum(shifted, _LOG_ZERO, out=shifted)
    rows = np.exp(shifted)
    sums = rows.sum(axis=1, keepdims=True)
    rows /= sums
    return rows, np.log(sums[:, 0]) - np.einsum("ij,ij->i", rows, shifted)


def perplexity_rows(sq_distances, perplexity, log_affinity=gaussian_log_affinity):
    """Rows p(.|i) with exp(entropy) = perplexity, by a search for the row's bandwidth.

    The entropy of every kernel used here grows with its bandwidth s. A secant in log s^2, kept inside a bracket once
    there is one, is run for many rows at once; steps double until then, as one far neighbour can hide the scale of all
    others by any factor. Distances are measured from the row's nearest neighbour, which leaves a Gaussian row as it
    is; other kernels see the true distances. A row that cannot reach the entropy (ties among its nearest neighbours,
    say) takes the nearest it can reach.

    Parameters
    ----------
    sq_distances : ndarray of shape (n_rows, n_neighbors)
        Squared distances, finite.
    perplexity : float
        At least 1 and at most n_neighbors.
    log_affinity : callable (sq_distances, sq_sigma) -> ndarray
        The log-kernel.

    Returns
    -------
    ndarray of shape (n_rows, n_neighbors), float64, whose rows sum to one

    References
    ----------
    van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008, section 2.
    """
    probabilities = np.empty(sq_distances.shape)
    step = max(1, _CHUNK // sq_distances.shape[1])
    for start in range(0, len(sq_distances), step):
        part = slice(start, start + step)
        probabilities[part] = _search(np.asarray(sq_distances[part], np.float64), np.log(perplexity), log_affinity)
    return probabilities


def _search(sq_distances, target, log_affinity):
    """Rows whose entropy is the target, of a chunk that fits a cache."""
    if log_affinity is gaussian_log_affinity:
        sq_distances = sq_distances - sq_distances.min(axis=1, keepdims=True)
    scale = sq_distances.mean(axis=1)
    probabilities = np.full(sq_distances.shape, 1 / sq_distances.shape[1])
    active = np.flatnonzero(scale > 0)
    if not active.size:
        return probabilities
    at, bounds = np.log(scale[active]), _log_bounds(sq_distances[active])
    low, high = np.full(len(at), -np.inf), np.full(len(at), np.inf)
    step, at_before, before = np.full(len(at), _FIRST_STEP), at - 1, np.full(len(at), np.nan)
    for _ in range(_MAX_STEPS):
        with np.errstate(over="ignore"):  # of a ratio, where the kernel is zero
            rows, entropies = _rows_and_entropies(log_affinity(sq_distances[active], np.exp(at)[:, None]))
        probabilities[active], excess = rows, entropies - target
        unsettled = np.abs(excess) > _ENTROPY_TOLERANCE
        if not unsettled.any():
            break
        state = (active, at, low, high, step, at_before, before, excess, *bounds)
        active, at, low, high, step, at_before, before, excess, *bounds = (values[unsettled] for values in state)
        low, high = np.where(excess < 0, at, low), np.where(excess < 0, high, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            secant = at - excess * (at - at_before) / np.where(np.isnan(before), 1, excess - before)
            trusted = (low < secant) & (secant < high) & ~(np.abs(excess) > np.abs(before) / 2)
            bracketed = np.isfinite(high - low)
            trusted &= bracketed | (np.abs(secant - at) <= step)
            otherwise = np.where(bracketed, (low + high) / 2, at - np.sign(excess) * step)
        step = np.where(trusted, step, 2 * step)
        at_before, before = at, excess
        at = np.clip(np.where(trusted, secant, otherwise), *bounds)
    return probabilities


def _log_bounds(sq_distances):
    """Of log s^2: below, only the nearest count; above, all count the same."""
    least = np.where(sq_distances > 0, sq_distances, np.inf).min(axis=1)
    bounds = np.log(least) - _LOG_MARGIN, np.log(sq_distances.max(axis=1)) + _LOG_MARGIN
    return [np.clip(bound, -_LOG_RANGE, _LOG_RANGE) for bound in bounds]
