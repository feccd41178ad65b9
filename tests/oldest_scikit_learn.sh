#!/usr/bin/env bash
# The oldest scikit-learn that pyproject.toml allows, beside the environment's other libraries: its estimator checks of
# the defaults, pipelines and searches, metadata, pickles, and inputs of all kinds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-.venv/bin/python}
oldest=$("$python" -c 'import re; print(re.search(r"scikit-learn>=([\d.]+)", open("pyproject.toml").read())[1])')
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" "scikit-learn==$oldest.*"
export PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1
"$python" -c 'import sklearn; print("scikit-learn", sklearn.__version__)'
defaults="[map-check or [clusters-check or [softmax-check or [pairs-check"
"$python" -m pytest -q -p no:cacheprovider -k "not test_estimator_checks or $defaults" \
    tests/test_{conformance,grid_search,pickles,items,classifier_labels,softmax}.py
