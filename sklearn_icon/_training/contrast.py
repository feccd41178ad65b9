"""How a classifier learns representations under a p over rows: minibatches in which each row meets its class."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.conditional import Conditional
from .._core.seeding import seeded_if
from .._objective.batches import batch_count
from .._objective.loss import Loss
from .._optim.methods import adam_of_passes
from .._optim.solver import SolverResult
from .._optim.train import Problem, Run, Training, train
from ..encoders import Encoder
from ..encoders._networks import as_tensor, build_module, encode, state_arrays
from .given import Labelled
from .trained import TrainedEncoder

_BATCH_ROWS = 128  # with each another of its class


class ClassBatches:
    """Minibatches for ever: shuffled passes over the rows, and with each row another of its class.

    Rows that are the only one of their class are left out, unless all rows make one batch. Of `n_batch` rows a batch
    has up to twice as many with the others. `codes` are the classes of rows, from 0; `per_pass` batches make a pass.
    """

    def __init__(self, codes: np.ndarray, n_batch: int, seed: int):
        self.rng, self.n_rows = np.random.RandomState(seed), len(codes)
        self.order, self.sizes = np.argsort(codes, kind="stable"), np.bincount(codes)[codes]
        self.rank = np.empty(len(codes), dtype=np.intp)  # of a row in that order
        self.rank[self.order] = np.arange(len(codes))
        self.first = np.searchsorted(codes[self.order], codes)
        self.paired = np.flatnonzero(self.sizes > 1)
        whole = len(codes) <= 2 * n_batch or not len(self.paired)
        self.per_pass = 1 if whole else batch_count(len(self.paired), n_batch)

    def __iter__(self) -> Iterator[np.ndarray]:
        while self.per_pass == 1:
            yield np.arange(self.n_rows)
        while True:
            for rows in np.array_split(self.rng.permutation(self.paired), self.per_pass):
                yield np.unique(np.concatenate([rows, self.others(rows)]))

    def others(self, rows: np.ndarray) -> np.ndarray:
        """Another row of the class of each."""
        first, sizes = self.first[rows], self.sizes[rows]
        steps = 1 + (self.rng.uniform(size=len(rows)) * (sizes - 1)).astype(np.intp)
        return self.order[first + (self.rank[rows] - first + steps) % sizes]


class Representation(NamedTuple):
    """Solved representations: of the rows, the encoder's state, the solver's report."""

    embedding: np.ndarray
    state: dict
    result: SolverResult


def solve_representation(
    p_of: Callable[[Any, np.ndarray], Conditional],
    loss: Loss,
    encoder: Encoder,
    rows: Labelled,
    codes: np.ndarray,
    n_components: int,
    training: Training,
    run: Run,
) -> Representation:
    """Representations under a p over rows, by Adam on minibatches that hold p and q among themselves.

    ::

        mean over batches B of  sum_{i in B} s_i D( p_B(.|i) || q_B(.|i) ) / sum_{i in B} s_i

    where p_B and q_B have the rows of B as keys, and p_B comes of the rows and the codes of their classes. Where q
    knows no lengths, or its loss falls as these grow or shrink, rows are scaled to unit length; those of a linear map
    keep theirs, which it has few ways to say otherwise.
    """
    bounded = (loss.learned.unbounded or loss.learned.scale_free) and not encoder.is_linear
    headed = encoder.build_head(n_components) is not None
    unit = bounded and not headed
    module = build_module(encoder, rows.X, n_components, run.seed, run.dtype, rows.weight, unit_rows=unit)
    trained = TrainedEncoder(encoder, module.to(run.device), n_components, run.seed, unit_rows=bounded)
    batches, of_keys = ClassBatches(codes, _BATCH_ROWS, run.seed), trained.represent_keys

    def loss_of(part: np.ndarray) -> torch.Tensor:
        items = as_tensor(rows.X[part], **run.like)
        objective = loss.over(p_of(rows.X[part], codes[part]), run, sample_weight=rows.weight[part])
        return objective(trained.represent(items), None if of_keys is None else of_keys(items))

    tensors: dict[str, Any] = {"params": trained.params, "kept": trained.kept, "after_step": trained.follow}
    problem = Problem(loss_of, batches=batches, per_pass=batches.per_pass, draws=encoder.draws, **tensors)
    solver, steps = adam_of_passes(batches.per_pass, training.max_iter, training.tol, training.learning_rate)
    result = train(problem, solver, steps, run, "contrast")
    trained.eval()
    with seeded_if(encoder.draws, run.seed, run.device):
        embedding = encode(module, rows.X)
    result = result._replace(n_iter=-(-result.n_iter // batches.per_pass))
    return Representation(embedding, state_arrays(module.cpu()), result)
