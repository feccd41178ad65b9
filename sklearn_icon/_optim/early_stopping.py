"""Early stopping: a loss on held-out rows says when to stop, and which parameters to keep."""

from collections.abc import Callable

import numpy as np
import torch

from .._core import journal


class EarlyStopping:
    """Follows a loss on held-out rows.

    Attributes
    ----------
    loss : callable () -> tensor or number
        The loss on held-out rows at the present parameters.
    params : list of tensors
        Parameters, and what changes with them: kept at their best, and put back by `restore`.
    every : int
        Steps between two looks.
    patience : int
        Looks without a lower loss after which to stop.
    losses : list of float
        At each look.
    """

    def __init__(self, loss: Callable[[], torch.Tensor | float], params: list[torch.Tensor], every: int, patience: int):
        self.loss, self.params, self.every, self.patience = loss, params, every, patience
        self.losses: list[float] = []
        self._kept = self._copies()

    def _copies(self) -> list[torch.Tensor]:
        return [param.detach().clone() for param in self.params]

    def remember(self) -> None:
        """Let a journal keep what changes here."""

        def put(state: list) -> None:
            self.losses[:], kept = state
            journal.copy_into(self._kept, kept)

        journal.remember(lambda: [list(self.losses), journal.arrays_of(self._kept)], put, told=True)

    def __call__(self, n_iter: int, loss: float) -> bool:
        """Look, if it is time; True to stop."""
        if n_iter % self.every:
            return False
        with torch.no_grad():
            self.losses.append(float(self.loss()))
        best = int(np.argmin(self.losses))
        if best == len(self.losses) - 1:
            self._kept = self._copies()
        return len(self.losses) - 1 - best >= self.patience

    def restore(self) -> None:
        """Put the best parameters back."""
        with torch.no_grad():
            for param, kept in zip(self.params, self._kept, strict=True):
                param.copy_(kept)
