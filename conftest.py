"""What pytest does not collect: modules whose optional library is missing, tests that run in a process of their own.

Workers beside each other compute on one thread each; tests of threads set how many they need.
"""

import os
from importlib.util import find_spec

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read as NumPy and torch are imported, and by processes of tests

collect_ignore = [] if find_spec("triton") else ["sklearn_icon/_objective/triton_loops.py"]
if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore.append("tests/interpreted_loops.py")
