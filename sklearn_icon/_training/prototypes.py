"""How a classifier is solved: representations against class prototypes, or against each other first."""

from math import log
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone

from .._core.conditional import Conditional
from .._core.seeding import seeded_if
from .._core.team import leaving_cores_to
from .._objective.batches import batch_count, shuffled
from .._objective.objective import Objective
from .._optim.solver import SolverResult, adam_schedule, minimize
from ..encoders._networks import as_tensor, build_module, encode, state_arrays
from ..learned import Learned
from .early_stopping import EarlyStopping
from .softmax import Penalty, solve_softmax
from .whitening import ScaledRows

_BATCH_ROWS = 256
LBFGS_ITERATIONS = 100
_FIRST_TEMPERATURE = 0.1
_LENGTHS, _NEARLY_SURE = [2.0**power for power in range(-10, 11)], 0.9


class Labelled(NamedTuple):
    """Rows with their p over classes and their weights."""

    p: Conditional
    X: np.ndarray
    weight: np.ndarray

    def objective(self, learned, options):
        """D over these rows, a function of representations and prototypes."""
        return Objective(self.p, learned, sample_weight=self.weight, **options)

    def take(self, rows):
        """Some of the rows."""
        return Labelled(self.p.take(rows), self.X[rows], self.weight[rows])


class Classifier(NamedTuple):
    """A solved classifier: prototypes, q, the encoder's state or (coef, intercept), the reports of solver and watch."""

    prototypes: np.ndarray
    learned: Learned
    state: dict
    coef: np.ndarray | None
    intercept: np.ndarray | None
    result: SolverResult
    held_losses: list


def solve_linear(
    rows, held, learned, penalty, options, *, start, max_iter, tol, on_step, patience, l1_ratio=0.0, fit_intercept=True
):
    """Softmax regression: logits W x + b against fixed one-hot prototypes.

    ::

        sum_i s_i D(p_i || q_i) / sum_i s_i  +  penalty ((1 - l1_ratio) / 2 |W|^2 + l1_ratio |W|_1)

    Two classes share one row of W, whose sign is that of the second, as in logistic regression. KL is solved by
    Newton's method on the CPU; other divergences, on other devices and with rows held out by L-BFGS.

    Parameters
    ----------
    rows : Labelled
    held : Labelled or None
        Rows whose loss, which must fall within `patience` iterations, says when to stop.
    learned : Learned
        A kernel of dot products.
    penalty : float
    options : dict
        Of `Objective`: divergence, dtype, device.
    start : tuple of ndarray or None
        (coef, intercept) to start from; None for zeros.
    max_iter, tol, on_step
        Of the solver.
    l1_ratio : float, default=0.0
    fit_intercept : bool, default=True

    Returns
    -------
    Classifier
        Coefficients in the precision of the rows, intercepts in double precision.
    """
    max_iter = LBFGS_ITERATIONS if max_iter is None else max_iter
    how = {"max_iter": max_iter, "tol": tol, "on_step": on_step}
    tau = learned.temperature  # by which the logits are divided
    losses: list[float] = []
    if held is None and solves_exactly(options):
        counted = np.flatnonzero(rows.p.has_positives & (rows.weight > 0))
        given = rows if len(counted) == len(rows.weight) else rows.take(counted)
        penalties = Penalty(penalty * l1_ratio * tau, penalty * (1 - l1_ratio) * tau**2)
        targets = given.p.toarray().astype(np.float64, copy=False)
        coef, intercept, result = solve_softmax(given.X, targets, given.weight, penalties, fit_intercept, start, **how)
    else:
        coef, intercept, result, losses = _by_lbfgs(
            rows, held, penalty * tau**2, options, start, patience, fit_intercept, how
        )
    rounded = coef.astype(rows.X.dtype, copy=False)
    if rounded.dtype != coef.dtype and fit_intercept:  # what rounding takes of a mean far from zero
        share = rows.weight / rows.weight.sum()
        intercept = intercept + (coef - rounded) @ np.asarray(share @ rows.X, dtype=np.float64)
    prototypes = np.eye(rows.p.shape[1], dtype=rows.X.dtype)
    return Classifier(prototypes, learned, {}, rounded, intercept, result, losses)


