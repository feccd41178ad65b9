"""Checks that the library's own specs are held to, for specs of one's own.

Each raises `AssertionError` at the first thing that does not hold, and says which.
"""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.validation import _num_samples

from ._core.conditional import Conditional
from ._core.types import Rows
from ._objective.normalizers import log_normalizer
from ._objective.objective import Objective
from .encoders import Encoder
from .learned import Learned
from .supervisory import Supervisory

if TYPE_CHECKING:
    pass

__all__ = ["check_encoder", "check_learned", "check_supervisory"]

_SIZES = (2, 3, 17)  # rows; the largest also serves as the sample


def check_supervisory(spec: Supervisory, X: Rows | None = None, y: Any = None) -> None:
    """Check a supervisory distribution p on small data.

    ::

        sum_j p(j|i) = 1 or 0,   p(j|i) >= 0,   p(s(j)|s(i)) of permuted rows = p(j|i)

    Also: parameters survive `clone` and `set_params`; the spec, X and y are left as they were; `excludes_self` and the
    number of keys are as declared; single and double precision agree; the same call gives the same p; a
    `UniformMixture` and `mixture` add up.

    Parameters
    ----------
    spec : Supervisory
        Not changed.
    X : array-like or sparse matrix of shape (n_samples, n_features), default=None
        None: normal rows of several sizes.
    y : array-like of shape (n_samples, ...), default=None
        What p reads in addition to X.

    Raises
    ------
    AssertionError
        The first property that does not hold.
    TypeError
        `spec` is no `supervisory.Supervisory`.

    Examples
    --------
    >>> from sklearn_icon.supervisory import UniformKNN
    >>> from sklearn_icon.testing import check_supervisory
    >>> check_supervisory(UniformKNN(n_neighbors=1))
    """
    _check_spec(spec, Supervisory)
    rng = np.random.default_rng(0)
    given = [(X, y)] if X is not None else [(rng.normal(size=(n, 3)), y) for n in _SIZES if y is None or len(y) == n]
    for rows, target in given:
        _check_conditional(spec, rows, target)


def _check_conditional(spec: Supervisory, X: Any, y: Any) -> None:
    before, settings = copy.deepcopy((X, y)), copy.deepcopy(spec.get_params())
    p = _conditional(spec, X, y)
    n = _num_samples(X)
    _require(_same(before[0], X) and _same(before[1], y), f"{spec} changed X or y")
    _require(repr(settings) == repr(spec.get_params()), f"{spec} changed its own parameters")
    _require(isinstance(p, Conditional), f"{spec}.conditional must return a Conditional, got {type(p).__name__}")
    dense = p.toarray()
    _require(np.isfinite(dense).all() and (dense >= 0).all(), f"p of {spec} holds negative numbers, NaN or infinity")
    sums = dense.sum(axis=1)
    _require(np.allclose(sums[sums > 0], 1, atol=1e-6), f"rows of p of {spec} must sum to one or to zero, got {sums}")
    n_views = 1 if spec.views is None else spec.views.n_views
    _require(dense.shape[0] == n * n_views, f"p of {spec} must have a row for each row of X")
    if spec.over_rows:
        _require(dense.shape[1] == len(dense), f"keys of {spec} are {spec.keys!r}, but p has shape {dense.shape}")
        _require(
            p.exclude_self == spec.excludes_self, f"excludes_self={spec.excludes_self} of {spec} is not what p says"
        )
        if p.exclude_self:
            _require(not np.diag(dense).any(), f"p of {spec} puts mass on the row itself")
    _require(abs(p.uniform - spec.mixture) < 1e-12, f"mixture={spec.mixture} of {spec}, but p has {p.uniform}")
    _require(_same(dense, _conditional(spec, X, y).toarray()), f"p of {spec} differs from call to call")
    if spec.keys == "rows" and not spec.pairwise and spec.reads(X, y) == "features":
        _check_order_and_precision(spec, X, y, dense)


