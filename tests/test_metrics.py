import doctest
import itertools
import pickle
import subprocess
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist
from sklearn import manifold
from sklearn.cluster import DBSCAN, KMeans
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances, silhouette_score
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.naive_bayes import GaussianNB

from sklearn_icon import metrics
from sklearn_icon.metrics import (
    calibration_scorer,
    clustering_accuracy,
    clustering_accuracy_scorer,
    expected_calibration_error,
    knn_recall,
    knn_recall_scorer,
    random_triplet_accuracy,
    random_triplet_scorer,
    silhouette_scorer,
    trustworthiness,
    trustworthiness_scorer,
)

NEIGHBOR_SCORES = [knn_recall, trustworthiness]
MAP_SCORES = [*NEIGHBOR_SCORES, random_triplet_accuracy]
SCORERS = [getattr(metrics, name) for name in metrics.__all__ if name.endswith("_scorer")]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    return X, X[:, :2] + 0.3 * rng.normal(size=(60, 2))


def naive_neighbors(X, i, k, metric="euclidean"):
    distance = cdist(X[[i]], X, metric)[0]
    return sorted((j for j in range(len(X)) if j != i), key=lambda j: distance[j])[:k]


def naive_recall(X, Z, k, rows, metric="euclidean"):
    shares = [len(set(naive_neighbors(X, i, k, metric)) & set(naive_neighbors(Z, i, k))) / k for i in rows]
    return sum(shares) / len(shares)


def naive_trustworthiness(X, Z, k, rows, metric="euclidean"):
    n, excess = len(X), 0
    for i in rows:
        ranking = naive_neighbors(X, i, n - 1, metric)
        excess += sum(max(0, ranking.index(j) + 1 - k) for j in naive_neighbors(Z, i, k))
    return 1 - 2 / (len(rows) * k * (2 * n - 3 * k - 1)) * excess


def naive_calibration_error(y, prob, n_bins, labels):
    error = 0
    for b in range(n_bins):
        low, high = np.linspace(0, 1, n_bins + 1)[[b, b + 1]]
        inside = [i for i in range(len(y)) if low < max(prob[i]) <= high]
        if inside:
            accuracy = np.mean([labels[np.argmax(prob[i])] == y[i] for i in inside])
            error += len(inside) / len(y) * abs(accuracy - np.mean([max(prob[i]) for i in inside]))
    return error


# --- clustering accuracy ----------------------------------------


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(3, 3), (2, 4), (4, 2), (1, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_clustering_accuracy_is_the_best_over_all_matchings(n_classes, n_clusters, weighted):
    rng = np.random.default_rng(n_classes)
    y, c = rng.integers(n_classes, size=40), rng.integers(n_clusters, size=40)
    weight = rng.uniform(size=40) if weighted else np.ones(40)
    size = max(n_classes, n_clusters)
    best = max(weight[np.array(p)[c] == y].sum() / weight.sum() for p in itertools.permutations(range(size)))
    assert_allclose(clustering_accuracy(y, c, sample_weight=weight if weighted else None), best)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40), st.randoms())
def test_clustering_accuracy_ignores_names_and_order(pairs, random):
    y, c = np.array(pairs).T
    score = clustering_accuracy(y, c)
    names = random.sample(["ash", "birch", "cedar", "elm", "fir"], 5)
    order = random.sample(range(len(y)), len(y))
    assert clustering_accuracy(y[order], np.array(names)[c[order]]) == score
    assert clustering_accuracy(c, y) == score
    assert 1 / 5 <= score <= 1
    assert clustering_accuracy(y, np.array(names)[y]) == 1


