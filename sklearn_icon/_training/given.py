"""What is handed to a training: labelled rows, or rows of two modalities."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._core.conditional import Conditional

if TYPE_CHECKING:
    from .._objective.loss import Loss
    from .._objective.objective import Objective
    from .._optim.train import Run


class Labelled(NamedTuple):
    """Rows with their p over classes and their weights."""

    p: Conditional
    X: Any
    weight: np.ndarray

    def objective(self, loss: Loss, run: Run) -> Objective:
        """D over these rows, a function of representations and prototypes."""
        return loss.over(self.p, run, sample_weight=self.weight)

    def take(self, rows: np.ndarray) -> Labelled:
        """Some of the rows."""
        return Labelled(self.p.take(rows), self.X[rows], self.weight[rows])


class Modalities(NamedTuple):
    """Rows of two modalities, of which row i of one is the partner of row i of the other."""

    X: Any
    y: Any

    @property
    def n_rows(self) -> int:
        """Of either."""
        return self.X.shape[0]

    @property
    def most_columns(self) -> int:
        """Of the wider one, items of several axes as rows."""
        return max(prod(side.shape[1:]) for side in self)
