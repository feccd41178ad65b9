"""Supervisory distributions p(j|i): what the data, the labels or a graph say about who belongs with whom.

A spec holds parameters. `spec.conditional(X, y)` returns the distribution as a `Conditional`: sparse rows
plus one uniform mass. Formulas are the columns of I-Con's table 1 (Alshammari et al., ICLR 2025).
"""

from __future__ import annotations

from typing import Any

from .._core.types import Metric
from ._base import Supervisory
from ._constraints import Constraints
from ._given import GRAPH_OF_FEATURES as GRAPH_OF_FEATURES
from ._given import Counts, CrossModalPairs, Graph, Identity
from ._labels import BalancedCodes, DataLabel, PositivePairs, PropagatedLabel, SameClass
from ._metric import LearnedMetric
from ._neighborhoods import FuzzyUnion, Gaussian, StudentT, UniformKNN
from ._spectral import Spectral
from ._wrappers import RandomWalk, UniformMixture

__all__ = [
    "BalancedCodes",
    "Constraints",
    "Counts",
    "CrossModalPairs",
    "DataLabel",
    "FuzzyUnion",
    "Gaussian",
    "Graph",
    "Identity",
    "LearnedMetric",
    "PositivePairs",
    "PropagatedLabel",
    "RandomWalk",
    "SameClass",
    "Spectral",
    "StudentT",
    "Supervisory",
    "UniformKNN",
    "UniformMixture",
]


def _walk(
    n_neighbors: int = 15, metric: Metric = "euclidean", source: str = "X", metric_params: dict | None = None
) -> RandomWalk:
    """Neighbours and their neighbours."""
    return RandomWalk(UniformKNN(n_neighbors, metric, source, metric_params), n_steps=2)


NAMES: dict[str, Any] = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "knn": UniformKNN,
    "walk": _walk,
    "fuzzy": FuzzyUnion,
    "identity": Identity,
    "graph": Graph,
    "same_class": SameClass,
    "positive_pairs": PositivePairs,
    "cross_modal": CrossModalPairs,
    "data_label": DataLabel,
    "propagated_label": PropagatedLabel,
    "counts": Counts,
}

for _name in __all__:
    globals()[_name].__module__ = __name__  # where users find it
