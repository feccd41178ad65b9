"""Limits of the Gaussian kernel as its width grows or shrinks."""

from __future__ import annotations

from math import log
from numbers import Real
from typing import TYPE_CHECKING

from sklearn.utils._param_validation import Interval

from .._core.spec import answer, of_base
from ._base import CAUCHY, DistanceKernel, Learned

if TYPE_CHECKING:
    from torch import Tensor

_SHORT = 1e-3  # of one, at zero distance, so that rows on top of each other are pushed by no more than a bound


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
    is_unbounded = True
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


class SpectralContrast(Learned):
    r"""The spectral contrastive loss, whose minimisers span the leading eigenvectors of p as a graph.

    ::

        mean_i [ -2 sum_j p(j|i) z_i . z_j  +  mean_j (z_i . z_j)^2 ]

    The second-order part of KL against exp(2 z_i . z_j), a limit of losses and no distribution: it works with
    divergence="kl", normalization="conditional" and without a uniform mixture on q. Of two views it is
    `|C - 1|^2` of their cross-moments C, up to a constant: Barlow Twins where both of its terms weigh the same.

    References
    ----------
    HaoChen et al., "Provable guarantees for self-supervised deep learning with spectral contrastive loss", NeurIPS
    2021, eq. 6.

    Examples
    --------
    >>> from sklearn_icon.learned import SpectralContrast
    >>> SpectralContrast()
    SpectralContrast()
    """

    is_limit = True
    unbounded = False
    affinity = "dot"

    def paired(self, z: Tensor, keys: Tensor) -> Tensor:
        """2 z . y of matching rows; see `Learned.paired`."""
        return 2 * (z * keys).sum(1)

    def pairwise(self, z: Tensor, keys: Tensor) -> Tensor:
        """2 z . y of all pairs; see `Learned.pairwise`."""
        return 2 * z @ keys.T

    def log_partition(self, log_kernel: Tensor, n_choices: int) -> Tensor:
        """mean_j (z . y)^2; excluded keys hold -inf."""
        return log_kernel.masked_fill(log_kernel.isneginf(), 0).square().sum(1) / (4 * n_choices)


class NegativeSampling(Learned):
    r"""The expected loss of telling neighbours from drawn rows, pair by pair: the loss of UMAP and of Neg-t-SNE.

    ::

        mean_i [ -sum_j p(j|i) log v_ij  -  m mean_j log(1 - v_ij) ],     v = k / (k + c)

    with k the kernel of `base`, and v = k where c is zero. No row's q is normalised: each pair is told on its own.
    Fewer negatives pull the map together, more push it apart, as `late_exaggeration` of `ICONEmbedding` does the other
    way: c -> infinity leaves SNE's attraction beside the sum of all kernels. It works with divergence="kl",
    normalization="conditional" and without a uniform mixture on q.

    Parameters
    ----------
    base : Learned
        A kernel no greater than one, such as `Rational()` or `StudentT()`.
    n_negatives : float, default=5.0
        The number m of rows drawn for each neighbour.
    noise : float, default=0.0
        The number c: 0 in UMAP, 1 in Neg-t-SNE.

    References
    ----------
    McInnes, Healy and Melville, "UMAP", arXiv 1802.03426; Damrich et al., "From t-SNE to UMAP with contrastive
    learning", ICLR 2023, eq. 7.

    Examples
    --------
    >>> from sklearn_icon.learned import NegativeSampling, Rational
    >>> NegativeSampling(Rational(min_dist=0.5))
    NegativeSampling(base=Rational(min_dist=0.5))
    """

    is_limit = True
    unbounded = False
    _parameter_constraints = {
        "base": [Learned],
        "n_negatives": [Interval(Real, 0, None, closed="neither")],
        "noise": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, base: Learned, n_negatives: float = 5.0, noise: float = 0.0) -> None:
        self.base = base
        self.n_negatives = n_negatives
        self.noise = noise

    affinity, prepare = map(of_base, ("affinity", "prepare"))

    @answer
    def told_terms(self) -> tuple[float, float | None, float] | None:
        """Of the Cauchy kernel."""
        return (self.n_negatives, self.noise, _SHORT) if self.base.slope_terms == CAUCHY else None

    def _log_told(self, log_kernel: Tensor) -> Tensor:
        """log v."""
        if self.noise == 0:
            return log_kernel
        return -(log(self.noise) - log_kernel).exp().log1p()

    def paired(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log v of matching rows; see `Learned.paired`."""
        return self._log_told(self.base.paired(z, keys))

    def pairwise(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log v of all pairs; see `Learned.pairwise`."""
        return self._log_told(self.base.pairwise(z, keys))

    def log_partition(self, log_kernel: Tensor, n_choices: int) -> Tensor:
        """-m mean_j log(1 - v), v a thousandth short of one at the most, as in UMAP; excluded keys hold -inf."""
        return (-(1 - _SHORT) * log_kernel.exp()).log1p().sum(1) * (-self.n_negatives / n_choices)
