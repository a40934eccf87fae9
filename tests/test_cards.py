"""The card that ends a run that failed: the same wherever it is seen, with all that has to be known."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import CLI, call, pytorch, run_here
from submitting import code_in
from terminals import at_terminal

from azml_dist import Local, RunFailed
from azml_dist.local.ending import duration_text
from azml_dist.local.pages import member_text
from azml_dist.local.run import LocalRun
from azml_dist.local.state import MemberState, RunState
from azml_dist.page.members import table_of
from azml_dist.show import Card, Page, Row, Table, Told, page_html, page_text, wrapped
from azml_dist.status import RunStatus
from azml_dist.verdict.card import ending, evidence
from azml_dist.verdict.verdict import STOPPED, Evidence, Verdict

SCRIPT = """\
import os, time
print("step 1, loss 0.9", flush=True)
if os.environ["RANK"] == "1":
    raise KeyError("labels")
time.sleep(60)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """A run of two ranks, the second of which fails."""
    folder = tmp_path_factory.mktemp("card")
    code = code_in(folder / "src", {"crash.py": SCRIPT})
    job = pytorch("python crash.py", processes=2, code=str(code), outputs={}, name="card")
    return run_here(job, root=folder / "runs", launcher="direct")


def rows(run: LocalRun) -> list[str]:
    return [
        "  why      rank 1: KeyError: 'labels'",
        f"  where    {run.folder.parents[1] / 'src' / 'crash.py'}:4",
        '             raise KeyError("labels")',
        "  before   step 1, loss 0.9",
        "  others   rank 0 was stopped",
        f"  logs     {run.folder / 'user_logs'}",
        "  again    azml-dist logs card --rank 1",
        "  next     azml-dist why card",
    ]


def shown(run: LocalRun) -> Iterator[tuple[str, str]]:
    root = str(run.folder.parent)
    yield "status", call("status", "card", "--root", root).stdout
    yield "logs --follow", call("logs", "card", "--follow", "--root", root).stderr
    yield "print(run)", str(run)
    with pytest.raises(RunFailed) as failed:
        run.wait()
    yield "RunFailed", str(failed.value)
    yield "a notebook's traceback", "\n".join(failed.value._render_traceback_())


def test_it_is_the_same_wherever_a_run_ends(run: LocalRun) -> None:
    for where, text in shown(run):
        assert text.splitlines()[-8:] == rows(run), where
        assert text.splitlines()[-9].startswith("run card: Failed in "), where


def test_why_adds_the_cause_and_the_lines_that_say_so(run: LocalRun) -> None:
    lines = call("why", "card", "--root", run.folder.parent).stdout.splitlines()

    assert lines[1:8] == [rows(run)[0], "  cause    user-code (certain)", *rows(run)[1:6]]
    assert lines[-2:] == ["evidence", "  rank 1, user_logs/std_log_process_1.txt:5: KeyError: 'labels'"]


def test_a_notebook_shows_it_with_the_same_rows(run: LocalRun) -> None:
    html = run._repr_html_()

    assert "<b>rank 1: KeyError: &#x27;labels&#x27;</b>" in html
    assert "raise KeyError(&quot;labels&quot;)</pre>" in html
    assert html.index("run card: Failed in ") < html.index("azml-dist why card")


