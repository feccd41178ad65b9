r"""
Debiased clustering of embeddings
=================================

Mixing a fraction :math:`a` of uniform mass into both distributions,

.. math:: \tilde p = (1 - a)\, p + a / N, \qquad \tilde q = (1 - a)\, q + a / N,

says that a neighbour may be of another class. Where many are, as among embeddings by a network that was trained for
something else, or among noisy images, clusters that trust every neighbour follow the wrong ones.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from sklearn_icon import ICONClustering
from sklearn_icon.metrics import clustering_accuracy

X, y = load_digits(return_X_y=True)
debiases = [0.0, 0.6]


def found(X, y, n_clusters, debias, **choice):
    """(accuracy, mean largest membership) of clusters that are trained."""
    model = ICONClustering(
        n_clusters, encoder="linear", supervisory="knn", debias=debias, n_init=4, max_iter=120, random_state=0, **choice
    ).fit(X)
    return clustering_accuracy(y, model.labels_), model.predict_proba(X).max(axis=1).mean()


def draw(values, ticks, xlabel, style="o-"):
    """Both measures, by the fraction of uniform mass."""
    axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)[1]
    for ax, title, lines in zip(axes, ["accuracy", "mean largest membership"], np.moveaxis(values, 2, 0), strict=True):
        for debias, line in zip(debiases, lines, strict=True):
            ax.plot(ticks, line, style, label=f"debias={debias}")
        ax.set(title=title, xlabel=xlabel, xticks=ticks, ylim=(0.5, 1.0))
    axes[0].legend(loc="lower left")
    plt.show()


# %%
# Three networks, of unlike seeds, learn to tell the digits 0 to 3. Their hidden layers give embeddings of the other six
# digits, which are clustered by cosine, as lengths of embeddings mean little.

old = y < 4
embeddings = []
for seed in range(3):
    network = MLPClassifier((64,), learning_rate_init=0.01, random_state=seed).fit(X[old] / 16, y[old])
    embeddings.append(np.maximum(X[~old] / 16 @ network.coefs_[0] + network.intercepts_[0], 0))
values = [[found(E, y[~old], 6, debias, metric="cosine") for E in embeddings] for debias in debiases]
draw(np.array(values), range(3), "network", style="o")

# %%
# Pixels of all ten digits, whose grey values go from 0 to 16, with more and more noise.

# sphinx_gallery_thumbnail_number = 2
noise, levels = np.random.RandomState(0).normal(size=(700, 64)), [0, 3, 5]
values = [[found(X[:700] + level * noise, y[:700], 10, debias) for level in levels] for debias in debiases]
draw(np.array(values), levels, "standard deviation of the noise")

# %%
# Uniform mass puts more noisy images into the right cluster, at some levels many, and up to a hundredth more of the
# embeddings; of clean images it changes little. In each case memberships are less sure, and so nearer to the fraction
# of rows that is right.
