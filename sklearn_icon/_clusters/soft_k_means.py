"""Reverse KL of clusters over all pairs of rows: k-means and its soft and heavy-tailed forms.

With p(j|i) ~ w_j k(d_ij), the row itself included, and w_j the rows' weights,

    sum_i w_i KL(q_i || p_i) = sum_i w_i [ sum_j q(j|i) (-log k(d_ij)) - H(q_i) + log Z_i ],

where for a Gaussian k the first sum is J / s^2, J the inertia around cluster means: k-means, as s shrinks. So k-means
gives the start, and a quasi-Newton method goes down the loss itself. In the limit the loss, times s^2, is J, and
k-means is the solution.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.special import logsumexp
from sklearn.cluster import KMeans

from .._core.rows import average_duplicates, in_units, is_itself, unit_of
from .._optim.methods import LBFGS
from .._optim.solver import SolverResult
from .._optim.train import Problem, Run, train
from ..learned import SharedCluster
from .local_search import quiet
from .multistart import SURE, Partition

_START = 3.0
_TOLERANCE = 1e-7


def mean_reverse_kl(log_p: torch.Tensor, logits: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """sum_i w_i KL(q_i || p_i) over all pairs of rows, each with itself; `mass` are the w, `logits` of memberships."""
    kernel = SharedCluster("degree")
    log_q = kernel.pairwise(*kernel.prepare(logits, logits, mass))
    return mass @ (log_q.exp() * (log_q - log_p)).sum(1)


def solve_k_means(rows: Any, X: Any, sample_weight: np.ndarray, k_means: KMeans) -> Partition:
    """Hard clusters of the least inertia that a KMeans of scikit-learn finds among rows as p measures them.

    Equal rows of X have equal memberships; the loss is the mean inertia.
    """
    offset, unit = np.zeros(rows.shape[1]), unit_of(rows)
    rows = in_units(rows, unit)
    if rows.dtype == np.float32 and not sparse.issparse(rows):  # an offset would cost digits
        offset = rows.mean(axis=0, dtype=np.float64)
        rows = (rows - offset).astype(np.float32)
    k_means.init = moved(k_means.init, unit, offset)
    with quiet():
        k_means.fit(rows, sample_weight=sample_weight)
    loss = float(k_means.inertia_ / sample_weight.sum()) / unit / unit
    hard = average_duplicates(np.eye(k_means.n_clusters)[k_means.labels_], X)
    result = SolverResult(loss, k_means.n_iter_, np.array([loss]), "converged")
    return Partition(SURE * hard, loss, result, {"centers": (k_means.cluster_centers_ + offset) / unit})


def moved(init: Any, unit: float, offset: Any = 0.0) -> Any:
    """Starts of k-means for rows times a unit and less an offset.

    What a function returns may be a view of the rows that it is given, which k-means would overwrite.
    """

    def less(centers: Any) -> Any:
        """Less the offset, but for centres of other columns, which k-means refuses."""
        return centers - offset if centers.shape[1:] == np.shape(offset) else centers

    if callable(init):

        def started(X: Any, k: int, random_state: Any) -> Any:
            X = X.copy() if unit == 1 and not np.any(offset) else (X + offset if np.any(offset) else X) / unit
            centers = init(X, k, random_state=random_state)
            return centers if sparse.issparse(centers) else less(np.array(centers, dtype=np.float64) * unit)

        return started
    if not is_itself(init) or (unit == 1 and not np.any(offset)):
        return init
    return less(np.asarray(init, dtype=np.float64) * unit)


def solve_soft_k_means(
    log_p: np.ndarray, rows: Any, X: Any, sample_weight: np.ndarray, start: KMeans, max_iter: int, run: Run
) -> Partition:
    """Memberships that minimise the mean of KL(q_i || p_i) over all pairs, from the labels that a KMeans gives rows.

    `log_p` of shape (n, n) is that of weights of one.
    """
    start.init = moved(start.init, 1.0)
    labels = start.fit(rows, sample_weight=sample_weight).labels_
    counted = np.flatnonzero(sample_weight)
    weights = sample_weight[counted] / sample_weight.sum()
    log_p = log_p[np.ix_(counted, counted)] + np.log(weights)
    of_pairs = torch.as_tensor(log_p - logsumexp(log_p, axis=1, keepdims=True), device=run.device)
    hard = _START * np.eye(start.n_clusters)
    logits = torch.as_tensor(hard[labels[counted]], device=run.device).requires_grad_()
    mass = torch.as_tensor(weights, device=run.device)
    problem = Problem(lambda _: mean_reverse_kl(of_pairs, logits, mass), [logits])
    result = train(problem, LBFGS(_TOLERANCE), max_iter, run, "descent")
    solved = hard[labels]
    solved[counted] = logits.detach().cpu().numpy()
    return Partition(average_duplicates(solved, X), result.loss, result, {})
