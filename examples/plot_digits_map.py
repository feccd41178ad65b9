r"""
One loss, two kernels: maps of the digits
=========================================

Every estimator of this library minimises the same loss,

.. math:: L = \frac{1}{n} \sum_i D\big(p(\cdot \mid i) \,\|\, q(\cdot \mid i)\big),

where :math:`p(j \mid i)` says which items :math:`j` *should* be neighbours of item :math:`i`, and
:math:`q(j \mid i)` says which ones *are*, judged by the representation being learned. For a map,
:math:`p` comes from distances in the data and :math:`q` from distances in the plane. This page changes
only the kernel behind :math:`q`.
"""

# %%
# A few hundred digits are enough to see the difference.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklearn_icon import ICONEmbedding
from sklearn_icon.plotting import EmbeddingDisplay

X, y = load_digits(n_class=6, return_X_y=True)
X, y = X[:400] / 16.0, y[:400]

# %%
# A Gaussian kernel gives SNE (here with the joint normalisation of t-SNE); Student's t with one degree of
# freedom gives t-SNE itself. In high dimension a point has room for far more neighbours at one middling
# distance than the plane can offer. The heavy tail of Student's t lets such pairs lie further apart at
# little cost, which leaves gaps between groups; the Gaussian's thin tail keeps them together.

fig, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
for ax, learned in zip(axes, ["gaussian", "student_t"], strict=True):
    embedding = ICONEmbedding(learned=learned, max_iter=500, random_state=0).fit(X)
    EmbeddingDisplay.from_estimator(embedding, X, y=y, ax=ax)
    ax.set_title(f'learned="{learned}", KL = {embedding.kl_divergence_:.2f}')
plt.show()

# %%
# The two numbers in the titles measure one divergence from one :math:`p`, so they may be compared: the
# lower one belongs to the kernel that fits these neighbourhoods better in two dimensions.
