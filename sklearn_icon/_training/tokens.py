"""How contexts and tokens are solved together: coordinates of contexts, prototypes of tokens, L-BFGS or Adam."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from .._core.conditional import Conditional, no_positives
from .._core.pieces import at_once
from .._core.rows import average_duplicates
from .._objective.loss import Loss
from .._objective.objective import Objective
from .._optim.methods import LBFGS, Adam
from .._optim.train import Problem, Run, Training, sum_of, train
from ..encoders import Encoder
from ..encoders._networks import as_tensor, build_module, encode, state_arrays
from .maps import MapSolution, summary

_PAIRS_AT_ONCE = 1 << 22  # contexts x tokens in one piece
_EXACT_PAIRS = 1 << 23  # more: minibatches
_STEPS = 250  # unless max_iter says how many
_VISITS = 20  # of each context by minibatches, at least
_FIRST_SIZE = 0.1
_TOLERANCE = 1e-5
_ADAM_RATE, _LOOKUP_RATE = 1e-2, 5e-2
_PLACING_STEPS, _PLACING_RATE = 300, 0.1


def method_of(method: str, p: Conditional) -> str:
    """Whether all contexts are seen at each step, "exact", or "sampled" ones: as asked, or by their number."""
    if method in ("exact", "sampled"):
        return method
    return "exact" if p.shape[0] * p.shape[1] <= _EXACT_PAIRS else "sampled"


def solve_tokens(
    p: Conditional,
    loss: Loss,
    encoder: Encoder,
    X: Any,
    n_components: int,
    training: Training,
    run: Run,
    start: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> MapSolution:
    """Minimise the mean divergence of contexts, each counted as often as it has tokens.

    ::

        sum_i n_i D( p(.|i) || q(.|i) ) / sum_i n_i,     q(t|i) = k(z_i, w_t) / sum_u k(z_i, w_u)

    over coordinates z of contexts and prototypes w of tokens, from `start` or small random ones; the degrees of p are
    the n_i. A step sees all contexts (a batch_size of None), or a batch that lets `max_iter` steps visit each context
    20 times. Either way it goes through blocks of contexts, so that memory holds a few million pairs and no more. X is
    what an encoder reads; with a lookup, the counts or None: equal rows have equal coordinates.
    """
    rng, lookup = np.random.RandomState(run.seed), not encoder.parametric
    z, prototypes = (torch.tensor(part, **run.like).requires_grad_() for part in _first(p, n_components, start, rng))
    contexts = _Contexts(p, loss, run, width=0 if lookup else X.shape[1])
    built = None if lookup else build_module(encoder, X, n_components, run.seed, run.dtype, p.degrees)
    module = None if built is None else built.to(run.device)
    own = [z] if module is None else [param for param in module.parameters() if param.requires_grad]
    params, kept = [prototypes, *own], [] if module is None else list(module.buffers())

    def represent(rows: np.ndarray) -> torch.Tensor:
        return z[rows] if module is None else module(as_tensor(X[rows], **run.like))

    n, max_iter = len(contexts.rows), training.max_iter or _STEPS
    whole = training.batch_size is None
    batches = contexts.batches(n if whole else -(-n * _VISITS // max_iter), rng)
    problem = Problem(
        lambda rows: contexts.loss_of(rows, represent, prototypes, params), params, batches, kept, draws=encoder.draws
    )
    usual = _LOOKUP_RATE if lookup else _ADAM_RATE
    rate = usual if training.learning_rate == "auto" else float(training.learning_rate)
    smooth = whole and (lookup or encoder.is_linear)
    solver = LBFGS(_TOLERANCE / (n if lookup else 1)) if smooth else Adam(rate)
    result = train(problem, solver, max_iter, run)
    if module is None:
        embedding, state = average_duplicates(z.detach().cpu().numpy(), X), {}
    else:
        module = module.cpu().eval()
        embedding, state = encode(module, X), state_arrays(module)
    w, phases = prototypes.detach(), summary([("training", result)])
    losses = contexts.losses(torch.as_tensor(embedding, **run.like), w)
    return MapSolution(embedding, losses, result, rate, loss.learned, state, phases, w.cpu().numpy())


def _first(
    p: Conditional, n_components: int, start: tuple[np.ndarray | None, np.ndarray | None], rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and prototypes as given, or small and random; contexts without tokens stay at zero."""
    drawn = (_FIRST_SIZE * rng.standard_normal((n, n_components)) for n in p.shape)
    z, prototypes = (random if given is None else given for given, random in zip(start, drawn, strict=True))
    return z * p.has_positives[:, None], prototypes


