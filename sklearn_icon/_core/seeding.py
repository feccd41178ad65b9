"""Random numbers of torch with a seed of their own.

What the library draws itself comes from generators of its own. Modules and augmentations of users draw from torch's
global generator, which is the process's: it is lent to one fit at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import TYPE_CHECKING

from .journal import passing, remember

if TYPE_CHECKING:
    import torch

_GLOBAL_GENERATOR = RLock()


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Give torch's generator, and that of a CUDA device, this seed inside, and the state that it had before outside.

    Other threads that ask for it here wait meanwhile.
    """
    import torch

    on_cuda = device is not None and torch.device(device).type == "cuda"
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        with passing():
            remember(lambda: torch.get_rng_state().numpy(), lambda state: torch.set_rng_state(torch.as_tensor(state)))
            if device is not None and on_cuda:
                remember(
                    lambda: torch.cuda.get_rng_state(device).numpy(),
                    lambda state: torch.cuda.set_rng_state(torch.as_tensor(state), device),
                )
            yield


def seeded_if(draws: bool, seed: int, device: torch.device | None = None) -> AbstractContextManager[None]:
    """As `seeded` where code inside draws from the global generator, else nothing."""
    return seeded(seed, device) if draws else nullcontext()
