"""p from what accompanies X: X-Sample, LGSimCLR, contrastive regression, labels known in part and several of a row."""

from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, encoders, learned, supervisory
from sklearn_icon._objective.objective import Objective
from sklearn_icon.metrics import clustering_accuracy

COSINE = learned.Gaussian(metric="cosine", tau=0.2)


def make_data(n, seed=0):
    """Features of which two among ten, faint ones, tell the two companion features."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 10)) * np.where(np.arange(10) < 2, 0.7, 1.5)
    return X, X[:, :2] @ np.array([[1.0, 0.3], [-0.2, 0.8]]) + 0.05 * rng.normal(size=(n, 2))


def nearest(rows, k):
    return NearestNeighbors(n_neighbors=k).fit(rows).kneighbors(return_distance=False)


def shared_neighbors(Z, companion, k=10):
    """Share of each row's nearest in Z that are among its nearest in the companion features."""
    pairs = zip(nearest(Z, k), nearest(np.reshape(companion, (len(Z), -1)), 2 * k), strict=True)
    return np.mean([np.isin(found, wanted).mean() for found, wanted in pairs])


def same_label(Z, labels, k=10):
    """Share of each row's nearest that have its label."""
    return (labels[nearest(Z, k)] == labels[:, None]).mean()


# --- oracles: the formulas by loops -------------------------------------------------------------------------------


def sq_distance(a, b):
    return sum((s - t) ** 2 for s, t in zip(np.atleast_1d(a), np.atleast_1d(b), strict=True))


def gaussian_on(companion, sigma):
    n = len(companion)
    rows = np.zeros((n, n))
    for i in range(n):
        kernel = [0 if j == i else exp(-sq_distance(companion[i], companion[j]) / (2 * sigma**2)) for j in range(n)]
        rows[i] = [value / sum(kernel) for value in kernel]
    return rows


def nearest_on(companion, k):
    n = len(companion)
    rows = np.zeros((n, n))
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: sq_distance(companion[i], companion[j]))
        rows[i, others[:k]] = 1 / k
    return rows


def cosine_loss_and_gradient(p, z, tau):
    """mean_i KL(p_i || q_i) with q(j|i) ~ exp(cos(z_i, z_j) / tau), and its gradient."""
    n, value, gradient = len(z), 0.0, np.zeros_like(z)
    length = [sqrt(sum(row * row)) for row in z]
    unit = [row / size for row, size in zip(z, length, strict=True)]
    for i in range(n):
        others = [j for j in range(n) if j != i]
        cosine = {j: sum(unit[i] * unit[j]) for j in others}
        total = sum(exp(cosine[j] / tau) for j in others)
        for j in others:
            q = exp(cosine[j] / tau) / total
            value += (p[i, j] * log(p[i, j] / q) if p[i, j] else 0.0) / n
            slope = (q - p[i, j]) / (n * tau)
            gradient[i] += slope * (unit[j] - cosine[j] * unit[i]) / length[i]
            gradient[j] += slope * (unit[i] - cosine[j] * unit[j]) / length[j]
    return value, gradient


@pytest.mark.parametrize(
    ("spec", "n_companions", "rows"),
    [
        (supervisory.Gaussian(sigma=0.6, source="y"), 3, lambda y: gaussian_on(y, 0.6)),  # X-Sample
        (supervisory.UniformKNN(n_neighbors=4, source="y"), 3, lambda y: nearest_on(y, 4)),  # LGSimCLR
        (supervisory.Gaussian(sigma=0.6, source="y"), None, lambda y: gaussian_on(y, 0.6)),  # regression
    ],
    ids=["x-sample", "lgsimclr", "regression"],
)
def test_equals_the_formula(spec, n_companions, rows):
    rng = np.random.default_rng(4)
    companion = rng.normal(size=11 if n_companions is None else (11, n_companions))
    z = rng.normal(size=(11, 3))
    objective = Objective(spec.conditional(np.zeros((11, 1)), companion), COSINE)
    at = torch.tensor(z, requires_grad=True)
    value = objective(at)
    (gradient,) = torch.autograd.grad(value, at)
    expected, of_z = cosine_loss_and_gradient(rows(companion), z, COSINE.tau)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-8)
    assert_allclose(gradient.numpy(), of_z, rtol=1e-8, atol=1e-12)


# --- companion features -------------------------------------------------------------------------------------------

MAP = ICONEmbedding(4, learned=COSINE, normalization="conditional", max_iter=150, random_state=0)
COMPANIONS = {
    "x-sample": (supervisory.Gaussian(perplexity=15.0, source="y"), lambda y: y),
    "lgsimclr": (supervisory.UniformKNN(source="y"), lambda y: y),
    "sparse": (supervisory.UniformKNN(source="y"), sparse.csr_array),
    "regression": (supervisory.Gaussian(perplexity=15.0, source="y"), lambda y: y[:, 0]),
    "regression-sigma": (supervisory.Gaussian(sigma=0.2, source="y"), lambda y: y[:, 0]),
}


@pytest.mark.parametrize("encoder", ["lookup", "linear", encoders.MLP(hidden=(64,))], ids=str)
@pytest.mark.parametrize("name", COMPANIONS)
def test_neighbors_are_those_of_the_companion(name, encoder):
    spec, of = COMPANIONS[name]
    (X, y), (X_new, y_new) = make_data(250), make_data(250, seed=1)
    target, target_new = (y[:, 0], y_new[:, 0]) if "regression" in name else (y, y_new)
    beside = clone(MAP).set_params(supervisory=spec, encoder=encoder).fit(X, of(y))
    alone = clone(MAP).set_params(supervisory="knn", encoder=encoder).fit(X, of(y))
    assert shared_neighbors(beside.embedding_, target) > 2 * shared_neighbors(alone.embedding_, target)
    if beside.encoder_.parametric:
        found, before = (shared_neighbors(e.transform(X_new), target_new) for e in (beside, alone))
        assert found > 1.5 * before


