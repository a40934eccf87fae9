"""Brings the code of a run home: exactly the files that the workspace has, many at a time, kept by their content.

A version of code never changes in Azure ML, so code that is here already costs no request.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.azureml.answers import Answer
from azml_dist.azureml.arm import BACKOFF
from azml_dist.azureml.datastores import Blob, Blobs, account_key
from azml_dist.azureml.errors import translated
from azml_dist.azureml.parallel import each
from azml_dist.azureml.ranges import STORAGE_SCOPE, Ranges
from azml_dist.azureml.upload import Progress
from azml_dist.contents.code import KeptCode, keep_code, kept_code
from azml_dist.contents.store import Contents, Kept, cache_folder, check_room, note_use
from azml_dist.errors import AuthError, NotFound, SubmitError
from azml_dist.plan.snapshot import MAX_FILES
from azml_dist.runs.target import is_name, readable
from azml_dist.words import plural, size_text

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace

AT_A_TIME = 32
_MOST_BYTES = 20 << 30
"""More than any code: whoever has stored that in a workspace means no good, or means data."""
_PIECE = 4 << 20
"""Bytes per request."""
_TRIES = 5
READS = 3
"""How often a file is read whose MD5 is not the one in the storage."""
_CODE = re.compile(r"(?i)(?:azureml:)?/subscriptions/.+/workspaces/([^/]+)/codes/([^/]+)/versions/([^/]+)")


def code_home(workspace: Workspace, code: str, run: str) -> KeptCode:
    """The code of a run, by the id of its code asset, from the cache or from the workspace.

    Raises `NotFound` if it was deleted, `AuthError` without rights, and `SubmitError` for what cannot be fetched;
    `DistError` on a full disk. What was complete by then is kept.
    """
    found = _CODE.fullmatch(code)
    if not found:
        hint = "only code that was uploaded to the workspace can be fetched: `--set code=FOLDER` names a folder here"
        raise SubmitError(f"the code of run {run} is at {readable(code)[:200]}", hint=hint, where="code")
    if found[1].lower() != workspace.name.lower():
        hint = "name that workspace with `--workspace`"
        raise SubmitError(f"the code of run {run} is in workspace {found[1]}", hint=hint, where="code")
    cache = cache_folder()
    place = cache / "code" / hashlib.sha256(code.removeprefix("azureml:").lower().encode()).hexdigest()[:24]
    if here := kept_code(place):
        note_use(place)
        return here
    with translated(f"fetch the code of run {run}", workspace):
        files = _fetched(workspace, f"codes/{found[2]}/versions/{found[3]}", run, Contents(cache / "contents"))
        _remove_damaged(place)
        return keep_code(place, Contents(cache / "contents"), files)


def _remove_damaged(place: Path) -> None:
    """Code of which files are missing or changed, out of the way of its successor."""
    if place.exists():
        place.rename(place.with_name(f"{place.name}.damaged-{time.time_ns()}"))


def _fetched(workspace: Workspace, path: str, run: str, contents: Contents) -> dict[str, Kept]:
    """The files of a version of code, all of them kept."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        address = Answer(workspace.arm.call("GET", path)).object("properties").needed("codeUri")
        blobs, listed = _listed(workspace, address)
    except ResourceNotFoundError as error:
        raise _deleted(run) from error
    if not listed:
        raise _deleted(run)
    check_paths(listed, f"the code of run {run}")
    found = {blob.path: kept for blob in listed if (kept := blob.md5 and contents.with_md5(blob.md5, blob.size))}
    missing = [blob for blob in listed if blob.path not in found]
    check_room(contents.folder, sum(blob.size for blob in missing), f"the code of run {run}")
    fetching = f"code of run {run}"
    return found | {blob.path: kept for blob, kept in kept_blobs(workspace, blobs, missing, contents, fetching)}


def _deleted(run: str) -> NotFound:
    hint = "the run itself still says its command and inputs: `--set code=FOLDER` runs it with code of your own"
    return NotFound(f"the code of run {run} was deleted from the workspace's storage", hint=hint)


