"""How much memory is free: what the machine, control groups and the limits of the process leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

Bounds = Iterator[tuple[int, str]]


def free() -> tuple[int, str]:
    """(bytes that this process may still take, what bounds them)."""
    bounds = [*_of_the_machine(), *_of_groups(), *_of_the_process()]
    return min(bounds, default=(sys.maxsize, "nothing"))


def _of_the_machine() -> Bounds:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        numbers = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        yield numbers["MemAvailable"], "memory of the machine"
    except (OSError, KeyError, IndexError, ValueError):
        return


def _of_groups() -> Bounds:
    """Limits of the control groups of either version that the process is in."""
    try:
        groups = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for controllers, path in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        folders = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(folders) + 1):
            left = _left_in(root.joinpath(*folders[:depth]), *names)
            if left is not None:
                yield left, "the limit of the control group"


def _left_in(folder: Path, limit_name: str, used_name: str) -> int | None:
    """What a control group leaves, files that it only caches counted as free; None where it has no limit."""
    try:
        limit, used = folder.joinpath(limit_name).read_text().strip(), int(folder.joinpath(used_name).read_text())
        lines = folder.joinpath("memory.stat").read_text().splitlines()
        cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return None if limit == "max" or int(limit) >= 1 << 60 else int(limit) - used + cached
    except (OSError, ValueError, IndexError):
        return None


def _of_the_process() -> Bounds:
    """The limits of addresses and of data (`ulimit -v` and `-d`); libraries and threads take more than they use."""
    if os.name != "posix":
        return
    import resource

    for name, what, place in (("RLIMIT_AS", "address space", 0), ("RLIMIT_DATA", "data", 5)):
        limit = resource.getrlimit(vars(resource)[name])[0]
        if limit == resource.RLIM_INFINITY:
            continue
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[place])
            yield max(0, limit - pages * resource.getpagesize()), f"the limit of {what}, {name}"
        except (OSError, IndexError, ValueError):
            return
