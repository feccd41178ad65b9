"""Kernels under a normaliser that reads p: what they refuse, and rows that have nothing to be told from."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_icon import ICONCrossModal, ICONEmbedding, learned, supervisory
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._objective import objective as _objective
from sklearn_icon._objective import row_tiles
from sklearn_icon._objective.objective import Objective
from sklearn_icon.nn import ICONLoss

COSINE = learned.Gaussian(metric="cosine", tau=0.5)
SPECS = [
    learned.Decoupled(COSINE),
    learned.HardNegatives(COSINE),
    learned.HardNegatives(learned.StudentT(), hardness=0.5),
    learned.MultiView(COSINE),
    learned.MultiView(COSINE, decoupled=False),
    learned.HardnessWeighted(),
    learned.PairwiseSigmoid(COSINE),
    learned.NoiseContrastive(COSINE),
]
each = pytest.mark.parametrize("spec", SPECS, ids=str)


@pytest.fixture
def z():
    return torch.tensor(np.random.default_rng(0).normal(size=(12, 4)), requires_grad=True)


def loss_of(z, y, spec, **how):
    return ICONLoss("positive_pairs", spec, **how)(z, np.asarray(y))


@each
def test_batches_and_the_objective_agree_whatever_the_tiles(spec, z, monkeypatch):
    """Batches beyond a tile are computed at once, too; uniform mass, single precision and the order of items."""
    items = np.arange(12) % 4
    p = supervisory.PositivePairs().conditional(np.empty((12, 0)), items)
    monkeypatch.setattr(row_tiles, "_PAIRS_AT_ONCE", 20)
    monkeypatch.setattr(row_tiles, "_PAIRS_OF_A_TILE", 20)
    for debias in (0.0, 0.3):
        wanted = Objective(p.mix(debias), spec)(z)
        value = loss_of(z, items, spec, debias=debias)
        assert_allclose(value.item(), wanted.item(), rtol=1e-9)
        assert_allclose(*(torch.autograd.grad(part, z)[0] for part in (value, wanted)), rtol=1e-7, atol=1e-12)
    value = loss_of(z, items, spec)
    order = np.random.default_rng(1).permutation(4)[items].argsort(kind="stable")  # views keep their order
    assert_allclose(loss_of(z[order], items[order], spec).item(), value.item(), rtol=1e-9)
    assert_allclose(loss_of(z.float(), items, spec).item(), value.item(), rtol=1e-4)


@each
def test_rows_without_positives_or_negatives_are_finite(spec, z):
    items = [0, 0, 1, 1, *[5] * 8] if not isinstance(spec, learned.MultiView) else np.arange(12) // 2
    p = Conditional.from_weights(np.equal.outer(items, items) * (1.0 - np.eye(12)) * (np.arange(12) > 1)[:, None])
    losses = [Objective(p, spec)(z)] if not isinstance(spec, learned.MultiView) else []
    losses.append(loss_of(z, np.zeros(12, dtype=int), spec))  # one item: nothing to be told from
    for loss in losses:
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


@pytest.mark.parametrize("hardness, prior", [(0.0, 0.0), (0.0, 0.1)])
def test_hard_negatives_without_hardness(hardness, prior, z):
    """InfoNCE, and its denominator cleared of positives."""
    items, spec = np.arange(12) % 6, learned.HardNegatives(COSINE, hardness, prior)
    difference = loss_of(z, items, spec) - loss_of(z, items, COSINE)
    assert (abs(difference.item()) < 1e-12) == (prior == 0)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "base" in spec.get_params(deep=False)], ids=str)
def test_a_learned_temperature_reaches_the_kernel(spec):
    spec = type(spec)(learned.Gaussian(metric="cosine", tau="learn"))
    loss = ICONLoss("positive_pairs", spec)
    z = torch.tensor(np.random.default_rng(0).normal(size=(8, 3)))
    loss(z, np.arange(8) % 4).backward()
    assert loss.log_tau.grad.abs() > 1e-4
    assert "learn" in repr(loss.learned)


def test_a_learned_temperature_of_two_modalities():
    X = np.random.default_rng(0).normal(size=(30, 6))
    spec = learned.PairwiseSigmoid(learned.Gaussian(metric="cosine", tau="learn"))
    model = ICONCrossModal(2, learned=spec, encoder="linear", encoder_y="linear", max_iter=5, random_state=0)
    model.fit(X[:, :3], X[:, 3:])
    assert model.learned_.base.tau != 0.3
    assert spec.base.tau == "learn"


def test_what_is_refused(z, monkeypatch):
    for base in (learned.WideGaussian(), learned.SharedCluster(), learned.UniformMixture(COSINE, 0.1)):
        with pytest.raises(ValueError, match="base of Decoupled must be a kernel"):
            learned.Decoupled(base).validate()
    with pytest.raises(ValueError, match="divergence='kl'"):
        ICONLoss("positive_pairs", learned.Decoupled(COSINE), divergence="reverse_kl")
    with pytest.raises(ValueError, match="takes no UniformMixture"):
        learned.UniformMixture(learned.Decoupled(COSINE), 0.1).validate()
    with pytest.raises(ValueError, match="as many of each item"):
        loss_of(z, [0, 0, 0, *[1] * 4, *[2] * 5], learned.MultiView(COSINE))
    with pytest.raises(ValueError, match="keys that are these rows"):
        ICONLoss("cross_modal", learned.MultiView(COSINE))(z, keys=z.flip(0))
    model = ICONEmbedding(learned=learned.Decoupled(learned.Gaussian()), normalization="conditional")
    with pytest.raises(ValueError, match="falls without bound"):
        model.fit(z.detach().numpy())
    monkeypatch.setattr(_objective, "_PAIRS_GIVEN_P", 100)
    model = ICONEmbedding(supervisory=supervisory.UniformKNN(3), learned=learned.Decoupled(learned.StudentT()))
    model.set_params(normalization="conditional", method="exact")
    with pytest.raises(ValueError, match="compares all pairs at once, but 12 rows have 12 keys"):
        model.fit(z.detach().numpy())


def test_heads():
    rows = torch.tensor(np.random.default_rng(0).normal(size=(5, 6)))
    one, cosine = learned.Heads((0.5,)), COSINE
    assert_allclose(one.pairwise(*one.prepare(rows, rows)), cosine.pairwise(*cosine.prepare(rows, rows)), rtol=1e-12)
    for taus in ((), (0.1, 0.0), (0.1, np.nan)):
        with pytest.raises(ValueError, match="must hold a positive temperature"):
            learned.Heads(taus).validate()
    with pytest.raises(ValueError, match="has 3 heads, but representations of 2 columns"):
        learned.Heads((0.1, 0.2, 0.3)).prepare(rows[:, :2], rows[:, :2])


def test_balanced_codes():
    codes = np.random.default_rng(0).dirichlet(np.ones(3) * [5, 1, 1], size=40)
    before = codes.copy()
    p = supervisory.BalancedCodes(n_iter=200).conditional(np.empty((40, 0)), codes).toarray()
    assert_array_equal(codes, before)
    assert_allclose(p.sum(axis=1), 1)
    assert_allclose(p.mean(axis=0), 1 / 3, rtol=1e-6)
    once = supervisory.BalancedCodes(1).conditional(np.empty((40, 0)), codes).toarray()
    wanted = codes / codes.sum(axis=0)
    assert_allclose(once, wanted / wanted.sum(axis=1, keepdims=True))
    for wrong, message in ((-codes, "Negative values"), (codes * np.nan, "NaN"), (codes * 0, "row 0 of y is zero")):
        with pytest.raises(ValueError, match=message):
            supervisory.BalancedCodes().conditional(np.empty((40, 0)), wrong)
    z, keys = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.eye(3, 4)
    assert torch.isfinite(ICONLoss(supervisory.BalancedCodes(), COSINE)(z, np.arange(40) % 3, keys))
