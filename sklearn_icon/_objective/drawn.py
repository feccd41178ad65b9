"""Sums of a kernel over all pairs of a map of any number of dimensions, estimated from drawn keys.

    Phi_c(z_i) = sum_j c_j k_ij  ~  c_i + sum_{j near i} c_j k_ij + (n - 1) / m sum_{j drawn, not near i} c_j k_ij

Near keys, those that p relates to a row, have the largest kernels, and are summed one and all: what is estimated varies
little, and the time is linear in the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._core.group import group
from .._core.team import Team
from .._core.types import Array

if TYPE_CHECKING:
    from scipy import sparse
    from torch import Tensor

    from ..learned import DistanceKernel

_KEYS = 1000  # drawn at each call
_CHECKED = 5000  # rows whose sums over all keys correct the others', where the loss is reported


class DrawnPotential:
    """Potentials of a kernel that compiled loops know, by keys drawn anew at each call.

    near has each row's near keys as its entries, of ranks those of their own rows. With `checked` all sums are
    multiplied by what makes the total of some rows exact.
    """

    def __init__(
        self,
        learned: DistanceKernel,
        near: sparse.csr_array,
        rng: np.random.RandomState,
        team: Team | None = None,
        checked: bool = False,
    ) -> None:
        self.learned, self.near, self.rng, self.checked = learned, near, rng, checked
        self.team = Team() if team is None else team

    def of(self, learned: DistanceKernel) -> DrawnPotential:
        """The same of another kernel."""
        return DrawnPotential(learned, self.near, self.rng, self.team)

    def rough(self) -> DrawnPotential:
        """Itself."""
        return self

    def fine(self) -> DrawnPotential:
        """For the loss that is reported."""
        return DrawnPotential(self.learned, self.near, self.rng, self.team, True)

    def place(self, z: Tensor) -> Array:
        """The points. A FloatingPointError where they span more than their precision can hold."""
        if not np.isfinite(float((z.amax(0) - z.amin(0)).max())):
            raise FloatingPointError("the map has outgrown its precision")
        return np.ascontiguousarray(z.detach().numpy())

    def potential(self, place: Array, charges: Tensor) -> tuple[Tensor, Tensor]:
        """Potential, shape (n,), and its gradient, shape (n, d), at the points themselves."""
        sums = self._estimates(place, charges.detach().numpy(), slice(0, len(place)))
        return torch.from_numpy(sums[:, 0]), torch.from_numpy(sums[:, 1:])

    def at(self, z: Tensor, own: slice) -> tuple[float, slice, Tensor]:
        """See `GridPotential.at`; all ranks draw the same keys."""
        sums = self._estimates(self.place(z), np.ones(len(z), dtype=z.numpy().dtype), own)
        return group().total(float(sums[:, 0].sum(dtype=np.float64))), own, torch.from_numpy(sums[:, 1:])

    def _estimates(self, place: Array, charges: Array, own: slice) -> Array:
        """(Phi, its gradient) at the points of this rank."""
        n, ranks = len(place), group()
        keys = np.sort(self.rng.choice(n, min(_CHECKED if self.checked else _KEYS, n), replace=False))
        sums = self._sums(place, charges, keys, np.arange(own.start, own.stop))
        if self.checked:
            here = keys[(keys >= own.start) & (keys < own.stop)]
            exact = self._sums(place, charges, np.arange(n), here)[:, 0] - charges[here]
            found = sums[here - own.start, 0] - charges[here]
            both = ranks.total(np.array([exact.sum(dtype=np.float64), found.sum(dtype=np.float64)]))
            ratio = both[0] / max(both[1], np.finfo(np.float32).tiny)
            sums[:, 0] = charges[own] + (sums[:, 0] - charges[own]) * ratio
        return sums

    def _sums(self, z: Array, charges: Array, keys: Array, rows: Array) -> Array:
        """(Phi, its gradient) of rows, from some keys."""
        from .tree_loops import estimates

        terms: Any = self.learned.slope_terms
        kernel, is_drawn = tuple(z.dtype.type(term) for term in terms), np.zeros(len(z), dtype=bool)
        is_drawn[keys] = True
        out = np.empty((len(rows), 1 + z.shape[1]), dtype=z.dtype)
        about = (z, charges, (keys, is_drawn), (self.near.indptr, self.near.indices))
        parts = self.team.split(len(rows))
        self.team.run(estimates, [(*about, rows[part], kernel, out[part]) for part in parts])
        return out
