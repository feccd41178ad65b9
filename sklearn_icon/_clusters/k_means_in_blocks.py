"""k-means in blocks of rows, of one process or several: starts on a draw, then Lloyd's steps of all, by sums."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils import gen_batches

from .._core.group import group
from .._core.journal import current, recalled
from .._core.pieces import at_once
from .._core.rows import in_units, is_itself, unit_of
from .._optim.solver import SolverResult
from .local_search import quiet
from .multistart import SURE, Partition
from .soft_k_means import moved

_DRAWN_ROWS = 10_000  # of all ranks, among which rank 0 finds the best of several starts
_NUMBERS_AT_ONCE = 1 << 22


def solve_in_blocks(rows: np.ndarray, sample_weight: np.ndarray, k_means: KMeans, seed: int) -> Partition:
    """Hard clusters of the least inertia, as far as the best start of a draw leads.

    Centres that are given are the start, and what a KMeans of all rows ends at from there. Steps end where no row
    changes its cluster. A centre that has no row any more stays where it is. Of rows on disk a block is read at a time.
    """
    ranks, data = group(), _Blocks(rows, sample_weight)
    centers = recalled("start", lambda: _start(data, k_means, seed))
    least = k_means.tol and k_means.tol * data.variance()
    labels, status, steps = np.full(len(rows), -1), "max_iter", _Steps(centers)
    centers, n_iter = steps.centers, steps.n_iter
    if n_iter:
        data.assign(labels, steps.before)
    while n_iter < k_means.max_iter:
        n_iter += 1
        n_moved, sums = data.assign(labels, centers)
        moved = np.where(sums[:, -1:] > 0, sums[:, :-1] / np.maximum(sums[:, -1:], np.finfo(float).tiny), centers)
        shift, used, centers = float(np.square(moved - centers).sum()), centers, moved
        if not ranks.total(n_moved) or shift <= least:
            status = "converged"
            break
        steps.note(used, centers, n_iter)
    loss = data.inertia(labels, centers)
    hard = np.zeros((len(rows), len(centers)), dtype=rows.dtype)
    hard[np.arange(len(rows)), labels] = SURE
    report = SolverResult(loss, n_iter, np.array([loss]), status)
    return Partition(hard, loss, report, {"centers": (centers + data.offset) / data.unit})


class _Blocks:
    """Rows less the mean of all, a block at a time, and sums over them."""

    def __init__(self, rows: np.ndarray, sample_weight: np.ndarray):
        self.rows, self.weight, ranks = rows, sample_weight, group()
        self.unit = -ranks.largest(-unit_of(rows))
        self.parts = list(gen_batches(len(rows), max(1, at_once(_NUMBERS_AT_ONCE) // rows.shape[1])))
        self.mass = ranks.total(sample_weight.sum())
        self.offset = np.zeros(rows.shape[1], dtype=rows.dtype)
        sums: Any = sum(sample_weight[part] @ block.astype(np.float64) for part, block in self)
        self.offset = (ranks.total(sums) / self.mass).astype(rows.dtype)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        for part in self.parts:
            yield part, self.of(self.rows[part])

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Some rows likewise."""
        return in_units(rows, self.unit) - self.offset

    def variance(self) -> float:
        """The mean of those of the columns."""
        sums: Any = sum(self.weight[part] @ np.square(block, dtype=np.float64) for part, block in self)
        return group().total(sums).mean() / self.mass

    def assign(self, labels: np.ndarray, centers: np.ndarray) -> tuple[int, np.ndarray]:
        """Give each row its nearest centre; (how many changed it, sums of rows and weights of clusters)."""
        n_moved, sums = 0, np.zeros((len(centers), self.rows.shape[1] + 1))
        centers = centers.astype(self.rows.dtype)
        for part, block in self:
            nearest, weight = pairwise_distances_argmin(block, centers), self.weight[part]
            n_moved += int((labels[part] != nearest).sum())
            labels[part] = nearest
            members = sparse.csr_array((weight, nearest, np.arange(len(block) + 1)), (len(block), len(centers))).T
            sums += np.column_stack([members @ block, members.sum(axis=1)])
        return n_moved, group().total(sums)

    def inertia(self, labels: np.ndarray, centers: np.ndarray) -> float:
        """The mean squared distance of rows to their centres."""
        parts = (self.weight[part] @ np.square(block - centers[labels[part]]).sum(axis=1) for part, block in self)
        return float(group().total(float(sum(parts))) / self.mass) / self.unit / self.unit


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


def _start(data: _Blocks, k_means: KMeans, seed: int) -> np.ndarray:
    """Centres that are given, or those of a draw of the rows of all ranks."""
    k_means.init = moved(k_means.init, data.unit, data.offset)
    if is_itself(k_means.init):
        return np.asarray(k_means.init, dtype=np.float64)
    ranks, rows = group(), data.rows
    first, n = ranks.first_of(len(rows))
    drawn = np.sort(np.random.RandomState(seed).permutation(n)[:_DRAWN_ROWS]) - first
    own = drawn[(drawn >= 0) & (drawn < len(rows))]
    some, weight = ranks.to_first(data.of(rows[own])), ranks.to_first(data.weight[own])
    if some is not None:
        with quiet():
            k_means.fit(some, sample_weight=weight)
    return ranks.objects(None if some is None else np.asarray(k_means.cluster_centers_, dtype=np.float64))[0]
