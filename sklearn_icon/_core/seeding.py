"""Random generators with a seed of their own."""

from contextlib import contextmanager


@contextmanager
def seeded(seed, device=None):
    """Give torch's generator, and that of a CUDA device, this seed inside, and the state that it had before outside."""
    import torch

    on_cuda = device is not None and torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
