"""Sweeps: their YAML, their plan, the values of their trials, and what azure-ai-ml puts on the wire."""

from __future__ import annotations

import json
import logging
import math
import statistics
import warnings
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from running import call
from submitting import workspace_of
from sweeping import SWEEP, sweep_of, write_sweep

from azml_dist import AzureML, Job, JobError, PyTorch, SubmitError, Sweep, submit
from azml_dist.emulator import Emulator
from azml_dist.model.search_space import (
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
from azml_dist.model.sweep import Limits, Objective
from azml_dist.model.termination import Bandit, MedianStopping, TruncationSelection
from azml_dist.plan.sweep import sweep_request

with warnings.catch_warnings():  # what azure-ai-ml's own dependencies warn about when they are imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import load_job
    from azure.ai.ml import sweep as azure
    from azure.ai.ml.entities._job.to_rest_functions import to_rest_job_object
    from azure.ai.ml.operations._job_operations import SdkJSONEncoder

pytestmark = [pytest.mark.filterwarnings("ignore"), *map(pytest.mark.filterwarnings, SDK_WARNINGS)]

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


@pytest.mark.parametrize(
    "space", [QNormal(mu=10, sigma=3, q=0.01), LogNormal(mu=10, sigma=3), QLogNormal(mu=10, sigma=3, q=0.01)], ids=str
)
def test_normal_values_of_other_kinds_have_them_too(space: Space) -> None:
    random = Random(1)
    values: list[Any] = [space.sample(random) for _ in range(2000)]
    normal = values if isinstance(space, QNormal) else [math.log(value) for value in values]

    assert statistics.mean(normal) == pytest.approx(10, abs=0.3)
    assert statistics.stdev(normal) == pytest.approx(3, abs=0.3)


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
        "`lr` is in the search space, not an input",
    ),
    "a name that is both": ({"inputs": {"lr": 1}}, "`lr` is both an input and in the search space"),
    "a grid of numbers": (
        {"search_space": {"lr": {"type": "uniform", "min_value": 0, "max_value": 1}}},
        "grid sampling accepts only `choice`, not `uniform`",
    ),
    "an unknown expression": ({"search_space": {"lr": {"type": "unifrom"}}}, "did you mean `uniform`?"),
    "no number of trials": ({"limits": {"timeout": 60}}, "`limits.max_total_trials` is missing"),
    "too many trials": ({"limits": {"max_total_trials": 1001}}, "1001 is too large; the maximum is 1000"),
    "a goal of its own": ({"objective": {"primary_metric": "x", "goal": "minimise"}}, "did you mean `minimize`?"),
    "a field of the trial": ({"command": "true"}, "it belongs under `trial`: `trial.command`"),
    "a field of the sweep": ({"trial": {"compute": "c"}}, "it belongs to the sweep, not to `trial`: `compute`"),
    "a field that is none": ({"trails": 3}, "unknown field `trails`"),
    "a field of the trial that is none": ({"trial": {"comand": "x"}}, "unknown field `comand`"),
    "a bandit without slack": ({"early_termination": {"type": "bandit"}}, "needs a `slack_factor` or a `slack_amount`"),
    "a wrong job": ({"trial": {"command": "echo ${{search_space.lr}} ${{inputs.x}}"}}, "there is no input `x`"),
    "truth values in a choice": (
        {"search_space": {"lr": {"type": "choice", "values": [1, True]}}},
        "search_space.lr.values.1: azure-ai-ml does not accept true or false in a choice",
    ),
    "a truth value in a mapping": (
        {"search_space": {"lr": {"type": "choice", "values": [{"a": False}]}}},
        "search_space.lr.values.0: azure-ai-ml does not accept true or false in a choice",
    ),
    "bounds named otherwise": (
        {"search_space": {"lr": {"type": "uniform", "min_value": 1, "max_value": 2, "min": 1}}},
        "unknown field `min`",
    ),
    "a type of the trial": ({"trial": {"type": "command"}}, "trial.type: unknown field `type`"),
    "a file as the trial": ({"trial": "./job.yml"}, "`trial` must be a mapping with `command`, which each trial runs"),
    "bayesian of a normal": (
        {"search_space": {"lr": {"type": "normal", "mu": 0, "sigma": 1}}, "sampling_algorithm": "bayesian"},
        "bayesian sampling accepts `choice`, `uniform` and `quniform`, not `normal`",
    ),
}


