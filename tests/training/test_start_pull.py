"""Maps that keep the arrangement of their start: R against loops, what the descent is given, and what comes of it."""

import pickle

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn import datasets

import sklearn_icon
from sklearn_icon import ICONEmbedding, learned, supervisory
from sklearn_icon._optim.solver import SolverResult
from sklearn_icon._training import maps as _maps
from sklearn_icon._training.start_pull import StartPull
from sklearn_icon.metrics import knn_recall, random_triplet_accuracy

RNG = np.random.RandomState(0)
X, Y = datasets.make_blobs(120, 6, centers=5, random_state=1)
WIDTHS = {  # the square of each kernel's width, by hand
    "student_t": (learned.StudentT(), 1.0),
    "df 3": (learned.StudentT(df=3.0), 1.5),
    "gaussian": (learned.Gaussian(sigma=0.3), 0.18),
    "not smooth at zero": (learned.Harmonic(n=2.0), 1.0),
}


def naive(start, sq_width):
    """R as a function of a tensor, row by row."""
    centred = torch.as_tensor(start - start.mean(axis=0))
    r = centred / (sum(row @ row for row in centred) / len(centred)) ** 0.5

    def of_map(z):
        m = sum(row for row in z) / len(z)
        sq = sum((row - m) @ (row - m) for row in z) / len(z)
        parts = [(a - m - sq.sqrt() * b) @ (a - m - sq.sqrt() * b) for a, b in zip(z, r, strict=True)]
        return sum(parts) / len(z) / (sq + sq_width)

    return of_map


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("width", [1e-3, 1.0, 30.0])
def test_value_and_gradient_are_those_of_loops(name, n_components, width):
    kernel, sq_width = WIDTHS[name]
    start = 1e-4 * RNG.standard_normal((17, n_components)) + 3
    z = torch.tensor(width * RNG.standard_normal((17, n_components)) - 1, requires_grad=True)
    value, gradient = StartPull(start, 1.7, kernel, dtype=torch.float64)(z)
    wanted = 1.7 * naive(start, sq_width)(z)
    torch.testing.assert_close(value, wanted.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, z)[0], rtol=1e-8, atol=1e-12)


def test_it_is_kl_between_normal_densities_about_the_start_and_the_map():
    start, z = RNG.standard_normal((2, 30, 2))
    z = torch.as_tensor(4 * z)
    r = torch.as_tensor((start - start.mean(axis=0)) / start.var(axis=0).sum() ** 0.5)
    s = z.var(0, correction=0).sum().sqrt()
    std = ((s**2 + 1) / 2).sqrt()
    p, q = (torch.distributions.Normal(mean, std) for mean in (s * r, z - z.mean(0)))
    of_rows = torch.distributions.kl_divergence(p, q).sum(1)
    found, _ = StartPull(start, 1.0, learned.StudentT(), dtype=torch.float64)(z)
    torch.testing.assert_close(found, of_rows.mean(), rtol=1e-10, atol=0)


def test_it_is_one_less_correlation_of_wide_maps_and_nothing_at_the_start_itself():
    start = RNG.standard_normal((40, 2))
    pull = StartPull(start, 1.0, learned.StudentT(), dtype=torch.float64)
    z = RNG.standard_normal((40, 2))
    centred, r = z - z.mean(axis=0), start - start.mean(axis=0)
    rho = (centred * r).sum() / np.sqrt((centred**2).sum() * (r**2).sum())
    assert float(pull(torch.as_tensor(1e6 * z + 5))[0]) == pytest.approx(2 - 2 * rho, rel=1e-9)
    for scale in (1e-5, 1.0, 1e5):
        value, gradient = pull(torch.as_tensor(scale * start + 7))
        assert abs(float(value)) < 1e-12 and float(gradient.abs().max()) < 1e-11 / scale
    in_place, still = StartPull(np.ones((40, 2)), 1.0, learned.StudentT(), dtype=torch.float64), torch.ones(40, 2)
    for value in (*in_place(torch.as_tensor(z)), *pull(still.double())):
        assert not value.any()


