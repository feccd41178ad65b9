"""What attributes of a fit hold, by which a file is refused that says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import encoders, learned, supervisory


def _a(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


_bool, _integer, _float, _str = _a(bool), _a(int, np.integer), _a(float, np.floating), _a(str)
_tuple, _ndarray = _a(tuple), _a(np.ndarray)


def _whole(value: Any) -> bool:
    return _integer(value) and not _bool(value) and bool(value >= 0)


def _real(value: Any) -> bool:
    return _float(value) or _whole(value)


def _shape(value: Any) -> bool:
    return _tuple(value) and all(map(_whole, value))


def _report(value: Any) -> bool:
    """A fit's report, of which what is always there is words or numbers."""
    words = all(_str(value.get(name, "")) for name in ("p", "q", "encoder", "divergence", "device"))
    numbers = [value.get("seconds", 0.0), value.get("loss", 0.0), *value.get("stages", {}).values()]
    return words and all(map(_real, numbers))


def _array(kinds: str, ndim: int) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        return _ndarray(value) and value.dtype.kind in kinds and value.ndim == ndim

    return holds


_ANY, _TABLE, _CURVE, _NUMBERS = _array("biufUSO", 1), _array("f", 2), _array("f", 1), _array("iu", 1)
KINDS: dict[str, Callable[[Any], bool]] = {
    "supervisory_": _a(supervisory.Supervisory),
    "learned_": _a(learned.Learned),
    **dict.fromkeys(["encoder_", "encoder_y_"], _a(encoders.Encoder)),
    **dict.fromkeys(["n_features_in_", "n_features_y_", "n_clusters_", "_columns_found"], _whole),
    **dict.fromkeys(["debias_", "inertia_", "kl_divergence_", "learning_rate_", "loss_", "neighbor_recall_"], _real),
    **dict.fromkeys(["device_", "method_", "chosen_", "stop_reason_"], _a(str)),
    **dict.fromkeys(["_item_shape", "_item_shape_y"], _shape),
    **dict.fromkeys(["candidates_", "_state"], _a(dict)),
    "fit_report_": _report,
    "n_iter_": lambda value: _whole(value) or _NUMBERS(value),
    "classes_": _ANY,
    **dict.fromkeys(["embedding_", "cluster_centers_", "prototypes_", "_memberships"], _TABLE),
    **dict.fromkeys(["loss_curve_", "validation_loss_curve_", "kl_per_sample_"], _CURVE),
    **dict.fromkeys(["labels_", "loss_iterations_", "_columns", "cluster_numbers_", "_numbers"], _NUMBERS),
    "known_classes_": _ANY,
}


def contradiction(values: Mapping[str, Any]) -> str:
    """Which attribute is not what a fit leaves there, or does not agree with another, in words; or nothing."""
    for name, value in values.items():
        if name in KINDS and value is not None and not KINDS[name](value):
            return f"{name} is not what a fit leaves there"
    if "n_features_in_" in values and np.prod(values.get("_item_shape", ())) != values["n_features_in_"]:
        return "n_features_in_ is not the size of an item"
    labels, count = values.get("labels_"), values.get("n_clusters_")
    if labels is not None and count is not None:
        numbers = values.get("cluster_numbers_", np.arange(count))
        if len(numbers) != count or not np.isin(labels, numbers).all():
            return "labels_ are none of n_clusters_"
    centers = values.get("cluster_centers_")
    if centers is not None and centers.shape[1] != values.get("n_features_in_", centers.shape[1]):
        return "cluster_centers_ have other columns than n_features_in_"
    return ""
