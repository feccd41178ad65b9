"""`ICONClustering`: peers on digits, memberships, numbering, inputs, and that parameters reach the solver."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import load_digits, load_iris, load_wine, make_blobs, make_circles, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score, homogeneity_score, pairwise_distances
from sklearn.neighbors import kneighbors_graph

from sklearn_icon import ICONClustering, _partitions, encoders, learned, methods, supervisory
from sklearn_icon._batches import batch_conditional
from sklearn_icon._objective import Objective
from sklearn_icon._solver import SolverResult
from sklearn_icon.metrics import clustering_accuracy

X, y = load_iris(return_X_y=True)
QUICK = {"max_iter": 100, "n_init": 1, "random_state": 0}
FITTED = {
    "linear": ICONClustering(3, **QUICK),
    "lookup": ICONClustering(3, encoder="lookup", **QUICK),
    "mlp": ICONClustering(3, encoder=encoders.MLP(hidden=(8,)), **QUICK),
    "no debias": ICONClustering(3, debias=0.0, supervisory="knn", **QUICK),
}
each = pytest.mark.parametrize("estimator", FITTED.values(), ids=FITTED)


def test_beats_its_peers_on_digits():
    rows, labels = load_digits(return_X_y=True)
    ours = clustering_accuracy(labels, ICONClustering(10, random_state=0).fit_predict(rows))
    k_means = clustering_accuracy(labels, KMeans(10, n_init=10, random_state=0).fit_predict(rows))
    spectral = SpectralClustering(10, affinity="nearest_neighbors", random_state=0).fit_predict(rows)
    assert ours > k_means
    assert ours > clustering_accuracy(labels, spectral) - 0.02


@each
def test_memberships_agree_with_labels(estimator):
    clusters = clone(estimator).fit(X)
    memberships = clusters.predict_proba(X)
    np.testing.assert_allclose(memberships.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(memberships.argmax(axis=1), clusters.labels_)
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)
    np.testing.assert_array_equal(clusters.transform(X), memberships)
    new = X[::7] + 0.01
    alone = np.concatenate([clusters.predict_proba(new[[i]]) for i in range(len(new))])
    np.testing.assert_allclose(alone, clusters.predict_proba(new), rtol=1e-9)


@each
def test_clusters_are_numbered_by_size(estimator):
    sizes = np.bincount(clone(estimator).fit(X).labels_)
    assert (np.diff(sizes) <= 0).all()


def test_ties_are_numbered_by_first_row():
    rows = np.vstack([np.full((20, 2), 9.0), np.zeros((20, 2)), np.full((20, 2), -9.0)])
    rows += np.random.RandomState(0).uniform(size=rows.shape)
    labels = ICONClustering(3, n_neighbors=5, random_state=0).fit_predict(rows)
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 20))


@each
def test_centers_and_inertia(estimator):
    clusters = clone(estimator).fit(X)
    memberships = clusters.predict_proba(X)
    centers = np.stack([np.average(X, axis=0, weights=column) for column in memberships.T])
    np.testing.assert_allclose(clusters.cluster_centers_, centers)
    inertia = sum(np.square(row - centers[label]).sum() for row, label in zip(X, clusters.labels_, strict=True))
    assert clusters.inertia_ == pytest.approx(inertia)


def test_the_start_with_the_lowest_loss_is_kept():
    losses = [ICONClustering(3, n_init=1, max_iter=20, random_state=seed).fit(X).loss_ for seed in range(3)]
    best = ICONClustering(3, n_init=8, max_iter=20, random_state=0).fit(X).loss_
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
def test_rows_are_unchanged_and_memberships_keep_their_precision(estimator, dtype):
    rows = X.astype(dtype)
    clusters = clone(estimator).fit(rows)
    np.testing.assert_array_equal(rows, X.astype(dtype))
    assert clusters.predict_proba(rows).dtype == clusters.cluster_centers_.dtype == dtype


@each
def test_same_seed_same_bits_and_pickles(estimator):
    clusters = clone(estimator).fit(X)
    torch.manual_seed(5)
    again = pickle.loads(pickle.dumps(clone(estimator).fit(X)))
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

    def spy(objective, params, **options):
        value = objective()
        gradients = [gradient.numpy() for gradient in torch.autograd.grad(value, params)]
        del options["on_step"]
        received.append((options, float(value.detach()), gradients))
        return SolverResult(0.0, 1, np.zeros(1), "completed")

    monkeypatch.setattr(_partitions, "minimize", spy)
    monkeypatch.setattr(_partitions, "_pretrain", lambda *_: None)
    estimator.fit(X)
    return repr(received)


@pytest.mark.filterwarnings("ignore:only .* clusters are in use")
@pytest.mark.parametrize(
    "base, parameter, value",
    [(BASE, *change) for change in CHANGES.items()]
    + [(clone(BASE).set_params(supervisory__binary=True), "learned__weights", "degree")]  # walks that reach unlike many
    + [(ICONClustering(3, **QUICK), "n_neighbors", 4), (ICONClustering(3, **QUICK), "metric", "cosine")]
    + [(ICONClustering(3, metric="minkowski", **QUICK), "metric_params", {"p": 1.5})],
)
def test_every_parameter_reaches_the_solver(monkeypatch, base, parameter, value):
    before = what_the_solver_receives(monkeypatch, clone(base))
    assert what_the_solver_receives(monkeypatch, clone(base)) == before
    assert what_the_solver_receives(monkeypatch, clone(base).set_params(**{parameter: value})) != before


@pytest.mark.parametrize("load, n_clusters", [(load_iris, 3), (load_wine, 3), (load_digits, 10)])
def test_k_means_row_has_the_inertia_of_k_means(load, n_clusters):
    rows = load(return_X_y=True)[0]
    ours = methods.get("k-means").make_estimator(n_clusters=n_clusters, random_state=1).fit(rows)
    theirs = KMeans(n_clusters, n_init=10, random_state=0).fit(rows)
    assert ours.inertia_ <= 1.005 * theirs.inertia_
    assert ours.predict_proba(rows).max(axis=1).mean() > 0.99


def graph_of(rows, n_neighbors):
    graph = kneighbors_graph(rows, n_neighbors, include_self=True)
    return (graph + graph.T) / 2


@pytest.mark.parametrize(
    "rows, n_clusters",
    [
        (make_moons(300, noise=0.05, random_state=0)[0], 2),
        (make_circles(300, noise=0.03, factor=0.4, random_state=0)[0], 2),
        (load_digits().data, 10),
    ],
    ids=["moons", "circles", "digits"],
)
@pytest.mark.filterwarnings("ignore:Graph is not fully connected")
def test_spectral_row_has_the_partition_of_spectral_clustering(rows, n_clusters):
    graph = graph_of(rows, 10)
    theirs = SpectralClustering(n_clusters, affinity="precomputed", random_state=0).fit_predict(graph)
    embedding = spectral_embedding(graph, n_components=n_clusters, drop_first=False, random_state=0)
    ours = methods.get("spectral").make_estimator(n_clusters=n_clusters, random_state=0).fit_predict(embedding)
    assert adjusted_rand_score(theirs, ours) >= 0.99


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
            fast = _partitions.shared_cluster_kl(rows, logits, degrees, of_p, of_q, np.arange(14))
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
    models = SimpleNamespace(params=[torch.zeros(1, 2)])
    for momentum, expected in ((0.0, 1.0), (0.9, 0.1)):
        models.params[0].zero_()
        past = _partitions.Past(models, momentum)
        models.params[0].fill_(1)
        past.followed_by(None)(1, 0.0)
        np.testing.assert_allclose(past.averages.params[0], expected, rtol=1e-6)


def test_heads_and_views_are_refused():
    for change in (
        {"encoder": encoders.ProjectionHead(encoders.MLP())},
        {"supervisory": supervisory.PositivePairs(torch.relu)},
    ):
        with pytest.raises(ValueError, match="sets rows against each other"):
            ICONClustering(3, **change).fit(X)
