"""Contrastive learning on Fashion-MNIST: SimCLR and t-SimCLR at several debias, a linear probe and neighbours judge.

60,000 images train a convolutional encoder of 79,000 weights and a projection head on two views each, without labels.
A logistic regression on its standardised representations, and the 10 nearest neighbours by cosine, then classify the
10,000 test images. `--supervised` trains the same encoder on labels, without augmentation, over as many passes: a
supervised contrast followed by the probe, and cross-entropy.

Every run is written to `--json` as soon as it ends, and one that is there already is not repeated: stop and start as
you like. `--minutes` of a run are turned into passes by timing a few steps first.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import torch
from _fresh import machine
from _images import load_images
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from torch import nn

from sklearn_icon import ICONClassifier, ICONEmbedding, encoders, learned, supervisory

N_TRAIN, N_COMPONENTS = 60_000, 128
KERNELS = {"simclr": learned.Gaussian(metric="cosine", tau=0.2), "t-simclr": learned.StudentT(df=2.0)}


def small_net(n_inputs, n_outputs):
    """Three convolutions of stride 2, means over the places that are left, a linear layer."""
    layers, channels = [], 1
    for width in (16, 48, 128):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
        channels = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_outputs)]
    return nn.Sequential(nn.Unflatten(1, (1, 28)), *layers, *head).to(memory_format=torch.channels_last)


class Augment:
    """Crops of at least `area`, mirrored half of the time, brighter or darker, noisy."""

    def __init__(self, area=0.3, brightness=0.4, noise=0.05):
        self.area, self.brightness, self.noise = area, brightness, noise

    def __call__(self, images):
        n, side = len(images), images.shape[1]
        area = self.area + (1 - self.area) * torch.rand(n, 1)
        aspect = torch.exp((torch.rand(n, 1) - 0.5) * 0.5)
        width, height = ((area * ratio).sqrt().clamp(max=1) for ratio in (aspect, 1 / aspect))
        across, down = ((1 - size) * (2 * torch.rand(n, 1) - 1) for size in (width, height))
        mirror = torch.where(torch.rand(n, 1) < 0.5, -1.0, 1.0)
        line = (torch.arange(side) + 0.5) * (2 / side) - 1
        columns = (across + mirror * width * line)[:, None, :].expand(n, side, side)
        rows = (down + height * line)[:, :, None].expand(n, side, side)
        grid = torch.stack([columns, rows], dim=3).to(images)
        views = nn.functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]
        factor = 1 + self.brightness * (2 * torch.rand(n, 1, 1) - 1)
        return views * factor.to(images) + self.noise * torch.randn_like(views)


def estimator(method, debias, args, max_iter, seed, p=None):
    """The embedding of a run."""
    return ICONEmbedding(
        N_COMPONENTS,
        supervisory=supervisory.PositivePairs(Augment(args.area, args.brightness, args.noise)) if p is None else p,
        learned=KERNELS[method],
        encoder=encoders.ProjectionHead(encoders.Module(small_net), hidden=(256,), n_outputs=64),
        debias=debias,
        max_iter=max_iter,
        batch_size=args.batch,
        learning_rate=args.rate if args.rate else "auto",
        device=args.device,
        n_jobs=args.jobs,
        random_state=seed,
        verbose=args.verbose,
    )


def judged(Z, Z_test, y, y_test):
    """Accuracies of a linear probe and of 10 neighbours."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        linear = probe.fit(Z, y).score(Z_test, y_test)
    near = KNeighborsClassifier(10).fit(normalize(Z), y).score(normalize(Z_test), y_test)
    return {"probe": float(linear), "neighbours": float(near)}


