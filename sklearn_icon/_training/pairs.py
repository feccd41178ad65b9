"""How pairs are solved: two encoders, one a modality, that share nothing but the loss.

    L = 1/2 mean_i D( p(.|i) || q(.|i) )  +  1/2 mean_j D( p(.|j) || q(.|j) )

where i are rows of one modality whose keys are the other's, and j rows of the other whose keys are the one's.
"""

from math import log
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import gen_batches

from .._core.conditional import Conditional
from .._core.seeding import seeded_if
from .._core.unit_rows import unit_rows
from .._objective.batches import batch_count, shuffled
from .._objective.objective import Objective
from .._optim.solver import SolverResult, minimize
from ..encoders._networks import as_tensor, build_module, state_arrays
from ..learned import Learned

_RATE = 2e-3
_FIRST_TEMPERATURE, _LEAST_TEMPERATURE = 0.3, 0.01
_LEAST_WINDOW = 50
ROWS_AT_ONCE = 1024
_ROUNDING = 16 * np.finfo(np.float64).eps  # relative, of affinities


class Pairs(NamedTuple):
    """Solved encoders: the states of both modules, q as it was learned, the solver's report."""

    states: tuple[dict, dict]
    learned: Learned
    result: SolverResult


def on_sphere(learned):
    """Whether representations are unit rows: q reads directions, or its loss is bounded on the sphere alone."""
    return learned.unmixed().is_limit or learned.affinity == "cosine"


def pairs_conditional(n_rows, uniform):
    """p of a batch of pairs: key i belongs to row i.

    Parameters
    ----------
    n_rows : int
    uniform : float
        Mass spread over all keys of the batch.

    Returns
    -------
    Conditional of shape (n_rows, n_rows)
    """
    return Conditional(sparse.eye_array(n_rows, format="csr"), uniform=uniform)


def symmetric_loss(objective, z, w):
    """The mean of D from one modality to the other and back."""
    return (objective(z, w) + objective(w, z)) / 2


