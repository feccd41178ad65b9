"""Maps of few rows: several are unfolded side by side, and the one of least loss goes on.

Their losses have many minima, up to a fifth apart from one start to another, and steps of so few rows cost little.
"""

from typing import Any

import numpy as np
import torch

from .._objective.normalizers import cauchy_sums_of_maps, pays_in_loops
from .._objective.objective import Objective

_PAIRS = 200_000  # of all maps together, up to which operations cost about their calls alone
_COMPILED_PAIRS = 1_000_000  # the same of compiled loops, at .8 ns a pair
_LEAST_MAPS, _MOST_MAPS = 3, 10  # the fewest of up to three times as many pairs: two are no better than one
_NOISE = 1.0  # of the start's width


def n_side_by_side(objective: Objective, z: torch.Tensor) -> int:
    """How many maps are unfolded side by side: one of many rows, or of an objective whose sums are others."""
    known = objective.is_plain_kl and objective.joint and objective.exclude_self and objective.learned.euclidean
    pairs = _COMPILED_PAIRS if pays_in_loops(objective.learned, z) else _PAIRS
    few = known and _LEAST_MAPS * len(z) ** 2 <= 3 * pairs
    return int(np.clip(pairs // len(z) ** 2, _LEAST_MAPS, _MOST_MAPS)) if few else 1


class SideBySide:
    """KL of several maps z of shape (n_maps, n, d) under the joint form, and its gradient.

    With P the weights, k the kernel, h the slope of its logarithm and f the exaggeration,
    dL/dz_i = 4 sum_j [ k'_ij / Z - f P_ij h_ij ] (z_i - z_j).
    """

    def __init__(self, objective: Objective, start: torch.Tensor, n_maps: int, random_state: np.random.RandomState):
        self.learned, self.constant = objective.learned, objective.constant
        kind: dict[str, Any] = {"dtype": start.dtype, "device": start.device}
        self.weights = torch.as_tensor(objective.weights.toarray(), **kind)
        noise = random_state.standard_normal((n_maps, *start.shape))
        noise[0] = 0
        self.maps = start.detach() + _NOISE * start.detach().std() * torch.as_tensor(noise, **kind)
        self.buffers = torch.empty(3, n_maps, len(start), len(start), **kind)

    def _sq_distances(self) -> torch.Tensor:
        sq = self.maps.square().sum(-1)
        products = torch.baddbmm(sq[:, None], self.maps, self.maps.mT, alpha=-2, out=self.buffers[0])
        return products.add_(sq[:, :, None]).clamp_min_(0)

    def losses(self) -> torch.Tensor:
        """KL of each map."""
        log_k = self.learned.log_kernel(self._sq_distances())
        attraction = (self.weights * log_k).sum((1, 2))
        log_k.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        return log_k.flatten(1).logsumexp(1) - attraction + self.constant

    def gradient(self, exaggeration: float, with_loss: bool) -> tuple[float | None, list[torch.Tensor]]:
        """(the least loss or None, [the gradient of each map, its attraction multiplied])."""
        gradient = self._by_loops(exaggeration) if pays_in_loops(self.learned, self.maps[0]) else None
        gradient = self._at_once(exaggeration) if gradient is None else gradient
        return float(self.losses().min()) if with_loss else None, [gradient]

    def _by_loops(self, exaggeration: float) -> torch.Tensor | None:
        """The gradients of all maps by compiled loops, or None where one is too wide for them."""
        pull, log_z, push = cauchy_sums_of_maps(self.maps, self.weights)
        return push.sub_(pull, alpha=exaggeration) if log_z.min() > -torch.inf else None

    def _at_once(self, exaggeration: float) -> torch.Tensor:
        """The gradients of all maps, by operations on all pairs of all maps in buffers: new ones cost as much again."""
        sq = self._sq_distances()
        pull = self._pull(sq, exaggeration)
        kernel, slope = self.learned.kernel_and_slope(sq, self.buffers[2])
        for part in (kernel, slope):
            part.diagonal(dim1=1, dim2=2).fill_(0)
        total = kernel.sum((1, 2), keepdim=True).clamp_min(torch.finfo(kernel.dtype).tiny)
        push = slope.addcmul_(pull, total, value=-1)  # symmetric, times Z
        columns = self.maps.mT
        pushed = torch.cat([columns, torch.ones_like(columns[:, :1])], dim=1) @ push
        return (pushed[:, -1:] * columns - pushed[:, :-1]).mT * (4 / total)

    def _pull(self, sq: torch.Tensor, exaggeration: float) -> torch.Tensor:
        """f P h of all pairs."""
        if self.learned.slope_terms is None or not self.learned.slope_terms[1]:
            return self.weights * (exaggeration * self.learned.slope(sq))
        a, b, c = self.learned.slope_terms
        factor = exaggeration * c
        return torch.mul(sq, b / factor, out=self.buffers[1]).add_(a / factor).reciprocal_().mul_(self.weights)

    def best(self) -> torch.Tensor:
        """The map of least loss."""
        return self.maps[int(self.losses().nan_to_num(nan=torch.inf).argmin())].clone()
