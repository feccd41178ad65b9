"""Local minima of the loss over hard partitions of single rows, from groups of rows down to rows.

As in `local_search`, the loss is a sum over clusters of f_c g(m_c) + m_c h(m_c); here rows move, over a sparse flow of
p, so that a sweep costs as much as a pass over p's entries. The rows on which the best partitions agree are groups for
another search, as hundreds of searches among groups cost less than one among rows. Rows whose class is known stay in
the cluster of its number, and are one group.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans

from .._core.compiled import njit
from .._core.conditional import Conditional
from .._core.types import Array
from .known import k_means_beside
from .local_search import _interpolated, agreed_groups, quiet, search

_ROUNDS, _SWEEPS, _SWEEPS_AT_ONCE = 3, 30, 4
_GROUPS_PER_CLUSTER, _MOST_GROUPS = 20, 1000
_SEARCHES, _LEAST_SEARCHES, _WORK = 128, 8, 4e6  # searches of a round: fewer where groups times clusters are many
_SAME = 0.95  # Rand index, adjusted, above which two partitions are one


class Rows(NamedTuple):
    """Rows as the search sees them: symmetric flow of p that sums to one, masses that do, and the table of costs.

    `known` is the cluster of each row that stays there, -1 of the others; None where all may move.
    """

    flow: sparse.csr_array
    masses: np.ndarray
    table: tuple
    n_clusters: int
    known: np.ndarray | None = None

    @property
    def free(self) -> np.ndarray:
        """Numbers of the rows that may move."""
        return np.arange(len(self.masses)) if self.known is None else np.flatnonzero(self.known < 0)

    @property
    def n_known(self) -> int:
        """How many clusters are known."""
        return 0 if self.known is None else int(self.known.max()) + 1

    def groups(self, groups: np.ndarray) -> np.ndarray:
        """Groups of rows with those of known classes as the first."""
        if self.known is None:
            return groups
        own, free = self.known.copy(), self.free
        own[free] = self.n_known + np.unique(groups[free], return_inverse=True)[1]
        return own


def symmetric_flow(p: Conditional, n_steps: int, sample_weight: Array, known: Array | None = None) -> sparse.csr_array:
    """w_i P_ij + w_j P_ji over two, P the mean of walks of one to n_steps steps along p; sums to one.

    A row of a known class, -1 of the others, has all of its P within the class: which of its rows is all one, as they
    stay together.
    """
    power = total = p.weights
    for _ in range(n_steps - 1):
        power = power @ p.weights
        total = total + power
    of_rows = np.repeat(sample_weight * (1 if known is None else known < 0), np.diff(total.indptr))
    flow = sparse.csr_array((total.data * of_rows, total.indices, total.indptr), shape=total.shape)
    if known is not None:
        has_others = (known >= 0) & (np.bincount(known + 1)[known + 1] > 1)
        flow = flow + sparse.diags_array(n_steps * sample_weight * has_others)
    flow = sparse.csr_array(flow + flow.T.tocsr())
    flow.data /= flow.data.sum()
    return flow


def parts_of(rows: Rows) -> Array | None:
    """Labels of the parts into which the flow falls, where these are as many as clusters, and no row has a class."""
    if rows.known is not None:
        return None
    n_parts, labels = connected_components(rows.flow, directed=False)
    return labels.astype(np.int64) if n_parts == rows.n_clusters else None


def settled(rows: Rows, labels: np.ndarray, seed: int, max_sweeps: int = _SWEEPS) -> tuple[np.ndarray, float]:
    """Labels from which no move of a row lowers the loss, and the loss; no cluster loses its last row."""
    labels = _whole(rows, np.unique(labels, return_inverse=True)[1].astype(np.int64))
    rng, free = np.random.RandomState(seed), rows.free
    flow, left, moving = rows.flow, min(max_sweeps, _SWEEPS), True
    known = (flow.indptr, flow.indices, flow.data, rows.masses), rows.table, rows.n_clusters
    while moving:
        n_sweeps = min(left, _SWEEPS_AT_ONCE)  # as a rule few are needed
        orders = np.array([rng.permutation(free) for _ in range(n_sweeps)], np.int64).reshape(-1, len(free))
        cost, moving = _settle_rows(*known, orders, labels)
        left -= n_sweeps
        moving = moving and left > 0
    return labels, cost


def _whole(rows: Rows, labels: Array) -> Array:
    """Labels with a row to each cluster that had none, of those that hold least to their own."""
    missing = rows.n_clusters - labels.max() - 1
    if missing <= 0:
        return labels
    members = sparse.csr_array((np.ones(len(labels)), labels, np.arange(len(labels) + 1)))
    held = np.asarray((rows.flow @ members)[np.arange(len(labels)), labels]).ravel() / np.maximum(rows.masses, 1e-300)
    counts = np.bincount(labels)
    for row in rows.free[np.argsort(held[rows.free], kind="stable")]:
        if missing and counts[labels[row]] > 1:
            counts[labels[row]] -= 1
            labels[row], missing = rows.n_clusters - missing, missing - 1
    return labels


def searched(
    rows: Rows, near: Any, starts: list, n_kept: int, seed: int, max_sweeps: int = _SWEEPS
) -> list[tuple[Array, float]]:
    """Local minima of the lowest loss, the best first, as (labels, loss): rounds of search among groups, then rows.

    `near` holds a row of numbers each, near each other where p joins the rows; k-means of it gives the first groups.
    `starts` are local minima that are known already; `n_kept` is how many are kept from round to round, of which there
    is one where it is one.
    """
    found, n, groups = list(starts), len(rows.masses), _first_groups(rows, near, seed)
    for number in range(_ROUNDS if n_kept > 1 else 1):
        if groups.max() >= _MOST_GROUPS:
            found += [settled(rows, labels, seed, max_sweeps) for labels in _k_means_starts(rows, near, seed)]
            return _distinct(found, n_kept)
        best, known = found[0][1] if found else np.inf, {_digest(labels) for labels, _ in found}
        new = [labels for labels in _of_groups(rows, groups, n_kept, seed) if _digest(labels) not in known]
        found += [settled(rows, labels, seed + number, max_sweeps) for labels in new]
        found = _distinct(found, n_kept)
        groups = rows.groups(agreed_groups(np.stack([labels for labels, _ in found]), rows.n_clusters))
        if len(found) == 1 or groups.max() < rows.n_clusters or (number and found[0][1] > best - 1e-6) or n <= 2:
            break
    return found


def _first_groups(rows: Rows, near: Any, seed: int) -> Array:
    """The group of each row: k-means of `near`, or each row its own."""
    n_groups = _GROUPS_PER_CLUSTER * rows.n_clusters
    if len(rows.masses) <= n_groups or n_groups > _MOST_GROUPS:
        return rows.groups(np.arange(len(rows.masses)))
    with quiet():
        labels = KMeans(n_groups, n_init=1, max_iter=3, random_state=seed).fit_predict(near)
    return rows.groups(np.unique(labels, return_inverse=True)[1])


def _k_means_starts(rows: Rows, near: Any, seed: int) -> list[Array]:
    """Where clusters are too many for groups: k-means from three seeds."""
    with quiet():
        return [
            KMeans(rows.n_clusters, n_init=1, max_iter=20, random_state=seed + more).fit_predict(near)
            if rows.known is None
            else k_means_beside(rows.known, near, rows.n_clusters, rows.masses, seed + more)
            for more in range(3)
        ]


def _of_groups(rows: Rows, groups: Array, n_kept: int, seed: int) -> list[Array]:
    """Labels of rows under the partitions of groups of the lowest loss that differ."""
    n_groups = groups.max() + 1
    members = sparse.csr_array((np.ones(len(groups)), groups, np.arange(len(groups) + 1)), (len(groups), n_groups))
    flow, masses = (members.T @ rows.flow @ members).toarray(), members.T @ rows.masses
    n_searches = int(np.clip(_WORK / (n_groups * (n_groups + 10 * rows.n_clusters)), _LEAST_SEARCHES, _SEARCHES))
    rng = np.random.RandomState(seed)
    labels, costs = search(flow, masses, rows.n_clusters, rows.table, rng, n_searches, rows.n_known)
    which = np.unique(np.round(costs, 9), return_index=True)[1]  # of equal costs one is enough
    return [labels[of][groups] for of in which[:n_kept]]


def _digest(labels: Array) -> bytes:
    """What partitions have in common that differ in the numbers of their clusters alone."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].tobytes()


