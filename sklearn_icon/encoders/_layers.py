"""Layers whose first weights come from a generator of their own."""

from __future__ import annotations

from math import sqrt

import torch


class Linear(torch.nn.Linear):
    """A linear layer that starts as torch's own does with this generator in place of the global one."""

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        generator: torch.Generator,
        bias: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(n_inputs, n_outputs, bias=bias, dtype=dtype)
        bound = 1 / sqrt(n_inputs) if n_inputs else 0.0
        with torch.no_grad():
            torch.nn.init.kaiming_uniform_(self.weight, a=sqrt(5), generator=generator)
            if bias:
                self.bias.uniform_(-bound, bound, generator=generator)

    def reset_parameters(self) -> None:
        """Leave the weights to `__init__`, as the global generator is not to be moved."""
