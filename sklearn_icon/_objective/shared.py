"""KL of a map whose rows are those of several ranks: each has the whole map, and its own rows' edges.

    L = sum_ij p_ij log p_ij - sum_ij p_ij log k_ij + log sum_{i != j} k_ij,     p_ij = (p(j|i) + p(i|j)) / 2n

Edges go to the ranks of both of their ends once, so that each knows its rows of the joint p; of two ranks that know a
pair one sums over it. The repulsion of its rows is each rank's own part: from all pairs, from keys that all draw alike,
from a tree; or charges are spread to a grid by each rank, the grids are added, and each reads the forces on its rows. A
step sends the gradient once, and the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from scipy.special import xlogy
from sklearn.utils import gen_batches

from .._core import journal
from .._core.conditional import Conditional, no_positives
from .._core.group import group
from ..learned import Learned
from .attraction import symmetric_edges
from .grid import FLOOR
from .normalizers import joint_normalizer_of_rows
from .objective import EXACT_ROWS, Objective, without_tiny

if TYPE_CHECKING:
    from torch import Tensor


_EDGES_AT_ONCE = 1 << 18


class SharedObjective(Objective):
    """`Objective` of the joint form under plain KL, over the rows of all ranks.

    `gradient` is of all rows and the same on all ranks; `per_row` is of this rank's.
    """

    def __init__(
        self,
        p: Conditional,
        learned: Learned,
        run_dtype: torch.dtype,
        device: Any,
        n_components: int | None,
        potential: Callable[[Any], Any] | None,
    ) -> None:
        from .many_edges import summed_here

        ranks = group()
        self.learned: Any = learned.rounded()
        self.dtype, self.device = run_dtype, device
        self.joint = self.is_plain_kl = self.smooth = self.exclude_self = True
        self.first, (self.n_rows, self.n_keys) = p.first, p.shape
        self.own = slice(self.first, self.first + self.n_rows)
        self.uniform, self.n_choices, self.n_mixed = 0.0, self.n_keys - 1, self.n_keys * (self.n_keys - 1)
        self.weights, self.mass = joint_rows(p), np.ones(self.n_rows)
        self.constant = ranks.total(self._negentropy())
        tiny = float(np.finfo(np.float32).tiny)
        summed = without_tiny(summed_here(self.weights, self.first), tiny)
        self.edges = symmetric_edges(summed, self.learned, run_dtype, device, n_components)
        self.grid = potential(self.learned) if potential else None
        self._rough_grid = self.grid.rough() if self.grid else None
        self._pushed: Any = None
        self._pushed_at: Any = None  # what that is the repulsion of, where a journal keeps it; see `_renew`
        self.drawn = None

    def remember(self) -> None:
        """See `Objective.remember`; the repulsion is of the rows of this rank, the map that it is of is of all."""

        def put(state: list) -> None:
            self._pushed = self._pushed_at = None
            if len(state) == 1:  # one process keeps the repulsion itself
                ((z, rough, drawn),) = state
                potential: Any = self.grid
                if drawn is not None:
                    potential.rng.set_state(drawn)
                self._renew(torch.as_tensor(z, dtype=self.dtype, device=self.device), rough)

        def get() -> list:
            at = self._pushed_at
            return [] if at is None else [[*journal.arrays_of(at[:1]), *at[1:]]]

        journal.remember(get, put)

    def _renew(self, z: Tensor, rough: bool) -> None:
        """Let the repulsion be that of a map; a journal keeps the map, whether roughly, and what keys are drawn by."""
        if journal.current() is not None:
            potential: Any = self.grid
            rng = None if potential is None else potential.rng
            self._pushed_at = z.clone(), rough, None if rng is None else rng.get_state(legacy=False)
        self._pushed = self._push(z, self._rough_grid if rough else self.grid)

    def _negentropy(self) -> float:
        """See `Objective._negentropy`."""
        data = self.weights.data
        parts = (data[part].astype(np.float64) for part in gen_batches(len(data), _EDGES_AT_ONCE))
        return float(sum(xlogy(p, p).sum() for p in parts))

    def gradient(
        self,
        z: Tensor,
        exaggeration: float = 1.0,
        with_value: bool = True,
        refresh: bool = True,
        rough: bool = False,
    ) -> tuple[float | None, Tensor]:
        """See `Objective.gradient`."""
        ranks = group()
        value, pull = self.edges.sum_and_gradient(self.learned, z.detach(), with_value, rough)
        if refresh or self._pushed is None:
            self._renew(z.detach(), rough and not with_value)
        log_z, rows, push = self._pushed
        gradient = pull * -exaggeration
        gradient[rows] += push
        gradient = ranks.total(gradient)
        return (log_z - ranks.total(value) + self.constant if with_value else None), gradient

    def _push(self, z: Tensor, potential: Any) -> tuple[float, Any, Tensor]:
        """(log-normaliser, rows that are this rank's part, its gradient there)."""
        if potential is None:
            log_z, push = joint_normalizer_of_rows(self.learned, z, self.own, self.edges.team)
            return log_z, self.own, push
        summed, rows, gradient = potential.at(z, self.own)
        total = max(summed - len(z), FLOOR * len(z))
        return log(total), rows, gradient * (2 / total)

    def refine(self, n_keys: int, random_state: Any) -> None:
        """See `Objective.refine`."""
        if self.n_keys <= EXACT_ROWS:
            self.dtype, self.grid = torch.float64, None
        elif self.grid is not None:
            self.grid = self.grid.fine()

    def per_row(self, z: Tensor, keys: Tensor | None = None, key_degrees: Tensor | None = None) -> Tensor:
        """What each row of this rank adds to L."""
        log_z = self._push(z, self.grid)[0]

        def of_edges(rows: Tensor, cols: Tensor, p: Tensor) -> Tensor:
            ends = z.index_select(0, rows + self.first), z.index_select(0, cols)
            return self.term(p, self.learned.paired(*ends) - log_z).double()

        return self._with_edges(z.new_zeros(self.n_rows, dtype=torch.float64), of_edges)

    @staticmethod
    def term(p: Tensor, log_q: Tensor) -> Tensor:
        """d(p, q) of KL."""
        from .divergences import kl

        return kl(p, log_q)


def joint_rows(p: Conditional) -> sparse.csr_array:
    """The joint p of the rows of this rank and the rows of all, by one exchange of edges."""
    from .many_edges import edges_to, sum_with_turned, turned_rows

    ranks, (n_rows, n) = group(), p.shape
    n_counted = ranks.total(float(p.has_positives.sum()))
    if not n_counted:
        raise no_positives()
    firsts = np.append(ranks.objects(p.first), n)
    nothing = edges_to(p.weights, 0, 0)
    parts = [
        nothing if rank == ranks.rank else edges_to(p.weights, firsts[rank], firsts[rank + 1])
        for rank in range(ranks.size)
    ]
    received = ranks.swapped(parts)
    del parts
    received[ranks.rank] = edges_to(p.weights, p.first, p.first + n_rows)
    turned = turned_rows(received, firsts[:-1], p.shape)
    return sum_with_turned(p.weights, turned, np.full(n, 0.5 / n_counted), np.dtype(np.float32))
