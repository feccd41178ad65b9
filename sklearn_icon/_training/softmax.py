"""Softmax regression by Newton's method: the linear classifier under KL, to the precision of the floats.

    F(W, b) = sum_i s_i KL(p_i || softmax(W x_i + b))  +  l2 / 2 |W|^2  +  l1 |W|_1

Without l1, logits are z = T u with T of orthonormal columns that sum to zero (a half-line for two classes), as what all
classes share changes nothing. Steps solve H d = -g: by a Cholesky factor of few coefficients, and of more by conjugate
gradients in single precision, preconditioned by the inverse of each class's block of H, after some steps of L-BFGS.
With l1 they minimise the quadratic model plus l1 |W|_1 by coordinate descent (proximal Newton, as in glmnet).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import linalg, optimize, sparse

from .._core.group import group
from .._core.types import Array, Rows
from .._optim.lasso import lasso
from .._optim.solver import SolverResult
from .softmax_loss import Penalty, Softmax, Start
from .whitening import whitening

MOST_COEFFICIENTS = 2000  # that Newton's method solves for; more are left as L-BFGS leaves them
_FEW_COEFFICIENTS = 150  # up to which a Hessian costs less than the steps it spares
_FIRST_STEPS = 15  # of L-BFGS, where there are more
_LEAST_TOLERANCE = 1e-9  # of the Newton decrement, near the precision of the floats
_OF_PRODUCTS = 0.1  # of it, where the last step is not exact: weights and copies then agree to 1e-8
_OF_CHORDS = 1e-3  # of it, where the last step is by a factor that is no longer that of the Hessian
_OF_ERROR, _LEAST_ERROR = 2e-7, 1e-12  # of coefficients, which is at most the decrement over the root of l2; at least
_DECREASE = 64 * np.finfo(np.float64).eps  # of F by a step of L-BFGS, relative to F, below which it ends
_ARMIJO, _HALVINGS = 1e-4, 50
_STILL_FALLS, _LENGTHS, _LONGEST = 0.05, 2, 3.0  # slope, of that at the start, at which a step is made longer
_RIDGE, _NULL = 1e-13, 1e-10  # relative, that make singular Hessians regular
_TINY = np.finfo(np.float64).tiny
_DEPENDENT = 1e-13  # eigenvalue of a correlation matrix, over its size, that is taken for zero
LOG_NOTHING = float(np.log(np.finfo(np.float64).eps))  # the logit of a class that no row has
_DENSE_NUMBERS = 1 << 22  # of a sparse matrix that is made dense where few are zero
_MANY_PRODUCTS, _PRODUCTS = 10, 80  # of a step, after which the preconditioner is computed anew; at most
_FALLS = 0.1  # decrement, of the last, at most, where steps are as exact as they seem
_PRECISION, _ORDER = 0.1, 0.5  # of a step, in the norm of the Hessian, at most; power of the decrement


def solve_softmax(
    X: Rows,
    targets: Array,
    weight: Array,
    penalty: Penalty,
    start: Start,
    *,
    max_iter: int,
    tol: float,
    on_step: Callable[[int, float], Any] | None,
) -> tuple[Array, Array, SolverResult]:
    """(coefficients, intercepts, report), two classes sharing one row of coefficients.

    Weights are positive, and the penalty is one of the loss averaged by them. A class of no weight gets a probability
    of next to nothing. `tol` is on the largest entry of the gradient; up to 2,000 coefficients are then solved further,
    as a step of Newton's method costs no more than the test whether it is needed. `on_step` says whether to stop.
    """
    fit_intercept = start.fit_intercept
    weight = weight / group().total(weight.sum())
    X = X.toarray() if sparse.issparse(X) and _is_small(X) else X
    n_classes, seen = targets.shape[1], group().total(weight @ targets) > 0
    present, absent = np.flatnonzero(seen), np.flatnonzero(~seen)
    of_two = n_classes == 2
    coef, intercept = (np.zeros((1 if of_two else n_classes, X.shape[1])), np.zeros(1 if of_two else n_classes))
    if len(present) == 1:
        return (*without(absent, coef, intercept), SolverResult(0.0, 1, np.zeros(1), "converged"))
    basis = np.array([[0.0], [1.0]]) if of_two else np.eye(len(present)) if penalty.l1 else _contrasts(len(present))
    classes = slice(None) if of_two else present
    problem = Softmax(X, targets[:, present], weight, penalty, fit_intercept, basis)
    V = np.zeros(problem.shape)
    if start.at is not None:
        coef_first, first = start.at
        W = np.column_stack([coef_first, first + coef_first @ problem.mean])[classes]
        V = W if of_two else basis.T @ W
    V, result = _solve(problem, V, max_iter, tol, on_step)
    if not (penalty.l1 or penalty.l2) and V.size <= MOST_COEFFICIENTS:
        V = _shortest(problem, V)
    W = V if of_two else basis @ V
    coef[classes], intercept[classes] = W[:, :-1], W[:, -1] - W[:, :-1] @ problem.mean
    if not of_two:
        intercept[present] -= intercept[present].mean() if fit_intercept else 0.0
    return (*without(absent, coef, intercept), result)


def without(absent: Array, coef: Array, intercept: Array) -> tuple[Array, Array]:
    """Coefficients and intercepts by which nothing is of some classes: of two, of the other one."""
    if not len(absent):
        return coef, intercept
    if len(coef) == 1:
        return np.zeros_like(coef), np.full_like(intercept, LOG_NOTHING if absent[0] else -LOG_NOTHING)
    coef, intercept, present = coef.copy(), intercept.copy(), np.delete(np.arange(len(coef)), absent)
    coef[absent], intercept[absent] = coef[present].mean(axis=0), intercept[present].mean() + LOG_NOTHING
    return coef, intercept


def _contrasts(n_classes: int) -> Array:
    """An orthonormal basis of what sums to zero over the classes."""
    return linalg.helmert(n_classes).T


def _shortest(problem: Softmax, V: Array) -> Array:
    """The shortest of all coefficients and intercepts with the same logits: columns may depend on each other."""
    moments = group().total(problem.moments(problem.weight))[:-1, :-1]
    size = np.sqrt(moments.diagonal())
    size[size == 0] = 1.0
    values, vectors = linalg.eigh(moments / np.outer(size, size))
    free = vectors[:, values <= _DEPENDENT * len(values)] / size[:, None]
    if not free.size:
        return V
    free = np.vstack([free, -problem.mean @ free]) if problem.fit_intercept else np.vstack([free, 0 * free[:1]])
    free = linalg.orth(free)
    raw = np.column_stack([V[:, :-1], V[:, -1] - V[:, :-1] @ problem.mean])
    raw -= (raw @ free) @ free.T
    return np.column_stack([raw[:, :-1], raw[:, -1] + raw[:, :-1] @ problem.mean])


def _is_small(X: Rows) -> bool:
    """Whether a sparse matrix takes little memory when dense, or hardly more."""
    numbers = group().total(X.shape[0]) * X.shape[1]
    return (numbers <= _DENSE_NUMBERS and X.shape[1] < MOST_COEFFICIENTS) or group().total(X.nnz) > numbers / 3


def _solve(
    problem: Softmax, V: Array, max_iter: int, tol: float, on_step: Callable[[int, float], Any] | None
) -> tuple[Array, SolverResult]:
    """(V at the minimum, report)."""
    report = _Report(on_step, max_iter)
    few = V.size <= _FEW_COEFFICIENTS
    if V.size > MOST_COEFFICIENTS:
        V, status = (_split if problem.penalty.l1 else _lbfgs)(problem, V, tol, report, max_iter)
    elif problem.penalty.l1:
        V, status = _proximal_newton(problem, V, tol, report)
    else:
        status, rough = "max_iter", None if few else problem.in_single_precision()
        if not few:
            V, status = _lbfgs(problem if rough is None else rough, V, tol, report, min(max_iter, _FIRST_STEPS))
        if status in ("max_iter", "converged"):
            V, status = _newton(problem, V, tol, report) if few else _by_products(problem, rough, V, tol, report)
    loss = report.losses[-1] if report.losses else problem.value(V)[0]
    return V, SolverResult(loss, len(report.losses), np.asarray(report.losses), status)


class _Report:
    """Counts steps, keeps the losses, and says when to stop."""

    def __init__(self, on_step: Callable[[int, float], Any] | None, max_iter: int) -> None:
        self.on_step, self.max_iter = on_step, max_iter
        self.losses: list[float] = []

    def __call__(self, loss: float) -> bool:
        """True where another step may not be taken."""
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss was not finite but {loss} at iteration {len(self.losses)}; scale X.")
        self.losses.append(loss)
        return bool(self.on_step is not None and self.on_step(len(self.losses), loss))

    @property
    def is_full(self) -> bool:
        """Whether all iterations are spent."""
        return len(self.losses) >= self.max_iter


def _newton(problem: Softmax, V: Array, tol: float, report: _Report) -> tuple[Array, str]:
    """(V, status), by steps of Newton's method from V until the decrement, of the last factor, is small or stays."""
    least, small = _tolerances(tol)
    before, logits = np.inf, problem.logits(V)
    value, q = problem.value(V, logits)
    gradient = problem.gradient(V, q)
    while not report.is_full:
        factor = _factor(problem.hessian(q))
        step = -_solved(factor, gradient)
        slope = float(np.vdot(gradient, step))
        V, logits, value, q = _search(problem, V, logits, step, value, slope)
        gradient = problem.gradient(V, q)
        if report(value):
            return V, "interrupted"
        ahead = _solved(factor, gradient)
        decrement = np.sqrt(max(np.vdot(gradient, ahead), 0.0))
        left = decrement**2 / np.sqrt(max(-slope, decrement**2, _TINY))  # if this step falls short as the last did
        is_small = decrement <= least or (decrement <= small and left <= _OF_CHORDS * least)
        if is_small and np.abs(gradient).max() <= tol:
            return V - ahead, "converged"  # a last step, which is known already
        if before <= decrement <= small:
            return V, "converged"
        before = decrement if decrement <= small else np.inf
    return V, "max_iter"


