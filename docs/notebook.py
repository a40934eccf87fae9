"""Reads Jupyter notebooks for Sphinx: their text, their code, and the outputs that are saved in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

from myst_parser.parsers.sphinx_ import MystParser

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class NotebookParser(MystParser):  # type: ignore[misc] # myst_parser is not followed
    """A notebook as the Markdown document that it is, with code blocks and outputs."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: Any) -> None:
        super().parse("\n\n".join(_parts(json.loads(inputstring))), document)


def _parts(notebook: Any) -> Iterator[str]:
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield _fence("python", source)
        for output in cell.get("outputs", []):
            yield _output(output)


def _output(output: Any) -> str:
    if output["output_type"] == "stream":
        return _fence("text", "".join(output["text"]))
    if output["output_type"] == "error":
        return _fence("text", _COLOURS.sub("", output["traceback"][-1]))
    data = output["data"]
    if "text/html" in data:
        return _raw(f'<div class="output">{"".join(data["text/html"])}</div>')
    if "image/png" in data:
        picture = "".join(data["image/png"]).replace("\n", "")
        words = escape("".join(data.get("text/plain", "a picture")))
        return _raw(f'<p><img class="figure" alt="{words}" src="data:image/png;base64,{picture}"></p>')
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    return _fence("text", "".join(data["text/plain"]))


def _fence(language: str, text: str) -> str:
    ticks = "`" * max(3, *(len(found) + 1 for found in re.findall(r"`{3,}", text)), 3)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def _raw(html: str) -> str:
    return f"````{{raw}} html\n{html}\n````"
