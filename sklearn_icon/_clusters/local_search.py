"""Hard partitions to start from: rows are put into small groups, and groups move between clusters while D falls.

With hard memberships the average divergence depends on two numbers of each cluster: its share m_c of the rows, and the
share f_c of p that stays inside it. A row of cluster c has q(j|i) = 1 / (N m_c) inside and zero outside, so that

    D = sum_c f_c g(m_c) + m_c h(m_c) + constant,

g the gain of a positive inside over one outside, h the cost of keys that are no positives. What p sends from group to
group is one small matrix, so that hundreds of searches cost less than one pass over the rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score

from .._core.compiled import njit
from .._core.conditional import Conditional
from .._core.quiet import quiet as silent
from .._core.rows import in_units, unit_of
from .._core.team import Team
from .._core.types import Array, Rows
from .._objective.divergences import terms_of

_GROUPS_PER_CLUSTER = 20
_AGREED_GROUPS_PER_CLUSTER = 30
_ROWS_PER_GROUP = 50  # of those that k-means sees
_PROPAGATIONS = 2
_SEARCHES, _SWEEPS = 256, 30
_LEAST_MIXTURE = 0.02  # hard partitions stand for soft ones, under which no pair is impossible
_REFILLS, _REFILLED = 3, 16  # times that empty clusters are started again, in the best searches
_SAME = 0.9  # adjusted Rand index above which two starts are one


def cost_table(
    divergence: str, n_keys: int, of_p: float, of_q: float, tilt: Callable[[torch.Tensor], Any] = lambda masses: 1.0
) -> tuple[Array, Array, float, float]:
    """The parts f_c g(m_c) + m_c h(m_c) of clusters in D for hard memberships, over equal steps of log m_c.

    (g, h, the first log m_c, steps per unit of it); `of_p` and `of_q` are the uniform mass on p and on q, `tilt` what a
    prior multiplies q with. g and h have a row for each cluster, or one for all.
    """
    term, of_q = terms_of(divergence).term, max(of_q, _LEAST_MIXTURE)
    log_masses = np.linspace(log(0.5 / n_keys), 0, 4096)
    masses = torch.as_tensor(np.exp(log_masses))
    inside = (1 - of_q) * torch.atleast_2d(tilt(masses) / (n_keys * masses)) + of_q / n_keys
    outside = torch.full_like(masses, of_q / n_keys)
    rest = torch.full_like(masses, of_p / n_keys)
    of_inside, of_outside = term(rest, inside.log()), term(rest, outside.log())
    gain = term(rest + 1 - of_p, inside.log()) - of_inside - term(rest + 1 - of_p, outside.log()) + of_outside
    others = n_keys * masses * (of_inside - of_outside)
    return gain.numpy(), others.numpy(), log_masses[0], 1 / (log_masses[1] - log_masses[0])


def hard_starts(
    groups: Array,
    p: Conditional,
    n_steps: int,
    n_clusters: int,
    table: tuple,
    n_starts: int,
    sample_weight: Array,
    seed: int,
) -> list[Array]:
    """Labels of rows under the partitions of lowest cost that differ, the best first.

    `groups` is the group of each row, from zero up; `n_steps` the longest walk along p that finds positives; `table` is
    that of `cost_table`; `n_starts` how many partitions at the most. One cluster is among them only where nothing else
    is found: its memberships are all alike, and no descent leaves.
    """
    n = len(groups)
    members = sparse.csr_array((np.ones(n), (np.arange(n), groups)), shape=(n, groups.max() + 1))
    masses = members.T @ sample_weight / sample_weight.sum()
    flow = _flow(p, n_steps, members, sample_weight)
    labels, costs = search(flow, masses, n_clusters, table, np.random.RandomState(seed))
    kept: list[np.ndarray] = []
    for found in labels[np.unique(np.round(costs, 12), return_index=True)[1]]:  # of equal costs one is enough
        if np.ptp(found) and all(adjusted_rand_score(found, other) < _SAME for other in kept):
            kept.append(found)
        if len(kept) == n_starts:
            break
    return [found[groups] for found in kept or labels[:1]]


def agreed_groups(partitions: Array, n_clusters: int) -> Array:
    """Groups of rows that several partitions keep together; rows of small ones join the large one most like them."""
    most = _AGREED_GROUPS_PER_CLUSTER * n_clusters
    groups = np.zeros_like(partitions[0])
    for labels in partitions:
        groups = np.unique(groups * n_clusters + labels, return_inverse=True)[1]
    sizes, first = np.bincount(groups), np.unique(groups, return_index=True)[1]
    if len(sizes) <= most:
        return groups
    signs, order = partitions.T[first], np.argsort(-sizes, kind="stable")
    large, small = order[:most], order[most:]
    joined = np.empty(len(sizes), dtype=np.intp)
    joined[large] = np.arange(most)
    for part in np.array_split(small, -(-len(small) // 1024)):
        alike = sum(signs[part, None, which] == signs[large, which] for which in range(signs.shape[1]))
        joined[part] = alike.argmax(axis=1)  # of equally like ones the larger
    return joined[groups]


def near_groups(p: Conditional, X: Rows, n_clusters: int, sample_weight: Array, seed: int) -> Array:
    """The group of each row: k-means of rows averaged over their neighbours, twice, or of a graph's eigenvectors."""
    n = p.shape[0]
    n_groups = _GROUPS_PER_CLUSTER * n_clusters
    if n <= n_groups:
        return np.arange(n)
    with quiet():
        if X is None:
            graph = p.weights + p.weights.T
            rows = spectral_embedding(graph, n_components=n_clusters, random_state=seed, drop_first=False)
        else:
            if unit_of(X) != 1:  # in single precision rows beside one far row would vanish
                X = in_units(X.astype(np.float64), unit_of(X))
            rows, weights = X, p.weights.astype(X.dtype)
            for _ in range(_PROPAGATIONS):
                rows = weights @ rows
        some = np.random.RandomState(seed).permutation(np.flatnonzero(sample_weight))[: _ROWS_PER_GROUP * n_groups]
        some, n_groups = rows[np.sort(some)], min(n_groups, len(some))
        double = some.astype(np.float64)  # which scikit-learn would make of single precision for each new mean
        init = kmeans_plusplus(double, n_groups, n_local_trials=1, random_state=seed)[0]
        means = KMeans(n_groups, init=init, max_iter=10, random_state=seed).fit(some)
    return np.unique(means.predict(rows), return_inverse=True)[1]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what scikit-learn says of graphs in parts, which clusters may be, and of k-means on few distinct rows."""
    with silent("Graph is not fully connected"), silent(category=ConvergenceWarning, module="sklearn[.]"):
        yield


def _flow(p: Conditional, n_steps: int, members: Any, sample_weight: Array) -> Array:
    """The fraction of p, of walks of up to n_steps along it, that goes from group to group; symmetric."""
    start, end = sparse.csr_array(members.multiply(sample_weight[:, None])).T, members
    flow = np.zeros((members.shape[1],) * 2)
    for step in range(n_steps):  # from both sides in turn, which keeps both sparse
        start, end = (start @ p.weights, end) if step % 2 else (start, p.weights @ end)
        flow += (start @ end).toarray()
    return (flow + flow.T) / (2 * flow.sum())


def search(
    flow: Array,
    masses: Array,
    n_clusters: int,
    table: tuple,
    rng: np.random.RandomState,
    n_searches: int = _SEARCHES,
    fixed: int = 0,
) -> tuple[Array, Array]:
    """Move groups between clusters while the cost falls, from several random labels.

    `flow` between groups is symmetric and sums to one, as their masses do; `table` is that of `cost_table`. Clusters
    that lost all groups are started again from half of a large one, as long as that helps. So many of the first groups
    as are `fixed` stay where they are, each in the cluster of its number. Returns labels of shape
    (n_searches, n_groups), and the cost of each.
    """
    n_groups, team = len(masses), Team()
    labels = np.argsort(rng.uniform(size=(n_searches, n_groups)), axis=1) % n_clusters  # as many groups in each
    labels[:, :fixed] = np.arange(fixed)
    orders = fixed + np.stack([rng.permutation(n_groups - fixed) for _ in range(_SWEEPS)])

    def settled(labels: Array) -> Array:
        costs = np.empty((len(labels), n_clusters))
        parts = team.split(len(labels))
        team.run(_settle, [(flow, masses, table, orders, labels[part], costs[part]) for part in parts])
        return costs.sum(axis=1)

    costs = settled(labels)
    for _ in range(_REFILLS):
        best = np.argsort(costs, kind="stable")[:_REFILLED]
        short = best[[len(np.unique(labels[which])) < min(n_clusters, n_groups) for which in best]]
        if not len(short):
            break
        again = np.stack([_refilled(labels[which], flow, masses, n_clusters, rng, fixed) for which in short])
        lower = settled(again)
        better = lower < costs[short] - 1e-12
        labels[short[better]], costs[short[better]] = again[better], lower[better]
        if not better.any():
            break
    return labels, costs


def _refilled(
    labels: Array, flow: Array, masses: Array, n_clusters: int, rng: np.random.RandomState, fixed: int
) -> Array:
    """Labels with each empty cluster given the half of a large one that is nearest to some group of it."""
    labels = labels.copy()
    for empty in np.setdiff1d(np.arange(n_clusters), labels):
        counts = np.bincount(labels[fixed:], minlength=n_clusters)
        mass = np.bincount(labels[fixed:], masses[fixed:], minlength=n_clusters) * (counts > 1)
        if not mass.any():
            break
        members = fixed + np.flatnonzero(labels[fixed:] == rng.choice(n_clusters, p=mass / mass.sum()))
        links = flow[rng.choice(members), members]
        labels[members[np.argsort(-links, kind="stable")[: len(members) // 2]]] = empty
    return labels


@njit(error_model="numpy", inline="always")
def _interpolated(inside: float, mass: float, cluster: int, table: tuple) -> float:
    """inside * gain(mass) + mass * rest(mass), from tables over equal steps of log mass from `low` up."""
    gains, rests, low, per_unit = table
    which = cluster if len(gains) > 1 else 0
    gain, rest = gains[which], rests[which]
    at = (np.log(max(mass, 1e-300)) - low) * per_unit
    first = min(max(int(at), 0), len(gain) - 2)
    share = min(max(at - first, 0.0), 1.0)
    gained = gain[first] + share * (gain[first + 1] - gain[first])
    return inside * gained + mass * (rest[first] + share * (rest[first + 1] - rest[first]))


@njit(nogil=True, error_model="numpy")
def _settle(flow: Array, masses: Array, table: tuple, orders: Array, labels: Array, costs: Array) -> None:
    """Each row of labels to where no single move of a group lowers the sum of its costs, the parts of clusters."""
    for search in range(len(labels)):
        label, cost = labels[search], costs[search]
        inside, mass, links = np.zeros(len(cost)), np.zeros(len(cost)), np.zeros((len(label), len(cost)))
        for group in range(len(label)):
            mass[label[group]] += masses[group]
            for other in range(len(label)):
                links[group, label[other]] += flow[group, other]
            inside[label[group]] += links[group, label[group]]
        for cluster in range(len(cost)):
            cost[cluster] = _interpolated(inside[cluster], mass[cluster], cluster, table)
        for order in orders:
            moved = False
            for group in order:
                old, new, least, own = label[group], label[group], -1e-12, flow[group, group]
                left, mass_left = inside[old] - 2 * links[group, old] + own, mass[old] - masses[group]
                cost_left, cost_joined = _interpolated(left, mass_left, old, table), 0.0
                for cluster in range(len(cost)):
                    if cluster == old:
                        continue
                    joined = inside[cluster] + 2 * links[group, cluster] + own
                    trial = _interpolated(joined, mass[cluster] + masses[group], cluster, table)
                    change = trial - cost[cluster] + cost_left - cost[old]
                    if change < least:
                        new, least, cost_joined = cluster, change, trial
                if new == old:
                    continue
                moved = True
                inside[new] += 2 * links[group, new] + own
                mass[new] += masses[group]
                inside[old], mass[old] = left, mass_left
                cost[new], cost[old], label[group] = cost_joined, cost_left, new
                for other in range(len(label)):
                    links[other, old] -= flow[group, other]
                    links[other, new] += flow[group, other]
            if not moved:
                break
