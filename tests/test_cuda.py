"""On a GPU: every sum equals the CPU's, and so does the quality of a map."""

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, learned
from sklearn_icon._edges import DenseEdges, SparseEdges
from sklearn_icon._grid import GridPotential, joint_grid_normalizer, row_grid_normalizers
from sklearn_icon._sums import joint_normalizer, log_normalizer, sampled_log_normalizer
from sklearn_icon.nn import ICONLoss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")

each_kernel = pytest.mark.parametrize(
    "kernel", [learned.StudentT(), learned.StudentT(df=0.5), learned.Gaussian(2.0)], ids=repr
)


def points(n_components=2):
    return torch.as_tensor(4 * np.random.RandomState(0).standard_normal((300, n_components)))


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
@pytest.mark.parametrize("kind", [SparseEdges, DenseEdges])
def test_edges(kernel, kind):
    weights = sparse.random(300, 300, density=0.05, random_state=0)
    weights = sparse.csr_array(weights + weights.T)
    assert_agree(lambda z: kind(weights, z.dtype, z.device).sum_and_gradient(kernel, z), points())


@each_kernel
@pytest.mark.parametrize("n_components", [1, 2])
def test_joint_normalizers(kernel, n_components):
    assert_agree(lambda z: joint_normalizer(kernel, z), points(n_components))
    assert_agree(lambda z: joint_grid_normalizer(GridPotential(kernel), z), points(n_components))


@each_kernel
def test_normalizers_of_rows(kernel):
    def with_gradient(function):
        def both(z):
            z = z.requires_grad_()
            value = function(z)
            return value.detach(), torch.autograd.grad(value.square().sum(), z)[0]

        return both

    drawn = torch.arange(0, 300, 7)
    assert_agree(with_gradient(lambda z: row_grid_normalizers(GridPotential(kernel), z)), points())
    assert_agree(with_gradient(lambda z: log_normalizer(kernel, z, z, exclude_self=True, n_choices=299)), points())
    assert_agree(with_gradient(lambda z: sampled_log_normalizer(kernel, z, drawn.to(z.device))), points())


@pytest.mark.parametrize("method", ["exact", "interpolation", "sampled"])
@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_maps(method, normalization):
    X = load_digits().data[:800]
    options = {"method": method, "normalization": normalization, "random_state": 0}
    cpu, cuda = (ICONEmbedding(device=device, **options).fit(X) for device in ("cpu", "cuda"))
    assert cuda.device_ == "cuda" and cuda.method_ == method
    assert cuda.kl_divergence_ == pytest.approx(cpu.kl_divergence_, rel=0.05)
    copy = pickle.loads(pickle.dumps(cuda))
    np.testing.assert_array_equal(copy.transform(X[:3]), cuda.embedding_[:3])


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
