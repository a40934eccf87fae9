"""`run` and `submit`: commands that start a job."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from azml_dist.cli.base import (
    DONE,
    Finite,
    dry_run_option,
    example,
    fold_option,
    import_models,
    input_option,
    job_argument,
    job_or_run_argument,
    json_option,
    no_script_option,
    plain_option,
    root_option,
    set_option,
    workspace_options,
)
from azml_dist.cli.foreground import Interrupts, exit_code, follow, report, say_detached, supervisor_ahead
from azml_dist.cli.groups import follow_group
from azml_dist.cli.live import live
from azml_dist.cli.loading import as_written, lines_of, load, no_pipeline, with_given
from azml_dist.cli.named import RunName, file_or_run, new_run_of, say_what_is_sent
from azml_dist.cli.output import give_up, say, say_card, tell, tell_json
from azml_dist.cli.prelude import Starting
from azml_dist.cli.sections import Sectioned
from azml_dist.errors import JobError, RunFailed
from azml_dist.runs.screen import renews
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.as_job import AnyJob
    from azml_dist.azureml.run import AzureRun
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.check.report import Check
    from azml_dist.errors import Finding
    from azml_dist.job import Job
    from azml_dist.local.executor import Local
    from azml_dist.local.supervision import Supervision
    from azml_dist.sweep import Sweep


SECTIONS = {
    "The job": "file inputs settings",
    "How it runs": "launcher python packages keep_pythonpath image apart services root detach",
    "When it ends": "timeout retries stall_after stall_timeout watch",
    "Sweeps and pipelines": "max_trials parallel",
    "Rehearse a failure": "faults fault_seed preempt_after step_pattern against",
    "Debug": "debug_rank pdb",
    "What is shown": "rank fold plain dry_run as_json",
}
"""The sections of the options of `run`."""


@click.command(
    cls=Sectioned,
    sections=SECTIONS,
    epilog=example("azml-dist run job.yml --input data=./data --set inputs.epochs=1"),
)
@job_argument
@input_option
@set_option
@click.option("--launcher", type=click.Choice(["torchrun", "direct"]), help="How to start the processes.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Cancel the run after SECONDS.")
@click.option(
    "--retries", type=click.IntRange(min=0), default=0, metavar="N", help="Restart a failed run up to N times."
)
@click.option(
    "--preempt-after",
    type=float,
    metavar="SECONDS",
    help="Simulate a spot eviction after SECONDS, then start another attempt.",
)
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="Inject a fault, e.g. `kill:rank=2@step=3`.")
@click.option("--fault-seed", type=int, default=0, metavar="N", help="Seed of the random choices in faults. [0]")
@click.option("--step-pattern", metavar="REGEX", help="Pattern of log lines that contain the step.")
@click.option("--against", metavar="NAME", help="Compare the final metrics with those of run NAME.")
@click.option(
    "--stall-after",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="If nothing moves for SECONDS, say which rank keeps the others waiting; 0 for never.",
)
@click.option("--stall-timeout", type=float, metavar="SECONDS", help="End the run if nothing moves for SECONDS.")
@click.option("--debug-rank", type=int, metavar="N", help="Let rank N wait under debugpy until your editor attaches.")
@click.option("--services", is_flag=True, help="Start the job's TensorBoard services for as long as the run.")
@click.option("--pdb", is_flag=True, help="Open pdb at this terminal in the rank that fails first.")
@click.option("--no-watch", "watch", is_flag=True, default=True, flag_value=False, help="Do not watch for hangs.")
@click.option("--apart", is_flag=True, help="Give each node its own network (Linux, as root).")
@click.option("--keep-pythonpath", is_flag=True, help="Pass PYTHONPATH, PYTHONHOME and the like on to the run.")
@click.option("--python", type=click.Path(), help="The Python that `python` runs in the command.")
@click.option(
    "--packages",
    type=click.Choice(["here", "job"]),
    default="here",
    help="Run with the packages of your Python, or with those that the job's environment lists.",
)
@click.option("--detach", "-d", is_flag=True, help="Start the run in the background, and print its name.")
@click.option("--image", is_flag=True, help="Run each node as a container of the job's image. Experimental.")
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="Run only the first N trials of a sweep.")
@click.option("--parallel", type=click.IntRange(min=1), default=1, metavar="N", help="Run N trials or steps at a time.")
@click.option("--rank", type=click.IntRange(min=0), metavar="N", help="Show only the lines of rank N.")
@fold_option
@dry_run_option
@plain_option
@root_option
@json_option
def run(
    job: str,
    inputs: tuple[str, ...],
    settings: tuple[str, ...],
    apart: bool,
    max_trials: int | None,
    parallel: int,
    rank: int | None,
    fold: bool | None,
    plain: bool,
    dry_run: bool,
    as_json: bool,
    **local: Any,
) -> int:
    """Run a job on this machine with the processes that Azure ML would start, and follow the logs of all ranks.

    Runs the trials of a sweep or the steps of a pipeline one after another, then prints a table. `pipeline.yml:STEP`
    runs one step.
    """
    asked = _Asked(job, settings, inputs)
    if dry_run:
        return _would_run(asked, apart, max_trials, local, as_json)
    with (
        Interrupts() as interrupts,
        _ahead(job, local) as supervision,
        live(as_json, plain or local["pdb"] or local["detach"]) as foot,
    ):
        if foot:
            foot.tell("reading the job")
        import_models()
        from azml_dist.cli.next import next_rows
        from azml_dist.job import Job

        executor, written, loaded = _read(asked, apart, max_trials, local)
        _refuse_options(job, isinstance(loaded, Job), rank, several=bool(max_trials or parallel > 1))
        if not isinstance(loaded, Job):
            with asked.lines():
                group = executor.submit(loaded, supervision=supervision, at_a_time=parallel)
            if local["detach"]:
                return say_detached(group, as_json)
            return follow_group(group, interrupts, next_rows(job, written, settings, inputs), as_json, foot)
        with asked.lines():
            _refuse_rank(rank, executor, loaded)
            tell = (foot or Starting()).tell
            started = interrupts.run = executor.submit(loaded, supervision=supervision, tell=tell)
        if local["detach"]:
            return say_detached(started, as_json)
        after = next_rows(job, written, settings, inputs)  # while the processes start
        said = follow(started, as_json, foot, rank, fold)
    if as_json:
        tell_json(started.describe())
    report(started, after, said)
    return exit_code(interrupts, started.status)


class _Asked(NamedTuple):
    """A job as it was typed, with what changes it."""

    job: str
    settings: tuple[str, ...]
    inputs: tuple[str, ...]

    def lines(self) -> AbstractContextManager[None]:
        return lines_of(self.job, self.settings, self.inputs)


def _ahead(job: str, local: Mapping[str, Any]) -> AbstractContextManager[Supervision | None]:
    """A supervisor, unless it is not yet known which Python the launcher belongs to."""
    if local["packages"] == "job" or local["image"]:
        return nullcontext()
    return supervisor_ahead(job, local["launcher"], local["python"], local["keep_pythonpath"])


def _read(asked: _Asked, apart: bool, max_trials: int | None, local: Mapping[str, Any]) -> tuple[Local, AnyJob, AnyJob]:
    """The executor, and the job: as it is written, and with everything on this machine."""
    from azml_dist.local.executor import Local

    executor = Local(hosts="apart" if apart else None, **local)
    job = asked.job
    written = as_written(job, asked.settings)
    loaded = with_given(job, written, asked.inputs)
    if isinstance(job, RunName) and job.rerun:
        executor = executor.again(job.rerun)
    return executor, written, _first_trials(loaded, max_trials) if max_trials else loaded


def _refuse_options(job: str, is_single: bool, rank: int | None, *, several: bool) -> None:
    if rank is not None and not is_single:
        raise click.UsageError(f"{job} is a group of jobs: --rank is for a single job")
    if several and is_single:
        raise click.UsageError(f"{job} is a single job: --max-trials and --parallel are for sweeps and pipelines")


def _refuse_rank(rank: int | None, executor: Local, job: Job) -> None:
    if rank is None:
        return
    world_size = executor.plan(job).world.world_size
    if rank >= world_size:
        raise JobError(f"there is no rank {rank} to show", hint=f"the ranks of this job are 0 to {world_size - 1}")


def _first_trials(job: AnyJob, count: int) -> AnyJob:
    from azml_dist.sweep import Sweep

    if not isinstance(job, Sweep):
        raise click.UsageError("--max-trials is for sweeps")
    return job.first_trials(count)


def _would_run(asked: _Asked, apart: bool, max_trials: int | None, local: Mapping[str, Any], as_json: bool) -> int:
    """Show the plan of a run that this machine accepts."""
    import_models()
    from azml_dist.cli.plan import show
    from azml_dist.job import Job
    from azml_dist.local.executor import Local

    loaded = load(*asked)
    if max_trials:
        loaded = _first_trials(loaded, max_trials)
    with asked.lines():
        is_job = isinstance(loaded, Job)
        found = Local(hosts="apart" if apart else None, **local).plan(loaded) if is_job else loaded.plan()  # type: ignore[arg-type]
    code = show(found, as_json)
    say("nothing was started")
    return code


@click.command(epilog=example("azml-dist submit job.yml --set inputs.epochs=9 --wait"))
@job_or_run_argument
@set_option
@input_option
@click.option("--fault", "faults", multiple=True, hidden=True)
@click.option("--wait", is_flag=True, help="Wait until the run finishes and exit with its status.")
@click.option(
    "--max-cost",
    type=Finite(min=0, min_open=True),
    metavar="AMOUNT",
    help="Refuse the job if it may cost more; with --wait, cancel it at that amount.",
)
@click.option(
    "--max-wait",
    type=Finite(min=0, min_open=True),
    metavar="SECONDS",
    help="Wait for the run's start, and cancel it if it has not started after SECONDS.",
)
@click.option("--no-check", is_flag=True, help="Submit without checking the job against the workspace first.")
@no_script_option
@click.option("--watch-hangs", is_flag=True, help="Let each rank write down what it waited for if NCCL times out.")
@dry_run_option
@plain_option
@workspace_options
@json_option
def submit(
    job: str,
    settings: tuple[str, ...],
    inputs: tuple[str, ...],
    faults: tuple[str, ...],
    wait: bool,
    no_check: bool,
    no_script: bool,
    max_cost: float | None,
    max_wait: float | None,
    watch_hangs: bool,
    dry_run: bool,
    plain: bool,
    workspace: str | None,
    resource_group: str | None,
    subscription: str | None,
    as_json: bool,
) -> int:
    """Submit a job to Azure ML, and print the run's name and its page in the studio.

    The job is checked against the workspace first, as by `check`; after an error, nothing is uploaded.
    """
    if faults:
        hint = f"rehearse it on this machine: `azml-dist run {job} --fault {faults[0]}`"
        raise JobError("faults can only be injected into runs on this machine, not on Azure ML", hint=hint)
    if max_cost and no_check:
        raise click.UsageError("--max-cost needs the check, which reads the price: leave out --no-check")
    from azml_dist.azureml.executor import AzureML
    from azml_dist.azureml.workspace import Workspace

    place = Workspace(subscription, resource_group, workspace)
    asked = _Asked(file_or_run(job, place), settings, inputs)
    loaded = no_pipeline(load(*asked), asked.job)
    if isinstance(asked.job, RunName):
        loaded = new_run_of(asked.job, loaded)  # type: ignore[arg-type]  # a run has a `Job`
        say_what_is_sent(asked.job, loaded, settings, inputs)
    if dry_run:
        return _would_submit(asked, loaded, no_script, watch_hangs, as_json)
    findings: list[Finding] = []
    with asked.lines():
        executor = AzureML(place, check=not no_check, script=not no_script)
        tell = partial(_say_check, findings)
        started = executor.submit(loaded, max_cost=max_cost, max_wait=max_wait, tell=tell, watch_hangs=watch_hangs)
    found: dict[str, Any] = {"name": started.name, "url": started.url, "workspace": place.name}
    found["findings"] = None if no_check else [finding.to_dict() for finding in findings]
    _say_submitted(started, place, as_json)
    _follow_submitted(started, found, wait=wait, max_wait=max_wait, plain=plain, as_json=as_json)
    return DONE


def _would_submit(asked: _Asked, loaded: Job | Sweep, no_script: bool, watch_hangs: bool, as_json: bool) -> int:
    """Show the plan of what `submit` would send."""
    from azml_dist.cli.plan import planned, show

    with asked.lines():
        code = show(planned(loaded, no_script=no_script, watch_hangs=watch_hangs), as_json)
    say(f"nothing was submitted; `azml-dist check {asked.job}` compares it with the workspace")
    return code


def _say_check(findings: list[Finding], check: Check) -> None:
    findings += check.findings
    for line in check.lines():
        say(line)


def _say_submitted(run: AzureRun, place: Workspace, as_json: bool) -> None:
    from azml_dist.azureml.runview import next_commands, submitted_text

    try:
        if not as_json:
            tell(f"{run.name}\n{run.url}")
    except BrokenPipeError:  # the run is there, and is waited for if that was asked
        give_up(sys.stdout.fileno())
    finally:  # after a full disk or a closed pipe, the user needs the name all the more
        say(submitted_text(f"run {run.name} is in workspace {place.name}", next_commands(place, run.name)))


def _follow_submitted(
    run: AzureRun, found: dict[str, Any], *, wait: bool, max_wait: float | None, plain: bool, as_json: bool
) -> None:
    """Wait as long as was asked for, and print the object for `--json`, which begins with what was `found`."""
    from azml_dist.cli.cost import cost_of

    try:
        found |= _awaited(run, to_the_end=wait, max_wait=max_wait, plain=plain)
    except RunFailed as failure:
        verdict, reason = failure.verdict, failure.reason
        found |= {"status": str(failure.run.status), "verdict": verdict and verdict.to_dict(), "reason": reason}
        raise
    except KeyboardInterrupt:
        say(f"run {run.name} continues: cancel it with `azml-dist cancel {run.name}`")
        raise
    finally:
        if wait and (cost := cost_of(run)):
            found["cost"] = cost.to_dict()
            say(f"cost: {cost}")
        if as_json:
            tell_json(found)


def _awaited(run: AzureRun, *, to_the_end: bool, max_wait: float | None, plain: bool) -> dict[str, Any]:
    """Wait as long as was asked for; returns how the run is then, for `--json`."""
    # A terminal gets a foot, anything else a line for each change.
    changes = None if renews(sys.stderr) and not plain else say
    if to_the_end:
        run.wait(tell=changes)
        say_card(run.ending())
        return {"status": RunStatus.COMPLETED, "verdict": None, "reason": None}
    return {"status": str(run.wait_for_start(changes).status)} if max_wait else {}


COMMANDS = (run, submit)
