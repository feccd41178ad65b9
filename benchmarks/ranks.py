"""A fit by ranks of one thread beside one process of as many threads: seconds, memory, and what is sent, by the model.

python benchmarks/ranks.py --rows 200000 --columns 50 --ranks 1 2 4
python benchmarks/ranks.py --rows 100000 --columns 50 --ranks 1 2 4 --clusters 100
python benchmarks/ranks.py --model
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STARTS, TRIED_ROWS, DRAWN_ROWS = 10, 10**6, 10_000  # of k-means: the second with so many starts, of more rows a draw
NEIGHBORS, STEPS, SHARED, TURNED = 91, 500, 12, 16  # of a row; of a map; bytes of a neighbour and an edge, sent
EXACT, NEAR = 5e12, 30  # most pairs of a rank, times columns and 40; of very many rows, roots of n that meet each row
FLOPS = {"CPU core": 40e9, "GPU": 20e12}  # of matrix products in single precision, half of what is on paper
BYTES = {"CPU core": 5e9, "GPU": 50e9}  # a second between two of them: memory of one machine, links of GPUs


def model(n, columns, ranks, steps=STEPS, refreshed=None, nodes=None, width=4):
    """What a rank sends, by part, in bytes; messages; flops of its part; bytes that it holds."""
    rows, refreshed = n / ranks, steps / 2 if refreshed is None else refreshed
    nodes = min(1400, 550 * max(1, n / 2e5) ** 0.25) if nodes is None else nodes  # measured up to 2e5 rows
    others, in_cells = ranks - 1, n * rows * (40 + columns) > EXACT
    trips = others / ranks + others if in_cells else others / 2  # home, and at the most to every other rank
    sent = {
        "rows": trips * rows * columns * width,
        "neighbours back": trips * rows * NEIGHBORS * (SHARED + 4 * in_cells),
        "edges": rows * NEIGHBORS * others / ranks * TURNED,
        "gradients": steps * 8 * n * (ranks > 1),
        "grids": refreshed * 4 * nodes**2 * (ranks > 1),
    }
    flops = {
        "neighbours": min(n, NEAR * n**0.5 if in_cells else n) * rows * columns,
        "attraction": steps * rows * 1.6 * NEIGHBORS / 2 * 20,
        "repulsion": refreshed * (rows * 150 + 60 * nodes**2 * np.log2(max(nodes, 2))),
    }
    held = {"X": 2 * rows * columns * width, "p": rows * NEIGHBORS * 12, "edges": rows * NEIGHBORS * 88, "map": 60 * n}
    return sent, 2 * (2 * others + steps + refreshed), flops, held


def model_of_clusters(n, columns, clusters, ranks, steps=STEPS, starts=None, width=4):
    """The same of k-means, of so many steps in all."""
    starts = (STARTS if n <= TRIED_ROWS else 0) if starts is None else starts
    rows, trials, several = n / ranks, 2 + int(np.log(clusters)), ranks > 1
    sent = {
        "starts": starts * clusters * width * (rows + trials * (columns + 1)) * several,
        "draw": width * columns * DRAWN_ROWS / ranks * several * (not starts),
        "steps": steps * 8 * (clusters * (columns + 1) + 1) * several,
    }
    flops = {
        "starts": 2 * starts * clusters * trials * rows * columns,
        "steps": 2 * steps * rows * clusters * columns,
    }
    held = {"X": 2 * rows * columns * width, "distances": rows * (2 * trials + 1) * width * (starts > 0), "all": 12 * n}
    return sent, 2 * (steps + 3 * starts * clusters), flops, held


def tabulate():
    """The models at 10^6 to 10^9 rows of 50 columns, on 1 to 64 GPUs."""
    print("rows ranks | sent GB | flops 10^15 | held GB | seconds: neighbours, steps, sending")
    for n in (10**6, 10**7, 10**8, 10**9):
        for ranks in (1, 4, 16, 64):
            sent, _, flops, held = model(n, 50, ranks)
            search = flops["neighbours"] / FLOPS["GPU"]
            steps = (flops["attraction"] + flops["repulsion"]) / (FLOPS["GPU"] / 20)  # these wait for memory
            print(
                f"{n:.0e} {ranks:3d} | {sum(sent.values()) / 1e9:8.1f} | {sum(flops.values()) / 1e15:9.2f} | "
                f"{sum(held.values()) / 1e9:7.1f} | {search:9.0f} {steps:7.0f} {sum(sent.values()) / BYTES['GPU']:7.0f}"
            )
    print("k-means, 100 clusters, 100 steps; rows ranks | sent GB | flops 10^15 | held GB | seconds: products, sending")
    for n in (10**6, 10**7, 10**8, 10**9):
        for ranks in (1, 4, 16, 64):
            sent, _, flops, held = model_of_clusters(n, 50, 100, ranks, 100)
            sizes = (sum(part.values()) for part in (sent, flops, held))
            n_bytes, work, memory = sizes
            print(
                f"{n:.0e} {ranks:3d} | {n_bytes / 1e9:8.3f} | {work / 1e15:9.2f} | {memory / 1e9:7.1f} | "
                f"{work / FLOPS['GPU']:9.1f} {n_bytes / BYTES['GPU']:7.2f}"
            )


def fit(path, knn, steps, clusters):
    """Fit a map or clusters of the rows of this rank; prints what it took as a line of JSON."""
    import torch
    from larger_than_memory import Watch

    from sklearn_icon import ICONEmbedding, distributed, methods
    from sklearn_icon._core import group

    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    counts = {}
    if ranks > 1:
        torch.distributed.init_process_group("gloo")
        opened = group.Ranks._heads

        def counted(self, label, *args, **more):
            counts[label] = counts.get(label, 0) + 1
            return opened(self, label, *args, **more)

        group.Ranks._heads = counted
    X = np.array(distributed.shard(path))
    before, of_libraries, watch = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, Watch.now(), Watch()
    watch.start()
    wall, cpu = time.perf_counter(), time.process_time()
    if clusters:
        fitted = methods.get("k-means").make_estimator(n_clusters=clusters, random_state=0).fit(X)
    else:
        fitted = ICONEmbedding(supervisory="knn" if knn else None, max_iter=steps, random_state=0).fit(X)
    took = time.perf_counter() - wall, time.process_time() - cpu
    watch.over.set()
    report = fitted.fit_report_
    whole = distributed.gather(fitted)
    grids = {}
    for label, count in counts.items():
        if label.startswith("a sum of float32"):
            shape = tuple(int(size) for size in label.split("(")[1].strip(") ").split(",") if size)
            if shape[-1] > 2:
                grids[shape[0]] = grids.get(shape[0], 0) + count
    line = {
        "rank": rank,
        "wall": took[0],
        "cpu": took[1],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mb": before / 1024,
        "anonymous_mb": (watch.peak - of_libraries) / 2**20,  # that the fit added at the most
        ("inertia" if clusters else "kl"): fitted.inertia_ if clusters else fitted.kl_divergence_,
        "n_iter": fitted.n_iter_,
        "stages": report["stages"],
        "exchanges": report.get("exchanges", 0),
        "bytes_sent": report.get("bytes_sent", 0),
        "grids": grids,
        "steps": counts.get(f"a sum of float64 ({clusters * (X.shape[1] + 1) + 1},)", 0),
        "starts": counts.get(f"a sum of float32 (1, {X.shape[1]})", 0),
    }
    if whole is not None and rank == 0 and not clusters:
        line["recall"] = recall(np.load(path, mmap_mode="r"), whole.embedding_)
    print("JSON" + json.dumps(line), flush=True)
    if ranks > 1:
        torch.distributed.destroy_process_group()


def recall(X, places, k=10, n_judged=1000):
    """The fraction of 10 nearest rows that are among the 10 nearest in the map, of some rows."""
    from sklearn.neighbors import NearestNeighbors

    rows = np.linspace(0, len(X) - 1, n_judged).astype(int)
    near, found = (
        NearestNeighbors(n_neighbors=k + 1).fit(data).kneighbors(data[rows], return_distance=False)[:, 1:]
        for data in (np.asarray(X), places)
    )
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(near, found, strict=True)]))


def run(path, ranks, threads, knn, steps, clusters):
    """Lines of all ranks."""
    own = [str(Path(__file__).resolve()), "--fit", str(path)] + ["--knn"] * knn
    own += [] if steps is None else ["--steps", str(steps)]
    own += ["--clusters", str(clusters)]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, *start, *own], env=environment, capture_output=True, text=True)
    lines = [json.loads(line.split("JSON", 1)[1]) for line in done.stdout.splitlines() if "JSON" in line]
    if len(lines) != ranks:
        sys.exit(done.stdout + done.stderr)
    return sorted(lines, key=lambda line: line["rank"])


def sent_by_model(n, columns, ranks, line, clusters):
    """What a rank sends by the model, of as many steps as it took."""
    if clusters:
        return model_of_clusters(n, columns, clusters, ranks, line["steps"], line["starts"])[0]
    grids = line["grids"]
    refreshed = sum(grids.values())
    nodes = (sum(count * int(size) ** 2 for size, count in grids.items()) / refreshed) ** 0.5
    return model(n, columns, ranks, line["n_iter"], refreshed, nodes)[0]


def compare(n, columns, all_ranks, knn, steps, threads, clusters):
    """Fits by each number of ranks, of one thread each, or of one rank; what they took, by number of ranks."""
    from sklearn.datasets import make_blobs

    kept = {"rows": n, "columns": columns}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.npy"
        np.save(path, make_blobs(n, columns, centers=40, random_state=0, cluster_std=3.0)[0].astype(np.float32))
        for ranks in all_ranks:
            lines = run(path, ranks, threads if ranks == 1 else 1, knn, steps, clusters)
            fields = "cpu", "wall", "anonymous_mb", "kl", "inertia", "n_iter", "recall", "exchanges", "bytes_sent"
            kept[f"ranks {ranks}"] = [{name: line[name] for name in fields if name in line} for line in lines]
            for line in lines:
                print(json.dumps(line))
            if ranks > 1:
                sent = sent_by_model(n, columns, ranks, lines[0], clusters)
                measured = np.mean([line["bytes_sent"] for line in lines])
                kept[f"sent by a rank of {ranks}, MB"] = {"measured": measured / 1e6, "model": sum(sent.values()) / 1e6}
                print(f"sent by a rank: {measured / 1e6:.1f} MB, by the model {sum(sent.values()) / 1e6:.1f} MB")
                print({name: round(size / 1e6, 1) for name, size in sent.items()})
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--knn", action="store_true", help="uniform p on 15 neighbours")
    parser.add_argument("--steps", type=int, help="of a map at the most")
    parser.add_argument("--clusters", type=int, default=0, help="of k-means, in place of a map")
    parser.add_argument("--threads", type=int, default=2, help="of one process")
    parser.add_argument("--json", help="file to write")
    parser.add_argument("--model", action="store_true", help="only the model, of many rows")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        fit(options.fit, options.knn, options.steps, options.clusters)
    elif options.model:
        tabulate()
    else:
        given = options.rows, options.columns, options.ranks, options.knn, options.steps, options.threads
        found = compare(*given, options.clusters)
        if options.json:
            Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
