"""What every fit by gradients is: a problem, a solver, and what both run with."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

import torch

from .._core import journal
from .._core.group import group
from .._core.pieces import is_anew
from .._core.seeding import seeded_if
from .early_stopping import EarlyStopping
from .methods import Solver
from .solver import SolverResult, minimize


class Run(NamedTuple):
    """What a fit runs with: precision, device, seed, and who is told of each stage.

    `report(stage, total, of)` gives what follows a stage of `total` steps at most, whose losses are sums `of` as many,
    or None.
    """

    dtype: torch.dtype
    device: torch.device
    seed: int = 0
    report: Callable[..., Callable[[int, float], Any] | None] = lambda stage, total=None, of=1: None

    @property
    def like(self) -> dict[str, Any]:
        """Precision and device, by the names that torch gives them."""
        return {"dtype": self.dtype, "device": self.device}


class Training(NamedTuple):
    """What users set of a training: "auto" and None stand for what the problem takes by itself."""

    learning_rate: float | str = "auto"
    max_iter: int | None = None
    tol: float = 0.0
    batch_size: int | str | None = "auto"  # None: all rows at once
    patience: int = 10  # looks at held-out rows without a lower loss


@dataclass
class Problem:
    """A loss of batches over tensors.

    Attributes
    ----------
    loss : callable (batch) -> tensor
    params : list of tensors
        That it is minimised over.
    batches : iterable
        One a step.
    kept : list of tensors
        That change beside the parameters and go back with them, such as running means.
    after_step : callable or None
    per_pass : int
        Batches of a pass over the rows.
    of : int
        How many losses the loss is the sum of.
    draws : bool
        Whether the loss draws from torch's global generator, which then gets the seed of the run.
    watch : EarlyStopping or None
        Follows the loss on held-out rows; the parameters end where that was least.
    """

    loss: Callable[[Any], torch.Tensor]
    params: Sequence[torch.Tensor]
    batches: Iterable[Any] = field(default_factory=lambda: repeat(None))
    kept: Sequence[torch.Tensor] = field(default_factory=list)
    after_step: Callable[[], None] | None = None
    per_pass: int = 1
    of: int = 1
    draws: bool = False
    watch: EarlyStopping | None = None


def sum_of(losses: Iterable[torch.Tensor], params: Sequence[torch.Tensor]) -> Any:
    """A sum of losses and its gradient in the parameters; what only one of them needs is held at a time."""
    total, gradients = 0.0, [torch.zeros_like(param) for param in params]
    for loss in losses:
        for sum_, gradient in zip(gradients, torch.autograd.grad(loss, params), strict=True):
            sum_ += gradient
        total += float(loss.detach())
    tangent: Any = sum((param * sum_).sum() for param, sum_ in zip(params, gradients, strict=True))
    return tangent + (total - tangent.detach())


def averaged(loss: torch.Tensor | None, mass: float, params: Sequence[torch.Tensor]) -> Any:
    """The mean of the losses of all ranks by their masses, and its gradient; None where a rank has no rows.

    They are added by one exchange, as of minibatches that processes share.
    """
    if not group().several:
        return loss
    parts: list = [None] * len(params) if loss is None else list(torch.autograd.grad(loss, params, allow_unused=True))
    zeros = [torch.zeros_like(param) if part is None else part for param, part in zip(params, parts, strict=True)]
    own = torch.cat(
        [torch.zeros(1).to(params[0]) if loss is None else loss.detach().reshape(1), *map(torch.ravel, zeros)]
    )
    summed = group().total(torch.cat([own * mass, torch.full((1,), mass).to(own)]))
    value, *gradients = (summed[:-1] / summed[-1]).split([1, *(param.numel() for param in params)])
    tangent: Any = sum((param * part.view_as(param)).sum() for param, part in zip(params, gradients, strict=True))
    return tangent + (value[0] - tangent.detach())


class _Batches:
    """Batches in turn, and how many were taken."""

    def __init__(self, batches: Iterable[Any]):
        self.batches, self.taken, self.last = iter(batches), 0, None

    def __call__(self) -> Any:
        """The next; the same where its loss is computed anew, in less memory."""
        if not is_anew():
            self.taken += 1
            self.last = next(self.batches)
        return self.last

    def skip(self, taken: int) -> None:
        """Go on behind so many."""
        while self.taken < taken:
            self()


def train(problem: Problem, solver: Solver, max_iter: int, run: Run, stage: str = "training") -> SolverResult:
    """Minimise the loss of a problem, batch after batch."""
    batches, report = _Batches(problem.batches), run.report(stage, max_iter, problem.of)

    def follow(n_iter: int, loss: float) -> bool:
        stop = report is not None and bool(report(n_iter, loss))
        looked = problem.watch is not None and problem.watch(n_iter, loss)
        return stop or looked

    with journal.passing(), seeded_if(problem.draws, run.seed, run.device):
        journal.remember(lambda: batches.taken, batches.skip)
        if problem.watch is not None:
            problem.watch.remember()
        result = minimize(
            lambda: problem.loss(batches()),
            problem.params,
            solver,
            max_iter=max_iter,
            on_step=follow,
            kept=problem.kept,
            per_pass=problem.per_pass,
            after_step=problem.after_step,
        )
    if problem.watch is None:
        return result
    problem.watch.restore()
    return result._replace(status="completed") if result.status == "interrupted" else result