def test_integer_weight_equals_copies():
    y, c, weight = np.array([0, 0, 1, 1, 2]), np.array([1, 0, 0, 0, 2]), np.array([3, 1, 2, 0, 1])
    copies = clustering_accuracy(y.repeat(weight), c.repeat(weight))
    assert_allclose(clustering_accuracy(y, c, sample_weight=weight), copies)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "weight", "message"),
    [
        ([0, 1], [0, 1, 1], None, "inconsistent numbers of samples"),
        ([0, 1], [0, 1], [1.0], "inconsistent numbers of samples"),
        ([], [], None, "y_true is empty"),
        ([0, 1], [0, np.nan], None, "y_pred contains NaN"),
        (np.array(["a", np.nan], dtype=object), [0, 1], None, "contains NaN"),
        ([0, 1], [0.2, 0.8], None, "y_pred holds fractions such as 0.2"),
        ([0, 1], [0, 1], [1, -1], "pass weights >= 0"),
        ([0, 1], [0, 1], [0, 0], "positive sum"),
        ([[0, 1], [1, 0]], [0, 1], None, "1d array"),
    ],
)
def test_clustering_accuracy_refuses(y_true, y_pred, weight, message):
    with pytest.raises(ValueError, match=message):
        clustering_accuracy(y_true, y_pred, sample_weight=weight)


# --- neighbour scores ----------------------------------------


@pytest.mark.parametrize("k", [1, 5, 29])
@pytest.mark.parametrize("metric", ["euclidean", "cityblock", "cosine"])
@pytest.mark.parametrize(("score", "naive"), [(knn_recall, naive_recall), (trustworthiness, naive_trustworthiness)])
def test_neighbor_scores_equal_naive_loops(score, naive, metric, k, data):
    X, Z = data
    assert_allclose(score(X, Z, n_neighbors=k, metric=metric), naive(X, Z, k, range(60), metric))
    D = pairwise_distances(X, metric=metric)
    assert_allclose(score(D, Z, n_neighbors=k, metric="precomputed"), naive(X, Z, k, range(60), metric))


@pytest.mark.parametrize(("score", "naive"), [(knn_recall, naive_recall), (trustworthiness, naive_trustworthiness)])
def test_neighbor_scores_of_probes_compare_them_with_all_rows(score, naive, data, monkeypatch):
    X, Z = data
    rows = metrics._probes(60, 20, 3)
    assert len(set(rows)) == 20
    whole = score(X, Z, n_neighbors=4, n_probes=20, random_state=3)
    assert_allclose(whole, naive(X, Z, 4, rows))
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", 8 * 60 * 7)  # blocks of seven rows
    assert_allclose(score(X, Z, n_neighbors=4, n_probes=20, random_state=3, n_jobs=2), whole)
    assert score(X, Z, n_probes=20, random_state=1) != score(X, Z, n_probes=20, random_state=2)
    assert score(X, Z, n_probes=20) == score(X, Z, n_probes=20, random_state=0)
    assert score(X, Z, n_probes=60) == score(X, Z, n_probes=None)


@pytest.mark.parametrize("load", [load_iris, load_digits], ids=["duplicates", "ties"])
@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_trustworthiness_is_that_of_scikit_learn(load, k, metric):
    X = load().data
    Z = PCA(2, random_state=0).fit_transform(X)
    theirs = manifold.trustworthiness(X, Z, n_neighbors=k, metric=metric)
    assert trustworthiness(X, Z, n_neighbors=k, metric=metric) == pytest.approx(theirs, rel=0, abs=1e-15)


@pytest.mark.parametrize("score", MAP_SCORES)
def test_map_scores_take_sparse_data_and_any_float_type(score, data):
    X, Z = data
    X = np.where(X > 0, X, 0)
    assert_allclose(score(csr_matrix(X), Z), score(X, Z))
    assert score(X.astype(np.float32), Z.astype(np.float32)) == pytest.approx(score(X, Z), abs=0.02)
    assert type(score(X, Z)) is float


@pytest.mark.parametrize("score", MAP_SCORES)
def test_map_scores_know_a_perfect_map_and_a_random_one(score, data):
    X, _ = data
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    assert score(X, 3 * X @ rotation + 1) == 1
    noise = np.random.default_rng(2).normal(size=(60, 2))
    chance = {knn_recall: 10 / 59, trustworthiness: 0.5, random_triplet_accuracy: 0.5}[score]
    assert score(X, noise) == pytest.approx(chance, abs=0.1)


