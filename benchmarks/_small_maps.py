"""Maps of 50 to 150 rows: the loss of unlike sets beside that of scikit-learn's exact t-SNE.

The loss of so few rows is a lottery of rounding, of one per cent from one order of the rows to another, so each set is
fitted in several orders and means are compared. All are under one P in double precision, all pairs summed.
"""

import time
from functools import partial

import numpy as np
from _images import load_images
from sklearn import datasets
from sklearn.manifold import TSNE
from sklearn.preprocessing import scale

from sklearn_icon import ICONEmbedding
from sklearn_icon.supervisory import Gaussian


def _bundled(name, n, scaled=True):
    X = getattr(datasets, f"load_{name}")(return_X_y=True)[0]
    X = scale(X) if scaled else X
    return X[np.random.RandomState(0).permutation(len(X))[:n]]


def _blobs(n, n_columns, k, spread=1.0):
    return datasets.make_blobs(n, n_columns, centers=k, cluster_std=spread, random_state=0)[0]


def _noise(n, n_columns):
    return np.random.RandomState(1).standard_normal((n, n_columns))


def _helix(n):
    t = np.linspace(0, 4 * np.pi, n)
    return np.stack([np.cos(t), np.sin(t), t / 4], axis=1)


def _counts(n):
    rng = np.random.RandomState(2)
    words = rng.dirichlet(np.full(6, 0.2), n) @ rng.dirichlet(np.full(80, 0.05), 6)
    return np.array([rng.multinomial(60, row / row.sum()) for row in words]).astype(float)


def _table(n):
    """Few values a column, and a third of the rows twice."""
    X = np.random.RandomState(3).randint(0, 4, (n, 6)).astype(float)
    X[: n // 3] = X[n // 3 : 2 * (n // 3)]
    return X


def _far_rows(n):
    return np.random.RandomState(4).standard_t(1.5, (n, 8))


def _tree(n):
    """Rows that each differ a little from an earlier one."""
    rng = np.random.RandomState(5)
    X = np.zeros((n, 20))
    for i in range(1, n):
        X[i] = X[rng.randint(i)] + rng.standard_normal(20) * (rng.rand(20) < 0.3)
    return X


def _features(path, n):
    _, X, _ = load_images(path)
    return X[np.random.RandomState(6).permutation(len(X))[:n]]


SETS = {
    "iris": partial(_bundled, "iris", 150, scaled=False),
    "wine": partial(_bundled, "wine", 120, scaled=False),
    "wine scaled": partial(_bundled, "wine", 75),
    "cancer": partial(_bundled, "breast_cancer", 150),
    "diabetes": partial(_bundled, "diabetes", 110),
    "digits": partial(_bundled, "digits", 140, scaled=False),
    "few digits": partial(_bundled, "digits", 60, scaled=False),
    "three blobs": partial(_blobs, 50, 2, 3),
    "ten blobs": partial(_blobs, 150, 20, 10, 2.0),
    "far blobs": partial(_blobs, 100, 5, 4, 0.1),
    "swiss roll": lambda: datasets.make_swiss_roll(150, random_state=0)[0],
    "S-curve": lambda: datasets.make_s_curve(90, random_state=0)[0],
    "circles": lambda: datasets.make_circles(100, factor=0.5, noise=0.03, random_state=0)[0],
    "helix": partial(_helix, 80),
    "noise": partial(_noise, 70, 5),
    "wide noise": partial(_noise, 130, 60),
    "counts": partial(_counts, 100),
    "table": partial(_table, 120),
    "far rows": partial(_far_rows, 85),
    "tree": partial(_tree, 135),
}


def small_sets(paths):
    """{name: maker of X}: those that are made or bundled, and 50 and 150 rows of each path of images or features."""
    of_paths = {path.rstrip("/").rpartition("/")[2].removesuffix(".npz"): path for path in paths}
    return SETS | {f"{name}, {n}": partial(_features, path, n) for name, path in of_paths.items() for n in (50, 150)}


def joint_kl(p, Z):
    """KL(P || Q) over all pairs in double precision, Q that of t-SNE."""
    P = p.weights.toarray()
    P = (P + P.T) / (2 * len(P))
    off = ~np.eye(len(Z), dtype=bool)
    Z = Z.astype(np.float64)
    kernel = 1 / (1 + np.square(Z[:, None] - Z[None]).sum(-1)[off])
    P = P[off]
    some = P > 0
    return float((P[some] * np.log(P[some] / kernel[some])).sum() + P.sum() * np.log(kernel.sum()))


def _fitted(model, X):
    """(map, CPU seconds)."""
    start = time.process_time()
    Z = model.fit_transform(X)
    return Z, time.process_time() - start


def compare_small_maps(sets, n_orders):
    """{set: rows, KL and CPU seconds of both systems in each order of the rows, their means, ratio of mean KL}."""
    report = {}
    ICONEmbedding(random_state=0).fit(SETS["iris"]())  # loads what the first fit of a process loads, untimed
    for name, make in sets.items():
        X, found = np.asarray(make(), dtype=np.float64), {}
        for order in range(n_orders):
            rows = X[np.random.RandomState(order).permutation(len(X))]
            p = Gaussian().conditional(rows)
            fits = {"icon": ICONEmbedding(random_state=0), "TSNE": TSNE(method="exact", random_state=0)}
            for system, model in fits.items():
                Z, seconds = _fitted(model, rows)
                found.setdefault(f"{system} KL", []).append(joint_kl(p, Z))
                found.setdefault(f"{system} CPU", []).append(seconds)
        means = {f"mean {key}": float(np.mean(values)) for key, values in found.items()}
        means["KL ratio"] = means["mean icon KL"] / means["mean TSNE KL"]
        report[name] = {"rows": len(X), **means, "orders": found}
        print(f"{name:<24}{len(X):>4} rows", {key: float(f"{value:.4g}") for key, value in means.items()}, flush=True)
    return report
