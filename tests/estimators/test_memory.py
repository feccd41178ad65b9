"""What fits need, what is free, and the error where the one is more than the other."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, learned, supervisory
from sklearn_icon._core import free_memory, pieces
from sklearn_icon._estimators import memory
from sklearn_icon._objective.objective import Objective
from sklearn_icon._training.new_rows import FittedRows

ALL = [ICONEmbedding, ICONClustering, ICONClassifier, ICONCrossModal]


def large(n, d, dtype=np.float64):
    """Rows that take no memory."""
    return np.broadcast_to(np.zeros(1, dtype), (n, d))


@pytest.mark.parametrize("cls", ALL)
def test_predictions_grow_with_rows_columns_and_precision(cls):
    model = cls()
    base = model.estimate_memory(large(20_000, 50))
    assert isinstance(base, int) and 0 < base < 2**30
    assert model.estimate_memory(large(70_000, 50)) > base < model.estimate_memory(large(20_000, 2000))
    factor = 1.2 if cls is ICONClassifier else 1  # which computes in double precision, from a copy of single rows
    assert model.estimate_memory(large(20_000, 50, np.float32)) <= factor * base
    thin = sparse.random_array((20_000, 500), density=0.01, format="csr", random_state=0)
    assert model.estimate_memory(thin) < model.estimate_memory(large(20_000, 500))


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_count_as_arrays(cls, dtype):
    rows = torch.zeros((50, 400), dtype=dtype)
    assert cls().estimate_memory(rows) == cls().estimate_memory(rows.numpy())


def test_rows_passed_by_name_count_too():
    with pytest.raises(MemoryError, match="above max_memory"):
        ICONEmbedding(max_memory=1e6).fit(X=np.zeros((500, 9)))


def test_perplexity_counts():
    X = large(20_000, 50)
    assert ICONEmbedding(perplexity=60).estimate_memory(X) > 1.3 * ICONEmbedding(perplexity=20).estimate_memory(X)
    assert ICONEmbedding(supervisory="knn").estimate_memory(X) < ICONEmbedding().estimate_memory(X)


@pytest.mark.parametrize("cls", ALL)
def test_too_little_is_said_before_anything_is_computed(cls, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: (2**20, "a limit"))
    monkeypatch.setattr(cls, "_begin", None)
    model, X = cls(), large(200_000, 200)
    own = dict(vars(model))
    named = rf"{cls.__name__} needs about [\d.]+ .B for this fit, but 1 MB are free \(a limit\); {cls._less_memory}, or"
    with pytest.raises(MemoryError, match=named):
        model.fit(X, X)
    assert vars(model) == own


@pytest.mark.parametrize("cls", ALL)
def test_more_than_max_memory_is_refused_before_anything_is_computed(cls, monkeypatch):
    X = np.zeros((5000, 9))
    model = cls()
    needed, too_little = model.estimate_memory(X), 1
    while needed - too_little > 1:  # what is enough, and one byte less: bounded fits may leave arrays to files
        middle = (needed + too_little) // 2
        fits = model.set_params(max_memory=middle).estimate_memory(X) <= middle
        needed, too_little = (middle, too_little) if fits else (needed, middle)
    model.set_params(max_memory=too_little)
    monkeypatch.setattr(cls, "_begin", None)
    own = dict(vars(model))
    named = (
        rf"{cls.__name__} needs about \d+ MB for this fit, above max_memory, \d+ MB; raise it, {cls._less_memory}, or"
    )
    with pytest.raises(MemoryError, match=named):
        model.fit(X, X)
    assert vars(model) == own
    with pytest.raises(TypeError):  # what stands for _begin is called
        model.set_params(max_memory=float(needed)).fit(X, X)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("value", [0, -1e9, "2 GB", np.nan])
def test_max_memory_is_a_number_of_bytes(cls, value):
    with pytest.raises(ValueError, match="The 'max_memory' parameter of"):
        cls(max_memory=value).fit(np.eye(6), np.eye(6))


@pytest.mark.parametrize("columns", [10, 784, 2000])
@pytest.mark.parametrize("rows", [300, 20_000, 100_000, 2_600_000])
def test_a_fit_that_is_allowed_is_allowed_with_more(rows, columns):
    of_libraries = {memory.of_neighbors: memory._TORCH + memory._COMPILER, memory.of_k_means: memory._TORCH}
    for fixed, loaded, of_fit in product((False, True), (False, True), of_libraries):
        size, before = memory.Size(rows, columns, 4 * columns, fixed=fixed), 0 if loaded else of_libraries[of_fit]
        fits = np.array([before + of_fit(size, 20, most) <= most for most in np.geomspace(1e7, 1e12, 4000)])
        assert fits[-1]
        assert fits[fits.argmax() :].all(), (fixed, loaded, of_fit)


def test_bounded_pieces_change_no_result():
    X = np.random.RandomState(1).randn(300, 4)
    for model in (ICONEmbedding(perplexity=20, max_iter=3, random_state=0, method="exact", learned="gaussian"),):
        usual = clone(model).set_params(normalization="conditional").fit(X)
        bounded = clone(model).set_params(normalization="conditional", max_memory=1e9).fit(X)
        assert_array_equal(usual.embedding_, bounded.embedding_)  # nothing is above it
    p = supervisory.Gaussian(perplexity=20).conditional(X).mix(0.3)
    z = torch.tensor(np.random.RandomState(2).randn(300, 2))
    of_one = Objective(p, learned.StudentT(), normalization="conditional")(z)
    with pieces.within(1.0):
        assert pieces.at_once(1 << 20) == 1 << 16
        in_parts = Objective(p, learned.StudentT(), normalization="conditional")
        assert not in_parts._is_dense
        assert float(in_parts(z)) == pytest.approx(float(of_one), rel=1e-12)
    assert pieces.at_once(1 << 20) == 1 << 20


def test_pieces_are_as_usual_unless_they_do_not_fit(monkeypatch):
    asked = []

    def free(n_bytes):
        return lambda: asked.append(n_bytes) or (n_bytes, "a limit")

    with pieces.within(None):
        monkeypatch.setattr(pieces, "free", free(1 << 28))
        assert pieces.at_once(1 << 18) == 1 << 18 and not asked
        assert [pieces.at_once(1 << n) for n in (20, 22, 23)] == [1 << 20, 1 << 22, 1 << 21]
        monkeypatch.setattr(pieces, "free", free(1 << 10))
        assert pieces.at_once(1 << 23) == 1 << 21  # as was free when the fit began
        with pieces.within(None):
            assert pieces.at_once(1 << 23) == 1 << 16
        assert pieces.at_once(1 << 23) == 1 << 21 and asked == [1 << 28, 1 << 10]


def test_a_fit_that_little_is_free_for(monkeypatch):
    X = np.random.RandomState(1).randn(300, 4)
    model = ICONEmbedding(perplexity=20, max_iter=3, random_state=0, learned="gaussian", normalization="conditional")
    usual = clone(model).fit(X)
    monkeypatch.setattr(pieces, "free", lambda: (1 << 20, "a limit"))
    assert_allclose(clone(model).fit(X).embedding_, usual.embedding_, rtol=1e-3, atol=1e-5)


X, y = load_iris(return_X_y=True)
TRAINED = {
    "map": (ICONEmbedding(perplexity=10, max_iter=40, random_state=0), X),
    "encoded map": (ICONEmbedding(encoder="mlp", perplexity=10, max_iter=2, random_state=0), X),
    "clusters": (ICONClustering(3, encoder="mlp", max_iter=2, random_state=0), X),
    "classifier": (ICONClassifier(encoder="mlp", max_iter=2, random_state=0), X, y),
    "pairs": (ICONCrossModal(2, encoder="mlp", max_iter=2, random_state=0), X, X[:, :2]),
}


@pytest.mark.parametrize("route", TRAINED)
def test_a_step_that_finds_no_memory_is_computed_in_smaller_pieces(route, monkeypatch):
    model, *data = TRAINED[route]
    usual, grad, failed = clone(model).fit(*data), torch.autograd.grad, []

    def little(*args, **kwargs):
        if pieces.at_once(1 << 20) > 1 << 18:
            failed.append(True)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", little)
    if route == "map":
        gradient = Objective.gradient

        def first(self, *args, **kwargs):
            if not failed:
                failed.append(True)
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return gradient(self, *args, **kwargs)

        monkeypatch.setattr(torch.autograd, "grad", grad)
        monkeypatch.setattr(Objective, "gradient", first)
    fitted = clone(model).fit(*data)
    assert len(failed) == (1 if route == "map" else 2)
    drawn_anew = route == "clusters"
    assert_allclose(fitted.loss_curve_, usual.loss_curve_, rtol=0.1 if drawn_anew else 1e-5)
    assert pieces.at_once(1 << 20) == 1 << 20


def test_memory_that_never_suffices_ends_the_fit(monkeypatch):
    def never(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.autograd, "grad", never)
    with pytest.raises(MemoryError, match="ICONClassifier: CUDA out of memory"):
        ICONClassifier(encoder="mlp", max_iter=2, random_state=0, device="cpu").fit(X, y)


ON_DISK = """
import sys, threading
import numpy as np
from sklearn_icon import ICONClassifier

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024