class _Contexts:
    """Contexts that have tokens, the weight of each, and their loss by blocks."""

    def __init__(self, p: Conditional, loss: Loss, run: Run, width: int = 0):
        self.p, self.loss, self.run = p, loss, run
        self.rows = np.flatnonzero(p.has_positives)
        if not len(self.rows):
            raise no_positives()
        degrees: Any = p.degrees
        self.weight = degrees / degrees.sum()
        self.n_at_once = max(1, at_once(_PAIRS_AT_ONCE) // max(p.shape[1], width))
        self.whole: tuple | None = None

    def batches(self, n_batch: int, rng: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield the rows of batches for ever; all of them, in order, where a batch has room for all."""
        n_batch = max(n_batch, self.n_at_once)
        while n_batch >= len(self.rows):
            yield self.rows
        while True:
            order = rng.permutation(self.rows)
            yield from (order[first : first + n_batch] for first in range(0, len(order), n_batch))

    def is_whole(self, rows: np.ndarray) -> bool:
        """Whether a batch is all rows, and one block."""
        return len(rows) == len(self.rows) <= self.n_at_once

    def blocks(self, rows: np.ndarray) -> Iterable:
        """(rows, fraction of the weight of all rows, objective) of blocks that bound the memory."""
        if self.is_whole(rows) and self.whole is not None:
            return [self.whole]
        parts = (rows[first : first + self.n_at_once] for first in range(0, len(rows), self.n_at_once))
        blocks = ((part, self.weight[part].sum(), self._objective(part)) for part in parts)
        if self.is_whole(rows):
            self.whole = next(blocks)
            return [self.whole]
        return blocks

    def _objective(self, rows: np.ndarray) -> Objective:
        return self.loss.over(self.p.take(rows), self.run, sample_weight=self.weight[rows])

    def loss_of(
        self,
        rows: np.ndarray,
        represent: Callable[[np.ndarray], torch.Tensor],
        prototypes: torch.Tensor,
        params: list[torch.Tensor],
    ) -> torch.Tensor:
        """D of a batch, an estimate of that of all; only the gradient of one block is held at a time."""
        blocks = self.blocks(rows)
        if self.is_whole(rows):
            ((_, _, objective),) = blocks
            return objective(represent(rows), prototypes)
        scale = len(self.rows) / len(rows)
        return sum_of(
            (scale * fraction * objective(represent(part), prototypes) for part, fraction, objective in blocks), params
        )

    def losses(self, z: torch.Tensor, prototypes: torch.Tensor) -> np.ndarray:
        """Each context's part of D."""
        losses = np.zeros(self.p.shape[0])
        with torch.no_grad():
            for part, fraction, objective in self.blocks(self.rows):
                losses[part] = fraction * objective.per_row(z[part], prototypes).cpu().numpy()
        return losses


def _of_each(z: torch.Tensor, objective: Objective, keys: torch.Tensor, batch: Any) -> torch.Tensor:
    """The sum of the contexts' divergences."""
    return len(z) * objective(z, keys)


def place_contexts(p: Conditional, loss: Loss, prototypes: np.ndarray) -> np.ndarray:
    """Coordinates of new contexts: each minimises its own divergence to the fixed prototypes of tokens, separately.

    Adam moves every number by itself, so that a result does not depend on the others of its batch. It starts at the
    mean prototype of the context's tokens, which is zero where there are none.
    """
    keys, run = torch.tensor(prototypes, dtype=torch.float64), Run(torch.float64, torch.device("cpu"))
    found = p.weights @ prototypes
    rows, n_at_once = np.flatnonzero(p.has_positives), max(1, at_once(_PAIRS_AT_ONCE) // p.shape[1])
    for first in range(0, len(rows), n_at_once):
        part = rows[first : first + n_at_once]
        objective = loss.over(p.take(part), run)
        z = torch.tensor(found[part], dtype=torch.float64, requires_grad=True)
        problem = Problem(partial(_of_each, z, objective, keys), [z])
        result = train(problem, Adam(_PLACING_RATE), _PLACING_STEPS, run)
        if result.status == "interrupted":
            raise KeyboardInterrupt
        found[part] = z.detach().numpy()
    return found
