"""The sets of `clustering.py --panel`: made and real ones that want unlike things, fixed before any default was.

Each maker takes a seed and gives (X, classes or None where there are none, clusters asked for). A class of -1 is an
outlier, which no score counts. A sparse X is a graph between rows without features.
"""

from functools import partial

import numpy as np
from sklearn import datasets
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import scale

PAGE_ROWS, PAGE_STATE = 500, 30  # of scikit-learn's comparison of clusterings
LONG_TAIL_FRACTIONS = 0.72 ** np.arange(10)


def comparison_page(name, seed):
    """A set of the page, with its parameters at seed zero; standardised."""
    state = PAGE_STATE + seed
    if name == "circles":
        X, y = datasets.make_circles(PAGE_ROWS, factor=0.5, noise=0.05, random_state=state)
    elif name == "moons":
        X, y = datasets.make_moons(PAGE_ROWS, noise=0.05, random_state=state)
    elif name == "varied":
        X, y = datasets.make_blobs(PAGE_ROWS, cluster_std=[1.0, 2.5, 0.5], random_state=170 + seed)
    elif name == "aniso":
        X, y = datasets.make_blobs(PAGE_ROWS, random_state=170 + seed)
        X = X @ [[0.6, -0.6], [-0.4, 0.8]]
    elif name == "blobs":
        X, y = datasets.make_blobs(PAGE_ROWS, random_state=state)
    else:
        X, y = np.random.RandomState(state).rand(PAGE_ROWS, 2), None
    return scale(X), y, 2 if name in ("circles", "moons") else 3


def real(name, seed):
    """A bundled set: digits as they are, the others standardised, in an order drawn by the seed."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.RandomState(seed).permutation(len(y))
    X = X if name == "digits" else scale(X)
    return X[order], y[order], int(y.max()) + 1


def corner_blobs(sizes, seed):
    """Blobs of these sizes, six apart, of spread 0.8, in the plane."""
    centers = np.array([[0, 0], [6, 0], [0, 6]])[: len(sizes)]
    X, y = datasets.make_blobs(sizes, centers=centers, cluster_std=0.8, random_state=seed)
    return X, y, len(sizes)


def small_blobs(k, size, n_columns, apart, seed):
    """As many blobs of `size` rows of unit spread, with normal centres."""
    rng = np.random.RandomState(seed)
    y = np.repeat(np.arange(k), size)
    return apart * rng.normal(size=(k, n_columns))[y] + rng.normal(size=(len(y), n_columns)), y, k


def uneven_blobs(seed):
    """Twenty blobs of 10 to 400 rows."""
    rng = np.random.RandomState(seed)
    y = np.repeat(np.arange(20), np.geomspace(10, 400, 20).astype(int))
    return 5 * rng.normal(size=(20, 8))[y] + rng.normal(size=(len(y), 8)), y, 20


def outliers(seed):
    """Four blobs in eight dimensions and three rows far away."""
    X, y, k = small_blobs(4, 150, 8, 4.0, seed)
    X[[0, 200, 400]] = 1e5 * np.random.RandomState(seed).normal(size=(3, 8))
    y[[0, 200, 400]] = -1
    return X, y, k


def wide(seed):
    """Forty-one rows of 2,000 columns in five groups."""
    rng = np.random.RandomState(seed)
    y = np.arange(41) % 5
    return 0.3 * rng.normal(size=(5, 2000))[y] + rng.normal(size=(41, 2000)), y, 5


def graph(seed):
    """A graph of the neighbours of digits, without features."""
    X, y, k = real("digits", seed)
    edges = kneighbors_graph(X, 10)
    return (edges + edges.T) / 2, y, k


def from_file(load, path, seed, *, n=3000, tailed=False):
    """Rows of a file of features drawn by the seed, of all classes or of ever smaller parts of ten."""
    X, y = load(path)[1:]
    order = np.random.RandomState(seed).permutation(len(y))
    if tailed:
        sizes = (n * LONG_TAIL_FRACTIONS / LONG_TAIL_FRACTIONS.sum()).astype(int)
        order = np.concatenate([order[y[order] == c][:size] for c, size in enumerate(sizes)])
    order = order[:n]
    return X[order], y[order], len(np.unique(y[order]))


def panel(load, paths):
    """{name: maker of (X, classes, clusters) from a seed}; of each path rows, and where there are ten classes a tail."""
    made = {name: partial(comparison_page, name) for name in ("circles", "moons", "varied", "aniso", "blobs", "none")}
    made |= {name: partial(real, name) for name in ("iris", "wine", "breast_cancer", "digits")}
    made |= {"-".join(map(str, s)): partial(corner_blobs, s) for s in ((400, 50, 50), (500, 25, 25), (450, 50))}
    small = {"3x10": (3, 10, 4, 8.0), "2x12": (2, 12, 4, 8.0), "40x10": (40, 10, 8, 8.0), "100x20": (100, 20, 16, 5.0)}
    made |= {name: partial(small_blobs, *how) for name, how in small.items()}
    made |= {"uneven": uneven_blobs, "outliers": outliers, "wide": wide, "graph": graph}
    for path in paths:
        name, _, y = load(path)
        made[name] = partial(from_file, load, path)
        if len(np.unique(y)) == 10:
            made[f"{name} tail"] = partial(from_file, load, path, tailed=True)
    return made
