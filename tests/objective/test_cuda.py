"""On a GPU: every sum equals the CPU's, and so does the quality of a map."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits, make_blobs
from torch.testing import assert_close

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, encoders, learned, supervisory
from sklearn_icon._core.device import working_on
from sklearn_icon._graph import cuda as _cuda
from sklearn_icon._graph import search
from sklearn_icon._graph.affinity import gaussian_log_affinity, perplexity_rows, student_t_log_affinity
from sklearn_icon._graph.neighbors import nearest_neighbors
from sklearn_icon._objective import attraction
from sklearn_icon._objective import grid as _grid
from sklearn_icon._objective import normalizers as _sums
from sklearn_icon._objective import objective as _objective
from sklearn_icon._objective.attraction import DenseEdges, FusedEdges, SparseEdges, symmetric_edges
from sklearn_icon._objective.fused import RowLogNormalizer, can_fuse, joint_sums
from sklearn_icon._objective.grid import GridPotential, joint_grid_normalizer, row_grid_normalizers
from sklearn_icon._objective.normalizers import joint_normalizer, log_normalizer, sampled_log_normalizer
from sklearn_icon._training.maps import _nearest_in_map
from sklearn_icon.nn import ICONLoss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")

each_kernel = pytest.mark.parametrize(
    "kernel", [learned.StudentT(), learned.StudentT(df=0.5), learned.Gaussian(2.0)], ids=repr
)


def points(n_components=2, n=300):
    return torch.as_tensor(4 * np.random.RandomState(0).standard_normal((n, n_components)))


def use_tiles(monkeypatch):
    """Leave the compiled loops out."""
    for module in (_sums, _objective, attraction, _grid):
        monkeypatch.setattr(module, "can_fuse", lambda learned, z: False)


@pytest.fixture(params=["loops", "tiles"])
def exact(request, monkeypatch):
    """Exact sums over all pairs by compiled loops, which must run where triton is installed, and by tiles."""
    if request.param == "tiles":
        use_tiles(monkeypatch)
    else:
        pytest.importorskip("triton")
        assert can_fuse(learned.StudentT(), points().cuda())


def on_both(function, z):
    """Function(z) on the CPU and on the GPU, as arrays."""
    results = []
    for device in ("cpu", "cuda"):
        found = function(z.to(device))
        results.append([part.cpu().numpy() if isinstance(part, torch.Tensor) else part for part in found])
    return zip(*results, strict=True)


def assert_agree(function, z):
    for cpu, cuda in on_both(function, z):
        np.testing.assert_allclose(cuda, cpu, rtol=1e-9, atol=1e-12)


@each_kernel
@pytest.mark.parametrize("n_components", [1, 2, 3, 8])
def test_compiled_edges(kernel, n_components):
    """On the GPU each row by a compiled loop, the same bits twice."""
    pytest.importorskip("triton")
    weights = sparse.random(3001, 3001, density=0.05, random_state=0)
    weights, z = sparse.csr_array(weights + weights.T), points(n_components, 3001)
    edges = symmetric_edges(weights, kernel, z.dtype, "cuda", n_components)
    assert type(edges) is FusedEdges
    (value, gradient), again = (edges.sum_and_gradient(kernel, z.cuda()) for _ in range(2))
    right, expected = SparseEdges(weights, z.dtype, "cpu").sum_and_gradient(kernel, z)
    assert value == pytest.approx(right, rel=1e-12) and torch.equal(gradient, again[1])
    assert_close(gradient.cpu(), expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))


@each_kernel
@pytest.mark.parametrize("kind", [SparseEdges, DenseEdges])
def test_edges(kernel, kind):
    weights = sparse.random(300, 300, density=0.05, random_state=0)
    weights = sparse.csr_array(weights + weights.T)
    assert_agree(lambda z: kind(weights, z.dtype, z.device).sum_and_gradient(kernel, z), points())


def with_gradient(function):
    """The function z -> (function(z), the gradient of the sum of its squares)."""

    def both(z):
        z = z.detach().requires_grad_()
        value = function(z)
        return value.detach(), torch.autograd.grad(value.square().sum(), z)[0]

    return both


@each_kernel
@pytest.mark.parametrize(("n_components", "n"), [(1, 300), (2, 3001), (3, 300), (8, 300), (9, 300)])
def test_exact_normalizers(exact, kernel, n_components, n):
    z = points(n_components, n)
    assert_agree(lambda z: joint_normalizer(kernel, z), z)
    assert_agree(with_gradient(lambda z: log_normalizer(kernel, z, z, exclude_self=True, n_choices=n - 1)), z)


@each_kernel
def test_exact_normalizers_of_far_rows(exact, kernel):
    """Too far apart for linear space."""
    assert_agree(lambda z: joint_normalizer(kernel, z), 100 * points(n=10))


@each_kernel
@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_compiled_loops(kernel, n_components):
    """In single precision, the same bits twice, and equal rows at distance zero."""
    pytest.importorskip("triton")
    z = points(n_components, 3001).float().double()
    terms, places = kernel.slope_terms, z.to("cuda", torch.float32)
    rows = with_gradient(lambda z: RowLogNormalizer.apply(terms, z))
    found, again = ([*joint_sums(terms, places), *rows(places)] for _ in range(2))
    log_z, push = joint_normalizer(kernel, z)
    row_log_z, row_push = with_gradient(lambda z: log_normalizer(kernel, z, z, exclude_self=True, n_choices=3000))(z)
    expected = [torch.as_tensor(np.exp(log_z)), push * np.exp(log_z), row_log_z, row_push]
    for first, second, right in zip(found, again, expected, strict=True):
        assert torch.equal(first, second)
        assert (first.cpu().double() - right).abs().max() < 1e-5 * right.abs().max()
    total, push = joint_sums(terms, places[:1].expand(300, -1))
    assert float(total) == pytest.approx(300 * 299, rel=1e-6) and not push.any()


@each_kernel
@pytest.mark.parametrize("n_components", [1, 2])
def test_grids(kernel, n_components):
    z = points(n_components)
    assert_agree(lambda z: joint_grid_normalizer(GridPotential(kernel), z), z)
    if n_components == 2:
        assert_agree(with_gradient(lambda z: row_grid_normalizers(GridPotential(kernel), z)), z)


@each_kernel
def test_compiled_grids(monkeypatch, kernel):
    """By compiled loops and by torch, in either precision."""
    pytest.importorskip("triton")
    for dtype, rtol in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        z, charges = points(n=5000).cuda().to(dtype), torch.linspace(-1, 2, 5000, dtype=dtype, device="cuda")
        grid, found = GridPotential(kernel), []
        for fuses in (True, False):
            monkeypatch.setattr(_grid, "can_fuse", lambda learned, z, fuses=fuses: fuses)
            place = grid.place(z)
            assert type(place) is (_grid.FusedPlacement if fuses else _grid.Placement)
            found.append([place.spread(charges), *grid.potential(place, charges)])
        for one, other in zip(*found, strict=True):
            assert (one - other).abs().max() <= rtol * other.abs().max()


@each_kernel
def test_drawn_keys(kernel):
    drawn = torch.arange(0, 300, 7)
    assert_agree(with_gradient(lambda z: sampled_log_normalizer(kernel, z, drawn.to(z.device))), points())


@pytest.mark.parametrize("method", ["exact", "tiles", "interpolation", "sampled"])
@pytest.mark.parametrize("normalization", ["joint", "conditional"])
@pytest.mark.parametrize("n_neighbors", [None, 30])
def test_maps(monkeypatch, method, normalization, n_neighbors):
    """On dense edges and on sparse ones."""
    if method == "tiles":
        use_tiles(monkeypatch)
        method = "exact"
    X = load_digits().data[:800]
    options = {"method": method, "normalization": normalization, "n_neighbors": n_neighbors, "random_state": 0}
    cpu, cuda = (ICONEmbedding(device=device, **options).fit(X) for device in ("cpu", "cuda"))
    assert cuda.device_ == "cuda" and cuda.method_ == method
    assert cuda.kl_divergence_ == pytest.approx(cpu.kl_divergence_, rel=0.05)
    copy = pickle.loads(pickle.dumps(cuda))
    np.testing.assert_array_equal(copy.transform(X[:3]), cuda.embedding_[:3])


def test_auto_is_exact_where_loops_are_compiled():
    pytest.importorskip("triton")
    X = np.random.RandomState(0).standard_normal((4000, 5))
    assert ICONEmbedding(device="cpu", max_iter=5).fit(X).method_ == "interpolation"
    assert ICONEmbedding(device="cuda", max_iter=5).fit(X).method_ == "exact"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours(monkeypatch, dtype, metric):
    """By group of columns; among them copies, rows far away, and rows so close that rounding leaves them in doubt."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((60_000, 20)).astype(dtype)
    X[:100], X[100:130], X[200:300] = X[100:200], X[100], 1e-7 * X[200:300] + 40
    cpu = nearest_neighbors(X, 15, metric=metric, random_state=0)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    with working_on("cuda"):
        torch.cuda.reset_peak_memory_stats()
        cuda = nearest_neighbors(X, 15, metric=metric, random_state=0)
        assert 0 < torch.cuda.max_memory_allocated() < 4e9
    assert cuda.exact and torch.backends.cuda.matmul.allow_tf32
    np.testing.assert_allclose(cuda.distances, cpu.distances, rtol=1e-6 if dtype == np.float32 else 1e-12)
    np.testing.assert_array_equal(np.sort(cuda.indices), np.sort(cpu.indices))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_in_cells(monkeypatch, dtype):
    monkeypatch.setattr(search, "_DEVICE_ALL", 1e10)
    X = make_blobs(30_000, 20, centers=40, random_state=0)[0].astype(dtype)
    cpu = nearest_neighbors(X, 15, random_state=0)
    with working_on("cuda"):
        cuda, again = (nearest_neighbors(X, 15, random_state=0) for _ in range(2))
    found = np.mean(cuda.distances <= cpu.distances[:, -1:] * (1 + 1e-6))
    assert not cuda.exact and 0.95 < found <= 1 and abs(cuda.recall - found) < 0.02
    np.testing.assert_array_equal(cuda.indices, again.indices)


