"""Commands that take a run: `status`, `logs`, `wait`, `why`, `stacks`, `cancel`, `download`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from azml_dist.cli.base import (
    DONE,
    FAILED,
    Finite,
    example,
    fold_option,
    json_option,
    last_argument,
    name_argument,
    only_root_option,
    plain_option,
    root_option,
    run_names,
)
from azml_dist.cli.cost import cost_of, system_of
from azml_dist.cli.last import last_run
from azml_dist.cli.live import live
from azml_dist.cli.output import (
    card_width,
    colours,
    complain,
    folds,
    is_terminal,
    print_chunks,
    say,
    say_card,
    tell,
    tell_json,
    tell_page,
)
from azml_dist.errors import DistError, NotFound, RunFailed
from azml_dist.show import Card, Page, Told
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.runs.run import Run
    from azml_dist.verdict.verdict import Verdict


@click.command(epilog=example("azml-dist status quickstart-3f2a91"))
@last_argument
@root_option
@json_option
def status(name: str | None, root: str | None, as_json: bool) -> None:
    """Show the state of a run."""
    found = find_run(name, root)
    cost, system = cost_of(found), system_of(found)
    if as_json:
        more = {"cost": cost and cost.to_dict(), "system": system and system.to_dict()}
        tell_json(found.describe() | (more if hasattr(found, "cost") else {}))
        return
    tell_page(found._page())
    if system:
        tell(f"\nused  {system.summary()}")
        if system.findings:
            tell_page(Page([], [Told([("note", finding) for finding in system.findings])]))
    if cost:
        tell(f"\ncost  {cost}")


@click.command(epilog=example("azml-dist logs quickstart-3f2a91 --rank 3 --follow"))
@last_argument
@click.option("--rank", type=int, help="Show only this rank.")
@click.option("--node", type=int, help="Show only this node.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Show only the last N lines of each rank.")
@click.option("--follow", "-f", is_flag=True, help="Follow until the run ends, and exit with its status.")
@fold_option
@plain_option
@root_option
@json_option
def logs(
    name: str | None,
    rank: int | None,
    node: int | None,
    tail: int | None,
    follow: bool,
    fold: bool | None,
    plain: bool,
    root: str | None,
    as_json: bool,
) -> int:
    """Print the logs of a run, in the order in which the lines arrived."""
    found = find_run(name, root)
    ranks = found.ranks(rank, node)
    with live(as_json, plain or not follow) as foot:
        if foot:
            foot.show(found.watching(ranks))
        how = {"colour": colours(as_json), "safe": is_terminal(as_json), "fold": folds(as_json, fold)}
        some = print_chunks(found.chunks(ranks, follow=follow, tail=tail, **how), as_json)
    if not some and not follow and tail != 0:
        say(f"note: run {found.name} has written no {'such ' if rank is not None or node is not None else ''}lines")
    if as_json:
        tell_json(found.describe())
    return _ended(found) if follow else DONE


@click.command(epilog=example("azml-dist wait quickstart-3f2a91 --timeout 600"))
@last_argument
@click.option("--timeout", type=Finite(min=0), metavar="SECONDS", help="Give up after SECONDS.")
@plain_option
@root_option
@json_option
def wait(name: str | None, timeout: float | None, plain: bool, root: str | None, as_json: bool) -> int:
    """Wait until a run ends, without printing its lines, and exit with its status.

    Ctrl-C ends only the wait: the run continues.
    """
    found = find_run(name, root)
    try:
        with live(as_json, plain) as foot, suppress(RunFailed):
            if foot:
                foot.show(found.watching())
            found.wait(timeout=timeout)
    except TimeoutError as error:
        raise DistError(str(error), hint=f"`azml-dist logs {found.name} --follow` shows what it does") from None
    except KeyboardInterrupt:
        say(f"run {found.name} continues: cancel it with `azml-dist cancel {found.name}`")
        raise
    if as_json:
        tell_json(found.describe())
    return _ended(found)


def _ended(run: Run) -> int:
    """Print how a run that has ended did so, and why; returns the exit code."""
    code = DONE
    try:
        run.wait()
    except RunFailed as failure:
        say(f"error: {failure.problems[0].message}")
        code = FAILED
    say_card(run.ending())
    return code


@click.command(epilog=example("azml-dist why quickstart-3f2a91"))
@click.argument("name", required=False, metavar="NAME|FOLDER|ZIP", shell_complete=run_names)
@root_option
@json_option
def why(name: str | None, root: str | None, as_json: bool) -> int:
    """Say why a run failed: which rank failed first, why, and the log lines that show it.

    NAME is a run on this machine or in the workspace. FOLDER or ZIP is what `azml-dist bundle` writes, or contains logs
    under Azure ML's names, as `azml-dist download` and the studio save them. Logs alone may not prove the cause, so the
    verdict says how certain it is.
    """
    from azml_dist.cli import compared
    from azml_dist.verdict.card import evidence

    found = _judged(name, root)
    verdict = found.verdict
    again = compared.repetitions(found.run, root) if found.run else []
    if as_json:
        told = {"name": found.name, "status": found.status, "verdict": verdict and verdict.to_dict()}
        tell_json(told | compared.as_json(found.run, again))
    elif verdict:
        proof = evidence(verdict, card_width(sys.stdout))
        tell_page(Page([], [found.card(), *compared.facts(again), *proof]))
        if hint := compared.suggestion(found.run, again):
            say(f"hint: {hint}")
    else:
        say(_nothing_failed(found))
        if own := getattr(found.run, "compared", lambda: None)():
            say(f"compared with the run that it repeats: {own.summary}")
    return DONE


class _Judged(NamedTuple):
    name: str
    status: RunStatus
    verdict: Verdict | None
    run: Run | None = None
    code: Sequence[Path] = ()
    folder: Path | None = None

    def card(self) -> Card:
        from azml_dist.verdict.card import ending

        if self.run:
            return self.run.ending(in_full=True)
        hint = self.verdict.hint if self.verdict else None
        return ending(self.name, self.status, "", self.verdict, hint=hint, code=self.code, in_full=True)


def _judged(name: str | None, root: str | None) -> _Judged:
    """A run, or logs in a folder or in a zip, and why it failed."""
    from azml_dist.local.ending import code_of
    from azml_dist.runs.bundled import BundledRun, is_bundle
    from azml_dist.verdict.dumps import judge_with
    from azml_dist.verdict.folder import is_logs, read_logs

    if name is None:
        found = find_run(None, root)
        return _Judged(found.name, found.status, found.verdict(), found)
    if is_logs(name) and not is_bundle(name):
        if known := _run_of_download(name, root):
            return _Judged(known.name, known.status, known.verdict(), known)
        logs = read_logs(name)
        code = [Path(root) for root in (code_of(Path(name)),) if root]
        verdict = logs.kept or judge_with(logs.known, logs.dumps)
        return _Judged(logs.name, logs.status, verdict, code=[*code, Path()], folder=Path(name))
    if (os.sep in name or name.endswith((".zip", *_PACKED, *_LOGS))) and not is_bundle(name):
        if os.path.isfile(name):
            raise NotFound(f"{name!r} is neither a folder nor a readable zip", hint=_of_file(name))
        raise NotFound(f"no folder or zip {name!r}", hint="`azml-dist list` shows the runs on this machine")
    found = BundledRun(name) if is_bundle(name) else find_run(name, root)
    return _Judged(found.name, found.status, found.verdict(), found)


_PACKED = (".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z")
_LOGS = (".txt", ".log")


def _of_file(name: str) -> str:
    """The next step if a file is no zip of logs."""
    if name.endswith(_PACKED):
        return "unpack it, and give the folder"
    if name.endswith(_LOGS):
        return f"give the folder that has all logs of the run: {os.path.dirname(name) or '.'}"
    return "copy or download it again"


def _run_of_download(name: str, root: str | None) -> Run | None:
    """The run of that name, if a folder is only named like it, as `azml-dist download` names them: it knows more."""
    from azml_dist.local.find import find
    from azml_dist.runs.target import OWN

    if os.sep in name or name.endswith(".zip"):
        return None
    if found := find(name, root):
        return found
    if os.path.isdir(os.path.join(name, OWN)):
        with suppress(DistError):
            return find_run(name, root)
    return None


def _nothing_failed(found: _Judged) -> str:
    status = found.status
    if status == RunStatus.COMPLETED:
        from azml_dist.local.why import hidden_failure

        folder = getattr(found.run, "folder", found.folder)
        if hidden := hidden_failure(folder) if folder else None:
            return (
                f"run {found.name} has completed, but its logs show an exception, which the command may have hidden:"
                f" {hidden.summary}\nhint: start the command with `set -eo pipefail`, so that its failures count"
            )
        return f"run {found.name} has completed: there is no failure to explain"
    if status == RunStatus.UNKNOWN or status.is_final:
        return f"{found.name}: no sign that this run failed"
    return f"run {found.name} is {status} and has not failed; see `azml-dist logs {found.name} --follow`"


@click.command(epilog=example("azml-dist stacks quickstart-3f2a91"))
@last_argument
@click.option("--rank", type=int, help="Show only this rank.")
@root_option
@json_option
def stacks(name: str | None, rank: int | None, root: str | None, as_json: bool) -> None:
    """Show what every process of a local run is doing: its Python stacks, equal ones together.

    The run is not disturbed. If it ended while it hung, this shows where it hung.
    """
    found = find_run(name, root)
    ask = getattr(found, "stacks", None)
    if ask is None:
        raise DistError(
            f"run {found.name} is not a single run on this machine: only processes of such a run can be inspected",
            hint=f"`azml-dist logs {found.name} --tail 1` shows the last line of each rank",
        )
    taken = ask(rank)
    if as_json:
        tell_json(taken.to_dict())
    else:
        tell_page(taken._page())


@click.command(epilog=example("azml-dist cancel quickstart-3f2a91"))
@name_argument
@root_option
@json_option
def cancel(name: str, root: str | None, as_json: bool) -> None:
    """Cancel a run, and wait until its processes are gone."""
    found = find_run(name, root)
    had_ended = found.status.is_final
    found.cancel(reason="cancelled with `azml-dist cancel`")
    with suppress(RunFailed, TimeoutError):
        found.wait(timeout=60)
    if as_json:
        tell_json(found.describe())
    else:
        say(f"{name} has already finished ({found.status})" if had_ended else f"run {name}: {found.status}")


@click.command(epilog=example("azml-dist download quickstart-3f2a91 --only outputs/model --to results"))
@name_argument
@click.option(
    "--to",
    "--output-dir",
    "folder",
    type=click.Path(),
    help="The folder to copy into; by default, one with the name of the run.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="PATH",
    help="Copy only this folder or file, e.g. `outputs/model`; may be repeated.",
)
@click.option("--so-far", is_flag=True, help="Copy what a run that has not ended has written so far.")
@only_root_option
@json_option
def download(
    name: str, folder: str | None, only: tuple[str, ...], so_far: bool, root: str | None, as_json: bool
) -> int:
    """Copy the named outputs, artifacts and logs of a run, and list them; exit with 1 if anything is missing.

    Repeat it to continue where it stopped: files that are there are skipped, and large ones are completed.
    """
    found = find_run(name, root)
    done = found.fetch(folder or found.name, only=only, so_far=so_far)
    if as_json:
        tell_json({"name": found.name, **done.to_dict()})
    else:
        tell(str(done.folder))
    if not done.parts and not done.missing:
        say(f"note: run {found.name} has written no files")
    for line in [*done.lines(), *(f"note: {note}" for note in done.notes())]:
        say(line)
    if done.missing:
        from azml_dist.runs.download import DownloadFailed

        complain(DownloadFailed(found.name, done))
    return FAILED if done.missing else DONE


COMMANDS = (status, logs, wait, why, stacks, cancel, download)


def find_run(name: str | None, root: str | None) -> Run:
    """The run with this name; without one, the run that was started last."""
    from azml_dist.api import run as find

    if name is None:
        return last_run(root)

    return find(name, root=root)
