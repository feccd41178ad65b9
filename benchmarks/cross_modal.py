"""Halves of images that find each other: recall at 1 of `ICONCrossModal` and of scikit-learn's CCA.

Each image is cut in two; a model fitted on the halves of the training images must tell, for each half of a held-out
image, which of 1,000 other halves is its own. Recall at 1 is the mean of both ways. A seed draws the training rows, the
1,000 held-out images (of the last 10,000, or of what the digits leave) and the random state. CCA has several numbers of
components, 2 by its default, and the better of cosines and distances, judged on the held-out images themselves. With
`--flat`, t-CLIP in as many dimensions as CCA's default runs too.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from _fresh import machine
from _images import load_images
from scipy.linalg import helmert
from sklearn.cross_decomposition import CCA

N_HELD_OUT = 1000


def halves(images, split):
    """The two halves of square images, as rows."""
    side = int(np.sqrt(images.shape[1]))
    both = np.split(images.reshape(-1, side, side), [side // 2], axis=2 if split == "left/right" else 1)
    return [half.reshape(len(images), -1) for half in both]


def recall_at_one(z, w):
    """The mean of both ways, by the better of cosines and distances."""

    def both_ways(affinity):
        own = np.arange(len(affinity))
        return ((affinity.argmax(axis=1) == own).mean() + (affinity.argmax(axis=0) == own).mean()) / 2

    dots, sq_z, sq_w = z @ w.T, np.square(z).sum(axis=1)[:, None], np.square(w).sum(axis=1)
    return max(both_ways(dots / np.sqrt(sq_z * sq_w)), both_ways(2 * dots - sq_z - sq_w))


def cca(X, Y, X_new, Y_new, n_components, every_row):
    """Recall of CCA for each number of components.

    CCA reads rows through their means and cross-products alone. Unless `every_row`, it is fitted on as many rows as
    there are columns, whose cross-products are those of all: the same maps, in a hundredth of the time.
    """
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    means = X.mean(axis=0), Y.mean(axis=0)
    n_columns = X.shape[1] + Y.shape[1]
    if not every_row and len(X) > n_columns:
        triangle = np.linalg.qr(np.hstack([X - means[0], Y - means[1]]), mode="r")
        rows = helmert(n_columns + 1).T @ triangle  # centred, with the cross-products of all rows
        X, Y = rows[:, : X.shape[1]], rows[:, X.shape[1] :]
    else:
        X, Y = X - means[0], Y - means[1]
    kept = [half.std(axis=0) > 1e-9 for half in (X, Y)]
    recalls = {}
    for number in n_components:
        number = min(number, *(int(columns.sum()) for columns in kept))
        model = CCA(number).fit(X[:, kept[0]], Y[:, kept[1]])
        pairs = model.transform((X_new - means[0])[:, kept[0]], (Y_new - means[1])[:, kept[1]])
        recalls[f"CCA({number})"] = float(recall_at_one(*pairs))
    return recalls


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of Fashion-MNIST's idx files, or 'digits' (default OpenML)")
    parser.add_argument("-n", type=int, help="training images (default all)")
    parser.add_argument("--split", default="left/right,top/bottom", help="how images are cut")
    parser.add_argument("--components", default="2,10,20,32,50", help="numbers of components of CCA")
    parser.add_argument("--flat", action="store_true", help="also two dimensions, under a Student-t kernel")
    parser.add_argument("--every-row", action="store_true", help="fit CCA on the rows as they are")
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ... (default 3)")
    parser.add_argument("--jobs", type=int, default=None, help="threads of ICONCrossModal")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    from sklearn_icon import ICONCrossModal

    warnings.simplefilter("ignore")  # CCA's components that its iterations leave short of convergence
    name, images, _ = load_images(args.data)
    figures: dict[str, list[dict]] = {split: [] for split in args.split.split(",")}
    n_components = [int(number) for number in args.components.split(",")]
    systems: dict[str, dict] = {"ICONCrossModal()": {}}
    if args.flat:
        systems["ICONCrossModal(2, learned='student_t')"] = {"n_components": 2, "learned": "student_t"}
    for split, runs in figures.items():
        X, Y = halves(images, split)
        n_test = min(10_000, len(X) // 3)
        for seed in range(args.seeds):
            rng = np.random.RandomState(seed)
            rows = rng.permutation(len(X) - n_test)[: args.n]
            held = len(X) - n_test + rng.permutation(n_test)[:N_HELD_OUT]
            runs.append(cca(X[rows], Y[rows], X[held], Y[held], n_components, args.every_row))
            print(f"{name}, {split}, seed {seed}: {runs[-1]}", flush=True)
            for system, options in systems.items():
                pairs = ICONCrossModal(**options, random_state=seed, n_jobs=args.jobs).fit(X[rows], Y[rows])
                runs[-1][system] = float(pairs.score(X[held], Y[held]))
                print(f"{system} {runs[-1][system]:.4f}", flush=True)
        means = {system: float(np.mean([run[system] for run in runs])) for system in runs[0]}
        best = max(recall for system, recall in means.items() if system.startswith("CCA"))
        print(f"{split}, {len(rows)} training images, recall at 1 among {len(held)}, means over seeds:")
        print("  ".join(f"{system} {recall:.3f}" for system, recall in means.items()))
        print("  ".join(f"{system} over the best CCA {means[system] / best:.2f}" for system in systems))
    if args.json:
        report = {"machine": machine(), "data": [name, len(rows)], "figures": figures}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
