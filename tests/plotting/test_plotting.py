import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.manifold import TSNE
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_icon import ICONEmbedding, methods
from sklearn_icon.metrics import expected_calibration_error
from sklearn_icon.plotting import (
    ClusterCountDisplay,
    ClusterSizesDisplay,
    EmbeddingDisplay,
    LossCurveDisplay,
    NeighborhoodDisplay,
    PeriodicTableDisplay,
    ReliabilityDisplay,
    RetrievalDisplay,
    SilhouetteDisplay,
    _style,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402

GREY = to_rgb(_style.LIGHT)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def Z():
    return np.random.default_rng(0).normal(size=(90, 2))


def drawn_points(display):
    """Places and colours of all points, in the order of their places."""
    places = np.vstack([np.asarray(part.get_offsets()) for part in display.scatter_])
    display.figure_.canvas.draw()  # a colour scale is applied at this point
    colors = np.vstack(
        [np.broadcast_to(part.get_facecolors()[:, :3], (len(part.get_offsets()), 3)) for part in display.scatter_]
    )
    order = np.lexsort(places.T)
    return places[order], colors[order]


def in_order(Z, *columns):
    order = np.lexsort(np.asarray(Z).T)
    return [np.asarray(column)[order] for column in (Z, *columns)]


def legend_names(display):
    return [text.get_text() for text in display.legend_.get_texts()]


# --- EmbeddingDisplay ----------------------------------------


@pytest.mark.parametrize("n_classes", [2, 10, 20])
def test_each_class_has_its_colour_and_its_name(n_classes, Z):
    y = np.array([f"class {i % n_classes:02d}" for i in range(90)])
    display = EmbeddingDisplay.from_embedding(Z, y=y)
    places, colors = drawn_points(display)
    wanted_places, wanted_y = in_order(Z, y)
    assert_array_equal(places, wanted_places)
    colors_of = {name: set(map(tuple, colors[wanted_y == name])) for name in np.unique(y)}
    assert all(len(found) == 1 for found in colors_of.values())
    assert len(set.union(*colors_of.values())) == n_classes
    assert legend_names(display) == sorted(colors_of)
    handles = display.legend_.legend_handles
    assert all(to_rgb(h.get_color()) in colors_of[h.get_label()] for h in handles)
    assert len({(h.get_color().tobytes(), h.get_marker()) for h in handles}) == n_classes
    assert display.colorbar_ is None


def test_the_legend_stands_beside_the_points_within_the_figure(Z):
    display = EmbeddingDisplay.from_embedding(Z, y=[f"quite a long name {i % 20}" for i in range(90)])
    display.figure_.canvas.draw()
    legend, axes = display.legend_.get_window_extent(), display.ax_.get_window_extent()
    assert legend.x0 >= axes.x1
    assert display.figure_.bbox.x1 >= legend.x1
    assert axes.y0 <= legend.y0 <= legend.y1 <= axes.y1 + 10


def test_many_classes_have_colours_but_no_legend():
    Z = np.random.default_rng(0).normal(size=(300, 2))
    display = EmbeddingDisplay.from_embedding(Z, y=np.arange(300) % 30)
    assert display.legend_ is None
    assert len(np.unique(drawn_points(display)[1], axis=0)) == 20
    assert EmbeddingDisplay.from_embedding(Z, y=np.arange(300) % 30, legend="outside").legend_ is not None


def test_classes_named_at_their_medians(Z):
    y = np.arange(90) % 3
    display = EmbeddingDisplay.from_embedding(Z, y=y, legend="direct")
    assert display.legend_ is None
    assert [text.get_text() for text in display.ax_.texts] == ["0", "1", "2"]
    for text in display.ax_.texts:
        assert_allclose(text.get_position(), np.median(Z[y == int(text.get_text())], axis=0))
    assert not EmbeddingDisplay.from_embedding(Z, y=y, legend="none").ax_.texts


def test_names_of_near_classes_do_not_overlap():
    """Boxes of names that all belong near one place are apart on the finished figure, and each has a line to it."""
    rng = np.random.default_rng(3)
    y = np.arange(400) % 16
    display = EmbeddingDisplay.from_embedding(
        rng.normal(size=(400, 2)), y=[f"some class {i}" for i in y], legend="direct"
    )
    display.figure_.canvas.draw()
    boxes = [text.get_window_extent() for text in display.ax_.texts if text.get_text()]
    assert len(boxes) == 16
    for number, box in enumerate(boxes):
        for other in boxes[:number]:
            assert not box.overlaps(other)
    lines = [text for text in display.ax_.texts if not text.get_text()]
    assert 0 < len(lines) <= 16


VISION = {  # Machado, Oliveira and Fernandes, "A physiologically-based model ...", 2009, at full severity
    "any": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def cielab(colors, vision):
    """CIE 1976 L*a*b* under D65 of sRGB colours as they are seen."""
    colors = np.asarray(colors)
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    x, y, z = (seen @ np.array(to_xyz).T / [0.95047, 1, 1.08883]).T
    x, y, z = (np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29) for t in (x, y, z))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("vision", VISION)
def test_rows_without_a_class_look_like_no_class(vision, Z):
    y = [None if i % 21 == 0 else f"class {i % 21:02d}" for i in range(90)]
    display = EmbeddingDisplay.from_embedding(Z, y=y)
    colors = np.unique(drawn_points(display)[1], axis=0)
    is_grey = np.all(colors == GREY, axis=1)
    assert len(colors) == 21 and is_grey.sum() == 1
    seen = cielab(colors, vision)
    assert np.linalg.norm(seen[~is_grey] - seen[is_grey], axis=1).min() >= 15
    assert np.linalg.norm(seen[is_grey] - cielab(np.ones((1, 3)), vision)) >= 10  # and is no paper


@pytest.mark.parametrize("colour", ["classes", "values", "none"])
def test_many_rows_are_drawn_as_densities(colour, monkeypatch):
    from sklearn_icon.plotting import _embedding

    rng = np.random.default_rng(1)
    Z = np.vstack([rng.normal(size=(600, 2)), [8.0, 0.0] + 0.1 * rng.normal(size=(300, 2))])
    given = {"classes": {"y": np.arange(900) // 600}, "values": {"values": Z[:, 0]}, "none": {}}[colour]
    points = EmbeddingDisplay.from_embedding(Z, **given)
    monkeypatch.setattr(_embedding, "_MOST_POINTS", 899)
    display = EmbeddingDisplay.from_embedding(Z, **given)
    (image,) = display.scatter_
    left, right, bottom, top = image.get_extent()
    assert left <= Z[:, 0].min() and right > Z[:, 0].max() and bottom <= Z[:, 1].min() and top > Z[:, 1].max()
    picture = np.asarray(image.get_array())
    column, row = np.clip(
        ((Z - [left, bottom]) / [right - left, top - bottom] * picture.shape[1::-1]).astype(int), 0, None
    ).T
    assert (picture[row, column, 3] > 0).all()
    filled = set(zip(row.tolist(), column.tolist(), strict=True))
    assert (picture[..., 3] > 0).sum() == len(filled)
    if colour == "classes":
        assert_allclose(picture[row[600:], column[600:], :3].std(axis=0), 0, atol=1e-12)  # the class that is apart
        assert display.legend_ is not None
    assert (display.colorbar_ is not None) == (colour == "values")
    display.figure_.canvas.draw()
    assert EmbeddingDisplay.from_embedding(Z, s=3, **given).scatter_[0].get_sizes()[0] == 3  # points were asked for
    assert len(display.plot(density=False).scatter_) == len(points.scatter_)
    with pytest.raises(ValueError, match="density='much'"):
        display.plot(density="much")


@pytest.mark.parametrize(
    "y",
    [
        np.arange(90) % 4 - 1,
        np.where(np.arange(90) % 4 == 0, np.nan, np.arange(90) % 4),
        np.where(np.arange(90) % 4 == 0, None, np.arange(90).astype(str).astype("<U1")),
    ],
    ids=["minus one", "nan", "none"],
)
def test_rows_without_a_class_are_grey_and_behind(y, Z):
    display = EmbeddingDisplay.from_embedding(Z, y=y)
    assert_array_equal(in_order(Z[::4])[0], in_order(display.scatter_[0].get_offsets())[0])
    _, colors = drawn_points(display)
    grey = np.all(colors == GREY, axis=1)
    assert_array_equal(in_order(Z, np.arange(90) % 4 == 0)[1], grey)
    assert legend_names(display)[-1] == "no class"
    assert "nan" not in legend_names(display)


def test_minus_one_against_one_is_a_class(Z):
    display = EmbeddingDisplay.from_embedding(Z, y=np.where(Z[:, 0] > 0, 1, -1))
    assert legend_names(display) == ["-1", "1"]


def test_labels_that_do_not_sort_and_maps_of_truth_values(Z):
    with pytest.raises(ValueError, match=r"must hold numbers, or text, or None .*labels of several kinds"):
        EmbeddingDisplay.from_embedding(Z[:3], y=[None, 1, "a"])
    display = EmbeddingDisplay.from_embedding(Z[:, :1] > 0, y=[None, *"ab" * 44, "b"])
    assert display.embedding.dtype == np.float64


def test_a_palette_sets_the_colours_in_sorted_order(Z):
    y = np.where(Z[:, 0] > 0, "b", "a")
    _, colors = drawn_points(EmbeddingDisplay.from_embedding(Z, y=y, palette=["black", "red"]))
    wanted = in_order(Z, np.where((y == "a")[:, None], to_rgb("black"), to_rgb("red")))[1]
    assert_array_equal(colors, wanted)


def test_no_class_hides_another(Z):
    display = EmbeddingDisplay.from_embedding(Z, y=np.arange(90) // 45)
    first_drawn = np.all(display.scatter_[0].get_facecolors()[:45, :3] == to_rgb(_style.COLORS[0]), axis=1)
    assert 10 < first_drawn.sum() < 35


def test_values_have_a_colour_bar(Z):
    values = np.linspace(3, 5, 90)
    display = EmbeddingDisplay.from_embedding(Z, values=values, values_name="loss")
    (scatter,) = display.scatter_
    places = np.asarray(scatter.get_offsets())
    assert_array_equal(in_order(places, scatter.get_array())[1], in_order(Z, values)[1])
    assert scatter.get_clim() == (3, 5)
    assert display.colorbar_.extend == "neither"
    assert display.colorbar_.ax.get_ylabel() == "loss"
    assert display.legend_ is None


def test_outliers_do_not_take_the_colour_scale():
    Z = np.random.default_rng(0).normal(size=(400, 2))
    values = np.linspace(0, 1, 400)
    values[7] = 1000
    display = EmbeddingDisplay.from_embedding(Z, values=values)
    low, high = display.scatter_[0].get_clim()
    assert low == 0
    assert 0.9 < high < 1.1
    assert display.colorbar_.extend == "max"
    display = EmbeddingDisplay.from_embedding(Z, values=values, vmin=-1, vmax=9, cmap="cividis")
    assert display.scatter_[0].get_clim() == (-1, 9)
    assert display.scatter_[0].get_cmap().name == "cividis"
    norm = matplotlib.colors.LogNorm(1, 10)
    display = EmbeddingDisplay.from_embedding(Z, values=values, norm=norm)
    assert display.scatter_[0].norm is norm
    assert display.colorbar_.extend == "both"


def test_values_that_are_not_finite_are_grey(Z):
    values = np.where(np.arange(90) < 9, np.nan, 1.0)
    display = EmbeddingDisplay.from_embedding(Z, values=values, cmap="cividis")
    assert_array_equal(in_order(display.scatter_[0].get_offsets())[0], in_order(Z[:9])[0])
    assert_array_equal(display.scatter_[0].get_facecolors()[0, :3], GREY)
    assert len(display.scatter_[1].get_offsets()) == 81


@pytest.mark.parametrize(
    ("y", "categorical"),
    [
        (["a"] * 200, True),
        (np.arange(200) % 2 == 0, True),
        (np.arange(200) % 20, True),
        (np.arange(200) % 20 * 1.0, True),
        (np.arange(200) % 21, False),
        (np.arange(200) / 2 % 2, False),
        (np.arange(200), False),
        (load_diabetes().target, False),
    ],
)
def test_y_is_classes_or_numbers(y, categorical):
    Z = np.random.default_rng(0).normal(size=(len(y), 2))
    display = EmbeddingDisplay.from_embedding(Z, y=y)
    assert (display.labels is not None) == categorical
    assert (display.colorbar_ is None) == categorical


def test_a_map_without_colours(Z):
    display = EmbeddingDisplay.from_embedding(Z)
    assert len(np.unique(drawn_points(display)[1], axis=0)) == 1
    assert display.legend_ is display.colorbar_ is None
    display = EmbeddingDisplay.from_embedding(Z, c=np.arange(90), s=3)
    assert_array_equal(display.scatter_[0].get_array(), np.arange(90))
    assert_array_equal(display.scatter_[0].get_sizes(), [3])
    display = EmbeddingDisplay.from_embedding(Z, y=np.arange(90) % 2, linewidths=2, edgecolor="red")
    assert display.scatter_[0].get_linewidths()[0] == 2
    assert_array_equal(display.scatter_[0].get_edgecolors()[0, :3], to_rgb("red"))


def test_points_shrink_with_their_number_and_with_the_axes():
    def size(n, ax=None):
        Z = np.random.default_rng(0).normal(size=(n, 2))
        return EmbeddingDisplay.from_embedding(Z, ax=ax).scatter_[0].get_sizes()[0]

    assert size(20) == size(100) > size(2000) > size(20_000) >= 0.4
    _, axes = plt.subplots(2, 2)
    assert size(2000, axes[0, 0]) < size(2000)


def test_the_plane_has_equal_scales_and_no_ticks(Z):
    display = EmbeddingDisplay.from_embedding(Z * [1, 9])
    assert display.ax_.get_aspect() == 1
    assert len(display.ax_.get_xticks()) == len(display.ax_.get_yticks()) == 0
    assert display.scatter_[0].get_rasterized()
    assert not display.ax_.texts


def test_of_many_components_two_are_drawn_with_a_note(Z):
    display = EmbeddingDisplay.from_embedding(np.hstack([Z, Z + 9, Z]), feature_names=list("abcdef"))
    assert_array_equal(drawn_points(display)[0], in_order(Z)[0])
    assert [text.get_text() for text in display.ax_.texts] == ["components 1 and 2 of 6"]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("a", "b")


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("n_classes", [0, 3, 30])
def test_one_component_is_a_histogram_over_a_strip(shape, n_classes, Z):
    y = None if n_classes == 0 else np.array([f"{i % n_classes}" for i in range(90)])
    display = EmbeddingDisplay.from_embedding(Z[:, 0].reshape(shape), y=y)
    places = np.vstack([part.get_offsets() for part in display.scatter_])
    assert_array_equal(np.sort(places[:, 0]), np.sort(Z[:, 0]))
    assert places[:, 1].max() < 0
    assert sum(bar.get_height() for bar in display.ax_.patches) == 90
    colors = {bar.get_facecolor()[:3] for bar in display.ax_.patches}
    assert colors == ({GREY} if n_classes != 3 else {to_rgb(color) for color in _style.COLORS[:3]})


def test_from_estimator_maps_rows_or_takes_the_training_map():
    X, y = load_iris(return_X_y=True)
    pca = PCA(2).fit(X)
    display = EmbeddingDisplay.from_estimator(pca, X[:50], y=y[:50])
    assert_array_equal(display.embedding, pca.transform(X[:50]))
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("pca0", "pca1")
    tsne = TSNE(perplexity=5, method="exact", max_iter=250, random_state=0).fit(X[::5])
    tsne.kl_per_sample_ = np.arange(30.0)
    display = EmbeddingDisplay.from_estimator(tsne, values="kl_per_sample_")
    assert_array_equal(display.embedding, tsne.embedding_)
    assert_array_equal(display.values, np.arange(30))
    assert display.colorbar_.ax.get_ylabel() == "kl_per_sample_"
    display = EmbeddingDisplay.from_estimator(make_pipeline(StandardScaler(), PCA(2)).fit(X), X)
    assert display.ax_.get_xlabel() == "pca0"


def test_from_estimator_says_what_is_missing():
    X, _ = load_iris(return_X_y=True)
    with pytest.raises(AttributeError, match="PCA has no embedding_; pass X"):
        EmbeddingDisplay.from_estimator(PCA(2).fit(X))
    with pytest.raises(AttributeError, match="TSNE has no transform; leave out X"):
        EmbeddingDisplay.from_estimator(TSNE(), X)
    with pytest.raises(NotFittedError):
        EmbeddingDisplay.from_estimator(TSNE())


def test_frames_and_series_bring_their_names(Z):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(Z, columns=["east", "north"])
    display = EmbeddingDisplay.from_embedding(frame, y=pd.Series(Z[:, 0], name="height"))
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("east", "north")
    assert display.colorbar_.ax.get_ylabel() == "height"
    y = pd.Series(np.where(Z[:, 0] > 0, "b", "a"), dtype="category")
    assert legend_names(EmbeddingDisplay.from_embedding(frame, y=y)) == ["a", "b"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"y": np.zeros(90), "values": np.zeros(90)}, "y and values both set the colour"),
        ({"y": np.zeros(3)}, "inconsistent numbers of samples"),
        ({"values": np.zeros(3)}, "inconsistent numbers of samples"),
        ({"legend": "left"}, "legend='left' is not one of"),
    ],
)
def test_embedding_display_refuses(kwargs, message, Z):
    with pytest.raises(ValueError, match=message):
        EmbeddingDisplay.from_embedding(Z, **kwargs)
    with pytest.raises(ValueError, match="Z contains NaN"):
        EmbeddingDisplay.from_embedding(Z * np.nan)
    with pytest.raises(ValueError, match="set one of them to None"):
        EmbeddingDisplay(Z, labels=np.zeros(90), values=np.zeros(90)).plot()


# --- LossCurveDisplay ----------------------------------------


def test_loss_curve_leaves_out_what_is_not_finite():
    display = LossCurveDisplay([np.inf, 3.0, np.nan, 1.0, -1.7e308]).plot(color="red", lw=3)
    assert_array_equal(display.line_.get_xydata(), [[2, 3], [4, 1]])
    assert (display.line_.get_color(), display.line_.get_linewidth()) == ("red", 3)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("Recorded step", "Loss")
    assert display.ax_.get_legend() is None


def test_loss_curve_of_an_estimator():
    X, y = load_iris(return_X_y=True)
    mlp = MLPClassifier((5,), tol=0.02, random_state=0).fit(X, y)
    display = LossCurveDisplay.from_estimator(mlp)
    assert_array_equal(display.line_.get_ydata(), mlp.loss_curve_)
    assert_array_equal(display.line_.get_xdata(), np.arange(1, mlp.n_iter_ + 1))
    assert display.ax_.get_xlabel() == "Iteration"
    mlp.loss_curve_ = mlp.loss_curve_[::2]
    assert LossCurveDisplay.from_estimator(mlp).ax_.get_xlabel() == "Recorded step"
    steps = np.arange(len(mlp.loss_curve_)) * 2
    second = LossCurveDisplay.from_estimator(mlp, iterations=steps, name="every other", ax=display.ax_)
    assert_array_equal(second.line_.get_xdata(), steps)
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == ["MLPClassifier", "every other"]


def test_loss_curve_of_a_map_marks_its_phases():
    m = ICONEmbedding(perplexity=10, max_iter=150, random_state=0).fit(load_iris().data)
    display = LossCurveDisplay.from_estimator(m)
    assert_array_equal(display.line_.get_xydata(), np.c_[m.loss_iterations_, m.loss_curve_])
    assert [text.get_text() for text in display.ax_.texts] == [name for name, *_ in m.phases_[1:]]
    ends = np.cumsum([n_iter for _, n_iter, _ in m.phases_])
    assert_array_equal([line.get_xdata()[0] for line in display.ax_.lines[1:]], ends[:-1] + 0.5)


def test_loss_curve_on_logarithmic_axes():
    _, ax = plt.subplots()
    ax.set(xscale="log", yscale="log")
    assert LossCurveDisplay([3.0, 2.0]).plot(ax).ax_.get_xscale() == "log"


def test_loss_curve_refuses():
    X, _ = load_iris(return_X_y=True)
    with pytest.raises(AttributeError, match="PCA has no loss_curve_"):
        LossCurveDisplay.from_estimator(PCA(2).fit(X))
    with pytest.raises(NotFittedError):
        LossCurveDisplay.from_estimator(MLPClassifier())
    with pytest.raises(ValueError, match="inconsistent numbers"):
        LossCurveDisplay([1.0, 2.0], iterations=[1]).plot()


# --- ReliabilityDisplay --------------------------------------


@pytest.fixture
def bayes():
    X, y = load_iris(return_X_y=True)
    X = X[:, :2]
    return GaussianNB().fit(X, load_iris().target_names[y]), X, load_iris().target_names[y]


def test_reliability_display_shows_the_bins(bayes):
    classifier, X, y = bayes
    display = ReliabilityDisplay.from_estimator(classifier, X, y, n_bins=8)
    prob = classifier.predict_proba(X)
    assert display.ece == expected_calibration_error(y, prob, n_bins=8)
    bins = np.ceil(prob.max(axis=1) * 8).astype(int) - 1
    correct = classifier.predict(X) == y
    wanted = [[prob.max(axis=1)[bins == b].mean(), correct[bins == b].mean()] for b in np.unique(bins)]
    assert_allclose(display.line_.get_xydata(), wanted)
    bars = display.ax_histogram_.patches
    assert_allclose([bar.get_height() for bar in bars], np.bincount(bins, minlength=8) / 150)
    assert_allclose([bar.get_x() for bar in bars], np.arange(8) / 8)
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["Perfectly calibrated", f"GaussianNB (ECE = {display.ece:.3f})"]


def test_reliability_display_of_predictions_equals_that_of_the_estimator(bayes):
    classifier, X, y = bayes
    one = ReliabilityDisplay.from_estimator(classifier, X, y)
    two = ReliabilityDisplay.from_predictions(y, classifier.predict_proba(X))
    assert_array_equal(one.line_.get_xydata(), two.line_.get_xydata())
    assert two.line_.get_label() == f"ECE = {one.ece:.3f}"
    labels = classifier.classes_[::-1]
    three = ReliabilityDisplay.from_predictions(y, classifier.predict_proba(X)[:, ::-1], labels=labels)
    assert_allclose(one.line_.get_xydata(), three.line_.get_xydata())
    p = np.array([0.2, 0.9, 0.6])
    binary = ReliabilityDisplay.from_predictions([0, 1, 0], p, n_bins=2, color="black", name="mine")
    assert binary.ece == expected_calibration_error([0, 1, 0], p, n_bins=2)
    assert binary.line_.get_color() == "black"


def test_a_second_reliability_curve_joins_the_first(bayes):
    first = ReliabilityDisplay.from_estimator(*bayes)
    second = ReliabilityDisplay.from_estimator(*bayes, name="again", ax=first.ax_, histogram=False, color="C1")
    assert second.ax_ is first.ax_
    assert second.ax_histogram_ is None
    assert len(first.figure_.axes) == 2
    legend = [text.get_text() for text in first.ax_.get_legend().get_texts()]
    assert legend[0] == "Perfectly calibrated"
    assert len(legend) == 3
    assert (first.ax_.get_xlabel(), first.ax_histogram_.get_xlabel()) == ("", "Confidence")


def test_reliability_histogram_keeps_to_the_room_of_its_axes(bayes):
    figure, axes = plt.subplots(1, 2)
    by_hand = figure.add_axes((0.2, 0.3, 0.4, 0.5))
    for ax in (axes[0], by_hand):
        room = ax.get_position()
        below = ReliabilityDisplay.from_estimator(*bayes, ax=ax).ax_histogram_.get_position()
        above = ax.get_position()
        assert_allclose([below.x0, below.x1, below.y0], [room.x0, room.x1, room.y0])
        assert_allclose([above.x0, above.x1, above.y1], [room.x0, room.x1, room.y1])
        assert below.y1 < above.y0
    alone = ReliabilityDisplay.from_estimator(*bayes, ax=axes[1], histogram=False)
    assert alone.ax_.get_xlabel() == "Confidence"


# --- all of them ---------------------------------------------

DISPLAYS = [
    lambda: EmbeddingDisplay(np.eye(4), labels=list("abca")),
    lambda: LossCurveDisplay([2.0, 1.0]),
    lambda: ClusterCountDisplay([2, 3], [[0.5, 0.9], [0.1, 0.2]], [[2, 2.5], [0, 0.5]], loss=[[3, 2], [0, 0]]),
    lambda: ReliabilityDisplay([0.5, 0.9], [0.4, 0.9], [1, 3], 0.025),
    lambda: NeighborhoodDisplay([0.0, 0.5, 0.5], [0.0, 0.9, 0.1], 0, 0.51),
    lambda: NeighborhoodDisplay([0.0, 0.5, 0.5], [0.0, 0.9, 0.1], 0, 0.51, coordinates=np.eye(3, 2)),
    lambda: ClusterSizesDisplay([3, 1], expected=[2.5, 1.5], n_unassigned=2),
    lambda: SilhouetteDisplay([0.5, -0.1, 0.8, 0.7], [0, 0, 1, 1]),
    lambda: RetrievalDisplay([0, 1], [[1, 0], [1, 2]], [[0.6, 0.4], [0.9, 0.1]], [2, 1]),
    lambda: PeriodicTableDisplay([methods.get("t-sne"), methods.get("t-k-means")]),
]


@pytest.mark.parametrize("make", DISPLAYS)
def test_plot_draws_on_given_axes_again_and_saves(make, tmp_path):
    display = make()
    assert not hasattr(display, "ax_")
    assert display.plot() is display
    first = display.figure_
    figure, ax = plt.subplots()
    assert display.plot(ax=ax) is display
    assert (display.ax_, display.figure_) == (ax, figure)
    assert first is not figure
    for suffix in ("pdf", "svg", "png"):
        figure.savefig(tmp_path / f"figure.{suffix}")
        assert (tmp_path / f"figure.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize("make", DISPLAYS)
def test_plot_without_matplotlib_says_how_to_get_it(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"Display.plot requires matplotlib"):
        make().plot()


def test_displays_say_what_they_were_given():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(AttributeError, match="KMeans has no classes_, as classifiers have; match its columns"):
        ReliabilityDisplay.from_estimator(KMeans(3, n_init=1).fit(X), X, y)
    with pytest.raises(TypeError, match=r"index must be an instance of int, not float"):
        NeighborhoodDisplay.from_estimator(ICONEmbedding(max_iter=20).fit(X), X, 1.5)