def _check_order_and_precision(spec: Supervisory, X: Any, y: Any, dense: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(len(dense))
    rows = X if sparse.issparse(X) else np.asarray(X)
    permuted = _conditional(spec, rows[order], spec.take(y, order)).toarray()
    agree = np.allclose(permuted, dense[np.ix_(order, order)], atol=1e-8)
    _require(agree, f"p of {spec} depends on the order of the rows")
    single = _conditional(spec, rows.astype(np.float32), y).toarray()
    _require(np.allclose(single, dense, atol=1e-3), f"p of {spec} differs between single and double precision")


def _conditional(spec: Supervisory, X: Any, y: Any) -> Conditional:
    return clone(spec).conditional(X, y, random_state=0)


def check_learned(kernel: Learned) -> None:
    """Check a learned distribution q: a kernel, a limit, or one over memberships.

    ::

        sum_j q(j|i) = 1,   q of permuted rows = permuted q,   paired = diagonal of pairwise,
        slope(s) = d log k / d s,   the compiled and tiled losses = the sum over all pairs

    Also: parameters survive `clone` and `set_params`; representations are left as they were; gradients are right in
    double precision and finite for equal and far rows; single and double precision agree; a map of few rows and one
    beyond the size up to which sums are exact can be fitted.

    Parameters
    ----------
    kernel : Learned
        Not changed.

    Raises
    ------
    AssertionError
        The first property that does not hold.
    TypeError
        `kernel` is no `learned.Learned`.

    Examples
    --------
    >>> from sklearn_icon.learned import StudentT
    >>> from sklearn_icon.testing import check_learned
    >>> check_learned(StudentT(df=2.0))
    """
    _check_spec(kernel, Learned)
    for n in _SIZES:
        z = torch.as_tensor(np.random.default_rng(n).normal(size=(n, 3)))
        _check_pairs(kernel, z)
        if not kernel.is_limit:
            _check_rows(kernel, z)
    _check_gradients(kernel, z)
    if kernel.euclidean and not kernel.mixture:
        _check_slope(kernel)
    rows, keys = kernel.prepare(z[:20], z[:20].flip(0))
    for other in (keys, None):
        _check_pull(kernel, rows, other)
    if not kernel.on_memberships:
        _check_loss(kernel, 1500 if kernel.euclidean else 50)


def _log_q(kernel: Learned, z: torch.Tensor) -> torch.Tensor:
    """Log q over the other rows, over all rows where q includes them; -inf where a row is no key."""
    rows, keys = kernel.prepare(z, z)
    own = torch.eye(len(z), dtype=torch.bool) & (not kernel.includes_self)
    n_choices = len(z) - (not kernel.includes_self)
    log_k = kernel.pairwise(rows, keys).masked_fill(own, -torch.inf)
    if kernel.tilted or not kernel.normalized:
        following = torch.eye(len(z), dtype=z.dtype).roll(1, 1)  # p of one key for each row
        log_k = log_k - kernel.log_partition_given(log_k, n_choices, following)[:, None]
    return kernel.finish(log_k, n_choices).masked_fill(own, -torch.inf)


def _check_pairs(kernel: Learned, z: torch.Tensor) -> None:
    before = z.clone()
    rows, keys = kernel.prepare(z, z.flip(0))
    pairs, paired = kernel.pairwise(rows, keys), kernel.paired(rows, keys)
    _require(torch.equal(before, z), f"{kernel} changed the representations")
    _require(pairs.shape == 2 * (len(z),), f"pairwise of {kernel} must have shape {2 * (len(z),)}, got {pairs.shape}")
    agree = torch.allclose(paired, pairs.diagonal(), rtol=1e-6, atol=1e-9)
    _require(agree, f"paired of {kernel} is not the diagonal of pairwise")
    single = kernel.pairwise(*kernel.prepare(z.float(), z.flip(0).float()))
    _require(single.dtype == torch.float32, f"pairwise of {kernel} changes the precision to {single.dtype}")
    off = (z[:, None] - z.flip(0)).norm(dim=2) > 1e-3  # on itself a kernel may have a pole
    agree = torch.allclose(single.double()[off], pairs[off], rtol=1e-3, atol=1e-4)
    _require(agree, f"pairwise of {kernel} differs between single and double precision")


def _check_pull(kernel: Learned, rows: torch.Tensor, other: torch.Tensor | None) -> None:
    """Gradients by formula against those by autograd, where the keys are others, and where they are the rows."""
    off = 1.0 - torch.eye(len(rows), dtype=rows.dtype)  # on itself a kernel may have a pole
    weights = off * torch.arange(off.numel(), dtype=rows.dtype).cos().view_as(off)
    z = rows.detach().clone()
    keys = z if other is None else other.detach().clone()
    log_k, pull = kernel.pairwise_and_pull(z, keys)
    found = [part for part in pull(weights.clone(), (True, True)) if part is not None]
    ends = [part.clone().requires_grad_() for part in ((z,) if other is None else (z, keys))]
    expected_k = kernel.pairwise(ends[0], ends[-1])
    expected = torch.autograd.grad((weights * expected_k).masked_fill(off == 0, 0).sum(), ends)
    if len(found) > len(expected):
        found = [found[0] + found[1]]
    agree = torch.allclose((off * log_k).nan_to_num(), (off * expected_k.detach()).nan_to_num(), rtol=1e-9, atol=1e-12)
    agree = agree and all(torch.allclose(*pair, rtol=1e-6, atol=1e-9) for pair in zip(found, expected, strict=True))
    _require(agree, f"pairwise_and_pull of {kernel} differs from the gradient of pairwise")


def _check_rows(kernel: Learned, z: torch.Tensor) -> None:
    q = _log_q(kernel, z).exp()
    sums = q.sum(dim=1)
    _require(torch.allclose(sums, torch.ones_like(sums)), f"rows of q of {kernel} must sum to one, got {sums.tolist()}")
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    agree = torch.allclose(_log_q(kernel, z[order]).exp(), q[order][:, order], atol=1e-10)
    _require(agree, f"q of {kernel} depends on the order of the rows")


def _check_gradients(kernel: Learned, z: torch.Tensor) -> None:
    z = z[:6].clone().requires_grad_()
    off = ~torch.eye(len(z), dtype=torch.bool)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return _log_q(kernel, z)[off].sum()

    _require(torch.autograd.gradcheck(loss, z, raise_exception=False), f"gradients of {kernel} are not right")
    for scale in (0.0, 1e-6, 1e6):
        far = (scale * z.detach()).requires_grad_()
        value = loss(far)
        finite = bool(torch.isfinite(value)) and bool(torch.isfinite(torch.autograd.grad(value, far)[0]).all())
        _require(finite or kernel.affinity == "cosine", f"{kernel} is not finite for rows {scale:g} apart")


def _check_slope(kernel: Learned) -> None:
    sq = torch.logspace(-3, 3, 25, dtype=torch.float64, requires_grad=True)
    inner: Any = kernel
    derivative = torch.autograd.grad(inner.log_kernel(sq).sum(), sq)[0]
    try:
        slope = inner.slope(sq.detach())
    except TypeError:  # it has none
        return
    slope = torch.as_tensor(slope, dtype=torch.float64).expand_as(derivative)
    agree = torch.allclose(slope, derivative, rtol=1e-6, atol=1e-12)
    _require(agree, f"slope of {kernel} is not the derivative of log_kernel by the squared distance")
    _require(not inner.smooth_at_zero or inner._is_smooth(), f"{kernel} is not smooth at zero, as it declares")
    if kernel.slope_terms is not None:
        a, b, c = kernel.slope_terms
        agree = torch.allclose(c / (a + b * sq), derivative, rtol=1e-6, atol=1e-12) and 1.0 == (b if b else a)
        _require(agree, f"slope_terms of {kernel} must be (1, 0, c) or (a, 1, c) with slope = c / (a + b d^2)")
        at_zero = float(inner.log_kernel(torch.zeros(1, dtype=torch.float64)))
        _require(at_zero == 0, f"log_kernel of {kernel}, which has slope_terms, must be zero at zero, got {at_zero}")


def _check_loss(kernel: Learned, n: int) -> None:
    """The loss of rows with one neighbour each, as it is computed for so many rows, against the sum over all pairs."""
    z = torch.as_tensor(np.random.default_rng(0).normal(size=(n, 2)))
    following = np.roll(np.arange(n), -1)
    p = Conditional(sparse.csr_array((np.ones(n), following, np.arange(n + 1)), shape=(n, n)), exclude_self=True)
    loss = float(Objective(p, kernel, dtype=torch.float64)(z))
    rows, keys = kernel.prepare(z, z)
    exact = -_log_q(kernel, z)[torch.arange(n), torch.as_tensor(following)].mean()
    if not kernel.is_limit:
        log_z = log_normalizer(kernel, rows, keys, exclude_self=True, n_choices=n - 1)
        _require(bool(torch.isfinite(log_z).all()), f"the normaliser of {kernel} is not finite")
    _require(
        abs(loss - float(exact)) < 1e-6 * max(1, abs(float(exact))), f"the loss of {kernel} is {loss}, not {exact}"
    )


def check_encoder(encoder: Encoder) -> None:
    """Check an encoder with weights: what `build` makes, and that nothing else is changed.

    ::

        build(n_inputs, n_outputs): (n, n_inputs) -> (n, n_outputs),   the same weights for the same seed

    Also: parameters survive `clone` and `set_params`; single and double precision; gradients reach every weight; the
    module pickles; torch's global generator is left as it was.

    Parameters
    ----------
    encoder : Encoder
        Not changed; one that `is_linear` or a network, not a `Lookup`.

    Raises
    ------
    AssertionError
        The first property that does not hold.
    TypeError
        `encoder` is no `encoders.Encoder`.

    Examples
    --------
    >>> from sklearn_icon.encoders import MLP
    >>> from sklearn_icon.testing import check_encoder
    >>> check_encoder(MLP(hidden=(8,)))
    """
    _check_spec(encoder, Encoder)
    _require(encoder.parametric, f"{encoder} has no module to check")
    for dtype in (torch.float32, torch.float64):
        state = torch.random.get_rng_state()
        module, again = (encoder.build(5, 3, seed=7, dtype=dtype) for _ in range(2))
        _require(torch.equal(torch.random.get_rng_state(), state), f"{encoder} moves torch's global generator")
        z = module.eval()(torch.randn(11, 5, dtype=dtype, generator=torch.Generator().manual_seed(0)))
        _require(z.shape == (11, 3) and z.dtype == dtype, f"{encoder} makes {tuple(z.shape)} of {z.dtype}")
        twins = zip(module.parameters(), again.parameters(), strict=True)
        _require(all(torch.equal(a, b) for a, b in twins), f"one seed gives {encoder} unlike weights")
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        grads = torch.autograd.grad(z.square().sum(), weights, allow_unused=True)
        _require(all(grad is not None for grad in grads), f"no gradient reaches some weights of {encoder}")
        _require(bool(torch.isfinite(z).all()), f"{encoder} represents rows by NaN or infinity")
    pickle.loads(pickle.dumps(encoder))


def _check_spec(spec: Any, base: Any) -> None:
    if not isinstance(spec, base):
        raise TypeError(f"a {base.__name__} is needed, got {spec!r}.")
    twin: Any = clone(spec)
    _require(twin is not spec and repr(twin) == repr(spec), f"clone of {spec} is {twin}")
    twin.set_params(**twin.get_params(deep=True))
    same = repr(twin.get_params(deep=True)) == repr(spec.get_params(deep=True))
    _require(same, f"set_params(**get_params()) changes {spec}")
    _require(twin.validate() is twin, f"validate of {spec} must return the spec")


def _require(holds: Any, what: str) -> None:
    if not holds:
        raise AssertionError(what + ".")


def _same(a: Any, b: Any) -> bool:
    if sparse.issparse(a):
        return abs(a - b).nnz == 0
    return a is b or np.array_equal(np.asarray(a), np.asarray(b))
