"""Kernels of distances and cosines: the rows of maps, contrastive learning and classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any

from sklearn.utils._param_validation import Interval, StrOptions

from .._core.spec import answer
from ._base import DistanceKernel, Gradients, Learned, Pull, SlopeTerms

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

_LEAST = 1e-18  # width: its square, and one over it, are numbers of single precision


_GAUSS_NEWTON = 40  # steps, each of which leaves a tenth or less of what is lacking
_SOFTENED = 0.01  # of the squared spread of `Rational`, within which it is flat


class Gaussian(DistanceKernel):
    r"""Gaussian kernel, the q of SNE and of contrastive learning.

    ::

        q(j|i) ~ exp(-|z_i - z_j|^2 / (2 sigma^2))     metric="euclidean"
        q(j|i) ~ exp(cos(z_i, z_j) / tau)              metric="cosine"
        q(j|i) ~ exp(z_i . z_j / tau)                  metric="dot"

    Parameters
    ----------
    sigma : float, default=1.0
        The width, in units of the representation, from 1e-18 to 1e18: squares are numbers of single precision.
    metric : {"euclidean", "cosine", "dot"}, default="euclidean"
        The affinity of a pair.
    tau : float or "learn", default=None
        Temperature of cosine and dot products. None: sigma^2, for which the cosine kernel is the Euclidean one
        on unit rows. "learn": `ICONClassifier`, `ICONCrossModal` and `nn.ICONLoss` fit it, of a cosine. It is refused
        beside distances, which do not read it, and beside another sigma than 1.

    References
    ----------
    Hinton and Roweis, NIPS 2002, eq. 2; Chen et al., "SimCLR", ICML 2020, eq. 1.

    Examples
    --------
    >>> from sklearn_icon.learned import Gaussian
    >>> Gaussian(metric="cosine", tau=0.1)
    Gaussian(metric='cosine', tau=0.1)
    """

    smooth_at_zero = True
    _parameter_constraints = {
        "sigma": [Interval(Real, _LEAST, 1 / _LEAST, closed="both")],
        "metric": [StrOptions({"euclidean", "cosine", "dot"})],
        "tau": [Interval(Real, _LEAST**2, 1 / _LEAST**2, closed="both"), StrOptions({"learn"}), None],
    }

    def __init__(self, sigma: float = 1.0, metric: str = "euclidean", tau: Any = None) -> None:
        self.sigma = sigma
        self.metric = metric
        self.tau = tau

    def validate(self) -> Self:
        """Also refuse a temperature that is not read, or given twice; see `Spec.validate`."""
        super().validate()
        if self.euclidean and self.tau is not None:
            raise ValueError(
                f"metric='euclidean' reads no tau, got tau={self.tau!r}; use metric='cosine' or metric='dot', or sigma."
            )
        if self.tau is not None and self.sigma != 1:
            raise ValueError(f"sigma={self.sigma!r} and tau={self.tau!r} both set the temperature; leave one out.")
        return self

    @answer
    def scale_free(self) -> bool:
        """The cosine knows no lengths."""
        return self.metric == "cosine"

    @answer
    def euclidean(self) -> bool:
        """Whether the affinity is a squared distance."""
        return self.metric == "euclidean"

    @answer
    def pulls_in_half(self) -> bool:
        """Products may be; differences of near rows would be lost."""
        return not self.euclidean

    @answer
    def affinity(self) -> str:
        """As the metric says."""
        return "distance" if self.euclidean else self.metric

    @answer
    def learns(self) -> tuple[str, ...]:
        """The temperature, where it is not given."""
        return ("tau",) if self.tau == "learn" else ()

    def present(self, *values: Tensor) -> Learned:
        """With the temperature as it is now; see `Learned.present`."""
        return Gaussian(metric=self.metric, tau=values[0]) if values else self

    def prepare(self, z: Tensor, keys: Tensor, degrees: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Unit rows for the cosine; see `Learned.prepare`."""
        if self.metric == "cosine":
            from .._core.unit_rows import unit_rows

            rows = unit_rows(z)
            return rows, rows if keys is z else unit_rows(keys)
        return z, keys

    @answer
    def log_least(self) -> Any:
        """Of opposite rows, under the cosine."""
        return -1 / self.temperature if self.metric == "cosine" else -inf

    @property
    def temperature(self) -> Any:
        """What cosine and dot products are divided by."""
        return self.sigma**2 if self.tau is None else self.tau

    def paired(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log k of matching rows; see `Learned.paired`."""
        if self.euclidean:
            return super().paired(z, keys)
        return (z * keys).sum(1) / self.temperature

    def pairwise(self, z: Tensor, keys: Tensor) -> Tensor:
        """Log k of all pairs; see `Learned.pairwise`."""
        if self.euclidean:
            return super().pairwise(z, keys)
        return (z / self.temperature) @ keys.T

    def pairwise_and_pull(self, z: Tensor, keys: Tensor) -> tuple[Tensor, Pull]:
        """Of products; see `Learned.pairwise_and_pull`."""
        if self.euclidean:
            return super().pairwise_and_pull(z, keys)

        def pulled(weights: Tensor, rows: Tensor) -> Tensor:
            return (weights @ rows.to(weights.dtype)).to(rows.dtype).div_(self.temperature)

        def pull(weights: Tensor, wanted: Sequence[bool]) -> Gradients:
            if keys is z:
                return pulled(weights + weights.T, z), None
            return pulled(weights, keys) if wanted[0] else None, pulled(weights.T, z) if wanted[1] else None

        return self.pairwise(z, keys), pull

    def log_kernel(self, sq_distance: Tensor) -> Tensor:
        """-d^2 / (2 sigma^2)."""
        return sq_distance * self.slope(sq_distance)

    def slope(self, sq_distance: Tensor) -> float:
        """-1 / (2 sigma^2)."""
        return -1 / (2 * self.sigma**2)

    @answer
    def slope_terms(self) -> SlopeTerms | None:
        """(a, b, c) with slope = c / (a + b d^2)."""
        return (1.0, 0.0, -1 / (2 * self.sigma**2)) if self.euclidean else None


class StudentT(DistanceKernel):
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

    smooth_at_zero = True
    _parameter_constraints = {"df": [Interval(Real, 0, None, closed="neither"), StrOptions({"learn"})]}

    def __init__(self, df: Any = 1.0) -> None:
        self.df = df

    @answer
    def learns(self) -> tuple[str, ...]:
        """The degrees of freedom, where they are not given."""
        return ("df",) if self.df == "learn" else ()

    def present(self, *values: Tensor) -> Learned:
        """With the degrees of freedom as they are now; see `Learned.present`."""
        return StudentT(df=values[0]) if values else self

    def log_kernel(self, sq_distance: Tensor) -> Tensor:
        """-(nu + 1) / 2 * log(1 + d^2 / nu)."""
        return -(self.df + 1) / 2 * (sq_distance / self.df).log1p()

    def slope(self, sq_distance: Tensor) -> Tensor:
        """-(nu + 1) / (2 (nu + d^2))."""
        return -(self.df + 1) / 2 / (sq_distance + self.df)

    @answer
    def slope_terms(self) -> SlopeTerms | None:
        """(a, b, c) with slope = c / (a + b d^2)."""
        return float(self.df), 1.0, -(self.df + 1) / 2

    def kernel_and_slope(self, sq_distance: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
        """(k, dk / d (d^2)); one reciprocal serves both for the Cauchy kernel."""
        if self.df != 1:
            return super().kernel_and_slope(sq_distance, spare)
        kernel = sq_distance.add_(1).reciprocal_()
        return kernel, spare.copy_(kernel).square_().neg_()


class Harmonic(DistanceKernel):
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
    has_pole = True
    _parameter_constraints = {"n": [Interval(Real, 0, None, closed="neither")]}

    def __init__(self, n: float = 1.0) -> None:
        self.n = n

    def log_kernel(self, sq_distance: Tensor) -> Tensor:
        """-n log d^2, finite at zero."""
        return -self.n * sq_distance.clamp_min(1e-12).log()


class Rational(DistanceKernel):
    r"""Rational kernel with a flat top, the q of UMAP before it is sampled.

    ::

        q(j|i) ~ 1 / (1 + a ((|z_i - z_j|^2 + e) ** b - e ** b))

    with a and b as umap-learn fits them to 1 up to `min_dist` and exp(-(d - min_dist) / spread) beyond, and e a
    hundredth of the squared spread, which takes off the kink at zero that UMAP's kernel has without it.

    Parameters
    ----------
    min_dist : float, default=0.1
        The distance within which rows count as near: smaller for denser clumps.
    spread : float, default=1.0
        How fast nearness falls beyond; the unit of the map.

    References
    ----------
    McInnes, Healy and Melville, "UMAP", arXiv 1802.03426, definition 11.

    Examples
    --------
    >>> from sklearn_icon.learned import Rational
    >>> [round(float(part), 3) for part in Rational().tail]
    [1.577, 0.895]
    """

    _parameter_constraints = {
        "min_dist": [Interval(Real, 0, None, closed="left")],
        "spread": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, min_dist: float = 0.1, spread: float = 1.0) -> None:
        self.min_dist = min_dist
        self.spread = spread

    @property
    def tail(self) -> tuple[float, float]:
        """(a, b)."""
        return _fitted_tail(float(self.min_dist), float(self.spread))

    @answer
    def power_terms(self) -> tuple[float, float, float, float]:
        """(a, b, 1 - a e^b, e)."""
        (a, b), e = self.tail, _SOFTENED * self.spread**2
        return a, b, 1 - a * e**b, e

    def log_kernel(self, sq_distance: Tensor) -> Tensor:
        """-log(1 + a ((d^2 + e)^b - e^b))."""
        (a, b), e = self.tail, _SOFTENED * self.spread**2
        return -(a * ((sq_distance + e) ** b - e**b)).log1p()

    def slope(self, sq_distance: Tensor) -> Tensor:
        """-a b (d^2 + e)^(b - 1) / (1 + a ((d^2 + e)^b - e^b))."""
        (a, b), e = self.tail, _SOFTENED * self.spread**2
        power = a * (sq_distance + e) ** b
        return -b * power / ((sq_distance + e) * (1 - a * e**b + power))

    def kernel_and_slope(self, sq_distance: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
        """(k, dk / d (d^2)) from one power."""
        import torch

        (a, b), e = self.tail, _SOFTENED * self.spread**2
        shifted = sq_distance.add_(e)
        power = torch.pow(shifted, b, out=spare).mul_(a)
        ratio = torch.div(power, shifted, out=shifted)
        kernel = power.add_(1 - a * e**b).reciprocal_()
        return kernel, ratio.mul_(-b).mul_(kernel).mul_(kernel)


@cache
def _fitted_tail(min_dist: float, spread: float) -> tuple[float, float]:
    """(a, b) of `Rational` by least squares, as umap-learn fits them, but to the last digits on every processor."""
    import numpy as np
    from scipy.optimize import least_squares

    distances = np.linspace(0, 3, 300)[1:]  # in units of the spread; at zero all curves are one
    nearest = min_dist / spread
    wanted, sq = np.where(distances < nearest, 1.0, np.exp(nearest - distances)), distances**2
    a, b = least_squares(lambda tail: 1 / (1 + tail[0] * sq ** tail[1]) - wanted, (1.0, 1.0)).x
    for _ in range(_GAUSS_NEWTON):
        power = sq**b
        curve = 1 / (1 + a * power)
        slopes = -(curve**2) * power * np.stack([np.ones_like(sq), a * np.log(sq)])
        a, b = (a, b) - np.linalg.lstsq(slopes.T, curve - wanted, rcond=None)[0]
    return float(a * spread ** (-2 * b)), float(b)
