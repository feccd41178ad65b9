"""What scikit-learn's callbacks, and printed lines, add to a fit: pairs of fits in one process, beside and without.

Each pair is a fit without anything and one with it, the order drawn anew by turns, after one uncounted fit of each. CPU
seconds of the process, so that figures hold on a busy machine too; set OMP_NUM_THREADS=1 there.
"""

import argparse
import json
import os
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median

from _fresh import machine
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.datasets import load_digits

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding

FITS = {
    "map": ICONEmbedding(random_state=0),
    "clusters": ICONClustering(10, random_state=0),
    "linear clusters": ICONClustering(10, encoder="linear", random_state=0),
    "softmax": ICONClassifier(C=0.01),
    "network": ICONClassifier(encoder="mlp", random_state=0),
    "pairs": ICONCrossModal(random_state=0),
}


class Idle:
    """A callback that is told of everything and does nothing."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        return False


WITH = {
    "idle callback": lambda model: model.set_callbacks(Idle()),
    "ProgressBar": lambda model: model.set_callbacks(ProgressBar()),
    "verbose=1": lambda model: model.set_params(verbose=1),
}


def cpu_seconds(model, data):
    """Of one fit, what it prints thrown away."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        start = time.process_time()
        model.fit(*data)
        return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=6, help="pairs of each (default 6)")
    parser.add_argument("--fits", default=",".join(FITS), help="which fits")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X = X / 16
    result = {}
    print(f"medians of {args.n} pairs of fits of the digits, CPU seconds\n")
    print(f"{'':<16} {'':<14} {'without':>8} {'with':>8} {'ratio of pairs':>15}")
    for name in args.fits.split(","):
        data = (X[:, :32], X[:, 32:]) if name == "pairs" else (X, y if name in ("softmax", "network") else None)
        for added, add in WITH.items():
            times = {"without": [], "with": []}
            for turn in range(args.n + 1):
                pair = {"without": clone(FITS[name]), "with": add(clone(FITS[name]))}
                for side in sorted(pair, reverse=bool(turn % 2)):
                    elapsed = cpu_seconds(pair[side], data)
                    if turn:
                        times[side].append(elapsed)
            ratio = median(b / a for a, b in zip(times["without"], times["with"], strict=True))
            print(f"{name:<16} {added:<14} {median(times['without']):8.2f} {median(times['with']):8.2f} {ratio:15.3f}")
            result[f"{name}, {added}"] = {**times, "median ratio": ratio}
    if args.json:
        args.json.write_text(json.dumps({**result, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
