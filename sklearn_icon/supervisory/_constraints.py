"""p with pairs of rows that users say belong together, or apart."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
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
    out. Pairs are those given: what follows from several is not added.

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
        At `conditional`: pairs of another shape, of rows that X has not, of a row with itself, or in both lists.

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
        must, cannot = (_matrix(name, getattr(self, name), p.shape[0]) for name in ("must_link", "cannot_link"))
        both = (must * cannot).tocoo()
        if both.nnz:
            pair = [int(both.row[0]), int(both.col[0])]
            raise ValueError(f"must_link and cannot_link both hold the pair {pair}; leave it out of one.")
        left = Conditional.from_weights(p.weights - p.weights * cannot).weights
        linked = self.weight * Conditional.from_weights(must.astype(left.dtype)).weights
        how: dict[str, Any] = {"uniform": p.uniform, "exclude_self": p.exclude_self, "recall": p.recall}
        return replace(Conditional.from_weights(left + linked, **how), neighbors=p.neighbors)


def _matrix(name: str, pairs: Any, n: int) -> sparse.csr_array:
    """Ones where two rows are a pair, in either order."""
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
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    matrix = sparse.coo_array((np.ones(len(first)), (first, second)), (n, n)).tocsr()
    return matrix.sign()
