"""F of softmax regression and its derivatives, in double precision or, where that is enough, in single."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import xlogy

from .._core.group import group
from .._core.types import Array, Rows

_IN_A_PIECE = 800_000  # multiplications of a product with rows, up to which BLAS does not first copy them
_HELD = 1e-15, 1e15  # largest sizes of columns, and of none, of which single precision holds squares as well


class Penalty(NamedTuple):
    """l1 |W|_1 + l2 / 2 |W|^2."""

    l1: float
    l2: float


class Start(NamedTuple):
    """Coefficients and intercept to begin at, None for zeros, and whether there is an intercept."""

    at: tuple[np.ndarray, np.ndarray] | None = None
    fit_intercept: bool = True


class Softmax:
    """F and its derivatives, a function of V of shape (m, d + 1): coefficients of u, intercepts last.

    Classes come before rows, so that sums over classes run along rows.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n, d)
        Rows, which are centred where they are dense and there is an intercept.
    targets : ndarray of shape (n, n_classes)
        p.
    weight : ndarray of shape (n,)
        s, which sums to one.
    penalty : Penalty
    fit_intercept : bool
    basis : ndarray of shape (n_classes, m)
        T.
    """

    def __init__(self, X: Rows, targets: Array, weight: Array, penalty: Penalty, fit_intercept: bool, basis: Array):
        self.targets, self.weight, self.penalty = np.ascontiguousarray(targets.T), weight, penalty
        self.weighted = self.targets * weight
        self.fit_intercept, self.basis = fit_intercept, basis
        self.mean = np.zeros(X.shape[1])
        self.columns: Any = None  # of dense rows, then ones
        if sparse.issparse(X):
            self.rows: Any = X
        else:
            self.columns = np.empty((X.shape[1] + 1, X.shape[0]))
            self.columns[:-1], self.columns[-1] = X.T, float(fit_intercept)
            self.rows = self.columns[:-1].T
            if fit_intercept:
                self.mean = group().total(np.asarray(self.columns[:-1] @ weight))
                self.columns[:-1] -= self.mean[:, None]
        self.shape = self.basis.shape[1], X.shape[1] + 1
        self.constant = float(group().total(xlogy(self.targets, self.targets).sum(axis=0) @ weight))
        self.n_rows = group().total(X.shape[0])
        piece = max(1, _IN_A_PIECE // max(1, self.shape[0] * self.shape[1]))
        self._pieces = [slice(start, start + piece) for start in range(0, X.shape[0], piece)]

    def in_single_precision(self) -> Softmax | None:
        """The same with numbers of half the size; None where they do not hold the rows, or these are sparse."""
        sizes = np.zeros(1) if self.columns is None else np.abs(self.columns[:-1]).max(axis=1, initial=0.0)
        held = self.columns is not None and ((sizes == 0) | ((sizes > _HELD[0]) & (sizes < _HELD[1]))).all()
        if group().total(float(not held)):
            return None
        single = copy(self)
        for name in ("columns", "targets", "weighted", "weight", "basis"):
            setattr(single, name, getattr(self, name).astype(np.float32))
        single.rows = single.columns[:-1].T
        return single

    def scores(self, V: Array) -> Array:
        """u, of shape (m, n)."""
        if self.columns is not None:
            V, u = V.astype(self.columns.dtype, copy=False), np.empty((len(V), len(self.weight)), self.columns.dtype)
            for piece in self._pieces:
                np.matmul(V, self.columns[:, piece], out=u[:, piece])
            return u
        u = np.asarray(self.rows @ V[:, :-1].T).T
        return u + V[:, -1:] if self.fit_intercept else u

    def logits(self, V: Array) -> Array:
        """T u, of shape (n_classes, n)."""
        return self.basis @ self.scores(V)

    def value(self, V: Array, logits: Array | None = None) -> tuple[float, Array]:
        """F, and q of shape (n_classes, n)."""
        logits = self.logits(V) if logits is None else logits
        logits = logits - logits.max(axis=0)
        of_targets = np.vdot(self.weighted, logits)
        q = np.exp(logits, out=logits)
        sums = q.sum(axis=0)
        value = group().total(self.weight @ np.log(sums) - of_targets) + self.constant
        weights = V[:, :-1]
        value += self.penalty.l2 / 2 * np.vdot(weights, weights)
        value += self.penalty.l1 * np.abs(weights).sum() if self.penalty.l1 else 0.0
        q /= sums
        return float(value), q

    def slope(self, V: Array, q: Array, step: Array, along: Array) -> float:
        """That of the smooth part at V along a step, of which the logits are known."""
        of_rows = np.vdot(self.weight, np.einsum("ij,ij->j", q - self.targets, along))
        return float(group().total(of_rows) + self.penalty.l2 * np.vdot(V[:, :-1], step[:, :-1]))

    def gradient(self, V: Array, q: Array) -> Array:
        """That of the smooth part at V, where q is known."""
        slope = q - self.targets
        slope *= self.weight
        return self._of_rows(slope, self.penalty.l2 * V[:, :-1])

    def product(self, direction: Array, q: Array) -> Array:
        """The Hessian times a direction of shape (m, d + 1)."""
        change = self.logits(direction)
        change -= np.einsum("ij,ij->j", q, change)
        change *= q
        change *= self.weight
        return self._of_rows(change, self.penalty.l2 * direction[:, :-1])

    def _of_rows(self, slope: Array, of_penalty: Array) -> Array:
        """sum_i T^T slope_i x_i^T, and what the penalty adds."""
        slope = self.basis.T @ slope
        if self.columns is not None:
            parts = (self.columns[:, piece] @ slope[:, piece].T for piece in self._pieces)
            result = sum(parts, start=np.zeros((1, 1))).T
        else:
            result = np.empty(self.shape)
            result[:, :-1] = np.asarray(self.rows.T @ slope.T).T
            result[:, -1] = slope.sum(axis=1) if self.fit_intercept else 0.0
        result = group().total(result)
        result[:, :-1] += of_penalty
        return result

    def hessian(self, q: Array) -> Array:
        """The Hessian, of shape (m (d + 1), m (d + 1)), class after class."""
        (m, width), (first, second, products) = self.shape, self._pairs
        if m == 1:
            result = group().total(products[0, 0] * self.moments(self.weight * q[first[0]] * q[second[0]]))
            result.reshape(-1)[:: width + 1] += self._of_diagonal
            return result
        blocks = np.empty((len(first), width, width))
        for block, a, b in zip(blocks, first, second, strict=True):
            curvature = self.weight * q[a]
            curvature *= q[b]
            block[:] = self.moments(curvature)
        blocks = products @ blocks.reshape(len(first), width**2)
        result = blocks.reshape(m, m, width, width).transpose(0, 2, 1, 3).reshape(m * width, m * width)
        result = group().total(result)
        result.reshape(-1)[:: m * width + 1] += np.tile(self._of_diagonal, m)
        return result

    def blocks(self, q: Array) -> Array:
        """The Hessian's blocks of one class each, of shape (n_classes, d + 1, d + 1), as if T were the identity.

        Of classes that T knows, of two the second. Rows are left out whose curvatures together are below the penalty's.
        """
        least, q = self.penalty.l2 / self.n_rows / self.sq_sizes, q[self.basis.any(axis=1)]
        blocks = np.empty((len(q), self.shape[1], self.shape[1]))
        for block, of_class in zip(blocks, q, strict=True):
            curvature = self.weight * (of_class * (1 - of_class))
            kept = np.flatnonzero(curvature > least)
            block[:] = self.moments(curvature[kept], kept if len(kept) < len(curvature) else None)
        blocks = group().total(blocks)
        blocks.reshape(len(q), -1)[:, :: self.shape[1] + 1] += self._of_diagonal
        return blocks

    @cached_property
    def _pairs(self) -> tuple[Array, Array, Array]:
        """Pairs of classes a < b, and the products (e_a - e_b)(e_a - e_b)^T in the basis, a column a pair."""
        classes = np.arange(len(self.targets))
        first, second = np.nonzero(np.less.outer(classes, classes))  # of few classes in a fifth of triu_indices' time
        of_pairs = self.basis[first] - self.basis[second]
        return first, second, (of_pairs[:, :, None] * of_pairs[:, None, :]).reshape(len(first), -1).T

    @cached_property
    def _of_diagonal(self) -> Array:
        """The penalty's part of the Hessian's diagonal, and ones for intercepts that there are none of."""
        return np.append(np.full(self.shape[1] - 1, self.penalty.l2), float(not self.fit_intercept))

    @cached_property
    def sq_sizes(self) -> Array:
        """|x|^2 + 1 of each row."""
        if self.columns is None:
            return np.asarray(self.rows.multiply(self.rows).sum(axis=1)).ravel() + 1
        return np.einsum("ji,ji->i", self.columns[:-1], self.columns[:-1]) + 1

    def moments(self, weight: Array, kept: Array | None = None) -> Array:
        """sum_i w_i x_i x_i^T with a last column of ones, or zeros where there is no intercept."""
        if self.columns is not None:
            columns = (self.columns if kept is None else self.columns.take(kept, axis=1)) * np.sqrt(weight)
            return columns @ columns.T
        rows, width = (self.rows if kept is None else self.rows[kept]), self.shape[1]
        result = np.zeros((width, width))
        result[:-1, :-1] = (rows.T @ rows.multiply(weight[:, None]).tocsr()).toarray()
        if self.fit_intercept:
            result[:-1, -1] = result[-1, :-1] = np.asarray(rows.T @ weight)
            result[-1, -1] = weight.sum()
        return result
