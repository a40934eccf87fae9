"""What the commands share: the group, their arguments and options, and exit codes."""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem

from azml_dist import __version__

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; the run failed; the job or the call is wrong; interrupted."""
_NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


def example(text: str) -> str:
    """An example for the end of a command's help."""
    return f"\b\nExample:\n  {text}"


def run_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the names of local runs."""
    from azml_dist.local.run import LocalRun

    return [CompletionItem(run.name) for run in LocalRun.all() if run.name.startswith(incomplete)]


def import_models() -> None:
    """Import `Job` without a look for plugins of pydantic in all that is installed: 15 ms, where that is much."""
    given = os.environ.get(_NO_PLUGINS)
    os.environ[_NO_PLUGINS] = "__all__"
    try:
        import azml_dist.job  # noqa: F401
    finally:
        if given is None:
            del os.environ[_NO_PLUGINS]
        else:
            os.environ[_NO_PLUGINS] = given


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
