"""`ICONEmbedding`: against TSNE, new rows, inputs of every kind, and that each parameter reaches the solver."""

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from solver_settings import settings_of

from sklearn_icon import ICONEmbedding, encoders, learned, supervisory
from sklearn_icon._objective import drawn as _drawn
from sklearn_icon._objective import objective as _objective
from sklearn_icon._objective.objective import Objective
from sklearn_icon._optim.solver import SolverResult
from sklearn_icon._training import maps as _maps

X, y = load_iris(return_X_y=True)
X = np.unique(X, axis=0)  # without its one pair of equal rows
y = y[: len(X)]
QUICK = {"max_iter": 60, "random_state": 0}


def test_defaults_reach_the_loss_of_tsne_on_digits():
    digits = load_digits().data[::2]
    ours = ICONEmbedding(random_state=0).fit(digits)
    theirs = TSNE(method="exact", random_state=0).fit(digits)
    assert ours.kl_divergence_ == pytest.approx(theirs.kl_divergence_, rel=0.03)
    quality = [trustworthiness(digits, e.embedding_, n_neighbors=12) for e in (ours, theirs)]
    assert quality[0] > quality[1] - 0.005


def test_takes_every_parameter_of_tsne():
    missing = set(TSNE().get_params()) - set(ICONEmbedding().get_params())
    assert missing <= {"n_iter"}  # n_iter was max_iter's name; scikit-learn 1.6 still takes it


def test_attributes_agree():
    embedding = ICONEmbedding(**QUICK).fit(X)
    assert embedding.kl_per_sample_.mean() == pytest.approx(embedding.kl_divergence_, rel=1e-6)
    assert embedding.kl_divergence_ <= embedding.loss_curve_[-1] * (1 + 1e-6)
    assert embedding.n_iter_ == 59 and embedding.stop_reason_ == "max_iter"
    assert embedding.loss_curve_.shape == embedding.loss_iterations_.shape
    assert (np.diff(embedding.loss_iterations_) > 0).all() and embedding.loss_iterations_[-1] <= 60
    assert (embedding.loss_curve_ >= 0).all()  # exaggeration is not in the curve
    assert embedding.device_ in ("cpu", "cuda") and embedding.method_ == "exact"
    assert list(embedding.get_feature_names_out()) == ["iconembedding0", "iconembedding1"]


@pytest.mark.parametrize("normalization", ["joint", "conditional"])
@pytest.mark.parametrize("q", ["gaussian", "student_t", learned.StudentT(df=0.5)])
def test_divergence_falls(q, normalization):
    embedding = ICONEmbedding(learned=q, normalization=normalization, max_iter=300, random_state=0).fit(X)
    assert embedding.kl_divergence_ < 0.5 * embedding.loss_curve_[0]
    assert trustworthiness(X, embedding.embedding_, n_neighbors=12) > 0.97


@pytest.mark.parametrize("divergence", ["jensen_shannon", "squared_hellinger", "total_variation"])
def test_other_divergences(divergence):
    embedding = ICONEmbedding(divergence=divergence, max_iter=500, random_state=0).fit(X)
    exploration = sum(n_iter for name, n_iter, _ in embedding.phases_ if name != "descent")  # which KL leads
    assert embedding.kl_divergence_ < 0.9 * embedding.loss_curve_[embedding.loss_iterations_ > exploration][0]
    assert trustworthiness(X, embedding.embedding_, n_neighbors=12) > 0.97


@pytest.fixture(scope="module")
def of_kl():
    """A map of KL."""
    return ICONEmbedding(max_iter=500, random_state=0).fit_transform(X)