def solves_exactly(options):
    """Whether softmax regression has a second-order method: KL on the CPU."""
    return options["divergence"] == "kl" and options["device"].type == "cpu"


def _by_lbfgs(rows, held, penalty, options, start, patience, fit_intercept, how):
    """(coef, intercept, report, losses on held-out rows) under any divergence, on any device."""
    kind = options["dtype"], options["device"]
    n_features, n_classes = rows.X.shape[1], rows.p.shape[1]
    n_logits = 1 if n_classes == 2 else n_classes
    ridge = penalty * n_classes**2 / (n_classes - 1)
    scaled = ScaledRows(rows.X, rows.weight, ridge, *kind, fit_intercept)
    start = (np.zeros((n_logits, n_features)), np.zeros(n_logits)) if start is None else start
    both = [torch.tensor(part, dtype=kind[0], device=kind[1]) for part in scaled.scale(*start)]
    params = [param.requires_grad_() for param in (both if fit_intercept else both[:1])]
    objective = rows.objective(_Logits(), options)
    prototypes = torch.eye(n_classes, dtype=kind[0], device=kind[1])

    def of_two(logits):
        return torch.cat([torch.zeros_like(logits), logits], dim=1) if n_classes == 2 else logits

    def loss():
        weight, bias = both
        logits = scaled.rows @ weight.T + (bias - weight @ scaled.shift)
        return objective(of_two(logits), prototypes) + penalty / 2 * scaled.unscaled(weight).square().sum()

    def unscaled():
        return scaled.unscale(*(param.detach() for param in both))

    def held_loss():
        coef, intercept = unscaled()
        return held_objective(of_two(as_tensor(held.X @ coef.T + intercept, *kind)), prototypes)

    def size(of_weight, of_bias=None):
        return scaled.gradient_size(of_weight, torch.zeros_like(both[1]) if of_bias is None else of_bias)

    held_objective = held and held.objective(_Logits(), options)
    solver = {"method": "lbfgs", "max_iter": how["max_iter"], "tol": how["tol"], "size": size}
    with leaving_cores_to(kind[1] == torch.device("cpu")):  # NumPy multiplies, and its threads need the cores
        result, losses = _minimize(loss, params, held and held_loss, 1, patience, how["on_step"], solver)
    return *unscaled(), result, losses


class _Logits(Learned):
    """The kernel exp(z_c) of key c: representations that are logits already."""

    def paired(self, z, keys):
        """Log-kernel of rows and one-hot keys; see `Learned.paired`."""
        return (z * keys).sum(1)

    def pairwise(self, z, keys):
        """Log-kernel of rows and the one-hot keys in order; see `Learned.pairwise`."""
        return z


