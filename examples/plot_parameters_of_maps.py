"""
Parameters of maps
==================

What `perplexity`, `n_neighbors`, exaggeration and the degrees of freedom of a Student-t kernel do to a map of digits.
Each picture changes one of them.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklearn_icon import ICONEmbedding, learned
from sklearn_icon.plotting import EmbeddingDisplay

X, y = load_digits(return_X_y=True)
X, y = X[:600], y[:600]


def show(*choices):
    """One map for each choice of parameters."""
    axes = plt.subplots(1, len(choices), figsize=(13, 4.4), layout="constrained")[1]
    for ax, choice in zip(axes, choices, strict=True):
        embedding = ICONEmbedding(max_iter=250, random_state=0, **choice).fit(X)
        EmbeddingDisplay.from_estimator(embedding, y=y, ax=ax, legend="direct")
        ax.set_title(", ".join(f"{name}={value}" for name, value in choice.items()))
    plt.show()


# %%
# **Perplexity** is the effective number of neighbours of a row under a Gaussian p. Small values show fine structure and
# tear groups; large ones show how groups are ordered and take more time. A third of the size of the smallest group is
# often enough.

show({"perplexity": 5}, {"perplexity": 30}, {"perplexity": 120})

# %%
# **n_neighbors** is the number of rows that have any weight in p. Under `supervisory="knn"`, where all of them have the
# same weight, it takes the part of the perplexity.

show(*({"supervisory": "knn", "n_neighbors": k} for k in [5, 15, 60]))

# %%
# **Exaggeration** multiplies the attraction. The early one, on by default, lets groups form and leaves no trace in the
# loss; a late one of about 2 separates groups more clearly. With more, near groups merge.

show({"early_exaggeration": 1.0}, {"late_exaggeration": 2.0}, {"late_exaggeration": 5.0})

# %%
# **df**, the degrees of freedom: heavy tails (below 1) split loose groups into parts; light ones (10) keep groups near
# each other, as SNE does, which is the limit. `df="learn"` lets the loss choose.

show(*({"learned": learned.StudentT(df=df)} for df in [0.5, 1.0, 10.0]))
