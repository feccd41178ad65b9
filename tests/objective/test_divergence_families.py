"""Families of divergences: their values by loops, their limits, and where they are taken."""

from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import sklearn_icon
from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, learned
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._objective.divergences import DIVERGENCES
from sklearn_icon._objective.objective import Objective
from sklearn_icon.divergences import Alpha, Renyi, TotalVariation
from sklearn_icon.nn import ICONLoss
from sklearn_icon.plotting import NeighborhoodDisplay

N = 7
RNG = np.random.default_rng(4)
FULL = RNG.uniform(0.1, 1, size=(N, N))
SOME = FULL * (RNG.uniform(size=(N, N)) < 0.5)
Z = torch.as_tensor(RNG.normal(size=(N, 2)))
MEMBERS = [Alpha(-0.5), Alpha(0.3), Alpha(0.5), Alpha(0.8), Alpha(2.0), Renyi(0.4), Renyi(2.0), TotalVariation(0.3)]


def naive(divergence, p, q):
    """D of a row, from its definition."""
    pairs = list(zip(p, q, strict=True))
    if not divergence.get_params().get("alpha"):
        s = divergence.smoothing
        return sum(sqrt((a - b) ** 2 + s**2 * a * b) - s * sqrt(a * b) for a, b in pairs) / 2
    alpha = divergence.alpha
    overlap = sum(a**alpha * b ** (1 - alpha) for a, b in pairs if a)
    return (1 - overlap) / (alpha * (1 - alpha)) if divergence.additive else log(overlap) / (alpha - 1)


def rows_of(p, z):
    """p and q of each row over the others."""
    q = [[exp(-sum((a - b) ** 2)) for b in z.numpy()] for a in z.numpy()]
    dense = p.toarray() + p.uniform * 0
    for i in range(N):
        others = [j for j in range(N) if j != i]
        total = sum(q[i][j] for j in others)
        yield [dense[i, j] for j in others], [q[i][j] / total for j in others]


@pytest.mark.parametrize("divergence", MEMBERS, ids=repr)
@pytest.mark.parametrize("mixed", [0.0, 0.3])
def test_equals_its_definition(divergence, mixed):
    weights = FULL if divergence.at_zero is None and not mixed else SOME
    p = Conditional.from_weights(weights, exclude_self=True).mix(mixed)
    kernel = learned.Gaussian(sigma=0.5**0.5)
    expected = np.mean([naive(divergence, *rows) for rows in rows_of(p, Z) if sum(rows[0])])
    objective = Objective(p, kernel, divergence=divergence)
    assert objective(Z).item() == pytest.approx(expected, rel=1e-11)
    assert torch.autograd.gradcheck(objective, Z.clone().requires_grad_())
    given = np.where(np.eye(N), 0, p.toarray())
    loss = ICONLoss("graph", kernel, divergence)(Z, torch.as_tensor(given))
    assert loss.item() == pytest.approx(expected, rel=1e-11)
    assert abs(expected) > 1e-3


