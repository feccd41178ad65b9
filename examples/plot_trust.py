"""
Which rows of a map to trust
============================

The loss is a mean over rows. The term of a row, in ``kl_per_sample_``, says how far its neighbours on the map are from
those in the data. Here the worse a row fits, the paler it is drawn.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklearn_icon import ICONEmbedding
from sklearn_icon.plotting import EmbeddingDisplay, NeighborhoodDisplay

X, y = load_digits(return_X_y=True)
X, y = X[:900], y[:900]
model = ICONEmbedding(random_state=0).fit(X)

fig, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
EmbeddingDisplay.from_estimator(model, y=y, legend="direct", ax=axes[0])
EmbeddingDisplay.from_estimator(model, y=y, uncertainty="kl_per_sample_", ax=axes[1])
axes[0].set_title("all rows alike")
axes[1].set_title("pale where they fit badly")
plt.show()

# %%
# The row that fits worst: at the left the neighbours that it should have, p, at the right those that it has, q. Lines
# lead to the most probable ones. It lies between groups, as no point of the plane is near all rows that it resembles.

worst = int(np.argmax(model.kl_per_sample_))
NeighborhoodDisplay.from_estimator(model, X, worst)
plt.show()

# %%
# ``EmbeddingDisplay.from_estimator(...).to_html("map.html", names=...)`` writes the map as a page on which the pointer
# names each row.
