"""Encoders: how rows become representations z = f(x).

A spec holds parameters. `spec.build(...)` makes a torch module with weights drawn from a seed of its own.
"""

from ._base import Encoder
from ._contrast import MomentumKeys, ProjectionHead
from ._maps import MLP, Linear, Lookup, Module

__all__ = ["MLP", "Encoder", "Linear", "Lookup", "Module", "MomentumKeys", "ProjectionHead"]

NAMES = {"lookup": Lookup, "linear": Linear, "mlp": MLP}

for _name in __all__:
    globals()[_name].__module__ = __name__  # where users find it
