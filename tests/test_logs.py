"""Each rank's output is in its own file, byte for byte, and on the console line by line, none torn and none lost."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from running import CLI, call, cli, launchers, log_of, pytorch, run_here, write_job

from azml_dist import Local
from azml_dist.local.merged import Piece, Reader, Writer
from azml_dist.logs import Labeller, Source

RANKS, LINES = 4, 30_000
LOUD = """\
import os, sys
r = os.environ['RANK']
for i in range(%d): sys.stdout.write(f'{r} {i} ' + 'x' * (i %% 90) + '\\n')
"""
LABELLED = re.compile(r"\[node(\d) rank(\d)\] (.*)")


@launchers
def test_no_line_is_lost_or_torn_while_all_ranks_write_as_fast_as_they_can(launcher: str, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD % LINES)
    job = write_job(tmp_path, "python loud.py", 2, 2, code=str(tmp_path))

    ended = call("run", job, "--launcher", launcher)

    assert ended.returncode == 0
    next_line = Counter[str]()
    for line in ended.stdout.splitlines():
        label = LABELLED.fullmatch(line)
        assert label, line
        rank, number, rest = label[3].split(" ", 2)
        assert (label[1], label[2]) == (str(int(rank) // 2), rank)
        assert int(number) == next_line[rank]
        assert rest == "x" * (int(number) % 90)
        next_line[rank] += 1
    assert next_line == {str(rank): LINES for rank in range(RANKS)}


@launchers
def test_bytes_that_are_not_text_and_a_last_line_without_an_end_are_kept(launcher: str) -> None:
    run = run_here(pytorch(r"printf 'caf\351\n'; printf '\0\377 no end'"), launcher=launcher)

    assert (run.folder / "user_logs/std_log_process_0.txt").read_bytes() == b"caf\xe9\n\0\xff no end"
    assert b"".join(run.chunks()) == b"[node0 rank0] caf\xe9\n[node0 rank0] \0\xff no end\n"
    assert list(run.logs(rank=0)) == ["caf\ufffd", "\0\ufffd no end"]


def test_standard_output_and_error_are_one_log_in_the_order_of_writing() -> None:
    run = run_here(pytorch("echo 1; echo 2 >&2; echo 3"), launcher="direct")

    assert log_of(run, 0) == "1\n2\n3\n"


def test_lines_are_shown_in_the_order_in_which_they_were_written_across_ranks(tmp_path: Path) -> None:
    """Rank 1 writes, then rank 0, in turns: a file for each, and one order in all."""
    turn = "while [ ! -e $1 ]; do sleep 0.01; done; echo $2; sleep 0.2; touch $3"
    steps = {0: [("start", "second", "b"), ("c", "fourth", "d")], 1: [("b0", "first", "start"), ("b", "third", "c")]}
    script = tmp_path / "turns.sh"
    script.write_text(
        f"turn() {{ {turn}; }}\n"
        + "\n".join(
            f"if [ $RANK = {rank} ]; then {'; '.join('turn ' + ' '.join(step) for step in mine)}; fi"
            for rank, mine in steps.items()
        )
    )
    (tmp_path / "b0").touch()

    run = run_here(pytorch("bash turns.sh", processes=2, code=str(tmp_path)), launcher="direct")

    assert [line.split()[-1] for line in run.logs()] == ["first", "second", "third", "fourth"]


def test_one_line_of_many_megabytes_stays_one_line() -> None:
    length = 5_000_000
    script = f"import os; os.write(1, b'a' * {length}); print()"

    run = run_here(pytorch(["python", "-c", script], processes=2), launcher="direct")

    lines = b"".join(run.chunks()).splitlines()
    assert [len(line) for line in lines] == [length + len("[node0 rank0] ")] * 2


def test_a_rank_or_a_node_can_be_read_alone_and_from_its_end() -> None:
    run = run_here(pytorch("for i in 1 2 3; do echo $RANK-$i; done", 2, 2), launcher="direct")

    assert list(run.logs(rank=3)) == ["3-1", "3-2", "3-3"]
    assert sorted(run.logs(node=1)) == [f"[node1 rank{rank}] {rank}-{i}" for rank in (2, 3) for i in (1, 2, 3)]
    assert list(run.logs(rank=3, tail=1)) == ["3-3"]
    assert call("logs", run.name, "--rank", "2", "--tail", "2").stdout == "[node1 rank2] 2-2\n[node1 rank2] 2-3\n"
    assert "2-2" in run.logs()


def test_following_ends_with_the_run_and_misses_no_line(tmp_path: Path) -> None:
    run = Local(launcher="direct").submit(pytorch("for i in $(seq 50); do echo $i; sleep 0.01; done"))

    assert list(run.logs(rank=0, follow=True)) == [str(i) for i in range(1, 51)]
    assert run.status == "Completed"


def test_a_follower_that_comes_late_gets_every_line_from_the_first(tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo first; while [ ! -e go ]; do sleep 0.01; done; echo last", name="late")

    with cli("run", job, "--launcher", "direct") as owner:
        assert owner.stdout
        owner.stdout.readline()
        with cli("logs", "late", "--follow") as follower:
            assert follower.stdout
            assert follower.stdout.readline() == "[node0 rank0] first\n"
            [working_dir] = Path(os.environ["AZML_DIST_ROOT"]).glob("late/nodes/0")
            (working_dir / "go").touch()
            assert follower.stdout.read() == "[node0 rank0] last\n"
            assert follower.wait(timeout=30) == 0


def test_with_json_logs_go_to_stderr_and_stdout_holds_one_object(tmp_path: Path) -> None:
    ended = call("run", write_job(tmp_path, "echo hello"), "--launcher", "direct", "--json")

    assert json.loads(ended.stdout)["status"] == "Completed"
    assert "[node0 rank0] hello\n" in ended.stderr


def test_labels_are_coloured_on_a_terminal_alone(tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo hello")
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}

    subprocess.run(
        [*CLI, "run", str(job), "--launcher", "direct"],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=environment,
        timeout=60,
    )

    os.close(theirs)
    assert os.read(ours, 4096) == b"\x1b[36m[node0 rank0]\x1b[0m hello\r\n"
    os.close(ours)
    assert call("run", job, "--launcher", "direct").stdout == "[node0 rank0] hello\n"


def test_a_reader_sees_whole_lines_only(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    writer, reader = Writer(tmp_path, ["a", "b"]), Reader(tmp_path, ["a", "b"])

    writer.write(0, b"one\ntw")
    assert list(reader.read()) == [Piece(0, b"one\n")]
    writer.write(1, b"other\n")
    writer.write(0, b"o\n")
    assert list(reader.read()) == [Piece(1, b"other\n"), Piece(0, b"two\n")]
    writer.write(1, b"no end")
    writer.end(1)
    assert list(reader.read()) == [Piece(1, b"no end")]
    reader.close()


def test_a_last_line_without_an_end_does_not_run_into_the_next_ranks() -> None:
    labeller = Labeller([Source(0, 0), Source(1, 0)])

    text = b"".join(map(labeller.label, [Piece(0, b"no end"), Piece(1, b"next\n")])) + labeller.end()

    assert text == b"[node0 rank0] no end\n[node0 rank1] next\n"


def test_a_notebook_prints_lines_as_they_come() -> None:
    run = run_here(pytorch("echo shown"), launcher="direct")
    stdout, sys.stdout = sys.stdout, io.StringIO()
    try:
        run.logs(rank=0)._ipython_display_()
        assert sys.stdout.getvalue() == "shown\n"
    finally:
        sys.stdout = stdout
