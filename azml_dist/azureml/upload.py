"""Files into a blob container, many at a time, through azure-storage-blob."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from azml_dist.azureml.arm import retrying
from azml_dist.azureml.parallel import each
from azml_dist.snapshot import CodeFile

AT_A_TIME = 32
_WHOLE = 4 << 20
"""Files up to this size are read whole."""


class Upload(NamedTuple):
    """What goes where."""

    url: str
    """The container's address, with its SAS."""
    prefix: str
    files: Sequence[CodeFile]
    what: str
    """A word for it, for people."""
    credential: Any = None
    """For a container whose address has no SAS."""


class StoppedError(Exception):
    """The upload was asked to end."""


def upload(order: Upload, stop: threading.Event) -> None:
    """Upload all files; an error, Ctrl-C or `stop` ends it within a second."""
    progress = Progress(order)
    container = container_of(order)

    def put(file: CodeFile) -> None:
        retrying(lambda: send(file), stop=stop)

    def send(file: CodeFile) -> None:
        blob = container.get_blob_client(f"{order.prefix}{file.path}")
        with Path(file.source).open("rb") as stream:
            data = stream.read() if file.size <= _WHOLE else _Counted(stream, stop, progress)
            blob.upload_blob(data, overwrite=True, length=len(data) if isinstance(data, bytes) else file.size)
        progress.file_is_done(file.size if isinstance(data, bytes) else 0)

    try:
        for _ in each(put, order.files, at_a_time=AT_A_TIME, stop=stop):
            progress.show()
    finally:
        progress.end()
    if stop.is_set():
        raise StoppedError


class Progress:
    """Files and bytes so far, on one line of a terminal; nothing where there is none."""

    def __init__(self, order: Upload) -> None:
        self._what = order.what
        self._files, self._bytes = len(order.files), sum(file.size for file in order.files)
        self._done_files = self._done_bytes = 0
        self._lock = threading.Lock()
        self._shown = 0.0
        self._terminal = sys.stderr.isatty()

    def file_is_done(self, size: int) -> None:
        with self._lock:
            self._done_files += 1
            self._done_bytes += size

    def bytes_are_done(self, size: int) -> None:
        with self._lock:
            self._done_bytes += size
        self.show()

    def show(self) -> None:
        """At most ten times a second."""
        now = time.monotonic()
        if not self._terminal or (now - self._shown < 0.1 and self._done_files < self._files):
            return
        self._shown = now
        files = f"{self._done_files:,} of {self._files:,} files"
        size = f"{self._done_bytes / 1e6:,.1f} of {self._bytes / 1e6:,.1f} MB"
        sys.stderr.write(f"\ruploading {self._what}: {files}, {size}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        if self._terminal and self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()


class _Counted:
    """A file that counts what is read of it, and can be stopped."""

    def __init__(self, stream: BinaryIO, stop: threading.Event, progress: Progress) -> None:
        self._stream, self._stop, self._progress = stream, stop, progress
        self._furthest = 0

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise StoppedError
        data = self._stream.read(size)
        end = self._stream.tell()
        if end > self._furthest:  # a part that is sent again counts once
            self._progress.bytes_are_done(end - self._furthest)
            self._furthest = end
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True


def container_of(order: Upload) -> Any:
    """The client of the container that an upload goes to."""
    import requests
    from azure.core.pipeline.transport import RequestsTransport
    from azure.storage.blob import ContainerClient, LinearRetry

    session = requests.Session()
    # What the environment says of proxies and authorities, once: for each file anew, it takes a tenth of the time.
    session.trust_env = False
    session.proxies = requests.utils.get_environ_proxies(order.url)
    authorities = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    # As many connections as threads: urllib3 keeps 10, and would open and close the others for every file.
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=AT_A_TIME))
    return ContainerClient.from_container_url(
        order.url,
        credential=order.credential,
        transport=RequestsTransport(session=session, session_owner=False, connection_verify=authorities),
        # azure-storage-blob's own begins with a pause of 15 s. This one is for the blocks of large files; what it gives
        # up, and 429, which it does not know, is left to `retrying`.
        retry_policy=LinearRetry(backoff=0.4, retry_total=2, random_jitter_range=0),
        max_block_size=_WHOLE,
        max_single_put_size=2 * _WHOLE,
        connection_timeout=10,
        read_timeout=60,
    )
