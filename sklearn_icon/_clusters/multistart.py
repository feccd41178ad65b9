"""How memberships are solved: starts by search over hard partitions, trained together, the better ones further."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import gen_batches

from .._core.conditional import Conditional
from .._core.journal import recalled, remember_list, remembered
from .._core.seeding import seeded_if
from .._objective.loss import Loss
from .._optim.methods import Adam
from .._optim.solver import SolverResult
from .._optim.train import Problem, Run, train
from ..encoders import Encoder, Linear
from ..encoders._networks import as_tensor, torch_dtype
from .local_search import agreed_groups, cost_table, hard_starts, near_groups
from .models import Models, Past, build_models, is_free_linear
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


class Source(NamedTuple):
    """What is partitioned: one step of p, the longest walk along it, rows or items X or None, weights, and views.

    Where views are drawn, p is one of views, and X holds the items.
    """

    p: Conditional
    n_steps: int
    X: Any
    sample_weight: np.ndarray
    views: Any = None


class Effort(NamedTuple):
    """How far is searched: starts, rows of a minibatch, steps of Adam in all, its tolerance and rates.

    The first rate is that of the rounds and of linear and lookup encoders, the second that of others.
    """

    n_init: int
    batch_size: int
    max_iter: int
    tol: float
    learning_rate: float
    network_rate: float


def solve_partition(
    source: Source, n_clusters: int, loss: Loss, encoder: Encoder, effort: Effort, run: Run
) -> Partition:
    """Memberships of the lowest loss found.

    The best hard partitions of a search start one model each, all trained on the same batches. What they agree on are
    groups for another search, and the best model is one of the starts that follow; the best of the last round is
    trained to the end. Rounds are of linear models where there are features, else of lookups. Of views searches are
    among those drawn once, the training of starts is on views drawn anew, by the generator of torch.
    """
    multistart = _Multistart(source, n_clusters, loss, encoder, effort, run)
    best = multistart.rounds()
    inner = encoder.plain()
    draws = inner.draws or source.views is not None
    with seeded_if(draws, run.seed, run.device):
        return multistart.finish(best, inner, encoder.momentum)


class _Best(NamedTuple):
    """The best model of the last round: which of those, the solver's report, its losses."""

    models: Models
    which: int
    result: SolverResult
    curve: np.ndarray


