"""Code of the documentation runs as it stands."""

import re
from pathlib import Path

import pytest

from sklearn_icon import methods

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name):
    """Each block of Python, without its indentation."""
    found = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", (DOCS / name).read_text() + "\n")
    return [re.sub(r"^   ", "", block, flags=re.M) for block in found]


@pytest.mark.parametrize("block", [pytest.param(block, id=str(i)) for i, block in enumerate(blocks("coming_from.rst"))])
def test_before_and_after(block):
    assert block.startswith("from ")
    exec(block, {})  # warnings are errors


def test_named_tests_exist():
    named = re.findall(r"tests/[\w/]+\.py", (DOCS / "limits.rst").read_text())
    assert len(named) > 8
    assert not [name for name in named if not (DOCS.parent / name).exists()]
    functions = re.findall(r"``(tests/[\w/]+\.py)``: ((?:``test_\w+``(?:, )?)+)", (DOCS / "limits.rst").read_text())
    assert len(functions) > 30
    for name, tests in functions:
        defined = re.findall(r"^def (test_\w+)", (DOCS.parent / name).read_text(), re.M)
        assert set(re.findall(r"test_\w+", tests)) <= set(defined), name


def test_every_method_has_formulas(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    from _formulas import formulas

    for name in methods.names():
        method = methods.get(name)
        found, _ = formulas(method)
        assert len(found) >= 3 - method.learned.is_limit, name
        assert any(formula.startswith(("p(", r"\tilde P", "U =")) for formula in found), name


def test_every_need_is_met_or_declined():
    rows = re.findall(r"   \* - .*\n(?:       .*\n)*     - (\w+)", (DOCS / "needs.rst").read_text())
    assert len(rows) == 47  # one is the heading
    assert set(rows[1:]) == {"Met", "In", "Declined"}
