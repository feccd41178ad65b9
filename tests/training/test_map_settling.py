"""When maps end: small ones in a good minimum, all when they have settled; what they report of it; and their score."""

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.manifold import TSNE
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import GridSearchCV, cross_val_score

from sklearn_icon import ICONEmbedding, learned, supervisory
from sklearn_icon._objective import normalizers as _normalizers
from sklearn_icon._objective.objective import Objective
from sklearn_icon._training import maps as _maps
from sklearn_icon._training import placement as _placement
from sklearn_icon._training.few_rows import SideBySide, n_side_by_side
from sklearn_icon.learned import Gaussian, StudentT
from sklearn_icon.metrics import knn_recall

X = datasets.make_blobs(90, 5, centers=3, random_state=2)[0]
RNG = np.random.RandomState(11)
SMALL = {
    "noise": RNG.standard_normal((55, 4)),
    "wide": RNG.standard_normal((120, 30)),
    "flowers": datasets.load_iris().data[1::2],
    "images": datasets.load_digits().data[500:640],
    "roll": datasets.make_swiss_roll(110, random_state=4)[0],
    "counts": RNG.poisson(1.5, (90, 9)).astype(np.float32),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_data_ends_in_as_good_a_minimum_as_exact_tsne(name):
    ours = ICONEmbedding(perplexity=15, random_state=1).fit(SMALL[name])
    theirs = TSNE(perplexity=15, method="exact", random_state=1).fit(SMALL[name])
    assert ours.kl_divergence_ <= 1.02 * theirs.kl_divergence_
    assert ours.n_iter_ < 1000 and ours.stop_reason_ in ("settled", "max_iter")


def test_a_solid_keeps_as_many_neighbours_as_by_tsne():
    A = np.stack(np.meshgrid(*(np.arange(m) for m in (12, 12, 3))), axis=-1).reshape(-1, 3).astype(float)
    A += np.random.RandomState(3).uniform(-0.03, 0.03, A.shape)
    maps = [estimator(random_state=0).fit_transform(A) for estimator in (ICONEmbedding, TSNE)]
    ours, theirs = (knn_recall(A, Z) for Z in maps)
    assert ours > theirs - 0.003  # 0.0061 below where it descends at the full rate after a long exploration


def test_rows_part_at_the_rate_of_the_early_exaggeration():
    A = datasets.load_digits().data[:500]
    q = StudentT(df=2.0)  # one map: those of the Cauchy kernel are unfolded side by side
    m = ICONEmbedding(learned=q, early_exaggeration=4, max_iter=300, random_state=0).fit(A)
    assert [phase[:2] for phase in m.phases_][:2] == [("early exaggeration", 100), ("parting", 60)]
    early = ICONEmbedding(learned=q, early_exaggeration=4, max_iter=160, random_state=0)
    assert "parting" not in [name for name, *_ in early.set_params(early_exaggeration=1).fit(A).phases_]


class _Parting(Exception):
    """Raised where exaggerated phases end."""


@pytest.mark.parametrize(
    ("n", "max_iter", "once", "once_more"),
    [
        (1010, None, [80, 120], [80, 60]),
        (1010, 300, [40, 60], []),
        (500, None, [40, 40], [80, 60]),  # several maps side by side
        (200, None, [40, 40], []),
    ],
)
def test_a_sheet_unfolds_once_more(n, max_iter, once, once_more, monkeypatch):
    steps = []
    solve = _maps._Lookup.solve

    def noted(lookup, phase):
        if "exaggeration" not in phase.name:
            raise _Parting
        steps.append(phase.n_steps)
        return solve(lookup, phase)

    monkeypatch.setattr(_maps._Lookup, "solve", noted)
    rng = np.random.RandomState(7)
    sheet = np.c_[rng.uniform(0, 9, (n, 2)), rng.standard_normal((n, 1)) / 20]
    bent = np.c_[np.sin(sheet[:, 0] / 2), np.cos(sheet[:, 0] / 2), sheet[:, 1:] / 3]
    blobs = datasets.make_blobs(n, 8, centers=20, random_state=3)[0]
    for A, is_sheet in ((sheet, True), (bent, True), (rng.standard_normal((n, 12)), False), (blobs, False)):
        steps.clear()
        with pytest.raises(_Parting):
            ICONEmbedding(perplexity=12, max_iter=max_iter, random_state=0).fit(A)
        assert steps == once + once_more * is_sheet


@pytest.mark.parametrize("kernel", [StudentT(), StudentT(df=0.5), Gaussian(2.0)], ids=repr)
@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("least_rows", [0, 1000])
def test_maps_side_by_side_have_the_loss_and_gradient_of_each(kernel, n_components, least_rows, monkeypatch):
    monkeypatch.setattr(_normalizers, "_COMPILED_ROWS", least_rows)
    p = supervisory.Gaussian(perplexity=8).conditional(X)
    objective = Objective(p, kernel, normalization="joint")
    start = torch.as_tensor(np.random.RandomState(0).standard_normal((len(X), n_components)))
    several = SideBySide(objective, start, 3, np.random.RandomState(1))
    assert torch.equal(several.maps[0], start)
    losses = [float(objective(z)) for z in several.maps]
    np.testing.assert_allclose(several.losses(), losses, rtol=1e-10)
    least, (gradient,) = several.gradient(1.0, True)
    assert least == pytest.approx(min(losses)) and torch.equal(several.best(), several.maps[int(np.argmin(losses))])
    for factor, found in [(1.0, gradient), (4.0, several.gradient(4.0, False)[1][0])]:
        expected = torch.stack([objective.gradient(z.clone().requires_grad_(), factor)[1] for z in several.maps])
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kernel", [StudentT(), StudentT(df=3.0), Gaussian(), learned.Rational()])
def test_the_push_on_new_rows_is_the_gradient_of_the_log_sum_of_their_kernels(kernel):
    z, keys = (torch.as_tensor(RNG.standard_normal(shape) * 20) for shape in ((7, 2), (2, 50)))
    z.requires_grad_()
    offsets = z.T[:, :, None] - keys[:, None, :]
    (expected,) = torch.autograd.grad(kernel.log_kernel(offsets.square().sum(0)).logsumexp(1).sum(), z)
    torch.testing.assert_close(_placement._push(offsets.detach(), kernel).T, expected, rtol=1e-10, atol=1e-12)


def test_which_maps_are_unfolded_side_by_side():
    p = supervisory.Gaussian(perplexity=8).conditional(X)
    plain = Objective(p, StudentT(), normalization="joint")
    rows = {n: torch.zeros(n, 2) for n in (10, 50, 200, 400, 700, 1000, 5000)}
    assert [n_side_by_side(plain, z) for z in rows.values()] == [10, 10, 5, 6, 3, 3, 1]
    in_torch = Objective(p, Gaussian(), normalization="joint")
    assert [n_side_by_side(in_torch, z) for z in rows.values()] == [10, 10, 5, 3, 1, 1, 1]
    for other in ({"normalization": "conditional"}, {"normalization": "joint", "divergence": "jensen_shannon"}):
        assert n_side_by_side(Objective(p, StudentT(), **other), rows[50]) == 1


def test_a_given_start_is_the_only_one():
    start = np.random.RandomState(0).standard_normal((len(X), 2))
    m = ICONEmbedding(perplexity=8, init=start, max_iter=300, random_state=0).fit(X)
    assert "descent side by side" not in [name for name, *_ in m.phases_]
    other = ICONEmbedding(perplexity=8, init=start, max_iter=300, random_state=1).fit(X)
    np.testing.assert_array_equal(m.embedding_, other.embedding_)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({}, "settled"),
        ({"max_iter": 60}, "max_iter"),
        ({"min_grad_norm": 1e9}, "min_grad_norm"),
        ({"encoder": "linear"}, "converged"),
        ({"encoder": "mlp", "max_iter": 3}, "completed"),
        ({"method": "sampled", "max_iter": 5}, "max_iter"),
        ({"method": "sampled", "max_iter": 5, "learned": learned.Rational()}, "completed"),
    ],
)
def test_why_a_fit_ended(params, reason):
    m = ICONEmbedding(perplexity=8, random_state=0, **params).fit(SMALL["wide"])
    assert m.stop_reason_ == m.phases_[-1][2] == reason
    assert sum(n_iter for _, n_iter, _ in m.phases_) == m.n_iter_ + 1 <= params.get("max_iter", 1000)
    assert m.loss_curve_.shape == m.loss_iterations_.shape and m.loss_iterations_[-1] <= m.n_iter_ + 1
    assert (np.diff(m.loss_iterations_) > 0).all() and m.loss_iterations_[0] == 1
    assert len(np.unique(m.loss_curve_)) > 0.9 * len(m.loss_curve_)  # measured, not repeated


