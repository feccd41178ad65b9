"""Fits that were killed, interrupted or finished go on from their checkpoint to the bits of one that was not."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import sklearn_icon
from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned, supervisory
from sklearn_icon._core import journal
from sklearn_icon._estimators import checkpoints, saving
from sklearn_icon._objective import normalizers
from sklearn_icon._optim import solver


def dropping(n_inputs, n_outputs):
    """A network that draws random numbers as it is trained."""
    return torch.nn.Sequential(torch.nn.Linear(n_inputs, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, n_outputs))


def noisy(items):
    """A view of items."""
    return items + 0.1 * torch.randn_like(items)


ROUTES = {
    "map": ICONEmbedding(perplexity=8, max_iter=24),
    "map that stops by itself": ICONEmbedding(perplexity=8, max_iter=250, min_grad_norm=2e-2),
    "map on a grid": ICONEmbedding(perplexity=8, method="interpolation", max_iter=16),
    "map of drawn keys": ICONEmbedding(perplexity=8, method="sampled", normalization="conditional", max_iter=12),
    "map with degrees of freedom": ICONEmbedding(perplexity=8, learned=learned.StudentT(df="learn"), max_iter=16),
    "map under another divergence": ICONEmbedding(perplexity=8, divergence="total_variation", max_iter=16),
    "map of pairs told apart": ICONEmbedding(
        supervisory="knn",
        learned=learned.NoiseContrastive(learned.StudentT()),
        normalization="conditional",
        max_iter=16,
    ),
    "linear map": ICONEmbedding(perplexity=8, encoder="linear", max_iter=12),
    "network map": ICONEmbedding(
        supervisory="knn", encoder=encoders.MomentumKeys(encoders.MLP((4,))), method="sampled", max_iter=12
    ),
    "views": ICONEmbedding(supervisory=supervisory.PositivePairs(noisy), encoder="mlp", max_iter=12),
    "counts": ICONEmbedding(
        supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional", max_iter=12
    ),
    "clusters": ICONClustering(3),
    "clusters by a lookup": ICONClustering(3, encoder="lookup", max_iter=18),
    "clusters by a network": ICONClustering(3, encoder=encoders.Module(dropping), max_iter=6),
    "k-means": ICONClustering(
        3, supervisory=supervisory.Gaussian(sigma=0), encoder="lookup", divergence="reverse_kl", debias=0
    ),
    "softmax": ICONClassifier(),
    "network": ICONClassifier(encoder=encoders.Module(dropping), max_iter=8),
    "network that stops early": ICONClassifier(encoder="mlp", early_stopping=True, n_iter_no_change=2, max_iter=8),
    "prototypes": ICONClassifier(learned="student_t", max_iter=12),
    "supervised contrast": ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=4),
    "pairs": ICONCrossModal(4, encoder="mlp", max_iter=4),
    "linear pairs": ICONCrossModal(2, max_iter=12),
}


def data(name):
    """(X, y) of a route."""
    rng = np.random.default_rng(11)
    y = np.arange(90) % 3
    X = rng.standard_normal((90, 5)) + 2 * y[:, None]
    if name == "counts":
        return np.round(np.abs(X)) + 1, None
    return X, X[:, :4] + 0.1 * rng.standard_normal((90, 4)) if "pairs" in name else y


def numbers(value):
    """All of a fit but its seconds and where it was kept, as what compares with ==."""
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items() if key not in ("fit_report_", "checkpoint")}
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype, value.shape, value.tobytes() if value.dtype != object else value.tolist()
    if isinstance(value, np.random.RandomState):
        return numbers(value.get_state(legacy=False))
    if isinstance(value, list | tuple):
        return [numbers(each) for each in value]
    if hasattr(value, "indptr"):
        return numbers([value.data, value.indices, value.indptr])
    return numbers(vars(value)) if hasattr(value, "__dict__") and not callable(value) else repr(value)


@pytest.fixture
def always(monkeypatch):
    """Checkpoints are written at every step and stage."""
    for name in ("STEPS_EVERY", "STAGES_EVERY", "_OF_WRITES"):
        monkeypatch.setattr(journal, name, 0)
    monkeypatch.setattr(os, "fsync", lambda file: None)


class Killed(BaseException):
    """What a kill is to the tests that stay in one process."""


def kill_at(monkeypatch, n):
    """Let the process end behind the n-th write; returns a list that counts writes."""
    writes, plain = [], saving.write

    def write(path, parts):
        if len(writes) < n:  # a process that was killed writes no more
            plain(path, parts)
        writes.append(path)
        if len(writes) == n:
            raise Killed

    monkeypatch.setattr(checkpoints, "write", write)
    return writes


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ROUTES)
def test_a_fit_that_was_killed_goes_on_to_the_same_bits(name, always, tmp_path, monkeypatch):
    if name == "map of pairs told apart":  # by compiled loops, as those of more rows
        monkeypatch.setattr(normalizers, "_COMPILED_ROWS", 10)
    (X, y), path = data(name), tmp_path / "fit.icon"
    plain = clone(ROUTES[name]).set_params(random_state=4)
    kept = clone(plain).set_params(checkpoint=path)
    usual = numbers(vars(plain.fit(X, y)))
    writes = kill_at(monkeypatch, np.inf)
    assert numbers(vars(clone(kept).fit(X, y))) == usual
    n_writes = len(writes)
    assert n_writes > 1 or name == "k-means"  # whose only stage beside p is not kept
    rng = np.random.default_rng(len(name))
    for n in {n_writes, *rng.integers(1, n_writes + 1, 1)}:
        path.unlink()
        for times in (n, 3):  # killed, and killed once more after it had gone on
            kill_at(monkeypatch, times)
            try:
                clone(kept).fit(X, y)
            except Killed:
                assert path.exists()
        kill_at(monkeypatch, np.inf)
        assert numbers(vars(clone(kept).fit(X, y))) == usual


def test_writes_take_a_hundredth_of_the_time(monkeypatch):
    clock, written = [0.0], []
    monkeypatch.setattr(journal, "monotonic", lambda: clock[0])

    def keep(stages, steps):
        written.append(clock[0])
        clock[0] += 0.3

    kept = journal.Journal(keep)
    for number in range(300):
        clock[0] += 1.0
        kept.finish("part", np.zeros(2_000_000 if number == 0 else 1))
        kept.step(lambda: None)
    assert 100 * 16e6 / journal._BYTES <= written[0] < 6  # which was not seen to take any time before
    assert 25 < np.diff(written).min() and np.diff(written).max() < 33
    assert 0.3 * len(written) < 0.011 * clock[0]


KILLS = """
import os, signal, sys, warnings
sys.path.insert(0, {tests!r})
import numpy as np
from sklearn.base import clone
from sklearn_icon._core import journal
from sklearn_icon._estimators import checkpoints, saving
from test_checkpoints import ROUTES, data, numbers
warnings.simplefilter("ignore")
journal.STEPS_EVERY = journal.STAGES_EVERY = journal._OF_WRITES = 0
rng = np.random.default_rng(5)

