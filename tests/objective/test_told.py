"""Compiled loops of losses that tell pairs one by one, beside the objective that torch differentiates."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_icon import ICONEmbedding, learned, supervisory
from sklearn_icon._objective import normalizers as _sums
from sklearn_icon._objective.objective import Objective
from sklearn_icon._objective.told import PairsTold, pairs_told

N, T = 60, learned.StudentT()
SPECS = [
    learned.NegativeSampling(T),
    learned.NegativeSampling(T, n_negatives=35.0),
    learned.NegativeSampling(T, noise=1.0),
    learned.NegativeSampling(T, n_negatives=2.0, noise=1e-3),
    learned.NoiseContrastive(T),
    learned.NoiseContrastive(T, n_negatives=50.0),
]
each = pytest.mark.parametrize("spec", SPECS, ids=str)


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(N, 5))


def objective_of(X, spec, dtype=torch.float64, n_components=2):
    p = supervisory.UniformKNN(6).conditional(X)
    return Objective(p, spec, dtype=dtype, n_components=n_components)


@each
@pytest.mark.parametrize("scale, n_components", [(0.01, 2), (1.0, 2), (1.0, 1), (30.0, 2)])
def test_value_and_gradient_are_those_of_the_objective(X, spec, scale, n_components):
    z = torch.tensor(scale * np.random.default_rng(1).normal(size=(N, n_components)), requires_grad=True)
    wanted = objective_of(X, spec, n_components=n_components)(z)
    (slope,) = torch.autograd.grad(wanted, z)
    told = PairsTold(objective_of(X, spec, n_components=n_components), n_components)
    value, gradient = told.gradient(z, 1.0, True)
    assert_allclose(value, wanted.item(), rtol=1e-10)
    assert_allclose(gradient, slope, rtol=1e-8, atol=1e-9 * slope.abs().max())
    assert told.gradient(z, 1.0, False)[0] is None
    single = PairsTold(objective_of(X, spec, torch.float32, n_components), n_components)
    value, gradient = single.gradient(z.float(), 1.0, True)
    assert_allclose(value, wanted.item(), rtol=1e-5)
    assert_allclose(gradient, slope, atol=1e-4 * slope.abs().max())


def test_little_noise_in_single_precision(X):
    z = torch.tensor(np.random.default_rng(1).normal(size=(N, 2)), requires_grad=True)
    spec = learned.NegativeSampling(T, noise=1e-9)
    (slope,) = torch.autograd.grad(objective_of(X, spec)(z), z)
    gradient = PairsTold(objective_of(X, spec, torch.float32), 2).gradient(z.float(), 1.0, False)[1]
    assert_allclose(gradient, slope, atol=1e-4 * slope.abs().max())


def test_an_exaggerated_attraction(X):
    z = torch.tensor(np.random.default_rng(1).normal(size=(N, 2)), requires_grad=True)
    objective = objective_of(X, learned.NegativeSampling(T, noise=0.5))
    attraction, repulsion = objective.terms(z)
    wanted = torch.autograd.grad(3 * attraction + repulsion, z)[0]
    assert_allclose(PairsTold(objective, 2).gradient(z, 3.0, False)[1], wanted, rtol=1e-8)
    assert not PairsTold(objective_of(X, learned.NoiseContrastive(T)), 2).serves(3.0)


def test_where_they_serve(X, monkeypatch):
    z = torch.zeros(N, 2)
    assert pairs_told(objective_of(X, SPECS[0]), z) is None  # few rows
    monkeypatch.setattr(_sums, "_COMPILED_ROWS", 10)
    for spec in SPECS:
        assert pairs_told(objective_of(X, spec), z) is not None
    assert pairs_told(objective_of(X, SPECS[0]), torch.zeros(N, 3)) is None
    for spec in (T, learned.NegativeSampling(learned.Rational()), learned.NegativeSampling(learned.StudentT(2.0))):
        assert pairs_told(objective_of(X, spec), z) is None
    weighted = Objective(supervisory.FuzzyUnion(6).conditional(X), SPECS[0], n_components=2)
    assert pairs_told(weighted, z) is None  # rows of other weights


@pytest.mark.parametrize("spec", [SPECS[2], SPECS[4]], ids=str)
def test_maps_are_those_of_torch(X, spec, monkeypatch):
    model = ICONEmbedding(supervisory=supervisory.UniformKNN(6), learned=spec, normalization="conditional")
    model.set_params(max_iter=30, random_state=0)
    slow = model.fit(X).embedding_, model.kl_divergence_
    monkeypatch.setattr(_sums, "_COMPILED_ROWS", 10)
    called = []
    monkeypatch.setattr(PairsTold, "gradient", lambda *args, f=PairsTold.gradient: called.append(0) or f(*args))
    fast = model.fit(X).embedding_, model.kl_divergence_
    assert len(called) > 20
    assert_allclose(fast[0], slow[0], atol=1e-2 * slow[0].std())
    assert_allclose(fast[1], slow[1], rtol=1e-4)
