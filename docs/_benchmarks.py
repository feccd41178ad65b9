"""The page of measurements, written from benchmarks/results/*.json when the documentation is built."""

import json
from numbers import Real
from pathlib import Path

HERE = Path(__file__).parent
_MOST_ROWS = 24
_TITLES = {
    "maps": "Maps",
    "clustering": "Clusters",
    "clusters": "Clusters",
    "classes": "Classes",
    "contrastive": "Contrastive learning",
    "divergences": "Divergences",
    "new": "Unpublished cells",
    "pairs": "Two modalities",
}
_INTRO = """Measurements
============

Each heading is a file of ``benchmarks/results/``, as the scripts of ``benchmarks/`` wrote it: mean ± deviation over
seeds, seconds of wall time unless they say CPU. Figures are of the version of sklearn_icon that is named, which is not
always the present one. Of long tables the first rows are shown.

"""


def write_benchmarks(app):
    """Write docs/benchmarks.rst."""
    parts = [_INTRO]
    families: dict[str, list] = {}
    for path in sorted((HERE.parent / "benchmarks" / "results").glob("*.json")):
        families.setdefault(_TITLES.get(path.stem.split("_")[0], "Time, memory and single parts"), []).append(path)
    for title in sorted(families):
        parts.append(_heading(title, "-"))
        for path in families[title]:
            parts += _of_file(path)
    text = "\n".join(parts)
    target = Path(app.srcdir) / "benchmarks.rst"
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


def _heading(text, line):
    return f"{text}\n{line * len(text)}\n"


def _of_file(path):
    """A file's heading, its machine and its tables."""
    content = json.loads(path.read_text())
    tables = list(_tables(content, ""))
    machine = content.get("machine", {}) if isinstance(content, dict) else {}
    told = [f"{name} {machine[name]}" for name in ("sklearn_icon", "torch", "cpus", "gpu") if machine.get(name)]
    data = content.get("data") if isinstance(content, dict) else None
    if isinstance(data, list):
        told.append("data " + " x ".join(map(str, data)))
    yield _heading(path.stem.replace("_", " "), "~")
    yield ", ".join(told) + ".\n" if told else ""
    for name, rows in tables:
        yield from _table(name, rows)


def _tables(value, name):
    """(name, {row: {column: number}}) for all that has this shape."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        value = {str(i): row for i, row in enumerate(value, start=1)}
    if not isinstance(value, dict):
        return
    value = {key: _at_defaults(inner) for key, inner in value.items()}
    rows = {key: _cells(row) for key, row in value.items() if isinstance(row, dict) and key != "machine"}
    rows = {key: cells for key, cells in rows.items() if cells}
    if rows and name:
        yield name, rows
    for key, inner in value.items():
        if key != "machine" and key not in rows:
            yield from _tables(inner, key)


def _at_defaults(runs):
    """Of runs under several options that without any."""
    if isinstance(runs, list) and any(isinstance(run, dict) and run.get("options") == {} for run in runs):
        return next(run for run in runs if run["options"] == {})
    return runs


def _cells(row):
    """The entries of a row that are one number, a mean and a deviation, or a word."""
    return {name: _cell(value) for name, value in row.items() if _cell(value)}


def _cell(value):
    if isinstance(value, list) and len(value) == 2 and all(_is_number(each) for each in value):
        return f"{_cell(value[0])} ± {_cell(value[1])}"
    if isinstance(value, str) and len(value) <= 40:
        return value
    if not _is_number(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def _table(name, rows):
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    numbered = all(key.isdigit() for key in rows)
    head = columns if numbered else ["", *columns]
    yield f".. list-table:: {name}\n   :header-rows: 1\n   :class: measured\n"
    lines = [
        head,
        *([*([] if numbered else [key]), *(cells.get(c, "") for c in columns)] for key, cells in rows.items()),
    ]
    for line in lines:
        for i, cell in enumerate(line):
            yield f"   {' ' if i else '*'} - {_escaped(str(cell))}".rstrip()
    yield ""


def _escaped(text):
    """A cell as plain text."""
    for sign in "\\*`_|":
        text = text.replace(sign, "\\" + sign)
    return f"\\{text}" if text[:1] in "-+" and text[1:2] == " " else text
