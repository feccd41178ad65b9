"""Neighbours of many rows: by partition, exactly, and by pynndescent, in CPU time of one process.

    OMP_NUM_THREADS=1 python benchmarks/neighbors.py --n 280000 --json benchmarks/results/neighbors.json

Rows are principal components of Fashion-MNIST (or of the bundled digits) and of shifted, jittered copies. Recall is
measured on 512 rows, not those that the search itself looks at.
"""

import argparse
import json
import time

import numpy as np
from _images import load_images, more_images

from sklearn_icon._graph import neighbors, search


def searched(X, k, by, n_jobs):
    """(CPU seconds, neighbours) of one way to search, whatever the size would choose."""
    limit, part = search._EXACT_LIMIT, search.propose_by_partition
    search._EXACT_LIMIT = np.inf if by == "exact" else 0
    if by == "pynndescent":
        search.propose_by_partition = lambda *_: None
    try:
        start = time.process_time()
        found = neighbors.nearest_neighbors(X, k, n_jobs=n_jobs, random_state=0)
        return time.process_time() - start, found
    finally:
        search._EXACT_LIMIT, search.propose_by_partition = limit, part


def recall(X, found, n_rows=512):
    """The fraction of true neighbours among those found, of random rows."""
    rows = np.random.RandomState(1).choice(len(X), n_rows, replace=False)
    k = found.distances.shape[1]
    true = neighbors.cross_neighbors(X[rows], X, k + 1).distances[:, -1:]  # a row is its own nearest
    return float(np.mean(found.distances[rows] <= true * (1 + 1e-5)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or file as of benchmarks/_images.py, or 'digits'")
    parser.add_argument("--n", type=int, nargs="+", default=[30_000, 100_000, 280_000])
    parser.add_argument("--components", type=int, default=50)
    parser.add_argument("--k", type=int, default=91)
    parser.add_argument("--by", nargs="+", default=["partition", "exact", "pynndescent"])
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--json", help="where to write the results")
    options = parser.parse_args()
    name, images, labels = load_images(options.data)
    small = np.random.RandomState(0).normal(size=(12_000, options.components)).astype(np.float32)
    for by in options.by:
        searched(small, 15, by, options.n_jobs)  # compiles
    results = []
    for n in options.n:
        X, _ = more_images(images, labels, n, options.components)
        for by in options.by:
            seconds, found = searched(X[:n], options.k, by, options.n_jobs)
            result = {"data": name, "n": n, "features": X.shape[1], "k": options.k, "by": by, "n_jobs": options.n_jobs}
            results.append(result | {"cpu_s": round(seconds, 2), "recall": round(recall(X[:n], found), 4)})
            print(results[-1], flush=True)
            if options.json:
                with open(options.json, "w") as file:
                    json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
