"""Where other projects' names are documented: written from what is installed, so that no build needs a network."""

import zlib
from importlib import import_module
from inspect import isclass
from pathlib import Path

_SKLEARN = """base cluster compose cross_decomposition datasets decomposition feature_extraction.text linear_model
    manifold
    metrics mixture model_selection multiclass multioutput neighbors pipeline preprocessing""".split()
_PROJECTS = {  # (pages, a name's page, modules whose public names have such)
    "scikit-learn": (
        "https://scikit-learn.org/stable/",
        "modules/generated/{}.html#{}",
        ["sklearn", *(f"sklearn.{name}" for name in _SKLEARN)],
    ),
    "torch": ("https://docs.pytorch.org/docs/stable/", "generated/{}.html#{}", ["torch.nn"]),
}
_METHODS = {  # of classes, each on a page of its own
    "matplotlib": (
        "https://matplotlib.org/stable/",
        "api/_as_gen/{}.html#{}",
        [f"matplotlib.axes.Axes.{name}" for name in ("scatter", "plot", "barh", "imshow", "hist")],
    ),
}


def _entries(modules):
    """(full name, role) of the public names of modules."""
    for module in modules:
        room = import_module(module)
        for name in getattr(room, "__all__", None) or [name for name, value in vars(room).items() if isclass(value)]:
            value = vars(room).get(name)
            if callable(value):
                yield f"{module}.{name}", "class" if isclass(value) else "function"


def _write(path, project, page, entries):
    lines = [f"{name} py:{role} 1 {page.format(name, name)} -\n" for name, role in entries]
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))


def write_inventories(folder):
    """Write a file for each project; return what `intersphinx_mapping` reads."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (pages, page, names) in (_PROJECTS | _METHODS).items():
        entries = _entries(names) if project in _PROJECTS else [(name, "method") for name in names]
        path = folder / f"{project}.inv"
        _write(path, project, page, entries)
        mapping[project] = (pages, str(path))
    return mapping
