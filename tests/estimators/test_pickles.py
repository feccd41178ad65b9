"""Fitted estimators outlive the layout of the package."""

import gzip
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

import sklearn_icon
from sklearn_icon import encoders, learned, supervisory

X = load_iris().data[::5].astype(np.float32)
FILE = Path(__file__).parents[1] / "data" / "estimators_0_1_0.pkl.gz"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.filterwarnings("ignore:this .* was pickled by version 0.1.0 of sklearn_icon")
def test_pickles_of_0_1_0_load():
    models, expected = pickle.loads(gzip.decompress(FILE.read_bytes()))
    assert len(models) == 7
    for name, model in models.items():
        answer = model.predict_proba if hasattr(model, "predict_proba") else model.transform
        np.testing.assert_allclose(answer(X), expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("module", [sklearn_icon, supervisory, learned, encoders], ids=lambda module: module.__name__)
def test_public_classes_say_where_users_find_them(module):
    classes = [getattr(module, name) for name in module.__all__ if isinstance(getattr(module, name), type)]
    assert classes
    for cls in classes:
        assert cls.__module__ == module.__name__
        assert pickle.loads(pickle.dumps(cls)) is cls


def test_fitted_estimators_name_public_classes_alone():
    names = []

    class Finder(pickle.Unpickler):
        def find_class(self, module, name):
            names.append(f"{module}.{name}")
            return super().find_class(module, name)

    for model in (sklearn_icon.ICONEmbedding(max_iter=5, perplexity=5), sklearn_icon.ICONClustering(2)):
        back = Finder(io.BytesIO(pickle.dumps(model.fit(X)))).load()
        np.testing.assert_array_equal(back.transform(X), model.transform(X))
    ours = {name for name in names if name.startswith("sklearn_icon")}
    assert "sklearn_icon.FittedRows" in ours
    assert not [name for name in ours if "._" in name]
