"""
Quickstart: a map, clusters and classes of the digits
=====================================================

Three estimators, one loss: each item's neighbours by the data, :math:`p`, are compared with its neighbours by what is
being learned, :math:`q`. For a map :math:`q` comes from distances in the plane, for clusters from memberships, for
classes from scores.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklearn_icon import ICONClassifier, ICONClustering, ICONEmbedding
from sklearn_icon.plotting import EmbeddingDisplay

X, y = load_digits(return_X_y=True)
X, y = X[:900], y[:900]

# %%
# Clusters do not see the labels; the classifier is fitted to two thirds of them.

embedding = ICONEmbedding(random_state=0).fit(X)
clusters = ICONClustering(10, random_state=0).fit(X)
classifier = ICONClassifier(random_state=0).fit(X[:600] / 16, y[:600])
print(f"accuracy on the other third: {classifier.score(X[600:] / 16, y[600:]):.3f}")

# %%
# The map, coloured by digit, by cluster, and by the probability of the predicted class.

fig, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
EmbeddingDisplay.from_estimator(embedding, y=y, ax=axes[0])
EmbeddingDisplay.from_estimator(embedding, y=clusters.labels_, ax=axes[1])
EmbeddingDisplay.from_estimator(embedding, values=classifier.predict_proba(X / 16).max(axis=1), ax=axes[2])
for ax, title in zip(axes, ["digits", "clusters", "how sure the classifier is"], strict=True):
    ax.set_title(title)
plt.show()
