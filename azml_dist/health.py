"""The results of `azml-dist doctor`: one line for each thing that a run or a submission needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from azml_dist.show import Block, Page, Shown, Table, Told

Health = Literal["ok", "missing", "not checked"]


class Line(NamedTuple):
    """One thing that is needed or good to know."""

    name: str
    """What it is, such as `mpirun` or `login`."""
    state: Health
    found: str
    """What was found, what is missing, or why it was not checked."""
    hint: str | None = None
    """What to do about it."""
    is_needed: bool = False
    """Whether it is required."""


class Report(Shown):
    """All lines: `print` it. `is_ready` says whether a submission could work, or a local run if Azure was skipped."""

    def __init__(self, here: Sequence[Line], azure: Sequence[Line]) -> None:
        self.here, self.azure = tuple(here), tuple(azure)

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines for this machine, then those for Azure."""
        return self.here + self.azure

    @property
    def is_ready(self) -> bool:
        """Whether everything required is there, as far as we could check."""
        return not any(line.is_needed and line.state == "missing" for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist doctor --json` prints."""
        lines = [
            {"name": one.name, "state": one.state, "found": one.found, "hint": one.hint, "needed": one.is_needed}
            for one in self.lines
        ]
        return {"ready": self.is_ready, "lines": lines}

    def _page(self) -> Page:
        blocks: list[Block] = []
        for place, lines in (("this machine", self.here), ("Azure", self.azure)):
            if lines:
                blocks.append(Table((place, "", ""), [(one.name, one.state, one.found) for one in lines]))
                hints = [("hint", f"{one.name}: {one.hint}") for one in lines if one.hint and one.state != "ok"]
                blocks += [Told(hints)] if hints else []
        return Page([], blocks)
