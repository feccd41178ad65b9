"""The sum over the edges of p: sum_ij w_ij log k(|z_i - z_j|^2) over symmetric weights, with its gradient.

d/dz_i of the sum over both directions is 4 sum_j w_ij h_ij (z_i - z_j), h = d log k / ds.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee
from sklearn.utils import gen_batches

from .._core.group import group
from .._core.quiet import quiet
from .._core.team import Team
from .._core.types import Array
from .fused import can_fuse, edge_sums
from .normalizers import Offsets, both_ways, upper_tiles
from .powers import power_series
from .ways import has_power_loop

if TYPE_CHECKING:
    from torch import Tensor

    from ..learned import DistanceKernel

_DENSE = 0.2
_COMPILED_EDGES = 150_000  # below, torch takes less time than loading compiled loops
_WEIGHTS_AT_ONCE = 1 << 20  # whose sums by bits are exact, in parts of any size
_HEAVY = 0.9  # of all weight, by the heaviest edges: some two fifths of those of a perplexity


def symmetric_edges(
    weights: sparse.csr_array,
    learned: DistanceKernel,
    dtype: torch.dtype,
    device: torch.device | str,
    n_components: int | None,
) -> Edges:
    """Symmetric weights in the form that is fastest to sum log k over; n_components is the map's, if known."""
    n_edges = weights.nnz if n_components is None else group().total(weights.nnz) / group().size  # all ranks alike
    if n_edges > _DENSE * weights.shape[0] ** 2:
        return DenseEdges(weights, dtype, device)
    if has_power_loop(learned, weights.shape[0], n_components, device):
        return PowerEdges(weights, dtype, device)
    compiled = n_edges > _COMPILED_EDGES and learned.slope_terms is not None and torch.device(device).type == "cpu"
    if n_components is not None and compiled:
        return CompiledEdges(weights, dtype, n_components)
    if n_components is not None and can_fuse(learned, torch.empty(0, n_components, dtype=dtype, device=device)):
        return FusedEdges(weights, dtype, device)
    return SparseEdges(weights, dtype, device)


class Edges(Protocol):
    """Symmetric weights w_ij, to sum w_ij log k over."""

    is_dense: bool
    """Whether a pass over all pairs has each weight at hand."""
    team: Any
    """The threads that sum."""

    def sum_and_gradient(
        self, learned: DistanceKernel, z: Tensor, with_value: bool = True, rough: bool = False
    ) -> tuple[float | None, Tensor]:
        """(sum of w log k or None, its gradient, or where a rough one will do that of the heaviest edges)."""
        ...


class SparseEdges:
    """Weights as tensors; the ends of all edges are gathered."""

    is_dense = False
    team: Team | None = None

    def __init__(self, weights: sparse.csr_array, dtype: torch.dtype, device: torch.device | str) -> None:
        weights.sort_indices()
        self.shape = weights.shape
        self.indptr = torch.as_tensor(weights.indptr, device=device)
        self.indices = torch.as_tensor(weights.indices, device=device)
        self.weights = torch.as_tensor(weights.data, dtype=dtype, device=device)

    @cached_property
    def rows(self) -> Tensor:
        """The row of each edge."""
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.indptr.device), self.indptr.diff())

    def sum_and_gradient(
        self, learned: DistanceKernel, z: Tensor, with_value: bool = True, rough: bool = False
    ) -> tuple[float | None, Tensor]:
        """See `Edges`."""
        sq = (z.index_select(0, self.rows) - z.index_select(0, self.indices)).square_().sum(1)
        pull = self._matrix(self.weights * learned.slope(sq)) @ torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
        value = float(self.weights @ learned.log_kernel(sq)) if with_value else None
        return value, 4 * (pull[:, -1:] * z - pull[:, :-1])

    def _matrix(self, values: Tensor) -> Tensor:
        """The sparse matrix that has these values in place of the weights."""
        with quiet("Sparse (CSR tensor support|invariant checks)"):
            return torch.sparse_csr_tensor(self.indptr, self.indices, values, self.shape, check_invariants=False)


class PowerEdges(SparseEdges):
    """Weights as tensors, of a kernel with `power_terms`; gradients by a compiled loop in single precision."""

    def sum_and_gradient(
        self, learned: DistanceKernel, z: Tensor, with_value: bool = True, rough: bool = False
    ) -> tuple[float | None, Tensor]:
        """See `Edges`."""
        from .loops import power_pull

        if with_value or self.weights.dtype != torch.float32:
            return super().sum_and_gradient(learned, z, with_value)
        terms: Any = learned.power_terms
        (a, b, c, e), gradient = map(np.float32, terms), torch.empty_like(z)
        edges = (part.numpy() for part in (self.indptr, self.indices, self.weights))
        power_pull(z.detach().numpy(), *edges, e, (a, b, c), power_series(), gradient.numpy())
        return None, gradient


class FusedEdges(SparseEdges):
    """Weights as tensors on CUDA, each row summed by a compiled loop."""

    def sum_and_gradient(
        self, learned: DistanceKernel, z: Tensor, with_value: bool = True, rough: bool = False
    ) -> tuple[float | None, Tensor]:
        """See `Edges`."""
        terms: Any = learned.slope_terms
        value, gradient = edge_sums(terms, z, self.indptr, self.indices, self.weights)
        return float(value) if with_value else None, gradient


