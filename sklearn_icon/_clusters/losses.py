"""The losses of `ICONClustering`: what each needs, how it is solved, and its value for given memberships.

Reverse KL over all pairs is that of k-means in the limit of no width, uniform mass of one that of normalised cuts, and
all others are descended by minibatches.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.utils import gen_batches

from .. import encoders, learned, supervisory
from .._core.group import group
from .._core.pieces import has_room
from .._core.rows import is_itself
from .._core.spec import answer, shown

_STARTS, _K_MEANS_STARTS = 9, 10
_LINEAR_RATE, _LOOKUP_RATE, _NETWORK_RATE = 0.02, 0.1, 1e-3
_MOST_ROWS_IN_PAIRS = 20_000
_COPIES, _OF_ROW, _OF_DISTANCE = 2, 24, 30  # of rows, which k-means reads in blocks without room for these; bytes
_FEW_BYTES = 1 << 24  # of k-means, that are never too many
_BATCH_ROWS = 2048


def bytes_of_k_means(n_rows: int, n_clusters: int, bytes_of_rows: float) -> float:
    """What k-means holds, with copies of its rows."""
    return n_rows * (_OF_ROW + _OF_DISTANCE * n_clusters) + _COPIES * bytes_of_rows


def copies_have_room(n_rows: int, n_clusters: int, bytes_of_rows: float, allowed: float | None = None) -> bool:
    """Whether k-means holds copies of its rows, and does not read them in blocks."""
    return has_room(bytes_of_k_means(n_rows, n_clusters, bytes_of_rows), allowed, always=_FEW_BYTES)


class Data(NamedTuple):
    """What a loss is solved for: rows X, and as the encoder reads them or None; one step of p over them."""

    X: Any
    y: Any
    items: Any
    p: Any
    sample_weight: np.ndarray
    device: Any
    random_state: np.random.RandomState


class Settings(NamedTuple):
    """What users set of clusters beside the specs."""

    n_clusters: int
    divergence: str
    debias: float | str
    uniform: float  # mass, "auto" resolved
    n_init: int | str
    max_iter: int
    batch_size: int | str
    learning_rate: float | str
    tol: float
    device: str
    n_jobs: int | None
    init: Any
    algorithm: str
    verbose: int
    report: Callable[[str], Any]

    def refuse_k_means(self, why: str) -> None:
        """Refuse what is said of k-means, where there is none."""
        for name, default in (("init", "k-means++"), ("algorithm", "lloyd")):
            given = getattr(self, name)
            if is_itself(given) or given != default:
                raise ValueError(
                    f"{name}={shown(given)} is of k-means, which has no part here: {why}. Leave it out, or choose "
                    "k-means by supervisory=Gaussian(sigma=0) and divergence='reverse_kl'."
                )

    def starts(self, auto: int) -> int:
        """How many starts, "auto" resolved."""
        return auto if self.n_init == "auto" else int(self.n_init)

    def batch_rows(self, n: int) -> int:
        """Rows of a minibatch of n."""
        return min(n, _BATCH_ROWS if self.batch_size == "auto" else int(self.batch_size))


class Specs(NamedTuple):
    """p, q and the encoder."""

    p: Any
    q: learned.Learned
    encoder: encoders.Encoder


class ClusterLoss(ABC):
    """A loss of memberships."""

    solver: str | None = None  # who solves it on the CPU alone
    by_center = False  # whether a row belongs to the nearest centre of features

    def __init__(self, settings: Settings, specs: Specs):
        self.settings, self.p_spec, self.q_spec, self.encoder = settings, *specs

    def walk(self) -> tuple[Any, int]:
        """(p of one step, the longest walk): walks are drawn step by step, unless all they reach counts alike."""
        return self.p_spec.step()

    @abstractmethod
    def check(self, X_holds: str, n_samples: int) -> None:
        """Refuse specs that the loss does not take, of X that holds features, distances or a graph."""

    def place(self, device: Any) -> Any:
        """Where it is solved; refuses another place that was asked for."""
        if self.solver is None:
            return device
        if self.settings.device != "auto" and device.type != "cpu":
            raise ValueError(
                f"device={self.settings.device!r} was asked for, but {self.solver} on the CPU; use 'auto'."
            )
        return "cpu"

    @abstractmethod
    def solve(self, data: Data) -> Any:
        """The `Partition` of the lowest loss found."""

    @abstractmethod
    def value(self, X: Any, y: Any, memberships: np.ndarray) -> float:
        """The loss of rows."""

    def _k_means(self, random_state: Any, **how: Any) -> KMeans:
        """Where clusters start, or are."""
        given, init = self.settings, self.p_spec.k_means_start(self.settings.n_clusters)
        if init is not None and (is_itself(given.init) or given.init != "k-means++"):
            raise ValueError(
                f"init={shown(given.init)} and {self.p_spec} both say where k-means begins; leave one out."
            )
        return KMeans(
            given.n_clusters,
            init=given.init if init is None else init,
            n_init=given.starts(_K_MEANS_STARTS if init is None and not is_itself(given.init) else 1),
            algorithm=given.algorithm,
            verbose=given.verbose,
            random_state=random_state,
            **how,
        )


class Divergence(ClusterLoss):
    """mean_i D(p~_i || q~_i), by minibatches of rows with a positive each."""

    def check(self, X_holds: str, n_samples: int) -> None:
        """It takes all specs, and finds its starts itself."""
        self.settings.refuse_k_means("memberships are trained from starts that are searched among hard partitions")

    def solve(self, data: Data) -> Any:
        """By search over hard partitions and Adam."""
        import torch

        from .._core.seeding import seeded
        from .._optim.train import Run
        from ..encoders._networks import torch_dtype
        from .multistart import Effort, Source, solve_partition

        given, inner = self.settings, self.encoder.plain()
        single = not inner.parametric or (inner.is_linear and not inner.orthonormal)
        rate, network_rate = _LINEAR_RATE if inner.parametric else _LOOKUP_RATE, _NETWORK_RATE
        if given.learning_rate != "auto":
            rate = network_rate = float(given.learning_rate)
        seed = data.random_state.randint(np.iinfo(np.int32).max)
        views, weight = self.p_spec.views, data.sample_weight
        run = Run(torch.float32 if single else torch_dtype(data.X), data.device, seed, given.report)
        source = Source(data.p.mix(given.uniform), self.walk()[1], data.items, weight, views)
        starts, batch_rows = given.starts(_STARTS), given.batch_rows(len(weight))
        effort = Effort(starts, batch_rows, given.max_iter, given.tol, rate, network_rate)
        with nullcontext() if views is None else seeded(seed, data.device):  # what `augment` draws
            return solve_partition(source, given.n_clusters, self._loss(), self.encoder, effort, run)

    def value(self, X: Any, y: Any, memberships: np.ndarray) -> float:
        """Over all pairs."""
        import torch

        from .._optim.train import Run

        p = self.p_spec.conditional(X, y, n_jobs=self.settings.n_jobs, random_state=0).mix(self.settings.uniform)
        with torch.no_grad():
            return float(self._loss().over(p, Run(torch.float64, torch.device("cpu")))(_logits(memberships)))

    def _loss(self) -> Any:
        from .._objective.loss import Loss

        mass = self.settings.uniform
        return Loss(learned.UniformMixture(self.q_spec, mass) if mass else self.q_spec, self.settings.divergence)


class NormalizedCut(ClusterLoss):
    """The limit of KL over (1 - a)^2 for hard clusters, as uniform mass a goes to one; see `_cuts`."""

    solver = "debias=1 is solved"

    def check(self, X_holds: str, n_samples: int) -> None:
        """It is one of plain p and q, and of lookups."""
        plain = not (self.q_spec.mixture or self.p_spec.mixture)
        if self.q_spec.tilted:
            raise ValueError(f"debias=1 is a limit in which {self.q_spec} has no prior; use debias=0, or prior=None.")
        if self.encoder.parametric or self.settings.divergence != "kl" or not plain:
            raise ValueError(
                "debias=1 is a limit for hard clusters: it needs encoder='lookup', divergence='kl' and specs without a "
                f"UniformMixture, but got {self.encoder}, {self.settings.divergence!r}, {self.p_spec} and "
                f"{self.q_spec}; use debias < 1."
            )

    def solve(self, data: Data) -> Any:
        """By its relaxation."""
        from .cuts import solve_cut

        seed = data.random_state.randint(np.iinfo(np.int32).max)
        return solve_cut(data.p, self.walk()[1], self.q_spec, data.sample_weight, self._k_means(seed))

    def value(self, X: Any, y: Any, memberships: np.ndarray) -> float:
        """Of soft clusters too."""
        from .cuts import measure_of, normalized_cut

        p = self.p_spec.conditional(X, y, n_jobs=self.settings.n_jobs, random_state=0)
        measure = measure_of(p, self.q_spec, np.ones(len(memberships)))
        return float(normalized_cut(p, _logits(memberships).softmax(1), measure))


class ReverseKL(ClusterLoss):
    """mean_i KL(q_i || p_i) over all pairs: soft and heavy-tailed k-means; see `_soft_k_means`."""

    def check(self, X_holds: str, n_samples: int) -> None:
        """It is one of lookups, and of a p whose kernel reaches all pairs of rows."""
        mixture = self.settings.uniform or self.p_spec.mixture or self.q_spec.mixture
        without_rows = X_holds == "distances" and self.p_spec.neighborhood is not None
        if self.encoder.parametric or without_rows or not self.p_spec.compares_all_pairs or mixture:
            raise ValueError(
                "divergence='reverse_kl' compares q with p on all pairs of rows: it needs encoder='lookup', rows of "
                "features, a p such as supervisory.Gaussian(sigma=...) and no uniform mass; got "
                f"{self.encoder}, {self.p_spec}, {self.q_spec} and debias={self.settings.debias!r}."
            )
        self._check_distances(n_samples)

    def _check_distances(self, n_samples: int) -> None:
        if n_samples > _MOST_ROWS_IN_PAIRS:
            raise ValueError(
                f"divergence='reverse_kl' holds all pairs of rows, too many for n_samples={n_samples}; use "
                "divergence='kl', or sigma=0 for the narrow limit, k-means."
            )

    def solve(self, data: Data) -> Any:
        """By a quasi-Newton method, from k-means."""
        import torch

        from .._optim.train import Run
        from .soft_k_means import solve_soft_k_means

        seed = data.random_state.randint(np.iinfo(np.int32).max)
        how = {"n_jobs": self.settings.n_jobs, "random_state": seed}
        log_p = self.p_spec.log_rows_with_self(data.X, data.y, **how)
        rows = self.p_spec.measured_rows(data.X, data.y, **how)
        run, steps = Run(torch.float64, data.device, seed, self.settings.report), self.settings.max_iter
        return solve_soft_k_means(log_p, rows, data.X, data.sample_weight, self._k_means(seed), steps, run)

    def value(self, X: Any, y: Any, memberships: np.ndarray) -> float:
        """Over all pairs."""
        import torch

        from .soft_k_means import mean_reverse_kl

        self._check_distances(X.shape[0])
        logits, log_p = _logits(memberships), torch.as_tensor(self.p_spec.log_rows_with_self(X, y, random_state=0))
        return float(mean_reverse_kl(log_p, logits, torch.full((len(logits),), 1 / len(logits)).to(logits)))


class Inertia(ReverseKL):
    """Mean squared distance of rows to the means of their clusters: the narrow limit of reverse KL, k-means."""

    solver = "sigma=0 is solved by KMeans"

    @answer
    def by_center(self) -> bool:
        """Where distances are those of X."""
        return self.p_spec.neighborhood is not None

    def walk(self) -> tuple[Any, int]:
        """Of a kernel of no width the row itself is left."""
        return supervisory.Identity(), 1

    def _check_distances(self, n_samples: int) -> None:
        metric = self.p_spec.metric
        if metric not in ("euclidean", "l2"):
            raise ValueError(
                f"sigma=0 with divergence='reverse_kl' is k-means, which needs metric='euclidean', got {metric!r}; "
                "set sigma > 0."
            )

    def solve(self, data: Data) -> Any:
        """By scikit-learn's KMeans, whose random numbers are drawn as it draws them."""
        from .soft_k_means import solve_k_means

        rows = self.p_spec.measured_rows(data.X, data.y, n_jobs=self.settings.n_jobs, random_state=data.random_state)
        k_means = self._k_means(data.random_state, max_iter=self.settings.max_iter, tol=self.settings.tol)
        dense = not sparse.issparse(rows)
        if group().several or (dense and not copies_have_room(len(rows), k_means.n_clusters, rows.nbytes)):
            from .k_means_in_blocks import solve_in_blocks

            return solve_in_blocks(rows, data.sample_weight, k_means, data.random_state)
        return solve_k_means(rows, data.X, data.sample_weight, k_means)

    def value(self, X: Any, y: Any, memberships: np.ndarray) -> float:
        """Around means that are weighted by membership."""
        rows = self.p_spec.measured_rows(X, y, n_jobs=self.settings.n_jobs, random_state=0)
        memberships = memberships[:, memberships.any(axis=0)].astype(np.float64)
        centers = np.asarray((memberships / memberships.sum(axis=0)).T @ rows)
        each = [sq_distances(rows, centers, np.full(len(memberships), c)) for c in range(len(centers))]
        return float(sum(member @ sq for member, sq in zip(memberships.T, each, strict=True)) / len(memberships))


