"""What a GPU does: sums over all pairs, maps by stages, nearest neighbours, clusters, classifiers, the loss of batches.

The most telling measurements come first. The JSON is written after each; one that fails leaves the last lines of its
traceback there, one that no longer fits into `--budget` seconds is named as left out. Times on the GPU are taken
between synchronisations, after a call that compiles, whose own seconds are "first".

    python benchmarks/gpu.py --data fashion/ --prepare rows.npy         # of idx files; on a machine that has them
    python benchmarks/gpu.py --data rows.npy --features features.npz --budget 300 --out gpu.json
    python benchmarks/gpu.py --device cpu --small --out small.json      # every path once, at tiny sizes
"""

import argparse
import faulthandler
import importlib
import json
import os
import platform
import sys
import time
import traceback
import warnings
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from _images import load_images
from sklearn.decomposition import PCA
from torch.nn import functional

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, learned, supervisory
from sklearn_icon.nn import ICONLoss


def private(*names):
    """The first of these modules of the package that there is."""
    for name in names:
        try:
            return importlib.import_module(f"sklearn_icon.{name}")
        except ModuleNotFoundError as error:
            missing = error
    raise missing


# All that is read of the package's private parts, by the places where it has been.
FUSED = private("_objective.fused", "_fused")
DEVICE = private("_core.device")
GRID = private("_objective.grid", "_grid")
SUMS = private("_objective.normalizers", "_sums")
OBJECTIVE = private("_objective.objective", "_objective")
NEIGHBORS = private("_graph.neighbors", "_neighbors")
NEIGHBORHOODS = private("supervisory._neighborhoods")
MAPS = private("_training.maps", "_maps")
EMBEDDING = private("_estimators.embedding", "_embedding")
CONDITIONAL = private("_core.conditional", "_conditional").Conditional
STAGES = {
    "neighbours": (NEIGHBORHOODS, "nearest_neighbors"),
    "affinities": (NEIGHBORHOODS, "_kernel_rows"),
    "weights": (CONDITIONAL, "from_weights"),
    "start": (EMBEDDING, "initial_map"),
    "objective": (private("_objective.loss", "_maps"), "Objective"),
    "descent": (MAPS, "minimize"),
    "losses": (MAPS, "losses_of"),
}

KERNELS = {
    "student-t": learned.StudentT(),
    "student-t 0.5": learned.StudentT(df=0.5),
    "gaussian": learned.Gaussian(),
}
N_NEIGHBORS = 91
FULL = {
    "sums": [70_000, 100_000, 30_000, 10_000, 300_000, 1_000_000],
    "tiles": 70_000,
    "reference": 100_000,  # rows up to which tiles in double precision are the reference; beyond, loops in double
    "maps": [10_000, 30_000],
    "larger": [300_000, 1_000_000],
    "neighbours": [70_000, 300_000, 1_000_000],
    "warming": 12_000,
    "rows": 60_000,
    "batches": [256, 1024, 4096, 16384],
}
SMALL = {
    "sums": [700, 300],
    "tiles": 700,
    "reference": 300,
    "maps": [500],
    "larger": [2500],
    "neighbours": [2200],
    "warming": 600,
    "rows": 600,
    "batches": [64, 128],
}


class Report:
    """Figures by name, on disk after each; what is left of the budget."""

    def __init__(self, args):
        self.args, self.started, self.figures = args, time.perf_counter(), {}
        self.facts = {}

    @property
    def left(self):
        return self.args.budget - (time.perf_counter() - self.started)

    def measure(self, name, estimate, function, *args, **kwargs):
        """Keep what function() returns, or why it did not; `estimate` are the seconds that it may take."""
        if self.args.small:
            estimate = 0
        if self.args.only and not any(part in name for part in self.args.only.split(",")):
            return
        if estimate > self.left:
            self.figures[name] = {"left out": f"may take {estimate:.0f} s of {self.left:.0f} s left"}
            self.save()
            return
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("default")
                found = function(*args, **kwargs)
            if caught:
                found["warnings"] = sorted({f"{w.category.__name__}: {str(w.message)[:300]}" for w in caught})[:5]
        except Exception:
            found = {"failed": traceback.format_exc().strip().splitlines()[-8:]}
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self.figures[name] = found | {"all seconds": time.perf_counter() - start}
        self.save()
        print(f"{self.left:6.1f} s left  {name}: {_short(found)}", flush=True)

    def save(self):
        """Write the file anew, whole at any moment."""
        if self.args.out:
            text = json.dumps({"machine": self.facts, "figures": self.figures}, indent=1, default=_plain) + "\n"
            part = self.args.out.with_suffix(".part")
            part.write_text(text)
            os.replace(part, self.args.out)


