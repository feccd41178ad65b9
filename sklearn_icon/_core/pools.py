"""The threads of the libraries that NumPy, scipy and scikit-learn compute with; without torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController


def blas_in_one_thread() -> AbstractContextManager[None]:
    """Limit BLAS to one thread inside, as threads of a caller's own multiply."""
    return _BLAS.limited(1)


class _Blas:
    """The threads of BLAS, which are the process's: as few as any work in progress asks for."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._wanted: list[list[int | None]] = []
        self._before: list[tuple[Any, int]] = []

    @contextmanager
    def limited(self, count: int | None) -> Iterator[None]:
        """At most so many inside; None asks for nothing, but has the count of now put back at the end."""
        asked = [count]  # an entry of its own, found again by identity
        try:
            with self._lock:
                if not self._wanted:
                    self._before = _counts("blas")
                self._wanted.append(asked)
                self._apply()
            yield
        finally:
            with self._lock:
                self._wanted = [other for other in self._wanted if other is not asked]
                self._apply()

    def _apply(self) -> None:
        asked = [count for (count,) in self._wanted if count is not None]
        _set([(library, min(asked)) for library in _pools("blas")] if asked else self._before)


_BLAS = _Blas()


def _counts(user_api: str) -> list[tuple[Any, int]]:
    """The libraries of an interface, and the threads of each."""
    return [(library, library.num_threads) for library in _pools(user_api)]


def _set(counts: list[tuple[Any, int]]) -> None:
    """Give libraries so many threads where they have others; `ThreadpoolController.limit` takes longer to do so.

    From threadpoolctl 3.8 on the first Python thread that sets those of OpenBLAS is the only one that can, until it is
    released: here all may, and nobody is kept from it.
    """
    for library, count in counts:
        if library.num_threads != count:
            release = getattr(library, "clear_controlling_thread", lambda force: None)
            release(force=True)
            library.set_num_threads(count)
            release(force=True)


def _pools(user_api: str) -> Any:
    """The libraries that are loaded and have a thread pool of an interface, "blas" or "openmp"."""
    return _loaded(user_api, "torch" in sys.modules)


@cache
def _loaded(user_api: str, with_torch: bool) -> Any:
    """Those of an interface, found once, and once more after torch has brought its own."""
    import scipy.linalg  # noqa: F401
    import sklearn.cluster  # noqa: F401

    return ThreadpoolController().select(user_api=user_api).lib_controllers


@contextmanager
def library_threads(count: int | None) -> Iterator[None]:
    """At most so many threads of BLAS, of the process, and of OpenMP, of this Python thread, inside; None: as now."""
    with _BLAS.limited(count):
        if count is None:
            yield
            return
        before = _counts("openmp")
        try:
            _set([(library, count) for library, _ in before])
            yield
        finally:
            _set(before)