PLACES: dict[str, tuple[str, str | None]] = {
    "an unknown hyperparameter": ("trial.command", "known here: lr"),
    "a hyperparameter as an input": ("trial.command", "write `${{search_space.lr}}`"),
    "a name that is both": ("search_space.lr", "rename one of them"),
    "a grid of numbers": ("search_space.lr", "list the values"),
    "an unknown expression": ("search_space.lr", "did you mean `uniform`?"),
    "no number of trials": ("limits", "azure-ai-ml requires it: `limits: {max_total_trials: 20}`"),
    "too many trials": ("limits.max_total_trials", None),
    "a goal of its own": ("objective.goal", "did you mean `minimize`?"),
    "a field of the trial": ("command", "it belongs under `trial`: `trial.command`"),
    "a field of the sweep": ("trial.compute", "it belongs to the sweep, not to `trial`: `compute`"),
    "a field that is none": ("trails", "did you mean `trial`?"),
    "a field of the trial that is none": ("trial.comand", "did you mean `command`?"),
    "a bandit without slack": ("early_termination", None),
    "a wrong job": ("trial.command", "known here: lr"),
    "truth values in a choice": (
        "search_space.lr.values.1",
        'write strings, `["true", "false"]`, or numbers, `[1, 0]`',
    ),
    "a truth value in a mapping": (
        "search_space.lr.values.0",
        'write strings, `["true", "false"]`, or numbers, `[1, 0]`',
    ),
    "bounds named otherwise": ("search_space.lr.min", "did you mean `min_value`?"),
    "a type of the trial": ("trial.type", "leave it out: a trial is always a command"),
    "a file as the trial": ("trial", "azure-ai-ml reads no file or component here: write the fields of ./job.yml here"),
    "bayesian of a normal": ("search_space.lr", "use `sampling_algorithm: random`, or one of these three"),
}
"""The field and the hint of each."""


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_sweep_is_said_with_its_line(case: str, tmp_path: Path) -> None:
    fields, told = BAD[case]
    file = write_sweep(tmp_path, **fields)

    with pytest.raises(JobError) as error:
        Sweep.load(file)

    [problem] = error.value.problems
    assert told in str(error.value)
    assert (problem.where, problem.hint) == (f"{file}:1: {PLACES[case][0]}", PLACES[case][1])


def test_bounds_that_were_meant_as_values_are_noted(tmp_path: Path) -> None:
    space = {"lr": {"type": "loguniform", "min_value": 0.0001, "max_value": 0.1}}
    sweep = sweep_of(tmp_path, "echo ${{search_space.lr}}", search_space=space, sampling_algorithm="random")

    (finding,) = sweep.plan().findings

    assert finding.message == "`loguniform(0.0001, 0.1)` draws values from 1 to 1.105"
    assert finding.hint == "the bounds are logarithms: for 0.0001 to 0.1 write -9.21 and -2.30"


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
    with pytest.raises(SubmitError, match="differs in its search space"):
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


@pytest.mark.parametrize(
    ("value", "best", "ended"),
    [
        (0.66, 0.8, True),
        (0.67, 0.8, False),
        (-1.21, -1.0, True),
        (-1.19, -1.0, False),
        (-0.1, 0.0, True),
        (0.0, 0.0, False),
    ],
)
def test_the_slack_of_a_bandit_is_a_ratio_of_the_best_value(value: float, best: float, ended: bool) -> None:
    """Larger is better; to minimize, values are negated."""
    bandit = Bandit(slack_factor=0.2, evaluation_interval=1)

    assert bandit._is_behind(0, 1, {0: [value], 1: [best]}) is ended


def test_a_bandit_with_an_amount_allows_that_distance() -> None:
    assert [Bandit(slack_amount=0.25).ends(trial, HISTORY) for trial in HISTORY] == [None, 1, None]


def test_median_stopping_holds_the_best_value_against_the_median_of_averages() -> None:
    policy = MedianStopping(delay_evaluation=2)

    assert [policy.ends(trial, HISTORY) for trial in HISTORY] == [None, None, None]
    assert policy.ends(3, {**HISTORY, 3: [0.1, 0.6]}) == 2


