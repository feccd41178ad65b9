"""What is remembered of specs and estimators is what scikit-learn would find anew."""

from inspect import Parameter

import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator

from sklearn_icon import ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding, encoders, learned, supervisory
from sklearn_icon._core.spec import defaults, valid_defaults

MADE = [*supervisory.NAMES.values(), *learned.NAMES.values(), *encoders.NAMES.values()]
ESTIMATORS = [ICONClassifier, ICONClustering, ICONCrossModal, ICONEmbedding]


@pytest.mark.parametrize("changed_only", [True, False])
@pytest.mark.parametrize("make", MADE)
def test_a_spec_is_written_as_scikit_learn_does(make, changed_only):
    with config_context(print_changed_only=changed_only):
        for _ in range(2):
            assert repr(make()) == BaseEstimator.__repr__(make())
    assert repr(learned.StudentT(df=1)) != repr(learned.StudentT(df=2.0)) != repr(learned.StudentT(df=2))
    assert repr(learned.StudentT(df=-0.0)) != repr(learned.StudentT(df=0.0))


@pytest.mark.parametrize("cls", [*dict.fromkeys(type(make()) for make in MADE), *ESTIMATORS])
def test_every_default_is_valid(cls):
    given = {name: value for name, value in defaults(cls).items() if value is not Parameter.empty}
    assert valid_defaults(cls) == given


@pytest.mark.parametrize("parent", ESTIMATORS)
def test_a_subclass_with_a_default_that_is_not_allowed(parent):
    class Other(parent):
        def __init__(self, *, n_jobs="all"):
            super().__init__(n_jobs=n_jobs)

    with pytest.raises(ValueError, match="'n_jobs' parameter of Other"):
        Other()._validate_params()
