"""Which of several partitions to keep: the fraction of p that they cut, of what labels drawn at random would cut.

All are local minima of one loss, so what tells them apart is how they got there: by search, from the eigenvectors that
relax the normalised cut, from k-means. The loss itself rewards even clusters, and may pay for evenness with cuts
through a large cluster. With m_c the fraction of rows in cluster c,

    R = sum_i w_i sum_j p_ij [c_i != c_j] / (1 - sum_c m_c^2)

is zero where no p is cut and one for labels that know nothing of p, whatever their sizes.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

_MUCH_LESS = 0.7  # of what the search's partition cuts
_STANDARD_ERRORS = 1.5  # within which a simpler partition is as good
_ALONE = 0.5  # of a cluster's p stays inside, or it holds outliers
_NOTHING = 0.1  # of what another cuts of the other rows, where outliers may have clusters of their own


class Candidate(NamedTuple):
    """A partition, its loss, and what is cut: R by row, whose mean is R, 1 - sum_c m_c^2, and which rows are outliers.

    Outliers are rows of clusters in which less than half of p stays.
    """

    name: str
    labels: np.ndarray
    loss: float
    cut_of_rows: np.ndarray
    evenness: float
    alone: np.ndarray

    def cut(self, share):
        """R."""
        return float(share @ self.cut_of_rows)


def candidate(name, labels, loss, p, share):
    """Measure a partition of rows with shares of the weight."""
    n, k = len(labels), int(labels.max()) + 1
    members = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), (n, k))
    inside = np.asarray((p.weights @ members)[np.arange(n), labels]).ravel()
    evenness = 1 - float(np.square(np.bincount(labels, share)).sum())
    cut = np.where(p.has_positives, 1 - inside, 0.0)
    of_clusters = np.bincount(labels, share * cut) > (1 - _ALONE) * np.bincount(labels, share * p.has_positives)
    return Candidate(name, labels, loss, np.clip(cut, 0, 1) / max(evenness, 1e-12), evenness, of_clusters[labels])


def as_good(simple, other, share, errors=_STANDARD_ERRORS):
    """Whether a simpler partition cuts no more than another, but for what a few rows may do by accident."""
    more = simple.cut_of_rows - other.cut_of_rows
    mean = share @ more
    error = np.sqrt(np.square(share) @ np.square(more - mean))
    return mean <= errors * error + 1e-12


def parts_outliers(simple, other, share):
    """Whether the simpler partition has clusters of outliers, and what the other does instead is a split of a group.

    Then, of all other rows, the simpler one cuts next to nothing.
    """
    rest = share * ~simple.alone
    return rest @ simple.cut_of_rows < _NOTHING * (rest @ other.cut_of_rows) - 1e-12


def choose(by_search, by_cut, by_k_means, share):
    """The partition to keep; see the module.

    1. That of the search, of the lowest loss, unless that of the cut has less than 0.7 of its R.
    2. That of k-means instead, where its R is higher by no more than 1.5 standard errors of the difference over rows.
       Clusters of outliers, that the other has not, must be worth it: of the other rows it cuts less than a tenth.
    """
    kept = by_search
    if by_cut is not None and by_cut.cut(share) < _MUCH_LESS * by_search.cut(share) - 1e-12:
        kept = by_cut
    if by_k_means is None or not as_good(by_k_means, kept, share):
        return kept
    if by_k_means.alone.any() and not kept.alone.any() and not parts_outliers(by_k_means, kept, share):
        return kept
    return by_k_means
