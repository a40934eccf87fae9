"""Where a job is expected: a file, or the name of a run whose job is meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from shlex import quote
from typing import TYPE_CHECKING

from azml_dist.cli.output import say
from azml_dist.errors import NotFound, SubmitError
from azml_dist.words import plural, similar_file

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.job import Job
    from azml_dist.runs.rerun import Rerun
    from azml_dist.runs.run import Run

_FILES = (".yml", ".yaml", ".py")
_RANDOM = re.compile(r"[-_][0-9a-f]{6,10}$")


class RunName(str):
    """The name of a run, with its handle, in place of the file of a job."""

    __slots__ = ("prepare", "rerun", "run")

    run: Run
    prepare: Callable[[Job], Rerun] | None
    """Makes what runs here of its job, with all changes to it; None if it is not to run here."""
    rerun: Rerun | None

    @classmethod
    def of(cls, run: Run, prepare: Callable[[Job], Rerun] | None = None) -> RunName:
        name = cls(run.name)
        name.run, name.prepare, name.rerun = run, prepare, None
        return name

    def job(self) -> Job:
        """Its job, as it was submitted."""
        from azml_dist.job import Job

        return Job.from_run(self.run)

    def prepared(self, job: Job) -> Job:
        """Its job, on this machine; the same job if it is not to run here."""
        if self.prepare is None:
            return job
        self.rerun = self.prepare(job)
        found: Job = self.rerun.job  # type: ignore[assignment]  # a `Job` was given
        return found


def is_file(text: str) -> bool:
    """Whether a text means a job file, existing or not, and never a run: a typing error must not cost money."""
    return os.path.isfile(text) or text.lower().endswith(_FILES) or ":" in text


def file_or_run(text: str, workspace: Workspace | None = None) -> str:
    """A job file as it is, or a run by its name: on this machine, or in the workspace, by default the configured one.

    Raises `NotFound` if there is neither.
    """
    if is_file(text):
        return text
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.local.find import find

    if found := find(text):
        return RunName.of(found)
    place = workspace or Workspace()
    hint = similar_file(text)
    if os.path.isdir(text) and (os.sep in text or not place.is_configured):
        return text  # what reads it says that it is no file, and what is in it
    if os.sep in text or not place.is_configured:
        why = "" if os.sep in text else ", and no workspace is configured"
        raise NotFound(f"there is no file {text!r}, and no run of that name on this machine{why}", hint=hint or _LIST)
    from azml_dist.azureml.group import azure_run

    try:
        return RunName.of(azure_run(place, text))
    except NotFound as error:
        if os.path.isdir(text):
            return text
        where = f"on this machine or in workspace {place.name}"
        raise NotFound(f"there is no file {text!r}, and no run of that name {where}", hint=hint or _LIST) from error
    except SubmitError as error:
        problem = error.problems[0]
        raise type(error)(f"there is no file {text!r}; as a run: {problem.message}", hint=problem.hint) from error


_LIST = "`azml-dist list` shows all runs"


def new_run_of(name: RunName, job: Job) -> Job:
    """The job under a new name, after that of its run."""
    from secrets import token_hex

    stem = _RANDOM.sub("", name)[:200] or "run"
    return job if job.name else job.with_(name=f"{stem}-{token_hex(5)}")


def say_what_is_sent(name: RunName, job: Job, settings: tuple[str, ...], inputs: tuple[str, ...]) -> None:
    """Say which job is about to be submitted again."""
    where = "on this machine" if getattr(name.run, "folder", None) else "in the workspace"
    plan = job.plan()
    code = f"its own code ({plural(len(plan.code.files), 'file')})" if job.local_code else "its own code"
    what = [f"`{' '.join(job.shell_command.split())[:100]}`", str(plan.world), code if job.code else "no code"]
    what += [str(job.environment)] if isinstance(job.environment, str) else []
    what += [job.compute or "serverless compute"]
    say(f"submitting the job of run {name} {where} again: {', '.join(what)}")
    for change in (*(f"--set {one}" for one in settings), *(f"--input {one}" for one in inputs)):
        say(f"  changed: {change}")


def typed(name: str, settings: tuple[str, ...], inputs: tuple[str, ...] = ()) -> str:
    """What to type after a command to mean the same job again."""
    with suppress(ValueError):
        changes = [*(f"--set {quote(one)}" for one in settings), *(f"--input {quote(one)}" for one in inputs)]
        return " ".join([quote(name), *changes])
    return name
