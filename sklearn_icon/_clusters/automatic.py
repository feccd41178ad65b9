"""The default clusters: candidates made on one p, one of them chosen, and memberships of what was chosen."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import ArpackError, lobpcg
from scipy.special import softmax
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import spectral_embedding
from sklearn.neighbors import NearestNeighbors

from .._core.conditional import Conditional, warn_rows_without_positives
from .._core.journal import recalled
from .._core.rows import in_units, is_itself, row_digests, unit_of
from .._graph.neighbors import cross_neighbors
from .._graph.recalled import recalled_p
from ..encoders import Linear, Lookup
from ..encoders._networks import build_module, encode, input_scale, state_arrays, torch_dtype
from ..learned import SharedCluster
from .choice import Candidate, as_even, as_good, candidate, choose
from .cuts import measure_of
from .local_search import cost_table, quiet
from .losses import Data, Divergence, Specs, sq_distances
from .row_search import Rows, cut_without_edge, searched, settled, symmetric_flow
from .soft_k_means import moved

_K_MEANS_STARTS, _STARTS_AMONG_EIGENVECTORS = 6, 3  # the second are settled whatever they are
_LEAST_KEPT, _MOST_KEPT, _KEPT_ROWS = 6, 9, 12_000  # partitions between rounds: fewer of many rows
_MOST_EIGENVECTORS, _EIGEN_TOL = 120, 1e-4
_ASKED_ROWS, _OF_OTHERS = 500, 0.1  # of a group, and of their neighbours that are none of it
_FACTORED_ROWS = 2000  # more: eigenvectors by blocks
_SPARE, _SMOOTHING, _RESIDUAL, _BLOCK_STEPS = 5, 10, 1e-3, 150
_STRENGTH, _REGRESSION_STEPS, _REGRESSION = 1.0, 20, 1e8  # C, steps and the most rows x columns x clusters
_LINEAR_ERRORS = 1.0
_OF_ALL = 0.01  # of a membership, so that none is impossible
_WALK_STEPS = 2
_DENSE, _FULL = 1 << 22, 0.1  # numbers of a sparse matrix that is made dense, and how many of them it holds
_NEAR = 5  # neighbours that carry a label to other rows
_MOST_ROWS = 10_000  # among which candidates are compared


class Choice(NamedTuple):
    """What was chosen, of which candidates."""

    chosen: Candidate
    candidates: list


class Asked(NamedTuple):
    """What the estimator asks for."""

    n_clusters: int
    n_steps: int
    share: float
    k_means: dict
    n_init: Any
    max_iter: int
    seed: int
    report: Any


def solve(p, X, asked: Asked, sample_weight: np.ndarray, learned) -> Choice:
    """Candidates and the one to keep.

    Parameters
    ----------
    p : Conditional
        One step, of distinct rows.
    X : ndarray or sparse matrix or None
        Features, for k-means.
    asked : Asked
    sample_weight : ndarray of shape (n,)
    learned : SharedCluster
    """
    n, share = p.shape[0], sample_weight / sample_weight.sum()
    unit = 1.0 if X is None else unit_of(X)
    X = in_units(X, unit)
    table = cost_table("kl", n, asked.share, asked.share)
    rows = Rows(symmetric_flow(p, asked.n_steps, sample_weight), share, table, asked.n_clusters)
    found = {}
    if X is not None:
        labels = recalled("k-means", lambda: _k_means(X, unit, asked, sample_weight))
        by_means = np.unique(labels, return_inverse=True)[1]
        found["settled k-means"] = settled(rows, by_means, asked.seed, asked.max_iter)
    near = recalled("eigenvectors", lambda: _eigenvectors(p, learned, asked, sample_weight))
    if near is not None:
        labels = recalled("k-means of eigenvectors", lambda: _partition_of(near, asked, sample_weight))
        found["cut"] = settled(rows, labels, asked.seed, asked.max_iter)
    else:
        near = X
    n_kept = int(np.clip(_KEPT_ROWS // n, _LEAST_KEPT, _MOST_KEPT)) if asked.n_init == "auto" else asked.n_init
    known = rows, near, list(found.values()), n_kept, asked.seed, asked.max_iter
    found["search"] = recalled("search", lambda: searched(*known)[0])
    made = {
        name: candidate(name, labels, loss, p, share, cut_without_edge(rows, labels, p))
        for name, (labels, loss) in found.items()
    }
    if X is not None and by_means.max() + 1 == asked.n_clusters:
        loss = settled(rows, by_means, asked.seed, 0)[1]
        made = {"k-means": candidate("k-means", by_means, loss, p, share)} | made
    chosen = choose(made, share, partial(_puts_together, X))
    for each in made.values():
        asked.report(f"{each.name}: loss {each.loss:.4f}, R {each.cut(share):.4f}, evenness {each.evenness:.3f}")
    asked.report(f"kept that of {chosen.name}")
    return Choice(chosen, list(made.values()))


def _puts_together(X, simple: Candidate, other: Candidate) -> bool:
    """Whether clusters of the other that the simpler partition holds in one are groups, outliers left out.

    Of the rows nearest to those of a group, as many as it has others, nine in ten are its own; in a part of a group
    they lead over to the other part, however few edges of p do.
    """
    rest = np.random.RandomState(0).permutation(np.flatnonzero(~simple.alone))
    labels, within = other.labels[rest], simple.labels[rest]
    sizes = np.bincount(labels, minlength=int(labels.max()) + 1)
    holder = np.array([np.bincount(within[labels == c]).argmax() if size else -1 for c, size in enumerate(sizes)])
    largest = {holder[c]: c for c in np.argsort(sizes, kind="stable")}  # of each cluster of the simpler partition
    smaller = [c for c, size in enumerate(sizes) if size and largest[holder[c]] != c]
    for c in smaller:
        some = rest[: len(rest) * _ASKED_ROWS // max(sizes[c], _ASKED_ROWS)]  # which leave some 500 of the cluster
        rows, own = X[some], other.labels[some] == c
        found = NearestNeighbors(n_neighbors=max(2, own.sum())).fit(rows).kneighbors(rows[own], return_distance=False)
        if not own[found].mean() >= 1 - _OF_OTHERS:
            return False
    return bool(smaller)


def _k_means(X, unit, asked, sample_weight):
    """Labels by k-means; its draws see rows in an order of their own, not that in which they come."""
    order, labels = np.argsort(row_digests(X)), np.empty(X.shape[0], np.int64)
    n_init = _K_MEANS_STARTS if asked.n_init == "auto" else asked.n_init
    init = moved(asked.k_means["init"], unit)
    if is_itself(init):
        n_init = 1
    how = asked.k_means | {"init": init}
    with quiet():
        k_means = KMeans(asked.n_clusters, n_init=n_init, random_state=asked.seed, **how)
        labels[order] = k_means.fit_predict(X[order], sample_weight=sample_weight[order])
    return labels


def _eigenvectors(p, learned, asked, sample_weight):
    """The leading eigenvectors of p's flow, which relax the cut; None where they are too many to be worth it."""
    if asked.n_clusters > _MOST_EIGENVECTORS:
        return None
    measure = measure_of(p, learned, sample_weight)
    flow = symmetric_flow(p, 1, measure)
    if p.shape[0] > _FACTORED_ROWS:
        return _leading_eigenvectors(flow, asked.n_clusters, asked.seed)
    solver = "lobpcg" if p.shape[0] <= 5 * asked.n_clusters else None  # of so few rows all eigenvectors
    how = {"n_components": asked.n_clusters, "random_state": asked.seed, "drop_first": False, "eigen_tol": _EIGEN_TOL}
    with quiet():
        try:
            return spectral_embedding(flow, eigen_solver=solver, **how)
        except ArpackError:
            return spectral_embedding(flow, eigen_solver="lobpcg", **how)


