import copy
import pickle
import shutil
import warnings
from functools import partial
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from covering import covering
from numpy.testing import assert_allclose
from torch.nn import functional

from sklearn_icon import learned, nn, supervisory
from sklearn_icon._objective import row_tiles
from sklearn_icon._objective.divergences import DIVERGENCES
from sklearn_icon._objective.objective import Objective
from sklearn_icon.nn import ICONLoss

N, M, DIM = 8, 3, 4
COSINE = learned.Gaussian(metric="cosine", tau=0.5)


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


Z, OTHER, PROTOTYPES, FEATURES = normal(0, N, DIM), normal(1, N, DIM), normal(2, M, DIM), normal(3, N, 5)
LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2, 1])
VIEWS = torch.arange(N // 2).repeat(2)
COUNTS = torch.tensor([[3, 1, 0]] * 4 + [[2, 1, 4]] * 4)  # the last of more tokens
SEVERAL = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1]])
WEIGHTS = normal(4, N, N).abs().masked_fill(normal(5, N, N) > 0.5, 0)


# --- the value is the objective's -----------------------------------------------------------------------------------

# p, y, keys
P = {
    "same-class": (supervisory.SameClass(), LABELS, None),
    "positive-pairs": (supervisory.PositivePairs(), VIEWS, None),
    "moving-keys": (supervisory.PositivePairs(), VIEWS, OTHER),
    "alone": (supervisory.SameClass(), torch.tensor([0, 1, 0, 2, 1, 0, 3, 1]), None),
    "several-labels": (supervisory.SameClass(), SEVERAL, None),
    "data-label": (supervisory.DataLabel(), LABELS, PROTOTYPES),
    "shares": (supervisory.DataLabel(), COUNTS, PROTOTYPES),
    "identity": (supervisory.Identity(), None, None),
    "cross-modal": (supervisory.CrossModalPairs(), OTHER, OTHER),
    "gaussian": (supervisory.Gaussian(perplexity=3, source="y"), FEATURES, None),
    "student-t": (supervisory.StudentT(sigma=1.0, source="y"), FEATURES, None),
    "knn": (supervisory.UniformKNN(n_neighbors=3, source="y"), FEATURES, None),
    "graph": (supervisory.Graph(), WEIGHTS, None),
    "counts": (supervisory.Counts(), COUNTS, PROTOTYPES),
    "mixture": (supervisory.UniformMixture(supervisory.SameClass(), 0.3), LABELS, None),
    "walk": (supervisory.RandomWalk(supervisory.UniformKNN(n_neighbors=2, source="y"), 2), FEATURES, None),
}
Q = {
    "gaussian": learned.Gaussian(sigma=0.8),
    "cosine": COSINE,
    "dot": learned.Gaussian(metric="dot"),
    "wide": learned.WideGaussian(),
    "narrow": learned.NarrowGaussian(),
    "student-t": learned.StudentT(df=2.0),
    "harmonic": learned.Harmonic(n=2.0),
    "cluster": learned.SharedCluster(),
    "cluster-degree": learned.SharedCluster(weights="degree"),
    "mixture": learned.UniformMixture(learned.StudentT(), 0.4),
    "mixture-cluster": learned.UniformMixture(learned.SharedCluster(), 0.4),
}


def value_and_gradients(build, z, keys, *y):
    """(value, gradient in z, gradient in keys) of a loss, or the type of the error that it raises."""
    inputs = [part.clone().requires_grad_() for part in (z, keys) if part is not None]
    try:
        value = build()(inputs[0], *y, *inputs[1:])
    except ValueError:
        return ValueError
    return [value.detach(), *torch.autograd.grad(value, inputs)]


