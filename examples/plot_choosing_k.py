"""
How many clusters
=================

Fits to two random halves label all rows alike where the data show that many clusters. The display draws this stability
beside entropy and loss, for any clusterer; no number is chosen for you.
"""

import matplotlib.pyplot as plt
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from sklearn_icon.plotting import ClusterCountDisplay

X, y = make_blobs(400, 5, centers=6, cluster_std=1.5, random_state=3)
display = ClusterCountDisplay.from_estimator(KMeans(n_init=5), X, n_clusters=range(2, 11), random_state=0)
plt.show()
