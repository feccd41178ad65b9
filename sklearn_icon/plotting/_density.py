"""Maps of so many rows that points would hide each other: pixels of their mean colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.types import Array
from ._style import limits, new_colorbar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAINTEST = 0.3  # opacity of a pixel with one row


def draw_colors(ax: Axes, points: Array, colors: Array, certainty: Array | None) -> Any:
    """Draw pixels of the mean colours of their rows, paler where few or uncertain; return the picture in a list."""
    rest = [] if certainty is None else [certainty[:, None]]
    pixels, extent = _mean_of_pixels(ax, points, np.hstack([colors, *rest]), points)
    opaque = np.log1p(pixels[..., -1])
    opaque = np.where(opaque > 0, _FAINTEST + (1 - _FAINTEST) * opaque / opaque.max(), 0.0)
    return [_shown(ax, pixels[..., :3], opaque * (1.0 if certainty is None else pixels[..., 3]), extent)]


def draw_values(ax: Axes, points: Array, values: Array, name: str | None, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Draw pixels of the mean finite value of their rows; return the picture in a list, and its bar of colours."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    finite = np.isfinite(values)
    low, high = limits(values[finite])
    norm = kwargs.get("norm") or Normalize(kwargs.get("vmin", low), kwargs.get("vmax", high))
    mapped = ScalarMappable(norm, colormaps.get_cmap(kwargs.get("cmap", "viridis")))
    pixels, extent = _mean_of_pixels(ax, points[finite], values[finite, None], points)
    filled = pixels[..., 1] > 0
    picture = np.where(filled[..., None], mapped.to_rgba(pixels[..., 0])[..., :3], 1.0)
    return [_shown(ax, picture, 1.0 * filled, extent)], new_colorbar(ax, mapped, name)


def _shown(ax: Axes, picture: Array, opaque: Array, extent: tuple) -> Any:
    """Draw pixels with equal scales."""
    image = np.dstack([picture, opaque])
    return ax.imshow(image, extent=extent, origin="lower", interpolation="nearest", aspect="equal")


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
