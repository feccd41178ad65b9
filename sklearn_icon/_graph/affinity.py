"""From distances to affinities: kernels of a distance, and the bandwidth that gives a row its perplexity."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np

from .._core.device import accelerator
from .._core.pieces import slices
from .._core.types import Array, ArrayOrTensor, Jobs

_MAX_STEPS = 64
_CHUNK = 1 << 17
_CHUNK_ON_GPU, _ROWS_ON_GPU = 1 << 24, 5_000  # distances at a time; rows from which on a GPU is the sooner
_ROWS_IN_THREADS = 20_000
_ENTROPY_TOLERANCE = 1e-5
_FIRST_STEP = 4.0  # in log s^2, outside a bracket
_LEAST_SCALE, _LARGEST_SCALE = 1e-3, 1e6  # of local exponentials, of a row's mean distance
_LOG_ZERO = -800.0  # whose exponential is zero
_LOG_RANGE, _LOG_MARGIN = 700.0, 60.0  # of log s^2 in double precision; beyond the least and largest distance


def gaussian_log_affinity(
    sq_distances: ArrayOrTensor, sq_sigma: ArrayOrTensor | float, xp: ModuleType = np
) -> ArrayOrTensor:
    """-d^2 / (2 s^2), of arrays of a namespace such as NumPy or torch."""
    return -sq_distances / (2 * sq_sigma)


def narrow_log_affinity(sq_distances: Array, sq_sigma: float) -> Array:
    """The limit of a Gaussian of no width, its largest value one: 0 at a row's least distance, else minus infinity."""
    return np.where(sq_distances == sq_distances.min(axis=1, keepdims=True), 0.0, -np.inf)


def student_t_log_affinity(
    sq_distances: ArrayOrTensor, sq_sigma: ArrayOrTensor | float, df: float, xp: ModuleType = np
) -> ArrayOrTensor:
    """-(nu + 1) / 2 * log(1 + d^2 / (nu s^2)), of arrays of a namespace such as NumPy or torch."""
    return -(df + 1) / 2 * xp.log1p(sq_distances / (df * sq_sigma))