def _distinct(found: list, n_kept: int) -> list[tuple[Array, float]]:
    """The best that differ."""
    kept: list = []
    for labels, loss in sorted(found, key=lambda each: each[1]):
        if all(_rand(labels, other) < _SAME for other, _ in kept):
            kept.append((labels, loss))
        if len(kept) == n_kept:
            break
    return kept


def _rand(labels: Array, others: Array) -> float:
    """Adjusted Rand index, by one pass over the rows."""
    k = int(others.max()) + 1
    table = np.bincount(labels * k + others, minlength=k * (int(labels.max()) + 1)).reshape(-1, k).astype(float)
    both, one, other = (np.square(part).sum() for part in (table, table.sum(axis=1), table.sum(axis=0)))
    n = float(len(labels))
    one, other, both, pairs = one - n, other - n, both - n, n * (n - 1)
    expected, most = one * other / pairs, (one + other) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def cut_without_edge(rows: Rows, labels: np.ndarray, p: Conditional) -> np.ndarray:
    """Of each row i, the p_ij of those j that are in another cluster than i, or would be were i moved without them."""
    edges, flow = p.weights, rows.flow
    labels = labels.astype(np.int64, copy=False)
    graph = flow.indptr, flow.indices, flow.data, rows.masses
    cut = _cut_without_edge(graph, rows.table, rows.n_clusters, (edges.indptr, edges.indices, edges.data), labels)
    if rows.known is None:
        return cut
    of_row = np.repeat(np.arange(len(labels)), np.diff(edges.indptr))
    leaves = np.bincount(of_row, edges.data * (labels[edges.indices] != labels[of_row]), len(labels))
    return np.where(rows.known < 0, cut, leaves)  # known rows are not moved