def _tolerances(tol: float) -> Iterator[float]:
    """Newton decrements: at which steps end, and below which they end as soon as one is no smaller than the last."""
    return (max(min(tol, 1.0) ** power, _LEAST_TOLERANCE) for power in (2.25, 1.5))


def _by_products(problem: Softmax, rough: Softmax | None, V: Array, tol: float, report: _Report) -> tuple[Array, str]:
    """(V, status), by steps of Newton's method that are found by conjugate gradients.

    These multiply with `rough`, the problem in single precision, where there is one; F and its gradient are those of
    `problem`.
    """
    rough = problem if rough is None else rough
    most, small = _tolerances(tol)
    before, last, inverse, logits = np.inf, np.inf, None, problem.logits(V)
    value, q = problem.value(V, logits)
    while not report.is_full:
        gradient = problem.gradient(V, q)
        inverse = _ByClass(rough, q) if inverse is None else inverse
        of_error = _OF_ERROR * np.sqrt(problem.penalty.l2) * np.abs(V).max()
        least = _OF_PRODUCTS * (min(most, max(of_error, _LEAST_ERROR)) if of_error else most)
        step, left, products = _newton_step(rough, gradient, q, inverse, least)
        decrement = np.sqrt(max(-np.vdot(gradient, step), 0.0))
        if before <= decrement <= small and decrement**2 <= _DECREASE * abs(value):
            return V, "converged"
        V, logits, value, q = _search(problem, V, logits, step, value, -(decrement**2))
        if report(value):
            return V, "interrupted"
        ends = decrement <= min(small, max(_FALLS * last, least))  # else more was left than the preconditioner told
        left = max(left, decrement * (decrement / last) ** 2)  # of the step itself, and of the model that it minimises
        if ends and left <= least and np.abs(gradient).max() <= tol:
            return V, "converged"
        if products > _MANY_PRODUCTS:  # for which single precision may not be enough
            rough, inverse = problem, None
        before, last = decrement if decrement <= small else np.inf, decrement
    return V, "max_iter"


