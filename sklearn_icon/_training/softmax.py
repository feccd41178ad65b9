"""Softmax regression by Newton's method: the linear classifier under KL, to the precision of the floats.

    F(W, b) = sum_i s_i KL(p_i || softmax(W x_i + b))  +  l2 / 2 |W|^2  +  l1 |W|_1

Without l1, logits are z = T u with T of orthonormal columns that sum to zero (a half-line for two classes), as what all
classes share changes nothing. Steps solve H d = -g by conjugate gradients, preconditioned by the Cholesky factor of a
Hessian in which pairs of a row and two classes that add next to nothing are left out; with l1 they minimise the
quadratic model plus l1 |W|_1 by coordinate descent (proximal Newton, as in glmnet).
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, optimize, sparse

from .._core.group import group
from .._optim.lasso import lasso
from .._optim.solver import SolverResult
from .whitening import whitening

MOST_COEFFICIENTS = 2000  # that Newton's method solves for; more are left as L-BFGS leaves them
_FEW_COEFFICIENTS = 150  # up to which a Hessian costs less than the steps it spares
_FIRST_STEPS = 20  # of L-BFGS, where there are more
_LEAST_TOLERANCE = 1e-9  # of the Newton decrement, near the precision of the floats
_DECREASE = 64 * np.finfo(np.float64).eps  # of F by a step of L-BFGS, relative to F, below which it ends
_ARMIJO, _HALVINGS = 1e-4, 50
_STEP_PRECISION = 1e-3  # of a step, in the norm of the Hessian
_RIDGE, _NULL = 1e-13, 1e-10  # relative, that make singular Hessians regular
_DEPENDENT = 1e-13  # eigenvalue of a correlation matrix, over its size, that is taken for zero
LOG_NOTHING = float(np.log(np.finfo(np.float64).eps))  # the logit of a class that no row has
_DENSE_NUMBERS = 1 << 22  # of a sparse matrix that is made dense where few are zero
_NEGLIGIBLE = 1.0  # of the penalty's curvature, that pairs left out of a Hessian add together
_MOST_PRODUCTS = 8  # of a step, before the preconditioner is computed anew


class Penalty(NamedTuple):
    """l1 |W|_1 + l2 / 2 |W|^2."""

    l1: float
    l2: float


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

    def __init__(self, X, targets, weight, penalty, fit_intercept, basis):
        self.targets, self.weight, self.penalty = np.ascontiguousarray(targets.T), weight, penalty
        self.fit_intercept, self.basis = fit_intercept, basis
        self.mean = np.zeros(X.shape[1])
        if sparse.issparse(X):
            self.rows: Any = X
            self._with_ones: Any = None
        else:
            self._with_ones = np.full((X.shape[0], X.shape[1] + 1), float(fit_intercept))
            self.rows = self._with_ones[:, :-1]
            self.rows[:] = X
            if fit_intercept:
                self.mean = group().total(np.asarray(weight @ self.rows))
                self.rows -= self.mean
        self.shape = self.basis.shape[1], X.shape[1] + 1
        self.constant = float(group().total(_x_log_x(self.targets).sum(axis=0) @ weight))
        self.n_rows = group().total(X.shape[0])

    def scores(self, V):
        """u, of shape (m, n)."""
        if self._with_ones is not None:
            return V @ self._with_ones.T
        u = np.asarray(self.rows @ V[:, :-1].T).T
        return u + V[:, -1:] if self.fit_intercept else u

    def value(self, V, q_too=False):
        """F, and q of shape (n_classes, n) where wanted."""
        logits = self.basis @ self.scores(V)
        logits -= logits.max(axis=0)
        of_targets = np.einsum("ij,ij->j", self.targets, logits)
        q = np.exp(logits, out=logits)
        sums = q.sum(axis=0)
        value = group().total(self.weight @ (np.log(sums) - of_targets)) + self.constant
        weights = V[:, :-1]
        value += self.penalty.l2 / 2 * np.vdot(weights, weights)
        value += self.penalty.l1 * np.abs(weights).sum() if self.penalty.l1 else 0.0
        if q_too:
            q /= sums
        return (float(value), q) if q_too else float(value)

    def gradient(self, V, q):
        """That of the smooth part at V, where q is known."""
        return self._of_rows((q - self.targets) * self.weight, self.penalty.l2 * V[:, :-1])

    def product(self, direction, q):
        """The Hessian times a direction of shape (m, d + 1)."""
        change = self.basis @ self.scores(direction)
        change -= np.einsum("ij,ij->j", q, change)
        change *= q
        change *= self.weight
        return self._of_rows(change, self.penalty.l2 * direction[:, :-1])

    def _of_rows(self, slope, of_penalty):
        """sum_i T^T slope_i x_i^T, and what the penalty adds."""
        slope = self.basis.T @ slope
        if self._with_ones is not None:
            result = slope @ self._with_ones
        else:
            result = np.empty(self.shape)
            result[:, :-1] = np.asarray(self.rows.T @ slope.T).T
            result[:, -1] = slope.sum(axis=1) if self.fit_intercept else 0.0
        result = group().total(result)
        result[:, :-1] += of_penalty
        return result

    def hessian(self, q, negligible=0.0, dtype=np.float64):
        """The Hessian, of shape (m (d + 1), m (d + 1)), class after class.

        Parameters
        ----------
        q : ndarray of shape (n_classes, n)
        negligible : float, default=0.0
            Curvature that may be missing of each pair of classes.
        dtype : dtype, default=np.float64
            In which it is summed, where the rows are dense.
        """
        (m, width), (first, second, products) = self.shape, self._pairs
        least = negligible / self.n_rows / self.sq_sizes if negligible else None
        blocks = np.empty((len(first), width, width), dtype)
        for block, a, b in zip(blocks, first, second, strict=True):
            curvature = self.weight * q[a]
            curvature *= q[b]
            kept = None if least is None else np.flatnonzero(curvature > least)
            block[:] = self._moments(curvature if kept is None else curvature[kept], kept, dtype)
        blocks = products.astype(dtype, copy=False) @ blocks.reshape(len(first), width**2)
        result = blocks.reshape(m, m, width, width).transpose(0, 2, 1, 3).reshape(m * width, m * width)
        result = group().total(result)
        result.reshape(-1)[:: m * width + 1] += self._of_diagonal
        return result

    @cached_property
    def _pairs(self):
        """Pairs of classes a < b, and the products (e_a - e_b)(e_a - e_b)^T in the basis, a column a pair."""
        first, second = np.triu_indices(len(self.targets), 1)
        of_pairs = self.basis[first] - self.basis[second]
        return first, second, (of_pairs[:, :, None] * of_pairs[:, None, :]).reshape(len(first), -1).T

    @cached_property
    def _of_diagonal(self):
        """The penalty's part of the Hessian's diagonal, and ones for intercepts that there are none of."""
        m, width = self.shape
        return np.tile(np.append(np.full(width - 1, self.penalty.l2), float(not self.fit_intercept)), m)

    @cached_property
    def sq_sizes(self):
        """|x|^2 + 1 of each row."""
        if self._with_ones is None:
            return np.asarray(self.rows.multiply(self.rows).sum(axis=1)).ravel() + 1
        return np.einsum("ij,ij->i", self.rows, self.rows) + 1

    @cached_property
    def _single(self):
        """Rows with ones in single precision."""
        return self._with_ones.astype(np.float32)

    def _moments(self, weight, kept=None, dtype=np.float64):
        """sum_i w_i x_i x_i^T with a last column of ones, or zeros where there is no intercept."""
        if self._with_ones is not None:
            rows = self._with_ones if dtype == np.float64 else self._single
            rows = (rows if kept is None else rows[kept]) * np.sqrt(weight).astype(dtype, copy=False)[:, None]
            return rows.T @ rows
        rows, width = (self.rows if kept is None else self.rows[kept]), self.shape[1]
        result = np.zeros((width, width))
        result[:-1, :-1] = (rows.T @ rows.multiply(weight[:, None]).tocsr()).toarray()
        if self.fit_intercept:
            result[:-1, -1] = result[-1, :-1] = np.asarray(rows.T @ weight)
            result[-1, -1] = weight.sum()
        return result


def _x_log_x(p):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)


def solve_softmax(X, targets, weight, penalty, fit_intercept, start, *, max_iter, tol, on_step):
    """(coefficients, intercepts, report), two classes sharing one row of coefficients.

    A class of no weight gets a probability of next to nothing.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n, d)
    targets : ndarray of shape (n, n_classes)
    weight : ndarray of shape (n,)
        Positive.
    penalty : Penalty
        Of the loss averaged by weight.
    fit_intercept : bool
    start : tuple of ndarray or None
        (coefficients, intercepts) to start from.
    max_iter : int
    tol : float
        On the largest entry of the gradient. Up to 2,000 coefficients are then solved further, as a step of Newton's
        method costs no more than the test whether it is needed.
    on_step : callable (n_iter, loss) -> bool, or None
    """
    weight = weight / group().total(weight.sum())
    X = X.toarray() if sparse.issparse(X) and _is_small(X) else X
    n_classes, present = targets.shape[1], np.flatnonzero(group().total(weight @ targets) > 0)
    of_two = n_classes == 2
    coef, intercept = (np.zeros((1 if of_two else n_classes, X.shape[1])), np.zeros(1 if of_two else n_classes))
    absent = np.setdiff1d(np.arange(n_classes), present)
    if len(present) == 1:
        intercept[0 if of_two else absent] = LOG_NOTHING * (-1 if of_two and absent[0] == 0 else 1)
        return coef, intercept, SolverResult(0.0, 1, np.zeros(1), "converged")
    basis = np.array([[0.0], [1.0]]) if of_two else np.eye(len(present)) if penalty.l1 else _contrasts(len(present))
    classes = slice(None) if of_two else present
    problem = Softmax(X, targets[:, present], weight, penalty, fit_intercept, basis)
    V = np.zeros(problem.shape)
    if start is not None:
        W = np.column_stack([start[0], start[1] + start[0] @ problem.mean])[classes]
        V = W if of_two else basis.T @ W
    V, result = _solve(problem, V, max_iter, tol, on_step)
    if not (penalty.l1 or penalty.l2) and V.size <= MOST_COEFFICIENTS:
        V = _shortest(problem, V)
    W = V if of_two else basis @ V
    coef[classes], intercept[classes] = W[:, :-1], W[:, -1] - W[:, :-1] @ problem.mean
    if not of_two:
        intercept[present] -= intercept[present].mean() if fit_intercept else 0.0
        coef[absent], intercept[absent] = coef[present].mean(axis=0), intercept[present].mean() + LOG_NOTHING
    return coef, intercept, result


def _contrasts(n_classes):
    """An orthonormal basis of what sums to zero over the classes."""
    return linalg.helmert(n_classes).T


def _shortest(problem, V):
    """The shortest of all coefficients and intercepts with the same logits: columns may depend on each other."""
    moments = group().total(problem._moments(problem.weight))[:-1, :-1]
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


def _is_small(X):
    """Whether a sparse matrix takes little memory when dense, or hardly more."""
    numbers = group().total(X.shape[0]) * X.shape[1]
    return (numbers <= _DENSE_NUMBERS and X.shape[1] < MOST_COEFFICIENTS) or group().total(X.nnz) > numbers / 3


def _solve(problem, V, max_iter, tol, on_step):
    """(V at the minimum, report)."""
    report = _Report(on_step, max_iter)
    few = V.size <= _FEW_COEFFICIENTS
    if V.size > MOST_COEFFICIENTS:
        V, status = (_split if problem.penalty.l1 else _lbfgs)(problem, V, tol, report, max_iter)
    elif problem.penalty.l1:
        V, status = _proximal_newton(problem, V, tol, report)
    else:
        status = "max_iter"
        if not few:
            V, status = _lbfgs(problem, V, tol, report, min(max_iter, _FIRST_STEPS))
        if status in ("max_iter", "converged"):
            V, status = _newton(problem, V, tol, report, few)
    loss = report.losses[-1] if report.losses else problem.value(V)
    return V, SolverResult(loss, len(report.losses), np.asarray(report.losses), status)


class _Report:
    """Counts steps, keeps the losses, and says when to stop."""

    def __init__(self, on_step, max_iter):
        self.on_step, self.max_iter = on_step, max_iter
        self.losses: list[float] = []

    def __call__(self, loss):
        """True where another step may not be taken."""
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss was not finite but {loss} at iteration {len(self.losses)}; scale X.")
        self.losses.append(loss)
        return bool(self.on_step is not None and self.on_step(len(self.losses), loss))

    @property
    def is_full(self):
        """Whether all iterations are spent."""
        return len(self.losses) >= self.max_iter


def _newton(problem, V, tol, report, few):
    """(V, status), by steps of Newton's method from V until the decrement, of the last factor, is small or stays."""
    least, small = (max(min(tol, 1.0) ** power, _LEAST_TOLERANCE) for power in (2.25, 1.5))
    before, factor = np.inf, None
    value, q = problem.value(V, q_too=True)
    gradient, decrement = problem.gradient(V, q), 1.0
    while not report.is_full:
        if few or factor is None:
            factor = _factor(problem, q, 0.0 if few else _NEGLIGIBLE * problem.penalty.l2)
        precision = min(0.1, max(_STEP_PRECISION, decrement**0.5))
        step, products = _newton_step(problem, gradient, q, factor, 0.0 if few else precision)
        V, value, q = _search(problem, V, step, value, float(np.vdot(gradient, step)))
        gradient = problem.gradient(V, q)
        if report(value):
            return V, "interrupted"
        ahead = _solved(factor, gradient)
        decrement = np.sqrt(max(np.vdot(gradient, ahead), 0.0))
        if decrement <= least and np.abs(gradient).max() <= tol:
            return V - ahead, "converged"  # a last step, which is known already
        if before <= decrement <= small:
            return V, "converged"
        before = decrement if decrement <= small else np.inf
        factor = factor if products <= _MOST_PRODUCTS else None
    return V, "max_iter"


