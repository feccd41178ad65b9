"""
Parameters of clusters and of similarities
==========================================

What `debias`, the steps of a random walk, `n_clusters` and the temperature `tau` do.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklearn_icon import ICONClassifier, ICONClustering, learned, supervisory
from sklearn_icon.metrics import clustering_accuracy
from sklearn_icon.plotting import ReliabilityDisplay

X, y = load_digits(return_X_y=True)
X, X_new, y, y_new = X[:600], X[600:1200], y[:600], y[600:1200]

# %%
# **debias**, the uniform mass in p and q, allows for neighbours of another class. Memberships become less sure, though
# only a little here, as most neighbours of these digits are of their class.


def accuracy(n_clusters=10, **choice):
    """(accuracy, memberships) of clusters that are trained."""
    model = ICONClustering(n_clusters, encoder="linear", n_init=4, max_iter=180, random_state=0, **choice).fit(X)
    return clustering_accuracy(y, model.labels_), model.predict_proba(X)


debiases = [0.0, 0.2, 0.4, 0.6, 0.8]
found = [accuracy(debias=debias) for debias in debiases]
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.plot(debiases, [right for right, _ in found], "o-", label="accuracy")
ax.plot(debiases, [sure.max(axis=1).mean() for _, sure in found], "s--", label="mean largest membership")
ax.set(xlabel="debias", ylim=(0, 1.02))
ax.legend(loc="lower left")
plt.show()

# %%
# **Walks**: p of two steps also holds neighbours of neighbours, which joins groups that one step leaves apart. For
# these digits one step is enough; two, the default, do no harm.

steps = [1, 2, 4, 8]
walks = [accuracy(supervisory=supervisory.RandomWalk(supervisory.UniformKNN(15), n_steps=n))[0] for n in steps]
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.plot(steps, walks, "o-")
ax.set(xlabel="steps of the walk", ylabel="accuracy", ylim=(0, 1.02), xticks=steps)
plt.show()

# %%
# **n_clusters**: as many clusters are found, wherever there are enough distinct rows. With too few, groups are joined;
# with too many, the loosest are divided. The loss does not tell the right number, as it always falls;
# `plotting.ClusterCountDisplay` compares numbers by how stable they are.

counts = [3, 6, 10, 15, 25]
sizes = [np.sort(np.bincount(ICONClustering(k, random_state=0).fit(X).labels_))[::-1] for k in counts]
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for k, size in zip(counts, sizes, strict=True):
    ax.plot(np.arange(1, k + 1), size, ".-", label=f"n_clusters={k}")
ax.set(xlabel="cluster, by size", ylabel="rows")
ax.legend()
plt.show()

# %%
# **tau** divides the cosine before the softmax: the smaller it is, the more confident is the classifier. Too large a
# temperature makes it underconfident, too small a one overconfident; `tau="learn"` lets the loss choose.

fig, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
for ax, tau in zip(axes, [0.02, 0.1, 1.0], strict=True):
    model = ICONClassifier(learned=learned.Gaussian(metric="cosine", tau=tau), random_state=0).fit(X, y)
    ReliabilityDisplay.from_estimator(model, X_new, y_new, ax=ax)
    ax.set_title(f"tau={tau}: accuracy {model.score(X_new, y_new):.2f}")
plt.show()
