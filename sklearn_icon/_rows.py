"""Which rows are equal: digests of rows, duplicates, and rows seen before."""

from hashlib import blake2b

import numpy as np
from scipy import sparse


def row_digests(X):
    """A 64-bit digest of each row's values: equal rows have equal digests, dense or sparse."""
    if sparse.issparse(X):
        X = sparse.csr_array(X, copy=True)
        X.sum_duplicates()
        X.eliminate_zeros()
        bounds = zip(X.indptr[:-1], X.indptr[1:], strict=True)
        entries = ((X.indices[a:b], X.data[a:b]) for a, b in bounds)
    else:
        entries = ((np.flatnonzero(row), row[row != 0]) for row in X)
    contents = (columns.astype(np.int64).tobytes() + values.astype(np.float64).tobytes() for columns, values in entries)
    digests = (int.from_bytes(blake2b(content, digest_size=8).digest(), "little", signed=True) for content in contents)
    return np.fromiter(digests, dtype=np.int64, count=X.shape[0])


def match_rows(digests, known_digests):
    """For each digest the first position at which it is known, or -1.

    Parameters
    ----------
    digests : ndarray of shape (n_new,)
    known_digests : ndarray of shape (n_known,)

    Returns
    -------
    ndarray of int of shape (n_new,)
    """
    order = np.argsort(known_digests, kind="stable")
    position = np.searchsorted(known_digests, digests, sorter=order)
    candidate = order[np.minimum(position, len(order) - 1)]
    return np.where(known_digests[candidate] == digests, candidate, -1)


def average_duplicates(values, X):
    """Give equal rows of X one value: the mean of theirs. Without features (X is None) no rows are equal."""
    if X is None:
        return values
    digests = row_digests(X)
    first, inverse, counts = np.unique(digests, return_inverse=True, return_counts=True)
    if len(first) == len(digests):
        return values
    sums = np.zeros((len(first), values.shape[1]))
    np.add.at(sums, inverse, values)
    merged = (sums / counts[:, None])[inverse].astype(values.dtype)
    return np.where((counts[inverse] > 1)[:, None], merged, values)
