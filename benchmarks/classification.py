"""Classifiers side by side: accuracy, log loss, calibration error, seconds and peak memory at default settings.

Every fit runs in a process of its own; seconds are those of `fit` alone, after `--warm` those of a second one. A seed
draws the split (a fifth, 10,000 rows at the most, is for testing) and the classifier's own random state. Features are
divided by their overall standard deviation. `--labels 0.01` hides all but a hundredth of the training labels: the
semi-supervised ones then read -1, and the others fit what is left.

`--losses` prints a table of losses and peers over several data sets, of at most 12,000 rows each unless `-n` says
otherwise; there the seeds of a system share a process, whose seconds are no benchmark. "overconfidence" is the mean
greatest probability less the accuracy, "spread" the variance of `transform` within classes over that between them.
With `--json` each run is saved as it ends, and not repeated.

`OMP_NUM_THREADS=1 python benchmarks/classification.py --cpu` prints CPU of `ICONClassifier` over that of
`LogisticRegression`, both at their defaults, on five small sets, as they are and standardised (text: TF-IDF): medians
of fits by turns in this process.
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
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC


def icon(seed, jobs, **options):
    from sklearn_icon import ICONClassifier

    return ICONClassifier(random_state=seed, n_jobs=jobs, **options)


def cosine(seed, jobs, **options):
    """A cosine whose temperature is learned."""
    from sklearn_icon import learned

    return icon(seed, jobs, learned=learned.Gaussian(metric="cosine", tau="learn"), **options)


LOSSES = {
    "": icon,
    "-smoothed": partial(icon, debias=0.1),
    "-student_t": partial(icon, learned="student_t"),
    "-harmonic": partial(icon, learned="harmonic"),
    "-cosine": cosine,
}
SYSTEMS = {
    **{f"icon{loss}": make for loss, make in LOSSES.items()},
    **{f"icon-mlp{loss}": partial(make, encoder="mlp") for loss, make in LOSSES.items()},
    "icon-supcon": partial(icon, supervisory="same_class", encoder="mlp"),
    "icon-t-supcon": partial(icon, supervisory="same_class", learned="student_t", encoder="mlp"),
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
MOST_ROWS = {"NCA+KNeighbors": 2000, "SVC": 5000}  # with --losses, of those that take longest
TABLE_ROWS = 12_000
MEASURES = ("accuracy", "log loss", "calibration error", "overconfidence", "spread", "seconds")
SEMI_SUPERVISED = ("icon-propagated", "LabelSpreading", "SelfTraining")


def fit_here(args):
    """One fit for each of the seeds in this process; prints a line of figures for each as JSON."""
    with np.load(args.rows, allow_pickle=True) as arrays:
        X, y = arrays["X"][()], arrays["y"]
    for seed in map(int, args.seed.split(",")):
        print(json.dumps(one_fit(args, X, y, seed)), flush=True)


def one_fit(args, X, y, seed):
    """The figures of one fit."""
    n_test = min(10_000, X.shape[0] // 5)
    X, X_test, y, y_test = train_test_split(X, y, test_size=n_test, stratify=y, random_state=seed)
    if args.labels < 1:
        hidden = np.random.RandomState(seed).uniform(size=len(y)) > args.labels
        if args.fit in SEMI_SUPERVISED:
            y = np.where(hidden, -1, y)
        else:
            X, y = X[~hidden], y[~hidden]
    if args.losses and len(y) > MOST_ROWS.get(args.fit, len(y)):
        X, _, y, _ = train_test_split(X, y, train_size=MOST_ROWS[args.fit], random_state=seed)
    warnings.simplefilter("ignore")
    for _ in range(1 + args.warm):
        model = SYSTEMS[args.fit](seed, args.jobs)
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
    figures = {"accuracy": float(model.score(X_test, y_test)), "seconds": seconds, "MB": peak_mb()}
    if hasattr(model, "predict_proba"):
        figures |= of_probabilities(model, X_test, y_test, figures["accuracy"])
    if args.losses and args.fit.startswith("icon"):
        figures["spread"] = spread(model.transform(X_test), y_test)
    figures["iterations"] = float(np.max(getattr(model, "n_iter_", 0)))
    return figures


def of_probabilities(model, X, y, accuracy):
    """What is measured on probabilities."""
    from sklearn_icon.metrics import expected_calibration_error

    proba = model.predict_proba(X).astype(np.float64)
    proba /= proba.sum(axis=1, keepdims=True)
    proba[~np.isfinite(proba).all(axis=1)] = 1 / proba.shape[1]  # where another library returns NaN
    classes = np.union1d(model.classes_, y)  # those that a small training set lacks have probability zero
    known, proba = proba, np.zeros((len(proba), len(classes)))
    proba[:, np.searchsorted(classes, model.classes_)] = known
    return {
        "log loss": float(log_loss(y, proba, labels=classes)),
        "calibration error": float(expected_calibration_error(y, proba, labels=classes)),
        "overconfidence": float(proba.max(axis=1).mean() - accuracy),
    }


def spread(Z, y):
    """Variance within classes over the variance between their means."""
    within = sum(np.square(Z[y == c] - Z[y == c].mean(axis=0)).sum() for c in np.unique(y)) / len(y)
    total = np.square(Z - Z.mean(axis=0)).sum() / len(y)
    return float(within / (total - within))


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


def report(figures):
    """Print the mean of each system's figures."""
    print("mean (standard deviation over seeds)")
    for system, runs in figures.items():
        values = {key: [run[key] for run in runs] for key in runs[0]}
        print(f"{system:<20}" + "  ".join(f"{k} {np.mean(v):.4g} ({np.std(v):.2g})" for k, v in values.items()))


