"""Searches that are shared find what each finds alone."""

import numpy as np
import pytest

from sklearn_icon._graph import neighbors, shared
from sklearn_icon._graph.neighbors import nearest_neighbors
from sklearn_icon._graph.shared import sharing_searches

ROWS = {
    "normal": np.random.default_rng(0).normal(size=(60, 3)),
    "ties": np.random.default_rng(1).integers(3, size=(60, 2)).astype(np.float32),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_same_neighbours(name):
    X = ROWS[name]
    asked = [(9, "euclidean"), (4, "euclidean"), (59, "euclidean"), (9, "cosine"), (12, "euclidean"), (59, "euclidean")]
    X = X + 1 if name == "ties" else X  # rows of zeros have no angle
    alone = [nearest_neighbors(X, k, metric=metric, random_state=3) for k, metric in asked]
    with sharing_searches():
        for (k, metric), own in zip(asked, alone, strict=True):
            found = nearest_neighbors(X.copy(), k, metric=metric, random_state=3)
            np.testing.assert_array_equal(found.indices, own.indices)
            np.testing.assert_array_equal(found.distances, own.distances)
            found.indices[:], found.distances[:] = -1, -1  # a caller's own


def test_rows_are_searched_once(monkeypatch):
    calls = []
    monkeypatch.setattr(neighbors, "search", lambda *args, search=neighbors.search: calls.append(1) or search(*args))
    X = ROWS["normal"]
    with sharing_searches():
        for k in (20, 5, 20, 11):
            nearest_neighbors(X, k)
        assert len(calls) == 1
        nearest_neighbors(X + 1, 5)
        nearest_neighbors(X, 5, metric="cosine")
        assert len(calls) == 3
    nearest_neighbors(X, 5)
    assert len(calls) == 4
    assert shared._CURRENT.found is None
