"""Grid searches of all estimators in workers of dask, by joblib's backend, where it is installed."""

import joblib
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding

X, y = load_iris(return_X_y=True)
SEARCHES = {
    "map": (ICONEmbedding(max_iter=10, random_state=0), {"perplexity": [5, 10]}, (X,)),
    "clusters": (ICONClustering(encoder="linear", max_iter=2, random_state=0), {"n_clusters": [2, 3]}, (X, y)),
    "classes": (ICONClassifier(), {"C": [0.1, 1.0]}, (X, y)),
    "pairs": (ICONCrossModal(2, encoder="linear", random_state=0), {"max_iter": [2, 3]}, (X, X[:, :2])),
}


def test_grid_searches_in_workers_of_dask():
    distributed = pytest.importorskip("distributed", reason="dask-distributed is not installed")
    kinds = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**kinds) as cluster, distributed.Client(cluster):
        for model, grid, data in SEARCHES.values():
            search = GridSearchCV(model, grid, cv=2, error_score="raise")
            with joblib.parallel_backend("dask"):
                there = clone(search).fit(*data)
            here = search.fit(*data)
            assert_array_equal(there.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"])
            assert there.best_params_ == here.best_params_
