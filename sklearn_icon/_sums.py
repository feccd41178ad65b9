"""The two sums that are all the hard work: over the edges of p, and over all pairs.

For every kernel k the loss is a weighted sum of log k over edges, and a log-normaliser over all pairs. Both are
differentiable torch operations. Those for kernels of the squared distance have a backward pass of their own; the
others are cut into tiles whose intermediate results are computed again in the backward pass. No operation holds more
than a tile.

With s = |z_i - y_j|^2 and the slope h(s) = d log k / ds, all gradients below follow from
d log k / d z_i = 2 h(s) (z_i - y_j).
"""

import warnings
from functools import cached_property
from math import log

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from .learned import LOG_FLOOR, sq_distances

_TILE_ELEMENTS = 1 << 18
_DENSE_SHARE = 0.2
_COMPILED_EDGES = 1_000_000  # below, torch takes less time than loading compiled loops


def row_tiles(n_rows, n_keys):
    """Slices of rows such that a tile of rows x keys stays near the size of a core's cache."""
    step = max(1, _TILE_ELEMENTS // max(n_keys, 1))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def _mask_self(tile, rows, value):
    """Overwrite the entries of a tile at which the key is the row itself."""
    tile.diagonal(offset=rows.start).fill_(value)
    return tile


def self_mask(tile, rows):
    """Where the key of a tile's entry is the row itself."""
    return _mask_self(torch.zeros_like(tile, dtype=torch.bool), rows, True)


def over_tiles(tile_function, z, keys, *more):
    """Concatenate tile_function(z, keys, *more, rows) over tiles of rows, each computed again in the backward pass."""
    tiles = row_tiles(len(z), len(keys))
    if len(tiles) == 1:
        return tile_function(z, keys, *more, tiles[0])
    return torch.cat([checkpoint(tile_function, z, keys, *more, rows, use_reentrant=False) for rows in tiles])


def log_normalizer(learned, z, keys, *, exclude_self, n_choices):
    """log sum_j k(z_i, y_j) of each row, any kernel, exact.

    Parameters
    ----------
    learned : Learned
        The kernel.
    z, keys : tensor of shape (n, d) and (m, d)
        As `learned.prepare` returns them.
    exclude_self : bool
        Whether key i is row i itself and left out.
    n_choices : int
        Keys of each row.

    Returns
    -------
    tensor of shape (n,)
    """
    if learned.euclidean:
        return _EuclideanLogNormalizer.apply(z, keys, learned, exclude_self)

    def tile(z, keys, rows):
        log_k = learned.pairwise(z[rows], keys)
        if exclude_self:
            log_k = log_k.masked_fill(self_mask(log_k, rows), -torch.inf)
        return learned.log_partition(log_k, n_choices)

    return over_tiles(tile, z, keys)


def _log_kernel_tile(learned, z, keys, rows, exclude_self):
    """(squared distances, log-kernel) of a tile, outside autograd."""
    sq = sq_distances(z[rows], keys)
    log_k = learned.log_kernel(sq)
    if exclude_self:
        _mask_self(log_k, rows, -torch.inf)
    return sq, log_k


class _EuclideanLogNormalizer(torch.autograd.Function):
    """`log_normalizer` for a kernel of the squared distance; d log Z_i / ds_ij = k_ij h_ij / Z_i."""

    @staticmethod
    def forward(ctx, z, keys, learned, exclude_self):
        log_z = torch.cat(
            [
                _log_kernel_tile(learned, z, keys, rows, exclude_self)[1].logsumexp(1)
                for rows in row_tiles(len(z), len(keys))
            ]
        )
        ctx.save_for_backward(z, keys, log_z)
        ctx.learned, ctx.exclude_self = learned, exclude_self
        return log_z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_log_z):
        z, keys, log_z = ctx.saved_tensors
        grad_z, grad_keys = torch.zeros_like(z), torch.zeros_like(keys)
        for rows in row_tiles(len(z), len(keys)):
            sq, log_k = _log_kernel_tile(ctx.learned, z, keys, rows, ctx.exclude_self)
            weight = (log_k - log_z[rows, None]).exp_() * ctx.learned.slope(sq) * (2 * grad_log_z[rows, None])
            grad_z[rows] = weight.sum(1, keepdim=True) * z[rows] - weight @ keys
            grad_keys += weight.sum(0)[:, None] * keys - weight.T @ z[rows]
        return grad_z, grad_keys, None, None


