"""The solvers: descent with momentum, Adam and L-BFGS, each with the settings that are its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import cos, pi
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from scipy import optimize

from .._core import journal
from .._core.pieces import in_less

Gradients: TypeAlias = "list[torch.Tensor] | tuple[torch.Tensor, ...]"

CHECK_EVERY = 50
_NETWORK_RATE = 3e-3
_PASSES, _LEAST_STEPS = 10, 300  # of Adam, unless max_iter says how many passes
_COMPILED_SIZE = 20_000  # numbers; below, torch takes less time than loading compiled loops


class Solver(Protocol):
    """What `minimize` asks of a solver."""

    def run(self, progress: Any, params: Sequence[torch.Tensor], max_iter: int) -> str:
        """Take up to so many steps, each recorded by `progress`; return why it stopped."""

    def slower(self) -> "Solver":
        """The same at half its rate, where it has one."""

    @property
    def remedy(self) -> str:
        """What helps where numbers fail."""


@dataclass(frozen=True)
class Momentum:
    """Descent with momentum and one adaptive gain per coordinate (Jacobs, 1988), as in t-SNE.

    Attributes
    ----------
    learning_rate, momentum : float
    max_step : float
        The longest move of a row in one step.
    min_grad_norm : float
        It stops below this norm of the gradient.
    n_iter_without_progress : int or None
        It stops where the loss has not fallen in so many steps; asked every 50.
    gradient : callable (with_loss) -> (loss or None, gradients), or None
        Where the gradient, which may be that of another loss, does not come from the objective.
    loss_every : int
        Steps between two losses that are asked of it.
    backtrack : bool
        Whether a loss above the one before halves the rate.
    settled : callable (loss) -> bool, or None
        Whether it may stop; asked every 50 steps.
    compiled : bool
        Whether few numbers on the CPU move by a compiled loop too, as where such loops are loaded anyway.
    """

    learning_rate: float
    momentum: float
    max_step: float = float("inf")
    min_grad_norm: float = 0.0
    n_iter_without_progress: int | None = None
    gradient: Callable[[bool], tuple[float | None, Gradients]] | None = None
    loss_every: int = 1
    backtrack: bool = False
    settled: Callable[[float], bool] | None = None
    compiled: bool = False

    remedy = "lower learning_rate, or scale X"

    def slower(self) -> "Momentum":
        """See `Solver.slower`."""
        return replace(self, learning_rate=self.learning_rate / 2)

    def run(self, progress: Any, params: Sequence[torch.Tensor], max_iter: int) -> str:
        """See `Solver.run`."""
        moving = [_Moving(param, self) for param in params]
        stop = _Stop(self, max_iter)
        journal.remember_fields(stop, "best", "best_iter", "improved", "before")
        for mover in moving:
            mover.remember()
        progress.resume()
        for iteration in range(progress.n_iter - progress.begun, max_iter):
            progress.note()
            looks = iteration % self.loss_every == 0
            loss, grads, computed = self._loss_and_gradients(progress, looks)
            if self.backtrack and looks:
                if loss > stop.before:
                    for mover in moving:
                        mover.slow_down()
                stop.before = loss
            for mover, grad in zip(moving, grads, strict=True):
                mover.step(grad)
            stopped, reason = progress.record(loss, computed), stop.reason(iteration, loss, grads)
            if stopped:
                return "interrupted"
            progress.reason = reason
            if reason:
                return "converged"
        return "max_iter"

    def _loss_and_gradients(self, progress: Any, looks: bool) -> tuple[float, Gradients, bool]:
        """(loss or the last one, gradients, whether the loss is new)."""
        if self.gradient is None:
            return *progress.value_and_grad(), True
        loss, grads = in_less(partial(self.gradient, looks))
        return *progress.checked(progress.loss if loss is None else loss, grads), loss is not None


class _Stop:
    """Why a descent may stop."""

    def __init__(self, solver: Momentum, max_iter: int):
        given = solver.n_iter_without_progress
        self.solver, self.patience = solver, max_iter if given is None else given
        self.best, self.best_iter, self.improved = np.inf, 0, False
        self.before = np.inf  # the loss that was looked at last

    def reason(self, iteration: int, loss: float, grads: Gradients) -> str:
        """The name of what holds, every 50 steps, or nothing."""
        if loss < self.best:
            self.best, self.best_iter, self.improved = loss, iteration, True
        if (iteration + 1) % CHECK_EVERY:
            return ""
        grad_norm = float(sum(grad.square().sum() for grad in grads)) ** 0.5
        settled = self.solver.settled
        reasons = {
            "n_iter_without_progress": not self.improved and iteration - self.best_iter > self.patience,
            "min_grad_norm": grad_norm <= self.solver.min_grad_norm,
            "settled": settled is not None and settled(loss),
        }
        self.improved = False
        return next((reason for reason, holds in reasons.items() if holds), "")


class _Moving:
    """A parameter with its velocity and gains; a large one on the CPU moves by a compiled loop."""

    def __init__(self, param: torch.Tensor, solver: Momentum):
        self.param, self.velocity, self.gain = param.detach(), torch.zeros_like(param), torch.ones_like(param)
        self.learning_rate, self.momentum, self.max_step = solver.learning_rate, solver.momentum, solver.max_step
        many = solver.compiled or param.numel() > _COMPILED_SIZE
        self.compiled = many and param.device.type == "cpu" and param.dim() == 2

    def remember(self) -> None:
        """Let a journal keep what changes here."""
        journal.remember_fields(self, "learning_rate")
        journal.remember_tensors(lambda: [self.velocity, self.gain])

    def slow_down(self) -> None:
        """Halve the rate and forget the past."""
        self.learning_rate /= 2
        self.velocity.zero_()
        self.gain.fill_(1)

    def step(self, grad: torch.Tensor) -> None:
        """Move the parameter against a gradient."""
        if self.compiled:
            from .loops import momentum_step

            arrays = [tensor.detach().numpy() for tensor in (self.param, grad, self.velocity, self.gain)]
            numbers = (self.learning_rate, self.momentum, min(self.max_step, torch.finfo(grad.dtype).max ** 0.5))
            momentum_step(*arrays, *(arrays[0].dtype.type(number) for number in numbers))
            return
        agrees = (self.velocity * grad) < 0
        self.gain.copy_(torch.where(agrees, self.gain + 0.2, self.gain * 0.8)).clamp_min_(0.01)
        self.velocity.mul_(self.momentum).sub_(self.learning_rate * self.gain * grad)
        if np.isfinite(self.max_step):
            length = self.velocity.norm(dim=-1, keepdim=True)
            self.velocity.mul_((self.max_step / length.clamp_min(1e-30)).clamp_max(1))
        self.param.add_(self.velocity)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015), its rate falling along a cosine to zero.

    Attributes
    ----------
    learning_rate : float
        At first.
    tol : float
        It stops where the mean loss of `window` steps falls by less than this fraction; 0: never.
    window : int
    """

    learning_rate: float
    tol: float = 0.0
    window: int = CHECK_EVERY

    remedy = "lower learning_rate, or scale X"

    def slower(self) -> "Adam":
        """See `Solver.slower`."""
        return replace(self, learning_rate=self.learning_rate / 2)

    def run(self, progress: Any, params: Sequence[torch.Tensor], max_iter: int) -> str:
        """See `Solver.run`."""
        step = _AdamStep(params)
        journal.remember_fields(step, "n_steps", "before")
        journal.remember_tensors(lambda: [*step.mean, *step.sq_mean])
        progress.resume()
        for iteration in range(progress.n_iter - progress.begun, max_iter):
            progress.note()
            loss, grads = progress.value_and_grad()
            step(grads, self.learning_rate * (1 + cos(pi * iteration / max_iter)) / 2)
            stopped, settled = progress.record(loss), False
            if (iteration + 1) % self.window == 0 and self.tol:
                recent = float(np.mean(progress.losses[-self.window :]))
                settled = step.before - recent < self.tol * abs(recent)
                step.before = recent
            if stopped or settled:
                return "interrupted" if stopped else "converged"
        return "completed"


