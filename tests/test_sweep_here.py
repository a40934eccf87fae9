"""Sweeps that run on this machine: their trials, their end, and what they leave."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import await_, call, cli, find, living
from sweeping import sweep_of, write_sweep

from azml_dist import JobError, Local, PyTorch, RunFailed, Sweep


def run_here(sweep: Sweep, root: Path, at_a_time: int = 1, **options: Any) -> Any:
    run = Local(root=root, launcher="direct", **options).submit(sweep, at_a_time=at_a_time)
    with suppress(RunFailed):
        run.wait(timeout=120)
    return run


def test_each_trial_is_a_distributed_run_of_its_own_with_its_values(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "echo rank $RANK lr ${{search_space.lr}} $AZUREML_SWEEP_lr; python log.py loss 1")
    sweep = sweep.with_(job=sweep.job.with_(distribution=PyTorch(process_count_per_node=2), node_count=2))

    run = run_here(sweep, tmp_path / "runs")

    assert run.status == "Completed"
    trial = run.members["trial 1"]
    assert trial.folder == tmp_path / "runs" / f"{run.name}_1"
    assert [(trial.folder / p.log).read_text() for p in trial.state().processes] == [
        f"rank {rank} lr 0.2 0.2\n" for rank in range(4)
    ]
    assert (
        json.loads((trial.folder / "plan.json").read_text())["processes"][0]["env"]["AZUREML_ROOT_RUN_ID"] == run.name
    )


def test_the_best_trial_is_the_one_with_the_best_value_it_ever_logged(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "python log.py loss 0.9 ${{search_space.lr}} 0.8")

    state = run_here(sweep, tmp_path).state()

    assert [m.metric for m in state.members] == [0.1, 0.2, 0.3]
    assert state.details["best"] == state.members[0].name


def test_a_trial_that_logged_nan_is_never_better_than_one_that_did_not(tmp_path: Path) -> None:
    """Nor does a sweep fail of which no trial logged anything else."""
    one = run_here(sweep_of(tmp_path, "python log.py loss nan ${{search_space.lr}}"), tmp_path / "one").state()
    two = run_here(sweep_of(tmp_path, "python log.py loss nan"), tmp_path / "two").state()

    assert [m.metric for m in one.members] == [0.1, 0.2, 0.3]
    assert (one.details["best"], two.details["best"]) == (one.members[0].name, two.members[0].name)
    assert (one.status, two.status) == ("Completed", "Completed")


@needs("mlflow")
def test_what_mlflow_logs_is_read(tmp_path: Path) -> None:
    code = "import mlflow; mlflow.log_metric('loss', ${{search_space.lr}})"
    sweep = sweep_of(tmp_path, f'python -c "{code}"', limits={"max_total_trials": 1})

    assert run_here(sweep, tmp_path).state().members[0].metric == 0.1


def test_a_failed_trial_does_not_end_the_sweep(tmp_path: Path) -> None:
    command = "python log.py loss ${{search_space.lr}}; [ ${{search_space.lr}} != 0.2 ] || exit 3"

    state = run_here(sweep_of(tmp_path, command), tmp_path).state()

    assert state.status == "Completed"
    assert [(m.status, m.exit_code) for m in state.members] == [("Completed", 0), ("Failed", 3), ("Completed", 0)]


def test_a_sweep_whose_trials_all_fail_has_failed(tmp_path: Path) -> None:
    run = run_here(sweep_of(tmp_path, "echo so it is ${{search_space.lr}}; exit 3"), tmp_path)

    assert (run.status, run.state().error) == ("Failed", "none of 3 trials completed")
    with pytest.raises(RunFailed, match=r"so it is 0\.1"):
        run.wait()


def test_a_metric_under_another_name_is_told(tmp_path: Path) -> None:
    state = run_here(sweep_of(tmp_path, "python log.py los ${{search_space.lr}}"), tmp_path).state()

    assert (state.status, state.error) == ("Failed", "no trial logged the primary metric `loss`")
    assert state.hint == "they logged `los`: set `objective.primary_metric` to what they log"


def test_it_is_told_even_if_a_trial_failed_too(tmp_path: Path) -> None:
    command = "python log.py los ${{search_space.lr}}; [ ${{search_space.lr}} != 0.2 ] || exit 3"
    run = run_here(sweep_of(tmp_path, command), tmp_path)

    why = call("why", run.name, "--root", tmp_path).stdout
    assert "\n  hint     they logged `los`: set `objective.primary_metric` to" in str(run)
    assert "  sweep    no trial logged the primary metric `loss`\n  hint     they logged `los`: " in why


def test_trials_get_the_code_as_it_was_when_the_sweep_began(tmp_path: Path) -> None:
    command = f"python log.py loss ${{{{search_space.lr}}}}; echo 'raise SystemExit(9)' > {tmp_path}/src/log.py"

    assert run_here(sweep_of(tmp_path, command), tmp_path).status == "Completed"


def test_several_trials_run_at_a_time(tmp_path: Path) -> None:
    """Each waits for the other two."""
    here = tmp_path / "here"
    here.mkdir()
    command = f"touch {here}/${{{{search_space.lr}}}}; while [ $(ls {here} | wc -l) -lt 3 ]; do sleep 0.02; done; "

    run = run_here(sweep_of(tmp_path, command + "python log.py loss 1"), tmp_path, at_a_time=3)

    assert run.status == "Completed"


def test_a_policy_ends_a_trial_that_falls_behind(tmp_path: Path) -> None:
    command = "python log.py loss ${{search_space.lr}}; [ ${{search_space.lr}} = 0.1 ] || sleep 1000"
    policy = {"type": "bandit", "slack_amount": 0.05}

    state = run_here(sweep_of(tmp_path, command, early_termination=policy), tmp_path).state()

    assert state.status == "Completed"
    assert [(m.status, m.error) for m in state.members[1:]] == [
        ("Canceled", "ended by the bandit policy at interval 1")
    ] * 2


def test_a_trial_ends_at_its_timeout_and_the_sweep_goes_on(tmp_path: Path) -> None:
    command = "python log.py loss 1; [ ${{search_space.lr}} != 0.1 ] || sleep 1000"
    limits = {"max_total_trials": 2, "trial_timeout": 3}

    state = run_here(sweep_of(tmp_path, command, limits=limits), tmp_path).state()

    assert [m.status for m in state.members] == ["Canceled", "Completed"]


def test_a_sweep_ends_at_its_timeout(tmp_path: Path) -> None:
    run = run_here(sweep_of(tmp_path, "echo ${{search_space.lr}}; sleep 1000"), tmp_path, timeout=1)

    assert [m.status for m in run.state().members] == ["Canceled", "NotStarted", "NotStarted"]
    assert run.status == "Canceled"


def test_a_missing_input_is_told_before_anything_starts(tmp_path: Path) -> None:
    inputs = {"data": {"path": "azureml:cifar:1"}}
    sweep = sweep_of(tmp_path, "ls ${{inputs.data}} ${{search_space.lr}}", inputs=inputs)

    with pytest.raises(JobError, match="can be read only on Azure ML"):
        Local(root=tmp_path / "runs").submit(sweep)

    assert not list((tmp_path / "runs").glob("*"))


def test_the_command_line_runs_a_sweep_and_prints_its_table(tmp_path: Path) -> None:
    file = write_sweep(
        tmp_path, trial={"command": "echo lr ${{search_space.lr}}; python log.py loss 0${{search_space.lr}}"}
    )

    ended = call("run", file, "--max-trials", "2", "--root", tmp_path / "runs", "--launcher", "direct")

    assert ended.returncode == 0, ended.stderr
    assert "[trial1 node0 rank0] lr 0.2\n" in ended.stdout
    assert ended.stdout.rstrip().splitlines()[-2].split()[:5] == ["0", "0.1", "0.1", "best", "Completed"]


def test_the_object_of_a_sweep_has_its_trials(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, trial={"command": "echo $RANK; python log.py loss ${{search_space.lr}}"})

    ended = call("run", file, "--root", tmp_path / "runs", "--launcher", "direct", "--json")
    state = json.loads(ended.stdout)

    assert (state["status"], state["kind"], state["details"]["best"]) == ("Completed", "sweep", state["name"] + "_0")
    assert [(t["values"], t["metric"], t["status"]) for t in state["trials"]] == [
        ({"lr": lr}, lr, "Completed") for lr in (0.1, 0.2, 0.3)
    ]


def test_the_sweep_and_each_trial_are_runs_that_are_found_by_name(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "echo hi ${{search_space.lr}}; python log.py loss 1", limits={"max_total_trials": 1})
    run = run_here(sweep.with_(job=sweep.job.with_(name="mine")), tmp_path / "runs")
    root = ("--root", tmp_path / "runs")

    assert str(run) == str(find(str(run.folder)))
    assert call("logs", "mine_0", *root).stdout == "[node0 rank0] hi 0.1\n"
    assert call("logs", "mine", *root).stdout == "[trial0 node0 rank0] hi 0.1\n"
    assert call("status", "mine", *root).stdout.startswith("mine  Completed  minimize loss (grid)")
    listed = json.loads(call("list", *root, "--json").stdout)["runs"]
    assert {r["name"]: r["parent"] for r in listed} == {"mine": None, "mine_0": "mine"}


def test_ctrl_c_ends_the_trial_and_starts_no_more(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, trial={"command": "echo begun ${{search_space.lr}}; sleep 1000"})

    with cli("run", file, "--root", tmp_path / "runs", "--launcher", "direct", "--json", mark=str(tmp_path)) as process:
        await_(lambda: list((tmp_path / "runs").glob("*_0/user_logs/std_log.txt")))
        await_(lambda: len(living(str(tmp_path))) > 2)
        process.terminate()
        stdout, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert [t["status"] for t in json.loads(stdout)["trials"]] == ["Canceled", "NotStarted", "NotStarted"]
    await_(lambda: not living(str(tmp_path)))


def test_a_sweep_is_canceled_from_another_process(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, name="mine", trial={"command": "echo begun ${{search_space.lr}}; sleep 1000"})

    with cli("run", file, "--root", tmp_path / "runs", "--launcher", "direct", mark=str(tmp_path)) as process:
        await_(lambda: list((tmp_path / "runs").glob("*_0/user_logs/std_log.txt")))
        ended = call("cancel", "mine", "--root", tmp_path / "runs")
        process.communicate(timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "run mine: Canceled\n")
    assert process.returncode == 1
    await_(lambda: not living(str(tmp_path)))


def test_nothing_outlives_a_sweep_that_was_killed(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, trial={"command": "echo begun ${{search_space.lr}}; sleep 1000"})

    with cli("run", file, "--root", tmp_path / "runs", "--launcher", "direct", mark=str(tmp_path)) as process:
        await_(lambda: list((tmp_path / "runs").glob("*_0/user_logs/std_log.txt")))
        process.kill()
        process.wait()
        await_(lambda: not living(str(tmp_path)))

    (sweep,) = (file.parent for file in (tmp_path / "runs").glob("*/run.json") if not file.parent.name.endswith("_0"))
    state = find(str(sweep)).state()
    why = "cancelled because the process that started it ended"
    assert (state.status, state.error) == ("Canceled", why)
    assert [(m.status, m.error) for m in state.members] == [("Canceled", why), *[("NotStarted", None)] * 2]
