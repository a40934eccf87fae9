"""Who is the odd one out, by what torch's Flight Recorder has of each rank: on dumps of real ranks that hang."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from needs import needs

from azml_dist import DistError
from azml_dist.verdict.collectives import Difference, Entry, Group, Trace, compare, read_trace
from azml_dist.verdict.plain import read_plain
from azml_dist.verdict.stacks import Frame
from azml_dist.words import ranks_text

RANKS = '''\
"""Four ranks, forked with torch imported. Each scenario has groups and a thread of its own, and each rank one dump."""

import os, pickle, sys, threading, time
import torch, torch.distributed as dist
import torch._C._distributed_c10d as recorder
import torch._dynamo, torch.distributed.fsdp  # which each rank would import for itself

FOLDER = sys.argv[1]
one, two = torch.ones(4), torch.ones(2, 3)


def missing(rank, world):
    dist.all_reduce(one, group=world)
    if rank != 2:
        dist.all_reduce(one, group=world)


def rank_0_alone(rank, world):
    dist.all_reduce(one, group=world)
    if rank == 0:
        dist.barrier(group=world)


def operation(rank, world):
    dist.all_reduce(one, group=world)
    if rank == 1:
        dist.all_gather([torch.zeros(4) for _ in range(4)], one, group=world)
    dist.all_reduce(one, group=world)


def shapes(rank, world):
    dist.all_reduce(two if rank == 3 else one, group=world)


def subgroup(rank, world, first, second):
    mine = first if rank < 2 else second
    dist.all_reduce(one, group=mine)
    if rank != 3:
        dist.all_reduce(one, group=mine)
    dist.barrier(group=world)


def crossed(rank, _, a, b):
    if rank == 0:
        dist.all_reduce(one, group=a), dist.all_reduce(one, group=b)
    if rank == 1:
        dist.all_reduce(one, group=b), dist.all_reduce(one, group=a)


def even(rank, world):
    dist.all_reduce(one, group=world) if rank < 2 else dist.barrier(group=world)


def asynchronous(rank, world):
    work = dist.all_reduce(one, group=world, async_op=True) if rank else None
    work and work.wait()


def nothing(rank, world):
    dist.all_reduce(one, group=world)


SCENARIOS = {
    missing: [], rank_0_alone: [], operation: [], shapes: [], subgroup: [[0, 1], [2, 3]], crossed: [[0, 1], [0, 1]],
    even: [], asynchronous: [], nothing: [],
}


def run(rank):
    dist.init_process_group("gloo", init_method=f"file://{FOLDER}/store", rank=rank, world_size=4)
    groups = {one: [dist.new_group(ranks) for ranks in [None, *others]] for one, others in SCENARIOS.items()}
    dist.barrier()
    for scenario, its in groups.items():
        threading.Thread(target=scenario, args=(rank, *its), daemon=True).start()
    before = None
    while before != (before := recorder._dump_fr_trace_json(False)):
        time.sleep(1)
    world = dist.distributed_c10d._world
    groups_of = {group: ranks for group, ranks in world.pg_group_ranks.items() if group in world.pg_names}
    known = {world.pg_names[group]: ["", list(ranks)] for group, ranks in groups_of.items()}
    names = {one.__name__: [world.pg_names.get(group) for group in its] for one, its in groups.items()}
    with open(os.path.join(FOLDER, f"{rank}.new"), "wb") as file:
        dump = recorder._dump_fr_trace() if rank == 1 else recorder._dump_fr_trace_json()
        pickle.dump((known, names, dump), file)
    os.rename(file.name, os.path.join(FOLDER, str(rank)))
    # None ends before all have written: what it would leave is an error of the others.
    while not all(os.path.exists(os.path.join(FOLDER, str(other))) for other in range(4)):
        time.sleep(0.02)
    os._exit(0)


for rank in range(4):
    if not os.fork():
        run(rank)
for _ in range(4):
    os.wait()
'''


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What four ranks have left."""
    folder = tmp_path_factory.mktemp("dumps")
    (folder / "ranks.py").write_text(RANKS)
    subprocess.run([sys.executable, str(folder / "ranks.py"), str(folder)], check=True, timeout=240)
    return folder


