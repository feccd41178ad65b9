"""k-means in blocks of rows, of one process or several: starts, then Lloyd's steps of all rows, by sums.

Ranks try the starts of scikit-learn's KMeans, by its random numbers, on all rows. Rows on disk and very many have the
best of several starts on a draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import euclidean_distances, pairwise_distances_argmin
from sklearn.utils import gen_batches

from .._core.group import group
from .._core.journal import current, recalled
from .._core.pieces import at_once
from .._core.rows import in_units, is_itself, unit_of
from .._optim.solver import SolverResult
from .local_search import quiet
from .losses import copies_have_room
from .multistart import SURE, Partition
from .soft_k_means import moved

_DRAWN_ROWS = 10_000  # of all ranks, among which rank 0 finds the best of several starts
_TRIED_ROWS = 1_000_000  # of all ranks, up to which starts are tried on all of them
_NUMBERS_AT_ONCE = 1 << 22


def solve_in_blocks(
    rows: np.ndarray, sample_weight: np.ndarray, k_means: KMeans, random_state: np.random.RandomState
) -> Partition:
    """Hard clusters of the least inertia, as far as the best of several starts leads.

    Centres that are given are the start, and what a KMeans of all rows ends at from there. Steps end where no row
    changes its cluster. A centre that has no row any more stays where it is. Of rows on disk a block is read at a time.
    """
    data = _Blocks(rows, sample_weight)
    least = k_means.tol and k_means.tol * data.variance()
    centers, n_before = _start(data, k_means, random_state, least)
    end = _descended(data, k_means.max_iter, least, centers)
    loss = data.inertia(end.labels, end.centers)
    hard = np.zeros((len(rows), len(centers)), dtype=rows.dtype)
    hard[np.arange(len(rows)), end.labels] = SURE
    report = SolverResult(loss, n_before + end.n_iter, np.array([loss]), end.status)
    return Partition(hard, loss, report, {"centers": (end.centers + data.offset) / data.unit})


class _End(NamedTuple):
    """Where Lloyd's steps ended, and the centres before the last of them."""

    labels: np.ndarray
    centers: np.ndarray
    before: np.ndarray
    n_iter: int
    status: str


def _descended(data: _Blocks, max_iter: int, least: float, start: np.ndarray) -> _End:
    """Go on from centres until no row changes its cluster, or centres hardly move."""
    labels, status, steps = np.full(len(data.rows), -1), "max_iter", _Steps(start)
    centers, before, n_iter, settled = steps.centers, steps.before, steps.n_iter, False
    if n_iter:
        data.assign(labels, before)
    while n_iter < max_iter:
        n_iter += 1
        n_moved, sums = data.assign(labels, centers)
        moved = np.where(sums[:, -1:] > 0, sums[:, :-1] / np.maximum(sums[:, -1:], np.finfo(float).tiny), centers)
        shift, before, centers = float(np.square(moved - centers).sum()), centers, moved
        settled = not n_moved
        if settled or shift <= least:
            status = "converged"
            break
        steps.note(before, centers, n_iter)
    if not settled:
        data.assign(labels, centers)
    return _End(labels, centers, before, n_iter, status)


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
        of_all = group().total(np.append(sums.ravel(), n_moved))
        return int(of_all[-1]), of_all[:-1].reshape(sums.shape)

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Rows by their numbers among those of all ranks."""
        own = numbers - group().first
        here, found = (own >= 0) & (own < len(self.rows)), np.zeros((len(own), self.rows.shape[1]), self.rows.dtype)
        found[here] = self.of(self.rows[own[here]])
        return group().total(found)

    def sq_distances(self, centers: np.ndarray) -> np.ndarray:
        """Of centres to the rows of this rank."""
        return np.concatenate([euclidean_distances(centers, block, squared=True) for _, block in self], axis=1)

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


def _start(data: _Blocks, k_means: KMeans, random_state: np.random.RandomState, least: float) -> tuple[np.ndarray, int]:
    """(centres that are given, those of a draw, or those before the last step from the best start, steps before)."""
    k_means.init = moved(k_means.init, data.unit, data.offset)
    if is_itself(k_means.init):
        return np.asarray(k_means.init, dtype=np.float64), 0
    ranks, rows = group(), data.rows
    in_blocks = not copies_have_room(len(rows), k_means.n_clusters, rows.nbytes)
    too_many = in_blocks or ranks.total(len(rows)) > _TRIED_ROWS
    if ranks.largest(float(too_many or callable(k_means.init) or not ranks.several)):
        return recalled("start", lambda: _of_draw(data, k_means, random_state.randint(2**31 - 1))), 0
    firsts = recalled("starts", lambda: [_drawn_centers(data, k_means) for _ in range(k_means.n_init)])
    tried = [
        recalled(f"start {number}", partial(_tried, data, k_means.max_iter, least, centers))
        for number, centers in enumerate(firsts)
    ]
    _, centers, n_iter = min(tried, key=lambda each: each[0])
    return centers, n_iter


def _tried(data: _Blocks, max_iter: int, least: float, start: np.ndarray) -> list:
    """[inertia at the end of a start, centres before the last step, steps until there]."""
    end = _descended(data, max_iter, least, start)
    return [data.inertia(end.labels, end.centers), end.before, end.n_iter - 1]


def _drawn_centers(data: _Blocks, k_means: KMeans) -> np.ndarray:
    """Centres by the random numbers that scikit-learn's KMeans draws for the rows of all ranks."""
    ranks, k, rng = group(), k_means.n_clusters, k_means.random_state
    own = data.weight.astype(data.rows.dtype)
    weight = ranks.gathered(own)
    p = weight / weight.sum()
    if k_means.init == "random":
        return data.at(rng.choice(len(p), size=k, replace=False, p=p)).astype(np.float64)
    centers = [data.at(np.array([rng.choice(len(p), p=p)]))[0]]
    closest = data.sq_distances(np.array(centers))
    pots, best, n_trials = ranks.total(closest @ own), 0, 2 + int(np.log(k))
    while len(centers) < k:
        marks = rng.uniform(size=n_trials) * pots[best]
        candidates = np.searchsorted(np.cumsum(weight * ranks.gathered(closest[best])), marks)
        rows = data.at(np.minimum(candidates, len(p) - 1))
        closest = np.minimum(closest[best], data.sq_distances(rows))
        pots = ranks.total(closest @ own)
        best = int(np.argmin(pots))
        centers.append(rows[best])
    return np.array(centers, dtype=np.float64)


def _of_draw(data: _Blocks, k_means: KMeans, seed: int) -> np.ndarray:
    """The best centres of a draw of the rows of all ranks."""
    ranks, rows = group(), data.rows
    first, n = ranks.first_of(len(rows))
    drawn = np.sort(np.random.RandomState(seed).permutation(n)[:_DRAWN_ROWS]) - first
    own = drawn[(drawn >= 0) & (drawn < len(rows))]
    some, weight = ranks.to_first(data.of(rows[own])), ranks.to_first(data.weight[own])
    if some is not None:
        with quiet():
            k_means.fit(some, sample_weight=weight)
    return ranks.objects(None if some is None else np.asarray(k_means.cluster_centers_, dtype=np.float64))[0]
