"""What people see while a run runs: a foot below its lines at a terminal, the last state of progress bars, no more."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from time import process_time
from typing import Any, TextIO

import pytest
from needs import needs
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress
from rich.text import Text
from running import CLI, LOG, await_, call, cli, find, pytorch, run_here, write_job
from terminals import Terminal, at_terminal

from azml_dist import Local
from azml_dist.cli.foreground import follow
from azml_dist.cli.prelude import LONG, Starting
from azml_dist.local.find import find as find_run
from azml_dist.runs.bars import for_terminal, last_states, last_text, state_of
from azml_dist.runs.folding import MOMENT, Folding
from azml_dist.runs.foot import RankLine, Seen, foot_lines, grouped
from azml_dist.runs.logs import Labeller, Piece, Source

SOURCES = [Source(0, 0), Source(1, 0)]


# Lines that rewrite themselves


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        (b"plain\n", b"plain\n"),
        (b"windows\r\nends\r\n", b"windows\r\nends\r\n"),
        (b"\r 0%|  | 0/2\r50%|# | 1/2\r100%|##| 2/2\n", b"100%|##| 2/2\n"),  # tqdm
        (b"\r50%|# | 1/2\r          \rdone\n", b"done\n"),  # tqdm(leave=False), and a line after it
        (b"1/2 loss 1\b\b\b\b\b\b\b\b\b\b\r2/2 loss 0\n", b"2/2 loss 0\n"),  # Keras
        (b"a\rb\n\nc\rd\r\n", b"b\n\nd\r\n"),
        (b"whole\n50%\r60%", b"whole\n60%"),
        (b"50%\r", b"50%\r"),
    ],
)
def test_a_line_that_rewrites_itself_is_what_it_says_last(written: bytes, printed: bytes) -> None:
    assert last_states(written) == printed


def test_what_is_left_of_a_bar_does_not_depend_on_where_the_pieces_were_cut() -> None:
    written = b"start\r\n\r10%\r20%\r\r30%\x08\x08\rend 100%\nnext\nlast 1%\rlast 2%\r"
    for first in range(len(written)):
        for second in range(first, len(written)):
            labeller = Labeller(SOURCES)
            pieces = [written[:first], written[first:second], written[second:]]
            text = b"".join(labeller.label(Piece(0, piece)) for piece in pieces if piece) + labeller.end()
            assert text.replace(b"\r\n", b"\n") == (
                b"[node0 rank0] start\n[node0 rank0] end 100%\n[node0 rank0] next\n[node0 rank0] last 2%\n"
            )


def test_a_bar_of_a_rank_that_ended_does_not_run_into_the_lines_of_another() -> None:
    labeller = Labeller(SOURCES)

    text = b"".join(map(labeller.label, [Piece(0, b"1%\r2%"), Piece(1, b"next\n")])) + labeller.end()

    assert text == b"[node0 rank0] 2%\n[node0 rank1] next\n"


def test_the_time_to_find_the_last_states_grows_with_the_bytes() -> None:
    """Neither lines without a carriage return nor thousands of them in one line take longer than their length."""
    began = process_time()
    last_states(b"x" * 4_000_000 + b"\ra\n")
    last_states(b"50%\r" * 1_000_000)
    last_states(b"a line\n" * 500_000 + b"a\rb")

    assert process_time() - began < 2


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b[2Jcleared\x1b[1;1H\n", b"cleared\n"),
        (b"\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", b"textlink\n"),
        (b"\x1b[31mred\nplain\n", b"\x1b[31mred\x1b[0m\nplain\n"),
        (b"\x1b[?25l\x1b[?1049hhidden\x1bc\x07\x9b\xc2\x9b2J\n", b"hidden\x9b2J\n"),
        ("é·日本\ttab\n".encode(), "é·日本\ttab\n".encode()),
        (b"\x1b]0;never ends\nnext\n", b"\nnext\n"),
    ],
)
def test_a_terminal_gets_colours_but_nothing_that_moves_clears_or_names_it(written: bytes, shown: bytes) -> None:
    assert for_terminal(written) == shown


def written_by(show: Callable[[TextIO], Any]) -> bytes:
    """What a library writes into the pipe of a rank."""
    pipe = io.BytesIO()
    with io.TextIOWrapper(pipe, encoding="utf-8", newline="", write_through=True) as file:
        show(file)
        return pipe.getvalue()


@needs("tqdm")
def test_the_bars_of_tqdm_show_their_state_and_leave_their_last() -> None:
    from tqdm import tqdm

    def half(file: TextIO) -> None:
        bar = tqdm(total=4, file=file, mininterval=0)
        bar.update(2)

    whole = written_by(lambda file: [*tqdm(range(4), file=file, mininterval=0, desc="epoch")])

    assert str(last_text(written_by(half))).startswith("50%|█████")
    assert re.fullmatch(rb"epoch: 100%\|[^\r\n]* 4/4 [^\r\n]*\n", last_states(whole))
    assert whole.count(b"\r") > 3


def test_the_bars_of_rich_show_their_state_and_leave_their_last() -> None:
    def begun(file: TextIO) -> None:
        console = Console(file=file, force_terminal=True, width=80)
        with Progress(console=console, auto_refresh=False) as progress:
            task = progress.add_task("epoch", total=4)
            progress.update(task, completed=2, refresh=True)
            seen.append(last_text(file.buffer.getvalue()))  # type: ignore[attr-defined]
            progress.update(task, completed=4, refresh=True)

    seen: list[str | None] = []
    whole = for_terminal(last_states(written_by(begun)))

    assert re.match(r"epoch ━+.* 50%", str(seen[0]))
    assert re.search(r"epoch ━+ 100%", Text.from_ansi(whole.decode()).plain)
    assert whole.count(b"\n") == 1


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (b"", None),
        (b"\n \n", None),
        (b"one\ntwo\n", "two"),
        (b"one\n50%|##\r60%|###", "60%|###"),
        (b"one\n60%|###\r        \r", "one"),
        (b"one\n\x1b[1mbold\x1b[0m 3/4\b\b\b\b\r", "bold 3/4"),
        (b"\xff\xfe\x1b]0;title\x07\n", "\ufffd\ufffd"),
    ],
)
def test_the_last_line_of_a_rank_is_what_it_shows(end: bytes, text: str | None) -> None:
    assert last_text(end) == text
    assert state_of(b"a\rb\r") == b"b"


# Equal lines of many ranks


def folded(pieces: list[Piece], ranks: int, count: int | None = None) -> str:
    labeller = Folding([Source(rank, rank // 8) for rank in range(ranks)], count or ranks)
    return (b"".join(map(labeller.label, pieces)) + labeller.end()).decode()


def test_equal_lines_of_many_ranks_are_one_with_their_ranks() -> None:
    done = [Piece(rank, b"epoch 1 done\n") for rank in range(20)]

    assert folded(done, 20) == "[ranks 0-19] epoch 1 done\n"
    assert folded([*done[:3], Piece(19, b"other\n"), *done[5:19]], 20) == (
        "[ranks 0, 1, 2 and 5-18] epoch 1 done\n[node2 rank19] other\n"
    )
    assert folded(done[:1], 20) == "[node0 rank0] epoch 1 done\n"
    assert (
        folded([Piece(0, b"no end"), Piece(1, b"no end"), Piece(2, b"1%\rno end\n")], 20)
        == "[ranks 0, 1 and 2] no end\n"
    )
    assert folded([Piece(r, b"again\n", attempt) for attempt in (0, 1) for r in range(20)], 20) == (
        "[ranks 0-19] again\n[ranks 0-19] -- attempt 2 --\n[ranks 0-19] again\n"
    )


def test_lines_are_printed_once_all_ranks_have_written_them_or_a_moment_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    labeller = Folding([Source(rank, 0) for rank in range(20)], 20)

    assert not labeller.label(Piece(0, b"one\ntwo\n"))
    now[0] += MOMENT / 2
    assert not labeller.label(Piece(1, b"one\n"))
    assert not labeller.ready()
    now[0] += MOMENT / 2
    assert labeller.ready() == b"[ranks 0 and 1] one\n[node0 rank0] two\n"
    assert not labeller.label(Piece(2, b"one\n"))
    assert labeller.end() == b"[node0 rank2] one\n"


def ranks_in(label: str) -> list[int]:
    """The ranks in `node0 rank3`, or in `ranks 0-6 and 8`."""
    spans = re.findall(r"(\d+)(?:-(\d+))?", label.rpartition("rank")[2])
    return [rank for first, last in spans for rank in range(int(first), int(last or first) + 1)]


def test_the_lines_of_each_rank_stay_in_order_and_none_is_lost() -> None:
    for seed in range(50):
        random = Random(seed)
        written: dict[int, list[str]] = {rank: [] for rank in range(20)}
        pieces = []
        for _ in range(400):
            rank, lines = random.randrange(20), [random.choice("abc") for _ in range(random.randrange(1, 4))]
            written[rank] += lines
            pieces.append(Piece(rank, "".join(f"{line}\n" for line in lines).encode()))
        read: dict[int, list[str]] = {rank: [] for rank in range(20)}
        for line in folded(pieces, 20).splitlines():
            label, text = line[1:].split("] ")
            for rank in ranks_in(label):
                read[rank].append(text)
        assert read == written


@pytest.mark.slow
def test_more_than_16_ranks_are_folded_but_not_into_files(tmp_path: Path) -> None:
    file = write_job(tmp_path, "echo epoch 1 done; echo $RANK", processes=18, name="live")

    ended = call("run", file, "--launcher", "direct")

    lines = ended.stdout.splitlines()
    assert set(lines) >= {f"[node0 rank{rank}] {rank}" for rank in range(18)}
    assert len([line for line in lines if "epoch" in line and line.startswith("[ranks ")]) > 0
    assert call("logs", "live").stdout.splitlines()[0] == "[ranks 0-17] epoch 1 done"
    assert len(call("logs", "live", "--no-fold").stdout.splitlines()) == 36
    assert len(list(find("live").logs())) == 36
    with open(tmp_path / "file", "w") as target:
        subprocess.run([*CLI, "logs", "live"], stdout=target, check=True)
    assert (tmp_path / "file").read_text().count("epoch 1 done\n") == 18
    assert call("logs", "live", "--rank", "3").stdout == "[node0 rank3] epoch 1 done\n[node0 rank3] 3\n"


# What the foot says


def lines(count: int, text: str = "epoch {} of rank {}") -> list[RankLine]:
    return [RankLine((r,), text.format(r // 8, r), float(r), "", Source(r, r // 8)) for r in range(count)]


def plain(foot: list[str]) -> list[str]:
    return [Text.from_ansi(line).plain.rstrip() for line in foot]


@pytest.mark.parametrize("columns", [20, 59, 79, 200])
@pytest.mark.parametrize("rows", [1, 2, 3, 6, 22])
@pytest.mark.parametrize("count", [0, 1, 4, 16, 17, 512])
def test_the_foot_fits_into_any_terminal(columns: int, rows: int, count: int) -> None:
    said = "日本語 50%|█████     | 3/6 [00:06<00:06,  3.99it/s] {} {}\t\x1b[2J\u202e"
    seen = Seen(
        "a-run-with-a-long-name-3f2a91", "running 12 s", "2 nodes", lines(count, said), {"loss": 0.5, "日": 1e-9}
    )

    foot = foot_lines(seen, columns, rows)

    assert len(foot) <= rows
    assert all(cell_len(line) <= columns for line in plain(foot))
    assert not re.search(r"\x1b\[(?![0-9;]*m)|\u202e", "".join(foot))


def test_up_to_16_ranks_have_a_line_each_with_their_label_and_its_age() -> None:
    foot = plain(foot_lines(Seen("x", "running 20 s", "", lines(16)), 79, 40))

    assert foot[:3] == ["", "running 20 s  x", f"{'[node0 rank0]  epoch 0 of rank 0':<74}  0 s"]
    assert foot[-1] == f"{'[node1 rank15] epoch 1 of rank 15':<73}  15 s"
    assert len(foot) == 18


def test_ranks_that_say_the_same_are_one_line_with_the_longest_silence() -> None:
    said = [RankLine((r,), "epoch 1 done" if r != 3 else None, None if r == 3 else float(r)) for r in range(6)]

    assert [(line.ranks, line.text, line.age) for line in grouped(said)] == [
        ((0, 1, 2, 4, 5), "epoch 1 done", 5.0),
        ((3,), None, None),
    ]


def test_ranks_of_two_trials_are_two() -> None:
    trials = [RankLine((0,), "same", 0.0, "", Source(0, 0, member=f"trial{number}")) for number in (1, 2)]

    assert grouped(trials) == trials


def test_more_ranks_are_grouped_by_the_words_that_they_say() -> None:
    said = [line._replace(text="Traceback") if line.ranks == (40,) else line for line in lines(64)]

    assert [(line.ranks[0], line.ranks[-1], line.age) for line in grouped(said)] == [(0, 63, 63.0), (40, 40, 40.0)]
    late = [line._replace(age=9.0 if line.ranks == (13,) else 0.5) for line in lines(64)]
    assert [(len(line.ranks), line.text, line.age) for line in grouped(late)] == [
        (63, "epoch 0 of rank 0", 0.5),
        (1, "epoch 1 of rank 13", 9.0),
    ]
    words = [RankLine((r,), "word " * (r + 1), float(r)) for r in range(64)]
    assert [len(line.ranks) for line in grouped(words)] == [1] * 7 + [57]


# At a terminal

SCRIPT = """
import os, sys, time
rank, step = os.environ["RANK"], 0
print("rank", rank, "begins", flush=True)
while not os.path.exists("stop"):
    step += 1
    sys.stderr.write(f"\\rbar of rank {rank}: {step}")
    if os.path.exists("more"):
        print(*(f"rank {rank} line {n}" for n in range(40)), sep="\\n", flush=True)
        os.remove("more")
    time.sleep(0.05)
