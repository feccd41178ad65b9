"""Classes discovered beside known ones: accuracy on known, new and all rows, beside k-means that knows the labels.

Half of the classes are known, half of their rows are labelled; figures are of rows without a label. Known classes must
keep their numbers, new clusters are matched to hidden classes. Of the digits and of the first rows of a file, `.npz`
with X and y or section, of which the eight largest count, or a folder of images, by 50 principal components. `--count`
estimates how many classes there are instead, where fractions of them are hidden, of wine, cancer and blobs too, and of
`--rows` rows at the most, drawn for each seed; it keeps the other figures of the file, as these keep the estimates.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from _fresh import machine
from _images import load_images
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin
from sklearn.preprocessing import scale

from sklearn_icon import ICONClustering

_STARTS, _STEPS = 10, 100
_COUNTED, _MOST = 2000, 20  # rows; clusters at the most
_SECTIONS = 8


def hidden_part(y, seed, fraction=0.5):
    """(codes with those of known classes first, how many are known, what is told: the code or -1)."""
    rng = np.random.RandomState(seed)
    order = rng.permutation(np.unique(y))
    codes = np.argsort(order)[np.searchsorted(np.sort(order), y)]
    n_known = max(1, int(len(order) * (1 - fraction) + 1e-9))
    return codes, n_known, np.where((codes < n_known) & (rng.uniform(size=len(y)) < 0.5), codes, -1)


def first_centers(X, told, k, seed):
    """Means of known classes, and rows drawn by k-means++ among those without a label."""
    means = np.stack([X[told == c].mean(axis=0) for c in range(told.max() + 1)])
    return np.vstack([means, kmeans_plusplus(X[told < 0], k - len(means), random_state=seed)[0]])


def seeded(X, told, k, seed):
    """k-means that begins at the means of known classes: the least inertia of several starts."""
    starts = [first_centers(X, told, k, 100 * seed + start) for start in range(_STARTS)]
    return min((KMeans(k, init=init, n_init=1).fit(X) for init in starts), key=lambda fit: fit.inertia_).labels_


def constrained(X, told, k, seed):
    """The same with labels fixed at each step."""
    found = []
    for start in range(_STARTS):
        centers, labels = first_centers(X, told, k, 100 * seed + start), None
        for _ in range(_STEPS):
            before, labels = labels, np.where(told < 0, pairwise_distances_argmin(X, centers), told)
            if before is not None and (labels == before).all():
                break
            centers = np.stack([X[labels == c].mean(axis=0) if (labels == c).any() else centers[c] for c in range(k)])
        found.append((np.square(X - centers[labels]).sum(), labels))
    return min(found, key=lambda each: each[0])[1]


def ours(X, told, k, seed):
    return ICONClustering(k, supervisory="same_class", random_state=seed).fit(X, told).labels_


def accuracies(labels, codes, n_known, told):
    """Of rows without a label: known classes by their numbers, hidden ones by the matching that is best for them."""
    k = max(labels.max(), codes.max()) + 1
    common = np.zeros((k, k))
    np.add.at(common, (labels, codes), codes >= n_known)
    rows, columns = linear_sum_assignment(-common[n_known:, n_known:])
    named = np.arange(k)
    named[n_known + rows] = n_known + columns
    right, free = named[labels] == codes, told < 0
    return [right[free & part].mean() for part in (codes < n_known, codes >= n_known, np.ones(len(codes), bool))]


def sets_of(files, n, count):
    """name -> (X, y)."""
    data = {"digits": load_digits(return_X_y=True)}
    for path in files:
        name, X, y = load_images(path)
        sections, sizes = np.unique(y, return_counts=True)
        rows = np.arange(len(X))[:n]
        if len(sections) > _MOST:
            held = np.isin(y, sections[np.argsort(-sizes, kind="stable")[:_SECTIONS]])
            rows = np.random.RandomState(0).permutation(np.flatnonzero(held))[:n]
        X = X[rows] if path.suffix == ".npz" else PCA(50, random_state=0).fit_transform(X[rows])
        data[name] = X, np.unique(y[rows], return_inverse=True)[1]
    if count:
        data |= {name: (scale(load().data), load().target) for name, load in _SMALL.items()}
        data["even blobs"] = make_blobs(1000, 10, centers=8, cluster_std=3.0, random_state=1)
        data["uneven blobs"] = make_blobs([400, 250, 150, 100, 60, 40], 10, cluster_std=3.0, random_state=2)
    return data


_SMALL = {"wine": load_wine, "breast cancer": load_breast_cancer}


def counted(X, y, seed, fraction, n_rows, most):
    """How many classes there seem to be."""
    drawn = np.random.RandomState(seed).permutation(len(X))[:n_rows]
    told = hidden_part(y[drawn], seed, fraction)[2]
    fit = ICONClustering("auto", supervisory="same_class", max_clusters=most, random_state=seed)
    return fit.fit(X[drawn], told).n_clusters_


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    parser.add_argument("-n", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed of estimates (default 0)")
    parser.add_argument("--count", action="store_true", help="estimate the numbers of classes instead")
    parser.add_argument("--hidden", type=float, nargs="*", default=[1 / 3, 1 / 2, 2 / 3], help="fractions of classes")
    parser.add_argument("--rows", type=int, default=_COUNTED, help=f"rows of an estimate (default {_COUNTED})")
    parser.add_argument("--most", type=int, default=_MOST, help=f"classes of an estimate (default {_MOST})")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = sets_of(args.files, args.n, args.count)
    ICONClustering(10).fit(data["digits"][0])  # compiles
    held = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    found = {"machine": machine(), "figures": held.get("figures", []) if args.count else []}
    figures, counts = found["figures"], found.setdefault("estimated", dict(held.get("estimated", {})))
    for name, (X, y) in data.items() if args.count else ():
        counts[name] = {"true": len(np.unique(y))}
        for fraction in args.hidden:
            estimates, start = [], time.process_time()
            for seed in range(args.first, args.first + args.seeds):
                estimates.append(int(counted(X, y, seed, fraction, args.rows, args.most)))
            seconds = (time.process_time() - start) / args.seeds
            counts[name] |= {f"{fraction:.2f} hidden": estimates, f"{fraction:.2f} hidden, CPU s": round(seconds, 1)}
            print(f"{name}, {counts[name]['true']}: {fraction:.2f} hidden {estimates}, {seconds:.1f} s", flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1) + "\n")
    for name, (X, y) in () if args.count else data.items():
        k = len(np.unique(y))
        for how in (ours, constrained, seeded):
            scores, start = [], time.process_time()
            for seed in range(args.seeds):
                codes, n_known, told = hidden_part(y, seed)
                scores.append(accuracies(how(X, told, k, seed), codes, n_known, told))
            seconds = (time.process_time() - start) / args.seeds
            of = dict(zip(("known", "new", "all"), np.transpose(scores).round(4).tolist(), strict=True))
            figures.append({"data": name, "rows": len(X), "how": how.__name__, "cpu_seconds": round(seconds, 2), **of})
            means = ", ".join(f"{part} {np.mean(each):.3f} +- {np.std(each):.3f}" for part, each in of.items())
            print(f"{name:16} {how.__name__:12} {means}, {seconds:.1f} s", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
