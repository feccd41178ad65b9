"""p of a metric that is learned: features weighed by what each tells of the others' neighbours."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils.sparsefuncs import mean_variance_axis

from .._core.types import Array, Jobs, Rows, Seed
from ._base import Wrapper

if TYPE_CHECKING:
    from typing import Self

    from .._core.conditional import Conditional
    from ._base import Supervisory

_NUMBERS = 5_000_000  # of all p at all edges, by which rows are drawn
_FEWEST_ROWS = 20
_STEPS, _TOLERANCE = 500, 1e-6  # of EM
_SILENT = 1e-3  # weight of all blocks, below which they tell nothing of each other


class LearnedMetric(Wrapper):
    r"""A p of distances whose features are weighed, one by one or in blocks, as edges that are held out teach.

    ::

        p(j|i) = the base's, of d_ij^2 = sum_m w_m |x_im - x_jm|^2 / v_m,     v_m the variance of the columns of block m
        w = argmax sum_m sum_ij p_m(j|i) log( w_0 / (n - 1) + sum_{l != m} w_l p_l(j|i) ),     w >= 0, sum_m w_m = 1

    p_m is the base on block m alone. Its edges are held out from it: the other blocks tell them, or nobody does (w_0).
    A block of noise tells no edge of another and gets no weight; blocks that agree share it. The problem is concave and
    is solved by EM, without labels. Two blocks tell of each other alike and get about the same weight; features that
    each tell little of the others alone, as pixels do, are better left as they are, or in blocks.

    Parameters
    ----------
    base : Supervisory
        A p that measures distances between rows of X, such as `UniformKNN()`.
    blocks : list of array-like of int, default=None
        Column numbers of each block, such as those of one modality; columns in none have no weight. None: each column
        is one.

    Raises
    ------
    ValueError
        Columns that X has not, so many blocks that too few rows can be compared, or a base that does not measure rows
        of features.

    Warns
    -----
    UserWarning
        No block tells anything of another; weights are equal.

    Notes
    -----
    New rows of a lookup are related to their nearest rows in X as it is; an encoder maps them by what it learned. Or
    scale X by `learned_scale`. Beyond 5 million pairs of an edge and a block, weights are learned on some of the rows.

    References
    ----------
    Xing et al., "Distance metric learning with application to clustering with side-information", NIPS 2002, for metrics
    that are learned from pairs of rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon.supervisory import LearnedMetric, UniformKNN
    >>> X = np.c_[load_iris().data, np.random.default_rng(0).normal(size=(150, 2))]  # two columns of noise
    >>> weights = LearnedMetric(UniformKNN(n_neighbors=15)).learned_weights(X)
    >>> bool(weights[:4].sum() > 0.99)
    True
    """

    _parameter_constraints = Wrapper._parameter_constraints | {"blocks": ["array-like", None]}
    neighborhood = None  # new rows are not in the metric that was learned

    def __init__(self, base: Supervisory, blocks: Any = None) -> None:
        self.base = base
        self.blocks = blocks

    def validate(self) -> Self:
        """Also check that the base measures X; see `Spec.validate`."""
        super().validate()
        inner = self.base.neighborhood
        if inner is None or inner.pairwise or self.base.needs_y:
            raise ValueError(f"base={self.base} must measure distances between rows of features, as UniformKNN() does.")
        return self

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        scale = self.learned_scale(X, n_jobs=n_jobs, random_state=random_state)
        scaled = X @ sparse.diags_array(scale) if sparse.issparse(X) else np.asarray(X) * scale
        return self.base.conditional(scaled, n_jobs=n_jobs, random_state=random_state)

    def learned_scale(self, X: Rows, *, n_jobs: Jobs = None, random_state: Seed = None) -> Array:
        """What columns are multiplied by, so that the base's distances are those learned.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.
        n_jobs : int, default=None
            Threads of the neighbour search.
        random_state : int, RandomState instance or None, default=None
            Seeds the search, and draws rows where there are many.

        Returns
        -------
        ndarray of shape (n_features,)
            sqrt(w_m / v_m); zero where a block does not vary.
        """
        blocks, variances = self._blocks(X)
        weights = self.learned_weights(X, n_jobs=n_jobs, random_state=random_state)
        scale = np.zeros(X.shape[1])
        for block, weight, variance in zip(blocks, weights, variances, strict=True):
            scale[block] = np.sqrt(weight / variance) if variance > 0 else 0.0
        return scale

    def learned_weights(self, X: Rows, *, n_jobs: Jobs = None, random_state: Seed = None) -> Array:
        """The weights of the blocks; see `learned_scale`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.
        n_jobs : int, default=None
            Threads of the neighbour search.
        random_state : int, RandomState instance or None, default=None
            Seeds the search, and draws rows where there are many.

        Returns
        -------
        ndarray of shape (n_blocks,)
            Sums to one.
        """
        blocks, variances = self.validate()._blocks(X)
        X, varies = X if sparse.issparse(X) else np.asarray(X), np.flatnonzero(variances > 0)
        how: dict[str, Any] = {"n_jobs": n_jobs, "random_state": random_state}
        weights = np.zeros(len(blocks))
        weights[varies] = held_out_weights(
            [self.base.conditional(X[:, blocks[m]], **how).weights for m in varies], random_state
        )
        return weights if len(varies) else np.full(len(blocks), 1 / len(blocks))

    def _blocks(self, X: Rows) -> tuple[list[Array], Array]:
        """(column numbers, variance) of each block."""
        n_columns = X.shape[1]
        blocks = [[column] for column in range(n_columns)] if self.blocks is None else self.blocks
        found = [np.asarray(block) for block in blocks]
        for block in found:
            if block.ndim != 1 or not len(block) or block.dtype.kind not in "iu":
                raise ValueError(f"blocks must hold lists of column numbers, got {block.tolist()}.")
            if block.min() < 0 or block.max() >= n_columns:
                given = f"blocks hold the columns {block.tolist()}"
                raise ValueError(f"{given}, but X has those from 0 to {n_columns - 1}; leave others out.")
        of_columns = mean_variance_axis(X, axis=0)[1] if sparse.issparse(X) else np.var(X, axis=0, dtype=np.float64)
        return found, np.array([of_columns[block].sum() for block in found])


def held_out_weights(parts: list[sparse.csr_array], random_state: Seed = None) -> Array:
    """w of `LearnedMetric` without w_0, of sum one."""
    count = len(parts)
    if count < 2:
        return np.ones(count)
    n = parts[0].shape[0]
    edges = max(1, sum(part.nnz for part in parts))
    n_rows = int(min(n, _NUMBERS * n // (count * edges)))
    if n_rows < min(n, _FEWEST_ROWS):
        raise ValueError(
            f"{count} blocks with {edges} neighbours in all are too many to compare; put columns together into fewer "
            "blocks, or lower the base's n_neighbors."
        )
    if n_rows < n:
        rows = np.sort(check_random_state(random_state).permutation(n)[:n_rows])
        parts = [part[rows] for part in parts]
    likelihoods = []
    for part in parts:
        others = [np.zeros(part.nnz) if other is part else values_at(other, part) for other in parts]
        likelihoods.append(np.vstack([np.full(part.nnz, 1 / (n - 1)), *others]))
    told = np.concatenate([part.data for part in parts]) / (count * n_rows)
    weights = expected(told, np.hstack(likelihoods))[1:]
    if weights.sum() < _SILENT:
        warnings.warn("no block of features tells anything of another; their weights are equal.", stacklevel=2)
        return np.full(count, 1 / count)
    return weights / weights.sum()


def values_at(other: sparse.csr_array, part: sparse.csr_array) -> Array:
    """The values of one sparse matrix where another has its entries, in their order."""
    keys, wanted = (
        np.repeat(np.arange(each.shape[0], dtype=np.int64), np.diff(each.indptr)) * each.shape[1] + each.indices
        for each in (other, part)
    )
    order = np.argsort(keys)
    at = np.searchsorted(keys, wanted, sorter=order)
    at = order[np.minimum(at, len(keys) - 1)] if len(keys) else np.zeros(0, dtype=int)
    return np.where(keys[at] == wanted, other.data[at], 0.0) if len(keys) else np.zeros(part.nnz)


def expected(edges: Array, likelihoods: Array) -> Array:
    """The w >= 0 of sum one that maximise sum_e edges_e log sum_l w_l likelihoods_le, by EM."""
    w = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(_STEPS):
        before, w = w, w * (likelihoods @ (edges / (w @ likelihoods))) / edges.sum()
        if np.abs(w - before).max() < _TOLERANCE:
            break
    return w
