"""The loss of partitions on batches drawn anew: rows, or views of items, and a positive of each."""

from copy import copy
from math import log

import numpy as np
import torch

from .._objective.batches import PositiveSampler, batch_conditional
from .._objective.objective import Objective
from ..encoders._networks import as_tensor
from ..learned import SharedCluster

_SHIFTS = 4  # keys that stand for all in the uniform term of a row
_BACKGROUND_KEYS = 128  # the same, where the divergence is not KL


class PartitionLoss:
    """The losses of several models on a batch drawn anew: rows, and one positive of each; these are the keys.

    Parameters
    ----------
    p : Conditional
        One step, debiased.
    n_steps : int
        The longest walk along p that finds positives.
    learned : Learned
    batch_size : int
        Rows of a batch.
    sample_weight : ndarray of shape (n,)
        How often a row is drawn.
    options : dict
        Of `Objective`: divergence, dtype, device.
    """

    def __init__(self, p, n_steps, learned, batch_size, sample_weight, options):
        self.p, self.learned, self.options = p, learned, options
        self.sampler = PositiveSampler(p, n_steps)
        drawable = np.flatnonzero(p.has_positives & (sample_weight > 0))
        self.drawable, self.batch_size = drawable, batch_size
        weights = sample_weight[drawable]
        self.cumulative = np.cumsum(weights) if np.ptp(weights) else None
        self.fast = options["divergence"] == "kl" and isinstance(learned.unmixed(), SharedCluster)
        self.scale: PartitionLoss = self

    def of_batches(self, batch_size):
        """The same on batches of another size; under KL on the scale of this one's, which the number of keys sets."""
        other = copy(self)
        other.batch_size = batch_size
        return other

    @property
    def n_rows(self):
        """Rows of a batch."""
        return self.batch_size if self.cumulative is not None else min(self.batch_size, len(self.drawable))

    def _draw(self, rng):
        if self.cumulative is not None:
            points = rng.uniform(high=self.cumulative[-1], size=self.batch_size)
            rows = np.searchsorted(self.cumulative, points, side="right").clip(max=len(self.drawable) - 1)
        elif self.batch_size >= len(self.drawable):
            rows = rng.permutation(len(self.drawable))
        else:
            rows = rng.randint(len(self.drawable), size=self.batch_size)
        return self.sampler.draw(self.drawable[rows], rng)

    def __call__(self, models, rng, past=None):
        """The loss of each model on a batch drawn with a RandomState, shape (models,), its keys by `past` if given."""
        members = np.concatenate(self._draw(rng))
        keys = models(members) if past is None else past(members)
        rows = None if past is None else models(members[: len(members) // 2])
        weighted = self.learned.by_degree and self.p.degrees is not None
        return self._of_batch(rows, keys, torch.as_tensor(self.p.degrees[members]).to(keys) if weighted else None)

    def _of_batch(self, rows, keys, degrees=None):
        """The losses, from logits of rows, None where these are the first half of the keys."""
        n = keys.shape[-1] // 2
        if self.fast:
            shifts = np.unique(np.linspace(1, max(1, n - 1), _SHIFTS, dtype=int))
            a = self.p.uniform
            loss = shared_cluster_kl(rows, keys, degrees, a, self.learned.mixture, n + shifts)
            return loss + (negentropy(a, 2 * self.scale.n_rows) - negentropy(a, 2 * n))
        batch = batch_conditional(n, exclude_self=False).mix(self.p.uniform)
        objective = Objective(batch, self.learned, background_keys=min(n, _BACKGROUND_KEYS), **self.options)
        rows = keys[..., :n] if rows is None else rows
        return torch.stack([objective(z.T, y.T, degrees) for z, y in zip(rows, keys, strict=True)])


class ViewPartitionLoss(PartitionLoss):
    """The same on views of items drawn anew: each but the last is a row whose positive is the next.

    Parameters
    ----------
    views : PositivePairs
    items : ndarray of shape (n, ...)
    p, learned, batch_size, sample_weight, options
        As in `PartitionLoss`; p over all views, draw after draw, and a batch is of items.
    """

    def __init__(self, views, items, p, learned, batch_size, sample_weight, options):
        others = np.zeros((views.n_views - 1) * len(items))
        super().__init__(p, 1, learned, batch_size, np.concatenate([sample_weight, others]), options)
        self.views, self.items, self.kind = views, items, (options["dtype"], options["device"])

    def __call__(self, models, rng, past=None):
        """See `PartitionLoss`."""
        drawn = self._draw(rng)[0]
        batch = self.views.draw(as_tensor(self.items[drawn], *self.kind))
        rows, n = models.of(batch), len(drawn)
        keys = rows if past is None else past.of(batch)
        losses = [
            self._of_batch(None if past is None else rows[..., first : first + n], keys[..., first : first + 2 * n])
            for first in range(0, len(batch) - n, n)
        ]
        return torch.stack(losses).mean(0)


def shared_cluster_kl(rows, keys, degrees, of_p, of_q, shifts):
    """KL of a batch from what clusters share: no matrix of rows x keys, as log q needs cluster masses alone.

    ::

        N q(j|i) = sum_c phi_ic phi_jc d_j / mean_k phi_kc d_k,     phi the softmax of logits
        L = mean_i KL( p~(.|i) || (1 - b) q(.|i) + b / N ),     p~ = (1 - a) [j = n + i] + a / N

    Parameters
    ----------
    rows : tensor of shape (models, clusters, n) or None
        Logits; None where they are the first half of those of the keys.
    keys : tensor of shape (models, clusters, N)
        Logits of the n rows, then of the positive of each: key n + i is that of row i.
    degrees : tensor of shape (N,) or None
        Weights d of the keys.
    of_p, of_q : float
        a and b.
    shifts : ndarray of int
        Row i meets the keys i + shift, modulo N, in the sum over the uniform mass: all, or some that stand for all.

    Returns
    -------
    tensor of shape (models,)
    """
    n_keys, n, smallest = keys.shape[-1], keys.shape[-1] // 2, torch.finfo(keys.dtype).tiny
    keys = keys.softmax(1)
    rows = keys[..., :n] if rows is None else rows.softmax(1)
    if degrees is not None:
        keys = keys * degrees
    rows = rows / keys.mean(2, keepdim=True).clamp_min(smallest)

    def mean_log(shift):
        others = keys[..., shift : shift + n]
        if others.shape[-1] < n:
            others = torch.cat([others, keys[..., : n - others.shape[-1]]], dim=2)
        return ((1 - of_q) * (rows * others).sum(1).clamp_min(smallest) + of_q).log().mean(1)

    loss = -(1 - of_p) * mean_log(n)
    if of_p:
        loss = loss - of_p / len(shifts) * sum(mean_log(shift) for shift in shifts)
    return loss + negentropy(of_p, n_keys)


def negentropy(a, n_keys):
    """Sum of p~ log(N p~) over N keys, of which one is the positive: the part of the loss that depends on N."""
    share = a / n_keys
    return (1 - a + share) * log(n_keys * (1 - a + share)) + (n_keys - 1) * share * log(a or 1)
