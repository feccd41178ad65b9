import doctest
from itertools import product
from math import cos, exp, log, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sklearn_icon import learned
from sklearn_icon._core.spec import resolve
from sklearn_icon._objective.normalizers import log_normalizer
from sklearn_icon.learned import (
    Gaussian,
    Harmonic,
    Learned,
    NarrowGaussian,
    NegativeSampling,
    Rational,
    SharedCluster,
    StudentT,
    UniformMixture,
    WideGaussian,
)
from sklearn_icon.learned._base import LOG_FLOOR

N, M, DIM = 9, 4, 3


# --- oracles: the formulas by loops -------------------------------------------------------------------------------


def sq_distance(a, b):
    return sum((s - t) ** 2 for s, t in zip(a, b, strict=True))


def dot(a, b):
    return sum(s * t for s, t in zip(a, b, strict=True))


def cosine(a, b):
    return dot(a, b) / sqrt(dot(a, a) * dot(b, b))


def rows_of(kernel):
    """q from a kernel of a pair: each row divided by its sum over the keys."""

    def q(z, keys, exclude_self, degrees):
        rows = np.zeros((len(z), len(keys)))
        for i, a in enumerate(z):
            values = {j: kernel(a, b) for j, b in enumerate(keys) if not (exclude_self and i == j)}
            for j, value in values.items():
                rows[i, j] = value / sum(values.values())
        return rows

    return q


def rational(a, b, e):
    """UMAP's kernel, flat within sqrt(e)."""
    return lambda x, y: 1 / (1 + a * ((sq_distance(x, y) + e) ** b - e**b))


def softmax(row):
    return [exp(v) / sum(exp(w) for w in row) for v in row]


def shared_cluster(z, keys, exclude_self, degrees):
    phi_rows, phi_keys = [softmax(row) for row in z], [softmax(row) for row in keys]
    d = [1.0] * len(keys) if degrees is None else degrees
    q = np.zeros((len(z), len(keys)))
    for i, j, c in product(range(len(z)), range(len(keys)), range(len(z[0]))):
        q[i, j] += phi_rows[i][c] * phi_keys[j][c] * d[j] / sum(f[c] * w for f, w in zip(phi_keys, d, strict=True))
    return q


def mixed(q_of, alpha):
    def q(z, keys, exclude_self, degrees):
        rows = q_of(z, keys, exclude_self, degrees)
        n_choices = len(keys) - exclude_self
        for i, j in product(range(len(z)), range(len(keys))):
            if not (exclude_self and i == j):
                rows[i, j] = (1 - alpha) * rows[i, j] + alpha / n_choices
        return rows

    return q


# --- cases --------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A spec, its oracle, and what it declares."""

    spec: Learned
    oracle: Any
    includes_self: bool = False
    weighted: bool = False


CASES = {
    "gaussian": Case(Gaussian(), rows_of(lambda a, b: exp(-sq_distance(a, b) / 2))),
    "gaussian-sigma": Case(Gaussian(sigma=0.7), rows_of(lambda a, b: exp(-sq_distance(a, b) / (2 * 0.7**2)))),
    "gaussian-cosine": Case(Gaussian(metric="cosine", tau=0.2), rows_of(lambda a, b: exp(cosine(a, b) / 0.2))),
    "gaussian-cosine-sigma": Case(
        Gaussian(metric="cosine", sigma=0.5), rows_of(lambda a, b: exp(cosine(a, b) / 0.5**2))
    ),
    "gaussian-dot": Case(Gaussian(metric="dot"), rows_of(lambda a, b: exp(dot(a, b)))),
    "gaussian-dot-tau": Case(Gaussian(metric="dot", tau=2.0), rows_of(lambda a, b: exp(dot(a, b) / 2))),
    **{
        f"student-{df}": Case(
            StudentT(df=df), rows_of(lambda a, b, df=df: (1 + sq_distance(a, b) / df) ** (-(df + 1) / 2))
        )
        for df in (0.5, 1, 1.0, 5.0)
    },
    "harmonic": Case(Harmonic(), rows_of(lambda a, b: 1 / max(sq_distance(a, b), 1e-12))),
    "harmonic-3": Case(Harmonic(n=3.0), rows_of(lambda a, b: max(sq_distance(a, b), 1e-12) ** -3.0)),
    "rational": Case(Rational(), rows_of(rational(1.5769436135066135, 0.8950607193577085, 0.01))),
    "rational-wide": Case(Rational(0.5, 2.0), rows_of(rational(0.2588788017623183, 1.0574995590792913, 0.04))),
    "cluster": Case(SharedCluster(), shared_cluster, includes_self=True),
    "cluster-degree": Case(SharedCluster(weights="degree"), shared_cluster, includes_self=True, weighted=True),
}
for name, case in list(CASES.items()):
    CASES[f"mixture-{name}"] = case._replace(spec=UniformMixture(case.spec, 0.3), oracle=mixed(case.oracle, 0.3))