@pytest.mark.parametrize(
    "member, name, factor",
    [
        (Alpha(1.0), "kl", 1),
        (Alpha(1 - 1e-12), "kl", 1),
        (Alpha(1 + 1e-10), "kl", 1),
        (Renyi(1.0), "kl", 1),
        (Renyi(1 + 1e-10), "kl", 1),
        (Alpha(0.0), "reverse_kl", 1),
        (Alpha(1e-10), "reverse_kl", 1),
        (Alpha(-1e-12), "reverse_kl", 1),
        (Alpha(0.5), "squared_hellinger", 4),
        (TotalVariation(0.0), "total_variation", 1),
        (TotalVariation(1e-10), "total_variation", 1),
        (TotalVariation(2.0), "squared_hellinger", 2),
    ],
    ids=repr,
)
def test_members_and_limits(member, name, factor):
    p, log_q = (torch.as_tensor(FULL[i] / FULL[i].sum()) for i in (0, 1))
    log_q = log_q.log()
    factor = 1 if member.get_params() == {"smoothing": 2.0} else factor
    found = member.of_sum(member.term(p, log_q).sum())
    assert_allclose(found, factor * DIVERGENCES[name].term(p, log_q).sum(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("divergence", [member for member in MEMBERS if member.at_zero is not None], ids=repr)
def test_a_p_of_zero_costs_what_is_declared(divergence):
    log_q = torch.linspace(-30, 0, 9, dtype=torch.float64)
    found = divergence.term(torch.zeros(9, dtype=torch.float64), log_q)
    assert_allclose(found, divergence.at_zero * log_q.exp(), rtol=1e-12, atol=1e-300)
    assert_allclose(divergence.term(log_q.exp(), log_q), 0, atol=1e-16)


X = RNG.normal(size=(60, 4)) + 3 * np.eye(4)[RNG.integers(4, size=60)]
Y = (X[:, 0] > X[:, 1]).astype(int)


@pytest.mark.parametrize("divergence", [Alpha(0.7), Renyi(0.5), TotalVariation()], ids=repr)
def test_estimators_take_them(divergence, tmp_path):
    cases = [
        (ICONEmbedding(perplexity=5, max_iter=100, normalization="conditional"), None),
        (ICONClustering(3, supervisory="knn", encoder="linear", max_iter=5), None),
        (ICONClassifier(max_iter=20), Y),
        (ICONCrossModal(n_components=2, max_iter=5), X[:, ::-1] + 0.1),
    ]
    for estimator, y in cases:
        estimator.set_params(divergence=divergence, random_state=0)
        if isinstance(estimator, ICONClustering) and not divergence.additive:
            with pytest.raises(ValueError, match="is no sum over pairs"):
                estimator.fit(X)
            continue
        estimator.fit(X, y)
        assert np.isfinite(estimator.loss_curve_).all()
        if not isinstance(estimator, ICONClustering):  # which starts from the best of a search
            assert estimator.loss_curve_[-1] < estimator.loss_curve_[0]
        estimator.save(tmp_path / "fitted")
        assert repr(sklearn_icon.load(tmp_path / "fitted").divergence) == repr(clone(estimator).divergence)


def test_orders_are_searched_like_any_parameter():
    search = GridSearchCV(ICONClassifier(divergence=Alpha(0.5)), {"divergence__alpha": [0.4, 1.0]}, cv=2).fit(X, Y)
    assert search.best_score_ > 0.8


def test_classifier_of_order_one_is_that_of_kl():
    ours, kl = (ICONClassifier(divergence=d, tol=1e-8).fit(X, Y) for d in (Alpha(1.0), "kl"))
    assert_allclose(ours.coef_, kl.coef_, atol=1e-3)


def test_renyi_of_single_positives_is_kl():
    views = torch.tensor([0, 1, 2, 0, 1, 2])
    kl, renyi = (ICONLoss("positive_pairs", "student_t", divergence)(Z[:6], views) for divergence in ("kl", Renyi(0.3)))
    assert_allclose(renyi, kl, rtol=1e-12)


def test_a_picture_names_the_divergence():
    pytest.importorskip("matplotlib")
    model = ICONEmbedding(perplexity=5, max_iter=20, divergence=Alpha(0.5), random_state=0).fit(X)
    assert "Alpha(alpha=0.5)" in NeighborhoodDisplay.from_estimator(model, X, index=3).divergence_name


@pytest.mark.parametrize(
    "divergence, message",
    [
        (Renyi(0.0), "The 'alpha' parameter of Renyi"),
        (TotalVariation(3.0), "The 'smoothing' parameter of TotalVariation"),
        (Alpha("a"), "The 'alpha' parameter of Alpha"),
        (Alpha(-1.0), "infinite where p is zero"),
        ("chi", "The 'divergence' parameter"),
    ],
    ids=repr,
)
def test_what_is_refused(divergence, message):
    with pytest.raises(ValueError, match=message):
        ICONEmbedding(supervisory="knn", divergence=divergence).fit(X)
    if "infinite" not in message:
        with pytest.raises(ValueError, match=message):
            ICONLoss("same_class", "student_t", divergence)


def test_joint_normalisation_needs_a_sum():
    with pytest.raises(ValueError, match="no sum over pairs, as normalization='joint' needs"):
        ICONEmbedding(divergence=Renyi(0.5), perplexity=5).fit(X)
