"""The formulas of p, q and the loss as LaTeX, for the pages of the methods."""

_DISTANCE = r"\lVert z_i - z_j \rVert^2"
_P = {
    "Gaussian": [
        r"p(j \mid i) = \frac{\exp(-d_{ij}^2 / 2 s_i^2)}{\sum_{k \neq i} \exp(-d_{ik}^2 / 2 s_i^2)}, \qquad j \neq i"
    ],
    "StudentT": [r"p(j \mid i) \propto (1 + d_{ij}^2 / \nu s_i^2)^{-(\nu + 1) / 2}, \qquad j \neq i"],
    "Identity": [r"p(j \mid i) = 1[i = j]"],
    "Graph": [r"p(j \mid i) = \frac{w_{ij}}{\sum_k w_{ik}}"],
    "UniformKNN": [r"p(j \mid i) = \frac{1}{k} \; \text{where } j \text{ is one of the } k \text{ nearest rows to } i"],
    "FuzzyUnion": [
        r"p(j \mid i) = w_{ij} / w_i, \qquad w_{ij} = v_{ij} + v_{ji} - v_{ij} v_{ji}, "
        r"\qquad v_{ij} = \exp(-\max(0, d_{ij} - \rho_i) / s_i)"
    ],
    "PositivePairs": [r"p(j \mid i) = \frac{1[g_j = g_i]}{n_{g_i} - 1}, \qquad j \neq i"],
    "CrossModalPairs": [r"p(j \mid i) = 1[j \text{ is the partner of } i \text{ in the other modality}]"],
    "SameClass": [r"p(j \mid i) = \frac{1[y_j = y_i]}{n_{y_i} - 1}, \qquad j \neq i"],
    "DataLabel": [r"p(c \mid i) = 1[i \text{ belongs to class } c]"],
    "BalancedCodes": [r"p(c \mid i) = a_i y_{ic} b_c, \qquad \sum_i p(c \mid i) = n / n_c"],
    "Counts": [r"p(t \mid i) = \frac{n_{it}}{n_i}, \qquad n_i = \sum_u n_{iu}"],
    "RandomWalk": [r"\tilde P \propto P + P^2 + \dots + P^m"],
    "Spectral": [
        r"U = D^{-1/2} [u_1 \dots u_m], \qquad D = \mathrm{diag} \Big( \sum_j w_{ij} \Big)",
    ],
}
_Q = {
    ("Gaussian", "distance"): [rf"q(j \mid i) \propto \exp(-{_DISTANCE} / 2 \sigma^2)"],
    ("Gaussian", "cosine"): [r"q(j \mid i) \propto \exp(\cos(z_i, z_j) / \tau)"],
    ("Gaussian", "dot"): [r"q(j \mid i) \propto \exp(z_i \cdot z_j / \tau)"],
    ("StudentT", "distance"): [rf"q(j \mid i) \propto (1 + {_DISTANCE} / \nu)^{{-(\nu + 1) / 2}}"],
    ("WideGaussian", "distance"): [
        r"s^2 (L(s) - \log N) \to \frac{1}{n} \sum_i "
        r"\Big[ \sum_j p(j \mid i) d_{ij}^2 - \frac{1}{N} \sum_j d_{ij}^2 \Big]"
    ],
    ("NarrowGaussian", "distance"): [
        r"s^2 L(s) \to \frac{1}{n} \sum_i \Big[ \sum_j p(j \mid i) d_{ij}^2 - \min_k d_{ik}^2 \Big]"
    ],
    ("Rational", "distance"): [r"q(j \mid i) \propto (1 + a \lVert z_i - z_j \rVert^{2 b})^{-1}"],
    ("NegativeSampling", "distance"): [
        r"L = \frac{1}{\sum_i w_i} \sum_i w_i \Big[ -\sum_j p(j \mid i) \log v_{ij} "
        r"- \frac{m}{N} \sum_j \log(1 - v_{ij}) \Big], \qquad v_{ij} = \frac{k_{ij}}{k_{ij} + c}"
    ],
    ("SpectralContrast", "dot"): [
        r"L = \frac{1}{n} \sum_i \Big[ -2 \sum_j p(j \mid i) z_i \cdot z_j "
        r"+ \frac{1}{N} \sum_j (z_i \cdot z_j)^2 \Big]"
    ],
    ("NoiseContrastive", "distance"): [
        r"L = \min_c \frac{1}{n} \sum_i \Big[ -\sum_j p(j \mid i) \log v_{ij} - \frac{m}{N} \sum_j \log(1 - v_{ij}) "
        r"\Big], \qquad v_{ij} = \frac{1}{1 + c (1 + d_{ij}^2)}"
    ],
    ("PairwiseSigmoid", "cosine"): [
        r"L = -\frac{1}{n} \sum_{ij} \log \sigma \big( \ell_{ij} (\cos(z_i, z_j) / \tau + b) \big), "
        r"\qquad \ell_{ij} = 1 \text{ where } p(j \mid i) > 0, \text{ else } -1"
    ],
    ("Decoupled", "cosine"): [
        r"L = \frac{1}{n} \sum_i \Big[ -\sum_j p(j \mid i) \log k_{ij} + \log \sum_{j: p(j \mid i) = 0} k_{ij} "
        r"\Big], \qquad k_{ij} = \exp(\cos(z_i, z_j) / \tau)"
    ],
    ("HardNegatives", "cosine"): [
        r"L = -\frac{1}{n} \sum_i \sum_j p(j \mid i) \log \frac{k_{ij}}{k_{ij} + N g_i}, "
        r"\qquad k_{ij} = \exp(\cos(z_i, z_j) / \tau)",
        r"g_i = \max \Big( \frac{1}{1 - \pi} \Big[ \frac{1}{N} \sum_{l: p(l \mid i) = 0} w_{il} k_{il} - "
        r"\pi \sum_j p(j \mid i) k_{ij} \Big], e^{-1 / \tau} \Big), "
        r"\qquad w_{il} = k_{il}^\beta \Big/ \frac{1}{N} \sum_m k_{im}^\beta",
    ],
    ("MultiView", "cosine"): [
        r"k_{ab} = \exp(\cos(z_a, z_b) / \tau), \qquad a, b \text{ the views of an item; } "
        r"j \text{ all rows, or of DHEL the same view of the other items}"
    ],
    ("HardnessWeighted", "distance"): [
        rf"L = \frac{{1}}{{n}} \sum_{{ij}} (a_{{ij}} - r_{{ij}}) {_DISTANCE}, "
        rf"\qquad a_{{ij}} \propto p(j \mid i) e^{{t_+ {_DISTANCE}}}, "
        rf"\qquad r_{{ij}} \propto 1[p(j \mid i) = 0] e^{{-t_- {_DISTANCE}}}"
    ],
    ("Heads", "cosine"): [r"q(j \mid i) \propto \exp \Big( \sum_h \cos(z_{ih}, z_{jh}) / \tau_h \Big)"],
    ("Harmonic", "distance"): [r"q(c \mid i) \propto \lVert z_i - w_c \rVert^{-2 n}"],
    ("SharedCluster", "memberships"): [
        r"q(j \mid i) = \sum_c \phi_{ic} \frac{\phi_{jc} d_j}{\sum_k \phi_{kc} d_k}, \qquad \phi = \mathrm{softmax}(z)"
    ],
}
_TERMS = {
    "kl": r"d(p, q) = p \log \frac{p}{q}",
    "reverse_kl": r"d(p, q) = q \log \frac{q}{p}",
    "jensen_shannon": r"d(p, q) = \frac{1}{2} \left( p \log \frac{2 p}{p + q} + q \log \frac{2 q}{p + q} \right)",
    "total_variation": r"d(p, q) = \frac{1}{2} |p - q|",
    "squared_hellinger": r"d(p, q) = \frac{1}{2} (\sqrt{p} - \sqrt{q})^2",
}
_NOTES = {
    "Identity": "A row is its own key, in q too.",
    "PositivePairs": ":math:`g` is the item that a row is a view of.",
    "FuzzyUnion": "A row counts in the average as its weights sum to; :math:`s_i` lets :math:`v_{ij}` sum to the "
    "logarithm of k to base two.",
    "BalancedCodes": "Keys are the prototypes, whose number is :math:`n_c`; :math:`y` are the given assignments, and "
    ":math:`a, b` found by Sinkhorn's algorithm.",
    "DataLabel": "Keys are the classes, whose prototypes are learned.",
    "Counts": "Keys are the tokens; a row counts in the average as often as it has tokens.",
    "CrossModalPairs": "Keys are the rows of the other modality.",
    "SameClass": "Rows without a class have no positive, or the p that follows.",
    "RandomWalk": ":math:`P` is the matrix of the p that it walks on.",
    "Spectral": "p is measured between the rows of :math:`U`, of :math:`D^{-1/2} W D^{-1/2}` the leading eigenvectors.",
    "Gaussian": "The width :math:`s_i` is that of the perplexity, or one for all rows.",
    "SharedCluster": ":math:`d_j` is one, or the degree of a row.",
}


def formulas(method):
    """(formulas as LaTeX, sentences about their letters) of a method."""
    found, notes = [], []
    if not method.learned.is_limit:
        joint = method.normalization == "joint"
        sums = r"L = \sum_{i \neq j} d(p_{ij}, q_{ij}), \qquad p_{ij} = \frac{p(j \mid i) + p(i \mid j)}{2 n}"
        rows = r"L = \frac{1}{n} \sum_i \sum_j d(p(j \mid i), q(j \mid i))"
        found += [f"{sums if joint else rows}, \\qquad {_TERMS[method.divergence]}"]
    spec = method.supervisory
    while spec is not None:
        found += _P.get(type(spec).__name__, [])
        notes += [_NOTES[type(spec).__name__]] if type(spec).__name__ in _NOTES else []
        spec = getattr(spec, "base", getattr(spec, "unlabelled", None))
    name = type(method.learned).__name__
    found += _Q[name, method.learned.affinity]
    notes += [_NOTES[name]] if name == "SharedCluster" else []
    return found, notes