def test_neighbours_in_a_map():
    z, rows = points(2, 3000), np.arange(0, 3000, 7)
    expected, found = (_nearest_in_map(z.to(device), rows, 11) for device in ("cpu", "cuda"))
    np.testing.assert_array_equal(np.sort(found), np.sort(expected))


@pytest.mark.parametrize("log_affinity", [gaussian_log_affinity, partial(student_t_log_affinity, df=2.0)])
def test_affinities(log_affinity):
    sq_distances = np.random.RandomState(0).gamma(2.0, size=(30_000, 91))
    sq_distances[:30] = 0
    cpu = perplexity_rows(sq_distances, 30.0, log_affinity)
    with working_on("cuda"):
        cuda = perplexity_rows(sq_distances, 30.0, log_affinity)
    np.testing.assert_allclose(cuda, cpu, rtol=1e-9, atol=1e-13)


def test_fits_search_where_they_work(monkeypatch):
    """And a fit on the CPU allocates nothing on the GPU."""
    X = np.random.RandomState(0).standard_normal((6000, 20))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    cpu = ICONEmbedding(device="cpu", random_state=0).fit(X)
    assert torch.cuda.max_memory_allocated() == before
    asked = []
    found = _cuda.nearest_rows

    def spied(X, k, n_spare, device, **more):
        asked.append(device)
        return found(X, k, n_spare, device, **more)

    monkeypatch.setattr(_cuda, "nearest_rows", spied)
    cuda = ICONEmbedding(device="cuda", random_state=0).fit(X)
    assert asked == ["cuda"] and cuda.kl_divergence_ == pytest.approx(cpu.kl_divergence_, rel=0.05)


