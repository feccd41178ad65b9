"""Torch modules on the estimators' side: rows in, representations out, state as NumPy."""

import warnings
from typing import Any

import numpy as np
import torch
from scipy import sparse

_ROWS_AT_ONCE = 8192


def as_tensor(X, dtype, device):
    """Rows as a dense tensor; sparse rows are made dense, so pass a batch of them."""
    dense = X.toarray() if sparse.issparse(X) else np.array(X)  # a copy: torch must not share the user's memory
    return torch.as_tensor(dense, dtype=dtype, device=device)


def torch_dtype(X):
    """float32 for float32 rows, else float64."""
    return torch.float32 if X.dtype == np.float32 else torch.float64


class _InputScale(torch.nn.Module):
    """(x - shift) * factor, so that encoders see rows around zero and of unit spread."""

    def __init__(self, shift, factor):
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("factor", factor)

    def forward(self, x):
        return (x - self.shift) * self.factor


def build_module(encoder, X, n_outputs, seed, dtype, sample_weight=None):
    """The encoder's module behind a scaling of its inputs, which an orthonormal map does without."""
    module = encoder.build(X.shape[1], n_outputs, seed=seed, dtype=dtype)
    if getattr(encoder, "orthonormal", False):
        return torch.nn.Sequential(module)
    shift, factor = input_scale(X, sample_weight)
    return torch.nn.Sequential(
        _InputScale(torch.as_tensor(shift, dtype=dtype), torch.as_tensor(factor, dtype=dtype)), module
    )


def input_scale(X, sample_weight=None):
    """(shift, factor): column means, zero for sparse rows, and one over the overall standard deviation."""
    share = np.full(X.shape[0], 1 / X.shape[0]) if sample_weight is None else sample_weight / sample_weight.sum()
    if sparse.issparse(X):
        shift = np.zeros(X.shape[1])
        variance = (share @ X.multiply(X)).mean() - (share @ X).mean() ** 2
    else:
        shift = share @ X
        variance = (share @ np.square(X - shift)).mean()
    return shift, 1 / np.sqrt(variance) if variance > 0 else 1.0


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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        return torch.sparse_csr_tensor(indptr, indices, values, matrix.shape, check_invariants=False)


def state_arrays(module):
    """The state of a module as NumPy arrays on the CPU, which load anywhere."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def load_module(encoder, n_inputs, n_outputs, state):
    """The module that `state_arrays` described, on the CPU and in evaluation mode."""
    dtype = getattr(torch, str(next(iter(state.values())).dtype))
    module = encoder.build(n_inputs, n_outputs, dtype=dtype)
    scaled = any(name.endswith("shift") for name in state)
    zero = torch.zeros(n_inputs, dtype=dtype)
    parts = [_InputScale(zero, zero.new_ones(())), module] if scaled else [module]
    sequence = torch.nn.Sequential(*parts)
    sequence.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    return sequence.eval()


def encode(module, X):
    """Representations of rows as NumPy, a block of rows at a time, in the module's precision."""
    first = next(module.parameters())
    with torch.no_grad():
        blocks = [
            module(as_tensor(X[start : start + _ROWS_AT_ONCE], first.dtype, first.device)).cpu().numpy()
            for start in range(0, X.shape[0], _ROWS_AT_ONCE)
        ]
    return np.concatenate(blocks)
