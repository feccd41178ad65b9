"""Kernel choices as hyperparameters: pipelines, grids, two workers."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, metrics, supervisory

X, y = load_iris(return_X_y=True)


def test_kernels_of_an_embedding_before_a_classifier():
    embedding = ICONEmbedding(supervisory=supervisory.Gaussian(perplexity=10), max_iter=60, random_state=0)
    grid = [
        {"iconembedding__learned": ["gaussian", "student_t"], "iconembedding__supervisory__perplexity": [5, 20]},
        {"iconembedding__supervisory": ["knn", "gaussian"], "iconembedding__perplexity": [15]},
    ]
    pipeline = make_pipeline(StandardScaler(), embedding, KNeighborsClassifier())
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    results = search.cv_results_
    assert len(results["params"]) == 6
    assert search.best_score_ > 0.9
    # Every choice reaches the fit: no two candidates give the same folds but by the same map.
    folds = np.column_stack([results[f"split{k}_test_score"] for k in range(2)])
    assert len(np.unique(folds, axis=0)) > 1


def test_clusterings_by_an_unsupervised_score():
    grid = {"n_clusters": [2, 3], "supervisory": ["knn", "gaussian"], "debias": [0.0, 0.6]}
    search = GridSearchCV(
        ICONClustering(n_init=1, max_iter=20, random_state=0),
        grid,
        scoring=metrics.silhouette_scorer,
        cv=KFold(2, shuffle=True, random_state=0),
        n_jobs=2,
        error_score="raise",
    ).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["n_clusters"] == 2  # two groups are what iris shows without labels


def test_clusterings_by_their_own_score():
    search = GridSearchCV(
        ICONClustering(3, n_init=1, max_iter=20, random_state=0), {"n_neighbors": [5, 10]}, cv=2, error_score="raise"
    )
    assert np.isfinite(search.fit(X).cv_results_["mean_test_score"]).all()


def test_losses_of_a_classifier():
    grid = {"learned": ["gaussian", "student_t"], "debias": [0.0, 0.1]}
    classifier = make_pipeline(StandardScaler(), ICONClassifier(C=0.1, random_state=0, max_iter=1000))
    names = {f"iconclassifier__{name}": values for name, values in grid.items()}
    search = GridSearchCV(classifier, names, cv=3, n_jobs=2, error_score="raise").fit(X, y)
    assert search.cv_results_["mean_test_score"].min() > 0.85


@pytest.mark.parametrize("value", [5, 12])
def test_nested_parameters_survive_clone_and_reach_the_fitted_spec(value):
    estimator = clone(ICONEmbedding(supervisory=supervisory.Gaussian(), max_iter=10))
    estimator.set_params(supervisory__perplexity=value).fit(X)
    assert estimator.supervisory_.perplexity == value
    assert estimator.supervisory_ is not estimator.supervisory
