"""scikit-learn's own checks, strict, over the configurations that users combine."""

import pytest
import torch
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from sklearn_icon import (
    ICONClassifier,
    ICONClustering,
    ICONCrossModal,
    ICONEmbedding,
    encoders,
    learned,
    methods,
    supervisory,
)


def noisy(batch):
    """A view for contrastive learning."""
    return batch + 0.1 * torch.randn_like(batch)


FEW = {"max_iter": 60, "random_state": 0}
PASSES = {"max_iter": 20, "random_state": 0}
CONFIGURATIONS = [
    ICONEmbedding(perplexity=3, **FEW),
    ICONEmbedding(supervisory="knn", learned="gaussian", normalization="conditional", init="random", **FEW),
    ICONEmbedding(
        supervisory=supervisory.StudentT(perplexity=4), learned=learned.StudentT(df=0.5), encoder="linear", **FEW
    ),
    ICONEmbedding(perplexity=3, divergence="jensen_shannon", encoder=encoders.MLP(hidden=(8,)), **FEW),
    ICONEmbedding(supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional", **FEW),
    ICONEmbedding(supervisory=supervisory.SameClass(unlabelled=supervisory.UniformKNN(n_neighbors=3)), **FEW),
    ICONEmbedding(
        supervisory=supervisory.PositivePairs(noisy),
        encoder=encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP(hidden=(8,)), n_outputs=4)),
        **FEW,
    ),
    ICONClustering(3, **PASSES),
    ICONClustering(3, supervisory="knn", learned=learned.SharedCluster(weights="degree"), encoder="lookup", **PASSES),
    ICONClustering(3, debias=0.0, encoder=encoders.MLP(hidden=(8,)), n_init=1, **PASSES),
    methods.get("k-means").make_estimator(n_clusters=3, **PASSES),
    methods.get("spectral").make_estimator(n_clusters=3, **PASSES),
    ICONClassifier(),
    ICONClassifier(learned=learned.Gaussian(metric="dot", tau=0.5), debias=0.1, C=0.5, tol=1e-10, max_iter=1000),
    ICONClassifier(learned="harmonic", debias=0.1, encoder=encoders.MLP(hidden=(8,)), **FEW),
    ICONClassifier(learned="harmonic", random_state=0),
    ICONClassifier(learned="student_t", encoder=encoders.MLP(hidden=(8,)), **FEW),
    ICONClassifier(encoder="mlp", **FEW),
    ICONClassifier(supervisory="same_class", **FEW),
    ICONClassifier(supervisory="same_class", learned="student_t", encoder="mlp", **FEW),
    ICONClassifier(supervisory="propagated_label", random_state=0),
    ICONCrossModal(random_state=0, max_iter=5),
    ICONCrossModal(3, learned="student_t", encoder="linear", encoder_y=encoders.MLP(hidden=(8,)), debias=0.1, **PASSES),
    ICONCrossModal(3, learned="wide_gaussian", encoder="linear", batch_size=16, **PASSES),
]
SPARSE = ("check_estimator_sparse_array", "check_estimator_sparse_matrix")
WEIGHTS = ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data")


def expected_failures(estimator):
    """Checks that cannot hold, with the reason."""
    if isinstance(estimator, ICONClassifier) and estimator.supervisory == "same_class":
        reason = "copies of a row are positives of each other, which one row with a weight has not got"
        return dict.fromkeys(WEIGHTS, reason)
    if isinstance(estimator, ICONClassifier) and estimator.supervisory == "propagated_label":
        return {"check_classifiers_classes": "labels of -1 and 1: -1 is unknown to this p, and one class is left"}
    if isinstance(estimator, ICONClustering):
        reason = "after fit, the check reads classifier tags and class columns off whatever has predict_proba"
        copies = "copies of a row are neighbours of each other, which one row with a weight has not got"
        if estimator.divergence == "reverse_kl":
            copies = "other numbers are drawn for the starts of k-means, which end in another of its optima"
        lookup = estimator.encoder == "lookup" or isinstance(estimator.encoder, encoders.Lookup)
        differing = WEIGHTS if lookup else WEIGHTS[:1] if estimator.encoder else ()  # elsewhere it finds the same
        return dict.fromkeys(SPARSE, reason) | dict.fromkeys(differing, copies)
    return {}


# Small checks let defaults shrink and stop iterations early, which warns; scikit-learn's checks ask for results only.
@pytest.mark.filterwarnings("ignore:the default .* is too large", "ignore:.*stopped after .* iterations before")
@pytest.mark.filterwarnings("ignore:.*clusters are in use", "ignore:.*rows have no positive")
@parametrize_with_checks(CONFIGURATIONS, expected_failed_checks=expected_failures)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "kind, at_least", [(ICONEmbedding, 45), (ICONClustering, 45), (ICONClassifier, 55), (ICONCrossModal, 45)]
)
def test_number_of_checks(kind, at_least):
    estimators = [estimator for estimator in CONFIGURATIONS if isinstance(estimator, kind)]
    counts = [len(list(estimator_checks_generator(estimator))) for estimator in estimators]
    assert min(counts) >= at_least
