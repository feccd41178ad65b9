"""Rows of unit length, whatever their lengths were, in any precision."""

from __future__ import annotations

from typing import Any

import torch

_PLAIN = 1e-15, 1e15  # lengths whose squares are of full precision


def unit_rows(z: torch.Tensor) -> torch.Tensor:
    """z_i / |z_i|; rows of zeros stay, and their gradients are finite.

    Rows are first divided by their largest entry: the squares of what is left neither vanish nor overflow.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return _by_operations(z)[0]
    return _UnitRows.apply(z)


def _by_operations(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(unit rows, what rows were divided by, first and second)."""
    top = z.detach().abs().amax(1, keepdim=True)  # the result does not depend on it, so neither does the gradient
    top = top.masked_fill(top == 0, 1)
    z = z / top
    length = z.norm(dim=1, keepdim=True).clamp_min(1)
    return z / length, top, length


class _UnitRows(torch.autograd.Function):
    """With d u_i = (d z_i - u_i (u_i . d z_i)) / |z_i| in four operations; torch's own take five times as long."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
        length = _plain_lengths(z)
        unit, *lengths = list(_by_operations(z)) if length is None else [z / length, length]
        ctx.save_for_backward(z, unit, *lengths)
        return unit

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> torch.Tensor:
        z, unit, *lengths = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            return torch.autograd.grad(_by_operations(z)[0], z, grad_output, create_graph=True)
        along = (unit * grad_output).sum(1, keepdim=True)
        gradient = torch.addcmul(grad_output, unit, along, value=-1)
        for length in reversed(lengths):
            gradient.div_(length)
        return gradient


def _plain_lengths(z: torch.Tensor) -> torch.Tensor | None:
    """|z_i|, where on the CPU all of them are neither zero nor so long or short that their squares are rounded off."""
    if z.device.type != "cpu" or not z.numel() or z.dtype not in (torch.float32, torch.float64):
        return None
    length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    least, most = torch.aminmax(length)
    return length if least.item() > _PLAIN[0] and most.item() < _PLAIN[1] else None
