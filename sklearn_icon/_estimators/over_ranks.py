"""Which routes are solved over the ranks of a process group, and what of them is left to one process."""

from collections.abc import Callable, Iterator
from typing import Any

from scipy import sparse

from .._core.device import resolve_device
from .._core.rows import is_itself
from .._graph.checks import ROOTS

MOST_BY_FIRST = 10_000  # rows of all ranks, of what rank 0 alone solves


def _classes(case: Any) -> Iterator[str]:
    """What holds of classifiers."""
    if resolve_device(case.given["device"]).type != "cpu":
        yield f"device={case.given['device']!r}: over ranks classes are solved on the CPU; use device='cpu'."
    if case.p.allows_unknown:
        yield (
            f"{case.p} searches neighbours of all rows, which is not done over ranks of more than {MOST_BY_FIRST} "
            "rows; use supervisory='data_label'."
        )


def _regression(case: Any) -> Iterator[str]:
    """Softmax regression by Newton's method, whose sums over rows are added."""
    yield from _classes(case)
    if case.given["early_stopping"]:
        yield "early_stopping=True of softmax regression is not done over ranks; use False, or encoder='mlp'."
    if case.given["divergence"] != "kl":
        yield f"divergence={case.given['divergence']!r} is not solved over ranks; use 'kl', or fit on one process."


def _prototypes(case: Any) -> Iterator[str]:
    """Encoders and prototypes, by minibatches whose gradients are added."""
    yield from _classes(case)
    if case.encoder.draws:
        yield f"{case.encoder} may draw random numbers and keep means of its batches; over ranks use encoder='mlp'."


def of_few_rows(case: Any) -> Iterator[str]:
    """What rank 0 solves of the rows of all, as one process."""
    if case.holds not in ("features", "counts"):
        yield f"X holds {case.holds}, whose rows and columns are of all ranks; pass rows of features."
    if case.given.get("warm_start"):
        yield "warm_start=True is not done over ranks; use False, or distributed.gather the map and go on on rank 0."
    if is_itself(case.given.get("init")) and "n_components" in case.given:
        yield "init is an array of rows, from which no map starts over ranks; use init='pca' or 'random'."


def of_products(p: Any) -> bool:
    """Whether p is of neighbours that products of rows of X find, so that ranks or blocks share the search."""
    return p.neighborhood is p and not p.metric_params and p.metric in ROOTS


def _map(case: Any) -> Iterator[str]:
    """Maps, each rank with its rows' edges and its part of the sum over all pairs."""
    given, p, q = case.given, case.p, case.q
    yield from of_few_rows(case)
    if given["init"] == "spectral":
        yield "init='spectral' needs eigenvectors of the graph of all rows; over ranks use 'pca' or 'random'."
    if not of_products(p):
        yield (
            f"supervisory={p} is not computed over ranks, where neighbours are those of rows of X in metric="
            "'euclidean', 'sqeuclidean' or 'cosine'; use 'gaussian' or 'knn'."
        )
    if sparse.issparse(case.X):
        yield "X is sparse, of which neighbours are not searched over ranks; use X.toarray() or TruncatedSVD."
    if given["normalization"] != "joint":
        yield (
            f"normalization={given['normalization']!r} is not solved over ranks, which sum plain KL, but by rank 0 of "
            f"up to {MOST_BY_FIRST} rows in all; use normalization='joint'."
        )
    for name, needed in (("divergence", "kl"), ("debias", 0)):
        if given[name] != needed:
            yield f"{name}={given[name]!r} is not solved over ranks, which sum plain KL; use {name}={needed!r}."
    if not q.euclidean or q.mixture or q.learns:
        yield f"learned={q} is not summed over ranks; use 'student_t' or 'gaussian'."
    elif _by_loops(given, q) and not (q.slope_terms and resolve_device(given["device"]).type == "cpu"):
        yield (
            f"learned={q} with n_components={given['n_components']} and method={given['method']!r} is summed over "
            "ranks by compiled loops, of 'student_t' and 'gaussian' on the CPU alone; use method='exact'."
        )
    if resolve_device(given["device"]).type not in ("cpu", "cuda"):
        yield f"device={given['device']!r}: over ranks maps are solved on the CPU or CUDA; use device='cpu'."


def _by_loops(given: dict[str, Any], q: Any) -> bool:
    """Whether a map's sums over all pairs are those of compiled loops: neither exact nor from a grid."""
    gridded = q.smooth_at_zero and given["n_components"] <= 2 and given["method"] != "sampled"
    return not gridded and given["method"] != "exact"


def _k_means(case: Any) -> Iterator[str]:
    """k-means of rows of X, from starts on a draw."""
    if case.p.neighborhood is not case.p:
        yield f"supervisory={case.p} is not computed over ranks; use Gaussian(sigma=0), of rows of X."
    if sparse.issparse(case.X):
        yield "X is sparse, of which k-means is not solved over ranks; use X.toarray() or TruncatedSVD."


def _chosen(case: Any) -> Iterator[str]:
    """The choice among partitions of a draw of all rows, carried to the others."""
    yield from of_few_rows(case)
    if case.given["supervisory"] is not None:
        yield f"supervisory={case.p} relates rows of all ranks, of which a draw tells too little; use None."


def _pairs(case: Any) -> Iterator[str]:
    """Two encoders, by minibatches whose representations are gathered."""
    both = case.encoder, case.encoder_y
    if all(encoder.is_linear for encoder in both):
        yield "two linear maps are solved from all pairs in one process; over ranks use encoder='mlp'."
    for encoder in both:
        if encoder.draws:
            yield f"{encoder} may draw random numbers and keep means of its batches; over ranks use encoder='mlp'."
    if resolve_device(case.given["device"]).type != "cpu":
        yield f"device={case.given['device']!r}: over ranks pairs are solved on the CPU; use device='cpu'."


OVER_RANKS: dict[tuple[str, str], Callable[[Any], Iterator[str]]] = {
    ("ICONEmbedding", "map"): _map,
    ("ICONClustering", "chosen"): _chosen,
    ("ICONClustering", "k-means"): _k_means,
    ("ICONClassifier", "softmax regression"): _regression,
    ("ICONClassifier", "prototypes"): _prototypes,
    ("ICONCrossModal", "pairs"): _pairs,
}
