"""How a map is solved: free places by descent in two phases, encoders by L-BFGS or Adam."""

from typing import NamedTuple

import numpy as np
import torch

from ._base import unwrapped
from ._batches import BatchLoss
from ._networks import as_tensor, build_module, encode, state_arrays
from ._objective import Objective
from ._solver import SolverResult, minimize

_EXPLORATION_ITERATIONS = 250
_EXPLORATION_MOMENTUM = 0.5
_MOMENTUM = 0.8
_MAX_STEP = 5.0
_SMALLEST_RATE = 50.0
_ADAM_RATE = 1e-2
_BATCH_ROWS = 2048
_LBFGS_TOLERANCE = 1e-6


class MapSolution(NamedTuple):
    """A solved map: places, each row's share of D (summing to D), the solver's report, the rate, the state."""

    places: np.ndarray
    shares: np.ndarray
    result: SolverResult
    learning_rate: float
    state: dict


def solve_lookup(p, learned, start, options, *, exaggeration, learning_rate, max_iter, finish, on_step, **stopping):
    """Free places by momentum descent: an exaggerated phase under KL, then the objective itself.

    Parameters
    ----------
    p : Conditional
    learned : Learned
    start : ndarray of shape (n, d)
    options : dict
        Of `Objective`: divergence, normalization, dtype, device.
    exaggeration : float
        Factor on the attraction in the first phase; at 1 there is none.
    learning_rate : float or "auto"
    max_iter : int
        Of both phases together.
    finish : callable (places) -> places
        Applied to the solved places before their loss is computed.
    on_step : callable (phase) -> callable (n_iter, loss)
    **stopping
        `min_grad_norm` and `n_iter_without_progress` of the solver.

    Returns
    -------
    MapSolution
    """
    objective = Objective(p, learned, **options)
    z = torch.as_tensor(start, dtype=options["dtype"], device=options["device"]).requires_grad_()
    results: list[SolverResult] = []
    exploration = min(_EXPLORATION_ITERATIONS, max_iter // 3) if exaggeration > 1 and not learned.is_limit else 0
    phases = [(exploration, exaggeration, _EXPLORATION_MOMENTUM), (max_iter - exploration, 1.0, _MOMENTUM)]
    for n_steps, factor, momentum in phases:
        rate = max(p.shape[0] / factor / 4, _SMALLEST_RATE) if learning_rate == "auto" else float(learning_rate)
        descend = _exaggerated(p, learned, objective, options, factor) if factor > 1 else objective
        if n_steps and (not results or results[-1].status in ("converged", "max_iter")):
            results.append(
                minimize(
                    lambda descend=descend: descend(z),
                    [z],
                    method="momentum",
                    max_iter=n_steps,
                    learning_rate=rate,
                    momentum=momentum,
                    max_step=_MAX_STEP,
                    on_step=on_step("early exaggeration" if factor > 1 else "descent"),
                    **stopping,
                )
            )
    places = finish(z.detach().cpu().numpy())
    return MapSolution(places, _shares(objective, places), _joined(results), rate, {})


def _exaggerated(p, learned, objective, options, factor):
    """KL of the plain p and q with its attraction multiplied, recorded without."""
    if objective.is_plain_kl:
        early = objective
    else:
        early = Objective(p.unmixed(), unwrapped(learned), **(options | {"divergence": "kl"}))

    def descend(z):
        attraction, repulsion = early.terms(z)
        return factor * attraction + repulsion, attraction + repulsion + early.constant

    return descend


def solve_encoder(p, learned, encoder, X, n_components, options, *, sampled, learning_rate, max_iter, seed, on_step):
    """Places as an encoder's outputs.

    A linear map of a full batch is smooth and is solved by L-BFGS; networks and minibatches by Adam. A minibatch holds
    rows and one positive of each, drawn from p, and these are the keys.

    Parameters
    ----------
    p, learned, options, learning_rate, max_iter, on_step
        As in `solve_lookup`.
    encoder : Encoder
    X : ndarray or sparse matrix of shape (n, n_features)
    n_components : int
    sampled : bool
        Minibatches, or all rows at once.
    seed : int

    Returns
    -------
    MapSolution
    """
    dtype, device = options["dtype"], options["device"]
    module = build_module(encoder, X, n_components, seed, dtype).to(device)
    params = [param for param in module.parameters() if param.requires_grad]
    if sampled:
        rng = np.random.RandomState(seed)
        batches = options | {"normalization": "conditional"}
        batch_loss = BatchLoss(p, learned, lambda rows: module(as_tensor(X[rows], dtype, device)), _BATCH_ROWS, batches)

        def loss():
            return batch_loss(rng)
    else:
        objective, rows = Objective(p, learned, **options), as_tensor(X, dtype, device)

        def loss():
            return objective(module(rows))

    rate = _ADAM_RATE if learning_rate == "auto" else float(learning_rate)
    smooth = not sampled and type(encoder).__name__ == "Linear"
    how = {"method": "lbfgs", "tol": _LBFGS_TOLERANCE} if smooth else {"method": "adam", "learning_rate": rate}
    result = minimize(loss, params, max_iter=max_iter, on_step=on_step("training"), **how)
    module = module.cpu().eval()
    places = encode(module, X)
    return MapSolution(places, _shares(Objective(p, learned, **options), places), result, rate, state_arrays(module))


def _shares(objective, places):
    """Each row's share of D at the final places."""
    z = torch.as_tensor(places, dtype=objective.dtype, device=objective.device)
    with torch.no_grad():
        return objective.per_row(z).cpu().numpy()


def _joined(results):
    """One report of consecutive phases."""
    curve = np.concatenate([result.loss_curve for result in results])
    return SolverResult(results[-1].loss, sum(r.n_iter for r in results), curve, results[-1].status)
