"""`ICONClassifier`: classes as prototypes, softmax regression by default."""

from __future__ import annotations

from functools import partial
from math import prod
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, _check_y, check_consistent_length, check_is_fitted

from .. import encoders, learned, supervisory
from .._core.conditional import warn_left_out, warn_rows_without_positives
from .._core.device import working_on
from .._core.group import group
from .._core.journal import remembered
from .._core.labels import (
    class_probabilities,
    class_weights,
    classes_and_codes,
    codes_of,
    is_known,
    is_one_hot,
    told_apart,
)
from .._core.rows import refuse_hidden, rows_of, shape_of
from .._core.types import Array, Jobs, Rows, Seed
from .._graph.recalled import recalled_p
from .._training.given import Labelled
from .base import Drawn, ICon
from .linear import LinearPart, linear_map
from .over_ranks import MOST_BY_FIRST
from .routes import Case, route_of

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

_MAX_REPRESENTATION = 64
_FAR, _FARTHEST = 1e6, 1e100  # times the prototypes, where distances round; and where their squares overflow
_NAMED = {
    "gaussian": partial(learned.Gaussian, metric="dot"),
    "dot": partial(learned.Gaussian, metric="dot"),
    "cosine": partial(learned.Gaussian, metric="cosine", tau=0.1),
}
_OF_PROTOTYPES = {"student_t": partial(learned.StudentT, df=10.0), "harmonic": partial(learned.Harmonic, n=4.0)}


