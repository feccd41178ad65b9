import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

from sklearn_icon.supervisory import (
    Counts,
    CrossModalPairs,
    DataLabel,
    Gaussian,
    Graph,
    Identity,
    PositivePairs,
    PropagatedLabel,
    RandomWalk,
    SameClass,
    StudentT,
    UniformKNN,
    UniformMixture,
)
from sklearn_icon.supervisory._batch import as_targets

N, M = 7, 4
CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 0, 2, 1, 0, 3])
FEATURES = RNG.normal(size=(N, 3))
WEIGHTS = RNG.uniform(size=(N, N)) * (RNG.uniform(size=(N, N)) < 0.5)
COUNTS = RNG.integers(0, 3, size=(N, M))
COUNTS[3] = 0
SEVERAL = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1], [1, 0, 0]])

# spec, y, number of keys
CASES = {
    "same-class": (SameClass(), LABELS, N),
    "same-class-column": (SameClass(), LABELS[:, None], N),
    "several-labels": (SameClass(), SEVERAL, N),
    "several-labels-sparse": (SameClass(), sparse.csr_array(SEVERAL), N),
    "several-labels-bool": (PositivePairs(), SEVERAL == 1, N),
    "walk-several-labels": (RandomWalk(SameClass(), n_steps=2), SEVERAL, N),
    "positive-pairs": (PositivePairs(), LABELS, N),
    "data-label": (DataLabel(), LABELS, M),
    "data-label-shares": (DataLabel(), COUNTS, M),
    "identity": (Identity(), None, N),
    "cross-modal": (CrossModalPairs(), FEATURES, N),
    "gaussian": (Gaussian(perplexity=2, source="y"), FEATURES, N),
    "student-t": (StudentT(sigma=1.0, source="y"), FEATURES, N),
    "knn": (UniformKNN(n_neighbors=2, source="y"), FEATURES, N),
    "graph": (Graph(), WEIGHTS, N),
    "counts": (Counts(), COUNTS, M),
    "mixture": (UniformMixture(SameClass(), 0.3), LABELS, N),
    "walk": (RandomWalk(UniformKNN(n_neighbors=1, source="y"), n_steps=2), FEATURES, N),
    "walk-graph": (RandomWalk(UniformMixture(Graph(), 0.2), n_steps=3, binary=True), WEIGHTS, N),
    "walk-identity": (RandomWalk(Identity(), n_steps=2), None, N),
}


