"""What divergences are for: maps of crowded rows and of rows with outliers, clusters of uneven sizes.

Made data, whose groups are known: 5 groups of 15 dimensions, of unlike widths; the same with one row in twenty far
off; and 5 groups of 160 to 10 rows. Maps are conditional, of either kernel. What is measured, of the rows that are in
groups: recall of the 10 nearest, the silhouette of the groups, and how much of the map's radius they have; of clusters
the adjusted Rand index, and the mean recall of groups, each counting as much, found by the best matching. A fit whose
loss is not finite counts under "fits" only.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from _fresh import machine
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, confusion_matrix, silhouette_score

from sklearn_icon import ICONClustering, ICONEmbedding, supervisory
from sklearn_icon.divergences import Alpha, Renyi, TotalVariation
from sklearn_icon.metrics import knn_recall

DIVERGENCES = {
    "kl": "kl",
    "alpha 0.5": Alpha(0.5),
    "alpha 1.5": Alpha(1.5),
    "renyi 0.5": Renyi(0.5),
    "renyi 2": Renyi(2.0),
    "jensen_shannon": "jensen_shannon",
    "total_variation": TotalVariation(smoothing=0.01),
    "reverse_kl": "reverse_kl",
    "kl, debias 0": "kl",  # clusters are debiased by default under KL
}
_DEBIAS = {"reverse_kl": 0.05, "kl, debias 0": 0.0}  # the first is infinite where p is zero
SIZES = (160, 80, 40, 20, 10)


def groups(sizes, rng, n_features=15):
    """(rows, numbers of groups): Gaussians whose spread differs along axes."""
    centers = rng.normal(size=(len(sizes), n_features)) * 2.0
    scales = rng.uniform(0.3, 1.2, size=(len(sizes), n_features))
    parts = [c + s * rng.normal(size=(n, n_features)) for c, s, n in zip(centers, scales, sizes, strict=True)]
    return np.concatenate(parts), np.repeat(np.arange(len(sizes)), sizes)


def width(Z):
    """The median distance from the median."""
    return np.median(np.linalg.norm(Z - np.median(Z, axis=0), axis=1))


def map_of(name, learned, n_outliers, n, seed):
    rng = np.random.default_rng(seed)
    X, y = groups([n // 5] * 5, rng)
    rows = np.concatenate([X, rng.normal(size=(n_outliers, X.shape[1])) * 12.0])
    model = ICONEmbedding(
        supervisory=supervisory.Gaussian(perplexity=20),
        learned=learned,
        divergence=DIVERGENCES[name],
        debias=_DEBIAS.get(name, 0.0),
        normalization="conditional",
        method="exact",
        random_state=seed,
    )
    start = time.process_time()
    Z = model.fit_transform(rows)
    seconds = time.process_time() - start
    of_groups = Z[: len(X)]
    return {
        "recall@10": knn_recall(X, of_groups, n_neighbors=10),
        "silhouette": silhouette_score(of_groups, y),
        "width": width(of_groups) / np.linalg.norm(Z - np.median(of_groups, axis=0), axis=1).max(),
        "CPU s": seconds,
    }


def clusters_of(name, seed):
    X, y = groups(SIZES, np.random.default_rng(100 + seed))
    model = ICONClustering(
        len(SIZES),
        supervisory=supervisory.UniformKNN(n_neighbors=8),
        divergence=DIVERGENCES[name],
        debias=_DEBIAS.get(name, "auto"),
        random_state=seed,
    )
    start = time.process_time()
    labels = model.fit_predict(X)
    seconds = time.process_time() - start
    table = confusion_matrix(y, labels)
    found = linear_sum_assignment(-table / table.sum(axis=1, keepdims=True))
    recalls = table[found] / table.sum(axis=1)[found[0]]
    return {"ARI": adjusted_rand_score(y, labels), "recall of groups": recalls.mean(), "CPU s": seconds}


def attempt(run, name, seed):
    """What a run found, or None where its loss was not finite, or the divergence is refused."""
    try:
        return run(name, seed)
    except ValueError as error:
        if not any(words in str(error) for words in ("not finite", "no sum over pairs", "on all pairs of rows")):
            raise


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=150, help="rows of a map (default 150)")
    parser.add_argument("--seeds", type=int, default=5, help="random states 0, 1, ..., of data and fits (default 5)")
    parser.add_argument("--names", default=";".join(DIVERGENCES))
    parser.add_argument("--task", default="", help="those whose name holds this")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    tasks = {
        "crowded rows, Gaussian": lambda name, seed: map_of(name, "gaussian", 0, args.n, seed),
        "crowded rows, Student-t": lambda name, seed: map_of(name, "student_t", 0, args.n, seed),
        "rows with outliers, Student-t": lambda name, seed: map_of(name, "student_t", args.n // 20, args.n, seed),
        "clusters of uneven sizes": clusters_of,
    }
    found = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    found |= {"machine": machine(), "seeds": args.seeds}
    for task, run in [(task, run) for task, run in tasks.items() if args.task in task]:
        found[task] = {}
        for name in args.names.split(";"):
            if name == "kl, debias 0" and "clusters" not in task:
                continue
            runs = [one for seed in range(args.seeds) if (one := attempt(run, name, seed))]
            columns = {key: [one[key] for one in runs] for key in (runs[0] if runs else ())}
            found[task][name] = {key: [float(np.mean(v)), float(np.std(v))] for key, v in columns.items()}
            found[task][name]["fits"] = [len(runs), 0.0]
            told = "  ".join(f"{key} {mean:.3f} +- {std:.3f}" for key, (mean, std) in found[task][name].items())
            print(f"{task:30} {name:16} {told}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
