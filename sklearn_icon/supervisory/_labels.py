"""Specs of p that read labels or group ids."""

from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval

from .._conditional import Conditional
from .._labels import is_known
from .._walks import visits
from ._base import Supervisory, Wrapper
from ._neighborhoods import UniformKNN

_MOST_PAIRS, _DRAWN_POSITIVES = 2e7, 64


class SameClass(Supervisory):
    """Uniform over the other rows of the same class, the p of supervised contrastive learning.

    ::

        p(j|i) = 1[y_j = y_i] / (n_{y_i} - 1),     j != i

    A row alone in its class has no positive and takes no part in the average.

    Parameters
    ----------
    n_positives : int, default=None
        Rows of the class to draw for each row, by `random_state`, with repetition and in place of all. None: all, but
        64 where all would make more than 20 million pairs.

    References
    ----------
    Khosla et al., "Supervised contrastive learning", NeurIPS 2020, eq. 2.

    Examples
    --------
    >>> from sklearn_icon.supervisory import SameClass
    >>> SameClass().conditional([[0.0]] * 4, ["a", "b", "a", "a"]).toarray()[0].tolist()
    [0.0, 0.0, 0.5, 0.5]
    """

    needs_y = "class labels"
    _parameter_constraints = {"n_positives": [Interval(Integral, 1, None, closed="left"), None]}

    def __init__(self, n_positives=None):
        self.n_positives = n_positives

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        codes, sizes = np.unique(column_or_1d(self._require_y(y)), return_inverse=True, return_counts=True)[1:]
        n_drawn = self.n_positives
        if n_drawn is None and np.square(sizes, dtype=float).sum() > _MOST_PAIRS:
            n_drawn = _DRAWN_POSITIVES
        if n_drawn is not None:
            return _drawn_from_classes(codes, sizes, n_drawn, check_random_state(random_state))
        groups = sparse.csr_array((np.ones(len(codes)), (np.arange(len(codes)), codes)))
        return Conditional.from_weights(groups @ groups.T, exclude_self=True)


def _drawn_from_classes(codes, sizes, n_drawn, rng):
    """Weights on other rows of each row's class, drawn evenly with repetition."""
    n = len(codes)
    by_class, first = np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes
    rank = np.empty(n, dtype=np.intp)
    rank[by_class] = np.arange(n) - first[codes[by_class]]
    others = sizes[codes] - 1
    drawn = (rng.uniform(size=(n, n_drawn)) * others[:, None]).astype(np.intp)
    drawn += drawn >= rank[:, None]  # a row is no positive of its own
    columns = by_class[np.minimum(first[codes][:, None] + drawn, n - 1)]
    weights = np.repeat((others > 0).astype(float), n_drawn)
    rows = np.repeat(np.arange(n), n_drawn)
    return Conditional.from_weights(sparse.coo_array((weights, (rows, columns.ravel())), (n, n)), exclude_self=True)


class PositivePairs(SameClass):
    """Uniform over the other views of the same item, the p of SimCLR.

    ::

        p(j|i) = 1[g_j = g_i] / (n_{g_i} - 1),     j != i, g the item that a row is a view of

    `y` holds the item of each row.

    References
    ----------
    Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, eq. 1.

    Examples
    --------
    >>> from sklearn_icon.supervisory import PositivePairs
    >>> PositivePairs().conditional([[0.0]] * 4, [0, 0, 1, 1]).toarray()[0].tolist()
    [0.0, 1.0, 0.0, 0.0]
    """

    needs_y = "group ids (which rows are views of one item)"
    _parameter_constraints: dict = {}

    def __init__(self):
        super().__init__()


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

    needs_y = "class labels"
    keys_differ = True

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        y = np.asarray(self._require_y(y))
        if y.ndim == 2:
            return Conditional.from_weights(y)
        classes, codes = np.unique(y, return_inverse=True)
        indptr = np.arange(len(codes) + 1)
        return Conditional(sparse.csr_array((np.ones(len(codes)), codes, indptr), shape=(len(codes), len(classes))))


class PropagatedLabel(Wrapper):
    """Labels of rows that have one, carried over a graph to rows that have none.

    ::

        p(c|i) = 1[y_i = c]                               where y_i is known
        p(c|i) ~ sqrt(n_c) F_ic / sum_j F_jc              where y_i is -1
        F = (I - alpha S)^-1 Y,     S = D^-1/2 W D^-1/2

    W is the base p made symmetric, D its row sums, Y the known labels, one-hot, n_c of each class: F counts the
    labelled rows that walks meet, which go on with probability alpha. Classes are scaled halfway between their shares
    among the labels and equal ones, as few labels tell shares badly. The keys are the sorted classes. A row from which
    no label can be reached takes no part in the average.

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

    needs_y = "class labels, -1 where unknown"
    keys_differ = True
    _parameter_constraints = {
        "base": [Supervisory, None],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(self, base=None, alpha=0.9):
        self.base = base
        self.alpha = alpha

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        y = column_or_1d(self._require_y(y))
        known = is_known(y)
        if not known.any():
            raise ValueError("y holds no label but -1, unknown; PropagatedLabel() needs some rows of known class.")
        base = UniformKNN() if self.base is None else self.base
        if base.keys_differ or base.needs_y:
            raise ValueError(f"PropagatedLabel() carries labels over p between rows of X, which {base} is not.")
        p = base.conditional(X, n_jobs=n_jobs, random_state=random_state)
        classes, codes = np.unique(y[known], return_inverse=True)
        labels = np.zeros((len(y), len(classes)))
        labels[np.flatnonzero(known), codes] = 1
        found = visits(p.weights + p.weights.T, labels, self.alpha)
        labels[~known] = (found * (np.sqrt(labels.sum(axis=0)) / found.sum(axis=0)))[~known]
        return replace(Conditional.from_weights(labels), recall=p.recall)
