"""k-means over the rows of several ranks: starts on a draw, then Lloyd's steps, whose sums over rows are added."""

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin

from .._core.group import group
from .._core.journal import current, recalled
from .._core.rows import is_itself
from .._optim.solver import SolverResult
from .local_search import quiet
from .multistart import SURE, Partition

_DRAWN_ROWS = 10_000  # of all ranks, among which rank 0 finds the best of several starts


def solve_over_ranks(rows: np.ndarray, sample_weight: np.ndarray, k_means: KMeans, seed: int) -> Partition:
    """Hard clusters of the least inertia, as far as the best start of a draw leads.

    Centres that are given are the start, and what a KMeans of all rows ends at from there. Steps end where no row
    changes its cluster. A centre that has no row any more stays where it is.
    """
    ranks = group()
    mass = ranks.total(sample_weight.sum())
    offset = ranks.total(np.asarray(sample_weight @ rows, dtype=np.float64)) / mass
    rows = (rows - offset).astype(rows.dtype, copy=False)
    centers = recalled("start", lambda: _start(rows, sample_weight, k_means, offset, seed))
    least = k_means.tol and k_means.tol * ranks.total(sample_weight @ np.square(rows, dtype=np.float64)).mean() / mass
    labels, status, numbers = np.full(len(rows), -1), "max_iter", np.arange(len(rows) + 1)
    steps = _Steps(centers)
    centers, n_iter = steps.centers, steps.n_iter
    if n_iter:
        labels = pairwise_distances_argmin(rows, steps.before.astype(rows.dtype))
    while n_iter < k_means.max_iter:
        n_iter += 1
        before, labels = labels, pairwise_distances_argmin(rows, centers.astype(rows.dtype))
        of_clusters = sparse.csr_array((sample_weight, labels, numbers), shape=(len(rows), len(centers))).T
        of_sums = np.column_stack([of_clusters @ rows, of_clusters.sum(axis=1)]).astype(np.float64)
        sums = ranks.total(of_sums)
        moved = np.where(sums[:, -1:] > 0, sums[:, :-1] / np.maximum(sums[:, -1:], np.finfo(float).tiny), centers)
        shift, used, centers = float(np.square(moved - centers).sum()), centers, moved
        if not ranks.total(int((labels != before).sum())) or shift <= least:
            status = "converged"
            break
        steps.note(used, centers, n_iter)
    near = np.square(rows - centers[labels]).sum(axis=1)
    loss = float(ranks.total(sample_weight @ near) / mass)
    hard = np.eye(len(centers))[labels]
    return Partition(
        SURE * hard, loss, SolverResult(loss, n_iter, np.array([loss]), status), {"centers": centers + offset}
    )


class _Steps:
    """Centres before and after the last of the steps, as a journal keeps them."""

    def __init__(self, centers: np.ndarray) -> None:
        self.journal = current()
        known = None if self.journal is None else self.journal.resume()
        self.before: np.ndarray = centers if known is None else known[0]
        self.centers: np.ndarray = centers if known is None else known[1]
        self.n_iter: int = 0 if known is None else known[2]

    def note(self, before: np.ndarray, centers: np.ndarray, n_iter: int) -> None:
        """Let the journal keep a step, if it is time."""
        if self.journal is not None:
            self.journal.step(lambda: [before, centers, n_iter])


def _start(rows: np.ndarray, sample_weight: np.ndarray, k_means: KMeans, offset: Any, seed: int) -> np.ndarray:
    """Centres that are given, or those of a draw of the rows of all ranks."""
    if is_itself(k_means.init):
        return np.asarray(k_means.init, dtype=np.float64) - offset
    ranks = group()
    first, n = ranks.first_of(len(rows))
    drawn = np.sort(np.random.RandomState(seed).permutation(n)[:_DRAWN_ROWS]) - first
    own = drawn[(drawn >= 0) & (drawn < len(rows))]
    some, weight = ranks.to_first(rows[own]), ranks.to_first(sample_weight[own])
    if some is not None:
        with quiet():
            k_means.fit(some, sample_weight=weight)
    return ranks.objects(None if some is None else np.asarray(k_means.cluster_centers_, dtype=np.float64))[0]
