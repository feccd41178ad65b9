"""
Starts, perplexity and global structure
=======================================

The loss of a map only compares neighbours, so where distant groups end up depends on the initial coordinates: principal
components largely keep their order, random coordinates do not. With a larger perplexity rows of different groups are
neighbours too.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklearn_icon import ICONEmbedding
from sklearn_icon.plotting import EmbeddingDisplay

rng = np.random.RandomState(0)
group = np.repeat(np.arange(12), 50)
X = rng.normal(size=(600, 5))
X[:, 0] += 8 * group

# %%
# Twelve groups lie along a line in five dimensions; the colour says which.

choices = [{"init": "random"}, {"init": "pca"}, {"init": "pca", "perplexity": 120}]
fig, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
for ax, choice in zip(axes, choices, strict=True):
    embedding = ICONEmbedding(random_state=0, **choice).fit(X)
    EmbeddingDisplay.from_embedding(embedding.embedding_, values=group, ax=ax)
    ax.set_title(", ".join(f"{name}={value!r}" for name, value in choice.items()))
plt.show()
