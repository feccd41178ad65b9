"""A fit leaves the process and, where it fails, the estimator as they were."""

import os
import pickle
import random
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from threadpoolctl import threadpool_info, threadpool_limits

from sklearn_icon import (
    ICONClassifier,
    ICONClustering,
    ICONCrossModal,
    ICONEmbedding,
    encoders,
    learned,
    methods,
    supervisory,
)
from sklearn_icon._core.pools import _BLAS
from sklearn_icon._core.quiet import quiet
from sklearn_icon._core.team import Team, threads
from sklearn_icon._estimators.whole import undisturbed

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.RandomState(3)
X = RNG.randn(90, 5).astype(np.float32)
Y = np.arange(90) % 3
NEW = RNG.randn(7, 5).astype(np.float32)


def dropping(n_inputs, n_outputs):
    """A network that draws from torch's global generator, as it is made and as it is trained."""
    return torch.nn.Sequential(torch.nn.Linear(n_inputs, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, n_outputs))


def noisy(items):
    """A view of items, by torch's global generator."""
    return items + 0.1 * torch.randn_like(items)


FEW = {"max_iter": 6, "random_state": 0}
VIEWS = supervisory.PositivePairs(noisy)
KINDS = {
    "map": ICONEmbedding(perplexity=5, **FEW),
    "linear map": ICONEmbedding(encoder=encoders.Linear(orthonormal=True), **FEW),
    "views": ICONEmbedding(supervisory=VIEWS, learned=learned.Gaussian(metric="cosine"), encoder="mlp", **FEW),
    "counts": ICONEmbedding(
        supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional", **FEW
    ),
    "clusters": ICONClustering(3, **FEW),
    "clusters by a lookup": ICONClustering(3, encoder="lookup", **FEW),
    "clusters by a module": ICONClustering(3, encoder=encoders.Module(dropping), **FEW),
    "k-means": ICONClustering(
        3, supervisory=supervisory.Gaussian(sigma=0), encoder="lookup", divergence="reverse_kl", **FEW
    ),
    "softmax": ICONClassifier(**FEW),
    "network": ICONClassifier(encoder="mlp", early_stopping=True, **FEW),
    "supcon": ICONClassifier(supervisory="same_class", encoder=encoders.Module(dropping), **FEW),
    "pairs": ICONCrossModal(4, **FEW),
}
each_kind = pytest.mark.parametrize("kind", list(KINDS))


def data(kind):
    """(rows, y, new rows) of a kind."""
    if kind == "counts":
        return np.round(X**2 * 3) + 1, None, np.round(NEW**2 * 3) + 1
    return X, X[:, :3] if kind == "pairs" else Y, NEW


def fit(kind, seed=0):
    """A fitted estimator."""
    rows, y, _ = data(kind)
    return clone(KINDS[kind]).set_params(random_state=seed).fit(rows, y)


def said(model, kind):
    """What a fitted estimator says of new rows."""
    return [getattr(model, name)(data(kind)[2]) for name in ("transform", "predict_proba") if hasattr(model, name)]


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, other)


FILTERS_ASIDE = warnings.catch_warnings  # scikit-learn's checks of arrays swap them, so that threads mix them up
_OF_LIBRARIES = ("PYTEST", "TORCHINDUCTOR")  # torch's own name for a folder, at its first import of a compiler


