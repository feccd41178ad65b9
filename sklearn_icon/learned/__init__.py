"""Learned distributions q(j|i): what the representations say about who belongs with whom.

A spec holds parameters. Its methods turn representations into log-kernels; the objective turns those into
log q. Formulas are the rows of I-Con's table 1 (Alshammari et al., ICLR 2025). Every kernel is a function of one
affinity of a pair (squared distance, cosine or dot product), so each class adds two or three lines of mathematics.
"""

from ._base import DistanceKernel, Kernel, Learned
from ._heads import Heads
from ._kernels import Gaussian, Harmonic, Rational, StudentT
from ._limits import NarrowGaussian, NegativeSampling, SpectralContrast, WideGaussian
from ._memberships import SharedCluster
from ._reweighted import Decoupled, HardNegatives, HardnessWeighted, MultiView
from ._told import NoiseContrastive, PairwiseSigmoid
from ._wrappers import UniformMixture

__all__ = [
    "Decoupled",
    "DistanceKernel",
    "Gaussian",
    "HardNegatives",
    "HardnessWeighted",
    "Harmonic",
    "Heads",
    "Kernel",
    "Learned",
    "MultiView",
    "NarrowGaussian",
    "NegativeSampling",
    "NoiseContrastive",
    "PairwiseSigmoid",
    "Rational",
    "SharedCluster",
    "SpectralContrast",
    "StudentT",
    "UniformMixture",
    "WideGaussian",
]

NAMES = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "wide_gaussian": WideGaussian,
    "narrow_gaussian": NarrowGaussian,
    "cluster": SharedCluster,
    "harmonic": Harmonic,
    "rational": Rational,
}

for _name in __all__:
    globals()[_name].__module__ = __name__  # where users find it
