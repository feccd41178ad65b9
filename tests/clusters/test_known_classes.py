"""Classes of which some are known: `ICONClustering` with a p that reads labels, -1 where unknown."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from sklearn_icon import ICONClustering, supervisory
from sklearn_icon._clusters import automatic, choice
from sklearn_icon._clusters.known import columns_of, hidden_mass, k_means_beside
from sklearn_icon._clusters.local_search import cost_table
from sklearn_icon._clusters.row_search import Rows, cut_without_edge, searched, settled, symmetric_flow
from sklearn_icon._core.conditional import Conditional
from sklearn_icon.supervisory import SameClass, UniformKNN

K, SIZE = 5, 16
TRUE = np.repeat(np.arange(K), SIZE)


def blobs(seed=2, n_columns=4):
    rng = np.random.RandomState(seed)
    return 9 * rng.normal(size=(K, n_columns))[TRUE] + rng.normal(size=(len(TRUE), n_columns))


X = blobs()
SOME = np.where((np.arange(len(TRUE)) % 2 == 0) & (TRUE < 2), TRUE, -1)  # half of the rows of two classes


def named(names, dtype=None):
    """The labels of SOME by other names, -1 where unknown."""
    return np.array([-1 if code < 0 else names[code] for code in SOME], dtype=dtype)


@pytest.mark.parametrize(
    "p",
    ["same_class", SameClass(unlabelled=UniformKNN(5)), SameClass(unlabelled=supervisory.RandomWalk(UniformKNN(4), 2))],
)
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array, np.float32], ids=["dense", "sparse", "single"])
def test_known_classes_keep_their_rows_and_new_ones_are_found(p, make):
    clusters = ICONClustering(K, supervisory=p, random_state=0).fit(make(X), SOME)
    np.testing.assert_array_equal(clusters.labels_[SOME >= 0], SOME[SOME >= 0])
    np.testing.assert_array_equal(clusters.labels_[TRUE < 2], TRUE[TRUE < 2])
    assert adjusted_rand_score(TRUE, clusters.labels_) == 1
    np.testing.assert_array_equal(clusters.predict(make(X + 1e-3)), clusters.labels_)
    np.testing.assert_array_equal(clusters.predict_proba(make(X)).argmax(axis=1), clusters.labels_)
    assert clusters.supervisory_.unlabelled is not None


@pytest.mark.parametrize(
    "y, classes, numbers",
    [
        (named([3, 7]), [3, 7], [3, 7, 8, 9, 10]),
        (named([3.0, 7.0]), [3.0, 7.0], [3, 7, 8, 9, 10]),
        (named([-5, 0]), [-5, 0], [-5, 0, 1, 2, 3]),
        (named([0.5, 7.0]), [0.5, 7.0], range(K)),
        (named(["b", "a"], object), ["a", "b"], range(K)),
        (named([4, 2], object), [2, 4], [2, 4, 5, 6, 7]),
        (named([1e300, 7.0]), [7.0, 1e300], range(K)),
        (named([2**62, 7]), [7, 2**62], range(K)),
    ],
    ids=["integers", "whole floats", "negative", "floats", "text", "objects", "far floats", "far integers"],
)
def test_numbers(y, classes, numbers):
    clusters = ICONClustering(K, supervisory="same_class", random_state=0).fit(X, y)
    np.testing.assert_array_equal(clusters.known_classes_, classes)
    np.testing.assert_array_equal(clusters.cluster_numbers_, list(numbers))
    known = SOME >= 0
    code = np.searchsorted(clusters.known_classes_, np.array(y[known].tolist()))
    np.testing.assert_array_equal(clusters.labels_[known], clusters.cluster_numbers_[code])
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)
    sizes = [(clusters.labels_ == number).sum() for number in clusters.cluster_numbers_[2:]]
    assert sizes == sorted(sizes, reverse=True)


def test_trained_memberships_too():
    clusters = ICONClustering(K, supervisory="same_class", encoder="linear", random_state=0, max_iter=60)
    clusters.fit(X, named([7, 3]))
    assert (clusters.labels_[TRUE == 0] == 7).all()
    assert (clusters.labels_[TRUE == 1] == 3).all()
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)


def test_distances_and_graphs():
    distances = np.linalg.norm(X[:, None] - X, axis=2)
    p = SameClass(unlabelled=UniformKNN(5, metric="precomputed"))
    of_distances = ICONClustering(K, supervisory=p, random_state=0).fit(distances, SOME).labels_
    graph = UniformKNN(5).conditional(X).weights
    of_graph = ICONClustering(K, supervisory=SameClass(unlabelled=supervisory.Graph()), random_state=0).fit(graph, SOME)
    for labels in (of_distances, of_graph.labels_):
        np.testing.assert_array_equal(labels[TRUE < 2], TRUE[TRUE < 2])
        assert adjusted_rand_score(TRUE, labels) == 1


def test_the_default_reads_no_labels():
    plain = ICONClustering(K, random_state=0).fit(X)
    np.testing.assert_array_equal(ICONClustering(K, random_state=0).fit(X, SOME).labels_, plain.labels_)
    assert "known_classes_" not in vars(plain)
    none_known = ICONClustering(K, supervisory="same_class", random_state=0).fit(X, np.full(len(X), -1))
    assert len(none_known.known_classes_) == 0
    np.testing.assert_array_equal(none_known.labels_, plain.labels_)


def test_all_rows_known():
    p = SameClass(unlabelled=UniformKNN(5))
    np.testing.assert_array_equal(ICONClustering(K, supervisory=p, random_state=0).fit(X, TRUE).labels_, TRUE)


@pytest.mark.filterwarnings("ignore:only 3 of n_clusters=4")
def test_few_rows():
    clusters = ICONClustering(4, supervisory="same_class", random_state=0).fit([[0.0], [1], [5], [6]], [4, -1, 4, -1])
    np.testing.assert_array_equal(clusters.labels_[[0, 2]], 4)
    assert sorted(clusters.labels_[[1, 3]]) == [5, 6]


def test_many_rows(monkeypatch):
    monkeypatch.setattr(automatic, "_MOST_ROWS", 60)
    clusters = ICONClustering(K, supervisory=SameClass(unlabelled=UniformKNN(4)), random_state=0).fit(X, SOME)
    np.testing.assert_array_equal(clusters.labels_[SOME >= 0], SOME[SOME >= 0])
    assert adjusted_rand_score(TRUE, clusters.labels_) == 1


def test_number_of_clusters_is_estimated():
    clusters = ICONClustering("auto", supervisory="same_class", max_clusters=5, random_state=0).fit(X, SOME)
    assert clusters.n_clusters_ == K
    hidden = clusters.cluster_counts_["hidden"]
    assert hidden[0] > 0.3 > 0.01 > hidden[K - 2]  # three of five classes lie in the two known ones' clusters


@pytest.mark.parametrize("known", [1, 2, 4])
def test_number_of_classes_whose_clusters_are_even(known):
    """Even clusters put several new classes into a known one's, of which R tells nothing."""
    y = np.where((np.arange(len(TRUE)) % 2 == 0) & (TRUE < known), TRUE, -1)
    clusters = ICONClustering("auto", supervisory="same_class", max_clusters=9, random_state=0).fit(X, y)
    assert clusters.n_clusters_ == K
    assert clusters.cluster_counts_["n_clusters"][0] == max(2, known)