def test_no_progress_of_minus_one_is_the_first_check_without_a_lower_loss():
    for patience in (-1, 0, 300):
        ICONEmbedding(perplexity=8, n_iter_without_progress=patience, max_iter=20).fit(X)
    with pytest.raises(ValueError, match="n_iter_without_progress"):
        ICONEmbedding(n_iter_without_progress=-2).fit(X)


def test_few_rows_under_an_exaggeration_that_stays_settle():
    A, names = datasets.load_digits().data[:120], ["parting", "descent", "settling"]
    m = ICONEmbedding(supervisory="fuzzy", learned=learned.Rational(), late_exaggeration=1.1, random_state=0).fit(A)
    assert [name for name, *_ in m.phases_][-3:] == names
    assert m.phases_[-2][1] == 100 and m.stop_reason_ == "settled" and m.n_iter_ < 800
    one, many = (_maps._Settled(supervisory.UniformKNN(5).conditional(X), torch.zeros(90, 2), b) for b in (True, False))
    assert (one.least_fall, many.least_fall) == (0.01, pytest.approx(2e-3 * (90 / 1800) ** 0.7))
    for how in ({"learned": learned.Rational(), "late_exaggeration": 2.0}, {"late_exaggeration": 1.1}):
        for method in ("exact", "sampled"):
            other = ICONEmbedding(supervisory="fuzzy", method=method, max_iter=120, random_state=0, **how)
            assert "settling" not in [name for name, *_ in other.fit(A).phases_]


