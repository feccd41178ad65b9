"""Checkpoints: what a fit has computed, in a file, from which the same call in another process goes on.

The file has the format of `saving`, its document being

    {"format", "version", "fit": what is fitted to what, by digest, "stages": finished ones, "steps": of the next}

and it is replaced as a whole, so that there is a complete one at any time. It is read only for the fit that it is of:
the same estimator, parameters, data, device and version of the library. Over ranks it is rank 0's, and of all rows;
each rank keeps what is of its own rows in a file beside it, which counts where as many ranks have the same rows again.
"""

import hashlib
import json
import os
import re
import warnings
from contextlib import contextmanager
from functools import singledispatch
from inspect import signature
from math import prod
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _get_feature_names

from .._core.device import resolve_device
from .._core.group import group
from .._core.interrupts import called_by_a_search
from .._core.journal import Damaged, Journal, current, kept_in
from .._core.rows import digests_of, mixed_bits, row_digests, shape_of
from .._core.spec import shown
from .._core.versions import __version__
from .progress import say
from .saving import FORMAT, decoded, encoded, packed, parsed, read, refusing, write

_KIND = "sklearn_icon_checkpoint"
_WITHOUT_EFFECT = {"checkpoint", "verbose", "copy", "copy_x", "output"}  # on what a fit computes
_ROWS_AT_ONCE, _BITS = 4096, (1 << 64) - 1
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@contextmanager
def following(estimator, fit, args, kwargs):
    """Keep what a fit computes where `checkpoint` says; one within another is kept with that one."""
    if current() is not None or estimator.checkpoint is None:
        yield
        return
    estimator._validate_params()
    given = signature(fit).bind(estimator, *args, **kwargs).arguments
    checkpoint = _Checkpoint(estimator, {name: given[name] for name in list(given)[1:]})
    if group().several:
        of_rows = _OfRank(checkpoint)
        journal = Journal(checkpoint.keep, *checkpoint.known(), of_rows.keep, of_rows.known())
    else:
        journal = Journal(checkpoint.keep, *checkpoint.known())
    if journal.stages and estimator.verbose and group().rank == 0:
        say(f"[{type(estimator).__name__}] goes on from {checkpoint.path}")
    try:
        with kept_in(journal):
            yield
    except Damaged as error:
        raise ValueError(f"{checkpoint.path} cannot be gone on from: {error}; delete it.") from None
    finally:
        if journal.changed:
            journal.write()


