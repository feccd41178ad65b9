"""What a plain array does not hold, and rows that a metric is not defined for: one answer at fit and at new rows."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding
from sklearn_icon.supervisory import Gaussian

X = np.random.default_rng(0).normal(size=(40, 4)) + 3
y = np.arange(40) % 2
QUICK = {"max_iter": 5, "random_state": 0}
ESTIMATORS = [
    ICONEmbedding(**QUICK, perplexity=5),
    ICONClustering(2, **QUICK),
    ICONClassifier(**QUICK),
    ICONCrossModal(**QUICK),
]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
MASKED = np.ma.masked_array(X, np.arange(X.size).reshape(X.shape) % 50 == 3)
pytestmark = pytest.mark.filterwarnings("ignore:.*stopped after", "ignore:only . of n_clusters")


def targets(estimator):
    return X[:, :2] if isinstance(estimator, ICONCrossModal) else y


@each_estimator
def test_masks_and_gradients_are_refused(estimator):
    target = targets(estimator)
    with pytest.raises(ValueError, match=r"X is a masked array with 4 masked entries, .* fill them, .*SimpleImputer"):
        estimator.fit(MASKED, target)
    with pytest.raises(ValueError, match=r"X is a tensor that requires a gradient, .* pass X.detach\(\)"):
        estimator.fit(torch.tensor(X, requires_grad=True), target)
    fitted = estimator.fit(np.ma.masked_array(X), target)  # nothing is masked
    apply = fitted.transform if hasattr(fitted, "transform") else fitted.predict
    with pytest.raises(ValueError, match="X is a masked array"):
        apply(MASKED)
    with pytest.raises(ValueError, match="X is a tensor that requires"):
        apply(torch.tensor(X, requires_grad=True))


def test_masked_targets_are_refused():
    with pytest.raises(ValueError, match="y is a masked array with 1 masked entries"):
        ICONClassifier(**QUICK).fit(X, np.ma.masked_array(y, np.arange(40) == 8))
    with pytest.raises(ValueError, match="y is a masked array"):
        ICONCrossModal(**QUICK).fit(X, MASKED)
    with pytest.raises(ValueError, match="y is a masked array"):
        Gaussian(perplexity=5, source="y").conditional(X, MASKED)


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("encoder", ["lookup", "linear", "mlp"])
@pytest.mark.parametrize("metric", ["cosine", "correlation"])
@pytest.mark.parametrize("make", [ICONEmbedding, ICONClustering])
def test_rows_that_a_metric_is_not_defined_for(make, metric, encoder, container):
    if metric == "correlation" and container is sparse.csr_array:
        pytest.skip("not a metric of sparse rows")
    more = {"perplexity": 5} if make is ICONEmbedding else {}
    estimator = make(metric=metric, encoder=encoder, **QUICK, **more)
    bad = X.copy()
    bad[7] = 0
    with pytest.raises(ValueError, match=rf"metric='{metric}' is undefined for rows of .*\[7\] \(1 in all\) of X"):
        estimator.fit(container(bad))
    estimator.fit(container(X))
    apply = estimator.transform if make is ICONEmbedding else estimator.predict
    with pytest.raises(ValueError, match=rf"metric='{metric}' is undefined for rows of .*\[7\] \(1 in all\) of X"):
        apply(container(bad))
