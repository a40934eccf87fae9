"""The command line: parses and prints. Data goes to stdout, all else to stderr; every command has `--json`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem, get_completion_class

from azml_dist import __version__
from azml_dist.errors import DistError, RunFailed, SubmitError

if TYPE_CHECKING:
    from azml_dist.job import Job
    from azml_dist.local.run import LocalRun
    from azml_dist.local.supervision import Supervision
    from azml_dist.runs import Run

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; the run failed; the job or the call is wrong; interrupted."""


def main() -> NoReturn:
    """Entry point of `azml-dist`."""
    try:
        code = cli.main(standalone_mode=False) or DONE
        sys.stdout.flush()
    except RunFailed as failure:
        _complain(failure)
        code = FAILED
    except DistError as error:
        _complain(error)
        code = WRONG
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        _say(f"error: {error.format_message()}")
        _say(f"hint: `{context.command_path if context else 'azml-dist'} --help` shows what can be written")
        code = WRONG
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    sys.exit(code)


def example(text: str) -> str:
    """An example for the end of a command's help."""
    return f"\b\nExample:\n  {text}"


def run_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the names of local runs."""
    from azml_dist.local.run import LocalRun

    return [CompletionItem(run.name) for run in LocalRun.all() if run.name.startswith(incomplete)]


job_argument = click.argument("job", type=click.Path(), metavar="JOB")
name_argument = click.argument("name", shell_complete=run_names)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else.")
root_option = click.option("--root", type=click.Path(), help="The folder that holds the runs. [AZML_DIST_ROOT]")
set_option = click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a field of the job, as `node_count=4`."
)
input_option = click.option(
    "--input", "inputs", multiple=True, metavar="NAME=PATH", help="Where the data of an input is, on this machine."
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    epilog=example("azml-dist run job.yml"),
)
@click.version_option(__version__, prog_name="azml-dist")
@click.pass_context
def cli(context: click.Context) -> None:
    """Distributed training jobs for Azure ML: plan them, run them here, submit them.

    JOB is a `job.yml` of `az ml`, or `path/to/file.py:NAME` for a Job object in Python.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command(epilog=example("azml-dist plan job.yml --set node_count=4"))
@job_argument
@set_option
@input_option
@json_option
def plan(job: str, settings: tuple[str, ...], inputs: tuple[str, ...], as_json: bool) -> None:
    """Show what a job means, offline: its processes, their environment, the command, the request."""
    loaded = _load(job, settings, inputs)
    with _lines_of(job, settings, inputs):
        found = loaded.plan()
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))


@cli.command(epilog=example("azml-dist run job.yml --input data=./data --set inputs.epochs=1"))
@job_argument
@input_option
@set_option
@click.option("--launcher", type=click.Choice(["torchrun", "direct"]), help="What starts the processes.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Cancel the run after that time.")
@click.option("--python", type=click.Path(), help="The Python that `python` means in the command.")
@root_option
@json_option
def run(
    job: str,
    inputs: tuple[str, ...],
    settings: tuple[str, ...],
    launcher: Any,
    timeout: float | None,
    python: str | None,
    root: str | None,
    as_json: bool,
) -> int:
    """Run a job on this machine, in the world that Azure ML would start, and follow the logs of all ranks."""
    with _Interrupts() as interrupts, _supervisor_ahead(job, launcher, python) as supervision:
        from azml_dist.local.executor import Local
        from azml_dist.plan import World

        executor = Local(root=root, launcher=launcher, timeout=timeout, python=python)
        loaded = _load(job, settings, inputs)
        with _lines_of(job, settings, inputs):
            started = interrupts.run = executor.submit(loaded, supervision=supervision)
        _say(f"run {started.name}: {World(**started.state().world)}")
        try:
            _print_chunks(started.chunks(follow=True, colour=_colours(as_json)), as_json)
        except BrokenPipeError:
            started.cancel()
            raise
        with suppress(RunFailed):
            started.wait()
    code = INTERRUPTED if interrupts.count else DONE if started.status == "Completed" else FAILED
    if as_json:
        click.echo(json.dumps(started.state().to_dict(), indent=1))
    _report(started, job)
    return code


