"""Maps side by side: seconds, peak memory and quality of ICONEmbedding and of other libraries at their defaults.

Every fit runs in a process of its own. Seconds are those of imports and of the first `fit` ("cold") and, with
--warm, of a second one alone. All maps are scored alike: KL under one P (Gaussian, perplexity 30) with an exact
normaliser, recall of 10 neighbours, 10-neighbour accuracy in the map (3 folds), random triplets.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from _fresh import machine, peak_mb
from _images import load_images, more_images
from _map_panel import draw_frontier, run_panel, sets_of
from _small_maps import compare_small_maps, small_sets
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier


def icon(X, seed, jobs, **options):
    from sklearn_icon import ICONEmbedding

    return ICONEmbedding(random_state=seed, n_jobs=jobs, **options).fit(X)


def student_t(X, seed, jobs, df):
    from sklearn_icon.learned import StudentT

    return icon(X, seed, jobs, learned=StudentT(df=df))


def icon_by_tiles(X, seed, jobs):
    """Exact, without the compiled loops that CUDA has."""
    from sklearn_icon._objective import normalizers as _sums
    from sklearn_icon._objective import objective as _objective

    _objective.can_fuse = _sums.can_fuse = lambda learned, z: False
    return icon(X, seed, jobs, method="exact")


def scikit_learn(X, seed, jobs, **options):
    from sklearn.manifold import TSNE

    return TSNE(random_state=seed, n_jobs=jobs, **options).fit(X)


def open_tsne(X, seed, jobs, **options):
    from openTSNE import TSNE

    return TSNE(random_state=seed, n_jobs=jobs, **options).fit(X)


def umap(X, seed, jobs, **options):
    from umap import UMAP

    return UMAP(n_jobs=jobs, **options).fit(X)  # a seed would cost it its threads


def pacmap(X, seed, jobs, **options):
    from pacmap import PaCMAP

    return PaCMAP(**{name: tuple(value) for name, value in options.items()}).fit(X)


def torchdr(X, seed, jobs):
    from torchdr import TSNE

    return TSNE(random_state=seed).fit_transform(X)


SYSTEMS = {
    "icon": icon,
    "icon-exact": partial(icon, method="exact"),
    "icon-exact-tiles": icon_by_tiles,
    "icon-grid": partial(icon, method="interpolation"),
    "icon-knn": partial(icon, supervisory="knn"),
    "icon-knn-conditional": partial(icon, supervisory="knn", normalization="conditional"),
    "icon-sne": partial(icon, learned="gaussian"),
    "icon-df0.5": partial(student_t, df=0.5),
    "icon-df5": partial(student_t, df=5.0),
    "icon-mlp": partial(icon, encoder="mlp"),
    "icon-pulled": icon,
    "TSNE": scikit_learn,
    "openTSNE": open_tsne,
    "umap": umap,
    "pacmap": pacmap,
    "torchdr": torchdr,
}
STAGES = {
    "neighbours": ("sklearn_icon.supervisory._neighborhoods", "nearest_neighbors"),
    "affinities": ("sklearn_icon.supervisory._neighborhoods", "_kernel_rows"),
    "start": ("sklearn_icon._estimators.embedding", "initial_map"),
    "edges": ("sklearn_icon._training.maps", "_Lookup"),
    "descent": ("sklearn_icon._training.maps", "minimize"),
    "losses": ("sklearn_icon._training.maps", "losses_of"),
}


def fit_here(args):
    """One fit in this process; prints its figures as JSON and keeps the map."""
    X, seconds, stages, imports = np.load(args.rows), [], {}, 0.0
    new = X[len(X) - args.new :] if args.new else None
    X = X[: len(X) - args.new] if args.new else X
    if args.fit.startswith("icon"):
        start = time.perf_counter()
        for stage, (module, name) in STAGES.items():
            _watch(importlib.import_module(module), name, stage, stages)
        imports = time.perf_counter() - start
    if args.first:
        SYSTEMS[args.fit](X[:: max(1, len(X) // args.first)], args.seed, args.jobs)
    for _ in range(2 if args.warm else 1):
        stages.clear()
        start = time.perf_counter()
        cpu = time.process_time()
        fitted = SYSTEMS[args.fit](X, args.seed, args.jobs, **json.loads(args.options))
        cpu = time.process_time() - cpu
        seconds.append(time.perf_counter() - start)
    figures = {
        "cold": imports + seconds[0],
        "CPU seconds": cpu,
        "MB": peak_mb(),
        "stages": {"imports": imports, **stages},
    }
    if args.warm:
        figures["warm"] = seconds[1]
    Z = np.asarray(getattr(fitted, "embedding_", fitted), dtype=np.float64)
    if new is not None:
        start = time.perf_counter()
        placed = np.asarray(fitted.transform(new), dtype=np.float64)
        figures["transform"] = time.perf_counter() - start
        Z = np.concatenate([Z, placed])
    np.save(args.map, Z)
    print(json.dumps(figures))


def _watch(module, name, stage, stages):
    """Add up the seconds of a function's calls."""
    function = getattr(module, name)

    def timed(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - start

    setattr(module, name, timed)


def fit_elsewhere(system, rows, folder, args, seed, **options):
    """(figures, map) of a fit in a fresh process."""
    out = Path(folder) / f"{system}.npy"
    command = [sys.executable, __file__, "--fit", system, "--rows", rows, "--map", out, "--seed", seed]
    command += ["--jobs", args.jobs, "--new", args.new, "--options", json.dumps(options)] + ["--warm"] * args.warm
    command += ["--first", args.first]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1]), np.load(out)


