"""Nearest neighbours among rows on a GPU: squared distances by matrix products, a block of rows to all at a time.

Of very many rows those of a cell are compared with those of the nearest cells, as in `partition`. Products in single
precision, of rows near zero, say which others may be among the nearest; these are ranked by differences in double
precision. Where rounding may have cost a row a neighbour, it is searched once more by products in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.interrupts import raise_if_interrupted
from .._core.types import Array
from .partition import Partition, cells_needed, centres_of, nearest_cells, usual_rows

_GROUP = 128  # columns of which the smallest says whether more of them are looked at
_FOUND = 0.99  # of a sample's neighbours, in the cells that are compared
_CENTRES_AT_ONCE = 1 << 26  # distances of rows to centres
_TILE = 1 << 29  # squared distances at a time, 2 GB of them
_MOST_ROWS = 4096
_DIFFERENCES = 1 << 24  # numbers at a time, in double precision
_LOCK = Lock()
_ALLOWED: list[Any] = []  # precision that the process allowed before the searches under way, once for each
_FAR = {torch.float32: 1e15, torch.float64: 1e120}  # norms that have a square


class Nearest(NamedTuple):
    """What is known of the k nearest other rows of each row, of those that it is compared with.

    `candidates`, shape (n, at least k), are the nearest first, equally far ones by index, and `sq_distances` those of
    the first k. They hold all that are as near as the k-th where a row is `sure`; where it is `settled`, all others are
    farther than the first k, and nothing is left to choose. `recall` is that of some rows where others were
    not compared with all.
    """

    candidates: Array
    sq_distances: Array
    sure: Array
    settled: Array
    recall: float | None = None


def nearest_rows(
    X: Array, k: int, n_spare: int, device: str, tile: int = _TILE, sample: Array | None = None, seed: int = 0
) -> Nearest:
    """The nearest other rows of each dense row, of either precision; where memory runs out, in smaller tiles.

    With a sample, whose neighbours are found among all, other rows are compared with those of the nearest cells, if few
    of these hold most neighbours of the sample; every other row of it tells the recall.
    """
    n_candidates, farthest = min(k + n_spare, len(X) - 1), None
    with _full_precision(torch.device(device).type):
        on_device = torch.tensor(X, device=device)  # a copy, of arrays that are only read too
        kinds = (torch.int32, n_candidates), (torch.float64, k), (torch.bool, 1), (torch.bool, 1)
        found = [torch.zeros(len(X), width, dtype=dtype, device=device) for dtype, width in kinds]
        for dtype in (torch.float32, torch.float64):
            left = (~found[2][:, 0]).nonzero()[:, 0]
            if not len(left):
                break
            products = _Products(on_device, dtype)
            step = max(1, min(_MOST_ROWS, tile // products.width(n_candidates)))
            among_all = partial(_nearest, products, products.smallest, k=k, n_candidates=n_candidates)
            if sample is not None and dtype == torch.float32:
                probes = torch.as_tensor(sample, device=device)
                _in_blocks([(probes, among_all)], step, found)
                farthest = found[1][probes, -1]
                if _in_cells(products, probes, seed, found):
                    left = (~found[2][:, 0]).nonzero()[:, 0]
                else:
                    farthest = None
            _in_blocks([(left, among_all)], step, found)
        near = None if farthest is None else (found[1][probes] <= farthest[:, None])[1::2]
        candidates, sq_distances, sure, settled = (part.cpu().numpy() for part in found)
        recall = None if near is None else float(near.double().mean())
    return Nearest(candidates, sq_distances, sure[:, 0], settled[:, 0], recall)


def _in_cells(products: _Products, sample: torch.Tensor, seed: int, found: list[torch.Tensor]) -> bool:
    """Fill in what lies in the nearest cells, as many as every other row of a sample asks for; False: too many."""
    cells, chosen, (n_candidates, k) = _Cells(products, seed), sample[::2], (part.shape[1] for part in found[:2])
    neighbors = found[0][chosen, :k].cpu().numpy()
    n_near = cells_needed(cells.partition, chosen.cpu().numpy(), neighbors, _FOUND)
    if n_near is None:
        return False
    blocks = []
    for own, rows in enumerate(cells.members):
        search = partial(_nearest, products, partial(cells.smallest, own, n_near), k=k, n_candidates=n_candidates)
        blocks.append((rows, search))
    _in_blocks(blocks, _MOST_ROWS, found)
    return True


@contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    """Products in the precision of their factors, without gradients.

    What the process allows is put back as the last search ends that threads run at the same time.
    """
    matmul = torch.backends.cuda.matmul
    name, full = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    with _LOCK:
        if not _ALLOWED:
            _ALLOWED.append(getattr(matmul, name))
            setattr(matmul, name, full)
        else:
            _ALLOWED.append(_ALLOWED[0])
    try:
        with torch.no_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        with _LOCK:
            before = _ALLOWED.pop()
            if not _ALLOWED:
                setattr(matmul, name, before)


def _in_blocks(
    blocks: Sequence[tuple[torch.Tensor, Callable[[torch.Tensor], tuple]]], step: int, found: list[torch.Tensor]
) -> None:
    """Fill in what search(some rows) finds, of blocks (rows, search); parts are halved where they find no memory."""
    for block, search in blocks:
        start = 0
        while start < len(block):
            raise_if_interrupted()
            rows = block[start : start + step]
            try:
                parts = search(rows)
            except torch.cuda.OutOfMemoryError:
                if step == 1:
                    raise
                parts = None
            if parts is None:
                step = (step + 1) // 2
                torch.cuda.empty_cache()
                continue
            for whole, part in zip(found, parts, strict=True):
                whole[rows] = part.view(len(rows), -1).to(whole.dtype)
            start += step


class _Products:
    """Rows about their centre, at a scale near one and in the precision of the products, which give squared distances.

    Those farther than `far` from the centre are brought there.
    """

    def __init__(self, X: torch.Tensor, dtype: torch.dtype) -> None:
        self.X, self.far = X, _FAR[dtype]
        n, width = X.shape
        sample = X[:: max(1, n // 1024)].double()
        centre = sample.sort(dim=0).values[len(sample) // 2]
        sample = sample - centre
        largest = sample.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        norms = largest * (sample / largest).norm(dim=1)
        typical = float(norms[norms > 0].median()) if norms.any() else 1.0
        self.scale = 2.0 ** np.ceil(np.log2(typical)) if np.isfinite(typical) else 1.0
        self.rows = torch.empty(n, width, dtype=dtype, device=X.device)
        self.norms = torch.empty(n, dtype=torch.float64, device=X.device)
        for part in range(0, n, step := _DIFFERENCES // width + 1):
            rows = (X[part : part + step].double() - centre) / self.scale
            norms = rows.norm(dim=1)
            self.norms[part : part + step] = norms
            self.rows[part : part + step] = rows * (self.far / norms.clamp(min=self.far))[:, None]
        self.sq = torch.full((-(-n // _GROUP) * _GROUP,), torch.inf, dtype=dtype, device=X.device)
        self.sq[:n] = self.rows.square().sum(1)
        self.rounding = 2 * torch.finfo(dtype).eps * (width + 16)

    def width(self, n_candidates: int) -> int:
        """How much of a tile a row takes."""
        return len(self.sq) * (2 if self.sq.dtype == torch.float64 else 1) + n_candidates * _GROUP

    def __getitem__(self, rows: Array) -> Array:
        return self.rows[torch.as_tensor(rows, device=self.X.device)].cpu().numpy()

    @cached_property
    def columns(self) -> torch.Tensor:
        """-2 x of each row as a column, zero beyond the last."""
        n, width = self.rows.shape
        columns = torch.zeros(width, len(self.sq), dtype=self.rows.dtype, device=self.X.device)
        columns[:, :n] = self.rows.T
        return columns.mul_(-2)

    def smallest(self, rows: torch.Tensor, n_candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(candidates, squared distance that no other comes within, up to rounding) of each row."""
        d = torch.addmm(self.sq, self.rows[rows], self.columns)
        d[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        values, candidates = _smallest(d, n_candidates)
        return candidates, values.amax(1).double() + self.sq[rows]

    def error(self, rows: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
        """Bound on that rounding, among rows within a reach of the centre."""
        return self.rounding * (self.norms[rows].square() + reach.square())


class _Cells:
    """Rows by the nearest of some centres, to be compared with those of the cells nearest to their own."""

    def __init__(self, products: _Products, seed: int) -> None:
        n, self.products, rng = len(products.rows), products, np.random.RandomState(seed)
        centres = centres_of(products[usual_rows(products.norms.square().cpu().numpy(), rng)], n, rng)
        right = torch.as_tensor(centres, dtype=products.rows.dtype, device=products.X.device)
        sq, right, step = right.square().sum(1), -2 * right.T, _CENTRES_AT_ONCE // len(centres) + 1
        cell = torch.cat([torch.addmm(sq, rows, right).argmin(1) for rows in products.rows.split(step)])
        self.order = cell.sort(stable=True).indices
        self.rank, numbers = torch.empty_like(self.order), torch.arange(n, device=self.order.device)
        self.rank[self.order] = numbers
        sizes = np.bincount(cell.cpu().numpy(), minlength=len(centres))
        starts, self.sizes = np.r_[0, np.cumsum(sizes)], sizes
        self.partition = Partition(self.order.cpu().numpy(), starts, cell.cpu().numpy(), nearest_cells(centres))
        self.numbers, self.members = (of_rows.split(sizes.tolist()) for of_rows in (numbers, self.order))
        self.rows = torch.cat([products.rows[self.order], products.rows.new_zeros(1, products.rows.shape[1])])
        self.sq = torch.cat([products.sq[self.order], products.sq.new_full((1,), torch.inf)])
        self.none = self.order.new_full((_GROUP,), n)

    def smallest(
        self, own: int, n_near: int, rows: torch.Tensor, n_candidates: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(candidates, squared distance that no other of these cells comes within) of rows of one cell."""
        near = self.partition.near[own]
        enough = 1 + int(np.searchsorted(np.cumsum(self.sizes[near]), 2 * n_candidates))
        columns = torch.cat([self.numbers[other] for other in near[: max(n_near, enough)]])
        columns = torch.cat([columns, self.none[: -len(columns) % _GROUP]])
        d = torch.addmm(self.sq[columns], self.products.rows[rows], self.rows[columns].T, alpha=-2)
        d[torch.arange(len(rows), device=rows.device), self.rank[rows] - int(self.partition.starts[own])] = torch.inf
        values, at = _smallest(d, n_candidates)
        return self.order[columns[at]], values.amax(1).double() + self.products.sq[rows]


def _smallest(d: torch.Tensor, n_candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, columns) of the smallest of each row."""
    if 4 * n_candidates * _GROUP >= d.shape[1]:
        return d.topk(n_candidates, largest=False, sorted=False)
    groups = d.view(len(d), -1, _GROUP)  # the nearest lie in those whose smallest are the least
    nearest = groups.amin(2).topk(n_candidates, largest=False, sorted=False).indices
    near = groups.gather(1, nearest[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
    values, at = near.topk(n_candidates, largest=False, sorted=False)
    return values, nearest.gather(1, at // _GROUP) * _GROUP + at % _GROUP


def _nearest(
    products: _Products, smallest: Callable[..., tuple], rows: torch.Tensor, k: int, n_candidates: int
) -> tuple[torch.Tensor, ...]:
    """`Nearest` of a block of rows. What lies farther from the centre than a row's reach is no neighbour of it."""
    X = products.X
    candidates, beyond = smallest(rows, n_candidates)
    candidates = candidates.sort(dim=1).values
    sq, order = _sq_differences(X, rows, candidates).sort(dim=1, stable=True)
    last = sq[:, k - 1] * (1 + 32 * torch.finfo(X.dtype).eps)
    if n_candidates == len(X) - 1:
        sure = torch.isfinite(last)
    else:
        reach = products.norms[rows] + last.sqrt() / products.scale
        sure = (last / products.scale**2 < beyond - products.error(rows, reach)) & (reach < products.far)
    settled = sure & (sq[:, k] > last) if k < n_candidates else sure
    return candidates.gather(1, order), sq[:, :k], sure, settled


def _sq_differences(X: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Squared distances of rows to their candidates, in double precision."""
    step = max(1, _DIFFERENCES // (candidates.shape[1] * X.shape[1]))
    pairs = zip(rows.split(step), candidates.split(step), strict=True)
    return torch.cat([(X[r].double()[:, None] - X[c].double()).square_().sum(2) for r, c in pairs])
