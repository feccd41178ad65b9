"""A task on the digits for every method of the table, by what it reads: fit it, and measure what it learned."""

import time
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph

from sklearn_icon import methods
from sklearn_icon.metrics import clustering_accuracy
from sklearn_icon.supervisory import PositivePairs

_NEIGHBORS, _CLASSES = 10, 10
_WHOLE_ITEMS = {"dhel", "mv-infonce"}  # which read all views of an item at once, so that batches draw them
_NOISE = 2.0  # of views, in grey levels of 16


class Outcome(NamedTuple):
    """A fitted method: its measure's name and value, what chance gives, CPU seconds of the fit, and what it learned."""

    measure: str
    value: float
    chance: float
    seconds: float
    finite: bool
    estimator: object
    learned: np.ndarray  # representations or memberships of the rows below
    labels: np.ndarray


def run(name, n=None, seed=0, **params):
    """The outcome of a method on the first n digits."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:n].astype(np.float32), y[:n]
    method = methods.get(name)
    task = {"ICONEmbedding": _map, "ICONClustering": _cluster, "ICONClassifier": _classify, "ICONCrossModal": _match}
    if method.estimator == "ICONClustering":
        params = {"n_clusters": _CLASSES} | params
    if method.family == "contrastive" and method.estimator == "ICONEmbedding":
        drawn = {"supervisory": PositivePairs(augment=_noisy), "batch_size": 128}
        params = (drawn if name in _WHOLE_ITEMS else {"method": "sampled", "batch_size": 256}) | params
    estimator = method.make_estimator(random_state=seed, **params)
    return task[method.estimator](method, estimator, X, y, seed)


def _noisy(batch):
    return batch + _NOISE * torch.randn_like(batch)


def _fit(estimator, *data):
    start = time.process_time()
    estimator.fit(*data)
    return time.process_time() - start


def _outcome(measure, value, chance, seconds, estimator, learned, labels):
    finite = bool(np.isfinite(learned).all() and np.isfinite(estimator.loss_curve_).all())
    return Outcome(measure, float(value), float(chance), seconds, finite, estimator, learned, labels)


def graph_of(X):
    """A symmetric graph of near rows, heavier where they are nearer."""
    graph = kneighbors_graph(X, _NEIGHBORS, mode="distance")
    graph.data = np.exp(-np.square(graph.data / graph.data.mean()))
    return graph.maximum(graph.T)


def _map(method, estimator, X, y, seed):
    """Maps: how often the nearest places have a row's class, by cross-validation."""
    if estimator.supervisory.views:
        seconds = _fit(estimator, X)
        places = estimator.transform(X)
    elif method.reads.startswith("y: which item"):
        noise = np.random.RandomState(seed).normal(scale=_NOISE, size=(2 * len(X), X.shape[1]))
        views = np.concatenate([X, X]) + noise.astype(X.dtype)
        seconds = _fit(estimator, views, np.tile(np.arange(len(X)), 2))
        places = estimator.transform(X)
    elif method.reads.startswith("y: companion"):
        left, right = _halves(X)
        seconds = _fit(estimator, left, right)
        places = estimator.embedding_
    else:
        seconds = _fit(estimator, graph_of(X) if "weights" in method.reads else X)
        places = estimator.embedding_
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    accuracy = cross_val_score(KNeighborsClassifier(_NEIGHBORS), places, y, cv=folds).mean()
    return _outcome("10-neighbour accuracy", accuracy, _largest(y), seconds, estimator, places, y)


def _cluster(method, estimator, X, y, seed):
    """Clusters: their agreement with the classes, labelled rows among them."""
    rows = X / X.std() if method.divergence == "reverse_kl" else X  # whose widths are absolute
    if "weights" in method.reads:
        rows = graph_of(X)
    told = y
    if method.reads.endswith("-1 where unknown"):  # half of the classes, and half of the rows of the others
        told = np.where((y < _CLASSES // 2) & (np.random.RandomState(seed).uniform(size=len(y)) < 0.5), y, -1)
    seconds = _fit(estimator, rows, *([told] if method.reads.startswith("y: class") else []))
    shuffled = np.random.RandomState(seed).permutation(estimator.labels_)
    chance = clustering_accuracy(y, shuffled)
    accuracy = clustering_accuracy(y, estimator.labels_)
    return _outcome("clustering accuracy", accuracy, chance, seconds, estimator, estimator.predict_proba(rows), y)


def _classify(method, estimator, X, y, seed):
    """Classes: right answers on a quarter held out."""
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=seed)
    if method.reads.startswith("y: soft"):  # how near k-means' centres are
        sq = np.square(KMeans(_CLASSES, n_init=5, random_state=seed).fit(X_train).transform(X_train))
        seconds = _fit(estimator, X_train, softmax(-2 * sq / sq.min(axis=1).mean(), axis=1))
        found = clustering_accuracy(y_test, estimator.predict(X_test))
        represented = estimator.transform(X_test)
        return _outcome("clustering accuracy", found, _largest(y_test), seconds, estimator, represented, y_test)
    seconds = _fit(estimator, X_train, y_train)
    accuracy, represented = estimator.score(X_test, y_test), estimator.transform(X_test)
    return _outcome("accuracy", accuracy, _largest(y_test), seconds, estimator, represented, y_test)


def _match(method, estimator, X, y, seed):
    """Two modalities, the left and the right halves: whether a new row's partner is the nearest."""
    left, right, left_test, right_test, _, y_test = _split(*_halves(X), y, seed)
    seconds = _fit(estimator, left, right)
    places, others = estimator.transform(left_test, right_test)
    nearest = KNeighborsClassifier(1).fit(others, np.arange(len(others))).predict(places)
    recall = np.mean(nearest == np.arange(len(places)))
    return _outcome("recall at 1", recall, 1 / len(places), seconds, estimator, places, y_test)


def _split(left, right, y, seed):
    left, left_test, right, right_test, y, y_test = train_test_split(left, right, y, stratify=y, random_state=seed)
    return left, right, left_test, right_test, y, y_test


def _halves(X):
    """The left and the right columns of the images."""
    images = X.reshape(len(X), 8, 8)
    return images[:, :, :4].reshape(len(X), -1), images[:, :, 4:].reshape(len(X), -1)


def _largest(y):
    """The share of the largest class, which a constant answer gets right."""
    return np.unique(y, return_counts=True)[1].max() / len(y)
