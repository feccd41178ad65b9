"""`search`: which cell of the table suits the data, by successive halving."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil, log
from numbers import Integral, Real
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from scipy.special import rel_entr
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate
from sklearn.utils import _safe_indexing, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from sklearn.utils.validation import _num_samples, check_consistent_length

from .._core.spec import shortened, shown
from .._core.types import Array, Seed
from .._graph.neighbors import cross_neighbors
from .._graph.shared import sharing_searches
from ._gaps import GAPS
from ._published import PUBLISHED

_FACTOR = 3  # of candidates, one in so many goes on, to so many times the rows
_FIRST_PART, _FIRST_ROWS = 0.25, 100  # of all rows, in the first round, where no budget is set
_LEAST_ROWS = 30
_NEIGHBORS = 10
_CELLS = (*PUBLISHED, *GAPS)
_READS = {
    "dimensionality reduction": "",
    "supervised": "y: class labels",
    "cross-modal": "y: the same rows in the other modality",
    "clustering": "",
}
_DEFAULTS = {"dimensionality reduction": "t-sne", "supervised": "cross-entropy", "cross-modal": "clip"}
_ABSOLUTE = {"t-k-means"}  # whose width is one in the units of X, whatever these are
_PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "sne": [{"perplexity": 10}],
    "t-sne": [{"perplexity": 10}, {"perplexity": 100}, {"learned__df": 0.5}, {"perplexity": 10, "learned__df": 0.5}],
    "umap": [{"n_neighbors": 30}],
    "infonc-t-sne": [{"n_neighbors": 30}],
    "cross-entropy": [{"C": 0.01}, {"C": 0.1}, {"C": 10.0}, {"C": 100.0}, {"encoder": "mlp"}],
    "harmonic": [{"encoder": "mlp"}],
    "supcon": [{"learned__tau": 0.5}],
    "cmc": [{"learned__tau": 0.2}],
    "dcd": [{"n_neighbors": 30}],
    "debiased-infonce-clustering": [{"n_neighbors": 30}, {"debias": 0.1}],
}
"""What is tried of a cell beside its record."""


@dataclass(frozen=True, repr=False)
class Search:
    """What `search` found: a fitted estimator, and how all candidates came out.

    Parameters
    ----------
    best_estimator_ : estimator
        The best candidate, fitted to all rows.
    ranking_ : dict of ndarray
        A line for each candidate, the best first: "name", "parameters", "score" (mean over folds) and "spread"
        (standard deviation) in its last round, the "rows" of that round, "seconds" in all rounds, and "dropped", why it
        went no further; empty for the best. The last round of the default and of its one rival is that of folds drawn
        anew. `pandas.DataFrame(ranking_)` is a table.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon import methods
    >>> X = load_iris().data
    >>> found = methods.search(X[:, :2], X[:, 2:], max_iter=5, cv=2, random_state=0)
    >>> len(found.ranking_["name"]), found.ranking_["rows"].max().item()
    (7, 150)
    """

    best_estimator_: Any
    ranking_: dict[str, Array]

    def _lines(self) -> Iterator[list[str]]:
        yield list(self.ranking_)
        written = [[f"{v:.4g}" if c.dtype.kind == "f" else str(v) for v in c] for c in self.ranking_.values()]
        yield from map(list, zip(*written, strict=True))

    def __repr__(self) -> str:
        """The ranking as a table of text, under the best estimator."""
        lines = [[*line[:-1], shortened(line[-1].replace("\n", " "), 120)] for line in self._lines()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([f"Search: {self.best_estimator_}", *table])

    def _repr_html_(self) -> str:
        head, *rows = (
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
            for line, tag in zip(self._lines(), ["th"] + ["td"] * len(self.ranking_["name"]), strict=True)
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class _Candidate:
    """A cell with parameters, and what it scored in the last round that it was in."""

    def __init__(self, name: str, make: Callable[..., Any], given: dict[str, Any], params: dict[str, Any]):
        self.name, self.make, self.given, self.params = name, make, given, params
        self.scores, self.rows, self.seconds, self.dropped = np.array([np.nan]), 0, 0.0, ""

    def estimator(self) -> Any:
        return self.make(**self.given, **self.params)

    def scored(self, data: _Data, train: Array, test: Array) -> list[float]:
        """Its score on held-out rows; none where it fails, whatever the error, by which it is then dropped."""
        start = perf_counter()
        try:
            how: dict[str, Any] = {"scoring": data.scoring_beside(train), "error_score": "raise"}
            found = cross_validate(self.estimator(), data.X, data.y, cv=[(train, test)], **how)
            score = float(found["test_score"][0])
            if np.isnan(score):
                raise ValueError("its score is NaN.")
            return [score]
        except Exception as error:
            self.dropped = f"{type(error).__name__}: {error}"
            return []
        finally:
            self.seconds += perf_counter() - start

    @property
    def failed(self) -> bool:
        return bool(np.isnan(self.scores).any())

    @property
    def score(self) -> float:
        return -np.inf if self.failed else float(self.scores.mean())

    def beats(self, other: _Candidate) -> bool:
        """Whether it is better on average over the same folds, by more than the standard error of the difference.

        Folds share rows of their fits, so that its square is (1/k + 1/(k - 1)) times the variance between folds.
        """
        if self.failed or other.failed:
            return not self.failed
        more, k = self.scores - other.scores, len(self.scores)
        return bool(more.mean() > more.std(ddof=1) * np.sqrt(1 / k + 1 / (k - 1)))


def search(
    X: Any,
    y: Any = None,
    *,
    family: str | None = None,
    scoring: Any = None,
    budget: float | None = None,
    cv: int = 5,
    random_state: Seed = None,
    **params: Any,
) -> Search:
    """Find the cell of the table that suits the data, by successive halving, and fit it.

    ::

        rounds r = 0, 1, ...:   c_r = c / 3^r candidates are cross-validated on n_r = min(n, 3^r n_0) rows
        fits * rows = sum_r c_r (k - 1) n_r + 2 (k - 1) n + n <= budget * n,     k folds

    Candidates are the cells of a family whose estimator reads what is there, and for some a few of their parameters:
    perplexity, neighbours, uniform mass, temperature, `C`, a network. The best third of a round goes on. Which of many
    was best is in part luck, so the one best of the last round and the default of the family's estimator are then
    scored on folds of all rows that are drawn anew. With d_f the difference of their scores on fold f, the default
    stays unless ::

        mean_f d_f > sd_f(d_f) sqrt(1/k + 1/(k - 1)),

    the standard error of a mean over folds whose fits share rows. Neighbours are searched once for all candidates of a
    fold.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows.
    y : array-like, default=None
        Class labels, or the same rows in the other modality, 2-D.
    family : {"dimensionality reduction", "clustering", "supervised", "cross-modal"}, default=None
        Cells of which family. None is "supervised" where y is 1-D, "cross-modal" where it is 2-D, and without y
        "clustering" where `n_clusters` is given, else "dimensionality reduction".
    scoring : str or callable, default=None
        As in scikit-learn, the higher, the better; clusters with y may be scored by "adjusted_rand_score". None is the
        estimator's own score of held-out rows: accuracy, or recall of partners at 1. Of maps it is how many of the 10
        fitted rows nearest to a held-out one are nearest on the map, by Euclidean distance. Of clusters it is the
        mutual information of the clusters at both ends of edges between held-out rows, ::

            sum_cd J_cd log J_cd / (J_c J_d),     J_cd ~ sum_ij (p(j|i) + p(i|j)) 1[c_i = c, c_j = d]

        p that of `ICONClustering` by default, one step, whatever p a candidate was fitted by.
    budget : float, default=None
        How many fits of all rows all fits together may cost, counted in rows, the last one included: rows, and not
        seconds, so that the result repeats. None begins with a quarter of the rows, or 100.
    cv : int, default=5
        Folds, two or more, stratified where y holds classes, drawn by `random_state`.
    random_state : int, RandomState instance or None, default=None
        Draws rows and folds, and is every candidate's seed.
    **params
        Parameters of all candidates, as of `Method.make_estimator`; no others are tried for these.

    Returns
    -------
    Search
        The fitted estimator, and the ranking of all candidates, those that failed with their error.

    Raises
    ------
    ValueError
        An unknown family, one that reads what is not there, a budget too small for the candidates; or all have failed.

    References
    ----------
    Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016, for
    the halving; Nadeau and Bengio, "Inference for the generalization error", Machine Learning 2003, for the error.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_icon import methods
    >>> X = load_iris().data
    >>> found = methods.search(X[:, :2], X[:, 2:], max_iter=5, cv=2, random_state=0)
    >>> found.best_estimator_.transform(X[:, :2], None).shape
    (150, 32)
    """
    kinds: dict[str, Any] = {
        "budget": [Interval(Real, 0, None, closed="neither"), None],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "scoring": [str, callable, None],
    }
    given = {"budget": budget, "cv": cv, "scoring": scoring}
    validate_parameter_constraints(kinds, given, caller_name="search")
    check_consistent_length(X, y)
    family, seed = _family(family, y, params), int(check_random_state(random_state).randint(2**31 - 1))
    candidates = _candidates(family, {"random_state": seed} | params)
    data = _Data(X, y, family == "supervised", cv, _scoring(scoring, family, params))
    default, best = candidates[0], _halved(candidates, data, budget, seed)
    if best is not default:
        default.dropped = ""  # few rows may have been too few for it
        _compete([default, best], data, data.n, seed + 1)
        if best.beats(default):
            default.dropped = default.dropped or "another was better"
        else:
            best.dropped = best.dropped or "no better than the default by a standard error"
            best = default
        if best.failed:
            raise ValueError(f"the best candidate and the default failed on other folds, the default as {best.dropped}")
    candidates = sorted(candidates, key=lambda each: (each is not best, -each.rows, -each.score))
    return Search(best.estimator().fit(X, y), _ranking(candidates))


class _Data(NamedTuple):
    """What candidates are judged on."""

    X: Any
    y: Any
    of_classes: bool
    cv: int
    scoring: Any

    @property
    def n(self) -> int:
        return _num_samples(self.X)

    def scoring_beside(self, train: Array) -> Any:
        """How held-out rows are scored, by what is told of the rows of the fit where that is read."""
        if self.scoring is not _recall_among_fitted:
            return self.scoring
        return partial(_recall_among_fitted, rows=_safe_indexing(self.X, train))

    def order(self, seed: int) -> Array:
        """Rows in an order whose beginnings hold the classes in proportion."""
        drawn = np.random.RandomState(seed).permutation(self.n)
        if not self.of_classes:
            return drawn
        codes = np.unique(column_or_1d(self.y), return_inverse=True)[1][drawn]
        by_class, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
        rank = np.empty(self.n)
        rank[by_class] = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
        return drawn[np.argsort(rank, kind="stable")]

    def folds(self, rows: Array, seed: int) -> Iterator[tuple[Array, Array]]:
        """(training rows, held-out rows) of some rows."""
        how = {"shuffle": True, "random_state": seed}
        if self.of_classes:
            split = StratifiedKFold(self.cv, **how).split(rows, _safe_indexing(self.y, rows))
        else:
            split = KFold(self.cv, **how).split(rows)
        for train, test in split:
            yield rows[train], rows[test]


def _scoring(scoring: Any, family: str, params: dict[str, Any]) -> Any:
    """How held-out rows are scored; None is by the estimator's own score."""
    if family == "dimensionality reduction" and scoring is None and params.get("metric") != "precomputed":
        return _recall_among_fitted
    if family != "clustering" or scoring is not None:
        return scoring
    if params.get("metric") == "precomputed":
        raise ValueError("metric='precomputed' has no distances between held-out rows; pass features, or scoring.")
    return _shared_information