def test_knn_recall_leaves_out_each_row_among_its_duplicates():
    X = np.repeat([[0.0, 0.0], [9.0, 9.0]], 8, axis=0)
    near = metrics._neighbors(X, np.arange(16), 3, "euclidean", None)
    assert not np.any(near == np.arange(16)[:, None])
    assert_array_equal(near // 8, np.arange(16)[:, None] // 8 * np.ones((1, 3)))


def test_trustworthiness_holds_blocks_only(monkeypatch):
    X = np.random.default_rng(0).normal(size=(3000, 4))
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", 2**20)
    tracemalloc.start()
    score = trustworthiness(X, X[:, :2], n_probes=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23 < 3000**2
    assert score == pytest.approx(trustworthiness(X, X[:, :2], n_probes=1000), abs=0.02)


def test_random_triplets_are_uniform_over_different_rows():
    triplets = np.array(metrics._triplets(4, 24_000, np.random.RandomState(0)))
    found, counts = np.unique(triplets, axis=1, return_counts=True)
    assert set(map(tuple, found.T.tolist())) == set(itertools.permutations(range(4), 3))
    assert_allclose(counts, 1000, rtol=0.15)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_random_triplet_accuracy_estimates_that_of_all_triplets(metric, data, monkeypatch):
    X, Z = data
    dx, dz = cdist(X, X, metric), cdist(Z, Z)
    every = np.mean(
        [(dx[i, j] < dx[i, k]) == (dz[i, j] < dz[i, k]) for i, j, k in itertools.permutations(range(60), 3)]
    )
    estimate = random_triplet_accuracy(X, Z, n_triplets=40_000, metric=metric)
    assert estimate == pytest.approx(every, abs=0.01)
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", 32 * 5 * 999)
    assert random_triplet_accuracy(X, Z, n_triplets=40_000, metric=metric) == estimate
    default = random_triplet_accuracy(X, Z, metric=metric)
    assert default == random_triplet_accuracy(X, Z, n_triplets=300, random_state=0, metric=metric)
    assert default != random_triplet_accuracy(X, Z, random_state=1, metric=metric)


@pytest.mark.parametrize("score", MAP_SCORES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, Z: (X[1:], Z), "X has 59 rows and Z has 60; pass the map"),
        (lambda X, Z: (np.where(X > 2, np.nan, X), Z), "X contains NaN"),
        (lambda X, Z: (X, np.where(Z > 1, np.inf, Z)), "Z contains infinity"),
        (lambda X, Z: (X, Z[:, 0]), "Expected 2D array"),
        (lambda X, Z: (X[:2], Z[:2]), r"(n_neighbors|at least 3 rows)"),
    ],
)
def test_map_scores_refuse_data(score, change, message, data):
    with pytest.raises(ValueError, match=message):
        score(*change(*data))


@pytest.mark.parametrize(
    ("score", "kwargs", "error", "message"),
    [
        (knn_recall, {"n_neighbors": 60}, ValueError, "n_neighbors=60 needs at least 61 rows, got 60"),
        (knn_recall, {"n_neighbors": 0}, ValueError, "n_neighbors == 0, must be >= 1"),
        (knn_recall, {"n_probes": 0}, ValueError, "n_probes == 0"),
        (knn_recall, {"metric": "precomputed"}, ValueError, r"shape \(60, 5\).*square matrix"),
        (trustworthiness, {"n_neighbors": 30}, ValueError, r"n_neighbors \(30\) should be less than"),
        (trustworthiness, {"n_neighbors": 2.5}, TypeError, "n_neighbors must be an instance of"),
        (random_triplet_accuracy, {"n_triplets": 0}, ValueError, "n_triplets == 0"),
        (random_triplet_accuracy, {"metric": "precomputed"}, ValueError, "not supported here"),
    ],
)
def test_map_scores_refuse_parameters(score, kwargs, error, message, data):
    with pytest.raises(error, match=message):
        score(*data, **kwargs)