def state_of_process():
    """What a fit is to leave as it was."""
    import numba

    pools = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    with ThreadPoolExecutor(1) as pool:
        of_new_threads = pool.submit(torch.get_num_threads).result()
    return {
        "threads": (torch.get_num_threads(), of_new_threads, numba.get_num_threads()),
        "pools": pools,
        "torch generator": torch.random.get_rng_state().numpy().tobytes(),
        "numpy generator": pickle.dumps(np.random.mtrand._rand.get_state()),
        "python generator": random.getstate(),
        "warnings": list(warnings.filters),
        "dtype": torch.get_default_dtype(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "configuration": sklearn.get_config(),
        "numpy errors": np.geterr(),
        "environment": {name: value for name, value in os.environ.items() if not name.startswith(_OF_LIBRARIES)},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@pytest.fixture
def unchanged():
    """Fail where a test changed the state of a process whose libraries may use three threads each."""
    import sympy  # noqa: F401  # torch does at the first use of some functions, and it filters warnings of its own

    from sklearn_icon._training import maps  # noqa: F401

    state_of_process()  # numba counts OpenMP's threads anew as it first starts its own
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    with threadpool_limits(3):
        before = state_of_process()
        yield
        after = state_of_process()
    torch.set_num_threads(threads)
    after["pools"] = {path: count for path, count in after["pools"].items() if path in before["pools"]}
    for name, value in before.items():
        assert after[name] == value, name


# --- the process --------------------------------------------------------------------------------------------------


@each_kind
def test_nothing_of_the_process_is_changed(kind, unchanged):
    said(fit(kind), kind)


@each_kind
def test_nothing_of_the_process_is_changed_where_a_fit_fails(kind, unchanged):
    def refuse(n_iter, loss):
        raise RuntimeError

    model = clone(KINDS[kind])
    if kind == "clusters":
        model.set_params(encoder="linear")  # the default takes no steps of its own
    model._on_step = lambda *stage: refuse
    rows, y, _ = data(kind)
    if kind != "k-means":
        with pytest.raises(RuntimeError):
            model.fit(rows, y)
        assert not [name for name in vars(model) if name.endswith("_")]


def test_many_rows_change_nothing_either():
    """In a process whose libraries may use one thread, where others would take more."""
    code = (
        "import numpy as np, torch, threadpoolctl; from sklearn_icon import ICONEmbedding\n"
        "import scipy.linalg, sklearn.cluster\n"
        "before = torch.get_num_threads(), threadpoolctl.threadpool_info()\n"
        "X = np.random.RandomState(1).randn(10_100, 6).astype('f4')\n"
        "ICONEmbedding(supervisory='knn', metric='manhattan', max_iter=2, random_state=0).fit(X)\n"
        "import sys, types; from sklearn_icon._graph import search; search._EXACT_LIMIT = 0\n"
        "def descent(rows, n_neighbors, n_jobs, **others):\n"
        "    import numba; numba.set_num_threads(n_jobs)  # which starts its threads\n"
        "    found = np.arange(len(rows))[:, None] + np.arange(n_neighbors)\n"
        "    return types.SimpleNamespace(neighbor_graph=(found % len(rows), None))\n"
        "sys.modules['pynndescent'] = types.SimpleNamespace(NNDescent=descent)\n"
        "ICONEmbedding(supervisory='knn', max_iter=2, random_state=0).fit(X[:3000])\n"
        "assert 'numba' in sys.modules\n"
        "after = torch.get_num_threads(), threadpoolctl.threadpool_info()\n"
        "known = [pool['filepath'] for pool in before[1]]\n"
        "assert before == (after[0], [p for p in after[1] if p['filepath'] in known]), (before, after)"
    )
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=one)


@each_kind
def test_fits_in_threads_give_the_bits_that_they_give_alone(kind, unchanged):
    alone = [said(fit(kind, seed), kind) for seed in range(3)]
    with FILTERS_ASIDE(), ThreadPoolExecutor(3) as pool:
        beside = list(pool.map(lambda seed: said(fit(kind, seed), kind), [0, 1, 2] * 2))
    for one, other in zip(alone * 2, beside, strict=True):
        assert_same(one, other)


def test_unlike_fits_in_threads_give_the_bits_that_they_give_alone(unchanged):
    alone = {kind: said(fit(kind), kind) for kind in KINDS}
    with FILTERS_ASIDE(), ThreadPoolExecutor(4) as pool:
        beside = dict(zip(KINDS, pool.map(lambda kind: said(fit(kind), kind), KINDS), strict=True))
    for kind, one in alone.items():
        assert_same(one, beside[kind])


@each_kind
def test_fits_in_unusual_states(kind, unchanged):
    usual = said(fit(kind), kind)
    with torch.inference_mode():
        assert_same(usual, said(fit(kind), kind))
    with torch.no_grad(), torch.autocast("cpu"), sklearn.config_context(transform_output="pandas"):
        assert_same(usual, said(fit(kind), kind))
    with np.errstate(all="raise"):
        assert_same(usual, said(fit(kind), kind))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("clusters by a module", "supcon")])
def test_the_default_precision_of_torch_is_not_read(kind):
    """Apart from modules of users, which may be made in it."""
    usual = said(fit(kind), kind)
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(usual, said(fit(kind), kind))
    finally:
        torch.set_default_dtype(torch.float32)


