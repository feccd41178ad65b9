"""Specs of p made from another: debiased, or spread by walks."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from sklearn.utils._param_validation import Interval

from .._core.conditional import Conditional
from .._core.spec import answer, of_base
from .._core.types import Jobs, Rows, Seed
from ._base import Wrapper

if TYPE_CHECKING:
    from ._base import Supervisory


class UniformMixture(Wrapper):
    """Debiasing: a fraction of every row spread evenly over its keys.

    ::

        p~(j|i) = (1 - alpha) p(j|i) + alpha / N,     N the number of keys of a row

    On `DataLabel` this is label smoothing.

    Parameters
    ----------
    base : Supervisory
        The spec of p.
    alpha : float in [0, 1]
        The uniform fraction.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, section 3.3.

    Examples
    --------
    >>> from sklearn_icon.supervisory import DataLabel, UniformMixture
    >>> UniformMixture(DataLabel(), 0.1).conditional([[0.0], [1.0]], [0, 1]).toarray()
    array([[0.95, 0.05],
           [0.05, 0.95]])
    """

    _parameter_constraints = Wrapper._parameter_constraints | {"alpha": [Interval(Real, 0, 1, closed="both")]}

    def __init__(self, base: Supervisory, alpha: float) -> None:
        self.base = base
        self.alpha = alpha

    @answer
    def mixture(self) -> float:
        """Total uniform mass, nested mixtures included."""
        return 1 - (1 - self.alpha) * (1 - self.base.mixture)

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        return self.base.conditional(X, y, n_jobs=n_jobs, random_state=random_state).mix(self.alpha)

    batch_is_whole, of_batch, partners_of_batch = map(  # the uniform mass comes apart
        of_base, ("batch_is_whole", "of_batch", "partners_of_batch")
    )


class RandomWalk(Wrapper):
    """Neighbour propagation: who is reached by short walks along p.

    ::

        P~ ~ P + P^2 + ... + P^n_steps     (weighted), or
        P~ uniform over all rows reached within n_steps     (binary),

    rows normalised after the removal of the self-mass where p excludes it.

    Parameters
    ----------
    base : Supervisory
        The spec of p; its keys are the rows.
    n_steps : int
        The longest walk. One step is the base itself.
    binary : bool, default=False
        Whether every row reached counts the same.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, section 3.3 (neighbor propagation).

    Examples
    --------
    >>> from sklearn_icon.supervisory import RandomWalk, UniformKNN
    >>> p = RandomWalk(UniformKNN(n_neighbors=1), n_steps=2)
    >>> p.conditional([[0.0], [1.0], [3.0]]).toarray()[2].tolist()
    [0.5, 0.5, 0.0]
    """

    _parameter_constraints = Wrapper._parameter_constraints | {
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "binary": ["boolean"],
    }

    def __init__(self, base: Supervisory, n_steps: int, binary: bool = False) -> None:
        self.base = base
        self.n_steps = n_steps
        self.binary = binary

    walks = True

    def step(self) -> tuple[Supervisory, int]:
        """Walks are drawn step by step, unless all they reach counts alike; see `Supervisory.step`."""
        return (self.base, self.n_steps) if self.over_rows and not self.binary else (self, 1)

    def check_batch(self) -> None:
        """Also that there is where to walk; see `Supervisory.check_batch`."""
        super().check_batch()
        self._check_keys()

    def _check_keys(self) -> None:
        if not self.over_rows:
            name = type(self.plain()).__name__
            raise ValueError(f"RandomWalk() needs keys that are rows, but {name}() has other keys.")

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        p = self.base.conditional(X, y, n_jobs=n_jobs, random_state=random_state)
        self._check_keys()
        power = total = p.weights
        for _ in range(self.n_steps - 1):
            power = power @ p.weights
            total = total + power
        if self.binary:
            total = total.sign()
        how: dict[str, Any] = {"uniform": p.uniform, "exclude_self": p.exclude_self, "recall": p.recall}
        return replace(Conditional.from_weights(total, **how), neighbors=p.neighbors)
