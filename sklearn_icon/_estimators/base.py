"""`ICon`: what the estimators share."""

from __future__ import annotations

import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import encoders, learned, supervisory
from .._core.conditional import Conditional
from .._core.device import resolve_device
from .._core.group import apart, group
from .._core.journal import current, recalled, remembered
from .._core.rows import check_item_shape, refuse_hidden, rows_of, shape_of, with_int32_indices
from .._core.spec import RememberedNames, defaults, resolve
from .._core.types import Array, Rows
from .._core.versions import __version__
from .._objective.divergences import ALLOWED
from .progress import CallbackSupportMixin, table_html
from .routes import Case, refuse, route_of
from .whole import undisturbed, whole

if TYPE_CHECKING:
    from typing import Self

_FITS = {"fit", "fit_transform", "fit_predict"}
_PROBABILITIES = {"predict_proba", "predict_log_proba", "decision_function"}
_SPECS = ("supervisory", "learned", "encoder")
_PUBLIC = _FITS | _PROBABILITIES | {"transform", "transform_y", "predict", "score"}


class Drawn(NamedTuple):
    """What a picture of p(.|i) and q(.|i) is made from.

    p with its uniform mass, what q is computed from, that mass, whether both are joint, whether rows lie on a map; what
    represents the keys, where they are not the rows; log q, where it is not that of `learned_`; the keys' names.
    """

    p: Conditional
    represented: np.ndarray
    debias: float = 0.0
    joint: bool = False
    is_map: bool = False
    keys: np.ndarray | None = None
    log_q: np.ndarray | None = None
    names: np.ndarray | None = None


