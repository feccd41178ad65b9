"""Lines of code of each cell of the table: of its record, and of classes of p and q that no cell before it has.

Blank lines, comments and docstrings are left out; lines of the classes that others are made from, such as `Kernel`, are
nobody's. Cells stand in the order of the table, so that a class counts where it comes first.
"""

import argparse
import ast
import inspect
from pathlib import Path

from sklearn_icon import learned, methods, supervisory
from sklearn_icon.methods import _contrastive, _gaps, _published


def lines_of(node):
    """How many lines of code a piece of syntax has."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring, or a sentence below a name
        return 0
    inside = getattr(node, "body", [])
    last = inside[0].lineno - 1 if inside else node.end_lineno
    others = [each for each in getattr(node, "orelse", []) if inside]
    return max(1, last - node.lineno + 1) + sum(map(lines_of, [*inside, *others]))


def records():
    """name -> lines of the record."""
    found = {}
    for module in (_published, _contrastive, _gaps):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call):
                names = [each.value.value for each in node.keywords if each.arg == "name"]
                found |= dict.fromkeys(names, lines_of(node))
    return found


def classes():
    """name -> lines of each class of p and of q."""
    folders = (Path(package.__file__).parent for package in (learned, supervisory))
    trees = (ast.parse(path.read_text()) for folder in folders for path in folder.glob("*.py"))
    return {node.name: lines_of(node) for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def classes_of(method):
    """Names of classes of p and of q, wrappers and what they wrap."""
    for spec in (method.supervisory, method.learned):
        parts = [spec, *(value for value in spec.get_params().values() if hasattr(value, "get_params"))]
        yield from (type(part).__name__ for part in parts)


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    seen, of_records, of_classes = set(), records(), classes()
    for name in methods.names():
        new = [kind for kind in dict.fromkeys(classes_of(methods.get(name))) if kind not in seen]
        seen |= set(new)
        parts = {"record": of_records[name], **{kind: of_classes[kind] for kind in new}}
        told = ", ".join(f"{part} {lines}" for part, lines in parts.items())
        print(f"{name:30} {sum(parts.values()):4}  {told}")


if __name__ == "__main__":
    main()
