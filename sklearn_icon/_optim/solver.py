"""The solver: minimise a function of tensors. It knows nothing of data, kernels or estimators."""

import warnings
from collections.abc import Callable
from math import cos, pi
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize

from .._core.interrupts import keep, raise_if_interrupted, stop_training

_CHECK_EVERY = 50
_NETWORK_RATE = 3e-3
_PASSES, _LEAST_STEPS = 10, 300  # of Adam, unless max_iter says how many passes
_COMPILED_SIZE = 20_000  # numbers; below, torch takes less time than loading compiled loops


class SolverResult(NamedTuple):
    """What `minimize` reports; the parameters themselves were changed in place.

    Attributes
    ----------
    loss : float
        The value recorded last.
    n_iter : int
        Steps taken.
    loss_curve : ndarray of shape (n_losses,)
        The values that were computed: at each step, before it, or after it for "lbfgs"; every few steps for "momentum"
        where the gradient comes without a loss.
    status : {"converged", "completed", "max_iter", "interrupted"}
        Why it stopped; "completed" where a schedule of steps came to its end.
    iterations : ndarray of shape (n_losses,)
        The step, from 1, of each value.
    reason : str
        What converged, or the status.
    """

    loss: float
    n_iter: int
    loss_curve: np.ndarray
    status: str
    iterations: np.ndarray = np.zeros(0, dtype=int)
    reason: str = ""


def minimize(objective, params, *, method, max_iter, on_step=None, kept=(), per_pass=1, **options):
    """Minimise objective() over tensors, in place.

    Parameters
    ----------
    objective : callable () -> tensor, or None
        The differentiable scalar to descend; None where `gradient` is given.
    params : list of tensors
        Leaves that require gradients.
    method : {"momentum", "adam", "lbfgs"}
        Gradient descent with momentum and gains as t-SNE uses it; Adam with its rate falling along a cosine to zero;
        or the quasi-Newton method of scipy, for smooth deterministic objectives.
    max_iter : int
        Steps at the most.
    on_step : callable (n_iter, loss), default=None
        Called after each step; returns True to stop.
    kept : list of tensors, default=()
        That change beside the parameters and go back with them, such as running means.
    per_pass : int, default=1
        Steps that visit all rows once, an epoch, by which warnings say when.
    **options
        Of the method: `learning_rate`; `tol`, for "adam" on the relative decrease of the mean loss of `window`
        steps, for "lbfgs" on the gradient's largest entry, or on `size` (callable (*gradients) -> float); for
        "momentum" `momentum`, `max_step` (longest move of a row in one step), `min_grad_norm`,
        `n_iter_without_progress`, `gradient` (callable (with_loss) -> (loss or None, gradients), which may be those of
        another loss), `loss_every` (steps between two losses that are asked of it), `backtrack` (whether a loss above
        the one before halves the rate) and `settled` (callable (loss) -> bool, asked every 50 steps).

    Returns
    -------
    SolverResult

    Warns
    -----
    RuntimeWarning
        The user interrupted, outside of a fit: the last whole step is kept.

    Raises
    ------
    FloatingPointError
        The loss or its gradient was not finite, and again from the last finite state at half the rate; the parameters
        are those of that state.
    """
    raise_if_interrupted()
    progress = _Progress(objective, params, on_step, kept, per_pass)
    try:
        status = _run(progress, method, params, max_iter, options)
    except KeyboardInterrupt:
        progress.restore(progress.whole)
        status = "interrupted"
        if not keep(progress.reached):
            warnings.warn(f"interrupted {progress.reached}.", RuntimeWarning, stacklevel=2)
    iterations = np.asarray([step for step in progress.iterations if step <= progress.n_iter], dtype=int)
    curve = np.asarray(progress.losses[: len(iterations)])
    loss = float(curve[-1]) if len(curve) else progress.loss
    return SolverResult(loss, progress.n_iter, curve, status, iterations, progress.reason or status)


def _run(progress, method, params, max_iter, options):
    """The status of a run, which goes on once from the last finite state, at half the rate, where numbers fail."""
    methods: dict[str, Callable[..., str]] = {"momentum": _momentum, "adam": _adam, "lbfgs": _lbfgs}
    try:
        return methods[method](progress, params, max_iter, **options)
    except FloatingPointError as error:
        first = f"{error} {progress.when}"
    progress.restore(progress.finite)
    progress.whole = progress.finite
    again, remedy = "from the last finite state", "scale X"
    if "learning_rate" in options:
        again, remedy = f"{again} at half the rate", "lower learning_rate, or scale X"
        options = options | {"learning_rate": options["learning_rate"] / 2}
    try:
        status = methods[method](progress, params, max_iter - progress.n_iter, **options)
    except FloatingPointError:
        progress.restore(progress.finite)
        raise FloatingPointError(f"{first}, and {again} {progress.when}; {remedy}.") from None
    warnings.warn(f"{first}; training went on {again}. To avoid this, {remedy}.", RuntimeWarning, stacklevel=3)
    return status


