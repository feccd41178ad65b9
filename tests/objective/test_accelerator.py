"""Searches that a fit on CUDA leaves to torch, run here by torch on the CPU: the results of the plain ones."""

from threading import Thread

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding
from sklearn_icon._core.device import accelerator, working_on
from sklearn_icon._estimators import classifier, clustering, cross_modal, embedding
from sklearn_icon._graph import affinity, cuda, partition, search
from sklearn_icon._graph.affinity import gaussian_log_affinity, perplexity_rows, student_t_log_affinity
from sklearn_icon._graph.cuda import nearest_rows
from sklearn_icon._graph.neighbors import cross_neighbors, nearest_neighbors


def blobs(n=700, d=9, seed=0):
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal((5, d))[rng.integers(5, size=n)] + rng.standard_normal((n, d))


def with_outliers():
    X = blobs()
    X[[3, 4, 90]] = [[1e12], [1e12 + 1], [1e30]]
    return X


def some_close_and_far_away():
    X = blobs()
    X[:200] = 1e-7 * X[:200] + 50
    return X


ROWS = {
    "plain": blobs(),
    "single precision": blobs().astype(np.float32),
    "few": blobs(n=15),
    "wide": blobs(d=300),
    "far from zero": blobs() + 1e7,
    "in single precision far from zero": (blobs() + 1000).astype(np.float32),
    "large": 1e100 * blobs(),
    "small": 1e-100 * blobs(),
    "copies": np.repeat(blobs(n=70), 10, axis=0),
    "whole numbers": np.round(blobs(d=7)),
    "all equal": np.ones((700, 4)),
    "outliers": with_outliers(),
    "some close and far away": some_close_and_far_away(),
}


@pytest.fixture
def by_torch(monkeypatch):
    """All searches of many rows by torch, as on CUDA."""

    def use():
        for module in (search, affinity):
            monkeypatch.setattr(module, "accelerator", lambda: "cpu")
        monkeypatch.setattr(search, "_DEVICE_ROWS", 10)
        monkeypatch.setattr(affinity, "_ROWS_ON_GPU", 10)

    return use


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("rows", ROWS)
def test_the_neighbours_of_the_plain_search(by_torch, rows, metric):
    X = ROWS[rows].copy()
    X.flags.writeable = False
    expected = nearest_neighbors(X, 10, metric=metric, random_state=0)
    by_torch()
    found = nearest_neighbors(X, 10, metric=metric, random_state=0)
    assert found.exact and found.distances.dtype == X.dtype
    assert_allclose(found.distances, expected.distances, rtol=1e-6 if X.dtype == np.float32 else 1e-12)
    assert_array_equal(np.sort(found.indices), np.sort(expected.indices))


@pytest.mark.parametrize("group", [4, 128])
@pytest.mark.parametrize("tile", [1, 20_000, 1 << 20])
@pytest.mark.parametrize("n", [401, 512])
def test_any_tile(monkeypatch, group, tile, n):
    """By groups of columns and by all of them, in blocks of one row and of all."""
    X = blobs(n)
    monkeypatch.setattr(cuda, "_GROUP", group)
    d = np.sqrt(((X[:, None] - X) ** 2).sum(axis=2))
    np.fill_diagonal(d, np.inf)
    found = nearest_rows(X, 5, 3, "cpu", tile=tile)
    assert found.settled.all()
    assert_array_equal(found.candidates[:, :5], np.argsort(d, axis=1)[:, :5])
    assert_allclose(np.sqrt(found.sq_distances), np.sort(d, axis=1)[:, :5], rtol=1e-12)