# --- labels -------------------------------------------------------------------------------------------------------


def gains_by_labels(encoder, split):
    """How many more of the nearest have a row's label, among new rows and rows without label, once some are known."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(split).permutation(len(X))
    X, y, X_new, y_new = X[order[:600]], y[order[:600]], X[order[600:]], y[order[600:]]
    known = np.arange(600) % 4 == 0
    base = supervisory.Gaussian()
    map_ = ICONEmbedding(encoder=encoder, random_state=0)
    without = clone(map_).set_params(supervisory=base).fit(X)
    some = clone(map_).set_params(supervisory=supervisory.SameClass(unlabelled=base)).fit(X, np.where(known, y, -1))
    of_new = same_label(some.transform(X_new), y_new) - same_label(without.transform(X_new), y_new)
    return of_new, same_label(some.embedding_[~known], y[~known]) - same_label(without.embedding_[~known], y[~known])


def test_some_labels_help_rows_that_were_held_out():
    of_new, of_known = gains_by_labels("mlp", 0)
    assert of_new > 0.02
    assert of_known > 0


@pytest.mark.slow
def test_some_labels_help_rows_placed_on_a_map():
    of_new, of_known = np.transpose([gains_by_labels("lookup", split) for split in range(6)])
    assert of_new.mean() > 0.003  # -.003 to .013 of one split, .0063 of these; rounding moves the mean by .001
    assert of_known.mean() > 0


def test_labels_of_unlabelled_rows_are_not_read():
    X, y = load_digits(n_class=4, return_X_y=True)
    known = np.arange(len(y)) % 3 == 0
    spec = supervisory.SameClass(unlabelled=supervisory.UniformKNN())
    p = spec.conditional(X, np.where(known, y, -1)).toarray()
    assert_allclose(p[~known], supervisory.UniformKNN().conditional(X).toarray()[~known], rtol=1e-14)
    assert_array_equal(p[known][:, ~known], 0)


@pytest.mark.parametrize("encoder", ["lookup", "linear"])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_rows_that_share_labels_are_near(encoder, kind):
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=(200, 4)) < 0.4).astype(int)
    X = np.hstack([labels + 0.3 * rng.normal(size=labels.shape), rng.normal(size=(200, 6))])
    without = labels.sum(axis=1) == 0
    with pytest.warns(UserWarning, match=f"{without.sum()} of 200 rows have no positive"):
        embedding = clone(MAP).set_params(supervisory="same_class", encoder=encoder).fit(X, kind(labels))
    assert_array_equal(embedding.kl_per_sample_[without], 0)
    rows = labels[~without]
    shared = rows @ rows.T
    found = np.take_along_axis(shared, nearest(embedding.embedding_[~without], 10), axis=1).mean()
    assert found > shared.mean() + 0.3


@pytest.mark.parametrize("kind", ["features", "distances", "graph"])
def test_new_rows_are_like_those_without_a_label(kind):
    X, y = load_digits(n_class=3, return_X_y=True)
    X, new, partial = X[:200], X[200:230], np.where(np.arange(200) % 2, y[:200], -1)
    gaps, gaps_new = (np.sqrt(((rows[:, None] - X) ** 2).sum(axis=2)) for rows in (X, new))
    rows, rows_new, base = {
        "features": (X, new, supervisory.UniformKNN(n_neighbors=6)),
        "distances": (gaps, gaps_new, supervisory.UniformKNN(n_neighbors=6, metric="precomputed")),
        "graph": (np.exp(-gaps / 5), np.exp(-gaps_new / 5), supervisory.Graph()),
    }[kind]
    spec = supervisory.SameClass(unlabelled=base)
    embedding = ICONEmbedding(supervisory=spec, init="random", max_iter=50, random_state=0).fit(rows, partial)
    weights = embedding._fitted_rows.weights(rows_new, embedding.supervisory_)[0].toarray()
    if kind == "graph":
        assert_allclose(weights, rows_new / rows_new.sum(axis=1, keepdims=True))
    else:
        for row, distance in zip(weights, gaps_new, strict=True):
            assert_array_equal(np.flatnonzero(row), np.sort(np.argsort(distance)[:6]))
            assert_allclose(row[row > 0], 1 / 6)
    assert embedding.transform(rows_new).shape == (30, 2)
    assert embedding.__sklearn_tags__().input_tags.pairwise == (kind != "features")


def test_clusters_heed_the_labels_they_have():
    X, y = load_digits(n_class=5, return_X_y=True)
    partial = np.where(np.arange(len(y)) % 5 == 0, y, -1)
    spec = supervisory.SameClass(unlabelled=supervisory.UniformKNN())
    clusters = ICONClustering(5, supervisory=spec, random_state=0).fit(X, partial)
    assert clustering_accuracy(y[partial < 0], clusters.labels_[partial < 0]) > 0.95


def test_a_classifier_gives_every_row_a_class():
    X, y = load_digits(n_class=3, return_X_y=True)
    spec = supervisory.SameClass(unlabelled=supervisory.UniformKNN())
    with pytest.raises(ValueError, match="which a classifier has to give a class; use supervisory='propagated_label'"):
        ICONClassifier(supervisory=spec).fit(X, np.where(np.arange(len(y)) % 2, y, -1))
