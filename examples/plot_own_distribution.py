"""
A distribution and a kernel of your own
=======================================

A p is a class with ``conditional``, a q one with ``log_kernel``. ``sklearn_icon.testing`` checks them as it
checks the library's own.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import sparse

from sklearn_icon import ICONEmbedding, learned, supervisory
from sklearn_icon.plotting import EmbeddingDisplay
from sklearn_icon.testing import check_learned, check_supervisory


class SameMonth(supervisory.Supervisory):
    """Days of the year whose month is the same, and the days next to them."""

    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """p(j|i), uniform over the days of the same thirty and the neighbouring days."""
        day = np.asarray(X)[:, 0]
        gap = np.abs(day[:, None] - day)
        weights = ((day[:, None] // 30 == day // 30) | (np.minimum(gap, 360 - gap) <= 3)) & (gap > 0)
        return supervisory.Graph().conditional(sparse.csr_array(weights.astype(float)))


class Logistic(learned.DistanceKernel):
    """k = 1 / cosh^2(d / 2), a tail between the Gaussian's and the Student-t's."""

    def log_kernel(self, sq_distance):
        """log k."""
        half = sq_distance.clamp_min(1e-12).sqrt() / 2
        return -2 * (half + (-2 * half).exp().log1p())


days = np.arange(360.0)[:, None]
check_supervisory(SameMonth(), days)
check_learned(Logistic())

# %%
# Twelve months of thirty days, laid out with this p and this q.

embedding = ICONEmbedding(supervisory=SameMonth(), learned=Logistic(), init="spectral", random_state=0).fit(days)
EmbeddingDisplay.from_estimator(embedding, values=days[:, 0])
plt.title("days of a year, by month and by neighbour")
plt.show()
