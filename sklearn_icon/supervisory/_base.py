"""`Supervisory`: what every spec of p answers."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sklearn.utils import _safe_indexing, check_consistent_length

from .._core.rows import refuse_hidden
from .._core.spec import Spec, of_base
from .._core.types import Array, Jobs, Rows, Seed

if TYPE_CHECKING:
    from torch import Tensor

    from .._core.conditional import Conditional
    from .._core.labels import Known
    from ._labels import PositivePairs
    from ._neighborhoods import Neighborhood

N = TypeVar("N", bound=float)
Partners: TypeAlias = "tuple[Tensor, Tensor, Tensor] | None"
"""What `Supervisory.partners_of_batch` returns."""


class Supervisory(Spec):
    """A column of the table: how p(j|i) follows from the data.

    A subclass gives `conditional`, says what its `keys` are, and overrides what else it answers differently. A wrapper
    hands every question on to what it wraps.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_icon.supervisory import Graph, Supervisory
    >>> from sklearn_icon.testing import check_supervisory
    >>> class NextRows(Supervisory):
    ...     def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
    ...         position = np.asarray(X)[:, 0]
    ...         return Graph().conditional(1.0 * (np.abs(position[:, None] - position) == 1))
    >>> check_supervisory(NextRows(), np.arange(12.0)[:, None])
    """

    keys = "rows"
    """What the keys j are: "rows" of X, "views" that are drawn of them, "classes", "tokens", or "partners" in another
    modality."""
    needs_y = ""
    """What `y` must hold, in words; empty where it is not read."""
    reads_labels = False
    """Whether `y` holds class labels."""
    reads_probabilities = False
    """Whether a 2-D `y` may hold class probabilities."""
    allows_unknown = False
    """Whether a label of -1 is an unknown one, to which p gives classes."""
    excludes_self = True
    """Whether a row is no key of its own."""
    weighs_rows = False
    """Whether a row counts in the average as much as its weights sum to."""
    mixture = 0.0
    """Uniform mass on p."""
    narrow = False
    """Whether p is the limit of a kernel of no width, so that the scaled reverse KL of clusters is inertia."""
    pairwise = False
    """Whether X holds a column for each row, such as distances, which cross-validation takes likewise."""
    walks = False
    """Whether rows are reached by walks of several steps."""
    batch_is_whole = True
    """Whether `of_batch` computes all rows to return some."""
    unlabelled: Supervisory | None = None
    """The p of rows without a label, where it has one of its own."""
    compares_all_pairs = False
    """Whether there is `log_rows_with_self`, p between all pairs of rows."""

    @abstractmethod
    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like, default=None
            What the spec reads in addition to X: labels, group ids, companion features, counts.
        n_jobs : int, default=None
            Threads of the neighbour search.
        random_state : int, RandomState instance or None, default=None
            Seeds the approximate neighbour search that large data use.

        Returns
        -------
        Conditional

        Raises
        ------
        ValueError
            What the spec reads is missing or unfit; the message says which and what to do.
        """

    @property
    def over_rows(self) -> bool:
        """Whether the keys are the rows, or views of them."""
        return self.keys in ("rows", "views")

    @property
    def views(self) -> PositivePairs | None:
        """The spec that draws views, or None."""
        return None

    @property
    def neighborhood(self) -> Neighborhood | None:
        """The spec that measures distances between rows of X, which relates new rows to them, or None."""
        return None

    def plain(self) -> Supervisory:
        """The spec inside of wrappers."""
        return self

    def reads(self, X: Rows, y: Any = None) -> str:
        """What X holds: "features", "distances", a "graph", or "counts" of tokens."""
        return "features"

    def step(self) -> tuple[Supervisory, int]:
        """(p of one step, the longest walk), where p averages over the steps of walks."""
        return self, 1

    def like_new(self, y: Any) -> Array | slice:
        """Which fitted rows new rows are like: those that p relates by X only."""
        return slice(None)

    def take(self, y: Any, rows: Array) -> Any:
        """What is left of `y` where some rows of X are."""
        return None if y is None else _safe_indexing(y, rows)

    def most_edges(self, n_rows: int) -> int:
        """How many keys of a row have a weight of their own, as far as parameters tell it."""
        return 0

    def complete(self, n_clusters: int) -> None:
        """Set what was left open for a number of clusters."""

    def k_means_start(self, n_clusters: int) -> Callable | None:
        """Where k-means among the rows that p measures begins, as its `init`; None where it is left to k-means."""
        return None

    def known(self, y: Any) -> Known | None:
        """The classes of labelled rows, where p tells them from rows without a label; else None."""
        return None

    def beside(self, y: Any, unlabelled: Supervisory) -> Supervisory:
        """Itself, or with a p for the rows of y without a label, where that was left out."""
        return self

    def settle(self, X_holds: str) -> None:
        """Set what was left to X, which was found to hold features, distances or a graph."""

    def check_batch(self) -> None:
        """Refuse a p that reads more than a batch of representations and its y hold."""

    def batch_needs(self, y: Any) -> str:
        """What `y` of a batch must hold, in words; empty where it is not read."""
        return self.needs_y

    def check_batch_y(self, y: Tensor) -> Tensor | None:
        """`y` of a batch as `of_batch` reads it; None where it says nothing."""
        return y

    def of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of p of a batch without its uniform mass, on the device and in the precision of a tensor.

        Parameters
        ----------
        y : tensor or None
            Of all rows of the batch.
        rows : slice
            The rows wanted.
        n_keys : int
        like : tensor

        Returns
        -------
        weights : tensor of shape (n_rows, n_keys)
            Each row sums to one, or to zero where it has no positive.
        sums : tensor of shape (n_rows,)
            What the rows summed to before.
        """
        from ._batch import computed_rows

        return computed_rows(self, y, rows, n_keys, like)

    def partners_of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> Partners:
        """p of a batch by its keys, where these are few, weigh the same in each row, and no row has none; else None.

        (rows, keys, count of each row): pairs in order of rows, which are numbered from the first one wanted. Values
        are looked at, but for y = None, so not under torch.compile.
        """
        return None

    def _require_y(self, X: Rows, y: Any) -> Any:
        """y, where there is one, with an entry for each row of X."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__}() requires y to be passed, but the target y is None: it reads {self.needs_y}."
            )
        refuse_hidden(y, "y")
        check_consistent_length(X, y)
        return y


