"""Ctrl-C in a fit: noted, and heeded where a step or a stage ends, so that what was reached is kept and nothing breaks.

A second one before that is raised at once, as anywhere else.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PASSES_ON = ("sklearn.pipeline", "sklearn.base", "sklearn.utils")  # that call a fit and go on with what it reached


class Interrupts:
    """Those of one fit: whether one is `noted` and waits to be heeded, and what was `reached` at one, in words."""

    def __init__(self) -> None:
        self.noted = False
        self.reached: str | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True

    @property
    def any(self) -> bool:
        """Whether there was one."""
        return self.noted or self.reached is not None


class _Current(threading.local):
    interrupts: Interrupts | None = None


_CURRENT = _Current()


@contextmanager
def listening() -> Iterator[Interrupts | None]:
    """The interrupts of a fit, or None where another fit around this one, or a handler of the user's, sees to them."""
    if _CURRENT.interrupts is not None:
        yield None
        return
    interrupts = _CURRENT.interrupts = Interrupts()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    installed = usual and threading.current_thread() is threading.main_thread()
    try:
        if installed:
            signal.signal(signal.SIGINT, interrupts)
        yield interrupts
    finally:
        _CURRENT.interrupts = None
        if installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_training(reached: str) -> bool:
    """Whether training is to stop here, as the user interrupted; what was reached, in words, will be told."""
    interrupts = _CURRENT.interrupts
    if interrupts is None or not interrupts.noted:
        return False
    interrupts.noted, interrupts.reached = False, reached
    return True


def keep(reached: str) -> bool:
    """Whether a fit is in progress that will tell the user of an interrupt that was raised, and what was reached."""
    interrupts = _CURRENT.interrupts
    if interrupts is not None:
        interrupts.noted, interrupts.reached = False, reached
    return interrupts is not None


def was_heeded() -> bool:
    """Whether the fit goes on with what it had reached when the user interrupted it."""
    return _CURRENT.interrupts is not None and _CURRENT.interrupts.reached is not None


def raise_if_interrupted() -> None:
    """Stop the fit where it has nothing yet that could be kept."""
    interrupts = _CURRENT.interrupts
    if interrupts is not None and interrupts.noted and interrupts.reached is None:
        raise KeyboardInterrupt


def called_by_a_search() -> bool:
    """Whether code of scikit-learn waits for this fit that needs others too, such as a grid search."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("sklearn.") and not name.startswith(_PASSES_ON):
            return True
        frame = frame.f_back
    return False
