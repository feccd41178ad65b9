"""Features in any units: what is fitted to rows of extreme scale, or far from the origin, is what their shape says."""

from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp
from covering import covering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders
from sklearn_icon._core.rows import unit_of
from sklearn_icon.encoders._scaling import input_scale
from sklearn_icon.metrics import knn_recall, random_triplet_accuracy, trustworthiness
from sklearn_icon.supervisory import Gaussian

X, y = make_blobs(80, n_features=5, centers=4, cluster_std=0.6, random_state=3)
Y = X @ np.random.default_rng(0).normal(size=(5, 3)) + 0.1 * np.random.default_rng(1).normal(size=(80, 3))
CLUSTERINGS = {
    "chosen": {},
    "linear": {"encoder": "linear", "max_iter": 60},
    "network": {"encoder": encoders.MLP((8,)), "max_iter": 60, "n_init": 1},
    "k-means": {"supervisory": Gaussian(sigma=0), "divergence": "reverse_kl", "encoder": "lookup"},
}
SCALES = [(2.0**-900, "f8"), (2.0**-340, "f8"), (2.0**480, "f8"), (2.0**-100, "f4"), (2.0**100, "f4")]


CONTAINERS = {"dense": np.asarray, "csr": sp.csr_array}


@cache
def plain_clusters(name, container, dtype):
    return clusters(name, CONTAINERS[container](X.astype(dtype)))


def clusters(name, rows, **more):
    return ICONClustering(4, random_state=0, **CLUSTERINGS[name], **more).fit(rows)


@pytest.mark.parametrize("name, container, unit", covering(CLUSTERINGS, CONTAINERS, SCALES))
def test_clusters_are_the_same_in_all_units(name, container, unit):
    scale, dtype = unit
    rows = CONTAINERS[container]((X.astype(dtype) * scale).astype(dtype))
    plain, scaled = plain_clusters(name, container, dtype), clusters(name, rows)
    np.testing.assert_array_equal(scaled.labels_, plain.labels_)
    np.testing.assert_array_equal(scaled.predict(rows), scaled.labels_)
    assert adjusted_rand_score(y, scaled.labels_) == 1
    np.testing.assert_allclose(scaled.cluster_centers_ / scale, plain.cluster_centers_, rtol=1e-5)
    if name == "k-means":
        distances = [
            model.set_params(output="distances").transform(rows) for model, rows in ((plain, X), (scaled, X * scale))
        ]
        np.testing.assert_allclose(distances[1] / scale, distances[0], rtol=1e-5)


@pytest.mark.parametrize(("scale", "dtype"), SCALES)
def test_starts_of_k_means_are_in_the_units_of_the_rows(scale, dtype):
    rows, wanted = X.astype(dtype), np.stack([X[y == c].mean(axis=0) for c in range(4)])
    found = clusters("k-means", (rows * scale).astype(dtype), init=wanted * scale)
    np.testing.assert_array_equal(found.labels_, y)
    of_rule = clusters("k-means", (rows * scale).astype(dtype), init=lambda X, k, random_state: wanted * scale)
    assert adjusted_rand_score(y, of_rule.labels_) == 1


@pytest.mark.parametrize(("scale", "dtype"), SCALES)
def test_networks_see_rows_of_unit_spread(scale, dtype):
    rows = (X.astype(dtype) * scale).astype(dtype)
    shift, factor = input_scale(rows)
    np.testing.assert_allclose(shift / scale, input_scale(X.astype(dtype))[0], rtol=1e-5)
    assert np.isclose(np.std((rows - shift) * factor), 1, rtol=1e-5)
    model = ICONClassifier(encoder="mlp", random_state=0).fit(rows, y)
    assert model.score(rows, y) == 1
    embedded = [
        ICONEmbedding(encoder="mlp", max_iter=30, random_state=0).fit_transform(part)
        for part in (X.astype(dtype), rows)
    ]
    np.testing.assert_allclose(*embedded, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(("scale", "dtype"), SCALES)
def test_pairs_match_in_all_units(scale, dtype, side):
    plain = X.astype(dtype), Y.astype(dtype)
    scaled = [(part * (scale if number == side else 1)).astype(dtype) for number, part in enumerate(plain)]
    expected = ICONCrossModal(2, random_state=0).fit(*plain).transform(*plain)
    found = ICONCrossModal(2, random_state=0).fit(*scaled).transform(*scaled)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("offset", [1e5, 1e6, 1e7])
def test_pairs_in_single_precision_far_from_the_origin(offset):
    rows = (10 * X + offset).astype(np.float32)
    model = ICONCrossModal(2, random_state=0).fit(rows, Y.astype(np.float32))
    z, w = model.transform(rows, Y.astype(np.float32))
    assert [np.corrcoef(a, b)[0, 1] > 0.99 for a, b in zip(z.T, w.T, strict=True)] == [True, True]


def test_columns_equal_up_to_rounding_are_constant():
    """0.1 + 0.2 - 0.3 and the like say nothing, whatever the units of the other columns."""
    noise = 0.1 + np.float32(1e-8) * np.random.default_rng(2).integers(-1, 2, size=(80, 1))
    rows = np.hstack([X, noise]).astype(np.float32)
    assert np.ptp(rows[:, -1]) > 0
    model = ICONCrossModal(2, random_state=0).fit(rows, Y.astype(np.float32))
    assert not model.x_rotations_[-1].any()


def test_pairs_of_items_of_several_axes_are_those_of_their_rows():
    rows = X[:, :4]
    items, beside = rows.reshape(80, 2, 2), Y.reshape(80, 1, 3)
    of_rows = ICONCrossModal(2, encoder="linear", random_state=0).fit(rows, Y)
    of_items = ICONCrossModal(2, encoder="linear", random_state=0).fit(items, beside)
    for one, other in zip(of_items.transform(items, beside), of_rows.transform(rows, Y), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(of_items.predict(items), of_rows.predict(rows), rtol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
@pytest.mark.parametrize("scale", [2.0**-900, 2.0**600])
@pytest.mark.parametrize("measure", [knn_recall, trustworthiness, random_triplet_accuracy])
def test_maps_are_measured_in_any_units(measure, scale, metric):
    Z = X[:, :2]
    for container in (np.asarray, sp.csr_array):
        expected = measure(container(X), Z, metric=metric)
        assert 0.5 < measure(container(X * scale), Z / scale, metric=metric) == expected < 1


def test_units_are_powers_of_two_and_one_for_ordinary_rows():
    assert unit_of(X) == unit_of(1e20 * X) == unit_of(0 * X) == 1
    for rows in (1e-200 * X, 1e140 * X, (1e-30 * X).astype("f4"), sp.csr_array(1e90 * X), 5e-324 + 0 * X):
        unit = unit_of(rows)
        assert np.frexp(unit)[0] == 0.5
        assert 0 < abs(rows * unit).max() < 2
