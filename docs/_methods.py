"""A page for each method of the table, written from its record when the documentation is built.

Run as a script, this draws the periodic tables of the README anew, on a light and a dark ground:
PYTHONPATH=. python docs/_methods.py
"""

import sys
import warnings
from functools import cache
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image  # which matplotlib brings
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from sklearn_icon import ICONEmbedding, methods
from sklearn_icon.methods._published import OTHER
from sklearn_icon.plotting import EmbeddingDisplay, PeriodicTableDisplay
from sklearn_icon.plotting._table import _FAMILY_COLORS

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))
sys.path.insert(0, str(HERE))
from _formulas import formulas  # noqa: E402
from _tasks import run  # noqa: E402

_ROWS, _STEPS = 500, 80
_DARK = "#14181e"  # the ground of the theme's dark pages
_WHEN = {
    "dimensionality reduction": "It lays rows out so that near ones stay near: for looking at data.",
    "contrastive": "It trains an encoder to represent views, or neighbours, alike: for features where labels are few.",
    "supervised": "It learns to tell classes apart: where rows have labels.",
    "cross-modal": "It maps two modalities to one space: where rows come in pairs, for retrieval of one by the other.",
    "language": "It learns vectors of contexts and tokens from counts: for text, or any table of counts.",
    "clustering": "It finds groups, with a membership of each row in each: where there are no labels.",
}
_FIT = {
    "ICONEmbedding": "Z = estimator.fit_transform({})",
    "ICONClustering": "labels = estimator.fit_predict({})",
    "ICONClassifier": "predicted = estimator.fit({}).predict(X_new)",
    "ICONCrossModal": "Z, Z_other = estimator.fit({0}).transform({0})",
}
_DATA = {"item": "X, items", "companion": "X, companions", "labels": "X, y", "modality": "X, other"}
_DATA |= {"weights": "graph", "token": "counts"}


def write_pages(app):
    """Write docs/methods/: an index and a page for each method."""
    folder = Path(app.srcdir) / "methods"
    folder.mkdir(exist_ok=True)
    for name in methods.names():
        method = methods.get(name)
        _picture(PeriodicTableDisplay.from_methods(highlight=name).figure_, folder / f"{name}-table.png", 80)
        caption = _draw(method, folder / f"{name}.png")
        _update(folder / f"{name}.rst", _page(method, caption))
    _update(folder / "index.rst", _index())


