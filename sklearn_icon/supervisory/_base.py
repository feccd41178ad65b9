"""`Supervisory`: what every spec of p answers."""

import warnings
from abc import abstractmethod

from sklearn.utils import check_consistent_length

from .._core.spec import Spec, unwrapped


class Supervisory(Spec):
    """A column of the table: how p(j|i) follows from the data."""

    needs_y = ""
    """What `y` must hold, in words; empty where it is not read."""
    keys_differ = False
    """Whether the keys are something else than the rows."""
    mixture = 0.0
    """Uniform mass on p."""
    narrow = False
    """Whether p is the limit of a kernel of no width, so that the scaled reverse KL of clusters is inertia."""
    draws_views = False
    """Whether p is one of views that are drawn of the rows, and not of the rows themselves."""

    @abstractmethod
    def conditional(self, X, y=None, *, n_jobs=None, random_state=None):
        """Compute p.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like, default=None
            What the spec reads beside X: labels, group ids, companion features, counts.
        n_jobs : int, default=None
            Threads of the neighbour search.
        random_state : int, RandomState instance or None, default=None
            Seeds the approximate neighbour search that large data use.

        Returns
        -------
        Conditional

        Raises
        ------
        ValueError
            What the spec reads is missing or unfit; the message says which and what to do.
        """

    def _require_y(self, X, y):
        """y, where there is one, with an entry for each row of X."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__}() requires y to be passed, but the target y is None: it reads {self.needs_y}."
            )
        check_consistent_length(X, y)
        return y


class Wrapper(Supervisory):
    """A spec made from another one."""

    _parameter_constraints = {"base": [Supervisory]}

    @property
    def needs_y(self):
        """What the base reads."""
        return self.base.needs_y

    @property
    def keys_differ(self):
        """As the base."""
        return self.base.keys_differ

    @property
    def mixture(self):
        """As the base."""
        return self.base.mixture

    @property
    def draws_views(self):
        """As the base."""
        return self.base.draws_views


def shrink(parameter, default, fitting, n):
    """Take a default that n rows cannot carry down to what they can, with one warning."""
    warnings.warn(
        f"the default {parameter}={default:g} is too large for {n} samples; using {parameter}={fitting:g}. "
        f"Set {parameter} explicitly to silence this.",
        stacklevel=2,
    )
    return fitting


def n_rows_of(X):
    return X.shape[0] if hasattr(X, "shape") else len(X)


def measured(spec):
    """The innermost spec, or of labels that are known in part that of the rows without one."""
    spec = unwrapped(spec)
    return spec if getattr(spec, "unlabelled", None) is None else unwrapped(spec.unlabelled)
