r"""
Uniform mass in clusters
========================

Mixing a fraction :math:`a` of uniform mass into both distributions,

.. math:: \tilde p = (1 - a)\, p + a / N, \qquad \tilde q = (1 - a)\, q + a / N,

says that a neighbour may be wrong. Where many are, as of noisy images or of embeddings by another's network, clusters
that take every neighbour at its word follow the wrong ones.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklearn_icon import ICONClustering
from sklearn_icon.metrics import clustering_accuracy

X, y = load_digits(return_X_y=True)
X, y = X[:700], y[:700]
noise = np.random.RandomState(0).normal(size=X.shape)

# %%
# Digits, whose grey values go from 0 to 16, with more and more noise: how many rows are in the cluster that most of
# their digit is in, and how sure memberships are.

levels, debiases = [0, 3, 6], [0.0, 0.3, 0.6]
found = np.empty((len(debiases), len(levels), 2))
for i, debias in enumerate(debiases):
    for j, level in enumerate(levels):
        model = ICONClustering(10, encoder="linear", supervisory="knn", debias=debias, n_init=4, random_state=0)
        model.fit(X + level * noise)
        found[i, j] = clustering_accuracy(y, model.labels_), model.predict_proba(X + level * noise).max(axis=1).mean()

fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
for ax, title, values in zip(axes, ["accuracy", "mean largest membership"], np.moveaxis(found, 2, 0), strict=True):
    for debias, line in zip(debiases, values, strict=True):
        ax.plot(levels, line, "o-", label=f"debias={debias}")
    ax.set(title=title, xlabel="standard deviation of the noise", xticks=levels, ylim=(0, 1.02))
axes[0].legend(loc="lower left")
plt.show()

# %%
# Of clean digits uniform mass changes little. Of noisy ones more rows are in the right cluster with it, and memberships
# say better how many are.
