"""The examples of the estimators, which are imported at first use and so passed over by pytest's own collection."""

import doctest

import pytest

import sklearn_icon

ESTIMATORS = [name for name in sklearn_icon.__all__ if name.startswith("ICON")]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_examples(name):
    cls = getattr(sklearn_icon, name)
    found = doctest.DocTestFinder(recurse=False).find(cls, name, module=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in found:
        runner.run(test)
    assert runner.tries > 0 and runner.failures == 0


def test_versions_are_shown(capsys):
    sklearn_icon.show_versions()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"sklearn_icon: {sklearn_icon.__version__}"
    assert any(line.startswith("torch: ") for line in lines) and "__version__" in dir(sklearn_icon)
