"""Run code in fresh interpreters and time it, imports and start-up included."""

import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path


def seconds(code, env=None, folder=None):
    """Wall seconds of `python -c code`, and its last line of output; what a folder holds is imported from there."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=folder,
    )
    elapsed = time.perf_counter() - start
    return elapsed, (done.stdout.strip().splitlines() or [""])[-1]


def peak_mb():
    """The most memory that this process held, in MB; on Linux without what its parent held when it was forked."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def machine():
    """What the seconds were measured on."""
    names = ("scikit-learn", "torch", "numba", "numpy")
    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "sklearn_icon": seconds("import sklearn_icon; print(sklearn_icon.__version__)")[1],
        **{name: version(name) for name in names},
    }
