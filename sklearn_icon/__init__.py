"""I-Con for scikit-learn: one loss, many methods.

Every estimator here minimises the same objective (Alshammari et al., ICLR 2025, eq. 1),

    L = mean_i D( p(.|i) || q(.|i) ),

the average divergence between a *supervisory* distribution p over the neighbours of each row and a
*learned* one q. The choice of p (`supervisory`), q (`learned`) and of an encoder (`encoders`) is a method.
"""

import sys
from importlib import import_module

_ESTIMATORS = {
    "ICONEmbedding": "embedding",
    "ICONClustering": "clustering",
    "ICONClassifier": "classifier",
    "ICONCrossModal": "cross_modal",
}
_ELSEWHERE = {
    "load": "._estimators.saving",
    "FittedRows": "._training.new_rows",  # for pickles and skops
    "__version__": "._core.versions",
    "show_versions": "._core.versions",
}
_MODULES = (
    "supervisory",
    "learned",
    "encoders",
    "divergences",
    "methods",
    "metrics",
    "plotting",
    "nn",
    "testing",
    "distributed",
)

__all__ = [
    "ICONClassifier",
    "ICONClustering",
    "ICONCrossModal",
    "ICONEmbedding",
    "__version__",
    "load",
    "show_versions",
    *sorted(_MODULES),
]


class _Moved(type(sys)):  # type: ignore[misc]  # a module's type, without an import of `types`
    """A module of version 0.1.0 under its old name, for pickles that hold it: its names are looked up where they are.

    Nothing else is imported along with the package, which takes no longer than it did (`benchmarks/import_time.py`).
    """

    def __init__(self, old, now):
        super().__init__(f"{__name__}.{old}", f"Moved to `{__name__}.{now}`.")
        self._now = f"{__name__}.{now}"
        sys.modules.setdefault(self.__name__, self)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self._now), name)


for _old in ("classifier", "clustering", "cross_modal", "embedding"):
    _Moved(f"_{_old}", f"_estimators.{_old}")
_Moved("_new_rows", "_training.new_rows")


def __getattr__(name):
    """Import the estimators and modules at their first use (PEP 562)."""
    if name in _ESTIMATORS:
        return vars(import_module(f"._estimators.{_ESTIMATORS[name]}", __name__))[name]
    if name in _ELSEWHERE:
        return vars(import_module(_ELSEWHERE[name], __name__))[name]
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
