"""How contexts and tokens are solved together: places of contexts, prototypes of tokens, L-BFGS or Adam."""

from typing import NamedTuple

import numpy as np
import torch

from .._core.conditional import no_positives
from .._core.seeding import seeded_if
from .._objective.objective import Objective
from .._optim.solver import SolverResult, minimize
from ..encoders._networks import as_tensor, build_module, encode, state_arrays
from ..learned import Learned

_PAIRS_AT_ONCE = 1 << 22  # contexts x tokens in one piece
_EXACT_PAIRS = 1 << 23  # more: minibatches
_VISITS = 20  # of each context by minibatches, at least
_FIRST_SIZE = 0.1
_TOLERANCE = 1e-5
_ADAM_RATE, _LOOKUP_RATE = 1e-2, 5e-2
_PLACING_STEPS, _PLACING_RATE = 300, 0.1


class TokenMap(NamedTuple):
    """A solved map of contexts with its prototypes of tokens; the other fields are those of a map over rows."""

    places: np.ndarray
    prototypes: np.ndarray
    shares: np.ndarray
    result: SolverResult
    learning_rate: float
    learned: Learned
    state: dict

    @property
    def phases(self):
        """As those of a map."""
        return [("training", self.result.n_iter, self.result.reason)]


def method_of(method, p):
    """Whether all contexts are seen at each step, "exact", or "sampled" ones: as asked, or by their number.

    Raises
    ------
    ValueError
        "interpolation", which is for maps of rows alone.
    """
    if method == "interpolation":
        raise ValueError("method='interpolation' needs keys that are the rows, not tokens; use method='auto'.")
    if method in ("exact", "sampled"):
        return method
    return "exact" if p.shape[0] * p.shape[1] <= _EXACT_PAIRS else "sampled"


