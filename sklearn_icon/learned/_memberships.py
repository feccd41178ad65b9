"""Distributions over cluster memberships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sklearn.utils._param_validation import StrOptions

from .._core.spec import answer
from ._base import Learned, tiny

if TYPE_CHECKING:
    from torch import Tensor


class SharedCluster(Learned):
    r"""A uniformly drawn member of i's cluster, self included: the q of clustering.

    ::

        q(j|i) = sum_c phi_ic phi_jc d_j / sum_k phi_kc d_k,     phi = softmax of the logits z

    with d = 1, or the degrees of p's graph.

    Parameters
    ----------
    weights : {"degree"} or None, default=None
        "degree" weighs each key by its degree, the kernel of normalised cuts.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, section on cluster-based neighborhoods.

    Examples
    --------
    >>> from sklearn_icon.learned import SharedCluster
    >>> SharedCluster(weights="degree")
    SharedCluster(weights='degree')
    """

    includes_self = True
    normalized = True
    on_memberships = True
    affinity = "memberships"
    _parameter_constraints = {"weights": [StrOptions({"degree"}), None]}

    def __init__(self, weights: Literal["degree"] | None = None) -> None:
        self.weights = weights

    @answer
    def by_degree(self) -> bool:
        """As the weights say."""
        return self.weights == "degree"

    def prepare(self, z: Tensor, keys: Tensor, degrees: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-memberships of rows and keys, and log (d_j / cluster mass) for each key and cluster."""
        log_phi, log_keys = z.log_softmax(dim=1), keys.log_softmax(dim=1)
        if self.weights == "degree" and degrees is not None:
            log_keys = log_keys + degrees.clamp_min(tiny(degrees)).log()[:, None]
        return log_phi, log_keys - log_keys.logsumexp(dim=0)

    def paired(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log q of matching rows; see `Learned.paired`."""
        return (z + keys).logsumexp(dim=1)

    def pairwise(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log q of all pairs, by one matrix product over clusters; see `Learned.pairwise`."""
        top_z, top_keys = z.detach().amax(1, keepdim=True), keys.detach().amax(1)
        product = (z - top_z).exp() @ (keys - top_keys[:, None]).exp().T
        return product.clamp_min(tiny(product)).log() + top_z + top_keys
