"""Contrastive learning through ICONEmbedding: each published loss against its formula, views, items of any shape."""

import pickle
from functools import partial
from itertools import islice
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding, encoders, learned, supervisory
from sklearn_icon._core.conditional import Conditional, view_conditional
from sklearn_icon._objective.batches import BatchLoss, ViewLoss
from sklearn_icon._objective.loss import Loss
from sklearn_icon._objective.objective import Objective
from sklearn_icon._optim.train import Run
from sklearn_icon._training.trained import TrainedEncoder
from sklearn_icon.supervisory import PositivePairs

RUN = Run(torch.float64, torch.device("cpu"))
DIGITS, Y = load_digits(return_X_y=True)
IMAGES = DIGITS[:400].reshape(-1, 8, 8).astype(np.float32)
LABELS = Y[:400]
COSINE = learned.Gaussian(metric="cosine", tau=0.2)


def jitter(batch):
    """One shift of the whole batch, and noise."""
    shift = torch.randint(-1, 2, (2,)).tolist()
    return torch.roll(batch, shift, (1, 2)) + 2 * torch.randn_like(batch)


def noisy(batch):
    return batch + 0.1 * torch.randn_like(batch)


class Convolutions(nn.Module):
    """Images (n, 8, 8), normalised by batch and with dropout."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        assert n_inputs == 64
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1)
        )
        self.last = nn.Linear(128, n_outputs)

    def forward(self, x):
        return self.last(self.body(x[:, None]))


def simclr(n_components=16, **options):
    defaults = {"learned": COSINE, "encoder": "mlp", "max_iter": 40, "batch_size": 64, "random_state": 0}
    return ICONEmbedding(n_components, **({"supervisory": PositivePairs(jitter)} | defaults | options))


# --- the losses ---------------------------------------------------------------------------------------------------


def log_cosine(a, b, tau=0.2):
    return (a @ b) / (a.norm() * b.norm()) / tau


def log_student_t(a, b, df=2.0):
    return -(df + 1) / 2 * torch.log(1 + (a - b).square().sum() / df)


def naive_kl(z, keys, positives, log_kernel, excluded, alpha):
    """Mean over rows of KL, pair by pair: p uniform over the positives of a row, mixed with alpha / N."""
    total = 0.0
    for i in range(len(z)):
        choices = [j for j in range(len(keys)) if j != excluded(i)]
        log_k = {j: log_kernel(z[i], keys[j]) for j in choices}
        log_z = torch.stack(list(log_k.values())).exp().sum().log()
        for j in choices:
            p = (1 - alpha) * (j in positives(i)) / len(positives(i)) + alpha / len(choices)
            if p:
                total = total + p * (log(p) - log_k[j] + log_z)
    return total / len(z)


def parts(n_items=5, n_views=2, momentum=None, seed=0):
    """(raw views, weights of rows, weights of keys, views spec, encoder in training) of a linear map."""
    rng = np.random.RandomState(seed)
    raw = torch.as_tensor(rng.normal(size=(n_views, n_items, 4)))
    weights, past = (torch.as_tensor(rng.normal(size=(4, 3))).requires_grad_() for _ in range(2))
    calls = iter(range(n_views * 10))
    views = PositivePairs(lambda batch: raw[next(calls) % n_views][: len(batch)], n_views)
    trained = SimpleNamespace(represent=lambda x: x @ weights, represent_keys=None)
    if momentum is not None:
        trained.represent_keys = lambda x: (x @ past).detach()
    return raw.reshape(-1, 4), weights, past, views, trained


def of_batch(views, trained, q, n_items, alpha=0.0):
    """The loss of one batch of all items."""
    p = view_conditional(n_items, views.n_views).mix(alpha)
    loss = ViewLoss(p, views, Loss(q), lambda items: torch.zeros(len(items), 4).double(), trained, n_items, RUN)
    return loss, loss(np.arange(n_items))


def same_gradient(ours, theirs, weights, tolerance=1e-8):
    assert_allclose(float(ours.detach()), float(theirs.detach()), rtol=tolerance)
    gradients = [torch.autograd.grad(value, weights, retain_graph=True)[0] for value in (ours, theirs)]
    assert_allclose(*gradients, rtol=tolerance, atol=tolerance)


KERNELS = {"simclr": (COSINE, log_cosine), "t-simclr": (learned.StudentT(df=2.0), log_student_t)}
each_kernel = pytest.mark.parametrize(("q", "log_kernel"), KERNELS.values(), ids=KERNELS)


@each_kernel
@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("n_views", [2, 3])
def test_every_view_is_an_anchor_and_all_others_are_its_keys(q, log_kernel, alpha, n_views):
    n = 5
    raw, weights, _, views, trained = parts(n, n_views)
    ours = of_batch(views, trained, q, n, alpha)[1]
    z = raw @ weights
    positives = lambda i: [j for j in range(n_views * n) if j % n == i % n and j != i]  # noqa: E731
    same_gradient(ours, naive_kl(z, z, positives, log_kernel, lambda i: i, alpha), weights)


def test_simclr_is_the_loss_of_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="an extra of the tests")
    raw, weights, _, views, trained = parts(6)
    ours = of_batch(views, trained, learned.Gaussian(metric="cosine", tau=0.1), 6)[1]
    theirs = losses.NTXentLoss(temperature=0.1)(raw @ weights, torch.arange(6).repeat(2))
    same_gradient(ours, theirs, weights)


@each_kernel
@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("n_views", [2, 3])
def test_keys_of_the_past_are_the_views_of_the_other_draws(q, log_kernel, alpha, n_views):
    n = 4
    raw, weights, past, views, trained = parts(n, n_views, momentum=0.9)
    ours = of_batch(views, trained, q, n, alpha)[1]
    draws, keys = (raw @ weights).split(n), (raw @ past).detach().split(n)
    theirs = 0.0
    for v in range(n_views):
        others = torch.cat([keys[u] for u in range(n_views) if u != v])
        positives = lambda i: [i + n * u for u in range(n_views - 1)]  # noqa: E731
        theirs = theirs + naive_kl(draws[v], others, positives, log_kernel, lambda i: None, alpha) / n_views
    same_gradient(ours, theirs, weights)


def test_moco_v3_is_the_symmetrised_cross_entropy():
    raw, weights, past, views, trained = parts(6, momentum=0.99)
    ours = of_batch(views, trained, COSINE, 6)[1]
    q1, q2 = nn.functional.normalize(raw @ weights).split(6)
    k1, k2 = nn.functional.normalize((raw @ past).detach()).split(6)
    labels = torch.arange(6)
    cross_entropy = nn.functional.cross_entropy
    theirs = (cross_entropy(q1 @ k2.T / 0.2, labels) + cross_entropy(q2 @ k1.T / 0.2, labels)) / 2
    same_gradient(ours, theirs, weights)


def test_vicreg_without_covariance():
    raw, weights, _, views, trained = parts(6)
    ours = of_batch(views, trained, learned.WideGaussian(), 6)[1]
    z = raw @ weights
    apart = (z[:6] - z[6:]).square().sum(1).mean()
    same_gradient(ours, apart - 2 * z.var(dim=0, unbiased=True).sum(), weights)


def test_triplet_with_the_hardest_negative_of_the_batch():
    n = 5
    raw, weights, _, views, trained = parts(n)
    ours = of_batch(views, trained, learned.NarrowGaussian(), n)[1]
    z = raw @ weights
    theirs = 0.0
    for i in range(2 * n):
        sq = [(z[i] - z[j]).square().sum() for j in range(2 * n)]
        positive = (i + n) % (2 * n)
        negative = min(sq[j] for j in range(2 * n) if j not in (i, positive))
        theirs = theirs + (sq[positive] - negative).clamp_min(0) / (2 * n)
    same_gradient(ours, theirs, weights)


def test_triplet_with_one_negative():
    rng = np.random.RandomState(0)
    z = torch.as_tensor(rng.normal(size=(30, 3, 4)))
    for anchor, positive, negative in z:
        objective = Objective(Conditional.from_weights(np.array([[1.0, 0.0]])), learned.NarrowGaussian())
        expected = nn.functional.relu((anchor - positive).square().sum() - (anchor - negative).square().sum())
        assert_allclose(objective(anchor[None], torch.stack([positive, negative])), expected, rtol=1e-12)


@each_kernel
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_supervised_contrast_of_all_rows(q, log_kernel, alpha):
    raw, weights, *_ = parts(6)
    y = np.array([0, 1, 0, 2, 1, 0, 0, 1, 2, 2, 2, 0])
    p = supervisory.SameClass().conditional(raw.numpy(), y).mix(alpha)
    z = raw @ weights
    positives = lambda i: [j for j in range(12) if y[j] == y[i] and j != i]  # noqa: E731
    same_gradient(Objective(p, q)(z), naive_kl(z, z, positives, log_kernel, lambda i: i, alpha), weights)


@each_kernel
def test_minibatches_of_rows_take_keys_of_the_past(q, log_kernel):
    rng = np.random.RandomState(0)
    X, weights, past = (torch.as_tensor(rng.normal(size=size)) for size in [(8, 4), (4, 3), (4, 3)])
    weights.requires_grad_()
    p = supervisory.Graph().conditional(np.roll(np.eye(8), 1, axis=1))  # the positive of i is i + 1
    loss = BatchLoss(p, Loss(q), lambda rows: X[rows] @ weights, 4, RUN, lambda rows: X[rows] @ past)
    ours = loss(np.random.RandomState(3))
    rows = np.random.RandomState(3).permutation(8)[:4]
    keys = X[np.concatenate([rows, (rows + 1) % 8])] @ past
    excluded = (lambda i: i) if p.exclude_self else (lambda i: None)
    same_gradient(ours, naive_kl(X[rows] @ weights, keys, lambda i: [4 + i], log_kernel, excluded, 0.0), weights)


# --- views --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_items", "n_views"), [(1, 2), (4, 2), (3, 4)])
def test_p_of_views(n_items, n_views):
    item = np.tile(np.arange(n_items), n_views)
    expected = (item[:, None] == item) & ~np.eye(len(item), dtype=bool)
    p = PositivePairs(noisy, n_views).conditional(np.zeros((n_items, 2)))
    assert p.exclude_self
    assert_allclose(p.toarray(), expected / (n_views - 1), rtol=1e-15)


def test_views_are_stacked_draw_after_draw():
    batch = torch.arange(6.0).reshape(3, 2)
    factors = iter([1.0, 10.0, 100.0])
    views = PositivePairs(lambda x: x.mul_(next(factors)).double(), 3).draw(batch)
    assert_array_equal(views, np.concatenate([batch, 10 * batch, 100 * batch]))
    assert views.dtype == torch.float32
    assert_array_equal(batch, np.arange(6.0).reshape(3, 2))


@pytest.mark.parametrize(
    ("augment", "error"),
    [
        (
            lambda x: x[1:],
            r"augment must return one view of each of 64 items, all of one shape, got shape \(63, 8, 8\)",
        ),
        (lambda x: x.numpy(), "augment must return a torch tensor, got ndarray"),
        (lambda x: x.sum(), r"augment must return one view of each of 64 items, all of one shape, got shape \(\)"),
        (lambda x: x[:, : torch.randint(2, 8, ())], "augment must return one view .* all of one shape"),
        (lambda x: x * torch.inf, "augment returned views that hold NaN or infinity"),
    ],
)
def test_views_that_are_none(augment, error):
    with pytest.raises(ValueError, match=error):
        simclr(supervisory=PositivePairs(augment)).fit(IMAGES[:128])


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (PositivePairs(n_views=3), "n_views=3 counts the calls of augment, but augment is None"),
        (PositivePairs(noisy, n_views=1), "The 'n_views' parameter of PositivePairs must be"),
        (PositivePairs("noisy"), "The 'augment' parameter of PositivePairs must be"),
    ],
)
def test_bad_parameters_are_named(spec, error):
    with pytest.raises(ValueError, match=error):
        spec.validate()


def test_without_views_groups_are_read():
    assert PositivePairs().needs_y and not PositivePairs(noisy).needs_y
    assert ICONEmbedding(supervisory="positive_pairs").__sklearn_tags__().target_tags.required
    assert not simclr().__sklearn_tags__().target_tags.required
    with pytest.raises(ValueError, match="requires y to be passed"):
        ICONEmbedding(supervisory="positive_pairs", encoder="mlp").fit(DIGITS[:20])


def test_a_pass_takes_every_item_once():
    _, _, _, views, trained = parts()
    loss = ViewLoss(view_conditional(23, 2), views, Loss(COSINE), None, trained, 5, RUN)
    batches = list(islice(loss.passes(np.random.RandomState(0)), 10))
    assert {len(batch) for batch in batches} == {4, 5}
    for one_pass in (batches[:5], batches[5:]):
        assert_array_equal(np.sort(np.concatenate(one_pass)), np.arange(23))
    assert any((a != b).any() for a, b in zip(np.concatenate(batches[:5]), np.concatenate(batches[5:]), strict=True))


def test_shares_of_items_have_the_mean_of_the_batch():
    for momentum in (None, 0.9):
        _, _, _, views, trained = parts(5, 3, momentum)
        loss, value = of_batch(views, trained, COSINE, 5, 0.3)
        shares = loss.per_item(np.arange(5)).detach()
        assert shares.shape == (5,)
        assert_allclose(float(shares.mean()), float(value.detach()), rtol=1e-12)
        assert float(shares.std()) > 1e-3


# --- fits ---------------------------------------------------------------------------------------------------------

SIMCLR = partial(simclr, encoder=encoders.ProjectionHead(encoders.MLP(), hidden=(32,), n_outputs=8))
METHODS = {
    "simclr": SIMCLR(),
    "simclr-debiased": SIMCLR(debias=0.4),
    "moco-v3": simclr(encoder=encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP()), momentum=0.9)),
    "t-simclr": SIMCLR(learned=learned.StudentT(df=2.0)),
    "t-simclr-debiased": SIMCLR(learned=learned.StudentT(df=2.0), debias=0.4),
    "t-simcne": simclr(2, learned="student_t", max_iter=80),
    "vicreg": simclr(learned="wide_gaussian"),
    "triplet": simclr(learned="narrow_gaussian", batch_size=2, max_iter=200),
    "supcon": simclr(supervisory="same_class", normalization="conditional"),
    "supcon-debiased": simclr(supervisory="same_class", normalization="conditional", debias=0.4),
    "t-supcon": simclr(supervisory="same_class", learned="student_t", normalization="conditional"),
    "t-supcon-debiased": simclr(supervisory="same_class", learned="student_t", normalization="conditional", debias=0.4),
    "convolutions": SIMCLR(encoder=encoders.Module(Convolutions), learning_rate=0.01),
    "three views": simclr(supervisory=PositivePairs(jitter, n_views=3)),
}
each_method = pytest.mark.parametrize("estimator", METHODS.values(), ids=METHODS)


@each_method
def test_methods_learn(estimator):
    estimator = clone(estimator)
    Z = estimator.fit_transform(IMAGES, LABELS)
    assert Z.shape == (400, estimator.n_components) and Z.dtype == np.float32
    curve = estimator.loss_curve_
    assert curve[-10:].mean() < curve[:5].mean()
    near = KNeighborsClassifier(5).fit(Z[::2], LABELS[::2]).score(Z[1::2], LABELS[1::2])
    assert near > (0.35 if estimator.n_components == 2 else 0.5)  # chance is 0.1: nothing has collapsed
    assert estimator.kl_per_sample_.shape == (400,)
    assert estimator.kl_per_sample_.mean() == pytest.approx(estimator.kl_divergence_, rel=1e-6)
    assert_allclose(estimator.transform(IMAGES), Z, rtol=1e-5, atol=1e-5)
    again = pickle.loads(pickle.dumps(estimator))
    assert_array_equal(again.transform(IMAGES[:5]), estimator.transform(IMAGES[:5]))


@each_method
def test_same_bits_and_global_generators_left_alone(estimator):
    estimator = clone(estimator).set_params(max_iter=3)
    first = clone(estimator).fit(IMAGES, LABELS)
    torch.rand(3)
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    images = IMAGES.copy()
    again = clone(estimator).fit(IMAGES, LABELS)
    assert_array_equal(again.embedding_, first.embedding_)
    assert again.kl_divergence_ == first.kl_divergence_
    assert torch.equal(torch.get_rng_state(), states[0])
    assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert_array_equal(IMAGES, images)
    assert (clone(estimator).set_params(random_state=1).fit(IMAGES, LABELS).embedding_ != first.embedding_).any()


def test_the_loss_is_the_mean_over_a_pass_of_views():
    estimator = simclr(supervisory=PositivePairs(lambda batch: batch + 1.0), batch_size=400, max_iter=5).fit(IMAGES)
    module = estimator.transform(IMAGES + 1.0).astype(np.float64)
    z = torch.as_tensor(np.concatenate([module, module]))
    expected = Objective(view_conditional(400, 2), COSINE)(z)
    assert estimator.kl_divergence_ == pytest.approx(float(expected), rel=1e-5)
    assert estimator.method_ == "sampled"


@pytest.mark.parametrize("q", ["wide_gaussian", "narrow_gaussian"])
def test_limits_hold_networks_to_the_unit_sphere(q):
    estimator = simclr(learned=q, max_iter=3).fit(IMAGES)
    for Z in (estimator.embedding_, estimator.transform(IMAGES[:7] + 1)):
        assert_allclose(np.linalg.norm(Z, axis=1), 1, rtol=1e-5)
    headed = SIMCLR(learned=q, max_iter=3).fit(IMAGES)
    assert np.linalg.norm(headed.embedding_, axis=1).std() > 1e-3  # the head's outputs are, in the loss alone
    assert -4 <= headed.kl_divergence_ <= 4
    by_class = simclr(learned=q, supervisory="same_class", normalization="conditional", max_iter=3)
    assert_allclose(np.linalg.norm(by_class.fit_transform(DIGITS[:60], Y[:60]), axis=1), 1, rtol=1e-5)


def test_wrappers_of_p_work_on_views():
    mixed, debiased = (
        simclr(supervisory=p, debias=debias, max_iter=3).fit(IMAGES)
        for p, debias in [(supervisory.UniformMixture(PositivePairs(jitter), 0.3), 0.0), (PositivePairs(jitter), 0.3)]
    )
    assert_array_equal(mixed.embedding_, debiased.embedding_)
    walked = simclr(supervisory=supervisory.RandomWalk(PositivePairs(jitter, 3), n_steps=2), max_iter=3).fit(IMAGES)
    plain = simclr(supervisory=PositivePairs(jitter, 3), max_iter=3).fit(IMAGES)
    assert_array_equal(walked.embedding_, plain.embedding_)


def test_what_falls_without_bound():
    with pytest.raises(ValueError, match="falls without bound"):
        simclr(learned="wide_gaussian", encoder="linear").fit(IMAGES)
    with pytest.raises(ValueError, match="falls without bound"):
        ICONClassifier(supervisory="same_class", learned="wide_gaussian").fit(DIGITS, Y)


# --- heads and the past -------------------------------------------------------------------------------------------


def test_a_head_is_between_representation_and_loss():
    encoder = encoders.ProjectionHead(encoders.MLP(hidden=(6,)), hidden=(5,), n_outputs=3)
    module = encoder.build(4, 2, seed=0, dtype=torch.float64)
    trained = TrainedEncoder(encoder, module, 2, seed=0)
    x = torch.rand(7, 4, dtype=torch.float64)
    assert module(x).shape == (7, 2)
    head = encoder.build_head(2, seed=0, dtype=torch.float64)
    assert_array_equal(trained.represent(x).detach(), head(module(x)).detach())
    assert len(trained.params) == 8 and trained.represent_keys is None
    assert encoders.MLP().build_head(2) is None


@pytest.mark.parametrize("headed", [False, True])
def test_keys_follow_as_an_average(headed):
    base = encoders.ProjectionHead(encoders.MLP(hidden=(3,)), n_outputs=2) if headed else encoders.MLP(hidden=(3,))
    encoder = encoders.MomentumKeys(base, momentum=0.75)
    trained = TrainedEncoder(encoder, encoder.build(4, 2, seed=0), 2, seed=0)
    expected = [param.detach().clone() for param in trained.params]
    for step in range(3):
        with torch.no_grad():
            for param in trained.params:
                param.add_(step + 1.0)
        trained.follow()
        expected = [0.75 * old + 0.25 * new.detach() for old, new in zip(expected, trained.params, strict=True)]
    for past, average in zip(trained.represent_keys.parameters(), expected, strict=True):
        assert not past.requires_grad
        assert_allclose(past, average, rtol=1e-6)
    assert {kept.data_ptr() for kept in trained.kept} >= {p.data_ptr() for p in trained.represent_keys.parameters()}


def test_order_of_head_and_past_does_not_matter():
    inside = encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP()), 0.9)
    outside = encoders.ProjectionHead(encoders.MomentumKeys(encoders.MLP(), 0.9))
    first, second = (simclr(encoder=encoder, max_iter=3).fit(IMAGES) for encoder in (inside, outside))
    assert_array_equal(first.embedding_, second.embedding_)


@pytest.mark.parametrize(
    ("encoder", "error"),
    [
        (
            encoders.ProjectionHead(encoders.Lookup()),
            r"base of ProjectionHead must be an encoder with weights, got Look",
        ),
        (encoders.MomentumKeys(encoders.MomentumKeys(encoders.MLP())), "base of MomentumKeys must be an encoder with"),
        (
            encoders.ProjectionHead(encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP()))),
            "base of ProjectionHead must be an encoder with weights",
        ),
        (encoders.ProjectionHead(nn.Linear(2, 2)), "The 'base' parameter of ProjectionHead must be"),
        (encoders.ProjectionHead(encoders.MLP(), hidden=(0,)), "hidden must hold positive integers"),
        (encoders.ProjectionHead(encoders.MLP(), n_outputs=0), "The 'n_outputs' parameter of ProjectionHead must be"),
        (encoders.MomentumKeys(encoders.MLP(), momentum=1.0), "The 'momentum' parameter of MomentumKeys must be"),
        (encoders.MomentumKeys(encoders.MLP(hidden=(0,))), "hidden must hold positive integers"),
    ],
)
def test_bad_encoders_are_named(encoder, error):
    with pytest.raises(ValueError, match=error):
        simclr(encoder=encoder).fit(IMAGES)


def test_the_loss_of_rows_is_that_of_the_head_and_the_past():
    encoder = encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP(hidden=(4,)), n_outputs=3), momentum=0.5)
    same_class = simclr(supervisory="same_class", encoder=encoder, normalization="conditional", max_iter=30)
    estimator = same_class.fit(DIGITS[:100], Y[:100])
    assert estimator.method_ == "exact"
    assert estimator.kl_divergence_ == pytest.approx(estimator.loss_curve_[-1], rel=0.05)
    sampled = clone(same_class).set_params(method="sampled", batch_size=50).fit(DIGITS[:100], Y[:100])
    assert sampled.loss_curve_[-5:].mean() < sampled.loss_curve_[:5].mean()


def test_who_takes_views_heads_and_the_past():
    head, past = encoders.ProjectionHead(encoders.MLP()), encoders.MomentumKeys(encoders.MLP())
    few, labels = DIGITS[:100], Y[:100]
    for estimator in (
        ICONClassifier(encoder=head),
        ICONClassifier(encoder=past),
        ICONClustering(3, encoder=head),
        ICONClassifier(supervisory=PositivePairs(noisy)),
        ICONClassifier(supervisory=supervisory.UniformMixture(PositivePairs(noisy), 0.1)),
    ):
        with pytest.raises(ValueError, match="is for training that sets rows against each other"):
            estimator.fit(few, labels)
    model = ICONClassifier(supervisory="same_class", encoder=head, random_state=0, max_iter=60).fit(few, labels)
    assert model.transform(few).shape == (100, 64)
    assert model.score(few, labels) > 0.9
    with pytest.raises(ValueError, match=r"draws views, which have no coordinates of their own in Lookup\(\)"):
        simclr(encoder="lookup").fit(DIGITS[:20])
    with pytest.raises(ValueError, match="carries labels over p between rows of X"):
        ICONClassifier(supervisory=supervisory.PropagatedLabel(PositivePairs(noisy))).fit(few, labels)
    with pytest.raises(ValueError, match="method='exact' sums over all rows at once, but"):
        simclr(method="exact").fit(IMAGES)


# --- items of any shape -------------------------------------------------------------------------------------------


def test_items_of_any_shape_are_rows_to_flat_encoders():
    flat, shaped = DIGITS[:100], DIGITS[:100].reshape(-1, 2, 4, 8)
    for p, encoder in (("gaussian", "mlp"), ("knn", "linear"), ("knn", encoders.Linear(orthonormal=True))):
        options = {"supervisory": p, "encoder": encoder, "max_iter": 10, "random_state": 0, "perplexity": 10}
        rows, items = (ICONEmbedding(**options).fit(X) for X in (flat, shaped))
        assert rows.n_features_in_ == items.n_features_in_ == 64
        assert rows.embedding_.shape == items.embedding_.shape == (100, 2)
        assert_allclose(items.transform(shaped[:3]), items.embedding_[:3], rtol=1e-6, atol=1e-9)
    assert_allclose(items.embedding_, rows.embedding_, rtol=1e-6)  # without a scale of its inputs


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.uint8, np.float32), (np.int64, np.float32), (np.float32, np.float32), (float, float)]
)
def test_precision_of_items(dtype, expected):
    images = IMAGES[:64].astype(dtype)
    estimator = simclr(max_iter=2).fit(images)
    assert estimator.embedding_.dtype == estimator.transform(images[:3]).dtype == expected
    assert_array_equal(images, IMAGES[:64])
    assert_array_equal(estimator.transform(images.tolist()), estimator.transform(images.astype(float)))
    assert estimator.__sklearn_tags__().input_tags.three_d_array
    assert not ICONEmbedding().__sklearn_tags__().input_tags.three_d_array


def test_bad_items():
    estimator = simclr(max_iter=2).fit(IMAGES[:64])
    assert estimator.n_features_in_ == 64
    with pytest.raises(ValueError, match="X has 32 features, but ICONEmbedding is expecting 64"):
        estimator.transform(IMAGES[:4, :4])
    with pytest.raises(ValueError, match=r"items of shape \(4, 16\), but was fitted on items of shape \(8, 8\)"):
        estimator.transform(IMAGES[:4].reshape(-1, 4, 16))
    with pytest.raises(ValueError, match=r"items of shape \(64,\), but was fitted on items of shape \(8, 8\)"):
        estimator.transform(IMAGES[:4].reshape(-1, 64))
    with pytest.raises(ValueError, match="contains NaN"):
        simclr().fit(np.full((4, 8, 8), np.nan))
    with pytest.raises(ValueError, match="Found array with dim 3"):
        ICONEmbedding().fit(IMAGES)
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        simclr().fit(IMAGES[:1])


def test_sparse_rows_have_views():
    rows = DIGITS[:200].astype(np.float32)
    dense, of_sparse = (
        simclr(supervisory=PositivePairs(noisy), max_iter=5).fit(X) for X in (rows, sparse.csr_array(rows))
    )
    assert_allclose(of_sparse.embedding_, dense.embedding_, rtol=1e-4, atol=1e-4)


def test_views_may_have_a_shape_of_their_own():
    encoder = encoders.Module(lambda n_inputs, n_outputs: nn.Sequential(Pooled(), nn.Linear(8, n_outputs)))
    crop = PositivePairs(lambda images: noisy(images[:, :5]))
    assert simclr(supervisory=crop, encoder=encoder, max_iter=3).fit_transform(IMAGES).shape == (400, 16)


class Pooled(nn.Module):
    def forward(self, x):
        return x.mean(dim=1)


# --- modules that fail --------------------------------------------------------------------------------------------


class Breaks(nn.Module):
    """Running means, and NaN from some call on."""

    def __init__(self, n_inputs, n_outputs, calls):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(n_inputs), nn.Linear(n_inputs, n_outputs))
        self.calls = calls

    def forward(self, x):
        if self.training:
            self.calls -= 1
            x = x * (torch.nan if self.calls < 0 else 1.0)
        return self.layers(x)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_nan_of_a_module_stops_the_fit(momentum):
    def encoder(calls):
        module = encoders.Module(partial(Breaks, calls=calls))
        return module if momentum is None else encoders.MomentumKeys(module, momentum)

    with pytest.raises(ValueError, match=r"not finite but nan in epoch 2, at iteration 7, and .* at half the rate"):
        simclr(encoder=encoder(7), max_iter=20).fit(IMAGES)


def broken(n_inputs, n_outputs):
    linear = nn.Linear(n_inputs, n_outputs)
    with torch.no_grad():
        linear.bias.fill_(torch.nan)
    return nn.Sequential(nn.Flatten(), linear)


def test_a_module_that_gives_nothing_finite():
    with pytest.raises(ValueError, match="not finite but nan in epoch 1, at iteration 0"):
        simclr(encoder=encoders.Module(broken)).fit(IMAGES)


# --- every parameter ----------------------------------------------------------------------------------------------

HEADED = encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP(hidden=(4,)), hidden=(3,), n_outputs=2))


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("batch_size", 32),
        ("max_iter", 4),
        ("learning_rate", 0.1),
        ("debias", 0.1),
        ("supervisory__augment", noisy),
        ("supervisory__n_views", 3),
        ("encoder__momentum", 0.5),
        ("encoder__base__hidden", (4,)),
        ("encoder__base__n_outputs", 3),
        ("encoder__base__base__hidden", (5,)),
    ],
)
def test_every_parameter_changes_the_fit(parameter, value):
    base = simclr(encoder=HEADED, max_iter=3)
    assert parameter in base.get_params()
    before, after = (clone(base).set_params(**change).fit(IMAGES) for change in ({}, {parameter: value}))
    assert (before.embedding_ != after.embedding_).any()


def test_the_size_of_minibatches_of_rows_matters():
    knn = ICONEmbedding(supervisory="knn", encoder="mlp", method="sampled", max_iter=3, random_state=0)
    before, after = (clone(knn).set_params(batch_size=size).fit(DIGITS[:100]).embedding_ for size in ("auto", 20))
    assert (before != after).any()
