"""Sums of a kernel of a power over all pairs of a map in a plane, by a compiled loop in single precision.

    Phi_c(z_i) = sum_j c_j k(|z_i - z_j|^2),     k(s) = 1 / (c + a (s + e)^b)

A power takes a logarithm and an exponential, which a processor has not got for several numbers at once; here they are
short series, of an error below that of single precision.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial

from .._core.types import Array

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
        if not np.isfinite(float((z.amax(0) - z.amin(0)).square().sum())):
            raise FloatingPointError("the map has outgrown its precision")
        return z.detach().T.float().contiguous().numpy()

    def potential(self, place: Array, charges: Tensor) -> tuple[Tensor, Tensor]:
        """Potential, shape (n,), and its gradient, shape (n, 2), at the points themselves."""
        from .loops import power_pairs

        terms: Any = self.learned.power_terms
        a, b, c, e = map(np.float32, terms)
        out = np.zeros((3, place.shape[1]), np.float32)
        power_pairs(place, charges.detach().float().numpy(), e, (a, b, c), power_series(), out)
        sums = torch.from_numpy(out).to(charges.dtype)
        return sums[0], sums[1:].T
