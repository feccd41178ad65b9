"""Seconds from starting Python to the end of the first fit on the digits, next to scikit-learn.

Every fit has a process of its own: interpreter, imports, data, one fit. Ours and scikit-learn's alternate.
`--cold` gives each process an empty cache for compiled loops, as on the first day after an install; without
it one uncounted run of each fills the caches. "beyond" is what a fit adds to importing torch and the data's module.
`--against FOLDER`, a checkout of another version, times that one's fits between ours.
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


def first_fit(constructor, cold, folder=None):
    """Wall seconds of a fresh process that imports, loads the digits and fits once."""
    module = constructor.split("(")[0].rpartition(".")[0]
    code = f"""
import {module}
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
{constructor}.fit(X / 16.0, y)
"""
    with tempfile.TemporaryDirectory() as empty:
        return seconds(code, {"NUMBA_CACHE_DIR": empty} if cold else None, folder)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=3, help="fresh processes of each (default 3)")
    parser.add_argument("--cold", action="store_true", help="start without compiled loops on disk")
    parser.add_argument("--against", type=Path, help="a folder that holds another version of sklearn_icon")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()

    imports = [seconds("import torch, sklearn.datasets")[0] for _ in range(args.n + 1)][1:]
    result = {"imports_s": imports}
    other = args.against.name if args.against else ""
    print(f"medians of {args.n} {'cold' if args.cold else 'warm'} fresh processes, imports included")
    print(f"importing torch and sklearn.datasets alone takes {median(imports):.2f} s")
    print(
        f"{'':<11} {'ours s':>8} {'beyond s':>9} {'sklearn s':>10} {'ratio':>7}" + (f"  s of {other}" if other else "")
    )
    for name, (ours, peer) in PAIRS.items():
        runs = {"ours_s": (ours,), "sklearn_s": (peer,)}
        if other:
            runs["other_s"] = (ours, args.against)
        times = {key: [] for key in runs}
        for turn in range(args.n if args.cold else args.n + 1):
            for key, (constructor, *folder) in runs.items():
                elapsed = first_fit(constructor, args.cold, *folder)
                if args.cold or turn:
                    times[key].append(elapsed)
        middle = {key: median(record) for key, record in times.items()}
        ratio = middle["ours_s"] / middle["sklearn_s"]
        line = (
            f"{name:<11} {middle['ours_s']:8.2f} {middle['ours_s'] - median(imports):9.2f} {middle['sklearn_s']:10.2f}"
        )
        print(f"{line} {ratio:7.2f}" + (f" {middle['other_s']:8.2f}" if other else ""), flush=True)
        result[name] = {**times, "ratio": ratio}
    if args.json:
        args.json.write_text(json.dumps({**result, "cold": args.cold, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
