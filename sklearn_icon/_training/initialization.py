"""Where a map starts."""

import warnings

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA
from sklearn.manifold import spectral_embedding

_SCALE = 1e-4


def initial_map(init, n_components, X, p, random_state):
    """The first positions of all rows.

    Parameters
    ----------
    init : {"pca", "spectral", "random"} or ndarray of shape (n_samples, n_components)
        "pca" becomes "spectral" where there are no features (`X` is None).
    n_components : int
    X : array or sparse matrix of shape (n_samples, n_features) or None
    p : Conditional
        Its symmetrised weights are the graph of the spectral start.
    random_state : RandomState instance

    Returns
    -------
    ndarray of shape (n_samples, n_components), float64
        Its first column has standard deviation 1e-4, unless `init` is an array, which is taken as it is.

    Raises
    ------
    ValueError
        An array of another shape.
    """
    shape = (p.shape[0], n_components)
    if isinstance(init, np.ndarray):
        if init.shape != shape:
            raise ValueError(f"init has shape {init.shape}, but the map has shape {shape} (n_samples, n_components).")
        if not np.isfinite(init).all():
            raise ValueError("init contains NaN or infinity.")
        return init.astype(np.float64)
    start = random_state.standard_normal(shape)
    if init == "pca" and X is not None:
        found = _principal_components(X, n_components, random_state)
    elif init in ("pca", "spectral"):
        found = _eigenvectors(p, n_components, random_state)
    else:
        found = None
    if found is None or not found[:, 0].std() > 0:
        return _SCALE * start
    found = found / found[:, 0].std()
    start[:, : found.shape[1]] = found
    start[:, found.shape[1] :] *= 1e-2
    return _SCALE * start


def _principal_components(X, n_components, random_state):
    """Scores on the leading principal components, as many as there are; None where all rows are equal."""
    if (X.max(axis=0) != X.min(axis=0)).sum() == 0:
        return None
    n_found = min(n_components, *X.shape)
    if sparse.issparse(X):
        n_found = min(n_found, min(X.shape) - 1)
        if n_found < 1:
            return None
    solver = "arpack" if sparse.issparse(X) else "auto"
    # A power of two, so that the division is exact; squares of wide scales stay finite.
    scale = 2.0 ** np.floor(np.log2(max(abs(X).max(), np.finfo(np.float64).tiny)))
    seed = random_state.randint(np.iinfo(np.int32).max)
    return PCA(n_found, svd_solver=solver, random_state=seed).fit_transform(X / scale)


def _eigenvectors(p, n_components, random_state):
    """Leading eigenvectors of the graph's normalised Laplacian; None where it has several components."""
    graph = p.weights + p.weights.T
    n_parts, part = connected_components(graph, directed=False)
    if n_parts > 1:
        sizes = np.sort(np.bincount(part))[::-1]
        warnings.warn(
            f"the graph has {n_parts} components, of sizes {sizes[:5].tolist()}{'...' if n_parts > 5 else ''}; "
            "the map starts at random places instead of the graph's eigenvectors.",
            UserWarning,
            stacklevel=4,
        )
        return None
    if n_components >= graph.shape[0] - 1:
        return None
    seed = random_state.randint(np.iinfo(np.int32).max)
    return spectral_embedding(sparse.csr_matrix(graph), n_components=n_components, random_state=seed)
