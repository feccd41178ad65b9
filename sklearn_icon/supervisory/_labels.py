"""Specs of p that read labels or group ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _num_samples

from .._core.conditional import Conditional, view_conditional
from .._core.labels import Known, is_known, numbered, told_apart
from .._core.rows import refuse_hidden
from .._core.spec import answer, of_base
from .._core.types import Array, Jobs, Rows, Seed
from .._graph.walks import visits
from ._base import Supervisory, Wrapper
from ._neighborhoods import UniformKNN

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from ._base import Partners
    from ._neighborhoods import Neighborhood


_MOST_PAIRS, _DRAWN_POSITIVES = 2e7, 64


class SameClass(Supervisory):
    """Uniform over the other rows of the same class, the p of supervised contrastive learning.

    ::

        p(j|i) = 1[y_j = y_i] / (n_{y_i} - 1),     j != i
        p(j|i) ~ sum_c y_ic y_jc,     j != i                     y a binary indicator of labels, of shape (n, n_labels)
        p(j|i) = that of `unlabelled`                            where i has no label

    A row that has no label in common with another has no positive and takes no part in the average.

    Parameters
    ----------
    n_positives : int, default=None
        Rows of the class to draw for each row, by `random_state`, with repetition and in place of all. None: all, but
        64 where all would make more than 20 million pairs.
    unlabelled : Supervisory, default=None
        A p over the rows of X, such as `UniformKNN()`, for rows whose label is -1, or whose indicators are all zero.
        None: -1 is a class like any other, as it is to scikit-learn's classifiers, and rows of zeros have no positive;
        `ICONClustering` puts its default p here where y holds -1.

    Raises
    ------
    ValueError
        At `conditional`: a 2-D `y` that holds other numbers than 0 and 1.

    References
    ----------
    Khosla et al., "Supervised contrastive learning", NeurIPS 2020, eq. 2.

    Examples
    --------
    >>> from sklearn_icon.supervisory import SameClass, UniformKNN
    >>> SameClass().conditional([[0.0]] * 4, ["a", "b", "a", "a"]).toarray()[0].tolist()
    [0.0, 0.0, 0.5, 0.5]
    >>> partly = SameClass(unlabelled=UniformKNN(n_neighbors=1))
    >>> partly.conditional([[0.0], [1.0], [5.0]], [7, -1, 7]).toarray().tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """

    reads_labels = True
    batch_is_whole = False
    _parameter_constraints = {
        "n_positives": [Interval(Integral, 1, None, closed="left"), None],
        "unlabelled": [Supervisory, None],
    }

    def __init__(self, n_positives: int | None = None, unlabelled: Supervisory | None = None) -> None:
        self.n_positives = n_positives
        self.unlabelled = unlabelled

    @answer
    def needs_y(self) -> str:
        """Labels, all of them or some."""
        return "class labels" if self.unlabelled is None else "class labels, -1 where unknown"

    def validate(self) -> Self:
        """Also check `unlabelled`; see `Spec.validate`."""
        super().validate()
        if self.unlabelled is not None:
            base = self.unlabelled.validate()
            if base.keys != "rows" or base.needs_y or base.mixture:
                raise ValueError(
                    f"unlabelled={base} must be a p between rows of X alone, such as UniformKNN(); a UniformMixture "
                    "goes around SameClass()."
                )
        return self

    @property
    def neighborhood(self) -> Neighborhood | None:
        """That of rows without a label; see `Supervisory.neighborhood`."""
        return None if self.unlabelled is None else self.unlabelled.neighborhood

    @answer
    def pairwise(self) -> bool:
        """As the p of rows without a label; see `Supervisory.pairwise`."""
        return self.unlabelled is not None and self.unlabelled.pairwise

    def reads(self, X: Rows, y: Any = None) -> str:
        """As the p of rows without a label; see `Supervisory.reads`."""
        return "features" if self.unlabelled is None else self.unlabelled.reads(X)

    def like_new(self, y: Any) -> Array | slice:
        """Rows without a label, where these have a p of their own; see `Supervisory.like_new`."""
        return slice(None) if self.unlabelled is None else np.diff(self.labels(y).indptr) == 0

    def complete(self, n_clusters: int) -> None:
        """As the p of rows without a label; see `Supervisory.complete`."""
        if self.unlabelled is not None:
            self.unlabelled.complete(n_clusters)

    def known(self, y: Any) -> Known | None:
        """Of 1-D labels, where some may be unknown; see `Supervisory.known`."""
        refuse_hidden(y, "y")
        if self.unlabelled is None or y is None or sparse.issparse(y) or np.asarray(y).shape[1:] > (1,):
            return None
        return Known.of(column_or_1d(y))

    def beside(self, y: Any, unlabelled: Supervisory) -> Supervisory:
        """See `Supervisory.beside`."""
        partly = SameClass(self.n_positives, unlabelled)
        labels = partly.known(y) if self.reads_labels and self.unlabelled is None else None
        return self if labels is None or labels.codes.min() >= 0 else partly

    def settle(self, X_holds: str) -> None:
        """As the p of rows without a label; see `Supervisory.settle`."""
        if self.unlabelled is not None:
            self.unlabelled.settle(X_holds)

    def check_batch(self) -> None:
        """A batch takes all positives in it; see `Supervisory.check_batch`."""
        if self.get_params(deep=False) != type(self)().get_params(deep=False):
            name = type(self).__name__
            raise ValueError(
                f"supervisory={self} reads more than y, where a batch takes all positives in it; use {name}()."
            )

    def check_batch_y(self, y: Tensor) -> Tensor | None:
        """One label of each row, or an indicator of several; see `Supervisory.check_batch_y`."""
        from ._batch import check_indicator

        return check_indicator(y, type(self).__name__, self.needs_y)

    def of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """By torch; see `Supervisory.of_batch`."""
        from ._batch import normalized_rows, same_label

        return normalized_rows(self, same_label(y, rows, like), rows, like)

    def partners_of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> Partners:
        """The others of a row's label, where it has one; see `Supervisory.partners_of_batch`."""
        from ._batch import same_label_partners

        return same_label_partners(self, y, rows, n_keys) if y.ndim == 1 else None

    def labels(self, y: Any) -> sparse.csr_array:
        """The labels of each row as a sparse indicator; rows of unknown label are empty."""
        if sparse.issparse(y) or np.asarray(y).shape[1:] > (1,):
            return _indicator(y)
        y = column_or_1d(y)
        known = np.ones(len(y), dtype=bool) if self.unlabelled is None else is_known(y)
        classes, codes = told_apart(y[known], "or -1 for unlabelled rows under SameClass(unlabelled=UniformKNN())")
        indptr = np.concatenate([[0], np.cumsum(known)])
        return sparse.csr_array((np.ones(len(codes)), codes, indptr), shape=(len(y), len(classes)))

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        labels = self.labels(self._require_y(X, y))
        n_drawn = self.n_positives
        if n_drawn is None and np.square(labels.sum(axis=0)).sum() > _MOST_PAIRS:
            n_drawn = _DRAWN_POSITIVES
        if n_drawn is not None:
            weights = _drawn_by_labels(labels, n_drawn, check_random_state(random_state))
        else:
            weights = labels @ labels.T
        unknown, recall = np.diff(labels.indptr) == 0, 1.0
        if self.unlabelled is not None and unknown.any():
            base = self.unlabelled.conditional(X, n_jobs=n_jobs, random_state=random_state)
            weights, recall = weights + sparse.diags_array(unknown.astype(float)) @ base.weights, base.recall
        return Conditional.from_weights(weights, exclude_self=True, recall=recall)


