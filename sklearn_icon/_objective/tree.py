"""Sums of a kernel over all pairs of a 3-D map, by a tree of its points (Barnes and Hut, Nature 1986).

    Phi_c(x) = sum_j c_j k(|x - z_j|^2).

Points far from x count as one at their mean: nodes of a balanced tree whose radius is below `angle` times their
distance from the rows that they act on. Rows of a leaf share one list of nodes and points, over which a compiled loop
sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from .._core.group import group
from .._core.team import Team

if TYPE_CHECKING:
    from torch import Tensor

    from ..learned import DistanceKernel

_LEAF = 32  # points of a leaf at the most
_ROUGH, _MOST_ROUGH = 1.6, 0.9  # times the angle, and at the most, in steps for which a rough gradient will do
_FINE_ANGLE = 0.06  # for the reported loss


class Tree:
    """Points in a balanced tree of halves at medians, sorted by leaf."""

    def __init__(self, z: Tensor, team: Team) -> None:
        from .tree_loops import halve

        points = z.detach().numpy()
        self.team, n = team, len(points)
        self.depth = max(0, int(np.ceil(np.log2(max(n, 1) / _LEAF))))
        self.order, self.bounds = np.arange(n), np.zeros((2 ** (self.depth + 1) - 1, 2), dtype=np.int64)
        self.bounds[0, 1], last = n, len(self.bounds) - 1
        shared = min(self.depth, (team.size - 1).bit_length())  # levels, below which each thread has nodes of its own
        first = 2**shared - 1
        halve(points, self.order, self.bounds, 0, 1, 2 * first)
        parts = [(first + part.start, first + part.stop) for part in team.split(first + 1)]
        team.run(halve, [(points, self.order, self.bounds, *part, last) for part in parts])
        self.z = points[self.order]

    def potential(self, charges: Tensor, kernel: tuple, angle: float) -> tuple[Tensor, Tensor]:
        """(Phi_c, its gradient) at the points."""
        rows, out = self.sums(charges, kernel, angle, 0, 1)
        unsorted = np.empty_like(out)
        unsorted[rows] = out
        return torch.from_numpy(unsorted[:, 0]), torch.from_numpy(unsorted[:, 1:])

    def sums(self, charges: Tensor, kernel: tuple, angle: float, part: int, n_parts: int) -> tuple[np.ndarray, Any]:
        """(points, (Phi_c, its gradient) there), of one of some parts of the leaves."""
        from .tree_loops import potentials, summarise

        number, of_points, n_nodes = self.z.dtype.type, charges.detach().numpy()[self.order], len(self.bounds)
        centre, about = np.empty((n_nodes, self.z.shape[1]), self.z.dtype), np.empty((n_nodes, 2), self.z.dtype)
        tree = (self.z, of_points, self.bounds, centre, about)
        parts = self.team.split_by_weight(np.diff(self.bounds)[:, 0])
        self.team.run(summarise, [(*tree, part.start, part.stop) for part in parts])
        first, out = 2**self.depth - 1, np.empty((len(self.z), 1 + self.z.shape[1]), self.z.dtype)
        start, stop = (first + (n_nodes - first) * p // n_parts for p in (part, part + 1))
        split = self.team.split(stop - start)
        leaves = [(first, start + p.start, start + p.stop, number(angle)) for p in split]
        terms = tuple(number(term) for term in kernel)
        self.team.run(potentials, [(*tree, part, terms, out) for part in leaves])
        here = slice(*(self.bounds[start, 0], self.bounds[stop - 1, 1]) if start < stop else (0, 0))
        return self.order[here], out[here]


class TreePotential:
    """Potentials of a kernel that compiled loops know; its threads may be those of another."""

    rng: Any = None

    def __init__(self, learned: DistanceKernel, team: Team | None = None, angle: float = 0.5) -> None:
        self.learned, self.angle = learned, angle
        self.team = Team() if team is None else team

    def of(self, learned: DistanceKernel) -> TreePotential:
        """The same of another kernel."""
        return TreePotential(learned, self.team, self.angle)

    def rough(self) -> TreePotential:
        """At half the time."""
        return TreePotential(self.learned, self.team, min(_ROUGH * self.angle, max(self.angle, _MOST_ROUGH)))

    def fine(self) -> TreePotential:
        """For the loss that is reported."""
        return TreePotential(self.learned, self.team, min(self.angle, _FINE_ANGLE))

    def place(self, z: Tensor) -> Tree:
        """The points in a tree. A FloatingPointError where they span more than their precision can hold."""
        if not np.isfinite(float((z.amax(0) - z.amin(0)).max())):
            raise FloatingPointError("the map has outgrown its precision")
        return Tree(z, self.team)

    def potential(self, place: Tree, charges: Tensor) -> tuple[Tensor, Tensor]:
        """Potential, shape (n,), and its gradient, shape (n, d), at the points themselves."""
        terms: Any = self.learned.slope_terms
        return place.potential(charges, terms, self.angle)

    def at(self, z: Tensor, own: slice) -> tuple[float, np.ndarray, Tensor]:
        """See `GridPotential.at`; here a rank has a part of the leaves."""
        ranks, terms = group(), cast(tuple, self.learned.slope_terms)
        rows, sums = self.place(z).sums(torch.ones_like(z[:, 0]), terms, self.angle, ranks.rank, ranks.size)
        return ranks.total(float(sums[:, 0].sum(dtype=np.float64))), rows, torch.from_numpy(sums[:, 1:])
