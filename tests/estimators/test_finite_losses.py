"""A loss or gradient that is not finite, injected into all routes: once, and again and again."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from test_checkpoints import ROUTES, data, numbers

from sklearn_icon import ICONClassifier
from sklearn_icon._core import journal
from sklearn_icon._estimators import checkpoints, saving
from sklearn_icon._optim import solver
from sklearn_icon._training import softmax

BY_STEPS = [name for name in ROUTES if name not in ("clusters", "k-means", "softmax")]  # which have no steps of these


def inject(monkeypatch, what, again):
    """Let the evaluation behind the second step fail, or all from there; returns the tensors as they were before."""
    checked, before = solver._Progress.checked, []

    def failing(self, loss, grads):
        first = self.n_iter == 2 and not self.failed
        if (first and not before) or (again and self.failed):
            if first:
                before.extend(tensor.clone() for tensor in self.finite)
            if what == "gradient":
                grads = [torch.full_like(grad, torch.inf) for grad in grads]
            return checked(self, np.nan if what == "loss" else loss, grads)
        return checked(self, loss, grads)

    monkeypatch.setattr(solver._Progress, "checked", failing)
    return before


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("name", BY_STEPS)
def test_once_is_gone_on_from_at_half_the_rate(name, what, monkeypatch):
    (X, y), model = data(name), clone(ROUTES[name]).set_params(random_state=0)
    inject(monkeypatch, what, again=False)
    with pytest.warns(RuntimeWarning, match=f"the {what} was not finite .* training went on from the last finite"):
        model.fit(X, y)
    assert np.isfinite(model.transform(X)).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", BY_STEPS)
def test_again_is_an_error_with_iteration_cause_and_remedy(name, monkeypatch):
    (X, y), model = data(name), clone(ROUTES[name]).set_params(random_state=0)
    own, restored = set(vars(model)), []
    before, restore = inject(monkeypatch, "loss", again=True), solver._Progress.restore

    def seen(self, values):
        restore(self, values)
        restored.append([tensor.detach().clone() for tensor in self.changing])

    monkeypatch.setattr(solver._Progress, "restore", seen)
    with pytest.raises(ValueError, match=r"the loss was not finite but nan .*iteration 2, and .*; .*scale X\.") as told:
        model.fit(X, y)
    assert str(told.value).startswith(type(model).__name__)
    assert set(vars(model)) == own
    for tensor, expected in zip(restored[0], before, strict=True):
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("name", ["linear map", "network"])
def test_what_went_on_at_half_the_rate_goes_on_from_a_checkpoint_too(name, tmp_path, monkeypatch):
    (X, y), path = data(name), tmp_path / "fit.icon"
    for each in ("STEPS_EVERY", "STAGES_EVERY", "_OF_WRITES"):
        monkeypatch.setattr(journal, each, 0)
    model = clone(ROUTES[name]).set_params(random_state=0)

    def fitted(checkpoint):
        with monkeypatch.context() as patch:
            inject(patch, "loss", again=False)
            return numbers(vars(clone(model).set_params(checkpoint=checkpoint).fit(X, y)))

    with pytest.warns(RuntimeWarning, match="training went on from the last finite"):
        usual = fitted(None)
    plain, writes = saving.write, []

    def write(file, parts):
        plain(file, parts)
        writes.append(file)
        if len(writes) == 7:
            raise KeyError("the process ends")

    monkeypatch.setattr(checkpoints, "write", write)
    with pytest.raises(KeyError):
        fitted(path)
    with pytest.warns(RuntimeWarning, match="training went on from the last finite"):
        assert fitted(path) == usual


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_newtons_method(penalty, monkeypatch):
    (X, y), value, calls = data("softmax"), softmax.Softmax.value, []
    model, usual = ICONClassifier(penalty=penalty), ICONClassifier(penalty=penalty).fit(X, y)

    def once(self, V, logits=None):
        calls.append(None)
        found = value(self, V, logits)
        return (np.nan, found[1]) if len(calls) == 3 else found

    monkeypatch.setattr(softmax.Softmax, "value", once)
    np.testing.assert_allclose(model.fit(X, y).coef_, usual.coef_, atol=1e-5)  # by half a step
    monkeypatch.setattr(softmax.Softmax, "value", lambda self, V, logits=None: (np.nan, value(self, V, logits)[1]))
    with pytest.raises(ValueError, match=r"ICONClassifier: the loss was not finite but nan at iteration 0; scale X\."):
        ICONClassifier(penalty=penalty).fit(X, y)


def test_a_hessian_of_newtons_method(monkeypatch):
    (X, y), hessian = data("softmax"), softmax.Softmax.hessian
    monkeypatch.setattr(softmax.Softmax, "hessian", lambda self, q: np.nan * hessian(self, q))
    with pytest.raises(ValueError, match=r"ICONClassifier: the Hessian was not finite; scale X\."):
        ICONClassifier().fit(X, y)
