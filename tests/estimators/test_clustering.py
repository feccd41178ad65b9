"""`ICONClustering`: peers on digits, memberships, numbering, inputs, and that parameters reach the solver."""

import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine, make_blobs, make_circles, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, homogeneity_score, pairwise_distances
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import normalize
from solver_settings import settings_of

from sklearn_icon import ICONClustering, encoders, learned, methods, supervisory
from sklearn_icon._clusters import local_search as _search
from sklearn_icon._clusters import models as _memberships
from sklearn_icon._clusters import partition_loss as _partition_loss
from sklearn_icon._objective.batches import batch_conditional
from sklearn_icon._objective.loss import Loss
from sklearn_icon._objective.objective import Objective
from sklearn_icon._optim import train as _train
from sklearn_icon._optim.solver import SolverResult
from sklearn_icon._optim.train import Run
from sklearn_icon.metrics import clustering_accuracy

DOUBLE = Run(torch.float64, torch.device("cpu"))
X, y = load_iris(return_X_y=True)
QUICK = {"max_iter": 100, "n_init": 1, "random_state": 0}
FITTED = {
    "chosen": ICONClustering(3, random_state=0),
    "linear": ICONClustering(3, encoder="linear", **QUICK),
    "lookup": ICONClustering(3, encoder="lookup", **QUICK),
    "mlp": ICONClustering(3, encoder=encoders.MLP(hidden=(8,)), **QUICK),
    "no debias": ICONClustering(3, debias=0.0, supervisory="knn", **QUICK),
}
each = pytest.mark.parametrize("name", FITTED)


@cache
def fitted(name):
    """One fit for all tests that only read it."""
    return clone(FITTED[name]).fit(X)


def test_beats_its_peers_on_digits():
    rows, labels = load_digits(return_X_y=True)
    ours = clustering_accuracy(labels, ICONClustering(10, random_state=0).fit_predict(rows))
    k_means = clustering_accuracy(labels, KMeans(10, n_init=10, random_state=0).fit_predict(rows))
    spectral = SpectralClustering(10, affinity="nearest_neighbors", random_state=0).fit_predict(rows)
    assert ours > k_means
    assert ours > clustering_accuracy(labels, spectral) - 0.02


@each
def test_memberships_agree_with_labels(name):
    clusters = fitted(name)
    memberships = clusters.predict_proba(X)
    np.testing.assert_allclose(memberships.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(memberships.argmax(axis=1), clusters.labels_)
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)
    np.testing.assert_array_equal(clusters.transform(X), memberships)
    new = X[::7] + 0.01
    alone = np.concatenate([clusters.predict_proba(new[[i]]) for i in range(len(new))])
    np.testing.assert_allclose(alone, clusters.predict_proba(new), rtol=1e-9)


@each
def test_clusters_are_numbered_by_size(name):
    sizes = np.bincount(fitted(name).labels_)
    assert (np.diff(sizes) <= 0).all()


def test_ties_are_numbered_by_first_row():
    rows = np.vstack([np.full((20, 2), 9.0), np.zeros((20, 2)), np.full((20, 2), -9.0)])
    rows += np.random.RandomState(0).uniform(size=rows.shape)
    labels = ICONClustering(3, n_neighbors=5, random_state=0).fit_predict(rows)
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 20))


@each
def test_centers_and_inertia(name):
    clusters = fitted(name)
    memberships = clusters.predict_proba(X)
    centers = np.stack([np.average(X, axis=0, weights=column) for column in memberships.T])
    np.testing.assert_allclose(clusters.cluster_centers_, centers)
    inertia = sum(np.square(row - centers[label]).sum() for row, label in zip(X, clusters.labels_, strict=True))
    assert clusters.inertia_ == pytest.approx(inertia)


def test_the_start_with_the_lowest_loss_is_kept():
    losses = [
        ICONClustering(3, encoder="linear", n_init=1, max_iter=20, random_state=seed).fit(X).loss_ for seed in range(3)
    ]
    best = ICONClustering(3, encoder="linear", n_init=8, max_iter=20, random_state=0).fit(X).loss_
    assert best <= min(losses) + 0.01


@pytest.mark.parametrize("encoder", ["linear", "lookup", encoders.MLP(hidden=(8,))], ids=str)
def test_far_too_many_clusters_are_pruned(encoder):
    rows, labels = make_blobs(90, centers=[[0, 0], [9, 0], [0, 9]], cluster_std=0.5, random_state=0)
    clusters = ICONClustering(40, encoder=encoder, **QUICK)
    with pytest.warns(ConvergenceWarning, match=r"only \d+ of n_clusters=40 clusters are in use; .* Lower n_clusters"):
        clusters.fit(rows)
    assert 3 <= clusters.n_clusters_ < 40
    np.testing.assert_array_equal(np.unique(clusters.labels_), np.arange(clusters.n_clusters_))
    assert clusters.predict_proba(rows).shape == (90, clusters.n_clusters_)
    assert len(clusters.cluster_centers_) == clusters.n_clusters_
    assert homogeneity_score(labels, clusters.labels_) == pytest.approx(1)


def test_a_graph_knows_moons():
    rows, labels = make_moons(400, noise=0.05, random_state=0)
    clusters = ICONClustering(2, encoder="lookup", supervisory=supervisory.Graph(), random_state=0)
    graph = supervisory.UniformKNN(n_neighbors=10).conditional(rows).weights
    assert adjusted_rand_score(labels, clusters.fit_predict(graph)) > 0.95
    assert not hasattr(clusters, "cluster_centers_")
    np.testing.assert_array_equal(clusters.predict(graph[:50]), clusters.labels_[:50])


def test_distances_do_as_features():
    of_features = ICONClustering(3, encoder="lookup", **QUICK).fit(X)
    of_distances = ICONClustering(3, metric="precomputed", **QUICK).fit(pairwise_distances(X))
    assert adjusted_rand_score(of_features.labels_, of_distances.labels_) > 0.9


