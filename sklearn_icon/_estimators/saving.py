"""Fitted estimators in a file without pickle: numbers as safetensors, the rest as JSON in its header.

::

    8 bytes     length of the header, little-endian
    header      JSON: {"__metadata__": {"sklearn_icon": document, "sha256": digest}, 0: {dtype, shape, data_offsets}}
    numbers     those of all arrays, one after the other

What is read is data: classes are looked up by name among the public ones, and nothing in a file is called or imported.
The digest, of document and numbers, finds damage, not forgery.
"""

import hashlib
import json
import os
import re
import stat
import tempfile
import warnings
from contextlib import contextmanager
from functools import singledispatch
from inspect import signature
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from .. import divergences, encoders, learned, supervisory
from .._core.spec import Spec, shown
from .._core.versions import __version__
from .._training.new_rows import FittedRows
from .fitted import contradiction

FORMAT = 1
_ESTIMATORS = ("ICONEmbedding", "ICONClustering", "ICONClassifier", "ICONCrossModal")
_ROOMS = {"supervisory": supervisory, "learned": learned, "encoders": encoders, "divergences": divergences}
_PUBLIC = {(room, name): vars(module)[name] for room, module in _ROOMS.items() for name in module.__all__}
_DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1"}
_DTYPES |= {"U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?"}
_CODES = {np.dtype(kind): code for code, kind in _DTYPES.items()}
_SPARSE = {"csr_array": sparse.csr_array, "csr_matrix": sparse.csr_matrix}
_MOST_HEADER = 100_000_000
_PASSING = {"_skl_callbacks", "_parent_callback_ctx", "neighbors_graph_"}  # of a session, or made from the rest
_CAME_LATER = {"calibrate", "checkpoint", "init_weight", "max_clusters", "max_memory"}  # after the first files
_NAME, _VERSION = re.compile(r"_?[A-Za-z][A-Za-z0-9_]*"), re.compile(r"\d+\.\d+")


def save(estimator, path) -> None:
    """Write an estimator; the file is there whole or not at all."""
    estimator._validate_params()
    estimator._resolve_specs()
    arrays: list[np.ndarray] = []
    state = {name: value for name, value in vars(estimator).items() if name not in _PASSING}
    document = {
        "format": FORMAT,
        "version": __version__,
        "estimator": type(estimator).__name__,
        "state": {name: encoded(value, arrays, name) for name, value in state.items()},
    }
    if type(estimator).__module__ != "sklearn_icon" or document["estimator"] not in _ESTIMATORS:
        raise TypeError(f"save writes the library's own estimators, not {type(estimator).__name__}; pickle it.")
    write(Path(path), packed(document, arrays))


def packed(document: dict, arrays: list[np.ndarray], kind: str = "sklearn_icon") -> list:
    """The parts of a file, one after the other."""
    text, numbers = json.dumps(document, allow_nan=False), [array.reshape(-1).view(np.uint8) for array in arrays]
    header: dict[str, Any] = {"__metadata__": {kind: text, "sha256": _digest(text, numbers)}}
    start = 0
    for i, array in enumerate(arrays):
        stop = start + array.nbytes
        header[str(i)] = {"dtype": _CODES[array.dtype], "shape": list(array.shape), "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little"), head, *numbers]


def write(path: Path, parts: list) -> None:
    """Replace a file by another that is complete, whenever the process or the machine stops."""
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link; pass the path that it leads to.")
    if path.is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a folder; pass the path of a file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r} lies in a folder that is not there; make it first.")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _digest(text: str, numbers) -> str:
    total = hashlib.sha256(text.encode())
    for part in numbers:
        total.update(part)
    return total.hexdigest()


@singledispatch
def encoded(value, arrays: list, name: str):
    """A value as JSON, its numbers put among the arrays; `name` says where it stands."""
    raise TypeError(
        f"{name} holds {shown(value)}, a {type(value).__name__}, which a file without code cannot hold; replace it by "
        "data, such as a number for random_state or a name for metric, or use pickle."
    )


