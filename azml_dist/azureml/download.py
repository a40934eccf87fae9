"""Downloads outputs, artifacts and logs of a run on Azure ML, many files at a time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from azml_dist.azureml.datastores import Blob, Blobs, ChangedError
from azml_dist.azureml.errors import translated
from azml_dist.azureml.parallel import each
from azml_dist.azureml.ranges import Addressed, Ranges
from azml_dist.azureml.upload import Progress
from azml_dist.errors import SubmitError
from azml_dist.runs.download import Download, File
from azml_dist.runs.selection import Selection
from azml_dist.runs.target import FullError, NotWrittenError, Target, is_name, readable

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace

AT_A_TIME = 16
_LOGS = "user_logs"
"""The folder of the artifacts that a local run keeps separately."""
_RESUMES = 8 << 20
"""From so many bytes on, an interrupted file is continued; a smaller one is two requests."""
_TRIES = 3
"""How often to begin again with a file that is replaced while it is read."""


class Wanted(NamedTuple):
    """What to download of a run."""

    name: str
    outputs: Mapping[str, str]
    """The address of each named output."""
    artifacts: str
    logs: Callable[[], Mapping[str, str]] = dict
    """Asks for the address of each log, for those that are not among the artifacts."""
    ranges: Ranges | None = None
    """Reads them."""
    only: Selection = Selection()
    must_be_found: bool = True
    """Whether all of `only` is to be found here."""
    so_far: bool = False
    """The run has not ended: an output may be empty."""


class Member(NamedTuple):
    """A run that another one contains."""

    place: str
    """The folder for its files."""
    logs: Callable[[], Mapping[str, str]] = dict
    """Asks for the address of each log."""
    outputs: Callable[[], Mapping[str, str]] = dict
    """Asks for the address of each named output."""


class _Source(Protocol):
    """Where files are read."""

    def chunks(self, blob: Blob, begin: int = 0) -> Iterator[bytes]: ...

    def renewed(self, blob: Blob) -> Blob: ...


class _File(NamedTuple):
    part: str
    path: str
    """Path in the target folder."""
    source: _Source
    blob: Blob
    came: str = "new"
    read: str | None = None
    """The MD5 of what was read before, if that is not the one that the storage has."""

    def below(self, place: str) -> _File:
        """The same in the folder of a member."""
        return self._replace(part=f"{place}/{self.part}", path=f"{place}/{self.path}")

    @property
    def size(self) -> int:
        return self.blob.size

    @property
    def version(self) -> str:
        return self.blob.version


class _StoppedError(Exception):
    """The download was stopped."""


class _OtherMd5Error(Exception):
    """What was read has another MD5 than expected."""

    def __init__(self, md5: str) -> None:
        super().__init__(md5)
        self.md5 = md5


def fetch(workspace: Workspace, wanted: Wanted, folder: Path) -> Download:
    """Download everything of a run that can be read; note the rest as missing."""
    done = Download(folder)
    found = [file for file in _listed(workspace, wanted, done) if wanted.only.takes(file.path)]
    if wanted.must_be_found:
        wanted.only.must_be_found(wanted.name)
    _get(found, done, wanted.name)
    return done


def fetch_members(workspace: Workspace, wanted: Wanted, members: Sequence[Member], folder: Path) -> Download:
    """Download the logs and outputs of all runs that a run contains, each into a folder of its own.

    What cannot be read is noted as missing. What is at the same address as an output of the whole run, or of an earlier
    member, is downloaded once.
    """
    done = Download(folder)
    asked = dict(each(_ask, members, at_a_time=AT_A_TIME, stop=threading.Event()))
    told = [asked[index] for index in range(len(members))]
    outputs = _outputs_to_list(wanted, members, told, done)

    def listed(output: _Output) -> tuple[list[_File], Download]:
        inner, found = wanted._replace(only=wanted.only.below(*output.place.split("/"))), Download(folder)
        return list(_files_of_output(workspace, inner, output.name, output.address, found)), found

    found = dict(each(listed, outputs, at_a_time=AT_A_TIME, stop=threading.Event()))
    files = dict[str, list[_File]]()
    for index, output in enumerate(outputs):
        done.add(found[index][1], output.place)
        inner = [one.below(output.place) for one in found[index][0]]
        files.setdefault(output.place, []).extend(one for one in inner if wanted.only.takes(one.path))
    logs, parts = _logs_to_get(wanted, members, told, done)
    for file in _logs(Addressed(wanted.ranges, logs), parts, done) if wanted.ranges else ():
        files.setdefault(file.part.removesuffix(f"/{_LOGS}"), []).append(file)
    _get([file for member in members for file in files.pop(member.place, [])], done, wanted.name)
    return done


_Addresses: TypeAlias = "Mapping[str, str] | SubmitError"


class _Output(NamedTuple):
    """A named output of a member."""

    place: str
    name: str
    address: str


def _ask(member: Member) -> tuple[_Addresses, _Addresses]:
    """The addresses of its logs and of its outputs."""

    def answer(ask: Callable[[], Mapping[str, str]]) -> _Addresses:
        try:
            return ask()
        except SubmitError as error:
            return error

    return answer(member.logs), answer(member.outputs)


def _outputs_to_list(
    wanted: Wanted, members: Sequence[Member], told: Sequence[tuple[_Addresses, _Addresses]], done: Download
) -> list[_Output]:
    """The outputs of members that are wanted, each address once."""
    seen = {address.rstrip("/"): f"outputs/{name}" for name, address in wanted.outputs.items()}
    outputs = []
    for (place, _, _), (_, found) in zip(members, told, strict=True):
        if isinstance(found, SubmitError):
            if wanted.only.misses(f"{place}/outputs"):
                done.missing.append(f"{readable(place)}/outputs: {found.problems[0].message}")
            continue
        for name, address in found.items():
            path = f"{place}/outputs/{name}"
            first = seen.setdefault(address.rstrip("/"), path)
            if not is_name(name):
                done.missing.append(f"{readable(place)}: output {readable(name)}: not a valid folder name")
            elif first != path and wanted.only.takes(first):
                done.left_out.append(f"{readable(path)} was not downloaded again: it is the same as {readable(first)}")
            elif wanted.only.below(*place.split("/")).takes_some_of(f"outputs/{name}"):
                outputs.append(_Output(place, name, address))
    return outputs


def _logs_to_get(
    wanted: Wanted, members: Sequence[Member], told: Sequence[tuple[_Addresses, _Addresses]], done: Download
) -> tuple[dict[str, str], dict[str, str]]:
    """The address of each log of a member that is wanted, and the part that it belongs to."""
    addresses, parts = dict[str, str](), dict[str, str]()
    for (place, _, _), (found, _) in zip(members, told, strict=True):
        part = f"{place}/{_LOGS}"
        if isinstance(found, SubmitError):
            if wanted.only.misses(part):
                done.missing.append(f"{readable(part)}: {found.problems[0].message}")
            continue
        for path, url in found.items():
            if path.startswith(f"{_LOGS}/") and wanted.only.takes(f"{place}/{path}"):
                addresses[f"{place}/{path}"], parts[f"{place}/{path}"] = url, part
    return addresses, parts


def _get(found: list[_File], done: Download, name: str) -> None:
    """Download these files, and note them in this order, no matter which one finishes first."""
    order = {file.path: index for index, file in enumerate(found)}
    parts = {file.part: index for index, file in reversed(list(enumerate(found)))}
    with Target(done.folder, name) as target:
        files = [new for file in found if (new := _if_new(target, file, done))]
        target.must_hold(sum(file.size - target.left_of(file.path, file.version) for file in files))
        _transfer(target, files, done, name)
    done.parts.sort(key=lambda part: parts[part.path])
    done.files.sort(key=lambda file: order[file.path])


def _listed(workspace: Workspace, wanted: Wanted, done: Download) -> Iterator[_File]:
    """The files of all outputs and of the artifacts; an output without files is missing."""
    for output, address in wanted.outputs.items():
        part = f"outputs/{output}"
        if not is_name(output):
            done.missing.append(f"output {readable(output)}: not a valid folder name")
        elif wanted.only.takes_some_of(part):
            yield from _files_of_output(workspace, wanted, output, address, done)
    if wanted.only.takes_some_of("artifacts") or wanted.only.takes_some_of(_LOGS):
        yield from _artifacts(workspace, wanted, done)


def _files_of_output(
    workspace: Workspace, wanted: Wanted, output: str, address: str, done: Download
) -> Iterator[_File]:
    part = f"outputs/{output}"
    found = _blobs(workspace, address, f"output {output}", done)
    for source, blob in found or ():
        yield _File(part, f"{part}/{blob.path}", source, blob)
    if not found:
        wanted.only.takes(part)
    if found == []:
        nothing = done.left_out if wanted.so_far else done.missing
        yet = "nothing yet" if wanted.so_far else "nothing found"
        nothing.append(f"output {output}: {yet} at {readable(address)}")


def _artifacts(workspace: Workspace, wanted: Wanted, done: Download) -> Iterator[_File]:
    """The artifacts, of which logs are a part of their own; logs that are not among them, from their own addresses."""
    left = _addresses(wanted) if wanted.only.takes_some_of(_LOGS) else {}
    found = _blobs(workspace, wanted.artifacts, "artifacts" if left else "artifacts and logs", done)
    for source, blob in found or ():
        left.pop(blob.path, None)
        is_log = blob.path.startswith(f"{_LOGS}/")
        part = _LOGS if is_log else "artifacts"
        yield _File(part, blob.path if is_log else f"{part}/{blob.path}", source, blob)
    if found is None:
        for part in ("artifacts", _LOGS):
            wanted.only.takes(part)
    if left and wanted.ranges:
        yield from _logs(Addressed(wanted.ranges, left), dict.fromkeys(left, _LOGS), done)


def _addresses(wanted: Wanted) -> dict[str, str]:
    """The logs that run history knows; if it does not answer, there are still those among the artifacts."""
    try:
        return {path: url for path, url in wanted.logs().items() if path.startswith(f"{_LOGS}/")}
    except SubmitError:
        return {}


def _logs(source: Addressed, parts: Mapping[str, str], done: Download) -> Iterator[_File]:
    """These logs, each with the part that it belongs to."""
    names = list(parts)

    def size_of(path: str) -> int | str | None:
        try:
            return source.size_of(path)
        except SubmitError as error:
            return error.problems[0].message

    sized = dict(each(size_of, names, at_a_time=AT_A_TIME, stop=threading.Event()))
    for index, path in enumerate(names):
        if isinstance(size := sized[index], int):
            yield _File(parts[path], path, source, Blob(path, path, size, grows=True))
        elif size:
            done.missing.append(f"{readable(path)}: {size}")


def _blobs(workspace: Workspace, address: str, what: str, done: Download) -> list[tuple[Blobs, Blob]] | None:
    """The files below an address; None if they cannot be listed, which is noted."""
    try:
        with translated(f"read {what}", workspace):
            blobs = Blobs(workspace, address, AT_A_TIME)
            return [(blobs, blob) for blob in blobs.listed()]
    except SubmitError as error:
        problem = error.problems[0]
        done.missing.append(f"{what}: {problem.message}" + (f" ({problem.hint})" if problem.hint else ""))
        return None


def _if_new(target: Target, file: _File, done: Download) -> _File | None:
    """The file, if it has to be downloaded; existing ones are counted and left alone."""
    try:
        state = target.state(file.path, file.version)
    except NotWrittenError as error:
        done.missing.append(f"{readable(file.path)}: {error}")
        return None
    if state in ("here", "other"):
        done.add_file(file.part, File(file.path, file.size, "here" if state == "here" else "kept"))
        return None
    return file._replace(came="updated" if state == "outdated" else "new")


def _transfer(target: Target, files: list[_File], done: Download, name: str) -> None:
    stop = threading.Event()
    full = threading.Event()
    progress = Progress(f"run {name}", files, "downloading")

    def get(file: _File) -> File | str:
        """Download a file; returns it, or what went wrong."""
        if full.is_set():
            return "not downloaded, because the disk is full"
        try:
            with translated(f"read {readable(file.path)}"):
                file = _put(target, file, stop, progress)
        except FullError as error:
            full.set()
            return str(error)
        except (NotWrittenError, SubmitError) as error:
            return str(error.problems[0].message if isinstance(error, SubmitError) else error)
        return File(file.path, file.size, "updated" if file.came == "updated" else "new")

    try:
        for index, result in each(get, files, at_a_time=AT_A_TIME, stop=stop):
            progress.show()
            if isinstance(result, File):
                done.add_file(files[index].part, result)
            else:
                done.missing.append(f"{readable(files[index].path)}: {result}")
    finally:
        progress.end()
    done.is_full = full.is_set()


def _put(target: Target, file: _File, stop: threading.Event, progress: Progress) -> _File:
    """Download a file; returns it as it was then, since it may change meanwhile."""
    for _ in range(_TRIES):
        try:
            fill = partial(_fill, file=file, stop=stop, progress=progress)
            target.put(file.path, file.version, fill, resumes=file.size >= _RESUMES)
            progress.file_is_done(0)
            return file
        except ChangedError:  # noqa: PERF203 (each try begins with another version)
            file = file._replace(blob=file.source.renewed(file.blob))
        except _OtherMd5Error as error:
            # What the storage has was made up by whoever uploaded the file, if two reads give the same.
            file = file._replace(read=error.md5)
    raise NotWrittenError("each time that it is read, it has changed")


def _fill(draft: Path, file: _File, stop: threading.Event, progress: Progress) -> None:
    with draft.open("a+b") as copy:
        checked, written = hashlib.md5(usedforsecurity=False), 0
        if file.blob.md5:
            copy.seek(0)
            while data := copy.read(1 << 20):
                checked.update(data)
        written = copy.seek(0, 2)
        if written > file.size:
            written = copy.truncate(0)
        progress.bytes_are_done(written)
        for chunk in file.source.chunks(file.blob, written):
            if stop.is_set():
                raise _StoppedError
            copy.write(chunk)
            checked.update(chunk)
            written += len(chunk)
            progress.bytes_are_done(len(chunk))
        if written != file.size:
            raise NotWrittenError(f"received {written:,} of {file.size:,} bytes")
        if file.blob.md5 and checked.hexdigest() not in (file.blob.md5, file.read):
            copy.truncate(0)
            raise _OtherMd5Error(checked.hexdigest())
