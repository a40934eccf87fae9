"""A storage account whose blobs are files of ours: no other program takes part."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from azml_dist.emulator.account import Account
from azml_dist.emulator.blobservice import BlobService
from azml_dist.emulator.blobstore import APPEND, BlobStore
from azml_dist.emulator.wire import Reply, Request


@dataclass
class OwnAccount(Account):
    """One storage account in a folder; without a folder, in one that is gone at the end."""

    folder: Path | None = None
    kept_by = "its own blob service"
    store: BlobStore = field(init=False, repr=False)
    service: BlobService = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._temporary = None if self.folder else tempfile.TemporaryDirectory(prefix="emulated-blobs-")
        self.store = BlobStore(
            self.folder or Path(self._temporary.name if self._temporary else ""), keeps=bool(self.folder)
        )
        self.service = BlobService(self, self.store)

    def close(self) -> None:
        """Close the journal, or remove everything."""
        self.store.close()
        if self._temporary:
            self._temporary.cleanup()

    def serve(self, request: Request, *, trusted: bool) -> Reply:
        """Answer a client's request."""
        return self.service.answer(request, trusted=trusted)

    def create_container(self, container: str) -> None:
        """Make a container; it may exist."""
        self.store.create_container(container)

    def put(self, container: str, blob: str, data: bytes) -> None:
        """Write a whole blob."""
        self.store.write(container, blob, data)

    def append(self, container: str, blob: str, data: bytes) -> None:
        """Append to a log blob, which is created if it does not exist."""
        if not data:
            return
        with self.store.lock:
            if not self.exists(container, blob):
                self.create_append(container, blob)
            self.store.append(container, blob, data)

    def create_append(self, container: str, blob: str) -> None:
        """An empty blob that can be appended to."""
        self.store.write(container, blob, b"", kind=APPEND)

    def get(self, container: str, blob: str) -> bytes:
        """The content of a blob."""
        with self.store.lock:
            return self.store.path(self.store.containers[container].blobs[blob].file).read_bytes()

    def exists(self, container: str, blob: str) -> bool:
        """Whether there is such a blob."""
        return container in self.store.containers and blob in self.store.containers[container].blobs

    def names(self, container: str, prefix: str = "") -> Iterator[str]:
        """Names of the blobs under a prefix, in order."""
        yield from self.store.names(container, prefix)
