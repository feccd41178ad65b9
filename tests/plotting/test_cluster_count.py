"""`ClusterCountDisplay`: what it measures, that it repeats, what it draws and what it refuses."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, pairwise_distances

from sklearn_icon import ICONClustering, supervisory
from sklearn_icon.plotting import ClusterCountDisplay, _style

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402

X, truth = make_blobs(160, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
QUICK = {"max_iter": 60, "n_init": 1}
measured = ClusterCountDisplay.from_estimator


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def display():
    return measured(ICONClustering(encoder="linear", **QUICK), X, n_clusters=[2, 3, 4, 8], random_state=0)


class Recorder(ClusterMixin, BaseEstimator):
    """Cuts rows, which hold their number, in K equal parts after a random shift; keeps what each fit got."""

    fits = []

    def __init__(self, n_clusters=2, random_state=None):
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X, y=None):
        self.shift_ = np.random.RandomState(self.random_state).uniform(0, 10)
        self.loss_ = float(np.mean(X))
        self.fits.append((self.n_clusters, self.random_state, X[:, 0], y))
        return self

    def predict(self, X):
        return ((X[:, 0] + self.shift_) // 20 % self.n_clusters).astype(int)

    def predict_proba(self, X):
        return np.eye(self.n_clusters)[self.predict(X)] * 0.5 + 0.5 / self.n_clusters


def test_three_blobs_are_most_stable_as_three(display):
    mean, _ = display.stability
    assert mean.argmax() == 1
    assert mean[1] > 0.95
    assert (np.diff(display.loss[0, :3]) < 0).all()
    assert display.entropy[0, 1] < display.entropy[0, 2]
    assert display.n_used[0, -1] < 8


def test_the_number_that_would_be_kept_is_marked():
    display = measured(ICONClustering(), X, n_clusters=[2, 3, 4], n_repeats=1, random_state=0)
    assert display.chosen_ == 3
    assert list(display.axes_) == ["stability", "entropy", "loss", "cut"]
    for panel in display.axes_.values():
        assert any(np.ravel(line.get_xdata()).tolist() == [3, 3] for line in panel.lines)


def test_no_number_is_marked_where_nothing_is_chosen_by_what_is_cut(display):
    assert display.cut is None
    assert display.chosen_ is None


def test_shapes(display):
    assert_array_equal(display.n_clusters, [2, 3, 4, 8])
    for values in (display.stability, display.entropy, display.loss, display.n_used):
        assert values.shape == (2, 4)
        assert np.isfinite(values).all()
    assert (display.entropy[0] >= 0).all()
    assert (display.entropy[0] <= 1).all()


def test_measures_equal_a_loop_over_the_fits(monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    rows = np.arange(101.0).reshape(-1, 1)
    display = measured(Recorder(), rows, rows.ravel() * 2, n_clusters=[3, 2, 3], n_repeats=4, random_state=0)
    assert_array_equal(display.n_clusters, [2, 3])
    assert [fit[0] for fit in Recorder.fits] == [2] * 8 + [3] * 8
    for position, k in enumerate([2, 3]):
        fits = [Recorder(k, seed).fit(half.reshape(-1, 1)) for n, seed, half, _ in Recorder.fits[:16] if n == k]
        labels = [fit.predict(rows) for fit in fits]
        ari = [adjusted_rand_score(a, b) for a, b in zip(labels[::2], labels[1::2], strict=True)]
        assert_allclose(display.stability[:, position], [np.mean(ari), np.std(ari)])
        losses = [fit.loss_ for fit in fits]
        assert_allclose(display.loss[:, position], [np.mean(losses), np.std(losses)])
        low = 0.5 / k
        entropy = -(k - 1) * low * np.log(low) - (0.5 + low) * np.log(0.5 + low)
        assert_allclose(display.entropy[:, position], [entropy / np.log(k), 0], atol=1e-12)
        assert_array_equal(display.n_used[:, position], [k, 0])


def test_pairs_are_halves_and_every_count_meets_the_same(monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    rows = np.arange(101.0).reshape(-1, 1)
    measured(Recorder(), rows, rows.ravel() * 2, n_clusters=[2, 3], n_repeats=2, random_state=0)
    two, three = Recorder.fits[:4], Recorder.fits[4:]
    for (_, seed, half, y), (_, seed_of_three, half_of_three, _) in zip(two, three, strict=True):
        assert seed == seed_of_three
        assert_array_equal(half, half_of_three)
        assert_array_equal(y, 2 * half)
    assert len({seed for _, seed, _, _ in two}) == 4
    for (_, _, first, _), (_, _, second, _) in zip(two[::2], two[1::2], strict=True):
        assert_array_equal(np.sort(np.concatenate([first, second])), rows.ravel())
        assert abs(len(first) - len(second)) <= 1
    assert not np.array_equal(two[0][2], two[2][2])


def test_the_same_seed_gives_the_same_numbers():
    options = {"n_clusters": [3], "n_repeats": 1}
    display = measured(ICONClustering(**QUICK), X, random_state=0, **options)
    again = measured(ICONClustering(random_state=5, **QUICK), X, random_state=0, **options)
    for name in ("stability", "entropy", "loss", "n_used"):
        assert_array_equal(getattr(again, name), getattr(display, name))
    other = measured(ICONClustering(**QUICK), X, random_state=1, **options)
    assert not np.array_equal(other.loss, display.loss)


def test_the_estimator_stays_as_it_was():
    rows = X.copy()
    fitted = KMeans(5, n_init=1, random_state=3).fit(rows)
    params, labels = fitted.get_params(), fitted.labels_
    measured(fitted, rows, n_clusters=[2, 3], n_repeats=1)
    assert fitted.get_params() == params
    assert fitted.labels_ is labels
    assert_array_equal(rows, X)
    unfitted = KMeans()
    measured(unfitted, rows, n_clusters=[2, 3], n_repeats=1)
    assert not hasattr(unfitted, "labels_")


def test_hard_clusters_have_no_entropy_and_no_loss():
    display = measured(KMeans(n_init=3), sparse.csr_array(X), n_clusters=range(2, 6), random_state=0)
    assert display.entropy is display.loss is None
    assert display.stability[0].argmax() == 1
    assert list(display.axes_) == ["stability"]
    assert display.ax_.get_xlabel() == "Number of clusters K"


@pytest.mark.parametrize(
    ("params", "pairs"),
    [
        ({"metric": "precomputed"}, pairwise_distances(X)),
        ({"supervisory": "graph"}, supervisory.UniformKNN(n_neighbors=20).conditional(X).weights),
    ],
    ids=["distances", "graph"],
)
def test_halves_of_pairs_are_square(params, pairs):
    display = measured(ICONClustering(**params, **QUICK), pairs, n_clusters=[2, 3, 4], n_repeats=2, random_state=0)
    assert display.stability[0].argmax() == 1


def test_frames_stay_frames():
    pandas = pytest.importorskip("pandas", reason="an extra of the tests")
    frame = pandas.DataFrame(X, columns=["east", "north"])
    display = measured(KMeans(n_init=1), frame, n_clusters=[2, 3], n_repeats=1, random_state=0)
    assert_array_equal(
        display.stability, measured(KMeans(n_init=1), X, n_clusters=[2, 3], n_repeats=1, random_state=0).stability
    )


@pytest.mark.parametrize("n_clusters", [[2.0, 3.0], [1, 2], [], "ten", [[2, 3]], [True], None])
def test_counts_are_integers_of_at_least_two(n_clusters):
    with pytest.raises(ValueError, match=r"n_clusters=.* should be a sequence of integers of at least 2"):
        measured(KMeans(), X, n_clusters=n_clusters)


def test_display_refuses():
    with pytest.raises(ValueError, match=r"n_clusters=81 needs at least 162 rows, .* got 160; leave out .* above 80"):
        measured(KMeans(), X, n_clusters=[2, 81])
    with pytest.raises(ValueError, match="n_repeats == 0, must be >= 1"):
        measured(KMeans(), X, n_repeats=0)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        measured(KMeans(), X, truth[:5])
    with pytest.raises(AttributeError, match="PCA has no parameter n_clusters"):
        measured(PCA(), X)
    with pytest.raises(AttributeError, match="SpectralClustering has no predict"):
        measured(SpectralClustering(), X)


# --- the picture ---------------------------------------------


def test_panels_show_means_in_bands_over_one_axis(display):
    drawn = ClusterCountDisplay(
        display.n_clusters, display.stability, display.n_used, entropy=display.entropy, loss=display.loss
    ).plot(color="red", marker="s")
    assert list(drawn.axes_) == ["stability", "entropy", "loss", "n_used"]
    assert drawn.axes_["stability"] is drawn.ax_
    for name, panel in drawn.axes_.items():
        mean, std = getattr(display, name)
        line = drawn.lines_[name]
        assert_array_equal(line.get_xydata(), np.column_stack([[2, 3, 4, 8], mean]))
        assert (line.get_color(), line.get_marker()) == ("red", "s")
        (band,) = panel.collections
        box = band.get_datalim(panel.transData)
        assert_allclose([box.y0, box.y1], [(mean - std).min(), (mean + std).max()])
        assert_array_equal(band.get_facecolor()[0], to_rgba("red", 0.2))
        assert panel.get_xlim() == drawn.ax_.get_xlim()
    panels = list(drawn.axes_.values())
    assert [panel.get_xlabel() for panel in panels] == ["", "", "", "Number of clusters K"]
    assert_array_equal(panels[-1].get_xticks(), [2, 3, 4, 8])
    assert_array_equal(panels[-1].lines[-1].get_xydata(), [[k, k] for k in (2, 3, 4, 8)])
    assert drawn.ax_.get_ylim()[0] <= 0
    assert drawn.ax_.get_ylim()[1] == 1.05
    drawn.figure_.canvas.draw()
    tops = [panel.get_position().y1 for panel in panels]
    assert tops == sorted(tops, reverse=True)


def test_clusters_in_use_are_drawn_only_where_some_are_not():
    stability = np.array([[0.5, 0.6], [0, 0]])
    all_used = ClusterCountDisplay([2, 3], stability, [[2, 3], [0, 0]]).plot()
    assert list(all_used.axes_) == ["stability"]
    fewer = ClusterCountDisplay([2, 3], stability, [[2, 2.5], [0, 0.5]]).plot()
    assert list(fewer.axes_) == ["stability", "n_used"]


def test_many_counts_do_not_crowd_the_axis():
    counts = np.arange(2, 62)
    display = ClusterCountDisplay(counts, np.zeros((2, 60)), [counts, 0 * counts]).plot()
    display.figure_.canvas.draw()
    ticks = display.ax_.get_xticks()
    assert len(ticks) < 20
    assert_array_equal(ticks, np.round(ticks))


def test_panels_keep_to_the_room_of_their_axes(display):
    figure, axes = plt.subplots(1, 2)
    for ax in (axes[0], figure.add_axes((0.2, 0.3, 0.4, 0.5))):
        room = ax.get_position()
        below = _style.panels_below(ax, [2, 1, 1])
        places = [panel.get_position() for panel in (ax, *below)]
        assert_allclose([place.x0 for place in places], room.x0)
        assert_allclose([place.x1 for place in places], room.x1)
        assert_allclose([places[0].y1, places[-1].y0], [room.y1, room.y0])
        assert places[0].y0 > places[1].y1 > places[1].y0 > places[2].y1
        assert_allclose([place.height / places[0].height for place in places], [1, 0.5, 0.5])
    assert display.plot(ax=axes[1]).ax_ is axes[1]
    assert display.figure_ is figure
