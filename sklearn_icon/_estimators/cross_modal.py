"""`ICONCrossModal`: rows of two modalities that find each other, CLIP by default."""

from __future__ import annotations

from functools import partial
from math import prod
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _wrap_data_with_container
from sklearn.utils.validation import _num_samples, check_consistent_length, check_is_fitted

from .. import encoders, learned, supervisory
from .._core.device import working_on
from .._core.group import group
from .._core.rows import (
    check_item_shape,
    copy_counts,
    refuse_hidden,
    row_digests,
    rows_of,
    with_copies,
    with_int32_indices,
)
from .._core.spec import resolve
from .._core.types import Jobs, Rows, Seed
from .._graph.recalled import recalled_p
from .._objective.divergences import terms_of
from .._training.given import Modalities
from .base import Drawn, ICon
from .linear_maps import LinearMaps, PairOfModalities
from .progress import counted
from .routes import Case

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

_PASSES, _LEAST_STEPS = 20, 600  # unless max_iter says how many passes
_FLAT, _FEW_ROWS = 2, 100  # components up to which, and rows below which, maps are linear
_BATCH_ROWS, _ALL_ROWS = 256, 2048
_PAIRS = 1 << 23  # in the blocks of linear maps together, down to blocks of 256 rows
_COSINE = partial(learned.Gaussian, metric="cosine", tau="learn")
_NAMED = {"gaussian": _COSINE, "cosine": _COSINE}


