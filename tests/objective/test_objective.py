from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from covering import covering
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.manifold._t_sne import _kl_divergence

from sklearn_icon._core.conditional import Conditional
from sklearn_icon._objective import attraction as _edges
from sklearn_icon._objective import normalizers as _sums
from sklearn_icon._objective import objective as _objective
from sklearn_icon._objective.divergences import DIVERGENCES
from sklearn_icon._objective.objective import Objective
from sklearn_icon._objective.ways import can_interpolate
from sklearn_icon.learned import (
    Gaussian,
    Harmonic,
    NarrowGaussian,
    SharedCluster,
    StudentT,
    UniformMixture,
    WideGaussian,
)
from sklearn_icon.supervisory import Counts, CrossModalPairs, DataLabel, Identity, PositivePairs, SameClass, UniformKNN
from sklearn_icon.supervisory import Gaussian as GaussianP
from sklearn_icon.supervisory import UniformMixture as UniformMixtureP

N, M, DIM = 6, 4, 3


# --- oracle: a double loop over pairs -----------------------------------------------------------------------------


def x_log_x_over_y(x, y):
    return x * log(x / y) if x else 0.0


TERMS = {
    "kl": lambda p, q: x_log_x_over_y(p, q),
    "reverse_kl": lambda p, q: x_log_x_over_y(q, p),
    "jensen_shannon": lambda p, q: (x_log_x_over_y(p, (p + q) / 2) + x_log_x_over_y(q, (p + q) / 2)) / 2,
    "total_variation": lambda p, q: abs(p - q) / 2,
    "squared_hellinger": lambda p, q: (sqrt(p) - sqrt(q)) ** 2 / 2,
}


def sq_distance(a, b):
    return sum((s - t) ** 2 for s, t in zip(a, b, strict=True))


def dot(a, b):
    return sum(s * t for s, t in zip(a, b, strict=True))


def cosine(a, b):
    return dot(a, b) / sqrt(dot(a, a) * dot(b, b))


def pair_matrix(function, z, keys):
    return np.array([[function(a, b) for b in keys.tolist()] for a in z.tolist()])


def softmax(z):
    return np.array([[exp(v) / sum(exp(w) for w in row) for v in row] for row in z.tolist()])


def shared_cluster(z, keys, degrees):
    phi, phi_keys = softmax(z), softmax(keys) * np.reshape(degrees, (-1, 1))
    return phi @ (phi_keys / phi_keys.sum(axis=0)).T


KERNELS = {
    "gaussian": (Gaussian(sigma=0.8), lambda a, b: exp(-sq_distance(a, b) / (2 * 0.8**2))),
    "cosine": (Gaussian(metric="cosine", tau=0.5), lambda a, b: exp(cosine(a, b) / 0.5)),
    "dot": (Gaussian(metric="dot"), lambda a, b: exp(dot(a, b))),
    "student-0.5": (StudentT(df=0.5), lambda a, b: (1 + sq_distance(a, b) / 0.5) ** -0.75),
    "student-1": (StudentT(), lambda a, b: 1 / (1 + sq_distance(a, b))),
    "student-5": (StudentT(df=5.0), lambda a, b: (1 + sq_distance(a, b) / 5) ** -3),
    "harmonic": (Harmonic(n=2.0), lambda a, b: max(sq_distance(a, b), 1e-12) ** -2),
}
LEARNED = {
    **{name: spec for name, (spec, _) in KERNELS.items()},
    "cluster": SharedCluster(),
    "cluster-degree": SharedCluster(weights="degree"),
    "mixture-student-1": UniformMixture(StudentT(), 0.4),
    "mixture-cosine": UniformMixture(KERNELS["cosine"][0], 0.4),
    "mixture-cluster": UniformMixture(SharedCluster(), 0.4),
}


def naive_q(name, z, keys, is_key, joint, degrees):
    """q over pairs, rows or the whole matrix summing to one over the keys."""
    plain = name.removeprefix("mixture-")
    if plain.startswith("cluster"):
        q = shared_cluster(z, keys, degrees if plain == "cluster-degree" else np.ones(len(keys)))
        q = q / len(z) if joint else q
    else:
        q = pair_matrix(KERNELS[plain][1], z, keys) * is_key
        q = q / q.sum(axis=None if joint else 1, keepdims=True)
    if name.startswith("mixture-"):
        q = 0.6 * q + 0.4 * is_key / (is_key.sum() if joint else is_key.sum(axis=1, keepdims=True))
    return q


def naive_p(weights, is_key, uniform, joint, sample_weight):
    """(p over pairs, what each row counts), from rows of weights that sum to one or zero."""
    mass = np.array([w if any(row) else 0.0 for w, row in zip(sample_weight, weights, strict=True)])
    mass = mass / mass.sum()
    if not joint:
        return (1 - uniform) * weights + uniform * is_key / is_key.sum(axis=1, keepdims=True), mass
    together = np.array([[(mass[i] * weights[i, j] + mass[j] * weights[j, i]) / 2 for j in range(N)] for i in range(N)])
    return (1 - uniform) * together + uniform * is_key / is_key.sum(), np.ones(N)


