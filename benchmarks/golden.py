"""Bits of some forty fits on both sides of every size limit, to compare two states of the code on one machine.

    python benchmarks/golden.py before.json       # writes a digest and a norm of each result
    python benchmarks/golden.py after.json --against before.json

Run both with one thread setting: bits hold for one machine, thread count and set of library versions.
"""

import argparse
import hashlib
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.datasets import load_digits, load_iris, make_blobs

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned, methods
from sklearn_icon import supervisory as sup

DIGITS, LABELS = load_digits(return_X_y=True)
IRIS, SPECIES = load_iris(return_X_y=True)
BLOBS, BLOB_OF = make_blobs(3500, 12, centers=7, cluster_std=3, random_state=0)
WIDE = make_blobs(5200, 6, centers=5, cluster_std=3, random_state=1)[0].astype(np.float32)
COUNTS = sparse.csr_array(np.random.RandomState(0).poisson(0.3, (120, 40)) + np.eye(120, 40, dtype=int))
COSINE = learned.Gaussian(metric="cosine", tau=0.5)


def jittered(batch):
    return batch + 0.1 * torch.randn_like(batch)


def embedding(X, y=None, new=None, **params):
    return lambda: _results(ICONEmbedding(random_state=0, **params), X, y, new)


def clusters(X, k, new=None, y=None, **params):
    return lambda: _results(ICONClustering(k, random_state=0, **params), X, y, new)


def classes(X, y, new=None, **params):
    return lambda: _results(ICONClassifier(random_state=0, **params), X, y, new)


def pairs(X, y, **params):
    def fit():
        model = ICONCrossModal(random_state=0, **params).fit(X, y)
        return [model.loss_curve_, *model.transform(X[:50], y[:50])]

    return fit


def _results(model, X, y, new):
    model.fit(X, y)
    names = ["embedding_", "labels_", "loss_curve_", "coef_", "prototypes_", "kl_per_sample_", "cluster_centers_"]
    found = [getattr(model, name) for name in names if hasattr(model, name)]
    rows = X if new is None else new
    for answer in ("transform", "predict_proba"):
        if hasattr(model, answer):
            found.append(getattr(model, answer)(rows))
    return found


