"""The same fits again: in fresh processes, and a thousand of them in threads beside each other. One result is promised.

    python benchmarks/repeats.py --processes 50 --fits 1000 --json benchmarks/results/repeats.json

Two fits of each estimator, of `golden.py`: digests of fitted attributes and of answers for rows.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import golden
import numpy as np
from _fresh import machine

FITS = {
    "map": golden.embedding(golden.DIGITS[:300], new=golden.DIGITS[300:320], max_iter=60),
    "map by a network": golden.embedding(golden.DIGITS[:200], encoder="mlp", max_iter=5),
    "clusters": golden.clusters(golden.DIGITS[:300], 10, new=golden.DIGITS[300:320]),
    "clusters by a network": golden.clusters(golden.DIGITS[:200], 5, encoder="mlp", max_iter=12),
    "classes": golden.classes(golden.DIGITS[:300], golden.LABELS[:300], new=golden.DIGITS[300:320]),
    "classes by a network": golden.classes(golden.DIGITS[:300], golden.LABELS[:300], encoder="mlp", max_iter=5),
    "pairs": golden.pairs(golden.DIGITS[:300, :32], golden.DIGITS[:300, 32:], max_iter=5),
    "pairs by networks": golden.pairs(
        golden.DIGITS[:200, :32], golden.DIGITS[:200, 32:], encoder="mlp", encoder_y="mlp", max_iter=2
    ),
}


def digest(name):
    """Of all that the fit of a name gives."""
    parts = [np.ascontiguousarray(part).tobytes() for part in FITS[name]()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def in_processes(n):
    """{fit: how many distinct results n fresh processes give}."""
    found = {name: Counter() for name in FITS}
    for _ in range(n):
        told = subprocess.run([sys.executable, __file__, "--here"], check=True, capture_output=True, text=True).stdout
        for name, value in json.loads(told).items():
            found[name][value] += 1
    return {name: len(values) for name, values in found.items()}


def in_threads(n, workers):
    """(fits, those that differ from the fit alone), from a pool of threads."""
    alone = {name: digest(name) for name in FITS}
    names = [list(FITS)[number % len(FITS)] for number in range(n)]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(digest, names))
    return len(found), sum(value != alone[name] for name, value in zip(names, found, strict=True))


def main():
    """Run, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.here:
        print(json.dumps({name: digest(name) for name in FITS}))
        return
    fits, other = in_threads(given.fits, given.workers)
    found = {"machine": machine(), "in threads": {"workers": given.workers, "fits": fits, "other results": other}}
    found["in processes"] = {"processes": given.processes, "distinct results": in_processes(given.processes)}
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
