"""The site of the documents, for Sphinx: `make docs`.

The source folder is the repository, so that links between guides, samples and environments work as on GitHub.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sphinx.ext.napoleon.docstring import GoogleDocstring

from azml_dist import __version__

sys.path.insert(0, str(Path(__file__).parent))
from notebook import NotebookParser

project = "azml_dist"
author = copyright = "The azml_dist developers"  # noqa: A001 (the name is Sphinx's)
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "samples/README.md",
    "samples/*/README.md",
    "samples/notebooks/*.ipynb",
    "environments/*/README.md",
]

myst_heading_anchors = 3
# Docstrings are written with Markdown's backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
nitpicky = True
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).with_name("scorer.js"))
html_title = "azml_dist"
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

FRONT_PAGE = '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html"><title>azml_dist</title>\n'


def setup(app: Any) -> None:
    """The documents are in `docs/`; whoever opens the site itself is sent there."""
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    app.connect("build-finished", write_front_page)
    app.connect("autodoc-process-docstring", list_arguments)


def write_front_page(app: Any, _: Exception | None) -> None:
    Path(app.outdir, "index.html").write_text(FRONT_PAGE, encoding="utf-8")


def list_arguments(_app: Any, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """`Args:` becomes a list. The extension itself would take a colon in a field's docstring for the end of a type."""
    if "Args:" in lines:
        lines[:] = GoogleDocstring(lines).lines()
