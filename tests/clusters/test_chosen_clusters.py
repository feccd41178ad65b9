"""The default clusters of `ICONClustering`: candidates, the rule that keeps one, and what is kept of it."""

import pickle
from itertools import permutations

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_iris, make_blobs, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, euclidean_distances
from sklearn.neighbors import kneighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_icon import ICONClustering, learned, load, methods, supervisory
from sklearn_icon._clusters import agreement, automatic, choice, memberships, row_search
from sklearn_icon._clusters.eigenvectors import leading_eigenvectors
from sklearn_icon._clusters.local_search import cost_table
from sklearn_icon.supervisory import Gaussian

IRIS = load_iris().data


def corners(sizes, seed=3):
    return make_blobs(sizes, centers=[[0, 0], [7, 0], [0, 7]], cluster_std=0.8, random_state=seed)


def far_blobs(k, size, n_columns, seed=4):
    rng = np.random.RandomState(seed)
    y = np.repeat(np.arange(k), size)
    return 12 * rng.normal(size=(k, n_columns))[y] + rng.normal(size=(len(y), n_columns)), y


def moons(n=260, seed=5):
    return make_moons(n, noise=0.05, random_state=seed)


def line_and_a_far_value():
    rng = np.random.RandomState(6)
    return np.r_[rng.normal(1, 0.1, 90), rng.normal(2, 0.1, 90), 500.0][:, None], np.repeat([0, 1, 2], [90, 90, 1])


SETS = {
    "uneven": (*corners((330, 40, 30)), 3),
    "very uneven": (*corners((420, 20, 20)), 3),
    "small": (*far_blobs(4, 8, 5), 4),
    "tiny": (*far_blobs(5, 4, 4), 5),
    "many": (*far_blobs(30, 9, 8), 30),
    "moons": (*moons(), 2),
    "a far value": (*line_and_a_far_value(), 3),
    "columns": (np.array([[0.0, 5], [0, 7], [0, 3], [20, 5], [20, 7], [20, 3]]), np.repeat([0, 1], 3), 2),
}


@pytest.mark.parametrize("X, y, k", list(SETS.values()), ids=list(SETS))
def test_groups_that_are_plain_to_see_are_found(X, y, k):
    clusters = ICONClustering(k, random_state=0).fit(X)
    assert adjusted_rand_score(y, clusters.labels_) > 0.97
    assert clusters.n_clusters_ == k
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)
    memberships = clusters.predict_proba(X + 1e-3)
    np.testing.assert_allclose(memberships.sum(axis=1), 1, rtol=1e-6)


def test_outliers_do_not_join_the_others():
    X, y = far_blobs(4, 60, 6)
    X[[5, 100]] = 1e6 * np.random.RandomState(0).normal(size=(2, 6))
    found = np.delete(ICONClustering(4, random_state=0).fit_predict(X), [5, 100])
    assert adjusted_rand_score(np.delete(y, [5, 100]), found) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("value", "dtype"), [(50, "f8"), (1e3, "f4"), (1e6, "f8"), (1e6, "f4"), (1e16, "f4")])
def test_one_far_cell_puts_no_groups_together(value, dtype, seed):
    """Groups put together cut nothing of p, and k-means would do it for the cell's sake."""
    X, y = make_blobs(120, n_features=4, centers=3, random_state=seed)
    X = X.astype(dtype)
    X[7, 2] = value
    labels = ICONClustering(3, random_state=0).fit_predict(X)
    assert adjusted_rand_score(np.delete(y, 7), np.delete(labels, 7)) > 0.95


@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_few_rows_in_noise_keep_their_bends(seed):
    """Of draws in which p leads from one to the other in few places; of seed 3 all partitions cut alike."""
    X, y = make_moons(300, noise=0.08, random_state=seed)
    assert adjusted_rand_score(y, ICONClustering(2, random_state=0).fit_predict(X)) > 0.9


