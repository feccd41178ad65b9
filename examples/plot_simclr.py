"""
SimCLR: contrast of views
=========================

``PositivePairs(augment)`` draws views of each image; those of one image are each other's positives. The encoder learns
what shifts and noise leave alone.
"""

import matplotlib.pyplot as plt
import numpy as np
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
# Representations hold what the views of an image have in common. A linear probe trained on 100 labels is more accurate
# on pixels than on representations, but on images that are shifted by a pixel it is less accurate.

shifted = np.roll(images, 1, axis=2)
for name, encode in [
    ("representations", simclr.transform),
    ("pixels", lambda items: items.reshape(len(items), -1) / 16),
]:
    probe = LogisticRegression(max_iter=2000).fit(encode(images[:100]), y[:100])
    scores = [probe.score(encode(items[1200:]), y[1200:]) for items in (images, shifted)]
    print(f"{name}: accuracy {scores[0]:.3f}, of shifted images {scores[1]:.3f}")

Z = simclr.transform(images[1200:])
EmbeddingDisplay(ICONEmbedding(random_state=0).fit_transform(Z), labels=y[1200:]).plot()
plt.title("a map of the representations of images that were not trained on")
plt.show()
