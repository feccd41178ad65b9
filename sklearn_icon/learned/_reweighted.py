"""Kernels whose normaliser weighs keys by p, or by how hard they are: the losses around InfoNCE."""

from __future__ import annotations

from abc import abstractmethod
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any

from sklearn.utils._param_validation import Interval

from .._core.spec import answer, of_base
from ._base import Learned, tiny
from ._limits import WideGaussian

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor


class Reweighted(Learned):
    """A kernel under another normaliser, which reads p as well."""

    is_limit = True
    reads_p = True
    leaves_positives_out = False
    """Whether no positive is among the keys that are summed."""
    _parameter_constraints = {"base": [Learned]}
    base: Learned

    affinity, scale_free, learns, prepare = map(of_base, ("affinity", "scale_free", "learns", "prepare"))
    paired, pairwise = map(of_base, ("paired", "pairwise"))

    @answer
    def unbounded(self) -> bool:
        """Where rows can spread without end, negatives do."""
        return not self.base.scale_free

    @answer
    def is_unbounded(self) -> bool:
        """Where no positive is among the keys that are summed, and log k falls as fast as squares or products do."""
        terms = self.base.slope_terms
        return self.leaves_positives_out and (self.base.affinity == "dot" or (terms is not None and terms[1] == 0))

    def validate(self) -> Self:
        """Also refuse a base that is no kernel over its sum; see `Spec.validate`."""
        super().validate()
        if self.base.is_limit or self.base.normalized or self.base.mixture:
            name = type(self).__name__
            raise ValueError(f"base of {name} must be a kernel such as Gaussian(metric='cosine'), got {self.base}.")
        return self

    def present(self, *values: Any) -> Learned:
        """With what the base learns as it is now; see `Learned.present`."""
        return type(self)(**(self.get_params(deep=False) | {"base": self.base.present(*values)})) if values else self

    @abstractmethod
    def log_partition_given(self, log_kernel: Tensor, n_choices: int, p: Tensor) -> Tensor:
        """In place of log Z; see `Learned.log_partition_given`."""


class Decoupled(Reweighted):
    r"""A kernel whose normaliser leaves the positives out: the decoupled contrastive loss, DCL.

    ::

        mean_i [ -sum_j p(j|i) log k_ij  +  log sum_{j: p(j|i) = 0} k_ij ]

    A row whose positives are close pulls as hard as any other, where InfoNCE's gradient fades with 1 - q. With one
    positive it is -log of the odds q / (1 - q). No divergence: it is negative where q > 1/2. It works with
    divergence="kl", normalization="conditional" and without a uniform mixture on q, on batches of all pairs at once.
    A row without negatives is pulled only.

    Parameters
    ----------
    base : Learned
        The kernel k.

    References
    ----------
    Yeh et al., "Decoupled contrastive learning", ECCV 2022, eq. 3.

    Examples
    --------
    >>> from sklearn_icon.learned import Decoupled, Gaussian
    >>> Decoupled(Gaussian(metric="cosine", tau=0.1))
    Decoupled(base=Gaussian(metric='cosine', tau=0.1))
    """

    leaves_positives_out = True

    def __init__(self, base: Learned) -> None:
        self.base = base

    def log_partition_given(self, log_kernel: Tensor, n_choices: int, p: Tensor) -> Tensor:
        """log sum_{j: p_ij = 0} k_ij."""
        return _log_sum(log_kernel.masked_fill(p > 0, -inf))


