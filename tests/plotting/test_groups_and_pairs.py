"""Displays of clusters, of pairs and of classes, and pages with a pointer: their numbers, and what is seen of them."""

import json
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, rel_entr
from sklearn.base import clone
from sklearn.cluster import DBSCAN, KMeans
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.metrics import pairwise_distances, silhouette_samples
from sklearn.mixture import GaussianMixture

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, learned
from sklearn_icon.plotting import (
    ClusterSizesDisplay,
    EmbeddingDisplay,
    NeighborhoodDisplay,
    RetrievalDisplay,
    SilhouetteDisplay,
    _style,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402

X, y = load_iris(return_X_y=True)
NAMES = load_iris().target_names[y]
UPPER, LOWER = (half.reshape(1797, -1) for half in (load_digits().images[:, :4], load_digits().images[:, 4:]))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def seen(display):
    """The finished picture, an RGB in [0, 1] for each pixel, and a function from data to its row and column."""
    display.figure_.canvas.draw()
    picture = np.asarray(display.figure_.canvas.buffer_rgba())[..., :3] / 255

    def pixel(point, ax=display.ax_):
        column, height = ax.transData.transform(point)
        return picture[round(len(picture) - 1 - height), round(column)]

    return picture, pixel


# --- clusters ------------------------------------------------


def test_bars_are_as_high_as_clusters_have_rows():
    mixture = GaussianMixture(3, random_state=0).fit(X)
    display = ClusterSizesDisplay.from_estimator(mixture, X, names=["a", "b", "c"])
    sizes = np.bincount(mixture.predict(X))
    assert_array_equal([bar.get_height() for bar in display.bars_], sizes)
    assert_allclose(display.expected, mixture.predict_proba(X).sum(axis=0))
    dots, equal = display.ax_.lines
    assert_allclose(dots.get_ydata(), display.expected)
    assert equal.get_ydata()[0] == 50
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["a", "b", "c"]
    _, pixel = seen(display)
    assert_allclose(pixel((0, sizes[0] / 2)), to_rgb(_style.COLORS[0]), atol=0.01)
    assert_allclose(pixel((0.5, sizes.min() / 2)), 1, atol=0.01)  # between bars


def test_rows_in_no_cluster_and_clusters_without_rows():
    found = DBSCAN(0.5).fit(X)
    display = ClusterSizesDisplay.from_estimator(found)
    assert display.n_unassigned == (found.labels_ == -1).sum() > 0
    assert display.expected is None
    assert "in no cluster" in [text.get_text() for text in display.ax_.get_legend().get_texts()]
    display = ClusterSizesDisplay.from_predictions([0, 0, 1], np.full((3, 4), 0.25))
    assert_array_equal(display.sizes, [2, 1, 0, 0])
    assert_array_equal(ClusterSizesDisplay.from_predictions(list("aab")).names, ["a", "b"])
    model = KMeans(3, n_init=1, random_state=0).fit(X)
    assert ClusterSizesDisplay.from_estimator(model, X).expected is None
    with pytest.raises(ValueError, match="memberships have 1 columns"):
        ClusterSizesDisplay.from_predictions([0, 1], np.ones((2, 1)))
    with pytest.raises(NotFittedError):
        ClusterSizesDisplay.from_estimator(KMeans(), X)


def test_silhouettes_are_sorted_within_their_clusters():
    model = ICONClustering(3, random_state=0).fit(X)
    display = SilhouetteDisplay.from_estimator(model, X)
    wanted = silhouette_samples(X, model.labels_)
    assert_allclose(display.silhouettes, wanted)
    assert display.line_.get_xdata()[0] == pytest.approx(wanted.mean())
    assert len(display.bands_) == 3
    for label, band in enumerate(display.bands_):
        box = band.get_datalim(display.ax_.transData)
        mine = wanted[model.labels_ == label]
        assert box.height == pytest.approx(len(mine))
        assert box.x1 == pytest.approx(mine.max())
        assert box.x0 == pytest.approx(min(0, mine.min()))
    titles = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert titles == [f"{c}  ({n})" for c, n in enumerate(np.bincount(model.labels_))]
    _, pixel = seen(display)
    middle = np.bincount(model.labels_)[0] // 2
    assert_allclose(pixel((0.02, middle)), to_rgb(_style.COLORS[0]), atol=0.01)


def test_silhouettes_of_many_rows_are_those_of_some():
    rng = np.random.default_rng(4)
    labels = rng.integers(4, size=900) - 1
    rows = rng.normal(size=(900, 3)) + 5.0 * labels[:, None]
    display = SilhouetteDisplay.from_predictions(rows, labels, max_samples=200, random_state=3)
    assert len(display.silhouettes) == 200 and -1 not in display.labels
    again = SilhouetteDisplay.from_predictions(rows, labels, max_samples=200, random_state=3)
    assert_array_equal(display.silhouettes, again.silhouettes)
    distances = pairwise_distances(rows)
    by_distances = SilhouetteDisplay.from_predictions(
        distances, labels, metric="precomputed", max_samples=200, random_state=3
    )
    assert_allclose(by_distances.silhouettes, display.silhouettes, atol=1e-6)
    with pytest.raises(ValueError, match="there are 1 among 5 rows"):
        SilhouetteDisplay.from_predictions(rows[:5], np.zeros(5, int))


# --- pairs ---------------------------------------------------


@pytest.fixture(scope="module")
def pairs():
    return ICONCrossModal(8, encoder="linear", random_state=0).fit(UPPER[:400], LOWER[:400])


def test_rows_find_what_q_puts_nearest(pairs):
    few = slice(1500, 1560)
    display = RetrievalDisplay.from_estimator(pairs, UPPER[few], LOWER[few], queries=[5, -1, 7], n_top=4)
    z, w = pairs.transform(UPPER[few], LOWER[few])
    q = np.exp(log_softmax(z @ w.T / pairs.learned_.tau, axis=1))[[5, 59, 7]]
    order = np.argsort(-q, axis=1)
    assert_array_equal(display.queries, [5, 59, 7])
    assert_array_equal(display.retrieved, order[:, :4])
    assert_allclose(display.q, np.sort(q, axis=1)[:, :-5:-1], rtol=1e-5)
    assert_array_equal(display.ranks, 1 + np.argmax(order == np.array([[5], [59], [7]]), axis=1))
    told = [text.get_text() for text in display.ax_.texts]
    assert sum(text.startswith("rank ") for text in told) == (display.ranks > 4).sum()


def test_partners_are_framed_and_pictures_shown():
    q = np.array([[0.1, 0.9, 0.0], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2]])
    images = np.zeros((3, 4, 8)), np.ones((3, 4, 8, 3)) * [0.9, 0.1, 0.1]
    display = RetrievalDisplay.from_predictions(q, queries=[0, 1, 2], n_top=2, pictures=images)
    assert_array_equal(display.ranks, [2, 1, 3])
    blue = [frame for frame in display.ax_.patches if frame.get_edgecolor()[:3] == to_rgb(_style.COLORS[0])]
    assert len(blue) == 2
    assert "rank 3" in [text.get_text() for text in display.ax_.texts]
    _, pixel = seen(display)
    assert_allclose(pixel((1.75, 0.5)), [0.9, 0.1, 0.1], atol=0.01)  # the best for the first
    assert_allclose(pixel((1.25 + 0.06, 1.75)), to_rgb(_style.COLORS[0]), atol=0.1)  # the frame of the second's partner
    names = RetrievalDisplay.from_predictions(
        q, queries=2, n_top=1, pictures=(list("abc"), list("def")), random_state=0
    )
    assert names.ax_.texts[0].get_text() in "abc"