def fit_and_die(model, X, y, n):
    writes, plain = [], saving.write
    def write(path, parts):
        writes.append(path)
        if len(writes) == n:  # in the midst of a write
            with open(path.with_name("." + path.name + ".half"), "wb") as file:
                file.write(b"".join(bytes(part) for part in parts)[: int(rng.integers(1, 4000))])
            os.kill(os.getpid(), signal.SIGKILL)
        plain(path, parts)
    checkpoints.write = write
    model.fit(X, y)

for name in ("map", "clusters by a lookup", "network", "pairs"):
    X, y = data(name)
    plain = clone(ROUTES[name]).set_params(random_state=2)
    usual, path = numbers(vars(clone(plain).fit(X, y))), name + ".icon"
    plain.set_params(checkpoint=path)
    for n in rng.integers(2, 9, 3):
        child = os.fork()
        if not child:
            fit_and_die(clone(plain), X, y, n)
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        there = os.path.exists(path)
        print(name, died, there, numbers(vars(clone(plain).fit(X, y))) == usual)
        os.unlink(path)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
def test_kill_9(tmp_path):
    code = KILLS.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(sklearn_icon.__file__).parents[1])},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 12 and all(line.endswith("True True True") for line in lines), done.stdout + done.stderr
    assert len(list(tmp_path.glob(".*.half"))) == 4  # which nobody reads


