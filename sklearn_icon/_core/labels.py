"""What a user's labels say: classes, rows of probabilities, and which are unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.class_weight import compute_class_weight

from .group import group
from .types import Rows

if TYPE_CHECKING:
    from .conditional import Conditional

_SUM_TOLERANCE = 1e-3  # of rows of probabilities, which may be rounded
_MOST_EXACT = 2.0**53  # below which whole numbers are told apart in double precision


def is_known(y: np.ndarray) -> np.ndarray:
    """Which labels are known: all but -1."""
    return np.ones(len(y), dtype=bool) if y.dtype.kind in "US" else np.asarray(y != -1)


def told_apart(labels: np.ndarray, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """(classes in order, the number of each label's); a ValueError where labels cannot be told apart."""
    plain = np.array(labels.tolist()) if len(labels) else np.array([], dtype=np.int64)
    mixed = labels.dtype.kind == "O" and plain.dtype.kind in "USO" and len(set(map(type, labels))) > 1
    if mixed or plain.ndim != 1 or (labels != labels).any():
        raise ValueError(f"y must hold numbers, or text, {remedy}; got labels of several kinds or NaN or None.")
    return np.unique(plain, return_inverse=True)


class Known(NamedTuple):
    """The classes that labels name, in order, and the number of each row's, -1 where it is unknown."""

    classes: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray) -> Known:
        """Those of labels of which -1 is unknown; a ValueError where labels cannot be told apart."""
        if y.dtype.kind in "US" and (y == "-1").any():
            raise ValueError(
                "y holds '-1' as text among names; for unlabelled rows pass the number -1, in an array of dtype object."
            )
        known = is_known(y)
        codes = np.full(len(y), -1)
        classes, codes[known] = told_apart(y[known], "and -1 for unlabelled rows")
        return cls(classes, codes)

    def numbers(self, n_clusters: int) -> np.ndarray:
        """The numbers of so many clusters: whole numbers below 2^53 that are classes stay, others are 0, 1, ..."""
        own = np.arange(len(self.classes))
        if self.classes.dtype.kind in "biuf":
            classes = self.classes.astype(np.float64)
            if (np.abs(classes) < _MOST_EXACT).all() and (classes == np.trunc(classes)).all():
                own = self.classes.astype(np.int64)
        return np.concatenate([own, max(own.max(initial=-1), -1) + 1 + np.arange(n_clusters - len(own))])


def is_one_hot(y: Rows) -> bool:
    """Whether each row of a 0/1 matrix has a single one, and so names a class."""
    return bool((np.asarray(y.sum(axis=1) if sparse.issparse(y) else np.asarray(y).sum(axis=1)) == 1).all())


def class_probabilities(y: np.ndarray) -> np.ndarray:
    """Rows of class probabilities in double precision; a ValueError where one is negative or does not sum to one."""
    sums = y.sum(axis=1)
    wrong = np.flatnonzero((y.min(axis=1) < 0) | (np.abs(sums - 1) > _SUM_TOLERANCE))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"y of shape {y.shape} must hold class probabilities, but its row {row} sums to {sums[row]:g} with a least "
            f"value of {y[row].min():g}; divide rows by their sums, or pass 1-D labels."
        )
    return y.astype(np.float64)


def numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels in order, each once, the number of each): by counting where they are small whole numbers."""
    if labels.dtype.kind != "i" or not len(labels) or labels.min() < 0 or labels.max() >= len(labels):
        return np.unique(labels, return_inverse=True)
    there = np.bincount(labels) > 0
    return np.flatnonzero(there).astype(labels.dtype), (np.cumsum(there) - 1)[labels]


def classes_and_codes(y: np.ndarray, known: np.ndarray, names: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(classes, codes of y, -1 where not known); of fewer than two classes a ValueError.

    Rows of probabilities stay what they are, their classes the names of the columns.
    """
    if y.ndim == 2:
        return np.arange(y.shape[1]) if names is None else names, y
    own, of_own = numbered(y[known])
    of_ranks = group().objects(own)
    classes = own if len(of_ranks) == 1 else np.unique(np.concatenate(of_ranks))
    if len(classes) < 2:
        found = repr(classes.tolist()[0]) if len(classes) else "unknown"
        raise ValueError(f"the data contains only one class, {found}; a classifier needs samples of two or more.")
    codes = np.full(len(y), -1)
    codes[known] = np.searchsorted(classes, own)[of_own]
    return classes, codes


def codes_of(y: np.ndarray, known: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Numbers of labels among sorted classes, -1 where not known; rows of probabilities stay what they are.

    A ValueError where a label is none of the classes.
    """
    if y.ndim == 2:
        return y
    codes = np.full(len(y), -1)
    codes[known] = np.searchsorted(classes, y[known]).clip(max=len(classes) - 1)
    new = y[known][classes[codes[known]] != y[known]]
    if len(new):
        raise ValueError(f"y holds {new.tolist()[0]!r}, which is none of the classes {classes.tolist()} of the fit.")
    return codes


def class_weights(
    class_weight: dict | str | None, classes: np.ndarray, labels: Conditional, sample_weight: np.ndarray
) -> np.ndarray:
    """The weight of each class; "balanced" counts a row as often as its weight says.

    A ValueError where keys are no classes, weights are negative or not finite, or none is positive.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if class_weight == "balanced":
        mass = group().total(np.asarray(sample_weight @ labels.weights))
        return mass.sum() / (len(classes) * np.maximum(mass, np.finfo(float).tiny))
    weights = compute_class_weight(class_weight, classes=classes, y=classes)
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
        raise ValueError(f"class_weight={class_weight} must hold finite weights, none negative and not all zero.")
    return weights