@pytest.mark.parametrize("k", [2, 9, 17, 19, 20])
def test_as_many_clusters_as_asked_for_where_rows_are_distinct(k):
    X = np.random.RandomState(k).normal(size=(20, 3))
    clusters = ICONClustering(k, random_state=0).fit(X)
    assert clusters.n_clusters_ == k
    np.testing.assert_array_equal(np.unique(clusters.labels_), np.arange(k))
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)


@pytest.mark.parametrize("distinct", [1, 3])
def test_fewer_distinct_rows_than_clusters(distinct):
    X = np.repeat(np.random.RandomState(1).normal(size=(distinct, 4)), 7, axis=0)
    clusters = ICONClustering(5, random_state=0)
    with pytest.warns(ConvergenceWarning, match=f"only {distinct} of n_clusters=5"):
        clusters.fit(X)
    np.testing.assert_array_equal(np.unique(clusters.labels_), np.arange(distinct))
    assert clusters.chosen_ == "distinct rows"
    memberships = clusters.predict_proba(np.random.RandomState(2).normal(size=(30, 4)))
    np.testing.assert_allclose(memberships.sum(axis=1), 1, rtol=1e-6)


def test_copies_are_weights():
    X, counts = IRIS[::3], np.random.RandomState(0).randint(1, 4, len(IRIS[::3]))
    weighted = ICONClustering(3, random_state=0).fit(X, sample_weight=counts)
    copied = ICONClustering(3, random_state=0).fit(np.repeat(X, counts, axis=0))
    np.testing.assert_array_equal(np.repeat(weighted.labels_, counts), copied.labels_)
    np.testing.assert_allclose(weighted.cluster_centers_, copied.cluster_centers_, rtol=1e-6)


def test_the_order_of_rows_does_not_matter_to_k_means():
    rng = np.random.RandomState(3)
    X, order = rng.normal(size=(160, 6)), rng.permutation(160)
    alone, other = (ICONClustering(7, random_state=0).fit(rows).candidates_ for rows in (X, X[order]))
    assert alone["cut"][0] == pytest.approx(other["cut"][0], rel=1e-12)


@pytest.mark.parametrize("of", [moons, lambda: far_blobs(4, 30, 6)])
def test_sparse_rows_are_dense_ones(of):
    X, y = of()
    X = np.where(np.abs(X) < 0.2, 0, X)
    k = y.max() + 1
    dense, other = (ICONClustering(k, random_state=0).fit(kind(X)) for kind in (np.array, sparse.csr_matrix))
    np.testing.assert_array_equal(dense.labels_, other.labels_)
    new = X[::5] + (X[::5] != 0) * 0.01
    np.testing.assert_allclose(dense.predict_proba(new), other.predict_proba(sparse.csr_array(new)), atol=1e-9)


def test_few_words_in_many_columns():
    rng = np.random.RandomState(8)
    y = np.arange(240) % 6
    dense = (rng.uniform(size=(240, 600)) < 0.01).astype(float)
    dense[np.arange(240)[:, None], 90 * y[:, None] + rng.randint(90, size=(240, 25))] = 1
    X = sparse.csr_array(dense)
    X.data *= 1 / np.sqrt(np.repeat(np.diff(X.indptr), np.diff(X.indptr)))
    clusters = ICONClustering(6, random_state=0).fit(X)
    assert adjusted_rand_score(y, clusters.labels_) == 1
    assert adjusted_rand_score(y, ICONClustering(6, random_state=0).fit(X.toarray()).labels_) == 1
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)


def test_y_is_ignored_in_a_pipeline():
    X, y = corners((60, 50, 40))
    alone = make_pipeline(StandardScaler(), ICONClustering(3, random_state=0)).fit(X)
    told = make_pipeline(StandardScaler(), ICONClustering(3, random_state=0)).fit(X, y[::-1])
    np.testing.assert_array_equal(alone.predict(X), told.predict(X))
    assert np.isfinite(told.score(X[:9], y[:9]))


