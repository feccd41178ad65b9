"""`LossCurveDisplay` and `ReliabilityDisplay`: how a fit went, and how far probabilities can be trusted."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from .._core.types import Rows
from ..metrics import _gap, _reliability_bins
from ._style import DARK, line_options, new_axes, panels_below

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes

_LARGEST = 1e300  # number that axes are drawn for


class LossCurveDisplay:
    """The loss as the fit went on.

    Parameters
    ----------
    loss_curve : array-like of shape (n_steps,)
        Loss at each recorded step. Steps whose loss is not finite, or above 1e300, are left out.
    iterations : array-like of shape (n_steps,), default=None
        Iteration of each recorded step; None counts the steps from 1.
    phases : list of (str, int, ...), default=None
        Name and iterations of consecutive phases, which are marked where there are several.
    estimator_name : str, default=None
        Name of the curve in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D

    Examples
    --------
    >>> from sklearn_icon.plotting import LossCurveDisplay
    >>> LossCurveDisplay([3.0, 2.0, 1.5, 1.4]).plot()
    <...LossCurveDisplay object at ...>
    """

    def __init__(
        self, loss_curve: Any, *, iterations: Any = None, phases: Any = None, estimator_name: str | None = None
    ) -> None:
        self.loss_curve = loss_curve
        self.iterations = iterations
        self.phases = phases
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, iterations: Any = None, name: str | None = None, ax: Axes | None = None, **kwargs: Any
    ) -> Self:
        """Draw the ``loss_curve_`` of a fitted estimator, and its ``phases_`` where it has several.

        Parameters
        ----------
        estimator : object
            Fitted, with `loss_curve_`.
        iterations : array-like of shape (n_steps,), default=None
            Iteration of each recorded step; None takes ``loss_iterations_``, or 1, 2, ... where there are ``n_iter_``
            of them, and counts steps otherwise.
        name : str, default=None
            Name of the curve; None takes the estimator's class.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        LossCurveDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        fitted = vars(estimator)
        if "loss_curve_" not in fitted:
            raise AttributeError(f"{type(estimator).__name__} has no loss_curve_; pass the losses themselves.")
        loss_curve = column_or_1d(np.asarray(estimator.loss_curve_, dtype=float))
        phases = fitted.get("phases_") if iterations is None else None
        if iterations is None:
            iterations = fitted.get("loss_iterations_")
        if iterations is None and fitted.get("n_iter_") == len(loss_curve):
            iterations = np.arange(1, len(loss_curve) + 1)
        name = type(estimator).__name__ if name is None else name
        return cls(loss_curve, iterations=iterations, phases=phases, estimator_name=name).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        name : str, default=None
            Name of the curve; None takes `estimator_name`.
        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        LossCurveDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self.ax_, self.figure_ = new_axes(ax)
        loss = np.asarray(self.loss_curve, dtype=float)
        steps = np.arange(1, len(loss) + 1) if self.iterations is None else np.asarray(self.iterations)
        check_consistent_length(loss, steps)
        finite = np.abs(loss) < _LARGEST
        name = self.estimator_name if name is None else name
        (self.line_,) = self.ax_.plot(steps[finite], loss[finite], **line_options(kwargs, label=name))
        self.ax_.set(xlabel="Recorded step" if self.iterations is None else "Iteration", ylabel="Loss")
        self.ax_.spines[["top", "right"]].set_visible(False)
        if self.ax_.get_xscale() == "linear":
            self.ax_.xaxis.get_major_locator().set_params(integer=True)
        self._mark_phases()
        if name is not None:
            self.ax_.legend(frameon=False)
        return self

    def _mark_phases(self) -> None:
        """A dotted line between two phases, with the name of the one that begins."""
        begin = 0
        for (_, n_iter, *_), (name, *_) in pairwise(self.phases or []):
            begin += n_iter
            self.ax_.axvline(begin + 0.5, ls=":", lw=1, color=DARK)
            where = {"xy": (begin + 0.5, 1), "xycoords": ("data", "axes fraction")}
            self.ax_.annotate(name, **where, xytext=(3, -3), textcoords="offset points", va="top", size="small")


