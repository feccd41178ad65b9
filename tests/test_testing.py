"""The checks for specs of one's own: the library's pass, and each defect is found."""

from numbers import Real

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.utils._param_validation import Interval

from sklearn_icon import encoders, learned, supervisory
from sklearn_icon._core.conditional import Conditional
from sklearn_icon.testing import check_encoder, check_learned, check_supervisory

LABELS = np.arange(17) % 3
SPECS = [
    (supervisory.Gaussian(sigma=1.0), None),
    (supervisory.Gaussian(sigma=0), None),
    (supervisory.StudentT(df=2.0, sigma=1.0), None),
    (supervisory.UniformKNN(n_neighbors=1), None),
    (supervisory.UniformKNN(n_neighbors=1, metric="cosine"), None),
    (supervisory.FuzzyUnion(n_neighbors=2), None),
    (supervisory.Identity(), None),
    (supervisory.SameClass(), LABELS),
    (supervisory.SameClass(unlabelled=supervisory.UniformKNN(n_neighbors=2)), LABELS - 1),
    (supervisory.PositivePairs(), LABELS),
    pytest.param(supervisory.PositivePairs(torch.clone), None, id="PositivePairs(augment=torch.clone)"),
    (supervisory.DataLabel(), LABELS),
    (supervisory.PropagatedLabel(supervisory.UniformKNN(n_neighbors=2)), LABELS - 1),
    (supervisory.UniformMixture(supervisory.UniformKNN(n_neighbors=1), 0.3), None),
    (supervisory.RandomWalk(supervisory.UniformKNN(n_neighbors=1), 3), None),
]
KERNELS = [
    learned.Gaussian(sigma=0.7),
    learned.Gaussian(metric="cosine", tau=0.5),
    learned.Gaussian(metric="dot"),
    learned.StudentT(),
    learned.StudentT(df=0.5),
    learned.WideGaussian(),
    learned.NarrowGaussian(),
    learned.Rational(),
    learned.Rational(min_dist=0.5),
    learned.NegativeSampling(learned.Rational()),
    learned.SpectralContrast(),
    learned.NegativeSampling(learned.StudentT(), noise=1.0),
    learned.SharedCluster(),
    learned.UniformMixture(learned.StudentT(), 0.2),
    learned.Decoupled(learned.StudentT()),
    learned.HardNegatives(learned.Gaussian(metric="cosine", tau=0.5)),
    learned.HardnessWeighted(),
    learned.NoiseContrastive(learned.StudentT()),
    learned.PairwiseSigmoid(learned.Gaussian(metric="cosine", tau=0.5)),
    learned.Heads(),
]


@pytest.mark.parametrize("spec, y", SPECS, ids=repr)
def test_the_librarys_own_p(spec, y):
    check_supervisory(spec, y=y)


@pytest.mark.parametrize("X", [np.eye(5), sparse.eye_array(5, format="csr")], ids=["dense", "sparse"])
def test_rows_of_ones_own(X):
    check_supervisory(supervisory.UniformKNN(n_neighbors=4), X)
    check_supervisory(supervisory.Graph(), X[::-1] + X if isinstance(X, np.ndarray) else X)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_librarys_own_q(kernel):
    check_learned(kernel)


@pytest.mark.parametrize(
    "encoder",
    [
        encoders.Linear(),
        encoders.Linear(orthonormal=True),
        encoders.MLP((4,)),
        encoders.Module(torch.nn.Linear),
        encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP((4,)))),
    ],
    ids=repr,
)
def test_the_librarys_own_encoders(encoder):
    check_encoder(encoder)


class Laplace(learned.DistanceKernel):
    """exp(-d / sigma), a kernel of one's own."""

    _parameter_constraints = {"sigma": [Interval(Real, 0, None, closed="neither")]}

    def __init__(self, sigma=1.0):
        self.sigma = sigma

    def log_kernel(self, sq_distance):
        return -sq_distance.clamp_min(1e-12).sqrt() / self.sigma


class WrongSlope(Laplace):
    def slope(self, sq_distance):
        return -1 / (sq_distance.clamp_min(1e-12).sqrt() * self.sigma)  # the half of it is right


class RightSlope(Laplace):
    def slope(self, sq_distance):
        return -0.5 / (sq_distance.clamp_min(1e-12).sqrt() * self.sigma)


class SaidSmooth(Laplace):
    smooth_at_zero = True


class WrongTerms(learned.StudentT):
    slope_terms = (2.0, 1.0, -1.0)


class Lifted(learned.Gaussian):
    def log_kernel(self, sq_distance):
        return super().log_kernel(sq_distance) - 1


class Unpaired(Laplace):
    def paired(self, z, keys):
        return 2 * super().paired(z, keys)


class InPlace(Laplace):
    def prepare(self, z, keys, degrees=None):
        z.mul_(2)
        return z, keys


def test_a_kernel_of_ones_own():
    check_learned(Laplace())
    check_learned(RightSlope())


@pytest.mark.parametrize(
    "kernel, message",
    [
        (WrongSlope(), "slope of"),
        (Unpaired(), "not the diagonal"),
        (InPlace(), "changed the representations"),
        (SaidSmooth(), "not smooth at zero"),
        (WrongTerms(), "slope_terms of"),
        (Lifted(), "must be zero at zero"),
    ],
    ids=repr,
)
def test_what_is_wrong_with_a_kernel_is_said(kernel, message):
    with pytest.raises(AssertionError, match=message):
        check_learned(kernel)


class Previous(supervisory.Supervisory):
    """The row before, in the order of the file: no p over rows may know that."""

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        n = len(X)
        return Conditional(sparse.csr_array(np.roll(np.eye(n), 1, axis=0)), exclude_self=True)


class Scaling(supervisory.Identity):
    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        X *= 2
        return super().conditional(X)


class Undeclared(supervisory.Identity):
    excludes_self = True


class Drawn(supervisory.UniformKNN):
    drawn = np.random.default_rng(0)  # goes on from call to call

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        return super().conditional(self.drawn.normal(size=X.shape))


@pytest.mark.parametrize(
    "spec, message",
    [
        (Previous(), "depends on the order"),
        (Scaling(), "changed X or y"),
        (Undeclared(), "excludes_self=True"),
        (Drawn(n_neighbors=1), "differs from call to call"),
    ],
    ids=repr,
)
def test_what_is_wrong_with_a_p_is_said(spec, message):
    with pytest.raises(AssertionError, match=message):
        check_supervisory(spec)


class Unseeded(encoders.Encoder):
    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        return torch.nn.Linear(n_inputs, n_outputs, dtype=dtype)


class TooWide(encoders.Linear):
    def build(self, n_inputs, n_outputs, *, seed=0, dtype=None):
        return super().build(n_inputs, n_outputs + 1, seed=seed, dtype=dtype)


@pytest.mark.parametrize(
    "encoder, message",
    [(Unseeded(), "global generator"), (TooWide(), "makes"), (encoders.Lookup(), "no module")],
    ids=repr,
)
def test_what_is_wrong_with_an_encoder_is_said(encoder, message):
    with pytest.raises(AssertionError, match=message):
        check_encoder(encoder)


def test_what_is_no_spec():
    for check in (check_supervisory, check_learned, check_encoder):
        with pytest.raises(TypeError, match="is needed, got"):
            check("gaussian")
