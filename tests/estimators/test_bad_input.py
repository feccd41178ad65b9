"""What users get wrong, and what they are told."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.neighbors import kneighbors_graph

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
from sklearn_icon.nn import ICONLoss
from sklearn_icon.supervisory import Graph, PropagatedLabel, SameClass, UniformMixture

X, y = load_iris(return_X_y=True)
QUICK = {"max_iter": 5, "random_state": 0}
ESTIMATORS = [ICONEmbedding(**QUICK), ICONClustering(2, **QUICK), ICONClassifier(**QUICK)]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)


def labels(n):
    return np.arange(n) % 2


@each_estimator
@pytest.mark.parametrize(
    "rows, message",
    [
        (np.empty((0, 3)), "Found array with 0 sample"),
        (np.empty((5, 0)), "Found array with 0 feature"),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "contains NaN"),
        (np.array([[1.0, np.inf], [2.0, 3.0]]), "contains infinity"),
        (np.array([["a", "b"], ["c", "d"]]), "could not convert string to float"),
        (np.arange(4.0), "Expected 2D array, got 1D array"),
    ],
)
def test_unusable_rows(estimator, rows, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(rows, labels(len(rows)))


@pytest.mark.parametrize("estimator", [ICONEmbedding(), ICONClustering(1), ICONClassifier()])
def test_one_row(estimator):
    with pytest.raises(ValueError, match=r"1 sample.* minimum of 2 is required"):
        estimator.fit(X[:1], y[:1])


@each_estimator
@pytest.mark.filterwarnings("ignore:.*stopped after")
def test_another_number_of_features(estimator):
    method = "transform" if isinstance(estimator, ICONEmbedding) else "predict"
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4 features"):
        getattr(estimator.fit(X, y), method)(X[:, :3])


def with_constant_columns():
    return np.hstack([X, np.full((len(X), 1), 1e6), np.zeros((len(X), 1))])


@pytest.mark.parametrize("init", ["pca", "random", "spectral"])
def test_constant_columns_change_nothing_in_a_map(init):
    embedding = ICONEmbedding(init=init, max_iter=100, random_state=0)
    kl = embedding.fit(X).kl_divergence_
    assert embedding.fit(with_constant_columns()).kl_divergence_ == pytest.approx(kl, rel=0.05)


def test_constant_columns_elsewhere():
    constant = with_constant_columns()
    clusters = ICONClustering(3, random_state=0).fit(constant)
    assert np.isfinite(clusters.predict_proba(constant)).all()
    assert (
        ICONClassifier(max_iter=1000)
        .fit(constant - constant.mean(axis=0), y)
        .score(constant - constant.mean(axis=0), y)
        > 0.9
    )


@pytest.mark.filterwarnings("ignore:only 1 of")
def test_all_rows_equal():
    same = np.ones((30, 3))
    embedding = ICONEmbedding(perplexity=5, max_iter=50, random_state=0).fit_transform(same)
    assert np.isfinite(embedding).all()
    assert (embedding == embedding[0]).all()
    clusters = ICONClustering(2, n_init=1, max_iter=5, random_state=0).fit(same)
    assert (clusters.labels_ == 0).all()
    probabilities = ICONClassifier().fit(same, labels(30)).predict_proba(same)
    np.testing.assert_allclose(probabilities, 0.5)


@pytest.mark.filterwarnings("ignore:the default n_neighbors")
def test_more_clusters_than_distinct_rows():
    rows = np.repeat([[0.0, 0.0], [5.0, 5.0]], 10, axis=0)
    with pytest.warns(
        UserWarning, match=r"only 2 of n_clusters=4 clusters are in use; there may be fewer distinct rows"
    ):
        clusters = ICONClustering(4, encoder="lookup", n_neighbors=5, random_state=0).fit(rows)
    assert clusters.n_clusters_ == 2
    assert set(clusters.labels_) == {0, 1}
    assert len(np.unique(clusters.cluster_centers_, axis=0)) == 2


def test_more_clusters_than_rows():
    with pytest.raises(ValueError, match="n_samples=4 should be >= n_clusters=9"):
        ICONClustering(9).fit(X[:4])


def test_default_perplexity_shrinks_with_one_warning():
    with pytest.warns(UserWarning, match="the default perplexity=30 is too large for 12 samples; using") as caught:
        ICONEmbedding(**QUICK).fit(X[:12])
    assert len(caught) == 1


@pytest.mark.parametrize(
    "estimator",
    [ICONEmbedding(perplexity=20), ICONEmbedding(perplexity=30), ICONEmbedding(supervisory=supervisory.Gaussian(12.5))],
)
def test_explicit_perplexity_too_large(estimator):
    with pytest.raises(
        ValueError, match=r"perplexity=[\d.]+ needs at least \d+ samples, got 12; set perplexity to at most 11"
    ):
        estimator.fit(X[:12])


def test_perplexity_beyond_the_neighbors():
    with pytest.raises(ValueError, match="perplexity=20 needs at least that many neighbors, but n_neighbors=10"):
        ICONEmbedding(perplexity=20, n_neighbors=10).fit(X)


@pytest.mark.parametrize(
    "parameter, valid",
    [("supervisory", "gaussian.*knn"), ("learned", "gaussian.*student_t"), ("encoder", "linear.*mlp")],
)
@each_estimator
def test_unknown_names_list_the_known(estimator, parameter, valid):
    changed = type(estimator)(**{parameter: "tsne"})
    with pytest.raises(ValueError, match=f"{parameter}='tsne' is not known; use one of .*{valid}"):
        changed.fit(X, y)


def test_a_class_in_place_of_an_instance():
    with pytest.raises(TypeError, match=r"learned=StudentT is a class; pass an instance, StudentT\(\.\.\.\)"):
        ICONEmbedding(learned=learned.StudentT).fit(X)


def test_a_spec_in_the_wrong_place():
    with pytest.raises(
        TypeError, match=r"learned must be None, one of .* or an instance of a class of sklearn_icon.learned"
    ):
        ICONEmbedding(learned=supervisory.Gaussian()).fit(X)


@pytest.mark.parametrize(
    "estimator", [ICONEmbedding(supervisory="same_class"), ICONClustering(supervisory="positive_pairs")]
)
def test_labels_are_needed(estimator):
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None: it reads"):
        estimator.fit(X)


UNLIKE = {
    "nan": np.where(y > 0, y, np.nan),
    "none": np.where(y > 0, "a", None),
    "text and numbers": np.array(["a" if c else -1 for c in y], dtype=object),
    "no date": np.where(y > 0, np.datetime64("2020-01-01"), np.datetime64("NaT")),
}


@pytest.mark.parametrize("given", UNLIKE.values(), ids=UNLIKE)
def test_labels_that_are_missing_or_of_several_kinds(given):
    told = r"y must hold numbers, or text, .*; got labels of several kinds or NaN or None"
    with pytest.raises(ValueError, match=told):
        ICONEmbedding(supervisory="same_class", **QUICK).fit(X, given)
    for supervision in (UniformMixture(SameClass(), 0.1), SameClass(unlabelled=Graph())):
        if given.dtype != object or -1 not in given:  # which is a row without a label there
            with pytest.raises(ValueError, match=told):
                ICONClustering(3, supervisory=supervision, **QUICK).fit(X, given)


@pytest.mark.parametrize("make", [ICONEmbedding, ICONClustering])
def test_labels_with_a_mask_or_a_history(make):
    estimator, hidden = make(supervisory="same_class", **QUICK), np.ma.masked_equal(y, 1)
    with pytest.raises(ValueError, match="y is a masked array with 50 masked entries"):
        estimator.fit(X, hidden)
    with pytest.raises(ValueError, match=r"y is a tensor that requires a gradient.* pass y\.detach\(\)"):
        estimator.fit(X, torch.as_tensor(y, dtype=torch.float32).requires_grad_())


@pytest.mark.parametrize("encoder", ["linear", "mlp"])
def test_classes_of_a_sparse_matrix(encoder):
    with pytest.raises(TypeError, match=r"y is a sparse matrix of shape \(150, 3\); pass y.toarray\(\), or labels"):
        ICONClassifier(encoder=encoder).fit(X, sparse.csr_array(np.eye(3)[y]))


@pytest.mark.parametrize("params", [{}, {"supervisory": "knn"}, {"divergence": "total_variation"}])
def test_one_row_that_weighs(params):
    with pytest.raises(ValueError, match="sample_weight is positive in one row alone"):
        ICONClustering(2, **QUICK, **params).fit(X, sample_weight=np.arange(len(X)) == 4)


@pytest.mark.parametrize("given", [(X, None), (torch.as_tensor(X), X)])
def test_losses_are_of_tensors(given):
    with pytest.raises(TypeError, match=r"must be a torch tensor, got a ndarray; pass torch.as_tensor\("):
        ICONLoss("cross_modal", "gaussian")(given[0], keys=given[1])


@pytest.mark.parametrize("verbose", ["loud", [1], None])
@each_estimator
def test_verbose_is_a_number(estimator, verbose):
    with pytest.raises(ValueError, match=f"The 'verbose' parameter of {type(estimator).__name__} must be an int"):
        clone(estimator).set_params(verbose=verbose).fit(X, y)


# p, what it reads beside X
READ = {
    "same-class": (supervisory.SameClass(), y),
    "drawn-positives": (supervisory.SameClass(n_positives=2), y),
    "several-labels": (supervisory.SameClass(), np.eye(3, dtype=int)[y]),
    "sparse-labels": (supervisory.SameClass(), sparse.csr_array(np.eye(3, dtype=int)[y])),
    "partly-known": (supervisory.SameClass(unlabelled=supervisory.UniformKNN(3)), np.where(y == 1, -1, y)),
    "positive-pairs": (supervisory.PositivePairs(), np.arange(150) // 2),
    "gaussian": (supervisory.Gaussian(source="y"), X),
    "knn": (supervisory.UniformKNN(source="y"), X[:, 0]),
    "sparse-companions": (supervisory.UniformKNN(source="y"), sparse.csr_array(X)),
    "graph": (supervisory.Graph(), sparse.csr_array(kneighbors_graph(X, 5))),
    "mixture": (supervisory.UniformMixture(supervisory.SameClass(), 0.3), y),
    "walk": (supervisory.RandomWalk(supervisory.UniformKNN(3, source="y"), 2), X),
}
OF_LENGTHS = {
    **{
        f"{kind.__name__}-{name}": (kind(supervisory=p), of_y)
        for name, (p, of_y) in READ.items()
        for kind in (ICONEmbedding, ICONClustering)
    },
    "ICONEmbedding-counts": (ICONEmbedding(supervisory="counts", normalization="conditional"), X),
    **{
        f"ICONClassifier-{p}": (ICONClassifier(supervisory=p), y)
        for p in ("data_label", "same_class", "propagated_label")
    },
    "ICONClassifier-shares": (ICONClassifier(), np.eye(3)[y]),
    "ICONCrossModal-pairs": (ICONCrossModal(), X),
    **{f"methods-{name}": (methods.get(name).make_estimator(max_iter=5), y) for name in ("simclr", "supcon", "vicreg")},
}


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("estimator, of_y", OF_LENGTHS.values(), ids=OF_LENGTHS)
def test_y_of_another_length(estimator, of_y, longer):
    """The error comes before any warning, which would be one."""
    n = of_y.shape[0] - 1
    rows, read = (X[:n], of_y) if longer else (X, of_y[:n, :n] if of_y.shape[1:] == (n + 1,) else of_y[:n])
    with pytest.raises(ValueError, match=rf"inconsistent numbers of samples: \[{len(rows)}, {read.shape[0]}\]"):
        estimator.fit(rows, read)


@pytest.mark.parametrize(
    "p, of_y", [value for name, value in READ.items() if name not in ("drawn-positives", "partly-known")]
)
def test_y_of_another_length_in_the_loss(p, of_y):
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: .* each of the 149 rows of z, got shape"):
        ICONLoss(p, "gaussian")(torch.as_tensor(X[:-1]), of_y)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@each_estimator
def test_cuda_without_cuda(estimator, device):
    with pytest.raises(ValueError, match=f"device='{device}' was asked for, but .*; use device='auto' or 'cpu'"):
        type(estimator)(device=device).fit(X, y)


def test_unknown_device():
    with pytest.raises(ValueError, match="device='gpu' is no torch device; use 'auto', 'cpu', 'cuda' or 'mps'"):
        ICONEmbedding(device="gpu").fit(X)


@pytest.mark.parametrize("names", [np.array(["b", "c", "a"]), np.array([7, -1, 3]), np.array([True, False, False])])
def test_labels_round_trip(names):
    target = names[y]
    classifier = ICONClassifier(max_iter=1000).fit(X, target)
    assert classifier.classes_.dtype == names.dtype
    assert (classifier.classes_ == np.unique(names)).all()
    assert classifier.score(X, target) > 0.9


def test_one_class():
    with pytest.raises(ValueError, match="only one class, 'a'; a classifier needs samples of two or more"):
        ICONClassifier().fit(X, ["a"] * len(X))


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.zeros(len(X)), "at least one non-zero"),
        (-np.ones(len(X)), "Negative values in data passed to `?sample_weight"),
    ],
)
def test_sample_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        ICONClassifier().fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("weights", [np.append(-1.0, np.ones(len(X) - 1)), np.append(np.nan, np.ones(len(X) - 1))])
@pytest.mark.parametrize("supervision", ["data_label", "same_class"])
def test_one_bad_sample_weight(weights, supervision):
    with pytest.raises(ValueError, match=r"Negative values in data|contains NaN"):
        ICONClassifier(supervisory=supervision).fit(X, y, sample_weight=weights)


def test_one_class_alone():
    with pytest.raises(ValueError, match="only one class, 2; a classifier needs samples of two or more"):
        ICONClassifier().fit(X[y == 2], y[y == 2])
    assert ICONClassifier().fit(X, y, sample_weight=(y == 2).astype(float)).classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("supervision", ["data_label", "same_class", "propagated_label"])
@pytest.mark.parametrize(
    "weights, message",
    [
        ({0: 1, 1: 1, 2: 1, 7: 2}, None),  # more classes than there are do no harm, as in scikit-learn
        ({0: 1, 7: 2}, r"The classes, \[1, 2\], are not in class_weight"),
        ({0: -1, 1: 1, 2: 1}, r"class_weight=\{0: -1, .* must hold finite weights, none negative and not all zero"),
        ({0: np.nan, 1: 1, 2: 1}, "must hold finite weights"),
        ({0: 0, 1: 0, 2: 0}, "not all zero"),
        ("equal", "The 'class_weight' parameter of ICONClassifier must be"),
    ],
)
def test_class_weights(supervision, weights, message):
    classifier = ICONClassifier(supervisory=supervision, class_weight=weights, max_iter=300, random_state=0)
    if message is None:
        plain = clone(classifier).set_params(class_weight=None).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(classifier.fit(X, y).predict_proba(X), plain)
    else:
        with pytest.raises(ValueError, match=message):
            classifier.fit(X, y)


@pytest.mark.parametrize("learned_", ["dot", "harmonic"])
def test_a_class_absent_from_a_fold(learned_):
    """A class with one row is in no training fold that tests this row: it gets no probability there."""
    target = np.append(y[:-1], 9)
    folds = KFold(3, shuffle=True, random_state=0)
    classifier = ICONClassifier(learned=learned_, max_iter=1000)
    with pytest.warns(RuntimeWarning, match="Number of classes in training fold"):
        proba = cross_val_predict(classifier, X, target, cv=folds, method="predict_proba")
    assert proba.shape == (len(X), 4) and proba[-1, 3] == 0
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert cross_val_score(classifier, X, target, cv=folds).min() > 0.9


def test_continuous_target():
    with pytest.raises(ValueError, match="Unknown label type"):
        ICONClassifier().fit(X, X[:, 0])


@pytest.mark.parametrize(
    "estimator, message",
    [
        (ICONEmbedding(supervisory="data_label"), "has keys that are not the rows; a map needs"),
        (ICONEmbedding(learned="cluster"), "is a distribution over clusters; use ICONClustering"),
        (ICONEmbedding(learned="wide_gaussian", normalization="conditional"), "falls without bound"),
        (ICONClustering(supervisory="data_label"), "has keys that are not the rows; clustering needs"),
        (ICONClustering(learned="student_t"), "is no distribution over clusters"),
        (ICONClassifier(supervisory="knn"), "does not read class labels"),
        (ICONClassifier(learned="cluster"), "is a distribution over clusters"),
        (ICONClassifier(encoder="lookup"), "does not map new rows"),
        (ICONEmbedding(learned="narrow_gaussian"), "is the limit of a conditional KL loss"),
        (ICONEmbedding(divergence="reverse_kl"), "is infinite where p is zero; set debias > 0"),
    ],
)
def test_specs_that_do_not_go_together(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, y)


@pytest.mark.parametrize("kind", [ICONEmbedding, ICONClustering, ICONClassifier])
@pytest.mark.parametrize("parameter, value", [("divergence", "klf"), ("debias", 1.5), ("max_iter", -1), ("device", 3)])
def test_invalid_parameters(kind, parameter, value):
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of {kind.__name__} must be"):
        kind(**{parameter: value}).fit(X, y)


def test_invalid_parameters_of_a_spec():
    with pytest.raises(ValueError, match="The 'df' parameter of StudentT must be"):
        ICONEmbedding(learned=learned.StudentT(df=-1)).fit(X)
    with pytest.raises(ValueError, match="hidden must hold positive integers"):
        ICONEmbedding(encoder=encoders.MLP(hidden=(0,))).fit(X)


def test_inits_of_another_shape():
    with pytest.raises(ValueError, match=r"init has shape \(3, 2\), but the map has shape \(150, 2\)"):
        ICONEmbedding(init=np.zeros((3, 2))).fit(X)


@pytest.mark.parametrize("spec", [supervisory.Graph(), supervisory.UniformKNN(metric="precomputed")])
def test_graphs_and_distances_are_square(spec):
    with pytest.raises(ValueError, match="square"):
        ICONEmbedding(supervisory=spec).fit(np.abs(X))


def test_an_encoder_needs_features():
    distances = np.abs(X[:, :1] - X[:, :1].T)
    with pytest.raises(ValueError, match=r"X holds distances and no features for Linear\(\) to read"):
        ICONClustering(3, metric="precomputed", encoder="linear").fit(distances)
    with pytest.raises(ValueError, match=r"X holds distances and no features for Linear\(\) to read"):
        ICONEmbedding(metric="precomputed", encoder="linear").fit(distances)


def test_zero_rows_under_cosine():
    rows = X.copy()
    rows[[3, 8]] = 0
    with pytest.raises(ValueError, match=r"metric='cosine' is undefined for rows of zeros; rows \[3, 8\] .* of X are"):
        ICONEmbedding(metric="cosine").fit(rows)
    for spec in (supervisory.UniformKNN, supervisory.Gaussian):
        companions = spec(metric="cosine", source="y")
        for estimator in (ICONEmbedding(supervisory=companions), ICONClustering(3, supervisory=companions)):
            with pytest.raises(ValueError, match=r"for rows of zeros; rows \[3, 8\] \(2 in all\) of y are zero"):
                estimator.fit(X, rows)


def test_a_graph_without_edges():
    for estimator in (ICONEmbedding(supervisory="graph", init="random"), ICONClustering(2, supervisory="graph")):
        with pytest.raises(ValueError, match="no row has a positive"):
            estimator.fit(sparse.csr_array((10, 10)))


def test_rows_without_positives_are_counted_once():
    with pytest.warns(UserWarning, match=r"1 of 6 rows have no positive .* the first are \[5\]") as caught:
        ICONEmbedding(supervisory="same_class", **QUICK).fit(X[:6], [0, 0, 0, 1, 1, 2])
    assert len(caught) == 1


def test_divergence_of_the_optimisation_is_an_error():
    with pytest.raises(
        ValueError, match=r"ICONEmbedding: .*not finite .*at iteration .*; lower learning_rate, or scale"
    ):
        ICONEmbedding(encoder="mlp", learning_rate=1e160, max_iter=30, random_state=0).fit(X)


class _Breaks(torch.nn.Module):
    """Gives NaN at one batch of the training, by which time its running means have seen it too."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.norm, self.linear = torch.nn.BatchNorm1d(n_inputs), torch.nn.Linear(n_inputs, n_outputs)
        self.batches = 0

    def forward(self, x):
        self.batches += self.training
        return self.linear(self.norm(x * (torch.nan if self.training and self.breaks(self.batches) else 1.0)))

    def breaks(self, batches):
        return batches == 7


