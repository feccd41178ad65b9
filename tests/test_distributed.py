"""Fits by several processes of one thread each, on this machine, beside those of one process."""

import os
import signal
import subprocess
import sys
import time
import traceback
import tracemalloc
import warnings
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_blobs, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from sklearn_icon import (
    ICONClassifier,
    ICONClustering,
    ICONCrossModal,
    ICONEmbedding,
    distributed,
    encoders,
    learned,
    supervisory,
)
from sklearn_icon.__main__ import main
from sklearn_icon._clusters import automatic
from sklearn_icon._core import journal
from sklearn_icon._core.group import ALONE, group, together
from sklearn_icon._core.group import Ranks as Ranks_
from sklearn_icon._estimators import classifier as classifier_module
from sklearn_icon._estimators import clustering, embedding
from sklearn_icon._graph import mutual, ring, search, space
from sklearn_icon._graph.neighbors import _seed_of_ties, nearest_neighbors
from sklearn_icon._objective.drawn import DrawnPotential
from sklearn_icon._objective.grid import GridPotential
from sklearn_icon._objective.loss import Loss
from sklearn_icon._objective.tree import TreePotential
from sklearn_icon._optim.train import Run
from sklearn_icon._training.maps import losses_of
from sklearn_icon.metrics import knn_recall


def _cuts(n, n_ranks):
    """Shards of unlike sizes: the first is the smallest."""
    bounds = np.round(n * np.linspace(0, 1, n_ranks + 1) ** 1.5).astype(int)
    return [slice(first, last) for first, last in pairwise(bounds)]


