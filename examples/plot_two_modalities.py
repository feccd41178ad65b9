"""
Two modalities: halves of digits that find each other
=====================================================

CLIP trains two encoders so that the row of one modality finds its partner among those of the other. The upper and the
lower half of an image stand for an image and its caption here.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import pairwise_distances_argmin

from sklearn_icon import ICONCrossModal

images = load_digits().images
upper, lower = images[:, :4].reshape(len(images), -1), images[:, 4:].reshape(len(images), -1)
pairs = ICONCrossModal(max_iter=10, random_state=0).fit(upper[:1500], lower[:1500])
print(f"recall at 1 of 297 held-out pairs: {pairs.score(upper[1500:], lower[1500:]):.3f}")

# %%
# Upper halves that were not trained on, each completed by the lower half that it finds among the others.

Z_upper, Z_lower = pairs.transform(upper[1500:], lower[1500:])
found = pairwise_distances_argmin(Z_upper, Z_lower)
fig, axes = plt.subplots(2, 10, figsize=(12, 3), layout="constrained")
for column in range(10):
    for row, partner in [(0, column), (1, found[column])]:
        image = images[1500 + column].copy()
        image[4:] = images[1500 + partner][4:]
        axes[row, column].imshow(image, cmap="Greys")
        axes[row, column].set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("true")
axes[1, 0].set_ylabel("found")
plt.show()
