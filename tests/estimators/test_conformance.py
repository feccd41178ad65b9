"""scikit-learn's own checks, strict, over the configurations that users combine."""

from itertools import combinations
from unittest import SkipTest

import pytest
import torch
from sklearn.utils.estimator_checks import estimator_checks_generator

from sklearn_icon import (
    ICONClassifier,
    ICONClustering,
    ICONCrossModal,
    ICONEmbedding,
    divergences,
    encoders,
    learned,
    methods,
    supervisory,
)


def noisy(batch):
    """A view for contrastive learning."""
    return batch + 0.1 * torch.randn_like(batch)


FEW = {"max_iter": 8, "random_state": 0}
LONGER = {"max_iter": 12, "learning_rate": 0.2, "random_state": 0}  # until all rows of the checks are told apart
# By route: name -> estimator. The first of each kind passes all checks, the others all but those OF_THE_SHELL.
CONFIGURATIONS = {
    "map": ICONEmbedding(perplexity=3, **FEW),
    "map-of-neighbours": ICONEmbedding(
        supervisory="knn", learned="gaussian", normalization="conditional", init="random", **FEW
    ),
    "linear-map": ICONEmbedding(
        supervisory=supervisory.StudentT(perplexity=4), learned=learned.StudentT(df=0.5), encoder="linear", **FEW
    ),
    "views": ICONEmbedding(
        supervisory=supervisory.PositivePairs(noisy),
        encoder=encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP(hidden=(8,)), n_outputs=4)),
        **FEW,
    ),
    "network-map": ICONEmbedding(perplexity=3, divergence="jensen_shannon", encoder=encoders.MLP(hidden=(8,)), **FEW),
    "tokens": ICONEmbedding(
        supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional", **FEW
    ),
    "map-of-classes": ICONEmbedding(
        supervisory=supervisory.SameClass(unlabelled=supervisory.UniformKNN(n_neighbors=3)), **FEW
    ),
    "map-pulled-to-its-start": ICONEmbedding(perplexity=3, init_weight=1.0, **FEW),
    "umap": methods.get("umap").make_estimator(**FEW),
    "parametric-umap": methods.get("parametric-umap").make_estimator(**FEW),
    "map-by-hellinger": ICONEmbedding(perplexity=3, divergence=divergences.Alpha(0.5), **FEW),
    "clusters": ICONClustering(3, **FEW),
    "clusters-by-a-lookup": ICONClustering(
        3, supervisory="knn", learned=learned.SharedCluster(weights="degree"), encoder="lookup", **FEW
    ),
    "k-means": methods.get("k-means").make_estimator(n_clusters=3, **FEW),
    "spectral": methods.get("spectral").make_estimator(n_clusters=3, **FEW),
    "clusters-by-a-network": ICONClustering(3, debias=0.0, encoder=encoders.MLP(hidden=(8,)), n_init=1, **FEW),
    "classes-to-discover": ICONClustering(3, supervisory="same_class", **FEW),
    "softmax": ICONClassifier(),
    "harmonic": ICONClassifier(learned="harmonic", **FEW),
    "network": ICONClassifier(encoder="mlp", **FEW),
    "supcon": ICONClassifier(supervisory="same_class", **FEW),
    "debiased-softmax": ICONClassifier(
        learned=learned.Gaussian(metric="dot", tau=0.5), debias=0.1, C=0.5, tol=1e-10, max_iter=1000
    ),
    "harmonic-network": ICONClassifier(learned="harmonic", debias=0.1, encoder=encoders.MLP(hidden=(8,)), **LONGER),
    "student-t-network": ICONClassifier(learned="student_t", encoder=encoders.MLP(hidden=(8,)), **LONGER),
    "supcon-network": ICONClassifier(supervisory="same_class", learned="student_t", encoder="mlp", **FEW),
    "bounded-softmax": ICONClassifier(divergence=divergences.TotalVariation(0.5), **FEW),
    "propagated-labels": ICONClassifier(supervisory="propagated_label", random_state=0),
    "pairs": ICONCrossModal(**FEW),
    "pairs-by-a-network": ICONCrossModal(
        3, learned="student_t", encoder="linear", encoder_y=encoders.MLP(hidden=(8,)), debias=0.1, **FEW
    ),
    "pairs-in-batches": ICONCrossModal(3, learned="wide_gaussian", encoder="linear", batch_size=16, **FEW),
}
# What the estimators' common code answers before anything is solved, or whatever was: of parameters, of tags, of
# arguments that are refused, and of containers that are arrays by the time a solver reads them. Where a check comes
# with rows that cannot be written as well, the others skip it: check_readonly_memmap_input asks them once.
OF_THE_SHELL = frozenset(
    """
    check_class_weight_classifiers check_classifier_data_not_an_array check_classifiers_regression_target
    check_complex_data check_do_not_raise_errors_in_init_or_set_params check_dtype_object check_estimator_repr
    check_estimator_sparse_matrix check_estimator_sparse_tag check_estimator_tags_renamed
    check_estimators_empty_data_messages check_estimators_nan_inf check_estimators_unfitted check_fit1d
    check_fit2d_predict1d check_get_params_invariance check_mixin_order check_n_features_in_after_fitting
    check_no_attributes_set_in_init check_parameters_default_constructible check_pipeline_consistency
    check_requires_y_none check_sample_weights_list check_sample_weights_not_an_array
    check_sample_weights_pandas_series check_sample_weights_shape check_set_params check_supervised_y_2d
    check_supervised_y_no_nan check_transformer_data_not_an_array check_transformers_unfitted check_valid_tag_types
    """.split()
)
SPARSE = ("check_estimator_sparse_array", "check_estimator_sparse_matrix")
DRAWN_BY_ROW = """
    map map-of-neighbours views tokens map-of-classes umap parametric-umap map-by-hellinger pairs-by-a-network
    pairs-in-batches
    """.split()
