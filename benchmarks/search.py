"""`methods.search` beside the defaults: what it finds by scores of its own, judged by others.

Clusters are judged by their agreement with classes that the search never sees, classifiers by accuracy and maps by
recall of neighbours on a half that is held out. Rows are drawn anew for each seed, and so are folds and starts; of each
set the mean difference and its standard error are given. `--files`: sets of clusters, `.npz` with X and y.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from _fresh import machine
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, methods
from sklearn_icon.metrics import clustering_accuracy


def of_clusters(X, y, seed):
    k = len(np.unique(y))
    default = ICONClustering(k, random_state=seed)
    return X, None, {"n_clusters": k}, default, lambda model: clustering_accuracy(y, model.labels_)


def of_classes(X, y, seed):
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    return X, y, {}, ICONClassifier(random_state=seed), lambda model: model.score(X_test, y_test)


def of_maps(X, y, seed):
    X, X_test = train_test_split(X, test_size=0.5, random_state=seed)
    return X, None, {}, ICONEmbedding(random_state=seed), lambda model: model.score(X_test)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    parser.add_argument("-n", type=int, default=800, help="rows that are drawn for each seed (default 800)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too, after each set")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    digits = load_digits(return_X_y=True)
    tasks = {"map, digits": (of_maps, digits), "clusters, digits": (of_clusters, digits)}
    for path in args.files:
        held = np.load(path)
        tasks[f"clusters, {path.stem}"] = of_clusters, (held["X"].astype(np.float32), held["y"])
    tasks["classes, breast cancer"] = of_classes, load_breast_cancer(return_X_y=True)
    figures = []
    for task, (make, (X, y)) in tasks.items():
        found, default, chosen, start = [], [], [], time.process_time()
        for seed in range(args.seeds):
            drawn = np.random.RandomState(seed).permutation(len(X))[: args.n]
            rows, target, params, plain, judge = make(X[drawn], y[drawn], seed)
            result = methods.search(rows, target, random_state=seed, **params)
            found.append(float(judge(result.best_estimator_)))
            plain.set_params(random_state=result.best_estimator_.random_state)  # which starts depend on
            default.append(float(judge(plain.fit(rows, target))))
            chosen.append(" ".join(str(result.ranking_[key][0]) for key in ("name", "parameters")).strip())
            print(f"{task:28} {default[-1]:.3f} -> {found[-1]:.3f}  {chosen[-1]}", flush=True)
        more = np.subtract(found, default)
        error, seconds = more.std(ddof=1) / np.sqrt(len(more)), (time.process_time() - start) / args.seeds
        print(f"{task:28} {more.mean():+.4f} +- {error:.4f}, {seconds:.0f} s", flush=True)
        figures.append({"task": task, "rows": len(drawn), "default": default, "search": found, "chosen": chosen})
        figures[-1] |= {"difference": more.mean(), "standard error": error, "CPU seconds": seconds}
        if args.json:
            args.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
