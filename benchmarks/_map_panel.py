"""Data of unlike kinds that a fresh machine has or makes, and maps of each by several systems, side by side."""

import json
from functools import partial

import numpy as np
from _images import load_images
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors


def _unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def _bundled(name):
    return getattr(datasets, f"load_{name}")(return_X_y=True)


def _manifold(make):
    return make(2000, random_state=0)[0], None


def _uneven_blobs():
    sizes = [(1500, 0.5), (800, 1.5), (300, 2.5), (100, 3.5), (50, 4.5)]
    blobs = [datasets.make_blobs(n, 10, centers=1, cluster_std=s, random_state=i)[0] for i, (n, s) in enumerate(sizes)]
    return np.concatenate(blobs), np.repeat(np.arange(len(sizes)), [n for n, _ in sizes])


def _spheres():
    X, inner = _unit(np.random.RandomState(0).standard_normal((2000, 3))), np.arange(2000) < 1000
    return np.where(inner[:, None], X / 2, X), inner


def _table():
    """Few values a column, of different scales, a tenth of the rows twice."""
    rng = np.random.RandomState(1)
    X = rng.randint(0, 6, (4000, 8)) + 10.0 * np.eye(8)[:3].sum(0) * rng.randint(0, 2, (4000, 8))
    X[:400] = X[400:800]
    return X, None


def _counts():
    """Roots of the frequencies of 500 words in texts of mixed topics."""
    rng = np.random.RandomState(2)
    topics = rng.dirichlet(np.full(10, 0.2), 3000)
    words = topics @ rng.dirichlet(np.full(500, 0.05), 10)
    return np.sqrt(np.array([rng.multinomial(100, row / row.sum()) for row in words])), topics.argmax(axis=1)


def _factors():
    """Twelve factors of falling weight behind 16 bounded columns with noise."""
    rng = np.random.RandomState(3)
    loadings, factors = rng.standard_normal((12, 16)), rng.standard_normal((6000, 12)) * np.linspace(2, 0.1, 12)
    return np.tanh(factors @ loadings) + 0.1 * rng.standard_normal((6000, 16)), None


def _graph():
    """A random graph of 20 groups of uneven sizes, by the leading eigenvectors of its normalised adjacency."""
    rng = np.random.RandomState(4)
    y = np.repeat(np.arange(20), np.geomspace(30, 300, 20).astype(int))
    near = np.triu(rng.rand(len(y), len(y)) < np.where(y[:, None] == y, 0.2, 0.004), 1)
    edges = (near | near.T) + np.eye(len(y))
    roots = edges.sum(axis=1) ** -0.5
    return np.linalg.eigh(roots[:, None] * edges * roots)[1][:, -24:] * 10, y


def _depths():
    """Logarithms of negative binomial counts, 15 groups at unequal depths."""
    rng = np.random.RandomState(12)
    y, means = rng.randint(0, 15, 5000), rng.lognormal(-1.5, 1.5, (15, 300))
    means = means[y] * rng.lognormal(0, 0.5, (5000, 1))
    return np.log1p(rng.negative_binomial(1, 1 / (1 + means)).astype(float)), y


def _walks():
    """Centred windows of random walks, 50 of each."""
    walks = np.cumsum(np.random.RandomState(14).standard_normal((100, 250)), axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(walks, 52, axis=1)[:, ::4][:, :50].reshape(-1, 52)
    return windows - windows.mean(axis=1, keepdims=True), None


def _images(path, n, n_components):
    _, X, y = load_images(path)
    X, y = X[:n], y[:n]
    return PCA(n_components, random_state=0).fit_transform(X) if n_components else X, y


def _features(path, n):
    _, X, y = load_images(path)
    drawn = np.sort(np.random.RandomState(5).permutation(len(X))[:n])
    return X[drawn], np.unique(y, return_inverse=True)[1][drawn]


SETS = {
    **{name: partial(_bundled, name) for name in ("iris", "wine", "breast_cancer", "digits")},
    "swiss roll": partial(_manifold, datasets.make_swiss_roll),
    "S-curve": partial(_manifold, datasets.make_s_curve),
    "spheres": _spheres,
    "uneven blobs": _uneven_blobs,
    "table": _table,
    "counts": _counts,
    "factors": _factors,
    "graph": _graph,
    "depths": _depths,
    "walks": _walks,
}
MANIFOLDS = ("swiss roll", "S-curve")
STEPS = {
    "icon": [{"max_iter": 100}, {"max_iter": 250}, {}],
    "icon-pulled": [{"init_weight": weight} for weight in (0.0, 0.3, 1.0, 3.0)],
    "TSNE": [{"max_iter": 500}, {}],
    "openTSNE": [{"n_iter": 150}, {}],
    "umap": [{"n_epochs": 100}, {}],
    "pacmap": [{"num_iters": [50, 50, 100]}, {}],
}


def sets_of(names, paths):
    """{name: maker of (X, y)}: those named or all; of each path of images or features several thousand rows."""
    sets = dict(SETS)
    for path in paths:
        name = path.rstrip("/").rpartition("/")[2].removesuffix(".npz")
        if path.endswith(".npz"):
            sets[name] = partial(_features, path, 5000)
        else:
            sets |= {f"{name} PCA": partial(_images, path, 10_000, 50), f"{name} raw": partial(_images, path, 4000, 0)}
    return {name: sets[name] for name in names or sets}


def run_panel(sets, systems, fit, judge, path, most_rows, run_name=None):
    """Fit each system with each number of steps to each set; figures that the file at `path` has are not made anew.

    Each figure has the name of its run; where one is given, figures of the systems from other runs are made anew.
    `fit` takes (system, X, options) and gives (figures, map), `judge` takes (X, y) and gives scores of a map.
    Returns {set: {system: [figures of each number of steps]}}.
    """
    report = json.loads(path.read_text()) if path and path.exists() else {"figures": {}}
    for name, make in sets.items():
        of_set, of_map = report["figures"].setdefault(name, {}), None
        for system in systems if run_name else []:
            of_set[system] = [found for found in of_set.get(system, []) if found.get("run") == run_name]
        left = [(s, o) for s in systems for o in STEPS.get(s, [{}])]
        left = [(s, o) for s, o in left if not any(found["options"] == o for found in of_set.get(s, []))]
        if left:
            X, y = make()
            X, y = (None if part is None else part[:: -(-len(X) // (most_rows or len(X)))] for part in (X, y))
        for system, options in left:
            run, Z = fit(system, X, options)
            of_map = of_map or judge(X, y)
            found = {"options": options, "rows": len(X), "run": run_name, **run, **of_map(Z)}
            if name in MANIFOLDS:
                found["pieces"] = n_pieces(X, Z)
            of_set.setdefault(system, []).append(found)
            shown = {key: value for key, value in found.items() if isinstance(value, int | float)}
            print(f"{name:<18}{system:<9}", options, {key: float(f"{v:.4g}") for key, v in shown.items()}, flush=True)
            if path:
                path.write_text(json.dumps(report, indent=1) + "\n")
    return report["figures"]


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
    from matplotlib.ticker import LogLocator, NullFormatter

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
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes.flat[0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=100)
