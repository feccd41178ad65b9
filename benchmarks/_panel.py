"""The sets of `clustering.py --panel`: made and real ones that want unlike things, fixed before any default was.

Each maker takes a seed and gives (X, classes or None where there are none, clusters asked for). A class of -1 is an
outlier, which no score counts. A sparse X is a graph between rows without features.
"""

import time
import warnings
from functools import partial

import numpy as np
from scipy import sparse
from sklearn import datasets
from sklearn.cluster import HDBSCAN, Birch, KMeans, MiniBatchKMeans, SpectralClustering
from sklearn.mixture import GaussianMixture
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
    """{name: maker of (X, classes, clusters)}; of each path rows, and where there are ten classes a long tail."""
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


def icon(k, n, seed, of_graph, **options):
    from sklearn_icon import ICONClustering

    return ICONClustering(k, supervisory="graph" if of_graph else None, random_state=seed, **options)


def spectral(k, n, seed, of_graph):
    affinity = "precomputed" if of_graph else "nearest_neighbors"
    return SpectralClustering(k, affinity=affinity, n_neighbors=min(10, n), random_state=seed)


PANEL_SYSTEMS = {
    "icon": icon,
    "kmeans": lambda k, n, seed, of_graph: KMeans(k, n_init=10, random_state=seed),
    "spectral": spectral,
    "gmm": lambda k, n, seed, of_graph: GaussianMixture(k, reg_covar=1e-3, random_state=seed),
    "hdbscan": lambda k, n, seed, of_graph: HDBSCAN(copy=True),
    "birch": lambda k, n, seed, of_graph: Birch(n_clusters=k),
    "minibatch": lambda k, n, seed, of_graph: MiniBatchKMeans(k, n_init=10, random_state=seed),
    "calibrated": partial(icon, calibrate=True),
}
OF_GRAPHS = ("icon", "calibrated", "spectral")


def fit_panel(sets, systems, seeds, scores, save):
    """Fit every system to every set and seed in this process, warm; {set: {system: [figures of each seed]}}."""
    figures: dict = {name: {} for name in sets}
    for name, make in sets.items():
        for seed in range(seeds):
            X, y, k = make(seed)
            of_graph = sparse.issparse(X)
            counted = np.ones(X.shape[0], bool) if y is None else y >= 0
            for system in systems:
                if of_graph and system not in OF_GRAPHS:
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    first = PANEL_SYSTEMS[system](k, X.shape[0], seed, of_graph)
                    first.fit_predict(X)
                    model, start = PANEL_SYSTEMS[system](k, X.shape[0], seed, of_graph), time.process_time()
                    labels = model.fit_predict(X)
                    found = {"CPU seconds": time.process_time() - start, "clusters": len(np.unique(labels))}
                    proba = getattr(model, "predict_proba", None)
                    if y is not None:
                        of_classes = np.unique(y[counted], return_inverse=True)[1]
                        codes = np.unique(labels[counted], return_inverse=True)[1]
                        proba = proba(X)[counted] if proba is not None and codes.max() == of_classes.max() else None
                        found |= scores(of_classes, codes, proba)
                figures[name].setdefault(system, []).append(found)
            shown = {s: round(runs[-1].get("ARI", 0.0), 3) for s, runs in figures[name].items()}
            print(f"{name:<22} {shown}", flush=True)
            save(figures)
    return figures


def regrets(figures):
    """{set: mean over seeds of max(0, max(KMeans, Spectral) - ours) in ARI}."""
    found = {}
    for name, runs in figures.items():
        peers = [runs[peer] for peer in ("kmeans", "spectral") if peer in runs]
        ours = [run["ARI"] for run in runs["icon"] if "ARI" in run]
        if ours:
            theirs = np.max([[run["ARI"] for run in of] for of in peers], axis=0)
            found[name] = float(np.maximum(theirs - ours, 0).mean())
    return found


def summarised(figures):
    """Lines of a table: of each set the mean ARI of each system, the regret, CPU over that of both peers; means."""
    systems, regret = list(PANEL_SYSTEMS), regrets(figures)
    yield (f"{'':<22}" + "".join(f"{system:>11}" for system in systems) + "     regret  CPU ratio")
    for name, runs in figures.items():
        mean = {s: np.mean([run.get("ARI", np.nan) for run in runs[s]]) if s in runs else np.nan for s in systems}
        cpu = {s: np.mean([run["CPU seconds"] for run in runs[s]]) for s in runs}
        ratio = cpu["icon"] / sum(cpu.get(peer, 0.0) for peer in ("kmeans", "spectral"))
        line = f"{name:<22}" + "".join(f"{mean[s]:11.3f}" for s in systems)
        yield line + f"{regret.get(name, np.nan):11.3f}{ratio:11.1f}"
    values = np.array(list(regret.values()))
    many = (values > 0.05).sum()
    yield f"regret: mean {values.mean():.4f}, above 0.05 on {many} of {len(values)}, most {values.max():.3f}"
    for system in systems:
        all_runs = [run for runs in figures.values() for run in runs.get(system, []) if "ARI" in run]
        line = f"{system:<12} mean ARI {np.mean([run['ARI'] for run in all_runs]):.3f}"
        error = [run["calibration error"] for run in all_runs if "calibration error" in run]
        yield line + (f", calibration error {np.mean(error):.3f}" if error else "")


def tables(figures):
    """{score: {set: {system: [mean, deviation over seeds]}}}, with the ARI also the regret."""
    regret, found = regrets({name: runs for name, runs in figures.items() if "icon" in runs}), {}
    for score in ("ARI", "calibration error", "CPU seconds"):
        rows = {
            name: {
                system: [float(np.mean(values)), float(np.std(values))]
                for system, of in runs.items()
                if (values := [run[score] for run in of if score in run])
            }
            for name, runs in figures.items()
        }
        found[score] = {name: row for name, row in rows.items() if row}
    for name, value in regret.items():
        found["ARI"][name]["regret"] = value
    return found


def draw_regrets(figures, path):
    """A bar a set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = regrets(figures)
    figure, ax = plt.subplots(figsize=(6, 0.25 * len(found) + 1), layout="constrained")
    ax.barh(list(found), list(found.values()))
    ax.axvline(0.05, color="0.5", linestyle=":")
    ax.set(xlabel="regret in ARI: the better of KMeans\nand SpectralClustering, less ICONClustering")
    figure.savefig(path, dpi=100)
