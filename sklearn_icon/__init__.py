"""I-Con for scikit-learn: one loss, many methods.

Every estimator here minimises the same objective (Alshammari et al., ICLR 2025, eq. 1),

    L = mean_i D( p(.|i) || q(.|i) ),

the average divergence between a *supervisory* distribution p over the neighbours of each row and a
*learned* one q. The choice of p (`supervisory`), q (`learned`) and of an encoder (`encoders`) is a method.
"""

from importlib import import_module

from ._core.moved import keep_old_names
from ._core.versions import __version__, show_versions

_ESTIMATORS = {
    "ICONEmbedding": "embedding",
    "ICONClustering": "clustering",
    "ICONClassifier": "classifier",
    "ICONCrossModal": "cross_modal",
}
_ELSEWHERE = {"load": "._estimators.saving", "FittedRows": "._training.new_rows"}  # the second for pickles and skops
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


keep_old_names(__name__)


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
