"""Divergences D(p || q) between rows, as elementwise terms whose sum over the keys is D.

Each takes p and log q as tensors, with 0 log 0 = 0. `at_zero` is the coefficient c with term(0, q) = c q, so that
all keys outside the support of p together cost c times their mass under q: the whole divergence needs p's support
only. Reverse KL is infinite there and has none.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import TYPE_CHECKING, Any, NamedTuple

from sklearn.utils._param_validation import StrOptions

from ..divergences import Divergence

if TYPE_CHECKING:
    from torch import Tensor


def kl(p: Tensor, log_q: Tensor) -> Tensor:
    """p log(p / q)."""
    return p.xlogy(p) - _times_log(p, log_q)


def reverse_kl(p: Tensor, log_q: Tensor) -> Tensor:
    """q log(q / p)."""
    return log_q.exp() * (log_q - p.log())


def jensen_shannon(p: Tensor, log_q: Tensor) -> Tensor:
    """p/2 log(p / m) + q/2 log(q / m), with m = (p + q) / 2."""
    log_m = p.log().logaddexp(log_q) - log(2)
    return (p.xlogy(p) - _times_log(p, log_m) + log_q.exp() * (log_q - log_m)) / 2


def total_variation(p: Tensor, log_q: Tensor) -> Tensor:
    """|p - q| / 2."""
    return (p - log_q.exp()).abs() / 2


def squared_hellinger(p: Tensor, log_q: Tensor) -> Tensor:
    """(sqrt p - sqrt q)^2 / 2."""
    return (p.sqrt() - (log_q / 2).exp()).square() / 2


def _times_log(p: Tensor, log_q: Tensor) -> Tensor:
    """P log q, zero where p is zero."""
    return p * log_q.masked_fill(p == 0, 0)


class Terms(NamedTuple):
    """An elementwise term, what it costs per unit of q where p is zero, and whether it is smooth."""

    term: Callable
    at_zero: float | None
    smooth: bool = True
    additive: bool = True

    def of_sum(self, terms: Tensor) -> Tensor:
        """D from the sum of the terms; see `divergences.Divergence`."""
        return terms


DIVERGENCES = {
    "kl": Terms(kl, 0.0),
    "reverse_kl": Terms(reverse_kl, None),
    "jensen_shannon": Terms(jensen_shannon, log(2) / 2),
    "total_variation": Terms(total_variation, 0.5, smooth=False),
    "squared_hellinger": Terms(squared_hellinger, 0.5),
}

ALLOWED = [StrOptions(set(DIVERGENCES)), Divergence]
"""What estimators and losses take."""


def terms_of(divergence: Any) -> Any:
    """The terms of a short name, or of a spec, which are its own."""
    return DIVERGENCES.get(divergence) or divergence.validate()
