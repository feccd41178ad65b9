"""Supervisory distributions p(j|i): what the data, the labels or a graph say about who belongs with whom.

A spec holds parameters. `spec.conditional(X, y)` returns the distribution as a `Conditional`: sparse rows
plus one uniform mass. Formulas are the columns of I-Con's table 1 (Alshammari et al., ICLR 2025).
"""

import warnings
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions

from ._affinity import gaussian_log_affinity, normalize_log_rows, perplexity_rows, student_t_log_affinity
from ._conditional import Conditional
from ._labels import is_known
from ._neighbors import nearest_neighbors
from ._spec import Spec
from ._walks import visits

__all__ = [
    "Counts",
    "CrossModalPairs",
    "DataLabel",
    "Gaussian",
    "Graph",
    "Identity",
    "PositivePairs",
    "PropagatedLabel",
    "RandomWalk",
    "SameClass",
    "StudentT",
    "UniformKNN",
    "UniformMixture",
]

_DEFAULT_PERPLEXITY = 30.0
_DEFAULT_N_NEIGHBORS = 15
_FULL_ROWS = 2000
_MOST_PAIRS, _DRAWN_POSITIVES = 2e7, 64


class Supervisory(Spec):
    """A column of the table: how p(j|i) follows from the data."""

    needs_y = ""
    """What `y` must hold, in words; empty where it is not read."""
    keys_differ = False
    """Whether the keys are something else than the rows."""

    @abstractmethod
    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like, default=None
            What the spec reads beside X: labels, group ids, companion features, counts.
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

    def _require_y(self, y):
        if y is None:
            raise ValueError(
                f"{type(self).__name__}() requires y to be passed, but the target y is None: it reads {self.needs_y}."
            )
        return y


def _shrink(parameter, default, fitting, n):
    """Take a default that n rows cannot carry down to what they can, with one warning."""
    warnings.warn(
        f"the default {parameter}={default:g} is too large for {n} samples; using {parameter}={fitting:g}. "
        f"Set {parameter} explicitly to silence this.",
        stacklevel=2,
    )
    return fitting


def _kernel_rows(distances, perplexity, sigma, log_affinity):
    """Rows of a kernel over distances, of fixed width `sigma` or of given perplexity."""
    sq_distances = np.square(distances, dtype=np.float64)
    if sigma is None:
        return perplexity_rows(sq_distances, perplexity, log_affinity)
    return normalize_log_rows(log_affinity(sq_distances, float(sigma) ** 2))


class _Neighborhood(Supervisory):
    """Shared by the specs that measure distances: p lives on each row's nearest neighbours."""

    _parameter_constraints = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "metric": [str, callable],
        "metric_params": [dict, None],
        "source": [StrOptions({"X", "y"})],
    }

    @property
    def needs_y(self):
        """Companion features, where `source='y'`."""
        return "companion features (2-D)" if self.source == "y" else ""

    def _features(self, X, y):
        if self.source == "X":
            return X if hasattr(X, "shape") else np.asarray(X)
        features = np.asarray(self._require_y(y), dtype=np.float64)
        return check_array(features.reshape(len(features), -1), input_name="y")

    def _neighbors(self, features, n_neighbors, n_jobs, random_state):
        return nearest_neighbors(
            features,
            n_neighbors,
            metric=self.metric,
            metric_params=self.metric_params,
            n_jobs=n_jobs,
            random_state=random_state,
        )

    @staticmethod
    def _on_neighbors(neighbors, rows, n):
        """Sparse (n, n) weights from per-row weights over the neighbours."""
        indptr = np.arange(0, rows.size + 1, rows.shape[1])
        weights = sparse.csr_array((rows.ravel(), neighbors.indices.ravel(), indptr), shape=(n, n))
        return Conditional.from_weights(weights, exclude_self=True, recall=neighbors.recall)


