"""Normalised cuts: the limit of debiased clusters as the uniform mass goes to one, over hard partitions.

With p~ = (1 - a) p + a pi and q~ = (1 - a) q + a pi, rows averaged and uniform mass spread by one measure pi,

    KL(p~ || q~) / (1 - a)^2  ->  1/2 sum_i pi_i sum_j (p_ij - q_ij)^2 / pi_j.

For hard clusters q_ij = pi_j / m_c inside, m_c the cluster's share of pi, and what depends on them is

    sum_c (1 - f_c / m_c),     f_c = sum_{i, j in c} pi_i p_ij.

Where pi is by degree and p = w_ij / d_i, this is the normalised cut, sum_c cut_c / volume_c.
"""

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.manifold import spectral_embedding

from ._networks import FixedRows
from ._partitions import Partition
from ._search import hard_starts, near_groups, quiet
from ._solver import SolverResult

_SWEEPS = 50
_SURE = 40.0  # logit of a hard membership
_LEAST_GAIN = 1e-12


def normalized_cut(p, memberships, measure):
    """sum_c (1 - f_c / m_c) of hard clusters, m - sum_ij pi_i p_ij q_ij / pi_j of soft ones.

    Parameters
    ----------
    p : Conditional
        Its uniform mass is not read.
    memberships : tensor of float64 of shape (n, n_clusters)
    measure : ndarray of shape (n,)
        pi, up to a factor.

    Returns
    -------
    tensor
        A scalar, over clusters that have members.
    """
    measure = torch.as_tensor(measure, dtype=memberships.dtype)
    reached = FixedRows(p.weights, memberships.dtype, memberships.device) @ memberships
    inside, mass = measure @ (memberships * reached), measure @ memberships
    return (1 - inside[mass > 0] / mass[mass > 0]).sum()


def measure_of(p, learned, sample_weight):
    """pi: by the degrees of p where q weighs by these, else by rows alone; rows without positives have none."""
    by_degree = learned.weights == "degree" and p.degrees is not None
    return sample_weight * p.has_positives * (p.degrees if by_degree else 1.0)


def solve_cut(p, n_steps, learned, X, n_clusters, *, sample_weight, n_init, seed, on_step):
    """Hard clusters of the lowest normalised cut found.

    Starts are k-means of the relaxation's solution, the leading eigenvectors of the graph, and a search that moves
    groups of rows; from each, single rows move while the cut falls.

    Parameters
    ----------
    p : Conditional
        One step.
    n_steps : int
        The longest walk along p that finds positives.
    learned : SharedCluster
    X : ndarray or sparse matrix or None
        Features, or None where there is only a graph.
    n_clusters : int
    sample_weight : ndarray of shape (n,)
    n_init, seed : int
        Starts of each kind.
    on_step : callable (n_iter, loss) or None

    Returns
    -------
    Partition
    """
    measure = measure_of(p, learned, sample_weight)
    mass, flow = measure / measure.sum(), _symmetric_flow(p, n_steps, measure)
    groups = near_groups(p, X, n_clusters, sample_weight, seed)
    starts = hard_starts(groups, p, n_steps, n_clusters, _table(mass), n_init, measure, seed)
    if np.count_nonzero(mass) > n_clusters + 1:  # else each row is a group of the search
        starts += _relaxed(flow, mass, n_clusters, n_init, seed)
    found = [refine(flow, mass, labels, n_clusters) for labels in starts]
    labels, curve, finished = min(found, key=lambda each: each[1][-1])
    for n_iter, value in enumerate(curve, 1):
        if on_step is not None and on_step(n_iter, value):
            break
    result = SolverResult(curve[-1], len(curve), np.array(curve), "converged" if finished else "max_iter")
    return Partition(_SURE * np.eye(n_clusters)[labels], curve[-1], result, {})


def _cost(inside, mass):
    """Each cluster's part, -f_c / m_c; an empty one costs more than any move that would leave it so can gain."""
    return -np.divide(inside, mass, out=np.full_like(inside, -2.0), where=mass > _LEAST_GAIN)


def _table(mass):
    """-f_c / m_c for the search among groups, as `cost_table` has it."""
    low = np.log(mass[mass > 0].min())
    log_masses, step = np.linspace(min(low, -1.0), 0, 4096, retstep=True)
    return -np.exp(-log_masses), np.zeros(len(log_masses)), log_masses[0], 1 / step


def _symmetric_flow(p, n_steps, measure):
    """pi_i P_ij + pi_j P_ji over two, P the mean of the walks' steps; sums to one."""
    power = total = p.weights
    for _ in range(n_steps - 1):
        power = power @ p.weights
        total = total + power
    flow = sparse.diags_array(measure / (n_steps * measure.sum())) @ total
    return sparse.csr_array(flow + flow.T) / 2


def _relaxed(flow, mass, n_clusters, n_starts, seed):
    """Labels by k-means of the eigenvectors, as spectral clustering has it; the first cluster takes rows of no mass."""
    counted = np.flatnonzero(mass)
    starts = np.zeros((n_starts, len(mass)), dtype=np.intp)
    with quiet():
        some = sparse.csr_array(flow[counted][:, counted])
        rows = spectral_embedding(some, n_components=n_clusters, random_state=seed, drop_first=False)
        for number in range(n_starts):
            k_means = KMeans(n_clusters, n_init=10, random_state=(seed + number) % 2**32)
            starts[number, counted] = k_means.fit(rows).labels_
    return list(starts)


def refine(flow, mass, labels, n_clusters):
    """Move single rows between clusters while the normalised cut falls.

    Parameters
    ----------
    flow : csr_array of shape (n, n)
        Symmetric.
    mass : ndarray of shape (n,)
        Rows without mass follow the neighbours that pull most.
    labels : ndarray of int of shape (n,)
    n_clusters : int

    Returns
    -------
    labels : ndarray of int of shape (n,)
    curve : list of float
        The cut after each sweep.
    finished : bool
        Whether the last sweep moved no row.
    """
    labels = labels.copy()
    one_hot = np.eye(n_clusters)[labels]
    links, own = flow @ one_hot, flow.diagonal()
    inside, masses = (one_hot * links).sum(axis=0), mass @ one_hot
    curve, moved = [], True
    for _ in range(_SWEEPS):
        moved = False
        elsewhere = links.sum(axis=1) - links[np.arange(len(labels)), labels]
        open_to = (elsewhere > _LEAST_GAIN * mass) | (masses <= _LEAST_GAIN).any()
        for row in np.flatnonzero(open_to):
            old, link = labels[row], links[row]
            joined = _cost(inside + 2 * link + own[row], masses + mass[row]) - _cost(inside, masses)
            left = inside[old] - 2 * link[old] + own[row], masses[old] - mass[row]
            change = joined + _cost(*map(np.atleast_1d, left)) - _cost(inside[[old]], masses[[old]])
            change[old] = 0.0
            new = change.argmin()
            if change[new] >= -_LEAST_GAIN:
                continue
            moved, labels[row] = True, new
            inside[old], masses[old] = left
            inside[new], masses[new] = inside[new] + 2 * link[new] + own[row], masses[new] + mass[row]
            part = slice(flow.indptr[row], flow.indptr[row + 1])
            links[flow.indices[part], old] -= flow.data[part]
            links[flow.indices[part], new] += flow.data[part]
        used = masses > _LEAST_GAIN
        curve.append(float(np.sum(1 - inside[used] / masses[used])))
        if not moved:
            break
    return labels, curve, not moved
