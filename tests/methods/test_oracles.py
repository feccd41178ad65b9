"""Every method of the table next to an oracle: the method's own formula in plain loops, or another library's code.

Oracles know nothing of specs: they take data and representations, and give the loss as published. Values agree to 1e-8,
and gradients too, in double precision.
"""

from math import log

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import brentq
from scipy.special import logsumexp
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold._t_sne import _kl_divergence
from torch.nn.functional import cross_entropy

from sklearn_icon import learned, methods, supervisory
from sklearn_icon._clusters.cuts import measure_of, normalized_cut
from sklearn_icon._core.conditional import Conditional
from sklearn_icon._objective.objective import Objective
from sklearn_icon.nn import ICONLoss

N, DIM, CLASSES, SIGMA, NEIGHBORS = 12, 3, 3, 1.3, 3
RNG = np.random.default_rng(0)
X, COMPANIONS = RNG.normal(size=(N, 4)), RNG.normal(size=(N, 2))
LABELS = np.repeat([0, 1, 2], 4)
PARTLY = np.where(np.arange(N) % 4 == 3, -1, np.where(LABELS == 2, -1, LABELS))  # a class hidden, and a row of each
ITEMS = np.arange(N) % (N // 2)
CODES = RNG.dirichlet(np.ones(3), size=N)
COUNTS = RNG.integers(0, 4, size=(N, 5)) + np.eye(N, 5, dtype=int)
GRAPH = np.triu(RNG.uniform(0.1, 1, size=(N, N)) * (RNG.uniform(size=(N, N)) < 0.5), 1)
GRAPH = GRAPH + GRAPH.T


# --- p, in loops --------------------------------------------------------------------------------------------------


def distances(rows):
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in rows] for a in rows])


def gaussian(rows):
    """exp(-d^2 / 2 s^2), rows divided by their sums, without self."""
    k = np.array(
        [
            [np.exp(-(d**2) / (2 * SIGMA**2)) if i != j else 0 for j, d in enumerate(row)]
            for i, row in enumerate(distances(rows))
        ]
    )
    return k / k.sum(axis=1, keepdims=True)


def student_t(rows, df):
    """(1 + d^2 / nu s^2)^-(nu + 1)/2, rows divided by their sums, without self."""
    k = (1 + distances(rows) ** 2 / (df * SIGMA**2)) ** (-(df + 1) / 2) * (1 - np.eye(N))
    return k / k.sum(axis=1, keepdims=True)


def nearest(rows):
    p = np.zeros((N, N))
    for i, row in enumerate(distances(rows)):
        for j in sorted((d, j) for j, d in enumerate(row) if j != i)[:NEIGHBORS]:
            p[i, j[1]] = 1 / NEIGHBORS
    return p


def fuzzy(rows):
    """UMAP's weights of pairs: local exponentials that sum to log2 k, the row counted among the k, joined."""
    v = np.zeros((N, N))
    for i, row in enumerate(distances(rows)):
        others = sorted((d, j) for j, d in enumerate(row) if j != i)[: NEIGHBORS - 1]

        def says(s, others=others):
            return [np.exp(-(d - others[0][0]) / s) for d, _ in others]

        s = brentq(lambda s: sum(says(s)) - np.log2(NEIGHBORS), 1e-3, 1e3, xtol=1e-14)
        for (_, j), value in zip(others, says(s), strict=True):
            v[i, j] = value
    return np.array([[v[i, j] + v[j, i] - v[i, j] * v[j, i] for j in range(N)] for i in range(N)])


def walks(p):
    """P + P^2 without self, rows divided by their sums."""
    total = p + p @ p
    np.fill_diagonal(total, 0)
    return total / total.sum(axis=1, keepdims=True)


def same(groups):
    p = np.array([[float(a == b and i != j) for j, b in enumerate(groups)] for i, a in enumerate(groups)])
    return p / p.sum(axis=1, keepdims=True)


def from_graph():
    return np.array([[w / sum(row) for w in row] for row in GRAPH])


# --- losses, in loops ---------------------------------------------------------------------------------------------


def sq_distance(a, b):
    return ((a - b) ** 2).sum()


def cosine(a, b):
    return a @ b / (a @ a).sqrt() / (b @ b).sqrt()


def cauchy(a, b):
    return -torch.log(1 + sq_distance(a, b))


def kl_of_rows(p, log_kernel, z, keys=None, exclude_self=True):
    """mean_i sum_j p_ij log(p_ij / q_ij) with q_ij = k_ij / sum of k_i."""
    keys = z if keys is None else keys
    total = 0
    for i in range(len(p)):
        among = [j for j in range(p.shape[1]) if not (exclude_self and j == i)]
        log_norm = torch.stack([log_kernel(z[i], keys[j]) for j in among]).exp().sum().log()
        for j in among:
            if p[i, j]:
                total = total + p[i, j] * (log(p[i, j]) - log_kernel(z[i], keys[j]) + log_norm)
    return total / len(p)


def joint_kl(p, kernel, z):
    """KL of (P + P^T) / 2n and k / sum of k, over all pairs."""
    p = (p + p.T) / (2 * len(p))
    pairs = [(i, j) for i in range(N) for j in range(N) if i != j]
    total = sum(kernel(z[i], z[j]) for i, j in pairs)
    return sum(p[i, j] * (log(p[i, j]) - (kernel(z[i], z[j]) / total).log()) for i, j in pairs if p[i, j])


