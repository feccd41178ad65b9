"""Learned distributions q(j|i): what the representations say about who belongs with whom.

A spec holds parameters. Its methods turn representations into log-kernels; the objective turns those into
log q. Formulas are the rows of I-Con's table 1 (Alshammari et al., ICLR 2025). Every kernel is a function of one
affinity of a pair (squared distance, cosine or dot product), so each class adds two or three lines of mathematics.
"""

from abc import abstractmethod
from math import log, log1p
from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions

from ._spec import Spec

__all__ = [
    "Gaussian",
    "Harmonic",
    "NarrowGaussian",
    "SharedCluster",
    "StudentT",
    "UniformMixture",
    "WideGaussian",
]

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


def sq_distances(a, b):
    """|a_i - b_j|^2 for all pairs, by one matrix product, not below zero."""
    sq_a, sq_b = a.square().sum(1, keepdim=True), b.square().sum(1)
    return (sq_b - 2 * (a @ b.T)).add_(sq_a).clamp_min(0)


def _unit_rows(z):
    return z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)


class _DistanceKernel(Learned):
    """A function of the squared Euclidean distance: subclasses give `log_kernel`."""

    euclidean = True

    @abstractmethod
    def log_kernel(self, sq_distance):
        """Log k, elementwise."""

    def paired(self, z, keys):
        """Log k of matching rows; see `Learned.paired`."""
        return self.log_kernel((z - keys).square().sum(1))

    def pairwise(self, z, keys):
        """Log k of all pairs; see `Learned.pairwise`."""
        return self.log_kernel(sq_distances(z, keys))

    def slope(self, sq_distance):
        """d log k / d (d^2), elementwise: a tensor, or a number where it is constant."""
        raise TypeError(f"{type(self).__name__} has no closed-form slope.")

    def kernel_and_slope(self, sq_distance, spare):
        """(k, dk / d (d^2)), elementwise, k not below exp(LOG_FLOOR).

        Outside autograd; both arguments may be overwritten.
        """
        kernel = self.log_kernel(sq_distance).clamp_min_(LOG_FLOOR).exp_()
        return kernel, spare.copy_(kernel).mul_(self.slope(sq_distance))


class Gaussian(_DistanceKernel):
    r"""Gaussian kernel, the q of SNE and of contrastive learning.

    ::

        q(j|i) ~ exp(-|z_i - z_j|^2 / (2 sigma^2))     metric="euclidean"
        q(j|i) ~ exp(cos(z_i, z_j) / tau)              metric="cosine"
        q(j|i) ~ exp(z_i . z_j / tau)                  metric="dot"

    Parameters
    ----------
    sigma : float, default=1.0
        The width, in units of the representation.
    metric : {"euclidean", "cosine", "dot"}, default="euclidean"
        The affinity of a pair.
    tau : float or "learn", default=None
        Temperature of cosine and dot products. None: sigma^2, for which the cosine kernel is the Euclidean one
        on unit rows. "learn": `ICONClassifier`, `ICONCrossModal` and `nn.ICONLoss` fit it, of a cosine.

    References
    ----------
    Hinton and Roweis, NIPS 2002, eq. 2; Chen et al., "SimCLR", ICML 2020, eq. 1.

    Examples
    --------
    >>> from sklearn_icon.learned import Gaussian
    >>> Gaussian(metric="cosine", tau=0.1)
    Gaussian(metric='cosine', tau=0.1)
    """

    _parameter_constraints = {
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "metric": [StrOptions({"euclidean", "cosine", "dot"})],
        "tau": [Interval(Real, 0, None, closed="neither"), StrOptions({"learn"}), None],
    }

    def __init__(self, sigma=1.0, metric="euclidean", tau=None):
        self.sigma = sigma
        self.metric = metric
        self.tau = tau

    @property
    def scale_free(self):
        """The cosine knows no lengths."""
        return self.metric == "cosine"

    @property
    def euclidean(self):
        """Whether the affinity is a squared distance."""
        return self.metric == "euclidean"

    def prepare(self, z, keys, degrees=None):
        """Unit rows for the cosine; see `Learned.prepare`."""
        if self.metric == "cosine":
            return _unit_rows(z), _unit_rows(keys)
        return z, keys

    @property
    def temperature(self):
        """What cosine and dot products are divided by."""
        return self.sigma**2 if self.tau is None else self.tau

    def paired(self, z, keys):
        """Log k of matching rows; see `Learned.paired`."""
        if self.euclidean:
            return super().paired(z, keys)
        return (z * keys).sum(1) / self.temperature

    def pairwise(self, z, keys):
        """Log k of all pairs; see `Learned.pairwise`."""
        if self.euclidean:
            return super().pairwise(z, keys)
        return z @ keys.T / self.temperature

    def log_kernel(self, sq_distance):
        """-d^2 / (2 sigma^2)."""
        return sq_distance * self.slope(sq_distance)

    def slope(self, sq_distance):
        """-1 / (2 sigma^2)."""
        return -1 / (2 * self.sigma**2)

    @property
    def slope_terms(self):
        """(a, b, c) with slope = c / (a + b d^2)."""
        return 1.0, 0.0, -1 / (2 * self.sigma**2)


