"""Families of divergences D(p || q), for `divergence=` of estimators and of `nn.ICONLoss` beside its short names.

Short names are members: "kl" of `Alpha` and `Renyi` at order one, "reverse_kl" and "squared_hellinger" of `Alpha`,
"total_variation" and "squared_hellinger" of `TotalVariation`.
"""

from __future__ import annotations

from abc import abstractmethod
from numbers import Real
from typing import TYPE_CHECKING

from sklearn.utils._param_validation import Interval

from ._core.spec import Spec, answer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Alpha", "Divergence", "Renyi", "TotalVariation"]


class Divergence(Spec):
    """A comparison of rows of p and q: g of a sum of terms over the keys.

    ::

        D( p(.|i) || q(.|i) ) = g( sum_j d(p(j|i), q(j|i)) ),     d(0, q) = c q

    A subclass gives `term`, and `of_sum` where g is not the identity; `at_zero` is the number c, None where a p of zero
    is infinitely far.

    Examples
    --------
    >>> from sklearn_icon.divergences import Divergence
    >>> class ChiSquared(Divergence):
    ...     at_zero = 1.0
    ...     def term(self, p, log_q):
    ...         return (p - log_q.exp()).square() / (p + log_q.exp())
    >>> from sklearn_icon import ICONEmbedding
    >>> model = ICONEmbedding(divergence=ChiSquared())
    """

    at_zero: float | None = None
    """What a unit of q costs where p is zero."""
    smooth = True
    """Whether the divergence has a slope everywhere."""
    additive = True
    """Whether D is the sum of its terms itself."""

    @abstractmethod
    def term(self, p: Tensor, log_q: Tensor) -> Tensor:
        """d, elementwise."""

    def of_sum(self, terms: Tensor) -> Tensor:
        """g of the sum of each row."""
        return terms


class Alpha(Divergence):
    r"""Alpha divergences of Amari: from reverse KL (0) over Hellinger (1/2) to KL (1) and beyond.

    ::

        D = (1 - sum_j p^alpha q^(1 - alpha)) / (alpha (1 - alpha))

    Of small order they look for keys that both have; of large order no key of p may lack mass under q. The limits at
    zero and one are "reverse_kl" and "kl", which are faster under their names; 1/2 is four times
    "squared_hellinger".

    Parameters
    ----------
    alpha : float
        The order. At zero and below, p must be positive on all keys, as by `debias`.

    References
    ----------
    Amari, "Differential-geometrical methods in statistics", 1985; Cichocki and Amari, Entropy 2010, eq. 4.

    Examples
    --------
    >>> from sklearn_icon import ICONEmbedding, divergences
    >>> ICONEmbedding(divergence=divergences.Alpha(0.5))
    ICONEmbedding(divergence=Alpha(alpha=0.5))
    """

    _parameter_constraints = {"alpha": [Interval(Real, None, None, closed="neither")]}

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    @answer
    def at_zero(self) -> float | None:
        """1 / alpha, where that is positive."""
        return 1 / self.alpha if self.alpha > 0 else None

    def term(self, p: Tensor, log_q: Tensor) -> Tensor:
        """(alpha p + (1 - alpha) q - p^alpha q^(1 - alpha)) / (alpha (1 - alpha)), by the limit that is nearer."""
        alpha, beta, q = self.alpha, 1 - self.alpha, log_q.exp()
        log_ratio = log_q - (p if alpha <= 0 else p.masked_fill(p == 0, 1)).log()
        if alpha > 0.5:
            return (q - p - p * _expm1_over(beta, log_ratio)) / alpha
        return (p - q + (q * _expm1_over(-alpha, log_ratio)).masked_fill(p == 0, 0)) / beta + _at_zero(p, q, alpha)


class Renyi(Divergence):
    r"""Divergences of Renyi: the logarithm of what `Alpha` sums, which grows on where that saturates.

    ::

        D = log( sum_j p^alpha q^(1 - alpha) ) / (alpha - 1)

    The limit at one is KL, which it is at every order where p has one key. A row's minimiser is that of `Alpha` of the
    same order; rows that are far off weigh more. No sum over pairs: joint normalisation and `ICONClustering`, whose
    searches add pairs up, refuse it.

    Parameters
    ----------
    alpha : float
        The order, above zero.

    References
    ----------
    Renyi, "On measures of entropy and information", 1961; van Erven and Harremoes, IEEE TIT 2014, eq. 1.

    Examples
    --------
    >>> from sklearn_icon import divergences
    >>> from sklearn_icon.nn import ICONLoss
    >>> ICONLoss("positive_pairs", "student_t", divergences.Renyi(0.5)).divergence
    Renyi(alpha=0.5)
    """

    at_zero = 0.0
    additive = False
    _parameter_constraints = {"alpha": [Interval(Real, 0, None, closed="neither")]}

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def term(self, p: Tensor, log_q: Tensor) -> Tensor:
        """p (1 - (q / p)^(1 - alpha)) / (1 - alpha)."""
        return -p * _expm1_over(1 - self.alpha, log_q - p.masked_fill(p == 0, 1).log())

    def of_sum(self, terms: Tensor) -> Tensor:
        """-log(1 - (1 - alpha) s) / (1 - alpha), finite where p and q have nothing in common."""
        import torch

        beta = 1 - self.alpha
        if beta == 0:
            return terms
        return (-beta * terms).clamp_min(torch.finfo(terms.dtype).eps - 1).log1p() / -beta


class TotalVariation(Divergence):
    r"""Total variation without its kinks: from total variation (0) to twice the squared Hellinger distance (2).

    ::

        D = sum_j [ sqrt((p - q)^2 + s^2 p q) - s sqrt(p q) ] / 2

    Between, keys of which q has about as much as p count by squares, all others as in total variation: bounded, so
    that outliers have a bounded say, with a slope that tells a descent how near it is.

    Parameters
    ----------
    smoothing : float, default=0.2
        The number s, from 0 to 2: `|log(p / q)|` below which squares count.

    Examples
    --------
    >>> from sklearn_icon import ICONEmbedding, divergences
    >>> ICONEmbedding(divergence=divergences.TotalVariation())
    ICONEmbedding(divergence=TotalVariation())
    """

    at_zero = 0.5
    _parameter_constraints = {"smoothing": [Interval(Real, 0, 2, closed="both")]}

    def __init__(self, smoothing: float = 0.2) -> None:
        self.smoothing = smoothing

    @answer
    def smooth(self) -> bool:
        """Whether there is any smoothing."""
        return self.smoothing > 0

    def term(self, p: Tensor, log_q: Tensor) -> Tensor:
        """(sqrt((p - q)^2 + s^2 p q) - s sqrt(p q)) / 2, by its product with the sum, which loses no digits."""
        q, s = log_q.exp(), self.smoothing
        if s == 0:
            return (p - q).abs() / 2
        both = s * p.sqrt() * (log_q / 2).exp()
        square = (p - q).square()
        root = (square + both.square()).masked_fill(p == q, 1).sqrt()
        return (square / (root + both) / 2).masked_fill(p == q, 0)


def _expm1_over(rate: float, log_ratio: Tensor) -> Tensor:
    """(exp(rate r) - 1) / rate, r at a rate of zero."""
    return (rate * log_ratio).expm1() / rate if rate else log_ratio


def _at_zero(p: Tensor, q: Tensor, alpha: float) -> Tensor | float:
    """What is left out of the terms of `Alpha` where p is zero: q / alpha and q / (1 - alpha) in place of -q / beta."""
    return (q / alpha + q / (1 - alpha)).masked_fill(p != 0, 0) if alpha > 0 else 0.0
