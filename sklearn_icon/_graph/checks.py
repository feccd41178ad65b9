"""What a metric asks of rows and of its parameters; what is refused, where it stands and what helps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import qr
from sklearn.metrics.pairwise import PAIRWISE_BOOLEAN_FUNCTIONS
from sklearn.utils._param_validation import Interval

from .._core.spec import shortened
from .._core.types import Array, Metric, Rows

NAMES: dict[Any, str] = {"l2": "euclidean", "l1": "manhattan", "cityblock": "manhattan"}
ROOTS: dict[Any, Callable] = {"euclidean": np.sqrt, "sqeuclidean": np.positive, "cosine": partial(np.multiply, 0.5)}
SHIFT_FREE = {"chebyshev", "euclidean", "mahalanobis", "manhattan", "minkowski", "seuclidean", "sqeuclidean"}
_SPARSE = {"cosine", "euclidean", "manhattan", "precomputed", "sqeuclidean"}
_PARAMS: dict = {
    "minkowski": {"p", "w"},
    "seuclidean": {"V"},
    "mahalanobis": {"V", "VI"},
    "haversine": set(),
    "precomputed": set(),
    **{name: {"w"} for name in SHIFT_FREE - {"minkowski", "seuclidean", "mahalanobis"}},
    **{name: {"w"} for name in ("cosine", "correlation", "canberra", "braycurtis", "hamming")},
    **{name: {"w"} for name in PAIRWISE_BOOLEAN_FUNCTIONS},
}
_EXPONENTS = Interval(Real, 0, None, closed="right")
_ROUNDING = 1e-8  # of the largest distance: what rounding leaves of a zero
_ASYMMETRY = 1e-3  # of the largest distance
_DEPENDENT = 1e-10  # of a column's own length, what others leave of it
_PEAKS = 1e-140, 1e140  # of columns whose squares are numbers of full precision
_BLOCK = 512


def plain_metric(metric: Metric, metric_params: dict | None) -> tuple[Metric, dict]:
    """(the metric's plain name, its parameters), of names that stand for the same."""
    metric, params = NAMES.get(metric, metric), dict(metric_params or {})
    if metric == "minkowski" and not _EXPONENTS.is_satisfied_by(p := params.get("p", 2)):
        raise ValueError(f"p in metric_params must be a number above zero, got {shortened(repr(p))}; 2 is euclidean.")
    if metric == "minkowski" and set(params) <= {"p"} and params.get("p", 2) in (1, 2, np.inf):
        metric = {1: "manhattan", 2: "euclidean", np.inf: "chebyshev"}[params.pop("p", 2)]
    return metric, params


def allowed_params(metric: Metric, params: dict, X: Rows) -> None:
    """Refuse unknown metrics, those that cannot compare such rows, and unknown parameters."""
    if callable(metric):
        return
    if metric not in _PARAMS:
        raise ValueError(f"metric={metric!r} is an unknown metric; use one of {sorted(_PARAMS)}, or a callable.")
    if sp.issparse(X) and metric not in _SPARSE:
        raise ValueError(f"metric={metric!r} does not work on sparse rows; choose one of {sorted(_SPARSE)}")
    known = set() if sp.issparse(X) else _PARAMS[metric]
    unknown = sorted(map(str, set(params) - known))
    if unknown:
        takes = f"takes {sorted(known)}" if known else "takes no parameters"
        raise ValueError(f"metric_params={unknown} are unknown: metric={metric!r} {takes}.")
    w = params.get("w")
    if w is not None and (np.shape(w) != X.shape[1:] or not (np.asarray(w, dtype=np.float64) >= 0).all()):
        raise ValueError(
            f"w in metric_params must hold a weight of each of the {X.shape[1]} columns, positive or zero, got "
            f"{shortened(repr(w))}."
        )


def listed(numbers: Array) -> str:
    """The first of some indices, and how many there are."""
    more = ", ..." if len(numbers) > 5 else ""
    return f"[{', '.join(map(str, numbers[:5]))}{more}] ({len(numbers)} in all)"


def compared(metric: Metric, shift: Array | int, rows: Rows, name: str) -> Rows:
    """Rows less the shift, as truth values for a boolean metric, of unit length for the cosine."""
    if metric in PAIRWISE_BOOLEAN_FUNCTIONS:
        return rows != 0
    check_defined(metric, rows, name)
    if metric != "cosine":
        return rows - shift if np.any(shift) else rows
    return _unit_rows(rows)


def check_defined(metric: Metric, rows: Rows, name: str) -> None:
    """Refuse rows of zeros for the cosine, and rows of equal numbers for the correlation."""
    if metric == "cosine":
        bad, what, are = np.flatnonzero(_largest(rows) == 0), "zeros", "zero"
    elif metric == "correlation":
        allowed_params(metric, {}, rows)  # which may be sparse where those of fit were not
        bad, what, are = np.flatnonzero(rows.max(axis=1) == rows.min(axis=1)), "equal numbers", "such"
    else:
        return
    if bad.size:
        raise ValueError(
            f"metric={metric!r} is undefined for rows of {what}; rows {listed(bad)} of {name} are {are}: "
            "drop them, or use metric='euclidean'"
        )


def _largest(rows: Rows) -> Array:
    """The largest absolute value of each row."""
    if sp.issparse(rows):
        return np.asarray(abs(rows).max(axis=1).todense(), dtype=np.float64).ravel()
    return np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float64)