def _leading_eigenvectors(flow, n_vectors, seed):
    """Those of D^-1 W, by blocks of vectors: a factorisation fills in where rows have many dimensions.

    Blocks find the equal eigenvalues of groups that nothing joins, which a single Krylov space does not.
    """
    degrees = np.asarray(flow.sum(axis=1)).ravel()
    root = np.sqrt(np.where(degrees > 0, degrees, 1))
    scaled = sparse.csr_array(sparse.diags_array(1 / root) @ flow @ sparse.diags_array(1 / root))
    start = np.random.RandomState(seed).standard_normal((len(root), n_vectors + min(n_vectors, _SPARE) + 2))
    start[:, 0] = root
    for _ in range(_SMOOTHING):
        start = scaled @ start
    with quiet():
        values, vectors = lobpcg(scaled, np.linalg.qr(start)[0], largest=True, tol=_RESIDUAL, maxiter=_BLOCK_STEPS)
    return vectors[:, np.argsort(-values, kind="stable")[:n_vectors]] / root[:, None]


def _partition_of(near, asked, sample_weight):
    with quiet():
        k_means = KMeans(asked.n_clusters, n_init=_STARTS_AMONG_EIGENVECTORS, random_state=asked.seed)
        return k_means.fit_predict(near, sample_weight=sample_weight)


