"""Baselines of `clustering.py`: the objectives of TEMI and TURTLE, written after the papers.

They are not the authors' programs: heads are linear, budgets fit a CPU, and nothing is tuned per data set.
"""

import time

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize


class _Softmax(ClusterMixin, BaseEstimator):
    """Memberships that are a softmax of linear scores; `fit` sets `_weights`."""

    def __init__(self, n_clusters, *, random_state=0, n_jobs=None):
        self.n_clusters = n_clusters
        self.random_state = random_state
        self.n_jobs = n_jobs

    def predict_proba(self, X):
        return (_with_ones(X) @ self._weights).softmax(dim=1).numpy()


class TEMI(_Softmax):
    """Weighted pointwise mutual information of neighbours, a student's heads against their running averages.

    ::

        pmi(x, x') = log sum_c (s_c(x) t_c(x'))^beta / m_c,     m the running mean of t
        loss = - mean over pairs of w (pmi(x, x') + pmi(x', x)) / 2,     w = mean over heads of sum_c t_c(x) t_c(x')

    s and t are softmaxes of linear scores of unit rows over a temperature; t's weights follow s's. Pairs are rows
    and one of their cosine neighbours. The head of the lowest loss over the last tenth is kept. The neighbours, beta,
    the temperature and the decay are the authors'; the rate is larger, for linear heads, and stays.

    References
    ----------
    Adaloglou, Michels, Kalisch and Kollmann, "Exploring the limits of deep image clustering using pretrained models",
    BMVC 2023.
    """

    n_heads, n_neighbors, beta, temperature, decay = 16, 50, 0.6, 0.1, 0.996
    rate, batch_size, epochs, min_steps = 1e-3, 1024, 100, 3000

    def fit(self, X, y=None):
        import torch

        X = normalize(X)
        start = time.perf_counter()
        near = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(X) - 1), n_jobs=self.n_jobs).fit(X)
        near = near.kneighbors(return_distance=False)
        self.graph_seconds_ = time.perf_counter() - start
        X, rng, n = _with_ones(X), np.random.RandomState(self.random_state), min(self.batch_size, len(X))
        shape = (self.n_clusters, self.n_heads)  # clusters first: softmaxes of long rows are faster
        student = _drawn(rng, (*shape, X.shape[1])).requires_grad_(True)
        teacher = student.detach().clone()
        optimizer = torch.optim.AdamW([student], lr=self.rate, weight_decay=1e-4)
        mass, losses = torch.full((*shape, 1), 1 / self.n_clusters), torch.zeros(self.n_heads)
        n_steps = max(self.min_steps, self.epochs * len(X) // n)
        for step in range(n_steps):
            rows = rng.randint(len(X), size=n)
            others = near[rows, rng.randint(near.shape[1], size=n)]
            pairs = torch.cat([X[rows], X[others]]).T / self.temperature
            log_s = (student.flatten(0, 1) @ pairs).unflatten(0, shape).log_softmax(dim=0)
            with torch.no_grad():
                log_t = (teacher.flatten(0, 1) @ pairs).unflatten(0, shape).log_softmax(dim=0)
                t = log_t.exp()
                mass = 0.9 * mass + 0.1 * t.mean(dim=2, keepdim=True)
                weights = (t[:, :, :n] * t[:, :, n:]).sum(dim=0).mean(dim=0).repeat(2)
            pmi = torch.logsumexp(self.beta * (log_s + log_t.roll(n, dims=2)) - mass.log(), dim=0)
            each = -(weights * pmi).mean(dim=1)
            optimizer.zero_grad()
            each.sum().backward()
            optimizer.step()
            teacher.lerp_(student.detach(), 1 - self.decay)
            losses += each.detach() * (step >= 0.9 * n_steps)
        self._weights = teacher[:, losses.argmin()].T / self.temperature
        self.labels_ = (X @ self._weights).argmax(dim=1).numpy()
        return self

    def predict_proba(self, X):
        return super().predict_proba(normalize(X))


class TURTLE(_Softmax):
    """The labeling that a linear classifier, fitted to it by a few steps, predicts best; one space of features.

    ::

        minimise over theta:   mean_i CE(softmax(w* x_i); tau_i) - gamma H(mean_i tau_i),     tau = softmax(theta x)
        w* = a few steps of Adam on mean_i CE(softmax(w x_i); tau_i) from where w was

    without a gradient through w*; the norms and directions of theta's rows are learned apart. The rates, gamma and the
    inner steps are the authors' defaults, w starts warm, and batches and steps are fewer.

    References
    ----------
    Gadetsky, Jiang and Brbic, "Let go of your labels with unsupervised transfer", ICML 2024.
    """

    gamma, rate, n_steps, n_inner, batch_size = 10.0, 1e-3, 3000, 10, 4096

    def fit(self, X, y=None):
        import torch
        from torch.nn.functional import cross_entropy, normalize

        X, rng = _with_ones(X), np.random.RandomState(self.random_state)
        direction, inner = (_drawn(rng, (self.n_clusters, X.shape[1])).T for _ in range(2))
        norm = direction.norm(dim=0)
        params = [param.requires_grad_(True) for param in (direction, norm, inner)]
        outer_steps, inner_steps = (torch.optim.Adam(part, lr=self.rate) for part in (params[:2], params[2:]))
        for _ in range(self.n_steps):
            batch = X[rng.choice(len(X), size=min(self.batch_size, len(X)), replace=False)]
            tau = (batch @ (norm * normalize(direction, dim=0))).softmax(dim=1)
            for _ in range(self.n_inner):
                inner_steps.zero_grad()
                cross_entropy(batch @ inner, tau.detach()).backward()
                inner_steps.step()
            entropy = torch.special.entr(tau.mean(dim=0)).sum()
            outer_steps.zero_grad()
            (cross_entropy(batch @ inner.detach(), tau) - self.gamma * entropy).backward()
            outer_steps.step()
        self._weights = (norm * normalize(direction, dim=0)).detach()
        self.labels_ = (X @ self._weights).argmax(dim=1).numpy()
        return self


def _drawn(rng, shape):
    """Initial weights, as those of torch's linear layers."""
    import torch

    return torch.tensor(rng.uniform(-1, 1, size=shape) / np.sqrt(shape[-1]), dtype=torch.float32)


def _with_ones(X):
    """A tensor of the rows and a column of ones."""
    import torch

    X = torch.as_tensor(X, dtype=torch.float32)
    return torch.cat([X, torch.ones(len(X), 1)], dim=1)
