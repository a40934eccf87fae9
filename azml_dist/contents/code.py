"""The code of a run as it was kept: a folder with exactly its files, and next to it the list of them.

Ignore rules were applied when the code was uploaded or staged, so they are not applied again: an uploaded file that a
`.gitignore` next to it excludes is part of the code all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from azml_dist.contents.store import Contents, Kept, is_unchanged, make_permanent, no_room
from azml_dist.regular import read_regular

FOLDER = "code"
"""The folder with the files."""
_LIST = "files.json"
"""The list next to it. It is written last: without it, the folder is not complete."""
_MAX_BYTES = 100_000_000


class KeptCode(NamedTuple):
    """The code of a run on this machine."""

    folder: Path
    """A folder with its files, which are not to be changed."""
    files: Mapping[str, Kept]
    """Size and hash of each file, by its path."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the paths and the SHA-256 of all files: equal code has an equal digest, wherever it ran."""
        return digest_of({path: kept.sha256 for path, kept in self.files.items()})

    @property
    def bytes(self) -> int:
        return sum(kept.size for kept in self.files.values())


def digest_of(files: Mapping[str, str]) -> str:
    """The digest of code, from the SHA-256 of each file by its path."""
    lines = (f"{path}\0{sha256}\n".encode(errors="surrogateescape") for path, sha256 in sorted(files.items()))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def is_kept(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder contains code as it was kept, so that all of it counts."""
    above, name = os.path.split(os.fspath(folder))
    return name == FOLDER and os.path.isfile(os.path.join(above, _LIST))


def keep_code(place: Path, contents: Contents, files: Mapping[str, Kept], executable: Collection[str] = ()) -> KeptCode:
    """Put the files of a run's code, which are kept already, into the folder `place`, with their list.

    It appears complete or not at all; if another process was faster, its folder stays.
    """
    draft = place.with_name(f".{place.name}.{os.getpid()}.{os.urandom(3).hex()}")
    try:
        with no_room(place):
            (draft / FOLDER).mkdir(parents=True)
            _fill(draft / FOLDER, contents, files, executable)
            listed = {path: [kept.name, kept.size] for path, kept in files.items()}
            (draft / _LIST).write_text(json.dumps({"files": listed}), encoding="utf-8", errors="surrogateescape")
            with contextlib.suppress(OSError):
                draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return KeptCode(place / FOLDER, files)


_NAME = re.compile("[0-9a-f]{96}")


def _is_inside(path: str) -> bool:
    return not os.path.isabs(path) and ".." not in path.replace(os.sep, "/").split("/")


def _fill(folder: Path, contents: Contents, files: Mapping[str, Kept], executable: Collection[str]) -> None:
    made = {""}
    for path, kept in files.items():
        target = folder / path
        if (above := os.path.dirname(path)) not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(above)
        if path in executable:  # its own copy: the kept content has one mode for all
            shutil.copyfile(contents.path(kept), target)
            make_permanent(target, kept, 0o555)
        else:
            contents.link(kept, target)


def kept_code(place: Path) -> KeptCode | None:
    """The code that was kept in a folder; None if there is none, or not all of it."""
    try:
        listed = json.loads(read_regular(place / _LIST, _MAX_BYTES))["files"]
        files = {path: Kept(str(name), int(size)) for path, (name, size) in listed.items()}
        if not all(_NAME.fullmatch(kept.name) and _is_inside(path) for path, kept in files.items()):
            return None
        root = os.path.join(place, FOLDER, "")
        here = all(is_unchanged(root + path, kept) for path, kept in files.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return KeptCode(place / FOLDER, files) if here else None
