"""Losses that tell pairs one by one, of a map in a plane, by compiled loops over all pairs.

With the Cauchy kernel k = 1 / (1 + s), s = |z_i - z_j|^2, and v = k / (k + c) = 1 / (a + b s),

    L = mean_i [ -sum_j p(j|i) log v_ij  -  m mean_j log(1 - v_ij) ],     a, b = 1 + c, c, or 1, 1 where c is zero.

Its attraction is that of a Student-t kernel of a / b degrees of freedom. Where c is the one that is best for the map,
the loss's derivative by it is zero, and the gradient is that of a constant c.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._core import journal
from .._core.group import group
from ..learned import StudentT
from .attraction import symmetric_edges
from .normalizers import pays_in_loops, plane

if TYPE_CHECKING:
    from torch import Tensor

_NEWTON_STEPS, _NEAR = 50, 1e-6  # of log c, which float32 holds no nearer


class PairsTold:
    """L and its gradient; the edges of p are those of an objective whose rows all weigh the same."""

    def __init__(self, objective: Any, n_components: int) -> None:
        self.n, self.weights = objective.n_rows, objective.weights
        self.n_negatives, self.noise, self.short = objective.learned.told_terms
        symmetric = (self.weights + self.weights.T) * (0.5 / self.n)
        self.edges = symmetric_edges(symmetric.tocsr(), StudentT(), objective.dtype, objective.device, n_components)
        self.log_c = 0.0

    def remember(self) -> None:
        """Let a journal keep where the search for c goes on from."""
        journal.remember_fields(self, "log_c")

    def serves(self, exaggeration: float) -> bool:
        """Not beside an exaggeration where c is the best one, of which that changes the derivative."""
        return exaggeration == 1 or self.noise is not None

    def gradient(self, z: Tensor, exaggeration: float, with_value: bool) -> tuple[float | None, Tensor]:
        """(L or None, its gradient with the attraction multiplied)."""
        z = z.detach()
        c = self.noise if self.noise is not None else self._best_noise(z)
        a, b = (1 + c, c) if c else (1.0, 1.0)
        near = StudentT(df=a / b)
        factor = 2 / (a / b + 1)  # log k of it to log v
        value, pull = self.edges.sum_and_gradient(near, z, with_value)
        repulsion, push = self._repulsion(z, (a, b, c), with_value)
        gradient = push - exaggeration * factor * pull
        return repulsion + log(a) - factor * value if value is not None else None, gradient

    def _repulsion(self, z: Tensor, terms: tuple[float, float, float], with_value: bool) -> tuple[float, Tensor]:
        """The part of all pairs, zero where it is not wanted, and its gradient."""
        from .loops import told_apart

        a, b, c = terms
        number, out = z.new_zeros(()).numpy().dtype.type, z.new_empty(self.n, 3)
        least = 1 - self.short
        told_apart(*plane(z), (number(a), number(b), number(c + self.short)), with_value, out.numpy())
        per_pair = self.n_negatives / (self.n * (self.n - 1))
        value = -per_pair * float(out[:, 2].sum(dtype=torch.float64))
        return value, out[:, : z.shape[1]] * (-4 * per_pair * least * b)

    def _best_noise(self, z: Tensor) -> float:
        """The c at which as many pairs are taken for neighbours as are, by Newton's method on its logarithm."""
        from .loops import sums_told

        x, y = plane(z)
        edges = self.weights.indptr, self.weights.indices, self.weights.data.astype(x.dtype)
        drawn = self.n_negatives / (self.n - 1)
        for _ in range(_NEWTON_STEPS):
            c = float(np.exp(self.log_c))
            v, slope, of_edges, slope_of_edges = sums_told(x, y, edges, (x.dtype.type(1 + c), x.dtype.type(c)))
            excess, curvature = self.n - of_edges - drawn * v, drawn * slope + slope_of_edges
            step = float(np.clip(excess / max(curvature, 1e-30), -2, 2))
            self.log_c -= step
            if abs(step) < _NEAR:
                break
        return float(np.exp(self.log_c))


def pairs_told(objective: Any, z: Tensor) -> PairsTold | None:
    """Compiled loops for an objective, where its loss is told pair by pair and they take less than torch."""
    if objective.learned.told_terms is None or group().several:
        return None
    mass = objective.row_mass
    alike = objective.is_plain_kl and objective.exclude_self and bool((mass == mass[0]).all())
    rows_are_keys = objective.n_rows == objective.n_keys and objective.drawn is None
    if not (alike and rows_are_keys and pays_in_loops(StudentT(), z)):
        return None
    return PairsTold(objective, z.shape[1])