def _when(n_iter, per_pass):
    """The step that comes after n_iter of them, in words."""
    return f"at iteration {n_iter}" if per_pass == 1 else f"in epoch {n_iter // per_pass + 1}, at iteration {n_iter}"


class _Progress:
    """Evaluates the objective, keeps the curve, the last whole step and the last that had a finite gradient."""

    def __init__(self, objective, params, on_step, kept, per_pass):
        self.per_pass = per_pass
        self.objective, self.params, self.on_step = objective, params, on_step
        self.changing = [*params, *kept]
        self.losses: list[float] = []
        self.iterations: list[int] = []
        self.n_iter, self.loss, self.reason = 0, float("nan"), ""
        self.finite = self.whole = self._copies()

    def _copies(self):
        return [tensor.detach().clone() for tensor in self.changing]

    def restore(self, values):
        with torch.no_grad():
            for tensor, value in zip(self.changing, values, strict=True):
                tensor.copy_(value)

    def value_and_grad(self):
        """(recorded loss, gradients); raises FloatingPointError unless both are finite."""
        value = self.objective()
        grads = torch.autograd.grad(value, self.params)
        return self.checked(float(value.detach()), grads)

    def checked(self, loss, grads):
        """The same, where they are finite."""
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss was not finite but {loss}")
        if not all(bool(torch.isfinite(grad).all()) for grad in grads):
            raise FloatingPointError(f"the gradient was not finite at a loss of {loss:.6g}")
        self.loss, self.finite = loss, self.whole
        return loss, grads

    def record(self, loss, computed=True):
        """Count a step, and its loss if that is new; True where the caller asks to stop."""
        self.whole = self._copies()
        if computed:
            self.losses.append(loss)
            self.iterations.append(self.n_iter + 1)
        self.n_iter += 1
        return bool(self.on_step is not None and self.on_step(self.n_iter, loss)) or stop_training(self.reached)

    @property
    def when(self):
        """The step that comes next, in words."""
        return _when(self.n_iter, self.per_pass)

    @property
    def reached(self):
        """How far it came, in words."""
        return f"{self.when}; the last whole step is kept"