class _Multistart:
    """Rounds of search and training, and the training of the best."""

    def __init__(self, source: Source, n_clusters: int, loss: Loss, encoder: Encoder, effort: Effort, run: Run):
        self.source, self.n_clusters, self.loss, self.effort, self.run = source, n_clusters, loss, effort, run
        self.X, self.weight = source.X, source.sample_weight
        if source.views is not None:
            self.X = _drawn_once(source.views, source.X, encoder, run)
            self.weight = np.tile(self.weight, source.views.n_views)
        flat = self.X is None or self.X.ndim == 2
        self.rows = self.X if flat else self.X.reshape(len(self.X), -1)
        self.scout = encoder if not encoder.parametric else Linear()
        self.of_batches = self._loss_of_batches()
        noisy = max(_ROUND_ROWS, _ROUND_ROWS_PER_CLUSTER * n_clusters)
        self.of_noisy = self.of_batches.of_batches(min(effort.batch_size, noisy))
        self.rng = remembered(np.random.RandomState(run.seed))
        self.n_rounds = _ROUNDS if effort.n_init > 1 else 1
        self.n_steps = max(1, effort.max_iter // (2 * self.n_rounds))  # of a round

    def _loss_of_batches(self) -> PartitionLoss:
        p, n_steps, X, weight, views = self.source
        if views is None:
            return PartitionLoss(p, n_steps, self.loss, self.effort.batch_size, weight, self.run)
        return ViewPartitionLoss(views, X, p, self.loss, self.effort.batch_size, weight, self.run)

    def rounds(self) -> _Best:
        """Search, and training on a noisier loss, in turn."""
        p, n_steps = self.source.p, self.source.n_steps
        of_q = max(p.uniform, self.loss.learned.mixture)  # soft memberships spread as much as p does
        tilt = partial(self.loss.learned.tilt, n_clusters=self.n_clusters)
        table = cost_table(self.loss.divergence, p.shape[0], p.uniform, of_q, tilt)
        near = p, self.rows, self.n_clusters, self.weight, self.run.seed
        groups = recalled("groups", lambda: near_groups(*near))
        models = build_models(self.scout, self.rows, self.n_clusters, self.weight, self.run)
        starts: list[np.ndarray] = []
        for number in range(self.n_rounds):
            n_new, seed = self.effort.n_init - len(starts), self.run.seed + number
            known = groups, p, n_steps, self.n_clusters, table, n_new, self.weight, seed
            starts += recalled("starts", partial(hard_starts, *known))
            starts += [labels for labels in starts if not np.ptp(labels)][: len(starts) - 1]  # again, from beside it
            losses: list[np.ndarray] = []
            models.start(starts)
            problem = Problem(_sum_of(models, self.of_noisy, losses, self.rng), models.params, of=models.count)
            stage = f"round {number + 1} of {self.n_rounds}, {models.count} starts"
            result = train(problem, Adam(self.effort.learning_rate), self.n_steps, self.run, stage)
            best = int(np.argmin(_final(self.of_batches, models)))
            curve = np.reshape(losses[: result.n_iter], (-1, models.count))[:, best]
            if result.status != "completed" or number == self.n_rounds - 1:
                break
            partitions = models.labels(len(groups))
            groups, starts = agreed_groups(partitions, self.n_clusters), [partitions[best]]
        return _Best(models, best, result, curve)

    def finish(self, best: _Best, encoder: Encoder, momentum: float | None) -> Partition:
        """Train the best of the rounds to the end, as the encoder that was asked for."""
        models, result, curve, rate = best.models, best.result, best.curve, self.effort.learning_rate
        if not encoder.parametric or is_free_linear(encoder):
            models.keep([best.which])
        else:
            labels = models.labels(self.source.p.shape[0])[best.which]
            models = build_models(encoder, self.X, self.n_clusters, self.weight, self.run).start([labels])
            rate, curve = self.effort.network_rate, curve[:0]
        if self.source.views is not None:
            models.X = self.source.X
        if result.status == "completed" and not models.stopped:
            losses: list[np.ndarray] = []
            result = self._trained(models, losses, rate, momentum)
            alike = self.of_batches.fast or self.of_noisy.n_rows == self.of_batches.n_rows  # losses on one scale
            curve = np.concatenate([curve if alike else [], np.ravel(losses[: result.n_iter])])
        final = float(_final(self.of_batches, models)[0])
        report = SolverResult(final, len(curve), curve, result.status)
        return Partition(models.logits(0), final, report, models.state(0))

    def _trained(self, models: Models, losses: list, rate: float, momentum: float | None) -> SolverResult:
        """The report of the last training, with keys of the models' past where there is a momentum."""
        past = Past(models, momentum) if momentum is not None else None
        problem = Problem(_sum_of(models, self.of_batches, losses, self.rng, past), models.params, kept=models.kept)
        problem.after_step = past.follow if past is not None else None
        steps = max(1, self.effort.max_iter - self.n_rounds * self.n_steps)
        return train(problem, Adam(rate, self.effort.tol), steps, self.run, "the best start")


def _final(loss: PartitionLoss, models: Models) -> np.ndarray:
    """The mean loss of each model on batches that all share."""
    fixed = np.random.RandomState(0)
    models = models.eval()
    with torch.no_grad():
        return np.mean([loss(models, fixed).cpu().numpy() for _ in range(_EVALUATION_BATCHES)], axis=0)


def _sum_of(
    models: Models, loss: PartitionLoss, losses: list, rng: np.random.RandomState, past: Past | None = None
) -> Callable[[Any], torch.Tensor]:
    """The function () -> sum of the models' losses, which are also kept."""
    remember_list(losses)

    def together(batch: Any) -> torch.Tensor:
        each = loss(models, rng, past)
        losses.append(each.detach().cpu().numpy())
        return each.sum()

    return together


def _drawn_once(views: Any, items: np.ndarray, encoder: Encoder, run: Run) -> np.ndarray:
    """Views of all items, draw after draw, in blocks that bound the memory of a draw."""
    blocks = []
    for part in gen_batches(len(items), _ROWS_AT_ONCE):
        drawn = views.draw(as_tensor(items[part], torch_dtype(items), run.device)).cpu().numpy()
        blocks.append(drawn.reshape(views.n_views, -1, *drawn.shape[1:]))
    drawn = np.concatenate(blocks, axis=1)
    if encoder.flat and drawn.shape[2:] != items.shape[1:]:
        raise ValueError(
            f"augment turns items of shape {items.shape[1:]} into views of shape {drawn.shape[2:]}, but {encoder} "
            "reads one shape; keep it, or use an encoders.Module that reads both."
        )
    return drawn.reshape(-1, *drawn.shape[2:])
