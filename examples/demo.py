"""The three estimators next to scikit-learn's own on the digits data: one table, three pictures.

Seconds are those of `fit` alone, once, in this process; for the first estimator of each library they
include whatever `fit` imports. `benchmarks/first_fit.py` measures whole fresh processes.
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import train_test_split

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding
from sklearn_icon.metrics import clustering_accuracy, trustworthiness
from sklearn_icon.plotting import EmbeddingDisplay, LossCurveDisplay, ReliabilityDisplay


def fit_timed(estimator, X, y=None):
    """Fit and return the seconds it took."""
    start = time.perf_counter()
    estimator.fit(X, y)
    return time.perf_counter() - start


def label(estimator):
    """The class, and the device where the estimator says which one it used."""
    device = getattr(estimator, "device_", None)
    return type(estimator).__name__ + (f" ({device})" if device else "")


def compare(X, y):
    """Fit all six estimators; return the table's rows and our three, fitted, with the test split."""
    rows = []
    embedding = ICONEmbedding(random_state=0)
    clustering = ICONClustering(10, random_state=0)
    classifier = ICONClassifier(random_state=0)
    for est in (TSNE(random_state=0), embedding):
        seconds = fit_timed(est, X)
        value = trustworthiness(X, est.embedding_, n_neighbors=12)
        rows.append(("map", label(est), "trustworthiness@12", value, seconds))
    for est in (KMeans(10, n_init=10, random_state=0), clustering):
        seconds = fit_timed(est, X)
        value = clustering_accuracy(y, est.labels_)
        rows.append(("cluster", label(est), "clustering accuracy", value, seconds))
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    for est in (LogisticRegression(), classifier):
        seconds = fit_timed(est, X_train, y_train)
        rows.append(("classify", label(est), "test accuracy", est.score(X_test, y_test), seconds))
    return rows, (embedding, clustering, classifier), (X_test, y_test)


def print_table(rows):
    """Print the comparison in aligned columns."""
    print(f"{'task':<9} {'estimator':<22} {'metric':<20} {'value':>6} {'seconds':>8}")
    for task, name, metric, value, seconds in rows:
        print(f"{task:<9} {name:<22} {metric:<20} {value:6.3f} {seconds:8.2f}")


def save(fig, path):
    """Write one picture and say where it lies."""
    fig.savefig(path, dpi=150)
    plt.close(fig)
    print(f"wrote {path}")


def draw(X, y, estimators, test, output):
    """Write the map, the loss curves and the classifier's reliability into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    embedding, _, classifier = estimators

    fig, ax = plt.subplots(figsize=(6, 6), layout="constrained")
    EmbeddingDisplay.from_estimator(embedding, X, y=y, ax=ax)
    ax.set_title("ICONEmbedding() of the digits")
    save(fig, output / "map.png")

    fig, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    for est, ax in zip(estimators, axes, strict=True):
        LossCurveDisplay.from_estimator(est, ax=ax)
    save(fig, output / "loss_curves.png")

    fig, ax = plt.subplots(figsize=(5, 5), layout="constrained")
    ReliabilityDisplay.from_estimator(classifier, *test, ax=ax)
    ax.set_title("ICONClassifier() on held-out digits")
    save(fig, output / "reliability.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the pictures")
    args = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X = X / 16.0  # pixels run from 0 to 16
    print(f"digits: {X.shape[0]} images of {X.shape[1]} pixels, 10 classes\n")
    rows, estimators, test = compare(X, y)
    print_table(rows)
    print()
    draw(X, y, estimators, test, args.output)


if __name__ == "__main__":
    main()
