"""Encoders that are trained another way: behind a head, or against keys of their past."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING

from sklearn.utils._param_validation import Interval

from .._core.spec import answer, of_base
from ._base import Encoder
from ._maps import MLP, check_widths

if TYPE_CHECKING:
    from typing import Self

    import torch
    from torch import nn


class _Contrast(Encoder):
    """An encoder that is trained another way: its representations are those of `base`."""

    only_contrasts = True
    _parameter_constraints = {"base": [Encoder]}

    @answer
    def parts(self) -> tuple[type[Encoder], ...]:
        """What changes the training, this first; see `Encoder.parts`."""
        return (type(self), *self.base.parts)

    def validate(self) -> Self:
        """Also refuse a base that is no map, or has the same part already; see `Spec.validate`."""
        super().validate()
        if type(self) in self.base.parts or not self.base.plain().parametric:
            raise ValueError(f"base of {type(self).__name__} must be an encoder with weights, got {self.base}.")
        return self

    flat, draws, orthonormal, momentum = map(of_base, ("flat", "draws", "orthonormal", "momentum"))
    plain, build, build_head = map(of_base, ("plain", "build", "build_head"))


class ProjectionHead(_Contrast):
    """An encoder whose loss sees its representations through a perceptron, which is dropped after the fit.

    ::

        z = f(x) is what `transform` returns,     g(f(x)) is what is contrasted

    Parameters
    ----------
    base : Encoder
        The encoder f.
    hidden : tuple of int, default=(256,)
        Widths of the hidden layers of g, of ReLU units.
    n_outputs : int, default=64
        Columns of g(f(x)).

    References
    ----------
    Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, section 4.2.

    Examples
    --------
    >>> from sklearn_icon.encoders import MLP, ProjectionHead
    >>> ProjectionHead(MLP(), hidden=(), n_outputs=8).build_head(16)[-1]
    Linear(in_features=16, out_features=8, bias=True)
    """

    _parameter_constraints = _Contrast._parameter_constraints | {
        "hidden": ["array-like"],
        "n_outputs": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, base: Encoder, hidden: Sequence[int] = (256,), n_outputs: int = 64) -> None:
        self.base = base
        self.hidden = hidden
        self.n_outputs = n_outputs

    def validate(self) -> Self:
        """Also check the widths; see `Spec.validate`."""
        super().validate()
        check_widths(self.hidden)
        return self

    def build_head(self, n_inputs: int, *, seed: int = 0, dtype: torch.dtype | None = None) -> nn.Module | None:
        """Make g; see `Encoder.build_head`."""
        return MLP(self.hidden).build(n_inputs, self.n_outputs, seed=seed, dtype=dtype)


class MomentumKeys(_Contrast):
    """An encoder whose keys are represented by an average of its past, without gradient.

    ::

        xi <- momentum * xi + (1 - momentum) * theta     after every step
        q(j|i) = k(f_theta(x_i), f_xi(x_j)) / sum_b k(f_theta(x_i), f_xi(x_b))

    Where p draws views, the keys of a view are the views of the other draws, that of its own item among them: with two
    draws and a cosine q this is the symmetrised cross-entropy of MoCo v3.

    Parameters
    ----------
    base : Encoder
        The encoder f, with its head if it has one.
    momentum : float in [0, 1), default=0.99
        Fraction of the average that a step leaves.

    References
    ----------
    Chen, Xie and He, "An empirical study of training self-supervised vision transformers", ICCV 2021, algorithm 1,
    without its predictor.

    Examples
    --------
    >>> from sklearn_icon.encoders import MLP, MomentumKeys, ProjectionHead
    >>> MomentumKeys(ProjectionHead(MLP()), momentum=0.9).validate().momentum
    0.9
    """

    _parameter_constraints = _Contrast._parameter_constraints | {"momentum": [Interval(Real, 0, 1, closed="left")]}
    momentum: float | None = None  # a parameter here

    def __init__(self, base: Encoder, momentum: float = 0.99) -> None:
        self.base = base
        self.momentum = momentum
