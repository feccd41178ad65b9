"""Maps by `methods.get("umap")` beside those of umap-learn: recall and trustworthiness of 15 rows, triplets, seconds.

Of sets of the panel of maps and of some rows of the files named, `.npz` with X; each with some seeds. A quarter of
the rows is mapped by `transform`, and judged by the fraction of the nearest fitted rows that are nearest on the map.
Seconds are of CPU, in one process, after a first map that compiles.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import umap
from _fresh import machine
from _map_panel import sets_of
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


def recall_of_new(X, Z, X_new, Z_new):
    """The fraction of the fitted rows nearest to a new row that are nearest on the map."""
    pairs = ((X, X_new), (Z, Z_new))
    near = [NearestNeighbors(n_neighbors=_NEIGHBORS).fit(rows).kneighbors(new)[1] for rows, new in pairs]
    return np.mean([len(np.intersect1d(*rows)) for rows in zip(*near, strict=True)]) / _NEIGHBORS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    parser.add_argument("--data", help="names of sets of the panel, separated by commas (default all)")
    parser.add_argument("-n", type=int, default=3000, help="rows of a set at the most, new ones included")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too, after each set")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    makers = sets_of(args.data.split(",") if args.data else None, [])
    data = {name: (lambda name=name: makers[name]()[0]) for name in makers}
    data |= {path.stem: (lambda path=path: np.load(path)["X"]) for path in args.files}
    for make in (ours, theirs):  # compile
        rows = load_digits().data.astype(np.float32)[:600]
        make(0).fit(rows).transform(rows[:9] + 0.1)
    head = ["data", "rows", "map", "seed", "recall", "trustworthiness", "triplets", "cpu_seconds"]
    head, figures = [*head, "recall_of_new", "cpu_seconds_of_new"], []
    for name, rows_of in data.items():
        rows = rows_of()
        rows = rows[np.random.RandomState(0).permutation(len(rows))[: args.n]].astype(np.float32)
        X, X_new = rows[: len(rows) * 3 // 4], rows[len(rows) * 3 // 4 :]
        for make in (ours, theirs):
            for seed in range(args.seeds):
                start = time.process_time()
                estimator = make(seed).fit(X)
                Z, seconds, start = estimator.embedding_, time.process_time() - start, time.process_time()
                Z_new = estimator.transform(X_new)
                of_new = time.process_time() - start
                scores = recall(X, Z), trustworthiness(X, Z, n_neighbors=_NEIGHBORS), triplets(X, Z)
                new = float(recall_of_new(X, Z, X_new, Z_new)), of_new
                figures.append([name, len(X), make.__name__, seed, *map(float, scores), seconds, *new])
                told = *scores, seconds, *new
                print(name, make.__name__, seed, *(f"{score:.4f}" for score in told), flush=True)
        if args.json:
            args.json.write_text(json.dumps({"machine": machine(), "head": head, "runs": figures}, indent=1))


if __name__ == "__main__":
    main()