CASES["mixture-mixture"] = Case(
    UniformMixture(UniformMixture(StudentT(), 0.25), 0.2), mixed(CASES["student-1"].oracle, 0.4)
)
CASES["mixture-of-nothing"] = Case(UniformMixture(StudentT(), 0.0), CASES["student-1"].oracle)
LIMITS = {"wide": WideGaussian(), "narrow": NarrowGaussian()}

each_case = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
each_spec = pytest.mark.parametrize(
    "spec",
    [*(pytest.param(case.spec, id=name) for name, case in CASES.items())]
    + [pytest.param(spec, id=name) for name, spec in LIMITS.items()],
)
each_euclidean = pytest.mark.parametrize(
    "spec", [pytest.param(case.spec, id=name) for name, case in CASES.items() if case.spec.euclidean]
)


@pytest.fixture
def z():
    return np.random.default_rng(0).normal(size=(N, DIM))


@pytest.fixture
def prototypes():
    return np.random.default_rng(1).normal(size=(M, DIM))


@pytest.fixture
def degrees():
    return np.random.default_rng(2).uniform(0.5, 3.0, size=N)


def log_q(spec, z, keys, exclude_self, degrees=None):
    """Log q as an objective computes it from a spec; -inf at excluded keys."""
    exclude_self = exclude_self and not spec.includes_self
    n_choices = len(keys) - exclude_self
    rows, columns = spec.prepare(z, keys, degrees)
    log_k = spec.pairwise(rows, columns)
    if exclude_self:
        log_k = log_k.masked_fill(torch.eye(len(rows), dtype=bool), -torch.inf)
    if not spec.normalized:
        log_k = log_k - log_normalizer(spec, rows, columns, exclude_self=exclude_self, n_choices=n_choices)[:, None]
    result = spec.finish(log_k, n_choices)
    return result.masked_fill(torch.eye(len(rows), dtype=bool), -torch.inf) if exclude_self else result


def q_of(case, z, keys=None, *, exclude_self, degrees=None, dtype=torch.float64):
    z, keys = (torch.as_tensor(a, dtype=dtype) for a in (z, z if keys is None else keys))
    degrees = torch.as_tensor(degrees, dtype=dtype) if case.weighted and degrees is not None else None
    result = log_q(case.spec, z, keys, exclude_self, degrees)
    assert result.dtype == dtype
    return result.exp().numpy()


# --- one suite over every spec ------------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize("exclude_self", [False, True])
def test_equals_the_formula(case, z, degrees, exclude_self):
    actual = q_of(case, z, exclude_self=exclude_self, degrees=degrees)
    expected = case.oracle(z, z, exclude_self and not case.includes_self, degrees if case.weighted else None)
    assert_allclose(actual, expected, rtol=1e-10, atol=1e-14)


