"""`PeriodicTableDisplay`: methods by what supervises them and by what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

from .. import methods as table
from .._core.types import Array
from ._style import COLORS, new_axes

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes
    from matplotlib.legend import Legend
    from matplotlib.patches import Rectangle

_WRAP = 11  # letters of a line
_TINT = 0.55  # how far tiles are from white
_LETTERS = 9.5  # that a tile is wide, its margins aside
_HEADER, _LABELS = 1.15, 1.3  # room for the titles of columns and rows, in tiles
_FADED = 0.15
_NAMED, _OUTLINED, _EMPTY = 0.67, 0.16, 0.02  # of the colour of text, in titles, outlines and empty cells
_FAMILY_COLORS = dict(zip(table.FAMILIES, [*COLORS[:4], COLORS[6], "#27aeb3"], strict=True))


class PeriodicTableDisplay:
    """The periodic table of methods: a column for each p, a row for each q, a tile for each method.

    Tiles are coloured by family. A published method has a plain tile, a combination that no paper has a hatched one.
    The ground and the letters are those of matplotlib's style, such as ``"dark_background"``.

    Parameters
    ----------
    methods : sequence of sklearn_icon.methods.Method
        What to draw.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    tiles_ : dict of str to matplotlib Rectangle
        By the methods' names.
    legend_ : matplotlib Legend

    References
    ----------
    Alshammari et al., "I-Con: A unifying framework for representation learning", ICLR 2025, figure 1.

    Examples
    --------
    >>> from sklearn_icon.plotting import PeriodicTableDisplay
    >>> PeriodicTableDisplay.from_methods(highlight="t-SNE")
    <...PeriodicTableDisplay object at ...>
    """

    def __init__(self, methods: Sequence[table.Method]) -> None:
        self.methods = methods

    @classmethod
    def from_methods(cls, names: Sequence[str] | None = None, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw methods by name.

        Parameters
        ----------
        names : sequence of str, default=None
            Names that `methods.get` knows; None for all.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        PeriodicTableDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_methods")
        names = table.names() if names is None else names
        return cls([table.get(name) for name in names]).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, highlight: str | Sequence[str] = ()) -> Self:
        """Draw the table.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        highlight : str or sequence of str, default=()
            Methods to show, all others faded; none fades nothing.

        Returns
        -------
        PeriodicTableDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self.ax_, self.figure_ = new_axes(ax, figsize=(9, 7.6))
        shown = {table.get(name).name for name in np.atleast_1d(highlight)}
        columns = [title for title in table.COLUMNS.values() if any(m.column == title for m in self.methods)]
        rows = [title for title in dict.fromkeys(table.ROWS.values()) if any(m.row == title for m in self.methods)]
        cells: dict[tuple, list] = {}
        for method in self.methods:
            cells.setdefault((method.row, method.column), []).append(method)
        heights = [max(len(cells.get((row, column), ())) for column in columns) for row in rows]
        tops = np.cumsum([0, *heights])
        size = _font_size(self.ax_, len(columns), tops[-1])
        self.tiles_ = {}
        for row, top, height in zip(rows, tops[:-1], heights, strict=True):
            for x, column in enumerate(columns):
                _outline(self.ax_, x, top, height)
                for y, method in enumerate(cells.get((row, column), ()), start=top):
                    faded = bool(shown) and method.name not in shown
                    self.tiles_[method.name] = _tile(self.ax_, x, y, method, size, _FADED if faded else 1.0)
        _titles(self.ax_, columns, rows, tops, size)
        self.legend_ = _legend(self.ax_, self.methods, size)
        return self


def _font_size(ax: Axes, n_columns: int, n_tiles: int) -> float:
    """Letters that fit into the tiles, in points."""
    ax.set(xlim=(-_LABELS, n_columns), ylim=(n_tiles + 0.05, -_HEADER))
    ax.set_axis_off()
    extent = ax.get_window_extent()
    points = 72 / ax.figure.dpi
    width, height = extent.width * points / (n_columns + _LABELS), extent.height * points / (n_tiles + _HEADER)
    return float(np.clip(min(width / (_LETTERS * 0.58), height / 3.4), 1.5, 14))


def _on_ground(color: Any, strength: float) -> Array:
    """A colour mixed with that of the axes."""
    from matplotlib import rcParams
    from matplotlib.colors import to_rgb

    return (1 - strength) * np.array(to_rgb(rcParams["axes.facecolor"])) + strength * np.array(to_rgb(color))


def _text_color(strength: float) -> Array:
    """The colour of text, mixed with that of the axes."""
    from matplotlib import rcParams

    return _on_ground(rcParams["text.color"], strength)


def _outline(ax: Axes, x: float, top: float, height: float) -> None:
    """An empty cell."""
    from matplotlib.patches import Rectangle

    ax.add_patch(
        Rectangle((x, top), 1, height, facecolor=_text_color(_EMPTY), edgecolor=_text_color(_OUTLINED), linewidth=0.6)
    )


def _tile(ax: Axes, x: float, y: float, method: table.Method, size: float, alpha: float) -> Rectangle:
    """One method's tile with its name."""
    from matplotlib.patches import Rectangle

    ground, tint = _text_color(0.0), _on_ground(_FAMILY_COLORS[method.family], _TINT)
    style = (
        {"facecolor": tint, "edgecolor": tint}
        if method.published
        else {"facecolor": ground, "edgecolor": tint, "hatch": "////", "linestyle": "--"}
    )
    tile = Rectangle((x + 0.035, y + 0.06), 0.93, 0.88, linewidth=1.0, alpha=alpha, **style)
    ax.add_patch(tile)
    name = "\n".join(wrap(method.title, _WRAP))
    text = ax.text(x + 0.5, y + 0.5, name, ha="center", va="center", size=size, linespacing=1.0, alpha=alpha)
    if not method.published:
        text.set_bbox({"facecolor": ground, "edgecolor": "none", "alpha": 0.85 * alpha, "pad": 0.8})
    return tile


def _titles(ax: Axes, columns: list[str], rows: list[str], tops: Array, size: float) -> None:
    """Name the columns, the rows and what they are."""
    style = {"size": size, "color": _text_color(_NAMED), "linespacing": 1.0}
    for x, column in enumerate(columns):
        ax.text(x + 0.5, -0.12, "\n".join(wrap(column, _WRAP)), ha="center", va="bottom", **style)
    for row, top, bottom in zip(rows, tops[:-1], tops[1:], strict=True):
        ax.text(-0.08, (top + bottom) / 2, "\n".join(wrap(row, _WRAP)), ha="right", va="center", **style)
    strong = {"size": 1.05 * size, "weight": "bold", "ha": "center", "va": "center"}
    ax.text(len(columns) / 2, -_HEADER + 0.15, "supervisory p(j|i): who should be near i", **strong)
    ax.text(-_LABELS + 0.1, tops[-1] / 2, "learned q(j|i): who is near i", rotation=90, **strong)


def _legend(ax: Axes, methods: Sequence[table.Method], size: float) -> Legend:
    """Name the families, and tell published methods from others."""
    from matplotlib.patches import Patch

    families = [family for family in table.FAMILIES if any(m.family == family for m in methods)]
    handles = [Patch(facecolor=_on_ground(_FAMILY_COLORS[family], _TINT), label=family) for family in families]
    if not all(method.published for method in methods):
        handles.append(Patch(facecolor=_text_color(0.0), edgecolor="grey", hatch="////", label="unpublished"))
    return ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(handles),
        frameon=False,
        fontsize=size,
        handlelength=1.4,
        columnspacing=1.1,
    )
