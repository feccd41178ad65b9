"""Rows whitened for linear models: the same optimum in far fewer steps of a quasi-Newton method."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import linalg, sparse

from .._core.group import group
from .._core.types import Array, Rows
from ..encoders._networks import FixedRows
from ..encoders._scaling import FARTHEST, nearer, nearness

_MOST_COLUMNS = 1024  # whitened fully; more, and sparse ones, are only divided by their deviations
_ROWS_AT_ONCE = 8192
_ROUNDING = 1e-6  # of the largest variance, below which a direction counts as having this much


class ScaledRows:
    """Rows u = (x - m) R^-1 in which a linear model has coefficients V and intercepts b'.

    ::

        x W^T + b = u V^T + b',     V = W R^T,     b' = b + W m,     R^T R = cov(x) + ridge

    R is upper triangular for dense rows, diagonal for those of many columns and for sparse rows, which stay sparse:
    `rows` is then u + `shift`. Whatever R is, the optimum in W and b stays the same; this one makes the Hessian of
    softmax regression nearly a multiple of the identity.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n, n_features)
    sample_weight : ndarray of shape (n,)
    ridge : float
        The L2 penalty over the curvature of the loss.
    dtype, device
        Of the tensors.
    fit_intercept : bool, default=True
        Whether there is a b: without one m is zero.

    Attributes
    ----------
    rows : FixedRows of shape (n, n_features)
    shift : tensor of shape (n_features,)
    """

    def __init__(
        self, X: Rows, sample_weight: Array, ridge: float, dtype: Any, device: Any, fit_intercept: bool = True
    ) -> None:
        self.mean, self.factor = whitening(X, sample_weight / sample_weight.sum(), ridge, fit_intercept)
        shift, like = np.zeros_like(self.mean), {"dtype": dtype, "device": device}
        if sparse.issparse(X):
            rows, shift = X.multiply(1 / self.factor), self.mean / self.factor
        elif self.factor.ndim == 1:
            rows = (X - self.mean) / self.factor
        else:
            inverse = linalg.solve_triangular(self.factor, np.eye(len(self.factor)))
            rows = np.concatenate([(block - self.mean) @ inverse for block in _blocks(X)])
        self.rows = FixedRows(nearer(rows, np.zeros(1), 1.0, FARTHEST), **like)  # bounded losses see no others
        self.shift, self._factor, self._mean = (torch.as_tensor(a, **like) for a in (shift, self.factor, self.mean))

    def unscaled(self, weight: torch.Tensor) -> torch.Tensor:
        """W of a V, differentiable."""
        if self._factor.ndim == 1:
            return weight / self._factor
        return torch.linalg.solve_triangular(self._factor, weight.T, upper=True).T

    def gradient_size(self, of_weight: torch.Tensor, of_bias: torch.Tensor) -> float:
        """The largest entry of the gradient in W and b, from that in V and b'."""
        of_coef = of_weight * self._factor if self._factor.ndim == 1 else of_weight @ self._factor
        of_coef = of_coef + of_bias[:, None] * self._mean
        return max(float(of_coef.abs().max()), float(of_bias.abs().max()))

    def scale(self, coef: Array, intercept: Array) -> tuple[Array, Array]:
        """(V, b') of (W, b), as NumPy arrays."""
        diagonal = self.factor.ndim == 1
        return coef * self.factor if diagonal else coef @ self.factor.T, intercept + coef @ self.mean

    def unscale(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[Array, Array]:
        """(W, b) of tensors (V, b'), as NumPy arrays."""
        coef = self.unscaled(weight).double().cpu().numpy()
        return coef, bias.double().cpu().numpy() - coef @ self.mean


def bounded(X: Rows, share: Array) -> Array:
    """Weights that sum to one, less those of a few extreme rows."""
    near = nearness(X, share)
    return share if near is None else share * near**2


def mean_of(X: Rows, share: Array) -> Array:
    """The weighted mean of rows, in double precision."""
    return group().total(np.asarray(share @ X, dtype=np.float64)) / group().total(share.sum())


def whitening(X: Rows, share: Array, ridge: float, centred: bool = True, fully: bool = True) -> tuple[Array, Array]:
    """(mean, R): R^T R = cov(x) + ridge, of rows of which a few extreme ones have a bounded say, or its diagonal.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n, d)
    share : ndarray of shape (n,)
        Weights that sum to one.
    ridge : float
    centred : bool, default=True
        Whether moments are about the mean, or the mean is taken for zero.
    fully : bool, default=True
        Whether R may be triangular.
    """
    share = bounded(X, share)
    total, sum_of = group().total, group().total(share.sum())
    mean = mean_of(X, share) if centred else np.zeros(X.shape[1])
    if fully and not sparse.issparse(X) and X.shape[1] <= min(_MOST_COLUMNS, total(X.shape[0])):
        covariance = total(_covariance(X, mean, share))
        covariance[np.diag_indices_from(covariance)] += ridge + _floor(np.diag(covariance) + ridge)
        return mean, linalg.cholesky(covariance)
    squares = X.multiply(X) if sparse.issparse(X) else np.square(X, dtype=np.float64)
    variance = total(np.asarray(share @ squares)) - sum_of * mean**2 + ridge
    return mean, np.sqrt(np.maximum(variance, _floor(variance)))


def _floor(variances: Array) -> float:
    """What rounding leaves of a variance: never zero."""
    return _ROUNDING * max(variances.max(), 0.0) or 1.0


def _blocks(X: Array) -> Iterator[Array]:
    """Blocks of rows in double precision."""
    return (X[start : start + _ROWS_AT_ONCE].astype(np.float64) for start in range(0, X.shape[0], _ROWS_AT_ONCE))


def _covariance(X: Array, mean: Array, share: Array) -> Array:
    """sum_i share_i (x_i - m)(x_i - m)^T."""
    total, start = np.zeros((X.shape[1], X.shape[1])), 0
    for block in _blocks(X):
        centred = (block - mean) * np.sqrt(share[start : start + len(block), None])
        total += centred.T @ centred
        start += len(block)
    return total
