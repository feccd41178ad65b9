"""Memberships of a chosen partition: of rows by where p leads from them, or of any rows by a linear map as good."""

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from .._core.conditional import Conditional
from .._core.rows import in_units, refuse_tiny, unit_of
from ..encoders._networks import input_scale
from .choice import Candidate, as_even, as_good, candidate
from .local_search import quiet
from .losses import sq_distances

_STRENGTH, _REGRESSION_STEPS, _REGRESSION = 1.0, 20, 1e8  # C, steps and the most rows x columns x clusters
_LINEAR_ERRORS = 1.0
_OF_ALL = 0.01  # of a membership, so that none is impossible


def soft(p: Conditional, labels: np.ndarray) -> np.ndarray:
    """Memberships of rows: where p leads from them, a little of all; two thirds their own where that is not likeliest.

    Their own cluster is the likeliest of each.
    """
    n, k = len(labels), int(labels.max()) + 1
    members = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), (n, k))
    own, led = members.toarray(), (p.weights @ members).toarray()
    led = np.where(p.has_positives[:, None], led, own)
    elsewhere = (led * own).sum(axis=1) <= (led - led * own).max(axis=1) + 1e-6
    led[elsewhere] = (2 * own[elsewhere] + led[elsewhere]) / 3
    return (1 - _OF_ALL) * led + _OF_ALL / k


def linear(X: Any, chosen: Candidate, p: Conditional, sample_weight: np.ndarray) -> tuple | None:
    """(weights, biases) of a linear map whose partition is as good as the chosen one, or None.

    The nearest mean is tried first, under which logits are those of normal clusters of one spread; then softmax
    regression on the labels.
    """
    k, share = int(chosen.labels.max()) + 1, sample_weight / sample_weight.sum()
    if k == 1:
        return None
    tries = [nearest_mean] + [_regression] * (X.shape[0] * X.shape[1] * k <= _REGRESSION)
    for made_of in tries:
        coef, intercept = made_of(X, chosen.labels, share)
        labels = np.asarray(X @ coef.T + intercept).argmax(axis=1)
        if len(np.unique(labels)) < k:
            continue
        found = candidate("linear", labels, 0.0, p, share)
        if as_even(found, chosen) and as_good(found, chosen, share, _LINEAR_ERRORS):
            return coef, intercept
    return None


def nearest_mean(X: Any, labels: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2 s m_c and -s |m_c|^2 of means m_c, s one over twice the rows' variance around them; of centred rows."""
    refuse_tiny(X)
    n, k, unit = len(labels), int(labels.max()) + 1, unit_of(X)
    X = in_units(X, unit)
    center = np.asarray(share @ X)
    members = sparse.csr_array((share, labels, np.arange(n + 1)), (n, k))
    means = members.T @ X
    means = (means.toarray() if sparse.issparse(means) else means) / np.maximum(members.sum(axis=0), 1e-300)[:, None]
    variance = float(share @ sq_distances(X, means, labels)) / X.shape[1]
    sharpness = 0.5 / max(variance, np.finfo(np.float64).tiny ** 0.5)
    means = means - center
    coef = 2 * sharpness * means
    return coef * unit, -sharpness * np.square(means).sum(axis=1) - coef @ center


def _regression(X: Any, labels: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of softmax regression of the labels on centred rows over their spread."""
    shift, factor = input_scale(X, share)
    rows = (X - shift) * factor if not sparse.issparse(X) else sparse.csr_array(X * factor)
    with quiet():
        fit = LogisticRegression(C=_STRENGTH, max_iter=_REGRESSION_STEPS)
        fit.fit(rows, labels, sample_weight=share * len(share))
    coef, intercept = fit.coef_ * factor, fit.intercept_
    if len(fit.classes_) == 2:
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    return coef, intercept - coef @ shift
