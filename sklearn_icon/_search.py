"""Hard partitions to start from: rows are put into small groups, and groups move between clusters while D falls.

With hard memberships the average divergence depends on two numbers of each cluster: its share m_c of the rows, and the
share f_c of p that stays inside it. A row of cluster c has q(j|i) = 1 / (N m_c) inside and zero outside, so that

    D = sum_c f_c g(m_c) + m_c h(m_c) + constant,

g the gain of a positive inside over one outside, h the cost of keys that are no positives. What p sends from group to
group is one small matrix, so that hundreds of searches cost less than one pass over the rows.
"""

import warnings

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score

from ._divergences import DIVERGENCES

_GROUPS_PER_CLUSTER = 20
_AGREED_GROUPS_PER_CLUSTER = 30
_ROWS_PER_GROUP = 50  # of those that k-means sees
_PROPAGATIONS = 2
_SEARCHES, _SWEEPS = 64, 30
_LEAST_MIXTURE = 0.02  # hard partitions stand for soft ones, under which no pair is impossible
_SAME = 0.95  # adjusted Rand index above which two starts are one


class HardCost:
    """Each cluster's part of D for hard memberships, as a function of (inside, mass): f_c g(m_c) + m_c h(m_c).

    Parameters
    ----------
    divergence : str
    n_keys : int
    of_p, of_q : float
        Uniform mass on p and on q.
    """

    def __init__(self, divergence, n_keys, of_p, of_q):
        term, of_q = DIVERGENCES[divergence].term, max(of_q, _LEAST_MIXTURE)
        self.masses = np.geomspace(0.5 / n_keys, 1, 4096)
        masses = torch.as_tensor(self.masses)
        inside, outside = (1 - of_q) / (n_keys * masses) + of_q / n_keys, torch.full_like(masses, of_q / n_keys)
        rest = torch.full_like(masses, of_p / n_keys)
        of_inside, of_outside = term(rest, inside.log()), term(rest, outside.log())
        gain = term(rest + 1 - of_p, inside.log()) - of_inside - term(rest + 1 - of_p, outside.log()) + of_outside
        self.gain, self.rest = gain.numpy(), (n_keys * masses * (of_inside - of_outside)).numpy()

    def __call__(self, inside, mass):
        """The parts of clusters, arrays of one shape; an empty cluster costs nothing."""
        return inside * np.interp(mass, self.masses, self.gain) + mass * np.interp(mass, self.masses, self.rest)


def hard_starts(groups, p, n_steps, n_clusters, cost, n_starts, sample_weight, seed):
    """Labels of rows under the partitions of lowest cost that differ, the best first.

    Parameters
    ----------
    groups : ndarray of int of shape (n,)
        The group of each row, from zero up.
    p : Conditional
    n_steps : int
        The longest walk along p that finds positives.
    n_clusters : int
    cost : HardCost
    n_starts : int
        How many partitions at the most.
    sample_weight : ndarray of shape (n,)
    seed : int

    Returns
    -------
    list of ndarray of int of shape (n,)
    """
    n = len(groups)
    members = sparse.csr_array((np.ones(n), (np.arange(n), groups)), shape=(n, groups.max() + 1))
    masses = members.T @ sample_weight / sample_weight.sum()
    flow = _flow(p, n_steps, members, sample_weight)
    labels, costs = search(flow, masses, n_clusters, cost, np.random.RandomState(seed))
    kept: list[np.ndarray] = []
    for found in labels[np.argsort(costs, kind="stable")]:
        if all(adjusted_rand_score(found, other) < _SAME for other in kept):
            kept.append(found)
        if len(kept) == n_starts:
            break
    return [found[groups] for found in kept]


