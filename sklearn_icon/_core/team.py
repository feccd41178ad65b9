"""How many threads compute: decided here, by the size of the work; and threads for compiled loops.

Torch counts its threads for each Python thread, BLAS for the whole process. The first is set and put back around a
piece of work; the second is held at the least that any work in progress asks for, and put back as the last one ends.

Compiled loops release the interpreter's lock and run in Python's own threads, not the compilers': these survive a
fork, nest in other threads, and wait without work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from threading import Lock, Thread
from typing import Any, TypeVar

import numpy as np
import torch
from joblib import effective_n_jobs

from .pools import library_threads

T = TypeVar("T")
_OF_NEW_THREADS = Lock()  # what torch hands to them is the process's, and read and put back as one
_SMALL = 1 << 20  # numbers; an operation on fewer takes less time than threads that wait for each other


@contextmanager
def threads(n_jobs: int | None = None, size: int | None = None) -> Iterator[None]:
    """Limit the threads of torch and of the numerical libraries inside, to `n_jobs` as in joblib; None: as many as now.

    `size` is how many numbers an operation of this work reads or writes, one after the other; None where it is one long
    operation. Short ones run in one thread: waiting for others at the end of each costs more than they bring, and on a
    busy machine many times more.
    """
    small = size is not None and size < _SMALL
    count = 1 if small else None if n_jobs is None else effective_n_jobs(n_jobs)
    with torch_threads(count), library_threads(count):  # torch first: it also tells MKL, which knows no other limit
        yield


def n_threads(n_jobs: int | None = None) -> int:
    """How many threads may compute in this Python thread now, of those that `n_jobs` asks for."""
    return torch.get_num_threads() if n_jobs is None else effective_n_jobs(n_jobs)


@contextmanager
def torch_threads(count: int | None = None) -> Iterator[None]:
    """Torch with so many threads in this Python thread; at the end as many as at the start, whoever changed it.

    Torch also hands the count to threads that are new to it; these go on having what they would have had.
    """
    before = torch.get_num_threads()
    changed = count is not None and count != before
    try:
        if count is not None and changed:
            _set_torch_threads(count)
        yield
    finally:
        if changed or torch.get_num_threads() != before:  # MKL's count is to follow, though that of OpenMP is back
            _set_torch_threads(before)


def _set_torch_threads(count: int) -> None:
    """Set the threads of this Python thread; those of threads that are new to torch stay as they are."""
    with _OF_NEW_THREADS:
        of_others = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        if of_others != count:
            _in_new_thread(lambda: torch.set_num_threads(of_others))


def _in_new_thread(function: Callable[[], Any]) -> Any:
    """What a function returns in a thread of its own."""
    returned = []
    thread = Thread(target=lambda: returned.append(function()))
    thread.start()
    thread.join()
    return returned[0]


def in_threads(function: Callable[[T], Any], items: Sequence[T], n_jobs: int | None = None) -> list:
    """What a function that releases the interpreter's lock returns of each item, in their order."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(n_threads(n_jobs)) as pool:
        return list(pool.map(function, items))


class Team:
    """As many threads as torch may use; the caller is one of them."""

    def __init__(self) -> None:
        self.size = n_threads()
        self._pool = ThreadPoolExecutor(max(self.size - 1, 1))  # starts threads as they are needed

    def run(self, function: Callable[..., Any], tasks: Sequence[tuple]) -> None:
        """Call function(*task) for each of at most `size` tasks."""
        others = [self._pool.submit(function, *task) for task in tasks[1:]]
        function(*tasks[0])
        for other in others:
            other.result()

    def split(self, count: int, size: int | None = None) -> list[slice]:
        """Slices of so many items, one a thread, or as many as are asked for."""
        size = size or self.size
        return [slice(count * t // size, count * (t + 1) // size) for t in range(size)]

    def split_by_weight(self, weights: np.ndarray) -> list[slice]:
        """Slices of as many items as there are weights, one a thread, whose weights sum to about the same."""
        sums = np.cumsum(weights)
        cuts = np.searchsorted(sums, sums[-1] * np.arange(1, self.size) / self.size)
        bounds = [0, *cuts, len(sums)]
        return [slice(start, stop) for start, stop in pairwise(bounds)]


def leaving_cores_to(team: Any) -> AbstractContextManager[None]:
    """Torch in one thread where a team (or None) works: its own threads, which spin as they wait, would take cores."""
    return torch_threads(1 if team else None)
