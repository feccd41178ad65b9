"""The loss for training loops of one's own: I-Con on the batches of any torch module."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from math import isfinite, log
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from . import supervisory as of_p
from ._core.device import multiplies_bfloat16
from ._core.ranks import JointBatch
from ._core.spec import resolve
from ._objective.divergences import ALLOWED, terms_of
from ._objective.row_tiles import Batch, Listed, summed_divergence
from ._objective.ways import check_limit
from .divergences import Divergence
from .learned import NAMES, Learned
from .supervisory._batch import as_targets

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ICONLoss"]

_FIRST = {"tau": 0.1, "df": 1.0}
_CONSTRAINTS = {
    "divergence": ALLOWED,
    "debias": [Interval(Real, 0, 1, closed="left")],
    "gather_distributed": ["boolean"],
    "symmetric": ["boolean"],
}
_LISTED = 5
_USER = 7  # frames from the warning to the caller's line


class ICONLoss(torch.nn.Module):
    r"""The mean divergence between p and q over the rows of a batch, for a training loop of one's own.

    ::

        L = mean_i D( p(.|i) || q(.|i) ),     i the rows of the batch that have a positive,

    p from the batch's labels, pairs or companion features, q from its representations z. The keys are the other rows
    of the batch, prototypes, or the batch's rows in another modality. A row without positives is left out of the
    average, with one warning for each loss; an error says where no row has any.

    Parameters
    ----------
    supervisory : Supervisory or str
        The distribution p, a spec or its short name, and with it what `y` and `keys` hold:

        - `SameClass`, `PositivePairs`: y are the labels, or the item that each row is a view of; a 2-D y is an
          indicator of several labels;
        - `DataLabel`: keys are the prototypes of the classes, y the number of each row's key, -1 for none, or rows of
          class probabilities; `Counts`: keys are the prototypes of the tokens, y the count matrix, and a
          row counts in the average as often as it has tokens;
        - `CrossModalPairs`: keys are the representations of the batch in the other modality, row by row. Without y the
          key of row i is i; y may hold the item of each pair, and all keys of one item have the same mass, or be a
          2-D indicator of several labels, of integers;
        - `Gaussian`, `StudentT`, `UniformKNN`: y are companion features (`source="y"`, which short names stand for);
        - `Graph`: y is the matrix of weights between the rows; `Identity`: nothing;
        - the wrappers `UniformMixture` and `RandomWalk`: what their base reads.
    learned : Learned or str
        The distribution q. `Gaussian(metric="cosine", tau="learn")`, or of dot products, makes the temperature a
        parameter of this module that starts at 0.1, and `StudentT(df="learn")` the degrees of freedom, which start at
        1. Both live on a log scale (`log_tau`, `log_df`); `loss.tau` and `loss.df` are the present values. The specs
        stay as they are.
    divergence : Divergence or str, default="kl"
        D: "kl", "reverse_kl", "jensen_shannon", "total_variation", "squared_hellinger", or a member of a family of
        `sklearn_icon.divergences`.
    debias : float in [0, 1), default=0.0
        Uniform mass mixed into p; label smoothing where the keys are prototypes.
    gather_distributed : bool, default=False
        Where a process group of torch.distributed is initialised, whether the keys are the rows of all processes, as
        are the average and the value. The mean over the processes of the gradients, as
        `torch.nn.parallel.DistributedDataParallel` takes it, is then that of one process on the joint batch. `Graph`
        then reads each row's weights with the rows of all processes.
    symmetric : bool, default=False
        Whether L is the mean of both ways between z and `keys`, as in CLIP: of D over the keys of each row and over the
        rows of each key. For keys that stand for rows, of `CrossModalPairs` or of a moving encoder.

    Raises
    ------
    ValueError
        A p that needs more than a batch, a kernel and a divergence that do not go together.

    Notes
    -----
    Half precision is raised to single, inside of `torch.autocast` too, and single to double where squares of large rows
    are no numbers of single precision; where all rows are of bfloat16, and the processor multiplies that, gradients of
    cosines and dot products are multiplied with rows in it. Under `torch.compile` values are not looked at:
    nothing is said of rows without positives, and 0 returned where there are no others. `Gaussian`, `StudentT`,
    `UniformKNN` and `RandomWalk` compute p on the CPU, which breaks the graph, as do batches gathered over processes;
    all else compiles with `fullgraph`. Outside torch.compile no matrix of a large batch and its keys is held: gradients
    are computed with the loss, a tile of rows at a time. Second derivatives and `torch.func` hold such matrices.

    References
    ----------
    Alshammari et al., "I-Con: A unifying framework for representation learning", ICLR 2025, eq. 1.

    Examples
    --------
    SimCLR, the rows being two noisy views of each item:

    >>> import torch
    >>> from sklearn_icon import learned
    >>> from sklearn_icon.nn import ICONLoss
    >>> noise = torch.Generator().manual_seed(0)
    >>> items = torch.randn(32, 8, generator=noise)
    >>> net = torch.nn.Linear(8, 4)
    >>> loss = ICONLoss("positive_pairs", learned.Gaussian(metric="cosine", tau="learn"))
    >>> optimizer = torch.optim.Adam([*net.parameters(), *loss.parameters()], lr=0.01)
    >>> values = []
    >>> for step in range(50):
    ...     views = items.repeat(2, 1) + 0.1 * torch.randn(64, 8, generator=noise)
    ...     value = loss(net(views), torch.arange(32).repeat(2))
    ...     optimizer.zero_grad()
    ...     value.backward()
    ...     optimizer.step()
    ...     values.append(value.item())
    >>> values[-1] < values[0]
    True

    CLIP goes both ways:

    >>> images, texts = net(items), net(items)
    >>> clip = ICONLoss("cross_modal", learned.Gaussian(metric="cosine", tau="learn"), symmetric=True)
    >>> value = clip(images, keys=texts)
    """

    symmetric = False  # of losses that were pickled before there was such a parameter
    _kept: Any = None
    log_tau: torch.nn.Parameter
    log_df: torch.nn.Parameter

    def __init__(
        self,
        supervisory: of_p.Supervisory | str,
        learned: Learned | str,
        divergence: str | Divergence = "kl",
        debias: float = 0.0,
        gather_distributed: bool = False,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.divergence, self.debias = divergence, debias
        self.gather_distributed, self.symmetric = gather_distributed, symmetric
        given = {name: vars(self)[name] for name in _CONSTRAINTS}
        validate_parameter_constraints(_CONSTRAINTS, given, caller_name="ICONLoss")
        self.supervisory = resolve(supervisory, of_p.Supervisory, of_p.NAMES, "supervisory", source="y")
        self.learned = resolve(learned, Learned, NAMES, "learned").rounded()
        self.supervisory.check_batch()
        terms_of(divergence)  # validates
        self._uniform = 1 - (1 - debias) * (1 - self.supervisory.mixture)
        check_limit(self.learned, divergence)
        self._is_cosine = self.learned.affinity == "cosine"
        self._has_prototypes = self.supervisory.keys in ("classes", "tokens")
        if symmetric and self._has_prototypes:
            raise ValueError(f"symmetric=True needs keys that stand for rows, but those of {self.supervisory} do not.")
        self._reads_degrees = self.learned.by_degree
        if self._reads_degrees and not self.supervisory.over_rows:
            raise ValueError(
                f"{self.learned} weighs keys by their degrees, but those of {self.supervisory} are no rows of p, and "
                "have none; use weights=None."
            )
        self._has_warned = False
        for name, first in _FIRST.items():
            if name in self.learned.learns:
                self.register_parameter(f"log_{name}", torch.nn.Parameter(torch.tensor(log(first))))

    @property
    def tau(self) -> Tensor:
        """The present temperature, where it is learned."""
        return self.log_tau.exp()

    @property
    def df(self) -> Tensor:
        """The present degrees of freedom, where they are learned."""
        return self.log_df.exp()

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"{self.supervisory}, {self.learned}, divergence={self.divergence!r}, debias={self.debias}"

    def forward(self, z: Tensor, y: Any = None, keys: Tensor | None = None) -> Tensor:
        """L of a batch.

        Parameters
        ----------
        z : tensor of shape (n_rows, d)
            Representations; logits of memberships for `learned.SharedCluster`.
        y : tensor or array-like of length n_rows, default=None
            What p reads; no gradient goes there.
        keys : tensor of shape (n_keys, d), default=None
            Representations of the keys, which some p need. For p between rows None is z itself; else key i stands for
            row i, as from a slowly moving copy of the encoder.

        Returns
        -------
        tensor of shape ()

        Raises
        ------
        ValueError
            Shapes that do not fit, values of y that p cannot read, rows of zeros under the cosine, of NaN or infinity,
            or so large that the loss is beyond the rows' precision, no row with a positive, a p that is zero on some
            keys where the divergence is infinite.
        TypeError
            `z` or `keys` that is no tensor.
        """
        self._check_shapes(z, keys)
        compiling = torch.compiler.is_compiling()
        autocast = compiling or torch.is_autocast_enabled(z.device.type)
        with torch.autocast(z.device.type, enabled=False) if autocast else nullcontext():
            dtype = torch.promote_types(z.dtype, torch.float32)
            if keys is not None:
                dtype = torch.promote_types(dtype, keys.dtype)
            y = as_targets(self.supervisory, y, len(z), z.device)
            value = self._in_precision(dtype, z, y, keys)
            if compiling or self._is_sound(value, *(z,) if keys is None else (z, keys)):
                return value
            _refuse_numbers_that_are_none(z, "z")
            if keys is not None:
                _refuse_numbers_that_are_none(keys, "keys")
            value = self._in_precision(torch.float64, z, y, keys).to(dtype)  # whose squares are numbers
            if not value.isfinite():
                raise ValueError(_too_large(z, keys, dtype))
            return value

    def _in_precision(self, dtype: torch.dtype, z: Tensor, y: Tensor | None, keys: Tensor | None) -> Tensor:
        """L of a batch, computed in a precision."""
        given, z = {z.dtype, z.dtype if keys is None else keys.dtype}, z.to(dtype)
        keys = z if keys is None else keys.to(dtype)
        is_half = dtype == torch.float32 and given == {torch.bfloat16} and self.learned.pulls_in_half
        is_half = is_half and multiplies_bfloat16(z.device)
        half = torch.bfloat16 if is_half else None
        if self.symmetric and (self.gather_distributed or self.learned.normalized):
            return (self._mean(z, y, keys, half) + self._mean(keys, y, z, half)) / 2
        return self._mean(z, y, keys, half, both_ways=self.symmetric)

    def _is_sound(self, value: Tensor, *given: Tensor) -> bool:
        """Whether a loss is a number; refuses rows of zeros under the cosine. A GPU is waited for once."""
        has_first = self._is_cosine and given[0].shape[1] > 0
        firsts = [rows.detach()[:, 0].abs().amin() for rows in given] if has_first else []
        found, *least = torch.stack([value.detach(), *firsts]).tolist()
        if self._is_cosine and not (has_first and min(least) >= torch.finfo(value.dtype).tiny):
            for rows, name in zip(given, ("z", "keys"), strict=False):
                _refuse_zero_rows(rows.to(value.dtype), name)
        return isfinite(found)

    def _check_shapes(self, z: Tensor, keys: Tensor | None) -> None:
        for name, given in (("z", z), ("keys", keys)):
            if given is not None and not torch.is_tensor(given):
                raise TypeError(
                    f"{name} must be a torch tensor, got a {type(given).__name__}; pass torch.as_tensor({name})."
                )
        if z.ndim != 2 or len(z) == 0 or not z.is_floating_point():
            raise ValueError(f"z must be floats of shape (n_rows, d), got {z.dtype} of shape {tuple(z.shape)}.")
        name = type(self.supervisory.plain()).__name__
        if keys is None and not self.supervisory.over_rows:
            what = "prototypes" if self._has_prototypes else "the other modality's representations"
            raise ValueError(f"{name}() requires keys to be passed, but keys is None: it needs {what}.")
        if keys is not None and (keys.ndim != 2 or keys.shape[1] != z.shape[1]):
            raise ValueError(f"keys must have the {z.shape[1]} columns of z, got shape {tuple(keys.shape)}.")
        if keys is not None and not self._has_prototypes and len(keys) != len(z):
            raise ValueError(f"{name}() needs a key for each of the {len(z)} rows of z, got {len(keys)}.")

    def _mean(
        self, z: Tensor, y: Tensor | None, keys: Tensor, half: torch.dtype | None, both_ways: bool = False
    ) -> Tensor:
        """The average over the rows, of all processes, that have a positive."""
        joint = JointBatch(len(z), z.device, self.gather_distributed)
        keys = keys if self._has_prototypes else joint.gather(keys)
        about, sums = (joint.gather(y), joint.rows, len(keys)), z.new_ones(len(z))
        weights_of = self._weights_of(*about, z)

        def weights_and_mass(part: slice) -> tuple[Tensor, Tensor]:
            weights, sums[part] = weights_of(part)
            return weights, self._mass(sums[part])

        if self._reads_degrees:
            weights_and_mass(slice(0, len(z)))
        rows, keys = self.learned.prepare(z, keys, joint.gather(sums) if self._reads_degrees else None)
        batch = Batch(
            learned_of=self.learned.present,
            divergence=self.divergence,
            weights_of=weights_and_mass,
            partners=self._partners_of(*about, z),
            uniform=self._uniform,
            skips_self=self.supervisory.excludes_self and not self.learned.includes_self,
            first=joint.rows.start,
            half=half,
        )
        values = [getattr(self, name) for name in self.learned.learns]
        total = summed_divergence(batch, rows, keys, *values, both_ways=both_ways)
        if batch.partners is not None and joint.n_ranks == 1:  # no row has none
            return total / len(z)
        mass = joint.sum(self._mass(sums).sum())
        if not torch.compiler.is_compiling():
            self._report(sums > 0, mass)
        return joint.mean(total, mass.clamp_min(torch.finfo(z.dtype).tiny))

    def _weights_of(
        self, y: Tensor | None, rows: slice, n_keys: int, like: Tensor
    ) -> Callable[[slice], tuple[Tensor, Tensor]]:
        """`Supervisory.of_batch` of slices of the rows; a p that is computed whole is computed once."""
        if self.supervisory.batch_is_whole:
            weights, sums = self.supervisory.of_batch(y, rows, n_keys, like)
            return lambda part: (weights[part], sums[part])

        def of(part: slice) -> tuple[Tensor, Tensor]:
            return self.supervisory.of_batch(y, slice(rows.start + part.start, rows.start + part.stop), n_keys, like)

        return of

    def _partners_of(self, y: Tensor | None, rows: slice, n_keys: int, like: Tensor) -> Listed | None:
        """`Supervisory.partners_of_batch`; those of the batch before where y is the same, as that of views often is.

        Under torch.compile those that are found without a look at values.
        """
        if torch.compiler.is_compiling():
            found = self.supervisory.partners_of_batch(y, rows, n_keys, like) if y is None else None
            return None if found is None else Listed(*found)
        about, kept = (rows, n_keys, like.device, None if y is None else y.dtype), self._kept
        if kept is None or kept[0] != about or not (y is None or torch.equal(kept[1], y)):
            found = self.supervisory.partners_of_batch(y, rows, n_keys, like)
            self._kept = about, None if y is None else y.clone(), None if found is None else Listed(*found)
        return self._kept[2]

    def _mass(self, sums: Tensor) -> Tensor:
        """How much rows count in the average."""
        return sums if self.supervisory.weighs_rows else (sums > 0).to(sums.dtype)

    def _report(self, counted: Tensor, n_counted: Tensor) -> None:
        """Raise where no row of any process has a positive; warn once where some have none."""
        if not n_counted:
            raise ValueError(
                "no row of the batch has a positive: every p(.|i) is empty, so there is nothing to learn from; check "
                "y, or let each batch hold several rows of one class or item."
            )
        missing = (~counted).nonzero().ravel()
        if len(missing) and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{len(missing)} of {len(counted)} rows have no positive under p and are left out of the average; the "
                f"first are {missing[:_LISTED].tolist()}. Later batches are not reported.",
                UserWarning,
                stacklevel=_USER,
            )


def _listed(rows: Tensor) -> str:
    """The numbers of the rows that are marked."""
    found = rows.nonzero().ravel()
    return f"[{', '.join(map(str, found[:_LISTED].tolist()))}{', ...' if len(found) > _LISTED else ''}]"


def _refuse_numbers_that_are_none(rows: Tensor, name: str) -> None:
    bad = ~rows.detach().isfinite().all(1)
    if bad.any():
        first = rows.detach()[bad].ravel()
        raise ValueError(
            f"{name} holds {first[~first.isfinite()][0].item()} in rows {_listed(bad)} ({int(bad.sum())} in all); look "
            "for a division by zero or a learning rate that is too large, or leave these rows out."
        )


def _too_large(z: Tensor, keys: Tensor | None, dtype: torch.dtype) -> str:
    """What a loss of finite rows is beyond."""
    far = [rows.detach().abs().amax(1) for rows in (z, keys) if rows is not None and rows.shape[1]]
    name, tops = max(zip(("z", "keys"), far, strict=False), key=lambda each: float(each[1].max()))
    return (
        f"the loss is beyond {str(dtype).removeprefix('torch.')}: rows {_listed(tops > tops.max() / 10)} of {name} "
        f"hold values up to {float(tops.max()):.2g}; scale them, or use metric='cosine'."
    )


def _refuse_zero_rows(rows: Tensor, name: str) -> None:
    tiny = torch.finfo(rows.dtype).tiny  # below which the gradient, one over the length, overflows
    top = rows.detach().abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows))
    zero = (top < tiny).nonzero().ravel()
    if len(zero):
        what = "zero" if not top[zero].any() else f"zero or below {tiny:.2g}"
        raise ValueError(
            f"metric='cosine' is undefined for rows of zeros; rows {_listed(top < tiny)} ({len(zero)} in all) of "
            f"{name} are {what}: drop them, or use metric='euclidean'."
        )
