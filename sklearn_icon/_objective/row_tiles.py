"""The divergence summed over the rows of a batch, a tile of rows at a time, with its gradient computed along the way.

    sum_i m_i D( p(.|i) || q(.|i) ),     q(j|i) = k_ij / sum_b k_ib

No matrix of all rows and keys is held, unless it is small. For KL the gradient with respect to log k is known,

    d D_i / d log k_ij = q(j|i) - p(j|i),

and p may be given by the few keys that have more than the uniform mass. What is captured, or differentiated twice, is
computed by torch's own operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..learned import Learned
from .divergences import kl
from .ways import divergence_of, has_kl_by_softmax, infinite_where_zero

if TYPE_CHECKING:
    from torch import Tensor

_PAIRS_AT_ONCE = 1 << 18  # of rows and keys, without tiles
_PAIRS_OF_A_TILE, _PAIRS_ELSEWHERE = 1 << 19, 1 << 25  # on the CPU; on a GPU, which 2^22 left waiting


class Batch(NamedTuple):
    """A batch but for its representations."""

    learned_of: Callable[..., Learned]
    """q with what is learned."""
    divergence: str
    weights_of: Callable[[slice], tuple[torch.Tensor, torch.Tensor]]
    """(p without its uniform mass, m) of a slice of rows."""
    partners: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
    """p by keys of equal weight, where these are few: pairs of a row and a key in order of rows, count of each row."""
    uniform: float
    skips_self: bool
    first: int
    """The key that is row 0 itself."""

    def p_of(self, part: slice, n_keys: int) -> tuple[Tensor, Tensor]:
        """(p, m) of a slice of rows; a row's entry of itself does not count where it is skipped."""
        weights, mass = self.weights_of(part)
        if self.uniform:
            weights = (1 - self.uniform) * weights + self.uniform / self.n_choices(n_keys)
        return weights, mass

    def n_choices(self, n_keys: int) -> int:
        """Keys of a row."""
        return max(n_keys - self.skips_self, 1)

    def own(self, pairs: Tensor, part: slice) -> Tensor:
        """The view of a tile on each row's pair with itself."""
        return pairs.diagonal(self.first + part.start)


def summed_divergence(batch: Batch, rows: Tensor, keys: Tensor, *values: Tensor) -> Tensor:
    """The sum over all rows, differentiable, of rows and keys as `Learned.prepare` returns them.

    Values, of shape (), are learned numbers of q, for `learned_of`.
    """
    everything = slice(0, len(rows))
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return _by_operations(batch, rows, keys, values, everything)
    if len(rows) * len(keys) <= _PAIRS_AT_ONCE:
        return _of_tile(batch, rows, keys, values, everything)
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (rows, keys, *values)]
    return _Tiles.apply(batch, wanted, rows, keys, *values)


def _of_tile(batch: Batch, rows: Tensor, keys: Tensor, values: Sequence[Tensor], part: slice) -> Tensor:
    """The sum over a slice of rows."""
    learned = batch.learned_of(*values)
    return of_affinity(batch, learned, part, learned.pairwise(rows, keys))


def of_affinity(batch: Batch, learned: Learned, part: slice, affinity: Tensor) -> Tensor:
    """The sum over a slice of rows from `Learned.pairwise` of them and all keys."""
    if has_kl_by_softmax(learned, batch.divergence):
        return _KL.apply(batch, learned, part, affinity)
    return _of_affinity(batch, learned, part, affinity)


def _by_operations(batch: Batch, rows: Tensor, keys: Tensor, values: Sequence[Tensor], part: slice) -> Tensor:
    """The same, by operations that torch differentiates as often as wanted."""
    learned = batch.learned_of(*values)
    return _of_affinity(batch, learned, part, learned.pairwise(rows, keys))


def _of_affinity(batch: Batch, learned: Learned, part: slice, affinity: Tensor) -> Tensor:
    """The same from `Learned.pairwise`, by operations."""
    n_rows, n_keys = affinity.shape
    term, at_zero, _ = divergence_of(learned, batch.divergence)
    (p, mass), own = batch.p_of(part, n_keys), None
    if batch.skips_self:
        numbers = torch.arange(n_rows, device=affinity.device) + (batch.first + part.start)
        own = numbers[:, None] == torch.arange(n_keys, device=affinity.device)
    if at_zero is None and not batch.uniform and not torch.compiler.is_compiling():
        positive = p > n_keys * torch.finfo(p.dtype).tiny
        if not (positive if own is None else positive | own)[mass > 0].all():
            raise infinite_where_zero(batch.divergence)
    cost = _but(own, term(p, _log_q(learned, affinity, own, batch.n_choices(n_keys))), 0)
    return (mass * cost.sum(1).masked_fill(mass == 0, 0)).sum()


def _log_q(learned: Learned, affinity: Tensor, own: Tensor | None, n_choices: int) -> Tensor:
    """log q(j|i), zero where the key is the row itself and left out; of a limit, what stands in place of it in KL."""
    log_q = affinity
    if not learned.normalized:
        log_k = _but(own, affinity, -torch.inf)
        log_q = log_k - learned.log_partition(log_k, n_choices)[:, None] if learned.is_limit else log_k.log_softmax(1)
    return learned.finish(_but(own, log_q, 0), n_choices)


