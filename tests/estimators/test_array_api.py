"""Torch tensors in and out, where scikit-learn dispatches by the array API; NumPy as ever where it does not."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding

CHECK = """
import numpy as np, sys, torch
import sklearn
try:
    sklearn.set_config(array_api_dispatch=True)
except ImportError as error:
    print("SKIP", error)
    sys.exit()
from sklearn.base import clone
from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding

rng = np.random.RandomState(4)
rows = rng.standard_normal((60, 5)) + 5 * (np.arange(60) % 3)[:, None]
labels = np.arange(60) % 3
QUICK = {"max_iter": 20, "random_state": 0}
cases = [
    (ICONEmbedding(perplexity=5, **QUICK), False, ["transform", "fit_transform"]),
    (ICONEmbedding(encoder="linear", perplexity=5, **QUICK), False, ["transform", "fit_transform"]),
    (ICONClustering(3, n_init=1, **QUICK), False, ["transform", "predict", "predict_proba", "fit_predict"]),
    (ICONClassifier(), True, ["predict", "predict_proba", "predict_log_proba", "decision_function"]),
    (ICONCrossModal(2, **QUICK), True, ["transform", "predict", "inverse_transform"]),
]
for dtype in (torch.float32, torch.float64):
    X = torch.asarray(rows, dtype=dtype)
    for estimator, reads_y, methods in cases:
        pairs = isinstance(estimator, ICONCrossModal)
        y = None if not reads_y else X[:, :3] * 2 if pairs else torch.asarray(labels)
        of_torch = clone(estimator).fit(X, y)
        with sklearn.config_context(array_api_dispatch=False):
            plain = clone(estimator).fit(X.numpy(), None if y is None else y.numpy())
        for method in methods:
            given = X[:, :2] if method == "inverse_transform" else X
            theirs = getattr(of_torch, method)(given)
            ours = getattr(plain, method)(given.numpy())
            assert type(ours) is np.ndarray, (estimator, method)
            assert isinstance(theirs, torch.Tensor) and theirs.device == X.device, (estimator, method, type(theirs))
            np.testing.assert_array_equal(theirs.numpy(), ours)
            assert theirs.dtype == torch.asarray(ours).dtype
            if method == "predict" and hasattr(of_torch, "labels_"):
                before = of_torch.labels_.copy()
                theirs += 1
                assert (of_torch.labels_ == before).all()
            assert type(getattr(of_torch, method)(given.numpy())) is np.ndarray
        if reads_y and not pairs:
            assert isinstance(of_torch.score(X, y), float)
        if pairs:
            both = of_torch.transform(X, y)
            assert isinstance(both[0], torch.Tensor) and isinstance(both[1], torch.Tensor)
    words = np.array(["a", "b", "c"])[labels]
    assert ICONClassifier().fit(X, words).predict(X).dtype == words.dtype  # which no tensor holds
    weighted = ICONEmbedding(perplexity=5, **QUICK).fit(X, sample_weight=torch.asarray(1 + labels))
    assert isinstance(weighted.embedding_, np.ndarray)
try:
    ICONEmbedding(**QUICK).fit(X.requires_grad_())
except ValueError as error:
    assert "requires a gradient" in str(error) and "ICONLoss" in str(error)
else:
    raise AssertionError("a tensor that requires a gradient was read")
assert sklearn.get_config()["array_api_dispatch"]
print("DONE")
"""


def test_tensors_in_and_out_under_dispatch():
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHECK],
        env=os.environ | {"SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    if answer.stdout.startswith("SKIP"):
        pytest.skip(answer.stdout.strip())
    assert answer.stdout.endswith("DONE\n")


@pytest.mark.parametrize(
    "estimator, method",
    [
        (ICONEmbedding(max_iter=10, perplexity=5, random_state=0), "transform"),
        (ICONClustering(3, random_state=0), "predict_proba"),
        (ICONClassifier(), "predict"),
        (ICONCrossModal(2, random_state=0), "transform"),
    ],
    ids=["map", "clusters", "classes", "pairs"],
)
def test_tensors_become_numpy_arrays_without_it(estimator, method):
    X = torch.as_tensor(np.random.RandomState(0).standard_normal((40, 4)))
    y = X[:, 0] > 0 if isinstance(estimator, ICONClassifier) else X * 2
    assert type(getattr(estimator.fit(X, y), method)(X)) is np.ndarray