def _factor(problem, q, negligible):
    """The Cholesky factor of the Hessian, or of one that is near it, in single precision where that holds it."""
    if negligible:
        with np.errstate(over="ignore", invalid="ignore"):
            factor, info = linalg.lapack.spotrf(problem.hessian(q, negligible, np.float32))
        if not info and np.isfinite(factor.diagonal()).all():
            return factor
    hessian = problem.hessian(q, negligible)
    if not np.isfinite(hessian).all():
        raise FloatingPointError("the Hessian was not finite; scale X.")
    index, ridge = np.diag_indices(len(hessian)), _RIDGE
    diagonal = np.maximum(hessian.diagonal(), np.finfo(np.float64).tiny / _RIDGE**2)
    while True:
        hessian[index] = diagonal * (1 + ridge)
        factor, info = linalg.lapack.dpotrf(hessian)  # scipy's own wrapper takes longer than a small factor
        if not info:
            return factor
        ridge *= 100


def _solved(factor, right):
    """H^-1 times a right side of the shape of V."""
    solve = linalg.lapack.dpotrs if factor.dtype == np.float64 else linalg.lapack.spotrs
    return solve(factor, right.ravel())[0].reshape(right.shape).astype(np.float64, copy=False)


def _newton_step(problem, gradient, q, factor, precision):
    """(d with H d = -g, the products with H that it took)."""
    first = _solved(factor, gradient)
    step = -first
    if not precision:  # the factor is that of H
        return step, 0
    size_at_first, size = np.vdot(gradient, first), None
    residual = -gradient - problem.product(step, q)
    direction = ahead = _solved(factor, residual)
    for products in range(1, 2 * _MOST_PRODUCTS):
        size = np.vdot(residual, direction) if products == 1 else size
        if size <= precision**2 * size_at_first:
            break
        image = problem.product(ahead, q)
        length = size / np.vdot(ahead, image)
        step, residual = step + length * ahead, residual - length * image
        direction = _solved(factor, residual)
        size, last = np.vdot(residual, direction), size
        ahead = direction + size / last * ahead
    return step, products