WEIGHTS = ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data")


def expected_failures(estimator):
    """Checks that cannot hold, with the reason."""
    if isinstance(estimator, ICONClassifier) and estimator.supervisory == "same_class":
        reason = "copies of a row are positives of each other, which one row with a weight has not got"
        return dict.fromkeys(WEIGHTS, reason)
    if isinstance(estimator, ICONClassifier) and estimator.supervisory == "propagated_label":
        return {"check_classifiers_classes": "labels of -1 and 1: -1 is unknown to this p, and one class is left"}
    if estimator is CONFIGURATIONS["map-pulled-to-its-start"]:
        reason = "the check shuffles rows: a sum in another order grows tenfold a step; test_copies.py does not"
        return dict.fromkeys(WEIGHTS, reason)
    if estimator in (CONFIGURATIONS[name] for name in DRAWN_BY_ROW):
        reason = "the check shuffles rows, for which other random numbers are drawn; test_copies.py does not"
        return dict.fromkeys(WEIGHTS, reason)
    if isinstance(estimator, ICONClustering):
        reason = "after fit, the check reads classifier tags and class columns off whatever has predict_proba"
        copies = "copies of a row are neighbours of each other, which one row with a weight has not got"
        if estimator.divergence == "reverse_kl":
            copies = "other numbers are drawn for the starts of k-means, which end in another of its optima"
        if estimator.supervisory == "same_class":
            reason_y = "the check passes no y, which this p reads"
            return dict.fromkeys(SPARSE, reason) | {"check_clustering": reason_y} | dict.fromkeys(WEIGHTS, copies)
        lookup = estimator.encoder == "lookup" or isinstance(estimator.encoder, encoders.Lookup)
        differing = WEIGHTS if lookup else WEIGHTS[:1] if estimator.encoder else ()  # elsewhere it finds the same
        return dict.fromkeys(SPARSE, reason) | dict.fromkeys(differing, copies)
    return {}


def names_of(kind):
    """The configurations of an estimator."""
    return [name for name, estimator in CONFIGURATIONS.items() if isinstance(estimator, kind)]


def checks_of(name):
    """The checks of a configuration, each with its id and, where it cannot hold, a mark."""
    estimator = CONFIGURATIONS[name]
    failures = expected_failures(estimator)
    whole = name == names_of(type(estimator))[0]
    for _, check in estimator_checks_generator(estimator):
        title = check.func.__name__
        if whole or (title not in OF_THE_SHELL and "readonly_memmap" not in check.keywords):
            marks = [pytest.mark.xfail(reason=failures[title])] if title in failures else []
            settings = "".join(f"-{key}={value}" for key, value in check.keywords.items())
            yield pytest.param(estimator, check, id=f"{name}-{title}{settings}", marks=marks)


# Small checks let defaults shrink and stop iterations early, which warns; scikit-learn's checks ask for results only.
@pytest.mark.filterwarnings("ignore:the default .* is too large", "ignore:.*stopped after .* iterations before")
@pytest.mark.filterwarnings("ignore:.*clusters are in use", "ignore:.*rows have no positive")
@pytest.mark.parametrize("estimator, check", [param for name in CONFIGURATIONS for param in checks_of(name)])
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "kind, whole, others",
    [(ICONEmbedding, 45, 22), (ICONClustering, 45, 22), (ICONClassifier, 55, 22), (ICONCrossModal, 45, 22)],
)
def test_number_of_checks(kind, whole, others):
    counts = [len(list(checks_of(name))) for name in names_of(kind)]
    assert counts[0] >= whole
    assert min(counts[1:]) >= others