def test_retrieval_refuses(pairs):
    with pytest.raises(ValueError, match=r"queries=\[9\] should be numbers of the 3 items, from -3 to 2"):
        RetrievalDisplay.from_predictions(np.eye(3), queries=[9])
    with pytest.raises(ValueError, match="got 3 and 2"):
        RetrievalDisplay.from_predictions(np.eye(3), pictures=(list("abc"), list("ab")))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        RetrievalDisplay.from_estimator(pairs, UPPER[:5], LOWER[:4])
    with pytest.raises(NotFittedError):
        RetrievalDisplay.from_estimator(ICONCrossModal(), UPPER[:5], LOWER[:5])


def test_pairs_of_a_limit_show_their_affinities():
    rows = ICONCrossModal(4, learned=learned.WideGaussian(), random_state=0, max_iter=20).fit(UPPER[:60], LOWER[:60])
    display = RetrievalDisplay.from_estimator(rows, UPPER[:60], LOWER[:60], queries=[3])
    assert np.all(np.diff(display.q[0]) <= 0)


# --- neighbourhoods of pairs, classes and tokens -------------


def test_neighborhoods_of_pairs(pairs):
    upper, lower = UPPER[400:450], LOWER[400:450]
    display = NeighborhoodDisplay.from_estimator(pairs, upper, 3, y=lower)
    z, w = pairs.transform(upper, lower)
    log_q = log_softmax(z @ w.T / pairs.learned_.tau, axis=1)
    assert_array_equal(display.p, np.arange(50) == 3)
    assert_allclose(display.q, np.exp(log_q[3]), rtol=1e-5)
    assert display.divergence == pytest.approx(-log_q[3, 3], rel=1e-5)
    assert display.ax_.get_ylabel() == "Row j of y"
    assert any(label.get_text() == "3 (its partner)" for label in display.ax_.get_yticklabels())
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        NeighborhoodDisplay.from_estimator(pairs, upper, 3, y=lower[:4])
    with pytest.raises(ValueError, match="pass these as y"):
        NeighborhoodDisplay.from_estimator(pairs, upper, 3)


