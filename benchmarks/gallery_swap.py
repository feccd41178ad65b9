"""scikit-learn's gallery examples with one class changed for ours: what comes out, and at what CPU time.

    pip download --no-binary scikit-learn --no-deps scikit-learn==1.9.1 && tar xf scikit_learn-1.9.1.tar.gz
    python benchmarks/gallery_swap.py scikit_learn-1.9.1/examples [name ...]

Each example runs twice in a process of its own, as it is and with the class replaced before it is imported. Figures are
saved beside each other in `--figures`. An example fails where ours raises and theirs does not.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PEERS = {
    "TSNE": ("sklearn.manifold", "from sklearn_icon import ICONEmbedding as TSNE"),
    "KMeans": ("sklearn.cluster", "from sklearn_icon import ICONClustering as KMeans"),
    "SpectralClustering": (
        "sklearn.cluster",
        "from sklearn_icon import methods; SpectralClustering = methods.get('spectral').make_estimator",
    ),
    "LogisticRegression": ("sklearn.linear_model", "from sklearn_icon import ICONClassifier as LogisticRegression"),
    "CCA": ("sklearn.cross_decomposition", "from sklearn_icon import ICONCrossModal as CCA"),
}
EXAMPLES = {
    "manifold/plot_t_sne_perplexity": "TSNE",
    "manifold/plot_compare_methods": "TSNE",
    "manifold/plot_swissroll": "TSNE",
    "manifold/plot_manifold_sphere": "TSNE",
    "manifold/plot_lle_digits": "TSNE",
    "neighbors/approximate_nearest_neighbors": "TSNE",
    "cluster/plot_kmeans_assumptions": "KMeans",
    "cluster/plot_kmeans_digits": "KMeans",
    "cluster/plot_kmeans_silhouette_analysis": "KMeans",
    "cluster/plot_mini_batch_kmeans": "KMeans",
    "cluster/plot_bisect_kmeans": "KMeans",
    "text/plot_document_clustering": "KMeans",
    "cluster/plot_cluster_comparison": "SpectralClustering",
    "linear_model/plot_logistic_multinomial": "LogisticRegression",
    "linear_model/plot_logistic_l1_l2_sparsity": "LogisticRegression",
    "linear_model/plot_logistic_path": "LogisticRegression",
    "feature_selection/plot_rfe_with_cross_validation": "LogisticRegression",
    "feature_selection/plot_rfe_digits": "LogisticRegression",
    "model_selection/plot_likelihood_ratios": "LogisticRegression",
    "frozen/plot_frozen_examples": "LogisticRegression",
    "classification/plot_classification_probability": "LogisticRegression",
    "calibration/plot_compare_calibration": "LogisticRegression",
    "ensemble/plot_voting_decision_regions": "LogisticRegression",
    "compose/plot_digits_pipe": "LogisticRegression",
    "compose/plot_column_transformer_mixed_types": "LogisticRegression",
    "neural_networks/plot_rbm_logistic_classification": "LogisticRegression",
    "ensemble/plot_feature_transformation": "LogisticRegression",
    "calibration/plot_calibration_curve": "LogisticRegression",
    "model_selection/plot_roc": "LogisticRegression",
    "model_selection/plot_grid_search_refit_callable": "LogisticRegression",
    "model_selection/plot_confusion_matrix": "LogisticRegression",
    "cross_decomposition/plot_compare_cross_decomposition": "CCA",
    "miscellaneous/plot_multilabel": "CCA",
}
AFTER = """
import time as _time, matplotlib.pyplot as _plt
print("CPU", _time.process_time() - _start)
for _number in _plt.get_fignums():
    _plt.figure(_number).savefig(f"{_figures}-{_number}.png", dpi=60)
"""


def swapped(source, peer):
    """The source with the peer's name bound to our class, right where it is imported."""
    module, ours = PEERS[peer]
    step = re.compile(rf"(?<![\w.]){peer.lower()}(?=__|[\"'])")  # of a pipeline, by its name
    source = step.sub(ours.split()[3].lower(), source)
    line = re.compile(rf"^([ \t]*)from {re.escape(module)} import (\([^)]*\)|[^\n]*)", re.MULTILINE)
    found = [match for match in line.finditer(source) if re.search(rf"\b{peer}\b", match[2])]
    if found:
        for match in reversed(found):
            source = source[: match.end()] + f"\n{match[1]}{ours}" + source[match.end() :]
        return source
    alias = module.split(".")[-1]
    return ours + "\n" + re.sub(rf"\b{alias}\.{peer}\b", peer, source)


def run(source, figures, folder, timeout):
    """(outcome, CPU seconds) of a script."""
    script = Path(folder) / f"{figures.name}.py"
    head = f"import time as _t\n_start = _t.process_time()\n_figures = {str(figures)!r}\n"
    head += "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as _p\n_p.show = lambda *a, **k: None\n"
    futures = re.findall(r"^from __future__ [^\n]*\n", source, re.MULTILINE)
    script.write_text("".join(futures) + head + source + AFTER)
    env = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), env.get("PYTHONPATH", "")])
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", script], capture_output=True, text=True, timeout=timeout, env=env
        )
    except subprocess.TimeoutExpired:
        return f"more than {timeout} s", None
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:200], None
    return "ran", round(float(re.findall(r"^CPU ([\d.]+)$", done.stdout, re.MULTILINE)[-1]), 2)


def main():
    """Run the examples that are asked for, or all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--figures", type=Path, default=Path(tempfile.gettempdir()) / "gallery_swap")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--timeout", type=float, default=300)
    asked = parser.parse_args()
    asked.figures.mkdir(parents=True, exist_ok=True)
    table = json.loads(asked.output.read_text()) if asked.output and asked.output.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, peer in EXAMPLES.items():
            if asked.names and not any(part in name for part in asked.names):
                continue
            source = (asked.examples / f"{name}.py").read_text()
            row = {"peer": peer}
            for who, text in (("ours", swapped(source, peer)), ("theirs", source)):
                row[who], row[f"{who}_cpu"] = run(
                    text, asked.figures / f"{Path(name).name}-{who}", folder, asked.timeout
                )
            table[name] = row
            print(
                f"{name:52} {row['ours']:40} {row['ours_cpu']} s, theirs {row['theirs']} {row['theirs_cpu']}",
                flush=True,
            )
            if asked.output:
                asked.output.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