@each_case
def test_equals_the_formula_on_prototypes(case, z, prototypes, degrees):
    actual = q_of(case, z, prototypes, exclude_self=False, degrees=degrees[:M])
    expected = case.oracle(z, prototypes, False, degrees[:M] if case.weighted else None)
    assert_allclose(actual, expected, rtol=1e-11)


@each_case
@pytest.mark.parametrize("exclude_self", [False, True])
def test_single_precision_agrees(case, z, degrees, exclude_self):
    single = q_of(case, z, exclude_self=exclude_self, degrees=degrees, dtype=torch.float32)
    double = q_of(case, z, exclude_self=exclude_self, degrees=degrees)
    assert single.dtype == np.float32
    assert_allclose(single, double, rtol=0, atol=2e-6)


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_rows_sum_to_one_and_self_mass_is_as_declared(case, z, degrees, dtype, exclude_self):
    q = q_of(case, z, exclude_self=exclude_self, degrees=degrees, dtype=dtype)
    assert_allclose(q.sum(axis=1), 1, rtol=1e-5 if dtype == torch.float32 else 1e-12)
    assert case.spec.includes_self == case.includes_self
    assert ((np.diag(q) > 0) == (case.includes_self or not exclude_self)).all()


@each_case
def test_the_order_of_the_items_does_not_matter(case, z, degrees):
    order = np.random.default_rng(3).permutation(N)
    expected = q_of(case, z, exclude_self=True, degrees=degrees)[order][:, order]
    assert_allclose(q_of(case, z[order], exclude_self=True, degrees=degrees[order]), expected, rtol=1e-10)


@each_spec
def test_pairs_are_the_diagonal_of_all_pairs(spec, z, prototypes):
    a, b = torch.as_tensor(z[:M]), torch.as_tensor(prototypes)
    rows, columns = spec.prepare(a, b)
    assert_allclose(spec.paired(rows, columns), spec.pairwise(rows, columns).diagonal(), rtol=1e-12)


@each_spec
def test_representations_are_left_alone(spec, z, degrees):
    a, b, d = torch.as_tensor(z.copy()), torch.as_tensor(z[:M].copy()), torch.as_tensor(degrees[:M].copy())
    rows, columns = spec.prepare(a, b, d)
    spec.pairwise(rows, columns)
    spec.paired(rows[:M], columns)
    assert_array_equal(a, z)
    assert_array_equal(b, z[:M])
    assert_array_equal(d, degrees[:M])


@each_spec
def test_clone_and_parameters_round_trip(spec):
    copy = clone(spec)
    assert copy is not spec
    copy.set_params(**copy.get_params(deep=True))
    assert repr(copy) == repr(spec)
    assert copy.validate() is copy
    assert vars(copy).keys() == spec.get_params(deep=False).keys()


@each_case
def test_gradients_are_right(case, z, degrees):
    weights = torch.as_tensor(np.random.default_rng(4).uniform(size=(5, 5)))
    d = torch.as_tensor(degrees[:5]) if case.weighted else None

    def value(a):
        q = log_q(case.spec, a, a, True, d)
        return (weights * q.masked_fill(q.isneginf(), 0)).sum()

    assert torch.autograd.gradcheck(value, torch.as_tensor(z[:5]).requires_grad_())


@each_case
def test_equal_and_far_rows_stay_finite(case):
    rows = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1e3, -1e3], [1e6, 0.0]], requires_grad=True)
    q = log_q(case.spec, rows, rows, True)
    kept = q.masked_fill(q.isneginf() & torch.eye(4, dtype=bool), 0)
    assert torch.isfinite(kept).all()
    kept.sum().backward()
    assert torch.isfinite(rows.grad).all()


# --- kernels of the squared distance ------------------------------------------------------------------------------


