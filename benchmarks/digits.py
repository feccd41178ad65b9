"""Quality on the digits, side by side in one run: each estimator at its defaults next to scikit-learn's.

Maps against TSNE(method="exact"): final KL and trustworthiness at 12 neighbours. Clusterings against KMeans and
SpectralClustering: Hungarian accuracy. Classifiers against LogisticRegression: accuracy on a quarter held out.
"""

import argparse
import json
from pathlib import Path

from _fresh import machine
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE, trustworthiness
from sklearn.model_selection import train_test_split

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding
from sklearn_icon.metrics import clustering_accuracy


def maps(X, seed):
    """KL and trustworthiness of both maps."""
    for estimator in (TSNE(method="exact", random_state=seed), ICONEmbedding(random_state=seed)):
        estimator.fit(X)
        name = type(estimator).__name__
        yield f"{name} KL", float(estimator.kl_divergence_)
        yield f"{name} trustworthiness@12", float(trustworthiness(X, estimator.embedding_, n_neighbors=12))


def clusterings(X, y, seed):
    """Accuracy of three clusterings."""
    for estimator in (
        KMeans(10, n_init=10, random_state=seed),
        SpectralClustering(10, affinity="nearest_neighbors", random_state=seed),
        ICONClustering(10, random_state=seed),
    ):
        yield f"{type(estimator).__name__} accuracy", float(clustering_accuracy(y, estimator.fit_predict(X)))


def classifiers(X, y, seed):
    """Accuracy on a quarter held out, pixels scaled to [0, 1]."""
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=seed)
    for estimator in (LogisticRegression(), ICONClassifier(random_state=seed)):
        yield f"{type(estimator).__name__} accuracy", float(estimator.fit(X_train, y_train).score(X_test, y_test))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="random states 0, 1, ... (default 3)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    figures: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        for part in (maps(X, seed), clusterings(X, y, seed), classifiers(X, y, seed)):
            for name, value in part:
                figures.setdefault(name, []).append(value)
    for name, values in figures.items():
        print(f"{name:<40}" + "".join(f"{value:9.4f}" for value in values))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
