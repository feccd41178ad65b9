"""Displays: pictures of maps, neighbourhoods, clusters, pairs, fits, calibration and the table of methods.

They follow scikit-learn's visualization API: ``from_*`` computes and draws, ``__init__`` stores the data,
``plot`` draws it again (on other axes, with other options), sets ``ax_`` and ``figure_`` and returns the
display. matplotlib is imported only when something is drawn.
"""

from ._cluster_count import ClusterCountDisplay
from ._curves import LossCurveDisplay, ReliabilityDisplay
from ._embedding import EmbeddingDisplay
from ._groups import ClusterSizesDisplay, SilhouetteDisplay
from ._neighborhood import NeighborhoodDisplay
from ._retrieval import RetrievalDisplay
from ._table import PeriodicTableDisplay

__all__ = [
    "ClusterCountDisplay",
    "ClusterSizesDisplay",
    "EmbeddingDisplay",
    "LossCurveDisplay",
    "NeighborhoodDisplay",
    "PeriodicTableDisplay",
    "ReliabilityDisplay",
    "RetrievalDisplay",
    "SilhouetteDisplay",
]
