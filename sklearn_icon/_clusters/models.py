"""Memberships as functions of rows: lookups, linear maps and networks, several models at once."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import gen_batches

from .._core.journal import remember_tensors, remembered
from .._core.rows import average_duplicates, in_units, unit_of
from .._core.spec import answer
from .._core.types import Array, Rows
from .._optim.methods import Adam
from .._optim.solver import SolverResult
from .._optim.train import Problem, Run, train
from ..encoders import Encoder
from ..encoders._networks import as_tensor, build_module, encode, state_arrays, torch_dtype
from ..encoders._scaling import FARTHEST, nearer, nearness, row_fractions

_ROWS_AT_ONCE = 8192
_LOOKUP_START = 3.0
_LINEAR_SHARPNESS, _BESIDE = 5.0, 0.1
_PRETRAINING_STEPS, _PRETRAINING_ROWS, _PRETRAINING_RATE = 200, 512, 1e-2


class Models(ABC):
    """Several models as one function of row numbers, with logits of shape (models, clusters, rows)."""

    X: Any
    params: list
    of: Callable[[torch.Tensor], torch.Tensor]  # logits of a batch that is no part of X, which lookups have not got
    kept: list = []  # tensors that change beside the parameters, as running means do
    stopped = False  # whether they diverged, or the user interrupted, before any training on the loss

    @abstractmethod
    def start(self, starts: list[Array]) -> Models:
        """Begin at hard labels of the rows, one model for each; returns itself."""

    def labels(self, n: int) -> Array:
        """The likeliest cluster of the first n rows under each model, shape (models, n)."""
        with torch.no_grad():
            parts = [self(np.arange(n)[part]).argmax(1) for part in gen_batches(n, _ROWS_AT_ONCE)]
        return torch.cat(parts, dim=1).cpu().numpy()

    def copied(self) -> Models:
        """The same with weights of their own, on the same rows."""
        copied = copy.copy(self)
        copied.params = [param.detach().clone() for param in self.params]
        return copied

    @abstractmethod
    def __call__(self, rows: Array) -> torch.Tensor:
        """Logits of rows."""

    @abstractmethod
    def logits(self, which: int) -> np.ndarray:
        """Those of all rows under one of them."""

    @abstractmethod
    def state(self, which: int) -> dict:
        """That of the module of one of them."""

    def eval(self) -> Models:
        """Itself, with modules in evaluation mode."""
        return self

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.params[0])

    def keep(self, kept: list[int]) -> None:
        """Go on with some of them."""
        self.params = [param.detach()[torch.as_tensor(kept)].clone().requires_grad_() for param in self.params]


class _Lookups(Models):
    """Free logits for each row."""

    def __init__(self, X: Any, n_clusters: int, run: Run):
        self.X, self.n_clusters, self.run = X, n_clusters, run

    def start(self, starts: list[Array]) -> Models:
        logits = _LOOKUP_START * np.eye(self.n_clusters)[np.stack(starts)]  # (models, rows, clusters)
        self.params = [torch.as_tensor(logits, **self.run.like).requires_grad_()]
        return self

    def __call__(self, rows: Array) -> torch.Tensor:
        return self.params[0].index_select(1, torch.as_tensor(rows, device=self.params[0].device)).transpose(1, 2)

    def logits(self, which: int) -> Array:
        return average_duplicates(self.params[0][which].detach().cpu().numpy(), self.X)

    def state(self, which: int) -> dict:
        return {}


class _Linears(Models):
    """Linear maps, one matrix product for all of them.

    Logits start at -c |x - mu|^2 of the labels' means mu, up to what all clusters share. Training is in single
    precision, on rows less their mean.
    """

    def __init__(self, encoder: Encoder, X: Any, n_clusters: int, sample_weight: np.ndarray, run: Run):
        self.X, self.n_clusters, self.run = X, n_clusters, run
        self.module = build_module(encoder, X, n_clusters, 0, torch_dtype(X), sample_weight)
        near = nearer(X, self.module[0].shift.numpy(), float(self.module[0].factor), FARTHEST)
        self.unit = unit_of(near)
        self.rows = in_units(near, self.unit)
        close = nearness(self.rows, row_fractions(self.rows, sample_weight))
        self.of_means = sample_weight if close is None else sample_weight * close  # far rows have a bounded say
        self.shift, self.factor = self.module[0].shift.numpy() * self.unit, self.module[0].factor.numpy() / self.unit
        self.centered = None if sparse.issparse(X) else _centered(self.rows, self.shift, run.dtype, run.device)

    def start(self, starts: list[Array]) -> Models:
        means = np.stack([_means(self.rows, y, self.n_clusters, self.of_means, self.shift) for y in starts])
        means, sharpness = (means - self.shift) * self.factor, _LINEAR_SHARPNESS / self.X.shape[1]
        weights = 2 * sharpness * means, -sharpness * np.square(means).sum(axis=2)
        of_one = np.flatnonzero(np.ptp(starts, axis=1) == 0)  # cluster: a saddle, which Adam leaves from beside it
        for again in of_one[1:]:
            weights[0][again] += _BESIDE * np.random.RandomState(0).standard_normal(means.shape[1:])
        self.params = [torch.tensor(part, **self.run.like, requires_grad=True) for part in weights]
        return self

    def __call__(self, rows: Array) -> torch.Tensor:
        if self.centered is None:
            return self._of_centered(as_tensor(self.rows[rows], **self.run.like))
        return self._of_centered(self.centered.index_select(0, torch.as_tensor(rows, device=self.centered.device)))

    def of(self, batch: torch.Tensor) -> torch.Tensor:
        """Logits of a batch that is no part of X, dense."""
        return self._of_centered(batch.flatten(1) * self.unit - torch.as_tensor(self.shift, **self.run.like))

    def _of_centered(self, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = (param.flatten(0, 1) for param in self.params)
        logits = torch.addmm(bias[:, None], weight * float(self.factor), rows.T)
        return logits.view(self.count, -1, logits.shape[1])

    def _module(self, which: int) -> Any:
        with torch.no_grad():
            self.module[-1].weight.copy_(self.params[0][which])
            self.module[-1].bias.copy_(self.params[1][which])
        return self.module.eval()

    def logits(self, which: int) -> Array:
        return encode(self._module(which), self.X)

    def state(self, which: int) -> dict:
        return state_arrays(self._module(which))


def _centered(X: Rows, shift: Array, dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Rows less a shift, in blocks that bound the memory of a copy in another precision."""
    centered = torch.empty(X.shape, dtype=dtype, device=device)
    for part in gen_batches(len(X), _ROWS_AT_ONCE):
        centered[part] = torch.as_tensor(X[part] - shift, device=device)
    return centered


