"""What an import costs, and which way imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sklearn_icon"
HEAVY = {"torch", "numba", "pynndescent", "matplotlib", "triton"}

# A folder or module at the top imports only from floors below its own.
FLOORS = [
    {"_core"},
    {"_graph", "_optim", "learned", "encoders", "divergences", "metrics", "distributed"},
    {"supervisory", "_objective"},
    {"_training", "_clusters", "nn", "methods"},
    {"_estimators", "plotting", "testing", "__init__", "__main__"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


FILES = sorted(PACKAGE.rglob("*.py"))


def test_rooms():
    """Every folder has its floor and says what it is for; no private module stands outside."""
    folders = [path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    assert {folder.name for folder in folders} | {path.stem for path in PACKAGE.glob("*.py")} == set(FLOOR)
    for folder in folders:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert not [path.name for path in PACKAGE.glob("_*.py") if not path.stem.endswith("__")]


def package_imports(path):
    """Modules of the package that a file imports anywhere, functions included; those beside it in a folder aside."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE).with_suffix("")))
def test_imports_point_downward(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    upward = {name for name in package_imports(path) if FLOOR[name] >= FLOOR[room]}
    assert not upward


def run(code):
    """The standard output of Python code in a fresh process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "statement",
    [
        "import sklearn_icon; dir(sklearn_icon)",
        "from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding; ICONCrossModal()",
        "from sklearn_icon import supervisory, learned, encoders, methods, metrics; learned.StudentT()",
        "from sklearn_icon import plotting, divergences; divergences.Renyi(0.5)",
    ],
)
def test_nothing_heavy_before_a_fit(statement):
    loaded = run(f"import sys; {statement}; print(' '.join(sys.modules))").split()
    assert not HEAVY & set(loaded)


def test_small_data_neither_compiles_nor_draws():
    fit = "from sklearn.datasets import load_iris; ICONEmbedding(max_iter=5).fit(load_iris().data)"
    loaded = run(f"import sys; from sklearn_icon import ICONEmbedding; {fit}; print(' '.join(sys.modules))").split()
    assert not {"numba", "pynndescent", "matplotlib"} & set(loaded)


def test_unknown_attribute():
    import sklearn_icon

    with pytest.raises(AttributeError, match="no attribute 'TSNE'"):
        sklearn_icon.TSNE  # noqa: B018
    assert set(sklearn_icon.__all__) <= set(dir(sklearn_icon))
