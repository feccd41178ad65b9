"""p of a batch as dense rows in torch, where the representations are.

Labels, pairs and given matrices become p by torch operations, which torch.compile captures whole. Other specs
compute their own `Conditional` on the CPU.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ._base import Partners, Supervisory

_FEW_PARTNERS = 8  # one in so many pairs at the most, where positives are listed


def as_targets(spec: Supervisory, y: Any, n_rows: int, device: torch.device) -> Tensor | None:
    """`y` as a tensor beside the representations, or None where p reads none.

    Raises
    ------
    ValueError
        y is missing, has another length than the batch, or holds no numbers.
    """
    needs_y = spec.batch_needs(y)
    if not needs_y:
        return None
    if y is None:
        name = type(spec.plain()).__name__
        raise ValueError(f"{name}() requires y to be passed, but y is None: it reads {needs_y}.")
    if isinstance(y, torch.Tensor):
        y = y.detach() if y.layout == torch.strided else y.detach().to_dense()
    else:
        y = y.toarray() if sparse.issparse(y) else np.array(y)
        if y.dtype.kind not in "biuf":
            raise ValueError(f"y must hold numbers, got dtype {y.dtype}; number the labels first.")
        y = torch.from_numpy(y)
    if y.ndim == 0 or len(y) != n_rows:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: y must have one entry for each of the "
            f"{n_rows} rows of z, got shape {tuple(y.shape)}."
        )
    y = spec.check_batch_y(y)
    return None if y is None else y.to(device)


def own_keys(rows: slice, n_keys: int, device: torch.device) -> Tensor:
    """Where the key is the row itself, for a slice of rows: tensor of bool of shape (n_rows, n_keys)."""
    numbers = torch.arange(rows.start, rows.stop, device=device)
    return numbers[:, None] == torch.arange(n_keys, device=device)


def same_label(y: Tensor, rows: slice, like: Tensor) -> Tensor:
    """Whether a row and a key have the label in common, or how many of several."""
    if y.ndim == 1:
        return y[rows, None] == y
    labels = y.to(like.dtype)
    return labels[rows] @ labels.T


def normalized_rows(spec: Supervisory, weights: Tensor, rows: slice, like: Tensor) -> tuple[Tensor, Tensor]:
    """(rows that sum to one or to zero, what they summed to), as `Supervisory.of_batch` returns them."""
    weights = weights.to(like.dtype)
    if spec.excludes_self:
        weights = weights.masked_fill(own_keys(rows, weights.shape[1], weights.device), 0)
    sums = weights.sum(1)
    return weights / sums.clamp_min(torch.finfo(like.dtype).tiny)[:, None], sums


def check_indicator(y: Tensor, name: str, needs_y: str) -> Tensor:
    """Labels of a batch, one or several of each row."""
    y = y.ravel() if y.shape[1:] == (1,) else y
    if y.ndim > 2:
        raise ValueError(
            f"{name}() reads {needs_y} as a 1-D y or as a 2-D indicator of labels, got shape {tuple(y.shape)}."
        )
    if y.ndim == 2 and not torch.compiler.is_compiling() and not ((y == 0) | (y == 1)).all():
        raise ValueError(
            f"a 2-D y of {name}() must hold 0 and 1, whether a row has a label; pass {needs_y} as a 1-D y."
        )
    return y


def is_other_modality(y: Tensor) -> bool:
    """Whether y holds the other modality's items, which p of pairs takes as they stand, and no labels."""
    if not y.is_floating_point():
        check_indicator(y, "CrossModalPairs", "several labels of a row")
        return False
    if not torch.compiler.is_compiling() and ((y == 0) | (y == 1)).all():
        raise ValueError(
            "a 2-D y of CrossModalPairs() that says which labels a row has must hold integers or booleans; got "
            f"{y.dtype}, which stands for the other modality's items."
        )
    return True


def check_codes(y: Tensor, n_keys: int) -> None:
    """Refuse classes that are no numbers of keys; values are looked at outside torch.compile only."""
    if torch.compiler.is_compiling():
        return
    if y.is_floating_point() or y.min() < -1 or y.max() >= n_keys:
        raise ValueError(
            f"a 1-D y of DataLabel() must hold integers from 0 to {n_keys - 1}, the numbers of the {n_keys} keys, or "
            f"-1 for rows without a class; got {y.dtype} from {y.min().item():g} to {y.max().item():g}."
        )


def matrix_rows(spec: Supervisory, y: Tensor, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a given matrix of weights."""
    name = type(spec).__name__
    if y.ndim != 2 or y.shape[1] != n_keys:
        raise ValueError(
            f"{name}() needs a y with one column for each of the {n_keys} keys, got shape {tuple(y.shape)}."
        )
    wanted = y[rows]
    if not torch.compiler.is_compiling() and wanted.numel() and not (wanted.min() >= 0 and wanted.max() < torch.inf):
        raise ValueError(f"{name}() needs weights in y that are finite and not negative.")
    return normalized_rows(spec, wanted, rows, like)


def own_partners(rows: slice, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`Supervisory.partners_of_batch` where each row has the key of its own number."""
    numbers = torch.arange(rows.stop - rows.start, device=like.device)
    return numbers, numbers + rows.start, torch.ones_like(numbers)


def same_label_partners(spec: Supervisory, y: Tensor, rows: slice, n_keys: int) -> Partners:
    """`Supervisory.partners_of_batch` where keys have the label of the row."""
    numbers, n_excluded = torch.arange(rows.stop - rows.start, device=y.device), int(spec.excludes_self)
    _, codes, sizes = y.unique(return_inverse=True, return_counts=True)
    order = codes.argsort(stable=True)
    if n_excluded and 2 * len(sizes) == len(y) and sizes.max() == 2:  # two views of each
        other = torch.empty_like(order)
        other[order] = order.view(-1, 2).flip(1).ravel()
        return numbers, other[rows], torch.ones_like(numbers)
    counts = sizes[codes[rows]]
    n_partners = int(counts.sum())
    if counts.min() <= n_excluded or n_partners * _FEW_PARTNERS > len(numbers) * n_keys:
        return None
    of = numbers.repeat_interleave(counts, output_size=n_partners)
    skipped = sizes.cumsum(0)[codes[rows]] - counts.cumsum(0)  # of the sorted rows, before those of this class
    keys = order[skipped[of] + torch.arange(n_partners, device=y.device)]
    if not n_excluded:
        return of, keys, counts
    others = keys != of + rows.start
    return of[others], keys[others], counts - 1


@torch.compiler.disable
def computed_rows(spec: Supervisory, y: Tensor | None, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """By the spec's own `conditional`, which reads nothing of X but its length."""
    given = None
    if y is not None:
        given = (y.float() if y.dtype in (torch.float16, torch.bfloat16) else y).cpu().numpy()
    p = spec.conditional(np.empty((n_keys, 0)), given, random_state=0)
    weights = torch.as_tensor(p.weights[rows].toarray(), dtype=like.dtype, device=like.device)
    sums = np.ones(n_keys) if p.degrees is None else p.degrees
    return weights, torch.as_tensor(sums[rows], dtype=like.dtype, device=like.device)
