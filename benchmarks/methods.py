"""Every method of the table on the digits, the predicted gaps too, as `methods.get(name).make_estimator()` makes it.

Maps are judged by the accuracy of 10 neighbours on them (of contrastive ones, pairs of noisy views are fitted and the
images themselves mapped; of those with companions, left halves with right ones), clusters by Hungarian accuracy,
classifiers by accuracy on a quarter held out, and matches of left with right halves by recall at 1 there. Seconds are
of the CPU. `--missing` goes on with the methods that the file has not.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from _fresh import machine
from _tasks import run

from sklearn_icon import methods


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", help="names, separated by commas (default all)")
    parser.add_argument("-n", type=int, help="digits (default all 1,797)")
    parser.add_argument("--seeds", type=int, default=1, help="random states 0, 1, ... (default 1)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--missing", action="store_true", help="keep the file's figures, and add those that it lacks")
    args = parser.parse_args()

    warnings.simplefilter("ignore")
    figures, failed = json.loads(args.json.read_text())["figures"] if args.missing else {}, []
    asked = args.methods.split(",") if args.methods else methods.names()
    print("| method | family | | measure | value | chance | finite | seconds |\n|---|---|---|---|---|---|---|---|")
    for name in [name for name in asked if name not in figures]:
        method = methods.get(name)
        try:
            outcomes = [run(name, args.n, seed) for seed in range(args.seeds)]
        except Exception as error:  # the others still count
            failed.append(f"{name}: {type(error).__name__}: {error}")
            continue
        value, chance = (float(np.mean([getattr(o, key) for o in outcomes])) for key in ("value", "chance"))
        finite = all(outcome.finite for outcome in outcomes)
        figures[name] = {
            "measure": outcomes[0].measure,
            "value": [outcome.value for outcome in outcomes],
            "chance": [outcome.chance for outcome in outcomes],
            "finite": finite,
            "seconds": [outcome.seconds for outcome in outcomes],
        }
        kind = "" if method.published else "gap"
        measured = outcomes[0].measure, f"{value:.3f}", f"{chance:.3f}", finite
        cells = (method.title, method.family, kind, *measured, f"{np.median(figures[name]['seconds']):.1f}")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if not (finite and value > chance):
            failed.append(f"{name}: {value:.3f}, chance {chance:.3f}, finite {finite}")
        if args.json:
            args.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")
    if failed:
        raise SystemExit("not better than chance, or not run:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
