"""How pairs are solved: two encoders, one a modality, that share nothing but the loss.

    L = 1/2 mean_i D( p(.|i) || q(.|i) )  +  1/2 mean_j D( p(.|j) || q(.|j) )

where i are rows of one modality whose keys are the other's, and j rows of the other whose keys are the one's.
"""

from collections.abc import Iterator, Sequence
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import gen_batches

from .._core.group import group
from .._core.unit_rows import unit_rows
from .._objective.batches import batch_count, shuffled
from .._objective.loss import Loss
from .._objective.row_tiles import Batch, Listed, of_affinity
from .._objective.ways import check_limit, has_rational_tail, is_plain_kl
from .._optim.methods import Adam
from .._optim.solver import SolverResult
from .._optim.train import Problem, Run, Training, averaged, train
from ..encoders import Encoder
from ..encoders._networks import as_tensor, build_module, state_arrays
from ..learned import Learned
from ..learned._base import sq_distances
from ..supervisory import CrossModalPairs
from ..supervisory._batch import own_partners
from .given import Modalities

_RATE = 2e-3
_FIRST_TEMPERATURE, _LEAST_TEMPERATURE = 0.3, 0.01
_LEAST_WINDOW = 50
_LEAST_POWER = -2.0  # of squared distances, down to which a kernel of far pairs is a number in single precision
ROWS_AT_ONCE = 1024
_ROUNDING = 16 * np.finfo(np.float64).eps  # relative, of affinities


class Pairs(NamedTuple):
    """Solved encoders: the states of both modules, q as it was learned, the solver's report."""

    states: tuple[dict, dict]
    learned: Learned
    result: SolverResult


def on_sphere(learned: Learned) -> bool:
    """Whether representations are unit rows: q reads directions, or its loss is bounded on the sphere alone."""
    return learned.unmixed().unbounded or learned.affinity == "cosine"


def batch_of_pairs(n_rows: int, learned: Learned, divergence: str, uniform: float, like: torch.Tensor) -> Batch:
    """What is known of a batch of pairs, in which key i belongs to row i.

    q may change between one use and the next; `uniform` mass is spread over all keys of the batch; representations have
    the device and dtype of `like`.
    """
    own = CrossModalPairs()

    def weights_of(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        return own.of_batch(None, part, n_rows, like)

    partners = Listed(*own_partners(slice(0, n_rows), like))
    return Batch(lambda: learned, divergence, weights_of, partners, uniform, skips_self=False, first=0)


def symmetric_loss(batch: Batch, z: torch.Tensor, w: torch.Tensor) -> Any:
    """The mean of D from one modality to the other and back; the kernel of all pairs serves both ways."""
    learned, part = batch.learned_of(), slice(0, len(z))
    terms = learned.slope_terms if has_rational_tail(learned) else None
    if terms is not None and terms[2] >= _LEAST_POWER and is_plain_kl(learned, batch.divergence, batch.uniform):
        return _OfTails.apply(z, w, terms[0], terms[2])
    affinity = learned.pairwise(*learned.prepare(z, w))
    both = (of_affinity(batch, learned, part, pairs) for pairs in (affinity, affinity.T))
    return sum(both) / (2 * len(z))


def _pulls(slopes: torch.Tensor, z: torch.Tensor, keys: torch.Tensor, of_z: Any, of_keys: Any) -> torch.Tensor:
    """sum_j h_ij (1 / r_i + 1 / c_j) (z_i - y_j), by one product."""
    ones = torch.ones_like(of_keys)
    total, of_rows, weighed, of_weighed = (
        slopes @ torch.cat([ones, keys, ones / of_keys, keys / of_keys], dim=1)
    ).split([1, keys.shape[1]] * 2, dim=1)
    return (total * z - of_rows) / of_z + weighed * z - of_weighed


class _OfTails(torch.autograd.Function):
    """The mean of -log q both ways under k = (1 + s / a)^c, with its gradient, without a logarithm of each pair.

    ::

        L = 1/2n sum_i log sum_j k_ij + 1/2n sum_j log sum_i k_ij - 1/n sum_i log k_ii
        dL / ds_ij = 1/2n dk_ij / ds_ij (1 / sum_b k_ib + 1 / sum_b k_bj),   s_ij = |z_i - w_j|^2,   i != j
    """

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, w: torch.Tensor, scale: float, power: float) -> torch.Tensor:
        n, offset = len(z), z - w
        own = offset.square().sum(1)
        base = sq_distances(z, w).div_(scale).add_(1)
        kernel = base.pow(power)
        of_rows, of_keys = kernel.sum(1, keepdim=True), kernel.sum(0)[:, None]
        loss = (of_rows.log().mean() + of_keys.log().mean()) / 2 - power * (own / scale).log1p().mean()
        kernel.div_(base)  # now dk / ds, but for c / a
        of_own = offset * (2 * power / n / (scale + own))[:, None]
        of_z = _pulls(kernel, z, w, of_rows, of_keys) * (power / (scale * n)) - of_own
        of_w = _pulls(kernel.T, w, z, of_keys, of_rows) * (power / (scale * n)) + of_own
        ctx.save_for_backward(of_z, of_w)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        of_z, of_w = ctx.saved_tensors
        return grad_output * of_z, grad_output * of_w, None, None