def test_what_is_cut_by_a_naive_loop():
    labels, weights = np.arange(len(IRIS)) % 3, np.random.RandomState(0).uniform(size=len(IRIS))
    p, share = Gaussian(5, n_neighbors=15).conditional(IRIS), weights / weights.sum()
    found = choice.candidate("some", labels, 0.0, p, share)
    dense = p.toarray()
    cut = sum(share[i] * dense[i, j] for i in range(len(labels)) for j in range(len(labels)) if labels[i] != labels[j])
    even = 1 - sum(share[labels == c].sum() ** 2 for c in range(3))
    assert found.evenness == pytest.approx(even)
    assert found.cut(share) == pytest.approx(cut / even)


def made_up(name, cuts, alone=0, effective=3.0):
    return choice.Candidate(
        name, np.zeros(len(cuts), int), 0.0, np.asarray(cuts), 0.6, effective, np.arange(len(cuts)) < alone
    )


def test_the_rule():
    share, rng = np.full(400, 1 / 400), np.random.RandomState(0)
    noise = 0.01 * rng.normal(size=400)
    noise -= noise.mean()

    def chosen(search=0.1 + 0 * noise, cut=None, means=None, settled=None, **how):
        given = {"search": search, "cut": cut, "k-means": means, "settled k-means": settled}
        simple = {"k-means", "settled k-means"}
        made = {n: made_up(n, cuts, **(how if n in simple else {})) for n, cuts in given.items() if cuts is not None}
        return choice.choose(made, share).name

    assert chosen(cut=0.06 + noise) == "cut"
    assert chosen(cut=0.08 + noise) == "search"
    assert chosen(means=0.119 + noise) == "k-means"
    assert chosen(means=0.121 + noise) == "search"
    assert chosen(settled=0.1005 + noise) == "settled k-means"
    assert chosen(settled=0.1015 + noise) == "search"
    assert chosen(settled=0.1 + noise, effective=2.5) == "search"
    assert chosen(settled=0.06 + noise, effective=2.5) == "settled k-means"
    assert chosen(settled=0.1 + noise, alone=1) == "search"
    outlier_alone = (np.arange(400) < 1).astype(float)
    assert chosen(search=np.full(400, 1e-3), means=outlier_alone, alone=1) == "k-means"
    assert chosen(search=np.zeros(400), means=outlier_alone, alone=1) == "search"


def test_what_is_cut_without_an_edge_by_a_naive_loop():
    X, weights = IRIS[::3], np.random.RandomState(1).uniform(0.5, 1.5, size=50)
    p, n, k = Gaussian(4, n_neighbors=9).conditional(X), len(X), 3
    table = cost_table("kl", n, 0.3, 0.3)
    rows = row_search.Rows(row_search.symmetric_flow(p, 2, weights), weights / weights.sum(), table, k)
    labels, _ = row_search.settled(rows, np.arange(n) % k, seed=0)
    dense, p_ij = rows.flow.toarray(), p.weights.toarray()
    cut = np.zeros(n)
    for i in range(n):
        for j in np.flatnonzero(p_ij[i]):
            flow = dense.copy()
            flow[i, j] = flow[j, i] = 0
            leaves = labels[i] != labels[j]
            for c in np.unique(labels[np.flatnonzero(dense[i])]):
                moved = np.where(np.arange(n) == i, c, labels)
                without = rows._replace(flow=sparse.csr_array(flow))
                losses = [row_search.settled(without, of, 0, 0)[1] for of in (labels, moved)]
                leaves |= losses[1] < losses[0] - 1e-12
            cut[i] += leaves * p_ij[i, j]
    found = row_search.cut_without_edge(rows, labels, p)
    np.testing.assert_allclose(found, cut, atol=1e-12)
    assert found.sum() > (p_ij * (labels[:, None] != labels)).sum()


