"""Specs of p that measure distances: on X, or on companion features."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.special import logsumexp
from sklearn.metrics import pairwise_distances
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions

from .._core.conditional import Conditional, rows_of_table
from .._core.group import group
from .._core.pieces import at_once, room, slices
from .._core.rows import of_numbers
from .._core.spec import answer
from .._core.types import Array, Jobs, Metric, Rows, Seed
from .._graph.affinity import (
    gaussian_log_affinity,
    local_exponentials,
    narrow_log_affinity,
    normalize_log_rows,
    perplexity_rows,
    student_t_log_affinity,
)
from .._graph.checks import check_defined
from .._graph.neighbors import graph_neighbors, nearest_neighbors
from ._base import Supervisory, shrink

if TYPE_CHECKING:
    from typing import Self

    from .._graph.neighbors import Neighbors

_DEFAULT_PERPLEXITY = 30.0
_DEFAULT_N_NEIGHBORS = 15
_FULL_ROWS = 2000
_SQ_RANGE = np.finfo(np.float64).tiny, 1e300  # of squares in full precision
_NUMBERS_AT_ONCE = 1 << 24  # of distances, whose squares are in double precision
_TIED = 8  # neighbours that are searched for the nearest ones, before twice as many


def _kernel_rows(
    distances: Array, perplexity: Any, sigma: float | None, log_affinity: Callable[..., Array], n_jobs: Jobs = None
) -> Array:
    """Rows of a kernel over distances, of fixed width `sigma` or of given perplexity."""
    rows = room(distances.shape, np.float64)
    for part in slices(len(rows), max(1, at_once(_NUMBERS_AT_ONCE) // rows.shape[1])):
        if sigma is None:
            rows[part] = perplexity_rows(_squared(distances[part]), perplexity, log_affinity, n_jobs)
        else:
            rows[part] = normalize_log_rows(log_affinity(_plain_squares(distances[part], sigma), _sq_sigma(sigma)))
    return rows


def _plain_squares(distances: Array, sigma: float) -> Array:
    """Squares, to be compared with that of a width; a ValueError where they overflow."""
    if not distances.max(initial=0.0) <= np.sqrt(_SQ_RANGE[1]):
        raise ValueError(
            "some distances have squares beyond the range of double precision, to be compared with that of "
            f"sigma={sigma:g}; bring X, and sigma with it, to a scale nearer one."
        )
    return np.square(distances, dtype=np.float64)


def _squared(distances: Array) -> Array:
    """Squares, in units of a row's median where those of the distances are not all numbers of full precision."""
    with np.errstate(over="ignore", under="ignore"):
        sq_distances = np.square(distances, dtype=np.float64)
        if sq_distances.max() < _SQ_RANGE[1]:
            if sq_distances.min() >= _SQ_RANGE[0] or not ((sq_distances < _SQ_RANGE[0]) & (distances > 0)).any():
                return sq_distances
        median = np.median(np.asarray(distances, dtype=np.float64), axis=1, keepdims=True)
        unit = np.where(median > 0, median, distances.max(axis=1, keepdims=True))
        return np.minimum(np.square(distances / np.where(unit > 0, unit, 1)), _SQ_RANGE[1])


def _sq_sigma(sigma: float) -> float:
    """The square of a width, a number of full precision; zero where the width is."""
    low, high = np.sqrt(_SQ_RANGE)
    if sigma != 0 and not low <= sigma <= high:
        raise ValueError(
            f"sigma={sigma:g} has a square beyond the range of double precision; bring X, and sigma with it, to a "
            "scale nearer one."
        )
    return float(sigma) ** 2


