"""Searches for neighbours that several fits of the same rows share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import joblib
import numpy as np

from .._core.types import Metric
from .search import Neighbors


class _Current(threading.local):
    found: dict | None = None


_CURRENT = _Current()


@contextmanager
def sharing_searches() -> Iterator[None]:
    """Let fits inside, in this thread, search the neighbours of the same rows by the same metric once."""
    before, _CURRENT.found = _CURRENT.found, {}
    try:
        yield
    finally:
        _CURRENT.found = before


def shared(X: Any, how: tuple[Metric, Any], k: int, search: Callable[[bool], Neighbors], ranked: bool) -> Neighbors:
    """What a search gives, which is told whether to rank; or the k nearest of what was found before.

    `how` is the metric, a name or a function, and its parameters. Where a row has others as far as its k-th neighbour
    it is searched anew, as these are drawn among.
    """
    if _CURRENT.found is None:
        return search(ranked)
    key = joblib.hash(X), how[0], joblib.hash(how[1])  # functions need not pickle
    found = _CURRENT.found.get(key)
    if found is None or not _holds(found.distances, k):
        found = search(True)
        if key not in _CURRENT.found or k > _CURRENT.found[key].indices.shape[1]:
            _CURRENT.found[key] = found
    return found._replace(indices=found.indices[:, :k].copy(), distances=found.distances[:, :k].copy())


def _holds(distances: np.ndarray, k: int) -> bool:
    n_found = distances.shape[1]
    return k == n_found or bool(k < n_found and (distances[:, k - 1] < distances[:, k]).all())