sys.stderr.write("\\n")
print("rank", rank, "ends")
"""


def job(folder: Path, processes: int = 1) -> Path:
    """Ranks on two nodes; a file in the working directory of a node tells its rank what to do."""
    (folder / "src").mkdir()
    (folder / "src" / "bar.py").write_text(SCRIPT)
    return write_job(folder, "python bar.py", nodes=2, processes=processes, code="src", name="live")


def tell(what: str, *nodes: int) -> None:
    for node in nodes:
        (Path(os.environ["AZML_DIST_ROOT"]) / "live" / "nodes" / str(node) / what).touch()


def bars(text: str) -> dict[str, int]:
    """The state of each bar on a screen, by label."""
    return {label: int(step) for label, step in re.findall(r"^(\[.*?\]) +bar of rank \d: (\d+)", text, re.MULTILINE)}


@pytest.mark.slow
def test_a_foot_shows_the_bars_and_the_lines_scroll_above_it_each_once(tmp_path: Path) -> None:
    with at_terminal("run", job(tmp_path), "--launcher", "direct") as terminal:
        terminal.wait_for(lambda text: re.search(r"\nrunning \d+ s  live  2 nodes x 1 process = 2\n", text))
        text = terminal.wait_for(lambda text: len(bars(text)) == 2)
        before = bars(text)
        terminal.wait_for(lambda text: len(bars(text)) == 2 and min(bars(text).values()) > max(before.values()))

        for columns in (60, 20, 80):
            terminal.resize(columns, 24)
            begun = len(terminal.raw)
            terminal.wait_for(lambda _, begun=begun: terminal.raw[begun:].count(b"\x1b[J") > 2)  # type: ignore[misc]
            assert sum(line.startswith("running ") for line in terminal.everything) == 1
        tell("more", 0, 1)
        terminal.wait_for(lambda _: sum(line.endswith(" line 39") for line in terminal.everything) == 2)
        terminal.type("\n")  # a bored reader
        tell("stop", 0, 1)
        assert terminal.end() == 0
        assert terminal.is_as_it_was()
        seen = [line for line in terminal.everything if line]

    assert seen[0] == "run live: 2 nodes x"  # this terminal had cut it when it was narrow
    assert sum(line.startswith("run live: Completed in ") for line in seen) == 1
    for rank in (0, 1):
        own = [line for line in seen if line.startswith(f"[node{rank} rank{rank}] rank")]
        said = ["begins", *(f"line {n}" for n in range(1, 40)), "ends"]
        own[0] += " begins"  # what was on the narrow screen, too
        assert own == [f"[node{rank} rank{rank}] rank {rank} {line}" for line in said]
        # The script's bar has not ended when the first line comes: both are one.
        assert next(line for line in seen if line.startswith(f"[node{rank} rank{rank}] bar")).endswith("line 0")
    assert len(seen) == len(set(seen))
    assert b"\x1b[?25l" not in terminal.raw
    log = find("live").folder / "user_logs/std_log_process_0.txt"
    assert log.read_bytes().count(b"\rbar of rank 0: ") > 2  # every byte


@pytest.mark.slow
def test_the_foot_has_the_last_values_of_metrics(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "log.py").write_text(LOG)
    run = run_here(pytorch("python log.py loss 0.5 0.25", code=str(tmp_path / "src")), launcher="direct")

    seen = run.watching()()

    assert seen.metrics == {"loss": 0.25}
    assert re.fullmatch(r"completed \d+ s", seen.phase)
    assert [(line.ranks, line.text, line.ended) for line in seen.lines] == [((0,), None, "exit 0")]


@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with at_terminal("run", job(tmp_path), "--launcher", "direct") as terminal:
        terminal.wait_for(lambda text: len(bars(text)) == 2)
        terminal.type("\x03")

        assert terminal.end() == 130
        assert terminal.is_as_it_was()
        text = "\n".join(terminal.everything)

    assert "\nstopping live; press Ctrl-C again to kill it\n" in text
    assert "\nrun live: Canceled in " in text
    assert not re.search(r"^(running|stopping) \d+ s", text, re.MULTILINE)


@contextmanager
def in_a_shell(*args: object) -> Iterator[Terminal]:
    """The command line in the foreground of a shell that has job control, and can be typed to."""
    env = {"PS1": "prompt> ", "INPUTRC": "/dev/null", "HISTFILE": ""}
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], 80, 24, env)
    try:
        terminal.wait_for(lambda text: "prompt>" in text)
        terminal.type(f"clear; {shlex.join([*CLI, *map(str, args)])}\n")
        yield terminal
    finally:
        terminal.close()


def is_at_the_prompt(text: str) -> bool:
    return text.splitlines()[-1:] == ["prompt>"]


def stopped(text: str) -> bool:
    """Whether the shell says that the command is stopped."""
    return is_at_the_prompt(text) and re.search(r"^\[1\]\+ +Stopped ", text, re.MULTILINE) is not None


@pytest.mark.slow
def test_ctrl_z_leaves_the_terminal_to_the_shell_and_fg_draws_the_foot_again(tmp_path: Path) -> None:
    with in_a_shell("run", job(tmp_path, processes=4), "--launcher", "direct") as terminal:
        terminal.wait_for(lambda text: len(bars(text)) == 8)
        log = find("live").folder / "user_logs/std_log_process_0.txt"
        for time in (1, 2):
            terminal.wait_for(lambda text: len(bars(text)) == 8)
            terminal.type("\x1a")
            terminal.wait_for(stopped)
            assert not terminal.screen.cursor.hidden
            size = log.stat().st_size
            await_(lambda size=size: log.stat().st_size > size + 100)  # type: ignore[misc] # the run continues
            terminal.type(f"echo un{time}touched\n")
            text = terminal.wait_for(lambda text: re.search(r"\nun\dtouched\nprompt>$", text))
            assert not bars(text)
            assert not re.search(r"^running \d", text, re.MULTILINE)
            terminal.type("clear; fg\n")
        terminal.wait_for(lambda text: len(bars(text)) == 8)
        tell("stop", 0, 1)
        text = terminal.wait_for(lambda text: "run live: Completed in" in text and is_at_the_prompt(text))

    assert not re.search(r"^running \d", text, re.MULTILINE)
    assert sum(line == "[node0 rank0] rank 0 ends" for line in terminal.everything) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["logs --follow", "wait"])
def test_ctrl_z_is_the_same_where_a_run_is_followed(command: str, tmp_path: Path) -> None:
    assert call("run", job(tmp_path, processes=4), "--launcher", "direct", "--detach").returncode == 0
    word, *options = command.split()
    with in_a_shell(word, "live", *options) as terminal:
        terminal.wait_for(lambda text: len(bars(text)) == 8)
        terminal.type("\x1a")
        text = terminal.wait_for(stopped)
        assert not bars(text)
        assert not terminal.screen.cursor.hidden
        terminal.type("clear; fg\n")
        terminal.wait_for(lambda text: len(bars(text)) == 8)
        tell("stop", 0, 1)
        text = terminal.wait_for(is_at_the_prompt)

    assert not re.search(r"^running \d", text, re.MULTILINE)


@pytest.mark.slow
def test_ctrl_z_stops_nothing_that_no_shell_can_continue(tmp_path: Path) -> None:
    """As in a container whose first process is the command: it is the leader of an orphaned process group."""
    with at_terminal("run", job(tmp_path), "--launcher", "direct") as terminal:
        before = bars(terminal.wait_for(lambda text: len(bars(text)) == 2))
        terminal.type("\x1a")
        terminal.wait_for(lambda text: len(bars(text)) == 2 and min(bars(text).values()) > max(before.values()) + 5)
        tell("stop", 0, 1)

        assert terminal.end() == 0
        assert terminal.is_as_it_was()


@pytest.mark.slow
@pytest.mark.parametrize("why", ["TERM=dumb", "NO_COLOR=1", "CI=true", "--plain"])
def test_there_is_no_foot_where_it_is_not_wanted(why: str, tmp_path: Path) -> None:
    file = write_job(tmp_path, r"printf 'one\n1%%\r2%%\n'", name="live")
    name, is_variable, value = why.partition("=")
    options = [] if is_variable else [why]
    env = {name: value} if is_variable else {}
    with at_terminal("run", file, "--launcher", "direct", *options, env=env) as shown:
        assert shown.end() == 0

    assert b"\x1b[J" not in shown.raw
    assert b"\x1b[?2026" not in shown.raw
    assert ("\x1b" in shown.raw.decode()) == (why in ("CI=true", "--plain"))  # colours
    assert re.search(rb"\[node0 rank0\][^ ]* one\r\n[^ ]*\[node0 rank0\][^ ]* 2%\r\n", shown.raw)


@pytest.mark.slow
def test_a_pipe_gets_the_last_state_alone_and_its_log_every_byte(tmp_path: Path) -> None:
    file = write_job(tmp_path, r"printf 'one\n1%%\r2%%\r3%%\nend 1%%\rend 2%%'", name="live")

    ended = call("run", file, "--launcher", "direct")

    assert ended.stdout == "[node0 rank0] one\n[node0 rank0] 3%\n[node0 rank0] end 2%\n"
    assert not re.search("[\x1b\r]", ended.stderr)
    assert list(find("live").logs(rank=0)) == ["one", "3%", "end 2%"]
    assert (find("live").folder / "user_logs/std_log_process_0.txt").read_bytes() == (
        b"one\n1%\r2%\r3%\nend 1%\rend 2%"
    )


@pytest.mark.slow
def test_whoever_waits_or_follows_has_a_foot_and_leaves_the_run_alone(tmp_path: Path) -> None:
    with cli("run", job(tmp_path), "--launcher", "direct") as owner:
        await_(lambda: find_run("live") and all(p.pid for p in find("live").state().processes))
        with at_terminal("wait", "live", columns=60) as waiting:
            waiting.wait_for(lambda text: len(bars(text)) == 2)
            waiting.type("\x03")
            assert waiting.end() == 130
            assert waiting.is_as_it_was()
            assert "run live continues: cancel it with `azml-dist cancel live`" in " ".join(waiting.everything)
        hang = find("live").folder / "hang.json"
        hang.write_text('{"still_for": 1.0, "verdict": null, "stacks": null}')
        assert find("live").watching()().note == "nothing moves: `azml-dist stacks live` shows where each rank is"
        hang.unlink()
        with at_terminal("logs", "live", "--follow", "--rank", "1") as following:
            text = following.wait_for(bars)
            assert list(bars(text)) == ["[node1 rank1]"]
            assert "[node0" not in text
            tell("stop", 0, 1)
            assert following.end() == 0
            assert sum("rank 1 ends" in line for line in following.everything) == 1
        assert owner.wait(timeout=60) == 0

    ended = call("wait", "live", "--json")
    assert json.loads(ended.stdout)["status"] == "Completed"
    assert call("wait", "live", "--timeout", "5").returncode == 0


@pytest.mark.slow
def test_a_wait_gives_up_and_says_so(tmp_path: Path) -> None:
    with cli("run", write_job(tmp_path, "sleep 60", name="live"), "--launcher", "direct"):
        await_(lambda: find_run("live"))

        ended = call("wait", "live", "--timeout", "0.1")

    assert ended.returncode == 2
    assert re.fullmatch(r"error: run live is still \w+ after 0.1 s\nhint: .*\n", ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "code", "said"), [(["--rank", "1"], 0, ""), (["--rank", "2"], 2, "no rank 2")])
def test_one_rank_alone_is_shown(options: list[str], code: int, said: str, tmp_path: Path) -> None:
    ended = call("run", write_job(tmp_path, "echo $RANK", processes=2, name="live"), "--launcher", "direct", *options)

    assert ended.returncode == code
    assert ended.stdout == ("[node0 rank1] 1\n" if code == 0 else "")
    assert said in ended.stderr


@needs("torch")
def test_what_happens_before_the_first_line_is_shown(tmp_path: Path) -> None:
    file = write_job(tmp_path, "while [ ! -e stop ]; do sleep 0.1; done", nodes=2, name="live")
    with at_terminal("run", file) as terminal:
        terminal.wait_for(lambda _: terminal.has_shown(r"importing torch \d+ s  live  2 nodes x 1"))
        text = terminal.wait_for(lambda text: re.search(r"^running \d+ s  live", text, re.MULTILINE) and text)
        assert "[ranks 0 and 1] no line yet" in text
        tell("stop", 0, 1)
        assert terminal.end() == 0


@pytest.mark.slow
def test_who_asks_is_told_how_far_the_copies_are(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name in "abc":
        (tmp_path / "src" / name).write_text(name * 100)
    told: list[str] = []

    Local(launcher="direct").submit(pytorch("true", 2, code=str(tmp_path / "src")), tell=told.append).wait(timeout=60)

    assert len(told) == 6
    assert told[-1] == "staging 6 of 6 files, 600 bytes of 600 bytes"


@needs("torch")
def test_where_there_is_no_foot_a_long_start_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("azml_dist.cli.prelude.LONG", 0.2)

    follow(Local().submit(pytorch("echo hello")), as_json=False)

    told = capfd.readouterr()
    assert told.out == "[node0 rank0] hello\n"
    assert re.search(r"^note: (importing torch|starting processes), \d+ s so far$", told.err, re.MULTILINE)


def test_what_is_prepared_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    starting = Starting()
    for seconds in (1, LONG - 1, LONG + 1, LONG + 2, 2 * LONG + 1):
        now[0] = seconds
        starting.tell(f"staging {seconds:g}")

    assert capfd.readouterr().err == f"note: staging {LONG + 1:g}\nnote: staging {2 * LONG + 1:g}\n"


def test_the_guide_shows_the_foot_as_it_is() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "logs-and-failures.md").read_text(encoding="utf-8")
    block = re.search(r"((?:^    .*\n)+)", guide[guide.index("    running 42 s") :], re.MULTILINE)
    assert block
    shown = [line[4:] for line in block[1].splitlines()]
    pattern = r"\[(?:node\d rank|ranks )(\d)(?: and (\d))?\] +(.*?) +(\d) s"
    said = [found for line in shown[1:-1] if (found := re.fullmatch(pattern, line))]
    ranks = [
        RankLine((int(rank),), found[3], float(found[4]), "", Source(int(rank), int(rank) // 2))
        for found in said
        for rank in found.groups()[:2]
        if rank
    ]
    seen = Seen("digits-2x2-3f2a91", "running 42 s", "2 nodes x 2 processes = 4", ranks)

    assert len(ranks) == 4
    assert plain(foot_lines(seen._replace(metrics={"loss": 0.2814, "test_accuracy": 0.9139}), 79, 22))[1:] == shown