def weights_of(spec, y, n_keys, rows=slice(0, N), dtype=torch.float64):
    return spec.of_batch(as_targets(spec, y, N, CPU), rows, n_keys, torch.empty(0, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", list(CASES))
def test_equals_what_the_spec_computes(case, dtype):
    spec, y, n_keys = CASES[case]
    p = spec.conditional(np.empty((N, 0)), y)
    weights, sums = weights_of(spec, y, n_keys, dtype=dtype)
    assert weights.dtype == dtype
    assert_allclose(weights, p.weights.toarray(), rtol=1e-14 if dtype == torch.float64 else 1e-6)
    assert_allclose(sums, np.ones(N) if p.degrees is None else p.degrees, rtol=1e-6)
    assert spec.excludes_self == p.exclude_self
    assert spec.mixture == pytest.approx(p.uniform)


@pytest.mark.parametrize("case", list(CASES))
def test_some_rows_are_a_part_of_all(case):
    spec, y, n_keys = CASES[case]
    whole, part = weights_of(spec, y, n_keys), weights_of(spec, y, n_keys, slice(2, 5))
    for all_rows, some in zip(whole, part, strict=True):
        assert_allclose(some, all_rows[2:5], rtol=0)


@pytest.mark.parametrize("of", [torch.tensor, sparse.csr_array, lambda y: torch.tensor(y).to_sparse(), list])
def test_y_of_any_kind(of):
    assert_allclose(weights_of(Graph(), of(WEIGHTS), N)[0], weights_of(Graph(), WEIGHTS, N)[0], rtol=0)


def test_labels_of_any_number_type():
    for y in (LABELS.tolist(), LABELS.astype(np.int8), torch.tensor(LABELS, dtype=torch.float16), LABELS == 1):
        same = np.asarray(y)[:, None] == np.asarray(y)
        np.fill_diagonal(same, False)
        assert_allclose(weights_of(SameClass(), y, N)[0] > 0, same)


def test_half_precision_features():
    spec, y = UniformKNN(n_neighbors=2, source="y"), torch.tensor(FEATURES)
    assert_allclose(weights_of(spec, y.bfloat16(), N)[0], weights_of(spec, y.bfloat16().double(), N)[0])


def test_a_label_of_minus_one_is_none():
    weights, sums = weights_of(DataLabel(), [0, -1, 1, 1, 1, 1, -1], 2)
    assert sums.tolist() == [1, 0, 1, 1, 1, 1, 0]
    assert not weights[[1, 6]].any()


@pytest.mark.parametrize(
    "spec, message",
    [
        (Gaussian(), "set source='y' and pass companion features as y"),
        (RandomWalk(UniformKNN(), 2), "set source='y'"),
        (PropagatedLabel(), "PropagatedLabel.* graph of all rows"),
        (UniformMixture(PropagatedLabel(), 0.1), "PropagatedLabel.* graph of all rows"),
        (SameClass(n_positives=2), r"a batch takes all positives in it; use SameClass\(\)"),
        (RandomWalk(CrossModalPairs(), 2), "needs keys that are rows"),
        (UniformMixture(RandomWalk(DataLabel(), 2), 0.1), "needs keys that are rows"),
    ],
)
def test_what_a_batch_cannot_hold(spec, message):
    with pytest.raises(ValueError, match=message):
        spec.check_batch()


@pytest.mark.parametrize(
    "spec, y, message",
    [
        (SameClass(), None, r"SameClass\(\) requires y to be passed.*class labels"),
        (UniformMixture(PositivePairs(), 0.1), None, r"PositivePairs\(\) requires y to be passed.*group ids"),
        (Graph(), None, r"Graph\(\) requires y to be passed.*matrix of weights"),
        (Counts(), None, r"Counts\(\) requires y to be passed.*matrix of counts"),
        (UniformKNN(source="y"), None, "requires y to be passed.*companion features"),
        (SameClass(), LABELS[:-1], r"one entry for each of the 7 rows of z, got shape \(6,\)"),
        (SameClass(), 3, r"one entry for each of the 7 rows of z, got shape \(\)"),
        (SameClass(), SEVERAL[:, None], r"as a 1-D y or as a 2-D indicator of labels, got shape \(7, 1, 3\)"),
        (SameClass(), FEATURES, r"a 2-D y of SameClass\(\) must hold 0 and 1.*class labels as a 1-D y"),
        (PositivePairs(), 2 * SEVERAL, r"2-D y of PositivePairs\(\) must hold 0 and 1"),
        (SameClass(), list("abcabca"), "y must hold numbers, got dtype <U1"),
        (DataLabel(), LABELS + 1, "integers from 0 to 3.* got torch.int64 from 1 to 4"),
        (DataLabel(), LABELS - 2, "integers from 0 to 3.* from -2 to 1"),
        (DataLabel(), LABELS / 2, "integers from 0 to 3.* got torch.float64"),
        (DataLabel(), COUNTS[:, :3], r"one column for each of the 4 keys, got shape \(7, 3\)"),
        (Counts(), LABELS, r"one column for each of the 4 keys, got shape \(7,\)"),
        (Counts(), -COUNTS, "finite and not negative"),
        (DataLabel(), np.where(COUNTS == 2, np.nan, COUNTS), "finite and not negative"),
    ],
)
def test_unfit_y(spec, y, message):
    with pytest.raises(ValueError, match=message):
        weights_of(spec, y, M)


def test_y_is_left_as_it_is():
    y = torch.tensor(WEIGHTS)
    weights_of(Graph(), y, N)
    assert_allclose(y, WEIGHTS, rtol=0)
