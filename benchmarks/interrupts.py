"""Ctrl-C at random times in fits of all estimators: how many leave a valid estimator, none, or something between.

    python benchmarks/interrupts.py --n 200 --seed 0

Each case fits once undisturbed, for its time, and again with SIGINT at a time drawn from it; a quarter of them get a
second one shortly after. "valid" is fitted, finite on new rows and told of by a warning; "unfitted" is a
KeyboardInterrupt that left the attributes as they were before; "late" came after the fit. All else is "bad", and is
printed with the seed that replays it.
"""

import argparse
import os
import signal
import threading
import time
import warnings
from collections import Counter

import numpy as np
import torch
from sklearn.base import clone

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned, supervisory


def dropping(n_inputs, n_outputs):
    """A network that draws random numbers as it is trained."""
    return torch.nn.Sequential(torch.nn.Linear(n_inputs, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, n_outputs))


def noisy(items):
    """A view of items."""
    return items + 0.1 * torch.randn_like(items)


CASES = {
    "map": ICONEmbedding(perplexity=10, max_iter=150),
    "map on a grid": ICONEmbedding(perplexity=10, method="interpolation", max_iter=80),
    "linear map": ICONEmbedding(encoder="linear", max_iter=80),
    "network map": ICONEmbedding(encoder="mlp", supervisory="knn", method="sampled", max_iter=60),
    "views": ICONEmbedding(supervisory=supervisory.PositivePairs(noisy), encoder="mlp", max_iter=60),
    "counts": ICONEmbedding(supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional"),
    "clusters": ICONClustering(4, max_iter=90),
    "clusters by a lookup": ICONClustering(4, encoder="lookup", max_iter=90),
    "clusters by a network": ICONClustering(4, encoder=encoders.Module(dropping), max_iter=60),
    "k-means": ICONClustering(
        4, supervisory=supervisory.Gaussian(sigma=0), encoder="lookup", divergence="reverse_kl", debias=0
    ),
    "softmax": ICONClassifier(C=100.0),
    "network": ICONClassifier(encoder=encoders.Module(dropping), max_iter=20),
    "prototypes": ICONClassifier(learned="student_t", max_iter=40),
    "supcon": ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=30),
    "pairs": ICONCrossModal(8, max_iter=20),
}


def rows_of(name, rng):
    """(X, y, new rows) of a case."""
    X = rng.standard_normal((200, 8)) + 2 * (np.arange(200) % 4)[:, None]
    y, new = np.arange(200) % 4, X[:9] + 0.1
    if name == "counts":
        return np.round(np.abs(X)) + 1, None, np.round(np.abs(new)) + 1
    return X, X[:, :5] if name == "pairs" else y, new


def outcome(name, model, own, data, seconds, second):
    """What an interrupt after so many seconds led to."""
    X, y, new = data
    pid, over = os.getpid(), threading.Event()

    def press():
        for wait in [seconds] + [0.002] * second:
            if over.wait(wait):
                return
            os.kill(pid, signal.SIGINT)

    thread = threading.Thread(target=press)
    told, raised, started = [], False, False
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            thread.start()
            started = True
            model.fit(X, y)
            over.set()
    except KeyboardInterrupt:
        raised = True
    finally:
        over.set()
        if started:
            thread.join()
    if raised and set(vars(model)) == own:
        return "unfitted"
    interrupted = any("was interrupted" in str(warning.message) for warning in told)
    answers = [getattr(model, each)(new) for each in ("transform", "predict_proba") if hasattr(model, each)]
    if not all(np.isfinite(answer).all() for answer in answers):
        return "bad: not finite"
    if raised:
        return "late" if not interrupted else "valid"
    return "valid" if interrupted else "late"


def main():
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    usual, counts, last = {}, Counter(), {}
    for case in range(args.seed, args.seed + args.n):
        rng = np.random.default_rng(case)
        name = list(CASES)[case % len(CASES)]
        data = rows_of(name, rng)
        model = clone(CASES[name]).set_params(random_state=0)
        if name not in usual:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for _ in range(2):  # the first also loads
                    start = time.perf_counter()
                    clone(model).fit(*data[:2])
                    usual[name] = time.perf_counter() - start
        state = (torch.get_num_threads(), torch.random.get_rng_state().numpy().tobytes())
        found, second = "late", rng.uniform() < 0.25
        try:
            found = outcome(name, model, set(vars(model)), data, rng.uniform(0, usual[name]), second)
        except Exception as error:
            found = f"bad: {type(error).__name__}: {error}"
        except KeyboardInterrupt:
            found = "late"
        if (torch.get_num_threads(), torch.random.get_rng_state().numpy().tobytes()) != state:
            found = f"bad: the process was changed ({found})"
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            found = f"bad: a handler stayed ({found})"
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if found.startswith("bad"):
            print(f"seed {case}, {name}: {found}", flush=True)
        counts[found.partition(":")[0]] += 1
        last[name, found.partition(":")[0]] = last.get((name, found.partition(":")[0]), 0) + 1
        if (case - args.seed + 1) % 20 == 0:
            print(case - args.seed + 1, dict(counts), flush=True)
    for name in CASES:
        print(f"{name:24}", {kind: count for (of, kind), count in last.items() if of == name})
    print(dict(counts), flush=True)


if __name__ == "__main__":
    main()
