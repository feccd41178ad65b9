from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, methods
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._core.rows import average_duplicates, match_rows, row_digests, with_int32_indices
from sklearn_icon._objective.batches import PositiveSampler, batch_conditional

# --- minibatches --------------------------------------------------------------------------------------------------


class Prescribed:
    """Uniform numbers as prescribed."""

    def __init__(self, values):
        self.values = np.asarray(values, dtype=float)

    def uniform(self, size):
        assert size == len(self.values)
        return self.values


@pytest.fixture
def p():
    weights = np.array([[0, 0, 0, 0], [0.0, 1, 3, 0], [0, 0, 0, 0], [1, 1, 1, 5], [0, 0, 2, 0], [0, 0, 0, 0]])
    return Conditional.from_weights(weights)


def naive_draw(row, u):
    """The first key at which the cumulated row passes u."""
    total = 0.0
    for key, weight in enumerate(row):
        total += weight
        if total > u:
            return key
    return max(key for key, weight in enumerate(row) if weight)


@pytest.mark.parametrize("u", [0.0, 0.1, 0.2499, 0.25, 0.3, 0.37, 0.3751, 0.9, 1 - 2**-53])
def test_positives_are_drawn_by_their_share(p, u):
    dense = p.toarray()
    rows, positives = PositiveSampler(p).draw(np.array([3, 1, 4, 3]), Prescribed([u, u, u, 1 - u if u else 0.5]))
    assert_array_equal(rows, [3, 1, 4, 3])
    expected = [naive_draw(dense[row], v) for row, v in zip(rows, [u, u, u, 1 - u if u else 0.5], strict=True)]
    assert_array_equal(positives, expected)


def test_rows_without_positives_are_left_out(p):
    rows, positives = PositiveSampler(p).draw(np.arange(6), np.random.RandomState(0))
    assert_array_equal(rows, [1, 3, 4])
    assert len(positives) == 3
    rows, positives = PositiveSampler(p).draw(np.array([0, 2, 5]), np.random.RandomState(0))
    assert len(rows) == len(positives) == 0


def test_frequencies_are_the_weights(p):
    n = 4000
    rows, positives = PositiveSampler(p).draw(np.repeat([1, 3], n), np.random.RandomState(0))
    counts = sparse.coo_array((np.ones(2 * n), (rows, positives)), shape=p.shape).toarray() / n
    expected = p.toarray()[[1, 3]]
    assert (abs(counts[[1, 3]] - expected) <= 4 * np.sqrt(expected * (1 - expected) / n)).all()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**16), st.integers(1, 8))
def test_only_positives_are_drawn(seed, n):
    rng = np.random.RandomState(seed)
    weights = rng.uniform(size=(n, n)) * (rng.uniform(size=(n, n)) < 0.4)
    p = Conditional.from_weights(weights)
    rows, positives = PositiveSampler(p).draw(rng.permutation(n), rng)
    assert (weights[rows, positives] > 0).all()
    assert set(rows) == set(np.flatnonzero(weights.sum(axis=1)))


def test_the_same_generator_draws_the_same(p):
    rows = np.repeat([1, 3], 20)
    first, again, other = (PositiveSampler(p).draw(rows, np.random.RandomState(s))[1] for s in (0, 0, 1))
    assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("exclude_self", [False, True])
def test_batch_distribution(exclude_self):
    p = batch_conditional(3, exclude_self)
    assert_array_equal(p.toarray(), np.concatenate([np.zeros((3, 3)), np.eye(3)], axis=1))
    assert p.n_choices == 6 - exclude_self
    mixed = p.mix(0.5).toarray()
    assert_allclose(mixed.sum(axis=1), 1, rtol=1e-14)
    assert_allclose(np.diag(mixed), 0 if exclude_self else 0.5 / 6, rtol=1e-14)
    assert_allclose(mixed[0, 3], 0.5 + 0.5 / (6 - exclude_self), rtol=1e-14)


