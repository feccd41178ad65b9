"""How a map is solved: free places by descent as an exaggeration falls, encoders by L-BFGS or Adam."""

from functools import partial
from itertools import count, pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree

from .._core.seeding import seeded, seeded_if
from .._core.team import leaving_cores_to
from .._objective.batches import BatchLoss, ViewLoss
from .._objective.objective import Objective, can_interpolate
from .._optim.solver import SolverResult, minimize
from ..encoders._networks import as_tensor, build_module, encode, state_arrays
from ..learned import Learned, StudentT
from .few_rows import SideBySide, n_side_by_side
from .trained import TrainedEncoder

_MOST_STEPS, _DRAWN_STEPS, _ENCODER_STEPS = 1000, 250, 250  # unless max_iter says how many
_EXPLORATION_ITERATIONS = 80
_EXPLORATION_MOMENTUM = 0.8
_TRIAL_STEPS = 150  # of maps side by side, after which their losses tell which is best
_MOMENTUM, _MOMENTUM_OF_FEW, _FEW_ROWS = 0.93, 0.9, 1000
_MAX_STEP = 5.0
_LOSS_EVERY = 25
_PATIENT_ROWS = 10_000  # more: the repulsion at every other step
_JUDGED_ROWS, _JUDGED_NEIGHBORS = 1000, 10  # whose recall tells whether a map has settled
_LEAST_GAIN = 0.02  # neighbours of a row in 50 steps
_LEAST_FALL, _FALL_ROWS = 4e-3, 1800  # of the loss in 50 steps, relative; of so many rows
_LEAST_LOSS = 0.01
_SMALLEST_RATE = 50.0
_OF_KINKS = 1 / 8  # a loss with kinks has no slope that slows the descent near its minimum
_DRAWN_KEYS, _FINAL_KEYS = 1000, 5000  # that stand for all in a step, and in the loss of the map
_DRAWN_RATE = 1.0
_FINE_ROWS = 10_000
_FINE_RATE = 1 / 8  # of the rate, at which maps of many rows settle their neighbours: at the full one these fluctuate
_GOES_ON = ("converged", "max_iter", "completed")  # after which another phase begins
_TAIL_EVERY = 10  # steps between moves of the degrees of freedom
_LEAST_DF, _MOST_DF = 0.05, 100.0
_NEAREST_DF, _FARTHEST_DF = 1.05, 1.5  # factors between trials
_ADAM_RATE, _VIEWS_RATE = 1e-2, 1e-3
_BATCH_ROWS, _BATCH_ITEMS = 2048, 256
_LBFGS_TOLERANCE = 1e-6


class MapSolution(NamedTuple):
    """A solved map: places, each row's share of D (summing to D), the solver's report, the rate, q, state, phases."""

    places: np.ndarray
    shares: np.ndarray
    result: SolverResult
    learning_rate: float
    learned: Learned
    state: dict
    phases: list[tuple[str, int, str]]


