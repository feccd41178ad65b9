"""
Labels of some rows
===================

Where labels are known, :math:`p` may say "the other rows of my class"; where they are not, "my nearest rows". A third
of the wines keep their label here, and the others, -1, are placed by what they are like.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

from sklearn_icon import ICONEmbedding, supervisory
from sklearn_icon.plotting import EmbeddingDisplay

X, y = load_wine(return_X_y=True)
X = StandardScaler().fit_transform(X)
known = np.random.RandomState(0).uniform(size=len(y)) < 1 / 3
partly = np.where(known, y, -1)

p = supervisory.SameClass(unlabelled=supervisory.Gaussian(perplexity=15))
without = ICONEmbedding(perplexity=15, random_state=0).fit(X)
model = ICONEmbedding(supervisory=p, random_state=0).fit(X, partly)

# %%
# With a third of the labels the classes part, and rows without one lie with their like: some in another class, which no
# label kept them from. With all labels, ``supervisory="same_class"``, each class would shrink to a point: that is what
# :math:`p` asks for, and no evidence that the classes can be told apart.

fig, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
for ax, fitted, shown, title in zip(
    axes,
    (without, model, model),
    (y, partly, y),
    ("no labels", "a third of the labels, as they were given", "the same map, all rows by their class"),
    strict=True,
):
    EmbeddingDisplay.from_estimator(fitted, y=shown, ax=ax)
    ax.set_title(title)
plt.show()
