"""The losses of `ICONClustering`: what each needs, how it is solved, and its value for given memberships.

Reverse KL over all pairs is that of k-means in the limit of no width, uniform mass of one that of normalised cuts, and
all others are descended by minibatches.
"""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils import gen_batches

from .. import learned, supervisory

_STARTS, _K_MEANS_STARTS = 9, 10
_LINEAR_RATE, _LOOKUP_RATE, _NETWORK_RATE = 0.02, 0.1, 1e-3
_MOST_ROWS_IN_PAIRS = 20_000


class Data(NamedTuple):
    """What a loss is solved for: rows X, and as the encoder reads them or None; one step of p over them."""

    X: Any
    y: Any
    items: Any
    p: Any
    sample_weight: np.ndarray
    device: Any
    random_state: np.random.RandomState


def loss_of(estimator, p_spec, q_spec, encoder):
    """The loss of an `ICONClustering` with its specs resolved."""
    kind: type[ClusterLoss] = Divergence
    if estimator.divergence == "reverse_kl":
        kind = Inertia if p_spec.narrow else ReverseKL
    elif estimator._share == 1:
        kind = NormalizedCut
    return kind(estimator, p_spec, q_spec, encoder)


class ClusterLoss(ABC):
    """A loss of memberships.

    Parameters
    ----------
    estimator : ICONClustering
        Its other parameters.
    p_spec : Supervisory
    q_spec : Learned
    encoder : Encoder
    """

    solver: str | None = None  # who solves it on the CPU alone
    by_center = False  # whether a row belongs to the nearest centre of features

    def __init__(self, estimator, p_spec, q_spec, encoder):
        self.estimator, self.p_spec, self.q_spec, self.encoder = estimator, p_spec, q_spec, encoder

    def walk(self):
        """(p of one step, the longest walk): walks are drawn step by step, unless all they reach counts alike."""
        return self.p_spec.step()

    @abstractmethod
    def check(self, kind, n_samples):
        """Refuse specs that the loss does not take, of X that holds features, distances or a graph."""

    def place(self, device):
        """Where it is solved; refuses another place that was asked for."""
        if self.solver is None:
            return device
        if self.estimator.device != "auto" and device.type != "cpu":
            raise ValueError(
                f"device={self.estimator.device!r} was asked for, but {self.solver} on the CPU; use 'auto'."
            )
        return "cpu"

    @abstractmethod
    def solve(self, data):
        """The `Partition` of the lowest loss found."""

    @abstractmethod
    def value(self, X, y, memberships):
        """The loss of rows."""

    def _n_init(self, auto):
        return auto if self.estimator.n_init == "auto" else self.estimator.n_init

    def _k_means(self, random_state):
        """Options of KMeans: its starts, and how it descends from them."""
        given = self.estimator.init
        once = not isinstance(given, str) and not callable(given)
        return {
            "init": given,
            "n_init": self._n_init(1 if once else _K_MEANS_STARTS),
            "algorithm": self.estimator.algorithm,
            "verbose": self.estimator.verbose,
            "random_state": random_state,
        }


