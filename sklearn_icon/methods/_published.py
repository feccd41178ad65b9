"""Published methods, in the order of the table's families."""

from functools import partial

from .. import encoders
from .. import learned as q
from .. import supervisory as p
from ._contrastive import CONTRASTIVE, OTHER, SEVERAL
from ._record import Method

ICON = 'Alshammari et al., "I-Con: A unifying framework for representation learning", ICLR 2025'
LABELS = "y: class labels"
GRAPH = "X: a sparse matrix of weights between rows"

_Told = partial(Method, family="dimensionality reduction", encoder=encoders.Lookup(), estimator="ICONEmbedding")

_MAPS = [
    Method(
        name="sne",
        title="SNE",
        family="dimensionality reduction",
        supervisory=p.Gaussian(),
        learned=q.Gaussian(sigma=0.5**0.5),
        encoder=encoders.Lookup(),
        estimator="ICONEmbedding",
        equals="mean_i KL(p_i || q_i) with q(j|i) ~ exp(-d^2), whose gradient is (2 / n) sum_j (z_i - z_j) "
        "(p(j|i) - q(j|i) + p(i|j) - q(i|j))",
        reference='Hinton and Roweis, "Stochastic neighbor embedding", NIPS 2002',
        aliases=("stochastic neighbor embedding", "stochastic neighbour embedding"),
    ),
    Method(
        name="t-sne",
        title="t-SNE",
        family="dimensionality reduction",
        supervisory=p.Gaussian(),
        learned=q.StudentT(),
        encoder=encoders.Lookup(),
        estimator="ICONEmbedding",
        equals="the loss and the gradient of scikit-learn's exact TSNE",
        reference='van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008',
        normalization="joint",
        aliases=("t-distributed stochastic neighbor embedding", "t-distributed SNE"),
    ),
    Method(
        name="pca",
        title="PCA",
        family="dimensionality reduction",
        supervisory=p.Identity(),
        learned=q.WideGaussian(),
        encoder=encoders.Linear(orthonormal=True),
        estimator="ICONEmbedding",
        equals="minus twice the variance of the map: its least value has the subspace of scikit-learn's PCA",
        reference='Pearson, "On lines and planes of closest fit to systems of points in space", Philosophical Magazine '
        "1901",
        aliases=("principal component analysis", "principal components"),
    ),
    Method(
        name="umap",
        title="UMAP",
        family="dimensionality reduction",
        supervisory=p.FuzzyUnion(),
        learned=q.Rational(),
        encoder=encoders.Lookup(),
        estimator="ICONEmbedding",
        equals="KL of UMAP's weights and kernel, both divided by their sums; its descent multiplies the attraction by "
        "1.1, as UMAP's few negatives draw a map together. UMAP's own loss is that of parametric UMAP",
        reference='McInnes, Healy and Melville, "UMAP: Uniform manifold approximation and projection", '
        "arXiv 1802.03426",
        normalization="joint",
        aliases=("uniform manifold approximation and projection",),
        parameters=(("late_exaggeration", 1.1),),
    ),
    Method(
        name="parametric-umap",
        title="Parametric UMAP",
        family="dimensionality reduction",
        supervisory=p.FuzzyUnion(),
        learned=q.NegativeSampling(q.Rational()),
        encoder=encoders.MLP(),
        estimator="ICONEmbedding",
        equals="what UMAP's negative sampling descends on average: sum_i w_i [-sum_j p(j|i) log v_ij - m mean_j "
        "log(1 - v_ij)] / sum_i w_i",
        reference='Sainburg, McInnes and Gentner, "Parametric UMAP embeddings", Neural Computation 2021',
        aliases=("p-umap",),
    ),
    Method(
        name="infonc-t-sne",
        title="InfoNC-t-SNE",
        family="dimensionality reduction",
        supervisory=p.UniformKNN(),
        learned=q.StudentT(),
        encoder=encoders.Lookup(),
        estimator="ICONEmbedding",
        equals="mean_i -1/k sum_j log k_ij / sum_l k_il over the k neighbours j, less log k, k_ij = 1 / (1 + d^2), "
        "its loss where all other rows are its noise samples",
        reference='Damrich et al., "From t-SNE to UMAP with contrastive learning", ICLR 2023',
        aliases=("infonce t-sne", "cne"),
    ),
    _Told(
        name="neg-t-sne",
        title="Neg-t-SNE",
        supervisory=p.UniformKNN(),
        learned=q.NegativeSampling(q.StudentT(), noise=1.0),
        equals="what its negative sampling descends on average: mean_i -sum_j p(j|i) log v_ij - m mean_j log(1 - v_ij) "
        "with v = k / (k + c) and c = 1, where a smaller c goes from UMAP's map to t-SNE's",
        reference='Damrich et al., "From t-SNE to UMAP with contrastive learning", ICLR 2023',
        aliases=("negative t-sne",),
    ),
    _Told(
        name="ncvis",
        title="NCVis",
        supervisory=p.UniformKNN(),
        learned=q.NoiseContrastive(q.StudentT()),
        equals="the loss of Neg-t-SNE at the c that is best for the map",
        reference='Artemenkov and Panov, "NCVis: Noise contrastive approach for scalable visualization", WWW 2020',
        aliases=("nc-t-sne", "noise-contrastive t-sne"),
    ),
    _Told(
        name="largevis",
        title="LargeVis",
        supervisory=p.Gaussian(perplexity=50.0),
        learned=q.NegativeSampling(q.StudentT(), n_negatives=35.0),
        equals="mean_i -sum_j p(j|i) log k_ij - 35 mean_j log(1 - k_ij) with k = 1 / (1 + d^2), five negatives of "
        "weight seven, drawn evenly",
        reference='Tang et al., "Visualizing large-scale and high-dimensional data", WWW 2016',
    ),
    Method(
        name="exaggerated-t-sne",
        title="Exaggerated t-SNE",
        family="dimensionality reduction",
        supervisory=p.Gaussian(),
        learned=q.StudentT(),
        encoder=encoders.Lookup(),
        estimator="ICONEmbedding",
        equals="t-SNE whose descent multiplies the attraction by 4 to the end, near UMAP's map; 1 is t-SNE, beyond 30 "
        "near Laplacian eigenmaps",
        reference='Böhm, Berens and Kobak, "Attraction-repulsion spectrum in neighbor embeddings", JMLR 2022',
        normalization="joint",
        aliases=("attraction-repulsion spectrum", "late exaggeration"),
        parameters=(("late_exaggeration", 4.0),),
    ),
    _Told(
        name="dreams",
        title="DREAMS",
        supervisory=p.Gaussian(),
        learned=q.StudentT(),
        equals="t-SNE whose descent also pulls the map to its PCA, by 2 - 2 rho for a correlation of rho: the squared "
        "distance that DREAMS adds, by the map's variance, so that one weight suits maps of any size",
        reference='Kury, Kobak and Damrich, "DREAMS: Preserving both local and global structure in dimensionality '
        'reduction", arXiv 2508.13747',
        normalization="joint",
        aliases=("pca-regularized t-sne", "pca-regularised t-sne"),
        parameters=(("init_weight", 1.0),),
    ),
]