class WideGaussian(_DistanceKernel):
    r"""The Gaussian exp(-d^2 / s^2) as s grows: the cohesion-variance loss, the q of PCA and VICReg.

    ::

        s^2 (L(s) - log N)  ->  mean_i [ sum_j p(j|i) d_ij^2  -  mean_j d_ij^2 ]

    The second term is -2 Var where every row is a key. A uniform mass a on p, over the same keys, leaves (1 - a) times
    the loss. A limit of scaled losses, not a distribution: it works with divergence="kl" and without a uniform mixture
    on q. It falls without bound as rows spread, so that networks' representations are scaled to unit length, and a
    linear encoder must be orthonormal.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, appendix on dimensionality reduction.

    Examples
    --------
    >>> from sklearn_icon.learned import WideGaussian
    >>> WideGaussian()
    WideGaussian()
    """

    euclidean = False
    is_limit = True
    centred = True

    def log_kernel(self, sq_distance):
        """-d^2."""
        return -sq_distance

    def log_partition(self, log_kernel, n_choices):
        """-mean_j d_ij^2; excluded keys hold -inf."""
        return log_kernel.masked_fill(log_kernel.isneginf(), 0).sum(1) / n_choices


class NarrowGaussian(_DistanceKernel):
    r"""The Gaussian exp(-d^2 / s^2) as s shrinks: the zero-margin triplet loss.

    ::

        s^2 L(s)  ->  mean_i [ sum_j p(j|i) d_ij^2  -  min_k d_ik^2 ]

    A uniform mass a on p adds a mean_j d_ij^2 to (1 - a) times the first term. A limit of scaled losses, not a
    distribution: it works with divergence="kl" and without a uniform mixture on q. It falls as all rows shrink, so that
    networks' representations are scaled to unit length.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, appendix on contrastive learning.

    Examples
    --------
    >>> from sklearn_icon.learned import NarrowGaussian
    >>> NarrowGaussian()
    NarrowGaussian()
    """

    euclidean = False
    is_limit = True

    def log_kernel(self, sq_distance):
        """-d^2."""
        return -sq_distance

    def log_partition(self, log_kernel, n_choices):
        """-min_j d_ij^2."""
        return log_kernel.amax(dim=1)


