"""Compiled loops, kept on disk between processes wherever a folder for them can be written."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from threading import RLock
from typing import Any

import numba

_LOCK = RLock()


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with a cache on disk."""
    return lambda function: with_cache(lambda: numba.njit(cache=True, **options)(function))


def with_cache(make: Callable[[], Any]) -> Any:
    """What `make` returns, which defines functions that numba is to cache, ours or another library's.

    Where numba finds no folder that it may write, it has one that goes with the process.
    """
    with _LOCK:
        try:
            return make()
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = _folder_of_this_process()
        try:
            return make()
        finally:
            numba.config.CACHE_DIR = before


@cache
def _folder_of_this_process() -> str:
    """A folder for compiled code that goes with the process; made once, with a warning."""
    path = tempfile.mkdtemp(prefix="sklearn_icon-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    warnings.warn(
        "compiled loops cannot be kept on disk, as neither the folder of the package nor the user's cache folder can "
        "be written: every process compiles them anew, which takes some seconds. Set the environment variable "
        "NUMBA_CACHE_DIR to a folder that can be written.",
        RuntimeWarning,
        stacklevel=2,
    )
    return path