class _BreaksForEver(_Breaks):
    def breaks(self, batches):
        return batches > 6


@pytest.mark.parametrize(
    "estimator",
    [
        ICONEmbedding(max_iter=20),
        ICONEmbedding(supervisory="knn", method="sampled", batch_size=32, max_iter=20),
        ICONEmbedding(supervisory="counts", normalization="conditional", max_iter=20),
        ICONClassifier(),
        ICONClassifier(learned="harmonic", early_stopping=True),
        ICONClassifier(supervisory="same_class"),
        ICONClustering(3),
        ICONCrossModal(batch_size=32),
    ],
    ids=repr,
)
def test_one_failure_is_survived_and_lasting_ones_are_errors(estimator):
    estimator = clone(estimator).set_params(encoder=encoders.Module(_Breaks), random_state=0)
    y = np.arange(len(X)) % 3
    with pytest.raises(ValueError, match=f"{type(estimator).__name__}: the loss was not finite but nan .*at iteration"):
        clone(estimator).set_params(encoder=encoders.Module(_BreaksForEver)).fit(
            np.abs(X), np.abs(X) if isinstance(estimator, ICONCrossModal) else y
        )
    with pytest.warns(
        RuntimeWarning, match="the loss was not finite .*at iteration .*; training went on from the last"
    ):
        estimator.fit(np.abs(X), np.abs(X) if isinstance(estimator, ICONCrossModal) else y)
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            assert np.isfinite(getattr(estimator, name)(np.abs(X))).all()