def test_labels_as_p():
    clusters = ICONClustering(3, supervisory="same_class", random_state=0).fit(X, y)
    assert clustering_accuracy(y, clusters.labels_) > 0.95


def test_sparse_rows_do_as_dense_ones():
    rows = X - X.min(axis=0)
    rows[rows < 0.3] = 0
    estimator = ICONClustering(3, **QUICK | {"n_init": 9})
    dense = clone(estimator).fit(rows)
    other = clone(estimator).fit(sparse.csr_matrix(rows))
    assert adjusted_rand_score(dense.labels_, other.labels_) > 0.9
    np.testing.assert_array_equal(other.predict(sparse.csr_array(rows)), other.labels_)


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_unchanged_and_memberships_keep_their_precision(name, dtype):
    rows = X.astype(dtype)
    clusters = clone(FITTED[name]).fit(rows)
    np.testing.assert_array_equal(rows, X.astype(dtype))
    assert clusters.predict_proba(rows).dtype == clusters.cluster_centers_.dtype == dtype


@each
def test_same_seed_same_bits_and_pickles(name):
    clusters = fitted(name)
    torch.manual_seed(5)
    again = pickle.loads(pickle.dumps(clone(FITTED[name]).fit(X)))
    np.testing.assert_array_equal(again.predict_proba(X + 0.05), clusters.predict_proba(X + 0.05))
    assert again.loss_ == clusters.loss_


def test_score_prefers_the_clusters_that_p_shows():
    good = ICONClustering(2, **QUICK).fit(X)
    shuffled = ICONClustering(2, **QUICK).fit(np.random.RandomState(0).permutation(X.ravel()).reshape(X.shape))
    assert good.score(X) > shuffled.score(X)


def test_debias_keeps_memberships_from_saturating():
    confidence = {
        a: ICONClustering(3, debias=a, random_state=0).fit(X).predict_proba(X).max(axis=1).mean() for a in (0, 0.6)
    }
    assert confidence[0.6] < confidence[0]


def test_frames():
    pandas = pytest.importorskip("pandas", reason="an extra of the tests")
    clusters = ICONClustering(3, **QUICK).set_output(transform="pandas").fit(pandas.DataFrame(X))
    assert list(clusters.transform(pandas.DataFrame(X)).columns) == [f"iconclustering{c}" for c in range(3)]


CHANGES = {
    "n_clusters": 4,
    "supervisory": "gaussian",
    "supervisory__n_steps": 3,
    "supervisory__binary": True,
    "supervisory__base__n_neighbors": 4,
    "encoder": "mlp",
    "divergence": "squared_hellinger",
    "debias": 0.2,
    "max_iter": 21,
    "batch_size": 40,
    "learning_rate": 0.2,
    "tol": 0.1,
    "n_init": 2,
    "random_state": 1,
}
BASE = ICONClustering(
    3,
    supervisory=supervisory.RandomWalk(supervisory.UniformKNN(8), n_steps=2),
    learned=learned.SharedCluster(),
    **QUICK,
)


def what_the_solver_receives(monkeypatch, estimator):
    """The solver's options, with the value and the gradients of its objective at the start, of each start."""
    received = []

    def spy(objective, params, solver, *, max_iter, **_):
        value = objective()
        gradients = [gradient.numpy() for gradient in torch.autograd.grad(value, params)]
        received.append((settings_of(solver), max_iter, float(value.detach()), gradients))
        return SolverResult(0.0, 1, np.zeros(1), "completed")

    monkeypatch.setattr(_train, "minimize", spy)
    monkeypatch.setattr(_memberships, "_pretrain", lambda *_: SolverResult(0.0, 1, np.zeros(1), "completed"))
    estimator.fit(X)
    return repr(received)


@pytest.mark.filterwarnings("ignore:only .* clusters are in use")
@pytest.mark.parametrize(
    "base, parameter, value",
    [(BASE, *change) for change in CHANGES.items()]
    + [(clone(BASE).set_params(supervisory__binary=True), "learned__weights", "degree")]  # walks that reach unlike many
    + [(ICONClustering(3, encoder="linear", **QUICK), *change) for change in (("n_neighbors", 4), ("metric", "cosine"))]
    + [(ICONClustering(3, encoder="linear", metric="minkowski", **QUICK), "metric_params", {"p": 1.5})],
)
def test_every_parameter_reaches_the_solver(monkeypatch, base, parameter, value):
    before = what_the_solver_receives(monkeypatch, clone(base))
    assert what_the_solver_receives(monkeypatch, clone(base)) == before
    assert what_the_solver_receives(monkeypatch, clone(base).set_params(**{parameter: value})) != before


KINDS_OF_ROWS = {
    "iris": (load_iris().data, 3),
    "wine": (load_wine().data, 3),
    "digits": (load_digits().data, 10),
    "diabetes": (load_diabetes().data, 6),
    "unit rows": (normalize(load_wine().data), 3),
    "small blobs": (1e-4 * make_blobs(300, random_state=0)[0], 3),
}


@pytest.mark.parametrize("rows, n_clusters", list(KINDS_OF_ROWS.values()), ids=list(KINDS_OF_ROWS))
def test_k_means_row_has_the_inertia_of_k_means(rows, n_clusters):
    ours = methods.get("k-means").make_estimator(n_clusters=n_clusters, random_state=0).fit(rows)
    theirs = KMeans(n_clusters, n_init=10, random_state=0).fit(rows)
    assert ours.inertia_ <= 1.005 * theirs.inertia_
    assert ours.loss_ * len(rows) == pytest.approx(ours.inertia_, rel=1e-9)
    assert ours.score(rows) == pytest.approx(-ours.loss_, rel=1e-9)
    assert ours.predict_proba(rows).max(axis=1).min() > 0.99
    np.testing.assert_array_equal(ours.predict(rows), ours.labels_)
    assert ours.n_iter_ >= 1