class ICon(CallbackSupportMixin, RememberedNames, metaclass=ABCMeta):
    """Base of the estimators: a choice of p, q, encoder and divergence, and how it is resolved.

    ::

        L = mean_i D( p(.|i) || q(.|i) )

    Subclasses say what the defaults and the short names stand for, and solve.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _PUBLIC & vars(cls).keys():
            setattr(cls, name, (whole if name in _FITS else undisturbed)(vars(cls)[name]))

    _less_memory = ""  # what in a fit takes less memory
    _of_rows: tuple[str, ...] = ()  # fitted attributes that have one entry for each row

    _parameter_constraints: dict = {
        "supervisory": "no_validation",
        "learned": "no_validation",
        "encoder": "no_validation",
        "divergence": ALLOWED,
        "device": [str],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "checkpoint": [str, PathLike, None],
        "max_memory": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in super().__getstate__().items() if name != "neighbors_graph_"}
        return state | {"_icon_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        version = state.get("_icon_version", "0.1.0")
        if version != __version__:
            warnings.warn(
                f"this {type(self).__name__} was pickled by version {version} of sklearn_icon and is loaded by version "
                f"{__version__}: it may behave otherwise or fail; fit it anew, or install sklearn_icon=={version}.",
                UserWarning,
                stacklevel=2,
            )
        added = defaults(type(self))
        super().__setstate__(added | {name: value for name, value in state.items() if name != "_icon_version"})

    def save(self, path: str | PathLike[str]) -> None:
        """Write the estimator, fitted or not, to a file without code, which `sklearn_icon.load` reads bit for bit.

        The file is a safetensors file of the numbers, with all else as JSON in its header. Callables, estimators with
        specs of one's own and generators as `random_state` are refused, as code would be needed to read them.

        Parameters
        ----------
        path : str or path-like
            Where to; a file there is replaced once the new one is whole.

        Raises
        ------
        TypeError
            Something that is not data; the message names it.
        """
        from .saving import save

        save(self, path)

    def export(self, path: str | PathLike[str]) -> None:
        """Write what the fitted estimator computes of new rows as a module that needs only NumPy, or as ONNX.

        Of estimators with linear maps or MLPs as encoders. The module, which needs nothing but NumPy and the `.npz`
        file beside it, has functions by the names of the estimator's methods: `transform`, `predict_proba` and
        `predict`, and `transform_y` of the other modality. The ONNX model has outputs of these names, and inputs "X"
        and "y"; both compute in double precision.

        Parameters
        ----------
        path : str or path-like
            Ends in ".py", or in ".onnx", which needs the package onnx.

        Raises
        ------
        TypeError
            A lookup, a module of one's own, or a kernel against prototypes; the message says what can be exported.
        ValueError
            Another ending.
        ImportError
            ".onnx" where onnx is not installed.

        Examples
        --------
        >>> import os, tempfile
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_icon import ICONClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> folder = tempfile.mkdtemp()
        >>> ICONClassifier().fit(X, y).export(os.path.join(folder, "iris.py"))
        >>> sorted(os.listdir(folder))
        ['iris.npz', 'iris.py']
        """
        from .exporting import Predictor

        check_is_fitted(self)
        Predictor(self, *self._chains()).write(path)

    def _steps_of(self, encoder: Any, state: dict, n_inputs: int, n_outputs: int) -> list:
        """What a fitted encoder does of rows, step by step; see `exporting`."""
        from .exporting import steps_of

        if not encoder.parametric:
            raise TypeError(
                f"export needs an encoder that maps new rows, but that of the fit is {encoder}; fit with "
                "encoder='linear' or 'mlp', or use save(path), which keeps any estimator."
            )
        return steps_of(encoder, state, n_inputs, n_outputs)

    @abstractmethod
    def _chains(self) -> tuple:
        """(chains of steps by the names of methods, classes of `predict` or None); see `exporting`."""

    def estimate_memory(self, X: Rows) -> int:
        """How much memory a fit of X will add to what the process has, X itself not counted.

        ::

            rows * (bytes of a number * columns + bytes of a neighbour * neighbours) + libraries not yet loaded

        It is what a fit at the defaults adds at its highest, within a quarter as a rule (`benchmarks/memory.py`); of
        specs of one's own, and on devices, it is a guess. `fit` raises MemoryError at once where this is above
        `max_memory`, or where much less is free, by what the machine, a control group and the limits of the process
        leave.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            As in `fit`; only its shape, type and number of entries count.

        Returns
        -------
        int
            Bytes.

        Raises
        ------
        TypeError, ValueError
            A parameter that is not valid.
        """
        from .memory import Size

        self._validate_params()
        return int(self._memory(Size.of(X)))

    @abstractmethod
    def _memory(self, size: Any) -> float:
        """Bytes that a fit adds, of X of a size."""

    def _spec_with(self, name: str, parameter: str) -> str:
        """What to pass for a choice so that it has a parameter, in words: its default, or what a short name makes."""
        of_names = {"supervisory": supervisory.NAMES, "learned": self._learned_names()}
        made = [make() for make in of_names.get(name, encoders.NAMES if name.startswith("encoder") else {}).values()]
        ours = [spec for spec in self._specs_or_none() if type(spec) in map(type, made)]
        for spec in (*ours, *made):
            if parameter in spec.get_params(deep=False):
                module = type(spec).__module__.split(".")[1]
                call = str(spec) if spec._wrapped() is None else f"{type(spec).__name__}(...)"
                return f"; pass a spec first, such as {name}={module}.{call}"
        return f"; none of the specs with a short name has {parameter}" if made else ""

    def _named_p(self) -> supervisory.Supervisory | None:
        """What `supervisory` says before it is checked: a spec, the spec of a short name, or None."""
        match self.supervisory:
            case supervisory.Supervisory() as given:
                return given
            case str() as name if name in supervisory.NAMES:
                return supervisory.NAMES[name]()
        return None

    @abstractmethod
    def _default_specs(self) -> tuple:
        """(supervisory, learned, encoder) that None stands for, each a spec or a short name."""

    def _offered(self) -> dict[str, Any]:
        """Parameters that are not left at their default, which short names of p take where they have such."""
        return self._other_than(defaults(type(self)))

    def _learned_names(self) -> dict[str, Any]:
        """What the short names of q make."""
        return learned.NAMES

    def _resolve_specs(self) -> tuple:
        """Turn the three spec parameters into fresh specs: (supervisory_, learned_, encoder_)."""
        given = (self.supervisory, self.learned, self.encoder)
        wanted: tuple = (
            (supervisory.Supervisory, supervisory.NAMES, "supervisory", self._offered()),
            (learned.Learned, self._learned_names(), "learned", {}),
            (encoders.Encoder, encoders.NAMES, "encoder", {}),
        )
        return tuple(
            resolve(default if spec is None else spec, *how, **offered)
            for spec, default, (*how, offered) in zip(given, self._default_specs(), wanted, strict=True)
        )

    def _begin(self) -> tuple:
        """Validate parameters and specs. Returns (supervisory, learned, encoder, device, random state)."""
        self._validate_params()
        specs = self._progress.specs = self._resolve_specs()
        by_whom = {"df": "by lookup maps of ICONEmbedding", "tau": "by ICONClassifier and ICONCrossModal, of a cosine,"}
        for name, remedy in by_whom.items():
            if name in specs[1].learns and not self._learns(name, specs):
                raise ValueError(f"{name}='learn' in {specs[1]} is learned {remedy} alone; give {name} a number.")
        for spec in (specs[0] if specs[0].views else None, specs[2] if specs[2].only_contrasts else None):
            if spec is not None and not self._contrasts(specs):
                raise ValueError(
                    f"{spec} is for training that sets rows against each other: views are read by ICONEmbedding and "
                    "ICONClustering, heads and momentum by ICONEmbedding and ICONClassifier(supervisory='same_class'), "
                    "momentum also by ICONClustering."
                )
        return *specs, resolve_device(self.device), self._generator()

    def _generator(self) -> np.random.RandomState:
        """The generator of a fit; one of no seed has a seed where a checkpoint has to know it."""
        rng = check_random_state(self.random_state)
        if rng is check_random_state(None) and current() is not None:
            rng = np.random.RandomState(recalled("seed", lambda: int(rng.randint(np.iinfo(np.int32).max))))
        return remembered(rng if isinstance(self.random_state, Integral) else group().shared(rng))

    def _learns(self, name: str, specs: tuple) -> bool:
        """Whether a parameter of q that is "learn" can be learned."""
        return False

    def _contrasts(self, specs: tuple) -> bool:
        """Whether p may draw views, and the encoder have a head or keys of its past."""
        return False

    def _threads(self, size: int | None = None) -> AbstractContextManager:
        """Limit threads by `n_jobs` and the size of the work; see `team.threads`."""
        from .._core.team import threads

        return threads(self.n_jobs, size)

    def _validate_items(self, X: Rows, encoder: Any, reset: bool) -> Rows:
        """Rows, sparse or dense, or to an encoder items of any shape, that of the fit."""
        refuse_hidden(X, "X")
        kind: dict = {"dtype": [np.float64, np.float32], "ensure_min_samples": 2 if reset else 1}
        if not encoder.parametric or len(shape_of(X)) < 3:
            X = with_int32_indices(validate_data(self, X, accept_sparse="csr", reset=reset, **kind))
        else:
            X = np.asarray(X)
            if X.dtype not in kind["dtype"]:
                kind["dtype"] = np.float32
            X = check_array(X, allow_nd=True, estimator=self, **kind)
            validate_data(self, rows_of(X), skip_check_array=True, reset=reset)
        if reset:
            self._item_shape = X.shape[1:]
        check_item_shape(X, self._item_shape, "X")
        if reset:
            group().number(X.shape[0])
            layout = "sparse" if sparse.issparse(X) else "dense"
            group().agree("the type and shape of an item of X", f"{layout} of {X.dtype} {X.shape[1:]}")
        measured = None if reset else self.supervisory_.neighborhood
        if measured is not None:
            measured.check_rows(rows_of(X))
        return X

    def _gathered(self, joined: Callable[[Array], Any]) -> None:
        """Replace what holds the rows of this rank by what holds those of all."""
        for name in self._of_rows:
            if name in vars(self):
                setattr(self, name, joined(getattr(self, name)))

    def _fit_by_first(self, X: Rows, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the rows of all ranks on rank 0, as one process; keep what is shared, and the rows of this rank."""
        ranks, own, fitted, count = group(), self.get_params(deep=False), {}, X.shape[0]
        X, y, sample_weight = (None if part is None else ranks.to_first(part) for part in (X, y, sample_weight))
        if ranks.rank == 0:
            inner = clone(self)
            vars(inner).pop("_skl_callbacks", None)  # which are told of this fit
            more = {} if sample_weight is None else {"sample_weight": sample_weight}
            with apart():
                fitted = vars(inner.fit(X, y, **more))
        shared = ranks.objects({name: value for name, value in fitted.items() if name not in own})[0]
        for name, value in shared.items():
            setattr(self, name, value)
        self._progress.carry(shared["fit_report_"])
        self._gathered(lambda rows: ranks.own(rows, count))
        return self

    def _encode(self, encoder: Any, state: dict, X: Rows, n_outputs: int) -> Array:
        """Items through a fitted encoder."""
        from ..encoders._networks import block_rows, encode, load_module

        module = load_module(encoder, prod(X.shape[1:]), n_outputs, state)
        with self._threads(prod((block_rows(X), *X.shape[1:])) if encoder.flat or X.ndim == 2 else None):
            return encode(module, X)

    def _route(self, estimator: str, case: Case) -> str:
        """The route that takes a combination, which the report names; what none takes is refused."""
        refuse(estimator, case)
        self._progress.facts["route"] = name = route_of(estimator, case)
        return name

    def _on_step(self, stage: str, total: int | None = None, of: int = 1) -> Callable[[int, float], None] | None:
        """A reporter (n_iter, loss) of the stage that begins, or None where nobody is told.

        It has at most `total` iterations, where that is known, whose losses are sums `of` as many.
        """
        reporter = self._progress.begin(stage, total, of)
        return reporter if self.verbose or reporter.context is not None else None

    def _keep_graph(self, p: Any, p_spec: Any, of_rows: Any) -> Any:
        """p without what the search for neighbours found, which stays on the estimator as `neighbors_graph_`."""
        from .._training.new_rows import neighbor_graph

        if of_rows and p.neighbors is not None and p_spec.neighborhood is not None:
            self.neighbors_graph_ = neighbor_graph(p)
        return replace(p, neighbors=None)

    def _drawn(self, X: Rows, y: Any) -> Drawn:
        """What `plotting.NeighborhoodDisplay` draws of rows."""
        return Drawn(self._p_drawn(X, y, self.debias), np.array(self.transform(X)), self.debias)

    def _p_drawn(self, X: Rows, y: Any, debias: float) -> Any:
        """p of rows with its uniform mass."""
        return self.supervisory_.conditional(X, y, random_state=0).mix(debias)

    def _stands_for(self) -> dict[str, Any]:
        """Parameter and spec, for each of the three: those of the fit, or what None and short names will be."""
        specs = [vars(self).get(f"{name}_", spec) for name, spec in zip(_SPECS, self._specs_or_none(), strict=True)]
        letters = ("p", "q", "encoder")
        return {letter: str(spec) for letter, spec in zip(letters, specs, strict=True) if spec is not None}

    def _get_params_html(self, *args: Any, **kwargs: Any) -> Any:
        """The parameters as scikit-learn shows them, then what p, q and the encoder are, then the report of the fit."""
        shown = super()._get_params_html(*args, **kwargs)
        parts = [table_html("p, q and encoder", self._stands_for())]
        if "fit_report_" in vars(self):
            report = dict(self.fit_report_)
            stages = ", ".join(f"{name} {seconds} s" for name, seconds in report.pop("stages").items())
            parts.append(table_html("Fit report", report | {"stages": stages}))
        plain = shown._html_repr
        shown._html_repr = lambda: plain() + "".join(parts)
        return shown

    def _warn_unless_converged(self, result: Any, remedy: str) -> None:
        """Report why the fit stopped."""
        self._progress.facts["stop_reason"] = result.why
        if result.status == "max_iter":
            warnings.warn(
                f"{type(self).__name__} stopped after {result.n_iter} iterations before it converged; {remedy}.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _specs_or_none(self) -> tuple:
        """What `_resolve_specs` gives, or Nones where a parameter is not valid; for tags, in a fit those of the fit."""
        if "_progress" in vars(self) and self._progress.specs is not None:
            return self._progress.specs
        try:
            return self._resolve_specs()
        except (TypeError, ValueError):
            return None, None, None

    def __sklearn_tags__(self) -> Any:
        """Sparse input; items of any shape to encoders; y required where p reads it."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        p_spec, _, encoder = self._specs_or_none()
        tags.input_tags.three_d_array = encoder is not None and encoder.parametric
        tags.target_tags.required = p_spec is not None and bool(p_spec.needs_y)
        self._tag_input(tags.input_tags, p_spec)
        return tags

    def _tag_input(self, input_tags: Any, p_spec: Any) -> None:
        """What p, or None, says of X; asked with the other tags, as specs are made anew for each."""