class ICONClassifier(LinearPart, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, ICon):
    r"""Classifiers as I-Con losses: softmax regression by default, other losses by choice of p, q and encoder.

    ::

        minimise  sum_i s_i D( p(.|i) || q(.|i) ) / sum_i s_i  +  R(W) / (C sum_i s_i)
        R(W) = (1 - l1_ratio) |W|^2 / 2  +  l1_ratio |W|_1
        p(c|i) = 1[i belongs to c],     q(c|i) = k(f(x_i), w_c) / sum_b k(f(x_i), w_b)

    with prototypes w_c, sample weights s_i and W all weight matrices. With the defaults this is
    scikit-learn's LogisticRegression, the same C included. With p over rows ("same_class") the encoder first
    learns representations, as in supervised contrastive learning, and a softmax regression on them comes after.

    Parameters
    ----------
    supervisory : Supervisory or str, default=None
        The distribution p. None is `supervisory.DataLabel()`; "propagated_label" lets a row whose label is -1 take
        those of its neighbours; "same_class" learns representations first.
    learned : Learned or str, default=None
        The distribution q. None is "dot", `learned.Gaussian(metric="dot")`, the softmax; with p over rows
        "cosine", `learned.Gaussian(metric="cosine", tau=0.1)`. "gaussian" is "dot". Against prototypes "student_t" is
        `learned.StudentT(df=10.0)` and "harmonic" `learned.Harmonic(n=4.0)`: tails as heavy as those of df=1 and n=1
        leave rows unsure, as they put the odds of classes at the ratio of squared distances.
    encoder : Encoder or str, default=None
        How rows become representations. None is `encoders.Linear()`. Any of them reads items of any shape, such as
        images; "mlp" and linear maps as rows.
    divergence : Divergence or str, default="kl"
        D: "kl", "reverse_kl", "jensen_shannon", "total_variation", "squared_hellinger", or a member of a family of
        `sklearn_icon.divergences`.
    debias : float in [0, 1), default=0.0
        Uniform mass mixed into p: label smoothing.
    C : float, default=1.0
        Inverse strength of the penalty; `np.inf` is none. Cosine and harmonic q, which do not change with scale, have
        none.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in LogisticRegression.
    max_iter : int or "auto", default="auto"
        Iterations of Newton's method or L-BFGS, which solve linear encoders, "auto" is 100; passes over the rows of
        Adam, which trains networks, "auto" is 10, or as many as make 300 steps.
    tol : float, default=1e-4
        Softmax regression of up to 2,000 coefficients under KL is solved until no entry of the gradient exceeds this,
        and on to about 1e-8 of the coefficients. L-BFGS, for the others, ends where no entry of the gradient exceeds
        it; Adam where a pass over the rows, or 50 steps, lower the mean loss by a smaller fraction.
    learning_rate : float or "auto", default="auto"
        Rate of Adam, which falls to zero along a cosine; "auto" is 0.003.
    early_stopping : bool, default=False
        Hold out some labelled rows, end where their loss no longer falls, and keep what served them best. Every class
        needs two rows. Not with p over rows.
    validation_fraction : float in (0, 1), default=0.1
        The fraction of rows that `early_stopping` holds out, stratified by class.
    n_iter_no_change : int, default=10
        Iterations without a lower loss of held-out rows after which `early_stopping` ends the fit.
    device : str, default="auto"
        "auto" is CUDA where there is one, else the CPU; "cuda" without CUDA raises.
    random_state : int, RandomState instance or None, default=None
        Seeds the weights and the batches of networks.
    n_jobs : int, default=None
        Threads; None leaves the libraries' own settings.
    verbose : int, default=0
        1 prints stages, and every 50 iterations with loss and seconds; 2 every 10, 3 each. Where logging of
        "sklearn_icon" is set up for INFO, lines go there.
    warm_start : bool, default=False
        Start a softmax regression from the last fit's coefficients.
    fit_intercept : bool, default=True
        Whether softmax regression has intercepts.
    penalty : {"auto", "l1", "l2", "elasticnet"} or None, default="auto"
        Another way to say `l1_ratio`: "l2" is 0, "l1" is 1, "auto" and "elasticnet" are what it says. None is no
        penalty, as is C=np.inf.
    l1_ratio : float in [0, 1], default=None
        Part of the l1 norm in the penalty of softmax regression, which sets coefficients to zero; None is 0. With
        divergence="kl", on the CPU, without `early_stopping`.
    solver : {"auto", "lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"}, default="auto"
        For code written for LogisticRegression: all names stand for one method here, and the optimum is theirs, but
        for "liblinear", which penalises intercepts there. What a solver has not got there is an error here.
    dual : bool, default=False
        Likewise: liblinear's dual problem has the optimum of the primal one, which is solved.
    intercept_scaling : float, default=1
        Likewise: without effect, as intercepts are not penalised.
    checkpoint : str or path-like, default=None
        A file that keeps what the fit has computed, every 10 seconds and at the ends of stages as long as this takes a
        hundredth of the time, and at the end: the same call in another process goes on from it to the same bits on a
        CPU, and from that of a finished fit at once. One of other data, parameters, device or version is refused. Fits
        of a grid search have files of their own beside it.
    max_memory : float, default=None
        Bytes that a fit may add to what the process has, as `estimate_memory` counts them: one that needs more is a
        MemoryError before anything is computed, and what is computed in pieces is in smaller ones. None: as many as
        are free.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        Of softmax regression on X: the default p, a dot-product q, a linear encoder.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Likewise.
    prototypes_ : ndarray of shape (n_classes, n_outputs)
        The keys w_c; one-hot under a dot-product q.
    loss_curve_ : ndarray
        The objective at each iteration.
    validation_loss_curve_ : ndarray
        D on the held-out rows after each iteration; empty without `early_stopping`.
    n_iter_ : ndarray of shape (1,)
        Iterations run; passes over the rows where Adam trains.
    device_ : str
        Where the fit ran.
    fit_report_ : dict
        What is known of the fit: seed, specs, route, device, iterations, loss, why it stopped, seconds of each stage
        and in all.
    supervisory_, learned_, encoder_ : specs
        What None and short names stood for.
    n_features_in_ : int
        Columns of X; numbers of an item where X has more than two axes.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of X's columns, where all are strings.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : The default, by other means.

    References
    ----------
    Alshammari et al., "I-Con: A unifying framework for representation learning", ICLR 2025, table 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon import ICONClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> ICONClassifier().fit(X, y).predict(X[[0, 60, 120]]).tolist()
    [0, 1, 2]
    """

    __module__ = "sklearn_icon"  # where users find it

    _absent: Any = ()  # classes that no row with a weight had
    _parameter_constraints: dict = (
        ICon._parameter_constraints
        | LinearPart._linear_constraints
        | {
            "debias": [Interval(Real, 0, 1, closed="left")],
            "class_weight": [dict, StrOptions({"balanced"}), None],
            "max_iter": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
            "tol": [Interval(Real, 0, None, closed="left")],
            "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
            "early_stopping": ["boolean"],
            "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
            "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
            "warm_start": ["boolean"],
        }
    )

    def __init__(
        self,
        *,
        supervisory: supervisory.Supervisory | str | None = None,
        learned: learned.Learned | str | None = None,
        encoder: encoders.Encoder | str | None = None,
        divergence: str = "kl",
        debias: float = 0.0,
        C: float = 1.0,
        class_weight: dict[Any, float] | str | None = None,
        max_iter: int | str = "auto",
        tol: float = 1e-4,
        learning_rate: float | str = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        device: Any = "auto",
        random_state: Seed = None,
        n_jobs: Jobs = None,
        verbose: int = 0,
        warm_start: bool = False,
        fit_intercept: bool = True,
        penalty: str | None = "auto",
        l1_ratio: float | None = None,
        solver: str = "auto",
        dual: bool = False,
        intercept_scaling: float = 1,
        checkpoint: str | PathLike[str] | None = None,
        max_memory: float | None = None,
    ) -> None:
        self.supervisory = supervisory
        self.learned = learned
        self.encoder = encoder
        self.divergence = divergence
        self.debias = debias
        self.C = C
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.warm_start = warm_start
        self.fit_intercept = fit_intercept
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.solver = solver
        self.dual = dual
        self.intercept_scaling = intercept_scaling
        self.checkpoint = checkpoint
        self.max_memory = max_memory

    _less_memory = "choose encoder='mlp', which trains on minibatches"

    def _memory(self, size):
        """See `estimate_memory`; of ten classes."""
        from .memory import MEGABYTE, libraries, of_batches

        fixed, default = libraries(False) + 10 * MEGABYTE, (self.supervisory, self.learned, self.encoder) == (None,) * 3
        specs: tuple = () if default else self._resolve_specs()
        if default or self._is_softmax_regression(specs):
            return fixed + 100_000 * size.columns + size.rows * (16 * size.columns - size.row_bytes + 480)
        if specs[0].over_rows:
            return fixed + max(of_batches(size), 2900 * size.rows)
        return fixed + (3 * size.rows * size.row_bytes if specs[2].is_linear else of_batches(size))

    def _default_specs(self):
        return "data_label", "cosine" if self._is_over_rows() else "dot", "linear"

    def _is_over_rows(self):
        p_spec = self._named_p()
        return p_spec is not None and p_spec.over_rows

    def _learned_names(self):
        return super()._learned_names() | _NAMED | ({} if self._is_over_rows() else _OF_PROTOTYPES)

    def _learns(self, name, specs):
        return name == "tau" and not specs[0].over_rows and not specs[1].mixture and specs[1].affinity == "cosine"

    def _contrasts(self, specs):
        return specs[0].keys == "rows"

    def _is_softmax_regression(self, specs):
        p_spec, q_spec, encoder = specs
        return Case(p_spec, q_spec, encoder, {}).regression

    def fit(self, X: Rows, y: Any, sample_weight: Any = None) -> Self:
        """Fit the classifier.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; or items of any shape, (n_samples, ...), integers as single precision.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels of any kind; -1 for unknown ones under "propagated_label". Or rows of class probabilities, the
            classes being the columns' names in a data frame, else their numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the average; a weight of 3 counts as three copies of the row, one of 0 as none.

        Returns
        -------
        ICONClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            Fewer than two classes, rows of y that are no probabilities, or specs that do not classify.
        """
        p_spec, q_spec, encoder, device, random_state = self._begin()
        among_rows = p_spec.over_rows or p_spec.allows_unknown  # which ranks do not share
        few = group().several and among_rows and group().total(shape_of(X)[0]) <= MOST_BY_FIRST
        case = Case(p_spec, q_spec, encoder, self.get_params(deep=False), few_rows=few)
        self._route("ICONClassifier", case)
        y, names = self._validate_y(y, p_spec)
        X = self._validate_items(X, encoder, reset=True)
        check_consistent_length(X, y)
        sample_weight = self._validate_weights(sample_weight, X)
        if few:
            self._fit_by_first(X, y, sample_weight)
            if names is not None:
                self.classes_ = names
            return self
        known = is_known(y) if p_spec.allows_unknown else np.ones(len(y), dtype=bool)
        classes, codes = classes_and_codes(y, known, names)
        kept = np.flatnonzero(sample_weight)
        if len(kept) < len(codes):  # else no copy, which rows on disk may be too many for
            X, codes, sample_weight, known = X[kept], codes[kept], sample_weight[kept], known[kept]
        with self._threads(prod(X.shape) if encoder.flat or X.ndim == 2 else None), working_on(device):
            given, how = supervisory.DataLabel() if p_spec.over_rows else p_spec, {"n_jobs": self.n_jobs}
            labels = recalled_p(lambda: given.conditional(rows_of(X), codes, random_state=random_state, **how))
            if codes.ndim == 1 and labels.shape[1] < len(classes):
                labels = labels.with_keys(np.unique(codes[known]), len(classes))
            sample_weight = sample_weight / (unit := group().largest(sample_weight.max(initial=0)))  # no sum overflows
            weights = labels.weights @ class_weights(self.class_weight, classes, labels, sample_weight) * sample_weight
            absent = np.flatnonzero(group().total(labels.masses(weights)) == 0)
            if not p_spec.over_rows:
                labels = labels.mix(self.debias)
                warn_rows_without_positives(labels)
            rows = Labelled(labels, X, weights)
            solution = self._solve(rows, codes, known, unit, case, device, random_state).without(absent)
        self.supervisory_, self.learned_, self.encoder_, self.device_ = p_spec, solution.learned, encoder, str(device)
        self.n_iter_, self.loss_curve_ = np.array([solution.result.n_iter], dtype=np.int32), solution.result.loss_curve
        self.classes_, self.validation_loss_curve_ = classes, np.asarray(solution.held_losses)
        self.prototypes_, self._state = solution.prototypes, solution.state
        self._coef, self._intercept, self._absent = solution.coef, solution.intercept, absent
        self._warn_unless_converged(solution.result, "raise max_iter, or scale X")
        return self

    @staticmethod
    def _validate_weights(sample_weight, X):
        """A weight of each row."""
        if sample_weight is None and not group().several:
            return np.ones(X.shape[0])
        refuse_hidden(sample_weight, "sample_weight")
        sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not group().total(sample_weight.sum()):  # older scikit-learn lets this pass
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return sample_weight

    def _validate_y(self, y, p_spec):
        """(y, names of its columns or None): labels, or rows of probabilities."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        refuse_hidden(y, "y")
        shape = shape_of(y)
        if len(shape) == 2 and type_of_target(y) == "multilabel-indicator" and not is_one_hot(y):
            raise ValueError(
                f"y of shape {shape} says of each row which labels it has, any number of them; wrap "
                f"{type(self).__name__} in sklearn.multiclass.OneVsRestClassifier or "
                "sklearn.multioutput.MultiOutputClassifier, or pass class probabilities, whose rows sum to one."
            )
        if sparse.issparse(y):
            raise TypeError(f"y is a sparse matrix of shape {shape}; pass y.toarray(), or labels as a 1-D array.")
        names = np.asarray(y.columns) if hasattr(y, "columns") else None
        soft = len(shape) == 2 and shape[1] > 1
        y = _check_y(y, multi_output=soft, y_numeric=soft, estimator=self)
        if not soft:
            labels = y[is_known(y)] if p_spec.allows_unknown else y
            if labels.dtype.kind not in "biu" or 2 * len(np.unique(labels)) > len(labels):  # else they are classes
                try:
                    check_classification_targets(labels)
                except (TypeError, ValueError):
                    if labels.dtype.kind == "O":
                        told_apart(labels, "of one kind")
                    raise
            return y, None
        if not p_spec.reads_probabilities:
            raise ValueError(
                f"y of shape {y.shape} holds class probabilities, which {p_spec} does not read; use "
                "supervisory='data_label', or pass 1-D labels."
            )
        return class_probabilities(y), names

    def _solve(self, rows, codes, known, unit, case, device, random_state):
        """Solve by the route that the specs call for; weights of rows are in multiples of a unit."""
        from .._objective.loss import Loss
        from .._optim.train import Run, Training
        from .._training.prototypes import Start, solve_linear, solve_prototypes, solves_exactly
        from .._training.softmax_loss import Penalty
        from ..encoders._networks import torch_dtype

        p_spec, q_spec, encoder = case.p, case.q, case.encoder
        route, seed = route_of("ICONClassifier", case), random_state.randint(np.iinfo(np.int32).max)
        run, loss = Run(torch_dtype(rows.X), device, seed, self._on_step), Loss(q_spec, self.divergence)
        max_iter = None if self.max_iter == "auto" else self.max_iter
        training = Training(self.learning_rate, max_iter, self.tol, patience=self.n_iter_no_change)
        penalty, l1_ratio = self._penalties(unit * group().total(rows.weight.sum()))
        linear, exact = route == "softmax regression", solves_exactly(loss, run) and not self.early_stopping
        self._check_linear_options(linear, exact, penalty, l1_ratio, rows.p.shape[1])
        self._check_size(rows.X)
        if route == "representations":
            return self._represent(rows, codes, p_spec, loss, encoder, penalty, training, run)
        rows, held = rows._replace(X=rows_of(rows.X) if linear else rows.X), None
        if self.early_stopping:
            rows, held = self._split(rows, codes, known, random_state)
        if linear:
            penalties = Penalty(penalty * l1_ratio, penalty * (1 - l1_ratio))
            start = Start(self._start(rows.p.shape[1]), self.fit_intercept)
            return solve_linear(rows, held, loss, penalties, start, training, run)
        return solve_prototypes(rows, held, loss, encoder, penalty, training, run)

    def _split(self, rows, codes, known, random_state):
        """(rows to fit, rows held out of those whose label is known), of which each rank has its own."""
        ranks, (first, _) = group(), group().first_of(len(known))
        own, codes, known = slice(first, first + len(known)), ranks.gathered(codes), ranks.gathered(known)
        candidates = np.flatnonzero(known)
        strata = codes[candidates] if codes.ndim == 1 else None
        n_held = max(1, int(np.ceil(self.validation_fraction * len(candidates))))
        if strata is not None and (np.bincount(strata)[strata] == 1).any():
            lone = int(np.flatnonzero(np.bincount(strata)[strata] == 1)[0])
            raise ValueError(
                f"early_stopping=True holds out validation_fraction={self.validation_fraction} of the rows of each "
                f"class, but row {candidates[lone]} is the only one of its class; leave it out, or use False."
            )
        if strata is not None and _can_stratify(strata, n_held):
            how = {"test_size": self.validation_fraction, "stratify": strata, "random_state": random_state}
            held = train_test_split(candidates, **how)[1]
        else:  # one row of each class stays, whatever is drawn; of probabilities any row
            drawn = random_state.permutation(len(candidates))
            stays = drawn[:1] if strata is None else drawn[np.unique(strata[drawn], return_index=True)[1]]
            candidates = np.delete(candidates, stays)
            if not len(candidates):
                raise ValueError(
                    f"early_stopping=True cannot hold out validation_fraction={self.validation_fraction} of the rows: "
                    "one of each class has to stay, and there are no others. Use early_stopping=False."
                )
            held = random_state.choice(candidates, min(n_held, len(candidates)), replace=False)
        is_held = np.isin(np.arange(len(known)), held)[own]
        return rows.take(np.flatnonzero(~is_held)), rows.take(np.flatnonzero(is_held))

    def _represent(self, rows, codes, p_spec, loss, encoder, penalty, training, run):
        """Representations of rows under a p over rows, and softmax regression on them at unit spread."""
        from .._objective.loss import Loss
        from .._training.contrast import solve_representation
        from .._training.prototypes import LBFGS_ITERATIONS, Start, solve_linear
        from .._training.softmax_loss import Penalty
        from ..encoders._scaling import input_scale

        draws = {"n_jobs": self.n_jobs, "random_state": remembered(np.random.RandomState(run.seed))}

        def p_of(items, codes):
            return p_spec.conditional(rows_of(items), codes, **draws).mix(self.debias)

        n_components = min(_MAX_REPRESENTATION, self.n_features_in_)
        represented = solve_representation(p_of, loss, encoder, rows, codes, n_components, training, run)
        warn_left_out(np.bincount(codes)[codes] == 1)
        factor = input_scale(represented.embedding, rows.weight)[1]
        training = training._replace(max_iter=max(training.max_iter or 0, LBFGS_ITERATIONS))
        rows, dot = rows._replace(X=represented.embedding * factor), Loss(_NAMED["dot"]())
        head: Any = solve_linear(rows, None, dot, Penalty(0.0, penalty), Start(), training, run)
        return head._replace(learned=loss.learned, state=represented.state, coef=head.coef * factor)

    def _represented(self, X):
        """Items through the encoder, or as rows where there is no separate one."""
        if not self._state:
            return rows_of(X)
        return self._encode(self.encoder_, self._state, X, self._n_outputs)

    def _validate_rows(self, X):
        check_is_fitted(self, "classes_")
        return self._validate_items(X, self.encoder_, reset=False)

    def _log_q(self, X):
        """log q(c|x) up to a constant of the row, shape (n_samples, n_classes)."""
        represented = self._represented(X)
        if self._coef is None:
            return self._without_absent(_log_kernel(self.learned_, represented, self.prototypes_))
        logits = linear_map(represented, self._coef, self._intercept)
        return np.hstack([np.zeros_like(logits), logits]) if len(self.classes_) == 2 else logits

    def _without_absent(self, logits):
        """Logits against prototypes by which nothing is of a class that no row with a weight had."""
        from .._training.softmax import without

        logits, nothing = without(self._absent, logits.T, np.zeros(logits.shape[1]))
        return logits.T + nothing

    def _drawn(self, X, y):
        if self.supervisory_.over_rows:
            return super()._drawn(X, y)
        X, y = self._validate_rows(X), self._validate_y(y, self.supervisory_)[0]
        check_consistent_length(X, y)
        known = is_known(y) if self.supervisory_.allows_unknown else np.ones(len(y), dtype=bool)
        codes = codes_of(y, known, self.classes_)
        p = self._p_drawn(rows_of(X), codes, self.debias)
        if codes.ndim == 1:
            p = p.with_keys(np.unique(codes[known]), len(self.classes_))
        return Drawn(p, self._represented(X), log_q=log_softmax(self._log_q(X), axis=1), names=self.classes_)

    def _chains(self):
        from .._training.softmax import without
        from .exporting import logits

        q_spec, directions = self.learned_, self.learned_.affinity == "cosine"
        coded = self._steps_of(self.encoder_, self._state, self.n_features_in_, self._n_outputs) if self._state else []
        if self._coef is not None:
            head = logits(self._coef, self._intercept, len(self.classes_))
        elif q_spec.affinity in ("dot", "cosine") and not q_spec.mixture:
            weight = _log_kernel(q_spec, np.eye(self.prototypes_.shape[1]), self.prototypes_)
            weight, bias = without(self._absent, weight.T, np.zeros(len(self.classes_)))
            head = [*[("unit", [])] * directions, ("affine", [weight.T, bias])]
        else:
            raise TypeError(
                f"export needs logits that are linear in representations, but {q_spec} compares these with prototypes; "
                "use learned='dot' or 'cosine', or save(path), which keeps any estimator."
            )
        return {"predict_proba": [*coded, *head, ("softmax", [])]}, self.classes_

    def decision_function(self, X: Rows) -> Array:
        """Logits: log q(c|x) up to a constant of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows, or items as in the fit.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes the logit of the second.
        """
        logits = self._log_q(self._validate_rows(X))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_log_proba(self, X: Rows) -> Array:
        """log q(c|x), the log-softmax of the logits.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Logarithms of what `predict_proba` returns, also where that is zero to the precision.
        """
        return log_softmax(self._log_q(self._validate_rows(X)), axis=1)

    def predict_proba(self, X: Rows) -> Array:
        """q(c|x), the softmax of the logits.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows sum to one.
        """
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Rows) -> Array:
        """The likeliest class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels as they were given.
        """
        likeliest = self._log_q(self._validate_rows(X)).argmax(axis=1)
        return self.classes_[likeliest]

    def transform(self, X: Rows) -> Any:
        """Representations f(x): the encoder's outputs, which are the logits of softmax regression.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs)
            One row of outputs for each row of X.
        """
        represented = self._represented(self._validate_rows(X))
        if self._state:
            return represented
        return linear_map(represented, self._coef, self._intercept).astype(represented.dtype, copy=False)

    @property
    def _n_outputs(self) -> int:
        """Columns of the representation."""
        if not self._state:
            return self._coef.shape[0]
        return self.prototypes_.shape[1] if self._coef is None else self._coef.shape[1]

    @property
    def _n_features_out(self) -> int:
        return self._n_outputs

    def __sklearn_tags__(self):
        """Representations keep the precision of X."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _log_kernel(q_spec, z, prototypes):
    """log k(z_i, w_c) up to a number of each row, or log q where a mixture on q makes the two differ.

    ::

        log k(|z - w|^2) - log k(|z|^2)  =  h(|z|^2) (|w|^2 - 2 z . w),     h = d log k / d (d^2),

    where |z| is so much above |w| that squared distances round alike, or overflow.
    """
    import torch

    with torch.no_grad():
        rows, keys = q_spec.prepare(torch.as_tensor(z).double(), torch.as_tensor(prototypes).double())
        size = rows.abs().amax(1, keepdim=True)
        rows = rows * (_FARTHEST / size.clamp_min(_FARTHEST))
        log_k, kernel = q_spec.pairwise(rows, keys), q_spec.unmixed()
        far = size[:, 0] > _FAR * keys.abs().max()
        if kernel.euclidean and far.any():
            sq_sizes = rows[far].square().sum(1, keepdim=True)
            log_k[far] = kernel.slope(sq_sizes) * (keys.square().sum(1) - 2 * rows[far] @ keys.T)
        return (q_spec.finish(log_k.log_softmax(1), len(prototypes)) if q_spec.mixture else log_k).numpy()


def _can_stratify(codes, n_held):
    """Whether rows can be held out of each class in proportion, and some stay."""
    counts = np.bincount(codes)
    counts = counts[counts > 0]
    return counts.min() >= 2 and len(counts) <= n_held <= len(codes) - len(counts)
