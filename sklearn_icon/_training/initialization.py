"""Where a map starts."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA
from sklearn.manifold import spectral_embedding
from sklearn.utils import gen_batches

from .._core.conditional import Conditional
from .._core.group import group
from .._core.pieces import at_once, is_above
from .._core.rows import is_itself
from .._core.types import Array, Rows

_SCALE = 1e-4
_NOISE, _FLAT = 1e-2, 1e-4  # of a start's width: noise, and what is flat
_WIDEST = 5.0  # times the root of the number of rows; from wider starts the loss hardly falls
_FAR = 1e3  # widths from the origin
_COPIES, _NUMBERS_AT_ONCE = 2, 1 << 20  # of X that PCA holds; numbers of a block where that is too much
_EQUAL = 1e-12  # of the largest magnitude: what is rounding alone


def initial_map(
    init: Any, n_components: int, X: Rows | None, p: Conditional, random_state: np.random.RandomState
) -> Array:
    """The first positions of all rows.

    Parameters
    ----------
    init : {"auto", "pca", "spectral", "random"} or array-like of shape (n_samples, n_components)
        "auto" is "pca", or "spectral" where there are no features (`X` is None).
    n_components : int
    X : array or sparse matrix of shape (n_samples, n_features) or None
    p : Conditional
        Its symmetrised weights are the graph of the spectral start.
    random_state : RandomState instance

    Returns
    -------
    ndarray of shape (n_samples, n_components), float64
        Its first column has standard deviation 1e-4. An array is taken as it is, unless its widest column is narrower
        than 1e-4 or wider than a map of so many rows, where no descent begins: then it is centred and scaled likewise.
        Directions in which a start is flat, and would stay so, get noise of a hundredth of its width.

    Raises
    ------
    ValueError
        An array of another shape, of values that are no numbers, or not finite.
    """
    shape = (p.shape[1], n_components)  # of the rows of all ranks
    if is_itself(init):
        if X is not None and not sparse.issparse(X) and (X == X[0]).all():  # one place, which no step moves
            return given_map(init, shape)
        return _spread_out(_scaled(given_map(init, shape)), random_state)
    return _spread_out(_found_map(init, shape, X, p, random_state), random_state)


def check_start(init: Any, shape: tuple[int, int], p_spec: Any, holds: str) -> None:
    """Refuse an array that is no start, and a start that X, which holds what `holds` says, has nothing for."""
    if is_itself(init):
        given_map(init, shape)
    elif p_spec.keys == "tokens" and init in ("pca", "spectral"):
        raise ValueError(f"init={init!r} is no start of a map of {p_spec}; use 'auto', 'random' or an array.")
    elif init == "pca" and holds == "distances":
        raise ValueError(
            'The parameter init="pca" cannot be used with metric="precomputed". X holds distances and no features; use '
            "'auto' or 'spectral', which start from the graph of neighbours, 'random' or an array."
        )
    elif init == "pca" and holds != "features":
        raise ValueError(
            f"init='pca' needs features, but X holds a {holds}; use 'auto', 'spectral', 'random' or an array."
        )


def given_map(init: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """An array-like start as float64; refused unless it is finite and of this shape."""
    try:
        start = np.ma.filled(init, np.nan) if np.ma.isMaskedArray(init) else np.asarray(init)
        if start.dtype.kind not in "biufO":
            raise TypeError(f"values of type {start.dtype}.")
        start = start.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"init must be 'auto', 'pca', 'spectral', 'random' or real numbers of shape {shape} (n_samples, "
            f"n_components), but a {type(init).__name__} holds others: {error}"
        ) from error
    if start.shape != shape:
        raise ValueError(f"init has shape {start.shape}, but the map has shape {shape} (n_samples, n_components).")
    if not np.isfinite(start).all():
        row, column = np.argwhere(~np.isfinite(start))[0]
        raise ValueError(f"init contains NaN or infinity: {start[row, column]} in row {row}, column {column}.")
    return start


def _scaled(start: np.ndarray) -> np.ndarray:
    """A start of any units in those of a map; far from the origin, single precision would join its rows."""
    magnitude = max(np.abs(start).max(), np.finfo(np.float64).tiny)
    centred = start / magnitude - (start / magnitude).mean(axis=0)
    width = centred.std(axis=0).max() * magnitude
    if _SCALE <= width <= _WIDEST * max(len(start), 100) ** 0.5 and magnitude < _FAR * width:
        return start
    centred_width = centred.std(axis=0).max()
    return _SCALE * centred / centred_width if centred_width > _EQUAL else np.zeros_like(start)


def _spread_out(start: np.ndarray, random_state: np.random.RandomState) -> np.ndarray:
    """Noise where a start is flat: by symmetry no gradient leads out of a line or a point."""
    centred = start - start.mean(axis=0)
    if not centred.any():
        return start + _SCALE * random_state.standard_normal(start.shape)
    values, directions = np.linalg.eigh(centred.T @ centred / len(start))
    width = values[-1] ** 0.5
    flat = directions[:, values < (_FLAT * width) ** 2]
    return start + _NOISE * width * random_state.standard_normal((len(start), flat.shape[1])) @ flat.T


def _found_map(
    init: str, shape: tuple[int, int], X: Rows | None, p: Conditional, random_state: np.random.RandomState
) -> Array:
    """A start from the data, or at random."""
    n_components = shape[1]
    start = random_state.standard_normal(shape)
    if init in ("auto", "pca") and X is not None:
        found = _principal_components(X, n_components, random_state)
    elif init in ("auto", "spectral"):
        found = _eigenvectors(p, n_components, random_state)
    else:
        found = None
    if found is None or not found[:, 0].std() > 0:
        return _SCALE * start
    found = found / found[:, 0].std()
    start[:, : found.shape[1]] = found
    start[:, found.shape[1] :] *= _NOISE
    return _SCALE * start


def _principal_components(X: Rows, n_components: int, random_state: np.random.RandomState) -> Array | None:
    """Scores on the leading principal components, as many as there are; None where all rows are equal."""
    if group().several or (not sparse.issparse(X) and is_above(_COPIES * X.nbytes)):
        return _scores_of_sums(X, n_components)
    if (X.max(axis=0) != X.min(axis=0)).sum() == 0:
        return None
    n_found = min(n_components, *X.shape)
    if sparse.issparse(X) and n_found == min(X.shape):  # arpack finds all but one
        X = X.toarray()
    solver = "arpack" if sparse.issparse(X) else "auto"
    # A power of two, so that the division is exact; squares of wide scales stay finite.
    scale = 2.0 ** np.floor(np.log2(max(abs(X).max(), np.finfo(np.float64).tiny)))
    seed = random_state.randint(np.iinfo(np.int32).max)
    pca = PCA(n_found, svd_solver=solver, random_state=seed).set_output(transform="default")
    return pca.fit_transform(X / scale)


def _scores_of_sums(X: Array, n_components: int) -> Array | None:
    """The same of the dense rows of all ranks, from their covariance, a block at a time; signs are those of PCA."""
    ranks, parts = group(), list(gen_batches(len(X), max(1, at_once(_NUMBERS_AT_ONCE) // X.shape[1])))
    n, scale = ranks.total(len(X)), ranks.largest(float(max(X.max(), -X.min(), np.finfo(np.float64).tiny)))
    unit = 2.0 ** np.floor(np.log2(scale))
    sums: Any = sum((X[part] / unit).sum(axis=0, dtype=np.float64) for part in parts)
    mean, moments = ranks.total(sums) / n, np.zeros((X.shape[1], X.shape[1]))
    for part in parts:
        block = X[part] / unit - mean
        moments += block.T @ block
    values, vectors = np.linalg.eigh(ranks.total(moments))
    if not values[-1] > 0:
        return None
    leading = vectors[:, ::-1][:, : min(n_components, X.shape[1], n)]
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    return ranks.gathered(np.concatenate([(X[part] / unit - mean) @ leading for part in parts]))


def _eigenvectors(p: Conditional, n_components: int, random_state: np.random.RandomState) -> Array | None:
    """Leading eigenvectors of the graph's normalised Laplacian; None where it has several components."""
    graph = p.weights + p.weights.T
    n_parts, part = connected_components(graph, directed=False)
    if n_parts > 1:
        sizes = np.sort(np.bincount(part))[::-1]
        warnings.warn(
            f"the graph has {n_parts} components, of sizes {sizes[:5].tolist()}{'...' if n_parts > 5 else ''}; "
            "the map starts at random coordinates instead of the graph's eigenvectors.",
            UserWarning,
            stacklevel=4,
        )
        return None
    n_found = min(n_components, graph.shape[0] - 2)
    if n_found < 1:
        return None
    seed = random_state.randint(np.iinfo(np.int32).max)
    return spectral_embedding(sparse.csr_matrix(graph), n_components=n_found, random_state=seed)
