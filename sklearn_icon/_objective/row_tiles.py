"""The divergence summed over the rows of a batch, a tile of rows at a time, with its gradient computed along the way.

    sum_i m_i D( p(.|i) || q(.|i) ),     q(j|i) = k_ij / sum_b k_ib

No matrix of all rows and keys is held, unless it is small. For KL the gradient with respect to log k is known,

    d D_i / d log k_ij = q(j|i) - p(j|i),

and p may be given by the few keys that have more than the uniform mass. What is captured, or differentiated twice, is
computed by torch's own operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from .._core.pieces import at_once
from ..learned import Learned
from .divergences import kl
from .ways import divergence_of, has_kl_by_softmax, infinite_where_zero

if TYPE_CHECKING:
    from torch import Tensor

_PAIRS_AT_ONCE = 1 << 18  # of rows and keys, without tiles
_PAIRS_OF_A_TILE, _PAIRS_ELSEWHERE = 1 << 19, 1 << 25  # on the CPU; on a GPU, which 2^22 left waiting


class Listed:
    """p by keys of equal weight: pairs of a row and a key in order of rows, and the count of each row."""

    def __init__(self, rows: Tensor, keys: Tensor, counts: Tensor) -> None:
        self.rows, self.keys, self.counts = rows, keys, counts
        self._whole: Any = None  # what `of` found for all rows

    def of(self, part: slice, n_keys: int, like: Tensor, fraction: float, rest: float) -> tuple[Tensor, Tensor, Tensor]:
        """(fraction * w of the pairs of a slice of rows, where they are among all pairs, sum of p log p over them).

        p = fraction * w + rest.
        """
        rows, keys, counts = self.rows, self.keys, self.counts
        n_rows, about = counts.shape[0], (n_keys, like.dtype, like.device, fraction, rest)
        is_whole = part.stop - part.start == n_rows
        if is_whole and self._whole is not None and self._whole[0] == about:
            return self._whole[1]
        if not is_whole:
            ends = torch.tensor([part.start, part.stop], device=rows.device)
            of_tile = slice(*torch.searchsorted(rows, ends).tolist())
            rows, keys = rows[of_tile], keys[of_tile]
        at = torch.add(keys, rows, alpha=n_keys)
        if part.start:
            at -= part.start * n_keys
        weights = fraction / counts.to(like.dtype)
        weights = weights if rows.shape[0] == n_rows else weights[rows]
        p = weights + rest
        found = weights, at, p @ p.log()
        if is_whole:
            self._whole = about, found
        return found


class Batch(NamedTuple):
    """A batch but for its representations."""

    learned_of: Callable[..., Learned]
    """q with what is learned."""
    divergence: Any
    weights_of: Callable[[slice], tuple[torch.Tensor, torch.Tensor]]
    """(p without its uniform mass, m) of a slice of rows."""
    partners: Listed | None
    """p by keys of equal weight, where these are few."""
    uniform: float
    skips_self: bool
    first: int
    """The key that is row 0 itself."""
    both_ways: bool = False
    """Whether of all pairs at once the mean both ways is wanted."""
    half: torch.dtype | None = None
    """In which precision the products of gradients are taken, where it is a lower one."""

    def p_of(self, part: slice, n_keys: int) -> tuple[Tensor, Tensor]:
        """(p, m) of a slice of rows; a row's entry of itself does not count where it is skipped."""
        weights, mass = self.weights_of(part)
        if self.uniform:
            weights = (1 - self.uniform) * weights + self.uniform / self.n_choices(n_keys)
        return weights, mass

    def n_choices(self, n_keys: int) -> int:
        """Keys of a row."""
        return max(n_keys - self.skips_self, 1)

    def only_keys(self, part: slice) -> Tensor | None:
        """The key of each row of a slice, where p is that key but for the uniform mass of all; None where it is not."""
        partners = self.partners
        if self.skips_self or partners is None or partners.rows.shape[0] != partners.counts.shape[0]:
            return None
        return partners.keys[part]

    def own(self, pairs: Tensor, part: slice) -> Tensor:
        """The view of a tile on each row's pair with itself."""
        return pairs.diagonal(self.first + part.start)


