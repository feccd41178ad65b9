"""Fits of rows in a file larger than the memory they may take: shifted Fashion-MNIST, anonymous memory measured.

    python benchmarks/larger_than_memory.py --gigabytes 1 --bound 0.5 --json benchmarks/results/larger_than_memory.json
    python benchmarks/larger_than_memory.py --gigabytes 8.2 --bound 3 --fits classifier k-means --steps 4
    python benchmarks/larger_than_memory.py --gigabytes 8.2 --bound 3 --fits map

Rows are the 60,000 training images of Debian's dataset-fashion-mnist, each shifted by up to four pixels, drawn by
seed, in single precision, in a `.npy` file that is mapped. Each fit has a process of its own, in which 900 rows were
fitted before, so that libraries are loaded; its peak is what anonymous memory (`RssAnon` of `/proc/self/status`, every
20 ms) rises to, libraries included. Accuracy and purity are of the 10,000 test images as they are.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
from ranks import recall

FOLDER = Path("/usr/share/datasets/fashion-mnist")
SHIFT, CHUNK = 4, 20_000


def images(kind):
    """(images, labels) of the training or test part."""
    parts = []
    for name, skipped in (("images-idx3", 16), ("labels-idx1", 8)):
        with gzip.open(next(FOLDER.rglob(f"{kind}-{name}-ubyte.gz"))) as file:
            parts.append(np.frombuffer(file.read(), dtype=np.uint8, offset=skipped))
    return parts[0].reshape(-1, 28, 28), parts[1]


def write(folder, gigabytes):
    """X.npy and y.npy."""
    pictures, labels = images("train")
    n, rng = int(gigabytes * 1e9 / 784 / 4), np.random.RandomState(0)
    file = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (n, 784))
    padded = np.pad(pictures, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    of_images = []
    for first in range(0, n, CHUNK):
        chosen = rng.randint(len(pictures), size=min(CHUNK, n - first))
        down, right = rng.randint(2 * SHIFT + 1, size=(2, len(chosen)))
        rows, columns = down[:, None, None] + np.arange(28)[:, None], right[:, None, None] + np.arange(28)
        file[first : first + len(chosen)] = padded[chosen[:, None, None], rows, columns].reshape(-1, 784) / 255
        of_images.append(labels[chosen])
    file.flush()
    np.save(folder / "y.npy", np.concatenate(of_images))


class Watch(threading.Thread):
    """The most anonymous memory that the process had."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.over = 0, threading.Event()

    @staticmethod
    def now():
        """That which it has, by the kernel's counter: walking the pages of a gigabyte takes milliseconds of CPU."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    def run(self):
        while not self.over.wait(0.02):
            self.peak = max(self.peak, self.now())


def fit(folder, name, bound, steps):
    """Fit, and print what it took as JSON."""
    from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, supervisory

    warnings.simplefilter("ignore")
    k_means = {"supervisory": supervisory.Gaussian(sigma=0), "encoder": "lookup", "divergence": "reverse_kl"}
    model = {
        "classifier": ICONClassifier(encoder="mlp", max_iter=1, random_state=0, n_jobs=1),
        "k-means": ICONClustering(10, max_iter=steps, random_state=0, n_jobs=1, **k_means),
        "map": ICONEmbedding(supervisory="knn", random_state=0, n_jobs=1),
    }[name]
    X, y = np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "y.npy")
    model.fit(X[:900], y[:900]).set_params(max_memory=bound)
    import_module("numba")  # which a map of so few rows has no need of
    watch, start = Watch(), time.process_time()
    watch.start()
    model.fit(X, y if name == "classifier" else None)
    watch.over.set()
    watch.join()
    cpu = time.process_time() - start
    told = {"rows": len(X), "GB of rows": X.nbytes / 1e9, "GB, anonymous, at the most": watch.peak / 1e9}
    told |= {"CPU seconds": round(cpu, 1)}
    if name == "map":
        told |= {"recall of neighbours": model.neighbor_recall_, "KL": model.kl_divergence_, "steps": model.n_iter_}
        told |= {"recall": recall(X, model.embedding_)}
    else:
        told |= {"of the test images": of_test_images(model, name)}
    told |= {"steps": int(np.max(model.n_iter_))} if name == "k-means" else {}
    print("JSON" + json.dumps(told))


def of_test_images(model, name):
    """The fraction that is predicted, or lies in clusters of mostly its own class."""
    pictures, labels = images("t10k")
    predicted = model.predict(pictures.reshape(-1, 784).astype(np.float32) / 255)
    if name == "k-means":
        predicted = np.array([np.bincount(labels[predicted == c], minlength=10).argmax() for c in range(10)])[predicted]
    return round(float((predicted == labels).mean()), 4)


def main():
    """Write the file, fit, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--bound", type=float, default=0.5, help="gigabytes, as max_memory")
    parser.add_argument("--folder", type=Path, help="that the file is kept in; else a temporary one")
    parser.add_argument("--fits", nargs="+", default=["classifier", "k-means"], help="of classifier, k-means, map")
    parser.add_argument("--steps", type=int, default=20, help="of k-means at the most")
    parser.add_argument("--json")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        fit(args.folder, args.fit, args.bound * 1e9, args.steps)
        return
    found = {"max_memory in GB": args.bound}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "y.npy").exists():
            write(folder, args.gigabytes)
        for name in args.fits:
            command = [sys.executable, __file__, "--fit", name, "--folder", folder, "--bound", str(args.bound)]
            command += ["--steps", str(args.steps)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found[name] = json.loads(done.stdout.split("JSON")[1])
            print(name, found[name], flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
