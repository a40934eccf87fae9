"""Containers and blobs in a folder: contents as files, and a journal of everything else.

The journal `index.jsonl` has a line for each change, so that a killed emulator loses nothing that it answered. An
appended blob has no line for each append: the size of its file counts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

APPEND, BLOCK = "AppendBlob", "BlockBlob"
_counter = itertools.count(time.time_ns())


def new_etag() -> str:
    """An entity tag that nothing else has."""
    return f'"0x{next(_counter):X}"'


@dataclass
class Blob:
    """What is known of a blob beside its content."""

    file: str
    """The name of the file with its content, in the store's folder."""
    size: int = 0
    kind: str = BLOCK
    headers: dict[str, str] = field(default_factory=dict)
    """Content-Type and its kind, as they are answered."""
    metadata: dict[str, str] = field(default_factory=dict)
    blocks: list[tuple[str, int]] = field(default_factory=list)
    """Of a blob that was committed in blocks: their ids and sizes."""
    etag: str = field(default_factory=new_etag)
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)

    def touch(self) -> None:
        """Something of it has changed."""
        self.etag, self.modified = new_etag(), time.time()


@dataclass
class Container:
    """A container, with its blobs by name."""

    metadata: dict[str, str] = field(default_factory=dict)
    etag: str = field(default_factory=new_etag)
    modified: float = field(default_factory=time.time)
    blobs: dict[str, Blob] = field(default_factory=dict)
    staged: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Blocks that were sent and not committed, by blob and id."""


class BlobStore:
    """The blobs of one account. `lock` guards whatever reads and then changes."""

    def __init__(self, folder: Path, *, keeps: bool = False) -> None:
        """`keeps` says whether the folder is to be read again after a restart."""
        self.folder = folder
        self.lock = threading.RLock()
        self.containers: dict[str, Container] = {}
        (folder / "data").mkdir(parents=True, exist_ok=True)
        journal = folder / "index.jsonl"
        if keeps and journal.exists():
            self._replay(journal)
        self._journal = journal.open("w", encoding="utf-8") if keeps else None
        if keeps:
            self._write_whole()

    def close(self) -> None:
        """Close the journal."""
        if self._journal:
            self._journal.close()

    def path(self, file: str) -> Path:
        """Where a content is."""
        return self.folder / "data" / file

    def new_file(self) -> str:
        """A name for a new content."""
        return uuid.uuid4().hex

    def create_container(self, name: str, metadata: dict[str, str] | None = None) -> bool:
        """Make a container; False if it exists."""
        with self.lock:
            if name in self.containers:
                return False
            self.containers[name] = Container(metadata or {})
            self.note(name)
            return True

    def delete_container(self, name: str) -> None:
        """Forget a container and all that is in it."""
        with self.lock:
            for blob in self.containers.pop(name).blobs.values():
                self.path(blob.file).unlink(missing_ok=True)
            self.note(name)

    def set(self, container: str, name: str, blob: Blob) -> Blob:
        """Put a blob in place of what has its name; whoever is reading the old content reads on."""
        with self.lock:
            blobs = self.containers[container].blobs
            before = blobs.get(name)  # a new time of creation, as Azurite has it
            if before and before.file != blob.file:
                self.path(before.file).unlink(missing_ok=True)
            blobs[name] = blob
            self.note(container, name)
            return blob

    def write(self, container: str, name: str, content: bytes | Path, **fields: object) -> Blob:
        """A blob with this content; a file is moved here."""
        file = self.new_file()
        if isinstance(content, Path):
            shutil.move(content, self.path(file))
        else:
            self.path(file).write_bytes(content)
        blob = Blob(file, self.path(file).stat().st_size, **fields)  # type: ignore[arg-type] # fields of Blob
        return self.set(container, name, blob)

    def append(self, container: str, name: str, content: bytes | Path) -> Blob:
        """Add to the end of a blob."""
        with self.lock:
            blob = self.containers[container].blobs[name]
            with self.path(blob.file).open("ab") as end:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, end, 1 << 20)
                else:
                    end.write(content)
                blob.size = end.tell()
            blob.touch()
            return blob

    def delete(self, container: str, name: str) -> None:
        """Forget a blob."""
        with self.lock:
            self.path(self.containers[container].blobs.pop(name).file).unlink(missing_ok=True)
            self.note(container, name)

    def names(self, container: str, prefix: str = "") -> list[str]:
        """Names of the blobs under a prefix, in order."""
        with self.lock:
            found = self.containers.get(container)
            return sorted(name for name in found.blobs if name.startswith(prefix)) if found else []

    def note(self, container: str, name: str | None = None) -> None:
        """Write down that a container or a blob is what it is now."""
        if self._journal:
            self._journal.write(json.dumps(self._line(container, name)) + "\n")
            self._journal.flush()

    def _line(self, container: str, name: str | None) -> list[object]:
        here = self.containers.get(container)
        if name is None:
            return [container, None, here and {"metadata": here.metadata, "etag": here.etag, "modified": here.modified}]
        blob = here.blobs.get(name) if here else None
        return [container, name, blob and asdict(blob)]

    def _write_whole(self) -> None:
        for container, here in self.containers.items():
            self.note(container)
            for name in here.blobs:
                self.note(container, name)
        kept = {blob.file for here in self.containers.values() for blob in here.blobs.values()}
        for path in (self.folder / "data").iterdir():
            if path.name not in kept:
                path.unlink()

    def _replay(self, journal: Path) -> None:
        for container, name, value in _lines(journal):
            if name is None and value is None:
                self.containers.pop(container, None)
            elif name is None:
                here = self.containers.setdefault(container, Container())
                here.metadata, here.etag, here.modified = value["metadata"], value["etag"], value["modified"]
            elif value is None:
                self.containers[container].blobs.pop(name, None)
            else:
                blocks = [(block, size) for block, size in value["blocks"]]
                self.containers[container].blobs[name] = Blob(**{**value, "blocks": blocks})
        for here in self.containers.values():
            here.blobs = {name: blob for name, blob in here.blobs.items() if self.path(blob.file).exists()}
            for blob in here.blobs.values():
                blob.size = self.path(blob.file).stat().st_size


def _lines(journal: Path) -> Iterator[tuple[str, str | None, Any]]:
    """What was written down; the last line may have been cut off."""
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            with contextlib.suppress(ValueError):
                container, name, value = json.loads(line)
                yield container, name, value