def cohesion(p, z, keys=None):
    """mean_i [ sum_j p_ij d_ij^2 - mean_j d_ij^2 ]."""
    keys, exclude_self = (z, True) if keys is None else (keys, False)
    total = 0
    for i in range(len(p)):
        among = [j for j in range(len(keys)) if not (exclude_self and j == i)]
        total = total + sum((p[i, j] - 1 / len(among)) * sq_distance(z[i], keys[j]) for j in among)
    return total / len(p)


def hardest(p, z, keys=None):
    """mean_i [ sum_j p_ij d_ij^2 - min_j d_ij^2 ]."""
    keys, exclude_self = (z, True) if keys is None else (keys, False)
    total = 0
    for i in range(len(p)):
        among = [j for j in range(len(keys)) if not (exclude_self and j == i)]
        total = total + sum(p[i, j] * sq_distance(z[i], keys[j]) for j in among)
        total = total - min((sq_distance(z[i], keys[j]) for j in among), key=torch.Tensor.item)
    return total / len(p)


def entropy(p):
    """The mean entropy of rows."""
    return -sum(x * log(x) for x in p.ravel() if x) / len(p)


def softmax_loss(z, tau, positives):
    """Cross-entropy of cosines over tau among the other rows, as NT-Xent is written."""
    unit = z / z.norm(dim=1, keepdim=True)
    logits = (unit @ unit.T / tau).masked_fill(torch.eye(N, dtype=torch.bool), -torch.inf)
    return cross_entropy(logits, torch.as_tensor(positives))


