"""Sweeps: their YAML, the values of their trials, runs on this machine, and what azure-ai-ml puts on the wire."""

from __future__ import annotations

import json
import logging
import math
import statistics
import warnings
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from emulator import Emulator
from emulator.fixtures import SDK_WARNINGS
from running import await_, call, cli, find, living
from submitting import workspace_of

from azml_dist import AzureML, Job, JobError, Local, PyTorch, RunFailed, SubmitError, Sweep, submit
from azml_dist.search_space import (
    Choice,
    LogNormal,
    LogUniform,
    Normal,
    QLogNormal,
    QLogUniform,
    QNormal,
    QUniform,
    Randint,
    Space,
    Uniform,
)
from azml_dist.sweepplan import sweep_request
from azml_dist.termination import Bandit, MedianStopping, TruncationSelection

with warnings.catch_warnings():  # what azure-ai-ml's own dependencies warn about when they are imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import load_job
    from azure.ai.ml import sweep as azure
    from azure.ai.ml.entities._job.to_rest_functions import to_rest_job_object
    from azure.ai.ml.operations._job_operations import SdkJSONEncoder

pytestmark = [pytest.mark.filterwarnings("ignore"), *map(pytest.mark.filterwarnings, SDK_WARNINGS)]

SWEEP: dict[str, Any] = {
    "type": "sweep",
    "trial": {"command": "echo lr=${{search_space.lr}}", "environment": "azureml:env:1"},
    "search_space": {"lr": {"type": "choice", "values": [0.1, 0.2, 0.3]}},
    "sampling_algorithm": "grid",
    "objective": {"primary_metric": "loss", "goal": "minimize"},
    "limits": {"max_total_trials": 10},
}
LOG = """\
import os, sys
folder = os.path.join(os.environ["MLFLOW_TRACKING_URI"].removeprefix("file://"), "0", os.environ["MLFLOW_RUN_ID"])
with open(os.path.join(folder, "metrics", sys.argv[1]), "a", buffering=1) as metric:
    for step, value in enumerate(sys.argv[2:]):
        metric.write(f"0 {value} {step}\\n")
"""
"""Logs values of a metric as MLflow's file store does, without the second that MLflow takes to be imported."""


