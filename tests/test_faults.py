"""Faults on purpose: what is written, when it comes, what it does, and what is told of it."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from needs import needs
from running import call, launchers, log_of, pytorch, run_here, write_job

from azml_dist import Input, Job, JobError, Local, Mpi, Output, TensorFlow
from azml_dist.model.fault import check_places, drawn, parse
from azml_dist.model.steps import STEP_PATTERN, shown_lines, step_number

STEPS = "for i in {1..100}; do echo step $i; sleep 0.1; done"


@launchers
def test_a_rank_is_killed_at_its_third_step_and_named(launcher: str) -> None:
    run = run_here(pytorch(STEPS, 2, 2), launcher=launcher, faults=["kill:rank=2@step=3"])

    state = run.state()
    [fault] = state.faults
    assert (state.status, state.failed_rank, state.exit_code) == ("Failed", 2, 137)
    assert state.error == "rank 2 was killed on purpose (`kill:rank=2@step=3`)"
    assert (state.processes[2].signal, state.processes[2].stopped) == (signal.SIGKILL, False)
    assert fault.at is not None
    assert (fault.rank, fault.attempt, fault.ended) == (2, 0, [2])
    assert fault.trigger == "the 3rd line of rank 2 with a step: step 3"
    assert log_of(run, 2).startswith("step 1\nstep 2\nstep 3\n")


def test_an_error_says_what_was_done_and_so_does_the_verdict() -> None:
    run = run_here(pytorch(STEPS, 1, 2), launcher="direct", faults=["kill:rank=1@step=2"])

    verdict = run.verdict()
    assert verdict
    assert (verdict.kind, verdict.certainty, verdict.rank, verdict.followers) == ("killed", "certain", 1, [0])
    assert verdict.summary == "rank 1: killed on purpose, by the fault `kill:rank=1@step=2`"


@pytest.mark.parametrize("code", [0, 7])
@launchers
def test_a_rank_ends_with_the_code_that_its_launcher_is_told(launcher: str, code: int) -> None:
    other = "[ $RANK = 0 ] && sleep 0.5 && exit 1"

    run = run_here(
        pytorch(f"echo step 1; {other}; sleep 60", 1, 2), launcher=launcher, faults=[f"exit:rank=1,code={code}@step=1"]
    )

    process = run.state().processes[1]
    assert (process.exit_code, process.signal, process.stopped) == (code, None, False)
    assert run.state().failed_rank == (1 if code else 0)
    spec = f"exit:rank=1,code={code}@step=1"
    assert not code or run.state().error == f"rank 1 ended with exit code {code} on purpose (`{spec}`)"


def test_an_input_of_a_job_without_one_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(JobError) as refused:
        Local(root=tmp_path, faults=["input:data"]).submit(pytorch("true", 1, 1))

    assert refused.value.hint == "the job has no data inputs: leave the fault out"


@needs("mpirun")
@pytest.mark.parametrize(
    ("fault", "ends"), [("kill:rank=1@step=2", (None, 9)), ("exit:rank=1,code=5@step=2", (5, None))]
)
def test_ranks_of_mpi_are_ended_too(fault: str, ends: tuple[int | None, int | None]) -> None:
    job = Job(command=STEPS, distribution=Mpi(process_count_per_node=2))

    state = run_here(job, faults=[fault]).state()

    assert (state.failed_rank, state.processes[1].exit_code, state.processes[1].signal) == (1, *ends)


def test_tasks_of_tensorflow_are_killed_by_their_rank() -> None:
    job = Job(command=STEPS, node_count=2, distribution=TensorFlow(parameter_server_count=1))

    state = run_here(job, faults=["kill:rank=1@step=2"]).state()

    assert (state.failed_rank, state.processes[1].role, state.processes[1].signal) == (1, "worker", 9)


@launchers
def test_all_that_a_rank_has_started_is_killed_with_it_and_nothing_of_the_other_ranks(
    launcher: str, tmp_path: Path
) -> None:
    both_are_there = f"touch {tmp_path}/$RANK; until [ -e {tmp_path}/0 ]; do sleep 0.01; done"
    command = f"{both_are_there}; (trap '' TERM; exec sleep 321) & echo step 1; wait; echo never"

    run = run_here(pytorch(command, 2), launcher=launcher, faults=["kill:node=1@step=1"])

    state = run.state()
    assert [(p.signal, p.stopped) for p in state.processes][1] == (9, False)
    assert (state.faults[0].rank, state.faults[0].node, state.faults[0].ended) == (None, 1, [1])
    assert state.processes[0].stopped


def test_a_rank_that_is_stopped_for_a_time_goes_on() -> None:
    command = f"for i in {{1..5}}; do echo step $i; {STAMP}; sleep 0.05; done"

    run = run_here(pytorch(command, 1, 2), launcher="direct", faults=["stop:rank=1,for=1s@step=2"])

    [fault] = run.state().faults
    assert (run.status, fault.rank) == ("Completed", 1)
    assert _longest_pause(log_of(run, 1)) > 0.9


STAMP = "date +%s.%N"


def _longest_pause(log: str) -> float:
    stamps = [float(line) for line in log.splitlines() if not line.startswith("step")]
    return max(after - before for before, after in itertools.pairwise(stamps))


def test_a_slow_rank_gets_a_part_of_the_time() -> None:
    spin = "import time, os\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(sum(os.times()[:2]))"

    run = run_here(pytorch(["python", "-c", spin], 1, 1), launcher="direct", faults=["slow:rank=0,x=10"])

    assert float(log_of(run, 0)) < 1.0


@launchers
def test_one_node_that_is_taken_away_ends_the_attempt_of_all(launcher: str) -> None:
    once = "[ -e ${{outputs.up}}/$RANK ] && exit; touch ${{outputs.up}}/$RANK; trap 'echo warned; exit' TERM; "
    command = once + "while true; do echo step; echo step 1; sleep 0.05; done"

    run = run_here(pytorch(command, 2), launcher=launcher, faults=["preempt:node=1@step=3"])

    [first] = run.state().earlier
    assert (run.status, first.status, first.error) == ("Completed", "Preempted", "node 1 was evicted")
    assert [p.signal for p in first.processes][1] == 9
    assert "warned" not in (run.folder / first.processes[1].log).read_text()


def test_a_fault_that_has_not_come_may_come_in_the_next_attempt() -> None:
    run = run_here(
        pytorch(STEPS.replace("100", "9"), 1, 2),
        launcher="direct",
        retries=2,
        faults=["kill:rank=0@step=3", "kill:rank=1@step=4"],
    )

    state = run.state()
    assert [attempt.failed_rank for attempt in state.earlier] == [0, 1]
    assert [fault.attempt for fault in state.faults] == [0, 1]


def test_a_trigger_that_never_came_is_told_at_the_end(tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo step 1", name="calm")

    ran = call("run", job, "--launcher", "direct", "--fault", "kill:rank=0@line=epoch 9", "--json")

    found = json.loads(ran.stdout)
    assert (ran.returncode, found["status"], found["faults"][0]["at"]) == (0, "Completed", None)
    assert (
        "note: the fault `kill:rank=0@line=epoch 9` never happened: kill rank 0, at the first line that" in ran.stderr
    )


def test_the_output_says_what_is_to_come_and_what_came(tmp_path: Path) -> None:
    job = write_job(tmp_path, STEPS, 1, 2, name="told")

    ran = call("run", job, "--launcher", "direct", "--fault", "kill:rank=1@line=step [3]")

    to_come, came = (line for line in ran.stderr.splitlines() if line.startswith("fault: "))
    assert to_come == "fault: kill rank 1, at the first line that matches `step [3]`"
    assert re.fullmatch(r"fault: kill rank 1 \(pid \d+\) after [\d.]+ s: a line of rank \d: step 3", came)
    assert ran.returncode == 1


def test_what_chance_decides_is_the_same_for_the_same_seed() -> None:
    fault = parse("kill:rank=any@5s-20s")

    first, again, other = (drawn(fault, seed, 0, 1000, 1) for seed in (7, 7, 8))

    assert first == again != other
    assert 5 <= (first.after or 0) <= 20
    assert first.until is None
    assert isinstance(first.rank, int)
    fixed = parse("kill:rank=3@5s")
    assert drawn(fixed, 7, 0, 1000, 1) == fixed
    assert {drawn(parse("kill:node=any"), seed, 0, 8, 4).node for seed in range(40)} == {0, 1, 2, 3}
    assert {drawn(parse("kill:rank=any"), seed, 0, 2, 1).rank for seed in range(40)} == {0, 1}


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("step 3: loss 0.1", 3),
        ("Step [3/100]", 3),
        ("global_step=3", 3),
        ("{'step': 3, 'loss': 1}", 3),
        ("Iteration: 3", 3),
        ("iter 3", 3),
        ("Epoch 3/10", 3),
        ("epoch 1, step 3", 3),
        ("\x1b[32mstep\x1b[0m 3", 3),
        ("the footstep 3", None),
        ("took 3 steps", None),
        ("stepping on", None),
    ],
)
def test_lines_that_say_a_step_are_found(line: str, step: int | None) -> None:
    [shown] = shown_lines(f"{line}\r\n".encode())
    match = re.search(STEP_PATTERN, shown)

    assert (match and step_number(match)) == step


def test_a_pattern_of_the_users_own_says_what_a_step_is() -> None:
    run = run_here(
        pytorch("for i in {1..50}; do echo step $i; echo done with batch-$i; sleep 0.1; done"),
        launcher="direct",
        faults=["kill:rank=0@step=2"],
        step_pattern=r"batch-(\d+)",
    )

    [fault] = run.state().faults
    assert (fault.step, fault.trigger) == (2, "the 2nd line of rank 0 with a step: done with batch-2")


def test_where_a_rank_prints_no_step_those_of_another_count_and_it_waits_at_that_step() -> None:
    command = "[ $RANK = 0 ] || exec sleep 60; for i in {1..40}; do echo step $i; sleep 0.05; done; sleep 60"

    run = run_here(pytorch(command, 1, 2), launcher="direct", faults=["kill:rank=1@step=4"])

    [fault] = run.state().faults
    assert (run.state().failed_rank, fault.rank) == (1, 1)
    assert fault.trigger == "the 4th line of rank 0 with a step: step 4"
    assert fault.step is not None
    assert 4 <= fault.step < 9


def test_what_a_progress_bar_shows_counts_before_its_line_ends() -> None:
    bar = r"for i in {1..100}; do printf 'step %s\r' $i; sleep 0.05; done"

    run = run_here(pytorch(bar), launcher="direct", retries=1, faults=["preempt@step=4"])

    [fault], found = run.state().faults, run.recovery()
    assert fault.trigger == "the 4th line of rank 0 with a step: step 4"
    assert found
    assert found.outcome == "started-over"


def test_a_rank_that_starts_slowly_is_killed_at_its_own_step() -> None:
    command = f"[ $RANK = 0 ] || sleep 0.4; {STEPS.replace('0.1', '0.02')}"

    run = run_here(pytorch(command, 1, 2), launcher="direct", faults=["kill:rank=1@step=3"])

    [fault] = run.state().faults
    assert fault.trigger == "the 3rd line of rank 1 with a step: step 3"
    assert log_of(run, 1).startswith("step 1\nstep 2\nstep 3\n")


DATA = "for i in {1..100}; do echo step $i; cat ${{inputs.data}} || exit 4; sleep 0.05; done"


@pytest.mark.parametrize(("trigger", "read"), [("", 0), ("@step=3", 2)])
def test_an_input_is_gone_and_is_back_in_the_next_attempt(trigger: str, read: int, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data\n")
    job = pytorch(DATA.replace("100", "8"), inputs={"data": Input(path=str(tmp_path / "data"), type="uri_file")})

    run = run_here(job, launcher="direct", retries=1, faults=[f"input:data{trigger}"])

    first, last = (run.folder / log for log in (run.state().earlier[0].processes[0].log, run.state().processes[0].log))
    assert (run.state().earlier[0].exit_code, run.status) == (4, "Completed")
    assert read <= first.read_text().count("data\n") < (8 if read else 1)
    assert last.read_text().count("data\n") == 8
    assert (tmp_path / "data").read_text() == "data\n"


WRITE = """
import os, sys, time
for number in range(5):
    with open(f"{sys.argv[1]}/{number}", "wb") as file:
        for _ in range(40):
            file.write(b"x" * 1000)
            file.flush()
            time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports files that are being written")