@each_kind
def test_the_default_device_of_torch_is_not_read(kind):
    usual = said(fit(kind), kind)
    torch.set_default_device("meta")
    try:
        found = said(fit(kind), kind)
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)
    assert_same(usual, found)


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_threads_by_the_size_of_the_work():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads(None, 1000):
            assert torch.get_num_threads() == Team().size == 1
            assert blas_threads() == {1}
        with threads(None, 10**8):
            assert torch.get_num_threads() == Team().size == 3
        with threads(2, 10**8):
            assert torch.get_num_threads() == 2
        with threads(2), threads(None, 10):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def threads_of_torch():
    """How many threads torch, OpenMP and MKL (which is a part of some builds) would take now, by torch's own report."""
    told = re.findall(r"(at::get_num|omp_get_max|mkl_get_max)_threads\(\) : (\d+)", torch.__config__.parallel_info())
    assert told
    return {int(count) for _, count in told}


def test_small_work_leaves_the_other_threads_alone():
    """MKL, within torch, counts by itself: where it is not told, each of its functions wakes threads that then spin."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads(None, 1000):
            assert threads_of_torch() == {1}
        assert threads_of_torch() == {3}
    finally:
        torch.set_num_threads(before)


def test_blas_keeps_the_least_that_is_asked_for(unchanged):
    before = blas_threads()
    assert before == {3}
    one, other, third = (_BLAS.limited(count) for count in (None, 1, 1))
    one.__enter__()
    other.__enter__()
    third.__enter__()
    assert blas_threads() == {1}
    other.__exit__(None, None, None)
    assert blas_threads() == {1}
    third.__exit__(None, None, None)
    assert blas_threads() == before
    one.__exit__(None, None, None)
    assert blas_threads() == before


def test_limits_of_calls_side_by_side_do_not_stay(unchanged):
    """Scikit-learn limits BLAS around its own loops; what the first found and put back, the second put at one again."""
    first_in, second_in, first_out = Event(), Event(), Event()

    @undisturbed
    def first(self):
        with threadpool_limits(1, user_api="blas"):
            first_in.set()
            assert second_in.wait(60)
        first_out.set()

    @undisturbed
    def second(self):
        assert first_in.wait(60)
        with threadpool_limits(1, user_api="blas"):
            second_in.set()
            assert first_out.wait(60)

    with ThreadPoolExecutor(2) as pool:
        for call in [pool.submit(method, ICONClassifier()) for method in (first, second)]:
            call.result()


def test_filters_of_others_stay(unchanged):
    one, other = quiet("two"), quiet("two")
    one.__enter__()
    other.__enter__()
    warnings.warn("two words", UserWarning, stacklevel=1)
    one.__exit__(None, None, None)
    warnings.warn("two words", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning):
        warnings.warn("one word", UserWarning, stacklevel=1)
    other.__exit__(None, None, None)
    with pytest.raises(UserWarning):
        warnings.warn("two words", UserWarning, stacklevel=1)


# --- the estimator ------------------------------------------------------------------------------------------------


BAD = {
    "another width": lambda rows, y: (np.full_like(rows[:, :2], np.nan), y),
    "nan": lambda rows, y: (np.where(np.arange(len(rows))[:, None] == 4, np.nan, rows), y),
    "one row": lambda rows, y: (rows[:1], None if y is None else y[:1]),
    "text": lambda rows, y: (np.array([["a"] * 4] * 9), y),
    "y too short": lambda rows, y: (rows[:, :3], None if y is None else y[:20]),
    "nothing": lambda rows, y: (None, y),
}


@each_kind
@pytest.mark.parametrize("bad", list(BAD))
def test_a_refused_fit_changes_nothing(kind, bad):
    rows, y, _ = data(kind)
    spoiled = BAD[bad](rows, y)
    model = clone(KINDS[kind])
    own = set(vars(model))
    try:
        model.fit(*spoiled)
    except (ValueError, TypeError):
        pass
    else:
        return  # y is not read by all
    assert set(vars(model)) == own
    with pytest.raises(NotFittedError):
        model.transform(rows)
    model.fit(rows, y)
    state, before = dict(vars(model)), said(model, kind)
    with pytest.raises((ValueError, TypeError)):
        model.fit(*spoiled)
    assert vars(model).keys() == state.keys()
    assert all(vars(model)[name] is value for name, value in state.items())
    assert_same(before, said(model, kind))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("map", {"perplexity": 1000}),
        ("map", {"init": np.zeros((3, 2))}),
        ("map", {"method": "other"}),
        ("clusters", {"n_clusters": 100}),
        ("clusters", {"supervisory": "no such"}),
        ("softmax", {"C": -1}),
        ("softmax", {"learned": "cluster"}),
        ("pairs", {"encoder_y": "lookup"}),
        ("pairs", {"device": "no such"}),
    ],
)
def test_a_refused_parameter_leaves_the_last_fit(kind, parameters):
    model = fit(kind)
    before = said(model, kind)
    model.set_params(**parameters)
    rows, y, _ = data(kind)
    with pytest.raises((ValueError, TypeError)):
        model.fit(rows[:, :2], y)
    assert_same(before, said(model.set_params(**KINDS[kind].get_params()), kind))


def test_a_fit_keeps_nothing_of_another():
    model = ICONClustering(3, **FEW).fit(X)
    assert hasattr(model, "cluster_centers_")
    graph = (np.abs(X @ X.T) > 2).astype(float)
    model.set_params(supervisory="graph", encoder="lookup").fit(graph)
    assert not hasattr(model, "cluster_centers_") and not hasattr(model, "inertia_")


def test_settings_outlive_a_failed_fit():
    model = ICONClassifier().set_output(transform="pandas")
    with pytest.raises(ValueError):
        model.fit(X, None)
    assert list(model.fit(X, Y).transform(NEW).columns) == ["iconclassifier0", "iconclassifier1", "iconclassifier2"]


@each_kind
def test_pickles_say_their_version(kind):
    model = fit(kind)
    copy = pickle.loads(pickle.dumps(model))
    assert vars(copy).keys() == vars(model).keys() - {"neighbors_graph_"}
    assert_same(said(copy, kind), said(model, kind))
    state = model.__getstate__() | {"_icon_version": "0.0.7"}
    with pytest.warns(UserWarning, match=f"{type(model).__name__} was pickled by version 0.0.7"):
        clone(model).__setstate__(state)


def test_no_nan_comes_out():
    model = ICONClassifier(**FEW).fit(X, Y)
    model._coef = model._coef * np.nan
    with pytest.raises(ValueError, match=r"ICONClassifier.predict_log_proba has no finite values for 7 rows"):
        model.predict_proba(NEW)


def test_convergence_is_still_warned_of():
    with pytest.warns(ConvergenceWarning):
        ICONClassifier(max_iter=1).fit(X, Y)


@pytest.mark.parametrize("name", ["a" * 50_000, "a word " * 9_000], ids=["one word", "many words"])
@pytest.mark.parametrize(
    "parameter", ["supervisory", "learned", "encoder", "divergence", "device", "init", "method", "metric"]
)
def test_messages_are_of_bounded_length(parameter, name):
    with pytest.raises((ValueError, TypeError)) as caught:
        ICONEmbedding(**{parameter: name}).fit(X)
    assert parameter in str(caught.value)
    assert len(str(caught.value)) < 6000


def test_messages_of_specs_and_methods_are_of_bounded_length():
    for call in (
        lambda: supervisory.Gaussian(source="a" * 50_000).validate(),
        lambda: methods.get("a" * 50_000),
        lambda: methods.names(family="b " * 50_000),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert len(str(caught.value)) < 6000


def test_rare_classes_under_early_stopping():
    model = ICONClassifier(encoder="mlp", early_stopping=True, random_state=0)
    with pytest.raises(
        ValueError, match=r"early_stopping=True holds out validation_fraction=0.1.*row 89 is the only one"
    ):
        model.fit(X, np.r_[np.zeros(89), 1])
    fitted = model.fit(X, np.r_[np.zeros(88), 1, 1])
    assert fitted.classes_.tolist() == [0, 1] and len(fitted.validation_loss_curve_)


def test_blas_has_as_many_threads_in_any_python_thread():
    """That of a small fit is one, in threads other than the first to set it too, where fits give the same bits."""
    rows, y = load_digits(return_X_y=True)

    def fitted(seen):
        classes, rough = ICONClassifier(), ICONEmbedding(max_iter=40, random_state=0)
        classes._on_step = rough._on_step = lambda *stage: seen.append(blas_threads())
        coef = classes.fit(rows[:300], y[:300]).coef_
        return coef, rough.fit(rows[:300]).transform(rows[300:310])

    with threadpool_limits(2, user_api="blas"):
        alone, beside = [], []
        expected = fitted(alone)
        with ThreadPoolExecutor(1) as pool:
            assert_same(expected, pool.submit(fitted, beside).result())
        assert alone == beside
        assert {1} in alone


def test_no_thread_is_kept_from_the_threads_of_blas():
    before = blas_threads()

    def limited():
        with threadpool_limits(1, user_api="blas"):
            return blas_threads()

    with ThreadPoolExecutor(1) as pool:
        fit("softmax")
        assert pool.submit(limited).result() == {1}
        pool.submit(fit, "softmax").result()
    assert limited() == {1}
    assert blas_threads() == before
