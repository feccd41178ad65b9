"""How a classifier is solved: representations against class prototypes."""

from collections.abc import Callable, Iterator
from functools import partial
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone

from .._core.group import group
from .._core.journal import recalled
from .._core.seeding import seeded_if
from .._core.team import leaving_cores_to
from .._objective.batches import batch_count, shuffled
from .._objective.loss import Loss
from .._objective.objective import Objective
from .._optim.early_stopping import EarlyStopping
from .._optim.methods import LBFGS, Solver, adam_of_passes
from .._optim.solver import SolverResult
from .._optim.train import Problem, Run, Training, averaged, train
from ..encoders import Encoder
from ..encoders._networks import as_tensor, build_module, encode, state_arrays
from ..learned import Learned
from .given import Labelled
from .softmax import MOST_COEFFICIENTS, solve_softmax, without
from .softmax_loss import Penalty, Start
from .whitening import ScaledRows, bounded, mean_of

_BATCH_ROWS = 256
LBFGS_ITERATIONS = 100
_FURTHER = 1e-3  # of the tolerance, to which few coefficients are solved, as Newton's method solves them
_FIRST_TEMPERATURE = 0.1
_LENGTHS, _NEARLY_SURE = [2.0**power for power in range(-10, 11)], 0.9


class Classifier(NamedTuple):
    """A solved classifier: prototypes, q, the encoder's state or (coef, intercept), the losses on held-out rows."""

    prototypes: np.ndarray
    learned: Learned
    state: dict
    coef: np.ndarray | None
    intercept: np.ndarray | None
    result: SolverResult
    held_losses: list

    def without(self, absent: np.ndarray) -> "Classifier":
        """By which nothing is of some classes, where logits are linear."""
        if self.coef is None or self.intercept is None:
            return self
        coef, intercept = without(absent, self.coef, self.intercept)
        return self._replace(coef=coef, intercept=intercept)


def _steps(training: Training) -> int:
    """Iterations at the most, of which none may be asked for."""
    return LBFGS_ITERATIONS if training.max_iter is None else training.max_iter


def solve_linear(
    rows: Labelled, held: Labelled | None, loss: Loss, penalty: Penalty, start: Start, training: Training, run: Run
) -> Classifier:
    """Softmax regression: logits W x + b against fixed one-hot prototypes, q a kernel of dot products.

    ::

        sum_i s_i D(p_i || q_i) / sum_i s_i  +  l2 / 2 |W|^2 + l1 |W|_1

    Two classes share one row of W, whose sign is that of the second, as in logistic regression. KL is solved by
    Newton's method on the CPU; other divergences, on other devices and with rows held out by L-BFGS. Coefficients come
    in the precision of the rows, intercepts in double precision.
    """
    training = training._replace(max_iter=_steps(training))
    tau = loss.learned.temperature  # by which the logits are divided
    scaled = Penalty(penalty.l1 * tau, penalty.l2 * tau**2)
    losses: list[float] = []
    if held is None and solves_exactly(loss, run):
        coef, intercept, result = _exactly(rows, scaled, start, training, run)
    else:
        coef, intercept, result, losses = _by_lbfgs(rows, held, loss, scaled.l2, start, training, run)
    rounded = coef.astype(rows.X.dtype, copy=False)
    if rounded.dtype != coef.dtype and start.fit_intercept:  # what rounding takes of a mean far from zero
        share = bounded(rows.X, rows.weight / group().total(rows.weight.sum()))
        intercept = intercept + (coef - rounded) @ mean_of(rows.X, share)
    prototypes = np.eye(rows.p.shape[1], dtype=rows.X.dtype)
    return Classifier(prototypes, loss.learned, {}, rounded, intercept, result, losses)


def solves_exactly(loss: Loss, run: Run) -> bool:
    """Whether softmax regression has a second-order method: KL on the CPU."""
    return loss.divergence == "kl" and torch.device(run.device).type == "cpu"


