"""Colours and axes that all displays share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Ten colours chosen to be told apart with any colour vision: Petroff, "Accessible color sequences for data
# visualization", 2021, here with its greys last, and a light blue in place of its cyan, which who sees no red takes for
# the light grey of rows without a class.
COLORS = "#3f90da #ffa90e #bd1f01 #832db6 #a96b59 #e76300 #b9ac70 #99c6ea #717581 #94a4a2".split()
LIGHT, DARK = "#d6d6d6", "#555555"


def new_axes(ax: Axes | None, figsize: tuple[float, float] | None = None) -> tuple[Any, Any]:
    """Return the axes to draw on, new ones if None, and their figure."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax, ax.figure


def new_colorbar(ax: Axes, mapped: Any, name: str | None, extend: str = "neither") -> Any:
    """Return a bar of colours beside axes, opaque whatever the points are."""
    bar = ax.figure.colorbar(mapped, ax=ax, label=name or "", extend=extend, shrink=0.8)
    bar.outline.set_visible(False)
    bar.solids.set(alpha=1)
    return bar


def limits(values: Array) -> tuple[float | None, float | None]:
    """Return the ends of the colour scale: a percentile where the tail is more than half of the rest."""
    if len(values) == 0:
        return None, None
    low, first, last, high = np.percentile(values, [0, 1, 99, 100])
    tail = (last - first) / 2
    return (first if first - low > tail > 0 else low), (last if high - last > tail > 0 else high)


def panels_below(ax: Axes, height_ratios: list[float], hspace: float = 0.08) -> list[Axes]:
    """Return new axes below others, which keep the first part of their room and give up their tick labels."""
    from matplotlib.gridspec import GridSpec

    figure, cell = ax.figure, ax.get_subplotspec()
    rows, options = len(height_ratios), {"height_ratios": height_ratios, "hspace": hspace}
    if cell is None:  # axes placed by hand
        room = ax.get_position()
        sides = {"left": room.x0, "right": room.x1, "bottom": room.y0, "top": room.y1}
        grid = GridSpec(rows, 1, figure, **sides, **options)
        boxes = [grid[row].get_position(figure) for row in range(rows)]
        ax.set_position(boxes[0])
        below = [figure.add_axes(box.bounds, sharex=ax) for box in boxes[1:]]
    else:
        grid = cell.subgridspec(rows, 1, **options)
        ax.set_subplotspec(grid[0])
        below = [figure.add_subplot(grid[row], sharex=ax) for row in range(1, rows)]
    for panel in [ax, *below][:-1]:
        panel.tick_params(labelbottom=False)
    return below


def line_options(kwargs: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return a line's options, whatever of their two names the user chose."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return {"color": COLORS[0]} | defaults | normalize_kwargs(kwargs, Line2D)
