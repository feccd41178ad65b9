"""The default clusters: candidates made on one p, one of them chosen, and memberships of what was chosen."""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.special import softmax

from .._core.conditional import Conditional, warn_rows_without_positives
from .._core.team import threads
from .._graph.neighbors import cross_neighbors
from .._graph.recalled import recalled_p
from ..encoders import Linear, Lookup
from ..encoders._networks import build_module, encode, state_arrays, torch_dtype
from ..learned import SharedCluster
from .candidates import Asked, Choice, choice_among
from .choice import candidate
from .distinct import Distinct
from .local_search import cost_table
from .losses import Data, Divergence, Specs
from .memberships import linear, nearest_mean, soft
from .row_search import Rows, settled, symmetric_flow

_NEAR = 5  # neighbours that carry a label to other rows
_MOST_ROWS = 10_000  # among which candidates are compared


class Kept(NamedTuple):
    """The chosen partition as the estimator keeps it: memberships of the rows of X, one step of p over distinct ones.

    `first` tells where these stand in X; of a lookup `rows` holds them.
    """

    p_spec: Any
    p: Conditional
    encoder: Any
    memberships: np.ndarray
    state: dict
    chosen: str
    candidates: dict
    loss: float
    loss_curve: np.ndarray
    device: str
    first: np.ndarray
    rows: Any = None


def fit_chosen(asked: Asked, distinct: Distinct, device: Any, random_state: np.random.RandomState) -> Kept:
    """Choose a partition of distinct rows, and give it memberships."""
    if distinct.features is None:
        asked.settings.refuse_k_means(f"X holds {distinct.holds}, which have no means")
    asked.settings.report("candidates")
    if len(distinct.first) > _MOST_ROWS and distinct.features is not None:
        return _of_many(asked, distinct, device, random_state)
    p_spec, p = _p_of(asked, distinct)
    if len(distinct.first) <= asked.settings.n_clusters or distinct.n_free == 0:
        labels = distinct.apart()
        asked.say(f"{len(labels)} distinct rows, in {labels.max() + 1} clusters without a choice")
        only = candidate("distinct rows", labels, 0.0, p, distinct.weight / distinct.weight.sum())
        choice = Choice(only, [only])
    else:
        choice = choice_among(p, distinct.features, asked, distinct.weight, distinct.known)
    return _kept(asked, choice, p_spec, p, distinct, choice.table(distinct.weight))


def _of_many(asked: Asked, distinct: Distinct, device: Any, random_state: np.random.RandomState) -> Kept:
    """Choose on a draw of the rows; then train on all, or carry the choice to all and settle them."""
    n, rows, weight, settings = len(distinct.first), distinct.rows, distinct.weight, asked.settings
    few = distinct.some(np.sort(np.random.RandomState(asked.seed).permutation(n)[:_MOST_ROWS]))
    choice = choice_among(_p_of(asked, few)[1], few.rows, asked, few.weight, few.known)
    p_spec, p = _p_of(asked, distinct)
    name, table = choice.chosen.name, choice.table(few.weight)
    if name == "search" and distinct.known is None:
        data = Data(rows, None, rows, p, weight, device, random_state)
        trained = Divergence(settings, Specs(p_spec, SharedCluster(), Linear())).solve(data)
        memberships, curve = softmax(trained.logits, axis=1)[distinct.inverse], trained.result.loss_curve
        of_fit = name, table, trained.loss, curve, str(device)
        return Kept(p_spec, p, Linear(), memberships, trained.state, *of_fit, distinct.first)
    fractions, costs = weight / weight.sum(), cost_table("kl", n, settings.uniform, settings.uniform)
    flow = symmetric_flow(p, 1 if distinct.known is None else asked.n_steps, weight, distinct.known)
    searched_rows = Rows(flow, fractions, costs, settings.n_clusters, distinct.known)
    n_sweeps = settings.max_iter
    if name == "k-means":
        coef, intercept = nearest_mean(few.rows, choice.chosen.labels, few.weight / few.weight.sum())
        labels, n_sweeps = np.asarray(rows @ coef.T + intercept).argmax(axis=1), 0
    else:
        labels = _carried(p_spec.step()[0], rows, few.rows, choice, settings)
    if distinct.known is not None:
        labels = np.where(distinct.known < 0, labels, distinct.known)
    labels, loss = settled(searched_rows, labels, asked.seed, n_sweeps)
    choice = Choice(candidate(name, labels, loss, p, fractions), choice.candidates)
    return _kept(asked, choice, p_spec, p, distinct, table)


def _carried(p_spec: Any, rows: Any, few: Any, choice: Choice, settings: Any) -> np.ndarray:
    """The label of most of the nearest rows among which a partition was chosen, by p's distance."""
    measure = {"metric": p_spec.metric, "metric_params": p_spec.metric_params, "n_jobs": settings.n_jobs}
    near = cross_neighbors(rows, few, _NEAR, **measure).indices
    return np.eye(settings.n_clusters)[choice.chosen.labels][near].sum(axis=1).argmax(axis=1)


def _p_of(asked: Asked, distinct: Distinct) -> tuple[Any, Conditional]:
    """(spec, one step of p) of rows; of no more rows than clusters none is joined to another."""
    rows, weight, n, settings = distinct.rows, distinct.weight, len(distinct.first), asked.settings
    p_spec = asked.p_of(rows, min(n, settings.n_clusters))
    if n <= settings.n_clusters and distinct.features is not None:
        return p_spec, Conditional(sparse.csr_array((n, n)), exclude_self=True)
    step = p_spec.step()[0]
    with threads(settings.n_jobs, n**2):
        p = recalled_p(lambda: step.conditional(rows, n_jobs=settings.n_jobs, random_state=asked.seed))
    if np.ptp(weight):
        p = p.with_copies(weight)
    warn_rows_without_positives(p, weight > 0)
    return p_spec, p


def _kept(asked: Asked, choice: Choice, p_spec: Any, p: Conditional, distinct: Distinct, table: dict) -> Kept:
    """A linear map where that is as good, else a lookup."""
    chosen, k, made = choice.chosen, asked.settings.n_clusters, None
    if distinct.features is not None and len(distinct.first) > k and distinct.known is None:
        made = linear(distinct.rows, chosen, p, distinct.weight)
    of_fit = chosen.name, table, chosen.loss, np.array([chosen.loss]), "cpu", distinct.first
    if made is None:
        return Kept(p_spec, p, Lookup(), soft(p, chosen.labels)[distinct.inverse], {}, *of_fit, distinct.rows)
    encoder = Linear()
    module: Any = build_module(encoder, distinct.rows, k, 0, torch_dtype(distinct.rows), distinct.weight)
    shift, factor = (part.double().numpy() for part in (module[0].shift, module[0].factor))
    with torch.no_grad():
        module[-1].weight.copy_(torch.as_tensor(made[0] / factor))
        module[-1].bias.copy_(torch.as_tensor(made[1] + made[0] @ shift))
    memberships = softmax(encode(module.eval(), distinct.rows), axis=1)[distinct.inverse]
    return Kept(p_spec, p, encoder, memberships, state_arrays(module), *of_fit)
