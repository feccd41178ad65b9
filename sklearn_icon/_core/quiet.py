"""Warnings of libraries that are no news to users, left out while others' stay."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

_LOCK = Lock()
_IN_USE: dict[tuple, int] = {}


@contextmanager
def quiet(message: str = "", category: type[Warning] = Warning, module: str = "") -> Iterator[None]:
    """Leave out warnings that match inside.

    The filters are the process's, and `warnings.catch_warnings` puts back those that it found, which in several
    threads are those of another. Here a filter of our own is added, and taken away as the last that needs it ends.
    """
    item = "ignore", re.compile(message, re.IGNORECASE), category, re.compile(module), 0
    with _LOCK:
        filters: Any = warnings.filters
        _IN_USE[item] = _IN_USE.get(item, 0) + 1
        if item not in filters:
            filters.insert(0, item)
    try:
        yield
    finally:
        with _LOCK:
            _IN_USE[item] -= 1
            if not _IN_USE[item]:
                del _IN_USE[item]
                filters = warnings.filters
                if item in filters:
                    filters.remove(item)
