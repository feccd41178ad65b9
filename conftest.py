"""What pytest does not collect: modules whose optional library is missing, tests that run in a process of their own."""

import os
from importlib.util import find_spec

collect_ignore = [] if find_spec("triton") else ["sklearn_icon/_objective/triton_loops.py"]
if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore.append("tests/interpreted_loops.py")
