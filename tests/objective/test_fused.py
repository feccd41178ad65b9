import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_iris

from sklearn_icon import ICONEmbedding, learned
from sklearn_icon._estimators import embedding as _embedding
from sklearn_icon._objective import fused as _fused
from sklearn_icon._objective.fused import can_fuse

OLDEST = "3.7"  # whose interpreter knows numpy 2.4


@pytest.mark.slow
def test_loops_in_the_interpreter():
    """Every test of `interpreted_loops.py`."""
    pytest.importorskip("triton", minversion=OLDEST)
    tests = Path(__file__).parents[1] / "interpreted_loops.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("loop", ["joint", "row_log_sums", "row_pushes"])
@pytest.mark.parametrize(
    ("dtype", "kind", "d", "rows"), [("fp32", "cauchy", 2, 16), ("fp32", "student-t", 4, 8), ("fp64", "gaussian", 8, 2)]
)
def test_loops_compile(monkeypatch, tmp_path, loop, dtype, kind, d, rows):
    """For a GPU that need not be there."""
    pytest.importorskip("triton", minversion=OLDEST)
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sklearn_icon._objective import triton_loops as _triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"D": d, "KIND": kind, "ROWS": rows, "KEYS": 128}
    function = getattr(_triton, loop)
    types = {"n": "i32", "span": "i32"} | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, f"*{dtype}") for name in function.arg_names}
    source = ASTSource(function, signature=signature, constexprs=constants)
    compiled = compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": True})
    assert f".entry {loop}" in compiled.asm["ptx"] and len(compiled.asm["cubin"])


@pytest.mark.parametrize(
    ("loop", "constants"),
    [
        ("edges", {"D": 2, "KIND": "student-t", "EDGES": 64}),
        ("spread", {"POINTS": 128}),
        ("read", {"POINTS": 128}),
    ],
)
def test_loops_over_edges_and_points_compile(monkeypatch, tmp_path, loop, constants):
    pytest.importorskip("triton", minversion=OLDEST)
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sklearn_icon._objective import triton_loops as _triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(_triton, loop)
    types = {"n": "i32", "nodes": "i32", "indptr": "*i32", "indices": "*i32"} | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "*fp32") for name in function.arg_names}
    source = ASTSource(function, signature=signature, constexprs=constants)
    compiled = compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": True})
    assert f".entry {loop}" in compiled.asm["ptx"] and len(compiled.asm["cubin"])


class OnCuda(torch.Tensor):
    is_cuda = True


@pytest.fixture
def z():
    return torch.zeros(3, 2).as_subclass(OnCuda)


@pytest.mark.parametrize("runs", [True, False])
def test_what_is_fused(monkeypatch, z, runs):
    monkeypatch.setattr(_fused, "_triton_runs", lambda device: runs)
    assert can_fuse(learned.StudentT(df=3.0), z) == can_fuse(learned.Gaussian(), z.double()) == runs
    assert not can_fuse(learned.Gaussian(), torch.zeros(3, 2))
    assert not can_fuse(learned.Gaussian(), torch.zeros(3, 9).as_subclass(OnCuda))
    assert not can_fuse(learned.Gaussian(), z.half())
    for other in (learned.Gaussian(metric="cosine"), learned.Harmonic(), learned.UniformMixture("gaussian", 0.1)):
        assert not can_fuse(other, z)


def test_whether_triton_runs(monkeypatch):
    """Without triton in silence; where it fails, with a warning that says why."""
    triton_runs = _fused._triton_runs.__wrapped__
    monkeypatch.setattr(_fused, "find_spec", lambda name: None)
    assert not triton_runs(torch.device("cpu"))
    monkeypatch.setattr(_fused, "find_spec", lambda name: name == "triton")
    monkeypatch.setattr(_fused, "joint_sums", lambda slope_terms, z: (torch.tensor(2.0), z))
    assert triton_runs(torch.device("cpu"))

    def no_compiler(slope_terms, z):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(_fused, "joint_sums", no_compiler)
    with pytest.warns(RuntimeWarning, match="triton does not run on cpu.*slower tiles.*Failed to find C compiler"):
        assert not triton_runs(torch.device("cpu"))


@pytest.mark.parametrize(("n_components", "otherwise"), [(2, "interpolation"), (3, "barnes_hut"), (4, "sampled")])
def test_auto_is_exact_up_to_more_rows_where_loops_are_compiled(monkeypatch, n_components, otherwise):
    asked = []

    def fuses(kernel, z):
        asked.append((kernel, z.shape[1], z.device))
        return True

    monkeypatch.setattr(_embedding, "_EXACT_LIMIT", 50)
    monkeypatch.setattr(_embedding, "_SUMMED_LIMIT", 50)
    estimator = ICONEmbedding(n_components, perplexity=5.0, max_iter=3, device="cpu", random_state=0)
    X = load_iris().data
    assert estimator.fit(X).method_ == otherwise
    monkeypatch.setattr(_fused, "can_fuse", fuses)
    assert estimator.fit(X).method_ == "exact"
    ((kernel, *map_of),) = asked
    assert kernel is estimator.learned_ and map_of == [n_components, torch.device("cpu")]
    monkeypatch.setattr(_embedding, "_FUSED_LIMIT" if n_components == 2 else "_FUSED_ALONE_LIMIT", 149)
    assert estimator.fit(X).method_ == otherwise and len(asked) == 1