PARTNERS = (np.arange(N) + N // 2) % N


def sup_con(z, tau):
    """L_out of Khosla et al., eq. 2, averaged over rows."""
    losses = []
    for i in range(N):
        positives = [j for j in range(N) if j != i and LABELS[j] == LABELS[i]]
        denominator = sum((cosine(z[i], z[j]) / tau).exp() for j in range(N) if j != i)
        losses.append(-sum(((cosine(z[i], z[j]) / tau).exp() / denominator).log() for j in positives) / len(positives))
    return sum(losses) / N


def clip(z, other, tau):
    unit, of_other = z / z.norm(dim=1, keepdim=True), other / other.norm(dim=1, keepdim=True)
    logits, pairs = unit @ of_other.T / tau, torch.arange(N)
    return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2


def both_ways(loss, z, other):
    return (loss(np.eye(N), z, other) + loss(np.eye(N), other, z)) / 2


def shared_cluster(logits, weights=None):
    """q(j|i) = sum_c phi_ic phi_jc w_j / sum_k phi_kc w_k."""
    phi = logits.softmax(dim=1)
    weights = torch.ones(N, dtype=torch.float64) if weights is None else torch.as_tensor(weights)
    q = [[0 for _ in range(N)] for _ in range(N)]
    for c in range(CLASSES):
        mass = sum(phi[k, c] * weights[k] for k in range(N))
        for i in range(N):
            for j in range(N):
                q[i][j] = q[i][j] + phi[i, c] * phi[j, c] * weights[j] / mass
    return torch.stack([torch.stack(row) for row in q])


def kl_of_clusters(p, logits, weights=None):
    q = shared_cluster(logits, weights)
    return sum(p[i, j] * (log(p[i, j]) - q[i, j].log()) for i, j in np.argwhere(p)) / N


def cut_by_q(q):
    """m - sum_ij w_ij q(j|i) / d_j."""
    degrees = GRAPH.sum(axis=1)
    return CLASSES - sum(GRAPH[i, j] * q[i, j] / degrees[j] for i, j in np.argwhere(GRAPH))


def mutual_information(p, logits):
    """Minus the mean of log sum_c phi_ic phi_jc / mean_k phi_kc over neighbours, in the form of TEMI."""
    phi = logits.softmax(dim=1)
    marginal = phi.mean(dim=0)
    return -sum(p[i, j] * (phi[i] * phi[j] / marginal).sum().log() for i, j in np.argwhere(p)) / N


def labels_and_walks():
    """Of rows whose class is known the class, of the others walks among neighbours."""
    p = walks(nearest(X))
    for i, label in enumerate(PARTLY):
        if label >= 0:
            for j in range(N):
                p[i, j] = PARTLY[j] == label and j != i
            p[i] /= p[i].sum()
    return p


def debiased_clusters(logits, a=0.3, p=None):
    p, q = walks(nearest(X)) if p is None else p, shared_cluster(logits)
    total = 0
    for i in range(N):
        for j in range(N):
            mixed = (1 - a) * p[i, j] + a / N
            if mixed:
                total = total + mixed * (log(mixed) - ((1 - a) * q[i, j] + a / N).log())
    return total / N


def harmonic(z, prototypes, n):
    """-log of d_iy^-2n over its sum, as Baek et al. write it with d^n of plain distances."""
    d = torch.stack([torch.stack([sq_distance(row, key).sqrt() for key in prototypes]) for row in z])
    shares = d ** (-2 * n) / (d ** (-2 * n)).sum(dim=1, keepdim=True)
    return -sum(shares[i, LABELS[i]].log() for i in range(N)) / N


def wrong(z, prototypes, sigma):
    """mean_i 1 - q(y_i|i)."""
    total = 0
    for i in range(N):
        kernel = [(-sq_distance(z[i], key) / (2 * sigma**2)).exp() for key in prototypes]
        total = total + 1 - kernel[LABELS[i]] / sum(kernel)
    return total / N


A, B, E = 1.5769436135066135, 0.8950607193577085, 0.01  # umap-learn's for min_dist=0.1 and spread=1, and a softening


def umap_kernel(a, b):
    return 1 / (1 + A * ((sq_distance(a, b) + E) ** B - E**B))


def negative_sampling(w, kernel, z, n_negatives=5):
    """-sum_ij w_ij log k_ij, and as much of drawn rows as UMAP draws for each neighbour, over all weights."""
    total = 0
    for i in range(N):
        others = [j for j in range(N) if j != i]
        told = sum((1 - 0.999 * kernel(z[i], z[j])).log() for j in others) / len(others)
        near = sum(w[i, j] * kernel(z[i], z[j]).log() for j in others if w[i, j])
        total = total - near - w[i].sum() * n_negatives * told
    return total / w.sum()


def noise_contrastive(p, z, n_negatives=5):
    """Cross-entropy of neighbours and drawn rows under v = k / (k + c), at its least over c."""

    def loss(z, c):
        total = 0
        for i in range(N):
            others = [j for j in range(N) if j != i]
            v = {j: 1 / (1 + c * (1 + sq_distance(z[i], z[j]))) for j in others}
            total = total - sum(p[i, j] * v[j].log() for j in others if p[i, j])
            total = total - n_negatives * sum((1 - v[j]).log() for j in others) / len(others)
        return total / N

    def slope(log_c):
        log_c = torch.tensor(log_c, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(loss(fixed, log_c.exp()), log_c)[0].item()

    fixed = z.detach()
    return loss(z, float(np.exp(brentq(slope, -6, 6, xtol=1e-14))))


def spectral_contrastive(p, z):
    """mean_i -2 z_i . z_i+, and the mean of (z_i . z_j)^2 over the other rows."""
    total = 0
    for i in range(N):
        products = [(z[i] * z[j]).sum() for j in range(N)]
        others = [j for j in range(N) if j != i]
        total = total - 2 * sum(p[i, j] * products[j] for j in others)
        total = total + sum(products[j] ** 2 for j in others) / len(others)
    return total / N


def views_of(groups):
    return [[i for i in range(N) if groups[i] == g] for g in np.unique(groups)]


def decoupled(z, tau):
    """-log of exp(cos+ / tau) over the sum over rows that are no view of the item."""
    total = 0
    for i in range(N):
        negatives = sum((cosine(z[i], z[j]) / tau).exp() for j in range(N) if ITEMS[j] != ITEMS[i])
        total = total - cosine(z[i], z[PARTNERS[i]]) / tau + negatives.log()
    return total / N


def hard_negatives(z, tau, hardness, prior):
    """-log k+ / (k+ + N g) as Robinson et al. and Chuang et al. write it, with N = 2 B - 2 negatives."""
    total, n = 0, N - 2
    for i in range(N):
        k = torch.stack([(cosine(z[i], z[j]) / tau).exp() for j in range(N) if ITEMS[j] != ITEMS[i]])
        positive = (cosine(z[i], z[PARTNERS[i]]) / tau).exp()
        weighed = (k**hardness * k).sum() / (k**hardness).mean()
        negative = ((weighed - prior * n * positive) / (1 - prior)).clamp(min=n * np.exp(-1 / tau))
        total = total - (positive / (positive + negative)).log()
    return total / N


def dhel(z, groups, tau):
    """-log of the kernels between an item's views over the product of each view's sum over the same view of others."""
    total, items = 0, views_of(groups)
    for views in items:
        pairs = [(a, b) for a in range(len(views)) for b in range(a)]
        total = total - sum((cosine(z[views[a]], z[views[b]]) / tau).exp() for a, b in pairs).log()
        for a, i in enumerate(views):
            others = [other[a] for other in items if other is not views]
            total = total + sum((cosine(z[i], z[j]) / tau).exp() for j in others).log()
    return total / len(items)


def multi_view_infonce(z, groups, tau):
    total, items = 0, views_of(groups)
    for views in items:
        near = sum((cosine(z[a], z[b]) / tau).exp() for a in views for b in views if a != b)
        every = sum((cosine(z[a], z[j]) / tau).exp() for a in views for j in range(N) if j != a)
        total = total - (near / every).log()
    return total / len(items)


def attraction_and_repulsion(z, groups, near=1.0, far=2.0):
    """CACR: squared distances to positives weighed by exp(t+ d^2), less those to negatives weighed by exp(-t- d^2)."""
    total = 0
    for i in range(N):
        positive = torch.stack([sq_distance(z[i], z[j]) for j in range(N) if groups[j] == groups[i] and j != i])
        negative = torch.stack([sq_distance(z[i], z[j]) for j in range(N) if groups[j] != groups[i]])
        weights = (near * positive).exp(), (-far * negative).exp()
        total = total + (weights[0] / weights[0].sum() * positive).sum()
        total = total - (weights[1] / weights[1].sum() * negative).sum()
    return total / N


def siglip(z, other, scale, bias, labels=None):
    """-1/n sum_ij log s(l_ij (t cos_ij + b)), as in algorithm 1 of Zhai et al."""
    labels, total = np.arange(N) if labels is None else labels, 0
    for i in range(N):
        for j in range(N):
            sign = 1 if labels[i] == labels[j] else -1
            total = total - torch.sigmoid(sign * (scale * cosine(z[i], other[j]) + bias)).log()
    return total / N


def swav(z, prototypes, tau):
    """Cross-entropy with codes after three rounds of Sinkhorn's, less their entropy."""
    codes = CODES.copy()
    for _ in range(3):
        for c in range(3):
            codes[:, c] /= sum(codes[i, c] for i in range(N))
        for i in range(N):
            codes[i] /= codes[i].sum()
    return kl_of_rows(codes, cosine_kernel(tau), z, prototypes, exclude_self=False)


def several_heads(z, taus):
    """NT-Xent of the sum of cosines of blocks of columns over their temperatures."""
    columns = np.array_split(np.arange(DIM), len(taus))
    return kl_of_rows(
        same(ITEMS),
        lambda a, b: sum(cosine(a[part], b[part]) / tau for part, tau in zip(columns, taus, strict=True)),
        z,
    )


def tokens(z, keys):
    """Cross-entropy of all tokens, less the entropy of each context's counts: contexts weigh as many as they have."""
    log_q = (z @ keys.T).log_softmax(dim=1)
    shares = COUNTS / COUNTS.sum(axis=1, keepdims=True)
    mass = COUNTS.sum(axis=1) / COUNTS.sum()
    return -sum(mass[i] * (shares[i, t] * (log_q[i, t] - log(shares[i, t]))) for i, t in np.argwhere(COUNTS))


def sne_kernel(a, b):
    return -sq_distance(a, b)


def t_kernel(df):
    return lambda a, b: -(df + 1) / 2 * torch.log(1 + sq_distance(a, b) / df)


def cosine_kernel(tau):
    return lambda a, b: cosine(a, b) / tau


def reverse_kl_of_clusters(log_affinity, logits):
    """sum_ij q_ij log(q_ij / p_ij) / n, self included, with p_ij = k_ij / sum of k_i."""
    log_p = log_affinity - logsumexp(log_affinity, axis=1, keepdims=True)
    q = shared_cluster(logits)
    return sum(q[i, j] * (q[i, j].log() - log_p[i, j]) for i in range(N) for j in range(N)) / N


SQ = distances(X) ** 2

# name -> the loss as a function of z, or of z and keys
ORACLES = {
    "sne": lambda z: kl_of_rows(gaussian(X), sne_kernel, z),
    "t-sne": lambda z: joint_kl(gaussian(X), lambda a, b: 1 / (1 + sq_distance(a, b)), z),
    "pca": lambda z: -2 * ((z - z.mean(dim=0)) ** 2).sum() / N,
    "infonce": lambda z: softmax_loss(z, 0.1, PARTNERS),
    "simclr": lambda z: softmax_loss(z, 0.5, PARTNERS),
    "moco-v3": lambda z: softmax_loss(z, 0.2, PARTNERS),
    "t-simclr": lambda z: kl_of_rows(same(ITEMS), t_kernel(2.0), z),
    "t-simcne": lambda z: kl_of_rows(same(ITEMS), cauchy, z),
    "vicreg": lambda z: ((z - z[PARTNERS]) ** 2).sum() / N - 2 * ((z - z.mean(dim=0)) ** 2).sum() / (N - 1),
    "triplet": lambda z: hardest(same(ITEMS), z),
    "x-sample": lambda z: kl_of_rows(gaussian(COMPANIONS), cosine_kernel(0.1), z),
    "lgsimclr": lambda z: kl_of_rows(nearest(COMPANIONS), cosine_kernel(0.1), z),
    "supcon": lambda z: sup_con(z, 0.1) - log(3),
    "cross-entropy": lambda z, keys: cross_entropy(z @ keys.T, torch.as_tensor(LABELS)),
    "harmonic": lambda z, keys: harmonic(z, keys, 4.0),
    "mlm": tokens,
    "clip": lambda z, keys: clip(z, keys, 0.07),
    "cmc": lambda z, keys: clip(z, keys, 0.07),
    "ncut": lambda z: cut_by_q(shared_cluster(z, GRAPH.sum(axis=1))),
    "dcd": lambda z: kl_of_clusters(nearest(X), z),
    "pmi": lambda z: mutual_information(nearest(X), z) + log(N) - entropy(nearest(X)),
    "infonce-clustering": lambda z: kl_of_clusters(walks(nearest(X)), z),
    "debiased-infonce-clustering": debiased_clusters,
    "spectral-contrastive": lambda z: spectral_contrastive(same(ITEMS), z),
    "infonc-t-sne": lambda z: kl_of_rows(nearest(X), cauchy, z),
    "neg-t-sne": lambda z: negative_sampling(nearest(X), lambda a, b: 1 / (2 + sq_distance(a, b)), z),
    "ncvis": lambda z: noise_contrastive(nearest(X), z),
    "largevis": lambda z: negative_sampling(gaussian(X), lambda a, b: 1 / (1 + sq_distance(a, b)), z, 35),
    "exaggerated-t-sne": lambda z: joint_kl(gaussian(X), lambda a, b: 1 / (1 + sq_distance(a, b)), z),
    "dreams": lambda z: joint_kl(gaussian(X), lambda a, b: 1 / (1 + sq_distance(a, b)), z),
    "dcl": lambda z: decoupled(z, 0.1),
    "debiased-infonce": lambda z: hard_negatives(z, 0.5, hardness=0, prior=0.1),
    "hard-negatives": lambda z: hard_negatives(z, 0.5, hardness=1, prior=0.1),
    "dhel": lambda z: dhel(z, ITEMS, 0.3),
    "mv-infonce": lambda z: multi_view_infonce(z, ITEMS, 0.5),
    "cacr": lambda z: attraction_and_repulsion(z, ITEMS),
    "siglip": lambda z, keys: siglip(z, keys, 1 / 0.07, -log(N)),
    "swav": lambda z, keys: swav(z, keys, 0.1),
    "several-heads": lambda z: several_heads(z, (0.1, 0.5)),
    "umap": lambda z: joint_kl(fuzzy(X) * N / fuzzy(X).sum(), umap_kernel, z),
    "parametric-umap": lambda z: negative_sampling(fuzzy(X), umap_kernel, z),
    "dual-t-sne": lambda z: joint_kl(student_t(X, 10.0), lambda a, b: (-sq_distance(a, b)).exp(), z),
    "doubly-t-sne": lambda z: joint_kl(student_t(X, 10.0), lambda a, b: 1 / (1 + sq_distance(a, b)), z),
    "sne-graph": lambda z: kl_of_rows(from_graph(), sne_kernel, z),
    "t-sne-graph": lambda z: joint_kl(from_graph(), lambda a, b: 1 / (1 + sq_distance(a, b)), z),
    "sne-uniform": lambda z: kl_of_rows(nearest(X), sne_kernel, z),
    "t-sne-uniform": lambda z: joint_kl(nearest(X), lambda a, b: 1 / (1 + sq_distance(a, b)), z),
    "t-clip": lambda z, keys: both_ways(lambda p, a, b: kl_of_rows(p, cauchy, a, b, False), z, keys),
    "average-margin-clip": lambda z, keys: both_ways(cohesion, z, keys),
    "triplet-clip": lambda z, keys: both_ways(hardest, z, keys),
    "t-supcon": lambda z: kl_of_rows(same(LABELS), cauchy, z),
    "average-margin-supcon": lambda z: cohesion(same(LABELS), z),
    "triplet-supcon": lambda z: hardest(same(LABELS), z),
    "error-rate": lambda z, keys: wrong(z, keys, 0.1),
    "supervised-clustering": lambda z: kl_of_clusters(same(LABELS), z),
    "category-discovery": lambda z: debiased_clusters(z, p=labels_and_walks()),
    "k-means": lambda z: reverse_kl_of_clusters(-SQ / (2 * SIGMA**2), z),
    "spectral": lambda z: reverse_kl_of_clusters(-SQ / (2 * SIGMA**2), z),
    "t-k-means": lambda z: reverse_kl_of_clusters(-np.log1p(SQ / SIGMA**2), z),
}

READ = {  # what fit reads beside X, by what the record says it reads
    "item": ITEMS,
    "companion": COMPANIONS,
    "soft assignments": CODES,
    "-1 where unknown": PARTLY,
    "class labels": LABELS,
    "other modality": X[:, :2],
    "token": COUNTS,
}


def conditional_of(method):
    """p of a record on the small data: kernels of one width, which no search blurs, and few neighbours."""
    spec = method.supervisory
    inner = spec.plain()
    if hasattr(inner, "sigma"):
        inner.set_params(sigma=SIGMA)
    elif hasattr(inner, "n_neighbors"):
        inner.set_params(n_neighbors=NEIGHBORS)
    elif "unlabelled__base__n_neighbors" in inner.get_params():
        inner.set_params(unlabelled__base__n_neighbors=NEIGHBORS)
    rows = GRAPH if "weights" in method.reads else X
    if method.divergence == "reverse_kl":  # over all keys of a cluster, the row itself among them
        return Conditional.from_weights(np.exp(inner._log_affinity()(SQ, SIGMA**2)))
    y = next((value for words, value in READ.items() if words in method.reads), None)
    return spec.conditional(rows, y)


def objective_of(method):
    if method.debias == 1:
        p = conditional_of(method)
        return lambda z: normalized_cut(p, z.softmax(dim=1), measure_of(p, method.learned, np.ones(N)))
    p = conditional_of(method).mix(method.debias)
    q = method.learned
    if "tau" in q.learns:
        q.owner("tau").set_params(tau=0.07)
    q = learned.UniformMixture(q, method.debias) if method.debias and q.on_memberships else q
    weight = COUNTS.sum(axis=1) if method.family == "language" else None
    return Objective(p, q, divergence=method.divergence, normalization=method.normalization, sample_weight=weight)


def loss_of(method, objective):
    if method.family == "cross-modal":
        return lambda z, keys: (objective(z, keys) + objective(keys, z)) / 2
    return objective


def representations(method, seed=1):
    rng = np.random.default_rng(seed)
    n_keys = {"cross-modal": N, "language": 5}.get(method.family, CLASSES)
    shapes = [(N, CLASSES if method.family == "clustering" else DIM)]
    if not method.supervisory.over_rows:
        shapes.append((n_keys, DIM))
    scale = 0.15 if method.name == "error-rate" else 1.0
    return [torch.tensor(scale * rng.normal(size=shape), requires_grad=True) for shape in shapes]


def test_every_method_has_an_oracle():
    assert set(ORACLES) == set(methods.names())


@pytest.mark.parametrize("name", list(ORACLES))
def test_loss_and_gradient_are_those_of_the_oracle(name):
    method = methods.get(name)
    inputs = representations(method)
    value, wanted = (loss(*inputs) for loss in (loss_of(method, objective_of(method)), ORACLES[name]))
    assert_allclose(value.item(), wanted.item(), rtol=1e-8)
    for found, expected in zip(*(torch.autograd.grad(loss, inputs) for loss in (value, wanted)), strict=True):
        assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
        assert expected.abs().max() > 1e-4


@pytest.mark.parametrize(
    "spec, oracle",
    [
        (learned.MultiView(learned.Gaussian(metric="cosine", tau=0.3)), lambda z, items: dhel(z, items, 0.3)),
        (
            learned.MultiView(learned.Gaussian(metric="cosine", tau=0.5), decoupled=False),
            lambda z, items: multi_view_infonce(z, items, 0.5),
        ),
        (learned.HardnessWeighted(0.7, 3.0), lambda z, items: attraction_and_repulsion(z, items, 0.7, 3.0)),
    ],
    ids=["dhel", "mv-infonce", "cacr"],
)
@pytest.mark.parametrize("n_items", [6, 4, 3])
def test_any_number_of_views_at_once(spec, oracle, n_items):
    """In `nn.ICONLoss` and the estimators' objective, whatever the order of the items."""
    items = np.random.default_rng(n_items).permutation(np.arange(N) % n_items)
    z = torch.tensor(np.random.default_rng(2).normal(size=(N, DIM)), requires_grad=True)
    wanted = oracle(z, items)
    p = supervisory.PositivePairs()
    for value in (Objective(p.conditional(X, items), spec)(z), ICONLoss(p, spec)(z, items)):
        assert_allclose(value.item(), wanted.item(), rtol=1e-8)
        assert_allclose(*(torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (value, wanted)), rtol=1e-7)


class OfHeads(learned.Kernel):
    """Cosines over temperatures of rows of several heads, one head after the other; zero between two heads."""

    def __init__(self, taus):
        self.taus = taus

    def paired(self, z, keys):
        raise NotImplementedError

    def pairwise(self, z, keys):
        head = torch.arange(len(z)) // (len(z) // len(self.taus))
        cosines = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(keys).T
        log_k = cosines / torch.tensor(self.taus, dtype=z.dtype)[head][:, None]
        return log_k.masked_fill(head[:, None] != head, -1e9)


def test_several_heads_whose_losses_are_added_up():
    """AMCL: as a sum of cells, and as InfoNCE whose rows are rows of heads."""
    taus, (z,) = (0.1, 0.5), representations(methods.get("infonce"))
    heads = z[:, :2], z[:, 1:] ** 3
    wanted = sum(softmax_loss(head, tau, PARTNERS) for head, tau in zip(heads, taus, strict=True)) / 2
    losses = [ICONLoss("positive_pairs", learned.Gaussian(metric="cosine", tau=tau)) for tau in taus]
    summed = sum(loss(head, ITEMS) for loss, head in zip(losses, heads, strict=True)) / 2
    stacked = ICONLoss("positive_pairs", OfHeads(taus))(torch.cat(heads), np.concatenate([ITEMS, ITEMS + N]))
    for value in (summed, stacked):
        assert_allclose(value.item(), wanted.item(), rtol=1e-8)
        slopes = (torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (value, wanted))
        assert_allclose(*slopes, rtol=1e-7, atol=1e-12)


def test_siglip_and_clip_with_labels():
    """Keys of one label are partners, told or shared among: SigLIP and CLIP where several texts fit an image."""
    z, keys = representations(methods.get("clip"))
    kernel, cross = learned.Gaussian(metric="cosine", tau=0.2), supervisory.CrossModalPairs()
    told = ICONLoss(cross, learned.PairwiseSigmoid(kernel, bias=-3.0))(z, LABELS, keys)
    assert_allclose(told.item(), siglip(z, keys, 5.0, -3.0, LABELS).item(), rtol=1e-8)
    p = np.equal.outer(LABELS, LABELS) / 4.0
    shared = ICONLoss(cross, kernel, symmetric=True)(z, LABELS, keys)
    wanted = [kl_of_rows(p, cosine_kernel(0.2), *ends, exclude_self=False).item() for ends in ((z, keys), (keys, z))]
    assert_allclose(shared.item(), np.mean(wanted), rtol=1e-8)


def test_mixed_positives_and_negatives():
    """SupReMix: keys that are mixtures of rows, and p that says which of them stand for a row's target."""
    (z,) = representations(methods.get("infonce"))
    rng, unit = np.random.default_rng(3), z / z.norm(dim=1, keepdim=True)
    fractions, pairs = rng.uniform(size=9), rng.integers(0, N, size=(9, 2))
    mixed = [t * unit[a] + (1 - t) * unit[b] for t, (a, b) in zip(fractions, pairs, strict=True)]
    keys, targets = torch.cat([z.flip(0).detach(), torch.stack(mixed)]), rng.normal(size=N)
    of_keys = np.append(targets[::-1], fractions * targets[pairs[:, 0]] + (1 - fractions) * targets[pairs[:, 1]])
    p = np.exp(-(np.subtract.outer(targets, of_keys) ** 2) / 0.1)
    value = ICONLoss(supervisory.DataLabel(), learned.Gaussian(metric="cosine", tau=0.2))(z, p, keys)
    wanted = kl_of_rows(p / p.sum(axis=1, keepdims=True), cosine_kernel(0.2), z, keys, exclude_self=False)
    assert_allclose(value.item(), wanted.item(), rtol=1e-8)
    assert_allclose(*(torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (value, wanted)), rtol=1e-7)


@pytest.mark.parametrize("perplexity", [2.0, 6.0])
def test_widths_give_the_perplexity(perplexity):
    """The p of SNE and t-SNE, whose widths solve entropy(row i) = log perplexity."""
    found = methods.get("t-sne").supervisory.set_params(perplexity=perplexity).conditional(X).toarray()
    for i, row in enumerate(SQ):
        others = np.arange(N) != i

        def shares(log_width, d=row[others]):
            logits = -d / (2 * np.exp(2 * log_width))
            return np.exp(logits - logsumexp(logits))

        def excess(log_width, shares=shares):
            return entropy(shares(log_width)[None]) - log(perplexity)

        assert_allclose(found[i, others], shares(brentq(excess, -3, 8, xtol=1e-14)), atol=2e-5)


# --- other libraries ----------------------------------------------------------------------------------------------


def test_t_sne_has_the_loss_and_gradient_of_scikit_learn():
    method = methods.get("t-sne")
    (z,) = representations(method)
    loss = objective_of(method)(z)
    p = gaussian(X)
    joint = (p + p.T)[np.triu_indices(N, 1)] / (2 * N)
    value, gradient = _kl_divergence(z.detach().numpy().ravel(), joint, 1, N, DIM)
    assert_allclose(loss.item(), value, rtol=1e-9)
    (found,) = torch.autograd.grad(loss, z)
    assert_allclose(found.numpy().ravel(), gradient, rtol=1e-6, atol=1e-12)


def test_sne_has_the_gradient_of_hinton_and_roweis():
    method = methods.get("sne")
    (z,) = representations(method)
    (found,) = torch.autograd.grad(N * objective_of(method)(z), z)
    places, p = z.detach().numpy(), gaussian(X)
    kernel = np.exp(-(distances(places) ** 2)) * (1 - np.eye(N))
    gap = p - kernel / kernel.sum(axis=1, keepdims=True)
    expected = [2 * sum((places[i] - places[j]) * (gap + gap.T)[i, j] for j in range(N)) for i in range(N)]
    assert_allclose(found, expected, rtol=1e-7, atol=1e-10)


def test_pca_finds_the_subspace_of_scikit_learn():
    rows = load_iris().data
    ours = methods.get("pca").make_estimator(random_state=0, max_iter=500).fit(rows)
    theirs = PCA(2).fit(rows)
    Z, T = ours.transform(rows), theirs.transform(rows)
    Z = Z - Z.mean(axis=0)
    rotation = np.linalg.lstsq(Z, T, rcond=None)[0]
    assert_allclose(Z @ rotation, T, atol=1e-4)
    assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-5)
    assert_allclose(ours.kl_divergence_, -2 * T.var(axis=0).sum(), rtol=1e-9)


def test_cross_entropy_has_the_coefficients_of_scikit_learn():
    rows, labels = load_iris(return_X_y=True)
    ours = methods.get("logistic regression").make_estimator(tol=1e-9, max_iter=5000).fit(rows, labels)
    theirs = LogisticRegression(tol=1e-9, max_iter=5000).fit(rows, labels)
    assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.05, 0.3])
