"""The threads of the libraries that NumPy, scipy and scikit-learn compute with; without torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
        self._before: Any = None

    @contextmanager
    def limited(self, count: int | None) -> Iterator[None]:
        """At most so many inside; None asks for nothing, but has the count of now put back at the end."""
        asked = [count]  # an entry of its own, found again by identity
        try:
            with self._lock:
                if not self._wanted:
                    self._before = _pools("blas").limit(limits=None)
                self._wanted.append(asked)
                self._apply()
            yield
        finally:
            with self._lock:
                self._wanted = [other for other in self._wanted if other is not asked]
                self._apply()

    def _apply(self) -> None:
        asked = [count for (count,) in self._wanted if count is not None]
        if asked:
            _pools("blas").limit(limits=min(asked))
        else:
            self._before.restore_original_limits()


_BLAS = _Blas()


def _pools(user_api: str) -> Any:
    """The thread pools of an interface, "blas" or "openmp", of the libraries that are loaded."""
    return _loaded(user_api, "torch" in sys.modules)


@cache
def _loaded(user_api: str, with_torch: bool) -> Any:
    """Those of an interface, found once, and once more after torch has brought its own."""
    import scipy.linalg  # noqa: F401
    import sklearn.cluster  # noqa: F401

    return ThreadpoolController().select(user_api=user_api)


@contextmanager
def library_threads(count: int | None) -> Iterator[None]:
    """At most so many threads of BLAS, of the process, and of OpenMP, of this Python thread, inside; None: as now."""
    openmp = nullcontext() if count is None else _pools("openmp").limit(limits=count)
    with _BLAS.limited(count), openmp:
        yield
