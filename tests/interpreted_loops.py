"""The compiled loops over all pairs against naive ones, run by triton's interpreter on CPU tensors.

`test_fused.py` runs this file in a process of its own, as triton reads TRITON_INTERPRET where it is imported.
"""

import os

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_iris

from sklearn_icon import ICONEmbedding
from sklearn_icon._objective import fused as _fused
from sklearn_icon._objective import grid as _grid
from sklearn_icon._objective import normalizers as _sums
from sklearn_icon._objective import objective as _objective
from sklearn_icon._objective.attraction import FusedEdges
from sklearn_icon._objective.fused import RowLogNormalizer, joint_sums
from sklearn_icon._objective.grid import GridPotential
from sklearn_icon._objective.normalizers import joint_normalizer, log_normalizer
from sklearn_icon._objective.objective import Objective
from sklearn_icon.learned import Gaussian, StudentT
from sklearn_icon.supervisory import UniformKNN

assert os.environ["TRITON_INTERPRET"] == "1"
# The interpreter computes with NumPy, which warns of what a GPU does in silence and the loops leave out.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero) encountered:RuntimeWarning")

LOG_KERNELS = {
    "student-1": (StudentT(), lambda sq: -(1 + sq).log()),
    "student-0.5": (StudentT(df=0.5), lambda sq: -0.75 * (1 + sq / 0.5).log()),
    "student-40": (StudentT(df=40.0), lambda sq: -20.5 * (1 + sq / 40).log()),
    "gaussian": (Gaussian(sigma=0.7), lambda sq: -sq / (2 * 0.7**2)),
}
each_kernel = pytest.mark.parametrize(("spec", "log_kernel"), list(LOG_KERNELS.values()), ids=list(LOG_KERNELS))
SPANS = {"one tile": (128, 1), "many tiles": (16, 1), "many spans": (16, 1 << 20), "spans of two tiles": (8, 20)}


@pytest.fixture(params=list(SPANS.values()), ids=list(SPANS))
def spans(request, monkeypatch):
    """Keys of a tile, and programs that are wanted, which set the spans."""
    monkeypatch.setattr(_fused, "_KEYS", request.param[0])
    monkeypatch.setattr(_fused, "_PROGRAMS", request.param[1])


@pytest.fixture
def fused(monkeypatch):
    """The loops in place of tiles, on the CPU."""
    monkeypatch.setattr(_fused, "_KEYS", 16)
    for module in (_sums, _objective):
        monkeypatch.setattr(module, "can_fuse", lambda learned, z: True)


def places(n, d, dtype=torch.float64):
    """Normal places, the last one that of the second row."""
    z = np.random.default_rng(0).normal(scale=2.0, size=(n, d))
    z[-1] = z[1] if n > 2 else z[-1]
    return torch.as_tensor(z, dtype=dtype)


def naive_row_log_z(log_kernel, z):
    sq = (z[:, None] - z[None]).square().sum(2)
    return log_kernel(sq).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf).logsumexp(1)


def assert_near(found, expected, rtol):
    """Within a share of the largest entry."""
    expected = np.asarray(expected)
    assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


def check_joint(spec, log_kernel, z, rtol):
    total, push = joint_sums(spec.slope_terms, z)
    exact = z.double().requires_grad_()
    expected = naive_row_log_z(log_kernel, exact).logsumexp(0).exp()
    assert total.dtype == torch.float64 and push.dtype == z.dtype and push.shape == z.shape
    assert_allclose(total, expected.detach(), rtol=rtol)
    assert_near(push, torch.autograd.grad(expected, exact)[0], rtol)


def check_rows(spec, log_kernel, z, rtol):
    z, exact = z.requires_grad_(), z.detach().double().requires_grad_()
    weights = torch.linspace(-1, 2, len(z), dtype=torch.float64)
    found, expected = RowLogNormalizer.apply(spec.slope_terms, z), naive_row_log_z(log_kernel, exact)
    assert found.dtype == z.dtype
    assert_near(found.detach(), expected.detach(), rtol)
    (gradient,) = torch.autograd.grad(found @ weights.to(z.dtype), z)
    assert_near(gradient, torch.autograd.grad(expected @ weights, exact)[0], rtol)


