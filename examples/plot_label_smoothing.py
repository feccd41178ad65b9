"""
Calibration and label smoothing
===============================

With prototypes as keys, uniform mass in :math:`p` is label smoothing: no class is certain. Here it raises the
accuracy a little. But this network was not overconfident, so that with less confidence its log loss and calibration are
worse.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sklearn_icon import ICONClassifier
from sklearn_icon.plotting import ReliabilityDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.7, stratify=y, random_state=0)

fig, axes = plt.subplots(1, 3, figsize=(13, 5), layout="constrained")
for ax, debias in zip(axes, [0.0, 0.05, 0.3], strict=True):
    model = ICONClassifier(encoder="mlp", debias=debias, random_state=0).fit(X_train, y_train)
    proba = model.predict_proba(X_test)
    ReliabilityDisplay.from_predictions(y_test, proba, labels=model.classes_, name=f"debias={debias}", ax=ax)
    print(f"debias={debias}: accuracy {model.score(X_test, y_test):.3f}, log loss {log_loss(y_test, proba):.3f}")
plt.show()

# %%
# A network trained on smoothed labels predicts smoothed probabilities, not how often it is right. Where probabilities
# matter, leave ``debias`` at 0, or calibrate on held-out rows.
