"""Scores the verdict against failures whose cause is known: as folders of logs, and as runs whose ends were seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from azml_dist.verdict.dumps import judge_with
from azml_dist.verdict.folder import read_logs
from azml_dist.verdict.known import Ended, Known
from azml_dist.verdict.verdict import Verdict

CORPUS = Path(__file__).with_name("corpus.jsonl")
WAYS = ("as a folder of logs", "as a folder, the launcher's words in rank 0's log", "as a run whose ends were seen")
_ORDER = {"unknown": 0, "likely": 1, "certain": 2}
Case = dict[str, Any]


class Scored(NamedTuple):
    """A case, and what became of it."""

    case: Case
    verdict: Verdict | None
    rank_right: bool
    kind_right: bool
    wrong_certain: bool
    """It is wrong and says that it is certain; or more certain than the texts allow."""
    forbidden: tuple[str, ...]
    """What it says and must not."""


class Score(NamedTuple):
    """How many of the cases are right."""

    cases: int
    ranks: int
    kinds: int
    wrong_certain: int
    forbidden: int


@cache
def cases() -> Sequence[Case]:
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def score(scored: Sequence[Scored]) -> Score:
    return Score(
        len(scored),
        sum(one.rank_right for one in scored),
        sum(one.kind_right for one in scored),
        sum(one.wrong_certain for one in scored),
        sum(bool(one.forbidden) for one in scored),
    )


def all_scored(way: str) -> list[Scored]:
    return [scored(case, way) for case in cases()]


def scored(case: Case, way: str) -> Scored:
    """What the verdict on a case is worth."""
    with TemporaryDirectory() as folder:
        write(case, Path(folder), appended=way == WAYS[1])
        found = read_logs(folder)
    known = found.known
    if way == WAYS[2]:
        known = Known(known.logs, {int(rank): _ended(end) for rank, end in case["ends"].items()}, known.said)
    return _held_against(case, judge_with(known, found.dumps))


def write(case: Case, folder: Path, *, appended: bool = False) -> None:
    """The logs of a case under Azure ML's names."""
    logs = folder / "user_logs"
    logs.mkdir()
    texts = {int(rank): text for rank, text in case["ranks"].items()}
    if case["launcher"]:
        if appended and texts:
            texts[min(texts)] += "\n" + case["launcher"]
        else:
            (folder / "launcher.log").write_text(case["launcher"] + "\n", encoding="utf-8")
    for rank, text in texts.items():
        name = case.get("names", {}).get(str(rank), f"std_log_process_{rank}.txt")
        (logs / name).write_text(text + "\n", encoding="utf-8")
    if case["service"]:
        (folder / "details.json").write_text(json.dumps(case["service"]), encoding="utf-8")
    for name, text in case["other"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")


def table() -> Iterator[str]:
    """The score, as lines of Markdown."""
    yield "| each case | cases | rank right | kind right | wrong and certain | says what it must not |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for way in WAYS:
        one = score(all_scored(way))
        rank, kind = (f"{count} ({100 * count / one.cases:.0f} %)" for count in (one.ranks, one.kinds))
        yield f"| {way} | {one.cases} | {rank} | {kind} | {one.wrong_certain} | {one.forbidden} |"


def _ended(end: dict[str, Any]) -> Ended:
    code, signal = end.get("code"), end.get("signal")
    return Ended(code, signal, stopped=signal == 15 or code == 143)


def _held_against(case: Case, verdict: Verdict | None) -> Scored:
    truth = case["truth"]
    if truth["kind"] is None or verdict is None:
        right = truth["kind"] is None and verdict is None
        forbidden = ("there is no failure",) if truth["kind"] is None and verdict and verdict.kind != "unknown" else ()
        return Scored(case, verdict, right, right, bool(forbidden), forbidden)
    ranks = {truth["rank"], *(truth["ranks"] or ())}
    rank_right = verdict.rank in ranks
    kind_right = verdict.kind in {truth["kind"], *truth["accept"]}
    too_certain = _ORDER[verdict.certainty] > _ORDER[truth["certainty_max"]]
    certain = verdict.certainty == "certain"
    wrong_certain = certain and (too_certain or not rank_right or not kind_right)
    return Scored(case, verdict, rank_right, kind_right, wrong_certain, tuple(_forbidden(case, verdict)))


def _forbidden(case: Case, verdict: Verdict) -> Iterator[str]:
    never = case.get("never", {})
    if verdict.kind in never.get("kinds", ()):
        yield f"kind {verdict.kind}"
    if verdict.rank in never.get("ranks", ()):
        yield f"rank {verdict.rank}"
    if verdict.file and any(part in verdict.file for part in never.get("files", ())):
        yield f"file {verdict.file}"
    said = " ".join(filter(None, (verdict.summary, verdict.message, verdict.hint)))
    for text in never.get("says", ()):
        if text in said:
            yield f"it says {text!r}"


def failures(way: str) -> Iterator[str]:
    """The cases that are not right, each with what was said of it."""
    for one in all_scored(way):
        if not (one.rank_right and one.kind_right) or one.wrong_certain or one.forbidden:
            truth, said = one.case["truth"], one.verdict
            marks = "".join(
                mark if bad else ""
                for mark, bad in (
                    ("R", not one.rank_right), ("K", not one.kind_right), ("C", one.wrong_certain), ("N", one.forbidden)
                )
            )  # fmt: skip
            got = f"{said.kind}/{said.rank}/{said.certainty}: {said.summary}" if said else "no verdict"
            yield f"{marks:4} {one.case['id']}: {truth['kind']}/{truth['rank']}, got {got} {one.forbidden or ''}"