def _indicator(y: Any) -> sparse.csr_array:
    """A binary indicator of labels as a sparse matrix without explicit zeros."""
    y = check_array(y, accept_sparse="csr", input_name="y")
    values = y.data if sparse.issparse(y) else y
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"y of shape {y.shape} must hold 0 and 1, whether a row has a label, but holds "
            f"{values[~np.isin(values, (0, 1))][0]}; pass class labels as 1-D."
        )
    labels = sparse.csr_array(y, dtype=np.float64)
    labels.eliminate_zeros()
    return labels


def _drawn_by_labels(labels: sparse.csr_array, n_drawn: int, rng: np.random.RandomState) -> sparse.csr_array:
    """Weights on other rows that share labels, drawn with repetition, as often as they share some.

    A label of the row is drawn by how many other rows have it, then one of these evenly.
    """
    n, indptr = labels.shape[0], labels.indptr
    numbered = sparse.csr_array((np.arange(labels.nnz), labels.indices, indptr), labels.shape).tocsc()
    first = numbered.indptr
    rank = np.empty(labels.nnz, dtype=np.intp)  # of a row among those of its label
    rank[numbered.data] = np.arange(labels.nnz) - np.repeat(first[:-1], np.diff(first))
    before = np.concatenate([[0], np.cumsum(np.diff(first)[labels.indices] - 1)])
    low, high = before[indptr[:-1]], before[indptr[1:]]
    rows = np.repeat(np.flatnonzero(high > low), n_drawn)
    point = low[rows] + (rng.uniform(size=len(rows)) * (high - low)[rows]).astype(np.intp)
    entry = np.searchsorted(before, point, side="right") - 1
    place = point - before[entry]
    place += place >= rank[entry]  # a row is no positive of its own
    columns = numbered.indices[first[labels.indices[entry]] + place]
    return sparse.coo_array((np.ones(len(rows)), (rows, columns)), (n, n)).tocsr()


