"""
Classes that nobody has labelled
================================

Half of the rows of five digits have a label; the other five digits are among the rest. Labelled rows point at rows of
their class, all others at their neighbours, and a cluster for each known class stands beside new ones: the known ones
keep their numbers.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from sklearn_icon import ICONClustering

X, digit = load_digits(return_X_y=True)
told = (digit < 5) & (np.random.RandomState(0).uniform(size=len(X)) < 0.5)
y = np.where(told, digit, -1)

discovery = ICONClustering(10, supervisory="same_class", random_state=0).fit(X, y)
rest = ~told
print("known digits:", discovery.known_classes_, "numbers of clusters:", discovery.cluster_numbers_)
print(f"right among unlabelled rows of known digits: {(discovery.labels_ == digit)[rest & (digit < 5)].mean():.3f}")

# %%
# Unlabelled rows: the digits 0 to 4 have their numbers, each of the others has a new one.

counts = confusion_matrix(digit[rest], discovery.labels_[rest])
ConfusionMatrixDisplay(counts).plot(cmap="Blues", colorbar=False)
plt.gca().set(xlabel="cluster", ylabel="digit")
plt.show()
