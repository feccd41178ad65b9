"""Distributions made from another."""

from __future__ import annotations

from math import log, log1p
from numbers import Real
from typing import TYPE_CHECKING

from sklearn.utils._param_validation import Interval

from .._core.spec import answer, of_base
from ._base import Learned

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor


class UniformMixture(Learned):
    """Debiasing of q: a fraction of every row spread evenly over its keys.

    ::

        q~(j|i) = (1 - alpha) q(j|i) + alpha / N,     N the number of keys of a row

    Parameters
    ----------
    base : Learned
        The spec of q; a distribution, not a limit.
    alpha : float in [0, 1)
        The uniform fraction.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, section 3.3.

    Examples
    --------
    >>> from sklearn_icon.learned import SharedCluster, UniformMixture
    >>> UniformMixture(SharedCluster(), 0.4)
    UniformMixture(alpha=0.4, base=SharedCluster())
    """

    _parameter_constraints = {"base": [Learned], "alpha": [Interval(Real, 0, 1, closed="left")]}

    def __init__(self, base: Learned, alpha: float) -> None:
        self.base = base
        self.alpha = alpha

    def validate(self) -> Self:
        """Also refuse a base that is no distribution; see `Spec.validate`."""
        super().validate()
        if self.base.is_limit:
            raise ValueError(f"{self.base} is the limit of a loss and no distribution; it takes no UniformMixture.")
        return self

    includes_self, normalized, on_memberships, by_degree = map(
        of_base, ("includes_self", "normalized", "on_memberships", "by_degree")
    )
    affinity, learns, scale_free, tilted = map(of_base, ("affinity", "learns", "scale_free", "tilted"))
    unmixed, tilt = of_base("unmixed"), of_base("tilt")
    prepare, paired, pairwise = map(of_base, ("prepare", "paired", "pairwise"))  # the mixture comes after normalisation

    @answer
    def mixture(self) -> float:
        """Total uniform mass, nested mixtures included."""
        return 1 - (1 - self.alpha) * (1 - self.base.mixture)

    def present(self, *values: Tensor) -> Learned:
        """The mixture with the base as it is now; see `Learned.present`."""
        return UniformMixture(self.base.present(*values), self.alpha) if values else self

    def finish(self, log_q: Tensor, n_choices: int) -> Tensor:
        """log((1 - alpha) q + alpha / N)."""
        log_q = self.base.finish(log_q, n_choices)
        if self.alpha == 0:
            return log_q
        uniform = log_q.new_tensor(log(self.alpha / n_choices))
        return (log_q + log1p(-self.alpha)).logaddexp(uniform)