@launchers
def test_a_process_is_killed_in_the_middle_of_a_file(launcher: str) -> None:
    job = pytorch(["python", "-c", WRITE, "${{outputs.model}}"], outputs={"model": Output()})

    run = run_here(job, launcher=launcher, faults=["save:n=2"])

    [fault] = run.state().faults
    size = (run.folder / "outputs" / "model" / "1").stat().st_size
    assert (run.state().failed_rank, fault.rank, fault.ended) == (0, 0, [0])
    assert 0 < size < 40_000
    assert str(fault.note).startswith("outputs/model/1 had ")
    assert not (run.folder / "outputs" / "model" / "2").exists()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux can mount")
@launchers
def test_a_small_disk_is_full_on_its_node_only_and_what_was_written_is_kept(launcher: str) -> None:
    fill = "echo kept > outputs/$RANK; head -c 8000000 /dev/zero > ${{outputs.up}}/$RANK; echo $?"

    run = run_here(pytorch(fill, 2), launcher=launcher, faults=["disk:node=1,size=4m"])

    assert run.status == "Completed"
    assert [log_of(run, rank).splitlines()[-1] for rank in (0, 1)] == ["0", "1"]
    assert "No space left on device" in log_of(run, 1)
    sizes = [(run.folder / "outputs" / "up" / rank).stat().st_size for rank in "01"]
    assert sizes[0] == 8_000_000 > 4 << 20 > sizes[1] > 3 << 20
    assert (run.folder / "artifacts" / "outputs" / "1").read_text() == "kept\n"
    assert not list(run.folder.glob(".disk*"))


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        ("kil:rank=1", "there is no fault `kil`", "did you mean `kill`?"),
        ("explode", "there is no fault `explode`", "known: kill, stop,"),
        ("kill", "`kill` needs `rank` or `node`", "kill:rank=2@step=3"),
        ("kill:rank=1,node=0", "both `rank` and `node`", "kill:rank=2"),
        ("kill:rnak=1", "`kill` has no option `rnak`", "did you mean `rank`?"),
        ("kill:rank=-1", "`rank=-1` is not valid", "rank=any"),
        ("kill:rank=", "`rank` has no value", "kill:rank=2"),
        ("kill:rank=1,rank=2", "`rank` appears twice", "--fault"),
        ("kill:rank=1@", "`@` is not a trigger", "@10s"),
        ("kill:rank=1@10", "`@10` has no unit", "@10s"),
        ("kill:rank=1@soon", "`@soon` is not a trigger", "@line=REGEX"),
        ("kill:rank=1@20s-5s", "ends before it begins", "@5s-20s"),
        ("kill:rank=1@step=0", "`step=0` is not valid", "@step=1"),
        ("kill:rank=1@line=", "no regular expression", "line="),
        ("kill:rank=1@line=(", "is not a regular expression", "literal"),
        ("stop:rank=1@step=3,for=20s", "options go before the trigger", "stop:rank=1,for=20s@step=3"),
        ("stop:rank=1,for=20", "`20` is not a duration", "20s"),
        ("slow:rank=1,x=1", "must be greater than 1", "a fifth"),
        ("exit:rank=1,code=x", "`code=x` is not valid", "0 to 255"),
        ("kill:rank=x", "`rank=x` is not valid", "write a number, or `rank=any`"),
        ("kill:rank=-1", "`rank=-1` is not valid", "write a number, or `rank=any`"),
        ("kill:rank=٣", "`rank=٣` is not valid", "write a number, or `rank=any`"),
        ("kill:rank=1@step=0", "`step=0` is not valid", "the first line with a step"),
        ("exit:rank=1,code=256", "`code=256` is not valid", "0 to 255"),
        ("exit:rank=1,code=300", "`code=300` is not valid", "0 to 255"),
        ("disk:node=0,size=64", "`64` is not a size", "64m"),
        ("disk:node=0,size=64m@10s", "cannot have a trigger", "from the start"),
        ("input", "needs the name of an input", "input:data"),
        ("kill:zzzzz=1", "`kill` has no option `zzzzz`", "known here: rank, node"),
        ("kill:rnk=1", "`kill` has no option `rnk`", "did you mean `rank`?"),
        ("kill:rank=", "`rank` has no value", "kill:"),
        ("kill:rank=1,rank=2", "`rank` appears twice", "write each option once"),
        ("kill:rank=1,node=2", "it has both `rank` and `node`", "kill:"),
        ("save:n=0", "`n=0` is not valid", "first file"),
        ("rate:node=0,mbit=0", "must be greater than 0", "`mbit=10` is 10 Mbit/s"),
        ("rate:node=0,mbit=fast", "`mbit=fast` is not valid", "`mbit=10` is 10 Mbit/s"),
        ("rate:node=0,mbit=-1", "`mbit=-1` is not valid", "`mbit=10` is 10 Mbit/s"),
    ],
)
def test_what_is_no_fault_is_refused_with_what_to_write(spec: str, said: str, hint: str) -> None:
    with pytest.raises(JobError) as refused:
        Local(faults=[spec])

    assert said in refused.value.problems[0].message
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("kill:rank=4@1s", "the job has no rank 4"),
        ("kill:node=2@1s", "the job has no node 2"),
        ("partition:node=1", "share the network of this machine"),
        ("rate:node=1,mbit=10", "share the network of this machine"),
        ("input:dta", "the job has no data input `dta`"),
        ("input:lr", "the input `lr` is a value, not data"),
        ("save:n=1,output=modle", "the job has no output `modle`"),
    ],
)
def test_what_cannot_happen_to_this_job_here_is_refused_before_the_start(spec: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    job = pytorch(
        "true", 2, 2, inputs={"data": Input(path=str(tmp_path / "data")), "lr": 1}, outputs={"model": Output()}
    )

    with pytest.raises(JobError, match=re.escape(said)):
        Local(root=tmp_path / "runs", faults=[spec]).submit(job)

    assert not list((tmp_path / "runs").glob("*/run.json"))


@pytest.mark.parametrize(
    ("spec", "ranks", "nodes", "said", "has"),
    [
        ("kill:rank=4", 4, 2, "the job has no rank 4", "it has 4 ranks: ranks 0 to 3; `rank=any`"),
        ("kill:rank=1", 1, 1, "the job has no rank 1", "it has 1 rank: rank 0; `rank=any`"),
        ("kill:node=2", 8, 2, "the job has no node 2", "it has 2 nodes: nodes 0 to 1; `node=any`"),
        ("kill:node=1", 4, 1, "the job has no node 1", "it has 1 node: node 0; `node=any`"),
    ],
)
def test_a_rank_or_node_that_the_job_has_not_is_told_with_those_it_has(
    spec: str, ranks: int, nodes: int, said: str, has: str
) -> None:
    with pytest.raises(JobError) as refused:
        check_places(parse(spec), ranks, nodes)

    assert said in refused.value.problems[0].message
    assert refused.value.hint == f"{has} chooses one at random"


def test_a_fault_that_is_no_text_is_refused_with_an_example() -> None:
    with pytest.raises(JobError, match="a fault is a string, not 3") as refused:
        parse(3)  # type: ignore[arg-type]
    assert "kill:" in (refused.value.hint or "")


@pytest.mark.parametrize("spec", ["kill:rank=3", "kill:node=1", "kill:rank=any", "kill:node=any", "preempt"])
def test_a_rank_or_node_that_the_job_has_is_fine(spec: str) -> None:
    check_places(parse(spec), ranks=4, nodes=2)


@pytest.mark.parametrize(
    ("spec", "what", "when"),
    [
        ("kill:rank=2@step=1", "kill rank 2", "at the 1st line with a step"),
        ("kill:rank=any@step=2", "kill any rank", "at the 2nd line with a step"),
        ("kill:node=1@step=3", "kill node 1", "at the 3rd line with a step"),
        ("kill:node=any@step=4", "kill any node", "at the 4th line with a step"),
        ("kill:rank=0@step=11", "kill rank 0", "at the 11th line with a step"),
        ("kill:rank=0@step=13", "kill rank 0", "at the 13th line with a step"),
        ("kill:rank=0@step=21", "kill rank 0", "at the 21st line with a step"),
        ("kill:rank=0@step=112", "kill rank 0", "at the 112th line with a step"),
        ("kill:rank=0@10s", "kill rank 0", "10 s after all processes have started"),
        ("kill:rank=0@5s-20s", "kill rank 0", "between 5 and 20 s after all processes have started"),
        ("kill:rank=0", "kill rank 0", "when all processes have started"),
        ("slow:rank=1,x=5@10s", "5", "10 s after all processes have started"),
        ("rate:node=1,mbit=2.5@10s", "2.5 Mbit/s", "10 s after all processes have started"),
    ],
)
def test_a_fault_is_told_in_words(spec: str, what: str, when: str) -> None:
    fault = parse(spec)

    assert what in fault.what
    assert fault.when == when


def test_faults_are_not_for_azure_ml(tmp_path: Path) -> None:
    job = write_job(tmp_path, "true")

    ran = call("submit", job, "--fault", "kill:rank=0@1s")

    assert ran.returncode == 2
    assert "into runs on this machine, not on Azure ML" in ran.stderr
    assert f"azml-dist run {job} --fault kill:rank=0@1s" in ran.stderr


def test_faults_are_for_one_job_and_not_for_a_sweep(tmp_path: Path) -> None:
    sweep = {
        "type": "sweep",
        "trial": {"command": "echo ${{search_space.lr}}", "environment": "azureml:env:1"},
        "search_space": {"lr": {"type": "choice", "values": [0.1, 0.2]}},
        "sampling_algorithm": "grid",
        "objective": {"primary_metric": "loss", "goal": "minimize"},
        "limits": {"max_total_trials": 2},
    }
    (tmp_path / "sweep.yml").write_text(json.dumps(sweep))

    ran = call("run", tmp_path / "sweep.yml", "--fault", "kill:rank=0@1s")

    assert ran.returncode == 2
    assert "kill:rank=0@1s" in ran.stderr
    assert "pipeline.yml:STEP" in ran.stderr
