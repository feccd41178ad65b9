"""kill -9 at random times in fits with a checkpoint: how many go on to the bits of a fit that nothing ended.

    python benchmarks/kills.py --n 200 --seed 0 --json benchmarks/results/kills.json
    python benchmarks/kills.py --overhead --json benchmarks/results/checkpoint_overhead.json

Each case fits in a process of its own, which is killed at a time drawn from that of a whole fit; a quarter of the
processes that go on are killed once more. Steps are written every 20 ms, so that most kills meet a file, and some a
write. "equal" is the same bits in all fitted attributes; "unread" a file that was refused. `--overhead` compares CPU
seconds of fits with and without a checkpoint at its own intervals, in turn.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.datasets import make_blobs

import sklearn_icon
from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding
from sklearn_icon._core import journal

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/estimators"))
from test_checkpoints import numbers

KINDS = {
    "map": ICONEmbedding(perplexity=10, max_iter=150),
    "clusters": ICONClustering(4, encoder="lookup", max_iter=60),
    "classifier": ICONClassifier(encoder="mlp", max_iter=15),
    "pairs": ICONCrossModal(8, encoder="mlp", max_iter=25),
}


def data(name, n=200):
    """(X, y) of a kind."""
    rng = np.random.default_rng(3)
    X, y = make_blobs(n, 10, centers=4, random_state=0)
    return X, X[:, :6] + 0.1 * rng.standard_normal((n, 6)) if name == "pairs" else y


def digest(model):
    """That of all that was fitted."""
    return hashlib.sha256(repr(numbers(vars(model))).encode()).hexdigest()


def in_child(model, X, y, found):
    """Fit in a process of its own, which leaves the digest of its fit, or an error, in a file; its id."""
    child = os.fork()
    if child:
        return child
    try:
        text = digest(model.fit(X, y))
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
    Path(found).write_text(text)
    os._exit(0)


def killed_after(child, seconds):
    """Whether a process was killed so many seconds later, as it had not ended."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kills(n, seed):
    """Count outcomes."""
    journal.STEPS_EVERY = journal.STAGES_EVERY = 0.02
    journal._OF_WRITES = 1
    usual, counts, bad = {}, Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        path, found = Path(folder, "fit.icon"), Path(folder, "found")
        for case in range(seed, seed + n):
            rng = np.random.default_rng(case)
            name = list(KINDS)[case % len(KINDS)]
            model, (X, y) = clone(KINDS[name]).set_params(random_state=0), data(name)
            if name not in usual:
                start = time.perf_counter()
                os.waitpid(in_child(model, X, y, found), 0)
                usual[name] = found.read_text(), time.perf_counter() - start
            model.set_params(checkpoint=path)
            for _ in range(1 + (rng.uniform() < 0.25)):
                killed = killed_after(in_child(clone(model), X, y, found), rng.uniform(0.02, usual[name][1]))
                counts["killed" if killed else "ended before"] += 1
                counts["with a file"] += killed and path.exists()
            os.waitpid(in_child(clone(model), X, y, found), 0)
            outcome = found.read_text()
            kind = "equal" if outcome == usual[name][0] else "unread" if "cannot be read" in outcome else "bad"
            counts[kind] += 1
            counts[f"{name}: {kind}"] += 1
            if kind != "equal":
                bad.append([case, name, outcome])
                print(f"seed {case}, {name}: {outcome}", flush=True)
            path.unlink()
            if (case - seed + 1) % 10 == 0:
                print(case - seed + 1, dict(counts), flush=True)
    return {"cases": n, "seed": seed, "counts": dict(counts), "bad": bad}


def overhead(repeats=6):
    """CPU seconds without and with a checkpoint."""
    X, y = make_blobs(6000, 50, centers=20, cluster_std=4.0, random_state=0)
    fits = {
        "map of 6,000 rows": (ICONEmbedding(random_state=0), (X,)),
        "network of 6,000 rows, 60 passes": (ICONClassifier(encoder="mlp", max_iter=60, random_state=0), (X, y)),
        "clusters of 6,000 rows by a lookup": (
            ICONClustering(20, encoder="lookup", max_iter=1500, random_state=0),
            (X,),
        ),
    }
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, args) in fits.items():
            clone(model).set_params(max_iter=2).fit(*args)  # which also loads
            each = {"without": [], "with": []}
            for number in range(repeats):
                for kind in sorted(each, reverse=number % 2 > 0):  # either is the first as often
                    path = None if kind == "without" else Path(folder, f"{name} {number}")
                    start = time.process_time()
                    clone(model).set_params(checkpoint=path).fit(*args)
                    each[kind].append(time.process_time() - start)
            least = {kind: round(min(values), 2) for kind, values in each.items()}
            pairs = np.divide(each["with"], each["without"]) - 1
            of_it = {"of it": round(min(each["with"]) / min(each["without"]) - 1, 4)}
            seconds[name] = least | of_it | {"median of pairs": round(float(np.median(pairs)), 4)}
            print(name, seconds[name], flush=True)
    return {"CPU seconds, the least of": repeats, "fits": seconds}


def main():
    """Count, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    result = overhead() if args.overhead else kills(args.n, args.seed)
    result["version"] = sklearn_icon.__version__
    print(json.dumps(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
