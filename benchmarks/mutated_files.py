"""Whether changed files are refused: `python benchmarks/mutated_files.py [changes]`, 1,000 by default.

Saved estimators of each class are cut, flipped, spliced and forged (with a digest that is right). Each must be refused
with a ValueError, or load as an estimator of the library; anything else is printed and counted.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris

import sklearn_icon
from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding
from sklearn_icon._estimators import saving


def contents(folder):
    """What is saved of a fit of each class."""
    X, y = load_iris(return_X_y=True)
    fits = [
        ICONEmbedding(max_iter=30, random_state=0).fit(X),
        ICONClustering(3, random_state=0).fit(X),
        ICONClassifier().fit(X, y.astype(str)),
        ICONCrossModal(2, encoder="mlp", max_iter=2, random_state=0).fit(X, X[:, :2]),
    ]
    for number, fit in enumerate(fits):
        fit.save(folder / str(number))
        yield (folder / str(number)).read_bytes()


def changed(content, rng):
    """(what was done, the content changed)."""
    kind = rng.choice(["flip", "cut", "insert", "splice", "zero", "document", "header"])
    at, length = rng.randint(len(content)), rng.randint(1, 64)
    if kind == "flip":
        return kind, content[:at] + bytes([content[at] ^ (1 << rng.randint(8))]) + content[at + 1 :]
    if kind == "cut":
        return kind, content[:at]
    if kind == "insert":
        return kind, content[:at] + rng.bytes(length) + content[at:]
    if kind == "splice":
        return kind, content[:at] + content[at + length :]
    if kind == "zero":
        return kind, content[:at] + bytes(min(length, len(content) - at)) + content[at + length :]
    return kind, _forged(content, rng, kind)


def _forged(content, rng, kind):
    """A file with one value of its document or header changed, and the digest that belongs to it."""
    length = int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    document = json.loads(header["__metadata__"]["sklearn_icon"])
    _change(document if kind == "document" else header, rng)
    text = json.dumps(document)
    header["__metadata__"] = {"sklearn_icon": text, "sha256": saving._digest(text, [numbers])}
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + numbers


def _change(value, rng):
    """Replace one value somewhere inside."""
    others = [None, -1, 0, 2**70, 1e308, "", "os", "__class__", [], {}, [1, "C", True], {"array": [0, "C", True]}, True]
    while True:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        place = places[rng.randint(len(places))]
        if isinstance(value[place], dict | list) and value[place] and rng.rand() < 0.8:
            value = value[place]
            continue
        value[place] = others[rng.randint(len(others))]
        return


def main():
    n_changes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rng, counts, bad = np.random.RandomState(0), {}, 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        originals = list(contents(Path(folder)))
        path = Path(folder) / "changed"
        for _ in range(n_changes):
            original = originals[rng.randint(len(originals))]
            kind, content = changed(original, rng)
            if content == original:
                continue
            path.write_bytes(content)
            try:
                loaded = sklearn_icon.load(path)
                forged = kind in ("document", "header")
                outcome = "loaded" if forged and type(loaded).__name__.startswith("ICON") else "WRONGLY LOADED"
            except ValueError:
                outcome = "refused"
            except Exception as error:
                outcome = f"RAISED {type(error).__name__}"
                print(kind, outcome, error)
            bad += outcome.isupper() or outcome.startswith("RAISED")
            counts[kind, outcome] = counts.get((kind, outcome), 0) + 1
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:10} {outcome:24} {count}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