@pytest.mark.parametrize("name", ["map", "clusters", "network", "pairs"])
def test_a_finished_fit_is_there_at_once(name, tmp_path, monkeypatch):
    X, y = data(name)
    model = clone(ROUTES[name]).set_params(random_state=1, checkpoint=str(tmp_path / "fit.icon"))
    usual = numbers(vars(clone(model).fit(X, y)))
    before = (tmp_path / "fit.icon").stat().st_mtime_ns
    monkeypatch.setattr(solver, "_solved", None)  # nothing is trained
    assert numbers(vars(model.fit(X, y))) == usual
    assert (tmp_path / "fit.icon").stat().st_mtime_ns == before
    assert os.listdir(tmp_path) == ["fit.icon"]


def test_other_fits_are_refused_by_name(tmp_path):
    (X, y), path = data("softmax"), tmp_path / "fit.icon"
    model = ICONClassifier(checkpoint=path).fit(X, y)
    other = X.copy()
    other[3, 2] = np.nextafter(other[3, 2], 9)
    for changed, args, named in (
        (model, (other, y), "X is not the same"),
        (model, (X.astype(np.float32), y), "X is not the same"),
        (model, (X, y[::-1]), "y is not the same"),
        (model, (X, y, np.ones(len(y))), "sample_weight is not the same"),
        (clone(model).set_params(C=2.0), (X, y), r"C was 1\.0 and is 2\.0"),
        (clone(model).set_params(encoder=encoders.Linear()), (X, y), r"encoder was None and is Linear\(\)"),
        (clone(model).set_params(random_state=np.random.RandomState(3)), (X, y), "random_state was None"),
        (ICONClustering(3, checkpoint=path), (X, y), "estimator was ICONClassifier and is ICONClustering"),
    ):
        before = dict(vars(changed))
        with pytest.raises(ValueError, match=f"checkpoint='.*fit.icon' holds another fit: .*{named}"):
            changed.fit(*args)
        assert vars(changed) == before
    model.set_params(verbose=1).fit(X, y)  # which changes nothing that is computed


def test_other_versions_are_refused(tmp_path, monkeypatch):
    (X, y), model = data("softmax"), ICONClassifier(checkpoint=tmp_path / "fit.icon")
    model.fit(X, y)
    monkeypatch.setattr(checkpoints, "__version__", "99.0")
    with pytest.raises(ValueError, match=r"version .* of sklearn_icon wrote it, and this is 99\.0"):
        model.fit(X, y)


def test_damaged_files_are_refused(tmp_path):
    (X, _), path = data("map"), tmp_path / "fit.icon"
    model = clone(ROUTES["map"]).set_params(random_state=0, checkpoint=path)
    model.fit(X)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged)[: rng.integers(len(content))] if rng.uniform() < 0.5 else damaged)
        with pytest.raises(ValueError, match=r"checkpoint='.*fit\.icon' (cannot be read|holds another fit)"):
            model.fit(X)
    model.save(path)
    with pytest.raises(ValueError, match="not that of a checkpoint"):
        model.fit(X)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not that of a saved estimator"):
        sklearn_icon.load(path)


def test_no_file_can_be_there(tmp_path):
    X, y = data("softmax")
    (tmp_path / "link").symlink_to(tmp_path / "fit.icon")
    for path, why in (
        (tmp_path / "none" / "fit.icon", "folder that is not there"),
        (tmp_path, "is a folder"),
        (tmp_path / "link", "link"),
    ):
        with pytest.raises(ValueError, match=why):
            ICONClassifier(checkpoint=path).fit(X, y)
    with pytest.raises(ValueError, match="'checkpoint' parameter"):
        ICONClassifier(checkpoint=3).fit(X, y)


def test_a_full_disk_costs_no_fit(tmp_path, monkeypatch, always):
    def full(path, parts):
        raise OSError(28, "No space left on device")

    (X, y), model = data("network"), clone(ROUTES["network"]).set_params(random_state=0)
    usual = numbers(vars(clone(model).fit(X, y)))
    monkeypatch.setattr(checkpoints, "write", full)
    with pytest.warns(RuntimeWarning, match="was not written .*No space left") as told:
        model.set_params(checkpoint=tmp_path / "fit.icon").fit(X, y)
    assert len(told) == 1
    assert numbers(vars(model)) == usual


@pytest.mark.parametrize("seed", [None, np.random.RandomState(7)], ids=["None", "RandomState"])
def test_generators_go_on_too(seed, always, tmp_path, monkeypatch):
    (X, y), path = data("network"), tmp_path / "fit.icon"
    model = clone(ROUTES["network"]).set_params(random_state=seed, checkpoint=path)
    kill_at(monkeypatch, 5)
    with pytest.raises(Killed):
        clone(model).fit(X, y)
    kill_at(monkeypatch, np.inf)
    first, second = clone(model).fit(X, y), clone(model).fit(X, y)
    assert numbers(vars(first)["_state"]) == numbers(vars(second)["_state"])
    if seed is not None:
        usual = clone(model).set_params(checkpoint=None).fit(X, y)
        assert numbers(vars(first)) == numbers(vars(usual))  # the generator included, as it was left