@each_euclidean
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slope_is_the_derivative_of_the_log_kernel(spec, dtype):
    sq = torch.tensor([0.0, 1e-6, 0.3, 1.0, 17.0, 1e4], dtype=dtype, requires_grad=True)
    expected = torch.autograd.grad(spec.log_kernel(sq).sum(), sq)[0]
    slope = torch.as_tensor(spec.slope(sq.detach()), dtype=dtype).expand(len(sq))
    assert_allclose(slope, expected, rtol=1e-5 if dtype == torch.float32 else 1e-13)


@each_euclidean
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_and_slope(spec, dtype):
    distances = [0.0, 1e-6, 0.3, 1.0, 17.0, 100.0]
    sq = torch.tensor(distances, dtype=dtype, requires_grad=True)
    expected = spec.log_kernel(sq).exp()
    expected_slope = torch.autograd.grad(expected.sum(), sq)[0]
    spare = torch.empty(len(distances), dtype=dtype)
    kernel, slope = spec.kernel_and_slope(torch.tensor(distances, dtype=dtype), spare)
    rtol = 2e-5 if dtype == torch.float32 else 1e-13
    exact = spec.log_kernel(sq).detach() > LOG_FLOOR
    assert_allclose(kernel[exact], expected.detach()[exact], rtol=rtol)
    assert_allclose(slope[exact], expected_slope[exact], rtol=rtol)
    assert (kernel[~exact] >= exp(LOG_FLOOR) * 0.999).all()
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize(("spec", "slope"), [(WideGaussian(), -1), (NarrowGaussian(), -1), (Harmonic(n=2.0), -4)])
def test_slopes_without_a_closed_form_are_differentiated(spec, slope):
    assert not spec.euclidean
    assert_allclose(spec.slope(torch.full((2,), 0.5)), slope)


