"""Specs: small objects that hold the parameters of a choice, and how names become specs."""

import re
from inspect import signature

from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints


class Spec(BaseEstimator):
    """A choice of p, q or encoder. Holds parameters only: nothing is computed or stored before `fit`."""

    _parameter_constraints: dict = {}

    def validate(self):
        """Check the parameters, those of wrapped specs included. Returns the spec.

        Raises
        ------
        InvalidParameterError
            A `ValueError` that names the parameter, its value and what is allowed.
        """
        try:
            validate_parameter_constraints(
                self._parameter_constraints, self.get_params(deep=False), caller_name=type(self).__name__
            )
        except InvalidParameterError as error:
            raise InvalidParameterError(shortened(str(error))) from None
        base = getattr(self, "base", None)
        if isinstance(base, Spec):
            base.validate()
        return self

    @classmethod
    def from_name(cls, name, names, **offered):
        """What a short name stands for, with those of the offered parameters that it has.

        Parameters
        ----------
        name : str
        names : dict of str to callable
            What each short name makes: a class of specs, or a function.
        **offered
            Parameters of who asks.
        """
        make = names[name]
        known = signature(make).parameters if offered else {}
        return make(**{parameter: value for parameter, value in offered.items() if parameter in known})

    def owner(self, parameter):
        """The outermost of wrapped specs that has a parameter, or the innermost."""
        return self


def shown(value: object) -> str:
    """What a message shows of a value."""
    return shortened(repr(value), 200)


def shortened(text: str, most: int = 5000) -> str:
    """A text of at most so many characters, its words of at most 200."""
    text = re.sub(r"\S{201,}", lambda word: f"{word[0][:60]}...({len(word[0])} characters)", text)
    return text if len(text) <= most else f"{text[: most // 2]} ...({len(text)} characters)... {text[-most // 2 :]}"


def resolve(spec, kind, names, parameter, **offered):
    """Turn a spec instance or a short name into a fresh, validated spec.

    Parameters
    ----------
    spec : Spec or str
        An instance is cloned, so that a fit never changes the object the user holds.
    kind : type
        The class a spec must be an instance of.
    names : dict of str to callable
        What each short name makes.
    parameter : str
        The name of the parameter, for messages.
    **offered
        What a short name takes where it has such a parameter; see `Spec.from_name`.

    Returns
    -------
    Spec

    Raises
    ------
    ValueError
        An unknown name; the message lists the valid ones.
    TypeError
        Neither a name nor an instance of `kind`.
    """
    if isinstance(spec, str):
        if spec not in names:
            raise ValueError(f"{parameter}={shown(spec)} is not known; use one of {sorted(names)} or a spec instance.")
        return kind.from_name(spec, names, **offered).validate()
    if isinstance(spec, type):
        raise TypeError(f"{parameter}={spec.__name__} is a class; pass an instance, {spec.__name__}(...).")
    if not isinstance(spec, kind):
        raise TypeError(
            f"{parameter} must be None, one of {sorted(names)}, or an instance of a class of "
            f"sklearn_icon.{kind.__module__.split('.')[1]}; got {shown(spec)}."
        )
    return clone(spec).validate()
