"""`ClusterSizesDisplay` and `SilhouetteDisplay`: how large clusters are, and how far apart."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import silhouette_samples
from sklearn.utils import _safe_indexing, check_array, check_consistent_length, check_random_state, check_scalar
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import _check_response_method, _num_samples, check_is_fitted

from .._core.types import Array, Rows, Seed
from ..metrics import _check_labels
from ._style import COLORS, DARK, LIGHT, new_axes

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes

_TOO_SMALL = 0.02  # of all rows: clusters that have no room for a name
_MAX_NAMES = 40
_MOST_CLUSTERS = 10_000  # of few rows


class ClusterSizesDisplay:
    r"""How many rows each cluster holds, and how many its memberships say it holds.

    ::

        bar_c = #{i : label_i = c}        dot_c = sum_i phi_ic

    A dotted line shows n / K, clusters of one size. Where dots are far from the ends of their bars, many rows are
    undecided between that cluster and others.

    Parameters
    ----------
    sizes : array-like of shape (n_clusters,)
        Rows of each cluster.
    expected : array-like of shape (n_clusters,), default=None
        Sums of memberships; None draws no dots.
    names : sequence of str, default=None
        Names of the clusters; None takes their numbers.
    n_unassigned : int, default=0
        Rows in no cluster, drawn as a grey bar.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : matplotlib BarContainer

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon import ICONClustering
    >>> from sklearn_icon.plotting import ClusterSizesDisplay
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = ICONClustering(3, random_state=0).fit(X)
    >>> ClusterSizesDisplay.from_estimator(model).sizes.sum()
    np.int64(150)
    """

    def __init__(self, sizes: Any, *, expected: Any = None, names: Any = None, n_unassigned: int = 0) -> None:
        self.sizes = sizes
        self.expected = expected
        self.names = names
        self.n_unassigned = n_unassigned

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Rows | None = None, *, names: Any = None, ax: Axes | None = None, **kwargs: Any
    ) -> Self:
        """Draw the clusters of a fitted clusterer.

        Parameters
        ----------
        estimator : object
            Fitted clusterer: `labels_` where X is None, else `predict`, and `predict_proba` for the dots.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Rows to count; None counts those that it was fitted to, without dots.
        names : sequence of str, default=None
            Names of the clusters.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        ClusterSizesDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        labels, memberships = (
            (estimator.labels_, None) if X is None else (estimator.predict(X), _memberships(estimator, X))
        )
        labels, names = _columns(estimator, labels, names)
        return cls.from_predictions(labels, memberships, names=names, ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, labels: Any, memberships: Any = None, *, names: Any = None, ax: Axes | None = None, **kwargs: Any
    ) -> Self:
        """Draw clusters by the labels of rows.

        Parameters
        ----------
        labels : array-like of shape (n_samples,)
            Numbers of clusters from 0 on, -1 for rows in none; or names of clusters.
        memberships : array-like of shape (n_samples, n_clusters), default=None
            Rows sum to one.
        names : sequence of str, default=None
            Names of the clusters; None takes what `labels` holds.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        ClusterSizesDisplay

        Raises
        ------
        ValueError
            Memberships of another number of rows than labels, or of fewer clusters than these name.
        """
        check_matplotlib_support(f"{cls.__name__}.from_predictions")
        labels = _check_labels(labels, "labels")
        if labels.dtype.kind in "iu":
            if labels.max() >= max(_MOST_CLUSTERS, len(labels)):
                raise ValueError(
                    f"labels number clusters up to {labels.max()}; number them from 0 on, or pass strings."
                )
            sizes = np.bincount(labels[labels >= 0])
        else:
            found, sizes = np.unique(labels, return_counts=True)
            names = found.tolist() if names is None else names
        expected = None
        if memberships is not None:
            memberships = check_array(memberships, input_name="memberships")
            check_consistent_length(labels, memberships)
            if memberships.shape[1] < len(sizes):
                raise ValueError(
                    f"memberships have {memberships.shape[1]} columns, but labels name {len(sizes)} clusters."
                )
            expected = memberships.sum(axis=0)
            sizes = np.pad(sizes, (0, len(expected) - len(sizes)))
        if names is not None and len(names) != len(sizes):
            raise ValueError(f"there are {len(names)} names for {len(sizes)} clusters; pass one for each.")
        missing = len(labels) - int(sizes.sum())
        return cls(sizes, expected=expected, names=names, n_unassigned=missing).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw a bar for each cluster.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.bar`.

        Returns
        -------
        ClusterSizesDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        sizes, numbers = np.asarray(self.sizes), np.arange(len(self.sizes))
        self.ax_, self.figure_ = new_axes(ax, figsize=(float(np.clip(1.5 + 0.35 * len(sizes), 4.5, 12)), 3.4))
        self.bars_ = self.ax_.bar(numbers, sizes, **({"color": COLORS[0], "label": "rows"} | kwargs))
        if self.expected is not None:
            dots = {"ls": "", "marker": "o", "color": DARK, "markersize": 5, "label": "sum of memberships"}
            self.ax_.plot(numbers, self.expected, **dots)
        self.ax_.axhline(sizes.sum() / max(len(sizes), 1), ls=":", lw=1, color=DARK, label="clusters of one size")
        if self.n_unassigned:
            self.ax_.bar([len(sizes)], [self.n_unassigned], color=LIGHT, label="in no cluster")
        if len(sizes) <= _MAX_NAMES:
            self.ax_.set_xticks(numbers, [str(name) for name in (numbers if self.names is None else self.names)])
        self.ax_.set(xlabel="Cluster", ylabel="Rows")
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.legend(frameon=False, fontsize="small")
        return self


class SilhouetteDisplay:
    r"""The silhouette of each row: how much nearer it is to its own cluster than to the next.

    ::

        s_i = (b_i - a_i) / max(a_i, b_i),   a_i, b_i: mean distance to the rows of its cluster, and of the next

    One band for each cluster, as high as it has rows, which are sorted. Values below zero are rows that lie nearer to
    another cluster. Clusters that are not round have low silhouettes however good they are.

    Parameters
    ----------
    silhouettes : array-like of shape (n_samples,)
        In [-1, 1].
    labels : array-like of shape (n_samples,)
        Clusters.
    names : mapping or sequence, default=None
        Names of the clusters; None takes what `labels` holds.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bands_ : list of matplotlib PolyCollection
        By cluster, from the top.
    line_ : matplotlib Line2D
        The mean.

    See Also
    --------
    ClusterCountDisplay : What speaks for a number of clusters.

    References
    ----------
    Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", Journal of
    Computational and Applied Mathematics 20, 1987.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon import ICONClustering
    >>> from sklearn_icon.plotting import SilhouetteDisplay
    >>> X, _ = load_iris(return_X_y=True)
    >>> display = SilhouetteDisplay.from_estimator(ICONClustering(3, random_state=0).fit(X), X)
    >>> len(display.bands_)
    3
    """

    def __init__(self, silhouettes: Any, labels: Any, *, names: Any = None) -> None:
        self.silhouettes = silhouettes
        self.labels = labels
        self.names = names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Rows,
        *,
        metric: str = "euclidean",
        max_samples: int | None = 5000,
        names: Any = None,
        random_state: Seed = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the silhouettes of rows in the clusters of a fitted clusterer.

        Parameters
        ----------
        estimator : object
            Fitted clusterer with `predict`; of others pass `labels_` to `from_predictions`.
        X, metric, max_samples, names, random_state
            As in `from_predictions`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        SilhouetteDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        labels, names = _columns(estimator, estimator.predict(X), names)
        how = {"metric": metric, "max_samples": max_samples, "names": names, "random_state": random_state}
        return cls.from_predictions(X, labels, **how, ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        X: Rows,
        labels: Any,
        *,
        metric: str = "euclidean",
        max_samples: int | None = 5000,
        names: Any = None,
        random_state: Seed = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the silhouettes of rows with labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            Rows, or distances where `metric` is "precomputed".
        labels : array-like of shape (n_samples,)
            Clusters; rows with an integer of -1 are in none and left out.
        metric : str, default="euclidean"
            As in :func:`sklearn.metrics.silhouette_samples`.
        max_samples : int or None, default=5000
            Of more rows so many are drawn at random, as all pairs are measured; None takes all.
        names : mapping or sequence, default=None
            Names of the clusters, by label.
        random_state : int, RandomState instance or None, default=None
            Draws the rows.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        SilhouetteDisplay

        Raises
        ------
        ValueError
            Fewer than two clusters among the rows.
        """
        check_matplotlib_support(f"{cls.__name__}.from_predictions")
        labels = _check_labels(labels, "labels")
        check_consistent_length(X, labels)
        rows = np.flatnonzero(labels != -1) if labels.dtype.kind in "iu" else np.arange(len(labels))
        if max_samples is not None:
            check_scalar(max_samples, "max_samples", Integral, min_val=3)
            if len(rows) > max_samples:
                rows = np.sort(check_random_state(random_state).choice(rows, max_samples, replace=False))
        labels, n_clusters = labels[rows], len(np.unique(labels[rows]))
        if not 1 < n_clusters < len(rows):
            raise ValueError(
                f"silhouettes compare clusters, but there are {n_clusters} among {len(rows)} rows; pass rows of two "
                "clusters at least, and more rows than clusters."
            )
        if len(rows) < _num_samples(X):
            X = _safe_indexing(X, rows)
            X = _safe_indexing(X, rows, axis=1) if metric == "precomputed" else X
        return cls(silhouette_samples(X, labels, metric=metric), labels, names=names).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw a band for each cluster.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.fill_betweenx`.

        Returns
        -------
        SilhouetteDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self.ax_, self.figure_ = new_axes(ax, figsize=(6, 4.8))
        silhouettes, labels = np.asarray(self.silhouettes), np.asarray(self.labels)
        found = np.unique(labels)
        gap = max(1, len(labels) // 100)
        self.bands_, middles, top = [], [], 0
        for number, label in enumerate(found):
            band = np.sort(silhouettes[labels == label])[::-1]
            options = {"color": COLORS[number % len(COLORS)], "linewidth": 0, "step": "post"} | kwargs
            heights = top + np.arange(len(band) + 1)
            self.bands_.append(self.ax_.fill_betweenx(heights, 0, np.append(band, band[-1]), **options))
            middles.append(top + len(band) / 2)
            top += len(band) + gap
        mean = float(silhouettes.mean())
        self.line_ = self.ax_.axvline(mean, ls="--", lw=1, color=DARK)
        self.ax_.axvline(0, lw=0.8, color=DARK)
        sizes = np.array([(labels == label).sum() for label in found])
        shown = [i for i, size in enumerate(sizes) if size >= _TOO_SMALL * len(labels)]
        titles = [str(label if self.names is None else self.names[label]) for label in found]
        self.ax_.set_yticks([middles[i] for i in shown], [f"{titles[i]}  ({sizes[i]})" for i in shown])
        self.ax_.set_ylim(top, -gap)
        self.ax_.set_xlim(min(-0.1, 1.05 * float(silhouettes.min())), 1)
        self.ax_.set(xlabel=f"Silhouette (dashed: mean {mean:.2f})", ylabel="Cluster (rows)")
        self.ax_.tick_params(axis="y", length=0)
        self.ax_.spines[["left", "top", "right"]].set_visible(False)
        return self


def _columns(estimator: Any, labels: Any, names: Any) -> tuple[Any, Any]:
    """(labels from 0 on, names of the clusters): where clusters have numbers of their own, these are the names."""
    numbers = vars(estimator).get("cluster_numbers_")
    if numbers is None:
        return labels, names
    order = np.argsort(numbers)
    return order[np.searchsorted(numbers, labels, sorter=order)], numbers.tolist() if names is None else names


def _memberships(estimator: Any, X: Rows) -> Array | None:
    """Memberships of rows, or None where the estimator tells labels alone."""
    tell = _check_response_method(estimator, ["predict_proba", "predict"])
    return np.asarray(tell(X)) if tell.__name__ == "predict_proba" else None