@each_kernel
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("check", [check_joint, check_rows])
def test_double_precision(spans, check, spec, log_kernel, d):
    check(spec, log_kernel, places(37, d), 1e-10)


@each_kernel
@pytest.mark.parametrize("d", [1, 2, 3, 8])
@pytest.mark.parametrize("check", [check_joint, check_rows])
def test_single_precision(check, spec, log_kernel, d):
    check(spec, log_kernel, places(37, d, torch.float32), 5e-6)


@each_kernel
@pytest.mark.parametrize("check", [check_joint, check_rows])
@pytest.mark.parametrize(("n", "d"), [(2, 2), (3, 8), (129, 2)])
def test_few_rows_many_dimensions_and_more_rows_than_a_tile(check, spec, log_kernel, n, d):
    check(spec, log_kernel, places(n, d), 1e-10)


@each_kernel
def test_gradient_by_finite_differences(spec, log_kernel):
    z = places(5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: RowLogNormalizer.apply(spec.slope_terms, z), z)


@each_kernel
def test_the_same_bits_at_every_run(spec, log_kernel, monkeypatch):
    monkeypatch.setattr(_fused, "_KEYS", 16)
    z = places(37, 2, torch.float32).requires_grad_()

    def everything():
        log_z = RowLogNormalizer.apply(spec.slope_terms, z)
        return [*joint_sums(spec.slope_terms, z), log_z.detach(), torch.autograd.grad(log_z.sum(), z)[0]]

    for first, second in zip(everything(), everything(), strict=True):
        assert_array_equal(first, second)


@each_kernel
@pytest.mark.parametrize(("d", "at_once"), [(1, 4), (2, 4), (3, 64)])
def test_edges(monkeypatch, spec, log_kernel, d, at_once):
    """Of rows without edges, with few and with more than are summed at once."""
    monkeypatch.setattr(_fused, "_EDGES", at_once)
    z = places(13, d).requires_grad_()
    dense = np.random.default_rng(1).random((13, 13)) * (np.random.default_rng(2).random((13, 13)) < 0.2)
    dense[:, 0], dense[5], dense[0, 0] = dense[5] + 0.1, 0, 0
    dense = dense + dense.T
    dense[9] = dense[:, 9] = 0
    weights = sparse.csr_array(dense)
    sq = (z[:, None] - z[None]).square().sum(2)
    expected = (torch.as_tensor(dense) * log_kernel(sq)).sum()
    expected_gradient = torch.autograd.grad(expected, z)[0]
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 5e-6)):
        edges = FusedEdges(weights, dtype, "cpu")
        value, gradient = edges.sum_and_gradient(spec, z.detach().to(dtype))
        assert value == pytest.approx(float(expected.detach()), rel=rtol) and gradient.dtype == dtype
        assert_near(gradient, expected_gradient, rtol)
        assert edges.sum_and_gradient(spec, z.detach().to(dtype), with_value=False)[0] is None


def test_edges_far_apart():
    """Squares that overflow add nothing that is not a number."""
    z = torch.tensor([[0.0, 0.0], [1e30, 0.0], [1.0, 0.0]])
    weights = sparse.csr_array(np.array([[0, 0, 1.0], [0, 0, 0], [1.0, 0, 0]]))
    value, gradient = FusedEdges(weights, torch.float32, "cpu").sum_and_gradient(StudentT(), z)
    assert value == pytest.approx(-2 * np.log(2)) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [3, 130])
def test_points_on_a_grid(monkeypatch, dtype, n):
    """Spread and read as torch does; of all points and of some."""
    monkeypatch.setattr(_grid, "_COMPILED_POINTS", 1000)
    z, charges = places(n, 2, dtype), torch.linspace(-1, 2, n, dtype=dtype)
    grid, rows = GridPotential(StudentT()), slice(1, n)
    monkeypatch.setattr(_grid, "can_fuse", lambda learned, z: True)
    fused, part = grid.place(z), grid.place(z, rows)
    monkeypatch.setattr(_grid, "can_fuse", lambda learned, z: False)
    plain, plain_part = grid.place(z), grid.place(z, rows)
    assert type(fused) is _grid.FusedPlacement and type(plain) is _grid.Placement
    rtol = 1e-12 if dtype == torch.float64 else 3e-6
    field = grid.convolve(plain, plain.spread(charges))
    for found, expected in ((fused, plain), (part, plain_part)):
        q = charges[: len(found.z)]
        assert_near(found.spread(q), expected.spread(q), rtol)
        for one, other in zip(found.read(field), expected.read(field), strict=True):
            assert one.dtype == dtype and one.shape == other.shape
            assert_near(one, other, 10 * rtol)


