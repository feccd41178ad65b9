"""How typed code uses the library: read by the type checker alone, under its strictest settings."""

from __future__ import annotations

import numpy as np

from sklearn_icon import (
    ICONClassifier,
    ICONClustering,
    ICONCrossModal,
    ICONEmbedding,
    divergences,
    encoders,
    learned,
    load,
    methods,
    metrics,
    nn,
    show_versions,
    supervisory,
)
from sklearn_icon.plotting import EmbeddingDisplay


def use(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    p = supervisory.Gaussian(perplexity=10)
    estimator = ICONEmbedding(3, supervisory=p, learned="student_t", encoder=encoders.MLP(), random_state=0)
    estimator = estimator.fit(X, y)
    EmbeddingDisplay.from_estimator(estimator, X)
    labels = ICONClustering("auto", metric="cosine", n_init=3).fit_predict(X)
    classifier = ICONClassifier(C=2.0, class_weight={0: 1.0, 1: 2.0}).fit(X, labels)
    classifier.save("file")
    load("file")
    pairs = ICONCrossModal(2, learned=learned.StudentT(df=2.0)).fit(X, y)
    made = methods.get("t-sne").make_estimator()
    made.fit(X)
    nn.ICONLoss(supervisory.PositivePairs(), learned="cosine")
    show_versions()
    divergences.Alpha(0.5)
    metrics.knn_recall(X, X)
    return classifier.predict_proba(X), pairs.score(X, y)
