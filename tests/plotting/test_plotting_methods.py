"""`PeriodicTableDisplay` and `NeighborhoodDisplay`: what is drawn where, and that its numbers are those of the loss."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.special import rel_entr
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.metrics import pairwise_distances

from sklearn_icon import ICONClustering, ICONEmbedding, learned, methods, supervisory
from sklearn_icon._objective.objective import Objective
from sklearn_icon.plotting import NeighborhoodDisplay, PeriodicTableDisplay

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

X, y = load_iris(return_X_y=True)
QUICK = {"max_iter": 60, "random_state": 0}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# --- PeriodicTableDisplay ------------------------------------


def texts(display):
    return {text.get_text().replace("\n", " ").replace("- ", "-"): text for text in display.ax_.texts}


def test_each_method_has_a_tile_with_its_name():
    display = PeriodicTableDisplay.from_methods()
    assert set(display.tiles_) == set(methods.names())
    named = texts(display)
    for name, tile in display.tiles_.items():
        place = named[methods.get(name).title].get_position()
        assert tile.get_x() < place[0] < tile.get_x() + tile.get_width()
        assert tile.get_y() < place[1] < tile.get_y() + tile.get_height()
        assert bool(tile.get_hatch()) is not methods.get(name).published


def test_tiles_stand_in_their_columns_and_rows():
    display = PeriodicTableDisplay.from_methods()
    columns = {name: int(tile.get_x()) for name, tile in display.tiles_.items()}
    heights = {name: tile.get_y() for name, tile in display.tiles_.items()}
    assert columns["t-sne"] == columns["sne"] == columns["k-means"] == columns["x-sample"]
    assert columns["dual-t-sne"] == columns["doubly-t-sne"] != columns["t-sne"]
    assert heights["t-sne"] == heights["doubly-t-sne"] == heights["t-clip"] == heights["harmonic"]
    assert heights["sne"] < heights["x-sample"] < heights["pca"] < heights["triplet"] < heights["t-sne"]
    places = [(tile.get_x(), tile.get_y()) for tile in display.tiles_.values()]
    assert len(places) == len(set(places))


def test_names_keep_to_their_tiles():
    display = PeriodicTableDisplay.from_methods()
    display.figure_.canvas.draw()
    named = texts(display)
    for name, tile in display.tiles_.items():
        room, text = tile.get_window_extent(), named[methods.get(name).title].get_window_extent()
        assert room.x0 <= text.x0 <= text.x1 <= room.x1, name
        assert room.y0 - 1 <= text.y0 <= text.y1 <= room.y1 + 1, name
    legend = display.legend_.get_window_extent()
    assert 0 <= legend.x0 <= legend.x1 <= display.figure_.bbox.x1
    assert 0 <= legend.y0 <= legend.y1 <= display.ax_.get_window_extent().y0 + 10


def test_families_have_a_colour_each():
    display = PeriodicTableDisplay.from_methods()
    colors = {name: tile.get_facecolor() for name, tile in display.tiles_.items() if methods.get(name).published}
    of_family = {family: {colors[n] for n in methods.names(family, published=True)} for family in methods.FAMILIES}
    assert all(len(found) == 1 for found in of_family.values())
    assert len(set.union(*of_family.values())) == len(methods.FAMILIES)
    legend = [text.get_text() for text in display.legend_.get_texts()]
    assert legend == [*methods.FAMILIES, "unpublished"]


def test_highlights_and_selections():
    display = PeriodicTableDisplay.from_methods(highlight="T-SNE")
    faint = {name for name, tile in display.tiles_.items() if tile.get_alpha() < 1}
    assert faint == set(methods.names()) - {"t-sne"}
    display = PeriodicTableDisplay.from_methods(["kmeans", "SNE", "pca"], highlight=["pca", "sne"])
    assert set(display.tiles_) == {"k-means", "sne", "pca"}
    assert display.tiles_["k-means"].get_alpha() < 1 == display.tiles_["pca"].get_alpha()
    assert "unpublished" not in [text.get_text() for text in display.legend_.get_texts()]
    with pytest.raises(ValueError, match="method 'tsnee' is not known"):
        PeriodicTableDisplay.from_methods(highlight="tsnee")


# --- NeighborhoodDisplay -------------------------------------

FITTED = {
    "sne": ICONEmbedding(learned="gaussian", normalization="conditional", **QUICK),
    "debiased": ICONEmbedding(supervisory="knn", debias=0.2, normalization="conditional", **QUICK),
    "mixture": ICONEmbedding(
        learned=learned.UniformMixture(learned.StudentT(), 0.3), normalization="conditional", **QUICK
    ),
    "tv": ICONEmbedding(divergence="total_variation", normalization="conditional", **QUICK),
    "cosine": ICONEmbedding(3, learned=learned.Gaussian(metric="cosine"), normalization="conditional", **QUICK),
    "linear": ICONEmbedding(encoder="linear", normalization="conditional", **QUICK),
}


@pytest.mark.filterwarnings("ignore:.*stopped after")
@pytest.mark.parametrize("name", list(FITTED))
def test_rows_and_divergence_are_those_of_the_loss(name):
    rows = X.astype(np.float64)
    estimator = FITTED[name].fit(rows)
    p = estimator.supervisory_.conditional(rows).mix(estimator.debias)
    for index in (0, 77, -1):
        display = NeighborhoodDisplay.from_estimator(estimator, rows, index)
        assert display.index == index % 150
        assert_allclose(display.p, p.toarray()[index], rtol=1e-12)
        assert_allclose(display.q.sum(), 1, rtol=1e-6)
        assert display.q[index] == 0
        assert_allclose(display.divergence, estimator.kl_per_sample_[index], rtol=1e-4, atol=1e-5)
        assert f"= {display.divergence:.3f}" in (display.ax_q_ or display.ax_).get_title(loc="left")


def test_joint_rows_make_up_the_joint_loss():
    """KL of the joint is the mean KL of its rows, by their mass, plus that of the masses."""
    estimator = ICONEmbedding(**QUICK).fit(X)
    kernel = 1 / (1 + pairwise_distances(estimator.embedding_, metric="sqeuclidean"))
    np.fill_diagonal(kernel, 0)
    joint = estimator.supervisory_.conditional(X).toarray()
    joint = (joint + joint.T) / 300
    q_mass = kernel.sum(axis=1) / kernel.sum()
    shown = [NeighborhoodDisplay.from_estimator(estimator, X, index) for index in (3, 60)]
    for display in shown:
        assert_allclose(display.p, joint[display.index] / joint[display.index].sum(), rtol=1e-12)
        assert_allclose(display.q, kernel[display.index] / kernel[display.index].sum(), rtol=1e-5)
        assert_allclose(display.divergence, rel_entr(display.p, display.q).sum(), rtol=1e-5)
    rows = rel_entr(joint / joint.sum(axis=1, keepdims=True), kernel / kernel.sum(axis=1, keepdims=True)).sum(axis=1)
    whole = joint.sum(axis=1) @ rows + rel_entr(joint.sum(axis=1), q_mass).sum()
    assert_allclose(whole, estimator.kl_divergence_, rtol=1e-4)


@pytest.mark.parametrize("options", [{"debias": 0.6}, {"debias": 0.0, "learned": learned.SharedCluster("degree")}])
def test_clusters_are_shown_as_bars(options):
    estimator = ICONClustering(3, max_iter=20, n_init=1, random_state=0, **options).fit(X)
    display = NeighborhoodDisplay.from_estimator(estimator, X, 60, names=[f"flower {i}" for i in range(150)])
    assert display.ax_q_ is None
    assert_allclose(display.q.sum(), 1, rtol=1e-9)
    assert display.q[60] > 0
    p = estimator.supervisory_.conditional(X).mix(estimator.debias)
    assert_allclose(np.delete(display.p, 60), np.delete(p.toarray()[60], 60), rtol=1e-2, atol=1e-12)
    bars = display.ax_.patches
    assert len(bars) == 24
    assert_allclose([-bar.get_width() for bar in bars[:12]], np.sort(display.p)[::-1][:12], rtol=0.2)
    assert all(label.get_text().startswith("flower ") for label in display.ax_.get_yticklabels())
    mean = np.mean([NeighborhoodDisplay.from_estimator(estimator, X, i).divergence for i in range(0, 150, 10)])
    assert 0 < mean < -2 * estimator.score(X)
    places = np.random.default_rng(0).normal(size=(150, 2))
    assert NeighborhoodDisplay.from_estimator(estimator, X, 60, coordinates=places).ax_q_ is not None


def test_coordinates_have_a_former_name():
    rows, p = np.eye(3, 2), [0.0, 0.5, 0.5]
    with pytest.warns(FutureWarning, match="`places` is now called `coordinates`"):
        display = NeighborhoodDisplay(p, p, 0, 0.0, places=rows)
    assert_array_equal(display.coordinates, rows)
    with pytest.warns(FutureWarning, match="`places` is now called `coordinates`"):
        assert_array_equal(display.places, rows)
    with pytest.raises(ValueError, match="are the same parameter; pass coordinates alone"):
        NeighborhoodDisplay(p, p, 0, 0.0, coordinates=rows, places=rows)
    estimator = ICONEmbedding(**QUICK).fit(X)
    with pytest.warns(FutureWarning, match="`places` is now called `coordinates`"):
        display = NeighborhoodDisplay.from_estimator(estimator, X, 0, places=np.ones((150, 2)))
    assert_array_equal(display.coordinates, np.ones((150, 2)))


def test_clusters_have_the_divergence_of_the_loss():
    import torch

    estimator = ICONClustering(3, encoder="linear", max_iter=20, n_init=1, random_state=0).fit(X)
    logits = torch.as_tensor(np.log(estimator.predict_proba(X)))
    p = estimator.supervisory_.conditional(X).mix(estimator.debias_)
    wanted = (
        Objective(p, learned.UniformMixture(learned.SharedCluster(), estimator.debias_)).per_row(logits).numpy() * 150
    )
    found = [NeighborhoodDisplay.from_estimator(estimator, X, i).divergence for i in (0, 60, 149)]
    assert_allclose(found, wanted[[0, 60, 149]], rtol=1e-9)


@pytest.mark.parametrize("name", ["k-means", "t-k-means"])
def test_clusters_by_reverse_kl_are_their_own_neighbors(name):
    rows = X[::2]
    estimator = methods.get(name).make_estimator(n_clusters=3, random_state=0).fit(rows)
    shown = []
    for i in range(len(rows)):
        shown.append(NeighborhoodDisplay.from_estimator(estimator, rows, i))
        plt.close("all")
    assert np.mean([display.divergence for display in shown]) == pytest.approx(estimator.loss_, rel=1e-6)
    assert shown[4].p[4] == shown[4].p.max()
    assert_allclose([shown[4].p.sum(), shown[4].q.sum()], 1)


def test_maps_show_both_distributions_on_one_scale():
    estimator = ICONEmbedding(**QUICK).fit(X)
    display = NeighborhoodDisplay.from_estimator(estimator, X, 7, cmap="viridis")
    assert_array_equal(display.coordinates, estimator.embedding_)
    for ax, share in ((display.ax_, display.p), (display.ax_q_, display.q)):
        everyone, colored, itself = ax.collections[0], *ax.collections[2:]
        assert len(everyone.get_offsets()) == 150
        assert colored.cmap.name == "viridis"
        assert (colored.norm.vmin, colored.norm.vmax) == (0, max(display.p.max(), display.q.max()))
        assert_array_equal(np.sort(colored.get_array()), np.sort(share[share > 3e-3 * colored.norm.vmax]))
        assert_array_equal(itself.get_offsets()[0], estimator.embedding_[7])
    assert display.ax_.get_title(loc="left") == "p(j|i): who should be near row 7"


def test_graphs_and_other_axes():
    graph = sparse.csr_array(supervisory.UniformKNN(5).conditional(X).weights)
    estimator = ICONEmbedding(supervisory="graph", init="random", **QUICK).fit(graph)
    _, axes = plt.subplots(1, 2)
    display = NeighborhoodDisplay.from_estimator(estimator, graph, 3, ax=axes[0])
    assert display.ax_ is axes[0]
    assert_allclose(np.flatnonzero(display.p), np.flatnonzero((graph + graph.T).toarray()[3]))
    by_hand = plt.figure().add_axes((0.1, 0.1, 0.8, 0.8))
    right = NeighborhoodDisplay.from_estimator(estimator, graph, 3, ax=by_hand).ax_q_.get_position()
    assert by_hand.get_position().x1 < right.x0


def test_neighborhood_display_refuses():
    estimator = ICONEmbedding(**QUICK)
    with pytest.raises(NotFittedError):
        NeighborhoodDisplay.from_estimator(estimator, X, 0)
    estimator.fit(X)
    for index in (150, -151):
        with pytest.raises(ValueError, match=f"index={index} is beyond the 150 rows of X; use one of -150 to 149"):
            NeighborhoodDisplay.from_estimator(estimator, X, index)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        NeighborhoodDisplay.from_estimator(estimator, X, 0, coordinates=np.zeros((3, 2)))
    pca = methods.get("pca").make_estimator(max_iter=5, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"WideGaussian\(\) is the limit of a loss and no distribution"):
        NeighborhoodDisplay.from_estimator(pca, X, 0)
    groups = np.r_[0, np.arange(149) // 3 + 1]
    pairs = ICONEmbedding(supervisory="positive_pairs", **QUICK)
    with pytest.warns(UserWarning, match="rows have no positive"):
        pairs.fit(X, groups)
    with pytest.raises(ValueError, match="row 0 has no positive under p"):
        NeighborhoodDisplay.from_estimator(pairs, X, 0, y=groups)
    assert NeighborhoodDisplay.from_estimator(pairs, X, 1, y=groups).p.argmax() in (2, 3)
