"""The folders that contain runs, recorded so that a run can be found from anywhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.errors import LaunchError
from azml_dist.home import own_folder
from azml_dist.regular import read_regular

if TYPE_CHECKING:
    from azml_dist.plan.snapshot import Snapshot

_MAX_ROOTS = 4_000_000


def default_root() -> Path:
    """The default folder of runs."""
    given = os.environ.get("AZML_DIST_ROOT")
    return Path(given) if given else own_folder() / "runs"


def runs_in_code(code: Snapshot, root: Path) -> str | None:
    """A finding if earlier runs are copied with the code: then each run is twice as large as the one before."""
    if code.root is None:
        return None
    inside = os.path.relpath(os.path.realpath(root), code.root)
    if inside == os.curdir:
        has_runs = any(file.path.count("/") == 1 and file.path.endswith("/run.json") for file in code.files)
        is_there, hint = " is the code folder itself", "choose another `--root`"
    else:
        has_runs = any(file.path.startswith(f"{inside}{os.sep}") for file in code.files)
        is_there, hint = (
            f", {inside}, is in the code folder",
            f"add `{inside}/` to .amlignore, or choose another `--root`",
        )
    message = (
        f"the folder of runs{is_there}, so each run has a copy of all earlier ones, and they are uploaded to Azure ML"
    )
    return f"{message}: {hint}" if has_runs else None


def remember_root(root: Path) -> None:
    """Record a folder of runs, so that `azml-dist status NAME` finds them from anywhere."""
    with contextlib.suppress(OSError, LaunchError):
        file = _roots_file()
        if str(root.resolve()) not in known_roots() and (not file.exists() or file.is_file()):
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "ab") as roots:
                roots.write(os.fsencode(root.resolve()) + b"\n")


def roots_of(root: str | Path | None, skipped: list[str] | None = None) -> list[Path]:
    """The given folder of runs, or else all that are known."""
    return [Path(root)] if root else [Path(r) for r in known_roots(skipped)]


def known_roots(skipped: list[str] | None = None) -> list[str]:
    """Every known folder of runs, the default one first. Reasons for unreadable ones are added to `skipped`."""
    skipped = [] if skipped is None else skipped
    roots = []
    for find in (_usual_root, _noted_roots):
        try:
            roots += find(skipped)
        except (OSError, LaunchError) as error:  # noqa: PERF203 (one that cannot be read keeps none of the others away)
            skipped.append(_why(error))
    return list(dict.fromkeys(roots))


def _usual_root(_: list[str]) -> list[str]:
    return [str(default_root())]


def _noted_roots(skipped: list[str]) -> list[str]:
    file = _roots_file()
    try:
        lines = read_regular(file, _MAX_ROOTS).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OSError(f"{file}: {error.strerror or error}") from error
    odd = [line for line in lines if line.strip() and (b"\0" in line or not os.path.isabs(line))]
    skipped += [f"{file}: {os.fsdecode(line)[:200]!r} is not a path" for line in odd]
    return [os.fsdecode(line) for line in lines if line.strip() and line not in odd]


def _why(error: OSError | LaunchError) -> str:
    return str(error) if isinstance(error, OSError) else str(error.problems[0])


def _roots_file() -> Path:
    return own_folder() / "roots"
