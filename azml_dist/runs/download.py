"""What was downloaded of a run, and what was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from azml_dist.errors import DistError
from azml_dist.runs.target import readable
from azml_dist.words import plural, size_text

_SHOWN = 5
Came = Literal["new", "updated", "here", "kept"]
"""How a file came: it was downloaded; it replaced what an earlier download had; that one was still right; or a file
that is not known to be from the run has its name, and was left alone."""


class File(NamedTuple):
    """A file in the folder."""

    path: str
    size: int
    """Bytes at the source."""
    came: Came = "new"


@dataclass
class Part:
    """The downloaded part of one output, of the artifacts, or of the logs."""

    path: str
    """Its path in the folder, such as `outputs/model`."""
    files: int = 0
    size: int = 0


@dataclass
class Download:
    """What was downloaded of a run, and what was not."""

    folder: Path
    parts: list[Part] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    """Every file that is in the folder now."""
    left_out: list[str] = field(default_factory=list)
    """What cannot be copied, such as a socket, and why: in sentences."""
    missing: list[str] = field(default_factory=list)
    """What the run should have but could not be downloaded: in sentences."""
    is_full: bool = False
    """The disk was full."""

    @property
    def kept(self) -> list[str]:
        """Files that were already in the folder, and were left unchanged."""
        return [file.path for file in self.files if file.came in ("here", "kept")]

    def add_file(self, part: str, file: File) -> None:
        """Add a file, and count it under its part."""
        self.files.append(file)
        counted = self.part(part)
        counted.files += 1
        counted.size += file.size

    def part(self, path: str) -> Part:
        """The part with this path, added if it is new."""
        found = next((part for part in self.parts if part.path == path), None)
        if found is None:
            found = Part(path)
            self.parts.append(found)
        return found

    def add(self, other: Download, prefix: str = "") -> None:
        """Add the download of a trial or step, under its own folder; without one, of something else of this run."""
        under, of = (f"{prefix}/", f"{prefix}: ") if prefix else ("", "")
        self.parts += [Part(f"{under}{part.path}", part.files, part.size) for part in other.parts]
        self.files += [file._replace(path=f"{under}{file.path}") for file in other.files]
        self.left_out += [f"{under}{sentence}" for sentence in other.left_out]
        self.missing += [f"{of}{sentence}" for sentence in other.missing]
        self.is_full |= other.is_full

    def lines(self) -> list[str]:
        """One line for each part, for people."""
        rows = [(part.path, plural(part.files, "file"), size_text(part.size)) for part in self.parts]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
        return [f"  {path:{widths[0]}}  {files:>{widths[1]}}  {size}" for path, files, size in rows]

    def notes(self) -> list[str]:
        """What is worth knowing even if nothing is missing."""
        by = {came: [file.path for file in self.files if file.came == came] for came in ("here", "updated", "kept")}
        here = [f"here already: {plural(len(by['here']), 'file')}"] if by["here"] else []
        updated = [f"replaced, because the run has changed them since: {_some(by['updated'])}"] if by["updated"] else []
        kept = [f"not overwritten, because they already existed: {_some(by['kept'])}"] if by["kept"] else []
        return [*here, *updated, *kept, *_each(self.left_out)]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "folder": str(self.folder.resolve()),
            "parts": [{"path": part.path, "files": part.files, "bytes": part.size} for part in self.parts],
            "files": [{"path": file.path, "bytes": file.size, "came": file.came} for file in self.files],
            "kept": self.kept,
            "left_out": self.left_out,
            "missing": self.missing,
        }


class DownloadFailed(DistError):
    """A download is incomplete. `download` says what was downloaded and what is missing."""

    def __init__(self, name: str, download: Download) -> None:
        self.download = download
        message = f"incomplete download of run {name}: {'; '.join(_each(download.missing))}"
        came = f"the rest is in {download.folder}"
        again = "repeat the command to fetch what is still available (an output that was never written is not)"
        if download.is_full:
            again = "make space, then repeat the command: it continues where it stopped"
        super().__init__(message, hint=f"{came}; {again}")


def _each(sentences: Sequence[str]) -> list[str]:
    left = len(sentences) - _SHOWN
    return [*sentences[:_SHOWN], *([f"and {left:,} more"] if left > 0 else [])]


def _some(paths: Sequence[str]) -> str:
    return ", ".join(_each([readable(path) for path in paths]))