# --- equal rows ---------------------------------------------------------------------------------------------------

ROWS = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0], [1.0, 2.0, 0.0], [-1.0, 0.0, 2.0]])
CLASSES = [0, 1, 0, 2, 3, 4]


def same(digests):
    return np.equal.outer(digests, digests)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [np.array, np.asfortranarray, sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_equal_rows_have_equal_digests(make, dtype):
    digests = row_digests(make(ROWS.astype(dtype)))
    assert digests.dtype == np.int64
    assert_array_equal(same(digests), same(CLASSES))
    assert_array_equal(digests, row_digests(ROWS))


def test_how_a_row_is_stored_does_not_matter():
    expected = row_digests(ROWS)
    negative_zeros = np.where(ROWS == 0, -0.0, ROWS)
    assert_array_equal(row_digests(negative_zeros), expected)
    assert_array_equal(row_digests(np.concatenate([ROWS, ROWS], axis=1)[:, :3]), expected)
    row, column = np.divmod(np.arange(ROWS.size)[::-1], 3)
    explicit = sparse.csr_array(sparse.coo_array((ROWS[row, column], (row, column))))
    assert explicit.nnz == ROWS.size
    assert_array_equal(row_digests(explicit), expected)
    wide = sparse.csr_array(ROWS)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert_array_equal(row_digests(wide), expected)


def test_digests_leave_their_input_alone():
    X = sparse.csr_array((np.array([1.0, 0.0, 2.0]), np.array([1, 0, 1]), np.array([0, 3])), shape=(1, 2))
    row_digests(X)
    assert X.nnz == 3
    assert_array_equal(X.toarray(), [[0, 3]])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([0.0, -0.0, 1.0, 2.5]), st.sampled_from([0.0, 1.0, -1.0])), min_size=1))
def test_digests_are_equal_where_rows_are(rows):
    X = np.array(rows)
    expected = (X[:, None] == X[None]).all(axis=2)
    assert_array_equal(same(row_digests(X)), expected)
    assert_array_equal(same(row_digests(sparse.csr_array(X))), expected)


def test_rows_seen_before():
    known = np.array([7, 3, 7, -2, 9])
    assert_array_equal(match_rows(np.array([9, 7, 8, -2, 100, -100, 3]), known), [4, 0, -1, 3, -1, -1, 1])
    assert len(match_rows(np.empty(0, dtype=np.int64), known)) == 0
    X = np.random.default_rng(0).normal(size=(20, 3))
    order = np.random.default_rng(1).permutation(20)
    assert_array_equal(match_rows(row_digests(X[order]), row_digests(X)), order)


def test_equal_rows_get_the_mean():
    digests = np.array([5, 1, 5, 2, 5, 1])
    values = np.arange(12.0).reshape(6, 2) ** 2
    before = values.copy()
    expected = np.array([values[digests == d].mean(axis=0) for d in digests])
    assert_allclose(average_duplicates(values, digests[:, None]), expected, rtol=1e-15)
    assert_array_equal(values, before)
    single = average_duplicates(values.astype(np.float32), digests[:, None])
    assert single.dtype == np.float32
    assert_allclose(single, expected, rtol=1e-6)


def test_without_equal_rows_nothing_changes():
    values = np.random.default_rng(0).normal(size=(5, 2))
    assert_array_equal(average_duplicates(values, np.arange(5)[:, None]), values)
    third = values.astype(np.float32) / 3
    mixed = average_duplicates(third, np.array([[0], [1], [2], [3], [3]]))
    assert_array_equal(mixed[:3], third[:3])
    assert_array_equal(mixed[3], mixed[4])


# --- wide indices -------------------------------------------------------------------------------------------------

SPARSE_ROWS = sparse.random(60, 8, density=0.5, format="csr", random_state=0)


def wide(rows):
    """The same rows with 64-bit indices, out of order, as `kneighbors_graph` gives them."""
    order = np.concatenate([np.arange(*ends)[::-1] for ends in pairwise(rows.indptr)])
    wide = sparse.csr_matrix((rows.data[order], rows.indices[order], rows.indptr), shape=rows.shape)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    return wide


