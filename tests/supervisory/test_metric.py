"""The metric that is learned on held-out edges."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from sklearn.datasets import load_iris

from sklearn_icon import ICONEmbedding
from sklearn_icon.supervisory import DataLabel, Gaussian, LearnedMetric, UniformKNN
from sklearn_icon.supervisory._metric import expected, held_out_weights, values_at
from sklearn_icon.testing import check_supervisory

RNG = np.random.default_rng(0)
X = np.c_[load_iris().data[::3] + RNG.normal(scale=1e-3, size=(50, 4)), RNG.normal(size=(50, 2))]  # without ties


def naive_objective(w, parts):
    """The log-likelihood of `LearnedMetric`, w_0 first, as loops."""
    n, total = len(parts[0]), 0.0
    for m, part in enumerate(parts):
        for i in range(n):
            for j in np.flatnonzero(part[i]):
                told = w[0] / (n - 1) + sum(w[1 + other] * p[i, j] for other, p in enumerate(parts) if other != m)
                total += part[i, j] * np.log(told)
    return total / (n * len(parts))


@pytest.mark.parametrize("base", [UniformKNN(4), Gaussian(perplexity=3)], ids=["knn", "gaussian"])
def test_weights_as_a_general_solver_finds_them(base):
    rows = X[::3]
    parts = [base.conditional(rows[:, [column]]).toarray() for column in range(4)]
    sparse_parts = [sparse.csr_array(part) for part in parts]
    found = held_out_weights(sparse_parts)
    start = np.full(5, 0.2)
    solved = minimize(
        lambda w: -naive_objective(np.maximum(w, 1e-12), parts),
        start,
        method="SLSQP",
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 200},
    )
    np.testing.assert_allclose(found, solved.x[1:] / solved.x[1:].sum(), atol=2e-3)


def test_em_ends_where_no_weight_can_gain():
    edges, likelihoods = RNG.dirichlet(np.ones(300)), RNG.exponential(size=(6, 300)) ** 3
    w = expected(edges, likelihoods)
    gradient = likelihoods @ (edges / (w @ likelihoods))  # of the log-likelihood; its multiplier is one
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert gradient.max() < 1 + 1e-4
    np.testing.assert_allclose(gradient[w > 1e-3], 1, atol=1e-4)
    for other in RNG.dirichlet(np.ones(6), size=20):  # concave: nothing is better
        assert edges @ np.log(other @ likelihoods) <= edges @ np.log(w @ likelihoods) + 1e-8


def test_values_at_entries():
    one, other = (sparse.random_array((9, 7), density=0.4, rng=seed).tocsr() for seed in (1, 2))
    rows, columns = one.nonzero()
    np.testing.assert_array_equal(values_at(other, one), other.toarray()[rows, columns])
    assert not values_at(sparse.csr_array((9, 7)), one).any()


def test_noise_has_no_weight_and_p_is_that_of_the_scaled_rows():
    spec = LearnedMetric(UniformKNN(10))
    weights, scale = spec.learned_weights(X), spec.learned_scale(X)
    assert weights.sum() == pytest.approx(1)
    assert weights[4:].max() < 0.02 < weights[[0, 2, 3]].min()
    np.testing.assert_allclose(scale**2 * X.var(axis=0), weights, atol=1e-12)
    expected_p = UniformKNN(10).conditional(X * scale).toarray()
    np.testing.assert_array_equal(spec.conditional(X).toarray(), expected_p)
    np.testing.assert_allclose(spec.conditional(sparse.csr_array(X)).toarray(), expected_p, atol=1e-12)


def test_units_do_not_matter():
    spec, units = LearnedMetric(UniformKNN(10)), np.array([1, 1024, 1 / 1024, 64, 0.5, 8])
    np.testing.assert_allclose(spec.learned_weights(X * units), spec.learned_weights(X), atol=1e-6)


def test_blocks():
    spec = LearnedMetric(UniformKNN(10), blocks=[[0, 1], [2, 3], [4, 5]])
    weights, scale = spec.learned_weights(X), spec.learned_scale(X)
    assert weights.shape == (3,)
    assert weights[2] < 0.05
    assert np.ptp(scale[:2]) == 0
    left_out = LearnedMetric(UniformKNN(10), blocks=[[0], [2], [3]])
    assert not left_out.learned_scale(X)[[1, 4, 5]].any()


def test_columns_that_do_not_vary():
    padded = np.c_[X, np.ones(50)]
    spec = LearnedMetric(UniformKNN(10))
    assert spec.learned_weights(padded)[-1] == spec.learned_scale(padded)[-1] == 0
    np.testing.assert_allclose(spec.learned_weights(padded)[:-1], spec.learned_weights(X), atol=1e-12)
    np.testing.assert_array_equal(spec.learned_weights(padded[:, -2:]), [1, 0])


def test_blocks_that_tell_nothing_of_each_other():
    ring = [sparse.csr_array(np.roll(np.eye(30), shift, axis=1)) for shift in (3, 7, 11)]
    with pytest.warns(UserWarning, match="no block of features tells anything of another"):
        np.testing.assert_allclose(held_out_weights(ring), 1 / 3)


def test_draws_of_rows(monkeypatch):
    whole = LearnedMetric(UniformKNN(10)).learned_weights(X)
    monkeypatch.setattr("sklearn_icon.supervisory._metric._NUMBERS", 6 * 6 * 10 * 40)
    drawn = LearnedMetric(UniformKNN(10)).learned_weights(X, random_state=0)
    np.testing.assert_allclose(drawn, whole, atol=0.1)
    assert not np.array_equal(drawn, whole)
    monkeypatch.setattr("sklearn_icon.supervisory._metric._NUMBERS", 6 * 6 * 10)
    with pytest.raises(ValueError, match="6 blocks with 3000 neighbours in all are too many to compare"):
        LearnedMetric(UniformKNN(10)).learned_weights(X)


@pytest.mark.filterwarnings("ignore:.*stopped after")
def test_invariants_and_maps():
    check_supervisory(LearnedMetric(UniformKNN(5)), X)
    how = {"encoder": "linear", "normalization": "conditional", "max_iter": 5, "random_state": 0}
    ours = ICONEmbedding(supervisory=LearnedMetric(UniformKNN(8)), **how).fit(X)
    scaled = UniformKNN(8).conditional(X * LearnedMetric(UniformKNN(8)).learned_scale(X)).toarray()
    np.testing.assert_array_equal(ours.supervisory_.conditional(X).toarray(), scaled)
    assert ours.transform(X[:3] + 1).shape == (3, 2)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"blocks": [[0], [6]]}, "blocks hold the columns .6., but X has those from 0 to 5"),
        ({"blocks": [[0.5], [1]]}, "blocks must hold lists of column numbers"),
        ({"blocks": [0, 1]}, "blocks must hold lists of column numbers"),
        ({"base": DataLabel()}, "must measure distances between rows of features"),
        ({"base": UniformKNN(metric="precomputed")}, "must measure distances between rows of features"),
    ],
    ids=["column", "floats", "flat", "labels", "distances"],
)
def test_bad_input(given, message):
    with pytest.raises(ValueError, match=message):
        LearnedMetric(**{"base": UniformKNN(4)} | given).validate().conditional(X)
