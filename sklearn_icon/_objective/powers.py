"""Sums of a kernel of a power over all pairs of a map in a plane, by a compiled loop in single precision.

    Phi_c(z_i) = sum_j c_j k(|z_i - z_j|^2),     k(s) = 1 / (c + a (s + e)^b)

A power takes a logarithm and an exponential, which a processor has not got for several numbers at once; here they are
short series, of an error below that of single precision.
"""

from __future__ import annotations

from functools import cache
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from scipy import sparse

from .._core.types import Array
from .grid import FLOOR

if TYPE_CHECKING:
    from torch import Tensor

    from ..learned import DistanceKernel


@cache
def power_series() -> tuple[tuple, tuple]:
    """Coefficients of log2(1 + f) / f and of 2^f, f from zero to one."""
    nodes = (1 + np.cos(np.pi * (np.arange(200) + 0.5) / 200)) / 2
    logs = Chebyshev.fit(nodes, np.log2(1 + nodes) / nodes, 7, domain=[0, 1])
    exps = Chebyshev.fit(nodes, 2.0**nodes, 5, domain=[0, 1])
    first, second = (tuple(map(np.float32, series.convert(kind=Polynomial).coef)) for series in (logs, exps))
    return first, second


class PowerPotential:
    """Potentials of a kernel with `power_terms`, of points in a plane on the CPU."""

    team = None

    def __init__(self, learned: DistanceKernel) -> None:
        self.learned = learned

    def of(self, learned: DistanceKernel) -> PowerPotential:
        """The same of another kernel."""
        return PowerPotential(learned)

    def rough(self) -> PowerPotential:
        """Itself."""
        return self

    def fine(self) -> PowerPotential:
        """Itself."""
        return self

    def place(self, z: Tensor) -> Array:
        """The points. A FloatingPointError where they span more than their precision can hold."""
        return np.ascontiguousarray(within_precision(z).T, dtype=np.float32)

    def potential(self, place: Array, charges: Tensor) -> tuple[Tensor, Tensor]:
        """Potential, shape (n,), and its gradient, shape (n, 2), at the points themselves."""
        from .loops import power_pairs

        terms: Any = self.learned.power_terms
        a, b, c, e = map(np.float32, terms)
        out = np.zeros((3, place.shape[1]), np.float32)
        power_pairs(place, charges.detach().float().numpy(), e, (a, b, c), power_series(), out)
        sums = torch.from_numpy(out).to(charges.dtype)
        return sums[0], sums[1:].T


class PowerMap:
    """KL in the joint form of a map in a plane, and its gradient by one call of compiled loops."""

    def __init__(self, objective: Any) -> None:
        self.objective, once = objective, sparse.triu(objective.weights, 1, "csr")
        self.edges = once.indptr, once.indices, once.data.astype(np.float32)

    def remember(self) -> None:
        """No state goes from step to step."""

    def serves(self, exaggeration: float) -> bool:
        """Always."""
        return True

    def gradient(self, z: Tensor, exaggeration: float, with_value: bool) -> tuple[float | None, Tensor]:
        """(L or None, its gradient with the attraction multiplied); with L it tells of a map that spans too much."""
        from .loops import power_map

        learned, gradient = self.objective.learned, torch.empty_like(z)
        points = within_precision(z) if with_value else z.detach().numpy()
        a, b, c, e = map(np.float32, learned.power_terms)
        factors = np.float32(exaggeration), e, FLOOR * len(z)
        total = power_map(points, self.edges, factors, (a, b, c), power_series(), gradient.numpy())
        if not with_value:
            return None, gradient
        attraction = self.objective.edges.sum_and_gradient(learned, z.detach())[0]
        return log(total) - attraction + self.objective.constant, gradient


def within_precision(z: Tensor) -> Array:
    """The points as an array. A FloatingPointError where they span more than their precision can hold."""
    z = z.detach()
    if not np.isfinite(float((z.amax(0) - z.amin(0)).square().sum())):
        raise FloatingPointError("the map has outgrown its precision")
    return z.numpy()


def power_map(objective: Any) -> PowerMap | None:
    """One call of compiled loops for an objective whose potential they sum, in the joint form and single precision."""
    joint = objective.is_plain_kl and objective.joint and objective.exclude_self
    return PowerMap(objective) if joint and objective.dtype == torch.float32 else None
