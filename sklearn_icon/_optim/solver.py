"""The solver: minimise a function of tensors. It knows nothing of data, kernels or estimators."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core import journal
from .._core.group import group
from .._core.interrupts import keep, raise_if_interrupted, stop_training
from .._core.pieces import in_less
from .methods import Gradients, Solver


class SolverResult(NamedTuple):
    """What `minimize` reports; the parameters themselves were changed in place.

    Attributes
    ----------
    loss : float
        The value recorded last.
    n_iter : int
        Steps taken.
    loss_curve : ndarray of shape (n_losses,)
        The values that were computed: at each step, before it, or after it for `LBFGS`; every few steps for `Momentum`
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

    @property
    def why(self) -> str:
        """The reason, or the status where it says all."""
        return self.reason or self.status


def minimize(
    objective: Callable[[], torch.Tensor] | None,
    params: Sequence[torch.Tensor],
    solver: Solver,
    *,
    max_iter: int,
    on_step: Callable[[int, float], Any] | None = None,
    kept: Iterable[torch.Tensor] = (),
    per_pass: int = 1,
    after_step: Callable[[], None] | None = None,
) -> SolverResult:
    """Minimise objective(), a differentiable scalar, over tensors that require gradients, in place.

    `on_step` is called after each step and returns True to stop. What is `kept` changes beside the parameters and goes
    back with them, such as running means, or what `after_step` changes as part of a step. Steps are `per_pass` to an
    epoch, by which warnings say when.

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
    progress = _Progress(objective, params, on_step, kept, per_pass, after_step)
    known = progress.known()
    if known is not None:
        return known
    with journal.passing():
        result = _solved(progress, solver, params, max_iter)
        progress.close()
    return progress.finish(result)


def _solved(progress: "_Progress", solver: Solver, params: Sequence[torch.Tensor], max_iter: int) -> SolverResult:
    """The report of a run that was not known before."""
    try:
        status = _run(progress, solver, params, max_iter)
    except KeyboardInterrupt:
        if group().several:  # the others go on
            raise
        progress.restore(progress.whole)
        status = "interrupted"
        if not keep(progress.reached):
            warnings.warn(f"interrupted {progress.reached}.", RuntimeWarning, stacklevel=3)
    iterations = np.asarray([step for step in progress.iterations if step <= progress.n_iter], dtype=int)
    curve = np.asarray(progress.losses[: len(iterations)])
    loss = float(curve[-1]) if len(curve) else progress.loss
    return SolverResult(loss, progress.n_iter, curve, status, iterations, progress.reason or status)


def _run(progress: "_Progress", solver: Solver, params: Sequence[torch.Tensor], max_iter: int) -> str:
    """The status of a run, which goes on once from the last finite state, at half the rate, where numbers fail."""
    if not progress.failed:
        try:
            return solver.run(progress, params, max_iter)
        except FloatingPointError as error:
            progress.failed, progress.begun = f"{error} {progress.when}", progress.n_iter
        if progress.journal is not None:
            progress.journal.forget(progress.n_remembered)
        progress.restore(progress.finite)
        progress.whole = progress.finite
    slower = solver.slower()
    again = "from the last finite state" + ("" if slower is solver else " at half the rate")
    try:
        status = slower.run(progress, params, max_iter - progress.begun)
    except FloatingPointError:
        progress.restore(progress.finite)
        raise FloatingPointError(f"{progress.failed}, and {again} {progress.when}; {solver.remedy}.") from None
    told = f"{progress.failed}; training went on {again}. To avoid this, {solver.remedy}."
    warnings.warn(told, RuntimeWarning, stacklevel=4)
    return status


def _when(n_iter: int, per_pass: int) -> str:
    """The step that comes after n_iter of them, in words."""
    return f"at iteration {n_iter}" if per_pass == 1 else f"in epoch {n_iter // per_pass + 1}, at iteration {n_iter}"


class _Progress:
    """Evaluates the objective, keeps the curve, the last whole step and the last that had a finite gradient."""

    def __init__(
        self, objective: Any, params: Sequence, on_step: Any, kept: Iterable[torch.Tensor], per_pass: int, after: Any
    ):
        self.per_pass, self.after_step = per_pass, after
        self.objective, self.params, self.on_step = objective, params, on_step
        self.changing = [*params, *kept]
        self.losses: list[float] = []
        self.iterations: list[int] = []
        self.n_iter, self.loss, self.reason = 0, float("nan"), ""
        self.begun, self.failed, self.heeded = 0, "", False  # the step of this try, why there is another
        self.finite = self.whole = self._copies()
        self.journal = journal.current()
        self.noticed = self._state
        self.n_remembered = 0 if self.journal is None else len(self.journal.followed)

    def _copies(self) -> list[torch.Tensor]:
        return [tensor.detach().clone() for tensor in self.changing]

    def restore(self, values: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self.changing, values, strict=True):
                tensor.copy_(value)

    def known(self) -> SolverResult | None:
        """The report of this run where a journal holds that, the tensors being those of its end."""
        if self.journal is None:
            return None
        done = self.journal.finished("training")
        if done is not None:
            tensors, *report = done[0]
            journal.copy_into(self.changing, tensors)
            return SolverResult(*report)
        if self.journal.found is not None:
            self.failed, self.begun = (self.journal.found["value"][name] for name in ("failed", "begun"))
        return None

    def close(self) -> None:
        """Let the journal of a run that the user ended between two steps keep where that was, and nothing more."""
        if self.journal is not None and self.heeded:
            self.journal.close(self.noticed())

    def finish(self, result: SolverResult) -> SolverResult:
        """Let the journal keep a report."""
        if self.journal is not None:
            self.journal.finish("training", [journal.arrays_of(self.changing), *result])
        return result

    def resume(self, replays: bool = False) -> None:
        """Go on where a journal says that the run was; a solver that `replays` starts there and is told all again."""
        if self.journal is None:
            return
        state = self.journal.resume(replays)
        if state is not None:
            self.whole, self.finite = (
                [torch.as_tensor(array).to(tensor.device) for array, tensor in zip(arrays, self.changing, strict=True)]
                for arrays in (state["whole"], state["finite"])
            )
            self.restore(self.whole)
            self.losses, self.iterations = state["losses"].tolist(), state["iterations"].tolist()
            self.n_iter, self.loss, self.begun = state["n_iter"], state["loss"], state["begun"]
        if replays:
            first = self._state() | {"told": self.journal.told_states()}
            self.noticed = lambda: first

    def note(self) -> None:
        """Let the journal keep the state between two steps, if it is time."""
        if self.journal is not None:
            self.journal.step(self.noticed)

    def _state(self) -> dict[str, Any]:
        return {
            "whole": journal.arrays_of(self.whole),
            "finite": journal.arrays_of(self.finite),
            "losses": np.asarray(self.losses, dtype=np.float64),
            "iterations": np.asarray(self.iterations, dtype=np.int64),
            "n_iter": self.n_iter,
            "loss": self.loss,
            "begun": self.begun,
            "failed": self.failed,
        }

    def value_and_grad(self) -> tuple[float, Gradients]:
        """(recorded loss, gradients); raises FloatingPointError unless both are finite."""

        def computed() -> tuple[float, Gradients]:
            value = self.objective()
            grads = torch.autograd.grad(value, self.params)
            return float(value.detach()), grads

        return self.checked(*in_less(computed))

    def checked(self, loss: float, grads: Gradients) -> tuple[float, Gradients]:
        """The same, where they are finite."""
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss was not finite but {loss}")
        if not all(bool(torch.isfinite(grad).all()) for grad in grads):
            raise FloatingPointError(f"the gradient was not finite at a loss of {loss:.6g}")
        self.loss, self.finite = loss, self.whole
        return loss, grads

    def record(self, loss: float, computed: bool = True) -> bool:
        """Count a step, and its loss if that is new; True where the caller asks to stop."""
        if self.after_step is not None:
            self.after_step()
        self.whole = self._copies()
        if computed:
            self.losses.append(loss)
            self.iterations.append(self.n_iter + 1)
        self.n_iter += 1
        if self.on_step is not None and self.on_step(self.n_iter, loss):
            return True
        self.heeded = stop_training(self.reached)
        return self.heeded

    @property
    def when(self) -> str:
        """The step that comes next, in words."""
        return _when(self.n_iter, self.per_pass)

    @property
    def reached(self) -> str:
        """How far it came, in words."""
        return f"{self.when}; the last whole step is kept"