class _DistanceKernel(_Neighborhood):
    """A kernel of the distance to the neighbours, its width fixed or set by a perplexity."""

    _parameter_constraints = _Neighborhood._parameter_constraints | {
        "perplexity": [Interval(Real, 1, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither"), None],
    }

    @abstractmethod
    def _log_affinity(self):
        """The function (sq_distances, sq_sigma) -> log-kernel."""

    def _support(self, n):
        """(perplexity, n_neighbors) for n rows: what fits, or an error that names the limit."""
        limit = n - 1 if self.n_neighbors is None else self.n_neighbors
        perplexity = self.perplexity
        if self.sigma is not None:
            return None, limit
        if perplexity > limit and type(perplexity) is float and perplexity == _DEFAULT_PERPLEXITY:
            perplexity = _shrink("perplexity", perplexity, max(1.0, limit / 3), n)
        if perplexity > limit:
            if self.n_neighbors is not None and self.n_neighbors < n - 1:
                raise ValueError(
                    f"perplexity={perplexity:g} needs at least that many neighbors, but n_neighbors="
                    f"{self.n_neighbors}; lower perplexity or raise n_neighbors."
                )
            raise ValueError(
                f"perplexity={perplexity:g} needs at least {int(np.ceil(perplexity)) + 1} samples, got {n}; "
                f"set perplexity to at most {n - 1}."
            )
        if self.n_neighbors is not None or n <= _FULL_ROWS:
            return perplexity, limit
        return perplexity, min(limit, int(3 * perplexity) + 1)

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p on the nearest neighbours of each row; see `Supervisory.conditional`."""
        features = self._features(X, y)
        n = features.shape[0]
        perplexity, n_neighbors = self._support(n)
        neighbors = self._neighbors(features, n_neighbors, n_jobs, random_state)
        rows = _kernel_rows(neighbors.distances, perplexity, self.sigma, self._log_affinity())
        return self._on_neighbors(neighbors, rows, n)

    def rows_at(self, distances):
        """Rows p(.|new) of new rows over given neighbour distances, each row on its own."""
        limit = distances.shape[1]
        perplexity = self.perplexity if self.perplexity <= limit else max(1.0, limit / 3)
        return _kernel_rows(distances, perplexity, self.sigma, self._log_affinity())


class Gaussian(_DistanceKernel):
    r"""Gaussian affinities, the p of SNE and t-SNE.

    ::

        p(j|i) = exp(-d_ij^2 / 2 s_i^2) / sum_k exp(-d_ik^2 / 2 s_i^2),     k != i

    Parameters
    ----------
    perplexity : float, default=30.0
        The effective number of neighbours, exp(entropy of the row), that sets each s_i. Read where `sigma` is
        None. The default shrinks, with a warning, where there are too few rows for it; any other value raises.
    sigma : float, default=None
        One fixed width s for all rows, in units of the distance.
    n_neighbors : int, default=None
        How many nearest neighbours carry the row. None: all other rows where `sigma` is given or there are no more
        than 2,000; else 3 * perplexity + 1.
    metric : str or callable, default="euclidean"
        A metric of scikit-learn and pynndescent, or "precomputed".
    source : {"X", "y"}, default="X"
        "y" measures the distances on companion features given as `y`.
    metric_params : dict, default=None
        Further arguments of the metric.

    Raises
    ------
    ValueError
        At `conditional`: a perplexity that the rows or `n_neighbors` cannot carry.

    References
    ----------
    Hinton and Roweis, "Stochastic neighbor embedding", NIPS 2002, eq. 1.

    Examples
    --------
    >>> from sklearn_icon.supervisory import Gaussian
    >>> p = Gaussian(perplexity=2).conditional([[0.0], [1.0], [2.0], [10.0]])
    >>> p.toarray().sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        perplexity=_DEFAULT_PERPLEXITY,
        sigma=None,
        n_neighbors=None,
        metric="euclidean",
        source="X",
        metric_params=None,
    ):
        self.perplexity = perplexity
        self.sigma = sigma
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.source = source
        self.metric_params = metric_params

    def _log_affinity(self):
        return gaussian_log_affinity


class StudentT(_DistanceKernel):
    r"""Student-t affinities, the p of the table's dual t-SNE.

    ::

        p(j|i) ~ (1 + d_ij^2 / (nu s_i^2)) ** (-(nu + 1) / 2),     j != i

    A heavy tail bounds the perplexity from below: a row whose target is out of reach takes the nearest it can.

    Parameters
    ----------
    df : float, default=1.0
        Degrees of freedom nu. One is the Cauchy kernel; the kernel tends to the Gaussian as nu grows.
    perplexity, sigma, n_neighbors, metric, source, metric_params
        As in `Gaussian`.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, table 1.

    Examples
    --------
    >>> from sklearn_icon.supervisory import StudentT
    >>> StudentT(df=2.0, sigma=1.0).conditional([[0.0], [1.0], [3.0]]).shape
    (3, 3)
    """

    _parameter_constraints = _DistanceKernel._parameter_constraints | {
        "df": [Interval(Real, 0, None, closed="neither")]
    }

    def __init__(
        self,
        df=1.0,
        perplexity=_DEFAULT_PERPLEXITY,
        sigma=None,
        n_neighbors=None,
        metric="euclidean",
        source="X",
        metric_params=None,
    ):
        self.df = df
        self.perplexity = perplexity
        self.sigma = sigma
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.source = source
        self.metric_params = metric_params

    def _log_affinity(self):
        return partial(student_t_log_affinity, df=float(self.df))


class UniformKNN(_Neighborhood):
    """Uniform over the k nearest neighbours.

    ::

        p(j|i) = 1 / k   where j is one of the k nearest rows to i, else 0

    Parameters
    ----------
    n_neighbors : int, default=15
        k. The default shrinks, with a warning, where there are no 16 rows; any other value raises.
    metric, source, metric_params
        As in `Gaussian`.

    Raises
    ------
    ValueError
        At `conditional`: n_neighbors is not below the number of rows.

    Examples
    --------
    >>> from sklearn_icon.supervisory import UniformKNN
    >>> UniformKNN(n_neighbors=1).conditional([[0.0], [1.0], [3.0]]).toarray()
    array([[0., 1., 0.],
           [1., 0., 0.],
           [0., 1., 0.]])
    """

    _parameter_constraints = _Neighborhood._parameter_constraints | {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")]
    }

    def __init__(self, n_neighbors=_DEFAULT_N_NEIGHBORS, metric="euclidean", source="X", metric_params=None):
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.source = source
        self.metric_params = metric_params

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        features = self._features(X, y)
        n_neighbors = self.n_neighbors
        if n_neighbors == _DEFAULT_N_NEIGHBORS >= features.shape[0] > 1:
            n_neighbors = _shrink("n_neighbors", n_neighbors, features.shape[0] - 1, features.shape[0])
        neighbors = self._neighbors(features, n_neighbors, n_jobs, random_state)
        rows = np.ones(neighbors.indices.shape)
        return self._on_neighbors(neighbors, rows, features.shape[0])

    def rows_at(self, distances):
        """Rows p(.|new) of new rows over given neighbour distances."""
        return np.full(distances.shape, 1 / distances.shape[1])


class Identity(Supervisory):
    """Each row is its own only neighbour, the p of PCA.

    ::

        p(j|i) = 1[i = j],     self included, also in q

    Examples
    --------
    >>> from sklearn_icon.supervisory import Identity
    >>> Identity().conditional([[0.0], [1.0]]).toarray()
    array([[1., 0.],
           [0., 1.]])
    """

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        return Conditional(sparse.eye_array(_n_rows(X), format="csr"))


class CrossModalPairs(Supervisory):
    """Row i of one modality belongs to row i of the other, the p of CLIP.

    ::

        p(j|i) = 1[j is i's partner in the other modality],     keys are the other modality's rows

    References
    ----------
    Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021.

    Examples
    --------
    >>> from sklearn_icon.supervisory import CrossModalPairs
    >>> CrossModalPairs().conditional([[0.0], [1.0]], [[5.0], [6.0]]).shape
    (2, 2)
    """

    needs_y = "the other modality"
    keys_differ = True

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        n_keys = _n_rows(self._require_y(y))
        if n_keys != _n_rows(X):
            raise ValueError(f"CrossModalPairs() pairs rows one to one, but X has {_n_rows(X)} rows and y {n_keys}.")
        return Conditional(sparse.eye_array(n_keys, format="csr"))


class Graph(Supervisory):
    """A given weighted graph.

    ::

        p(j|i) = w_ij / sum_k w_ik

    The square, non-negative matrix of weights is `y` where one is given, else `X`.

    Raises
    ------
    ValueError
        At `conditional`: the matrix is not square or has negative weights.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from sklearn_icon.supervisory import Graph
    >>> Graph().conditional(csr_array([[0, 3, 1], [1, 0, 0], [1, 0, 0]])).toarray()
    array([[0.  , 0.75, 0.25],
           [1.  , 0.  , 0.  ],
           [1.  , 0.  , 0.  ]])
    """

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        weights = check_array(X if y is None else y, accept_sparse="csr", ensure_non_negative=True, input_name="graph")
        if weights.shape[0] != weights.shape[1]:
            raise ValueError(
                f"Graph() needs a square matrix of weights, got shape {weights.shape}; pass the graph as X or as y."
            )
        return Conditional.from_weights(weights, exclude_self=True)


def _n_rows(X):
    return X.shape[0] if hasattr(X, "shape") else len(X)


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


class Counts(Supervisory):
    """Counts of a token given a context, the p of masked and next-token prediction.

    ::

        p(t|i) = n_it / sum_u n_iu,     keys are the tokens

    `y` is the context x token count matrix, dense or sparse.

    Examples
    --------
    >>> from sklearn_icon.supervisory import Counts
    >>> Counts().conditional([[0.0]], [[3, 1]]).toarray()
    array([[0.75, 0.25]])
    """

    needs_y = "a context x token count matrix"
    keys_differ = True

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        counts = check_array(self._require_y(y), accept_sparse="csr", ensure_non_negative=True, input_name="y")
        return Conditional.from_weights(counts)


class _Wrapper(Supervisory):
    """A spec made from another one."""

    _parameter_constraints = {"base": [Supervisory]}

    @property
    def needs_y(self):
        """What the base reads."""
        return self.base.needs_y

    @property
    def keys_differ(self):
        """As the base."""
        return self.base.keys_differ


class UniformMixture(_Wrapper):
    """Debiasing: a share of every row spread evenly over its keys.

    ::

        p~(j|i) = (1 - alpha) p(j|i) + alpha / N,     N the number of keys of a row

    On `DataLabel` this is label smoothing.

    Parameters
    ----------
    base : Supervisory
        The spec of p.
    alpha : float in [0, 1]
        The uniform share.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, section 3.3.

    Examples
    --------
    >>> from sklearn_icon.supervisory import DataLabel, UniformMixture
    >>> UniformMixture(DataLabel(), 0.1).conditional([[0.0], [1.0]], [0, 1]).toarray()
    array([[0.95, 0.05],
           [0.05, 0.95]])
    """

    _parameter_constraints = _Wrapper._parameter_constraints | {"alpha": [Interval(Real, 0, 1, closed="both")]}

    def __init__(self, base, alpha):
        self.base = base
        self.alpha = alpha

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        return self.base.conditional(X, y, n_jobs=n_jobs, random_state=random_state).mix(self.alpha)


class RandomWalk(_Wrapper):
    """Neighbour propagation: who is reached by short walks along p.

    ::

        P~ ~ P + P^2 + ... + P^n_steps     (weighted), or
        P~ uniform over all rows reached within n_steps     (binary),

    rows normalised after the removal of the self-mass where p excludes it.

    Parameters
    ----------
    base : Supervisory
        The spec of p; its keys are the rows.
    n_steps : int
        The longest walk. One step is the base itself.
    binary : bool, default=False
        Whether every row reached counts the same.

    References
    ----------
    Alshammari et al., "I-Con", ICLR 2025, section 3.3 (neighbor propagation).

    Examples
    --------
    >>> from sklearn_icon.supervisory import RandomWalk, UniformKNN
    >>> p = RandomWalk(UniformKNN(n_neighbors=1), n_steps=2)
    >>> p.conditional([[0.0], [1.0], [3.0]]).toarray()[2].tolist()
    [0.5, 0.5, 0.0]
    """

    _parameter_constraints = _Wrapper._parameter_constraints | {
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "binary": ["boolean"],
    }

    def __init__(self, base, n_steps, binary=False):
        self.base = base
        self.n_steps = n_steps
        self.binary = binary

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p; see `Supervisory.conditional`."""
        p = self.base.conditional(X, y, n_jobs=n_jobs, random_state=random_state)
        if self.keys_differ:
            raise ValueError(f"RandomWalk() needs keys that are rows, but {type(self.base).__name__}() has other keys.")
        power = total = p.weights
        for _ in range(self.n_steps - 1):
            power = power @ p.weights
            total = total + power
        if self.binary:
            total = total.sign()
        return Conditional.from_weights(total, uniform=p.uniform, exclude_self=p.exclude_self, recall=p.recall)


class PropagatedLabel(_Wrapper):
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


NAMES = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "knn": UniformKNN,
    "identity": Identity,
    "graph": Graph,
    "same_class": SameClass,
    "positive_pairs": PositivePairs,
    "cross_modal": CrossModalPairs,
    "data_label": DataLabel,
    "propagated_label": PropagatedLabel,
    "counts": Counts,
}
