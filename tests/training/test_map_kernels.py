"""Maps under kernels of one's own, and the accuracy of the loss that is reported."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_iris, make_blobs

from sklearn_icon import ICONEmbedding, learned, supervisory
from sklearn_icon._estimators import embedding as _embedding
from sklearn_icon._objective import objective as _objective
from sklearn_icon.learned import DistanceKernel


class Laplace(DistanceKernel):
    """exp(-d / h)."""

    def __init__(self, h=1.0):
        self.h = h

    def log_kernel(self, sq_distance):
        return -sq_distance.sqrt() / self.h

    def slope(self, sq_distance):
        return -0.5 / sq_distance.sqrt() / self.h


class LaplaceByAutograd(DistanceKernel):
    def log_kernel(self, sq_distance):
        return -sq_distance.sqrt()


class ClampedLaplace(DistanceKernel):
    def log_kernel(self, sq_distance):
        return -(sq_distance + 1e-12).sqrt()


class Matern(DistanceKernel):
    """Once differentiable: (1 + d) exp(-d)."""

    def log_kernel(self, sq_distance):
        d = sq_distance.sqrt()
        return d.log1p() - d

    def slope(self, sq_distance):
        return -0.5 / (1 + sq_distance.sqrt())


class Flat(DistanceKernel):
    """exp(-d^4), without curvature at zero."""

    def log_kernel(self, sq_distance):
        return -sq_distance.square()


class Quadratic(DistanceKernel):
    """(1 + d^2 / 4)^-2, smooth, by autograd."""

    def log_kernel(self, sq_distance):
        return -2 * (sq_distance / 4).log1p()


class QuadraticWithSlope(Quadratic):
    def slope(self, sq_distance):
        return -2 / (4 + sq_distance)


KINKED = [Laplace(), Laplace(h=0.03), LaplaceByAutograd(), ClampedLaplace(), Matern(), Flat()]
SMOOTH = [Quadratic(), QuadraticWithSlope()]


def exact_kl(P, Z, log_kernel):
    """KL of the joint forms in double precision, over all pairs."""
    P = (P + P.T) / (2 * len(P))
    log_k = log_kernel(torch.as_tensor(cdist(Z, Z, "sqeuclidean"))).numpy()
    np.fill_diagonal(log_k, -np.inf)
    i, j = P.nonzero()
    return (P[i, j] * (np.log(P[i, j]) - log_k[i, j])).sum() + np.log(np.exp(log_k).sum())


@pytest.mark.parametrize(
    "kernel",
    [learned.StudentT(), learned.StudentT(df=0.1), learned.Gaussian(3.0), learned.Gaussian(1e-3), *SMOOTH],
    ids=repr,
)
def test_smooth_kernels_are_known(kernel):
    assert DistanceKernel.smooth_at_zero.fget(kernel) and kernel.rounded() is kernel


@pytest.mark.parametrize("kernel", KINKED, ids=repr)
def test_kernels_with_kinks_are_known(kernel):
    assert not kernel.smooth_at_zero
    held, near = kernel.rounded(), torch.tensor([0.0, 1e-30], dtype=torch.float64)
    assert torch.isfinite(held.log_kernel(near)).all() and torch.isfinite(held.slope(near)).all()
    sq = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.equal(held.log_kernel(sq), kernel.log_kernel(sq)) and held.get_params() == kernel.get_params()


@pytest.mark.parametrize("kernel", [Laplace(), Matern()], ids=repr)
def test_a_kernel_with_a_kink_is_not_interpolated(kernel):
    with pytest.raises(ValueError, match="smooth at zero"):
        ICONEmbedding(learned=kernel, method="interpolation").fit(load_iris().data)


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("kernel", [*KINKED, SMOOTH[0]], ids=repr)
def test_maps_of_small_data_under_kernels_of_ones_own(kernel, n_components):
    X = np.vstack([load_iris().data[::2], load_iris().data[:6]])  # some rows are equal
    p = supervisory.Gaussian(perplexity=10)
    m = ICONEmbedding(n_components, supervisory=p, learned=kernel, max_iter=20, random_state=0).fit(X)
    assert m.method_ == "exact" and m.learned_.get_params() == kernel.get_params()
    expected = exact_kl(p.conditional(X).toarray(), m.embedding_, kernel.rounded().log_kernel)
    assert m.kl_divergence_ == pytest.approx(expected, abs=1e-4, rel=1e-4)
    placed = m.transform(X[:7] + 0.01)
    np.testing.assert_array_equal(placed[3:4], m.transform(X[3:4] + 0.01))
    assert np.isfinite(placed).all()


@pytest.mark.parametrize("kernel", [Laplace(), Matern(), *SMOOTH], ids=repr)
@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_maps_of_more_rows_under_kernels_of_ones_own(monkeypatch, kernel, normalization):
    for module, name in [(_embedding, "_EXACT_LIMIT"), (_embedding, "_SUMMED_LIMIT")]:
        monkeypatch.setattr(module, name, 300)
    X = make_blobs(400, 5, random_state=0)[0].astype(np.float32)
    p = supervisory.Gaussian(perplexity=6)
    m = ICONEmbedding(supervisory=p, learned=kernel, normalization=normalization, max_iter=20, random_state=0).fit(X)
    assert m.method_ == ("interpolation" if kernel.smooth_at_zero else "sampled")
    assert np.isfinite(m.embedding_).all() and 0 < m.kl_divergence_ < 10
    assert np.isfinite(m.transform(X[:5] + 1)).all()


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({}, "exact"),
        ({"n_components": 1}, "exact"),
        ({"learned": learned.StudentT(df=2.0)}, "interpolation"),
        ({"learned": "gaussian"}, "interpolation"),
        ({"normalization": "conditional"}, "interpolation"),
        ({"divergence": "jensen_shannon"}, "interpolation"),
    ],
)
def test_loops_over_all_pairs_are_exact_for_a_third_more_rows(monkeypatch, options, method):
    monkeypatch.setattr(_embedding, "_EXACT_LIMIT", 60)
    X = np.random.RandomState(0).randn(81, 4)
    fit = ICONEmbedding(perplexity=5, max_iter=3, device="cpu", random_state=0, **options).fit
    assert fit(X[:80]).method_ == method and fit(X).method_ == "interpolation" and fit(X[:60]).method_ == "exact"


def test_a_smooth_kernel_of_ones_own_at_the_size_of_compiled_loops():
    X = make_blobs(3500, 6, random_state=0)[0]
    m = ICONEmbedding(learned=QuadraticWithSlope(), max_iter=4, random_state=0).fit(X)
    assert m.method_ == "interpolation" and np.isfinite(m.transform(X[:3] + 0.1)).all()


@pytest.mark.parametrize(
    ("kernel", "exact_rows", "n_components"),  # each with each value of the others
    [
        (learned.StudentT(), 0, 1),
        (learned.StudentT(), 10_000, 2),
        (learned.Gaussian(), 0, 2),
        (learned.Gaussian(), 10_000, 1),
    ],
    ids=str,
)
def test_the_loss_of_a_gridded_map_is_within_1e_4(monkeypatch, kernel, exact_rows, n_components):
    monkeypatch.setattr(_objective, "EXACT_ROWS", exact_rows)
    X = np.random.RandomState(1).randn(900, 8)
    p = supervisory.Gaussian(perplexity=12)
    m = ICONEmbedding(n_components, method="interpolation", supervisory=p, learned=kernel, random_state=0).fit(X)
    expected = exact_kl(p.conditional(X).toarray(), m.embedding_, kernel.log_kernel)
    assert m.kl_divergence_ == pytest.approx(expected, abs=1e-4)
    assert m.kl_per_sample_.mean() == pytest.approx(m.kl_divergence_, rel=1e-6)


@pytest.mark.parametrize("n", [12, 40, 400])
@pytest.mark.parametrize("learning_rate", ["auto", 300.0])
@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_a_sampled_map_reports_its_exact_loss(n, learning_rate, normalization):
    X = np.random.RandomState(n).randn(n, 4)
    p = supervisory.Gaussian(perplexity=3)
    options = {"method": "sampled", "normalization": normalization, "learning_rate": learning_rate}
    m = ICONEmbedding(supervisory=p, late_exaggeration=3.0, max_iter=5, random_state=0, **options).fit(X)
    assert np.isfinite(m.kl_per_sample_).all() and np.isfinite(m.embedding_).all()
    if normalization == "joint":
        expected = exact_kl(p.conditional(X).toarray(), m.embedding_, learned.StudentT().log_kernel)
        assert m.kl_divergence_ == pytest.approx(expected, abs=1e-4, rel=1e-4)
