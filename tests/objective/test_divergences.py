from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sklearn_icon._objective.divergences import DIVERGENCES


def x_log_x_over_y(x, y):
    return x * log(x / y) if x else 0.0


ORACLES = {
    "kl": lambda p, q: x_log_x_over_y(p, q),
    "reverse_kl": lambda p, q: x_log_x_over_y(q, p),
    "jensen_shannon": lambda p, q: (x_log_x_over_y(p, (p + q) / 2) + x_log_x_over_y(q, (p + q) / 2)) / 2,
    "total_variation": lambda p, q: abs(p - q) / 2,
    "squared_hellinger": lambda p, q: (sqrt(p) - sqrt(q)) ** 2 / 2,
}
LARGEST = {"jensen_shannon": log(2), "total_variation": 1.0, "squared_hellinger": 1.0}
each_name = pytest.mark.parametrize("name", list(DIVERGENCES))


def rows(seed, n=6, zeros=0):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n))
    p[:zeros] = 0
    return torch.as_tensor(p / p.sum()), torch.as_tensor(q)


def test_all_are_covered():
    assert DIVERGENCES.keys() == ORACLES.keys()


@each_name
@pytest.mark.parametrize("zeros", [0, 2])
def test_terms_equal_the_formula(name, zeros):
    p, q = rows(0, zeros=zeros)
    term, at_zero = DIVERGENCES[name][:2]
    if at_zero is None:
        p, q = p[zeros:], q[zeros:]
    expected = [ORACLES[name](a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    assert_allclose(term(p, q.log()), expected, rtol=1e-12, atol=1e-16)
    assert_allclose(term(p.float(), q.float().log()), expected, rtol=1e-4, atol=1e-7)


@each_name
def test_cost_where_p_is_zero(name):
    q = torch.tensor([0.0, 1e-300, 0.1, 1.0], dtype=torch.float64)
    term, at_zero = DIVERGENCES[name][:2]
    if at_zero is None:
        assert term(torch.zeros(4, dtype=torch.float64), q.log())[1:].isinf().all()
    else:
        assert_allclose(term(torch.zeros_like(q[1:]), q[1:].log()), at_zero * q[1:], rtol=1e-12)


@each_name
def test_a_scalar_p_meets_any_shape_of_q(name):
    _, q = rows(1)
    table = q.reshape(2, 3)
    expected = [[ORACLES[name](0.2, b) for b in row] for row in table.tolist()]
    assert_allclose(DIVERGENCES[name].term(torch.tensor(0.2, dtype=torch.float64), table.log()), expected, rtol=1e-13)


@each_name
@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**16), st.integers(2, 12))
def test_it_is_a_divergence(name, seed, n):
    p, q = rows(seed, n)
    term = DIVERGENCES[name].term
    value = term(p, q.log()).sum()
    assert value > 1e-12
    assert value < LARGEST.get(name, np.inf)
    assert_allclose(term(p, p.log()).sum(), 0, atol=1e-15)
    if name in LARGEST:
        assert_allclose(term(q, p.log()).sum(), value, rtol=1e-12)


@pytest.mark.parametrize("name", list(LARGEST))
def test_largest_value_where_supports_differ(name):
    p = torch.tensor([1.0, 0.0], dtype=torch.float64)
    log_q = torch.tensor([-800.0, 0.0], dtype=torch.float64)
    assert_allclose(DIVERGENCES[name].term(p, log_q).sum(), LARGEST[name], rtol=1e-15)


@each_name
def test_gradients(name):
    p, q = rows(2)
    assert torch.autograd.gradcheck(lambda log_q: DIVERGENCES[name].term(p, log_q), q.log().requires_grad_())


@each_name
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_q_value", [-1e4, -120.0, -1e-9, 0.0])
@pytest.mark.parametrize("p_value", [0.0, 1e-30, 0.5, 1.0])
def test_vanishing_probabilities_stay_finite(name, dtype, p_value, log_q_value):
    if p_value == 0 and DIVERGENCES[name].at_zero is None:
        return
    p = torch.tensor([p_value], dtype=dtype)
    log_q = torch.tensor([log_q_value], dtype=dtype, requires_grad=True)
    value = DIVERGENCES[name].term(p, log_q).sum()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(log_q.grad).all()
    if log_q_value < -100 and p_value == 0.5 and name != "kl":
        largest = {"jensen_shannon": log(2) / 4, "total_variation": 0.25, "squared_hellinger": 0.25, "reverse_kl": 0.0}
        assert_allclose(value.item(), largest[name], rtol=1e-6, atol=exp(-100))
