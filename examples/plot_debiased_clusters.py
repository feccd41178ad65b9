r"""
Uniform mass in clusters
========================

Mixing a fraction :math:`a` of uniform mass into both distributions,

.. math:: \tilde p = (1 - a)\, p + a / N, \qquad \tilde q = (1 - a)\, q + a / N,

says that a neighbour may be wrong: fewer memberships are certain.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklearn_icon import ICONClustering
from sklearn_icon.metrics import clustering_accuracy

X, y = load_digits(return_X_y=True)
X, y = X[:800], y[:800]

# %%
# How sure the memberships are, without uniform mass and with more and more of it, and how many rows are in the cluster
# that most of their digit is in.

fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for debias in [0.0, 0.3, 0.6]:
    clusters = ICONClustering(10, encoder="linear", supervisory="knn", debias=debias, random_state=0).fit(X)
    sure = clusters.predict_proba(X).max(axis=1)
    accuracy = clustering_accuracy(y, clusters.labels_)
    label = f"debias={debias}: accuracy {accuracy:.2f}, mean {sure.mean():.2f}"
    ax.hist(sure, bins=30, range=(0, 1), histtype="step", lw=2, label=label)
ax.set(xlabel="largest membership of a row", ylabel="rows")
ax.legend(loc="upper left")
plt.show()
