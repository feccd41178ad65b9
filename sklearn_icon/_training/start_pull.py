"""A pull of a map towards where it starts, which keeps the global arrangement of that."""

from typing import Any

import numpy as np
import torch

from ..learned import Learned


class StartPull:
    r"""R times a weight: the squared distance of a map from its start, where both have the map's width.

    ::

        R = mean_i |z_i - m - s r_i|^2 / (s^2 + h^2),     m = mean_i z_i,     s^2 = mean_i |z_i - m|^2

    r is the start, centred, with mean_i |r_i|^2 = 1, and h the kernel's width, below which a map is not pulled as hard.
    Of wide maps R = 2 - 2 rho, rho = mean_i <z_i - m, r_i> / s, whatever their scale. With g = s^2 + h^2,

        R = 2 s^2 (1 - rho) / g,     dR/dz_i = 2 / (n g) [ (2 - rho - R) (z_i - m) - s r_i ].

    A start in one place pulls nothing.
    """

    def __init__(self, start: np.ndarray, weight: float, learned: Learned, **like: Any) -> None:
        centred = start - start.mean(axis=0)
        width = np.sqrt((centred**2).sum(axis=1).mean())
        self.target = torch.as_tensor(centred / (width or 1.0), **like)
        self.weight = weight if width else 0.0
        at_zero = torch.zeros((), dtype=torch.float64)
        self.sq_width = -1 / float(learned.slope(at_zero)) if learned.smooth_at_zero else 1.0

    def __call__(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(weight R, its gradient), outside autograd."""
        with torch.no_grad():
            n, centred = len(z), z - z.mean(0)
            sq = centred.square().sum() / n
            width, g = sq.sqrt(), sq + self.sq_width
            rho = (centred * self.target).sum() / (n * width).clamp_min(torch.finfo(z.dtype).tiny)
            value = 2 * sq * (1 - rho) / g
            gradient = centred.mul_(2 - rho - value).sub_(width * self.target)
            return self.weight * value, gradient.mul_(2 * self.weight / (n * g))
