"""KL of a map whose rows are those of several ranks: each has the whole map, and its own rows' edges.

    L = sum_ij p_ij log p_ij - sum_ij p_ij log k_ij + log sum_{i != j} k_ij,     p_ij = (p(j|i) + p(i|j)) / 2n

Edges go to the ranks of both of their ends once, so that each knows its rows of the joint p; of two ranks that know a
pair one sums over it. Charges are spread to a grid by each rank, the grids are added, and each reads the forces on its
rows. A step sends the grid and the gradient, once each.
"""

from __future__ import annotations

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
from .._core.types import Array
from ..learned import Learned
from .attraction import symmetric_edges
from .grid import FLOOR, GridPotential
from .normalizers import joint_normalizer
from .objective import EXACT_ROWS, Objective, without_tiny

if TYPE_CHECKING:
    from torch import Tensor


_EDGES_AT_ONCE = 1 << 18


class SharedObjective(Objective):
    """`Objective` of the joint form under plain KL, from a grid, over the rows of all ranks.

    `gradient` is of all rows and the same on all ranks; `per_row` is of this rank's.
    """

    def __init__(
        self, p: Conditional, learned: Learned, run_dtype: torch.dtype, device: Any, n_components: int | None
    ) -> None:
        ranks = group()
        self.learned: Any = learned.rounded()
        self.dtype, self.device = run_dtype, device
        self.joint = self.is_plain_kl = self.smooth = self.exclude_self = True
        self.first, (self.n_rows, self.n_keys) = p.first, p.shape
        self.own = slice(self.first, self.first + self.n_rows)
        self.uniform, self.n_choices, self.n_mixed = 0.0, self.n_keys - 1, self.n_keys * (self.n_keys - 1)
        self.weights, self.mass = joint_rows(p), np.ones(self.n_rows)
        self.constant = ranks.total(self._negentropy())
        summed = _summed_here(self.weights, self.first)
        self.edges = symmetric_edges(summed, self.learned, run_dtype, device, n_components)
        self.grid = GridPotential(self.learned)
        self._rough_grid = self.grid.rough()
        self._pushed: Any = None
        self._pushed_at: Any = None  # (the map whose repulsion that is, whether roughly), where a journal keeps it
        self.drawn = None

    def remember(self) -> None:
        """See `Objective.remember`; the repulsion is of the rows of this rank, the map that it is of is of all."""

        def put(state: list) -> None:
            self._pushed = self._pushed_at = None
            if len(state) == 1:  # one process keeps the repulsion itself
                ((z, rough),) = state
                self._renew(torch.as_tensor(z, dtype=self.dtype, device=self.device), rough)

        def get() -> list:
            at = self._pushed_at
            return [] if at is None else [[*journal.arrays_of(at[:1]), at[1]]]

        journal.remember(get, put)

    def _renew(self, z: Tensor, rough: bool) -> None:
        """Let the repulsion be that of a map."""
        self._pushed = self._push(z, self._rough_grid if rough else self.grid)
        self._pushed_at = None if journal.current() is None else (z.clone(), rough)

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
        log_z, push = self._pushed
        gradient = pull * -exaggeration
        gradient[self.own] += push
        gradient = ranks.total(gradient)
        return (log_z - ranks.total(value) + self.constant if with_value else None), gradient

    def _push(self, z: Tensor, grid: Any) -> tuple[float, Tensor]:
        """(log-normaliser, its gradient at this rank's rows), from the grid of all ranks."""
        place = grid.place(z, self.own)
        charges = group().total(place.spread(torch.ones_like(z[self.own, 0])))
        field = grid.convolve(place, charges.clone())
        summed = torch.sum(charges.double() * field.double())  # what all points read: they are spread as they read
        total = max(float(summed) - len(z), FLOOR * len(z))
        return log(total), place.read(field)[1] * (2 / total)

    def refine(self, n_keys: int, random_state: Any) -> None:
        """See `Objective.refine`."""
        if self.n_keys <= EXACT_ROWS:
            self.dtype, self.grid = torch.float64, None
        elif self.grid is not None:
            self.grid = self.grid.fine()

    def per_row(self, z: Tensor, keys: Tensor | None = None, key_degrees: Tensor | None = None) -> Tensor:
        """What each row of this rank adds to L."""
        log_z = joint_normalizer(self.learned, z)[0] if self.grid is None else self._push(z, self.grid)[0]
        costs = z.new_zeros(self.n_rows, dtype=torch.float64)
        for rows, cols, p in self._all_edges():
            ends = z.index_select(0, rows + self.first), z.index_select(0, cols)
            cost = self.term(p, self.learned.paired(*ends) - log_z)
            costs = costs.index_add(0, rows, cost.double())
        return costs

    @staticmethod
    def term(p: Tensor, log_q: Tensor) -> Tensor:
        """d(p, q) of KL."""
        from .divergences import kl

        return kl(p, log_q)


