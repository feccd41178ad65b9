"""Displays: pictures of a map, of a row's neighbourhood, of a fit's progress, of calibration and of all methods.

They follow scikit-learn's visualization API: ``from_*`` computes and draws, ``__init__`` stores the data,
``plot`` draws it again (on other axes, with other options), sets ``ax_`` and ``figure_`` and returns the
display. matplotlib is imported only when something is drawn.
"""

from ._curves import LossCurveDisplay, ReliabilityDisplay
from ._embedding import EmbeddingDisplay
from ._neighborhood import NeighborhoodDisplay
from ._table import PeriodicTableDisplay

__all__ = ["EmbeddingDisplay", "LossCurveDisplay", "NeighborhoodDisplay", "PeriodicTableDisplay", "ReliabilityDisplay"]