_SUPERVISED = [
    Method(
        name="supcon",
        title="SupCon",
        family="supervised",
        supervisory=p.SameClass(),
        learned=q.Gaussian(metric="cosine", tau=0.1),
        encoder=encoders.MLP(),
        estimator="ICONClassifier",
        equals="the supervised contrastive loss L_out, less the mean logarithm of the numbers of positives",
        reference='Khosla et al., "Supervised contrastive learning", NeurIPS 2020',
        reads=LABELS,
        aliases=("supervised contrastive", "supervised contrastive learning"),
    ),
    Method(
        name="cross-entropy",
        title="Cross-entropy",
        family="supervised",
        supervisory=p.DataLabel(),
        learned=q.Gaussian(metric="dot"),
        encoder=encoders.Linear(),
        estimator="ICONClassifier",
        equals="softmax regression: the coefficients of scikit-learn's LogisticRegression; debiased, label smoothing",
        reference='Cox, "The regression analysis of binary sequences", Journal of the Royal Statistical Society B 1958',
        reads=LABELS,
        aliases=("logistic regression", "softmax", "softmax regression", "multinomial logistic regression"),
    ),
    Method(
        name="harmonic",
        title="Harmonic loss",
        family="supervised",
        supervisory=p.DataLabel(),
        learned=q.Harmonic(n=4.0),
        encoder=encoders.Linear(),
        estimator="ICONClassifier",
        equals="mean_i -log d_iy^(-2n) / sum_c d_ic^(-2n) over the distances to the classes' prototypes",
        reference='Baek et al., "Harmonic loss trains interpretable AI models", arXiv 2502.01628',
        reads=LABELS,
        aliases=("harmonic max",),
    ),
]

