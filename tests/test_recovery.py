"""What became of the work after a fault on purpose, and from what that is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running import call, find, pytorch, run_here, write_job

from azml_dist import Input, Job, JobError, Local, Output, RunFailed
from azml_dist.local.run import LocalRun

COUNT = """
import os, sys, time
from pathlib import Path

checkpoint, says, every, last = Path(sys.argv[1], "step.txt"), sys.argv[2], int(sys.argv[3]), 30
begin = int(checkpoint.read_text()) if checkpoint.exists() and "forgets" not in sys.argv else 0
if says == "begin":
    print("resumes at step", begin, flush=True)
lost = "drifts" in sys.argv and begin > 0
for step in range(begin + 1, last + 1):
    time.sleep(1 if step == begin + 19 else 0.03)  # a fault between two checkpoints comes before the second
    if step % every == 0:
        print(f"step {step}: loss {1 / step + lost / 10:.4f}" if says != "nothing" else "still here", flush=True)
    if step % 10 == 0 and "keeps-nothing" not in sys.argv:
        checkpoint.write_text(str(step))
        Path(sys.argv[1], f"kept-{step}-{begin}-{os.getpid()}").touch()
"""


def count(*words: str, says: str = "steps", every: int = 1) -> Job:
    command = ["python", "-c", COUNT, "${{outputs.up}}", says, str(every), *words]
    return pytorch(command, outputs={"up": Output()})


def rehearsed(job: Job, fault: str = "kill:rank=0@step=13", **options: Any) -> LocalRun:
    return run_here(job, launcher="direct", faults=[fault], **{"retries": 1, **options})


def test_work_that_goes_on_from_its_checkpoint_has_resumed() -> None:
    found = rehearsed(count()).recovery()

    assert found
    assert found.lost_steps
    assert (found.outcome, found.from_step) == ("resumed", 10)
    assert 3 <= found.lost_steps < 10
    assert found.summary == f"resumed from step 10, {found.lost_steps} steps lost"
    last, first = found.evidence
    assert last.log == "user_logs/std_log_process_0.txt"
    assert (first.log, first.line) == ("user_logs/retry_001/std_log_process_0.txt", 1)
    assert first.text.startswith("step 11:")


def test_a_line_that_says_where_it_begins_counts() -> None:
    found = rehearsed(count(says="begin")).recovery()

    assert found
    assert (found.outcome, found.from_step) == ("resumed", 10)
    assert found.evidence[1].text == "resumes at step 10"


EPOCHS = """
import sys, time
from pathlib import Path

up, says, every, killed_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
checkpoint, is_first = up / "epoch.txt", not (up / "began").exists()
(up / "began").touch()
begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
if says == "begin" and begin:
    print("resumes from epoch", begin, flush=True)
for epoch in range(begin, 5):
    if (epoch + 1) % every == 0:
        checkpoint.write_text(str(epoch + 1))
    print(f"epoch {epoch}: loss {1 / (epoch + 1):.4f}", flush=True)
    if is_first and epoch + 1 == killed_at:
        time.sleep(600)  # until the fault comes
