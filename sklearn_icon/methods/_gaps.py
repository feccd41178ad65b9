"""Methods that nobody had published, which the table predicts: each a combination of known parts."""

from functools import partial

from .. import encoders
from .. import learned as q
from .. import supervisory as p
from ._contrastive import OTHER, SEVERAL, VIEWS
from ._published import GRAPH, ICON, LABELS
from ._record import Method

_HEAVY = p.StudentT(df=10.0)  # at one degree of freedom a row of many dimensions is all but even
_Gap = partial(Method, reference=f"{ICON}, table 1 (a gap that it predicts)", published=False)
_Map = partial(_Gap, family="dimensionality reduction", encoder=encoders.Lookup(), estimator="ICONEmbedding")
_Clip = partial(
    _Gap,
    family="cross-modal",
    supervisory=p.CrossModalPairs(),
    encoder=encoders.MLP(),
    estimator="ICONCrossModal",
    reads=OTHER,
    parameters=SEVERAL,
)
_SupCon = partial(
    _Gap,
    family="supervised",
    supervisory=p.SameClass(),
    encoder=encoders.MLP(),
    estimator="ICONClassifier",
    reads=LABELS,
)

GAPS = (
    _Map(
        name="dual-t-sne",
        title="Dual t-SNE",
        supervisory=_HEAVY,
        learned=q.Gaussian(sigma=0.5**0.5),
        equals="t-SNE with a Student-t p and a Gaussian q",
        normalization="joint",
    ),
    _Map(
        name="doubly-t-sne",
        title="Doubly t-SNE",
        supervisory=_HEAVY,
        learned=q.StudentT(),
        equals="t-SNE with a Student-t p",
        normalization="joint",
    ),
    _Map(
        name="sne-graph",
        title="SNE on a graph",
        supervisory=p.Graph(),
        learned=q.Gaussian(sigma=0.5**0.5),
        equals="SNE with the weights of a graph, rows divided by their degrees, for p",
        reads=GRAPH,
    ),
    _Map(
        name="t-sne-graph",
        title="t-SNE on a graph",
        supervisory=p.Graph(),
        learned=q.StudentT(),
        equals="t-SNE with the weights of a graph, rows divided by their degrees, for p",
        reads=GRAPH,
        normalization="joint",
    ),
    _Map(
        name="sne-uniform",
        title="SNE, uniform",
        supervisory=p.UniformKNN(),
        learned=q.Gaussian(sigma=0.5**0.5),
        equals="SNE with 1 / k on each of k neighbours for p",
    ),
    _Map(
        name="t-sne-uniform",
        title="t-SNE, uniform",
        supervisory=p.UniformKNN(),
        learned=q.StudentT(),
        equals="t-SNE with 1 / k on each of k neighbours for p",
        normalization="joint",
    ),
    _Clip(
        name="t-clip",
        title="t-CLIP",
        learned=q.StudentT(),
        equals="CLIP with 1 / (1 + d^2) in place of exp(cos / tau)",
    ),
    _Clip(
        name="average-margin-clip",
        title="Average-margin CLIP",
        learned=q.WideGaussian(),
        equals="the mean squared distance of partners less that of all pairs of the two modalities",
    ),
    _Clip(
        name="triplet-clip",
        title="Triplet CLIP",
        learned=q.NarrowGaussian(),
        equals="the mean squared distance of partners less that to the nearest row of the other modality",
    ),
    _SupCon(
        name="t-supcon",
        title="t-SupCon",
        learned=q.StudentT(),
        equals="SupCon with 1 / (1 + d^2) in place of exp(cos / tau)",
    ),
    _SupCon(
        name="average-margin-supcon",
        title="Average-margin SupCon",
        learned=q.WideGaussian(),
        equals="the mean squared distance within classes less that of all pairs",
    ),
    _SupCon(
        name="triplet-supcon",
        title="Triplet SupCon",
        learned=q.NarrowGaussian(),
        equals="the mean squared distance within classes less that to the nearest other row",
    ),
    _Gap(
        name="several-heads",
        title="Several heads",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.Heads(),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="InfoNCE with exp(sum_h cos_h / tau_h), the product of the kernels of several heads with temperatures "
        "of their own",
        reads=VIEWS,
        parameters=SEVERAL,
    ),
    _Gap(
        name="error-rate",
        title="Error rate",
        family="supervised",
        supervisory=p.DataLabel(),
        learned=q.Gaussian(sigma=0.1),
        encoder=encoders.Linear(),
        estimator="ICONClassifier",
        equals="mean_i 1 - q(y_i|i), a smooth fraction of wrong answers: as s shrinks, that of the nearest prototype",
        reads=LABELS,
        divergence="total_variation",
        aliases=("0-1 loss", "zero-one loss"),
    ),
    _Gap(
        name="t-k-means",
        title="t k-means",
        family="clustering",
        supervisory=p.StudentT(sigma=1.0),
        learned=q.SharedCluster(),
        encoder=encoders.Lookup(),
        estimator="ICONClustering",
        equals="k-means with a heavy tail: sum_ij q(j|i) log(1 + d_ij^2 / s^2) less the entropy of q, up to a constant",
        divergence="reverse_kl",
    ),
    _Gap(
        name="supervised-clustering",
        title="Supervised clustering",
        family="clustering",
        supervisory=p.SameClass(),
        learned=q.SharedCluster(),
        encoder=encoders.Linear(),
        estimator="ICONClustering",
        equals="clusters whose members share a class: mean_i KL(p_i || q_i) with p uniform over the rest of a class",
        reads=LABELS,
    ),
    _Gap(
        name="category-discovery",
        title="Category discovery",
        family="clustering",
        supervisory=p.SameClass(unlabelled=p.RandomWalk(p.UniformKNN(), n_steps=2)),
        learned=q.SharedCluster(),
        encoder=encoders.Linear(),
        estimator="ICONClustering",
        equals="debiased InfoNCE clustering whose p is uniform over the rest of a class where the class is known",
        reference=f'{ICON}, of whose parts it is; the task is that of Vaze et al., "Generalized category discovery", '
        "CVPR 2022",
        reads=f"{LABELS}, -1 where unknown",
        debias=0.3,
        aliases=("generalised category discovery", "generalized category discovery", "gcd", "novel class discovery"),
    ),
)