LOSSES: dict[str, type[ClusterLoss]] = {
    "k-means": Inertia,
    "soft k-means": ReverseKL,
    "cut": NormalizedCut,
    "multistart": Divergence,
}


def means_of(X: Any, memberships: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
    """Means of rows weighted by membership, in double precision."""
    weights = memberships.astype(np.float64) * sample_weight[:, None]
    weights /= group().total(weights.sum(axis=0))
    if sparse.issparse(X):
        return group().total(np.asarray(weights.T @ X))
    return group().total(sum(weights[part].T @ X[part] for part in gen_batches(len(X), 8192)))


def sq_distances(X: Any, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distance of each row to the center of its cluster, infinite where it is beyond the largest number."""
    with np.errstate(over="ignore"):
        return _sq_distances(X, centers, labels)


def _sq_distances(X: Any, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if sparse.issparse(X):
        unit = np.ldexp(1.0, max(np.frexp(float(abs(X).max()))[1] - 1, -1000))  # whose square is exact
        X, centers = X * (1 / unit), centers / unit
        cross = np.asarray(X.multiply(centers[labels]).sum(axis=1)).ravel()
        own, of_centers = np.asarray(X.multiply(X).sum(axis=1)).ravel(), np.square(centers).sum(axis=1)
        return np.maximum(own - 2 * cross + of_centers[labels], 0) * unit * unit
    return np.concatenate(
        [np.square(X[part] - centers[labels[part]]).sum(axis=1) for part in gen_batches(len(X), 8192)]
    )


def _logits(memberships: np.ndarray) -> Any:
    """Logarithms in double precision, of no membership the least that is finite."""
    import torch

    smallest = np.finfo(memberships.dtype).tiny
    return torch.as_tensor(np.log(np.maximum(memberships, smallest)), dtype=torch.float64)