def summed_divergence(batch: Batch, rows: Tensor, keys: Tensor, *values: Tensor, both_ways: bool = False) -> Tensor:
    """The sum over all rows, differentiable, of rows and keys as `Learned.prepare` returns them.

    Values, of shape (), are learned numbers of q, for `learned_of`. `both_ways`: the mean of that and of the same with
    rows and keys in each other's place, of as many rows as keys.
    """
    everything, n_pairs = slice(0, len(rows)), len(rows) * len(keys)
    by_operations = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    batch = batch._replace(both_ways=both_ways)
    if by_operations:
        return _by_operations(batch, rows, keys, values, everything)
    if both_ways and n_pairs > _PAIRS_AT_ONCE:
        return (summed_divergence(batch, rows, keys, *values) + summed_divergence(batch, keys, rows, *values)) / 2
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (rows, keys, *values)]
    whole = n_pairs <= _PAIRS_AT_ONCE or batch.learned_of(*values).reads_p
    if whole and not _pulls(batch, values, wanted):
        return _of_tile(batch, rows, keys, values, everything)
    return _Tiles.apply(batch, wanted, rows, keys, *values)


def _pulls(batch: Batch, values: Sequence[Tensor], wanted: list[bool]) -> bool:
    """Whether the gradient follows from that of log k by a formula, of rows and keys alone."""
    return has_kl_by_softmax(batch.learned_of(*values), batch.divergence) and not any(wanted[2:])


def _of_tile(batch: Batch, rows: Tensor, keys: Tensor, values: Sequence[Tensor], part: slice) -> Tensor:
    """The sum over a slice of rows."""
    learned = batch.learned_of(*values)
    affinity = learned.pairwise(rows, keys)
    if batch.both_ways:
        both = (of_affinity(batch, learned, part, pairs) for pairs in (affinity, affinity.T))
        return sum(both) / 2  # type: ignore[return-value]
    return of_affinity(batch, learned, part, affinity)


def of_affinity(batch: Batch, learned: Learned, part: slice, affinity: Tensor) -> Tensor:
    """The sum over a slice of rows from `Learned.pairwise` of them and all keys."""
    if has_kl_by_softmax(learned, batch.divergence) and batch.only_keys(part) is None:
        return _KL.apply(batch, learned, part, affinity)
    return _of_affinity(batch, learned, part, affinity)


def _by_operations(batch: Batch, rows: Tensor, keys: Tensor, values: Sequence[Tensor], part: slice) -> Tensor:
    """The same, by operations that torch differentiates as often as wanted."""
    learned = batch.learned_of(*values)
    affinity = learned.pairwise(rows, keys)
    if batch.both_ways:
        both = (_of_affinity(batch, learned, part, pairs) for pairs in (affinity, affinity.T))
        return sum(both) / 2  # type: ignore[return-value]
    return _of_affinity(batch, learned, part, affinity)


def _of_affinity(batch: Batch, learned: Learned, part: slice, affinity: Tensor) -> Tensor:
    """The same from `Learned.pairwise`, by operations."""
    keys = batch.only_keys(part) if has_kl_by_softmax(learned, batch.divergence) else None
    if keys is not None:
        return _of_only_keys(batch.uniform, affinity, keys)
    n_rows, n_keys = affinity.shape
    comparison = divergence_of(learned, batch.divergence)
    (p, mass), own = batch.p_of(part, n_keys), None
    if batch.skips_self:
        numbers = torch.arange(n_rows, device=affinity.device) + (batch.first + part.start)
        own = numbers[:, None] == torch.arange(n_keys, device=affinity.device)
    if comparison.at_zero is None and not batch.uniform and not torch.compiler.is_compiling():
        positive = p > n_keys * torch.finfo(p.dtype).tiny
        if not (positive if own is None else positive | own)[mass > 0].all():
            raise infinite_where_zero(batch.divergence)
    apart = batch.weights_of(part)[0] if learned.reads_p and batch.uniform else p
    cost = _but(own, comparison.term(p, _log_q(learned, affinity, own, batch.n_choices(n_keys), apart)), 0)
    return (mass * comparison.of_sum(cost.sum(1).masked_fill(mass == 0, 0))).sum()