class Neighborhood(Supervisory):
    """Shared by the specs that measure distances: p lives on each row's nearest neighbours."""

    _parameter_constraints = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "metric": [str, callable],
        "metric_params": [dict, None],
        "source": [StrOptions({"X", "y"})],
    }

    @answer
    def needs_y(self) -> str:
        """Companion features, where `source='y'`."""
        return "companion features (2-D)" if self.source == "y" else ""

    @property
    def neighborhood(self) -> Neighborhood | None:
        """The spec itself, where it measures distances on X; see `Supervisory.neighborhood`."""
        return self if self.source == "X" else None

    @answer
    def pairwise(self) -> bool:
        """Whether X holds distances; see `Supervisory.pairwise`."""
        return self.source == "X" and self.metric == "precomputed"

    def reads(self, X: Rows, y: Any = None) -> str:
        """Features or distances; see `Supervisory.reads`."""
        return "distances" if self.pairwise else "features"

    def check_batch(self) -> None:
        """A batch has companion features only; see `Supervisory.check_batch`."""
        if self.source == "X":
            raise ValueError(
                f"supervisory={self} measures distances on X, but the loss sees representations only; set source='y' "
                "and pass companion features as y."
            )

    @abstractmethod
    def rows_at(self, distances: Array) -> Array:
        """Rows p(.|new) of new rows over given neighbour distances, each row on its own."""

    def check_rows(self, X: Rows) -> None:
        """Refuse new rows that the metric is not defined for, as at the fit."""
        if self.metric in ("cosine", "correlation"):
            check_defined(self.metric, X, "X")

    def _features(self, X: Rows, y: Any) -> Rows:
        if self.source == "X":
            return X if sparse.issparse(X) else np.asarray(X)
        features = self._require_y(X, y)
        if not sparse.issparse(features):
            features = np.asarray(features, dtype=np.float64)
            features = features.reshape(len(features), -1)
        return check_array(features, accept_sparse="csr", input_name="y")

    def _neighbors(self, features: Rows, n_neighbors: int, n_jobs: Jobs, random_state: Seed) -> Neighbors:
        return nearest_neighbors(
            features,
            n_neighbors,
            metric=self.metric,
            metric_params=self.metric_params,
            n_jobs=n_jobs,
            random_state=random_state,
            ranked=False,
            name=self.source,
        )

    def _most_neighbors(self, features: Rows) -> tuple[int, str]:
        """(how many neighbours each row may have, what holds no more): all other rows, or those of a graph's rows."""
        n = group().total(features.shape[0])
        if self.metric != "precomputed" or not sparse.issparse(features):
            return n - 1, f"{n} samples"
        most = int(graph_neighbors(features).min())
        return most, f"a graph of {most} neighbors a row"

    @staticmethod
    def _on_neighbors(neighbors: Neighbors, rows: Array, n: int) -> Conditional:
        """Sparse weights, of all rows to all of n rows, from per-row weights over the neighbours."""
        weights = rows_of_table(rows, neighbors.indices, n)
        p = Conditional.from_weights(weights, exclude_self=True, recall=neighbors.recall, first=group().first)
        return replace(p, neighbors=neighbors)