def soft(p, labels):
    """Memberships of rows: where p leads from them, a little of all; two thirds their own where that is not likeliest.

    Their own cluster is the likeliest of each.
    """
    n, k = len(labels), int(labels.max()) + 1
    members = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), (n, k))
    own, led = members.toarray(), (p.weights @ members).toarray()
    led = np.where(p.has_positives[:, None], led, own)
    elsewhere = (led * own).sum(axis=1) <= (led - led * own).max(axis=1) + 1e-6
    led[elsewhere] = (2 * own[elsewhere] + led[elsewhere]) / 3
    return (1 - _OF_ALL) * led + _OF_ALL / k


def linear(X, chosen: Candidate, p, sample_weight):
    """(weights, biases) of a linear map whose partition is as good as the chosen one, or None.

    The nearest mean is tried first, under which logits are those of normal clusters of one spread; then softmax
    regression on the labels.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n, n_features)
    chosen : Candidate
    p : Conditional
    sample_weight : ndarray of shape (n,)
    """
    k, share = int(chosen.labels.max()) + 1, sample_weight / sample_weight.sum()
    if k == 1:
        return None
    tries = [_nearest_mean] + [_regression] * (X.shape[0] * X.shape[1] * k <= _REGRESSION)
    for made_of in tries:
        coef, intercept = made_of(X, chosen.labels, share)
        labels = np.asarray(X @ coef.T + intercept).argmax(axis=1)
        if len(np.unique(labels)) < k:
            continue
        found = candidate("linear", labels, 0.0, p, share)
        if as_even(found, chosen) and as_good(found, chosen, share, _LINEAR_ERRORS):
            return coef, intercept
    return None


def _nearest_mean(X, labels, share):
    """2 s m_c and -s |m_c|^2 of means m_c, s one over twice the rows' variance around them; of centred rows."""
    n, k, unit = len(labels), int(labels.max()) + 1, unit_of(X)
    X = in_units(X, unit)
    center = np.asarray(share @ X)
    members = sparse.csr_array((share, labels, np.arange(n + 1)), (n, k))
    means = members.T @ X
    means = (means.toarray() if sparse.issparse(means) else means) / np.maximum(members.sum(axis=0), 1e-300)[:, None]
    variance = float(share @ sq_distances(X, means, labels)) / X.shape[1]
    sharpness = 0.5 / max(variance, np.finfo(np.float64).tiny ** 0.5)
    means = means - center
    coef = 2 * sharpness * means
    return coef * unit, -sharpness * np.square(means).sum(axis=1) - coef @ center


def _regression(X, labels, share):
    """Coefficients of softmax regression of the labels on centred rows over their spread."""
    shift, factor = input_scale(X, share)
    rows = (X - shift) * factor if not sparse.issparse(X) else sparse.csr_array(X * factor)
    with quiet():
        fit = LogisticRegression(C=_STRENGTH, max_iter=_REGRESSION_STEPS)
        fit.fit(rows, labels, sample_weight=share * len(share))
    coef, intercept = fit.coef_ * factor, fit.intercept_
    if len(fit.classes_) == 2:
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    return coef, intercept - coef @ shift


