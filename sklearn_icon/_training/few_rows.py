"""Maps of few rows: several are unfolded side by side, and the one of least loss goes on.

Their losses have many minima, up to a fifth apart from one start to another, and steps of so few rows cost little.
"""

from typing import Any

import numpy as np
import torch

from .._objective.objective import Objective

_PAIRS = 200_000  # of all maps together, up to which operations cost about their calls alone
_LEAST_MAPS, _MOST_MAPS = 3, 10  # the fewest of up to three times as many pairs: two are no better than one
_NOISE = 1.0  # of the start's width


def n_side_by_side(objective: Objective, n_rows: int) -> int:
    """How many maps are unfolded side by side: one of many rows, or of an objective whose sums are others."""
    known = objective.is_plain_kl and objective.joint and objective.exclude_self and objective.learned.euclidean
    few = known and _LEAST_MAPS * n_rows**2 <= 3 * _PAIRS
    return int(np.clip(_PAIRS // n_rows**2, _LEAST_MAPS, _MOST_MAPS)) if few else 1


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

    def _sq_distances(self) -> torch.Tensor:
        sq = self.maps.square().sum(-1)
        return (sq[:, :, None] + sq[:, None] - 2 * self.maps @ self.maps.mT).clamp_min_(0)

    def losses(self) -> torch.Tensor:
        """KL of each map."""
        log_k = self.learned.log_kernel(self._sq_distances())
        attraction = (self.weights * log_k).sum((1, 2))
        log_k.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        return log_k.flatten(1).logsumexp(1) - attraction + self.constant

    def gradient(self, exaggeration: float, with_loss: bool) -> tuple[float | None, list[torch.Tensor]]:
        """(the least loss or None, [the gradient of each map, its attraction multiplied])."""
        sq = self._sq_distances()
        pull = self.weights * (exaggeration * self.learned.slope(sq))
        kernel, slope = self.learned.kernel_and_slope(sq, torch.empty_like(sq))
        for part in (kernel, slope):
            part.diagonal(dim1=1, dim2=2).fill_(0)
        total = kernel.sum((1, 2), keepdim=True).clamp_min(torch.finfo(kernel.dtype).tiny)
        push = slope.div_(total).sub_(pull)
        gradient = 4 * (push.sum(-1, keepdim=True) * self.maps - push @ self.maps)
        return float(self.losses().min()) if with_loss else None, [gradient]

    def best(self) -> torch.Tensor:
        """The map of least loss."""
        return self.maps[int(self.losses().nan_to_num(nan=torch.inf).argmin())].clone()
