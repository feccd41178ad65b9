"""`ICONCrossModal` and its solver: the losses of CLIP and its relatives, retrieval, and the estimator's contract."""

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.cross_decomposition import CCA
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from solver_settings import settings_of

from sklearn_icon import ICONCrossModal, encoders, learned, supervisory
from sklearn_icon._optim import train as _train
from sklearn_icon._optim.solver import SolverResult
from sklearn_icon._training import pairs as _pairs

IMAGES = load_digits().data
UPPER, LOWER = (half[np.random.RandomState(0).permutation(len(IMAGES))] for half in (IMAGES[:, :32], IMAGES[:, 32:]))
X, Y, X_NEW, Y_NEW = UPPER[:1300], LOWER[:1300], UPPER[1300:], LOWER[1300:]
QUICK = {"max_iter": 3, "random_state": 0}


def representations(n=7, d=3, unit=False):
    draw = torch.randn(2, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draw = torch.nn.functional.normalize(draw, dim=2) if unit else draw
    return [side.requires_grad_() for side in draw]


def ours(q, z, w, uniform=0.0, divergence="kl"):
    return _pairs.symmetric_loss(_pairs.batch_of_pairs(len(z), q, divergence, uniform, z.detach()), z, w)


def cross_entropy(similarity, smoothing=0.0):
    """The symmetric cross-entropy of a matrix of logits whose diagonal is right."""
    own = torch.arange(len(similarity))
    return sum(
        torch.nn.functional.cross_entropy(logits, own, label_smoothing=smoothing) / 2
        for logits in (similarity, similarity.T)
    )


def clip(z, w):
    z, w = (side / side.norm(dim=1, keepdim=True) for side in (z, w))
    return cross_entropy(z @ w.T / 0.2)


def sq_distances(one, other):
    return [[((a - b) ** 2).sum() for b in other] for a in one]


def of_distances(row_loss):
    """The mean over rows of both modalities of row_loss(squared distances to all keys, own key)."""

    def loss(z, w):
        both = (sq_distances(z, w), sq_distances(w, z))
        return sum(row_loss(row, i) for rows in both for i, row in enumerate(rows)) / (2 * len(z))

    return loss


def t_clip_of_a_row(row, i, df=2.0):
    kernels = [(1 + sq_distance / df) ** (-(df + 1) / 2) for sq_distance in row]
    return -(kernels[i] / sum(kernels)).log()


def gaussian_of_a_row(row, i, sigma=0.5):
    kernels = [(-sq_distance / (2 * sigma**2)).exp() for sq_distance in row]
    return -(kernels[i] / sum(kernels)).log()


LOSSES = {
    "clip": (learned.Gaussian(metric="cosine", tau=0.2), clip),
    "dot": (learned.Gaussian(metric="dot", tau=0.5), lambda z, w: cross_entropy(z @ w.T / 0.5)),
    "euclidean": (learned.Gaussian(sigma=0.5), of_distances(gaussian_of_a_row)),
    "t-clip": (learned.StudentT(df=2.0), of_distances(t_clip_of_a_row)),
    "average-margin": (learned.WideGaussian(), of_distances(lambda row, i: row[i] - sum(row) / len(row))),
    "triplet": (learned.NarrowGaussian(), of_distances(lambda row, i: row[i] - min(row))),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("df", [0.4, 1.0, 3.0])
def test_loss_of_tails_and_its_gradient(df, dtype, monkeypatch):
    rng = torch.Generator().manual_seed(2)
    z, w = (torch.randn(17, 3, generator=rng, dtype=torch.float64).mul_(s) for s in (1.0, 30.0))
    both = [part.to(dtype).requires_grad_() for part in (z, w)]
    found = ours(learned.StudentT(df), *both)
    gradient = torch.autograd.grad(found, both)
    monkeypatch.setattr(_pairs, "_LEAST_POWER", 1.0)  # as of any kernel
    expected = ours(learned.StudentT(df), *both)
    rtol = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(found, expected, rtol=rtol, atol=0)
    for part, other in zip(gradient, torch.autograd.grad(expected, both), strict=True):
        torch.testing.assert_close(part, other, rtol=rtol, atol=rtol * float(other.abs().max()))


@pytest.mark.parametrize("q, naive", LOSSES.values(), ids=LOSSES)
def test_losses_and_gradients_are_those_of_naive_loops(q, naive):
    z, w = representations()
    values = [ours(q, z, w), naive(z, w)]
    assert float(values[0].detach()) == pytest.approx(float(values[1].detach()), abs=1e-10)
    for mine, theirs in zip(*(torch.autograd.grad(value, [z, w]) for value in values), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-10)


def test_average_margin_on_the_sphere_is_a_difference_of_cosines():
    z, w = (side.detach() for side in representations(unit=True))
    cosines = z @ w.T
    margin = 2 * (cosines.mean() - cosines.diagonal().mean())
    assert float(ours(learned.WideGaussian(), z, w)) == pytest.approx(float(margin), abs=1e-10)


def test_debiased_pairs_are_smoothed_labels():
    z, w = representations()
    a, n = 0.3, len(z)
    p = np.array([1 - a + a / n] + [a / n] * (n - 1))
    expected = cross_entropy(z @ w.T, smoothing=a) + p @ np.log(p)
    loss = ours(learned.Gaussian(metric="dot"), z, w, uniform=a)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-10)


@pytest.mark.parametrize("spec", ["clip", "t-clip"])
def test_recall_is_that_of_a_loop(spec, monkeypatch):
    monkeypatch.setattr(_pairs, "ROWS_AT_ONCE", 4)
    z, w = (side.detach().numpy() for side in representations(30, 2))
    w = z + 0.3 * w
    if spec == "clip":
        affinity = (z / np.linalg.norm(z, axis=1)[:, None]) @ (w / np.linalg.norm(w, axis=1)[:, None]).T
    else:
        affinity = -np.square(z[:, None] - w).sum(axis=2)
    found = [max(range(30), key=lambda j, row=row: row[j]) == i for i, row in enumerate(affinity)]
    assert 0.1 < np.mean(found) < 1
    assert _pairs.recall_at_one(LOSSES[spec][0], z, w) == pytest.approx(np.mean(found))


def recall_by_a_loop(affinity, same):
    """The mean fraction of right ones among the nearest."""
    total = 0.0
    for i, row in enumerate(affinity):
        tied = [j for j, value in enumerate(row) if value == max(row)]
        total += sum(bool(same[i][j]) for j in tied) / len(tied)
    return total / len(affinity)


@pytest.mark.parametrize("q", ["clip", "dot", "t-clip"])
def test_ties_and_equal_items_are_those_of_a_loop(q, monkeypatch):
    """Representations on a coarse grid: many are equally near, some are equal."""
    monkeypatch.setattr(_pairs, "ROWS_AT_ONCE", 7)
    rng = np.random.RandomState(2)
    z, w = (rng.randint(-1, 2, size=(40, 3)) * 1.0 for _ in range(2))
    z, w = (np.where((side == 0).all(1, keepdims=True), [0.0, 0.0, 1.0], side) for side in (z, w))
    items = rng.randint(20, size=40), rng.randint(30, size=40)
    if q == "clip":
        affinity = (z / np.linalg.norm(z, axis=1)[:, None]) @ (w / np.linalg.norm(w, axis=1)[:, None]).T
    else:
        affinity = z @ w.T if q == "dot" else -np.square(z[:, None] - w).sum(axis=2)
    same = np.eye(40, dtype=bool) | (items[0][:, None] == items[0]) | (items[1][:, None] == items[1])
    spec, affinity = LOSSES[q][0], affinity.round(9)
    assert _pairs.recall_at_one(spec, z, w, items) == pytest.approx(recall_by_a_loop(affinity, same))
    assert _pairs.recall_at_one(spec, z, w) == pytest.approx(recall_by_a_loop(affinity, np.eye(40)))


class _Fixed(torch.nn.Module):
    """A factor times the first columns, or the same row for all."""

    factor = 1.0

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.scale, self.n_outputs = torch.nn.Parameter(torch.ones(())), n_outputs

    def forward(self, x):
        return self.scale * self.factor * x.flatten(1)[:, : self.n_outputs]


class _Tiny(_Fixed):
    factor = 1e-30


class _Huge(_Fixed):
    factor = 1e30


class _Constant(_Fixed):
    def forward(self, x):
        return self.scale * torch.ones(len(x), self.n_outputs, dtype=x.dtype)


def a_step(module, X, Y, **parameters):
    return ICONCrossModal(4, encoder=encoders.Module(module), max_iter=1, random_state=0, **parameters).fit(X, Y)


KINDS = {
    "double": np.asarray,
    "single": np.float32,
    "csr": sparse.csr_array,
    "images": lambda rows: rows.reshape(len(rows), 2, 2, -1),
    "integers": lambda rows: (100 * rows).round().astype(int),
}


@pytest.mark.parametrize("learned", ["cosine", "student_t", "wide_gaussian"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_equal_items_of_either_side_count_as_found(kind, learned):
    rng = np.random.RandomState(3)
    items, captions = rng.normal(size=(30, 8)), rng.normal(size=(120, 8))
    copies = np.repeat(np.arange(30), 4)
    captions[:, :4] = items[copies, :4] + 1e-2 * captions[:, :4]  # which the encoder reads
    for left, right in ((items[copies], captions), (captions, items[copies])):
        left, right = kind(left), kind(right)
        pairs = a_step(_Fixed, left, right, learned=learned)
        assert pairs.score(left, right) > 0.99
        numbers = np.arange(120)[:, None] * np.ones(8)  # no two are equal
        z, w = pairs.transform(left, right)
        alone = [_pairs.recall_at_one(pairs.learned_, *both, [numbers[:, 0]]) for both in ((z, w), (w, z))]
        assert np.mean(alone) < 0.7


@pytest.mark.parametrize("learned", ["cosine", "student_t", "narrow_gaussian"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_encoders_that_tell_nothing_apart_find_one_in_n(dtype, learned):
    rows = np.random.RandomState(4).normal(size=(150, 6)).astype(dtype)
    assert a_step(_Constant, rows, rows, learned=learned).score(rows, rows) == pytest.approx(1 / 150)


@pytest.mark.parametrize("module", [_Tiny, _Huge])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("learned", ["cosine", "wide_gaussian"])
def test_representations_are_unit_rows_whatever_their_lengths(module, dtype, learned):
    rows = np.random.RandomState(5).normal(size=(90, 6)).astype(dtype)
    pairs = a_step(module, rows, rows, learned=learned)
    for side in pairs.transform(rows, rows):
        np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1, rtol=1e-5)
    assert pairs.score(rows, rows) == 1


FITTED = {
    "clip": ICONCrossModal(random_state=0),
    "t-clip": ICONCrossModal(learned=learned.StudentT(df=5.0), random_state=0),
    "average-margin": ICONCrossModal(learned="wide_gaussian", random_state=0),
    "triplet": ICONCrossModal(learned="narrow_gaussian", random_state=0),
    "debiased": ICONCrossModal(
        learned=learned.UniformMixture(learned.Gaussian(metric="cosine", tau="learn"), 0.2),
        debias=0.2,
        random_state=0,
    ),
    "linear": ICONCrossModal(encoder="linear", encoder_y="mlp", random_state=0),
    "total_variation": ICONCrossModal(learned="student_t", divergence="total_variation", random_state=0),
}
each = pytest.mark.parametrize("estimator", FITTED.values(), ids=FITTED)


@pytest.mark.slow
@each
def test_every_loss_finds_partners(estimator):
    score = clone(estimator).set_params(max_iter=40).fit(X, Y).score(X_NEW, Y_NEW)
    assert score > 10 / len(X_NEW)  # ten times chance


def test_beats_cca_on_halves_of_digits():
    best_of_cca, varies = 0.0, [half.std(axis=0) > 0.1 for half in (X, Y)]
    for n_components in (5, 10, 20):
        cca = CCA(n_components, max_iter=5000).fit(X[:, varies[0]], Y[:, varies[1]])
        z, w = cca.transform(X_NEW[:, varies[0]], Y_NEW[:, varies[1]])
        for q in (learned.Gaussian(), learned.Gaussian(metric="cosine")):
            recall = (_pairs.recall_at_one(q, z, w) + _pairs.recall_at_one(q, w, z)) / 2
            best_of_cca = max(best_of_cca, recall)
    pairs = ICONCrossModal(random_state=0).fit(X, Y)
    assert best_of_cca > 5 / len(X_NEW)
    assert pairs.score(X_NEW, Y_NEW) > 2 * best_of_cca
    assert 0.01 < pairs.learned_.tau < 0.3
    assert pairs.loss_curve_[-20:].mean() < pairs.loss_curve_[0] / 3


@each
def test_transform_and_score(estimator):
    pairs = clone(estimator).set_params(max_iter=2, n_components=6).fit(X, Y)
    assert (pairs.n_iter_, pairs.loss_curve_.shape, pairs.n_features_y_) == (2, (12,), 32)
    z, w = pairs.transform(X_NEW, Y_NEW)
    np.testing.assert_array_equal(pairs.transform(X_NEW), z)
    np.testing.assert_array_equal(pairs.transform(None, Y_NEW), w)
    np.testing.assert_array_equal(pairs.transform_y(Y_NEW), w)
    assert z.shape == w.shape == (len(X_NEW), len(pairs.get_feature_names_out()))
    is_unit = all(np.allclose(np.linalg.norm(side, axis=1), 1) for side in (z, w))
    assert is_unit == ("StudentT" not in str(pairs.learned_))
    found = _pairs.recall_at_one(pairs.learned_, z, w), _pairs.recall_at_one(pairs.learned_, w, z)
    assert pairs.score(X_NEW, Y_NEW) == pytest.approx(np.mean(found))
    assert pairs.score(X_NEW[:1], Y_NEW[:1]) == 1


@each
def test_pickles_and_repeats(estimator):
    estimator = clone(estimator).set_params(max_iter=2)
    pairs = pickle.loads(pickle.dumps(clone(estimator).fit(X, Y)))
    state = torch.get_rng_state()
    torch.manual_seed(9)
    before = torch.get_rng_state()
    again = clone(estimator).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)
    for one, other in zip(pairs.transform(X_NEW, Y_NEW), again.transform(X_NEW, Y_NEW), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (clone(estimator).set_params(random_state=1).fit(X, Y).transform(X_NEW) != pairs.transform(X_NEW)).any()


def with_dropout(n_inputs, n_outputs):
    return torch.nn.Sequential(
        torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(n_inputs), torch.nn.Linear(n_inputs, n_outputs)
    )


def test_what_modules_draw_is_seeded_too():
    pairs = ICONCrossModal(encoder=encoders.Module(with_dropout), **QUICK)
    before = torch.get_rng_state()
    curves = [clone(pairs).fit(X, Y).loss_curve_ for _ in range(2)]
    np.testing.assert_array_equal(*curves)
    assert torch.equal(torch.get_rng_state(), before)
    pairs.fit(X, Y)
    np.testing.assert_array_equal(pairs.transform(X_NEW), pairs.transform(X_NEW))


class _Breaks(torch.nn.Module):
    """Linear until a few calls have been made, then not a number."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.linear = torch.nn.Linear(n_inputs, n_outputs)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * (float("nan") if self.training and self.calls > 5 else 1.0)


def test_a_loss_that_is_not_finite():
    pairs = ICONCrossModal(encoder=encoders.Module(_Breaks), **QUICK)
    with pytest.raises(ValueError, match=r"ICONCrossModal: .* in epoch 1, at iteration 5, and .* at half the rate"):
        pairs.fit(X, Y)


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csr_matrix])
def test_sparse_rows_of_either_side(container):
    dense = ICONCrossModal(encoder="linear", **QUICK).fit(X, Y)
    mixed = ICONCrossModal(encoder="linear", **QUICK).fit(X, container(Y))
    both = ICONCrossModal(encoder="linear", **QUICK).fit(container(X), container(Y))
    for pairs in (mixed, both):  # sparse rows are not centred
        assert pairs.transform_y(container(Y_NEW)).shape == (len(Y_NEW), 32)
        np.testing.assert_allclose(pairs.transform_y(container(Y_NEW)), pairs.transform_y(Y_NEW), atol=1e-12)
    assert abs(both.score(X_NEW, Y_NEW) - dense.score(X_NEW, Y_NEW)) < 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_X(dtype):
    pairs = ICONCrossModal(**QUICK).fit(X.astype(dtype), Y)
    assert {z.dtype for z in pairs.transform(X_NEW, Y_NEW)} == {np.dtype(dtype)}


def test_one_dimensional_y_and_rows_untouched():
    rows, column = X.copy(), Y[:, 3].copy()
    pairs = ICONCrossModal(**QUICK).fit(rows, column)
    np.testing.assert_array_equal(pairs.transform_y(column), pairs.transform_y(column[:, None]))
    np.testing.assert_array_equal(rows, X)
    np.testing.assert_array_equal(column, Y[:, 3])


def test_either_side_alone_does_not_depend_on_its_batch():
    pairs = ICONCrossModal(**QUICK).fit(X, Y)
    z, w = pairs.transform(X_NEW[:5], Y_NEW)
    np.testing.assert_allclose(z, pairs.transform(X_NEW)[:5], atol=1e-12)
    np.testing.assert_allclose(w[:5], pairs.transform(None, Y_NEW[:5]), atol=1e-12)
    assert len(w) == len(Y_NEW)
    with pytest.raises(ValueError, match="X=None and y=None; pass X, y or both"):
        pairs.transform(None)
    with pytest.raises(NotFittedError):
        ICONCrossModal().transform(None, Y_NEW)


def test_frames_as_those_of_cca():
    pd = pytest.importorskip("pandas")
    ours = ICONCrossModal(3, encoder="linear", **QUICK).set_output(transform="pandas")
    theirs = CCA(3, max_iter=5000).set_output(transform="pandas")
    varies = [half.std(axis=0) > 0.1 for half in (X, Y)]
    frames = [pd.DataFrame(half[:, kept]) for half, kept in zip((X, Y), varies, strict=True)]
    frames = [frame.set_axis([f"column {i}" for i in frame], axis=1).set_axis(frame.index + 7) for frame in frames]
    for pairs in (ours, theirs):
        names = [f"{type(pairs).__name__.lower()}{i}" for i in range(3)]
        first, second = pairs.fit(*frames).transform(*frames)
        assert type(second) is np.ndarray and first.index.equals(frames[0].index)
        assert list(first.columns) == list(pairs.get_feature_names_out()) == names
        alone = pairs.transform(frames[0])
        assert alone.index.equals(frames[0].index) and list(alone.columns) == names
    for alone in (ours.transform(None, frames[1][:9]), ours.transform_y(frames[1][:9])):
        assert alone.index.equals(frames[1].index[:9]) and list(alone.columns) == list(ours.get_feature_names_out())
    ours.set_output(transform="default")
    assert type(ours.transform(None, frames[1])) is np.ndarray


def test_in_pipelines_searches_and_frames():
    pipeline = make_pipeline(StandardScaler(), ICONCrossModal(**QUICK)).fit(X, Y)
    assert [side.shape for side in pipeline.fit_transform(X, Y)] == [(len(X), 32)] * 2
    search = GridSearchCV(ICONCrossModal(**QUICK), {"learned": ["cosine", "student_t"], "n_components": [4]}, cv=2)
    assert search.fit(X, Y).best_score_ > 1 / len(X)
    frame = ICONCrossModal(3, **QUICK).set_output(transform="pandas").fit(X, Y).transform(X_NEW)
    assert list(frame.columns) == ["iconcrossmodal0", "iconcrossmodal1", "iconcrossmodal2"]


def test_prints_progress(capsys):
    ICONCrossModal(max_iter=10, random_state=0, verbose=1).fit(X, Y)
    assert "[ICONCrossModal] training: iteration 50, loss" in capsys.readouterr().out


LENGTHS = r"inconsistent numbers of samples: \[1300, 1299\]"


@pytest.mark.parametrize(
    "parameters, y, message",
    [
        ({}, Y[:-1], LENGTHS),
        ({}, None, "requires y to be passed, but the target y is None: it reads the other modality"),
        ({}, np.where(Y > 3, np.nan, Y), "Input y contains NaN"),
        ({"supervisory": "knn"}, Y, "does not pair rows of two modalities; use supervisory='cross_modal'"),
        ({"learned": "cluster"}, Y, "is a distribution over clusters"),
        ({"learned": learned.StudentT(df="learn")}, Y, "df='learn' in .* is learned by lookup maps"),
        (
            {"learned": learned.Gaussian(metric="dot", tau="learn")},
            Y,
            "tau='learn' in .* is learned by .*ICONCrossModal",
        ),
        ({"encoder": "lookup"}, Y, r"encoder=Lookup\(\) does not map new rows"),
        ({"encoder_y": "lookup"}, Y, r"encoder_y=Lookup\(\) does not map new rows"),
        ({"encoder": encoders.ProjectionHead(encoders.MLP())}, Y, "training that sets rows against each other"),
        (
            {"encoder_y": encoders.ProjectionHead(encoders.MLP())},
            Y,
            r"encoder_y=ProjectionHead\(base=MLP\(\)\) is trained through a head .*; use encoder_y=MLP\(\)\.",
        ),
        (
            {"encoder_y": encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP()))},
            Y,
            r"encoder_y=MomentumKeys\(.* or against its past, .*; use encoder_y=MLP\(\)\.",
        ),
        ({"encoder_y": "tsne"}, Y, "encoder_y='tsne' is not known; use one of"),
        ({"divergence": "reverse_kl"}, Y, "is infinite where p is zero; set debias > 0"),
        ({"learned": "wide_gaussian", "divergence": "jensen_shannon"}, Y, "is the limit of a conditional KL loss"),
        ({"batch_size": 1}, Y, "The 'batch_size' parameter of ICONCrossModal must be"),
        ({"encoder": encoders.Linear(orthonormal=True), "n_components": 40}, Y, "cannot map 32 features to 40"),
    ],
)
def test_bad_input(parameters, y, message):
    with pytest.raises(ValueError, match=message):
        ICONCrossModal(**(QUICK | parameters)).fit(X, y)


def test_bad_rows_after_fit():
    pairs = ICONCrossModal(**QUICK).fit(X, Y[:, :20])
    with pytest.raises(ValueError, match="y has 32 features, but ICONCrossModal is expecting 20 features as input"):
        pairs.transform_y(Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        pairs.score(X[:5], Y[:4, :20])


BASE = ICONCrossModal(encoder=encoders.MLP(hidden=(4,)), n_components=3, random_state=0)
CHANGES = {
    "n_components": 4,
    "supervisory": supervisory.UniformMixture(supervisory.CrossModalPairs(), 0.2),
    "learned": "student_t",
    "encoder": "linear",
    "encoder__hidden": (5,),
    "encoder_y": "linear",
    "divergence": "jensen_shannon",
    "debias": 0.2,
    "max_iter": 7,
    "batch_size": 64,
    "learning_rate": 0.1,
    "tol": 1e-2,
    "random_state": 1,
}


def what_the_solver_receives(monkeypatch, estimator):
    received = []

    def spy(objective, params, solver, *, max_iter, **_):
        value = objective()
        gradients = [gradient.numpy() for gradient in torch.autograd.grad(value, params)]
        received.append((settings_of(solver), max_iter, float(value.detach()), gradients))
        return SolverResult(0.0, 1, np.zeros(1), "completed")

    monkeypatch.setattr(_train, "minimize", spy)
    estimator.fit(X, Y)
    return repr(received)


@pytest.mark.parametrize("parameter, value", CHANGES.items())
def test_every_parameter_reaches_the_solver(monkeypatch, parameter, value):
    before = what_the_solver_receives(monkeypatch, clone(BASE))
    assert what_the_solver_receives(monkeypatch, clone(BASE)) == before
    assert what_the_solver_receives(monkeypatch, clone(BASE).set_params(**{parameter: value})) != before


# --- linear maps, and the names of CCA --------------------------------------------------------------------------------

LATENT = np.random.RandomState(7)
HIDDEN = LATENT.normal(size=(240, 2))
LEFT, RIGHT = (HIDDEN @ LATENT.normal(size=(2, d)) + LATENT.normal(size=(240, d)) + 3 for d in (9, 6))


def penalised(pairs, left, right):
    """The objective of two linear maps, by loops over the definition."""
    z, w = pairs.transform(left, right)
    rows = [(side - side.mean(0)) / side.std(0) for side in (left, right)]
    weights = [np.linalg.lstsq(x, s - s.mean(0), rcond=None)[0] for x, s in zip(rows, (z, w), strict=True)]
    value = LOSSES["t-clip"][1](torch.tensor(z), torch.tensor(w))
    return float(value) + sum(np.square(part).sum() for part in weights) / (2 * len(left))


def test_two_linear_maps_are_at_a_minimum_of_the_penalised_loss():
    pairs = ICONCrossModal(2, learned=learned.StudentT(df=2.0), tol=1e-9, max_iter=500).fit(LEFT[:60], RIGHT[:60])
    best = penalised(pairs, LEFT[:60], RIGHT[:60])
    for seed in range(4):
        moved = pickle.loads(pickle.dumps(pairs))
        for state in moved._states:
            state["1.weight"] = state["1.weight"] + 0.02 * np.random.RandomState(seed).normal(
                size=state["1.weight"].shape
            )
        assert penalised(moved, LEFT[:60], RIGHT[:60]) > best
    assert len(pairs.loss_curve_) == pairs.n_iter_ and pairs.loss_curve_[-1] == pytest.approx(best, rel=1e-9)


def test_a_few_components_are_linear_maps_whatever_the_units():
    pairs = ICONCrossModal(2).fit(LEFT, RIGHT)
    assert (str(pairs.learned_), str(pairs.encoder_), str(pairs.encoder_y_)) == ("StudentT()", "Linear()", "Linear()")
    units = np.array([1e-6, 1.0, 1e6] * 3)
    other = ICONCrossModal(2, random_state=5).fit(LEFT * units - 7, sparse.csr_array(RIGHT * 1e-3))
    for one, two in zip(pairs.transform(LEFT, RIGHT), other.transform(LEFT * units - 7, RIGHT * 1e-3), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
    assert pairs.score(LEFT, RIGHT) > 5 / len(LEFT)
    lengths = np.linalg.norm(pairs.transform(LEFT), axis=1)
    assert lengths.std() > 0.2 * lengths.mean()  # not on a circle


def test_items_of_few_rows_and_of_small_batches():
    few = ICONCrossModal(4).fit(LEFT[:40], RIGHT[:40])
    assert few.encoder_.is_linear and not ICONCrossModal(4, **QUICK).fit(LEFT, RIGHT).encoder_.is_linear
    batches = ICONCrossModal(2, batch_size=50, **QUICK).fit(LEFT, RIGHT)  # by Adam
    assert len(batches.loss_curve_) == 15
    ICONCrossModal(2, divergence="total_variation", **QUICK).fit(LEFT, RIGHT)


@pytest.mark.parametrize("container", [np.asarray, np.float32, sparse.csr_array])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("parameters", [{}, {"learned": "cosine"}, {"batch_size": 100, "max_iter": 3}])
def test_weights_loadings_and_predictions_of_linear_maps(container, scale, parameters):
    pairs = ICONCrossModal(2, encoder="linear", scale=scale, random_state=0, **parameters)
    pairs.fit(container(LEFT), container(RIGHT))
    tol = 1e-3 if container is np.float32 else 1e-8
    for name, rows, scores in zip("xy", (LEFT, RIGHT), pairs.transform(LEFT, RIGHT), strict=True):
        weights, rotations, loadings = (
            getattr(pairs, f"{name}_{what}_") for what in ("weights", "rotations", "loadings")
        )
        assert weights.shape == rotations.shape == loadings.shape == (rows.shape[1], 2)
        units = rows.std(axis=0, ddof=1) if scale else 1.0
        centred = (rows - rows.mean(axis=0)) / units
        mapped = centred @ rotations
        if "learned" not in parameters:
            np.testing.assert_allclose(scores - scores.mean(axis=0), mapped, atol=tol * np.abs(mapped).max())
        np.testing.assert_allclose(weights, rotations / np.linalg.norm(rotations, axis=0), rtol=1e-9)
        expected = np.linalg.lstsq(mapped, centred, rcond=None)[0].T
        np.testing.assert_allclose(loadings, expected, atol=tol * np.abs(expected).max() * 10)
    scores = (LEFT - LEFT.mean(axis=0)) / (LEFT.std(axis=0, ddof=1) if scale else 1.0) @ pairs.x_rotations_
    fitted = scores @ np.linalg.lstsq(scores, RIGHT - RIGHT.mean(axis=0), rcond=None)[0] + RIGHT.mean(axis=0)
    np.testing.assert_allclose(pairs.predict(container(LEFT)), fitted, atol=100 * tol)
    np.testing.assert_allclose(pairs.intercept_, RIGHT.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        pairs.predict(LEFT), (LEFT - LEFT.mean(axis=0)) @ pairs.coef_.T + pairs.intercept_, atol=100 * tol
    )


def test_back_from_representations():
    everything = ICONCrossModal(6, encoder="linear", learned="student_t").fit(LEFT[:, :6], RIGHT)
    z, w = everything.transform(LEFT[:, :6], RIGHT)
    for found, rows in zip(everything.inverse_transform(z, w), (LEFT[:, :6], RIGHT), strict=True):
        np.testing.assert_allclose(found, rows, atol=1e-6)
    np.testing.assert_allclose(everything.inverse_transform(z), LEFT[:, :6], atol=1e-6)
    cosines = ICONCrossModal(3, encoder="linear", learned="cosine").fit(LEFT, RIGHT)
    with pytest.raises(AttributeError, match="are unit rows, which have lost their lengths"):
        cosines.inverse_transform(z[:, :3])


def test_predictions_have_the_dimensions_of_y():
    column = ICONCrossModal(1).fit(LEFT, RIGHT[:, 0])
    assert column.predict(LEFT).shape == (240,) and column.coef_.shape == (1, 9)
    assert np.corrcoef(column.predict(LEFT), RIGHT[:, 0])[0, 1] > 0.4


def test_networks_have_no_weights():
    pairs = ICONCrossModal(3, encoder="mlp", **QUICK)
    with pytest.raises(AttributeError, match="is not fitted yet, and has no x_weights_"):
        pairs.x_weights_  # noqa: B018
    pairs.fit(LEFT, RIGHT)
    assert not hasattr(pairs, "predict") and not hasattr(pairs, "coef_") and not hasattr(pairs, "inverse_transform")
    with pytest.raises(AttributeError, match=r"MLP\(\) and MLP\(\) are not both linear maps.*; use encoder='linear'"):
        pairs.x_loadings_  # noqa: B018


def test_fit_transform_is_the_pair_of_cca_and_goes_on_in_pipelines():
    pairs = ICONCrossModal(2)
    z, w = pairs.fit_transform(LEFT, RIGHT)
    np.testing.assert_array_equal(z, pairs.transform(LEFT))
    np.testing.assert_array_equal(w, pairs.transform_y(RIGHT))
    step = make_pipeline(StandardScaler(), ICONCrossModal(2), LinearRegression()).fit(LEFT, RIGHT)
    by_hand = LinearRegression().fit(step[:-1].transform(LEFT), RIGHT)
    np.testing.assert_allclose(step.predict(LEFT), by_hand.predict(step[:-1].transform(LEFT)))


@pytest.mark.parametrize("far", [1e5, 1e12])
def test_a_few_outliers_leave_the_other_rows_their_partners(far):
    left, right = LEFT.copy(), RIGHT.copy()
    left[:2], right[3, 1] = far * np.random.RandomState(1).normal(size=(2, 9)), far
    score = ICONCrossModal(2).fit(LEFT[4:], RIGHT[4:]).score(LEFT[4:], RIGHT[4:])
    assert ICONCrossModal(2).fit(left, right).score(LEFT[4:], RIGHT[4:]) > 0.8 * score > 4 / len(LEFT)


def test_a_sum_of_losses_is_their_sum():
    from sklearn_icon._optim.train import sum_of

    a, b = (torch.arange(1.0, 4.0, dtype=torch.float64).requires_grad_() for _ in range(2))
    parts = [lambda: (a * b).sin().sum(), lambda: (a - b).square().sum(), lambda: (b.exp() * a).sum()]
    whole = sum(part() for part in parts)
    found = sum_of((part() for part in parts), [a, b])
    assert float(found.detach()) == pytest.approx(float(whole.detach()), rel=1e-15)
    for one, other in zip(torch.autograd.grad(found, [a, b]), torch.autograd.grad(whole, [a, b]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("q", ["student_t", "cosine"])
def test_linear_maps_of_many_rows_are_solved_in_blocks_that_stay(q, monkeypatch):
    """The loss is the mean over the blocks, at its minimum; one block is that of all rows."""
    from sklearn_icon._estimators import cross_modal
    from sklearn_icon._training import linear_pairs

    rng = np.random.default_rng(0)
    X = rng.normal(size=(330, 6))
    Y = X[:, :4] + 0.3 * rng.normal(size=(330, 4))
    monkeypatch.setattr(cross_modal, "_BATCH_ROWS", 100)
    monkeypatch.setattr(cross_modal, "_PAIRS", 1)
    made = []

    class Kept(linear_pairs._LinearPairs):
        def __init__(self, *about):
            super().__init__(*about)
            made.append(self)

    monkeypatch.setattr(linear_pairs, "_LinearPairs", Kept)
    model = ICONCrossModal(2, learned=q, encoder="linear", random_state=0).fit(X, Y)
    solved = made[0]
    sizes = [len(x) for x, _ in solved.blocks]
    assert sum(sizes) == 330 and max(sizes) <= 100 and max(sizes) - min(sizes) <= 1
    again = ICONCrossModal(2, learned=q, encoder="linear", random_state=0).fit(X, Y)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert model.score(X, Y) > 4 / 330
    value = solved.loss()
    assert float(value.detach()) == pytest.approx(model.loss_curve_[-1], rel=1e-6)
    found = [param.detach().clone() for param in solved.params]
    for seed in range(5):
        torch.manual_seed(seed)
        with torch.no_grad():
            for param, best in zip(solved.params, found, strict=True):
                param.copy_(best + 0.1 * torch.randn_like(best))
        assert float(solved.loss().detach()) > model.loss_curve_[-1]
