"""How a classifier learns representations under a p over rows: minibatches in which each row meets its class."""

from typing import NamedTuple

import numpy as np

from .._core.seeding import seeded_if
from .._objective.batches import batch_count
from .._objective.objective import Objective
from .._optim.solver import SolverResult, adam_schedule, minimize
from ..encoders._networks import as_tensor, build_module, encode, state_arrays
from .trained import TrainedEncoder

_BATCH_ROWS = 128  # with each another of its class


class ClassBatches:
    """Minibatches for ever: shuffled passes over the rows, and with each row another of its class.

    Rows that are alone in their class are left out, unless all rows make one batch.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class of each row, from 0.
    n_batch : int
        Rows of a batch; with the others it has up to twice as many. All rows where these are no more.
    seed : int

    Attributes
    ----------
    per_pass : int
        Batches of a pass.
    """

    def __init__(self, codes, n_batch, seed):
        self.rng, self.n_rows = np.random.RandomState(seed), len(codes)
        self.order, self.sizes = np.argsort(codes, kind="stable"), np.bincount(codes)[codes]
        self.place = np.empty(len(codes), dtype=np.intp)  # of a row in that order
        self.place[self.order] = np.arange(len(codes))
        self.first = np.searchsorted(codes[self.order], codes)
        self.paired = np.flatnonzero(self.sizes > 1)
        whole = len(codes) <= 2 * n_batch or not len(self.paired)
        self.per_pass = 1 if whole else batch_count(len(self.paired), n_batch)

    def __iter__(self):
        while self.per_pass == 1:
            yield np.arange(self.n_rows)
        while True:
            for rows in np.array_split(self.rng.permutation(self.paired), self.per_pass):
                yield np.unique(np.concatenate([rows, self.others(rows)]))

    def others(self, rows):
        """Another row of the class of each."""
        first, sizes = self.first[rows], self.sizes[rows]
        steps = 1 + (self.rng.uniform(size=len(rows)) * (sizes - 1)).astype(np.intp)
        return self.order[first + (self.place[rows] - first + steps) % sizes]


class Representation(NamedTuple):
    """Solved representations: of the rows, the encoder's state, the solver's report."""

    places: np.ndarray
    state: dict
    result: SolverResult


def solve_representation(
    p_of, learned, encoder, X, codes, weights, options, *, n_components, learning_rate, max_iter, tol, seed, on_step
):
    """Representations under a p over rows, by Adam on minibatches that hold p and q among themselves.

    ::

        mean over batches B of  sum_{i in B} s_i D( p_B(.|i) || q_B(.|i) ) / sum_{i in B} s_i

    where p_B and q_B have the rows of B as keys. Where q knows no lengths, or its loss falls as these grow or shrink,
    rows are scaled to unit length; those of a linear map keep theirs, which it has few ways to say otherwise.

    Parameters
    ----------
    p_of : callable (rows, codes) -> Conditional
        p of a batch.
    learned : Learned
    encoder : Encoder
    X : ndarray or sparse matrix of shape (n, n_features)
    codes : ndarray of shape (n,)
        Class of each row.
    weights : ndarray of shape (n,)
        s, not negative.
    options : dict
        Of `Objective`: divergence, dtype, device.
    n_components : int
        Columns of the representation.
    learning_rate, max_iter, tol, seed, on_step
        As in `solve_prototypes`.

    Returns
    -------
    Representation
    """
    kind = options["dtype"], options["device"]
    linear, headed = encoder.is_linear, encoder.build_head(n_components) is not None
    bounded = (learned.is_limit or learned.scale_free) and not linear
    module = build_module(encoder, X, n_components, seed, kind[0], weights, unit_rows=bounded and not headed)
    trained = TrainedEncoder(encoder, module.to(kind[1]), n_components, seed, unit_rows=bounded)
    batches = ClassBatches(codes, _BATCH_ROWS, seed)
    draws = iter(batches)
    represent_keys = trained.represent_keys

    def loss():
        rows = next(draws)
        objective = Objective(p_of(X[rows], codes[rows]), learned, sample_weight=weights[rows], **options)
        items = as_tensor(X[rows], *kind)
        return objective(trained.represent(items), None if represent_keys is None else represent_keys(items))

    def follow(n_iter, value):
        trained.follow()
        return on_step is not None and on_step(n_iter, value)

    how = adam_schedule(batches.per_pass, max_iter, tol, learning_rate)
    with seeded_if(encoder.draws, seed, kind[1]):
        result = minimize(loss, trained.params, kept=trained.kept, on_step=follow, **how)
        trained.eval()
        places = encode(module, X)
    result = result._replace(n_iter=-(-result.n_iter // batches.per_pass))
    return Representation(places, state_arrays(module.cpu()), result)