def test_log_kernels_of_limits_are_negative_squared_distances():
    sq = torch.tensor([0.0, 0.5, 9.0])
    for spec in LIMITS.values():
        assert spec.is_limit
        assert_array_equal(spec.log_kernel(sq), -sq)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_normalisers_of_limits(z, exclude_self):
    rows = torch.as_tensor(z)
    expected_mean, expected_min = np.zeros(N), np.zeros(N)
    for i in range(N):
        sq = [sq_distance(z[i], z[j]) for j in range(N) if not (exclude_self and i == j)]
        expected_mean[i], expected_min[i] = sum(sq) / len(sq), min(sq)
    options = {"exclude_self": exclude_self, "n_choices": N - exclude_self}
    assert_allclose(log_normalizer(LIMITS["wide"], rows, rows, **options), -expected_mean, rtol=1e-12)
    assert_allclose(log_normalizer(LIMITS["narrow"], rows, rows, **options), -expected_min, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("spec", list(LIMITS.values()), ids=list(LIMITS))
def test_limits_are_limits_of_the_gaussian(spec, z):
    """s^2 log mean_j exp(-d^2 / s^2) tends to the wide one, s^2 log sum_j exp(-d^2 / s^2) to the narrow one."""
    rows = torch.as_tensor(z)
    options = {"exclude_self": True, "n_choices": N - 1}
    limit = log_normalizer(spec, rows, rows, **options)
    errors = []
    for s in (1e3, 2e3) if spec is LIMITS["wide"] else (0.02, 0.01):
        log_z = log_normalizer(Gaussian(sigma=s / sqrt(2)), rows, rows, **options)
        scaled = s**2 * (log_z - (log(N - 1) if spec is LIMITS["wide"] else 0))
        errors.append(abs(scaled - limit).max().item())
    assert errors[1] < 0.3 * errors[0] or errors[0] < 1e-12
    assert errors[0] < 1e-3


# --- clusters -----------------------------------------------------------------------------------------------------


def test_hard_clusters_share_a_row_evenly(degrees):
    labels = np.array([0, 0, 1, 1, 1, 2, 0, 2, 2])
    z = torch.as_tensor(1e3 * np.eye(3)[labels])
    same = labels[:, None] == labels
    assert_allclose(log_q(SharedCluster(), z, z, False).exp(), same / same.sum(axis=1, keepdims=True), atol=1e-300)
    weighted = same * degrees / (same * degrees).sum(axis=1, keepdims=True)
    actual = log_q(SharedCluster(weights="degree"), z, z, False, torch.as_tensor(degrees)).exp()
    assert_allclose(actual, weighted, rtol=1e-12, atol=1e-300)


def test_normalised_cut_of_hard_clusters(degrees):
    """NCut = m - sum_ij w_ij q(j|i) / d_j, with q of the degree-weighted shared cluster."""
    rng = np.random.default_rng(5)
    W = rng.uniform(size=(N, N))
    W = W + W.T
    d = W.sum(axis=1)
    labels = np.array([0, 0, 1, 1, 1, 2, 0, 2, 2])
    cut = 0.0
    for c in range(3):
        volume = sum(d[i] for i in range(N) if labels[i] == c)
        cut += sum(W[i, j] for i in range(N) for j in range(N) if labels[i] == c != labels[j]) / volume
    z = torch.as_tensor(1e3 * np.eye(3)[labels])
    q = log_q(SharedCluster(weights="degree"), z, z, False, torch.as_tensor(d)).exp().numpy()
    assert_allclose(3 - (W * q / d).sum(), cut, rtol=1e-12)


def test_degrees_matter_only_where_asked_for(z, degrees):
    rows, d = torch.as_tensor(z), torch.as_tensor(degrees)
    plain = log_q(SharedCluster(), rows, rows, False)
    assert_array_equal(log_q(SharedCluster(), rows, rows, False, d), plain)
    assert_array_equal(log_q(SharedCluster(weights="degree"), rows, rows, False), plain)
    assert abs(log_q(SharedCluster(weights="degree"), rows, rows, False, d) - plain).max() > 0.1
    equal = log_q(SharedCluster(weights="degree"), rows, rows, False, torch.full_like(d, 3.0))
    assert_allclose(equal, plain, rtol=1e-13)


def test_an_isolated_key_is_no_ones_neighbor(z):
    rows = torch.as_tensor(z)
    degrees = torch.ones(N, dtype=torch.float64)
    degrees[2] = 0
    q = log_q(SharedCluster(weights="degree"), rows, rows, False, degrees).exp()
    assert_allclose(q[:, 2], 0, atol=1e-300)
    assert_allclose(q.sum(1), 1, rtol=1e-12)


# --- cosine -------------------------------------------------------------------------------------------------------


def test_cosine_ignores_lengths(z):
    spec, rows = Gaussian(metric="cosine", tau=0.3), torch.as_tensor(z)
    lengths = torch.linspace(0.1, 50, N, dtype=torch.float64)[:, None]
    assert_allclose(log_q(spec, rows, rows, False), log_q(spec, rows * lengths, rows, False), rtol=1e-12)


def test_cosine_with_sigma_is_the_euclidean_kernel_on_unit_rows():
    angles = np.linspace(0, 2, 5)
    z = torch.as_tensor(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert_allclose(z[0] @ z[1], cos(0.5), rtol=1e-14)
    cosine_rows, plain_rows = (
        log_q(Gaussian(sigma=0.4, metric=metric), z, z, True) for metric in ("cosine", "euclidean")
    )
    assert_allclose(cosine_rows, plain_rows, rtol=1e-12)


def test_cosine_of_zero_rows_is_zero():
    z = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    q = log_q(Gaussian(metric="cosine"), z, z, False)
    assert_allclose(q.detach(), -log(3), rtol=1e-14)
    q[0, 1].backward()
    assert torch.isfinite(z.grad).all()


# --- parameters ---------------------------------------------------------------------------------------------------

BAD = [
    (Gaussian(sigma=0), "sigma"),
    (Gaussian(sigma=None), "sigma"),
    (Gaussian(metric="manhattan"), "metric"),
    (Gaussian(tau=0.0), "tau"),
    (Gaussian(tau="auto"), "tau"),
    (StudentT(df=0), "df"),
    (StudentT(df="1"), "df"),
    (Harmonic(n=0), "n"),
    (Rational(min_dist=-1.0), "min_dist"),
    (Rational(spread=0), "spread"),
    (NegativeSampling("rational"), "base"),
    (NegativeSampling(Rational(spread=0)), "spread"),
    (NegativeSampling(Rational(), n_negatives=0), "n_negatives"),
    (NegativeSampling(Rational(), noise=-1), "noise"),
    (SharedCluster(weights="volume"), "weights"),
    (UniformMixture(StudentT(), 1.0), "alpha"),
    (UniformMixture(StudentT(), -0.1), "alpha"),
    (UniformMixture("student_t", 0.1), "base"),
    (UniformMixture(StudentT(df=-1), 0.1), "df"),
    (UniformMixture(UniformMixture(Gaussian(sigma=-1), 0.1), 0.1), "sigma"),
]


@pytest.mark.parametrize(("spec", "name"), BAD)
def test_bad_parameters_are_named(spec, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of .* must be"):
        spec.validate()


@pytest.mark.parametrize("spec", list(LIMITS.values()), ids=list(LIMITS))
def test_a_limit_takes_no_mixture(spec):
    with pytest.raises(ValueError, match=r"Gaussian\(\) is the limit of a loss and no distribution"):
        UniformMixture(spec, 0.1).validate()
    with pytest.raises(ValueError, match="no distribution"):
        UniformMixture(UniformMixture(spec, 0.1), 0.1).validate()


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (Gaussian(), [{"sigma": 2.0}, {"metric": "cosine"}, {"metric": "dot"}]),
        (Gaussian(metric="dot"), [{"sigma": 2.0}, {"tau": 3.0}]),
        (StudentT(), [{"df": 2.0}]),
        (Harmonic(), [{"n": 2.0}]),
        (Rational(), [{"min_dist": 0.5}, {"spread": 2.0}]),
        (SharedCluster(), [{"weights": "degree"}]),
        (UniformMixture(StudentT(), 0.1), [{"alpha": 0.2}, {"base__df": 3.0}, {"base": Gaussian()}]),
    ],
)
def test_every_parameter_matters(spec, changes, z, degrees):
    rows, d = torch.as_tensor(z), torch.as_tensor(degrees)
    before = log_q(spec, rows, rows, False, d)
    for change in changes:
        assert abs(log_q(clone(spec).set_params(**change), rows, rows, False, d) - before).max() > 1e-3, change
    assert_array_equal(log_q(spec, rows, rows, False, d), before)


def test_declarations_pass_through_a_mixture():
    for case in CASES.values():
        mixture = UniformMixture(case.spec, 0.5)
        for name in ("includes_self", "normalized", "on_memberships"):
            assert getattr(mixture, name) == getattr(case.spec, name)
        assert mixture.mixture == pytest.approx(1 - 0.5 * (1 - case.spec.mixture), rel=1e-15)
        assert not mixture.euclidean


def test_names_make_specs():
    for name, make in learned.NAMES.items():
        assert isinstance(resolve(name, Learned, learned.NAMES, "learned"), make)
    with pytest.raises(ValueError, match="learned='t' is not known"):
        resolve("t", Learned, learned.NAMES, "learned")
    with pytest.raises(TypeError, match=r"an instance of a class of sklearn_icon\.learned"):
        resolve(1.0, Learned, learned.NAMES, "learned")


def test_examples_in_the_docstrings():
    result = doctest.testmod(learned)
    assert result.attempted > 10
    assert result.failed == 0


SCALES = {
    torch.float16: [1e-3, 1e3],
    torch.bfloat16: [1e-20, 1e-36, 1e36],
    torch.float32: [1e-13, 1e-20, 1e-36, 1e19, 1e36],
    torch.float64: [1e-200, 1e-300, 1e200, 1e300],
}


@pytest.mark.parametrize("dtype, scale", [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales])
def test_the_cosine_knows_no_lengths(dtype, scale):
    """Values, and gradients that are as much larger as rows are smaller."""
    spec, draw = Gaussian(metric="cosine", tau=0.5), torch.Generator().manual_seed(1)
    z, keys = (torch.randn(n, 24, generator=draw, dtype=torch.float64) for n in (9, 7))
    expected = (z / z.norm(dim=1, keepdim=True)) @ (keys / keys.norm(dim=1, keepdim=True)).T / 0.5
    rows = (z * scale).to(dtype).requires_grad_()
    found = spec.pairwise(*spec.prepare(rows, (keys / scale).to(dtype)))
    assert found.dtype == dtype
    assert_allclose(found.detach().double(), expected, atol=40 * torch.finfo(dtype).eps)
    weights = torch.randn(9, 7, generator=draw, dtype=torch.float64) / (1e4 if dtype == torch.float16 else 10)
    z.requires_grad_()
    (slope,) = torch.autograd.grad((spec.pairwise(*spec.prepare(z, keys)) * weights).sum(), z)
    (scaled,) = torch.autograd.grad((found * weights.to(dtype)).sum(), rows)
    of_least = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps / slope.abs().max() * scale  # rounding
    ours = scaled.double() * scale
    atol = 40 * torch.finfo(dtype).eps + of_least.item()
    assert_allclose(ours / slope.abs().max(), slope / slope.abs().max(), atol=atol)


def test_rows_of_zeros_under_the_cosine_have_finite_gradients():
    spec = Gaussian(metric="cosine", tau=0.5)
    z = torch.zeros(3, 4, requires_grad=True)
    value = spec.pairwise(*spec.prepare(z, torch.eye(4))).sum()
    assert value == 0
    assert torch.autograd.grad(value, z)[0].isfinite().all()


# --- negative sampling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise, n_negatives", [(0.0, 5.0), (1.0, 5.0), (0.25, 1.0)])
def test_negative_sampling_tells_pairs_apart(noise, n_negatives, z):
    """-log v of pairs, and -m mean log(1 - v) over drawn rows, v = k / (k + c)."""
    spec = NegativeSampling(StudentT(), n_negatives, noise)
    rows = torch.as_tensor(z)
    log_v = spec.pairwise(rows, rows)
    told = [[1 / (1 + sq_distance(a, b)) for b in z] for a in z]
    told = [[k / (k + noise) if noise else k for k in row] for row in told]
    assert_allclose(log_v.exp(), told, rtol=1e-9)
    assert_allclose(spec.paired(rows, rows.flip(0)).exp(), np.diag(np.fliplr(told)), rtol=1e-12)
    off = log_v.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    expected = [
        -n_negatives * sum(log(1 - 0.999 * v) for j, v in enumerate(row) if j != i) / (len(z) - 1)
        for i, row in enumerate(told)
    ]
    assert_allclose(spec.log_partition(off, len(z) - 1), expected, rtol=1e-9)


def test_tail_of_umap_learn():
    umap = pytest.importorskip("umap.umap_", reason="a peer of the benchmarks")
    for min_dist, spread in [(0.1, 1.0), (0.5, 2.0), (0.0, 0.5)]:
        assert_allclose(Rational(min_dist, spread).tail, umap.find_ab_params(spread, min_dist), rtol=1e-6)


@pytest.mark.parametrize("spread", [1e-3, 0.5, 100.0])
def test_the_tail_scales_with_the_spread(spread):
    """Fitted to its last digits, of 1e-3 as well, where a fit of other units ended at powers of no sense."""
    a, b = Rational(0.1 * spread, spread).tail
    assert_allclose((a * spread ** (2 * b), b), Rational().tail, rtol=1e-12)
