"""What a fit has computed so far, in the order in which it did, so that another process goes on where one was ended.

A fit that is called again does all again, and is handed what a journal holds: finished stages by `recalled`, and the
steps of the one that was under way by `Journal.resume`. What changes from step to step beside tensors, such as random
generators, is `remembered` where it is made. Fits without a checkpoint have a journal that holds nothing.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from .interrupts import was_heeded

if TYPE_CHECKING:
    import torch

STEPS_EVERY, STAGES_EVERY = 10.0, 1.0  # seconds between two writes, among steps and where a stage ends
_OF_WRITES = 100  # times as long as a write takes, or is expected to, passes before it
_BYTES = 4e8  # written in a second, as is expected of the first


class Damaged(ValueError):
    """What a journal holds is not what the fit asks for."""


class Journal:
    """The finished stages of a fit, and the steps of the one that is under way.

    `keep` writes both. A journal that is `closed`, as the user interrupted the fit, takes nothing more. Over ranks what
    a stage gave of the rows of this one is among `own`, by the number of the stage, which `keep_own` writes; where that
    is lost, as ranks are others than before, the stage is computed again.
    """

    def __init__(
        self,
        keep: Callable[[list, Any], None],
        stages: list | None = None,
        steps: Any = None,
        keep_own: Callable[[dict[str, Any]], None] | None = None,
        own: dict[str, Any] | None = None,
    ):
        self._keep, self.stages, self.steps = keep, stages or [], steps
        self._keep_own, self.own, self._again = keep_own, own or {}, False
        self.found = steps  # in the file, by which a fit has yet to go on
        self.position, self.closed, self.changed = 0, False, False
        self.followed: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.told: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []  # of these, what steps are told to
        self._written, self._cost = monotonic(), 0.0

    def finished(self, name: str) -> tuple | None:
        """(what the next stage gave,), where that is known."""
        if self.closed or self.position == len(self.stages):
            return None
        stage = self.stages[self.position]
        self.position += 1
        if stage["name"] != name:
            raise Damaged(f"its stage {self.position} is {stage['name']!r}, not {name!r}")
        if stage["own"] and str(self.position) not in self.own:
            self._again = True
            return None
        self._put(stage["states"])
        return (self.own[str(self.position)] if stage["own"] else stage["value"],)

    def finish(self, name: str, value: Any, of_rows: bool = False) -> None:
        """Note what a stage gave, unless the user ended it."""
        self.closed |= was_heeded()
        if self.closed:
            return
        position, own = self.position + (not self._again), of_rows and self._keep_own is not None
        if of_rows and self._keep_own is not None:
            self.own[str(position)] = value
            self._keep_own(self.own)
        if self._again:
            self._put(self.stages[position - 1]["states"])
            self._again = False
            return
        self.stages.append({"name": name, "own": own, "value": None if own else value, "states": self._states()})
        self.position, self.steps, self.found, self.changed = len(self.stages), None, None, True
        if self._is_due(STAGES_EVERY):
            self.write()

    def resume(self, replays: bool = False) -> Any:
        """What was noted of the steps of the stage that begins, or None.

        Where it `replays` them all, what is told of steps is as at its beginning.
        """
        found, self.found = self.found, None
        if found is None or self.closed or self.position < len(self.stages):
            return None
        self._put(found["states"])
        if replays:
            self._put(found["value"]["told"], self.told)
        return found["value"]

    def step(self, value: Callable[[], Any]) -> None:
        """Note where the stage that is under way has come to, if it is time."""
        if not self.closed and self._is_due(STEPS_EVERY):
            self._note(value())
            self.write()

    def close(self, value: Any) -> None:
        """Note where the stage that is under way was interrupted, and nothing more."""
        if not self.closed:
            self._note(value)
        self.closed = True

    def forget(self, n: int) -> None:
        """Keep only what was remembered first, n of them."""
        del self.followed[n:]
        self.told = [each for each in self.told if each in self.followed]

    def write(self) -> None:
        """Keep what was noted."""
        start = monotonic()
        self._keep(self.stages, self.steps)
        self._written, self.changed = monotonic(), False
        self._cost = self._written - start

    def _note(self, value: Any) -> None:
        self.steps, self.changed = {"value": value, "states": self._states()}, True

    def _is_due(self, seconds: float) -> bool:
        passed = monotonic() - self._written
        return passed >= seconds and passed >= _OF_WRITES * (self._cost or _n_bytes(self.stages) / _BYTES)

    def _states(self) -> list:
        return [get() for get, _ in self.followed]

    def told_states(self) -> list:
        """States of what steps are told to."""
        return [get() for get, _ in self.told]

    def _put(self, states: list, known: list | None = None) -> None:
        known = self.followed if known is None else known
        if len(states) != len(known):
            raise Damaged(f"it holds {len(states)} states where the fit has {len(known)}")
        for (_, put), state in reversed(list(zip(known, states, strict=True))):
            put(state)  # the latest first: batches that are drawn anew move generators that were there before them


def _n_bytes(stages: list) -> int:
    """Those of the arrays in plain data, none of which are copied."""
    buffers: list[pickle.PickleBuffer] = []
    pickle.dumps(stages, protocol=5, buffer_callback=buffers.append)
    return sum(buffer.raw().nbytes for buffer in buffers)


class _Current(threading.local):
    journal: Journal | None = None


_CURRENT = _Current()


def current() -> Journal | None:
    """The journal of the fit in this thread."""
    return _CURRENT.journal


@contextmanager
def kept_in(journal: Journal | None) -> Iterator[None]:
    """Let this be the journal of what is computed inside, in this thread."""
    before, _CURRENT.journal = _CURRENT.journal, journal
    try:
        yield
    finally:
        _CURRENT.journal = before


def recalled(name: str, compute: Callable[[], Any], of_rows: bool = False) -> Any:
    """What `compute` gives, plain data, or gave before; what it computes inside is no stage of its own.

    Over ranks it is `of_rows` where it is of those of this one; all else is the same on all.
    """
    journal = _CURRENT.journal
    if journal is None:
        return compute()
    known = journal.finished(name)
    if known is not None:
        return known[0]
    with kept_in(None):
        value = compute()
    journal.finish(name, value, of_rows)
    return value


def remember(get: Callable[[], Any], put: Callable[[Any], None], told: bool = False) -> None:
    """Keep what `get` gives, plain data, with each step and stage; `put` takes it back.

    It is `told` where it changes as it is told of steps, not as losses are computed.
    """
    if _CURRENT.journal is not None:
        _CURRENT.journal.followed.append((get, put))
        if told:
            _CURRENT.journal.told.append((get, put))


def remembered(rng: np.random.RandomState) -> np.random.RandomState:
    """A generator whose state is kept."""
    remember(lambda: rng.get_state(legacy=False), rng.set_state)
    return rng


def remember_fields(of: Any, *names: str) -> None:
    """Keep attributes that are plain data."""
    fields = vars(of)
    remember(lambda: {name: fields[name] for name in names}, fields.update)


def remember_list(values: list) -> None:
    """Keep what a list holds, plain data."""

    def put(state: list) -> None:
        values[:] = state

    remember(lambda: list(values), put)


def remember_tensors(tensors: Callable[[], list[torch.Tensor]]) -> None:
    """Keep the numbers of tensors."""
    remember(lambda: arrays_of(tensors()), lambda arrays: copy_into(tensors(), arrays))


@contextmanager
def passing() -> Iterator[None]:
    """Forget at the end what is remembered inside."""
    journal = _CURRENT.journal
    n_before = 0 if journal is None else len(journal.followed)
    try:
        yield
    finally:
        if journal is not None:
            journal.forget(n_before)


def arrays_of(tensors: list[torch.Tensor]) -> list[np.ndarray]:
    """The numbers of tensors, as they are now."""
    return [tensor.detach().cpu().numpy().copy() for tensor in tensors]


def copy_into(tensors: list[torch.Tensor], arrays: list[np.ndarray]) -> None:
    """Give tensors the numbers of arrays."""
    import torch

    with torch.no_grad():
        for tensor, array in zip(tensors, arrays, strict=True):
            tensor.copy_(torch.as_tensor(array))
