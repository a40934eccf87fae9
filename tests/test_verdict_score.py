"""How often the verdict is right, and the table of signatures that it looks for."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from judging import verdict
from verdict.score import WAYS, all_scored, cases, failures, score, table

from azml_dist.verdict.signatures import EXCEPTIONS, LINES, WHOLE, compiled
from azml_dist.verdict.verdict import Certainty, Kind

REPOSITORY = Path(__file__).parents[1]
parser = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")


# --- the score


@pytest.mark.parametrize("way", WAYS)
def test_the_score_is_above_the_bar(way: str) -> None:
    """Where it falls below, `python -m verdict --list` in tests/ shows which cases."""
    found = score(all_scored(way))

    assert found.ranks >= 0.95 * found.cases, list(failures(way))
    assert found.kinds >= 0.95 * found.cases, list(failures(way))
    assert found.wrong_certain == 0, list(failures(way))
    assert found.forbidden == 0, list(failures(way))


@pytest.mark.parametrize("way", WAYS)
def test_a_verdict_names_lines_that_are_there_and_ranks_once(way: str) -> None:
    for one in all_scored(way):
        found = one.verdict
        if found is None:
            continue
        assert found.kind in get_args(Kind)
        assert found.certainty in get_args(Certainty)
        assert found.summary
        assert found.ranks == sorted({*found.ranks})
        assert found.followers == sorted({*found.followers} - {*found.ranks})
        assert found.rank is None or not found.ranks or found.rank in found.ranks
        names = {str(rank): f"std_log_process_{rank}.txt" for rank in one.case["ranks"]} | one.case.get("names", {})
        for line in found.evidence:
            whose = [rank for rank, name in names.items() if line.log.endswith(f"/{name}")]
            is_read_from_it = line.text.startswith("is in ")  # what the watchdog said, in other words
            if whose and way != WAYS[1] and not is_read_from_it:
                assert line.line
                text = one.case["ranks"][whose[0]].splitlines()[line.line - 1]
                # Of a record with frames, the name and the message are in different fields.
                parts = line.text[:20].split(": ") if text.startswith("{") else [line.text[:20]]
                assert all(part.strip() in text for part in parts), (one.case["id"], line)
                assert line.rank in (int(whose[0]), None) or str(line.rank) not in names or len(names) == 1


def test_the_page_has_this_score() -> None:
    page = (REPOSITORY / "docs" / "failures.md").read_text(encoding="utf-8")

    assert "\n".join(table()) in page


def test_cases_are_whole() -> None:
    kinds = {*get_args(Kind), None}

    assert len({case["id"] for case in cases()}) == len(cases()) > 110
    assert all(case["truth"]["kind"] in kinds for case in cases())
    assert all(case["ranks"] or case["service"] or case["other"] for case in cases())


# --- the table of signatures


@pytest.mark.parametrize("signature", [*EXCEPTIONS, *LINES, *WHOLE], ids=lambda s: f"{s.gate}-{s.pattern[:20]}")
def test_a_signature_says_what_it_finds(signature: Any) -> None:
    compiled(signature.pattern)
    assert signature.gate
    assert signature.role != "root" or signature.kind != "unknown"
    assert signature.role != "cascade" or signature.certainty != "certain" or signature.kind == "unknown"


@pytest.mark.parametrize("signature", [*EXCEPTIONS, *LINES, *WHOLE], ids=lambda s: f"{s.gate}-{s.pattern[:20]}")
def test_the_gate_of_a_signature_is_in_all_that_it_finds(signature: Any) -> None:
    """The gate is a short cut, and changes nothing: so each text that a pattern needs has a word of it."""
    assert is_needed(parser.parse(signature.pattern, re.MULTILINE), signature.gate.split("|"))


def is_needed(pattern: Any, words: Sequence[str]) -> bool:
    """Whether all that a pattern finds has one of the words."""
    run = ""
    for operator, argument in [*pattern, ("end", None)]:
        if str(operator) == "LITERAL":
            run += chr(argument)
            continue
        if any(word in run for word in words):
            return True
        run = ""
        if str(operator) == "SUBPATTERN" and not argument[1] & re.IGNORECASE and is_needed(argument[3], words):
            return True
        if str(operator) in ("MAX_REPEAT", "MIN_REPEAT") and argument[0] and is_needed(argument[2], words):
            return True
        if str(operator) == "BRANCH" and all(is_needed(one, words) for one in argument[1]):
            return True
    return False


def test_a_word_of_a_signature_is_found_in_a_line_like_one_seen_before() -> None:
    """Digits are looked at by the pattern, not by the search for words."""
    gone, harmless = (f"NVRM: Xid (PCI:0001:00:00): {code}, pid=7" for code in (79, 13))

    assert [verdict({0: line}).kind for line in (harmless, gone, harmless)] == ["unknown", "gpu-hardware", "unknown"]