@cli.command(epilog=example("azml-dist submit job.yml --set inputs.epochs=9 --wait"))
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
    from azml_dist.azureml.workspace import Workspace

    place = Workspace(subscription, resource_group, workspace)
    started = AzureML(place).submit(_load(job, settings, inputs))
    found = {"name": started.name, "url": started.url, "workspace": place.name}
    if not as_json:
        click.echo(f"{started.name}\n{started.url}")
        sys.stdout.flush()
    _say(f"run {started.name} is in workspace {place.name}")
    for what, command in _next_commands(started.name):
        _say(f"  {what:<9}{command}")
    try:
        if wait:
            started.wait()
            found["status"] = "Completed"
    except RunFailed as failure:
        found["status"] = str(failure.run.status)
        raise
    except KeyboardInterrupt:
        _say(f"run {started.name} goes on: `azml-dist cancel {started.name}` ends it")
        raise
    finally:
        if as_json:
            click.echo(json.dumps(found, indent=1))


@cli.command(epilog=example("azml-dist status quickstart-3f2a91"))
@name_argument
@root_option
@json_option
def status(name: str, root: str | None, as_json: bool) -> None:
    """Show how a run stands."""
    found = _find(name, root)
    click.echo(json.dumps(found.describe(), indent=1) if as_json else str(found))


@cli.command(epilog=example("azml-dist logs quickstart-3f2a91 --rank 3 --follow"))
@name_argument
@click.option("--rank", type=int, help="Of this rank alone.")
@click.option("--node", type=int, help="Of this node alone.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines alone.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends, and exit as it does.")
@root_option
@json_option
def logs(
    name: str, rank: int | None, node: int | None, tail: int | None, follow: bool, root: str | None, as_json: bool
) -> int:
    """Print the logs of a run, in the order in which their lines arrived."""
    found = _find(name, root)
    ranks = found.ranks(rank, node)
    _print_chunks(found.chunks(ranks, colour=_colours(as_json), follow=follow, tail=tail), as_json)
    if as_json:
        click.echo(json.dumps(found.describe(), indent=1))
    return FAILED if follow and found.status != "Completed" else DONE


@cli.command(epilog=example("azml-dist cancel quickstart-3f2a91"))
@name_argument
@root_option
@json_option
def cancel(name: str, root: str | None, as_json: bool) -> None:
    """End a run, and wait until its processes are gone."""
    found = _find(name, root)
    had_ended = found.status.is_final
    found.cancel()
    with suppress(RunFailed, TimeoutError):
        found.wait(timeout=60)
    if as_json:
        click.echo(json.dumps(found.describe(), indent=1))
    else:
        _say(f"run {name} had ended: {found.status}" if had_ended else f"run {name}: {found.status}")


@cli.command("list", epilog=example("azml-dist list"))
@root_option
@json_option
def list_runs(root: str | None, as_json: bool) -> None:
    """List the runs of this machine, and those of the configured workspace; the newest last."""
    from azml_dist.local.run import LocalRun
    from azml_dist.render import azure_runs_text, runs_text

    states = [found.state() for found in LocalRun.all(root)]
    submitted = [] if root else _runs_in_the_workspace()
    if as_json:
        runs = [state.to_dict() | {"where": "local"} for state in states]
        click.echo(json.dumps({"runs": runs + [run | {"where": "azureml"} for run in submitted]}, indent=1))
        return
    if states:
        click.echo(runs_text(states))
    if submitted:
        click.echo(("\n" if states else "") + azure_runs_text(submitted))
    if not states and not submitted:
        _say("no runs yet; `azml-dist run JOB` starts one")


@cli.command(epilog=example("azml-dist download quickstart-3f2a91 --to results"))
@name_argument
@click.option("--to", "folder", type=click.Path(), help="The folder to copy into; one named like the run if not given.")
@root_option
@json_option
def download(name: str, folder: str | None, root: str | None, as_json: bool) -> None:
    """Copy a run's named outputs, artifacts and logs."""
    found = _find(name, root)
    target = found.download(folder or found.name)
    click.echo(json.dumps({"name": found.name, "folder": str(target.resolve())}) if as_json else str(target))


@cli.command(epilog=example("azml-dist schema > job.schema.json"))
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema of job files, for editors."""
    from azml_dist.schema import job_schema

    click.echo(json.dumps(job_schema(), indent=1))


@cli.command(epilog=example('eval "$(azml-dist completion bash)"'))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the completion script of a shell."""
    found = get_completion_class(shell)
    assert found
    script = found(cli, {}, "azml-dist", "_AZML_DIST_COMPLETE").source()
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)


def _load(job: str, settings: tuple[str, ...] = (), inputs: tuple[str, ...] = ()) -> Job:
    from azml_dist.jobfile import load_job
    from azml_dist.local.staging import with_inputs

    given = {}
    for text in inputs:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise click.UsageError(f"--input {text!r} is not NAME=PATH")
        given[name] = path
    return with_inputs(load_job(job).with_set(*settings), given)


