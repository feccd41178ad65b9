#!/usr/bin/env bash
# The numeric tests as other processors round, on one thread each: products and elementwise functions without this
# one's wide instructions, and products with an error of their own. What fails here alone rests on one machine's bits.
# Where a library knows no such switch, as on ARM, its pass repeats the tests as they are.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-.venv/bin/python}
files=(
    tests/core/test_{conditional,differences}.py tests/graph/test_{affinity,dense_rows}.py
    tests/objective/test_{divergences,grid,objective,sums}.py tests/learned/test_learned.py
    tests/estimators/test_embedding.py
)
long="on_digits or land_among or as_good_as_exact"

numeric_tests() {
    OMP_NUM_THREADS=1 "$python" -m pytest -q -m "not slow" -k "not ($long)" -p no:cacheprovider "$@" "${files[@]}"
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
MKL_ENABLE_INSTRUCTIONS=SSE4_2 ATEN_CPU_CAPABILITY=default OPENBLAS_CORETYPE=Nehalem \
    numeric_tests >"$logs/narrow" 2>&1 &
narrow=$!
PYTHONPATH=tests${PYTHONPATH:+:$PYTHONPATH} numeric_tests -p noisy_products >"$logs/noisy" 2>&1 &
noisy=$!
failed=0
wait "$narrow" || { echo "Without wide instructions:" && cat "$logs/narrow" && failed=1; }
wait "$noisy" || { echo "With noisy products:" && cat "$logs/noisy" && failed=1; }
tail -qn 1 "$logs/narrow" "$logs/noisy"
exit $failed
