"""What 2, 3 and 4 ranks find beside one process: neighbours, maps, clusters and coefficients, of unlike rows.

python benchmarks/rank_results.py --rows 20000 --ranks 2 3 4 --shared --json benchmarks/results/rank_results.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def rows_of(kind, n):
    """Rows of a kind, in single precision, and a label of each."""
    from sklearn.datasets import load_digits, make_blobs, make_swiss_roll

    rng = np.random.RandomState(1)
    if kind == "blobs":
        X, y = make_blobs(n, 50, centers=20, random_state=0, cluster_std=3.0)
    elif kind == "overlapping":
        X, y = make_blobs(n, 20, centers=8, random_state=2, cluster_std=6.0)
    elif kind == "digits":
        X, y = load_digits(return_X_y=True)
        drawn = rng.randint(len(X), size=n)
        X, y = X[drawn] + rng.normal(size=(n, 64)), y[drawn]
    elif kind == "swiss roll":
        X, t = make_swiss_roll(n, noise=0.3, random_state=3)
        X, y = np.hstack([X, 0.1 * rng.normal(size=(n, 7))]), np.digitize(t, np.quantile(t, np.linspace(0, 1, 6)[1:-1]))
    else:  # three in four are copies
        X, y = make_blobs(n // 4, 30, centers=9, random_state=5, cluster_std=4.0)
        drawn = rng.randint(n // 4, size=n)
        X, y = X[drawn], y[drawn]
    return X.astype(np.float32), y


KINDS = ("blobs", "overlapping", "digits", "swiss roll", "copies")


def found(X, y, turned=None):
    """What is found in the rows of this rank, by name: rows that are gathered, or what is shared."""
    from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, supervisory

    map_ = ICONEmbedding(random_state=0).fit(X if turned is None else X @ turned)
    if turned is not None:
        return {"map": map_.embedding_}, {"kl": map_.kl_divergence_}
    k_means = {"supervisory": supervisory.Gaussian(sigma=0), "encoder": "lookup", "divergence": "reverse_kl"}
    n_clusters = {50: 20, 20: 8, 64: 10, 10: 10, 30: 9}[X.shape[1]]  # of the kinds below
    by_k_means = ICONClustering(n_clusters, random_state=0, **k_means).fit(X)
    chosen = ICONClustering(n_clusters, random_state=0).fit(X)
    classes = ICONClassifier().fit(X.astype(np.float64), y)
    rows = {"map": map_.embedding_, "k-means": by_k_means.labels_, "clusters": chosen.labels_}
    shared = {
        "kl": map_.kl_divergence_,
        "steps": map_.n_iter_,
        "inertia of k-means": by_k_means.inertia_,
        "inertia of clusters": chosen.inertia_,
        "coef": classes.coef_,
    }
    return rows, shared


def neighbors_of(X):
    """The 15 nearest of each row of this rank, those of all ranks numbered."""
    from sklearn_icon._core.group import together
    from sklearn_icon._graph.neighbors import nearest_neighbors

    with together("neighbours") as ranks:
        ranks.number(len(X))
        return nearest_neighbors(X, 15, random_state=0)[:2]


def fit(path, out, shared):
    """Fit the rows of this rank, and write what all found; maps by sums over ranks, if `shared`."""
    import torch

    from sklearn_icon import distributed
    from sklearn_icon._estimators import embedding

    embedding._MOST_BY_FIRST = 0 if shared else embedding._MOST_BY_FIRST

    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group("gloo")
    X, y = np.array(distributed.shard(f"{path}/X.npy")), np.array(distributed.shard(f"{path}/y.npy"))
    indices, distances = neighbors_of(X)
    rows, shared = found(X, y)
    whole = {name: distributed.gather(part) for name, part in rows.items()}
    whole |= {"indices": distributed.gather(indices), "distances": distributed.gather(distances)}
    if whole["map"] is not None:
        np.savez(out, **whole, **shared)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.destroy_process_group()


def run(folder, ranks, shared=False):
    """What so many ranks of one thread found."""
    out = f"{folder}/{ranks}.npz"
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, *start, str(Path(__file__).resolve()), "--fit", str(folder), out]
    command += ["--shared"] * shared
    subprocess.run(command, env=environment, check=True)
    return dict(np.load(out))


def recall(one, places, k=10):
    """The fraction of the 10 nearest of all rows that are among the 10 nearest in a map."""
    from scipy.spatial import cKDTree

    found = cKDTree(places).query(places, k=k + 1)[1]
    others = found != np.arange(len(found))[:, None]
    others[others.all(axis=1), -1] = False
    found = found[others].reshape(len(found), k)
    return float((one["indices"][:, :k, None] == found[:, None]).any(axis=2).mean())


def compared(of_ranks, one):
    """How far what ranks found is from what one process did."""
    from sklearn.metrics import adjusted_rand_score

    return {
        "neighbours that differ": int((of_ranks["indices"] != one["indices"]).sum()),
        "distances, relative": float(np.max(np.abs(of_ranks["distances"] - one["distances"])) / one["distances"].max()),
        "kl, relative": float(of_ranks["kl"] / one["kl"] - 1),
        "steps": int(of_ranks["steps"]),
        "recall": recall(one, of_ranks["map"]),
        "ari of k-means": float(adjusted_rand_score(of_ranks["k-means"], one["k-means"])),
        "ari of clusters": float(adjusted_rand_score(of_ranks["clusters"], one["clusters"])),
        "inertia of k-means, relative": float(of_ranks["inertia of k-means"] / one["inertia of k-means"] - 1),
        "inertia of clusters, relative": float(of_ranks["inertia of clusters"] / one["inertia of clusters"] - 1),
        "coefficients": float(np.abs(of_ranks["coef"] - one["coef"]).max() / np.abs(one["coef"]).max()),
    }


def compare(n, kind, all_ranks, shared):
    """What each number of ranks found, beside one process, and beside one process of the rows turned."""
    from scipy.stats import ortho_group

    X, y = rows_of(kind, n)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", X)
        np.save(f"{folder}/y.npy", y)
        one = run(folder, 1)
        kept = {"kl": float(one["kl"]), "steps": int(one["steps"]), "recall": recall(one, one["map"])}
        turned, shared = found(X, y, ortho_group.rvs(X.shape[1], random_state=0).astype(np.float32))
        kept["rows turned"] = {
            "kl, relative": float(shared["kl"] / one["kl"] - 1),
            "recall": recall(one, turned["map"]),
        }
        for ranks in all_ranks:
            kept[f"ranks {ranks}"] = compared(run(folder, ranks, shared), one)
            print(kind, ranks, json.dumps(kept[f"ranks {ranks}"]), flush=True)
    print(kind, json.dumps({name: kept[name] for name in ("kl", "steps", "recall", "rows turned")}), flush=True)
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--shared", action="store_true", help="maps by sums over ranks, as of very many rows")
    parser.add_argument("--json", help="file to write")
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        fit(*options.fit, options.shared)
    else:
        results = {"rows": options.rows}
        if options.json and Path(options.json).exists():  # of other kinds
            results = json.loads(Path(options.json).read_text())
        for kind in options.kinds:
            results[kind] = compare(options.rows, kind, options.ranks, options.shared)
            if options.json:
                Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
