"""One batch spread over the processes of torch.distributed: its rows together, and averages over all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


class JointBatch:
    """The rows of all processes, those of rank 0 first; of this one alone without a process group, or if not `across`.

    `rows` are those of this process within the joint batch; others may have other numbers of rows.
    """

    def __init__(self, n_rows: int, device: torch.device, across: bool) -> None:
        self.rows, self.n_ranks, self.rank = slice(0, n_rows), 1, 0
        if across and distributed.is_available() and distributed.is_initialized():
            self.n_ranks, self.rank = distributed.get_world_size(), distributed.get_rank()
            self.sizes = _collect(torch.tensor(n_rows, device=device), self.n_ranks).tolist()
            first = sum(self.sizes[: self.rank])
            self.rows = slice(first, first + n_rows)

    def gather(self, tensor: torch.Tensor | None) -> Any:
        """The rows of all processes; gradients return to the process that a row came from."""
        if self.n_ranks == 1 or tensor is None:
            return tensor
        padding = tensor.new_zeros(max(self.sizes) - len(tensor), *tensor.shape[1:])
        parts = _AllGather.apply(torch.cat([tensor, padding]), self.rank, self.n_ranks)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, outside autograd."""
        total = value.detach().clone()
        if self.n_ranks > 1:
            _add_up(total)
        return total

    def mean(self, costs: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """The sum of all costs over a count of all processes.

        The mean over processes of its gradients is the gradient of that mean.
        """
        if self.n_ranks == 1:
            return costs.sum() / count
        own = costs.sum() * self.n_ranks / count
        return own + (self.sum(costs.sum()) / count - own).detach()


@torch.compiler.disable
def _collect(tensor: torch.Tensor, n_ranks: int) -> torch.Tensor:
    """The tensors of all processes, of one shape."""
    parts = [torch.empty_like(tensor) for _ in range(n_ranks)]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)


@torch.compiler.disable
def _add_up(tensor: torch.Tensor) -> None:
    """Put the sum over all processes in place of a tensor."""
    distributed.all_reduce(tensor)


class _AllGather(torch.autograd.Function):
    """The tensors of all processes. The gradient of one is the sum of what all processes have for it."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, rank: int, n_ranks: int) -> torch.Tensor:
        ctx.rank = rank
        return _collect(tensor, n_ranks)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        total = grad_output.clone(memory_format=torch.contiguous_format)
        _add_up(total)
        return total[ctx.rank], None, None
