"""`LinearPart`: what `ICONClassifier` shares with scikit-learn's linear classifiers where it is linear in X."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._core.types import Array, Rows

if TYPE_CHECKING:
    from typing import Self

_LIBLINEAR_MOST = 1e30
_SMOOTH = {"lbfgs", "newton-cg", "newton-cholesky", "sag"}
_SOLVERS = _SMOOTH | {"liblinear", "saga"}
_GREATEST_PENALTY = 1e30  # above which all weights are zero anyhow
_BLOCK = 1 << 22  # numbers of rows in another precision at a time


class LinearPart:
    """Coefficients and intercepts, and the parameters of LogisticRegression that only a linear map has."""

    C: Any
    penalty: Any
    l1_ratio: Any
    fit_intercept: bool
    solver: str
    dual: bool
    max_iter: Any
    warm_start: bool
    n_features_in_: int
    learned_: Any
    encoder_: Any
    _coef: Any
    _intercept: Any
    _state: dict
    _resolve_specs: Callable
    _is_softmax_regression: Callable

    _linear_constraints: dict = {
        "C": [Interval(Real, 0, None, closed="right")],
        "penalty": [StrOptions({"auto", "l1", "l2", "elasticnet"}), None],
        "l1_ratio": [Interval(Real, 0, 1, closed="both"), None],
        "fit_intercept": ["boolean"],
        "solver": [StrOptions({"auto"} | _SOLVERS)],
        "dual": ["boolean"],
        "intercept_scaling": [Interval(Real, 0, None, closed="neither")],
    }

    def _penalties(self, total_weight: float) -> tuple:
        """(strength of the penalty on the average loss, part of it that is l1)."""
        ratio = {"l1": 1.0, "l2": 0.0}.get(self.penalty, self.l1_ratio or 0.0)
        if self.penalty == "elasticnet" and self.l1_ratio is None:
            raise ValueError("penalty='elasticnet' needs l1_ratio, the part of the penalty that is l1, but it is None.")
        if self.penalty in ("l1", "l2") and self.l1_ratio not in (None, ratio):
            warnings.warn(
                f"Inconsistent values: penalty={self.penalty} with l1_ratio={self.l1_ratio}. The l1_ratio parameter is "
                f"only used when penalty is 'elasticnet'. Got (penalty={self.penalty})",
                stacklevel=4,
            )
        if self.penalty is None and self.C != 1.0:
            warnings.warn(f"Setting penalty=None will ignore the C={self.C} parameter", stacklevel=4)
        if self.penalty is None or np.isinf(self.C):
            return 0.0, 0.0
        return min(1 / max(self.C * total_weight, 1 / _GREATEST_PENALTY), _GREATEST_PENALTY), ratio

    def _check_solver(self, penalty: str | None, ratio: float, n_classes: int) -> None:
        """Refuse what the solver that was named has not got in LogisticRegression."""
        solver = self.solver
        if self.dual and solver != "liblinear":
            raise ValueError(f"Solver {solver} supports only dual=False, got dual=True; the optimum is the same.")
        if solver in _SMOOTH and ratio:
            raise ValueError(
                f"Solver {solver} supports only 'l2' or None penalties, got l1_ratio={ratio:g}; use solver='auto'."
            )
        if solver != "liblinear":
            return
        if 0 < ratio < 1 or (self.dual and ratio):
            raise ValueError(
                f"Only 'saga' solver supports elasticnet penalty, got solver={solver}, dual={self.dual}; use "
                "solver='auto' with dual=False."
            )
        if not penalty:
            raise ValueError(
                "C=np.inf as well as penalty=None is not supported for the liblinear solver; use solver='auto'."
            )
        if n_classes > 2:
            raise ValueError("The 'liblinear' solver does not support multiclass classification; use solver='auto'.")

    def _check_size(self, X: Rows) -> None:
        """Refuse what liblinear cannot take, where that is named."""
        if self.solver == "liblinear" and X.max() > _LIBLINEAR_MOST:
            raise ValueError(
                "Using the 'liblinear' solver while X contains a maximum value > 1e30 results in a frozen fit. Please "
                "choose another solver or rescale the input X."
            )

    def _check_linear_options(
        self, linear: bool, exact: bool, penalty: str | None, ratio: float, n_classes: int
    ) -> None:
        """Refuse what only softmax regression has, where the specs call for another model."""
        if linear:
            self._check_solver(penalty, ratio, n_classes)
        given = {
            "l1_ratio": f"{ratio:g}" if ratio else "",
            "fit_intercept": "" if self.fit_intercept else "False",
            "solver": repr(self.solver) if self.solver != "auto" else "",
            "dual": "True" if self.dual else "",
            "max_iter": "0" if self.max_iter == 0 else "",
        }
        for name, value in given.items():
            if value and not linear:
                raise ValueError(
                    f"{name}={value} is for softmax regression: supervisory='data_label', learned='dot', "
                    "encoder='linear'; leave it out for other models."
                )
        if ratio and not exact:
            raise ValueError(
                f"l1_ratio={ratio:g} needs divergence='kl' on the CPU, without early_stopping; use device='cpu', or "
                "l1_ratio=0."
            )

    def _start(self, n_classes: int) -> tuple | None:
        """The last fit's coefficients where they fit this one and `warm_start` asks for them."""
        shape = (1 if n_classes == 2 else n_classes, self.n_features_in_)
        if not self.warm_start or np.shape(vars(self).get("_coef", ())) != shape or self._state:
            return None
        coef = self._coef.toarray() if sparse.issparse(self._coef) else np.asarray(self._coef, dtype=np.float64)
        return coef, np.broadcast_to(np.asarray(self._intercept, dtype=np.float64), len(coef))

    @property
    def coef_(self) -> Any:
        """Coefficients of softmax regression on X."""
        return self._linear_part("_coef")

    @coef_.setter
    def coef_(self, coef: Any) -> None:
        coef, width = coef if sparse.issparse(coef) else np.asarray(coef), vars(self).get("n_features_in_")
        if coef.ndim != 2 or width not in (None, coef.shape[1]):
            raise ValueError(
                f"coef_ has shape {coef.shape}, but is of (n_classes, or 1 of two, {width or 'n_features'})."
            )
        if self._predicts_as_given():
            self.n_features_in_, self._item_shape = coef.shape[1], coef.shape[1:]
        self._coef = coef

    @property
    def intercept_(self) -> Any:
        """Intercepts of softmax regression on X."""
        return self._linear_part("_intercept")

    @intercept_.setter
    def intercept_(self, intercept: Any) -> None:
        self._predicts_as_given()
        self._intercept = np.asarray(intercept)

    def _predicts_as_given(self) -> bool:
        """Let coefficients that are assigned before any fit predict, or begin one, as those of LogisticRegression."""
        if "loss_curve_" in vars(self):
            self._linear_part("_coef")
            return False
        if not self._may_be_linear():
            raise AttributeError(f"{self} is not linear in X, and has no coefficients.")
        self.supervisory_, self.learned_, self.encoder_ = self._resolve_specs()
        self._state: dict = {}
        return True

    def _linear_part(self, name: str) -> Any:
        check_is_fitted(self, "classes_")
        if self._coef is None or self._state:
            raise AttributeError(f"{type(self).__name__} with {self.learned_} and {self.encoder_} is not linear in X.")
        return vars(self)[name]

    def _may_be_linear(self) -> bool:
        """Whether coefficients there are, or after a fit would be."""
        try:
            return self._is_softmax_regression(self._resolve_specs())
        except (TypeError, ValueError):
            return False

    @available_if(_may_be_linear)
    def sparsify(self) -> Self:
        """Make `coef_` a sparse matrix, which predicts faster where most of it is zero.

        Returns
        -------
        ICONClassifier
            The estimator itself.
        """
        self.coef_ = sparse.csr_matrix(self.coef_)
        return self

    @available_if(_may_be_linear)
    def densify(self) -> Self:
        """Make `coef_` an ndarray, which it is after a fit.

        Returns
        -------
        ICONClassifier
            The estimator itself.
        """
        if sparse.issparse(self.coef_):
            self.coef_ = self.coef_.toarray()
        return self


def linear_map(X: Rows, coef: Array, intercept: Array) -> Array:
    """X coef^T + intercept in double precision, a block of dense rows at a time where these have another."""
    if sparse.issparse(X) or X.dtype == np.float64:
        product = X @ coef.T
        return np.asarray(product.toarray() if sparse.issparse(product) else product) + intercept
    step = max(1, _BLOCK // X.shape[1])
    parts = [np.asarray(X[first : first + step].astype(np.float64) @ coef.T) for first in range(0, len(X), step)]
    return np.concatenate(parts) + intercept