@pytest.mark.filterwarnings("ignore:2 of 8 rows have no positive")
@pytest.mark.parametrize("p, q, divergence", covering(P, Q, DIVERGENCES))
def test_equals_the_objective(p, q, divergence):
    spec, y, keys = P[p]
    if Q[q].by_degree and not spec.over_rows:
        with pytest.raises(ValueError, match="weighs keys by their degrees"):
            ICONLoss(spec, Q[q], divergence)
        return
    conditional = spec.conditional(Z.numpy(), None if y is None else y.numpy())
    tokens = {"sample_weight": conditional.degrees} if p == "counts" else {}
    for debias in (0.0, 0.2):
        objective = partial(Objective, conditional.mix(debias), Q[q], divergence=divergence, **tokens)
        expected = value_and_gradients(objective, Z, keys)
        found = value_and_gradients(partial(ICONLoss, spec, Q[q], divergence, debias), Z, keys, y)
        if ValueError in (expected, found):
            assert expected is found
            continue
        assert_allclose(found[0], expected[0], rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(found[1:], expected[1:], strict=True):
            assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
        if divergence in ("kl", "jensen_shannon"):
            with pytest.MonkeyPatch.context() as patch:  # in tiles of two rows
                patch.setattr(row_tiles, "_PAIRS_AT_ONCE", 0), patch.setattr(row_tiles, "_PAIRS_OF_A_TILE", 2 * N)
                tiled = value_and_gradients(partial(ICONLoss, spec, Q[q], divergence, debias), Z, keys, y)
            for ours, theirs in zip(tiled, found, strict=True):
                assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


# --- published methods, by loops ------------------------------------------------------------------------------------


def sq_distance(a, b):
    return sum((s - t) ** 2 for s, t in zip(a.tolist(), b.tolist(), strict=True))


def cosine(a, b):
    return float(a @ b) / sqrt(float(a @ a) * float(b @ b))


def uniform_over(chosen):
    """Rows of p, uniform over some keys each."""
    return [[float(j in row) / len(row) for j in range(N)] for row in chosen]


def gaussian_p(x, sigma):
    rows = [
        [exp(-sq_distance(a, b) / (2 * sigma**2)) if i != j else 0.0 for j, b in enumerate(x)] for i, a in enumerate(x)
    ]
    return [[k / sum(row) for k in row] for row in rows]


def nearest(x, k):
    return [sorted((j for j in range(N) if j != i), key=lambda j: sq_distance(x[i], x[j]))[:k] for i in range(N)]


def others_like(y):
    return [[j for j in range(N) if j != i and y[j] == y[i]] for i in range(N)]


def kernel_q(kernel, z, keys=None):
    """q(j|i) = k(z_i, y_j) / sum_j k, without the row itself where the keys are the rows."""
    rows = [[kernel(a, b) for b in (z if keys is None else keys)] for a in z]
    for i in range(N if keys is None else 0):
        rows[i][i] = 0.0
    return [[k / sum(row) for k in row] for row in rows]


def cluster_q(z, degrees=(1.0,) * N):
    phi = [[exp(v) / sum(exp(w) for w in row) for v in row] for row in z.tolist()]
    mass = [sum(degrees[k] * phi[k][c] for k in range(N)) for c in range(DIM)]
    return [[sum(phi[i][c] * phi[j][c] * degrees[j] / mass[c] for c in range(DIM)) for j in range(N)] for i in range(N)]


def mixed(rows, alpha, n_keys, skip_self=False):
    return [
        [0.0 if skip_self and i == j else (1 - alpha) * v + alpha / n_keys for j, v in enumerate(row)]
        for i, row in enumerate(rows)
    ]


def kl(p, q, mass=None):
    mass = mass or [1] * len(p)
    return sum(
        m * a * log(a / b)
        for p_row, q_row, m in zip(p, q, mass, strict=True)
        for a, b in zip(p_row, q_row, strict=True)
        if a
    ) / sum(mass)


def cauchy(a, b):
    return 1 / (1 + sq_distance(a, b))


def gaussian(a, b):
    return exp(-sq_distance(a, b) / 2)


def similar(a, b):
    return exp(cosine(a, b) / 0.5)


def product(a, b):
    return exp(float(a @ b))


def variance(z):
    return sum(sq_distance(row, z.mean(0)) for row in z) / N


def vicreg():
    pulled = sum(sq_distance(Z[i], Z[j]) for i in range(N) for j in range(N) if i != j and VIEWS[i] == VIEWS[j]) / N
    return pulled - 2 * variance(Z) * N / (N - 1)  # the keys are the other rows


def debiased_limit(repelled, alpha=0.2):
    """mean_i sum_j p~_ij d_ij^2 - the mean, or the least, d_ij^2, over the other rows."""
    p, total = mixed(PAIRS, alpha, N - 1, skip_self=True), 0.0
    for i in range(N):
        d = {j: sq_distance(Z[i], Z[j]) for j in range(N) if j != i}
        total += sum(p[i][j] * d[j] for j in d) - repelled(list(d.values()))
    return total / N


def triplet():
    """Two rows of a class and one of another."""
    return sum(max(sq_distance(Z[a], Z[b]) - sq_distance(Z[a], Z[1]), 0) for a, b in ((0, 2), (2, 0))) / 2


def k_means():
    p, q = mixed(gaussian_p(FEATURES, 1.0), 0.1, N), cluster_q(Z)
    return kl(q, p)


EYE = [[float(i == j) for j in range(N)] for i in range(N)]
PAIRS = uniform_over(others_like(VIEWS))
CLASS_MATES = uniform_over(others_like(LABELS))
KNN = uniform_over(nearest(FEATURES, 3))
ONE_HOT = [[float(c == label) for c in range(M)] for label in LABELS.tolist()]
TOKENS = [[n / sum(row) for n in row] for row in COUNTS.tolist()]
DEGREES = [sum(w for j, w in enumerate(row) if j != i) for i, row in enumerate(WEIGHTS.tolist())]
CUTS = [[0.0 if i == j else w / DEGREES[i] for j, w in enumerate(row)] for i, row in enumerate(WEIGHTS.tolist())]
ON_FEATURES = supervisory.Gaussian(sigma=1.0, source="y")
ON_NEIGHBORS = supervisory.UniformKNN(n_neighbors=3, source="y")
DEBIASED_CLUSTERS = learned.UniformMixture(learned.SharedCluster(), 0.6)

# loss, y, keys, value
PUBLISHED = {
    "sne": (ICONLoss(ON_FEATURES, "gaussian"), FEATURES, None, kl(gaussian_p(FEATURES, 1.0), kernel_q(gaussian, Z))),
    "t-sne": (ICONLoss(ON_FEATURES, "student_t"), FEATURES, None, kl(gaussian_p(FEATURES, 1.0), kernel_q(cauchy, Z))),
    "pca": (ICONLoss("identity", "wide_gaussian"), None, None, -2 * variance(Z)),
    "simclr": (ICONLoss("positive_pairs", COSINE), VIEWS, None, kl(PAIRS, kernel_q(similar, Z))),
    "moco-v3": (ICONLoss("cross_modal", COSINE), None, OTHER, kl(EYE, kernel_q(similar, Z, OTHER))),
    "t-simclr": (ICONLoss("positive_pairs", "student_t"), VIEWS, None, kl(PAIRS, kernel_q(cauchy, Z))),
    "vicreg": (ICONLoss("positive_pairs", "wide_gaussian"), VIEWS, None, vicreg()),
    "triplet": (ICONLoss("same_class", "narrow_gaussian"), torch.tensor([0, 1, 0]), None, triplet()),
    "supcon": (ICONLoss("same_class", COSINE), LABELS, None, kl(CLASS_MATES, kernel_q(similar, Z))),
    "x-sample": (ICONLoss(ON_FEATURES, COSINE), FEATURES, None, kl(gaussian_p(FEATURES, 1.0), kernel_q(similar, Z))),
    "lgsimclr": (ICONLoss(ON_NEIGHBORS, COSINE), FEATURES, None, kl(KNN, kernel_q(similar, Z))),
    "clip": (ICONLoss("cross_modal", COSINE), None, OTHER, kl(EYE, kernel_q(similar, Z, OTHER))),
    "cross-entropy": (
        ICONLoss("data_label", learned.Gaussian(metric="dot")),
        LABELS,
        PROTOTYPES,
        kl(ONE_HOT, kernel_q(product, Z, PROTOTYPES)),
    ),
    "harmonic": (
        ICONLoss("data_label", learned.Harmonic(n=2.0)),
        LABELS,
        PROTOTYPES,
        kl(ONE_HOT, kernel_q(lambda a, b: sq_distance(a, b) ** -2, Z, PROTOTYPES)),
    ),
    "mlm": (
        ICONLoss("counts", learned.Gaussian(metric="dot")),
        COUNTS,
        PROTOTYPES,
        kl(TOKENS, kernel_q(product, Z, PROTOTYPES), COUNTS.sum(1).tolist()),
    ),
    "k-means": (ICONLoss(ON_FEATURES, "cluster", "reverse_kl", debias=0.1), FEATURES, None, k_means()),
    "spectral": (ICONLoss(ON_FEATURES, "cluster"), FEATURES, None, kl(gaussian_p(FEATURES, 1.0), cluster_q(Z))),
    "ncut": (
        ICONLoss("graph", learned.SharedCluster(weights="degree")),
        WEIGHTS,
        None,
        kl(CUTS, cluster_q(Z, DEGREES)),
    ),
    "dcd": (ICONLoss(ON_NEIGHBORS, "cluster"), FEATURES, None, kl(KNN, cluster_q(Z))),
    "pmi": (ICONLoss("positive_pairs", "cluster"), VIEWS, None, kl(PAIRS, cluster_q(Z))),
    "infonce-clustering": (ICONLoss("same_class", "cluster"), LABELS, None, kl(CLASS_MATES, cluster_q(Z))),
    "debiased-infonce-clustering": (
        ICONLoss("positive_pairs", DEBIASED_CLUSTERS, debias=0.6),
        VIEWS,
        None,
        kl(mixed(PAIRS, 0.6, N), mixed(cluster_q(Z), 0.6, N)),
    ),
    # beyond the 22: label smoothing, debiasing without a row's own key
    "label-smoothing": (
        ICONLoss("data_label", learned.Gaussian(metric="dot"), debias=0.1),
        LABELS,
        PROTOTYPES,
        kl(mixed(ONE_HOT, 0.1, M), kernel_q(product, Z, PROTOTYPES)),
    ),
    "debiased-simclr": (
        ICONLoss("positive_pairs", COSINE, debias=0.2),
        VIEWS,
        None,
        kl(mixed(PAIRS, 0.2, N - 1, skip_self=True), kernel_q(similar, Z)),
    ),
    "debiased-vicreg": (
        ICONLoss("positive_pairs", "wide_gaussian", debias=0.2),
        VIEWS,
        None,
        debiased_limit(lambda d: sum(d) / len(d)),
    ),
    "debiased-triplet": (
        ICONLoss("positive_pairs", "narrow_gaussian", debias=0.2),
        VIEWS,
        None,
        debiased_limit(min),
    ),
}


@pytest.mark.filterwarnings("ignore:1 of 3 rows have no positive")
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_methods(name):
    loss, y, keys, expected = PUBLISHED[name]
    assert loss(Z[: len(y)] if y is not None else Z, y, keys).item() == pytest.approx(expected, rel=1e-11)
    assert abs(expected) > 1e-2


# --- published methods, by others' code -----------------------------------------------------------------------------


def test_cross_entropy_of_torch():
    logits = Z @ PROTOTYPES.T
    dot = learned.Gaussian(metric="dot")
    assert_allclose(ICONLoss("data_label", dot)(Z, LABELS, PROTOTYPES), functional.cross_entropy(logits, LABELS))
    smooth = torch.tensor([0.9 + 0.1 / M] + [0.1 / M] * (M - 1), dtype=torch.float64)
    expected = functional.cross_entropy(logits, LABELS, label_smoothing=0.1) + (smooth * smooth.log()).sum()
    assert_allclose(ICONLoss("data_label", dot, debias=0.1)(Z, LABELS, PROTOTYPES), expected)
    shares = COUNTS / COUNTS.sum(1, keepdim=True).double()
    expected = functional.cross_entropy(logits, shares) + shares.xlogy(shares).sum(1).mean()
    assert_allclose(ICONLoss("counts", dot)(Z, shares, PROTOTYPES), expected)
    contexts, tokens = COUNTS.nonzero().repeat_interleave(COUNTS[COUNTS > 0], dim=0).T  # one by one
    entropy = -shares[contexts, tokens].log().mean()
    expected = functional.cross_entropy(logits[contexts], tokens)
    assert_allclose(ICONLoss("counts", dot)(Z, COUNTS, PROTOTYPES) + entropy, expected)
    ignored = LABELS.where(LABELS != 2, -1)
    with pytest.warns(UserWarning, match="2 of 8 rows have no positive"):
        found = ICONLoss("data_label", dot)(Z, ignored, PROTOTYPES)
    assert_allclose(found, functional.cross_entropy(logits, ignored, ignore_index=-1))


def test_symmetric_loss_of_clip():
    logits = functional.normalize(Z) @ functional.normalize(OTHER).T / 0.5
    target = torch.arange(N)
    expected = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
    loss = ICONLoss("cross_modal", COSINE)
    assert_allclose((loss(Z, keys=OTHER) + loss(OTHER, keys=Z)) / 2, expected)
    assert_allclose(ICONLoss("cross_modal", COSINE, symmetric=True)(Z, keys=OTHER), expected, rtol=1e-12)


@pytest.mark.parametrize("at_once", [0, 1 << 20])
@pytest.mark.parametrize("debias", [0.0, 0.2])
@pytest.mark.parametrize("q", ["cosine", "student-t", "mixture", "cluster", "wide", "harmonic"])
@pytest.mark.parametrize("p, y", [("cross_modal", None), ("cross_modal", LABELS), ("same_class", LABELS)])
def test_symmetric_is_the_mean_of_both_ways(p, y, q, debias, at_once, monkeypatch):
    monkeypatch.setattr(row_tiles, "_PAIRS_AT_ONCE", at_once), monkeypatch.setattr(row_tiles, "_PAIRS_OF_A_TILE", 3 * N)
    one_way, both = (ICONLoss(p, Q[q], debias=debias, symmetric=symmetric) for symmetric in (False, True))

    def twice(z, y, keys):
        return (one_way(z, y, keys) + one_way(keys, y, z)) / 2

    for divergence in ("kl", "squared_hellinger") if q != "wide" else ("kl",):
        one_way.divergence = both.divergence = divergence
        expected = value_and_gradients(lambda: twice, Z, OTHER, y)
        found = value_and_gradients(lambda: both, Z, OTHER, y)
        for ours, theirs in zip(found, expected, strict=True):
            assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)
    if debias:
        again = [t.clone().requires_grad_() for t in (Z, OTHER)]
        assert torch.autograd.gradgradcheck(lambda z, keys: both(z, y, keys), again)


