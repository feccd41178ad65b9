"""`NeighborhoodDisplay`: whom a row should have for neighbours, classes or partners, and whom it has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import euclidean_distances
from sklearn.utils import check_array, check_consistent_length, check_scalar, deprecated
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import _num_samples, check_is_fitted

from .._core.types import Array, Rows
from ._style import COLORS, DARK, LIGHT, new_axes

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

    from .._core.conditional import Conditional

_DEPRECATED = "deprecated"  # stands for a parameter under its former name that was not passed
_PALEST = 0.2  # where the colour scale begins
_LEAST = 3e-3  # fractions of the largest that are not drawn grey
_AXES = {"rows": "Row j", "views": "Row j", "classes": "Class", "tokens": "Token", "partners": "Row j of y"}
_OWN = {"rows": " (itself)", "views": " (itself)", "partners": " (its partner)"}
_NAMES = {
    "kl": "KL",
    "reverse_kl": "reverse KL",
    "jensen_shannon": "Jensen-Shannon",
    "total_variation": "total variation",
    "squared_hellinger": "squared Hellinger",
}


class NeighborhoodDisplay:
    """The distributions p(.|i) and q(.|i) of one row, side by side.

    On a map two panels show all keys, each coloured by its fraction of p at the left and of q at the right, with lines
    from row i to those with most of it: where the two pictures differ, the map is wrong about row i. Without a map the
    keys with the largest fractions stand below each other, with a bar of p to the left and one of q to the right. Keys
    are the rows themselves; of a classifier the classes, of pairs the rows of y, of counts the tokens.

    Parameters
    ----------
    p, q : array-like of shape (n_keys,)
        Fractions of all keys, which sum to one.
    index : int
        The row whose neighbours they are.
    divergence : float
        D(p || q) of this row.
    coordinates : array-like of shape (n_keys, 2), default=None
        Where the keys are drawn; None draws bars.
    names : sequence of str, default=None
        Names of the keys, for the bars; None takes their numbers.
    divergence_name : str, default="KL"
        Name of D.
    keys : {"rows", "views", "classes", "tokens", "partners"}, default="rows"
        What the keys are.
    origin : array-like of shape (2,), default=None
        Coordinates of row i among the keys; None takes those of key i.
    places : array-like of shape (n_keys, 2)
        Former name of `coordinates`.

        .. deprecated:: 0.2
           It will be removed in 0.3.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Of p, or of the bars.
    ax_q_ : matplotlib Axes or None
        Of q; None where there are bars.
    figure_ : matplotlib Figure
    colorbar_ : matplotlib Colorbar or None

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon import ICONEmbedding
    >>> from sklearn_icon.plotting import NeighborhoodDisplay
    >>> X, _ = load_iris(return_X_y=True)
    >>> estimator = ICONEmbedding(max_iter=100, random_state=0).fit(X)
    >>> NeighborhoodDisplay.from_estimator(estimator, X, 7)
    <...NeighborhoodDisplay object at ...>
    """

    def __init__(
        self,
        p: Any,
        q: Any,
        index: int,
        divergence: float,
        *,
        coordinates: Any = None,
        names: Sequence[str] | None = None,
        divergence_name: str = "KL",
        keys: str = "rows",
        origin: Any = None,
        places: Any = _DEPRECATED,
    ) -> None:
        self.p = p
        self.q = q
        self.index = index
        self.divergence = divergence
        self.coordinates = _renamed(coordinates, places)
        self.names = names
        self.divergence_name = divergence_name
        self.keys = keys
        self.origin = origin

    @deprecated("`places` is now called `coordinates`; the old name will go in 0.3.")  # type: ignore[prop-decorator]
    @property
    def places(self) -> Any:
        """Former name of `coordinates`."""
        return self.coordinates

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Rows,
        index: int,
        *,
        y: Any = None,
        coordinates: Any = None,
        names: Sequence[str] | None = None,
        ax: Axes | None = None,
        places: Any = _DEPRECATED,
        **kwargs: Any,
    ) -> Self:
        """Draw the neighbourhood of a row under a fitted estimator; q is that of what it maps rows to.

        Parameters
        ----------
        estimator : ICONEmbedding, ICONClustering, ICONClassifier or ICONCrossModal
            Fitted.
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            Rows, best those it was fitted to.
        index : int
            Which row; -1 is the last.
        y : array-like of shape (n_samples, ...), default=None
            What p reads in addition to X: labels of a classifier, the other modality of pairs, groups or companions.
        coordinates : array-like of shape (n_keys, 2), default=None
            Where the keys are drawn. None: the estimator's map where that has two dimensions, else bars.
        names : sequence of str, default=None
            Names of the keys, for bars; None takes the classes of a classifier, else numbers.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        places : array-like of shape (n_keys, 2)
            Former name of `coordinates`.

            .. deprecated:: 0.2
               It will be removed in 0.3.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        NeighborhoodDisplay

        Raises
        ------
        ValueError
            An index beyond the rows, a y that is unlike that of the fit, a q that is the limit of a loss, or a row
            without positives.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        coordinates = _renamed(coordinates, places)
        n = _num_samples(X)
        check_scalar(index, "index", Integral)
        if not -n <= index < n:
            raise ValueError(f"index={index} is beyond the {n} rows of X; use one of {-n} to {n - 1}.")
        index = index % n
        drawn = estimator._drawn(X, y)
        p, q, divergence = _rows(estimator, X, y, index, drawn)
        kind = {"keys": estimator.supervisory_.keys, "names": drawn.names if names is None else names}
        if coordinates is None and drawn.is_map and drawn.represented.shape[1] == 2:
            coordinates = drawn.represented if drawn.keys is None else drawn.keys
            kind["origin"] = drawn.represented[index]
        if coordinates is not None:
            coordinates = check_array(coordinates, input_name="coordinates")
            check_consistent_length(coordinates, p)
        name = _NAMES.get(estimator.divergence, str(estimator.divergence))
        return cls(p, q, index, divergence, coordinates=coordinates, divergence_name=name, **kind).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, n_top: int = 12, **kwargs: Any) -> Self:
        """Draw both distributions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure. Of a map, its right half becomes the axes of q.
        n_top : int, default=12
            How many keys have a line to them, or a bar.
        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.scatter` or :meth:`matplotlib.axes.Axes.barh`.

        Returns
        -------
        NeighborhoodDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        p, q = np.asarray(self.p, dtype=float), np.asarray(self.q, dtype=float)
        self.colorbar_: Any = None
        found = f"{self.divergence_name} = {self.divergence:.3f}"
        if self.coordinates is None:
            self.ax_, self.figure_ = new_axes(ax, figsize=(6, 1.1 + 0.27 * min(n_top, len(p))))
            self.ax_q_: Any = None
            own = self.index if self.keys in _OWN else None
            _bars(self.ax_, p, q, own, _OWN.get(self.keys, ""), self.names, n_top, kwargs)
            self.ax_.set_ylabel(_AXES[self.keys])
            self.ax_.set_title(f"Row {self.index}: {found}", loc="left", size="medium")
            return self
        self.ax_, self.figure_ = new_axes(ax, figsize=(9, 4.6))
        self.ax_q_ = _right_half(self.ax_)
        coordinates = np.asarray(self.coordinates)
        origin = coordinates[self.index] if self.origin is None else np.asarray(self.origin)
        self.colorbar_ = _maps((self.ax_, self.ax_q_), coordinates, (p, q), origin, n_top, kwargs)
        self.ax_.set_title(f"p(j|i): who should be near row {self.index}", loc="left", size="medium")
        self.ax_q_.set_title(f"q(j|i): who is near it; {found}", loc="left", size="medium")
        return self


def _renamed(coordinates: Any, places: Any) -> Any:
    """`coordinates` under either name."""
    if places is _DEPRECATED:
        return coordinates
    if coordinates is not None:
        raise ValueError("coordinates and places are the same parameter; pass coordinates alone.")
    warnings.warn("`places` is now called `coordinates`; the old name will go in 0.3.", FutureWarning, stacklevel=3)
    return places


def _rows(estimator: Any, X: Rows, y: Any, index: int, drawn: Any) -> tuple[Array, Array, float]:
    """p(.|i), q(.|i) and D of the two, under the fitted specs."""
    import torch

    from .._objective.divergences import terms_of

    q_spec, p_rows, keys = estimator.learned_, drawn.p, drawn.represented if drawn.keys is None else drawn.keys
    if q_spec.unmixed().is_limit:
        raise ValueError(f"{q_spec} is the limit of a loss and no distribution; there is no q to show.")
    if drawn.log_q is None and p_rows.shape != (len(drawn.represented), len(keys)):
        raise ValueError(f"{estimator.supervisory_} has keys that are not the rows; there are no neighbours to show.")
    p = _p_row(p_rows, index, drawn.joint, q_spec.includes_self)
    if not p.any():
        raise ValueError(f"row {index} has no positive under p, so there is nothing to show; choose another index.")
    excluded = drawn.keys is None and drawn.log_q is None and p_rows.exclude_self and not q_spec.includes_self
    log_q = _log_q_row(q_spec, drawn, keys, index, excluded) if drawn.log_q is None else drawn.log_q[index]
    log_q = torch.as_tensor(log_q)
    if q_spec.on_memberships and estimator.divergence == "reverse_kl":
        return _with_self(estimator, X, y, index, log_q)
    others = np.arange(len(p)) != (index if excluded else -1)
    comparison = terms_of(estimator.divergence)
    terms = comparison.term(torch.as_tensor(p[others]), log_q[torch.as_tensor(others)])
    return p, np.where(others, log_q.exp().numpy(), 0.0), float(comparison.of_sum(terms.sum()))


def query_rows(estimator: Any, X: Rows, y: Any, queries: Array) -> Array:
    """q(.|i) of some rows over the other modality; of the limit of a loss what takes the place of log k."""
    import torch

    drawn, q_spec = estimator._drawn(X, y), estimator.learned_
    z, keys = q_spec.prepare(*(torch.as_tensor(part, dtype=torch.float64) for part in (drawn.represented, drawn.keys)))
    log_k = q_spec.pairwise(z[queries], keys)
    if q_spec.unmixed().is_limit:
        return log_k.numpy()
    log_q = log_k if q_spec.normalized else log_k.log_softmax(dim=1)
    return q_spec.finish(log_q, len(keys)).exp().numpy()


def _log_q_row(q_spec: Any, drawn: Any, keys: Array, index: int, excluded: bool) -> Any:
    """Log q(.|i) of what represents rows and keys."""
    import torch

    from .. import learned

    if q_spec.on_memberships and drawn.debias:
        q_spec = learned.UniformMixture(q_spec, drawn.debias)
    degrees = None if drawn.p.degrees is None else torch.as_tensor(drawn.p.degrees, dtype=torch.float64)
    z, keys = q_spec.prepare(
        *(torch.as_tensor(part, dtype=torch.float64) for part in (drawn.represented, keys)), degrees
    )
    log_k = q_spec.pairwise(z[[index]], keys)
    if excluded:
        log_k[:, index] = -torch.inf
    known = q_spec.normalized and not q_spec.tilted
    return q_spec.finish(log_k if known else log_k.log_softmax(dim=1), log_k.shape[1] - excluded)[0]


def _with_self(estimator: Any, X: Rows, y: Any, index: int, log_q: Any) -> tuple[Array, Array, float]:
    """p(.|i), q(.|i) and the reverse KL of clusters, whose rows are their own keys; of a narrow p its limit."""
    import torch

    log_p = torch.as_tensor(estimator.supervisory_.log_rows_with_self(X, y, random_state=0)[index])  # as in the fit
    q = log_q.exp().numpy()
    if estimator.supervisory_.narrow:  # the limit of s^2 D
        rows = estimator.supervisory_.measured_rows(X, y, random_state=0)
        return log_p.exp().numpy(), q, float(q @ euclidean_distances(rows[[index]], rows, squared=True)[0]) / 2
    return log_p.exp().numpy(), q, float((log_q.exp() * (log_q - log_p)).sum())


def _p_row(p: Conditional, index: int, joint: bool, includes_self: bool) -> Array:
    """p(.|i), or the row of the joint p divided by its sum."""
    weights = p.weights[[index]].toarray()[0]
    if joint:
        weights = weights + p.weights[:, [index]].toarray()[:, 0]
    if not weights.any():
        return weights
    uniform = np.ones(len(weights))
    if p.exclude_self:
        uniform[index] = includes_self
    return (1 - p.uniform) * weights / weights.sum() + p.uniform * uniform / uniform.sum()


def _right_half(ax: Axes) -> Axes:
    """Return new axes in the right half of others, which give it up."""
    cell = ax.get_subplotspec()
    if cell is None:  # axes placed by hand
        left, bottom, width, height = ax.get_position().bounds
        ax.set_position((left, bottom, 0.48 * width, height))
        return ax.figure.add_axes((left + 0.52 * width, bottom, 0.48 * width, height))
    first, second = cell.subgridspec(1, 2)
    ax.set_subplotspec(first)
    return ax.figure.add_subplot(second)


def _maps(
    axes: tuple[Axes, Axes],
    points: Array,
    fractions: tuple[Array, Array],
    origin: Array,
    n_top: int,
    kwargs: dict[str, Any],
) -> Colorbar:
    """Keys coloured by their fractions in both panels, on one scale; return the colour bar."""
    from matplotlib import colormaps
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.colors import ListedColormap, PowerNorm

    most = float(np.max(fractions))
    norm = PowerNorm(0.4, vmin=0, vmax=most)
    colors = ListedColormap(colormaps["YlOrRd"](np.linspace(_PALEST, 1, 256)))
    size = np.clip(1e4 / len(points), 4, 30)
    options = {"s": size, "linewidth": 0, "cmap": colors, "norm": norm, "rasterized": True}
    options |= normalize_kwargs(kwargs, PathCollection)
    for ax, fraction in zip(axes, fractions, strict=True):
        ax.scatter(*points.T, s=options["s"] / 2, color=LIGHT, linewidth=0, rasterized=True)
        order = np.argsort(fraction)
        seen = order[fraction[order] > most * _LEAST]
        top = order[::-1][:n_top]
        top = top[fraction[top] > 0]
        lines = [(origin, points[j]) for j in top]
        widths = 0.4 + 1.6 * fraction[top] / most
        ax.add_collection(LineCollection(lines, colors=DARK, linewidths=widths, alpha=0.5, zorder=1.5))
        drawn = ax.scatter(*points[seen].T, c=fraction[seen], zorder=2, **options)
        ax.scatter(*origin, s=140, marker="*", color=COLORS[0], edgecolor="white", linewidth=0.8, zorder=3)
        ax.set_aspect("equal", adjustable="datalim")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(LIGHT)
    bar = axes[0].figure.colorbar(drawn, ax=list(axes), shrink=0.8, fraction=0.04, label="Fraction of the row")
    bar.outline.set_visible(False)
    return bar


def _bars(
    ax: Axes,
    p: Array,
    q: Array,
    own: int | None,
    note: str,
    names: Sequence[str] | None,
    n_top: int,
    kwargs: dict[str, Any],
) -> None:
    """The keys with the largest fractions under each other: p to the left, q to the right."""
    top = np.argsort(-np.maximum(p, q), kind="stable")[:n_top]
    heights = np.arange(len(top))
    options = {"height": 0.8} | kwargs
    ax.barh(heights, -p[top], color=COLORS[0], label="p(j|i): who should be near", **options)
    ax.barh(heights, q[top], color=COLORS[1], label="q(j|i): who is near", **options)
    labels = [str(j if names is None else names[j]) + (note if j == own else "") for j in top]
    ax.set_yticks(heights, labels)
    ax.set_ylim(len(top) - 0.4, -0.6)
    limit = 1.05 * max(p[top].max(), q[top].max())
    ax.set_xlim(-limit, limit)
    ax.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.axvline(0, color=DARK, linewidth=0.8)
    ax.set_xlabel("Fraction of the row")
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "top", "right"]].set_visible(False)
    ax.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.06))
