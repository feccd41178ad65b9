"""`methods.search` beside the defaults: what it finds by scores of its own, judged by others.

Clusters are judged by their agreement with classes that the search never sees, classifiers by accuracy and maps by
recall of neighbours on other rows. Rows are drawn anew for each seed, and so are folds and starts; of each
set the mean difference and its standard error are given. `--files`: further sets, `.npz` with X and y, or section, of
which those of less than 800 rows are left out. Candidates were chosen on digits, wine and the files; other sets were
looked at afterwards.
"""

import argparse
import json
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _fresh import machine
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification, make_moons
from sklearn.model_selection import train_test_split

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, methods
from sklearn_icon.metrics import clustering_accuracy

_LEAST, _MOST = 800, 4000  # rows of a class of a file; rows of a draw, the search's and those that judge


def of_clusters(X, y, n, seed):
    X, y = X[:n], y[:n]
    k = len(np.unique(y))
    default = ICONClustering(k, random_state=seed)
    return X, None, {"n_clusters": k}, default, lambda model: clustering_accuracy(y, model.labels_)


def of_classes(X, y, n, seed):
    n = min(n, len(X) // 2)
    X, X_test, y, y_test = train_test_split(X, y, train_size=n, stratify=y, random_state=seed)
    return X, y, {}, ICONClassifier(random_state=seed), lambda model: model.score(X_test, y_test)


def of_maps(X, y, n, seed):
    X, X_test = X[:n], X[n : 2 * n]
    return X, None, {}, ICONEmbedding(random_state=seed), lambda model: model.score(X_test)


def of_bent_classes():
    """Two half moons, which no line parts."""
    return make_moons(2000, noise=0.25, random_state=0)


def of_uneven_classes():
    """Classes of 80, 15 and 5 %, each of two clumps, under columns of noise."""
    sizes = {"n_classes": 3, "n_clusters_per_class": 2, "weights": [0.8, 0.15, 0.05]}
    return make_classification(2000, 20, n_informative=5, n_redundant=2, class_sep=1.0, random_state=0, **sizes)


SETS = {
    "digits": partial(load_digits, return_X_y=True),
    "wine": partial(load_wine, return_X_y=True),
    "moons": of_bent_classes,
    "uneven": of_uneven_classes,
    "breast cancer": partial(load_breast_cancer, return_X_y=True),
    "iris": partial(load_iris, return_X_y=True),
}
TASKS = {"classes": of_classes, "maps": of_maps, "clusters": of_clusters}


def rows_of(path):
    """(X, y) of a file."""
    held = np.load(path)
    X, y = held["X"].astype(np.float32), held["y"] if "y" in held else held["section"]
    _, of_rows, sizes = np.unique(y, return_inverse=True, return_counts=True)
    large = (sizes >= _LEAST)[of_rows]
    return X[large], y[large]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    parser.add_argument("--tasks", default="classes", help=f"of {', '.join(TASKS)}, separated by commas")
    parser.add_argument("--data", default="digits,wine", help=f"of {', '.join(SETS)}, separated by commas")
    parser.add_argument("-n", type=int, default=150, help="rows of a search, drawn for each seed (default 150)")
    parser.add_argument("--cv", type=int, default=5, help="folds (default 5)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--json", type=Path, help="write the figures here too, after each set, in place of those of it")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = {name: SETS[name]() for name in args.data.split(",") if name}
    data |= {path.stem: rows_of(path) for path in args.files}
    tasks = {f"{kind}, {name}": (TASKS[kind], data[name]) for kind in args.tasks.split(",") for name in data}
    figures = json.loads(args.json.read_text())["figures"] if args.json and args.json.exists() else []
    for task, (make, (X, y)) in tasks.items():
        found, default, chosen, start = [], [], [], time.process_time()
        for seed in range(args.first, args.first + args.seeds):
            drawn = np.random.RandomState(seed).permutation(len(X))[:_MOST]
            rows, target, params, plain, judge = make(X[drawn], y[drawn], args.n, seed)
            result = methods.search(rows, target, cv=args.cv, random_state=seed, **params)
            found.append(float(judge(result.best_estimator_)))
            plain.set_params(random_state=result.best_estimator_.random_state)  # which starts depend on
            default.append(float(judge(plain.fit(rows, target))))
            chosen.append(" ".join(str(result.ranking_[key][0]) for key in ("name", "parameters")).strip())
            print(f"{task:28} {default[-1]:.3f} -> {found[-1]:.3f}  {chosen[-1]}", flush=True)
        more = np.subtract(found, default)
        error, seconds = more.std(ddof=1) / np.sqrt(len(more)), (time.process_time() - start) / args.seeds
        print(f"{task:28} {more.mean():+.4f} +- {error:.4f}, {seconds:.0f} s", flush=True)
        figures = [each for each in figures if each["task"] != task]
        figures.append(
            {"task": task, "rows": len(rows), "cv": args.cv, "default": default, "search": found, "chosen": chosen}
        )
        figures[-1] |= {"difference": more.mean(), "standard error": error, "CPU seconds": seconds}
        if args.json:
            args.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
