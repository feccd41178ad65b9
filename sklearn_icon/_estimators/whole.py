"""What holds around every public method: a fit succeeds whole or not at all, and the process stays as it was."""

import sys
import warnings
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps

import numpy as np
from sklearn import config_context

from .._core.array_api import as_numpy
from .._core.group import present, together
from .._core.interrupts import called_by_a_search, listening
from .._core.journal import current
from .._core.pieces import within
from .._core.spec import shortened
from .checkpoints import following
from .memory import as_memory_error, refuse
from .progress import followed


def whole(fit):
    """A `fit` that leaves the estimator as it was where it raises.

    What an earlier fit learned, apart from where `warm_start` begins, is no part of this one.
    """
    told = followed(fit)

    @wraps(fit)
    def wrapped(self, *args, **kwargs):
        args, kwargs, back = as_numpy(args, kwargs)
        before = dict(vars(self))
        with nullcontext() if present().several else listening() as interrupts:
            try:
                if current() is None and "_progress" not in vars(self):
                    refuse(self, *args, **kwargs)
                with _named(self), together(self), following(self, fit, args, kwargs), _bounded(self):
                    if not self.get_params(deep=False).get("warm_start"):
                        for name in [name for name in before if name.endswith("_") and not name.startswith("_")]:
                            delattr(self, name)
                    returned = told(self, *args, **kwargs)
            except BaseException as error:
                vars(self).clear()
                vars(self).update(before)
                of_memory = as_memory_error(self, error, *args, **kwargs)
                if of_memory is not None:
                    raise of_memory from error
                _shorten(error)
                raise
        if interrupts is not None and interrupts.any:
            _tell(interrupts, type(self).__name__)
        return back(returned)

    return wrapped


@contextmanager
def _bounded(estimator):
    """The usual state of a training, within the memory that it may take."""
    with _usual_state(training=True), within(estimator.max_memory):
        yield


@contextmanager
def _named(estimator):
    """Numbers that are not finite are an error of the estimator's input or parameters, by its name."""
    try:
        yield
    except FloatingPointError as error:
        raise ValueError(f"{type(estimator).__name__}: {error}") from error


def _shorten(error):
    """Keep what users passed from filling the message of an error."""
    if isinstance(error, ValueError | TypeError) and len(error.args) == 1 and len(str(error)) > 500:
        error.args = (shortened(str(error)),)


def _tell(interrupts, name):
    """Say how far an interrupted fit came; and stop what called it, where that is no user."""
    if called_by_a_search():
        raise KeyboardInterrupt
    reached = "after its last step; it is complete" if interrupts.reached is None else interrupts.reached
    warnings.warn(f"{name} was interrupted {reached}.", RuntimeWarning, stacklevel=3)


def undisturbed(method):
    """A method of a fitted estimator, whatever state the process is in; NaN in what it returns is an error."""

    @wraps(method)
    def wrapped(self, *args, **kwargs):
        args, kwargs, back = as_numpy(args, kwargs)
        with _usual_state(training=False):
            return back(_without_nan(method(self, *args, **kwargs), self, method.__name__))

    return wrapped


@contextmanager
def _usual_state(training):
    """Torch as it trains, NumPy and scikit-learn as they come, inside; threads as they were, outside."""
    with ExitStack() as state:
        state.enter_context(config_context(transform_output="default", array_api_dispatch=False))
        state.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if training or "torch" in sys.modules:
            import torch

            from .._core.team import threads

            state.enter_context(torch.inference_mode(False))
            state.enter_context(torch.enable_grad())
            state.enter_context(torch.autocast("cpu", enabled=False))
            if torch.get_default_device().type != "cpu":  # tensors say where they are, or are on the CPU
                state.enter_context(torch.device("cpu"))
            state.enter_context(threads())  # scikit-learn's own limits, of calls side by side, would undo each other
        yield


def _without_nan(returned, estimator, name):
    """What a method returned, where no number in it is NaN."""
    parts = returned if isinstance(returned, tuple) else (returned,)
    for part in parts:
        values = np.asarray(part)
        if values.dtype.kind == "f":
            bad = np.flatnonzero(np.isnan(values.reshape(len(np.atleast_1d(part)), -1)).any(axis=1))
            if len(bad):
                raise ValueError(
                    f"{type(estimator).__name__}.{name} has no finite values for {len(bad)} rows, the first of which "
                    f"are {bad[:5].tolist()}: X may hold values far from those of fit; check and scale it."
                )
    return returned
