"""How a map by an encoder is solved: by L-BFGS where that is smooth, else by Adam on rows or views."""

from itertools import repeat
from typing import Any

import numpy as np
import torch

from .._core.conditional import Conditional
from .._core.journal import recalled, remembered
from .._core.seeding import seeded
from .._objective.batches import BatchLoss, ViewLoss
from .._objective.grid import GridPotential
from .._objective.loss import Loss
from .._objective.ways import can_interpolate
from .._optim.methods import LBFGS, Adam
from .._optim.train import Problem, Run, Training, train
from ..encoders import Encoder
from ..encoders._networks import as_tensor, build_module, encode, state_arrays
from .maps import FINAL_KEYS, MapSolution, losses_of, summary
from .trained import TrainedEncoder

_STEPS = 250  # unless max_iter says how many
_ADAM_RATE, _VIEWS_RATE = 1e-2, 1e-3
_BATCH_ROWS, _BATCH_ITEMS = 2048, 256
_LBFGS_TOLERANCE = 1e-6


def solve_encoder(
    p: Conditional,
    loss: Loss,
    encoder: Encoder,
    X: Any,
    n_components: int,
    training: Training,
    run: Run,
    views: Any = None,
) -> MapSolution:
    """Coordinates as an encoder's outputs.

    A linear map of all rows at once is smooth and is solved by L-BFGS; networks and minibatches by Adam. A minibatch
    holds rows and one positive of each, drawn from p, and these are the keys; or views of items, where p is one of
    views and X holds the items. What modules and views draw is seeded, in the fit and once more in the loss of the
    map, which is that of rows, or of items in a pass of views.
    """
    bounded, headed = loss.learned.unbounded and not encoder.is_linear, encoder.build_head(n_components) is not None
    unit_rows = bounded and not headed
    module = build_module(encoder, X, n_components, run.seed, run.dtype, by_column=views is None, unit_rows=unit_rows)
    module = module.to(run.device)
    trained = TrainedEncoder(encoder, module, n_components, run.seed, unit_rows=bounded)
    source = _Source(p, loss, trained, X, training.batch_size, run)
    problem, view_loss = source.of_views(views) if views is not None else (source.of_rows(), None)
    problem.draws = encoder.draws or views is not None
    default = _ADAM_RATE if views is None else _VIEWS_RATE
    rate = default if training.learning_rate == "auto" else float(training.learning_rate)
    smooth = encoder.is_linear and training.batch_size is None
    solver = LBFGS(_LBFGS_TOLERANCE) if smooth else Adam(rate)
    result = train(problem, solver, training.max_iter or _STEPS, run)
    trained.eval()
    embedding = encode(module, X)
    if view_loss is not None:
        with seeded(run.seed, run.device):
            losses = _losses_of_items(view_loss, np.random.RandomState(run.seed))
    else:
        z = encode(trained.represent, X) if headed else embedding
        losses = recalled("losses", lambda: _losses_of_rows(p, loss, trained, X, z, run))
    return MapSolution(
        embedding, losses, result, rate, loss.learned, state_arrays(module), summary([("training", result)])
    )


class _Source:
    """Where the loss of an encoder comes from: all rows at once, minibatches of rows, or views of items."""

    def __init__(
        self, p: Conditional, loss: Loss, trained: TrainedEncoder, X: Any, batch_size: int | str | None, run: Run
    ):
        self.p, self.loss, self.trained, self.X, self.batch_size, self.run = p, loss, trained, X, batch_size, run
        self.tensors: dict[str, Any] = {"params": trained.params, "kept": trained.kept, "after_step": trained.follow}

    def _rows(self, numbers: np.ndarray) -> torch.Tensor:
        return as_tensor(self.X[numbers], **self.run.like)

    def of_views(self, views: Any) -> tuple[Problem, ViewLoss]:
        """Minibatches of items whose views are drawn."""
        n_batch = _BATCH_ITEMS if self.batch_size in ("auto", None) else int(self.batch_size)
        by_batch = self.loss._replace(normalization="conditional")
        loss = ViewLoss(self.p, views, by_batch, self._rows, self.trained, n_batch, self.run)
        batches = loss.passes(np.random.RandomState(self.run.seed))
        return Problem(loss, batches=batches, per_pass=loss.n_batches, **self.tensors), loss

    def of_rows(self) -> Problem:
        """All rows at once, or minibatches of them."""
        represent, of_keys = self.trained.represent, self.trained.represent_keys
        if self.batch_size is None:
            objective, everything = self.loss.over(self.p, self.run), as_tensor(self.X, **self.run.like)
            return Problem(
                lambda _: objective(represent(everything), None if of_keys is None else of_keys(everything)),
                **self.tensors,
            )
        n_batch = _BATCH_ROWS if self.batch_size == "auto" else int(self.batch_size)
        keys = None if of_keys is None else lambda numbers: of_keys(self._rows(numbers))
        by_batch = self.loss._replace(normalization="conditional")
        loss = BatchLoss(self.p, by_batch, lambda numbers: represent(self._rows(numbers)), n_batch, self.run, keys)
        generators = repeat(remembered(np.random.RandomState(self.run.seed)))
        return Problem(loss, batches=generators, per_pass=-(-self.p.shape[0] // n_batch), **self.tensors)


def _losses_of_rows(p: Conditional, loss: Loss, trained: TrainedEncoder, X: Any, z: np.ndarray, run: Run) -> np.ndarray:
    """Each row's part of D at the representations z."""
    keys = None if trained.represent_keys is None else encode(trained.represent_keys, X)
    interpolates = keys is None and can_interpolate(p, loss.learned, z.shape[1])
    objective = loss.over(p, run, potential=GridPotential if interpolates else None)
    objective.refine(FINAL_KEYS, None)
    return losses_of(objective, z, keys)


def _losses_of_items(view_loss: ViewLoss, rng: np.random.RandomState) -> np.ndarray:
    """Each item's part of D in a pass of views."""
    losses = np.empty(view_loss.n_items)
    with torch.no_grad():
        for items in view_loss.batches(rng):
            losses[items] = view_loss.per_item(items).cpu().numpy() / len(losses)
    return losses
