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
maps = {
    "no labels": ICONEmbedding(perplexity=15, random_state=0).fit(X),
    "a third of the labels": ICONEmbedding(supervisory=p, random_state=0).fit(X, partly),
    "all labels": ICONEmbedding(supervisory="same_class", random_state=0).fit(X, y),
}

# %%
# All rows are coloured by their class. With all labels the map shows classes and nothing within them: that is what
# :math:`p` asks for, and no evidence that the classes can be told apart.

fig, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
for ax, (title, embedding) in zip(axes, maps.items(), strict=True):
    EmbeddingDisplay.from_estimator(embedding, y=y, ax=ax)
    ax.set_title(title)
plt.show()