def test_columns_of_noise_do_not_lead_away_from_k_means():
    more = []
    for seed in range(4):
        rng = np.random.RandomState(200 + seed)
        y = rng.randint(5, size=420)
        X = np.c_[2.5 * rng.normal(size=(5, 4))[y] + rng.normal(size=(420, 4)), rng.normal(size=(420, 24))]
        ours, theirs = ICONClustering(5, random_state=0), KMeans(5, n_init=10, random_state=0)
        more.append(adjusted_rand_score(y, theirs.fit_predict(X)) - adjusted_rand_score(y, ours.fit_predict(X)))
    assert np.mean(more) < 0.03


@pytest.mark.parametrize("n_steps", [1, 2])
def test_no_move_of_a_row_lowers_the_loss_where_rows_are_settled(n_steps):
    X, weights = IRIS[::4], np.random.RandomState(0).uniform(0.5, 1.5, size=38)
    p, n = Gaussian(4, n_neighbors=9).conditional(X), len(X)
    table = cost_table("kl", n, 0.3, 0.3)
    rows = row_search.Rows(row_search.symmetric_flow(p, n_steps, weights), weights / weights.sum(), table, 3)
    flow, ((gain,), (rest,), low, per_unit) = rows.flow.toarray(), table
    grid = low + np.arange(len(gain)) / per_unit
    assert flow.sum() == pytest.approx(1)

    def loss(labels):
        one_hot = np.eye(3)[labels]
        inside, mass = np.einsum("ic,ij,jc->c", one_hot, flow, one_hot), rows.masses @ one_hot
        log_mass = np.log(np.maximum(mass, 1e-300))
        return (inside * np.interp(log_mass, grid, gain) + mass * np.interp(log_mass, grid, rest)).sum()

    labels, found = row_search.settled(rows, np.arange(n) % 3, seed=0)
    assert found == pytest.approx(loss(labels), abs=1e-9)
    for i in range(n):
        for c in np.unique(labels[np.flatnonzero(flow[i])]):  # clusters that p leads to
            assert loss(np.where(np.arange(n) == i, c, labels)) >= found - 1e-9


def test_the_table_says_what_was_chosen():
    rng = np.random.RandomState(0)
    stick = np.c_[rng.uniform(0, 30, 300), rng.normal(size=300)]
    X = np.r_[stick, rng.normal([10, 7], 1, (25, 2)), rng.normal([20, -7], 1, (25, 2))]
    clusters = ICONClustering(3, random_state=0).fit(X)
    table = clusters.candidates_
    assert list(table["name"]) == ["k-means", "settled k-means", "cut", "search"]
    at = list(table["name"]).index(clusters.chosen_)
    assert clusters.loss_ == table["loss"][at]
    assert table["cut"][at] < 0.7 * table["cut"][3]  # whose evenness is not worth its cuts
    assert table["evenness"][3] > table["evenness"][at]
    assert table["effective"][3] > table["effective"][at]
    assert table["loss"][3] < table["loss"][at]


@pytest.mark.parametrize("weights", [None, "thirds"])
@pytest.mark.parametrize("of_graph", [False, True])
def test_parts_of_p_are_the_clusters(of_graph, weights):
    """Whatever their sizes; where one part holds two clusters, there is a choice again."""
    X, y = make_blobs([300, 30, 60], centers=60 * np.eye(3, 4), random_state=0)
    how = {"sample_weight": None if weights is None else 1 + np.arange(len(y)) % 3}
    rows, how_fit = (kneighbors_graph(X, 20), {"supervisory": "graph"}) if of_graph else (X, {})
    clusters = ICONClustering(3, random_state=0, **how_fit).fit(rows, **how)
    assert adjusted_rand_score(y, clusters.labels_) == 1
    assert "search" not in clusters.candidates_["name"]
    assert clusters.candidates_["cut"].max() < 1e-12
    assert np.isfinite(clusters.loss_)
    four = ICONClustering(4, random_state=0, **how_fit).fit(rows, **how)
    assert "search" in four.candidates_["name"]
    assert len(np.unique(four.labels_)) == 4