@pytest.mark.parametrize("at_once", [0, 1 << 20])
@pytest.mark.parametrize("q", ["cosine", "student-t", "mixture", "cluster", "wide", "harmonic"])
def test_symmetric_compiled(q, at_once, monkeypatch):
    monkeypatch.setattr(row_tiles, "_PAIRS_AT_ONCE", at_once), monkeypatch.setattr(row_tiles, "_PAIRS_OF_A_TILE", 3 * N)
    p, y = ("same_class", LABELS) if q == "cosine" else ("cross_modal", None)
    equals_compiled(ICONLoss(p, Q[q], debias=0.2, symmetric=True), "eager", y, OTHER)


def test_symmetric_needs_keys_that_are_rows():
    with pytest.raises(ValueError, match="symmetric=True needs keys that stand for rows"):
        ICONLoss("data_label", COSINE, symmetric=True)


def test_partners_are_those_of_the_present_batch():
    """They are kept from batch to batch; not beyond a change of y, made in place or not."""
    loss, y = ICONLoss("positive_pairs", COSINE), VIEWS.clone()
    first = loss(Z, y)
    assert loss(Z, y) == first
    y[[0, 1]] = y[[1, 0]]
    assert_allclose(loss(Z, y), ICONLoss("positive_pairs", COSINE)(Z, y), rtol=1e-14)
    assert abs(loss(Z, y) - first) > 1e-3
    assert_allclose(loss(Z[:6], y[[0, 1, 2, 0, 1, 2]]), ICONLoss("positive_pairs", COSINE)(Z[:6], [1, 2, 3, 1, 2, 3]))