def in_range(rows: Rows) -> Rows:
    """Rows of which those whose squares are not all numbers of full precision are divided by a power of two."""
    peaks, limits = _largest(rows), np.finfo(rows.dtype)
    far = (peaks < np.sqrt(limits.tiny / limits.eps)) | (peaks > np.sqrt(limits.max) * limits.eps)
    if not far.any():
        return rows
    scale = np.where(far, np.ldexp(1.0, np.frexp(peaks)[1] - 1), 1.0)
    if sp.issparse(rows):
        data = rows.data / np.repeat(scale, np.diff(rows.indptr))
        return type(rows)((data.astype(rows.dtype), rows.indices, rows.indptr), shape=rows.shape)
    return (rows / scale[:, None]).astype(rows.dtype)


def _unit_rows(rows: Rows) -> Rows:
    """Rows of unit length, in double precision and of any scale."""
    rows = in_range(rows)
    if sp.issparse(rows):
        norms = np.sqrt(np.asarray(rows.astype(np.float64).power(2).sum(axis=1)).ravel())
        return rows.multiply((1 / norms)[:, None]).tocsr()
    return rows * (1 / np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)))[:, None]


def variances(V: Any, reference: Array, name: str) -> Array:
    """Those of seuclidean: given, or of the columns."""
    given = V is not None
    with np.errstate(over="ignore", invalid="ignore"):
        V = np.asarray(V, dtype=np.float64) if given else reference.var(axis=0, ddof=1, dtype=np.float64)
    if V.shape != reference.shape[1:]:
        raise ValueError(f"V in metric_params has shape {V.shape}, but {name} has {reference.shape[1]} columns.")
    bad = np.flatnonzero(~(V > 0) | ~np.isfinite(V) | (not given and reference.max(axis=0) == reference.min(axis=0)))
    if bad.size:
        of = "V in metric_params" if given else f"the variance of {name}"
        raise ValueError(
            f"metric='seuclidean' divides by the variance of each column, but {of} is not positive in columns "
            f"{listed(bad)}: drop or scale these columns, or give metric_params={{'V': ...}} positive numbers"
        )
    return V