def test_k_means_row_counts_weights_and_reads_sparse_rows():
    rows, weights = load_digits().data[:300], np.random.RandomState(0).randint(0, 3, 300)
    k_means = methods.get("k-means").make_estimator(n_clusters=5, random_state=0)
    dense, other = (clone(k_means).fit(kind(rows), sample_weight=weights) for kind in (np.array, sparse.csr_array))
    theirs = KMeans(5, n_init=10, random_state=0).fit(rows, sample_weight=weights)
    for ours in (dense, other):
        assert ours.inertia_ <= 1.005 * theirs.inertia_
        assert ours.loss_ == pytest.approx(ours.inertia_ / weights.sum(), rel=1e-9)
    assert other.score(sparse.csr_array(rows)) == pytest.approx(other.score(rows), rel=1e-9)


def test_k_means_row_holds_no_pairs(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pairs of rows")

    monkeypatch.setattr(supervisory.Gaussian, "log_rows_with_self", refuse)
    monkeypatch.setattr(supervisory.Gaussian, "conditional", refuse)
    rows = np.random.RandomState(0).normal(size=(25_000, 2))
    clusters = methods.get("k-means").make_estimator(n_clusters=2, n_init=1, random_state=0).fit(rows)
    assert np.isfinite(clusters.score(rows[:100] + 0.01))


@pytest.mark.parametrize("parameter, value", [("n_init", 10), ("max_iter", 1), ("tol", 0.5), ("random_state", 1)])
def test_parameters_reach_k_means(parameter, value):
    rows = load_digits().data
    k_means = methods.get("k-means").make_estimator(n_clusters=10, n_init=1, random_state=0)
    assert clone(k_means).set_params(**{parameter: value}).fit(rows).loss_ != k_means.fit(rows).loss_


def test_k_means_of_companions():
    wanted = methods.get("k-means").make_estimator(n_clusters=3, random_state=0).fit(X)
    clusters = clone(wanted).set_params(supervisory__source="y").fit(np.arange(150.0)[:, None], X)
    assert clusters.loss_ == wanted.loss_
    assert adjusted_rand_score(wanted.labels_, clusters.labels_) == 1


def test_k_means_is_euclidean():
    with pytest.raises(ValueError, match=r"sigma=0 with .* needs metric='euclidean', got 'cosine'; set sigma > 0"):
        methods.get("k-means").make_estimator(n_clusters=3, metric="cosine").fit(X)


def cut_of(graph, labels):
    """What leaves each cluster over the sum of its rows' degrees, a row's edge to itself not counted."""
    weights = graph.toarray() - np.diag(graph.diagonal())
    inside = [labels == c for c in np.unique(labels)]
    return sum(weights[np.ix_(c, ~c)].sum() / weights[c].sum() for c in inside)


def graph_of(rows, n_neighbors):
    graph = kneighbors_graph(rows, n_neighbors, include_self=True)
    return (graph + graph.T) / 2


GRAPHS = {
    "moons": (make_moons(300, noise=0.05, random_state=0)[0], 2),
    "circles": (make_circles(300, noise=0.03, factor=0.4, random_state=0)[0], 2),
    "digits": (load_digits().data, 10),
}
each_graph = pytest.mark.parametrize("rows, n_clusters", list(GRAPHS.values()), ids=list(GRAPHS))


@each_graph
@pytest.mark.filterwarnings("ignore:Graph is not fully connected")
def test_cut_row_has_the_partition_of_spectral_clustering(rows, n_clusters):
    graph = graph_of(rows, 10)
    theirs = SpectralClustering(n_clusters, affinity="precomputed", random_state=0).fit_predict(graph)
    ours = methods.get("ncut").make_estimator(n_clusters=n_clusters, random_state=0).fit(graph)
    assert ours.n_clusters_ == n_clusters
    assert ours.loss_ == pytest.approx(cut_of(graph, ours.labels_), abs=1e-12)
    assert ours.score(graph) == pytest.approx(-ours.loss_, abs=1e-12)
    assert ours.loss_ <= 1.01 * cut_of(graph, theirs) + 1e-12
    assert adjusted_rand_score(theirs, ours.labels_) >= 0.99


@each_graph
@pytest.mark.filterwarnings("ignore:Graph is not fully connected")
def test_spectral_row_has_the_partition_of_spectral_clustering(rows, n_clusters):
    spectral = methods.get("spectral").make_estimator(n_clusters=n_clusters, random_state=0)
    of_rows = clone(spectral).fit(rows)
    theirs = SpectralClustering(n_clusters, affinity="nearest_neighbors", random_state=0).fit_predict(rows)
    assert adjusted_rand_score(theirs, of_rows.labels_) >= 0.99
    graph = graph_of(rows, 10)
    theirs = SpectralClustering(n_clusters, affinity="precomputed", random_state=0).fit_predict(graph)
    graph.indices, graph.indptr = graph.indices.astype(np.int64), graph.indptr.astype(np.int64)
    of_graph = clone(spectral).fit(graph)
    assert adjusted_rand_score(theirs, of_graph.labels_) >= 0.99
    assert graph.indices.dtype == np.int64
    of_matrix = clone(spectral).set_params(supervisory__affinity="precomputed").fit(graph.toarray())
    assert adjusted_rand_score(theirs, of_matrix.labels_) >= 0.99
    assert [each.supervisory_.affinity for each in (of_rows, of_graph)] == ["nearest_neighbors", "precomputed"]
    assert hasattr(of_rows, "cluster_centers_")
    assert not hasattr(of_graph, "cluster_centers_")
    assert not hasattr(of_graph, "inertia_")
    for clusters, seen in ((of_rows, rows), (of_graph, graph), (of_matrix, graph.toarray())):
        np.testing.assert_array_equal(clusters.predict(seen), clusters.labels_)
        assert clusters.score(seen) == pytest.approx(-clusters.loss_, rel=1e-6, abs=1e-12)
    near = rows + 1e-3 * np.random.RandomState(0).normal(size=rows.shape)
    assert np.mean(of_rows.predict(near) == of_rows.labels_) > 0.98
    edges = kneighbors_graph(rows, 10, include_self=False)
    assert np.mean(of_graph.predict(edges) == of_graph.labels_) > 0.98
    np.testing.assert_allclose(of_graph.predict_proba(edges[:9]).sum(axis=1), 1)


def test_spectral_row_reads_sparse_rows_and_is_as_repeatable_as_its_seed():
    rows, n_clusters = GRAPHS["moons"]
    spectral = methods.get("spectral").make_estimator(n_clusters=n_clusters, random_state=3)
    first, again = clone(spectral).fit(rows), clone(spectral).fit(rows)
    np.testing.assert_array_equal(first.predict_proba(rows + 0.01), again.predict_proba(rows + 0.01))
    assert first.loss_ == again.loss_
    other = clone(spectral).fit(sparse.csr_array(rows))
    assert adjusted_rand_score(first.labels_, other.labels_) == 1
    assert spectral.supervisory.n_components is None
    assert clone(spectral).set_params(n_clusters=3).fit(rows).supervisory_.n_components == 3


def test_eigenvectors_under_other_losses():
    rows, groups = make_moons(300, noise=0.05, random_state=0)
    eigenvectors = supervisory.Spectral(supervisory.UniformKNN(), n_components=2)
    clusters = ICONClustering(2, supervisory=eigenvectors, encoder="lookup", random_state=0).fit(rows)
    assert adjusted_rand_score(groups, clusters.labels_) > 0.95
    np.testing.assert_array_equal(clusters.predict(rows), clusters.labels_)
    soft = methods.get("spectral").make_estimator(n_clusters=2, supervisory__base__sigma=0.01, random_state=0)
    assert adjusted_rand_score(groups, soft.fit_predict(rows)) > 0.95


def test_a_graph_of_features_is_asked_for():
    for name in ("ncut", "sne-graph"):
        with pytest.raises(
            ValueError, match=r"weights of a graph of the rows.*kneighbors_graph\(X, 10\), symmetrised: \(G \+ G.T\)"
        ):
            methods.get(name).make_estimator().fit(X)
    graph = graph_of(X, 10)
    spectral = methods.get("spectral").make_estimator(n_clusters=3, random_state=0).fit(graph)
    with pytest.raises(ValueError, match=r"Spectral\(\) needs a square matrix"):
        spectral.score(graph[:50])


def test_cross_validation_takes_rows_and_columns_of_a_graph():
    spectral = methods.get("spectral").make_estimator(n_clusters=2, supervisory__affinity="precomputed")
    assert spectral.__sklearn_tags__().input_tags.pairwise
    assert not methods.get("spectral").make_estimator().__sklearn_tags__().input_tags.pairwise


def test_a_row_without_edges_is_like_all():
    graph = graph_of(X, 10)
    for name in ("ncut", "spectral"):
        clusters = methods.get(name).make_estimator(n_clusters=3, random_state=0).fit(graph)
        found = clusters.predict_proba(sparse.csr_array((2, 150)))
        np.testing.assert_allclose(found, np.tile(clusters.predict_proba(graph).mean(axis=0), (2, 1)))
        np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize(
    "change", [{"metric": "precomputed"}, {"supervisory": supervisory.UniformKNN(5, "precomputed")}]
)
def test_distances_have_no_features_for_an_encoder(change):
    clusters = ICONClustering(3, **change, **QUICK).fit(pairwise_distances(X))
    assert isinstance(clusters.encoder_, encoders.Lookup)
    assert clusters.__sklearn_tags__().input_tags.pairwise


def test_a_weight_of_three_is_three_copies():
    weights = np.random.RandomState(0).randint(0, 4, len(X))
    soft = ICONClustering(
        3, supervisory=supervisory.Gaussian(sigma=1.5), divergence="reverse_kl", debias=0.0, encoder="lookup"
    )
    weighted = clone(soft).set_params(random_state=0).fit(X, sample_weight=weights)
    copied = clone(soft).set_params(random_state=0).fit(np.repeat(X, weights, axis=0))
    assert weighted.loss_ == pytest.approx(copied.loss_, abs=1e-6)
    assert weighted.inertia_ == pytest.approx(copied.inertia_, rel=1e-3)
    np.testing.assert_array_equal(np.repeat(weighted.labels_, weights), copied.labels_)
    np.testing.assert_allclose(weighted.cluster_centers_, copied.cluster_centers_, atol=1e-3)


def test_copies_of_a_graph_s_rows():
    rng = np.random.RandomState(0)
    graph, counts = rng.uniform(size=(7, 7)) * (rng.uniform(size=(7, 7)) < 0.6), np.array([3, 1, 2, 1, 1, 4, 1])
    graph = graph + graph.T
    np.fill_diagonal(graph, 0)
    p = supervisory.Graph().conditional(graph).mix(0.3)
    weighted, rows = p.with_copies(counts), np.repeat(np.arange(7), counts)
    copied = supervisory.Graph().conditional(graph[np.ix_(rows, rows)])
    np.testing.assert_allclose(weighted.degrees[rows], copied.degrees, rtol=1e-12)
    of_copies = np.stack([copied.weights.toarray()[:, rows == j].sum(axis=1) for j in range(7)], axis=1)
    np.testing.assert_allclose(weighted.weights.toarray()[rows], of_copies, rtol=1e-12)
    assert weighted.uniform == p.uniform == pytest.approx(0.3)
    assert weighted.exclude_self


def test_weights_of_one_change_no_p():
    estimator = ICONClustering(3, supervisory=supervisory.UniformMixture(supervisory.UniformKNN(), 0.4), **QUICK)
    estimator.set_params(learned=learned.SharedCluster(weights="degree"), debias=0.0)
    plain, weighted = clone(estimator).fit(X), clone(estimator).fit(X, sample_weight=np.ones(len(X)))
    assert weighted.loss_ == plain.loss_


def test_rows_without_weight_do_not_count():
    far = np.vstack([X, X[:20] + 100])
    weights = np.r_[np.ones(len(X)), np.zeros(20)]
    clusters = ICONClustering(3, **QUICK).fit(far, sample_weight=weights)
    assert np.abs(clusters.cluster_centers_).max() < np.abs(X).max()
    assert clusters.inertia_ < np.square(X - X.mean(axis=0)).sum()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"supervisory": "gaussian"}, "sigma=None"),
        ({"encoder": "linear"}, "needs encoder='lookup'"),
        ({"supervisory": "knn"}, "a p such as"),
        ({"debias": 0.3}, "no uniform mass"),
    ],
)
def test_reverse_kl_says_what_it_needs(change, message):
    soft = ICONClustering(3, supervisory=supervisory.Gaussian(sigma=1.0), divergence="reverse_kl", debias=0.0)
    with pytest.raises(ValueError, match=message):
        soft.set_params(**({"encoder": "lookup"} | change)).fit(X)