@contextmanager
def _lines_of(job: str, *changes: tuple[str, ...]) -> Iterator[None]:
    """Errors name the line in the job's file, unless the job is not the one in the file any more."""
    from azml_dist.jobfile import lines_of

    with nullcontext() if any(changes) else lines_of(job):
        yield


def _find(name: str, root: str | None) -> Run:
    from azml_dist.runs import run as find

    return find(name, root=root)


def _runs_in_the_workspace() -> list[dict[str, Any]]:
    """What is there, if a workspace is configured; where it cannot be asked, that is said and no more."""
    from azml_dist.azureml.workspace import Workspace

    workspace = Workspace()
    if not workspace.is_configured:
        return []
    from azml_dist.azureml.run import AzureRun

    try:
        return AzureRun.latest(workspace)
    except SubmitError as error:
        _say(f"note: the runs of workspace {workspace.name} are not shown: {error.problems[0].message}")
        return []


@contextmanager
def _supervisor_ahead(job: str, launcher: str | None, python: str | None) -> Iterator[Supervision | None]:
    """torch takes a second to import: for a job that looks as if it needs torchrun, begin before it is read."""
    from azml_dist.local.supervision import Supervision

    if launcher == "direct" or sys.platform == "win32" or not _mentions_pytorch(job):
        yield None
        return
    supervision = Supervision(shutil.which(python) if python else sys.executable)
    try:
        yield supervision
    except BaseException:
        supervision.end()
        raise


def _mentions_pytorch(job: str) -> bool:
    try:
        with open(job.rpartition(":")[0] or job, "rb") as file:
            return b"pytorch" in file.read(1 << 16).lower()
    except OSError:
        return False


class _Interrupts:
    """Ctrl-C, `kill` and a closed terminal end the run, and are waited for; a second one kills it."""

    SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def __init__(self) -> None:
        self.count = 0
        self.run: LocalRun | None = None

    def __enter__(self) -> _Interrupts:
        self._before = [signal.signal(signum, self._interrupt) for signum in self.SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in zip(self.SIGNALS, self._before, strict=True):
            signal.signal(signum, handler)

    def _interrupt(self, signum: int, _: object) -> None:
        self.count += 1
        if self.run is None or self.count > 2:
            raise KeyboardInterrupt
        # No print: this may have come in the middle of one.
        if self.count == 1:
            os.write(2, f"\nstopping run {self.run.name}; once more kills it\n".encode())
            self.run.cancel()
        else:
            self.run.kill()


def _report(run: LocalRun, job: str) -> None:
    """How the run ended, where everything of it is, and what to type next."""
    state = run.state()
    for finding in state.findings:
        _say(f"note: {finding}")
    if state.error:
        _say(f"error: {state.error}")
        _say(f"hint: {state.hint}") if state.hint else None
    rank = state.failed_rank if state.failed_rank is not None else len(state.processes) - 1
    _say(f"run {run.name}: {state.status} in {(state.ended_at or 0) - (state.started_at or 0):.1f} s")
    _say(f"  logs     {run.folder / 'user_logs'}")
    for name, path in run.outputs.items():
        _say(f"  output   {name}: {path}")
    _say(f"  again    azml-dist logs {run.name} --rank {rank}")
    if state.status == "Completed":
        _say(f"  next     azml-dist submit {job}")


def _next_commands(name: str) -> list[tuple[str, str]]:
    return [
        ("status", f"azml-dist status {name}"),
        ("logs", f"azml-dist logs {name} --follow"),
        ("cancel", f"azml-dist cancel {name}"),
        ("download", f"azml-dist download {name}"),
        ("Python", f'run = azml_dist.run("{name}"); run.wait()'),
    ]


def _print_chunks(chunks: Iterator[bytes], as_json: bool) -> None:
    stream = (sys.stderr if as_json else sys.stdout).buffer
    for chunk in chunks:
        # With PYTHONUNBUFFERED the stream is a bare file, which may write a part and say so.
        rest = memoryview(chunk)
        while rest:
            rest = rest[stream.write(rest) :]
        stream.flush()


def _colours(as_json: bool) -> bool:
    stream = sys.stderr if as_json else sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _complain(error: DistError) -> None:
    for problem in error.problems:
        _say(f"error: {problem}")
        if problem.hint:
            _say(f"hint: {problem.hint}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
