"""Every finding that the code can make has a job that has it and one that does not, and its place in the documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from findingcases import CASES
from scriptscore.score import CODES
from test_docs import generate, text_of

from azml_dist.model.job import JobFields
from azml_dist.model.sweep import SweepFields

SAID = generate.all_findings()
ELSEWHERE = {*CODES, "script-not-read"}
"""Codes of findings in scripts: `test_script.py` has cases of both kinds for each."""


def test_every_finding_of_the_code_has_cases() -> None:
    assert {one.code for one in SAID} == {*CASES, *ELSEWHERE}


@pytest.mark.parametrize("code", CASES)
def test_a_finding_is_made_where_it_belongs_and_only_there(code: str, tmp_path: Path) -> None:
    fires, silent = CASES[code]
    folders = [tmp_path / "fires", tmp_path / "silent"]
    for folder in folders:
        folder.mkdir()

    found = {one.code: one for one in fires(folders[0])}

    assert code in found
    levels = {level for one in SAID if one.code == code for level in one.levels}
    assert found[code].level in levels
    assert code not in {one.code for one in silent(folders[1])}


NOWHERE = {"sampled-at-random-here", "probed-service", "service-not-read"}
"""Codes of findings that are about no field of the job."""
NO_HINT = {
    *("links-out-of-the-code", "ray-preview", "value-outside", "short-timeout", "value-output", "compute-changing"),
    "waits-for-nodes",
}
"""Codes of findings about which there is nothing to do, or whose message says what."""
FIELDS = {*JobFields.model_fields, *SweepFields.model_fields, "name"}


@pytest.mark.parametrize("code", CASES)
def test_a_finding_says_where_and_what_to_do(code: str, tmp_path: Path) -> None:
    [found] = [one for one in CASES[code][0](tmp_path) if one.code == code]
    field = (found.where or "").removeprefix(f"{tmp_path}/pipeline.yml:3: jobs.a")
    field = field.removeprefix(f"{tmp_path}/pipeline.yml:3: jobs.score.")

    assert found.message
    assert (found.where is None) == (code in NOWHERE)
    assert field.split(".")[0] in (*FIELDS, "", "component")
    assert (found.hint is None) == (code in NO_HINT)


def test_every_finding_has_its_place_in_the_documents() -> None:
    page = text_of("docs/findings.md")

    assert [one.code for one in SAID if f"\n### {one.code}\n" not in page] == []


def test_every_hint_in_the_documents_is_whole() -> None:
    hints = re.findall(r"^Hint: (.*)$", text_of("docs/findings.md"), re.MULTILINE)

    assert [hint for hint in hints if re.match(r"[,;]", hint) or re.search(r"( to| is|;|_)$", hint)] == []


def test_every_finding_says_something_in_the_documents() -> None:
    assert [one.code for one in SAID if not one.message.replace("…", "").strip(" :,.")] == []
