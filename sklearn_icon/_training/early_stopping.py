"""Early stopping: a loss on held-out rows says when to stop, and which parameters to keep."""

import numpy as np
import torch


class EarlyStopping:
    """Follows a loss on held-out rows; a callback of the solver.

    Parameters
    ----------
    loss : callable () -> tensor
        The loss on held-out rows at the present parameters.
    params : list of tensors
        Parameters, and what changes with them: kept at their best, and put back by `restore`.
    every : int
        Steps between two looks.
    patience : int
        Looks without a lower loss after which to stop.
    on_step : callable (n_iter, loss) or None
        Another callback, called first.

    Attributes
    ----------
    losses : list of float
        At each look.
    """

    def __init__(self, loss, params, every, patience, on_step):
        self.loss, self.params, self.every, self.patience, self.on_step = loss, params, every, patience, on_step
        self.losses: list[float] = []
        self._kept = self._copies()

    def _copies(self):
        return [param.detach().clone() for param in self.params]

    def __call__(self, n_iter, loss):
        """Look, if it is time; True to stop."""
        stop = self.on_step is not None and self.on_step(n_iter, loss)
        if n_iter % self.every:
            return stop
        with torch.no_grad():
            self.losses.append(float(self.loss()))
        best = int(np.argmin(self.losses))
        if best == len(self.losses) - 1:
            self._kept = self._copies()
        return stop or len(self.losses) - 1 - best >= self.patience

    def restore(self):
        """Put the best parameters back."""
        with torch.no_grad():
            for param, kept in zip(self.params, self._kept, strict=True):
                param.copy_(kept)