class PositivePairs(SameClass):
    """Uniform over the other views of the same item, the p of SimCLR.

    ::

        p(j|i) = 1[g_j = g_i] / (n_{g_i} - 1),     j != i, g the item that a row is a view of

    Without `augment` the rows are the views, and `y` holds the item of each. With `augment` every row is an item, whose
    views are drawn anew each time; `y` is not read, and `conditional` is p over all their views, draw after draw.

    Parameters
    ----------
    augment : callable (tensor of shape (batch, ...)) -> tensor of shape (batch, ...), default=None
        Draws one view of each item of a batch, with torch's own random functions, which are seeded around it.
        Trailing shapes may be any, but one for all views. A function of a module that can be imported, so that fitted
        estimators pickle.
    n_views : int, default=2
        Views of each item, so many calls of `augment`.

    Raises
    ------
    ValueError
        `n_views` without `augment`; at `draw`, an `augment` that changes the number of items, the views' shape, or
        returns what is no tensor or not finite.

    References
    ----------
    Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, eq. 1.

    Examples
    --------
    >>> from sklearn_icon.supervisory import PositivePairs
    >>> PositivePairs().conditional([[0.0]] * 4, [0, 0, 1, 1]).toarray()[0].tolist()
    [0.0, 1.0, 0.0, 0.0]
    """

    reads_labels = False
    _parameter_constraints: dict = {
        "augment": [callable, None],
        "n_views": [Interval(Integral, 2, None, closed="left")],
    }

    def __init__(self, augment: Callable[[Tensor], Tensor] | None = None, n_views: int = 2) -> None:
        super().__init__()
        self.augment: Any = augment
        self.n_views = n_views

    def validate(self) -> Self:
        """Also refuse a number of views that nothing draws; see `Spec.validate`."""
        super().validate()
        if self.augment is None and self.n_views != 2:
            raise ValueError(f"n_views={self.n_views} counts the calls of augment, but augment is None; pass it.")
        return self

    @answer
    def needs_y(self) -> str:
        """Group ids, where no views are drawn."""
        return "" if self.augment is not None else "group ids (which rows are views of one item)"

    @answer
    def keys(self) -> str:
        """Views, where there is an `augment`."""
        return "rows" if self.augment is None else "views"

    @property
    def views(self) -> PositivePairs | None:
        """The spec itself, where there is an `augment`."""
        return None if self.augment is None else self

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p, over `n_views` n rows where views are drawn; see `Supervisory.conditional`."""
        if self.augment is None:
            return super().conditional(X, y)
        return view_conditional(_num_samples(X), self.n_views)

    def draw(self, batch: Tensor) -> Tensor:
        """Views of the items of a batch, draw after draw: view v of item i is row v * len(batch) + i.

        Parameters
        ----------
        batch : tensor of shape (n, ...)
            Left as it is.

        Returns
        -------
        tensor of shape (n_views * n, ...)
            In the precision of the batch.
        """
        import torch

        with torch.no_grad():
            views = [self.augment(batch.clone()) for _ in range(self.n_views)]
        for view in views:
            if not isinstance(view, torch.Tensor):
                raise ValueError(f"augment must return a torch tensor, got {type(view).__name__}.")
            if view.shape[:1] != batch.shape[:1] or view.shape != views[0].shape:
                raise ValueError(
                    f"augment must return one view of each of {len(batch)} items, all of one shape, got shape "
                    f"{tuple(view.shape)} for a batch of shape {tuple(batch.shape)}."
                )
        stacked = torch.cat(views).to(batch.dtype)
        if not torch.isfinite(stacked).all():
            raise ValueError("augment returned views that hold NaN or infinity.")
        return stacked


class DataLabel(Supervisory):
    """Each row points at the prototype of its class, the p of cross-entropy.

    ::

        p(c|i) = 1[i belongs to class c],     keys are the sorted classes

    A 2-D `y` is read as rows of class probabilities.

    Examples
    --------
    >>> from sklearn_icon.supervisory import DataLabel
    >>> DataLabel().conditional([[0.0], [1.0]], ["b", "a"]).toarray()
    array([[0., 1.],
           [1., 0.]])
    """

    keys = "classes"
    needs_y = "class labels"
    reads_labels = True
    reads_probabilities = True
    batch_is_whole = False
    excludes_self = False

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        y = np.asarray(self._require_y(X, y))
        if y.ndim == 2:
            return Conditional.from_weights(y)
        classes, codes = numbered(y)
        indptr = np.arange(len(codes) + 1)
        return Conditional(sparse.csr_array((np.ones(len(codes)), codes, indptr), shape=(len(codes), len(classes))))

    def of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """By torch; see `Supervisory.of_batch`."""
        import torch

        from ._batch import check_codes, matrix_rows, normalized_rows

        if y.ndim != 1:
            return matrix_rows(self, y, rows, n_keys, like)
        check_codes(y, n_keys)
        return normalized_rows(self, y[rows, None] == torch.arange(n_keys, device=like.device), rows, like)

    def partners_of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> Partners:
        """The key of each row's class; see `Supervisory.partners_of_batch`."""
        from ._batch import check_codes, own_partners

        if y.ndim > 1:
            return None
        check_codes(y, n_keys)
        numbers, _, counts = own_partners(rows, like)
        return (numbers, y[rows].long(), counts) if y[rows].min() >= 0 else None


