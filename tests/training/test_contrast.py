"""Representations that a classifier learns from its classes: what a batch holds, and what it is minimised over."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_icon import ICONClassifier, encoders, learned, supervisory
from sklearn_icon._optim import train as _train
from sklearn_icon._optim.solver import SolverResult
from sklearn_icon._training.contrast import ClassBatches

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = DIGITS / 16


def first(batches, n):
    """The first n batches."""
    draws = iter(batches)
    return [next(draws) for _ in range(n)]


def test_each_row_of_a_batch_has_its_class_and_each_pass_all_rows():
    codes = np.random.RandomState(0).choice(5, p=[0.5, 0.3, 0.1, 0.09, 0.01], size=300)
    batches = ClassBatches(codes, 20, seed=0)
    assert batches.per_pass == 15
    drawn = first(batches, 2 * batches.per_pass)
    for batch in drawn:
        assert len(np.unique(batch)) == len(batch) <= 40
        assert np.bincount(codes[batch])[codes[batch]].min() > 1
    for of_pass in (drawn[:15], drawn[15:]):
        assert set(np.concatenate(of_pass)) == set(range(300))
    again = first(ClassBatches(codes, 20, seed=0), 30)
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_others_are_drawn_evenly():
    codes = np.array([1, 0, 1, 1, 0, 1])
    batches = ClassBatches(codes, 2, seed=0)
    drawn = batches.others(np.full(6000, 2))
    counts = np.bincount(drawn, minlength=6)
    assert counts[[1, 2, 4]].tolist() == [0, 0, 0]
    assert np.abs(counts[[0, 3, 5]] - 2000).max() < 150


def test_rows_alone_in_their_class_are_left_out_of_batches():
    codes = np.array([0] * 10 + [1] * 10 + [2, 3])
    assert set(np.concatenate(first(ClassBatches(codes, 5, seed=0), 8))) == set(range(20))
    assert first(ClassBatches(codes, 11, seed=0), 1)[0].tolist() == list(range(22))


def naive_supcon(z, labels, weights, tau):
    """L_out of supervised contrastive learning over a batch, less log of the numbers of positives, row by row."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        log_z = np.log(sum(np.exp(z[i] @ z[j] / tau) for j in others))
        positives = [j for j in others if labels[j] == labels[i]]
        loss = -np.mean([z[i] @ z[j] / tau - log_z for j in positives]) - np.log(len(positives))
        total += weights[i] * loss
    return total / weights.sum()


def naive_t_supcon(z, labels, weights, _):
    """The same of a Student-t kernel."""
    total = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        kernel = {j: 1 / (1 + np.sum((z[i] - z[j]) ** 2)) for j in others}
        positives = [j for j in others if labels[j] == labels[i]]
        loss = -np.mean([np.log(kernel[j] / sum(kernel.values())) for j in positives]) - np.log(len(positives))
        total += weights[i] * loss
    return total / weights.sum()


@pytest.mark.parametrize(
    "q, naive", [(learned.Gaussian(metric="cosine", tau=0.3), naive_supcon), (learned.StudentT(), naive_t_supcon)]
)
def test_the_loss_is_the_naive_one_of_the_batch(monkeypatch, q, naive):
    """The first loss that the solver sees, of untrained representations."""
    seen = {}

    def spy(objective, params, solver, **_):
        seen["loss"] = float(objective().detach())
        return SolverResult(0.0, 1, np.zeros(1), "converged")

    monkeypatch.setattr(_train, "minimize", spy)
    rows, labels, weights = DIGITS[:40], LABELS[:40], np.random.RandomState(0).uniform(0.5, 2, size=40)
    classifier = ICONClassifier(supervisory="same_class", learned=q, encoder="mlp", random_state=0)
    classifier.fit(rows, labels, sample_weight=weights)
    z = classifier.transform(rows)
    assert seen["loss"] == pytest.approx(naive(z, labels, weights, getattr(q, "tau", None)), rel=1e-10)


@pytest.mark.parametrize("name", ["cosine", "student_t", "narrow_gaussian"])
def test_representations_tell_the_classes_of_new_rows(name):
    classifier = ICONClassifier(supervisory="same_class", learned=name, encoder="mlp", max_iter=10, random_state=0)
    split = train_test_split(DIGITS.astype(np.float32), LABELS, stratify=LABELS, random_state=0)
    assert classifier.fit(split[0], split[2]).score(split[1], split[3]) > 0.94


def test_lengths_that_mean_nothing_are_one():
    rows, labels = DIGITS[:100], LABELS[:100]
    classifier = ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=2, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(classifier.fit(rows, labels).transform(rows), axis=1), 1)
    classifier.set_params(encoder=encoders.ProjectionHead(encoders.MLP()), learned="student_t")
    assert np.linalg.norm(classifier.fit(rows, labels).transform(rows), axis=1).std() > 0.01
    classifier.set_params(encoder="linear", learned="cosine")
    assert np.linalg.norm(classifier.fit(rows, labels).transform(rows), axis=1).std() > 0.01


def test_keys_of_the_past_and_smoothing_change_the_fit():
    base = ICONClassifier(supervisory="same_class", encoder=encoders.MLP(), max_iter=3, random_state=0)
    changed = [
        {"encoder": encoders.MomentumKeys(encoders.MLP())},
        {"debias": 0.3},
        {"supervisory": supervisory.SameClass(n_positives=1)},
        {"divergence": "total_variation"},
    ]
    curves = [clone(base).set_params(**change).fit(DIGITS[:300], LABELS[:300]).transform(DIGITS) for change in changed]
    plain = base.fit(DIGITS[:300], LABELS[:300]).transform(DIGITS)
    assert all(not np.allclose(plain, curve) for curve in curves)


def test_a_class_of_one_row_is_counted_in_a_warning():
    labels = np.append(LABELS[:299], 10)
    classifier = ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=2, random_state=0)
    with pytest.warns(UserWarning, match=r"1 of 300 rows have no positive .* the first are \[299\]"):
        classifier.fit(DIGITS[:300], labels)
    assert classifier.predict_proba(DIGITS[:5]).shape == (5, 11)


@pytest.mark.parametrize("n", [20, 400])
@pytest.mark.filterwarnings("ignore:The number of unique classes is greater")
def test_no_class_of_two_rows(n):
    with pytest.raises(ValueError, match="no row has a positive"):
        ICONClassifier(supervisory="same_class", encoder="mlp", random_state=0).fit(DIGITS[:n], np.arange(n))


def test_representations_that_are_not_finite():
    encoder = encoders.Module(broken)
    with pytest.raises(ValueError, match="represents some rows by NaN or infinity; check its module"):
        ICONClassifier(supervisory="same_class", learned="student_t", encoder=encoder, max_iter=1).fit(
            DIGITS[:50], LABELS[:50]
        )


class _Broken(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) / (0.0 if not self.training else 1.0)


def broken(n_inputs, n_outputs):
    return _Broken(n_inputs, n_outputs)
