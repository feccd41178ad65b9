"""What a learned distribution is: `Learned`, and kernels of squared distances."""

from abc import abstractmethod

from .._core.spec import Spec

LOG_FLOOR = -80.0
"""Kernels in linear space stop here, above float32's slow subnormal numbers."""


class Learned(Spec):
    """A row of the table: how q(j|i) follows from representations.

    All tensors are torch tensors of one dtype and device.
    """

    includes_self = False
    """Whether a row is always a key of its own, whatever p says."""
    normalized = False
    """Whether `paired` and `pairwise` already return log q."""
    on_memberships = False
    """Whether representations are logits of cluster memberships."""
    euclidean = False
    """Whether the kernel is a function of squared distance with a `slope`."""
    is_limit = False
    """Whether this is the limit of a scaled loss and no distribution."""
    centred = False
    """Whether what stands for log q sums to zero over the keys of a row, so that uniform mass on p adds nothing."""
    scale_free = False
    """Whether q stays the same when all representations grow by one factor."""
    mixture = 0.0
    """Uniform mass on q."""
    affinity = "distance"
    """What the kernel is a function of: "distance", "cosine", "dot" or "memberships"."""
    by_degree = False
    """Whether keys are weighed by their degrees."""
    learns: tuple = ()
    """Names of the parameters that are to be learned beside the representations."""

    def unmixed(self):
        """The distribution inside of uniform mixtures."""
        return self

    def prepare(self, z, keys, degrees=None):
        """(rows, keys) in the form that `paired` and `pairwise` read."""
        return z, keys

    @abstractmethod
    def paired(self, z, keys):
        """Log-kernel of row i of `z` with row i of `keys`, shape (n,)."""

    @abstractmethod
    def pairwise(self, z, keys):
        """Log-kernel of every row of `z` with every row of `keys`, shape (n, m)."""

    def log_partition(self, log_kernel, n_choices):
        """log sum_j k_ij of each row; excluded keys hold -inf."""
        return log_kernel.logsumexp(dim=1)

    def finish(self, log_q, n_choices):
        """Log q after what a wrapper adds to it."""
        return log_q


class DistanceKernel(Learned):
    """A function of the squared Euclidean distance: subclasses give `log_kernel`."""

    euclidean = True
    has_pole = False
    """Whether log k is unbounded where the distance is zero: distances are exact there, and `euclidean` is False."""

    def sq_distances(self, z, keys):
        """|z_i - y_j|^2 of all pairs: from differences under a pole, which would magnify a product's rounding."""
        if not self.has_pole:
            return sq_distances(z, keys)
        from .._core.differences import sq_distances_by_differences

        return sq_distances_by_differences(z, keys)

    @abstractmethod
    def log_kernel(self, sq_distance):
        """Log k, elementwise."""

    def paired(self, z, keys):
        """Log k of matching rows; see `Learned.paired`."""
        return self.log_kernel((z - keys).square().sum(1))

    def pairwise(self, z, keys):
        """Log k of all pairs; see `Learned.pairwise`."""
        return self.log_kernel(self.sq_distances(z, keys))

    def slope(self, sq_distance):
        """d log k / d (d^2), elementwise: a tensor, or a number where it is constant."""
        raise TypeError(f"{type(self).__name__} has no closed-form slope.")

    def kernel_and_slope(self, sq_distance, spare):
        """(k, dk / d (d^2)), elementwise, k not below exp(LOG_FLOOR).

        Outside autograd; both arguments may be overwritten.
        """
        kernel = self.log_kernel(sq_distance).clamp_min_(LOG_FLOOR).exp_()
        return kernel, spare.copy_(kernel).mul_(self.slope(sq_distance))


def sq_distances(a, b):
    """|a_i - b_j|^2 for all pairs, by one matrix product, not below zero.

    Between near rows most of it is the product's rounding, which differs from one processor to another.
    """
    sq_a, sq_b = a.square().sum(1, keepdim=True), b.square().sum(1)
    return (sq_b - 2 * (a @ b.T)).add_(sq_a).clamp_min(0)


def tiny(tensor):
    import torch

    return torch.finfo(tensor.dtype).tiny