def _process(rank, n_ranks, folder, works, found):
    """A rank: it does one work after the other."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(os.path.join(folder, "store"), n_ranks)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=n_ranks)
    warnings.simplefilter("error")
    for work in iter(works.get, None):
        try:
            found.put(work(rank, n_ranks))
        except BaseException:
            found.put(traceback.format_exc())
    torch.distributed.destroy_process_group()


class Ranks:
    """Processes of one thread each, in one group."""

    def __init__(self, n_ranks, folder):
        spawned = torch.multiprocessing.get_context("spawn")
        self.works, self.found = ([spawned.Queue() for _ in range(n_ranks)] for _ in range(2))
        rest = zip(self.works, self.found, strict=True)
        self.processes = [
            spawned.Process(target=_process, args=(rank, n_ranks, str(folder), *queues), daemon=True)
            for rank, queues in enumerate(rest)
        ]
        for process in self.processes:
            process.start()

    def __call__(self, work):
        """What work(rank, n_ranks) returns on each rank."""
        for works in self.works:
            works.put(work)
        answers = [found.get(timeout=300) for found in self.found]
        errors = [answer for answer in answers if isinstance(answer, str)]
        assert not errors, "\n".join(errors)
        return answers

    def end(self):
        for works in self.works:
            works.put(None)
        for process in self.processes:
            process.join(20)
            process.kill()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    ranks = Ranks(2, tmp_path_factory.mktemp("two"))
    yield ranks
    ranks.end()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    ranks = Ranks(3, tmp_path_factory.mktemp("three"))
    yield ranks
    ranks.end()


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    ranks = Ranks(4, tmp_path_factory.mktemp("four"))
    yield ranks
    ranks.end()


BY = ["two", pytest.param("three", marks=pytest.mark.slow)]


@cache
def of_one_process(work, *known):
    """What a process finds in the rows of all."""
    return work(*known, slice(None))


def refusal(call):
    """The message of the error that a call raises."""
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def classes():
    """Labelled rows in an order by class, so that ranks lack classes; weights, some of them zero."""
    X, y = make_classification(300, 12, n_informative=6, n_classes=3, random_state=3)
    order = np.argsort(y, kind="stable")
    weight = np.random.RandomState(5).randint(0, 4, size=300).astype(float)
    return X[order], np.array(["b", "a", "long"])[y[order]], weight


CLASSIFIERS = {
    "default": (ICONClassifier(), False),
    "weights": (ICONClassifier(class_weight="balanced", C=0.3), True),
    "l1": (ICONClassifier(l1_ratio=0.5, C=0.2), False),
    "no penalty, no intercept": (ICONClassifier(penalty=None, fit_intercept=False), False),
    "smooth": (ICONClassifier(debias=0.1), True),
}
FORMATS = {"dense": np.asarray, "sparse": sparse.csr_array, "single": np.float32}


def fit_classifiers(part):
    """Coefficients of all kinds, of some of the rows."""
    X, y, weight = classes()
    found = {}
    for name, (classifier, weighted) in CLASSIFIERS.items():
        fitted = classifier.fit(X[part], y[part], weight[part] if weighted else None)
        found[name] = fitted.classes_.tolist(), fitted.coef_, fitted.intercept_, fitted.loss_curve_[-1]
    for name, made in FORMATS.items():
        fitted = ICONClassifier().fit(made(X)[part], y[part])
        found[name] = fitted.classes_.tolist(), fitted.coef_, fitted.intercept_, fitted.loss_curve_[-1]
    wide = np.hstack([X, np.sin(np.arange(300)[:, None] * np.arange(1.0, 800.0))])  # more than Newton's method solves
    fitted = ICONClassifier(tol=1e-9).fit(wide[part], y[part])
    found["wide"] = fitted.classes_.tolist(), fitted.coef_, fitted.intercept_, fitted.loss_curve_[-1]
    return found


def _classify(rank, n_ranks):
    found = fit_classifiers(_cuts(300, n_ranks)[rank])
    X, y, _ = classes()
    part = _cuts(300, n_ranks)[rank]
    fitted = ICONClassifier().fit(X[part], y[part])
    found["report"] = fitted.fit_report_
    whole = distributed.gather(fitted)
    found["whole"] = whole is not None and whole.score(X, y)
    found["rows"] = distributed.gather(X[part]), distributed.gather(sparse.csr_array(X[part]))
    with distributed.alone():
        found["alone"] = ICONClassifier().fit(X[::2], y[::2]).coef_
    found["at work"] = group() is ALONE
    return found


@pytest.mark.parametrize("n_ranks", BY)
def test_classifier(n_ranks, request):
    one, ranks = of_one_process(fit_classifiers), request.getfixturevalue(n_ranks)(_classify)
    for rank, found in enumerate(ranks):
        for name, (labels, coef, intercept, loss) in one.items():
            tolerance = 1e-4 if name == "single" else 1e-6
            assert found[name][0] == labels
            np.testing.assert_allclose(found[name][1], coef, rtol=0, atol=tolerance * np.abs(coef).max(), err_msg=name)
            np.testing.assert_allclose(found[name][2], intercept, rtol=0, atol=tolerance * np.abs(coef).max())
            assert abs(found[name][3] - loss) <= 1e-9 * max(abs(loss), 1), name
            np.testing.assert_array_equal(found[name][1], ranks[0][name][1])
        assert found["report"]["ranks"] == len(ranks) and found["report"]["rank"] == rank
        assert found["report"]["bytes_sent"] > 0
        np.testing.assert_allclose(found["alone"], ICONClassifier().fit(classes()[0][::2], classes()[1][::2]).coef_)
        assert found["at work"]
    X, y, _ = classes()
    assert ranks[0]["whole"] == ICONClassifier().fit(X, y).score(X, y)
    np.testing.assert_array_equal(ranks[0]["rows"][0], X)
    np.testing.assert_array_equal(ranks[0]["rows"][1].toarray(), X)
    assert ranks[1]["rows"] == (None, None) and ranks[1]["whole"] is False


NETWORKS = {
    "mlp": ICONClassifier(encoder="mlp", max_iter=3, random_state=1),
    "weights": ICONClassifier(encoder="mlp", max_iter=2, class_weight="balanced", C=0.3, random_state=1),
    "temperature": ICONClassifier(
        encoder="mlp", learned=learned.Gaussian(metric="cosine", tau="learn"), max_iter=2, random_state=1
    ),
    "bounded": ICONClassifier(encoder="mlp", divergence="squared_hellinger", max_iter=2, random_state=1),
    "linear": ICONClassifier(learned="student_t", max_iter=6, random_state=1),
    "stopped": ICONClassifier(
        encoder="mlp", early_stopping=True, validation_fraction=0.02, n_iter_no_change=1, max_iter=4, random_state=1
    ),
}


PAIRS = {
    "pairs": ICONCrossModal(2, encoder="mlp", batch_size=100, max_iter=3, random_state=1),
    "temperature of pairs": ICONCrossModal(
        3,
        encoder="mlp",
        encoder_y="linear",
        learned=learned.Gaussian(metric="cosine", tau="learn"),
        max_iter=3,
        random_state=1,
    ),
}


def fit_networks(part):
    """Probabilities or representations, prototypes and losses of encoders that are trained by batches; a row is far."""
    X, y, weight = classes()
    X = np.vstack([X, X[:60]])
    X[7] *= 1e4
    y, weight, found = np.concatenate([y, y[:60]]), np.concatenate([weight, weight[:60]]), {}
    for name, model in NETWORKS.items():
        fitted = clone(model).fit(X[part], y[part], weight[part] if name == "weights" else None)
        found[name] = fitted.predict_proba(X), fitted.prototypes_, fitted.loss_curve_, fitted.validation_loss_curve_
    other = np.random.RandomState(4).normal(size=(360, 3)) + X[:, :3] / 10
    for name, model in PAIRS.items():
        fitted = clone(model).fit(X[part], other[part])
        found[name] = *fitted.transform(X, other), fitted.loss_curve_
    return found


def _networks(rank, n_ranks):
    warnings.simplefilter("ignore", ConvergenceWarning)
    found = fit_networks(_cuts(360, n_ranks)[rank])
    warnings.simplefilter("error", ConvergenceWarning)
    return found


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_ranks", BY)
def test_networks(n_ranks, request):
    one, ranks = of_one_process(fit_networks), request.getfixturevalue(n_ranks)(_networks)
    for name, known in one.items():
        for found in ranks:
            for ours, theirs in zip(found[name], known, strict=True):
                np.testing.assert_allclose(
                    ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max(initial=1), err_msg=name
                )
            assert all(map(np.array_equal, found[name], ranks[0][name])), name


def neighbor_cases():
    """Rows by name, with a metric and k: ties, copies, shifts, few and many rows and columns."""
    rng = np.random.RandomState(11)
    blocks = rng.randint(0, 3, size=(500, 4)).astype(float)  # ties and more copies than neighbours
    far = rng.normal(size=(1500, 10)) + 300.0  # all of one sign, within a factor of two
    return {
        "few": (rng.normal(size=(60, 5)), "euclidean", 7),
        "all": (rng.normal(size=(40, 5)), "euclidean", 39),
        "ties": (blocks, "euclidean", 6),
        "whole numbers": (rng.randint(0, 3, size=(2500, 12)).astype(np.float32), "sqeuclidean", 20),
        "shifted": (far, "euclidean", 15),
        "cosine": (rng.normal(size=(1200, 8)), "cosine", 10),
        "tree": (rng.normal(size=(11_000, 3)), "euclidean", 5),
        "compiled": (rng.randint(0, 4, size=(21_000, 9)).astype(np.float32), "euclidean", 8),
        "huge": (rng.normal(size=(1100, 6)) * 1e160, "euclidean", 5),
    }


def neighbors_of(name, part):
    X, metric, k = neighbor_cases()[name]
    return nearest_neighbors(X[part], k, metric=metric, random_state=3)


def _lone_rows(n, n_ranks):
    """A shard without rows, others of one row, and one of all the rest."""
    bounds = [0, *range(n_ranks), n]
    return [slice(first, last) for first, last in pairwise(bounds[:n_ranks] + bounds[-1:])]


def _neighbors(rank, n_ranks):
    """What is found as it is; with rows compared for both ends, in pieces; and where ranks have one row or none."""
    found = {}
    for how in ("usual", "mutual", "lone rows"):
        for name, (X, metric, k) in neighbor_cases().items():
            if how != "usual" and name in ("tree", "compiled"):
                continue
            part = (_lone_rows if how == "lone rows" else _cuts)(len(X), n_ranks)[rank]
            with pytest.MonkeyPatch.context() as patch, together(name) as ranks:
                if how == "mutual":
                    patch.setattr(ring, "_MUTUAL_PAIRS", 1)
                    patch.setattr(mutual, "_OTHERS_AT_ONCE", 200)
                    patch.setattr(space, "_COMPILED_ROWS", 400 if name != "few" else 10_000)
                ranks.number(len(X[part]))
                found[how, name] = nearest_neighbors(X[part], k, metric=metric, random_state=3)[:2]
    X = neighbor_cases()["few"][0][_cuts(60, n_ranks)[rank]]
    with together("few") as ranks:
        ranks.number(len(X))
        found["perplexity"] = supervisory.Gaussian(5).conditional(X)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("n_ranks", ["two", "three", "four"])
def test_neighbors_are_those_of_one_process(n_ranks, request):
    ranks = request.getfixturevalue(n_ranks)(_neighbors)
    for how, name in set(ranks[0]) - {"perplexity"}:
        one = of_one_process(neighbors_of, name)
        indices, distances = (np.concatenate([found[how, name][part] for found in ranks]) for part in (0, 1))
        np.testing.assert_array_equal(indices, one.indices, err_msg=f"{how}, {name}")
        np.testing.assert_allclose(distances, one.distances, rtol=1e-12, err_msg=f"{how}, {name}")
    np.testing.assert_allclose(
        np.vstack([found["perplexity"].toarray() for found in ranks]),
        supervisory.Gaussian(5).conditional(neighbor_cases()["few"][0]).toarray(),
        atol=1e-12,
    )


def cell_cases():
    """Rows by name, and a metric: unlike ones, many copies, far rows, rows without structure."""
    rng = np.random.RandomState(2)
    X = 3 * rng.normal(size=(40, 8))[rng.randint(40, size=1800)] + rng.normal(size=(1800, 8))
    turn = 9 * rng.uniform(size=1800)
    sheet = np.column_stack([turn * np.cos(turn), 20 * rng.uniform(size=1800), turn * np.sin(turn), X[:, :4] / 20])
    copies, far = X.copy(), X.copy()
    copies[300:700], copies[900:1500] = X[0], X[rng.randint(200, size=600)]
    far[[3, 1700], 2] = [1e16, -9.97e36]
    return {
        "clumps": (X.astype(np.float32), "euclidean"),
        "angles": (X, "cosine"),
        "sheet": (sheet, "sqeuclidean"),
        "copies": (copies, "euclidean"),
        "far": (far, "euclidean"),
        "no structure": (rng.normal(size=(900, 60)), "euclidean"),
    }


def _in_cells(rank, n_ranks):
    """What is found where every data set is large; in the last of the cases a rank has no row."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_EXACT_LIMIT", 0)
        for name, (X, metric) in cell_cases().items():
            part = (_lone_rows if name == "sheet" else _cuts)(len(X), n_ranks)[rank]
            with together(name) as ranks:
                ranks.number(len(X[part]))
                found[name] = tuple(nearest_neighbors(X[part], 12, metric=metric, random_state=3))
    return found