def _update(path, text):
    """Write a file unless it holds that already, so that an unchanged page is not built again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _picture(figure, path, dpi):
    figure.savefig(path, dpi=dpi)
    plt.close(figure)


def _heading(text, line="="):
    return f"{text}\n{line * len(text)}\n"


def _index():
    """The table, and the methods by family."""
    parts = [
        _heading("Methods"),
        "Every method is a choice of :math:`p`, :math:`q`, an encoder and a divergence. "
        "``methods.get(name).make_estimator()`` puts it together; see :mod:`sklearn_icon.methods`.\n",
        ".. raw:: html\n\n" + "\n".join(f"   {line}" for line in _table()) + "\n",
    ]
    for family in methods.FAMILIES:
        parts.append(_heading(family.capitalize(), "-"))
        for name in methods.names(family):
            method = methods.get(name)
            parts.append(f"- :doc:`{method.title} <{name}>`{'' if method.published else ', not published'}")
        parts.append("")
    parts.append(".. toctree::\n   :hidden:\n")
    parts += [f"   {name}" for name in methods.names()]
    return "\n".join(parts) + "\n"


def _table():
    """The table as HTML: a column for each p, a row for each q, each method a link."""
    records = [methods.get(name) for name in methods.names()]
    columns = [title for title in methods.COLUMNS.values() if any(m.column == title for m in records)]
    rows = [title for title in dict.fromkeys(methods.ROWS.values()) if any(m.row == title for m in records)]
    yield "<p>" + "".join(f'<span class="family" {_tint(name)}>{name}</span>' for name in methods.FAMILIES)
    yield "dashed: not published, a combination that the table predicts</p>"
    yield '<div class="methods-table" tabindex="0"><table><thead><tr><th>q \\ p</th>'
    yield "".join(f"<th>{title}</th>" for title in columns) + "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr><th>{row}</th>"
        for column in columns:
            here = [m for m in records if (m.row, m.column) == (row, column)]
            yield "<td>" + "".join(map(_tile, here)) + "</td>"
        yield "</tr>"
    yield "</tbody></table></div>"


def _tile(method):
    kind = "" if method.published else ' class="unpublished"'
    return f'<a href="{method.name}.html"{kind} {_tint(method.family)}>{method.title}</a>'


def _tint(family):
    return f'style="--family: {_FAMILY_COLORS[family]}"'


def _page(method, caption):
    """One method: its formula, its parts, code, what it equals, pictures, reference."""
    kind = "published" if method.published else "not published, a combination that the table predicts"
    found, notes = formulas(method)
    if method.reads == OTHER:
        notes.append("The same with the two modalities exchanged is added, and the mean of both is minimised.")
    if method.divergence == "reverse_kl":
        notes.append("Sums are over all rows, the row i itself included in p and in q.")
    if method.supervisory.narrow:
        notes.append("The width is zero: the limit of :math:`s^2 L`.")
    if method.debias:
        mass = method.debias if method.debias < 1 else "1: the limit of :math:`L / (1 - a)^2`"
        notes.append(f"p and q are mixed with a uniform distribution, :math:`a` = {mass}.")
    parts = [
        _heading(method.title),
        f"{method.family.capitalize()}; {kind}. {_WHEN[method.family]}\n",
        *(f".. math:: {formula}\n" for formula in found),
        " ".join(notes) + "\n",
        ".. list-table::\n   :widths: 20 80\n",
        *_row("p", _spec(method.supervisory)),
        *_row("q", _spec(method.learned)),
        *_row("encoder", _spec(method.encoder)),
        *_row("divergence", f"``{method.divergence!r}``"),
        *_row("estimator", f":class:`~sklearn_icon.{method.estimator}`"),
        *(_row("fit reads", method.reads) if method.reads else ()),
        *_row("equals", f"``{method.equals}``" if set("_*|") & set(method.equals) else method.equals),
        *(_row("also", ", ".join(method.aliases)) if method.aliases else ()),
        "\n.. code-block:: python\n",
        "   from sklearn_icon import methods\n",
        f'   estimator = methods.get("{method.name}").make_estimator(random_state=0)',
        "   " + _FIT[method.estimator].format(next((v for k, v in _DATA.items() if k in method.reads), "X")) + "\n",
        f".. figure:: {method.name}.png\n   :width: 480\n\n   {caption}\n" if caption else "",
        f".. figure:: {method.name}-table.png\n\n   Where it stands in the :doc:`table <index>`\n",
        f"Reference: {method.reference}.",
    ]
    return "\n".join(parts) + "\n"


def _row(*cells):
    return [f"   {' ' if i else '*'} - {cell}" for i, cell in enumerate(cells)]


def _spec(spec):
    """A spec with a link to its class."""
    return f":class:`{spec} <{type(spec).__module__.split('._')[0]}.{type(spec).__name__}>`"


@cache
def _map_of_digits():
    """Places on which clusters are shown."""
    return ICONEmbedding(random_state=0).fit_transform(load_digits().data[:_ROWS])


def _draw(method, path):
    """Fit the method to some digits and draw what it learned; return the caption."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        few = _STEPS if method.family == "contrastive" else 2 * _STEPS if method.learned.is_limit else None
        outcome = run(method.name, _ROWS, **({"max_iter": few} if few else {}))
    places, labels = outcome.learned, outcome.labels
    found = f"{outcome.measure} {outcome.value:.2f}, at random {outcome.chance:.2f}"
    if method.estimator == "ICONClustering":
        display = EmbeddingDisplay.from_embedding(_map_of_digits(), y=outcome.estimator.labels_)
        caption = f"The clusters of {_ROWS} digits, shown on a map by t-SNE; {found}."
    else:
        flat = places if places.shape[1] == 2 else PCA(2).fit_transform(places)
        how = "" if flat is places else ", its two principal components"
        display = EmbeddingDisplay.from_embedding(flat, y=labels)
        caption = f"Fitted to {len(labels)} digits{how}; {found}."
    _picture(display.figure_, path, 110)
    return caption


def main():
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    dark = ["dark_background", {"figure.facecolor": _DARK, "axes.facecolor": _DARK, "savefig.facecolor": _DARK}]
    for styles, name in (([], "periodic_table"), (dark, "periodic_table_dark")):
        with plt.style.context(styles):
            _picture(PeriodicTableDisplay.from_methods().figure_, folder / f"{name}.png", 180)
        with Image.open(folder / f"{name}.png") as image:  # with as few colours as it has, for its size
            image.convert("RGB").quantize(64).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
