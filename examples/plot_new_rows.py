r"""
New rows on a map
=================

``transform`` places a new row with the training embedding fixed: it starts at the mean of its neighbours' coordinates
and descends its own divergence,

.. math:: D\big(p(\cdot \mid x) \,\|\, q(\cdot \mid z)\big),

by itself, so that its coordinates do not depend on the rows it came with.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from sklearn_icon import ICONEmbedding
from sklearn_icon.plotting import EmbeddingDisplay

X, y = load_digits(return_X_y=True)
old, new = slice(0, 1000), slice(1000, 1300)
embedding = ICONEmbedding(random_state=0).fit(X[old])
Z = embedding.transform(X[new])
alone = embedding.transform(X[1000:1001])
print("the first new row, alone and among others:", np.array_equal(alone[0], Z[0]))

# %%
# Neighbours on the map tell the digit of a new row nearly as well as they do among the old rows.

knn = KNeighborsClassifier(10).fit(embedding.embedding_, y[old])
print(f"accuracy by ten neighbours on the map: {knn.score(Z, y[new]):.3f}")

fig, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
EmbeddingDisplay(embedding.embedding_, labels=y[old]).plot(ax=axes[0])
EmbeddingDisplay(Z, labels=y[new]).plot(ax=axes[1])
for ax, title in zip(axes, ["1,000 rows of the fit", "300 new rows"], strict=True):
    ax.set_title(title)
plt.show()
