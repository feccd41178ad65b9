"""Sums of a smooth kernel over all pairs of a 1-D or 2-D map, by splines on a grid and one FFT.

The potential of charges c at the points z_j is

    Phi_c(x) = sum_j c_j k(|x - z_j|^2).

Charges are spread to a grid of spacing h by cubic B-splines (four nodes a dimension), convolved with the kernel and the
splines' inverse response by FFT, and the potential and its gradient are read off the same splines at any point. The
gradient is that of the splined potential, so value and gradient agree to rounding; they lie within O(h^4) and O(h^3) of
the exact ones. The cost is linear in the points, and the kernel's transform stands as long as the grid's shape does.

References: Essmann et al., "A smooth particle mesh Ewald method", J. Chem. Phys. 1995; Linderman et al., "Fast
interpolation-based t-SNE", Nature Methods 2019.
"""

import numpy as np
import torch
from scipy.fft import next_fast_len

_SPACING = 0.25  # of the kernel's length scale
_SMALLEST, _LARGEST = 64, {1: 1 << 16, 2: 1400}  # nodes a dimension
_MARGIN = 2
_COMPILED_POINTS = 10_000  # below, torch takes less time than loading compiled loops
_FLOOR = 1e-7  # of a sum over the other points, below what interpolation can tell from nothing