def test_digits_are_the_search_s():
    X, y = load_digits(return_X_y=True)
    clusters = ICONClustering(10, random_state=1).fit(X)
    assert clusters.chosen_ == "search"
    assert adjusted_rand_score(y, clusters.labels_) > 0.85


@pytest.mark.parametrize("of, k", [(moons, 2), (lambda: corners((400, 40, 30)), 3), (lambda: far_blobs(5, 60, 8), 5)])
def test_of_many_rows_some_are_drawn_to_choose(monkeypatch, of, k):
    X, y = of()
    monkeypatch.setattr(automatic, "_MOST_ROWS", 200)
    clusters = ICONClustering(k, random_state=0).fit(X)
    if clusters.chosen_ == "search":  # linear memberships
        assert clusters.loss_curve_.size > 1
    else:
        assert adjusted_rand_score(y, clusters.labels_) > 0.97
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)


def test_any_other_choice_chooses_nothing():
    for change in ({"encoder": "linear"}, {"debias": 0.3}, {"learned": learned.SharedCluster()}):
        assert not hasattr(ICONClustering(3, max_iter=20, n_init=1, random_state=0, **change).fit(IRIS), "chosen_")
    graph = supervisory.UniformKNN(8).conditional(IRIS).weights
    assert ICONClustering(3, supervisory="graph", random_state=0).fit(graph).chosen_ in ("search", "cut")


@pytest.mark.parametrize(
    "estimator",
    [ICONClustering(3), methods.get("k-means").make_estimator(n_clusters=3), ICONClustering(3, encoder="linear")],
)
def test_verbose_speaks(capsys, estimator):
    estimator.set_params(verbose=1, random_state=0).fit(IRIS)
    assert "[ICONClustering]" in capsys.readouterr().out


def test_memberships_of_rows_are_where_p_leads_and_their_own_cluster_is_likeliest():
    p = Gaussian(4, n_neighbors=9).conditional(IRIS)
    labels = np.random.RandomState(0).randint(3, size=len(IRIS))
    labels[:100] = np.arange(100) // 50
    found, dense = memberships.soft(p, labels), p.toarray()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found.argmax(axis=1), labels)
    inside = np.array([[dense[i, labels == c].sum() for c in range(3)] for i in range(len(IRIS))])
    led = np.sort(inside, axis=1)[:, -1] - 1e-3 > np.sort(inside, axis=1)[:, -2]
    led &= inside.argmax(axis=1) == labels
    np.testing.assert_allclose(found[led], 0.99 * inside[led] + 0.01 / 3)
    assert led.sum() > 100 > (~led).sum() > 10


# --- as sure as halves agree ---------------------------------------------------------------------------------------


def test_agreement_by_a_naive_loop():
    rng = np.random.RandomState(0)
    one, other, weight = rng.randint(3, size=30), rng.randint(4, size=30), rng.uniform(size=30)
    best = max(
        sum(w for a, b, w in zip(one, other, weight, strict=True) if pairs[a] == b)
        for pairs in permutations(range(4), 3)
    )
    assert agreement.agreement(one, other, weight) == pytest.approx(best / weight.sum())
    assert agreement.agreement(one, (one + 1) % 3, weight) == pytest.approx(1)
    halves = [(np.arange(15), other), (np.arange(15, 30), one)]
    parts = agreement.agreement(one[15:], other[15:], weight[15:]), 1.0
    wanted = (agreement.agreement(one, other, weight) + np.mean(parts)) / 2
    assert agreement.mean_agreement(one, halves, weight) == pytest.approx(wanted)


@pytest.mark.parametrize("wanted", [0.2, 0.5, 0.6, 0.9, 1.0])
def test_memberships_are_as_sure_as_wanted(wanted):
    memberships, weight = np.random.RandomState(0).dirichlet(np.ones(4), 50), np.arange(50) % 3 + 0.5
    factor = agreement.sharpness(memberships, weight, wanted)
    found = agreement.sharpened(memberships, factor)
    powers = (memberships / memberships.max(axis=1, keepdims=True)) ** factor
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), atol=1e-12)
    mean = np.average(found.max(axis=1), weights=weight)
    if wanted in (0.2, 1.0):  # beyond what any factor gives
        assert np.log(factor) == pytest.approx(np.sign(wanted - 0.5) * 5)
    else:
        assert mean == pytest.approx(wanted, abs=1e-5)


