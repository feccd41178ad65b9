"""p of a batch as dense rows in torch, where the representations are.

Labels, pairs and given matrices become p by torch operations alone, which torch.compile captures whole. Other specs
compute their own `Conditional` on the CPU.
"""

import numpy as np
import torch
from scipy import sparse

from .._core.spec import unwrapped
from . import (
    Counts,
    CrossModalPairs,
    DataLabel,
    Graph,
    Identity,
    PropagatedLabel,
    RandomWalk,
    SameClass,
    UniformMixture,
)

_MATRICES = {Graph: "the batch's matrix of weights", Counts: "the batch's matrix of counts"}


def check_batch_spec(spec):
    """Refuse a p that reads more than a batch holds.

    Raises
    ------
    ValueError
        The spec reads X or a graph of all rows, draws, or walks over keys that are no rows.
    """
    inner = unwrapped(spec, PropagatedLabel)
    if isinstance(inner, PropagatedLabel):
        raise ValueError(
            "supervisory=PropagatedLabel() carries labels over a graph of all rows, of which a batch holds none; give "
            "the shares that it finds as a 2-D y to DataLabel()."
        )
    if getattr(inner, "source", None) == "X":
        raise ValueError(
            f"supervisory={inner} measures distances on X, but the loss sees representations alone; set source='y' and "
            "pass companion features as y."
        )
    if isinstance(inner, SameClass) and inner.get_params(deep=False) != type(inner)().get_params(deep=False):
        name = type(inner).__name__
        raise ValueError(
            f"supervisory={inner} reads more than y, where a batch takes all positives in it; use {name}()."
        )
    if spec.keys_differ and isinstance(unwrapped(spec, RandomWalk), RandomWalk):
        raise ValueError(f"RandomWalk() needs keys that are rows, but {type(inner).__name__}() has other keys.")


def uniform_share(spec, debias):
    """The uniform mass of p: of `debias` and of all wrappers."""
    rest = 1 - debias
    while hasattr(spec, "base"):
        rest, spec = rest * (1 - getattr(spec, "alpha", 0.0)), spec.base
    return 1 - rest


def excludes_self(spec):
    """Whether a row is no key of its own."""
    return not (spec.keys_differ or isinstance(unwrapped(spec), Identity))


def as_targets(spec, y, n_rows, device):
    """`y` as a tensor beside the representations, or None where p reads none.

    Raises
    ------
    ValueError
        y is missing, has another length than the batch, or holds no numbers.
    """
    inner = unwrapped(spec)
    needs_y = next((words for kind, words in _MATRICES.items() if isinstance(inner, kind)), spec.needs_y)
    if not needs_y or (isinstance(inner, CrossModalPairs) and y is None):
        return None
    if y is None:
        raise ValueError(f"{type(inner).__name__}() requires y to be passed, but y is None: it reads {needs_y}.")
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
    if isinstance(inner, SameClass):
        y = y.ravel() if y.shape[1:] == (1,) else y
        _check_indicator(y, type(inner).__name__, needs_y)
    if isinstance(inner, CrossModalPairs):
        y = y.ravel() if y.shape[1:] == (1,) else y
        if y.ndim > 1 and _is_other_modality(y):
            return None
    return y.to(device)


def own_keys(rows, n_keys, device):
    """Where the key is the row itself, for a slice of rows: tensor of bool of shape (n_rows, n_keys)."""
    numbers = torch.arange(rows.start, rows.stop, device=device)
    return numbers[:, None] == torch.arange(n_keys, device=device)


