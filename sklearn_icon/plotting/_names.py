"""Names of classes: beside a map, or on it and apart from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.types import Array
from ._style import COLORS, DARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

_MOVES = 500  # of names that overlap, at the most


def marker_group(codes: Array) -> Array:
    """Return 1 for the second ten classes of each twenty, 0 for the first and for rows without a class."""
    return np.maximum(codes, 0) // len(COLORS) % 2


def name_at_medians(ax: Axes, points: Array, classes: Array, codes: Array) -> None:
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


def legend_beside(ax: Axes, classes: Array, colors: Array, missing: bool) -> Legend:
    """Name the classes to the right of the axes."""
    from matplotlib.lines import Line2D

    groups = marker_group(np.arange(len(classes)))
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