@each_kernel
def test_equal_rows_are_at_distance_zero(spec, log_kernel):
    z = torch.full((20, 2), 1234.567).requires_grad_()
    total, push = joint_sums(spec.slope_terms, z)
    log_z = RowLogNormalizer.apply(spec.slope_terms, z)
    assert total == 20 * 19 and not push.any()
    assert_allclose(log_z.detach(), np.log(19), rtol=1e-6)
    assert not torch.autograd.grad(log_z.sum(), z)[0].any()


@each_kernel
def test_far_rows(fused, spec, log_kernel):
    """Sums below what linear space holds. In single precision a logarithm of some -1,000 is known to 1e-4."""
    for dtype, rtol in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        z = (200 * places(37, 2)).to(dtype)
        z[-1] += 30
        check_rows(spec, log_kernel, z, rtol)
        exact = z.detach().double().requires_grad_()
        expected = naive_row_log_z(log_kernel, exact).logsumexp(0)
        log_z, push = joint_normalizer(spec, z.detach())
        assert_allclose(log_z, expected.item(), rtol=rtol)
        assert_near(push, torch.autograd.grad(expected, exact)[0], rtol)


def test_overflowing_distances_weigh_nothing(fused):
    z = places(37, 2, torch.float32)
    expected = naive_row_log_z(LOG_KERNELS["gaussian"][1], z[20:].double())
    z[:20] = 1e25
    z.requires_grad_()
    log_z = RowLogNormalizer.apply(LOG_KERNELS["gaussian"][0].slope_terms, z)[20:]
    assert_near(log_z.detach(), expected, 5e-6)
    assert torch.autograd.grad(log_z.sum(), z)[0][20:].isfinite().all()


@each_kernel
@pytest.mark.parametrize("normalization", ["joint", "conditional"])
@pytest.mark.parametrize("n_neighbors", [3, 30])
def test_objective(request, spec, log_kernel, normalization, n_neighbors):
    """Sparse edges and dense ones, the value, the shares of rows and the gradient."""
    z = places(40, 2)
    p = UniformKNN(n_neighbors=n_neighbors).conditional(z.numpy())
    objective = Objective(p, spec, normalization=normalization)

    def everything():
        moving = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(moving), moving)
        value, step = objective.gradient(moving, 4.0)
        return [value, step.detach(), gradient, objective.per_row(z)]

    tiled = everything()
    request.getfixturevalue("fused")
    for found, expected in zip(everything(), tiled, strict=True):
        assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_only_rows_among_themselves(fused, monkeypatch):
    """Other keys, and rows that are keys of their own, take tiles."""
    monkeypatch.setattr(_fused, "_launch", None)
    z, keys = places(7, 2), places(4, 2)
    assert log_normalizer(StudentT(), z, keys, exclude_self=False, n_choices=4).shape == (7,)
    assert log_normalizer(StudentT(), z, z, exclude_self=False, n_choices=7).shape == (7,)


@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_map(request, normalization):
    X = load_iris().data[::5]
    options = {"perplexity": 5.0, "max_iter": 30, "normalization": normalization, "method": "exact"}
    options |= {"learning_rate": 5.0}  # larger steps make more of rounding than there was
    tiled = ICONEmbedding(random_state=0, **options).fit(X)
    request.getfixturevalue("fused")
    found = ICONEmbedding(random_state=0, **options).fit(X)
    assert found.kl_divergence_ == pytest.approx(tiled.kl_divergence_, rel=1e-5)
    assert_near(found.embedding_, tiled.embedding_, 1e-4)
