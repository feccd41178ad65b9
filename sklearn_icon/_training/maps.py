"""How a lookup map is solved: free coordinates by descent, as an exaggeration falls."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy.spatial import cKDTree

from .._core import journal
from .._core.conditional import Conditional
from .._core.differences import sq_distances_by_differences
from .._core.group import group
from .._core.pieces import at_once
from .._core.rows import average_duplicates
from .._core.team import leaving_cores_to
from .._objective.drawn import DrawnPotential
from .._objective.loss import Loss
from .._objective.normalizers import known
from .._objective.objective import Objective
from .._objective.powers import power_map
from .._objective.told import pairs_told
from .._objective.ways import has_loops, has_power_loop, potential_of
from .._optim.methods import Adam, Gradients, Momentum
from .._optim.solver import SolverResult, minimize
from .._optim.train import Run
from ..learned import Learned, StudentT
from .few_rows import SideBySide, n_side_by_side
from .start_pull import StartPull

_MOST_STEPS, _DRAWN_STEPS = 1000, 250  # unless max_iter says how many
# Steps at the early and at the falling exaggeration, their momentum, and steps in which clusters part: slowly, by the
# rate of the early exaggeration, as the full one throws rows where they stay.
_EXPLORATION = 40, 40, 0.8, 40
_TRIAL = 40, 40, 0.8, 0  # of each of several maps
_UNFOLDING = 80, 120, 0.9, 50  # of up to 10,000 rows: sheets unfold, and steps cost little
# Neighbours near while exaggerated, of ten, in a sheet: where rows swing by a large momentum, and of several maps side
# by side, of so many rows at least; steps and momentum of a sheet's second unfolding.
_SHEET, _SHEET_OF_FEW, _LEAST_SHEET, _ONCE_MORE = 4.0, 6.0, 300, (80, 60, 0.9)
_GATHERING = 250, 0, 0.5, 200  # of few rows, whose neighbours a longer way at the falling exaggeration would part
_PARTING = 0.8  # momentum
_TRIAL_STEPS = 150  # of maps side by side, after which their losses tell which is best
_MOMENTUM, _MOMENTUM_OF_FEW, _FEW_ROWS = 0.93, 0.9, 1000
_BESIDE, _MOMENTUM_BESIDE, _STEADY = 1.25, 0.97, 100  # a small exaggeration that stays; then; steps before
_MAX_STEP = 5.0
_LOSS_EVERY = 25
_PATIENT_ROWS = 10_000  # more: a short exploration, the repulsion at every other step, rough steps and then fine ones
_DISTANCES_AT_ONCE = 1 << 26
_JUDGED_ROWS, _JUDGED_NEIGHBORS = 1000, 10  # whose recall tells whether a map has settled
_LEAST_GAIN, _LEAST_FALL, _FALL_ROWS = 0.01, 2e-3, 1800  # neighbours of a row, and loss, in 50 steps of so many rows
_FALL_BESIDE = 0.01  # the least fall of a loss that is not gone down, as an exaggeration stays, in 50 steps
_ROUGH_PATIENCE = 1 / 4  # of the descent where a refinement follows: it ends where the loss falls by four times as much
_LEAST_LOSS = 0.01
_SMALLEST_RATE = 50.0
_OF_KINKS = 1 / 8  # a loss with kinks has no slope that slows the descent near its minimum
_DRAWN_KEYS, FINAL_KEYS = 1000, 5000  # that stand for all in a step, and in the loss of the map
_DRAWN_RATE = 1.0
_FINE_RATE = 1 / 4  # of the rate, at which maps of many rows settle their neighbours: at the full one these fluctuate
_GOES_ON = ("converged", "max_iter", "completed")  # after which another phase begins
_TAIL_EVERY = 10  # steps between moves of the degrees of freedom
_LEAST_DF, _MOST_DF = 0.05, 100.0
_NEAREST_DF, _FARTHEST_DF = 1.05, 1.5  # factors between trials

_Found: TypeAlias = tuple[float | None, Gradients]
"""The loss, where it was asked for, and gradients."""


class MapSolution(NamedTuple):
    """A solved map: coordinates, each row's part of D (summing to D), the solver's report, rate, q, state, phases."""

    embedding: np.ndarray
    losses: np.ndarray
    result: SolverResult
    learning_rate: float
    learned: Learned
    state: dict
    phases: list[tuple[str, int, str]]
    prototypes: np.ndarray | None = None


class Descent(NamedTuple):
    """What users set of the descent of a lookup map.

    The exaggeration multiplies the attraction at first and at last; the first phases are left out where it is 1.
    `max_iter` is of all phases together at the most; None: 1,000, or 250 of Adam where keys are drawn, on the CPU,
    without compiled loops.
    """

    exaggeration: tuple[float, float]
    learning_rate: float | str
    max_iter: int | None
    min_grad_norm: float
    n_iter_without_progress: int
    method: str  # of the normalisers: "exact", "interpolation", "barnes_hut" or "sampled"
    angle: float  # of a tree
    init_weight: float = 0.0
    pulled_to: np.ndarray | None = None  # the start that this is the weight of


class Phase(NamedTuple):
    """A part of the descent: steps at the most, factor on the attraction, momentum."""

    name: str
    n_steps: int
    exaggeration: float
    momentum: float

    @property
    def last(self) -> bool:
        """Whether it goes down the objective itself until it settles."""
        return self.name in ("descent", "settling", "refinement")


def solve_lookup(
    p: Conditional,
    loss: Loss,
    start: np.ndarray,
    X: Any,
    descent: Descent,
    run: Run,
    explore: np.random.RandomState | None,
) -> MapSolution:
    """Free coordinates by momentum descent: exaggerated phases under KL, then the objective itself until it settles.

    The exaggeration falls in two steps of equal ratio, so that clusters grow before they part: in one step they tear.
    Of few rows, up to 1,000, in one map it falls in one; of 300 to 10,000, where many of ten neighbours are near then,
    as in a sheet, rows go through it once more. Then rows part slowly before the descent goes at its full rate. Few
    rows by UMAP's kernel under a small exaggeration that stays go on with a greater momentum, as their parts move away
    from each other; under a large one they would swing. Equal rows of X, where it holds features, have equal
    coordinates. Maps of few rows descend side by side from starts that `explore` draws.
    """
    lookup = _Lookup(p, loss, start, descent, run, explore)
    phases: list[tuple[str, SolverResult]] = []
    for phase in lookup.schedule():
        if phase.n_steps and (not phases or phases[-1][1].status in _GOES_ON):
            phases.append((phase.name, lookup.solve(phase)))
    embedding = average_duplicates(lookup.found().detach().cpu().numpy(), X)
    losses = journal.recalled("losses", lambda: lookup.losses(embedding), of_rows=True)
    learned = lookup.objective.learned if lookup.tail else loss.learned
    return MapSolution(embedding, losses, _joined(phases), lookup.rate, learned, {}, summary(phases))


class _Lookup:
    """Free coordinates with their objective, from phase to phase."""

    def __init__(
        self,
        p: Conditional,
        loss: Loss,
        start: np.ndarray,
        descent: Descent,
        run: Run,
        explore: np.random.RandomState | None,
    ):
        self.tail = _LearnedTail() if "df" in loss.learned.learns else None
        self.loss = loss._replace(learned=self.tail.start) if self.tail else loss
        self.p, self.descent, self.run = p, descent, run
        rng = journal.remembered(np.random.RandomState(run.seed)) if descent.method == "sampled" else None
        powered = p.exclude_self and has_power_loop(loss.learned, len(start), start.shape[1], run.device)
        potential, loops = potential_of(descent.method, descent.angle, powered), False
        if rng is not None and has_loops(loss.learned, run.device):
            potential, loops = partial(DrawnPotential, near=p.among_all, rng=rng), True
        self.of_objective = {"potential": potential, "n_components": start.shape[1]}
        self.objective = self.loss.over(p, run, **self.of_objective)
        self.z = torch.as_tensor(start, **run.like).requires_grad_()
        by_powers = powered and descent.method == "exact"
        self.objective.loops = power_map(self.objective) if by_powers else pairs_told(self.objective, self.z)
        self.rng = None if loops else rng
        self.several = None
        # which of several maps is best tells the loss, down which an exaggeration that stays does not lead
        plain = self.tail is None and rng is None and descent.exaggeration[1] == 1
        if explore is not None and plain and not group().several:
            n_maps = n_side_by_side(self.objective, self.z)
            self.several = SideBySide(self.objective, self.z, n_maps, explore) if n_maps > 1 else None
        self.refined = len(self.z) > _PATIENT_ROWS and self.rng is None
        self.pull = None
        if descent.pulled_to is not None:
            self.pull = StartPull(descent.pulled_to, descent.init_weight, self.loss.learned, **run.like)
        self.beside = by_powers and 1 < descent.exaggeration[1] <= _BESIDE and len(self.z) <= _FEW_ROWS
        self.settled, self.rate = _Settled(p, self.z, self.beside), 0.0
        journal.remember_fields(self.settled, "loss", "recall")
        if self.tail is not None:
            self.tail.remember(self.objective)
        few = self.rng is not None and torch.device(run.device).type == "cpu"
        self.left = descent.max_iter or (_DRAWN_STEPS if few else _MOST_STEPS)

    def schedule(self) -> Iterator[Phase]:
        """Yield the phases, none with more steps than are left."""
        (early, final), most = self.descent.exaggeration, self.left
        n_first, n_falling, explores, n_parting = self._exploration()
        n_all = n_first + n_falling
        n_early = min(n_all, most // 3) if early > 1 and not self.loss.learned.is_limit else 0
        n_first, n_parting = n_first * n_early // n_all, min(n_parting, most // 5) if n_early else 0
        n_several = min(_TRIAL_STEPS, (most - n_early) // 2) if self.several is not None else 0
        n_fine = most // 4 if self.refined else 0
        n_descent, few = most - n_early - n_parting - n_several - n_fine, len(self.z) <= _FEW_ROWS
        n_steady = min(n_descent, _STEADY) if self.beside else n_descent
        momentum = _MOMENTUM_OF_FEW if few else _MOMENTUM
        exaggerated = (
            Phase("early exaggeration", n_first, early, explores),
            Phase("falling exaggeration", n_early - n_first, (early * final) ** 0.5, explores),
        )
        for phase in exaggerated:
            yield phase._replace(n_steps=min(phase.n_steps, self.left))
        if n_early == n_all and journal.recalled("sheet", self._is_sheet):
            *more, momentum = _ONCE_MORE
            for phase, n_steps in zip(exaggerated, more, strict=True):
                yield phase._replace(n_steps=min(n_steps, self.left), momentum=momentum)
        for phase in (
            Phase("parting", n_parting, final, _PARTING),
            Phase("descent side by side", n_several, final, explores),
            Phase("descent", n_steady, final, momentum),
            Phase("settling", n_descent - n_steady, final, _MOMENTUM_BESIDE),
            Phase("refinement", most if n_fine else 0, final, momentum),
        ):
            yield phase._replace(n_steps=min(phase.n_steps, self.left))

    def _is_sheet(self) -> bool:
        """Whether as many neighbours are near while rows are exaggerated as in a sheet, which tears as it unfolds."""
        several = self.several is not None
        if len(self.z) < _LEAST_SHEET or not (several or self._exploration() is _UNFOLDING):
            return False
        self.settled.z = self.found()
        return self.settled.measured_recall() >= (_SHEET_OF_FEW if several else _SHEET)

    def _exploration(self) -> tuple[int, int, float, int]:
        """(early steps, falling ones, their momentum, parting ones)."""
        if self.rng is not None or self.several is not None:
            return _TRIAL
        if len(self.z) > _PATIENT_ROWS:
            return _EXPLORATION
        return _UNFOLDING if len(self.z) > _FEW_ROWS else _GATHERING

    def solve(self, phase: Phase) -> SolverResult:
        """Go through a phase."""
        if phase.last and self.several is not None:
            self.z, self.several = self.several.best().requires_grad_(), None
            self.settled.z = self.z
        self.settled.patience = _ROUGH_PATIENCE if self._is_rough(phase) else 1.0
        self.rate, report = self._rate(phase), self.run.report(phase.name, phase.n_steps)
        most = phase.n_steps
        with leaving_cores_to(self.objective.team), journal.passing():
            if self.rng is not None:
                result = minimize(
                    self._estimate(phase.exaggeration), [self.z], Adam(self.rate), max_iter=most, on_step=report
                )
            else:
                moved = self.z if self.several is None else self.several.maps
                result = minimize(None, [moved], self._momentum(phase), max_iter=most, on_step=report)
        self.left -= result.n_iter
        return result

    def found(self) -> torch.Tensor:
        """The map."""
        return self.z if self.several is None else self.several.best()

    def losses(self, embedding: np.ndarray) -> np.ndarray:
        """Each row's part of D, with normalisers as they are reported."""
        self.objective.refine(FINAL_KEYS, self.rng)
        return losses_of(self.objective, embedding)

    def _is_rough(self, phase: Phase) -> bool:
        """Whether a refinement makes good what a phase neglects."""
        return self.refined and phase.name != "refinement"

    def _rate(self, phase: Phase) -> float:
        """The step size of a phase."""
        fine = _FINE_RATE if phase.name == "refinement" else 1
        if self.descent.learning_rate != "auto":
            return float(self.descent.learning_rate) * fine
        if self.rng is not None:
            return _DRAWN_RATE
        kinks = 1 if self.objective.smooth or phase.exaggeration > 1 else _OF_KINKS
        exaggeration = self.descent.exaggeration[0] if phase.name == "parting" else phase.exaggeration
        return max(len(self.z) / exaggeration, _SMALLEST_RATE) * kinks * fine

    def _momentum(self, phase: Phase) -> Momentum:
        """The solver of a phase."""
        gradient = self._gradient(phase) if self.several is None else None
        if self.several is not None:
            gradient = partial(self.several.gradient, phase.exaggeration)
        automatic = self.descent.learning_rate == "auto"
        return Momentum(
            self.rate,
            phase.momentum,
            _MAX_STEP,
            self.descent.min_grad_norm,
            self.descent.n_iter_without_progress,
            gradient,
            _LOSS_EVERY,
            backtrack=automatic and phase.exaggeration == 1 and self.several is None,
            settled=self.settled if phase.last else None,
            compiled=self.objective.loops is not None,
        )

    def _estimate(self, exaggeration: float) -> Callable[[], torch.Tensor]:
        """The function () -> KL from keys drawn anew, whose gradient has the attraction multiplied."""

        def loss() -> torch.Tensor:
            self.objective.draw(_DRAWN_KEYS, self.rng)
            attraction, repulsion = self.objective.terms(self.z)
            extra = (exaggeration - 1) * attraction
            return self._pulled(attraction + repulsion + self.objective.constant + (extra - extra.detach()))

        return loss

    def _gradient(self, phase: Phase) -> Callable[[bool], _Found]:
        """The function (with_loss) -> (loss or None, [gradient]); KL of the plain p and q while exaggerated."""
        objective, z = self.objective, self.z
        tail = self.tail if phase.last else None
        if not objective.is_plain_kl and phase.exaggeration > 1:
            plain_loss = self.loss._replace(learned=self.loss.learned.unmixed(), divergence="kl")
            objective = plain_loss.over(self.p.unmixed(), self.run, **self.of_objective)
        steps, rough = _Count(), self._is_rough(phase)
        journal.remember_fields(steps, "n")
        objective.remember()

        def plain(with_loss: bool) -> _Found:
            step = steps.next()
            if tail is not None and step % _TAIL_EVERY == 0:
                tail.move(objective, z)
            refresh = with_loss or len(z) <= _PATIENT_ROWS or step % 2 == 0
            loss, gradient = objective.gradient(z, phase.exaggeration, with_loss, refresh, rough)
            if self.pull is None:
                return loss, [gradient]
            value, towards = self.pull(z)
            return None if loss is None else loss + float(value), [gradient + towards]

        def any_divergence(with_loss: bool) -> _Found:
            if tail is not None and steps.next() % _TAIL_EVERY == 0:
                tail.move(objective, z)
            loss = self._pulled(objective(z))
            return float(loss.detach()), torch.autograd.grad(loss, [z])

        return plain if objective.is_plain_kl else any_divergence

    def _pulled(self, loss: torch.Tensor) -> torch.Tensor:
        """A loss of the map with what pulls it to its start."""
        if self.pull is None:
            return loss
        value, gradient = self.pull(self.z)
        return loss + known(self.z, float(value), gradient)


