"""The sets of `clustering.py --counts`, of which the number of clusters is withheld, and what finds it."""

import time
import warnings
from functools import partial

import numpy as np
from _panel import panel
from scipy import sparse
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture

MOST_CLUSTERS, MANY = 20, 50  # of sets of up to 15 clusters, of others
FULL_COLUMNS = 64  # beyond which a GaussianMixture has diagonal covariances
COUNTED = (
    *("moons", "varied", "aniso", "blobs", "iris", "wine", "breast_cancer", "digits"),
    *("400-50-50", "40x10", "uneven", "outliers", "wide", "graph"),
)  # of the panel; and its files


def counted_sets(load, paths):
    """{name: maker}: fourteen sets of the panel, and all rows that it draws of files."""
    made = panel(load, paths)
    files = [load(path)[0] for path in paths]
    return {name: made[name] for name in (*COUNTED, *files)}


def icon(X, most, seed):
    from sklearn_icon import ICONClustering

    supervisory = "graph" if sparse.issparse(X) else None
    clusters = ICONClustering("auto", max_clusters=most, supervisory=supervisory, random_state=seed)
    return clusters.fit_predict(X)


def by_silhouette(X, most, seed):
    """Labels of KMeans at the number of the highest silhouette."""
    found = [KMeans(k, n_init=10, random_state=seed).fit_predict(X) for k in range(2, min(most, len(X) - 1) + 1)]
    return max(found, key=lambda labels: silhouette_score(X, labels))


def by_bic(X, most, seed):
    """Labels of the GaussianMixture of the lowest BIC."""
    kind = "full" if X.shape[1] <= FULL_COLUMNS else "diag"
    made = partial(GaussianMixture, covariance_type=kind, reg_covar=1e-3, random_state=seed)
    found = [made(k).fit(X) for k in range(1, min(most, len(X) - 1) + 1)]
    return min(found, key=lambda mixture: mixture.bic(X)).predict(X)


COUNTS_SYSTEMS = {
    "icon": icon,
    "silhouette": by_silhouette,
    "hdbscan": lambda X, most, seed: HDBSCAN(copy=True).fit_predict(X),
    "bic": by_bic,
}


def is_near(found, k):
    """Within one or a tenth of the true number."""
    return abs(found - k) <= max(1, 0.1 * k)


def fit_counts(sets, systems, seeds, save):
    """Fit every system to every set and seed, the number withheld; {set: {system: [figures of each seed]}}."""
    figures: dict = {name: {} for name in sets}
    for name, make in sets.items():
        for seed in range(seeds):
            X, y, k = make(seed)
            most = MOST_CLUSTERS if k <= 15 else MANY
            for system in systems:
                if sparse.issparse(X) and system != "icon":
                    continue
                start = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    labels = COUNTS_SYSTEMS[system](X, most, seed)
                found = {"clusters": len(np.unique(labels[labels >= 0])), "CPU seconds": time.process_time() - start}
                found |= {"true": k, "ARI": float(adjusted_rand_score(y[y >= 0], labels[y >= 0]))}
                figures[name].setdefault(system, []).append(found)
            print(f"{name:<22} {k:4}", {s: runs[-1]["clusters"] for s, runs in figures[name].items()}, flush=True)
            save(figures)
    return figures


def counts_summarised(figures):
    """Lines of a table: of each set the true number and those found; of each system on how many they are near."""
    systems = list(dict.fromkeys(system for runs in figures.values() for system in runs))
    yield f"{'':<16}{'true':>5}" + "".join(f"{system:>16}" for system in systems)
    for name, runs in figures.items():
        found = {s: ", ".join(str(run["clusters"]) for run in runs.get(s, [])) for s in systems}
        yield f"{name:<16}{runs['icon'][0]['true']:>5}" + "".join(f"{found[s]:>16}" for s in systems)
    for system in systems:
        of = [runs[system] for runs in figures.values() if system in runs]
        near = sum(np.mean([is_near(run["clusters"], run["true"]) for run in each]) for each in of)
        ari, cpu = (np.mean([run[key] for each in of for run in each]) for key in ("ARI", "CPU seconds"))
        yield f"{system:<12} near on {near:.1f} of {len(of)}, mean ARI {ari:.3f}, CPU {cpu:.1f} s"
