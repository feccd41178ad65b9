"""Interpolated sums against the exact ones."""

import numpy as np
import pytest
import torch

from sklearn_icon import ICONEmbedding, learned
from sklearn_icon._objective import grid as _grid
from sklearn_icon._objective.grid import GridPotential, joint_grid_normalizer, row_grid_normalizers
from sklearn_icon._objective.normalizers import joint_normalizer, known, log_normalizer

KERNELS = [
    learned.StudentT(),
    learned.StudentT(df=0.5),
    learned.StudentT(df=5.0),
    learned.Gaussian(),
    learned.Gaussian(3.0),
]
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=repr)


def points(n, n_components, scale, seed=0):
    rng = np.random.RandomState(seed)
    return torch.as_tensor(scale * rng.standard_normal((n, n_components))).requires_grad_()


def joint_log_normalizer(kernel, z):
    return known(z, *joint_normalizer(kernel, z.detach()))


def grid_normalizer(grid, z, joint):
    return known(z, *joint_grid_normalizer(grid, z.detach())) if joint else row_grid_normalizers(grid, z)


@each_kernel
@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 10.0])
def test_joint_normalizer(kernel, n_components, scale):
    z = points(600, n_components, scale)
    exact, near = joint_log_normalizer(kernel, z), grid_normalizer(GridPotential(kernel), z, joint=True)
    assert float((near - exact).detach()) == pytest.approx(0, abs=6e-4)
    of_exact, of_near = (torch.autograd.grad(value, z)[0] for value in (exact, near))
    assert (of_near - of_exact).norm() < 0.025 * of_exact.norm()


@each_kernel
@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize("scale", [1e-4, 1e-2])
def test_small_maps_in_single_precision(kernel, n_components, scale):
    grid = GridPotential(kernel)
    z = points(5000, n_components, scale * grid.scale).detach()
    _, of_exact = joint_normalizer(kernel, z)
    _, of_near = joint_grid_normalizer(grid, z.float())
    assert (of_near - of_exact).norm() < 0.025 * of_exact.norm()


@each_kernel
@pytest.mark.parametrize("n_components", [1, 2])
def test_row_normalizers(kernel, n_components):
    z = points(600, n_components, 3.0)
    mass = torch.as_tensor(np.random.RandomState(1).uniform(size=600))
    exact = log_normalizer(kernel, z, z, exclude_self=True, n_choices=599)
    near = grid_normalizer(GridPotential(kernel), z, joint=False)
    crowded = exact.detach() > -3  # a row far from all others has a sum too small for a grid to tell
    assert (near - exact)[crowded].abs().max() < 4e-3
    of_exact, of_near = (torch.autograd.grad(value @ mass, z)[0] for value in (exact, near))
    assert (of_near - of_exact).norm() < 0.025 * of_exact.norm()


@pytest.mark.parametrize("n_components", [1, 2])
def test_transforms_of_other_devices_agree(monkeypatch, n_components):
    z = points(100, n_components, 5.0).detach()
    value, gradient = joint_grid_normalizer(GridPotential(learned.StudentT()), z)
    monkeypatch.setattr(_grid, "_fourier", lambda device, n_threads: (torch.fft, "dim", {}))
    other_value, other_gradient = joint_grid_normalizer(GridPotential(learned.StudentT()), z)
    assert other_value == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(other_gradient, gradient, atol=1e-12)


def test_finer_grids_come_closer_at_the_third_order():
    z = points(800, 2, 12.0)
    (exact,) = torch.autograd.grad(joint_log_normalizer(learned.StudentT(), z), z)
    errors = []
    for spacing in (0.4, 0.2):
        grid = GridPotential(learned.StudentT(), spacing=spacing)
        (near,) = torch.autograd.grad(grid_normalizer(grid, z, joint=True), z)
        errors.append(float((near - exact).norm()))
    assert errors[1] < errors[0] / 2**2.5


def test_the_gradient_is_that_of_the_interpolated_value():
    grid, z = GridPotential(learned.StudentT()), points(50, 2, 2.0)
    (gradient,) = torch.autograd.grad(grid_normalizer(grid, z, joint=True), z)
    direction = points(50, 2, 1.0, seed=2).detach()
    direction[z.detach().argmin(0)] = direction[z.detach().argmax(0)] = 0  # the corners hold the grid where it is
    step = 1e-5
    up, down = (grid_normalizer(grid, z + sign * step * direction, joint=True) for sign in (1, -1))
    assert float((up - down).detach()) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


def test_the_transform_stands_while_the_grid_does():
    grid, z = GridPotential(learned.StudentT()), points(100, 2, 5.0).detach()
    grid.potential(grid.place(z), torch.ones(100, dtype=z.dtype))
    before = grid._transform
    place = grid.place(z + 3.0)
    grid.potential(place, torch.ones(100, dtype=z.dtype))
    assert (grid._transform is before) == (grid.place(z).spacing == place.spacing)
    far = grid.place(1e6 * z)
    assert far.nodes <= 1500  # bounded in memory, coarser instead


@pytest.mark.parametrize("normalization", ["joint", "conditional"])
@pytest.mark.parametrize("kernel", ["student_t", "gaussian"])
def test_maps_are_as_good_as_exact_ones(kernel, normalization):
    from sklearn.datasets import load_digits

    rows = load_digits().data[:500]
    options = {"learned": kernel, "normalization": normalization, "max_iter": 300, "random_state": 0}
    exact = ICONEmbedding(method="exact", **options).fit(rows)
    near = ICONEmbedding(method="interpolation", **options).fit(rows)
    assert near.method_ == "interpolation"
    assert near.kl_divergence_ == pytest.approx(exact.kl_divergence_, rel=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"n_components": 3},
        {"debias": 0.1},
        {"encoder": "linear"},
        {"supervisory": "knn", "learned": learned.Gaussian(metric="cosine")},
    ],
)
def test_interpolation_where_it_cannot_be(options):
    with pytest.raises(ValueError, match="method='interpolation' needs encoder='lookup', n_components of 1 or 2"):
        ICONEmbedding(method="interpolation", **options).fit(np.random.RandomState(0).uniform(size=(50, 4)))


@pytest.mark.parametrize(
    "options", [{"divergence": "jensen_shannon"}, {"debias": 0.1}, {"learned": learned.StudentT("learn")}]
)
def test_sampling_where_it_cannot_be(options):
    with pytest.raises(ValueError, match="method='sampled' needs an encoder to train, or divergence='kl', debias=0"):
        ICONEmbedding(method="sampled", **options).fit(np.random.RandomState(0).uniform(size=(50, 4)))
