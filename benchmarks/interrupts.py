"""Ctrl-C at random times in fits of all estimators: how many leave a valid estimator, none, or something between.

    python benchmarks/interrupts.py --n 2000 --seed 0 --json benchmarks/results/interrupts.json

Each case fits once undisturbed, for its time, and again with SIGINT at a time of CPU drawn from it; a quarter of them
get a second one shortly after, and a tenth are grid searches of four fits. "valid" is fitted, finite on new rows and
told of by a warning; "unfitted" is a KeyboardInterrupt that left the attributes as they were before; "stopped" a search
that the first interrupt ended; "late" came after the fit. All else is "bad", and is printed with the seed that replays
it. Where the process was when it was interrupted is counted by the file of the innermost frame of the library.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import sklearn_icon
from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned, supervisory


def dropping(n_inputs, n_outputs):
    """A network that draws random numbers as it is trained."""
    return torch.nn.Sequential(torch.nn.Linear(n_inputs, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, n_outputs))


def noisy(items):
    """A view of items."""
    return items + 0.1 * torch.randn_like(items)


CASES = {
    "map": ICONEmbedding(perplexity=10, max_iter=100),
    "map on a grid": ICONEmbedding(perplexity=10, method="interpolation", max_iter=60),
    "linear map": ICONEmbedding(encoder="linear", max_iter=40),
    "network map": ICONEmbedding(encoder="mlp", supervisory="knn", method="sampled", max_iter=20),
    "views": ICONEmbedding(supervisory=supervisory.PositivePairs(noisy), encoder="mlp", max_iter=25),
    "counts": ICONEmbedding(supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional"),
    "clusters": ICONClustering(4, max_iter=90),
    "clusters by a lookup": ICONClustering(4, encoder="lookup", max_iter=60),
    "clusters by a network": ICONClustering(4, encoder=encoders.Module(dropping), max_iter=25),
    "k-means": ICONClustering(
        4, supervisory=supervisory.Gaussian(sigma=0), encoder="lookup", divergence="reverse_kl", debias=0
    ),
    "softmax": ICONClassifier(C=100.0),
    "network": ICONClassifier(encoder=encoders.Module(dropping), max_iter=20),
    "prototypes": ICONClassifier(learned="student_t", max_iter=40),
    "supcon": ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=20),
    "pairs": ICONCrossModal(8, max_iter=20),
}


def rows_of(name, rng, n):
    """(X, y, new rows) of a case."""
    X = rng.standard_normal((n, 8)) + 2 * (np.arange(n) % 4)[:, None]
    y, new = np.arange(n) % 4, X[:9] + 0.1
    if name == "counts":
        return np.round(np.abs(X)) + 1, None, np.round(np.abs(new)) + 1
    return X, X[:, :5] if name == "pairs" else y, new


def no_score(model, X, y=None):
    """That of any fit, in a search."""
    return 0.0


def searched(model):
    """A search of four fits and a last one."""
    return GridSearchCV(model, {"random_state": [0, 1]}, cv=2, scoring=no_score)


def place():
    """The file of the library in which the main thread is."""
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        if "sklearn_icon" in parts and "benchmarks" not in parts:
            return "/".join(parts[-2:])
        frame = frame.f_back
    return "elsewhere"


class Presser:
    """Sends SIGINT after so many seconds of CPU, and again 2 ms later where there is a `second`."""

    def __init__(self, seconds, second):
        self.waits, self.over, self.places = [seconds] + [0.002] * second, threading.Event(), []
        self.thread = threading.Thread(target=self.press)

    def press(self):
        for wait in self.waits:
            end = time.process_time() + wait
            while time.process_time() < end:
                if self.over.wait(0.0005):
                    return
            self.places.append(place())
            os.kill(os.getpid(), signal.SIGINT)

    def around(self, fit):
        """(warnings of a call, whether it raised KeyboardInterrupt)."""
        told, raised = [], False
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                self.thread.start()
                fit()
                self.over.set()
        except KeyboardInterrupt:
            raised = True
        finally:
            self.over.set()
            self.thread.join()
        return told, raised


def outcome(model, data, presser):
    """What interrupts of a fit led to."""
    X, y, new = data
    own = set(vars(model))
    told, raised = presser.around(lambda: model.fit(X, y))
    if raised and set(vars(model)) == own:
        return "unfitted"
    of_it = f"{type(model).__name__} was interrupted "
    interrupted = any(str(warning.message).startswith(of_it) for warning in told)
    answers = [getattr(model, each)(new) for each in ("transform", "predict_proba") if hasattr(model, each)]
    if not all(np.isfinite(answer).all() for answer in answers):
        return "bad: not finite"
    if raised:
        return "valid" if interrupted else "late"
    return "valid" if interrupted else "bad: not told" if presser.places else "late"


def outcome_of_search(model, data, presser):
    """What interrupts of a grid search led to."""
    _, raised = presser.around(lambda: searched(model).fit(*data[:2]))
    return "stopped" if raised else "bad: the search went on" if presser.places else "late"


def found_in(case, usual):
    """(name, outcome, places) of a case; `usual` holds seconds of fits that nothing disturbs."""
    rng = np.random.default_rng(case)
    name, searches = list(CASES)[case % len(CASES)], rng.uniform() < 0.1
    n = 700 if rng.uniform() < 0.05 else 150
    data, model = rows_of(name, rng, n), clone(CASES[name]).set_params(random_state=0)
    if (name, n) not in usual:
        for _ in range(2):  # the first also loads
            start = time.process_time()
            clone(model).fit(*data[:2])
            usual[name, n] = time.process_time() - start
    presser = Presser(rng.uniform(0, usual[name, n] * (3 if searches else 1)), rng.uniform() < 0.25)
    found = "late"
    try:
        found = (outcome_of_search if searches else outcome)(model, data, presser)
    except Exception as error:
        found = f"bad: {type(error).__name__}: {error}"
    except KeyboardInterrupt:
        found = "late"
    return name + " in a search" * searches, found, presser.places


def process():
    """What a fit must leave alone."""
    return torch.get_num_threads(), torch.random.get_rng_state().numpy().tobytes(), signal.getsignal(signal.SIGINT)


def interrupts(n, seed):
    """Counts of so many cases."""
    usual, counts, of_cases, places, bad = {}, Counter(), Counter(), Counter(), []
    for case in range(seed, seed + n):
        before = process()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name, found, where = found_in(case, usual)
        if process() != before:
            found = f"bad: the process was changed ({found})"
            signal.signal(signal.SIGINT, signal.default_int_handler)
        kind = found.partition(":")[0]
        if kind == "bad":
            bad.append([case, name, found, where])
            print(f"seed {case}, {name}: {found} {where}", flush=True)
        counts[kind] += 1
        of_cases[f"{name}: {kind}"] += 1
        places.update(where[:1])
        if (case - seed + 1) % 20 == 0:
            print(case - seed + 1, dict(counts), flush=True)
    return {
        "cases": n,
        "seed": seed,
        "counts": dict(counts),
        "bad": bad,
        "of each": dict(sorted(of_cases.items())),
        "in": dict(places.most_common()),
    }


def main():
    """Count, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    result = interrupts(args.n, args.seed) | {"version": sklearn_icon.__version__}
    print(json.dumps(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
