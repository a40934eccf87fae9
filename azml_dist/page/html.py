"""`RunPage`: the HTML of a page. It loads nothing, and no text of a run can become a part of it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from os import PathLike
from pathlib import Path
from string import Template
from typing import Any

from azml_dist.page.sheet import Sheet
from azml_dist.regular import NO_LINK
from azml_dist.words import visible

MOST = 1_950_000
"""The most bytes of a page."""
IN_A_NOTEBOOK = 600_000
"""The most bytes of a page in a notebook, which stores it."""
_BUDGETS = (1_200_000, 600_000, 300_000, 120_000, 40_000, 10_000, 0)
"""How many bytes of logs are tried, one after another, until the page is small enough."""
_SCRIPTS = ("base", "head", "world", "timeline", "plots", "members", "logs", "rest", "main")


class RunPage:
    """The page of a run: `save` it, or put it at the end of a notebook cell."""

    def __init__(self, name: str, fill: Callable[[int], Sheet]) -> None:
        """`fill` makes the sheet, with so many bytes of logs."""
        self.name = name
        self._fill = fill

    @property
    def html(self) -> str:
        """The page as of now, less than 2 MB."""
        return self._within(MOST)

    def save(self, file: str | PathLike[str]) -> Path:
        """Write the page into a file, and return its path; an existing file is replaced."""
        path = Path(file)
        draft = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}")
        try:
            # Never through a link that somebody put there.
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666), "wb") as opened:
                opened.write(self.html.encode())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return path

    def _within(self, most: int) -> str:
        for budget in _BUDGETS:
            found = render(self._fill(budget))
            if len(found.encode()) <= most:
                break
        return found

    def _repr_html_(self) -> str:
        # In a frame of its own, which can neither read nor change the notebook.
        page = escape(self._within(IN_A_NOTEBOOK))
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts allow-popups" title="{escape(visible(self.name))}" '
            'style="width:100%;height:720px;border:1px solid #8888;border-radius:8px"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<RunPage {self.name}>"


def render(sheet: Sheet) -> str:
    """The HTML of a sheet."""
    style, script = _asset("page.css"), _script()
    data = json.dumps(_plain(vars(sheet) | {"text": None}), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Template(_asset("page.html")).substitute(
        title=escape(visible(f"{sheet.name}: {sheet.status}")),
        text=escape(visible(sheet.text)),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        # Inside a script, only `<` could end it.
        sheet=data.replace("<", "\\u003c"),
    )


def _plain(value: Any) -> Any:
    """JSON values, with control characters made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return _short(value)
    return _plain(vars(value))


def _short(value: float) -> float | None:
    """With the digits that can be seen; None if it is not finite."""
    found = float(f"{value:.9g}")
    return found if abs(found) < float("inf") else None


@cache
def _script() -> str:
    return '(() => {\n"use strict";\n' + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS) + "})();\n"


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name("browser").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What lets a browser run this script and no other one."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
