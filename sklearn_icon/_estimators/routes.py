"""Which combinations are solved, and how: one table, by which estimators refuse, dispatch and are documented.

A combination is refused before p is computed. Of the routes of an estimator the first that takes it solves it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from scipy import sparse

from .._core.group import group
from .._objective.divergences import terms_of
from .over_ranks import MOST_BY_FIRST, OVER_RANKS, of_few_rows


@dataclass(frozen=True)
class Case:
    """What an estimator is asked to fit: its specs, its other parameters, and what X holds.

    Attributes
    ----------
    p, q, encoder : specs
    given : dict
        Parameters of the estimator.
    holds : str
        "features", "distances", a "graph" or "counts" of tokens.
    X : array or sparse matrix, or None
    encoder_y : Encoder or None
        Of the other modality.
    chosen : bool
        Whether the partition is to be chosen among candidates.
    few_rows : bool
        Whether all ranks together have so few that rank 0 solves it.
    """

    p: Any
    q: Any
    encoder: Any
    given: dict[str, Any]
    holds: str = "features"
    X: Any = None
    encoder_y: Any = None
    chosen: bool = False
    few_rows: bool = False

    @property
    def regression(self) -> bool:
        """Whether it is softmax regression: logits against one-hot prototypes."""
        free_linear = self.encoder.is_linear and not self.encoder.orthonormal
        return not self.p.over_rows and self.q.is_dot and free_linear


class Route(NamedTuple):
    """A way of solving: in words for the guide, the name that the estimator dispatches on, and what it takes."""

    estimator: str
    keys: str
    learned: str
    encoder: str
    solver: str
    name: str
    takes: Callable[[Case], bool]


def _always(case: Case) -> bool:
    return True


ROUTES = (
    Route(
        "ICONEmbedding", "tokens", "a distribution", "any", "L-BFGS; Adam where sampled", "tokens",
        lambda case: case.p.keys == "tokens",
    ),
    Route(
        "ICONEmbedding", "views", "any", "a network or linear map", "Adam on views drawn anew", "encoder",
        lambda case: bool(case.p.views),
    ),
    Route(
        "ICONEmbedding", "rows", "any", "a network or linear map",
        "L-BFGS where linear and of all rows at once; else Adam", "encoder",
        lambda case: case.encoder.parametric,
    ),
    Route(
        "ICONEmbedding", "rows", "any over coordinates", "lookup",
        "momentum, normalisers exact, on a grid, by a tree or from drawn keys; Adam without compiled loops", "map",
        _always,
    ),
    Route(
        "ICONClustering", "rows, by default", "memberships", "linear map or lookup",
        "three candidates, of which one is chosen", "chosen",
        lambda case: case.chosen,
    ),
    Route(
        "ICONClustering", "rows, sigma=0", "memberships under reverse KL", "lookup", "KMeans", "k-means",
        lambda case: case.given["divergence"] == "reverse_kl" and case.p.narrow,
    ),
    Route(
        "ICONClustering", "rows, all pairs", "memberships under reverse KL", "lookup", "k-means, then L-BFGS",
        "soft k-means",
        lambda case: case.given["divergence"] == "reverse_kl",
    ),
    Route(
        "ICONClustering", "rows, debias=1", "memberships", "lookup", "eigenvectors, then k-means", "cut",
        lambda case: case.given["debias"] == 1,
    ),
    Route(
        "ICONClustering", "rows or views", "memberships", "any", "search over hard partitions, then Adam",
        "multistart", _always,
    ),
    Route(
        "ICONClassifier", "rows", "any over representations", "a network or linear map",
        "Adam on minibatches, then softmax regression", "representations",
        lambda case: case.p.over_rows,
    ),
    Route(
        "ICONClassifier", "classes", "a kernel of dot products", "linear map",
        "Newton's method; L-BFGS for other divergences, on devices and with early stopping", "softmax regression",
        lambda case: case.regression,
    ),
    Route(
        "ICONClassifier", "classes", "any over representations", "a network or linear map",
        "L-BFGS where linear; else Adam", "prototypes", _always,
    ),
    Route(
        "ICONCrossModal", "partners", "a distribution or limit", "two maps",
        "L-BFGS where both are linear and of few columns; else Adam", "pairs", _always,
    ),
)  # fmt: skip


def refuse(estimator: str, case: Case) -> None:
    """Raise ValueError where no route takes the combination."""
    for problem in REFUSALS[estimator](case):
        raise ValueError(problem)
    for problem in _over_ranks(estimator, case) if group().several else ():
        raise ValueError(problem)


def _over_ranks(estimator: str, case: Case) -> Iterator[str]:
    """What is solved by one process alone."""
    name = route_of(estimator, case)
    if case.few_rows:
        yield from of_few_rows(case)
    elif (estimator, name) not in OVER_RANKS:
        ways = ", ".join(f"{cls}'s {way}" for cls, way in OVER_RANKS)
        yield (
            f"p={case.p}, q={case.q} and encoder={case.encoder} call for the route {name!r} of {estimator}, which is "
            f"not solved over ranks, but by rank 0 of up to {MOST_BY_FIRST} rows in all; over ranks are {ways}. Fit on "
            "one process, inside sklearn_icon.distributed.alone(): the rows of distributed.gather(X), or as many of "
            "them as it can hold."
        )
    else:
        yield from OVER_RANKS[estimator, name](case)


def route_of(estimator: str, case: Case) -> str:
    """The name of the route of a combination that was not refused."""
    return next(route.name for route in ROUTES if route.estimator == estimator and route.takes(case))


def _bounded(case: Case) -> Iterator[str]:
    """A loss that falls without bound as an encoder spreads the rows; networks are held to the unit sphere."""
    plain = not case.encoder.parametric or case.encoder.is_linear
    if case.q.is_unbounded and plain and not case.encoder.orthonormal:
        yield (
            f"the loss of {case.q} falls without bound as {case.encoder} spreads the rows; use an encoder that cannot: "
            "encoders.Linear(orthonormal=True), or a network such as 'mlp', whose rows are scaled to unit length."
        )


def _of_embedding(case: Case) -> Iterator[str]:
    """A map has one representation per row, so rows must be the keys, or tokens; and q a function of coordinates."""
    p, q, encoder, given = case.p, case.q, case.encoder, case.given
    if p.keys == "tokens":
        yield from _of_tokens(case)
    elif not p.over_rows:
        yield f"{p} has keys that are not the rows; a map needs a p over rows, such as 'gaussian' or 'knn'."
    if q.on_memberships:
        yield f"{q} is a distribution over clusters; use ICONClustering, or learned='student_t'."
    if encoder.parametric and case.holds not in ("features", "counts"):
        yield f"X holds {case.holds} and no features for {encoder} to read; use encoder='lookup'."
    if p.views and not encoder.parametric:
        yield f"{p} draws views, which have no coordinates of their own in {encoder}; use encoder='mlp' or a Module."
    yield from _bounded(case)
    late = given["late_exaggeration"]
    if late > 1 and (given["divergence"] != "kl" or given["debias"] or q.mixture):
        yield (
            f"late_exaggeration={late} multiplies the attraction of plain KL; use divergence='kl' and debias=0, or "
            "late_exaggeration=1."
        )
    elif late > 1 and encoder.parametric:
        yield (
            f"late_exaggeration={late} is of maps by a lookup, got {encoder}; use late_exaggeration=1, or "
            "encoder='lookup'."
        )
    if given["init_weight"] and (encoder.parametric or p.keys == "tokens"):
        yield (
            f"init_weight={given['init_weight']} is of maps by a lookup over rows, got {encoder} and {p}; use "
            "init_weight=0, or encoder='lookup' and a p over rows."
        )
    if given["method"] == "barnes_hut" and not encoder.parametric and given["n_components"] > 3:
        yield f"'n_components' should be at most 3 under method='barnes_hut', got {given['n_components']}; use 'auto'."
    if p.views and given["method"] == "exact":
        yield f"method='exact' sums over all rows at once, but {p} draws views; use method='auto'."
    if p.keys != "tokens":
        yield from _of_sums(case)


def _of_sums(case: Case) -> Iterator[str]:
    """Sums over all pairs that a map, whatever p, has not got as asked."""
    q, encoder, given = case.q, case.encoder, case.given
    plain = q.euclidean and not q.mixture and not given["debias"]
    grid = plain and q.smooth_at_zero and given["n_components"] <= 2 and not encoder.parametric
    if given["method"] == "interpolation" and not grid:
        yield no_grid(q, encoder, given["n_components"])
    drawn = plain and not q.learns and given["divergence"] == "kl"
    if given["method"] == "sampled" and not encoder.parametric and not drawn:
        yield no_draws(q, encoder, given["divergence"])


def no_grid(q: Any, encoder: Any, n_components: int) -> str:
    """Why there is no grid."""
    return (
        "method='interpolation' needs encoder='lookup', n_components of 1 or 2, debias=0 and a learned kernel of "
        f"Euclidean distance that is smooth at zero ('student_t', 'gaussian'); got {encoder}, n_components="
        f"{n_components} and {q}. Use method='auto'."
    )


def no_draws(q: Any, encoder: Any, divergence: Any) -> str:
    """Why keys cannot be drawn."""
    return (
        "method='sampled' needs an encoder to train, or divergence='kl', debias=0 and a given kernel of Euclidean "
        f"distance ('student_t', 'gaussian'); got {encoder}, divergence={divergence!r} and {q}. Use method='auto'."
    )


def _of_tokens(case: Case) -> Iterator[str]:
    """Tokens have prototypes, which need the conditional form and a loss that holds them back."""
    if case.given["normalization"] == "joint":
        yield (
            f"normalization='joint' needs keys that are the rows, but those of {case.p} are tokens; use "
            "normalization='conditional'."
        )
    if case.q.is_limit:
        yield (
            f"the loss of {case.q} is no distribution over tokens, whose prototypes it would spread or join without "
            "bound; use learned.Gaussian(metric='dot'), 'gaussian' or 'student_t'."
        )
    if case.given["method"] == "interpolation":
        yield "method='interpolation' needs keys that are the rows, not tokens; use method='auto'."


def _of_clustering(case: Case) -> Iterator[str]:
    """Clusters need a p over rows, a q over memberships, and features for an encoder to read."""
    p, q, encoder = case.p, case.q, case.encoder
    if not p.over_rows:
        yield f"{p} has keys that are not the rows; clustering needs a p over rows, such as 'knn'."
    if not q.on_memberships:
        yield f"{q} is no distribution over clusters; use learned='cluster', or ICONEmbedding."
    if encoder.parametric and case.holds != "features":
        yield f"X holds {case.holds} and no features for {encoder} to read; use encoder='lookup'."
    if q.tilted and case.given["divergence"] != "kl":
        yield f"{q} has a prior, which is a cost beside KL; use divergence='kl', or prior=None."
    if q.by_degree and case.given["divergence"] == "reverse_kl":
        yield f"{q} weighs keys, which all count alike under reverse KL; use divergence='kl', or weights=None."
    if not terms_of(case.given["divergence"]).additive:
        yield (
            f"divergence={case.given['divergence']!r} is no sum over pairs, which the search over hard partitions adds "
            "up; use divergences.Alpha of the same order."
        )
    if case.given["output"] == "distances" and case.holds != "features":
        yield f"output='distances' needs centres, but X holds {case.holds}; use output='memberships'."
    if not p.views:
        return
    if not encoder.parametric:
        yield f"{p} draws views, which have no memberships of their own in {encoder}; use encoder='linear'."
    if p.walks:
        yield f"views are drawn of single items and no walk leads on from them; got {p}."
    if sparse.issparse(case.X):
        yield f"{p} draws views of dense items, but X is sparse; use X.toarray()."


def _of_classifier(case: Case) -> Iterator[str]:
    """Classes need labels in p, a q over representations, and an encoder that maps new rows."""
    p, q, encoder = case.p, case.q, case.encoder
    if not p.reads_labels:
        yield f"{p} does not read class labels; use supervisory='data_label', 'propagated_label' or 'same_class'."
    if p.over_rows and p.neighborhood is not None:
        yield (
            f"{p} relates rows without a label, which a classifier has to give a class; use "
            "supervisory='propagated_label'."
        )
    if q.on_memberships:
        yield f"{q} is a distribution over clusters; use learned='gaussian', 'student_t' or 'harmonic'."
    if not encoder.parametric:
        yield f"{encoder} does not map new rows; use encoder='linear', 'mlp' or a Module."
    if not p.over_rows and q.centred:
        yield (
            f"the loss of {q} against prototypes of the classes falls without bound as these spread; use "
            "learned='dot', 'gaussian', 'student_t' or 'harmonic'."
        )
    if p.over_rows:
        yield from _bounded(case)
        if case.given["early_stopping"]:
            yield f"early_stopping=True needs p over classes, not {p}; use 'data_label'."


def _of_pairs(case: Case) -> Iterator[str]:
    """Pairs need their own p, a q over representations, and encoders that map new rows."""
    if case.p.keys != "partners":
        yield f"{case.p} does not pair rows of two modalities; use supervisory='cross_modal'."
    if case.q.on_memberships:
        yield f"{case.q} is a distribution over clusters; use learned='cosine', 'student_t' or another."
    for name, encoder in (("encoder", case.encoder), ("encoder_y", case.encoder_y)):
        if not encoder.parametric:
            yield f"{name}={encoder} does not map new rows; use {name}='linear', 'mlp' or a Module."
        if encoder.only_contrasts:
            yield (
                f"{name}={encoder} is trained through a head or against its past, which pairs of modalities are not; "
                f"use {name}={encoder.plain()}."
            )


REFUSALS: dict[str, Callable[[Case], Iterator[str]]] = {
    "ICONEmbedding": _of_embedding,
    "ICONClustering": _of_clustering,
    "ICONClassifier": _of_classifier,
    "ICONCrossModal": _of_pairs,
}


def table() -> str:
    """The routes as a table in reStructuredText."""
    head = ("Estimator", "Keys of p", "q", "Encoder", "Solved by", "Over ranks")
    lines = [".. list-table::", "   :header-rows: 1", "   :class: longtable", ""]
    over = ("yes" if (route.estimator, route.name) in OVER_RANKS else "no" for route in ROUTES)
    for row in (head, *((*route[:5], answer) for route, answer in zip(ROUTES, over, strict=True))):
        lines += [f"   {'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(row)]
    return "\n".join(lines)
