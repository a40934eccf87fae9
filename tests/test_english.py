"""Messages, docstrings and documents are plain English: phrases that sound translated do not come back."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("azml_dist/**/*.py"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("environments/**/*.md"),
        *ROOT.glob("samples/**/*.md"),
        *ROOT.glob("samples/**/*.py"),
        *ROOT.glob("samples/**/*.ipynb"),
    ]
)
INSTEAD = {
    r"(?:is|are|was|were) not given\b": "by default; if you leave it out",
    r"what stands? (?:in|here|there|on|below|between)\b": "what is in",
    r"stands? here twice": "appears twice",
    r"(?:that|which|it|they|texts?) stands? in (?:a|an|the|it|its|their|one)\b": "is in",
    r"\bnobody of\b": "azml_dist, or whoever it was",
    r"\btakes? no notice of": "ignores",
    r"\b(?:is|are) told by\b": "an active verb",
    r"\b(?:is|are) taken for (?!granted)": "counts as",
    r"\bworth a second look": "probably a mistake",
    r"\banew\b": "again",
    r"\bfor ever\b": "forever",
    r"\bso many times\.": "up to N times",
    r"\bof a sweep its\b": "the trials of a sweep",
    r"\bstandard library alone\b": "only the standard library",
    r"\b(?:this|that|one) rank alone\b": "only this rank",
    r"\ball that is wrong\b": "everything wrong",
    r"\bonce more kills\b": "press Ctrl-C again to kill it",
    r"\bneeds nothing of ours\b": "needs no changes",
    r"\bexit as it does\b": "exit with its status",
    r"\bwhat can be written\b": "what you can write",
    r"\bnothing good comes of\b": "would fail",
    r"\b(?:no|a|an|the) [a-z]+ of ours\b": "our ...",
    r"\bnone is given\b": "by default",
    r"[.:;] (?-i:Of) (?:an?|more|long|several|secret|runs|logs)\b": "the subject first: the trials of a sweep",
    r"\bof yours\b": "your",
    r"\bstill going on\b": "still running; has not ended",
}


@pytest.mark.parametrize("phrase", INSTEAD)
def test_a_phrase_that_sounds_translated_is_said_plainly(phrase: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)

    found = {str(file.relative_to(ROOT)): pattern.findall(text) for file, text in texts().items()}

    assert not {file: hits for file, hits in found.items() if hits}, f"say: {INSTEAD[phrase]}"


@cache
def texts() -> dict[Path, str]:
    """Each file as running text: strings and comments that go over several lines are joined."""
    return {file: joined(file.read_text(encoding="utf-8")) for file in TEXTS if not _is_built(file)}


def joined(text: str) -> str:
    return " ".join(re.sub(r'"\s*\n\s*[fr]?"|\n\s*# |\\n",\n\s*"', " ", text).split())


def _is_built(file: Path) -> bool:
    return any(part.startswith(".") or part == "node_modules" for part in file.relative_to(ROOT).parts)


def test_a_phrase_is_found_across_lines() -> None:
    assert joined('f"the port is not"\n        f" given"') == 'f"the port is not given"'
    assert joined("# it is not\n    # given") == "# it is not given"
