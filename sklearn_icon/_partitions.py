"""How memberships are solved: starts by search over hard partitions, trained together, the better ones further."""

import copy
from abc import ABC, abstractmethod
from math import log
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import gen_batches

from ._base import unwrapped
from ._batches import PositiveSampler, batch_conditional
from ._networks import as_tensor, build_module, encode, state_arrays, torch_dtype
from ._objective import Objective
from ._rows import average_duplicates
from ._search import agreed_groups, cost_table, hard_starts, near_groups
from ._solver import SolverResult, minimize
from .encoders import Linear, _seeded
from .learned import SharedCluster

_ROWS_AT_ONCE = 8192
_LOOKUP_START = 3.0
_LINEAR_SHARPNESS = 5.0
_PRETRAINING_STEPS, _PRETRAINING_RATE = 200, 1e-2
_ROUNDS = 3  # of search and training, on half of the steps
_EVALUATION_BATCHES = 8
_SHIFTS = 4  # keys that stand for all in the uniform term of a row
_BACKGROUND_KEYS = 128  # the same, where the divergence is not KL


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
    p : Conditional
        One step, debiased.
    n_steps : int
        The longest walk along p that finds positives.
    learned : Learned
        Of memberships.
    encoder : Encoder
    X : ndarray of shape (n, ...) or sparse matrix or None
        Features, or None where there is only a graph.
    n_clusters : int
    options : dict
        Of `Objective`: divergence, dtype, device.
    sample_weight : ndarray of shape (n,)
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
    rng, n_rounds = np.random.RandomState(seed), _ROUNDS if n_init > 1 else 1
    adam = {"method": "adam", "learning_rate": learning_rate}
    scout = encoder if not encoder.parametric else Linear()
    groups = near_groups(p, rows, n_clusters, sample_weight, seed)
    starts: list[np.ndarray] = []
    for number in range(n_rounds):
        n_new = n_init - len(starts)
        starts += hard_starts(groups, p, n_steps, n_clusters, table, n_new, sample_weight, seed + number)
        models = _models(scout, rows, n_clusters, starts, options, sample_weight, seed)
        losses: list[np.ndarray] = []
        steps = max(1, max_iter // (2 * n_rounds))
        task = on_step(f"round {number + 1} of {n_rounds}, {models.count} starts")
        result = minimize(_sum_of(models, loss, losses, rng), models.params, max_iter=steps, on_step=task, **adam)
        best = int(np.argmin(_final(loss, models)))
        curve = np.reshape(losses[: result.n_iter], (-1, models.count))[:, best]
        if result.status != "completed" or number == n_rounds - 1:
            break
        partitions = models.labels(p.shape[0])
        groups, starts = agreed_groups(partitions, n_clusters), [partitions[best]]
    momentum, encoder = encoder.momentum, getattr(encoder, "base", encoder)
    with _seeded(seed, options["device"]):  # what modules draw, as in dropout
        if not encoder.parametric or _is_free_linear(encoder):
            models.keep([best])
        else:
            models = _models(encoder, X, n_clusters, [models.labels(p.shape[0])[best]], options, sample_weight, seed)
            adam["learning_rate"], curve = network_rate, curve[:0]
        if views is not None:
            models.X = items
        if result.status == "completed":
            losses, report = [], on_step("the best start")
            past = Past(models, momentum) if momentum is not None else None
            result = minimize(
                _sum_of(models, loss, losses, rng, past),
                models.params,
                max_iter=max(1, max_iter - n_rounds * steps),
                tol=tol,
                on_step=past.followed_by(report) if past else report,
                **adam,
            )
            curve = np.concatenate([curve, np.ravel(losses[: result.n_iter])])
        final = float(_final(loss, models)[0])
    return Partition(models.logits(0), final, SolverResult(final, len(curve), curve, result.status), models.state(0))


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


class Past:
    """Models whose weights are averages of others' past, for keys without gradient.

    Parameters
    ----------
    models : _Models
    momentum : float
        Share of the averages that a step leaves.
    """

    def __init__(self, models, momentum):
        self.models, self.averages, self.momentum = models, models.copied(), momentum

    def __call__(self, rows):
        """Logits of rows."""
        with torch.no_grad():
            return self.averages(rows)

    def of(self, batch):
        """Logits of a batch."""
        with torch.no_grad():
            return self.averages.of(batch)

    def followed_by(self, report):
        """The hook that moves the averages after each step, then calls another."""

        def follow(n_iter, loss):
            with torch.no_grad():
                for average, param in zip(self.averages.params, self.models.params, strict=True):
                    average.lerp_(param, 1 - self.momentum)
            return report(n_iter, loss) if report else None

        return follow


class PartitionLoss:
    """The losses of several models on a batch drawn anew: rows, and one positive of each; these are the keys.

    Parameters
    ----------
    p : Conditional
        One step, debiased.
    n_steps : int
        The longest walk along p that finds positives.
    learned : Learned
    batch_size : int
        Rows of a batch.
    sample_weight : ndarray of shape (n,)
        How often a row is drawn.
    options : dict
        Of `Objective`: divergence, dtype, device.
    """

    def __init__(self, p, n_steps, learned, batch_size, sample_weight, options):
        self.p, self.learned, self.options = p, learned, options
        self.sampler = PositiveSampler(p, n_steps)
        drawable = np.flatnonzero(p.has_positives & (sample_weight > 0))
        self.drawable, self.batch_size = drawable, batch_size
        weights = sample_weight[drawable]
        self.cumulative = np.cumsum(weights) if np.ptp(weights) else None
        self.fast = options["divergence"] == "kl" and isinstance(unwrapped(learned), SharedCluster)

    def _draw(self, rng):
        if self.cumulative is not None:
            points = rng.uniform(high=self.cumulative[-1], size=self.batch_size)
            rows = np.searchsorted(self.cumulative, points, side="right").clip(max=len(self.drawable) - 1)
        elif self.batch_size >= len(self.drawable):
            rows = rng.permutation(len(self.drawable))
        else:
            rows = rng.randint(len(self.drawable), size=self.batch_size)
        return self.sampler.draw(self.drawable[rows], rng)

    def __call__(self, models, rng, past=None):
        """The loss of each model on a batch drawn with a RandomState, shape (models,), its keys by `past` if given."""
        members = np.concatenate(self._draw(rng))
        keys = models(members) if past is None else past(members)
        rows = None if past is None else models(members[: len(members) // 2])
        weighted = getattr(unwrapped(self.learned), "weights", None) == "degree" and self.p.degrees is not None
        return self._of_batch(rows, keys, torch.as_tensor(self.p.degrees[members]).to(keys) if weighted else None)

    def _of_batch(self, rows, keys, degrees=None):
        """The losses, from logits of rows, None where these are the first half of the keys."""
        n = keys.shape[-1] // 2
        if self.fast:
            shifts = np.unique(np.linspace(1, max(1, n - 1), _SHIFTS, dtype=int))
            return shared_cluster_kl(rows, keys, degrees, self.p.uniform, self.learned.mixture, n + shifts)
        batch = batch_conditional(n, exclude_self=False).mix(self.p.uniform)
        objective = Objective(batch, self.learned, background_keys=min(n, _BACKGROUND_KEYS), **self.options)
        rows = keys[..., :n] if rows is None else rows
        return torch.stack([objective(z.T, y.T, degrees) for z, y in zip(rows, keys, strict=True)])


class ViewPartitionLoss(PartitionLoss):
    """The same on views of items drawn anew: each but the last is a row whose positive is the next.

    Parameters
    ----------
    views : PositivePairs
    items : ndarray of shape (n, ...)
    p, learned, batch_size, sample_weight, options
        As in `PartitionLoss`; p over all views, draw after draw, and a batch is of items.
    """

    def __init__(self, views, items, p, learned, batch_size, sample_weight, options):
        others = np.zeros((views.n_views - 1) * len(items))
        super().__init__(p, 1, learned, batch_size, np.concatenate([sample_weight, others]), options)
        self.views, self.items, self.kind = views, items, (options["dtype"], options["device"])

    def __call__(self, models, rng, past=None):
        """See `PartitionLoss`."""
        drawn = self._draw(rng)[0]
        batch = self.views.draw(as_tensor(self.items[drawn], *self.kind))
        rows, n = models.of(batch), len(drawn)
        keys = rows if past is None else past.of(batch)
        losses = [
            self._of_batch(None if past is None else rows[..., first : first + n], keys[..., first : first + 2 * n])
            for first in range(0, len(batch) - n, n)
        ]
        return torch.stack(losses).mean(0)


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


def shared_cluster_kl(rows, keys, degrees, of_p, of_q, shifts):
    """KL of a batch from what clusters share: no matrix of rows x keys, as log q needs cluster masses alone.

    ::

        N q(j|i) = sum_c phi_ic phi_jc d_j / mean_k phi_kc d_k,     phi the softmax of logits
        L = mean_i KL( p~(.|i) || (1 - b) q(.|i) + b / N ),     p~ = (1 - a) [j = n + i] + a / N

    Parameters
    ----------
    rows : tensor of shape (models, clusters, n) or None
        Logits; None where they are the first half of those of the keys.
    keys : tensor of shape (models, clusters, N)
        Logits of the n rows, then of the positive of each: key n + i is that of row i.
    degrees : tensor of shape (N,) or None
        Weights d of the keys.
    of_p, of_q : float
        a and b.
    shifts : ndarray of int
        Row i meets the keys i + shift, modulo N, in the sum over the uniform mass: all, or some that stand for all.

    Returns
    -------
    tensor of shape (models,)
    """
    n_keys, n, smallest = keys.shape[-1], keys.shape[-1] // 2, torch.finfo(keys.dtype).tiny
    keys = keys.softmax(1)
    rows = keys[..., :n] if rows is None else rows.softmax(1)
    if degrees is not None:
        keys = keys * degrees
    rows = rows / keys.mean(2, keepdim=True).clamp_min(smallest)

    def mean_log(shift):
        others = keys[..., shift : shift + n]
        if others.shape[-1] < n:
            others = torch.cat([others, keys[..., : n - others.shape[-1]]], dim=2)
        return ((1 - of_q) * (rows * others).sum(1).clamp_min(smallest) + of_q).log().mean(1)

    loss = -(1 - of_p) * mean_log(n)
    if of_p:
        loss = loss - of_p / len(shifts) * sum(mean_log(shift) for shift in shifts)
    share = of_p / n_keys  # sum p~ log(N p~)
    return loss + (1 - of_p + share) * log(n_keys * (1 - of_p + share)) + (n_keys - 1) * share * log(of_p or 1)


class _Models(ABC):
    """Several models as one function of row numbers, with logits of shape (models, clusters, rows)."""

    def __init__(self, params):
        self.params = params

    def labels(self, n):
        """The likeliest cluster of the first n rows under each model, shape (models, n)."""
        with torch.no_grad():
            parts = [self(np.arange(n)[part]).argmax(1) for part in gen_batches(n, _ROWS_AT_ONCE)]
        return torch.cat(parts, dim=1).cpu().numpy()

    def copied(self):
        """The same with weights of their own, on the same rows."""
        copied = copy.copy(self)
        copied.params = [param.detach().clone() for param in self.params]
        return copied

    @abstractmethod
    def __call__(self, rows):
        """Logits of rows."""

    def eval(self):
        """Itself, with modules in evaluation mode."""
        return self

    @property
    def count(self):
        """How many there are."""
        return len(self.params[0])

    def keep(self, kept):
        """Go on with some of them."""
        self.params = [param.detach()[torch.as_tensor(kept)].clone().requires_grad_() for param in self.params]


class _Lookups(_Models):
    """Free logits for each row."""

    def __init__(self, X, starts, n_clusters, dtype, device):
        self.X = X
        logits = _LOOKUP_START * np.eye(n_clusters)[np.stack(starts)]  # (models, rows, clusters)
        super().__init__([torch.as_tensor(logits, dtype=dtype, device=device).requires_grad_()])

    def __call__(self, rows):
        return self.params[0].index_select(1, torch.as_tensor(rows, device=self.params[0].device)).transpose(1, 2)

    def logits(self, which):
        return average_duplicates(self.params[0][which].detach().cpu().numpy(), self.X)

    def state(self, which):
        return {}


class _Linears(_Models):
    """Linear maps, one matrix product for all of them.

    Logits start at -c |x - mu|^2 of the labels' means mu, up to what all clusters share. Training is in single
    precision, on rows less their mean.
    """

    def __init__(self, encoder, X, starts, n_clusters, dtype, device, sample_weight):
        self.X, self.dtype, self.device = X, dtype, device
        self.module = build_module(encoder, X, n_clusters, 0, torch_dtype(X), sample_weight)
        self.shift, self.factor = (part.numpy() for part in (self.module[0].shift, self.module[0].factor))
        means = np.stack([_means(X, labels, n_clusters, sample_weight, self.shift) for labels in starts])
        means, sharpness = (means - self.shift) * self.factor, _LINEAR_SHARPNESS / X.shape[1]
        weights = 2 * sharpness * means, -sharpness * np.square(means).sum(axis=2)
        super().__init__([torch.tensor(part, dtype=dtype, device=device, requires_grad=True) for part in weights])

    def __call__(self, rows):
        rows = self.X[rows] if sparse.issparse(self.X) else self.X[rows] - self.shift
        return self._of_centered(as_tensor(rows, self.dtype, self.device))

    def of(self, batch):
        """Logits of a batch that is no part of X, dense."""
        return self._of_centered(batch.flatten(1) - torch.as_tensor(self.shift, dtype=self.dtype, device=self.device))

    def _of_centered(self, rows):
        weight, bias = (param.flatten(0, 1) for param in self.params)
        logits = torch.addmm(bias[:, None], weight * float(self.factor), rows.T)
        return logits.view(self.count, -1, logits.shape[1])

    def _module(self, which):
        with torch.no_grad():
            self.module[-1].weight.copy_(self.params[0][which])
            self.module[-1].bias.copy_(self.params[1][which])
        return self.module.eval()

    def logits(self, which):
        return encode(self._module(which), self.X)

    def state(self, which):
        return state_arrays(self._module(which))


def _means(X, labels, n_clusters, sample_weight, shift):
    """Weighted mean rows of the labels; of those that no row has, the mean of all."""
    members = sparse.csr_array(
        (sample_weight.astype(X.dtype), labels, np.arange(len(labels) + 1)), (len(labels), n_clusters)
    )
    masses = members.sum(axis=0)[:, None]
    sums = members.T @ X
    sums = sums.toarray() if sparse.issparse(sums) else sums
    return np.where(masses > 0, sums / np.maximum(masses, np.finfo(X.dtype).tiny), shift)


class _Modules(_Models):
    """Networks, started by training on the labels for a while."""

    def __init__(self, encoder, X, starts, n_clusters, dtype, device, seed):
        self.X, self.dtype, self.device = X, dtype, device
        self.modules = [build_module(encoder, X, n_clusters, seed, dtype).to(device) for _ in starts]
        for module, labels in zip(self.modules, starts, strict=True):
            _pretrain(lambda rows, module=module: module(self._rows(rows)), module, labels, seed, device)

    @property
    def params(self):
        """Those of all modules."""
        return [param for module in self.modules for param in module.parameters() if param.requires_grad]

    @property
    def count(self):
        """How many there are."""
        return len(self.modules)

    def copied(self):
        """See `_Models.copied`."""
        copied = copy.copy(self)
        copied.modules = copy.deepcopy(self.modules)
        return copied

    def _rows(self, rows):
        return as_tensor(self.X[rows], self.dtype, self.device)

    def eval(self):
        for module in self.modules:
            module.eval()
        return self

    def keep(self, kept):
        self.modules = [self.modules[which] for which in kept]

    def __call__(self, rows):
        return self.of(self._rows(rows))

    def of(self, batch):
        """Logits of a batch that is no part of X."""
        return torch.stack([module(batch).T for module in self.modules])

    def logits(self, which):
        return encode(self.modules[which].cpu().eval(), self.X)

    def state(self, which):
        return state_arrays(self.modules[which].cpu().eval())


def _is_free_linear(encoder):
    """Whether any weights of a linear map will do."""
    return type(encoder).__name__ == "Linear" and not encoder.orthonormal


def _models(encoder, X, n_clusters, starts, options, sample_weight, seed):
    """One model for each start."""
    where = options["dtype"], options["device"]
    if not encoder.parametric:
        return _Lookups(X, starts, n_clusters, *where)
    if _is_free_linear(encoder):
        return _Linears(encoder, X, starts, n_clusters, *where, sample_weight)
    return _Modules(encoder, X, starts, n_clusters, *where, seed)


def _pretrain(logits_of, module, labels, seed, device, batch_size=512):
    """Cross-entropy on the starting labels, for encoders that cannot be set to them."""
    rng = np.random.RandomState(seed)
    params = [param for param in module.parameters() if param.requires_grad]

    def loss():
        rows = rng.permutation(len(labels))[:batch_size]
        target = torch.as_tensor(labels[rows], dtype=torch.int64, device=device)
        return torch.nn.functional.cross_entropy(logits_of(rows), target)

    minimize(loss, params, method="adam", max_iter=_PRETRAINING_STEPS, learning_rate=_PRETRAINING_RATE)