def found(dumps: Path, scenario: str, ended: Mapping[int, str] | None = None) -> list[Difference]:
    """How the ranks differ in the groups of a scenario."""
    traces = []
    for rank in range(4):
        known, names, dump = pickle.loads((dumps / str(rank)).read_bytes())
        read = read_plain(dump) if rank == 1 else json.loads(dump)  # lines of code take torch seconds: once is enough
        whole = read_trace(rank, read, known, [f"{dumps}/"])
        groups = [group for group in whole.groups if group.name in names[scenario]]
        traces.append(Trace(rank, [entry for entry in whole.entries if entry.group in groups], groups))
    return compare(traces, ended)


@needs("torch")
@pytest.mark.parametrize(
    ("scenario", "what", "odd", "text"),
    [
        ("missing", "missing", (2,), "rank 2 has not entered all_reduce #2 ALL, in which ranks 0, 1 and 3 wait"),
        ("rank_0_alone", "missing", (0,), "ranks 1, 2 and 3 have not entered barrier #2 ALL, in which rank 0 waits"),
        (
            "operation",
            "operation",
            (1,),
            "at collective #2 ALL rank 1 calls all_gather where the others call all_reduce",
        ),
        (
            "shapes",
            "shapes",
            (3,),
            "shapes differ in all_reduce #1 ALL: rank 3 brings float32 [2, 3], the others bring float32 [4]",
        ),
        (
            "subgroup",
            "missing",
            (3,),
            "rank 3 has not entered all_reduce #2 of the group of ranks 2 and 3, in which rank 2 waits",
        ),
        ("crossed", "crossed", (), "ranks wait for each other in different groups: rank "),
        ("even", "operation", (), " where the others call "),
        ("asynchronous", "missing", (0,), "rank 0 has not entered all_reduce #1 ALL, in which ranks 1, 2 and 3 wait"),
    ],
)
def test_the_odd_one_of_real_ranks_is_named(
    dumps: Path, scenario: str, what: str, odd: tuple[int, ...], text: str
) -> None:
    first = found(dumps, scenario)[0]

    assert (first.what, first.odd) == (what, odd)
    assert text.replace("ALL", "of the group of ranks 0-3") in first.text
    line = first.at[1].line if 1 in first.at else 0
    assert 1 not in first.waiting or "group=" in RANKS.splitlines()[line - 1]


@needs("torch")
def test_ranks_that_came_through_differ_in_nothing(dumps: Path) -> None:
    assert found(dumps, "nothing") == []


@needs("torch")
def test_a_rank_that_has_ended_is_said_to_have(dumps: Path) -> None:
    first = found(dumps, "missing", {2: "exit code 0"})[0]

    assert (first.what, first.odd, first.certain) == ("ended", (2,), True)
    assert (
        first.text
        == "rank 2 has ended (exit code 0), and ranks 0, 1 and 3 wait in all_reduce #2 of the group of ranks 0-3"
    )


WORLD = Group("0", (0, 1, 2, 3))
ROW, COLUMN = Group("1", (0, 1)), Group("2", (0, 2))


def trace(rank: int, *entries: tuple[Group, int, str, bool], groups: tuple[Group, ...] = (WORLD,)) -> Trace:
    return Trace(rank, [Entry(group, number, op, "", left) for group, number, op, left in entries], groups)


def test_who_waits_for_a_rank_that_itself_waits_is_not_the_root() -> None:
    """Rank 3 is late in the world; rank 0 waits for it there, and rank 1 waits for rank 0 in another group."""
    traces = [
        trace(0, (ROW, 1, "all_reduce", True), (WORLD, 1, "barrier", False), groups=(WORLD, ROW)),
        trace(1, (ROW, 1, "all_reduce", True), (ROW, 2, "all_reduce", False), groups=(WORLD, ROW)),
        trace(2, (WORLD, 1, "barrier", False)),
        trace(3),
    ]
    first = compare(traces)[0]

    assert first.group == WORLD
    assert 3 in first.odd


