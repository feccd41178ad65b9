"""
A map of Fashion-MNIST
======================

Ten thousand pictures of clothes on one map, first coloured by the kind of clothes, then with the pictures themselves.
"""

import gzip
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import fetch_openml, load_digits
from sklearn.decomposition import PCA

from sklearn_icon import ICONEmbedding
from sklearn_icon.plotting import EmbeddingDisplay

# %%
# The pictures come from Debian's package ``dataset-fashion-mnist`` where it is installed, else from OpenML. Without a
# network the digits that scikit-learn brings stand in for them.

FOLDER = Path("/usr/share/datasets/fashion-mnist")
KINDS = "T-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag, boot".split(", ")


def load():
    """(where they come from, images, the name of each image's class)."""
    try:
        if FOLDER.exists():
            images, labels = (
                np.frombuffer(gzip.decompress((FOLDER / f"t10k-{part}.gz").read_bytes()), np.uint8)[skipped:]
                for part, skipped in [("images-idx3-ubyte", 16), ("labels-idx1-ubyte", 8)]
            )
            return f"Fashion-MNIST in {FOLDER}", images.reshape(-1, 28, 28), np.array(KINDS)[labels]
        X, labels = fetch_openml("Fashion-MNIST", version=1, return_X_y=True, as_frame=False)
        return "Fashion-MNIST from OpenML", X[-10000:].reshape(-1, 28, 28), np.array(KINDS)[labels[-10000:].astype(int)]
    except (OSError, ImportError):  # no network, or no pandas to read the file with
        digits = load_digits()
        return "the digits of scikit-learn", digits.images, digits.target.astype(str)


source, images, kind = load()
print(f"{len(images)} images: {source}")

# %%
# Fifty principal components keep what neighbours need and make their search cheaper. ``supervisory="knn"`` gives each
# image 15 neighbours of equal weight, where the default has some 90 with Gaussian weights and takes twice the time.

X = PCA(50, random_state=0).fit_transform(images.reshape(len(images), -1) / images.max()).astype(np.float32)
model = ICONEmbedding(supervisory="knn", random_state=0).fit(X)
print(f"{model.n_iter_ + 1} iterations, KL {model.kl_divergence_:.2f}")
print(f"{model.score(X):.0%} of each image's 10 nearest in X are among its 10 nearest on the map")

fig, ax = plt.subplots(figsize=(8, 7), layout="constrained")
EmbeddingDisplay.from_estimator(model, y=kind, legend="direct", s=3, ax=ax)
plt.show()

# %%
# The map saw no labels. Trousers lie apart, shoes are a group with three parts, and shirts are spread among the
# pullovers, coats and T-shirts that they resemble.
#
# The same map in pictures: each square of a grid shows the image nearest to its centre. Now one can see what varies
# inside a group, such as the length of sleeves or the height of heels.

# sphinx_gallery_thumbnail_number = 2
n_squares, side = 26, images.shape[1]
unit = (model.embedding_ - model.embedding_.min(axis=0)) / np.ptp(model.embedding_, axis=0).max() * n_squares * 0.999
square = unit.astype(int)
canvas = np.zeros((n_squares, side, n_squares, side))
for row in np.argsort(-np.linalg.norm(unit - square - 0.5, axis=1)):  # the nearest to the centre is drawn last
    canvas[n_squares - 1 - square[row, 1], :, square[row, 0]] = images[row]
fig, ax = plt.subplots(figsize=(8, 8), layout="constrained")
ax.imshow(canvas.reshape(n_squares * side, -1), cmap="gray_r")
ax.set_axis_off()
plt.show()
