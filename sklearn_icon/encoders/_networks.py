"""Torch modules on the estimators' side: rows in, representations out, state as NumPy."""

from math import prod
from typing import Any

import numpy as np
import torch
from scipy import sparse

from .._core.quiet import quiet
from .._core.unit_rows import unit_rows
from ._scaling import FAR, ROWS_AT_ONCE, input_scale

_NUMBERS_AT_ONCE = 1 << 20


def as_tensor(X, dtype, device):
    """Rows as a dense tensor; sparse rows are made dense, so pass a batch of them."""
    dense = X.toarray() if sparse.issparse(X) else np.array(X)  # a copy: torch must not share the user's memory
    return torch.as_tensor(dense, dtype=dtype, device=device)


def torch_dtype(X):
    """float32 for float32 rows, else float64."""
    return torch.float32 if X.dtype == np.float32 else torch.float64


class _InputScale(torch.nn.Module):
    """(x - shift) * factor, so that encoders see rows around zero and of unit spread.

    Rows whose root mean square is then above `limit` are shortened to it.
    """

    def __init__(self, shift, factor, limit=None):
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("factor", factor)
        self.register_buffer("limit", limit)

    def forward(self, x):
        z = (x - self.shift) * self.factor
        if self.limit is None:
            return z
        largest = torch.finfo(z.dtype).max ** 0.5
        z = z.clamp(-largest, largest)
        size = (z.flatten(1) / z.shape[1:].numel() ** 0.5).norm(dim=1)
        return z * (self.limit / size.clamp_min(self.limit)).view(-1, *[1] * (z.ndim - 1))


class UnitRows(torch.nn.Module):
    """z / |z|, for losses that would fall without end as lengths grow or shrink."""

    def __init__(self):
        super().__init__()
        self.register_buffer("unit", torch.ones(()))  # in the state it says that rows are of unit length

    def forward(self, z):
        return unit_rows(z)


class _Rows(torch.nn.Sequential):
    """Modules one after the other, that read items as rows of features where they are flat, and return rows."""

    def __init__(self, parts, flat, n_outputs):
        super().__init__(*parts)
        self.flat, self.n_outputs = flat, n_outputs

    def forward(self, x):
        z = x.flatten(1) if self.flat else x
        for part in self:
            z = part(z) if isinstance(part, _InputScale) else self._checked(part(z), len(x))
        return z

    def _checked(self, z, n_items):
        """What an encoder returned, where it has a row of the width asked for of each item."""
        found = tuple(z.shape) if isinstance(z, torch.Tensor) else type(z).__name__
        if found != (n_items, self.n_outputs):
            raise ValueError(
                f"the encoder's module must return n_outputs={self.n_outputs} columns for each item, shape "
                f"{(n_items, self.n_outputs)} here, but returned {found}; let its factory heed n_outputs."
            )
        return z


def build_module(encoder, X, n_outputs, seed, dtype, sample_weight=None, *, by_column=True, unit_rows=False):
    """The encoder's module behind a scaling of its inputs, which an orthonormal map does without.

    Parameters
    ----------
    encoder : Encoder
    X : ndarray or sparse matrix of shape (n, ...)
    n_outputs, seed : int
    dtype : torch.dtype
    sample_weight : ndarray of shape (n,), default=None
    by_column : bool, default=True
        Whether each column has a mean of its own, or all numbers of X one; always one where X has more axes than two.
    unit_rows : bool, default=False
        Whether representations are scaled to unit length.

    Returns
    -------
    torch.nn.Sequential
        Which raises a ValueError where the encoder's module returns anything but rows of `n_outputs` columns.
    """
    module = encoder.build(prod(X.shape[1:]), n_outputs, seed=seed, dtype=dtype)
    parts = [module]
    if not encoder.orthonormal:
        scale = input_scale(X, sample_weight, by_column and X.ndim == 2)
        limit = () if encoder.is_linear else (FAR,)
        parts.insert(0, _InputScale(*(torch.as_tensor(part, dtype=dtype) for part in (*scale, *limit))))
    return _Rows(parts + [UnitRows()] * unit_rows, encoder.flat, n_outputs)


class FixedRows:
    """Rows as the left factor of a matrix product whose right factor is learned; sparse ones are never made dense.

    On the CPU dense rows are multiplied by NumPy, in double precision twice as fast here as by torch.
    """

    def __init__(self, X, dtype, device):
        self.rows: Any
        self.columns: Any
        if sparse.issparse(X):
            self.rows, self.columns = (_torch_csr(sparse.csr_array(part), dtype, device) for part in (X, X.T))
        else:
            rows = torch.as_tensor(X, dtype=dtype, device=device)
            self.rows = rows.numpy() if rows.device.type == "cpu" else rows
            self.columns = self.rows.T

    def __matmul__(self, weights):
        """X @ weights, differentiable in the weights."""
        return _Product.apply(self, weights)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, factor, weights):
        ctx.factor = factor
        return _times(factor.rows, weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        return None, _times(ctx.factor.columns, grad_output.contiguous())


def _times(left, right):
    if isinstance(left, np.ndarray):
        return torch.from_numpy(left @ right.detach().numpy())
    return left @ right


def _torch_csr(matrix, dtype, device):
    indptr, indices = (torch.as_tensor(part, device=device) for part in (matrix.indptr, matrix.indices))
    values = torch.as_tensor(matrix.data, dtype=dtype, device=device)
    with quiet("Sparse (CSR tensor support|invariant checks)"):
        return torch.sparse_csr_tensor(indptr, indices, values, matrix.shape, check_invariants=False)


def state_arrays(module):
    """The state of a module as NumPy arrays on the CPU, which load anywhere."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def load_module(encoder, n_inputs, n_outputs, state):
    """The module that `state_arrays` described, on the CPU and in evaluation mode."""
    tensors = {name: torch.as_tensor(value) for name, value in state.items()}
    dtype = next(value.dtype for value in tensors.values() if value.is_floating_point())
    parts = [encoder.build(n_inputs, n_outputs, dtype=dtype)]
    scale = [tensors[name] for name in ("0.shift", "0.factor", "0.limit") if name in tensors]
    if scale:
        parts.insert(0, _InputScale(*scale))
    if any(name.endswith(".unit") for name in tensors):
        parts.append(UnitRows())
    sequence = _Rows(parts, encoder.flat, n_outputs)
    sequence.load_state_dict(tensors)
    return sequence.eval()


def block_rows(X):
    """How many items go through a module at once."""
    return min(X.shape[0], ROWS_AT_ONCE, max(1, _NUMBERS_AT_ONCE // max(1, prod(X.shape[1:]))))


def encode(module, X):
    """Representations of rows as NumPy, finite or a ValueError, a block at a time, in the module's precision."""
    first = next(module.parameters())
    step = block_rows(X)
    with torch.no_grad():
        blocks = [
            module(as_tensor(X[start : start + step], first.dtype, first.device)).cpu().numpy()
            for start in range(0, X.shape[0], step)
        ]
    rows = np.concatenate(blocks)
    if not np.isfinite(rows).all():
        raise ValueError("the encoder represents some rows by NaN or infinity; check its module.")
    return rows