class _Count:
    """Steps that were taken."""

    def __init__(self) -> None:
        self.n = 0

    def next(self) -> int:
        """The number of the step that begins, from 0."""
        self.n += 1
        return self.n - 1


class _Settled:
    """Whether a map gains no more, asked every 50 steps: its loss hardly falls, nor do more neighbours of p come near.

    What counts as hardly grows with the rows, as their steps take longer, and as patience falls. `beside` an objective
    goes a descent under an exaggeration that stays; the last per cent of the objective tells little of it.
    """

    def __init__(self, p: Conditional, z: torch.Tensor, beside: bool):
        n = len(z)
        self.z, self.patience, slow = z, 1.0, (n / _FALL_ROWS) ** 0.7
        self.least_gain, self.least_fall = _LEAST_GAIN * max(slow, 1.0), _LEAST_FALL * slow
        if beside:
            self.least_fall = max(self.least_fall, _FALL_BESIDE)
        self.rows = np.unique(np.linspace(0, n - 1, min(n, _JUDGED_ROWS)).astype(int))
        self.rows = self.rows[(self.rows >= p.first) & (self.rows < p.first + p.shape[0])]
        weights = p.weights[self.rows - p.first]
        self.nearest = [
            set(weights.indices[a:b][np.argsort(-weights.data[a:b], kind="stable")[:_JUDGED_NEIGHBORS]])
            for a, b in pairwise(weights.indptr)
        ]
        self.loss, self.recall = np.inf, -np.inf

    def __call__(self, loss: float) -> bool:
        """Tell whether it has settled since the last call."""
        recall = self.measured_recall()
        gain, self.recall = recall - self.recall, recall
        fall, self.loss = (self.loss - loss) / max(abs(loss), _LEAST_LOSS), loss
        return fall * self.patience < self.least_fall and gain * self.patience < self.least_gain

    def measured_recall(self) -> float:
        """How many of p's ten nearest neighbours of some rows are among the nearest in the map, on average."""
        found = _nearest_in_map(self.z.detach(), self.rows, min(_JUDGED_NEIGHBORS + 1, len(self.z)))
        common = sum(len(near.intersection(row)) for near, row in zip(self.nearest, found, strict=True))
        return float(group().total(common) / group().total(len(found)))


