"""Compiled loops do what the torch operations beside them do."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sklearn_icon import _grid, _sums, learned
from sklearn_icon._grid import GridPotential, grid_normalizer
from sklearn_icon._sums import SparseEdges, edge_sum

PRECISION = {torch.float32: 2e-5, torch.float64: 1e-12}
each_precision = pytest.mark.parametrize("dtype", PRECISION, ids=str)


def value_and_gradient(function, z):
    value = function(z)
    return float(value.detach()), torch.autograd.grad(value, z)[0].numpy()


@each_precision
@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize("kernel", [learned.StudentT(), learned.StudentT(df=3.0), learned.Gaussian(2.0)], ids=repr)
def test_edges(monkeypatch, kernel, n_components, dtype):
    rng = np.random.RandomState(0)
    weights = sparse.random(60, 60, density=0.1, random_state=0)
    edges = SparseEdges(sparse.csr_array(weights + weights.T), dtype, "cpu")
    z = torch.as_tensor(3 * rng.standard_normal((60, n_components)), dtype=dtype).requires_grad_()
    value, gradient = value_and_gradient(lambda z: edge_sum(kernel, z, edges), z)
    monkeypatch.setattr(_sums, "_COMPILED_EDGES", 0)
    compiled_value, compiled_gradient = value_and_gradient(lambda z: edge_sum(kernel, z, edges), z)
    assert compiled_value == pytest.approx(value, rel=PRECISION[dtype])
    np.testing.assert_allclose(compiled_gradient, gradient, atol=PRECISION[dtype] * np.abs(gradient).max())


@each_precision
@pytest.mark.parametrize("joint", [True, False])
def test_grid(monkeypatch, dtype, joint):
    z = torch.as_tensor(5 * np.random.RandomState(0).standard_normal((300, 2)), dtype=dtype).requires_grad_()

    def normalizer(z):
        return grid_normalizer(GridPotential(learned.StudentT()), z, joint).sum()

    value, gradient = value_and_gradient(normalizer, z)
    monkeypatch.setattr(_grid, "_COMPILED_POINTS", 0)
    compiled_value, compiled_gradient = value_and_gradient(normalizer, z)
    assert compiled_value == pytest.approx(value, rel=PRECISION[dtype])
    np.testing.assert_allclose(compiled_gradient, gradient, atol=10 * PRECISION[dtype] * np.abs(gradient).max())