def covariance_inverse(params: dict, reference: Array, name: str) -> Array:
    """That of mahalanobis: given as VI, or of the covariance V that is given, or of the rows."""
    if params.get("VI") is not None:
        return _semidefinite("VI", params["VI"], reference.shape[1], name, 0.0)
    if params.get("V") is not None:
        return np.linalg.inv(_semidefinite("V", params["V"], reference.shape[1], name, _DEPENDENT))
    width = reference.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        centred = reference - reference.mean(axis=0, dtype=np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->j", centred, centred))
    constant = reference.max(axis=0) == reference.min(axis=0)
    lengths[constant] = 1
    extreme = np.flatnonzero(~((lengths >= _PEAKS[0]) & (lengths <= _PEAKS[1])))
    if extreme.size:
        raise ValueError(
            "metric='mahalanobis' needs variances and their inverses, which under- or overflow in columns "
            f"{listed(extreme)} of {name}: scale these columns"
        )
    R, order = qr(np.where(constant, 0, centred / lengths), mode="r", pivoting=True)[:2]
    rank = np.count_nonzero(np.abs(np.diag(R)) > _DEPENDENT)
    if rank < width:
        raise ValueError(
            "metric='mahalanobis' needs a covariance that has an inverse, but these columns are constant or "
            f"combinations of others: {listed(np.sort(order[rank:]))} of {name}, which has {len(reference)} rows: drop "
            "them, reduce the columns by PCA, or give metric_params={'VI': ...}"
        )
    return np.linalg.inv(np.atleast_2d(np.cov(reference, rowvar=False)))


def _semidefinite(key: str, matrix: Any, width: int, name: str, least: float) -> Array:
    """A matrix of metric_params, (width, width), whose eigenvalues are no smaller than a fraction of its entries."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (width, width):
        raise ValueError(f"{key} in metric_params has shape {matrix.shape}, but {name} has {width} columns.")
    found = np.linalg.eigvalsh((matrix + matrix.T) / 2)[0] if np.isfinite(matrix).all() else np.nan
    if not found >= (least or -_ROUNDING) * np.abs(matrix).max():
        what = "definite matrix, as the covariance of independent columns" if least else "semi-definite matrix"
        raise ValueError(
            f"{key} in metric_params must be a positive {what}, but its least eigenvalue is {found:.3g}: pass "
            + ("another, or its pseudo-inverse as VI" if least else "the inverse of a covariance")
        )
    return matrix


def checked_distances(d: Rows, metric: Metric, names: tuple[str, str]) -> Rows:
    """Distances, finite and not negative but for rounding."""
    if not np.isfinite(d).all():
        r, c = np.argwhere(~np.isfinite(d))[0]
        raise ValueError(
            f"metric={metric!r} gives distances that are not finite for some of these rows, as {d[r, c]} between rows "
            f"of {names[0]} and {names[1]}; drop such rows, or choose another metric"
        )
    return without_negatives(d, f"metric={metric!r}")


def without_negatives(d: Rows, what: str) -> Rows:
    """Distances whose negative ones, where no larger than rounding, are zero."""
    values = d.data if sp.issparse(d) else d
    least = values.min(initial=0)
    if least >= 0:
        return d
    if least < -_ROUNDING * values.max(initial=0):
        r, c = place_of(d, lambda values: values == least)
        raise ValueError(
            f"{what} needs distances, but that of [{r}, {c}] is {least:g}, which is negative; clip it at 0, or "
            "pass distances where these are similarities. All distances should be positive or zero, those of a metric "
            "given as a function too"
        )
    d = d.copy()
    np.maximum(d.data if sp.issparse(d) else d, 0, out=d.data if sp.issparse(d) else d)
    return d


def place_of(d: Rows, is_it: Callable[[Array], Array]) -> tuple[int, int]:
    """(row, column) of the first entry that is one."""
    if not sp.issparse(d):
        return np.argwhere(is_it(d))[0].tolist()
    at = int(np.flatnonzero(is_it(d.data))[0])
    return int(np.searchsorted(d.indptr, at, side="right")) - 1, int(d.indices[at])


def checked_matrix(d: Rows) -> Rows:
    """Distances (n, n) among rows, dense or of a graph, refused where they are similarities or one triangle."""
    if d.shape[0] != d.shape[1]:
        raise ValueError(f"metric='precomputed' needs a square matrix of distances, got shape {d.shape}")
    d = without_negatives(d, "metric='precomputed'")
    own = d.diagonal()
    largest = np.asarray(d.max(axis=1).todense()).ravel() if sp.issparse(d) else d.max(axis=1)
    if (own > 0).all() and (own >= largest).all():
        raise ValueError(
            f"metric='precomputed' needs distances, but entry [0, 0] is {own[0]:g} and every row is largest on the "
            "diagonal, as similarities are; pass distances, such as 1 - S of similarities S up to 1, or use "
            "supervisory='graph' for weights"
        )
    if not sp.issparse(d):
        _check_symmetric(d)
    return d


def _check_symmetric(d: Array) -> None:
    """Refuse a matrix that is one triangle, or far from symmetric."""
    n, limit = len(d), _ASYMMETRY * d.max()
    for start in range(0, n, _BLOCK):
        off = np.abs(d[start : start + _BLOCK] - d[:, start : start + _BLOCK].T)
        r, c = np.unravel_index(off.argmax(), off.shape)
        if off[r, c] > limit:
            r += start
            for triangle, which in ((np.tril(d, -1), "upper"), (np.triu(d, 1), "lower")):
                if not triangle.any():
                    raise ValueError(
                        f"metric='precomputed' needs all distances, but only the {which} triangle is there: entry "
                        f"[{r}, {c}] is {d[r, c]:g}, but [{c}, {r}] is {d[c, r]:g}; pass D + D.T"
                    )
            raise ValueError(
                f"metric='precomputed' needs a symmetric matrix, but entry [{r}, {c}] is {d[r, c]:g} and [{c}, {r}] is "
                f"{d[c, r]:g}; pass (D + D.T) / 2, or a sparse graph of the neighbours of each row"
            )
