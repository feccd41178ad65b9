"""Squared distances of all pairs from differences of coordinates, whose relative error is that of a few roundings.

By a matrix product, |a|^2 + |b|^2 - 2 a.b, the error is a rounding of |a|^2: between near rows larger than the distance
itself, and another on every processor. Differences cost several times as much; a kernel with a pole at zero needs them.
"""

from __future__ import annotations

from typing import Any

import torch


def sq_distances_by_differences(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|a_i - b_j|^2 of all pairs of rows, shape (n, m), zero where rows are equal.

    No more differences are held than those of one coordinate, but in second derivatives.
    """
    if torch.compiler.is_compiling():  # which makes one loop of it, and cannot read a function with its own gradient
        return _all_at_once(a, b)
    return _SqDistances.apply(a, b)


def _all_at_once(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a[:, None] - b).square().sum(2)


class _SqDistances(torch.autograd.Function):
    """`sq_distances_by_differences`; d s_ij / d a_i = 2 (a_i - b_j), from differences as well."""

    @staticmethod
    def forward(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        sq = a.new_zeros(len(a), len(b))
        difference = torch.empty_like(sq)
        for of_a, of_b in zip(a.T.contiguous(), b.T.contiguous(), strict=True):
            torch.sub(of_a[:, None], of_b, out=difference)
            sq.addcmul_(difference, difference)
        return sq

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b = ctx.saved_tensors
        if torch.is_grad_enabled():
            return torch.autograd.grad(_all_at_once(a, b), (a, b), gradient, create_graph=True)
        grad_a, grad_b = a.new_empty(a.shape[::-1]), b.new_empty(b.shape[::-1])
        pull = torch.empty_like(gradient)
        for of_a, of_b, to_a, to_b in zip(a.T.contiguous(), b.T.contiguous(), grad_a, grad_b, strict=True):
            torch.sub(of_a[:, None], of_b, out=pull).mul_(gradient)
            torch.sum(pull, 1, out=to_a)
            torch.sum(pull, 0, out=to_b)
        return 2 * grad_a.T, -2 * grad_b.T