@pytest.mark.parametrize("n", [10, 600])
def test_kernels_with_a_kink_have_finite_gradients(n):
    class Laplace(learned.DistanceKernel):
        def log_kernel(self, sq_distance):
            return -sq_distance.sqrt()

    z = normal(9, n, DIM).requires_grad_()
    loss = ICONLoss("positive_pairs", Laplace())
    loss(z, torch.arange(n // 2).repeat(2)).backward()
    far = torch.cdist(z.detach(), z.detach()).fill_diagonal_(torch.inf)
    expected = (far.roll(n // 2, 1).diagonal() + (-far).logsumexp(1)).mean()
    assert_allclose(loss(z, torch.arange(n // 2).repeat(2)).detach(), expected, rtol=1e-6)
    assert z.grad.isfinite().all()


def test_losses_of_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="an extra of the tests")
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.reducers import MeanReducer

    z = Z.clone().requires_grad_()

    def same(ours, theirs):
        assert_allclose(ours.detach(), theirs.detach(), rtol=1e-10)
        for gradients in zip(*(torch.autograd.grad(value, z) for value in (ours, theirs)), strict=True):
            assert_allclose(*gradients, rtol=1e-8, atol=1e-10)

    same(ICONLoss("positive_pairs", COSINE)(z, VIEWS), losses.NTXentLoss(temperature=0.5)(z, VIEWS))
    entropy = sum(log(len(mates)) for mates in others_like(LABELS)) / N
    same(ICONLoss("same_class", COSINE)(z, LABELS) + entropy, losses.SupConLoss(temperature=0.5)(z, LABELS))
    squared = LpDistance(normalize_embeddings=False, power=2)
    theirs = losses.TripletMarginLoss(margin=0.0, distance=squared, reducer=MeanReducer())
    y = torch.tensor([0, 1, 0])
    with pytest.warns(UserWarning, match="1 of 3 rows have no positive"):
        ours = ICONLoss("same_class", "narrow_gaussian")(z[:3], y)
    same(ours, theirs(z[:3], y))


# --- several partners in the other modality -------------------------------------------------------------------------

ITEMS = torch.tensor([4, 7, 4, 2, 7, 4, 9, 2])


@pytest.mark.parametrize("divergence, debias", [("kl", 0.0), ("kl", 0.2), ("reverse_kl", 0.2), ("jensen_shannon", 0.0)])
def test_labels_between_two_modalities_share_the_mass(divergence, debias):
    loss = ICONLoss("cross_modal", COSINE, divergence, debias)
    mates = [[j for j in range(N) if ITEMS[j] == ITEMS[i]] for i in range(N)]
    p, q = mixed(uniform_over(mates), debias, N), kernel_q(similar, Z, OTHER)
    mean = [[(a + b) / 2 for a, b in zip(*rows, strict=True)] for rows in zip(p, q, strict=True)]
    expected = {"kl": kl(p, q), "jensen_shannon": (kl(p, mean) + kl(q, mean)) / 2}
    if debias:
        expected["reverse_kl"] = kl(q, p)
    for y in (ITEMS, ITEMS[:, None], ITEMS.numpy(), ITEMS.double(), functional.one_hot(ITEMS), ITEMS[:, None] == ITEMS):
        assert loss(Z, y, OTHER).item() == pytest.approx(expected[divergence], rel=1e-11)
    assert loss(Z, None, OTHER) == loss(Z, OTHER, OTHER)
    assert_allclose(loss(Z, torch.arange(N), OTHER), loss(Z, None, OTHER), rtol=1e-12)
    equals_compiled(loss, "aot_eager", ITEMS, OTHER)


def test_several_labels_of_a_pair():
    shared = (SEVERAL @ SEVERAL.T).double()
    p = shared / shared.sum(1, keepdim=True)
    expected = ICONLoss("data_label", COSINE)(Z, p, OTHER)
    assert_allclose(ICONLoss("cross_modal", COSINE)(Z, SEVERAL, OTHER), expected)
    with pytest.raises(ValueError, match="must hold integers or booleans; got"):
        ICONLoss("cross_modal", COSINE)(Z, SEVERAL.double(), OTHER)
    with pytest.raises(ValueError, match=r"a 2-D y of CrossModalPairs\(\) must hold 0 and 1"):
        ICONLoss("cross_modal", COSINE)(Z, SEVERAL + 1, OTHER)
    with pytest.raises(ValueError, match="one entry for each of the 8 rows"):
        ICONLoss("cross_modal", COSINE)(Z, ITEMS[:5], OTHER)


# --- what is learned ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec, name, first, fixed",
    [
        (
            learned.Gaussian(metric="cosine", tau="learn"),
            "tau",
            0.1,
            lambda v: learned.Gaussian(metric="cosine", tau=v),
        ),
        (learned.Gaussian(metric="dot", tau="learn"), "tau", 0.1, lambda v: learned.Gaussian(metric="dot", tau=v)),
        (
            learned.UniformMixture(learned.StudentT(df="learn"), 0.2),
            "df",
            1.0,
            lambda v: learned.UniformMixture(learned.StudentT(df=v), 0.2),
        ),
    ],
)
def test_learned_temperature_and_tail(spec, name, first, fixed):
    loss, before = ICONLoss("positive_pairs", spec, debias=0.1).double(), repr(spec)
    assert [of for of, _ in loss.named_parameters()] == [f"log_{name}"]
    assert getattr(loss, name).item() == pytest.approx(first)

    def of_log(log_value):
        return torch.func.functional_call(loss, {f"log_{name}": log_value}, (Z, VIEWS))

    (parameter,) = loss.parameters()
    assert torch.autograd.gradcheck(of_log, parameter.detach().clone().requires_grad_())
    loss(Z, VIEWS).backward()
    assert abs(parameter.grad) > 1e-3
    torch.optim.SGD([parameter], lr=0.1).step()
    value = getattr(loss, name).item()
    assert value != pytest.approx(first)
    assert loss(Z, VIEWS).item() == pytest.approx(ICONLoss("positive_pairs", fixed(value), debias=0.1)(Z, VIEWS).item())
    assert repr(spec) == before


def test_nothing_is_learned_unless_asked():
    loss = ICONLoss("positive_pairs", COSINE)
    assert not list(loss.parameters())
    with pytest.raises(AttributeError, match="tau"):
        loss.tau  # noqa: B018


def test_state_and_copies():
    loss = ICONLoss("positive_pairs", learned.StudentT(df="learn")).double()
    with torch.no_grad():
        loss.log_df += 0.7
    other = ICONLoss("positive_pairs", learned.StudentT(df="learn")).double()
    other.load_state_dict(loss.state_dict())
    for twin in (other, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin(Z, VIEWS) == loss(Z, VIEWS)
        assert twin.df is not loss.df


def test_specs_are_left_as_they_are():
    p, q = supervisory.SameClass(), learned.StudentT()
    loss = ICONLoss(p, q)
    p.set_params(n_positives=3), q.set_params(df=9.0)
    assert loss(Z, LABELS) == ICONLoss("same_class", "student_t")(Z, LABELS)


# --- gradients, precision, compilation ------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ["kl", "jensen_shannon", "squared_hellinger"])
@pytest.mark.parametrize("q", ["cosine", "student-t", "mixture-cluster"])
def test_gradcheck(q, divergence):
    loss = ICONLoss("same_class", Q[q], divergence, debias=0.1)
    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS), Z.clone().requires_grad_())


SECOND = {
    "pairs": ("positive_pairs", "cosine", "kl", 0.0, VIEWS),
    "pairs-debiased": ("positive_pairs", "student-t", "kl", 0.3, VIEWS),
    "classes": ("same_class", "mixture", "squared_hellinger", 0.0, LABELS),
}


@pytest.mark.parametrize("at_once", [0, 1 << 20])
@pytest.mark.parametrize("case", SECOND.values(), ids=SECOND)
def test_second_derivatives(case, at_once, monkeypatch):
    monkeypatch.setattr(row_tiles, "_PAIRS_AT_ONCE", at_once)
    monkeypatch.setattr(row_tiles, "_PAIRS_OF_A_TILE", 3 * N)
    p, q, divergence, debias, y = case
    loss = ICONLoss(p, Q[q], divergence, debias)
    z = Z.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, y), z)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, y), z)
    (expected,) = torch.autograd.grad(loss(z, y), z)
    assert_allclose(torch.autograd.grad(loss(z, y), z, create_graph=True)[0].detach(), expected, rtol=1e-9, atol=1e-12)
    assert_allclose(torch.func.grad(lambda z: loss(z, y))(Z), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("debias", [0.0, 0.3])
@pytest.mark.parametrize("p", ["same_class", "cross_modal", "data_label"])
def test_positives_that_are_listed_are_those_of_all_pairs(p, debias, monkeypatch):
    """Groups of two to five rows, in tiles and at once; then the dense p."""
    y = torch.repeat_interleave(torch.arange(40), torch.arange(40) % 4 + 2)
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(3))]
    z, other, prototypes = normal(6, len(y), DIM), normal(7, len(y), DIM), normal(8, 40, DIM)
    keys = {"cross_modal": other, "data_label": prototypes}.get(p)
    spec = supervisory.NAMES[p]()
    assert spec.partners_of_batch(y, slice(0, len(y)), 40 if p == "data_label" else len(y), z) is not None
    for at_once in (0, 1 << 20):
        monkeypatch.setattr(row_tiles, "_PAIRS_AT_ONCE", at_once)
        monkeypatch.setattr(row_tiles, "_PAIRS_OF_A_TILE", 7 * len(y))
        found = value_and_gradients(partial(ICONLoss, p, COSINE, debias=debias), z, keys, y)
        with monkeypatch.context() as patch:
            patch.setattr(type(spec), "partners_of_batch", lambda *_: None)
            dense = value_and_gradients(partial(ICONLoss, p, COSINE, debias=debias), z, keys, y)
        for ours, theirs in zip(found, dense, strict=True):
            assert_allclose(ours, theirs, rtol=1e-11, atol=1e-14)


