"""Sums over the pairs of a map, all or those of edges, in one compiled pass on CUDA, and whether that is possible.

The loops of `triton_loops` read scaled points u = c z: c^2 = 1 / (2 sigma^2) for a Gaussian, 1 / nu for a Student-t
kernel, whose power is p = (nu + 1) / 2.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from math import sqrt
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..learned import Learned
    from ..learned._base import SlopeTerms

_DIMENSIONS = 8
_KEYS = 128  # of a tile, one a thread
_NUMBERS = 32  # coordinates of a tile's rows, which bound the registers of a thread
_EDGES = 64  # of a row at a time, by one group of threads
_PROGRAMS = 1024  # that keep a large GPU busy; where rows make fewer, keys are cut into spans


def can_fuse(learned: Learned, z: Tensor) -> bool:
    """Whether compiled loops can sum a kernel over all pairs of z: on CUDA, in few dimensions, where triton runs."""
    return (
        z.is_cuda
        and z.shape[1] <= _DIMENSIONS
        and z.dtype in (torch.float32, torch.float64)
        and learned.slope_terms is not None
        and _triton_runs(z.device)
    )


@cache
def _triton_runs(device: torch.device) -> bool:
    """Whether triton is installed and runs on a device; where it is and does not, one warning says so."""
    if find_spec("triton") is None:
        return False
    try:
        float(joint_sums((1.0, 1.0, -1.0), torch.zeros(2, 1, device=device))[0])
    except Exception as error:  # no C compiler, a device that it does not know, ...
        message = f"triton does not run on {device}; sums over all pairs take slower tiles of PyTorch instead. {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return False
    return True


def _scaled(slope_terms: SlopeTerms, z: Tensor) -> tuple[Tensor, float, float, str]:
    """(u transposed, padded to a power of two dimensions, c, p, its name) of a kernel with slope c / (a + b d^2)."""
    a, b, c = slope_terms
    scale, power = (sqrt(-c / a), 1.0) if b == 0 else (sqrt(b / a), -c / b)
    kernel = "gaussian" if b == 0 else "cauchy" if power == 1 else "student-t"
    n, d = z.shape
    u = z.new_zeros(1 << (d - 1).bit_length(), n)
    u[:d] = scale * z.detach().T
    return u, scale, power, kernel


def _launch(name: str, u: Tensor, power: float, kernel: str, n_sums: int, *more: Tensor) -> Tensor:
    """What a loop computes of all rows, shape (spans, n_sums, n)."""
    from . import triton_loops

    d, n = u.shape
    rows = _NUMBERS // max(d, 2) // (u.element_size() // 4)
    programs, tiles = -(-n // rows), -(-n // _KEYS)
    span = _KEYS * -(-tiles // -(-_PROGRAMS // programs))
    spans = -(-n // span)
    out = u.new_empty(spans, n_sums, n)
    with torch.cuda.device_of(u):
        loop = vars(triton_loops)[name][programs, spans]
        exponent = u.new_full((), power)  # a number would lose half of its digits on the way
        loop(u, exponent, out, n, span, *more, D=d, KIND=kernel, ROWS=rows, KEYS=_KEYS, enable_fp_fusion=True)
    return out


def joint_sums(slope_terms: SlopeTerms, z: Tensor) -> tuple[Tensor, Tensor]:
    """(sum over i and j != i of k(|z_i - z_j|^2), in double precision, its gradient), in linear space."""
    u, scale, power, kernel = _scaled(slope_terms, z)
    sums = _launch("joint", u, power, kernel, len(u) + 1).sum(0)
    push = sums[: z.shape[1]].T
    return sums[-1].sum(dtype=torch.float64), (-4 * power * scale) * push


def edge_sums(
    slope_terms: SlopeTerms, z: Tensor, indptr: Tensor, indices: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """(sum of w_ij log k(|z_i - z_j|^2) in double precision, its gradient), of symmetric rows of edges."""
    from . import triton_loops

    u, scale, power, kernel = _scaled(slope_terms, z)
    d, n = u.shape
    out = u.new_empty(n, d + 1)
    with torch.cuda.device_of(u):
        arrays = u.T.contiguous(), out, indptr, indices, weights
        triton_loops.edges[n,](*arrays, D=d, KIND=kernel, EDGES=_EDGES, num_warps=1, enable_fp_fusion=True)
    return power * out[:, -1].sum(dtype=torch.float64), (-4 * power * scale) * out[:, : z.shape[1]]


class RowLogNormalizer(torch.autograd.Function):
    """log sum_{j != i} k(|z_i - z_j|^2) of each row, any scale; arguments as `joint_sums`."""

    @staticmethod
    def forward(ctx: Any, slope_terms: SlopeTerms, z: Tensor) -> Tensor:
        """Normalisers of shape (n,)."""
        u, _, power, kernel = _scaled(slope_terms, z)
        log_z = _launch("row_log_sums", u, power, kernel, 1)[:, 0].logsumexp(0)
        ctx.save_for_backward(z, log_z)
        ctx.slope_terms = slope_terms
        return log_z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_log_z: Tensor) -> tuple[None, Tensor]:
        """The gradient through z_i as a row and as a key."""
        z, log_z = ctx.saved_tensors
        u, scale, power, kernel = _scaled(ctx.slope_terms, z)
        sums = _launch("row_pushes", u, power, kernel, len(u), log_z, grad_log_z.contiguous()).sum(0)
        return None, (-2 * power * scale) * sums[: z.shape[1]].T