class StudentT(_DistanceKernel):
    r"""Student-t kernel, the q of t-SNE and t-SimCLR.

    ::

        q(j|i) ~ (1 + |z_i - z_j|^2 / nu) ** (-(nu + 1) / 2)

    Parameters
    ----------
    df : float or "learn", default=1.0
        Degrees of freedom nu: 1 is the Cauchy kernel of t-SNE, smaller has a heavier tail. "learn" lets a lookup map
        of `ICONEmbedding` descend its loss over nu as well, and makes it a parameter of `nn.ICONLoss`.

    References
    ----------
    van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008, eq. 4; van der Maaten, "Learning a parametric
    embedding by preserving local structure", AISTATS 2009, section 3, on learned degrees of freedom.

    Examples
    --------
    >>> from sklearn_icon.learned import StudentT
    >>> StudentT(df=2.0)
    StudentT(df=2.0)
    """

    _parameter_constraints = {"df": [Interval(Real, 0, None, closed="neither"), StrOptions({"learn"})]}

    def __init__(self, df=1.0):
        self.df = df

    def log_kernel(self, sq_distance):
        """-(nu + 1) / 2 * log(1 + d^2 / nu)."""
        return -(self.df + 1) / 2 * (sq_distance / self.df).log1p()

    def slope(self, sq_distance):
        """-(nu + 1) / (2 (nu + d^2))."""
        return -(self.df + 1) / 2 / (sq_distance + self.df)

    @property
    def slope_terms(self):
        """(a, b, c) with slope = c / (a + b d^2)."""
        return float(self.df), 1.0, -(self.df + 1) / 2

    def kernel_and_slope(self, sq_distance, spare):
        """(k, dk / d (d^2)); one reciprocal serves both for the Cauchy kernel."""
        if self.df != 1:
            return super().kernel_and_slope(sq_distance, spare)
        kernel = sq_distance.add_(1).reciprocal_()
        return kernel, spare.copy_(kernel).square_().neg_()


class Harmonic(_DistanceKernel):
    r"""Harmonic kernel: the tail of a Student-t without its core.

    ::

        q(c|i) ~ (|z_i - w_c|^2) ** (-n)

    Meant for keys that are prototypes: a row on top of a key takes all its mass.

    Parameters
    ----------
    n : float, default=1.0
        The exponent of squared distances: half of the paper's, which is one of distances.

    References
    ----------
    Baek et al., "Harmonic loss trains interpretable AI models", arXiv 2502.01628, eq. 2.

    Examples
    --------
    >>> from sklearn_icon.learned import Harmonic
    >>> Harmonic(n=4.0)
    Harmonic(n=4.0)
    """

    euclidean = False
    scale_free = True
    _parameter_constraints = {"n": [Interval(Real, 0, None, closed="neither")]}

    def __init__(self, n=1.0):
        self.n = n

    def log_kernel(self, sq_distance):
        """-n log d^2, finite at zero."""
        return -self.n * sq_distance.clamp_min(1e-12).log()


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
    _parameter_constraints = {"weights": [StrOptions({"degree"}), None]}

    def __init__(self, weights=None):
        self.weights = weights

    def prepare(self, z, keys, degrees=None):
        """Log-memberships of rows and keys, and log (d_j / cluster mass) for each key and cluster."""
        log_phi, log_keys = z.log_softmax(dim=1), keys.log_softmax(dim=1)
        if self.weights == "degree" and degrees is not None:
            log_keys = log_keys + degrees.clamp_min(_tiny(degrees)).log()[:, None]
        return log_phi, log_keys - log_keys.logsumexp(dim=0)

    def paired(self, z, keys):
        """Log q of matching rows; see `Learned.paired`."""
        return (z + keys).logsumexp(dim=1)

    def pairwise(self, z, keys):
        """Log q of all pairs, by one matrix product over clusters; see `Learned.pairwise`."""
        top_z, top_keys = z.detach().amax(1, keepdim=True), keys.detach().amax(1)
        product = (z - top_z).exp() @ (keys - top_keys[:, None]).exp().T
        return product.clamp_min(_tiny(product)).log() + top_z + top_keys


def _tiny(tensor):
    import torch

    return torch.finfo(tensor.dtype).tiny


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


NAMES = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "wide_gaussian": WideGaussian,
    "narrow_gaussian": NarrowGaussian,
    "cluster": SharedCluster,
    "harmonic": Harmonic,
}