def test_ranks_that_wait_for_each_other_in_two_groups_are_told_together() -> None:
    """Rank 0 is in the row, where rank 1 is missing; rank 1 is in the other group of the two, where rank 0 is."""
    first, second = Group("1", (0, 1)), Group("2", (0, 1))
    traces = [
        trace(0, (first, 1, "all_reduce", False), groups=(first, second)),
        trace(1, (second, 4, "barrier", False), groups=(first, second)),
    ]
    [found] = compare(traces)

    assert (found.what, found.group, found.number, found.op) == ("crossed", first, 1, "all_reduce")
    assert (found.odd, found.waiting, found.certain) == ((), (0, 1), True)
    assert found.text == (
        "ranks wait for each other in different groups: rank 0 in all_reduce #1 of the group of ranks 0 and 1; "
        "rank 1 in barrier #4 of the group of ranks 0 and 1"
    )


def test_of_three_ranks_in_crossed_groups_the_one_that_is_alone_is_odd() -> None:
    first, second = Group("1", (0, 1, 2)), Group("2", (0, 1, 2))
    at = Frame("train.py", 9, "main", True)
    waits = [(first, 1), (first, 1), (second, 1)]
    traces = [
        Trace(rank, [Entry(group, number, "barrier", "", False, at)], (first, second))
        for rank, (group, number) in enumerate(waits)
    ]
    [found] = compare(traces)

    assert (found.what, found.odd, found.waiting, found.certain) == ("crossed", (2,), (0, 1, 2), False)
    assert found.at == {0: at, 1: at, 2: at}


def test_a_rank_behind_those_of_a_like_group_is_odd_though_it_waits_too() -> None:
    """Two rows and two columns: all have done the row's first call but ranks 0 and 1, of which one waits elsewhere."""
    rows, columns = (Group("r0", (0, 1)), Group("r1", (2, 3))), (Group("c0", (0, 2)), Group("c1", (1, 3)))
    traces = [
        trace(0, (rows[0], 1, "all_reduce", False), groups=(rows[0], columns[0])),
        trace(1, (columns[1], 1, "barrier", False), groups=(rows[0], columns[1])),
        trace(2, (rows[1], 1, "all_reduce", True), (columns[0], 1, "barrier", False), groups=(rows[1], columns[0])),
        trace(3, (rows[1], 1, "all_reduce", True), groups=(rows[1], columns[1])),
    ]
    first = compare(traces)[0]

    assert first.group in (columns[1], rows[0])
    assert first.odd


@pytest.mark.parametrize(
    ("op", "sizes", "odd"),
    [
        ("all_reduce", ("float32 [4]", "float32 [4]", "float32 [3]"), (2,)),
        ("broadcast", ("float32 [4]", "", ""), None),
        ("broadcast", ("float32 [4]", "float32 [4]", "float32 [3]"), (2,)),
        ("all_reduce", ("float32 [4]", "float32 [4]", ""), (2,)),
        ("gather", ("float32 [4]", "float32 [3]", "float32 [2]"), None),
        ("all_to_all", ("float32 [4]", "float32 [3]", "float32 [3]"), None),
    ],
)
def test_tensors_of_other_sizes_count_where_all_ranks_bring_the_same(
    op: str, sizes: tuple[str, ...], odd: tuple[int, ...] | None
) -> None:
    group = Group("0", (0, 1, 2))
    traces = [Trace(rank, [Entry(group, 1, op, size, False)], (group,)) for rank, size in enumerate(sizes)]
    found = compare(traces)

    assert [(one.what, one.odd, one.sizes) for one in found] == ([("shapes", odd, sizes[0])] if odd else [])
    assert [(one.number, one.op, one.waiting) for one in found] == ([(1, op, (0, 1, 2))] if odd else [])


