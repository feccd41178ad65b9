"""Fits by several processes, each with its own rows, under torch.distributed.

In an initialised process group of more than one rank, as `torchrun` starts it, `fit` takes the rows of its rank and
the ranks find together what one process would of all rows: coefficients are those of all, `embedding_` and `labels_`
hold the rows of the rank. Every rank has to call it. A rank that fails makes all fail, with its number and the cause.
"""

import copy
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from scipy import sparse

from ._core.group import RankFailure, apart, present

__all__ = ["RankFailure", "alone", "gather", "shard"]


def shard(data: Any, *, rank: int | None = None, n_ranks: int | None = None) -> Any:
    """The rows of one rank: of n rows those from n r / R to n (r + 1) / R.

    Parameters
    ----------
    data : str or path-like of a .npy, .parquet or .zarr file, or array of any kind that has a shape and slices of rows
        Rows of other ranks are never read: a .npy file is mapped into memory, of a .parquet file (by pyarrow, numeric
        columns, or one of labels) those groups of rows are read that hold the rank's, of .zarr and of arrays of zarr or
        h5py those chunks, and of arrays and frames of dask those partitions are computed.
    rank : int, default=None
        The rank r; None is this process's own, 0 without a process group.
    n_ranks : int, default=None
        How many ranks R there are; None is as many as the process group has, 1 without one.

    Returns
    -------
    array
        A slice of what was given; in memory, but of a .npy file.

    Raises
    ------
    ValueError
        Fewer than two rows for each rank, a rank that is none of so many, or a file of another kind.
    ImportError
        What reads such a file is not installed.

    Examples
    --------
    >>> from sklearn_icon.distributed import shard
    >>> shard([[0.0], [1.0], [2.0], [3.0], [4.0]], rank=1, n_ranks=2).tolist()
    [[2.0], [3.0], [4.0]]
    """
    here = present()
    rank, n_ranks = here.rank if rank is None else rank, here.size if n_ranks is None else n_ranks
    if not 0 <= rank < n_ranks:
        raise ValueError(f"rank={rank} must be from 0 to n_ranks - 1 = {n_ranks - 1}.")
    if isinstance(data, str | os.PathLike):
        data = _opened(os.fspath(data))
    read = next((read for name, read in _READERS.items() if hasattr(data, name)), _of_list)
    n, rows_at = read(data)
    if n < 2 * n_ranks:
        raise ValueError(f"data has {n} rows, fewer than two for each of {n_ranks} ranks; start fewer.")
    return rows_at(slice(n * rank // n_ranks, n * (rank + 1) // n_ranks))


def _of_dask(array: Any) -> tuple[int, Callable]:
    return array.shape[0], lambda rows: array[rows].compute()


def _of_list(items: Any) -> tuple[int, Callable]:
    return len(items), np.asarray(items).__getitem__


_READERS: dict[str, Callable[[Any], tuple[int, Callable]]] = {  # by what data have: (rows, what takes a slice of them)
    "to_dask_array": lambda frame: _of_dask(frame.to_dask_array(lengths=True)),
    "compute": _of_dask,
    "iloc": lambda frame: (len(frame), frame.iloc.__getitem__),
    "shape": lambda array: (array.shape[0], array.__getitem__),
}


def _opened(path: str) -> Any:
    """The rows of a file, none of which is read yet."""
    if path.endswith(".npy"):
        try:
            return np.load(path, mmap_mode="r")
        except ValueError as error:
            raise ValueError(
                f"{path} holds no array of numbers or words as numpy.save writes it; save labels that are objects by "
                "np.save(path, np.array(labels, dtype=str))."
            ) from error
    if path.endswith(".parquet"):
        return _Parquet(path)
    if path.endswith(".zarr"):
        import zarr

        return zarr.open_array(path, mode="r")
    raise ValueError(f"data={path!r} is no .npy, .parquet or .zarr file; open it yourself and pass the array.")


class _Parquet:
    """Rows of a parquet file: slices read the groups of rows that they meet."""

    def __init__(self, path: str):
        from pyarrow import parquet

        self.file = parquet.ParquetFile(path)
        told = self.file.metadata
        self.firsts = np.cumsum([0, *(told.row_group(number).num_rows for number in range(told.num_row_groups))])
        self.names = [name for name in self.file.schema_arrow.names if not name.startswith("__index_level_")]
        self.shape = told.num_rows, len(self.names)

    def __getitem__(self, rows: slice) -> np.ndarray:
        met = np.flatnonzero((self.firsts[:-1] < rows.stop) & (self.firsts[1:] > rows.start))
        start = rows.start - self.firsts[met[0]]
        table = self.file.read_row_groups(met.tolist(), columns=self.names).slice(start, rows.stop - rows.start)
        columns = [column.to_numpy() for column in table.columns]
        return columns[0] if len(columns) == 1 else np.column_stack(columns)


def gather(value: Any) -> Any:
    """What all ranks have together, on rank 0: rows in order of ranks, or a fitted estimator with the rows of all.

    Parameters
    ----------
    value : array of rows, or fitted estimator
        Of this rank; all ranks have to call it.

    Returns
    -------
    array or estimator, or None on ranks other than 0
        An estimator is a copy that can be saved, and used as one that was fitted to all rows.

    Examples
    --------
    >>> from sklearn_icon.distributed import gather
    >>> gather([[0.0], [1.0]]).tolist()  # without a process group these are all rows
    [[0.0], [1.0]]
    """
    ranks = present()
    if hasattr(value, "_gathered"):
        whole = copy.copy(value)
        whole._gathered(ranks.to_first)
        return whole if ranks.rank == 0 else None
    return ranks.to_first(value if sparse.issparse(value) else np.asarray(value))


def alone() -> AbstractContextManager[None]:
    """Fits inside are of this process alone, whatever process group there is.

    Returns
    -------
    context manager
        For a `with` statement.

    Examples
    --------
    >>> from sklearn_icon import ICONClassifier
    >>> from sklearn_icon.distributed import alone
    >>> with alone():
    ...     ICONClassifier().fit([[0.0], [1.0], [2.0]], [0, 0, 1]).predict([[3.0]]).tolist()
    [1]
    """
    return apart()