def test_hidden_mass_against_loops():
    rng, labels = np.random.RandomState(5), TRUE.copy()
    labels[TRUE == 4] = 0  # a class in the cluster of another
    p, weight, found = UniformKNN(6).conditional(X[:, :2]), rng.uniform(0.5, 2, len(X)), 0.0
    P = weight[:, None] * p.toarray()
    for c in range(2):
        inside = np.flatnonzero(labels == c)
        pairs = [(i, j, P[i, j] + P[j, i]) for i in inside for j in inside]
        total = sum(w for _, _, w in pairs)
        one = sum(w for i, _, w in pairs if SOME[i] >= 0)
        both = sum(w for i, j, w in pairs if SOME[i] >= 0 and SOME[j] >= 0)
        found += weight[inside].sum() / weight.sum() * max(0, 1 - one**2 / (total * both))
    assert hidden_mass(p, labels, SOME, weight, np.arange(len(X))) == pytest.approx(found, abs=1e-14)


def test_hidden_mass_of_a_class_apart_is_its_fraction():
    """Of even labels none; of a whole class that is apart its fraction, however many rows are labelled."""
    n = 4000
    labels, known = np.repeat([0, 1, 0], [n // 4, n // 4, n // 2]), np.full(n, -1)
    apart = np.repeat([0, 1, 2], [n // 4, n // 4, n // 2])
    rng, one = np.random.RandomState(6), np.ones(n)
    near = np.stack([rng.choice(np.flatnonzero(apart == c), 20) for c in apart])
    p = Conditional(sparse.csr_array((np.full(20 * n, 1 / 20), near.ravel(), 20 * np.arange(n + 1)), (n, n)))
    for fraction in (0.2, 0.5, 0.9):
        known[: n // 2] = np.where(rng.uniform(size=n // 2) < fraction, apart[: n // 2], -1)
        assert hidden_mass(p, labels, known, one, np.arange(n)) == pytest.approx(0.5, abs=0.02)
        assert hidden_mass(p, apart, known, one, np.arange(n)) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_copies_that_are_labelled_together_hide_nothing(kind):
    rows, centers = make_blobs([60] * 4, 6, random_state=3)
    y = np.where((centers < 2) & (np.arange(240) % 2 == 0), centers, -1)
    found = ICONClustering("auto", supervisory="same_class", max_clusters=6, random_state=0)
    found.fit(kind(np.repeat(rows, 2, axis=0)), np.repeat(y, 2))
    assert found.n_clusters_ == 4
    assert found.cluster_counts_["hidden"][2] < 0.05


def test_hidden_mass_of_single_labels_is_none():
    known = np.full(len(X), -1)
    known[[0, SIZE]] = 0, 1
    assert hidden_mass(UniformKNN(5).conditional(X), TRUE, known, np.ones(len(X)), np.arange(len(X))) == 0


def test_the_number_that_hides_no_class():
    counts, flat = np.arange(3, 9), np.full(6, 0.1)
    hidden = [0.4, 0.2, 0.1, 0.05, 0.04, 0.04]
    assert choice.best_count(counts, flat, hidden) == 6
    assert choice.best_count(counts, [0.1, 0.1, 0.1, 0.1, 0.2, 0.2], hidden) == 6
    assert choice.best_count(counts, [0.1, 0.2, 0.2, 0.2, 0.2, 0.2], hidden) == 6
    assert choice.best_count(counts, [0.1, 0.1, 0.1, 0.1, 0.13, 0.2], hidden) == 6
    assert choice.best_count(counts, [0.1, 0.1, 0.1, 0.1, 0.1, 0.2], hidden) == 7
    assert choice.best_count([5], [0.1], [0.3]) == 5


@pytest.mark.parametrize(
    "y, message",
    [
        (TRUE, "n_clusters=3 counts known classes too, of which y holds 5"),
        (named(["a", "b"]), "'-1' as text"),
        (named(["a", 1], object), "several kinds"),
        (named([np.nan, 1.0]), "NaN"),
        (named([None, "a"], object), "None"),
        (SOME[1:], "inconsistent numbers of samples"),
    ],
    ids=["classes", "text", "mixed", "nan", "none", "length"],
)
def test_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        ICONClustering(3, supervisory=SameClass(unlabelled=UniformKNN(5))).fit(X, y)


def test_init_is_refused():
    with pytest.raises(ValueError, match="known classes say where"):
        ICONClustering(K, supervisory="same_class", init="random").fit(X, SOME)


def test_k_means_beside_known_rows_against_naive_steps():
    rng = np.random.RandomState(3)
    rows, weight = rng.normal(size=(40, 3)), rng.uniform(0.5, 2, 40)
    known = np.where(np.arange(40) % 3 == 0, np.arange(40) % 2, -1)
    labels = k_means_beside(known, rows, 4, weight, seed=0)
    assert (labels[known >= 0] == known[known >= 0]).all()
    means = np.array([np.average(rows[labels == c], axis=0, weights=weight[labels == c]) for c in range(4)])
    for row in np.flatnonzero(known < 0):  # where it ends, no row without a class is nearer to another mean
        assert labels[row] == np.square(means - rows[row]).sum(axis=1).argmin()


def test_flow_of_known_rows_against_dense_walks():
    p, known = UniformKNN(4).conditional(X), np.where(np.arange(len(X)) == 40, 2, SOME)  # class 2 has one row
    weight = np.random.RandomState(4).uniform(1, 2, len(X))
    P = p.toarray()
    walks = P + P @ P
    expected = np.zeros_like(P)
    for i in range(len(X)):
        if known[i] < 0:
            expected[i] = weight[i] * walks[i]
        elif (known == known[i]).sum() > 1:
            expected[i, i] = 2 * weight[i]
    expected = expected + expected.T
    np.testing.assert_allclose(symmetric_flow(p, 2, weight, known).toarray(), expected / expected.sum(), atol=1e-14)


def test_no_move_of_a_row_without_a_class_lowers_the_loss():
    """Of the loss as naive sums over hard clusters, to 1e-8 of what the search says."""
    rows_of = X[:, :2]  # which overlap
    p = UniformKNN(4).conditional(rows_of)
    n, flow = len(X), symmetric_flow(p, 2, np.ones(len(X)), SOME)
    (gain,), (rest,), low, per_unit = table = cost_table("kl", n, 0.3, 0.3)
    at = low + np.arange(len(gain)) / per_unit

    def cost(labels):
        total = 0.0
        for c in range(K):
            own = labels == c
            inside, mass = flow.toarray()[np.ix_(own, own)].sum(), own.mean()
            total += inside * np.interp(np.log(mass), at, gain) + mass * np.interp(np.log(mass), at, rest)
        return total

    rows = Rows(flow, np.full(n, 1 / n), table, K, SOME)
    labels, loss = searched(rows, rows_of, [], 4, 0)[0]
    assert loss == pytest.approx(cost(labels), abs=1e-8)
    assert (labels[SOME >= 0] == SOME[SOME >= 0]).all()
    for row in np.flatnonzero(SOME < 0)[::4]:
        for c in set(range(K)) - {labels[row]}:
            assert cost(np.where(np.arange(n) == row, c, labels)) >= loss - 1e-9
    cut = cut_without_edge(rows, labels, p)
    leaves = (p.toarray() * (labels[:, None] != labels)).sum(axis=1)
    np.testing.assert_allclose(cut[SOME >= 0], leaves[SOME >= 0], atol=1e-12)


def test_empty_clusters_take_rows_without_a_class():
    n = len(X)
    flow = symmetric_flow(UniformKNN(4).conditional(X), 1, np.ones(n), SOME)
    rows = Rows(flow, np.full(n, 1 / n), cost_table("kl", n, 0.3, 0.3), K, SOME)
    labels, _ = settled(rows, np.maximum(SOME, 0), seed=0)
    assert (labels[SOME >= 0] == SOME[SOME >= 0]).all()
    assert len(np.unique(labels)) == K


def test_columns_of_classes():
    assert columns_of(np.array([2, 2, 0, 1]), np.array([0, 0, 1, -1]), 4).tolist() == [2, 0]
