"""An encoder as its loss sees it while it is trained: behind it a head, beside it an average of its past."""

import copy

import torch

from ..encoders import Encoder
from ..encoders._networks import UnitRows


class TrainedEncoder:
    """What represents rows and what represents keys during a fit, and all tensors that change meanwhile.

    ::

        rows: g(f(x)) with weights theta;    keys: the same, or g(f(x)) with weights xi and no gradient
        xi <- momentum * xi + (1 - momentum) * theta     at each `follow`

    Parameters
    ----------
    encoder : Encoder
        Says whether there is a head g, and a momentum.
    module : torch.nn.Module
        f, as `build_module` makes it, and what is kept after the fit.
    n_components : int
        Columns of f(x).
    seed : int
        Seeds the head's weights.
    unit_rows : bool, default=False
        Whether the head's outputs are scaled to unit length.

    Attributes
    ----------
    represent : torch.nn.Module
        Rows in, representations out.
    represent_keys : torch.nn.Module or None
        The same of keys; None where these are represented as rows.
    params : list of tensors
        That a loss is minimised over.
    kept : list of tensors
        That change with them, so that a solver which goes back takes these back too.
    """

    def __init__(
        self, encoder: Encoder, module: torch.nn.Module, n_components: int, seed: int, unit_rows: bool = False
    ) -> None:
        first = next(module.parameters())
        head = encoder.build_head(n_components, seed=seed, dtype=first.dtype)
        parts = [module] if head is None else [module, head.to(first.device), *[UnitRows()] * unit_rows]
        self.represent = torch.nn.Sequential(*parts).train()
        self.momentum = encoder.momentum
        self.represent_keys = None if self.momentum is None else copy.deepcopy(self.represent).requires_grad_(False)
        self.params = [param for param in self.represent.parameters() if param.requires_grad]
        self.kept = [
            *self.represent.buffers(),
            *([] if self.represent_keys is None else self.represent_keys.state_dict().values()),
        ]

    def follow(self) -> None:
        """Move the keys' weights after a step of the rows'; buffers, such as running means, are each one's own."""
        if self.represent_keys is None or self.momentum is None:
            return
        with torch.no_grad():
            for behind, ahead in zip(self.represent_keys.parameters(), self.represent.parameters(), strict=True):
                behind.lerp_(ahead, 1 - self.momentum)

    def eval(self) -> None:
        """Put all modules into evaluation mode."""
        self.represent.eval()
        if self.represent_keys is not None:
            self.represent_keys.eval()