def adam_schedule(steps_per_pass, passes, tol, learning_rate):
    """Options of Adam on minibatches.

    Parameters
    ----------
    steps_per_pass : int
        Minibatches of a pass over the rows.
    passes : int or None
        None: 10, or as many as make 300 steps.
    tol : float
    learning_rate : float or "auto"

    Returns
    -------
    dict
        Of `minimize`.
    """
    passes = passes or max(_PASSES, -(-_LEAST_STEPS // steps_per_pass))
    how = {"method": "adam", "max_iter": passes * steps_per_pass, "tol": tol}
    how["learning_rate"] = _NETWORK_RATE if learning_rate == "auto" else learning_rate
    return how | {"window": max(_CHECK_EVERY, steps_per_pass), "per_pass": steps_per_pass}


def _momentum(
    progress,
    params,
    max_iter,
    *,
    learning_rate,
    momentum,
    max_step=torch.inf,
    min_grad_norm=0.0,
    n_iter_without_progress=None,
    gradient=None,
    loss_every=1,
    backtrack=False,
    settled=None,
):
    """Descent with momentum and one adaptive gain per coordinate (Jacobs, 1988), as in t-SNE."""
    patience = max_iter if n_iter_without_progress is None else n_iter_without_progress
    moving = [_Moving(param, learning_rate, momentum, max_step) for param in params]
    best, best_iter, before, improved = np.inf, 0, np.inf, False
    for iteration in range(max_iter):
        if gradient is None:
            loss, grads = progress.value_and_grad()
        else:
            new_loss, grads = gradient(iteration % loss_every == 0)
            loss, grads = progress.checked(progress.loss if new_loss is None else new_loss, grads)
        if backtrack and iteration % loss_every == 0:
            if loss > before:
                for mover in moving:
                    mover.slow_down()
            before = loss
        for mover, grad in zip(moving, grads, strict=True):
            mover.step(grad)
        if progress.record(loss, gradient is None or new_loss is not None):
            return "interrupted"
        if loss < best:
            best, best_iter, improved = loss, iteration, True
        if (iteration + 1) % _CHECK_EVERY == 0:
            grad_norm = float(sum(grad.square().sum() for grad in grads)) ** 0.5
            reasons = {
                "n_iter_without_progress": not improved and iteration - best_iter > patience,
                "min_grad_norm": grad_norm <= min_grad_norm,
                "settled": settled is not None and settled(loss),
            }
            progress.reason, improved = next((reason for reason, holds in reasons.items() if holds), ""), False
            if progress.reason:
                return "converged"
    return "max_iter"


class _Moving:
    """A parameter with its velocity and gains; a large one on the CPU moves by a compiled loop."""

    def __init__(self, param, learning_rate, momentum, max_step):
        self.param, self.velocity, self.gain = param.detach(), torch.zeros_like(param), torch.ones_like(param)
        self.learning_rate, self.momentum, self.max_step = learning_rate, momentum, max_step
        self.compiled = param.numel() > _COMPILED_SIZE and param.device.type == "cpu" and param.dim() == 2

    def slow_down(self):
        """Halve the rate and forget the past."""
        self.learning_rate /= 2
        self.velocity.zero_()
        self.gain.fill_(1)

    def step(self, grad):
        """Move the parameter against a gradient."""
        if self.compiled:
            from .loops import momentum_step

            arrays = [tensor.detach().numpy() for tensor in (self.param, grad, self.velocity, self.gain)]
            numbers = (self.learning_rate, self.momentum, min(self.max_step, torch.finfo(grad.dtype).max ** 0.5))
            momentum_step(*arrays, *(arrays[0].dtype.type(number) for number in numbers), 0, len(grad))
            return
        agrees = (self.velocity * grad) < 0
        self.gain.copy_(torch.where(agrees, self.gain + 0.2, self.gain * 0.8)).clamp_min_(0.01)
        self.velocity.mul_(self.momentum).sub_(self.learning_rate * self.gain * grad)
        if np.isfinite(self.max_step):
            length = self.velocity.norm(dim=-1, keepdim=True)
            self.velocity.mul_((self.max_step / length.clamp_min(1e-30)).clamp_max(1))
        self.param.add_(self.velocity)


def _adam(progress, params, max_iter, *, learning_rate, tol=0.0, window=_CHECK_EVERY):
    """Adam (Kingma and Ba, 2015), its rate falling along a cosine to zero."""
    step = _AdamStep(params)
    before = np.inf
    for iteration in range(max_iter):
        loss, grads = progress.value_and_grad()
        step(grads, learning_rate * (1 + cos(pi * iteration / max_iter)) / 2)
        if progress.record(loss):
            return "interrupted"
        if (iteration + 1) % window == 0 and tol:
            recent = float(np.mean(progress.losses[-window:]))
            if before - recent < tol * abs(recent):
                return "converged"
            before = recent
    return "completed"


class _AdamStep:
    """The step of Adam; torch's own class takes a second to make the first time, as it imports its compiler."""

    def __init__(self, params, beta=(0.9, 0.999), eps=1e-8):
        self.params, self.beta, self.eps, self.n_steps = [param.detach() for param in params], beta, eps, 0
        self.mean, self.sq_mean = ([torch.zeros_like(param) for param in self.params] for _ in beta)

    def __call__(self, grads, rate):
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


def _lbfgs(progress, params, max_iter, *, tol=1e-4, size=None):
    """L-BFGS of scipy over the parameters as one vector."""
    last: list[torch.Tensor] = []
    small: list[bool] = []

    def assign(flat):
        with torch.no_grad():
            start = 0
            for param in params:
                stop = start + param.numel()
                param.copy_(torch.as_tensor(flat[start:stop]).view_as(param))
                start = stop

    def value_and_grad(flat):
        assign(flat)
        loss, grads = progress.value_and_grad()
        last[:] = grads
        return loss, torch.cat([grad.reshape(-1) for grad in grads]).double().cpu().numpy()

    def callback(intermediate_result):
        assign(intermediate_result.x)
        stop = progress.record(float(intermediate_result.fun))
        progress.finite = progress.whole
        if size is not None and size(*last) <= tol:
            small.append(True)
        if stop or small:
            raise StopIteration

    start = torch.cat([param.detach().reshape(-1) for param in params]).double().cpu().numpy()
    result = optimize.minimize(
        value_and_grad,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=callback,
        options={
            "maxiter": max_iter,
            "gtol": tol if size is None else 0.0,
            "ftol": 64 * np.finfo(float).eps,
            "maxls": 50,
        },
    )
    assign(result.x)
    # Status 2 is a line search that finds no lower value: the precision's own limit.
    if small:
        return "converged"
    return {0: "converged", 1: "max_iter", 2: "converged"}.get(result.status, "interrupted")