def solve_pairs(
    sides: Modalities,
    uniform: float,
    loss: Loss,
    encoders: tuple[Encoder, Encoder],
    n_components: int,
    training: Training,
    run: Run,
    seeds: Sequence[int],
) -> Pairs:
    """Train two encoders on minibatches of pairs by Adam; the rows of a batch are each other's keys.

    A temperature of cosines that is to be learned is one more parameter, tau = 0.01 + exp(a): as in CLIP it stays above
    a hundredth. `uniform` is the uniform mass of p; `max_iter` counts passes over the rows; batches are of equal size,
    give or take one row, and sparse rows are made dense a batch at a time. `seeds` are those of either encoder. Batches
    are of the rows of all ranks, of which each represents its own.
    """
    pair_loss = _PairLoss(sides, uniform, loss, encoders, n_components, run, seeds)
    n = group().total(sides.n_rows)
    batch_rows, passes = int(training.batch_size or n), int(training.max_iter or 1)
    per_pass = batch_count(n, batch_rows)
    rate = _RATE if training.learning_rate == "auto" else float(training.learning_rate)
    problem = Problem(
        pair_loss,
        pair_loss.params,
        _batches(n, batch_rows, run.seed),
        pair_loss.kept,
        per_pass=per_pass,
        draws=any(encoder.draws for encoder in encoders),
    )
    solver = Adam(rate, training.tol, window=max(_LEAST_WINDOW, per_pass))
    result = train(problem, solver, passes * per_pass, run)
    states: Any = tuple(state_arrays(module.cpu().eval()) for module in pair_loss.modules)
    return Pairs(states, pair_loss.temperature.final(), result._replace(n_iter=-(-result.n_iter // per_pass)))


class Temperature:
    """A temperature of cosines that is learned, where q has one: tau = 0.01 + exp(a)."""

    def __init__(self, learned: Learned, dtype: torch.dtype, device: Any):
        self.learned = clone(learned)
        self.kernel, self.params = self.learned.owner("tau"), list[torch.Tensor]()
        if "tau" in self.learned.learns:
            start = log(_FIRST_TEMPERATURE - _LEAST_TEMPERATURE)
            self.params = [torch.tensor(start, dtype=dtype, device=device, requires_grad=True)]

    def set(self) -> None:
        """Give q the present temperature."""
        for exponent in self.params:
            self.kernel.tau = _LEAST_TEMPERATURE + exponent.exp()

    def final(self) -> Learned:
        """q with the temperature as a number."""
        for exponent in self.params:
            self.kernel.tau = _LEAST_TEMPERATURE + float(exponent.detach().exp())
        return self.learned


class _PairLoss:
    """The loss of a minibatch, the parameters it depends on, and what changes with these."""

    def __init__(
        self,
        sides: Modalities,
        uniform: float,
        loss: Loss,
        encoders: tuple[Encoder, Encoder],
        n_components: int,
        run: Run,
        seeds: Sequence[int],
    ):
        check_limit(loss.learned, loss.divergence)
        self.sides, self.run = sides, run
        self.modules = [
            build_module(encoder, rows, n_components, seed, run.dtype).to(run.device)
            for encoder, rows, seed in zip(encoders, sides, seeds, strict=True)
        ]
        self.params = [param for module in self.modules for param in module.parameters() if param.requires_grad]
        self.kept = [buffer for module in self.modules for buffer in module.buffers()]
        self.temperature, self.unit = Temperature(loss.learned, **run.like), on_sphere(loss.learned)
        self.params += self.temperature.params
        self.known: dict[int, Batch] = {}  # by the rows of a batch
        self.first = group().first_of(sides.n_rows)[0]
        self.about = self.temperature.learned, loss.divergence, uniform

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        self.temperature.set()
        own = rows[(rows >= self.first) & (rows < self.first + self.sides.n_rows)] - self.first
        both = [self._represent(*side, own) for side in zip(self.modules, self.sides, strict=True)]
        return self._of_all(both) if group().several else self._of_batch(*both)

    def _of_batch(self, z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if len(z) not in self.known:
            self.known[len(z)] = batch_of_pairs(len(z), *self.about, z)
        return symmetric_loss(self.known[len(z)], z, w)

    def _of_all(self, own: list[torch.Tensor]) -> torch.Tensor:
        """The loss of a batch of which each rank has represented its rows; gradients return to these."""
        ranks = group()
        first, _ = ranks.first_of(len(own[0]))
        found = [torch.from_numpy(ranks.gathered(part.detach().numpy())).requires_grad_() for part in own]
        temperature, part = self.temperature.params, slice(first, first + len(own[0]))
        loss = self._of_batch(*found)
        of_z, of_w, *of_temperature = torch.autograd.grad(loss, [*found, *temperature])
        pulled = ((z * of_rows[part]).sum() for z, of_rows in zip(own, (of_z, of_w), strict=True))
        tangent: Any = ranks.size * sum(pulled)
        tangent = tangent + sum(param * slope for param, slope in zip(temperature, of_temperature, strict=True))
        return averaged(tangent + (loss.detach() - tangent.detach()), 1.0, self.params)

    def _represent(self, module: torch.nn.Module, side: Any, rows: np.ndarray) -> torch.Tensor:
        z = module(as_tensor(side[rows], **self.run.like))
        return unit_rows(z) if self.unit else z


def _batches(n: int, batch_rows: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of minibatches for ever, in a new order at each pass."""
    rng = np.random.RandomState(seed)
    while True:
        yield from shuffled(n, batch_rows, rng)


def recall_at_one(learned: Learned, z: np.ndarray, w: np.ndarray, items: Sequence[np.ndarray] = ()) -> float:
    """How often the nearest row of w under q is right, on average over the rows of z.

    ::

        mean_i |R_i and T_i| / |T_i|,     T_i = argmax_j q(j|i),     R_i the rows that stand for i's partner

    Of keys that are equally near, each is as likely to be the one retrieved: what tells nothing apart finds one in n.
    `items` say which items rows hold, in either modality. Row j stands for row i where they are equal in one: R_i is i
    alone where all differ.
    """
    rows = torch.as_tensor(z, dtype=torch.float64)
    distinct, position = np.unique(w, axis=0, return_inverse=True)  # equal keys are equally near, to the last digit
    rows, keys = learned.prepare(rows, torch.as_tensor(distinct, dtype=torch.float64))
    position, numbers = position.ravel(), [np.arange(len(z)), *items]
    found = 0.0
    for part in gen_batches(len(z), ROWS_AT_ONCE):
        affinity = learned.pairwise(rows[part], keys).numpy()
        top = affinity.max(axis=1, keepdims=True)
        tied = (affinity >= top - _ROUNDING * np.abs(top))[:, position]
        right = np.logical_or.reduce([held[part, None] == held for held in numbers])
        found += float(((tied & right).sum(axis=1) / tied.sum(axis=1)).sum())
    return found / len(z)
