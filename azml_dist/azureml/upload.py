"""Uploads files to a blob container, many at a time: small ones with one request each, large ones in blocks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import quote

from azml_dist.azureml.arm import retrying, user_agent_policy
from azml_dist.azureml.connections import TIMEOUTS, transport
from azml_dist.azureml.parallel import StopWithin, each
from azml_dist.plan.snapshot import CodeFile

AT_A_TIME = 32
_WHOLE = 4 << 20
"""Files up to this size are read at once."""


class Sized(Protocol):
    """A file of known size."""

    @property
    def size(self) -> int: ...


class Upload(NamedTuple):
    """Local files by their names in the container."""

    url: str
    """The container's address, with its SAS."""
    prefix: str
    files: Sequence[CodeFile]
    what: str
    """What is uploaded, for messages."""
    credential: Any = None
    """Used if the container's address has no SAS."""


class StoppedError(Exception):
    """The upload was stopped."""


def upload(order: Upload, stop: threading.Event) -> None:
    """Upload all files; an error, Ctrl-C or `stop` ends it within a second."""
    stop = StopWithin(stop)
    progress = Progress(order.what, order.files)
    connections = transport(order.url, AT_A_TIME)
    container = container_of(order, connections)
    put_whole = _put_whole(container, connections)

    def put(file: CodeFile) -> None:
        retrying(lambda: send(file), stop=stop)

    def send(file: CodeFile) -> None:
        name = f"{order.prefix}{file.path}"
        with Path(file.source).open("rb") as stream:
            if file.size <= _WHOLE:
                put_whole(name, stream.read())
                progress.file_is_done(file.size)
            else:
                data: Any = _Counted(stream, stop, progress)
                container.upload_blob(name, data, overwrite=True, length=file.size)
                progress.file_is_done(0)

    try:
        for _ in each(put, order.files, at_a_time=AT_A_TIME, stop=stop):
            progress.show()
    finally:
        progress.end()
    if stop.is_set():
        raise StoppedError


class Progress:
    """Files and bytes so far, on one line of a terminal; prints nothing if there is no terminal."""

    def __init__(self, what: str, files: Sequence[Sized], verb: str = "uploading") -> None:
        self._what = f"{verb} {what}"
        self._files, self._bytes = len(files), sum(file.size for file in files)
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
        sys.stderr.write(f"\r{self._what}: {files}, {size}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        if self._terminal and self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()


class _Counted:
    """A file that counts the bytes read from it, and can be stopped."""

    def __init__(self, stream: BinaryIO, stop: threading.Event, progress: Progress) -> None:
        self._stream, self._stop, self._progress = stream, stop, progress
        self._furthest = 0

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise StoppedError
        data = self._stream.read(size)
        end = self._stream.tell()
        if end > self._furthest:  # count a part that is sent again only once
            self._progress.bytes_are_done(end - self._furthest)
            self._furthest = end
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True


def container_of(order: Upload, connections: Any = None) -> Any:
    """The client of the container to upload to."""
    from azure.storage.blob import ContainerClient, LinearRetry

    return ContainerClient.from_container_url(
        order.url,
        credential=order.credential,
        transport=connections,
        # azure-storage-blob's default starts with a pause of 15 s. This one is for the blocks of large files;
        # `retrying` handles what it gives up on, and 429, which it does not retry.
        retry_policy=LinearRetry(backoff=0.4, retry_total=2, random_jitter_range=0),
        max_block_size=_WHOLE,
        max_single_put_size=2 * _WHOLE,
        permit_redirects=False,  # azure-storage-blob would send the login to the target of a redirect
        **TIMEOUTS,
    )


def _put_whole(container: Any, connections: Any) -> Callable[[str, bytes], None]:
    """A function that writes one small file to the container.

    With a SAS, which containers of code always have, that is one request of the REST API (Put Blob).
    azure-storage-blob takes 1.6 times the CPU time for it: for many small files, more time than the network takes.
    """
    from azure.core import PipelineClient
    from azure.core.exceptions import HttpResponseError
    from azure.core.rest import HttpRequest

    place, _, sas = container.url.partition("?")
    if not sas:
        return lambda name, data: container.upload_blob(name, data, overwrite=True, length=len(data))
    client = PipelineClient(place, policies=[user_agent_policy()], transport=connections)
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": container.api_version}

    def put(name: str, data: bytes) -> None:
        url = f"{place}/{quote(name, safe='~/')}?{sas}"
        size = {"Content-Length": str(len(data))}
        request = HttpRequest("PUT", url, headers={**headers, **size}, content=data)
        response = client.send_request(request, **TIMEOUTS)
        if response.status_code != 201:
            raise HttpResponseError(response=response)

    return put