def test_a_dump_is_read_with_its_groups_sizes_and_lines() -> None:
    frames = [{"filename": "/x/site-packages/torch/a.py", "line": 1, "name": "f"}]
    frames += [{"filename": "/code/train.py", "line": 9, "name": "main"}]
    entry = {
        "process_group": ("1", "tp"),
        "pg_id": 4,
        "profiling_name": "nccl:_allgather_base",
        "input_sizes": [[4, 3], 7, *[[1]] * 7],
        "input_dtypes": ["Float", "Odd"],
        "frames": frames,
    }
    dump = {
        "pg_config": {"7": {"name": "1", "ranks": "[0, 2]"}, "3": {"ranks": "[]"}, "9": {"ranks": "[1]"}},
        "pg_status": {"4": {"last_completed_collective": "2"}},
        "entries": [
            {**entry, "collective_seq_id": 1},
            {**entry, "collective_seq_id": 2, "is_p2p": True},
            {**entry, "collective_seq_id": 3},
            {**entry, "collective_seq_id": 4, "state": "completed"},
            {**entry, "collective_seq_id": 5, "retired": True, "input_sizes": [[1]] * 8, "input_dtypes": None},
        ],
    }
    found = read_trace(3, dump, {"dp": ("data parallel", [3, 4])}, ["/code/"])

    assert found.rank == 3
    assert found.groups == (Group("1", (0, 2)), Group("9", (1,)), Group("dp", (3, 4)))
    assert [(one.number, one.left) for one in found.entries] == [(1, True), (3, False), (4, True), (5, True)]
    first, *_, last = found.entries
    assert (first.group, first.op) == (Group("1", (0, 2)), "all_gather_into_tensor")
    assert first.sizes == "float32 [4, 3], Odd 7, [1], [1], [1], [1], [1], [1] …"
    assert last.sizes == "[1], [1], [1], [1], [1], [1], [1], [1]"
    assert first.at == Frame("train.py", 9, "main", True)


def test_a_rank_that_nobody_could_ask_is_never_called_certain() -> None:
    traces = [trace(rank, (WORLD, 1, "barrier", False)) for rank in (0, 1, 2)]
    first = compare(traces)[0]

    assert (first.odd, first.certain) == ((3,), False)


def test_two_ranks_of_which_one_waits_are_not_certain() -> None:
    pair = Group("0", (0, 1))
    first = compare([trace(0, (pair, 1, "barrier", False)), trace(1, groups=(pair,))])[0]

    assert (first.odd, first.certain) == ((1,), False)


@pytest.mark.parametrize(
    ("ranks", "text"),
    [([2], "rank 2"), ([1, 0], "ranks 0 and 1"), ([0, 1, 3], "ranks 0, 1 and 3"), (range(8), "ranks 0-7"),
     ([0, 1, 2, 3, 7, 9, 10], "ranks 0-3, 7, 9 and 10")],
)  # fmt: skip
def test_ranks_are_abbreviated(ranks: list[int], text: str) -> None:
    assert ranks_text(ranks) == text


class Hostile:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Hostile()),
        pickle.dumps({"entries": [Hostile()]}, protocol=0),
        pickle.dumps(print),
        b"",
        b"not a pickle",
        pickle.dumps({"entries": []})[:-3],
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"(" * 100_000,
        b"\x80\x02Ux.",
    ],
)
def test_a_pickle_that_is_hostile_or_broken_is_an_error_in_one_line(data: bytes) -> None:
    with pytest.raises(DistError, match=r"is not a dump of torch's Flight Recorder: ") as error:
        read_plain(data, "rank 3's dump")

    assert "\n" not in error.value.problems[0].message


@pytest.mark.parametrize(
    "dump",
    [None, [], "x", {}, {"entries": None}, {"entries": 3}, {"entries": [None, 1, {}]}, {"entries": {"a": 1}},
     {"entries": [{"profiling_name": 3, "collective_seq_id": "x", "process_group": 4}]},
     {"entries": [{"profiling_name": "gloo:barrier", "collective_seq_id": 10**30, "frames": 3, "input_sizes": {}}]},
     {"entries": [{"profiling_name": "gloo:barrier", "collective_seq_id": 1, "frames": [1, {}], "input_sizes": [1]}]},
     {"pg_config": {"0": {"name": "0", "ranks": "[0, x]"}}, "pg_status": {"0": {"last_completed_collective": "n"}}},
     {"pg_config": [1], "pg_status": "x"}],
)  # fmt: skip
def test_dumps_of_any_shape_are_read(dump: Any) -> None:
    assert isinstance(compare([read_trace(0, dump), read_trace(1, dump)]), list)
