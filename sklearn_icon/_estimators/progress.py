"""What a fit tells: lines where `verbose`, scikit-learn's callbacks from its 1.9 on, and `fit_report_` at its end."""

import html
import logging
from contextlib import contextmanager
from inspect import signature
from numbers import Integral
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from .._core.group import group
from .._core.rows import row_digests

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing, where scikit-learn has no callbacks."""

    with_callbacks = None

_LINES_EVERY = {1: 50, 2: 10}  # iterations, by `verbose`; all beyond
_TASKS = 500  # of a stage, at which callbacks are called
_COUNTED = 2_000_000  # numbers of X, and edges of p, up to which components and duplicates cost little
_FINAL = ("kl_divergence_", "loss_")  # of the fit as it is; the last loss of others is that of their last step
_REPORTED = ("device_", "method_", "chosen_", "n_iter_", "stop_reason_")
_CARRIED = ("route", "stop_reason", "neighbor_recall", "components", "duplicates", "hidden")


def say(line: str) -> None:
    """Log a line where the user set up logging for it, else print it."""
    logger = logging.getLogger("sklearn_icon")
    if logger.hasHandlers() and logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line)


class Progress:
    """That of one fit, stage by stage; each has its seconds, and its iterations where it has such."""

    def __init__(self, estimator, context):
        self.estimator, self.context, self.stages = estimator, context, []
        self.facts: dict = {}
        self.specs: Any = None  # p, q and encoder as the fit resolved them
        self.start = perf_counter()
        self.begin("preparation", None, 1)

    def begin(self, name, total, of):
        """End the stage before, and begin one of at most `total` iterations whose losses are sums `of` as many."""
        if self.stages:
            self.stages[-1].end()
        self.stages.append(_Stage(self, name, total, of))
        return self.stages[-1]

    def carry(self, report):
        """Report what a fit within this one found."""
        self.facts |= {name: report[name] for name in _CARRIED if name in report}

    def finish(self):
        """End the last stage and leave the report on the estimator."""
        self.stages[-1].end()
        seconds = perf_counter() - self.start
        fitted = vars(self.estimator)
        report: dict[str, Any] = {
            "seed": int(self.estimator.random_state) if isinstance(self.estimator.random_state, Integral) else None,
            "p": str(fitted["supervisory_"]),
            "q": str(fitted["learned_"]),
            "encoder": str(fitted["encoder_"]),
            "divergence": str(self.estimator.divergence),
        }
        report |= {name[:-1]: _plain(fitted[name]) for name in _REPORTED if name in fitted}
        final = [fitted[name] for name in _FINAL if name in fitted] + list(fitted["loss_curve_"][-1:])
        if final:
            report["loss"] = float(final[0])
        report |= self.facts | group().facts | {"stages": self._seconds(), "seconds": round(seconds, 3)}
        self.estimator.fit_report_ = report
        if self.estimator.verbose:
            n_iter = sum(count for _, count, _ in fitted.get("phases_", ())) or report["n_iter"]
            parts = [f"{n_iter} iteration{'s' if n_iter != 1 else ''}"]
            parts += [f"loss {report['loss']:.6f}"] * ("loss" in report) + [str(report.get("stop_reason", ""))]
            self.say(f"fitted in {seconds:.2f} s: {', '.join(part for part in parts if part)}")

    def _seconds(self):
        """By stage; those of one name together."""
        seconds: dict[str, float] = {}
        for stage in self.stages:
            seconds[stage.name] = round(seconds.get(stage.name, 0.0) + stage.seconds, 3)
        return seconds

    def say(self, line):
        if group().rank == 0:
            say(f"[{type(self.estimator).__name__}] {line}")


class _Stage:
    """One stage of a fit: a callable (n_iter, loss), which is True where a callback asks to stop it."""

    def __init__(self, progress, name, total, of):
        self.progress, self.name, self.of = progress, name, of
        self.estimator = progress.estimator
        self.n_iter, self.loss, self.told, self.seconds = 0, np.nan, 0, 0.0
        self.tick = max(1, -(-total // _TASKS)) if total else 1
        self.left = -(-total // self.tick) if total else np.inf
        self.context = None
        if progress.context is not None:
            most = None if total is None else self.left
            self.context = progress.context.subcontext(task_name=name, max_subtasks=most if total != 0 else 0)
            self.context.call_on_fit_task_begin(estimator=self.estimator)
        self.start = perf_counter()

    def __call__(self, n_iter, loss):
        self.n_iter, self.loss = n_iter, loss / self.of
        if self.estimator.verbose and n_iter % _LINES_EVERY.get(int(self.estimator.verbose), 1) == 0:
            self._tell()
        stop = False
        if self.context is not None and self.left and n_iter % self.tick == 0:
            self.left -= 1
            iteration = self.context.subcontext(task_name="iteration")
            iteration.call_on_fit_task_begin(estimator=self.estimator)
            stop = iteration.call_on_fit_task_end(estimator=self.estimator)
        return stop

    def _tell(self):
        seconds = perf_counter() - self.progress.start
        self.progress.say(f"{self.name}: iteration {self.n_iter}, loss {self.loss:.6f}, {seconds:.2f} s")
        self.told = self.n_iter

    def end(self):
        self.seconds = perf_counter() - self.start
        if self.estimator.verbose and self.told < self.n_iter:
            self._tell()
        elif self.estimator.verbose and not self.n_iter:
            self.progress.say(f"{self.name}: {self.seconds:.2f} s")
        if self.context is not None:
            self.context.call_on_fit_task_end(estimator=self.estimator)


def counted(p, X):
    """The recall of neighbours, the parts that the graph of p falls into, and the rows of X that repeat others.

    p is None where it is not over rows, X where it has no features. Of much data parts and rows are not counted.
    """
    facts = {} if p is None else {"neighbor_recall": float(p.recall)}
    if p is not None and p.shape[0] == p.shape[1] and p.weights.nnz <= _COUNTED:
        facts["components"] = int(connected_components(p.weights, directed=False, return_labels=False))
    if X is not None and X.ndim == 2 and np.prod(X.shape) <= _COUNTED:
        facts["duplicates"] = X.shape[0] - len(np.unique(row_digests(X)))
    return facts


def table_html(title, entries):
    """A table that opens, as those that scikit-learn shows of an estimator."""
    rows = "".join(
        f'<tr class="default"><td class="param">{html.escape(name)}</td>'
        f'<td class="value">{html.escape(str(value))}</td></tr>'
        for name, value in entries.items()
    )
    return (
        f'<div class="estimator-table"><details><summary>{html.escape(title)}</summary>'
        f'<table class="parameters-table"><tbody>{rows}</tbody></table></details></div>'
    )


def _plain(value):
    """A number, or the first of an array, or a string as Python's own."""
    return np.asarray(value).reshape(-1).tolist()[0]