class Judge:
    """Scores maps of the same rows; P is computed once."""

    def __init__(self, X, y, n_new, with_kl):
        self.X, self.y, self.n_new, self.p = X, y, n_new, None
        if with_kl:
            from sklearn_icon.supervisory import Gaussian

            self.p = Gaussian().conditional(X[: len(X) - n_new])

    def __call__(self, Z):
        from sklearn_icon.metrics import knn_recall, random_triplet_accuracy, trustworthiness

        n = len(Z) - self.n_new
        scores = {
            "recall@10": knn_recall(self.X[:n], Z[:n]),
            "recall@50": knn_recall(self.X[:n], Z[:n], n_neighbors=50),
            "trustworthiness": trustworthiness(self.X[:n], Z[:n], n_neighbors=10),
            "triplets": random_triplet_accuracy(self.X[:n], Z[:n]),
        }
        if len(np.unique(self.y[:n])) > 1:
            folds = KFold(3, shuffle=True, random_state=0)
            scores["accuracy"] = float(cross_val_score(KNeighborsClassifier(10), Z[:n], self.y[:n], cv=folds).mean())
        if self.p is not None:
            scores["KL"] = self._kl(Z[:n])
        if self.n_new:
            among = KNeighborsClassifier(10).fit(Z[:n], self.y[:n])
            scores["accuracy of new rows"] = float(among.score(Z[n:], self.y[n:]))
        return scores

    def _kl(self, Z):
        import torch

        from sklearn_icon._objective.objective import Objective
        from sklearn_icon.learned import StudentT

        objective = Objective(self.p, StudentT(), normalization="joint", n_components=2)
        return float(objective(torch.as_tensor(Z)))


