"""Unpublished cells beside the published methods of their kind, in two dimensions: supervised maps, halves of images.

Half of the digits train, the other half judge, anew for each seed. A supervised map is judged by the ten nearest rows
of the training half, in the plane, which methods of prototypes are led through; halves of images by recall at 1 among
the held-out halves, the mean of both ways. `--search` tries more cells on another draw (seed 100), which is how that of
the table was found. `--files`: supervised maps of wine and of these sets alone, `.npz` with X and y, of which rows are
drawn for each seed; figures that the file holds are kept.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from _fresh import machine
from cross_modal import cca, halves
from sklearn.datasets import load_digits, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_icon import ICONClassifier, ICONCrossModal, ICONEmbedding, encoders, learned

_MOST = 1_800  # rows of a draw
_COSINE, _T = learned.Gaussian(metric="cosine", tau=0.1), learned.StudentT()
_LEARNED = learned.Gaussian(metric="cosine", tau="learn")


def of_classes(q, **how):
    return ICONEmbedding(2, supervisory="same_class", learned=q, encoder="mlp", normalization="conditional", **how)


def through_plane(n_inputs, n_outputs):
    return nn.Sequential(encoders.MLP().build(n_inputs, 2), nn.Linear(2, n_outputs))


def of_prototypes(q):
    return ICONClassifier(supervisory="data_label", learned=q, encoder=encoders.Module(through_plane))


def of_pairs(q, **how):
    return ICONCrossModal(2, learned=q, encoder="mlp", encoder_y="mlp", **how)


MAPS = {
    "LDA": LinearDiscriminantAnalysis(n_components=2),
    "NCA": make_pipeline(StandardScaler(), NeighborhoodComponentsAnalysis(2, max_iter=50)),
    "SupCon": of_classes(_COSINE),
    "cross-entropy": of_prototypes("dot"),
    "harmonic": of_prototypes(learned.Harmonic(4.0)),
    "t-SupCon (new)": of_classes(_T),
}
PAIRS = {
    "CLIP": of_pairs(_LEARNED),
    "CMC": of_pairs(learned.Gaussian(metric="cosine", tau=0.07)),
    "SigLIP": of_pairs(learned.PairwiseSigmoid(_LEARNED)),
    "t-CLIP (new)": of_pairs(_T),
}
MORE_MAPS = {
    "decoupled t-SupCon": of_classes(learned.Decoupled(_T)),
    "average-margin SupCon": of_classes(learned.WideGaussian()),
    "triplet SupCon": of_classes(learned.NarrowGaussian()),
    "t-SupCon, df=5": of_classes(learned.StudentT(5.0)),
    "hard-negative t-SupCon": of_classes(learned.HardNegatives(_T, hardness=0.5, prior=0.0)),
    "t-SupCon, told pair by pair": of_classes(learned.PairwiseSigmoid(_T)),
}


def judged_map(model, rows, seed):
    X, y = rows
    drawn = np.random.RandomState(seed).permutation(len(X))[:_MOST]
    X, y = (X, y) if len(X) <= _MOST else (X[drawn].astype(np.float32), y[drawn])
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    Z, Z_test = model.fit(X, y).transform(X), model.transform(X_test)
    return KNeighborsClassifier(10).fit(Z, y).score(Z_test, y_test)


def judged_pairs(model, rows, seed):
    left, right = halves(rows[0], "left/right")
    X, X_test, Y, Y_test = train_test_split(left, right, test_size=0.5, random_state=seed)
    if model == "CCA":
        return max(cca(X, Y, X_test, Y_test, [2], True).values())
    return model.fit(X, Y).score(X_test, Y_test)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="draws 0, 1, ... (default 5)")
    parser.add_argument("--search", action="store_true", help="more cells, on draws 100, 101, ...")
    parser.add_argument("--files", type=Path, nargs="+", help="other sets in place of the digits, wine first")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = load_digits(return_X_y=True)
    tasks = {
        "supervised maps, accuracy": (judged_map, MAPS | (MORE_MAPS if args.search else {})),
        "halves of images, recall at 1": (judged_pairs, {"CCA": "CCA"} | PAIRS),
    }
    tasks = {task: (*how, rows) for task, how in tasks.items()}
    found = {"machine": machine(), "data": list(rows[0].shape)}
    if args.files:
        data = {"wine": load_wine(return_X_y=True)}
        data |= {path.stem: (np.load(path)["X"], np.load(path)["y"]) for path in args.files}
        tasks = {f"supervised maps of {name}, accuracy": (judged_map, MAPS, rows) for name, rows in data.items()}
        found = json.loads(args.json.read_text()) if args.json else {}
    for task, (judge, models, rows) in tasks.items():
        found[task] = {}
        for name, model in models.items():
            start, values = time.process_time(), []
            for seed in range(args.seeds):
                seed += 100 * args.search
                if hasattr(model, "random_state"):
                    model.set_params(random_state=seed)
                values.append(float(judge(model, rows, seed)))
            seconds = (time.process_time() - start) / args.seeds
            found[task][name] = {"value": [np.mean(values), np.std(values)], "CPU s": [seconds, 0.0]}
            print(f"{task:42} {name:28} {np.mean(values):.3f} +- {np.std(values):.3f}  {seconds:.1f} s", flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
