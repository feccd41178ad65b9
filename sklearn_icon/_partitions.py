"""How memberships are solved: k-means on propagated rows to start, then the objective by minibatches."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import spectral_embedding

from ._batches import BatchLoss
from ._networks import as_tensor, build_module, encode, input_scale, state_arrays
from ._rows import average_duplicates
from ._solver import SolverResult, minimize

_PROPAGATIONS = 2
_LOOKUP_START = 3.0
_LINEAR_SHARPNESS = 5.0
_PRETRAINING_STEPS = 200
_PRETRAINING_RATE = 1e-2
_EVALUATION_BATCHES = 16
_BACKGROUND_KEYS = 128


class Partition(NamedTuple):
    """A solved partition: logits of all rows, the mean loss of fixed batches, the solver's report, the state."""

    logits: np.ndarray
    loss: float
    result: SolverResult
    state: dict


def starting_labels(p, X, n_clusters, seed):
    """Labels of k-means on rows averaged over their neighbours, twice; on the graph's eigenvectors without X."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        if X is None:
            rows = spectral_embedding(
                p.weights + p.weights.T, n_components=n_clusters, random_state=seed, drop_first=False
            )
        else:
            rows = X
            for _ in range(_PROPAGATIONS):
                rows = p.weights @ rows
        return KMeans(n_clusters, n_init=1, random_state=seed).fit_predict(rows)


def solve_partition(
    p, learned, encoder, X, n_clusters, options, *, batch_size, learning_rate, max_iter, tol, seed, on_step
):
    """Memberships from one start.

    A minibatch holds rows and one positive of each, drawn from p, and these are the keys; cluster masses are those of
    the batch.

    Parameters
    ----------
    p : Conditional
    learned : Learned
        Of memberships.
    encoder : Encoder
    X : ndarray or sparse matrix or None
        Features, or None where there is only a graph.
    n_clusters : int
    options : dict
        Of `Objective`: divergence, dtype, device.
    batch_size : int
    learning_rate, tol : float
    max_iter : int
        Passes over the rows.
    seed : int
    on_step : callable (n_iter, loss) or None

    Returns
    -------
    Partition
    """
    labels = starting_labels(p, X, n_clusters, seed)
    params, logits_of, module = _model(p, encoder, X, n_clusters, labels, options, seed)
    loss = BatchLoss(p, learned, logits_of, batch_size, options | {"background_keys": _BACKGROUND_KEYS})
    steps_per_pass = max(1, -(-p.shape[0] // batch_size))
    rng = np.random.RandomState(seed)
    result = minimize(
        lambda: loss(rng),
        params,
        method="adam",
        max_iter=max_iter * steps_per_pass,
        learning_rate=learning_rate,
        tol=tol,
        on_step=on_step,
    )
    fixed = np.random.RandomState(0)
    with torch.no_grad():
        final = float(np.mean([float(loss(fixed)) for _ in range(_EVALUATION_BATCHES)]))
    if module is None:
        logits = average_duplicates(params[0].detach().cpu().numpy(), X)
        return Partition(logits, final, result, {})
    module = module.cpu().eval()
    return Partition(encode(module, X), final, result, state_arrays(module))


def _model(p, encoder, X, n_clusters, labels, options, seed):
    """(parameters, function from row numbers to logits, module or None), started at the labels."""
    dtype, device = options["dtype"], options["device"]
    if not encoder.parametric:
        start = _LOOKUP_START * np.eye(n_clusters)[labels]
        logits = torch.as_tensor(start, dtype=dtype, device=device).requires_grad_()
        return [logits], lambda rows: logits[torch.as_tensor(rows, device=device)], None
    module = build_module(encoder, X, n_clusters, seed, dtype).to(device)
    params = [param for param in module.parameters() if param.requires_grad]

    def logits_of(rows):
        return module(as_tensor(X[rows], dtype, device))

    if isinstance(module[-1], torch.nn.Linear) and len(module) == 2:
        _start_linear(module[-1], X, labels, n_clusters)
    else:
        _pretrain(logits_of, params, labels, seed, device)
    return params, logits_of, module


def _start_linear(layer, X, labels, n_clusters):
    """Logits -c |x - mu|^2 of the labels' means mu, up to what all clusters share."""
    shift, factor = input_scale(X)
    means = np.stack(
        [np.asarray(X[labels == c].mean(axis=0)).ravel() if (labels == c).any() else shift for c in range(n_clusters)]
    )
    means = (means - shift) * factor
    sharpness = _LINEAR_SHARPNESS / X.shape[1]
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(2 * sharpness * means))
        layer.bias.copy_(torch.as_tensor(-sharpness * np.square(means).sum(axis=1)))


def _pretrain(logits_of, params, labels, seed, device, batch_size=512):
    """Cross-entropy on the starting labels, for encoders that cannot be set to them."""
    rng = np.random.RandomState(seed)

    def loss():
        rows = rng.permutation(len(labels))[:batch_size]
        return torch.nn.functional.cross_entropy(
            logits_of(rows), torch.as_tensor(labels[rows], dtype=torch.int64, device=device)
        )

    minimize(loss, params, method="adam", max_iter=_PRETRAINING_STEPS, learning_rate=_PRETRAINING_RATE)
