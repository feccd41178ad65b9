"""`sample_weight` of maps and of pairs: a weight of 3 is the row three times over, one of 0 a row that is not there."""

import warnings

import numpy as np
import pytest
import torch
from covering import covering
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances

from sklearn_icon import ICONCrossModal, ICONEmbedding, encoders, learned, load, supervisory

COUNTS = np.array([3, 1, 0, 2, 1, 1, 4, 1, 0, 1, 1, 2] * 3)
QUICK = {"max_iter": 20, "random_state": 3}


def rows(seed=5, n=36, columns=4):
    return np.random.RandomState(seed).standard_normal((n, columns)) * [3.0, 1.0, 1.0, 0.5][:columns]


def noisy(batch):
    return batch + 0.1 * torch.randn_like(batch)


MAPS = {
    "map": ICONEmbedding(perplexity=5, **QUICK),
    "conditional": ICONEmbedding(
        supervisory=supervisory.Gaussian(sigma=1.5), learned="gaussian", normalization="conditional", **QUICK
    ),
    "pulled": ICONEmbedding(perplexity=5, init_weight=1.0, **QUICK),
    "debiased": ICONEmbedding(perplexity=5, debias=0.2, divergence="jensen_shannon", **QUICK),
    "drawn": ICONEmbedding(perplexity=5, method="sampled", **QUICK),
    "grid": ICONEmbedding(perplexity=5, method="interpolation", **QUICK),
    "three-dimensional": ICONEmbedding(3, supervisory="knn", init="random", **QUICK),
    "linear": ICONEmbedding(perplexity=5, encoder="linear", **QUICK),
    "network": ICONEmbedding(perplexity=5, encoder=encoders.MLP(hidden=(8,)), **QUICK),
    "batches": ICONEmbedding(perplexity=5, encoder="linear", method="sampled", batch_size=16, **QUICK),
    "views": ICONEmbedding(
        supervisory=supervisory.PositivePairs(noisy), encoder=encoders.MLP(hidden=(8,)), batch_size=16, **QUICK
    ),
    "walks": ICONEmbedding(
        supervisory=supervisory.RandomWalk(supervisory.UniformKNN(n_neighbors=4), n_steps=2), **QUICK
    ),
}


def copied(X):
    return X[np.repeat(np.arange(len(COUNTS)), COUNTS)]