def _of_types(*types):
    """Register how values of exactly these types are encoded; a subclass holds more than the file would."""

    def registered(encode):
        def exactly(value, arrays, name):
            return (encode if type(value) in types else encoded.dispatch(object))(value, arrays, name)

        for cls in types:
            encoded.register(cls, exactly)
        return encode

    return registered


@_of_types(type(None), bool, int, str)
def _plain(value, arrays, name):
    return value


@_of_types(float)
def _float(value, arrays, name):
    return value if isfinite(value) else {"float": repr(value)}


@_of_types(list, tuple)
def _items(value, arrays, name):
    return {type(value).__name__: [encoded(each, arrays, name) for each in value]}


@_of_types(dict)
def _dict(value, arrays, name):
    if all(type(key) is str for key in value):
        return {"dict": {key: encoded(each, arrays, f"{name}[{key!r}]") for key, each in value.items()}}
    return {"pairs": [[encoded(part, arrays, name) for part in pair] for pair in value.items()]}


@_of_types(*_SPARSE.values())
def _compressed(value, arrays, name):
    parts = [_put(part, arrays) for part in (value.data, value.indices, value.indptr)]
    return {"sparse": type(value).__name__, "parts": parts, "shape": list(value.shape)}


@_of_types(FittedRows)
def _fitted_rows(value, arrays, name):
    return {"rows": {key: encoded(each, arrays, f"{name}.{key}") for key, each in vars(value).items()}}


@encoded.register(os.PathLike)
def _path(value, arrays, name):
    return os.fspath(value)


@encoded.register(np.floating)
@encoded.register(np.integer)
@encoded.register(np.bool_)
def _number(value, arrays, name):
    return {"number": _put(np.asarray(value), arrays)}


@encoded.register
def _array(value: np.ndarray, arrays, name):
    if value.dtype in _CODES:
        return {"array": _put(value, arrays)}
    if value.dtype.kind == "U" or value.dtype == object:
        items = [encoded(each, arrays, name) for each in value.ravel().tolist()]
        return {"text": items, "shape": list(value.shape), "object": value.dtype == object}
    raise TypeError(f"{name} is an array of {value.dtype}, which a file without code cannot hold; use pickle.")


@encoded.register
def _specification(spec: Spec, arrays, name):
    room = type(spec).__module__.removeprefix("sklearn_icon.")
    if type(spec) not in _PUBLIC.values():
        raise TypeError(f"{name} holds {shown(spec)}, a class that is not the library's own; use pickle.")
    parameters = spec.get_params(deep=False)
    if set(vars(spec)) != set(vars(type(spec)(**parameters))):
        raise TypeError(f"{name} holds {shown(spec)}, which has more than its parameters; use pickle.")
    given = {key: encoded(value, arrays, f"{name}.{key}") for key, value in parameters.items()}
    return {"spec": [room, type(spec).__name__], "parameters": given}


def _put(array, arrays) -> list:
    """[which of the arrays, the order of its axes, whether its numbers are finite]."""
    turned = array.flags.f_contiguous and not array.flags.c_contiguous
    plain = np.ascontiguousarray(array.T if turned else array).reshape(array.T.shape if turned else array.shape)
    arrays.append(plain.astype(plain.dtype.newbyteorder("<"), copy=False))
    finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    return [len(arrays) - 1, "F" if turned else "C", finite]


