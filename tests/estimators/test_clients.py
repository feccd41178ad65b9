"""A fitted object that many threads ask at once gives each what it gives alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding

CLIENTS, CALLS = 20, 3


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (ICONEmbedding(perplexity=8, max_iter=30, random_state=0), "transform"),
        (ICONClustering(3, random_state=0), "predict_proba"),
        (ICONClassifier(encoder="mlp", max_iter=2, random_state=0), "predict_proba"),
        (ICONCrossModal(2, max_iter=10, random_state=0), "transform"),
    ],
    ids=["map", "clusters", "classifier", "pairs"],
)
def test_twenty_clients(model, method):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((120, 5)), np.arange(120) % 3
    model.fit(X, X[:, :3] if isinstance(model, ICONCrossModal) else y)
    batches = [rng.standard_normal((n, 5)) for n in (1, 7, 30)]
    alone = [getattr(model, method)(batch) for batch in batches]

    def client(number):
        return [getattr(model, method)(batches[(number + call) % 3]) for call in range(CALLS)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(client, range(CLIENTS)))
    for number, of_client in enumerate(answers):
        for call, answer in enumerate(of_client):
            np.testing.assert_array_equal(answer, alone[(number + call) % 3])