@pytest.mark.parametrize("name, dtype, kind", covering(MAPS, [np.float32, np.float64], [np.asarray, sparse.csr_array]))
def test_a_weight_of_three_is_three_copies(name, dtype, kind):
    kind = np.asarray if name == "views" else kind  # which are drawn of dense items
    X = kind(rows().astype(dtype))
    weighted = clone(MAPS[name]).fit(X, sample_weight=COUNTS)
    of_copies = clone(MAPS[name]).fit(copied(X))
    assert weighted.embedding_.shape == (len(COUNTS), weighted.n_components)
    assert weighted.embedding_.dtype == dtype
    there = COUNTS > 0
    np.testing.assert_allclose(copied(weighted.embedding_), of_copies.embedding_, rtol=1e-5, atol=1e-6)
    assert weighted.kl_divergence_ == of_copies.kl_divergence_
    assert np.average(weighted.kl_per_sample_, weights=COUNTS) == pytest.approx(weighted.kl_divergence_, rel=1e-6)
    assert (weighted.kl_per_sample_[~there] == 0).all()
    np.testing.assert_allclose(weighted.transform(X)[there], weighted.embedding_[there], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(weighted.transform(X)[~there], weighted.embedding_[~there], rtol=1e-6, atol=1e-6)
    new = kind(rows(seed=6, n=5).astype(dtype))
    np.testing.assert_allclose(weighted.transform(new), of_copies.transform(new), rtol=1e-5, atol=1e-5)


def test_the_loss_is_that_of_copies_by_naive_loops():
    """KL of the joint forms over all pairs of copies, of which each is a key of the others."""
    X = rows()
    map_ = ICONEmbedding(supervisory=supervisory.Gaussian(sigma=1.2), **QUICK).fit(X, sample_weight=COUNTS)
    items, z = copied(X), copied(map_.embedding_).astype(np.float64)
    n = len(items)
    p, q = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                p[i, j] = np.exp(-((items[i] - items[j]) ** 2).sum() / (2 * 1.2**2))
                q[i, j] = 1 / (1 + ((z[i] - z[j]) ** 2).sum())
    p /= p.sum(axis=1, keepdims=True)
    p, q = (p + p.T) / (2 * n), q / q.sum()
    off = ~np.eye(n, dtype=bool)
    assert map_.kl_divergence_ == pytest.approx((p[off] * np.log(p[off] / q[off])).sum(), rel=1e-5)


@pytest.mark.parametrize("name", ["map", "linear"])
def test_a_weight_of_zero_is_a_row_that_is_not_there(name):
    X = rows()
    weights = np.where(COUNTS > 0, 1.0, 0.0)
    weighted = clone(MAPS[name]).fit(X, sample_weight=weights)
    without = clone(MAPS[name]).fit(X[COUNTS > 0])
    np.testing.assert_array_equal(weighted.embedding_[COUNTS > 0], without.embedding_)
    np.testing.assert_allclose(weighted.embedding_[COUNTS == 0], without.transform(X[COUNTS == 0]), rtol=1e-6)
    plain, ones = clone(MAPS[name]).fit(X), clone(MAPS[name]).fit(X, sample_weight=np.ones(len(X)))
    np.testing.assert_array_equal(plain.embedding_, ones.embedding_)


@pytest.mark.parametrize("kind", ["distances", "graph", "counts"])
def test_copies_of_other_inputs(kind):
    X, rng = rows(), np.random.RandomState(1)
    distances = pairwise_distances(X)
    estimator = {
        "distances": ICONEmbedding(perplexity=5, metric="precomputed", init="random", **QUICK),
        "graph": ICONEmbedding(supervisory="graph", init="random", **QUICK),
        "counts": ICONEmbedding(
            supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional", **QUICK
        ),
    }[kind]
    square = kind != "counts"
    given = distances if kind == "distances" else np.exp(-distances) if kind == "graph" else rng.poisson(2.0, (36, 7))
    of_copies = copied(copied(given).T).T if square else copied(given)
    weighted, theirs = clone(estimator).fit(given, sample_weight=COUNTS), clone(estimator).fit(of_copies)
    means = [theirs.embedding_[copied(np.arange(36)) == row].mean(axis=0) for row in np.flatnonzero(COUNTS)]
    np.testing.assert_allclose(weighted.embedding_[COUNTS > 0], means, rtol=1e-4, atol=1e-5)
    assert weighted.kl_divergence_ == theirs.kl_divergence_
    assert np.isfinite(weighted.transform(given)).all()


def test_y_starts_and_files_go_along_with_copies(tmp_path):
    X, y = rows(), np.arange(36) % 3
    by_class = ICONEmbedding(supervisory="same_class", init=rows(seed=9, columns=2), **QUICK)
    weighted = clone(by_class).fit(X, y, sample_weight=COUNTS)
    theirs = clone(by_class).set_params(init=copied(by_class.init)).fit(copied(X), copied(y))
    np.testing.assert_allclose(copied(weighted.embedding_), theirs.embedding_, rtol=1e-5, atol=1e-6)
    weighted.save(tmp_path / "map.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "map.safetensors").transform(X), weighted.transform(X))
    warm = ICONEmbedding(perplexity=5, warm_start=True, **QUICK).fit(X, sample_weight=COUNTS)
    before = warm.kl_divergence_
    assert warm.fit(X, sample_weight=COUNTS).kl_divergence_ <= before


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "estimator",
    [
        ICONCrossModal(3, random_state=0),
        ICONCrossModal(3, encoder=encoders.MLP(hidden=(8,)), max_iter=3, batch_size=16, random_state=0),
        ICONCrossModal(2, encoder="linear", max_iter=3, batch_size=16, random_state=0),
    ],
    ids=["linear", "network", "batches"],
)
def test_pairs(estimator, dtype, kind):
    X, y = (kind(rows(seed=seed).astype(dtype)) for seed in (1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weighted, theirs = clone(estimator).fit(X, y, sample_weight=COUNTS), clone(estimator).fit(copied(X), copied(y))
    np.testing.assert_array_equal(weighted.loss_curve_, theirs.loss_curve_)
    for ours, other in zip(weighted.transform(X, y), theirs.transform(X, y), strict=True):
        np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize("estimator", [ICONEmbedding(**QUICK), ICONCrossModal(2, **QUICK)], ids=["map", "pairs"])
@pytest.mark.parametrize(
    "weights, problem",
    [
        (np.full(36, 0.5), "whole numbers, but got 0.5 in row 0"),
        (-np.ones(36), "Negative values"),
        (np.zeros(36), "at least one non-zero"),
        (np.eye(36)[4], "at least 2"),
        (np.full(36, 1e9), "fewer than 2\\^31"),
        (np.ones(35), "sample_weight.shape == \\(35,\\)"),
        (np.ones((36, 2)), "1D|dimension"),
        (np.where(np.arange(36) == 7, np.nan, 1), "NaN"),
    ],
    ids=["fractions", "negative", "zeros", "one row", "huge", "short", "2-D", "NaN"],
)
def test_bad_weights(estimator, weights, problem):
    with pytest.raises(ValueError, match=problem):
        clone(estimator).fit(rows(), rows(seed=2), sample_weight=weights)


def test_sparse_distances_list_no_copies():
    distances = sparse.csr_array(pairwise_distances(rows()))
    with pytest.raises(ValueError, match="sample_weight needs distances in a dense X"):
        ICONEmbedding(perplexity=5, metric="precomputed", **QUICK).fit(distances, sample_weight=COUNTS)
