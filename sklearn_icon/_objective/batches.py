"""Minibatches: of rows, one positive of each, and the batch itself as keys; or of items, whose views are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy import sparse

from .._core.conditional import Conditional, view_conditional
from .._core.types import Array
from .._optim.train import Run
from .loss import Loss
from .objective import Objective

_REDRAWS = 20


def batch_count(n_rows: int, batch_rows: int) -> int:
    """Minibatches of a pass, of `batch_rows` rows at the most, but of two where there are as many.

    One row has no others to be told from, and no spread for a network to normalise by.
    """
    return max(1, min(-(-n_rows // batch_rows), n_rows // 2))


def shuffled(n_rows: int, batch_rows: int, rng: np.random.RandomState) -> list[np.ndarray]:
    """The rows of the minibatches of one pass, in a new order; their sizes differ by one at the most."""
    return np.array_split(rng.permutation(n_rows), batch_count(n_rows, batch_rows))


class PositiveSampler:
    """Draws keys of rows from the weights of p, or from the walks of up to n_steps along them.

    One of k steps ends at j with the weight of P^k, as in `supervisory.RandomWalk`.
    """

    def __init__(self, p: Conditional, n_steps: int = 1) -> None:
        self.has_positives, self.exclude_self, self.n_steps = p.has_positives, p.exclude_self, n_steps
        self.indptr, self.indices = p.weights.indptr, p.weights.indices
        counts, data = np.diff(self.indptr), p.weights.data
        first = np.append(data, 0)[self.indptr[:-1]]
        even = np.array_equal(data, np.repeat(first, counts))  # all weights of a row are equal
        self.counts = counts if even else None
        self.cumulative: Any = None if even else np.cumsum(data, dtype=np.float64)

    def draw(self, rows: Array, rng: np.random.RandomState) -> tuple[Array, Array]:
        """(rows that have positives, one positive of each)."""
        rows = rows[self.has_positives[rows]]
        ends = self._walk(rows, rng)
        for _ in range(_REDRAWS if self.n_steps > 1 else 0):  # who comes back has found no positive
            back = np.flatnonzero(self._is_lost(ends, rows))
            if not len(back):
                return rows, ends
            ends[back] = self._walk(rows[back], rng)
        lost = self._is_lost(ends, rows)
        return rows, np.where(lost, self._step(rows, rng), ends)

    def _is_lost(self, ends: Array, rows: Array) -> Array:
        return (ends < 0) | ((ends == rows) & self.exclude_self)

    def _walk(self, rows: Array, rng: np.random.RandomState) -> Array:
        """Ends of walks of up to n_steps, each length as likely; -1 where a row on the way has no positive."""
        ends = self._step(rows, rng)
        lengths = rng.randint(1, self.n_steps + 1, size=len(rows)) if self.n_steps > 1 else np.ones(len(rows))
        for length in range(2, self.n_steps + 1):
            going = np.flatnonzero((lengths >= length) & (ends >= 0))
            dead = ~self.has_positives[ends[going]]
            ends[going[dead]] = -1
            ends[going[~dead]] = self._step(ends[going[~dead]], rng)
        return ends

    def _step(self, rows: Array, rng: np.random.RandomState) -> Array:
        if self.counts is not None:
            return self.indices[self.indptr[rows] + (rng.uniform(size=len(rows)) * self.counts[rows]).astype(np.intp)]
        first, last = self.indptr[rows], self.indptr[rows + 1] - 1
        before = np.where(first > 0, self.cumulative[first - 1], 0.0)
        point = before + rng.uniform(size=len(rows)) * (self.cumulative[last] - before)
        return self.indices[np.clip(np.searchsorted(self.cumulative, point, side="right"), first, last)]


def batch_conditional(n_rows: int, exclude_self: bool) -> Conditional:
    """p of a batch whose keys are its rows, then their positives: key n_rows + i belongs to row i.

    With `exclude_self` key i is row i itself, as where the positive is another row.
    """
    rows = np.arange(n_rows)
    weights = sparse.csr_array((np.ones(n_rows), (rows, n_rows + rows)), shape=(n_rows, 2 * n_rows))
    return Conditional(weights, exclude_self=exclude_self)


class Objectives(dict):
    """The objective of batches of each size, made at the first such batch."""

    def __init__(self, make: Callable[[int], Objective]):
        self.make = make

    def __missing__(self, size: int) -> Objective:
        made = self[size] = self.make(size)
        return made


class BatchLoss:
    """The objective, with options of `Objective`, on minibatches of rows and as many positives, each drawn anew.

    `represent` gives representations of row numbers, `represent_keys` those of keys where these are others. As many
    positives come with the rows of a batch.
    """

    def __init__(
        self,
        p: Conditional,
        loss: Loss,
        represent: Callable[[np.ndarray], torch.Tensor],
        batch_rows: int,
        run: Run,
        represent_keys: Callable[[np.ndarray], torch.Tensor] | None = None,
    ):
        self.p, self.represent, self.represent_keys, self.batch_rows = p, represent, represent_keys, batch_rows
        self.sampler, self.drawable = PositiveSampler(p), np.flatnonzero(p.has_positives)

        def objective_of(n: int) -> Objective:
            return loss.over(batch_conditional(n, p.exclude_self).mix(p.uniform), run)

        self.objectives = Objectives(objective_of)

    def __call__(self, rng: np.random.RandomState) -> torch.Tensor:
        """The loss of a batch."""
        rows = rng.permutation(self.drawable)[: self.batch_rows]
        rows, positives = self.sampler.draw(rows, rng)
        n, members = len(rows), np.concatenate([rows, positives])
        objective = self.objectives[n]
        keys = (self.represent_keys or self.represent)(members)
        z = keys[:n] if self.represent_keys is None else self.represent(rows)
        degrees = None if self.p.degrees is None else torch.as_tensor(self.p.degrees[members]).to(keys)
        return objective(z, keys, degrees)


class ViewLoss:
    """The objective, with options of `Objective`, on views of items, in minibatches of shuffled passes.

    Every view of a batch is an anchor, and all other views are its keys: NT-Xent, where q is a Gaussian of cosines.
    Keys of an encoder's past are the views of the other draws, whatever their item. p is one of the views of all items;
    its uniform mass is that of a batch. A pass is cut into batches that differ by one item.
    """

    def __init__(
        self,
        p: Conditional,
        views: Any,
        loss: Loss,
        items: Callable[[np.ndarray], torch.Tensor],
        trained: Any,
        batch_items: int,
        run: Run,
    ):
        self.views, self.items, self.trained, self.uniform = views, items, trained, p.uniform
        self.n_items = p.shape[0] // views.n_views
        self.batch_items, self.n_batches = batch_items, batch_count(self.n_items, batch_items)
        self.objectives = Objectives(lambda n: loss.over(self._conditional(n), run))

    def batches(self, rng: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield the items of the batches of one pass, shuffled."""
        yield from shuffled(self.n_items, self.batch_items, rng)

    def passes(self, rng: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield the items of batches, pass after pass."""
        while True:
            yield from self.batches(rng)

    def __call__(self, items: np.ndarray) -> Any:
        """The loss of a batch of items, whose views are drawn."""
        objective, pairs = self._represented(items)
        return sum(objective(z, keys) for z, keys in pairs) / len(pairs)

    def per_item(self, items: np.ndarray) -> torch.Tensor:
        """The divergence of each item of a batch, the mean of those of its views: the loss is the mean of all."""
        objective, pairs = self._represented(items)
        parts = torch.cat([objective.per_row(z, keys) for z, keys in pairs]) / len(pairs)
        return len(items) * parts.view(-1, len(items)).sum(0)

    def _represented(self, items: np.ndarray) -> tuple[Objective, list]:
        """(objective, [(rows, keys or None where these are the rows), ...])."""
        n, views = len(items), self.views.draw(self.items(items))
        z, objective = self.trained.represent(views), self.objectives[n]
        if self.trained.represent_keys is None:
            return objective, [(z, None)]
        keys = self.trained.represent_keys(views).split(n)
        others = [torch.cat([*keys[:draw], *keys[draw + 1 :]]) for draw in range(len(keys))]
        return objective, list(zip(z.split(n), others, strict=True))

    def _conditional(self, n: int) -> Conditional:
        """p of the views of n items; of one draw over the others, where these are represented on their own."""
        p = view_conditional(n, self.views.n_views)
        if self.trained.represent_keys is not None:
            p = Conditional(p.weights[:n, n:])
        return p.mix(self.uniform)