def test_many_rows_end_with_finer_steps(monkeypatch):
    monkeypatch.setattr(_maps, "_PATIENT_ROWS", 200)
    A = datasets.load_digits().data[:500]
    m = ICONEmbedding(max_iter=200, random_state=0).fit(A)
    assert [name for name, *_ in m.phases_][-2:] == ["descent", "refinement"] and m.n_iter_ < 200
    assert m.learning_rate_ == pytest.approx(max(500, 50) / 4)


# --- score --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [None, "linear"])
def test_score_is_the_recall_of_neighbours(encoder):
    A = datasets.load_digits().data[:400]
    m = ICONEmbedding(encoder=encoder, max_iter=150, random_state=0).fit(A[:300])
    assert m.score(A[300:]) == knn_recall(A[300:], m.transform(A[300:]))
    assert m.score(A[300:302]) == 1.0  # two rows are each other's only neighbours
    with pytest.raises(ValueError, match="at least 2"):
        m.score(A[:1])
    blurred = ICONEmbedding(encoder=encoder, max_iter=1, init="random", random_state=0).fit(A[:300])
    assert encoder or m.score(A[300:]) > blurred.score(A[300:])


def test_score_of_distances_is_among_the_fitted_rows():
    A = datasets.load_digits().data[:260]
    D = pairwise_distances(A)
    m = ICONEmbedding(metric="precomputed", perplexity=15, max_iter=150, random_state=0).fit(D[:200, :200])
    placed = m.transform(D[200:, :200])
    near = [np.argsort(R, axis=1)[:, :10] for R in (D[200:, :200], pairwise_distances(placed, m.embedding_))]
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    assert m.score(D[200:, :200]) == pytest.approx(expected) and expected > 0.3
    scores = cross_val_score(m, D, cv=3)
    assert np.isfinite(scores).all()


def test_a_graph_has_no_score():
    graph = supervisory.UniformKNN(n_neighbors=5).conditional(X).weights
    m = ICONEmbedding(supervisory="graph", init="random", max_iter=5, random_state=0).fit(graph)
    with pytest.raises(ValueError, match="graph"):
        m.score(graph)


def test_a_search_over_kernels_needs_no_scoring():
    grid = {"learned": [learned.StudentT(), learned.Gaussian(), "student_t"], "supervisory": ["gaussian", "knn"]}
    m = ICONEmbedding(perplexity=8, max_iter=40, random_state=0)
    search = GridSearchCV(m, grid, cv=2, error_score="raise").fit(X)
    assert 0 < search.best_score_ <= 1 and hasattr(search.best_estimator_, "embedding_")
