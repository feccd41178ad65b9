"""Maps of contexts with prototypes of tokens: the loss of counts, how it is solved, and new contexts."""

import pickle
from itertools import product
from math import exp, log

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_icon import ICONEmbedding, encoders, learned, supervisory
from sklearn_icon._objective import loss as _loss
from sklearn_icon._objective.loss import Loss
from sklearn_icon._optim.train import Run
from sklearn_icon._training import tokens as _token_maps

CONTEXTS, TOKENS, DIM = 23, 9, 3
DOT = learned.Gaussian(metric="dot")
TOKEN_MAP = ICONEmbedding(DIM, supervisory="counts", learned=DOT, normalization="conditional", random_state=0)


def make_counts(n=CONTEXTS, m=TOKENS, seed=0):
    """Counts drawn from dot products of three dimensions."""
    rng = np.random.default_rng(seed)
    log_rate = rng.normal(size=(n, DIM)) @ rng.normal(size=(DIM, m))
    return rng.poisson(20 * np.exp(log_rate - log_rate.max(axis=1, keepdims=True))).astype(float)


COUNTS = make_counts()


# --- the loss -----------------------------------------------------------------------------------------------------


def cross_entropy_and_gradients(counts, z, w):
    """-sum_it n_it log softmax(z_i . w)_t / sum n, and its gradients, by loops."""
    total, value, of_z, of_w = counts.sum(), 0.0, np.zeros_like(z), np.zeros_like(w)
    for i in range(len(z)):
        kernel = [exp(sum(a * b for a, b in zip(z[i], w[t], strict=True))) for t in range(len(w))]
        for t in range(len(w)):
            q = kernel[t] / sum(kernel)
            value -= counts[i, t] * log(q) / total
            excess = (counts[i].sum() * q - counts[i, t]) / total
            of_z[i] += excess * w[t]
            of_w[t] += excess * z[i]
    return value, of_z, of_w