def _factor(hessian: Array, ridge: float = _RIDGE) -> Array:
    """The Cholesky factor of a matrix, which it overwrites, or of one near it that is regular."""
    if not np.isfinite(hessian).all():
        raise FloatingPointError("the Hessian was not finite; scale X.")
    index = np.diag_indices(len(hessian))
    diagonal = np.maximum(hessian.diagonal(), np.finfo(np.float64).tiny / _RIDGE**2)
    while True:
        hessian[index] = diagonal * (1 + ridge)
        factor, info = linalg.lapack.dpotrf(hessian)  # scipy's own wrapper takes longer than a small factor
        if not info:
            return factor
        ridge *= 100


def _solved(factor: Array, right: Array) -> Array:
    """H^-1 times a right side of the shape of V."""
    return linalg.lapack.dpotrs(factor, right.ravel())[0].reshape(right.shape)


class _ByClass:
    """The inverse of the Hessian without what couples classes: a block for each, in the coordinates of classes."""

    def __init__(self, problem: Softmax, q: Array) -> None:
        ridge = max(8 * float(np.finfo(problem.basis.dtype).eps), _RIDGE)
        self.blocks = np.array([linalg.lapack.dpotri(_factor(block, ridge))[0] for block in problem.blocks(q)])
        for inverse in self.blocks:  # of which dpotri gives the upper half
            inverse += np.triu(inverse, 1).T
        self.basis = problem.basis[problem.basis.any(axis=1)].astype(np.float64)

    def __call__(self, right: Array) -> Array:
        of_classes = np.matmul(self.blocks, (self.basis @ right)[:, :, None])[:, :, 0]
        return self.basis.T @ of_classes


