"""Encoders: how rows become representations z = f(x).

A spec holds parameters. `spec.build(...)` makes a torch module with weights drawn from a seed of its own.
"""

from abc import abstractmethod
from contextlib import contextmanager
from itertools import pairwise
from numbers import Integral, Real
from textwrap import shorten

from sklearn.utils._param_validation import Interval

from ._spec import Spec

__all__ = ["MLP", "Linear", "Lookup", "Module", "MomentumKeys", "ProjectionHead"]


class Encoder(Spec):
    """A map from rows to representations."""

    parametric = True
    """Whether the map extends to new rows by itself."""
    flat = False
    """Whether the module reads rows of features, whatever the shape of an item."""
    momentum: float | None = None
    """Of an average of past weights that represents the keys; None where the encoder itself does."""
    only_contrasts = False
    """Whether this changes how rows are set against each other in training, and nothing else."""

    @abstractmethod
    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        """Make the torch module.

        Parameters
        ----------
        n_inputs, n_outputs : int
            Columns in and out.
        seed : int, default=0
            Seeds the initial weights. The global generator is left as it was.
        dtype : torch.dtype, default=None
            Precision of the weights; None for torch's default.

        Returns
        -------
        torch.nn.Module
        """

    def build_head(self, n_inputs, *, seed=0, dtype=None):
        """Make the module between representations and the loss, or None where there is none."""
        return None


class Lookup(Encoder):
    """A free representation for each row: nothing to learn but the places themselves.

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

    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        """Raise: a lookup has no module."""
        raise TypeError("Lookup() holds one representation per row and has no module to build.")


class Linear(Encoder):
    """A linear map.

    ::

        z = W x + b,     or z = Q x with Q Q^T = I where `orthonormal`

    Parameters
    ----------
    orthonormal : bool, default=False
        Whether the rows of the map are kept orthonormal, as in PCA. There is no b then.

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
    _parameter_constraints = {"orthonormal": ["boolean"]}

    def __init__(self, orthonormal=False):
        self.orthonormal = orthonormal

    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        """Make the torch module; see `Encoder.build`."""
        import torch
        from torch.nn.utils import parametrizations

        if self.orthonormal and n_outputs > n_inputs:
            raise ValueError(
                f"Linear(orthonormal=True) cannot map {n_inputs} features to {n_outputs} components; "
                f"ask for at most {n_inputs}."
            )
        with _seeded(seed):
            module = torch.nn.Linear(n_inputs, n_outputs, bias=not self.orthonormal, dtype=dtype)
            return parametrizations.orthogonal(module) if self.orthonormal else module


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
    _parameter_constraints = {"hidden": ["array-like"]}

    def __init__(self, hidden=(256,)):
        self.hidden = hidden

    def validate(self):
        """Also check the widths; see `Spec.validate`."""
        super().validate()
        _check_widths(self.hidden)
        return self

    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        """Make the torch module; see `Encoder.build`."""
        from torch import nn

        widths = [n_inputs, *self.hidden, n_outputs]
        layers: list[nn.Module] = []
        with _seeded(seed):
            for width_in, width_out in pairwise(widths):
                layers += [nn.Linear(width_in, width_out, dtype=dtype), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


class Module(Encoder):
    """Any torch module.

    ::

        z = factory(n_inputs, n_outputs)(x)

    The module is in training mode in `fit`, in evaluation mode afterwards. It reads items in the shape in which X holds
    them, scaled so that X has mean zero and unit spread.

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

    def __init__(self, factory):
        self.factory = factory

    def validate(self):
        """Also refuse a module in place of what makes one; see `Spec.validate`."""
        from torch import nn

        super().validate()
        if isinstance(self.factory, nn.Module):
            raise ValueError(
                f"factory={shorten(repr(self.factory), 60)} of Module is a module, not a function that makes one; pass "
                "factory=lambda n_inputs, n_outputs: net, or copy.deepcopy(net) in its place, to leave net as it is."
            )
        return self

    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        """Make the torch module; see `Encoder.build`."""
        with _seeded(seed):
            return self.factory(n_inputs, n_outputs).to(dtype=dtype)


class _Contrast(Encoder):
    """An encoder that is trained another way: its representations are those of `base`."""

    only_contrasts = True
    _parameter_constraints = {"base": [Encoder]}

    def validate(self):
        """Also refuse a base that is no map, or has the same part already; see `Spec.validate`."""
        super().validate()
        inner = self.base
        while isinstance(inner, _Contrast) and not isinstance(inner, type(self)):
            inner = inner.base
        if isinstance(inner, type(self)) or not inner.parametric:
            raise ValueError(f"base of {type(self).__name__} must be an encoder with weights, got {self.base}.")
        return self

    @property
    def flat(self):
        """As the base."""
        return self.base.flat

    @property
    def orthonormal(self):
        """As the base."""
        return getattr(self.base, "orthonormal", False)

    @property
    def momentum(self):
        """As the base."""
        return self.base.momentum

    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        """Make the torch module of the base; see `Encoder.build`."""
        return self.base.build(n_inputs, n_outputs, seed=seed, dtype=dtype)

    def build_head(self, n_inputs, *, seed=0, dtype=None):
        """As the base; see `Encoder.build_head`."""
        return self.base.build_head(n_inputs, seed=seed, dtype=dtype)


class ProjectionHead(_Contrast):
    """An encoder whose loss sees its representations through a perceptron, which is dropped after the fit.

    ::

        z = f(x) is what `transform` returns,     g(f(x)) is what is contrasted

    Parameters
    ----------
    base : Encoder
        f.
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

    def __init__(self, base, hidden=(256,), n_outputs=64):
        self.base = base
        self.hidden = hidden
        self.n_outputs = n_outputs

    def validate(self):
        """Also check the widths; see `Spec.validate`."""
        super().validate()
        _check_widths(self.hidden)
        return self

    def build_head(self, n_inputs, *, seed=0, dtype=None):
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
        f, with its head if it has one.
    momentum : float in [0, 1), default=0.99
        Share of the average that a step leaves.

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
    momentum = None  # a parameter here

    def __init__(self, base, momentum=0.99):
        self.base = base
        self.momentum = momentum


def _check_widths(hidden):
    """Refuse widths of layers that are none."""
    for width in hidden:
        if not isinstance(width, Integral) or width < 1:
            raise ValueError(f"hidden must hold positive integers, got {hidden!r}.")


@contextmanager
def _seeded(seed, device=None):
    """Give torch's generator, and that of a CUDA device, this seed inside, and the state that it had before outside."""
    import torch

    on_cuda = device is not None and torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


NAMES = {"lookup": Lookup, "linear": Linear, "mlp": MLP}