def test_label_smoothing_is_debiased_cross_entropy(smoothing):
    method = methods.get("cross-entropy")
    z, keys = representations(method)
    objective = Objective(conditional_of(method).mix(smoothing), method.learned)
    wanted = cross_entropy(z @ keys.T, torch.as_tensor(LABELS), label_smoothing=smoothing)
    value = objective(z, keys) - objective.constant
    assert_allclose(value.item(), wanted.item(), rtol=1e-12)
    for found, expected in zip(*(torch.autograd.grad(loss, (z, keys)) for loss in (value, wanted)), strict=True):
        assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


# --- limits -------------------------------------------------------------------------------------------------------

LIMITS = [name for name in methods.names() if methods.get(name).learned.is_limit]


def finite(method, s):
    """s^2 times the loss of q ~ exp(-d^2 / s^2), without the entropy of p."""
    p = conditional_of(method)
    objective = Objective(p, learned.Gaussian(sigma=s / 2**0.5))
    loss = loss_of(method, lambda z, keys=None: objective(z, keys) - objective.constant)
    inputs = representations(method)
    with torch.no_grad():
        return s**2 * loss(*inputs).item(), p.shape[1] - p.exclude_self


@pytest.mark.parametrize("name", [name for name in LIMITS if methods.get(name).row == "Wide Gaussian"])
def test_wide_gaussians_are_limits_at_the_stated_rate(name):
    """s^2 (L(s) - log N) -> the limit, the error falling as 1 / s^2."""
    method = methods.get(name)
    limit = loss_of(method, objective_of(method))(*representations(method)).item()
    errors = []
    for s in (20.0, 40.0, 80.0):
        scaled, n_keys = finite(method, s)
        errors.append(abs(scaled - s**2 * log(n_keys) - limit))
    assert errors[2] < 1e-2 * abs(limit)
    assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 4, rtol=2e-2)


