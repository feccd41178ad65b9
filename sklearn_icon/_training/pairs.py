"""How pairs are solved: two encoders, one a modality, that share nothing but the loss.

    L = 1/2 mean_i D( p(.|i) || q(.|i) )  +  1/2 mean_j D( p(.|j) || q(.|j) )

where i are rows of one modality whose keys are the other's, and j rows of the other whose keys are the one's.
"""

from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import gen_batches

from .._core.seeding import seeded_if
from .._core.unit_rows import unit_rows
from .._objective.batches import batch_count, shuffled
from .._objective.objective import check_limit
from .._objective.row_tiles import Batch, of_affinity
from .._optim.solver import SolverResult, minimize
from ..encoders._networks import as_tensor, build_module, state_arrays
from ..learned import Learned
from ..supervisory import CrossModalPairs

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


def batch_of_pairs(n_rows, learned, divergence, uniform, like):
    """What is known of a batch of pairs, in which key i belongs to row i.

    Parameters
    ----------
    n_rows : int
    learned : Learned
        Which may change between one use and the next.
    divergence : str
    uniform : float
        Mass spread over all keys of the batch.
    like : tensor
        Of the device and dtype of representations.

    Returns
    -------
    Batch
    """
    own = CrossModalPairs()

    def weights_of(part):
        return own.of_batch(None, part, n_rows, like)

    partners = own.partners_of_batch(None, slice(0, n_rows), n_rows, like)
    return Batch(lambda: learned, divergence, weights_of, partners, uniform, skips_self=False, first=0)


def symmetric_loss(batch, z, w):
    """The mean of D from one modality to the other and back; the kernel of all pairs serves both ways."""
    learned, part = batch.learned_of(), slice(0, len(z))
    affinity = learned.pairwise(*learned.prepare(z, w))
    both = (of_affinity(batch, learned, part, pairs) for pairs in (affinity, affinity.T))
    return sum(both) / (2 * len(z))


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
        divergence, dtype, device.
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
    states: Any = tuple(state_arrays(module.cpu().eval()) for module in loss.modules)
    return Pairs(states, loss.temperature.final(), result._replace(n_iter=-(-result.n_iter // steps)))


class Temperature:
    """A temperature of cosines that is learned, where q has one: tau = 0.01 + exp(a)."""

    def __init__(self, learned, dtype, device):
        self.learned = clone(learned)
        self.kernel, self.params = self.learned.unmixed(), []
        if "tau" in self.kernel.learns:
            start = log(_FIRST_TEMPERATURE - _LEAST_TEMPERATURE)
            self.params = [torch.tensor(start, dtype=dtype, device=device, requires_grad=True)]

    def set(self):
        """Give q the present temperature."""
        for exponent in self.params:
            self.kernel.tau = _LEAST_TEMPERATURE + exponent.exp()

    def final(self):
        """q with the temperature as a number."""
        for exponent in self.params:
            self.kernel.tau = _LEAST_TEMPERATURE + float(exponent.detach().exp())
        return self.learned


class _PairLoss:
    """The loss of the next minibatch at each call, the parameters it depends on, and what changes with these."""

    def __init__(self, X, y, uniform, learned, encoders, n_components, options, batch_rows, seeds):
        check_limit(learned, options["divergence"])
        self.kind = options["dtype"], options["device"]
        self.sides, self.uniform, self.options = (X, y), uniform, options
        self.modules = [
            build_module(encoder, rows, n_components, seed, self.kind[0]).to(self.kind[1])
            for encoder, rows, seed in zip(encoders, self.sides, seeds[:2], strict=True)
        ]
        self.params = [param for module in self.modules for param in module.parameters() if param.requires_grad]
        self.kept = [buffer for module in self.modules for buffer in module.buffers()]
        self.temperature, self.unit = Temperature(learned, *self.kind), on_sphere(learned)
        self.learned = self.temperature.learned
        self.params += self.temperature.params
        self.batches = _batches(X.shape[0], batch_rows, seeds[2])
        self.known: dict[int, Batch] = {}  # by the rows of a batch

    def __call__(self):
        rows = next(self.batches)
        self.temperature.set()
        z, w = (self._represent(*side, rows) for side in zip(self.modules, self.sides, strict=True))
        if len(rows) not in self.known:
            about = self.learned, self.options["divergence"], self.uniform, z
            self.known[len(rows)] = batch_of_pairs(len(rows), *about)
        return symmetric_loss(self.known[len(rows)], z, w)

    def _represent(self, module, side, rows):
        z = module(as_tensor(side[rows], *self.kind))
        return unit_rows(z) if self.unit else z


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