def _nearest_in_map(z: torch.Tensor, rows: np.ndarray, k: int) -> np.ndarray:
    """The rows of a map that are nearest to some, which are among them: on CUDA by all distances, else by a tree."""
    if z.is_cuda:
        parts = torch.as_tensor(rows, device=z.device).split(max(1, at_once(_DISTANCES_AT_ONCE) // len(z)))
        near = [sq_distances_by_differences(z[part], z).topk(k, largest=False).indices for part in parts]
        return torch.cat(near).cpu().numpy()
    coordinates = z.cpu().numpy()
    return cKDTree(coordinates).query(coordinates[rows], k=k)[1]


class _LearnedTail:
    """Degrees of freedom of a Student-t kernel that go down the loss as the map does, a step at a time."""

    start = StudentT()

    def __init__(self) -> None:
        self.factor = _FARTHEST_DF

    def remember(self, objective: Objective) -> None:
        """Let a journal keep the degrees of freedom and how far the next ones are."""
        journal.remember_fields(self, "factor")
        journal.remember(lambda: objective.learned.df, lambda df: objective.relearn(StudentT(df=df)))

    def move(self, objective: Objective, z: torch.Tensor) -> None:
        """Take the best of the present degrees of freedom, more and fewer; look nearer or farther next."""
        df = objective.learned.df
        trials = [df, min(df * self.factor, _MOST_DF), max(df / self.factor, _LEAST_DF)]
        losses = []
        for trial in trials:
            objective.relearn(StudentT(df=trial))
            with torch.no_grad():
                losses.append(float(objective(z)))
        best = int(np.argmin(losses))
        objective.relearn(StudentT(df=trials[best]))
        self.factor = max(self.factor**0.5, _NEAREST_DF) if best == 0 else min(self.factor**2, _FARTHEST_DF)


def losses_of(objective: Objective, z: Any, keys: Any = None) -> np.ndarray:
    """Each row's part of D at given representations of rows, and of keys where these differ."""
    kind: dict[str, Any] = {"dtype": objective.dtype, "device": objective.device}
    z, keys = (None if part is None else torch.as_tensor(part, **kind) for part in (z, keys))
    with torch.no_grad():
        return objective.per_row(z, keys).cpu().numpy()


def _joined(phases: list[tuple[str, SolverResult]]) -> SolverResult:
    """One report of consecutive phases."""
    results = [result for _, result in phases]
    starts = np.cumsum([0, *(result.n_iter for result in results)])
    curve = np.concatenate([result.loss_curve for result in results])
    iterations = np.concatenate([start + result.iterations for start, result in zip(starts, results, strict=False)])
    return results[-1]._replace(n_iter=int(starts[-1]), loss_curve=curve, iterations=iterations)


def summary(phases: list[tuple[str, SolverResult]]) -> list[tuple[str, int, str]]:
    """(name, iterations, reason of its end) of each phase."""
    return [(name, result.n_iter, result.reason) for name, result in phases]