@pytest.mark.parametrize("rows", ["single precision", "outliers", "copies", "some close and far away"])
def test_cells(by_torch, monkeypatch, rows):
    """Most of the neighbours, the recall that is told, and the same ones at every search; copies of each other."""
    X = np.concatenate([ROWS[rows] + np.resize(shift, (1, 9)) for shift in (0.0, 0.3, 0.7)])
    expected = nearest_neighbors(X, 8, random_state=0)
    by_torch()
    monkeypatch.setattr(search, "_DEVICE_ALL", 0)
    monkeypatch.setattr(partition, "_MOST", 0.9)
    found, again = (nearest_neighbors(X, 8, random_state=0) for _ in range(2))
    near = found.distances <= expected.distances[:, -1:] * (1 + 1e-6)
    assert not found.exact and found.recall == pytest.approx(near.mean(), abs=0.02) and near.mean() > 0.96
    assert_array_equal(found.indices, again.indices)
    assert not (found.indices == np.arange(len(X))[:, None]).any()
    every = np.sort(found.indices, axis=1)
    assert (np.diff(every, axis=1) > 0).all() and (np.diff(found.distances, axis=1) >= 0).all()


def test_cells_that_tell_too_little(by_torch, monkeypatch):
    """All rows are compared."""
    X = np.random.default_rng(0).random((900, 60))
    expected = nearest_neighbors(X, 8, random_state=0)
    by_torch()
    monkeypatch.setattr(search, "_DEVICE_ALL", 0)
    found = nearest_neighbors(X, 8, random_state=0)
    assert found.exact
    assert_array_equal(found.indices, expected.indices)


@pytest.mark.parametrize("k", [698, 699])
def test_all_others(k):
    found = nearest_rows(blobs(), k, 3, "cpu")
    assert found.settled.all() and len(np.unique(found.candidates[0])) == 699


def test_rounding_and_ties_are_told():
    """Ties for the last place are not settled; where more rows tie than there are candidates, or may, none is sure."""
    of_three, of_ten = (nearest_rows(np.repeat(blobs(n=50), times, axis=0), 1, 3, "cpu") for times in (3, 10))
    assert of_three.sure.all() and not of_three.settled.any()
    assert not of_ten.sure.any() and not of_ten.settled.any()
    close = nearest_rows(some_close_and_far_away(), 5, 3, "cpu")
    assert not close.sure[:200].any() and close.settled[200:].all()


def test_products_in_double_precision_settle_what_single_precision_cannot(monkeypatch):
    X = blobs()
    X[:200] = 1e-4 * X[:200] + 50
    assert nearest_rows(X, 5, 3, "cpu").settled.all()
    monkeypatch.setitem(cuda._FAR, torch.float64, 0.0)  # leaves no row sure
    assert not nearest_rows(X, 5, 3, "cpu").sure[:200].any()


@pytest.mark.parametrize("most", [0, 1, 6])
def test_blocks_are_halved_where_memory_runs_out(monkeypatch, most):
    X, sizes = blobs(), []
    expected, smallest = nearest_rows(X, 5, 3, "cpu"), cuda._Products.smallest

    def limited(self, rows, n_candidates):
        sizes.append(len(rows))
        if len(rows) > most:
            raise torch.cuda.OutOfMemoryError
        return smallest(self, rows, n_candidates)

    monkeypatch.setattr(cuda._Products, "smallest", limited)
    if most == 0:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            nearest_rows(X, 5, 3, "cpu")
        assert sizes[-1] == 1
    else:
        for found, right in zip(nearest_rows(X, 5, 3, "cpu"), expected, strict=True):
            assert_array_equal(found, right)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_products_in_full_precision_whatever_the_process_allows(monkeypatch, precision):
    """Also in a block of autocast, and after an error."""
    seen, matmul, smallest = [], torch.backends.cuda.matmul, cuda._Products.smallest
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    allowed = matmul.allow_tf32

    def spied(self, rows, n_candidates):
        seen.append(matmul.fp32_precision == "ieee" if hasattr(matmul, "fp32_precision") else not matmul.allow_tf32)
        return smallest(self, rows, n_candidates)

    monkeypatch.setattr(cuda._Products, "smallest", spied)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert nearest_rows(blobs(), 5, 3, "cpu").settled.all()
        assert torch.get_float32_matmul_precision() == precision and matmul.allow_tf32 == allowed
        assert seen and all(seen)
        with pytest.raises(RuntimeError):
            nearest_rows(blobs(), 5, 3, "no device")
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_searches_at_the_same_time_put_the_precision_back():
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    with torch.enable_grad():  # whose mode the two, not nested as in threads of their own, would change for each other
        first, second = cuda._full_precision("cpu"), cuda._full_precision("cpu")
        first.__enter__()
        within = getattr(matmul, name)
        second.__enter__()
        first.__exit__(None, None, None)
        assert getattr(matmul, name) == within != "tf32"
        second.__exit__(None, None, None)
        assert getattr(matmul, name) == before


