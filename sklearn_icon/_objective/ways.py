"""Which way of computing serves which kernel: what `learned.Learned` declares, its duty, and what rests on it.

| declared | duty | what rests on it |
|---|---|---|
| nothing | `paired` and `pairwise` are log k, differentiable | tiles of all pairs, of any size |
| `euclidean` | log k is `log_kernel` of d^2, at most zero, `slope` its derivative | sums over edges, drawn keys |
| `smooth_at_zero` | from zero on the slope is finite, negative and linear | grids, placement of new rows |
| `slope_terms` | slope = c / (a + b d^2) with (1, 0, c) or (a, 1, c), log k = 0 at zero | compiled loops, trees |
| `power_terms` | k = 1 / (c + a (d^2 + e)^b) with (a, b, c, e) | compiled loops of few rows |
| `told_terms` | pairs are told one by one under the Cauchy kernel, with (m, c, e) | compiled loops of a plane |
| `has_pole` | log k is unbounded at zero | distances from differences |
| `is_limit` | `log_partition` is the limit of log Z; there is no distribution | KL without its entropy |
| `reads_p` | it is a limit, whose `log_partition_given` reads rows of p | all pairs at once |
| `normalized` | `paired` and `pairwise` are log q | no normaliser |
| `tilted` | they are so up to a factor for each row | KL alone |
| `centred` | what stands for log q sums to zero over a row's keys | no sum over uniform mass on p |
| `mixture` | `finish` adds it after the normaliser | no way by formula |
| `pulls_in_half` | `pairwise_and_pull` takes weights of half precision | products of gradients of half precision |

`testing.check_learned` holds kernels to the first four.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from .._core.group import group
from .divergences import Terms, terms_of
from .grid import GridPotential
from .powers import PowerPotential
from .tree import TreePotential

if TYPE_CHECKING:
    from torch import Tensor

    from .._core.conditional import Conditional
    from ..learned import Learned

_LEAST_POWERED, _MOST_POWERED = 100, 3000  # rows: of fewer torch takes less time than loading loops, of more a grid


def _limit_term(p: Tensor, log_q: Tensor) -> Tensor:
    """-p log q: a limit has no entropy to add."""
    return -p * log_q


_limit_of_kl = Terms(_limit_term, 0.0)


def divergence_of(learned: Learned, divergence: Any) -> Any:
    """The terms of D for a kernel: of a limit, those that are left of KL."""
    return _limit_of_kl if learned.is_limit else terms_of(divergence)


def check_limit(learned: Learned, divergence: Any, joint: bool = False) -> None:
    """Refuse the limit of a loss where there is no such limit, and what goes with KL alone."""
    if learned.is_limit and (divergence != "kl" or joint):
        raise ValueError(
            f"{learned} is the limit of a conditional KL loss and no distribution; use it with divergence='kl' and "
            "normalization='conditional', or choose learned='gaussian'."
        )
    if learned.tilted and divergence != "kl":
        raise ValueError(f"{learned} has a prior, which is a cost beside KL; use divergence='kl', or prior=None.")


def infinite_where_zero(divergence: Any) -> ValueError:
    """The error of a divergence that needs p to be positive, and of a p that is not."""
    return ValueError(
        f"divergence={divergence!r} is infinite where p is zero; set debias > 0, or use a p that is positive on all "
        "keys."
    )


def is_plain_kl(learned: Learned, divergence: Any, uniform: float) -> bool:
    """Whether the loss is a sum over edges and a normaliser: KL without uniform mass on p or q."""
    return divergence == "kl" and not uniform and not learned.mixture


def has_kl_by_softmax(learned: Learned, divergence: Any) -> bool:
    """Whether the gradient of a row of log k is q - p."""
    return divergence == "kl" and not (learned.normalized or learned.is_limit or learned.mixture)


def has_rational_tail(learned: Learned) -> bool:
    """Whether k is (1 + d^2 / a)^c, of which one pass over the pairs gives both sums."""
    return learned.slope_terms is not None and learned.slope_terms[1] > 0


def can_sample(p: Conditional, learned: Learned) -> bool:
    """Whether drawn keys can give the normalisers of a lookup map: distance kernels, no mass on self or all."""
    return learned.euclidean and p.exclude_self and not p.uniform and not learned.mixture


def can_interpolate(p: Conditional, learned: Any, n_components: int) -> bool:
    """Whether a grid can: where keys could be drawn, 1-D or 2-D maps under a kernel that is smooth at zero."""
    return n_components <= 2 and can_sample(p, learned) and learned.smooth_at_zero


def has_loops(learned: Any, device: torch.device) -> bool:
    """Whether compiled loops sum a kernel over lists of points."""
    return learned.slope_terms is not None and device.type == "cpu"


def can_use_tree(p: Conditional, learned: Any, n_components: int) -> bool:
    """Whether a tree can: where keys could be drawn, 3-D maps under a kernel of which there are compiled loops."""
    loops = learned.learns or learned.slope_terms is not None
    return n_components == 3 and can_sample(p, learned) and loops


def has_power_loop(learned: Learned, n_rows: int, n_components: int | None, device: Any) -> bool:
    """Whether a compiled loop sums a kernel over all pairs sooner than a grid: a power's, of few rows in a plane."""
    in_plane = n_components == 2 and torch.device(device).type == "cpu" and not group().several
    return in_plane and learned.power_terms is not None and _LEAST_POWERED <= n_rows <= _MOST_POWERED


def potential_of(method: str, angle: float, powered: bool) -> Callable[[Any], Any] | None:
    """What makes of a kernel its fast sums over all pairs, or None where a method has none."""
    made: dict[str, Callable[[Any], Any]] = {"interpolation": GridPotential}
    made |= {"exact": PowerPotential} if powered else {}
    made["barnes_hut"] = partial(TreePotential, angle=angle)
    return made.get(method)
