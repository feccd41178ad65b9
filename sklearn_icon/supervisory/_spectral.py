"""`Spectral`: p measured on the leading eigenvectors of a graph."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.manifold import spectral_embedding
from sklearn.metrics.pairwise import kernel_metrics, pairwise_kernels
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if

from .._core.quiet import quiet
from .._core.rows import with_int32_indices
from .._core.spec import answer, of_base
from .._core.types import Array, Jobs, Metric, Rows, Seed
from .._graph.neighbors import nearest_neighbors
from ._base import Wrapper, shrink
from ._given import GRAPH_OF_FEATURES, without_negatives
from ._neighborhoods import UniformKNN

if TYPE_CHECKING:
    from typing import Self

    from .._core.conditional import Conditional
    from ._base import Supervisory

_DEFAULT_N_NEIGHBORS = 10
_GRAPHS = ("nearest_neighbors", "precomputed", "precomputed_nearest_neighbors")
_SYMMETRIC = 1e-10  # the largest asymmetry of a graph, as a fraction of its largest weight


class Spectral(Wrapper):
    """p of another spec, measured on the leading eigenvectors of a graph, as in spectral clustering.

    ::

        p(j|i) = p_base(j|i) between the rows of U = D^(-1/2) [u_1 ... u_m],
        u_1 ... u_m the leading eigenvectors of D^(-1/2) W D^(-1/2),     D = diag(sum_j w_ij)

    The graph W is that of the nearest neighbours of the rows of X, A + A^T over two, a kernel of all pairs of rows, or
    X itself. A row's edge to itself does not count.

    Parameters
    ----------
    base : Supervisory
        A p that measures distances on X, such as `Gaussian(sigma=0)`, or a wrapper of one.
    n_components : int, default=None
        How many eigenvectors m, the constant one included. None: `n_clusters` of `ICONClustering`; elsewhere it raises.
    affinity : {"auto", "nearest_neighbors", "precomputed", "precomputed_nearest_neighbors"}, the name of a kernel \
            such as "rbf", or callable, default="auto"
        "nearest_neighbors": X holds rows of features. "precomputed": X is a symmetric graph of non-negative weights,
        dense or sparse; "precomputed_nearest_neighbors": distances of neighbours, the graph that of the nearest ones.
        "auto": a square, symmetric, sparse X is the graph itself, anything else rows of features of which neighbours
        are sought; cross-validation, which takes rows and columns of a graph alike, has to be told "precomputed". A
        kernel of `sklearn.metrics.pairwise`, or a function of two rows, is computed of all pairs.
    n_neighbors : int, default=10
        Neighbours of a row in the graph, the row itself included. The default shrinks, with a warning, where there are
        fewer rows.
    gamma : float, default=1.0
        Of a kernel by name that has one: "rbf" is `exp(-gamma |x - y|^2)`.
    eigen_solver : {"arpack", "lobpcg", "amg"}, default=None
        How `sklearn.manifold.spectral_embedding` finds the eigenvectors; None is "arpack", and all of them where rows
        are few.
    eigen_tol : float, default="auto"
        Of the eigenvectors, as there.
    assign_labels : {"kmeans", "discretize", "cluster_qr"}, default="kmeans"
        Where clusters under reverse KL and sigma=0, which are those of k-means, begin: at the starts of k-means, or,
        with as many eigenvectors as clusters, at the labels that scikit-learn's rotation of the eigenvectors to
        indicators [1]_ or their pivoted QR factors [2]_ give; from there k-means lowers the loss.
    kernel_params : dict, default=None
        Of a kernel by name or of a callable, such as `{"degree": 2}`.

    Raises
    ------
    ValueError
        At `conditional`: no n_components, or more than there are rows; a graph that is not square or not symmetric, or
        has negative weights. At a fit of clusters: "discretize" or "cluster_qr" with another number of eigenvectors.

    References
    ----------
    Ng, Jordan and Weiss, "On spectral clustering: Analysis and an algorithm", NIPS 2001; von Luxburg, "A tutorial on
    spectral clustering", Statistics and Computing 2007.

    .. [1] Yu and Shi, "Multiclass spectral clustering", ICCV 2003.
    .. [2] Damle, Minden and Ying, "Simple, direct and efficient multi-way spectral clustering", Information and
       Inference 2019.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from sklearn_icon.supervisory import Spectral, UniformKNN
    >>> graph = csr_array([[0, 9, 0, 0], [9, 0, 1, 0], [0, 1, 0, 9], [0, 0, 9, 0]])
    >>> Spectral(UniformKNN(n_neighbors=1), n_components=2).conditional(graph).toarray()
    array([[0., 1., 0., 0.],
           [1., 0., 0., 0.],
           [0., 0., 0., 1.],
           [0., 0., 1., 0.]])
    """

    _parameter_constraints = Wrapper._parameter_constraints | {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "affinity": [StrOptions({"auto", *_GRAPHS, *kernel_metrics()}), callable],
        "n_neighbors": [Interval(Integral, 2, None, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "eigen_solver": [StrOptions({"arpack", "lobpcg", "amg"}), None],
        "eigen_tol": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "assign_labels": [StrOptions({"kmeans", "discretize", "cluster_qr"})],
        "kernel_params": [dict, None],
    }

    def __init__(
        self,
        base: Supervisory,
        n_components: int | None = None,
        affinity: str | Callable = "auto",
        n_neighbors: int = _DEFAULT_N_NEIGHBORS,
        gamma: float = 1.0,
        eigen_solver: str | None = None,
        eigen_tol: float | str = "auto",
        assign_labels: str = "kmeans",
        kernel_params: dict | None = None,
    ) -> None:
        self.base = base
        self.n_components = n_components
        self.affinity = affinity
        self.n_neighbors = n_neighbors
        self.gamma = gamma
        self.eigen_solver = eigen_solver
        self.eigen_tol = eigen_tol
        self.assign_labels = assign_labels
        self.kernel_params = kernel_params

    narrow, compares_all_pairs = map(of_base, ("narrow", "compares_all_pairs"))
    neighborhood = None  # new rows have no eigenvectors

    def validate(self) -> Self:
        """Also check that the base measures X; see `Spec.validate`."""
        super().validate()
        inner = self.base.neighborhood
        if inner is None or inner.pairwise or self.base.needs_y:
            raise ValueError(
                f"base={self.base} must measure distances between rows of X, which eigenvectors take the place of; use "
                "supervisory.Gaussian(sigma=0) or supervisory.UniformKNN(), say."
            )
        return self

    @property
    def metric(self) -> Metric:
        """Between the rows of the eigenvectors: that of the base."""
        inner: Any = self.base.neighborhood
        return inner.metric

    @answer
    def pairwise(self) -> bool:
        """Whether X is the graph, for sure, or distances; see `Supervisory.pairwise`."""
        return self.affinity in ("precomputed", "precomputed_nearest_neighbors")

    def reads(self, X: Rows, y: Any = None) -> str:
        """The graph, distances, or rows of features; see `Supervisory.reads`."""
        if self.affinity == "precomputed_nearest_neighbors":
            return "distances"
        return "graph" if self.reads_graph(X) else "features"

    def complete(self, n_clusters: int) -> None:
        """As many eigenvectors as clusters, where none are given; see `Supervisory.complete`."""
        if self.n_components is None:
            self.set_params(n_components=n_clusters)

    def k_means_start(self, n_clusters: int) -> Callable | None:
        """See `Supervisory.k_means_start`."""
        if self.assign_labels == "kmeans":
            return None
        if self.n_components != n_clusters:
            raise ValueError(
                f"assign_labels={self.assign_labels!r} makes as many clusters as there are eigenvectors, but "
                f"n_components={self.n_components} and n_clusters={n_clusters}; leave n_components out."
            )
        return _by_qr if self.assign_labels == "cluster_qr" else _by_rotation

    def settle(self, X_holds: str) -> None:
        """Take other rows for what X was; see `Supervisory.settle`."""
        if self.affinity == "auto":
            self.set_params(affinity="precomputed" if X_holds == "graph" else "nearest_neighbors")

    def check_batch(self) -> None:
        """A batch has no graph; see `Supervisory.check_batch`."""
        raise ValueError(f"supervisory={self} measures p on eigenvectors of all rows, of which a batch holds a part.")

    def reads_graph(self, X: Rows) -> bool:
        """Whether X is the graph itself."""
        if self.affinity != "auto":
            return self.affinity == "precomputed"
        return sparse.issparse(X) and X.shape[0] == X.shape[1] and _is_symmetric(X)

    def measured_rows(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Array:
        """The rows of the eigenvectors, shape (n_samples, n_components), from what `conditional` reads."""
        graph = self._graph(X, n_jobs, random_state)
        n, n_components = graph.shape[0], self.n_components
        if n_components is None:
            raise ValueError(f"n_components=None in {self} stands for n_clusters of ICONClustering; give it a number.")
        if n_components > n:
            raise ValueError(f"n_components={n_components} in {self} must be at most n_samples={n}.")
        few = self.eigen_solver is None and n <= 5 * n_components  # of so few rows all eigenvectors
        with quiet("Graph is not fully connected"):  # clusters may be its parts
            return spectral_embedding(
                graph,
                n_components=n_components,
                eigen_solver="lobpcg" if few else self.eigen_solver,
                eigen_tol=self.eigen_tol,
                random_state=0 if random_state is None else random_state,
                drop_first=False,
            )

    def _graph(self, X: Rows, n_jobs: Jobs, random_state: Seed) -> sparse.csr_array:
        """W, whose neighbours are the same for any number of threads."""
        X = with_int32_indices(check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32]))
        if self.reads_graph(X):
            return _checked(X)
        if self.affinity not in ("auto", *_GRAPHS):
            options = {} if callable(self.affinity) else {"filter_params": True, "gamma": self.gamma}
            options |= self.kernel_params or {}
            with np.errstate(over="ignore", invalid="ignore"):
                graph = pairwise_kernels(X, metric=self.affinity, n_jobs=n_jobs, **options)
            if not np.isfinite(graph).all():
                raise ValueError(f"the affinity of {self} gives weights that are not finite: scale X, or change gamma.")
            return _checked(graph)
        n, n_neighbors = X.shape[0], self.n_neighbors
        metric = "precomputed" if self.pairwise else "euclidean"
        most, data = UniformKNN(metric=metric)._most_neighbors(X)
        if n_neighbors == _DEFAULT_N_NEIGHBORS > most + 1 > 1:
            n_neighbors = shrink("n_neighbors", n_neighbors, most + 1, data)
        how: dict[str, Any] = {"metric": metric, "n_jobs": n_jobs, "random_state": random_state, "ranked": False}
        others = nearest_neighbors(X, n_neighbors - 1, **how).indices
        indptr = np.arange(0, others.size + 1, n_neighbors - 1)
        graph = sparse.csr_array((np.ones(others.size), others.ravel(), indptr), shape=(n, n))
        return with_int32_indices(sparse.csr_array(0.5 * (graph + graph.T) + sparse.eye_array(n)))

    def conditional(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Conditional:
        """Compute p; see `Supervisory.conditional`."""
        how: dict[str, Any] = {"n_jobs": n_jobs, "random_state": random_state}
        return self.base.conditional(self.measured_rows(X, y, **how), y, **how)

    @available_if(lambda self: self.compares_all_pairs)
    def log_rows_with_self(self, X: Rows, y: Any = None, *, n_jobs: Jobs = None, random_state: Seed = None) -> Array:
        """log p over all rows, the row itself included; see `Gaussian.log_rows_with_self`."""
        return self.base.log_rows_with_self(self.measured_rows(X, y, n_jobs=n_jobs, random_state=random_state), y)


def _by_rotation(rows: Array, n_clusters: int, random_state: Seed = None) -> Array:
    """Means of the rows by label, the eigenvectors rotated to indicators."""
    from sklearn.cluster._spectral import discretize

    return _means(rows, discretize(rows, random_state=random_state))


def _by_qr(rows: Array, n_clusters: int, random_state: Seed = None) -> Array:
    """Means of the rows by label, from QR factors of the eigenvectors with pivots."""
    from sklearn.cluster._spectral import cluster_qr

    return _means(rows, cluster_qr(rows))


def _means(rows: Array, labels: Array) -> Array:
    """Those of as many labels as columns; a label of no row stands where the row is that is farthest from its mean."""
    found = np.unique(labels)
    centers = np.repeat(rows[:1], rows.shape[1], axis=0)
    centers[found] = [rows[labels == label].mean(axis=0) for label in found]
    for empty in np.setdiff1d(np.arange(len(centers)), found):
        centers[empty] = rows[np.square(rows[:, None] - centers).sum(axis=2).min(axis=1).argmax()]
    return centers


def _checked(graph: Rows) -> Rows:
    """The graph, square, symmetric and without negative weights."""
    if graph.shape[0] != graph.shape[1]:
        raise ValueError(f"Spectral() needs a square matrix of weights, got shape {graph.shape}. {GRAPH_OF_FEATURES}")
    graph = without_negatives(graph, "graph", "the weight")
    if not _is_symmetric(graph):
        raise ValueError("Spectral() needs a symmetric graph of weights; make it one by (X + X.T) / 2.")
    return graph


def _is_symmetric(matrix: sparse.csr_array) -> bool:
    return bool(abs(matrix - matrix.T).max() <= _SYMMETRIC * abs(matrix).max())