class Divergence(ClusterLoss):
    """mean_i D(p~_i || q~_i), by minibatches of rows with a positive each."""

    def check(self, kind, n_samples):
        """It takes all specs, and finds its starts itself."""
        self.estimator.refuse_k_means("memberships are trained from starts that are searched among hard partitions")

    def solve(self, data):
        """By search over hard partitions and Adam."""
        import torch

        from .._core.seeding import seeded
        from ..encoders._networks import torch_dtype
        from .multistart import solve_partition

        estimator, inner = self.estimator, self.encoder.plain()
        single = not inner.parametric or (inner.is_linear and not inner.orthonormal)
        dtype = torch.float32 if single else torch_dtype(data.X)
        rate, network_rate = _LINEAR_RATE if inner.parametric else _LOOKUP_RATE, _NETWORK_RATE
        if estimator.learning_rate != "auto":
            rate = network_rate = estimator.learning_rate
        seed = data.random_state.randint(np.iinfo(np.int32).max)
        views = self.p_spec.views
        with nullcontext() if views is None else seeded(seed, data.device):  # what `augment` draws
            return solve_partition(
                data.p.mix(estimator._share),
                self.walk()[1],
                self._mixed_q(),
                self.encoder,
                data.items,
                estimator.n_clusters,
                {"divergence": estimator.divergence, "dtype": dtype, "device": data.device},
                sample_weight=data.sample_weight,
                n_init=self._n_init(_STARTS),
                batch_size=estimator._batch_rows(len(data.sample_weight)),
                learning_rate=rate,
                network_rate=network_rate,
                max_iter=estimator.max_iter,
                tol=estimator.tol,
                seed=seed,
                on_step=estimator._on_step,
                views=views,
            )

    def value(self, X, y, memberships):
        """Over all pairs."""
        import torch

        from .._objective.objective import Objective

        p = self.p_spec.conditional(X, y, n_jobs=self.estimator.n_jobs, random_state=0).mix(self.estimator._share)
        with torch.no_grad():
            objective = Objective(p, self._mixed_q(), divergence=self.estimator.divergence)
            return float(objective(_logits(memberships)))

    def _mixed_q(self):
        share = self.estimator._share
        return learned.UniformMixture(self.q_spec, share) if share else self.q_spec


class NormalizedCut(ClusterLoss):
    """The limit of KL over (1 - a)^2 for hard clusters, as uniform mass a goes to one; see `_cuts`."""

    solver = "debias=1 is solved"

    def check(self, kind, n_samples):
        """It is one of plain p and q, and of lookups."""
        plain = not (self.q_spec.mixture or self.p_spec.mixture)
        if self.encoder.parametric or self.estimator.divergence != "kl" or not plain:
            raise ValueError(
                "debias=1 is a limit for hard clusters: it needs encoder='lookup', divergence='kl' and specs without a "
                f"UniformMixture, but got {self.encoder}, {self.estimator.divergence!r}, {self.p_spec} and "
                f"{self.q_spec}; use debias < 1."
            )

    def solve(self, data):
        """By its relaxation."""
        from .cuts import solve_cut

        seed = data.random_state.randint(np.iinfo(np.int32).max)
        return solve_cut(
            data.p,
            self.walk()[1],
            self.q_spec,
            self.estimator.n_clusters,
            sample_weight=data.sample_weight,
            starts=self._k_means(seed),
            seed=seed,
        )

    def value(self, X, y, memberships):
        """Of soft clusters too."""
        from .cuts import measure_of, normalized_cut

        p = self.p_spec.conditional(X, y, n_jobs=self.estimator.n_jobs, random_state=0)
        measure = measure_of(p, self.q_spec, np.ones(len(memberships)))
        return float(normalized_cut(p, _logits(memberships).softmax(1), measure))


class ReverseKL(ClusterLoss):
    """mean_i KL(q_i || p_i) over all pairs: soft and heavy-tailed k-means; see `_soft_k_means`."""

    def check(self, kind, n_samples):
        """It is one of lookups, and of a p whose kernel reaches all pairs of rows."""
        mixture = self.estimator._share or self.p_spec.mixture or self.q_spec.mixture
        without_rows = kind == "distances" and self.p_spec.neighborhood is not None
        if self.encoder.parametric or without_rows or not self.p_spec.compares_all_pairs or mixture:
            raise ValueError(
                "divergence='reverse_kl' compares q with p on all pairs of rows: it needs encoder='lookup', rows of "
                "features, a p such as supervisory.Gaussian(sigma=...) and no uniform mass; got "
                f"{self.encoder}, {self.p_spec}, {self.q_spec} and debias={self.estimator.debias!r}."
            )
        self._check_distances(n_samples)

    def _check_distances(self, n_samples):
        if n_samples > _MOST_ROWS_IN_PAIRS:
            raise ValueError(
                f"divergence='reverse_kl' holds all pairs of rows, too many for n_samples={n_samples}; use "
                "divergence='kl', or sigma=0 for the narrow limit, k-means."
            )

    def solve(self, data):
        """By a quasi-Newton method, from k-means."""
        from .soft_k_means import solve_soft_k_means

        seed = data.random_state.randint(np.iinfo(np.int32).max)
        seeded = {"n_jobs": self.estimator.n_jobs, "random_state": seed}
        return solve_soft_k_means(
            self.p_spec.log_rows_with_self(data.X, data.y, **seeded),
            self.p_spec.measured_rows(data.X, data.y, **seeded),
            data.X,
            self.estimator.n_clusters,
            sample_weight=data.sample_weight,
            starts=self._k_means(seed),
            max_iter=self.estimator.max_iter,
            device=data.device,
            on_step=self.estimator._on_step("descent"),
        )

    def value(self, X, y, memberships):
        """Over all pairs."""
        import torch

        from .soft_k_means import mean_reverse_kl

        self._check_distances(X.shape[0])
        logits, log_p = _logits(memberships), torch.as_tensor(self.p_spec.log_rows_with_self(X, y, random_state=0))
        return float(mean_reverse_kl(log_p, logits, torch.full((len(logits),), 1 / len(logits)).to(logits)))


