"""Names of types that several rooms read."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
"""Of NumPy; what its shape and numbers are stands in words."""
ArrayOrTensor: TypeAlias = Any
"""Of a namespace, NumPy or torch, that a function is given beside it."""
Rows: TypeAlias = Any
"""Rows of X as they come: what scikit-learn takes for an array, or a sparse matrix, of which scipy gives no types."""
Metric: TypeAlias = str | Callable[..., float]
"""Between two rows, by a name that scikit-learn knows or as a function."""
Seed: TypeAlias = int | np.random.RandomState | None
"""What `sklearn.utils.check_random_state` reads."""
Jobs: TypeAlias = int | None
"""How many threads, as joblib counts them; None leaves it to whoever computes."""
