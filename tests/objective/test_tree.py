"""Sums by a tree against sums over all pairs in double precision."""

import numpy as np
import pytest
import torch

from sklearn_icon import ICONEmbedding, learned
from sklearn_icon._core.team import Team
from sklearn_icon._objective.grid import joint_grid_normalizer, row_grid_normalizers
from sklearn_icon._objective.normalizers import joint_normalizer, log_normalizer
from sklearn_icon._objective.tree import Tree, TreePotential
from sklearn_icon._objective.ways import can_use_tree

KERNELS = [learned.StudentT(), learned.StudentT(df=0.5), learned.StudentT(df=2.0), learned.Gaussian(3.0)]
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=repr)


def points(n=900, scale=8.0, seed=0):
    """Two clusters, copies in one of them, and far outliers."""
    z = scale * np.random.RandomState(seed).standard_normal((n, 3))
    z[: n // 2, 0] += 5 * scale
    z[n // 9 : n // 6] = z[0]
    z[-3:] *= 1e4
    return torch.as_tensor(z, dtype=torch.float32)


@pytest.fixture(params=[1, 3])
def team(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield Team()
    torch.set_num_threads(before)


@each_kernel
def test_joint_normalizer(team, kernel):
    z = points()
    value, gradient = joint_normalizer(kernel, z.double())
    for angle, of_value, of_gradient in ((0.5, 6e-3, 0.02), (0.1, 1e-4, 1e-3), (0.0, 1e-5, 1e-5)):
        near, push = joint_grid_normalizer(TreePotential(kernel, team, angle), z)
        assert near == pytest.approx(value, abs=of_value)
        assert (push - gradient).norm() <= of_gradient * gradient.norm()


@each_kernel
def test_normalizers_of_rows(kernel):
    z, mass = points().requires_grad_(), torch.as_tensor(np.random.RandomState(1).uniform(size=900))
    exact = log_normalizer(kernel, z.double(), z.double(), exclude_self=True, n_choices=len(z) - 1)
    near = row_grid_normalizers(TreePotential(kernel, angle=0.2), z).double()
    crowded = exact.detach() > -6  # a row far from all others has a sum too small beside its own kernel
    assert (near - exact)[crowded].abs().max() < 0.02
    of_exact, of_near = (torch.autograd.grad(value[crowded] @ mass[crowded], z)[0] for value in (exact, near))
    assert (of_near - of_exact).norm() < 5e-3 * of_exact.norm()


def test_a_tree_holds_each_point_once(team):
    z = points(1000)
    tree = Tree(z, team)
    np.testing.assert_array_equal(np.sort(tree.order), np.arange(1000))
    leaves = tree.bounds[2**tree.depth - 1 :]
    assert leaves[0, 0] == 0 and leaves[-1, 1] == 1000 and np.diff(leaves).max() <= 32
    np.testing.assert_array_equal(leaves[1:, 0], leaves[:-1, 1])


@pytest.mark.parametrize("n", [1, 2, 33])
def test_few_points_or_one_place(team, n):
    kernel = learned.StudentT()
    for z in (torch.zeros(n, 3), points(40)[:n]):
        values, slopes = TreePotential(kernel, team).potential(Tree(z, team), torch.ones(n))
        expected = kernel.log_kernel((z[:, None] - z).square().sum(2)).exp().sum(1)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        assert torch.isfinite(slopes).all()


def test_maps_that_have_outgrown_their_precision():
    z = points(40)
    z[3] = torch.inf
    with pytest.raises(FloatingPointError, match="the map has outgrown its precision"):
        TreePotential(learned.StudentT()).place(z)


def test_what_a_tree_can_sum():
    from test_objective import P_KINDS

    others, with_self = P_KINDS["some"][0], P_KINDS["identity"][0]
    assert can_use_tree(others, learned.StudentT(), 3) and can_use_tree(others, learned.StudentT("learn"), 3)
    assert not can_use_tree(others, learned.StudentT(), 2)
    assert not can_use_tree(with_self, learned.StudentT(), 3)
    assert not can_use_tree(others.mix(0.1), learned.StudentT(), 3)
    assert not can_use_tree(others, learned.Gaussian(metric="cosine"), 3)


@pytest.mark.parametrize("options", [{}, {"learned": "gaussian", "normalization": "conditional"}])
def test_maps_are_as_good_as_exact_ones(options):
    from sklearn.datasets import load_digits

    rows, options = load_digits().data[:300], {"max_iter": 150, "random_state": 0, **options}
    exact = ICONEmbedding(3, method="exact", **options).fit(rows)
    near = ICONEmbedding(3, method="barnes_hut", **options).fit(rows)
    assert (exact.method_, near.method_) == ("exact", "barnes_hut")
    assert near.kl_divergence_ == pytest.approx(exact.kl_divergence_, rel=0.03)


def test_the_angle_counts():
    rows = np.random.RandomState(0).standard_normal((300, 5))
    maps = [
        ICONEmbedding(3, method="barnes_hut", angle=angle, max_iter=30, random_state=0).fit_transform(rows)
        for angle in (0.2, 0.2, 0.8)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[2] != maps[0]).any()
