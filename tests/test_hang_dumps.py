"""Hangs on Azure ML: what `submit --watch-hangs` adds to a job, and what ranks leave when a collective times out.

The dumps are those of real ranks under gloo; those that torch writes under NCCL have the same form, and were not made
here.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from running import call, write_job
from submitting import job

from azml_dist import AzureML, PyTorch, Sweep, submit
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator
from azml_dist.model.search_space import Choice
from azml_dist.model.sweep import Limits, Objective
from azml_dist.plan.dumps import WATCH_HANGS, with_dumps
from azml_dist.verdict.dumps import Left, judge_with, with_hang
from azml_dist.verdict.folder import read_logs
from azml_dist.verdict.known import Line, Log
from azml_dist.verdict.verdict import Verdict

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

RANKS = """\
import json, os, sys, threading, time
import torch
import torch.distributed as dist
import torch._C._distributed_c10d as recorder
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", WORLD_SIZE="4", TORCH_FR_BUFFER_SIZE="50")
rank = next((n for n in range(3) if not os.fork()), 3)
store = dist.FileStore("store", 4)
dist.init_process_group("gloo", store=store, rank=rank, world_size=4)
def train():
    for step in range(3):
        if rank == 2 and step == 2:
            return
        dist.all_reduce(torch.ones(4))
threading.Thread(target=train, daemon=True).start()
until = time.monotonic() + 100
def entered():
    return len(json.loads(recorder._dump_fr_trace_json()).get("entries", ()))
while entered() < 3 - (rank == 2) and time.monotonic() < until:
    time.sleep(0.1)
time.sleep(0.5)
with open(f"{rank}", "wb") as file:
    file.write(recorder._dump_fr_trace())
os.rename(f"{rank}", f"flight_recorder_rank_{rank}")
while not all(os.path.exists(f"flight_recorder_rank_{other}") for other in range(4)) and time.monotonic() < until:
    time.sleep(0.05)
os._exit(0)
"""
"""Rank 2 leaves out the third all_reduce."""
LINE = RANKS.splitlines().index("        dist.all_reduce(torch.ones(4))") + 1


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, bytes]:
    """What each of the ranks has left, run where Azure ML runs them."""
    code = tmp_path_factory.mktemp("job") / "exe/wd"
    code.mkdir(parents=True)
    (code / "train.py").write_text(RANKS)
    subprocess.run([sys.executable, str(code / "train.py")], cwd=code, check=True, timeout=240)
    return {rank: (code / f"flight_recorder_rank_{rank}").read_bytes() for rank in range(4)}


@pytest.fixture
def run(azure: AzureML) -> AzureRun:
    """A run of 2 x 2 processes that was submitted with `watch_hangs`."""
    return azure.submit(job(node_count=2, distribution=PyTorch(process_count_per_node=2)), watch_hangs=True)


def timed_out(rank: int, number: int = 3, op: str = "ALLREDUCE", numel: int = 4, group: str = "0 PG GUID 0") -> str:
    """What the watchdog of NCCL writes, in the words of torch 2.6."""
    begin = f"[rank{rank}]:[E1128 12:30:03.104000 ProcessGroupNCCL.cpp:"
    work = f"WorkNCCL(SeqNum={number}, OpType={op}, NumelIn={numel}, NumelOut={numel}, Timeout(ms)=600000)"
    what = "default_pg" if group.startswith("0") else "tp"
    return (
        f"{begin}632] [Rank {rank}] Watchdog caught collective operation timeout: {work} ran for 600020 milliseconds"
        " before timing out.\n"
        f"{begin}1785] [PG ID {group}({what}) Rank {rank}] Exception (either an error or timeout) detected by watchdog"
        f" at work: {number}, last enqueued NCCL work: {number}, last completed NCCL work: {number - 1}.\n"
    )


ABORTED = """\
[rank2]:[E1128 12:30:03.104000 ProcessGroupNCCL.cpp:1282] [PG ID 0 PG GUID 0(default_pg) Rank 2] Observed flight \
recorder dump signal from another rank via TCPStore.
Fatal Python error: Aborted

Thread 0x00007f3a (most recent call first):
  File "/opt/lib/python3.10/threading.py", line 320 in wait