def _but(own: Tensor | None, pairs: Tensor, value: float) -> Tensor:
    return pairs if own is None else pairs.masked_fill(own, value)


class _Tiles(torch.autograd.Function):
    """The sum, its gradients computed with it where they are wanted."""

    @staticmethod
    def forward(ctx: Any, batch: Batch, wanted: list[bool], rows: Tensor, keys: Tensor, *values: Tensor) -> Tensor:
        ctx.batch, ctx.wanted, tensors = batch, wanted, (rows, keys, *values)
        total, slopes = rows.new_zeros(()), [torch.zeros_like(tensor) for tensor in tensors[1:]]
        of_rows: list[Any] = []
        step = max(1, (_PAIRS_OF_A_TILE if rows.device.type == "cpu" else _PAIRS_ELSEWHERE) // len(keys))
        for start in range(0, len(rows), step):
            part = slice(start, min(start + step, len(rows)))
            of_tile = zip((rows[part], keys, *values), wanted, strict=True)
            first, second, *rest = inputs = [tensor.detach().requires_grad_(want) for tensor, want in of_tile]
            with torch.set_grad_enabled(any(wanted)):
                cost = _of_tile(batch, first, second, rest, part)
            total += cost.detach()
            of_part, *gradients = _gradients(cost, inputs, wanted)
            of_rows.append(of_part)
            for slope, gradient in zip(slopes, gradients, strict=True):
                slope += 0 if gradient is None else gradient
        ctx.save_for_backward(*tensors, torch.cat(of_rows) if wanted[0] else rows, *slopes)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        n = len(ctx.wanted)
        tensors, slopes = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        if torch.is_grad_enabled():  # to be differentiated again
            rows, keys, *values = tensors
            total = grad_output * _by_operations(ctx.batch, rows, keys, values, slice(0, len(rows)))
            return None, None, *_gradients(total, tensors, ctx.wanted, create_graph=True)
        pairs = zip(ctx.wanted, slopes, strict=True)
        return None, None, *(grad_output * slope if want else None for want, slope in pairs)


def _gradients(value: Tensor, tensors: Sequence[Tensor], wanted: list[bool], **how: Any) -> list[Tensor | None]:
    """Of the tensors for which they are wanted, None for others."""
    leaves = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(value, leaves, materialize_grads=True, **how) if leaves else ())
    return [next(found) if want else None for want in wanted]


class _KL(torch.autograd.Function):
    """sum_i m_i D_i from log k."""

    @staticmethod
    def forward(ctx: Any, batch: Batch, learned: Learned, part: slice, log_k: Tensor) -> Tensor:
        log_q = log_k
        if batch.skips_self:
            log_q = log_k.clone()
            batch.own(log_q, part).fill_(-torch.inf)
        log_q = log_q.log_softmax(1)
        if batch.skips_self:
            batch.own(log_q, part).fill_(0)
        cost, slope = (_from_all if batch.partners is None else _from_partners)(batch, log_q, part)
        if batch.skips_self:
            batch.own(slope, part).fill_(0)
        ctx.about = batch, learned, part
        ctx.save_for_backward(log_k, slope)
        return cost

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        log_k, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            batch, learned, part = ctx.about
            total = grad_output * _of_affinity(batch, learned, part, log_k)
            return None, None, None, *torch.autograd.grad(total, log_k, create_graph=True)
        return None, None, None, grad_output * slope


def _from_all(batch: Batch, log_q: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """(sum_i m_i D_i, q - p) from all entries of p; `log_q` is overwritten."""
    p, mass = batch.p_of(part, log_q.shape[1])
    if batch.skips_self and batch.uniform:
        batch.own(p, part).fill_(0)
    cost = mass @ kl(p, log_q).sum(1)
    return cost, log_q.exp_().sub_(p).mul_(mass[:, None])


def _from_partners(batch: Batch, log_q: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """The same from the partners of each row, all other keys having the uniform mass; `log_q` is overwritten."""
    partners: Any = batch.partners
    (rows, keys, counts), (n_rows, n_keys) = partners, log_q.shape
    if n_rows < len(counts):
        ends = torch.tensor([part.start, part.stop], device=rows.device)
        of_tile = slice(*torch.searchsorted(rows, ends).tolist())
        rows, keys = rows[of_tile], keys[of_tile]
    weights = (1 - batch.uniform) / counts[rows].to(log_q.dtype)
    at = torch.add(keys, rows - part.start, alpha=n_keys)
    at_partners, slope = log_q.view(-1)[at], log_q
    if batch.uniform:
        background = log_q.new_tensor(batch.uniform / batch.n_choices(n_keys))
        p, entropy = weights + background, background.xlogy(background)
        cost = (kl(p, at_partners) - kl(background, at_partners)).sum() - background * log_q.sum()
        cost += n_rows * batch.n_choices(n_keys) * entropy
        slope = log_q.exp_().sub_(background)
    else:
        cost = kl(weights, at_partners).sum()
        slope = log_q.exp_()
    slope.view(-1).index_add_(0, at, weights, alpha=-1)
    return cost, slope
