from math import exp, log, log1p

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_icon._core.team import Team, torch_threads
from sklearn_icon._objective import normalizers as _sums
from sklearn_icon._objective.attraction import DenseEdges, SparseEdges, symmetric_edges
from sklearn_icon._objective.normalizers import (
    dense_student_t_sums,
    joint_normalizer,
    known,
    log_normalizer,
    over_tiles,
    row_tiles,
    sampled_log_normalizer,
    self_mask,
)
from sklearn_icon.encoders._networks import FixedRows
from sklearn_icon.learned import Gaussian, Harmonic, NarrowGaussian, SharedCluster, StudentT, WideGaussian

N, M, DIM = 7, 4, 2
LOG_KERNELS = {
    "gaussian": (Gaussian(sigma=0.8), lambda sq: -sq / (2 * 0.8**2)),
    "student-1": (StudentT(), lambda sq: -log1p(sq)),
    "student-0.5": (StudentT(df=0.5), lambda sq: -0.75 * log1p(sq / 0.5)),
    "student-5": (StudentT(df=5.0), lambda sq: -3 * log1p(sq / 5)),
}
each_kernel = pytest.mark.parametrize(("spec", "log_kernel"), list(LOG_KERNELS.values()), ids=list(LOG_KERNELS))
ALL_SPECS = {
    **{name: spec for name, (spec, _) in LOG_KERNELS.items()},
    "dot": Gaussian(metric="dot"),
    "harmonic": Harmonic(n=2.0),
    "wide": WideGaussian(),
    "narrow": NarrowGaussian(),
    "cluster": SharedCluster(),
}
each_spec = pytest.mark.parametrize("spec", list(ALL_SPECS.values()), ids=list(ALL_SPECS))
each_tiling = pytest.mark.parametrize("tile_elements", [1 << 18, 3 * N, 1])


@pytest.fixture
def z():
    return torch.as_tensor(np.random.default_rng(0).normal(size=(N, DIM)), dtype=torch.float64)


@pytest.fixture
def keys():
    return torch.as_tensor(np.random.default_rng(1).normal(size=(M, DIM)), dtype=torch.float64)


@pytest.fixture
def weights():
    """Symmetric, sparse, one row without edges."""
    rng = np.random.default_rng(2)
    upper = np.triu(rng.uniform(size=(N, N)) * (rng.uniform(size=(N, N)) < 0.5), 1)
    upper[:, 3] = upper[3] = 0
    return sparse.csr_array(upper + upper.T)


def sq(a, b):
    return sum((s - t) ** 2 for s, t in zip(a.tolist(), b.tolist(), strict=True))


def naive_log_normalizer(log_kernel, z, keys, exclude_self):
    sums = [
        sum(exp(log_kernel(sq(a, b))) for j, b in enumerate(keys) if not (exclude_self and i == j))
        for i, a in enumerate(z)
    ]
    return np.log(sums)


def joint_log_normalizer(spec, z):
    return known(z, *joint_normalizer(spec, z.detach()))


def edge_sum(spec, z, edges):
    return known(z, *edges.sum_and_gradient(spec, z.detach()))


# --- tiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("device", "times"), [("cpu", 1), ("cuda", _sums._TIMES_ON_GPU)])
@pytest.mark.parametrize(("n_rows", "n_keys", "elements"), [(1, 1, 1), (7, 7, 21), (7, 3, 5), (10, 100, 1), (5, 0, 4)])
def test_tiles_cover_every_row_once(monkeypatch, n_rows, n_keys, elements, device, times):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", elements)
    tiles, elements = row_tiles(n_rows, n_keys, torch.device(device)), elements * times
    assert [row for tile in tiles for row in range(tile.start, tile.stop)] == list(range(n_rows))
    assert all(tile.stop - tile.start == 1 or (tile.stop - tile.start) * n_keys <= elements for tile in tiles)


def test_mask_of_the_rows_own_keys():
    tile = torch.zeros(2, 4)
    assert self_mask(tile, slice(1, 3)).nonzero().tolist() == [[0, 1], [1, 2]]
    assert self_mask(tile, slice(-1, None)).nonzero().tolist() == [[1, 0]]
    assert not self_mask(tile, slice(7, 9)).any()
    assert_array_equal(tile, 0)


@each_tiling
def test_tiles_are_computed_again_with_the_same_gradient(monkeypatch, z, keys, tile_elements):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
    row_weights = torch.linspace(1, 2, N, dtype=torch.float64)

    def tile(z, keys, row_weights, rows):
        return row_weights[rows] * (z[rows] @ keys.T).exp().sum(1)

    def tiled(*tensors):
        return over_tiles(tile, *tensors)

    inputs = [tensor.requires_grad_() for tensor in (z, keys, row_weights)]
    with torch.no_grad():
        expected = [w * sum(exp(a @ b) for b in keys.numpy()) for a, w in zip(z.numpy(), row_weights, strict=True)]
    assert_allclose(tiled(*inputs).detach(), expected, rtol=1e-13)
    assert torch.autograd.gradcheck(tiled, inputs)


