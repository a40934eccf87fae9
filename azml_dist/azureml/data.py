"""Brings data of a workspace home: inputs and outputs of runs, many files at a time, cached, and resumed.

A file whose ETag has changed, or that somebody has changed here, is fetched again.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.azureml.datastores import Blob, Blobs
from azml_dist.azureml.errors import translated
from azml_dist.azureml.parallel import each
from azml_dist.azureml.ranges import STORAGE_SCOPE, Ranges
from azml_dist.azureml.snapshot import AT_A_TIME, READS, check_paths, pieces
from azml_dist.azureml.upload import Progress
from azml_dist.contents.store import cache_folder, check_room, full, no_room, note_use
from azml_dist.errors import AuthError, DistError, NotFound, SubmitError
from azml_dist.plan.requested import asset_reference
from azml_dist.runs.target import FullError, NotWrittenError, Target, readable
from azml_dist.words import plural, size_text

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.model.parts import Input

_FILES = "files"
_PIECE = 1 << 20
_ASSET = re.compile(r"azureml:([^/:@]+)(?:[:@])([^/:@]+)")


class Stored(NamedTuple):
    """Data in a workspace: the files at an address."""

    what: str
    """For people: `input data`."""
    reference: str
    """As the job has it: `azureml:digits:1`."""
    address: str
    blobs: Blobs
    files: Sequence[Blob]

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.files)

    def __str__(self) -> str:
        return f"{readable(self.reference)}, {plural(len(self.files), 'file')}, {size_text(self.size)}"


def input_in(workspace: Workspace, name: str, data: Input) -> Stored:
    """The files of an input. Raises `SubmitError` and its kinds where they cannot be listed."""
    what = f"input {name}"
    with translated(f"find {what}", workspace):
        return stored_at(workspace, what, data.path, _address(workspace, data, what))


def _address(workspace: Workspace, data: Input, what: str) -> str:
    """Where the files of an input are: assets have an address for each version."""
    reference = asset_reference(data.path)
    found = _ASSET.fullmatch(reference)
    if not found:
        if re.match(r"(?i)azureml:/?/?(registries|subscriptions)/(?!.*/datastores/)", reference):
            raise SubmitError(f"{what} is {readable(reference)[:200]}, which azml_dist cannot download", hint=_OWN)
        return str(reference)
    kind, field = ("models", "modelUri") if data.type.endswith("_model") else ("data", "dataUri")
    name, version = found[1], found[2]
    if "@" in reference:
        version = workspace.arm.read(f"{kind}/{name}").object("properties").needed("latestVersion")
    return workspace.arm.read(f"{kind}/{name}/versions/{version}").object("properties").needed(field)


_OWN = "give a local path for it: `--input NAME=PATH`"


def stored_at(workspace: Workspace, what: str, reference: str, address: str) -> Stored:
    """The files at an address."""
    from azure.core.exceptions import HttpResponseError

    with translated(f"read {what}", workspace):
        blobs = Blobs(workspace, address, AT_A_TIME)
        try:
            files = blobs.listed()
        except HttpResponseError as error:
            if error.status_code not in (401, 403):
                raise
            raise AuthError(
                f"your login may not read {what} ({readable(reference)}): the storage answers {error.status_code}",
                hint="its owner can give it the role Storage Blob Data Reader",
            ) from error
    check_paths(files, what)
    return Stored(what, reference, address, blobs, files)


def data_home(workspace: Workspace, data: Stored, sample: int | None = None) -> Path:
    """The folder or file with the data on this machine, fetched as far as it is not there yet.

    With `sample`, a folder has only so many of its files, the first by name. Raises `DistError` if the disk has no
    room, `NotFound` if there is nothing, and `SubmitError` for what cannot be read.
    """
    if not data.files:
        raise NotFound(f"{data.what} is empty: there is nothing at {readable(data.address)[:300]}", hint=_OWN)
    wanted = sorted(data.files, key=lambda blob: blob.path)[:sample]
    key = f"{data.blobs.url}/{data.address}\n{sample or 'all'}"
    place = cache_folder() / "data" / hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:24]
    try:
        with no_room(place), translated(f"fetch {data.what}", workspace), Target(place, data.reference) as target:
            note_use(place)
            _fetch(workspace, data, wanted, target)
            note_use(place)
    except FullError as error:
        raise full(place, str(error)) from error
    except NotWrittenError as error:
        raise DistError(f"cannot keep {data.what} in {place}: {error}", hint="delete that folder") from error
    is_file = len(data.files) == 1 and data.files[0].name == data.blobs.prefix
    return place / _FILES / wanted[0].path if is_file else place / _FILES


def _fetch(workspace: Workspace, data: Stored, wanted: Sequence[Blob], target: Target) -> None:
    _remove_others(target.folder / _FILES, {blob.path for blob in wanted})
    missing = [blob for blob in wanted if not _is_there(target, blob)]
    check_room(target.folder, sum(blob.size for blob in missing), data.what)
    ranges = Ranges(lambda: workspace.credential.get_token(STORAGE_SCOPE), workspace.cloud, AT_A_TIME)
    progress, stop = Progress(data.what, missing, "fetching"), threading.Event()

    def get(blob: Blob) -> None:
        fill = partial(_fill, ranges=ranges, url=data.blobs.address(blob), blob=blob, stop=stop)
        target.put(f"{_FILES}/{blob.path}", blob.version, fill, resumes=True)
        (target.folder / _FILES / blob.path).chmod(0o444)
        progress.file_is_done(blob.size)

    try:
        for _ in each(get, missing, at_a_time=AT_A_TIME, stop=stop):
            progress.show()
    finally:
        stop.set()
        progress.end()


def _remove_others(folder: Path, paths: Collection[str]) -> None:
    """Delete the files that are no longer part of the data."""
    for above, _, names in os.walk(folder):
        for name in names:
            file = Path(above, name)
            if file.relative_to(folder).as_posix() not in paths:
                file.unlink()


def _is_there(target: Target, blob: Blob) -> bool:
    """Whether a file is there as it was fetched. One that somebody has changed is deleted."""
    state = target.state(f"{_FILES}/{blob.path}", blob.version)
    if state == "other":
        with suppress(FileNotFoundError):
            (target.folder / _FILES / blob.path).unlink()
    return state == "here"


def _fill(draft: Path, ranges: Ranges, url: str, blob: Blob, stop: threading.Event) -> None:
    """Complete a file that may have been begun before. It is read again if its MD5 is not the one in the storage."""
    right = [blob.md5]
    for _ in range(READS):
        if (md5 := _completed(draft, ranges, url, blob, stop)) in right:
            return
        draft.unlink()
        right.append(md5)  # the storage has what the uploader said, so two equal reads count more
    raise NotWrittenError(f"{readable(blob.path)} has changed each time that it was read")


def _completed(draft: Path, ranges: Ranges, url: str, blob: Blob, stop: threading.Event) -> str | None:
    """The MD5 of the complete file; None if the storage has none to compare it with."""
    with draft.open("a+b") as file:
        first = file.seek(0, os.SEEK_END)
        if first > blob.size:
            first = file.truncate(0)
        for piece in pieces(ranges, url, blob, stop, first):
            file.write(piece)
        if not blob.md5:
            return None
        file.seek(0)
        md5 = hashlib.md5(usedforsecurity=False)
        while data := file.read(_PIECE):
            md5.update(data)
        return md5.hexdigest()
