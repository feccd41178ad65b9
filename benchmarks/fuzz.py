"""Random inputs to all estimators, with all parameters and specs: NaN, hangs and foreign exceptions are counted.

    python benchmarks/fuzz.py --n 3000 --seed 0          a case a seed, in one thread
    python benchmarks/fuzz.py --n 1 --seed 1234 --show   one case again, with what it is and its traceback
    python benchmarks/fuzz.py --draw few                 few parameters that are not the default: most cases fit
    python benchmarks/fuzz.py --draw methods             the estimators of the methods' table, at their parameters

A case draws rows (shapes, precisions, layouts, extremes, duplicates, constants, sparse ones, integers), an estimator
with any of its parameters and specs, fits it, and hands it new rows. It may end in a result without NaN, or in a
ValueError or TypeError of the library's; all else, and what takes more than 30 seconds, is printed with its seed.
"""

import argparse
import signal
import time
import traceback
import warnings
from collections import Counter
from inspect import signature

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.exceptions import NotFittedError

from sklearn_icon import (
    ICONClassifier,
    ICONClustering,
    ICONCrossModal,
    ICONEmbedding,
    encoders,
    learned,
    methods,
    supervisory,
)
from sklearn_icon._core.team import threads

_SECONDS = 30
DIVERGENCES = ["kl", "reverse_kl", "jensen_shannon", "total_variation", "squared_hellinger"]


class Hang(BaseException):
    """A case took too long."""


def noisy(items):
    """A view of items."""
    import torch

    return items + 0.1 * torch.randn_like(items)


def torch_linear(n_inputs, n_outputs):
    """A module."""
    import torch

    return torch.nn.Linear(n_inputs, n_outputs)


