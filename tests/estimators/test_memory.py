"""What fits need, what is free, and the error where the one is more than the other."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding
from sklearn_icon._estimators import memory

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
    assert model.estimate_memory(large(20_000, 50, np.float32)) <= base
    thin = sparse.random_array((20_000, 500), density=0.01, format="csr", random_state=0)
    assert model.estimate_memory(thin) < model.estimate_memory(large(20_000, 500))


def test_perplexity_counts():
    X = large(20_000, 50)
    assert ICONEmbedding(perplexity=60).estimate_memory(X) > 1.3 * ICONEmbedding(perplexity=20).estimate_memory(X)
    assert ICONEmbedding(supervisory="knn").estimate_memory(X) < ICONEmbedding().estimate_memory(X)


@pytest.mark.parametrize("cls", ALL)
def test_too_little_is_said_before_anything_is_computed(cls, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: (2**20, "a limit"))
    monkeypatch.setattr(cls, "_begin", None)
    model, X = cls(), np.zeros((50_000, 9))
    own = dict(vars(model))
    named = rf"{cls.__name__} needs about \d+ MB for this fit, but 1 MB are free \(a limit\); {cls._less_memory}, or"
    with pytest.raises(MemoryError, match=named):
        model.fit(X, X)
    assert vars(model) == own


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
    plain = memory.Path

    def here(path):
        return plain(str(path).replace("/proc/self/cgroup", str(groups)).replace("/sys/fs/cgroup", str(tmp_path)))

    monkeypatch.setattr(memory, "Path", here)
    assert list(memory._of_groups()) == [
        (1300, "the limit of the control group"),
        (9200, "the limit of the control group"),
    ]


LIMITED = """
import resource, sys
import numpy as np
import sklearn_icon
model = getattr(sklearn_icon, sys.argv[1])()
X = np.random.default_rng(0).standard_normal((12_000, 40))
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
@pytest.mark.parametrize("cls", ALL)
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
