"""Processes that fit together: sums over all of them, and their rows as one. A process alone is such a group, too.

The code of a fit calls the group at work wherever a number is a sum over rows, or rows of others are needed; alone,
these calls return what they are given. Each exchange opens with a few numbers from every process: that it goes on, and
with what; or that it failed. So one that fails is heard of at the next exchange, by name and cause, and processes that
went different ways say so in place of waiting for each other.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from scipy import sparse

from .types import Array

_LABEL = 64  # bytes of the name of an exchange
_END = "the end of the fit"


class RankFailure(RuntimeError):
    """Another rank of the group failed: which one, and why.

    Examples
    --------
    >>> from sklearn_icon.distributed import RankFailure
    >>> issubclass(RankFailure, RuntimeError)
    True
    """

    __module__ = "sklearn_icon.distributed"  # where users find it


class Group:
    """One process alone, rank 0 of one: all rows are its own, and a sum over its rows is the whole sum."""

    rank, size, first = 0, 1, 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def facts(self) -> dict[str, int]:
        """What the report of a fit says of it."""
        return {}

    def total(self, values: Any) -> Any:
        """The sum of all ranks' numbers, an array of NumPy or torch, or a number; the same bits on every rank."""
        return values

    def largest(self, value: float) -> float:
        """The largest of all ranks' numbers."""
        return value

    def gathered(self, rows: Array) -> Array:
        """The rows of all ranks, in order of ranks."""
        return rows

    def to_first(self, rows: Any) -> Any:
        """The rows of all ranks, dense or sparse, on rank 0; None on others."""
        return rows

    def own(self, rows: Any, count: int) -> Any:
        """Of the rows of all ranks those of this one, which has a count of them."""
        return rows

    def objects(self, value: Any, what: str = "values") -> list[Any]:
        """What each rank gives, in order of ranks, by a name that tells ranks which went different ways."""
        return [value]

    def agree(self, what: str, value: Any) -> None:
        """Refuse a value that is not the same on all ranks."""

    def first_of(self, count: int) -> tuple[int, int]:
        """(how many items ranks before this one have, how many all have), of which this one has a count."""
        return 0, count

    def turned(self, rows: Array, by: int) -> Array:
        """The rows of the rank that is as many before this one, in a ring, to which that as many after has these."""
        return rows

    def swapped(self, parts: list[Array]) -> list[Array]:
        """What each rank has for this one, in order of ranks, for what this one has for each; arrays of one axis."""
        return parts

    def number(self, n_rows: int) -> int:
        """How many rows all ranks have together; from then on `first` is the number of this rank's row 0."""
        self.first, n = self.first_of(n_rows)
        return n

    def shared(self, random_state: np.random.RandomState) -> np.random.RandomState:
        """One generator for all ranks."""
        return random_state

    def begin(self, what: str) -> None:
        """Refuse to begin where others begin something else."""

    def end(self) -> None:
        """Wait until all others are done."""

    def fail(self, error: BaseException) -> None:
        """Tell the others why this rank cannot go on."""


