"""What `ICONCrossModal` tells of maps that are linear, under the names of scikit-learn's CCA."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._core.rows import in_units, unit_of
from .._core.types import Array, Rows
from .whole import undisturbed


class PairOfModalities(NamedTuple):
    """(f(x), g(y)): a pair that counts as its first where an array is expected."""

    x: Any
    y: Any

    @property
    def shape(self) -> tuple:
        """That of f(x)."""
        return self.x.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """f(x)."""
        return np.array(self.x, dtype=dtype) if copy else np.asarray(self.x, dtype=dtype)


def _moments(X: Rows, scale: bool) -> tuple[Array, Array]:
    """Means of columns, and their standard deviations where these are units, one where a column is constant."""
    mean = np.asarray(X.mean(axis=0), dtype=np.float64).ravel()
    if not scale:
        return mean, np.ones(len(mean))
    unit = unit_of(X)
    X = in_units(X, unit)
    squares = X.multiply(X) if sparse.issparse(X) else np.square(X - mean * unit)
    variance = np.asarray(squares.mean(axis=0)).ravel() - ((mean * unit) ** 2 if sparse.issparse(X) else 0)
    spread = np.sqrt(np.maximum(variance, 0) * X.shape[0] / max(X.shape[0] - 1, 1)) / unit
    return mean, np.where(spread > 0, spread, 1.0)


def _regression(scores: Array, X: Rows, mean: Array) -> Array:
    """Coefficients of the centred columns of X on centred scores, shape (n_components, n_features)."""
    unit = unit_of(scores)
    scores = in_units(scores, unit)
    products = np.asarray((X.T @ scores).T) - np.outer(scores.sum(axis=0), mean)
    return unit * (np.linalg.pinv(scores.T @ scores, hermitian=True) @ products)


def _has_linear(estimator: Any) -> bool:
    """Whether both maps are linear; an AttributeError that says so where they are not."""
    check_is_fitted(estimator)
    if estimator._linear is None:
        raise AttributeError(
            f"{estimator.encoder_} and {estimator.encoder_y_} are not both linear maps, which alone have weights, "
            "loadings and predictions; use encoder='linear'."
        )
    return True


def _may_be_linear(estimator: Any) -> bool:
    return "_linear" not in vars(estimator) or _has_linear(estimator)


def _of(name: str, doc: str) -> property:
    def get(self: Any) -> Array:
        if "_linear" not in vars(self):
            raise AttributeError(f"This {type(self).__name__} instance is not fitted yet, and has no {name}.")
        _has_linear(self)
        return self._linear[name]

    return property(get, doc=doc)


class LinearMaps:
    """Weights, loadings and predictions of two linear maps."""

    _linear: Any
    _checked_X: Any
    _states: Any
    encoder_: Any
    encoder_y_: Any
    learned_: Any
    n_components: int
    scale: bool

    x_weights_ = _of("x_weights_", "Columns of `x_rotations_`, of unit length, of shape (n_features, n_components).")
    y_weights_ = _of("y_weights_", "Columns of `y_rotations_`, of unit length, of shape (n_features_y, n_components).")
    x_rotations_ = _of("x_rotations_", "Map of centred columns of X, standardised where `scale`, to representations.")
    y_rotations_ = _of("y_rotations_", "Map of centred columns of y, standardised where `scale`, to representations.")
    x_loadings_ = _of("x_loadings_", "Regression of these columns of X on f(x), of shape (n_features, n_components).")
    y_loadings_ = _of("y_loadings_", "Regression of these columns of y on g(y), of shape (n_features_y, n_components).")
    coef_ = _of("coef_", "Of the regression of y on f(x): `y = (x - mean x) coef_.T + intercept_`.")
    intercept_ = _of("intercept_", "The mean of y.")

    def _keep_linear(self, X: Rows, y: Any, one_dimensional: bool) -> None:
        """Compute what linear maps have, or remember that there is none."""
        self._linear = None
        if not (self.encoder_.is_linear and self.encoder_y_.is_linear):
            return
        from .._training.linear_pairs import Affine

        kept: dict[str, Any] = {"one_dimensional": one_dimensional}
        sides = zip("xy", (X, y), (self.encoder_, self.encoder_y_), self._states, strict=True)
        for name, items, encoder, state in sides:
            rows = items.reshape(items.shape[0], -1) if items.ndim > 2 else items
            affine, (mean, units) = (
                Affine.of(encoder, state, rows.shape[1], self.n_components),
                _moments(rows, self.scale),
            )
            scores = affine(rows)
            centre = scores.mean(axis=0)
            rotations = affine.columns * units[:, None]
            lengths = np.hypot.reduce(rotations, axis=0)
            kept[f"{name}_weights_"] = rotations / np.where(lengths > 0, lengths, 1)
            kept[f"{name}_rotations_"] = rotations
            kept[f"{name}_loadings_"] = (_regression(scores - centre, rows, mean) / units).T
            kept[f"{name}_moments"] = mean, units, centre
            if name == "x":
                columns, centred = affine.columns, scores - centre
            else:
                kept["coef_"], kept["intercept_"] = (columns @ _regression(centred, rows, mean)).T, mean
        self._linear = kept

    @available_if(_may_be_linear)
    @undisturbed
    def predict(self, X: Rows, copy: bool = True) -> Array:
        """The other modality's columns by least squares from f(x), where both maps are linear.

        ::

            y = (x - mean x) coef_.T + intercept_

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows of the first modality.
        copy : bool, default=True
            As in CCA; X is never changed.

        Returns
        -------
        ndarray of shape (n_samples, n_features_y), or (n_samples,) where y had one dimension
            What is predicted of y.
        """
        check_is_fitted(self)
        _has_linear(self)
        X = self._checked_X(X)
        X = X.reshape(X.shape[0], -1) if X.ndim > 2 else X
        kept = self._linear
        found = X @ kept["coef_"].T - kept["x_moments"][0] @ kept["coef_"].T + kept["intercept_"]
        return found.ravel() if kept["one_dimensional"] else found

    @available_if(_may_be_linear)
    @undisturbed
    def inverse_transform(self, X: Rows, y: Any = None) -> Any:
        """Columns by least squares from representations, where both maps are linear and representations not unit rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Representations f(x).
        y : array-like of shape (n_samples, n_components), default=None
            Representations g(y).

        Returns
        -------
        ndarray of shape (n_samples, n_features), or a tuple of two
            Columns of X, and those of y where representations of it were given.
        """
        from .._training.pairs import on_sphere

        check_is_fitted(self)
        _has_linear(self)
        if on_sphere(self.learned_):
            raise AttributeError(f"representations under {self.learned_} are unit rows, which have lost their lengths.")
        x = self._inverted("x", X)
        return x if y is None else (x, self._inverted("y", y))

    def _inverted(self, name: str, scores: Array) -> Array:
        mean, units, centre = self._linear[f"{name}_moments"]
        return (np.asarray(scores) - centre) @ self._linear[f"{name}_loadings_"].T * units + mean