def _search(problem, V, step, value, slope):
    """(V + t step, F and q there): the first t of 1, 1/2, 1/4, ... at which F falls by a part of what is promised."""
    t, rounding = 1.0, 8 * np.finfo(np.float64).eps * abs(value)
    for _ in range(_HALVINGS):
        ahead, q = problem.value(V + t * step, q_too=True)
        if ahead <= value + _ARMIJO * t * slope + rounding:
            return V + t * step, ahead, q
        t /= 2
    return V, *problem.value(V, q_too=True)


def _proximal_newton(problem, V, tol, report):
    """(V, status), by minima of the quadratic model plus l1 |W|_1, intercepts eliminated."""
    l1, (m, width) = problem.penalty.l1, V.shape
    last = np.arange(m * width) % width == width - 1
    least, before = max(min(tol, 1.0) ** 1.5, _LEAST_TOLERANCE), np.inf
    value, q = problem.value(V, q_too=True)
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
        V, value, q = _search(problem, V, step, value, slope)
        if report(value):
            return V, "interrupted"
        if decrement <= least and (_violation(problem, V, q) <= tol or decrement >= before):
            return V, "converged"
        before = decrement if decrement <= least else np.inf
    return V, "max_iter"


def _violation(problem, V, q):
    """The largest entry of the least subgradient."""
    gradient, l1 = problem.gradient(V, q), problem.penalty.l1
    weights, of_weights = V[:, :-1], gradient[:, :-1]
    at_zero = np.maximum(np.abs(of_weights) - l1, 0.0)
    of_weights = np.where(weights != 0, np.abs(of_weights + l1 * np.sign(weights)), at_zero)
    return max(of_weights.max(), np.abs(gradient[:, -1]).max())


