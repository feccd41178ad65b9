"""Several heads in one representation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._base import Kernel

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor


class Heads(Kernel):
    r"""A product of cosine kernels, one for each of several heads, with temperatures of their own.

    ::

        q(j|i) ~ exp( sum_h cos(z_ih, z_jh) / tau_h ),     z_i = [z_i1 ... z_iH] in H blocks of columns

    A pair is near where the heads together say so; a head of high temperature says little. With one head it is
    `Gaussian(metric="cosine", tau=...)`.

    Parameters
    ----------
    taus : sequence of float, default=(0.1, 0.5)
        The temperature of each head.

    References
    ----------
    Wang et al., "Adaptive multi-head contrastive learning", ECCV 2024, which adds the losses of the heads up instead.

    Examples
    --------
    >>> from sklearn_icon.learned import Heads
    >>> Heads(taus=(0.1, 0.2, 1.0))
    Heads(taus=(0.1, 0.2, 1.0))
    """

    affinity = "cosine"
    scale_free = True
    _parameter_constraints = {"taus": ["array-like"]}

    def __init__(self, taus: Sequence[float] = (0.1, 0.5)) -> None:
        self.taus = taus

    def validate(self) -> Self:
        """Also check the temperatures; see `Spec.validate`."""
        super().validate()
        if not len(self.taus) or not all(1e-36 <= tau <= 1e36 for tau in self.taus):
            raise ValueError(f"taus={self.taus!r} must hold a positive temperature for each head, such as (0.1, 0.5).")
        return self

    def prepare(self, z: Tensor, keys: Tensor, degrees: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Unit blocks over the roots of their temperatures; see `Learned.prepare`."""
        rows = self._scaled(z)
        return rows, rows if keys is z else self._scaled(keys)

    def _scaled(self, z: Tensor) -> Tensor:
        import torch

        from .._core.unit_rows import unit_rows

        if z.shape[1] < len(self.taus):
            raise ValueError(f"{self} has {len(self.taus)} heads, but representations of {z.shape[1]} columns.")
        heads = zip(z.tensor_split(len(self.taus), dim=1), self.taus, strict=True)
        return torch.cat([unit_rows(head) * tau**-0.5 for head, tau in heads], dim=1)

    def paired(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log k of matching rows; see `Learned.paired`."""
        return (z * keys).sum(1)

    def pairwise(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log k of all pairs; see `Learned.pairwise`."""
        return z @ keys.T
