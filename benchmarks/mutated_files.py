"""Whether changed files are refused: `python benchmarks/mutated_files.py --json benchmarks/results/mutated_files.json`.

Saved estimators of each class are cut, flipped, spliced and forged (with a digest that is right), `--n` times where
something changed. Each must be refused with a ValueError, or be equal: all that the fit learned is the same and so is,
to the bit, what it computes of rows. "other parameters" is equal in this way with another valid value of a parameter,
which a digest cannot tell from a file that was saved so. Anything else is printed and counted as bad.
"""

import argparse
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


def outputs(model, X):
    """What a fitted model computes of rows."""
    names = [name for name in ("predict_proba", "predict", "transform") if hasattr(model, name)]
    return [getattr(model, name)(X) for name in names]


def digest_of(value):
    """That of plain data, arrays and specs."""
    arrays = []
    text = json.dumps(saving.encoded(value, arrays, "value"), sort_keys=True)
    return text, [array.tobytes() for array in arrays]


def learned_of(model):
    """What the fit learned."""
    parameters = model.get_params(deep=False)
    return {name: digest_of(value) for name, value in vars(model).items() if name not in parameters}


def outcome_of(path, original, X):
    """What became of a changed file."""
    try:
        loaded = sklearn_icon.load(path)
    except ValueError:
        return "refused"
    except Exception as error:
        return f"BAD: raised {type(error).__name__}: {error}"
    if learned_of(loaded) != learned_of(original):
        different = {name for name in vars(original) if learned_of(original).get(name) != learned_of(loaded).get(name)}
        return f"BAD: other {sorted(different)}"
    try:
        same = all(map(np.array_equal, outputs(loaded, X), outputs(original, X)))
    except Exception as error:
        return f"BAD: computing raised {type(error).__name__}: {error}"
    if not same:
        return "BAD: computes something else"
    alike = digest_of(loaded.get_params(deep=False)) == digest_of(original.get_params(deep=False))
    return "equal" if alike else "other parameters"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    args = parser.parse_args()
    rng, counts, bad, kept = np.random.RandomState(args.seed), {}, [], 0
    X = load_iris().data[::7]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        originals = list(contents(Path(folder)))
        fits, path = [sklearn_icon.load(Path(folder) / str(i)) for i in range(len(originals))], Path(folder) / "changed"
        while kept < args.n:
            number = rng.randint(len(originals))
            kind, content = changed(originals[number], rng)
            if content == originals[number]:
                continue
            kept += 1
            path.write_bytes(content)
            outcome = outcome_of(path, fits[number], X)
            if outcome.startswith("BAD"):
                bad.append([kept, kind, type(fits[number]).__name__, outcome])
                print(*bad[-1], flush=True)
            key = f"{kind}: {outcome.partition(':')[0]}"
            counts[key] = counts.get(key, 0) + 1
    totals = {}
    for key, count in counts.items():
        totals[key.split(": ")[1]] = totals.get(key.split(": ")[1], 0) + count
    result = {"files": kept, "seed": args.seed, "outcomes": totals, "by kind": dict(sorted(counts.items())), "bad": bad}
    print(json.dumps(result, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