def followed(fit):
    """A `fit` that tells how it goes; one within another is told of by that one."""
    run = fit if with_callbacks is None else with_callbacks(_with_context(fit))

    def outermost(self, *args, **kwargs):
        if "_progress" in vars(self):
            return fit(self, *args, **kwargs)
        if with_callbacks is not None and ("_skl_callbacks" in vars(self) or "_parent_callback_ctx" in vars(self)):
            return run(self, *args, **kwargs)
        with _progress(self, None):
            return fit(self, *args, **kwargs)

    return outermost


def _with_context(fit):
    """A `fit` whose stages and end are told to callbacks."""

    def run(self, *args, **kwargs):
        given = signature(fit).bind(self, *args, **kwargs).arguments
        weight = given.get("sample_weight")
        told = {
            "estimator": self,
            "X": given["X"],
            "y": given.get("y"),
            "metadata": None if weight is None else {"sample_weight": weight},
        }
        context = self._init_callback_context(max_subtasks=None)
        context.call_on_fit_task_begin(**told)
        with _progress(self, context):
            returned = fit(self, *args, **kwargs)
        context.call_on_fit_task_end(**told, reconstruction_attributes=dict)  # the estimator itself is fitted
        return returned

    return run


@contextmanager
def _progress(estimator, context):
    progress = estimator._progress = Progress(estimator, context)
    try:
        yield
        progress.finish()
    finally:
        vars(estimator).pop("_progress", None)