def solve_tokens(
    p, learned, encoder, X, n_components, options, *, start, finish, sampled, learning_rate, max_iter, seed, on_step
):
    """Minimise the mean divergence of contexts, each counted as often as it has tokens.

    ::

        sum_i n_i D( p(.|i) || q(.|i) ) / sum_i n_i,     q(t|i) = k(z_i, w_t) / sum_u k(z_i, w_u)

    over places z and prototypes w. A step sees all contexts, or a batch that lets `max_iter` steps visit each context
    20 times. Either way it goes through blocks of contexts, so that memory holds a few million pairs and no more.

    Parameters
    ----------
    p : Conditional of shape (n_contexts, n_tokens)
        Its degrees are the n_i.
    learned : Learned
    encoder : Encoder
    X : ndarray or sparse matrix of shape (n_contexts, n_features)
        What an encoder reads.
    n_components : int
    options : dict
        Of `Objective`: divergence, dtype, device.
    start : (ndarray or None, ndarray or None)
        Places of a lookup and prototypes to start from; None for small random ones.
    finish : callable (places) -> places
        Applied to the solved places of a lookup before their loss is computed.
    sampled : bool
        Batches, by Adam, or all contexts at each step: by L-BFGS for free places and linear maps, else by Adam.
    learning_rate : float or "auto"
    max_iter : int
    seed : int
    on_step : callable (phase) -> callable (n_iter, loss)

    Returns
    -------
    TokenMap
    """
    kind = {"dtype": options["dtype"], "device": options["device"]}
    rng, free = np.random.RandomState(seed), not encoder.parametric
    z, prototypes = (torch.tensor(part, **kind).requires_grad_() for part in _first(p, n_components, start, rng))
    contexts = _Contexts(p, learned, options, width=0 if free else X.shape[1])
    if free:
        params, kept = [prototypes, z], []
    else:
        module = build_module(encoder, X, n_components, seed, options["dtype"], p.degrees).to(options["device"])
        params = [prototypes, *(param for param in module.parameters() if param.requires_grad)]
        kept = list(module.buffers())

    def represent(rows):
        return z[rows] if free else module(as_tensor(X[rows], *kind.values()))

    n = len(contexts.rows)
    batches = contexts.batches(-(-n * _VISITS // max_iter) if sampled else n, rng)
    rate = (_LOOKUP_RATE if free else _ADAM_RATE) if learning_rate == "auto" else float(learning_rate)
    how = {"method": "adam", "learning_rate": rate}
    if not sampled and (free or encoder.is_linear):
        how = {"method": "lbfgs", "tol": _TOLERANCE / (n if free else 1)}
    with seeded_if(encoder.draws, seed, kind["device"]):  # what a module draws, as in dropout
        result = minimize(
            lambda: contexts.loss(next(batches), represent, prototypes, params),
            params,
            kept=kept,
            max_iter=max_iter,
            on_step=on_step("training"),
            **how,
        )
    if free:
        places, state = finish(z.detach().cpu().numpy()), {}
    else:
        module = module.cpu().eval()
        places, state = encode(module, X), state_arrays(module)
    shares = contexts.shares(torch.as_tensor(places, **kind), prototypes.detach())
    return TokenMap(places, prototypes.detach().cpu().numpy(), shares, result, rate, learned, state)


def _first(p, n_components, start, rng):
    """Places and prototypes as given, or small and random; contexts without tokens lie at zero, where they stay."""
    drawn = (_FIRST_SIZE * rng.standard_normal((n, n_components)) for n in p.shape)
    places, prototypes = (at_random if given is None else given for given, at_random in zip(start, drawn, strict=True))
    return places * p.has_positives[:, None], prototypes


class _Contexts:
    """Contexts that have tokens, the weight of each, and their loss by blocks."""

    def __init__(self, p, learned, options, width=0):
        self.p, self.learned, self.options = p, learned, options
        self.rows = np.flatnonzero(p.has_positives)
        if not len(self.rows):
            raise no_positives()
        self.weight = p.degrees / p.degrees.sum()
        self.n_at_once = max(1, _PAIRS_AT_ONCE // max(p.shape[1], width))
        self.whole = None

    def batches(self, n_batch, rng):
        """Yield the rows of batches for ever; all of them, in order, where a batch has room for all."""
        n_batch = max(n_batch, self.n_at_once)
        while n_batch >= len(self.rows):
            yield self.rows
        while True:
            order = rng.permutation(self.rows)
            yield from (order[first : first + n_batch] for first in range(0, len(order), n_batch))

    def blocks(self, rows):
        """(rows, share of the weight of all rows, objective) of blocks that bound the memory."""
        if self.whole is not None and len(rows) == len(self.rows):
            return [self.whole]
        parts = (rows[first : first + self.n_at_once] for first in range(0, len(rows), self.n_at_once))
        blocks = ((part, self.weight[part].sum(), self._objective(part)) for part in parts)
        if len(rows) == len(self.rows) <= self.n_at_once:
            self.whole = next(blocks)
            return [self.whole]
        return blocks

    def _objective(self, rows):
        return Objective(self.p.take(rows), self.learned, sample_weight=self.weight[rows], **self.options)

    def loss(self, rows, represent, prototypes, params):
        """D of a batch, an estimate of that of all; only the gradient of one block is held at a time."""
        blocks = self.blocks(rows)
        if isinstance(blocks, list):
            _, _, objective = blocks[0]
            return objective(represent(rows), prototypes)
        total, gradients = 0.0, [torch.zeros_like(param) for param in params]
        scale = len(self.rows) / len(rows)
        for part, share, objective in blocks:
            loss = scale * share * objective(represent(part), prototypes)
            for sum_, gradient in zip(gradients, torch.autograd.grad(loss, params), strict=True):
                sum_ += gradient
            total += float(loss.detach())
        tangent = sum((param * sum_).sum() for param, sum_ in zip(params, gradients, strict=True))
        return tangent + (total - tangent.detach())

    def shares(self, places, prototypes):
        """Each context's share of D."""
        shares = np.zeros(self.p.shape[0])
        with torch.no_grad():
            for part, share, objective in self.blocks(self.rows):
                shares[part] = share * objective.per_row(places[part], prototypes).cpu().numpy()
        return shares


def place_contexts(p, learned, prototypes, divergence):
    """Places of new contexts: each minimises its own divergence to the frozen prototypes of tokens, alone.

    Adam moves every number by itself, so that a place does not depend on the others of its batch. It starts at the
    mean prototype of the context's tokens, which is zero where there are none.

    Parameters
    ----------
    p : Conditional of shape (n_new, n_tokens)
    learned : Learned
    prototypes : ndarray of shape (n_tokens, n_components)
    divergence : str

    Returns
    -------
    ndarray of shape (n_new, n_components), float64
    """
    keys = torch.tensor(prototypes, dtype=torch.float64)
    places = p.weights @ prototypes
    rows, n_at_once = np.flatnonzero(p.has_positives), max(1, _PAIRS_AT_ONCE // p.shape[1])
    for first in range(0, len(rows), n_at_once):
        part = rows[first : first + n_at_once]
        objective = Objective(p.take(part), learned, divergence=divergence)
        z = torch.tensor(places[part], dtype=torch.float64, requires_grad=True)
        result = minimize(
            lambda z=z, objective=objective: len(z) * objective(z, keys),
            [z],
            method="adam",
            max_iter=_PLACING_STEPS,
            learning_rate=_PLACING_RATE,
        )
        if result.status == "interrupted":
            raise KeyboardInterrupt
        places[part] = z.detach().numpy()
    return places