# --- calibration ----------------------------------------


@pytest.mark.parametrize("n_bins", [1, 7, 15])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_calibration_error_equals_a_naive_loop(n_bins, dtype):
    rng = np.random.default_rng(0)
    labels = np.array(["cat", "dog", "eel", "fly"])
    y, prob = rng.choice(labels, 200), rng.dirichlet(np.full(4, 0.3), 200).astype(dtype)
    wanted = naive_calibration_error(y, prob, n_bins, labels)
    assert_allclose(expected_calibration_error(y, prob, n_bins=n_bins), wanted, rtol=1e-6)
    shuffled = [2, 0, 3, 1]
    given = expected_calibration_error(y, prob[:, shuffled], n_bins=n_bins, labels=labels[shuffled])
    assert_allclose(given, wanted, rtol=1e-6)


def test_calibration_error_bins_close_on_the_right():
    prob_true, prob_pred, counts = metrics._reliability_bins([0, 1, 1], [0.0, 0.5, 0.75], 4, None)
    assert_array_equal(counts, [0, 1, 1, 1])
    assert_array_equal(prob_true, [np.nan, 0, 1, 1])
    assert_array_equal(prob_pred, [np.nan, 0.5, 0.75, 1])


def test_calibration_error_of_one_column_is_that_of_two():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=100)
    y = np.where(rng.uniform(size=100) < p**2, "yes", "no")
    two = expected_calibration_error(y, np.column_stack([1 - p, p]))
    assert_allclose(expected_calibration_error(y, p), two)
    assert two > 0.05


def test_calibration_error_is_small_where_probabilities_are_true():
    rng = np.random.default_rng(0)
    prob = rng.dirichlet(np.ones(3), 20_000)
    y = (prob.cumsum(axis=1) < rng.uniform(size=(20_000, 1))).sum(axis=1)
    assert expected_calibration_error(y, prob) < 0.015
    sharpened = prob**4 / (prob**4).sum(axis=1, keepdims=True)
    assert expected_calibration_error(y, sharpened) > 0.1


