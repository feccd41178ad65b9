"""Ctrl-C in a fit: noted, and heeded where a step or a stage ends, so that what was reached is kept and nothing breaks.

A second one before that is raised at once, as anywhere else.
"""

import signal
import sys
import threading
from contextlib import contextmanager
from types import FrameType

_CURRENT = threading.local()
_PASSES_ON = ("sklearn.pipeline", "sklearn.base", "sklearn.utils")  # that call a fit and go on with what it reached


class Interrupts:
    """Those of one fit.

    Attributes
    ----------
    noted : bool
        Whether one waits to be heeded.
    reached : str or None
        Where training was stopped, in words.
    """

    def __init__(self):
        self.noted, self.reached = False, None

    def __call__(self, signum, frame):
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True

    @property
    def any(self):
        """Whether there was one."""
        return self.noted or self.reached is not None


@contextmanager
def listening():
    """The interrupts of a fit, or None where another fit around this one, or a handler of the user's, sees to them."""
    if getattr(_CURRENT, "interrupts", None) is not None:
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


def stop_training(reached):
    """Whether training is to stop here, as the user interrupted; what was reached, in words, will be told."""
    interrupts = getattr(_CURRENT, "interrupts", None)
    if interrupts is None or not interrupts.noted:
        return False
    interrupts.noted, interrupts.reached = False, reached
    return True


def keep(reached):
    """Whether a fit is in progress that will tell the user of an interrupt that was raised, and what was reached."""
    interrupts = getattr(_CURRENT, "interrupts", None)
    if interrupts is not None:
        interrupts.noted, interrupts.reached = False, reached
    return interrupts is not None


def raise_if_interrupted():
    """Stop the fit where it has nothing yet that could be kept."""
    interrupts = getattr(_CURRENT, "interrupts", None)
    if interrupts is not None and interrupts.noted and interrupts.reached is None:
        raise KeyboardInterrupt


def called_by_a_search():
    """Whether code of scikit-learn waits for this fit that needs others too, such as a grid search."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("sklearn.") and not name.startswith(_PASSES_ON):
            return True
        frame = frame.f_back
    return False