class ICONCrossModal(LinearMaps, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ICon):
    r"""Two encoders, one a modality, under which row i of X and row i of y find each other: CLIP by default.

    ::

        minimise over f, g:   [ mean_i D( p(.|i) || q(.|i) )  +  mean_j D( p(.|j) || q(.|j) ) ] / 2
        p(j|i) = 1[j = i],    q(j|i) = k(f(x_i), g(y_j)) / sum_b k(f(x_i), g(y_b)),    q(i|j) likewise over the x_b

    The keys b are the rows of a minibatch. With the defaults this is the symmetric cross-entropy of the cosines over a
    learned temperature. `learned.StudentT()` makes it t-CLIP, `learned.WideGaussian()` average-margin CLIP and
    `learned.NarrowGaussian()` triplet CLIP. The losses of these two limits hold on the sphere (the first
    falls without bound off it), so there, as under a cosine, representations are unit rows, whose squared distance
    is 2 - 2 cos.

    Parameters
    ----------
    n_components : int, default=32
        Columns of both representations.
    supervisory : Supervisory or str, default=None
        The distribution p. None is `supervisory.CrossModalPairs()`; wrappers of it are accepted.
    learned : Learned or str, default=None
        The distribution q. "gaussian" and "cosine" are `learned.Gaussian(metric="cosine", tau="learn")`, as is None,
        unless there are one or two components: unit rows would lie on a circle, and None is `learned.StudentT()`.
    encoder : Encoder or str, default=None
        How rows of X become representations. None is `encoders.MLP()`; of one or two components, and of fewer than 100
        rows, `encoders.Linear()`. Any of them reads items of any shape, such as images; "mlp" and linear maps as rows.
    encoder_y : Encoder or str, default=None
        How rows of y do. None: as `encoder`, with weights of its own.
    divergence : Divergence or str, default="kl"
        D: "kl", "reverse_kl", "jensen_shannon", "total_variation", "squared_hellinger", or a member of a family of
        `sklearn_icon.divergences`.
    debias : float in [0, 1), default=0.0
        Uniform mass mixed into p.
    max_iter : int or "auto", default="auto"
        Passes over the rows; "auto" is 20, or as many as make 600 steps. Iterations of L-BFGS are passes: at most 200.
    batch_size : int or "auto", default="auto"
        Rows of a minibatch at the most, which are each other's keys. "auto" is 256. Two linear maps are found by L-BFGS
        where all rows are one batch, with a penalty of `(|R_x|^2 + |R_y|^2) / 2n` on the weights of standardised
        columns unless q is of cosines; under "auto" of all rows, without randomness up to 2,048 of them, and in random
        blocks that stay, of 2,048 to 256 rows, where there are more.
    learning_rate : float or "auto", default="auto"
        Rate of Adam, which falls to zero along a cosine; "auto" is 0.002.
    tol : float, default=1e-4
        Training ends where a pass over the rows, or 50 steps, lower the mean loss by a smaller fraction; L-BFGS, where
        five iterations lower it by less, or by a smaller fraction if it is above one.
    scale : bool, default=True
        Whether `x_rotations_`, `x_loadings_` and the like are of standardised columns. Linear maps themselves are found
        whatever the units of columns.
    copy : bool, default=True
        As in CCA; data are never changed.
    device : str, default="auto"
        "auto" is CUDA where there is one, else the CPU; "cuda" without CUDA raises.
    random_state : int, RandomState instance or None, default=None
        Seeds the weights, the batches and what modules draw in training.
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
    max_memory : float, default=None
        Bytes that a fit may add to what the process has, as `estimate_memory` counts them: one that needs more is a
        MemoryError before anything is computed, and what is computed in pieces is in smaller ones. None: as many as
        are free.

    Attributes
    ----------
    loss_curve_ : ndarray
        The loss of each minibatch.
    n_iter_ : int
        Passes over the rows.
    device_ : str
        Where the fit ran.
    fit_report_ : dict
        What is known of the fit: seed, specs, route, device, iterations, loss, why it stopped, repeated rows (unless
        there are many), seconds of each stage and in all.
    supervisory_, learned_, encoder_, encoder_y_ : specs
        What None and short names stood for; `learned_` with the temperature that was learned.
    n_features_in_ : int
        Columns of X; numbers of an item where X has more than two axes.
    n_features_y_ : int
        Likewise of y.
    x_weights_, y_weights_, x_rotations_, y_rotations_, x_loadings_, y_loadings_, coef_, intercept_ : ndarray
        Where both maps are linear: as of `CCA`, of the maps before rows are scaled to unit length.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of X's columns, where all are strings.

    See Also
    --------
    sklearn.cross_decomposition.CCA : Linear maps of two modalities with the most correlated columns.

    References
    ----------
    Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, figure 3.
    Alshammari et al., "I-Con: A unifying framework for representation learning", ICLR 2025, table 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_icon import ICONCrossModal
    >>> X, _ = load_digits(return_X_y=True)
    >>> upper, lower = X[:, :32], X[:, 32:]
    >>> pairs = ICONCrossModal(random_state=0).fit(upper[:1500], lower[:1500])
    >>> pairs.transform(upper[1500:]).shape
    (297, 32)
    >>> pairs.transform(None, lower[1500:]).shape
    (297, 32)
    >>> Z_upper, Z_lower = pairs.transform(upper[1500:], lower[1500:])
    >>> pairs.score(upper[1500:], lower[1500:]) > 0.1
    True
    """

    __module__ = "sklearn_icon"  # where users find it

    _parameter_constraints: dict = ICon._parameter_constraints | {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "encoder_y": "no_validation",
        "debias": [Interval(Real, 0, 1, closed="left")],
        "max_iter": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left")],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "scale": ["boolean"],
        "copy": ["boolean"],
    }

    def __init__(
        self,
        n_components: int = 32,
        *,
        supervisory: supervisory.Supervisory | str | None = None,
        learned: learned.Learned | str | None = None,
        encoder: encoders.Encoder | str | None = None,
        encoder_y: encoders.Encoder | str | None = None,
        divergence: str = "kl",
        debias: float = 0.0,
        max_iter: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        tol: float = 1e-4,
        scale: bool = True,
        copy: bool = True,
        device: Any = "auto",
        random_state: Seed = None,
        n_jobs: Jobs = None,
        verbose: int = 0,
        checkpoint: str | PathLike[str] | None = None,
        max_memory: float | None = None,
    ) -> None:
        self.n_components = n_components
        self.supervisory = supervisory
        self.learned = learned
        self.encoder = encoder
        self.encoder_y = encoder_y
        self.divergence = divergence
        self.debias = debias
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.tol = tol
        self.scale = scale
        self.copy = copy
        self.device, self.random_state, self.n_jobs = device, random_state, n_jobs
        self.verbose = verbose
        self.checkpoint = checkpoint
        self.max_memory = max_memory

    _less_memory = "lower batch_size"

    def _memory(self, size):
        """See `estimate_memory`; of a y as wide as X."""
        from .memory import MEGABYTE, libraries, of_batches

        fixed, rows = libraries(False) * 1.4 + 10 * MEGABYTE, min(size.rows, _ALL_ROWS)
        if not self._resolve_specs()[2].is_linear or self.batch_size != "auto":
            return fixed + of_batches(size)
        return fixed + max(11 * rows**2, 36 * size.rows * size.columns)

    def _default_specs(self):
        flat = self.n_components <= _FLAT
        return "cross_modal", "student_t" if flat else "cosine", "linear" if flat else "mlp"

    def _learned_names(self):
        return super()._learned_names() | _NAMED

    def _learns(self, name, specs):
        return name == "tau" and specs[1].affinity == "cosine"

    def fit(self, X: Rows, y: Any, sample_weight: Any = None) -> Self:
        """Train both encoders.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows of one modality; or items of any shape, (n_samples, ...), integers as single precision.
        y : {array-like, sparse matrix} of shape (n_samples, n_features_y) or (n_samples,)
            The other modality, rows or items likewise: row i belongs to row i of X.
        sample_weight : array-like of shape (n_samples,), default=None
            Copies of each pair, whole numbers: a weight of 3 is the pair three times over, also as keys of others, and
            at the cost of as many; one of 0 is a pair that is not there.

        Returns
        -------
        ICONCrossModal
            The fitted estimator.

        Raises
        ------
        ValueError
            X and y of different lengths, or specs that do not map pairs.
        """
        p_spec, q_spec, encoder, device, random_state = self._begin()
        counts = copy_counts(sample_weight, X)
        if self.encoder is None and group().total(_num_samples(X) if counts is None else counts.sum()) < _FEW_ROWS:
            encoder = encoders.Linear()
        encoder_y = resolve(
            encoder if self.encoder_y is None else self.encoder_y, encoders.Encoder, encoders.NAMES, "encoder_y"
        )
        self._route("ICONCrossModal", Case(p_spec, q_spec, encoder, self.get_params(deep=False), encoder_y=encoder_y))
        X = self._validate_items(X, encoder, reset=True)
        refuse_hidden(y, "y")
        one_dimensional = not issparse(y) and np.asarray(y).ndim == 1
        y = None if y is None else self._validate_y(y, X.dtype)
        if counts is not None and y is not None:
            check_consistent_length(X, y)
            X, y = with_copies(X, counts), with_copies(y, counts)
        if y is not None:
            group().agree("the type and shape of an item of y", f"{y.dtype} {y.shape[1:]}")
        with working_on(device):
            p = recalled_p(lambda: p_spec.conditional(X, y, n_jobs=self.n_jobs, random_state=random_state))
            p = p.mix(self.debias)
        self._progress.facts |= counted(None, X)
        solution = self._solve(Modalities(X, y), p.uniform, q_spec, (encoder, encoder_y), device, random_state)
        self.supervisory_, self.learned_, self.device_ = p_spec, solution.learned, str(device)
        self.encoder_, self.encoder_y_ = encoder, encoder_y
        self.n_iter_, self.loss_curve_ = solution.result.n_iter, solution.result.loss_curve
        self.n_features_y_, self._item_shape_y = prod(y.shape[1:]), y.shape[1:]
        self._progress.facts["stop_reason"] = solution.result.why
        self._states, self._columns_found = solution.states, self.n_components
        self._keep_linear(X, y, one_dimensional)
        return self

    def _solve(self, sides, uniform, q_spec, both, device, random_state):
        """Train with what the parameters choose."""
        from .._objective.loss import Loss
        from .._optim.train import Run, Training
        from .._training.linear_pairs import solve_linear_pairs, solves_all_rows
        from .._training.pairs import solve_pairs
        from ..encoders._networks import torch_dtype

        n, linear = group().total(sides.n_rows), solves_all_rows(sides, q_spec, both, terms_of(self.divergence).smooth)
        batch_rows = _BATCH_ROWS if self.batch_size == "auto" else self.batch_size
        if linear and self.batch_size == "auto":
            batch_rows = min(_ALL_ROWS, max(batch_rows, _PAIRS // n))
        linear = linear and (self.batch_size == "auto" or n <= batch_rows)
        batch_rows = min(batch_rows, n)
        max_iter = None if self.max_iter == "auto" else int(self.max_iter)
        training = Training(self.learning_rate, max_iter, self.tol, batch_rows)
        run, loss = Run(torch_dtype(sides.X), device, 0, self._on_step), Loss(q_spec, self.divergence)
        with self._threads(batch_rows * sides.most_columns if all(encoder.flat for encoder in both) else None):
            if linear:
                seed = random_state.randint(np.iinfo(np.int32).max) if n > batch_rows else 0
                run = run._replace(seed=int(seed))
                return solve_linear_pairs(sides, uniform, loss, both, self.n_components, training, run)
            if max_iter is None:
                steps = -(-n // batch_rows)
                training = training._replace(max_iter=max(_PASSES, -(-_LEAST_STEPS // steps)))
            *seeds, seed = (int(seed) for seed in random_state.randint(np.iinfo(np.int32).max, size=3))
            run = run._replace(seed=seed)
            return solve_pairs(sides, uniform, loss, both, self.n_components, training, run, seeds)

    def _validate_y(self, y, dtype):
        """The other modality in a precision, one column where it has one dimension."""
        refuse_hidden(y, "y")
        y = check_array(y, accept_sparse="csr", dtype=dtype, ensure_2d=False, allow_nd=True, input_name="y")
        y = with_int32_indices(y)
        return y.reshape(-1, 1) if y.ndim == 1 else y

    def _checked_X(self, X):
        """Items of X as those of the fit."""
        return self._validate_items(X, self.encoder_, reset=False)

    def _checked_y(self, y):
        """Items of y as those of the fit."""
        y = self._validate_y(y, [np.float64, np.float32])
        if prod(y.shape[1:]) != self.n_features_y_:
            raise ValueError(
                f"y has {prod(y.shape[1:])} features, but {type(self).__name__} is expecting {self.n_features_y_} "
                "features as input."
            )
        check_item_shape(y, self._item_shape_y, "y")
        return y

    def _encode_X(self, X):
        """f(x) of items that were checked."""
        return self._represent(self.encoder_, self._states[0], X)

    def _encode_y(self, y):
        """g(y) of items that were checked."""
        return self._represent(self.encoder_y_, self._states[1], y)

    def _represent(self, encoder, state, items):
        """Representations by one of the encoders."""
        import torch

        from .._core.unit_rows import unit_rows
        from .._training.pairs import on_sphere

        z = self._encode(encoder, state, items, self._n_features_out)
        return unit_rows(torch.from_numpy(z)).numpy() if on_sphere(self.learned_) else z

    def _drawn(self, X, y):
        if y is None:
            raise ValueError("y=None, but the keys of pairs are the rows of the other modality; pass these as y.")
        check_consistent_length(X, y)
        X, y = self._checked_X(X), self._checked_y(y)
        return Drawn(self._p_drawn(X, y, self.debias), self._encode_X(X), is_map=True, keys=self._encode_y(y))

    def _chains(self):
        from .._training.pairs import on_sphere

        unit: list = [("unit", [])] if on_sphere(self.learned_) else []
        chains = {}
        for name, encoder, state, width in (
            ("transform", self.encoder_, self._states[0], self.n_features_in_),
            ("transform_y", self.encoder_y_, self._states[1], self.n_features_y_),
        ):
            chains[name] = [*self._steps_of(encoder, state, width, self._n_features_out), *unit]
        return chains, None

    def transform(self, X: Rows, y: Any = None) -> Any:
        """Representations f(x), g(y) or both; unit rows under a cosine and the two limits.

        ::

            transform(X) -> f(x)        transform(None, y) -> g(y)        transform(X, y) -> (f(x), g(y))

        X and y may differ in length here.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), or None
            Rows of the first modality.
        y : {array-like, sparse matrix} of shape (n_samples_y, n_features_y) or (n_samples_y,), default=None
            Rows of the other modality.

        Returns
        -------
        ndarray of shape (n_samples, n_components), or a tuple of two
            In the precision of the fitted X. `set_output` concerns a single array, and the first of two, as in
            `CCA`.

        Raises
        ------
        ValueError
            Neither X nor y is given, or they are not shaped as in the fit.
        """
        check_is_fitted(self)
        if X is None:
            if y is None:
                raise ValueError("transform needs rows of a modality, but X=None and y=None; pass X, y or both.")
            w = self._encode_y(self._checked_y(y))
            return _wrap_data_with_container("transform", w, y, self)  # a frame's index is that of y
        z = self._encode_X(self._checked_X(X))
        return z if y is None else PairOfModalities(z, self._encode_y(self._checked_y(y)))

    def fit_transform(self, X: Rows, y: Any, sample_weight: Any = None) -> Any:
        """Train both encoders and return (f(x), g(y)), as CCA does.

        The pair counts as f(x) where one array is expected, so that in the midst of a Pipeline the next step reads
        that; the names of a frame's columns are then lost.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows of the first modality.
        y : {array-like, sparse matrix} of shape (n_samples, n_features_y) or (n_samples,)
            Rows of the other modality.
        sample_weight : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        tuple of two ndarrays of shape (n_samples, n_components)
            The representations (f(x), g(y)).
        """
        return self.fit(X, y, sample_weight).transform(X, y)

    def transform_y(self, y: Any) -> Any:
        """Representations g(y) of the other modality: `transform(None, y)`.

        Parameters
        ----------
        y : {array-like, sparse matrix} of shape (n_samples_y, n_features_y) or (n_samples_y,)
            Rows of the other modality.

        Returns
        -------
        ndarray of shape (n_samples_y, n_components)
            A row of outputs for each row of y.
        """
        return self.transform(None, y)

    def score(self, X: Rows, y: Any) -> float:
        """Recall at 1: how often the row that q puts nearest is right; the mean of both ways.

        ::

            mean_i |R_i and T_i| / |T_i|,     T_i = argmax_j q(j|i),     R_i = {j : x_j = x_i or y_j = y_i}

        A retrieved row is right if it, or its partner, equals the one wanted: of five equal images with a caption each,
        any will do. Of rows that are equally near, each is retrieved with the same probability, so that encoders that
        tell nothing apart score 1 / n_samples. The score falls as more rows are given: compare those of equally many.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows of the first modality.
        y : {array-like, sparse matrix} of shape (n_samples, n_features_y) or (n_samples,)
            Rows of the other modality.

        Returns
        -------
        float
            In [0, 1]; the higher, the better.
        """
        from .._training.pairs import ROWS_AT_ONCE, recall_at_one

        check_is_fitted(self)
        check_consistent_length(X, y)
        X, y = self._checked_X(X), self._checked_y(y)
        z, w, items = self._encode_X(X), self._encode_y(y), [row_digests(rows_of(side)) for side in (X, y)]
        with self._threads(min(len(z), ROWS_AT_ONCE) * len(w)):
            return (recall_at_one(self.learned_, z, w, items) + recall_at_one(self.learned_, w, z, items)) / 2

    _columns_found = 0  # in pickles of 0.1.0

    @property
    def _n_features_out(self) -> int:
        return self._columns_found or self.n_components

    def __sklearn_tags__(self):
        """The other modality has columns of its own; representations keep the precision of X."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