def solve_prototypes(
    rows,
    held,
    learned,
    encoder,
    penalty,
    options,
    *,
    n_outputs,
    learning_rate,
    max_iter,
    tol,
    seed,
    on_step,
    patience,
):
    """An encoder and class prototypes together: Adam on minibatches, or L-BFGS for a linear encoder.

    Prototypes start as `first_prototypes` says; under a kernel of dot products they are one-hot and fixed.
    The penalty falls on all weight matrices; a scale-free q has none, which would only shrink them for ever.

    Parameters
    ----------
    rows, held, learned, penalty, options, max_iter, tol, on_step, patience
        As in `solve_linear`; a temperature that is to be learned is one more parameter.
    encoder : Encoder
    n_outputs : int
        Columns of the representation.
    learning_rate : float or "auto"
    seed : int

    Returns
    -------
    Classifier
    """
    kind = options["dtype"], options["device"]
    module = build_module(encoder, rows.X, n_outputs, seed, kind[0], rows.weight).to(kind[1])
    params, kept = [param for param in module.parameters() if param.requires_grad], list(module.buffers())
    free = learned.scale_free or encoder.orthonormal  # torch keeps signs in the weights behind an orthonormal map
    matrices = [] if free else [param for param in params if param.ndim > 1]
    with seeded_if(encoder.draws, seed, kind[1]):  # what modules draw, here and below, as in dropout
        prototypes = first_prototypes(rows, module, learned, options)
    if not learned.is_dot:
        params.append(prototypes.requires_grad_())
    log_temperature = None
    if "tau" in learned.learns:
        log_temperature = torch.tensor(log(_FIRST_TEMPERATURE), dtype=kind[0], device=kind[1], requires_grad=True)
        params.append(log_temperature)

    def present():
        """q at the present temperature."""
        if log_temperature is None:
            return learned
        return type(learned)(metric=learned.metric, tau=log_temperature.exp())

    smooth, n = encoder.is_linear, len(rows.weight)
    batches = _batches(rows, present(), n if smooth else _BATCH_ROWS, seed, options)

    def loss():
        objective, batch = next(batches)
        objective.learned = present()
        weight_decay = sum(matrix.square().sum() for matrix in matrices)
        return objective(module(batch), prototypes) + penalty / 2 * weight_decay

    def held_loss():
        held_objective.learned = present()
        module.eval()
        represented = as_tensor(encode(module, held.X), *kind)
        module.train()
        return held_objective(represented, prototypes)

    held_objective = held and held.objective(present(), options)
    how, steps_per_pass = _schedule(smooth, n, max_iter, tol, learning_rate)
    with seeded_if(encoder.draws, seed, kind[1]):
        result, losses = _minimize(loss, params, held and held_loss, steps_per_pass, patience, on_step, how, kept)
    result = result._replace(n_iter=-(-result.n_iter // steps_per_pass))
    learned = clone(learned)
    if log_temperature is not None:
        learned.set_params(tau=float(log_temperature.detach().exp()))
    state = state_arrays(module.cpu().eval())
    return Classifier(prototypes.detach().cpu().numpy(), learned, state, None, None, result, losses)


def _schedule(smooth, n, max_iter, tol, learning_rate):
    """(method and options of the solver, steps in a pass over n rows)."""
    if smooth:
        return {"method": "lbfgs", "max_iter": max_iter or LBFGS_ITERATIONS, "tol": tol}, 1
    steps_per_pass = batch_count(n, _BATCH_ROWS)
    return adam_schedule(steps_per_pass, max_iter, tol, learning_rate), steps_per_pass


def _minimize(loss, params, held_loss, every, patience, on_step, how, kept=()):
    """(solver's report, losses on held-out rows), stopping early where there is such a loss."""
    if held_loss is None:
        return minimize(loss, params, kept=kept, on_step=on_step, **how), []
    watch = EarlyStopping(held_loss, [*params, *kept], every, patience, on_step)
    result = minimize(loss, params, kept=kept, on_step=watch, **how)
    watch.restore()
    return result._replace(status="completed") if result.status == "interrupted" else result, watch.losses


def _batches(rows, learned, n_batch, seed, options):
    """Yield (objective, rows) of minibatches for ever; all rows at once where they fit into one."""
    kind = options["dtype"], options["device"]
    n = len(rows.weight)
    if n <= n_batch:
        everything = rows.objective(learned, options), as_tensor(rows.X, *kind)
        while True:
            yield everything
    rng = np.random.RandomState(seed)
    while True:
        for part in shuffled(n, n_batch, rng):
            batch = rows.take(part)
            yield batch.objective(learned, options), as_tensor(batch.X, *kind)


def first_prototypes(rows, module, learned, options):
    """Where prototypes start: one-hot, so far apart that a row on top of its own is nearly sure of it.

    A divergence other than KL is bounded, and nearly flat where rows are sure of the wrong one: there prototypes start
    at the mean representations of the classes.
    """
    kind = options["dtype"], options["device"]
    prototypes = torch.eye(rows.p.shape[1], dtype=kind[0], device=kind[1])
    if learned.is_dot:
        return prototypes
    if options["divergence"] != "kl":
        share = rows.p.weights.T.multiply(rows.weight).tocsr()
        share = share / np.maximum(np.asarray(share.sum(axis=1)).reshape(-1, 1), np.finfo(np.float64).tiny)
        return as_tensor(sparse.csr_array(share) @ encode(module, rows.X), *kind)
    if learned.scale_free:
        return prototypes
    for length in _LENGTHS:
        keys = length * prototypes
        if learned.pairwise(*learned.prepare(keys, keys)).log_softmax(1)[0, 0] >= log(_NEARLY_SURE):
            break
    return keys
