"""How memberships are solved: starts by search over hard partitions, trained together, the better ones further."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils import gen_batches

from .._core.seeding import seeded_if
from .._optim.solver import SolverResult, minimize
from ..encoders import Linear
from ..encoders._networks import as_tensor, torch_dtype
from .local_search import agreed_groups, cost_table, hard_starts, near_groups
from .models import Past, build_models, is_free_linear
from .partition_loss import PartitionLoss, ViewPartitionLoss

SURE = 40.0  # logit of a hard membership
_ROUNDS = 3  # of search and training, on half of the steps
_ROUND_ROWS, _ROUND_ROWS_PER_CLUSTER = 1024, 50  # of a minibatch in the rounds, the larger of both
_EVALUATION_BATCHES = 8
_ROWS_AT_ONCE = 8192


class Partition(NamedTuple):
    """A solved partition: logits of all rows, the mean loss of fixed batches, the solver's report, the state."""

    logits: np.ndarray
    loss: float
    result: SolverResult
    state: dict


def solve_partition(
    p,
    n_steps,
    learned,
    encoder,
    X,
    n_clusters,
    options,
    *,
    sample_weight,
    n_init,
    batch_size,
    learning_rate,
    network_rate,
    max_iter,
    tol,
    seed,
    on_step,
    views=None,
):
    """Memberships of the lowest loss found.

    The best hard partitions of a search start one model each, all trained on the same batches. What they agree on are
    groups for another search, and the best model is one of the starts that follow; the best of the last round is
    trained to the end. Rounds are of linear models where there are features, else of lookups.

    Parameters
    ----------
    p, n_steps, learned, sample_weight, options
        As in `PartitionLoss`.
    encoder : Encoder
    X : ndarray of shape (n, ...) or sparse matrix or None
        Features, or None where there is only a graph.
    n_clusters : int
    n_init, batch_size, max_iter, seed : int
    learning_rate, network_rate, tol : float
        Rates of Adam: of the rounds and of linear and lookup encoders; of other encoders.
    on_step : callable (task) -> callable (n_iter, loss) or None
    views : PositivePairs, default=None
        Draws views, where p is one of views and X holds the items. Searches are among views drawn once, the
        training of starts is on views drawn anew, by the generator of torch.

    Returns
    -------
    Partition
    """
    items, item_weight = X, sample_weight
    if views is not None:
        X, sample_weight = _drawn_once(views, items, encoder, options), np.tile(item_weight, views.n_views)
    rows = X.reshape(len(X), -1) if X is not None and X.ndim > 2 else X
    of_q = max(p.uniform, learned.mixture)  # soft memberships spread as much as p does
    table = cost_table(options["divergence"], p.shape[0], p.uniform, of_q)
    loss = PartitionLoss(p, n_steps, learned, batch_size, sample_weight, options)
    if views is not None:
        loss = ViewPartitionLoss(views, items, p, learned, batch_size, item_weight, options)
    noisy_loss = loss.of_batches(min(batch_size, max(_ROUND_ROWS, _ROUND_ROWS_PER_CLUSTER * n_clusters)))
    rng, adam = np.random.RandomState(seed), {"method": "adam", "learning_rate": learning_rate}
    n_rounds = _ROUNDS if n_init > 1 else 1
    steps = max(1, max_iter // (2 * n_rounds))
    scout = encoder if not encoder.parametric else Linear()
    models, best, result, curve = _rounds(
        n_rounds,
        loss,
        noisy_loss,
        near_groups(p, rows, n_clusters, sample_weight, seed),
        lambda groups, n_starts, number: hard_starts(
            groups, p, n_steps, n_clusters, table, n_starts, sample_weight, seed + number
        ),
        build_models(scout, rows, n_clusters, options, sample_weight, seed),
        n_clusters,
        rng,
        n_init=n_init,
        on_step=on_step,
        how=adam | {"max_iter": steps},
    )
    momentum, encoder = encoder.momentum, getattr(encoder, "base", encoder)
    with seeded_if(encoder.draws or views is not None, seed, options["device"]):
        if not encoder.parametric or is_free_linear(encoder):
            models.keep([best])
        else:
            labels = models.labels(p.shape[0])[best]
            models = build_models(encoder, X, n_clusters, options, sample_weight, seed).start([labels])
            adam["learning_rate"], curve = network_rate, curve[:0]
        if views is not None:
            models.X = items
        if result.status == "completed" and not models.stopped:
            report = on_step("the best start")
            losses: list[np.ndarray] = []
            past = Past(models, momentum) if momentum is not None else None
            result = minimize(
                _sum_of(models, loss, losses, rng, past),
                models.params,
                kept=models.kept,
                max_iter=max(1, max_iter - n_rounds * steps),
                tol=tol,
                on_step=past.followed_by(report) if past else report,
                **adam,
            )
            alike = loss.fast or noisy_loss.n_rows == loss.n_rows  # losses on one scale
            curve = np.concatenate([curve if alike else [], np.ravel(losses[: result.n_iter])])
        final = float(_final(loss, models)[0])
    return Partition(models.logits(0), final, SolverResult(final, len(curve), curve, result.status), models.state(0))


def _rounds(n_rounds, loss, noisy_loss, groups, search, models, n_clusters, rng, *, n_init, on_step, how):
    """Search, and training on a noisier loss, in turn: (the models of the last round, the best, its report, losses)."""
    starts: list[np.ndarray] = []
    for number in range(1, n_rounds + 1):
        starts += search(groups, n_init - len(starts), number - 1)
        losses: list[np.ndarray] = []
        models.start(starts)
        task = on_step(f"round {number} of {n_rounds}, {models.count} starts", how["max_iter"], models.count)
        result = minimize(_sum_of(models, noisy_loss, losses, rng), models.params, on_step=task, **how)
        best = int(np.argmin(_final(loss, models)))
        curve = np.reshape(losses[: result.n_iter], (-1, models.count))[:, best]
        if result.status != "completed" or number == n_rounds:
            break
        partitions = models.labels(len(groups))
        groups, starts = agreed_groups(partitions, n_clusters), [partitions[best]]
    return models, best, result, curve


def _final(loss, models):
    """The mean loss of each model on batches that all share."""
    fixed = np.random.RandomState(0)
    models = models.eval()
    with torch.no_grad():
        return np.mean([loss(models, fixed).cpu().numpy() for _ in range(_EVALUATION_BATCHES)], axis=0)


def _sum_of(models, loss, losses, rng, past=None):
    """The function () -> sum of the models' losses, which are also kept."""

    def together():
        each = loss(models, rng, past)
        losses.append(each.detach().cpu().numpy())
        return each.sum()

    return together


def _drawn_once(views, items, encoder, options):
    """Views of all items, draw after draw, in blocks that bound the memory of a draw."""
    blocks = []
    for part in gen_batches(len(items), _ROWS_AT_ONCE):
        drawn = views.draw(as_tensor(items[part], torch_dtype(items), options["device"])).cpu().numpy()
        blocks.append(drawn.reshape(views.n_views, -1, *drawn.shape[1:]))
    drawn = np.concatenate(blocks, axis=1)
    if encoder.flat and drawn.shape[2:] != items.shape[1:]:
        raise ValueError(
            f"augment turns items of shape {items.shape[1:]} into views of shape {drawn.shape[2:]}, but {encoder} "
            "reads one shape; keep it, or use an encoders.Module that reads both."
        )
    return drawn.reshape(-1, *drawn.shape[2:])
