"""Who keeps whom waiting, by where all processes are: pictures of runs, written as what is known of each process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from azml_dist.verdict.collectives import Entry, Group, Trace
from azml_dist.verdict.hang import AT_ITS_END, Diagnosis, Picture, Seen, diagnose, is_passing_through, verdict_of
from azml_dist.verdict.stacked import Stacks
from azml_dist.verdict.stacks import Frame, Stack, Wait, from_faulthandler, from_py_spy, wait_of
from azml_dist.verdict.verdict import Evidence

C10D = "torch/distributed/distributed_c10d.py"
WRAPPER = Frame("torch/distributed/c10d_logger.py", 81, "wrapper")
WORLD = Group("0", (0, 1, 2, 3))


def own(line: int = 9, source: str = "step()", file: str = "train.py", function: str = "main") -> Frame:
    return Frame(file, line, function, True, source)


def inside(call: str, file: str = C10D) -> Frame:
    return Frame(file, 7, call)


def reduces(line: int = 9) -> Stack:
    return (inside("all_reduce"), WRAPPER, own(line, "dist.all_reduce(loss)"))


def receives(line: int = 9, call: str = "comm.recv(source=0)") -> Stack:
    return (own(line, call),)


READS: Stack = (own(3, "read()", "data.py", "read"), own(20))


def at(rank: int, *threads: Stack, **more: Any) -> Seen:
    return Seen(rank, 100 + rank, "python train.py", threads, **more)


def picture(*seen: Seen, **more: Any) -> Picture:
    return Picture(seen, **more)


def diagnosis(*seen: Seen, **more: Any) -> Diagnosis:
    found = diagnose(picture(*seen, **more))
    assert found
    return found


def entered(rank: int, number: int, *, left: bool = False, op: str = "all_reduce", line: int = 9) -> Trace:
    entries = [Entry(WORLD, one, op, "float32 [4]", True, own(line)) for one in range(1, number)]
    return Trace(rank, [*entries, Entry(WORLD, number, op, "float32 [4]", left, own(line))], (WORLD,))


# --- what a process waits in


@pytest.mark.parametrize(
    ("stack", "wait"),
    [
        (reduces(), Wait("collective", "all_reduce")),
        ((inside("all_gather"), inside("all_gather_object"), own()), ("collective", "all_gather_object")),
        ((inside("helper"), inside("recv"), own()), ("collective", "recv")),
        ((inside("barrier"), inside("_new_process_group_helper"), own()), ("rendezvous", "new_process_group_helper")),
        ((inside("x", "torch/distributed/elastic/rendezvous/api.py"), own()), ("rendezvous", "init_process_group")),
        ((inside("wait", "threading.py"), inside("__next__", "torch/utils/data/dataloader.py"), own()),
         ("data-loader", "the next batch of a DataLoader")),
        ((inside("execute", "tensorflow/python/eager/execute.py"), own()), ("tensorflow", "execute")),
        ((inside("wait", "threading.py"), inside("wait", "subprocess.py"), inside("run", "subprocess.py"), own()),
         ("process", "run")),
        ((inside("select", "selectors.py"), inside("get", "queue.py"), own()), ("lock", "get")),
        ((inside("read", "ssl.py"), inside("urlopen", "urllib/request.py"), own()), ("network", "urlopen")),
        ((own(source="time.sleep(3)"),), ("sleep", "sleep")),
        ((WRAPPER, own(source="time.sleep(3)")), ("sleep", "sleep")),
        ((inside("nap", "naps/deep.py"), own(source="time.sleep(3)")), None),
        ((own(source="a = b"),), None),
        ((inside("fit", "lightning/trainer.py"),), None),
        ((own(), inside("all_reduce"), own()), None),
        ((), None),
    ],
)  # fmt: skip
def test_the_frames_show_what_a_process_waits_in(stack: Stack, wait: Any) -> None:
    assert wait_of(stack) == wait


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("x = comm.recv(source=0)", "comm.recv"),
        ("self.world.Allreduce(a, b)", "world.Allreduce"),
        ("MPI.Request.Waitall(all)", "Request.Waitall"),
    ],
)
def test_a_call_of_mpi_is_seen_in_the_users_own_line(source: str, call: str) -> None:
    assert wait_of((own(source=source),), uses_mpi=True) == ("mpi", call)
    assert wait_of((own(source=source),)) is None, "as nothing says that the process uses MPI"
    assert wait_of((own(source="comm.rank"),), uses_mpi=True) is None


PY_SPY: list[dict[str, Any]] = [
    {"thread_name": "Thread-1", "pid": 5, "os_thread_id": 6, "frames": [
        {"filename": "/lib/python3.11/threading.py", "line": 3, "name": "wait"}]},
    {"thread_name": "idle", "pid": 5, "os_thread_id": 7, "frames": []},
    {"thread_name": "MainThread", "pid": 5, "os_thread_id": 5, "frames": [
        {"filename": "/x/site-packages/torch/distributed/distributed_c10d.py", "line": 7, "name": "all_reduce"},
        {"filename": "/code/sub/train.py", "line": 9, "name": "<module>.main"},
        {"filename": "/home/me/other.py", "line": None, "name": "go"}]},
]  # fmt: skip


def test_what_py_spy_prints_is_read_with_the_main_thread_first() -> None:
    main, other = from_py_spy(PY_SPY, ["/code"])

    assert main == (
        Frame(C10D, 7, "all_reduce"),
        Frame("sub/train.py", 9, "main", True),
        Frame("/home/me/other.py", 0, "go", True),
    )
    assert other == (Frame("threading.py", 3, "wait"),)


def test_a_main_thread_of_another_name_is_known_by_its_number() -> None:
    unnamed = [{**one, "thread_name": None} for one in PY_SPY]

    assert from_py_spy(unnamed, ["/code"]) == from_py_spy(PY_SPY, ["/code"])
    assert [stack[0].function for stack in from_py_spy([{**one, "pid": 9} for one in unnamed])] == [
        "wait",
        "all_reduce",
    ]
    assert from_py_spy([]) == []


def test_what_faulthandler_writes_is_read_with_the_main_thread_first() -> None:
    text = """\