def load(path):
    """Read an estimator that `save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file; no symbolic link.

    Returns
    -------
    ICONEmbedding, ICONClustering, ICONClassifier or ICONCrossModal
        As it was saved, bit for bit.

    Raises
    ------
    ValueError
        No such file format, another version of it, a file that was cut or changed, or one whose parts contradict each
        other. Nothing in the file is run.

    Warns
    -----
    UserWarning
        Another version of the library wrote the file, or one before a parameter came, which is at its default.

    Examples
    --------
    >>> import tempfile, os
    >>> import sklearn_icon
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> path = os.path.join(tempfile.mkdtemp(), "flowers.safetensors")
    >>> sklearn_icon.ICONClassifier().fit(X, y).save(path)
    >>> float(sklearn_icon.load(path).score(X, y)) > 0.9
    True
    """
    path = Path(path)
    with refusing(f"{path} cannot be loaded"):
        document, arrays = parsed(read(path))
        estimator, later = _made(document, arrays)
    if later or document["version"] != __version__:
        defaults = ", ".join(f"{name}={shown(value)}" for name, value in later.items())
        told = f", before these parameters came, which are at their defaults: {defaults}" * bool(later)
        warnings.warn(
            f"{path} was written by version {document['version']} of sklearn_icon{told}, and is read by {__version__}: "
            "the estimator may behave otherwise; fit it anew where that matters.",
            UserWarning,
            stacklevel=2,
        )
    return estimator


class _Refused(ValueError):
    """Why a file is not read, in words for users."""


@contextmanager
def refusing(what: str):
    """Say of a file in which something is wrong what cannot be done with it, and why."""
    try:
        yield
    except _Refused as error:
        raise ValueError(f"{what}: {error}.") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{what}: its parts contradict each other ({shown(str(error))}).") from None


