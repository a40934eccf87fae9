"""The pages of sweeps and pipelines on Azure ML: their trials and steps, as run history lists them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import CHROMIUM, Browser, browser
from emulated import SDK_WARNINGS
from needs import needs
from test_azure_groups import pipeline_there

from azml_dist import AzureML, Sweep, Workspace
from azml_dist.azureml.described import BEST_TRIAL
from azml_dist.azureml.group import azure_run
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator, StaticToken, answer

if TYPE_CHECKING:
    from azml_dist.emulator.testing import EmulatedWorkspace

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def here(tmp_path: Path, azure_sdk: None) -> Iterator[EmulatedWorkspace]:
    """A workspace that runs what it is sent, and lists two runs at a time."""
    from azml_dist.emulator.testing import emulated_workspace

    with emulated_workspace(tmp_path) as made:
        made.emulator.jobs.page_size = 2
        yield made
    assert made.emulator.problems == []


def job(text: str, *, name: str, **fields: Any) -> Any:
    from azure.ai.ml import command
    from azure.ai.ml.entities import Environment

    return command(name=name, command=text, environment=Environment(image="any"), compute="gpu-cluster", **fields)


def run_of(here: EmulatedWorkspace, name: str) -> AzureRun:
    """A run of the workspace, found by our own client."""
    place = here.workspace
    token = StaticToken(place)
    return azure_run(Workspace(place.subscription_id, place.resource_group, place.name, credential=token), name)


def submit_sweep(here: EmulatedWorkspace, command: str, rates: list[Any], **fields: Any) -> Any:
    from azure.ai.ml.sweep import Choice

    trial = job(command, name="trial", inputs={"rate": rates[0], "epochs": 3})(rate=Choice(rates))
    sweep = trial.sweep(sampling_algorithm="grid", primary_metric="loss", goal="minimize", **fields)
    sweep.name = "sweep"
    sweep.set_limits(max_total_trials=len(rates), max_concurrent_trials=1)
    return here.submit(sweep)


LOG = """python -c '
import mlflow
if ${{inputs.rate}} == 0.3: {}["labels"]
for step in range(3): mlflow.log_metric("loss", ${{inputs.rate}} / (1 + step), step=step)'
"""


def rows(chromium: Browser, selector: str) -> list[list[str]]:
    found = f"[...document.querySelectorAll({json.dumps(selector)})].map(r => [...r.cells].map(c => c.textContent))"
    return list(chromium.value(found))


def pairs(chromium: Browser, section: str) -> dict[str, str]:
    """The names and texts of the first list in a section."""
    found = f"[...document.querySelector('{section} ~ .pairs').children].map(c => c.textContent)"
    words = list(chromium.value(found))
    return dict(zip(words[::2], words[1::2], strict=True))


@needs(CHROMIUM, "mlflow")
def test_a_sweep_on_azure_ml_shows_its_trials(chromium: Browser, here: EmulatedWorkspace, tmp_path: Path) -> None:
    submitted = submit_sweep(here, LOG, [0.1, 0.2, 0.3])
    assert submitted.wait() == "Completed", submitted.error

    page = run_of(here, "sweep").page().save(tmp_path / "sweep.html")
    chromium.open(page)

    assert chromium.complaints() == []
    found = rows(chromium, "#trials ~ .board tbody tr")
    assert [row[:4] for row in found[:2]] == [
        ["0", "0.1", "0.033333", "Completed, best"],
        ["1", "0.2", "0.066667", "Completed"],
    ]
    assert found[2][:3] == ["2", "0.3", "-"]
    assert found[2][3] == "Failed: rank 0: KeyError: 'labels'"
    assert pairs(chromium, "#data") == {"epochs": "3"}
    assert [row[-1] for row in found] == ["sweep_0", "sweep_1", "sweep_2"]
    assert all(row[4].endswith(" s") for row in found)
    assert chromium.value("document.querySelectorAll('.thread').length") == 3
    assert chromium.value("document.querySelectorAll('.thread.best').length") == 1
    assert chromium.value("document.querySelectorAll('#metrics ~ * .curve, .curve').length") == 2
    assert [row[0] for row in rows(chromium, "#timeline ~ details tbody tr")] == ["trial 0", "trial 1", "trial 2"]
    assert "minimize loss, grid sampling, each trial with the best value that it logged" in page.read_text()
    assert "azml-dist why sweep_2" in chromium.value("document.body.innerText")
    assert "sig=" not in page.read_text()


@needs(CHROMIUM)
def test_a_pipeline_on_azure_ml_shows_which_step_reads_which_output(
    chromium: Browser, here: EmulatedWorkspace, tmp_path: Path
) -> None:
    from azure.ai.ml import Input, Output, dsl

    folder, data = Input(type="uri_folder"), Output(type="uri_folder")
    make = job("echo x > ${{outputs.data}}/x", name="make", outputs={"data": data})
    use = job(
        "cp ${{inputs.data}}/x ${{outputs.data}}; exit ${{inputs.code}}",
        name="use",
        inputs={"data": folder, "code": 0},
        outputs={"data": data},
    )

    @dsl.pipeline(compute="gpu-cluster")
    def four(code=0):  # type: ignore[no-untyped-def] # azure-ai-ml reads annotations
        prep = make()
        left = use(data=prep.outputs.data, code=code)  # noqa: F841 (azure-ai-ml names steps after the variables)
        right = use(data=prep.outputs.data, code=3)
        both = use(data=right.outputs.data)  # noqa: F841

    pipeline = four()
    pipeline.name = "four"
    submitted = here.submit(pipeline)
    assert submitted.wait() == "Failed", submitted.error

    chromium.open(run_of(here, "four").page().save(tmp_path / "pipeline.html"))

    assert chromium.complaints() == []
    edges = chromium.value("[...document.querySelectorAll('.edge title')].map(t => t.textContent)")
    assert edges == ["prep.data → left.data", "prep.data → right.data", "right.data → both.data"]
    boxes = chromium.value("[...document.querySelectorAll('#steps ~ .scroll .hit')].map(b => b.ariaLabel)")
    assert boxes[0] == "prep: Completed"
    assert pairs(chromium, "#data") == {"code": "0", "right.code": "3", "both.code": "0"}
    assert rows(chromium, "#steps ~ * tbody tr")[2][1] == "Failed: rank 0: exit code 3"
    assert boxes[2:] == ["right: Failed", "both: NotStarted"]
    assert [row[0] for row in rows(chromium, "#timeline ~ details tbody tr")] == ["prep", "left", "right", "both"]
    assert "azml-dist why four_right" in chromium.value("document.body.innerText")


def sweep_there(emulator: Emulator, azure: AzureML, folder: Path) -> AzureRun:
    """A sweep that has two trials, of which nobody says what they try, and of which one has logged the metric."""
    trial = {"command": "true ${{search_space.rate}}", "environment": "azureml:torch:1"}
    file = folder / "sweep.yml"
    file.write_text(
        json.dumps(
            {
                "type": "sweep",
                "compute": "azureml:gpu-cluster",
                "trial": trial,
                "search_space": {"rate": {"type": "choice", "values": ["<b>1</b>", "2"]}},
                "sampling_algorithm": "grid",
                "objective": {"primary_metric": "loss", "goal": "minimize"},
                "limits": {"max_total_trials": 2},
            }
        )
    )
    run = azure.submit(Sweep.load(file))
    parent = emulator.job(run.name)
    for name in ("first", "second"):
        body = {**parent.body["trial"], "jobType": "Command", "computeId": parent.body["computeId"]}
        child = emulator.jobs.adopt(name, body, parent)
        child.advance("Running")
    emulator.job("first").log_metric("loss", 0.5)
    assert isinstance(run, AzureRun)
    return run


def test_what_a_trial_tries_may_not_be_known(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    text = sweep_there(emulator, azure, tmp_path).page().html

    assert "the values of the trials are not known: neither a trial's job nor MLflow has them" in text
    assert '"name":"second","status":"Running","took":null,"values":{},"metric":null' in text
    assert '"names":["rate"]' in text
    assert '"name":"first","status":"Running","took":null,"values":{},"metric":0.5' in text


def test_the_values_of_a_trial_are_those_of_its_job_or_else_of_mlflow(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    emulator.job("first").params["rate"] = "2"

    before = run.page().html
    emulator.job("second").body["parameters"] = {"rate": "3"}
    emulator.job("second").params["rate"] = "4"
    after = run.page().html

    assert '"values":{"rate":"2"},"metric":0.5' in before  # texts, as in the search space
    assert "the values of trial 1 are not known" in before
    assert '"values":{"rate":"3"},"metric":null' in after
    assert "are not known" not in after


def test_only_of_trials_that_were_asked_for_it_says_the_page_that_their_values_are_not_known(
    emulator: Emulator, azure: AzureML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many trials, only some are asked: the best one first."""
    monkeypatch.setattr("azml_dist.azureml.group._MOST_ON_PAGE", 1)
    run = sweep_there(emulator, azure, tmp_path)
    emulator.job(run.name).body["properties"] = {BEST_TRIAL: "second"}
    emulator.job("second").log_metric("loss", 0.25)

    text = run.page().html

    assert "not asked: the metrics and values of trial 0, as there are 2 trials" in text
    assert (
        "the values of trial 1 are not known: neither a trial's job nor MLflow has them, or they cannot be read" in text
    )
    assert '"name":"second","status":"Running","took":null,"values":{},"metric":0.25,"best":true' in text
    assert '"name":"first","status":"Running","took":null,"values":{},"metric":null' in text