def solve_lookup(
    p, learned, start, options, *, exaggeration, learning_rate, max_iter, finish, on_step, seed, explore, **stopping
):
    """Free places by momentum descent: exaggerated phases under KL, then the objective itself until it settles.

    The exaggeration falls in two steps of equal ratio, so that clusters grow before they part: in one step they tear.

    Parameters
    ----------
    p : Conditional
    learned : Learned
    start : ndarray of shape (n, d)
    options : dict
        Of `Objective`: divergence, normalization, dtype, device.
    exaggeration : (float, float)
        Factors on the attraction at first and at last; the first phases are left out where their factor is 1.
    learning_rate : float or "auto"
    max_iter : int or None
        Of all phases together at the most. None: 1,000, or 250 where keys are drawn.
    finish : callable (places) -> places
        Applied to the solved places before their loss is computed.
    seed : int or None
        Of the keys from which normalisers are estimated; None where they are summed in full.
    on_step : callable (phase, its steps at the most) -> callable (n_iter, loss)
    explore : RandomState or None
        Draws starts beside the given one, from which maps of few rows descend side by side; None: from that alone.
    **stopping
        `min_grad_norm` and `n_iter_without_progress` of the solver.

    Returns
    -------
    MapSolution
    """
    tail = _LearnedTail() if "df" in learned.learns else None
    learned = tail.start if tail else learned
    options = options | {"n_components": start.shape[1]}
    objective = Objective(p, learned, **options)
    z = torch.as_tensor(start, dtype=options["dtype"], device=options["device"]).requires_grad_()
    rng = None if seed is None else np.random.RandomState(seed)
    n_maps = n_side_by_side(objective, len(z)) if explore is not None and tail is None and rng is None else 1
    several = SideBySide(objective, z, n_maps, explore) if n_maps > 1 else None
    settled = _Settled(p, z)
    phases: list[tuple[str, SolverResult]] = []
    rate, left = 0.0, max_iter or (_MOST_STEPS if rng is None else _DRAWN_STEPS)
    for name, n_steps, factor, momentum in _schedule(p, learned, exaggeration, left, rng is not None, several):
        n_steps = min(n_steps, left)
        if not n_steps or (phases and phases[-1][1].status not in _GOES_ON):
            continue
        last = name in ("descent", "refinement")
        if last and several is not None:
            z, several = several.best().requires_grad_(), None
            settled.z = z
        rate, report = _rate(learning_rate, p, factor, last, objective, rng), on_step(name, n_steps)
        rate *= _FINE_RATE if name == "refinement" else 1
        with leaving_cores_to(objective.team):
            if rng is not None:
                loss = _estimate(objective, z, factor, rng)
                result = minimize(loss, [z], method="adam", max_iter=n_steps, learning_rate=rate, on_step=report)
            else:
                gradient = _gradient(p, learned, objective, options, z, factor, tail if last else None)
                result = minimize(
                    None,
                    [z] if several is None else [several.maps],
                    gradient=gradient if several is None else partial(several.gradient, factor),
                    loss_every=_LOSS_EVERY,
                    backtrack=learning_rate == "auto" and factor == 1 and several is None,
                    method="momentum",
                    max_iter=n_steps,
                    learning_rate=rate,
                    momentum=momentum,
                    max_step=_MAX_STEP,
                    settled=settled if last else None,
                    on_step=report,
                    **stopping,
                )
        phases.append((name, result))
        left -= result.n_iter
    z = z if several is None else several.best()
    places = finish(z.detach().cpu().numpy())
    objective.refine(_FINAL_KEYS, rng)
    learned = objective.learned if tail else learned
    return MapSolution(places, _shares(objective, places), _joined(phases), rate, learned, {}, _summary(phases))


