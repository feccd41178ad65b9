"""
Supervised and partly labelled maps
===================================

Where labels are known, :math:`p` may say "the other rows of my class"; where they are not, "my nearest rows". A third
of the wines keep their label here, and the others, labelled -1, are placed by what they resemble.
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
supervised = ICONEmbedding(supervisory="same_class", random_state=0).fit(X, y)

# %%
# A third of the labels separate the classes, and rows without a label lie beside those that they resemble, some of them
# in another class. With all labels each class shrinks to a spot: that is what :math:`p` asks for, and no evidence that
# the classes can be told apart. Held-out rows and ``transform`` would show whether they can.

fig, axes = plt.subplots(2, 2, figsize=(10, 9), layout="constrained")
for ax, fitted, shown, title in zip(
    axes.flat,
    (without, model, model, supervised),
    (y, partly, y, y),
    ("no labels", "a third of the labels, as they were given", "the same map, all rows by their class", "all labels"),
    strict=True,
):
    EmbeddingDisplay.from_estimator(fitted, y=shown, ax=ax)
    ax.set_title(title)
plt.show()