def _newton_step(problem: Softmax, gradient: Array, q: Array, inverse: Any, least: float) -> tuple[Array, float, int]:
    """(d with H d = -g by conjugate gradients, preconditioned by an inverse; the decrement left; products with H)."""
    q = q.astype(problem.basis.dtype, copy=False)
    first = inverse(gradient)
    step, residual, direction, products = np.zeros_like(gradient), -gradient, -first, 0
    size = size_at_first = np.vdot(gradient, first)
    scale = np.sqrt(max(size, least**2))
    precision = max(min(_PRECISION, scale**_ORDER), min(0.5, 0.5 * least / scale))
    while size > precision**2 * size_at_first and products < _PRODUCTS:
        image, products = problem.product(direction, q), products + 1
        curvature = np.vdot(direction, image)
        if not curvature > 0:  # rounding
            break
        step, residual = step + size / curvature * direction, residual - size / curvature * image
        ahead = inverse(residual)
        size, last = np.vdot(residual, ahead), size
        direction = ahead + size / last * direction
    return (step if products > 1 or step.any() else -first), np.sqrt(max(size, 0.0)), products


def _search(
    problem: Softmax, V: Array, logits: Array, step: Array, value: float, slope: float
) -> tuple[Array, Array, float, Array]:
    """(V + t step, its logits, F and q there): the first t of 1, 1/2, 1/4, ... at which F falls by a part of what is
    promised; or a longer one where F still falls at 1.
    """
    along, rounding = problem.logits(step), 8 * np.finfo(np.float64).eps * abs(value)

    def at(t: float) -> tuple:
        there, logits_there = V + t * step, logits + t * along
        return there, logits_there, *problem.value(there, logits_there)

    t = 1.0
    for _ in range(_HALVINGS):
        found = at(t)
        if found[2] <= value + _ARMIJO * t * slope + rounding:
            return found if t < 1 or problem.penalty.l1 else _longer(problem, at, step, along, found, slope)
        t /= 2
    return V, logits, *problem.value(V, logits)


