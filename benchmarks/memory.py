"""Predicted and measured memory of fits at the defaults.

    python benchmarks/memory.py --json benchmarks/results/memory.json

Each fit is in a process of its own; what is measured is the highest resident memory of the process (VmHWM) above that
before the fit, X included in neither. With "loaded" fits of fewer rows have loaded the libraries before.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

RUN = """
import ctypes, json, sys, warnings
import numpy as np
from sklearn.datasets import make_blobs
import sklearn_icon
warnings.simplefilter("ignore")
name, n, d, dtype = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

def made(n):
    X, y = make_blobs(n, d, centers=10, cluster_std=3.0, random_state=0)
    X = X.astype(dtype)
    return X, X[:, : d // 2].copy() if name == "ICONCrossModal" else y

def resident(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024

model = getattr(sklearn_icon, name)(random_state=0)
steps = {"ICONEmbedding": 60, "ICONCrossModal": 2}
if name in steps:
    model.set_params(max_iter=steps[name])
if sys.argv[5] == "loaded":
    for few in (made(1200), made(11_000)):
        model.fit(*few)
X, y = made(n)
ctypes.CDLL(None).malloc_trim(0)
predicted = model.estimate_memory(X) if hasattr(model, "estimate_memory") else 0
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
base = resident("VmRSS")
model.fit(X, y)
print(json.dumps([predicted, resident("VmHWM") - base]))
"""

CASES = [
    (name, n, d, dtype)
    for name in ("ICONEmbedding", "ICONClustering", "ICONClassifier", "ICONCrossModal")
    for d, dtype in ((50, "float64"), (300, "float32"))
    for n in (5_000, 20_000, 70_000)
]


def main():
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--loaded", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = []
    for case in CASES:
        if args.only not in " ".join(map(str, case)):
            continue
        done = subprocess.run(
            [sys.executable, "-c", RUN, *map(str, case), "loaded" * args.loaded], capture_output=True, text=True
        )
        if done.returncode:
            print(case, done.stderr[-500:], flush=True)
            continue
        predicted, measured = json.loads(done.stdout.splitlines()[-1])
        row = dict(zip(("estimator", "rows", "columns", "dtype"), case, strict=True))
        rows.append(row | {"predicted": predicted, "measured": measured, "ratio": round(predicted / measured, 3)})
        print(*case, f"{predicted / 1e6:.1f} MB predicted, {measured / 1e6:.1f} MB measured", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps({"fits": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
