"""Compiled loops do what the torch operations beside them do."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sklearn_icon import learned
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._core.team import Team
from sklearn_icon._objective import grid as _grid
from sklearn_icon._objective.attraction import CompiledEdges, SparseEdges
from sklearn_icon._objective.grid import GridPotential, joint_grid_normalizer, row_grid_normalizers
from sklearn_icon._objective.objective import Objective
from sklearn_icon._optim import methods as _methods
from sklearn_icon._optim.solver import minimize
from sklearn_icon._training import placement as _placement

PRECISION = {torch.float32: 2e-5, torch.float64: 1e-12}
each_precision = pytest.mark.parametrize("dtype", PRECISION, ids=str)


@pytest.fixture
def threads():
    """Three threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@each_precision
@pytest.mark.parametrize("n_components", [1, 2, 5])
@pytest.mark.parametrize("kernel", [learned.StudentT(), learned.StudentT(df=3.0), learned.Gaussian(2.0)], ids=repr)
def test_edges(threads, kernel, n_components, dtype):
    rng = np.random.RandomState(0)
    weights = sparse.random(60, 60, density=0.1, random_state=0)
    weights = sparse.csr_array(weights + weights.T)
    z = torch.as_tensor(3 * rng.standard_normal((60, n_components)), dtype=dtype)
    compiled = CompiledEdges(weights, dtype, n_components)
    assert len(compiled.pulls) == 3
    value, gradient = SparseEdges(weights, dtype, "cpu").sum_and_gradient(kernel, z)
    for _ in range(2):
        compiled_value, compiled_gradient = compiled.sum_and_gradient(kernel, z)
        assert compiled_value == pytest.approx(value, rel=PRECISION[dtype])
        scale = gradient.abs().max().item()
        np.testing.assert_allclose(compiled_gradient, gradient, atol=PRECISION[dtype] * scale)
        no_value, same = compiled.sum_and_gradient(kernel, z, with_value=False)
        assert no_value is None
        np.testing.assert_array_equal(same, compiled_gradient)


@each_precision
def test_rough_edges_are_the_heaviest_with_all_the_weight(threads, dtype):
    weights = sparse.random(60, 60, density=0.3, random_state=1)
    weights.data **= 4
    weights = sparse.csr_array(sparse.triu(weights, 1) + sparse.triu(weights, 1).T)
    z = torch.as_tensor(3 * np.random.RandomState(1).standard_normal((60, 2)), dtype=dtype)
    compiled, kernel = CompiledEdges(weights, dtype), learned.StudentT()
    value, _ = compiled.sum_and_gradient(kernel, z)
    rough_value, gradient = compiled.sum_and_gradient(kernel, z, rough=True)
    falling = np.sort(weights.data)[::-1]
    least = falling[np.searchsorted(np.cumsum(falling), 0.9 * falling.sum())]
    kept = weights.copy()
    kept.data[kept.data < least] = 0
    kept.eliminate_zeros()
    assert kept.nnz < 0.6 * weights.nnz
    kept.data *= weights.data.sum() / kept.data.sum()
    expected = SparseEdges(kept, dtype, "cpu").sum_and_gradient(kernel, z)[1]
    assert rough_value == value  # of all edges
    np.testing.assert_allclose(gradient, expected, atol=PRECISION[dtype] * expected.abs().max().item())


@each_precision
def test_joint_grid(monkeypatch, threads, dtype):
    z = torch.as_tensor(5 * np.random.RandomState(0).standard_normal((300, 2)), dtype=dtype)
    value, gradient = joint_grid_normalizer(GridPotential(learned.StudentT()), z)
    monkeypatch.setattr(_grid, "_COMPILED_POINTS", 0)
    compiled_value, compiled_gradient = joint_grid_normalizer(GridPotential(learned.StudentT()), z)
    assert compiled_value == pytest.approx(value, rel=PRECISION[dtype])
    np.testing.assert_allclose(compiled_gradient, gradient, atol=10 * PRECISION[dtype] * gradient.abs().max().item())


@each_precision
def test_row_grid(monkeypatch, threads, dtype):
    z = torch.as_tensor(5 * np.random.RandomState(0).standard_normal((300, 2)), dtype=dtype).requires_grad_()
    mass = torch.as_tensor(np.random.RandomState(1).uniform(size=300), dtype=dtype)
    results = []
    for compiled_from in (_grid._COMPILED_POINTS, 0):
        monkeypatch.setattr(_grid, "_COMPILED_POINTS", compiled_from)
        value = row_grid_normalizers(GridPotential(learned.StudentT()), z) @ mass
        results.append((float(value.detach()), torch.autograd.grad(value, z)[0]))
    assert results[1][0] == pytest.approx(results[0][0], rel=PRECISION[dtype])
    scale = results[0][1].abs().max().item()
    np.testing.assert_allclose(results[1][1], results[0][1], atol=10 * PRECISION[dtype] * scale)


