"""The solver: minimise a function of tensors. It knows nothing of data, kernels or estimators."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize

_CHECK_EVERY = 50


class SolverResult(NamedTuple):
    """What `minimize` reports; the parameters themselves were changed in place.

    Attributes
    ----------
    loss : float
        The value recorded last.
    n_iter : int
        Steps taken.
    loss_curve : ndarray of shape (n_iter,)
        The value at each step: before the step, or after it for "lbfgs".
    status : {"converged", "completed", "max_iter", "diverged", "interrupted"}
        Why it stopped; "completed" where a schedule of steps came to its end.
    """

    loss: float
    n_iter: int
    loss_curve: np.ndarray
    status: str


def minimize(objective, params, *, method, max_iter, on_step=None, **options):
    """Minimise objective() over tensors, in place.

    Parameters
    ----------
    objective : callable () -> tensor or (tensor, tensor)
        The differentiable scalar to descend, and the one to record where that is another.
    params : list of tensors
        Leaves that require gradients.
    method : {"momentum", "adam", "lbfgs"}
        Gradient descent with momentum and gains as t-SNE uses it; Adam with its rate falling along a cosine to zero;
        or the quasi-Newton method of scipy, for smooth deterministic objectives.
    max_iter : int
        Steps at the most.
    on_step : callable (n_iter, loss), default=None
        Called after each step; returns True to stop.
    **options
        Of the method: `learning_rate`; `momentum`, `max_step` (longest move of a row in one step), `min_grad_norm`
        and `n_iter_without_progress` for "momentum"; `tol`, on the gradient for "lbfgs", on the relative decrease for
        "adam".

    Returns
    -------
    SolverResult

    Warns
    -----
    RuntimeWarning
        The loss stopped being finite, or the user interrupted: the last finite parameters are kept.
    """
    methods: dict[str, Callable[..., str]] = {"momentum": _momentum, "adam": _adam, "lbfgs": _lbfgs}
    progress = _Progress(objective, params, on_step)
    try:
        status = methods[method](progress, params, max_iter, **options)
    except KeyboardInterrupt:
        progress.restore(progress.whole)
        warnings.warn(
            f"interrupted at iteration {progress.n_iter}; the last whole step is kept.", RuntimeWarning, stacklevel=2
        )
        status = "interrupted"
    except FloatingPointError:
        progress.restore(progress.finite)
        warnings.warn(
            f"the loss was not finite at iteration {progress.n_iter}; the last finite state is kept. "
            "Lower learning_rate, or scale X.",
            RuntimeWarning,
            stacklevel=2,
        )
        status = "diverged"
    curve = np.asarray(progress.losses)
    return SolverResult(float(curve[-1]) if len(curve) else progress.loss, progress.n_iter, curve, status)


class _Progress:
    """Evaluates the objective, keeps the curve, the last whole step and the last that had a finite loss."""

    def __init__(self, objective, params, on_step):
        self.objective, self.params, self.on_step = objective, params, on_step
        self.losses: list[float] = []
        self.n_iter, self.loss = 0, float("nan")
        self.finite = self.whole = self._copies()

    def _copies(self):
        return [param.detach().clone() for param in self.params]

    def restore(self, values):
        with torch.no_grad():
            for param, kept in zip(self.params, values, strict=True):
                param.copy_(kept)

    def value_and_grad(self):
        """(recorded loss, gradients); raises FloatingPointError unless both are finite."""
        value = self.objective()
        descend, record = value if isinstance(value, tuple) else (value, value)
        grads = torch.autograd.grad(descend, self.params)
        loss = float(record.detach())
        if not np.isfinite(loss) or not all(bool(torch.isfinite(grad).all()) for grad in grads):
            raise FloatingPointError
        self.loss, self.finite = loss, self.whole
        return loss, grads

    def record(self, loss):
        """Count a step; True where the caller asks to stop."""
        self.whole = self._copies()
        self.losses.append(loss)
        self.n_iter += 1
        return bool(self.on_step is not None and self.on_step(self.n_iter, loss))


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
):
    """Descent with momentum and one adaptive gain per coordinate (Jacobs, 1988), as in t-SNE."""
    patience = max_iter if n_iter_without_progress is None else n_iter_without_progress
    velocity = [torch.zeros_like(param) for param in params]
    gains = [torch.ones_like(param) for param in params]
    best, best_iter = np.inf, 0
    for iteration in range(max_iter):
        loss, grads = progress.value_and_grad()
        with torch.no_grad():
            for param, grad, step, gain in zip(params, grads, velocity, gains, strict=True):
                agrees = (step * grad) < 0
                gain.copy_(torch.where(agrees, gain + 0.2, gain * 0.8)).clamp_min_(0.01)
                step.mul_(momentum).sub_(learning_rate * gain * grad)
                if np.isfinite(max_step):
                    step.mul_((max_step / step.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp_max(1))
                param.add_(step)
        if progress.record(loss):
            return "interrupted"
        if loss < best:
            best, best_iter = loss, iteration
        if (iteration + 1) % _CHECK_EVERY == 0:
            grad_norm = float(sum(grad.square().sum() for grad in grads)) ** 0.5
            if iteration - best_iter > patience or grad_norm <= min_grad_norm:
                return "converged"
    return "max_iter"


def _adam(progress, params, max_iter, *, learning_rate, tol=0.0):
    """Adam (Kingma and Ba, 2015), its rate falling along a cosine to zero."""
    optimizer = torch.optim.Adam(params, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max_iter)
    before = np.inf
    for iteration in range(max_iter):
        loss, grads = progress.value_and_grad()
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer.step()
        schedule.step()
        if progress.record(loss):
            return "interrupted"
        if (iteration + 1) % _CHECK_EVERY == 0 and tol:
            recent = float(np.mean(progress.losses[-_CHECK_EVERY:]))
            if before - recent < tol * abs(recent):
                return "converged"
            before = recent
    return "completed"


def _lbfgs(progress, params, max_iter, *, tol=1e-4, **_):
    """L-BFGS of scipy over the parameters as one vector."""

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
        return loss, torch.cat([grad.reshape(-1) for grad in grads]).double().cpu().numpy()

    def callback(intermediate_result):
        assign(intermediate_result.x)
        stop = progress.record(float(intermediate_result.fun))
        progress.finite = progress.whole
        if stop:
            raise StopIteration

    start = torch.cat([param.detach().reshape(-1) for param in params]).double().cpu().numpy()
    result = optimize.minimize(
        value_and_grad,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=callback,
        options={"maxiter": max_iter, "gtol": tol, "ftol": 64 * np.finfo(float).eps, "maxls": 50},
    )
    assign(result.x)
    # Status 2 is a line search that finds no lower value: the precision's own limit.
    return {0: "converged", 1: "max_iter", 2: "converged"}.get(result.status, "interrupted")
