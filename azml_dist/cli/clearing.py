"""`rm` and `prune`: delete runs on this machine. Both ask at a terminal, and want `--yes` without one."""

from __future__ import annotations

import re
import sys
from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from azml_dist.cli.base import DONE, FAILED, WRONG, example, json_option, root_option, run_names
from azml_dist.cli.output import complain, say, tell_json, write
from azml_dist.errors import DistError
from azml_dist.words import plural, size_text, visible

if TYPE_CHECKING:
    from azml_dist.local.removal import Whole
    from azml_dist.local.unused import Unused

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SHOWN = 10

yes_option = click.option("--yes", "-y", is_flag=True, help="Delete without asking.")


class _Age(click.ParamType):  # type: ignore[type-arg] # not generic when it runs
    """A duration such as `7d`, in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)\s*", str(value), re.ASCII)
        if not found:
            self.fail(f"{value!r} is not an age such as 7d, 12h or 30min", param, ctx)
        age = float(found[1]) * _UNITS[found[2]]
        return age if isfinite(age) else self.fail(f"{found[0][:20]}… is too long for an age", param, ctx)


@click.command(epilog=example("azml-dist rm quickstart-3f2a91"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=run_names)
@yes_option
@root_option
@json_option
def rm(names: tuple[str, ...], yes: bool, root: str | None, as_json: bool) -> int:
    """Delete runs on this machine with all their files: logs, outputs, metrics.

    A run that has not ended is never deleted. The trials of a sweep and the steps of a pipeline go with it.
    """
    from azml_dist.local.removal import named

    return _delete(named(names, root), [], yes=yes, as_json=as_json)


@click.command(epilog=example("azml-dist prune --keep 50 --older-than 7d"))
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Keep the N newest runs.")
@click.option("--older-than", type=_Age(), metavar="AGE", help="Delete what ended longer ago, e.g. 7d, 12h, 30min.")
@click.option("--failed", is_flag=True, help="Delete only runs that failed.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@yes_option
@root_option
@json_option
def prune(
    keep: int | None,
    older_than: float | None,
    failed: bool,
    dry_run: bool,
    yes: bool,
    root: str | None,
    as_json: bool,
) -> int:
    """Delete the runs on this machine that meet all of your criteria.

    Give at least one of `--keep`, `--older-than` and `--failed`.

    A run that has not ended is never deleted. If `--older-than` is the only criterion and no `--root` is given,
    environments of `run --packages job` and cached code and data of Azure ML that no run has used for so long are
    deleted too.
    """
    from azml_dist.local.removal import prunable, wholes
    from azml_dist.local.unused import unused

    if keep is None and older_than is None and not failed:
        raise click.UsageError("say what to delete: --keep N, --older-than AGE or --failed")
    runs = prunable(wholes(root), keep=keep, older_than=older_than, failed=failed)
    only_old = keep is None and not failed and not root and older_than is not None
    return _delete(runs, unused(older_than or 0.0) if only_old else [], yes=yes, as_json=as_json, dry_run=dry_run)


def _delete(runs: list[Whole], others: list[Unused], *, yes: bool, as_json: bool, dry_run: bool = False) -> int:
    from azml_dist.local.removal import size_of
    from azml_dist.local.unused import DOWNLOAD, ENVIRONMENT

    names = [one.name for whole in runs for one in whole.all]
    size = sum(size_of(one.folder.path) for whole in runs for one in whole.all) + sum(
        size_of(one.folder) for one in others
    )
    kinds = Counter(one.kind for one in others)
    what = " and ".join(
        [*([plural(len(runs), "run")] if runs else []), *(plural(n, kind) for kind, n in kinds.items())]
    )
    if not what:
        say("there is nothing to delete")
    elif dry_run:
        say(f"{what} would be deleted, {size_text(size)}:")
    refused = bool(what) and not dry_run and not yes and not _may_delete(f"{what}, {size_text(size)}", runs)
    errors = [] if dry_run or refused else _deleted(runs, others)
    for error in errors:
        complain(error)
    if as_json:
        environments, downloads = (
            [str(o.folder) for o in others if o.kind == kind] for kind in (ENVIRONMENT, DOWNLOAD)
        )
        told = {"runs": names, "environments": environments, "downloads": downloads, "bytes": size}
        tell_json({**told, "deleted": not (dry_run or refused or errors)})
    elif dry_run and what:
        write("".join(f"{visible(name)}\n" for name in [*names, *(str(one.folder) for one in others)]))
    elif what and not refused and not errors:
        say(f"deleted {what}, {size_text(size)}")
    return FAILED if refused else WRONG if errors else DONE


def _deleted(runs: list[Whole], others: list[Unused]) -> list[DistError]:
    """Delete everything that can be deleted; returns what was wrong with the rest."""
    from azml_dist.local.removal import delete_remains, remove
    from azml_dist.local.unused import remove_unused

    errors = []
    for whole in runs:
        try:
            remove(whole)
        except DistError as error:  # noqa: PERF203 (one that cannot be deleted keeps none of the others)
            errors.append(error)
    for one in others:
        try:
            remove_unused(one)
        except DistError as error:  # noqa: PERF203
            errors.append(error)
    for above in {*(whole.head.folder.path.parent for whole in runs), *(one.folder.parent for one in others)}:
        delete_remains(above)
    return errors


def _may_delete(what: str, runs: list[Whole]) -> bool:
    """Ask at a terminal; refuse without one."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"there is no terminal to ask whether to delete {what}: add --yes")
    for whole in runs[:_SHOWN]:
        say(f"  {whole.head.name}")
    if len(runs) > _SHOWN:
        say(f"  and {len(runs) - _SHOWN:,} more")
    is_wanted = click.confirm(f"delete {what}?", err=True)
    if not is_wanted:
        say("nothing was deleted")
    return is_wanted


COMMANDS = (rm, prune)