def _means(X: Rows, labels: Array, n_clusters: int, sample_weight: Array, shift: Array) -> Array:
    """Weighted mean rows of the labels; of those that no row has, the mean of all."""
    members = sparse.csr_array(
        (sample_weight.astype(X.dtype), labels, np.arange(len(labels) + 1)), (len(labels), n_clusters)
    )
    masses = members.sum(axis=0)[:, None]
    sums = members.T @ X
    sums = sums.toarray() if sparse.issparse(sums) else sums
    return np.where(masses > 0, sums / np.maximum(masses, np.finfo(X.dtype).tiny), shift)


class _Modules(Models):
    """Networks, started by training on the labels for a while."""

    def __init__(self, encoder: Encoder, X: Any, n_clusters: int, run: Run):
        self.X, self.run = X, run
        self.build = partial(build_module, encoder, X, n_clusters, run.seed, run.dtype)

    def start(self, starts: list[Array]) -> Models:
        self.modules = [self.build().to(self.run.device) for _ in starts]
        for module, labels in zip(self.modules, starts, strict=True):
            logits_of = lambda rows, module=module: module(self._rows(rows))  # noqa: E731
            result = _pretrain(logits_of, module, labels, self.run)
            self.stopped |= result.status != "completed"
        return self

    @answer
    def params(self) -> list:
        """Those of all modules."""
        return [param for module in self.modules for param in module.parameters() if param.requires_grad]

    @answer
    def kept(self) -> list:
        """The buffers of all modules."""
        return [buffer for module in self.modules for buffer in module.buffers()]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.modules)

    def copied(self) -> Models:
        """See `Models.copied`."""
        copied = copy.copy(self)
        copied.modules = copy.deepcopy(self.modules)
        return copied

    def _rows(self, rows: Array) -> torch.Tensor:
        return as_tensor(self.X[rows], **self.run.like)

    def eval(self) -> Models:
        for module in self.modules:
            module.eval()
        return self

    def keep(self, kept: list[int]) -> None:
        self.modules = [self.modules[which] for which in kept]

    def __call__(self, rows: Array) -> torch.Tensor:
        return self.of(self._rows(rows))

    def of(self, batch: torch.Tensor) -> torch.Tensor:
        """Logits of a batch that is no part of X."""
        return torch.stack([module(batch).T for module in self.modules])

    def logits(self, which: int) -> Array:
        return encode(self.modules[which].cpu().eval(), self.X)

    def state(self, which: int) -> dict:
        return state_arrays(self.modules[which].cpu().eval())


def is_free_linear(encoder: Encoder) -> bool:
    """Whether any weights of a linear map will do."""
    return encoder.is_linear and not encoder.orthonormal


def build_models(encoder: Encoder, X: Any, n_clusters: int, sample_weight: np.ndarray, run: Run) -> Models:
    """Models of memberships, not yet started."""
    if not encoder.parametric:
        return _Lookups(X, n_clusters, run)
    if is_free_linear(encoder):
        return _Linears(encoder, X, n_clusters, sample_weight, run)
    return _Modules(encoder, X, n_clusters, run)


def _pretrain(
    logits_of: Callable[[np.ndarray], torch.Tensor], module: torch.nn.Module, labels: np.ndarray, run: Run
) -> SolverResult:
    """Cross-entropy on the starting labels, for encoders that cannot be set to them."""
    rng = remembered(np.random.RandomState(run.seed))
    params = [param for param in module.parameters() if param.requires_grad]

    def loss(batch: Any) -> torch.Tensor:
        rows = rng.permutation(len(labels))[:_PRETRAINING_ROWS]
        target = torch.as_tensor(labels[rows], dtype=torch.int64, device=run.device)
        return torch.nn.functional.cross_entropy(logits_of(rows), target)

    quietly = run._replace(report=lambda *stage: None)
    problem = Problem(loss, params, kept=list(module.buffers()))
    return train(problem, Adam(_PRETRAINING_RATE), _PRETRAINING_STEPS, quietly)


class Past:
    """Models whose weights are averages of others' past, for keys without gradient: a step leaves a fraction."""

    def __init__(self, models: Models, momentum: float):
        self.models, self.averages, self.momentum = models, models.copied(), momentum
        remember_tensors(lambda: [*self.averages.params, *self.averages.kept])

    def __call__(self, rows: Array) -> torch.Tensor:
        """Logits of rows."""
        with torch.no_grad():
            return self.averages(rows)

    def of(self, batch: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        with torch.no_grad():
            return self.averages.of(batch)

    def follow(self) -> None:
        """Move the averages after a step of the others."""
        with torch.no_grad():
            for average, param in zip(self.averages.params, self.models.params, strict=True):
                average.lerp_(param, 1 - self.momentum)
