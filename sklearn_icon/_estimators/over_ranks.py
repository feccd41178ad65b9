"""Which routes are solved over the ranks of a process group, and what of them is left to one process."""

from collections.abc import Callable, Iterator
from typing import Any

from .._core.device import resolve_device


def _regression(case: Any) -> Iterator[str]:
    """Softmax regression by Newton's method, whose sums over rows are added."""
    given = case.given
    if given["early_stopping"]:
        yield "early_stopping=True is not done over ranks; use False, or hold rows out of y yourself."
    if given["divergence"] != "kl":
        yield f"divergence={given['divergence']!r} is not solved over ranks; use 'kl', or fit on one process."
    if resolve_device(given["device"]).type != "cpu":
        yield f"device={given['device']!r}: over ranks softmax regression is solved on the CPU; use device='cpu'."
    if case.p.allows_unknown:
        yield f"{case.p} searches neighbours of all rows, which is not done over ranks; use supervisory='data_label'."


OVER_RANKS: dict[tuple[str, str], Callable[[Any], Iterator[str]]] = {
    ("ICONClassifier", "softmax regression"): _regression,
}
