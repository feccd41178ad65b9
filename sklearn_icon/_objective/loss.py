"""D(p || q) before p is known: q, the divergence and the normalisation."""

from typing import Any, NamedTuple

from .._core.conditional import Conditional
from .._core.group import group
from .._optim.train import Run
from ..learned import Learned
from .objective import Objective
from .shared import SharedObjective


class Loss(NamedTuple):
    """What is minimised, of any p."""

    learned: Learned
    divergence: Any = "kl"
    normalization: str = "conditional"

    def over(self, p: Conditional, run: Run, **more: Any) -> Objective:
        """D(p || q) as a function of representations, in the precision and on the device of a run."""
        if group().several and self.normalization == "joint":
            return SharedObjective(p, self.learned, run.dtype, run.device, more.get("n_components"), more["potential"])
        how: dict[str, Any] = {"divergence": self.divergence, "normalization": self.normalization}
        return Objective(p, self.learned, **how, **run.like, **more)
