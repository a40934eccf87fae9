"""A storage account in Azurite: a small Blob Storage client with its own signatures, and the way for requests."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from azml_dist.emulator.account import VERSION, Account
from azml_dist.emulator.wire import Reply, Request, invalid_range


class BlobError(Exception):
    """Azurite said no to the emulator itself."""


@dataclass
class AzuriteAccount(Account):
    """One storage account in Azurite."""

    port: int
    """Where Azurite listens on 127.0.0.1."""
    kept_by = "Azurite"

    def serve(self, request: Request, *, trusted: bool) -> Reply:
        """Send a client's request to Azurite unchanged, Host header and all, and bring back its answer.

        Azurite takes bearer tokens over TLS only: a trusted request gets a signature instead.
        """
        headers, target = dict(request.headers.items()), request.target
        if trusted:
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            target += ("&" if "?" in target else "?") + self.account_sas(minutes=60)
        with request.opened() as body:
            status, answered, payload = self._exchange(request.method, target, headers, body)
        ours = {"connection", "keep-alive", "transfer-encoding", "date", "server"}
        if request.method != "HEAD":
            ours.add("content-length")
        reply = Reply(status, payload, {name: value for name, value in answered if name.lower() not in ours})
        return _without_empty_range(reply)

    def create_container(self, container: str) -> None:
        """Make a container; it may exist."""
        self._ask("PUT", f"/{container}", {"restype": "container"}, also=(409,))

    def put(self, container: str, blob: str, data: bytes) -> None:
        """Write a whole blob."""
        self._ask("PUT", f"/{container}/{quote(blob)}", {}, {"x-ms-blob-type": "BlockBlob"}, data)

    def append(self, container: str, blob: str, data: bytes) -> None:
        """Append to a log blob, which is created if it does not exist."""
        path = f"/{container}/{quote(blob)}"
        if data and self._ask("PUT", path, {"comp": "appendblock"}, {}, data, also=(404,))[0] == 404:
            self.create_append(container, blob)
            self._ask("PUT", path, {"comp": "appendblock"}, {}, data)

    def create_append(self, container: str, blob: str) -> None:
        """An empty blob that can be appended to."""
        self._ask("PUT", f"/{container}/{quote(blob)}", {}, {"x-ms-blob-type": "AppendBlob"})

    def get(self, container: str, blob: str) -> bytes:
        """The content of a blob."""
        return self._ask("GET", f"/{container}/{quote(blob)}", {})[1]

    def exists(self, container: str, blob: str) -> bool:
        """Whether there is such a blob."""
        return self._ask("HEAD", f"/{container}/{quote(blob)}", {}, also=(404,))[0] == 200

    def names(self, container: str, prefix: str = "") -> Iterator[str]:
        """Names of the blobs under a prefix."""
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "prefix": prefix, "marker": marker}
            status, payload = self._ask("GET", f"/{container}", query, also=(404,))
            if status == 404:
                return
            page = ElementTree.fromstring(payload)
            yield from (str(name.text) for name in page.iterfind("./Blobs/Blob/Name"))
            marker = page.findtext("NextMarker") or ""
            if not marker:
                return

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        also: tuple[int, ...] = (),
    ) -> tuple[int, bytes]:
        """One signed request of the emulator's own; `also` lists statuses that are no error."""
        target = f"{path}?" + "&".join(filter(None, (urlencode(query), self.account_sas(minutes=60))))
        sent = {"Host": self.host, "Content-Length": str(len(body)), "x-ms-version": VERSION, **(headers or {})}
        status, _, payload = self._exchange(method, target, sent, body)
        if status >= 300 and status not in also:
            raise BlobError(f"{method} {path}: {status} {payload.decode(errors='replace')}")
        return status, payload

    def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes | BinaryIO
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """One exchange on its own connection: threads come and go, and Azurite is on this machine."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()


def _without_empty_range(reply: Reply) -> Reply:
    """Azure has no empty ranges; Azurite 3.35 answers 206 for one that begins where the blob ends."""
    if reply.status != 206 or reply.body:
        return reply
    size = reply.headers.get("content-range", "").rpartition("/")[2]
    return invalid_range(size).storage_reply()