def test_each_check_of_the_shell_runs_somewhere():
    ran = {param.values[1].func.__name__ for name in CONFIGURATIONS for param in checks_of(name)}
    assert ran >= OF_THE_SHELL


# The cells of the table that are none of the configurations above. Of these are left out those whose p, q, encoder,
# loss and estimator all come in pairs that other cells have, and graphs: the checks pass features as X, labels as y.
CONFIGURED = set(
    """
    t-sne umap parametric-umap mlm k-means spectral cross-entropy harmonic supcon clip supervised-clustering
    """.split()
)
OF_SMALL_DATA = """
    check_dont_overwrite_parameters check_fit2d_1feature check_methods_sample_order_invariance
    check_methods_subset_invariance
    """.split()
OF_CELLS = {
    "category-discovery": {
        "check_clustering": "the check passes no y, which this p reads",
        **dict.fromkeys(OF_SMALL_DATA, "the check asks for fewer clusters than its y has classes, which are known"),
        **dict.fromkeys(WEIGHTS, "copies of a row are neighbours of each other, which a weighted row has not got"),
    },
    "several-heads": dict.fromkeys(OF_SMALL_DATA, "two heads need two columns, and the check has one"),
    "triplet-supcon": {"check_classifiers_train": "the loss is zero as soon as a row's nearest is of its class"},
    "pmi": dict.fromkeys(
        WEIGHTS, "copies of a row are neighbours of each other, which one row with a weight has not got"
    ),
    "error-rate": dict.fromkeys(WEIGHTS, "a kernel as narrow as this magnifies rounding beyond 1e-7"),
}


def parts_of(method):
    """What makes a cell, as the classes of its specs and how they are compared."""
    specs = method.supervisory, method.learned, method.encoder
    classes = [
        (role, *sorted({type(spec).__name__, type(spec._wrapped()).__name__})) for role, spec in enumerate(specs)
    ]
    return [method.estimator, *classes, (method.divergence, method.normalization, method.debias > 0)]


def covering_cells():
    """Names of cells that bring a pair of parts which none before has."""
    seen, left = set(), []
    for name in methods.names():
        pairs = set(combinations(parts_of(methods.get(name)), 2))
        if pairs - seen and name not in CONFIGURED and "weights" not in methods.get(name).reads:
            left.append(name)
        seen |= pairs
    return left


def cell(name):
    """The estimator of a cell, small enough for the checks."""
    method, small = methods.get(name), dict(FEW)
    if method.estimator == "ICONClustering":
        small |= {"n_clusters": 3, "max_iter": 20}
    if "augment" in method.supervisory.get_params():
        small["supervisory__augment"] = noisy
    if "perplexity" in method.supervisory.get_params():
        small["perplexity"] = 3
    return method.make_estimator(**small)


def of_cell(name):
    """Checks that cannot hold of a cell, with the reason."""
    estimator, how = cell(name), OF_CELLS.get(name, {})
    if isinstance(estimator, ICONEmbedding) and not estimator.encoder.is_linear:
        how = how | dict.fromkeys(WEIGHTS, "the check shuffles rows, for which other random numbers are drawn")
    if isinstance(estimator, ICONCrossModal):
        how = how | dict.fromkeys(WEIGHTS, "y are no labels, so that the fitted estimator has no predict to compare")
    if isinstance(estimator, ICONClassifier) and estimator.supervisory.over_rows:
        how = how | dict.fromkeys(WEIGHTS, "copies of a row are positives of each other, which a weighted row has not")
    if isinstance(estimator, ICONClustering):
        how = how | {SPARSE[0]: "after fit, the check reads classifier tags off whatever has predict_proba"}
        if estimator.divergence == "reverse_kl":
            how = how | dict.fromkeys(WEIGHTS, "other numbers are drawn for the starts of k-means")
    return how


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the default .* is too large", "ignore:.*stopped after .* iterations before")
@pytest.mark.filterwarnings("ignore:.*clusters are in use", "ignore:.*rows have no positive")
@pytest.mark.parametrize("name", covering_cells())
def test_checks_of_cells(name):
    failures, ran = of_cell(name), 0
    for _, check in estimator_checks_generator(cell(name)):
        title = check.func.__name__
        if title not in OF_THE_SHELL and title not in failures and "readonly_memmap" not in check.keywords:
            try:
                check(cell(name))
                ran += 1
            except SkipTest:
                continue
    assert ran >= 20


def test_cells_are_covered():
    checked, pairs = set(covering_cells()) | CONFIGURED, {}
    for name in methods.names():
        for pair in combinations(parts_of(methods.get(name)), 2):
            pairs.setdefault(pair, set()).add(name)
    graphs = {name for name in methods.names() if "weights" in methods.get(name).reads}
    assert all(names & checked or names <= graphs for names in pairs.values())
    assert len(checked) >= 45