def test_cluster_masses_are_all_that_kl_needs():
    rng = torch.Generator().manual_seed(0)
    for of_p, of_q, weighted in ((0.0, 0.0, False), (0.6, 0.6, False), (0.3, 0.0, True), (0.5, 0.2, True)):
        logits = torch.randn(3, 4, 14, dtype=torch.float64, generator=rng).requires_grad_()
        degrees = torch.rand(14, dtype=torch.float64, generator=rng) if weighted else None
        kernel = learned.SharedCluster("degree" if weighted else None)
        objective = Objective(batch_conditional(7, exclude_self=False).mix(of_p), learned.UniformMixture(kernel, of_q))
        naive = torch.stack([objective(each.T[:7], each.T, degrees) for each in logits])
        (wanted,) = torch.autograd.grad(naive.sum(), logits)
        for rows in (None, logits[..., :7]):
            fast = _partition_loss.shared_cluster_kl(rows, logits, degrees, of_p, (of_q, kernel.tilt), np.arange(14))
            np.testing.assert_allclose(fast.detach(), naive.detach(), rtol=1e-12)
            np.testing.assert_allclose(torch.autograd.grad(fast.sum(), logits)[0], wanted, atol=1e-12)


@pytest.mark.parametrize("base", [encoders.Linear(), encoders.MLP(hidden=(8,))])
def test_keys_of_the_past(base):
    plain = ICONClustering(3, encoder=base, **QUICK).fit(X)
    behind = ICONClustering(3, encoder=encoders.MomentumKeys(base, momentum=0.9), **QUICK).fit(X)
    assert adjusted_rand_score(plain.labels_, behind.labels_) > 0.8
    assert behind.loss_ != plain.loss_
    np.testing.assert_array_equal(behind.predict(X), behind.labels_)


