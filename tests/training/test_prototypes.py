"""Where a classifier's prototypes start, and that the start is not what decides."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sklearn_icon import ICONClassifier, learned
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._objective.loss import Loss
from sklearn_icon._optim.train import Run
from sklearn_icon._training.given import Labelled
from sklearn_icon._training.prototypes import first_prototypes

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = DIGITS / 16
RUN = Run(torch.float64, torch.device("cpu"))


def labelled(n_classes):
    codes = np.arange(12) % n_classes
    rows = np.random.RandomState(0).normal(size=(12, n_classes))
    p = Conditional(sparse.csr_array((np.ones(12), codes, np.arange(13)), shape=(12, n_classes)))
    return Labelled(p, rows, np.random.RandomState(1).uniform(size=12)), codes


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize(
    "q",
    [
        learned.StudentT(),
        learned.StudentT(df=30.0),
        learned.Gaussian(),
        learned.Gaussian(sigma=0.01),
        learned.Harmonic(),
        learned.Gaussian(metric="cosine", tau=0.1),
    ],
)
def test_a_row_on_its_prototype_is_nearly_sure(q, n_classes):
    keys = first_prototypes(labelled(n_classes)[0], None, Loss(q), RUN)
    proba = q.pairwise(*q.prepare(keys, keys)).softmax(1).diagonal()
    assert (proba >= 0.9).all()
    assert q.scale_free or (proba < 1 - 1e-9).all()  # and there is still a slope


def test_under_a_bounded_divergence_they_start_at_the_classes_means():
    rows, codes = labelled(3)
    identity = torch.nn.Linear(3, 3, dtype=torch.float64)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(3))
        identity.bias.zero_()
    keys = first_prototypes(rows, identity, Loss(learned.StudentT(), "total_variation"), RUN)
    expected = [np.average(rows.X[codes == c], axis=0, weights=rows.weight[codes == c]) for c in range(3)]
    np.testing.assert_allclose(keys.numpy(), expected)


@pytest.mark.parametrize("name", ["student_t", "harmonic"])
@pytest.mark.parametrize("encoder, accuracy, loss", [("linear", 0.94, 0.2), ("mlp", 0.965, 0.12)])
def test_prototypes_of_the_digits_are_reached(name, encoder, accuracy, loss):
    split = train_test_split(DIGITS.astype(np.float32), LABELS, stratify=LABELS, random_state=0)
    classifier = ICONClassifier(learned=name, encoder=encoder, max_iter=1000 if encoder == "linear" else 50)
    classifier.set_params(random_state=0).fit(split[0], split[2])
    assert classifier.score(split[1], split[3]) > accuracy
    assert log_loss(split[3], classifier.predict_proba(split[1])) < loss


def test_names_are_those_of_prototypes_or_of_rows():
    rows, labels = DIGITS[:100], LABELS[:100]
    names = {"student_t": learned.StudentT(df=10.0), "harmonic": learned.Harmonic(n=4.0)}
    for name, spec in names.items():
        fitted = ICONClassifier(learned=name, encoder="mlp", max_iter=1, random_state=0).fit(rows, labels)
        assert repr(fitted.learned_) == repr(spec)
    contrast = ICONClassifier(supervisory="same_class", learned="student_t", encoder="mlp", max_iter=1, random_state=0)
    assert contrast.fit(rows, labels).learned_.df == 1.0


def test_harmonic_weights_stay_finite_where_cross_entropy_lets_them_grow():
    """Rows that a line parts: without a penalty logits grow for ever, distances need not."""
    rows, labels = DIGITS[:60].astype(np.float64), LABELS[:60]
    norms = {}
    for name in ("dot", "harmonic"):
        for passes in (50, 400):
            classifier = ICONClassifier(learned=name, encoder="mlp", C=1e12, tol=0, random_state=0, max_iter=passes)
            state = classifier.fit(rows, labels)._state
            norms[name, passes] = sum(np.square(v).sum() for key, v in state.items() if key.endswith("weight"))
    assert norms["harmonic", 400] / norms["harmonic", 50] < norms["dot", 400] / norms["dot", 50]