def _longer(
    problem: Softmax, at: Callable[[float], tuple], step: Array, along: Array, found: tuple, slope: float
) -> tuple:
    """What `at` gives of a t near that at which F is least along the step, from where it is at 1."""
    t, before = 1.0, (0.0, slope)
    for _ in range(_LENGTHS):
        here = problem.slope(found[0], found[3], step, along)
        if here > _STILL_FALLS * slope or here <= before[1]:
            break
        t, before = t + min(here / (before[1] - here), _LONGEST) * (t - before[0]), (t, here)
        ahead = at(t)
        if not ahead[2] < found[2]:
            break
        found = ahead
    return found


def _proximal_newton(problem: Softmax, V: Array, tol: float, report: _Report) -> tuple[Array, str]:
    """(V, status), by minima of the quadratic model plus l1 |W|_1, intercepts eliminated."""
    l1, (m, width) = problem.penalty.l1, V.shape
    last = np.arange(m * width) % width == width - 1
    least, before = max(min(tol, 1.0) ** 1.5, _LEAST_TOLERANCE), np.inf
    logits = problem.logits(V)
    value, q = problem.value(V, logits)
    while not report.is_full:
        gradient, hessian = problem.gradient(V, q).ravel(), problem.hessian(q)
        of_intercepts, mixed = hessian[np.ix_(last, last)], hessian[np.ix_(last, ~last)]
        of_intercepts[np.diag_indices(m)] += _NULL * of_intercepts.diagonal().max()  # what all classes share is free
        eliminated = linalg.solve(of_intercepts, np.column_stack([gradient[last], mixed]), assume_a="pos")
        reduced = hessian[np.ix_(~last, ~last)] - mixed.T @ eliminated[:, 1:]
        reduced[np.diag_indices(len(reduced))] += _NULL * max(reduced.diagonal().max(), 1.0)
        weights = V[:, :-1].ravel()
        pull = reduced @ weights - gradient[~last] + mixed.T @ eliminated[:, 0]
        step = np.empty(m * width)
        step[~last] = lasso(reduced, pull, l1, weights) - weights
        step[last] = -eliminated[:, 0] - eliminated[:, 1:] @ step[~last]
        step = step.reshape(V.shape)
        slope = gradient @ step.ravel() + l1 * (np.abs(V + step)[:, :-1].sum() - np.abs(weights).sum())
        decrement = np.sqrt(max(-slope, 0.0))
        V, logits, value, q = _search(problem, V, logits, step, value, slope)
        if report(value):
            return V, "interrupted"
        if decrement <= least and (_violation(problem, V, q) <= tol or decrement >= before):
            return V, "converged"
        before = decrement if decrement <= least else np.inf
    return V, "max_iter"


def _violation(problem: Softmax, V: Array, q: Array) -> float:
    """The largest entry of the least subgradient."""
    gradient, l1 = problem.gradient(V, q), problem.penalty.l1
    weights, of_weights = V[:, :-1], gradient[:, :-1]
    at_zero = np.maximum(np.abs(of_weights) - l1, 0.0)
    of_weights = np.where(weights != 0, np.abs(of_weights + l1 * np.sign(weights)), at_zero)
    return max(of_weights.max(), np.abs(gradient[:, -1]).max())