def adam_of_passes(per_pass: int, passes: int | None, tol: float, learning_rate: float | str) -> tuple[Adam, int]:
    """(Adam, steps at the most) of so many passes over the rows in minibatches; of None: 10, and 300 steps at least."""
    passes = passes or max(_PASSES, -(-_LEAST_STEPS // per_pass))
    rate = _NETWORK_RATE if learning_rate == "auto" else float(learning_rate)
    return Adam(rate, tol, window=max(CHECK_EVERY, per_pass)), passes * per_pass


class _AdamStep:
    """The step of Adam; torch's own class takes a second to make the first time, as it imports its compiler."""

    def __init__(self, params: Sequence[torch.Tensor], beta: tuple = (0.9, 0.999), eps: float = 1e-8):
        self.params, self.beta, self.eps, self.n_steps = [param.detach() for param in params], beta, eps, 0
        self.mean, self.sq_mean = ([torch.zeros_like(param) for param in self.params] for _ in beta)
        self.before = np.inf  # the mean loss of the window before

    def __call__(self, grads: Gradients, rate: float) -> None:
        """Move the parameters against gradients."""
        self.n_steps += 1
        of_mean, of_sq = (1 - beta**self.n_steps for beta in self.beta)  # both start at zero
        torch._foreach_lerp_(self.mean, grads, 1 - self.beta[0])
        torch._foreach_mul_(self.sq_mean, self.beta[1])
        torch._foreach_addcmul_(self.sq_mean, grads, grads, 1 - self.beta[1])
        length = torch._foreach_sqrt(self.sq_mean)
        torch._foreach_div_(length, of_sq**0.5)
        torch._foreach_add_(length, self.eps)
        torch._foreach_addcdiv_(self.params, self.mean, length, -rate / of_mean)


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS of scipy over the parameters as one vector, for smooth deterministic objectives.

    Attributes
    ----------
    tol : float
        It stops where the gradient's largest entry is no larger.
    size : callable (*gradients) -> float, or None
        What is compared with `tol` in its place.
    """

    tol: float = 1e-4
    size: Callable[..., float] | None = None

    remedy = "scale X"

    def slower(self) -> "LBFGS":
        """See `Solver.slower`; its line search finds the rate anew."""
        return self

    def run(self, progress: Any, params: Sequence[torch.Tensor], max_iter: int) -> str:
        """See `Solver.run`."""
        last: list[torch.Tensor] = []
        small: list[bool] = []
        evaluations = _Evaluations(progress, params)
        progress.resume(replays=True)

        def value_and_grad(flat: np.ndarray) -> tuple[float, np.ndarray]:
            _assign(params, flat)
            loss, gradient, last[:] = evaluations()
            return loss, gradient

        def callback(intermediate_result: Any) -> None:
            _assign(params, intermediate_result.x)
            stop = progress.record(float(intermediate_result.fun))
            progress.finite = progress.whole
            if self.size is not None and self.size(*last) <= self.tol:
                small.append(True)
            if stop or small:
                raise StopIteration
            progress.note()

        gtol, ftol = self.tol if self.size is None else 0.0, 64 * np.finfo(float).eps
        result = optimize.minimize(
            value_and_grad,
            _flat([param.detach() for param in params]),
            jac=True,
            method="L-BFGS-B",
            callback=callback,
            options={"maxiter": max_iter, "gtol": gtol, "ftol": ftol, "maxls": 50},
        )
        _assign(params, result.x)
        # Status 2 is a line search that finds no lower value: the precision's own limit.
        if small:
            return "converged"
        return {0: "converged", 1: "max_iter", 2: "converged"}.get(result.status, "interrupted")


class _Evaluations:
    """Losses and gradients in the order in which they were asked for; scipy's own state cannot be kept, these can."""

    def __init__(self, progress: Any, params: Sequence[torch.Tensor]):
        self.progress, self.params, self.n_asked = progress, params, 0
        self.known: list[list] | None = None if progress.journal is None else []
        if self.known is not None:
            journal.remember_list(self.known)

    def __call__(self) -> tuple[float, np.ndarray, list[torch.Tensor]]:
        """The next (loss, gradient as one vector, gradients)."""
        self.n_asked += 1
        if self.known is not None and self.n_asked <= len(self.known):
            loss, flat = self.known[self.n_asked - 1]
            grads = [torch.empty_like(param.detach()) for param in self.params]
            _assign(grads, flat)
            self.progress.checked(loss, grads)
            return loss, flat, grads
        loss, grads = self.progress.value_and_grad()
        flat = _flat(grads)
        if self.known is not None:
            self.known.append([loss, flat])
        return loss, flat, list(grads)


def _flat(tensors: Any) -> np.ndarray:
    """All numbers in one vector, in double precision."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).double().cpu().numpy()


def _assign(params: Sequence[torch.Tensor], flat: np.ndarray) -> None:
    """Give the parameters the numbers of one vector."""
    with torch.no_grad():
        start = 0
        for param in params:
            stop = start + param.numel()
            param.copy_(torch.as_tensor(flat[start:stop]).view_as(param))
            start = stop
