"""Clusterings side by side: accuracy, NMI, ARI, calibration error, seconds and peak memory, at default settings.

Every fit runs in a process of its own. Seconds are those of `fit_predict`, PyTorch's import included, after `--warm`
those of a second one; "graph" is that of the nearest neighbours alone, a part of them, which the fits of `--ablation`
share. Accuracy matches clusters to
classes one to one, and so does the calibration error before it compares probabilities. Features are divided by their
overall standard deviation. A seed draws the fit's random state and, with `--long-tail`, the rows. The JSON is written
after each fit.

`--panel` instead fits some twenty small sets in one process, and compares ICONClustering's defaults with the better of
KMeans and SpectralClustering on each: CPU seconds of a second fit, so that `OMP_NUM_THREADS=1` makes them comparable.
`--counts` withholds the number of clusters on fourteen of these sets and the files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _clustering_peers import TEMI, TURTLE
from _counts import COUNTS_SYSTEMS, counted_sets, counts_summarised, fit_counts
from _fresh import machine, peak_mb
from _images import load_images, more_images
from _panel import PANEL_SYSTEMS, draw_regrets, fit_panel, panel, summarised, tables
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, MiniBatchKMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import kneighbors_graph

LONG_TAIL = (6000, 4301, 3083, 2210, 1585, 1136, 814, 584, 418, 300)
SPECTRAL_ROWS = 20_000
MADE_FEATURES = 64
SMALLEST_SECTION = 800
WALK_STEPS = 2  # of ICONClustering's own p
LONG_WALK_STEPS = 6


def icon(k, seed, jobs, **options):
    from sklearn_icon import ICONClustering

    return ICONClustering(k, random_state=seed, n_jobs=jobs, **options)


def ablated(k, seed, jobs, n_steps=1, target=0.0, debias=0.0, momentum=False):
    """Uniform neighbours in y, walks along them, uniform mass in p or in both, an average of the encoder."""
    from sklearn_icon import encoders, supervisory

    p = supervisory.RandomWalk(supervisory.Graph(), n_steps=n_steps)
    p = supervisory.UniformMixture(p, target) if target else p
    encoder = encoders.MomentumKeys(encoders.Linear()) if momentum else encoders.Linear()
    return icon(k, seed, jobs, supervisory=p, encoder=encoder, debias=debias)


def tailed(k, seed, jobs, n_steps):
    """For clusters of very unlike size: another divergence, directions instead of places, longer walks."""
    from sklearn_icon.supervisory import RandomWalk, UniformKNN

    p = RandomWalk(UniformKNN(n_neighbors=15, metric="cosine"), n_steps=n_steps)
    return icon(k, seed, jobs, supervisory=p, divergence="total_variation")


def with_prior(k, seed, jobs):
    """Masses of clusters that are learned."""
    from sklearn_icon.learned import SharedCluster

    return icon(k, seed, jobs, learned=SharedCluster(prior=1.0))


def spectral(k, seed, jobs):
    return SpectralClustering(k, affinity="nearest_neighbors", n_neighbors=15, random_state=seed, n_jobs=jobs)


SYSTEMS = {
    "icon": icon,
    "icon-no-debias": partial(icon, debias=0.0),
    "icon-prior": with_prior,
    "icon-tail": partial(tailed, n_steps=WALK_STEPS),
    "icon-tail-walks": partial(tailed, n_steps=LONG_WALK_STEPS),
    "kmeans": lambda k, seed, jobs: KMeans(k, n_init=10, random_state=seed),
    "minibatch": lambda k, seed, jobs: MiniBatchKMeans(k, random_state=seed),
    "spectral": spectral,
    "gmm": lambda k, seed, jobs: GaussianMixture(k, covariance_type="diag", random_state=seed),
    "temi": lambda k, seed, jobs: TEMI(k, random_state=seed, n_jobs=jobs),
    "turtle": lambda k, seed, jobs: TURTLE(k, random_state=seed, n_jobs=jobs),
}


def ablation_tables():
    """{table: {row: options of `ablated`}}."""
    a, fractions = 0.3, [part / 10 for part in range(10)]  # a is ICONClustering's own
    options = partial(dict, n_steps=1, target=0.0, debias=0.0)
    walked = partial(options, n_steps=WALK_STEPS)
    return {
        "parts": {
            "baseline": options(),
            "+ debiasing": options(debias=a),
            "+ propagation": walked(debias=a),
            "+ EMA": walked(debias=a, momentum=True),
        },
        "walks": {str(walks): options(n_steps=1 + walks, debias=a) for walks in range(4)},
        "uniform mass in p": {str(part): walked(target=part) for part in fractions},
        "uniform mass in both": {str(part): walked(debias=part) for part in fractions},
    }


def fit_here(args):
    """One fit in this process; prints its figures as JSON."""
    with np.load(args.arrays) as arrays:
        X, y = arrays["X"], arrays["y"]
    if args.fit == "spectral" and len(X) > args.spectral_rows:
        kept = np.random.RandomState(args.seed).permutation(len(X))[: args.spectral_rows]
        X, y = X[kept], y[kept]
    warnings.simplefilter("ignore")
    make = partial(ablated, **json.loads(args.fit)) if args.fit.startswith("{") else SYSTEMS[args.fit]
    k = args.clusters or int(y.max()) + 1
    graph = sparse.load_npz(args.graph) if args.graph else None
    for _ in range(1 + args.warm):
        model = make(k, args.seed, args.jobs)
        start = time.perf_counter()
        clusters = model.fit_predict(X, graph)
        seconds = time.perf_counter() - start
    costs = {"seconds": seconds, "MB": peak_mb()}
    proba = model.predict_proba(X) if hasattr(model, "predict_proba") and not args.clusters else None
    figures = scores(y, clusters, proba)
    figures |= {"clusters": len(np.unique(clusters)), "rows": len(X), **costs}
    graph_seconds = None if args.graph else seconds_of_graph(model, X, args.jobs)
    print(json.dumps(figures | ({"graph seconds": graph_seconds} if graph_seconds else {})))


def scores(y, clusters, proba):
    """Scores of clusters 0 to k - 1 against classes 0 to k - 1; the calibration error where there are probabilities."""
    from sklearn_icon.metrics import clustering_accuracy, expected_calibration_error

    found = {
        "accuracy": clustering_accuracy(y, clusters),
        "NMI": float(normalized_mutual_info_score(y, clusters)),
        "ARI": float(adjusted_rand_score(y, clusters)),
    }
    if proba is not None:
        k = int(y.max()) + 1
        proba = np.pad(proba.astype(np.float64), [(0, 0), (0, k - proba.shape[1])])  # clusters without rows
        table = np.zeros((k, k))
        table[:, np.unique(clusters)] = contingency_matrix(y, clusters)
        classes = linear_sum_assignment(table.T, maximize=True)[1]
        proba /= proba.sum(axis=1, keepdims=True)
        found["calibration error"] = expected_calibration_error(y, proba, labels=classes)
    return found


def seconds_of_graph(model, X, jobs):
    """Seconds of the nearest neighbours that the fit has found, once more; None where it needs none."""
    if isinstance(model, TEMI):
        return model.graph_seconds_
    start = time.perf_counter()
    if isinstance(model, SpectralClustering):
        kneighbors_graph(X, 15, include_self=True, n_jobs=jobs)
    elif type(model).__name__ == "ICONClustering":
        from sklearn_icon.supervisory import UniformKNN

        UniformKNN(n_neighbors=15).conditional(X, n_jobs=jobs)
    else:
        return None
    return time.perf_counter() - start


def save_neighbors(X, path, jobs):
    """Write the neighbours of all rows, uniformly weighted."""
    from sklearn_icon.supervisory import UniformKNN

    sparse.save_npz(path, UniformKNN(n_neighbors=15).conditional(X, n_jobs=jobs).weights)


def load(path, n=None):
    """(name, rows over their standard deviation, class codes); as many more as are asked for, made of images."""
    name, X, y = load_images(path)
    if n is not None and n > len(X):
        X, y = more_images(X, y, n, MADE_FEATURES)
    y, sizes = np.unique(y, return_inverse=True, return_counts=True)[1:]
    if path.endswith(".npz") and "section" in np.load(path):
        kept = sizes[y] >= SMALLEST_SECTION
        X, y = X[kept], np.unique(y[kept], return_inverse=True)[1]
    return name, X / X.std(), y


def draw_rows(y, args, seed):
    """The rows of a seed: all, a fixed subsample, or long-tailed ones."""
    if args.long_tail:
        rng = np.random.RandomState(seed)
        order = rng.permutation(len(LONG_TAIL))
        classes = [np.flatnonzero(y == c) for c in order]
        parts = [rng.permutation(rows)[:size] for rows, size in zip(classes, LONG_TAIL, strict=True)]
        return rng.permutation(np.concatenate(parts))[: args.rows]
    return np.sort(np.random.RandomState(0).permutation(len(y))[: args.rows])


def run_all(names, X, y, args, save):
    """{name: figures of each seed}; each more is saved."""
    figures: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            arrays, rows = Path(folder) / "arrays.npz", draw_rows(y, args, seed)
            np.savez(arrays, X=X[rows], y=np.unique(y[rows], return_inverse=True)[1])
            graph = Path(folder) / "graph.npz" if args.ablation else None
            if graph and not graph.exists():  # the rows are those of every seed, and so are their neighbours
                save_neighbors(X[rows], graph, args.jobs)
            for name in names:
                command = [sys.executable, __file__, "--fit", name, "--arrays", arrays, "--seed", seed]
                command += ["--jobs", args.jobs, "--spectral-rows", args.spectral_rows] + ["--warm"] * args.warm
                command += ["--clusters", args.clusters] if args.clusters else []
                command += ["--graph", graph] if graph else []
                env = {**os.environ, "OMP_NUM_THREADS": str(args.jobs)}
                done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env)
                if done.returncode:
                    sys.exit(done.stderr)
                figures[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(f"{name:<20} " + "  ".join(f"{k} {v:.4g}" for k, v in figures[name][-1].items()), flush=True)
                save(figures)
    return figures


def summary(runs):
    """{score: [mean, standard deviation over seeds]}."""
    return {key: [float(np.mean(v)), float(np.std(v))] for key in runs[0] for v in [[run[key] for run in runs]]}


def draw(tables, path):
    """A panel per table: accuracy and calibration error, mean and standard deviation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(tables), figsize=(4.5 * len(tables), 4), squeeze=False, layout="constrained")
    for ax, (title, rows) in zip(axes[0], tables.items(), strict=True):
        fmt = "o" if title == "systems" else "o-"
        for score, color in (("accuracy", "C0"), ("NMI", "C2"), ("calibration error", "C3")):
            places = [i for i, row in enumerate(rows.values()) if score in row]
            means, spreads = np.array([list(rows.values())[i][score] for i in places]).reshape(-1, 2).T
            ax.errorbar(places, means, spreads, fmt=fmt, capsize=3, color=color, label=score)
        ax.set_xticks(range(len(rows)), rows, rotation=30, ha="right")
        ax.set(title=title, ylim=(0, 1))
    axes[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=100)


