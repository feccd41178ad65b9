"""
Starts, perplexity and global structure
=======================================

The loss of a map looks at neighbours. Where far groups end up follows from the start: principal components keep their
order, random coordinates do not. A larger perplexity asks for more of it.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklearn_icon import ICONEmbedding
from sklearn_icon.plotting import EmbeddingDisplay

rng = np.random.RandomState(0)
along = np.sort(rng.uniform(0, 10, 500))
X = np.c_[along, np.sin(along), np.zeros((500, 3))] + 0.15 * rng.normal(size=(500, 5))

# %%
# Rows lie along a curve in five dimensions; the colour is how far along.

choices = [{"init": "random"}, {"init": "pca"}, {"init": "pca", "perplexity": 100}]
fig, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
for ax, choice in zip(axes, choices, strict=True):
    embedding = ICONEmbedding(random_state=0, **choice).fit(X)
    EmbeddingDisplay.from_estimator(embedding, values=along, ax=ax)
    ax.set_title(", ".join(f"{name}={value!r}" for name, value in choice.items()))
plt.show()