def draw(figures, maps, y, path):
    """Write a picture of the maps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 4.3 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat[len(maps) :]:
        ax.remove()
    for ax, (system, Z) in zip(axes.flat, maps.items(), strict=False):
        ax.scatter(*Z[: len(y)].T, c=np.unique(y, return_inverse=True)[1], s=200 / len(Z) ** 0.5, lw=0, cmap="tab10")
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.set_title(f"{system}: {figures[system]['median cold']:.1f} s, accuracy {figures[system]['accuracy']:.3f}")
    figure.savefig(path, dpi=100)


def panel(args):
    """Every set by every system, with fewer steps and at its default, all of one thread and after a fit of few rows."""
    with tempfile.TemporaryDirectory() as folder:

        def fit(system, X, options):
            rows = Path(folder) / "rows.npy"
            np.save(rows, X)
            return fit_elsewhere(system, rows, folder, args, 0, **options)

        def judge(X, y):
            return Judge(X, np.zeros(len(X)) if y is None else y, 0, not args.no_kl)

        args.jobs, args.first = 1, 150
        sets = sets_of(args.data.split(",") if args.data else [], args.panel)
        figures = run_panel(sets, args.systems.split(","), fit, judge, args.json, args.n, args.run)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")
    if args.plot:
        draw_frontier(figures, args.plot)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of Fashion-MNIST's idx files, an npz with X and y, or 'digits'")
    parser.add_argument("-n", type=int, help="rows (default all; more than there are: shifted and jittered copies)")
    parser.add_argument("--pca", type=int, default=50, help="leading principal components, 0 for the rows themselves")
    parser.add_argument("--systems", default="icon,openTSNE,umap,pacmap", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--repeat", type=int, default=3, help="fits of each, with seeds 0, 1, ... (default 3)")
    parser.add_argument("--warm", action="store_true", help="time a second fit in each process too")
    parser.add_argument("--new", type=int, default=0, help="leave the last rows out and time `transform` of them")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-kl", action="store_true", help="skip KL, which takes all pairs of each map")
    of_panel = "unlike sets, and rows of these folders of images and npz; --data names some, --json goes on"
    parser.add_argument("--panel", nargs="*", metavar="path", help=of_panel)
    of_small = "maps of 50 to 150 rows of twenty unlike sets and of these paths beside TSNE(method='exact')"
    parser.add_argument("--small", nargs="*", metavar="path", help=of_small)
    parser.add_argument("--run", help="name of a run of --panel: figures of --systems from others are made anew")
    parser.add_argument("--first", type=int, default=0, help="fit about so many rows first, untimed")
    parser.add_argument("--options", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--plot", type=Path, help="write a picture of the maps")
    for name in ("--fit", "--rows", "--map"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        return fit_here(args)
    if args.panel is not None:
        return panel(args)
    if args.small is not None:
        report = {"machine": machine(), "sets": compare_small_maps(small_sets(args.small), args.repeat)}
        return args.json and args.json.write_text(json.dumps(report, indent=1) + "\n")

    name, X, y = load_images(args.data)
    n = args.n or len(X)
    if n > len(X):
        X, y = more_images(X, y, n, args.pca)
    elif args.pca:
        X = PCA(args.pca, random_state=0).fit_transform(X).astype(np.float32)
    X, y = X[:n], y[:n]
    print(f"{name}: {X.shape[0]} rows of {X.shape[1]}", flush=True)
    figures: dict[str, dict] = {system: {"runs": []} for system in args.systems.split(",")}
    maps: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npy"
        np.save(rows, X)
        for seed in range(args.repeat):
            for system, found in figures.items():
                run, Z = fit_elsewhere(system, rows, folder, args, seed)
                maps.setdefault(system, Z)
                found["runs"].append(run)
                print(f"{system:<22}" + "  ".join(f"{key} {_short(value)}" for key, value in run.items()), flush=True)
    judge = Judge(X, y, args.new, not args.no_kl)
    for system, found in figures.items():
        for key in [key for key in found["runs"][0] if key != "stages"]:
            found[f"median {key}"] = float(np.median([run[key] for run in found["runs"]]))
        found.update(judge(maps[system]))
        summary = {key: value for key, value in found.items() if key != "runs"}
        print(f"{system:<22}" + "  ".join(f"{key} {_short(value)}" for key, value in summary.items()), flush=True)
    if args.json:
        report = {"machine": machine(), "data": [name, *X.shape], "figures": figures}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.plot:
        draw(figures, maps, y, args.plot)


def _short(value):
    return {key: round(part, 2) for key, part in value.items()} if isinstance(value, dict) else f"{value:.4g}"


if __name__ == "__main__":
    main()
