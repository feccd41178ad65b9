"""On a GPU: in a process group of one rank, whose backend is NCCL, fits are those without a group.

A group of one rank is one process, which exchanges nothing. What several ranks exchange is checked by a group that
says that it has others: sums, rows and objects then go through NCCL, and a fit goes the way of ranks.
"""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import adjusted_rand_score
from torch import distributed

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, supervisory
from sklearn_icon._core import group as group_module
from sklearn_icon._core.group import ALONE, RankFailure, Ranks, present, together
from sklearn_icon.nn import ICONLoss

BACKEND, DEVICE = "nccl", "cuda"

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
    pytest.mark.skipif(not distributed.is_nccl_available(), reason="this build of torch has no NCCL"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    """A group of this process alone."""
    store = distributed.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    distributed.init_process_group(BACKEND, store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def as_several(one_rank, monkeypatch):
    """The group of one rank, taken for one of several."""
    monkeypatch.setattr(Ranks, "several", True)
    monkeypatch.setattr(group_module, "present", Ranks)
    return Ranks()


def blobs(n=3200):
    return make_blobs(n, 10, centers=8, random_state=4, cluster_std=2.0)[0].astype(np.float32)


def fit_all(device):
    """All four estimators, each by a solver that works on the device."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:600] / 16, y[:600]
    few = {"random_state": 0, "device": device}
    return {
        "map": ICONEmbedding(supervisory="knn", **few).fit(X),
        "clusters": ICONClustering(10, supervisory="knn", **few).fit(X),
        "regression": ICONClassifier(tol=1e-9, **few).fit(X, y),
        "network": ICONClassifier(encoder="mlp", max_iter=3, **few).fit(X, y),
        "pairs": ICONCrossModal(3, encoder="mlp", max_iter=3, batch_size=100, **few).fit(X[:, :32], X[:, 32:]),
    }


def test_fits_in_a_group_of_one_rank(one_rank):
    grouped = fit_all(DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "is_initialized", lambda: False)
        alone = fit_all(DEVICE)
    assert all(fitted.device_.startswith(DEVICE) for fitted in grouped.values())
    assert grouped["map"].kl_divergence_ == pytest.approx(alone["map"].kl_divergence_, rel=0.01)
    assert adjusted_rand_score(grouped["clusters"].labels_, alone["clusters"].labels_) > 0.99
    np.testing.assert_allclose(grouped["regression"].coef_, alone["regression"].coef_, rtol=1e-5, atol=1e-6)
    for name in ("network", "pairs"):
        np.testing.assert_allclose(grouped[name].loss_curve_, alone[name].loss_curve_, rtol=1e-4)


def test_what_ranks_exchange(as_several):
    """Whatever is given comes back as it was, where it was; NCCL itself takes none but tensors on CUDA."""
    ranks, rng = as_several, np.random.RandomState(0)
    assert ranks._device.type == DEVICE
    for kind in (np.float32, np.float64, np.int64, np.int32):
        rows = (100 * rng.normal(size=(7, 3))).astype(kind)
        for found in (ranks.total(rows), ranks.gathered(rows), ranks.to_first(rows), ranks.swapped([rows.ravel()])[0]):
            assert found.dtype == kind
            np.testing.assert_array_equal(found.ravel(), rows.ravel())
    for where in ("cpu", DEVICE):
        tensor = torch.arange(5.0, device=where)
        total = ranks.total(tensor)
        assert total.device.type == where and torch.equal(total, tensor) and total is not tensor
    assert ranks.total(3) == 3 and ranks.total(2.5) == 2.5 and ranks.largest(-1.5) == -1.5
    assert ranks.objects({"a": (1, "b")}) == [{"a": (1, "b")}] and ranks.first_of(9) == (0, 9)
    np.testing.assert_array_equal(ranks.to_first(np.array(["a", "long"])), ["a", "long"])
    graph = sparse.random(9, 5, 0.3, format="csr", random_state=0)
    np.testing.assert_array_equal(ranks.to_first(graph).toarray(), graph.toarray())
    assert ranks.exchanges > 10 and ranks.n_bytes > 0


def test_fits_that_exchange(as_several):
    X, y = load_digits(return_X_y=True)
    X = X[:900] / 16
    k_means = {"supervisory": supervisory.Gaussian(sigma=0), "encoder": "lookup", "divergence": "reverse_kl"}
    cases = {  # estimators solved on the CPU, whose sums go over the GPU
        "regression": (ICONClassifier(device="cpu"), (X, y[:900])),
        "network": (ICONClassifier(encoder="mlp", max_iter=2, random_state=0, device="cpu"), (X, y[:900])),
        "pairs": (ICONCrossModal(3, encoder="mlp", max_iter=2, random_state=0, device="cpu"), (X[:, :32], X[:, 32:])),
        "k-means": (ICONClustering(8, random_state=0, **k_means), (blobs(11_000),)),
    }
    for name, (estimator, data) in cases.items():
        over_ranks, one = clone(estimator).fit(*data), _of_one_process(estimator, *data)
        assert over_ranks.fit_report_["exchanges"] > 5, name
        if name == "k-means":
            np.testing.assert_array_equal(over_ranks.labels_, one.labels_)
        elif name == "regression":
            np.testing.assert_allclose(over_ranks.coef_, one.coef_, rtol=0, atol=1e-6 * np.abs(one.coef_).max())
        else:
            np.testing.assert_allclose(over_ranks.loss_curve_, one.loss_curve_, rtol=1e-5, err_msg=name)
    automatic = ICONClassifier().fit(X, y[:900])  # "auto" is where ranks solve it
    np.testing.assert_array_equal(automatic.coef_, clone(cases["regression"][0]).fit(X, y[:900]).coef_)


@pytest.mark.parametrize("device", ["cpu", DEVICE])
def test_a_map_whose_grids_are_added(as_several, device):
    map_ = ICONEmbedding(supervisory="knn", random_state=0, device=device, method="interpolation")
    over_ranks, one = clone(map_).fit(blobs()), _of_one_process(map_, blobs())
    assert over_ranks.device_.startswith(device) and over_ranks.fit_report_["exchanges"] > 200
    assert over_ranks.kl_divergence_ == pytest.approx(one.kl_divergence_, rel=0.01)
    assert np.isfinite(over_ranks.embedding_).all() and over_ranks.embedding_.shape == (3200, 2)


def _of_one_process(estimator, *data):
    """The same without a group."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_module, "present", lambda: ALONE)
        return clone(estimator).fit(*data)


def test_a_rank_that_fails_says_so(as_several):
    with pytest.raises(ValueError, match="NaN"):
        ICONClassifier(device="cpu").fit(np.full((4, 2), np.nan), [0, 1, 0, 1])
    with pytest.raises(RankFailure, match="lost touch"), together("a fit") as ranks:
        ranks._call(_breaks)
    assert isinstance(present(), type(ALONE))  # one rank is one process again, outside of fits


def _breaks():
    raise RuntimeError("the connection is gone")


def test_a_loss_over_the_group(one_rank):
    """Gradients through what NCCL gathers."""
    labels, found = torch.tensor([0, 1, 0, 1, 1, 0], device=DEVICE), []
    for gathered in (True, False):
        z = torch.arange(12.0, device=DEVICE).reshape(6, 2).cos().requires_grad_()
        ICONLoss("same_class", "gaussian", gather_distributed=gathered)(z, labels).backward()
        found.append(z.grad)
    assert found[0].any() and torch.allclose(*found)