class GridPotential:
    """Potentials of a kernel; keeps the kernel's transform between calls.

    Parameters
    ----------
    learned : Learned
        A kernel of the squared distance.
    """

    def __init__(self, learned):
        self.learned = learned
        self.scale = float((-0.5 / torch.as_tensor(learned.slope(torch.zeros(())))).sqrt())
        self._transform, self._transform_of = None, None

    def place(self, z):
        """Lay a grid over points: what `spread`, `convolve` and `read` need of them.

        Parameters
        ----------
        z : tensor of shape (n, 1) or (n, 2)

        Returns
        -------
        Placement
        """
        low, high = z.amin(0), z.amax(0)
        span = float((high - low).max())
        most = _LARGEST[z.shape[1]]
        spacing = max(min(_SPACING * self.scale, span / (_SMALLEST - 8)), span / (most - 8), 1e-12)
        nodes = next_fast_len(max(_SMALLEST, int(np.ceil(span / spacing)) + 2 * _MARGIN + 1), real=True)
        position = (z - (low + high) / 2) / spacing + (nodes - 1) / 2
        compiled = z.shape[1] == 2 and len(z) > _COMPILED_POINTS and z.device.type == "cpu"
        return (CompiledPlacement if compiled else Placement)(position, spacing, nodes)

    def potential(self, place, charges):
        """Potential and its gradient at the points themselves.

        Parameters
        ----------
        place : Placement
        charges : tensor of shape (n,)

        Returns
        -------
        potential : tensor of shape (n,)
        gradient : tensor of shape (n, d)
        """
        return place.read(self.convolve(place, place.spread(charges)))

    def convolve(self, place, grid):
        """The grid of charges convolved with the kernel."""
        shape, dim = (place.nodes,) * place.dim, tuple(range(place.dim))
        padded = (2 * place.nodes,) * place.dim
        transform = self._kernel_transform(place, padded, grid)
        field = torch.fft.irfftn(torch.fft.rfftn(grid.view(shape), s=padded, dim=dim) * transform, s=padded, dim=dim)
        return field[tuple(slice(0, nodes) for nodes in shape)].contiguous()

    def _kernel_transform(self, place, padded, like):
        key = (place.nodes, place.spacing, like.dtype, like.device)
        if self._transform_of != key:
            steps = torch.arange(padded[0], dtype=torch.float64, device=like.device)
            sq_offsets = (torch.minimum(steps, padded[0] - steps) * place.spacing).square()
            sq = sq_offsets if place.dim == 1 else sq_offsets[:, None] + sq_offsets
            kernel = self.learned.log_kernel(sq).exp().to(like.dtype)
            # A spline through values has coefficients values / response; once for the charges, once for the field.
            response = ((2 + torch.cos(2 * torch.pi * steps / padded[0])) / 3).square().to(like.dtype)
            transform = torch.fft.rfftn(kernel).real / response[: padded[0] // 2 + 1]
            self._transform = transform / response[:, None] if place.dim == 2 else transform
            self._transform_of = key
        return self._transform


class Placement:
    """Points on a grid: the node below each, and its four spline weights a dimension.

    Parameters
    ----------
    position : tensor of shape (n, 1) or (n, 2)
        In units of the grid, from its first node.
    spacing : float
    nodes : int
        Along each dimension.
    """

    def __init__(self, position, spacing, nodes):
        self.dim, self.spacing, self.nodes = position.shape[1], spacing, nodes
        node = position.floor()
        self.weights, self.slopes = _cubic(position - node)
        first = node.long() - 1
        steps = torch.arange(4, device=position.device)
        self.cells = first[:, :1] + steps
        if self.dim == 2:
            self.cells = (self.cells[:, :, None] * nodes + (first[:, 1:] + steps)[:, None, :]).reshape(len(node), 16)

    def _products(self, left, right):
        """Weights of the 4 or 16 nodes of each point."""
        if self.dim == 1:
            return left[:, :, 0]
        return (left[:, :, None, 0] * right[:, None, :, 1]).reshape(len(left), 16)

    def spread(self, charges):
        """Charges on the grid, flat."""
        amounts = self._products(self.weights, self.weights) * charges[:, None]
        grid = amounts.new_zeros(self.nodes**self.dim)
        return grid.index_add_(0, self.cells.reshape(-1), amounts.reshape(-1))

    def read(self, field):
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

    def __init__(self, position, spacing, nodes):
        self.spacing, self.nodes = spacing, nodes
        self.u, self.v = (np.ascontiguousarray(column) for column in position.numpy().T)

    def spread(self, charges):
        """As `Placement.spread`."""
        from ._loops import spread

        grid = np.zeros((self.nodes, self.nodes), dtype=self.u.dtype)
        spread(self.u, self.v, charges.numpy(), grid)
        return torch.from_numpy(grid)

    def read(self, field):
        """As `Placement.read`."""
        from ._loops import read

        out = np.empty((len(self.u), 3), dtype=self.u.dtype)
        read(self.u, self.v, field.numpy(), out)
        return torch.from_numpy(out[:, 0].copy()), torch.from_numpy(out[:, 1:] / self.u.dtype.type(self.spacing))


def _cubic(t):
    """Cubic B-spline weights of the nodes -1, 0, 1, 2 at t in [0, 1), and their derivatives; shape (n, 4, d)."""
    u, sq = 1 - t, t * t
    weights = [u * u * u / 6, (3 * t - 6) * sq / 6 + 2 / 3, (1 + 3 * (t + sq - t * sq)) / 6, t * sq / 6]
    slopes = [-u * u / 2, (3 * t - 4) * t / 2, (1 + 2 * t - 3 * sq) / 2, sq / 2]
    return torch.stack(weights, dim=1), torch.stack(slopes, dim=1)


class _JointNormalizer(torch.autograd.Function):
    """log sum_{i != j} k_ij = log Z with Z = sum_i Phi_1(z_i) - n; its gradient at z_i is 2 grad Phi_1(z_i) / Z."""

    @staticmethod
    def forward(ctx, z, grid):
        potential, gradient = grid.potential(grid.place(z), torch.ones_like(z[:, 0]))
        total = (potential.sum(dtype=torch.float64) - len(z)).clamp_min(_FLOOR * len(z))
        ctx.save_for_backward(gradient * (2 / total).to(z.dtype))
        return total.log().to(z.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        return ctx.saved_tensors[0] * grad_output, None


class _RowNormalizers(torch.autograd.Function):
    """log Z_i with Z_i = Phi_1(z_i) - 1, of each row.

    With g the incoming gradient and c = g / Z, z_i moves its own Z_i by grad Phi_1 and the others' by grad Phi_c.
    """

    @staticmethod
    def forward(ctx, z, grid):
        place = grid.place(z)
        potential, gradient = grid.potential(place, torch.ones_like(z[:, 0]))
        row_z = (potential - 1).clamp_min(_FLOOR)
        ctx.save_for_backward(row_z, gradient)
        ctx.place, ctx.grid = place, grid
        return row_z.log()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        row_z, gradient = ctx.saved_tensors
        share = grad_output / row_z
        return share[:, None] * gradient + ctx.grid.potential(ctx.place, share)[1], None


def grid_normalizer(grid, z, joint):
    """log of the sum of k over all pairs (joint), or over the other points of each point, by interpolation.

    Parameters
    ----------
    grid : GridPotential
    z : tensor of shape (n, 1) or (n, 2)
    joint : bool

    Returns
    -------
    tensor, a scalar or of shape (n,)
    """
    return (_JointNormalizer if joint else _RowNormalizers).apply(z, grid)