def _lbfgs(problem: Softmax, V: Array, tol: float, report: _Report, max_iter: int) -> tuple[Array, str]:
    """(V, status), by L-BFGS over whitened coefficients, for which the first Hessian is nearly a multiple of one.

    ::

        W = U R^-T,     R^T R = cov(x) + ridge, or its diagonal
    """
    n_classes = len(problem.basis)
    ridge = problem.penalty.l2 * n_classes**2 / (n_classes - 1)
    mean, factor = whitening(problem.rows, problem.weight, ridge, problem.fit_intercept)
    change = _Change(mean, factor)
    last: dict = {}

    def value_and_gradient(flat: Array) -> tuple[float, Array]:
        V = change.back(flat.reshape(problem.shape))
        value, q = problem.value(V)
        gradient = problem.gradient(V, q)
        last["size"] = np.abs(gradient).max()
        return value, change.of_gradient(gradient).ravel()

    def after_step(intermediate_result: Any) -> None:
        if report(float(intermediate_result.fun)):
            last["status"] = "interrupted"
        elif last["size"] <= tol:
            last["status"] = "converged"
        if "status" in last:
            raise StopIteration

    how = {"maxiter": max_iter, "gtol": 0.0, "ftol": _DECREASE, "maxls": 50}
    start = change.there(V).ravel()
    found = optimize.minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", callback=after_step, options=how)
    status = "max_iter" if found.status == 1 else "converged"  # or the precision's own limit
    return change.back(found.x.reshape(problem.shape)), last.get("status", status)


class _Change:
    """V = (W, b) as a function of U = (W R^T, b + W m), R upper triangular or diagonal."""

    def __init__(self, mean: Array, factor: Array) -> None:
        self.mean, self.factor = mean, factor
        self.inverse = 1 / factor if factor.ndim == 1 else linalg.solve_triangular(factor, np.eye(len(factor)))

    def there(self, V: Array) -> Array:
        weights = V[:, :-1]
        scaled = weights * self.factor if self.factor.ndim == 1 else weights @ self.factor.T
        return np.column_stack([scaled, V[:, -1] + weights @ self.mean])

    def back(self, U: Array) -> Array:
        weights = U[:, :-1] * self.inverse if self.factor.ndim == 1 else U[:, :-1] @ self.inverse.T
        return np.column_stack([weights, U[:, -1] - weights @ self.mean])

    def of_gradient(self, gradient: Array) -> Array:
        of_weights = gradient[:, :-1] - np.outer(gradient[:, -1], self.mean)
        scaled = of_weights * self.inverse if self.factor.ndim == 1 else of_weights @ self.inverse
        return np.column_stack([scaled, gradient[:, -1]])


def _split(problem: Softmax, V: Array, tol: float, report: _Report, max_iter: int) -> tuple[Array, str]:
    """(V, status), by L-BFGS over W's positive and negative parts, bounded by zero, of columns of unit size."""
    l1, (m, width) = problem.penalty.l1, V.shape
    factor = whitening(problem.rows, problem.weight, problem.penalty.l2, problem.fit_intercept, fully=False)[1]
    last: dict = {}

    def joined(flat: Array) -> Array:
        above, below, intercepts = flat[: m * (width - 1)], flat[m * (width - 1) : -m], flat[-m:]
        return np.column_stack([(above - below).reshape(m, -1) / factor, intercepts])

    def value_and_gradient(flat: Array) -> tuple[float, Array]:
        V = joined(flat)
        value, q = problem.value(V)
        gradient = problem.gradient(V, q)
        last["size"] = _violation(problem, V, q)
        above, below = (((l1 + sign * gradient[:, :-1]) / factor).ravel() for sign in (1, -1))
        return value, np.concatenate([above, below, gradient[:, -1]])

    def after_step(intermediate_result: Any) -> None:
        if report(float(intermediate_result.fun)):
            last["status"] = "interrupted"
        elif last["size"] <= tol:
            last["status"] = "converged"
        if "status" in last:
            raise StopIteration

    scaled = (V[:, :-1] * factor).ravel()
    start = np.concatenate([np.maximum(scaled, 0), np.maximum(-scaled, 0), V[:, -1]])
    bounds = optimize.Bounds(np.append(np.zeros(2 * len(scaled)), np.full(m, -np.inf)), np.inf)
    how = {"maxiter": max_iter, "gtol": 0.0, "ftol": _DECREASE, "maxls": 50}
    found = optimize.minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, callback=after_step, options=how
    )
    status = "max_iter" if found.status == 1 else "converged"
    return joined(found.x), last.get("status", status)
