"""`ICONClustering` where other libraries call it: topic models, graphs of single cells, searches, silhouettes."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, silhouette_samples, silhouette_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import kneighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_icon import ICONClustering

X, Y = make_blobs([70, 50, 30, 20], n_features=5, center_box=(-12, 12), random_state=4)


class TopicModel:
    """What BERTopic does with its `hdbscan_model`: fit(X, y=y), labels_, and predict for new documents."""

    def __init__(self, hdbscan_model):
        self.hdbscan_model = hdbscan_model

    def fit_transform(self, embeddings, y=None):
        self.hdbscan_model.fit(embeddings, y=y)
        topics = self.hdbscan_model.labels_
        by_size = np.argsort(-np.bincount(topics), kind="stable")
        self.mapping = np.argsort(by_size)
        return self.mapping[topics]

    def transform(self, embeddings):
        return self.mapping[self.hdbscan_model.predict(embeddings)]


@pytest.mark.parametrize("n_columns", [2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_topics(n_columns, dtype):
    embeddings, k = X[:, :n_columns].astype(dtype), 12
    model = TopicModel(ICONClustering(k, random_state=0))
    topics = model.fit_transform(embeddings)
    np.testing.assert_array_equal(np.unique(topics), np.arange(k))  # as many as were asked for
    np.testing.assert_array_equal(model.transform(embeddings), topics)
    assert np.isin(model.transform(embeddings[:7] + dtype(0.01)), topics).all()


def test_a_number_of_topics_that_is_found():
    model = TopicModel(ICONClustering("auto", max_clusters=8, random_state=0))
    assert adjusted_rand_score(Y, model.fit_transform(X)) == 1


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_connectivities_of_single_cells(kind, dtype):
    distances = kneighbors_graph(X, 15, mode="distance")
    scale = distances.max(axis=1).toarray().ravel()
    weights = sparse.csr_array(distances)
    weights.data = np.exp(-np.square(weights.data / np.repeat(scale, np.diff(weights.indptr))))
    connectivities = kind(weights + weights.T - weights * weights.T).astype(dtype)  # a fuzzy union, as UMAP's
    before = connectivities.copy()
    clusters = ICONClustering(4, supervisory="graph", random_state=0).fit(connectivities)
    assert adjusted_rand_score(Y, clusters.labels_) == 1
    assert (connectivities != before).nnz == 0


def test_a_grid_search_over_the_number_of_clusters():
    def silhouette(estimator, X, y=None):
        return silhouette_score(X, estimator.predict(X))

    search = GridSearchCV(
        make_pipeline(StandardScaler(), ICONClustering(random_state=0)),
        {"iconclustering__n_clusters": [2, 3, 4, 5]},
        scoring=silhouette,
        cv=3,
    ).fit(X)
    assert search.best_params_ == {"iconclustering__n_clusters": 4}
    own = GridSearchCV(ICONClustering(random_state=0), {"n_neighbors": [10, 15]}, cv=2).fit(X)
    assert np.isfinite(own.cv_results_["mean_test_score"]).all()


def test_silhouettes():
    labels = ICONClustering(4, random_state=0).fit_predict(X)
    assert silhouette_samples(X, labels).mean() > 0.5