class ReliabilityDisplay:
    r"""Accuracy against confidence: a calibrated classifier is right as often as it is sure.

    Predictions are put into bins of equal width by the probability of the predicted class. Above, the
    accuracy of each bin over its mean confidence, with its gap to the diagonal; below, the fraction of the
    samples in it, which the size of its dot shows too.

    Parameters
    ----------
    prob_true : array-like of shape (n_bins,)
        Accuracy in each bin of [0, 1]; NaN where it is empty.
    prob_pred : array-like of shape (n_bins,)
        Mean confidence in each bin; NaN where it is empty.
    counts : array-like of shape (n_bins,)
        Predictions in each bin.
    ece : float
        The expected calibration error :math:`\sum_b n_b / n \, |\mathrm{acc}_b - \mathrm{conf}_b|`.
    estimator_name : str, default=None
        Name of the curve in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    ax_histogram_ : matplotlib Axes or None
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D

    See Also
    --------
    sklearn_icon.metrics.expected_calibration_error : The number in the legend.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn_icon.plotting import ReliabilityDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> display = ReliabilityDisplay.from_estimator(GaussianNB().fit(X, y), X, y)
    >>> round(display.ece, 2)
    0.03
    """

    def __init__(
        self, prob_true: Any, prob_pred: Any, counts: Any, ece: float, *, estimator_name: str | None = None
    ) -> None:
        self.prob_true = prob_true
        self.prob_pred = prob_pred
        self.counts = counts
        self.ece = ece
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Rows,
        y: Any,
        *,
        n_bins: int = 15,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the calibration of a fitted classifier's ``predict_proba(X)`` against y.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape (n_samples, n_features)
            Rows, best ones that it was not fitted to.
        y : array-like of shape (n_samples,)
            Their classes.
        n_bins : int, default=15
            Bins of equal width.
        name : str, default=None
            Name of the curve; None takes the estimator's class.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        ReliabilityDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        name = type(estimator).__name__ if name is None else name
        if not hasattr(estimator, "classes_"):
            raise AttributeError(
                f"{type(estimator).__name__} has no classes_, as classifiers have; match its columns to the classes of "
                "y, and pass them to from_predictions."
            )
        y_prob = estimator.predict_proba(X)
        return cls.from_predictions(y, y_prob, n_bins=n_bins, labels=estimator.classes_, name=name, ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_prob: Any,
        *,
        n_bins: int = 15,
        labels: Any = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the calibration of predicted probabilities.

        Parameters
        ----------
        y_true, y_prob, n_bins, labels
            As in :func:`sklearn_icon.metrics.expected_calibration_error`.
        name : str, default=None
            Name of the curve.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        ReliabilityDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_predictions")
        prob_true, prob_pred, counts = _reliability_bins(y_true, y_prob, n_bins, labels)
        ece = _gap(prob_true, prob_pred, counts)
        return cls(prob_true, prob_pred, counts, ece, estimator_name=name).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, name: str | None = None, histogram: bool = True, **kwargs: Any) -> Self:
        """Draw the reliability diagram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure. Its lowest part becomes the histogram's.
        name : str, default=None
            Name of the curve; None takes `estimator_name`.
        histogram : bool, default=True
            Whether to draw the fractions of rows. Set False to add a second curve to the axes of a first.
        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        ReliabilityDisplay
            itself
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self.ax_, self.figure_ = new_axes(ax, figsize=(5, 6))
        name = self.estimator_name if name is None else name
        label = f"ECE = {self.ece:.3f}" if name is None else f"{name} (ECE = {self.ece:.3f})"
        diagonal = "Perfectly calibrated"
        if diagonal not in self.ax_.get_legend_handles_labels()[1]:
            self.ax_.plot([0, 1], [0, 1], ":", color=DARK, label=diagonal)
        fraction = np.asarray(self.counts) / np.sum(self.counts)
        confidence, accuracy = np.asarray(self.prob_pred)[fraction > 0], np.asarray(self.prob_true)[fraction > 0]
        (self.line_,) = self.ax_.plot(confidence, accuracy, **line_options(kwargs, label=label))
        color = self.line_.get_color()
        sizes = 12 + 88 * fraction[fraction > 0] / fraction.max()
        self.ax_.scatter(confidence, accuracy, s=sizes, color=color, clip_on=False, zorder=3)
        self.ax_.vlines(confidence, confidence, accuracy, color=color, alpha=0.3, linewidth=3)
        self.ax_.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
        self.ax_.legend(frameon=False)
        self.ax_histogram_ = panels_below(self.ax_, [4, 1])[0] if histogram else None
        if self.ax_histogram_ is not None:
            edges = np.linspace(0, 1, len(fraction) + 1)
            style = {"width": np.diff(edges), "align": "edge", "color": color, "edgecolor": "white"}
            self.ax_histogram_.bar(edges[:-1], fraction, **style)
            self.ax_histogram_.set(xlabel="Confidence", ylabel="Fraction")
        elif _shows_tick_labels(self.ax_):
            self.ax_.set_xlabel("Confidence")
        return self


def _shows_tick_labels(ax: Axes) -> bool:
    """Tell whether the axes' horizontal ticks have labels, which `panels_below` takes away."""
    return ax.xaxis.get_major_ticks()[0].label1.get_visible()
