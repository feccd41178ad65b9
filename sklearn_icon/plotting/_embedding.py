"""`EmbeddingDisplay`: a map's rows as points, coloured by class or by value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from .._core.labels import told_apart
from .._core.types import Array, Rows
from ._density import draw_colors, draw_values
from ._hover import hover_page
from ._names import legend_beside, marker_group, name_at_medians
from ._style import COLORS, DARK, LIGHT, limits, new_axes, new_colorbar

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.colorbar import Colorbar

_DARKENED = 0.6  # past ten classes the colours return, darkened, with another marker
_MAX_LEGEND = 20
_MOST_POINTS = 100_000  # more are drawn as densities: points would hide each other
_OPACITY = 0.85
_LEAST_CERTAIN = 0.15  # of the opacity of a certain row
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
    uncertainty : array-like of shape (n_samples,), default=None
        Number for each row: the larger it is, the paler the point, from the 1st to the 99th percentile.

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
        uncertainty: Any = None,
    ) -> None:
        self.embedding = embedding
        self.labels = labels
        self.values = values
        self.feature_names = feature_names
        self.values_name = values_name
        self.uncertainty = uncertainty

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Rows | None = None,
        *,
        y: Any = None,
        values: Any = None,
        uncertainty: Any = None,
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
        uncertainty : array-like of shape (n_samples,) or str, default=None
            How far each row's coordinates are to be doubted, or the name of an attribute likewise; rows are the paler.
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
        (values_name, values), (_, uncertainty) = _of_fit(estimator, values), _of_fit(estimator, uncertainty)
        how = {"feature_names": _component_names(estimator, Z), "values_name": values_name, "uncertainty": uncertainty}
        return cls.from_embedding(Z, y=y, values=values, **how, ax=ax, **kwargs)

    @classmethod
    def from_embedding(
        cls,
        Z: Any,
        *,
        y: Any = None,
        values: Any = None,
        feature_names: Any = None,
        values_name: str | None = None,
        uncertainty: Any = None,
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
        feature_names, values_name, uncertainty
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
        Z = check_array(Z, ensure_2d=False, dtype=[np.float64, np.float32], input_name="Z")
        Z = Z.reshape(-1, 1) if Z.ndim == 1 else Z
        check_consistent_length(Z, y, values, uncertainty)
        labels = None
        if y is not None and _is_categorical(y):
            labels = column_or_1d(np.asarray(y))
        elif y is not None:
            values = y
        if values is not None:
            values_name = values_name or getattr(values, "name", None)
            values = column_or_1d(np.asarray(values, dtype=float))
        if uncertainty is not None:
            uncertainty = column_or_1d(np.asarray(uncertainty, dtype=float))
        how = {"feature_names": feature_names, "values_name": values_name, "uncertainty": uncertainty}
        return cls(Z, labels=labels, values=values, **how).plot(ax=ax, **kwargs)

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
        classes, codes = _encode(self.labels, len(embedding))
        colors = _class_colors(len(classes), palette)
        flat = embedding.shape[1] == 1
        points = _strip(self.ax_, embedding[:, 0], codes, colors) if flat else embedding[:, :2]
        dense = density is True or (density == "auto" and len(embedding) > _MOST_POINTS and kwargs.keys() <= _SHADED)
        each = _one_color(len(points)) if self.labels is None else colors[codes]
        self.scatter_, self.colorbar_, self.legend_ = self._draw(points, codes, each, dense and not flat, kwargs)
        _dress(self.ax_, embedding.shape[1], self.feature_names)
        if legend == "auto":
            legend = "outside" if len(classes) <= _MAX_LEGEND else "none"
        if self.labels is not None and legend == "direct":
            name_at_medians(self.ax_, points, classes, codes)
        elif self.labels is not None and legend == "outside":
            self.legend_ = legend_beside(self.ax_, classes, colors, missing=bool(np.any(codes < 0)))
        return self

    def _draw(self, points: Array, codes: Array, colors: Array, dense: bool, kwargs: dict[str, Any]) -> tuple:
        """Draw points, or pixels; return what was drawn, the bar of colours where there are values, and no legend."""
        certainty = None if self.uncertainty is None else _certainty(self.uncertainty)
        values = None if self.values is None else np.asarray(self.values, dtype=float)
        if dense and values is not None:
            return *draw_values(self.ax_, points, values, self.values_name, kwargs), None
        if dense:
            return draw_colors(self.ax_, points, colors, certainty), None, None
        kwargs = _scatter_options(self.ax_, len(points), np.shape(self.embedding)[1] == 1, certainty, kwargs)
        if values is not None:
            return *_scatter_values(self.ax_, points, values, self.values_name, kwargs), None
        if self.labels is not None:
            return _scatter_classes(self.ax_, points, codes, colors, kwargs), None, None
        if not {"c", "color", "facecolor", "facecolors"} & kwargs.keys():
            kwargs = {"c": colors} | kwargs
        return [self.ax_.scatter(*points.T, **kwargs)], None, None

    def to_html(self, path: Any = None, *, names: Any = None, title: str = "Map") -> str:
        """Write the map as a page on which the pointer tells what a point is; wheel and drag move about.

        The page stands alone: it loads nothing, and needs no package beside matplotlib to be made. Colours are those of
        `plot`; uncertain rows are paler.

        Parameters
        ----------
        path : str or path-like, default=None
            Where to write it; None writes nothing.
        names : array-like of shape (n_samples,), default=None
            What is told of each row beside its class or value; None takes its number.
        title : str, default="Map"
            Title of the page.

        Returns
        -------
        str
            The page.

        Raises
        ------
        ValueError
            Names of another number of rows.
        """
        check_matplotlib_support(f"{type(self).__name__}.to_html")
        embedding = np.asarray(self.embedding)
        names = np.arange(len(embedding)) if names is None else np.asarray(names)
        check_consistent_length(embedding, names)
        classes, codes = _encode(self.labels, len(embedding))
        texts = [f"{name}" for name in names]
        if self.values is not None:
            values = np.asarray(self.values, dtype=float)
            colors = _value_colors(values)
            texts = [f"{text}: {value:.4g}" for text, value in zip(texts, values, strict=True)]
        else:
            colors = _one_color(len(texts)) if self.labels is None else _class_colors(len(classes), None)[codes]
            told = [f": {name}" for name in classes] + ["" if self.labels is None else ": no class"]
            texts = [f"{text}{told[code]}" for text, code in zip(texts, codes, strict=True)]
        opacity = None if self.uncertainty is None else _certainty(self.uncertainty)
        page = hover_page(_plane(embedding), colors, opacity, texts, title)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page


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


def _of_fit(estimator: Any, values: Any) -> tuple[str | None, Any]:
    """(name, values) of an attribute of an estimator that is named, or (None, values) as they are given."""
    return (values, getattr(estimator, values)) if isinstance(values, str) else (None, values)


def _component_names(estimator: Any, Z: Any) -> Any:
    """Return the estimator's names of the columns of Z, or None where it has none that fit."""
    try:
        names = estimator.get_feature_names_out()
    except (AttributeError, NotImplementedError, ValueError):
        return None
    return names if len(names) == Z.shape[1] else None


