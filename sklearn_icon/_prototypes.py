"""How a classifier is solved: representations against class prototypes, or against each other first."""

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from ._networks import SparseRows, as_tensor, build_module, encode, state_arrays
from ._objective import Objective
from ._solver import SolverResult, minimize

_BATCH_ROWS = 256
_NETWORK_RATE = 3e-3


class Classifier(NamedTuple):
    """A solved classifier: prototypes, the encoder's state or (coef, intercept), the solver's report."""

    prototypes: np.ndarray
    state: dict
    coef: np.ndarray | None
    intercept: np.ndarray | None
    result: SolverResult


def is_dot(learned):
    """Whether q is a Gaussian of dot products, whose prototypes a last linear layer absorbs."""
    return getattr(learned, "metric", None) == "dot"


def solve_linear(p, learned, X, sample_weight, penalty, options, *, start, max_iter, tol, on_step):
    """Softmax regression: logits W x + b against fixed one-hot prototypes, by L-BFGS.

    ::

        sum_i s_i D(p_i || q_i) / sum_i s_i  +  penalty / 2 |W|^2

    Two classes share one row of W, whose sign is that of the second, as in logistic regression.

    Parameters
    ----------
    p : Conditional of shape (n, n_classes)
    learned : Learned
        A kernel of dot products.
    X : ndarray or sparse matrix of shape (n, n_features)
    sample_weight : ndarray of shape (n,)
    penalty : float
    options : dict
        Of `Objective`: divergence, dtype, device.
    start : tuple of ndarray or None
        (coef, intercept) to start from; None for zeros.
    max_iter, tol, on_step
        Of the solver.

    Returns
    -------
    Classifier
    """
    dtype, device = options["dtype"], options["device"]
    n_classes = p.shape[1]
    n_logits = 1 if n_classes == 2 else n_classes
    rows = SparseRows(X, dtype, device) if sparse.issparse(X) else as_tensor(X, dtype, device)
    temperature = learned.temperature
    coef, intercept = start if start is not None else (np.zeros((n_logits, X.shape[1])), np.zeros(n_logits))
    params = [
        torch.tensor(part * temperature, dtype=dtype, device=device, requires_grad=True) for part in (coef, intercept)
    ]
    objective = Objective(p, learned, sample_weight=sample_weight, **options)
    prototypes = torch.eye(n_classes, dtype=dtype, device=device)

    def loss():
        weight, bias = params
        logits = rows @ weight.T + bias
        if n_classes == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return objective(logits, prototypes) + penalty / 2 * weight.square().sum()

    result = minimize(loss, params, method="lbfgs", max_iter=max_iter, tol=tol, on_step=on_step)
    coef, intercept = (param.detach().cpu().numpy() / temperature for param in params)
    return Classifier(prototypes.cpu().numpy(), {}, coef, intercept, result)


def solve_prototypes(
    p, learned, encoder, X, sample_weight, penalty, options, *, n_outputs, learning_rate, max_iter, tol, seed, on_step
):
    """An encoder and class prototypes together: Adam on minibatches, or L-BFGS for a linear encoder.

    Prototypes start at the classes' mean representations; under a kernel of dot products they are one-hot and fixed.
    The penalty falls on all weight matrices; a scale-free q has none, which would only shrink them for ever.

    Parameters
    ----------
    p, learned, X, sample_weight, penalty, options, max_iter, tol, on_step
        As in `solve_linear`.
    encoder : Encoder
    n_outputs : int
        Columns of the representation.
    learning_rate : float or "auto"
    seed : int

    Returns
    -------
    Classifier
    """
    dtype, device = options["dtype"], options["device"]
    module = build_module(encoder, X, n_outputs, seed, dtype, sample_weight).to(device)
    params = [param for param in module.parameters() if param.requires_grad]
    matrices = [] if learned.scale_free else [param for param in params if param.ndim > 1]
    prototypes = torch.eye(p.shape[1], dtype=dtype, device=device)
    if not is_dot(learned):
        prototypes = _class_means(p, module, X, sample_weight, dtype, device).requires_grad_()
        params.append(prototypes)

    def value(objective, rows):
        weight_decay = sum(matrix.square().sum() for matrix in matrices)
        return objective(module(rows), prototypes) + penalty / 2 * weight_decay

    smooth = type(encoder).__name__ == "Linear"
    batches = _batches(p, learned, X, sample_weight, len(sample_weight) if smooth else _BATCH_ROWS, seed, options)

    def loss():
        objective, rows = next(batches)
        weight_decay = sum(matrix.square().sum() for matrix in matrices)
        return objective(module(rows), prototypes) + penalty / 2 * weight_decay

    if smooth:
        how = {"method": "lbfgs", "max_iter": max_iter, "tol": tol}
    else:
        steps_per_pass = -(-len(sample_weight) // _BATCH_ROWS)
        n_steps = max_iter * steps_per_pass
        rate = _NETWORK_RATE if learning_rate == "auto" else learning_rate
        how = {"method": "adam", "max_iter": n_steps, "tol": tol, "learning_rate": rate}
    result = minimize(loss, params, on_step=on_step, **how)
    if not smooth:
        result = result._replace(n_iter=-(-result.n_iter // steps_per_pass))
    module = module.cpu().eval()
    return Classifier(prototypes.detach().cpu().numpy(), state_arrays(module), None, None, result)


def _batches(p, learned, X, sample_weight, n_batch, seed, options):
    """Yield (objective, rows) of minibatches for ever; all rows at once where they fit into one."""
    n = len(sample_weight)
    if n <= n_batch:
        everything = Objective(p, learned, sample_weight=sample_weight, **options)
        rows = as_tensor(X, options["dtype"], options["device"])
        while True:
            yield everything, rows
    rng = np.random.RandomState(seed)
    while True:
        order = rng.permutation(n)
        for first in range(0, n, n_batch):
            batch = order[first : first + n_batch]
            rows = as_tensor(X[batch], options["dtype"], options["device"])
            yield Objective(p.take(batch), learned, sample_weight=sample_weight[batch], **options), rows


def _class_means(p, module, X, sample_weight, dtype, device):
    """Mean representation of each class under p, weighted."""
    share = p.weights.T.multiply(sample_weight).tocsr()
    share = share / np.maximum(np.asarray(share.sum(axis=1)).reshape(-1, 1), np.finfo(np.float64).tiny)
    means = sparse.csr_array(share) @ encode(module.cpu(), X)
    module.to(device)
    return torch.as_tensor(means, dtype=dtype, device=device)