class _DistanceKernel(Neighborhood):
    """A kernel of the distance to the neighbours, its width fixed or set by a perplexity."""

    _parameter_constraints = Neighborhood._parameter_constraints | {
        "perplexity": [Interval(Real, 1, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither"), None],
    }

    compares_all_pairs = True

    def validate(self) -> Self:
        """Also check that the width has a square; see `Spec.validate`."""
        super().validate()
        if self.sigma is not None:
            _sq_sigma(self.sigma)
        return self

    @abstractmethod
    def _log_affinity(self) -> Callable[..., Array]:
        """The function (sq_distances, sq_sigma) -> log-kernel."""

    def most_edges(self, n_rows: int) -> int:
        """See `Supervisory.most_edges`."""
        if self.n_neighbors is not None:
            return min(self.n_neighbors, n_rows)
        return n_rows if self.sigma is not None or n_rows <= _FULL_ROWS else min(int(3 * self.perplexity) + 1, n_rows)

    def _support(self, features: Rows) -> tuple[float | None, int]:
        """(perplexity, n_neighbors) for the rows: what fits, or an error that names the limit."""
        n, (most, data) = group().total(features.shape[0]), self._most_neighbors(features)
        limit = most if self.n_neighbors is None else self.n_neighbors
        perplexity = self.perplexity
        if self.sigma is not None:
            return None, max(1, limit)
        if perplexity > limit > 0 and type(perplexity) is float and perplexity == _DEFAULT_PERPLEXITY:
            data = data if self.n_neighbors is None else f"n_neighbors={limit}"
            perplexity = shrink("perplexity", perplexity, max(1.0, limit / 3), data)
        if n - 1 == limit < perplexity < n:
            warnings.warn(
                f"perplexity={perplexity:g} is above that of uniform weights on the {limit} other rows, which are "
                "used.",
                stacklevel=2,
            )
            perplexity = float(limit)
        if perplexity > limit:
            raise self._too_large(perplexity, features, most)
        if self.n_neighbors is not None or n <= _FULL_ROWS:
            return perplexity, limit
        return perplexity, min(limit, int(3 * perplexity) + 1)

    def _too_large(self, perplexity: float, features: Rows, most: int) -> ValueError:
        """The error of a perplexity above the neighbours that there are."""
        n = group().total(features.shape[0])
        needs = f"perplexity={perplexity:g} needs at least that many neighbors, but"
        if self.n_neighbors is not None and self.n_neighbors < n - 1:
            return ValueError(f"{needs} n_neighbors={self.n_neighbors}; lower perplexity or raise n_neighbors.")
        if most < n - 1:
            usual, row = min(int(3 * perplexity) + 1, n - 1), graph_neighbors(features).argmin()
            return ValueError(
                f"{needs} X is a graph of {most} neighbors a row, no more in row {row}; lower perplexity, or build the "
                f"graph by KNeighborsTransformer(mode='distance', n_neighbors={usual}). For as many, and each row "
                f"itself, {usual + 1} neighbors per samples are required, but some samples have only {most + 1}."
            )
        bound = f"perplexity ({perplexity:g}) must be less than n_samples ({n}): " if perplexity >= n else ""
        return ValueError(
            f"{bound}perplexity={perplexity:g} needs at least {int(np.ceil(perplexity)) + 1} samples, got {n}; "
            f"set perplexity to at most {n - 1}."
        )

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p on the nearest neighbours of each row; see `Supervisory.conditional`."""
        features = self._features(X, y)
        perplexity, n_neighbors = self._support(features)
        if self.narrow:
            neighbors = self._nearest(features, n_neighbors, n_jobs, random_state)
        else:
            neighbors = self._neighbors(features, n_neighbors, n_jobs, random_state)
        rows = _kernel_rows(neighbors.distances, perplexity, self.sigma, self._log_affinity(), n_jobs)
        return self._on_neighbors(neighbors, rows, group().total(features.shape[0]))

    def _nearest(self, features: Rows, most: int, n_jobs: Jobs, random_state: Seed) -> Neighbors:
        """As many neighbours as the row with the most ties for the nearest has, or a few more."""
        n_neighbors = min(_TIED, most)
        while True:
            neighbors = self._neighbors(features, n_neighbors, n_jobs, random_state)
            least, largest = neighbors.distances.min(axis=1), neighbors.distances.max(axis=1)
            if n_neighbors == most or not group().total(int((least == largest).sum())):
                return neighbors
            n_neighbors = min(2 * n_neighbors, most)

    def measured_rows(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Rows:
        """The rows between which p measures distances, all pairs: those of X, or of the companion features."""
        if self.n_neighbors is not None:
            raise ValueError(
                f"divergence='reverse_kl' compares all pairs of rows, among which n_neighbors={self.n_neighbors} of "
                f"{self} has no say; leave it out, or use divergence='kl'."
            )
        return self._features(X, y)

    def log_rows_with_self(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Array:
        """log p over all rows, the row itself included, float64 of shape (n_samples, n_samples).

        For divergences that need p to be positive on all keys; from what `conditional` reads.
        """
        if self.sigma is None:
            raise ValueError(
                "divergence='reverse_kl' with debias=0 compares all rows under one width, but sigma=None in "
                f"{self}; set sigma, or debias > 0."
            )
        features, more = self.measured_rows(X, y), self.metric_params or {}
        with np.errstate(over="ignore", invalid="ignore"):
            distances = pairwise_distances(features, metric=of_numbers(self.metric), **more)
        log_p = self._log_affinity()(_plain_squares(distances, self.sigma), _sq_sigma(self.sigma))
        return log_p - logsumexp(log_p, axis=1, keepdims=True)

    def rows_at(self, distances: Array) -> Array:
        """Rows p(.|new) of new rows over given neighbour distances, each row on its own."""
        limit = distances.shape[1]
        perplexity = self.perplexity if self.perplexity <= limit else max(1.0, limit / 3)
        return _kernel_rows(distances, perplexity, self.sigma, self._log_affinity())


class Gaussian(_DistanceKernel):
    r"""Gaussian affinities, the p of SNE and t-SNE.

    ::

        p(j|i) = exp(-d_ij^2 / 2 s_i^2) / sum_k exp(-d_ik^2 / 2 s_i^2),     k != i

    A width of zero is the limit: p is uniform over the nearest other rows, one or several where they are equally far.

    Parameters
    ----------
    perplexity : float, default=30.0
        The effective number of neighbours, exp(entropy of the row), that sets each s_i. Read where `sigma` is
        None. The default shrinks, with a warning, where there are too few rows for it; any other value raises.
    sigma : float, default=None
        One fixed width s for all rows, in units of the distance; 0 is the limit of narrow ones, which has no units. Of
        that limit the reverse KL of clusters, times s^2, is the inertia of k-means.
    n_neighbors : int, default=None
        How many nearest neighbours carry the row. None: all other rows where `sigma` is given or there are no more
        than 2,000; else 3 * perplexity + 1; no more than each row of a sparse graph of distances has. Refused beside
        reverse KL, which compares all pairs.
    metric : str or callable, default="euclidean"
        A metric of scikit-learn and pynndescent, or "precomputed": X then holds the distances between all rows, or is a
        sparse graph of those to neighbours, as by `sklearn.neighbors.KNeighborsTransformer(mode="distance")`, and a
        perplexity is at most its neighbours a row.
    source : {"X", "y"}, default="X"
        "y" measures the distances on companion features given as `y`, dense or sparse; a 1-D `y`, such as the target of
        a regression, is one feature.
    metric_params : dict, default=None
        Further arguments of the metric.

    Raises
    ------
    ValueError
        At `conditional`: a perplexity that the rows or `n_neighbors` cannot carry.

    References
    ----------
    Hinton and Roweis, "Stochastic neighbor embedding", NIPS 2002, eq. 1.

    Examples
    --------
    >>> from sklearn_icon.supervisory import Gaussian
    >>> p = Gaussian(perplexity=2).conditional([[0.0], [1.0], [2.0], [10.0]])
    >>> p.toarray().sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    _parameter_constraints = _DistanceKernel._parameter_constraints | {
        "sigma": [Interval(Real, 0, None, closed="left"), None]
    }

    def __init__(
        self,
        perplexity: float = _DEFAULT_PERPLEXITY,
        sigma: float | None = None,
        n_neighbors: int | None = None,
        metric: Metric = "euclidean",
        source: str = "X",
        metric_params: dict | None = None,
    ) -> None:
        self.perplexity = perplexity
        self.sigma = sigma
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.source = source
        self.metric_params = metric_params

    @answer
    def narrow(self) -> bool:
        """Whether the width is zero."""
        return self.sigma is not None and self.sigma == 0

    def _log_affinity(self) -> Callable[..., Array]:
        return narrow_log_affinity if self.narrow else gaussian_log_affinity


class StudentT(_DistanceKernel):
    r"""Student-t affinities, the p of the table's dual t-SNE.

    ::

        p(j|i) ~ (1 + d_ij^2 / (nu s_i^2)) ** (-(nu + 1) / 2),     j != i

    A heavy tail bounds the perplexity from below: a row whose target is out of reach takes the nearest it can.

    Parameters
    ----------
    df : float, default=1.0
        Degrees of freedom nu. One is the Cauchy kernel; the kernel tends to the Gaussian as nu grows.
    perplexity, sigma, n_neighbors, metric, source, metric_params : see `Gaussian`
        As there; sigma is positive.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, table 1.

    Examples
    --------
    >>> from sklearn_icon.supervisory import StudentT
    >>> StudentT(df=2.0, sigma=1.0).conditional([[0.0], [1.0], [3.0]]).shape
    (3, 3)
    """

    _parameter_constraints = _DistanceKernel._parameter_constraints | {
        "df": [Interval(Real, 0, None, closed="neither")]
    }

    def __init__(
        self,
        df: float = 1.0,
        perplexity: float = _DEFAULT_PERPLEXITY,
        sigma: float | None = None,
        n_neighbors: int | None = None,
        metric: Metric = "euclidean",
        source: str = "X",
        metric_params: dict | None = None,
    ) -> None:
        self.df = df
        self.perplexity = perplexity
        self.sigma = sigma
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.source = source
        self.metric_params = metric_params

    def _log_affinity(self) -> Callable[..., Array]:
        return partial(student_t_log_affinity, df=float(self.df))


class UniformKNN(Neighborhood):
    """Uniform over the k nearest neighbours.

    ::

        p(j|i) = 1 / k   where j is one of the k nearest rows to i, else 0

    Parameters
    ----------
    n_neighbors : int, default=15
        The number k. The default shrinks, with a warning, where there are no 16 rows, or a graph holds fewer neighbours
        a row; any other value raises.
    metric, source, metric_params : see `Gaussian`
        As there.

    Raises
    ------
    ValueError
        At `conditional`: n_neighbors is not below the number of rows.

    Examples
    --------
    >>> from sklearn_icon.supervisory import UniformKNN
    >>> UniformKNN(n_neighbors=1).conditional([[0.0], [1.0], [3.0]]).toarray()
    array([[0., 1., 0.],
           [1., 0., 0.],
           [0., 1., 0.]])
    """

    _parameter_constraints = Neighborhood._parameter_constraints | {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")]
    }

    def __init__(
        self,
        n_neighbors: int = _DEFAULT_N_NEIGHBORS,
        metric: Metric = "euclidean",
        source: str = "X",
        metric_params: dict | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.source = source
        self.metric_params = metric_params

    def most_edges(self, n_rows: int) -> int:
        """See `Supervisory.most_edges`."""
        return min(self.n_neighbors, n_rows)

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        features = self._features(X, y)
        n_neighbors, (most, data) = self.n_neighbors, self._most_neighbors(features)
        if n_neighbors == _DEFAULT_N_NEIGHBORS > most > 0:
            n_neighbors = shrink("n_neighbors", n_neighbors, most, data)
        neighbors = self._neighbors(features, n_neighbors, n_jobs, random_state)
        rows = room(neighbors.indices.shape, np.float64)
        rows.fill(1)
        return self._on_neighbors(neighbors, rows, group().total(features.shape[0]))

    def rows_at(self, distances: Array) -> Array:
        """Rows p(.|new) of new rows over given neighbour distances."""
        return np.full(distances.shape, 1 / distances.shape[1])


class FuzzyUnion(UniformKNN):
    r"""Local exponentials, joined so that a pair is near if either row says so: the p of UMAP.

    ::

        v(j|i) = exp(-max(0, d_ij - rho_i) / s_i),     sum_j v(j|i) = log2 k,     rho_i = min_{j: d_ij > 0} d_ij
        w_ij = v(j|i) + v(i|j) - v(j|i) v(i|j),        p(j|i) = w_ij / w_i,     mean_i D_i = sum_i w_i D_i / sum_i w_i

    Parameters
    ----------
    n_neighbors : int, default=15
        The number k, the row itself included, as umap-learn counts.
    metric, source, metric_params : see `Gaussian`
        As there.

    Raises
    ------
    ValueError
        At `conditional`: n_neighbors is one, or above the number of rows.

    References
    ----------
    McInnes, Healy and Melville, "UMAP", arXiv 1802.03426, section 3.1.

    Examples
    --------
    >>> from sklearn_icon.supervisory import FuzzyUnion
    >>> FuzzyUnion(n_neighbors=3).conditional([[0.0], [1.0], [3.0], [4.0]]).toarray()[0].round(2).tolist()
    [0.0, 0.63, 0.37, 0.0]
    """

    weighs_rows = True
    _parameter_constraints = Neighborhood._parameter_constraints | {
        "n_neighbors": [Interval(Integral, 2, None, closed="left")]
    }

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        if group().several:
            raise ValueError("FuzzyUnion() is not computed over ranks; use UniformKNN() or Gaussian().")
        features = self._features(X, y)
        n, (most, data), k = features.shape[0], self._most_neighbors(features), self.n_neighbors
        if k == _DEFAULT_N_NEIGHBORS > most + 1 > 1:
            k = shrink("n_neighbors", k, most + 1, data)
        neighbors = self._neighbors(features, k - 1, n_jobs, random_state)
        near = rows_of_table(local_exponentials(neighbors.distances), neighbors.indices, n)
        p = Conditional.from_weights(near + near.T - near * near.T, exclude_self=True, recall=neighbors.recall)
        return replace(p, neighbors=neighbors, weighs_rows=True)

    def rows_at(self, distances: Array) -> Array:
        """Rows p(.|new) of new rows over given neighbour distances, by what these rows say alone."""
        rows = local_exponentials(distances)
        return rows / rows.sum(axis=1, keepdims=True)
