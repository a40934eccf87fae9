"""Sweeps and pipelines on Azure ML, as people see them: status, logs, verdict, page, bundle, as those here."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from sweeping import write_sweep
from test_azure_run import at_the_workspace

from azml_dist import AzureML, NotFound, RunFailed, SubmitError, Sweep, submit
from azml_dist.azureml.described import BEST_TRIAL
from azml_dist.azureml.group import AzureGroup, azure_run
from azml_dist.emulator import Emulator, answer
from azml_dist.emulator.jobs import Job
from azml_dist.runs.bundle import bundle_of
from azml_dist.runs.bundled import BundledRun
from azml_dist.runs.target import OWN
from azml_dist.show import Table, card_text, page_text

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

LOG = "user_logs/std_log.txt"
RAISED = (
    'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    main()\nValueError: lr is bad\n'
)
EXITED = "User process 'bash' exited with status code 1."


def sweep_there(emulator: Emulator, azure: AzureML, folder: Path) -> AzureGroup:
    """A sweep that runs, and has no trials yet."""
    fields = {"compute": "azureml:gpu-cluster", "limits": {"max_total_trials": 100}}
    trial = {"environment": "azureml:torch:1"}
    run = azure.submit(Sweep.load(write_sweep(folder, trial=trial, **fields)))
    assert isinstance(run, AzureGroup)
    emulator.job(run.name).advance("Running")
    return run


def add_trials(emulator: Emulator, run: AzureGroup, count: int, failed: Sequence[int] = ()) -> list[Job]:
    """Trials with a metric and a log each; those that did not fail run."""
    parent = emulator.job(run.name)
    found = []
    for number in range(count):
        literal = {"jobInputType": "literal", "value": str(number / 10)}
        body = {**parent.body["trial"], "jobType": "Command", "computeId": parent.body["computeId"]}
        trial = emulator.jobs.adopt(f"{run.name}_{number}", {**body, "inputs": {"lr": literal}}, parent)
        trial.advance("Running")
        trial.write_log(LOG, f"trial {number} begins\n" + (RAISED if number in failed else ""))
        trial.log_metric("loss", 1 / (1 + number))
        if number in failed:
            trial.fail(EXITED)
        found.append(trial)
    return found


def end(emulator: Emulator, run: AzureGroup, best: int | None = None, status: str = "Completed") -> None:
    """The sweep ends, and with it the trials that run."""
    parent = emulator.job(run.name)
    for job in list(emulator.jobs.jobs.values()):
        if job is not parent and job.status == "Running":
            job.advance(status)
    if best is not None:
        parent.body["properties"] = {BEST_TRIAL: f"{run.name}_{best}"}
    parent.advance(status)


def pipeline_there(emulator: Emulator, azure: AzureML, folder: Path) -> AzureGroup:
    """A pipeline with the steps `prep`, which completed, `train`, a pipeline whose step failed, and `use`."""
    run = sweep_there(emulator, azure, folder)
    parent = emulator.job(run.name)
    step = {**parent.body["trial"], "jobType": "Command", "computeId": parent.body["computeId"]}
    reads = {"data": {"jobInputType": "literal", "value": "${{parent.jobs.prep.outputs.data}}"}}
    parent.body = {"jobType": "Pipeline", "jobs": {"prep": {}, "train": {"inputs": reads}, "use": {}}}
    prep = emulator.jobs.adopt("prep-run", {**step, "displayName": "prep"}, parent)
    prep.advance("Running")
    prep.write_log(LOG, "prepared\n")
    prep.advance("Completed")
    train = emulator.jobs.adopt("train-run", {"jobType": "Pipeline", "displayName": "train", "jobs": {}}, parent)
    train.body["jobs"] = {"one": {}, "two": {}}
    train.advance("Running")
    for name in ("one", "two"):
        inner = emulator.jobs.adopt(f"{name}-run", {**step, "displayName": name}, train)
        inner.advance("Running")
        inner.write_log(LOG, f"{name} begins\n" + (RAISED if name == "two" else ""))
        if name == "one":
            inner.advance("Completed")
        else:
            inner.fail(EXITED)
    train.fail("Step two has failed.")
    parent.fail("Step train has failed.")
    return run


def table(run: Any) -> Table:
    return next(block for block in run._page().blocks if isinstance(block, Table))


# The state


@needs("mlflow")
def test_a_sweep_has_the_same_table_and_the_same_json_as_one_here(tmp_path: Path, azure_sdk: None) -> None:
    from azml_dist.emulator.testing import emulated_workspace

    log = "import mlflow; [mlflow.log_metric('loss', abs(${{search_space.lr}} - other)) for other in (0, 9)]"
    command = f'test ${{{{search_space.lr}}}} != 0.3 && python3 -c "{log}"'
    fields = {"compute": "azureml:gpu-cluster", "trial": {"command": command}}
    here = submit(Sweep.load(write_sweep(tmp_path, **fields)), on="local").wait()
    with emulated_workspace(tmp_path) as made:
        made.emulator.assets.add_environment("env")
        there = AzureML(check=False).submit(Sweep.load(tmp_path / "sweep.yml"))
        assert made.emulator.job(there.name).wait() == "Completed"

        seen, told, page = table(there), there.describe(), page_text(there._page())
        logs = sorted(there.logs())
    assert made.emulator.problems == []

    expected = here.describe()
    assert seen.headings == table(here).headings
    assert [row and list(row[:5]) for row in seen.rows] == [row and list(row[:5]) for row in table(here).rows]
    assert ["minimize loss (grid)" in text for text in (page, page_text(here._page()))] == [True, True]
    assert told["kind"] == expected["kind"]
    assert {name: value for name, value in told["details"].items() if name != "best"} == {
        name: value for name, value in expected["details"].items() if name != "best"
    }
    assert [list(one) for one in told["trials"]] == [list(one) for one in expected["trials"]]
    same = ("label", "status", "exit_code", "failed_rank", "values", "metric")
    assert [[one[key] for key in same] for one in told["trials"]] == [
        [one[key] for key in same] for one in expected["trials"]
    ]
    assert (told["world"], told["processes"]) == (expected["world"], expected["processes"])
    assert logs == sorted(here.logs())


@needs("mlflow")
def test_of_equal_trials_the_first_is_the_best_here_and_there(tmp_path: Path, azure_sdk: None) -> None:
    """NaN is never the best value."""
    from azml_dist.emulator.testing import emulated_workspace

    log = "import mlflow; [mlflow.log_metric('loss', float(value)) for value in '${{search_space.loss}}'.split()]"
    space = {"loss": {"type": "choice", "values": ["nan", "0.1 nan", "nan 0.1"]}}
    fields = {"trial": {"command": f'python3 -c "{log}"'}, "search_space": space}
    file = write_sweep(tmp_path, **fields, compute="azureml:gpu-cluster")
    here = submit(Sweep.load(file), on="local").wait()
    with emulated_workspace(tmp_path) as made:
        made.emulator.assets.add_environment("env")
        there = AzureML(check=False).submit(Sweep.load(file))
        assert made.emulator.job(there.name).wait() == "Completed"

        assert there.describe()["details"]["best"] == f"{there.name}_1"
    assert here.describe()["details"]["best"] == f"{here.name}_1"


def test_the_metric_of_a_trial_is_the_best_value_that_it_logged_by_the_goal(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    for trial in add_trials(emulator, run, 2):  # they have logged 1 and 0.5
        for value in (0.25, float("nan"), 3.0):
            trial.log_metric("loss", value)

    lowest = [one["metric"] for one in run.describe()["trials"]]
    emulator.job(run.name).body["objective"] = {"primaryMetric": "loss", "goal": "Maximize"}
    highest = [one["metric"] for one in azure_run(run._workspace, run.name).describe()["trials"]]

    assert (lowest, highest) == ([0.25, 0.25], [3.0, 3.0])


def test_a_trial_whose_values_cannot_be_read_has_no_metric(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 1)
    emulator.inject(answer(403), route="metrics.history", times=None)

    (trial,) = run.describe()["trials"]

    assert (trial["values"], trial["metric"]) == ({"lr": 0}, None)


def test_of_many_trials_only_some_are_asked_and_the_best_one_always(
    emulator: Emulator, azure: AzureML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azml_dist.azureml.group.MOST_ASKED", 3)
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 30)
    end(emulator, run, best=29)
    before = emulator.counts()

    shown = str(run)

    asked = {route: count - before.get(route, 0) for route, count in emulator.counts().items()}
    assert sum(asked.values()) < 30, asked
    assert "note  not asked: the metrics and values of trials 2-28, as there are 30 trials" in shown
    rows = [row for row in table(run).rows if row]
    assert [row[1:4] for row in (rows[0], rows[1], rows[2], rows[29])] == [
        ["0", "1", ""],
        ["0.1", "0.5", ""],
        ["", "-", ""],
        ["2.9", "0.0333333", "best"],
    ]
    assert run.describe()["findings"] == ["not asked: the metrics and values of trials 2-28, as there are 30 trials"]


def test_a_sweep_that_runs_shows_what_its_trials_do(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 3, failed=[1])

    rows = [row for row in table(run).rows if row]

    assert [row[4] for row in rows] == ["Running", "Failed", "Running"]
    assert run.describe()["status"] == "Running"
    assert run.describe()["verdict"]["message"] == "lr is bad"
    add_trials(emulator, run, 4)
    assert len(table(run).rows) == 4


def test_trials_that_cannot_be_listed_are_not_told_to_be_none(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    emulator.inject(answer(403), route="runs.children", times=None)

    assert run.describe()["trials"] is None
    assert "note  the trials of this run cannot be listed; the studio has them" in str(run)


def test_a_pipeline_shows_its_steps_and_names_the_step_that_failed_however_deep(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = pipeline_there(emulator, azure, tmp_path)

    status = at_the_workspace(emulator, tmp_path, "status", run.name)
    why = at_the_workspace(emulator, tmp_path, "why", run.name)
    found = json.loads(at_the_workspace(emulator, tmp_path, "status", run.name, "--json").stdout)

    rows = [line.split() for line in status.stdout.splitlines()]
    assert ["step", "status", "took", "run"] in rows
    assert [row[:2] for row in rows if row[:1] in (["prep"], ["train"], ["use"])] == [
        ["prep", "Completed"],
        ["train", "Failed"],
        ["use", "NotStarted"],
    ]
    for text in (status.stdout, why.stdout):
        assert "failed   train, as run train-run" in text
        assert "failed   two, as run two-run" in text
        assert "ValueError: lr is bad" in text
    assert "azml-dist rerun two-run" in why.stderr
    assert [one["name"] for one in found["steps"]] == ["prep-run", "train-run", None]
    assert found["details"] == {"links": [["prep", "data", "train", "data"]], "inputs": {}}
    assert (found["failed_rank"], found["reason"]) == (0, "user")
    listed = at_the_workspace(emulator, tmp_path, "list").stdout
    assert "Failed: rank 0: ValueError: lr is bad" in next(line for line in listed.splitlines() if run.name in line)


def test_a_cancelled_pipeline_was_not_ended_by_its_steps(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 2, failed=[1])
    end(emulator, run, status="Canceled")

    assert run.reason() == "canceled"
    assert "failed   trial 1" in page_text(run._page())


def test_waiting_for_a_sweep_whose_trials_failed_shows_why(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 2, failed=[0, 1])
    emulator.job(run.name).fail("All trials failed.")

    with pytest.raises(RunFailed) as failure:
        run.wait()

    assert failure.value.failed_rank == 0
    assert "ValueError: lr is bad" in failure.value.log_tail
    assert f"failed   trial 0, as run {run.name}_0" in failure.value.ending


def test_a_run_that_is_listed_in_itself_is_left_out(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = pipeline_there(emulator, azure, tmp_path)
    emulator.job(run.name).parent = "train-run"

    assert len(list(run.logs(tail=1))) == 3
    assert sorted(leaf.label for leaf in run.leaves(10)[0]) == ["prep", "train/one", "train/two"]


def test_who_waits_sees_how_many_trials_are_done(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 3, failed=[1])
    look = run.watching()
    lines = iter(run.logs(follow=True))
    next(lines)

    assert look().more == "1 of 3 trials done so far"
    lines.close()  # type: ignore[attr-defined] # a generator


def test_a_notebook_that_waits_asks_no_trial_for_its_metrics(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 8)
    before = sum(emulator.counts().values())

    shown = page_text(run._live_page())

    assert sum(emulator.counts().values()) - before < 10
    assert f"{run.name}_7" in shown


# What they wrote


def test_the_logs_of_a_sweep_are_those_of_its_trials(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 3)

    shown = at_the_workspace(emulator, tmp_path, "logs", run.name).stdout

    assert shown.splitlines() == [f"[trial{n} node0 rank0] trial {n} begins" for n in range(3)]
    with pytest.raises(NotFound, match="ranks and nodes belong to one of them") as refused:
        run.logs(rank=0)
    assert f"azml-dist logs {run.name}_0 --rank 0" in str(refused.value)


def test_the_logs_of_a_step_in_a_step_have_both_names(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = pipeline_there(emulator, azure, tmp_path)

    lines = list(run.logs(tail=1))

    assert lines == [
        "[prep node0 rank0] prepared",
        "[train/one node0 rank0] one begins",
        "[train/two node0 rank0] ValueError: lr is bad",
    ]


def test_a_sweep_is_followed_to_its_end_with_the_trials_that_begin_meanwhile(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 1)
    found = []

    for line in run.logs(follow=True):
        found.append(line)
        if len(found) == 1:
            add_trials(emulator, run, 3)
            end(emulator, run, best=2)

    assert sorted(set(found)) == [f"[trial{n} node0 rank0] trial {n} begins" for n in range(3)]


def test_following_a_sweep_may_be_given_up(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 2)

    lines = iter(run.logs(follow=True))

    assert "begins" in next(lines)
    lines.close()  # type: ignore[attr-defined] # a generator


def test_the_outputs_of_a_sweep_are_those_of_its_best_trial(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    trials = add_trials(emulator, run, 2)
    trials[1].body["outputs"] = {"model": {"jobOutputType": "uri_folder", "uri": "azureml://datastores/d/paths/best"}}
    assert run.outputs == {}

    end(emulator, run, best=1)

    assert run.outputs == {"model": "azureml://datastores/d/paths/best"}
    assert f"/{run.name}_1/" in run.register("m", output="artifacts").path
    assert f"best     trial 1, as run {run.name}_1" in card_text(run.ending())


def test_metrics_of_a_sweep_are_those_of_its_trials(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 2)

    found = run.metrics()
    shown = at_the_workspace(emulator, tmp_path, "metrics", run.name).stdout.splitlines()

    assert dict(found) == {"trial 0/loss": 1.0, "trial 1/loss": 0.5}
    assert [point.value for point in found.history("trial 1/loss")] == [0.5]
    assert [line.split() for line in shown] == [["metric", "trial", "0", "trial", "1"], ["loss", "1", "0.5"]]


# The page


def logs_of(page: str) -> dict[str, str]:
    """The logs that a page has, by their labels."""
    start = page.index("{", page.index('type="application/json"'))
    sheet = json.JSONDecoder().raw_decode(page[start:])[0]
    return {one["label"]: "\n".join(line or "…" for line in one["lines"]) for one in sheet["logs"]}


def test_a_page_has_the_logs_of_the_trials_that_failed_and_of_the_best_one(
    emulator: Emulator, azure: AzureML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azml_dist.azureml.group._MEMBERS_ON_PAGE", 3)
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 8, failed=[5, 6])
    end(emulator, run, best=7)

    page = run.page().html

    found = logs_of(page)
    assert list(found) == ["trial 5", "trial 6", "trial 7"]
    assert "ValueError: lr is bad" in found["trial 6"]
    note = f"the page is without the logs of trials 0-4: `azml-dist logs {run.name}_0` and so on"
    assert note in page


def test_a_page_has_the_end_of_a_long_log(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    (trial,) = add_trials(emulator, run, 1)
    trial.write_log(LOG, "".join(f"line {n}\n" for n in range(20_000)))

    page = run.page().html

    shown = logs_of(page)["trial 0"]
    assert "line 19999" in shown
    assert "line 1\n" not in shown
    assert len(shown) < 60_000
    assert f"earlier lines are not here: azml-dist logs {run.name}_0" in page


def test_a_page_has_the_logs_of_steps_in_steps(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = pipeline_there(emulator, azure, tmp_path)

    found = logs_of(run.page().html)

    assert list(found) == ["prep", "train/one", "train/two"]


# The bundle


def test_a_bundle_has_the_logs_of_trials_and_says_whose_it_has_not(
    emulator: Emulator, azure: AzureML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azml_dist.azureml.group._MEMBERS_IN_BUNDLE", 2)
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 6, failed=[4])
    end(emulator, run, best=5)

    bundle_of(run).save(tmp_path / "sweep.zip")

    with zipfile.ZipFile(tmp_path / "sweep.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(LOG)]
        notes = json.loads(archive.read("bundle.json"))["notes"]
    assert names == [f"trial_4/{LOG}", f"trial_5/{LOG}"]
    assert "not in it: the logs of trials 0-3, each of which has a bundle of its own" in notes
    kept = BundledRun(tmp_path / "sweep.zip")
    assert list(kept.logs(tail=1)) == [
        "[trial4 node0 rank0] ValueError: lr is bad",
        "[trial5 node0 rank0] trial 5 begins",
    ]
    assert kept.describe()["trials"][4]["status"] == "Failed"
    why = at_the_workspace(emulator, tmp_path, "why", "sweep.zip").stdout
    assert "failed   trial 4" in why
    assert f"azml-dist logs {run.name}_4\n" in why


def test_a_bundle_of_a_pipeline_has_no_secret_of_a_step(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = pipeline_there(emulator, azure, tmp_path)
    step = emulator.job("two-run")
    step.body["environmentVariables"] = {"API_TOKEN": "hunter2-hunter2"}
    step.write_log(LOG, "the token is hunter2-hunter2\n")

    bundle_of(run).save(tmp_path / "pipeline.zip")

    with zipfile.ZipFile(tmp_path / "pipeline.zip") as archive:
        texts = [archive.read(name).decode() for name in archive.namelist()]
        assert "the token is" in archive.read(f"train_two/{LOG}").decode()
    assert not any("hunter2" in text for text in texts)
    assert "hunter2" not in run.page().html


def test_a_label_of_the_service_leads_nowhere_in_a_bundle(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = pipeline_there(emulator, azure, tmp_path)
    emulator.job("prep-run").body["displayName"] = "../../etc"

    bundle_of(run).save(tmp_path / "pipeline.zip")

    with zipfile.ZipFile(tmp_path / "pipeline.zip") as archive:
        assert not [name for name in archive.namelist() if ".." in name or name.startswith("/")]
        assert [name for name in archive.namelist() if name.endswith(f"etc/{LOG}")]


# The files


def logs_in(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file() and not {"system_logs", OWN} & {*path.parts})
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_a_download_of_a_pipeline_has_the_logs_of_its_steps_however_deep(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = pipeline_there(emulator, azure, tmp_path)

    done = run.fetch(tmp_path / "got")

    assert logs_in(tmp_path / "got") == {
        f"prep/{LOG}": "prepared\n",
        f"train/one/{LOG}": "one begins\n",
        f"train/two/{LOG}": "two begins\n" + RAISED,
    }
    assert [part.path for part in done.parts] == ["prep/user_logs", "train/one/user_logs", "train/two/user_logs"]
    assert (done.missing, done.left_out) == ([], [])
    assert run.fetch(tmp_path / "got").kept == [file.path for file in done.files]


def test_only_the_wanted_steps_are_asked_for_their_logs(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = pipeline_there(emulator, azure, tmp_path)

    run.fetch(tmp_path / "got", only=["train/*/user_logs", f"prep/{LOG}"])
    run.fetch(tmp_path / "one", only=["train/one"])
    before = emulator.counts()["runs.details"]
    with pytest.raises(NotFound, match="has nothing at `outputs`"):
        run.fetch(tmp_path / "none", only=["outputs"])

    assert sorted(logs_in(tmp_path / "got")) == [f"prep/{LOG}", f"train/one/{LOG}", f"train/two/{LOG}"]
    assert sorted(logs_in(tmp_path / "one")) == [f"train/one/{LOG}"]
    assert emulator.counts()["runs.details"] == before
    with pytest.raises(NotFound, match="has nothing at `trian`") as missing:
        run.fetch(tmp_path / "none", only=["trian"])
    assert missing.value.problems[0].hint == "did you mean `train`?"


def test_a_download_of_a_sweep_that_runs_has_the_logs_of_its_trials_so_far(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = sweep_there(emulator, azure, tmp_path)
    add_trials(emulator, run, 2)
    emulator.job(f"{run.name}_1").write_log("user_logs/retry_001/std_log.txt", "again\n")

    with pytest.raises(SubmitError, match="still Running"):
        run.fetch(tmp_path / "got")
    done = run.fetch(tmp_path / "got", so_far=True)

    assert (done.missing, done.left_out) == ([], ["the best trial: Azure ML has none yet"])
    assert logs_in(tmp_path / "got") == {
        f"trial_0/{LOG}": "trial 0 begins\n",
        f"trial_1/{LOG}": "trial 1 begins\n",
        "trial_1/user_logs/retry_001/std_log.txt": "again\n",
    }


def test_logs_of_steps_that_cannot_be_read_are_named(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = pipeline_there(emulator, azure, tmp_path)
    emulator.inject(answer(403), route="runs.details", times=None)
    steps = run.fetch(tmp_path / "got")
    emulator.inject(answer(403), route="runs.children", times=None)
    listed = run.fetch(tmp_path / "got")
    wanted = run.fetch(tmp_path / "got", only=["train/one"])

    names = ["prep/user_logs", "train/one/user_logs", "train/two/user_logs"]
    assert [one.partition(": ")[0] for one in steps.missing] == names
    assert [one.partition(": ")[0] for one in listed.missing] == ["logs of its steps"]
    assert wanted.missing == listed.missing
    assert logs_in(tmp_path / "got") == {}

    emulator.job(run.name).write_log("logs/own.txt", "x")
    assert run.fetch(tmp_path / "got", only=["artifacts"]).missing == []
