"""How many numbers a fit computes in one piece: fewer where its memory is bounded, or where a piece would not fit.

Pieces follow `max_memory`, and otherwise are as large whatever else the machine does: sums in other pieces round
otherwise. They are smaller where one of the usual size is more than what is free as the fit first asks, and are halved
where CUDA runs out of memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .free_memory import free

T = TypeVar("T")
_LEAST = 1 << 16  # numbers of a piece
_BYTES = 64  # of a fit for each number of a piece: some eight arrays of double precision
_ALWAYS_FREE = 1 << 24  # bytes, up to which it is not asked what is free
OWN_COPY = 8  # times the bytes of dense rows are allowed, or a fit keeps rows that nobody can write to without a copy
_HALVINGS = 12  # after which the largest piece is one of the least


class _Current(threading.local):
    max_memory: float | None = None
    free: int | None = None  # bytes, once it was asked
    halvings = 0
    is_anew = False


_CURRENT = _Current()


@contextmanager
def within(max_memory: float | None) -> Iterator[None]:
    """Let pieces of what is computed inside, in this thread, leave a fit within so many bytes."""
    before = dict(vars(_CURRENT))
    vars(_CURRENT).update(max_memory=max_memory, free=None, halvings=0)
    try:
        yield
    finally:
        vars(_CURRENT).clear()
        vars(_CURRENT).update(before)


def at_once(numbers: int) -> int:
    """So many numbers, or as many as the memory of the fit allows."""
    most, wanted = _CURRENT.max_memory, numbers >> _CURRENT.halvings
    if most is None and wanted * _BYTES > _ALWAYS_FREE:
        if _CURRENT.free is None:
            _CURRENT.free = free()[0]
        most = None if wanted * _BYTES <= _CURRENT.free else _CURRENT.free / 2
    return max(wanted if most is None else min(wanted, int(most // _BYTES)), min(_LEAST, numbers))


def is_above(n_bytes: float) -> bool:
    """Whether so many are more than the fit may take."""
    return _CURRENT.max_memory is not None and n_bytes > _CURRENT.max_memory


def in_less(compute: Callable[[], T]) -> T:
    """What `compute` gives, in pieces of half the size each time that CUDA has no memory for it."""
    import torch

    try:
        while True:
            try:
                return compute()
            except torch.cuda.OutOfMemoryError:
                if _CURRENT.halvings == _HALVINGS:
                    raise
            _CURRENT.halvings, _CURRENT.is_anew = _CURRENT.halvings + 1, True
            torch.cuda.empty_cache()
    finally:
        _CURRENT.is_anew = False


def is_anew() -> bool:
    """Whether what is computed inside `in_less` was begun before, in larger pieces."""
    return _CURRENT.is_anew