def table(of_data):
    """Print a table of systems by data for each measure, as Markdown."""
    for measure in MEASURES:
        print(f"\n| {measure} | " + " | ".join(of_data) + " |\n" + "|---" * (1 + len(of_data)) + "|")
        for system in next(iter(of_data.values())):
            cells = []
            for figures in of_data.values():
                values = [run[measure] for run in figures[system] if measure in run]
                cells.append(f"{np.mean(values):.3f} ± {np.std(values):.3f}" if values else "")
            note = f" ({MOST_ROWS[system]:,} rows at most)" if system in MOST_ROWS else ""
            print(f"| {system}{note} | " + " | ".join(cells) + " |")


def small_sets():
    """Yield (name, rows, classes) of scikit-learn's small sets and of made-up text, as they are and standardised."""
    for load_set in (load_iris, load_wine, load_breast_cancer, load_digits):
        X, y = load_set(return_X_y=True)
        name = load_set.__name__.removeprefix("load_")
        yield name, X, y
        yield f"{name}, standardised", StandardScaler().fit_transform(X), y
    X, y = _counts(1500, n_tokens=5000, n_classes=4, length=60)
    yield "text, counts", X, y
    yield "text, TF-IDF", TfidfTransformer().fit_transform(X), y


def cpu_ratios(n_pairs):
    """Print milliseconds of CPU of both, and the median ratio of pairs."""
    warnings.simplefilter("ignore")  # LogisticRegression's, of iterations that do not suffice
    print(f"{'':<28}{'ours ms':>9}{'theirs ms':>11}{'ratio':>7}   accuracy of the fitted rows")
    for name, X, y in small_sets():
        spent, accuracy = {"icon": [], "LogisticRegression": []}, {}
        for pair in range(n_pairs + 1):
            for system in sorted(spent, reverse=pair % 2):
                model = SYSTEMS[system](0, None)
                start = time.process_time()
                model.fit(X, y)
                spent[system].append(time.process_time() - start)
                accuracy[system] = model.score(X, y)
        ours, theirs = (1000 * np.array(seconds[1:]) for seconds in spent.values())  # the first ones import
        told = f"{np.median(ours):9.2f}{np.median(theirs):11.2f}{np.median(ours / theirs):7.2f}"
        print(f"{name:<28}{told}   {accuracy['icon']:.3f} {accuracy['LogisticRegression']:.3f}", flush=True)


def run_seeds(args, system, seeds, rows):
    """Yield (seed, figures) of fits in one process."""
    command = [sys.executable, __file__, "--fit", system, "--rows", rows, "--seed", ",".join(map(str, seeds))]
    command += ["--jobs", args.jobs, "--labels", args.labels] + ["--warm"] * args.warm + ["--losses"] * args.losses
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True) as process:
        for seed in seeds:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{system} ended before its fit with seed {seed} did.")
            yield seed, json.loads(line)


def run_data(args, path, runs):
    """(name, figures by system) on one data set; runs that are known are not repeated."""
    name, X, y = load(path, args.n)
    print(f"{name}: {X.shape[0]} rows of {X.shape[1]}, {len(np.unique(y))} classes", flush=True)

    def key(system, seed):
        return (
            f"{name} n={X.shape[0]} labels={args.labels}{' warm' * args.warm}{' losses' * args.losses} {system} {seed}"
        )

    systems, seeds = args.systems.split(","), range(args.seeds)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        np.savez(rows, X=np.array(X, dtype=object) if sparse.issparse(X) else X, y=y)
        open_seeds = {system: [seed for seed in seeds if key(system, seed) not in runs] for system in systems}
        together = [(system, left) for system, left in open_seeds.items() if left]
        apart = [(system, [seed]) for seed in seeds for system in systems if seed in open_seeds[system]]
        for system, left in together if args.losses else apart:
            for seed, figures in run_seeds(args, system, left, rows):
                runs[key(system, seed)] = figures
                if args.json:
                    args.json.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")
                print(f"{system:<20}" + "  ".join(f"{k} {value:.4g}" for k, value in figures.items()), flush=True)
    return name, {system: [runs[key(system, seed)] for seed in seeds] for system in systems}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of Fashion-MNIST's idx files, an npz with X and y, 'digits' or 'counts'")
    parser.add_argument("-n", type=int, help="rows (default all; with --losses 12,000)")
    parser.add_argument("--systems", default="icon,LogisticRegression,icon-mlp,MLP", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--losses", action="store_true", help="a table of losses and peers; several --data, by commas")
    parser.add_argument("--seeds", type=int, default=5, help="splits and random states 0, 1, ... (default 5)")
    parser.add_argument("--labels", type=float, default=1.0, help="share of the training rows whose label is known")
    parser.add_argument("--warm", action="store_true", help="time a second fit in each process")
    parser.add_argument("--cpu", action="store_true", help="CPU beside LogisticRegression's on small sets, and no more")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="save each run here, and do not repeat it")
    for name in ("--fit", "--rows", "--seed"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        return fit_here(args)
    if args.cpu:
        return cpu_ratios(15)
    runs = json.loads(args.json.read_text())["runs"] if args.json and args.json.exists() else {}
    if not args.losses:
        return report(run_data(args, args.data, runs)[1])
    if args.systems == parser.get_default("systems"):
        args.systems = ",".join(system for system in SYSTEMS if system not in SEMI_SUPERVISED)
    args.n = args.n or TABLE_ROWS
    table(dict(run_data(args, path, runs) for path in (args.data or "digits").split(",")))


if __name__ == "__main__":
    main()
