"""Torch modules on the estimators' side: rows in, representations out, state as NumPy."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from .._core.quiet import quiet
from .._core.types import Array, Rows
from .._core.unit_rows import unit_rows
from ._scaling import FAR, FARTHEST, ROWS_AT_ONCE, column_factors, input_scale, may_exceed

if TYPE_CHECKING:
    from torch import Tensor

    from ._base import Encoder

_NUMBERS_AT_ONCE = 1 << 20


def as_tensor(X: Rows, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Rows as a dense tensor; sparse rows are made dense, so pass a batch of them."""
    dense = X.toarray() if sparse.issparse(X) else np.array(X)  # a copy: torch must not share the user's memory
    return torch.as_tensor(dense, dtype=dtype, device=device)


def torch_dtype(X: Rows) -> torch.dtype:
    """float32 for float32 rows, else float64."""
    return torch.float32 if X.dtype == np.float32 else torch.float64


class _InputScale(torch.nn.Module):
    """(x - shift) * factor, one for each column or all, so that encoders see rows around zero and of unit spread.

    Rows whose root mean square is then above `limit` are shortened to it.
    """

    def __init__(self, shift: Tensor, factor: Tensor, limit: Tensor | None = None) -> None:
        super().__init__()
        self.shift: Tensor
        self.factor: Tensor
        self.register_buffer("shift", shift)
        self.register_buffer("factor", factor)
        self.register_buffer("limit", limit)

    def forward(self, x: Tensor) -> Tensor:
        z = (x - self.shift) * self.factor
        if self.limit is None:
            return z
        numbers, n = torch.finfo(z.dtype), z.shape[1:].numel()
        z = z.clamp(numbers.min, numbers.max)
        rows = z.flatten(1)
        top = rows.abs().amax(dim=1, keepdim=True).clamp_min(1)
        size = top * ((rows / top).norm(dim=1, keepdim=True) / n**0.5)  # at most the largest entry
        return z * (self.limit / size.clamp_min(self.limit)).view(-1, *[1] * (z.ndim - 1))


