"""Nearest neighbours among rows on a GPU: squared distances by matrix products, a block of rows to all at a time.

Products in single precision, of rows near zero, say which others may be among the nearest; these are ranked by
differences in double precision. Where rounding may have cost a row a neighbour, it is searched once more by products
in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.interrupts import raise_if_interrupted
from .._core.types import Array

_GROUP = 128  # columns of which the smallest says whether more of them are looked at
_TILE = 1 << 29  # squared distances at a time, 2 GB of them
_MOST_ROWS = 4096
_DIFFERENCES = 1 << 24  # numbers at a time, in double precision
_LOCK = Lock()
_ALLOWED: list[Any] = []  # precision that the process allowed before the searches under way, once for each
_FAR = {torch.float32: 1e15, torch.float64: 1e120}  # norms that have a square


class Nearest(NamedTuple):
    """What is known of the k nearest other rows of each row.

    `candidates`, shape (n, at least k), are the nearest first, equally far ones by index, and `sq_distances` those of
    the first k. They hold all that are as near as the k-th where a row is `sure`; where it is `settled`, all others are
    farther than the first k, and nothing is left to choose.
    """

    candidates: Array
    sq_distances: Array
    sure: Array
    settled: Array


def nearest_rows(X: Array, k: int, n_spare: int, device: str, tile: int = _TILE) -> Nearest:
    """The nearest other rows of each dense row, of either precision; where memory runs out, in smaller tiles."""
    n_candidates = min(k + n_spare, len(X) - 1)
    shape = len(X), n_candidates
    found = Nearest(np.empty(shape, np.int32), np.empty((len(X), k)), *np.zeros((2, len(X)), dtype=bool))
    with _full_precision(torch.device(device).type):
        on_device = torch.tensor(X, device=device)  # a copy, of arrays that are only read too
        for dtype in (torch.float32, torch.float64):
            rows = np.flatnonzero(~found.sure)
            if len(rows):
                products = _Products(on_device, dtype)
                step = max(1, min(_MOST_ROWS, tile // products.width(n_candidates)))
                _in_blocks(rows, step, partial(_nearest, products, k=k, n_candidates=n_candidates), found)
    return found


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


def _in_blocks(rows: Array, step: int, search: Callable[[Array], tuple], found: Nearest) -> None:
    """Fill in what search(block of rows) finds; blocks are halved where they find no memory."""
    start = 0
    while start < len(rows):
        raise_if_interrupted()
        block = rows[start : start + step]
        try:
            parts = search(block)
        except torch.cuda.OutOfMemoryError:
            if step == 1:
                raise
            parts = None
        if parts is None:
            step = (step + 1) // 2
            torch.cuda.empty_cache()
            continue
        for whole, part in zip(found, parts, strict=True):
            whole[block] = part.cpu().numpy()
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
        padded = -(-n // _GROUP) * _GROUP
        self.sq = torch.full((padded,), torch.inf, dtype=dtype, device=X.device)
        self.sq[:n] = self.rows.square().sum(1)
        self.columns = torch.zeros(width, padded, dtype=dtype, device=X.device)
        self.columns[:, :n] = self.rows.T
        self.columns *= -2
        self.rounding = 2 * torch.finfo(dtype).eps * (width + 16)

    def width(self, n_candidates: int) -> int:
        """How much of a tile a row takes."""
        return len(self.sq) * (2 if self.sq.dtype == torch.float64 else 1) + n_candidates * _GROUP

    def smallest(self, rows: torch.Tensor, n_candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(candidates, squared distance that no other comes within, up to rounding) of each row."""
        d = torch.addmm(self.sq, self.rows[rows], self.columns)
        d[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        if 4 * n_candidates * _GROUP >= d.shape[1]:
            values, candidates = d.topk(n_candidates, largest=False, sorted=False)
        else:  # the nearest lie in the groups whose smallest distances are the least
            groups = d.view(len(rows), -1, _GROUP)
            nearest = groups.amin(2).topk(n_candidates, largest=False, sorted=False).indices
            near = groups.gather(1, nearest[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
            values, at = near.topk(n_candidates, largest=False, sorted=False)
            candidates = nearest.gather(1, at // _GROUP) * _GROUP + at % _GROUP
        return candidates, values.amax(1).double() + self.sq[rows]

    def error(self, rows: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
        """Bound on that rounding, among rows within a reach of the centre."""
        return self.rounding * (self.norms[rows].square() + reach.square())


def _nearest(products: _Products, block: Array, k: int, n_candidates: int) -> tuple[torch.Tensor, ...]:
    """`Nearest` of a block of rows. What lies farther from the centre than a row's reach is no neighbour of it."""
    X = products.X
    rows = torch.as_tensor(block, device=X.device)
    candidates, beyond = products.smallest(rows, n_candidates)
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
