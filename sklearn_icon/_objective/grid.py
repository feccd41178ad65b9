"""Sums of a smooth kernel over all pairs of a 1-D or 2-D map, by splines on a grid and one FFT.

The potential of charges c at the points z_j is

    Phi_c(x) = sum_j c_j k(|x - z_j|^2).

Charges are spread to a grid of spacing h by cubic B-splines (four nodes a dimension), convolved with the kernel and the
splines' inverse response by FFT, and the potential and its gradient are read off the same splines at any point. The
gradient is that of the splined potential, so value and gradient agree to rounding; they lie within O(h^4) and O(h^3) of
the exact ones: at half the kernel's length scale within 6e-4 of the log-normaliser and 2.5 % of its gradient. The cost
is linear in the points, and the kernel's transform stands as long as the grid's shape does.

References: Essmann et al., "A smooth particle mesh Ewald method", J. Chem. Phys. 1995; Linderman et al., "Fast
interpolation-based t-SNE", Nature Methods 2019.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.fft
import torch

from .._core.group import group
from .._core.team import Team
from .._core.types import Array
from .fused import can_fuse

if TYPE_CHECKING:
    from torch import Tensor

    from ..learned import DistanceKernel
    from .powers import PowerPotential
    from .tree import TreePotential

_ROUGH_SPACING = 0.7  # in steps for which a rough gradient will do
_FINE_SPACING, _FINE_NODES = 0.2, 4096  # for the reported loss
_LEAST_SPACING = 0.1  # length scales, where a map is small: differences of a finer grid would be mere rounding
_SMALLEST, _LARGEST = 64, {1: 1 << 16, 2: 1400}  # nodes a dimension
_MARGIN = 2
_POINTS = 128  # of a program on CUDA
_COMPILED_POINTS = 3000  # below, torch takes less time than loading compiled loops
FLOOR = 1e-7  # of a sum over the other points, below what interpolation can tell from nothing


class GridPotential:
    """Potentials of a kernel of the squared distance; keeps the kernel's transform between calls.

    `spacing` is that of the grid's nodes, in length scales of the kernel; it grows where a dimension would have more
    than `most_nodes`: by default 65,536 in one dimension and 1,400 in two. The threads may be those of another
    potential.
    """

    rng: Any = None  # of potentials that are drawn

    def __init__(
        self, learned: DistanceKernel, team: Team | None = None, spacing: float = 0.5, most_nodes: int | None = None
    ) -> None:
        self.learned, self.spacing, self.most_nodes = learned, spacing, most_nodes
        self.scale = float((-0.5 / torch.as_tensor(learned.slope(torch.zeros(())))).sqrt())
        self.team = Team() if team is None else team
        self._transform: Any = None
        self._transform_of: tuple | None = None

    def of(self, learned: DistanceKernel) -> GridPotential:
        """The same of another kernel."""
        return GridPotential(learned, self.team)

    def rough(self) -> GridPotential:
        """At half the time, or less."""
        return GridPotential(self.learned, self.team, _ROUGH_SPACING)

    def fine(self) -> GridPotential:
        """For the loss that is reported."""
        return GridPotential(self.learned, self.team, _FINE_SPACING, _FINE_NODES)

    def place(self, z: Tensor, rows: slice = slice(None)) -> AnyPlacement:
        """Lay a grid over points, shape (n, 1) or (n, 2): what `spread`, `convolve` and `read` need of some of them.

        A FloatingPointError where they span more than their precision can hold.
        """
        compiled = z.shape[1] == 2 and len(z) > _COMPILED_POINTS and z.device.type == "cpu"
        low, high = _extent(z) if compiled else (z.amin(0), z.amax(0))
        span = float((high - low).max())
        if not np.isfinite(span):
            raise FloatingPointError("the map has outgrown its precision")
        spacing, nodes = self._mesh(span, z.shape[1])
        origin = (low + high) / 2 - spacing * (nodes - 1) / 2
        if compiled:
            return CompiledPlacement(z[rows], origin, spacing, nodes, self.team)
        if z.shape[1] == 2 and can_fuse(self.learned, z):
            return FusedPlacement(z[rows], origin, spacing, nodes)
        return Placement((z[rows] - origin) / spacing, origin, spacing, nodes)

    def _mesh(self, span: float, dim: int) -> tuple[float, int]:
        """(spacing, nodes) of a grid over a span: in steps, so that many spans have one grid in common."""
        room, most = 2 * _MARGIN + 1, max(_LARGEST[dim], self.most_nodes or 0)
        finest = max(self.spacing * self.scale, span / (most - room), 1e-12)
        least = max(_LEAST_SPACING * self.scale, 1e-12)
        spacing = min(finest, max(least, 2.0 ** (np.floor(2 * np.log2(max(span, 1e-12) / (_SMALLEST - room))) / 2)))
        nodes = int(np.ceil(span / spacing)) + room
        step = 2 ** max(nodes.bit_length() - 5, 0)  # 1/32 to 1/16 of them
        nodes = -(-nodes // step) * step
        return spacing, scipy.fft.next_fast_len(max(_SMALLEST, nodes), real=True)

    def potential(self, place: AnyPlacement, charges: Tensor) -> tuple[Tensor, Tensor]:
        """Potential, shape (n,), and its gradient, shape (n, d), at the points themselves."""
        return place.read(self.convolve(place, place.spread(charges)))

    def at(self, z: Tensor, own: slice) -> tuple[float, slice, Tensor]:
        """(sum of the potential over all points, some of them, its gradient there), of unit charges.

        Ranks have other points of their `own`: each spreads these to a grid, and the grids are added.
        """
        place: Any = self.place(z, own)
        charges = group().total(place.spread(torch.ones_like(z[own, 0])))
        field = self.convolve(place, charges.clone())
        summed = torch.sum(charges.double() * field.double())  # what all points read: they are spread as they read
        return float(summed), own, place.read(field)[1]

    def field(self, z: Tensor, margin: float) -> tuple[Array, Array, float, Array, Array]:
        """(field, origin, nodes per unit, lowest, highest coordinates) of the potential of unit charges at z, and
        around.

        The field reaches a margin beyond the points.
        """
        low, high = z.amin(0) - margin, z.amax(0) + margin
        charges = torch.ones(len(z) + 2, dtype=z.dtype)
        charges[-2:] = 0  # corners that only make room
        place = self.place(torch.cat([z, low[None], high[None]]))
        field = self.convolve(place, place.spread(charges)).numpy()
        return field, place.origin.numpy(), 1 / place.spacing, low.numpy(), high.numpy()

    def convolve(self, place: AnyPlacement, grid: Tensor) -> Tensor:
        """The grid of charges convolved with the kernel: transforms of twice its size that skip what is known zero."""
        charges: Any = grid
        transform: Any = self._kernel_transform(place, grid)
        n = place.nodes
        fft, axis, more = _fourier(grid.device, self.team.size)
        if fft is scipy.fft:
            charges, transform = grid.numpy(), transform.numpy()
        field = fft.rfft(charges, 2 * n, **{axis: -1}, **more)
        if place.dim == 1:
            field *= transform
        else:
            field = fft.fft(field, 2 * n, **{axis: 0}, **more)
            field[: n + 1] *= transform
            field[n + 1 :] *= transform[1:n][::-1] if fft is scipy.fft else transform[1:n].flip(0)
            field = fft.ifft(field, **{axis: 0}, **more)[:n]
        return torch.as_tensor(fft.irfft(field, 2 * n, **{axis: -1}, **more)[..., :n]).contiguous()

    def _kernel_transform(self, place: AnyPlacement, like: Tensor) -> Tensor:
        """Transform of the kernel over twice the grid, at its n + 1 frequencies a dimension."""
        n = place.nodes
        key = (n, place.spacing, like.dtype, like.device)
        if self._transform_of != key:
            steps = torch.arange(n + 1, dtype=torch.float64, device=like.device)
            sq = (steps * place.spacing).square()
            sq = (sq if place.dim == 1 else sq[:, None] + sq).to(like.dtype)
            transform = _even_transform(self.learned.log_kernel(sq).exp_(), self.team.size)
            # A spline through values has coefficients values / response; once for the charges, once for the field.
            response = ((2 + torch.cos(torch.pi / n * steps)) / 3).square().to(like.dtype)
            self._transform = transform / (response if place.dim == 1 else response[:, None] * response)
            self._transform_of = key
        return self._transform


class Placement:
    """Points on a grid: the node below each, and its four spline weights a dimension.

    Positions are in units of the grid, from its first node, which is at the origin.
    """

    def __init__(self, position: Tensor, origin: Tensor, spacing: float, nodes: int) -> None:
        self.dim, self.origin, self.spacing, self.nodes = position.shape[1], origin, spacing, nodes
        node = position.floor()
        self.weights, self.slopes = _cubic(position - node)
        first = node.long() - 1
        steps = torch.arange(4, device=position.device)
        self.cells = first[:, :1] + steps
        if self.dim == 2:
            self.cells = (self.cells[:, :, None] * nodes + (first[:, 1:] + steps)[:, None, :]).reshape(len(node), 16)

    def _products(self, left: Tensor, right: Tensor) -> Tensor:
        """Weights of the 4 or 16 nodes of each point."""
        if self.dim == 1:
            return left[:, :, 0]
        return (left[:, :, None, 0] * right[:, None, :, 1]).reshape(len(left), 16)

    def spread(self, charges: Tensor) -> Tensor:
        """Charges on the grid."""
        amounts = self._products(self.weights, self.weights) * charges[:, None]
        grid = amounts.new_zeros(self.nodes**self.dim)
        return grid.index_add_(0, self.cells.reshape(-1), amounts.reshape(-1)).view((self.nodes,) * self.dim)

    def read(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """(values, gradients) of a field at the points."""
        near = field.reshape(-1)[self.cells]
        values = (near * self._products(self.weights, self.weights)).sum(1)
        slopes = [(near * self._products(self.slopes, self.weights)).sum(1)]
        if self.dim == 2:
            slopes.append((near * self._products(self.weights, self.slopes)).sum(1))
        return values, torch.stack(slopes, dim=1) / self.spacing


class CompiledPlacement:
    """`Placement` of a 2-D map by compiled loops on the CPU."""

    dim = 2

    def __init__(self, z: Tensor, origin: Tensor, spacing: float, nodes: int, team: Team) -> None:
        self.origin, self.spacing, self.nodes, self.team = origin, spacing, nodes, team
        self.z = np.ascontiguousarray(z.detach().numpy())
        self.where = (self.z, origin.numpy(), self.z.dtype.type(1 / spacing))

    def spread(self, charges: Tensor) -> Tensor:
        """As `Placement.spread`; threads have grids of their own where there are points enough for them."""
        from .loops import spread

        parts = self.team.split(len(self.z), min(self.team.size, 1 + 4 * len(self.z) // self.nodes**2))
        grids, of_points = np.zeros((len(parts), self.nodes, self.nodes), dtype=self.z.dtype), charges.numpy()
        tasks = zip(parts, grids, strict=True)
        self.team.run(spread, [(*self.where, of_points, part.start, part.stop, grid) for part, grid in tasks])
        return torch.from_numpy(grids[0] if len(grids) == 1 else grids.sum(axis=0))

    def read(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """As `Placement.read`."""
        from .loops import read

        out, parts = np.empty((len(self.z), 3), dtype=self.z.dtype), self.team.split(len(self.z))
        self.team.run(read, [(*self.where, field.numpy(), part.start, part.stop, out) for part in parts])
        return torch.from_numpy(out[:, 0]), torch.from_numpy(out[:, 1:])


class FusedPlacement:
    """`Placement` of a 2-D map by compiled loops on CUDA."""

    dim = 2

    def __init__(self, z: Tensor, origin: Tensor, spacing: float, nodes: int) -> None:
        self.origin, self.spacing, self.nodes = origin, spacing, nodes
        self.z, self.mesh = z.detach().contiguous(), torch.cat([origin, origin.new_full((1,), spacing)])

    def _launch(self, name: str, *arrays: Tensor) -> None:
        from . import triton_loops

        n, options = len(self.z), {"POINTS": _POINTS, "enable_fp_fusion": True}
        with torch.cuda.device_of(self.z):
            vars(triton_loops)[name][-(-n // _POINTS),](self.z, self.mesh, *arrays, n, self.nodes, **options)

    def spread(self, charges: Tensor) -> Tensor:
        """As `Placement.spread`."""
        grid = self.z.new_zeros(self.nodes, self.nodes)
        self._launch("spread", charges.contiguous(), grid)
        return grid

    def read(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """As `Placement.read`."""
        out = self.z.new_empty(len(self.z), 3)
        self._launch("read", field, out)
        return out[:, 0], out[:, 1:] / self.spacing


AnyPlacement: TypeAlias = Placement | CompiledPlacement | FusedPlacement


def _fourier(device: torch.device, n_threads: int) -> tuple[Any, str, dict[str, Any]]:
    """(module, name of its axis, further arguments) of the transforms on a device; scipy's are faster on the CPU."""
    if device.type == "cpu":
        return scipy.fft, "axis", {"workers": n_threads, "overwrite_x": True}
    return torch.fft, "dim", {}