@pytest.mark.parametrize(
    ("variables", "coloured"), [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_it_has_colours_only_where_they_are_wanted(run: LocalRun, variables: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    argv = [*CLI, "why", "card", "--root", str(run.folder.parent)]
    env = {name: text for name, text in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"} | variables
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=env) as process:
        process.wait(timeout=60)
        text = os.read(ours, 65536).decode()
    os.close(theirs)
    os.close(ours)

    assert "KeyError" in text
    assert ("\x1b[1;31mrun card: Failed" in text) == ("\x1b" in text) == coloured


def test_the_place_is_that_of_the_file_only_while_its_line_is_the_same(run: LocalRun) -> None:
    file = run.folder.parents[1] / "src" / "crash.py"
    before = file.read_text()
    file.write_text("\n" + before)
    moved = str(run)
    file.write_text(before)

    assert "  where    crash.py:4\n" in moved
    assert f"  where    {file}:4\n" in str(run)


def test_it_is_no_wider_than_a_terminal_but_for_what_is_to_be_clicked_or_copied() -> None:
    long = "one word after another " * 20
    path = "/a/folder with blanks/" + "of a long name " * 8
    card = Card("run x: Failed", [Row("why", long), Row("where", "x.py:1", [long]), Row("logs", path, whole=True)])
    lines = page_text(Page([], [card])).splitlines()

    assert [line for line in lines if len(line) > 80] == [f"  logs     {path.strip()}"]


def test_in_a_narrow_terminal_it_is_narrower(tmp_path: Path) -> None:
    words = "; ".join(["one word after another"] * 6)
    run = run_here(pytorch(["python", "-c", f"raise ValueError('{words}')"], name="narrow"), root=tmp_path)

    with at_terminal("why", run.name, "--root", tmp_path, columns=50) as terminal:
        assert terminal.end() == 0

    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.raw.decode()).splitlines()
    assert "           another; one word after another; one" in lines
    assert [line for line in lines if len(line) > 50 and str(tmp_path) not in line] == []


def test_a_table_that_is_too_wide_for_a_terminal_loses_the_middle_of_its_longest_texts() -> None:
    name = f"validation/{'very_' * 20}long/loss"
    page = Page([], [Table(("metric", "last"), [(name, "0.5"), ("loss", "0.1")])])

    assert page_text(page, width=50).splitlines() == [
        f"metric{' ' * 38}  last",
        f"{name[:22]}…{name[-21:]}  0.5",
        f"loss{' ' * 40}  0.1",
    ]
    assert name in page_text(page)


def test_prose_is_wrapped_beside_its_word_in_a_terminal_and_is_one_line_in_a_pipe() -> None:
    page = Page([], [Told([("warning", "one word after another"), ("hint", "`no-such-blank-in-this-word`")])])

    assert page_text(page, width=30) == (
        "warning  one word after\n         another\nhint     `no-such-blank-in-this-word`"
    )
    assert page_text(page).splitlines()[0] == "warning  one word after another"


def test_what_a_run_wrote_does_nothing_to_a_terminal_or_a_page() -> None:
    card = Card("run \x1b[31m<b>", [Row("why", "\x1b]0;title\x07<script>", ["\x1b[2J<script>\tx"])])

    for colour in (False, True):
        text = page_text(Page([], [card]), colour=colour)
        assert not {"\x1b]", "\x1b[31m", "\x1b[2J", "\x07"} & {
            text[i : i + n] for n in (1, 2, 4, 5) for i in range(len(text))
        }
    assert "<script>" not in page_html(Page([], [card]))


VERDICT = Verdict(
    kind="user-code",
    certainty="likely",
    rank=2,
    ranks=[2, 5],
    node=0,
    exception="KeyError",
    message="'x'",
    file=None,
    line=None,
    source=None,
    summary="rank 2 and 1 more: KeyError: 'x'",
    hint=None,
    followers=[0, 1, 3],
    evidence=[],
    consequence="Connection closed by peer",
)


def rows_of(verdict: Verdict, *code: Path, in_full: bool = False) -> dict[str, str]:
    card = ending("run x", RunStatus.FAILED, "", verdict, code=code, in_full=in_full)
    return {row.name: row.text for row in card.rows}


def test_consequences_are_counted_and_not_listed() -> None:
    assert list(rows_of(VERDICT).items()) == [
        ("why", "rank 2 and 1 more: KeyError: 'x' (likely)"),
        ("also", "rank 5 failed in the same way"),
        ("others", "3 other ranks failed as a consequence (connection closed by peer)"),
    ]


@pytest.mark.parametrize(
    ("change", "others"),
    [
        ({"consequence": STOPPED}, "3 other ranks were stopped"),
        ({"consequence": STOPPED, "followers": [7]}, "rank 7 was stopped"),
        ({"consequence": None}, "3 other ranks failed or were stopped as a consequence"),
        ({"consequence": None, "followers": [7]}, "rank 7 failed or was stopped as a consequence"),
        ({"kind": "hang", "followers": [7]}, "rank 7 waits"),
        ({"kind": "hang", "rank": None, "ranks": []}, "3 ranks wait"),
        ({"kind": "canceled"}, None),
        ({"followers": []}, None),
    ],
)
def test_what_became_of_the_others_is_said_in_a_word(change: dict[str, Any], others: str | None) -> None:
    assert rows_of(replace(VERDICT, **change)).get("others") == others


def test_of_many_ranks_that_failed_alike_some_are_named() -> None:
    ten, nine = (replace(VERDICT, ranks=list(range(count))) for count in (11, 9))

    assert rows_of(ten)["also"] == "ranks 0, 1, 3, 4, 5, 6, 7, 8 and 2 more failed in the same way"
    assert rows_of(nine)["also"] == "ranks 0, 1, 3, 4, 5, 6, 7, 8 failed in the same way"
    assert "also" not in rows_of(replace(VERDICT, rank=None))


@pytest.mark.parametrize(
    ("certainty", "cause"),
    [("certain", "certain"), ("likely", "likely"), ("unknown", "not known for sure")],
)
def test_in_full_the_cause_is_said_with_how_certain_it_is(certainty: Any, cause: str) -> None:
    found = replace(VERDICT, certainty=certainty, kind="exit-code", exception=None)
    in_full = rows_of(found, in_full=True)

    assert (in_full["why"], in_full["cause"]) == (VERDICT.summary, f"exit-code ({cause})")
    assert "why" not in rows_of(found), "the run's own error says as much"
    assert ("last" in rows_of(replace(found, before=("a",)))) is True
    assert "before" in rows_of(replace(VERDICT, before=("a",)))


def test_the_place_is_that_of_the_file_here_only_if_its_line_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    file = tmp_path / "src" / "crash.py"
    file.write_text("a = 1\n    b = 2\n")
    found = replace(VERDICT, file="crash.py", line=2, source="b = 2", summary="rank 2: KeyError (crash.py:2)")
    here = f"{file}:2"

    assert rows_of(found, tmp_path / "other", tmp_path / "src")["where"] == here
    assert rows_of(found, file)["where"] == here
    assert rows_of(found, file)["why"] == "rank 2: KeyError (likely)", "its place is in the row below"
    for other in ({"source": "b = 3"}, {"line": 1}, {"line": 9}, {"file": "sub/crash.py"}, {"line": 3, "source": "x"}):
        moved = replace(found, **other)
        assert rows_of(moved, tmp_path / "src")["where"] == f"{moved.file}:{moved.line}"
    assert rows_of(replace(found, file=str(file)), tmp_path / "src")["where"] == here
    assert rows_of(replace(found, file="other.py"), file)["where"] == "other.py:2"


def test_the_lines_that_say_so_have_their_rank_and_place() -> None:
    lines = [
        Evidence(2, "user_logs/std_log_process_2.txt", 7, "KeyError: 'x'"),
        Evidence(None, "", None, "the words of the service"),
        Evidence(3, "run.json", None, "word " * 200),
    ]
    (block,) = evidence(replace(VERDICT, evidence=lines))
    text = page_text(Page([], [block]))

    assert "rank 2, user_logs/std_log_process_2.txt:7: KeyError: 'x'" in text
    assert "the service: the words of the service" in text
    assert "rank 3, run.json: word word" in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("word word") <= 6 * 8
    assert evidence(VERDICT) == []


def test_a_run_that_goes_on_has_been_running_for_some_time() -> None:
    assert ending("run x", RunStatus.RUNNING, "9 min", None).head == "run x: Running for 9 min"


def test_the_end_says_its_status_and_how_long_it_took() -> None:
    places = [("logs", "/a"), ("output", "")]
    done = ending("run x", RunStatus.COMPLETED, "3 s", None, places=places, hint="do this")
    canceled = ending("run x", RunStatus.CANCELED, "", None)

    assert (done.head, done.good) == ("run x: Completed in 3 s", True)
    assert [(row.name, row.text) for row in done.rows] == [("hint", "do this"), ("logs", "/a")]
    assert (canceled.head, canceled.good, canceled.rows) == ("run x: Canceled", None, [])


def test_cards_and_tables_say_in_the_same_words_how_long_it_took() -> None:
    trial = MemberState("trial 0", "x", started_at=100.0, ended_at=11_500.0)
    sweep = RunState("sweep", "/sweep", kind="sweep", started_at=100.0, ended_at=11_500.0, members=[trial])

    assert duration_text(sweep) == "3 h 10 min"
    assert "3 h 10 min" in member_text(sweep, trial)
    assert any("3 h 10 min" in row for row in table_of([trial], None, None).rows if row)


def test_the_last_words_of_a_rank_without_an_exception_are_shown(tmp_path: Path) -> None:
    code = code_in(tmp_path / "src", {"x.py": "import sys\nprint('loading')\nsys.exit('no data left')"})
    run = run_here(pytorch("python x.py", code=str(code), outputs={}), root=tmp_path / "runs", launcher="direct")

    assert "error  rank 0 failed with exit code 1" in str(run)
    assert "  last     loading\n           no data left\n  logs     " in str(run)


def test_a_run_that_was_stopped_does_not_count_its_ranks(tmp_path: Path) -> None:
    stopped = Local(root=tmp_path, launcher="direct", timeout=0.5).submit(pytorch("sleep 60", processes=2, outputs={}))
    with pytest.raises(RunFailed) as failed:
        stopped.wait(timeout=60)

    assert "was cancelled: it ran for longer than its timeout of 0.5 s" in str(failed.value)
    assert "ranks" not in str(failed.value)


def test_a_message_is_wrapped_at_a_terminal_but_not_within_a_command(tmp_path: Path) -> None:
    with at_terminal("status", "none", "--root", tmp_path / "a folder", columns=50) as terminal:
        assert terminal.end() == 2
    in_a_pipe = call("status", "none", "--root", tmp_path / "a folder").stderr

    said = terminal.raw.decode().replace("\r\n", "\n")
    assert said.replace("\n  ", " ") == in_a_pipe
    assert "error: " in said
    assert wrapped("type `azml-dist check job.yml` now", 20) == ["type", "`azml-dist check job.yml`", "now"]
