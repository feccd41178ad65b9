"""Normalised cuts: the limit of debiased clusters as the uniform mass goes to one, over hard partitions.

With p~ = (1 - a) p + a pi and q~ = (1 - a) q + a pi, rows averaged and uniform mass spread by one measure pi,

    KL(p~ || q~) / (1 - a)^2  ->  1/2 sum_i pi_i sum_j (p_ij - q_ij)^2 / pi_j.

For hard clusters q_ij = pi_j / m_c inside, m_c the cluster's fraction of pi, and what depends on them is

    sum_c (1 - f_c / m_c),     f_c = sum_{i, j in c} pi_i p_ij.

Where pi is by degree and p = w_ij / d_i, this is the normalised cut, sum_c cut_c / volume_c, which has a relaxation
that eigenvectors solve.
"""

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import KMeans

from .._core.conditional import Conditional
from .._optim.solver import SolverResult
from ..encoders._networks import FixedRows
from ..learned import SharedCluster
from .eigenvectors import leading_eigenvectors
from .local_search import quiet
from .multistart import SURE, Partition
from .row_search import symmetric_flow

_TOL = 1e-7


def normalized_cut(p: Conditional, memberships: torch.Tensor, measure: np.ndarray) -> torch.Tensor:
    """sum_c (1 - f_c / m_c) of hard clusters, m - sum_ij pi_i p_ij q_ij / pi_j of soft ones, over those with members.

    Memberships are in double precision; pi is `measure`, up to a factor; the uniform mass of p is not read.
    """
    pi = torch.as_tensor(measure, dtype=memberships.dtype)
    reached = FixedRows(p.weights, memberships.dtype, memberships.device) @ memberships
    inside, mass = pi @ (memberships * reached), pi @ memberships
    return (1 - inside[mass > 0] / mass[mass > 0]).sum()


def measure_of(p: Conditional, learned: SharedCluster, sample_weight: np.ndarray) -> np.ndarray:
    """pi: by the degrees of p where q weighs by these, else by rows alone; rows without positives have none."""
    by_degree = learned.weights == "degree" and p.degrees is not None
    return sample_weight * p.has_positives * (p.degrees if by_degree else 1.0)


def solve_cut(
    p: Conditional, n_steps: int, learned: SharedCluster, sample_weight: np.ndarray, k_means: KMeans
) -> Partition:
    """Hard clusters by the relaxation of the cut: k-means of the graph's leading eigenvectors.

    p is one step, and `n_steps` the longest walk along it that finds positives.
    """
    n_clusters = k_means.n_clusters
    measure = measure_of(p, learned, sample_weight)
    counted = np.flatnonzero(measure)  # rows that weigh nothing go to the first cluster
    flow = sparse.csr_array(symmetric_flow(p, n_steps, measure)[counted][:, counted])
    rows = leading_eigenvectors(flow, n_clusters, k_means.random_state, _TOL)
    with quiet():
        k_means.set_params(n_clusters=min(n_clusters, len(counted))).fit(rows, sample_weight=sample_weight[counted])
    hard = np.zeros((p.shape[0], n_clusters))
    hard[:, 0] = 1
    hard[counted] = np.eye(n_clusters)[k_means.labels_]
    cut = float(normalized_cut(p, torch.as_tensor(hard), measure))
    return Partition(SURE * hard, cut, SolverResult(cut, 1, np.array([cut]), "converged"), {})