def test_clusters_and_classes():
    X, y = load_digits(return_X_y=True)
    clusters = ICONClustering(10, device="cuda", random_state=0).fit(X[:800])
    assert isinstance(clusters.cluster_centers_, np.ndarray) and len(np.unique(clusters.labels_)) == 10
    cpu, cuda = (ICONClassifier(device=device, random_state=0).fit(X[:800] / 16, y[:800]) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda.coef_, cpu.coef_, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("p", ["same_class", "data_label", "knn"])
def test_loss_of_a_training_loop(p):
    y = torch.arange(300) % 4 if p != "knn" else points(3)
    keys = points()[:4] if p == "data_label" else None
    loss = ICONLoss(p, learned.Gaussian(metric="cosine", tau=0.5), "jensen_shannon", debias=0.1)

    def value_and_gradient(z):
        z = z.requires_grad_()
        value = loss(z, y, None if keys is None else keys.to(z.device))  # y may lie on the CPU
        return value.detach(), torch.autograd.grad(value, z)[0]

    assert_agree(value_and_gradient, points())


def test_views():
    X = load_digits().data[:300].astype(np.float32)
    p = supervisory.PositivePairs(lambda batch: batch + torch.randn_like(batch))
    encoder = encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP()))
    options = {"supervisory": p, "encoder": encoder, "max_iter": 20, "random_state": 0}
    state = torch.cuda.get_rng_state()
    cpu, cuda = (ICONEmbedding(8, device=device, **options).fit(X) for device in ("cpu", "cuda"))
    assert cuda.kl_divergence_ == pytest.approx(cpu.kl_divergence_, rel=0.05)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    np.testing.assert_allclose(cuda.transform(X), cuda.embedding_, rtol=1e-3, atol=1e-3)