class Ranks(Group):
    """The processes of torch.distributed's default group. `exchanges` and `n_bytes` count what this rank sent."""

    def __init__(self) -> None:
        import torch
        from torch import distributed

        self._torch, self._distributed = torch, distributed
        self.rank, self.size, self.first = distributed.get_rank(), distributed.get_world_size(), 0
        on_cpu = {"gloo", "mpi"} & set(re.split("[,:]", distributed.get_backend()))
        self._device = torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device())
        self.exchanges = self.n_bytes = 0

    @property
    def facts(self) -> dict[str, int]:
        """See `Group.facts`."""
        return {"rank": self.rank, "ranks": self.size, "exchanges": self.exchanges, "bytes_sent": self.n_bytes}

    def total(self, values: Any) -> Any:
        """See `Group.total`."""
        is_tensor = isinstance(values, self._torch.Tensor)
        given = values.detach().clone() if is_tensor else self._torch.from_numpy(np.array(values))
        self._open(f"a sum of {str(given.dtype)[6:]} {tuple(given.shape)}")
        summed = given.to(self._device).contiguous()
        self._sent(summed)
        self._call(self._distributed.all_reduce, summed)
        if is_tensor:
            return summed.to(values.device)
        return summed.cpu().numpy() if isinstance(values, np.ndarray) else summed.item()

    def largest(self, value: float) -> float:
        """See `Group.largest`."""
        return max(self.objects(float(value), "a largest number"))

    def gathered(self, rows: Array) -> Array:
        """See `Group.gathered`."""
        rows = np.ascontiguousarray(rows)
        parts = self._bytes_of_all(f"rows of {rows.dtype} {rows.shape[1:]}", rows.view(np.uint8).reshape(-1))
        return np.concatenate([part.view(rows.dtype).reshape(-1, *rows.shape[1:]) for part in parts])

    def own(self, rows: Any, count: int) -> Any:
        """See `Group.own`."""
        return rows[self.first : self.first + count]

    def to_first(self, rows: Any) -> Any:
        """See `Group.to_first`."""
        words = rows.dtype.kind in "OSU"  # of unlike lengths on the ranks
        numbers = not (sparse.issparse(rows) or words)
        own = np.ascontiguousarray(rows) if numbers else np.frombuffer(pickle.dumps(rows), dtype=np.uint8)
        kind = "words" if words else rows.dtype
        self.agree("the type and shape of a row", f"{type(rows).__name__} of {kind} {rows.shape[1:]}")
        nothing = own.reshape(-1)[:0]
        parts = self.swapped([own.reshape(-1), *[nothing] * (self.size - 1)])
        if self.rank:
            return None
        if numbers:
            return np.concatenate(parts).reshape(-1, *rows.shape[1:])
        parts = [pickle.loads(part.tobytes()) for part in parts]
        return np.concatenate(parts) if words else sparse.vstack(parts, format="csr")

    def objects(self, value: Any, what: str = "values") -> list[Any]:
        """See `Group.objects`."""
        parts = self._bytes_of_all(what, np.frombuffer(pickle.dumps(value), dtype=np.uint8))
        return [pickle.loads(part.tobytes()) for part in parts]

    def agree(self, what: str, value: Any) -> None:
        """See `Group.agree`."""
        values = self.objects(value, what)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise ValueError(
                    f"{what} must be the same on all ranks, but is {values[0]} on rank 0 and {other} on rank {rank}."
                )

    def first_of(self, count: int) -> tuple[int, int]:
        """See `Group.first_of`."""
        counts = self.objects(count, "a count of rows")
        return sum(counts[: self.rank]), sum(counts)

    def shared(self, random_state: np.random.RandomState) -> np.random.RandomState:
        """See `Group.shared`: seeded by that of rank 0."""
        return np.random.RandomState(self.objects(random_state.randint(np.iinfo(np.int32).max))[0])

    def turned(self, rows: Array, by: int) -> Array:
        """See `Group.turned`."""
        return self._exchange(rows, by).reshape(-1, *rows.shape[1:])

    def swapped(self, parts: list[Array]) -> list[Array]:
        """See `Group.swapped`."""
        received = {self.rank: parts[self.rank]}
        for shift in range(1, self.size):
            received[(self.rank - shift) % self.size] = self._exchange(parts[(self.rank + shift) % self.size], shift)
        return [received[rank] for rank in range(self.size)]

    def begin(self, what: str) -> None:
        """See `Group.begin`."""
        self.agree("the estimator", what)

    def end(self) -> None:
        """See `Group.end`."""
        self._open(_END)

    def fail(self, error: BaseException) -> None:
        """See `Group.fail`."""
        told = f"{type(error).__name__}: {error}".encode()
        self._heads("a failure", len(told), failed=True, told=told)

    def _open(self, label: str, size: int = 0) -> Array:
        """Sizes that each rank gives for the exchange that begins."""
        return self._heads(label, size)

    def _heads(self, label: str, size: int, failed: bool = False, told: bytes = b"") -> Array:
        own = np.zeros(2 + _LABEL // 8, dtype=np.int64)
        own[:2] = failed, size
        own[2:] = np.frombuffer(label.encode()[:_LABEL].ljust(_LABEL), dtype=np.int64)
        heads = np.stack(self._all_gather(own))
        self.exchanges += 1
        failures = np.flatnonzero(heads[:, 0])
        if failures.size:
            self._hear(heads, failures, told)
        elif (heads != heads[0])[:, 2:].any():
            labels = [f"rank {rank} at {head[2:].tobytes().decode().strip()}" for rank, head in enumerate(heads)]
            raise RankFailure(f"the ranks went different ways: {', '.join(labels)}.")
        return heads[:, 1]

    def _hear(self, heads: Array, failures: Array, told: bytes) -> None:
        """Raise what others failed of, unless this rank itself failed."""
        own = np.frombuffer(told.ljust(int(heads[failures, 1].max())), dtype=np.uint8)
        texts = self._all_gather(own)
        if self.rank in failures:
            return
        causes = [f"rank {rank} of {self.size} failed: {texts[rank].tobytes().decode().strip()}" for rank in failures]
        raise RankFailure("; ".join(causes))

    def _bytes_of_all(self, label: str, own: Array) -> list[Array]:
        sizes = self._open(label, len(own))
        padded = np.zeros(int(sizes.max()), dtype=np.uint8)
        padded[: len(own)] = own
        self.n_bytes += len(own)
        return [part[:size] for part, size in zip(self._all_gather(padded), sizes, strict=True)]

    def _all_gather(self, own: Array) -> list[Array]:
        """Arrays of the same size from all ranks."""
        tensor = self._torch.from_numpy(own.copy()).to(self._device)
        parts = [self._torch.empty_like(tensor) for _ in range(self.size)]
        self._call(self._distributed.all_gather, parts, tensor)
        return [part.cpu().numpy() for part in parts]

    def _exchange(self, rows: Array, shift: int) -> Array:
        """The array of the rank `shift` before this one, which sends its own to that `shift` after."""
        rows = np.require(rows, requirements=["C", "W"])  # torch warns of those that are only read
        sizes = self._open(f"a ring of {rows.dtype}, {shift} on", rows.nbytes)
        to, source = (self.rank + shift) % self.size, (self.rank - shift) % self.size
        out = self._torch.empty(int(sizes[source]), dtype=self._torch.uint8, device=self._device)
        sent = self._torch.from_numpy(rows.reshape(-1).view(np.uint8)).to(self._device)
        self._sent(sent)
        operations = [
            self._distributed.P2POp(operation, tensor, peer)
            for operation, tensor, peer in (
                (self._distributed.isend, sent, to),
                (self._distributed.irecv, out, source),
            )
            if len(tensor)
        ]
        if operations:
            for work in self._call(self._distributed.batch_isend_irecv, operations):
                self._call(work.wait)
        return out.cpu().numpy().view(rows.dtype)

    def _sent(self, tensor: Any) -> None:
        self.n_bytes += tensor.numel() * tensor.element_size()

    def _call(self, function: Any, *args: Any) -> Any:
        """A call of torch.distributed, whose errors mean that another process ended or cannot be reached."""
        try:
            return function(*args)
        except RuntimeError as error:
            raise RankFailure(
                f"rank {self.rank} of {self.size} lost touch with another rank, which ended or cannot be reached; its "
                f"own output says why. {error}"
            ) from error


ALONE = Group()
_AT_WORK: ContextVar[Group] = ContextVar("group of the fit at hand", default=ALONE)
_APART: ContextVar[bool] = ContextVar("whether this process fits by itself", default=False)


def group() -> Group:
    """The group of the fit at hand: one process, outside of fits."""
    return _AT_WORK.get()


def present() -> Group:
    """The ranks of an initialised process group, or one process where there is none, or inside `apart`."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or _APART.get() or not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Ranks() if distributed.get_world_size() > 1 else ALONE


def _shown(estimator: Any) -> str:
    """An estimator's parameters, without what may differ from rank to rank: addresses, and arrays of their rows."""
    with np.printoptions(threshold=0, edgeitems=0):
        text = re.sub(r"0x[0-9a-fA-F]+", "", repr(estimator))
    return re.sub(r"array\(\[.*?\](, shape=\(.*?\))?(, dtype=\w+)?\)", "array", text, flags=re.DOTALL)


@contextmanager
def together(estimator: Any) -> Iterator[Group]:
    """A fit of an estimator by all ranks: it ends well on all of them, or on none."""
    ranks = present() if group() is ALONE else ALONE
    if ranks is ALONE:
        yield ranks
        return
    token = _AT_WORK.set(ranks)
    try:
        ranks.begin(_shown(estimator))
        yield ranks
        ranks.end()
    except RankFailure:
        raise
    except BaseException as error:
        ranks.fail(error)
        raise
    finally:
        _AT_WORK.reset(token)


@contextmanager
def apart() -> Iterator[None]:
    """Let fits inside be of this process by itself."""
    apart, at_work = _APART.set(True), _AT_WORK.set(ALONE)
    try:
        yield
    finally:
        _AT_WORK.reset(at_work)
        _APART.reset(apart)
