"""What an encoder is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from .._core.spec import Spec

if TYPE_CHECKING:
    import torch
    from torch import nn


class Encoder(Spec):
    """A map from rows to representations.

    Examples
    --------
    >>> from sklearn_icon import ICONEmbedding
    >>> from sklearn_icon.encoders import Encoder
    >>> from sklearn.datasets import load_iris
    >>> class Scaled(Encoder):
    ...     def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
    ...         import torch
    ...         return torch.nn.Linear(n_inputs, n_outputs, bias=False, dtype=dtype)
    >>> X = load_iris().data
    >>> ICONEmbedding(encoder=Scaled(), max_iter=5, random_state=0).fit(X).transform(X).shape
    (150, 2)
    """

    parametric = True
    """Whether the map extends to new rows by itself."""
    flat = False
    """Whether the module reads rows of features, whatever the shape of an item."""
    is_linear = False
    """Whether the module is z = W x + b, whose loss is smooth in W and b."""
    orthonormal = False
    """Whether the rows of W are orthonormal, so that the module keeps distances as they are in X."""
    momentum: float | None = None
    """Of an average of past weights that represents the keys; None where the encoder itself does."""
    draws = True
    """Whether its module may draw random numbers from torch's global generator, as dropout does."""
    only_contrasts = False
    """Whether this changes how rows are set against each other in training, and nothing else."""

    parts: tuple[type[Encoder], ...] = ()
    """The classes of what changes how it is trained, the outermost first."""

    def plain(self) -> Encoder:
        """The encoder without what changes its training."""
        return self

    @abstractmethod
    def build(self, n_inputs: int, n_outputs: int, *, seed: int = 0, dtype: torch.dtype | None = None) -> nn.Module:
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

    def build_head(self, n_inputs: int, *, seed: int = 0, dtype: torch.dtype | None = None) -> nn.Module | None:
        """Make the module between representations and the loss, or None where there is none."""
        return None