def test_pairs_on_a_plane_are_drawn_there():
    flat = ICONCrossModal(2, random_state=0).fit(UPPER[:120], LOWER[:120])
    display = NeighborhoodDisplay.from_estimator(flat, UPPER[:120], 11, y=LOWER[:120])
    z, w = flat.transform(UPPER[:120], LOWER[:120])
    assert_allclose(display.coordinates, w)
    assert_allclose(display.ax_.collections[-1].get_offsets()[0], z[11])
    assert display.ax_q_ is not None


@pytest.mark.parametrize("debias", [0.0, 0.2])
@pytest.mark.parametrize("q", ["dot", "cosine", "student_t"])
def test_neighborhoods_of_classes(q, debias):
    model = ICONClassifier(learned=q, debias=debias, max_iter=2000, random_state=0).fit(X[::2], NAMES[::2])
    display = NeighborhoodDisplay.from_estimator(model, X, 77, y=NAMES)
    wanted = np.where(model.classes_ == NAMES[77], 1 - debias, 0) + debias / 3
    assert_allclose(display.p, wanted)
    assert_allclose(display.q, model.predict_proba(X)[77], rtol=1e-6)
    assert display.divergence == pytest.approx(rel_entr(wanted, model.predict_proba(X)[77]).sum(), rel=1e-6)
    assert {label.get_text() for label in display.ax_.get_yticklabels()} == set(model.classes_)
    assert display.ax_.get_ylabel() == "Class"
    with pytest.raises(ValueError, match="y holds 'rose', which is none of the classes"):
        NeighborhoodDisplay.from_estimator(model, X, 0, y=np.where(np.arange(150) == 4, "rose", NAMES))


def test_neighborhoods_of_some_classes_and_of_probabilities():
    model = ICONClassifier().fit(X, y)
    assert_array_equal(NeighborhoodDisplay.from_estimator(model, X[:50], 0, y=y[:50]).p, [1, 0, 0])
    soft = np.full((150, 3), 0.1) + 0.7 * np.eye(3)[y]
    model = ICONClassifier().fit(X, soft)
    assert_allclose(NeighborhoodDisplay.from_estimator(model, X, 149, y=soft).p, [0.1, 0.1, 0.8])
    known = np.where(np.arange(150) % 3, y, -1)
    model = ICONClassifier(supervisory="propagated_label").fit(X, known)
    display = NeighborhoodDisplay.from_estimator(model, X, 60, y=known)
    assert known[60] == -1 and display.p.argmax() == 1
    model = ICONClassifier(supervisory="same_class", encoder="mlp", max_iter=5, random_state=0).fit(X, y)
    display = NeighborhoodDisplay.from_estimator(model, X, 60, y=y)
    assert_allclose(display.p, np.where((y == 1) & (np.arange(150) != 60), 1 / 49, 0))


@pytest.mark.parametrize("model", [ICONEmbedding(max_iter=60, random_state=0), ICONClustering(3, random_state=0)])
def test_neighborhoods_of_frames_whatever_the_output(model):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    plain = NeighborhoodDisplay.from_estimator(clone(model).fit(X), X, 77)
    framed = NeighborhoodDisplay.from_estimator(clone(model).set_output(transform="pandas").fit(frame), frame, 77)
    assert_array_equal(framed.p, plain.p)
    assert_array_equal(framed.q, plain.q)


def test_neighborhoods_of_tokens():
    rng = np.random.default_rng(2)
    counts = rng.poisson(1.0 + 4 * (np.arange(40)[:, None] % 4 == np.arange(12) % 4))
    how = {"normalization": "conditional", "learned": learned.Gaussian(metric="dot")}
    model = ICONEmbedding(3, supervisory="counts", max_iter=60, random_state=0, **how).fit(counts)
    shown = []
    for i in range(40):
        shown.append(NeighborhoodDisplay.from_estimator(model, counts, i))
        plt.close("all")
    assert_allclose(shown[7].p, counts[7] / counts[7].sum())
    assert shown[7].ax_.get_ylabel() == "Token"
    weights = counts.sum(axis=1)
    mean = np.average([display.divergence for display in shown], weights=weights)
    assert mean == pytest.approx(model.kl_divergence_, rel=1e-4)


# --- uncertainty and pages -----------------------------------