def test_indices_are_as_narrow_as_they_can_be():
    rows = wide(SPARSE_ROWS)
    narrow = with_int32_indices(rows)
    assert narrow.indices.dtype == narrow.indptr.dtype == np.int32
    assert type(narrow) is type(rows)
    assert not np.shares_memory(narrow.data, rows.data)  # as sorting the one would leave the other in disorder
    assert rows.indices.dtype == rows.indptr.dtype == np.int64
    assert_array_equal(narrow.toarray(), rows.toarray())
    dense = rows.toarray()
    assert with_int32_indices(narrow) is narrow
    assert with_int32_indices(dense) is dense


@pytest.mark.filterwarnings("ignore:.*stopped after", "ignore:only .* clusters are in use")
@pytest.mark.parametrize(
    "estimator",
    [
        ICONClustering(3, n_init=1, max_iter=20),
        ICONClustering(3, encoder="lookup", n_init=1, max_iter=20),
        methods.get("k-means").make_estimator(n_clusters=3),
        methods.get("dcd").make_estimator(n_clusters=3, n_init=1, max_iter=20),
        ICONEmbedding(perplexity=5, max_iter=20),
        ICONEmbedding(encoder="linear", perplexity=5, max_iter=20),
        ICONClassifier(),
        ICONClassifier(supervisory="same_class", max_iter=20),
        ICONCrossModal(3, encoder="linear", encoder_y="linear", max_iter=2),
    ],
    ids=lambda estimator: f"{type(estimator).__name__}-{estimator.supervisory}-{estimator.encoder}",
)
def test_every_estimator_takes_64_bit_indices(estimator):
    X, other = wide(SPARSE_ROWS), wide(SPARSE_ROWS[:, :5])
    y = {ICONClassifier: np.arange(60) % 3, ICONCrossModal: other}.get(type(estimator))
    transformed = []
    for rows in (X, SPARSE_ROWS):
        fitted = clone(estimator).set_params(random_state=0).fit(rows, y)
        transformed.append(fitted.transform(rows))
    assert_allclose(*transformed, atol=1e-9)
    assert X.indices.dtype == X.indptr.dtype == other.indices.dtype == np.int64
    assert (X != SPARSE_ROWS).nnz == 0


def test_walks_go_on_from_every_row():
    ring = Conditional(sparse.csr_array(np.roll(np.eye(4), 1, axis=1)))  # each row has the next as its only neighbour
    for start in range(4):
        _, ends = PositiveSampler(ring, 2).draw(np.full(300, start), np.random.RandomState(0))
        one, two = (np.mean(ends == (start + k) % 4) for k in (1, 2))
        assert one + two == pytest.approx(1) and 0.4 < two < 0.6


@pytest.mark.parametrize(("metric", "n"), [("euclidean", 10_500), ("cosine", 600)])  # the first by compiled loops
def test_one_row_is_placed_as_in_a_batch_and_where_it_was_before(metric, n):
    rng = np.random.RandomState(5)
    A, new = rng.standard_normal((n, 8)) + 3, rng.standard_normal((40, 8)) + 3
    m = ICONEmbedding(metric=metric, perplexity=5, max_iter=20, random_state=0).fit(A)
    together = m.transform(new)
    for row in (0, 7, 39):
        for _ in range(2):  # the second time by what the first one kept
            assert_array_equal(m.transform(new[[row]])[0], together[row])
    assert_array_equal(m.transform(new.astype(np.float32))[:1], m.transform(new[:1].astype(np.float32)))
    m.embedding_ = m.embedding_ + 100
    assert_allclose(m.transform(new), together + 100, rtol=0, atol=0.05)
    m.embedding_[:] += 100  # in its place
    assert_allclose(m.transform(new), together + 200, rtol=0, atol=0.05)
