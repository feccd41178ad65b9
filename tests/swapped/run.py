"""Run scikit-learn's own test suites with this library's classes in place of its own.

    python tests/swapped/run.py                     all suites of `suites/`
    python tests/swapped/run.py tsne -k perplexity  one of them, with options of pytest
    SWAPPED_ALL=1 python tests/swapped/run.py tsne  deselected tests as well: which fail, and which need no entry

A suite is a file of `suites/`:

    peer = "sklearn.manifold.TSNE"             whose place is taken
    class = "sklearn_icon.ICONEmbedding"       by this class, or
    method = "k-means"                         by the estimator of a method, with its parameters as defaults
    parameters = { output = "distances" }      and these in their place
    only = { assign_labels = "kmeans" }        parameters of the peer that mean something here at one value alone
    modules = ["sklearn.manifold.tests..."]    the tests
    passed = 70                                tests in which the class was made that have to pass at least
    [deselected]
    "test_of_theirs" = "the reason"            with all parameters; "test[of]" one of them; "test*" a pattern;
                                               "test_file::test" of one module

A suite fails where a test fails in which the class was made, where fewer pass than it says, and where an entry names
no test, with the version of scikit-learn that `constraints.txt` pins.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from plugin import load  # noqa: E402


def run(path, options):
    """(whether all is well, lines of a report) of a suite."""
    suite = load(path)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        paths = [str(HERE.parents[1]), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "SWAPPED_SUITE": str(path),
            "SWAPPED_REPORT": str(report),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "pytest", "-p", "plugin", "-p", "no:cacheprovider", "-q", "--tb=short"]
        command += ["-c", os.devnull, "--rootdir", folder, "--pyargs", *suite["modules"], *options]
        ran = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=3600)
        if not report.exists():
            return False, [f"{path.stem}: pytest ended with {ran.returncode}", ran.stdout[-5000:], ran.stderr[-5000:]]
        found = json.loads(report.read_text())
    made = [row for row in found["tests"] if row[3]]
    passed = sum(outcome == "passed" for _, outcome, _, _ in made)
    failed = [name for name, outcome, reason, _ in made if outcome == "failed" and reason is None]
    whole = not options and os.environ.get("SWAPPED_ALL") != "1"
    lines = [
        f"{path.stem:24} {passed:5} passed {len(failed):4} failed {len(suite.get('deselected', {})):4} entries "
        f"{found['cpu']:6.0f} s of CPU"
    ]
    lines += [f"    failed: {name}" for name in failed]
    others = [name for name, outcome, _, is_made in found["tests"] if outcome == "failed" and not is_made]
    lines += [f"    fails, though without the class: {name}" for name in others]
    lines += [f"    passes, needs no entry: {n}" for n, outcome, reason, _ in made if outcome == "passed" and reason]
    if whole:
        lines += [f"    no such test: {key}" for key in found["unused"]]
    few = whole and passed < suite["passed"]
    if few:
        lines.append(f"    only {passed} passed of {suite['passed']}")
    if failed or options:
        lines.append(ran.stdout[-20000:])
    return not (failed or few or (whole and found["unused"])), lines


def main(arguments):
    """Run the suites named first, or all; the rest of the arguments is pytest's."""
    suites = {path.stem: path for path in sorted((HERE / "suites").glob("*.toml"))}
    names = []
    while arguments and arguments[0] in suites:
        names.append(arguments.pop(0))
    well = True
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for fine, lines in pool.map(lambda name: run(suites[name], arguments), names or list(suites)):
            print("\n".join(lines), flush=True)
            well &= fine
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