def _family(family: str | None, y: Any, params: dict[str, Any]) -> str:
    """The family that is asked for, or that the data suit."""
    if family is None:
        if y is None:
            return "clustering" if "n_clusters" in params else "dimensionality reduction"
        return "supervised" if np.ndim(y) == 1 else "cross-modal"
    if family not in _READS:
        raise ValueError(f"family={shown(family)} is not searched; use one of {list(_READS)}.")
    if _READS[family] and y is None:
        raise ValueError(f"family={family!r} reads y, which is None; pass {_READS[family].removeprefix('y: ')} as y.")
    return family


def _candidates(family: str, params: dict[str, Any]) -> list[_Candidate]:
    """The default of the family's estimator, and the cells that read what is there, with some of their parameters."""
    found = []
    for method in sorted(_CELLS, key=lambda each: each.name != _DEFAULTS.get(family)):
        of_data = method.reads == "" or method.reads.startswith(_READS[family] or "X: features")
        if method.family != family or not of_data or method.name in _ABSOLUTE:
            continue
        tried = [given for given in _PARAMETERS.get(method.name, []) if not given.keys() & params.keys()]
        found += [_Candidate(method.name, method.make_estimator, given, params) for given in [{}, *tried]]
    if family == "clustering":
        found.insert(0, _Candidate("default of ICONClustering", _default_clusters, {}, params))
    return found