class CompiledEdges:
    """Weights for compiled loops on the CPU over coordinates: each pair once, near rows together."""

    is_dense = False

    def __init__(self, weights: sparse.csr_array, dtype: torch.dtype, n_components: int = 2) -> None:
        from .many_edges import each_pair_once

        self.order = reverse_cuthill_mckee(sparse.csr_matrix(weights), symmetric_mode=True)
        kind = torch.zeros((), dtype=dtype).numpy().dtype
        self.graph = each_pair_once(weights, self.order, kind)
        self.team: Team = Team()
        width = max(n_components, 2)
        self.points = np.zeros((len(self.order), width), dtype=kind)
        self.pulls = np.zeros((self.team.size, len(self.order), width), dtype=kind)
        self._tasks = self._parts_of(self.graph)

    def _parts_of(self, graph: tuple[Array, Array, Array]) -> list[tuple]:
        """What each thread sums over."""
        return [(self.points, *graph, part.start, part.stop) for part in self.team.split_by_weight(np.diff(graph[0]))]

    def heaviest(self) -> tuple[Array, Array, Array]:
        """The graph of the heaviest edges, which take the weight of the others too."""
        indptr, indices, weights = self.graph
        kept, heavier = _heaviest(weights)
        before = np.zeros(len(kept) + 1, dtype=indptr.dtype)
        np.cumsum(kept, out=before[1:])
        return before[indptr], indices[kept], weights[kept] * weights.dtype.type(heavier)

    @cached_property
    def _heavy_tasks(self) -> list[tuple]:
        return self._parts_of(self.heaviest())

    def sum_and_gradient(
        self, learned: DistanceKernel, z: Tensor, with_value: bool = True, rough: bool = False
    ) -> tuple[float | None, Tensor]:
        """See `Edges`."""
        from .loops import log_sum, pull, pull_any, put, take

        terms: Any = learned.slope_terms
        number, (a, b, factor) = self.points.dtype.type, terms
        slope = number(a), number(b)
        take(z.detach().numpy(), self.order, self.points)
        edges = self._heavy_tasks if rough else self._tasks
        tasks = [(*edge, slope, out) for edge, out in zip(edges, self.pulls, strict=True)]
        self.team.run(pull if self.points.shape[1] == 2 else pull_any, tasks)
        gradient = np.empty(z.shape, dtype=self.points.dtype)
        parts = (self.pulls, self.order, number(4 * factor))
        self.team.run(put, [(*parts, part.start, part.stop, gradient) for part in self.team.split(len(gradient))])
        if not with_value:
            return None, torch.from_numpy(gradient)
        values = np.zeros((len(self._tasks), 1))
        self.team.run(log_sum, [(*edge, number(a * b), out) for edge, out in zip(self._tasks, values, strict=True)])
        return 2 * factor * values.sum(), torch.from_numpy(gradient)


def _heaviest(weights: Array) -> tuple[Array, float]:
    """(which weights are among the heaviest of all ranks, all weight by theirs): those above one that two counts find.

    Positive numbers of single precision have the order of their bits, of which each count reads half.
    """
    bits, ranks, above, half = weights.astype(np.float32, copy=False).view(np.uint32), group(), 0.0, 1 << 16
    parts = list(gen_batches(len(bits), _WEIGHTS_AT_ONCE))
    sums = ranks.total(sum(np.bincount(bits[part] >> 16, weights[part], half) for part in parts))
    whole, least = sums.sum(), 0
    for shift in (16, 0):
        falling = above + np.cumsum(sums[::-1])
        at = min(int(np.searchsorted(falling, _HEAVY * whole)), half - 1)
        above, least = falling[at] - sums[half - 1 - at], least | ((half - 1 - at) << shift)
        if shift:
            inside = bits >> 16 == half - 1 - at
            sums = ranks.total(np.bincount(bits[inside] & (half - 1), weights[inside], half))
    kept = bits >= least
    return kept, float(whole / ranks.total(weights[kept].sum(dtype=np.float64)))


class DenseEdges:
    """Weights as a dense matrix, tile by tile."""

    is_dense = True
    team: Team | None = None

    def __init__(self, weights: sparse.csr_array, dtype: torch.dtype, device: torch.device | str) -> None:
        self.weights = torch.as_tensor(weights.toarray(), dtype=dtype, device=device)

    def sum_and_gradient(
        self, learned: DistanceKernel, z: Tensor, with_value: bool = True, rough: bool = False
    ) -> tuple[float | None, Tensor]:
        """See `Edges`."""
        total, pull = torch.zeros((), dtype=torch.float64, device=z.device), Offsets(z)
        for rows, keys, sq, spare in upper_tiles(z):
            weights = self.weights[rows, keys]
            if with_value:
                total += both_ways(torch.mul(learned.log_kernel(sq), weights, out=spare))
            pull.add(rows, keys, torch.mul(weights, learned.slope(sq), out=spare))
        return float(total) if with_value else None, pull.total.mul_(4)
