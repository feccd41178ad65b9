"""Classifiers side by side: accuracy, log loss, calibration error, seconds and peak memory at default settings.

Every fit runs in a process of its own; seconds are those of `fit` alone, after `--warm` those of a second one. A seed
draws the split (a fifth, 10,000 rows at the most, is for testing) and the classifier's own random state. Features are
divided by their overall standard deviation. `--labels 0.01` hides all but a hundredth of the training labels: the
semi-supervised ones then read -1, and the others fit what is left.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _fresh import machine, peak_mb
from _images import load_images
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC


def icon(seed, jobs, **options):
    from sklearn_icon import ICONClassifier

    return ICONClassifier(random_state=seed, n_jobs=jobs, **options)


def harmonic(seed, jobs, **options):
    from sklearn_icon import learned

    return icon(seed, jobs, learned=learned.Harmonic(n=28.0), **options)


def t_supcon(seed, jobs):
    return icon(seed, jobs, supervisory="same_class", learned="student_t", encoder="mlp")


SYSTEMS = {
    "icon": icon,
    "icon-smoothed": partial(icon, debias=0.1),
    "icon-student_t": partial(icon, learned="student_t"),
    "icon-cosine": partial(icon, learned="cosine"),
    "icon-harmonic": harmonic,
    "icon-mlp": partial(icon, encoder="mlp"),
    "icon-mlp-smoothed": partial(icon, encoder="mlp", debias=0.1),
    "icon-mlp-harmonic": partial(harmonic, encoder="mlp"),
    "icon-supcon": partial(icon, supervisory="same_class", encoder="mlp"),
    "icon-t-supcon": t_supcon,
    "icon-propagated": partial(icon, supervisory="propagated_label"),
    "LogisticRegression": lambda seed, jobs: LogisticRegression(random_state=seed),
    "KNeighbors": lambda seed, jobs: KNeighborsClassifier(10, n_jobs=jobs),
    "MLP": lambda seed, jobs: MLPClassifier(random_state=seed),
    "NCA+KNeighbors": lambda seed, jobs: make_pipeline(
        NeighborhoodComponentsAnalysis(random_state=seed), KNeighborsClassifier(10, n_jobs=jobs)
    ),
    "SVC": lambda seed, jobs: SVC(random_state=seed),
    "LabelSpreading": lambda seed, jobs: LabelSpreading(kernel="knn", n_jobs=jobs),
    "SelfTraining": lambda seed, jobs: SelfTrainingClassifier(LogisticRegression(random_state=seed)),
}
SEMI_SUPERVISED = ("icon-propagated", "LabelSpreading", "SelfTraining")


def fit_here(args):
    """One fit in this process; prints its figures as JSON."""
    from sklearn_icon.metrics import expected_calibration_error

    with np.load(args.rows, allow_pickle=True) as arrays:
        X, y = arrays["X"][()], arrays["y"]
    n_test = min(10_000, X.shape[0] // 5)
    X, X_test, y, y_test = train_test_split(X, y, test_size=n_test, stratify=y, random_state=args.seed)
    if args.labels < 1:
        hidden = np.random.RandomState(args.seed).uniform(size=len(y)) > args.labels
        if args.fit in SEMI_SUPERVISED:
            y = np.where(hidden, -1, y)
        else:
            X, y = X[~hidden], y[~hidden]
    warnings.simplefilter("ignore")
    for _ in range(1 + args.warm):
        model = SYSTEMS[args.fit](args.seed, args.jobs)
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
    figures = {"accuracy": float(model.score(X_test, y_test)), "seconds": seconds, "MB": peak_mb()}
    if hasattr(model, "predict_proba"):
        proba = model.predict_proba(X_test).astype(np.float64)
        proba /= proba.sum(axis=1, keepdims=True)
        proba[~np.isfinite(proba).all(axis=1)] = 1 / proba.shape[1]  # where another library returns NaN
        figures["log loss"] = float(log_loss(y_test, proba, labels=model.classes_))
        figures["calibration error"] = float(expected_calibration_error(y_test, proba, labels=model.classes_))
    figures["iterations"] = float(np.max(getattr(model, "n_iter_", 0)))
    print(json.dumps(figures))


def load(path, n):
    """(name, rows over their standard deviation, class codes) of images, features or, for "counts", made-up text."""
    if path == "counts":
        return "counts", *_counts(n or 11_000)
    name, X, y = load_images(path)
    y, sizes = np.unique(y, return_inverse=True, return_counts=True)[1:]
    kept = np.flatnonzero(sizes[y] >= 50)
    if n and n < len(kept):
        kept = np.sort(np.random.RandomState(0).permutation(kept)[:n])
    X, y = X[kept], np.unique(y[kept], return_inverse=True)[1]
    return name, X / X.std(), y


def _counts(n, n_tokens=100_000, n_classes=20, length=150, seed=0):
    """Token counts of documents, the size of 20 newsgroups: Zipfian tokens, some of them likelier in a class."""
    rng = np.random.RandomState(seed)
    common = 1 / (1 + np.arange(n_tokens)) ** 1.05
    y = rng.randint(n_classes, size=n)
    parts = []
    for c in range(n_classes):
        share = common * np.where(rng.uniform(size=n_tokens) < 0.02, 3.0, 1.0)
        lengths = 1 + rng.poisson(length, size=int((y == c).sum()))
        rows = np.repeat(np.flatnonzero(y == c), lengths)
        tokens = rng.choice(n_tokens, size=len(rows), p=share / share.sum())
        parts.append(np.stack([rows, tokens]))
    rows, tokens = np.concatenate(parts, axis=1)
    return sparse.csr_array((np.ones(len(rows), dtype=np.float64), (rows, tokens)), shape=(n, n_tokens)), y


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of Fashion-MNIST's idx files, an npz with X and y, 'digits' or 'counts'")
    parser.add_argument("-n", type=int, help="rows (default all)")
    parser.add_argument("--systems", default="icon,LogisticRegression,icon-mlp,MLP", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--seeds", type=int, default=5, help="splits and random states 0, 1, ... (default 5)")
    parser.add_argument("--labels", type=float, default=1.0, help="share of the training rows whose label is known")
    parser.add_argument("--warm", action="store_true", help="time a second fit in each process")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    for name in ("--fit", "--rows"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        return fit_here(args)

    name, X, y = load(args.data, args.n)
    print(f"{name}: {X.shape[0]} rows of {X.shape[1]}, {len(np.unique(y))} classes", flush=True)
    figures: dict[str, list[dict]] = {system: [] for system in args.systems.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        np.savez(rows, X=np.array(X, dtype=object) if sparse.issparse(X) else X, y=y)
        for seed in range(args.seeds):
            for system, runs in figures.items():
                command = [sys.executable, __file__, "--fit", system, "--rows", rows, "--seed", seed]
                command += ["--jobs", args.jobs, "--labels", args.labels] + ["--warm"] * args.warm
                done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
                runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(f"{system:<20}" + "  ".join(f"{key} {value:.4g}" for key, value in runs[-1].items()), flush=True)
    print("mean (standard deviation over seeds)")
    for system, runs in figures.items():
        values = {key: [run[key] for run in runs] for key in runs[0]}
        print(f"{system:<20}" + "  ".join(f"{k} {np.mean(v):.4g} ({np.std(v):.2g})" for k, v in values.items()))
    if args.json:
        report = {"machine": machine(), "data": [name, *X.shape], "labels": args.labels, "figures": figures}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