def run_panel(args):
    """All sets of the panel."""

    def save(figures):
        if args.json:
            args.json.write_text(json.dumps({"machine": machine()} | tables(figures), indent=1) + "\n")

    figures = fit_panel(panel(load, args.panel), list(PANEL_SYSTEMS), args.seeds, scores, save)
    print(*summarised(figures), sep="\n")
    if args.plot:
        draw_regrets(figures, args.plot)


def run_counts(args):
    """The sets of `--counts`."""

    def save(figures):
        if args.json:
            args.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")

    figures = fit_counts(counted_sets(load, args.counts), list(COUNTS_SYSTEMS), args.seeds, save)
    print(*counts_summarised(figures), sep="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="npz with X and y or section, a folder of idx files, 'digits'")
    parser.add_argument("-n", "--rows", type=int, help="rows (default all); of images, more than there are")
    parser.add_argument("--clusters", type=int, help="clusters (default as many as classes, whose figures need that)")
    parser.add_argument("--spectral-rows", type=int, default=SPECTRAL_ROWS, help="rows of spectral at the most")
    parser.add_argument("--long-tail", action="store_true", help="ten classes of 6,000 to 300 rows, drawn by the seed")
    parser.add_argument("--systems", default="icon,kmeans", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--ablation", action="store_true", help="ICONClustering's parts, walks and debiasing instead")
    parser.add_argument("--seeds", type=int, default=3, help="random states 0, 1, ... (default 3)")
    parser.add_argument("--warm", action="store_true", help="time a second fit in each process")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", "--out", type=Path, help="write the figures here too")
    parser.add_argument("--plot", type=Path, help="write a picture of the scores")
    for name in ("--fit", "--arrays", "--graph"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--panel", nargs="*", metavar="npz", help="some twenty sets, and rows of these files, instead")
    parser.add_argument("--counts", nargs="*", metavar="npz", help="the number withheld, of sets and these files")
    args = parser.parse_args()
    if args.fit:
        return fit_here(args)
    if args.panel is not None:
        return run_panel(args)
    if args.counts is not None:
        return run_counts(args)

    if args.ablation and args.long_tail:
        parser.error("--ablation fits the same rows for every seed, which --long-tail draws anew.")
    name, X, y = load(args.data, args.rows)
    sizes = np.bincount(y)
    if args.long_tail and (len(sizes) != len(LONG_TAIL) or sizes.min() < LONG_TAIL[0]):
        parser.error(f"--long-tail takes ten classes of {LONG_TAIL[0]} rows; {name} has {sizes.tolist()}.")
    n = len(draw_rows(y, args, 0))
    print(f"{name}: {n} rows of {X.shape[1]}, {len(sizes)} classes", flush=True)
    systems = args.systems.split(",")
    if "spectral" in systems and n > args.spectral_rows and not args.ablation:
        print(f"spectral: {args.spectral_rows} of these rows")
    tables = {"systems": {system: system for system in systems}}
    if args.ablation:
        tables = {table: {row: json.dumps(o) for row, o in rows.items()} for table, rows in ablation_tables().items()}
    names = list(dict.fromkeys(name for rows in tables.values() for name in rows.values()))

    def tables_of(figures):
        known = {f for f, runs in figures.items() if runs}
        return {t: {row: summary(figures[f]) for row, f in rows.items() if f in known} for t, rows in tables.items()}

    def save(figures):
        if args.json:
            report = {"machine": machine(), "data": [name, n, X.shape[1]], "long tail": args.long_tail}
            report |= {"tables": tables_of(figures), "figures": figures}
            args.json.write_text(json.dumps(report, indent=1) + "\n")

    means = tables_of(run_all(names, X, y, args, save))
    print("mean (standard deviation over seeds)")
    for table, rows in means.items():
        for row, values in rows.items():
            shown = "  ".join(f"{key} {mean:.4g} ({spread:.2g})" for key, (mean, spread) in values.items())
            print(f"{table if args.ablation else '':<{16 * args.ablation}}{row:<16}{shown}")
    if args.plot:
        draw(means, args.plot)


if __name__ == "__main__":
    main()
