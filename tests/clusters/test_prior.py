"""A prior over the masses of clusters: its formula, the search that obeys it, what it finds, what it refuses."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

import sklearn_icon
from sklearn_icon import ICONClustering, learned
from sklearn_icon._clusters.local_search import cost_table, search
from sklearn_icon._clusters.partition_loss import shared_cluster_kl
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._objective.objective import Objective
from sklearn_icon.learned import SharedCluster, UniformMixture
from sklearn_icon.nn import ICONLoss
from sklearn_icon.supervisory import Gaussian
from sklearn_icon.testing import check_learned

N, K = 12, 3
GIVEN = (6.0, 3.0, 1.0)
PRIORS = pytest.mark.parametrize("prior", [GIVEN, 0.5, 20.0], ids=str)


def expected_masses(prior, masses):
    """The masses pi of the docstring."""
    if np.ndim(prior):
        return np.array(prior) / np.sum(prior)
    return (masses + prior / len(masses)) / (1 + prior)


def naive(p, phi, prior, degrees=None):
    """The loss of the docstring by loops."""
    degrees = np.ones(len(phi)) if degrees is None else degrees
    sums = [sum(phi[j, c] * degrees[j] for j in range(len(phi))) for c in range(phi.shape[1])]
    pi, total = expected_masses(prior, np.array(sums) / degrees.sum()), 0.0
    for i in range(len(phi)):
        for j in np.flatnonzero(p[i]):
            q = sum(phi.shape[1] * pi[c] * phi[i, c] * phi[j, c] * degrees[j] / sums[c] for c in range(phi.shape[1]))
            total += p[i, j] * (np.log(p[i, j]) - np.log(q)) / len(phi)
    return total


@pytest.fixture
def p():
    weights = np.random.default_rng(0).uniform(size=(N, N)) ** 4
    np.fill_diagonal(weights, 0)
    return Conditional.from_weights(weights)


@PRIORS
@pytest.mark.parametrize("weights", [None, "degree"])
def test_the_loss_is_its_formula(p, prior, weights):
    logits = torch.as_tensor(np.random.default_rng(1).normal(size=(N, K))).requires_grad_()
    objective = Objective(p, SharedCluster(weights, prior))
    degrees = p.degrees if weights else None
    assert_allclose(objective(logits).item(), naive(p.toarray(), logits.softmax(1).detach().numpy(), prior, degrees))
    assert torch.autograd.gradcheck(objective, logits)


@PRIORS
def test_clusters_that_cut_nothing_cost_what_tells_masses_from_the_prior(prior):
    labels = np.repeat([0, 1, 2], [6, 4, 2])
    same = (labels[:, None] == labels) - np.eye(N)
    p = Conditional.from_weights(same)
    loss = float(Objective(p, SharedCluster(prior=prior))(torch.as_tensor(1e3 * np.eye(K)[labels])))
    sizes = np.bincount(labels)
    masses = sizes / N
    constant = np.log(N / K) - masses @ np.log(sizes - 1)  # less the entropy of p
    assert_allclose(loss, masses @ np.log(masses / expected_masses(prior, masses)) + constant, atol=1e-12)


@PRIORS
def test_the_loss_of_batches_is_the_objective(prior):
    n, rng = 7, np.random.default_rng(2)
    logits = torch.as_tensor(rng.normal(size=(2, K, 2 * n)))
    q = UniformMixture(SharedCluster(prior=prior), 0.2)
    found = shared_cluster_kl(None, logits, None, 0.1, (0.2, q.tilt), np.arange(2 * n))
    p = Conditional.from_weights(np.eye(2 * n)[n:], exclude_self=False).mix(0.1)
    for model, value in zip(logits, found, strict=True):
        assert_allclose(float(value), float(Objective(p, q)(model.T[:n], model.T)), atol=1e-12)


@PRIORS
def test_searches_obey_the_prior(p, prior):
    weights = p.toarray()
    for _ in range(200):
        weights = weights / weights.sum(axis=1, keepdims=True)
        weights = (weights + weights.T) / 2
    p = Conditional.from_weights(weights)
    q = UniformMixture(SharedCluster(prior=prior), 0.05)
    table = cost_table("kl", N, 0.0, 0.05, lambda masses: q.tilt(masses, K))
    labels, costs = search(weights / N, np.full(N, 1 / N), K, table, np.random.RandomState(0), n_searches=8)
    found = [float(Objective(p, q)(torch.as_tensor(1e3 * np.eye(K)[each]))) for each in labels]
    assert_allclose(costs - costs[0], np.array(found) - found[0], atol=2e-6)


@PRIORS
def test_it_is_a_sound_q(prior):
    check_learned(SharedCluster(prior=list(prior) if np.ndim(prior) else prior))


@pytest.mark.parametrize("encoder", ["linear", "lookup"])
@pytest.mark.parametrize("prior", [1.0, [30, 2, 3]], ids=str)
def test_large_groups_stay_whole(prior, encoder, tmp_path):
    rows, groups = make_blobs([300, 20, 30], centers=2.5 * np.eye(3, 6), random_state=0, cluster_std=0.4)
    how = {"n_clusters": 3, "encoder": encoder, "random_state": 0, "max_iter": 120}
    even = ICONClustering(learned=SharedCluster(), **how).fit(rows)
    assert np.bincount(even.labels_).max() < 250  # what the prior is for
    clusters = ICONClustering(learned=SharedCluster(prior=prior), **how).fit(rows)
    assert adjusted_rand_score(groups, clusters.labels_) > 0.95
    assert clusters.debias_ == 0
    assert adjusted_rand_score(groups, clusters.predict(rows)) > 0.95
    clusters.save(tmp_path / "clusters")
    again = sklearn_icon.load(tmp_path / "clusters")
    np.testing.assert_array_equal(again.predict_proba(rows), clusters.predict_proba(rows))
    assert repr(again.learned_) == repr(clusters.learned_)


def test_modules_train_on_it():
    z = torch.as_tensor(np.random.default_rng(3).normal(size=(8, K)))
    p = np.roll(np.eye(8), 1, axis=1)
    found = ICONLoss("graph", SharedCluster(prior=2.0))(z, torch.as_tensor(p))
    assert_allclose(float(found), naive(p, z.softmax(1).numpy(), 2.0))


@pytest.mark.parametrize("prior", [-1.0, 0.0, [1.0, 0.0], [1.0, np.nan], [[1.0, 2.0]], ["a", "b"], "even", np.inf])
def test_priors_that_are_none(prior):
    with pytest.raises(ValueError, match="prior"):
        ICONClustering(2, learned=SharedCluster(prior=prior)).fit(np.eye(6))


def test_a_mass_for_each_cluster():
    with pytest.raises(ValueError, match=r"holds 2 masses, but n_clusters=3"):
        ICONClustering(3, learned=SharedCluster(prior=[1, 2])).fit(np.random.default_rng(0).normal(size=(20, 2)))


@pytest.mark.parametrize(
    "other",
    [{"divergence": "total_variation"}, {"divergence": "squared_hellinger"}, {"debias": 1, "encoder": "lookup"}],
)
def test_a_prior_is_a_cost_beside_kl(other):
    rows = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ValueError, match="prior"):
        ICONClustering(3, learned=learned.SharedCluster(prior=1.0), **other).fit(rows)


@pytest.mark.parametrize("sigma", [0, 1.0])
def test_what_k_means_does_not_read_is_refused(sigma):
    rows = np.random.default_rng(0).normal(size=(20, 2))
    how = {"divergence": "reverse_kl", "encoder": "lookup", "supervisory": Gaussian(sigma=sigma)}
    with pytest.raises(ValueError, match="has a prior"):
        ICONClustering(3, learned=SharedCluster(prior=1.0), **how).fit(rows)
    with pytest.raises(ValueError, match="weighs keys, which all count alike under reverse KL"):
        ICONClustering(3, learned=SharedCluster("degree"), **how).fit(rows)
    how["supervisory"] = Gaussian(sigma=sigma, n_neighbors=5)
    with pytest.raises(ValueError, match=r"n_neighbors=5 of .* has no say"):
        ICONClustering(3, **how).fit(rows)