@pytest.mark.parametrize("spec", [SameClass(), Graph(), UniformMixture(SameClass(), 0.1)], ids=str)
@pytest.mark.parametrize("make", [ICONEmbedding, ICONClustering])
def test_y_of_another_length_beside_weights_of_zero(make, spec):
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    weights = np.arange(20) % 4
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make(supervisory=spec).fit(X, y[:-1], sample_weight=weights)
    if not spec.reads_labels:
        with pytest.raises(ValueError, match=r"square|Expected 2D"):
            make(supervisory=spec).fit(X, y, sample_weight=weights)


@pytest.mark.parametrize(
    "spec", ["propagated_label", PropagatedLabel(), UniformMixture(PropagatedLabel(), 0.1)], ids=str
)
def test_labels_that_spread_are_no_p_over_rows(spec):
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    for make, words in (
        (ICONClustering, "not the rows"),
        (ICONEmbedding, "not the rows"),
        (ICONCrossModal, "not pair"),
    ):
        with pytest.raises(ValueError, match=words):
            make(supervisory=spec).fit(X, y)


@pytest.mark.parametrize("odd", [None, 3])
@pytest.mark.parametrize("p", [None, "same_class", "propagated_label"])
def test_labels_of_several_kinds_are_named(odd, p):
    y = np.array([*"abcd" * 7, odd], dtype=object)[:: -1 if odd else 1]
    with pytest.raises(ValueError, match="y must hold numbers, or text, of one kind; got labels of several kinds"):
        ICONClassifier(supervisory=p).fit(np.arange(58.0).reshape(29, 2), y)
