"""The one objective: L = mean_i D( p(.|i) || q(.|i) ), with p from the data and q from representations.

With p(j|i) = (1 - a) w_ij + a / N on N keys, w sparse, and d(p, q) the divergence's elementwise term,

    D(p_i || q_i) = sum_{j: w_ij > 0} [ d(p_ij, q_ij) - d(a/N, q_ij) ]  +  sum_j d(a/N, q_ij).

Without a uniform mass (a = 0), d(0, q) = c q, and the last sum is c: only edges and normalisers are left. The joint
form puts p_ij = (p(j|i) + p(i|j)) / 2n over all pairs in place of rows.
"""

import numpy as np
import torch
from scipy import sparse
from scipy.special import xlogy

from ._divergences import DIVERGENCES, Divergence
from ._grid import GridPotential, grid_normalizer
from ._sums import (
    DenseEdges,
    dense_student_t_sums,
    edge_sum,
    joint_log_normalizer,
    log_normalizer,
    over_tiles,
    self_mask,
    symmetric_edges,
)
from .learned import StudentT


class Objective:
    """D(p || q) as a differentiable function of representations.

    Parameters
    ----------
    p : Conditional
        The supervisory distribution. Rows without positives take no part.
    learned : Learned
        The spec of q.
    divergence : str, default="kl"
        A key of `DIVERGENCES`.
    normalization : {"conditional", "joint"}, default="conditional"
        Whether each row of q sums to one, or all pairs together.
    sample_weight : array-like of shape (n_rows,), default=None
        Weights of the average over i.
    background_keys : int, default=None
        Of a random batch: how many of its last keys stand for all in the sum over the uniform mass. None: all keys.
    interpolate : bool, default=False
        Whether normalisers come from a grid; see `can_interpolate`.
    dtype : torch.dtype, default=torch.float64
    device : str or torch.device, default="cpu"

    Attributes
    ----------
    constant : float
        sum p log p, the part of KL that no representation changes. Zero for limits, which are no distributions.

    Raises
    ------
    ValueError
        A divergence, normalisation or kernel that do not go together, or no row with a positive.
    """

    def __init__(
        self,
        p,
        learned,
        *,
        divergence="kl",
        normalization="conditional",
        sample_weight=None,
        background_keys=None,
        interpolate=False,
        dtype=torch.float64,
        device="cpu",
    ):
        self.learned, self.joint = learned, normalization == "joint"
        self.dtype, self.device, self.background_keys = dtype, device, background_keys
        self.n_rows, self.n_keys = p.shape
        self.exclude_self = p.exclude_self and not learned.includes_self
        self.n_choices = self.n_keys - self.exclude_self
        self.n_mixed = self.n_choices * (self.n_rows if self.joint else 1)
        self.is_plain_kl = divergence == "kl" and not p.uniform and not learned.mixture
        self.term, self.at_zero = _limit_of_kl if learned.is_limit else DIVERGENCES[divergence]
        _check_combination(p, learned, divergence, self)
        weights, row_mass = _averaged(p, sample_weight, self.joint)
        self._set_probabilities(weights, row_mass, p.uniform)
        square = self.n_rows == self.n_keys
        self.key_degrees = self._tensor(p.degrees) if square and p.degrees is not None else None
        self.edges = None
        self.grid = GridPotential(learned) if interpolate else None
        if self.is_plain_kl and square and learned.euclidean:
            mass = weights.multiply(row_mass[:, None]).tocsr()
            self.edges = symmetric_edges(sparse.csr_array((mass + mass.T) / 2), dtype, device)

    def _tensor(self, values):
        return torch.as_tensor(np.asarray(values), dtype=self.dtype, device=self.device)

    def _set_probabilities(self, weights, row_mass, uniform):
        """p at the edges and elsewhere, what each row counts, and the constant of KL."""
        background = uniform / self.n_mixed
        entries = weights.tocoo()
        p_edges = (1 - uniform) * entries.data + background
        self.rows = torch.as_tensor(entries.row, dtype=torch.int64, device=self.device)
        self.cols = torch.as_tensor(entries.col, dtype=torch.int64, device=self.device)
        self.p_edges, self.background = self._tensor(p_edges), self._tensor(background)
        self.row_mass = self._tensor(row_mass)
        negentropy = row_mass[entries.row] @ (xlogy(p_edges, p_edges) - xlogy(background, background))
        negentropy += row_mass.sum() * self.n_choices * xlogy(background, background)
        self.constant = 0.0 if self.learned.is_limit else float(negentropy)

    def __call__(self, z, keys=None, key_degrees=None):
        """L, a scalar tensor.

        Parameters
        ----------
        z : tensor of shape (n_rows, d)
        keys : tensor of shape (n_keys, d), default=None
            The representations of the keys; None where the keys are the rows.
        key_degrees : tensor of shape (n_keys,), default=None
            Degrees of the keys; None where p knows them.
        """
        if not self.is_plain_kl:
            return self.per_row(z, keys, key_degrees).sum()
        edges, partition = self.terms(z, keys, key_degrees)
        return edges + partition + self.constant

    def terms(self, z, keys=None, key_degrees=None):
        """KL less its constant as (cost of the edges, cost of the normaliser): attraction and repulsion.

        For plain KL only, without uniform mass on p or q.
        """
        if self.edges is not None and keys is None:
            if self.joint and self.exclude_self and self.grid is None and _suits_one_pass(self.learned, self.edges):
                edges, log_z = dense_student_t_sums(self.learned, z, self.edges)
                return -edges, log_z
            edges = -edge_sum(self.learned, z, self.edges)
            if self.joint and self.exclude_self:
                if self.grid is not None:
                    return edges, grid_normalizer(self.grid, z, True)
                return edges, joint_log_normalizer(self.learned, z)
            row_log_z = self._row_log_z(z, z)
            return edges, row_log_z.logsumexp(0) if self.joint else self.row_mass @ row_log_z
        z, keys = self._prepare(z, keys, key_degrees)
        log_k = self.learned.paired(z[self.rows], keys[self.cols])
        row_log_z = self._row_log_z(z, keys)
        partition = row_log_z.logsumexp(0) if self.joint else self.row_mass @ row_log_z
        return -(self.row_mass[self.rows] * self.p_edges) @ log_k, partition

    def per_row(self, z, keys=None, key_degrees=None):
        """The share of each row in L, shape (n_rows,): its sum is L."""
        z, keys = self._prepare(z, keys, key_degrees)
        row_log_z = self._row_log_z(z, keys)
        log_norm = row_log_z.logsumexp(0).expand(self.n_rows) if self.joint else row_log_z
        log_k = self.learned.paired(z[self.rows], keys[self.cols])
        log_q = self._log_q(log_k, log_norm[self.rows])
        at_edges, elsewhere = self.term(self.p_edges, log_q), torch.zeros_like(row_log_z)
        if self.background > 0:
            at_edges = at_edges - self.term(self.background, log_q)
            elsewhere = self._background_cost(z, keys, log_norm)
        elif self.at_zero:
            at_edges = at_edges - self.at_zero * log_q.exp()
            log_row_q = self.learned.finish(row_log_z - log_norm, self.n_mixed // self.n_choices)
            elsewhere = self.at_zero * log_row_q.exp()
        return self.row_mass * elsewhere.index_add(0, self.rows, at_edges)

    def _prepare(self, z, keys, key_degrees):
        degrees = self.key_degrees if key_degrees is None else key_degrees
        return self.learned.prepare(z, z if keys is None else keys, degrees)

    def _row_log_z(self, z, keys):
        if self.learned.normalized:
            return z.new_zeros(len(z))
        if self.grid is not None:
            return grid_normalizer(self.grid, z, False)
        return log_normalizer(self.learned, z, keys, exclude_self=self.exclude_self, n_choices=self.n_choices)

    def _log_q(self, log_k, log_norm):
        """Log q; not above zero, where rounding puts near keys of far rows, and excluded ones are."""
        log_q = log_k - log_norm
        if not (self.learned.normalized or self.learned.is_limit):
            log_q = log_q.clamp_max(0)
        return self.learned.finish(log_q, self.n_mixed)

    def _background_cost(self, z, keys, log_norm):
        """sum_j d(a/N, q_ij) of each row over all its keys, or as many of the last ones as may stand for all."""
        scale, first = 1.0, 0
        if self.background_keys is not None and self.background_keys < len(keys):
            scale, first = self.n_choices / self.background_keys, len(keys) - self.background_keys
            keys = keys[first:]

        def tile(z, keys, log_norm, rows):
            cost = self.term(self.background, self._log_q(self.learned.pairwise(z[rows], keys), log_norm[rows, None]))
            if self.exclude_self:
                cost = cost.masked_fill(self_mask(cost, slice(rows.start - first, None)), 0)
            return cost.sum(1)

        return scale * over_tiles(tile, z, keys, log_norm)


def _limit_term(p, log_q):
    """-p log q: a limit has no entropy to add."""
    return -p * log_q


_limit_of_kl = Divergence(_limit_term, 0.0)


def can_interpolate(p, learned, n_components):
    """Whether a grid can give the normalisers: kernels of squared distance, 1-D or 2-D maps, no mass on self or all."""
    return n_components <= 2 and learned.euclidean and p.exclude_self and not p.uniform and not learned.mixture


def _suits_one_pass(learned, edges):
    """Whether attraction and repulsion share their passes over all pairs."""
    return isinstance(learned, StudentT) and isinstance(edges, DenseEdges)


def _check_combination(p, learned, divergence, objective):
    """Refuse what is not defined, and say what is."""
    if learned.is_limit and (divergence != "kl" or p.uniform or objective.joint):
        raise ValueError(
            f"{learned} is the limit of a conditional KL loss and no distribution; use it with divergence='kl', "
            "normalization='conditional' and debias=0, or choose learned='gaussian'."
        )
    if objective.joint and p.shape[0] != p.shape[1]:
        raise ValueError(
            f"normalization='joint' needs keys that are the rows, but p has shape {p.shape}; use "
            "normalization='conditional'."
        )
    n_positive = np.sum(p.weights.data > p.shape[0] * torch.finfo(objective.dtype).tiny)
    full_support = n_positive == p.has_positives.sum() * objective.n_choices
    if objective.at_zero is None and not p.uniform:
        if not full_support:
            raise ValueError(
                f"divergence={divergence!r} is infinite where p is zero; set debias > 0, or use a p that is positive "
                "on all keys."
            )
        objective.at_zero = 0.0


def _averaged(p, sample_weight, joint):
    """(weights, row_mass) of the average over rows, or of the symmetric joint p."""
    mass = p.has_positives.astype(np.float64)
    if sample_weight is not None:
        mass = mass * np.asarray(sample_weight, dtype=np.float64)
    if not mass.sum() > 0:
        raise ValueError(
            "no row has a positive: every p(.|i) is empty, so there is nothing to learn from; check the labels, groups "
            "or graph."
        )
    mass /= mass.sum()
    if not joint:
        return p.weights, mass
    weighted = p.weights.multiply(mass[:, None]).tocsr()
    return sparse.csr_array((weighted + weighted.T) / 2), np.ones(p.shape[0])