Thread 0x00007f3b (most recent call first):
  File "/mnt/azureml/cr/j/0a1b/exe/wd/data.py", line 7 in read
  File "/mnt/azureml/cr/j/0a1b/exe/wd/train.py", line 11 in train
"""


def failed(emulator: Emulator, run: AzureRun, logs: Mapping[int, str], dumps: Mapping[int, bytes]) -> Verdict:
    here = emulator.job(run.name)
    here.advance("Running")
    for rank, text in logs.items():
        here.write_log(f"user_logs/std_log_process_{rank}.txt", text)
    for rank, data in dumps.items():
        here.write_log(f"logs/flight_recorder_rank_{rank}", data)
    here.fail("Execution failed. User process 'python' exited with status code -6.")
    found = run.verdict()
    assert found
    return found


WAITED = {rank: "step 2\n" + timed_out(rank) for rank in (0, 1, 3)} | {2: "step 2\n"}
SAID = "rank 2 has not entered all_reduce #3, in which ranks 0, 1 and 3 wait"


@needs("torch")
def test_dumps_give_the_diagnosis_of_a_run_here(emulator: Emulator, run: AzureRun, dumps: Mapping[int, bytes]) -> None:
    found = failed(emulator, run, WAITED, dumps)

    assert (found.kind, found.certainty, found.rank, found.ranks) == ("collective-timeout", "certain", 2, [2])
    assert found.summary == f"{SAID} (ranks 0, 1 and 3 at train.py:{LINE})"
    assert (found.followers, found.node) == ([0, 1, 3], 1)
    assert found.evidence[0].log == "logs/flight_recorder_rank_0"
    assert found.evidence[0].text == f"is in all_reduce #3 at train.py:{LINE}  float32 [4]"


@needs("torch")
def test_the_stack_of_an_abort_tells_where_the_odd_rank_is(
    emulator: Emulator, run: AzureRun, dumps: Mapping[int, bytes]
) -> None:
    found = failed(emulator, run, {**WAITED, 2: "step 2\n" + ABORTED}, dumps)

    assert (found.kind, found.file, found.line) == ("collective-timeout", "data.py", 7)
    assert f"(rank 2 is at data.py:7, ranks 0, 1 and 3 at train.py:{LINE})" in found.summary


@needs("torch")
def test_a_rank_without_a_dump_is_never_called_certain(
    emulator: Emulator, run: AzureRun, dumps: Mapping[int, bytes]
) -> None:
    found = failed(emulator, run, WAITED, {rank: dumps[rank] for rank in (0, 1, 3)})

    assert (found.ranks, found.certainty) == ([2], "likely")


class Hostile:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('it ran')",))


@needs("torch")
def test_a_hostile_dump_is_said_and_not_loaded(emulator: Emulator, run: AzureRun, dumps: Mapping[int, bytes]) -> None:
    found = failed(emulator, run, WAITED, {**dumps, 1: pickle.dumps(Hostile())})

    assert (found.ranks, found.certainty) == ([2], "likely")
    assert "logs/flight_recorder_rank_1 is not a dump of torch's Flight Recorder: it names builtins.exec" in str(
        found.hint
    )


def test_without_dumps_the_words_of_the_watchdog_are_compared(emulator: Emulator, run: AzureRun) -> None:
    found = failed(emulator, run, WAITED, {})

    assert (found.kind, found.certainty, found.ranks) == ("collective-timeout", "likely", [2])
    assert found.summary == SAID
    assert found.evidence[0].text == "is in all_reduce #3  4 elements"


def test_that_every_rank_aborts_after_its_watchdog_is_no_crash(emulator: Emulator, run: AzureRun) -> None:
    """As it is with PYTHONFAULTHANDLER, which the job now has."""
    logs = {rank: text + ABORTED.partition("TCPStore.\n")[2] for rank, text in WAITED.items()}
    found = failed(emulator, run, {**logs, 2: "step 2\n" + ABORTED}, {})

    assert (found.kind, found.ranks, found.file, found.line) == ("collective-timeout", [2], "data.py", 7)


def test_a_rank_with_a_cause_of_its_own_stays_the_culprit(emulator: Emulator, run: AzureRun) -> None:
    raised = 'Traceback (most recent call last):\n  File "/mnt/x/exe/wd/train.py", line 4, in f\n    a\nKeyError: 1\n'
    found = failed(emulator, run, {**WAITED, 2: raised}, {0: pickle.dumps(Hostile())})

    assert (found.kind, found.ranks, found.certainty) == ("user-code", [2], "certain")
    assert "dump" not in str(found.hint)


def verdict(logs: Mapping[int, str], size: int = 4) -> Verdict:
    """What the logs say of a hang about which nothing else is known."""
    left = Left(size)
    for rank, text in logs.items():
        lines = [Line(n, line) for n, line in enumerate(text.splitlines(), 1)]
        list(left.listen([Log(f"user_logs/std_log_process_{rank}.txt", lines, rank)]))
    nothing = Verdict("hang", "unknown", None, [], None, None, None, None, None, None, "?", None, [], [])
    return with_hang(nothing, left, {})


@pytest.mark.parametrize(
    ("logs", "ranks", "said"),
    [
        ({rank: timed_out(rank, 6 if rank == 2 else 7) for rank in range(4)}, [2], "not entered all_reduce #7"),
        (
            {0: timed_out(0), 1: timed_out(1, op="_ALLGATHER_BASE"), 2: timed_out(2), 3: timed_out(3)},
            [1],
            "rank 1 calls all_gather_into_tensor where the others call all_reduce",
        ),
        ({rank: timed_out(rank, 6 if rank == 2 else 7, op="BROADCAST") for rank in range(4)}, [2], "broadcast #7"),
        ({rank: timed_out(rank, numel=3 + (rank == 3)) for rank in range(4)}, [3], "shapes differ in all_reduce #3"),
        ({rank: timed_out(rank, rank // 2, group="1 PG GUID 7") for rank in range(4)}, [], "?"),
        ({rank: timed_out(rank) for rank in range(4)}, [], "?"),
        ({0: "Watchdog caught collective operation timeout: WorkNCCL(OpType=ALLREDUCE, Timeout(ms)=1)"}, [], "?"),
        ({}, [], "?"),
    ],
)  # fmt: skip
def test_watchdogs_name_ranks_and_are_never_certain(logs: Mapping[int, str], ranks: list[int], said: str) -> None:
    found = verdict(logs)

    assert found.ranks == ranks
    assert said in found.summary
    assert found.certainty != "certain"


@pytest.mark.parametrize(
    ("logs", "size"),
    [
        pytest.param({0: timed_out(0)}, 4, id="no other log"),
        pytest.param({0: timed_out(0), 1: "step 2", 2: "step 2", 3: "step 2"}, 4, id="one of four"),
        pytest.param({0: timed_out(0), 1: timed_out(1), 3: timed_out(3)}, 4, id="no log of rank 2"),
    ],
)
def test_a_rank_is_not_late_because_its_log_is_missing_or_others_say_nothing(
    logs: Mapping[int, str], size: int
) -> None:
    """Neither are those late that wait."""
    found = verdict(logs, size)

    assert (found.ranks, found.summary) == ([], "?")


def nccl(rank: int, *entries: tuple[int, str]) -> bytes:
    """A dump in the form that torch documents for NCCL: it enqueues more behind what it waits for."""
    return pickle.dumps(
        {
            "version": "2.10",
            "pg_config": {"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1, 2, 3]"}},
            "pg_status": {"0": {"last_enqueued_collective": entries[-1][0], "last_completed_collective": 1}},
            "entries": [
                {
                    "frames": [{"name": "f", "filename": "/mnt/azureml/cr/j/0a/exe/wd/train.py", "line": 10 + number}],
                    "pg_id": 0,
                    "process_group": ("0", "default_pg"),
                    "collective_seq_id": number,
                    "profiling_name": "nccl:all_reduce",
                    "input_sizes": [[4]],
                    "input_dtypes": ["Float"],
                    "state": state,
                    "is_p2p": False,
                }
                for number, state in entries
            ],
        }
    )


def test_what_is_enqueued_behind_the_collective_does_not_count() -> None:
    left = Left(4)
    for rank in (0, 1, 3):
        dump = nccl(rank, (1, "completed"), (2, "started"), (3, "scheduled"), (4, "scheduled"))
        left.take_dump(f"logs/flight_recorder_rank_{rank}", rank, dump)
    left.take_dump("logs/flight_recorder_rank_2", 2, nccl(2, (1, "completed")))
    nothing = Verdict("unknown", "unknown", None, [], None, None, None, None, None, None, "?", None, [], [])
    found = with_hang(nothing, left, {2: 1})

    assert found.summary.startswith("rank 2 has not entered all_reduce #2, in which ranks 0, 1 and 3 wait")
    assert "train.py:12" in found.summary
    assert (found.kind, found.certainty, found.rank, found.node) == ("hang", "certain", 2, 1)


def with_dumps_in(folder: Path, dumps: Mapping[int, bytes], logs: Mapping[int, str] = WAITED) -> Verdict:
    """What is said of a folder with these logs and dumps."""
    for rank, text in logs.items():
        (folder / f"user_logs/std_log_process_{rank}.txt").parent.mkdir(exist_ok=True)
        (folder / f"user_logs/std_log_process_{rank}.txt").write_text(text)
    for rank, data in dumps.items():
        (folder / f"logs/flight_recorder_rank_{rank}").parent.mkdir(exist_ok=True)
        (folder / f"logs/flight_recorder_rank_{rank}").write_bytes(data)
    read = read_logs(folder)
    found = judge_with(read.known, read.dumps)
    assert found
    return found


ENTERED = {rank: nccl(rank, (2, "completed"), (3, "started"), (4, "scheduled")) for rank in (0, 1, 3)}
LATE = nccl(2, (2, "completed"))


def test_dumps_beside_logs_say_for_certain_who_is_late(tmp_path: Path) -> None:
    found = with_dumps_in(tmp_path, {**ENTERED, 2: LATE})

    assert (found.kind, found.certainty, found.rank, found.ranks) == ("collective-timeout", "certain", 2, [2])
    assert found.summary == found.message == f"{SAID} (ranks 0, 1 and 3 at train.py:13)"
    assert (found.followers, found.file, found.line, found.source) == ([0, 1, 3], None, None, None)
    assert [(one.rank, one.log, one.text) for one in found.evidence[:4]] == [
        (0, "logs/flight_recorder_rank_0", "is in all_reduce #3 at train.py:13  float32 [4]"),
        (1, "logs/flight_recorder_rank_1", "is in all_reduce #3 at train.py:13  float32 [4]"),
        (2, "logs/flight_recorder_rank_2", "last left all_reduce #2 at train.py:12  float32 [4]"),
        (3, "logs/flight_recorder_rank_3", "is in all_reduce #3 at train.py:13  float32 [4]"),
    ]


def test_beside_a_dump_that_cannot_be_read_nothing_is_certain(tmp_path: Path) -> None:
    found = with_dumps_in(tmp_path, {**ENTERED, 2: pickle.dumps(Hostile())})
    two = with_dumps_in(tmp_path, {**ENTERED, 1: b"x", 2: b"y"})

    assert (found.ranks, found.certainty) == ([2], "likely")
    hint = "logs/flight_recorder_rank_2 is not a dump of torch's Flight Recorder: it names builtins.exec"
    assert hint in str(found.hint)
    assert "(and 1 more)" in str(two.hint)


def test_one_dump_of_four_does_not_blame_the_rank_that_left_it(tmp_path: Path) -> None:
    found = with_dumps_in(tmp_path, {0: ENTERED[0]}, {0: WAITED[0], 3: "step 2\n"})

    assert found.rank != 0
    assert "not entered" not in found.summary


def test_dumps_say_nothing_of_a_rank_with_a_cause_of_its_own(tmp_path: Path) -> None:
    raised = 'Traceback (most recent call last):\n  File "/mnt/x/exe/wd/train.py", line 4, in f\n    a\nKeyError: 1\n'
    found = with_dumps_in(tmp_path, {**ENTERED, 2: b"x"}, {**WAITED, 2: raised})

    assert (found.kind, found.ranks, found.certainty) == ("user-code", [2], "certain")
    assert "dump" not in str(found.hint)


def test_of_logs_without_dumps_it_is_the_rank_that_did_not_say_so(tmp_path: Path) -> None:
    found = with_dumps_in(tmp_path, {}, {**WAITED, 2: "step 2\n" + ABORTED})

    assert (found.kind, found.certainty, found.ranks) == ("collective-timeout", "likely", [2])
    assert (found.file, found.line) == ("data.py", 7)


def test_a_rank_that_has_entered_no_collective_says_so(tmp_path: Path) -> None:
    nothing = pickle.dumps({"entries": [], "pg_config": {"0": {"name": "0", "ranks": "[0, 1, 2, 3]"}}})
    found = with_dumps_in(tmp_path, {**ENTERED, 2: nothing})

    assert (found.ranks, found.certainty) == ([2], "certain")
    assert found.evidence[2].text == "has entered no collective"


@needs("torch")
def test_a_folder_with_logs_and_dumps_gives_the_same(tmp_path: Path, dumps: Mapping[int, bytes]) -> None:
    """As `azml-dist download` leaves them."""
    (tmp_path / "run/user_logs").mkdir(parents=True)
    (tmp_path / "run/artifacts/logs").mkdir(parents=True)
    for rank in range(4):
        (tmp_path / f"run/user_logs/std_log_process_{rank}.txt").write_text(WAITED[rank])
        (tmp_path / f"run/artifacts/logs/flight_recorder_rank_{rank}").write_bytes(dumps[rank])
    found = json.loads(call("why", str(tmp_path / "run"), "--json").stdout)["verdict"]

    assert (found["certainty"], found["ranks"]) == ("certain", [2])
    assert found["summary"] == f"{SAID} (ranks 0, 1 and 3 at train.py:{LINE})"


def test_only_variables_are_added_and_the_job_comes_first(emulator: Emulator, azure: AzureML) -> None:
    given = job(distribution=PyTorch(), environment_variables={"A": "1", "TORCH_FR_BUFFER_SIZE": "7"})
    bodies = [emulator.job(azure.submit(given, watch_hangs=on).name).body for on in (True, False)]
    variables = [body.pop("environmentVariables") for body in bodies]
    for body in bodies:
        for differs in ("displayName", "outputs", "services"):
            body.pop(differs, None)

    assert bodies[0] == bodies[1]
    assert variables[0] == variables[1] | WATCH_HANGS | {"TORCH_FR_BUFFER_SIZE": "7"}


def test_the_jobs_own_variables_come_before_those_for_dumps() -> None:
    given = job(environment_variables={"A": "1", "TORCH_FR_BUFFER_SIZE": "7"})
    sweep = Sweep(
        job=job(command="echo ${{inputs.lr}}", inputs={"lr": 1}),
        search_space={"lr": Choice(values=[1, 2])},
        objective=Objective(primary_metric="loss", goal="minimize"),
        limits=Limits(max_total_trials=2),
    )

    assert with_dumps(given).environment_variables == {**WATCH_HANGS, "A": "1", "TORCH_FR_BUFFER_SIZE": "7"}
    assert with_dumps(given).with_(environment_variables={}) == given.with_(environment_variables={})
    assert with_dumps(sweep).job == with_dumps(sweep.job)
    assert with_dumps(sweep).with_(job=sweep.job) == sweep


def test_the_plan_shows_them_and_that_gloo_leaves_no_dump(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import torch.distributed as dist\ndist.init_process_group('gloo')\n")
    path = write_job(tmp_path, "python train.py", 1, 2, code=str(tmp_path), name="watched")
    shown = call("plan", path, "--watch-hangs").stdout
    planned = submit(job(command="python train.py", code=str(tmp_path)), dry_run=True, watch_hangs=True)

    assert "./logs/flight_recorder_rank_" in shown
    assert "no dump will come: only NCCL writes one when it times out, and this is gloo" in shown
    assert planned.request["properties"]["environmentVariables"] == WATCH_HANGS
    assert "no-dump-of-a-hang" in {one.code for one in planned.findings}
    assert "flight_recorder" not in call("plan", path).stdout