class BalancedCodes(DataLabel):
    """Soft assignments of rows to prototypes, balanced so that all prototypes get as much: the codes of SwAV.

    ::

        p(c|i) = a_i y_ic b_c,     sum_c p(c|i) = 1 and, as n_iter grows, mean_i p(c|i) = 1 / n_prototypes

    by Sinkhorn's algorithm, columns first. A 2-D y holds the assignments, such as exp(scores / 0.05) of scores that
    are cosines with the prototypes, in a loop of one's own those of another view; a 1-D y holds the numbers of
    prototypes, and stays as it is.

    Parameters
    ----------
    n_iter : int, default=3
        How often columns and rows are divided by their sums.

    Raises
    ------
    ValueError
        At `conditional`: assignments that are negative or not finite, or a row of zeros.

    References
    ----------
    Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments", NeurIPS 2020, eq. 3.

    Examples
    --------
    >>> from sklearn_icon.supervisory import BalancedCodes
    >>> BalancedCodes(n_iter=50).conditional([[0.0]] * 2, [[0.9, 0.1], [0.6, 0.4]]).toarray().round(2)
    array([[0.71, 0.29],
           [0.29, 0.71]])
    """

    needs_y = "soft assignments to prototypes"
    batch_is_whole = True
    _parameter_constraints = {"n_iter": [Interval(Integral, 1, None, closed="left")]}

    def __init__(self, n_iter: int = 3) -> None:
        self.n_iter = n_iter

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        y = np.asarray(self._require_y(X, y))
        if y.ndim == 2:
            y = check_array(y, dtype=np.float64, input_name="y", ensure_non_negative=True, copy=True)
            if not y.any(axis=1).all():
                raise ValueError(
                    f"row {int(np.argmin(y.any(axis=1)))} of y is zero: BalancedCodes() reads assignments."
                )
            for _ in range(self.n_iter):
                y /= np.maximum(y.sum(axis=0), np.finfo(y.dtype).tiny)
                y /= y.sum(axis=1, keepdims=True)
        return super().conditional(X, y)

    def of_batch(self, y: Any, rows: slice, n_keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """All rows together, as they are balanced; see `Supervisory.of_batch`."""
        of_batch = DataLabel.of_batch if y.ndim == 1 else Supervisory.of_batch
        return of_batch(self, y, rows, n_keys, like)


class PropagatedLabel(Wrapper):
    """Labels of rows that have one, carried over a graph to rows that have none.

    ::

        p(c|i) = 1[y_i = c]                               where y_i is known
        p(c|i) ~ sqrt(n_c) F_ic / sum_j F_jc              where y_i is -1
        F = (I - alpha S)^-1 Y,     S = D^-1/2 W D^-1/2

    W is the base p made symmetric, D its row sums, Y the known labels, one-hot, n_c of each class: F counts the
    labelled rows that walks meet, which go on with probability alpha. Classes are scaled halfway between their
    fractions of the labels and equal ones, as few labels tell fractions badly. The keys are the sorted classes. A row
    from which no label can be reached takes no part in the average.

    Parameters
    ----------
    base : Supervisory, default=None
        A p over rows that reads no labels. None is `UniformKNN()`.
    alpha : float in (0, 1), default=0.9
        Probability of another step.

    Raises
    ------
    ValueError
        At `conditional`: no row has a label.

    References
    ----------
    Zhou et al., "Learning with local and global consistency", NIPS 2003, eq. 2; the scaling of classes is that of Zhu,
    Ghahramani and Lafferty, ICML 2003, eq. 9.

    Examples
    --------
    >>> from sklearn_icon.supervisory import PropagatedLabel, UniformKNN
    >>> p = PropagatedLabel(UniformKNN(n_neighbors=1))
    >>> p.conditional([[0.0], [1.0], [5.0], [6.0]], [1, -1, -1, 0]).toarray().tolist()
    [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    """

    keys = "classes"
    needs_y = "class labels, -1 where unknown"
    reads_labels = True
    reads_probabilities = False
    allows_unknown = True
    excludes_self = False
    weighs_rows = False
    mixture = 0.0
    views = None
    _parameter_constraints = {
        "base": [Supervisory, None],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(self, base: Supervisory | None = None, alpha: float = 0.9) -> None:
        self.base = base
        self.alpha = alpha

    @property
    def graph(self) -> Supervisory:
        """The base, or what None stands for."""
        return UniformKNN() if self.base is None else self.base

    pairwise, neighborhood, walks = (of_base(name, "graph") for name in ("pairwise", "neighborhood", "walks"))
    like_new, take, complete, settle = (of_base(n, "graph") for n in ("like_new", "take", "complete", "settle"))
    batch_needs, check_batch_y, known = (of_base(name, "graph") for name in ("batch_needs", "check_batch_y", "known"))

    def plain(self) -> Supervisory:
        """The spec itself: its keys are its own; see `Supervisory.plain`."""
        return self

    def reads(self, X: Rows, y: Any = None) -> str:
        """As the graph, which reads no y; see `Supervisory.reads`."""
        return self.graph.reads(X)

    def check_batch(self) -> None:
        """A batch has no graph; see `Supervisory.check_batch`."""
        raise ValueError(
            "supervisory=PropagatedLabel() carries labels over a graph of all rows, of which a batch holds none; give "
            "the fractions that it finds as a 2-D y to DataLabel()."
        )

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        y = column_or_1d(self._require_y(X, y))
        known = is_known(y)
        if not known.any():
            raise ValueError("y holds no label but -1, unknown; PropagatedLabel() needs some rows of known class.")
        base = self.graph
        if base.keys != "rows" or base.needs_y:
            raise ValueError(f"PropagatedLabel() carries labels over p between rows of X, which {base} is not.")
        p = base.conditional(X, n_jobs=n_jobs, random_state=random_state)
        classes, codes = np.unique(y[known], return_inverse=True)
        labels = np.zeros((len(y), len(classes)))
        labels[np.flatnonzero(known), codes] = 1
        found = visits(p.weights + p.weights.T, labels, self.alpha)
        labels[~known] = (found * (np.sqrt(labels.sum(axis=0)) / found.sum(axis=0)))[~known]
        return replace(Conditional.from_weights(labels), recall=p.recall)