"""


@pytest.mark.parametrize("says", ["begin", "steps"])
@pytest.mark.parametrize(("every", "killed_at", "from_step", "lost"), [(1, 1, 0, 0), (2, 3, 1, 1)])
def test_epochs_that_count_from_0_and_name_the_next_one_are_understood(
    says: str, every: int, killed_at: int, from_step: int, lost: int
) -> None:
    command = ["python", "-c", EPOCHS, "${{outputs.up}}", says, str(every), str(killed_at)]
    job = pytorch(command, outputs={"up": Output()})

    found = rehearsed(job, f"kill:rank=0@step={killed_at}").recovery()

    assert found
    assert (found.outcome, found.from_step, found.lost_steps) == ("resumed", from_step, lost)


def test_epochs_that_start_again_at_0_have_started_over() -> None:
    job = pytorch(["python", "-c", EPOCHS, "${{outputs.up}}", "steps", "9", "1"], outputs={"up": Output()})

    found = rehearsed(job, "kill:rank=0@step=1").recovery()

    assert found
    assert (found.outcome, found.lost_steps) == ("started-over", 1)


def test_where_few_steps_are_said_the_loss_is_a_span() -> None:
    found = rehearsed(count(every=5), "kill:rank=0@step=3").recovery()

    assert found
    assert (found.outcome, found.from_step, found.lost_steps) == ("resumed", 10, 5)
    assert found.summary == "resumed from step 10, 5 to 9 steps lost"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("forgets", "existed when the last attempt started"),
        ("keeps-nothing", "no file was written to a named output; only those are shared by attempts"),
    ],
)
def test_work_that_begins_again_has_started_over(word: str, says: str) -> None:
    found = rehearsed(count(word)).recovery()

    assert found
    assert (found.outcome, found.from_step) == ("started-over", None)
    assert found.lost_steps
    assert found.lost_steps >= 13
    assert found.evidence[-1].text == says


def test_several_faults_lose_steps_together() -> None:
    run = run_here(count(), launcher="direct", retries=2, faults=["kill:rank=0@step=13", "kill:rank=0@line=step 23"])

    found = run.recovery()
    assert found
    assert found.lost_steps
    assert (found.outcome, found.from_step) == ("resumed", 20)
    assert found.lost_steps >= 6
    assert len(found.evidence) == 4


def test_a_run_that_failed_for_good_has_failed() -> None:
    found = rehearsed(count(), retries=0).recovery()

    assert found
    assert (found.outcome, found.from_step, found.lost_steps) == ("failed", None, None)
    assert found.summary == "failed, and no attempt was left: `--retries 1` allows another"


def test_where_no_step_is_said_nothing_is_concluded() -> None:
    found = rehearsed(count(says="nothing"), "kill:rank=0@0.3s").recovery()

    assert found
    assert (found.outcome, found.from_step, found.lost_steps) == ("unknown", None, None)
    assert found.summary == "not known: no line of attempt 1 has a step"


def test_steps_that_are_counted_anew_in_each_epoch_are_not_compared() -> None:
    epochs = "for epoch in 1 2 3 4; do for step in 1 2 3; do echo step $step; sleep 0.05; done; done"

    found = rehearsed(pytorch(epochs), "kill:rank=0@step=7").recovery()

    assert found
    assert (found.outcome, found.lost_steps) == ("unknown", None)
    assert "restart within an attempt" in found.summary


def test_work_that_goes_on_after_a_pause_has_lost_nothing() -> None:
    found = rehearsed(count(), "stop:rank=0,for=300ms@step=5").recovery()

    assert found
    assert (found.outcome, found.lost_steps) == ("resumed", 0)
    assert found.summary == f"continued after step {found.from_step}, no step lost"


def test_a_restart_within_an_attempt_counts_as_one_between_two(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    read = "for n in {1..99}; do echo step $n; cat ${{inputs.data}} || break; sleep 0.05; done"
    job = pytorch(
        f"{read}; for n in {{5..120}}; do echo step $n; done",
        inputs={"data": Input(path=str(tmp_path / "data"), type="uri_file")},
    )

    run = rehearsed(job, "input:data@step=8", retries=0)

    found = run.recovery()
    assert found
    assert found.lost_steps
    assert (run.status, found.outcome, found.from_step) == ("Completed", "resumed", 4)
    assert found.lost_steps >= 4


def test_a_run_without_a_fault_has_no_recovery() -> None:
    run = run_here(count(), launcher="direct", faults=["kill:rank=0@line=never"])

    assert run.recovery() is None
    assert run.describe()["recovery"] is None


def test_metrics_are_held_against_those_of_a_run_without_the_fault() -> None:
    reference = run_here(count(), launcher="direct")

    same = rehearsed(count(), against=reference.name).recovery()
    other = rehearsed(count("drifts"), against=reference.name).recovery()

    assert same
    assert other
    assert (same.outcome, same.summary.endswith(f"; ended as {reference.name} did")) == ("resumed", True)
    assert (other.outcome, other.from_step) == ("different", 10)
    assert other.summary.startswith(f"ended differently: loss 0.1333, in {reference.name} 0.0333 (resumed from step 10")


def test_what_a_run_cannot_be_held_against_is_refused(tmp_path: Path) -> None:
    failed = Local(launcher="direct").submit(pytorch("exit 1"))
    with pytest.raises(RunFailed):
        failed.wait(60)

    for name, said in (("no-such-run", "there is no run"), (failed.name, "is Failed")):
        with pytest.raises(JobError, match=said):
            Local(faults=["kill:rank=0"], against=name).submit(pytorch("true"))
    with pytest.raises(JobError, match="this run has none"):
        Local(against=failed.name)


def test_the_command_line_says_what_became_of_the_work(tmp_path: Path) -> None:
    command = f"python -c '{COUNT}' ${{{{outputs.up}}}} steps 1"
    job = write_job(tmp_path, command, name="counted", outputs={"up": {"type": "uri_folder"}})

    ran = call("run", job, "--launcher", "direct", "--retries", "1", "--fault", "kill:rank=0@step=12", "--json")

    found = json.loads(ran.stdout)
    assert (found["recovery"]["outcome"], found["recovery"]["from_step"]) == ("resumed", 10)
    assert "recovery: resumed from step 10, " in ran.stderr
    assert "recovery  resumed from step 10, " in str(find("counted"))


def test_a_rank_that_is_stopped_for_good_hangs_the_run_and_is_named_with_the_fault() -> None:
    job = pytorch("echo step 1; [ $RANK = 0 ] && sleep 300; while true; do echo step 2; sleep 0.05; done", 1, 2)

    run = run_here(job, launcher="direct", faults=["stop:rank=1@line=step 2"], stall_after=1, stall_timeout=2)

    verdict, found = run.verdict(), run.recovery()
    assert verdict
    assert found
    assert (run.status, verdict.kind, verdict.rank) == ("Failed", "hang", 1)
    assert verdict.summary.endswith(", on purpose by the fault `stop:rank=1@line=step 2`")
    assert (found.outcome, found.summary) == ("hung", f"hung: {verdict.summary}")