class _Checkpoint:
    """A file, and the fit that it is of."""

    def __init__(self, estimator, data: dict):
        parameters = estimator.get_params(deep=False)
        known = {name: value for name, value in parameters.items() if name not in _WITHOUT_EFFECT}
        self.fit: dict[str, Any] = {
            "estimator": type(estimator).__name__,
            "device": str(resolve_device(estimator.device)),
            "parameters": {name: [_digest(value, name), shown(value)] for name, value in known.items()},
            "data": {name: _data_digest(value) for name, value in data.items() if value is not None},
        }
        self.n_rows = shape_of(next(iter(data.values())))[0]
        if parameters.get("warm_start"):
            fitted = {
                name: value for name, value in vars(estimator).items() if name.endswith("_") and name != "fit_report_"
            }
            self.fit["data"]["the fit that warm_start begins at"] = _digest(fitted, "warm_start")
        self.path, self.warned = _place(estimator.checkpoint, self.fit), False

    def known(self) -> tuple[list, Any]:
        """(finished stages, steps of the next) of the file, as rank 0 finds it."""
        return group().objects(self._found() if group().rank == 0 else None, "a checkpoint")[0]

    def _found(self) -> tuple[list, Any]:
        """(finished stages, steps of the next) where the file is there; a ValueError where it is of another fit."""
        if not self.path.exists() and not self.path.is_symlink():
            return [], None
        with refusing(f"checkpoint={str(self.path)!r} cannot be read, delete it or pass another path"):
            document, arrays = parsed(read(self.path), _KIND, "a checkpoint")
            differing = self._differing(document)
            if not differing:
                return decoded(document["stages"], arrays), decoded(document["steps"], arrays)
        raise ValueError(
            f"checkpoint={str(self.path)!r} holds another fit: {differing}. Pass what it is of, or another path, or "
            "delete it."
        )

    def _differing(self, document: dict) -> str:
        """What differs from this fit, in words."""
        if document["version"] != __version__:
            return f"version {document['version']} of sklearn_icon wrote it, and this is {__version__}"
        there, here = document["fit"], self.fit
        parts = [f"{name} was {there[name]} and is {here[name]}" for name in ("estimator", "device")]
        parts = [part for part, name in zip(parts, ("estimator", "device"), strict=True) if there[name] != here[name]]
        for name in sorted(there["parameters"].keys() | here["parameters"].keys()):
            before, now = (fit["parameters"].get(name, [None, "missing"]) for fit in (there, here))
            if before[0] != now[0]:
                alike = " (of other content)" if before[1] == now[1] else ""
                parts.append(f"{name} was {before[1]} and is {now[1]}{alike}")
        names = sorted(there["data"].keys() | here["data"].keys())
        parts += [f"{name} is not the same" for name in names if there["data"].get(name) != here["data"].get(name)]
        return ", ".join(parts)

    def keep(self, stages: list, steps: Any) -> None:
        """Write the file, which is rank 0's."""
        if group().rank == 0:
            self.write(self.path, {"stages": stages, "steps": steps})

    def write(self, path: Path, content: dict[str, Any]) -> None:
        """Write a file; a fit outlives that it cannot be written."""
        arrays: list[np.ndarray] = []
        document: dict[str, Any] = {"format": FORMAT, "version": __version__, "fit": self.fit}
        document |= {name: encoded(value, arrays, name) for name, value in content.items()}
        try:
            write(path, packed(document, arrays, _KIND))
        except OSError as error:
            if not self.warned:
                warnings.warn(
                    f"checkpoint={str(path)!r} was not written ({error}): the fit goes on, and will be lost if "
                    "the process ends before it does.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self.warned = True


class _OfRank:
    """The file of what stages gave of the rows of this rank, beside that of all."""

    def __init__(self, checkpoint: _Checkpoint):
        self.checkpoint, path, ranks = checkpoint, checkpoint.path, group()
        self.path = path.with_name(f"{path.stem}.rank{ranks.rank}{path.suffix}")
        self.rows = [*ranks.first_of(checkpoint.n_rows), checkpoint.n_rows, ranks.size]

    def known(self) -> dict[str, Any]:
        """What stages gave, by number, of those that all ranks have theirs of."""
        found = self._found()
        numbers = set.intersection(*map(set, group().objects(list(found), "stages of rows")))
        return {number: value for number, value in found.items() if number in numbers}

    def _found(self) -> dict[str, Any]:
        """What the file holds, nothing where it is of other rows, of another fit or damaged."""
        try:
            with refusing(str(self.path)):
                document, arrays = parsed(read(self.path), _KIND, "a checkpoint")
                if document["fit"] == self.checkpoint.fit and document["version"] == __version__:
                    return decoded(document["own"], arrays) if decoded(document["rows"], arrays) == self.rows else {}
        except (OSError, ValueError):
            pass
        return {}

    def keep(self, own: dict[str, Any]) -> None:
        """Write the file."""
        self.checkpoint.write(self.path, {"rows": self.rows, "own": own})


def _place(given, fit: dict) -> Path:
    """The file; in a search, whose fits are many, one beside it that is named by what is fitted."""
    path = Path(given)
    if called_by_a_search():
        name = hashlib.blake2b(json.dumps([__version__, fit]).encode(), digest_size=6).hexdigest()
        path = path.with_name(f"{path.stem}.{name}{path.suffix}")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"checkpoint={str(given)!r} lies in a folder that is not there or cannot be written to.")
    if path.is_dir() or path.is_symlink():
        raise ValueError(f"checkpoint={str(given)!r} is a folder or a link; pass the path of a file.")
    return path


