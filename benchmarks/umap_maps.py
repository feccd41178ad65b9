"""Maps by `methods.get("umap")` beside those of umap-learn: recall and trustworthiness of 15 rows, triplets, seconds.

Of the digits and of some rows of the files named, `.npz` with X; each with some seeds. Seconds are of CPU, in one
process, after a first map that compiles.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import umap
from _fresh import machine
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from sklearn_icon import methods

_NEIGHBORS, _TRIPLETS = 15, 50_000


def recall(X, Z):
    """The fraction of the nearest rows that are nearest on the map."""
    near = [NearestNeighbors(n_neighbors=_NEIGHBORS).fit(rows).kneighbors(return_distance=False) for rows in (X, Z)]
    return np.mean([len(np.intersect1d(*rows)) for rows in zip(*near, strict=True)]) / _NEIGHBORS


def triplets(X, Z):
    """How often of two random rows the nearer one is nearer on the map."""
    i, j, k = np.random.RandomState(0).randint(len(X), size=(3, _TRIPLETS))
    nearer = [np.linalg.norm(R[i] - R[j], axis=1) < np.linalg.norm(R[i] - R[k], axis=1) for R in (X, Z)]
    return np.mean(nearer[0] == nearer[1])


def ours(seed, **params):
    return methods.get("umap").make_estimator(random_state=seed, **params)


def theirs(seed):
    return umap.UMAP(random_state=seed, n_jobs=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    parser.add_argument("-n", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = {"digits": load_digits().data.astype(np.float32)}
    for path in args.files:
        rows = np.load(path)["X"]
        data[path.stem] = rows[np.random.RandomState(0).permutation(len(rows))[: args.n]].astype(np.float32)
    for make in (ours, theirs):  # compile
        make(0).fit(data["digits"][:600])
    figures = []
    for name, X in data.items():
        for make in (ours, theirs):
            for seed in range(args.seeds):
                start = time.process_time()
                Z = make(seed).fit_transform(X)
                seconds = time.process_time() - start
                scores = recall(X, Z), trustworthiness(X, Z, n_neighbors=_NEIGHBORS), triplets(X, Z)
                figures.append([name, len(X), make.__name__, seed, *map(float, scores), seconds])
                print(name, make.__name__, seed, *(f"{score:.4f}" for score in scores), f"{seconds:.1f} s", flush=True)
    if args.json:
        head = ["data", "rows", "map", "seed", "recall", "trustworthiness", "triplets", "cpu_seconds"]
        args.json.write_text(json.dumps({"machine": machine(), "head": head, "runs": figures}, indent=1))


if __name__ == "__main__":
    main()