def test_an_orthonormal_map_is_one():
    rows, labels = make_blobs(90, centers=10 * np.eye(3, 5), random_state=0)  # apart by directions from zero
    clusters = ICONClustering(3, encoder=encoders.Linear(orthonormal=True), random_state=0, max_iter=60).fit(rows)
    assert adjusted_rand_score(labels, clusters.labels_) == 1
    np.testing.assert_array_equal(clusters.predict(rows), clusters.labels_)
    logits = np.log(clusters.predict_proba(rows))  # up to what all clusters share
    weights = np.linalg.lstsq(rows, logits - logits.mean(axis=1, keepdims=True), rcond=None)[0]
    np.testing.assert_allclose(weights.T @ weights, np.eye(3) - 1 / 3, atol=1e-9)


def test_averages_follow():
    models = _memberships._Lookups(None, 2, Run(torch.float32, torch.device("cpu"))).start([np.zeros(5, dtype=int)])
    models.params[0].requires_grad_(False)
    for momentum, expected in ((0.0, 1.0), (0.9, 0.1)):
        models.params[0].zero_()
        past = _memberships.Past(models, momentum)
        models.params[0].fill_(1)
        past.follow()
        np.testing.assert_allclose(past.averages.params[0], expected, rtol=1e-6)


@pytest.mark.parametrize("encoder", [encoders.Lookup(), encoders.Linear(), encoders.MLP(hidden=(8,))], ids=str)
def test_the_past_shares_the_rows(encoder):
    models = _memberships.build_models(encoder, X, 3, np.ones(len(X)), DOUBLE).start([y])
    past = _memberships.Past(models, 0.9)
    assert past.averages.X is models.X
    before = past(np.arange(4))
    with torch.no_grad():
        for param in models.params:
            param.add_(1)
    torch.testing.assert_close(past(np.arange(4)), before, rtol=0, atol=0)
    assert (models(np.arange(4)) != before).any()


@pytest.mark.parametrize("name", ["k-means", "t-k-means"])
def test_score_is_minus_the_loss_over_all_pairs(name):
    clusters = methods.get(name).make_estimator(n_clusters=3, supervisory__sigma=1.0, random_state=0).fit(X)
    assert clusters.score(X) == pytest.approx(-clusters.loss_, rel=1e-4)  # the rows' twins differ until averaged
    assert clusters.score(X) > clone(clusters).set_params(n_clusters=2).fit(X).score(X)
    assert np.isfinite(clusters.score(X[::5] + 0.01))


def test_a_device_is_not_ignored():
    clusters = methods.get("k-means").make_estimator(n_clusters=3, random_state=0)
    assert clusters.set_params(device="cpu").fit(X).device_ == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda' was asked for"):
            clusters.set_params(device="cuda").fit(X)