_CROSS_MODAL = [
    Method(
        name="clip",
        title="CLIP",
        family="cross-modal",
        supervisory=p.CrossModalPairs(),
        learned=q.Gaussian(metric="cosine", tau="learn"),
        encoder=encoders.MLP(),
        estimator="ICONCrossModal",
        equals="the mean of the cross-entropies of the rows and of the columns of the matrix of cosines over tau, the "
        "diagonal being the class",
        reference='Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021',
        reads=OTHER,
        aliases=("contrastive language-image pretraining",),
        parameters=SEVERAL,
    ),
    Method(
        name="siglip",
        title="SigLIP",
        family="cross-modal",
        supervisory=p.CrossModalPairs(),
        learned=q.PairwiseSigmoid(q.Gaussian(metric="cosine", tau="learn")),
        encoder=encoders.MLP(),
        estimator="ICONCrossModal",
        equals="mean_i -sum_j log s(l_ij (cos_ij / tau + b)), s the logistic function, l one for partners and -1 for "
        "all other pairs",
        reference='Zhai et al., "Sigmoid loss for language image pre-training", ICCV 2023',
        reads=OTHER,
        aliases=("pairwise sigmoid", "sigmoid loss"),
        parameters=SEVERAL,
    ),
    Method(
        name="cmc",
        title="CMC",
        family="cross-modal",
        supervisory=p.CrossModalPairs(),
        learned=q.Gaussian(metric="cosine", tau=0.07),
        encoder=encoders.MLP(),
        estimator="ICONCrossModal",
        equals="the mean of the cross-entropies of both directions, as in CLIP",
        reference='Tian, Krishnan and Isola, "Contrastive multiview coding", ECCV 2020',
        reads=OTHER,
        aliases=("contrastive multiview coding",),
        parameters=SEVERAL,
    ),
]

_LANGUAGE = [
    Method(
        name="mlm",
        title="Masked LM, next token",
        family="language",
        supervisory=p.Counts(),
        learned=q.Gaussian(metric="dot"),
        encoder=encoders.Lookup(),
        estimator="ICONEmbedding",
        equals="the cross-entropy of tokens given contexts, averaged over all tokens, less the entropy of the counts",
        reference='Devlin et al., "BERT: Pre-training of deep bidirectional transformers for language understanding", '
        "NAACL 2019",
        reads="X: a context x token count matrix",
        aliases=(
            "masked language modeling",
            "masked language modelling",
            "masked lm",
            "next token",
            "bert",
            "word2vec",
            "skip-gram",
        ),
        parameters=SEVERAL,
    ),
]

