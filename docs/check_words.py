"""What `make lint` asks of public words: docstrings that numpydoc finds whole, and the field's terms.

python docs/check_words.py
"""

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from numpydoc.validate import validate

ROOT = Path(__file__).parents[1]
MODULES = ["sklearn_icon"] + [
    f"sklearn_icon.{name}"
    for name in (
        "supervisory",
        "learned",
        "encoders",
        "divergences",
        "methods",
        "metrics",
        "plotting",
        "nn",
        "testing",
        "distributed",
    )
]
EXCEPTED = {
    "ES01": "one line may say all",
    "SA01": "a page links to others in its text",
    "SS02": "p and q are p and q",
    "SS05": "a summary may name what is returned",
    "RT02": "what is returned may have a name",
    "PR08": "a list may go on from its heading",
}
OBJECTS = {"sklearn_icon.metrics.clustering_accuracy_scorer"}  # made by scikit-learn's make_scorer
PRIVATE = {  # by what to write in its stead
    r"\bby chance\b": "at random",
    r"(?<!take )(?<!in )\bits (?:own )?places?\b": "its coordinates",
    r"\b(?:random|mean|fitted|training) places?\b": "coordinates",
    r"\bhas a place\b": "has coordinates",
    r"\b(?:become|becomes|spread|spreads) (?:its |the )?places\b": "coordinates",
    r"\b[Ss]hare of\b": "fraction of",
    r"\ba share\b": "a fraction",
    r"\bfrozen map\b": "training embedding fixed",
    r"\bfunctions? of chance\b": "random functions",
    r"\breads? beside\b": "reads in addition to",
    r"\bNumPy alone\b": "only NumPy",
    r"\b[Ee]qual rows have one place\b": "equal coordinates",
}


def public_names() -> Iterator[str]:
    """The names of every `__all__`, and the methods of the estimators."""
    for module_name in MODULES:
        module = import_module(module_name)
        for name in module.__all__:
            thing = getattr(module, name)
            if not callable(thing) or f"{module_name}.{name}" in OBJECTS:
                continue
            yield f"{module_name}.{name}"
            if name.startswith("ICON") and name != "ICONLoss":
                for method, function in inspect.getmembers(thing, inspect.isfunction):
                    if not method.startswith("_") and function.__module__.startswith("sklearn_icon"):
                        yield f"{module_name}.{name}.{method}"


def docstring_faults() -> Iterator[str]:
    """What numpydoc finds, exceptions aside; a method's example is that of its class."""
    for name in public_names():
        is_method = name.count(".") > 1 and name.split(".")[-2].startswith("ICON")
        for code, message in validate(name)["errors"]:
            if code not in EXCEPTED and not (code == "EX01" and is_method):
                yield f"{name}: {code} {message}"


def word_faults() -> Iterator[str]:
    """Lines of the documentation and the package that say something in words of our own."""
    files = [*ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "docs").glob("*.rst")]
    files += (ROOT / "examples").glob("*.py")
    files += (ROOT / "sklearn_icon").rglob("*.py")
    for path in sorted(files):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            for pattern, instead in PRIVATE.items():
                if found := re.search(pattern, line):
                    yield f"{path.relative_to(ROOT)}:{number}: {found.group()!r}; write {instead!r}"


def main() -> int:
    faults = [*docstring_faults(), *word_faults()]
    print("\n".join(faults) or "docstrings and words: nothing found")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