def test_heads_are_refused():
    with pytest.raises(ValueError, match="sets rows against each other"):
        ICONClustering(3, encoder=encoders.ProjectionHead(encoders.MLP())).fit(X)


# --- views --------------------------------------------------------------------------------------------------------


def signal_and_noise(seed=0):
    """Rows whose first two columns hold three groups, while six others vary more; the groups."""
    rng = np.random.RandomState(seed)
    groups = np.arange(240) % 3
    signal = np.array([[0, 0], [3, 0], [0, 3]])[groups] + 0.4 * rng.normal(size=(240, 2))
    return np.hstack([signal, 5 * rng.normal(size=(240, 6))]), groups


def other_noise(batch):
    """Rows that keep their first two columns and take the others of another row."""
    return torch.cat([batch[:, :2], batch[torch.randperm(len(batch)), 2:]], dim=1)


def shifted(images):
    return images.roll(int(torch.randint(-1, 2, ())), dims=-1) + 0.5 * torch.randn_like(images)


def cropped(images):
    return images[..., 1:-1]


def small_convolution(n_inputs, n_outputs):
    """A network that reads images of any size."""
    layers = [torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(3), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(72, n_outputs))


@pytest.mark.parametrize("encoder, n_views", [(encoders.Linear(), 2), (encoders.MLP(hidden=(16,)), 3)], ids=str)
def test_clusters_are_what_views_share(encoder, n_views):
    rows, groups = signal_and_noise()
    before = torch.get_rng_state()
    views = supervisory.PositivePairs(other_noise, n_views=n_views)
    rate = "auto" if isinstance(encoder, encoders.Linear) else 0.01
    clusters = ICONClustering(3, supervisory=views, encoder=encoder, learning_rate=rate, random_state=0).fit(rows)
    assert torch.equal(before, torch.get_rng_state())
    assert adjusted_rand_score(groups, clusters.labels_) > 0.9
    assert adjusted_rand_score(groups, KMeans(3, n_init=3, random_state=0).fit_predict(rows)) < 0.5
    np.testing.assert_array_equal(clusters.predict(rows), clusters.labels_)
    assert clusters.cluster_centers_.shape == (3, 8)
    more, their_groups = signal_and_noise(seed=1)
    assert adjusted_rand_score(their_groups, clusters.predict(more)) > 0.9
    if n_views == 2:
        assert clusters.score(rows) == pytest.approx(-clusters.loss_, abs=0.1)  # batches are of all items


@pytest.mark.parametrize(
    "encoder, augment",
    [
        (encoders.Linear(), shifted),
        (encoders.Module(small_convolution), shifted),
        (encoders.Module(small_convolution), cropped),
    ],
    ids=["linear", "convolution", "views of another size"],
)
def test_views_of_images(encoder, augment):
    images = load_digits().images[:300, None]
    estimator = ICONClustering(5, supervisory=supervisory.PositivePairs(augment), encoder=encoder, debias=0.5, **QUICK)
    clusters = clone(estimator).fit(images)
    memberships = clusters.predict_proba(images)
    assert clusters.n_features_in_ == 64
    assert memberships.shape == (300, clusters.n_clusters_)
    np.testing.assert_array_equal(memberships.argmax(axis=1), clusters.labels_)
    again = pickle.loads(pickle.dumps(clone(estimator).fit(images)))
    np.testing.assert_array_equal(again.predict_proba(images), memberships)
    assert np.isfinite(clusters.score(images))
    with pytest.raises(ValueError, match="was fitted on items of shape"):
        clusters.predict(images[:, 0])


def test_images_without_views():
    images = load_digits().images[:300]
    flat = ICONClustering(5, **QUICK).fit(images.reshape(300, -1))
    np.testing.assert_array_equal(ICONClustering(5, **QUICK).fit(images).labels_, flat.labels_)


def test_views_meet_keys_of_the_past_and_weights():
    rows, groups = signal_and_noise()
    behind = encoders.MomentumKeys(encoders.Linear(), momentum=0.5)
    clusters = ICONClustering(3, supervisory=supervisory.PositivePairs(other_noise), encoder=behind, random_state=0)
    weights = np.where(groups == 2, 0.0, 1.0)
    assert adjusted_rand_score(groups, clusters.fit_predict(rows)) > 0.9
    two = clone(clusters).set_params(n_clusters=2).fit(rows, sample_weight=weights)
    assert adjusted_rand_score(groups[groups < 2], two.labels_[groups < 2]) > 0.9


def test_batches_of_another_size():
    p = supervisory.UniformKNN(n_neighbors=5).conditional(X)
    loss = _partition_loss.PartitionLoss(p, 2, Loss(learned.SharedCluster()), 40, np.ones(len(X)), DOUBLE)
    for drawn, n in ((loss.of_batches(10), 10), (loss, 40)):
        rows, positives = drawn._draw(np.random.RandomState(0))
        assert len(rows) == len(positives) == n


@pytest.mark.parametrize(("divergence", "steps"), [("kl", 240), ("total_variation", 180)])
def test_curves_have_one_scale(divergence, steps):
    rows, _ = make_blobs(1500, centers=3, random_state=0)  # more than a batch of the rounds
    clusters = ICONClustering(3, encoder="linear", divergence=divergence, random_state=0).fit(rows)
    assert clusters.loss_curve_.shape == (clusters.n_iter_,) == (steps,)
    np.testing.assert_allclose(clusters.loss_curve_[20:], clusters.loss_, atol=0.05)