def test_no_gradient_reaches_y():
    y = FEATURES.clone().requires_grad_()
    for p in (supervisory.Gaussian(perplexity=3, source="y"), "counts"):
        assert not ICONLoss(p, "gaussian")(Z, y.abs(), FEATURES[:5, :DIM] if p == "counts" else None).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_raised(dtype):
    z, keys = Z.to(dtype), PROTOTYPES.to(dtype)
    loss = ICONLoss("data_label", COSINE)
    value = loss(z, LABELS, keys)
    assert value.dtype == torch.float32
    assert value == loss(z.float(), LABELS, keys.float())
    assert_allclose(value, loss(z.double(), LABELS, keys.double()), rtol=1e-6)


@pytest.mark.parametrize("multiplied", [True, False])
@pytest.mark.parametrize("p", ["positive_pairs", "cross_modal"])
def test_gradients_of_bfloat16_are_multiplied_in_it(p, multiplied, monkeypatch):
    """Of many pairs, where the processor does: the value stays that of single precision, gradients within a rounding.

    Elsewhere products are of single precision, and gradients the rounded ones of that.
    """
    monkeypatch.setattr(nn, "multiplies_bfloat16", lambda device: multiplied)
    monkeypatch.setattr(row_tiles, "_PAIRS_AT_ONCE", 50)
    draw = torch.Generator().manual_seed(3)
    z, keys = (torch.randn(64, 16, generator=draw).bfloat16() for _ in range(2))
    y, keys = (torch.arange(32).repeat(2), None) if p == "positive_pairs" else (None, keys)
    loss = ICONLoss(p, COSINE, symmetric=keys is not None)
    value, *found = value_and_gradients(lambda: loss, z, keys, y)
    exact, *expected = value_and_gradients(lambda: loss, z.double(), None if keys is None else keys.double(), y)
    assert_allclose(value, exact, rtol=1e-6)
    if not multiplied:
        _, *single = value_and_gradients(lambda: loss, z.float(), None if keys is None else keys.float(), y)
        assert all(torch.equal(ours, theirs.bfloat16()) for ours, theirs in zip(found, single, strict=True))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert 0 < (ours.double() - theirs).norm() < 2**-8 * theirs.norm()