def test_only_dense_rows_of_many_features_searched_among_themselves(monkeypatch, by_torch):
    asked = []

    def spied(X, *args, **more):
        asked.append(len(X))
        return nearest_rows(X, *args, **more)

    monkeypatch.setattr(cuda, "nearest_rows", spied)
    X = blobs()
    nearest_neighbors(X, 5)
    by_torch()
    nearest_neighbors(X, 5, metric="manhattan")
    cross_neighbors(X, X, 5)
    nearest_neighbors(X[:9], 5)
    assert asked == []
    nearest_neighbors(X, 5)
    assert asked == [700]
    monkeypatch.setattr(search, "_DEVICE_LIMIT", 1e6)
    nearest_neighbors(X, 5)
    assert asked == [700]


@pytest.mark.parametrize("kernel", ["gaussian", "student-t"])
@pytest.mark.parametrize("scale", [1.0, 1e-100, 1e100])
def test_the_affinities_of_the_plain_search(by_torch, kernel, scale):
    def student_t(*args, **kwargs):
        return student_t_log_affinity(*args, df=2.0, **kwargs)

    log_affinity = gaussian_log_affinity if kernel == "gaussian" else student_t
    sq_distances = scale * np.random.default_rng(0).gamma(2.0, size=(300, 40))
    sq_distances[:3] = [[0.0], [scale], [2 * scale]]
    sq_distances[1, :30], sq_distances[2, 7] = 0.0, 1e6 * scale
    expected = perplexity_rows(sq_distances, 8.0, log_affinity)
    by_torch()
    assert_allclose(perplexity_rows(sq_distances, 8.0, log_affinity), expected, rtol=1e-9, atol=1e-13)


def test_an_accelerator_is_that_of_the_block_and_of_its_thread():
    assert accelerator() is None
    elsewhere = []
    with working_on(torch.device("cuda", 1)):
        assert accelerator() == "cuda:1"
        thread = Thread(target=lambda: elsewhere.append(accelerator()))
        thread.start()
        thread.join()
        with working_on("cpu"):
            assert accelerator() is None
        assert accelerator() == "cuda:1"
    assert accelerator() is None and elsewhere == [None]
    with pytest.raises(KeyError), working_on("cuda"):
        raise KeyError
    assert accelerator() is None


@pytest.mark.parametrize(
    ("module", "estimator"),
    [
        (embedding, ICONEmbedding(max_iter=3, device="cpu")),
        (clustering, ICONClustering(3, encoder="linear", max_iter=3, device="cpu")),
        (classifier, ICONClassifier(device="cpu")),
        (cross_modal, ICONCrossModal(2, device="cpu")),
    ],
    ids=lambda value: type(value).__name__ if not hasattr(value, "__file__") else "",
)
def test_estimators_say_where_they_work(monkeypatch, module, estimator):
    said = []

    def spied(device):
        said.append(str(device))
        return working_on(device)

    monkeypatch.setattr(module, "working_on", spied)
    X, y = load_iris(return_X_y=True)
    estimator.fit(X, X[:, :2] if module is cross_modal else y)
    assert set(said) == {"cpu"}