def _schedule(p, learned, exaggeration, most, drawn, several):
    """(name, steps at the most, factor on the attraction, momentum) of each phase."""
    early, final = exaggeration
    n_early = min(_EXPLORATION_ITERATIONS, most // 3) if early > 1 and not learned.is_limit else 0
    n_several = min(_TRIAL_STEPS, (most - n_early) // 2) if several is not None else 0
    n_fine = most // 4 if p.shape[0] > _FINE_ROWS and not drawn else 0
    momentum = _MOMENTUM if p.shape[0] > _FEW_ROWS else _MOMENTUM_OF_FEW
    return [
        ("early exaggeration", n_early // 2, early, _EXPLORATION_MOMENTUM),
        ("falling exaggeration", n_early - n_early // 2, (early * final) ** 0.5, _EXPLORATION_MOMENTUM),
        ("descent side by side", n_several, final, _EXPLORATION_MOMENTUM),
        ("descent", most - n_early - n_several - n_fine, final, momentum),
        ("refinement", most if n_fine else 0, final, momentum),
    ]


class _Settled:
    """Whether a map gains no more, asked every 50 steps: its loss hardly falls, nor do more neighbours of p come near.

    What counts as hardly grows with the rows, as their steps take longer.
    """

    def __init__(self, p, z):
        n = p.shape[0]
        self.z, self.least_fall = z, _LEAST_FALL * (n / _FALL_ROWS) ** 0.55
        self.rows = np.unique(np.linspace(0, n - 1, min(n, _JUDGED_ROWS)).astype(int))
        weights = p.weights[self.rows]
        self.nearest = [
            set(weights.indices[a:b][np.argsort(-weights.data[a:b], kind="stable")[:_JUDGED_NEIGHBORS]])
            for a, b in pairwise(weights.indptr)
        ]
        self.loss, self.recall = np.inf, -np.inf

    def __call__(self, loss):
        """Tell whether it has settled since the last call."""
        recall = self._recall()
        gain, self.recall = recall - self.recall, recall
        fall, self.loss = (self.loss - loss) / max(abs(loss), _LEAST_LOSS), loss
        return fall < self.least_fall and gain < _LEAST_GAIN

    def _recall(self):
        """The fraction of p's nearest neighbours of some rows that are nearest in the map."""
        z = self.z.detach().cpu().numpy()
        found = cKDTree(z).query(z[self.rows], k=min(_JUDGED_NEIGHBORS + 1, len(z)))[1]
        return float(np.mean([len(near.intersection(row)) for near, row in zip(self.nearest, found, strict=True)]))


def _rate(learning_rate, p, exaggeration, last, objective, rng):
    """The step size of a phase."""
    if learning_rate != "auto":
        return float(learning_rate)
    if rng is not None:
        return _DRAWN_RATE
    return max(p.shape[0] / exaggeration, _SMALLEST_RATE) * (1 if objective.smooth or not last else _OF_KINKS)


def _estimate(objective, z, exaggeration, rng):
    """The function () -> KL from keys drawn anew, whose gradient has the attraction multiplied."""

    def loss():
        objective.draw(_DRAWN_KEYS, rng)
        attraction, repulsion = objective.terms(z)
        extra = (exaggeration - 1) * attraction
        return attraction + repulsion + objective.constant + (extra - extra.detach())

    return loss


def _gradient(p, learned, objective, options, z, exaggeration, tail):
    """The function (with_loss) -> (loss or None, [gradient]) of a phase; KL of the plain p and q while exaggerated."""
    if not objective.is_plain_kl and exaggeration > 1:
        objective = Objective(p.unmixed(), learned.unmixed(), **(options | {"divergence": "kl"}))

    steps = count()

    def plain(with_loss):
        step = next(steps)
        if tail is not None and step % _TAIL_EVERY == 0:
            tail.move(objective, z)
        refresh = with_loss or len(z) <= _PATIENT_ROWS or step % 2 == 0
        loss, gradient = objective.gradient(z, exaggeration, with_loss, refresh)
        return loss, [gradient]

    def any_divergence(with_loss):
        if tail is not None and next(steps) % _TAIL_EVERY == 0:
            tail.move(objective, z)
        loss = objective(z)
        return float(loss.detach()), torch.autograd.grad(loss, [z])

    return plain if objective.is_plain_kl else any_divergence


class _LearnedTail:
    """Degrees of freedom of a Student-t kernel that go down the loss as the map does, a step at a time."""

    start = StudentT()

    def __init__(self):
        self.factor = _FARTHEST_DF

    def move(self, objective, z):
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


def solve_encoder(
    p,
    learned,
    encoder,
    X,
    n_components,
    options,
    *,
    sampled,
    learning_rate,
    max_iter,
    seed,
    on_step,
    batch_size="auto",
    views=None,
):
    """Places as an encoder's outputs.

    A linear map of a full batch is smooth and is solved by L-BFGS; networks and minibatches by Adam. A minibatch holds
    rows and one positive of each, drawn from p, and these are the keys; or views of items. Chance in modules and views
    is seeded, in the fit and once more in the loss of the map.

    Parameters
    ----------
    p, learned, options, learning_rate, max_iter, on_step
        As in `solve_lookup`. Of Adam on minibatches a step is one of these.
    encoder : Encoder
    X : ndarray or sparse matrix of shape (n, ...)
    n_components : int
    sampled : bool
        Minibatches, or all rows at once.
    seed : int
    batch_size : int or "auto", default="auto"
        Rows, or items, of a minibatch.
    views : PositivePairs, default=None
        Draws views, where p is one of views: X holds the items.

    Returns
    -------
    MapSolution
        The shares are those of rows, or of items in a pass of views.
    """
    dtype, device = options["dtype"], options["device"]
    linear = encoder.is_linear
    bounded, headed = learned.is_limit and not linear, encoder.build_head(n_components) is not None
    unit_rows = bounded and not headed
    module = build_module(encoder, X, n_components, seed, dtype, by_column=views is None, unit_rows=unit_rows)
    module = module.to(device)
    trained = TrainedEncoder(encoder, module, n_components, seed, unit_rows=bounded)
    loss, view_loss, per_pass = _loss_of_encoder(p, learned, trained, X, options, sampled, batch_size, views, seed)
    default = _VIEWS_RATE if views else _ADAM_RATE
    rate = default if learning_rate == "auto" else float(learning_rate)
    smooth = linear and not sampled
    solver = {"method": "lbfgs", "tol": _LBFGS_TOLERANCE} if smooth else {"method": "adam", "learning_rate": rate}
    solver |= {"kept": trained.kept, "max_iter": max_iter or _ENCODER_STEPS, "per_pass": per_pass}
    report = on_step("training", solver["max_iter"])

    def follow(n_iter, value):
        trained.follow()
        return report is not None and report(n_iter, value)

    with seeded_if(encoder.draws or views is not None, seed, device):
        result = minimize(loss, trained.params, on_step=follow, **solver)
    trained.eval()
    places = encode(module, X)
    if view_loss is not None:
        with seeded(seed, device):
            shares = _shares_of_items(view_loss, np.random.RandomState(seed))
    else:
        z = encode(trained.represent, X) if headed else places
        keys = None if trained.represent_keys is None else encode(trained.represent_keys, X)
        interpolate = keys is None and can_interpolate(p, learned, z.shape[1])
        objective = Objective(p, learned, interpolate=interpolate, **options)
        objective.refine(_FINAL_KEYS, None)
        shares = _shares(objective, z, keys)
    summary = _summary([("training", result)])
    return MapSolution(places, shares, result, rate, learned, state_arrays(module), summary)


def _loss_of_encoder(p, learned, trained, X, options, sampled, batch_size, views, seed):
    """(function () -> loss of all rows or of the next minibatch, the loss of views or None, steps of a pass)."""
    kind, rng = (options["dtype"], options["device"]), np.random.RandomState(seed)
    by_batch = options | {"normalization": "conditional"}
    represent, of_keys = trained.represent, trained.represent_keys

    def rows(numbers):
        return as_tensor(X[numbers], *kind)

    if views is not None:
        n_batch = _BATCH_ITEMS if batch_size == "auto" else batch_size
        view_loss = ViewLoss(p, views, learned, rows, trained, n_batch, by_batch)
        passes = view_loss.passes(rng)
        return lambda: view_loss(next(passes)), view_loss, view_loss.n_batches
    if sampled:
        n_batch = _BATCH_ROWS if batch_size == "auto" else batch_size
        represent_keys = None if of_keys is None else lambda numbers: of_keys(rows(numbers))
        batches = BatchLoss(p, learned, lambda numbers: represent(rows(numbers)), n_batch, by_batch, represent_keys)
        return partial(batches, rng), None, -(-p.shape[0] // n_batch)
    objective, everything = Objective(p, learned, **options), as_tensor(X, *kind)
    return lambda: objective(represent(everything), None if of_keys is None else of_keys(everything)), None, 1


def _shares_of_items(view_loss, rng):
    """Each item's share of D in a pass of views."""
    shares = np.empty(view_loss.n_items)
    with torch.no_grad():
        for items in view_loss.batches(rng):
            shares[items] = view_loss.per_item(items).cpu().numpy() / len(shares)
    return shares


def _shares(objective, places, keys=None):
    """Each row's share of D at the final places, and places of keys where these differ."""
    kind = {"dtype": objective.dtype, "device": objective.device}
    z, keys = (None if part is None else torch.as_tensor(part, **kind) for part in (places, keys))
    with torch.no_grad():
        return objective.per_row(z, keys).cpu().numpy()


def _joined(phases):
    """One report of consecutive phases."""
    results = [result for _, result in phases]
    starts = np.cumsum([0, *(result.n_iter for result in results)])
    curve = np.concatenate([result.loss_curve for result in results])
    iterations = np.concatenate([start + result.iterations for start, result in zip(starts, results, strict=False)])
    return results[-1]._replace(n_iter=int(starts[-1]), loss_curve=curve, iterations=iterations)


def _summary(phases):
    """(name, iterations, reason of its end) of each phase."""
    return [(name, result.n_iter, result.reason) for name, result in phases]