def _exactly(
    rows: Labelled, penalty: Penalty, start: Start, training: Training, run: Run
) -> tuple[np.ndarray, np.ndarray, SolverResult]:
    """(coef, intercept, report) by Newton's method."""
    counted = np.flatnonzero(rows.p.has_positives & (rows.weight > 0))
    given = rows if len(counted) == len(rows.weight) else rows.take(counted)
    targets = given.p.toarray().astype(np.float64, copy=False)
    max_iter = _steps(training)
    how: dict[str, Any] = {"max_iter": max_iter, "tol": training.tol, "on_step": run.report("training", max_iter)}

    def solved() -> list:
        known = given.X, targets, given.weight, penalty, start
        coef, intercept, result = solve_softmax(*known, **how)
        return [coef, intercept, *result]

    coef, intercept, *result = recalled("coefficients", solved)
    return coef, intercept, SolverResult(*result)


def _by_lbfgs(
    rows: Labelled, held: Labelled | None, loss: Loss, penalty: float, start: Start, training: Training, run: Run
) -> tuple[np.ndarray, np.ndarray, SolverResult, list[float]]:
    """(coef, intercept, report, losses on held-out rows) under any divergence, on any device."""
    regression = _Regression(rows, loss, penalty, start, run)
    problem = Problem(regression.loss, regression.params)
    if held is not None:
        problem.watch = EarlyStopping(regression.held_loss(held, loss), regression.params, 1, training.patience)
    few = rows.X.shape[1] * rows.p.shape[1] <= MOST_COEFFICIENTS and held is None and loss.divergence == "kl"
    solver = LBFGS(training.tol * (_FURTHER if few else 1), regression.gradient_size)
    with leaving_cores_to(torch.device(run.device).type == "cpu"):  # NumPy multiplies, and its threads need the cores
        result = train(problem, solver, _steps(training), run)
    return *regression.coefficients(), result, problem.watch.losses if problem.watch else []


