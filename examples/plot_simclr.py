"""
SimCLR: contrast of views
=========================

``PositivePairs(augment)`` draws views of each image; those of one image are each other's positives. The encoder learns
what shifts and noise leave alone.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sklearn_icon import ICONEmbedding, encoders, learned, supervisory
from sklearn_icon.plotting import EmbeddingDisplay

digits = load_digits()
images, y = digits.images, digits.target


def view(batch):
    """A shift by a pixel, another contrast and some noise."""
    shifts = torch.randint(-1, 2, (2,)).tolist()
    return batch.roll(shifts, (1, 2)) * (1 + 0.2 * torch.randn(len(batch), 1, 1)) + torch.randn_like(batch)


simclr = ICONEmbedding(
    32,
    supervisory=supervisory.PositivePairs(view),
    encoder=encoders.ProjectionHead(encoders.MLP((128,)), n_outputs=16),
    learned=learned.Gaussian(metric="cosine", tau=0.2),
    max_iter=600,
    random_state=0,
).fit(images[:1200])

# %%
# A linear probe on a few labels, on the representations and on the pixels.

Z, flat = simclr.transform(images), images.reshape(len(images), -1) / 16
for name, rows in [("representations", Z), ("pixels", flat)]:
    probe = LogisticRegression(max_iter=2000).fit(rows[:50], y[:50])
    print(f"{name}: accuracy with 50 labels {probe.score(rows[1200:], y[1200:]):.3f}")

EmbeddingDisplay(ICONEmbedding(random_state=0).fit_transform(Z[1200:]), labels=y[1200:]).plot()
plt.title("a map of the representations of images that were not trained on")
plt.show()