def _even_transform(quarter: Tensor, n_threads: int) -> Tensor:
    """Fourier transform of an even array, given at its n + 1 nonnegative nodes a dimension, at as many frequencies."""
    if _fourier(quarter.device, n_threads)[0] is scipy.fft:
        return torch.as_tensor(scipy.fft.dctn(quarter.numpy(), type=1, workers=n_threads))
    for dim in range(quarter.dim()):
        mirrored = torch.cat([quarter, quarter.narrow(dim, 1, quarter.shape[dim] - 2).flip(dim)], dim=dim)
        quarter = torch.fft.rfft(mirrored, dim=dim).real
    return quarter


def _extent(z: Tensor) -> Tensor:
    """(lowest, highest) of both columns, by a compiled loop."""
    from .loops import extent

    return torch.tensor(extent(z.detach().numpy()), dtype=z.dtype).T


def _cubic(t: Tensor) -> tuple[Tensor, Tensor]:
    """Cubic B-spline weights of the nodes -1, 0, 1, 2 at t in [0, 1), and their derivatives; shape (n, 4, d)."""
    u, sq = 1 - t, t * t
    weights = [u * u * u / 6, (3 * t - 6) * sq / 6 + 2 / 3, (1 + 3 * (t + sq - t * sq)) / 6, t * sq / 6]
    slopes = [-u * u / 2, (3 * t - 4) * t / 2, (1 + 2 * t - 3 * sq) / 2, sq / 2]
    return torch.stack(weights, dim=1), torch.stack(slopes, dim=1)


