"""`EmbeddingDisplay`: a map's rows as points, coloured by class or by value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from .._core.types import Array, Rows
from ._style import COLORS, DARK, LIGHT, new_axes

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.colorbar import Colorbar
    from matplotlib.legend import Legend

_DARKENED = 0.6  # past ten classes the colours return, darkened, with another marker
_MAX_LEGEND = 20
_MOST_POINTS = 100_000  # more are drawn as densities: points would hide each other
_MOVES = 500  # of names that overlap, at the most
_FAINTEST = 0.3  # opacity of a pixel with one row
_SHADED = {"cmap", "norm", "vmin", "vmax"}  # options of points that densities have too


class EmbeddingDisplay:
    """Scatter of a map, coloured by class or by a number per row.

    Two components are drawn as a plane with equal scales; of more, the first two, with a note; one is drawn
    as a histogram over a strip of points. Points are drawn in random order, so that no class hides another,
    and as pixels within a vector file. Of more than 100,000 rows densities are drawn: each pixel has the mean
    colour of its rows, the paler the fewer there are, or of their mean value. Rows without a class (-1 where there
    are other integers than 1, None or NaN) and values that are not finite are grey.

    Parameters
    ----------
    embedding : array-like of shape (n_samples, n_components)
        The map.
    labels : array-like of shape (n_samples,), default=None
        Class of each row: one colour each.
    values : array-like of shape (n_samples,), default=None
        Number for each row: a colour scale, which ends at the 1st or 99th percentile where the tail beyond
        that is long. Not together with `labels`.
    feature_names : sequence of str, default=None
        Names of the components, for the axes.
    values_name : str, default=None
        Name of `values`, for the colour bar.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    scatter_ : list of matplotlib PathCollection, or of one AxesImage of densities
    legend_ : matplotlib Legend or None
    colorbar_ : matplotlib Colorbar or None

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn_icon.plotting import EmbeddingDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> EmbeddingDisplay.from_estimator(PCA(2).fit(X), X, y=y)
    <...EmbeddingDisplay object at ...>
    """

    def __init__(
        self,
        embedding: Any,
        *,
        labels: Any = None,
        values: Any = None,
        feature_names: Any = None,
        values_name: str | None = None,
    ) -> None:
        self.embedding = embedding
        self.labels = labels
        self.values = values
        self.feature_names = feature_names
        self.values_name = values_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Rows | None = None,
        *,
        y: Any = None,
        values: Any = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a fitted estimator's map of X.

        Parameters
        ----------
        estimator : object
            Fitted, with `transform`, or with `embedding_` where X is None.
        X : array-like of shape (n_samples, n_features), default=None
            Rows to map; None draws the training map ``estimator.embedding_``.
        y : array-like of shape (n_samples,), default=None
            Classes or numbers: see `from_embedding`.
        values : array-like of shape (n_samples,) or str, default=None
            Numbers, or the name of the estimator's attribute that holds them, such as ``"kl_per_sample_"``.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        EmbeddingDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        Z = _embedding_of(estimator, X)
        values_name = None
        if isinstance(values, str):
            values_name, values = values, getattr(estimator, values)
        names = _component_names(estimator, Z)
        return cls.from_embedding(Z, y=y, values=values, feature_names=names, values_name=values_name, ax=ax, **kwargs)

    @classmethod
    def from_embedding(
        cls,
        Z: Any,
        *,
        y: Any = None,
        values: Any = None,
        feature_names: Any = None,
        values_name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a map.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components) or (n_samples,)
            The map.
        y : array-like of shape (n_samples,), default=None
            Strings, booleans, and integers (also as floats) with at most ``max(20, n_samples / 10)`` distinct
            values are classes. Other numbers are drawn as `values`.
        values : array-like of shape (n_samples,), default=None
            Number for each row, drawn with a colour bar. Not together with `y`.
        feature_names, values_name
            As in the class.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        EmbeddingDisplay

        Raises
        ------
        ValueError
            If Z holds NaN or infinity, the lengths differ, or both `y` and `values` are given.
        """
        check_matplotlib_support(f"{cls.__name__}.from_embedding")
        if y is not None and values is not None:
            raise ValueError("y and values both set the colour; pass one of them.")
        if feature_names is None and hasattr(Z, "columns"):
            feature_names = [str(name) for name in Z.columns]
        Z = check_array(Z, ensure_2d=False, input_name="Z")
        Z = Z.reshape(-1, 1) if Z.ndim == 1 else Z
        check_consistent_length(Z, y, values)
        labels = None
        if y is not None and _is_categorical(y):
            labels = column_or_1d(np.asarray(y))
        elif y is not None:
            values = y
        if values is not None:
            values_name = values_name or getattr(values, "name", None)
            values = column_or_1d(np.asarray(values, dtype=float))
        display = cls(Z, labels=labels, values=values, feature_names=feature_names, values_name=values_name)
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        legend: bool | str = "auto",
        palette: Any = None,
        density: bool | str = "auto",
        **kwargs: Any,
    ) -> Self:
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        legend : {"auto", "outside", "direct", "none"}, default="auto"
            Where the classes are named: beside the axes, or at the median of each class, moved apart where names would
            overlap. "auto" is "outside" up to 20 classes and "none" beyond.
        palette : sequence of colours, default=None
            Colours of the classes in sorted order; None takes ten colours that suit any colour vision.
        density : bool or "auto", default="auto"
            Whether a plane's pixels have the mean colour of their rows in place of points. "auto": of more than 100,000
            rows, unless options of points such as ``s`` are given.
        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.scatter`, such as ``s``, ``alpha`` or ``cmap``.

        Returns
        -------
        EmbeddingDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        if density not in (True, False, "auto"):
            raise ValueError(f'density={density!r} is not one of True, False and "auto".')
        if self.labels is not None and self.values is not None:
            raise ValueError("labels and values both set the colour; set one of them to None.")
        if legend not in ("auto", "outside", "direct", "none"):
            raise ValueError(f'legend={legend!r} is not one of "auto", "outside", "direct" and "none".')
        self.ax_, self.figure_ = new_axes(ax)
        embedding = np.asarray(self.embedding)
        flat = embedding.shape[1] == 1
        classes, codes = _encode(self.labels, len(embedding))
        colors = _class_colors(len(classes), palette)
        points = _strip(self.ax_, embedding[:, 0], codes, colors) if flat else embedding[:, :2]
        dense = density is True or (density == "auto" and len(embedding) > _MOST_POINTS and kwargs.keys() <= _SHADED)
        dense = dense and not flat
        kwargs = kwargs if dense else _scatter_options(self.ax_, len(embedding), flat, kwargs)
        self.legend_ = self.colorbar_ = None
        if dense:
            self.scatter_, self.colorbar_ = self._plot_density(points, codes, colors, kwargs)
        elif self.values is not None:
            self.scatter_, self.colorbar_ = _scatter_values(self.ax_, points, self.values, self.values_name, kwargs)
        elif self.labels is not None:
            self.scatter_ = _scatter_classes(self.ax_, points, codes, colors, kwargs)
        else:
            kwargs = kwargs if "c" in kwargs else {"color": COLORS[0]} | kwargs
            self.scatter_ = [self.ax_.scatter(*points.T, **kwargs)]
        _dress(self.ax_, embedding.shape[1], self.feature_names)
        if self.labels is not None:
            if legend == "auto":
                legend = "outside" if len(classes) <= _MAX_LEGEND else "none"
            if legend == "direct":
                _name_at_medians(self.ax_, points, classes, codes)
            elif legend == "outside":
                self.legend_ = _legend_beside(self.ax_, classes, colors, missing=bool(np.any(codes < 0)))
        return self

    def _plot_density(self, points: Array, codes: Array, colors: Array, kwargs: dict[str, Any]) -> Any:
        """Draw pixels of mean colours; return the picture, and the bar of colours where there are values."""
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize, to_rgb

        bar = None
        if self.values is not None:
            values = np.asarray(self.values, dtype=float)
            finite = np.isfinite(values)
            low, high = _limits(values[finite])
            norm = kwargs.get("norm") or Normalize(kwargs.get("vmin", low), kwargs.get("vmax", high))
            mapped = ScalarMappable(norm, colormaps.get_cmap(kwargs.get("cmap", "viridis")))
            pixels, extent = _mean_of_pixels(self.ax_, points[finite], values[finite, None], points)
            picture = np.where(pixels[..., 1:] > 0, mapped.to_rgba(pixels[..., 0])[..., :3], 1.0)
            bar = self.ax_.figure.colorbar(mapped, ax=self.ax_, label=self.values_name or "", shrink=0.8)
            bar.outline.set_visible(False)
        else:
            each = colors[codes] if self.labels is not None else np.broadcast_to(to_rgb(COLORS[0]), (len(points), 3))
            pixels, extent = _mean_of_pixels(self.ax_, points, each, points)
            picture = pixels[..., :3]
        opaque = np.log1p(pixels[..., -1])
        faintest = _FAINTEST if bar is None else 1.0  # a paler colour would be another value
        opaque = np.where(opaque > 0, faintest + (1 - faintest) * opaque / opaque.max(), 0.0)
        image = np.dstack([picture, opaque])
        drawn = self.ax_.imshow(image, extent=extent, origin="lower", interpolation="nearest", aspect="equal")
        return [drawn], bar


def _embedding_of(estimator: Any, X: Rows | None) -> Any:
    """Return the map of X, or of the training rows if None."""
    name = type(estimator).__name__
    if X is not None:
        if not hasattr(estimator, "transform"):
            raise AttributeError(f"{name} has no transform; leave out X to draw its training map.")
        return estimator.transform(X)
    check_is_fitted(estimator)
    if not hasattr(estimator, "embedding_"):
        raise AttributeError(f"{name} has no embedding_; pass X, which its transform then maps.")
    return estimator.embedding_


def _component_names(estimator: Any, Z: Any) -> Any:
    """Return the estimator's names of the columns of Z, or None where it has none that fit."""
    try:
        names = estimator.get_feature_names_out()
    except (AttributeError, NotImplementedError, ValueError):
        return None
    return names if len(names) == Z.shape[1] else None


def _is_categorical(y: Any) -> bool:
    """Tell whether y names classes rather than measures something."""
    y = np.asarray(y)
    if y.dtype.kind not in "fiu":
        return True
    distinct = np.unique(y[np.isfinite(y)])
    return bool(np.all(distinct == np.floor(distinct))) and len(distinct) <= max(_MAX_LEGEND, len(y) / 10)


def _encode(labels: Any, n_samples: int) -> tuple[Array, Array]:
    """Return the sorted classes, and each row's position among them or -1 where it has none."""
    if labels is None:
        return np.array([]), np.full(n_samples, -1)
    labels = np.asarray(labels)
    missing = np.array([label is None or label != label for label in labels], dtype=bool)
    if labels.dtype.kind in "fi" and not np.isin(labels[~missing], [-1, 1]).all():
        missing |= labels == -1
    codes = np.full(len(labels), -1)
    classes, codes[~missing] = np.unique(labels[~missing], return_inverse=True)
    if classes.dtype.kind == "f" and np.all(classes == np.floor(classes)):
        classes = classes.astype(int)
    return classes, codes


def _class_colors(n_classes: int, palette: Any) -> Array:
    """Return an RGB row for each class and, last, the grey of rows without one (code -1)."""
    from matplotlib.colors import to_rgb

    if palette is None:
        bright = np.array([to_rgb(color) for color in COLORS])
        cycle = np.vstack([bright, _DARKENED * bright[:-1], to_rgb("black")])  # no second dark grey
    else:
        cycle = np.array([to_rgb(color) for color in palette])
    return np.vstack([cycle[np.arange(n_classes) % len(cycle)], to_rgb(LIGHT)])


def _marker_group(codes: Array) -> Array:
    """Return 1 for the second ten classes of each twenty, 0 for the first and for rows without a class."""
    return np.maximum(codes, 0) // len(COLORS) % 2


def _scatter_options(ax: Axes, n_samples: int, flat: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the scatter's options: by default the points together would cover a sixth of the axes."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.collections import PathCollection

    inches = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    sq_points = 72**2 * inches.width * inches.height * (0.08 if flat else 0.16)
    size = np.clip(sq_points / n_samples, 0.4, 30)
    defaults = {"s": size, "linewidth": 0, "alpha": 0.85, "rasterized": True}
    return defaults | normalize_kwargs(kwargs, PathCollection)


def _shuffled(mask: Array) -> Array:
    """Return the chosen rows in a random, repeatable order."""
    return np.random.default_rng(0).permutation(np.flatnonzero(mask))


def _scatter_classes(
    ax: Axes, points: Array, codes: Array, colors: Array, kwargs: dict[str, Any]
) -> list[PathCollection]:
    """Draw the rows without a class, then the others in random order, by marker."""
    drawn = []
    for mask, marker in [
        (codes < 0, "o"),
        ((codes >= 0) & (_marker_group(codes) == 0), "o"),
        (_marker_group(codes) == 1, "^"),
    ]:
        rows = _shuffled(mask)
        if len(rows):
            drawn.append(ax.scatter(*points[rows].T, **({"c": colors[codes[rows]], "marker": marker} | kwargs)))
    return drawn


def _scatter_values(
    ax: Axes, points: Array, values: Any, name: str | None, kwargs: dict[str, Any]
) -> tuple[list[PathCollection], Colorbar]:
    """Draw the rows without a finite value, then the others on a colour scale; return them and the bar."""
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values)
    drawn = []
    if not finite.all():
        grey = {key: kwargs[key] for key in kwargs if key not in ("cmap", "norm", "vmin", "vmax")}
        drawn.append(ax.scatter(*points[~finite].T, **(grey | {"color": LIGHT})))
    rows = _shuffled(finite)
    if "norm" not in kwargs:
        low, high = _limits(values[finite])
        kwargs = {"vmin": low, "vmax": high} | kwargs
    drawn.append(ax.scatter(*points[rows].T, c=values[rows], **({"cmap": "viridis"} | kwargs)))
    norm = drawn[-1].norm
    below, above = np.any(values[finite] < norm.vmin), np.any(values[finite] > norm.vmax)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]
    bar = ax.figure.colorbar(drawn[-1], ax=ax, label=name or "", extend=extend, shrink=0.8)
    bar.outline.set_visible(False)
    bar.solids.set(alpha=1)
    return drawn, bar


def _limits(values: Array) -> tuple[float | None, float | None]:
    """Return the ends of the colour scale: a percentile where the tail is more than half of the rest."""
    if len(values) == 0:
        return None, None
    low, first, last, high = np.percentile(values, [0, 1, 99, 100])
    tail = (last - first) / 2
    return (first if first - low > tail > 0 else low), (last if high - last > tail > 0 else high)


def _strip(ax: Axes, x: Array, codes: Array, colors: Array) -> Array:
    """Draw a histogram of x, stacked by class, and return its points in a strip below."""
    present = np.unique(codes)
    shades: list[Any] = list(colors[present]) if len(present) <= _MAX_LEGEND + 1 else [LIGHT]
    parts = [x] if len(shades) == 1 else [x[codes == code] for code in present]
    n_bins = int(np.clip(np.sqrt(len(x)), 10, 60))
    counts, _, _ = ax.hist(parts, bins=n_bins, stacked=True, color=shades)
    height = np.max(counts)
    ax.set_ylim(-0.35 * height, 1.05 * height)
    jitter = np.random.default_rng(0).uniform(-0.3, -0.05, size=len(x))
    return np.column_stack([x, height * jitter])


def _mean_of_pixels(ax: Axes, points: Array, values: Array, all_points: Array) -> tuple[Array, tuple]:
    """(mean of each column of values, and count, of each pixel, (left, right, bottom, top) of all pixels)."""
    low, high = all_points.min(axis=0), all_points.max(axis=0)
    size = max(float((high - low).max()), np.finfo(float).tiny) / max(100, ax.get_window_extent().height)
    n_columns, n_rows = (((high - low) / size).astype(int) + 1).tolist()
    column, row = ((points - low) / size).astype(int).T
    at = row * n_columns + column
    counts = np.bincount(at, minlength=n_rows * n_columns)
    sums = [np.bincount(at, weights=part, minlength=n_rows * n_columns) for part in values.T]
    pixels = np.stack([*(total / np.maximum(counts, 1) for total in sums), counts], axis=1)
    left, bottom = low.tolist()
    extent = left, left + n_columns * size, bottom, bottom + n_rows * size
    return pixels.reshape(n_rows, n_columns, -1), extent


def _name_at_medians(ax: Axes, points: Array, classes: Array, codes: Array) -> None:
    """Write each class's name at the median of its points, or where it meets no other name, with a line to there."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import ScaledTranslation

    outline = [withStroke(linewidth=3, foreground="white")]
    middles = np.array([np.median(points[codes == code], axis=0) for code in range(len(classes))])
    how: dict[str, Any] = {"ha": "center", "va": "center", "weight": "bold", "path_effects": outline, "zorder": 4}
    texts = [ax.text(*middle, str(name), **how) for middle, name in zip(middles, classes, strict=True)]
    ax.figure.draw_without_rendering()  # now axes have their size, and names theirs
    boxes = [text.get_window_extent() for text in texts]
    moved = _apart(ax.transData.transform(middles), np.array([(box.width + 2, box.height + 2) for box in boxes]))
    for text, middle, by, box in zip(texts, middles, moved, boxes, strict=True):
        if not by.any():
            continue
        inches = ScaledTranslation(*(by / ax.figure.dpi), ax.figure.dpi_scale_trans)
        text.set_transform(ax.transData + inches)
        if np.abs(by).max() > box.height:
            ends = {"xytext": tuple(by * 72 / ax.figure.dpi), "textcoords": "offset points"}
            ax.annotate("", tuple(middle), **ends, arrowprops={"arrowstyle": "-", "color": DARK, "linewidth": 0.8})


def _apart(centers: Array, sizes: Array) -> Array:
    """How far boxes are moved until none meets another: two that do part along the side of the smaller overlap."""
    moved = np.zeros_like(centers)
    least = (sizes[:, None] + sizes[None]) / 2
    tie = np.sign(np.arange(len(centers))[:, None] - np.arange(len(centers)))  # of boxes in the same place
    for _ in range(_MOVES):
        offsets = (centers + moved)[:, None] - (centers + moved)[None]
        overlap = np.maximum(least - np.abs(offsets), 0)
        overlap *= (overlap.min(axis=2) > 0)[..., None] & ~np.eye(len(centers), dtype=bool)[..., None]
        if not overlap.any():
            break
        along_y = overlap[..., 1] <= overlap[..., 0]
        signs = np.where(offsets == 0, tie[..., None], np.sign(offsets))
        pushes = 0.55 * overlap * signs * np.stack([~along_y, along_y], axis=2)
        moved += pushes.sum(axis=1)
    return moved


def _legend_beside(ax: Axes, classes: Array, colors: Array, missing: bool) -> Legend:
    """Name the classes to the right of the axes."""
    from matplotlib.lines import Line2D

    groups = _marker_group(np.arange(len(classes)))
    entries = [(str(name), colors[code], "o^"[groups[code]]) for code, name in enumerate(classes)]
    entries += [("no class", colors[-1], "o")] * bool(missing)
    handles = [Line2D([], [], ls="", marker=mark, color=color, label=name) for name, color, mark in entries]
    columns = 1 if len(entries) <= 12 else 2
    return ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1, 1),
        ncols=columns,
        frameon=False,
        handletextpad=0.2,
        columnspacing=0.8,
    )


def _dress(ax: Axes, n_components: int, names: Any) -> None:
    """Set the axes' scales, ticks and names."""
    if n_components == 1:
        ax.set_yticks([])
        ax.spines[["left", "top", "right"]].set_visible(False)
    else:
        ax.set_aspect("equal", adjustable="datalim")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(LIGHT)
    if names is not None:
        ax.set_xlabel(names[0], color=DARK)
        if n_components > 1:
            ax.set_ylabel(names[1], color=DARK)
    if n_components > 2:
        note = f"components 1 and 2 of {n_components}"
        ax.text(0.99, 0.01, note, transform=ax.transAxes, ha="right", va="bottom", size="small", color=DARK)