class UnitRows(torch.nn.Module):
    """z / |z|, for losses that would fall without end as lengths grow or shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("unit", torch.ones(()))  # in the state it says that rows are of unit length

    def forward(self, z: Tensor) -> Tensor:
        return unit_rows(z)


class _Rows(torch.nn.Sequential):
    """Modules one after the other, that read items as rows of features where they are flat, and return rows."""

    def __init__(
        self, parts: list[torch.nn.Module], flat: bool, n_outputs: int, scale: _InputScale | None = None
    ) -> None:
        super().__init__(*([] if scale is None else [scale]), *parts)
        self.flat, self.n_outputs, self.n_scales = flat, n_outputs, int(scale is not None)

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1) if self.flat else x
        for number, part in enumerate(self):
            z = part(z)
            if number >= self.n_scales:
                self._check(z, len(x))
        return z

    def _check(self, z: Any, n_items: int) -> None:
        """Refuse what an encoder returned, where it has no row of the width asked for of each item."""
        found = tuple(z.shape) if isinstance(z, torch.Tensor) else type(z).__name__
        if found != (n_items, self.n_outputs):
            raise ValueError(
                f"the encoder's module must return n_outputs={self.n_outputs} columns for each item, shape "
                f"{(n_items, self.n_outputs)} here, but returned {found}; let its factory heed n_outputs."
            )


def build_module(
    encoder: Encoder,
    X: Rows,
    n_outputs: int,
    seed: int,
    dtype: torch.dtype,
    sample_weight: Array | None = None,
    *,
    by_column: bool = True,
    unit_rows: bool = False,
) -> Any:
    """The encoder's module behind a scaling of its inputs, which an orthonormal map does without.

    Each column has a mean of its own, or all numbers of X one: always where X has more axes than two. `unit_rows`
    scales representations to unit length. The module, a `_Rows`, raises a ValueError where the encoder's returns
    anything but rows of `n_outputs` columns.
    """
    parts, scale = [encoder.build(prod(X.shape[1:]), n_outputs, seed=seed, dtype=dtype)], None
    if not encoder.orthonormal:
        by_column = by_column and X.ndim == 2
        columns = column_factors(X, sample_weight) if by_column and not encoder.is_linear else None
        shift, factor = input_scale(X, sample_weight, by_column, columns)
        limit = FARTHEST if encoder.is_linear else FAR
        limits = () if encoder.is_linear and not may_exceed(X, shift, factor, limit) else (limit,)
        scale = _InputScale(*(torch.as_tensor(number, dtype=dtype) for number in (shift, factor, *limits)))
    return _Rows(parts + [UnitRows()] * unit_rows, encoder.flat, n_outputs, scale)


class FixedRows:
    """Rows as the left factor of a matrix product whose right factor is learned; sparse ones are never made dense.

    On the CPU dense rows are multiplied by NumPy, in double precision twice as fast here as by torch.
    """

    def __init__(self, X: Rows, dtype: torch.dtype, device: torch.device | str) -> None:
        self.rows: Any
        self.columns: Any
        self.by_numpy = not sparse.issparse(X) and torch.device(device).type == "cpu"
        if sparse.issparse(X):
            self.rows, self.columns = (_torch_csr(sparse.csr_array(part), dtype, device) for part in (X, X.T))
        else:
            rows = torch.as_tensor(X, dtype=dtype, device=device)
            self.rows = rows.numpy() if self.by_numpy else rows
            self.columns = self.rows.T

    def __matmul__(self, weights: Tensor) -> Tensor:
        """X @ weights, differentiable in the weights."""
        return _Product.apply(self, weights)

    def times(self, left: Any, right: Tensor) -> Tensor:
        """The product of rows or columns with a matrix, outside autograd."""
        return torch.from_numpy(left @ right.detach().numpy()) if self.by_numpy else left @ right


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, factor: FixedRows, weights: Tensor) -> Tensor:
        ctx.factor = factor
        return factor.times(factor.rows, weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor]:
        return None, ctx.factor.times(ctx.factor.columns, grad_output.contiguous())


def _torch_csr(matrix: sparse.csr_array, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    indptr, indices = (torch.as_tensor(part, device=device) for part in (matrix.indptr, matrix.indices))
    values = torch.as_tensor(matrix.data, dtype=dtype, device=device)
    with quiet("Sparse (CSR tensor support|invariant checks)"):
        return torch.sparse_csr_tensor(indptr, indices, values, matrix.shape, check_invariants=False)


def state_arrays(module: torch.nn.Module) -> dict[str, Array]:
    """The state of a module as NumPy arrays on the CPU, which load anywhere."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def load_module(encoder: Encoder, n_inputs: int, n_outputs: int, state: dict[str, Array]) -> Any:
    """The module that `state_arrays` described, on the CPU and in evaluation mode."""
    tensors = {name: torch.as_tensor(value) for name, value in state.items()}
    dtype = next(value.dtype for value in tensors.values() if value.is_floating_point())
    parts = [encoder.build(n_inputs, n_outputs, dtype=dtype)]
    scale = [tensors[name] for name in ("0.shift", "0.factor", "0.limit") if name in tensors]
    if any(name.endswith(".unit") for name in tensors):
        parts.append(UnitRows())
    sequence = _Rows(parts, encoder.flat, n_outputs, _InputScale(*scale) if scale else None)
    sequence.load_state_dict(tensors)
    return sequence.eval()


def block_rows(X: Rows) -> int:
    """How many items go through a module at once."""
    return min(X.shape[0], ROWS_AT_ONCE, max(1, _NUMBERS_AT_ONCE // max(1, prod(X.shape[1:]))))


def encode(module: torch.nn.Module, X: Rows) -> Array:
    """Representations of rows as NumPy, finite or a ValueError, a block at a time, in the module's precision."""
    first = next(module.parameters())
    step = block_rows(X)
    with torch.no_grad():
        blocks = [
            module(as_tensor(X[start : start + step], first.dtype, first.device)).cpu().numpy()
            for start in range(0, X.shape[0], step)
        ]
    rows = np.concatenate(blocks)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the encoder represents some rows by NaN or infinity; check its module, and X, which holds "
            f"{X[bad].max():g} and {X[bad].min():g} in such rows, of which the first is row {bad[0]}: rescale "
            "it, or drop these rows."
        )
    return rows