def _listed(workspace: Workspace, address: str) -> tuple[Blobs, list[Blob]]:
    """The files of code: read with this login, or else with the key of the account, if it may have that."""
    from azure.core.exceptions import HttpResponseError

    blobs = Blobs(workspace, address, AT_A_TIME)
    try:
        return blobs, blobs.listed()
    except HttpResponseError as error:
        if error.status_code != 403 or not (key := account_key(workspace, address)):
            raise
    blobs = Blobs(workspace, address, AT_A_TIME, key)
    return blobs, blobs.listed()


def check_paths(blobs: Sequence[Blob], what: str) -> None:
    """Raises `SubmitError` for files that would not stay in their folder, and for too many or too large ones."""
    for blob in blobs:
        if not all(map(is_name, blob.path.split("/"))) or len(blob.path.encode(errors="surrogateescape")) > 4000:
            hint = "nothing was written; whoever uploaded it used no path that a file can have"
            raise SubmitError(f"{what} has a file with the path {readable(blob.path)[:200]!r}", hint=hint)
    paths = {blob.path for blob in blobs}
    for path in paths:
        parts = path.split("/")
        above = next((a for a in ("/".join(parts[:n]) for n in range(1, len(parts))) if a in paths), None)
        if above:
            raise SubmitError(f"{what} has both a file and a folder named {readable(above)}")
    size = sum(blob.size for blob in blobs)
    if len(blobs) > MAX_FILES or size > _MOST_BYTES:
        raise SubmitError(
            f"{what} has {plural(len(blobs), 'file')}, {size_text(size)}: that is more than azml_dist fetches",
            hint=f"the limits are {MAX_FILES:,} files and {size_text(_MOST_BYTES)}",
        )


def kept_blobs(
    workspace: Workspace, blobs: Blobs, wanted: Sequence[Blob], contents: Contents, what: str
) -> Iterator[tuple[Blob, Kept]]:
    """Fetch files and keep them, many at a time, as they arrive, with progress at a terminal."""
    ranges = Ranges(lambda: workspace.credential.get_token(STORAGE_SCOPE), workspace.cloud, AT_A_TIME)
    stop = threading.Event()
    progress = Progress(what, wanted, "fetching")

    def get(blob: Blob) -> Kept:
        right = [blob.md5]
        for _ in range(READS):
            kept = contents.add(pieces(ranges, blobs.address(blob), blob, stop))
            if not blob.md5 or kept.md5 in right:
                progress.file_is_done(blob.size)
                return kept
            right.append(kept.md5)  # the storage has what the uploader said, so two equal reads count more
        raise SubmitError(f"{readable(blob.path)} has changed each time that it was read")

    try:
        for index, kept in each(get, wanted, at_a_time=AT_A_TIME, stop=stop):
            progress.show()
            yield wanted[index], kept
    finally:
        stop.set()
        progress.end()


def pieces(ranges: Ranges, url: str, blob: Blob, stop: threading.Event, first: int = 0) -> Iterator[bytes]:
    """The content of a file from byte `first` on. Raises unless all of it arrives."""
    while first < blob.size:
        data = _piece(ranges, url, blob, first, stop)
        yield data
        first += len(data)


def _piece(ranges: Ranges, url: str, blob: Blob, first: int, stop: threading.Event) -> bytes:
    wanted = min(_PIECE, blob.size - first)
    found = ranges.get(blob.path, url, first, wanted)
    for number in range(1, _TRIES):
        if found.data and found.size in (None, blob.size):
            return found.data
        if (found.refused and found.refused != 401) or stop.wait(BACKOFF * 2**number):
            break
        found = ranges.get(blob.path, url, first, wanted)
    if found.refused in (401, 403):
        raise AuthError(
            f"{readable(blob.path)} cannot be read: the storage answers {found.refused}",
            hint="your login needs the role Storage Blob Data Reader",
        )
    if found.refused == 404 or found.says:
        raise NotFound(f"{readable(blob.path)} was deleted or changed meanwhile")
    answer = f"the storage answers {found.status}" if found.status else "the connection to the storage fails"
    raise SubmitError(f"{readable(blob.path)} cannot be read: {answer}", hint="try again: what is complete is kept")
