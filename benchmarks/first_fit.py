"""Seconds from starting Python to the end of the first fit on the digits, next to scikit-learn.

Every fit has a process of its own: interpreter, imports, data, one fit. Ours and scikit-learn's alternate.
`--cold` gives each process an empty cache for compiled loops, as on the first day after an install; without
it one uncounted run of each fills the caches. "beyond" is what a fit adds to importing torch and the data's module.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

from _fresh import machine, seconds

PAIRS = {
    "embedding": ("sklearn_icon.ICONEmbedding(random_state=0)", "sklearn.manifold.TSNE(random_state=0)"),
    "clustering": (
        "sklearn_icon.ICONClustering(10, random_state=0)",
        "sklearn.cluster.KMeans(10, n_init=10, random_state=0)",
    ),
    "classifier": (
        "sklearn_icon.ICONClassifier(random_state=0)",
        "sklearn.linear_model.LogisticRegression()",
    ),
}


def first_fit(constructor, cold):
    """Wall seconds of a fresh process that imports, loads the digits and fits once."""
    module = constructor.split("(")[0].rpartition(".")[0]
    code = f"""
import {module}
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
{constructor}.fit(X / 16.0, y)
"""
    with tempfile.TemporaryDirectory() as empty:
        return seconds(code, {"NUMBA_CACHE_DIR": empty} if cold else None)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=3, help="fresh processes of each (default 3)")
    parser.add_argument("--cold", action="store_true", help="start without compiled loops on disk")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()

    imports = [seconds("import torch, sklearn.datasets")[0] for _ in range(args.n + 1)][1:]
    result = {"imports_s": imports}
    print(f"medians of {args.n} {'cold' if args.cold else 'warm'} fresh processes, imports included")
    print(f"importing torch and sklearn.datasets alone takes {median(imports):.2f} s")
    print(f"{'':<11} {'ours s':>8} {'beyond s':>9} {'sklearn s':>10} {'ratio':>7}")
    for name, pair in PAIRS.items():
        times = [[], []]
        for turn in range(args.n if args.cold else args.n + 1):
            for constructor, record in zip(pair, times, strict=True):
                elapsed = first_fit(constructor, args.cold)
                if args.cold or turn:
                    record.append(elapsed)
        ours, peer = map(median, times)
        beyond = ours - median(imports)
        print(f"{name:<11} {ours:8.2f} {beyond:9.2f} {peer:10.2f} {ours / peer:7.2f}", flush=True)
        result[name] = {"ours_s": times[0], "sklearn_s": times[1], "ratio": ours / peer}
    if args.json:
        args.json.write_text(json.dumps({**result, "cold": args.cold, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
