"""Items of any shape, such as images, of the classifier and of pairs; maps and clusters have tests of their own."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from torch import nn

from sklearn_icon import ICONClassifier, ICONCrossModal, encoders
from sklearn_icon.encoders._networks import build_module
from sklearn_icon.encoders._scaling import input_scale

IMAGES, Y = load_digits().images[:500, None].astype(np.float32), load_digits().target[:500]  # (n, 1, 8, 8)
NEW, Y_NEW = load_digits().images[500:700, None], load_digits().target[500:700]
FEATURES, FEATURES_NEW = (images.sum(axis=(1, 2)) for images in (IMAGES, NEW))  # of ink in each column
FLAT, FLAT_NEW = IMAGES.reshape(500, -1), NEW.reshape(200, -1)


def convolutions(n_inputs, n_outputs):
    """Images (n, 1, 8, 8), normalised by batch."""
    assert n_inputs == 64
    body = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(128, n_outputs))


NET = encoders.Module(convolutions)
QUICK = {"learning_rate": 0.01, "max_iter": 40, "random_state": 0}
CLASSIFIERS = {
    "data_label": ICONClassifier(encoder=NET, **QUICK),
    "early stopping": ICONClassifier(encoder=NET, early_stopping=True, **QUICK),
    "student_t": ICONClassifier(encoder=NET, learned="student_t", **QUICK),
    "bounded": ICONClassifier(encoder=NET, learned="student_t", divergence="total_variation", **QUICK),
    "same_class": ICONClassifier(encoder=NET, supervisory="same_class", **QUICK),
    "a head": ICONClassifier(encoder=encoders.ProjectionHead(NET, n_outputs=16), supervisory="same_class", **QUICK),
    "propagated_label": ICONClassifier(encoder=NET, supervisory="propagated_label", **QUICK),
    "mlp": ICONClassifier(encoder="mlp", **QUICK),
    "linear": ICONClassifier(tol=1e-2),
    "linear prototypes": ICONClassifier(learned="student_t", tol=1e-2, random_state=0),
}


def wrong(message, estimator, call, items, name="X"):
    with pytest.raises(ValueError, match=message.format(name=name, estimator=type(estimator).__name__)):
        call(items)


def refuses_other_shapes(estimator, call, name="X"):
    """The errors of maps for items of another shape."""
    fitted = r", but was fitted on items of shape \(1, 8, 8\)"
    wrong("{name} has 32 features, but {estimator} is expecting 64", estimator, call, NEW[:, :, :4], name)
    wrong(r"{name} holds items of shape \(8, 8\)" + fitted, estimator, call, NEW[:, 0], name)
    wrong(r"{name} holds items of shape \(64,\)" + fitted, estimator, call, FLAT_NEW, name)


@pytest.mark.filterwarnings("ignore:.*before it converged")
@pytest.mark.parametrize("estimator", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_classes_of_images(estimator):
    y = np.where(np.arange(500) % 3, Y, -1) if estimator.supervisory == "propagated_label" else Y
    classifier = clone(estimator).fit(IMAGES, y)
    assert classifier.n_features_in_ == 64
    assert classifier.score(NEW, Y_NEW) > 0.7
    proba = classifier.predict_proba(NEW)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(classifier.predict(NEW), classifier.decision_function(NEW).argmax(axis=1))
    assert classifier.transform(NEW).shape == (200, len(classifier.get_feature_names_out()))
    few = clone(classifier).set_params(max_iter=3)
    repeats = [clone(few).fit(IMAGES, y).predict_proba(NEW) for _ in range(2)]
    assert_allclose(*repeats, atol=1e-5)
    assert_allclose(pickle.loads(pickle.dumps(classifier)).predict_proba(NEW.tolist()), proba, atol=1e-5)
    refuses_other_shapes(classifier, classifier.predict)
    refuses_other_shapes(classifier, classifier.transform)


def test_softmax_regression_reads_images_as_rows():
    rows, items = ICONClassifier(tol=1e-6, max_iter=1000).fit(FLAT, Y), ICONClassifier(tol=1e-6, max_iter=1000)
    items.fit(IMAGES, Y)
    assert_allclose(items.coef_, rows.coef_, atol=1e-8)
    assert_allclose(items.transform(NEW), rows.transform(FLAT_NEW), atol=1e-5)


def test_images_in_searches_with_weights_and_shares():
    assert cross_val_score(CLASSIFIERS["data_label"], IMAGES, Y, cv=2).min() > 0.6
    weights = np.arange(500) % 4
    weighted, soft = (clone(CLASSIFIERS["data_label"]) for _ in range(2))
    assert weighted.fit(IMAGES, Y, sample_weight=weights).score(NEW, Y_NEW) > 0.7
    soft.fit(IMAGES, np.eye(10)[Y])
    hard = clone(soft).fit(IMAGES, Y)
    assert_allclose(soft.predict_proba(NEW), hard.predict_proba(NEW), atol=1e-5)


@pytest.mark.parametrize("make", [np.float64, np.float32, np.uint8])
def test_precision_of_images(make):
    classifier = clone(CLASSIFIERS["data_label"]).set_params(max_iter=1).fit(IMAGES.astype(make), Y)
    expected = np.float64 if make is np.float64 else np.float32
    assert classifier.transform(NEW).dtype == expected
    assert classifier.__sklearn_tags__().input_tags.three_d_array
    assert ICONCrossModal().__sklearn_tags__().input_tags.three_d_array


def test_bad_images():
    broken = np.where(IMAGES > 15, np.nan, IMAGES)
    for estimator in (ICONClassifier(encoder=NET), ICONCrossModal(encoder=NET)):
        with pytest.raises(ValueError, match="contains NaN"):
            estimator.fit(broken, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ICONClassifier(encoder=NET).fit(IMAGES, Y[:-1])
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        ICONClassifier(encoder=NET).fit(IMAGES, None)


@pytest.mark.parametrize("to_features", ["mlp", encoders.Linear(orthonormal=True)], ids=str)
def test_images_find_their_features(to_features):
    estimator = ICONCrossModal(8, encoder=NET, encoder_y=to_features, max_iter=60, random_state=0)
    pairs = clone(estimator).fit(IMAGES, FEATURES)
    assert (pairs.n_features_in_, pairs.n_features_y_) == (64, 8)
    z, w = pairs.transform(NEW, FEATURES)
    assert z.shape == (200, 8) and w.shape == (500, 8) and z.dtype == np.float32
    assert pairs.score(NEW, FEATURES_NEW) > 5 / 200
    assert_array_equal(pickle.loads(pickle.dumps(pairs)).transform(NEW), z)
    repeats = [clone(estimator).set_params(max_iter=3).fit(IMAGES, FEATURES).transform(NEW) for _ in range(2)]
    assert_array_equal(*repeats)
    refuses_other_shapes(pairs, pairs.transform)


def test_images_on_the_other_side_and_on_both():
    features = ICONCrossModal(4, encoder="linear", encoder_y=NET, max_iter=3, random_state=0).fit(FEATURES, IMAGES)
    assert features.n_features_y_ == 64
    assert features.transform_y(NEW).shape == (200, 4)
    refuses_other_shapes(features, features.transform_y, "y")
    mirrored = np.ascontiguousarray(IMAGES[..., ::-1])
    both = ICONCrossModal(8, encoder=NET, learned="student_t", max_iter=10, random_state=0).fit(IMAGES, mirrored)
    assert both.score(IMAGES[:50], mirrored[:50]) > 0.1
    flat = ICONCrossModal(4, encoder="mlp", max_iter=2, random_state=0).fit(IMAGES[:, 0], FEATURES)
    assert flat.transform(NEW[:, 0]).shape == (200, 4)


def test_one_scale_of_all_numbers_counts_weights_as_copies():
    weights = np.random.RandomState(0).randint(1, 4, size=500)
    copied = input_scale(np.repeat(IMAGES, weights, axis=0), by_column=False)
    assert_allclose(input_scale(IMAGES, weights, by_column=False), copied, rtol=1e-6)
    assert_allclose(input_scale(IMAGES, by_column=False), (IMAGES.mean(), 1 / IMAGES.std()), rtol=1e-5)
    module = build_module(NET, IMAGES, 3, 0, torch.float32, weights)
    assert float(module[0].shift) == pytest.approx(copied[0])
