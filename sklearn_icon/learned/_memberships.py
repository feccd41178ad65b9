"""Distributions over cluster memberships."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from .._core.spec import answer, shown
from ._base import Learned, tiny

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor


class SharedCluster(Learned):
    r"""A uniformly drawn member of i's cluster, self included: the q of clustering.

    ::

        q(j|i) = sum_c phi_ic phi_jc d_j / sum_k phi_kc d_k,     phi = softmax of the logits z

    with d = 1, or the degrees of p's graph. Under KL, without uniform mass, it prefers even clusters: where these cut
    no p the loss is KL(m || 1/k) + constant, m_c the fraction of rows in each of k clusters. A `prior` pi makes it
    KL(m || pi) + constant, what it takes to tell i's cluster and then a neighbour within it:

    ::

        mean_i -sum_j p(j|i) log sum_c k pi_c phi_ic phi_jc d_j / sum_k phi_kc d_k

    Parameters
    ----------
    weights : {"degree"} or None, default=None
        "degree" weighs each key by its degree, the kernel of normalised cuts; refused beside reverse KL, where keys
        count alike.
    prior : None, float or array-like of shape (n_clusters,), default=None
        The masses pi that clusters are expected to have. None: even ones. An array: these, over their sum, such as
        `np.arange(1, 11) ** -1.0` for a power law. A positive number a: learned ones, pi_c = (m_c + a / k) / (1 + a),
        the posterior mean under a Dirichlet distribution whose concentration is a times the number of rows. A large one
        is an even prior; one near zero knows nothing of sizes, and lets clusters fall together. A prior needs
        divergence="kl", and is exact without uniform mass (`debias=0`), which prefers large clusters.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, section on cluster-based neighborhoods. The prior is new here.

    Examples
    --------
    >>> from sklearn_icon.learned import SharedCluster
    >>> SharedCluster(weights="degree")
    SharedCluster(weights='degree')
    >>> SharedCluster(prior=[0.8, 0.1, 0.1])
    SharedCluster(prior=[0.8, 0.1, 0.1])
    """

    includes_self = True
    normalized = True
    on_memberships = True
    affinity = "memberships"
    _parameter_constraints = {
        "weights": [StrOptions({"degree"}), None],
        "prior": [Interval(Real, 0, None, closed="neither"), "array-like", None],
    }

    def __init__(self, weights: Literal["degree"] | None = None, prior: Any = None) -> None:
        self.weights = weights
        self.prior = prior

    def validate(self) -> Self:
        """Also refuse masses that are none; see `Spec.validate`."""
        super().validate()
        if np.ndim(self.prior):
            masses = np.asarray(self.prior)
            if masses.ndim != 1 or masses.dtype.kind not in "fiu" or not (np.isfinite(masses) & (masses > 0)).all():
                raise ValueError(
                    f"prior={shown(self.prior)} should hold a positive mass for each cluster; leave out clusters that "
                    "nothing is in."
                )
        return self

    @answer
    def tilted(self) -> bool:
        """Where there is a prior."""
        return self.prior is not None

    def tilt(self, masses: Tensor, n_clusters: int) -> Any:
        """k pi_c of clusters that hold these fractions of the keys; of given pi shape (k, 1), against (..., k, 1)."""
        if self.prior is None:
            return 1.0
        if not np.ndim(self.prior):
            return (n_clusters * masses + self.prior) / (1 + self.prior)
        given = np.asarray(self.prior, dtype=np.float64)
        if len(given) != n_clusters:
            raise ValueError(
                f"prior={shown(self.prior)} holds {len(given)} masses, but n_clusters={n_clusters}; give a mass "
                "to each."
            )
        return masses.new_tensor(n_clusters * given / given.sum())[:, None]

    @answer
    def by_degree(self) -> bool:
        """As the weights say."""
        return self.weights == "degree"

    def prepare(self, z: Tensor, keys: Tensor, degrees: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-memberships of rows and keys, and log (d_j / cluster mass) for each key and cluster."""
        log_phi, log_keys = z.log_softmax(dim=1), keys.log_softmax(dim=1)
        if self.weights == "degree" and degrees is not None:
            log_keys = log_keys + degrees.clamp_min(tiny(degrees)).log()[:, None]
        log_masses = log_keys.logsumexp(dim=0)
        if self.prior is not None:
            tilt = self.tilt(log_masses.softmax(dim=0)[:, None], len(log_masses))
            return log_phi, log_keys - log_masses + tilt.log()[:, 0]
        return log_phi, log_keys - log_masses

    def paired(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log q of matching rows; see `Learned.paired`."""
        return (z + keys).logsumexp(dim=1)

    def pairwise(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log q of all pairs, by one matrix product over clusters; see `Learned.pairwise`."""
        top_z, top_keys = z.detach().amax(1, keepdim=True), keys.detach().amax(1)
        product = (z - top_z).exp() @ (keys - top_keys[:, None]).exp().T
        return product.clamp_min(tiny(product)).log() + top_z + top_keys