def write_sweep(folder: Path, **fields: Any) -> Path:
    """A sweep file; JSON is YAML. Its code folder holds `log.py`."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "log.py").write_text(LOG)
    file = folder / "sweep.yml"
    trial = {**SWEEP["trial"], "code": "src", **fields.pop("trial", {})}
    file.write_text(json.dumps({**SWEEP, "trial": trial, **fields}))
    return file


def sweep_of(folder: Path, command: str, **fields: Any) -> Sweep:
    return Sweep.load(write_sweep(folder, trial={"command": command}, **fields))


SPACES: dict[Space, Any] = {
    Choice(values=["a", 1, 2.5]): lambda v: v in ("a", 1, 2.5),
    Randint(upper=5): lambda v: v in range(5),
    Uniform(min_value=2, max_value=3): lambda v: 2 <= v <= 3,
    QUniform(min_value=1, max_value=9, q=4): lambda v: v in (0, 4, 8),
    LogUniform(min_value=-9, max_value=-2): lambda v: math.exp(-9) <= v <= math.exp(-2),
    QLogUniform(min_value=0, max_value=3, q=5): lambda v: v in (0, 5, 10, 15, 20),
    QNormal(mu=10, sigma=3, q=2): lambda v: v % 2 == 0,
    LogNormal(mu=0, sigma=1): lambda v: v > 0,
    QLogNormal(mu=2, sigma=0.5, q=3): lambda v: v >= 0 and v % 3 == 0,
}


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_values_are_those_of_the_documented_formula(space: Space) -> None:
    random = Random(1)
    values = [space.sample(random) for _ in range(500)]

    assert all(map(SPACES[space], values))
    assert len(set(values)) > 1


def test_a_normal_value_has_the_mean_and_deviation_it_was_given() -> None:
    random = Random(1)
    values = [Normal(mu=10, sigma=3).sample(random) for _ in range(2000)]

    assert statistics.mean(values) == pytest.approx(10, abs=0.3)
    assert statistics.stdev(values) == pytest.approx(3, abs=0.3)


def test_the_bounds_of_loguniform_are_exponents() -> None:
    random = Random(1)
    values = [LogUniform(min_value=math.log(1e-4), max_value=math.log(1)).sample(random) for _ in range(2000)]

    assert statistics.median(map(math.log10, values)) == pytest.approx(-2, abs=0.2)


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    space = {"lr": {"type": "choice", "values": [1, 2]}, "act": {"type": "choice", "values": ["a", "b", "c"]}}
    command = "echo ${{search_space.lr}} ${{search_space.act}}"
    sweep = sweep_of(tmp_path, command, search_space=space)

    assert [tuple(values.values()) for values in sweep.trials()] == [(x, y) for x in (1, 2) for y in "abc"]
    assert sweep.plan().trial_count == 6
    assert repr(sweep.plan()) == "<SweepPlan: at most 6 trials of 1 node x 1 process = 1>"


def test_a_seed_gives_the_same_values_again(tmp_path: Path) -> None:
    space = {"lr": {"type": "uniform", "min_value": 0, "max_value": 1}}

    def values(seed: int) -> list[Any]:
        sampling = {"type": "random", "seed": seed}
        sweep = sweep_of(tmp_path, "echo ${{search_space.lr}}", search_space=space, sampling_algorithm=sampling)
        return list(islice(sweep.trials(), 5))

    assert values(7) == values(7)
    assert values(7) != values(8)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown hyperparameter": (
        {"trial": {"command": "echo ${{search_space.rl}}"}},
        "`${{search_space.rl}}`: the search space has no 'rl'",
    ),
    "a hyperparameter as an input": (
        {"trial": {"command": "echo ${{inputs.lr}}"}},
        "`lr` is in the search space, and not an input",
    ),
    "a name that is both": ({"inputs": {"lr": 1}}, "`lr` is an input and in the search space"),
    "a grid of numbers": (
        {"search_space": {"lr": {"type": "uniform", "min_value": 0, "max_value": 1}}},
        "grid sampling takes `choice` alone, not `uniform`",
    ),
    "an unknown expression": ({"search_space": {"lr": {"type": "unifrom"}}}, "did you mean `uniform`?"),
    "no number of trials": ({"limits": {"timeout": 60}}, "`limits.max_total_trials` is missing"),
    "too many trials": ({"limits": {"max_total_trials": 1001}}, "1001 is too large; at most 1000 is possible"),
    "a goal of its own": ({"objective": {"primary_metric": "x", "goal": "minimise"}}, "did you mean `minimize`?"),
    "a field of the trial": ({"command": "true"}, "it belongs under `trial`: `trial.command`"),
    "a field of the sweep": ({"trial": {"compute": "c"}}, "it belongs to the sweep, not to `trial`: `compute`"),
    "a bandit without slack": ({"early_termination": {"type": "bandit"}}, "needs a `slack_factor` or a `slack_amount`"),
    "a wrong job": ({"trial": {"command": "echo ${{search_space.lr}} ${{inputs.x}}"}}, "there is no input `x`"),
    "bayesian of a normal": (
        {"search_space": {"lr": {"type": "normal", "mu": 0, "sigma": 1}}, "sampling_algorithm": "bayesian"},
        "bayesian sampling takes `choice`, `uniform` and `quniform`, not `normal`",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_sweep_is_said_with_its_line(case: str, tmp_path: Path) -> None:
    fields, told = BAD[case]
    file = write_sweep(tmp_path, **fields)

    with pytest.raises(JobError) as error:
        Sweep.load(file)

    assert told in str(error.value)
    assert str(error.value).startswith(f"{file}:1")


def test_bounds_that_were_meant_as_values_are_noted(tmp_path: Path) -> None:
    space = {"lr": {"type": "loguniform", "min_value": 0.0001, "max_value": 0.1}}
    sweep = sweep_of(tmp_path, "echo ${{search_space.lr}}", search_space=space, sampling_algorithm="random")

    (finding,) = sweep.plan().findings

    assert finding.message == "`loguniform(0.0001, 0.1)` gives values from 1 to 1.105"
    assert finding.hint == "its bounds are those of the logarithm: for 0.0001 to 0.1 write -9.21 and -2.30"


def sent_by_azure(job: Any) -> dict[str, Any]:
    """What the client would put on the wire before it asks the service for ids."""
    logging.disable(logging.CRITICAL)
    try:
        job = job._to_job() if hasattr(job, "_to_job") else job
        body = to_rest_job_object(job)
    finally:
        logging.disable(logging.NOTSET)
    sent: dict[str, Any] = json.loads(json.dumps(body, cls=SdkJSONEncoder, exclude_readonly=True))
    properties: dict[str, Any] = sent["properties"]
    return properties


ALL_SPACES = {
    "lr": {"type": "loguniform", "min_value": -9.2, "max_value": -2},
    "units": {"type": "quniform", "min_value": 8, "max_value": 64, "q": 8},
    "act": {"type": "choice", "values": ["relu", "tanh"]},
    "n": {"type": "randint", "upper": 4},
    "u": {"type": "uniform", "min_value": 0, "max_value": 1},
    "a": {"type": "normal", "mu": 0, "sigma": 1},
    "b": {"type": "qnormal", "mu": 10, "sigma": 1, "q": 2},
    "c": {"type": "lognormal", "mu": 0, "sigma": 1},
    "d": {"type": "qlognormal", "mu": 0, "sigma": 1, "q": 1},
    "e": {"type": "qloguniform", "min_value": 0, "max_value": 3, "q": 1},
}
WIRE: dict[str, dict[str, Any]] = {
    "the least": {},
    "every expression": {
        "search_space": ALL_SPACES,
        "sampling_algorithm": {"type": "random", "seed": 3, "rule": "sobol", "logbase": "e"},
        "trial": {"command": " ".join(f"${{{{search_space.{name}}}}}" for name in ALL_SPACES)},
    },
    "limits": {
        "limits": {"max_total_trials": 9, "max_concurrent_trials": 3, "timeout": 7200, "trial_timeout": 30},
    },
    "bandit": {"early_termination": {"type": "bandit", "slack_factor": 0.2, "evaluation_interval": 2}},
    "bandit with an amount": {"early_termination": {"type": "bandit", "slack_amount": 1, "delay_evaluation": 5}},
    "median": {"early_termination": {"type": "median_stopping", "delay_evaluation": 5}},
    "truncation": {"early_termination": {"type": "truncation_selection", "truncation_percentage": 20}},
    "bayesian": {"sampling_algorithm": "bayesian", "objective": {"primary_metric": "acc", "goal": "Maximize"}},
    "a distributed trial": {
        "trial": {
            "distribution": {"type": "pytorch", "process_count_per_instance": 4},
            "resources": {"instance_count": 2, "shm_size": "64g", "docker_args": "--ipc=host"},
            "environment_variables": {"A": "1"},
        },
        "compute": "azureml:gpu",
    },
    "all that a job has": {
        "name": "s1",
        "display_name": "d",
        "experiment_name": "e",
        "description": "t",
        "tags": {"a": "1"},
        "properties": {"p": "1"},
        "inputs": {"data": {"type": "uri_folder", "path": "azureml:c:1"}, "epochs": 3},
        "outputs": {"model": {"type": "uri_folder", "mode": "upload"}},
        "identity": {"type": "managed"},
        "queue_settings": {"job_tier": "spot", "priority": "high"},
    },
}


@pytest.mark.parametrize("case", WIRE)
def test_the_request_is_the_one_of_azure_ai_ml(case: str, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, **{"experiment_name": "e", "name": "s"} | WIRE[case])

    ours, theirs = sweep_request(Sweep.load(file))["properties"], sent_by_azure(load_job(file))

    assert _without_ids(ours) == _without_ids(theirs)


@pytest.mark.parametrize("case", WIRE)
def test_the_sweep_of_azure_ai_ml_that_is_made_of_ours_is_the_same(case: str, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, **{"experiment_name": "e", "name": "s"} | WIRE[case])

    made, loaded = sent_by_azure(Sweep.load(file).to_azure()), sent_by_azure(load_job(file))

    assert _without_ids(made) == _without_ids(loaded)


def test_a_sweep_is_submitted_with_the_client_of_azure_ai_ml(
    emulator: Emulator, azure_sdk: None, tmp_path: Path
) -> None:
    emulator.assets.add_environment("env")
    trial = {"resources": {"instance_count": 2, "shm_size": "64g"}, "distribution": {"type": "mpi"}}
    sweep = Sweep.load(write_sweep(tmp_path, trial=SWEEP["trial"] | trial, compute="azureml:gpu-cluster"))

    run = submit(sweep, on=AzureML(workspace_of(emulator)))

    sent = emulator.jobs.named(run.name).body
    assert sent["jobType"] == "Sweep"
    assert sent["trial"]["resources"]["shmSize"] == "64g"
    assert sent["trial"]["distribution"] == {"distributionType": "Mpi"}
    assert emulator.assets.by_id(sent["trial"]["codeId"])
    assert [str(r.route) for r in emulator.requests].count("jobs.put") == 1


def test_a_named_sweep_that_is_sent_again_is_not_started_again(
    emulator: Emulator, azure_sdk: None, tmp_path: Path
) -> None:
    emulator.assets.add_environment("env")
    azure = AzureML(workspace_of(emulator))
    file = write_sweep(tmp_path, name="mine", compute="azureml:gpu-cluster")
    azure.submit(Sweep.load(file))

    azure.submit(Sweep.load(file))
    with pytest.raises(SubmitError, match="whose search space differs"):
        azure.submit(Sweep.load(file).with_set("search_space.lr.values=[5]"))

    assert [str(r.route) for r in emulator.requests].count("jobs.put") == 1


def _without_ids(body: dict[str, Any]) -> dict[str, Any]:
    """References lose their prefix, and code its path, once the service has been asked for ids; `""` says nothing."""
    text = json.dumps(body).replace("azureml:", "")
    plain: dict[str, Any] = json.loads(text)
    plain["trial"].pop("codeId", None)
    for part in (plain, plain["trial"]):
        for name in ("resources", "environmentVariables", "properties", "tags", "outputs", "displayName"):
            if not part.get(name) or part.get(name) == plain.get("displayName"):
                part.pop(name, None)
        part.get("resources", {}).pop("properties", None)
    policy = plain.get("earlyTermination", {})
    for name in ("slackAmount", "slackFactor"):  # a slack of 0 is none
        policy.get(name) or policy.pop(name, None)
    return plain


@pytest.mark.parametrize(
    "uniform", [Uniform(min_value=0.1, max_value=0.2), azure.Uniform(0.1, 0.2)], ids=["ours", "azure-ai-ml's"]
)
def test_a_job_makes_azure_ai_mls_sweep_and_its_trials_keep_nodes_and_shared_memory(uniform: Any) -> None:
    job = Job(
        command="python t.py --lr ${{inputs.lr}}",
        inputs={"lr": 1},
        environment="azureml:env:1",
        node_count=2,
        shm_size="64g",
        distribution=PyTorch(process_count_per_node=4),
    )
    made = job.sweep(
        primary_metric="loss",
        goal="minimize",
        search_space={"lr": uniform},
        max_total_trials=4,
        early_termination_policy=azure.BanditPolicy(slack_factor=0.1, evaluation_interval=2),
    )
    sent = sent_by_azure(made)

    assert sent["searchSpace"] == {"lr": ["uniform", [0.1, 0.2]]}
    assert sent["trial"]["command"] == "python t.py --lr ${{search_space.lr}}"
    assert sent["trial"]["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 4}
    assert sent["trial"]["resources"]["shmSize"] == sent["resources"]["shmSize"] == "64g"
    assert sent["trial"]["resources"]["instanceCount"] == 2
    assert sent["earlyTermination"]["slackFactor"] == 0.1
    assert sent["inputs"] == {}


HISTORY = {0: [0.8, 0.8], 1: [0.5, 0.65], 2: [0.6, 0.7]}


def test_a_bandit_ends_what_is_out_of_its_slack() -> None:
    """The example of the documentation: best 0.8 and a factor of 0.2 allow 0.8 / 1.2 = 0.667."""
    policy = Bandit(slack_factor=0.2, evaluation_interval=2)

    assert [policy.ends(trial, HISTORY) for trial in HISTORY] == [None, 2, None]


def test_a_bandit_with_an_amount_allows_that_distance() -> None:
    assert [Bandit(slack_amount=0.25).ends(trial, HISTORY) for trial in HISTORY] == [None, 1, None]


def test_median_stopping_holds_the_best_value_against_the_median_of_averages() -> None:
    policy = MedianStopping(delay_evaluation=2)

    assert [policy.ends(trial, HISTORY) for trial in HISTORY] == [None, None, None]
    assert policy.ends(3, {**HISTORY, 3: [0.1, 0.6]}) == 2


def test_truncation_ends_the_worst_share() -> None:
    policy = TruncationSelection(truncation_percentage=34)

    assert [policy.ends(trial, HISTORY) for trial in HISTORY] == [None, 1, None]


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


def test_what_mlflow_logs_is_read(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
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

    assert (run.status, run.state().error) == ("Failed", "none of 3 trials was completed")
    with pytest.raises(RunFailed, match=r"so it is 0\.1"):
        run.wait()


def test_a_metric_under_another_name_is_told(tmp_path: Path) -> None:
    state = run_here(sweep_of(tmp_path, "python log.py los ${{search_space.lr}}"), tmp_path).state()

    assert (state.status, state.error) == ("Failed", "no trial logged the primary metric `loss`")
    assert state.hint == "logged were los"


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

    with pytest.raises(JobError, match="can be read on Azure ML, and not from here"):
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

    (sweep,) = (run for run in (tmp_path / "runs").glob("*") if not run.name.endswith("_0"))
    state = find(str(sweep)).state()
    assert state.error == "the run's own processes were killed, or the machine was restarted"
    assert [m.status for m in state.members] == ["Failed", "NotStarted", "NotStarted"]


def test_a_sweep_is_planned_offline(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, trial={"command": "touch never; echo ${{search_space.lr}}"})

    plan = json.loads(call("plan", file, "--json", cwd=tmp_path).stdout)

    assert plan["trial_count"] == 3
    assert [trial["lr"] for trial in plan["trials"]] == [0.1, 0.2, 0.3]
    assert plan["command"] == "touch never; echo 0.1"
    assert plan["request"]["properties"]["jobType"] == "Sweep"
    assert not (tmp_path / "never").exists()


def test_fields_of_a_sweep_and_of_its_trials_are_set(tmp_path: Path) -> None:
    sweep = Sweep.load(write_sweep(tmp_path)).with_set(
        "limits.max_total_trials=2",
        "search_space.lr.values=[5, 6]",
        "resources.instance_count=2",
        "trial.distribution.type=pytorch",
    )

    assert [values["lr"] for values in sweep.trials()] == [5, 6]
    assert (sweep.job.node_count, sweep.job.distribution) == (2, PyTorch())