@pytest.mark.parametrize("n_ranks", BY)
def test_neighbors_of_very_many_rows_are_searched_in_cells(n_ranks, request):
    ranks = request.getfixturevalue(n_ranks)(_in_cells)
    for name, (X, metric) in cell_cases().items():
        one = nearest_neighbors(X, 12, metric=metric, random_state=3)
        indices, distances = (np.concatenate([found[name][part] for found in ranks]) for part in (0, 1))
        near = distances <= one.distances[:, -1:] * (1 + 1e-6)
        assert {found[name][2:] for found in ranks} == {(name == "no structure", ranks[0][name][3])}
        assert ranks[0][name][3] == pytest.approx(near.mean(), abs=0.03) and near.mean() > 0.95, name
        assert all(len(set(row)) == 12 and i not in row for i, row in enumerate(indices))
        assert (distances[:, 0] >= one.distances[:, 0]).all()
        same = indices == one.indices
        np.testing.assert_allclose(distances[same], one.distances[same], rtol=1e-6, atol=1e-7)
        assert same.mean() > (0.9 if name != "copies" else 0.5), name
        if name == "copies":
            assert np.bincount(indices.ravel(), minlength=len(X))[300:700].max() < 60  # 12 on average


@pytest.mark.parametrize("n_at_once", [150, 900])
def test_neighbors_in_blocks_are_those_of_all_rows(monkeypatch, n_at_once):
    monkeypatch.setattr(ring, "_MUTUAL_PAIRS", 1e6)
    for name, (X, metric, k) in neighbor_cases().items():
        if name in ("tree", "compiled"):
            continue
        rows = space.space_of(X, X, metric, None, ("X", "X"), True, _seed_of_ties(3))
        found, one = ring.neighbors_in_blocks(rows, k, 1, n_at_once), of_one_process(neighbors_of, name)
        np.testing.assert_array_equal(found.indices, one.indices, err_msg=name)
        np.testing.assert_allclose(found.distances, one.distances, rtol=1e-12, err_msg=name)