def joint_grid_normalizer(grid: GridPotential | PowerPotential | TreePotential, z: Tensor) -> tuple[float, Tensor]:
    """(log sum_{i != j} k_ij, its gradient) = (log Z, 2 grad Phi_1(z_i) / Z) with Z = sum_i Phi_1(z_i) - n."""
    place: Any = grid.place(z)
    potential, gradient = grid.potential(place, torch.ones_like(z[:, 0]))
    total = max(float(potential.sum(dtype=torch.float64)) - len(z), FLOOR * len(z))
    return log(total), gradient * (2 / total)


class _RowNormalizers(torch.autograd.Function):
    """log Z_i with Z_i = Phi_1(z_i) - 1, of each row.

    With g the incoming gradient and c = g / Z, z_i moves its own Z_i by grad Phi_1 and the others' by grad Phi_c.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, grid: GridPotential | PowerPotential | TreePotential) -> Tensor:
        place: Any = grid.place(z)
        potential, gradient = grid.potential(place, torch.ones_like(z[:, 0]))
        row_z = (potential - 1).clamp_min(FLOOR)
        ctx.save_for_backward(row_z, gradient)
        ctx.place, ctx.grid = place, grid
        return row_z.log()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        row_z, gradient = ctx.saved_tensors
        charges = grad_output / row_z
        return charges[:, None] * gradient + ctx.grid.potential(ctx.place, charges)[1], None


def row_grid_normalizers(grid: GridPotential | PowerPotential | TreePotential, z: Tensor) -> Tensor:
    """log sum_{j != i} k_ij of each row, by interpolation."""
    return _RowNormalizers.apply(z, grid)
