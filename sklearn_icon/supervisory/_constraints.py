"""p with pairs of rows that users say belong together, or apart."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.utils._param_validation import Interval

from .._core.conditional import Conditional
from .._core.types import Array, Jobs, Rows, Seed
from ._base import Wrapper

if TYPE_CHECKING:
    from ._base import Supervisory


class Constraints(Wrapper):
    """Pairs that must be linked get mass, pairs that cannot be linked lose it.

    ::

        p(j|i) ~ 1[ij not in C] b(j|i) / sum_k 1[ik not in C] b(k|i) + w 1[ij in M] / n_i,     j != i

    b is the base, M and C the pairs, in either order, n_i the must-links of row i; a term whose sum is zero is left
    out. What follows from several pairs is added: rows that a chain of must-links joins are one group, all pairs of
    which, g (g - 1) of g rows, are in M; a pair of C parts all rows of the one's group from all of the other's.

    Parameters
    ----------
    base : Supervisory
        A p between rows of X.
    must_link, cannot_link : array-like of int of shape (n_pairs, 2), default=None
        Pairs of row numbers of X.
    weight : float, default=1.0
        w, of all must-links of a row beside its base, which weighs one.

    Raises
    ------
    ValueError
        At `conditional`: pairs of another shape, of rows that X has not, of a row with itself, or cannot-links of rows
        that must-links join, one after another.

    References
    ----------
    Wagstaff et al., "Constrained k-means clustering with background knowledge", ICML 2001, for the two kinds of pairs.

    Examples
    --------
    >>> from sklearn_icon.supervisory import Constraints, UniformKNN
    >>> p = Constraints(UniformKNN(n_neighbors=2), must_link=[[0, 3]], cannot_link=[[0, 1]])
    >>> p.conditional([[0.0], [1.0], [2.0], [9.0]]).toarray()[0].tolist()
    [0.0, 0.0, 0.5, 0.5]
    """

    _parameter_constraints = Wrapper._parameter_constraints | {
        "must_link": ["array-like", None],
        "cannot_link": ["array-like", None],
        "weight": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, base: Supervisory, must_link: Any = None, cannot_link: Any = None, weight: float = 1.0) -> None:
        self.base = base
        self.must_link = must_link
        self.cannot_link = cannot_link
        self.weight = weight

    def take(self, y: Any, rows: Array) -> Any:
        """Refused, as pairs name rows by their numbers; see `Supervisory.take`."""
        if self.must_link is None and self.cannot_link is None:
            return self.base.take(y, rows)
        raise ValueError(
            f"{type(self).__name__}() names rows of X by number, of which some would be left out, as they weigh zero; "
            "leave them out of X and number the pairs anew."
        )

    def check_batch(self) -> None:
        """A batch holds other rows than the pairs name; see `Supervisory.check_batch`."""
        raise ValueError(f"{type(self).__name__}() names rows of X by number, which a batch has not; use SameClass().")

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        if self.base.keys != "rows":
            raise ValueError(
                f"base={self.base} must be a p between rows of X, such as UniformKNN(), for pairs of them."
            )
        p = self.base.conditional(X, y, n_jobs=n_jobs, random_state=random_state)
        n = p.shape[0]
        must, cannot = _closed(_pairs("must_link", self.must_link, n), _pairs("cannot_link", self.cannot_link, n), n)
        left = Conditional.from_weights(p.weights - p.weights * cannot).weights
        linked = self.weight * Conditional.from_weights(must.astype(left.dtype)).weights
        how: dict[str, Any] = {"uniform": p.uniform, "exclude_self": p.exclude_self, "recall": p.recall}
        return replace(Conditional.from_weights(left + linked, **how), neighbors=p.neighbors)


def _pairs(name: str, pairs: Any, n: int) -> Array:
    """Pairs of row numbers, of shape (n_pairs, 2)."""
    pairs = np.empty((0, 2), dtype=int) if pairs is None or len(pairs) == 0 else np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must hold pairs of row numbers, integers of shape (n_pairs, 2), got {pairs.dtype} {pairs.shape}."
        )
    wrong = pairs[((pairs < 0) | (pairs >= n)).any(axis=1) | (pairs[:, 0] == pairs[:, 1])]
    if len(wrong):
        raise ValueError(
            f"{name} holds the pair {wrong[0].tolist()}, but must pair different rows from 0 to {n - 1} of X."
        )
    return pairs


def _closed(must: Array, cannot: Array, n: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Ones where two rows must be linked, and where they cannot, what follows from several pairs included."""
    groups = connected_components(_symmetric(must, n), directed=False)[1]
    apart = groups[cannot]
    if (apart[:, 0] == apart[:, 1]).any():
        first, second = cannot[(apart[:, 0] == apart[:, 1]).argmax()].tolist()
        raise ValueError(
            f"cannot_link parts rows {first} and {second}, which must_link joins, directly or by a chain of pairs; "
            "leave the pair out, or one of the chain."
        )
    members = sparse.csr_array((np.ones(n), groups, np.arange(n + 1)), shape=(n, int(groups.max()) + 1))
    linked = members[np.bincount(groups)[groups] > 1]  # rows alone are linked to none
    rows = np.flatnonzero(np.bincount(groups)[groups] > 1)
    within = (linked @ linked.T).tocoo()
    pairs = np.c_[rows[within.row], rows[within.col]]
    parted = members @ _symmetric(apart, members.shape[1]) @ members.T
    return _symmetric(pairs[pairs[:, 0] != pairs[:, 1]], n), parted.tocsr().sign()


def _symmetric(pairs: Array, n: int) -> sparse.csr_array:
    """Ones where two numbers are a pair, in either order."""
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    return sparse.coo_array((np.ones(len(first)), (first, second)), (n, n)).tocsr().sign()
