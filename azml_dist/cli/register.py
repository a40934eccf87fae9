"""`register`: an output of a run as a model in the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from azml_dist.cli.base import DONE, example, json_option, name_argument, root_option
from azml_dist.cli.output import say, tell, tell_json
from azml_dist.errors import DistError, NotFound
from azml_dist.runs.registered import hint_for
from azml_dist.status import RunStatus
from azml_dist.words import nearest_or_all

if TYPE_CHECKING:
    from azml_dist.local.run import LocalRun
    from azml_dist.runs.registered import Registered


@click.command(epilog=example("azml-dist register quickstart-3f2a91 model --as digits"))
@name_argument
@click.argument("output")
@click.option("--as", "model", required=True, metavar="MODEL", help="The name of the model.")
@click.option("--version", help="The version of the model; by default, the next one.")
@click.option("--path", "inside", default="", metavar="PATH", help="Register only this folder of the output.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["custom_model", "mlflow_model", "triton_model"]),
    help="The format of a model that was trained here; by default, mlflow_model if it has a file MLmodel.",
)
@root_option
@json_option
def register(
    name: str,
    output: str,
    model: str,
    version: str | None,
    inside: str,
    kind: str | None,
    root: str | None,
    as_json: bool,
) -> int:
    """Register an output of a run that completed as a model in the workspace.

    OUTPUT is the name of an output, or `artifacts` for what the job wrote to `./outputs` and `./logs`. The files of a
    run on Azure ML stay where they are; those of a run on this machine are uploaded first.
    """
    from azml_dist.cli.runs import find_run
    from azml_dist.local.run import LocalRun

    run = find_run(name, root)
    if isinstance(run, LocalRun):
        made = _upload(run, output, model, inside, kind, version)
    elif kind:
        raise DistError("the type of an output of a run on Azure ML is that of the job", hint="leave out `--type`")
    else:
        made = run.register(model, output=output, inside=inside, version=version)
    if as_json:
        tell_json(made.to_dict())
    else:
        tell(made.reference)
        say(f"registered {made.path} as version {made.version} of {made.name} ({made.type})")
    return DONE


COMMANDS = (register,)


def _upload(run: LocalRun, output: str, model: str, inside: str, kind: str | None, version: str | None) -> Registered:
    """Register what a run on this machine wrote."""
    from azml_dist.azureml.models import register_folder
    from azml_dist.azureml.workspace import Workspace

    if run.status != RunStatus.COMPLETED:
        what = f"run {run.name} is {run.status}: only a run that completed has a model to register"
        raise DistError(what, hint=hint_for(run.name, run.status))
    places = {**run.outputs, "artifacts": run.folder / "artifacts"}
    if output not in places:
        raise NotFound(f"run {run.name} has no output {output!r}", hint=nearest_or_all(output, places))
    base = places[output].resolve()
    folder = (base / inside).resolve()
    if not folder.is_relative_to(base) or not folder.exists():
        raise NotFound(f"output {output} of run {run.name} has no {inside!r}", hint=f"its files are in {base}")
    if kind is None:
        kind = "mlflow_model" if (folder / "MLmodel").is_file() else "custom_model"
    return register_folder(Workspace(), Path(folder), model, kind=kind, version=version)
