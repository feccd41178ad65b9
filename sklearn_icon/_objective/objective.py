"""The one objective: L = mean_i D( p(.|i) || q(.|i) ), with p from the data and q from representations.

With p(j|i) = (1 - a) w_ij + a / N on N keys, w sparse, and d(p, q) the divergence's elementwise term,

    D(p_i || q_i) = sum_{j: w_ij > 0} [ d(p_ij, q_ij) - d(a/N, q_ij) ]  +  sum_j d(a/N, q_ij).

Without a uniform mass (a = 0), d(0, q) = c q, and the last sum is c: only edges and normalisers are left. The joint
form puts p_ij = (p(j|i) + p(i|j)) / 2n over all pairs in place of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from scipy.special import xlogy

from .._core import journal
from .._core.conditional import no_positives
from .._core.pieces import at_once
from .._core.team import Team, in_threads, torch_threads
from .._core.types import Array
from .attraction import symmetric_edges
from .fused import can_fuse
from .grid import joint_grid_normalizer, row_grid_normalizers
from .normalizers import (
    dense_student_t_sums,
    joint_normalizer,
    known,
    log_normalizer,
    over_tiles,
    sampled_log_normalizer,
    self_mask,
)
from .ways import check_limit, divergence_of, has_rational_tail, infinite_where_zero, is_plain_kl

if TYPE_CHECKING:
    from torch import Tensor

    from .._core.conditional import Conditional
    from ..learned import DistanceKernel, Learned
    from .powers import PowerMap
    from .told import PairsTold

EXACT_ROWS = 10_000  # up to which the reported loss is summed over all pairs, in a second
_EDGES_AT_ONCE, _EDGES_OF_A_VALUE = 1 << 20, 1 << 17  # the second where no gradient is wanted: some 200 bytes each
_TIMES_ON_GPU = 32  # as many edges more: of a million rows in 1,000 parts losses take 1.5 s, in 30 they take 0.2
_MANY_EDGES = 1 << 22  # from so many on compiled loops add them; below, loading these takes more time
_PAIRS_GIVEN_P = 1 << 26  # of rows and keys, where the normaliser reads p: half a gigabyte a matrix
_PAIRS_AT_ONCE = 1 << 23  # of rows and keys, in one piece where each key is a key of every row
_SMALLEST_KERNEL = 1e-7  # that a weight is multiplied by, as a rule
_PAIRS_OF_AN_EDGE = 64  # that cost as much among many dimensions


class Objective:
    """D(p || q) as a differentiable function of representations.

    Rows of p without positives take no part. `divergence` is a key of `DIVERGENCES` or a spec; `normalization` says
    whether each row of q sums to one ("conditional"), or all pairs together ("joint"); `sample_weight` weighs the
    average over i. `background_keys` is how many of the last keys of a random batch stand for all in the sum over the
    uniform mass, None: all. `potential` makes of a kernel what sums it fast over all pairs, such as a `GridPotential`;
    see `ways`. `n_components` are the dimensions of the representations, where it helps to know them beforehand.

    `constant` is sum p log p, the part of KL that no representation changes; zero for limits, which are no
    distributions. A ValueError where divergence, normalisation and kernel do not go together, or no row has a positive.
    """

    edges: Any = None
    drawn: Any = None
    loops: PairsTold | PowerMap | None = None
    _pushed: Any = None

    def __init__(
        self,
        p: Conditional,
        learned: Learned,
        *,
        divergence: Any = "kl",
        normalization: str = "conditional",
        sample_weight: Any = None,
        background_keys: int | None = None,
        potential: Callable[[Any], Any] | None = None,
        n_components: int | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.learned: Any = learned.rounded()
        self.joint = normalization == "joint"
        self.dtype, self.device, self.background_keys = dtype, device, background_keys
        self.n_rows, self.n_keys = p.shape
        self.exclude_self = p.exclude_self and not learned.includes_self
        self.n_choices = self.n_keys - self.exclude_self
        self.n_mixed = self.n_choices * (self.n_rows if self.joint else 1)
        self.is_plain_kl = is_plain_kl(learned, divergence, p.uniform)
        comparison = divergence_of(learned, divergence)
        self.term, self.of_sum, self.smooth = comparison.term, comparison.of_sum, comparison.smooth
        self.at_zero = _checked_at_zero(p, learned, divergence, comparison, self)
        weights, self.mass = _averaged(p, sample_weight, self.joint)
        weights = self.weights = without_tiny(weights, torch.finfo(dtype).tiny)
        self.uniform, self.background = p.uniform, self._tensor(p.uniform / self.n_mixed)
        self.row_mass = self._tensor(self.mass)
        self.constant = 0.0 if learned.is_limit else self._negentropy()
        square = self.n_rows == self.n_keys
        self.key_degrees = self._tensor(p.degrees) if square and p.degrees is not None else None
        self.grid = potential(learned) if potential else None
        self._rough_grid = self.grid.rough() if self.grid else None
        self._dense_but_self = n_components is None and p.weights.nnz * _PAIRS_OF_AN_EDGE >= self.n_rows * self.n_keys
        if self.is_plain_kl and square and learned.euclidean and not (self.exclude_self and self._is_dense):
            symmetric = weights if self.joint else _symmetric(weights, self.mass)
            self.edges = symmetric_edges(symmetric, learned, dtype, device, n_components)

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=self.dtype, device=self.device)

    @property
    def team(self) -> Team | None:
        """The threads that sum over edges in compiled loops, where these do."""
        return None if self.edges is None else self.edges.team

    def remember(self) -> None:
        """Let a journal keep the repulsion that steps without `refresh` repeat."""

        def put(state: list) -> None:
            like: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
            # of ranks the map is known that it is of: it is found anew
            self._pushed = (state[0], torch.as_tensor(state[1], **like)) if len(state) == 2 else None

        if self.loops is not None:
            self.loops.remember()
        journal.remember(lambda: [self._pushed[0], *journal.arrays_of([self._pushed[1]])] if self._pushed else [], put)

    def relearn(self, learned: DistanceKernel) -> None:
        """Take another kernel of the same class."""
        self.learned = learned
        if self.grid is not None:
            self.grid = self.grid.of(learned)
            self._rough_grid = self.grid.rough()

    def refine(self, n_keys: int, random_state: np.random.RandomState | None) -> None:
        """Let normalisers be those that are reported: exact, on a finer grid, or from more keys, as n allows.

        Exact ones are of double precision: in single, distances of a wide map by a product miss 1e-3 of the loss.
        """
        few = self.n_rows <= EXACT_ROWS
        if few and torch.device(self.device).type != "mps":  # which has no double precision
            self.dtype = torch.float64
            for name in ("_few_edges", "_dense_weights", "_dense_p"):  # of the precision before
                vars(self).pop(name, None)
        if self.drawn is not None and not few:
            self.draw(n_keys, random_state)
            return
        self.drawn = None
        if self.grid is not None:
            self.grid = None if few else self.grid.fine()

    def draw(self, n_keys: int, random_state: Any) -> None:
        """Let normalisers be estimated from as many keys, drawn anew, where the keys are the other rows."""
        keys = random_state.choice(self.n_keys, min(n_keys, self.n_keys), replace=False)
        self.drawn = torch.as_tensor(np.sort(keys), device=self.device)

    def _negentropy(self) -> float:
        """sum p log p over all keys."""
        background, indptr = self.uniform / self.n_mixed, self.weights.indptr
        of_background = xlogy(background, background)

        def of_rows(part: tuple[int, int]) -> float:
            first, last = part
            p = self._p(slice(indptr[first], indptr[last]))
            costs = xlogy(p, p)
            costs -= of_background
            return np.repeat(self.mass[first:last], np.diff(indptr[first : last + 1])) @ costs

        total = sum(in_threads(of_rows, self._row_parts()))
        return float(total + self.mass.sum() * self.n_choices * of_background)

    def _row_parts(self, most: int = _EDGES_AT_ONCE) -> list[tuple[int, int]]:
        """(first, last) rows of parts that bound the memory of their edges."""
        cuts = np.searchsorted(self.weights.indptr, np.arange(0, self.weights.nnz, at_once(most)))
        return list(pairwise(np.unique([0, *cuts, self.n_rows])))

    def _edges_of(self, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, columns, p) of the edges of some rows."""
        indptr = self.weights.indptr
        part, counts = slice(indptr[first], indptr[last]), np.diff(indptr[first : last + 1])
        rows = torch.arange(first, last, device=self.device).repeat_interleave(self._integers(counts))
        return rows, self._integers(self.weights.indices[part]), self._tensor(self._p(part))

    def _integers(self, values: Array) -> Tensor:
        return torch.as_tensor(values, device=self.device).long()

    def _p(self, part: slice) -> Array:
        """p of some edges."""
        data = self.weights.data[part]
        return (1 - self.uniform) * data + self.uniform / self.n_mixed if self.uniform else data

    @cached_property
    def _few_edges(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._edges_of(0, self.n_rows)

    def _all_edges(self) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """All edges, in parts that bound the memory."""
        most = _EDGES_AT_ONCE if torch.is_grad_enabled() else _EDGES_OF_A_VALUE
        most *= _TIMES_ON_GPU if torch.device(self.device).type == "cuda" else 1
        if self.weights.nnz <= at_once(most):
            return [self._few_edges]
        return (self._edges_of(first, last) for first, last in self._row_parts(most))

    def __call__(self, z: Tensor, keys: Tensor | None = None, key_degrees: Tensor | None = None) -> Tensor:
        """L, a scalar tensor.

        Without keys these are the rows; without their degrees p knows them.
        """
        if not self.is_plain_kl:
            return self.per_row(z, keys, key_degrees).sum()
        edges, partition = self.terms(z, keys, key_degrees)
        return edges + partition + self.constant

    def terms(self, z: Tensor, keys: Tensor | None = None, key_degrees: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """KL less its constant as (cost of the edges, cost of the normaliser): attraction and repulsion.

        For plain KL only, without uniform mass on p or q.
        """
        if self.edges is not None and keys is None:
            if self._has_joint_sums:
                value, pull, log_z, push = self._joint_sums(z.detach(), True)
                return known(z, -value, -pull), known(z, log_z, push)
            value, pull = self.edges.sum_and_gradient(self.learned, z.detach())
            return known(z, -value, -pull), self._partition(self._row_log_z(z, z))
        z, keys = self._prepare(z, keys, key_degrees)
        if self._is_dense:
            log_k = self.learned.pairwise(z, keys)
            among_keys = log_k.masked_fill(self_mask(log_k, slice(0, None)), -torch.inf) if self.exclude_self else log_k
            partition = self.row_mass @ self.learned.log_partition(among_keys, self.n_choices)
            return -(self._dense_weights * log_k).sum(), partition
        row_log_z = self._row_log_z(z, keys)
        attraction = z.new_zeros(())
        for rows, cols, p in self._all_edges():
            ends = z.index_select(0, rows), keys.index_select(0, cols)  # its gradient, unlike z[rows]'s, is not random
            attraction = attraction - (self.row_mass[rows] * p) @ self.learned.paired(*ends)
        return attraction, self._partition(row_log_z)

    @property
    def _is_dense(self) -> bool:
        """Whether all pairs of rows and keys fit into one piece, and few are left out or p covers many."""
        all_or_most = self._dense_but_self or not self.exclude_self
        apart = not (self.joint or self.learned.normalized or self.learned.reads_p)
        return self.n_rows * self.n_keys <= at_once(_PAIRS_AT_ONCE) and all_or_most and apart and self.drawn is None

    @cached_property
    def _dense_weights(self) -> Tensor:
        """m_i p(j|i)."""
        return self._tensor(self.mass[:, None] * self.weights.toarray())

    def gradient(
        self,
        z: Tensor,
        exaggeration: float = 1.0,
        with_value: bool = True,
        refresh: bool = True,
        rough: bool = False,
    ) -> tuple[float | None, Tensor]:
        """(L or None, the gradient of `terms` with the attraction multiplied), for plain KL whose keys are the rows.

        The exaggeration is in the gradient only. L costs a logarithm an edge. Without `refresh` the repulsion may be
        that of the call before: it varies slowly. A `rough` gradient may be of the heaviest edges and a coarse grid,
        at half the time; L is not.
        """
        if self.loops is not None and self.loops.serves(exaggeration):
            return self.loops.gradient(z, exaggeration, with_value)
        if self.edges is None:
            attraction, repulsion = self.terms(z)
            (gradient,) = torch.autograd.grad(exaggeration * attraction + repulsion, z)
            return float((attraction + repulsion).detach()) + self.constant, gradient
        if not refresh and self._pushed is not None:
            value, pull = self.edges.sum_and_gradient(self.learned, z.detach(), with_value, rough)
            log_z, push = self._pushed
        elif self._has_joint_sums:
            value, pull, log_z, push = self._joint_sums(z.detach(), with_value, rough)
        else:
            value, pull = self.edges.sum_and_gradient(self.learned, z.detach(), with_value, rough)
            partition = self._partition(self._row_log_z(z, z))
            (push,), log_z = torch.autograd.grad(partition, z), float(partition.detach())
        self._pushed = (log_z, push)
        return log_z - value + self.constant if with_value else None, push - exaggeration * pull

    def _partition(self, row_log_z: Tensor) -> Tensor:
        """The cost of the normaliser, of all pairs or of each row."""
        return row_log_z.logsumexp(0) if self.joint else self.row_mass @ row_log_z

    @property
    def _has_joint_sums(self) -> bool:
        return self.joint and self.exclude_self and self.drawn is None

    def _joint_sums(self, z: Tensor, with_value: bool, rough: bool = False) -> tuple[Any, Tensor, float, Tensor]:
        """(sum over edges or None, its gradient, log-normaliser, its gradient)."""
        one_pass = self.edges.is_dense and has_rational_tail(self.learned) and not can_fuse(self.learned, z)
        if self.grid is None and one_pass:
            return dense_student_t_sums(self.learned, z, self.edges.weights, with_value)
        sums = self.edges.sum_and_gradient(self.learned, z, with_value, rough)
        if self.grid is None:
            return *sums, *joint_normalizer(self.learned, z, self.team)
        coarse = self._rough_grid if rough and not with_value else None
        return *sums, *joint_grid_normalizer(coarse or self.grid, z)

    def per_row(self, z: Tensor, keys: Tensor | None = None, key_degrees: Tensor | None = None) -> Tensor:
        """What each row adds to L, shape (n_rows,): the sum is L."""
        z, keys = self._prepare(z, keys, key_degrees)
        row_log_z = self._row_log_z(z, keys)
        log_norm = row_log_z.logsumexp(0).expand(self.n_rows) if self.joint else row_log_z
        costs = torch.zeros_like(row_log_z)
        if self.background > 0 and not self.learned.centred:
            costs = self._background_cost(z, keys, log_norm)
        elif self.at_zero:
            log_row_q = self.learned.finish(row_log_z - log_norm, self.n_mixed // self.n_choices)
            costs = self.at_zero * log_row_q.exp()

        def of_edges(rows: Tensor, cols: Tensor, p: Tensor) -> Tensor:
            ends = z.index_select(0, rows), keys.index_select(0, cols)
            log_q = self._log_q(self.learned.paired(*ends), log_norm.index_select(0, rows))
            at_edges = self.term(p, log_q)
            if self.background > 0:
                return at_edges - self.term(self.background, log_q)
            return at_edges - self.at_zero * log_q.exp() if self.at_zero else at_edges

        return self.row_mass * self.of_sum(self._with_edges(costs, of_edges))

    def _with_edges(self, costs: Tensor, of_edges: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Costs of rows with those of their edges; of many edges by threads, where no gradient is wanted.

        Torch has one thread in each of them: its own wait for each other at every operation, and spin meanwhile.
        """
        few = self.weights.nnz <= at_once(_EDGES_OF_A_VALUE)
        if few or torch.is_grad_enabled() or costs.device.type != "cpu":
            for rows, cols, p in self._all_edges():
                costs = costs.index_add(0, rows, of_edges(rows, cols, p))
            return costs

        def of_rows(part: tuple[int, int]) -> Tensor:
            first, last = part
            with torch.no_grad(), torch_threads(1):
                rows, cols, p = self._edges_of(first, last)
                return costs[first:last].index_add(0, rows - first, of_edges(rows, cols, p))

        return torch.cat(in_threads(of_rows, self._row_parts(_EDGES_OF_A_VALUE)))

    def _prepare(self, z: Tensor, keys: Tensor | None, key_degrees: Tensor | None) -> tuple[Tensor, Tensor]:
        degrees = self.key_degrees if key_degrees is None else key_degrees
        return self.learned.prepare(z, z if keys is None else keys, degrees)

    def _row_log_z(self, z: Tensor, keys: Tensor) -> Tensor:
        if self.learned.normalized:
            return z.new_zeros(len(z))
        if self.learned.reads_p:
            return self._row_log_z_given_p(z, keys)
        if self.drawn is not None:
            return sampled_log_normalizer(self.learned, z, self.drawn)
        if self.grid is not None:
            return row_grid_normalizers(self.grid, z)
        return log_normalizer(self.learned, z, keys, exclude_self=self.exclude_self, n_choices=self.n_choices)

    def _row_log_z_given_p(self, z: Tensor, keys: Tensor) -> Tensor:
        """What stands for log Z of each row where it reads p, of all pairs at once; zero of rows that do not count."""
        log_k = self.learned.pairwise(z, keys)
        if self.exclude_self:
            log_k = log_k.masked_fill(self_mask(log_k, slice(0, None)), -torch.inf)
        return self.learned.log_partition_given(log_k, self.n_choices, self._dense_p).where(self._dense_p.any(1), 0)

    @cached_property
    def _dense_p(self) -> Tensor:
        """p(j|i) without its uniform mass."""
        if self.n_rows * self.n_keys > _PAIRS_GIVEN_P:
            raise ValueError(
                f"{self.learned} compares all pairs at once, but {self.n_rows} rows have {self.n_keys} keys; use an "
                "encoder and a batch_size, or fewer rows."
            )
        return self._tensor(self.weights.toarray())

    def _log_q(self, log_k: Tensor, log_norm: Tensor) -> Tensor:
        """Log q; not above zero, where rounding puts near keys of far rows, and excluded ones are."""
        log_q = log_k - log_norm
        if not (self.learned.normalized or self.learned.is_limit):
            log_q = log_q.clamp_max(0)
        return self.learned.finish(log_q, self.n_mixed)

    def _background_cost(self, z: Tensor, keys: Tensor, log_norm: Tensor) -> Tensor:
        """sum_j d(a/N, q_ij) of each row over all its keys, or as many of the last ones as may stand for all."""
        scale, first = 1.0, 0
        if self.background_keys is not None and self.background_keys < len(keys):
            scale, first = self.n_choices / self.background_keys, len(keys) - self.background_keys
            keys = keys[first:]

        def tile(z: Tensor, keys: Tensor, log_norm: Tensor, rows: slice) -> Tensor:
            cost = self.term(self.background, self._log_q(self.learned.pairwise(z[rows], keys), log_norm[rows, None]))
            if self.exclude_self:
                cost = cost.masked_fill(self_mask(cost, slice(rows.start - first, None)), 0)
            return cost.sum(1)

        return scale * over_tiles(tile, z, keys, log_norm)


def _checked_at_zero(p: Conditional, learned: Learned, divergence: Any, comparison: Any, objective: Objective) -> Any:
    """What the divergence counts where p is zero; refuses what is not defined, and says what is."""
    if objective.joint and not comparison.additive:
        raise ValueError(
            f"divergence={divergence!r} is no sum over pairs, as normalization='joint' needs; use "
            "normalization='conditional', or divergences.Alpha of the same order."
        )
    check_limit(learned, divergence, objective.joint)
    if objective.joint and p.shape[0] != p.shape[1]:
        raise ValueError(
            f"normalization='joint' needs keys that are the rows, but p has shape {p.shape}; use "
            "normalization='conditional'."
        )
    n_positive = np.sum(p.weights.data > p.shape[0] * torch.finfo(objective.dtype).tiny)
    full_support = n_positive == p.has_positives.sum() * objective.n_choices
    if comparison.at_zero is None and not p.uniform:
        if not full_support:
            raise infinite_where_zero(divergence)
        return 0.0
    return comparison.at_zero


def _averaged(p: Conditional, sample_weight: Any, joint: bool) -> tuple[sparse.csr_array, Array]:
    """(weights, row_mass) of the average over rows, or of the symmetric joint p."""
    mass = p.has_positives.astype(np.float64)
    if p.weighs_rows and p.degrees is not None:
        mass = mass * p.degrees
    if sample_weight is not None:
        mass = mass * np.asarray(sample_weight, dtype=np.float64)
    if not mass.sum() > 0:
        raise no_positives()
    mass /= mass.sum()
    return (_symmetric(p.weights, mass), np.ones(p.shape[0])) if joint else (p.weights, mass)


def without_tiny(weights: sparse.csr_array, smallest: float) -> sparse.csr_array:
    """Weights without those that, times a kernel's value, fall below the smallest normal number: those slow CPUs."""
    least = smallest / _SMALLEST_KERNEL
    if not weights.nnz or weights.data.min() >= least:
        return weights
    kept = weights.data >= least
    weights = sparse.csr_array((weights.data * kept, weights.indices, weights.indptr), shape=weights.shape, copy=True)
    weights.eliminate_zeros()
    return weights


def _symmetric(weights: sparse.csr_array, row_mass: Array) -> sparse.csr_array:
    """(m_i w_ij + m_j w_ji) / 2."""
    if weights.nnz >= _MANY_EDGES and weights.has_canonical_format:
        from .many_edges import mean_with_transpose

        return mean_with_transpose(weights, row_mass)
    halves = weights.data * np.repeat(row_mass / 2, np.diff(weights.indptr))
    weighted = sparse.csr_array((halves, weights.indices, weights.indptr), shape=weights.shape)
    return sparse.csr_array(weighted + weighted.T)
