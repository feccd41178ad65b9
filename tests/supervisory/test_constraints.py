"""Must-link and cannot-link pairs as p."""

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_icon import ICONClustering, ICONEmbedding
from sklearn_icon.supervisory import Constraints, DataLabel, Gaussian, RandomWalk, UniformKNN
from sklearn_icon.testing import check_supervisory

X = np.random.RandomState(0).normal(size=(30, 3))
MUST, CANNOT = [[0, 9], [9, 0], [4, 0], [7, 20], [4, 11]], [[1, 2], [3, 5], [12, 1], [9, 20], [9, 6]]


def closure():
    """What is linked and what is parted, as sets of pairs: rules applied until nothing follows any more."""
    must = {(i, j) for pair in MUST for i, j in (pair, pair[::-1])}
    cannot = {(i, j) for pair in CANNOT for i, j in (pair, pair[::-1])}
    while True:
        joined = must | {(i, k) for i, j in must for h, k in must if j == h and i != k}
        parted = cannot | {(i, k) for i, j in must for h, k in cannot if j == h}
        parted |= {(k, i) for i, k in parted}
        if (joined, parted) == (must, cannot):
            return must, cannot
        must, cannot = joined, parted


@pytest.mark.parametrize("base", [UniformKNN(4), RandomWalk(UniformKNN(3), 2)], ids=["knn", "walk"])
@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_p_as_naive_sums(base, weight):
    b = base.conditional(X).toarray()
    expected = np.zeros_like(b)
    must, cannot = closure()
    assert {(11, 9), (0, 11)} <= must
    assert {(20, 11), (0, 7), (6, 4)} <= cannot
    for i in range(len(X)):
        linked = {j for j in range(len(X)) if (i, j) in must}
        left = {j: b[i, j] for j in range(len(X)) if (i, j) not in cannot}
        for j in range(len(X)):
            if sum(left.values()):
                expected[i, j] += left.get(j, 0) / sum(left.values())
            if j in linked:
                expected[i, j] += weight / len(linked)
        expected[i] /= expected[i].sum()
    p = Constraints(base, MUST, CANNOT, weight)
    np.testing.assert_allclose(p.conditional(X).toarray(), expected, atol=1e-12)


def test_no_pairs_are_the_base():
    for pairs in (None, [], np.empty((0, 2), dtype=int)):
        p = Constraints(UniformKNN(4), pairs, pairs).conditional(X)
        np.testing.assert_allclose(p.toarray(), UniformKNN(4).conditional(X).toarray(), atol=1e-15)


@pytest.mark.parametrize(
    "base", [UniformKNN(4), RandomWalk(UniformKNN(3), 2), Gaussian(3)], ids=["knn", "walk", "wide"]
)
def test_invariants(base):
    check_supervisory(Constraints(base), X)
    order = np.random.default_rng(1).permutation(len(X))
    place = np.argsort(order)  # of each row, among permuted ones
    p, permuted = Constraints(base, MUST, CANNOT, 2.0), Constraints(base, place[MUST], place[CANNOT], 2.0)
    dense = p.conditional(X).toarray()
    np.testing.assert_allclose(permuted.conditional(X[order]).toarray(), dense[np.ix_(order, order)], atol=1e-12)
    np.testing.assert_allclose(p.conditional(X.astype(np.float32)).toarray(), dense, atol=1e-3)
    assert repr(clone(p)) == repr(p)


def test_maps_draw_links_together():
    how = {"random_state": 0, "learned": "gaussian"}  # to the end: after 100 steps rounding decides
    far = [[int(np.linalg.norm(X - X[0], axis=1).argmax()), 0]]
    plain = ICONEmbedding(supervisory=UniformKNN(4), **how).fit_transform(X)
    linked = ICONEmbedding(supervisory=Constraints(UniformKNN(4), far, weight=5.0), **how).fit_transform(X)
    spread = [np.linalg.norm(Z[far[0][0]] - Z[0]) / Z.std() for Z in (plain, linked)]
    assert spread[1] < spread[0] / 2


def test_clusters_follow_pairs():
    square = np.array([[0.0, 0], [0, 1], [6, 0], [6, 1]])[np.arange(40) % 4]
    square = square + 0.1 * np.random.RandomState(1).normal(size=square.shape)
    corner = np.arange(40) % 4
    row, other = np.nonzero((corner[:, None] == 0) & (corner == 2))
    must = np.c_[row, other]  # of far corners
    p = Constraints(UniformKNN(5), must_link=np.r_[must, must + 1], weight=3.0)
    labels = ICONClustering(2, supervisory=p, encoder="lookup", random_state=0).fit(square).labels_
    assert len(np.unique(labels[corner % 2 == 0])) == len(np.unique(labels[corner % 2 == 1])) == 1
    assert labels[0] != labels[1]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"must_link": [[0, 30]]}, "must_link holds the pair .0, 30., but must pair different rows from 0 to 29"),
        ({"cannot_link": [[3, 3]]}, "cannot_link holds the pair .3, 3."),
        ({"must_link": [[0.5, 1]]}, "integers of shape"),
        ({"must_link": [0, 1]}, "integers of shape"),
        ({"must_link": [[0, 1]], "cannot_link": [[1, 0]]}, "cannot_link parts rows 1 and 0, which must_link joins"),
        ({"must_link": [[0, 1], [5, 1]], "cannot_link": [[2, 3], [5, 0]]}, "cannot_link parts rows 5 and 0, which"),
        ({"base": DataLabel()}, "between rows of X"),
    ],
    ids=["row", "itself", "floats", "flat", "both", "chain", "base"],
)
def test_bad_pairs(given, message):
    with pytest.raises(ValueError, match=message):
        Constraints(**{"base": UniformKNN(4)} | given).conditional(X, np.zeros(30))


def test_rows_of_no_weight_are_refused():
    with pytest.raises(ValueError, match="names rows of X by number"):
        ICONClustering(2, supervisory=Constraints(UniformKNN(4), [[0, 1]])).fit(X, sample_weight=np.arange(30) > 2)