X = np.memmap(sys.argv[1], dtype=np.float64, mode="r", shape=(30_000, 400))
y = (np.arange(len(X)) % 3).astype(np.int32)
model = ICONClassifier(encoder="mlp", max_iter=1, random_state=0)
model.fit(X[:900], y[:900]).set_params(max_memory=75e6)
peak, over, before = [0], threading.Event(), anonymous()

def watch():
    while not over.wait(0.001):
        peak[0] = max(peak[0], anonymous() - before)

watcher = threading.Thread(target=watch)
watcher.start()
model.fit(X, y)
over.set()
watcher.join()
print(peak[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is of Linux")
def test_rows_on_disk_stay_there(tmp_path):
    path = tmp_path / "rows"
    rows = np.memmap(path, dtype=np.float64, mode="w+", shape=(30_000, 400))
    for part in range(0, 30_000, 5000):
        rows[part : part + 5000] = np.random.default_rng(part).standard_normal((5000, 400))
    rows.flush()
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ON_DISK, path], capture_output=True, text=True)
    assert 1e6 < int(done.stdout) < 75e6 < rows.nbytes, done.stderr


@pytest.mark.parametrize("version", [1, 2])
def test_control_groups(version, tmp_path, monkeypatch):
    groups = tmp_path / "cgroup"
    groups.write_text("4:cpu,memory:/a/b\n3:cpu:/\n" if version == 1 else "0::/a/b\n")
    root = tmp_path / ("memory" if version == 1 else "")
    limit, used = ("limit_in_bytes", "usage_in_bytes") if version == 1 else ("max", "current")
    for folder, most, now in (("", "max" if version == 2 else 1 << 62, 9), ("a", 5000, 4000), ("a/b", 9000, 100)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"memory.{limit}").write_text(f"{most}\n")
        (root / folder / f"memory.{used}").write_text(f"{now}\n")
        (root / folder / "memory.stat").write_text("anon 7\ninactive_file 300\n")
    plain = free_memory.Path

    def here(path):
        return plain(str(path).replace("/proc/self/cgroup", str(groups)).replace("/sys/fs/cgroup", str(tmp_path)))

    monkeypatch.setattr(free_memory, "Path", here)
    assert list(free_memory._of_groups()) == [
        (1300, "the limit of the control group"),
        (9200, "the limit of the control group"),
    ]