def _upper_tiles(z):
    """Yield (rows, keys, |z_i - z_j|^2, spare) of tiles that start at their own diagonal and cover each pair once.

    Both tensors are overwritten at the next step.
    """
    n, sq_norms, minus_twice = len(z), z.square().sum(1), -2 * z.T
    buffers = z.new_empty(2, max(_TILE_ELEMENTS, n))
    start = 0
    while start < n:
        rows, keys = slice(start, min(start + max(1, _TILE_ELEMENTS // (n - start)), n)), slice(start, n)
        shape = (rows.stop - start, n - start)
        sq, spare = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
        torch.addmm(sq_norms[keys], z[rows], minus_twice[:, keys], out=sq).add_(sq_norms[rows, None]).clamp_min_(0)
        yield rows, keys, sq, spare
        start = rows.stop


def _both_ways(tile):
    """The sum over a tile, its block on the diagonal once and all else twice: (i, j) and (j, i)."""
    return (2 * tile.sum() - tile[:, : len(tile)].sum()).double()


class _Offsets:
    """Accumulates g_i = sum_j w_ij (z_i - z_j) from the upper tiles of symmetric weights."""

    def __init__(self, z):
        self.z, self.total = z, torch.zeros_like(z)
        self.homogeneous = torch.cat([z, torch.ones_like(z[:, :1])], dim=1).T.contiguous()

    def add(self, rows, keys, weights):
        self._add(rows, torch.mm(self.homogeneous[:, keys], weights.T))
        if rows.stop < keys.stop:
            self._add(slice(rows.stop, keys.stop), torch.mm(self.homogeneous[:, rows], weights[:, len(weights) :]))

    def _add(self, rows, pulled):
        self.total[rows] += (pulled[-1] * self.z[rows].T - pulled[:-1]).T


class _JointLogNormalizer(torch.autograd.Function):
    """`joint_log_normalizer` in linear space: value and gradient in one pass over the pairs."""

    @staticmethod
    def forward(ctx, z, learned):
        total, push = torch.zeros((), dtype=torch.float64, device=z.device), _Offsets(z)
        for rows, keys, sq, spare in _upper_tiles(z):
            kernel, slope = learned.kernel_and_slope(sq, spare)
            total += _both_ways(_mask_diagonal(kernel))
            push.add(rows, keys, _mask_diagonal(slope))
        ctx.save_for_backward(push.total.mul_((4 / total).to(z.dtype)))
        return total.log().to(z.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        return ctx.saved_tensors[0] * grad_output, None


def _mask_diagonal(tile):
    """Zero where a key is the row itself, in a tile that starts at its own diagonal."""
    tile.diagonal().fill_(0)
    return tile


def joint_log_normalizer(learned, z):
    """log sum_i sum_{j != i} k(|z_i - z_j|^2), exact.

    Kernels are at most one, so the sum runs in linear space; where nearly all pairs lie near the floor of what that can
    hold, it runs again in log-space.

    Parameters
    ----------
    learned : Learned
        A kernel of the squared distance.
    z : tensor of shape (n, d)

    Returns
    -------
    tensor, a scalar
    """
    log_z = _JointLogNormalizer.apply(z, learned)
    if log_z < LOG_FLOOR + 20 + 2 * log(len(z)):
        return _EuclideanLogNormalizer.apply(z, z, learned, True).logsumexp(0)
    return log_z


class _EdgeSum(torch.autograd.Function):
    """`edge_sum`; d/dz_i of the sum over both directions is 4 sum_j w_ij h_ij (z_i - z_j)."""

    @staticmethod
    def forward(ctx, z, learned, edges):
        value, gradient = edges.sum_and_gradient(learned, z)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        return ctx.saved_tensors[0] * grad_output, None, None


def edge_sum(learned, z, edges):
    """sum_ij w_ij log k(|z_i - z_j|^2) over symmetric edges.

    Parameters
    ----------
    learned : Learned
        A kernel of the squared distance.
    z : tensor of shape (n, d)
    edges : SparseEdges or DenseEdges

    Returns
    -------
    tensor, a scalar
    """
    return _EdgeSum.apply(z, learned, edges)


def symmetric_edges(weights, dtype, device):
    """Symmetric weights in the form that is faster to sum: dense tiles where a fair share of all pairs are edges."""
    dense = weights.nnz > _DENSE_SHARE * weights.shape[0] ** 2
    return (DenseEdges if dense else SparseEdges)(weights, dtype, device)


class SparseEdges:
    """A symmetric csr_array of weights as tensors, for `edge_sum`."""

    def __init__(self, weights, dtype, device):
        weights.sort_indices()
        self.shape = weights.shape
        self.indptr = torch.as_tensor(weights.indptr, device=device)
        self.indices = torch.as_tensor(weights.indices, device=device)
        self.weights = torch.as_tensor(weights.data, dtype=dtype, device=device)

    @cached_property
    def rows(self):
        """The row of each edge."""
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.indptr.device), self.indptr.diff())

    def sum_and_gradient(self, learned, z):
        """(sum of w log k, its gradient), by gathering the ends of all edges."""
        if len(self.indices) > _COMPILED_EDGES and z.shape[1] <= 2 and z.device.type == "cpu":
            return self._compiled(learned, z)
        sq = (z.index_select(0, self.rows) - z.index_select(0, self.indices)).square_().sum(1)
        pull = self._matrix(self.weights * learned.slope(sq)) @ torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
        return self.weights @ learned.log_kernel(sq), 4 * (pull[:, -1:] * z - pull[:, :-1])

    def _compiled(self, learned, z):
        """The same in one pass of a compiled loop."""
        from ._loops import gaussian_edges, student_t_edges

        columns = [np.ascontiguousarray(column) for column in z.detach().numpy().T]
        x, y = columns if len(columns) == 2 else (columns[0], np.zeros_like(columns[0]))
        out = np.empty((len(x), 3), dtype=x.dtype)
        graph = (x, y, self.indptr.numpy(), self.indices.numpy(), self.weights.numpy())
        if hasattr(learned, "df"):
            student_t_edges(*graph, x.dtype.type(learned.df), out)
        else:
            gaussian_edges(*graph, x.dtype.type(learned.slope(z)), out)
        pull = torch.from_numpy(out)
        return pull[:, 2].sum(dtype=torch.float64).to(z.dtype), 4 * pull[:, : z.shape[1]]

    def _matrix(self, values):
        """The sparse matrix that has these values in place of the weights."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
            return torch.sparse_csr_tensor(self.indptr, self.indices, values, self.shape, check_invariants=False)


class DenseEdges:
    """A symmetric csr_array of weights as a dense matrix, for `edge_sum`."""

    def __init__(self, weights, dtype, device):
        self.weights = torch.as_tensor(weights.toarray(), dtype=dtype, device=device)

    def sum_and_gradient(self, learned, z):
        """(sum of w log k, its gradient), tile by tile."""
        total, pull = torch.zeros((), dtype=torch.float64, device=z.device), _Offsets(z)
        for rows, keys, sq, spare in _upper_tiles(z):
            weights = self.weights[rows, keys]
            total += _both_ways(torch.mul(learned.log_kernel(sq), weights, out=spare))
            pull.add(rows, keys, torch.mul(weights, learned.slope(sq), out=spare))
        return total.to(z.dtype), pull.total.mul_(4)


class _DenseStudentT(torch.autograd.Function):
    """`dense_student_t_sums`; with r = 1 / (1 + s/nu), log k = (nu + 1)/2 log r and h = -(nu + 1)/(2 nu) r."""

    @staticmethod
    def forward(ctx, z, df, edges):
        power = (df + 1) / 2
        value, total = torch.zeros(2, dtype=torch.float64, device=z.device)
        pull, push = _Offsets(z), _Offsets(z)
        for rows, keys, sq, spare in _upper_tiles(z):
            weights = edges.weights[rows, keys]
            base = sq.div_(df).add_(1).reciprocal_()
            log_base = base.log()
            kernel = torch.mul(log_base, power, out=spare).exp_() if df != 1 else spare.copy_(base)
            value += power * _both_ways(log_base.mul_(weights))
            pull.add(rows, keys, torch.mul(weights, base, out=log_base))
            total += _both_ways(_mask_diagonal(kernel))
            push.add(rows, keys, base.mul_(kernel))
        share = torch.where(total > 0, 1 / total, 0.0).to(z.dtype)  # all pairs may underflow
        ctx.save_for_backward(pull.total.mul_(-4 * power / df), push.total.mul_(-4 * power / df * share))
        return value.to(z.dtype), total.log().to(z.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_value, grad_log_z):
        pull, push = ctx.saved_tensors
        return pull * grad_value + push * grad_log_z, None, None


def dense_student_t_sums(learned, z, edges):
    """(`edge_sum`, `joint_log_normalizer`) of a Student-t kernel over dense edges, in one pass over the pairs.

    Parameters
    ----------
    learned : StudentT
    z : tensor of shape (n, d)
    edges : DenseEdges

    Returns
    -------
    tensor, tensor
    """
    value, log_z = _DenseStudentT.apply(z, learned.df, edges)
    return value, joint_log_normalizer(learned, z) if log_z.isneginf() else log_z
