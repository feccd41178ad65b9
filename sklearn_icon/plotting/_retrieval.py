"""`RetrievalDisplay`: what rows of one modality find in the other."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, check_random_state, check_scalar
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import _num_samples, check_is_fitted

from .._core.types import Array, Rows, Seed
from ._neighborhood import query_rows
from ._style import COLORS, DARK, LIGHT, new_axes

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes

_MARGIN = 0.06  # around a picture, of its cell
_LINE = 1.25  # a line's height, in cells
_RIGHT = COLORS[0]


class RetrievalDisplay:
    """Items of one modality, and beside each the items of the other that it finds, the likeliest first.

    Each line is an item of X, then the items j of y with the largest q(j|i), each with its probability. The partner is
    framed in blue where it is found; where it is not among those shown, its rank stands at the end of the line.

    Parameters
    ----------
    queries : array-like of shape (n_queries,)
        Numbers of items of X.
    retrieved : array-like of shape (n_queries, n_top)
        Numbers of items of y.
    q : array-like of shape (n_queries, n_top)
        Their probabilities.
    ranks : array-like of shape (n_queries,)
        The rank of each item's partner, from 1 on.
    pictures_x, pictures_y : sequence of arrays or of str, default=None
        What stands for the items: images of shape (height, width) or (height, width, 3), or names. None: numbers.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_icon import ICONCrossModal
    >>> from sklearn_icon.plotting import RetrievalDisplay
    >>> halves = load_digits().images[:200, :4], load_digits().images[:200, 4:]
    >>> upper, lower = (half.reshape(200, -1) for half in halves)
    >>> pairs = ICONCrossModal(encoder="linear", random_state=0).fit(upper, lower)
    >>> display = RetrievalDisplay.from_estimator(pairs, upper, lower, pictures=halves, queries=[3, 14, 15])
    >>> display.retrieved.shape
    (3, 5)
    """

    def __init__(
        self, queries: Any, retrieved: Any, q: Any, ranks: Any, *, pictures_x: Any = None, pictures_y: Any = None
    ) -> None:
        self.queries = queries
        self.retrieved = retrieved
        self.q = q
        self.ranks = ranks
        self.pictures_x = pictures_x
        self.pictures_y = pictures_y

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Rows,
        y: Any,
        *,
        queries: Any = 5,
        n_top: int = 5,
        pictures: tuple[Any, Any] | None = None,
        random_state: Seed = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw what items of X find among y under fitted encoders.

        Parameters
        ----------
        estimator : ICONCrossModal
            Fitted.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Items of the first modality, best ones that it was not fitted to.
        y : {array-like, sparse matrix} of shape (n_samples, n_features_y)
            Their partners, row by row.
        queries, n_top, pictures, random_state
            As in `from_predictions`, of which q is that of the estimator; of the limit of a loss, its affinities.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        RetrievalDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        check_consistent_length(X, y)
        queries = _numbers(queries, _num_samples(X), random_state)
        q = query_rows(estimator, X, y, queries)
        return cls._of(q, queries, n_top, pictures).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        q: Any,
        *,
        queries: Any = 5,
        n_top: int = 5,
        pictures: tuple[Any, Any] | None = None,
        random_state: Seed = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw what items find, by probabilities or similarities of any kind.

        Parameters
        ----------
        q : array-like of shape (n_samples, n_samples_y)
            How near item j of y is to item i of X, whose partner is item i of y.
        queries : int or array-like of int, default=5
            Items of X by number, or how many to draw at random.
        n_top : int, default=5
            Items of y to show for each.
        pictures : tuple of two sequences, default=None
            What stands for the items of X and of y: images of shape (height, width) or (height, width, 3), or names.
            None: numbers.
        random_state : int, RandomState instance or None, default=None
            Draws the queries.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        RetrievalDisplay

        Raises
        ------
        ValueError
            Queries beyond the items, or pictures of another number of items.
        """
        check_matplotlib_support(f"{cls.__name__}.from_predictions")
        q = check_array(q, input_name="q")
        queries = _numbers(queries, min(q.shape), random_state)
        return cls._of(q[queries], queries, n_top, pictures).plot(ax=ax, **kwargs)

    @classmethod
    def _of(cls, q: Array, queries: Array, n_top: int, pictures: tuple[Any, Any] | None) -> Self:
        """The display of rows of q that are those of the queries."""
        check_scalar(n_top, "n_top", Integral, min_val=1)
        if pictures is not None:
            _check_pictures(pictures, queries, q.shape[1])
        retrieved = np.argsort(-q, axis=1, kind="stable")[:, :n_top]
        ranks = 1 + (q > q[np.arange(len(q)), queries][:, None]).sum(axis=1)
        x, y = (None, None) if pictures is None else pictures
        return cls(queries, retrieved, np.take_along_axis(q, retrieved, 1), ranks, pictures_x=x, pictures_y=y)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw a line of pictures for each query.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.imshow`.

        Returns
        -------
        RetrievalDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        retrieved, ranks = np.asarray(self.retrieved), np.asarray(self.ranks)
        n_lines, n_top = retrieved.shape
        self.ax_, self.figure_ = new_axes(ax, figsize=(1.1 * (n_top + 2.1), 1.1 * (_LINE * n_lines + 0.4)))
        for line, (query, found) in enumerate(zip(np.asarray(self.queries), retrieved, strict=True)):
            top = _LINE * line
            _cell(self.ax_, 0.0, top, self.pictures_x, query, LIGHT, kwargs)
            for column, item in enumerate(found):
                x = column + 1.25
                _cell(self.ax_, x, top, self.pictures_y, item, _RIGHT if item == query else LIGHT, kwargs)
                how = {"ha": "center", "va": "top", "size": "small", "color": DARK}
                self.ax_.text(x + 0.5, top + 0.98, f"{np.asarray(self.q)[line, column]:.2f}", **how)
            if query not in found:
                self.ax_.text(n_top + 1.35, top + 0.5, f"rank {ranks[line]}", va="center", size="small", color=DARK)
        self.ax_.set(xlim=(-0.05, n_top + 2.1), ylim=(_LINE * n_lines, -0.4), aspect="equal")
        self.ax_.text(0.5, -0.08, "X", ha="center", va="bottom", color=DARK)
        self.ax_.text(1.25 + n_top / 2, -0.08, "nearest in y", ha="center", va="bottom", color=DARK)
        self.ax_.set_axis_off()
        return self


def _numbers(queries: Any, n: int, random_state: Seed) -> Array:
    """Numbers of items, drawn where only how many is said."""
    if np.ndim(queries) == 0:
        check_scalar(queries, "queries", Integral, min_val=1)
        return np.sort(check_random_state(random_state).permutation(n)[:queries])
    numbers = np.atleast_1d(np.asarray(queries))
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or numbers.min() < -n or numbers.max() >= n:
        raise ValueError(f"queries={queries!r} should be numbers of the {n} items, from {-n} to {n - 1}.")
    return numbers % n


def _check_pictures(pictures: tuple[Any, Any], queries: Array, n_keys: int) -> None:
    """A ValueError where pictures are not those of the items."""
    if len(pictures) != 2:
        raise ValueError(f"pictures should be two sequences, those of X and those of y; got {len(pictures)}.")
    if len(pictures[0]) <= queries.max() or len(pictures[1]) != n_keys:
        raise ValueError(
            f"pictures should hold one for each of {n_keys} items of X and of y; got {len(pictures[0])} and "
            f"{len(pictures[1])}."
        )


def _cell(ax: Axes, x: float, y: float, pictures: Sequence | None, item: int, color: str, kwargs: dict) -> None:
    """One item in a frame: its picture, its name or its number."""
    from matplotlib.patches import Rectangle

    picture = item if pictures is None else pictures[item]
    low, high = _MARGIN, 1 - _MARGIN
    if np.ndim(picture) >= 2:
        options = {"cmap": "gray_r", "interpolation": "nearest", "aspect": "equal"} | kwargs
        image = np.asarray(picture)
        height, width = np.array(image.shape[:2]) / max(image.shape[:2]) * (high - low) / 2
        ax.imshow(image, extent=(x + 0.5 - width, x + 0.5 + width, y + 0.5 + height, y + 0.5 - height), **options)
    else:
        ax.text(x + 0.5, y + 0.5, str(picture), ha="center", va="center", size="small", wrap=True)
    strong = 2.5 if color == _RIGHT else 1
    ax.add_patch(Rectangle((x + low, y + low), high - low, high - low, fill=False, edgecolor=color, linewidth=strong))
