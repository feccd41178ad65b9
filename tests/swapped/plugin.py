"""A pytest plugin: scikit-learn's tests with a class of this library in the place of theirs.

`run.py` loads it, and names the suite, a file of `suites/`, in SWAPPED_SUITE and where to report in SWAPPED_REPORT.
Tests whose code does not reach the class are left out. Of the others those count in which it is made, or fitted where
a module made it as it was imported.
"""

import ast
import inspect
import json
import os
import re
from functools import wraps
from importlib import import_module
from pathlib import Path

import pytest
from sklearn.base import clone

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, to which pytest brings
    import tomli as tomllib


def load(suite):
    """The suite of a file as a dict."""
    return tomllib.loads(Path(suite).read_text())


def found(name):
    """The (module, attribute) of a dotted name."""
    module, _, attribute = name.rpartition(".")
    return import_module(module), attribute


def of_method(name, defaults, only):
    """The estimator of a method's row, its parameters those of the row unless they are given, p's beside its own.

    Parameters of the peer alone are taken where they have the only value that means something here.
    """
    from sklearn_icon import methods

    of_row = methods.get(name).make_estimator(**defaults)
    base, values = type(of_row), of_row.get_params(deep=False)
    p_has = of_row.supervisory.get_params(deep=False)
    more = {key: value for key, value in p_has.items() if key not in values} | only
    of_p = p_has.keys() & (more.keys() | {"n_neighbors"} if p_has.get("n_neighbors") else more.keys())
    signature = inspect.signature(base.__init__)
    parameters = [p if p.name == "self" else p.replace(default=values[p.name]) for p in signature.parameters.values()]
    parameters += [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=more[key]) for key in more]
    signature = signature.replace(parameters=parameters)

    def __init__(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        for key in more:
            setattr(self, key, bound.arguments.pop(key))
            if key in only and getattr(self, key) != only[key]:
                raise TypeError(f"{key}={getattr(self, key)!r} has no counterpart")
        base.__init__(*bound.args, **bound.kwargs)

    def _resolve_specs(self):
        given = self.supervisory
        self.supervisory = clone(given).set_params(**{key: getattr(self, key) for key in of_p})
        try:
            return base._resolve_specs(self)
        finally:
            self.supervisory = given

    __init__.__signature__ = signature  # where scikit-learn looks for the parameters
    methods_of = {"__init__": __init__, "_resolve_specs": _resolve_specs, "__module__": __name__}
    return type(base.__name__, (base,), methods_of)


def matches(key, item):
    """Whether an entry is of a test: its name, with or without parameters, or a pattern with *; "file::" may lead."""
    file, _, key = key.rpartition("::")
    if file and item.path.stem != file:
        return False
    pattern = ".*".join(map(re.escape, key.split("*")))
    return re.fullmatch(pattern, item.name) is not None or key == item.name.partition("[")[0]


def names_in(statement):
    """Names that a top-level statement reads, fixtures included, and those that it defines."""
    nodes = list(ast.walk(statement))
    read = {node.id for node in nodes if isinstance(node, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return read, {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        defined = {alias.asname or alias.name for alias in statement.names}
        return defined, defined
    return read, {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def reaching(module, name):
    """Names of a module's top level whose statements read a name, or others that do."""
    statements = [names_in(statement) for statement in ast.parse(inspect.getsource(module)).body]
    reached, before = {name}, set()
    while reached != before:
        before = set(reached)
        for read, defined in statements:
            if read & reached:
                reached |= defined
    return reached


class Swap:
    """Puts the class in the peer's place, deselects, and counts."""

    def __init__(self, suite):
        self.suite, self.made = suite, set()
        self.outcomes, self.unused, self.current = {}, [], None

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self):
        """Replace the peer, in its public module and in the one that defines it, while the tests are imported."""
        of_row = self.suite.get("method"), self.suite.get("parameters", {}), self.suite.get("only", {})
        stand_in = of_method(*of_row) if of_row[0] else getattr(*found(self.suite["class"]))
        for name in ("__init__", "fit"):
            setattr(stand_in, name, self.noted(getattr(stand_in, name)))
        globals()[stand_in.__name__] = stand_in  # where a pickle finds a class of a row
        module, attribute = found(self.suite["peer"])
        peer = getattr(module, attribute)
        places = module, import_module(peer.__module__)
        for place in places:
            setattr(place, attribute, stand_in)
        try:
            return (yield)
        finally:  # this library may use the peer itself
            for place in places:
                setattr(place, attribute, peer)

    def noted(self, method):
        @wraps(method)
        def noting(*args, **kwargs):
            self.made.add(self.current)
            return method(*args, **kwargs)

        return noting

    def pytest_collection_modifyitems(self, config, items):
        wanted, deselected = self.suite.get("deselected", {}), []
        reached = {item.module: reaching(item.module, found(self.suite["peer"])[1]) for item in items}
        every = os.environ.get("SWAPPED_ALL") == "1"
        used = {key for key in wanted for item in items if matches(key, item)}
        self.unused = sorted(set(wanted) - used)
        for item in items:
            key = next((key for key in wanted if matches(key, item)), None)
            item.user_properties.append(("reason", wanted.get(key)))
            top = item.cls.__name__ if item.cls else item.originalname
            if top not in reached[item.module] or (key is not None and not every):
                deselected.append(item)
        if deselected:
            config.hook.pytest_deselected(items=deselected)
            items[:] = [item for item in items if item not in deselected]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.current = f"{item.path.stem}::{item.name}"
        return (yield)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[self.current] = report.outcome, dict(report.user_properties).get("reason")

    def pytest_sessionfinish(self, session):
        rows = [(name, *outcome, name in self.made) for name, outcome in self.outcomes.items()]
        report = {"tests": rows, "unused": self.unused, "cpu": sum(os.times()[:4])}
        Path(os.environ["SWAPPED_REPORT"]).write_text(json.dumps(report))


def pytest_configure(config):
    """Register the swap that the environment asks for."""
    if "SWAPPED_SUITE" in os.environ:
        config.pluginmanager.register(Swap(load(os.environ["SWAPPED_SUITE"])), "swapped")
