#!/usr/bin/env bash
# A few hundred tests with the oldest scikit-learn that pyproject.toml allows, beside the libraries of the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-.venv/bin/python}
oldest=$("$python" -c 'import re; print(re.search(r"scikit-learn>=([\d.]+)", open("pyproject.toml").read())[1])')
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" "scikit-learn==$oldest.*"
export PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}"
"$python" -c 'import sklearn; print("scikit-learn", sklearn.__version__)'
"$python" -m pytest -q -p no:cacheprovider -k "not conformance or perplexity=3,random_state=0 or ICONCrossModal" \
    tests/test_{grid_search,pickles,classifier_labels,companion,items,supervisory}.py
