"""Images for benchmarks: Fashion-MNIST from a folder, from OpenML, or the bundled digits; and more of them, made."""

import gzip
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml, load_digits
from sklearn.decomposition import PCA


def load_images(path=None):
    """(name, rows in [0, 1], labels): a folder of idx files or an npz, else OpenML, else, or for "digits", digits."""
    if path is not None and Path(path).is_dir():
        parts = [[_idx(Path(path) / f"{part}-{kind}.gz") for part in ("train", "t10k")] for kind in _KINDS]
        images, labels = (np.concatenate(arrays) for arrays in parts)
        return Path(path).name, images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(int)
    if path not in (None, "digits"):
        arrays = np.load(path)
        labels = next(name for name in ("y", "section", "labels") if name in arrays)
        return Path(path).stem, arrays["X"].astype(np.float32), arrays[labels]
    try:
        if path is None:
            X, y = fetch_openml("Fashion-MNIST", return_X_y=True, as_frame=False, parser="liac-arff")
            return "Fashion-MNIST", X.astype(np.float32) / 255, y.astype(int)
    except OSError:
        print("OpenML cannot be reached; the bundled digits instead")
    X, y = load_digits(return_X_y=True)
    return "digits", X.astype(np.float32) / 16, y


_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def _idx(path):
    """The array of an idx file: two zero bytes, the type, the number of dimensions, their sizes, the numbers."""
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def more_images(X, y, n, n_components, seed=0):
    """Principal components of n images: the given ones, then copies shifted by up to two pixels and jittered."""
    rng, side = np.random.RandomState(seed), int(np.sqrt(X.shape[1]))
    pca = PCA(n_components, random_state=seed).fit(X)
    parts, labels = [pca.transform(X)], [y]
    for start in range(len(X), n, len(X)):
        kept = rng.permutation(len(X))[: n - start]
        images, shifts = X[kept].reshape(-1, side, side), rng.randint(-2, 3, size=(len(kept), 2))
        for shift in np.unique(shifts, axis=0):
            of_shift = (shifts == shift).all(axis=1)
            images[of_shift] = np.roll(images[of_shift], shift, axis=(1, 2))
        jittered = images + rng.normal(0, 0.02, size=images.shape).astype(np.float32)
        parts.append(pca.transform(jittered.reshape(len(kept), -1)))
        labels.append(y[kept])
    return np.concatenate(parts).astype(np.float32), np.concatenate(labels)
