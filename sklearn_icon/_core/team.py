"""Threads for compiled loops that release the interpreter's lock.

Python's own threads, not the compilers': they survive a fork, nest in other threads, and wait without work.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch


class Team:
    """As many threads as torch may use; the caller is one of them."""

    def __init__(self):
        self.size = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(max(self.size - 1, 1))  # starts threads as they are needed

    def run(self, function, tasks):
        """Call function(*task) for each of at most `size` tasks."""
        others = [self._pool.submit(function, *task) for task in tasks[1:]]
        function(*tasks[0])
        for other in others:
            other.result()

    def shares(self, weights, size=None):
        """Slices of as many items as there are weights, one a thread, whose weights sum to about the same.

        A number stands for so many equal weights.
        """
        size = size or self.size
        if isinstance(weights, int):
            return [slice(weights * t // size, weights * (t + 1) // size) for t in range(size)]
        sums = np.cumsum(weights)
        cuts = np.searchsorted(sums, sums[-1] * np.arange(1, size) / size)
        bounds = [0, *cuts, len(sums)]
        return [slice(start, stop) for start, stop in pairwise(bounds)]


@contextmanager
def alone(team):
    """Torch in one thread where a team (or None) works: its own threads, which spin as they wait, would take cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if team else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