def _digest(value, name: str) -> str:
    """That of a parameter."""
    arrays: list[np.ndarray] = []
    try:
        plain = _plain(value)
    except RecursionError:  # a function that holds itself
        plain = _ADDRESS.sub("", repr(value))
    text = json.dumps(encoded(plain, arrays, name), sort_keys=True)
    total = hashlib.blake2b(text.encode(), digest_size=16)
    for array in arrays:
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


@singledispatch
def _plain(value):
    """Data that tell whether a value is the same in another process; code counts by its name and its instructions.

    What is not data itself counts by what it says of itself to be copied.
    """
    try:
        encoded(value, [], "")
        return value
    except TypeError:
        pass
    try:
        told = value.__reduce_ex__(4)
        return told if type(told) is str else [_plain(part) for part in told[:3]]
    except Exception:  # it cannot be copied, or holds itself
        return _ADDRESS.sub("", repr(value))


@_plain.register
def _plain_estimator(value: BaseEstimator):
    return [_plain(type(value)), _plain(value.get_params(deep=False))]


@_plain.register
def _plain_generator(value: np.random.RandomState):
    return value.get_state(legacy=False)


@_plain.register
def _plain_dict(value: dict):
    return {str(key): _plain(each) for key, each in value.items()}


@_plain.register(list)
@_plain.register(tuple)
def _plain_items(value):
    return [_plain(each) for each in value]


@_plain.register(set)
@_plain.register(frozenset)
def _plain_set(value):
    return sorted((_plain(each) for each in value), key=repr)


@_plain.register
def _plain_bytes(value: bytes):
    return value.hex()


@_plain.register
def _plain_code(value: CodeType):
    return [value.co_code.hex(), list(value.co_names), [_plain(each) for each in value.co_consts]]


@_plain.register
def _plain_function(value: FunctionType):
    held = [_plain(cell.cell_contents) for cell in value.__closure__ or ()]
    return [_name(value), _plain(value.__code__), _plain(value.__defaults__), _plain(value.__kwdefaults__), held]


@_plain.register
def _plain_method(value: MethodType):
    return [_plain(value.__func__), _plain(value.__self__)]


@_plain.register(type)
@_plain.register(BuiltinFunctionType)
def _name(value) -> str:
    """Where a class or a function is found."""
    return f"{value.__module__}.{value.__qualname__}"


def _data_digest(value) -> str:
    """That of an argument of `fit`, whatever holds it: of the rows of all ranks in their order, however cut."""
    names = _get_feature_names(value)
    rows = sparse.csr_array(value) if sparse.issparse(value) else np.atleast_1d(np.asarray(value))
    first, n = group().first_of(rows.shape[0])
    total = np.zeros(1, dtype=np.uint64)
    for start in range(0, rows.shape[0], _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        numbers = np.arange(first + start, first + start + part.shape[0], dtype=np.uint64)
        total += mixed_bits(_row_digests(part).view(np.uint64) ^ mixed_bits(numbers)).sum(dtype=np.uint64)
    kind = rows.dtype.kind if rows.dtype.kind in "SUO" else rows.dtype.str  # texts are as wide as the longest
    layout = "sparse" if sparse.issparse(rows) else "dense"
    told = [layout, kind, n, *rows.shape[1:], *([] if names is None else names)]
    return f"{int(group().total(total.view(np.int64))[0]) & _BITS:016x} of {_digest(told, 'data')}"


def _row_digests(rows) -> np.ndarray:
    """A 64-bit digest of each row."""
    if sparse.issparse(rows):
        return row_digests(rows)
    if rows.dtype.kind not in "biufcSU":
        rows = np.array([repr(each) for each in rows.ravel().tolist()]).reshape(rows.shape)
    size = rows.dtype.itemsize * prod(rows.shape[1:])
    padded = np.zeros((len(rows), -(-size // 8) * 8), dtype=np.uint8)
    padded[:, :size] = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), size)
    return digests_of(np.arange(padded.shape[1] // 8), padded.view(np.uint64))
