"""How many numbers a fit computes in one piece: fewer where its memory is bounded.

Pieces follow `max_memory` alone, not what is free: sums in other pieces round otherwise, and a fit has the same bits
whatever else the machine does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LEAST = 1 << 16  # numbers of a piece
_BYTES = 64  # of a fit for each number of a piece: some eight arrays of double precision


class _Current(threading.local):
    max_memory: float | None = None


_CURRENT = _Current()


@contextmanager
def within(max_memory: float | None) -> Iterator[None]:
    """Let pieces of what is computed inside, in this thread, leave a fit within so many bytes."""
    before, _CURRENT.max_memory = _CURRENT.max_memory, max_memory
    try:
        yield
    finally:
        _CURRENT.max_memory = before


def at_once(numbers: int) -> int:
    """So many numbers, or as many as the memory of the fit allows."""
    most = _CURRENT.max_memory
    return numbers if most is None else min(numbers, max(_LEAST, int(most // _BYTES)))


def is_above(n_bytes: float) -> bool:
    """Whether so many are more than the fit may take."""
    return _CURRENT.max_memory is not None and n_bytes > _CURRENT.max_memory
