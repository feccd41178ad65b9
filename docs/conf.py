"""Sphinx configuration; `make docs` builds with warnings as errors."""

import re
import sys
from pathlib import Path

import matplotlib
from latex2mathml.converter import convert

import sklearn_icon

matplotlib.use("Agg")
sys.path.insert(0, str(Path(__file__).parent))
from _benchmarks import write_benchmarks
from _inventories import write_inventories
from _methods import write_pages

project = "sklearn_icon"
author = "the sklearn_icon developers"
copyright = "2026, the sklearn_icon developers"
release = version = sklearn_icon.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx.ext.intersphinx",
    "sphinx_design",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "literal"
html_theme = "pydata_sphinx_theme"
html_title = "sklearn_icon"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {
    name: [] for name in ("benchmarks", "coming_from", "faq", "limits", "migration", "needs", "theory", "user_guide")
}  # none below them
toc_object_entries_show_parents = "hide"
html_math_renderer = "mathml"
html_theme_options = {
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,  # as many as fit beside the search at 1,280 pixels
    "secondary_sidebar_items": {"**": ["page-toc"], "methods/index": [], "index": []},  # the table takes the width
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
    "pygments_dark_style": "github-dark",
}
html_show_sourcelink = False

intersphinx_mapping = write_inventories(Path(__file__).parent / "generated" / "inventories")

autosummary_ignore_module_all = False  # a module's page lists its __all__, so that it cannot fall behind
numpydoc_show_class_members = False
autodoc_typehints = "none"  # docstrings say shapes and units too

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "ignore_pattern": r"demo\.py|_ranks\.py",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "doc_module": ("sklearn_icon",),
    "backreferences_dir": "generated/backreferences",
    "inspect_global_variables": True,
    "remove_config_comments": True,
    "within_subsection_order": "_gallery.Order",
    "write_computation_times": False,  # that page would load a script from elsewhere
}


def skip_generated(app, what, name, obj, skip, options):
    """Leave out what scikit-learn adds to every estimator: its docstrings link into its own manual."""
    return True if re.fullmatch(r"set_(\w+_request|output)|get_metadata_routing", name) else None


def inline_math(self, node):
    """Mathematics as MathML, which browsers render themselves: pages need no script from elsewhere."""
    from docutils.nodes import SkipNode

    self.body.append(convert(node.astext()))
    raise SkipNode


def displayed_math(self, node):
    """The same on a line of its own."""
    from docutils.nodes import SkipNode

    self.body.append(f'<div class="displayed-math">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
    app.connect("builder-inited", write_pages)
    app.connect("builder-inited", write_benchmarks)
    app.connect("autodoc-skip-member", skip_generated)
