"""kill -9 of a rank at random times in fits of two ranks with a checkpoint: how the other ends, and how fits go on.

    python benchmarks/rank_kills.py --n 50 --seed 0 --json benchmarks/results/rank_kills.json

Each case fits by two processes of one thread each; one of them is killed at a time drawn from that of a whole fit. The
other has to end with an error that says so, within a minute. Then the same fit is called again, with the checkpoint:
by two ranks, where all that was fitted must have the bits of a fit that nothing ended, or, of every third case of maps
and classifiers, by one or three. Such maps have to have the loss of the first within .5 %, coefficients within 1e-6 of
the largest. Steps are written every 20 ms, so that most kills meet a file, and some a write.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs

import sklearn_icon
from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, distributed, supervisory
from sklearn_icon._core import journal

KINDS = {
    "map": ICONEmbedding(supervisory="knn", max_iter=150, random_state=0),
    "few rows": ICONEmbedding(perplexity=10, max_iter=250, random_state=0),
    "classifier": ICONClassifier(C=0.1),
    "k-means": ICONClustering(
        60, supervisory=supervisory.Gaussian(sigma=0), encoder="lookup", divergence="reverse_kl", random_state=0
    ),
}
ROWS = {"map": 11_000, "few rows": 900, "classifier": 40_000, "k-means": 60_000}
_MOST = 60  # seconds


def fit_rank(folder, name, rank, n_ranks, checkpoint):
    """Fit as one of the ranks, in a process of its own; what it found, or why it ended, is left in a file."""
    torch.set_num_threads(1)
    if n_ranks > 1:
        store = torch.distributed.FileStore(str(folder / "store"), n_ranks)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=n_ranks)
    X, y = make_blobs(ROWS[name], 20, centers=12, cluster_std=6.0, random_state=0)
    part = slice(ROWS[name] * rank // n_ranks, ROWS[name] * (rank + 1) // n_ranks)
    model = clone(KINDS[name]).set_params(checkpoint=checkpoint)
    fitted = model.fit(X[part], y[part]) if name == "classifier" else model.fit(X[part])
    whole = distributed.gather(fitted) if n_ranks > 1 else fitted
    if rank == 0:
        values = [getattr(whole, each) for each in ("embedding_", "coef_", "cluster_centers_") if hasattr(whole, each)]
        np.save(folder / "found.npy", values[0])
        told = float(getattr(whole, "kl_divergence_", 0))
        (folder / "found.json").write_text(json.dumps([hashlib.sha256(values[0].tobytes()).hexdigest(), told]))


def start(folder, name, n_ranks, checkpoint):
    """The processes of the ranks of a fit, by id."""
    for old in (*folder.glob("found*"), *folder.glob("error*"), *folder.glob("store*")):
        old.unlink()
    children = []
    for rank in range(n_ranks):
        child = os.fork()
        if not child:
            try:
                fit_rank(folder, name, rank, n_ranks, checkpoint)
                os._exit(0)
            except BaseException:
                (folder / f"error{rank}").write_text(traceback.format_exc())
                os._exit(1)
        children.append(child)
    return children


def ended(children, seconds):
    """Which of the processes ended within some seconds, with their status; the others are killed."""
    found, end = {}, time.perf_counter() + seconds
    while len(found) < len(children) and time.perf_counter() < end:
        for child in children:
            if child not in found:
                number, status = os.waitpid(child, os.WNOHANG)
                if number:
                    found[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    for child in set(children) - found.keys():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return found


def outcome(folder, name, n_ranks, usual):
    """How a fit that went on compares with one that nothing ended."""
    if not (folder / "found.json").exists():
        return "; ".join(path.read_text().strip().splitlines()[-1] for path in sorted(folder.glob("error*")))
    digest, loss = json.loads((folder / "found.json").read_text())
    known, known_loss, values = usual
    if n_ranks == 2:
        return "equal" if digest == known else "other bits"
    if name == "classifier":
        return "near" if np.abs(np.load(folder / "found.npy") - values).max() < 1e-6 * np.abs(values).max() else "far"
    return "near" if abs(loss / known_loss - 1) < 5e-3 else f"loss {loss} for {known_loss}"


def kills(n, seed):
    """Count outcomes."""
    journal.STEPS_EVERY = journal.STAGES_EVERY = 0.02
    journal._OF_WRITES = 1
    usual, counts, bad, slowest = {}, Counter(), [], 0.0
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        path = folder / "fit.icon"
        for case in range(seed, seed + n):
            rng, name = np.random.default_rng(case), list(KINDS)[case % len(KINDS)]
            if name not in usual:
                began = time.perf_counter()
                ended(start(folder, name, 2, None), 600)
                took = time.perf_counter() - began
                usual[name] = took, [*json.loads((folder / "found.json").read_text()), np.load(folder / "found.npy")]
            took, known = usual[name]
            children = start(folder, name, 2, path)
            time.sleep(rng.uniform(0.1, took))
            victim = int(rng.integers(2))
            os.kill(children[victim], signal.SIGKILL)
            began = time.perf_counter()
            status = ended(children, _MOST)
            slowest = max(slowest, time.perf_counter() - began)
            if status.get(children[victim]) == 0:
                counts["ended before"] += 1
            else:
                error = folder / f"error{1 - victim}"
                clean = len(status) == 2 and error.exists() and "lost touch with another rank" in error.read_text()
                counts["clean stop" if clean else "no clean stop"] += 1
                if not clean:
                    bad.append([case, name, status.get(children[1 - victim]), error.exists() and error.read_text()])
            counts["with a file"] += path.exists()
            n_ranks = (1, 3)[case // 12 % 2] if case % 3 == 0 and name in ("map", "classifier") else 2
            ended(start(folder, name, n_ranks, path), 600)
            kind = outcome(folder, name, n_ranks, known)
            counts[f"gone on by {n_ranks}: {kind}" if kind in ("equal", "near") else "bad"] += 1
            if kind not in ("equal", "near"):
                bad.append([case, name, n_ranks, kind])
                print(f"seed {case}, {name}, {n_ranks} ranks: {kind}", flush=True)
            for file in folder.glob("fit*"):
                file.unlink()
            if (case - seed + 1) % 10 == 0:
                print(case - seed + 1, dict(counts), flush=True)
    return {
        "cases": n,
        "seed": seed,
        "counts": dict(counts),
        "slowest stop in seconds": round(slowest, 1),
        "bad": bad,
    }


def main():
    """Count, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    result = kills(args.n, args.seed) | {"version": sklearn_icon.__version__}
    print(json.dumps(result)[:3000])
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