def joint_rows(p: Conditional) -> sparse.csr_array:
    """The joint p of the rows of this rank and the rows of all, by one exchange of edges."""
    ranks, (n_rows, n) = group(), p.shape
    mass = p.has_positives.astype(np.float64)
    n_counted = ranks.total(mass.sum())
    if not n_counted:
        raise no_positives()
    narrow = np.int32 if n <= np.iinfo(np.int32).max else np.int64
    halves = (p.weights.data / (2 * n_counted)).astype(np.float32)
    own = sparse.csr_array((halves, p.weights.indices, p.weights.indptr), shape=p.shape)
    firsts = np.append(ranks.objects(p.first), n)
    parts = [_turned(own, firsts[rank], firsts[rank + 1], rank == ranks.rank) for rank in range(ranks.size)]
    received = ranks.swapped(parts)
    del parts
    received[ranks.rank] = _turned(own, p.first, p.first + n_rows, False)
    for part, first in zip(received, firsts[:-1], strict=True):
        rows, keys = part["row"].astype(narrow), part["key"].astype(narrow) + first.astype(narrow)
        own = own + sparse.coo_array((part["weight"], (rows, keys)), shape=(n_rows, n)).tocsr()
    return sparse.csr_array(own)


def _turned(own: sparse.csr_array, first: int, last: int, empty: bool) -> Array:
    """The edges to the rows of a rank, as it numbers these, from this rank's; none where they stay here."""
    inside = np.flatnonzero((own.indices >= first) & (own.indices < last) & (not empty))
    part = np.empty(len(inside), dtype=[("row", np.int32), ("key", np.int32), ("weight", np.float32)])
    part["row"], part["weight"] = own.indices[inside] - first, own.data[inside]
    part["key"] = np.searchsorted(own.indptr, inside, side="right") - 1
    return part


def _summed_here(rows: sparse.csr_array, first: int) -> sparse.csr_array:
    """The symmetric matrix of pairs that this rank sums over: those of its rows, and every other one that it shares."""
    n_rows, n = rows.shape
    last = first + n_rows
    numbers = np.repeat(np.arange(first, last, dtype=rows.indices.dtype), np.diff(rows.indptr))
    outside = (rows.indices < first) | (rows.indices >= last)
    numbers_even = (numbers + rows.indices) % 2 == 0
    here = ~outside | ((numbers < rows.indices) == numbers_even)
    del numbers, numbers_even
    of_own = _only(rows, here)
    mirrored = _only(rows, here & outside).T.tocsr()  # of rows of others: none of this rank's
    before, after = mirrored.indptr[first], mirrored.indptr[last]
    counts = np.diff(mirrored.indptr)
    counts[first:last] = np.diff(of_own.indptr)
    columns = mirrored.indices + of_own.indices.dtype.type(first)
    indices = np.concatenate([columns[:before], of_own.indices, columns[after:]])
    data = np.concatenate([mirrored.data[:before], of_own.data, mirrored.data[after:]])
    indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    narrow = indices.dtype if len(indices) <= np.iinfo(indices.dtype).max else np.int64
    summed = sparse.csr_array((data, indices.astype(narrow, copy=False), indptr.astype(narrow)), shape=(n, n))
    return without_tiny(summed, float(np.finfo(np.float32).tiny))


def _only(rows: sparse.csr_array, chosen: Array) -> sparse.csr_array:
    """Some of the entries."""
    kind = rows.indptr.dtype
    indptr = np.concatenate([np.zeros(1, kind), np.cumsum(chosen, dtype=kind)])[rows.indptr]
    return sparse.csr_array((rows.data[chosen], rows.indices[chosen], indptr), shape=rows.shape)