def _default_clusters(**params: Any) -> Any:
    from sklearn_icon import ICONClustering  # which is imported where it is asked for

    return ICONClustering(**params)


def _rounds(n_candidates: int, n: int, cv: int, budget: float | None) -> list[int]:
    """Rows of each round, within the budget."""

    def of(first: int) -> list[int]:
        return [min(n, first * _FACTOR**r) for r in range(ceil(log(n / first, _FACTOR) - 1e-9) + 1)]

    def cost(rounds: list[int]) -> float:
        fits = [ceil(n_candidates / _FACTOR**r) for r in range(len(rounds))]
        return 1 + (cv - 1) * (2 + float(np.dot(fits, rounds)) / n)

    if budget is None:
        return of(min(n, max(int(_FIRST_PART * n), _FIRST_ROWS)))
    least = min(n, max(_LEAST_ROWS, 2 * cv))
    for first in np.geomspace(n, least, 100).astype(int):
        if cost(of(first)) <= budget:
            return of(first)
    raise ValueError(
        f"budget={budget:g} fits of {n} rows are too few for {n_candidates} candidates in {cv} folds; set it to "
        f"{ceil(cost(of(least)))} or more, or set parameters, of which then no others are tried."
    )


def _halved(candidates: list[_Candidate], data: _Data, budget: float | None, seed: int) -> _Candidate:
    """The best candidate of the last round."""
    going = candidates
    for n_rows in _rounds(len(candidates), data.n, data.cv, budget):
        _compete(going, data, n_rows, seed)
        left = sorted((each for each in going if not each.failed), key=lambda each: -each.score)
        if not left:
            raise ValueError(f"all candidates failed, the first of {len(candidates)} as {candidates[0].dropped}")
        going = left[: ceil(len(left) / _FACTOR)] if n_rows < data.n else left[:1]
        for each in set(left) - {*going}:
            each.dropped = "others were better"
    return going[0]


