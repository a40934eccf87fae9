"""A small Blob Storage client with its own signatures, for the emulator's own use of Azurite.

Shared access signatures are made here as the service makes them, so a client that uses one proves that Azurite, which
is not ours, accepts it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from .wire import Reply

_VERSION = "2019-12-12"
"""The storage version whose strings-to-sign are used here; newer ones only add fields."""


class BlobError(Exception):
    """Azurite said no to the emulator itself."""


@dataclass
class Account:
    """One storage account in Azurite."""

    name: str
    key: str
    port: int
    """Where Azurite listens on 127.0.0.1."""

    @property
    def host(self) -> str:
        """The account's host name, as in Azure."""
        return f"{self.name}.blob.core.windows.net"

    def url(self, container: str, blob: str = "", *, sas: str = "") -> str:
        """The address a client uses."""
        path = f"/{container}/{quote(blob)}" if blob else f"/{container}"
        return f"https://{self.host}{path}" + (f"?{sas}" if sas else "")

    def sas(self, container: str, blob: str | None = None, *, permissions: str = "r", minutes: float = 60) -> str:
        """A service SAS for one blob, or for a container."""
        start, expiry = _window(minutes)
        resource = f"/blob/{self.name}/{container}" + (f"/{blob}" if blob else "")
        kind = "b" if blob else "c"
        fields = [permissions, start, expiry, resource, "", "", "", _VERSION, kind, "", "", "", "", "", ""]
        return urlencode(
            {"sv": _VERSION, "sr": kind, "sp": permissions, "st": start, "se": expiry, "sig": self._sign(fields)}
        )

    def account_sas(self, *, minutes: float = 60) -> str:
        """A SAS for all of the account, as a datastore's `listSecrets` hands out."""
        start, expiry = _window(minutes)
        fields = [self.name, "rwdlacu", "b", "sco", start, expiry, "", "", _VERSION, ""]
        return urlencode(
            {"sv": _VERSION, "ss": "b", "srt": "sco", "sp": "rwdlacu", "st": start, "se": expiry}
            | {"sig": self._sign(fields)}
        )

    def _sign(self, fields: list[str]) -> str:
        digest = hmac.new(base64.b64decode(self.key), "\n".join(fields).encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()

    def forward(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send a client's request to Azurite unchanged, Host header and all, and bring back its answer."""
        status, answered, payload = self._exchange(method, target, dict(headers), body)
        ours = {"connection", "keep-alive", "transfer-encoding", "date", "server"}
        if method != "HEAD":
            ours.add("content-length")
        return Reply(status, payload, {name: value for name, value in answered if name.lower() not in ours})

    def create_container(self, container: str) -> None:
        """Make a container; it may exist."""
        self._ask("PUT", f"/{container}", {"restype": "container"}, also=(409,))

    def put(self, container: str, blob: str, data: bytes) -> None:
        """Write a whole blob."""
        self._ask("PUT", f"/{container}/{quote(blob)}", {}, {"x-ms-blob-type": "BlockBlob"}, data)

    def append(self, container: str, blob: str, data: bytes) -> None:
        """Add to a log blob, which is made where there is none."""
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
        target = f"{path}?" + "&".join(filter(None, (urlencode(query), self.account_sas())))
        sent = {"Host": self.host, "Content-Length": str(len(body)), "x-ms-version": _VERSION, **(headers or {})}
        status, _, payload = self._exchange(method, target, sent, body)
        if status >= 300 and status not in also:
            raise BlobError(f"{method} {path}: {status} {payload.decode(errors='replace')}")
        return status, payload

    def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """One exchange, on a connection of its own: threads come and go here, and Azurite is near."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()


def _window(minutes: float) -> tuple[str, str]:
    now = datetime.now(timezone.utc)
    stamp = "%Y-%m-%dT%H:%M:%SZ"
    return (now - timedelta(minutes=5)).strftime(stamp), (now + timedelta(minutes=minutes)).strftime(stamp)
