"""Clusters beside known classes: k-means whose labelled rows stay, which cluster is whose, what lies hidden in them."""

from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics import pairwise_distances_argmin, pairwise_distances_argmin_min

from .._core.conditional import Conditional

_STEPS = 30


def k_means_beside(
    known: np.ndarray, X: Any, n_clusters: int, sample_weight: np.ndarray, seed: int, n_starts: int = 1
) -> np.ndarray:
    """Labels of the lowest inertia found: of rows with a class, `known`, that; of rows without, -1, the nearest mean.

    New means start at rows without a class, drawn as by k-means++.
    """
    rng, free = np.random.RandomState(seed), known < 0
    starts = [_descend(known, X, n_clusters, sample_weight, free, rng) for _ in range(n_starts)]
    return min(starts, key=lambda start: start[1])[0]


def columns_of(labels: np.ndarray, known: np.ndarray, n_clusters: int) -> np.ndarray:
    """The cluster of each known class, one to one, so that they have the most rows in common."""
    own = known >= 0
    common = np.zeros((int(known.max()) + 1, n_clusters))
    np.add.at(common, (known[own], labels[own]), 1)
    return linear_sum_assignment(-common)[1]


def hidden_mass(
    p: Conditional, labels: np.ndarray, known: np.ndarray, sample_weight: np.ndarray, copies: np.ndarray
) -> float:
    """The fraction of the weight that lies in clusters of known classes, but where no row is labelled.

    ::

        sum_c m_c max(0, 1 - L_c^2 / (T_c S_c)),     w_ij = w_i p(j|i) + w_j p(i|j) within the cluster of class c

    T_c is the sum of w_ij over the pairs of cluster c, of mass m_c, L_c over those whose i is labelled, S_c over those
    that both are; rows of one number in `copies`, equal ones that may be labelled together, are no pairs.
    Labels that are even among the rows of a class, a fraction l, make L_c = l T_c and S_c = l^2 T_c.
    Where a fraction h of the cluster is another class, apart from the first, L_c = (1 - h) l T_c and
    S_c = (1 - h) l^2 T_c: it has h.
    """
    n, n_known, own = len(labels), int(known.max()) + 1, known >= 0
    pairs = p.weights.tocoo()
    within = (labels[pairs.row] == labels[pairs.col]) & (labels[pairs.row] < n_known)
    within &= copies[pairs.row] != copies[pairs.col]
    i, j = pairs.row[within], pairs.col[within]
    weight, c = pairs.data[within] * sample_weight[i], labels[i]
    total, both = (np.bincount(c, weight * of, n_known) for of in (1.0, own[i] & own[j]))
    labelled = np.bincount(c, weight * (own[i] / 2 + own[j] / 2), n_known)
    even = np.divide(labelled**2, total * both, out=np.ones(n_known), where=total * both > 0)
    masses = np.bincount(labels, sample_weight, n)[:n_known] / sample_weight.sum()
    return float(masses @ np.maximum(1 - even, 0))


def _descend(
    known: np.ndarray, X: Any, n_clusters: int, sample_weight: np.ndarray, free: np.ndarray, rng: Any
) -> tuple[np.ndarray, float]:
    """(labels, inertia) of the free rows of one start."""
    n_known, rows, weight = int(known.max()) + 1, X[free], sample_weight[free]
    centers = _means(X[~free], known[~free], n_known, sample_weight[~free])
    n_new = min(n_clusters - n_known, rows.shape[0])
    if n_new:
        drawn = kmeans_plusplus(rows, n_new, sample_weight=weight, random_state=rng)[0]
        centers = np.vstack([centers, drawn.toarray() if sparse.issparse(drawn) else drawn])
    labels = known.copy()
    for _ in range(_STEPS):
        before = labels
        labels = known.copy()
        labels[free] = pairwise_distances_argmin(rows, centers)
        if (labels == before).all():
            break
        counts = np.bincount(labels, sample_weight, minlength=len(centers))
        centers = np.where(counts[:, None] > 0, _means(X, labels, len(centers), sample_weight), centers)
    sq = pairwise_distances_argmin_min(rows, centers, metric_kwargs={"squared": True})[1]
    return labels, float(weight @ sq)


def _means(X: Any, labels: np.ndarray, n_clusters: int, sample_weight: np.ndarray) -> np.ndarray:
    """Weighted mean rows of the labels, of none zeros."""
    members = sparse.csr_array((sample_weight, labels, np.arange(len(labels) + 1)), (len(labels), n_clusters))
    sums = members.T @ X
    sums = sums.toarray() if sparse.issparse(sums) else sums
    return sums / np.maximum(members.sum(axis=0), 1e-300)[:, None]
