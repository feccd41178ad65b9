"""Where torch computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING

from .group import group
from .spec import shown

if TYPE_CHECKING:
    import torch

_WORKING = ContextVar("device of the fit at hand", default="cpu")


@contextmanager
def working_on(device: torch.device | str) -> Iterator[None]:
    """Let what the block calls, in this thread, work on the device of a fit; see `accelerator`."""
    token = _WORKING.set(str(device))
    try:
        yield
    finally:
        _WORKING.reset(token)


def accelerator() -> str | None:
    """The CUDA device that the fit at hand works on, by name, or None: no part of a fit on the CPU runs elsewhere."""
    name = _WORKING.get()
    return name if name.startswith("cuda") else None


def resolve_device(device: str) -> torch.device:
    """The torch device that `device` asks for: "auto" is CUDA where there is one, else the CPU; over ranks the CPU.

    A ValueError where there is no such device, or this machine or this build of torch has not got it.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not group().several else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={shown(device)} is no torch device; use 'auto', 'cpu', 'cuda' or 'mps'.") from error
    reason = {
        "cuda": None if torch.cuda.is_available() else _why_no_cuda(torch),
        "mps": None if torch.backends.mps.is_available() else "torch finds no Apple GPU",
    }.get(resolved.type)
    if reason:
        raise ValueError(f"device={device!r} was asked for, but {reason}; use device='auto' or 'cpu'.")
    return resolved


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bfloat16 by instructions of its own; others take ten times as long."""
    import torch

    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _why_no_cuda(torch: ModuleType) -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this build of torch ({torch.__version__}) has no CUDA"
    return "torch finds no CUDA device"