def naive_shares(p, q, is_key, mass, divergence):
    """The share of each row in L: a sum over its keys."""
    shares = np.zeros(len(p))
    for i in range(len(p)):
        for j in range(p.shape[1]):
            if is_key[i, j]:
                shares[i] += mass[i] * TERMS[divergence](p[i, j], q[i, j])
    return shares


# --- cases --------------------------------------------------------------------------------------------------------


def make_p():
    """p of each kind: (Conditional, whether keys are other items than the rows)."""
    rng = np.random.default_rng(0)
    some = rng.uniform(size=(N, N)) * (rng.uniform(size=(N, N)) < 0.5)
    some[2] = 0
    rectangular = rng.uniform(size=(N, M)) * (rng.uniform(size=(N, M)) < 0.6)
    full = rng.uniform(0.1, 1, size=(N, N))
    return {
        "some": (Conditional.from_weights(some, exclude_self=True), False),
        "some-self": (Conditional.from_weights(some + 0.5 * np.eye(N)), False),
        "all-others": (Conditional.from_weights(full, exclude_self=True), False),
        "all": (Conditional.from_weights(full), False),
        "other-keys": (Conditional.from_weights(rectangular), True),
        "identity": (Identity().conditional(np.zeros((N, 1))), False),
    }


P_KINDS = make_p()


def is_allowed(kind, name, divergence, joint, uniform):
    if joint and kind == "other-keys":
        return False
    if divergence != "reverse_kl" or uniform:
        return True
    includes_self = "cluster" in name
    return kind == "all" or (kind == "all-others" and not includes_self)


@pytest.fixture
def z():
    return np.random.default_rng(1).normal(size=(N, DIM))


@pytest.fixture
def prototypes():
    return np.random.default_rng(2).normal(size=(M, DIM))


def tensor(array, requires_grad=False, dtype=torch.float64):
    return torch.tensor(array, dtype=dtype, requires_grad=requires_grad)