class _Regression:
    """Softmax regression on whitened rows, as a problem for L-BFGS."""

    def __init__(self, rows: Labelled, loss: Loss, penalty: float, start: Start, run: Run):
        n_features, n_classes = rows.X.shape[1], rows.p.shape[1]
        n_logits = 1 if n_classes == 2 else n_classes
        ridge = penalty * n_classes**2 / (n_classes - 1)
        self.scaled = ScaledRows(rows.X, rows.weight, ridge, run.dtype, run.device, start.fit_intercept)
        at = (np.zeros((n_logits, n_features)), np.zeros(n_logits)) if start.at is None else start.at
        self.both = [torch.tensor(part, **run.like) for part in self.scaled.scale(*at)]
        self.params = [param.requires_grad_() for param in (self.both if start.fit_intercept else self.both[:1])]
        self.logits = loss._replace(learned=_Logits())
        self.objective = rows.objective(self.logits, run)
        self.prototypes, self.penalty, self.run = torch.eye(n_classes, **run.like), penalty, run

    def _of_all(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of all classes, of two from that of the second."""
        return torch.cat([torch.zeros_like(logits), logits], dim=1) if len(self.prototypes) == 2 else logits

    def loss(self, batch: Any = None) -> torch.Tensor:
        """Of all rows, penalised."""
        weight, bias = self.both
        logits = self.scaled.rows @ weight.T + (bias - weight @ self.scaled.shift)
        penalty = self.penalty / 2 * self.scaled.unscaled(weight).square().sum()
        return self.objective(self._of_all(logits), self.prototypes) + penalty

    def held_loss(self, held: Labelled, loss: Loss) -> Any:
        """The function () -> loss of held-out rows."""
        objective = held.objective(self.logits, self.run)

        def of_held() -> torch.Tensor:
            coef, intercept = self.coefficients()
            logits = as_tensor(held.X @ coef.T + intercept, **self.run.like)
            return objective(self._of_all(logits), self.prototypes)

        return of_held

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows as they are."""
        return self.scaled.unscale(*(param.detach() for param in self.both))

    def gradient_size(self, of_weight: torch.Tensor, of_bias: torch.Tensor | None = None) -> float:
        """How large a gradient is, whatever the units of the features."""
        return self.scaled.gradient_size(of_weight, torch.zeros_like(self.both[1]) if of_bias is None else of_bias)


class _Logits(Learned):
    """The kernel exp(z_c) of key c: representations that are logits already."""

    def paired(self, z: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Log-kernel of rows and one-hot keys; see `Learned.paired`."""
        return (z * keys).sum(1)

    def pairwise(self, z: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Log-kernel of rows and the one-hot keys in order; see `Learned.pairwise`."""
        return z


def solve_prototypes(
    rows: Labelled,
    held: Labelled | None,
    loss: Loss,
    encoder: Encoder,
    penalty: float,
    training: Training,
    run: Run,
) -> Classifier:
    """An encoder and class prototypes together: Adam on minibatches, or L-BFGS for a linear encoder.

    Representations have a column a class. Prototypes start as `first_prototypes` says; under a kernel of dot products
    they are one-hot and fixed. A temperature that is to be learned is one more parameter. The penalty falls on all
    weight matrices; a scale-free q has none, which would only shrink them for ever.
    """
    network = _Prototypes(rows, loss, encoder, penalty, run)
    n, per_pass = group().total(len(rows.weight)), 1
    solver: Solver = LBFGS(training.tol)
    steps = _steps(training)
    if not encoder.is_linear:
        per_pass = batch_count(n, _BATCH_ROWS)
        solver, steps = adam_of_passes(per_pass, training.max_iter, training.tol, training.learning_rate)
    problem = Problem(network.loss_of, network.params, kept=network.kept, per_pass=per_pass, draws=encoder.draws)
    problem.batches = _batches(rows, network.loss, n if encoder.is_linear else _BATCH_ROWS, run)
    if held is not None:
        changing = [*network.params, *network.kept]
        problem.watch = EarlyStopping(network.held_loss(held), changing, per_pass, training.patience)
    result = train(problem, solver, steps, run)
    result = result._replace(n_iter=-(-result.n_iter // per_pass))
    losses = problem.watch.losses if problem.watch else []
    prototypes = network.prototypes.detach().cpu().numpy()
    state = state_arrays(network.module.cpu().eval())
    return Classifier(prototypes, network.learned(), state, None, None, result, losses)


class _Prototypes:
    """An encoder, prototypes and perhaps a temperature, and their loss."""

    def __init__(self, rows: Labelled, loss: Loss, encoder: Encoder, penalty: float, run: Run):
        self.loss, self.penalty, self.run, q = loss, penalty, run, loss.learned
        n_classes = rows.p.shape[1]
        self.module = build_module(encoder, rows.X, n_classes, run.seed, run.dtype, rows.weight).to(run.device)
        self.params = [param for param in self.module.parameters() if param.requires_grad]
        self.kept = list(self.module.buffers())
        scale_free = q.scale_free or encoder.orthonormal  # torch keeps signs in the weights behind an orthonormal map
        self.matrices = [] if scale_free else [param for param in self.params if param.ndim > 1]
        with seeded_if(encoder.draws, run.seed, run.device):  # what modules draw, as in dropout
            self.prototypes = first_prototypes(rows, self.module, loss, run)
        if not q.is_dot:
            self.params.append(self.prototypes.requires_grad_())
        self.log_temperature: torch.Tensor | None = None
        if "tau" in q.learns:
            self.log_temperature = torch.tensor(log(_FIRST_TEMPERATURE), **run.like, requires_grad=True)
            self.params.append(self.log_temperature)

    def present(self) -> Learned:
        """q at the present temperature."""
        q = self.loss.learned
        return q if self.log_temperature is None else type(q)(metric=q.metric, tau=self.log_temperature.exp())

    def learned(self) -> Learned:
        """q with the temperature as a number."""
        learned = clone(self.loss.learned)
        if self.log_temperature is not None:
            learned.set_params(tau=float(self.log_temperature.detach().exp()))
        return learned

    def loss_of(self, batch: Callable[[], "_Batch"]) -> torch.Tensor:
        """Of a batch, of which each rank has its rows, penalised."""
        objective, items, mass = batch()
        loss = None
        if objective is not None:
            objective.learned = self.present()
            loss = objective(self.module(items), self.prototypes)
        weight_decay = sum(matrix.square().sum() for matrix in self.matrices)
        return averaged(loss, mass, self.params) + self.penalty / 2 * weight_decay

    def held_loss(self, held: Labelled) -> Any:
        """The function () -> loss of held-out rows."""
        ranks, mass = group(), float(held.weight @ held.p.has_positives)
        objective: Any = None
        if mass or not ranks.several:  # a rank may have none of them
            objective = held.objective(self.loss._replace(learned=self.present()), self.run)

        def of_own() -> torch.Tensor:
            objective.learned = self.present()
            self.module.eval()
            represented = as_tensor(encode(self.module, held.X), **self.run.like)
            self.module.train()
            return objective(represented, self.prototypes)

        def of_all() -> float:
            cost = 0.0 if objective is None else float(of_own()) * mass
            cost, of_ranks = ranks.total(np.array([cost, mass]))
            return cost / of_ranks

        return of_all if ranks.several else of_own


class _Batch(NamedTuple):
    """The rows of a minibatch that this process has, their objective and mass; none where it has no rows."""

    objective: Objective | None
    items: torch.Tensor | None
    mass: float


def _batches(rows: Labelled, loss: Loss, n_batch: int, run: Run) -> Iterator[Callable[[], _Batch]]:
    """Yield what makes minibatches of the rows of all ranks for ever; all rows at once where they fit into one."""
    first, n = group().first_of(len(rows.weight))

    def made(batch: Labelled) -> _Batch:
        if not len(batch.weight):
            return _Batch(None, None, 0.0)
        mass = float(batch.weight @ batch.p.has_positives)
        return _Batch(batch.objective(loss, run), as_tensor(batch.X, **run.like), mass)

    if n <= n_batch:
        everything = made(rows)
        while True:
            yield lambda: everything

    rng = np.random.RandomState(run.seed)
    while True:
        for part in shuffled(n, n_batch, rng):
            own = part[(part >= first) & (part < first + len(rows.weight))] - first
            yield partial(lambda own: made(rows.take(own)), own)


def first_prototypes(rows: Labelled, module: torch.nn.Module, loss: Loss, run: Run) -> torch.Tensor:
    """Where prototypes start: one-hot, so far apart that a row on top of its own is nearly sure of it.

    A divergence other than KL is bounded, and nearly flat where rows are sure of the wrong one: there prototypes start
    at the mean representations of the classes.
    """
    learned, prototypes = loss.learned, torch.eye(rows.p.shape[1], **run.like)
    if learned.is_dot:
        return prototypes
    if loss.divergence != "kl":
        members = rows.p.weights.T.multiply(rows.weight).tocsr()
        masses = group().total(np.asarray(members.sum(axis=1), dtype=np.float64).reshape(-1, 1))
        members = members / np.maximum(masses, np.finfo(np.float64).tiny)
        return as_tensor(group().total(sparse.csr_array(members) @ encode(module, rows.X)), **run.like)
    if learned.scale_free:
        return prototypes
    for length in _LENGTHS:
        keys = length * prototypes
        if learned.pairwise(*learned.prepare(keys, keys)).log_softmax(1)[0, 0] >= log(_NEARLY_SURE):
            break
    return keys
