"""p as a checkpoint keeps it, so that neighbours are searched once."""

from __future__ import annotations

from collections.abc import Callable

from .._core.conditional import Conditional
from .._core.journal import current, recalled
from .neighbors import Neighbors


def recalled_p(compute: Callable[[], Conditional]) -> Conditional:
    """What `compute` gives, or gave before, as a journal tells."""
    if current() is None:
        return compute()

    def parts() -> list:
        p = compute()
        found = None if p.neighbors is None else list(p.neighbors)
        return [p.weights, p.uniform, p.exclude_self, p.degrees, p.recall, found, p.first, p.weighs_rows]

    weights, uniform, exclude_self, degrees, recall, found, first, weighs = recalled("p", parts, of_rows=True)
    neighbors = None if found is None else Neighbors(*found)
    return Conditional(weights, uniform, exclude_self, degrees, recall, neighbors, first, weighs)