WAYS = {
    "exact": {},
    "interpolation": {"method": "interpolation"},
    "sampled": {"method": "sampled"},
    "tree": {"n_components": 3, "method": "barnes_hut"},
    "conditional": {"normalization": "conditional"},
    "another divergence": {"divergence": "jensen_shannon"},
    "uniform mass": {"debias": 0.2},
    "a kernel without loops": {"learned": "harmonic"},
    "drawn without loops": {"method": "sampled", "late_exaggeration": 2.0},
    "learned tail": {"learned": learned.StudentT("learn")},
    "spectral": {"init": "spectral"},
    "random": {"init": "random"},
    "array": {"init": 3 * X[:, 2:4]},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_descent_goes_down_d_with_the_pull_whatever_sums_it(way, monkeypatch):
    received, elsewhere = [], np.random.RandomState(5)

    def spy(objective, params, solver, **options):
        (z,) = params
        moved = torch.as_tensor(20 * elsewhere.standard_normal(tuple(z.shape)), dtype=z.dtype)
        start = z.detach().clone()
        with torch.no_grad():
            z.copy_(moved)
        if objective is None:
            loss, (gradient,) = solver.gradient(True)
        else:
            loss = objective()
            (gradient,) = torch.autograd.grad(loss, params)
        received.append((start, moved, float(torch.as_tensor(loss).detach()), gradient.double()))
        with torch.no_grad():
            z.copy_(start)
        return SolverResult(0.0, 1, np.zeros(1), "max_iter")

    monkeypatch.setattr(_maps, "minimize", spy)
    monkeypatch.setattr(_maps, "n_side_by_side", lambda *of_maps: 1)
    if way == "drawn without loops":
        monkeypatch.setattr(_maps, "has_loops", lambda *of_kernel: False)
    for weight in (0.0, 2.5):
        elsewhere.seed(5)
        ICONEmbedding(init_weight=weight, perplexity=10, random_state=0, **WAYS[way]).fit(X)
    n_phases = len(received) // 2
    for (start, moved, plain, slope), (_, _, pulled, steeper) in zip(
        received[:n_phases], received[n_phases:], strict=True
    ):
        z = moved.double().requires_grad_()
        wanted = 2.5 * naive(start.double().numpy(), 4 / 3 if way == "tree" else 1.0)(z)
        assert pulled - plain == pytest.approx(float(wanted.detach()), rel=1e-4, abs=1e-5)
        of_pull = torch.autograd.grad(wanted, z)[0]
        torch.testing.assert_close(steeper - slope, of_pull, rtol=1e-3, atol=2e-6 * float(slope.abs().max()) + 1e-9)


SETS = {
    "blobs": np.concatenate(
        [
            datasets.make_blobs(n, 10, centers=1, cluster_std=s, random_state=n)[0]
            for n, s in ((300, 1), (60, 3), (40, 5))
        ]
    ),
    "roll": datasets.make_swiss_roll(400, random_state=0)[0],
    "digits": datasets.load_digits().data[:400],
}


@pytest.mark.parametrize("name", SETS)
def test_far_rows_keep_their_order_at_little_loss_of_near_ones(name):
    rows = SETS[name]
    plain, pulled = (ICONEmbedding(init_weight=w, random_state=0).fit(rows) for w in (0.0, 1.0))
    far = [random_triplet_accuracy(rows, m.embedding_) for m in (plain, pulled)]
    near = [knn_recall(rows, m.embedding_) for m in (plain, pulled)]
    assert far[1] > far[0] + 0.01
    assert near[1] > near[0] - 0.05


def test_more_weight_is_nearer_to_the_start_and_farther_from_p():
    start = RNG.standard_normal((120, 2))
    maps = [ICONEmbedding(init=start, init_weight=w, perplexity=10, random_state=0).fit(X) for w in (0, 1, 100)]
    at = [float(naive(start, 1.0)(torch.as_tensor(m.embedding_))) for m in maps]
    assert at[0] > at[1] > at[2] < 0.05
    divergences = [m.kl_divergence_ for m in maps]
    assert divergences[0] < divergences[1] < divergences[2]
    assert maps[1].loss_curve_[-1] == pytest.approx(divergences[1] + at[1], rel=0.01)
    assert maps[1].kl_per_sample_.mean() == pytest.approx(divergences[1])


@pytest.mark.parametrize("init", ["pca", "spectral", "random", "array"])
def test_a_warm_start_goes_on_towards_the_same_start(init, monkeypatch):
    starts = []

    class Told(StartPull):
        def __init__(self, start, *args, **like):
            starts.append(start)
            super().__init__(start, *args, **like)

    monkeypatch.setattr(_maps, "StartPull", Told)
    options = {"init": X[:, :2] if init == "array" else init, "init_weight": 1.0, "warm_start": True}
    m = ICONEmbedding(perplexity=10, max_iter=60, random_state=0, **options).fit(X)
    first = m.embedding_
    assert np.corrcoef(first.ravel(), m.fit_transform(X).ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(*starts, strict=True)


def test_new_rows_are_placed_by_their_neighbours_alone(tmp_path):
    m = ICONEmbedding(init_weight=3, perplexity=10, max_iter=100, random_state=0).fit(X)
    new = X[::10] + 0.1
    placed = m.transform(new)
    np.testing.assert_array_equal(m.transform(X), m.embedding_)
    np.testing.assert_array_equal(placed[3:4], m.transform(new[3:4]))
    m.save(tmp_path / "map.icon")
    for other in (pickle.loads(pickle.dumps(m)), sklearn_icon.load(tmp_path / "map.icon")):
        assert other.init_weight == 3
        np.testing.assert_array_equal(other.transform(new), placed)
    np.testing.assert_array_equal(m.set_params(init_weight=0.0).transform(new), placed)


def test_distances_and_graphs_pull_towards_their_eigenvectors():
    for given, what in (
        (cdist(X, X), {"metric": "precomputed"}),
        (np.exp(-cdist(X, X)), {"supervisory": supervisory.Graph()}),
    ):
        loose, held = (
            ICONEmbedding(init_weight=w, perplexity=10, random_state=0, **what).fit(given) for w in (0.0, 50.0)
        )
        start = ICONEmbedding(init="spectral", perplexity=10, random_state=0, max_iter=1, **what).fit(given)
        at = [np.corrcoef(m.embedding_.ravel(), start.embedding_.ravel())[0, 1] for m in (loose, held)]
        assert at[1] > max(at[0], 0.9)


@pytest.mark.parametrize("weight", [-0.1, "much", None])
def test_weights_below_zero_are_refused(weight):
    with pytest.raises(ValueError, match="'init_weight' parameter"):
        ICONEmbedding(init_weight=weight).fit(X)


@pytest.mark.parametrize("weight", [-1.0, 1e300, np.inf, np.nan])
def test_a_weight_that_single_precision_does_not_hold_is_refused_by_name(weight):
    with pytest.raises(ValueError, match=r"'init_weight' parameter .* must be a float in the range"):
        ICONEmbedding(init_weight=weight).fit(np.random.RandomState(0).standard_normal((40, 3)))