@pytest.mark.parametrize(
    ("y", "prob", "labels", "message"),
    [
        ([0, 1], np.full((2, 3), 1 / 3), None, "3 columns for the 2 distinct values of y_true; pass labels"),
        ([0, 1], np.full((2, 3), 1 / 3), [0, 1], "2 distinct values of labels"),
        ([0, 1], np.full((2, 2), 0.5), [0, 0], "1 distinct values of labels"),
        ([1, 1], [0.2, 0.3], None, "2 columns for the 1 distinct"),
        ([0, 5], np.full((2, 2), 0.5), [0, 1], "y_true holds .*5.*, which is not in labels"),
        ([0, 1], [[2.0, -1.0], [0.5, 0.5]], None, r"spans \[-1.0, 2.0\]; pass probabilities"),
        ([0, 1], [[0.2, 0.2], [0.5, 0.5]], None, "do not sum to one"),
        ([0, 1], [[np.nan, 0.2], [0.5, 0.5]], None, "y_prob contains NaN"),
        ([0, 1, 1], np.full((2, 2), 0.5), None, "inconsistent numbers of samples"),
        ([0.5, 1], np.full((2, 2), 0.5), None, "y_true holds fractions"),
    ],
)
def test_calibration_error_refuses(y, prob, labels, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(y, prob, labels=labels)


# --- scorers ----------------------------------------


def test_scorers_are_their_functions():
    X, y = load_iris(return_X_y=True)
    pca, kmeans = PCA(2).fit(X), KMeans(3, n_init=1, random_state=0).fit(X)
    bayes = GaussianNB().fit(X, y)
    assert knn_recall_scorer(pca, X) == knn_recall(X, pca.transform(X))
    assert trustworthiness_scorer(pca, X, y, n_neighbors=7) == trustworthiness(X, pca.transform(X), n_neighbors=7)
    assert random_triplet_scorer(pca, X) == random_triplet_accuracy(X, pca.transform(X))
    assert clustering_accuracy_scorer(kmeans, X, y) == clustering_accuracy(y, kmeans.predict(X))
    assert_allclose(silhouette_scorer(kmeans, X), silhouette_score(X, kmeans.labels_))
    assert calibration_scorer(bayes, X, y) == -expected_calibration_error(y, bayes.predict_proba(X))
    assert len(SCORERS) == 6


@pytest.mark.parametrize("scorer", SCORERS)
def test_scorers_survive_pickling(scorer):
    X, y = load_iris(return_X_y=True)
    model = KMeans(3, n_init=1, random_state=0).fit(X)
    model = GaussianNB().fit(X, y) if scorer is calibration_scorer else model
    assert pickle.loads(pickle.dumps(scorer))(model, X, y) == scorer(model, X, y)


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize(
    ("estimator", "grid", "scoring", "best"),
    [
        (PCA(random_state=0), {"n_components": [1, 2, 3]}, knn_recall_scorer, 3),
        (PCA(random_state=0), {"n_components": [1, 2, 3]}, partial(trustworthiness_scorer, n_neighbors=3), 3),
        (PCA(random_state=0), {"n_components": [1, 2, 3]}, random_triplet_scorer, 3),
        (KMeans(n_init=3, random_state=0), {"n_clusters": [1, 2, 4, 7]}, silhouette_scorer, 4),
        (KMeans(n_init=3, random_state=0), {"n_clusters": [2, 4, 7]}, clustering_accuracy_scorer, 4),
        (GaussianNB(), {"var_smoothing": [1e-9, 1e3]}, calibration_scorer, 1e-9),
    ],
)
def test_scorers_choose_in_a_grid_search(estimator, grid, scoring, best, n_jobs):
    X, y = make_blobs(160, n_features=4, centers=4, cluster_std=1.0, random_state=1)
    search = GridSearchCV(estimator, grid, scoring=scoring, cv=3, n_jobs=n_jobs, error_score="raise")
    search.fit(X, y)
    assert search.best_params_ == {next(iter(grid)): best}


def test_scorers_need_no_y_and_combine():
    X, _ = load_iris(return_X_y=True)
    assert cross_val_score(PCA(2), X, scoring=knn_recall_scorer, cv=3, error_score="raise").min() > 0.5
    scoring = {"recall": knn_recall_scorer, "triplets": random_triplet_scorer}
    scores = cross_validate(PCA(2), X, scoring=scoring, cv=3, error_score="raise")
    assert scores["test_triplets"].min() > scores["test_recall"].min() > 0.5


def test_silhouette_scorer_samples_and_gives_the_worst_score_to_no_clustering():
    X, _ = make_blobs(200, centers=3, random_state=0)
    kmeans = KMeans(3, n_init=1, random_state=0).fit(X)
    rows = metrics._probes(200, 50, 0)
    wanted = silhouette_score(X[rows], kmeans.predict(X[rows]))
    assert_allclose(silhouette_scorer(kmeans, X, sample_size=50), wanted)
    assert silhouette_scorer(KMeans(1, n_init=1).fit(X), X) == -1.0
    assert silhouette_scorer(KMeans(5, n_init=1, random_state=0).fit(X[:5]), X[:5]) == -1.0


def test_scorers_say_which_method_is_missing():
    X, _ = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match="needs an estimator with transform; LogisticRegression has none"):
        knn_recall_scorer(LogisticRegression(), X)
    with pytest.raises(TypeError, match="needs an estimator with predict; DBSCAN has none"):
        silhouette_scorer(DBSCAN().fit(X), X)


# --- the module ----------------------------------------


def test_docstring_examples():
    result = doctest.testmod(metrics)
    assert result.failed == 0
    assert result.attempted >= 20


@pytest.mark.parametrize("module", ["metrics", "plotting"])
def test_import_is_light(module):
    code = f"import sys, sklearn_icon.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numba", "pynndescent", "matplotlib"} & set(loaded.split())
    assert f"sklearn_icon.{module}" in loaded.split()
