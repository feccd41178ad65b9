"""
A grid search over the table
============================

The parts of the loss are parameters, so cross-validation may choose among methods: here p and q of a map, by how well
ten neighbours on it tell the class of held-out rows.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sklearn_icon import ICONEmbedding, learned, supervisory

X, y = load_iris(return_X_y=True)
pipe = make_pipeline(ICONEmbedding(max_iter=150, random_state=0), KNeighborsClassifier(10))
of_p = {"Gaussian": supervisory.Gaussian(perplexity=15), "15 neighbours": supervisory.UniformKNN(15)}
of_q = {"Gaussian": learned.Gaussian(), "df = 5": learned.StudentT(df=5), "df = 1": learned.StudentT()}
grid = {"iconembedding__supervisory": list(of_p.values()), "iconembedding__learned": list(of_q.values())}
search = GridSearchCV(pipe, grid, cv=3).fit(X, y)

# %%
# A cell of the table in each square, with its accuracy.

scores = np.reshape(search.cv_results_["mean_test_score"], (len(of_q), len(of_p)))
fig, ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
ax.imshow(scores, cmap="Blues", vmin=scores.min() - 0.01, vmax=scores.max() + 0.02, aspect="auto")
for (row, column), score in np.ndenumerate(scores):
    ax.text(column, row, f"{score:.3f}", ha="center", va="center", size="large")
ax.set_xticks(range(len(of_p)), of_p)
ax.set_yticks(range(len(of_q)), of_q)
ax.set(xlabel="p", ylabel="q", title="accuracy of held-out rows")
plt.show()