@pytest.mark.parametrize("divergence", ["jensen_shannon", "squared_hellinger", "total_variation"])
def test_other_divergences_are_not_least_where_kl_is(divergence, of_kl):
    """From one and the same map: apart, two fits end in minima whose losses differ more than the divergences do."""
    p, options = supervisory.Gaussian().conditional(X), {"divergence": divergence, "normalization": "joint"}
    before = float(Objective(p, learned.StudentT(), **options)(torch.as_tensor(of_kl)))
    after = ICONEmbedding(divergence=divergence, early_exaggeration=1.0, init=of_kl, max_iter=300).fit(X)
    assert after.loss_curve_[0] == pytest.approx(before, rel=1e-3)
    assert after.kl_divergence_ < 0.98 * before


def test_pca_is_a_cell_of_the_table():
    pca = ICONEmbedding(
        supervisory="identity",
        learned="wide_gaussian",
        encoder=encoders.Linear(orthonormal=True),
        normalization="conditional",
        random_state=0,
    )
    ours, theirs = pca.fit_transform(X), PCA(2).fit_transform(X)
    residual = theirs - ours @ np.linalg.lstsq(ours - ours.mean(axis=0), theirs, rcond=None)[0]
    assert np.abs(residual - residual.mean(axis=0)).max() < 1e-4


FITTED = {
    "lookup": ICONEmbedding(perplexity=10, **QUICK),
    "knn": ICONEmbedding(supervisory="knn", learned="gaussian", **QUICK),
    "labels": ICONEmbedding(supervisory="same_class", **QUICK),
    "linear": ICONEmbedding(encoder="linear", **QUICK),
    "mlp": ICONEmbedding(encoder=encoders.MLP(hidden=(8,)), **QUICK),
}


@pytest.mark.parametrize("estimator", FITTED.values(), ids=FITTED)
def test_rows_are_placed_alone(estimator):
    estimator = clone(estimator).fit(X, y)
    new = X[::10] + 0.01
    together = estimator.transform(new)
    alone = np.concatenate([estimator.transform(new[[i]]) for i in range(len(new))])
    if estimator.encoder_.parametric:
        np.testing.assert_allclose(alone, together, rtol=1e-10)
    else:
        np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(estimator.transform(new), together)


@pytest.mark.parametrize("estimator", FITTED.values(), ids=FITTED)
def test_fitted_rows_return_to_their_places(estimator):
    estimator = clone(estimator)
    fitted = estimator.fit_transform(X, y)
    np.testing.assert_allclose(estimator.transform(X[::-1])[::-1], fitted, rtol=1e-10)


def test_new_rows_land_among_their_neighbors():
    digits, labels = load_digits(return_X_y=True)
    embedding = ICONEmbedding(max_iter=300, random_state=0).fit(digits[::2])
    placed = embedding.transform(digits[1::2])
    gaps = pairwise_distances(placed, embedding.embedding_)
    nearest = labels[::2][gaps.argsort(axis=1)[:, :10]]
    share = (nearest == labels[1::2, None]).mean()
    assert share > 0.93


