"""The rows to search, in the form that distances are computed from, and those distances.

Squared euclidean distances are `sum_f (x_f - y_f)^2` in double precision, from differences, so that copies lie at
distance 0, and neither a common offset nor the other rows of a batch change a result. Of sparse rows they are
`|x|^2 + |y|^2 - 2 x.y`, summed in the order of the columns, and from differences where that cancels. Of few rows to all
others they are scikit-learn's to the bit, but in euclidean metrics; cosines that cancel come from differences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import cosine_distances

from .._core.group import group
from .._core.rows import of_numbers, row_digests
from .._core.types import Array, Metric, Rows
from .checks import (
    ROOTS,
    SHIFT_FREE,
    allowed_params,
    checked_distances,
    compared,
    covariance_inverse,
    in_range,
    plain_metric,
    variances,
)
from .ties import row_keys

_COMPILED_ROWS = 10_000  # from so many rows on, compiled loops do the work
_SCALES = 1e-140, 1e150  # of the largest number; beyond, squares are not numbers of full precision
_LARGE = 2.0**490  # where larger numbers are brought
_CANCELLED = 1e-3  # of the squared norms, below which a sparse squared distance comes from differences
_FEW_ROWS, _FEW_CANCELLED = 2048, 0.1  # of which cosines are scikit-learn's, where no more of them cancel
_DENSE = 0.25  # from this fraction of numbers that are not zero on, sparse rows take more time than dense ones


@dataclass(frozen=True, eq=False)
class Space:
    """Rows to search from and among. Where `root` is set, a distance is `root(squared euclidean) / unit`.

    Of rows of one rank among several `first_row` is the number of row 0, and `first_key` that of the reference's row 0.
    `index` holds what the reference was made into, where it is searched again.
    """

    X: Any
    reference: Any
    metric: Any
    params: dict
    root: Any
    unit: float
    dtype: Any
    own: bool
    seed: int
    names: tuple
    first_row: int | None = None
    first_key: int = 0
    shift: Any = 0
    index: dict | None = None

    @property
    def lasts(self) -> bool:
        """Whether other rows may be searched from in the same reference; see `of_rows`."""
        return bool(self.root) and not (self.own or self.params or sp.issparse(self.X))

    def of_rows(self, X: Array) -> Space:
        """The same with other dense rows to search from."""
        dtype, X = np.result_type(X.dtype, self.reference.dtype), compared(self.metric, self.shift, X, self.names[0])
        return replace(self, X=X if self.unit == 1 else X * self.unit, dtype=dtype)

    def part(self, rows: slice) -> Space:
        """The same with some of the rows of another rank to search from."""
        return replace(self, X=self.X[rows], first_row=(self.first_row or 0) + rows.start)

    @property
    def compiled(self) -> bool:
        """Whether loops of our own do the work."""
        return bool(self.root) and not sp.issparse(self.X) and self.reference.shape[0] >= _COMPILED_ROWS

    def keys(self, rows: Array) -> Array:
        """What settles the ties of some rows: of new ones their values, so that their batch does not matter."""
        if self.first_row is not None:
            return row_keys(rows + self.first_row, self.seed)
        return row_keys(rows if self.own else row_digests(self.X[rows]), self.seed)

    @cached_property
    def products(self) -> tuple[Array, Array, Array, Array, float]:
        """Rows and reference about the medians of columns, their squared norms, and the products' error a square."""
        centre = np.median(self.reference[:: max(1, len(self.reference) // 1024)], axis=0).astype(np.float64)
        whole = _are_whole(self.reference) and (self.own or _are_whole(self.X))
        right = self.reference - (np.rint(centre) if whole else centre)
        left = right if self.own else self.X - (np.rint(centre) if whole else centre)
        sq = [sq_norms(rows) for rows in (left, right)]
        exact = whole and 4 * max(norms.max() for norms in sq) < 2.0**53
        return left, right, *sq, 0.0 if exact else 2 * np.finfo(np.float64).eps * (left.shape[1] + 16)

    def finished(self, sq: Array) -> Array:
        """Distances, in the precision of the rows, from squared ones."""
        with np.errstate(over="ignore", under="ignore"):
            d = self.root(sq) / (self.unit**2 if self.metric == "sqeuclidean" else self.unit)
            d = d.astype(self.dtype)
        if not np.isfinite(d).all() or np.any((d == 0) & (sq > 0)):
            raise ValueError(
                f"distances between some rows of {self.names[0]} and {self.names[1]} are beyond the range of "
                f"{np.dtype(self.dtype).name} in metric={self.metric!r}; bring the features to a scale nearer one, or "
                "drop rows with fill values."
            )
        return d

    def pairs(self, r: Array, c: Array) -> Array:
        """Squared distances of the pairs (r[a], c[a]) from differences, in chunks that fit a cache."""
        if self.compiled:
            from .brute_force import pair_sq_distances

            return pair_sq_distances(self.X, self.reference, r, c)
        out = np.empty(len(r))
        step = 2**14 if sp.issparse(self.X) else 2**15 // self.X.shape[1] + 1
        for start in range(0, len(r), step):
            part = slice(start, start + step)
            out[part] = sq_norms(self.X[r[part]].astype(np.float64, copy=False) - self.reference[c[part]])
        return out

    def sq_to_all(self, rows: Array) -> Array:
        """Squared distances of some sparse rows to all of the reference."""
        left, right, sq_left, sq_right = self.sparse_products
        d = (left[rows] @ right).toarray()
        d *= -2
        scale = sq_left[rows, None] + sq_right
        d += scale
        r, c = np.nonzero(d < _CANCELLED * scale)
        d[r, c] = self.pairs(rows[r], c)
        return d

    @cached_property
    def sparse_products(self) -> tuple[sp.csr_array, sp.csr_array, Array, Array]:
        """(rows, transposed reference, their squared norms), in double precision."""
        left = sp.csr_array(self.X, dtype=np.float64)
        right = left if self.own else sp.csr_array(self.reference, dtype=np.float64)
        return left, sp.csr_array(right.T), sq_norms(left), sq_norms(right)

    def to_all(self, X: Rows, reference: Rows) -> Array:
        """Distances of rows to others, each pair on its own, where `root` is not set."""
        if self.metric == "precomputed":
            return X
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if sp.issparse(X) or self.metric == "haversine":
                d = pairwise_distances(X, reference, metric=of_numbers(self.metric), **self.params)
            else:
                name = "cityblock" if self.metric == "manhattan" else of_numbers(self.metric)
                d = cdist(X, reference, name, **self.params)
        return checked_distances(d, self.metric, self.names).astype(self.dtype, copy=False)


def space_of(
    X: Rows, reference: Rows, metric: Metric, metric_params: dict | None, names: tuple[str, str], own: bool, seed: int
) -> Space:
    """The problem in a canonical form: the metric's plain name, all its parameters, the rows it compares."""
    metric, params = plain_metric(metric, metric_params)
    allowed_params(metric, params, X)
    dtype, root = np.result_type(X.dtype, reference.dtype), None if params else ROOTS.get(metric)
    if root and sp.issparse(X) and reference.nnz > _DENSE * np.prod(reference.shape):
        X, reference = (rows.toarray() for rows in (X, reference))
    shift = _exact_shift(reference) if metric in SHIFT_FREE and not sp.issparse(X) else 0
    reference = compared(metric, shift, reference, names[1])
    if metric == "seuclidean":
        params["V"] = variances(params.get("V"), reference, names[1])
    elif metric == "mahalanobis":
        params = {"VI": covariance_inverse(params, reference, names[1])}
    X = reference if own else compared(metric, shift, X, names[0])
    unit = _unit(reference) if root else 1.0
    if unit != 1:
        reference = reference * unit
        X = reference if own else X * unit
    return Space(X, reference, metric, params, root, unit, dtype, own, seed, names, shift=shift)


def as_scikit_learn(space: Space, X: Rows, n_neighbors: int) -> Space:
    """Of few rows and all others: the same by scikit-learn's distances, to the bit, where these are as good."""
    n = X.shape[0]
    if n_neighbors != n - 1 or n > _FEW_ROWS or group().several or space.metric == "precomputed":
        return space
    if not space.root:
        return replace(space, dtype=np.dtype(np.float64))
    if space.metric != "cosine":
        return space
    d = cosine_distances(in_range(X))
    r, c = np.nonzero(d < np.sqrt(np.finfo(d.dtype).eps))
    if len(r) > n + _FEW_CANCELLED * n**2:
        return space
    d[r, c] = space.root(space.pairs(r, c))
    return replace(space, X=d, reference=d, metric="precomputed", root=None, dtype=d.dtype)


def _exact_shift(rows: Array) -> Array:
    """An offset of all rows that floating point subtracts without error (Sterbenz's lemma)."""
    extent = rows.min(axis=0, initial=np.inf), rows.max(axis=0, initial=-np.inf)  # of a rank without rows, too
    low, high, one = (group().gathered(part) for part in (*(part[None] for part in extent), rows[:1]))
    low, high = low.min(axis=0), high.max(axis=0)
    return np.where(((low > 0) & (high <= 2 * low)) | ((high < 0) & (low >= 2 * high)), one[0], 0)


def _unit(rows: Rows) -> float:
    """A power of two by which the rows are multiplied so that squares keep full precision."""
    values = rows.data if sp.issparse(rows) else rows
    largest = group().largest(float(max(values.max(initial=0), -values.min(initial=0))))
    if largest == 0 or _SCALES[0] <= largest <= _SCALES[1]:
        return 1.0
    return 2.0 ** min(-np.ceil(np.log2(largest)), 1023) * (_LARGE if largest > 1 else 1.0)


def _are_whole(rows: Array) -> bool:
    return not any((part != np.rint(part)).any() for part in np.array_split(rows, len(rows) // 4096 + 1))


def sq_norms(rows: Rows) -> Array:
    """Sums of squares in double precision, each the same for a row by itself and among others."""
    if sp.issparse(rows):
        return np.asarray(rows.astype(np.float64).power(2).sum(axis=1)).ravel()
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
