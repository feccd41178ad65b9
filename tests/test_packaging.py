"""What is shipped says the same everywhere: versions, requirements, and the files that tests read."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import sklearn_icon
from sklearn_icon._core.versions import SITE

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "packaging").exists(), reason="not in a checkout or source distribution")
_NAMES = {"torch": "pytorch"}  # of conda-forge


def requirements():
    """Those of pyproject.toml, as conda names them."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1]
    pairs = re.findall(r'"([\w-]+)(>=[\d.]+)"', listed)
    python = re.search(r'^requires-python = "(.*)"', text, re.MULTILINE)[1]
    return {("python", python), *((_NAMES.get(name, name), version) for name, version in pairs)}


def test_the_conda_recipe_asks_for_what_pip_does():
    recipe = (ROOT / "packaging/conda/meta.yaml").read_text()
    run = re.search(r"^  run:\n((?:    - .*\n)+)", recipe, re.MULTILINE)[1]
    assert {tuple(line.strip("- ").split()) for line in run.splitlines()} == requirements()
    assert f'version = "{sklearn_icon.__version__}"' in recipe


def test_a_citation_names_the_version():
    assert f"\nversion: {sklearn_icon.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_addresses_are_the_same_everywhere():
    urls = dict(re.findall(r'^(Documentation|Source) = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert urls["Documentation"] == SITE
    for name in ("CITATION.cff", "packaging/conda/meta.yaml"):
        assert all(url in (ROOT / name).read_text() for url in urls.values()), name
    assert SITE in (ROOT / "README.md").read_text()


def test_the_description_of_the_package_has_no_relative_address():
    spec = spec_from_file_location("setup", ROOT / "setup.py")
    setup = module_from_spec(spec)
    spec.loader.exec_module(setup)
    text = setup.description()
    shown, led = re.findall(r'src(?:set)?="([^"]+)"', text), re.findall(r"\]\(([^)]+)\)", text)
    assert len(shown) == 2 and len(led) > 5
    assert all(address.startswith("https://") for address in shown + led)
    paths = [address.partition(f"/v{sklearn_icon.__version__}/")[2] for address in shown]
    assert all((ROOT / path).is_file() for path in paths)


def test_a_source_distribution_holds_what_tests_read():
    rules = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
    kept = {name for verb, *names in rules for name in names if verb in ("include", "graft")}
    assert {"tests", "docs", "examples", "benchmarks", "conftest.py", "constraints.txt", "packaging"} <= kept
    for name in kept:
        assert (ROOT / name).exists(), name
