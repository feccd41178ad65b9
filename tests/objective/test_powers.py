"""Sums of a kernel of a power over all pairs by a compiled loop, next to naive sums."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sklearn_icon import ICONEmbedding, learned, methods, supervisory
from sklearn_icon._objective import ways
from sklearn_icon._objective.attraction import PowerEdges, SparseEdges
from sklearn_icon._objective.grid import joint_grid_normalizer, row_grid_normalizers
from sklearn_icon._objective.normalizers import log_normalizer
from sklearn_icon._objective.objective import Objective
from sklearn_icon._objective.powers import PowerMap, PowerPotential, power_map, power_series
from sklearn_icon._objective.ways import has_power_loop

each = pytest.mark.parametrize(
    "kernel", [learned.Rational(), learned.Rational(1e-3, 5.0), learned.Rational(0.9, 1.0)], ids=str
)
ROWS = np.random.default_rng(1).normal(size=(60, 4))


def points(n=60, width=8.0, dtype=torch.float32):
    z = width * np.random.RandomState(0).standard_normal((n, 2))
    z[1] = z[0]  # rows that meet
    z[2] = 1e4  # and one far away
    return torch.as_tensor(z, dtype=dtype)


@each
@pytest.mark.parametrize("width", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_potentials_against_naive_sums(kernel, width, dtype):
    z, charges = points(width=width, dtype=dtype), torch.linspace(-1, 2, 60, dtype=dtype)
    potential = PowerPotential(kernel)
    value, gradient = potential.potential(potential.place(z), charges)
    assert value.dtype == gradient.dtype == dtype
    free = z.double().requires_grad_()
    sq = (free[:, None] - free.detach()).square().sum(-1)
    wanted = kernel.log_kernel(sq).exp() @ charges.double()
    (wanted_gradient,) = torch.autograd.grad(wanted.sum(), free)
    scale = charges.abs().sum().item()
    np.testing.assert_allclose(value, wanted.detach(), atol=3e-6 * scale)
    np.testing.assert_allclose(gradient, wanted_gradient, atol=3e-6 * scale / kernel._sq_width() ** 0.5)


@each
def test_normalisers_are_the_exact_ones(kernel):
    z = points()
    log_z, push = joint_grid_normalizer(PowerPotential(kernel), z)
    free = z.double().requires_grad_()
    exact = log_normalizer(kernel, free, free, exclude_self=True, n_choices=59)
    assert log_z == pytest.approx(exact.logsumexp(0).item(), abs=1e-4)
    (wanted,) = torch.autograd.grad(exact.logsumexp(0), free, retain_graph=True)
    np.testing.assert_allclose(push, wanted, atol=1e-4 * wanted.abs().max().item())
    near = torch.cat([z[:2], z[3:]]).double().requires_grad_()  # of a far row alone nothing is left to differ
    of_rows = row_grid_normalizers(PowerPotential(kernel), near)
    exact = log_normalizer(kernel, near, near, exclude_self=True, n_choices=58)
    found, wanted = (torch.autograd.grad(rows.exp().sum(), near, retain_graph=True)[0] for rows in (of_rows, exact))
    np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.abs().max().item())


def objective_of(kernel, p, **how):
    how = {"normalization": "joint", "n_components": 2, "dtype": torch.float32, "potential": PowerPotential} | how
    return Objective(p.conditional(ROWS), kernel, **how)


@each
@pytest.mark.parametrize("width", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(
    "p", [supervisory.UniformKNN(6), supervisory.Gaussian(perplexity=20)], ids=str
)  # few edges and many
@pytest.mark.parametrize("exaggeration", [1.0, 3.0])
def test_loss_and_gradient_of_a_map_by_one_call(kernel, width, p, exaggeration):
    z = points(width=width)
    free = z.double().requires_grad_()
    sq = (free[:, None] - free).square().sum(-1)
    weights = p.conditional(ROWS).toarray()
    joint = torch.as_tensor(weights + weights.T) / 120
    log_k = kernel.log_kernel(sq)
    log_z = (log_k.exp() * (1 - torch.eye(60))).sum().log()
    attraction = (joint * log_k).sum()
    (wanted,) = torch.autograd.grad(log_z - exaggeration * attraction, free)
    found = power_map(objective_of(kernel, p))
    value, gradient = found.gradient(z, exaggeration, True)
    entropy = (joint * joint.clamp_min(1e-300).log()).sum()
    assert value == pytest.approx((entropy - attraction + log_z).item(), abs=1e-4)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5 * wanted.abs().max().item())
    value, alone = found.gradient(z, exaggeration, False)
    assert value is None
    assert torch.equal(alone, gradient)


def test_which_maps_are_one_call():
    p = supervisory.UniformKNN(6)
    assert power_map(objective_of(learned.Rational(), p)) is not None
    for how in ({"normalization": "conditional"}, {"dtype": torch.float64}, {"divergence": "jensen_shannon"}):
        assert power_map(objective_of(learned.Rational(), p, **how)) is None


def test_a_map_too_wide_is_an_error():
    with pytest.raises(FloatingPointError, match="outgrown"):
        PowerPotential(learned.Rational()).place(1e25 * points())
    with pytest.raises(FloatingPointError, match="outgrown"):
        power_map(objective_of(learned.Rational(), supervisory.UniformKNN(6))).gradient(1e25 * points(), 1.0, True)


def test_which_maps_are_summed_so():
    assert has_power_loop(learned.Rational(), 1000, 2, "cpu")
    assert not has_power_loop(learned.Rational(), 100_000, 2, "cpu")
    assert not has_power_loop(learned.Rational(), 50, 2, "cpu")
    assert not has_power_loop(learned.Rational(), 1000, 1, "cpu")
    assert not has_power_loop(learned.StudentT(), 1000, 2, "cpu")


@each
@pytest.mark.parametrize("width", [0.01, 1.0, 30.0])
def test_pulls_along_edges_are_those_of_torch(kernel, width):
    weights = sparse.random_array((60, 60), density=0.1, rng=np.random.default_rng(0)).tocsr()
    weights, z = (weights + weights.T).tocsr(), points(width=width)
    power, plain = (kind(weights, torch.float32, "cpu") for kind in (PowerEdges, SparseEdges))
    wanted = SparseEdges(weights, torch.float64, "cpu").sum_and_gradient(kernel, z.double())
    value, pull = power.sum_and_gradient(kernel, z, with_value=False)
    assert value is None
    np.testing.assert_allclose(pull, wanted[1], atol=3e-6 * wanted[1].abs().max().item())
    assert power.sum_and_gradient(kernel, z)[0] == plain.sum_and_gradient(kernel, z)[0]


def test_series_are_those_of_single_precision():
    logs, exps = power_series()
    f = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(np.polynomial.Polynomial(logs)(f) * f, np.log2(1 + f), atol=5e-7)
    np.testing.assert_allclose(np.polynomial.Polynomial(exps)(f), 2**f, rtol=5e-7)


def test_a_map_by_the_loops_is_that_by_tiles(monkeypatch):
    X, how = np.random.RandomState(1).standard_normal((550, 5)), {"max_iter": 30, "n_jobs": 1, "init": "pca"}
    made, gradient = [], PowerMap.gradient
    monkeypatch.setattr(PowerMap, "gradient", lambda self, z, *how: made.append(len(z)) or gradient(self, z, *how))
    by_loops = methods.get("umap").make_estimator(**how).fit(X)
    assert len(made) > 20
    monkeypatch.setattr(ways, "_LEAST_POWERED", 1000)
    by_tiles = methods.get("umap").make_estimator(method="exact", **how).fit(X)
    assert by_loops.method_ == "exact"
    assert by_loops.kl_divergence_ == pytest.approx(by_tiles.kl_divergence_, rel=1e-4)
    spread = np.ptp(by_tiles.embedding_)
    np.testing.assert_allclose(by_loops.embedding_, by_tiles.embedding_, atol=1e-2 * spread)


@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_rows_that_are_their_own_keys_are_summed_with_themselves(normalization, monkeypatch):
    X = np.random.RandomState(1).standard_normal((150, 2))
    how = {"supervisory": supervisory.Identity(), "learned": learned.Rational(), "normalization": normalization}
    m = ICONEmbedding(init=X, max_iter=10, random_state=0, **how)
    found = m.fit_transform(X)
    assert np.abs(found - X).max() > 0.1  # it moved
    monkeypatch.setattr(ways, "_LEAST_POWERED", 1000)
    np.testing.assert_allclose(found, m.fit_transform(X), atol=1e-3 * np.ptp(found))