def _plain(value):
    return value.item() if hasattr(value, "item") else str(value)


def _short(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {_short(part)}" for key, part in value.items()) + "}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def facts(device):
    """What the seconds were measured on."""
    found = {"platform": platform.platform(), "cpus": os.cpu_count(), "torch threads": torch.get_num_threads()}
    for name in ("numpy", "scipy", "scikit-learn", "numba", "torch", "triton", "pynndescent"):
        try:
            found[name] = version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "GB": properties.total_memory / 2**30}
        found["multiprocessors"] = properties.multi_processor_count
    start = time.perf_counter()
    found["can_fuse"] = bool(FUSED.can_fuse(learned.StudentT(), torch.zeros(4, 2, device=device)))
    found["seconds of the first compiled loop"] = time.perf_counter() - start
    return found


# --- clocks ---------------------------------------------------------------------------------------------------------


def sync():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(function):
    """(seconds, result)."""
    sync()
    start = time.perf_counter()
    result = function()
    sync()
    return time.perf_counter() - start, result


def seconds_of(function, most=0.6):
    """{first, seconds: the median of up to nine further calls that together take `most`}, and the result."""
    first, result = timed(function)
    second, result = timed(function)
    later = [second] + [timed(function)[0] for _ in range(int(min(8, most / max(second, 1e-9) - 1)))]
    return {"first": first, "seconds": float(np.median(later)), "calls": len(later)}, result


@contextmanager
def replaced(owner, **attributes):
    """Attributes of a module or class for a while."""
    before = {name: vars(owner)[name] for name in attributes}
    for name, value in attributes.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def by_tiles():
    """Without compiled loops."""
    with replaced(SUMS, can_fuse=lambda *_: False), replaced(OBJECTIVE, can_fuse=lambda *_: False):
        yield


@contextmanager
def staged(stages):
    """Add up the seconds of the stages of a fit."""
    before = [vars(owner)[name] for owner, name in STAGES.values()]
    for stage, (owner, name) in STAGES.items():
        function = getattr(owner, name)
        watch = _watched(function, stage, stages)
        setattr(owner, name, watch if not isinstance(owner, type) else staticmethod(watch))
    try:
        yield
    finally:
        for (owner, name), value in zip(STAGES.values(), before, strict=True):
            setattr(owner, name, value)


def _watched(function, stage, stages):
    def watched(*args, **kwargs):
        seconds, result = timed(lambda: function(*args, **kwargs))
        stages[stage] = stages.get(stage, 0.0) + seconds
        return result

    return watched


# --- sums -----------------------------------------------------------------------------------------------------------


def places(n, device, dtype=torch.float32):
    """A map of a hundred clumps, as wide as maps of so many rows are."""
    rng = np.random.RandomState(0)
    centres = rng.uniform(-1, 1, size=(100, 2)) * min(50 * np.sqrt(n / 70_000), 120)
    z = centres[rng.randint(100, size=n)] + rng.standard_normal((n, 2)) * min(2 * np.sqrt(n / 70_000), 6)
    return torch.as_tensor(z.astype(np.float32), device=device).to(dtype)


@cache
def reference(n, name, most_tiles, device):
    """(seconds, log Z, its gradient) in double precision: by tiles, or by compiled loops where there are many rows."""
    z = places(n, device, torch.float64)
    if n > most_tiles:
        return timed(lambda: SUMS.joint_normalizer(KERNELS[name], z))
    with by_tiles():
        return timed(lambda: SUMS.joint_normalizer(KERNELS[name], z))


