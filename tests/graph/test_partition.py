"""Neighbours by partition: most are found, their distances are right, and data that cannot be parted go elsewhere."""

import errno
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise_distances

from sklearn_icon._core import pieces
from sklearn_icon._graph import on_disk, partition, search, space
from sklearn_icon._graph.neighbors import nearest_neighbors


def clumps(n=2000, d=6, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return (3 * rng.normal(size=(40, d))[rng.integers(40, size=n)] + rng.normal(size=(n, d))).astype(dtype)


@pytest.fixture
def large(monkeypatch):
    """Every data set is too large to be searched exactly, and there is no other approximate search."""
    monkeypatch.setattr(search, "_EXACT_LIMIT", 0)
    monkeypatch.setattr(search, "_TREE_ROWS", np.inf)
    monkeypatch.setattr(space, "_COMPILED_ROWS", 0)
    monkeypatch.setitem(sys.modules, "pynndescent", None)


def check(found, X, k, least, metric="euclidean"):
    D = cdist(X.astype(float), X.astype(float), metric)
    rtol = 1e-9 if X.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found.distances, np.take_along_axis(D, found.indices, axis=1), rtol=rtol, atol=rtol)
    assert all(len(set(row)) == k and i not in row for i, row in enumerate(found.indices))
    np.fill_diagonal(D, np.inf)
    near = found.distances <= np.sort(D, axis=1)[:, k - 1 : k] * (1 + rtol)
    assert near.mean() > least
    assert found.recall == pytest.approx(near.mean(), abs=0.05)
    assert found.exact is False


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_most_neighbours_are_found(dtype, metric):
    X = clumps() * (20 if dtype == np.int64 else 1)
    X = np.round(X).astype(dtype) if dtype == np.int64 else X.astype(dtype)
    check(nearest_neighbors(X, 12, metric=metric), X.astype(float) if dtype == np.int64 else X, 12, 0.95, metric)


@pytest.mark.usefixtures("large")
def test_threads_change_nothing_and_seeds_repeat():
    X = clumps()
    found = nearest_neighbors(X, 12, n_jobs=1, random_state=3)
    for n_jobs in (2, 3):
        again = nearest_neighbors(X, 12, n_jobs=n_jobs, random_state=3)
        np.testing.assert_array_equal(again.indices, found.indices)
        np.testing.assert_array_equal(again.distances, found.distances)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", ["copies", "far rows", "an offset"])
def test_hard_rows(kind):
    X = clumps()
    if kind == "copies":
        X[500:900] = X[0]
    elif kind == "far rows":
        X[[3, 700], 2] = [1e16, -9.97e36]
    else:
        X = np.round(X, 6) + 1e6
    found = nearest_neighbors(X, 12)
    check(found, X, 12, 0.95)
    if kind == "copies":
        assert np.bincount(found.indices.ravel(), minlength=len(X))[500:900].max() < 60  # 12 on average


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("n", [100, 1024])
def test_cells_hold_all_rows_once(n):
    X = clumps(n, 3, np.float32)
    cells = partition.part(X, 0)
    np.testing.assert_array_equal(np.sort(cells.order[cells.order >= 0]), np.arange(n))
    for cell, (start, stop) in enumerate(zip(cells.starts[:-1], cells.starts[1:], strict=True)):
        rows = cells.order[start:stop]
        assert (cells.cell[rows[rows >= 0]] == cell).all()
        assert cells.near[cell, 0] == cell


def test_all_cells_and_all_neighbours_are_exact():
    X = clumps(600, 3, np.float32)
    cells = partition.part(X, 0)
    candidates = partition.partition_candidates(X, cells, len(cells.near), 15, 2)
    expected = np.argsort(pairwise_distances(X.astype(float)), axis=1)[:, :15]
    np.testing.assert_array_equal(np.sort(candidates), np.sort(expected))


@pytest.mark.usefixtures("large")
def test_rows_without_structure_are_left_to_another_search():
    X = np.random.default_rng(0).normal(size=(2000, 60))
    with pytest.raises(ImportError):
        nearest_neighbors(X, 12)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", ["rows", "copies", "far rows"])
def test_rows_on_disk_are_searched_in_cells(kind, tmp_path):
    X = clumps(1500, dtype=np.float32, seed=4)
    if kind == "copies":
        X[300:500] = X[7]
    elif kind == "far rows":
        X[[3, 700], 2] = [1e16, -9.97e36]
    np.save(tmp_path / "X.npy", X)
    rows = np.load(tmp_path / "X.npy", mmap_mode="r")
    with pieces.within(1e5):
        found = nearest_neighbors(rows, 12)
    check(found, X, 12, 0.95)
    assert type(found.indices.base) is type(found.distances.base) is np.memmap


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", ["few directions", "copies", "far rows", "all directions", "many columns"])
def test_wide_rows_on_disk_are_compared_by_principal_components_where_these_tell_neighbours(kind, metric, monkeypatch):
    rng, width = np.random.default_rng(3), 300 if kind == "many columns" else 240
    X = (clumps(1500, 10, seed=4) @ rng.normal(size=(10, width))).astype(np.float32)
    if kind == "all directions":
        X = rng.normal(size=(700, 240))
    elif kind == "copies":
        X[300:500] = X[7]
    elif kind == "far rows":
        X[[3, 700], 2] = [1e16, -9.97e36]
    widths, narrow = [], on_disk._narrow

    def watched(*args):
        found = narrow(*args)
        widths.append(None if found is None else found.shape[1])
        return found

    monkeypatch.setattr(on_disk, "_narrow", watched)
    with pieces.within(1e5):
        found = nearest_neighbors(X, 12, metric=metric)
    if kind == "all directions":
        assert widths == [None] and found.exact
    else:  # a covariance of so many columns is more than is computed at once
        assert widths == [None if kind == "many columns" else 64]
        check(found, X, 12, 0.98, metric)


@pytest.mark.usefixtures("large")
def test_rows_on_disk_without_structure_are_searched_exactly_unless_that_takes_hours(monkeypatch):
    X = np.random.default_rng(0).normal(size=(700, 60))
    with pieces.within(1e5):
        assert nearest_neighbors(X, 12).exact
        monkeypatch.setattr(on_disk, "_MOST_COMPARED", 1e6)
        with pytest.raises(MemoryError, match=r"700 rows of 60 columns .* max_memory, or reduce the columns"):
            nearest_neighbors(X, 12)


@pytest.mark.skipif(sys.platform != "linux", reason="room is made beforehand on Linux")
def test_a_full_disk_is_said(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pieces.os, "posix_fallocate", full)
    with pieces.within(1e5), pytest.raises(OSError, match=r"8.0 GB .* set TMPDIR to a folder of a larger disk"):
        pieces.room((1000, 1_000_000), np.float64)
