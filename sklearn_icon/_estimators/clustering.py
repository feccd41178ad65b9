"""`ICONClustering`: partitions of rows, at the defaults the best of several."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.special import softmax
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import euclidean_distances, pairwise_distances_argmin
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .. import encoders, learned, supervisory
from .._clusters.choice import WALK_STEPS, best_count
from .._clusters.known import columns_of, hidden_mass
from .._clusters.losses import LOSSES, Data, Settings, Specs, means_of, sq_distances
from .._core.conditional import warn_rows_without_positives
from .._core.device import working_on
from .._core.group import apart, group
from .._core.labels import Known
from .._core.quiet import quiet
from .._core.rows import in_units, is_itself, row_digests, row_weights, rows_of, unit_of
from .._core.types import Array, Jobs, Metric, Rows, Seed
from .._graph.recalled import recalled_p
from .._training.new_rows import FittedRows, held_by
from .base import Drawn, ICon
from .over_ranks import MOST_BY_FIRST
from .progress import counted
from .routes import Case, route_of

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

_DEFAULT_NEIGHBORS = 15
_UNIFORM_UNDER_KL = 0.3
_ROWS_AT_ONCE = 1 << 16  # new ones, that are related to fitted ones
_MOST_CHOSEN, _NUMBERS_CHOSEN = 100_000, 1e7  # rows of all ranks, whose default clusters rank 0 alone finds
_LEAST_HALVED = 4  # rows
_ALIKE = 1e-4  # memberships that differ by less between all rows are one cluster


class ICONClustering(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, ICon):
    r"""Clusters as the learned distribution of an I-Con loss; at the defaults chosen among several partitions.

    ::

        minimise over phi:   mean_i D( p~(.|i) || q~(.|i) )
        q(j|i) = sum_c phi_ic phi_jc / sum_k phi_kc,     p~ = (1 - a) p + a / N,   q~ = (1 - a) q + a / N

    "A uniformly drawn member of i's cluster" should be whom p says: i's neighbours, its neighbours' neighbours, rows of
    the same class.

    At the defaults p is local and hard partitions are made: that of k-means, and three that no move of a row improves,
    the best of a search and those reached from k-means and from the eigenvectors of p (the relaxed cut). The loss also
    rewards even clusters, so that the choice is by what is cut of p, over what is cut by labels of the same sizes that
    know nothing of p,

    ::

        R = sum_i w_i sum_j p(j|i) [c_i^(j) != c_j] / (1 - sum_c m_c^2),     m_c the weight of cluster c, of all,

    c_i^(j) the cluster in which i would be without its edge to j, as moved rows follow the edges that measure them; of
    k-means' own partition it is c_i. Where p falls into `n_clusters` parts, these are the cut, and there is no search.
    Else the search's partition is kept unless the cut's R is below 0.7 of its own: then its gain is evenness alone.
    That of k-means replaces either where its R is at most a fifth higher, or after moves by 1.5 standard errors of the
    difference, and by half, at the most. This is not enough where its sizes have the entropy of fewer than 0.85 as many
    even clusters: then its R too must be below 0.7 of the other's; nor where it gives outliers clusters of their own,
    in which less than half of p stays, and the other does not: then it must cut less than a tenth as much of the other
    rows, and not as it holds two groups in one: clusters of the other whose rows have nine in ten of their nearest
    rows, as many as the cluster has others, within it. Memberships are those of a linear map, where its partition is as
    even and cuts no more than one standard error above that, else the fractions of p that lead from a row to each
    cluster, its own the largest. Of more than 10,000 rows that many are drawn to choose among; the search's choice then
    means a linear map trained on all rows, the others' are carried over to all. Equal rows are one row that weighs
    more.

    With a `supervisory` that tells rows with a label from rows without, `SameClass`, some classes are known and others
    are discovered: `fit(X, y)`, where y is -1 for rows without a label. All of the above is then of partitions in
    which a labelled row is in the cluster of its class; its p is within the class, that of others the p for these.

    ::

        p(j|i) = 1[y_j = y_i] / (n_{y_i} - 1)  where y_i is known,  else the default p, or `SameClass(unlabelled=...)`
        phi_ic = 1[y_i = c]                    where y_i is known

    k-means is then where a search starts, and no candidate. `n_clusters` counts known classes and new ones. Memberships
    are those of a lookup.

    Any other `supervisory` than a graph or these, `learned`, `encoder`, `divergence` or `debias`, or a `device` other
    than the CPU, is a choice that is trained as it stands: phi = softmax(f(x)). Starts are hard partitions of small
    groups of rows, the best of a search with the same loss; they are trained together by minibatches of rows with one
    positive each, and the one with the lowest loss is kept.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Clusters: at the defaults as many wherever there are as many distinct rows; else at the most, unused ones are
        dropped with a warning.
        "auto", at the defaults, fits 2 to `max_clusters` + 1 clusters and keeps the number after which R rises most,
        as log (R + 0.002); `max_clusters` where R nowhere rises by a fifth. It takes as long as all these fits. Beside
        known classes it begins at their number. Labels are even among the rows of a class, so a known cluster in which
        whole regions have none holds another class as well: it is the first number after which R rises by a fifth, from
        the least on that hides no more rows so than a quarter of a cluster beyond the best; that least one if none is.
    supervisory : Supervisory or str, default=None
        The distribution p. None, at the defaults, is `RandomWalk(Gaussian(h, n_neighbors=3 h), n_steps=2)` of the
        perplexity h = `n_neighbors` / 2, or half the rows of a cluster where these are fewer; beside other choices
        `RandomWalk(UniformKNN(n_neighbors, metric), n_steps=2)`. Short names take `n_neighbors` and
        `metric` from this estimator. `PositivePairs(augment)` draws views of the rows, for encoders. "same_class" is
        for classes of which some are known.
    learned : Learned or str, default=None
        The distribution q, one over memberships. None is `learned.SharedCluster()`, whose `prior` is for clusters of
        uneven sizes that are known or to be learned.
    encoder : Encoder or str, default=None
        How rows become membership logits, `encoders.MomentumKeys` those of keys by its past. None is what was chosen,
        and beside other choices `encoders.Linear()`, or `encoders.Lookup()` where X holds distances or a graph.
    divergence : Divergence or str, default="kl"
        D: "kl", "reverse_kl", "jensen_shannon", "total_variation", "squared_hellinger", or a member of a family of
        `sklearn_icon.divergences`. "total_variation" is for clusters of very unlike size, which KL evens out.
        "reverse_kl" is k-means, soft or heavy-tailed: it needs a lookup, a p such as `supervisory.Gaussian(sigma=...)`,
        all pairs, of 20,000 rows at the most, and no uniform mass. With sigma=0 it is k-means itself, of any number of
        rows, solved by scikit-learn's KMeans on the CPU; within `supervisory.Spectral` it is spectral clustering.
    debias : float in [0, 1] or "auto", default="auto"
        Uniform mass a mixed into both p and q. It keeps memberships from saturating. "auto" is 0.3 under KL without a
        prior over masses, else none: uniform mass prefers large clusters, bounded divergences weigh one positive of a
        row less than much uniform mass, and reverse KL takes none. For one side only, set it to 0 and wrap the spec in
        a `UniformMixture`. 1 is the limit of the loss over (1 - a)^2 for hard clusters, with uniform mass spread as q
        spreads its own: the normalised cut where q weighs by degree, solved by its relaxation, as in
        SpectralClustering. It needs a lookup and KL.
    n_neighbors : int, default=15
        Neighbours of a row in the default p, and where changed in those of short names. At the defaults other values
        than 15 need more rows; elsewhere the default shrinks, with a warning, where there are no 16 rows, or X is a
        graph of fewer neighbours a row.
    metric : str or callable, default="euclidean"
        Distance of rows in the p of None and of short names; "precomputed" where X holds distances.
    metric_params : dict, default=None
        Further arguments of the metric.
    n_init : int or "auto", default="auto"
        Starts of k-means, and partitions that a round of the search goes on with; "auto" is 6, and 9 to 6. Where
        memberships are trained, starts that are trained at once, the best of a search; "auto" is 9. Three rounds of
        search and training take half of `max_iter`, each searching among groups of rows on which the one before agrees;
        the best start takes the rest. 1 is one search, and no more rounds. Of k-means they are its starts; "auto" is
        10.
    init : {"k-means++", "random"}, array-like of shape (n_clusters, n_features) or callable, default="k-means++"
        Starts of k-means, as in KMeans: at the defaults of the candidate that it finds, elsewhere where it solves the
        loss or starts its descent. Under reverse KL with sigma=0 clusters are then numbered as the rows of an array.
    algorithm : {"lloyd", "elkan"}, default="lloyd"
        How KMeans computes its steps, whose results are the same.
    max_iter : int, default=360
        Passes over the rows of each descent, 30 at the most. Where memberships are trained, steps of Adam, minibatches,
        of the kept start at the most; of k-means its iterations.
    batch_size : int or "auto", default="auto"
        Rows of a minibatch; "auto" is 2,048. As many positives come with them. In the rounds it is 1,024, or 50 a
        cluster where that is more, unless a batch is smaller.
    learning_rate : float or "auto", default="auto"
        Rate of Adam, which falls to zero along a cosine; "auto" is 0.02 for a linear encoder, 0.1 for a lookup and
        0.001 for networks.
    tol : float, default=0.0
        The last start ends where the mean loss of 50 steps is within this fraction of that of the 50 before. Of k-means
        it is the tolerance of KMeans.
    output : {"memberships", "distances"}, default="memberships"
        What `transform` gives: memberships, or Euclidean distances to the centres, as KMeans does.
    copy_x : bool, default=True
        For code written for KMeans: without effect, as data are never changed.
    device : str, default="auto"
        "auto" is CUDA where there is one, else the CPU; "cuda" without CUDA raises.
    random_state : int, RandomState instance or None, default=None
        The same seed, device and number of threads give the same bits on a CPU.
    n_jobs : int, default=None
        Threads; None leaves the libraries' own settings.
    verbose : int, default=0
        1 prints stages, and every 50 iterations with loss and seconds; 2 every 10, 3 each. Where logging of
        "sklearn_icon" is set up for INFO, lines go there.
    checkpoint : str or path-like, default=None
        A file that keeps what the fit has computed, every 10 seconds and at the ends of stages as long as this takes a
        hundredth of the time, and at the end: the same call in another process goes on from it to the same bits on a
        CPU, and from that of a finished fit at once. One of other data, parameters, device or version is refused. Fits
        of a grid search have files of their own beside it.
    max_clusters : int, default=20
        The largest number of clusters where `n_clusters` is "auto".
    max_memory : float, default=None
        Bytes that a fit may add to what the process has, as `estimate_memory` counts them: one that needs more is a
        MemoryError before anything is computed, and what is computed in pieces is in smaller ones. None: as many as
        are free.
    calibrate : bool, default=False
        Make memberships as sure as fits agree, without labels: at the defaults, without known classes, two random
        halves of the rows are fitted too, and

        ::

            phi_ic^s / sum_k phi_ik^s,    s such that   sum_i w_i max_c phi_ic / sum_i w_i = agreement_

        at the most 1 - 1 / (2 n_samples), with s from e^-5 to e^5, is what memberships become, of new rows as well: a
        row that is looked up has the mean of these of its neighbours. Labels, centres and `loss_` stay as they were. It
        takes about twice as long. Errors that all fits share are not seen.

    Attributes
    ----------
    labels_ : ndarray of int of shape (n_samples,)
        Each row's likeliest cluster. Clusters are numbered by size, the largest first, ties by first row; or as `init`
        says. Known classes come first: whole numbers keep theirs, other labels are 0, 1, ... as in `known_classes_`,
        and new clusters have the numbers after the largest. Labelled rows have those of their classes; where an encoder
        is trained it may say otherwise, and a class's number is that of the cluster with most of its rows, one to one.
    n_clusters_ : int
        Clusters in use.
    cluster_counts_ : dict of ndarray
        With `n_clusters` "auto", the numbers that were tried, "n_clusters", and the "cut" (R) of each; beside
        known classes also "hidden", the fraction of rows that lies in their clusters where no row is labelled:
        sum_c m_c max(0, 1 - L_c^2 / (T_c S_c)), of p within the cluster of class c, of mass m_c: T_c of all pairs of
        unequal rows, L_c from labelled rows, S_c between these.
    known_classes_ : ndarray
        The known classes, sorted, -1 left out. Only where p tells them from rows without a label.
    cluster_numbers_ : ndarray of int of shape (`n_clusters_`,)
        The number in `labels_` of each column of the memberships. Only where `known_classes_` is.
    cluster_centers_ : ndarray of shape (`n_clusters_`, `n_features_in_`)
        Means of X weighted by membership. Only where X holds features.
    inertia_ : float
        Sum of squared distances of rows to the centre of their cluster. Only where X holds features.
    chosen_ : {"search", "cut", "k-means", "settled k-means", "distinct rows"}
        At the defaults, how the kept partition was found; "settled" is after moves, and the last where there are no
        more of these than clusters, or all are of known classes.
    candidates_ : dict of ndarray
        At the defaults, a table of the candidates: "name", "loss", "cut" (R), "evenness" (1 - sum_c m_c^2),
        "effective" (even clusters of the same entropy) and "n_clusters".
    agreement_ : float
        With `calibrate`, the fraction of rows on which the fits agree, clusters matched one to one: the mean of that of
        both halves, and that of all rows' fit with a half's on the other half.
    loss_ : float
        The loss of the kept partition, up to what all share. Where memberships are trained, mean loss of the kept
        start, on batches that all starts share; of k-means the mean inertia.
    loss_curve_ : ndarray
        The loss of each step of the kept start, of the last round too where that is on the same scale: under KL with a
        `learned.SharedCluster`, or on batches of the same size.
    n_iter_ : int
        Steps in `loss_curve_`; of k-means its iterations.
    debias_ : float
        The uniform mass of p and q.
    neighbors_graph_ : csr_array of shape (n_samples, n_samples)
        Distances to the neighbours that p was built on, the nearest first, as by `KNeighborsTransformer`: with
        metric="precomputed" it is the X of other estimators, which then search none. Where p lives on all rows, the
        nearest 91. Only where p measured distances between distinct rows of X. Neither pickled nor saved.
    device_ : str
        Where the fit ran.
    fit_report_ : dict
        What is known of the fit: seed, specs, route, device, iterations, loss, why it stopped or what was chosen,
        recall of neighbours, connected components of p and repeated rows (unless there are many), beside known classes
        what is "hidden" (see `cluster_counts_`), seconds of each stage and in all.
    supervisory_, learned_, encoder_ : specs
        What None and short names stood for, `n_components` and `affinity` of a `supervisory.Spectral` included.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of X's columns, where all are strings.

    See Also
    --------
    sklearn.cluster.KMeans : Hard clusters around means.
    sklearn.cluster.SpectralClustering : Hard clusters of a graph.

    References
    ----------
    Alshammari et al., "I-Con: A unifying framework for representation learning", ICLR 2025, section 4.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_icon import ICONClustering
    >>> X, _ = make_blobs(n_samples=[50, 30, 20], random_state=0, cluster_std=0.4)
    >>> clusters = ICONClustering(3, random_state=0).fit(X)
    >>> [int(size) for size in sorted((clusters.labels_ == c).sum() for c in range(3))]
    [20, 30, 50]
    """

    __module__ = "sklearn_icon"  # where users find it
    _by_center = False
    _numbers: Array | None = None
    _of_rows = ("labels_", "neighbors_graph_")
    _memberships: Any
    _fitted_rows: Any

    _parameter_constraints: dict = ICon._parameter_constraints | {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_clusters": [Interval(Integral, 2, None, closed="left")],
        "calibrate": ["boolean"],
        "debias": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [str, callable],
        "metric_params": [dict, None],
        "n_init": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"k-means++", "random"}), callable, "array-like"],
        "algorithm": [StrOptions({"lloyd", "elkan"})],
        "output": [StrOptions({"memberships", "distances"})],
        "copy_x": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        supervisory: supervisory.Supervisory | str | None = None,
        learned: learned.Learned | str | None = None,
        encoder: encoders.Encoder | str | None = None,
        divergence: str = "kl",
        debias: float | str = "auto",
        n_neighbors: int = 15,
        metric: Metric = "euclidean",
        metric_params: dict[str, Any] | None = None,
        n_init: int | str = "auto",
        init: Any = "k-means++",
        algorithm: str = "lloyd",
        max_iter: int = 360,
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        tol: float = 0.0,
        output: str = "memberships",
        copy_x: bool = True,
        device: Any = "auto",
        random_state: Seed = None,
        n_jobs: Jobs = None,
        verbose: int = 0,
        checkpoint: str | PathLike[str] | None = None,
        max_clusters: int = 20,
        max_memory: float | None = None,
        calibrate: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.supervisory = supervisory
        self.learned = learned
        self.encoder = encoder
        self.divergence = divergence
        self.debias = debias
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.metric_params = metric_params
        self.n_init = n_init
        self.init = init
        self.algorithm = algorithm
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.tol = tol
        self.output = output
        self.copy_x = copy_x
        self.device = device
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.checkpoint = checkpoint
        self.max_clusters = max_clusters
        self.max_memory = max_memory
        self.calibrate = calibrate

    _less_memory = "lower n_neighbors, batch_size or n_init"

    def _memory(self, size: Any) -> float:
        """See `estimate_memory`."""
        from .memory import MEGABYTE, libraries, of_k_means, of_neighbors

        specs = self._resolve_specs()
        if self.divergence == "reverse_kl" and specs[0].narrow and not specs[2].parametric:
            return libraries(False) + of_k_means(size, self._count, self.max_memory)
        n_neighbors = min(-(-3 * self.n_neighbors // 2), size.rows)
        return libraries(True) + of_neighbors(size, n_neighbors) + 40 * MEGABYTE

    def _default_specs(self) -> tuple:
        p_spec = self._named_p()
        pairwise = self.metric == "precomputed" or (p_spec is not None and p_spec.pairwise)
        return "walk", "cluster", "lookup" if pairwise else "linear"

    def _resolve_specs(self) -> tuple:
        """Also give a `supervisory.Spectral` as many eigenvectors as there are clusters, where it is left open."""
        specs = super()._resolve_specs()
        specs[0].complete(self._count)
        return specs

    def _contrasts(self, specs: tuple) -> bool:
        encoder = specs[2]
        return not encoder.only_contrasts or (encoder.momentum is not None and encoder.plain() is encoder.base)

    def fit(self, X: Rows, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the clusters.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            Rows; distances where metric="precomputed"; a graph's weights where p is `supervisory.Graph()`, or a
            `supervisory.Spectral` that reads one. To encoders also dense items of shape (n_samples, ...), whose numbers
            are the features of all but the encoder.
        y : array-like, default=None
            What p reads in addition to X: labels, -1 for rows without one, group ids, companion features. Else ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows: in the average over i, in p(j|i) and in the clusters' masses, centers and numbering, so
            that a weight of 3 counts as three copies and one of 0 as none, but as a new row. Neighbors are found
            without regard to other weights.

        Returns
        -------
        ICONClustering
            The fitted estimator.

        Raises
        ------
        ValueError
            Fewer rows than clusters, fewer clusters than known classes, labels of several kinds, a q that is not one
            over memberships, or a p whose keys are not the rows; `calibrate` beside other choices than the defaults or
            a graph, with known classes, a sparse X of distances, over ranks, or fewer than 4 rows that weigh something.
        """
        p_spec, q_spec, encoder, device, random_state = self._begin()
        items = self._validate_items(X, encoder, reset=True)
        X = rows_of(items)
        if y is not None:
            p_spec = p_spec.beside(y, self._local(X, self._count))
        known = p_spec.known(y)
        automatic = self._is_automatic(p_spec, y, known)
        if self.calibrate:
            self._check_calibrated(X, row_weights(sample_weight, X), automatic and known is None)
        if self.n_clusters == "auto":
            return self._fit_counts(items, y, sample_weight, automatic, random_state, known)
        n_samples = group().total(X.shape[0])
        if n_samples < self.n_clusters:
            raise ValueError(f"n_samples={n_samples} should be >= n_clusters={self.n_clusters}.")
        if known is not None:
            check_consistent_length(X, known.codes)
            self._check_known(known)
        X_holds = held_by(p_spec, X, y if known is not None or not automatic else None)
        p_spec.settle(X_holds)
        given = sample_weight is not None
        sample_weight = row_weights(sample_weight, X)
        few = group().several and n_samples <= self._most_by_first(X.shape[1], automatic)
        if X_holds == "features" and group().total(int(not sample_weight.all())) and not few:
            return self._fit_counted(items, y, sample_weight, p_spec)
        case = self._case(p_spec, q_spec, encoder, holds=X_holds, X=X, chosen=automatic, few_rows=few)
        route = self._route("ICONClustering", case)
        if few:
            return self._fit_by_first(items, y, sample_weight if given else None)
        if route == "chosen":
            if group().several:
                return self._fit_draw(X, sample_weight, random_state)
            return self._fit_chosen(X, X_holds, sample_weight, device, random_state, p_spec, known)
        loss = self._loss(case)
        loss.check(X_holds, X.shape[0])
        return self._fit_loss(
            loss, items, y, X_holds, sample_weight if given else None, loss.place(device), random_state
        )

    def _check_known(self, known: Known) -> None:
        if len(known.classes) > self._count:
            raise ValueError(
                f"n_clusters={self.n_clusters} counts known classes too, of which y holds {len(known.classes)}; "
                "raise it to their number and that of new clusters."
            )

    def _most_by_first(self, n_columns: int, automatic: bool) -> float:
        """Of how many rows of all ranks rank 0 alone finds the clusters."""
        by_default = automatic and self.supervisory is None
        return max(MOST_BY_FIRST, min(_MOST_CHOSEN, _NUMBERS_CHOSEN / n_columns) if by_default else 0)

    def _fit_loss(
        self,
        loss: Any,
        items: Any,
        y: Any,
        X_holds: str,
        sample_weight: Any,
        device: Any,
        random_state: np.random.RandomState,
    ) -> Self:
        """Fit the partition of the lowest loss found; weights are None where all rows count alike."""
        p_spec, encoder, X, given = loss.p_spec, loss.encoder, rows_of(items), sample_weight is not None
        sample_weight = sample_weight if given else np.ones(X.shape[0])
        with self._threads(X.shape[0] ** 2), working_on(device):
            step, how = loss.walk()[0], {"n_jobs": self.n_jobs, "random_state": random_state}
            p = recalled_p(lambda: step.conditional(X, y, **how))
            p = self._keep_graph(p, p_spec, X_holds == "features")
            if given and not p_spec.views:
                p = p.with_copies(sample_weight)
            if not p_spec.views:
                warn_rows_without_positives(p, sample_weight > 0)
        has_features = X_holds == "features"
        self._progress.facts |= counted(p, X if has_features else None)
        with self._threads(loss.settings.batch_rows(X.shape[0]) * X.shape[1]):
            solution = loss.solve(Data(X, y, items if has_features else None, p, sample_weight, device, random_state))
        self.supervisory_, self.learned_, self.encoder_, self.device_ = p_spec, loss.q_spec, encoder, str(device)
        self.debias_ = self._uniform(loss.q_spec)
        self.loss_, self.loss_curve_ = solution.loss, solution.result.loss_curve
        self.n_iter_ = solution.result.n_iter
        self._progress.facts["stop_reason"] = solution.result.why
        self._state, self._by_center = solution.state, loss.by_center and has_features
        memberships = softmax(solution.logits, axis=1).astype(X.dtype, copy=False)
        self._set_partition(memberships, X if has_features else None, sample_weight, p_spec.known(y))
        related = not (encoder.parametric or self._by_center)  # new rows by those of the fit
        self._fitted_rows = FittedRows(X, X_holds, p, p_spec, y) if related else None
        return self

    def _is_automatic(self, p_spec: Any, y: Any, known: Known | None = None) -> bool:
        """Whether the partition is chosen among candidates: no choice was made but that of a graph, or of labels."""
        ours = self.learned is None and self.encoder is None and self.divergence == "kl" and self.debias == "auto"
        graph = isinstance(p_spec, supervisory.Graph) and y is None
        partly = known is not None and p_spec.unlabelled is not None
        return ours and self.device in ("auto", "cpu") and (self.supervisory is None or graph or partly)

    def _stands_for(self) -> dict[str, Any]:
        specs = super()._stands_for()
        if "supervisory_" not in vars(self) and self._is_automatic(self._specs_or_none()[0], None):
            of_rows = {} if self.supervisory is not None else {"p": "RandomWalk() of a Gaussian() of near neighbours"}
            specs |= of_rows | {"encoder": "Linear() or Lookup(), chosen among candidates in fit"}
        return specs

    def _p_of(self, X: Rows, n_clusters: int) -> Any:
        """The p of rows as it was set, or the default."""
        return self._local(X, n_clusters) if self.supervisory is None else self._resolve_specs()[0]

    def _local(self, X: Rows, n_clusters: int) -> Any:
        """The default p of rows: a Gaussian of the width of few neighbours, of fewer where clusters are small."""
        n, given = X.shape[0], supervisory.UniformKNN(metric=self.metric)
        most = min(-(-3 * self.n_neighbors // 2), max(1, given._most_neighbors(X)[0]))
        perplexity = max(1.0, min(self.n_neighbors / 2, n / (2 * n_clusters), most / 3))
        local = supervisory.Gaussian(perplexity, None, most, self.metric, "X", self.metric_params)
        return supervisory.RandomWalk(local, n_steps=WALK_STEPS)

    def _fit_chosen(
        self,
        X: Rows,
        X_holds: str,
        sample_weight: Any,
        device: Any,
        random_state: np.random.RandomState,
        p_spec: Any,
        known: Known | None,
    ) -> Self:
        """Fit the partition that is chosen among candidates."""
        from .._clusters.automatic import fit_chosen
        from .._clusters.candidates import Asked
        from .._clusters.distinct import Distinct

        if self.supervisory is None and _DEFAULT_NEIGHBORS != self.n_neighbors >= X.shape[0]:
            raise ValueError(
                f"n_neighbors={self.n_neighbors} needs more than as many samples, got n_samples={X.shape[0]}; lower it."
            )
        with self._threads(X.shape[0] * X.shape[1]):
            settings, seed = self._settings(learned.SharedCluster()), random_state.randint(np.iinfo(np.int32).max)
            asked = Asked(settings, self._p_of, seed, self._progress.say if self.verbose else lambda line: None)
            codes = None if known is None or not len(known.classes) else known.codes
            if known is not None:
                asked = asked._replace(p_of=lambda *_: p_spec.unlabelled, n_steps=p_spec.unlabelled.step()[1])
                settings.refuse_k_means("known classes say where clusters begin")
            kept = fit_chosen(asked, rows := Distinct.of(X, X_holds, sample_weight, codes), device, random_state)
        p_spec = kept.p_spec if known is None else p_spec
        self.supervisory_, self.learned_, self.encoder_ = p_spec, learned.SharedCluster(), kept.encoder
        features, of_all = X if X_holds == "features" else None, kept.p.shape[0] == len(rows.first)
        self._progress.facts |= counted(kept.p if of_all else None, features) | _hidden(kept, rows)
        self._keep_graph(kept.p, kept.p_spec, X_holds == "features" and kept.p.shape[0] == X.shape[0])
        self.chosen_, self.candidates_, self.device_ = kept.chosen, kept.candidates, kept.device
        self.loss_, self.loss_curve_, self.n_iter_ = kept.loss, kept.loss_curve, len(kept.loss_curve)
        self.debias_, self._state, self._by_center = self._uniform(self.learned_), kept.state, False
        self._set_partition(kept.memberships.astype(X.dtype, copy=False), features, sample_weight, known)
        self._fitted_rows = None
        if kept.rows is not None:
            self._memberships = self._memberships[kept.first]
            self._fitted_rows = FittedRows(kept.rows, X_holds, kept.p, kept.p_spec, None)
        return self._calibrated(X, X_holds, sample_weight, random_state) if self.calibrate else self

    def _check_calibrated(self, X: Rows, sample_weight: Array, by_default: bool) -> None:
        """Refuse to calibrate beside other choices, graphs of distances, few rows that weigh something, and ranks."""
        if group().several:
            raise ValueError("calibrate=True fits halves of the rows of one process, and is not solved over ranks.")
        if not by_default:
            raise ValueError(
                "calibrate=True is of the default choice among partitions of rows without known classes; beside a "
                "supervisory other than a graph, learned, encoder, divergence, debias or device that was set, leave it."
            )
        if self.metric == "precomputed" and sparse.issparse(X):
            raise ValueError(
                "calibrate=True fits halves of the rows, which in a sparse X of distances lose half their neighbours; "
                "give features, or the distances of all pairs."
            )
        counted = int(np.count_nonzero(sample_weight))
        if counted < _LEAST_HALVED:
            raise ValueError(
                f"calibrate=True fits halves of the rows; n_samples={counted} that weigh something should be >= "
                f"{_LEAST_HALVED}."
            )

    def _calibrated(self, X: Rows, X_holds: str, sample_weight: Array, random_state: np.random.RandomState) -> Self:
        """Make memberships as sure as fits to halves of the rows agree."""
        from .._clusters.agreement import mean_agreement, sharpened, sharpness

        halves = self._of_halves(X, X_holds, sample_weight, random_state.randint(np.iinfo(np.int32).max))
        self.agreement_ = mean_agreement(self.labels_, halves, sample_weight)
        wanted = min(self.agreement_, 1 - 0.5 / X.shape[0])  # so many rows do not tell less from none
        factor = sharpness(self.predict_proba(X), sample_weight, wanted)
        if self._memberships is None:
            of_map = {name: factor * part for name, part in self._state.items() if name.endswith(("weight", "bias"))}
            self._state = self._state | of_map
        else:
            self._memberships = sharpened(self._memberships, factor)
        return self

    def _of_halves(self, X: Rows, X_holds: str, sample_weight: Array, seed: int) -> list[tuple[Array, Array]]:
        """(rows, labels of all rows) by fits to two random halves of the rows, and of those that weigh something."""
        n, found = X.shape[0], []
        order = np.random.RandomState(seed).permutation(n)
        of_weight = order[sample_weight[order] > 0], order[sample_weight[order] == 0]
        parts = [np.array_split(part, [len(part) // 2]) for part in of_weight]
        halves = [np.sort(np.concatenate(of_both)) for of_both in zip(*parts, strict=True)]
        for half, rest in (halves, halves[::-1]):
            keys = slice(None) if X_holds == "features" else half
            few = {"n_clusters": min(self._count, len(half)), "n_neighbors": self.n_neighbors}
            if self.n_neighbors >= len(half):
                few["n_neighbors"] = max(_DEFAULT_NEIGHBORS, len(half) - 1)
            inner = clone(self).set_params(**few, random_state=seed, checkpoint=None, calibrate=False)
            vars(inner).pop("_skl_callbacks", None)  # which are told of this fit
            labels = np.empty(n, np.intp)
            try:
                with quiet("only .* of n_clusters", ConvergenceWarning), quiet(".* rows have no positive"):
                    labels[half] = inner.fit(X[half][:, keys], None, sample_weight[half]).labels_
            except ValueError as error:
                raise ValueError(f"calibrate=True fits halves of the rows, of which one is refused: {error}") from error
            labels[rest] = inner.predict(X[rest][:, keys])
            found.append((half, labels))
        return found

    def _fit_draw(self, X: Rows, sample_weight: Any, random_state: np.random.RandomState) -> Self:
        """Fit a draw of the rows of all ranks by rank 0, as one process chooses; give each rank's rows what it says."""
        ranks, seed = group(), random_state.randint(np.iinfo(np.int32).max)
        first, n = ranks.first_of(X.shape[0])
        drawn = np.sort(np.random.RandomState(seed).permutation(n)[:MOST_BY_FIRST]) - first
        drawn = drawn[(drawn >= 0) & (drawn < X.shape[0])]
        self._fit_by_first(X[drawn], None, sample_weight[drawn])
        self.__dict__.pop("neighbors_graph_", None)  # which is of the draw
        columns, n_columns, of_draw = self._columns, self._columns_found, self._memberships
        with apart():
            memberships = self.predict_proba(X)
        self._set_partition(memberships, X, sample_weight)
        self._memberships = None if of_draw is None else of_draw[:, self._columns]
        self._columns, self._columns_found = columns[self._columns], n_columns
        return self

    def fit_predict(self, X: Rows, y: Any = None, sample_weight: Any = None) -> Array:
        """Find the clusters and return the labels of the rows; see `fit`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            As in `fit`.
        y : array-like, default=None
            As in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            The attribute `labels_`.
        """
        return self.fit(X, y, sample_weight).labels_

    def _fit_counted(self, items: Any, y: Any, sample_weight: Any, p_spec: Any) -> Self:
        """Fit the rows that weigh something; the others have labels as new rows do."""
        counted = np.flatnonzero(sample_weight)
        check_consistent_length(items, y)
        if len(counted) < 2:
            raise ValueError("sample_weight is positive in one row alone; a fit needs two rows that weigh something.")
        inner = clone(self)
        vars(inner).pop("_skl_callbacks", None)  # which are told of this fit
        fitted = inner.fit(items[counted], p_spec.take(y, counted), sample_weight[counted])
        self._take(fitted)
        self.labels_ = fitted.predict(items)
        return self

    def _take(self, fitted: ICONClustering) -> None:
        """Have learned what another has."""
        own = self.get_params(deep=False)
        self.__dict__.update({name: value for name, value in vars(fitted).items() if name not in own})
        self._progress.carry(fitted.fit_report_)

    _columns_found = 0  # in pickles of 0.1.0
    _columns: Array

    @property
    def _count(self) -> int:
        """The number of clusters that were asked for; of "auto" that which was found, or before fit the most."""
        if self.n_clusters != "auto":
            return int(self.n_clusters)
        return best_count(*self.cluster_counts_.values()) if "cluster_counts_" in vars(self) else self.max_clusters

    @property
    def _n_outputs(self) -> int:
        """Outputs of the fitted encoder."""
        return self._columns_found or self._count

    def _fit_counts(
        self,
        items: Any,
        y: Any,
        sample_weight: Any,
        automatic: bool,
        random_state: np.random.RandomState,
        known: Known | None,
    ) -> Any:
        """Fit as many clusters as what is cut of p tells."""
        if not automatic:
            raise ValueError(
                'n_clusters="auto" is of the default choice among partitions; beside a supervisory other than a graph, '
                "learned, encoder, divergence, debias or device that was set, set a number."
            )
        seed = random_state.randint(np.iinfo(np.int32).max)

        def of(k: int, calibrate: bool = False) -> Any:
            inner = clone(self).set_params(n_clusters=k, random_state=seed, checkpoint=None, calibrate=calibrate)
            vars(inner).pop("_skl_callbacks", None)  # which are told of this fit
            with quiet("only .* of n_clusters", ConvergenceWarning):
                return inner.fit(items, y, sample_weight)

        n, counts, cuts, hidden = group().total(items.shape[0]), list[int](), list[float](), list[float]()
        least = 2 if known is None else max(2, len(known.classes))
        for k in range(least, max(least, min(self.max_clusters + 1, n - 1)) + 1):
            fitted = of(k)
            if fitted.n_clusters_ < k and counts:
                break
            counts.append(fitted.n_clusters_)
            cuts.append(float(fitted.candidates_["cut"][list(fitted.candidates_["name"]).index(fitted.chosen_)]))
            if "hidden" in fitted.fit_report_:
                hidden.append(fitted.fit_report_["hidden"])
        self._take(of(best_count(counts, cuts, hidden), self.calibrate))
        self.cluster_counts_ = {"n_clusters": np.array(counts), "cut": np.array(cuts)}
        self.cluster_counts_ |= {"hidden": np.array(hidden)} if hidden else {}
        return self

    def _case(self, p_spec: Any, q_spec: Any, encoder: Any, **known: Any) -> Case:
        """What is to be fitted; see `Case`."""
        given = self.get_params(deep=False) | {"debias": self._uniform(q_spec)}
        return Case(p_spec, q_spec, encoder, given, **known)

    def _loss(self, case: Case) -> Any:
        """The loss that settings and specs call for."""
        route = route_of("ICONClustering", case)
        return LOSSES[route](self._settings(case.q), Specs(case.p, case.q, case.encoder))

    def _settings(self, q: learned.Learned) -> Settings:
        """What was set beside the specs."""
        given = {name: value for name, value in self.get_params(deep=False).items() if name in Settings._fields}
        return Settings(uniform=self._uniform(q), report=self._on_step, **given)

    def _uniform(self, q: learned.Learned) -> float:
        """The uniform mass of p and q, "auto" resolved."""
        if self.debias == "auto":
            return _UNIFORM_UNDER_KL if self.divergence == "kl" and not q.tilted else 0.0
        return float(self.debias)

    def _set_partition(self, memberships: Array, X: Rows, sample_weight: Any, known: Known | None = None) -> None:
        """Number the clusters in use by known class, size, then first row; centres and inertia of features."""
        labels = memberships.argmax(axis=1)
        if np.ptp(memberships, axis=0).max() < _ALIKE:
            labels[:] = memberships.mean(axis=0).argmax()
        found, of_found = np.unique(labels, return_index=True)
        self._columns_found = memberships.shape[1]
        first = np.full(self._columns_found, np.inf)  # row of each cluster, of all ranks
        first[found] = of_found + group().first
        first = group().gathered(first[None]).min(axis=0)
        used = self._columns = np.flatnonzero(np.isfinite(first))
        if not (self._by_center and is_itself(self.init)):
            ranks, sizes = np.full(len(first), len(first)), np.bincount(labels, sample_weight, len(first))
            if known is not None:
                of_classes = columns_of(labels, known.codes, len(first))
                ranks[of_classes], used = np.arange(len(of_classes)), np.union1d(used, of_classes)
            self._columns = used[np.lexsort((first[used], -group().total(sizes)[used], ranks[used]))]
        self.n_clusters_ = len(used)
        if self.n_clusters_ < self._count:
            few = f"({self.n_clusters_}) found smaller than n_clusters ({self.n_clusters}). Possibly due to duplicate"
            warnings.warn(
                f"Number of distinct clusters {few} points in X."  # as KMeans says it
                if self._by_center
                else f"only {self.n_clusters_} of n_clusters={self.n_clusters} clusters are in use; there may be fewer "
                "distinct rows or groups than that. Lower n_clusters or n_neighbors, or raise n_init.",
                ConvergenceWarning,
                stacklevel=3,
            )
        memberships = memberships[:, self._columns]
        memberships = memberships / memberships.sum(axis=1, keepdims=True)
        self._memberships = memberships if not self.encoder_.parametric else None
        columns, self._numbers = memberships.argmax(axis=1), None
        if known is not None:
            self.known_classes_, self._numbers = known.classes, known.numbers(self.n_clusters_)
            self.cluster_numbers_ = self._numbers
        self.labels_ = self._numbered(columns)
        if X is not None:
            by_center = "centers" in self._state and self._by_center
            centers = self._state["centers"][self._columns] if by_center else means_of(X, memberships, sample_weight)
            self.inertia_ = float(group().total(sample_weight @ sq_distances(X, centers, columns)))
            self.cluster_centers_ = centers.astype(X.dtype, copy=False)

    def _numbered(self, columns: Array) -> Array:
        """What clusters are called whose columns these are."""
        return columns if self._numbers is None else self._numbers[columns]

    def predict_proba(self, X: Rows) -> Array:
        """Memberships of rows.

        An encoder gives them directly, and of k-means it is the nearest centre, sure. Else, with a lookup, a row that
        was seen in `fit` has its own and any other row the mean of its neighbours' memberships; a row of a graph
        without any edge has the mean of all rows'.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; or distances or graph weights to the fitted rows, where X was that.

        Returns
        -------
        ndarray of shape (n_samples, `n_clusters_`)
            Rows sum to one.
        """
        check_is_fitted(self)
        X = self._validate_items(X, self.encoder_, reset=False)
        if self.encoder_.parametric:
            return self._encoded(X)
        if self._by_center:
            return np.eye(self.n_clusters_, dtype=self.cluster_centers_.dtype)[self._nearest(X)]
        with self._threads(X.shape[0] * len(self._memberships)):
            return np.concatenate([self._looked_up(X[part]) for part in gen_batches(X.shape[0], _ROWS_AT_ONCE)])

    def _nearest(self, X: Rows) -> Array:
        """The number of each row's nearest centre."""
        unit = min(unit_of(X), unit_of(self.cluster_centers_))
        return pairwise_distances_argmin(in_units(X, unit), in_units(self.cluster_centers_, unit))

    def _looked_up(self, X: Rows) -> Array:
        """Memberships of a block of rows by those of fitted ones."""
        weights, seen = self._fitted_rows.weights(X, self.supervisory_, self.n_jobs)
        memberships = (weights @ self._memberships).astype(self._memberships.dtype, copy=False)
        memberships[np.diff(weights.indptr) == 0] = self._memberships.mean(axis=0)
        memberships[seen >= 0] = self._memberships[seen[seen >= 0]]
        return memberships

    def _chains(self) -> tuple:
        steps = self._steps_of(self.encoder_, self._state, self.n_features_in_, self._n_outputs)
        return {"predict_proba": [*steps, ("pick", [self._columns]), ("softmax", [])]}, self._numbered(
            np.arange(self.n_clusters_)
        )

    def _encoded(self, X: Rows) -> Array:
        """Memberships of items by the encoder, in the clusters in use alone, however unlike the rows of the fit."""
        return softmax(self._encode(self.encoder_, self._state, X, self._n_outputs)[:, self._columns], axis=1)

    def predict(self, X: Rows) -> Array:
        """The likeliest cluster of each row; see `predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            As in `predict_proba`.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            The column of the largest membership.
        """
        check_is_fitted(self)
        if self._by_center and not self.encoder_.parametric:
            return self._nearest(self._validate_items(X, self.encoder_, reset=False))
        return self._numbered(self.predict_proba(X).argmax(axis=1))

    def transform(self, X: Rows) -> Any:
        """Soft memberships as features; see `predict_proba`. Or distances to the centres, as `output` says.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            As in `predict_proba`.

        Returns
        -------
        ndarray of shape (n_samples, `n_clusters_`)
            A column for each cluster.
        """
        if self.output == "memberships":
            return self.predict_proba(X)
        check_is_fitted(self)
        X = rows_of(self._validate_items(X, self.encoder_, reset=False))
        unit = min(unit_of(X), unit_of(self.cluster_centers_))
        return euclidean_distances(in_units(X, unit), in_units(self.cluster_centers_, unit)) / unit

    def score(self, X: Rows, y: Any = None) -> float:
        """Minus the mean divergence of the rows' own p from the q of their memberships; higher is better.

        Where the loss is that of k-means, minus the mean inertia of the rows around the means of their memberships.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.
        y : array-like, default=None
            What p reads in addition to X.

        Returns
        -------
        float
            The higher, the better.
        """
        check_is_fitted(self)
        memberships = self._encoded(self._views_of(X)) if self.supervisory_.views else self.predict_proba(X)
        X = rows_of(self._validate_items(X, self.encoder_, reset=False))
        p_spec = self.supervisory_
        if "chosen_" in vars(self) and self.supervisory is None:
            p_spec, y = self._local(X, self.n_clusters_), None
        return -self._loss(self._case(p_spec, self.learned_, self.encoder_)).value(X, y, memberships)

    def _drawn(self, X: Rows, y: Any) -> Drawn:
        memberships = self.predict_proba(X)
        log_memberships = np.log(np.maximum(memberships, np.finfo(memberships.dtype).tiny))
        return Drawn(self._p_drawn(X, y, self.debias_), log_memberships, self.debias_)

    def _views_of(self, X: Rows) -> Any:
        """Views of items, drawn by a seed of their own."""
        import torch

        from .._core.seeding import seeded

        with seeded(0):
            items = self._validate_items(X, self.encoder_, reset=False)
            return self.supervisory_.views.draw(torch.as_tensor(np.array(items))).numpy()

    @property
    def _n_features_out(self) -> int:
        return self.n_clusters_

    def _tag_input(self, input_tags: Any, p_spec: Any) -> None:
        """Distances of rows where metric is "precomputed", or weights."""
        input_tags.pairwise = p_spec is not None and p_spec.pairwise

    def __sklearn_tags__(self) -> Any:
        """Memberships keep the precision of X."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _hidden(kept: Any, rows: Any) -> dict[str, float]:
    """What a fit beside known classes says of those hidden in their clusters, of all rows of a `Distinct`."""
    if rows.known is None:
        return {}
    copies = rows.first if rows.features is None else row_digests(rows.features)
    return {"hidden": hidden_mass(kept.p, kept.memberships.argmax(axis=1), rows.known, rows.weight, copies)}
