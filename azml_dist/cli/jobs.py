"""Commands that take a job: `plan`, `run`, `submit`, `export`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import click

from azml_dist.cli.base import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG,
    example,
    import_models,
    input_option,
    job_argument,
    json_option,
    root_option,
    set_option,
)
from azml_dist.cli.foreground import Interrupts, report, supervisor_ahead
from azml_dist.cli.groups import follow_group
from azml_dist.cli.output import colours, print_chunks, say
from azml_dist.errors import JobError, RunFailed

if TYPE_CHECKING:
    from azml_dist.anyfile import AnyJob
    from azml_dist.job import Job
    from azml_dist.sweep import Sweep


@click.command(epilog=example("azml-dist plan job.yml --set node_count=4"))
@job_argument
@set_option
@input_option
@json_option
def plan(job: str, settings: tuple[str, ...], inputs: tuple[str, ...], as_json: bool) -> int:
    """Show what a job means, offline: its processes, their environment, the command, the request.

    Of a folder, each of its jobs in a line, and what is wrong with it.
    """
    if os.path.isdir(job):
        return _plan_folder(job, settings, inputs, as_json)
    loaded = load(job, settings, inputs)
    with lines_of(job, settings, inputs):
        found = loaded.plan()
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    return DONE


@click.command(epilog=example("azml-dist run job.yml --input data=./data --set inputs.epochs=1"))
@job_argument
@input_option
@set_option
@click.option("--launcher", type=click.Choice(["torchrun", "direct"]), help="What starts the processes.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Cancel the run after that time.")
@click.option("--retries", type=click.IntRange(min=0), default=0, help="Start a run that fails again, so many times.")
@click.option(
    "--preempt-after",
    type=float,
    metavar="SECONDS",
    help="Take the nodes away after that time, as low-priority ones are; a further attempt begins.",
)
@click.option("--apart", is_flag=True, help="Give each node a network of its own (Linux, as root).")
@click.option("--python", type=click.Path(), help="The Python that `python` means in the command.")
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="Of a sweep: its first N trials alone.")
@click.option("--parallel", type=click.IntRange(min=1), default=1, metavar="N", help="N trials or steps at a time.")
@root_option
@json_option
def run(
    job: str,
    inputs: tuple[str, ...],
    settings: tuple[str, ...],
    launcher: Any,
    timeout: float | None,
    retries: int,
    preempt_after: float | None,
    apart: bool,
    python: str | None,
    max_trials: int | None,
    parallel: int,
    root: str | None,
    as_json: bool,
) -> int:
    """Run a job on this machine, in the world that Azure ML would start, and follow the logs of all ranks.

    Of a sweep its trials, of a pipeline its steps run one after another, and a table of them stands at the end.
    `pipeline.yml:STEP` runs one step.
    """
    with Interrupts() as interrupts, supervisor_ahead(job, launcher, python) as supervision:
        import_models()
        from azml_dist.job import Job
        from azml_dist.local.executor import Local
        from azml_dist.plan import World

        executor = Local(
            root=root,
            launcher=launcher,
            timeout=timeout,
            python=python,
            retries=retries,
            preempt_after=preempt_after,
            hosts="apart" if apart else None,
        )
        loaded = load(job, settings, inputs)
        if max_trials:
            loaded = first_trials(loaded, max_trials)
        if not isinstance(loaded, Job):
            with lines_of(job, settings, inputs):
                group = executor.submit(loaded, supervision=supervision, at_a_time=parallel)
            return follow_group(group, interrupts, job, as_json)
        if max_trials or parallel > 1:
            raise click.UsageError(f"{job} is one job: --max-trials and --parallel have no meaning")
        with lines_of(job, settings, inputs):
            started = interrupts.run = executor.submit(loaded, supervision=supervision)
        say(f"run {started.name}: {World(**started.state().world)}")
        try:
            print_chunks(started.chunks(follow=True, colour=colours(as_json)), as_json)
        except BrokenPipeError:
            started.cancel()
            raise
        with suppress(RunFailed):
            started.wait()
    code = INTERRUPTED if interrupts.count else DONE if started.status == "Completed" else FAILED
    if as_json:
        click.echo(json.dumps(started.state().to_dict(), indent=1))
    report(started, job)
    return code


@click.command(epilog=example("azml-dist submit job.yml --set inputs.epochs=9 --wait"))
@job_argument
@set_option
@input_option
@click.option("--wait", is_flag=True, help="Wait for the run's end, and exit as it does.")
@click.option("--workspace", help="The name of the workspace, if config.json or the environment does not say.")
@click.option("--resource-group", help="Its resource group.")
@click.option("--subscription", help="Its subscription id.")
@json_option
def submit(
    job: str,
    settings: tuple[str, ...],
    inputs: tuple[str, ...],
    wait: bool,
    workspace: str | None,
    resource_group: str | None,
    subscription: str | None,
    as_json: bool,
) -> None:
    """Submit a job to Azure ML; prints the name of its run, and its page in the studio."""
    from azml_dist.azureml.executor import AzureML
    from azml_dist.azureml.runview import next_commands
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.render import submitted_text

    place = Workspace(subscription, resource_group, workspace)
    started = AzureML(place).submit(no_pipeline(load(job, settings, inputs), job))
    found = {"name": started.name, "url": started.url, "workspace": place.name}
    if not as_json:
        click.echo(f"{started.name}\n{started.url}")
        sys.stdout.flush()
    say(submitted_text(f"run {started.name} is in workspace {place.name}", next_commands(place, started.name)))
    try:
        if wait:
            started.wait()
            found["status"] = "Completed"
    except RunFailed as failure:
        found["status"] = str(failure.run.status)
        raise
    except KeyboardInterrupt:
        say(f"run {started.name} goes on: `azml-dist cancel {started.name}` ends it")
        raise
    finally:
        if as_json:
            click.echo(json.dumps(found, indent=1))


@click.command(epilog=example("azml-dist export train.py:job > job.yml"))
@job_argument
@set_option
@input_option
@json_option
def export(job: str, settings: tuple[str, ...], inputs: tuple[str, ...], as_json: bool) -> None:
    """Print a job as the YAML of `az ml job create -f`, its paths absolute."""
    from azml_dist.dump import yaml_of
    from azml_dist.job import Job

    loaded = load(job, settings, inputs)
    if not isinstance(loaded, Job):
        raise JobError(f"{job} is no command job, and those are what `export` writes")
    text = yaml_of(loaded)
    click.echo(json.dumps({"yaml": text}) if as_json else text, nl=as_json)


COMMANDS = (plan, run, submit, export)


def _plan_folder(folder: str, settings: tuple[str, ...], inputs: tuple[str, ...], as_json: bool) -> int:
    from azml_dist.folder import plan_folder

    if settings or inputs:
        raise click.UsageError(f"{folder} is a folder: --set and --input belong to a single job")
    found = plan_folder(folder)
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    for skipped in found.skipped:
        say(f"note: {skipped.file} is no job: {skipped.why}")
    say(f"{len(found.jobs)} jobs, {found.wrong} wrong")
    return WRONG if found.wrong else DONE


def load(job: str, settings: tuple[str, ...] = (), inputs: tuple[str, ...] = ()) -> AnyJob:
    import_models()
    from azml_dist.anyfile import load_any, with_inputs

    given = {}
    for text in inputs:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise click.UsageError(f"--input {text!r} is not NAME=PATH")
        given[name] = path
    return with_inputs(load_any(job).with_set(*settings), given)


@contextmanager
def lines_of(job: str, *changes: tuple[str, ...]) -> Iterator[None]:
    """Errors name the line in the job's file, unless the job is not the one in the file any more."""
    from azml_dist.anyfile import lines_of

    with nullcontext() if any(changes) else lines_of(job):
        yield


def first_trials(job: AnyJob, count: int) -> AnyJob:
    from azml_dist.sweep import Sweep

    if not isinstance(job, Sweep):
        raise click.UsageError("--max-trials is for sweeps")
    return job.first_trials(count)


def no_pipeline(job: AnyJob, path: str) -> Job | Sweep:
    from azml_dist.pipeline import Pipeline

    if isinstance(job, Pipeline):
        hint = f"`az ml job create -f {path}`; one of its steps: `azml-dist submit {path}:STEP`"
        raise JobError("azml-dist submits jobs and sweeps, not pipelines", hint=hint)
    return job