def sums(n, name, way, sizes, device):
    """Seconds of log Z and its gradient, and how far they are from the reference."""
    kernel, z = KERNELS[name], places(n, device)
    if way == "loops":
        assert FUSED.can_fuse(kernel, z), "no compiled loops here"
        found, result = seconds_of(lambda: SUMS.joint_normalizer(kernel, z))
    elif way == "grid":
        grid = GRID.GridPotential(kernel)
        found, result = seconds_of(lambda: GRID.joint_grid_normalizer(grid, z))
        found["nodes"] = grid.place(z).nodes
        found |= {"rows of Z": seconds_of(lambda: _rows_and_gradient(partial(GRID.row_grid_normalizers, grid), z))[0]}
    else:
        with by_tiles():
            found, result = seconds_of(lambda: SUMS.joint_normalizer(kernel, z))
    if way == "loops":
        apply = FUSED.RowLogNormalizer.apply
        found["rows of Z"] = seconds_of(lambda: _rows_and_gradient(partial(apply, kernel.slope_terms), z))[0]
    if device.type == "cuda" or n <= sizes["reference"]:
        seconds, (log_z, push) = reference(n, name, sizes["reference"], device)
        found["reference seconds"] = seconds
        found["error of log Z"] = abs(result[0] - log_z)
        found["error of gradient"] = float((result[1].double() - push).norm() / push.norm())
        found["largest error of gradient"] = float((result[1].double() - push).abs().max() / push.abs().max())
    return found


def _rows_and_gradient(normalizer, z):
    z = z.detach().requires_grad_()
    return torch.autograd.grad(normalizer(z).sum(), z)[0]


