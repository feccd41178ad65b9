"""
How many clusters
=================

Fits to two random halves label all rows alike where the data show that many clusters. The display draws this
stability, for any clusterer, beside the loss, the entropy of memberships and what is cut of p, where the clusterer has
them. Silhouettes show which clusters run into each other.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from sklearn_icon.plotting import ClusterCountDisplay, SilhouetteDisplay

centers = np.array([[0, 0], [3, 0], [12, 2], [15, 2], [6, 10], [9, 10]])
X, y = make_blobs(240, centers=centers, cluster_std=0.7, random_state=3)

# %%
# Three groups of two: there are two peaks, at 3 and at 6, and the largest of those that are alike says most.

ClusterCountDisplay.from_estimator(KMeans(n_init=5), X, n_clusters=range(2, 11), random_state=0)
plt.show()

# %%
# The silhouettes of 3, 6 and 8 clusters: with 8 some groups are cut, and rows near the cut lie as near to the next
# cluster.

fig, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
for ax, k in zip(axes, [3, 6, 8], strict=True):
    SilhouetteDisplay.from_estimator(KMeans(k, n_init=5, random_state=0).fit(X), X, ax=ax)
    ax.set_title(f"{k} clusters")
plt.show()
