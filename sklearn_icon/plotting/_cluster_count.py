"""`ClusterCountDisplay`: what speaks for a number of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import entr
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils import check_random_state, check_scalar, indexable
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _num_samples

from .._clusters.choice import best_count
from .._core.quiet import quiet
from .._core.types import Array, Rows, Seed
from ._style import DARK, LIGHT, line_options, new_axes, panels_below

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_LABELS = {
    "stability": "Stability (ARI)",
    "entropy": "Entropy / log K",
    "loss": "Loss",
    "n_used": "In use",
    "cut": "Cut (R)",
}
_MAX_TICKS = 20


class ClusterCountDisplay:
    """Stability, entropy and loss of clusterings against their number of clusters K.

    ::

        stability(K) = mean over random halves A, B of X of  ARI(labels of X by the fit to A, by the fit to B)
        entropy(K)   = mean_i sum_c -phi_ic log phi_ic / log K,     phi = memberships of all rows by the fit to a half
        loss(K)      = the loss of the fit to a half

    Bands are one standard deviation. Curves are read together:

    - A K that the data show is found again by fits to other rows, so stability peaks there: 1 is the same partition
      each time, 0 what random clusters give. Several peaks are several scales, and of K that are alike the largest says
      most. A partition can be stable because it is coarse, so a high value at the smallest K by itself is no evidence.
    - Entropy tells how undecided rows are, from 0 for hard memberships to 1 for uniform ones. It is high where clusters
      share a group of rows between them, or too few of them cut through groups.
    - The loss falls with K whatever the data are, as finer clusters fit neighbours more closely, until fits leave
      clusters unused. What may say something is a bend, beyond which it falls more slowly.
    - Where fits left clusters unused, a panel shows how many they used below the line of K: an upper bound on
      what this loss finds worth telling apart.

    Parameters
    ----------
    n_clusters : array-like of int of shape (n_counts,)
        The numbers K.
    stability : array-like of shape (2, n_counts)
        Mean and standard deviation, over pairs of halves, of the adjusted Rand index.
    n_used : array-like of shape (2, n_counts)
        Mean and standard deviation, over fits, of the clusters that hold a row.
    entropy : array-like of shape (2, n_counts), default=None
        Mean and standard deviation, over fits, of the rows' mean entropy; None where memberships are hard.
    loss : array-like of shape (2, n_counts), default=None
        Mean and standard deviation, over fits, of the loss; None where there is none.
    cut : array-like of shape (2, n_counts), default=None
        Mean and standard deviation, over fits, of R; None where partitions are not chosen by it.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The panel of stability, at the top.
    axes_ : dict of str to matplotlib Axes
        All panels by name, from the top: those of "stability", "entropy", "loss", "n_used" and "cut" that are drawn.
    chosen_ : int or None
        The number of clusters that R speaks for; None where there is no R of two numbers at least.
    figure_ : matplotlib Figure
    lines_ : dict of str to matplotlib Line2D

    References
    ----------
    von Luxburg, "Clustering stability: an overview", Foundations and Trends in Machine Learning 2(3), 2010, on what
    stability can and cannot tell.

    Lange, Roth, Braun and Buhmann, "Stability-based validation of clustering solutions", Neural Computation 16(6),
    2004, on halves.

    Hubert and Arabie, "Comparing partitions", Journal of Classification 2, 1985, on the adjusted Rand index.

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_icon.plotting import ClusterCountDisplay
    >>> X, _ = make_blobs(200, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    >>> display = ClusterCountDisplay.from_estimator(KMeans(), X, n_clusters=[2, 3, 4], random_state=0)
    >>> mean, std = display.stability
    >>> int(display.n_clusters[mean.argmax()])
    3
    """

    def __init__(
        self, n_clusters: Any, stability: Any, n_used: Any, *, entropy: Any = None, loss: Any = None, cut: Any = None
    ) -> None:
        self.n_clusters = n_clusters
        self.stability = stability
        self.n_used = n_used
        self.entropy = entropy
        self.loss = loss
        self.cut = cut

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Rows,
        y: Any = None,
        *,
        n_clusters: Sequence[int] = tuple(range(2, 11)),
        n_repeats: int = 3,
        random_state: Seed = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Fit clones of a clusterer to random halves of X, for each number of clusters, and draw what came out.

        All numbers of clusters meet the same halves and seeds. There are ``2 * n_repeats * len(n_clusters)`` fits.

        Parameters
        ----------
        estimator : object
            Clusterer with a parameter `n_clusters` and `predict`; entropy needs `predict_proba`, the loss `loss_`.
            It is cloned, fitted or not, and left as it is.
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            Rows; distances or weights of rows where the estimator takes these.
        y : array-like, default=None
            Passed to `fit`.
        n_clusters : array-like of int, default=(2, 3, ..., 10)
            Numbers of clusters, from 2 to the rows of a half.
        n_repeats : int, default=3
            Pairs of halves.
        random_state : int, RandomState instance or None, default=None
            Draws the halves, and the fits' seeds in place of the estimator's own.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure. All panels are drawn in its room.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        ClusterCountDisplay

        Raises
        ------
        AttributeError
            The estimator has no `n_clusters` or no `predict`.
        ValueError
            `n_clusters` holds something other than integers from 2 to half the rows.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        _check_clusterer(estimator)
        X, y = indexable(X, y)
        counts = _check_counts(n_clusters, _num_samples(X))
        check_scalar(n_repeats, "n_repeats", Integral, min_val=1)
        splits = _splits(_num_samples(X), n_repeats, check_random_state(random_state))
        measured = [_measure(clone(estimator).set_params(n_clusters=int(k)), X, y, splits) for k in counts]
        return cls(counts, **_summarised(measured)).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw one panel for each measure, over a common axis of K.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure. All panels are drawn in its room.
        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        ClusterCountDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        counts = np.asarray(self.n_clusters)
        names = [name for name in _LABELS if vars(self)[name] is not None]
        if np.array_equal(self.n_used[0], counts):
            names.remove("n_used")
        self.ax_, self.figure_ = new_axes(ax, figsize=(6, 1 + 1.7 * len(names)))
        below = panels_below(self.ax_, [1.5] + [1] * (len(names) - 1)) if len(names) > 1 else []
        self.axes_, self.lines_ = dict(zip(names, [self.ax_, *below], strict=True)), {}
        for name, panel in self.axes_.items():
            self.lines_[name] = _band(panel, counts, np.asarray(vars(self)[name]), kwargs)
            panel.set_ylabel(_LABELS[name])
        self.ax_.set_ylim(min(0, self.ax_.get_ylim()[0]), 1.05)
        if "entropy" in names:
            self.axes_["entropy"].set_ylim(bottom=0)
        if "n_used" in names:
            self.axes_["n_used"].plot(counts, counts, ":", color=DARK, zorder=0, label="all K")
            self.axes_["n_used"].yaxis.get_major_locator().set_params(integer=True)
            self.axes_["n_used"].legend(frameon=False)
        several = self.cut is not None and len(counts) > 1
        self.chosen_ = best_count(counts, np.asarray(self.cut)[0]) if several else None
        if self.chosen_ is not None:
            for panel in self.axes_.values():
                panel.axvline(self.chosen_, color=DARK, linestyle="--", linewidth=0.8, zorder=0)
        lowest = list(self.axes_.values())[-1]
        lowest.set_xlabel("Number of clusters K")
        if len(counts) <= _MAX_TICKS:
            lowest.set_xticks(counts)
        else:
            lowest.xaxis.get_major_locator().set_params(integer=True)
        self.figure_.align_ylabels(list(self.axes_.values()))
        return self


def _check_clusterer(estimator: Any) -> None:
    """Raise unless the estimator has a number of clusters to set and labels new rows."""
    name = type(estimator).__name__
    if "n_clusters" not in estimator.get_params(deep=False):
        raise AttributeError(
            f"{name} has no parameter n_clusters; pass the clusterer itself, and rows as it takes them."
        )
    if not hasattr(estimator, "predict"):
        raise AttributeError(f"{name} has no predict, which must label rows that it was not fitted to.")


def _check_counts(n_clusters: Any, n_samples: int) -> Array:
    """Return the distinct numbers of clusters in order."""
    counts = np.atleast_1d(np.asarray(n_clusters))
    if counts.ndim != 1 or len(counts) == 0 or counts.dtype.kind not in "iu" or counts.min() < 2:
        raise ValueError(f"n_clusters={n_clusters!r} should be a sequence of integers of at least 2.")
    if counts.max() > n_samples // 2:
        raise ValueError(
            f"n_clusters={counts.max()} needs at least {2 * counts.max()} rows, as fits see a half of them, got "
            f"{n_samples}; leave out what is above {n_samples // 2}."
        )
    return np.unique(counts)


def _splits(n_samples: int, n_repeats: int, random_state: np.random.RandomState) -> list[list[tuple[Array, int]]]:
    """Return pairs of halves, each a set of rows and the seed of its fit."""
    splits = []
    for _ in range(n_repeats):
        halves = np.array_split(random_state.permutation(n_samples), 2)
        splits.append([(np.sort(half), random_state.randint(np.iinfo(np.int32).max)) for half in halves])
    return splits


def _measure(estimator: Any, X: Rows, y: Any, splits: list[list[tuple[Array, int]]]) -> dict[str, list[float]]:
    """Return the values of every measure, of each pair of halves or of each fit."""
    values: dict[str, list[float]] = {"stability": [], "n_used": [], "entropy": [], "loss": [], "cut": []}
    for pair in splits:
        labels = []
        for rows, seed in pair:
            fitted, X_all = _fit(estimator, X, y, rows, seed)
            labels.append(fitted.predict(X_all))
            values["n_used"].append(len(np.unique(labels[-1])))
            if hasattr(fitted, "predict_proba"):
                uncertainty = entr(np.asarray(fitted.predict_proba(X_all))).sum(axis=1).mean()
                values["entropy"].append(uncertainty / np.log(estimator.n_clusters))
            if "loss_" in vars(fitted):
                values["loss"].append(fitted.loss_)
            if "candidates_" in vars(fitted):
                table = fitted.candidates_
                values["cut"].append(table["cut"][list(table["name"]).index(fitted.chosen_)])
        values["stability"].append(adjusted_rand_score(*labels))
    return values


def _fit(estimator: Any, X: Rows, y: Any, rows: Array, seed: int) -> tuple[Any, Rows]:
    """Return a clone fitted to some rows, and all rows as its `predict` takes them."""
    estimator = clone(estimator)
    if "random_state" in estimator.get_params(deep=False):
        estimator.set_params(random_state=seed)
    unused = "only .* clusters are in use|Number of distinct clusters"  # which the display shows
    with quiet(unused, ConvergenceWarning):
        estimator.fit(*_safe_split(estimator, X, y, rows))
    return estimator, _safe_split(estimator, X, None, np.arange(_num_samples(X)), rows)[0]


def _summarised(measured: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Return the mean and standard deviation of each measure for each number of clusters; None where it has none."""
    arrays = {name: np.array([values[name] for values in measured], dtype=float) for name in measured[0]}
    return {
        name: np.stack([array.mean(axis=1), array.std(axis=1)]) if array.size else None
        for name, array in arrays.items()
    }


def _band(ax: Axes, x: Array, mean_and_std: Array, kwargs: dict[str, Any]) -> Line2D:
    """Draw means, joined, in a band of one standard deviation, over lines that lead from panel to panel."""
    mean, std = mean_and_std
    (line,) = ax.plot(x, mean, **line_options(kwargs, marker="o", markersize=4))
    ax.fill_between(x, mean - std, mean + std, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.grid(axis="x", color=LIGHT, linewidth=0.5)
    ax.spines[["top", "right"]].set_visible(False)
    return line
