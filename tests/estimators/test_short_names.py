"""Short names of p: one registry, of which every estimator and loss offers its parameters."""

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, supervisory
from sklearn_icon.nn import ICONLoss
from sklearn_icon.supervisory import Gaussian, RandomWalk, StudentT, UniformKNN

X = np.random.default_rng(0).normal(size=(40, 3))
MEASURED = {"metric": "minkowski", "metric_params": {"p": 1}}


def resolved(estimator):
    return estimator._resolve_specs()[0]


@pytest.mark.parametrize("make", [ICONEmbedding, ICONClustering])
@pytest.mark.parametrize(("name", "kind"), [("gaussian", Gaussian), ("student_t", StudentT), ("knn", UniformKNN)])
def test_names_take_what_they_have(make, name, kind):
    spec = resolved(make(supervisory=name, n_neighbors=4, **MEASURED))
    assert isinstance(spec, kind)
    assert (spec.n_neighbors, spec.metric, spec.metric_params) == (4, "minkowski", {"p": 1})
    assert str(resolved(make(supervisory=name))) == str(kind())


def test_walks_take_them_too():
    for spec in (
        resolved(ICONClustering(n_neighbors=4, **MEASURED)),
        resolved(ICONEmbedding(supervisory="walk", n_neighbors=4)),
    ):
        assert isinstance(spec, RandomWalk)
        assert spec.base.n_neighbors == 4
    assert resolved(ICONEmbedding(perplexity=7)).perplexity == 7


class Nearest(UniformKNN):
    def __init__(self, n_neighbors=3, metric="euclidean", source="X", metric_params=None):
        super().__init__(n_neighbors, metric, source, metric_params)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(supervisory.NAMES, "nearest", Nearest)


@pytest.mark.usefixtures("registered")
@pytest.mark.filterwarnings("ignore:.*stopped after")
def test_a_registered_name_works_everywhere():
    for make in (ICONEmbedding, ICONClustering):
        spec = resolved(make(supervisory="nearest", n_neighbors=5, **MEASURED))
        assert isinstance(spec, Nearest)
        assert (spec.n_neighbors, spec.metric) == (5, "minkowski")
        assert resolved(make(supervisory="nearest")).n_neighbors == 3
    for make in (ICONClassifier, ICONCrossModal):
        assert isinstance(resolved(make(supervisory="nearest")), Nearest)
    assert ICONLoss("nearest", "student_t").supervisory.source == "y"
    labels = [
        ICONClustering(2, supervisory="nearest", encoder="lookup", random_state=0, max_iter=10, **how).fit(rows).labels_
        for rows, how in ((X, {}), (pairwise_distances(X), {"metric": "precomputed"}))
    ]
    np.testing.assert_array_equal(*labels)
