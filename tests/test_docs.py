"""Code of the documentation runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name):
    """Each block of Python, without its indentation."""
    found = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", (DOCS / name).read_text() + "\n")
    return [re.sub(r"^   ", "", block, flags=re.M) for block in found]


@pytest.mark.parametrize("block", [pytest.param(block, id=str(i)) for i, block in enumerate(blocks("coming_from.rst"))])
def test_before_and_after(block):
    assert block.startswith("from ")
    subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, cwd=DOCS.parent)


def test_named_tests_exist():
    named = re.findall(r"tests/\w+\.py", (DOCS / "limits.rst").read_text())
    assert len(named) > 8
    assert not [name for name in named if not (DOCS.parent / name).exists()]