class Kept(NamedTuple):
    """The chosen partition as the estimator keeps it; of a lookup also distinct rows, their p, and their positions
    in X.
    """

    p_spec: Any
    encoder: Any
    memberships: np.ndarray
    state: dict
    rows: Any
    first: np.ndarray
    chosen: str
    candidates: dict
    loss: float
    loss_curve: np.ndarray
    device: str
    p: Any = None


class Distinct(NamedTuple):
    """Rows that differ: what each weighs, where it stands first in X, and which of them each row of X is."""

    rows: Any
    weight: np.ndarray
    first: np.ndarray
    inverse: np.ndarray
    holds: str

    @classmethod
    def of(cls, X: Any, holds: str, sample_weight: np.ndarray) -> "Distinct":
        """Those of X; of distances or a graph all rows."""
        if holds != "features":
            return cls(X, sample_weight, np.arange(X.shape[0]), np.arange(X.shape[0]), holds)
        size = np.prod(X.shape)
        X = X.toarray() if sparse.issparse(X) and X.nnz >= _FULL * size and size <= _DENSE else X
        first, inverse = np.unique(row_digests(X), return_index=True, return_inverse=True)[1:]
        order = np.argsort(first)
        first, inverse = first[order], np.argsort(order)[inverse]
        return cls(
            X if len(first) == X.shape[0] else X[first], np.bincount(inverse, sample_weight), first, inverse, holds
        )

    @property
    def features(self) -> Any:
        """The rows, or None where they have no features."""
        return self.rows if self.holds == "features" else None

    def some(self, which: np.ndarray) -> "Distinct":
        """A part of them, which stands for nothing else."""
        return Distinct(self.rows[which], self.weight[which], which, which, self.holds)


def fit_chosen(estimator, X, kind, sample_weight, device, random_state) -> Kept:
    """Choose a partition of the distinct rows of X, and give it memberships."""
    distinct = Distinct.of(X, kind, sample_weight)
    report = estimator._progress.say if estimator.verbose else (lambda line: None)
    if distinct.features is None:
        estimator._settings().refuse_k_means(f"X holds {kind}, which have no means")
    asked = Asked(
        estimator.n_clusters,
        _WALK_STEPS,
        estimator._share,
        {"init": estimator.init, "algorithm": estimator.algorithm},
        estimator.n_init,
        estimator.max_iter,
        random_state.randint(np.iinfo(np.int32).max),
        report,
    )
    estimator._on_step("candidates")
    if len(distinct.first) > _MOST_ROWS and distinct.features is not None:
        return _of_many(estimator, distinct, asked, device, random_state)
    p_spec, p = _local_p(estimator, distinct, asked)
    if len(distinct.first) <= asked.n_clusters:
        labels = np.arange(len(distinct.first))
        report(f"{len(labels)} distinct rows, each of which is a cluster")
        only = candidate("distinct rows", labels, 0.0, p, distinct.weight / distinct.weight.sum())
        choice = Choice(only, [only])
    else:
        choice = solve(p, distinct.features, asked, distinct.weight, SharedCluster())
    return _kept(asked, choice, p_spec, p, distinct, _table(choice, distinct.weight))._replace(p=p)


