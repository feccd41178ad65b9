"""Limits of the Gaussian kernel as its width grows or shrinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import DistanceKernel

if TYPE_CHECKING:
    from torch import Tensor


class WideGaussian(DistanceKernel):
    r"""The Gaussian exp(-d^2 / s^2) as s grows: the cohesion-variance loss, the q of PCA and VICReg.

    ::

        s^2 (L(s) - log N)  ->  mean_i [ sum_j p(j|i) d_ij^2  -  mean_j d_ij^2 ]

    The second term is -2 Var where every row is a key. A uniform mass a on p, over the same keys, leaves (1 - a) times
    the loss. A limit of scaled losses, not a distribution: it works with divergence="kl" and without a uniform mixture
    on q. It falls without bound as rows spread, so that networks' representations are scaled to unit length, and a
    linear encoder must be orthonormal.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, appendix on dimensionality reduction.

    Examples
    --------
    >>> from sklearn_icon.learned import WideGaussian
    >>> WideGaussian()
    WideGaussian()
    """

    euclidean = False
    is_limit = True
    centred = True

    def log_kernel(self, sq_distance: Tensor) -> Tensor:
        """-d^2."""
        return -sq_distance

    def log_partition(self, log_kernel: Tensor, n_choices: int) -> Tensor:
        """-mean_j d_ij^2; excluded keys hold -inf."""
        return log_kernel.masked_fill(log_kernel.isneginf(), 0).sum(1) / n_choices


class NarrowGaussian(DistanceKernel):
    r"""The Gaussian exp(-d^2 / s^2) as s shrinks: the zero-margin triplet loss.

    ::

        s^2 L(s)  ->  mean_i [ sum_j p(j|i) d_ij^2  -  min_k d_ik^2 ]

    A uniform mass a on p adds a mean_j d_ij^2 to (1 - a) times the first term. A limit of scaled losses, not a
    distribution: it works with divergence="kl" and without a uniform mixture on q. It falls as all rows shrink, so that
    networks' representations are scaled to unit length.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, appendix on contrastive learning.

    Examples
    --------
    >>> from sklearn_icon.learned import NarrowGaussian
    >>> NarrowGaussian()
    NarrowGaussian()
    """

    euclidean = False
    is_limit = True

    def log_kernel(self, sq_distance: Tensor) -> Tensor:
        """-d^2."""
        return -sq_distance

    def log_partition(self, log_kernel: Tensor, n_choices: int) -> Tensor:
        """-min_j d_ij^2."""
        return log_kernel.amax(dim=1)