def overlapping(seed):
    rng, y = np.random.RandomState(seed), np.repeat(np.arange(4), 60)
    return 1.2 * rng.normal(size=(4, 5))[y] + rng.normal(size=(240, 5)), y


@pytest.mark.parametrize("of", ["features", "graph", "distances"])
def test_calibrated_memberships_are_as_sure_as_halves_agree(of):
    X, _ = overlapping(1)
    how = {"supervisory": "graph"} if of == "graph" else {"metric": "precomputed"} if of == "distances" else {}
    rows = {"features": X, "graph": kneighbors_graph(X, 12), "distances": euclidean_distances(X)}[of]
    usual = ICONClustering(4, random_state=0, **how).fit(rows)
    calibrated = ICONClustering(4, random_state=0, calibrate=True, **how).fit(rows)
    np.testing.assert_array_equal(calibrated.labels_, usual.labels_)
    np.testing.assert_array_equal(calibrated.predict(rows), usual.labels_)
    assert 0.3 < calibrated.agreement_ < 1
    assert calibrated.predict_proba(rows).max(axis=1).mean() == pytest.approx(calibrated.agreement_, abs=1e-4)
    assert abs(usual.predict_proba(rows).max(axis=1).mean() - calibrated.agreement_) > 0.01
    assert not hasattr(usual, "agreement_")
    if of == "features":
        np.testing.assert_array_equal(calibrated.cluster_centers_, usual.cluster_centers_)


@pytest.mark.parametrize("seed", range(3))
def test_rows_without_groups_have_less_sure_memberships_than_groups(seed):
    rng = np.random.RandomState(seed)
    one, many = rng.normal(size=(300, 10)), far_blobs(5, 60, 10, seed)[0]
    sure = [ICONClustering(5, random_state=0, calibrate=True).fit(X).predict_proba(X).max() for X in (one, many)]
    found = [ICONClustering(5, random_state=0, calibrate=True).fit(X).agreement_ for X in (one, many)]
    assert found[0] < 0.7 < 0.99 < found[1]
    assert sure[0] < sure[1]


def test_calibrated_rows_without_weight_are_as_new_ones():
    X, _ = overlapping(1)
    weight = np.where(np.arange(240) % 6 < 4, 0.0, 2.0)
    found = ICONClustering(4, random_state=0, calibrate=True).fit(X, None, weight)
    alone = ICONClustering(4, random_state=0, calibrate=True).fit(X[weight > 0])
    np.testing.assert_array_equal(found.predict_proba(X), alone.predict_proba(X))
    assert found.agreement_ == alone.agreement_
    few = np.where(np.arange(240) < 8, 1.0, 0.0)  # four in each half
    found = ICONClustering(2, supervisory="graph", random_state=0, calibrate=True).fit(
        kneighbors_graph(X, 120), None, few
    )
    assert 0.5 <= found.agreement_ <= 1


@pytest.mark.parametrize("graph", [False, True])
def test_calibrated_memberships_row_by_row_and_read_again(graph, tmp_path):
    X, _ = overlapping(1)
    rows, how = (kneighbors_graph(X, 12), {"supervisory": "graph"}) if graph else (X.astype(np.float32), {})
    made = ICONClustering(4, random_state=0, calibrate=True, **how).fit(rows)
    found = made.predict_proba(rows)
    assert found.dtype == (np.float64 if graph else np.float32)
    singly = np.concatenate([made.predict_proba(rows[[i]]) for i in range(30)])
    np.testing.assert_allclose(singly, found[:30], rtol=1e-5, atol=1e-6)
    made.save(tmp_path / "clusters")
    for again in (load(tmp_path / "clusters"), pickle.loads(pickle.dumps(made))):
        np.testing.assert_array_equal(again.predict_proba(rows), found)
        assert again.agreement_ == made.agreement_ and again.calibrate


