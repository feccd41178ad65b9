"""The leading eigenvectors of a flow between rows, which relax the cut."""

import numpy as np
from scipy import sparse

_SPARE, _SMOOTHING = 2, 10  # vectors beyond those wanted, beside up to five more; products of the random start
_ROUNDS, _DEGREE, _LARGEST = 60, 20, 18.0  # of the filter; e^18 is what it multiplies the first vector by, at the most
_ALL = 5  # rows for each vector, up to which all eigenvectors are computed
_SINGLE = 1e-5  # tolerances from which on the filter is in single precision


def leading_eigenvectors(flow: sparse.csr_array, n_vectors: int, seed: int, tol: float = 1e-4) -> np.ndarray:
    """Those of D^-1 W, the largest eigenvalue first, until |S u - lambda u| <= tol of S = D^-1/2 W D^-1/2.

    By a block of vectors, that Chebyshev polynomials of S filter: products with S cost little where W is sparse, while
    a factorisation fills in where rows have many dimensions. Blocks find the equal eigenvalues of groups that nothing
    joins, which a single Krylov space does not.
    """
    degrees = np.asarray(flow.sum(axis=1)).ravel()
    root = np.sqrt(np.where(degrees > 0, degrees, 1))
    scaled = sparse.csr_array(sparse.diags_array(1 / root) @ flow @ sparse.diags_array(1 / root))
    if len(root) <= _ALL * n_vectors:
        return np.linalg.eigh(scaled.toarray())[1][:, ::-1][:, :n_vectors] / root[:, None]
    vectors = np.random.RandomState(seed).standard_normal((len(root), n_vectors + min(n_vectors, 5) + _SPARE))
    vectors[:, 0] = root
    filter_of = scaled.astype(np.float32 if tol >= _SINGLE else np.float64)
    vectors = vectors.astype(filter_of.dtype)
    for _ in range(_SMOOTHING):
        vectors = filter_of @ vectors
    for _ in range(_ROUNDS):
        vectors = np.linalg.qr(vectors.astype(np.float64))[0]
        reached = scaled @ vectors
        values, rotation = np.linalg.eigh(vectors.T @ reached)
        vectors, reached = vectors @ rotation, reached @ rotation
        if np.linalg.norm(reached - vectors * values, axis=0)[-n_vectors:].max() <= tol:
            break
        both = vectors.astype(filter_of.dtype), reached.astype(filter_of.dtype)
        vectors = _filtered(filter_of, *both, float(min(values[0], 1 - 1e-6)))
    return vectors[:, ::-1][:, :n_vectors] / root[:, None]


def _filtered(scaled: sparse.csr_array, vectors: np.ndarray, reached: np.ndarray, bound: float) -> np.ndarray:
    """T_m of S, from -1 to the bound moved to -1 to 1, times vectors: what lies between stays small, the rest grows."""
    centre, half = (bound - 1) / 2, (bound + 1) / 2
    degree = int(np.clip(_LARGEST / np.arccosh((1 - centre) / half), 1, _DEGREE))
    before, now = vectors, (reached - centre * vectors) / half
    for _ in range(degree - 1):
        before, now = now, 2 / half * (scaled @ now - centre * now) - before
    return now