def test_trials_that_cannot_be_listed_are_left_to_the_studio(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    emulator.inject(answer(403), route="runs.children", times=None)

    text = run.page().html

    assert "The trials of this run cannot be listed; the studio has them." in text
    assert '"group":null' in text


def test_a_child_that_no_step_accounts_for_leaves_open_what_became_of_a_step(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    parent = emulator.job(run.name)
    steps = {name: {"inputs": {}, "type": "command"} for name in ("one", "<b>two</b>")}
    parent.body = {"jobType": "Pipeline", "jobs": steps}
    emulator.job("first").body["displayName"] = "one"

    text = run.page().html

    assert '"label":"one","number":0,"name":"first","status":"Running"' in text
    assert '"label":"\\u003cb>two\\u003c/b>","number":1,"name":"-","status":"not known"' in text
    assert '"label":"second","number":2,"name":"second","status":"Running"' in text


# Why members failed


RAISED = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    main()\nValueError: no.%d\n'


def failed_trials(emulator: Emulator, run: AzureRun, count: int, processes: int = 1) -> None:
    """Trials that failed, each with a log that says why."""
    parent = emulator.job(run.name)
    world = {"distributionType": "PyTorch", "processCountPerInstance": processes} if processes > 1 else None
    body = {**parent.body["trial"], "jobType": "Command", "computeId": parent.body["computeId"], "distribution": world}
    for number in range(count):
        trial = emulator.jobs.adopt(f"{run.name}_{number}", body, parent)
        trial.advance("Running")
        trial.write_log(f"user_logs/std_log{'_process_0' if processes > 1 else ''}.txt", RAISED % number)
        trial.fail("User process 'bash' exited with status code 1.")
    for name in ("first", "second"):
        emulator.job(name).advance("Canceled")
    parent.fail("All trials failed.")


def shown(run: AzureRun) -> tuple[list[str], list[str]]:
    """The errors of the members on the page of a run, and its notes."""
    page = run.page().html
    sheet = json.JSONDecoder().raw_decode(page[page.index("{", page.index('type="application/json"')) :])[0]
    return [one["error"] for one in sheet["group"]["members"] if one["status"] == "Failed"], sheet["notes"]


def test_a_page_has_the_verdicts_of_the_first_members_that_failed_and_names_the_others(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    failed_trials(emulator, run, 20)

    errors, notes = shown(run)

    assert errors[:16] == [f"rank 0: ValueError: no.{number} (train.py:3)" for number in range(16)]
    assert set(errors[16:]) == {"User process 'bash' exited with status code 1. (its logs were not read)"}
    how = f"`azml-dist why {run.name}_16` and so on"
    assert f"the logs of trials 18-21 were not read to find out what failed: {how}" in notes


def test_no_more_logs_are_read_for_the_verdicts_of_a_page_than_256(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    failed_trials(emulator, run, 3, processes=100)

    errors, notes = shown(run)

    assert [error.endswith("(its logs were not read)") for error in errors] == [False, False, True]
    assert any("the logs of trial 4 were not read" in note for note in notes)


def test_a_page_says_that_the_logs_of_a_member_cannot_be_read(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    failed_trials(emulator, run, 1)
    emulator.inject(answer(403), route="blobs.get", times=None)

    errors, _ = shown(run)

    said = "User process 'bash' exited with status code 1."
    assert errors == [f"{said} (user_logs/std_log.txt cannot be read: the storage answers 403)"]


def test_a_step_that_is_a_pipeline_shows_the_verdict_of_the_step_in_it(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = pipeline_there(emulator, azure, tmp_path)
    emulator.job(run.name).body["inputs"] = {
        "api_key": {"jobInputType": "literal", "value": "hunter2-hunter2"},
        "data": {"jobInputType": "uri_folder", "uri": "azureml://datastores/d/paths/words?sig=hunter2"},
    }

    errors, _ = shown(run)

    assert errors == ["rank 0: ValueError: lr is bad (train.py:3)"]
    assert "hunter2" not in run.page().html
    assert run.describe()["details"]["inputs"]["api_key"] == "***"