def normalize_log_rows(log_affinities: Array) -> Array:
    """Exponentiate each row after subtracting its log-sum: rows of probabilities."""
    weights = np.exp(log_affinities - log_affinities.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _rows_and_entropies(log_affinities: ArrayOrTensor, xp: ModuleType) -> tuple[ArrayOrTensor, ArrayOrTensor]:
    """(rows of probabilities, -sum_j p_j log p_j of each), of affinities a: log sum e^a - sum p a."""
    shifted = log_affinities - xp.amax(log_affinities, axis=1, keepdims=True)
    if shifted.min() < _LOG_ZERO:
        shifted = xp.clip(shifted, _LOG_ZERO, None)
    rows = xp.exp(shifted)
    sums = rows.sum(axis=1, keepdims=True)
    rows /= sums
    return rows, xp.log(sums[:, 0]) - xp.einsum("ij,ij->i", rows, shifted)


def perplexity_rows(
    sq_distances: Array,
    perplexity: float,
    log_affinity: Callable[..., ArrayOrTensor] = gaussian_log_affinity,
    n_jobs: Jobs = None,
) -> Array:
    """Rows p(.|i), float64, with exp(entropy) = perplexity, by a search for the row's bandwidth.

    The entropy of every kernel used here grows with its bandwidth s. A secant in log s^2, kept inside a bracket once
    there is one, is run for many rows at once; steps double until then, as one far neighbour can hide the scale of all
    others by any factor. Distances are measured from the row's nearest neighbour, which leaves a Gaussian row as it
    is; other kernels see the true distances. A row that cannot reach the entropy (ties among its nearest neighbours,
    say) takes the nearest it can reach. The log-kernel takes (sq_distances, sq_sigma, xp), arrays of the namespace xp:
    NumPy, or torch where a fit works on CUDA and the rows are many. See van der Maaten and Hinton, "Visualizing data
    using t-SNE", JMLR 2008, section 2.
    """
    device = accelerator() if len(sq_distances) >= _ROWS_ON_GPU else None
    probabilities, target = np.empty(sq_distances.shape), np.log(perplexity)
    step = max(1, (_CHUNK if device is None else _CHUNK_ON_GPU) // sq_distances.shape[1])
    search = _search if device is None else partial(_search_on, device)

    def fill(part: slice) -> None:
        probabilities[part] = search(np.asarray(sq_distances[part], np.float64), target, log_affinity)

    parts = slices(len(sq_distances), step)
    if device is None and len(sq_distances) >= _ROWS_IN_THREADS:
        from .._core.team import in_threads

        in_threads(fill, list(parts), n_jobs)
    else:
        for part in parts:
            fill(part)
    return probabilities


def _search_on(device: str, sq_distances: Array, target: float, log_affinity: Callable[..., ArrayOrTensor]) -> Array:
    """Rows whose entropy is the target, on a device of torch."""
    import torch

    on_device = torch.tensor(sq_distances, device=device)
    return _search(on_device, target, log_affinity, xp=torch).cpu().numpy()


def _search(
    sq_distances: ArrayOrTensor, target: float, log_affinity: Callable[..., ArrayOrTensor], xp: ModuleType = np
) -> ArrayOrTensor:
    """Rows whose entropy is the target, of a chunk that fits a cache."""
    if log_affinity is gaussian_log_affinity:
        sq_distances = sq_distances - xp.amin(sq_distances, axis=1, keepdims=True)
    scale = sq_distances.mean(axis=1)
    probabilities = xp.full_like(sq_distances, 1 / sq_distances.shape[1])
    active = xp.where(scale > 0)[0]
    if not len(active):
        return probabilities
    at, bounds, kernel = xp.log(scale[active]), _log_bounds(sq_distances[active], xp), partial(log_affinity, xp=xp)
    low, high = xp.full_like(at, -np.inf), xp.full_like(at, np.inf)
    step, at_before, before = xp.full_like(at, _FIRST_STEP), at - 1, xp.full_like(at, np.nan)
    for _ in range(_MAX_STEPS):
        with np.errstate(over="ignore"):  # of a ratio, where the kernel is zero
            rows, entropies = _rows_and_entropies(kernel(sq_distances[active], xp.exp(at)[:, None]), xp)
        probabilities[active], excess = rows, entropies - target
        unsettled = xp.abs(excess) > _ENTROPY_TOLERANCE
        if not unsettled.any():
            break
        if not unsettled.all():
            state = (active, at, low, high, step, at_before, before, excess, *bounds)
            active, at, low, high, step, at_before, before, excess, *bounds = (values[unsettled] for values in state)
        low, high = xp.where(excess < 0, at, low), xp.where(excess < 0, high, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            secant = at - excess * (at - at_before) / xp.where(xp.isnan(before), 1.0, excess - before)
            trusted = (low < secant) & (secant < high) & ~(xp.abs(excess) > xp.abs(before) / 2)
            bracketed = xp.isfinite(high - low)
            trusted &= bracketed | (xp.abs(secant - at) <= step)
            otherwise = xp.where(bracketed, (low + high) / 2, at - xp.sign(excess) * step)
        step = xp.where(trusted, step, 2 * step)
        at_before, before = at, excess
        at = xp.clip(xp.where(trusted, secant, otherwise), *bounds)
    return probabilities


def _log_bounds(sq_distances: ArrayOrTensor, xp: ModuleType) -> list[ArrayOrTensor]:
    """Of log s^2: below, only the nearest count; above, all count the same."""
    least = xp.amin(xp.where(sq_distances > 0, sq_distances, np.inf), axis=1)
    bounds = xp.log(least) - _LOG_MARGIN, xp.log(xp.amax(sq_distances, axis=1)) + _LOG_MARGIN
    return [xp.clip(bound, -_LOG_RANGE, _LOG_RANGE) for bound in bounds]


def local_exponentials(distances: Array) -> Array:
    """exp(-max(0, d - rho) / s) of each row, rho its least positive distance, s by bisection to sum to log2 (k + 1).

    A row whose ties at rho sum to more has the least s that umap-learn allows: a thousandth of the mean distance.
    """
    distances = np.asarray(distances, dtype=np.float64)
    k = distances.shape[1]
    least = np.where(distances > 0, distances, np.inf).min(axis=1, keepdims=True)
    excess = np.maximum(distances - np.where(np.isfinite(least), least, 0), 0)
    mean = distances.sum(axis=1, keepdims=True) / (k + 1)  # the row itself included
    excess /= np.where(mean > 0, mean, 1)
    low, high = np.full_like(mean, np.log(_LEAST_SCALE)), np.full_like(mean, np.log(_LARGEST_SCALE))
    for _ in range(_MAX_STEPS):
        middle = (low + high) / 2
        above = np.exp(-excess / np.exp(middle)).sum(axis=1, keepdims=True) > np.log2(k + 1)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.exp(-excess / np.exp((low + high) / 2))