def rows(rng, n, width, positive=False):
    """Rows of some kind, all of the same distribution."""
    X = rng.standard_normal((n, width))
    X += 3 * rng.integers(0, 3, n)[:, None]
    kind = rng.choice(
        ["plain", "plain", "copies", "constant", "columns", "scale", "offset", "outlier", "heavy", "integer"]
    )
    if kind == "copies":
        X = X[rng.integers(0, max(1, n // 4), n)]
    elif kind == "constant":
        X[:] = rng.choice([0.0, 1.0, -3e5])
    elif kind == "columns":
        X[:, ::2] = 7.0
    elif kind == "scale":
        X *= 10.0 ** rng.choice([-300, -160, -30, -8, 8, 18, 30, 150])
    elif kind == "offset":
        X += 10.0 ** rng.integers(3, 12)
    elif kind == "outlier":
        X[0, 0] = rng.choice([1e6, 1e10, 1e16, -1e30])
    elif kind == "heavy":
        X = rng.standard_cauchy((n, width))
    elif kind == "integer":
        X = rng.integers(0, 5, (n, width)).astype(float)
    X = np.abs(X) if positive else X
    with np.errstate(over="ignore"):
        X = X.astype(
            rng.choice([np.float64, np.float64, np.float32, np.int64])
            if kind in ("plain", "integer")
            else rng.choice([np.float64, np.float32])
        )
    layout = rng.choice(["C", "C", "F", "strided", "csr", "csc", "list", "frame", "masked", "object", "half"])
    if layout == "frame":
        X = pd.DataFrame(X, columns=[f"column {i}" for i in range(width)], index=rng.permutation(n))
    elif layout == "masked":
        X = np.ma.masked_array(X, mask=rng.uniform(size=X.shape) < rng.choice([0.0, 0.1]))
    elif layout in ("object", "half"):
        with np.errstate(over="ignore"):
            X = X.astype(object if layout == "object" else np.float16)
    elif layout == "F":
        X = np.asfortranarray(X)
    elif layout == "strided":
        X = np.repeat(X, 2, axis=1)[:, ::2]
    elif layout in ("csr", "csc"):
        X = (
            sparse.random_array((n, width), density=0.3, format=layout, rng=rng)
            if kind == "plain"
            else sparse.csr_array(X)
        )
    elif layout == "list":
        X = X.tolist()
    return X, f"{kind} {layout}"


def wrapped_p(rng, spec):
    """p, in a wrapper now and then."""
    wrapper = rng.integers(0, 8)
    if wrapper == 0:
        return supervisory.UniformMixture(spec, alpha=float(rng.choice([0.0, 0.2, 0.9])))
    if wrapper == 1:
        spec = supervisory.RandomWalk(spec, n_steps=int(rng.integers(1, 4)), binary=bool(rng.integers(2)))
        return wrapped_p(rng, spec) if rng.uniform() < 0.3 else spec
    return spec


def any_p(rng):
    """Some p."""
    metric = str(rng.choice(["euclidean", "cosine", "manhattan", "correlation", "chebyshev"]))
    choices = [
        lambda: None,
        lambda: supervisory.Gaussian(perplexity=float(rng.choice([2, 5, 30])), metric=metric),
        lambda: supervisory.Gaussian(sigma=float(rng.choice([0.0, 1e-3, 1.0, 1e200]))),
        lambda: supervisory.StudentT(df=float(rng.choice([0.5, 1, 30]))),
        lambda: supervisory.UniformKNN(n_neighbors=int(rng.integers(1, 20)), metric=metric),
        lambda: supervisory.SameClass(),
        lambda: supervisory.DataLabel(),
        lambda: supervisory.Identity(),
        lambda: supervisory.Counts(),
        lambda: supervisory.PositivePairs(noisy, n_views=int(rng.integers(2, 4))),
        lambda: supervisory.PropagatedLabel(),
        lambda: supervisory.Graph(),
        lambda: supervisory.CrossModalPairs(),
        lambda: str(rng.choice(sorted(supervisory.NAMES))),
        lambda: supervisory.Spectral(supervisory.Gaussian(perplexity=5), n_components=int(rng.integers(1, 4))),
    ]
    spec = choices[rng.integers(len(choices))]()
    return spec if spec is None or isinstance(spec, str) else wrapped_p(rng, spec)


def any_q(rng):
    """Some q."""
    metric = str(rng.choice(["euclidean", "cosine", "dot"]))
    choices = [
        lambda: None,
        lambda: learned.Gaussian(sigma=float(rng.choice([1e-3, 1.0, 1e3])), metric=metric),
        lambda: learned.Gaussian(metric="cosine", tau="learn"),
        lambda: learned.StudentT(df=float(rng.choice([0.1, 1, 50]))),
        lambda: learned.StudentT(df="learn"),
        lambda: learned.Harmonic(),
        lambda: learned.WideGaussian(),
        lambda: learned.NarrowGaussian(),
        lambda: learned.SharedCluster(),
        lambda: learned.UniformMixture(learned.StudentT(), alpha=0.2),
        lambda: learned.UniformMixture(learned.SharedCluster(weights="degree"), alpha=0.2),
        lambda: str(rng.choice(sorted(learned.NAMES))),
    ]
    return choices[rng.integers(len(choices))]()


def any_encoder(rng):
    """Some encoder."""
    choices = [
        lambda: None,
        lambda: encoders.Lookup(),
        lambda: encoders.Linear(),
        lambda: encoders.Linear(orthonormal=True),
        lambda: encoders.MLP(hidden=(int(rng.integers(1, 9)),)),
        lambda: encoders.ProjectionHead(encoders.MLP(hidden=(4,)), hidden=(3,), n_outputs=2),
        lambda: encoders.MomentumKeys(encoders.MLP(hidden=(4,)), momentum=0.9),
        lambda: encoders.Module(torch_linear),
        lambda: str(rng.choice(sorted(encoders.NAMES))),
    ]
    return choices[rng.integers(len(choices))]()


def some(rng, often, **choices):
    """Some of the parameters, each at one of its values."""
    return {name: values[rng.integers(len(values))] for name, values in choices.items() if rng.uniform() < often}


def of_method(rng):
    """The estimator of a row of the methods' table, of few clusters or components."""
    estimator = methods.get(str(rng.choice(methods.names()))).make_estimator()
    given = {"random_state": int(rng.integers(1000)), "max_iter": int(rng.integers(1, 40))}
    given |= {"n_components": 2, "n_clusters": int(rng.integers(1, 5))}
    known = estimator.get_params(deep=False)
    return estimator.set_params(**{name: value for name, value in given.items() if name in known})


def any_estimator(rng, often=0.2):
    """An estimator, whose parameters and specs are not the default so often."""
    specs = {"random_state": int(rng.integers(1000))}
    for name, draw in (("supervisory", any_p), ("learned", any_q), ("encoder", any_encoder)):
        if rng.uniform() < 1.75 * often:
            specs[name] = draw(rng)
    specs |= some(
        rng,
        often,
        divergence=DIVERGENCES,
        debias=[0.0, 0.2, 0.99, 1.0],
    )
    kind = rng.integers(4)
    rates = [1e-8, 0.1, 1e3, 1e20]
    if kind == 0:
        return ICONEmbedding(
            max_iter=int(rng.integers(1, 40)),
            **specs,
            **some(
                rng,
                often,
                n_components=[1, 2, 3, 50],
                normalization=["joint", "conditional"],
                perplexity=[1, 5.5, 30, 1e4],
                n_neighbors=[1, 10, 500],
                early_exaggeration=[1.0, 12, 1e6],
                late_exaggeration=[1.0, 4],
                metric=["cosine", "manhattan", "chebyshev", "seuclidean", "mahalanobis", "minkowski", "precomputed"],
                metric_params=[{}, {"p": 3}],
                learning_rate=rates,
                batch_size=[1, 2, 16],
                init=["auto", "random", "pca", "spectral"],
                init_weight=[0.0, 1.0, 1e3],
                n_iter_without_progress=[-1, 1, 300],
                angle=[0.0, 0.5],
                method=["exact", "sampled", "interpolation"],
                min_grad_norm=[0.0, 1.0],
            ),
        )
    if kind == 1:
        return ICONClustering(
            int(rng.integers(1, 9)),
            max_iter=int(rng.integers(1, 40)),
            **specs,
            **some(
                rng,
                often,
                n_neighbors=[1, 4, 300],
                n_init=["auto", 1, 3],
                batch_size=[1, 7],
                learning_rate=rates,
                tol=[0.0, 1.0],
                init=["random", "k-means++"],
                output=["distances", "memberships"],
                metric=["cosine", "manhattan", "precomputed"],
            ),
        )
    if kind == 2:
        return ICONClassifier(
            max_iter=int(rng.integers(1, 20)),
            **specs,
            **some(
                rng,
                often,
                C=[1e-12, 1.0, 1e30],
                class_weight=["balanced"],
                early_stopping=[True],
                learning_rate=rates,
                tol=[0.0, 1e3],
                validation_fraction=[0.01, 0.5],
                n_iter_no_change=[1, 5],
                warm_start=[True],
                fit_intercept=[False],
                penalty=["l1", "l2", "elasticnet", None],
                l1_ratio=[0.0, 0.5, 1.0],
                solver=["lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"],
                dual=[True],
            ),
        )
    return ICONCrossModal(
        int(rng.choice([1, 2, 40])),
        max_iter=int(rng.integers(1, 9)),
        **specs,
        **some(
            rng,
            often,
            batch_size=[1, 2, 300],
            encoder_y=["linear", "mlp"],
            learning_rate=rates,
            tol=[0.0, 1.0],
            scale=[False],
        ),
    )


def of_y(rng, n):
    """Labels, or rows of another modality."""
    kind = rng.choice(["labels"] * 5 + ["text", "text", "rare", "rows", "none", "short"])
    labels = rng.integers(0, int(rng.integers(1, 6)), n)
    return {
        "labels": labels,
        "text": labels.astype(str),
        "rare": np.where(np.arange(n) == 0, 9, labels),
        "rows": rng.standard_normal((n, 3)),
        "none": None,
        "short": labels[:-1],
    }[kind], kind


DRAWS = {"any": any_estimator, "few": lambda rng: any_estimator(rng, 0.04), "methods": of_method}


def run(seed, show=False, draw="any"):
    """ "result", "refused" or what went wrong."""
    rng = np.random.default_rng(seed)
    n, width = int(rng.choice([1, 2, 7, 20, 50, 50, 90, 90, 200])), int(rng.choice([1, 2, 3, 8, 40]))
    estimator = DRAWS[draw](rng)
    X, what = rows(rng, n, width, positive="Counts" in repr(estimator))
    new, new_what = rows(rng, int(rng.integers(1, 9)), width)
    y, y_what = of_y(rng, n)
    if isinstance(estimator, ICONCrossModal) and rng.uniform() < 0.8:
        y, y_what = rng.standard_normal((n, 4)), "rows"
    if show:
        print(f"{estimator}\nX: {n} x {width}, {what}; new: {new_what}; y: {y_what}")
    weights = {}
    if rng.uniform() < 0.3 and "sample_weight" in signature(estimator.fit).parameters:
        weights["sample_weight"] = rng.choice([0.0, 1.0, 3.0], n) * 10.0 ** rng.choice([-300, 0, 0, 30])
    if show:
        print("weighed" if weights else "not weighed")
    stage = "fit"
    try:
        estimator.fit(X, y, **weights)
        for stage in ("transform", "predict_proba", "predict"):
            if hasattr(estimator, stage):
                out = np.asarray(getattr(estimator, stage)(new))
                if out.dtype.kind == "f" and np.isnan(out).any():
                    return f"NaN from {stage}"
        fitted = {name: value for name, value in vars(estimator).items() if name.endswith("_")}
        for name, value in fitted.items():
            if isinstance(value, np.ndarray | float) and np.asarray(value).dtype.kind == "f" and np.isnan(value).any():
                return f"NaN in {name}"
        return "result"
    except NotFittedError:
        return f"NotFittedError in {stage}"
    except (ValueError, TypeError) as error:
        if show:
            traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        if "has no finite values" in str(error):
            return f"NaN, refused, in {stage}"
        own = "sklearn_icon" in where or "sklearn/utils" in where or "sklearn/base" in where
        return "refused" if own else f"foreign {type(error).__name__} in {stage}, of {where[-50:]}: {str(error)[:120]}"
    except Hang:
        return f"hang in {stage}"
    except Exception as error:
        if show:
            traceback.print_exc()
        return f"{type(error).__name__} in {stage}: {str(error)[:120]}"


def main():
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", choices=sorted(DRAWS), default="any")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()

    def too_long(signum, frame):
        raise Hang

    signal.signal(signal.SIGPROF, too_long)
    counts = Counter()
    with threads(1):
        for seed in range(args.seed, args.seed + args.n):
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, _SECONDS)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = run(seed, args.show, args.draw)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            if found not in ("result", "refused") or args.show:
                print(f"seed {seed}: {found} ({time.process_time() - start:.1f} s of CPU)", flush=True)
            counts[found if found in ("result", "refused") else "bad"] += 1
            if (seed - args.seed + 1) % 100 == 0:
                print(seed - args.seed + 1, dict(counts), flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main()
