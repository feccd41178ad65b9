"""Arrays of other libraries in and out, where scikit-learn dispatches by the array API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils._array_api import _convert_to_numpy, get_namespace_and_device

from .rows import refuse_hidden

_NAMES = ("X", "y", "sample_weight")


def as_numpy(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any], Callable[[Any], Any]]:
    """Arguments as NumPy arrays, and the function that makes what was computed of them the first one's kind.

    Under `sklearn.set_config(array_api_dispatch=True)` arrays of any library of the standard, torch's among them, come
    back on the device they came from; otherwise all is left as it is.
    """
    if not get_config()["array_api_dispatch"]:
        return args, kwargs, lambda returned: returned
    found: list[tuple[Any, Any]] = []

    def converted(name: str, value: Any) -> Any:
        if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
            return value
        refuse_hidden(value, name)
        try:
            xp, _, device = get_namespace_and_device(value)
        except TypeError:  # no array by the standard, such as a column of pyarrow
            return value
        found.append((xp, device))
        return _convert_to_numpy(value, xp)

    def back(returned: Any) -> Any:
        match returned:
            case tuple():
                parts = [back(part) for part in returned]
                return tuple(parts) if type(returned) is tuple else type(returned)(*parts)
            case np.ndarray() if found and returned.dtype.kind in "biuf":
                xp, device = found[0]
                return xp.asarray(returned, device=device, copy=True)
        return returned

    positional = tuple(converted(_NAMES[min(place, len(_NAMES) - 1)], value) for place, value in enumerate(args))
    return positional, {name: converted(name, value) for name, value in kwargs.items()}, back
