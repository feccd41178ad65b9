"""ICONEmbedding where TSNE stood: what it takes, says and refuses."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import kneighbors_graph

from sklearn_icon import ICONEmbedding, supervisory

ROWS = np.random.RandomState(4).normal(size=(60, 5))


def test_the_end_is_told(capsys):
    model = ICONEmbedding(verbose=1, random_state=0, max_iter=351, n_iter_without_progress=-1, learning_rate=1e6)
    model.set_params(perplexity=8, init="random").fit(ROWS)
    *_, last, of_fit = capsys.readouterr().out.splitlines()
    assert of_fit.startswith("[ICONEmbedding] fitted in ")
    assert f"Iteration {model.n_iter_ + 1}: error = {model.kl_divergence_:.7f}, " in last
    assert model.stop_reason_ == "n_iter_without_progress"
    assert "did not make any progress during the last -1 episodes. Finished." in last


@pytest.mark.parametrize("encoder, max_iter", [("lookup", 73), ("linear", 4)])
def test_the_number_of_the_last_iteration(encoder, max_iter):
    model = ICONEmbedding(encoder=encoder, max_iter=max_iter, perplexity=8, learning_rate=0.1, random_state=0).fit(ROWS)
    assert model.n_iter_ == max_iter - 1 == sum(n for _, n, _ in model.phases_) - 1 == model.fit_report_["n_iter"]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_distances_below_zero_are_shown_with_their_place(container):
    bad = np.ones((7, 7)) - np.eye(7)
    bad[2, 5] = bad[5, 2] = -0.5
    said = r"\[2, 5\] is -0.5, which is negative.*All distances should be positive"
    with pytest.raises(ValueError, match=said):
        ICONEmbedding(metric="precomputed", perplexity=2).fit(container(bad))


def test_a_metric_below_zero():
    with pytest.raises(ValueError, match="All distances should be positive or zero, those of a metric given"):
        ICONEmbedding(metric=lambda a, b: -2.0, perplexity=2).fit(ROWS[:9])


@pytest.mark.parametrize("X", [np.ones((5, 2)), sparse.csr_array(np.ones((5, 2)))])
def test_distances_that_are_not_square(X):
    with pytest.raises(ValueError, match=r"X must be a square distance matrix, got shape \(5, 2\)"):
        ICONEmbedding(metric="precomputed").fit(X)


@pytest.mark.parametrize("perplexity", [60, 75])
def test_perplexities_of_no_fewer_than_all_rows(perplexity):
    said = re.escape(f"perplexity ({perplexity}) must be less than n_samples (60)")
    with pytest.raises(ValueError, match=said):
        ICONEmbedding(perplexity=perplexity).fit(ROWS)


def test_no_tree_beyond_three_dimensions():
    with pytest.raises(ValueError, match="'n_components' should be at most 3 under method='barnes_hut', got 4"):
        ICONEmbedding(4, method="barnes_hut", perplexity=5).fit(ROWS)
    assert ICONEmbedding(4, perplexity=5, max_iter=30).fit_transform(ROWS).shape == (60, 4)
    assert ICONEmbedding(3, method="barnes_hut", angle=0.2, perplexity=5, max_iter=30).fit_transform(ROWS).shape[1] == 3


def test_equal_rows_stay_where_they_are_put():
    start = np.zeros((20, 2))
    placed = ICONEmbedding(init=start, perplexity=5, random_state=0).fit_transform(np.full((20, 4), 1.5))
    assert_array_equal(placed, start)


def test_a_graph_of_nine_neighbors_is_read_as_it_is():
    graph = kneighbors_graph(ROWS, 9, mode="distance")
    model = ICONEmbedding(metric="precomputed", perplexity=4, max_iter=60, random_state=0).fit(graph)
    other = ICONEmbedding(n_neighbors=9, perplexity=4, max_iter=60, random_state=0, init="spectral").fit(ROWS)
    assert_array_equal(model.embedding_, other.embedding_)


@pytest.mark.parametrize("metric, dtype", [("manhattan", np.float32), ("cosine", np.float32), ("cosine", np.float64)])
def test_a_metric_and_its_distances_give_the_same_map(metric, dtype):
    rows, how = ROWS.astype(dtype), {"perplexity": 8, "max_iter": 60, "init": "random", "random_state": 0}
    named = ICONEmbedding(metric=metric, **how).fit_transform(rows)
    distances = pairwise_distances(rows, metric=metric)
    assert_array_equal(named, ICONEmbedding(metric="precomputed", **how).fit_transform(distances))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("unit", [1.0, 2.0**-85, 2.0**85])
def test_cosines_are_those_of_scikit_learn_but_where_these_cancel(unit, container):
    rows = np.float32(ROWS) + np.float32(2.0)
    rows[1] = 3 * rows[0]
    rows[2] = rows[0] + np.float32(1e-4) * rows[3]
    p = supervisory.Gaussian(perplexity=5, metric="cosine").conditional(container(rows * np.float32(unit)))
    found, exact = p.neighbors.distances, pairwise_distances(rows.astype(float), metric="cosine")
    off = ~np.eye(len(rows), dtype=bool)
    assert found[0, 0] < 1e-13 and 1e-10 < exact[0, 2] < 1e-7
    assert_allclose(found[0, 1], exact[0, 2], rtol=1e-4)  # single precision's own is 0
    assert_allclose(found, exact[off].reshape(found.shape), atol=2e-7)


@pytest.mark.parametrize("init", ["pca", "spectral"])
def test_a_start_that_x_does_not_tell_is_refused(init):
    distances, counts = pairwise_distances(ROWS), 1 + np.abs(ROWS).round()
    how = {"init": init, "perplexity": 5, "max_iter": 2, "random_state": 0}
    tokens = ICONEmbedding(supervisory="counts", normalization="conditional", **how)
    with pytest.raises(ValueError, match=f"init='{init}' is no start of a map of Counts.*use 'auto'"):
        tokens.fit(counts)
    tokens.set_params(init="auto").fit(counts)
    of_distances = ICONEmbedding(metric="precomputed", **how)
    of_graph = ICONEmbedding(supervisory="graph", **how)
    if init == "pca":
        with pytest.raises(ValueError, match='The parameter init="pca" cannot be used with metric="precomputed"'):
            of_distances.fit(distances)
        with pytest.raises(ValueError, match="init='pca' needs features, but X holds a graph; use 'auto'"):
            of_graph.fit(np.exp(-distances))
        of_distances.set_params(init="auto").fit(distances)
    else:
        automatic = ICONEmbedding(metric="precomputed", **how | {"init": "auto"}).fit_transform(distances)
        assert_array_equal(of_distances.fit_transform(distances), automatic)


def test_a_graph_in_which_a_row_has_too_few_neighbors():
    graph = kneighbors_graph(ROWS, 3, mode="distance").tolil()
    graph[7] = 0
    said = "14 neighbors per samples are required, but some samples have only 1"
    with pytest.raises(ValueError, match=rf"KNeighborsTransformer\(mode='distance', n_neighbors=13\).*{said}"):
        ICONEmbedding(metric="precomputed", perplexity=4).fit(graph.tocsr())


@pytest.mark.parametrize("metric", ["correlation", "chebyshev"])
def test_sparse_new_rows_under_a_metric_of_dense_ones(metric):
    model = ICONEmbedding(metric=metric, perplexity=4, max_iter=30, random_state=0).fit(ROWS)
    with pytest.raises(ValueError, match=f"metric='{metric}' does not work on sparse rows"):
        model.transform(sparse.csr_array(ROWS[:4] + 0.1))


@pytest.mark.parametrize(
    "params, said",
    [({"p": p}, "p in metric_params must be a number above zero") for p in (-1, 0, "a", np.nan, [1, 2])]
    + [
        ({"p": 3, "w": w}, "w in metric_params must hold a weight of each of the 5 columns")
        for w in ([1, 2], -np.ones(5))
    ],
)
def test_parameters_of_minkowski_that_make_no_distance(params, said):
    with pytest.raises(ValueError, match=said):
        ICONEmbedding(metric="minkowski", metric_params=params, perplexity=5).fit(ROWS)
