"""The command: maps, clusters and classes of .npy files, by one process or by the ranks that torchrun starts.

python -m sklearn_icon map X.npy --out map.npy --perplexity 50
torchrun --nproc-per-node 2 -m sklearn_icon classify X.npy --labels y.npy --model classes.icon
torchrun --nproc-per-node 2 -m sklearn_icon transform new.npy --model classes.icon --out predicted.npy
"""

import argparse
import ast
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ._core.group import RankFailure, apart, present, together

_ESTIMATORS = {"map": "ICONEmbedding", "cluster": "ICONClustering", "classify": "ICONClassifier"}
_ROWS = {"map": "embedding_", "cluster": "labels_"}
_PARTS = {"supervisory": "supervisory", "learned": "learned", "encoder": "encoders"}
_ROWS_AT_ONCE = 65_536


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, return the exit status: 0, 1 where this process failed, 2 where another rank did."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    try:
        params = json.loads(given.params) | _options(rest)
    except (ValueError, TypeError) as error:
        parser.error(f"parameters are pairs of --name and value, or --params '{{\"name\": value}}' as JSON: {error}")
    began = _begin()
    try:
        with together(f"{given} {params}"):
            _check_folders(given.out, given.model)
            (_transform if given.what == "transform" else _fit)(given, params)
    except RankFailure as error:
        print(f"sklearn_icon {given.what}: {error}", file=sys.stderr)
        return 2
    except (ValueError, TypeError, OSError) as error:
        print(f"sklearn_icon {given.what}: rank {present().rank}: {error}", file=sys.stderr)
        return 1
    finally:
        if began:
            import torch

            torch.distributed.destroy_process_group()
    return 0


def _check_folders(*paths: str | None) -> None:
    """Refuse to compute what cannot be written."""
    for path in filter(None, paths):
        if not Path(path).absolute().parent.is_dir():
            raise ValueError(f"there is no folder {Path(path).absolute().parent} for {path}; make it first.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m sklearn_icon", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*_ESTIMATORS, "transform"])
    parser.add_argument("data", help="a .npy file of rows, of which each rank reads its own")
    parser.add_argument("--out", help="a .npy file to write, a row for each of data: coordinates, labels, classes")
    parser.add_argument("--model", help="a file to save the fitted estimator in; transform reads it")
    parser.add_argument("--labels", help="a .npy file of labels, for classify")
    parser.add_argument("--method", help="of the estimator, for transform: transform, predict or predict_proba")
    parser.add_argument("--params", default="{}", help="parameters of the estimator as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress; others see that of rank 0")
    parser.epilog = 'All else sets parameters: --perplexity 50 --supervisory "UniformKNN(n_neighbors=30)"'
    return parser


def _options(rest: Sequence[str]) -> dict[str, Any]:
    """Parameters from --name value, the value as JSON, as a spec, or as it stands."""
    names, values = rest[::2], rest[1::2]
    wrong = [name for name in names if not name.startswith("--")]
    if wrong or len(names) != len(values):
        raise ValueError(f"got {' '.join(rest)}")
    return {name[2:].replace("-", "_"): _value(value) for name, value in zip(names, values, strict=True)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _spec(name: str, value: Any) -> Any:
    """What a parameter stands for, where it reads Name(parameter=value, ...)."""
    if name not in _PARTS or not str(value).endswith(")"):
        return value
    call = ast.parse(value, mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(f"{name}={value!r} must read Name(parameter=value, ...).")
    module = import_module(f".{_PARTS[name]}", __package__)
    if call.func.id not in module.__all__:
        raise ValueError(f"{name}={value!r}: there is no {_PARTS[name]}.{call.func.id}.")
    return vars(module)[call.func.id](**{str(part.arg): ast.literal_eval(part.value) for part in call.keywords})


def _begin() -> bool:
    """Whether a process group was started here, as torchrun asks for."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        return False
    from torch import distributed

    if distributed.is_initialized():
        return False
    distributed.init_process_group("gloo")
    return True


def _fit(given: argparse.Namespace, params: dict[str, Any]) -> None:
    """Fit the rows of this rank; write what was found."""
    import sklearn_icon

    from .distributed import gather, shard

    if given.out is None and given.model is None:
        raise ValueError("nothing would be kept: pass --out, --model or both.")
    if (given.labels is None) == (given.what == "classify"):
        raise ValueError("--labels is for classify, which needs it.")
    params = {name: _spec(name, value) for name, value in params.items()}
    estimator = getattr(sklearn_icon, _ESTIMATORS[given.what])().set_params(verbose=int(not given.quiet))
    estimator.set_params(**params)
    X = shard(given.data)
    estimator.fit(X, *([] if given.labels is None else [np.array(shard(given.labels))]))
    if given.out is not None:
        found = vars(estimator).get(_ROWS.get(given.what))
        _write(given.out, _by_blocks(estimator.predict, X) if found is None else found)
    if given.model is not None:
        whole = gather(estimator)
        if whole is not None:
            whole.save(given.model)


def _transform(given: argparse.Namespace, params: dict[str, Any]) -> None:
    """What a saved estimator says of the rows of this rank."""
    import sklearn_icon

    from .distributed import shard

    if given.out is None or given.model is None or params:
        raise ValueError("transform reads --model, writes --out, and takes no parameters.")
    estimator = sklearn_icon.load(given.model)
    methods = {name: getattr(estimator, name, None) for name in ("predict", "transform", "predict_proba")}
    method = methods.get(given.method) if given.method else methods["predict"] or methods["transform"]
    if method is None:
        known = ", ".join(name for name, method in methods.items() if method)
        raise ValueError(f"--method {given.method} is none of {type(estimator).__name__}'s: {known}.")
    _write(given.out, _by_blocks(method, shard(given.data)))


def _by_blocks(method: Any, X: np.ndarray) -> np.ndarray:
    """A method's answers for rows, of which a block is in memory at a time."""
    firsts = range(0, len(X), _ROWS_AT_ONCE)
    with apart():
        return np.concatenate([method(np.array(X[first : first + _ROWS_AT_ONCE])) for first in firsts])


def _write(path: str, rows: np.ndarray) -> None:
    """Write a .npy file of the rows of all ranks, each its own; it is there once it is whole."""
    ranks = present()
    first, n = ranks.first_of(len(rows))
    dtype = np.result_type(*ranks.objects(rows.dtype))
    unfinished = Path(f"{path}.part")
    if ranks.rank == 0:
        np.lib.format.open_memmap(unfinished, "w+", dtype, (n, *rows.shape[1:]))
    ranks.objects(None, "a file that is there")
    file = np.lib.format.open_memmap(unfinished, "r+")
    file[first : first + len(rows)] = rows
    file.flush()
    ranks.objects(None, "a file that is written")
    if ranks.rank == 0:
        unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
