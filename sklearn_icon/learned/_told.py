"""Pairs told one by one, partners from others, given p: no row's q is normalised."""

from __future__ import annotations

from math import log
from numbers import Real
from typing import TYPE_CHECKING

from sklearn.utils._param_validation import Interval

from .._core.spec import answer
from ._base import CAUCHY, Learned, tiny
from ._reweighted import Reweighted

if TYPE_CHECKING:
    from torch import Tensor

_NEWTON_STEPS = 12  # of a convex function of one number


class PairwiseSigmoid(Reweighted):
    r"""Each pair told on its own, partners from all others: the loss of SigLIP.

    ::

        mean_i [ -sum_{j: p(j|i) > 0} log s(log k_ij + b)  -  sum_{j: p(j|i) = 0} log s(-log k_ij - b) ]

    with s the logistic function. `NegativeSampling` is the same but for its draws, among which partners may be, and for
    the mean over them. It works with divergence="kl", normalization="conditional" and without a uniform mixture on q,
    on batches of all pairs at once.

    Parameters
    ----------
    base : Learned
        The kernel k, such as `Gaussian(metric="cosine", tau=0.1)`.
    bias : float, default=None
        The number b. None: minus the logarithm of the number of keys, the log-odds of a partner.

    References
    ----------
    Zhai et al., "Sigmoid loss for language image pre-training", ICCV 2023, algorithm 1.

    Examples
    --------
    >>> from sklearn_icon.learned import Gaussian, PairwiseSigmoid
    >>> PairwiseSigmoid(Gaussian(metric="cosine", tau=0.1), bias=-10.0)
    PairwiseSigmoid(base=Gaussian(metric='cosine', tau=0.1), bias=-10.0)
    """

    unbounded = False
    _parameter_constraints = Reweighted._parameter_constraints | {
        "bias": [Interval(Real, None, None, closed="neither"), None]
    }

    def __init__(self, base: Learned, bias: float | None = None) -> None:
        self.base = base
        self.bias = bias

    def log_partition_given(self, log_kernel: Tensor, n_choices: int, p: Tensor) -> Tensor:
        """The cost of all pairs, less the attraction's."""
        from torch.nn.functional import softplus

        near = p > 0
        logits = log_kernel + (-log(n_choices) if self.bias is None else self.bias)
        told = softplus(logits.where(near, -logits).neg())
        return told.sum(1) + (p * log_kernel.masked_fill(~near, 0)).sum(1)


class NoiseContrastive(Reweighted):
    r"""Neighbours told from drawn rows by a normaliser that is estimated beside the map: the loss of NCVis.

    ::

        min_c mean_i [ -sum_j p(j|i) log v_ij  -  m mean_j log(1 - v_ij) ],     v = k / (k + c)

    `NegativeSampling` with the noise c that is best for the present representations, in place of a constant: where m is
    large, c tends to m times the mean kernel, and the loss to that of q over all pairs. It works with divergence="kl",
    normalization="conditional" and without a uniform mixture on q, on batches of all pairs at once.

    Parameters
    ----------
    base : Learned
        The kernel k, such as `StudentT()`.
    n_negatives : float, default=5.0
        The number m of rows drawn for each neighbour.

    References
    ----------
    Artemenkov and Panov, "NCVis: Noise contrastive approach for scalable visualization", WWW 2020; Damrich et al.,
    "From t-SNE to UMAP with contrastive learning", ICLR 2023, eq. 5.

    Examples
    --------
    >>> from sklearn_icon.learned import NoiseContrastive, StudentT
    >>> NoiseContrastive(StudentT())
    NoiseContrastive(base=StudentT())
    """

    unbounded = False
    _parameter_constraints = Reweighted._parameter_constraints | {
        "n_negatives": [Interval(Real, 0, None, closed="neither")]
    }

    def __init__(self, base: Learned, n_negatives: float = 5.0) -> None:
        self.base = base
        self.n_negatives = n_negatives

    @answer
    def told_terms(self) -> tuple[float, float | None, float] | None:
        """Of the Cauchy kernel."""
        return (self.n_negatives, None, 0.0) if self.base.slope_terms == CAUCHY else None

    def log_partition_given(self, log_kernel: Tensor, n_choices: int, p: Tensor) -> Tensor:
        """sum_j p_ij log(k_ij + c) + m mean_j log(1 + k_ij / c)."""
        drawn, known = p.any(1)[:, None].to(p.dtype) * (self.n_negatives / n_choices), log_kernel.detach()
        log_c = known.logsumexp((0, 1)) + log(self.n_negatives / n_choices / len(p))
        for _ in range(_NEWTON_STEPS):
            v = (known - log_c).sigmoid()
            excess = ((1 - v) * p - v * drawn).sum()
            log_c = log_c - (excess / (v * (1 - v) * (p + drawn)).sum().clamp_min(tiny(v))).clamp(-2, 2)
        at_positives = log_kernel.masked_fill(p == 0, 0).logaddexp(log_c)
        return (p * at_positives).sum(1) + (log_kernel - log_c).exp().log1p().sum(1) * self.n_negatives / n_choices
