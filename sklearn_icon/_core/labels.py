"""What a user's labels say: classes, rows of shares, and which are unknown."""

import numpy as np
from scipy import sparse
from sklearn.utils.class_weight import compute_class_weight

_SUM_TOLERANCE = 1e-3  # of rows of shares, which may be rounded


def is_known(y):
    """Which labels are known: all but -1."""
    return np.ones(len(y), dtype=bool) if y.dtype.kind in "US" else np.asarray(y != -1)


def is_one_hot(y):
    """Whether each row of a 0/1 matrix has a single one, and so names a class."""
    return bool((np.asarray(y.sum(axis=1) if sparse.issparse(y) else np.asarray(y).sum(axis=1)) == 1).all())


def shares(y):
    """Rows of class probabilities in double precision.

    Raises
    ------
    ValueError
        A row has a negative entry or does not sum to one.
    """
    sums = y.sum(axis=1)
    wrong = np.flatnonzero((y.min(axis=1) < 0) | (np.abs(sums - 1) > _SUM_TOLERANCE))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"y of shape {y.shape} must hold class probabilities, but its row {row} sums to {sums[row]:g} with a least "
            f"value of {y[row].min():g}; divide rows by their sums, or pass 1-D labels."
        )
    return y.astype(np.float64)


def classes_and_codes(y, known, names):
    """(classes, codes of y, -1 where not known); shares stay what they are, their classes the names of the columns.

    Raises
    ------
    ValueError
        Fewer than two classes.
    """
    if y.ndim == 2:
        return np.arange(y.shape[1]) if names is None else names, y
    classes, of_known = np.unique(y[known], return_inverse=True)
    if len(classes) < 2:
        found = repr(classes.tolist()[0]) if len(classes) else "unknown"
        raise ValueError(f"the data contains only one class, {found}; a classifier needs samples of two or more.")
    codes = np.full(len(y), -1)
    codes[known] = of_known
    return classes, codes


def class_weights(class_weight, classes, labels, sample_weight):
    """The weight of each class; "balanced" counts a row as often as its weight says.

    Raises
    ------
    ValueError
        Keys that are no classes, weights that are negative or not finite, or none that is positive.
    """
    if class_weight == "balanced":
        mass = sample_weight @ labels.weights
        return mass.sum() / (len(classes) * np.maximum(mass, np.finfo(float).tiny))
    weights = compute_class_weight(class_weight, classes=classes, y=classes)
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
        raise ValueError(f"class_weight={class_weight} must hold finite weights, none negative and not all zero.")
    return weights
