"""All findings in the script of a job."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from azml_dist.errors import Finding, Level
from azml_dist.notation.argv import UNKNOWN, Word
from azml_dist.notation.expressions import INPUT_OR_OUTPUT
from azml_dist.script.arguments import options, refusal
from azml_dist.script.counts import of_backends, of_counts, of_dumps
from azml_dist.script.entry import Entry, entries, with_windows_lines
from azml_dist.script.look import Look
from azml_dist.script.masters import of_masters
from azml_dist.script.packages import of_packages
from azml_dist.script.source import Program
from azml_dist.script.training import of_training
from azml_dist.script.variables import of_variables
from azml_dist.words import nearest

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields


def script_findings(
    job: JobFields, files: Mapping[str, str], excluded: Mapping[str, str], known: Mapping[str, str]
) -> list[Finding]:
    """Findings about the scripts of a job's command: what does not fit this job.

    `files` maps each file of the code folder to its local path, `excluded` each excluded file to its rule, and `known`
    is the environment of a process. Nothing is imported or run: only the scripts are read, and what they import from
    the code folder.
    """
    if not files:
        return []
    command = _command(job)
    started = entries(command, files)
    found = [finding for entry in started for finding in _missing(entry, files, excluded)]
    for entry in started:
        if entry.path in files:
            found += _of_one(job, entry, files, excluded, known)
    found += map(_of_windows_lines, with_windows_lines(command, files))
    return list(dict.fromkeys(found))


def _command(job: JobFields) -> str:
    """The command with the values of its inputs; data, outputs and inputs without a value are not known yet."""

    def value(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        if kind == "inputs" and name in job.inputs and not job.is_data(name) and job.has_value(name):
            return job.literal(name)
        return UNKNOWN

    return INPUT_OR_OUTPUT.sub(value, job.without_optional_parts(job.shell_command))


def _of_windows_lines(script: str) -> Finding:
    """Not an error: `echo` prints the additional character, and few would see it."""
    return Finding(
        "windows-line-ends",
        "warning",
        f"`{script}` has Windows line ends: for bash, the last word of each line ends with a carriage return",
        f"convert it with `sed -i 's/\\r$//' {script}`; git leaves it so with `*.sh text eol=lf` in .gitattributes",
        "command",
    )


def _missing(entry: Entry, files: Mapping[str, str], excluded: Mapping[str, str]) -> Iterator[Finding]:
    if entry.path in files or (entry.fetches and entry.path not in excluded):
        return
    hint: str | None = "change that line"
    if entry.path in excluded:
        message = f"`{entry.path}` is excluded from the code by {excluded[entry.path]}"
    else:
        message = f"there is no `{entry.path}` in the code"
        name = entry.path.rpartition("/")[2]
        same = [path for path in files if path.rpartition("/")[2] == name]
        alike = [path for path in files if path.endswith(posixpath.splitext(name)[1])]
        hint = f"there is {same[0]}" if len(same) == 1 else nearest(entry.path, alike) or nearest(entry.path, files)
    # A package may get more modules from elsewhere, such as a folder of the same name in the environment.
    level: Level = "error" if entry.plain and not entry.is_module else "warning"
    yield Finding("missing-script", level, message, hint, "command")


def looks(job: JobFields, files: Mapping[str, str], known: Mapping[str, str]) -> Iterator[Look]:
    """Each script that the command starts, as far as it can be read."""
    for entry in entries(_command(job), files) if files else ():
        if entry.path in files and (program := _program(entry, files)).entry:
            yield Look(job, entry, program, known)


def _program(entry: Entry, files: Mapping[str, str]) -> Program:
    start = (entry.folder if entry.root is None else entry.root) if entry.is_module else entry.path.rpartition("/")[0]
    return Program(entry.path, start, files)


def _of_one(
    job: JobFields, entry: Entry, files: Mapping[str, str], excluded: Mapping[str, str], known: Mapping[str, str]
) -> Iterator[Finding]:
    program = _program(entry, files)
    if program.entry:
        look = Look(job, entry, program, known)
        yield from _arguments(look)
        yield from of_variables(look)
        yield from of_masters(look)
        yield from of_counts(look)
        yield from of_backends(look)
        yield from of_dumps(look)
        yield from of_training(look)
        yield from of_packages(look, excluded)
    for unread in program.unread:
        where = f"{unread.path}:{unread.line}" if unread.line else unread.path
        yield Finding("script-not-read", "note", f"it was not checked: {unread.why}", None, where)


def _arguments(look: Look) -> Iterator[Finding]:
    """What argparse would refuse, with exit code 2."""
    parser = look.parser
    if parser is None or look.program.says(r"sys\.argv\s*(?:\+?=|\.|\[[^\]]*\]\s*\+?=)"):
        return
    is_old = look.entry.launcher == "torch.distributed.launch" and not re.search(
        r"--use[_-]env", look.job.shell_command
    )
    added = (Word("--local-rank=0"),) if is_old else _of_deepspeed(look)
    message = refusal(parser, (*added, *look.entry.arguments))
    if message is None:
        return
    # Before torch 2, it was spelt with an underscore.
    depends_on_torch = is_old and refusal(parser, (Word("--local_rank=0"), *look.entry.arguments)) is None
    hint = None
    if added and not is_old and "--local_rank" in message:
        hint = "`deepspeed` adds this argument: add it to the parser, or start with `deepspeed --no_local_rank`"
    elif is_old and "--local-rank" in message:
        hint = "`torch.distributed.launch` adds this argument: use `torchrun`, and read LOCAL_RANK"
    elif unknown := re.match(r"unrecognized arguments: (-[\w-]+)", message):
        hint = nearest(unknown[1], options(parser.parser))
    elif "--local_rank" in message or "--local-rank" in message:
        hint = 'Azure ML does not pass this argument: read `int(os.environ["LOCAL_RANK"])`'
    level: Level = "warning" if depends_on_torch else look.level(parser.parsed)
    yield from look.finding(
        "arguments",
        level,
        (parser.module, parser.made),
        f"argparse will refuse the arguments in the command: {message}",
        hint,
    )


def _of_deepspeed(look: Look) -> tuple[Word, ...]:
    """What DeepSpeed's own launcher adds to the arguments (seen); not if it leaves the start to another one."""
    if look.entry.launcher != "deepspeed" or re.search(r"--no_local_rank|--launcher\b", look.job.shell_command):
        return ()
    return (Word("--local_rank=0"),)