@pytest.mark.parametrize("q", [q for q in Q if q not in ("wide", "narrow")])
def test_autocast(q):
    net = torch.nn.Linear(DIM, DIM)
    loss = ICONLoss("positive_pairs", Q[q], debias=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        z = net(Z.float())
        value = loss(z, VIEWS)
        value.backward()
    assert z.dtype == torch.bfloat16 and value.dtype == torch.float32
    assert value == loss(z.float(), VIEWS)
    assert net.weight.grad.isfinite().all() and net.weight.grad.any()


def test_large_and_equal_representations_stay_finite():
    for z in (1e4 * Z, torch.ones_like(Z)):
        for q in ("cosine", "student-t", "harmonic", "gaussian", "cluster", "mixture"):
            z = z.float().requires_grad_()
            value = ICONLoss("same_class", Q[q])(z, LABELS)
            assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


COMPILED = [
    "same-class",
    "several-labels",
    "positive-pairs",
    "data-label",
    "shares",
    "identity",
    "cross-modal",
    "counts",
    "graph",
    "mixture",
]


@pytest.mark.parametrize("p", COMPILED)
def test_compiles_whole(p):
    """Backend "aot_eager" runs all of torch.compile but the code generator, forward and backward."""
    spec, y, keys = P[p]
    q = learned.UniformMixture(learned.Gaussian(metric="cosine", tau="learn"), 0.1)
    equals_compiled(ICONLoss(spec, q, "jensen_shannon", 0.1).double(), "aot_eager", y, keys)


@pytest.mark.parametrize("q", list(Q))
def test_every_kernel_compiles(q):
    equals_compiled(ICONLoss("graph", Q[q]), "aot_eager", WEIGHTS, None)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's code generator needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiles_to_machine_code():
    loss = ICONLoss("positive_pairs", learned.Gaussian(metric="cosine", tau="learn"), debias=0.1).double()
    equals_compiled(loss, "inductor", VIEWS, None)


def equals_compiled(loss, backend, y, keys):
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for ours, theirs in zip(*(value_and_gradients(lambda f=f: f, Z, keys, y) for f in (compiled, loss)), strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_compiles_around_a_p_of_the_cpu():
    torch.compiler.reset()
    loss = ICONLoss(ON_NEIGHBORS, COSINE)
    compiled = torch.compile(loss, backend="aot_eager")
    assert_allclose(compiled(Z, FEATURES), loss(Z, FEATURES))


def test_compiled_without_positives_is_zero():
    torch.compiler.reset()
    z = Z.clone().requires_grad_()
    value = torch.compile(ICONLoss("same_class", COSINE), fullgraph=True, backend="aot_eager")(z, torch.arange(N))
    value.backward()
    assert value.item() == 0 and not z.grad.any()


@pytest.mark.parametrize("dtype, scale", [(torch.float32, 1e-30), (torch.float32, 1e30), (torch.float64, 1e-250)])
@pytest.mark.parametrize("p", ["same-class", "cross-modal", "data-label"])
def test_the_cosine_knows_no_lengths(p, dtype, scale):
    spec, y, keys = P[p]
    loss, z = ICONLoss(spec, COSINE, debias=0.1), (Z * scale).to(dtype).requires_grad_()
    expected = loss(Z, y, keys)
    value = loss(z, y, None if keys is None else (keys / scale).to(dtype))
    assert_allclose(value.detach(), expected, rtol=1e-5 if dtype == torch.float32 else 1e-12)
    assert torch.autograd.grad(value, z)[0].isfinite().all()


# --- warnings and errors --------------------------------------------------------------------------------------------


def test_rows_without_positives_are_left_out_with_one_warning():
    y = torch.tensor([0, 0, 1, 1, 2, 2, 3, 4])
    loss = ICONLoss("same_class", COSINE)
    with pytest.warns(UserWarning, match=r"2 of 8 rows have no positive .* \[6, 7\]") as record:
        value = loss(Z, y)
    assert len(record) == 1 and record[0].filename == __file__
    q = kernel_q(similar, Z)
    mates = [row or [0] for row in others_like(y)]
    assert value.item() == pytest.approx(kl(uniform_over(mates)[:6], q[:6]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loss(Z, y) == value


def test_no_row_with_a_positive():
    with pytest.raises(ValueError, match=r"no row of the batch has a positive.*; check y"):
        ICONLoss("same_class", COSINE)(Z, torch.arange(N))
    with pytest.raises(ValueError, match="no row of the batch has a positive"):
        ICONLoss("same_class", "student_t", debias=0.1)(Z[:1], LABELS[:1])


def test_rows_of_zeros_under_the_cosine():
    z = Z.clone()
    z[[1, 4]] = 0
    with pytest.raises(ValueError, match=r"rows \[1, 4\] \(2 in all\) of z are zero: drop them"):
        ICONLoss("positive_pairs", COSINE)(z, VIEWS)
    with pytest.raises(ValueError, match=r"rows \[1, 4\] \(2 in all\) of keys are zero"):
        ICONLoss("cross_modal", learned.UniformMixture(COSINE, 0.1))(Z, keys=z)
    with pytest.raises(ValueError, match=r"rows \[0, 1, 2, 3, 4, \.\.\.\] \(8 in all\)"):
        ICONLoss("positive_pairs", COSINE)(torch.zeros_like(z), VIEWS)
    assert ICONLoss("positive_pairs", "gaussian")(z, VIEWS).isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosines_of_rows_as_small_as_gradients_allow(dtype):
    loss, tiny = ICONLoss("same_class", COSINE), torch.finfo(dtype).tiny
    z = tiny * torch.tensor([[0, 1.0], [1, 0], [1, 1], [0, 2]], dtype=dtype)
    y = torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(loss(z.requires_grad_(), y), loss(z.detach() / tiny, y))
    loss(z, y).backward()
    assert z.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"rows \[1\] \(1 in all\) of z are zero or below [\d.]+e-3"):
        loss(torch.stack([z[0], z[1] / 8, z[2], z[3]]), y)


@pytest.mark.parametrize(
    "p, given, message",
    [
        ("same_class", (Z,), r"SameClass\(\) requires y"),
        ("same_class", (Z, LABELS[:5]), r"each of the 8 rows of z, got shape \(5,\)"),
        ("same_class", (Z, LABELS, OTHER[:5]), r"SameClass\(\) needs a key for each of the 8 rows of z, got 5"),
        ("cross_modal", (Z,), r"CrossModalPairs\(\) requires keys .* the other modality's representations"),
        ("cross_modal", (Z, None, OTHER[1:]), r"CrossModalPairs\(\) needs a key for each of the 8 rows of z, got 7"),
        ("cross_modal", (Z, None, OTHER[:, 1:]), r"keys must have the 4 columns of z, got shape \(8, 3\)"),
        ("data_label", (Z, LABELS), r"DataLabel\(\) requires keys .* prototypes"),
        ("data_label", (Z, LABELS, PROTOTYPES[0]), r"keys must have the 4 columns of z, got shape \(4,\)"),
        ("data_label", (Z, LABELS, PROTOTYPES[:2]), "integers from 0 to 1"),
        ("identity", (Z[0],), r"z must be floats of shape \(n_rows, d\), got torch.float64 of shape \(4,\)"),
        ("identity", (Z[:0],), r"z must be floats of shape .* of shape \(0, 4\)"),
        ("identity", (LABELS[:, None],), "z must be floats .* got torch.int64"),
        ("graph", (Z, WEIGHTS[:, 1:]), r"one column for each of the 8 keys, got shape \(8, 7\)"),
    ],
)
def test_shapes_that_do_not_fit(p, given, message):
    with pytest.raises(ValueError, match=message):
        ICONLoss(p, "gaussian")(*given)


@pytest.mark.parametrize(
    "parameters, error, message",
    [
        (("gauss", "gaussian"), ValueError, r"supervisory='gauss' is not known; use one of \['counts'"),
        (("gaussian", "t"), ValueError, r"learned='t' is not known; use one of \['cluster'"),
        ((supervisory.SameClass, "gaussian"), TypeError, "supervisory=SameClass is a class; pass an instance"),
        ((COSINE, "gaussian"), TypeError, "supervisory must be .* an instance of a class of sklearn_icon.supervisory"),
        (("knn", learned.StudentT(df=-1)), ValueError, "'df' parameter of StudentT"),
        (("knn", "gaussian", "l2"), ValueError, "'divergence' parameter of ICONLoss .*'reverse_kl'.* Got 'l2'"),
        (("knn", "gaussian", "kl", 1.0), ValueError, "'debias' parameter of ICONLoss .* Got 1.0"),
        (("knn", "gaussian", "kl", 0.0, "yes"), ValueError, "'gather_distributed' parameter of ICONLoss"),
        (("knn", "wide_gaussian", "jensen_shannon", 0.1), ValueError, r"WideGaussian\(\) is the limit"),
        (("knn", "narrow_gaussian", "total_variation"), ValueError, r"NarrowGaussian\(\) is the limit"),
        (("propagated_label", "gaussian"), ValueError, "graph of all rows"),
        ((supervisory.UniformKNN(), "gaussian"), ValueError, "set source='y'"),
        (("cross_modal", learned.SharedCluster("degree")), ValueError, "have none; use weights=None"),
        (("knn", learned.Gaussian(2.0, "dot", 0.5)), ValueError, "sigma=2.0 and tau=0.5 both set the temperature"),
        (("knn", learned.Gaussian(tau="learn")), ValueError, "reads no tau, got tau='learn'; use metric='cosine' or"),
    ],
)
def test_parameters_that_do_not_fit(parameters, error, message):
    with pytest.raises(error, match=message):
        ICONLoss(*parameters)


@pytest.mark.parametrize("q", ["student_t", learned.Rational(), learned.NegativeSampling(learned.StudentT())], ids=str)
def test_squares_beyond_single_precision(q):
    z = (3e25 * Z.float()).requires_grad_()
    value = ICONLoss("same_class", q)(z, LABELS)
    expected = ICONLoss("same_class", q)(3e25 * Z, LABELS)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    value.backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("dtype, large", [(torch.float32, 4e29), (torch.float64, 2e200)], ids=str)
@pytest.mark.parametrize("q", ["gaussian", "wide_gaussian", learned.Gaussian(metric="dot")], ids=str)
def test_rows_too_large_for_the_loss_are_named(q, dtype, large):
    z = Z.to(dtype, copy=True)
    z[5] *= large / z[5].abs().max()
    with pytest.raises(ValueError, match=r"beyond float(32|64): rows \[5\] of keys hold .*; scale them"):
        ICONLoss("cross_modal", q, debias=0.1)(-z, keys=1.5 * z)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_rows_that_hold_no_numbers_are_named(number):
    z = Z.float().clone()
    z[[2, 6], 1] = number
    with pytest.raises(ValueError, match=rf"z holds {number} in rows \[2, 6\] \(2 in all\); look for"):
        ICONLoss("same_class", COSINE)(z, LABELS)


def test_infinite_divergence():
    with pytest.raises(ValueError, match="divergence='reverse_kl' is infinite where p is zero; set debias > 0"):
        ICONLoss("same_class", "gaussian", "reverse_kl")(Z, LABELS)


def test_short_names_read_companion_features():
    for name, spec in (("knn", supervisory.UniformKNN), ("gaussian", supervisory.Gaussian)):
        with pytest.warns(UserWarning, match="the default .* is too large for 8 samples"):
            value = ICONLoss(name, "gaussian")(Z, FEATURES)
        with pytest.warns(UserWarning, match="the default .* is too large for 8 samples"):
            assert value == ICONLoss(spec(source="y"), "gaussian")(Z, FEATURES)


def test_repr_tells_the_choices():
    loss = ICONLoss("positive_pairs", COSINE, debias=0.2)
    expected = "ICONLoss(PositivePairs(), Gaussian(metric='cosine', tau=0.5), divergence='kl', debias=0.2)"
    assert repr(loss) == expected


def test_global_generators_are_left_alone():
    before = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].tolist()
    ICONLoss(ON_NEIGHBORS, learned.StudentT(df="learn"))(Z, FEATURES)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.mtrand._rand.get_state()[1].tolist()