@pytest.mark.filterwarnings("ignore:.*was interrupted:RuntimeWarning")
@pytest.mark.parametrize("name", ["map", "linear map", "clusters by a lookup", "network", "pairs"])
def test_an_interrupted_fit_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    X, y = data(name)
    plain = clone(ROUTES[name]).set_params(random_state=6)
    usual = numbers(vars(clone(plain).fit(X, y)))
    model = plain.set_params(checkpoint=tmp_path / "fit.icon")
    record, steps = solver._Progress.record, []

    def pressed(self, *args):
        steps.append(None)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return record(self, *args)

    monkeypatch.setattr(solver._Progress, "record", pressed)
    assert numbers(vars(clone(model).fit(X, y))) != usual
    assert numbers(vars(clone(model).fit(X, y))) == usual


def test_a_search_has_a_file_for_each_fit(tmp_path):
    X, y = data("network")
    model = ICONClassifier(encoder="mlp", max_iter=2, random_state=0)
    grid = {"learning_rate": [0.01, 0.02]}
    usual = GridSearchCV(clone(model), grid, cv=2).fit(X, y)
    kept = GridSearchCV(clone(model).set_params(checkpoint=tmp_path / "fit.icon"), grid, cv=2).fit(X, y)
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 5 and all(name.startswith("fit.") and name.endswith(".icon") for name in names)
    np.testing.assert_array_equal(kept.cv_results_["mean_test_score"], usual.cv_results_["mean_test_score"])
    assert numbers(vars(kept.best_estimator_)) == numbers(vars(usual.best_estimator_))
    kept.fit(X, y)  # from the files
    assert sorted(os.listdir(tmp_path)) == names


def test_functions_count_by_name_and_instructions(tmp_path):
    X, _ = data("views")
    model = clone(ROUTES["views"]).set_params(random_state=0, max_iter=3, checkpoint=tmp_path / "fit.icon")
    usual = numbers(model.fit_transform(X))
    assert numbers(clone(model).fit_transform(X)) == usual
    other = supervisory.PositivePairs(lambda items: items + 0.2 * torch.randn_like(items))
    with pytest.raises(ValueError, match="supervisory was PositivePairs"):
        clone(model).set_params(supervisory=other).fit(X)


class Noise:
    """A view with a parameter of its own."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, items):
        return items + self.scale * torch.randn_like(items)

    def view(self, items):
        return self(items)


def scaled(items, scale):
    return scale * items


def itself():
    def view(items):
        return items if len(items) else view(items)

    return view


WITH_STATE = {
    "object": Noise,
    "method": lambda scale: Noise(scale).view,
    "partial": lambda scale: partial(scaled, scale=scale),
    "closure": lambda scale: lambda items: scale * items,
    "constants": lambda scale: {"of": {"one", "two", scale}, 3: np.dtype(float)},
    "generator": lambda scale: np.random.default_rng(int(10 * scale)),
    "keywords": lambda scale: eval(f"lambda items, *, scale={scale}: scale * items"),
}


@pytest.mark.parametrize("kind", WITH_STATE)
def test_callables_count_with_their_state(kind):
    first, again, other = (checkpoints._digest(WITH_STATE[kind](scale), "view") for scale in (0.1, 0.1, 0.2))
    assert first == again != other


def test_callables_without_end_count_by_name():
    assert checkpoints._digest(itself(), "view") == checkpoints._digest(itself(), "view")


def test_warm_starts_are_of_one_fit(tmp_path):
    X, _ = data("map")
    model = ICONEmbedding(perplexity=8, max_iter=20, random_state=0, warm_start=True).fit(X)
    first = clone(model).fit(X).set_params(checkpoint=tmp_path / "fit.icon").fit(X)
    again = clone(model).fit(X).set_params(checkpoint=tmp_path / "fit.icon").fit(X)
    assert numbers(first.embedding_) == numbers(again.embedding_)
    with pytest.raises(ValueError, match="the fit that warm_start begins at is not the same"):
        again.fit(X)