words before it
  File "/code/no.py", line 1 in nothing
Thread 0x00007f3a [worker] (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 320 in wait

Thread 0x00007f3c (most recent call first):
Current thread 0x00007f3b (most recent call first):
  File "/code/data.py", line 7 in read
  File "/code/train.py", line 11 in <module>
"""
    assert from_faulthandler(text, ["/code/"]) == [
        (Frame("data.py", 7, "read", True), Frame("train.py", 11, "<module>", True)),
        (Frame("threading.py", 320, "wait"),),
    ]


# --- the odd one out


def test_a_rank_that_is_stopped_is_named_before_anything_else() -> None:
    one = diagnosis(at(0, reduces()), at(1, READS, is_stopped=True), at(2, reduces()))
    two = diagnosis(at(0, reduces()), at(1, is_stopped=True), at(2, is_stopped=True))

    assert one.summary == "rank 1 is stopped (SIGSTOP, or a debugger) (data.py:3)"
    assert (one.certainty, one.odd, one.waiting, one.frame) == ("certain", (1,), (0, 2), READS[0])
    assert one.hint == "`kill -CONT 101` lets it continue"
    assert two.summary == "ranks 1 and 2 are stopped (SIGSTOP, or a debugger)"
    assert two.hint == "`kill -CONT 101 102` lets them continue"


def test_the_rank_that_has_not_entered_a_collective_is_named_with_its_line() -> None:
    seen = [at(rank, reduces()) for rank in (0, 1, 3)]
    traces = [entered(0, 3), entered(1, 3), entered(2, 2, left=True), entered(3, 3)]
    found = diagnosis(*seen, at(2, READS), traces=traces)

    assert found.summary == (
        "rank 2 has not entered all_reduce #3, in which ranks 0, 1 and 3 wait (rank 2 is at data.py:3, ranks 0, 1 and 3"
        " at train.py:9)"
    )
    assert (found.certainty, found.odd, found.waiting, found.frame) == ("certain", (2,), (0, 1, 3), READS[0])
    assert not found.is_moving
    assert diagnosis(*seen, at(2, READS, busy=0.1), traces=traces).is_moving
    assert not diagnosis(*seen, at(2, READS, busy=0.09), traces=traces).is_moving
    for busy, moves in ((0.1, True), (0.09, False), (None, False)):
        child = replace(at(2, READS, busy=busy), is_child=True, pid=9)
        assert diagnosis(*seen, at(2, READS), child, traces=traces).is_moving is moves


def test_a_rank_that_calls_another_collective_is_named_with_the_line_of_its_call() -> None:
    traces = [entered(0, 3), entered(1, 3, op="all_gather", line=4), entered(2, 3), entered(3, 3)]
    found = diagnosis(*(at(rank, reduces()) for rank in range(4)), traces=traces)

    assert (found.certainty, found.odd, found.waiting) == ("certain", (1,), (0, 2, 3))
    assert found.frame == own(4)
    assert found.summary.endswith("(rank 1 is at train.py:4, ranks 0, 2 and 3 at train.py:9)")


def test_only_ranks_that_wait_in_a_collective_are_said_to_be_at_it() -> None:
    """Only the root of a gather waits in it: another rank may already wait in what comes after."""
    later = Trace(1, [*entered(1, 3, left=True).entries, Entry(WORLD, 4, "barrier", "", False, own(14))], (WORLD,))
    traces = [entered(0, 3), later, entered(2, 2, left=True)]
    found = diagnosis(at(0, reduces()), at(1, reduces(14)), at(2, READS), traces=traces)

    assert found.summary == (
        "rank 2 has not entered all_reduce #3, in which rank 0 waits (rank 2 is at data.py:3, rank 0 at train.py:9)"
    )


def test_two_ranks_that_both_receive_keep_a_third_one_waiting() -> None:
    seen = [at(rank, (inside("recv"), WRAPPER, own(4 + rank, "dist.recv(x)"))) for rank in range(2)]
    world = Group("0", (0, 1, 2))
    numbers = (2, 2, 3)
    entries = [Entry(world, number, "all_reduce", "", number == 2, own()) for number in numbers]
    traces = [Trace(rank, [entry], (world,)) for rank, entry in enumerate(entries)]
    found = diagnosis(*seen, at(2, reduces()), traces=traces)

    assert found.summary == (
        "ranks 0 and 1 have not entered all_reduce #3, in which rank 2 waits (rank 0 is at train.py:4, rank 1 is at"
        " train.py:5, rank 2 at train.py:9)"
    )
    assert (found.certainty, found.odd, found.waiting) == ("likely", (), (2,))
    assert found.frame == own(4, "dist.recv(x)")


def test_of_two_against_two_nobody_is_named() -> None:
    traces = [entered(rank, 3, op="barrier" if rank % 2 else "all_reduce") for rank in range(4)]
    found = diagnosis(*(at(rank, reduces()) for rank in range(4)), traces=traces)

    assert (found.certainty, found.odd, found.waiting) == ("likely", (), (0, 1, 2, 3))
    assert found.frame == own()
    assert found.summary.endswith(" (at train.py:9)")


def test_a_rank_that_has_ended_is_named_with_how_it_did_and_where_the_others_wait() -> None:
    """By what torch has recorded, and by stacks."""
    seen = [at(rank, reduces()) for rank in (0, 1, 3)]
    recorded = diagnosis(*seen, traces=[entered(r, 3) for r in (0, 1, 3)], ended={2: "exit code 0"})
    seen_only = diagnosis(*seen, ended={2: "exit code 0"})

    assert (
        recorded.summary == "rank 2 has ended (exit code 0), and ranks 0, 1 and 3 wait in all_reduce #3 (at train.py:9)"
    )
    assert seen_only.summary == "rank 2 has ended (exit code 0), and ranks 0, 1 and 3 wait in all_reduce (train.py:9)"
    assert (recorded.certainty, seen_only.certainty) == ("certain", "likely")
    for found in (recorded, seen_only):
        assert (found.odd, found.waiting) == ((2,), (0, 1, 3))
        assert found.frame
        assert found.frame.at == "train.py:9"
        assert found.hint
        assert "the same number of calls" in found.hint


def test_if_most_ranks_have_ended_it_is_the_one_that_still_waits() -> None:
    found = diagnosis(at(0, reduces()), ended={1: "exit code 0", 2: "exit code 3"})

    assert found.summary == "ranks 1 and 2 have ended, and rank 0 waits in all_reduce (train.py:9)"
    assert (found.odd, found.waiting) == ((0,), (0,))


def test_a_rank_that_does_not_come_to_the_start_is_named() -> None:
    meets = (inside("init_process_group"), own(5))
    found = diagnosis(at(0, meets), at(1, meets), at(2, READS))
    all_meet = diagnosis(at(0, meets), at(1, meets))

    assert found.summary == "ranks 0 and 1 wait in init_process_group (train.py:5), and rank 2 is at data.py:3"
    assert (found.odd, found.waiting, found.frame, found.certainty) == ((2,), (0, 1), READS[0], "likely")
    assert all_meet.summary == "every rank waits in init_process_group (train.py:5) for processes that do not arrive"
    assert (all_meet.odd, all_meet.waiting, all_meet.frame) == ((), (0, 1), meets[1])
    assert all_meet.certainty == "likely"


def test_the_few_that_do_not_wait_are_named_and_if_they_compute_so() -> None:
    few = diagnosis(at(0, reduces()), at(1, reduces()), at(2))
    busy = diagnosis(at(0, reduces()), at(1, reduces()), at(2, busy=0.9))
    most = diagnosis(at(0, reduces()), at(1, READS), at(2, READS))
    half = diagnosis(at(0, reduces()), at(1, READS))

    assert few.summary == "ranks 0 and 1 wait in all_reduce (train.py:9), and rank 2 is elsewhere"
    assert (few.odd, few.waiting, few.frame, few.is_moving) == ((2,), (0, 1), None, False)
    assert busy.summary == "ranks 0 and 1 wait in all_reduce (train.py:9), and rank 2 is computing"
    assert busy.is_moving
    assert most.summary == "rank 0 waits in all_reduce (train.py:9), and ranks 1 and 2 are at data.py:3"
    assert (most.odd, most.waiting, most.frame) == ((), (0,), READS[0])  # rank 0, or the others: not known
    assert (half.odd, half.waiting, half.frame) == ((1,), (0,), READS[0])


def test_ranks_that_all_wait_are_told_apart_by_their_lines() -> None:
    one_line = diagnosis(*(at(rank, receives(), uses_mpi=True) for rank in range(3)))
    two_lines = diagnosis(*(at(rank, receives(4 if rank == 1 else 9), uses_mpi=True) for rank in range(3)))
    tie = diagnosis(*(at(rank, receives(4 + rank), uses_mpi=True) for rank in range(2)))
    alone = diagnosis(at(0, receives(), uses_mpi=True))

    assert one_line.summary == "every rank waits in comm.recv (train.py:9)"
    assert (one_line.odd, one_line.waiting) == ((), (0, 1, 2))
    assert two_lines.summary == "rank 1 waits in comm.recv (train.py:4); ranks 0 and 2 wait in comm.recv (train.py:9)"
    assert (two_lines.odd, two_lines.waiting, two_lines.frame) == ((1,), (0, 2), receives(4)[0])
    assert (tie.odd, tie.waiting, tie.frame) == ((), (0, 1), receives(4)[0])
    assert alone.summary == "rank 0 waits in comm.recv (train.py:9)"


def test_of_ranks_that_wait_for_no_other_the_one_at_another_line_is_named() -> None:
    sleeps = (own(8, "time.sleep(9)"),)
    waits = (inside("get", "queue.py"), own(6, "queue.get()"))
    odd = diagnosis(at(0, sleeps), at(1, waits), at(2, sleeps))
    all_same = diagnosis(at(0, waits), at(1, waits))
    apart = diagnosis(at(0, waits), at(1, sleeps), at(2))

    assert (
        odd.summary == "rank 1 waits in get at train.py:6: queue.get(); ranks 0 and 2 are at train.py:8: time.sleep(9)"
    )
    assert (odd.odd, odd.waiting, odd.frame) == ((1,), (), waits[1])
    assert all_same.summary == "ranks 0 and 1 wait in get at train.py:6: queue.get()"
    assert all_same.odd == (0, 1)
    assert apart.odd == (0, 1), "of a rank without a stack nothing is known"
    assert diagnose(picture(at(0, sleeps), at(1, waits, busy=0.5))) is None, "it computes"
    assert diagnose(picture(at(0), at(1))) is None
    assert diagnose(picture()) is None


def test_a_rank_that_waits_for_a_worker_is_where_the_worker_is() -> None:
    loads = (inside("wait", "threading.py"), inside("__next__", "torch/utils/data/dataloader.py"), own(6))
    fork = Frame("/lib/multiprocessing/process.py", 1, "run")
    worker = Seen(1, 9, "worker", [(own(3, "read()", "data.py"), fork, own(6))], is_child=True)
    idle = Seen(1, 8, "worker", [(fork, own(6))], is_child=True)
    found = diagnosis(at(0, reduces()), at(1, loads), idle, worker)

    assert found.summary == "rank 0 waits in all_reduce (train.py:9), and rank 1 is at data.py:3"
    assert diagnosis(at(0, reduces()), at(1, loads), idle).frame == loads[2]


def test_an_interpreter_that_has_ended_waits_in_mpi_for_all_others() -> None:
    ends = [at(rank, problem=AT_ITS_END, uses_mpi=True) for rank in range(2)]
    found = diagnosis(*ends, at(2, READS, uses_mpi=True))

    assert found.summary == "ranks 0 and 1 wait in MPI_Finalize, and rank 2 is at data.py:3"
    assert replace(ends[0], uses_mpi=False).wait is None


def test_ranks_that_serve_the_others_are_not_taken_for_the_odd_ones() -> None:
    runs = (inside("execute", "tensorflow/python/eager/execute.py"), own())
    found = diagnosis(at(0, runs), at(1, runs), at(2, READS), at(3, READS), serving=frozenset([3]))

    assert (found.odd, found.waiting) == ((2,), (0, 1))


def test_ranks_that_make_one_call_of_mpi_after_another_pass_through() -> None:
    def ranks(call: str, *lines: int) -> Picture:
        return picture(*(at(rank, receives(line, call), uses_mpi=True) for rank, line in enumerate(lines)))

    assert is_passing_through(ranks("comm.Allreduce(a, b)", 9, 9, 9))
    assert not is_passing_through(ranks("comm.Allreduce(a, b)", 9, 9, 4))
    assert not is_passing_through(ranks("comm.recv(source=1)", 9, 9))
    assert not is_passing_through(ranks("comm.Allreduce(a, b)", 9))
    assert not is_passing_through(replace(ranks("comm.Allreduce(a, b)", 9, 9), ended={2: "exit code 0"}))
    assert not is_passing_through(picture(at(0, reduces()), at(1, reduces())))


# --- as a verdict, and as people and programs read it


def test_a_diagnosis_is_a_verdict_whose_evidence_is_where_all_are() -> None:
    seen = [at(rank, reduces()) for rank in (0, 1, 3)]
    logs = {rank: f"user_logs/std_log_process_{rank}.txt" for rank in range(4)}
    shown = picture(*seen, at(2, READS), nodes={2: 1}, logs=logs)
    found = verdict_of(diagnosis(*shown.seen), shown)

    assert (found.kind, found.certainty, found.rank, found.ranks, found.node) == ("hang", "likely", 2, [2], 1)
    assert (found.file, found.line, found.source, found.followers) == ("data.py", 3, "read()", [0, 1, 3])
    assert found.summary == "ranks 0, 1 and 3 wait in all_reduce (train.py:9), and rank 2 is at data.py:3"
    assert found.evidence == [
        Evidence(2, logs[2], None, "rank 2: data.py:3 in read: read()"),
        Evidence(
            0,
            logs[0],
            None,
            f"ranks 0, 1 and 3: train.py:9 in main: dist.all_reduce(loss) (in wrapper ({WRAPPER.at}) and 1 more)",
        ),
    ]


def test_a_verdict_without_an_odd_one_names_no_rank_and_no_line() -> None:
    shown = picture(at(0, problem=AT_ITS_END, uses_mpi=True), at(1, problem=AT_ITS_END, uses_mpi=True))
    found = verdict_of(diagnosis(*shown.seen), shown)

    assert (found.rank, found.ranks, found.node, found.file, found.line, found.source) == (
        None,
        [],
        None,
        None,
        None,
        None,
    )
    assert found.evidence == [Evidence(0, "", None, f"ranks 0 and 1: {AT_ITS_END}")]


def test_ranks_of_a_launcher_in_the_command_are_also_told_as_those_of_the_run() -> None:
    shown = picture(at(0, reduces()), at(1, reduces()), at(2, READS), outer={0: 0, 1: 0, 2: 1})
    found = verdict_of(diagnosis(*shown.seen), shown)

    assert (found.rank, found.ranks, found.followers) == (1, [1], [0])
    assert found.summary.endswith("and rank 2 is at data.py:3 (as the launcher in the command counts ranks)")
    assert [one.rank for one in found.evidence] == [1, 0]


def stacks(shown: Picture, ranks: Sequence[int] | None = None, **more: Any) -> Stacks:
    return Stacks.of("mine", "Running", shown, ranks, **more)


HANGS = picture(
    *(at(rank, reduces()) for rank in (0, 1, 3)),
    at(2, READS, (WRAPPER,), READS[:1]),
    Seen(2, 9, "worker", (), is_child=True, problem="no Python"),
    traces=[entered(3, 3), entered(0, 3), entered(1, 3), entered(2, 2, left=True)],
    by="py-spy",
)


def test_stacks_have_the_diagnosis_and_equal_stacks_together() -> None:
    found = stacks(HANGS, at=5.0, hangs=True)
    data = found.to_dict()

    assert found.summary
    assert found.summary.startswith("rank 2 has not entered all_reduce #3")
    assert found.odd_ranks == data["odd_ranks"] == [2]
    assert (data["name"], data["status"], data["at"], data["by"]) == ("mine", "Running", 5.0, "py-spy")
    assert (data["certainty"], data["is_moving"], data["waiting_ranks"]) == ("certain", False, [0, 1, 3])
    assert [(one["who"], one["pids"]) for one in found.groups] == [
        ("rank 2", [102]),
        ("ranks 0, 1 and 3", [100, 101, 103]),
        ("children of rank 2", [9]),
    ]
    assert found.groups[0] == {
        "ranks": [2],
        "pids": [102],
        "process": "python train.py",
        "is_child": False,
        "frame": "data.py:3 in read: read()",
        "file": "data.py",
        "line": 3,
        "waits_in": None,
        "stack": ["data.py:3 in read: read()", "train.py:20 in main: step()"],
        "threads": [["data.py:3 in read: read()"]],
        "problem": None,
        "who": "rank 2",
        "own": ["data.py:3 in read: read()", "train.py:20 in main: step()"],
    }
    assert found.groups[1]["waits_in"] == "all_reduce"
    assert found.groups[2]["problem"] == "no Python"
    assert found.collective == {
        "difference": "missing",
        "op": "all_reduce",
        "number": 3,
        "group": [0, 1, 2, 3],
        "sizes": "float32 [4]",
        "waiting_ranks": [0, 1, 3],
        "odd_ranks": [2],
        "lines": {"0": "train.py:9", "1": "train.py:9", "3": "train.py:9"},
        "text": "rank 2 has not entered all_reduce #3, in which ranks 0, 1 and 3 wait",
    }
    assert [(one["rank"], one["number"], one["left"], one["at"]) for one in data["collectives"]] == [
        (0, 3, False, "train.py:9"),
        (1, 3, False, "train.py:9"),
        (2, 2, True, "train.py:9"),
        (3, 3, False, "train.py:9"),
    ]


def test_stacks_of_some_ranks_have_only_those_and_the_diagnosis_of_all() -> None:
    found = stacks(HANGS, [2])

    assert found.odd_ranks == [2]
    assert [one["who"] for one in found.groups] == ["rank 2", "children of rank 2"]
    assert [one["rank"] for one in found.to_dict()["collectives"]] == [2]


def test_stacks_as_text_have_the_users_own_lines_and_the_libraries_in_a_word() -> None:
    lines = str(stacks(HANGS, hangs=True)).splitlines()

    assert lines[0] == "mine  Running  by py-spy"
    assert any(line.startswith("hangs  rank 2 has not entered all_reduce #3") for line in lines)
    text = "\n".join(line.strip() for line in lines)
    assert (
        "rank 2              data.py:3 in read: read()\ntrain.py:20 in main: step()\nthread: data.py:3 in read" in text
    )
    assert "train.py:9 in main: dist.all_reduce(loss)\n(in all_reduce, 2 of libraries)" in text
    assert "children of rank 2  worker: no Python" in text
    assert "rank 0  is in all_reduce #3 at train.py:9  float32 [4]" in text
    assert "rank 2  last left all_reduce #2 at train.py:9  float32 [4]" in text
    assert any(line.startswith("waits  rank 2") for line in str(stacks(HANGS)).splitlines())


def test_many_frames_of_the_users_are_cut_and_counted() -> None:
    deep = tuple(own(line) for line in range(1, 10))
    text = str(stacks(picture(at(0, deep), at(1, (inside("fit", "lightning/trainer.py"),)), at(2))))

    assert "train.py:6 in main" in text
    assert "train.py:7 in main" not in text
    assert "… 3 more of your own" in text
    assert "lightning/trainer.py:7 in fit" in text
    assert "python train.py: no frame, at its end" in text


def test_a_run_that_gets_on_has_stacks_without_a_diagnosis() -> None:
    found = stacks(HANGS, hangs=True).without_diagnosis()
    data = found.to_dict()

    assert (found.summary, found.odd_ranks, found.collective) == (None, [], None)
    assert (data["certainty"], data["hint"], data["waiting_ranks"], data["is_moving"]) == ("unknown", None, [], True)
    assert found.groups == stacks(HANGS).groups
    assert "hangs" not in str(found)


def test_where_nothing_is_known_stacks_say_so() -> None:
    data = stacks(picture(at(0, READS, busy=1.0)), hangs=True).to_dict()

    assert (data["summary"], data["certainty"], data["is_moving"], data["hint"]) == (None, "unknown", True, None)
    assert (data["odd_ranks"], data["waiting_ranks"], data["collective"], data["collectives"]) == ([], [], None, [])