# --- log-normaliser -----------------------------------------------------------------------------------------------


@each_tiling
@each_kernel
@pytest.mark.parametrize("exclude_self", [False, True])
def test_log_normalizer(monkeypatch, z, spec, log_kernel, exclude_self, tile_elements):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
    actual = log_normalizer(spec, z, z, exclude_self=exclude_self, n_choices=N - exclude_self)
    assert_allclose(actual, naive_log_normalizer(log_kernel, z, z, exclude_self), rtol=1e-12)


@each_tiling
@each_kernel
def test_log_normalizer_over_prototypes(monkeypatch, z, keys, spec, log_kernel, tile_elements):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
    actual = log_normalizer(spec, z, keys, exclude_self=False, n_choices=M)
    assert_allclose(actual, naive_log_normalizer(log_kernel, z, keys, False), rtol=1e-12)


@each_tiling
@each_kernel
def test_log_normalizer_over_rows_and_more_keys(monkeypatch, z, keys, spec, log_kernel, tile_elements):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
    both = torch.cat([z, keys])
    actual = log_normalizer(spec, z, both, exclude_self=True, n_choices=N + M - 1)
    assert_allclose(actual, naive_log_normalizer(log_kernel, z, both, True), rtol=1e-12)


@each_spec
def test_log_normalizer_does_not_depend_on_tiles(monkeypatch, z, spec):
    rows, keys = spec.prepare(z, z)
    options = {"exclude_self": not spec.includes_self, "n_choices": N - (not spec.includes_self)}
    whole = log_normalizer(spec, rows, keys, **options)
    for tile_elements in (1, 2 * N, 3 * N + 1):
        monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
        assert_allclose(log_normalizer(spec, rows, keys, **options), whole, rtol=1e-13)


@each_tiling
@each_spec
@pytest.mark.parametrize("exclude_self", [False, True])
def test_gradient_of_the_log_normalizer(monkeypatch, z, spec, exclude_self, tile_elements):
    if isinstance(spec, Harmonic) and not exclude_self:
        return  # its pole is flattened, so that its own key has no derivative
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
    options = {"exclude_self": exclude_self, "n_choices": N - exclude_self}
    assert torch.autograd.gradcheck(lambda z: log_normalizer(spec, z, z, **options), z.requires_grad_())


@each_tiling
@each_spec
def test_gradient_of_the_log_normalizer_over_prototypes(monkeypatch, z, keys, spec, tile_elements):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
    inputs = (z.requires_grad_(), keys.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda z, keys: log_normalizer(spec, z, keys, exclude_self=False, n_choices=M), inputs
    )


@each_kernel
def test_normalizers_from_all_keys_are_exact(z, spec, log_kernel):
    z = z.requires_grad_()
    weight = torch.linspace(0.5, 2, N, dtype=torch.float64)
    exact = log_normalizer(spec, z, z, exclude_self=True, n_choices=N - 1)
    drawn = sampled_log_normalizer(spec, z, torch.arange(N))
    assert_allclose(drawn.detach(), exact.detach(), atol=1e-5)
    expected, actual = (torch.autograd.grad(value @ weight, z)[0] for value in (exact, drawn))
    share = N / (N - 1)  # keys are counted without the row itself, pushes with it
    assert_allclose(actual * share, expected, rtol=1e-4, atol=1e-6)


@each_kernel
def test_normalizers_from_drawn_keys_are_right_on_average(z, spec, log_kernel):
    exact = log_normalizer(spec, z, z, exclude_self=True, n_choices=N - 1).exp()
    rng, total = np.random.default_rng(0), torch.zeros(N, dtype=torch.float64)
    for _ in range(3000):
        total += sampled_log_normalizer(spec, z, torch.as_tensor(rng.permutation(N)[:3])).exp()
    assert_allclose(total / 3000, exact, rtol=0.05)


@each_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_rows_are_no_keys_of_their_own(spec, log_kernel, dtype):
    """Their kernel with themselves is one but for the rounding of a product, beside which all others are nothing."""
    z = 3000 * torch.as_tensor(np.random.default_rng(0).normal(size=(60, 3)))
    drawn = torch.arange(0, 60, 2)
    single, double = z.to(dtype).requires_grad_(), z.clone().requires_grad_()
    actual, expected = (sampled_log_normalizer(spec, rows, drawn) for rows in (single, double))
    others = torch.stack([spec.paired(double[[i]], double[drawn[drawn != i]]).logsumexp(0) for i in range(60)])
    naive = torch.where(torch.arange(60) % 2 == 1, others + log(59 / 30), (others.exp() + 1e-6).log() + log(59 / 29))
    assert_allclose(expected.detach(), naive.detach(), rtol=1e-10)
    assert_allclose(actual.detach(), expected.detach(), rtol=1e-4)
    assert all(
        torch.autograd.grad(value.sum(), rows)[0].isfinite().all()
        for value, rows in [(actual, single), (expected, double)]
    )