class Wrapper(Supervisory):
    """A spec made from another one, to which it hands on every question that it does not answer itself."""

    _parameter_constraints = {"base": [Supervisory]}

    keys, needs_y, mixture, pairwise = map(of_base, ("keys", "needs_y", "mixture", "pairwise"))
    reads_labels, reads_probabilities = map(of_base, ("reads_labels", "reads_probabilities"))
    allows_unknown, excludes_self, weighs_rows = map(of_base, ("allows_unknown", "excludes_self", "weighs_rows"))
    views, neighborhood, walks = map(of_base, ("views", "neighborhood", "walks"))
    plain, reads, like_new, take = map(of_base, ("plain", "reads", "like_new", "take"))
    complete, settle, check_batch, known = map(of_base, ("complete", "settle", "check_batch", "known"))
    k_means_start = of_base("k_means_start")
    most_edges = of_base("most_edges")
    batch_needs, check_batch_y = map(of_base, ("batch_needs", "check_batch_y"))


def shrink(parameter: str, default: N, fitting: N, data: str) -> N:
    """Take a default that the data, such as "9 samples", cannot carry down to what they can, with one warning."""
    warnings.warn(
        f"the default {parameter}={default:g} is too large for {data}; using {parameter}={fitting:g}. "
        f"Set {parameter} explicitly to silence this.",
        stacklevel=2,
    )
    return fitting
