"""Jobs that azure-ai-ml itself submitted, with code that it uploaded: each comes home and runs here as there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from submitting import code_in

from azml_dist import Job, JobError, Local, Workspace
from azml_dist.azureml.group import azure_run
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import EmulatedWorkspace, StaticToken, emulated_workspace

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(one) for one in SDK_WARNINGS)]


@pytest.fixture
def here(tmp_path: Path, azure_sdk: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedWorkspace]:
    monkeypatch.setenv("AZML_DIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AZML_DIST_ROOT", str(tmp_path / "runs"))
    with emulated_workspace(tmp_path) as made:
        yield made
    assert made.emulator.problems == []


def run_of(here: EmulatedWorkspace, name: str) -> AzureRun:
    place = here.workspace
    workspace = Workspace(place.subscription_id, place.resource_group, place.name, credential=StaticToken(place))
    return azure_run(workspace, name)


def told(run: Any, rank: int = 0) -> str:
    return str(run.logs(rank=rank)).splitlines()[-1]


def again(run: AzureRun) -> str:
    """What the last process prints when the run runs here."""
    found = run.rerun()
    started = Local(launcher="direct").again(found).submit(found.job)
    started.wait(timeout=60)
    return told(started, len(started.state().processes) - 1)


def test_a_command_of_the_sdk_with_its_folder(here: EmulatedWorkspace, tmp_path: Path) -> None:
    from azure.ai.ml import PyTorchDistribution, command
    from azure.ai.ml.entities import Environment

    code = code_in(tmp_path / "code", {"go.sh": "echo $1 in rank $RANK of $WORLD_SIZE", "lib/x.txt": "x", "y.log": ""})
    submitted = here.submit(
        command(
            name="one",
            command="bash go.sh ${{inputs.word}}",
            code=str(code),
            inputs={"word": "hello"},
            environment=Environment(image="any"),
            compute="gpu-cluster",
            instance_count=2,
            distribution=PyTorchDistribution(process_count_per_instance=2),
        )
    )
    assert submitted.wait() == "Completed"
    (code / "go.sh").write_text("exit 1")

    run = run_of(here, "one")
    kept = run.code()

    assert kept
    assert sorted(kept.files) == ["go.sh", "lib/x.txt", "y.log"]
    assert told(run, 3) == again(run) == "hello in rank 3 of 4"
    assert Job.from_run(run).inputs == {"word": "hello"}


def test_code_of_one_file_is_repeated(here: EmulatedWorkspace, tmp_path: Path) -> None:
    from azure.ai.ml import command
    from azure.ai.ml.entities import Environment

    file = code_in(tmp_path / "code", {"go.sh": "echo here"}) / "go.sh"
    fields: dict[str, Any] = {"environment": Environment(image="any"), "compute": "gpu-cluster", "code": str(file)}
    assert here.submit(command(name="file", command="bash go.sh", **fields)).wait() == "Completed"

    assert again(run_of(here, "file")) == "here"


def test_the_trial_of_a_sweep(here: EmulatedWorkspace, tmp_path: Path) -> None:
    from azure.ai.ml import command
    from azure.ai.ml.entities import Environment
    from azure.ai.ml.sweep import Choice

    code = code_in(tmp_path / "code", {"go.sh": "echo rate $1"})
    base = command(
        command="bash go.sh ${{inputs.rate}}",
        code=str(code),
        inputs={"rate": 0.5},
        environment=Environment(image="any"),
        compute="gpu-cluster",
    )
    sweep = base(rate=Choice([0.25])).sweep(sampling_algorithm="grid", primary_metric="loss", goal="minimize")
    sweep.name = "sweep"
    sweep.set_limits(max_total_trials=1, max_concurrent_trials=1)
    here.submit(sweep).wait()

    with pytest.raises(JobError, match="run sweep is a sweep, not a single command job"):
        run_of(here, "sweep").rerun()
    (name,) = (child.name for child in here.jobs.list(parent_job_name="sweep"))
    assert again(run_of(here, name)) == "rate 0.25"


def test_the_step_of_a_pipeline(here: EmulatedWorkspace, tmp_path: Path) -> None:
    from azure.ai.ml import Output, command, dsl
    from azure.ai.ml.entities import Environment

    code = code_in(tmp_path / "code", {"go.sh": "echo $1 | tee $2/word"})
    step = command(
        name="say",
        command="bash go.sh ${{inputs.word}} ${{outputs.place}}",
        code=str(code),
        inputs={"word": "hello"},
        outputs={"place": Output(type="uri_folder")},
        environment=Environment(image="any"),
        compute="gpu-cluster",
    )

    @dsl.pipeline(compute="gpu-cluster")
    def steps():  # type: ignore[no-untyped-def] # azure-ai-ml reads annotations
        step(word="bye")

    pipeline = steps()
    pipeline.name = "pipe"
    here.submit(pipeline).wait()

    with pytest.raises(JobError, match="run pipe is a pipeline, not a single command job"):
        run_of(here, "pipe").rerun()
    (name,) = (child.name for child in here.jobs.list(parent_job_name="pipe"))
    assert again(run_of(here, name)) == "bye"
