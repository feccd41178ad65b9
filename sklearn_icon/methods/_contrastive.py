"""Contrastive methods, of views, of companion features and of codes."""

from functools import partial

from .. import encoders
from .. import learned as q
from .. import supervisory as p
from ._record import Method

VIEWS = "y: which item each row is a view of; nothing with supervisory__augment, which draws the views"
COMPANIONS = "y: companion features of each row"
SCORES = "y: soft assignments of each row to prototypes"
OTHER = "y: the same rows in the other modality"
SEVERAL = (("n_components", 32),)

_Simclr = partial(
    Method,
    family="contrastive",
    supervisory=p.PositivePairs(),
    encoder=encoders.ProjectionHead(encoders.MLP()),
    estimator="ICONEmbedding",
    reads=VIEWS,
    parameters=SEVERAL,
)

CONTRASTIVE = [
    Method(
        name="infonce",
        title="InfoNCE",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.Gaussian(metric="cosine", tau=0.1),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="the mean over rows of -log exp(cos(z_i, z_i+) / tau) / sum_{j != i} exp(cos(z_i, z_j) / tau)",
        reference='van den Oord, Li and Vinyals, "Representation learning with contrastive predictive coding", '
        "arXiv 1807.03748",
        reads=VIEWS,
        aliases=("cpc", "contrastive predictive coding"),
        parameters=SEVERAL,
    ),
    Method(
        name="simclr",
        title="SimCLR",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.Gaussian(metric="cosine", tau=0.5),
        encoder=encoders.ProjectionHead(encoders.MLP()),
        estimator="ICONEmbedding",
        equals="NT-Xent, the cross-entropy of cosines over tau with the other view as the class",
        reference='Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020',
        reads=VIEWS,
        aliases=("nt-xent",),
        parameters=SEVERAL,
    ),
    Method(
        name="moco-v3",
        title="MoCo v3",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.Gaussian(metric="cosine", tau=0.2),
        encoder=encoders.MomentumKeys(encoders.ProjectionHead(encoders.MLP())),
        estimator="ICONEmbedding",
        equals="the symmetrised cross-entropy of cosines over tau between rows and the keys of a momentum encoder",
        reference='Chen, Xie and He, "An empirical study of training self-supervised vision transformers", ICCV 2021',
        reads=VIEWS,
        aliases=("moco", "momentum contrast"),
        parameters=SEVERAL,
    ),
    Method(
        name="t-simclr",
        title="t-SimCLR",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.StudentT(df=2.0),
        encoder=encoders.ProjectionHead(encoders.MLP()),
        estimator="ICONEmbedding",
        equals="the mean over rows of -log k(z_i, z_i+) / sum_{j != i} k(z_i, z_j) with "
        "k = (1 + d^2 / nu)^(-(nu + 1) / 2)",
        reference='Hu et al., "Your contrastive learning is secretly doing stochastic neighbor embedding", ICLR 2023',
        reads=VIEWS,
        parameters=SEVERAL,
    ),
    Method(
        name="t-simcne",
        title="t-SimCNE",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.StudentT(),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="the mean over rows of -log k(z_i, z_i+) / sum_{j != i} k(z_i, z_j) with k = 1 / (1 + d^2), in two "
        "dimensions",
        reference='Boehm, Berens and Kobak, "Unsupervised visualization of image datasets using contrastive learning", '
        "ICLR 2023",
        reads=VIEWS,
    ),
    Method(
        name="vicreg",
        title="VICReg",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.WideGaussian(),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="mean_i |z_i - z_i+|^2 less the mean squared distance of all pairs, which is 2 Var n / (n - 1): VICReg "
        "without its covariance term",
        reference='Bardes, Ponce and LeCun, "VICReg: Variance-invariance-covariance regularization for self-supervised '
        'learning", ICLR 2022',
        reads=VIEWS,
        aliases=("vicreg without covariance",),
        parameters=SEVERAL,
    ),
    Method(
        name="spectral-contrastive",
        title="Spectral contrastive",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.SpectralContrast(),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="mean_i -2 z_i . z_i+ plus the mean of (z_i . z_j)^2 over all other rows",
        reference='HaoChen et al., "Provable guarantees for self-supervised deep learning with spectral contrastive '
        'loss", NeurIPS 2021',
        reads=VIEWS,
        aliases=("spectral contrastive loss",),
        parameters=SEVERAL,
    ),
    Method(
        name="triplet",
        title="Triplet",
        family="contrastive",
        supervisory=p.PositivePairs(),
        learned=q.NarrowGaussian(),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="mean_i |z_i - z_i+|^2 - min_j |z_i - z_j|^2: with one positive and one negative key the triplet loss "
        "without margin",
        reference='Schroff, Kalenichenko and Philbin, "FaceNet: A unified embedding for face recognition and '
        'clustering", CVPR 2015',
        reads=VIEWS,
        aliases=("triplet loss", "facenet"),
        parameters=SEVERAL,
    ),
    Method(
        name="x-sample",
        title="X-Sample",
        family="contrastive",
        supervisory=p.Gaussian(source="y"),
        learned=q.Gaussian(metric="cosine", tau=0.1),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="the cross-entropy of cosines over tau with Gaussian similarities of companion features, less their "
        "entropy",
        reference='Sobal et al., "X-Sample contrastive loss: Improving contrastive learning with sample similarity '
        'graphs", ICLR 2025',
        reads=COMPANIONS,
        aliases=("x-clr", "x-sample contrastive"),
        parameters=SEVERAL,
    ),
    Method(
        name="lgsimclr",
        title="LGSimCLR",
        family="contrastive",
        supervisory=p.UniformKNN(source="y"),
        learned=q.Gaussian(metric="cosine", tau=0.1),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="the cross-entropy of cosines over tau with the nearest neighbours in companion features as classes, "
        "less log k",
        reference='El Banani, Desai and Johnson, "Learning visual representations via language-guided sampling", CVPR '
        "2023",
        reads=COMPANIONS,
        aliases=("language-guided simclr", "language-guided contrastive learning"),
        parameters=SEVERAL,
    ),
    _Simclr(
        name="dcl",
        title="DCL",
        learned=q.Decoupled(q.Gaussian(metric="cosine", tau=0.1)),
        equals="the mean over rows of -log exp(cos(z_i, z_i+) / tau) / sum_j exp(cos(z_i, z_j) / tau), j the rows that "
        "are no view of the item",
        reference='Yeh et al., "Decoupled contrastive learning", ECCV 2022',
        aliases=("decoupled contrastive loss", "decoupled contrastive learning"),
    ),
    _Simclr(
        name="debiased-infonce",
        title="Debiased InfoNCE",
        learned=q.HardNegatives(q.Gaussian(metric="cosine", tau=0.5), hardness=0.0),
        equals="the mean over rows of -log k+ / (k+ + N g), g = max((mean_j k_j - t k+) / (1 - t), exp(-1 / tau)) over "
        "the N rows that are no view of the item, k = exp(cos / tau)",
        reference='Chuang et al., "Debiased contrastive learning", NeurIPS 2020',
        aliases=("debiased contrastive", "debiased contrastive learning"),
    ),
    _Simclr(
        name="hard-negatives",
        title="Hard negatives",
        learned=q.HardNegatives(q.Gaussian(metric="cosine", tau=0.5)),
        equals="debiased InfoNCE with the mean over negatives weighed by k_j^b",
        reference='Robinson et al., "Contrastive learning with hard negative samples", ICLR 2021',
        aliases=("hcl", "hard negative infonce"),
    ),
    _Simclr(
        name="dhel",
        title="DHEL",
        learned=q.MultiView(q.Gaussian(metric="cosine", tau=0.3)),
        equals="the mean over items of -log sum_{a < b} k(z_a, z_b) + sum_a log sum_j k(z_a, z_j), a and b the "
        "item's views, j the same view of the other items",
        reference='Koromilas et al., "Bridging mini-batch and asymptotic analysis in contrastive learning: From '
        'InfoNCE to kernel-based losses", ICML 2024',
        aliases=("mv-dhel", "decoupled hyperspherical energy loss"),
    ),
    _Simclr(
        name="mv-infonce",
        title="MV-InfoNCE",
        learned=q.MultiView(q.Gaussian(metric="cosine", tau=0.5), decoupled=False),
        equals="the mean over items of -log sum_{a != b} k(z_a, z_b) / sum_a sum_{j != a} k(z_a, z_j), a and b the "
        "item's views, j all rows",
        reference='Koromilas et al., "A principled framework for multi-view contrastive learning", 2025',
        aliases=("multi-view infonce",),
    ),
    _Simclr(
        name="cacr",
        title="CACR",
        learned=q.HardnessWeighted(),
        equals="mean_i sum_j a_ij d_ij^2 - sum_j r_ij d_ij^2, a ~ exp(t+ d^2) over views of the item and r ~ "
        "exp(-t- d^2) over all other rows",
        reference='Zheng et al., "Contrastive attraction and contrastive repulsion for representation learning", TMLR '
        "2023",
        aliases=("contrastive attraction and contrastive repulsion",),
    ),
    Method(
        name="swav",
        title="SwAV",
        family="contrastive",
        supervisory=p.BalancedCodes(),
        learned=q.Gaussian(metric="cosine", tau=0.1),
        encoder=encoders.MLP(),
        estimator="ICONClassifier",
        equals="the cross-entropy of cosines with prototypes over tau against codes that Sinkhorn's algorithm "
        "balances, less the codes' entropy; in a loop of one's own the codes are those of the other view at each step",
        reference='Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments", '
        "NeurIPS 2020",
        reads=SCORES,
        aliases=("swapped assignments", "sela"),
    ),
]
