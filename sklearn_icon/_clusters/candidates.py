"""Candidates for the default clusters, made on one p and one set of rows: by search, by the cut, by k-means."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import KMeans

from .._core.conditional import Conditional
from .._core.journal import recalled
from .._core.rows import in_units, is_itself, row_digests, unit_of
from ..learned import SharedCluster
from .choice import WALK_STEPS, Candidate, candidate, choose, puts_together
from .cuts import measure_of
from .eigenvectors import leading_eigenvectors
from .known import k_means_beside
from .local_search import cost_table, quiet
from .losses import Settings
from .row_search import Rows, cut_without_edge, parts_of, searched, settled, symmetric_flow
from .soft_k_means import moved

_K_MEANS_STARTS, _STARTS_AMONG_EIGENVECTORS = 6, 3  # the second are settled whatever they are
_LEAST_KEPT, _MOST_KEPT, _KEPT_ROWS = 6, 9, 12_000  # partitions between rounds: fewer of many rows
_MOST_EIGENVECTORS = 120


class Asked(NamedTuple):
    """What is asked for: settings, the spec of p for some rows and so many clusters, a seed, who is told, and the
    longest walk along p.
    """

    settings: Settings
    p_of: Callable[[Any, int], Any]
    seed: int
    say: Callable[[str], Any]
    n_steps: int = WALK_STEPS


class Choice(NamedTuple):
    """What was chosen, of which candidates."""

    chosen: Candidate
    candidates: list[Candidate]

    def table(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The candidates, column by column."""
        share = weight / weight.sum()
        return {
            "name": np.array([each.name for each in self.candidates]),
            "loss": np.array([each.loss for each in self.candidates]),
            "cut": np.array([each.cut(share) for each in self.candidates]),
            "evenness": np.array([each.evenness for each in self.candidates]),
            "effective": np.array([each.effective for each in self.candidates]),
            "n_clusters": np.array([int(each.labels.max()) + 1 for each in self.candidates]),
        }


def choice_among(
    p: Conditional, X: Any, asked: Asked, sample_weight: np.ndarray, known: np.ndarray | None = None
) -> Choice:
    """Candidates on one step of p of distinct rows, and the one to keep; X holds features for k-means, or None.

    Where p falls into as many parts as there are clusters, these are the cut, and what a search would find cuts more.
    Rows of a known class are in the cluster of its number in all of them. Then k-means is a start of the search alone:
    what it has to say of uneven clusters and outliers, labels say better.
    """
    n, share, settings = p.shape[0], sample_weight / sample_weight.sum(), asked.settings
    unit = 1.0 if X is None else unit_of(X)
    X = in_units(X, unit)
    table = cost_table("kl", n, settings.uniform, settings.uniform)
    rows = Rows(symmetric_flow(p, asked.n_steps, sample_weight, known), share, table, settings.n_clusters, known)
    by_means, parts = None, parts_of(rows)
    if X is not None:
        labels = recalled("k-means", lambda: _k_means(X, unit, asked, sample_weight, known))
        by_means = np.unique(labels, return_inverse=True)[1]
    if parts is None:
        found = _found(p, X, by_means, asked, rows, sample_weight)
    else:
        found = {"cut": settled(rows, parts, asked.seed, 0)}
    made = {
        name: candidate(name, labels, loss, p, share, cut_without_edge(rows, labels, p))
        for name, (labels, loss) in found.items()
    }
    if known is not None:
        made.pop("settled k-means", None)
    elif by_means is not None and by_means.max() + 1 == settings.n_clusters:
        loss = settled(rows, by_means, asked.seed, 0)[1]
        made = {"k-means": candidate("k-means", by_means, loss, p, share)} | made
    chosen = choose(made, share, partial(puts_together, X))
    for each in made.values():
        asked.say(f"{each.name}: loss {each.loss:.4f}, R {each.cut(share):.4f}, evenness {each.evenness:.3f}")
    asked.say(f"kept that of {chosen.name}")
    return Choice(chosen, list(made.values()))


def _found(
    p: Conditional, X: Any, by_means: np.ndarray | None, asked: Asked, rows: Rows, sample_weight: np.ndarray
) -> dict[str, tuple[np.ndarray, float]]:
    """(labels, loss) of local minima: from k-means, from eigenvectors, and the best of a search."""
    settings, found, near = asked.settings, {}, recalled("eigenvectors", lambda: _eigenvectors(p, asked, sample_weight))
    if by_means is not None:
        found["settled k-means"] = settled(rows, by_means, asked.seed, settings.max_iter)
    if near is not None:
        labels = recalled("k-means of eigenvectors", lambda: _partition_of(near, asked, sample_weight, rows.known))
        found["cut"] = settled(rows, labels, asked.seed, settings.max_iter)
    n_kept = settings.starts(int(np.clip(_KEPT_ROWS // p.shape[0], _LEAST_KEPT, _MOST_KEPT)))
    how = rows, X if near is None else near, list(found.values()), n_kept, asked.seed, settings.max_iter
    found["search"] = recalled("search", lambda: searched(*how)[0])
    return found


def _k_means(
    X: Any, unit: float, asked: Asked, sample_weight: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    """Labels by k-means; its draws see rows in an order of their own, not that in which they come."""
    order, labels = np.argsort(row_digests(X)), np.empty(X.shape[0], np.int64)
    settings, init = asked.settings, moved(asked.settings.init, unit)
    if known is not None:
        n_starts = settings.starts(_K_MEANS_STARTS)
        of = known[order], X[order], settings.n_clusters, sample_weight[order], asked.seed, n_starts
        labels[order] = k_means_beside(*of)
        return labels
    how = {"init": init, "n_init": 1 if is_itself(init) else settings.starts(_K_MEANS_STARTS)}
    with quiet():
        k_means = KMeans(settings.n_clusters, algorithm=settings.algorithm, random_state=asked.seed, **how)
        labels[order] = k_means.fit_predict(X[order], sample_weight=sample_weight[order])
    return labels


def _eigenvectors(p: Conditional, asked: Asked, sample_weight: np.ndarray) -> np.ndarray | None:
    """The leading eigenvectors of p's flow, which relax the cut; None where they are too many to be worth it."""
    if asked.settings.n_clusters > _MOST_EIGENVECTORS:
        return None
    measure = measure_of(p, SharedCluster(), sample_weight)
    flow = symmetric_flow(p, 1, measure)
    return leading_eigenvectors(flow, asked.settings.n_clusters, asked.seed)


def _partition_of(
    near: np.ndarray, asked: Asked, sample_weight: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    if known is not None:
        of = known, near, asked.settings.n_clusters, sample_weight, asked.seed, _STARTS_AMONG_EIGENVECTORS
        return k_means_beside(*of)
    with quiet():
        k_means = KMeans(asked.settings.n_clusters, n_init=_STARTS_AMONG_EIGENVECTORS, random_state=asked.seed)
        return k_means.fit_predict(near, sample_weight=sample_weight)
