"""Reverse KL of clusters over all pairs of rows: k-means and its soft and heavy-tailed forms.

With p(j|i) ~ w_j k(d_ij), the row itself included, and w_j the rows' weights,

    sum_i w_i KL(q_i || p_i) = sum_i w_i [ sum_j q(j|i) (-log k(d_ij)) - H(q_i) + log Z_i ],

where for a Gaussian k the first sum is J / s^2, J the inertia around cluster means: k-means, as s shrinks. So k-means
gives the start, and a quasi-Newton method goes down the loss itself. In the limit the loss, times s^2, is J, and
k-means is the solution.
"""

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.cluster import KMeans

from .._core.rows import average_duplicates
from .._optim.solver import SolverResult, minimize
from ..learned import SharedCluster
from .local_search import quiet
from .multistart import SURE, Partition

_START = 3.0
_TOLERANCE = 1e-7


def mean_reverse_kl(log_p, logits, mass):
    """sum_i w_i KL(q_i || p_i) over all pairs of rows, each with itself.

    Parameters
    ----------
    log_p : tensor of shape (n, n)
        log p(j|i), the weights of keys included.
    logits : tensor of shape (n, n_clusters)
        Of memberships.
    mass : tensor of shape (n,)
        Weights w of rows, and of keys in q; sum one.

    Returns
    -------
    tensor
        A scalar.
    """
    kernel = SharedCluster("degree")
    log_q = kernel.pairwise(*kernel.prepare(logits, logits, mass))
    return mass @ (log_q.exp() * (log_q - log_p)).sum(1)


def solve_k_means(rows, X, n_clusters, *, sample_weight, **options):
    """Hard clusters of the least inertia that scikit-learn's KMeans finds.

    Parameters
    ----------
    rows : ndarray or sparse matrix of shape (n, n_columns)
        Between which p measures distances.
    X : ndarray or sparse matrix of shape (n, n_features)
        Of equal rows of X memberships are equal.
    n_clusters : int
    sample_weight : ndarray of shape (n,)
    **options
        Of KMeans.

    Returns
    -------
    Partition
        Its loss is the mean inertia.
    """
    k_means = KMeans(n_clusters, **options)
    offset = np.zeros(rows.shape[1])
    if rows.dtype == np.float32 and isinstance(rows, np.ndarray):  # an offset would cost digits
        offset = rows.mean(axis=0, dtype=np.float64)
        rows = (rows - offset).astype(np.float32)
        k_means.init = _shifted(k_means.init, offset)
    with quiet():
        k_means.fit(rows, sample_weight=sample_weight)
    loss = float(k_means.inertia_ / sample_weight.sum())
    hard = average_duplicates(np.eye(n_clusters)[k_means.labels_], X)
    result = SolverResult(loss, k_means.n_iter_, np.array([loss]), "converged")
    return Partition(SURE * hard, loss, result, {"centers": k_means.cluster_centers_ + offset})


def _shifted(init, offset):
    """Starts of k-means for rows less an offset."""
    if isinstance(init, str):
        return init
    if callable(init):
        return lambda X, n_clusters, random_state: init(X + offset, n_clusters, random_state=random_state) - offset
    init = np.asarray(init, dtype=np.float64)
    return init - offset if init.shape[1:] == offset.shape else init


def solve_soft_k_means(log_p, rows, X, n_clusters, *, sample_weight, starts, max_iter, device, on_step):
    """Memberships that minimise the mean of KL(q_i || p_i) over all pairs.

    Parameters
    ----------
    log_p : ndarray of shape (n, n)
        log p(j|i) for weights of one.
    rows, X, n_clusters
        As in `solve_k_means`, which finds the start.
    sample_weight : ndarray of shape (n,)
    starts : dict
        Options of KMeans.
    max_iter : int
        Iterations of the descent.
    device : torch.device
        Where the descent runs.
    on_step : callable (n_iter, loss) or None

    Returns
    -------
    Partition
    """
    labels = KMeans(n_clusters, **starts).fit(rows, sample_weight=sample_weight).labels_
    counted = np.flatnonzero(sample_weight)
    weights = sample_weight[counted] / sample_weight.sum()
    log_p = log_p[np.ix_(counted, counted)] + np.log(weights)
    log_p = torch.as_tensor(log_p - logsumexp(log_p, axis=1, keepdims=True), device=device)
    start = _START * np.eye(n_clusters)
    logits = torch.as_tensor(start[labels[counted]], device=device).requires_grad_()
    mass = torch.as_tensor(weights, device=device)

    def loss():
        return mean_reverse_kl(log_p, logits, mass)

    result = minimize(loss, [logits], method="lbfgs", max_iter=max_iter, tol=_TOLERANCE, on_step=on_step)
    solved = start[labels]
    solved[counted] = logits.detach().cpu().numpy()
    return Partition(average_duplicates(solved, X), result.loss, result, {})
