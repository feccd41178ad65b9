"""How much memory a fit takes, and how much is free: one number of bytes, by which fits that do not fit are refused.

Predictions are sums over what a fit holds at once: rows in the precisions of the route, candidates and edges of p, and
libraries that are not loaded yet. Their factors were measured by `benchmarks/memory.py`.
"""

import sys
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from .._clusters.losses import bytes_of_k_means, copies_have_room
from .._core.free_memory import free
from .._core.pieces import OWN_COPY, has_room
from .._core.rows import is_fixed
from .._graph.search import bytes_of_search, is_short

MEGABYTE = 1 << 20
_TORCH, _COMPILER = 195 * MEGABYTE, 145 * MEGABYTE  # resident once they are loaded
_NEVER_TOLD = 32 * MEGABYTE  # the least of which it is asked whether it is free: a process takes as much to do anything
_CERTAIN = 0.75  # of a prediction, below which no fit stays
_EDGE = 60  # bytes of a neighbour, from its distance to its part of a gradient
_FOUND, _OF_BLOCKS = 20, 0.5  # bytes of a neighbour found in blocks, which take half of what is allowed
_OF_MAP, _OF_EDGE = 200, 24  # bytes of a row, and of its neighbour, of a map whose edges are in files
_BY_CELLS, _OF_CELL = 100, 400  # bytes of a row that is searched in cells, and of a column of a cell's sample
_END, _EDGES_TOGETHER = 32, 1 << 17  # bytes of a coordinate: of both ends, their difference and its square
_SCALED_ROWS = 1 << 14  # two pieces, by which inputs of networks are scaled
_REMEDY = "fit fewer rows or columns, or rows in single precision"


class Size(NamedTuple):
    """What the memory of a fit follows from: rows, columns (of sparse rows as many as are not zero), bytes of a row."""

    rows: int
    columns: float
    row_bytes: float
    dense: bool = True
    fixed: bool = False  # whether nobody can write to it, so that no copy is kept of what is large

    @classmethod
    def of(cls, X: Any) -> "Size":
        """That of an array, dense or sparse."""
        shape = X.shape if sparse.issparse(X) else np.shape(X)
        given = getattr(X, "dtype", None)
        single = given == np.float32 or (type(X) is not np.ndarray and str(given) == "torch.float32")
        dtype = np.dtype(np.float32 if single else np.float64)
        if sparse.issparse(X):
            return cls(shape[0], X.nnz / max(shape[0], 1), X.nnz / max(shape[0], 1) * (dtype.itemsize + 4), False)
        columns = int(np.prod(shape[1:]))
        return cls(shape[0], columns, columns * dtype.itemsize, fixed=is_fixed(X))


def libraries(compiled: bool) -> int:
    """Bytes of what a fit has yet to load."""
    return _TORCH * ("torch" not in sys.modules) + _COMPILER * (compiled and "numba" not in sys.modules)


def of_neighbors(size: Size, n_neighbors: int, allowed: float | None = None) -> float:
    """Bytes of p from neighbours and a map of it: of the search, or of edges, whose turn comes after.

    Of more than is allowed dense rows are searched in blocks or in cells, and arrays of edges are in files.
    """
    search, edges = size.rows * bytes_of_search(size.columns, n_neighbors), size.rows * _EDGE * n_neighbors
    if allowed is not None and size.dense:
        search = _on_disk(size, n_neighbors, allowed) if not has_room(search, allowed) else search
        edges = size.rows * (_OF_MAP + _OF_EDGE * n_neighbors) if not has_room(edges, allowed, always=0) else edges
    return 30 * MEGABYTE + max(search, edges)


def _on_disk(size: Size, n_neighbors: int, allowed: float) -> float:
    """Bytes of a search in blocks, or of very many rows in cells, whose centres are those of a sample."""
    copy = size.row_bytes * size.rows
    found = size.rows * _FOUND * n_neighbors
    if not is_short(size.rows, size.columns):
        found = size.rows * _BY_CELLS + size.rows**0.5 * _OF_CELL * size.columns
    return found + _OF_BLOCKS * allowed + copy * (not size.fixed or OWN_COPY * copy <= allowed)


def of_k_means(size: Size, n_clusters: int, allowed: float | None) -> float:
    """Bytes of k-means: of copies of the rows, unless these have no room beside libraries and stay where they are."""
    of_rows = size.rows * size.row_bytes
    copied = allowed is None or copies_have_room(size.rows, n_clusters, of_rows, allowed)
    return 80 * MEGABYTE + bytes_of_k_means(size.rows, n_clusters, of_rows if copied else 0)


def of_ends(n_edges: float, n_components: int) -> float:
    """Bytes of the ends of as many edges as the loss of each row looks at together."""
    return _END * min(n_edges, _EDGES_TOGETHER) * n_components


def of_batches(size: Size) -> float:
    """Bytes of a training on minibatches: of the piece of rows by which inputs are scaled, and of all rows' weights."""
    return 8 * _SCALED_ROWS * size.columns + 60 * size.rows


def refuse(estimator, X: Any = None, *_: Any, **__: Any) -> None:
    """Raise MemoryError where a fit of X needs more than is free, or than `max_memory`, before it computes anything."""
    try:
        needed, allowed = estimator._memory(Size.of(X)), estimator.max_memory
        if needed <= (_NEVER_TOLD if allowed is None else min(_NEVER_TOLD, allowed)):
            return
        above = allowed is not None and needed > allowed
        available, bound = free()
        if not above and needed * _CERTAIN <= available:
            return
        needed = estimator.estimate_memory(X)  # which looks at parameters first
    except Exception:  # of X or of parameters, of which the fit itself tells
        return
    name, remedy = type(estimator).__name__, estimator._less_memory
    if above:
        told = f"{name} needs about {_shown(needed)} for this fit, above max_memory, {_shown(allowed)}; raise it"
        raise MemoryError(f"{told}, {remedy}, or {_REMEDY}.")
    raise MemoryError(_told(name, needed, available, bound, remedy))


def as_memory_error(estimator, error: BaseException, X: Any = None, *_: Any, **__: Any) -> MemoryError | None:
    """An error of libraries that could not allocate memory, as what it is."""
    text = str(error).lower()
    if text.startswith("cuda out of memory"):
        return MemoryError(f"{type(estimator).__name__}: {error} {estimator._less_memory.capitalize()}, or {_REMEDY}.")
    if not any(words in text for words in ("allocate memory", "start new thread", "map segment", "unable to allocate")):
        return None
    try:
        needed = estimator.estimate_memory(X)
    except Exception:
        return MemoryError(f"{type(estimator).__name__}: {error}")
    return MemoryError(_told(type(estimator).__name__, needed, *free(), estimator._less_memory))


def _told(name: str, needed: float, available: int, bound: str, remedy: str) -> str:
    return (
        f"{name} needs about {_shown(needed)} for this fit, but {_shown(available)} are free ({bound}); {remedy}, or "
        f"{_REMEDY}."
    )


def _shown(number: float) -> str:
    """In megabytes or gigabytes."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