def test_a_trial_at_the_median_goes_on() -> None:
    policy = MedianStopping()

    assert policy.ends(0, {0: [0.5], 1: [0.5], 2: [0.9]}) is None
    assert policy.ends(0, {0: [0.4], 1: [0.5], 2: [0.9]}) == 1


def test_truncation_ends_the_worst_share() -> None:
    policy = TruncationSelection(truncation_percentage=34)

    assert [policy.ends(trial, HISTORY) for trial in HISTORY] == [None, 1, None]


def test_a_sweep_is_planned_offline(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, trial={"command": "touch never; echo ${{search_space.lr}}"})

    plan = json.loads(call("plan", file, "--json", cwd=tmp_path).stdout)

    assert plan["trial_count"] == 3
    assert [trial["lr"] for trial in plan["trials"]] == [0.1, 0.2, 0.3]
    assert plan["command"] == "touch never; echo 0.1"
    assert plan["request"]["properties"]["jobType"] == "Sweep"
    assert not (tmp_path / "never").exists()


def test_the_plan_of_a_sweep_says_what_is_tried_and_how(tmp_path: Path) -> None:
    sweep = Sweep.load(
        write_sweep(
            tmp_path,
            sampling_algorithm={"type": "random", "seed": 7},
            search_space={"lr": {"type": "choice", "values": [0.1, 0.2]}, "depth": {"type": "randint", "upper": 5}},
            limits={"max_total_trials": 20, "max_concurrent_trials": 4, "timeout": 7200, "trial_timeout": 600},
            early_termination={"type": "truncation_selection", "truncation_percentage": 20, "evaluation_interval": 1},
            display_name="tries",
        )
    )
    plan = sweep.plan()
    lines = [" ".join(line.split()) for line in str(plan).splitlines()]

    assert lines[0] == "tries sweep: 20 trials of 1 node x 1 process = 1"
    assert {
        "objective minimize loss",
        "sampling random, seed 7",
        f"lr {sweep.search_space['lr']}",
        f"depth {sweep.search_space['depth']}",
        "at a time 4 on Azure ML, 1 locally unless you set `--parallel`",
        "timeout 7,200 s",
        "trial timeout 600 s",
        "trial lr depth",
    } <= {*lines}
    assert any(line.startswith("ended early ") for line in lines)
    assert [len(values) for values in plan.values] == [2] * 8
    assert "..." in lines or "…" in lines, "there are more trials than are shown"
    assert repr(plan) == "<SweepPlan: at most 20 trials of 1 node x 1 process = 1>"


def test_the_plan_of_a_bare_grid_says_no_more_than_there_is(tmp_path: Path) -> None:
    plan = Sweep.load(write_sweep(tmp_path)).plan()
    lines = [" ".join(line.split()) for line in str(plan).splitlines()]

    assert lines[0] == "sweep: 3 trials of 1 node x 1 process = 1"
    at_a_time = "at a time 3 on Azure ML, 1 locally unless you set `--parallel`"
    assert {"sampling grid", at_a_time, "0 0.1", "2 0.3"} <= {*lines}
    assert not [line for line in lines if line.startswith(("timeout", "trial timeout", "ended early", "…"))]


def test_the_plan_of_a_sweep_is_that_of_its_first_trial_and_what_the_sweep_adds(tmp_path: Path) -> None:
    plan = Sweep.load(write_sweep(tmp_path)).plan()
    found = plan.to_dict()
    first = plan.trial.to_dict()
    own = {"type", "trial_count", "trials", "request", "findings"}

    assert found["command"] == "echo lr=0.1"
    assert {name: value for name, value in found.items() if name not in own} == {
        name: value for name, value in first.items() if name not in own
    }
    assert (found["type"], found["trial_count"]) == ("sweep", 3)
    assert found["trials"] == [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}]
    assert found["request"] == sweep_request(plan.sweep)
    assert found["findings"] == [one.to_dict() for one in plan.findings]


