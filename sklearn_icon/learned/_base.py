"""What a learned distribution is: `Learned`, and kernels of squared distances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from math import inf, isfinite, log
from typing import TYPE_CHECKING, Any, TypeAlias

from .._core.spec import Spec, answer

if TYPE_CHECKING:
    from torch import Tensor

LOG_FLOOR = -80.0
"""Kernels in linear space stop here, above float32's slow subnormal numbers."""
_SMOOTH = 10.0  # the most by which a smooth kernel's slope changes, relative, within its squared width
_ROUNDED = 1e-6  # of its squared width, within which a kernel with a kink or a pole is held constant

SlopeTerms: TypeAlias = tuple[float, float, float]
CAUCHY: SlopeTerms = (1.0, 1.0, -1.0)  # of k = 1 / (1 + d^2)
Gradients: TypeAlias = "tuple[Tensor | None, Tensor | None]"
Pull: TypeAlias = "Callable[[Tensor, Sequence[bool]], Gradients]"


class Learned(Spec):
    """A row of the table: how q(j|i) follows from representations.

    All tensors are torch tensors of one dtype and device. One that is a kernel over its sum is a `Kernel`; a
    `DistanceKernel` where the kernel is a function of the distance only.

    Examples
    --------
    What the library asks of a q, it answers itself:

    >>> from sklearn_icon.learned import Gaussian, SharedCluster
    >>> [(q.normalized, q.euclidean, q.affinity) for q in (SharedCluster(), Gaussian(metric="cosine"))]
    [(True, False, 'memberships'), (False, False, 'cosine')]
    """

    includes_self = False
    """Whether a row is always a key of its own, whatever p says."""
    normalized = False
    """Whether `paired` and `pairwise` already return log q."""
    tilted = False
    """Whether `paired` and `pairwise` are log q up to a factor for each row, a cost of its own that KL alone has."""
    on_memberships = False
    """Whether representations are logits of cluster memberships."""
    euclidean = False
    """Whether the kernel is a function of squared distance with a `slope`."""
    is_limit = False
    """Whether this is the limit of a scaled loss and no distribution."""
    is_unbounded = False
    """Whether the loss falls without bound as rows spread."""
    reads_p = False
    """Whether the normaliser reads p, of a limit: all pairs of rows and keys are then computed at once."""
    log_least: Any = -inf
    """The least log k of any pair."""
    centred = False
    """Whether what stands for log q sums to zero over the keys of a row, so that uniform mass on p adds nothing."""
    scale_free = False
    """Whether q stays the same when all representations grow by one factor."""
    mixture = 0.0
    """Uniform mass on q."""
    affinity = "distance"
    """What the kernel is a function of: "distance", "cosine", "dot" or "memberships"."""
    pulls_in_half = False
    """Whether `pairwise_and_pull` also takes weights of half precision, for products in that."""
    by_degree = False
    """Whether keys are weighed by their degrees."""
    learns: tuple[str, ...] = ()
    """Names of the parameters that are to be learned beside the representations."""
    power_terms: tuple[float, float, float, float] | None = None
    """(a, b, c, e) of a kernel 1 / (c + a (d^2 + e)^b) that is one at zero, which compiled loops read; else None."""
    told_terms: tuple[float, float | None, float] | None = None
    """(m, c, e) of the push m mean_j log(1 - (1 - e) v), v = k / (k + c), k the Cauchy kernel, for compiled loops;
    c is None where it is the best one, and v is k where it is zero."""
    slope_terms: SlopeTerms | None = None
    """(1, 0, c) or (a, 1, c) of a kernel of the squared distance with slope = c / (a + b d^2) and log k = 0 at zero,
    which compiled loops read; None where the slope is of no such form."""

    @property
    def is_dot(self) -> bool:
        """Whether the log-kernel is a dot product over a temperature, whose keys a last linear layer absorbs."""
        return self.affinity == "dot" and not self.mixture

    @answer
    def unbounded(self) -> bool:
        """Whether the loss falls without bound as rows spread or shrink, so that networks' rows have unit length."""
        return self.is_limit

    def rounded(self) -> Learned:
        """The kernel as it is computed: without a kink or pole at zero, where it is a function of squared distance."""
        return self

    def present(self, *values: Any) -> Learned:
        """The distribution with what it `learns` as it is now, tensors of shape ()."""
        return self

    def unmixed(self) -> Learned:
        """The distribution inside of uniform mixtures."""
        return self

    def prepare(self, z: Tensor, keys: Tensor, degrees: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(rows, keys) in the form that `paired` and `pairwise` read."""
        return z, keys

    @abstractmethod
    def paired(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log-kernel of row i of `z` with row i of `keys`, shape (n,)."""

    @abstractmethod
    def pairwise(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log-kernel of every row of `z` with every row of `keys`, shape (n, m)."""

    def pairwise_and_pull(self, z: Tensor, keys: Tensor) -> tuple[Tensor, Pull]:
        """(`pairwise`, the function (w, wanted) -> gradients of sum_ij w_ij log k_ij at z and at keys, as wanted).

        Outside autograd; log k and w may be overwritten, and the function is called once. Where the keys are z itself,
        the first gradient may be of both, and the second None.
        """
        import torch

        with torch.enable_grad():
            ends = z.detach().requires_grad_(), keys.detach().requires_grad_()
            log_kernel = self.pairwise(*ends)

        def pull(weights: Tensor, wanted: Sequence[bool]) -> Gradients:
            of_z, of_keys = torch.autograd.grad(log_kernel, ends, weights)
            return of_z if wanted[0] else None, of_keys if wanted[1] else None

        return log_kernel.detach().clone(), pull

    def log_partition(self, log_kernel: Tensor, n_choices: int) -> Tensor:
        """log sum_j k_ij of each row; excluded keys hold -inf."""
        return log_kernel.logsumexp(dim=1)

    def log_partition_given(self, log_kernel: Tensor, n_choices: int, p: Tensor) -> Tensor:
        """`log_partition` where p is known, dense and without its uniform mass."""
        return self.log_partition(log_kernel, n_choices)

    def tilt(self, masses: Tensor, n_clusters: int) -> Any:
        """What a prior multiplies q with, within clusters that hold these fractions of the keys."""
        return 1.0

    def finish(self, log_q: Tensor, n_choices: int) -> Tensor:
        """Log q after what a wrapper adds to it."""
        return log_q


class Kernel(Learned):
    """Whatever is q(j|i) = k(z_i, z_j) / sum_b k(z_i, z_b): subclasses give log k of matching rows and of all pairs.

    Examples
    --------
    >>> from sklearn_icon.learned import Kernel
    >>> from sklearn_icon.testing import check_learned
    >>> class Bilinear(Kernel):
    ...     affinity = "dot"
    ...     def paired(self, z, keys):
    ...         return (z * keys).sum(1) / 2
    ...     def pairwise(self, z, keys):
    ...         return z @ keys.T / 2
    >>> check_learned(Bilinear())
    """


class DistanceKernel(Kernel):
    """A function of the squared Euclidean distance: subclasses give `log_kernel`, and `slope` where that is faster.

    Examples
    --------
    >>> from sklearn_icon.learned import DistanceKernel
    >>> from sklearn_icon.testing import check_learned
    >>> class Fourth(DistanceKernel):
    ...     def log_kernel(self, sq_distance):
    ...         return -2 * (sq_distance / 3).log1p()
    >>> check_learned(Fourth())
    """

    euclidean = True
    has_pole = False
    """Whether log k is unbounded where the distance is zero: distances are exact there, and `euclidean` is False."""

    def sq_distances(self, z: Tensor, keys: Tensor) -> Tensor:
        """`|z_i - y_j|^2` of all pairs: from differences under a pole, which would magnify a product's rounding."""
        if not self.has_pole:
            return sq_distances(z, keys)
        from .._core.differences import sq_distances_by_differences

        return sq_distances_by_differences(z, keys)

    @abstractmethod
    def log_kernel(self, sq_distance: Tensor) -> Tensor:
        """Log k, elementwise."""

    def paired(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log k of matching rows; see `Learned.paired`."""
        return self.log_kernel((z - keys).square().sum(1))

    def pairwise(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log k of all pairs; see `Learned.pairwise`."""
        return self.log_kernel(self.sq_distances(z, keys))

    def pairwise_and_pull(self, z: Tensor, keys: Tensor) -> tuple[Tensor, Pull]:
        """From slopes; see `Learned.pairwise_and_pull`."""
        if self.has_pole:
            return super().pairwise_and_pull(z, keys)
        sq_distance = self.sq_distances(z, keys)

        def pull(weights: Tensor, wanted: Sequence[bool]) -> Gradients:
            if self.slope_terms is None:
                weights, factor = weights.mul_(self.slope(sq_distance)), 2.0
            else:  # c / (1 + 0 d^2) or c / (a + d^2)
                a, b, c = self.slope_terms
                weights, factor = weights.div_(sq_distance.add_(a)) if b else weights, 2 * c
            if keys is z:
                return _pushed(weights + weights.T, z, z).mul_(factor), None
            of_z = _pushed(weights, z, keys).mul_(factor) if wanted[0] else None
            return of_z, _pushed(weights.T, keys, z).mul_(factor) if wanted[1] else None

        return self.log_kernel(sq_distance), pull

    def slope(self, sq_distance: Tensor) -> Any:
        """d log k / d (d^2), elementwise: a tensor, or a number where it is constant; by autograd unless overridden."""
        import torch

        with torch.enable_grad():
            sq_distance = sq_distance.detach().requires_grad_()
            return torch.autograd.grad(self.log_kernel(sq_distance).sum(), sq_distance)[0]

    @property
    def smooth_at_zero(self) -> bool:
        """Whether the slope is finite and negative at zero, and from there linear in the squared distance.

        Grids and the placement of new rows need it; exp(-d) has a kink there and is summed exactly or sampled.
        """
        return self._is_smooth()

    def _is_smooth(self) -> bool:
        """`smooth_at_zero` as the slope shows it, whatever a subclass declares."""
        import torch

        at_zero = float(self.slope(torch.zeros(1, dtype=torch.float64)))
        if not (isfinite(at_zero) and at_zero < 0):
            return False
        parts = torch.tensor([1e-4, 1e-2], dtype=torch.float64)
        slopes = self.slope(parts * (-0.5 / at_zero)) * torch.ones_like(parts)
        return bool(((slopes / at_zero - 1).abs() < _SMOOTH * parts).all())

    def rounded(self) -> DistanceKernel:
        """Itself where it is smooth at zero, else held constant, and finite, within a thousandth of its width."""
        if not self.euclidean or self.smooth_at_zero:
            return self
        least, held = _ROUNDED * self._sq_width(), copy(self)
        held.__dict__.update(log_kernel=partial(_from, self.log_kernel, least), slope=partial(_from, self.slope, least))
        return held

    def _sq_width(self) -> float:
        """The squared distance, to a factor of two, at which the kernel is half of what it is next to zero."""
        import torch

        sq = 2.0 ** torch.arange(-40, 41, dtype=torch.float64)
        log_k = self.log_kernel(sq)
        low = torch.nonzero(log_k < log_k[0] - log(2))
        return float(sq[low[0, 0]]) if len(low) else 1.0

    def kernel_and_slope(self, sq_distance: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
        """(k, dk / d (d^2)), elementwise, k not below exp(LOG_FLOOR).

        Outside autograd; both arguments may be overwritten.
        """
        kernel = self.log_kernel(sq_distance).clamp_min_(LOG_FLOOR).exp_()
        return kernel, spare.copy_(kernel).mul_(self.slope(sq_distance))


def _from(function: Callable[[Tensor], Any], least: float, sq_distance: Tensor) -> Any:
    return function(sq_distance.clamp_min(least))


def _pushed(weights: Tensor, z: Tensor, keys: Tensor) -> Tensor:
    """sum_j w_ij (z_i - y_j)."""
    return weights.sum(1, keepdim=True) * z - weights @ keys


def sq_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 for all pairs, by one matrix product, not below zero.

    Between near rows most of it is the product's rounding, which differs from one processor to another.
    """
    sq_a, sq_b = a.square().sum(1, keepdim=True), b.square().sum(1)
    squares = ((-2 * a) @ b.T).add_(sq_b).add_(sq_a)
    return squares.clamp_min(0) if squares.requires_grad else squares.clamp_min_(0)


def tiny(tensor: Tensor) -> float:
    import torch

    return torch.finfo(tensor.dtype).tiny
