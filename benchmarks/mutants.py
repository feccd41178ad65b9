"""How many small faults of the objective its tests find.

    python benchmarks/mutants.py 40 --seed 0 [tests/objective/test_sums.py ...]

Each mutant is the package with one node of `sklearn_icon/_objective/` changed: a sum for a difference, a factor
dropped, a sign flipped, min for max, a bound off by one, a condition negated. It is killed where a test fails.
Survivors are printed: some change no result (a size limit, an upper bound that is not reached), the others are what
tests have yet to find. Faults are put into a copy, and tests run in a fork that has imported what they need.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOM = Path("sklearn_icon/_objective")
FILES = ("divergences", "differences", "sums", "loops", "grid", "objective", "batches_and_rows", "nn")
TESTS = [str(path.relative_to(ROOT)) for name in FILES for path in (ROOT / "tests").rglob(f"test_{name}.py")]
SKIPPED = ("__init__.py", "fused.py", "triton_loops.py")  # the last two run where triton is
PATIENCE = 600  # seconds, after which a mutant that loops is killed
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
NAMES = {"min": "max", "minimum": "maximum", "amin": "amax", "clamp_min": "clamp_max", "log": "log1p", "exp": "expm1"}
NAMES |= {other: name for name, other in NAMES.items()}


def changes(node):
    """Other nodes to stand in a node's place, each with its kind."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield "operator", ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        if isinstance(node.op, ast.Mult):
            yield "factor dropped", node.left
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", node.operand
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield "comparison", ast.Compare(node.left, [COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    if isinstance(node, ast.BoolOp):
        other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield "and/or", ast.BoolOp(other, node.values)
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield "name", ast.Attribute(node.value, NAMES[node.attr], node.ctx)
    if isinstance(node, ast.Name) and node.id in NAMES:
        yield "name", ast.Name(NAMES[node.id], node.ctx)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "off by one", ast.Constant(node.value + 1)
    if isinstance(node, ast.If):
        yield "negated", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)


class Replace(ast.NodeTransformer):
    """One node, known by where it stands, becomes another."""

    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else self.generic_visit(node)


def mutants(path):
    """(kind, line, source before and after) of each mutant of a file, from the bodies of its functions."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = {id(part): part for function in functions for line in function.body for part in ast.walk(line)}
    for node in nodes.values():
        for kind, new in changes(node):
            memo = {id(node): node}  # the node itself, in a copy of the tree
            whole = Replace(node, ast.copy_location(new, node)).visit(copy.deepcopy(tree, memo))
            before, after = (ast.unparse(part).splitlines()[0] for part in (node, new))
            yield kind, node.lineno, f"{before}  ->  {after}", ast.unparse(ast.fix_missing_locations(whole))


def passes(folder, tests):
    """Whether all tests pass in a folder's copy of the package, in a process of its own."""
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))
    return os.waitpid(child, 0)[1] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n_mutants", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="of the mutants drawn, these")
    parser.add_argument("tests", nargs="*", default=TESTS)
    options = parser.parse_args()
    files = [path for path in sorted((ROOT / ROOM).glob("*.py")) if path.name not in SKIPPED]
    every = [(path, *mutant) for path in files for mutant in mutants(path)]
    drawn = list(enumerate(random.Random(options.seed).sample(every, options.n_mutants)))
    drawn = drawn if options.only is None else [drawn[k] for k in options.only]
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sklearn_icon", "tests"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "conftest.py"):
            shutil.copy(ROOT / name, folder)
        if not passes(folder, options.tests):
            sys.exit("tests fail without a fault")
        for k, (path, kind, line, change, source) in drawn:
            place, start = Path(folder) / ROOM / path.name, time.perf_counter()
            place.write_text(source)
            survived = passes(folder, options.tests)
            shutil.copy2(path, place)
            killed += not survived
            verdict = "SURVIVED" if survived else "killed"
            seconds = time.perf_counter() - start
            print(f"{k:3} {verdict:8} {seconds:4.0f} s  {path.name}:{line}  {kind}: {change}", flush=True)
    print(f"{killed} of {len(drawn)} killed")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import numba  # noqa: F401
    import pytest
    import sklearn.manifold  # noqa: F401
    import torch._dynamo  # noqa: F401

    main()