# --- joint log-normaliser -----------------------------------------------------------------------------------------


@each_tiling
@each_kernel
def test_joint_log_normalizer(monkeypatch, z, spec, log_kernel, tile_elements):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
    expected = log(sum(exp(log_kernel(sq(a, b))) for i, a in enumerate(z) for j, b in enumerate(z) if i != j))
    assert_allclose(joint_log_normalizer(spec, z), expected, rtol=1e-13)
    assert torch.autograd.gradcheck(lambda z: joint_log_normalizer(spec, z), z.requires_grad_())


@each_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e3, 1e6])
def test_joint_log_normalizer_at_any_scale(z, spec, log_kernel, dtype, scale):
    z = (scale * z).to(dtype).requires_grad_()
    value = joint_log_normalizer(spec, z)
    value.backward()
    exact = z.detach().double().requires_grad_()
    gaps = exact[:, None] - exact[None]
    log_k = spec.log_kernel(gaps.square().sum(2)).masked_fill(torch.eye(N, dtype=bool), -torch.inf)
    log_k.logsumexp((0, 1)).backward()
    log_z = log_k.logsumexp((0, 1)).item()
    assert_allclose(value.item(), log_z, rtol=1e-5 if dtype == torch.float32 else 1e-13)
    share_error = 2 * torch.finfo(dtype).eps * abs(log_z)  # rounding of a log-kernel is a relative error of the kernel
    if share_error < 0.1:
        atol = max(share_error, 1e-5 if dtype == torch.float32 else 1e-12) * abs(exact.grad).max().item()
        assert_allclose(z.grad, exact.grad, rtol=0, atol=atol)
    assert torch.isfinite(z.grad).all()


def test_joint_log_normalizer_of_equal_rows():
    z = torch.zeros(5, 2, requires_grad=True)
    value = joint_log_normalizer(StudentT(), z)
    value.backward()
    assert_allclose(value.detach(), log(20), rtol=1e-6)
    assert_array_equal(z.grad, 0)


def test_many_tiles_are_summed_in_one_thread(monkeypatch):
    """Each operation on a tile is short; threads go on as before."""
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", 100)
    seen, before = [], torch.get_num_threads()

    def tile(z, keys, rows):
        seen.append(torch.get_num_threads())
        return z[rows].sum(1)

    torch.set_num_threads(2)
    try:
        for n in (10, 100):
            z = torch.ones(n, 2)
            with torch.no_grad():
                assert_array_equal(_sums.over_tiles(tile, z, z), 2)
        assert seen[0] == 2 and set(seen[1:]) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- edges --------------------------------------------------------------------------------------------------------


@each_tiling
@each_kernel
@pytest.mark.parametrize("kind", [SparseEdges, DenseEdges])
def test_edge_sum(monkeypatch, z, weights, spec, log_kernel, kind, tile_elements):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", tile_elements)
    edges = kind(weights, torch.float64, "cpu")
    dense = weights.toarray()
    expected = sum(dense[i, j] * log_kernel(sq(z[i], z[j])) for i in range(N) for j in range(N))
    assert_allclose(edge_sum(spec, z, edges), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda z: edge_sum(spec, z, edges), z.requires_grad_())


@each_kernel
def test_edges_of_either_kind_agree_in_single_precision(z, weights, spec, log_kernel):
    expected = sum(w * log_kernel(sq(z[i], z[j])) for (i, j), w in weights.todok().items())
    gradients = []
    for kind in (SparseEdges, DenseEdges):
        rows = z.detach().float().requires_grad_()
        value = edge_sum(spec, rows, kind(weights, torch.float32, "cpu"))
        assert value.dtype == torch.float32
        assert_allclose(value.detach(), expected, rtol=1e-5)
        gradients.append(torch.autograd.grad(value, rows)[0])
    assert_allclose(gradients[0], gradients[1], rtol=0, atol=1e-5)


def test_edges_with_a_diagonal():
    weights = sparse.csr_array(np.eye(3))
    z = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    for kind in (SparseEdges, DenseEdges):
        assert_allclose(edge_sum(Gaussian(), z, kind(weights, torch.float64, "cpu")), 0, atol=1e-14)