def test_what_is_not_calibrated():
    X, _ = far_blobs(3, 30, 4)
    with pytest.raises(ValueError, match="calibrate=True is of the default choice"):
        ICONClustering(3, encoder="linear", calibrate=True).fit(X)
    with pytest.raises(ValueError, match="calibrate=True is of the default choice"):
        ICONClustering(3, supervisory="same_class", calibrate=True).fit(X, np.full(90, -1))
    with pytest.raises(ValueError, match="n_samples=3 that weigh something should be >= 4"):
        ICONClustering(2, calibrate=True).fit(X[:3])
    with pytest.raises(ValueError, match="n_samples=3 that weigh something should be >= 4"):
        ICONClustering(2, supervisory="graph", calibrate=True).fit(kneighbors_graph(X, 9), None, np.arange(90) < 3)
    with pytest.raises(ValueError, match="sparse X of distances lose half their neighbours"):
        ICONClustering(3, metric="precomputed", calibrate=True).fit(kneighbors_graph(X, 30, mode="distance"))
    pairs = sparse.block_diag([np.array([[0, 1], [1, 0]])] * 2, format="csr")  # halves of it may be without an edge
    with pytest.raises(ValueError, match="halves of the rows, of which one is refused: no row has a positive"):
        ICONClustering(2, supervisory="graph", random_state=0, calibrate=True).fit(pairs)
    for n in (4, 5, 13):  # few in a half, fewer than clusters
        found = ICONClustering(3, random_state=0, calibrate=True, n_neighbors=3).fit(X[:n]).predict_proba(X[:n])
        np.testing.assert_allclose(found.sum(axis=1), 1)
    assert ICONClustering("auto", max_clusters=5, random_state=0, calibrate=True).fit(X).agreement_ == 1


# --- how many -------------------------------------------------------------------------------------------------------


NUMBERS = {
    "uneven": (corners((200, 40, 30))[0], 3),
    "small": (far_blobs(6, 9, 5)[0], 6),
    "wide": (far_blobs(5, 8, 300)[0], 5),
    "spread": (
        make_blobs(300, centers=[[0, 0], [9, 1], [2, 8], [11, 10]], cluster_std=[0.5, 1, 1.5, 1], random_state=2)[0],
        4,
    ),
}


@pytest.mark.parametrize("X, k", list(NUMBERS.values()), ids=list(NUMBERS))
def test_the_number_of_groups_is_found(X, k):
    clusters = ICONClustering("auto", max_clusters=9, random_state=0).fit(X)
    assert clusters.n_clusters_ == k
    np.testing.assert_array_equal(clusters.cluster_counts_["n_clusters"], np.arange(2, 11))
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)
    assert clusters.predict_proba(X[:5] + 1e-3).shape == (5, k)
    assert np.isfinite(clusters.score(X))
    assert clusters.n_clusters == "auto"


@pytest.mark.parametrize("max_clusters", [2, 4])
def test_no_more_clusters_than_the_most(max_clusters):
    X, _ = far_blobs(8, 10, 5)
    clusters = ICONClustering("auto", max_clusters=max_clusters, random_state=0).fit(X)
    assert clusters.n_clusters_ == max_clusters
    asked = ICONClustering(4, random_state=0).fit(X).n_clusters_
    assert clusters.set_params(n_clusters=4).fit(X).n_clusters_ == asked == 4
    assert not hasattr(clusters, "cluster_counts_")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_number_of_clusters_of_few_rows(n):
    X = np.random.RandomState(n).normal(size=(n, 2))
    clusters = ICONClustering("auto", random_state=0).fit(X)
    assert 1 <= clusters.n_clusters_ <= n
    np.testing.assert_array_equal(clusters.predict(X), clusters.labels_)


