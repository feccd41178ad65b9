"""Parameters of specs that are not there yet, and tensors that no array holds."""

import re

import numpy as np
import pytest
import torch

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned, supervisory

X = np.random.RandomState(2).randn(40, 4)
Y = np.arange(40) % 2


@pytest.mark.parametrize(
    ("model", "params", "told"),
    [
        (ICONEmbedding(), {"learned__df": 2.0}, r"learned=None has no parameters.*learned=learned\.StudentT\(\)"),
        (ICONEmbedding(learned="gaussian"), {"learned__sigma": 2.0}, r"learned='gaussian'.*learned\.Gaussian\(\)"),
        (ICONEmbedding(), {"supervisory__perplexity": 5.0}, r"supervisory=supervisory\.Gaussian\(\)"),
        (ICONClassifier(encoder="mlp"), {"encoder__hidden": (4,)}, r"encoder=encoders\.MLP\(\)"),
        (ICONClustering(3), {"supervisory__n_steps": 3}, "supervisory=None has no parameters"),
        (ICONCrossModal(), {"learned__tau": 0.1}, "learned=None has no parameters"),
        (ICONClustering(3), {"supervisory__n_steps": 3}, r"supervisory=supervisory\.RandomWalk\(\.\.\.\)"),
        (ICONCrossModal(), {"encoder_y__hidden": (3,)}, r"encoder_y=None has no.*encoder_y=encoders\.MLP\(\)"),
        (ICONEmbedding(), {"learned__nonsense": 1}, "none of the specs with a short name has nonsense"),
        (ICONClassifier(), {"tol__x": 1}, r"tol=\S+ has no parameters\.$"),
        (ICONClassifier(), {"nonsense__x": 1}, "Invalid parameter 'nonsense'"),
    ],
)
def test_what_is_missing_is_named(model, params, told):
    before = model.get_params()
    with pytest.raises(ValueError, match=told):
        model.set_params(**params)
    assert model.get_params() == before


@pytest.mark.parametrize("cls", [ICONEmbedding, ICONClustering, ICONClassifier, ICONCrossModal])
@pytest.mark.parametrize(
    ("name", "value"),
    [("learned__df", 2.0), ("learned__tau", 0.3), ("supervisory__n_neighbors", 7), ("encoder__hidden", (3,))],
)
def test_what_is_told_to_pass_helps(cls, name, value):
    model, choice = cls(), name.partition("__")[0]
    with pytest.raises(ValueError, match=r"pass a spec first, such as") as error:
        model.set_params(**{name: value})
    code = re.search(r"such as \w+=(.*)\.$", str(error.value))[1]
    model.set_params(**{choice: eval(code, {"learned": learned, "supervisory": supervisory, "encoders": encoders})})
    assert model.set_params(**{name: value}).get_params()[name] == value


def test_a_wrapper_tells_what_to_pass_too():
    model = ICONEmbedding(supervisory=supervisory.RandomWalk("knn", 2))
    with pytest.raises(
        ValueError, match="base__n_neighbors cannot be set, as base='knn' has no parameters; pass a spec"
    ):
        model.set_params(supervisory__base__n_neighbors=7)


def test_specs_that_are_there_take_parameters():
    model = ICONEmbedding().set_params(learned=learned.StudentT(), learned__df=2.0)
    assert model.learned.df == 2.0
    model.set_params(supervisory=supervisory.RandomWalk(supervisory.UniformKNN(), 2), supervisory__base__n_neighbors=7)
    assert model.supervisory.base.n_neighbors == 7
    assert ICONClassifier(encoder=encoders.MLP()).set_params(encoder__hidden=(3,)).encoder.hidden == (3,)


@pytest.mark.parametrize("model", [ICONEmbedding(max_iter=20, perplexity=5), ICONClustering(2), ICONClassifier()])
@pytest.mark.parametrize("changed", ["X", "sample_weight", "later"])
def test_tensors_with_a_history(model, changed):
    rows = torch.tensor(X)
    weights = {"sample_weight": torch.ones(40, requires_grad=True)} if changed == "sample_weight" else {}
    if isinstance(model, ICONEmbedding) and weights:
        pytest.skip("maps take no weights")
    if changed == "later":
        model.fit(rows, Y)
        with pytest.raises(ValueError, match=r"X\.detach\(\)"):
            model.transform(rows.requires_grad_())
        return
    with pytest.raises(ValueError, match=rf"{changed}\.detach\(\)"):
        model.fit(rows.requires_grad_(changed == "X"), Y, **weights)


def test_tensors_of_the_other_modality():
    pairs = torch.tensor(X)
    for y in (pairs.clone().requires_grad_(), pairs[:, 0].clone().requires_grad_()):
        with pytest.raises(ValueError, match=r"y\.detach\(\)"):
            ICONCrossModal(2).fit(pairs, y)


def test_half_precision_without_a_numpy_type():
    for dtype, refused in ((torch.bfloat16, True), (torch.float16, False)):
        rows = torch.tensor(X).to(dtype)
        if refused:
            with pytest.raises(ValueError, match=r"bfloat16.*X\.float\(\)"):
                ICONClassifier().fit(rows, Y)
        else:
            assert ICONClassifier().fit(rows, Y).predict(rows).shape == (40,)
