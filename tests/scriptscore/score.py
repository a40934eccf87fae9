"""How often a finding about a script is there where it must be, and silent where it must not."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from azml_dist.errors import Finding
from scriptscore.cases import CASES, Case, job_of
from scriptscore.further import FURTHER
from scriptscore.idioms import IDIOMS
from scriptscore.modern import MODERN

EVERY = [*CASES, *IDIOMS, *MODERN, *FURTHER]

CODES = tuple(dict.fromkeys(case.code for case in EVERY))


def findings(case: Case) -> list[Finding]:
    """What is found in the script of a case, and in what starts it."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {"train.py": case.script, **case.others}.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text, encoding="utf-8")
        found = job_of(case, folder).plan().findings
    return [finding for finding in found if finding.code in CODES]


def wrong(case: Case) -> str | None:
    """What is not as it should be in a case; None where all is right."""
    found = findings(case)
    levels = [finding.level for finding in found if finding.code == case.code]
    if case.level is None:
        return f"{found[0].code}: {found[0].message}" if found else None
    return None if levels[:1] == [case.level] else f"{case.level} expected: {[(f.code, f.level) for f in found]}"


def table() -> Iterator[str]:
    """A row for each finding."""
    yield "| finding | found, of those with the mistake | silent, of those without |"
    yield "|---|---|---|"
    for code in CODES:
        bad = [wrong(case) is None for case in EVERY if case.code == code and case.level]
        good = [wrong(case) is None for case in EVERY if case.code == code and not case.level]
        yield f"| [`{code}`](#{code}) | {sum(bad)} of {len(bad)} | {sum(good)} of {len(good)} |"


def into(page: str) -> str:
    """The page of the documents with the score in it."""
    text = "\n".join(table())
    return re.sub(
        r"(?<=<!-- score -->\n).*?(?=<!-- end of score -->)", lambda _: f"\n{text}\n\n", page, flags=re.DOTALL
    )