@pytest.mark.parametrize("name", [name for name in LIMITS if methods.get(name).row == "Narrow Gaussian"])
def test_narrow_gaussians_are_limits_within_the_stated_bound(name):
    """0 <= s^2 L(s) - the limit <= s^2 log N."""
    method = methods.get(name)
    limit = loss_of(method, objective_of(method))(*representations(method)).item()
    for s in (1.0, 0.3, 0.1, 0.01):
        scaled, n_keys = finite(method, s)
        assert -1e-12 <= scaled - limit <= s**2 * log(n_keys) + 1e-12


def test_error_rate_is_the_limit_of_its_record():
    """As s shrinks, the share of rows whose nearest prototype is of another class."""
    method = methods.get("error-rate")
    z, keys = (part.detach() for part in representations(method))
    nearest_key = torch.cdist(z, keys).argmin(dim=1).numpy()
    p = conditional_of(method)
    loss = Objective(p, method.learned.set_params(sigma=1e-4), divergence=method.divergence)(z, keys)
    assert_allclose(loss.item(), np.mean(nearest_key != LABELS), atol=1e-12)
    assert 0 < np.mean(nearest_key != LABELS) < 1


# --- identities of clustering -------------------------------------------------------------------------------------


def test_dcd_pmi_and_infonce_clustering_are_one_formula():
    """On the same p: KL = mutual information + log n - entropy, for each of the three q."""
    (z,) = representations(methods.get("dcd"))
    p = conditional_of(methods.get("dcd"))
    values = [Objective(p, methods.get(name).learned)(z).item() for name in ("dcd", "pmi", "infonce-clustering")]
    dense = p.toarray()
    wanted = mutual_information(dense, z).item() + log(N) - entropy(dense)
    assert_allclose(values, wanted, rtol=1e-10)
    assert_allclose(values, kl_of_clusters(dense, z).item(), rtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_normalized_cut_of_hard_clusters(seed):
    """NCut = m - sum_ij w_ij q(j|i) / d_j."""
    labels = np.random.default_rng(seed).permutation(np.arange(N) % CLASSES)
    degrees = GRAPH.sum(axis=1)
    cut = 0.0
    for c in range(CLASSES):
        inside = labels == c
        cut += GRAPH[np.ix_(inside, ~inside)].sum() / degrees[inside].sum()
    logits = torch.as_tensor(80.0 * np.eye(CLASSES)[labels])
    spec = methods.get("ncut").learned
    log_q = spec.pairwise(*spec.prepare(logits, logits, torch.as_tensor(degrees)))
    found = CLASSES - (GRAPH * log_q.exp().numpy() / degrees).sum()
    assert_allclose(found, cut, rtol=1e-10)


@pytest.mark.parametrize("by_degree", [True, False])
def test_normalized_cut_is_the_limit_of_debiasing(by_degree):
    """KL(p~ || q~) / (1 - a)^2 -> the cut of hard clusters, up to a constant, as a -> 1."""
    pi = GRAPH.sum(axis=1) if by_degree else np.ones(N)
    spec, p = learned.SharedCluster("degree" if by_degree else None), conditional_of(methods.get("ncut"))
    pi, rows, losses, cuts = pi / pi.sum(), p.toarray(), [], []
    for seed in range(4):
        labels = np.random.default_rng(seed).permutation(np.arange(N) % CLASSES)
        hard = np.eye(CLASSES)[labels]
        q = (hard / (pi @ hard)) @ hard.T * pi
        mixed, other = (0.001 * part + 0.999 * pi for part in (rows, q))
        losses.append(pi @ (mixed * np.log(mixed / other)).sum(axis=1) / 0.001**2)
        cuts.append(normalized_cut(p, torch.as_tensor(hard), measure_of(p, spec, np.ones(N))).item())
    assert np.ptp(cuts) > 0.1
    assert_allclose(np.diff(losses), np.diff(cuts), atol=0.03)


def test_k_means_is_inertia_less_entropy():
    """sum_i KL(q_i || p_i) = J / s^2 - sum_i H(q_i) + sum_i log Z_i, self included."""
    method = methods.get("k-means")
    (z,) = representations(method)
    phi = z.softmax(dim=1).detach().numpy()
    centers = (phi.T @ X) / phi.sum(axis=0)[:, None]
    inertia = sum(phi[i, c] * ((X[i] - centers[c]) ** 2).sum() for i in range(N) for c in range(CLASSES))
    q = shared_cluster(z).detach().numpy()
    wanted = inertia / SIGMA**2 + (q * np.log(q)).sum() + logsumexp(-SQ / (2 * SIGMA**2), axis=1).sum()
    assert_allclose(N * objective_of(method)(z).item(), wanted, rtol=1e-10)
