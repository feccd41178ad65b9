"""What one machine can test of the table of reproducibility: fresh processes, pickles, other thread counts."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from test_checkpoints import ROUTES, data, numbers

import sklearn_icon
from sklearn_icon import ICONClassifier

FOUR = ("map", "clusters", "network that stops early", "pairs")
FRESH = """
import sys
sys.path.insert(0, sys.argv[1])
import hashlib
from sklearn.base import clone
from test_checkpoints import ROUTES, data, numbers
for name in sys.argv[2:]:
    fitted = vars(clone(ROUTES[name]).set_params(random_state=3).fit(*data(name)))
    print(name, hashlib.sha256(repr(numbers(fitted)).encode()).hexdigest())
"""


def fresh(names, hash_seed):
    """Digests of fits in a process of their own."""
    settings = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(sklearn_icon.__file__).parents[1])}
    command = [sys.executable, "-c", FRESH, str(Path(__file__).parent), *names]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def test_fresh_processes_and_earlier_fits():
    assert fresh(FOUR, "1") == fresh(FOUR[::-1], "2")  # in another order, so that other fits went before


@pytest.mark.parametrize("name", FOUR)
def test_pickled_before_the_fit(name):
    model = clone(ROUTES[name]).set_params(random_state=3)
    usual = numbers(vars(clone(model).fit(*data(name))))
    assert numbers(vars(pickle.loads(pickle.dumps(model)).fit(*data(name)))) == usual


def test_other_thread_counts_agree():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2500, 500))  # as many numbers as make work for several threads
    y = X[:, :4].argmax(axis=1)
    one, two = (ICONClassifier(n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2))
    np.testing.assert_allclose(one.coef_, two.coef_, rtol=0, atol=1e-6 * np.abs(one.coef_).max())