def test_uncertain_rows_are_paler():
    Z = np.column_stack([np.arange(8.0), np.zeros(8)])
    doubt = np.arange(8.0)
    for given in ({"y": ["a"] * 8}, {"values": np.ones(8)}, {}):
        display = EmbeddingDisplay.from_embedding(Z, uncertainty=doubt, s=300, **given)
        _, pixel = seen(display)
        dark = [1 - pixel(point).mean() for point in Z]
        assert np.all(np.diff(dark) < 0.02) and dark[0] > 3 * dark[-1] > 0
    doubt[3] = np.nan  # as uncertain as any
    _, pixel = seen(EmbeddingDisplay.from_embedding(Z, uncertainty=doubt, s=300))
    assert_allclose(pixel(Z[3]), pixel(Z[7]), atol=0.02)
    dense = EmbeddingDisplay.from_embedding(
        np.repeat(Z, 3, axis=0), uncertainty=np.repeat(np.arange(8.0), 3), density=True
    )
    opaque = np.asarray(dense.scatter_[0].get_array())[..., 3].max(axis=0)
    assert np.all(np.diff(opaque[opaque > 0]) < 1e-9) and (opaque > 0).sum() == 8


def test_uncertainty_by_name_beside_classes():
    model = ICONEmbedding(max_iter=60, random_state=0).fit(X)
    display = EmbeddingDisplay.from_estimator(model, y=y, uncertainty="kl_per_sample_")
    assert_array_equal(display.uncertainty, model.kl_per_sample_)
    alphas = np.concatenate([np.asarray(part.get_alpha()) for part in display.scatter_])
    assert alphas.max() <= 0.85 and alphas.min() >= 0.85 * 0.15 - 1e-9 and np.ptp(alphas) > 0.5
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        EmbeddingDisplay.from_embedding(X[:, :2], uncertainty=np.zeros(3))


def page_data(page):
    return json.loads(re.search(r"const data = (\{.*?\});\n", page)[1])


@pytest.mark.parametrize("given", [{"y": [None, "a<b", "c"] * 10}, {"values": np.r_[np.nan, np.arange(29.0)]}, {}])
def test_a_page_tells_what_a_point_is(given, tmp_path):
    Z = np.random.default_rng(1).normal(size=(30, 2)) * [3, 1]
    display = EmbeddingDisplay.from_embedding(Z, **given)
    path = tmp_path / "map.html"
    page = display.to_html(path, names=[f"row </script> {i}" for i in range(30)], title="A & B")
    assert path.read_text(encoding="utf-8") == page
    assert "<title>A &amp; B</title>" in page
    assert page.count("</script>") == 1 and not re.search(r"src=|https?:", page)
    data = page_data(page)
    places = np.column_stack([data["x"], data["height"] - np.array(data["y"])])
    unit = 65535 / np.ptp(Z, axis=0).max()
    assert_allclose(places, (Z - Z.min(axis=0)) * unit, atol=0.51)
    assert data["text"][1].startswith("row </script> 1")
    colors = np.array([to_rgb(data["palette"][number]) for number in data["color"]])
    if "y" in given:
        assert data["text"][:2] == ["row </script> 0: no class", "row </script> 1: a<b"]
        assert_allclose(colors[:3], [to_rgb(c) for c in (_style.LIGHT, *_style.COLORS[:2])], atol=0.003)
    if "values" in given:
        assert data["text"][2] == "row </script> 2: 1"
        assert_allclose(colors[0], to_rgb(_style.LIGHT), atol=0.003)
    assert data["opacity"] is None and sorted(data["order"]) == list(range(30))


def test_pages_of_one_component_and_of_doubt():
    display = EmbeddingDisplay.from_embedding(np.arange(9.0), uncertainty=np.arange(9.0))
    data = page_data(display.to_html())
    assert data["text"] == [str(i) for i in range(9)]
    assert data["opacity"][0] == 85 and data["opacity"][-1] == round(85 * 0.15)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        display.to_html(names=["a"])


def test_clusters_with_numbers_of_their_own_have_these_as_names():
    X, classes = make_blobs([20, 15, 10], 3, random_state=1, cluster_std=0.5)
    y = np.where((np.arange(45) % 2 == 0) & (classes < 2), np.array([30, -4, 0])[classes], -1)
    model = ICONClustering(3, supervisory="same_class", random_state=0).fit(X, y)
    for display in (ClusterSizesDisplay.from_estimator(model, X), ClusterSizesDisplay.from_estimator(model)):
        assert display.names == [-4, 30, 31]
        assert_array_equal(display.sizes, [15, 20, 10])
        assert display.n_unassigned == 0
    silhouettes = SilhouetteDisplay.from_estimator(model, X)
    assert silhouettes.names == [-4, 30, 31]
    assert_array_equal(silhouettes.labels, np.array([1, 0, 2])[classes])