IN_A_GROUP = """
import os, sys
import numpy as np
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
from sklearn_icon import ICONEmbedding
X = np.random.default_rng(0).standard_normal((200, 40))
model = ICONEmbedding(max_iter=2).fit(X)
print(model.embedding_.shape)
try:
    model.fit(np.broadcast_to(X[:1], (10_000_000, 40)))
except MemoryError as error:
    print(error)
"""


def test_a_control_group_of_ones_own():
    version_1 = Path("/sys/fs/cgroup/memory")
    root, limit = (version_1, "limit_in_bytes") if version_1.is_dir() else (version_1.parent, "max")
    group = root / f"sklearn_icon_{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group can be made here")
    try:
        try:
            (group / f"memory.{limit}").write_text("3000000000")
        except OSError:
            pytest.skip("no control group can be bounded here")
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", IN_A_GROUP, group], capture_output=True, text=True)
    finally:
        group.rmdir()
    assert "(200, 2)" in done.stdout, done.stderr
    assert "are free (the limit of the control group); " in done.stdout, done.stdout


LIMITED = """
import resource, sys
import numpy as np
import sklearn_icon
model = getattr(sklearn_icon, sys.argv[1])()
X = np.random.default_rng(0).standard_normal((6_000, 700))
y = X[:, :9] if sys.argv[1] == "ICONCrossModal" else np.arange(len(X)) % 3
model.fit(X[:900], y[:900])
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 3_000_000,) * 2)
try:
    model.fit(X, y)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is of Linux")
@pytest.mark.parametrize("cls", [*ALL[:-1], pytest.param(ALL[-1], marks=pytest.mark.slow)])
def test_a_limit_of_address_space(cls):
    done = subprocess.run([sys.executable, "-c", LIMITED, cls.__name__], capture_output=True, text=True)
    assert "are free (the limit of address space, RLIMIT_AS); " in done.stdout, done.stderr


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
    ids=["torch", "threads", "system", "libraries"],
)
def test_errors_of_libraries_are_memory_errors(error, monkeypatch):
    def failing(self):
        raise error

    monkeypatch.setattr(ICONClassifier, "_begin", failing)
    with pytest.raises(MemoryError, match=r"ICONClassifier needs about .* are free") as told:
        ICONClassifier().fit(np.eye(4), [0, 1, 0, 1])
    assert told.value.__cause__ is error


@pytest.mark.parametrize("fixed", [False, True])
def test_only_rows_that_nobody_can_write_to_are_kept_without_a_copy(fixed):
    rows, p_spec = np.random.RandomState(0).standard_normal((300, 8)), supervisory.UniformKNN(5)
    p = p_spec.conditional(rows)
    rows.flags.writeable = not fixed
    with pieces.within(4.0 * rows.nbytes):
        kept = FittedRows(rows, "features", p, p_spec, None)
    assert np.shares_memory(kept.X, rows) == fixed
    assert not np.shares_memory(FittedRows(rows, "features", p, p_spec, None).X, rows)
    assert [memory.Size.of(each).fixed for each in (rows, rows.tolist(), rows[:, 0])] == [fixed, False, fixed]
