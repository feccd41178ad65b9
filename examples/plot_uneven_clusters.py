r"""
Clusters of unlike size
=======================

Under KL an edge of p inside a cluster lowers the loss by :math:`\log 1 / m_c`, where :math:`m_c` is the fraction of
rows in the cluster, which favours clusters of similar size. Under total variation and the normalised cut (``debias=1``)
it is :math:`1 / m_c`, so that a well separated group is worth the same whatever its size.
"""

import matplotlib.pyplot as plt
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from sklearn_icon import ICONClustering, supervisory
from sklearn_icon.plotting import ClusterSizesDisplay, EmbeddingDisplay

X, y = make_blobs([500, 60, 40], centers=[[0, 0], [5, 0], [0, 5]], cluster_std=[1.2, 0.5, 0.5], random_state=0)
p = supervisory.UniformKNN(n_neighbors=10)
clusterings = {
    "KMeans": KMeans(3, n_init=10, random_state=0),
    "KL": ICONClustering(3, supervisory=p, encoder="linear", random_state=0),
    "debias=1": ICONClustering(3, supervisory=p, encoder="lookup", debias=1, random_state=0),
}

fig, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
for ax, (name, estimator) in zip(axes, clusterings.items(), strict=True):
    labels = estimator.fit_predict(X)
    EmbeddingDisplay.from_embedding(X, y=labels, s=8, legend="none", ax=ax)
    ax.set_title(f"{name}: ARI {adjusted_rand_score(y, labels):.2f}")
plt.show()

# %%
# How many rows each cluster holds; a dotted line shows clusters of one size.

fig, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained", sharey=True)
for ax, (name, estimator) in zip(axes, clusterings.items(), strict=True):
    ClusterSizesDisplay.from_estimator(estimator, X, ax=ax)
    ax.set_title(name)
plt.show()
