"""Compiled loops where nothing may be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pynndescent
import pytest

PACKAGE = Path(__file__).parents[2] / "sklearn_icon"
CODE = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("always", "compiled loops cannot be kept")
with warnings.catch_warnings(record=True) as told:
    import numba, numpy as np
    before = numba.config.CACHE_DIR
    from sklearn_icon._optim.loops import momentum_step
    z = np.ones((4, 2))
    momentum_step(z, z * 0.5, z * 0, z * 1, 0.1, 0.5, 9.0)
    assert np.allclose(z, 1 - 0.1 * 0.5 * 0.8), z
    import importlib, os, pkgutil, sklearn_icon
    if "NUMBA_CACHE_DIR" not in os.environ:  # half a minute, as another library's functions are compiled at its import
        from sklearn_icon._graph.proposals import _descent_class
        from sklearn_icon._core.compiled import with_cache
        assert with_cache(_descent_class).__name__ == "NNDescent"
    for module in pkgutil.walk_packages(sklearn_icon.__path__, "sklearn_icon."):
        if not module.name.endswith(("triton_loops", "__main__")):
            importlib.import_module(module.name)
    assert numba.config.CACHE_DIR == before
print(len(told), "NUMBA_CACHE_DIR" in str(told[0].message) if told else None)
"""


@pytest.fixture
def sealed(tmp_path):
    """Copies of the packages, and an environment, in which no cache can be written, not by root either."""
    for source in (PACKAGE, Path(pynndescent.__file__).parent):
        copy = shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
            (folder / "__pycache__").touch()
    nowhere = str(tmp_path / "sklearn_icon" / "__pycache__" / "cache")
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    changed = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    return environment | changed | {"TMPDIR": str(tmp_path)}


@pytest.mark.slow
def test_without_a_folder_there_is_one_of_the_process(sealed, tmp_path):
    assert run(sealed) == "1 True"
    assert not list(tmp_path.glob("sklearn_icon-*"))  # gone with the process


@pytest.mark.slow
def test_a_folder_that_the_user_names_is_used(sealed, tmp_path):
    assert run(sealed | {"NUMBA_CACHE_DIR": str(tmp_path / "named")}) == "0 None"
    assert list((tmp_path / "named").rglob("*.nbi"))


def run(environment):
    """What the code prints in a process of its own, in a folder of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, cwd=environment["TMPDIR"], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


BITS = """
import hashlib
import numpy as np
from sklearn_icon import ICONEmbedding
X = np.random.RandomState(0).standard_normal((600, 6))
for settings in ({"method": "sampled"}, {"n_components": 3, "method": "barnes_hut"}, {"method": "interpolation"}, {}):
    m = ICONEmbedding(max_iter=30, random_state=0, **settings).fit(X)
    print(hashlib.sha256(m.embedding_.tobytes() + m.transform(X[:5] + 0.1).tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_loops_that_are_compiled_now_have_the_bits_of_those_kept_on_disk(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-W", "ignore", "-c", BITS]
    first, second = (
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout for _ in range(2)
    )
    assert first.count("\n") == 4
    assert first == second
