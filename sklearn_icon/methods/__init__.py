"""The periodic table of I-Con as data: published methods, and unpublished combinations, as choices of specs.

A record says which p, q, encoder, divergence and estimator make a method, and what that equals. No method has code of
its own: `make_estimator` puts the specs together. The table is that of Alshammari et al., ICLR 2025 (table 1).
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from .._core.spec import shown
from ._gaps import GAPS
from ._published import PUBLISHED
from ._record import COLUMNS as COLUMNS
from ._record import FAMILIES as FAMILIES
from ._record import ROWS as ROWS
from ._record import Method
from ._search import Search, search

__all__ = ["Method", "Search", "get", "names", "search"]


def names(family: str | None = None, published: bool | None = None) -> list[str]:
    """List the canonical names, in the order of the table.

    Parameters
    ----------
    family : str, default=None
        One of `FAMILIES`; None for all.
    published : bool, default=None
        True for published methods, False for unpublished combinations, None for both.

    Returns
    -------
    list of str
        Names that `get` knows.

    Raises
    ------
    ValueError
        A family that is none.

    Examples
    --------
    >>> from sklearn_icon import methods
    >>> methods.names("cross-modal", published=True)
    ['clip', 'siglip', 'cmc']
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family={shown(family)} is not known; use one of {list(FAMILIES)}.")
    return [
        method.name
        for method in (*PUBLISHED, *GAPS)
        if family in (None, method.family) and (published is None or published == method.published)
    ]


def get(name: str) -> Method:
    """Look a method up by its name, whatever its case and punctuation.

    Parameters
    ----------
    name : str
        A canonical name, title or alias.

    Returns
    -------
    Method
        The record of the table.

    Raises
    ------
    ValueError
        An unknown name; the message suggests near ones.

    Examples
    --------
    >>> from sklearn_icon import methods
    >>> methods.get("logistic regression").name
    'cross-entropy'
    """
    method = _INDEX.get(_plain(name))
    if method is None:
        near = {_INDEX[plain].name: None for plain in get_close_matches(_plain(name)[:100], _INDEX, n=5, cutoff=0.5)}
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "methods.names() lists them."
        raise ValueError(f"method {shown(name)} is not known; {hint}")
    return replace(method, **method._specs())


def _plain(name: object) -> str:
    """The name's letters and digits."""
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


_INDEX = {
    _plain(name): method for method in (*PUBLISHED, *GAPS) for name in (method.name, method.title, *method.aliases)
}