def _compete(candidates: list[_Candidate], data: _Data, n_rows: int, seed: int) -> None:
    """Score candidates on the same folds of some rows, of which they share the neighbours."""
    scores: dict[_Candidate, list[float]] = {each: [] for each in candidates}
    for train, test in data.folds(data.order(seed)[:n_rows], seed):
        with sharing_searches():
            for each in candidates:
                if not each.dropped:
                    scores[each] += each.scored(data, train, test)
    for each in candidates:
        each.rows, each.scores = n_rows, np.array([np.nan] if each.dropped else scores[each])


def _ranking(candidates: list[_Candidate]) -> dict[str, Array]:
    columns: dict[str, Callable[[_Candidate], Any]] = {
        "name": lambda each: each.name,
        "parameters": lambda each: ", ".join(f"{name}={value!r}" for name, value in each.given.items()),
        "score": lambda each: each.scores.mean(),
        "spread": lambda each: each.scores.std(),
        "rows": lambda each: each.rows,
        "seconds": lambda each: each.seconds,
        "dropped": lambda each: each.dropped,
    }
    return {title: np.array([value(each) for each in candidates]) for title, value in columns.items()}


def _recall_among_fitted(estimator: Any, X: Any, y: Any = None, *, rows: Any) -> float:
    """How many of the 10 fitted rows that are nearest to a held-out row are so on the map too.

    Among held-out rows themselves, who are few, neighbours would be far ones.
    """
    k = min(_NEIGHBORS, len(estimator.embedding_))
    near = cross_neighbors(X, rows, k).indices
    found = cross_neighbors(np.asarray(estimator.transform(X)), np.asarray(estimator.embedding_), k).indices
    return float((near[:, :, None] == found[:, None, :]).any(axis=2).mean())


def _shared_information(estimator: Any, X: Any, y: Any = None) -> float:
    """How much the clusters at both ends of edges of the default p, between held-out rows, say of each other."""
    labels = np.unique(estimator.predict(X), return_inverse=True)[1]
    how = {"metric": estimator.metric, "metric_params": estimator.metric_params}
    spec = _default_clusters(**how)._local(X, estimator.n_clusters)
    edges = spec.step()[0].conditional(X, random_state=0).weights.tocoo()
    joint = np.zeros((labels.max() + 1,) * 2)
    np.add.at(joint, (labels[edges.row], labels[edges.col]), edges.data)
    joint = (joint + joint.T) / (2 * joint.sum())
    return float(rel_entr(joint, np.outer(joint.sum(axis=0), joint.sum(axis=0))).sum())
