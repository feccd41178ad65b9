"""
Classes that nobody has labelled
================================

Half of the rows of the digits 0 to 4 have a label; the digits 5 to 9 have none. The p of a labelled row is uniform over
its class, that of every other row over its neighbours. Known classes keep their numbers, and new clusters get others.
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
# Of the unlabelled rows, those of the digits 0 to 4 are mostly in the cluster of their number, the others in
# new clusters.

counts = confusion_matrix(digit[rest], discovery.labels_[rest])
ConfusionMatrixDisplay(counts).plot(cmap="Blues", colorbar=False)
plt.gca().set(xlabel="cluster", ylabel="digit")
plt.show()
