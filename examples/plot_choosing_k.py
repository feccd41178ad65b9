"""
How many clusters
=================

A number of clusters is stable if two fits, each to a random half of the rows, give all rows the same labels. The
display draws this stability, for any clusterer, and also the loss, the entropy of memberships and the fraction of p
between clusters, where the clusterer has them. Silhouettes show which clusters overlap.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from sklearn_icon.plotting import ClusterCountDisplay, SilhouetteDisplay

centers = np.array([[0, 0], [3, 0], [12, 2], [15, 2], [6, 10], [9, 10]])
X, y = make_blobs(240, centers=centers, cluster_std=0.7, random_state=3)

# %%
# Three groups, each of two: stability has two peaks, at 3 and at 6. Of equally stable numbers the largest is the most
# informative.

ClusterCountDisplay.from_estimator(KMeans(n_init=5), X, n_clusters=range(2, 11), random_state=0)
plt.show()

# %%
# The silhouettes of 3, 6 and 8 clusters: with 8 some groups are divided, and rows near the border are as near to the
# next cluster as to their own.

fig, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
for ax, k in zip(axes, [3, 6, 8], strict=True):
    SilhouetteDisplay.from_estimator(KMeans(k, n_init=5, random_state=0).fit(X), X, ax=ax)
    ax.set_title(f"{k} clusters")
plt.show()