@pytest.mark.slow
def test_a_map_of_rows_on_disk_takes_no_more_memory_than_is_allowed(tmp_path):
    rng, allowed = np.random.RandomState(0), 95e6
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (8000, 600))
    X[:] = np.rint(3 * rng.normal(size=(8, 600))[rng.randint(8, size=8000)] + 3 * rng.normal(size=(8000, 600)))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    start = rng.normal(size=(8000, 2)) / 1e4
    usual = ICONEmbedding(supervisory="knn", random_state=0, init=start, max_iter=30, n_jobs=1)
    bounded = clone(usual).set_params(max_memory=allowed)
    assert bounded.estimate_memory(X) < allowed < usual.estimate_memory(X)
    tracemalloc.start()
    try:
        bounded.fit(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < allowed
    usual.fit(X)  # distances of whole numbers are the same however they are summed
    np.testing.assert_array_equal(bounded.neighbors_graph_.indices, usual.neighbors_graph_.indices)
    np.testing.assert_array_equal(bounded.embedding_, usual.embedding_)
    assert bounded.kl_divergence_ == usual.kl_divergence_
    with pytest.raises(MemoryError, match="above max_memory"):
        clone(bounded).set_params(max_memory=50e6).fit(X)


def blobs(n, dtype=np.float32):
    """Rows of overlapping clusters, some of them equal, in random order."""
    X = make_blobs(n, 10, centers=8, random_state=4, cluster_std=2.0)[0].astype(dtype)
    X[::97] = X[0]
    return X


def _gradients(X, part, z, way, q):
    """Loss, its gradient and what each row adds, of a map of the rows of all ranks."""
    with together("map") as ranks:
        ranks.number(len(X[part]))
        p = supervisory.Gaussian(10, n_neighbors=30).conditional(X[part])
        run = Run(torch.float32, torch.device("cpu"))
        potential = partial(DrawnPotential, near=p.among_all, rng=np.random.RandomState(5)) if way == "drawn" else way
        objective = Loss(q, normalization="joint").over(p, run, n_components=z.shape[1], potential=potential)
        z = torch.as_tensor(z)
        found = [objective.gradient(z, 4.0), objective.gradient(z, 1.0, True, False)]
        objective.refine(100, None)
        return found, losses_of(objective, z)


class Laplace(learned.DistanceKernel):
    """exp(-d), with a kink."""

    def log_kernel(self, sq_distance):
        return -sq_distance.sqrt()


SUMMED = {  # rows, dimensions, what sums over all pairs, kernel
    "grid by compiled loops, the loss too": (12_000, 2, GridPotential, learned.StudentT()),
    "grid in one dimension, by torch": (700, 1, GridPotential, learned.StudentT()),
    "grid by torch": (700, 2, GridPotential, learned.StudentT()),
    "all pairs by compiled loops": (1500, 2, None, learned.StudentT()),
    "all pairs by tiles": (700, 3, None, learned.StudentT(df=2.0)),
    "all pairs of far rows": (700, 2, None, learned.Gaussian(sigma=0.05)),
    "all pairs under a kink": (700, 2, None, Laplace()),
    "tree": (1500, 3, TreePotential, learned.StudentT()),
    "drawn keys": (12_000, 2, "drawn", learned.StudentT()),
    "drawn keys in many dimensions": (1500, 5, "drawn", learned.Gaussian(sigma=9.0)),
}


def sums_of(name, part):
    n, d, way, q = SUMMED[name]
    z = np.random.RandomState(1).normal(size=(n, d)).astype(np.float32) * 8
    return _gradients(blobs(n), part, z, way, q)


def _sums(rank, n_ranks):
    return {name: sums_of(name, _cuts(SUMMED[name][0], n_ranks)[rank]) for name in SUMMED}


@pytest.mark.parametrize("n_ranks", BY)
def test_sums_of_maps_are_those_of_one_process(n_ranks, request):
    ranks = request.getfixturevalue(n_ranks)(_sums)
    for name in SUMMED:
        steps, each = of_one_process(sums_of, name)
        for found in ranks:
            three = zip(found[name][0], steps, ranks[0][name][0], strict=True)
            for (loss, gradient), (one_loss, one_gradient), (_, same) in three:
                assert abs(loss - one_loss) < 2e-5 * abs(one_loss), name
                size = float(one_gradient.abs().max())
                np.testing.assert_allclose(gradient, one_gradient, rtol=0, atol=2e-4 * size, err_msg=name)
                assert torch.equal(gradient, same)
        of_rows = np.concatenate([found[name][1] for found in ranks])
        np.testing.assert_allclose(of_rows, each, rtol=1e-3, atol=1e-8, err_msg=name)


def fit_map(part, n, turn=1.0):
    method = "auto" if n < 3000 else "interpolation"  # as ranks sum: one process is exact up to 4,000 rows
    model = ICONEmbedding(supervisory="knn", method=method, random_state=2)
    return model.fit(np.float32(np.dot(blobs(n)[part], turn)))


def new_rows(rank, n):
    """Some that were fitted by one rank or another, and others: more of later ranks."""
    return np.vstack([blobs(n)[n // 2 :][: 1 + rank], blobs(n)[: 3 + 5 * rank] + np.float32(0.1)])


def _map(rank, n_ranks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_MOST_BY_FIRST", 4000)
        return _shared_maps(rank, n_ranks)


def _shared_maps(rank, n_ranks):
    found = {}
    for n in (300, 4200):
        fitted = fit_map(_cuts(n, n_ranks)[rank], n)
        whole = distributed.gather(fitted)
        found[n] = {
            "places": fitted.embedding_,
            "kl": fitted.kl_divergence_,
            "of rows": fitted.kl_per_sample_,
            "transform": fitted.transform(new_rows(rank, n)),
            "score": refusal(lambda fitted=fitted: fitted.score(blobs(300)[:2])),
            "whole": whole and (whole.embedding_, whole.kl_divergence_, whole.transform(blobs(n)[:5])),
            "new": whole and [whole.transform(new_rows(rank, n)) for rank in range(n_ranks)],
        }
    X = blobs(4200)[rank::n_ranks]
    maps = {
        "divergence": ICONEmbedding(divergence="jensen_shannon"),
        "debias": ICONEmbedding(debias=0.1),
        "learned": ICONEmbedding(learned=learned.UniformMixture(learned.StudentT(), 0.1)),
        "pole": ICONEmbedding(learned=learned.Harmonic(n=3), method="exact"),
        "init": ICONEmbedding(init="spectral"),
        "array": ICONEmbedding(init=X[:, :2]),
        "metric": ICONEmbedding(metric="manhattan"),
        "warm_start": ICONEmbedding(warm_start=True),
        "supervisory": ICONEmbedding(supervisory="walk"),
    }
    found["refused"] = {name: refusal(lambda each=each: each.fit(X)) for name, each in maps.items()}
    found["refused"]["sparse"] = refusal(lambda: ICONEmbedding().fit(sparse.csr_array(X)))
    found["neighbors"] = refusal(lambda: ICONEmbedding(n_neighbors=4200).fit(X))
    return found


WAYS = {  # beside grids; the method that a fit tells
    "exact": ({"method": "exact"}, "exact"),
    "sampled": ({"method": "sampled"}, "sampled"),
    "solid": ({"n_components": 3}, "barnes_hut"),
    "many dimensions": ({"n_components": 5, "method": "sampled"}, "sampled"),
}


def fit_ways(part):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_EXACT_LIMIT", "_MOST_BY_FIRST"):
            patch.setattr(embedding, name, 100)
        maps = {"supervisory": "knn", "random_state": 2, "max_iter": 60}
        fits = {name: ICONEmbedding(**given, **maps).fit(blobs(1100)[part]) for name, (given, _) in WAYS.items()}
    return {name: (fit.embedding_, fit.kl_divergence_, fit.method_) for name, fit in fits.items()}


def _ways(rank, n_ranks):
    return fit_ways(_cuts(1100, n_ranks)[rank])


def test_maps_by_all_pairs_by_drawn_keys_and_by_a_tree(two):
    first, second = two(_ways)
    for name, (places, kl, method) in fit_ways(slice(None)).items():
        assert (first[name][2], method) == (WAYS[name][1],) * 2
        assert len(first[name][0]) + len(second[name][0]) == len(places)
        assert first[name][1] == second[name][1] == pytest.approx(kl, rel=0.02), name


@pytest.mark.slow
def test_maps(two):
    ranks = two(_map)
    for n in (300, 4200):
        one, first = fit_map(slice(None), n), ranks[0][n]
        places = np.concatenate([found[n]["places"] for found in ranks])
        np.testing.assert_array_equal(first["whole"][0], places)
        np.testing.assert_array_equal(first["whole"][2], places[:5])
        assert all(found[n]["kl"] == first["kl"] for found in ranks)
        assert np.mean(np.concatenate([found[n]["of rows"] for found in ranks])) == pytest.approx(first["kl"])
        assert all("holds the rows of rank" in found[n]["score"] for found in ranks)
        for found, expected in zip(ranks, first["new"], strict=True):
            np.testing.assert_array_equal(found[n]["transform"], expected)
        if n == 300:  # by rank 0
            np.testing.assert_array_equal(places, one.embedding_)
        else:  # rounding leads to one of several minima, in one process too, as where the same rows are turned
            turns = [scipy.stats.ortho_group.rvs(10, random_state=seed) for seed in (0, 1)]
            alike = [one, *(fit_map(slice(None), n, turn) for turn in turns)]
            losses = [fitted.kl_divergence_ for fitted in alike]
            assert min(losses) * (1 - 5e-3) < first["kl"] < max(losses) * (1 + 5e-3)
            recalls = [knn_recall(blobs(n), fitted.embedding_) for fitted in alike]
            assert min(recalls) - 0.01 < knn_recall(blobs(n), places) < max(recalls) + 0.01
        if n == 4200:
            equal = (blobs(n) == blobs(n)[0]).all(axis=1)
            assert np.ptp(places[equal], axis=0).max() == 0
    for found in ranks:
        for name, message in found["refused"].items():
            assert message and "over ranks" in message, (name, message)
        assert "n_neighbors=4200" in found["neighbors"]


def _placed_by_ties(rank, n_ranks):
    draw = np.random.RandomState(0)
    X, new = (draw.randint(3, size=(n, 7)).astype(np.float32) / 3 for n in (300, 20))
    part = _cuts(300, n_ranks)[rank]
    fitted = ICONEmbedding(supervisory="knn", n_neighbors=10, random_state=0).fit(X[part])
    found = {"placed": fitted.transform(new[rank::n_ranks])}
    of_sparse = ICONEmbedding(supervisory="knn", random_state=0).fit(sparse.csr_array(X)[part])
    found["sparse"] = refusal(lambda: of_sparse.transform(sparse.csr_array(new)))
    of_blocks = ICONEmbedding(supervisory="knn", metric="manhattan", random_state=0).fit(X[part])
    found["manhattan"] = refusal(lambda: of_blocks.transform(new))
    whole = distributed.gather(fitted)
    return found | {"whole": whole and whole.transform(new)}


def test_new_rows_of_ranks_settle_ties_as_one_process_does(two):
    ranks = two(_placed_by_ties)
    for rank, found in enumerate(ranks):
        np.testing.assert_array_equal(found["placed"], ranks[0]["whole"][rank :: len(ranks)])
        assert "they are sparse; call distributed.gather(map) on every rank" in found["sparse"]
        assert "metric='manhattan'; call distributed.gather(map)" in found["manhattan"]


K_MEANS = {"supervisory": supervisory.Gaussian(sigma=0), "encoder": "lookup", "divergence": "reverse_kl"}


def fit_clusters(part):
    """Clusters of few rows by default, and of a draw; k-means of many, also of weights and from given centres."""
    X = make_blobs(13_000, 6, centers=7, random_state=8, cluster_std=1.2)[0].astype(np.float32) + 50
    weight = np.random.RandomState(2).randint(0, 3, size=13_000).astype(float)
    few = slice(None, 400)
    return {
        "few": ICONClustering(5, random_state=0).fit(X[few][_within(part, 400)]),
        "drawn": fit_drawn(X, _within(part, 1300)),
        "overlapping": fit_drawn(blobs(1300)[:, :6], _within(part, 1300), most=1300),
        "k-means": ICONClustering(11, n_init=4, random_state=0, **K_MEANS).fit(np.float64(X[part])),  # with many minima
        "random": ICONClustering(9, init="random", n_init=2, random_state=1, **K_MEANS).fit(np.float64(X[part])),
        "weights": ICONClustering(7, n_init=2, random_state=0, **K_MEANS).fit(X[part], sample_weight=weight[part]),
        "given": ICONClustering(3, init=X[[5, 6, 7]], n_init=1, **K_MEANS).fit(X[part]),
    }


def fit_drawn(X, part, most=0):
    """The default where the limits are so low that a draw is what is chosen on, in one process or over ranks too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustering, "_MOST_CHOSEN", most)
        for module, name in ((clustering, "MOST_BY_FIRST"), (automatic, "_MOST_ROWS")):
            patch.setattr(module, name, 450)
        return ICONClustering(7, random_state=0).fit(X[:1300][part])


def _within(part, n):
    """The same part of fewer rows."""
    return part if part.start is None else slice(part.start * n // 13_000, part.stop * n // 13_000)


CLUSTERS = ("few", "drawn", "overlapping", "k-means", "random", "weights", "given")


def _cluster(rank, n_ranks):
    part = _cuts(13_000, n_ranks)[rank]
    fitted = fit_clusters(part)
    X = np.full((4, 6), 50.0, dtype=np.float32) + np.arange(24).reshape(4, 6)
    found = {
        name: (each.labels_, each.cluster_centers_, each.inertia_, each.predict(X), each.loss_)
        for name, each in fitted.items()
    }
    found["whole"] = distributed.gather(fitted["few"])
    drawn = distributed.gather(fitted["drawn"])
    found["chosen"] = fitted["drawn"].chosen_, drawn and drawn.labels_
    X = blobs(12_000)[part]
    found["graph"] = refusal(lambda: ICONClustering(4, supervisory="knn").fit(X))
    found["cut"] = refusal(lambda: ICONClustering(4, debias=1, encoder="lookup").fit(X))
    found["halves"] = refusal(lambda: ICONClustering(4, calibrate=True).fit(X))
    return found


def test_clusters(two):
    one, ranks = fit_clusters(slice(None)), two(_cluster)
    X = np.full((4, 6), 50.0, dtype=np.float32) + np.arange(24).reshape(4, 6)
    for name in CLUSTERS:
        labels = np.concatenate([found[name][0] for found in ranks])
        assert adjusted_rand_score(labels, one[name].labels_) >= 0.99
        np.testing.assert_array_equal(labels, one[name].labels_)  # numbered alike
        for found in ranks:
            np.testing.assert_allclose(found[name][1], one[name].cluster_centers_, rtol=1e-5)
            np.testing.assert_allclose(found[name][2], one[name].inertia_, rtol=1e-5)
            np.testing.assert_array_equal(found[name][3], one[name].predict(X))
            if name != "drawn":  # the loss of its draw
                np.testing.assert_allclose(found[name][4], one[name].loss_, rtol=1e-4)
    np.testing.assert_array_equal(ranks[0]["whole"].labels_, one["few"].labels_)
    np.testing.assert_array_equal(ranks[0]["chosen"][1], one["drawn"].labels_)
    for found in ranks:
        assert found["chosen"][0] == one["drawn"].chosen_
        assert "of ICONClustering, which is not solved over ranks" in found["graph"]
        assert "route 'cut' of ICONClustering" in found["cut"]
        assert "calibrate=True fits halves of the rows of one process" in found["halves"]


def _go_on(rank, n_ranks, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_MOST_BY_FIRST", 4000)
        return _fits_that_go_on(rank, n_ranks, folder)


def _fits_that_go_on(rank, n_ranks, folder):
    """A fit that ends as rank 1 fails half-way, and what goes on from its checkpoint: by the same ranks, by others."""
    journal.STEPS_EVERY = journal.STAGES_EVERY = 0.0
    total = Ranks_.total
    calls = iter(())

    def failing(self, values):
        if rank == 1 and next(calls, 0) is None:
            raise ValueError("half-way")
        return total(self, values)

    maps = {"supervisory": "knn", "random_state": 2, "max_iter": 30}
    cases = {
        "map": (ICONEmbedding(**maps), blobs(4200), 45),
        "drawn": (ICONEmbedding(method="sampled", **maps), blobs(10_200), 35),
        "k-means": (ICONClustering(9, random_state=0, **K_MEANS), blobs(11_000), 400),
    }
    found = {}
    for name, (model, X, n_calls) in cases.items():
        path, cut = folder / name, _cuts(len(X), n_ranks)[rank]
        other = slice(len(X) * rank // n_ranks, len(X) * (rank + 1) // n_ranks)
        usual, kept = clone(model).fit(X[cut]), model.set_params(checkpoint=path)
        calls = iter([0] * n_calls + [None])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ranks_, "total", failing)
            found[name, "error"] = refusal(lambda model=kept, X=X[cut]: clone(model).fit(X))
        content = path.read_bytes()
        fits = {"usual": usual}
        for how, rows in {"same": cut, "whole": cut, "others": other}.items():
            if how == "others" and distributed.gather([0]) is not None:
                path.write_bytes(content)
            distributed.gather([0])
            fits[how] = clone(kept).fit(X[rows])
        found[name] = {how: (*_result(fit), fit.fit_report_["exchanges"]) for how, fit in fits.items()}
        found[name, "data"] = refusal(lambda model=kept, X=X[cut]: clone(model).fit(X + 1))
    return found


def _result(fit):
    return (fit.embedding_, fit.kl_divergence_) if hasattr(fit, "embedding_") else (fit.labels_, fit.loss_)


def test_a_checkpoint_of_ranks(two, tmp_path):
    first, second = two(partial(_go_on, folder=tmp_path))
    fits = "map", "drawn", "k-means"
    assert all("rank 1 of 2 failed: ValueError: half-way" in first[name, "error"] for name in fits)
    for found in (first, second):
        for name in fits:
            usual, same, whole, others = (found[name][how] for how in ("usual", "same", "whole", "others"))
            np.testing.assert_array_equal(same[0], usual[0])
            np.testing.assert_array_equal(whole[0], usual[0])
            assert same[1] == usual[1] and whole[2] < same[2] < usual[2]
            assert others[1] == pytest.approx(usual[1], rel=5e-3) and others[2] < usual[2]
            assert "X is not the same" in found[name, "data"]
    both = [np.concatenate([found["k-means"][how][0] for found in (first, second)]) for how in ("usual", "others")]
    np.testing.assert_array_equal(*both)


MAPS_BY_FIRST = {
    "conditional": {"normalization": "conditional"},
    "exact": {"method": "exact"},
    "sampled": {"method": "sampled"},
    "solid": {"n_components": 3, "init": "spectral"},
    "divergence": {"divergence": "jensen_shannon"},
    "walk": {"supervisory": "walk"},
}


def fit_by_first(part):
    """What ranks do not share: representations of classes, rows without a label, encoders of maps, some maps."""
    X, y, weight = classes()
    words = y[part].tolist()  # of unlike lengths, and as objects below
    rows, few = X[part], {"max_iter": 3, "random_state": 0}
    unknown = np.where(np.arange(len(X)) % 3, np.unique(y, return_inverse=True)[1], -1)[part]
    return {
        "same_class": ICONClassifier(supervisory="same_class", encoder="mlp", **few).fit(rows, words, weight[part]),
        "words": ICONClassifier(supervisory="same_class", encoder="mlp", **few).fit(rows, y[part].astype(object)),
        "unknown": ICONClassifier(supervisory="propagated_label", **few).fit(rows, unknown),
        "encoder": ICONEmbedding(encoder="mlp", perplexity=10, **few).fit(rows),
    } | {name: ICONEmbedding(perplexity=10, **given, **few).fit(rows) for name, given in MAPS_BY_FIRST.items()}


def _by_first(rank, n_ranks):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        patch.setattr(embedding, "_EXACT_LIMIT", 200)
        fitted = fit_by_first(_cuts(300, n_ranks)[rank])
    new = classes()[0][:9] + 0.1
    found = {name: each.predict_proba(new) for name, each in fitted.items() if hasattr(each, "classes_")}
    return found | {
        "encoder": fitted["encoder"].transform(new),
        "maps": {name: fitted[name].embedding_ for name in MAPS_BY_FIRST},
        "classes": fitted["same_class"].classes_,
    }


@pytest.mark.slow
@pytest.mark.parametrize("by", ["two", "three"])
def test_what_ranks_do_not_share_is_solved_by_rank_0(by, request):
    ranks, new = request.getfixturevalue(by)(_by_first), classes()[0][:9] + 0.1
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        patch.setattr(embedding, "_EXACT_LIMIT", 200)
        one = fit_by_first(slice(None))
    for found in ranks:
        np.testing.assert_array_equal(found["classes"], one["same_class"].classes_)
        np.testing.assert_array_equal(found["encoder"], one["encoder"].transform(new))
        for name in ("same_class", "words", "unknown"):
            np.testing.assert_array_equal(found[name], one[name].predict_proba(new))
    for name in MAPS_BY_FIRST:
        of_ranks = np.concatenate([found["maps"][name] for found in ranks])
        np.testing.assert_array_equal(of_ranks, one[name].embedding_)


def _fail(rank, n_ranks):
    X, y, _ = classes()
    part = slice(rank, None, n_ranks)
    found = {}
    broken = X[part].copy()
    broken[3, 2] = np.nan if rank == 1 else 0
    fitted = ICONClassifier().fit(X[part], y[part])
    before = fitted.coef_
    found["nan"] = refusal(lambda: fitted.fit(broken, y[part]))
    found["kept"] = fitted.coef_ is before
    found["columns"] = refusal(lambda: ICONClassifier().fit(X[part, : 5 + rank], y[part]))
    found["parameters"] = refusal(lambda: ICONClassifier(C=1.0 + rank).fit(X[part], y[part]))
    found["one class"] = refusal(lambda: ICONClassifier().fit(X[part], np.zeros(len(X[part]))))
    found["stopping"] = refusal(lambda: ICONClassifier(early_stopping=True).fit(X[part], y[part]))
    found["divergence"] = refusal(lambda: ICONClassifier(divergence="jensen_shannon").fit(X[part], y[part]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_module, "MOST_BY_FIRST", 100)
        found["network"] = refusal(lambda: ICONClassifier(supervisory="same_class").fit(X[part], y[part]))
    found["pairs"] = refusal(lambda: ICONCrossModal(encoder="linear").fit(X[part], X[part, :3]))
    found["items"] = refusal(lambda: ICONCrossModal(encoder="mlp").fit(X[part], X[part, : 3 + rank]))
    module = encoders.Module(torch.nn.Linear)
    found["module"] = refusal(lambda: ICONClassifier(encoder=module).fit(X[part], y[part]))

    def apart(rank=rank):
        with together("a fit") as ranks:
            ranks.total(np.zeros(3 + rank))

    found["apart"] = refusal(apart)
    found["again"] = ICONClassifier().fit(X[part], y[part]).score(X, y)  # the group still works
    return found


def test_one_rank_fails_and_all_say_so(two):
    first, second = two(_fail)
    assert "contains NaN" in second["nan"] and second["nan"].startswith("ValueError")
    assert first["nan"].startswith("RankFailure: rank 1 of 2 failed: ValueError: Input X contains NaN")
    assert first["kept"] and second["kept"]
    assert "float64 (5,) on rank 0" in first["columns"] and "float64 (6,) on rank 1" in second["columns"]
    assert "C=2.0" in first["parameters"] and first["parameters"] == second["parameters"]
    for found in (first, second):
        assert "only one class" in found["one class"]
        assert "early_stopping=True of softmax regression is not done over ranks" in found["stopping"]
        assert "divergence='jensen_shannon' is not solved over ranks" in found["divergence"]
        assert "route 'representations' of ICONClassifier" in found["network"] and "alone()" in found["network"]
        assert "may draw random numbers" in found["module"] and "two linear maps" in found["pairs"]
        assert "an item of y must be the same on all ranks" in found["items"]
        assert "rank 1 at a sum of float64 (4,)" in found["apart"]
        assert found["again"] > 0.5


def test_without_a_group(tmp_path):
    X = np.arange(20.0).reshape(10, 2)
    np.save(tmp_path / "X.npy", X)
    parts = [distributed.shard(tmp_path / "X.npy", rank=rank, n_ranks=3) for rank in range(3)]
    assert all(isinstance(part, np.memmap) for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), X)
    assert distributed.shard(sparse.csr_array(X)).shape == X.shape
    assert distributed.gather(X) is X
    with pytest.raises(ValueError, match="fewer than two for each of 6 ranks"):
        distributed.shard(X, rank=0, n_ranks=6)
    with pytest.raises(ValueError, match=r"no \.npy, \.parquet or \.zarr file"):
        distributed.shard("X.csv")
    with pytest.raises(ValueError, match="rank=3"):
        distributed.shard(X, rank=3, n_ranks=3)


@pytest.mark.parametrize("kind", ["pyarrow", "zarr", "dask.array", "dask.dataframe"])
def test_shards_of_other_files(kind, tmp_path):
    module = pytest.importorskip(kind)
    X, path = np.arange(60.0).reshape(20, 3), str(tmp_path / "X")
    if kind == "pyarrow":
        from pyarrow import parquet

        data, labels = path + ".parquet", path + ".y.parquet"
        parquet.write_table(module.table(dict(zip("abc", X.T, strict=True))), data, row_group_size=4)
        parquet.write_table(module.table({"y": [str(row) for row in range(20)]}), labels, row_group_size=7)
        assert distributed.shard(labels, rank=1, n_ranks=3).tolist() == [str(row) for row in range(6, 13)]
    elif kind == "zarr":
        data = path + ".zarr"
        module.open_array(data, mode="w", shape=X.shape, chunks=(4, 3), dtype=float)[:] = X
    elif kind == "dask.array":
        data = module.from_array(X, chunks=(4, 3))
    else:
        frame = pytest.importorskip("pandas").DataFrame(X, columns=["a", "b", "c"])
        data = module.from_pandas(frame, npartitions=4)
    parts = [distributed.shard(data, rank=rank, n_ranks=3) for rank in range(3)]
    assert all(isinstance(part, np.ndarray) for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), X)


def files(folder):
    """Rows and labels as files."""
    X, y, _ = classes()
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return folder


def _commands(folder):
    """Every command, by the processes that call it."""
    os.chdir(folder)
    return [
        main(line.split())
        for line in (
            "classify X.npy --labels y.npy --out predicted.npy --model classes.icon --C 0.3 --quiet",
            "transform X.npy --model classes.icon --out proba.npy --method predict_proba",
            "cluster X.npy --out labels.npy --n-clusters 3 --random_state 0 --quiet",
            "map X.npy --out map.npy --model map.icon --supervisory UniformKNN(n_neighbors=9) --random-state 0 --quiet",
            "transform X.npy --model map.icon --out again.npy",
            "map X.npy --out none.npy --perplexity -3 --quiet",
        )
    ]


def _command(rank, n_ranks, folder):
    return {"status": _commands(folder)}


@pytest.mark.parametrize("by", ["one", "two"])
def test_command(by, tmp_path, request, monkeypatch):
    monkeypatch.chdir(files(tmp_path))
    X, y, _ = classes()
    if by == "one":
        assert _commands(tmp_path) == [0, 0, 0, 0, 0, 1]
    else:
        for found in request.getfixturevalue("two")(partial(_command, folder=tmp_path)):
            assert found["status"] == [0, 0, 0, 0, 0, 1]
    classifier = ICONClassifier(C=0.3).fit(X, y)
    np.testing.assert_array_equal(np.load("predicted.npy"), classifier.predict(X))
    np.testing.assert_allclose(np.load("proba.npy"), classifier.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(np.load("labels.npy"), ICONClustering(3, random_state=0).fit(X).labels_)
    one = ICONEmbedding(supervisory=supervisory.UniformKNN(9), random_state=0).fit(X)
    np.testing.assert_array_equal(np.load("map.npy"), one.embedding_)
    np.testing.assert_array_equal(np.load("again.npy"), one.embedding_)
    assert not list(tmp_path.glob("none.npy*"))


def test_command_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files(tmp_path))
    np.save("objects.npy", np.array([["a", 1.0]] * 9, dtype=object))
    for line, words in {
        "map X.npy": "pass --out",
        "cluster X.npy --out a.npy --labels y.npy": "--labels is for classify",
        "map X.npy --out a.npy --supervisory Gauss(sigma=1)": "there is no supervisory.Gauss",
        "map X.npy --out a.npy --learned StudentT(3)": "must read Name(parameter=value",
        "map X.npy --out a.npy --perplexities 3": "Invalid parameter 'perplexities'",
        "map nothing.npy --out a.npy": "No such file",
        "map objects.npy --out a.npy": "holds no array of numbers or words",
        "map X.npy --out no/a.npy": "there is no folder",
        "transform X.npy --out a.npy": "reads --model",
    }.items():
        assert main([*line.split(), "--quiet"]) == 1, line
        assert words in capsys.readouterr().err, line
    with pytest.raises(SystemExit):
        main(["map", "X.npy", "--perplexity"])
    assert "pairs of --name and value" in capsys.readouterr().err


def test_torchrun(tmp_path):
    command = "-m torch.distributed.run --standalone --nproc-per-node 2 -m sklearn_icon classify X.npy"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    how = {"cwd": files(tmp_path), "env": environment, "capture_output": True, "text": True, "timeout": 200}
    done = subprocess.run([sys.executable, *command.split(), "--labels", "y.npy", "--out", "out.npy"], **how)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[ICONClassifier] fitted in") == 1  # rank 0 speaks
    X, y, _ = classes()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), ICONClassifier().fit(X, y).predict(X))


@pytest.mark.slow
def test_dask_starts_ranks():
    pytest.importorskip("dask.distributed", reason="dask-distributed is not installed")
    root = Path(__file__).parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    command = [sys.executable, root / "examples/dask_ranks.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert float(done.stdout.split("accuracy")[1]) > 0.99, done.stderr


def _die(rank, n_ranks):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    X, y, _ = classes()
    return {"error": refusal(lambda: ICONClassifier().fit(X, y))}


def test_a_rank_that_is_killed_ends_all(two):  # the last test of these ranks
    start = time.time()
    for works in two.works:
        works.put(_die)
    error = two.found[0].get(timeout=60)["error"]
    assert error.startswith("RankFailure: rank 0 of 2 lost touch with another rank") and time.time() - start < 60