def _of_many(estimator, distinct: Distinct, asked: Asked, device, random_state) -> Kept:
    """Choose on a draw of the rows; then train on all, or carry the choice to all and settle them."""
    n, rows, weight = len(distinct.first), distinct.rows, distinct.weight
    few = distinct.some(np.sort(np.random.RandomState(asked.seed).permutation(n)[:_MOST_ROWS]))
    _, p_of_few = _local_p(estimator, few, asked)
    choice = solve(p_of_few, few.rows, asked, few.weight, SharedCluster())
    p_spec, p = _local_p(estimator, distinct, asked)
    name, table = choice.chosen.name, _table(choice, few.weight)
    if name == "search":
        data = Data(rows, None, rows, p, weight, device, random_state)
        trained = Divergence(estimator._settings(), Specs(p_spec, SharedCluster(), Linear())).solve(data)
        memberships, curve = softmax(trained.logits, axis=1)[distinct.inverse], trained.result.loss_curve
        of_fit = name, table, trained.loss, curve, str(device)
        return Kept(p_spec, Linear(), memberships, trained.state, None, distinct.first, *of_fit, p)
    fractions, costs = weight / weight.sum(), cost_table("kl", n, asked.share, asked.share)
    searched_rows, n_sweeps = Rows(symmetric_flow(p, 1, weight), fractions, costs, asked.n_clusters), asked.max_iter
    if name == "k-means":
        coef, intercept = _nearest_mean(few.rows, choice.chosen.labels, few.weight / few.weight.sum())
        labels, n_sweeps = np.asarray(rows @ coef.T + intercept).argmax(axis=1), 0
    else:
        measure = {"metric": estimator.metric, "metric_params": estimator.metric_params, "n_jobs": estimator.n_jobs}
        near = cross_neighbors(rows, few.rows, _NEAR, **measure).indices
        labels = np.eye(asked.n_clusters)[choice.chosen.labels][near].sum(axis=1).argmax(axis=1)
    labels, loss = settled(searched_rows, labels, asked.seed, n_sweeps)
    choice = Choice(candidate(name, labels, loss, p, fractions), choice.candidates)
    return _kept(asked, choice, p_spec, p, distinct, table)._replace(p=p)


def _table(choice, weight):
    """The candidates, column by column."""
    share = weight / weight.sum()
    return {
        "name": np.array([each.name for each in choice.candidates]),
        "loss": np.array([each.loss for each in choice.candidates]),
        "cut": np.array([each.cut(share) for each in choice.candidates]),
        "evenness": np.array([each.evenness for each in choice.candidates]),
        "effective": np.array([each.effective for each in choice.candidates]),
        "n_clusters": np.array([int(each.labels.max()) + 1 for each in choice.candidates]),
    }


def _local_p(estimator, distinct: Distinct, asked: Asked) -> tuple[Any, Conditional]:
    """(spec, one step of p) of rows; of no more rows than clusters none is joined to another."""
    rows, weight, n = distinct.rows, distinct.weight, len(distinct.first)
    if n <= asked.n_clusters and distinct.features is not None:
        p_spec = estimator._local(rows, n)
        return p_spec, Conditional(sparse.csr_array((n, n)), exclude_self=True)
    given = estimator.supervisory is not None
    p_spec = estimator._resolve_specs()[0] if given else estimator._local(rows, asked.n_clusters)
    step = p_spec if given else p_spec.base
    with estimator._threads(n**2):
        p = recalled_p(lambda: step.conditional(rows, n_jobs=estimator.n_jobs, random_state=asked.seed))
    if np.ptp(weight):
        p = p.with_copies(weight)
    warn_rows_without_positives(p, weight > 0)
    return p_spec, p


def _kept(asked: Asked, choice: Choice, p_spec, p: Conditional, distinct: Distinct, table: dict) -> Kept:
    """A linear map where that is as good, else a lookup."""
    chosen, made = choice.chosen, None
    if distinct.features is not None and len(distinct.first) > asked.n_clusters:
        made = linear(distinct.rows, chosen, p, distinct.weight)
    of_fit = chosen.name, table, chosen.loss, np.array([chosen.loss]), "cpu"
    if made is None:
        memberships, rows = soft(p, chosen.labels)[distinct.inverse], (distinct.rows, p)
        return Kept(p_spec, Lookup(), memberships, {}, rows, distinct.first, *of_fit)
    encoder = Linear()
    module: Any = build_module(encoder, distinct.rows, asked.n_clusters, 0, torch_dtype(distinct.rows), distinct.weight)
    shift, factor = (part.double().numpy() for part in (module[0].shift, module[0].factor))
    with torch.no_grad():
        module[-1].weight.copy_(torch.as_tensor(made[0] / factor))
        module[-1].bias.copy_(torch.as_tensor(made[1] + made[0] @ shift))
    memberships = softmax(encode(module.eval(), distinct.rows), axis=1)[distinct.inverse]
    return Kept(p_spec, encoder, memberships, state_arrays(module), None, distinct.first, *of_fit)