def solve_pairs(
    X,
    y,
    uniform,
    learned,
    encoders,
    n_components,
    options,
    *,
    batch_rows,
    learning_rate,
    n_passes,
    tol,
    seeds,
    on_step,
):
    """Train two encoders on minibatches of pairs by Adam; the rows of a batch are each other's keys.

    A temperature of cosines that is to be learned is one more parameter, tau = 0.01 + exp(a): as in CLIP it stays above
    a hundredth.

    Parameters
    ----------
    X, y : ndarray or sparse matrix of shape (n, n_features) and (n, n_features_y)
        Sparse rows are made dense a batch at a time.
    uniform : float
        Uniform mass of p.
    learned : Learned
    encoders : (Encoder, Encoder)
        Of X and of y.
    n_components : int
        Columns of both representations.
    options : dict
        Of `Objective`: divergence, dtype, device.
    batch_rows : int
        Rows of a batch at the most; batches are of equal size, give or take one row.
    learning_rate : float or "auto"
    n_passes : int
        Over the rows.
    tol, on_step
        Of the solver.
    seeds : (int, int, int)
        Of either encoder, and of the batches.

    Returns
    -------
    Pairs
    """
    loss = _PairLoss(X, y, uniform, learned, encoders, n_components, options, batch_rows, seeds)
    steps = batch_count(X.shape[0], batch_rows)
    rate = _RATE if learning_rate == "auto" else float(learning_rate)
    how = {"method": "adam", "learning_rate": rate, "tol": tol, "window": max(_LEAST_WINDOW, steps), "per_pass": steps}
    draw = any(encoder.draws for encoder in encoders)
    with seeded_if(draw, seeds[2], options["device"]):
        result = minimize(loss, loss.params, kept=loss.kept, max_iter=n_passes * steps, on_step=on_step, **how)
    states = tuple(state_arrays(module.cpu().eval()) for module in loss.modules)
    return Pairs(states, loss.final(), result._replace(n_iter=-(-result.n_iter // steps)))


class _PairLoss:
    """The loss of the next minibatch at each call, the parameters it depends on, and what changes with these."""

    def __init__(self, X, y, uniform, learned, encoders, n_components, options, batch_rows, seeds):
        self.kind = options["dtype"], options["device"]
        self.sides, self.uniform, self.options = (X, y), uniform, options
        self.modules = [
            build_module(encoder, rows, n_components, seed, self.kind[0]).to(self.kind[1])
            for encoder, rows, seed in zip(encoders, self.sides, seeds[:2], strict=True)
        ]
        self.params = [param for module in self.modules for param in module.parameters() if param.requires_grad]
        self.kept = [buffer for module in self.modules for buffer in module.buffers()]
        self.learned, self.unit = clone(learned), on_sphere(learned)
        self.kernel, self.exponent = self.learned.unmixed(), None
        if "tau" in self.kernel.learns:
            start = log(_FIRST_TEMPERATURE - _LEAST_TEMPERATURE)
            self.exponent = torch.tensor(start, dtype=self.kind[0], device=self.kind[1], requires_grad=True)
            self.params.append(self.exponent)
        self.batches = _batches(X.shape[0], batch_rows, seeds[2])
        self.objectives: dict[int, Objective] = {}  # by the rows of a batch

    def __call__(self):
        rows = next(self.batches)
        if self.exponent is not None:
            self.kernel.tau = _LEAST_TEMPERATURE + self.exponent.exp()
        if len(rows) not in self.objectives:
            p = pairs_conditional(len(rows), self.uniform)
            self.objectives[len(rows)] = Objective(p, self.learned, **self.options)
        z, w = (self._represent(*side, rows) for side in zip(self.modules, self.sides, strict=True))
        return symmetric_loss(self.objectives[len(rows)], z, w)

    def _represent(self, module, side, rows):
        z = module(as_tensor(side[rows], *self.kind))
        return unit_rows(z) if self.unit else z

    def final(self):
        """q with the temperature as a number."""
        if self.exponent is not None:
            self.kernel.tau = _LEAST_TEMPERATURE + float(self.exponent.detach().exp())
        return self.learned


def _batches(n, batch_rows, seed):
    """Yield the rows of minibatches for ever, in a new order at each pass."""
    rng = np.random.RandomState(seed)
    while True:
        yield from shuffled(n, batch_rows, rng)


def recall_at_one(learned, z, w, items=()):
    """How often the nearest row of w under q is right, on average over the rows of z.

    ::

        mean_i |R_i and T_i| / |T_i|,     T_i = argmax_j q(j|i),     R_i the rows that stand for i's partner

    Of keys that are equally near, each is as likely to be the one retrieved: what tells nothing apart finds one in n.

    Parameters
    ----------
    learned : Learned
    z, w : ndarray of shape (n, d)
    items : sequence of ndarrays of int of shape (n,), default=()
        Which items rows hold, in either modality. Row j stands for row i where they are equal in one: R_i is i alone
        where all differ.

    Returns
    -------
    float
    """
    rows = torch.as_tensor(z, dtype=torch.float64)
    keys, places = np.unique(w, axis=0, return_inverse=True)  # equal keys are equally near, to the last digit
    rows, keys = learned.prepare(rows, torch.as_tensor(keys, dtype=torch.float64))
    places, numbers = places.ravel(), [np.arange(len(z)), *items]
    found = 0.0
    for part in gen_batches(len(z), ROWS_AT_ONCE):
        affinity = learned.pairwise(rows[part], keys).numpy()
        top = affinity.max(axis=1, keepdims=True)
        tied = (affinity >= top - _ROUNDING * np.abs(top))[:, places]
        right = np.logical_or.reduce([held[part, None] == held for held in numbers])
        found += float(((tied & right).sum(axis=1) / tied.sum(axis=1)).sum())
    return found / len(z)
