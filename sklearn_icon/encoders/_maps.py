"""Encoders that map rows: a lookup, linear maps, networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral
from textwrap import shorten
from typing import TYPE_CHECKING

from .._core.seeding import seeded
from .._core.spec import answer
from ._base import Encoder

if TYPE_CHECKING:
    from typing import Self

    import torch
    from torch import nn


class Lookup(Encoder):
    """A representation of its own for each row: nothing to learn but the coordinates themselves.

    ::

        z_i = theta_i

    New rows are placed by optimising them against the frozen training rows.

    Examples
    --------
    >>> from sklearn_icon.encoders import Lookup
    >>> Lookup()
    Lookup()
    """

    parametric = False
    draws = False

    def build(self, n_inputs: int, n_outputs: int, *, seed: int = 0, dtype: torch.dtype | None = None) -> nn.Module:
        """Raise: a lookup has no module."""
        raise TypeError("Lookup() holds one representation per row and has no module to build.")


class Linear(Encoder):
    """A linear map.

    ::

        z = W x + b,     or z = Q x with Q Q^T = I where `orthonormal`

    Parameters
    ----------
    orthonormal : bool, default=False
        Whether the rows of the map are kept orthonormal, as in PCA. There is no b then. Of other maps, rows of a fit
        that are farther from the rest than 100,000 times its spread, as fill values are, count as being there.

    Raises
    ------
    ValueError
        At `build`: more outputs than inputs, where `orthonormal`.

    Examples
    --------
    >>> from sklearn_icon.encoders import Linear
    >>> Linear().build(4, 2)
    Linear(in_features=4, out_features=2, bias=True)
    """

    flat = True
    draws = False
    _parameter_constraints = {"orthonormal": ["boolean"]}

    def __init__(self, orthonormal: bool = False) -> None:
        self.orthonormal = orthonormal

    @answer
    def is_linear(self) -> bool:
        """Whether a subclass builds no other module."""
        return type(self).build is Linear.build

    def build(self, n_inputs: int, n_outputs: int, *, seed: int = 0, dtype: torch.dtype | None = None) -> nn.Module:
        """Make the torch module; see `Encoder.build`."""
        import torch
        from torch.nn.utils import parametrizations

        from ._layers import Linear

        if self.orthonormal and n_outputs > n_inputs:
            raise ValueError(
                f"Linear(orthonormal=True) cannot map {n_inputs} features to {n_outputs} components; "
                f"ask for at most {n_inputs}."
            )
        if not self.orthonormal:
            return Linear(n_inputs, n_outputs, torch.Generator().manual_seed(seed), dtype=dtype)
        with seeded(seed):  # what the parametrization draws
            return parametrizations.orthogonal(torch.nn.Linear(n_inputs, n_outputs, bias=False, dtype=dtype))


class MLP(Encoder):
    """A multi-layer perceptron with ReLU units.

    ::

        z = W_L relu( ... relu(W_1 x + b_1) ... ) + b_L

    Parameters
    ----------
    hidden : tuple of int, default=(256,)
        Widths of the hidden layers.

    Examples
    --------
    >>> from sklearn_icon.encoders import MLP
    >>> len(MLP(hidden=(8, 8)).build(4, 2))
    5
    """

    flat = True
    draws = False
    _parameter_constraints = {"hidden": ["array-like"]}

    def __init__(self, hidden: Sequence[int] = (256,)) -> None:
        self.hidden = hidden

    def validate(self) -> Self:
        """Also check the widths; see `Spec.validate`."""
        super().validate()
        check_widths(self.hidden)
        return self

    def build(self, n_inputs: int, n_outputs: int, *, seed: int = 0, dtype: torch.dtype | None = None) -> nn.Module:
        """Make the torch module; see `Encoder.build`."""
        import torch
        from torch import nn

        from ._layers import Linear

        widths = [n_inputs, *self.hidden, n_outputs]
        layers: list[nn.Module] = []
        generator = torch.Generator().manual_seed(seed)
        for width_in, width_out in pairwise(widths):
            layers += [Linear(width_in, width_out, generator, dtype=dtype), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


class Module(Encoder):
    """Any torch module.

    ::

        z = factory(n_inputs, n_outputs)(x)

    The module is in training mode in `fit`, in evaluation mode afterwards. It reads items in the shape in which X holds
    them, scaled so that X has mean zero and unit spread; items that are more than ten times as long as that are
    shortened, so that a few extreme ones leave the others theirs. In rows of features a column of more than ten times
    the median spread of all columns is divided down to that.

    Parameters
    ----------
    factory : callable (n_inputs, n_outputs) -> torch.nn.Module
        Makes the module from the count of an item's numbers and of columns to return. A function of a module that can
        be imported, so that fitted estimators pickle.

    Raises
    ------
    ValueError
        In `fit`: `factory` is itself a module, or makes one that does not return `n_outputs` columns for each item.

    Examples
    --------
    >>> import torch
    >>> from sklearn_icon.encoders import Module
    >>> Module(torch.nn.Linear).build(4, 2)
    Linear(in_features=4, out_features=2, bias=True)
    """

    _parameter_constraints = {"factory": [callable]}

    def __init__(self, factory: Callable[[int, int], nn.Module]) -> None:
        self.factory = factory

    def validate(self) -> Self:
        """Also refuse a module in place of what makes one; see `Spec.validate`."""
        from torch import nn

        super().validate()
        if isinstance(self.factory, nn.Module):
            raise ValueError(
                f"factory={shorten(repr(self.factory), 60)} of Module is a module, not a function that makes one; pass "
                "factory=lambda n_inputs, n_outputs: net, or copy.deepcopy(net) in its place, to leave net as it is."
            )
        return self

    def build(self, n_inputs: int, n_outputs: int, *, seed: int = 0, dtype: torch.dtype | None = None) -> nn.Module:
        """Make the torch module; see `Encoder.build`."""
        with seeded(seed):
            return self.factory(n_inputs, n_outputs).to(dtype=dtype)


def check_widths(hidden: Sequence[int]) -> None:
    """Refuse widths of layers that are none."""
    for width in hidden:
        if not isinstance(width, Integral) or width < 1:
            raise ValueError(f"hidden must hold positive integers, got {hidden!r}.")