@each_precision
@pytest.mark.parametrize("max_step", [0.05, torch.inf])
def test_momentum(monkeypatch, dtype, max_step):
    rng = np.random.RandomState(0)
    start, target = (torch.as_tensor(rng.standard_normal((40, 2)), dtype=dtype) for _ in range(2))
    ends = []
    for compiled_from in (_methods._COMPILED_SIZE, 0):
        monkeypatch.setattr(_methods, "_COMPILED_SIZE", compiled_from)
        z = start.clone().requires_grad_()
        solver = _methods.Momentum(0.05, momentum=0.8, max_step=max_step)
        minimize(lambda z=z: (z - target).square().sum(), [z], solver, max_iter=30)
        ends.append(z.detach())
    np.testing.assert_allclose(ends[1], ends[0], atol=100 * PRECISION[dtype])
    assert not torch.equal(ends[0], start)


def test_parts_cover_all_items_evenly(threads):
    weights = np.random.RandomState(0).randint(0, 9, size=1000)
    parts = Team().split_by_weight(weights)
    assert len(parts) == 3
    assert [i for part in parts for i in range(1000)[part]] == list(range(1000))
    sums = [weights[part].sum() for part in parts]
    assert max(sums) - min(sums) < 20


@pytest.mark.parametrize("size", [None, 2, 5])
def test_parts_of_equal_items(threads, size):
    parts = Team().split(1000, size)
    assert [i for part in parts for i in range(1000)[part]] == list(range(1000))
    assert {part.stop - part.start for part in parts} <= {1000 // (size or 3), 1000 // (size or 3) + 1}


def test_a_team_passes_errors_on(threads):
    def fail(number):
        if number == 2:
            raise ValueError("two")

    with pytest.raises(ValueError, match="two"):
        Team().run(fail, [(0,), (1,), (2,)])


@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize("kernel", [learned.StudentT(), learned.StudentT(df=3.0), learned.Gaussian(2.0)], ids=repr)
def test_new_rows_on_a_grid(monkeypatch, threads, kernel, n_components):
    rng = np.random.RandomState(0)
    frozen = 10 * rng.standard_normal((300, n_components))
    nearest = np.argsort(np.linalg.norm(frozen[:40, None] + 0.1 - frozen, axis=2), axis=1)[:, :5]
    rows = np.repeat(np.arange(40), 5)
    weights = sparse.csr_array((np.full(200, 0.2), (rows, nearest.ravel())), shape=(40, 300))
    exact = _placement.place_rows(weights, frozen, kernel)
    monkeypatch.setattr(_placement, "_GRID_ROWS", 0)
    near = _placement.place_rows(weights, frozen, kernel)
    np.testing.assert_allclose(near, exact, atol=0.02)
    start = np.einsum("ij,ijd->id", np.full((40, 5), 0.2), frozen[nearest])
    assert np.abs(exact - start).max() > 0.1  # it moved
    for row in (0, 17, 39):
        np.testing.assert_array_equal(_placement.place_rows(weights[[row]], frozen, kernel)[0], near[row])


def test_what_is_kept_of_a_plane_is_not_that_of_its_first_axis(monkeypatch):
    monkeypatch.setattr(_placement, "_GRID_ROWS", 0)
    frozen, kept = np.random.RandomState(0).standard_normal((50, 2)), {}
    weights = sparse.csr_array(np.full((3, 4), 0.25) @ np.eye(4, 50))
    _placement.place_rows(weights, frozen, learned.StudentT(), kept)
    line = frozen[:, :1]
    expected = _placement.place_rows(weights, line, learned.StudentT())
    np.testing.assert_array_equal(_placement.place_rows(weights, line, learned.StudentT(), kept), expected)


def test_another_kernel_keeps_the_threads(threads):
    weights = sparse.csr_array(np.ones((4, 4)) - np.eye(4))
    objective = Objective(
        Conditional.from_weights(weights, exclude_self=True), learned.StudentT(), potential=GridPotential
    )
    team = objective.grid.team
    torch.set_num_threads(1)
    objective.relearn(learned.StudentT(df=2.0))
    assert objective.grid.team is team and team.size == 3
    assert objective.grid.learned.df == 2
