"""Draw `results/losses.json`: losses and peers by data, in docs/images/losses.png.

python benchmarks/losses_picture.py
"""

import json
import re
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).parents[1]
DATA = {
    "digits": "digits",
    "fashion-mnist": "pixels",
    "fashion_effnet": "image\nfeatures",
    "debian_minilm": "text\nfeatures",
}
SYSTEMS = {
    "icon": "cross-entropy",
    "icon-smoothed": "label smoothing 0.1",
    "icon-student_t": "Student-t",
    "icon-harmonic": "harmonic",
    "icon-cosine": "cosine, learned temperature",
    "icon-mlp": "cross-entropy, MLP",
    "icon-mlp-smoothed": "label smoothing 0.1, MLP",
    "icon-mlp-student_t": "Student-t, MLP",
    "icon-mlp-harmonic": "harmonic, MLP",
    "icon-mlp-cosine": "cosine, MLP",
    "icon-supcon": "SupCon, MLP",
    "icon-t-supcon": "t-SupCon, MLP",
    "LogisticRegression": "LogisticRegression",
    "KNeighbors": "KNeighborsClassifier(10)",
    "MLP": "MLPClassifier",
    "NCA+KNeighbors": "NCA and KNeighborsClassifier(10)",
    "SVC": "SVC",
}
MEASURES = {"accuracy": 1, "log loss": -1, "calibration error": -1}  # by whether more or less is better


def means():
    """Mean over splits by (measure, system, data); NaN where a system has no such measure."""
    found = defaultdict(list)
    for key, run in json.loads((ROOT / "benchmarks/results/losses.json").read_text())["runs"].items():
        data, system = re.fullmatch(r"(\S+) n=\d+ labels=1.0 losses (\S+) \d+", key).groups()
        for measure in MEASURES:
            found[measure, system, data].append(run.get(measure, np.nan))
    return {
        measure: np.array([[np.mean(found[measure, system, data]) for data in DATA] for system in SYSTEMS])
        for measure in MEASURES
    }


def main():
    fig, axes = plt.subplots(1, 3, figsize=(12.5, 6), layout="constrained", sharey=True)
    for ax, (measure, values) in zip(axes, means().items(), strict=True):
        better = MEASURES[measure] * values
        low, high = np.nanmin(better, axis=0), np.nanmax(better, axis=0)
        ax.imshow((better - low) / (high - low), cmap="Blues", vmin=-0.1, vmax=1.9, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            best = better[row, column] == high[column]
            text = "" if np.isnan(value) else f"{value:.3f}"
            ax.text(column, row, text, ha="center", va="center", size=8, weight="bold" if best else "normal")
        ax.set_title(measure)
        ax.set_xticks(range(len(DATA)), DATA.values())
        ax.set_yticks(range(len(SYSTEMS)), SYSTEMS.values())
        ax.axhline(11.5, color="black", linewidth=1)
        ax.tick_params(length=0)
    fig.savefig(ROOT / "docs/images/losses.png", dpi=100)


if __name__ == "__main__":
    main()