def row_weights(spec, y, rows, n_keys, dtype, device):
    """Rows of p without its uniform mass.

    Parameters
    ----------
    spec : Supervisory
        One that `check_batch_spec` lets pass.
    y : tensor or None
        As `as_targets` returns it, of all rows of the joint batch.
    rows : slice
        The rows wanted.
    n_keys : int
    dtype : torch.dtype
    device : torch.device

    Returns
    -------
    weights : tensor of shape (n_rows, n_keys)
        Each row sums to one, or to zero where it has no positive.
    sums : tensor of shape (n_rows,)
        What the rows summed to before.

    Raises
    ------
    ValueError
        A matrix that does not fit the keys, negative weights, labels that are no numbers of keys; values are looked at
        outside torch.compile only.
    """
    while isinstance(spec, UniformMixture):
        spec = spec.base
    own = own_keys(rows, n_keys, device)
    if y is None and isinstance(spec, (Identity, CrossModalPairs)):
        weights = own
    elif isinstance(spec, (SameClass, CrossModalPairs)) and y.ndim == 2:
        labels = y.to(dtype)
        weights = labels[rows] @ labels.T
    elif isinstance(spec, (SameClass, CrossModalPairs)):
        weights = y[rows, None] == y
    elif isinstance(spec, DataLabel) and y.ndim == 1:
        _check_codes(y, n_keys)
        weights = y[rows, None] == torch.arange(n_keys, device=device)
    elif isinstance(spec, (DataLabel, Counts, Graph)):
        _check_matrix(spec, y, n_keys)
        weights = y[rows]
    else:
        return _by_spec(spec, y, rows, n_keys, dtype, device)
    weights = weights.to(dtype)
    if excludes_self(spec):
        weights = weights.masked_fill(own, 0)
    sums = weights.sum(1)
    return weights / sums.clamp_min(torch.finfo(dtype).tiny)[:, None], sums


def _check_indicator(y, name, needs_y):
    if y.ndim > 2:
        raise ValueError(
            f"{name}() reads {needs_y} as a 1-D y or as a 2-D indicator of labels, got shape {tuple(y.shape)}."
        )
    if y.ndim == 2 and not torch.compiler.is_compiling() and not ((y == 0) | (y == 1)).all():
        raise ValueError(
            f"a 2-D y of {name}() must hold 0 and 1, whether a row has a label; pass {needs_y} as a 1-D y."
        )


def _is_other_modality(y):
    """Whether y holds the other modality's items, which p of pairs takes as they stand, and no labels."""
    if not y.is_floating_point():
        _check_indicator(y, "CrossModalPairs", "several labels of a row")
        return False
    if not torch.compiler.is_compiling() and ((y == 0) | (y == 1)).all():
        raise ValueError(
            "a 2-D y of CrossModalPairs() that says which labels a row has must hold integers or booleans; got "
            f"{y.dtype}, which stands for the other modality's items."
        )
    return True


def _check_codes(y, n_keys):
    if torch.compiler.is_compiling():
        return
    if y.is_floating_point() or y.min() < -1 or y.max() >= n_keys:
        raise ValueError(
            f"a 1-D y of DataLabel() must hold integers from 0 to {n_keys - 1}, the numbers of the {n_keys} keys, or "
            f"-1 for rows without a class; got {y.dtype} from {y.min().item():g} to {y.max().item():g}."
        )


def _check_matrix(spec, y, n_keys):
    if y.ndim != 2 or y.shape[1] != n_keys:
        raise ValueError(
            f"{type(spec).__name__}() needs a y with one column for each of the {n_keys} keys, got shape "
            f"{tuple(y.shape)}."
        )
    if not torch.compiler.is_compiling() and not ((y >= 0) & (y < torch.inf)).all():
        raise ValueError(f"{type(spec).__name__}() needs weights in y that are finite and not negative.")


@torch.compiler.disable
def _by_spec(spec, y, rows, n_keys, dtype, device):
    """`row_weights` of the spec's own `conditional`, which reads nothing of X but its length."""
    if y is not None:
        y = (y.float() if y.dtype in (torch.float16, torch.bfloat16) else y).cpu().numpy()
    p = spec.conditional(np.empty((n_keys, 0)), y, random_state=0)
    weights = torch.as_tensor(p.weights[rows].toarray(), dtype=dtype, device=device)
    sums = np.ones(n_keys) if p.degrees is None else p.degrees
    return weights, torch.as_tensor(sums[rows], dtype=dtype, device=device)
