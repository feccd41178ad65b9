"""How sure memberships may be: as sure as fits to halves of the rows agree on them.

A row's cluster is right or wrong where nobody knows, but what another half of the rows says of it is known. How far
the partitions of two halves agree, and that of all rows with them, estimates how many rows are where they belong:
errors that all fits share it does not see.
"""

import numpy as np
from scipy.optimize import brentq, linear_sum_assignment
from scipy.special import softmax

from .._core.types import Array

_LOG_SHARPNESS = 5.0  # at the most, either way


def agreement(one: Array, other: Array, weight: Array) -> float:
    """The weight of rows that two partitions have in the same cluster, clusters matched one to one, of all."""
    k = int(max(one.max(), other.max())) + 1
    table = np.bincount(one * k + other, weight, k * k).reshape(k, k)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / weight.sum())


def mean_agreement(labels: Array, halves: list[tuple[Array, Array]], weight: Array) -> float:
    """Mean of how far the halves agree with each other, and how far all rows' partition does with them on unseen rows.

    Halves are (rows, labels of all rows); no row of one is in the other.
    """
    (rows, of_one), (others, of_other) = halves
    seen = ((of_one, others), (of_other, rows))
    with_all = np.mean([agreement(labels[where], of[where], weight[where]) for of, where in seen])
    return float(agreement(of_one, of_other, weight) + with_all) / 2


def sharpened(memberships: Array, factor: float) -> Array:
    """phi^s / sum phi^s, s the factor."""
    logs = np.log(np.maximum(memberships.astype(np.float64), np.finfo(np.float64).tiny))
    return softmax(factor * logs, axis=1).astype(memberships.dtype, copy=False)


def sharpness(memberships: Array, weight: Array, wanted: float) -> float:
    """s such that the largest of phi^s / sum phi^s is `wanted` in the mean over rows, or the nearest to that."""

    def more(log_s: float) -> float:
        return float(weight @ sharpened(memberships, np.exp(log_s)).max(axis=1) / weight.sum()) - wanted

    if more(-_LOG_SHARPNESS) >= 0:
        return float(np.exp(-_LOG_SHARPNESS))
    if more(_LOG_SHARPNESS) <= 0:
        return float(np.exp(_LOG_SHARPNESS))
    return float(np.exp(brentq(more, -_LOG_SHARPNESS, _LOG_SHARPNESS, xtol=1e-6)))
