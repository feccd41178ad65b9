"""Data of unlike kinds that a fresh machine has or makes, and maps of each by several systems, side by side."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn import datasets
from sklearn.neighbors import NearestNeighbors


def _unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def _uneven_blobs():
    sizes = [(1500, 0.5), (800, 1.5), (300, 2.5), (100, 3.5), (50, 4.5)]
    blobs = [datasets.make_blobs(n, 10, centers=1, cluster_std=s, random_state=i)[0] for i, (n, s) in enumerate(sizes)]
    return np.concatenate(blobs)


def _spheres():
    X = _unit(np.random.RandomState(0).standard_normal((2000, 3)))
    X[:1000] /= 2
    return X


def _table():
    """Few values a column, of different scales, a tenth of the rows twice."""
    rng = np.random.RandomState(1)
    X = rng.randint(0, 6, (4000, 8)) + 10.0 * np.eye(8)[:3].sum(0) * rng.randint(0, 2, (4000, 8))
    X[:400] = X[400:800]
    return X


def _counts():
    """Roots of the frequencies of 500 words in texts of mixed topics."""
    rng = np.random.RandomState(2)
    words = rng.dirichlet(np.full(10, 0.2), 3000) @ rng.dirichlet(np.full(500, 0.05), 10)
    return np.sqrt(np.array([rng.multinomial(100, row / row.sum()) for row in words]))


def _factors():
    """Twelve factors of falling weight behind 16 bounded columns with noise."""
    rng = np.random.RandomState(3)
    loadings, factors = rng.standard_normal((12, 16)), rng.standard_normal((6000, 12)) * np.linspace(2, 0.1, 12)
    return np.tanh(factors @ loadings) + 0.1 * rng.standard_normal((6000, 16))


SETS = {
    "iris": lambda: datasets.load_iris().data,
    "wine": lambda: datasets.load_wine().data,
    "cancer": lambda: datasets.load_breast_cancer().data,
    "digits": lambda: datasets.load_digits().data,
    "swiss roll": lambda: datasets.make_swiss_roll(2000, random_state=0)[0],
    "S-curve": lambda: datasets.make_s_curve(2000, random_state=0)[0],
    "spheres": _spheres,
    "uneven blobs": _uneven_blobs,
    "table": _table,
    "counts": _counts,
    "factors": _factors,
}
MANIFOLDS = ("swiss roll", "S-curve")


def n_pieces(X, Z, n_neighbors=10, n_near=30):
    """Pieces of at least a fiftieth of the rows into which a map tears the graph of nearest neighbours.

    An edge is kept where its end is among the `n_near` nearest rows in the map.
    """
    among = (
        NearestNeighbors(n_neighbors=n_neighbors + 1).fit(X).kneighbors(return_distance=False, n_neighbors=n_neighbors)
    )
    near = NearestNeighbors(n_neighbors=n_near).fit(Z).kneighbors(return_distance=False)
    kept = (among[:, :, None] == near[:, None]).any(axis=2)
    rows, columns = np.nonzero(kept)[0], among[kept]
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(X), len(X)))
    return int((np.bincount(connected_components(graph, directed=False)[1]) >= len(X) / 50).sum())


def draw_frontier(figures, path):
    """Recall at 10 against CPU seconds, a panel a set, a curve a system whose points are its steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(4, len(figures))
    rows = -(-len(figures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 3.2 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat[len(figures) :]:
        ax.remove()
    for ax, (name, systems) in zip(axes.flat, figures.items(), strict=False):
        for system, points in systems.items():
            points = sorted(points, key=lambda point: point["CPU seconds"])
            ax.plot([p["CPU seconds"] for p in points], [p["recall@10"] for p in points], "o-", ms=3, label=system)
        ax.set(title=name, xscale="log", xlabel="CPU seconds", ylabel="recall at 10")
    axes.flat[0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=100)
