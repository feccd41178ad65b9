"""`ICONEmbedding`: maps, t-SNE by default."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .. import encoders, learned, supervisory
from .._core.conditional import warn_rows_without_positives
from .._core.device import working_on
from .._core.group import group, present, together
from .._core.journal import recalled
from .._core.rows import copy_counts, is_itself, mean_of_copies, rows_of, with_copies
from .._core.types import Jobs, Metric, Rows, Seed
from .._graph.recalled import recalled_p
from .._training.initialization import check_start, given_map, initial_map
from .._training.new_rows import FittedRows, held_by
from .base import Drawn, ICon
from .over_ranks import MOST_BY_FIRST
from .progress import counted
from .routes import Case, no_draws, no_grid, route_of

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

_FULL_BATCH_LIMIT = 5000
_EXACT_LIMIT, _EXACT_WITHOUT_LOOPS = 3000, 500  # the second of kernels without compiled loops over all pairs
_SUMMED_LIMIT = 10_000
# As many rows with loops over all pairs: of 4,000 they take four fifths of a grid's time, at 1 % less KL; of 5,000 and
# 6,000 as long as a grid, at the same KL (README of benchmarks).
_TIMES_BY_LOOPS = 4 / 3
_MOST_BY_FIRST, _NUMBERS_BY_FIRST = 30_000, 1e7  # rows of all ranks and their numbers, whose map rank 0 alone finds
_SCORED_NEIGHBORS = 10
_PAIRS_A_NUMBER = 9  # of a step's operations on tiles: maps of up to some 3000 rows take less time in one thread
# Of compiled loops on CUDA, as benchmarks/gpu.py found on an H200. Where a grid could do it: of 30,000 rows loops take
# 0.9 ms a sum and a grid 1.1, of 70,000 4 and 1.1. Where none could: of 100,000 rows loops take 8 ms, 38 for each row's
# own sum, which is 10 s a map.
_FUSED_LIMIT, _FUSED_ALONE_LIMIT = 30_000, 100_000


class ICONEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ICon):
    r"""Maps that keep neighbourhoods: t-SNE by default, SNE, PCA and their relatives by choice of p, q and encoder.

    ::

        minimise over z = f(x):   D( p || q(z) ),   or with a start r   D( p || q(z) ) + init_weight R(z)
        p_ij = (p(j|i) + p(i|j)) / 2n,   q_ij = k(z_i, z_j) / sum_{a != b} k(z_a, z_b)      normalization="joint"
        mean_i D( p(.|i) || q(.|i) ),    q(j|i) = k(z_i, z_j) / sum_{b != i} k(z_i, z_b)    normalization="conditional"
        R = mean_i |z_i - m - s r_i|^2 / (s^2 + h^2),   m = mean_i z_i,   s^2 = mean_i |z_i - m|^2

    Parameters
    ----------
    n_components : int, default=2
        Dimensions of the map.
    supervisory : Supervisory or str, default=None
        The distribution p. None and "gaussian" are `supervisory.Gaussian` with this estimator's `perplexity`,
        `n_neighbors` and `metric`; other short names take those that they have; an instance keeps its own.
    learned : Learned or str, default=None
        The distribution q. None is `learned.StudentT()`, that of t-SNE; of maps of three dimensions
        `learned.StudentT(df=2.0)`, whose tail is as much lighter as there is more room (as in scikit-learn's TSNE).
        Lighter tails keep more neighbours and part clusters less: "student_t" is the first in any number of
        dimensions, for clusters to be found in. Under "counts" its keys are prototypes of the tokens, learned beside
        the map.
    encoder : Encoder or str, default=None
        How rows become coordinates. None is `encoders.Lookup()`: every row has its own. "linear", "mlp" and any
        module map new rows directly, and read items of any shape, such as images.
    divergence : Divergence or str, default="kl"
        D: "kl", "reverse_kl", "jensen_shannon", "total_variation", "squared_hellinger", or a member of a family of
        `sklearn_icon.divergences`. A lookup map first unfolds under KL, as long as the early exaggeration lasts.
    normalization : {"joint", "conditional"}, default="joint"
        Whether all pairs together sum to one, as in t-SNE, or each row, as in SNE. "counts" needs "conditional".
    debias : float in [0, 1), default=0.0
        Uniform mass mixed into p.
    perplexity : float, default=30.0
        Effective number of neighbours of a row. The default shrinks, with one warning, where there are too few rows
        for it; any other value then raises.
    n_neighbors : int, default=None
        Neighbours on which p lives. None: all rows up to 2,000 rows, else 3 * perplexity + 1; 15 for "knn".
    early_exaggeration : float, default=12.0
        Factor on p at first: for 40 iterations, 80 of more than 1,000 rows up to 10,000; then for 40 or 120 it is the
        geometric mean of early and late, and for 40 or 50 rows part at the rate of the beginning. One map of up to
        1,000 rows has 250 iterations of the first and 200 of the last. Factors at most a third of `max_iter`, parting
        a fifth. Of lookup maps over rows.
    late_exaggeration : float, default=1.0
        Factor on p in the iterations after that: above 1, clusters stand further apart. With plain KL, of lookup maps
        over rows.
    learning_rate : float or "auto", default="auto"
        Step size, in the units of scikit-learn's TSNE. "auto": max(n / exaggeration, 50) in each phase of a lookup map,
        that of the beginning still while rows part, an eighth of it under total variation, halved where the loss rises;
        for Adam, 1 for lookup maps from drawn keys alone, 0.01 for encoders and 0.001 for those of views.
        `encoders.Linear` has none: it is solved by L-BFGS, as are lookups under "counts" until contexts are drawn, at
        0.05.
    max_iter : int, default=None
        Iterations at the most: None is 1,000 of a lookup map, which ends before them where it has settled, and 250
        elsewhere, as on the CPU under a kernel from drawn keys alone. Settled is a map whose loss falls by less than
        0.2 % in 50 iterations (times (n / 1800)^0.7: 0.035 % of 150 rows, 2.6 % of 70,000) while no more of a row's
        neighbours come near; beyond 10,000 rows four times as much will do at first, and it goes on in finer steps. Of
        encoders on minibatches each minibatch is one: a pass over the rows takes n_samples / batch_size of them,
        rounded up.
    batch_size : int or "auto", default="auto"
        Rows of an encoder's minibatch, to which as many positives come, where `method` is or stands for "sampled"; or
        items, where p draws views of them. "auto" is 2,048 rows or 256 items.
    n_iter_without_progress : int, default=300
        A phase ends after more iterations than these without a lower loss, checked every 50 iterations; -1 ends it at
        the first check that finds none.
    min_grad_norm : float, default=1e-7
        A phase ends where the gradient's norm falls below this; checked every 50 iterations.
    metric : str or callable, default="euclidean"
        Distance of rows in p; "precomputed" where X holds distances, dense or a sparse neighbour graph.
    metric_params : dict, default=None
        Further arguments of the metric.
    init : {"auto", "pca", "spectral", "random"} or array-like of shape (n_samples, n_components), default="auto"
        Where a lookup map starts: "pca" needs features, "spectral" is the eigenvectors of p's graph. "auto" is "pca"
        where X holds features, "spectral" where distances or a graph, and "random" under "counts". An array is
        taken as it is, unless it is narrower than 1e-4 or wider than any map of as many rows, where it is scaled to
        1e-4; where a start is flat, as all on one line, it gets a little noise across.
    init_weight : float, default=0.0
        How much a lookup map over rows keeps the arrangement of its start: the weight of R, its squared distance from
        the start r, centred and as wide as the map is, by the map's variance. h is the kernel's width. R is 2 - 2 rho
        at a correlation of rho, in any units and of any number of rows. By "pca" 1 orders rows far apart about as
        PaCMAP does, at a hundredth less recall of near ones. Of few rows one map is found, not the best of several;
        new rows are placed by their neighbours alone.
    method : {"auto", "exact", "interpolation", "sampled", "barnes_hut"}, default="auto"
        How the sum over all pairs is computed: exactly; by interpolation on a grid, for lookup maps of one or
        two dimensions; by a tree, for those of three ("barnes_hut", accepted for "auto" in fewer); or from some of the
        keys ("sampled"): of lookup maps from those that p relates to a row, and 1,000 drawn at each step that stand for
        all others; of encoders on minibatches whose rows are each other's keys, which minimise the conditional form.
        "auto" is exact up to 3,000 rows (4,000 by `learned.StudentT()` under KL in the joint form on a CPU, 5,000 of an
        encoder, 10,000 of a map that neither grid nor tree suits). On CUDA with triton, Student-t and Gaussian lookup
        maps are exact up to 30,000 rows, and those of three to eight dimensions up to 100,000, in one compiled pass a
        step. Under "counts" the sum is over all tokens, and "sampled" draws contexts; "auto" does beyond 8 million
        pairs. Views that p draws are always in minibatches, in the conditional form.
    angle : float in [0, 1], default=0.5
        Of a tree, in maps of three dimensions: points count as one at their mean where all lie within this fraction of
        their distance from it; 0 is exact. At 0.5 the gradient of the log-normaliser lies within some 0.5 % of the
        exact one. Steps before the last phase of more than 10,000 rows take 1.6 times as much, the last loss 0.06.
    device : str, default="auto"
        "auto" is CUDA where there is one, else the CPU; "cuda" without CUDA raises.
    random_state : int, RandomState instance or None, default=None
        The same seed, device and number of threads give the same bits on a CPU.
    n_jobs : int, default=None
        Threads; None leaves the libraries' own settings.
    verbose : int, default=0
        1 prints stages, and every 50 iterations with loss and seconds; 2 every 10, 3 each. Where logging of
        "sklearn_icon" is set up for INFO, lines go there.
    warm_start : bool, default=False
        Start a lookup map where the last fit of as many rows ended, without exaggeration.
    checkpoint : str or path-like, default=None
        A file that keeps what the fit has computed, every 10 seconds and at the ends of stages as long as this takes a
        hundredth of the time, and at the end: the same call in another process goes on from it to the same bits on a
        CPU, and from that of a finished fit at once. One of other data, parameters, device or version is refused. Fits
        of a grid search have files of their own beside it.
    max_memory : float, default=None
        Bytes that a fit may add to what the process has, as `estimate_memory` counts them: one that needs more is a
        MemoryError before anything is computed, and what is computed in pieces is in smaller ones. Of dense rows what
        is above it lies in temporary files, whose folder `TMPDIR` sets. None: as many as are free.

    Attributes
    ----------
    embedding_ : ndarray of shape (n_samples, n_components)
        The map, in the precision of X. Equal rows have equal coordinates.
    prototypes_ : ndarray of shape (n_tokens, n_components)
        Under "counts": coordinates of the tokens. Dot products tell them up to a shift, and a linear map of them whose
        inverse maps the contexts.
    kl_divergence_ : float
        D at the end, without what `init_weight` adds; KL unless `divergence` says otherwise. Where p draws views, the
        mean over a pass of them.
    kl_per_sample_ : ndarray of shape (n_samples,)
        Each row's part, scaled so that the mean, by `sample_weight`, is `kl_divergence_`: where it is large, trust the
        map less. Zero where that weight is.
    loss_curve_ : ndarray of shape (n_losses,)
        D without exaggeration, with what `init_weight` adds, as it was measured: of lookup maps every 25 iterations,
        else at each.
    loss_iterations_ : ndarray of int of shape (n_losses,)
        The iterations, from 1, before which it was, or after which by L-BFGS.
    phases_ : list of (str, int, str)
        Name of each phase of the descent, its iterations, and why it ended, as `stop_reason_`.
    n_iter_ : int
        The number of the last iteration, from 0 as in scikit-learn's TSNE: one less than ran, which `phases_` tells.
    stop_reason_ : str
        Why the last phase ended: a lookup map has "settled", as `max_iter` says, or reached "n_iter_without_progress",
        "min_grad_norm" or "max_iter"; L-BFGS has "converged", Adam "completed" its schedule; or it was "interrupted".
    learning_rate_ : float
        The step size of the last phase.
    method_ : str
        What computed the sum over all pairs.
    neighbor_recall_ : float
        Fraction of true neighbours among those p was built on, measured on 256 rows; 1 where the search was exact.
    neighbors_graph_ : csr_array of shape (n_samples, n_samples)
        Distances to the neighbours that p was built on, the nearest first, as by `KNeighborsTransformer`: with
        metric="precomputed" it is the X of other estimators, which then search none. Where p lives on all rows, the
        nearest 91. Only where p measured distances between rows of X without copies. Neither pickled nor saved.
    device_ : str
        Where the fit ran.
    fit_report_ : dict
        What is known of the fit: seed, specs, route, device, method, iterations, loss, why it stopped, recall of
        neighbours, connected components of p and repeated rows (unless there are many), seconds of each stage and in
        all.
    supervisory_, learned_, encoder_ : specs
        What None and short names stood for; `learned_` with the degrees of freedom that were learned.
    n_features_in_ : int
        Columns of X; numbers of an item where X has more than two axes.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of X's columns, where all are strings.

    See Also
    --------
    sklearn.manifold.TSNE : The parameters that both have mean the same.

    References
    ----------
    Alshammari et al., "I-Con: A unifying framework for representation learning", ICLR 2025.
    van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon import ICONEmbedding
    >>> X, _ = load_iris(return_X_y=True)
    >>> ICONEmbedding(max_iter=100, random_state=0).fit_transform(X).shape
    (150, 2)
    """

    __module__ = "sklearn_icon"  # where users find it
    _counts: Any = None  # copies of each row, where sample_weight said so
    _of_rows = ("embedding_", "kl_per_sample_", "neighbors_graph_")
    _shard: Any = None  # (rank, ranks), where the map holds the rows of one rank

    _parameter_constraints: dict = ICon._parameter_constraints | {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "normalization": [StrOptions({"joint", "conditional"})],
        "debias": [Interval(Real, 0, 1, closed="left")],
        "perplexity": [Interval(Real, 1, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "early_exaggeration": [Interval(Real, 1, None, closed="left")],
        "late_exaggeration": [Interval(Real, 1, None, closed="left")],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left")],
        "n_iter_without_progress": [Interval(Integral, -1, None, closed="left")],
        "min_grad_norm": [Interval(Real, 0, None, closed="left")],
        "metric": [str, callable],
        "metric_params": [dict, None],
        "init": [StrOptions({"auto", "pca", "random", "spectral"}), "array-like"],
        "init_weight": [Interval(Real, 0, 1e38, closed="both")],  # what single precision holds
        "method": [StrOptions({"auto", "exact", "interpolation", "sampled", "barnes_hut"})],
        "angle": [Interval(Real, 0, 1, closed="both")],
        "warm_start": ["boolean"],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        supervisory: supervisory.Supervisory | str | None = None,
        learned: learned.Learned | str | None = None,
        encoder: encoders.Encoder | str | None = None,
        divergence: str = "kl",
        normalization: str = "joint",
        debias: float = 0.0,
        perplexity: float = 30.0,
        n_neighbors: int | None = None,
        early_exaggeration: float = 12.0,
        late_exaggeration: float = 1.0,
        learning_rate: float | str = "auto",
        max_iter: int | None = None,
        batch_size: int | str = "auto",
        n_iter_without_progress: int = 300,
        min_grad_norm: float = 1e-7,
        metric: Metric = "euclidean",
        metric_params: dict[str, Any] | None = None,
        init: Any = "auto",
        init_weight: float = 0.0,
        method: str = "auto",
        angle: float = 0.5,
        device: Any = "auto",
        random_state: Seed = None,
        n_jobs: Jobs = None,
        verbose: int = 0,
        warm_start: bool = False,
        checkpoint: str | PathLike[str] | None = None,
        max_memory: float | None = None,
    ) -> None:
        self.n_components = n_components
        self.supervisory = supervisory
        self.learned = learned
        self.encoder = encoder
        self.divergence = divergence
        self.normalization = normalization
        self.debias = debias
        self.perplexity = perplexity
        self.n_neighbors = n_neighbors
        self.early_exaggeration = early_exaggeration
        self.late_exaggeration = late_exaggeration
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.n_iter_without_progress = n_iter_without_progress
        self.min_grad_norm = min_grad_norm
        self.metric = metric
        self.metric_params = metric_params
        self.init = init
        self.init_weight = init_weight
        self.method = method
        self.angle = angle
        self.device = device
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.max_memory = max_memory

    _less_memory = "lower perplexity, or n_neighbors of p"

    def _memory(self, size):
        """See `estimate_memory`."""
        from .memory import libraries, of_ends, of_neighbors
        from .over_ranks import of_products

        p_spec, _, encoder = self._resolve_specs()
        n_edges, allowed = p_spec.most_edges(size.rows), self.max_memory if of_products(p_spec) else None
        needed = libraries(not encoder.parametric) + of_neighbors(size, n_edges, allowed)
        return needed + of_ends(size.rows * n_edges, self.n_components)

    def _default_specs(self) -> tuple:
        solid = self.n_components == 3
        return "gaussian", learned.StudentT(df=2.0) if solid else "student_t", "lookup"

    def _learns(self, name, specs):
        return name == "df" and not specs[2].parametric and not specs[1].mixture

    def _contrasts(self, specs):
        return specs[0].over_rows

    def fit(self, X: Rows, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the map.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            Rows; distances where metric="precomputed"; a graph's weights where p is `supervisory.Graph()`, counts of
            tokens where it is `supervisory.Counts()`, unless they are y. An encoder also takes items of any shape,
            (n_samples, ...), integers as single precision; distances in p are then those of their numbers in a row.
        y : array-like, default=None
            What p reads in addition to X: labels, group ids, companion features, counts. Else ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Copies of each row, whole numbers: a weight of 3 is the row three times over, in p, in q, in perplexities
            and among neighbours, at the cost of as many rows; one of 0 is a row that is not there, and is then placed
            as a new one.

        Returns
        -------
        ICONEmbedding
            The fitted estimator.
        """
        self.fit_transform(X, y, sample_weight)
        return self

    def fit_transform(self, X: Rows, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit the map and return it; see `fit`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            As in `fit`.
        y : array-like, default=None
            As in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            A copy of the attribute `embedding_`.
        """
        p_spec, q_spec, encoder, device, random_state = self._begin()
        X = self._validate_items(X, encoder, reset=True)
        if not encoder.parametric:
            check_start(self.init, (X.shape[0], self.n_components), p_spec, p_spec.reads(X, y))
        X_holds = held_by(p_spec, X, y)
        if sample_weight is not None and group().several:
            raise ValueError("sample_weight is not read by maps over ranks; pass None, or copies of the rows.")
        given, self._counts = X, copy_counts(sample_weight, X)
        if self._counts is not None:
            check_consistent_length(X, y)
            X, y = self._with_copies(X, X_holds), p_spec.take(y, with_copies(np.arange(X.shape[0]), self._counts))
        few = group().several and group().total(X.shape[0]) <= self._most_by_first(X, encoder)
        case = Case(p_spec, q_spec, encoder, self.get_params(deep=False), X_holds, X, few_rows=few)
        self._route("ICONEmbedding", case)
        if few:
            self._fit_by_first(X, y)
            self._shard = (group().rank, group().size) if self._fitted_rows is not None else None
            return vars(self)["embedding_"].copy()
        p, solution, self.method_ = self._solve(case, y, device, random_state)
        self.supervisory_, self.learned_, self.encoder_ = p_spec, solution.learned, encoder
        self.device_, self.neighbor_recall_ = str(device), p.recall
        self._keep(solution, X.dtype)
        placeable = not encoder.parametric and (X_holds == "counts" or p_spec.over_rows)
        self._fitted_rows: Any = FittedRows(X, X_holds, p, p_spec, y) if placeable else None
        own = group().own(solution.embedding, X.shape[0])
        self._shard = (group().rank, group().size) if group().several and placeable else None
        self.embedding_ = self._mean_of_copies(own.astype(X.dtype, copy=False))
        if self._counts is not None and not self._counts.all():
            self.embedding_[self._counts == 0] = self._transform(given[self._counts == 0])
        if self.verbose:
            self._progress.say(f"Iteration {self.n_iter_ + 1}: error = {self.kl_divergence_:.7f}, {self._ended()}")
        return self.embedding_.copy()

    def _most_by_first(self, X, encoder):
        """Of how many rows of all ranks rank 0 alone finds the map: sums over ranks round to one of other minima."""
        if encoder.parametric or self.normalization == "conditional":  # which ranks do not share
            return MOST_BY_FIRST
        return max(int(_EXACT_LIMIT * _TIMES_BY_LOOPS), min(_MOST_BY_FIRST, _NUMBERS_BY_FIRST / X.shape[1]))

    def _solve(self, case, y, device, random_state):
        """(p, solution, method) of what is to be fitted."""
        routes = {"tokens": self._solve_tokens, "encoder": self._solve_encoder, "map": self._solve_map}
        solve, X, X_holds = routes[route_of("ICONEmbedding", case)], case.X, case.holds
        flat = case.encoder.flat or X.ndim == 2
        with self._threads(X.shape[0] ** 2 // _PAIRS_A_NUMBER if flat else None), working_on(device):
            how = {"n_jobs": self.n_jobs, "random_state": random_state}
            p = recalled_p(lambda: case.p.conditional(rows_of(X), y, **how))
            warn_rows_without_positives(p)
            self._progress.facts |= counted(p, X if X_holds == "features" else None)
            p = self._keep_graph(p, case.p, X_holds == "features" and self._counts is None)
            features = X if X_holds == ("features" if case.p.over_rows else "counts") else None
            specs = case.p, case.q, case.encoder
            return p, *solve(X, features, p.mix(self.debias), specs, device, random_state)

    def _keep(self, solution, dtype):
        """Have what a solution tells beside the coordinates."""
        self.learning_rate_ = solution.learning_rate
        self.n_iter_, self.loss_curve_ = max(solution.result.n_iter - 1, 0), solution.result.loss_curve
        self.loss_iterations_, self.phases_ = solution.result.iterations, solution.phases
        self.stop_reason_ = solution.phases[-1][2]
        self.kl_divergence_ = float(group().total(solution.losses.sum()))
        self.kl_per_sample_ = self._mean_of_copies(solution.losses * group().total(len(solution.losses)))
        self._state = solution.state
        self.__dict__.pop("prototypes_", None)
        if solution.prototypes is not None:
            self.prototypes_ = solution.prototypes.astype(dtype, copy=False)

    def _with_copies(self, X, X_holds):
        """X as it is with copies of its rows, and of its columns where these are rows too."""
        if X_holds not in ("distances", "graph"):
            return with_copies(X, self._counts)
        if X_holds == "distances" and sparse.issparse(X):
            raise ValueError(
                "sample_weight needs distances in a dense X: a sparse graph of distances does not list the copies of a "
                "row, which are its nearest neighbours. Pass features, or the graph of the copies."
            )
        return self._columns_with_copies(with_copies(X, self._counts))

    def _columns_with_copies(self, X):
        """Distances or weights to the fitted rows as those to their copies."""
        return X if self._counts is None else X[:, with_copies(np.arange(X.shape[1]), self._counts)]

    def _of_copies(self, values):
        """What each row has, at each of its copies."""
        return values if self._counts is None else with_copies(values, self._counts)

    def _mean_of_copies(self, values):
        """What copies have as that of rows."""
        return values if self._counts is None else mean_of_copies(values, self._counts)

    def _given_map(self, n_rows):
        """The start that was given, of all copies."""
        n_given = n_rows if self._counts is None else len(self._counts)
        return self._of_copies(given_map(self.init, (n_given, self.n_components)))

    def _gathered(self, joined):
        super()._gathered(joined)
        if self._fitted_rows is not None:
            self._fitted_rows = self._fitted_rows.put(joined)
        self._shard = None

    def _check_whole(self):
        """Refuse new rows where the map holds the rows of one rank."""
        check_is_fitted(self)
        if self._shard is not None:
            rank, ranks = self._shard
            raise ValueError(
                f"this map holds the rows of rank {rank} of {ranks}, and this needs those of all; call "
                "distributed.gather(map) on every rank, and use the map that rank 0 gets."
            )

    def _ended(self):
        """Why the descent ended, in words."""
        if self.stop_reason_ == "n_iter_without_progress":
            return f"did not make any progress during the last {self.n_iter_without_progress} episodes. Finished."
        return self.stop_reason_

    def _solve_encoder(self, X, features, p, specs, device, random_state):
        """Solve for a map by an encoder."""
        from .._optim.train import Run, Training
        from .._training.encoded_maps import solve_encoder
        from ..encoders._networks import torch_dtype

        p_spec, q_spec, encoder = specs
        method = self._method(p, q_spec, encoder, device, p_spec.views)
        batch_size = self.batch_size if method == "sampled" else None
        training = Training(self.learning_rate, self.max_iter, batch_size=batch_size)
        run, loss = Run(torch_dtype(X), device, _seed(random_state), self._on_step), self._loss(q_spec)
        return solve_encoder(p, loss, encoder, X, self.n_components, training, run, p_spec.views), method

    def _solve_map(self, X, features, p, specs, device, random_state):
        """Solve for a lookup map."""
        import torch

        from .._optim.train import Run
        from .._training.maps import Descent, solve_lookup

        _, q_spec, encoder = specs
        method, again = self._method(p, q_spec, encoder, device, None), self._starts_warm(p)
        init = self._given_map(p.shape[0]) if is_itself(self.init) else self.init
        begin = partial(initial_map, n_components=self.n_components, X=features, p=p, random_state=random_state)
        pulled_to = recalled("pulled to", lambda: begin(init)) if self.init_weight else None
        first = self._of_copies(self.embedding_) if again else init
        start = recalled("start", lambda: begin(first)) if again or pulled_to is None else pulled_to
        descent = Descent(
            (1.0 if again else self.early_exaggeration, self.late_exaggeration),
            self.learning_rate,
            self.max_iter,
            self.min_grad_norm,
            self.n_iter_without_progress,
            method,
            self.angle,
            self.init_weight,
            pulled_to,
        )
        run = Run(torch.float32, device, _seed(random_state) if method == "sampled" else 0, self._on_step)
        explore = None if is_itself(first) or self.init_weight else random_state
        return solve_lookup(p, self._loss(q_spec), start, features, descent, run, explore), method

    def _starts_warm(self, p):
        """Whether the last map is where this one starts."""
        n_rows = p.shape[0] if self._counts is None else len(self._counts)
        return self.warm_start and np.shape(vars(self).get("embedding_", ())) == (n_rows, self.n_components)

    def _solve_tokens(self, X, features, p, specs, device, random_state):
        """Solve for coordinates of contexts and prototypes of tokens."""
        from .._optim.train import Run, Training
        from .._training.tokens import method_of, solve_tokens
        from ..encoders._networks import torch_dtype

        _, q_spec, encoder = specs
        method = method_of(self.method, p)
        z, prototypes = None, vars(self).get("prototypes_", ())
        if self._starts_warm(p) and np.shape(prototypes) == (p.shape[1], self.n_components):
            z = self._of_copies(self.embedding_)
        elif is_itself(self.init):
            z, prototypes = self._given_map(p.shape[0]), None
        else:
            prototypes = None
        training = Training(self.learning_rate, self.max_iter, batch_size=None if method == "exact" else "auto")
        run = Run(torch_dtype(X), device, _seed(random_state), self._on_step)
        read = X if encoder.parametric else features
        loss = self._loss(q_spec)
        return solve_tokens(p, loss, encoder, read, self.n_components, training, run, (z, prototypes)), method

    def _loss(self, q_spec):
        """What is minimised, whatever p."""
        from .._objective.loss import Loss

        return Loss(q_spec, self.divergence, self.normalization)

    def _method(self, p, q_spec, encoder, device, views):
        """How the sum over all pairs is computed: as asked, if that is possible, or by size."""
        import torch

        from .._objective.fused import can_fuse
        from .._objective.normalizers import has_pair_loops
        from .._objective.ways import can_interpolate, can_sample, can_use_tree, has_power_loop

        n, lookup = group().total(p.shape[0]), not encoder.parametric
        gridded = lookup and can_interpolate(p, q_spec, self.n_components)
        drawn = lookup and can_sample(p, q_spec) and not q_spec.learns
        if self.method == "interpolation" and not gridded:
            raise ValueError(no_grid(q_spec, encoder, self.n_components))
        if self.method == "sampled" and lookup and not (drawn and self.divergence == "kl"):
            raise ValueError(no_draws(q_spec, encoder, self.divergence))
        if self.method not in ("auto", "barnes_hut"):
            return self.method
        if not lookup:
            return "sampled" if views or n > _FULL_BATCH_LIMIT else "exact"
        if (gridded or drawn) and n <= (_FUSED_LIMIT if gridded else _FUSED_ALONE_LIMIT):
            if can_fuse(q_spec, torch.empty(0, self.n_components, device=device)):
                return "exact"
        if gridded:
            loops = (
                q_spec.learns or q_spec.slope_terms is not None or has_power_loop(q_spec, n, self.n_components, device)
            )
            few = _EXACT_LIMIT if loops else min(_EXACT_LIMIT, _EXACT_WITHOUT_LOOPS)
            plain = self.divergence == "kl" and self.normalization == "joint" and not group().several
            if plain and not q_spec.learns and has_pair_loops(q_spec, torch.empty(0, self.n_components, device=device)):
                few = int(_EXACT_LIMIT * _TIMES_BY_LOOPS)
            return "interpolation" if n > few else "exact"
        if lookup and device.type == "cpu" and can_use_tree(p, q_spec, self.n_components):
            return "barnes_hut" if n > _EXACT_LIMIT or self.method == "barnes_hut" else "exact"
        return "sampled" if drawn and self.divergence == "kl" and n > _SUMMED_LIMIT else "exact"

    def transform(self, X: Rows) -> Any:
        """Place rows on the fitted map.

        An encoder maps them. On a lookup map a row that was seen in `fit` returns to its own coordinates; any other
        starts at the mean of its neighbours', or at those of one, and descends by itself, the training embedding fixed:
        the batch it comes in makes no difference. On a map whose rows are those of several ranks, all of them call it,
        each with new rows of its own. Under "counts" it descends against the prototypes, by its own counts.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_new, n_features) or (n_new, n_samples)
            New rows; their distances to the fitted rows where metric="precomputed", graph weights
            to them where the graph was X.

        Returns
        -------
        ndarray of shape (n_new, n_components)
            Coordinates on the map.

        Raises
        ------
        ValueError
            A lookup map of contexts whose counts were y: X says nothing of new ones.
        """
        check_is_fitted(self)
        if self._shard is None or self._shard[1] != present().size:
            self._check_whole()
            return self._transform(self._validate_items(X, self.encoder_, reset=False))
        with together(self):
            return self._transform(self._validate_items(X, self.encoder_, reset=False))

    def _transform(self, X):
        """Coordinates of rows that were validated."""
        if self.encoder_.parametric:
            embedding = self._encode(self.encoder_, self._state, X, self._n_features_out)
            return embedding.astype(self.embedding_.dtype, copy=False)
        keys = self._of_copies(self.embedding_) if self.supervisory_.over_rows else self.prototypes_
        with self._threads(X.shape[0] * len(keys)):
            return self._place(X) if self.supervisory_.over_rows else self._place_contexts(X)

    def score(self, X: Rows, y: Any = None) -> float:
        """Recall of neighbours: how many of a row's 10 nearest rows in X are among its 10 nearest in `transform(X)`.

        It says the same of every kernel, divergence and encoder, so that a search may compare them; see
        `metrics.knn_recall`. Of distances to the fitted rows (metric="precomputed") the neighbours are fitted rows.

        Parameters
        ----------
        X : {array-like, sparse matrix}
            Rows as in `transform`, best ones that were not fitted, at least two; compared by Euclidean distance.
        y : array-like, default=None
            Ignored.

        Returns
        -------
        float
            In [0, 1]; the higher, the better. A random map scores about 10 / len(X).

        Raises
        ------
        ValueError
            Fewer than two rows, or weights of a graph, which tell no order of a row's neighbours.
        """
        from ..metrics import knn_recall, knn_recall_among

        self._check_whole()
        checked = self._validate_items(X, self.encoder_, reset=False)
        kind = "features" if self._fitted_rows is None else self._fitted_rows.kind
        if kind == "graph":
            raise ValueError("X holds weights of a graph, which tell no order of neighbours; use metrics.knn_recall.")
        placed = self._transform(checked)
        if kind == "distances":
            return knn_recall_among(checked, placed, self.embedding_, _SCORED_NEIGHBORS)
        if len(placed) < 2:
            raise ValueError(f"score compares rows with each other and needs at least 2, got {len(placed)}.")
        return knn_recall(rows_of(checked), placed, n_neighbors=min(_SCORED_NEIGHBORS, len(placed) - 1))

    def _chains(self):
        return {
            "transform": self._steps_of(self.encoder_, self._state, self.n_features_in_, self._n_features_out)
        }, None

    def _drawn(self, X, y):
        fitted = self._fitted_rows
        represented = self.embedding_ if fitted is not None and fitted.kind != "features" else self.transform(X)
        represented = np.array(represented)  # whatever the output is set to
        p = self._p_drawn(X, y, self.debias)
        if self.supervisory_.keys == "tokens":
            return Drawn(p, represented, self.debias, keys=self.prototypes_)
        return Drawn(p, represented, self.debias, self.normalization == "joint", is_map=True)

    def _place(self, X):
        """New rows on a lookup map."""
        from .._training.placement import block_size, place_rows

        X = X if self._fitted_rows.kind == "features" else self._columns_with_copies(X)
        weights, seen = self._fitted_rows.weights(X, self.supervisory_, self.n_jobs)
        fitted = group().gathered(self._of_copies(self.embedding_))
        placed = np.empty((X.shape[0], self._n_features_out), dtype=self.embedding_.dtype)
        placed[seen >= 0], new = fitted[seen[seen >= 0]], seen < 0
        with self._threads(block_size(X.shape[0], fitted)):
            weights = weights if new.all() else weights[new]
            placed[new] = place_rows(weights, fitted, self.learned_, self._fitted_rows.kept)
        return placed

    def _place_contexts(self, X):
        """New contexts by their counts; those that were fitted at their own coordinates."""
        from .._training.tokens import place_contexts

        if self._fitted_rows is None:
            raise ValueError(
                f"{self.encoder_} places contexts by their counts, which were y in fit; to place new ones, fit the "
                "counts as X, or use an encoder that reads X, such as 'mlp'."
            )
        seen = self._fitted_rows.seen(X)
        placed, new = self._of_copies(self.embedding_)[seen], np.flatnonzero(seen < 0)
        if len(new):
            p = self.supervisory_.conditional(X[new]).mix(self.debias)
            placed[new] = place_contexts(p, self._loss(self.learned_), self.prototypes_)
        return placed

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def _tag_input(self, input_tags, p_spec):
        """Distances of rows where metric is "precomputed", counts where the keys are tokens."""
        input_tags.pairwise = p_spec is not None and p_spec.pairwise
        input_tags.positive_only = p_spec is not None and p_spec.keys == "tokens"

    def __sklearn_tags__(self):
        """Maps keep the precision of X."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _seed(random_state):
    """A seed of a fit."""
    return random_state.randint(np.iinfo(np.int32).max)