def _lbfgs(problem, V, tol, report, max_iter):
    """(V, status), by L-BFGS over whitened coefficients, for which the first Hessian is nearly a multiple of one.

    ::

        W = U R^-T,     R^T R = cov(x) + ridge, or its diagonal
    """
    n_classes = len(problem.basis)
    ridge = problem.penalty.l2 * n_classes**2 / (n_classes - 1)
    mean, factor = whitening(problem.rows, problem.weight, ridge, problem.fit_intercept)
    change = _Change(mean, factor)
    last: dict = {}

    def value_and_gradient(flat):
        V = change.back(flat.reshape(problem.shape))
        value, q = problem.value(V, q_too=True)
        gradient = problem.gradient(V, q)
        last["size"] = np.abs(gradient).max()
        return value, change.of_gradient(gradient).ravel()

    def after_step(intermediate_result):
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

    def __init__(self, mean, factor):
        self.mean, self.factor = mean, factor
        self.inverse = 1 / factor if factor.ndim == 1 else linalg.solve_triangular(factor, np.eye(len(factor)))

    def there(self, V):
        weights = V[:, :-1]
        scaled = weights * self.factor if self.factor.ndim == 1 else weights @ self.factor.T
        return np.column_stack([scaled, V[:, -1] + weights @ self.mean])

    def back(self, U):
        weights = U[:, :-1] * self.inverse if self.factor.ndim == 1 else U[:, :-1] @ self.inverse.T
        return np.column_stack([weights, U[:, -1] - weights @ self.mean])

    def of_gradient(self, gradient):
        of_weights = gradient[:, :-1] - np.outer(gradient[:, -1], self.mean)
        scaled = of_weights * self.inverse if self.factor.ndim == 1 else of_weights @ self.inverse
        return np.column_stack([scaled, gradient[:, -1]])


def _split(problem, V, tol, report, max_iter):
    """(V, status), by L-BFGS over W's positive and negative parts, bounded by zero, of columns of unit size."""
    l1, (m, width) = problem.penalty.l1, V.shape
    factor = whitening(problem.rows, problem.weight, problem.penalty.l2, problem.fit_intercept, fully=False)[1]
    last: dict = {}

    def joined(flat):
        above, below, intercepts = flat[: m * (width - 1)], flat[m * (width - 1) : -m], flat[-m:]
        return np.column_stack([(above - below).reshape(m, -1) / factor, intercepts])

    def value_and_gradient(flat):
        V = joined(flat)
        value, q = problem.value(V, q_too=True)
        gradient = problem.gradient(V, q)
        last["size"] = _violation(problem, V, q)
        above, below = (((l1 + sign * gradient[:, :-1]) / factor).ravel() for sign in (1, -1))
        return value, np.concatenate([above, below, gradient[:, -1]])

    def after_step(intermediate_result):
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
