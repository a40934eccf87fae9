"""Reads parts of files in Azure's storage, through signed addresses or with the caller's login."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.azureml.addresses import is_signed, is_storage
from azml_dist.azureml.connections import session
from azml_dist.azureml.datastores import Blob
from azml_dist.errors import SubmitError

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import AccessToken

STORAGE_SCOPE = "https://storage.azure.com/.default"
AT_A_TIME = 16
"""How many files are read at the same time."""
_CHUNK = 1 << 16
_PIECE = 2 << 20
_REDIRECTS = range(300, 400)
_SAYS = frozenset([200, 206, 416])
"""Statuses that say something about a file: its bytes, or that it has no more."""


class Bytes(NamedTuple):
    """Bytes of a file, or why they are missing."""

    status: int | None
    """The status of the response; None if the connection failed."""
    data: bytes = b""
    size: int | None = None
    """How long the whole file is."""
    made: str | None = None
    """When the file was created."""

    @property
    def says(self) -> bool:
        """Whether the response says something about the file."""
        return self.status in _SAYS

    @property
    def refused(self) -> int | None:
        """The status of a refusal that would be repeated."""
        return self.status if self.status in (401, 403, 404) or self.status in _REDIRECTS else None


class Ranges:
    """Reads parts of files in one storage account, for many threads."""

    def __init__(self, token: Callable[[], AccessToken], cloud: str, at_a_time: int = AT_A_TIME) -> None:
        self._new_token = token
        self._at_a_time = at_a_time
        self._cloud = cloud
        self._token: AccessToken | None = None
        self._lock = threading.Lock()
        self._session: Any = None

    def get(self, path: str, url: str, first: int, count: int) -> Bytes:
        """At most `count` bytes from `first` on; `path` is the name of the file for people."""
        headers = {"Range": f"bytes={first}-{first + count - 1}", "x-ms-version": "2021-08-06"}
        if not is_signed(url):  # a datastore that only accepts identities
            headers["Authorization"] = f"Bearer {self._bearer_for(path, url)}"
        try:
            # A redirect could send the login anywhere.
            with self._connected(url).get(
                url, headers=headers, timeout=(10, 30), allow_redirects=False, stream=True
            ) as response:
                if response.status_code in _SAYS:
                    return _answer(response, first, count)
        except OSError:  # the base of requests' errors
            return Bytes(None)
        if response.status_code == 401:
            self._token = None
        return Bytes(response.status_code)

    def _connected(self, url: str) -> Any:
        with self._lock:
            self._session = self._session or session(url, self._at_a_time)
            return self._session

    def _bearer_for(self, path: str, url: str) -> str:
        if not is_storage(url, self._cloud):
            raise SubmitError(
                f"the service says that {path} is at {url[:200]}, which is not storage of {self._cloud}",
                hint="your login was not sent there; set `AZUREML_CURRENT_CLOUD` for another cloud",
            )
        return self._bearer()

    def _bearer(self) -> str:
        """One token for all files: some credentials start a process for every token."""
        with self._lock:
            if self._token is None or self._token.expires_on < time.time() + 300:
                self._token = self._new_token()
            return str(self._token.token)


class Addressed:
    """Files that have an address each, as run history gives those of logs."""

    def __init__(self, ranges: Ranges, addresses: Mapping[str, str]) -> None:
        self._ranges, self._addresses = ranges, addresses

    def size_of(self, path: str) -> int | str | None:
        """How long a file is now, or why it cannot be read; None for a name without a file."""
        found = self._ranges.get(path, self._addresses[path], 0, 1)
        if found.status == 404:
            return None
        if not found.says:
            return _why_not(found.status)
        return len(found.data) if found.size is None else found.size

    def chunks(self, blob: Blob, begin: int = 0) -> Iterator[bytes]:
        """The contents of a file in chunks, from a position on."""
        while begin < blob.size:
            found = self._ranges.get(blob.path, self._addresses[blob.path], begin, min(_PIECE, blob.size - begin))
            if not found.says:
                raise SubmitError(_why_not(found.status))
            if not found.data:
                return
            begin += len(found.data)
            yield found.data

    def renewed(self, blob: Blob) -> Blob:
        """The same file; such files only grow."""
        return blob


def _why_not(status: int | None) -> str:
    return f"the storage answers {status}" if status else "the connection to the storage fails"


def _answer(response: requests.Response, first: int, count: int) -> Bytes:
    """The useful part of a response, without keeping the rest in memory."""
    status, data = response.status_code, b""
    if status != 416:
        # 200 comes from a server without ranges: what comes before the range is read and dropped.
        skip = first if status == 200 else 0
        for chunk in response.iter_content(_CHUNK):
            data += chunk[skip:]
            skip = max(0, skip - len(chunk))
            if len(data) >= count:
                break
    return Bytes(status, data[:count], _size(response), response.headers.get("x-ms-creation-time"))


def _size(answer: requests.Response) -> int | None:
    """The size of the whole file: `Content-Range: bytes 0-99/1234`, or `bytes */1234` if there is no such range."""
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isascii() and total.isdigit() and len(total) < 20 else None