def tile_sizes(n, device):
    """Seconds of sums by tiles of several sizes, in both precisions."""
    found = {"as they are": SUMS._TILE_ELEMENTS * getattr(SUMS, "_TIMES_ON_GPU", 1)}
    factor = getattr(SUMS, "_TIMES_ON_GPU", 1) if device.type == "cuda" else 1
    for power in (22, 23, 24, 25, 26):
        with by_tiles(), replaced(SUMS, _TILE_ELEMENTS=(1 << power) // factor):
            for dtype in (torch.float32, torch.float64):
                z = places(n, device, dtype)
                of_size, _ = seconds_of(partial(SUMS.joint_normalizer, KERNELS["student-t"], z), most=0.5)
                found[f"2^{power} {dtype}"] = of_size["seconds"]
    return found


def loop_shapes(n, device):
    """Seconds of compiled loops by the shape of their tiles: keys, numbers held of rows."""
    z, found = places(n, device), {}
    for keys, numbers in ((128, 32), (128, 16), (128, 64), (256, 32), (64, 32)):
        with replaced(FUSED, _KEYS=keys, _NUMBERS=numbers):
            timing, _ = seconds_of(lambda: FUSED.joint_sums(KERNELS["student-t"].slope_terms, z), most=0.3)
            found[f"{keys} keys, {numbers} numbers"] = timing["seconds"]
    return found


# --- maps -----------------------------------------------------------------------------------------------------------


def one_map(X, device, **options):
    """Seconds by stage of a fit, and the map's quality; X are rows, or a function that makes them."""
    X, stages = X() if callable(X) else X, {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with staged(stages):
        start = time.perf_counter()
        model = ICONEmbedding(device=str(device), random_state=0, **options).fit(X)
        sync()
        seconds = time.perf_counter() - start
    found = {"seconds": seconds, "stages": stages | {"other": seconds - sum(stages.values())}}
    found |= {"method": model.method_, "iterations": model.n_iter_ + 1, "KL": model.kl_divergence_}
    found["recall of p's neighbours"] = model.neighbor_recall_
    if device.type == "cuda":
        found["GPU MB"] = torch.cuda.max_memory_allocated() / 2**20
    start = time.perf_counter()
    judge = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found["recall of 10"] = recall_of_map(X, model.embedding_, judge)
    if model.method_ == "interpolation" and (judge.type == "cuda" or len(X) < 5000):
        z = torch.as_tensor(model.embedding_, dtype=torch.float32, device=judge)
        kernel = model.learned_
        exact = SUMS.joint_normalizer(kernel, z.double())[0]
        found["KL with exact log Z"] = (
            found["KL"] + exact - GRID.joint_grid_normalizer(GRID.GridPotential(kernel), z)[0]
        )
    found["seconds of judging"] = time.perf_counter() - start
    return found


def recall_of_map(X, Z, device, k=10, n_probes=2000):
    """Mean share of a row's 10 nearest among its 10 nearest in the map, of rows drawn."""
    probes = np.sort(np.random.RandomState(0).permutation(len(X))[:n_probes])
    X, Z = (torch.as_tensor(np.asarray(a), dtype=torch.float64, device=device) for a in (X, Z))
    shares = []
    for first in range(0, len(probes), 200):
        rows = torch.as_tensor(probes[first : first + 200], device=device)
        near = [distances_from(places, rows).topk(k, largest=False).indices for places in (X, Z)]
        shares.append((near[0][:, :, None] == near[1][:, None, :]).any(2).double().mean(1))
    return float(torch.cat(shares).mean())


def compile_cpu(X):
    """Seconds of a fit on the CPU that compiles its loops, or loads them."""
    seconds, model = timed(lambda: ICONEmbedding(device="cpu", random_state=0, max_iter=30).fit(X))
    return {"seconds": seconds, "method": model.method_}


def steps(X, device):
    """Seconds of the parts of a step of the descent, and what a GPU does longest in ten of them."""
    with DEVICE.working_on(device):
        p = supervisory.Gaussian(n_neighbors=min(N_NEIGHBORS, len(X) - 1)).conditional(X, random_state=0)
    kernel, z = learned.StudentT(), places(len(X), device)
    options = {"normalization": "joint", "n_components": 2, "dtype": torch.float32, "device": device}
    seconds, objective = timed(lambda: OBJECTIVE.Objective(p, kernel, **options))
    found = {"objective": seconds, "edges": p.weights.nnz}
    parts = {
        "edges' gradient": lambda: objective.edges.sum_and_gradient(kernel, z, False),
        "edges' value and gradient": lambda: objective.edges.sum_and_gradient(kernel, z, True),
        "normaliser": lambda: SUMS.joint_normalizer(kernel, z),
        "gradient": lambda: objective.gradient(z, with_value=False),
        "shares": lambda: objective.per_row(z),
    }
    for name, part in parts.items():
        found[name] = seconds_of(part)[0]["seconds"]
    if device.type == "cuda":
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(10):
                objective.gradient(z, with_value=False)
            sync()
        rows = [(event.key[:80], event.self_device_time_total / 10, event.count) for event in profile.key_averages()]
        rows = sorted(rows, key=lambda row: -row[1])[:12]
        found["microseconds of a gradient, calls of ten"] = {name: [time, count] for name, time, count in rows}
    return found


# --- nearest neighbours ---------------------------------------------------------------------------------------------


def neighbours_alone(X, device):
    """Seconds of the package's search on the device, and its recall on 256 rows."""
    X = X() if callable(X) else X

    def search():
        with DEVICE.working_on(device):
            return NEIGHBORS.nearest_neighbors(X, N_NEIGHBORS, random_state=0)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    (seconds, result), again = timed(search), None
    if seconds < 5:
        again, _ = timed(search)
    found = {"first": seconds, "seconds": again, "exact": result.exact}
    if device.type == "cuda":
        found["GPU MB"] = torch.cuda.max_memory_allocated() / 2**20
    rows, near = torch.as_tensor(X, dtype=torch.float64, device=device), []
    for probes in np.array_split(np.linspace(0, len(X) - 1, 256, dtype=np.intp), 8):
        d = distances_from(rows, torch.as_tensor(probes, device=device))
        farthest = d.topk(N_NEIGHBORS, largest=False).values[:, -1:]
        indices = torch.as_tensor(result.indices[probes].astype(np.int64), device=device)
        near.append(d.gather(1, indices) <= farthest * (1 + 1e-12))
    return found | {"recall": float(torch.cat(near).double().mean())}


def distances_from(X, rows):
    """Distances of some rows to all, from differences; those to themselves infinite."""
    d = torch.cdist(X[rows], X, compute_mode="donot_use_mm_for_euclid_dist")
    d[torch.arange(len(rows), device=d.device), rows] = torch.inf
    return d


# --- clusters, classifiers, losses ----------------------------------------------------------------------------------


def clusters(X, y, device):
    """Seconds of a second fit of ICONClustering, the first one on a tenth of the rows."""
    from sklearn_icon.metrics import clustering_accuracy

    ICONClustering(10, device=str(device), random_state=0).fit(X[: len(X) // 10])
    stages = {}
    with staged(stages):
        seconds, model = timed(lambda: ICONClustering(10, device=str(device), random_state=0).fit(X))
    found = {"seconds": seconds, "neighbours": stages.get("neighbours"), "iterations": model.n_iter_}
    return found | {"accuracy": clustering_accuracy(y, model.labels_), "loss": model.loss_}


def classifier(X, y, device, **options):
    """Seconds of a second fit of ICONClassifier, the first one on a tenth of the rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ICONClassifier(device=str(device), random_state=0, **options).fit(X[: len(X) // 10], y[: len(X) // 10])
        seconds, model = timed(lambda: ICONClassifier(device=str(device), random_state=0, **options).fit(X, y))
    return {"seconds": seconds, "iterations": model.n_iter_, "accuracy on the same rows": float(model.score(X, y))}


def nt_xent(z, tau):
    """SimCLR's loss by hand, of two views of each item, the second ones after the first."""
    z = functional.normalize(z)
    logits = (z @ z.T / tau).fill_diagonal_(-torch.inf)
    n = len(z) // 2
    return functional.cross_entropy(logits, torch.arange(2 * n, device=z.device).roll(n))


def clip_one_way(z, keys, tau):
    """Half of CLIP's loss by hand."""
    logits = functional.normalize(z) @ functional.normalize(keys).T / tau
    return functional.cross_entropy(logits, torch.arange(len(z), device=z.device))


def batch_losses(n, device):
    """Milliseconds and peak MB of loss and gradient of a batch of 128 columns, ours and by hand."""
    rng, tau = torch.Generator().manual_seed(0), 0.1
    z, w = (torch.randn(n, 128, generator=rng).to(device).requires_grad_() for _ in range(2))
    y = torch.arange(n // 2).repeat(2).to(device)
    kernel = learned.Gaussian(metric="cosine", tau=tau)
    pairs, across = ICONLoss("positive_pairs", kernel), ICONLoss("cross_modal", kernel, symmetric=True)
    student = ICONLoss("positive_pairs", learned.StudentT())
    ways = {
        "positive pairs": (lambda: pairs(z, y), [z]),
        "NT-Xent by hand": (lambda: nt_xent(z, tau), [z]),
        "positive pairs, student-t": (lambda: student(z, y), [z]),
        "cross-modal": (lambda: across(z, keys=w), [z, w]),
        "CLIP by hand": (lambda: (clip_one_way(z, w, tau) + clip_one_way(w, z, tau)) / 2, [z, w]),
    }
    found = {}
    for name, (loss, of) in ways.items():

        def step(loss=loss, of=of):
            value = loss()
            return value.detach(), torch.autograd.grad(value, of)

        step()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        timing, (value, _) = seconds_of(step, most=0.5)
        found[name] = {"ms": 1000 * timing["seconds"], "loss": float(value)}
        if device.type == "cuda":
            found[name]["MB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return found


# --- data -----------------------------------------------------------------------------------------------------------


def load(args):
    """(name, rows, shifts): leading principal components of images, and what a shift of the images does to them."""
    if args.data and Path(args.data).suffix == ".npy":
        name, X = Path(args.data).stem, np.load(args.data).astype(np.float32)
        with np.load(_beside(args.data)) as arrays:
            shifts = arrays["matrices"], arrays["offsets"]
    else:
        name, X, shifts = components(args.data)
    return name, np.ascontiguousarray(X[:1000] if args.small else X), shifts


def _beside(path):
    return Path(path).with_suffix(".shifts.npz")


def components(path):
    """(name, 50 leading components of images, (matrices, offsets) that shift an image by up to two pixels).

    A shift of pixels is linear, and so is what is left of it in the components; what an image holds beyond these is
    lost.
    """
    name, images, _ = load_images(path)
    pca = PCA(min(50, images.shape[1]), random_state=0).fit(images)
    side = int(np.sqrt(images.shape[1]))
    axes = np.concatenate([pca.components_, pca.mean_[None]]).reshape(-1, side, side)
    matrices, offsets = [], []
    for shift in np.ndindex(5, 5):
        moved = np.roll(axes, np.subtract(shift, 2), axis=(1, 2)).reshape(len(axes), -1)
        matrices.append(moved[:-1] @ pca.components_.T)
        offsets.append((moved[-1] - pca.mean_) @ pca.components_.T)
    shifts = tuple(np.asarray(part, dtype=np.float32) for part in (matrices, offsets))
    return name, pca.transform(images).astype(np.float32), shifts


def more_rows(X, shifts, n):
    """The rows, then copies shifted by up to two pixels and jittered, as `_images.more_images` makes of pixels."""
    rng, parts = np.random.RandomState(0), [X]
    for start in range(len(X), n, len(X)):
        kept = rng.permutation(len(X))[: n - start]
        rows, which = X[kept], rng.randint(len(shifts[0]), size=len(kept))
        for number, (matrix, offset) in enumerate(zip(*shifts, strict=True)):
            rows[which == number] = rows[which == number] @ matrix + offset
        parts.append(rows + rng.normal(0, 0.02, size=rows.shape).astype(np.float32))
    return np.concatenate(parts)[:n]


def features(args, n):
    """(name, rows of 256 columns, labels) of the file, or blobs that overlap."""
    if args.features and Path(args.features).exists():
        with np.load(args.features) as arrays:
            X, y = arrays["X"][:n].astype(np.float32), arrays["y"][:n].astype(int)
        return Path(args.features).stem, X / X.std(), y
    rng = np.random.RandomState(0)
    y = rng.randint(10, size=n)
    X = 0.25 * rng.standard_normal((10, 256))[y] + rng.standard_normal((n, 256))
    return "blobs", X.astype(np.float32), y


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="npy of --prepare, or as in `_images.load_images` (default OpenML, else digits)")
    parser.add_argument("--features", help="npz with X and y, for clusters and classifiers (default blobs)")
    parser.add_argument("--budget", type=float, default=420, help="seconds that all may take (default 420)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", help="measurements whose names contain one of these, comma-separated")
    parser.add_argument("--out", type=Path, help="write the figures here, after each")
    parser.add_argument("--prepare", type=Path, help="only write the components of the images of --data to this npy")
    args = parser.parse_args()
    if args.prepare:
        _, X, (matrices, offsets) = components(args.data)
        np.save(args.prepare, X)
        return np.savez(_beside(args.prepare), matrices=matrices, offsets=offsets)
    device, sizes, report = torch.device(args.device), SMALL if args.small else FULL, Report(args)
    faulthandler.dump_traceback_later(args.budget + 20, exit=False, file=sys.stderr)
    report.facts = facts(device)
    report.save()
    print(_short(report.facts), flush=True)
    name, X, shifts = load(args)
    report.facts["rows"] = [name, *X.shape]
    on_cuda = device.type == "cuda"
    measure = report.measure

    def all_sums(numbers, kernels, ways):
        for n in numbers:
            for kernel in kernels:
                for way in ways:
                    slow = {"tiles": (n / 70_000) ** 2, "loops": (n / 1e6) ** 2 * 20, "grid": (n / 1e6) * 3}[way]
                    if way == "loops" and not report.facts["can_fuse"]:
                        continue
                    if way == "tiles" and n > 100_000:
                        continue
                    measure(f"sums {n} {kernel} {way}", 2 + slow, sums, n, kernel, way, sizes, device)

    cpu, first = torch.device("cpu"), sizes["sums"][0]
    both = (device, cpu) if on_cuda else (device,)
    measure(f"map {len(X)} auto, first", 40, one_map, X, device)
    measure(f"map {len(X)} auto, second", 20, one_map, X, device)
    for n in sizes["neighbours"]:
        measure(f"neighbours {n}", 3 + 30 * (n / 1e6) ** 2, neighbours_alone, partial(more_rows, X, shifts, n), device)
    for n in sizes["larger"]:
        measure(f"map {n} auto", 3 + 60 * n / 1e6, one_map, partial(more_rows, X, shifts, n), device)
    for n in sizes["maps"]:
        for method in ("exact", "interpolation"):
            for time_of in ("first", "second"):
                measure(f"map {n} {method}, {time_of}", 6, one_map, X[:: len(X) // n][:n], device, method=method)
    measure(f"map {len(X)} exact, second", 20, one_map, X, device, method="exact")
    measure(f"tiles of other sizes {sizes['tiles']}", 10, tile_sizes, sizes["tiles"], device)
    measure("first fit on the CPU", 20, compile_cpu, X[: sizes["warming"]])
    measure(f"map {len(X)} auto on the CPU", 20, one_map, X, cpu)
    all_sums([first], KERNELS, ["loops", "grid", "tiles"])
    for n in sizes["batches"]:
        measure(f"loss of a batch {n}", 5, batch_losses, n, device)
    all_sums(sizes["sums"][1:], ["student-t"], ["loops", "grid", "tiles"])
    measure(f"steps {len(X)}", 10, steps, X, device)
    if report.facts["can_fuse"]:
        measure(f"loops of other shapes {first}", 5, loop_shapes, first, device)
    of_what, F, y = features(args, sizes["rows"])
    report.facts["features"] = [of_what, *F.shape]
    for where in both:
        measure(f"classifier {len(F)} {where}", 8, classifier, F, y, where)
        measure(f"clusters {len(F)} {where}", 20, clusters, F, y, where)
    for where in both:
        measure(f"classifier {len(F)} mlp {where}", 15, classifier, F, y, where, encoder="mlp", max_iter=5)
    all_sums(sizes["sums"][1:], list(KERNELS)[1:], ["loops", "grid", "tiles"])
    report.facts["seconds of all"] = time.perf_counter() - report.started
    report.save()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
