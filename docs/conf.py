"""The site of the documents, for Sphinx: `make docs`.

The source folder is the repository, so that links between guides, samples and environments work as on GitHub.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any

from sphinx import addnodes
from sphinx.ext.napoleon.docstring import GoogleDocstring

from azml_dist import __version__
from azml_dist.model.base import Model

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
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types are read, not followed; links between the pages are checked
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

MADE_FOR_YOU = frozenset(
    ["Check", "Difference", "LaunchPlan", "Metrics", "Pipeline", "Plot", "Rerun", "RunPage", "RunStatus", "System"]
)
"""Classes that you get from a function: how they are made is not shown."""

FRONT_PAGE = '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html"><title>azml_dist</title>\n'


def setup(app: Any) -> None:
    """The documents are in `docs/`; whoever opens the site itself is sent there."""
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    app.connect("build-finished", write_front_page)
    app.connect("autodoc-process-docstring", list_arguments)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("object-description-transform", write_type)


def write_front_page(app: Any, _: Exception | None) -> None:
    Path(app.outdir, "index.html").write_text(FRONT_PAGE, encoding="utf-8")


def list_arguments(_app: Any, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """`Args:` becomes a list. The extension itself would take a colon in a field's docstring for the end of a type."""
    if "Args:" in lines:
        lines[:] = GoogleDocstring(lines).lines()


def write_signature(
    _app: Any, what: str, _name: str, obj: Any, _options: object, *_: object
) -> tuple[str, None] | None:
    """Models as a person would write them; nothing for classes that only azml_dist makes."""
    if what == "class" and issubclass(obj, Model):
        return str(signature(obj)), None  # Sphinx takes the outer quotes of `'a' | 'b'` away
    return ("", None) if what == "class" and obj.__name__ in MADE_FOR_YOU else None


def write_type(_app: Any, _domain: str, kind: str, content: Any) -> None:
    """The type of a model's field is written as in the signature of the model, not as pydantic needs it."""
    if kind != "attribute":
        return
    line = content.parent[0]
    owner, _, field = line["fullname"].rpartition(".")
    with suppress(AttributeError, KeyError):
        model = getattr(sys.modules[line["module"]], owner)
        text = str(signature(model).parameters[field].annotation) if issubclass(model, Model) else ""
        if text:
            line.children = [one for one in line if not isinstance(one, addnodes.desc_annotation)]
            line += addnodes.desc_annotation("", f": {text}")