def test_no_number_is_found_beside_other_choices():
    with pytest.raises(ValueError, match='n_clusters="auto" is of the default choice'):
        ICONClustering("auto", encoder="linear").fit(IRIS)


def test_the_number_after_which_most_is_cut():
    counts = np.arange(2, 7)
    assert choice.best_count(counts, [0.0, 0.001, 0.05, 0.06, 0.07]) == 3
    assert choice.best_count(counts, [0.05, 0.06, 0.07, 0.3, 0.32]) == 4
    assert choice.best_count(counts, [0.0, 0.0, 0.0003, 0.0, 0.0003]) == 5
    assert choice.best_count([2], [0.3]) == 2


# --- k-means --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_new_rows_go_to_the_nearest_centre_of_k_means(dtype):
    X = np.random.RandomState(7).uniform(size=(900, 4)).astype(dtype)
    clusters = methods.get("k-means").make_estimator(n_clusters=11, random_state=0).fit(X[:300])
    nearest = np.square(X[:, None] - clusters.cluster_centers_).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(clusters.predict(X), nearest)
    np.testing.assert_array_equal(clusters.predict(X[:300]), clusters.labels_)


def test_k_means_of_single_precision_far_from_zero():
    X, _ = make_blobs(300, 3, centers=4, random_state=8)
    far = (X + 1e4).astype(np.float32)
    clusters = methods.get("k-means").make_estimator(n_clusters=4, random_state=0).fit(far)
    theirs = KMeans(4, n_init=10, random_state=0).fit(far.astype(np.float64))
    assert clusters.inertia_ == pytest.approx(theirs.inertia_, rel=1e-5)
    np.testing.assert_allclose(
        np.sort(clusters.cluster_centers_, axis=0), np.sort(theirs.cluster_centers_, axis=0), rtol=1e-7
    )


@pytest.mark.parametrize("apart", [2.0, 30.0], ids=["joined", "apart"])
@pytest.mark.parametrize("n", [16, 200])
def test_leading_eigenvectors_span_those_of_the_whole_matrix(n, apart):
    """Of groups that nothing joins, too: their eigenvalue is one, several times. Rows that nothing joins have none."""
    rng = np.random.RandomState(0)
    X = apart * rng.normal(size=(4, 3))[np.arange(n) % 4] + rng.normal(size=(n, 3))
    p = Gaussian(1.2, n_neighbors=3) if n == 16 else Gaussian(5, n_neighbors=15)
    flow = row_search.symmetric_flow(p.conditional(X), 1, (np.arange(n) >= 1) * 1.0)
    degrees = np.asarray(flow.sum(axis=1)).ravel()
    root = np.sqrt(np.where(degrees > 0, degrees, 1))
    values, vectors = np.linalg.eigh(flow.toarray() / np.outer(root, root))
    leading = vectors[:, ::-1][:, :4]
    found = leading_eigenvectors(flow, 4, 0) * root[:, None]
    within = np.linalg.svd(leading.T @ np.linalg.qr(found)[0], compute_uv=False)
    assert within.min() > 0.999
    assert (values[-1] - values[-4] < 1e-9) == (apart > 10)


@pytest.mark.parametrize("n", [30, 4000])
def test_groups_are_told_from_halves_of_one_by_their_nearest_rows(n):
    X, y = make_blobs([n, n], centers=[[0, 0, 0], [9, 0, 0]], random_state=0)
    X, y = np.vstack([X, [[500, 500, 500]]]), np.append(y, 2)
    halved = np.where((y == 1) & (X[:, 1] > 0), 2, y % 2)
    alone = y == 2

    def of(labels):
        return choice.Candidate("", labels, 0.0, np.zeros(len(y)), 0.5, 2.0, alone)

    in_one = np.where(alone, 1, 0)
    assert not choice.puts_together(X, of(y), of(halved))
    assert choice.puts_together(X, of(in_one), of(y % 2))
    assert not choice.puts_together(X, of(y), of(y % 2))