def test_loss_of_views_is_that_of_their_pairs():
    rows, _ = signal_and_noise()
    views = supervisory.PositivePairs(other_noise, n_views=3)
    p, kernel = views.conditional(rows).mix(0.2), learned.UniformMixture(learned.SharedCluster(), 0.2)
    loss = _partition_loss.ViewPartitionLoss(views, rows, p, Loss(kernel), 10, np.ones(len(rows)), DOUBLE)
    models = _memberships.build_models(encoders.MLP(hidden=(8,)), rows, 3, np.ones(240), DOUBLE)
    models.start([np.arange(240) % 3])
    torch.manual_seed(0)
    found = loss(models, np.random.RandomState(0)).item()
    torch.manual_seed(0)
    items = np.random.RandomState(0).randint(240, size=10)
    logits = models.modules[0](views.draw(torch.as_tensor(rows[items])))
    losses = []
    for first in (0, 10):
        phi = logits[first : first + 20].softmax(dim=1)
        q = 0.8 * phi[:10] @ (phi / phi.sum(0)).T + 0.2 / 20
        mixed = 0.8 * np.eye(10, 20, 10) + 0.2 / 20
        met = (10 + np.unique(np.linspace(1, 9, 4, dtype=int)) + np.arange(10)[:, None]) % 20  # stand for all keys
        uniform = 0.2 * np.take_along_axis(np.log(q.detach().numpy()), met, axis=1).mean()
        at_positives = 0.8 * np.log(q.detach().numpy()[np.arange(10), np.arange(10, 20)]).mean()
        losses.append((mixed * np.log(mixed)).sum() / 10 - at_positives - uniform)
    assert found == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize(
    "change, rows, message",
    [
        ({"encoder": "lookup"}, X, "use encoder='linear'"),
        ({}, sparse.csr_matrix(X), "X is sparse"),
        ({"supervisory": supervisory.RandomWalk(supervisory.PositivePairs(torch.relu), 2)}, X, "no walk leads on"),
        ({"supervisory": supervisory.PositivePairs(cropped)}, X, "reads one shape"),
    ],
)
def test_views_say_what_they_need(change, rows, message):
    views = ICONClustering(3, **{"supervisory": supervisory.PositivePairs(torch.relu)} | change)
    with pytest.raises(ValueError, match=message):
        views.fit(rows)


@pytest.mark.parametrize("a", [0.4, 0.6])
def test_debiasing_p_alone_leaves_clusters(a):
    p = supervisory.UniformMixture(supervisory.UniformKNN(), a)
    clusters = ICONClustering(3, supervisory=p, debias=0.0, random_state=0).fit(X)
    one_cluster = ICONClustering(1, supervisory=p, debias=0.0, random_state=0).fit(X)
    assert clusters.loss_ < one_cluster.loss_ - 0.01
    assert clusters.n_clusters_ == 3


def test_cuts_count_copies():
    rows = load_iris().data[::2]
    graph, counts = supervisory.UniformKNN(8).conditional(rows).weights.toarray(), np.arange(len(rows)) % 3
    graph = graph + graph.T
    cuts = methods.get("ncut").make_estimator(n_clusters=3, random_state=0)
    weighted = clone(cuts).fit(graph, sample_weight=counts)
    which = np.repeat(np.arange(len(rows)), counts)
    copied = clone(cuts).fit(graph[np.ix_(which, which)])
    assert weighted.loss_ == pytest.approx(copied.loss_, abs=1e-9)
    assert adjusted_rand_score(weighted.labels_[which], copied.labels_) == 1


@pytest.mark.parametrize("change", [{"encoder": "linear"}, {"divergence": "jensen_shannon"}])
def test_cuts_say_what_they_need(change):
    with pytest.raises(ValueError, match=r"needs encoder='lookup', divergence='kl'"):
        ICONClustering(3, debias=1, **{"encoder": "lookup"} | change).fit(X)


@pytest.mark.parametrize("n", [3, 4, 9])
def test_cuts_of_few_rows(n):
    graph = np.ones((n, n)) + 50 * np.kron(np.eye(3), np.ones((3, 3)))[:n, :n]
    cuts = methods.get("ncut").make_estimator(n_clusters=3, random_state=0).fit(graph)
    assert cuts.n_clusters_ == 3
    if n == 9:
        assert adjusted_rand_score(np.arange(9) // 3, cuts.labels_) == 1


def test_cuts_of_neighbors_take_new_rows():
    clusters = ICONClustering(3, debias=1, encoder="lookup", random_state=0).fit(X)
    assert clustering_accuracy(y, clusters.labels_) > 0.8
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)
    np.testing.assert_array_equal(clusters.predict(X[::10] + 1e-4), clusters.labels_[::10])
    assert clusters.predict_proba(X).max(axis=1).min() > 0.99


# --- empty clusters -----------------------------------------------------------------------------------------------