def entropy(counts):
    """The mean entropy of p, each context counted as often as it has tokens."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    terms = [counts[i, t] * log(shares[i, t]) for i, t in product(*map(range, counts.shape)) if counts[i, t]]
    return -sum(terms) / counts.sum()


def contexts_of(counts, q=DOT):
    return _token_maps._Contexts(
        supervisory.Counts().conditional(counts), Loss(q), Run(torch.float64, torch.device("cpu"))
    )


def loss_and_gradients(contexts, rows, z, w):
    params = [torch.tensor(w, requires_grad=True), torch.tensor(z, requires_grad=True)]
    value = contexts.loss_of(rows, lambda part: params[1][part], params[0], params)
    of_w, of_z = torch.autograd.grad(value, params)
    return float(value.detach()), of_z.numpy(), of_w.numpy()


@pytest.mark.parametrize("pairs", [1 << 22, 5 * TOKENS, 1])  # in one block, in several, a context at a time
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_equals_the_cross_entropy_of_counts(monkeypatch, kind, pairs):
    monkeypatch.setattr(_token_maps, "_PAIRS_AT_ONCE", pairs)
    rng = np.random.default_rng(1)
    z, w = rng.normal(size=(CONTEXTS, DIM)), rng.normal(size=(TOKENS, DIM))
    contexts = contexts_of(kind(COUNTS))
    value, of_z, of_w = loss_and_gradients(contexts, contexts.rows, z, w)
    expected, expected_z, expected_w = cross_entropy_and_gradients(COUNTS, z, w)
    assert value + entropy(COUNTS) == pytest.approx(expected, rel=1e-8)
    assert_allclose(of_z, expected_z, rtol=1e-8, atol=1e-14)
    assert_allclose(of_w, expected_w, rtol=1e-8, atol=1e-14)
    shares = contexts.losses(torch.tensor(z), torch.tensor(w))
    assert shares.sum() == pytest.approx(value, rel=1e-12)


def test_batches_average_to_the_whole(monkeypatch):
    monkeypatch.setattr(_token_maps, "_PAIRS_AT_ONCE", 2 * TOKENS)
    rng = np.random.default_rng(1)
    z, w = rng.normal(size=(CONTEXTS, DIM)), rng.normal(size=(TOKENS, DIM))
    contexts = contexts_of(COUNTS)
    batches = contexts.batches(5, np.random.RandomState(0))
    one_pass = [next(batches) for _ in range(5)]  # of 5, 5, 5, 5 and 3
    assert_array_equal(np.sort(np.concatenate(one_pass)), np.arange(CONTEXTS))
    parts = [(len(rows) / CONTEXTS, loss_and_gradients(contexts, rows, z, w)) for rows in one_pass]
    whole = loss_and_gradients(contexts, contexts.rows, z, w)
    for part in range(3):
        assert_allclose(sum(share * found[part] for share, found in parts), whole[part], rtol=1e-10, atol=1e-14)


def test_memory_is_that_of_a_block(monkeypatch):
    shapes = []

    class Spy(_loss.Objective):
        def __init__(self, p, *args, **options):
            shapes.append(p.shape)
            super().__init__(p, *args, **options)

    monkeypatch.setattr(_loss, "Objective", Spy)
    monkeypatch.setattr(_token_maps, "_PAIRS_AT_ONCE", 5000)
    counts = sparse.random(300, 500, density=0.05, random_state=0, format="csr")
    embedding = clone(TOKEN_MAP).set_params(max_iter=40, method="sampled").fit(counts)
    assert np.isfinite(embedding.embedding_).all()
    assert max(n * m for n, m in shapes) <= 5000
    assert len(shapes) >= 20 * 300 / 10  # each context is visited at least 20 times


# --- fits ---------------------------------------------------------------------------------------------------------


def test_what_dot_products_can_say_is_learned():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(30, DIM)) @ rng.normal(size=(DIM, 12))
    counts = 100 * np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    embedding = clone(TOKEN_MAP).set_params(max_iter=2000).fit(counts)
    assert embedding.kl_divergence_ < 1e-7
    found = embedding.embedding_ @ embedding.prototypes_.T
    differences = found - found.mean(axis=1, keepdims=True) - (logits - logits.mean(axis=1, keepdims=True))
    assert np.abs(differences).max() < 1e-2


def test_attributes_agree():
    embedding = clone(TOKEN_MAP).fit(COUNTS)
    assert embedding.prototypes_.shape == (TOKENS, DIM)
    value = cross_entropy_and_gradients(COUNTS, embedding.embedding_, embedding.prototypes_)[0]
    assert embedding.kl_divergence_ == pytest.approx(value - entropy(COUNTS), rel=1e-9)
    assert embedding.kl_per_sample_.mean() == pytest.approx(embedding.kl_divergence_, rel=1e-12)
    assert embedding.loss_curve_.shape == (embedding.n_iter_ + 1,)
    assert embedding.method_ == "exact"
    np.testing.assert_array_equal(COUNTS, make_counts())


def test_counts_may_be_y():
    features = np.random.default_rng(0).normal(size=(CONTEXTS, 2))
    as_y = clone(TOKEN_MAP).fit(features, sparse.csr_array(COUNTS))
    as_X = clone(TOKEN_MAP).fit(COUNTS)
    assert_array_equal(as_y.embedding_, as_X.embedding_)
    with pytest.raises(ValueError, match=r"Lookup\(\) places contexts by their counts, which were y in fit; .* 'mlp'"):
        as_y.transform(features)


def test_a_context_counts_as_often_as_it_has_tokens():
    split = np.concatenate([COUNTS, COUNTS[:4], COUNTS[:4]])
    heavy = COUNTS * np.where(np.arange(CONTEXTS) < 4, 3, 1)[:, None]
    long = {"max_iter": 1000, "encoder": encoders.Linear()}
    features = np.random.default_rng(0).normal(size=(CONTEXTS, 4))
    copies = clone(TOKEN_MAP).set_params(**long).fit(np.concatenate([features, features[:4], features[:4]]), split)
    weighted = clone(TOKEN_MAP).set_params(**long).fit(features, heavy)
    assert copies.kl_divergence_ == pytest.approx(weighted.kl_divergence_, rel=1e-5)
    even = clone(TOKEN_MAP).set_params(**long).fit(features, heavy / heavy.sum(axis=1, keepdims=True))
    assert abs(even.kl_divergence_ / weighted.kl_divergence_ - 1) > 1e-3


QS = [DOT, "gaussian", "student_t", learned.Gaussian(metric="cosine", tau=0.2), "harmonic"]
COVERING = [  # each q with each encoder, and either with both methods
    (q, encoder, ("exact", "sampled")[(i + j) % 2])
    for i, q in enumerate(QS)
    for j, encoder in enumerate(["lookup", "linear", "mlp"])
]


@pytest.mark.parametrize(("q", "encoder", "method"), COVERING, ids=str)
def test_kernels_and_encoders_learn(monkeypatch, q, encoder, method):
    monkeypatch.setattr(_token_maps, "_PAIRS_AT_ONCE", 7 * TOKENS)
    embedding = clone(TOKEN_MAP).set_params(learned=q, encoder=encoder, method=method).fit(COUNTS)
    shares = COUNTS.sum(axis=0) / COUNTS.sum()
    of_frequencies = -(COUNTS * np.log(shares)).sum() / COUNTS.sum() - entropy(COUNTS)
    assert embedding.method_ == method
    assert embedding.kl_divergence_ < 0.6 * of_frequencies
    assert embedding.transform(COUNTS).shape == (CONTEXTS, DIM)


@pytest.mark.parametrize("divergence", ["reverse_kl", "jensen_shannon", "total_variation", "squared_hellinger"])
def test_divergences_and_debiasing(divergence):
    options = {"divergence": divergence, "debias": 0.1, "max_iter": 100}
    embedding = clone(TOKEN_MAP).set_params(**options).fit(COUNTS)
    assert 0 <= embedding.kl_divergence_ < 0.3 * embedding.loss_curve_[0]
    smoothed = clone(TOKEN_MAP).set_params(supervisory=supervisory.UniformMixture(supervisory.Counts(), 0.1))
    smoothed.set_params(divergence=divergence, max_iter=100).fit(COUNTS)
    assert smoothed.kl_divergence_ == pytest.approx(embedding.kl_divergence_, rel=1e-6)
    assert np.abs(smoothed.transform(COUNTS[:5] + 1) - embedding.transform(COUNTS[:5] + 1)).max() < 1e-3


def test_debiasing_bounds_what_few_tokens_would_not():
    single = np.eye(6)
    free, held = (clone(TOKEN_MAP).set_params(debias=debias, max_iter=1000).fit(single) for debias in (0.0, 0.2))
    assert np.abs(held.embedding_ @ held.prototypes_.T).max() < 10
    assert np.abs(free.embedding_ @ free.prototypes_.T).max() > 10


@pytest.mark.parametrize("method", ["exact", "sampled"])
def test_same_seed_same_bits_and_pickles(monkeypatch, method):
    monkeypatch.setattr(_token_maps, "_PAIRS_AT_ONCE", 5 * TOKENS)
    estimator = clone(TOKEN_MAP).set_params(method=method, max_iter=50)
    first = clone(estimator).fit(COUNTS)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    second = clone(estimator).fit(COUNTS)
    assert_array_equal(first.embedding_, second.embedding_)
    assert_array_equal(first.prototypes_, second.prototypes_)
    assert np.abs(clone(estimator).set_params(random_state=1).fit(COUNTS).embedding_ - first.embedding_).max() > 1e-3
    again = pickle.loads(pickle.dumps(first))
    assert_array_equal(again.transform(COUNTS + 1), first.transform(COUNTS + 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_the_counts(dtype):
    embedding = clone(TOKEN_MAP).fit(COUNTS.astype(dtype))
    assert embedding.embedding_.dtype == embedding.prototypes_.dtype == embedding.transform(COUNTS + 1).dtype == dtype
    assert embedding.kl_divergence_ == pytest.approx(clone(TOKEN_MAP).fit(COUNTS).kl_divergence_, rel=0.02)
    assert_array_equal(clone(TOKEN_MAP).fit(COUNTS.astype(int)).embedding_, clone(TOKEN_MAP).fit(COUNTS).embedding_)


def test_a_start_that_is_given_and_a_warm_one():
    start = np.random.default_rng(0).normal(size=(CONTEXTS, DIM))
    slow = clone(TOKEN_MAP).set_params(method="sampled", learning_rate=1e-9, max_iter=3)
    assert_allclose(slow.set_params(init=start).fit(COUNTS).embedding_, start, atol=1e-6)
    with pytest.raises(ValueError, match="init has shape"):
        clone(TOKEN_MAP).set_params(init=start[:4]).fit(COUNTS)
    warm = clone(TOKEN_MAP).set_params(warm_start=True, max_iter=20).fit(COUNTS)
    before = warm.kl_divergence_
    warm.fit(COUNTS)
    assert warm.loss_curve_[0] < before + 1e-9
    assert warm.kl_divergence_ < before


def test_a_map_of_rows_has_no_prototypes():
    embedding = clone(TOKEN_MAP).set_params(max_iter=5).fit(COUNTS)
    embedding.set_params(supervisory="knn", learned="student_t", encoder="linear", n_neighbors=3).fit(COUNTS)
    assert not hasattr(embedding, "prototypes_")


def test_as_many_tokens_as_contexts():
    square = COUNTS[:TOKENS] + 1
    embedding = clone(TOKEN_MAP).set_params(learned="gaussian").fit(square)
    assert embedding.kl_divergence_ < 0.1 * embedding.loss_curve_[0]
    with pytest.raises(ValueError, match="normalization='joint' needs keys that are the rows, but those of Counts"):
        ICONEmbedding(supervisory="counts").fit(square)


# --- new contexts -------------------------------------------------------------------------------------------------


def test_new_contexts_have_the_least_loss_alone():
    embedding = clone(TOKEN_MAP).fit(COUNTS[:15])
    new = COUNTS[15:] + 1
    placed = embedding.transform(new)
    assert_allclose(np.concatenate([embedding.transform(new[[i]]) for i in range(len(new))]), placed, atol=1e-12)
    assert_allclose(embedding.transform(sparse.csr_array(new)), placed, atol=1e-12)
    for counts, place in zip(new, placed, strict=True):

        def loss(z, counts=counts):
            logits = embedding.prototypes_ @ z
            return np.log(np.exp(logits).sum()) - counts @ logits / counts.sum()

        best = optimize.minimize(loss, np.zeros(DIM), tol=1e-12)
        assert loss(place) < best.fun + 1e-5
        assert np.abs(place - best.x).max() < 0.02


def test_fitted_contexts_return_to_their_places():
    doubled = np.concatenate([COUNTS, COUNTS[:3]])
    embedding = clone(TOKEN_MAP).fit(doubled)
    assert_array_equal(embedding.transform(doubled[::-1])[::-1], embedding.embedding_)
    assert_array_equal(embedding.embedding_[:3], embedding.embedding_[-3:])


@pytest.mark.parametrize("encoder", ["lookup", "linear"])
def test_contexts_without_tokens(encoder):
    counts = COUNTS.copy()
    counts[[2, 7]] = 0
    with pytest.warns(UserWarning, match=r"2 of 23 rows have no positive .* the first are \[2, 7\]"):
        embedding = clone(TOKEN_MAP).set_params(encoder=encoder).fit(counts)
    assert_array_equal(embedding.kl_per_sample_[[2, 7]], 0)
    if encoder == "lookup":
        assert_array_equal(embedding.embedding_[[2, 7]], 0)
        assert_array_equal(clone(TOKEN_MAP).fit(COUNTS).transform(counts[[2]]), np.zeros((1, DIM)))


def test_documents_in_a_pipeline():
    about = {"fruit": "apple pear plum cherry juice", "metal": "iron copper zinc tin alloy"}
    rng = np.random.default_rng(0)
    labels = np.array(["fruit", "metal"])[rng.integers(2, size=60)]
    texts = [" ".join(rng.choice(about[label].split(), 6)) for label in labels]
    model = make_pipeline(CountVectorizer(), clone(TOKEN_MAP).set_params(n_components=2), LogisticRegression())
    model.fit(texts[:40], labels[:40])
    assert model.score(texts[40:], labels[40:]) == 1


# --- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalization": "joint"}, "'joint' needs keys that are the rows, but those of Counts.*='conditional'"),
        ({"learned": "wide_gaussian"}, r"the loss of WideGaussian\(\) is no distribution over tokens"),
        ({"learned": "narrow_gaussian"}, r"the loss of NarrowGaussian\(\) is no distribution over tokens"),
        ({"learned": "cluster"}, "is a distribution over clusters"),
        ({"method": "interpolation"}, "method='interpolation' needs keys that are the rows, not tokens"),
        ({"divergence": "reverse_kl"}, "is infinite where p is zero; set debias > 0"),
    ],
)
def test_what_does_not_go_with_tokens(changes, message):
    with pytest.raises(ValueError, match=message):
        clone(TOKEN_MAP).set_params(**changes).fit(COUNTS)


def test_counts_that_are_none():
    with pytest.raises(ValueError, match="Negative values in data"):
        clone(TOKEN_MAP).fit(-COUNTS)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[23, 3\]"):
        clone(TOKEN_MAP).fit(COUNTS, COUNTS[:3])
    with pytest.raises(ValueError, match="no row has a positive"):
        clone(TOKEN_MAP).fit(np.zeros_like(COUNTS))
