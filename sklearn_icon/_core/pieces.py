"""How many numbers a fit computes in one piece: fewer where its memory is bounded, or where a piece would not fit.

Pieces follow `max_memory`, and otherwise are as large whatever else the machine does: sums in other pieces round
otherwise. They are smaller where one of the usual size is more than what is free as the fit first asks, and are halved
where CUDA runs out of memory. Arrays that a bounded fit has no room for lie in temporary files.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, TypeVar

import numpy as np

from .free_memory import free
from .types import Array

T = TypeVar("T")
_LEAST = 1 << 16  # numbers of a piece
_BYTES = 64  # of a fit for each number of a piece: some eight arrays of double precision
_ALWAYS_FREE = 1 << 24  # bytes, up to which it is not asked what is free
OWN_COPY = 8  # times the bytes of dense rows are allowed, or a fit keeps rows that nobody can write to without a copy
_LIBRARIES = 370 << 20  # bytes that a fit may have yet to load
_IN_MEMORY = 1 / 64  # of what is allowed, up to which an array has room in memory
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


def slices(n: int, most: int) -> Iterator[slice]:
    """Slices of so many rows at the most; none of no rows, as a rank may have."""
    return (slice(start, min(start + most, n)) for start in range(0, n, most))


def is_above(n_bytes: float) -> bool:
    """Whether so many are more than the fit may take."""
    return _CURRENT.max_memory is not None and n_bytes > _CURRENT.max_memory


def has_room(n_bytes: float, allowed: float | None = None, always: float | None = None) -> bool:
    """Whether so many bytes leave room for libraries, or are at most `always`, None: the half of what is allowed."""
    allowed = _CURRENT.max_memory if allowed is None else allowed
    return allowed is None or n_bytes <= max(allowed - _LIBRARIES, allowed / 2 if always is None else always)


def room(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array to be filled: in memory, or of what is large for a bounded fit in a file that ends with the array.

    The file has no name, and is in the folder of temporary files, `tempfile.gettempdir()`; its pages are the system's
    to write out and to read again.
    """
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    if not is_above(n_bytes / _IN_MEMORY):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="sklearn_icon") as file:
        try:
            if sys.platform == "linux":  # a disk that fills up later would end the process
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
        except OSError as error:
            raise OSError(
                error.errno,
                f"max_memory leaves {n_bytes / 1e9:.1f} GB of this fit to a temporary file in {tempfile.gettempdir()}, "
                f"which has no room for it ({error.strerror}); set TMPDIR to a folder of a larger disk",
            ) from error
        return np.memmap(file, dtype, "r+", shape=shape).view(np.ndarray)


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
