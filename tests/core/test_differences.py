"""Squared distances from differences: precise where rows are near, whatever a matrix product makes of them."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_icon import learned
from sklearn_icon._core.differences import sq_distances_by_differences
from sklearn_icon._objective.objective import Objective
from sklearn_icon.nn import ICONLoss
from sklearn_icon.supervisory import DataLabel, SameClass

N, M, DIM = 7, 4, 3
DTYPES = [torch.float32, torch.float64]
POLES = {"harmonic": learned.Harmonic(n=2.0), "mixture": learned.UniformMixture(learned.Harmonic(), 0.2)}
each_pole = pytest.mark.parametrize("spec", POLES.values(), ids=list(POLES))


def points(dtype=torch.float64, far=0.0):
    """Rows and keys; the first keys lie on a row, next to one, and nearer than a product's rounding."""
    rng = np.random.default_rng(0)
    z, keys = torch.as_tensor(rng.normal(size=(N, DIM)) + far), torch.as_tensor(rng.normal(size=(M, DIM)) + far)
    z, keys = z.to(dtype), keys.to(dtype)
    keys[:3] = z[:3]
    keys[1] += 1e-3
    keys[2] *= 1 + 8 * torch.finfo(dtype).eps
    return z, keys


class Noise(TorchDispatchMode):
    """Products of single precision with an error of their rounding, as another processor may make it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        return result + 3e-7 * (args[0].abs() @ args[1].abs()) if function is torch.ops.aten.mm.default else result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("far", [0.0, 100.0])
def test_equal_a_naive_loop_relatively(dtype, far):
    z, keys = points(dtype, far)
    expected = [[sum((s - t) ** 2 for s, t in zip(a, b, strict=True)) for b in keys.tolist()] for a in z.tolist()]
    actual = sq_distances_by_differences(z, keys)
    assert actual.dtype == dtype
    assert_allclose(actual, expected, rtol=8 * torch.finfo(dtype).eps)
    assert actual[0, 0] == 0 and actual[2, 2] > 0


def test_derivatives():
    inputs = [tensor.requires_grad_() for tensor in points()]
    assert torch.autograd.gradcheck(sq_distances_by_differences, inputs)
    assert torch.autograd.gradgradcheck(sq_distances_by_differences, inputs)
    assert torch.autograd.gradcheck(lambda z: sq_distances_by_differences(z, z), inputs[:1])
    assert sq_distances_by_differences(*inputs).sum().requires_grad


def test_of_nothing():
    empty = torch.zeros(0, DIM, requires_grad=True)
    assert sq_distances_by_differences(empty, points()[1].float()).shape == (0, M)
    assert_array_equal(sq_distances_by_differences(torch.zeros(2, 0), torch.zeros(3, 0)), np.zeros((2, 3)))


def test_differences_are_not_held():
    kept = []
    z, keys = (tensor.requires_grad_() for tensor in points())
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        sq_distances_by_differences(z, keys)
    assert sorted(kept) == [M * DIM, N * DIM]


@each_pole
@pytest.mark.parametrize("far", [0.0, 100.0])
def test_a_pole_is_as_precise_in_all_pairs_as_in_some(spec, far):
    z, keys = (tensor[:M].requires_grad_() for tensor in points(torch.float32, far))
    paired, pairwise = spec.paired(z, keys), spec.pairwise(z, keys).diagonal()
    assert_allclose(pairwise.detach(), paired.detach(), rtol=1e-6)
    of_paired, of_pairwise = (torch.autograd.grad(value.sum(), (z, keys)) for value in (paired, pairwise))
    assert_allclose(torch.cat(of_pairwise), torch.cat(of_paired), rtol=1e-5)


@each_pole
def test_a_pole_does_not_magnify_the_rounding_of_products(spec):
    z, keys = (tensor.requires_grad_() for tensor in points(torch.float32))
    labels = np.array([0, 1, 2, 3, 0, 1, 2])
    of_prototypes = Objective(DataLabel().conditional(None, labels), spec, dtype=torch.float32)
    of_rows = Objective(SameClass().conditional(None, labels).mix(0.1), spec, dtype=torch.float32)
    losses = {
        "prototypes": lambda: of_prototypes(z, keys),
        "rows": lambda: of_rows(z),
        "batch": lambda: ICONLoss("data_label", spec)(z, labels, keys),
    }
    for loss in losses.values():
        value = loss()
        gradient = torch.autograd.grad(value, z)[0]
        with Noise():
            noisy = loss()
            assert noisy.item() == value.item()
            assert_array_equal(torch.autograd.grad(noisy, z)[0], gradient)


def test_the_noise_is_of_products():
    z, _ = points(torch.float32)
    with Noise():
        assert (learned.StudentT().sq_distances(z, z).diagonal() != 0).any()
        assert not learned.Harmonic().sq_distances(z, z).diagonal().any()


def test_a_pole_is_no_sum_in_linear_space():
    specs = [spec() for spec in learned.NAMES.values()]
    assert not any(spec.has_pole and spec.euclidean for spec in specs if hasattr(spec, "has_pole"))
    assert [type(spec).__name__ for spec in specs if getattr(spec, "has_pole", False)] == ["Harmonic"]