def _of_only_keys(uniform: float, log_k: Tensor, keys: Tensor) -> Tensor:
    """KL of rows that have one key each: the cross-entropy less the entropy of p."""
    cost = cross_entropy(log_k, keys, reduction="sum", label_smoothing=uniform)
    if not uniform:
        return cost
    (n_rows, n_keys), background = log_k.shape, log_k.new_full((), uniform / log_k.shape[1])
    p = background + (1 - uniform)
    return cost + n_rows * (p * p.log() + (n_keys - 1) * background * background.log())


def _log_q(learned: Learned, affinity: Tensor, own: Tensor | None, n_choices: int, p: Tensor) -> Tensor:
    """log q(j|i), zero where the key is the row itself and left out; of a limit, what stands in place of it in KL."""
    log_q = affinity
    if not learned.normalized:
        log_k = _but(own, affinity, -torch.inf)
        of_limit = learned.is_limit
        log_q = log_k - learned.log_partition_given(log_k, n_choices, p)[:, None] if of_limit else log_k.log_softmax(1)
    return learned.finish(_but(own, log_q, 0), n_choices)


def _but(own: Tensor | None, pairs: Tensor, value: float) -> Tensor:
    return pairs if own is None else pairs.masked_fill(own, value)


def _with_gradients(batch: Batch, ends: tuple[Tensor, ...], part: slice, wanted: list[bool]) -> tuple[Tensor, Any]:
    """(the sum over a slice of rows, its gradients at these, the keys and the values)."""
    rows, keys, *values = ends
    if not _pulls(batch, values, wanted):
        leaves = [tensor.detach().requires_grad_(want) for tensor, want in zip(ends, wanted, strict=True)]
        with torch.set_grad_enabled(any(wanted)):
            cost = _of_tile(batch, leaves[0], leaves[1], leaves[2:], part)
        return cost.detach(), _gradients(cost, leaves, wanted)
    learned = batch.learned_of(*values)
    if not any(wanted):
        return _of_tile(batch, rows, keys, values, part), [None] * len(ends)
    log_k, pull = learned.pairwise_and_pull(rows, keys)
    back = log_k.T.contiguous() if batch.both_ways else None
    cost, slope = _cost_and_slope(batch, part, log_k)
    del log_k  # of which no more than is read is held
    if back is not None:
        cost_back, slope_back = _cost_and_slope(batch, part, back)
        cost, slope = (cost + cost_back) / 2, slope.add_(slope_back.T).div_(2)
        del back, slope_back
    is_half = batch.half is not None and slope.numel() > _PAIRS_AT_ONCE  # of fewer, conversions take as long
    return cost, [*pull(slope.to(batch.half) if is_half else slope, wanted), *(None for _ in values)]


