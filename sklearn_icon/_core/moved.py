"""Modules of version 0.1.0 under their old names, for pickles that hold these."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_MOVED = {
    "_classifier": "_estimators.classifier",
    "_clustering": "_estimators.clustering",
    "_cross_modal": "_estimators.cross_modal",
    "_embedding": "_estimators.embedding",
    "_new_rows": "_training.new_rows",
}


class _Moved(ModuleType):
    """A module that looks its names up elsewhere, where they are asked for."""

    def __init__(self, name: str, now: str):
        super().__init__(name, f"Moved to `{now}`.")
        self._now = now

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self._now), name)


def keep_old_names(package: str) -> None:
    """Let pickles of 0.1.0 find their classes."""
    for old, now in _MOVED.items():
        sys.modules.setdefault(f"{package}.{old}", _Moved(f"{package}.{old}", f"{package}.{now}"))
