"""`init`: a job file for a training script."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from azml_dist.cli.base import DONE, example, import_models, json_option
from azml_dist.cli.output import say, tell, tell_json
from azml_dist.errors import DistError, JobError
from azml_dist.words import similar_file

if TYPE_CHECKING:
    from azml_dist.script.proposal import Proposed, Value

_MOST = 1_000_000


@click.command(epilog=example("azml-dist init train.py"))
@click.argument("script", type=click.Path(), metavar="SCRIPT")
@click.option("--to", "file", type=click.Path(), default="job.yml", show_default=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option
def init(script: str, file: str, force: bool, as_json: bool) -> int:
    """Write a commented job file for a training script, and an `.amlignore`.

    The script is read, not run: its imports say how its processes are started, and the options of its argparse parser
    become inputs. At a terminal, you are asked for values that it requires.
    """
    folder, path = _place(script)
    target = folder / file
    if target.exists() and not force:
        hint = "`--force` replaces it, `--to FILE` writes another"
        raise JobError(f"there is a {os.path.relpath(target)} already", hint=hint)
    found = _with_answers(_read(folder, path))
    written = [_write_job(target, found, force=force), *_write_ignore(folder)]
    if as_json:
        values = {value.name: value.default for value in found.values if value.kind != "output"}
        tell_json(
            {"files": written, "distribution": found.distribution, "frameworks": found.frameworks, "inputs": values}
        )
        return DONE
    for name in written:
        tell(name)
    imports = f"it imports {', '.join(found.frameworks)}" if found.frameworks else "it imports no framework known here"
    how = f"the distribution is `{found.distribution}`" if found.distribution else "it starts as a single process"
    say(f"{imports}: {how}")
    for note in found.notes:
        say(f"note: {note}")
    for value in found.values:
        if value.open:
            say(f"note: the script requires {value.flag or value.name}: check `inputs.{value.name}`")
    job = quote(os.path.relpath(target))
    say(f"  plan     azml-dist plan {job}")
    say(f"  run      azml-dist run {job}")
    return DONE


COMMANDS = (init,)


def _place(script: str) -> tuple[Path, str]:
    """The folder of the job, and the script in it: the current folder, if the script is in it or below."""
    if not os.path.isfile(script):
        what = "is a folder: name the script in it" if os.path.isdir(script) else "does not exist"
        hint = similar_file(script) or "name the Python script that each process runs"
        raise JobError(f"{script} {what}", hint=hint)
    if not script.endswith(".py"):
        raise JobError(f"{script} is not a Python script", hint="`init` reads the imports and options of Python")
    full, here = os.path.realpath(script), os.path.realpath(".")
    if full.startswith(os.path.join(here, "")):
        return Path(), os.path.relpath(full, here)
    return Path(os.path.dirname(script)), os.path.basename(script)


def _read(folder: Path, script: str) -> Proposed:
    from azml_dist.plan.snapshot import take_snapshot
    from azml_dist.script.proposal import proposed

    files = {file.path: file.source for file in take_snapshot(folder).files}
    found = proposed(script, files | {script: str(folder / script)})
    if isinstance(found, str):
        raise JobError(
            f"{script} cannot be read: {found}", hint="`init` reads the source of the script: correct it first"
        )
    return found


def _with_answers(found: Proposed) -> Proposed:
    """With the values of required arguments from the one at the terminal, if there is one."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return found

    def answered(value: Value) -> Value:
        if not value.open:
            return value
        kind: Any = type(value.default) if isinstance(value.default, int | float) else str
        text = f"{value.flag or value.name}{f' ({value.help})' if value.help else ''}"
        given = click.prompt(text, type=kind, default=value.default, err=True)
        return value._replace(default=given, open=given == "CHANGE-ME")

    return found._replace(values=[answered(value) for value in found.values])


def _write_job(target: Path, found: Proposed, *, force: bool) -> str:
    from azml_dist.files.draft import job_text

    import_models()
    from azml_dist.job import Job

    names = os.listdir(target.parent)
    draft = target.with_name(f".{target.name}.{os.urandom(4).hex()}.yml")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as opened:
            opened.write(job_text(found, names))
        Job.load(draft)
        if force:
            os.replace(draft, target)
        else:
            os.link(draft, target)  # fails if it has come into being meanwhile
    except OSError as error:
        hint = "choose another file with `--to`"
        raise DistError(f"cannot write {target}: {error.strerror}", hint=hint) from error
    finally:
        with suppress(OSError):
            draft.unlink()
    return os.path.relpath(target)


def _write_ignore(folder: Path) -> list[str]:
    from azml_dist.files.draft import ignore_text
    from azml_dist.regular import read_regular

    file = folder / ".amlignore"
    if os.path.lexists(file):
        return []
    gitignore = None
    with suppress(OSError):
        gitignore = read_regular(folder / ".gitignore", _MOST).decode("utf-8", "replace")
    with open(file, "x", encoding="utf-8") as opened:
        opened.write(ignore_text(gitignore))
    return [os.path.relpath(file)]
