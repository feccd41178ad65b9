"""Import time of sklearn_icon next to the scikit-learn modules it stands beside, in fresh processes.

`import sklearn_icon` alone loads its parts at their first use, so naming the estimators is timed too. All are
alternated, after one uncounted run of each to warm the file cache and write bytecode. `--against FOLDER`, a checkout of
another version, times that one's imports between ours.
"""

import argparse
import json
from pathlib import Path
from statistics import median

from _fresh import machine, seconds

PEER = "import sklearn.manifold, sklearn.cluster, sklearn.linear_model"
OURS = "import sklearn_icon"
NAMES = "from sklearn_icon import ICONEmbedding, ICONClustering, ICONClassifier"
HEAVY = ("torch", "numba", "pynndescent", "matplotlib")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=10, help="fresh processes of each (default 10)")
    parser.add_argument("--against", type=Path, help="a folder that holds another version of sklearn_icon")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()

    runs = {PEER: (PEER, None)}
    for code in (OURS, NAMES):
        runs[code] = (code, None)
        if args.against:
            runs[f"{code}  # {args.against.name}"] = (code, None, args.against)
    times = {label: [] for label in runs}
    for turn in range(args.n + 1):
        for label, run in runs.items():
            elapsed = seconds(*run)[0]
            if turn:
                times[label].append(elapsed)
    listing = f"import json, sys; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    result = {}
    print(f"medians of {args.n} fresh processes, and their ratio to the first\n")
    for label, (code, *where) in runs.items():
        record = times[label]
        ratio = median(record) / median(times[PEER])
        loaded = json.loads(seconds(f"{code}; {listing}", *where)[1])
        print(f"{median(record):6.3f} s {ratio:6.2f}  {label}  (heavy modules: {', '.join(loaded) or 'none'})")
        result[label] = {"seconds": record, "ratio": ratio, "heavy": loaded}
    if args.json:
        args.json.write_text(json.dumps({**result, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