def test_equal_rows_share_a_place():
    doubled = np.vstack([X, X[:5], X[:5]])
    embedding = ICONEmbedding(perplexity=10, **QUICK).fit(doubled)
    np.testing.assert_array_equal(embedding.embedding_[:5], embedding.embedding_[-5:])
    np.testing.assert_array_equal(embedding.transform(doubled), embedding.embedding_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("estimator", FITTED.values(), ids=FITTED)
def test_precision_of_rows_is_kept_and_rows_unchanged(estimator, dtype):
    rows = X.astype(dtype)
    before = rows.copy()
    estimator = clone(estimator).fit(rows, y)
    assert estimator.embedding_.dtype == estimator.transform(rows[:3] + 1).dtype == dtype
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("estimator", FITTED.values(), ids=FITTED)
def test_same_seed_same_bits_whatever_the_global_generators(estimator):
    first = clone(estimator).fit(X, y).embedding_
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(clone(estimator).fit(X, y).embedding_, first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("estimator", FITTED.values(), ids=FITTED)
def test_pickles(estimator):
    estimator = clone(estimator).fit(X, y)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.transform(X[:20] + 0.1), estimator.transform(X[:20] + 0.1))


def test_sparse_rows():
    rows = X.copy()
    rows[rows < 1] = 0
    dense = ICONEmbedding(perplexity=10, init="random", **QUICK).fit(rows)
    other = ICONEmbedding(perplexity=10, init="random", **QUICK).fit(sparse.csr_matrix(rows))
    np.testing.assert_allclose(other.embedding_, dense.embedding_, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(other.transform(sparse.csr_array(rows)), other.embedding_)
    assert np.isfinite(ICONEmbedding(**QUICK).fit(sparse.csr_array(rows)).embedding_).all()


def test_distances_give_the_map_of_the_features():
    distances = pairwise_distances(X)
    of_features = ICONEmbedding(perplexity=10, init="random", **QUICK).fit(X)
    of_distances = ICONEmbedding(perplexity=10, init="random", metric="precomputed", **QUICK).fit(distances)
    assert of_distances.kl_divergence_ == pytest.approx(of_features.kl_divergence_, rel=1e-3)
    np.testing.assert_array_equal(of_distances.transform(distances[:7]), of_distances.embedding_[:7])
    new = pairwise_distances(X[:9] + 0.05, X)
    gap = np.linalg.norm(of_distances.transform(new) - of_distances.embedding_[:9], axis=1)
    assert gap.max() < np.ptp(of_distances.embedding_) / 10


def test_a_neighbor_graph_from_a_transformer():
    chain = make_pipeline(
        KNeighborsTransformer(mode="distance", n_neighbors=40),
        ICONEmbedding(perplexity=10, n_neighbors=40, metric="precomputed", **QUICK),
    )
    placed = chain.fit(X).transform(X[:5] + 0.01)
    assert np.isfinite(placed).all() and placed.shape == (5, 2)


def test_a_graph_without_rows():
    weights = supervisory.UniformKNN(n_neighbors=10).conditional(X).weights
    as_rows = ICONEmbedding(supervisory="graph", init="random", **QUICK).fit(weights)
    beside = ICONEmbedding(supervisory="graph", init="random", **QUICK).fit(X, weights)
    assert as_rows.kl_divergence_ == pytest.approx(beside.kl_divergence_, rel=1e-6)
    assert as_rows.transform(weights[:4]).shape == (4, 2)


def test_a_disconnected_graph_starts_at_random_with_one_warning():
    blocks = sparse.block_diag([np.ones((10, 10)), np.ones((20, 20))], format="csr")
    with pytest.warns(UserWarning, match=r"2 components, of sizes \[20, 10\]") as caught:
        embedding = ICONEmbedding(supervisory="graph", **QUICK).fit(blocks)
    assert len(caught) == 1
    assert np.isfinite(embedding.embedding_).all()


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.filterwarnings("ignore:the default perplexity")
def test_tiny_data(n):
    embedding = ICONEmbedding(random_state=0).fit(X[:n])
    assert np.isfinite(embedding.embedding_).all()
    assert embedding.kl_divergence_ > -1e-6
    assert np.abs(embedding.embedding_).max() < 1e4


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_wide_scales(scale):
    embedding = ICONEmbedding(max_iter=300, random_state=0).fit(X * scale)
    assert trustworthiness(X, embedding.embedding_, n_neighbors=12) > 0.97


def test_more_components_than_features():
    assert ICONEmbedding(3, **QUICK).fit_transform(X[:, :2]).shape == (len(X), 3)


@pytest.mark.parametrize(("n_components", "df"), [(1, 1.0), (2, 1.0), (3, 2.0), (4, 1.0)])
def test_tails_of_maps_of_three_dimensions_are_lighter_by_default(n_components, df):
    X = load_iris().data[::3]
    by_default = ICONEmbedding(n_components, perplexity=5, max_iter=40, random_state=0).fit(X)
    assert by_default.learned_.df == df
    cauchy = clone(by_default).set_params(learned="student_t").fit(X)
    assert cauchy.learned_.df == 1
    assert np.array_equal(cauchy.embedding_, by_default.embedding_) == (df == 1)


def test_frames_keep_names_and_index():
    pandas = pytest.importorskip("pandas", reason="an extra of the tests")
    polars = pytest.importorskip("polars", reason="an extra of the tests")
    frame = pandas.DataFrame(X, columns=list("abcd"), index=np.arange(len(X)) + 100)
    embedding = ICONEmbedding(**QUICK).set_output(transform="pandas")
    placed = embedding.fit_transform(frame)
    assert list(placed.columns) == ["iconembedding0", "iconembedding1"]
    assert (placed.index == frame.index).all()
    assert list(embedding.feature_names_in_) == list("abcd")
    assert isinstance(embedding.set_output(transform="polars").transform(frame), polars.DataFrame)


def test_warm_start_goes_on_from_the_map():
    embedding = ICONEmbedding(max_iter=100, warm_start=True, random_state=0).fit(X)
    before = embedding.kl_divergence_
    embedding.fit(X)
    assert embedding.loss_curve_[0] == pytest.approx(before, rel=1e-3)
    assert embedding.kl_divergence_ < before


def test_verbose_prints(capsys):
    ICONEmbedding(max_iter=150, verbose=1, random_state=0).fit(X)
    assert "[ICONEmbedding] descent: iteration 50, loss" in capsys.readouterr().out


def test_the_loss_of_many_encoded_rows_is_interpolated(monkeypatch):
    exact = ICONEmbedding(encoder="mlp", max_iter=2, random_state=0).fit(X)
    monkeypatch.setattr(_objective, "EXACT_ROWS", 10)
    near = clone(exact).fit(X)
    np.testing.assert_array_equal(near.embedding_, exact.embedding_)
    assert near.kl_divergence_ == pytest.approx(exact.kl_divergence_, abs=1e-4)
    assert near.kl_divergence_ != exact.kl_divergence_


def test_minibatches_of_an_encoder():
    sampled = ICONEmbedding(encoder="mlp", method="sampled", max_iter=200, random_state=0).fit(X)
    assert sampled.method_ == "sampled"
    assert trustworthiness(X, sampled.embedding_, n_neighbors=12) > 0.95


CHANGES = {
    "n_components": 3,
    "supervisory": "knn",
    "supervisory__perplexity": 12,
    "supervisory__sigma": 0.5,
    "supervisory__n_neighbors": 50,
    "supervisory__metric": "manhattan",
    "learned": "gaussian",
    "learned__df": 2.0,
    "encoder": "linear",
    "divergence": "total_variation",
    "normalization": "conditional",
    "debias": 0.3,
    "early_exaggeration": 4.0,
    "late_exaggeration": 2.0,
    "learning_rate": 10.0,
    "max_iter": 31,
    "n_iter_without_progress": 17,
    "min_grad_norm": 0.5,
    "init": "pca",
    "init_weight": 2.0,
    "random_state": 1,
}
CHANGES_OF_NAMED_P = {"perplexity": 12, "n_neighbors": 50, "metric": "manhattan"}


def what_the_solver_receives(monkeypatch, estimator):
    """Options of each phase, with the value and the gradients of its objective at the start."""
    received = []

    def spy(objective, params, solver, *, max_iter, on_step):
        if objective is not None:
            value = objective()
            loss, gradients = float(value.detach()), torch.autograd.grad(value, params)
        else:
            loss, gradients = solver.gradient(True)
        options = settings_of(solver), max_iter
        arrays = [[tensor.detach().numpy() for tensor in tensors] for tensors in (gradients, params)]
        received.append((options, loss, *arrays))
        return SolverResult(0.0, 1, np.zeros(1), "max_iter")

    monkeypatch.setattr(_maps, "minimize", spy)
    estimator.fit(X)
    return repr(received)


@pytest.mark.parametrize(
    "base, parameter, value",
    [
        (ICONEmbedding(supervisory=supervisory.Gaussian(20), learned=learned.StudentT(), init="random"), *change)
        for change in CHANGES.items()
    ]
    + [(ICONEmbedding(), *change) for change in CHANGES_OF_NAMED_P.items()]
    + [(ICONEmbedding(metric="minkowski"), "metric_params", {"p": 1.5})],
)
def test_every_parameter_reaches_the_solver(monkeypatch, base, parameter, value):
    base = clone(base).set_params(max_iter=30, random_state=0)
    before = what_the_solver_receives(monkeypatch, clone(base))
    assert what_the_solver_receives(monkeypatch, clone(base)) == before
    assert what_the_solver_receives(monkeypatch, clone(base).set_params(**{parameter: value})) != before


# --- degrees of freedom that are learned --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "interpolation"])
def test_learned_degrees_of_freedom_lower_the_loss(method):
    fixed = ICONEmbedding(method=method, random_state=0).fit(X)
    embedding = ICONEmbedding(learned=learned.StudentT("learn"), method=method, random_state=0).fit(X)
    df = embedding.learned_.df
    assert isinstance(df, float) and df != 1
    assert embedding.kl_divergence_ < fixed.kl_divergence_
    again = clone(embedding).set_params(learned=learned.StudentT(df), init=embedding.embedding_, early_exaggeration=1)
    assert again.set_params(max_iter=1, learning_rate=1e-9).fit(X).kl_divergence_ == pytest.approx(
        embedding.kl_divergence_, rel=1e-3
    )
    assert embedding.get_params()["learned"].df == "learn"
    assert embedding.transform(X[:2] + 0.01).shape == (2, 2)


def test_degrees_of_freedom_are_learned_by_lookup_maps_alone():
    from sklearn_icon import ICONClassifier

    with pytest.raises(ValueError, match="learned by lookup maps of ICONEmbedding alone"):
        ICONEmbedding(learned=learned.StudentT("learn"), encoder="linear").fit(X)
    with pytest.raises(ValueError, match="learned by lookup maps of ICONEmbedding alone"):
        ICONClassifier(learned=learned.StudentT("learn")).fit(X, np.arange(len(X)) % 2)


# --- keys that are drawn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_maps_from_drawn_keys(monkeypatch, normalization):
    monkeypatch.setattr(_drawn, "_KEYS", 50)
    options = {
        "n_components": 4,
        "perplexity": 10,
        "n_neighbors": 31,
        "normalization": normalization,
        "max_iter": 400,
        "random_state": 0,
    }
    exact = ICONEmbedding(**options).fit(X)
    drawn = ICONEmbedding(method="sampled", **options).fit(X)
    assert (exact.method_, drawn.method_) == ("exact", "sampled")
    assert drawn.kl_divergence_ < exact.kl_divergence_ + 0.25
    assert trustworthiness(X, drawn.embedding_, n_neighbors=12) > 0.97
    repeats = [clone(drawn).set_params(max_iter=20).fit(X).embedding_ for _ in range(2)]
    np.testing.assert_array_equal(*repeats)


# --- late exaggeration --------------------------------------------------------------------------------------------


def test_late_exaggeration_draws_neighbours_together():
    plain, late = (ICONEmbedding(late_exaggeration=factor, random_state=0).fit(X) for factor in (1.0, 3.0))
    assert late.kl_divergence_ > plain.kl_divergence_
    near = [
        np.sort(np.linalg.norm(e.embedding_[:, None] - e.embedding_, axis=2), axis=1)[:, 5].mean()
        for e in (plain, late)
    ]
    assert near[1] < 0.7 * near[0]
    with pytest.raises(ValueError, match=r"late_exaggeration=3\.0 multiplies the attraction of plain KL"):
        ICONEmbedding(late_exaggeration=3.0, debias=0.1).fit(X)