_VIEWS = sup.PositivePairs(jittered)
_HEAD = encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP((16,))))
FITS = {
    "map dense": embedding(DIGITS[:400], new=DIGITS[400:420], max_iter=120),
    "map float32": embedding(DIGITS[:400].astype(np.float32), new=DIGITS[400:420].astype(np.float32), max_iter=80),
    "map sparse p": embedding(BLOBS[:2500], new=BLOBS[2500:2520], max_iter=60),
    "map grid": embedding(BLOBS, new=BLOBS[:20] + 0.01, max_iter=60),
    "map grid gaussian": embedding(BLOBS, learned="gaussian", max_iter=60),
    "map grid conditional": embedding(BLOBS, normalization="conditional", max_iter=40),
    "map 1-D": embedding(BLOBS, n_components=1, max_iter=40),
    "map 3-D": embedding(DIGITS[:600], n_components=3, max_iter=60),
    "map sampled": embedding(DIGITS[:600], method="sampled", max_iter=40),
    "map learned df": embedding(DIGITS[:400], learned=learned.StudentT(df="learn"), max_iter=80),
    "map total variation": embedding(DIGITS[:300], divergence="total_variation", max_iter=80),
    "map jensen-shannon debiased": embedding(DIGITS[:300], divergence="jensen_shannon", debias=0.1, max_iter=60),
    "map knn": embedding(BLOBS[:2500], supervisory="knn", max_iter=60),
    "map walks": embedding(IRIS, supervisory=sup.RandomWalk(sup.UniformKNN(5), 3), max_iter=60),
    "map companions": embedding(IRIS, y=IRIS**2, supervisory=sup.Gaussian(source="y"), max_iter=60),
    "map classes": embedding(IRIS, y=SPECIES, supervisory="same_class", max_iter=60),
    "map partly labelled": embedding(
        IRIS,
        y=np.where(np.arange(150) % 3, -1, SPECIES),
        supervisory=sup.SameClass(unlabelled=sup.Gaussian(10)),
        max_iter=60,
    ),
    "map linear": embedding(DIGITS[:400], new=DIGITS[400:420], encoder="linear", max_iter=30),
    "map pca": lambda: _method("pca", IRIS),
    "map mlp": embedding(DIGITS[:400], new=DIGITS[400:420], encoder="mlp", max_iter=30),
    "map mlp batches": embedding(WIDE, encoder="mlp", max_iter=20),
    "views": embedding(DIGITS[:300], supervisory=_VIEWS, encoder=_HEAD, learned=COSINE, n_components=8, max_iter=20),
    "tokens": embedding(
        COUNTS, supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional", max_iter=30
    ),
    "tokens drawn": embedding(
        COUNTS,
        supervisory="counts",
        learned=learned.Gaussian(metric="dot"),
        normalization="conditional",
        method="sampled",
        max_iter=30,
    ),
    "clusters": clusters(DIGITS[:600], 10, new=DIGITS[600:650]),
    "clusters batches": clusters(BLOBS, 7, max_iter=60),
    "clusters lookup": clusters(DIGITS[:400], 10, encoder="lookup", max_iter=60, new=DIGITS[400:420]),
    "clusters mlp": clusters(DIGITS[:400], 10, encoder=encoders.MLP((16,)), max_iter=60),
    "clusters total variation": clusters(DIGITS[:400], 10, divergence="total_variation", max_iter=60),
    "clusters momentum": clusters(DIGITS[:400], 10, encoder=encoders.MomentumKeys(encoders.MLP((16,))), max_iter=60),
    "clusters views": clusters(DIGITS[:300], 5, supervisory=_VIEWS, encoder=encoders.MLP((16,)), max_iter=40),
    "cuts": clusters(DIGITS[:400], 10, encoder="lookup", debias=1, new=DIGITS[400:420]),
    "k-means": lambda: _method("k-means", IRIS, n_clusters=3),
    "spectral": lambda: _method("spectral clustering", IRIS, n_clusters=3),
    "soft k-means": clusters(
        IRIS, 3, encoder="lookup", divergence="reverse_kl", debias=0, supervisory=sup.Gaussian(sigma=1.0), max_iter=60
    ),
    "classes": classes(DIGITS[:600], LABELS[:600], new=DIGITS[600:650]),
    "classes two": classes(IRIS[:100], SPECIES[:100], C=0.1),
    "classes sparse": classes(sparse.csr_array(DIGITS[:400]), LABELS[:400]),
    "classes mlp": classes(DIGITS[:600], LABELS[:600], encoder="mlp", early_stopping=True),
    "classes student": classes(DIGITS[:400], LABELS[:400], learned="student_t"),
    "classes harmonic": classes(DIGITS[:400], LABELS[:400], learned="harmonic", debias=0.1),
    "classes cosine": classes(DIGITS[:400], LABELS[:400], learned=learned.Gaussian(metric="cosine", tau="learn")),
    "classes contrast": classes(DIGITS[:400], LABELS[:400], supervisory="same_class", encoder=encoders.MLP((16,))),
    "classes propagated": classes(IRIS, np.where(np.arange(150) % 5, -1, SPECIES), supervisory="propagated_label"),
    "pairs": pairs(DIGITS[:400, :32], DIGITS[:400, 32:], max_iter=5),
    "pairs student": pairs(DIGITS[:400, :32], DIGITS[:400, 32:], learned="student_t", encoder="linear", max_iter=5),
    "pairs triplet": pairs(DIGITS[:400, :32], DIGITS[:400, 32:], learned="narrow_gaussian", max_iter=5),
}


def _method(name, X, **params):
    return _results(methods.get(name).make_estimator(random_state=0, **params), X, None, None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", help="names that hold this text")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    for name, fit in FITS.items():
        if options.only and options.only not in name:
            continue
        start = time.perf_counter()
        results = [np.ascontiguousarray(result) for result in fit()]
        digest = hashlib.sha256(b"".join(result.tobytes() for result in results)).hexdigest()[:16]
        norms = [float(np.linalg.norm(result.astype(float))) for result in results]
        found[name] = {"digest": digest, "norms": norms}
        print(f"{name:32} {digest} {time.perf_counter() - start:6.1f} s", flush=True)
    options.out.write_text(json.dumps(found, indent=1))
    if options.against:
        before = json.loads(options.against.read_text())
        moved = [name for name in found if found[name] != before.get(name, found[name])]
        print(f"{len(found)} fits, {len(moved)} moved: {moved}")
        sys.exit(bool(moved))


if __name__ == "__main__":
    main()
