"""Which of several partitions to keep: the fraction of p that they cut, of what labels drawn at random would cut.

What tells partitions of one loss apart is how they got there: by search, from the eigenvectors that relax the
normalised cut, from k-means. The loss itself rewards even clusters, and may pay for evenness with cuts through a large
cluster. With m_c the fraction of rows in cluster c,

    R = sum_i w_i sum_j p_ij [c_i^(j) != c_j] / (1 - sum_c m_c^2)

is zero where no p is cut and one for labels that know nothing of p, whatever their sizes. A partition that was moved to
where the loss is low follows the very edges that it is measured by, and follows accidents too: c_i^(j) is the cluster
that i would be in without j, which is c_i where labels were found without p.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import entr
from sklearn.neighbors import NearestNeighbors

from .._core.conditional import Conditional
from .._core.types import Array

WALK_STEPS = 2  # along the default p, up to which its walks lead
_MUCH_LESS, _LITTLE_MORE = 0.7, 1.2  # of what another cuts
_MORE = 1.5  # of what another cuts, beside a few edges, whatever accidents may do
_STANDARD_ERRORS = 1.5  # within which what is cut may differ by accident
_AS_EVEN = 0.85  # of another's effective number of clusters
_FEW_EDGES = 0.002  # of p, which a few rows may cut by accident
_ALONE = 0.5  # of a cluster's p stays inside, or it holds outliers
_ASKED_ROWS, _OF_OTHERS = 500, 0.1  # of a group, and of their neighbours that are none of it
_OF_A_CLUSTER = 0.25  # that known classes may hold of another, beyond what they do at any number of clusters
_NOTHING = 0.1  # of what another cuts of the other rows, where outliers may have clusters of their own


class Candidate(NamedTuple):
    """A partition, its loss, and what is cut: R by row, whose mean is R, 1 - sum_c m_c^2, the number of clusters of
    equal mass that have the entropy of the m_c, and which rows are outliers: those of clusters in which less than half
    of p stays.
    """

    name: str
    labels: np.ndarray
    loss: float
    cut_of_rows: np.ndarray
    evenness: float
    effective: float
    alone: np.ndarray

    def cut(self, share: Array) -> float:
        """R."""
        return float(share @ self.cut_of_rows)


def candidate(name: str, labels: Array, loss: float, p: Conditional, share: Array, left_out: Any = None) -> Candidate:
    """Measure a partition of rows with shares of the weight; `left_out` is what is cut of rows, edges left out."""
    n, k = len(labels), int(labels.max()) + 1
    members = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), (n, k))
    inside = np.asarray((p.weights @ members)[np.arange(n), labels]).ravel()
    masses = np.bincount(labels, share)
    evenness, effective = 1 - float(np.square(masses).sum()), float(np.exp(entr(masses).sum()))
    cut = np.where(p.has_positives, 1 - inside, 0.0)
    of_clusters = np.bincount(labels, share * cut) > (1 - _ALONE) * np.bincount(labels, share * p.has_positives)
    by_rows = np.clip(cut if left_out is None else left_out, 0, 1) / max(evenness, 1e-12)
    return Candidate(name, labels, loss, by_rows, evenness, effective, of_clusters[labels])


def as_good(simple: Candidate, other: Candidate, share: Array, errors: float = _STANDARD_ERRORS) -> bool:
    """Whether a simpler partition cuts no more than another, but for what a few rows may do by accident."""
    more = simple.cut_of_rows - other.cut_of_rows
    mean = share @ more
    error = np.sqrt(np.square(share) @ np.square(more - mean))
    return mean <= errors * error + 1e-12


def as_even(one: Candidate, other: Candidate) -> bool:
    """Whether one has nearly as many effective clusters as another: groups put together cut nothing."""
    return one.effective >= _AS_EVEN * other.effective


def cuts_below(one: Candidate, factor: float, other: Candidate, share: Array) -> bool:
    """Whether one cuts less than this factor of what the other does."""
    return one.cut(share) < factor * other.cut(share) - 1e-12


def parts_outliers(simple: Candidate, other: Candidate, share: Array) -> bool:
    """Whether the simpler partition has clusters of outliers, and what the other does instead is a split of a group.

    Then, of all other rows, the simpler one cuts next to nothing; but so it does where it puts two groups together.
    """
    rest = share * ~simple.alone
    return rest @ simple.cut_of_rows < _NOTHING * (rest @ other.cut_of_rows) - 1e-12


def puts_together(X: Any, simple: Candidate, other: Candidate) -> bool:
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


def choose(
    made: dict[str, Candidate],
    share: Array,
    puts_together: Callable[[Candidate, Candidate], bool] = lambda simple, other: False,
) -> Candidate:
    """The partition to keep, of candidates by name; see the module.

    1. That of the search, of the lowest loss, unless that of the cut has less than 0.7 of its R; that of the cut where
       p falls into as many parts as there are clusters.
    2. That of k-means instead, where its R is at most a fifth higher; or k-means' after moves, where its R is higher by
       1.5 standard errors of the difference over rows at the most, and by no more than half. Where its effective number
       of clusters is below 0.85 of the other's, its R must be below 0.7 of the other's. Clusters of outliers, that the
       other has not, must be worth it: of the other rows it cuts less than a tenth of what the other cuts, and not as
       it puts groups together, of which `puts_together(k-means', the other)` tells.
    """
    kept = made.get("search") or made["cut"]
    if "cut" in made and cuts_below(made["cut"], _MUCH_LESS, kept, share):
        kept = made["cut"]
    for simple in (made[name] for name in ("k-means", "settled k-means") if name in made):
        if simple.alone.any() and not kept.alone.any():
            replaces = parts_outliers(simple, kept, share) and not puts_together(simple, kept)
        elif not as_even(simple, kept):
            replaces = cuts_below(simple, _MUCH_LESS, kept, share)
        elif simple.name == "k-means":
            replaces = simple.cut(share) <= _LITTLE_MORE * kept.cut(share) + 1e-12
        else:
            replaces = as_good(simple, kept, share) and simple.cut(share) <= _MORE * kept.cut(share) + _FEW_EDGES
        if replaces:
            return simple
    return kept


def rises(cuts: Any) -> Array:
    """How the R of each number of clusters rises to that of the next: log (R_next + e) / (R + e), e a few edges."""
    return np.diff(np.log(np.asarray(cuts, dtype=float) + _FEW_EDGES))


def best_count(counts: Any, cuts: Any, hidden: Any = ()) -> int:
    """The number of clusters after which R rises most; the last but one where it nowhere rises by a fifth.

    Groups that are put together cut nothing, and one that is divided does: R is low up to the number of groups. Beside
    known classes, in which some fraction of the rows lies hidden, it is the first after which R rises by a fifth, of
    those from the least on that hides no more than a quarter of a cluster beyond the best; that least one if none is.
    """
    if len(counts) == 1:
        return int(counts[0])
    steps, rise = rises(cuts), np.log(_LITTLE_MORE)
    if not len(hidden):
        return int(counts[len(steps) - 1 if steps.max() < rise else steps.argmax()])
    beyond = (np.asarray(hidden)[:-1] - min(hidden[:-1])) * np.asarray(counts)[:-1]
    least = int(np.argmax(beyond <= _OF_A_CLUSTER))
    return int(counts[least + int(np.argmax(steps[least:] >= rise))])
