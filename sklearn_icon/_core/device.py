"""Where and with how many threads torch computes."""

from contextlib import contextmanager

from joblib import effective_n_jobs
from threadpoolctl import threadpool_limits


def resolve_device(device):
    """The torch device that `device` asks for.

    Parameters
    ----------
    device : str
        "auto" is CUDA where there is one, else the CPU. Anything else is taken at its word.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        No such device, or a device that this machine or this build of torch has not got.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is no torch device; use 'auto', 'cpu', 'cuda' or 'mps'.") from error
    reason = {
        "cuda": None if torch.cuda.is_available() else _why_no_cuda(torch),
        "mps": None if torch.backends.mps.is_available() else "torch finds no Apple GPU",
    }.get(resolved.type)
    if reason:
        raise ValueError(f"device={device!r} was asked for, but {reason}; use device='auto' or 'cpu'.")
    return resolved


def _why_no_cuda(torch):
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this build of torch ({torch.__version__}) has no CUDA"
    return "torch finds no CUDA device"


@contextmanager
def threads(n_jobs, small=False):
    """Limit the thread pools of torch and of the numerical libraries.

    Parameters
    ----------
    n_jobs : int or None
        As in joblib; None leaves the pools as they are.
    small : bool, default=False
        Whether the work consists of many short operations. They run in one thread: waiting for others at the end of
        each costs more than they bring, and on a busy machine many times more.
    """
    if n_jobs is None and not small:
        yield
        return
    import torch

    before, count = torch.get_num_threads(), 1 if small else effective_n_jobs(n_jobs)
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
