"""
Supervised contrast beside cross-entropy
========================================

Supervised contrastive learning takes p over rows, "the other rows of my class", and trains an encoder before a softmax
regression on it; cross-entropy takes p over classes and trains both at once.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_icon import ICONClassifier, ICONEmbedding, encoders
from sklearn_icon.plotting import EmbeddingDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
models = {
    "cross-entropy": ICONClassifier(encoder=encoders.MLP((128,)), random_state=0),
    "supervised contrast": ICONClassifier(supervisory="same_class", encoder=encoders.MLP((128,)), random_state=0),
}

# %%
# Maps of what the encoders make of held-out rows.

fig, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    model.fit(X_train, y_train)
    Z = ICONEmbedding(random_state=0).fit_transform(model.transform(X_test))
    EmbeddingDisplay(Z, labels=y_test).plot(ax=ax)
    ax.set_title(f"{name}: accuracy {model.score(X_test, y_test):.3f}")
plt.show()