class _Tiles(torch.autograd.Function):
    """The sum, its gradients computed with it where they are wanted."""

    @staticmethod
    def forward(ctx: Any, batch: Batch, wanted: list[bool], rows: Tensor, keys: Tensor, *values: Tensor) -> Tensor:
        ctx.batch, ctx.wanted, tensors, n_rows = batch, wanted, (rows, keys, *values), rows.shape[0]
        step = max(1, at_once(_PAIRS_OF_A_TILE if rows.device.type == "cpu" else _PAIRS_ELSEWHERE) // keys.shape[0])
        if step >= n_rows or n_rows * keys.shape[0] <= _PAIRS_AT_ONCE:
            total, gradients = _with_gradients(batch, tensors, slice(0, n_rows), wanted)
            ctx.save_for_backward(*tensors, *gradients)
            return total
        total, of_rows, slopes = rows.new_zeros(()), list[Any](), list[Any]([None] * len(tensors[1:]))
        for start in range(0, n_rows, step):
            part = slice(start, min(start + step, n_rows))
            cost, (of_part, *gradients) = _with_gradients(batch, (rows[part], keys, *values), part, wanted)
            total += cost
            of_rows.append(of_part)
            slopes = [_added(*pair) for pair in zip(slopes, gradients, strict=True)]
        ctx.save_for_backward(*tensors, torch.cat(of_rows) if wanted[0] else None, *slopes)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        n = len(ctx.wanted)
        tensors, slopes = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        if torch.is_grad_enabled():  # to be differentiated again
            rows, keys, *values = tensors = [tensor.view_as(tensor) for tensor in tensors]  # apart, where one is both
            total = grad_output * _by_operations(ctx.batch, rows, keys, values, slice(0, len(rows)))
            return None, None, *_gradients(total, tensors, ctx.wanted, create_graph=True)
        pairs = zip(ctx.wanted, slopes, strict=True)
        return None, None, *(None if slope is None or not want else grad_output * slope for want, slope in pairs)


def _added(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if total is None else total if more is None else total.add_(more)


def _gradients(value: Tensor, tensors: Sequence[Tensor], wanted: list[bool], **how: Any) -> list[Tensor | None]:
    """Of the tensors for which they are wanted, None for others."""
    leaves = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(value, leaves, materialize_grads=True, **how) if leaves else ())
    return [next(found) if want else None for want in wanted]


class _KL(torch.autograd.Function):
    """sum_i m_i D_i from log k."""

    @staticmethod
    def forward(ctx: Any, batch: Batch, learned: Learned, part: slice, log_k: Tensor) -> Tensor:
        cost, slope = _cost_and_slope(batch, part, log_k.clone() if batch.skips_self else log_k)
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


def _cost_and_slope(batch: Batch, part: slice, log_k: Tensor) -> tuple[Tensor, Tensor]:
    """(sum_i m_i D_i, its slope in log k); `log_k` is overwritten where a row is no key of its own."""
    if batch.skips_self:
        batch.own(log_k, part).fill_(-torch.inf)
    log_q = log_k.log_softmax(1)
    if batch.partners is not None and not batch.uniform:
        return _from_partners(batch, log_q, part)
    if batch.skips_self:
        batch.own(log_q, part).fill_(0)
    cost, slope = (_from_all if batch.partners is None else _from_partners_and_all)(batch, log_q, part)
    if batch.skips_self:
        batch.own(slope, part).fill_(0)
    return cost, slope


def _from_all(batch: Batch, log_q: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """(sum_i m_i D_i, q - p) from all entries of p; `log_q` is overwritten."""
    p, mass = batch.p_of(part, log_q.shape[1])
    if batch.skips_self and batch.uniform:
        batch.own(p, part).fill_(0)
    cost = mass @ kl(p, log_q).sum(1)
    return cost, log_q.exp_().sub_(p).mul_(mass[:, None])


def _from_partners(batch: Batch, log_q: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """The same from the partners of each row, where p is zero on all other keys; `log_q` is overwritten."""
    partners: Any = batch.partners
    weights, at, negentropy = partners.of(part, log_q.shape[1], log_q, 1.0, 0.0)
    cost = negentropy - weights @ log_q.view(-1)[at]
    slope = log_q.exp_()
    slope.view(-1).index_add_(0, at, weights, alpha=-1)
    return cost, slope


def _from_partners_and_all(batch: Batch, log_q: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """The same where all other keys have the uniform mass."""
    partners: Any = batch.partners
    (n_rows, n_keys), n_choices = log_q.shape, batch.n_choices(log_q.shape[1])
    background = batch.uniform / n_choices
    weights, at, negentropy = partners.of(part, n_keys, log_q, 1 - batch.uniform, background)
    of_others = (n_rows * n_choices - at.shape[0]) * background * log(background)
    cost = (negentropy + of_others).sub_(weights @ log_q.view(-1)[at]).sub_(log_q.sum(), alpha=background)
    slope = log_q.exp_().sub_(background)
    slope.view(-1).index_add_(0, at, weights, alpha=-1)
    return cost, slope
