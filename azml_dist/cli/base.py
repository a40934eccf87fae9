"""The group of commands, and the arguments, options and exit codes that they share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from math import isfinite
from types import ModuleType
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from azml_dist.cli.sections import Commands
from azml_dist.version import __version__

_C = TypeVar("_C", bound=Callable[..., Any])

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: success; the run failed; the job or the command line is invalid; interrupted."""
_NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
_METADATA = "importlib.metadata"


def example(text: str) -> str:
    """An example for the end of a command's help."""
    return f"\b\nExample:\n  {text}"


def run_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the names of local runs."""
    from azml_dist.local.find import names

    return [CompletionItem(name) for name in names() if name.startswith(incomplete)]


def import_models() -> None:
    """Import `Job` without pydantic's search for plugins in all installed packages, which can take 15 ms, and without
    what it would search with, which takes 10 ms."""
    given = os.environ.get(_NO_PLUGINS)
    os.environ[_NO_PLUGINS] = "__all__"
    stand_in = _Metadata(_METADATA)
    sys.modules.setdefault(_METADATA, stand_in)
    try:
        import azml_dist.job  # noqa: F401
    finally:
        stand_in.leave()
        if given is None:
            del os.environ[_NO_PLUGINS]
        else:
            os.environ[_NO_PLUGINS] = given


class _Metadata(ModuleType):
    """Stands for `importlib.metadata` while models are imported, and passes on what is asked of it."""

    def entry_points(self, **wanted: Any) -> Any:
        """What pydantic imports by name, and calls only where plugins are allowed."""
        return self._real.entry_points(**wanted)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real, name)

    @property
    def _real(self) -> Any:
        self.leave()
        return import_module(_METADATA)

    def leave(self) -> None:
        if sys.modules.get(_METADATA) is self:
            del sys.modules[_METADATA]


def job_or_file(metavar: str) -> Callable[[_C], _C]:
    """The job: JOB, or `--file JOB` as `az ml` has it."""
    argument = click.argument("job", type=click.Path(), metavar=metavar, required=False, callback=_job)
    file = click.option(
        "--file",
        "-f",
        type=click.Path(),
        metavar="JOB",
        is_eager=True,  # before JOB, which may be left out then
        expose_value=False,
        callback=_note_file,
        help="The job, as in `az ml job create --file`.",
    )
    return lambda command: argument(file(command))


def _note_file(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_FILE] = value


def _job(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    file: str | None = context.meta.get(_FILE)
    if value is not None and file is not None:
        raise click.UsageError(f"{value} and --file {file} are two jobs: give one", context)
    if value is None and file is None and not context.resilient_parsing:
        raise click.MissingParameter(ctx=context, param=parameter, param_hint="'JOB'")
    return file if value is None else value


_FILE = "azml_dist.file"
job_argument = job_or_file("JOB")
job_or_run_argument = job_or_file("JOB|NAME")
name_argument = click.argument("name", shell_complete=run_names)
last_argument = click.argument("name", required=False, shell_complete=run_names)
"""The name of a run; without it, the run that was started last is meant."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print only one JSON object on stdout.")
_ROOT = "The folder of the runs. [env: AZML_DIST_ROOT]"
root_option = click.option("--root", "--output-dir", "root", type=click.Path(), help=_ROOT)
only_root_option = click.option("--root", type=click.Path(), help=_ROOT)
"""For a command whose `--output-dir` is another folder."""
dry_run_option = click.option("--dry-run", is_flag=True, help="Show the plan, and start nothing.")
no_script_option = click.option("--no-script", is_flag=True, help="Do not read the training script.")
plain_option = click.option("--plain", is_flag=True, help="Print lines only: renew nothing in place at a terminal.")
fold_option = click.option(
    "--fold/--no-fold",
    default=None,
    help="With more than 16 ranks, print equal lines once; the default, except into files.",
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Override a field of the job, e.g. `node_count=4`."
)
input_option = click.option(
    "--input", "inputs", multiple=True, metavar="NAME=PATH", help="Set an input: a local path, or a literal value."
)


def workspace_options(command: _C) -> _C:
    """Which workspace is meant."""
    for option in (
        click.option("--subscription", help="Its subscription id."),
        click.option("--resource-group", help="Its resource group."),
        click.option("--workspace", help="The name of the workspace, if config.json or the environment does not say."),
    ):
        command = option(command)
    return command


class Finite(click.FloatRange):
    """A number in a range; neither NaN, which is in every range, nor without an end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        return number if isfinite(number) else self.fail(f"{number} is not a finite number.", param, ctx)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    epilog=example("azml-dist run job.yml"),
)
@click.version_option(__version__, prog_name="azml-dist")
@click.pass_context
def cli(context: click.Context) -> None:
    """Distributed training jobs for Azure ML: plan them, run them on this machine, submit them.

    JOB is a `job.yml` of `az ml`, or `path/to/file.py:NAME` for a job in Python.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