# --- the value, for all combinations of three parameters --------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, name, divergence, normalization",
    covering(P_KINDS, LEARNED, DIVERGENCES, ["conditional", "joint"], strength=3),
)
def test_equals_a_double_loop(kind, name, divergence, normalization, z, prototypes):
    joint = normalization == "joint"
    base, keys_differ = P_KINDS[kind]
    keys, degrees = (prototypes, np.linspace(1, 2, M)) if keys_differ else (z, base.degrees)
    degrees = np.ones(N) if degrees is None else degrees
    given = (tensor(keys), tensor(degrees)) if keys_differ else ()
    if not all(degrees):  # a key without degree has no q, where a debiased KL is infinite
        degrees = degrees + 0.1
        given = (None, tensor(degrees))
    options = {"divergence": divergence, "normalization": normalization}
    for uniform in (0.0, 0.3):
        p = base.mix(uniform)
        if not is_allowed(kind, name, divergence, joint, uniform):
            with pytest.raises(
                ValueError, match=r"normalization='joint' needs|infinite where p is zero; set debias > 0"
            ):
                Objective(p, LEARNED[name], **options)
            continue
        is_key = np.ones(p.shape) - (np.eye(N) if p.exclude_self and "cluster" not in name else 0)
        q = naive_q(name, z, keys, is_key, joint, degrees)
        assert_allclose(q.sum(axis=None if joint else 1), 1, rtol=1e-12)
        # With weights, the uniform part of a joint p still covers all pairs evenly.
        for sample_weight in (None, np.linspace(0.5, 2, N)):
            objective = Objective(p, LEARNED[name], sample_weight=sample_weight, **options)
            weight = np.ones(N) if sample_weight is None else sample_weight
            pairs, mass = naive_p(p.weights.toarray(), is_key, uniform, joint, weight)
            shares = naive_shares(pairs, q, is_key, mass, divergence)
            value = objective(tensor(z), *given)
            assert value.shape == ()
            assert_allclose(value, shares.sum(), rtol=1e-10, atol=1e-14)
            assert_allclose(objective.per_row(tensor(z), *given), shares, rtol=1e-9, atol=1e-13)
            constant = sum(m * x_log_x_over_y(x, 1) for m, row in zip(mass, pairs, strict=True) for x in row)
            assert_allclose(objective.constant, constant, rtol=1e-12, atol=1e-14)
            if objective.is_plain_kl:
                attraction, repulsion = objective.terms(tensor(z), *given)
                assert_allclose(attraction + repulsion, shares.sum() - constant, rtol=1e-10, atol=1e-14)
            if objective.is_plain_kl and not given:
                rows = tensor(z, requires_grad=True)
                loss, gradient = objective.gradient(rows, 12.0)
                assert_allclose(loss, shares.sum(), rtol=1e-10, atol=1e-14)
                attraction, repulsion = objective.terms(rows)
                (expected,) = torch.autograd.grad(12 * attraction + repulsion, rows)
                assert_allclose(gradient, expected, rtol=1e-9, atol=1e-13)
                assert_allclose(objective.gradient(rows, 12.0, with_value=False)[1], gradient, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name, divergence, normalization", covering(LEARNED, DIVERGENCES, ["conditional", "joint"]))
def test_single_precision_agrees(name, divergence, normalization, z):
    p = P_KINDS["some-self"][0].mix(0.3)
    options = {"divergence": divergence, "normalization": normalization}
    double = Objective(p, LEARNED[name], **options)(tensor(z))
    single = Objective(p, LEARNED[name], dtype=torch.float32, **options)(tensor(z, dtype=torch.float32))
    assert single.dtype == torch.float32
    assert_allclose(single, double, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["some", "some-self", "other-keys"])
@pytest.mark.parametrize("name", list(LEARNED))
def test_tiles_do_not_matter(monkeypatch, name, kind, z, prototypes):
    base, keys_differ = P_KINDS[kind]
    keys = (tensor(prototypes),) if keys_differ else ()
    for divergence, normalization, uniform in [
        ("kl", "conditional", 0.0), ("kl", "joint", 0.0), ("jensen_shannon", "conditional", 0.3),
        ("reverse_kl", "joint", 0.3),
    ]:  # fmt: skip
        if keys_differ and normalization == "joint":
            continue
        objective = Objective(base.mix(uniform), LEARNED[name], divergence=divergence, normalization=normalization)
        results = []
        for elements in (1 << 18, 2 * N + 1, 1):
            monkeypatch.setattr(_sums, "_TILE_ELEMENTS", elements)
            rows = tensor(z, requires_grad=True)
            value = objective(rows, *keys)
            results.append((value.item(), torch.autograd.grad(value, rows)[0]))
        for value, gradient in results[1:]:
            assert_allclose(value, results[0][0], rtol=1e-12)
            assert_allclose(gradient, results[0][1], rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize(
    ("divergence", "uniform"), [("kl", 0.0), ("kl", 0.3), ("jensen_shannon", 0.0), ("reverse_kl", 0.3)]
)
@pytest.mark.parametrize("kind", ["some", "other-keys"])
def test_rows_in_parts_by_threads_have_what_they_have_in_one(monkeypatch, kind, divergence, uniform, z, prototypes):
    base, keys_differ = P_KINDS[kind]
    inputs = [tensor(z, requires_grad=True), *([tensor(prototypes)] if keys_differ else [])]
    objective = Objective(base.mix(uniform), StudentT(), divergence=divergence)
    whole, torch_threads, in_parts = objective.per_row(*inputs), torch.get_num_threads(), []
    for most in (1, 5, 1000):
        monkeypatch.setattr(_objective, "_EDGES_OF_A_VALUE", most)
        with torch.no_grad():
            in_parts.append(objective.per_row(*inputs))
    for parts in in_parts:
        assert not parts.requires_grad
        assert_allclose(parts, whole.detach(), rtol=1e-12)
    assert torch.get_num_threads() == torch_threads
    assert objective.per_row(*inputs).requires_grad


@pytest.mark.parametrize("normalization", ["conditional", "joint"])
@pytest.mark.parametrize("kind", ["some", "some-self"])
@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_sparse_and_dense_edges_agree(monkeypatch, fraction, kind, normalization, z):
    monkeypatch.setattr(_edges, "_DENSE", fraction)
    base, _ = P_KINDS[kind]
    objective = Objective(base, StudentT(), normalization=normalization, n_components=3)
    assert type(objective.edges) is (_edges.SparseEdges if fraction else _edges.DenseEdges)
    assert_allclose(objective(tensor(z)), objective.per_row(tensor(z)).sum(), rtol=1e-12)
    assert torch.autograd.gradcheck(objective, tensor(z, requires_grad=True))


@pytest.mark.parametrize("normalization", ["conditional", "joint"])
def test_repulsion_that_stands(normalization, z):
    objective = Objective(P_KINDS["some"][0], StudentT(), normalization=normalization, n_components=3)
    here, there = tensor(z, requires_grad=True), tensor(z + 0.1 * z**2, requires_grad=True)
    fresh = objective.gradient(there, refresh=False)[1]  # there is none before the first
    (repulsion,) = torch.autograd.grad(objective.terms(here)[1], here)
    (attraction,) = torch.autograd.grad(objective.terms(there)[0], there)
    objective.gradient(here)
    stale = objective.gradient(there, exaggeration=3.0, with_value=False, refresh=False)[1]
    assert_allclose(stale, 3 * attraction + repulsion, rtol=1e-9, atol=1e-13)
    assert_allclose(objective.gradient(there)[1], fresh, rtol=1e-12)
    assert abs(fresh - attraction - repulsion).max() > 1e-4


# --- gradients ----------------------------------------------------------------------------------------------------

COMBINATIONS = [
    *[("some", name, "kl", "conditional", 0.0) for name in LEARNED],
    *[("some", name, "kl", "joint", 0.0) for name in LEARNED],
    *[("some", "student-1", divergence, "joint", 0.3) for divergence in DIVERGENCES],
    *[("some", "gaussian", divergence, "conditional", 0.3) for divergence in DIVERGENCES],
    *[("all-others", "student-5", divergence, "conditional", 0.0) for divergence in DIVERGENCES],
    *[("all", "cluster", divergence, "conditional", 0.0) for divergence in DIVERGENCES],
    *[("some", "mixture-cluster", divergence, "conditional", 0.3) for divergence in DIVERGENCES],
    ("some-self", "student-1", "kl", "joint", 0.0),
    ("some-self", "gaussian", "kl", "conditional", 0.0),
    ("identity", "gaussian", "kl", "conditional", 0.0),
]


@pytest.mark.parametrize(("kind", "name", "divergence", "normalization", "uniform"), COMBINATIONS)
def test_gradients(monkeypatch, kind, name, divergence, normalization, uniform, z):
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", 4 * N)
    p = P_KINDS[kind][0].mix(uniform)
    weight = np.linspace(0.5, 2, N)
    objective = Objective(p, LEARNED[name], divergence=divergence, normalization=normalization, sample_weight=weight)
    assert torch.autograd.gradcheck(objective, tensor(z, requires_grad=True))


@pytest.mark.parametrize("name", list(LEARNED))
@pytest.mark.parametrize("divergence", ["kl", "total_variation"])
def test_gradients_of_prototypes(name, divergence, z, prototypes):
    p, _ = P_KINDS["other-keys"]
    objective = Objective(p.mix(0.1), LEARNED[name], divergence=divergence)
    inputs = (tensor(z, requires_grad=True), tensor(prototypes, requires_grad=True))
    assert torch.autograd.gradcheck(objective, inputs)
    plain = Objective(p, LEARNED[name], divergence=divergence)
    assert torch.autograd.gradcheck(plain, inputs)


@pytest.mark.parametrize("spec", [WideGaussian(), NarrowGaussian()])
def test_gradients_of_limits(spec, z):
    objective = Objective(P_KINDS["some"][0], spec)
    assert torch.autograd.gradcheck(objective, tensor(z, requires_grad=True))
    assert torch.autograd.gradcheck(objective.per_row, tensor(z, requires_grad=True))


# --- published methods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("df", [1.0, 0.5, 3.0])
def test_t_sne_is_that_of_scikit_learn(df):
    """The gradient too at one degree of freedom; elsewhere that of scikit-learn is another kernel's."""
    rng = np.random.default_rng(3)
    X, z = rng.normal(size=(15, 4)), rng.normal(size=(15, 2))
    p = GaussianP(perplexity=5.0).conditional(X)
    rows = tensor(z, requires_grad=True)
    value = Objective(p, StudentT(df=df), normalization="joint")(rows)
    value.backward()
    joint = (p.toarray() + p.toarray().T) / 30
    expected, gradient = _kl_divergence(z.ravel(), joint[np.triu_indices(15, 1)], df, 15, 2)
    assert_allclose(value.item(), expected, rtol=1e-12)
    if df == 1:
        assert_allclose(rows.grad.numpy().ravel(), gradient, rtol=1e-9, atol=1e-15)


def test_gradient_of_sne(z):
    """2 sum_j (f_i - f_j)(p_j|i - q_j|i + p_i|j - q_i|j), for the sum over i and q ~ exp(-d^2)."""
    p = GaussianP(perplexity=3.0).conditional(np.random.default_rng(4).normal(size=(N, 5)))
    is_key = 1 - np.eye(N)
    kernel = pair_matrix(lambda a, b: exp(-sq_distance(a, b)), z, z) * is_key
    P, Q = p.toarray(), kernel / kernel.sum(axis=1, keepdims=True)
    expected = np.zeros(z.shape)
    for i in range(N):
        for j in range(N):
            expected[i] += 2 * (z[i] - z[j]) * (P[i, j] - Q[i, j] + P[j, i] - Q[j, i])
    rows = tensor(z, requires_grad=True)
    Objective(p, Gaussian(sigma=1 / sqrt(2)))(rows).backward()
    assert_allclose(N * rows.grad, expected, rtol=1e-10)


def test_pca_is_the_limit_of_a_wide_gaussian(z):
    """s^2 (L - log n) -> -2 Var at rate 1 / s^2."""
    p = Identity().conditional(z)
    variance = sum(sq_distance(row, z.mean(axis=0)) for row in z) / N
    limit = Objective(p, WideGaussian())
    assert_allclose(limit(tensor(z)), -2 * variance, rtol=1e-12)
    errors = [
        s**2 * (Objective(p, Gaussian(sigma=s / sqrt(2)))(tensor(z)).item() - log(N)) + 2 * variance for s in (50, 100)
    ]
    assert abs(errors[0]) < 0.02
    assert_allclose(errors[0] / errors[1], 4, rtol=1e-2)


def test_vicreg_without_covariance(z):
    """mean |f_i - f_i+|^2 - mean_j d_ij^2, whose last term is 2 Var n / (n - 1) over the other rows."""
    p = PositivePairs().conditional(z, [0, 0, 1, 1, 2, 2])
    attraction = sum(sq_distance(z[i], z[i ^ 1]) for i in range(N)) / N
    variance = sum(sq_distance(row, z.mean(axis=0)) for row in z) / N
    assert_allclose(Objective(p, WideGaussian())(tensor(z)), attraction - 2 * variance * N / (N - 1), rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_triplet_is_the_limit_of_a_narrow_gaussian(seed):
    """s^2 L(s) - s^2 log 2 <= triplet <= s^2 L(s), one positive and one negative key."""
    anchor, positive, negative = np.random.default_rng(seed).normal(size=(3, DIM))
    p = Conditional(sparse.csr_array([[1.0, 0.0]]))
    z, keys = tensor(anchor[None]), tensor(np.stack([positive, negative]))
    triplet = max(0.0, sq_distance(anchor, positive) - sq_distance(anchor, negative))
    assert_allclose(Objective(p, NarrowGaussian())(z, keys), triplet, rtol=1e-12, atol=1e-14)
    for s in (1.0, 0.3, 0.01):
        scaled = s**2 * Objective(p, Gaussian(sigma=s / sqrt(2)))(z, keys).item()
        assert scaled - s**2 * log(2) - 1e-12 <= triplet <= scaled + 1e-12


def test_narrow_limit_over_many_keys(z):
    p, _ = P_KINDS["some"]
    P = p.toarray()
    D = pair_matrix(sq_distance, z, z)
    expected = [P[i] @ D[i] - min(D[i, j] for j in range(N) if j != i) for i in range(N) if P[i].any()]
    assert_allclose(Objective(p, NarrowGaussian())(tensor(z)), np.mean(expected), rtol=1e-12)


LIMITS = {"wide": (WideGaussian(), lambda d: sum(d) / len(d)), "narrow": (NarrowGaussian(), min)}
each_kind = pytest.mark.parametrize("kind", [*P_KINDS, "moving-keys"])
each_limit = pytest.mark.parametrize("spec, repelled", LIMITS.values(), ids=LIMITS)


def limit_case(kind, z, prototypes):
    """(p, representations): rows, and keys where these are prototypes or the rows as they were."""
    p, keys_differ = P_KINDS["some" if kind == "moving-keys" else kind]
    moved = [z + 0.3 * z**2] if kind == "moving-keys" else []
    return p, [tensor(part, requires_grad=True) for part in (z, *([prototypes] if keys_differ else moved))]


def naive_limit(p, z, keys, repelled, alpha):
    """mean_i sum_j p~_ij d_ij^2 - the mean, or the least, d_ij^2, over rows with a positive and the keys of each."""
    weights, total, n_counted = p.weights.toarray(), 0.0, 0
    for i in range(len(z)):
        if weights[i].any():
            d = {j: (z[i] - keys[j]).square().sum() for j in range(len(keys)) if not (p.exclude_self and j == i)}
            pulls = [((1 - alpha) * weights[i, j] + alpha / len(d)) * d[j] for j in d]
            total, n_counted = total + sum(pulls) - repelled(list(d.values())), n_counted + 1
    return total / n_counted


@pytest.mark.parametrize(
    "limit, kind, alpha, elements", covering(LIMITS, [*P_KINDS, "moving-keys"], [0.3, 0.9], [1 << 18, 1])
)
def test_debiased_limits(monkeypatch, limit, kind, alpha, elements, z, prototypes):
    spec, repelled = LIMITS[limit]
    monkeypatch.setattr(_sums, "_TILE_ELEMENTS", elements)
    p, inputs = limit_case(kind, z, prototypes)
    expected = naive_limit(p, inputs[0], inputs[-1], repelled, alpha)
    objective = Objective(p.mix(alpha), spec)
    value = objective(*inputs)
    assert_allclose(value.item(), expected.item(), rtol=1e-10, atol=1e-13)
    assert_allclose(objective.per_row(*inputs).sum().item(), expected.item(), rtol=1e-10, atol=1e-13)
    for ours, theirs in zip(*(torch.autograd.grad(loss, inputs) for loss in (value, expected)), strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(objective, inputs)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@each_kind
@each_limit
def test_finite_widths_tend_to_debiased_limits(spec, repelled, kind, alpha, z, prototypes):
    """The error of s^2 (L(s) - log N) falls as 1 / s^2; s^2 L(s) is the narrow limit as soon as the nearest key rules.

    The entropy of p is no part of either.
    """
    p, inputs = limit_case(kind, z, prototypes)
    p, wide, errors = p.mix(alpha), isinstance(spec, WideGaussian), []
    limit = Objective(p, spec)(*inputs).item()
    for s in (50.0, 100.0) if wide else (0.04, 0.02):
        of_width = Objective(p, Gaussian(sigma=s / sqrt(2)))
        value = of_width(*inputs).item() - of_width.constant
        errors.append(s**2 * (value - log(p.n_choices) * wide) - limit)
    if wide:
        assert_allclose(errors[0] / errors[1], 4, rtol=2e-2)
    else:
        assert_allclose(errors, 0, atol=1e-12)


@each_kind
def test_debiasing_scales_the_wide_limit(kind, z, prototypes):
    p, inputs = limit_case(kind, z, prototypes)
    plain, debiased = (Objective(p.mix(alpha), WideGaussian())(*inputs).item() for alpha in (0.0, 0.3))
    assert_allclose(debiased, 0.7 * plain, rtol=1e-12)


def test_nt_xent(z):
    groups, similarity = [0, 1, 2, 0, 1, 2], pair_matrix(cosine, z, z) / 0.2
    similarity[np.diag_indices(N)] = -np.inf
    expected = torch.nn.functional.cross_entropy(tensor(similarity), torch.tensor([3, 4, 5, 0, 1, 2]))
    p = PositivePairs().conditional(z, groups)
    assert_allclose(Objective(p, Gaussian(metric="cosine", tau=0.2))(tensor(z)), expected, rtol=1e-12)


def test_supervised_contrastive(z):
    labels, similarity = [0, 0, 0, 1, 1, 2], pair_matrix(cosine, z, z) / 0.2
    losses = []
    for i in range(5):  # the last row is alone in its class
        positives = [j for j in range(N) if j != i and labels[j] == labels[i]]
        log_sum = log(sum(exp(similarity[i, j]) for j in range(N) if j != i))
        losses.append(-sum(similarity[i, j] - log_sum for j in positives) / len(positives))
    objective = Objective(SameClass().conditional(z, labels), Gaussian(metric="cosine", tau=0.2))
    value = objective(tensor(z)) - objective.constant
    assert_allclose(value, np.mean(losses), rtol=1e-12)
    assert_allclose(objective.constant, -(3 * log(2)) / 5, rtol=1e-14)


def test_clip(z):
    other = np.random.default_rng(5).normal(size=(N, DIM))
    logits = tensor(pair_matrix(cosine, z, other) / 0.1)
    pairs, objectives = (
        torch.arange(N),
        Objective(CrossModalPairs().conditional(z, other), Gaussian(metric="cosine", tau=0.1)),
    )
    cross_entropy = torch.nn.functional.cross_entropy
    both_ways = objectives(tensor(z), tensor(other)) + objectives(tensor(other), tensor(z))
    assert_allclose(both_ways, cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs), rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_label_smoothing(z, prototypes, smoothing):
    labels = np.array([0, 3, 1, 2, 3, 3])
    p = UniformMixtureP(DataLabel(), smoothing).conditional(z, labels)
    objective = Objective(p, Gaussian(metric="dot"))
    expected = torch.nn.functional.cross_entropy(
        tensor(z @ prototypes.T), torch.as_tensor(labels), label_smoothing=smoothing
    )
    value = objective(tensor(z), tensor(prototypes)) - objective.constant
    assert_allclose(value, expected, rtol=1e-12)


def test_cross_entropy_of_counts(prototypes):
    z, counts = np.random.default_rng(6).normal(size=(2, DIM)), np.array([[3, 0, 1, 0], [1, 1, 1, 5]])
    logits = z @ prototypes.T
    log_q = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p = Counts().conditional(z, counts)
    objective = Objective(p, Gaussian(metric="dot"), sample_weight=counts.sum(axis=1))
    value = objective(tensor(z), tensor(prototypes)) - objective.constant
    assert_allclose(value, -(counts * log_q).sum() / counts.sum(), rtol=1e-12)


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_k_means_identity(s):
    """sum_i KL(q_i || p_i) = J / s^2 - sum_i H(q_i) + sum_i log Z_i, self included."""
    rng = np.random.default_rng(7)
    X, logits = rng.normal(size=(N, 2)), rng.normal(size=(N, 3))
    phi = softmax(logits)
    centres = (phi.T @ X) / phi.sum(axis=0)[:, None]
    inertia = sum(phi[i, c] * sq_distance(X[i], centres[c]) for i in range(N) for c in range(3))
    affinities = pair_matrix(lambda a, b: exp(-sq_distance(a, b) / (2 * s**2)), X, X)
    q = shared_cluster(logits, logits, np.ones(N))
    expected = inertia / s**2 + (q * np.log(q)).sum() + np.log(affinities.sum(axis=1)).sum()
    objective = Objective(Conditional.from_weights(affinities), SharedCluster(), divergence="reverse_kl")
    assert_allclose(N * objective(tensor(logits)), expected, rtol=1e-12)


# --- the average --------------------------------------------------------------------------------------------------


def test_rows_without_positives_take_no_part(z):
    p, _ = P_KINDS["some"]
    assert_array_equal(p.has_positives, np.arange(N) != 2)
    shares = Objective(p, StudentT()).per_row(tensor(z))
    assert shares[2] == 0
    weights = np.ones(N)
    weights[2] = 1e6
    for divergence, uniform in (("kl", 0.0), ("total_variation", 0.0), ("reverse_kl", 0.3)):
        options = {"divergence": divergence}
        plain = Objective(p.mix(uniform), StudentT(), **options)(tensor(z))
        assert_allclose(
            Objective(p.mix(uniform), StudentT(), sample_weight=weights, **options)(tensor(z)), plain, rtol=1e-12
        )
        assert Objective(p.mix(uniform), StudentT(), **options).per_row(tensor(z))[2] == 0


def test_weights_count_rows_more_than_once(z):
    p, _ = P_KINDS["all-others"]
    D = Objective(p, StudentT()).per_row(tensor(z)).numpy() * N
    weight = np.array([1.0, 0, 2, 0, 0, 3])
    value = Objective(p, StudentT(), sample_weight=weight)(tensor(z))
    assert_allclose(value, (D[0] + 2 * D[2] + 3 * D[5]) / 6, rtol=1e-12)


@pytest.mark.parametrize("normalization", ["conditional", "joint"])
def test_loss_is_zero_where_q_equals_p(z, normalization):
    kernel = pair_matrix(lambda a, b: 1 / (1 + sq_distance(a, b)), z, z) * (1 - np.eye(N))
    rows = kernel / kernel.sum(axis=1, keepdims=True)
    # A joint p that equals the joint q: rows weighted by their share of the kernel, which is symmetric.
    weight = kernel.sum(axis=1) if normalization == "joint" else None
    for divergence in DIVERGENCES:
        p = Conditional.from_weights(rows, exclude_self=True)
        options = {"divergence": divergence, "normalization": normalization, "sample_weight": weight}
        assert_allclose(Objective(p, StudentT(), **options)(tensor(z)), 0, atol=1e-15)
        assert Objective(p, StudentT(), **options)(2 * tensor(z)) > 1e-3


# --- what stands for all keys in a batch --------------------------------------------------------------------------


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("divergence", ["kl", "jensen_shannon"])
@pytest.mark.parametrize("n_background", [1, 3, 5, 12, 20])
def test_background_keys_stand_for_all(monkeypatch, divergence, exclude_self, n_background, z):
    keys = np.concatenate([z, np.random.default_rng(8).normal(size=(N, DIM))])
    weights = np.concatenate([np.zeros((N, N)), np.eye(N)], axis=1)
    p = Conditional(sparse.csr_array(weights), uniform=0.3, exclude_self=exclude_self)
    objective = Objective(p, StudentT(), divergence=divergence, background_keys=n_background)
    is_key = np.ones((N, 2 * N))
    is_key[:, :N] -= exclude_self * np.eye(N)
    q = naive_q("student-1", z, keys, is_key, False, None)
    background = 0.3 / (2 * N - exclude_self)
    expected = 0.0
    for i in range(N):
        positive = q[i, N + i]
        expected += TERMS[divergence](0.7 + background, positive) - TERMS[divergence](background, positive)
        counted = [j for j in range(2 * N)[-n_background:] if is_key[i, j]]
        scale = 1 if n_background >= 2 * N else (2 * N - exclude_self) / n_background
        expected += scale * sum(TERMS[divergence](background, q[i, j]) for j in counted)
    for elements in (1 << 18, 1):
        monkeypatch.setattr(_sums, "_TILE_ELEMENTS", elements)
        assert_allclose(objective(tensor(z), tensor(keys)), expected / N, rtol=1e-12)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [WideGaussian(), NarrowGaussian()])
@pytest.mark.parametrize(
    ("options", "uniform"),
    [
        *[({"divergence": name}, 0.0) for name in DIVERGENCES if name != "kl"],
        ({"normalization": "joint"}, 0.0),
        ({"normalization": "joint"}, 0.3),
    ],
)
def test_a_limit_goes_with_conditional_kl_only(spec, options, uniform):
    message = r"Gaussian\(\) is the limit of a conditional KL loss and no distribution; use it with divergence='kl' "
    with pytest.raises(ValueError, match=message + "and normalization='conditional', or choose"):
        Objective(P_KINDS["all-others"][0].mix(uniform), spec, **options)


def test_reverse_kl_needs_p_everywhere():
    X = np.arange(N)[:, None] * 1.0
    message = "divergence='reverse_kl' is infinite where p is zero; set debias > 0"
    with pytest.raises(ValueError, match=message):
        Objective(UniformKNN(n_neighbors=2).conditional(X), Gaussian(), divergence="reverse_kl")
    with pytest.raises(ValueError, match=message):
        Objective(GaussianP(sigma=1.0).conditional(X), SharedCluster(), divergence="reverse_kl")
    p = GaussianP(sigma=0.3).conditional(X)  # positive in double precision only
    assert p.weights.nnz == N * (N - 1)
    assert torch.isfinite(Objective(p, Gaussian(), divergence="reverse_kl")(tensor(X)))
    with pytest.raises(ValueError, match=message):
        Objective(p, Gaussian(), divergence="reverse_kl", dtype=torch.float32)


@pytest.mark.parametrize("sample_weight", [None, np.zeros(3)])
@pytest.mark.parametrize("normalization", ["conditional", "joint"])
def test_no_positive_at_all(sample_weight, normalization):
    p = SameClass().conditional(np.zeros((3, 1)), [0, 1, 2] if sample_weight is None else [0, 0, 0])
    with pytest.raises(ValueError, match=r"no row has a positive: every p\(.\|i\) is empty"):
        Objective(p, StudentT(), normalization=normalization, sample_weight=sample_weight)


def test_what_a_grid_can_sum():
    others, with_self = P_KINDS["some"][0], P_KINDS["identity"][0]
    assert can_interpolate(others, StudentT(), 2)
    assert can_interpolate(others, Gaussian(), 1)
    assert not can_interpolate(others, StudentT(), 3)
    assert not can_interpolate(with_self, StudentT(), 2)  # a grid sums over the other rows
    assert not can_interpolate(others.mix(0.1), StudentT(), 2)
    for spec in (Gaussian(metric="cosine"), Harmonic(), WideGaussian(), UniformMixture(StudentT(), 0.1)):
        assert not can_interpolate(others, spec, 2)


# --- extremes -----------------------------------------------------------------------------------------------------

EXTREMES = {
    "far-apart": np.array([[0.0, 0], [1e3, 0], [0, 2e3], [-4e3, 1e3], [3e3, 3e3]]),
    "one-far": np.array([[0.0, 0], [1, 0], [0, 2], [1, 1], [1e6, 1e6]]),
    "equal": np.ones((5, 2)),
    "tiny": 1e-18 * np.arange(10.0).reshape(5, 2),
    "huge": 1e12 * np.array([[0.0, 1], [3, 0], [1, 5], [2, 2], [7, 1]]),
    "two": np.array([[0.0, 0], [1e3, 1e3]]),
    "two-equal": np.zeros((2, 2)),
}


@pytest.mark.parametrize(
    "extreme, name, normalization, dtype",
    covering(EXTREMES, LEARNED, ["conditional", "joint"], [torch.float32, torch.float64]),
)
def test_extreme_places_stay_finite(extreme, name, normalization, dtype):
    places = EXTREMES[extreme]
    if name == "dot" and extreme == "huge":
        places = 1e-6 * places
    n = len(places)
    p = UniformKNN(n_neighbors=min(2, n - 1)).conditional(np.random.default_rng(9).normal(size=(n, 3)))
    for divergence, uniform in (("kl", 0.0), ("kl", 0.3), ("jensen_shannon", 0.0), ("total_variation", 0.3)):
        z = tensor(places, requires_grad=True, dtype=dtype)
        objective = Objective(
            p.mix(uniform), LEARNED[name], divergence=divergence, normalization=normalization, dtype=dtype
        )
        value = objective(z)
        value.backward()
        assert torch.isfinite(value), (divergence, uniform)
        assert torch.isfinite(z.grad).all(), (divergence, uniform)
        rounding = 1e-5  # and that of two large terms, whose difference plain KL is
        if objective.is_plain_kl:
            rounding += 4 * torch.finfo(dtype).eps * abs(objective.terms(z)[0].item())
        assert value > -rounding
        assert_allclose(objective.per_row(z).sum().item(), value.item(), rtol=1e-4, atol=rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", [WideGaussian(), NarrowGaussian()])
@pytest.mark.parametrize("extreme", list(EXTREMES))
def test_limits_at_extreme_places_stay_finite(extreme, spec, dtype):
    places = EXTREMES[extreme]
    p = UniformKNN(n_neighbors=1).conditional(np.random.default_rng(9).normal(size=(len(places), 3)))
    z = tensor(places, requires_grad=True, dtype=dtype)
    objective = Objective(p, spec, dtype=dtype)
    value = objective(z)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(z.grad).all()
    scale = max(1.0, float(np.square(places).sum()))
    assert_allclose(objective.per_row(z).sum().item() / scale, value.item() / scale, rtol=0, atol=1e-6)


def test_far_apart_gaussian_rows_have_the_exact_loss():
    """Kernels that all underflow: the joint loss is taken in log-space."""
    z = tensor(EXTREMES["far-apart"], requires_grad=True)
    p = UniformKNN(n_neighbors=1).conditional(EXTREMES["far-apart"])
    value = Objective(p, Gaussian(), normalization="joint")(z)
    log_k = pair_matrix(lambda a, b: -sq_distance(a, b) / 2, *2 * [EXTREMES["far-apart"]])
    log_k[np.diag_indices(5)] = -np.inf
    log_q = log_k - log_k.max() - np.log(np.exp(log_k - log_k.max()).sum())
    P = p.toarray()
    P = (P + P.T) / 10
    expected = sum(P[i, j] * (log(P[i, j]) - log_q[i, j]) for i, j in zip(*P.nonzero(), strict=True))
    assert_allclose(value.item(), expected, rtol=1e-12)


@pytest.mark.parametrize("q", [Gaussian(metric="cosine", tau=0.2), StudentT(), WideGaussian()])
def test_dense_rows_without_themselves_are_what_edges_give(q):
    """Where p covers many keys all pairs are taken at once, else edges and normalisers apart."""
    labels = np.random.RandomState(0).randint(3, size=40)
    p = SameClass().conditional(labels[:, None], labels)
    dense, sparse_one = Objective(p, q), Objective(p, q, n_components=5)
    assert dense._is_dense and not sparse_one._is_dense
    values = []
    for objective in (dense, sparse_one):
        z = torch.tensor(np.random.RandomState(1).normal(size=(40, 5)), requires_grad=True)
        value = objective(z)
        values.append((float(value.detach()), torch.autograd.grad(value, z)[0].numpy()))
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-12)
    np.testing.assert_allclose(values[0][1], values[1][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_weights_below_the_normal_range_are_left_out(dtype, normalization):
    tiny = torch.finfo(dtype).tiny
    weights = np.array([[0, 1, tiny, 0], [1, 0, 0, 10 * tiny], [1, tiny, 0, 1], [0, 1, 1e-3, 0]])
    p = Conditional.from_weights(weights, exclude_self=True)
    objective = Objective(p, StudentT(), normalization=normalization, dtype=dtype)
    assert objective.weights.data.min() > 1e6 * tiny
    kept = Conditional.from_weights(np.where(weights > 20 * tiny, weights, 0), exclude_self=True)
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    expected = Objective(kept, StudentT(), normalization=normalization, dtype=dtype)(z)
    assert float(objective(z)) == pytest.approx(float(expected), rel=1e-6)
