"""Each rank's output is in its own file, byte for byte, and on the console line by line, none torn and none lost."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import resource
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from running import CLI, call, cli, find, launchers, log_of, pytorch, run_here, write_job

from azml_dist import Local, RunFailed
from azml_dist.local.merged import Writer
from azml_dist.local.replay import Reader
from azml_dist.local.run import LocalRun
from azml_dist.runs.logs import Labeller, Piece, Source, whole_lines

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


def written_at_random(folder: Path, seed: int, ranks: int, attempts: int) -> list[Source]:
    """Logs as ranks may write them: in pieces cut anywhere, with empty lines, and last ones without an end."""
    random = Random(seed)
    (folder / "user_logs").mkdir()
    for attempt in range(attempts):
        writer = Writer(folder, LOGS[:ranks], attempt)
        for _ in range(random.randrange(12)):
            writer.write(
                random.randrange(ranks), random.choice([b"\n", b"a\n", b"b", b"cc\nd", b"e\n\nf\n", b"ggg\n" * 5])
            )
        for rank in range(ranks):
            writer.end(rank)
        writer.close()
    return [Source(rank, 0) for rank in range(ranks)]


LOGS = [f"user_logs/std_log_process_{rank}.txt" for rank in range(3)]


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("attempts", [1, 3])
def test_the_last_lines_of_each_rank_are_the_end_of_its_lines_however_these_were_written(
    ranks: int, attempts: int, tmp_path: Path
) -> None:
    """In the order in which all lines arrived."""
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        sources = written_at_random(folder, seed, ranks, attempts)
        for wanted in (None, frozenset([ranks - 1])):
            everything = shown(folder, sources, wanted)
            for count in range(len(everything) + 2):
                kept = {source.label.encode(): count for source in sources}
                expected: list[bytes] = []
                for line in reversed(everything):
                    label = line[: line.index(b"]") + 1]
                    expected[:0] = [line] * bool(kept[label])
                    kept[label] = max(0, kept[label] - 1)
                assert shown(folder, sources, wanted, count) == expected, (seed, count)


def shown(folder: Path, sources: list[Source], wanted: frozenset[int] | None, tail: int | None = None) -> list[bytes]:
    """The lines of the ranks, without those that tell of a further attempt."""
    reader, labeller = Reader(folder, LOGS[: len(sources)], wanted), Labeller(sources)
    if tail is not None:
        labeller.begin_after(reader.begin_at_last(tail))
    lines = b"".join([*map(labeller.label, reader.read()), labeller.end()]).splitlines()
    reader.close()
    return [line for line in lines if b"] -- attempt " not in line]


def test_a_tail_tells_of_the_attempt_that_begins_in_it(tmp_path: Path) -> None:
    (tmp_path / "user_logs").mkdir()
    for attempt in range(2):
        writer = Writer(tmp_path, LOGS[:2], attempt)
        for rank in range(2):
            writer.write(rank, f"{attempt}\n".encode())
        writer.close()
    reader, labeller = Reader(tmp_path, LOGS[:2]), Labeller([Source(0, 0), Source(1, 0)])

    labeller.begin_after(reader.begin_at_last(1))

    assert b"".join(map(labeller.label, reader.read())).splitlines() == [
        b"[node0 rank0] -- attempt 2 --",
        b"[node0 rank0] 1",
        b"[node0 rank1] -- attempt 2 --",
        b"[node0 rank1] 1",
    ]
    reader.close()


def test_what_comes_after_the_last_lines_is_followed(tmp_path: Path) -> None:
    (tmp_path / "user_logs").mkdir()
    writer = Writer(tmp_path, LOGS[:2])
    writer.write(0, b"1\n2\n3\nbeg")
    reader, labeller = Reader(tmp_path, LOGS[:2]), Labeller([Source(0, 0), Source(1, 0)])

    labeller.begin_after(reader.begin_at_last(1))
    assert b"".join(map(labeller.label, reader.read())) == b"[node0 rank0] 3\n"
    writer.write(1, b"other\n")
    writer.write(0, b"un\n4\n")
    writer.close()
    assert b"".join(map(labeller.label, reader.read())) == (
        b"[node0 rank1] other\n[node0 rank0] begun\n[node0 rank0] 4\n"
    )
    reader.close()


def test_a_record_that_is_half_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "user_logs").mkdir()
    writer = Writer(tmp_path, LOGS[:1])
    writer.write(0, b"first\n")
    writer.write(0, b"second\n")
    writer.close()
    index = tmp_path / "merged.idx"
    whole = index.read_bytes()
    reader = Reader(tmp_path, LOGS[:1])

    seen = []
    for size in range(len(whole) + 1):
        index.write_bytes(whole[:size])
        seen.append(b"".join(piece.data for piece in reader.read()))
    reader.close()

    assert [data for data in seen if data] == [b"first\n", b"second\n"]
    cut = Reader(tmp_path, LOGS[:1])
    index.write_bytes(whole[:-1])
    cut.begin_at_last(5)
    assert list(cut.read()) == [Piece(0, b"first\n")]
    cut.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors")
def test_a_reader_leaves_no_descriptor(tmp_path: Path) -> None:
    run = run_here(pytorch("echo $RANK", processes=2), launcher="direct")
    before = len(os.listdir("/proc/self/fd"))

    for logs in (run.logs(), run.logs(tail=1), run.logs(tail=0), run.logs(rank=1)):
        list(logs)
        next(iter(logs), None)
    assert len(os.listdir("/proc/self/fd")) == before


def test_logs_of_more_processes_than_files_may_be_open_are_read() -> None:
    run = run_here(pytorch("echo $RANK; echo again $RANK", processes=260), launcher="direct")

    _, size, said = limited(resource.RLIMIT_NOFILE, 256, "logs", run.name)

    assert said == ""
    assert size == sum(len(f"[node0 rank{r}] {r}\n[node0 rank{r}] again {r}\n") for r in range(260))


def test_a_log_that_is_gone_is_said_in_one_line() -> None:
    run = run_here(pytorch("echo $RANK", processes=2), launcher="direct")
    (run.folder / run.state().processes[1].log).unlink()

    ended = call("logs", run.name)

    assert ended.returncode != 0
    assert "std_log_process_1.txt cannot be read: No such file or directory" in ended.stderr
    assert call("logs", run.name, "--rank", "0").stdout == "[node0 rank0] 0\n"


LARGE = 1 << 30
LITTLE = 400 << 20
"""Bytes of address space: what the command line takes by itself, and some."""


@pytest.fixture
def large() -> LocalRun:
    """A run that failed, whose log ends in a line of a gigabyte; it takes no room on the disk."""
    run = run_here(pytorch("echo first; echo second; exit 3"), launcher="direct")
    log = run.folder / run.state().processes[0].log
    before = log.stat().st_size
    os.truncate(log, LARGE)
    with open(run.folder / "merged.idx", "ab") as index:
        index.write(struct.pack("<IQ", 0, LARGE - before))
    return run


def limited(what: int, most: int, *args: str) -> tuple[int, int, str]:
    """Exit code, bytes on stdout, and stderr of the command line that may use so much of something."""
    with subprocess.Popen(
        [*CLI, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(what, (most, most)),
    ) as process:
        assert process.stdout
        assert process.stderr
        size = 0
        while data := process.stdout.read(1 << 20):
            size += len(data)
        said = process.stderr.read().decode()
    return process.returncode, size, said


def test_a_log_of_any_size_takes_little_memory(large: LocalRun) -> None:
    shown = LARGE - len("first\n") + 2 * len("[node0 rank0] ") + len("\n")

    assert limited(resource.RLIMIT_AS, LITTLE, "logs", large.name, "--tail", "2") == (0, shown, "")
    assert limited(resource.RLIMIT_AS, LITTLE, "cancel", large.name)[0] == 0


def test_the_end_of_a_log_in_an_error_is_short_whatever_the_log(large: LocalRun) -> None:
    with pytest.raises(RunFailed) as failed:
        large.wait()

    assert 0 < len(failed.value.log_tail) < 20_000


def test_a_line_of_many_megabytes_is_read_in_the_time_of_its_length() -> None:
    chunks = [b"x" * 4096] * 50_000  # in quadratic time, an hour
    [line] = whole_lines(chunks)

    assert len(line) == 4096 * 50_000


def test_a_pipelines_last_lines_are_those_of_each_of_its_steps(tmp_path: Path) -> None:
    steps = {name: {"command": f"echo {name}1; echo {name}2", "compute": "azureml:c"} for name in "abc"}
    (tmp_path / "p.yml").write_text(json.dumps({"type": "pipeline", "name": "p", "jobs": steps}))
    assert call("run", tmp_path / "p.yml").returncode == 0

    everything = list(find("p").logs())

    assert len(everything) == 6
    for count in range(8):
        assert list(find("p").logs(tail=count)) == [line for n, line in enumerate(everything) if n % 2 >= 2 - count]


def test_a_reader_closes_all_that_it_opened(tmp_path: Path) -> None:
    """Whether it has read to the end, or whoever follows stops in the middle."""
    run = run_here(pytorch("echo one; echo two", 2, 2))
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(3):
        list(run.chunks())
        chunks = run.chunks(follow=True)
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        next(iter(run.logs(rank=0)))
        list(run.logs(tail=1))

    assert len(os.listdir("/proc/self/fd")) == before
