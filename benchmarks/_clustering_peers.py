"""Baselines of `clustering.py`: the objectives of TEMI and TURTLE with linear heads, written after the papers.

They are not the authors' programs: features are given, heads are linear, budgets fit a CPU, and nothing is tuned per
data set. Both draw from generators of their own.
"""

import time

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize


class TEMI(ClusterMixin, BaseEstimator):
    """Weighted pointwise mutual information of neighbours, a student's heads against their averages.

    ::

        pmi(x, x') = log sum_c (s_c(x) t_c(x'))^beta / m_c,     m the running mean of t
        loss = - mean over pairs, w(x, x') (pmi(x, x') + pmi(x', x)) / 2,     w = mean over heads, sum_c t_c(x) t_c(x')

    where s and t are softmaxes of cosines over a temperature, and t's weights follow those of s. Pairs are rows and one
    of their cosine neighbours; the head of the lowest loss is kept. The temperature, the neighbours and the decays are
    the paper's; the rate is larger, for linear heads.

    References
    ----------
    Adaloglou, Michels, Kalisch and Kollmann, "Exploring the limits of deep image clustering using pretrained models",
    BMVC 2023, equations 4 to 9.
    """

    def __init__(self, n_clusters, *, n_heads=16, beta=0.6, learning_rate=1e-3, random_state=0, n_jobs=None):
        self.n_clusters = n_clusters
        self.n_heads = n_heads
        self.beta = beta
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X, y=None, n_neighbors=50, temperature=0.1, decay=0.996, epochs=100, min_steps=3000, batch_size=1024):
        import torch

        X = normalize(X)
        start = time.perf_counter()
        near = NearestNeighbors(n_neighbors=min(n_neighbors, len(X) - 1), n_jobs=self.n_jobs).fit(X)
        near = near.kneighbors(return_distance=False)
        self.graph_seconds_ = time.perf_counter() - start
        rng = np.random.RandomState(self.random_state)
        shape = (self.n_clusters, self.n_heads, X.shape[1] + 1)  # clusters first: softmaxes of long rows are faster
        student = torch.tensor(rng.uniform(-1, 1, size=shape) / np.sqrt(X.shape[1]), dtype=torch.float32)
        teacher = student.clone()
        student.requires_grad_(True)
        optimizer = torch.optim.AdamW([student], lr=self.learning_rate, weight_decay=1e-4)
        X = _with_ones(X)
        mass = torch.full((self.n_clusters, self.n_heads, 1), 1 / self.n_clusters)
        batch_size = min(batch_size, len(X))
        n_steps = max(min_steps, epochs * len(X) // batch_size)
        losses = torch.zeros(self.n_heads)
        for step in range(n_steps):
            rows = rng.randint(len(X), size=batch_size)
            others = near[rows, rng.randint(near.shape[1], size=batch_size)]
            pair = torch.cat([X[rows], X[others]]).T / temperature
            log_s = (student.flatten(0, 1) @ pair).unflatten(0, shape[:2]).log_softmax(dim=0)
            with torch.no_grad():
                log_t = (teacher.flatten(0, 1) @ pair).unflatten(0, shape[:2]).log_softmax(dim=0)
                t = log_t.exp()
                mass = 0.9 * mass + 0.1 * t.mean(dim=2, keepdim=True)
                weights = (t[:, :, :batch_size] * t[:, :, batch_size:]).sum(dim=0).mean(dim=0)
            swapped = log_t.roll(batch_size, dims=2)
            pmi = torch.logsumexp(self.beta * (log_s + swapped) - mass.log(), dim=0)
            each = -(weights.repeat(2) * pmi).mean(dim=1)
            optimizer.zero_grad()
            each.sum().backward()
            optimizer.step()
            with torch.no_grad():
                teacher.lerp_(student, 1 - decay)
                losses += each.detach() if step >= 0.9 * n_steps else 0
        self._weights = teacher[:, losses.argmin()].T / temperature
        self.labels_ = self._proba(X).argmax(axis=1)
        return self

    def _proba(self, X):
        return (X @ self._weights).softmax(dim=1).numpy()

    def predict_proba(self, X):
        return self._proba(_with_ones(normalize(X)))


class TURTLE(ClusterMixin, BaseEstimator):
    """The labeling that a linear classifier, fitted to it by a few steps, predicts best; one space of features.

    ::

        minimise over theta:   mean_i CE(softmax(w* x_i); tau_i) - gamma H(mean_i tau_i),     tau = softmax(theta x)
        w* = a few steps of Adam on mean_i CE(softmax(w x_i); tau_i) from where w was

    without a gradient through w*; theta's rows have a norm and a direction that are learned apart. The rates, gamma and
    the number of inner steps are the authors' defaults; batches and steps are fewer. Features have unit variance.

    References
    ----------
    Gadetsky, Jiang and Brbic, "Let go of your labels with unsupervised transfer", ICML 2024, equations 9 to 12.
    """

    def __init__(self, n_clusters, *, gamma=10.0, warm=True, learning_rate=1e-3, random_state=0, n_jobs=None):
        self.n_clusters = n_clusters
        self.gamma = gamma
        self.warm = warm
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X, y=None, n_steps=3000, n_inner=10, batch_size=4096):
        import torch
        from torch.nn.functional import cross_entropy, normalize

        rng = np.random.RandomState(self.random_state)
        X, shape = _with_ones(X), (X.shape[1] + 1, self.n_clusters)

        def drawn():
            return torch.tensor(rng.uniform(-1, 1, size=shape) / np.sqrt(shape[0]), dtype=torch.float32)

        def adam(*params):
            return torch.optim.Adam([param.requires_grad_(True) for param in params], lr=self.learning_rate)

        direction, inner = drawn(), drawn()
        norm = direction.norm(dim=0)
        outer_steps, inner_steps = adam(direction, norm), adam(inner)
        for _ in range(n_steps):
            batch = X[rng.choice(len(X), size=min(batch_size, len(X)), replace=False)]
            tau = (batch @ (norm * normalize(direction, dim=0))).softmax(dim=1)
            if not self.warm:
                inner = drawn()
                inner_steps = adam(inner)
            for _ in range(n_inner):
                inner_steps.zero_grad()
                cross_entropy(batch @ inner, tau.detach()).backward()
                inner_steps.step()
            entropy = torch.special.entr(tau.mean(dim=0)).sum()
            outer_steps.zero_grad()
            (cross_entropy(batch @ inner.detach(), tau) - self.gamma * entropy).backward()
            outer_steps.step()
        self._weights = (norm * normalize(direction, dim=0)).detach()
        self.labels_ = self.predict_proba(X[:, :-1]).argmax(axis=1)
        return self

    def predict_proba(self, X):
        return (_with_ones(X) @ self._weights).softmax(dim=1).numpy()


def _with_ones(X):
    """A tensor of the rows and a column of ones."""
    import torch

    X = torch.as_tensor(X, dtype=torch.float32)
    return torch.cat([X, torch.ones(len(X), 1)], dim=1)
