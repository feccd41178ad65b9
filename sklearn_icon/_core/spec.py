"""Specs: small objects that hold the parameters of a choice, and how names become specs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

from .versions import SITE

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")
_PLAIN = {int, str, bool, type(None)}  # types of values that are equal only where they are written alike


@cache
def defaults(cls: type) -> dict[str, Any]:
    """The defaults of the parameters of a class."""
    return {name: parameter.default for name, parameter in signature(cls).parameters.items()}


@cache
def valid_defaults(cls: Any) -> dict[str, Any]:
    """Those of them that the class allows."""
    valid = {}
    for name, value in defaults(cls).items():
        try:
            validate_parameter_constraints(cls._parameter_constraints, {name: value}, caller_name=cls.__name__)
        except InvalidParameterError:
            continue
        valid[name] = value
    return valid


def answer(function: Callable[[Any], T]) -> T:
    """A property in the place of a base's class attribute, of whose type it is to whoever checks types."""
    return property(function)  # type: ignore[return-value]


def of_base(name: str, base: str = "base") -> Any:
    """The answer, or the method, that the `base` of a spec, or what stands for it, has under this name."""
    return property(lambda self: getattr(getattr(self, base), name), doc=f"`{name}` of the {base}.")


class RememberedNames(BaseEstimator):
    """A base that looks through the signature of a class once, where scikit-learn does at each `get_params`."""

    _doc_link_module = "sklearn_icon"  # in HTML, a link to the page of the class
    _doc_link_template = SITE + "/generated/{estimator_module}.{estimator_name}.html"
    _parameter_constraints: dict
    _param_names: tuple

    @classmethod
    def _get_param_names(cls) -> list[str]:
        if "_param_names" not in vars(cls):
            cls._param_names = tuple(super()._get_param_names())
        return list(cls._param_names)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of specs as `learned__df` and the like.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        estimator or spec
            Itself.

        Raises
        ------
        ValueError
            An unknown name, or a parameter of a spec where there is none yet: None and short names have no parameters.
        """
        own = self.get_params(deep=False)
        for key in params:
            name, _, parameter = key.partition("__")
            value = params.get(name, own.get(name))
            if parameter and name in own and not isinstance(value, BaseEstimator):
                remedy = self._spec_with(name, parameter.partition("__")[0])
                raise ValueError(f"{key} cannot be set, as {name}={shown(value)} has no parameters{remedy}.")
        return super().set_params(**params)

    def _spec_with(self, name: str, parameter: str) -> str:
        """What to pass for a parameter so that it has this one, in words."""
        return "; pass a spec first"

    def _other_than(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters whose values are not these."""
        given = self.get_params(deep=False).items()
        return {name: value for name, value in given if value is not known.get(name, Parameter.empty)}

    def _validate_params(self) -> None:
        """As scikit-learn does, without the work for what is left at its default and known to be valid."""
        cls: Any = type(self)
        given = self._other_than(valid_defaults(cls))
        if given:
            validate_parameter_constraints(self._parameter_constraints, given, caller_name=cls.__name__)


@lru_cache(maxsize=256, typed=True)
def _written(cls: Any, most: int, changed_only: bool, *values: Any) -> str:
    """A spec with these parameters, as scikit-learn writes it."""
    return BaseEstimator.__repr__(cls(**dict(zip(cls._get_param_names(), values, strict=True))), most)


class Spec(RememberedNames):
    """A choice of p, q or encoder. Holds parameters only: nothing is computed or stored before `fit`."""

    _parameter_constraints: dict = {}

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """As scikit-learn writes it, which is remembered where parameters are plain."""
        cls: Any = type(self)
        values = tuple(self.get_params(deep=False).values())
        if all(type(value) in _PLAIN or (type(value) is float and value) for value in values):  # 0.0 equals -0.0
            return _written(cls, N_CHAR_MAX, get_config()["print_changed_only"], *values)
        return super().__repr__(N_CHAR_MAX)

    def validate(self) -> Self:
        """Check the parameters, those of wrapped specs included. Returns the spec.

        Raises
        ------
        InvalidParameterError
            A `ValueError` that names the parameter, its value and what is allowed.
        """
        try:
            self._validate_params()
        except InvalidParameterError as error:
            raise InvalidParameterError(shortened(str(error))) from None
        base = self._wrapped()
        if base is not None:
            base.validate()
        return self

    def _wrapped(self) -> Spec | None:
        """The spec that this one is made from."""
        base = self.get_params(deep=False).get("base")
        return base if isinstance(base, Spec) else None

    @classmethod
    def from_name(cls, name: str, names: Mapping[str, Callable[..., Spec]], **offered: Any) -> Spec:
        """What a short name stands for, with those of the offered parameters that it has.

        `names` says what each name makes: a class of specs, or a function.
        """
        make = names[name]
        known = _parameters(make) if offered else frozenset()
        return make(**{parameter: value for parameter, value in offered.items() if parameter in known})

    def owner(self, parameter: str) -> Spec:
        """The outermost of wrapped specs that has a parameter, or the innermost."""
        base = self._wrapped()
        return self if base is None or parameter in self.get_params(deep=False) else base.owner(parameter)


@cache
def _parameters(make: Callable[..., Any]) -> frozenset[str]:
    """Names of what a class of specs, or a function that makes one, takes."""
    return frozenset(signature(make).parameters)


def shown(value: object) -> str:
    """What a message shows of a value, of NumPy's scalars as Python's own."""
    return shortened(repr(value.item() if isinstance(value, np.generic) else value), 200)


def shortened(text: str, most: int = 5000) -> str:
    """A text of at most so many characters, its words of at most 200."""
    text = re.sub(r"\S{201,}", lambda word: f"{word[0][:60]}...({len(word[0])} characters)", text)
    return text if len(text) <= most else f"{text[: most // 2]} ...({len(text)} characters)... {text[-most // 2 :]}"


def resolve(spec: Any, base: Any, names: Mapping[str, Any], parameter: str, **offered: Any) -> Any:
    """A spec, or what a short name stands for, as a fresh, validated spec that is an instance of `base`.

    An instance is cloned, so that a fit never changes the object the user holds. `parameter` is what errors call it;
    `offered` is what a short name takes where it has such a parameter. An unknown name is a ValueError that lists those
    that are known, anything else a TypeError.
    """
    match spec:
        case base():
            return clone(spec).validate()
        case str() if spec in names:
            return base.from_name(spec, names, **offered).validate()
        case str():
            raise ValueError(f"{parameter}={shown(spec)} is not known; use one of {sorted(names)} or a spec instance.")
        case type():
            raise TypeError(f"{parameter}={spec.__name__} is a class; pass an instance, {spec.__name__}(...).")
        case _:
            raise TypeError(
                f"{parameter} must be None, one of {sorted(names)}, or an instance of a class of "
                f"sklearn_icon.{base.__module__.split('.')[1]}; got {shown(spec)}."
            )
