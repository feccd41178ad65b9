import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_icon._core.conditional import Conditional


def naive_rows(weights, uniform=0.0, exclude_self=False):
    """Rows of (1 - a) w / sum(w) + a / N by loops; a row without weight is zero."""
    weights = np.array(weights, dtype=float)
    n_rows, n_keys = weights.shape
    rows = np.zeros((n_rows, n_keys))
    for i in range(n_rows):
        keys = [j for j in range(n_keys) if not (exclude_self and j == i)]
        total = sum(weights[i, j] for j in keys)
        for j in keys:
            if total > 0:
                rows[i, j] = (1 - uniform) * weights[i, j] / total + uniform / len(keys)
    return rows


@pytest.fixture
def weights():
    weights = np.random.default_rng(0).uniform(0.1, 1, size=(5, 5))
    weights[0, 3] = weights[2, 2] = 0
    weights[4] = 0
    return weights


@pytest.mark.parametrize("uniform", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("make", [np.array, sparse.csr_array, sparse.coo_array, sparse.csc_matrix])
def test_rows_are_normalised(weights, make, exclude_self, uniform):
    p = Conditional.from_weights(make(weights), uniform=uniform, exclude_self=exclude_self)
    assert_allclose(p.toarray(), naive_rows(weights, uniform, exclude_self), rtol=1e-14, atol=1e-16)
    assert_allclose(p.toarray().sum(axis=1), [1, 1, 1, 1, 0], rtol=1e-14)
    assert_array_equal(p.has_positives, [True, True, True, True, False])
    assert p.shape == (5, 5)
    assert p.n_choices == 5 - exclude_self
    without_self = weights - np.diag(np.diag(weights)) if exclude_self else weights
    assert_allclose(p.degrees, without_self.sum(axis=1), rtol=1e-14)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    hnp.arrays(float, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.sampled_from([0, 1, 2.5, 7])),
    st.floats(0, 1),
    st.booleans(),
)
def test_rows_sum_to_one_or_to_zero(weights, uniform, exclude_self):
    exclude_self = exclude_self and weights.shape[0] <= weights.shape[1]  # as every row needs a key of its own
    p = Conditional.from_weights(weights, uniform=uniform, exclude_self=exclude_self)
    assert_allclose(p.toarray(), naive_rows(weights, uniform, exclude_self), rtol=1e-12, atol=1e-15)
    assert_allclose(p.toarray().sum(axis=1), p.has_positives.astype(float), rtol=1e-12)


def test_from_weights_leaves_its_input_alone(weights):
    for matrix in (sparse.csr_array(weights), sparse.csr_array(weights.astype(np.float32)), weights):
        before = matrix.copy()
        Conditional.from_weights(matrix, exclude_self=True)
        difference = matrix - before
        assert abs(difference).sum() == 0


def test_from_weights_sums_duplicates_and_drops_zeros():
    matrix = sparse.csr_array((np.array([1.0, 2.0, 0.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    p = Conditional.from_weights(matrix)
    assert p.weights.nnz == 1
    assert_array_equal(p.toarray(), [[0, 1], [0, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_kept(weights, dtype):
    assert Conditional.from_weights(weights.astype(dtype)).weights.dtype == dtype
    assert Conditional.from_weights((10 * weights).astype(np.int64)).weights.dtype == np.float64


def test_explicit_zeros_are_no_positives():
    weights = sparse.csr_array((np.array([0.0, 1.0]), np.array([0, 1]), np.array([0, 1, 2])), shape=(2, 2))
    assert_array_equal(Conditional(weights).has_positives, [False, True])


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([[0.5, 0.4]], {}, "sum to one"),
        ([[-0.5, 1.5]], {}, "non-negative"),
        ([[np.nan, 1.0]], {}, "non-negative and finite"),
        ([[np.inf, 1.0]], {}, "sum to one"),
        ([[0.5, 0.5]], {"uniform": 1.5}, r"uniform must lie in \[0, 1\], got 1.5"),
        ([[0.5, 0.5]], {"uniform": -0.1}, "uniform"),
        ([[0.5, 0.5]], {"uniform": np.nan}, "uniform"),
        ([[0.5, 0.5]], {"exclude_self": True}, "a row itself"),
    ],
)
def test_what_is_no_distribution_is_refused(weights, options, message):
    with pytest.raises(ValueError, match=message):
        Conditional(sparse.csr_array(weights), **options)


def test_mixing_twice_is_mixing_once(weights):
    p = Conditional.from_weights(weights, exclude_self=True)
    assert p.mix(0.0) is p
    assert_allclose(p.mix(0.3).mix(0.5).uniform, 1 - 0.7 * 0.5, rtol=1e-15)
    assert_allclose(p.mix(0.3).mix(0.5).toarray(), naive_rows(weights, 0.65, True), rtol=1e-13)
    assert_array_equal(p.mix(0.3).degrees, p.degrees)
    assert_array_equal(p.mix(0.3).unmixed().toarray(), p.toarray())
    assert_allclose(p.mix(1.0).toarray()[0], [0, 0.25, 0.25, 0.25, 0.25], rtol=1e-15)
    with pytest.raises(ValueError, match="uniform"):
        p.mix(1.5)


def test_take_keeps_the_order_asked_for(weights):
    p = Conditional.from_weights(weights[:, :3], uniform=0.2)
    rows = np.array([3, 0, 4, 0])
    assert_allclose(p.take(rows).toarray(), naive_rows(weights[:, :3], 0.2)[rows], rtol=1e-14)


def test_a_value_is_frozen(weights):
    p = Conditional.from_weights(weights)
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.uniform = 0.5


def test_a_single_row_without_keys_is_zero():
    p = Conditional.from_weights([[2.0]], exclude_self=True)
    assert p.n_choices == 0
    assert_array_equal(p.toarray(), [[0.0]])
