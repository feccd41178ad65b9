from functools import partial
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.manifold._utils import _binary_search_perplexity

from sklearn_icon._graph.affinity import (
    gaussian_log_affinity,
    normalize_log_rows,
    perplexity_rows,
    student_t_log_affinity,
)

KERNELS = {"gaussian": gaussian_log_affinity, **{f"t{df}": partial(student_t_log_affinity, df=df) for df in (1.0, 5.0)}}


def perplexity_of(row):
    return exp(-sum(p * log(p) for p in row if p > 0))


@pytest.fixture
def sq_distances():
    return np.sort(np.random.default_rng(0).gamma(2.0, size=(20, 15)), axis=1)


@pytest.mark.parametrize(("sq_d", "sq_s"), [(0.0, 1.0), (2.0, 0.5), (9.0, 4.0)])
@pytest.mark.parametrize("df", [0.5, 1.0, 3.0])
def test_log_affinities(sq_d, sq_s, df):
    assert_allclose(gaussian_log_affinity(sq_d, sq_s), log(exp(-sq_d / (2 * sq_s))), rtol=1e-14)
    expected = log((1 + sq_d / (df * sq_s)) ** (-(df + 1) / 2))
    assert_allclose(student_t_log_affinity(sq_d, sq_s, df), expected, rtol=1e-14)


def test_rows_of_log_affinities_are_normalised():
    rows = np.array([[0.0, 1.0, -2.0], [-5000.0, -5001.0, -9000.0], [800.0, 800.0, 800.0]])
    expected = [[exp(v - max(row)) / sum(exp(w - max(row)) for w in row) for v in row] for row in rows.tolist()]
    assert_allclose(normalize_log_rows(rows), expected, rtol=1e-14)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("perplexity", [5.0, 7.5, 14.0])
def test_rows_have_the_perplexity_asked_for(sq_distances, kernel, perplexity):
    rows = perplexity_rows(sq_distances, perplexity, KERNELS[kernel])
    assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)
    tail = {"gaussian": 0.0, "t1.0": 1.0, "t5.0": 3.0}[kernel]  # as s -> 0 the kernel falls as (d^2)^-tail
    bounds = [perplexity_of(row / row.sum()) if tail else 1.0 for row in sq_distances**-tail]
    assert_allclose([perplexity_of(row) for row in rows], np.maximum(perplexity, bounds), rtol=1.1e-5)
    assert (np.diff(rows, axis=1) <= 0).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**16), st.integers(3, 12), st.floats(0.05, 0.95), st.floats(-30, 30))
def test_any_perplexity_at_any_scale(seed, n_neighbors, share, log_scale):
    sq_distances = np.random.default_rng(seed).uniform(0.01, 1.0, size=(4, n_neighbors))
    perplexity = 1.01 + share * (n_neighbors - 1.01)
    rows = perplexity_rows(sq_distances * 10**log_scale, perplexity)
    assert_allclose([perplexity_of(row) for row in rows], perplexity, rtol=1.1e-5)
    assert_allclose(rows, perplexity_rows(sq_distances, perplexity), rtol=0, atol=1e-4)


@pytest.mark.parametrize("perplexity", [2.0, 5.0, 10.0])
def test_agrees_with_scikit_learn(sq_distances, perplexity):
    expected = _binary_search_perplexity(sq_distances.astype(np.float32), perplexity, 0)
    assert_allclose(perplexity_rows(sq_distances, perplexity), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_distances_give_uniform_rows(kernel):
    rows = perplexity_rows(np.array([[0.0, 0, 0, 0], [3.0, 3, 3, 3], [0, 1, 2, 3]]), 3.0, KERNELS[kernel])
    assert_allclose(rows[:2], 0.25, rtol=1e-12)
    assert_array_equal(perplexity_rows(np.zeros((2, 5)), 2.0, KERNELS[kernel]), np.full((2, 5), 0.2))


def test_as_many_neighbors_as_the_perplexity_are_uniform(sq_distances):
    assert_allclose(perplexity_rows(sq_distances, 15.0), 1 / 15, rtol=0.05)
    assert_allclose([perplexity_of(row) for row in perplexity_rows(sq_distances, 15.0)], 15.0, rtol=1.1e-5)


def test_ties_among_the_nearest_bound_the_perplexity():
    rows = perplexity_rows(np.array([[1.0, 1.0, 1.0, 4.0, 9.0]]), 2.0)
    assert_allclose(rows, [[1 / 3, 1 / 3, 1 / 3, 0, 0]], atol=1e-12)


def test_a_heavy_tail_bounds_the_perplexity():
    sq_distances = np.array([[1.0, 2.0, 4.0, 8.0]])
    limit = sq_distances**-1.0  # (1 + d^2 / s^2)^-1 of the Cauchy kernel as s -> 0
    limit /= limit.sum()
    assert perplexity_of(limit[0]) > 1.5
    rows = perplexity_rows(sq_distances, 1.5, KERNELS["t1.0"])
    assert_allclose(rows, limit, rtol=1e-9)


FAR = {
    "one cell": lambda rng: [1e32],
    "a fill value": lambda rng: [9.97e36**2],
    "several scales": lambda rng: [1e9, 1e40, 1e150, 1e290],
    "heavy tails": lambda rng: rng.standard_cauchy(60) ** 8,
    "tiny": lambda rng: [1e-250, 1e-120, 1e-30],
}


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("perplexity", [3.0, 17.5, 40.0])
def test_far_neighbors_do_not_hide_the_scale_of_the_others(far, perplexity):
    rng = np.random.default_rng(3)
    near, more = rng.gamma(3.0, size=(30, 80)), [FAR[far](rng) for _ in range(30)]
    rows = perplexity_rows(np.hstack([near, more]), perplexity)
    assert_allclose([perplexity_of(row) for row in rows], perplexity, rtol=1.1e-5)
    if min(np.ravel(more)) > 1e30:
        assert_allclose(rows[:, :80], perplexity_rows(near, perplexity), atol=1e-4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**16), st.floats(0.01, 120), st.floats(0.1, 0.9))
def test_any_perplexity_over_any_range_of_distances(seed, decades, fraction):
    sq_distances = 10 ** np.random.default_rng(seed).uniform(-decades, decades, size=(4, 20))
    perplexity = 1.2 + fraction * 18
    rows = perplexity_rows(sq_distances, perplexity)
    assert_allclose([perplexity_of(row) for row in rows], perplexity, rtol=1.1e-5)


def test_rows_do_not_depend_on_each_other(sq_distances):
    together = perplexity_rows(sq_distances, 4.0)
    alone = np.concatenate([perplexity_rows(row[None], 4.0) for row in sq_distances])
    assert_array_equal(together, alone)


def test_distances_are_left_alone(sq_distances):
    before = sq_distances.copy()
    perplexity_rows(sq_distances, 4.0)
    assert_array_equal(sq_distances, before)