def agreed_groups(partitions, n_clusters):
    """Groups of rows that several partitions keep together; rows of small ones join the large one most like them."""
    most = _AGREED_GROUPS_PER_CLUSTER * n_clusters
    signs, groups, sizes = np.unique(np.transpose(partitions), axis=0, return_inverse=True, return_counts=True)
    groups = groups.ravel()
    if len(signs) <= most:
        return groups
    order = np.argsort(-sizes, kind="stable")
    large, small = order[:most], order[most:]
    joined = np.empty(len(signs), dtype=np.intp)
    joined[large] = np.arange(most)
    for part in np.array_split(small, -(-len(small) // 1024)):
        alike = sum(signs[part, None, which] == signs[large, which] for which in range(signs.shape[1]))
        joined[part] = alike.argmax(axis=1)  # of equally like ones the larger
    return joined[groups]


def near_groups(p, X, n_clusters, sample_weight, seed):
    """The group of each row: k-means of rows averaged over their neighbours, twice, or of a graph's eigenvectors."""
    n = p.shape[0]
    n_groups = _GROUPS_PER_CLUSTER * n_clusters
    if n <= n_groups:
        return np.arange(n)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        if X is None:
            graph = p.weights + p.weights.T
            rows = spectral_embedding(graph, n_components=n_clusters, random_state=seed, drop_first=False)
        else:
            rows, weights = X, p.weights.astype(X.dtype)
            for _ in range(_PROPAGATIONS):
                rows = weights @ rows
        some = np.random.RandomState(seed).permutation(np.flatnonzero(sample_weight))[: _ROWS_PER_GROUP * n_groups]
        means = KMeans(min(n_groups, len(some)), n_init=1, max_iter=10, random_state=seed).fit(rows[np.sort(some)])
    return np.unique(means.predict(rows), return_inverse=True)[1]


def _flow(p, n_steps, members, sample_weight):
    """The share of p, of walks of up to n_steps along it, that goes from group to group; symmetric."""
    reached, start = members, sparse.csr_array(members.multiply(sample_weight[:, None])).T
    flow = np.zeros((members.shape[1],) * 2)
    for _ in range(n_steps):
        reached = p.weights @ reached
        flow += (start @ reached).toarray()
    return (flow + flow.T) / (2 * flow.sum())


def search(flow, masses, n_clusters, cost, rng, n_searches=_SEARCHES):
    """Move groups between clusters while the cost falls, from random labels, all searches side by side.

    Parameters
    ----------
    flow : ndarray of shape (n_groups, n_groups)
        Symmetric, sum one.
    masses : ndarray of shape (n_groups,)
        Sum one.
    n_clusters : int
    cost : HardCost
    rng : RandomState
    n_searches : int

    Returns
    -------
    labels : ndarray of int of shape (n_searches, n_groups)
    costs : ndarray of shape (n_searches,)
    """
    n_groups = len(masses)
    labels = np.argsort(rng.uniform(size=(n_searches, n_groups)), axis=1) % n_clusters  # as many groups in each
    one_hot = np.eye(n_clusters)[labels]
    links = flow @ one_hot  # (searches, groups, clusters)
    mass, inside = masses @ one_hot, (links * one_hot).sum(axis=1)
    every = np.arange(n_searches)
    for _ in range(_SWEEPS):
        moved = False
        for group in rng.permutation(n_groups):
            old, link, own = labels[:, group], links[:, group], flow[group, group]
            before = cost(inside, mass)
            left = inside[every, old] - 2 * link[every, old] + own, mass[every, old] - masses[group]
            joined = inside + 2 * link + own, mass + masses[group]
            change = cost(*joined) - before + (cost(*left) - before[every, old])[:, None]
            change[every, old] = 0
            new = change.argmin(axis=1)
            moves = np.flatnonzero(change[every, new] < -1e-12)
            if not len(moves):
                continue
            moved, was, now = True, old[moves].copy(), new[moves]
            for of_clusters, of_left, of_joined in ((inside, left[0], joined[0]), (mass, left[1], joined[1])):
                of_clusters[moves, was], of_clusters[moves, now] = of_left[moves], of_joined[moves, now]
            links[moves, :, was] -= flow[group]
            links[moves, :, now] += flow[group]
            labels[moves, group] = now
        if not moved:
            break
    return labels, cost(inside, mass).sum(axis=1)
