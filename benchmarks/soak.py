"""Many small fits and transforms in one process: whether memory, threads and handles stay as they are.

    python benchmarks/soak.py --fits 4000 --transforms 100000 --json benchmarks/results/soak.json

Fits of all estimators go in turn, with the transforms spread among them. Resident memory is read at 40 points, freed
heap given back before; the growth is that of the mean of the last quarter over that of the second, the first quarter
being warm-up. Before, `--clients` threads call the methods of one fitted object for `--seconds`, after a sixth of the
time as warm-up, and each answer is compared bit by bit with the one that it gives alone.
"""

import argparse
import ctypes
import gc
import json
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import sklearn_icon
from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding

FITS = [
    ICONEmbedding(perplexity=8, max_iter=20, random_state=0),
    ICONEmbedding(encoder="mlp", supervisory="knn", method="sampled", max_iter=5, random_state=0),
    ICONClustering(3, max_iter=30, random_state=0),
    ICONClustering(3, encoder="lookup", max_iter=6, random_state=0),
    ICONClassifier(),
    ICONClassifier(encoder="mlp", max_iter=3, random_state=0),
    ICONCrossModal(2, random_state=0, max_iter=10),
    ICONCrossModal(4, encoder="mlp", random_state=0, max_iter=2),
]


def state():
    """(resident bytes, threads of the process, open handles)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def soak(n_fits, n_transforms):
    """States along the way."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 6)) + 2 * (np.arange(90) % 3)[:, None]
    y, states, done = np.arange(90) % 3, [], 0
    for number in range(n_fits):
        model = FITS[number % len(FITS)]
        model.fit(X, X[:, :4] if isinstance(model, ICONCrossModal) else y)
        while done < (number + 1) * n_transforms // n_fits:
            model.transform(X[done % 80 : done % 80 + 5] + 0.01)
            done += 1
        if (number + 1) % max(1, n_fits // 40) == 0:
            states.append(state())
    resident, threads, handles = (np.array(column) for column in zip(*states, strict=True))
    quarter = len(states) // 4
    growth = resident[-quarter:].mean() / resident[quarter : 2 * quarter].mean() - 1
    ends = {
        name: [int(column[quarter]), int(column[-1])] for name, column in (("threads", threads), ("handles", handles))
    }
    return {
        "fits": n_fits,
        "transforms": done,
        "growth": round(float(growth), 4),
        "megabytes": [int(r / 1e6) for r in resident],
    } | ends


def clients(n_clients, seconds):
    """Answers of many threads, compared with those given alone."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 6)) + 2 * (np.arange(300) % 3)[:, None]
    y, batches = np.arange(300) % 3, [rng.standard_normal((n, 6)) for n in rng.integers(1, 40, 30)]
    asked = [
        (ICONEmbedding(perplexity=8, random_state=0).fit(X), "transform"),
        (ICONClustering(3, random_state=0).fit(X), "predict_proba"),
        (ICONClassifier(encoder="mlp", max_iter=5, random_state=0).fit(X, y), "predict_proba"),
    ]
    alone = [[getattr(model, name)(batch) for batch in batches] for model, name in asked]
    other = []

    def client(seed, end):
        draws, n = np.random.default_rng(seed), 0
        while time.perf_counter() < end:
            which, batch = int(draws.integers(len(asked))), int(draws.integers(len(batches)))
            answer = getattr(asked[which][0], asked[which][1])(batches[batch])
            if not np.array_equal(answer, alone[which][batch]):
                other.append([which, batch])
            n += 1
        return n

    with ThreadPoolExecutor(n_clients) as pool:
        list(pool.map(client, range(n_clients), [time.perf_counter() + seconds / 6] * n_clients))
        before = state()
        calls = sum(pool.map(client, range(n_clients), [time.perf_counter() + seconds] * n_clients))
        after = state()
    return {
        "clients": n_clients,
        "seconds": seconds,
        "calls": calls,
        "other answers": len(other),
        "growth": round(after[0] / before[0] - 1, 4),
        "threads": [before[1], after[1]],
        "handles": [before[2], after[2]],
        "alive": threading.active_count(),
    }


def main():
    """Run, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fits", type=int, default=4000)
    parser.add_argument("--transforms", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    result = {"version": sklearn_icon.__version__, "clients": clients(args.clients, args.seconds)}
    print(json.dumps(result), flush=True)
    result["soak"] = soak(args.fits, args.transforms)
    print(json.dumps(result["soak"]), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