def test_edges_need_not_be_sorted(z, weights):
    shuffled = weights.copy()
    for i in range(N):
        part = slice(*shuffled.indptr[i : i + 2])
        shuffled.indices[part], shuffled.data[part] = shuffled.indices[part][::-1], shuffled.data[part][::-1]
    shuffled.has_sorted_indices = False
    actual = edge_sum(StudentT(), z, SparseEdges(shuffled, torch.float64, "cpu"))
    assert_allclose(actual, edge_sum(StudentT(), z, SparseEdges(weights, torch.float64, "cpu")), rtol=1e-14)


@pytest.mark.parametrize(("n_edges", "kind"), [(20, SparseEdges), (21, DenseEdges)])
def test_many_edges_are_held_densely(n_edges, kind):
    matrix = np.zeros((10, 10))
    matrix.flat[:n_edges] = 1
    assert type(symmetric_edges(sparse.csr_array(matrix), StudentT(), torch.float64, "cpu", 2)) is kind


@pytest.mark.parametrize("with_value", [True, False])
@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("df", [1.0, 2.0])
def test_both_sums_in_one_pass(monkeypatch, df, scale, n_components, with_value):
    monkeypatch.setattr(_sums, "_COMPILED_ROWS", 0)
    rng = np.random.default_rng(4)
    weights = rng.uniform(size=(40, 40))
    edges = DenseEdges(sparse.csr_array(weights + weights.T - np.diag(2 * weights.diagonal())), torch.float64, "cpu")
    z, spec = torch.as_tensor(scale * rng.normal(size=(40, n_components))), StudentT(df=df)
    value, pull, log_z, push = dense_student_t_sums(spec, z, edges.weights, with_value)
    expected_value, expected_pull = edges.sum_and_gradient(spec, z)
    expected_log_z, expected_push = joint_normalizer(spec, z)
    assert (value is None) is not with_value
    if with_value:
        assert value == pytest.approx(expected_value, rel=1e-12)
    assert log_z == pytest.approx(expected_log_z, rel=1e-12)
    assert_allclose(pull, expected_pull, rtol=1e-9, atol=1e-12 * abs(expected_pull).max().item())
    assert_allclose(push, expected_push, rtol=1e-9, atol=1e-12 * abs(expected_push).max().item())


@pytest.mark.parametrize("team_size", [None, 1, 3])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0])
@pytest.mark.parametrize("n_components", [1, 2])
def test_all_pairs_by_a_compiled_loop(monkeypatch, n_components, scale, dtype, rtol, team_size):
    """1 / (1 + d^2) and 4 sum_j -k_ij^2 (z_i - z_j) over each pair of different rows, by rows, and by no tile."""
    z = torch.as_tensor(scale * np.random.default_rng(5).normal(size=(40, n_components)), dtype=dtype)
    offsets = z.double()[:, None] - z.double()
    kernels = (1 / (1 + offsets.square().sum(2))).fill_diagonal_(0)
    push = -4 * (kernels.square()[:, :, None] * offsets).sum(1)
    team = None
    if team_size:
        with torch_threads(team_size):
            team = Team()
    monkeypatch.setattr(_sums, "_COMPILED_ROWS", 0)
    monkeypatch.setattr(_sums, "_tiled_joint_sums", None)
    log_z, of_log_z = joint_normalizer(StudentT(), z, team)
    assert log_z == pytest.approx(kernels.sum().log().item(), rel=rtol)
    expected = push / kernels.sum()
    assert of_log_z.dtype == dtype
    assert_allclose(of_log_z, expected, rtol=rtol, atol=10 * rtol * abs(expected).max().item())


@pytest.mark.parametrize("kernel", [StudentT(), StudentT(df=2.0), Gaussian()], ids=repr)
@pytest.mark.parametrize("n_components", [2, 3])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_all_pairs_where_the_loop_does_not_serve(monkeypatch, scale, n_components, kernel):
    """Other kernels, more dimensions, and rows so far apart that single precision loses their kernels beside one."""
    z = torch.as_tensor(scale * np.random.default_rng(6).normal(size=(40, n_components)), dtype=torch.float32)
    log_z, push = joint_normalizer(kernel, z)
    monkeypatch.setattr(_sums, "_COMPILED_ROWS", 0)
    found = joint_normalizer(kernel, z)
    assert found[0] == pytest.approx(log_z, rel=1e-5)
    assert_allclose(found[1], push, rtol=1e-4, atol=1e-5 * abs(push).max().item())


# --- sparse features ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_product_of_sparse_rows(make):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(6, 5)) * (rng.uniform(size=(6, 5)) < 0.4)
    W = torch.as_tensor(rng.normal(size=(5, 3)), dtype=torch.float64).requires_grad_()
    rows = FixedRows(make(X), torch.float64, "cpu")
    assert_allclose((rows @ W).detach(), X @ W.detach().numpy(), rtol=1e-13)
    assert torch.autograd.gradcheck(lambda W: rows @ W, W)
    transposed = W.detach().T.contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda V: rows @ V.T, transposed)
