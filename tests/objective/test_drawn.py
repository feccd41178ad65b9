"""Sums estimated from drawn keys against sums over all pairs."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.neighbors import kneighbors_graph

from sklearn_icon import ICONEmbedding, learned
from sklearn_icon._objective import drawn as _drawn
from sklearn_icon._objective.drawn import DrawnPotential
from sklearn_icon._objective.grid import joint_grid_normalizer
from sklearn_icon._objective.normalizers import joint_normalizer

KERNELS = [learned.StudentT(), learned.StudentT(df=2.0), learned.StudentT(df=3.0), learned.Gaussian(2.0)]
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=repr)


def points(n=240, d=6):
    """Clusters of unlike density, and copies."""
    z = np.random.RandomState(0).standard_normal((n, d)) * np.where(np.arange(n) < n // 2, 0.4, 3.0)[:, None]
    z[:20] = z[0]
    return torch.as_tensor(z, dtype=torch.float32)


def near_of(z, k=8):
    return sparse.csr_array(kneighbors_graph(z.numpy(), k, include_self=True))


def exact_potentials(kernel, z, charges):
    z = z.double().requires_grad_()
    sq = (z[:, None] - z.detach()).square().sum(2)
    values = kernel.log_kernel(sq).exp() @ charges.double()
    return values.detach(), torch.autograd.grad(values.sum(), z)[0]


@each_kernel
def test_estimates_are_right_on_average(monkeypatch, kernel):
    monkeypatch.setattr(_drawn, "_KEYS", 40)
    z, charges = points(), torch.as_tensor(np.random.RandomState(1).uniform(0.5, 2, 240), dtype=torch.float32)
    exact = torch.cat([part.reshape(240, -1) for part in exact_potentials(kernel, z, charges)], dim=1)
    potential = DrawnPotential(kernel, near_of(z), np.random.RandomState(2))
    found = [
        torch.cat([v[:, None], g], dim=1) for v, g in (potential.potential(z.numpy(), charges) for _ in range(300))
    ]
    found = torch.stack(found).double()
    for values, truth in ((found, exact), (found.mean(1), exact.mean(0))):
        error = values.std(0) / len(values) ** 0.5
        assert ((values.mean(0) - truth).abs() < 5 * error + 1e-4).double().mean() > 0.998
    alone = DrawnPotential(kernel, sparse.csr_array((240, 240)), np.random.RandomState(2))
    worse = torch.stack([alone.potential(z.numpy(), charges)[0] for _ in range(50)]).std(0)
    assert found[:, :, 0].std(0).mean() < worse.mean()


@each_kernel
@pytest.mark.parametrize("way", ["all drawn", "all near", "all checked"])
def test_all_keys_are_exact(monkeypatch, kernel, way):
    z = points()
    if way != "all drawn":
        monkeypatch.setattr(_drawn, "_KEYS", 10)
    near = sparse.csr_array(np.ones((240, 240))) if way == "all near" else near_of(z)
    potential = DrawnPotential(kernel, near, np.random.RandomState(0), checked=way == "all checked")
    value, gradient = joint_grid_normalizer(potential, z)
    exact, of_exact = joint_normalizer(kernel, z.double())
    assert value == pytest.approx(exact, abs=1e-5)
    assert (gradient - of_exact).norm() < 1e-5 * of_exact.norm()


def test_the_checked_loss_comes_near(monkeypatch):
    monkeypatch.setattr(_drawn, "_KEYS", 60)
    monkeypatch.setattr(_drawn, "_CHECKED", 60)
    z = points()
    exact = joint_normalizer(learned.StudentT(), z.double())[0]
    errors = {}
    for checked in (False, True):
        potential = DrawnPotential(learned.StudentT(), near_of(z), np.random.RandomState(3), checked=checked)
        errors[checked] = np.mean([abs(joint_grid_normalizer(potential, z)[0] - exact) for _ in range(20)])
    assert errors[True] < errors[False] / 2


def test_maps_come_near_exact_ones():
    from sklearn.datasets import load_digits

    rows, options = load_digits().data[:450], {"perplexity": 10, "n_neighbors": 30, "max_iter": 150, "random_state": 0}
    exact = ICONEmbedding(6, method="exact", **options).fit(rows)
    near = ICONEmbedding(6, method="sampled", **options).fit(rows)
    assert (near.method_, near.stop_reason_) == ("sampled", exact.stop_reason_)
    assert near.kl_divergence_ == pytest.approx(exact.kl_divergence_, rel=0.05)
