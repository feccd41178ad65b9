import doctest
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned
from sklearn_icon._core.spec import resolve
from sklearn_icon.encoders import MLP, Encoder, Linear, Lookup, Module


class TwoLayers(torch.nn.Module):
    """A module with an integer buffer and weights of its own."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.first, self.last = torch.nn.Linear(n_inputs, 4), torch.nn.Linear(4, n_outputs)
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x):
        return self.last(self.first(x).tanh())


BUILDERS = {
    "linear": Linear(),
    "orthonormal": Linear(orthonormal=True),
    "mlp": MLP(),
    "mlp-deep": MLP(hidden=(7, 5, 3)),
    "mlp-list": MLP(hidden=[6]),
    "mlp-none": MLP(hidden=()),
    "module": Module(TwoLayers),
}
each_builder = pytest.mark.parametrize("encoder", list(BUILDERS.values()), ids=list(BUILDERS))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@each_builder
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64])
def test_shapes_and_precision(encoder, dtype):
    module = encoder.validate().build(6, 2, dtype=dtype)
    expected = torch.float32 if dtype is None else dtype
    z = module(torch.zeros(5, 6, dtype=expected))
    assert z.shape == (5, 2)
    assert z.dtype == expected
    assert all(param.dtype == expected for param in module.parameters())
    assert encoder.parametric


@each_builder
def test_a_seed_gives_the_same_weights(encoder):
    first, again, other = (state(encoder.build(6, 2, seed=seed)) for seed in (3, 3, 4))
    assert first.keys() == again.keys()
    for name in first:
        assert_array_equal(first[name], again[name])
    assert any(not torch.equal(first[name], other[name]) for name in first)


@each_builder
def test_the_global_generator_is_left_alone(encoder):
    before = torch.random.get_rng_state()
    weights = state(encoder.build(6, 2, seed=0))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)  # nor does its state matter
    for name, value in state(encoder.build(6, 2, seed=0)).items():
        assert_array_equal(value, weights[name])
    torch.random.set_rng_state(before)


def test_the_global_generator_is_left_alone_by_a_failure():
    before = torch.random.get_rng_state()

    def factory(n_inputs, n_outputs):
        torch.rand(5)
        raise RuntimeError("no such module")

    with pytest.raises(RuntimeError, match="no such module"):
        Module(factory).build(2, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


@each_builder
def test_gradients_reach_every_weight(encoder):
    module = encoder.build(6, 2, dtype=torch.float64)
    module(torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 6)).square().sum().backward()
    assert all(param.grad is not None and torch.isfinite(param.grad).all() for param in module.parameters())


def test_linear_is_a_linear_map():
    module = Linear().build(3, 2, dtype=torch.float64)
    X = np.random.default_rng(0).normal(size=(4, 3))
    W, b = module.weight.detach().numpy(), module.bias.detach().numpy()
    assert_allclose(module(torch.as_tensor(X)).detach(), [[w @ x + c for w, c in zip(W, b, strict=True)] for x in X])


@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(6, 2), (4, 4), (3, 1)])
def test_orthonormal_rows_stay_orthonormal(n_inputs, n_outputs):
    module = Linear(orthonormal=True).build(n_inputs, n_outputs, dtype=torch.float64)
    assert module.bias is None
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(8, n_inputs)))
    before = module.weight.detach().clone()
    for _ in range(5):
        assert_allclose((module.weight @ module.weight.T).detach(), np.eye(n_outputs), atol=1e-12)
        optimizer.zero_grad()
        module(x)[:, 0].pow(3).sum().backward()
        optimizer.step()
    assert_allclose((module.weight @ module.weight.T).detach(), np.eye(n_outputs), atol=1e-12)
    assert abs(module.weight.detach() - before).max() > 1e-3
    assert_allclose(module(x).detach(), x @ module.weight.detach().T, rtol=1e-13)


def test_more_orthonormal_rows_than_features():
    with pytest.raises(ValueError, match="cannot map 2 features to 3 components; ask for at most 2"):
        Linear(orthonormal=True).build(2, 3)
    assert Linear().build(2, 3)(torch.zeros(1, 2)).shape == (1, 3)


@pytest.mark.parametrize("hidden", [(), (4,), (7, 5, 3)])
def test_a_perceptron_by_hand(hidden):
    module = MLP(hidden=hidden).build(6, 2, dtype=torch.float64)
    layers = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [*hidden, 2]
    x = np.random.default_rng(0).normal(size=(5, 6))
    z = x
    for layer in layers:
        z = z @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if layer is not layers[-1]:
            z = np.maximum(z, 0)
    assert_allclose(module(torch.as_tensor(x)).detach(), z, rtol=1e-12)


def test_a_module_of_ones_own():
    calls = []

    def factory(n_inputs, n_outputs):
        calls.append((n_inputs, n_outputs))
        return TwoLayers(n_inputs, n_outputs)

    module = Module(factory).build(6, 2, seed=1, dtype=torch.float64)
    assert calls == [(6, 2)]
    assert isinstance(module, TwoLayers)
    assert module.count.dtype == torch.int64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = TwoLayers(6, 2).double()
    assert_array_equal(module.last.weight.detach(), expected.last.weight.detach())


def with_dropout(n_inputs, n_outputs):
    """A module that draws, and that tells training from evaluation."""
    return torch.nn.Sequential(
        torch.nn.Linear(n_inputs, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, n_outputs)
    )


ROWS = np.random.RandomState(0).standard_normal((90, 6))
CLASSES, COUNTS = np.arange(90) % 3, np.random.RandomState(1).randint(1, 4, size=(90, 5))
SHORT = {"encoder": Module(with_dropout), "max_iter": 6, "random_state": 0}
DRAWING = {
    "map": (ICONEmbedding(**SHORT), None),
    "tokens": (
        ICONEmbedding(
            supervisory="counts", learned=learned.Gaussian(metric="dot"), normalization="conditional", **SHORT
        ),
        COUNTS,
    ),
    "pairs": (ICONCrossModal(**SHORT), COUNTS),
    "classes": (ICONClassifier(**SHORT), CLASSES),
    "prototypes": (ICONClassifier(learned="student_t", early_stopping=True, **SHORT), CLASSES),
    "classes of contrast": (ICONClassifier(supervisory="same_class", **SHORT), CLASSES),
    "clusters": (ICONClustering(3, **SHORT), None),
    "clusters by the past": (ICONClustering(3, **SHORT | {"encoder": encoders.MomentumKeys(SHORT["encoder"])}), None),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator, y", DRAWING.values(), ids=DRAWING)
def test_what_modules_draw_in_a_fit_is_seeded(estimator, y):
    fitted = []
    with torch.random.fork_rng():
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            fitted.append(clone(estimator).fit(ROWS, y))
            assert torch.equal(torch.get_rng_state(), before)
    assert_array_equal(*(each.loss_curve_ for each in fitted))
    found = [getattr(each, "transform", getattr(each, "predict_proba", None))(ROWS) for each in fitted]
    assert_array_equal(*found)
    other = clone(estimator).set_params(random_state=1).fit(ROWS, y).loss_curve_
    assert other.tolist() != fitted[0].loss_curve_.tolist()


def test_a_lookup_has_no_module():
    assert not Lookup().parametric
    with pytest.raises(TypeError, match=r"Lookup\(\) holds one representation per row and has no module"):
        Lookup().validate().build(3, 2)


@pytest.mark.parametrize(
    ("encoder", "error"),
    [
        (Linear(orthonormal="yes"), "The 'orthonormal' parameter of Linear must be"),
        (MLP(hidden=8), "The 'hidden' parameter of MLP must be"),
        (MLP(hidden="wide"), "The 'hidden' parameter of MLP must be"),
        (MLP(hidden=(8, 0)), r"hidden must hold positive integers, got \(8, 0\)"),
        (MLP(hidden=(8, 2.5)), "hidden must hold positive integers"),
        (Module(None), "The 'factory' parameter of Module must be"),
        (
            Module(torch.nn.Linear(2, 2)),
            r"factory=Linear\(in_features=2, .* is a module, .*; pass factory=lambda n_inputs, n_outputs: net, or",
        ),
        (
            encoders.MomentumKeys(encoders.ProjectionHead(Module(TwoLayers(2, 2)))),
            r"factory=TwoLayers\( .* of Module is a module",
        ),
    ],
)
def test_bad_parameters_are_named(encoder, error):
    with pytest.raises(ValueError, match=error):
        encoder.validate()


def too_wide(n_inputs, n_outputs):
    return torch.nn.Linear(n_inputs, n_outputs + 1)


def no_rows(n_inputs, n_outputs):
    return torch.nn.Sequential(torch.nn.Linear(n_inputs, n_outputs), torch.nn.Flatten(0))


def a_pair(n_inputs, n_outputs):
    return torch.nn.RNN(n_inputs, n_outputs)


UNIT = {"learned": "wide_gaussian", "supervisory": "knn", "normalization": "conditional"}
FITS = {
    "a map": (ICONEmbedding(), None, 2),
    "a map on the sphere": (ICONEmbedding(**UNIT), None, 2),
    "tokens": (DRAWING["tokens"][0], COUNTS, 2),
    "clusters": (ICONClustering(3), None, 3),
    "classes": (ICONClassifier(), CLASSES, 3),
    "bounded": (ICONClassifier(learned="student_t", divergence="total_variation"), CLASSES, 3),
    "classes of contrast": (ICONClassifier(supervisory="same_class"), CLASSES, 6),
    "pairs": (ICONCrossModal(4), COUNTS, 4),
    "the other of a pair": (ICONCrossModal(4, encoder="mlp"), COUNTS, 4),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("factory", [too_wide, no_rows, a_pair])
@pytest.mark.parametrize("estimator, y, width", FITS.values(), ids=FITS)
def test_modules_return_the_columns_asked_for(estimator, y, width, factory):
    returned = {too_wide: rf"\(\d+, {width + 1}\)", no_rows: r"\(\d+,\)", a_pair: "tuple"}[factory]
    side = "encoder_y" if estimator.encoder == "mlp" else "encoder"
    estimator = clone(estimator).set_params(**{side: Module(factory)}, max_iter=2)
    message = (
        rf"must return n_outputs={width} columns for each item, shape \(\d+, {width}\) here, but returned {returned};"
    )
    with pytest.raises(ValueError, match=message):
        estimator.fit(ROWS, y)


@pytest.mark.parametrize("encoder", [*BUILDERS.values(), Lookup()])
def test_clone_pickle_and_parameters_round_trip(encoder):
    for copy in (clone(encoder), pickle.loads(pickle.dumps(encoder))):
        copy.set_params(**copy.get_params(deep=True))
        assert type(copy) is type(encoder)
        assert repr(copy.get_params()) == repr(encoder.get_params())


def test_every_parameter_matters():
    assert Linear().set_params(orthonormal=True).build(4, 2).bias is None
    assert len(MLP().set_params(hidden=(3, 3)).build(4, 2)) == 5
    assert isinstance(Module(TwoLayers).set_params(factory=torch.nn.Linear).build(4, 2), torch.nn.Linear)


def test_names_make_specs():
    for name, make in encoders.NAMES.items():
        assert isinstance(resolve(name, Encoder, encoders.NAMES, "encoder"), make)
    with pytest.raises(ValueError, match=r"encoder='cnn' is not known; use one of \['linear', 'lookup', 'mlp'\]"):
        resolve("cnn", Encoder, encoders.NAMES, "encoder")
    with pytest.raises(TypeError, match=r"an instance of a class of sklearn_icon\.encoders"):
        resolve(torch.nn.Linear(2, 2), Encoder, encoders.NAMES, "encoder")


def test_examples_in_the_docstrings():
    result = doctest.testmod(encoders)
    assert result.attempted > 5
    assert result.failed == 0
