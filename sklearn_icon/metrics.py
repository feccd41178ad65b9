"""Scores for embeddings, clusterings and predicted probabilities, and scorers made from them.

A function compares two labelings ``(y_true, y_pred)``, data with its map ``(X, Z)``, or labels with
probabilities ``(y_true, y_prob)``. Larger is better, except in `expected_calibration_error`. None needs an
``n x n`` matrix: past `n_probes` rows the neighbour scores are estimated from a seeded sample of rows, each
compared with all others.

A scorer is a callable ``(estimator, X, y=None) -> float``, larger is better. Further keyword arguments reach
the function it applies; fix them with `functools.partial`.

>>> from functools import partial
>>> from sklearn.datasets import load_iris
>>> from sklearn.decomposition import PCA
>>> from sklearn.model_selection import GridSearchCV
>>> from sklearn_icon.metrics import knn_recall_scorer
>>> scoring = partial(knn_recall_scorer, n_neighbors=5)
>>> search = GridSearchCV(PCA(), {"n_components": [1, 2]}, scoring=scoring).fit(load_iris().data)
>>> search.best_params_
{'n_components': 2}
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array, issparse
from sklearn.metrics import make_scorer, pairwise_distances, silhouette_score
from sklearn.metrics.pairwise import PAIRED_DISTANCES, paired_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    check_random_state,
    check_scalar,
    column_or_1d,
    gen_batches,
)

from ._core.rows import in_units, of_numbers, unit_of
from ._core.types import Array, Jobs, Metric, Rows, Seed

__all__ = [
    "calibration_scorer",
    "clustering_accuracy",
    "clustering_accuracy_scorer",
    "expected_calibration_error",
    "knn_recall",
    "knn_recall_scorer",
    "random_triplet_accuracy",
    "random_triplet_scorer",
    "silhouette_scorer",
    "trustworthiness",
    "trustworthiness_scorer",
]

_BLOCK_BYTES = 2**28  # size of the largest block of float64 numbers that a score holds
_OF_UNITS = ("precomputed", "haversine")  # metrics that X's units matter to
_PROBABILITY_TOLERANCE = 1e-3  # lets half-precision probabilities through


def clustering_accuracy(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    r"""Fraction of samples that the best one-to-one matching of clusters to classes gets right.

    .. math:: \max_{\pi} \frac{\sum_i w_i \, 1[y_i = \pi(c_i)]}{\sum_i w_i}

    where :math:`\pi` runs over the one-to-one matchings of clusters to classes (the Hungarian method finds
    the best). With more clusters than classes the clusters left over count as wrong. The names of classes
    and clusters do not matter.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Classes: integers, strings or any values that sort.
    y_pred : array-like of shape (n_samples,)
        Clusters, likewise.
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; None weighs every sample 1.

    Returns
    -------
    accuracy : float
        In (0, 1]; 1 where the two partitions are the same.

    Raises
    ------
    ValueError
        If the lengths differ, the labels hold NaN or fractions, or the weights are negative or all zero.

    References
    ----------
    Yang, Xu, Nie, Yan and Zhuang, "Image clustering using local discriminant models and global
    integration", IEEE Transactions on Image Processing 2010. Kuhn, "The Hungarian method for the assignment
    problem", Naval Research Logistics 1955.

    Examples
    --------
    >>> from sklearn_icon.metrics import clustering_accuracy
    >>> clustering_accuracy(["a", "a", "b", "b"], [1, 1, 0, 1])
    0.75
    """
    y_true, y_pred = _check_labels(y_true, "y_true"), _check_labels(y_pred, "y_pred")
    weight = np.ones(len(y_true)) if sample_weight is None else sample_weight
    weight = column_or_1d(check_array(weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"))
    check_consistent_length(y_true, y_pred, weight)
    if weight.min() < 0 or weight.max() == 0:
        raise ValueError("sample_weight is negative or all zero; pass weights >= 0 with a positive sum.")
    weight = weight / weight.max()  # whose sum is finite
    _, classes = np.unique(y_true, return_inverse=True)
    _, clusters = np.unique(y_pred, return_inverse=True)
    table = coo_array((weight, (classes, clusters))).toarray()
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / weight.sum())


def knn_recall(
    X: Rows,
    Z: Any,
    *,
    n_neighbors: int = 10,
    metric: Metric = "euclidean",
    n_probes: int | None = 3000,
    random_state: Seed = 0,
    n_jobs: Jobs = None,
) -> float:
    r"""Mean fraction of a row's nearest neighbours in X that are also among its nearest in Z.

    .. math:: \frac{1}{m k} \sum_{i=1}^{m} | N_k^X(i) \cap N_k^Z(i) |

    where :math:`N_k(i)` are the :math:`k` rows nearest to row :math:`i`, itself excluded. The neighbours
    are exact. A random map scores about :math:`k / (n - 1)`.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
        Data, or pairwise distances where ``metric="precomputed"``.
    Z : array-like of shape (n_samples, n_components)
        Map of the same rows; its distances are Euclidean.
    n_neighbors : int, default=10
        Neighbours :math:`k` of each row.
    metric : str or callable, default="euclidean"
        Distance in X, as in :class:`sklearn.neighbors.NearestNeighbors`.
    n_probes : int or None, default=3000
        Rows :math:`m` averaged over, drawn without replacement and compared with all rows; None, or as many
        as there are, takes every row.
    random_state : int, RandomState instance or None, default=0
        Draws the probes.
    n_jobs : int, default=None
        Threads of the neighbour search.

    Returns
    -------
    recall : float
        In [0, 1].

    Raises
    ------
    ValueError
        If X and Z differ in length, hold NaN or infinity, or have no more than `n_neighbors` rows.

    References
    ----------
    Lee and Verleysen, "Quality assessment of dimensionality reduction: rank-based criteria",
    Neurocomputing 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon.metrics import knn_recall
    >>> X = load_iris().data
    >>> round(knn_recall(X, X[:, 2:]), 1)
    0.5
    """
    X, Z = _check_map(X, Z, metric)
    check_scalar(n_neighbors, "n_neighbors", Integral, min_val=1)
    n_samples = len(Z)
    if n_neighbors >= n_samples:
        raise ValueError(f"n_neighbors={n_neighbors} needs at least {n_neighbors + 1} rows, got {n_samples}; lower it.")
    rows = _probes(n_samples, n_probes, random_state)
    near_x = _neighbors(X, rows, n_neighbors, metric, n_jobs)
    near_z = _neighbors(Z, rows, n_neighbors, "euclidean", n_jobs)
    both = np.sort(np.hstack([near_x, near_z]), axis=1)  # a shared neighbour stands twice, side by side
    return float(np.mean(both[:, 1:] == both[:, :-1]) * (2 * n_neighbors - 1) / n_neighbors)


def knn_recall_among(distances: Rows, Z: Array, keys: Array, n_neighbors: int) -> float:
    """`knn_recall` of rows that are measured against others: distances (n, m) to keys, which lie at (m, d) in a map."""
    n_neighbors = min(n_neighbors, len(keys))
    near_z = NearestNeighbors(n_neighbors=n_neighbors).fit(keys).kneighbors(Z, return_distance=False)
    if issparse(distances):
        held = csr_array(distances)
        pairs = (slice(*ends) for ends in pairwise(held.indptr))
        near = [held.indices[part][np.argsort(held.data[part], kind="stable")[:n_neighbors]] for part in pairs]
    else:
        near = list(np.argsort(distances, axis=1, kind="stable")[:, :n_neighbors])
    return float(np.mean([len(set(a) & set(b)) / n_neighbors for a, b in zip(near, near_z, strict=True)]))


def trustworthiness(
    X: Rows,
    Z: Any,
    *,
    n_neighbors: int = 5,
    metric: Metric = "euclidean",
    n_probes: int | None = 3000,
    random_state: Seed = 0,
    n_jobs: Jobs = None,
) -> float:
    r"""Penalise neighbours in Z by how far down they stand among the neighbours in X.

    .. math:: 1 - \frac{2}{m k (2n - 3k - 1)} \sum_{i=1}^{m} \sum_{j \in N_k^Z(i)} \max(0, r^X(i, j) - k)

    where :math:`N_k^Z(i)` are the :math:`k` rows nearest to row :math:`i` in Z and row :math:`j` is the
    :math:`r^X(i, j)`-th nearest to :math:`i` in X. Over all rows it equals
    :func:`sklearn.manifold.trustworthiness`, which holds three ``n x n`` arrays where this holds 256 MiB.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
        Data, or pairwise distances where ``metric="precomputed"``.
    Z : array-like of shape (n_samples, n_components)
        Map of the same rows; its distances are Euclidean.
    n_neighbors : int, default=5
        Neighbours :math:`k` of each row, fewer than half the rows.
    metric : str or callable, default="euclidean"
        Distance in X, as in :func:`sklearn.metrics.pairwise_distances`.
    n_probes : int or None, default=3000
        Rows :math:`m` averaged over, drawn without replacement and ranked among all rows, so the estimate
        is unbiased; None, or as many as there are, takes every row.
    random_state : int, RandomState instance or None, default=0
        Draws the probes.
    n_jobs : int, default=None
        Threads of the distances; of use for others than the Euclidean, whose matrix product has its own.

    Returns
    -------
    trustworthiness : float
        In [0, 1]; 1 where every neighbour in Z is one in X.

    Raises
    ------
    ValueError
        If X and Z differ in length, hold NaN or infinity, or `n_neighbors` is at least half the rows.

    References
    ----------
    Venna and Kaski, "Neighborhood preservation in nonlinear projection methods: an experimental study",
    ICANN 2001.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon.metrics import trustworthiness
    >>> X = load_iris().data
    >>> round(trustworthiness(X, X[:, 2:]), 2)
    0.92
    """
    X, Z = _check_map(X, Z, metric)
    check_scalar(n_neighbors, "n_neighbors", Integral, min_val=1)
    n_samples = len(Z)
    if n_neighbors >= n_samples / 2:
        raise ValueError(f"n_neighbors ({n_neighbors}) should be less than n_samples / 2 ({n_samples / 2}); lower it.")
    rows = _probes(n_samples, n_probes, random_state)
    near_z = _neighbors(Z, rows, n_neighbors, "euclidean", n_jobs)
    excess = 0.0
    for batch in gen_batches(len(rows), max(1, _BLOCK_BYTES // (8 * n_samples))):
        distances = _distances(X, rows[batch], metric, n_jobs)
        ranks = [_ranks(row, near) for row, near in zip(distances, near_z[batch], strict=True)]
        excess += np.maximum(np.array(ranks) - n_neighbors, 0).sum()
    scale = len(rows) * n_neighbors * (2.0 * n_samples - 3.0 * n_neighbors - 1.0)
    return float(1.0 - excess * (2.0 / scale))


def random_triplet_accuracy(
    X: Rows, Z: Any, *, n_triplets: int | None = None, metric: Metric = "euclidean", random_state: Seed = 0
) -> float:
    r"""Fraction of random triplets whose two distances are ordered in Z as they are in X.

    .. math:: \frac{1}{T} \sum_{(i, j, k)} 1\big[ (d_{ij}^X < d_{ik}^X) = (d_{ij}^Z < d_{ik}^Z) \big]

    over :math:`T` triplets of different rows, drawn uniformly. It scores the global structure; random maps score
    one half.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data.
    Z : array-like of shape (n_samples, n_components)
        Map of the same rows; its distances are Euclidean.
    n_triplets : int or None, default=None
        Triplets :math:`T`; None draws five per row.
    metric : str or callable, default="euclidean"
        Distance in X, as in :func:`sklearn.metrics.pairwise.paired_distances`.
    random_state : int, RandomState instance or None, default=0
        Draws the triplets.

    Returns
    -------
    accuracy : float
        In [0, 1].

    Raises
    ------
    ValueError
        If X and Z differ in length, hold NaN or infinity, or have fewer than three rows.

    References
    ----------
    Wang, Huang, Rudin and Shaposhnik, "Understanding how dimension reduction tools work", JMLR 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon.metrics import random_triplet_accuracy
    >>> X = load_iris().data
    >>> round(random_triplet_accuracy(X, X[:, 2:]), 1)
    0.9
    """
    if metric == "precomputed":
        raise ValueError('metric="precomputed" is not supported here; pass the data and a distance between its rows.')
    X, Z = _check_map(X, Z, metric)
    n_samples = len(Z)
    if n_samples < 3:
        raise ValueError(f"A triplet needs at least 3 rows, got {n_samples}; pass more rows.")
    if n_triplets is None:
        n_triplets = 5 * n_samples
    check_scalar(n_triplets, "n_triplets", Integral, min_val=1)
    i, j, k = _triplets(n_samples, n_triplets, check_random_state(random_state))
    agree = 0.0
    for batch in gen_batches(n_triplets, max(1, _BLOCK_BYTES // (32 * max(X.shape[1], Z.shape[1])))):
        nearer_x = _nearer(X, i[batch], j[batch], k[batch], metric)
        agree += np.count_nonzero(nearer_x == _nearer(Z, i[batch], j[batch], k[batch], "euclidean"))
    return float(agree / n_triplets)


def expected_calibration_error(y_true: Any, y_prob: Any, *, n_bins: int = 15, labels: Any = None) -> float:
    r"""Mean gap between the confidence in the predicted class and how often it is right.

    .. math:: \sum_{b=1}^{B} \frac{n_b}{n} \, | \mathrm{acc}_b - \mathrm{conf}_b |

    where bin :math:`b` holds the :math:`n_b` samples whose largest probability lies in
    :math:`((b - 1) / B, b / B]`, :math:`\mathrm{conf}_b` is its mean there and :math:`\mathrm{acc}_b` the
    fraction of correct predictions.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Classes.
    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities, one column per class, or those of the second class of two.
    n_bins : int, default=15
        Bins :math:`B` of equal width.
    labels : array-like of shape (n_classes,), default=None
        Class of each column, such as ``classifier.classes_``; None takes the sorted distinct values of
        `y_true`.

    Returns
    -------
    error : float
        In [0, 1]; smaller is better.

    Raises
    ------
    ValueError
        If the lengths differ, `labels` does not fit the columns or lacks a class of `y_true`, or `y_prob`
        holds NaN, values outside [0, 1] or rows that do not sum to one.

    References
    ----------
    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI
    2015. Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> from sklearn_icon.metrics import expected_calibration_error
    >>> round(expected_calibration_error([0, 1, 1, 0], [0.1, 0.9, 0.9, 0.9]), 2)
    0.15
    """
    return _gap(*_reliability_bins(y_true, y_prob, n_bins, labels))


def knn_recall_scorer(estimator: Any, X: Rows, y: Any = None, **kwargs: Any) -> float:
    """Score ``estimator.transform(X)`` by `knn_recall`.

    Parameters
    ----------
    estimator : fitted estimator with a method `transform`
        What is scored.
    X : array-like of shape (n_samples, n_features)
        Rows that it is scored on.
    y : array-like of shape (n_samples,), default=None
        Ignored.
    **kwargs : dict
        Passed on to `knn_recall`.

    Returns
    -------
    float
        The higher, the better.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn_icon.metrics import knn_recall_scorer
    >>> X = load_iris().data
    >>> 0.5 < knn_recall_scorer(PCA(2).fit(X), X) <= 1
    True
    """
    return knn_recall(X, _embed(estimator, X), **kwargs)


def trustworthiness_scorer(estimator: Any, X: Rows, y: Any = None, **kwargs: Any) -> float:
    """Score ``estimator.transform(X)`` by `trustworthiness`.

    Parameters
    ----------
    estimator : fitted estimator with a method `transform`
        What is scored.
    X : array-like of shape (n_samples, n_features)
        Rows that it is scored on.
    y : array-like of shape (n_samples,), default=None
        Ignored.
    **kwargs : dict
        Passed on to `trustworthiness`.

    Returns
    -------
    float
        The higher, the better.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn_icon.metrics import trustworthiness_scorer
    >>> X = load_iris().data
    >>> 0.9 < trustworthiness_scorer(PCA(2).fit(X), X) <= 1
    True
    """
    return trustworthiness(X, _embed(estimator, X), **kwargs)


def random_triplet_scorer(estimator: Any, X: Rows, y: Any = None, **kwargs: Any) -> float:
    """Score ``estimator.transform(X)`` by `random_triplet_accuracy`.

    Parameters
    ----------
    estimator : fitted estimator with a method `transform`
        What is scored.
    X : array-like of shape (n_samples, n_features)
        Rows that it is scored on.
    y : array-like of shape (n_samples,), default=None
        Ignored.
    **kwargs : dict
        Passed on to `random_triplet_accuracy`.

    Returns
    -------
    float
        The higher, the better.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn_icon.metrics import random_triplet_scorer
    >>> X = load_iris().data
    >>> 0.9 < random_triplet_scorer(PCA(2).fit(X), X, random_state=0) <= 1
    True
    """
    return random_triplet_accuracy(X, _embed(estimator, X), **kwargs)


def silhouette_scorer(
    estimator: Any, X: Rows, y: Any = None, *, sample_size: int | None = 10_000, random_state: Seed = 0, **kwargs: Any
) -> float:
    """Score ``estimator.predict(X)`` by the silhouette, without labels.

    It is :func:`sklearn.metrics.silhouette_score` in [-1, 1], over `sample_size` rows where X has more
    (None takes all). With fewer than two clusters, or as many as rows, the silhouette is undefined: the
    score is then -1.0, the worst, so that a search never chooses such a fit.

    Parameters
    ----------
    estimator : fitted estimator with a method `predict`
        What is scored.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows that it is scored on.
    y : array-like of shape (n_samples,), default=None
        Ignored.
    sample_size : int, default=10_000
        Rows that are compared at the most.
    random_state : int, RandomState instance or None, default=0
        Draws them.
    **kwargs : dict
        Passed on to `silhouette_score`.

    Returns
    -------
    float
        The higher, the better.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.cluster import KMeans
    >>> from sklearn_icon.metrics import silhouette_scorer
    >>> X = load_iris().data
    >>> 0.5 < silhouette_scorer(KMeans(3, n_init=10, random_state=0).fit(X), X) <= 1
    True
    """
    labels = np.asarray(_method(estimator, "predict")(X))
    rows = _probes(len(labels), sample_size, random_state, "sample_size")
    n_labels = len(np.unique(labels[rows]))
    if not 2 <= n_labels < len(rows):
        return -1.0
    X = check_array(X, accept_sparse="csr", input_name="X")
    return float(silhouette_score(X[rows], labels[rows], **kwargs))


def calibration_scorer(estimator: Any, X: Rows, y: Any, **kwargs: Any) -> float:
    """Score ``estimator.predict_proba(X)`` by minus `expected_calibration_error`.

    Parameters
    ----------
    estimator : fitted estimator with a method `predict_proba`
        What is scored.
    X : array-like of shape (n_samples, n_features)
        Rows that it is scored on.
    y : array-like of shape (n_samples,)
        Their labels.
    **kwargs : dict
        Passed on to `expected_calibration_error`.

    Returns
    -------
    float
        The higher, the better.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon import ICONClassifier
    >>> from sklearn_icon.metrics import calibration_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> -0.1 < calibration_scorer(ICONClassifier().fit(X, y), X, y) <= 0
    True
    """
    y_prob = _method(estimator, "predict_proba")(X)
    return -expected_calibration_error(y, y_prob, labels=estimator.classes_, **kwargs)


clustering_accuracy_scorer = make_scorer(clustering_accuracy)
"""Score ``estimator.predict(X)`` by `clustering_accuracy` against y."""


def _check_labels(y: Any, name: str) -> Array:
    """Return y as a 1-D array without missing values or fractions."""
    y = column_or_1d(np.asarray(y))
    if len(y) == 0:
        raise ValueError(f"{name} is empty; pass at least one sample.")
    assert_all_finite(y, input_name=name)
    try:
        np.sort(y)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in y})
        raise ValueError(f"{name} holds labels of types that do not sort, {kinds}; pass labels of one type.") from None
    if y.dtype.kind == "f" and np.any(y != np.floor(y)):
        raise ValueError(f"{name} holds fractions such as {y[y != np.floor(y)][0]}; pass one label per sample.")
    return y


def _check_map(X: Rows, Z: Any, metric: Metric) -> tuple[Rows, Array]:
    """Return data and its map as finite arrays of the same number of rows."""
    X = check_array(X, accept_sparse=False if metric == "precomputed" else "csr", input_name="X")
    Z = check_array(Z, input_name="Z")
    if X.shape[0] != Z.shape[0]:
        raise ValueError(f"X has {X.shape[0]} rows and Z has {Z.shape[0]}; pass the map of these same rows.")
    if metric == "precomputed" and X.shape[0] != X.shape[1]:
        raise ValueError(f'X has shape {X.shape}; metric="precomputed" needs a square matrix of distances.')
    if not callable(metric) and metric not in _OF_UNITS:
        X = in_units(X, unit_of(X))
    return X, in_units(Z, unit_of(Z))


def _probes(n_samples: int, n_probes: int | None, random_state: Seed, name: str = "n_probes") -> Array:
    """Return `n_probes` different rows in order; all of them if None or too few."""
    if n_probes is None:
        return np.arange(n_samples)
    check_scalar(n_probes, name, Integral, min_val=1)
    if n_probes >= n_samples:
        return np.arange(n_samples)
    return np.sort(check_random_state(random_state).choice(n_samples, n_probes, replace=False))


def _neighbors(X: Rows, rows: Array, n_neighbors: int, metric: Metric, n_jobs: Jobs) -> Array:
    """Return the exact nearest neighbours of some rows of X, each row itself excluded."""
    search = NearestNeighbors(n_neighbors=n_neighbors, metric=of_numbers(metric), n_jobs=n_jobs).fit(X)
    found = search.kneighbors(X[rows], n_neighbors + 1, return_distance=False)
    keep = found != rows[:, None]
    keep[keep.all(axis=1), 0] = False  # a row with so many duplicates that it does not list itself
    return found[keep].reshape(len(rows), n_neighbors)


def _distances(X: Rows, rows: Array, metric: Metric, n_jobs: Jobs) -> Array:
    """Return the distances from some rows of X to all, infinite from a row to itself."""
    block = X if len(rows) == X.shape[0] else X[rows]  # X itself lets scikit-learn see the symmetry
    if metric == "precomputed":
        distances = np.array(block, dtype=np.float64)
    else:
        distances = pairwise_distances(block, X, metric=of_numbers(metric), n_jobs=n_jobs)
    distances[np.arange(len(rows)), rows] = np.inf
    return distances


def _ranks(distances: Array, near: Array) -> Array:
    """Return the ranks from 1 of some entries of a row; counting suffices unless one of them is tied."""
    ranks = [1 + np.count_nonzero(distances < distances[j]) for j in near]
    if all(np.count_nonzero(distances == distances[j]) == 1 for j in near):
        return np.array(ranks)
    return 1 + np.argsort(np.argsort(distances))[near]


def _triplets(n_samples: int, n_triplets: int | None, rng: np.random.RandomState) -> tuple[Array, Array, Array]:
    """Draw triplets of three different rows, uniformly."""
    i = rng.randint(n_samples, size=n_triplets)
    j = (i + rng.randint(1, n_samples, size=n_triplets)) % n_samples
    low, high = np.minimum(i, j), np.maximum(i, j)
    k = rng.randint(n_samples - 2, size=n_triplets)
    k += k >= low  # step over the two rows taken
    k += k >= high
    return i, j, k


def _nearer(X: Rows, i: Array, j: Array, k: Array, metric: Metric) -> Array:
    """Tell for each triplet whether row j is nearer to row i than row k is."""
    distance = PAIRED_DISTANCES.get(metric, partial(paired_distances, metric=metric))
    anchors = X[i]
    return distance(anchors, X[j]) < distance(anchors, X[k])


def _reliability_bins(y_true: Any, y_prob: Any, n_bins: int, labels: Any) -> tuple[Array, Array, Array]:
    """Return each bin's accuracy, mean confidence and count; the first two are NaN where it is empty."""
    check_scalar(n_bins, "n_bins", Integral, min_val=1)
    y_true = _check_labels(y_true, "y_true")
    y_prob = check_array(y_prob, ensure_2d=False, dtype=[np.float64, np.float32], input_name="y_prob")
    check_consistent_length(y_true, y_prob)
    if y_prob.ndim == 1:
        y_prob = np.column_stack([1 - y_prob, y_prob])
    labels = _check_columns(y_true, y_prob, labels)
    confidence = y_prob.max(axis=1).astype(np.float64)
    correct = labels[y_prob.argmax(axis=1)] == y_true
    bins = np.digitize(confidence, np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    counts = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        prob_true = np.bincount(bins, weights=correct, minlength=n_bins) / counts
        prob_pred = np.bincount(bins, weights=confidence, minlength=n_bins) / counts
    return prob_true, prob_pred, counts


def _check_columns(y_true: Array, y_prob: Array, labels: Any) -> Array:
    """Return the class of each column of valid probabilities."""
    given = labels is not None
    labels = column_or_1d(np.asarray(labels)) if given else np.unique(y_true)
    if len(labels) != y_prob.shape[1] or len(np.unique(labels)) != len(labels):
        raise ValueError(
            f"y_prob has {y_prob.shape[1]} columns for the {len(np.unique(labels))} distinct values of "
            f"{'labels' if given else 'y_true'}; pass labels=classifier.classes_, the class of each column."
        )
    unknown = np.setdiff1d(y_true, labels)
    if len(unknown):
        raise ValueError(f"y_true holds {unknown[0]!r}, which is not in labels; pass the class of every column.")
    if y_prob.min() < -_PROBABILITY_TOLERANCE or y_prob.max() > 1 + _PROBABILITY_TOLERANCE:
        raise ValueError(f"y_prob spans [{y_prob.min()}, {y_prob.max()}]; pass probabilities, within [0, 1].")
    if np.abs(y_prob.sum(axis=1) - 1).max() > _PROBABILITY_TOLERANCE:
        raise ValueError("The rows of y_prob do not sum to one; pass predict_proba, not scores or one class's column.")
    return labels


def _gap(prob_true: Array, prob_pred: Array, counts: Array) -> float:
    """Return the mean absolute gap between accuracy and confidence, weighted by the counts."""
    gaps = np.abs(np.nan_to_num(prob_true) - np.nan_to_num(prob_pred))
    return float(np.average(gaps, weights=counts))


def _method(estimator: Any, name: str) -> Callable[..., Any]:
    """Return a method of the estimator, or say that it lacks it."""
    method = getattr(estimator, name, None)
    if method is None:
        raise TypeError(f"This scorer needs an estimator with {name}; {type(estimator).__name__} has none.")
    return method


def _embed(estimator: Any, X: Rows) -> Array:
    """Return the estimator's map of X."""
    return _method(estimator, "transform")(X)
