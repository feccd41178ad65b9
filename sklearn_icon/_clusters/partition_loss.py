"""The loss of partitions on batches drawn anew: rows, or views of items, and a positive of each."""

from collections.abc import Callable
from copy import copy
from math import log
from typing import Any

import numpy as np
import torch

from .._core.conditional import Conditional
from .._objective.batches import PositiveSampler, batch_conditional
from .._objective.loss import Loss
from .._optim.train import Run
from ..encoders._networks import as_tensor
from ..learned import SharedCluster

_SHIFTS = 4  # keys that stand for all in the uniform term of a row
_BACKGROUND_KEYS = 128  # the same, where the divergence is not KL


class PartitionLoss:
    """The losses of several models on a batch drawn anew: rows, and one positive of each; these are the keys.

    p is one step, debiased, and `n_steps` the longest walk along it that finds positives; a batch has `batch_size`
    rows, each drawn as often as its weight says.
    """

    def __init__(self, p: Conditional, n_steps: int, loss: Loss, batch_size: int, sample_weight: np.ndarray, run: Run):
        self.p, self.loss, self.run = p, loss, run
        self.sampler = PositiveSampler(p, n_steps)
        drawable = np.flatnonzero(p.has_positives & (sample_weight > 0))
        self.drawable, self.batch_size = drawable, batch_size
        weights = sample_weight[drawable]
        self.cumulative: np.ndarray | None = np.cumsum(weights) if np.ptp(weights) else None
        self.fast = loss.divergence == "kl" and isinstance(loss.learned.unmixed(), SharedCluster)
        self.scale: PartitionLoss = self

    def of_batches(self, batch_size: int) -> "PartitionLoss":
        """The same on batches of another size; under KL on the scale of this one's, which the number of keys sets."""
        other = copy(self)
        other.batch_size = batch_size
        return other

    @property
    def n_rows(self) -> int:
        """Rows of a batch."""
        return self.batch_size if self.cumulative is not None else min(self.batch_size, len(self.drawable))

    def _draw(self, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        if self.cumulative is not None:
            points = rng.uniform(high=self.cumulative[-1], size=self.batch_size)
            rows = np.searchsorted(self.cumulative, points, side="right").clip(max=len(self.drawable) - 1)
        elif self.batch_size >= len(self.drawable):
            rows = rng.permutation(len(self.drawable))
        else:
            rows = rng.randint(len(self.drawable), size=self.batch_size)
        return self.sampler.draw(self.drawable[rows], rng)

    def __call__(self, models: Any, rng: np.random.RandomState, past: Any = None) -> torch.Tensor:
        """The loss of each model on a batch drawn with a RandomState, shape (models,), its keys by `past` if given."""
        members = np.concatenate(self._draw(rng))
        keys = models(members) if past is None else past(members)
        rows = None if past is None else models(members[: len(members) // 2])
        degrees = self.p.degrees if self.loss.learned.by_degree else None
        return self._of_batch(rows, keys, None if degrees is None else torch.as_tensor(degrees[members]).to(keys))

    def _of_batch(self, rows: Any, keys: torch.Tensor, degrees: Any = None) -> torch.Tensor:
        """The losses, from logits of rows, None where these are the first half of the keys."""
        n = keys.shape[-1] // 2
        if self.fast:
            shifts = np.unique(np.linspace(1, max(1, n - 1), _SHIFTS, dtype=int))
            a = self.p.uniform
            of_q = self.loss.learned.mixture, self.loss.learned.tilt
            loss = shared_cluster_kl(rows, keys, degrees, a, of_q, n + shifts)
            return loss + (negentropy(a, 2 * self.scale.n_rows) - negentropy(a, 2 * n))
        batch = batch_conditional(n, exclude_self=False).mix(self.p.uniform)
        objective = self.loss.over(batch, self.run, background_keys=min(n, _BACKGROUND_KEYS))
        rows = keys[..., :n] if rows is None else rows
        return torch.stack([objective(z.T, y.T, degrees) for z, y in zip(rows, keys, strict=True)])


class ViewPartitionLoss(PartitionLoss):
    """The same on views of items drawn anew: each but the last is a row whose positive is the next.

    p is over all views, draw after draw, and a batch is of items.
    """

    def __init__(
        self,
        views: Any,
        items: np.ndarray,
        p: Conditional,
        loss: Loss,
        batch_size: int,
        sample_weight: np.ndarray,
        run: Run,
    ):
        others = np.zeros((views.n_views - 1) * len(items))
        super().__init__(p, 1, loss, batch_size, np.concatenate([sample_weight, others]), run)
        self.views, self.items = views, items

    def __call__(self, models: Any, rng: np.random.RandomState, past: Any = None) -> torch.Tensor:
        """See `PartitionLoss`."""
        drawn = self._draw(rng)[0]
        batch = self.views.draw(as_tensor(self.items[drawn], **self.run.like))
        rows, n = models.of(batch), len(drawn)
        keys = rows if past is None else past.of(batch)
        losses = [
            self._of_batch(None if past is None else rows[..., first : first + n], keys[..., first : first + 2 * n])
            for first in range(0, len(batch) - n, n)
        ]
        return torch.stack(losses).mean(0)


def shared_cluster_kl(
    rows: torch.Tensor | None,
    keys: torch.Tensor,
    degrees: torch.Tensor | None,
    of_p: float,
    q: tuple[float, Callable[[torch.Tensor, int], Any]],
    shifts: np.ndarray,
) -> torch.Tensor:
    """KL of a batch from what clusters share: no matrix of rows x keys, as log q needs cluster masses alone.

    ::

        N q(j|i) = sum_c phi_ic phi_jc d_j / mean_k phi_kc d_k,     phi the softmax of logits
        L = mean_i KL( p~(.|i) || (1 - b) q(.|i) + b / N ),     p~ = (1 - a) [j = n + i] + a / N

    Keys have logits of shape (models, clusters, N): those of the n rows, then of the positive of each; rows are others
    or None. a is `of_p`; `q` holds b and what a prior multiplies q(j|i) with; d are the degrees of keys. Row i meets
    the keys i + shift, modulo N, in the sum over the uniform mass: all, or some that stand for all.
    """
    n_keys, n, smallest = keys.shape[-1], keys.shape[-1] // 2, torch.finfo(keys.dtype).tiny
    of_q, tilt = q
    keys = keys.softmax(1)
    rows = keys[..., :n] if rows is None else rows.softmax(1)
    if degrees is not None:
        keys = keys * degrees
    masses = keys.mean(2, keepdim=True).clamp_min(smallest)
    rows = rows * tilt(masses / masses.sum(1, keepdim=True), keys.shape[1]) / masses

    def mean_log(shift: Any) -> torch.Tensor:
        others = keys[..., shift : shift + n]
        if others.shape[-1] < n:
            others = torch.cat([others, keys[..., : n - others.shape[-1]]], dim=2)
        return ((1 - of_q) * (rows * others).sum(1).clamp_min(smallest) + of_q).log().mean(1)

    loss = -(1 - of_p) * mean_log(n)
    if of_p:
        loss = loss - of_p / len(shifts) * sum(mean_log(shift) for shift in shifts)
    return loss + negentropy(of_p, n_keys)


def negentropy(a: float, n_keys: int) -> float:
    """Sum of p~ log(N p~) over N keys, of which one is the positive: the part of the loss that depends on N."""
    each = a / n_keys
    return (1 - a + each) * log(n_keys * (1 - a + each)) + (n_keys - 1) * each * log(a or 1)
