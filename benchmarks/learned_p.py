"""p of a learned metric beside that of standardised features and of features as they are, where it helps and where not.

Of the 15 nearest rows of each row, the fraction of its own class, which the metric never sees: of plain data, with as
many columns of noise as there are features, and of blocks of columns beside blocks of
noise. Rows (1,000 at the most) and noise are drawn anew for each seed. `--files`: `.npz` with X and y.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from _fresh import machine
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.preprocessing import scale

from sklearn_icon.supervisory import LearnedMetric, UniformKNN

_ROWS, _NEIGHBORS = 1000, 15


def quadrants(X):
    """Columns of the four quadrants of digits, each as a block."""
    number = np.arange(64).reshape(8, 8)
    return [number[rows, columns].ravel() for rows in (slice(4), slice(4, 8)) for columns in (slice(4), slice(4, 8))]


def sixteenths(X):
    return np.array_split(np.arange(X.shape[1]), 16)


def with_noise(X, blocks, width, rng):
    """X and as many columns of noise, of a width times the typical one of its columns, in as many blocks."""
    noise = width * np.median(X.std(axis=0)[X.std(axis=0) > 0]) * rng.normal(size=X.shape)
    return np.hstack([X, noise]), None if blocks is None else [*blocks, *(block + X.shape[1] for block in blocks)]


def purity(p, y):
    edges = p.weights.tocoo()
    return float((edges.data * (y[edges.row] == y[edges.col])).sum() / len(y))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    plain = {load.__name__[5:]: load(return_X_y=True) for load in (load_iris, load_wine, load_breast_cancer)}
    data = {name: (*rows, None) for name, rows in plain.items()}
    data["digits, pixels"] = *load_digits(return_X_y=True), None
    data["digits, quadrants"] = *load_digits(return_X_y=True), quadrants
    for path in args.files:
        held = np.load(path)
        data[f"{path.stem}, 16 blocks"] = held["X"].astype(np.float64), held["y"], sixteenths
    figures, base = [], UniformKNN(_NEIGHBORS)
    for name, (X, y, cut) in data.items():
        for noise in (0, 1):
            found, start = {"as they are": [], "standardised": [], "learned": []}, time.process_time()
            for seed in range(args.seeds):
                rng = np.random.default_rng(seed)
                rows = rng.permutation(len(X))[:_ROWS]
                Z, blocks = X[rows], None if cut is None else cut(X)
                if noise:
                    Z, blocks = with_noise(Z, blocks, noise, rng)
                found["as they are"].append(purity(base.conditional(Z), y[rows]))
                found["standardised"].append(purity(base.conditional(scale(Z)), y[rows]))
                found["learned"].append(purity(LearnedMetric(base, blocks).conditional(Z, random_state=0), y[rows]))
            seconds = (time.process_time() - start) / args.seeds
            figures.append({"data": name, "noise": noise, "CPU seconds": seconds, **found})
            means = ", ".join(f"{how} {np.mean(each):.3f} +- {np.std(each):.3f}" for how, each in found.items())
            print(f"{name:28} noise {noise:2}  {means}, {seconds:.1f} s", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
