"""A compiled step of descent on the CPU, kept on disk between processes."""

import numpy as np

from .._core.compiled import njit


@njit(nogil=True, fastmath=True, error_model="numpy")
def momentum_step(z, gradient, velocity, gain, rate, momentum, max_step):
    """One step of descent with momentum and gains, no row further than max_step."""
    for i in range(len(z)):
        sq_norm = z.dtype.type(0)
        for d in range(z.shape[1]):
            agrees = velocity[i, d] * gradient[i, d] < 0
            gain[i, d] = (
                gain[i, d] + z.dtype.type(0.2) if agrees else max(gain[i, d] * z.dtype.type(0.8), z.dtype.type(0.01))
            )
            velocity[i, d] = momentum * velocity[i, d] - rate * gain[i, d] * gradient[i, d]
            sq_norm += velocity[i, d] * velocity[i, d]
        shorten = max_step / np.sqrt(sq_norm) if sq_norm > max_step * max_step else z.dtype.type(1)
        for d in range(z.shape[1]):
            velocity[i, d] *= shorten
            z[i, d] += velocity[i, d]