def read(path: Path) -> memoryview:
    """The content of a plain file."""
    if path.is_symlink():
        raise _Refused("it is a symbolic link; pass the path that it leads to")
    with open(path, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _Refused("it is no plain file")
        return memoryview(file.read())


def parsed(content: memoryview, kind: str = "sklearn_icon", what: str = "a saved estimator"):
    """(document, arrays) of a file that is what it says."""
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(_MOST_HEADER, len(content) - 8):
        raise _Refused("it is no safetensors file, or was cut")
    try:
        header = json.loads(bytes(content[8 : 8 + length]))
        metadata = header.pop("__metadata__")
        text, digest = metadata[kind], metadata["sha256"]
        document = json.loads(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _Refused(f"its header is not that of {what}, or was changed") from None
    if type(document) is not dict or type(document.get("format")) is not int or document["format"] != FORMAT:
        raise _Refused(f"its format is not {FORMAT}, which this version reads; install the version that wrote it")
    numbers = content[8 + length :]
    if _digest(text, [numbers]) != digest:
        raise _Refused("its digest is not that of its content: it was cut or changed")
    arrays, start = [], 0
    for i in range(len(header)):
        entry = header[str(i)]
        dtype, shape, (first, stop) = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        lengths = type(shape) is list and len(shape) <= 32 and all(type(size) is int for size in shape)
        if not lengths or not all(0 <= size < 2**48 for size in shape):
            raise _Refused(f"the shape {shown(shape)} of an array is none")
        if first != start or stop - first != prod(shape) * dtype.itemsize or not start <= stop <= len(numbers):
            raise _Refused(f"an array of shape {shown(shape)} does not lie within the file")
        little = dtype.newbyteorder("<")
        flat = np.frombuffer(numbers[first:stop], dtype=little) if stop > first else np.empty(0, dtype=little)
        arrays.append(flat.reshape(shape))
        start = stop
    if start != len(numbers):
        raise _Refused("it holds more numbers than it names")
    return document, arrays


def _made(document, arrays):
    """(the estimator of a document, parameters that came after it at their defaults)."""
    import sklearn_icon

    name, state = document["estimator"], document["state"]
    if name not in _ESTIMATORS or type(document["version"]) is not str or not _VERSION.match(document["version"]):
        raise _Refused("it names no estimator of the library, or no version")
    cls = getattr(sklearn_icon, name)
    parameters = signature(cls).parameters
    values = {key: decoded(value, arrays) for key, value in state.items()}
    later = {key: parameter.default for key, parameter in parameters.items() if key not in values}
    if not later.keys() <= _CAME_LATER:
        raise _Refused(f"it lacks the parameters {sorted(later.keys() - _CAME_LATER)}")
    for key, value in values.items():
        kept = getattr(cls, key, None)
        if not _NAME.fullmatch(key) or callable(kept) or isinstance(kept, property):
            raise _Refused(f"it sets {shown(key)}, which is no attribute of a fit")
        if key not in parameters and "loss" not in key and key not in ("candidates_", "fit_report_"):
            _check_finite(value, key)
    estimator = cls(**{key: value for key, value in values.items() if key in parameters})
    estimator._validate_params()
    estimator._resolve_specs()
    wrong = contradiction(values)
    if wrong:
        raise _Refused(wrong)
    vars(estimator).update(values)
    return estimator, later


def _check_finite(value, name) -> None:
    """Refuse NaN in what a fit learned."""
    match value:
        case np.ndarray() if value.dtype.kind == "f" and np.isnan(value).any():
            raise _Refused(f"{name} holds NaN")
        case sparse.csr_array() | sparse.csr_matrix():
            _check_finite(value.data, name)
        case FittedRows():
            _check_finite(value.X, name)
        case dict():
            _check_finite(list(value.values()), name)
        case list() | tuple():
            for part in value:
                _check_finite(part, name)


def decoded(value, arrays):
    """The value that JSON stands for."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is not dict:
        raise _Refused(f"it holds {shown(value)}")
    kind = next(iter(value), "")
    return _KINDS[kind](value, arrays)


def _taken(place, arrays):
    i, order, finite = place
    if type(i) is not int or not 0 <= i < len(arrays) or order not in ("C", "F"):
        raise _Refused(f"it names an array {shown(place)} that it has not got")
    array = arrays[i].astype(arrays[i].dtype.newbyteorder("="))  # a copy that can be written to
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _Refused("an array that was finite is not")
    return array.T if order == "F" else array


def _text(value, arrays):
    flat = [decoded(each, arrays) for each in value["text"]]
    if not value["object"]:
        return np.array(flat, dtype=str).reshape(value["shape"])
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(value["shape"])


def _sparse(value, arrays):
    parts = tuple(_taken(place, arrays) for place in value["parts"])
    made = _SPARSE[value["sparse"]](parts, shape=tuple(value["shape"]))
    made.check_format(full_check=True)
    return made


def _spec(value, arrays):
    room, name = value["spec"]
    if (room, name) not in _PUBLIC:
        raise _Refused(f"{shown(name)} is no spec of {room}")
    cls = _PUBLIC[room, name]
    return cls(**{key: decoded(each, arrays) for key, each in value["parameters"].items()}).validate()


def _rows(value, arrays):
    rows = FittedRows.__new__(FittedRows)
    entries = {key: decoded(each, arrays) for key, each in value["rows"].items()}
    if set(entries) != {"kind", "n_rows", "n_positives", "X", "digests"}:
        raise _Refused("the rows of the fit are not what they should be")
    vars(rows).update(entries)
    return rows


_KINDS = {
    "float": lambda value, _: {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}[value["float"]],
    "number": lambda value, arrays: _taken(value["number"], arrays)[()],
    "array": lambda value, arrays: _taken(value["array"], arrays),
    "text": _text,
    "sparse": _sparse,
    "list": lambda value, arrays: [decoded(each, arrays) for each in value["list"]],
    "tuple": lambda value, arrays: tuple(decoded(each, arrays) for each in value["tuple"]),
    "dict": lambda value, arrays: {key: decoded(each, arrays) for key, each in value["dict"].items()},
    "pairs": lambda value, arrays: {decoded(key, arrays): decoded(each, arrays) for key, each in value["pairs"]},
    "spec": _spec,
    "rows": _rows,
}
