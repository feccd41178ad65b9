"""Rows whitened for linear models: the same optimum in far fewer steps of a quasi-Newton method."""

import numpy as np
import torch
from scipy import linalg, sparse

from ..encoders._networks import FixedRows

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

    Attributes
    ----------
    rows : FixedRows of shape (n, n_features)
    shift : tensor of shape (n_features,)
    """

    def __init__(self, X, sample_weight, ridge, dtype, device):
        share = sample_weight / sample_weight.sum()
        self.mean = np.asarray(share @ X, dtype=np.float64)
        shift, kind = np.zeros_like(self.mean), {"dtype": dtype, "device": device}
        if sparse.issparse(X) or X.shape[1] > min(_MOST_COLUMNS, X.shape[0]):
            squares = X.multiply(X) if sparse.issparse(X) else np.square(X, dtype=np.float64)
            variance = np.asarray(share @ squares) - self.mean**2 + ridge
            self.factor = np.sqrt(np.maximum(variance, _floor(variance)))
            if sparse.issparse(X):
                rows, shift = X.multiply(1 / self.factor), self.mean / self.factor
            else:
                rows = (X - self.mean) / self.factor
        else:
            covariance = _covariance(X, self.mean, share) + ridge * np.eye(X.shape[1])
            covariance[np.diag_indices_from(covariance)] += _floor(np.diag(covariance))
            self.factor = linalg.cholesky(covariance)
            inverse = linalg.solve_triangular(self.factor, np.eye(len(covariance)))
            rows = np.concatenate([(block - self.mean) @ inverse for block in _blocks(X)])
        self.rows = FixedRows(rows, **kind)
        self.shift, self._factor, self._mean = (torch.as_tensor(a, **kind) for a in (shift, self.factor, self.mean))

    def unscaled(self, weight):
        """W of a V, differentiable."""
        if self._factor.ndim == 1:
            return weight / self._factor
        return torch.linalg.solve_triangular(self._factor, weight.T, upper=True).T

    def gradient_size(self, of_weight, of_bias):
        """The largest entry of the gradient in W and b, from that in V and b'."""
        of_coef = of_weight * self._factor if self._factor.ndim == 1 else of_weight @ self._factor
        of_coef = of_coef + of_bias[:, None] * self._mean
        return max(float(of_coef.abs().max()), float(of_bias.abs().max()))

    def scale(self, coef, intercept):
        """(V, b') of (W, b), as NumPy arrays."""
        diagonal = self.factor.ndim == 1
        return coef * self.factor if diagonal else coef @ self.factor.T, intercept + coef @ self.mean

    def unscale(self, weight, bias):
        """(W, b) of tensors (V, b'), as NumPy arrays."""
        coef = self.unscaled(weight).cpu().numpy()
        return coef, bias.cpu().numpy() - coef @ self.mean.astype(coef.dtype)


def _floor(variances):
    """What rounding leaves of a variance: never zero."""
    return _ROUNDING * max(variances.max(), 0.0) or 1.0


def _blocks(X):
    """Blocks of rows in double precision."""
    return (X[start : start + _ROWS_AT_ONCE].astype(np.float64) for start in range(0, X.shape[0], _ROWS_AT_ONCE))


def _covariance(X, mean, share):
    """sum_i share_i (x_i - m)(x_i - m)^T."""
    total, start = np.zeros((X.shape[1], X.shape[1])), 0
    for block in _blocks(X):
        centred = block - mean
        total += (centred.T * share[start : start + len(block)]) @ centred
        start += len(block)
    return total
