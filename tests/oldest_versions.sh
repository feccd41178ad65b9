#!/usr/bin/env bash
# The oldest libraries that pyproject.toml allows, beside the environment's PyTorch: estimator checks of the defaults,
# pipelines and searches, labels, pickles, items, an approximate search.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-.venv/bin/python}
read -ra oldest < <("$python" - <<'END'
import re
bounds = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', open("pyproject.toml").read()))
print(*(f"{name}=={bounds[name]}.*" for name in ("numpy", "scipy", "scikit-learn", "numba", "pynndescent", "pandas")))
END
)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --target "$folder" "${oldest[@]}"
export PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}" NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1
"$python" -c 'import sklearn_icon; sklearn_icon.show_versions()'
chosen="not test_estimator_checks and not test_neighbors or approximate_search"
for configuration in map clusters softmax pairs; do chosen+=" or $configuration-check"; done
"$python" -m pytest -q -n auto --dist worksteal -p no:cacheprovider -k "$chosen" \
    tests/estimators/test_{conformance,grid_search,pickles,items,classifier_labels}.py tests/graph/test_neighbors.py