class Inertia(ReverseKL):
    """Mean squared distance of rows to the means of their clusters: the narrow limit of reverse KL, k-means."""

    solver = "sigma=0 is solved by KMeans"

    @property
    def by_center(self):
        """Where distances are those of X."""
        return self.p_spec.neighborhood is not None

    def walk(self):
        """Of a kernel of no width the row itself is left."""
        return supervisory.Identity(), 1

    def _check_distances(self, n_samples):
        metric = self.p_spec.metric
        if metric not in ("euclidean", "l2"):
            raise ValueError(
                f"sigma=0 with divergence='reverse_kl' is k-means, which needs metric='euclidean', got {metric!r}; "
                "set sigma > 0."
            )

    def solve(self, data):
        """By scikit-learn's KMeans, whose random numbers are drawn as it draws them."""
        from .soft_k_means import solve_k_means

        how = {"n_jobs": self.estimator.n_jobs, "random_state": data.random_state}
        return solve_k_means(
            self.p_spec.measured_rows(data.X, data.y, **how),
            data.X,
            self.estimator.n_clusters,
            sample_weight=data.sample_weight,
            max_iter=self.estimator.max_iter,
            tol=self.estimator.tol,
            **self._k_means(data.random_state),
        )

    def value(self, X, y, memberships):
        """Around means that are weighted by membership."""
        rows = self.p_spec.measured_rows(X, y, n_jobs=self.estimator.n_jobs, random_state=0)
        memberships = memberships[:, memberships.any(axis=0)].astype(np.float64)
        centers = np.asarray((memberships / memberships.sum(axis=0)).T @ rows)
        each = [sq_distances(rows, centers, np.full(len(memberships), c)) for c in range(len(centers))]
        return float(sum(share @ sq for share, sq in zip(memberships.T, each, strict=True)) / len(memberships))


def means_of(X, memberships, sample_weight):
    """Means of rows weighted by membership, in double precision."""
    weights = memberships.astype(np.float64) * sample_weight[:, None]
    weights /= weights.sum(axis=0)
    if sparse.issparse(X):
        return np.asarray(weights.T @ X)
    return sum(weights[part].T @ X[part] for part in gen_batches(len(X), 8192))


def sq_distances(X, centers, labels):
    """Squared distance of each row to the center of its cluster."""
    if sparse.issparse(X):
        unit = np.ldexp(1.0, max(np.frexp(float(abs(X).max()))[1] - 1, -1000))  # whose square is exact
        X, centers = X * (1 / unit), centers / unit
        cross = np.asarray(X.multiply(centers[labels]).sum(axis=1)).ravel()
        own, of_centers = np.asarray(X.multiply(X).sum(axis=1)).ravel(), np.square(centers).sum(axis=1)
        return np.maximum(own - 2 * cross + of_centers[labels], 0) * unit * unit
    return np.concatenate(
        [np.square(X[part] - centers[labels[part]]).sum(axis=1) for part in gen_batches(len(X), 8192)]
    )


def _logits(memberships):
    """Logarithms in double precision, of no membership the least that is finite."""
    import torch

    smallest = np.finfo(memberships.dtype).tiny
    return torch.as_tensor(np.log(np.maximum(memberships, smallest)), dtype=torch.float64)
