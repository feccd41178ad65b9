"""The k-means and spectral rows where KMeans and SpectralClustering stood: starts, distances, graphs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph

from sklearn_icon import ICONClustering, methods
from sklearn_icon._clusters import k_means_in_blocks, losses
from sklearn_icon.supervisory import Gaussian, Spectral, _spectral

ROWS, GROUPS = make_blobs(150, n_features=4, centers=5, cluster_std=2.0, random_state=3)


def k_means(**params):
    return methods.get("k-means").make_estimator(**{"n_clusters": 5, "random_state": 1} | params)


def spectral(**params):
    return methods.get("spectral").make_estimator(**{"n_clusters": 3, "random_state": 1} | params)


def overwriting(X, k, random_state):
    X *= -1
    return -X[:k]


STARTS = {
    "view": lambda X, k, random_state: X[:k],
    "list": lambda X, k, random_state: X[:k].tolist(),
    "overwriting": overwriting,
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("scale, dtype", [(1, np.float64), (1, np.float32), (1e140, np.float64)])
@pytest.mark.parametrize("sigma", [0.0, 1.0], ids=["hard", "soft"])
def test_functions_that_return_rows_leave_the_rows_alone(start, scale, dtype, sigma):
    rows = (scale * (ROWS - ROWS.mean(axis=0))).astype(dtype)  # KMeans hands functions centred rows
    how = {"n_init": 1, "max_iter": 1, "supervisory": Gaussian(sigma=sigma * scale)}
    fits = [k_means(init=init, **how) for init in (start, rows[:5])]
    labels = [fit.fit(rows).labels_ for fit in fits]
    assert adjusted_rand_score(*labels) == 1
    assert_array_equal(fits[0].predict(rows), labels[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("shift", [0, 300])
def test_an_array_of_starts_is_where_k_means_starts(dtype, container, shift):
    rows = container((10 * ROWS + shift).astype(dtype))
    starts = (10 * ROWS[[100, 3, 60, 70, 9]] + shift).astype(dtype)
    ours = k_means(init=starts, max_iter=2, tol=0).fit(rows)
    theirs = KMeans(5, init=starts, n_init=1, max_iter=2, tol=0).fit(rows)
    assert_array_equal(ours.labels_, theirs.labels_)  # numbered as the starts
    assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-4)
    assert_allclose(starts, (10 * ROWS[[100, 3, 60, 70, 9]] + shift).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_function_makes_starts_of_rows_as_they_are_given(dtype):
    rows = (ROWS + 50).astype(dtype)
    seen = []

    def first(X, n_clusters, random_state):
        seen.append(np.asarray(X).mean())
        return X[:n_clusters]

    ours = k_means(init=first, n_init=1, max_iter=1).fit(rows)
    theirs = KMeans(5, init=rows[:5], n_init=1, max_iter=1).fit(rows)
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1
    assert len(seen) == 1


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1.0), (np.float64, 1e-200), (np.float64, 1e100)])
def test_rows_above_max_memory_are_read_in_blocks(dtype, scale, monkeypatch):
    monkeypatch.setattr(k_means_in_blocks, "_NUMBERS_AT_ONCE", 100)
    rows, starts = (part.astype(dtype) * dtype(scale) for part in (ROWS + 40, ROWS[[100, 3, 60, 70, 9]] + 40))
    weight = np.arange(150) % 3 + 1.0
    for params in ({"init": starts}, {"init": lambda X, n, random_state: X[:n], "n_init": 1}, {"n_init": 20}):
        usual = k_means(**params).fit(rows, sample_weight=weight)
        model = k_means(**params, max_memory=1e9)
        monkeypatch.setattr(losses, "copies_have_room", lambda *_: False)
        ours = model.fit(rows, sample_weight=weight)
        monkeypatch.undo()
        assert_array_equal(ours.labels_, usual.labels_)
        assert_allclose(ours.cluster_centers_, usual.cluster_centers_, rtol=1e-5)
        assert_allclose(ours.inertia_, usual.inertia_, rtol=1e-5)
        assert_allclose(ours.loss_, usual.loss_, rtol=1e-4)
        assert_array_equal(ours.predict(rows), ours.labels_)


def test_random_starts_and_elkan_end_as_those_of_the_peer():
    for params in ({"init": "random"}, {"algorithm": "elkan"}, {"copy_x": False}):
        ours = k_means(**params).fit(ROWS)
        theirs = KMeans(5, n_init=10, random_state=1, tol=0, **params).fit(ROWS)
        assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-10)


def test_starts_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="number of clusters 5"):
        k_means(init=ROWS[:4]).fit(ROWS)
    with pytest.raises(ValueError, match="number of features"):
        k_means(init=ROWS[:5, :2]).fit(ROWS.astype(np.float32))


@pytest.mark.parametrize("given", [{"init": "random"}, {"init": ROWS[:5]}, {"algorithm": "elkan"}])
def test_what_is_said_of_k_means_is_refused_where_there_is_none(given):
    for others in ({"encoder": "linear"}, {"metric": "precomputed"}):
        X = ROWS if "encoder" in others else pairwise_distances(ROWS)
        with pytest.raises(ValueError, match=f"(?s){next(iter(given))}=.* is of k-means, which has no part here"):
            ICONClustering(5, **given, **others).fit(X)


def test_starts_of_the_candidate_by_k_means_at_the_defaults():
    means = np.array([ROWS[GROUPS == c].mean(axis=0) for c in range(5)])
    for init in ("random", means, lambda X, n_clusters, random_state: means):
        assert adjusted_rand_score(ICONClustering(5, init=init, random_state=0).fit(ROWS).labels_, GROUPS) > 0.8
    with pytest.raises(ValueError, match="number of clusters 5"):
        ICONClustering(5, init=means[:2]).fit(ROWS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_transform_to_distances(dtype, container):
    rows = container(ROWS.astype(dtype))
    for clusters in (k_means(output="distances"), ICONClustering(5, output="distances", random_state=0)):
        placed = clusters.fit_transform(rows)
        assert placed.dtype == dtype
        assert_allclose(placed, pairwise_distances(ROWS, clusters.cluster_centers_), rtol=1e-3)
    nearest = k_means().fit(rows)
    new = (1.3 * ROWS[::3]).astype(dtype)
    assert_array_equal(
        nearest.predict(container(new)), pairwise_distances(new, nearest.cluster_centers_).argmin(axis=1)
    )


def test_distances_need_centres():
    with pytest.raises(ValueError, match="output='distances' needs centres, but X holds distances"):
        ICONClustering(3, metric="precomputed", output="distances").fit(pairwise_distances(ROWS))


BLOBS, OF_BLOB = make_blobs([30, 40, 50], n_features=3, cluster_std=0.6, random_state=5)


@pytest.mark.parametrize("given", [{"affinity": "rbf", "gamma": 0.3}, {"affinity": "laplacian", "gamma": 0.5}])
def test_kernels_as_graphs(given):
    ours = spectral(**given).fit(BLOBS)
    theirs = SpectralClustering(3, random_state=1, **given).fit(BLOBS)
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1
    by_hand = spectral(affinity=lambda a, b: np.exp(-0.3 * np.square(a - b).sum())).fit(BLOBS)
    assert adjusted_rand_score(by_hand.labels_, spectral(affinity="rbf", gamma=0.3).fit(BLOBS).labels_) == 1
    assert (ours.predict(BLOBS + 1e-3) == ours.labels_).mean() > 0.97


def test_kernels_below_zero_are_no_graph():
    with pytest.raises(ValueError, match="Negative values"):
        spectral(affinity="linear").fit(BLOBS - BLOBS.mean(axis=0))


def test_distances_of_neighbours_as_a_graph():
    of_nine = kneighbors_graph(BLOBS, 9, mode="distance")
    of_twenty = kneighbors_graph(BLOBS, 20, mode="distance")
    by_rows = spectral(affinity="nearest_neighbors", n_neighbors=10).fit(BLOBS)
    by_graph = spectral(affinity="precomputed_nearest_neighbors").fit(of_nine)
    more = spectral(affinity="precomputed_nearest_neighbors").fit(of_twenty)
    assert_array_equal(by_rows.labels_, by_graph.labels_)
    assert_array_equal(by_rows.labels_, more.labels_)
    assert by_graph.supervisory_.affinity == "precomputed_nearest_neighbors"
    distances = pairwise_distances(BLOBS[::2] + 1e-4, BLOBS)
    assert_array_equal(more.predict(distances), more.labels_[::2])
    few = spectral(affinity="precomputed_nearest_neighbors")
    with pytest.warns(
        UserWarning, match="n_neighbors=10 is too large for a graph of 5 neighbors a row; using n_neigh.*6"
    ):
        few.fit(kneighbors_graph(BLOBS, 5, mode="distance"))


@pytest.mark.parametrize("solver", [None, "arpack", "lobpcg"])
def test_eigenvectors_by_any_solver(solver):
    graph = rbf_kernel(BLOBS, gamma=0.3)
    found = spectral(affinity="precomputed", eigen_solver=solver).fit(graph).labels_
    assert adjusted_rand_score(found, OF_BLOB) == 1


@pytest.mark.parametrize("labels", ["discretize", "cluster_qr"])
def test_k_means_begins_at_other_roundings_of_eigenvectors(labels):
    X = make_blobs(90, centers=6, cluster_std=2.0, random_state=3)[0]
    graph = rbf_kernel(X, gamma=0.3)
    given = {"n_clusters": 6, "affinity": "precomputed", "random_state": 0}
    ours = spectral(**given, assign_labels=labels).fit(graph)
    again = spectral(**given, assign_labels=labels, n_components=6).fit(graph)
    assert_array_equal(ours.labels_, again.labels_)
    of_sparse = spectral(**given, assign_labels=labels).fit(sparse.csr_array(graph))  # summed in another order
    theirs = SpectralClustering(**given, assign_labels=labels).fit_predict(graph)
    rows = ours.supervisory_.measured_rows(graph, random_state=0)

    def inertia(y):
        return sum(np.square(rows[y == c] - rows[y == c].mean(axis=0)).sum() for c in np.unique(y))

    for found in (ours, of_sparse):
        assert inertia(found.labels_) <= inertia(theirs) * (1 + 1e-9)
        assert adjusted_rand_score(found.labels_, theirs) > 0.5
    with pytest.raises(ValueError, match=f"assign_labels='{labels}' .* n_components=4 and n_clusters=6"):
        spectral(**given, assign_labels=labels, n_components=4).fit(graph)
    with pytest.raises(ValueError, match=r"init='random' .* both say where k-means begins"):
        spectral(**given, assign_labels=labels, init="random").fit(graph)


def test_a_label_of_no_row_begins_at_the_farthest_one():
    rows = np.array([[0.0, 0, 0], [0, 1, 0], [9, 9, 9]])
    found = _spectral._means(rows, np.array([0, 0, 2]))
    assert_array_equal(found[[0, 2]], [[0, 0.5, 0], [9, 9, 9]])
    assert found[1].tolist() in rows.tolist()


def test_options_of_kernels_as_graphs():
    X = np.abs(BLOBS)
    by_name = spectral(affinity="poly", gamma=0.5, kernel_params={"degree": 2, "coef0": 0.0}).fit(X)
    by_hand = spectral(affinity=lambda a, b, power: (0.5 * a @ b) ** power, kernel_params={"power": 2}).fit(X)
    assert adjusted_rand_score(by_name.labels_, by_hand.labels_) == 1
    with pytest.raises(ValueError, match="'eigen_tol' parameter of Spectral"):
        spectral(eigen_tol=-1.0).fit(X)
    assert adjusted_rand_score(spectral(eigen_tol=1e-3).fit(BLOBS).labels_, OF_BLOB) == 1


def test_a_row_takes_parameters_that_p_alone_has():
    made = spectral(affinity="rbf", gamma=2.0, n_neighbors=7)
    assert made.supervisory.get_params()["gamma"] == 2 and made.supervisory.n_neighbors == 7
    assert clone(made).supervisory.affinity == "rbf"
    own = spectral(supervisory=Spectral(Gaussian(sigma=0), affinity="rbf"), gamma=3.0)
    assert own.supervisory.gamma == 3.0
    with pytest.raises(ValueError, match="Invalid parameter 'gamma'"):
        k_means(gamma=2.0)


def test_every_route_says_something(capsys):
    graph = kneighbors_graph(BLOBS, 8)
    routes = [
        (ICONClustering(3), BLOBS),
        (ICONClustering(3), BLOBS[[0, 1, 60] * 4]),
        (ICONClustering(3, encoder="linear", max_iter=20), BLOBS),
        (
            ICONClustering(3, supervisory=Gaussian(sigma=1.0), encoder="lookup", divergence="reverse_kl", max_iter=90),
            BLOBS,
        ),
        (k_means(n_clusters=3), BLOBS),
        (spectral(), BLOBS),
        (methods.get("ncut").make_estimator(n_clusters=3), (graph + graph.T) / 2),
    ]
    for clusters, X in routes:
        clusters.set_params(verbose=1, random_state=0).fit(X)
        assert "[ICONClustering]" in capsys.readouterr().out
