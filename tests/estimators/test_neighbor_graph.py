"""One neighbour graph for several estimators, and for all points of a grid."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import DBSCAN
from sklearn.manifold import TSNE
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import Pipeline

from sklearn_icon import ICONClustering, ICONEmbedding, encoders, learned, supervisory
from sklearn_icon._graph import neighbors as search

QUICK = {"max_iter": 20, "random_state": 0}
X = np.random.RandomState(8).standard_normal((150, 6)) + 4 * (np.arange(150) % 3)[:, None]


@pytest.fixture
def searches(monkeypatch):
    """Counts the searches among rows of features, and what KNeighborsTransformer is fitted to."""
    counts = {"ours": 0, "theirs": 0}
    plain, fit = search.search, KNeighborsTransformer.fit

    def counted(space, *args, **kwargs):
        counts["ours"] += space.metric != "precomputed"
        return plain(space, *args, **kwargs)

    def counted_fit(self, *args, **kwargs):
        counts["theirs"] += 1
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(search, "search", counted)
    monkeypatch.setattr(KNeighborsTransformer, "fit", counted_fit)
    return counts


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "estimator, n_neighbors",
    [
        (ICONEmbedding(n_neighbors=40, perplexity=10, **QUICK), 40),
        (ICONEmbedding(perplexity=10, **QUICK), 91),
        (ICONEmbedding(supervisory="knn", encoder=encoders.Linear(), **QUICK), 15),
        (ICONEmbedding(supervisory=supervisory.RandomWalk(supervisory.UniformKNN(9), 2), debias=0.1, **QUICK), 9),
        (ICONClustering(3, n_neighbors=8, random_state=0), 12),
        (ICONClustering(3, supervisory="knn", encoder="lookup", n_neighbors=7, **QUICK), 7),
    ],
    ids=["map", "all-rows", "linear", "walks", "clusters", "lookup"],
)
def test_the_graph_is_that_of_a_transformer(estimator, n_neighbors, dtype, kind):
    rows = kind(X.astype(dtype))
    graph = clone(estimator).fit(rows).neighbors_graph_
    theirs = KNeighborsTransformer(mode="distance", n_neighbors=n_neighbors).fit_transform(rows)
    assert (np.diff(graph.indptr) == n_neighbors + 1).all() and graph.data.dtype == dtype
    assert (np.diff(graph.data.reshape(150, -1), axis=1) >= 0).all()
    np.testing.assert_array_equal(graph.indices.reshape(150, -1)[:, 0], np.arange(150))
    np.testing.assert_allclose(graph.toarray(), theirs.toarray(), rtol=1e-4, atol=1e-5)


def test_one_search_serves_all_estimators(searches):
    graph = ICONEmbedding(**QUICK).fit(X).neighbors_graph_
    assert searches["ours"] == 1
    for kernel in ("gaussian", "student_t", learned.StudentT(df=2)):
        again = ICONEmbedding(metric="precomputed", learned=kernel, init=X[:, :2], **QUICK).fit(graph)
        assert np.isfinite(again.embedding_).all()
    labels = ICONClustering(3, metric="precomputed", random_state=0).fit_predict(graph)
    assert set(labels) == {0, 1, 2} and len(set(zip(labels, np.arange(150) % 3, strict=True))) == 3
    assert searches["ours"] == 1
    features = ICONEmbedding(n_neighbors=91, init=X[:, :2], **QUICK).fit(X)
    handed_on = ICONEmbedding(metric="precomputed", n_neighbors=91, init=X[:, :2], **QUICK).fit(graph)
    assert handed_on.kl_divergence_ == pytest.approx(features.kl_divergence_, rel=1e-3)
    DBSCAN(metric="precomputed").fit(graph)  # others read it too
    TSNE(metric="precomputed", init="random", max_iter=250, random_state=0).fit(sparse.csr_matrix(graph))


def test_a_grid_of_kernels_builds_one_graph(searches, tmp_path):
    chain = Pipeline(
        [
            ("graph", KNeighborsTransformer(mode="distance", n_neighbors=31)),
            ("map", ICONEmbedding(metric="precomputed", perplexity=10, init="random", **QUICK)),
        ],
        memory=str(tmp_path),
    )
    kernels = ["gaussian", "student_t", *(learned.StudentT(df=df) for df in (0.5, 2.0, 4.0, 8.0))]
    grid = {"map__learned": kernels, "map__normalization": ["joint", "conditional"]}
    found = GridSearchCV(chain, grid, cv=ShuffleSplit(1, test_size=0.3, random_state=0), refit=False).fit(X)
    assert len(found.cv_results_["params"]) == 12 and np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert searches == {"ours": 0, "theirs": 1}


def test_where_there_is_no_graph():
    of_graph = ICONEmbedding(supervisory="graph", init="random", **QUICK).fit(np.ones((30, 30)))
    assert not hasattr(of_graph, "neighbors_graph_")
    fitted = ICONEmbedding(**QUICK).fit(X)
    assert hasattr(fitted, "neighbors_graph_") and not hasattr(pickle.loads(pickle.dumps(fitted)), "neighbors_graph_")
    assert not hasattr(fitted.set_params(supervisory="same_class").fit(X, np.arange(150) % 3), "neighbors_graph_")