_CLUSTERING = [
    Method(
        name="k-means",
        title="k-means",
        family="clustering",
        supervisory=p.Gaussian(sigma=0),
        learned=q.SharedCluster(),
        encoder=encoders.Lookup(),
        estimator="ICONClustering",
        equals="the inertia of scikit-learn's KMeans, which solves it: the limit, as s shrinks, of s^2 times a loss "
        "that is inertia / s^2 less the entropy of q, up to a constant",
        reference='MacQueen, "Some methods for classification and analysis of multivariate observations", 1967',
        divergence="reverse_kl",
        aliases=("lloyd",),
    ),
    Method(
        name="spectral",
        title="Spectral",
        family="clustering",
        supervisory=p.Spectral(p.Gaussian(sigma=0)),
        learned=q.SharedCluster(),
        encoder=encoders.Lookup(),
        estimator="ICONClustering",
        equals="k-means on the leading eigenvectors of a graph: the partition of scikit-learn's SpectralClustering",
        reference='Ng, Jordan and Weiss, "On spectral clustering: Analysis and an algorithm", NIPS 2001',
        reads="X: features, or a symmetric sparse graph of the rows",
        divergence="reverse_kl",
        aliases=("spectral clustering",),
    ),
    Method(
        name="ncut",
        title="Normalized cuts",
        family="clustering",
        supervisory=p.Graph(),
        learned=q.SharedCluster(weights="degree"),
        encoder=encoders.Lookup(),
        estimator="ICONClustering",
        equals="NCut = m - sum_ij w_ij q(j|i) / d_j of m hard clusters: the limit of debiasing p and q as a goes "
        "to one, by mass that is spread by degree",
        reference='Shi and Malik, "Normalized cuts and image segmentation", IEEE TPAMI 2000',
        reads=GRAPH,
        debias=1.0,
        aliases=("normalised cuts", "normalized cut", "normalised cut", "n-cuts"),
    ),
    Method(
        name="dcd",
        title="DCD",
        family="clustering",
        supervisory=p.UniformKNN(),
        learned=q.SharedCluster(),
        encoder=encoders.Lookup(),
        estimator="ICONClustering",
        equals="mean_i KL(p_i || q_i) with q(j|i) = sum_c phi_ic phi_jc / sum_k phi_kc over a graph of neighbours",
        reference='Yang and Oja, "Clustering by low-rank doubly stochastic matrix decomposition", ICML 2012',
        aliases=("data-cluster-data random walk", "doubly stochastic decomposition"),
    ),
    Method(
        name="pmi",
        title="PMI clustering",
        family="clustering",
        supervisory=p.UniformKNN(),
        learned=q.SharedCluster(),
        encoder=encoders.Linear(),
        estimator="ICONClustering",
        equals="minus the mean of log sum_c phi_ic phi_jc / mean_k phi_kc of neighbours, their pointwise mutual "
        "information, up to a constant",
        reference='Adaloglou et al., "Exploring the limits of deep image clustering using pretrained models", BMVC '
        "2023",
        aliases=("temi", "mutual information clustering", "pointwise mutual information"),
    ),
    Method(
        name="infonce-clustering",
        title="InfoNCE clustering",
        family="clustering",
        supervisory=p.RandomWalk(p.UniformKNN(), n_steps=2),
        learned=q.SharedCluster(),
        encoder=encoders.Linear(),
        estimator="ICONClustering",
        equals="mean_i KL(p_i || q_i) with q(j|i) = sum_c phi_ic phi_jc / sum_k phi_kc over walks along neighbours",
        reference=f"{ICON}, section 4",
        aliases=("contrastive clustering",),
    ),
    Method(
        name="debiased-infonce-clustering",
        title="Debiased InfoNCE clustering",
        family="clustering",
        supervisory=p.RandomWalk(p.UniformKNN(), n_steps=2),
        learned=q.SharedCluster(),
        encoder=encoders.Linear(),
        estimator="ICONClustering",
        equals="InfoNCE clustering with (1 - a) p + a / N and (1 - a) q + a / N; the defaults of ICONClustering",
        reference=f"{ICON}, section 4",
        debias=0.3,
        aliases=("debiased clustering", "i-con clustering", "icon"),
    ),
]

PUBLISHED = (*_MAPS, *CONTRASTIVE, *_SUPERVISED, *_CROSS_MODAL, *_LANGUAGE, *_CLUSTERING)