def test_a_plan_without_what_its_script_says_is_otherwise_the_same(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, trial={"command": "python args.py --lr ${{search_space.lr}}"})
    (tmp_path / "src" / "args.py").write_text(
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--rate')\nparser.parse_args()\n"
    )
    plan = Sweep.load(file).plan()
    codes, without = ({one.code for one in each.findings} for each in (plan, plan.without_script()))

    assert without < codes
    assert (plan.without_script().sweep, plan.without_script().request) == (plan.sweep, plan.request)


@pytest.mark.parametrize(("goal", "best"), [("minimize", 1.0), ("maximize", 3.0), ("Maximize", 3.0)])
def test_the_best_value_is_the_smallest_or_the_largest(goal: Any, best: float) -> None:
    assert Objective(primary_metric="loss", goal=goal).best([2.0, 1.0, 3.0]) == best


def test_fields_of_a_sweep_and_of_its_trials_are_set(tmp_path: Path) -> None:
    sweep = Sweep.load(write_sweep(tmp_path)).with_set(
        "limits.max_total_trials=2",
        "search_space.lr.values=[5, 6]",
        "resources.instance_count=2",
        "trial.distribution.type=pytorch",
    )

    assert [values["lr"] for values in sweep.trials()] == [5, 6]
    assert (sweep.job.node_count, sweep.job.distribution) == (2, PyTorch())


@pytest.mark.parametrize("setting", ["trial.display_name=other", "job.display_name=other", "display_name=other"])
def test_a_setting_of_the_trial_may_say_so(setting: str, tmp_path: Path) -> None:
    sweep = Sweep.load(write_sweep(tmp_path))

    assert sweep.with_set(setting).job == sweep.job.with_(display_name="other")


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("limits.max_total_trials=0", "--set limits.max_total_trials"),
        ("trial.command=echo ${{inputs.x}}", "--set command"),
        ("objective.goal=least", "--set objective.goal"),
        ("limits", "--set"),
    ],
)
def test_a_setting_that_is_wrong_is_named(setting: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        Sweep.load(write_sweep(tmp_path)).with_set(setting)

    assert error.value.problems[0].where == where


def test_a_choice_between_mappings_is_not_tried_here(tmp_path: Path) -> None:
    space = {"lr": {"type": "choice", "values": [{"a": 1}, {"a": 2}]}}
    sweep = Sweep.load(write_sweep(tmp_path, search_space=space))
    with pytest.raises(JobError) as error:
        sweep.trial(next(iter(sweep.trials(seed=0))))
    [problem] = error.value.problems
    assert problem.message.startswith("`lr` is a choice between mappings")
    assert (problem.hint, problem.where) == ("for a local run, use plain values", "search_space.lr")


@pytest.mark.parametrize("spaces", ["[1, 2]", "text", "3", "null", "{lr: 3}", "{lr: {type: choice, values: 3}}"])
def test_a_search_space_of_any_shape_is_refused_in_words(spaces: str, tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    text = json.dumps({**json.loads(file.read_text()), "search_space": "HERE"})
    file.write_text(text.replace('"HERE"', spaces))

    with pytest.raises(JobError) as error:
        Sweep.load(file)
    assert all((one.where or "").startswith(f"{file}:") for one in error.value.problems)


@pytest.mark.parametrize(
    ("q", "multiples"), [(0.1, [0.3, 0.6, 0.7, 1.1]), (0.2, [0.6, 1.4]), (0.05, [0.15, 0.35]), (1e-5, [3e-5]), (3, [6])]
)
def test_a_multiple_is_the_number_that_one_would_write(q: float, multiples: list[float]) -> None:
    """7 * 0.1 is 0.7000000000000001."""
    for number in multiples:
        found = QUniform(min_value=number, max_value=number, q=q).sample(Random(0))
        assert (found, type(found)) == (number, type(q))


@pytest.mark.parametrize(("own", "asked", "trials"), [(2, 5, 2), (2, 2, 2), (2, 1, 1), (None, 3, 3)])
def test_the_first_trials_are_never_more_than_the_sweep_has(
    own: int | None, asked: int, trials: int, tmp_path: Path
) -> None:
    sweep = Sweep.load(write_sweep(tmp_path))
    sweep = sweep.with_(limits=Limits(max_total_trials=own))

    assert sweep.first_trials(asked).limits.max_total_trials == trials
