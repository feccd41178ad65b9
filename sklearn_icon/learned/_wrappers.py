"""Distributions made from another."""

from math import log, log1p
from numbers import Real

from sklearn.utils._param_validation import Interval

from ._base import Learned


class UniformMixture(Learned):
    """Debiasing of q: a share of every row spread evenly over its keys.

    ::

        q~(j|i) = (1 - alpha) q(j|i) + alpha / N,     N the number of keys of a row

    Parameters
    ----------
    base : Learned
        The spec of q; a distribution, not a limit.
    alpha : float in [0, 1)
        The uniform share.

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

    def __init__(self, base, alpha):
        self.base = base
        self.alpha = alpha

    def owner(self, parameter):
        """The spec itself or its base; see `Spec.owner`."""
        return self if parameter in self.get_params(deep=False) else self.base.owner(parameter)

    def validate(self):
        """Also refuse a base that is no distribution; see `Spec.validate`."""
        super().validate()
        if self.base.is_limit:
            raise ValueError(f"{self.base} is the limit of a loss and no distribution; it takes no UniformMixture.")
        return self

    @property
    def includes_self(self):
        """As the base."""
        return self.base.includes_self

    @property
    def normalized(self):
        """As the base."""
        return self.base.normalized

    @property
    def on_memberships(self):
        """As the base."""
        return self.base.on_memberships

    @property
    def affinity(self):
        """As the base."""
        return self.base.affinity

    @property
    def by_degree(self):
        """As the base."""
        return self.base.by_degree

    @property
    def learns(self):
        """As the base."""
        return self.base.learns

    def unmixed(self):
        """As the base; see `Learned.unmixed`."""
        return self.base.unmixed()

    @property
    def scale_free(self):
        """As the base."""
        return self.base.scale_free

    @property
    def mixture(self):
        """Total uniform mass, nested mixtures included."""
        return 1 - (1 - self.alpha) * (1 - self.base.mixture)

    def prepare(self, z, keys, degrees=None):
        """As the base."""
        return self.base.prepare(z, keys, degrees)

    def paired(self, z, keys):
        """As the base: the mixture comes after normalisation."""
        return self.base.paired(z, keys)

    def pairwise(self, z, keys):
        """As the base: the mixture comes after normalisation."""
        return self.base.pairwise(z, keys)

    def finish(self, log_q, n_choices):
        """log((1 - alpha) q + alpha / N)."""
        log_q = self.base.finish(log_q, n_choices)
        if self.alpha == 0:
            return log_q
        uniform = log_q.new_tensor(log(self.alpha / n_choices))
        return (log_q + log1p(-self.alpha)).logaddexp(uniform)