@njit(nogil=True, error_model="numpy")
def _cut_without_edge(graph: tuple, table: tuple, n_clusters: int, edges: tuple, label: Array) -> Array:
    """What is cut of each row, as by `_settle_rows` with the flow between the two rows of an edge left out."""
    (indptr, indices, flow, masses), (begins, others, weights) = graph, edges
    inside, mass, cost = np.zeros(n_clusters), np.zeros(n_clusters), np.zeros(n_clusters)
    links, count, touched = np.zeros(n_clusters), np.zeros(n_clusters, np.int64), np.empty(n_clusters, np.int64)
    between, cut = np.zeros(len(label)), np.zeros(len(label))
    _count(graph, label, inside, mass, count)
    for cluster in range(n_clusters):
        cost[cluster] = _interpolated(inside[cluster], mass[cluster], cluster, table)
    for row in range(len(label)):
        old, first, last = label[row], indptr[row], indptr[row + 1]
        own, n_touched = _link(row, indices[first:last], flow[first:last], label, links, touched)
        if n_touched == 1 and touched[0] == old:  # no edge leads elsewhere, and none is left out to a gain
            links[old] = 0.0
            continue
        for edge in range(first, last):
            between[indices[edge]] = flow[edge]
        for edge in range(begins[row], begins[row + 1]):
            other = others[edge]
            leaves = label[other] != old
            if not leaves and other != row and count[old] > 1:
                held = inside[old] - 2 * between[other]
                left = held - 2 * (links[old] - between[other]) - own
                cost_left = _interpolated(left, mass[old] - masses[row], old, table)
                change = cost_left - _interpolated(held, mass[old], old, table)
                for cluster in touched[:n_touched]:
                    if cluster != old and not leaves:
                        joined = inside[cluster] + 2 * links[cluster] + own
                        trial = _interpolated(joined, mass[cluster] + masses[row], cluster, table)
                        leaves = trial - cost[cluster] + change < -1e-12
            if leaves:
                cut[row] += weights[edge]
        for edge in range(first, last):
            between[indices[edge]] = 0.0
        for cluster in touched[:n_touched]:
            links[cluster] = 0.0
    return cut


