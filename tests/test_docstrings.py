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