def blocks_and_noise(n_groups, seed):
    """Flow between groups in some blocks, and masses."""
    rng = np.random.RandomState(seed)
    flow = rng.uniform(size=(n_groups, n_groups)) * 0.02 + np.kron(np.eye(n_groups // 5), np.ones((5, 5)))
    flow = flow + flow.T
    return flow / flow.sum(), flow.sum(axis=1) / flow.sum()


def cost_of(one_hot, flow, masses, table):
    """The sum of the clusters' parts."""
    (gain,), (rest,), low, per_unit = table
    inside, mass = np.einsum("gc,gh,hc->c", one_hot, flow, one_hot), masses @ one_hot
    grid, log_mass = low + np.arange(len(gain)) / per_unit, np.log(np.maximum(mass, 1e-300))
    return (inside * np.interp(log_mass, grid, gain) + mass * np.interp(log_mass, grid, rest)).sum()


@pytest.mark.parametrize("seed", range(3))
def test_no_search_ends_where_a_move_into_an_empty_cluster_lowers_the_cost(seed):
    flow, masses = blocks_and_noise(20, seed)
    table = _search.cost_table("kl", 1000, 0.3, 0.3)
    labels, costs = _search.search(flow, masses, 8, table, np.random.RandomState(seed), n_searches=6)
    for found, value in zip(labels, costs, strict=True):
        for empty in np.setdiff1d(np.arange(8), found):
            for group in range(20):
                one_hot = np.eye(8)[np.where(np.arange(20) == group, empty, found)]
                moved = cost_of(one_hot, flow, masses, table)
                assert moved >= value - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_empty_clusters_are_started_again(monkeypatch, seed):
    flow, masses = blocks_and_noise(60, seed)
    table = _search.cost_table("kl", 1000, 0.3, 0.3)
    refilled = _search.search(flow, masses, 12, table, np.random.RandomState(seed), n_searches=8)
    monkeypatch.setattr(_search, "_REFILLS", 0)
    plain = _search.search(flow, masses, 12, table, np.random.RandomState(seed), n_searches=8)
    used = [np.mean([len(np.unique(found)) for found in labels]) for labels, _ in (plain, refilled)]
    assert used[0] < used[1]
    assert (refilled[1] <= plain[1] + 1e-12).all()
    best = refilled[0][refilled[1].argmin()]
    assert adjusted_rand_score(best, np.repeat(np.arange(12), 5)) == 1


def test_refilled_labels_use_every_cluster():
    flow, masses = blocks_and_noise(20, 0)
    labels = _search._refilled(np.arange(20) % 2, flow, masses, 6, np.random.RandomState(0), 0)
    assert set(labels) == set(range(6))
    few = _search._refilled(np.array([0, 1, 1]), flow[:3, :3], masses[:3], 5, np.random.RandomState(0), 0)
    assert set(few) == {0, 1, 2}


@pytest.mark.parametrize("encoder", ["linear", "lookup"])
@pytest.mark.parametrize("n_clusters", [4, 6])
def test_duplicates_share_a_cluster(encoder, n_clusters):
    rows = np.repeat(np.random.RandomState(0).normal(size=(4, 5)), 20, axis=0)
    clusters = ICONClustering(n_clusters, encoder=encoder, random_state=0)
    if n_clusters > 4:
        with pytest.warns(ConvergenceWarning, match="only 4 of n_clusters=6 clusters are in use; .* Lower n_clusters"):
            clusters.fit(rows)
    else:
        clusters.fit(rows)
    assert clusters.n_clusters_ == 4
    assert adjusted_rand_score(clusters.labels_, np.repeat(np.arange(4), 20)) == 1


def test_orthonormal_maps_predict_as_they_were_fitted():
    clusters = ICONClustering(2, encoder=encoders.Linear(orthonormal=True), **QUICK).fit(X)
    memberships = clusters.predict_proba(X)
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)
    np.testing.assert_allclose(memberships.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("encoder", ["linear", "lookup", "mlp"])
def test_rows_of_weight_zero_count_as_new_rows(encoder):
    weights = np.zeros(len(X))
    weights[::10] = 1 + np.arange(len(X) // 10) % 2
    counted = weights > 0
    estimator = ICONClustering(3, n_neighbors=3, encoder=encoder, max_iter=100, random_state=0)
    without = clone(estimator).fit(X[counted], sample_weight=weights[counted])
    estimator.fit(pd.DataFrame(X, columns=list("abcd")), sample_weight=weights)
    np.testing.assert_array_equal(estimator.labels_, without.predict(X))
    np.testing.assert_array_equal(estimator.labels_[counted], without.labels_)
    np.testing.assert_array_equal(estimator.cluster_centers_, without.cluster_centers_)
    assert list(estimator.feature_names_in_) == list("abcd")


@pytest.mark.parametrize("shift", [0.0, 1e-9, 0.1])
def test_starts_are_not_the_one_cluster_that_no_descent_leaves(shift):
    """Whatever the last digits of the mean."""
    rows, groups = make_moons(300, noise=0.05, random_state=0)
    rows += shift
    estimator = methods.get("supervised-clustering").make_estimator(n_clusters=2, random_state=0).fit(rows, groups)
    linear = LogisticRegression().fit(rows, groups).predict(rows)
    assert adjusted_rand_score(groups, estimator.labels_) >= adjusted_rand_score(groups, linear) - 0.02


def test_memberships_that_are_all_alike_are_one_cluster():
    estimator = ICONClustering(3, **QUICK).fit(X)
    alike = 1 / 3 + 1e-9 * np.random.RandomState(0).uniform(size=(len(X), 3))
    with pytest.warns(ConvergenceWarning, match="only 1 of n_clusters=3 clusters are in use"):
        estimator._set_partition(alike, X, np.ones(len(X)))
    assert not estimator.labels_.any() and estimator.n_clusters_ == 1


@pytest.mark.parametrize("divergence", ["jensen_shannon", "total_variation", "squared_hellinger"])
def test_other_divergences_cluster_at_their_defaults(divergence):
    rows, labels = (part[::4] for part in load_digits(return_X_y=True))
    estimator = ICONClustering(10, divergence=divergence, random_state=0).fit(rows)
    assert estimator.debias_ == 0 and adjusted_rand_score(labels, estimator.labels_) > 0.6


def test_fit_predict_reads_y_and_weights():
    estimator = methods.get("supervised-clustering").make_estimator(n_clusters=3, random_state=0, max_iter=60)
    weights = 1.0 + np.arange(len(X)) % 3
    fitted = clone(estimator).fit(X, y, weights)
    np.testing.assert_array_equal(estimator.fit_predict(X, y, weights), fitted.labels_)


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_distances_to_centres_of_sparse_rows_of_any_scale(scale):
    from sklearn_icon._clusters.losses import sq_distances

    rows, labels = np.random.RandomState(0).rand(9, 4), np.arange(9) % 2
    centers = np.stack([rows[labels == c].mean(axis=0) for c in (0, 1)])
    wanted = np.square(rows - centers[labels]).sum(axis=1) * scale**2
    for X in (rows * scale, sparse.csr_array(rows * scale)):
        np.testing.assert_allclose(sq_distances(X, centers * scale, labels), wanted, rtol=1e-9)
