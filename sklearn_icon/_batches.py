"""Minibatches of a distribution over rows: a batch of rows, one positive of each, and the batch itself as keys."""

import numpy as np
import torch
from scipy import sparse

from ._conditional import Conditional
from ._objective import Objective


class PositiveSampler:
    """Draws keys of rows from the weights of p.

    Parameters
    ----------
    p : Conditional
    """

    def __init__(self, p):
        self.has_positives = p.has_positives
        self.indptr, self.indices = p.weights.indptr, p.weights.indices
        self.cumulative = np.cumsum(p.weights.data)

    def draw(self, rows, rng):
        """(rows that have positives, one positive of each)."""
        rows = rows[self.has_positives[rows]]
        first, last = self.indptr[rows], self.indptr[rows + 1] - 1
        before = np.where(first > 0, self.cumulative[first - 1], 0.0)
        point = before + rng.uniform(size=len(rows)) * (self.cumulative[last] - before)
        return rows, self.indices[np.clip(np.searchsorted(self.cumulative, point, side="right"), first, last)]


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