class HardNegatives(Reweighted):
    r"""A kernel whose negatives are weighed by their nearness, and cleared of positives: debiased and hard InfoNCE.

    ::

        mean_i [ -sum_j p(j|i) log k_ij  +  sum_j p(j|i) log(k_ij + n g_i) ]
        g_i = max( (sum_l w_il k_il / n  -  prior sum_j p(j|i) k_ij) / (1 - prior),  min k )
        w_il = k_il^hardness / mean_l k_il^hardness,     l the n keys with p(l|i) = 0

    `hardness=0` is debiased InfoNCE, `prior=0` as well InfoNCE. It works with divergence="kl",
    normalization="conditional" and without a uniform mixture on q, on batches of all pairs at once.

    Parameters
    ----------
    base : Learned
        The kernel k. Its least value is exp(-1 / tau) of cosines, else zero.
    hardness : float, default=1.0
        How much more near negatives count, the papers' beta.
    prior : float in [0, 1), default=0.1
        The fraction of unlabelled keys that are positives in truth, the papers' tau+.

    References
    ----------
    Chuang et al., "Debiased contrastive learning", NeurIPS 2020, eq. 8; Robinson et al., "Contrastive learning with
    hard negative samples", ICLR 2021, eq. 4.

    Examples
    --------
    >>> from sklearn_icon.learned import Gaussian, HardNegatives
    >>> HardNegatives(Gaussian(metric="cosine", tau=0.5), hardness=0.0)
    HardNegatives(base=Gaussian(metric='cosine', tau=0.5), hardness=0.0)
    """

    _parameter_constraints = Reweighted._parameter_constraints | {
        "hardness": [Interval(Real, 0, None, closed="left")],
        "prior": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(self, base: Learned, hardness: float = 1.0, prior: float = 0.1) -> None:
        self.base = base
        self.hardness = hardness
        self.prior = prior

    def log_partition_given(self, log_kernel: Tensor, n_choices: int, p: Tensor) -> Tensor:
        """sum_j p_ij log(k_ij + n g_i)."""
        top = log_kernel.detach().amax(1, keepdim=True)
        excluded, log_kernel = log_kernel.isneginf(), log_kernel - top
        negative = log_kernel.masked_fill(p > 0, -inf)
        n = (~negative.isneginf()).sum(1)
        weighed = _log_sum((1 + self.hardness) * negative) - _log_sum(self.hardness * negative, where=negative)
        positives = (p * log_kernel.masked_fill(excluded, 0).exp()).sum(1)
        g = (weighed.exp() * (n > 0) - self.prior * positives) / (1 - self.prior)
        g = g.maximum((self.base.log_least - top[:, 0]).exp()).clamp_min(tiny(g))
        at_positives = log_kernel.masked_fill(p == 0, 0).logaddexp((n * g).clamp_min(tiny(g)).log()[:, None])
        return (p * at_positives).sum(1) + top[:, 0]


class MultiView(Reweighted):
    r"""All views of an item in one term: multi-view InfoNCE and the decoupled hyperspherical energy loss, DHEL.

    ::

        mean over items of  -log sum_{a < b} k(z_a, z_b)  +  sum_a log sum_{j in view a} k(z_a, z_j)     decoupled
        mean over items of  -log sum_{a != b} k(z_a, z_b)  +  log sum_a sum_{j != a} k(z_a, z_j)         else

    a and b run over the views of an item, of any number. Decoupled, a view is held against the same view of other
    items, which leaves all positives out. Views are numbered in the order of an item's rows. It works with
    divergence="kl", normalization="conditional", p of views of items, and without a uniform mixture on q, on batches of
    all pairs at once.

    Parameters
    ----------
    base : Learned
        The kernel k.
    decoupled : bool, default=True
        Whether each view has a normaliser of its own.

    References
    ----------
    Koromilas et al., "Bridging mini-batch and asymptotic analysis in contrastive learning", ICML 2024; "A principled
    framework for multi-view contrastive learning", 2025.

    Examples
    --------
    >>> from sklearn_icon.learned import Gaussian, MultiView
    >>> MultiView(Gaussian(metric="cosine", tau=0.5))
    MultiView(base=Gaussian(metric='cosine', tau=0.5))
    """

    _parameter_constraints = Reweighted._parameter_constraints | {"decoupled": ["boolean"]}

    def __init__(self, base: Learned, decoupled: bool = True) -> None:
        self.base = base
        self.decoupled = decoupled

    @answer
    def leaves_positives_out(self) -> bool:
        """Where views have normalisers of their own."""
        return self.decoupled

    def log_partition_given(self, log_kernel: Tensor, n_choices: int, p: Tensor) -> Tensor:
        """What makes the attraction's -sum_j p_ij log k_ij the loss of the item that row i is a view of."""
        near = p > 0
        _check_views(near, self)
        top = log_kernel.detach().amax()
        kernel = (log_kernel - top).exp()
        of_item = near.to(kernel.dtype)  # of the other views of a row's item; self beside them where it is added
        pulled = (p * log_kernel.masked_fill(~near, 0)).sum(1)
        of_pairs = (kernel * of_item).sum(1)
        of_pairs = of_pairs + of_item @ of_pairs
        if not self.decoupled:
            of_rows = kernel.sum(1)
            return pulled + (of_rows + of_item @ of_rows).log() - of_pairs.log()
        view = near.tril().sum(1)
        energy = _log_sum(log_kernel.masked_fill(view[:, None] != view, -inf))
        return pulled + energy + of_item @ energy - (of_pairs / 2).log() - top


class HardnessWeighted(WideGaussian):
    r"""Squared distances weighed by hardness: contrastive attraction and contrastive repulsion, CACR.

    ::

        mean_i [ sum_j a_ij d_ij^2  -  sum_j r_ij d_ij^2 ]
        a_ij ~ p(j|i) exp(attraction d_ij^2),     r_ij ~ 1[p(j|i) = 0] exp(-repulsion d_ij^2),     rows summing to one

    Far positives are pulled most, and near negatives pushed most; at zero and zero it is `WideGaussian`, the mean over
    negatives in place of all. It works with divergence="kl", normalization="conditional" and without a uniform mixture
    on q, on batches of all pairs at once.

    Parameters
    ----------
    attraction, repulsion : float, default=1.0 and 2.0
        How much hardness counts, the paper's t+ and t-.

    References
    ----------
    Zheng et al., "Contrastive attraction and contrastive repulsion for representation learning", TMLR 2023.

    Examples
    --------
    >>> from sklearn_icon.learned import HardnessWeighted
    >>> HardnessWeighted(repulsion=4.0)
    HardnessWeighted(repulsion=4.0)
    """

    centred = False
    reads_p = True
    _parameter_constraints = {key: [Interval(Real, 0, None, closed="left")] for key in ("attraction", "repulsion")}

    def __init__(self, attraction: float = 1.0, repulsion: float = 2.0) -> None:
        self.attraction = attraction
        self.repulsion = repulsion

    def log_partition_given(self, log_kernel: Tensor, n_choices: int, p: Tensor) -> Tensor:
        """sum_j (a_ij - p_ij) d_ij^2 - sum_j r_ij d_ij^2."""
        sq = -log_kernel.masked_fill(log_kernel.isneginf(), 0)
        lowest, positive, left_out = -1 / tiny(sq) ** 0.5, p > 0, log_kernel.isneginf() | (p > 0)
        attracted = (p.clamp_min(tiny(p)).log() + self.attraction * sq).masked_fill(~positive, lowest).softmax(1)
        repelled = (-self.repulsion * sq).masked_fill(left_out, lowest).softmax(1)
        return ((attracted * positive - p - repelled.masked_fill(left_out, 0)) * sq).sum(1)


def _log_sum(log_kernel: Tensor, where: Tensor | None = None) -> Tensor:
    """The logarithm of each row's sum over keys that are not -inf (there); zero where there are none."""
    where = log_kernel if where is None else where
    empty = where.isneginf().all(1)
    log_kernel = log_kernel.masked_fill(where.isneginf(), -inf).masked_fill(empty[:, None], 0)
    return log_kernel.logsumexp(1).masked_fill(empty, 0)


def _check_views(near: Tensor, spec: Learned) -> None:
    """Refuse a p that is not of views of items, as many of each, among rows that are the keys."""
    import torch

    square = near.shape[0] == near.shape[1]
    if torch.compiler.is_compiling():
        return
    if not square or near.diagonal().any() or (near != near.T).any() or near.sum(1).unique().numel() > 1:
        raise ValueError(
            f"{spec} needs rows that are views of items, as many of each item, and keys that are these rows: "
            "supervisory='positive_pairs' whose y names each item as often, or with supervisory__augment; encoders "
            "without moving keys; and one process."
        )