@njit(nogil=True, error_model="numpy")
def _count(graph: tuple, label: Array, inside: Array, mass: Array, count: Array) -> None:
    """Add up the flow inside of each cluster, its mass and its rows."""
    indptr, indices, flow, masses = graph
    for row in range(len(label)):
        own = label[row]
        mass[own] += masses[row]
        count[own] += 1
        within = inside[own]
        for edge in range(indptr[row], indptr[row + 1]):
            within += flow[edge] * (label[indices[edge]] == own)
        inside[own] = within


@njit(nogil=True, error_model="numpy")
def _link(row: int, others: Array, flow: Array, label: Array, links: Array, touched: Array) -> tuple[float, int]:
    """Add the flow between a row and each cluster; returns that with itself, and how many clusters are touched."""
    own, n_touched = 0.0, 0
    for edge in range(len(others)):
        other = others[edge]
        if other == row:
            own += flow[edge]
            continue
        cluster = label[other]
        linked = links[cluster]
        links[cluster] = linked + flow[edge]
        if linked == 0:
            touched[n_touched] = cluster
            n_touched += 1
    return own, n_touched


@njit(nogil=True, error_model="numpy")
def _best_move(
    old: int, gained: tuple, touched: Array, links: Array, clusters: tuple, table: tuple
) -> tuple[int, float]:
    """(the cluster that a row joins to the lowest loss, the cluster's cost then); its own where none is lower.

    `gained` holds the change of its own cluster's cost, its flow with itself and its mass.
    """
    (cost_left, own, row_mass), (inside, mass, cost) = gained, clusters
    new, least, cost_joined = old, -1e-12, 0.0
    for cluster in touched:
        if cluster == old:
            continue
        joined = inside[cluster] + 2 * links[cluster] + own
        trial = _interpolated(joined, mass[cluster] + row_mass, cluster, table)
        change = trial - cost[cluster] + cost_left
        if change < least:
            new, least, cost_joined = cluster, change, trial
    return new, cost_joined


@njit(nogil=True, error_model="numpy")
def _settle_rows(graph: tuple, table: tuple, n_clusters: int, orders: Array, label: Array) -> tuple[float, bool]:
    """Move rows between clusters until no move lowers the loss, which is returned; labels change in place."""
    indptr, indices, flow, masses = graph
    inside, mass, cost = np.zeros(n_clusters), np.zeros(n_clusters), np.zeros(n_clusters)
    links, count, touched = np.zeros(n_clusters), np.zeros(n_clusters, np.int64), np.empty(n_clusters, np.int64)
    _count(graph, label, inside, mass, count)
    for cluster in range(n_clusters):
        cost[cluster] = _interpolated(inside[cluster], mass[cluster], cluster, table)
    for order in orders:
        moved = False
        for row in order:
            old = label[row]
            if count[old] == 1:
                continue
            edges = slice(indptr[row], indptr[row + 1])
            own, n_touched = _link(row, indices[edges], flow[edges], label, links, touched)
            if n_touched == 1 and touched[0] == old:
                links[old] = 0.0
                continue
            left, mass_left = inside[old] - 2 * links[old] - own, mass[old] - masses[row]
            cost_left = _interpolated(left, mass_left, old, table)
            gained = cost_left - cost[old], own, masses[row]
            new, cost_joined = _best_move(old, gained, touched[:n_touched], links, (inside, mass, cost), table)
            if new != old:
                moved = True
                inside[new] += 2 * links[new] + own
                mass[new] += masses[row]
                count[new] += 1
                inside[old], mass[old], cost[old] = left, mass_left, cost_left
                count[old] -= 1
                cost[new], label[row] = cost_joined, new
            for which in range(n_touched):
                links[touched[which]] = 0.0
        if not moved:
            return cost.sum(), False
    return cost.sum(), True
