"""Minibatches of a distribution over rows: a batch of rows, one positive of each, and the batch itself as keys."""

import numpy as np
import torch
from scipy import sparse

from ._conditional import Conditional
from ._objective import Objective

_REDRAWS = 20


class PositiveSampler:
    """Draws keys of rows from the weights of p, or from the walks along them.

    Parameters
    ----------
    p : Conditional
    n_steps : int, default=1
        The longest walk: one of k steps ends at j with the weight of P^k, as in `supervisory.RandomWalk`.
    """

    def __init__(self, p, n_steps=1):
        self.has_positives, self.exclude_self, self.n_steps = p.has_positives, p.exclude_self, n_steps
        self.indptr, self.indices = p.weights.indptr, p.weights.indices
        counts, data = np.diff(self.indptr), p.weights.data
        first = data[np.minimum(self.indptr[:-1], max(len(data) - 1, 0))] if len(data) else data
        self.counts = (
            counts if np.array_equal(data, np.repeat(first, counts)) else None
        )  # all weights of a row are equal
        self.cumulative = np.cumsum(data, dtype=np.float64)

    def draw(self, rows, rng):
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

    def _is_lost(self, ends, rows):
        return (ends < 0) | ((ends == rows) & self.exclude_self)

    def _walk(self, rows, rng):
        """Ends of walks of up to n_steps, each length as likely; -1 where a row on the way has no positive."""
        ends = self._step(rows, rng)
        lengths = rng.randint(1, self.n_steps + 1, size=len(rows)) if self.n_steps > 1 else np.ones(len(rows))
        for length in range(2, self.n_steps + 1):
            going = np.flatnonzero((lengths >= length) & (ends >= 0))
            dead = ~self.has_positives[ends[going]]
            ends[going[dead]] = -1
            ends[going[~dead]] = self._step(ends[going[~dead]], rng)
        return ends

    def _step(self, rows, rng):
        if self.counts is not None:
            return self.indices[self.indptr[rows] + (rng.uniform(size=len(rows)) * self.counts[rows]).astype(np.intp)]
        first, last = self.indptr[rows], self.indptr[rows + 1] - 1
        before = np.where(first > 0, self.cumulative[first - 1], 0.0)
        point = before + rng.uniform(size=len(rows)) * (self.cumulative[last] - before)
        return self.indices[np.clip(np.searchsorted(self.cumulative, point, side="right"), first, last)]


def batch_conditional(n_rows, exclude_self):
    """p of a batch whose keys are its rows, then their positives: key n_rows + i belongs to row i.

    Parameters
    ----------
    n_rows : int
        Rows of the batch.
    exclude_self : bool
        Whether key i is row i itself, as where the positive is another row.

    Returns
    -------
    Conditional of shape (n_rows, 2 * n_rows)
    """
    rows = np.arange(n_rows)
    weights = sparse.csr_array((np.ones(n_rows), (rows, n_rows + rows)), shape=(n_rows, 2 * n_rows))
    return Conditional(weights, exclude_self=exclude_self)


class BatchLoss:
    """The objective on minibatches, each drawn anew.

    Parameters
    ----------
    p : Conditional
    learned : Learned
    represent : callable (row numbers) -> tensor
        Representations of rows.
    batch_rows : int
        Rows of a batch; as many positives come with them.
    options : dict
        Of `Objective`.
    """

    def __init__(self, p, learned, represent, batch_rows, options):
        self.p, self.learned, self.represent = p, learned, represent
        self.batch_rows, self.options = batch_rows, options
        self.sampler = PositiveSampler(p)
        self.objectives: dict[int, Objective] = {}  # by the rows of a batch that have positives

    def __call__(self, rng):
        """The loss of a batch drawn with a RandomState."""
        rows = rng.permutation(self.p.shape[0])[: self.batch_rows]
        rows, positives = self.sampler.draw(rows, rng)
        n = len(rows)
        if n not in self.objectives:
            batch = batch_conditional(n, self.p.exclude_self).mix(self.p.uniform)
            self.objectives[n] = Objective(batch, self.learned, **self.options)
        members = np.concatenate([rows, positives])
        keys = self.represent(members)
        degrees = None if self.p.degrees is None else torch.as_tensor(self.p.degrees[members]).to(keys)
        return self.objectives[n](keys[:n], keys, degrees)