def _plane(embedding: Array) -> Array:
    """Return the first two components, or one and a random height."""
    if embedding.shape[1] > 1:
        return embedding[:, :2]
    height = np.ptp(embedding) * np.random.default_rng(0).uniform(0, 0.1, size=len(embedding))
    return np.column_stack([embedding[:, 0], height])


def _value_colors(values: Array) -> Array:
    """Return the colours of numbers, grey where not finite."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    finite = np.isfinite(values)
    scaled = Normalize(*limits(values[finite]), clip=True)(np.where(finite, values, 0.0))
    return np.where(finite[:, None], colormaps["viridis"](scaled)[:, :3], _class_colors(0, None)[-1])


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
    classes, codes[~missing] = told_apart(labels[~missing], "or None where a row has no label")
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


def _one_color(n_samples: int) -> Array:
    """Return the same RGB row for each row."""
    return np.broadcast_to(_class_colors(1, None)[0], (n_samples, 3))


def _certainty(uncertainty: Any) -> Array:
    """Return the opacity of each row, 1 for the least uncertain; what is not finite is as uncertain as any."""
    uncertainty = np.asarray(uncertainty, dtype=float)
    finite = np.isfinite(uncertainty)
    if not finite.any():
        return np.full(len(uncertainty), _LEAST_CERTAIN)
    low, high = np.percentile(uncertainty[finite], [1, 99])
    height = np.clip((uncertainty - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    return 1 - (1 - _LEAST_CERTAIN) * np.where(finite, height, 1)


def _of_rows(kwargs: dict[str, Any], rows: Array) -> dict[str, Any]:
    """Return the options of some rows: opacities are one for all, or one for each."""
    alpha = np.asarray(kwargs.get("alpha"))
    return kwargs if alpha.ndim == 0 else kwargs | {"alpha": alpha[rows]}


def _scatter_options(
    ax: Axes, n_samples: int, flat: bool, certainty: Array | None, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the scatter's options: by default the points together would cover a sixth of the axes."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.collections import PathCollection

    inches = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    sq_points = 72**2 * inches.width * inches.height * (0.08 if flat else 0.16)
    size = np.clip(sq_points / n_samples, 0.4, 30)
    alpha = _OPACITY if certainty is None else _OPACITY * certainty
    defaults = {"s": size, "linewidth": 0, "alpha": alpha, "rasterized": True}
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
        ((codes >= 0) & (marker_group(codes) == 0), "o"),
        (marker_group(codes) == 1, "^"),
    ]:
        rows = _shuffled(mask)
        if len(rows):
            options = {"c": colors[rows], "marker": marker} | _of_rows(kwargs, rows)
            drawn.append(ax.scatter(*points[rows].T, **options))
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
        colors = np.broadcast_to(_class_colors(0, None)[-1], (int((~finite).sum()), 3))
        drawn.append(ax.scatter(*points[~finite].T, **(_of_rows(grey, ~finite) | {"c": colors})))
    rows = _shuffled(finite)
    if "norm" not in kwargs:
        low, high = limits(values[finite])
        kwargs = {"vmin": low, "vmax": high} | kwargs
    drawn.append(ax.scatter(*points[rows].T, c=values[rows], **({"cmap": "viridis"} | _of_rows(kwargs, rows))))
    norm = drawn[-1].norm
    below, above = np.any(values[finite] < norm.vmin), np.any(values[finite] > norm.vmax)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]
    return drawn, new_colorbar(ax, drawn[-1], name, extend=extend)


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