def steps_of(args, make, X, y=None):
    """Steps of a run: of the passes asked for, or of as many as fit into its minutes."""
    per_pass = -(-len(X) // args.batch)
    if args.epochs:
        return args.epochs * per_pass
    few = X[: 20 * args.batch], None if y is None else y[: 20 * args.batch]
    make(2).fit(*few)
    start = time.perf_counter()
    make(40).fit(*few)
    return max(per_pass, int(args.minutes * 60 / ((time.perf_counter() - start) / 48)))  # the loss at the end: 8 steps


def contrast(method, debias, args, data, seed):
    """One run without labels."""
    X, X_test, y, y_test = data
    max_iter = steps_of(args, lambda steps: estimator(method, debias, args, steps, seed), X)
    start = time.perf_counter()
    model = estimator(method, debias, args, max_iter, seed).fit(X)
    seconds = time.perf_counter() - start
    report = judged(model.embedding_, model.transform(X_test), y, y_test)
    return report | {"loss": model.kl_divergence_, "steps": max_iter, "seconds": seconds}


def supervised(args, data, seed):
    """(supervised contrast and probe, cross-entropy) of the same encoder, over as many passes."""
    X, X_test, y, y_test = data
    passes = args.epochs or 5
    start = time.perf_counter()
    steps = passes * -(-len(X) // args.batch)
    model = estimator("simclr", 0.0, args, steps, seed, p=supervisory.SameClass()).fit(X, y)
    seconds = time.perf_counter() - start
    contrasted = judged(model.embedding_, model.transform(X_test), y, y_test) | {"passes": passes, "seconds": seconds}
    start = time.perf_counter()
    model = ICONClassifier(
        encoder=encoders.Module(small_net), C=1e6, max_iter=passes, tol=0, n_jobs=args.jobs, random_state=seed
    ).fit(X, y)
    seconds = time.perf_counter() - start
    entropy = {"accuracy": model.score(X_test, y_test), "passes": passes, "seconds": seconds}
    return {"supcon": contrasted, "cross-entropy": entropy}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of Fashion-MNIST's idx files; else OpenML")
    parser.add_argument("--methods", default="simclr,t-simclr", help=f"of {', '.join(KERNELS)}")
    parser.add_argument("--debias", default="0,0.2,0.4,0.6", help="uniform masses in p")
    parser.add_argument("--tau", type=float, default=0.2, help="temperature of simclr's cosines")
    parser.add_argument("--seeds", type=int, default=3, help="random states 0, 1, ... (default 3)")
    parser.add_argument("--epochs", type=int, help="passes over the images of a run")
    parser.add_argument("--minutes", type=float, default=10.0, help="of a run, without --epochs (default 10)")
    parser.add_argument("--batch", type=int, default=256, help="images of a batch (default 256)")
    parser.add_argument("--rate", type=float, help="of Adam (default the estimator's own)")
    parser.add_argument("--area", type=float, default=0.3, help="least share of an image in a crop")
    parser.add_argument("--brightness", type=float, default=0.4, help="most change of brightness")
    parser.add_argument("--noise", type=float, default=0.05, help="standard deviation of noise")
    parser.add_argument("--supervised", action="store_true", help="supervised contrast and cross-entropy instead")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--verbose", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("contrastive.json"))
    args = parser.parse_args()
    KERNELS["simclr"].set_params(tau=args.tau)

    name, X, y = load_images(args.data)
    X = X.reshape(-1, 28, 28)
    data = X[:N_TRAIN], X[N_TRAIN:], y[:N_TRAIN], y[N_TRAIN:]
    runs = json.loads(args.json.read_text())["runs"] if args.json.exists() else {}

    def record(key, run):
        if key not in runs:
            runs[key] = run()
            report = {"machine": machine(), "data": [name, *X.shape], "runs": runs}
            args.json.write_text(json.dumps(report, indent=1) + "\n")
        print(f"{key}: {json.dumps(runs[key])}", flush=True)

    asked = ("epochs", "minutes", "batch", "rate", "area", "brightness", "noise")
    how = " ".join(f"{option}={getattr(args, option)}" for option in asked)
    for seed in range(args.seeds):
        if args.supervised:
            record(f"supervised seed={seed} {how}", lambda seed=seed: supervised(args, data, seed))
            continue
        for debias in map(float, args.debias.split(",")):
            for method in args.methods.split(","):
                tau = f" tau={args.tau}" if method == "simclr" else ""
                key = f"{method} debias={debias} seed={seed}{tau} {how}"
                record(key, lambda run=(method, debias, args, data, seed): contrast(*run))


if __name__ == "__main__":
    main()
