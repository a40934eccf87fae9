"""A storage account as the rest of the emulator uses it, and the signatures that it hands out.

Shared access signatures are made here as the service makes them, so a client that uses one proves that a storage which
checks them, Azurite or our own, accepts it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlencode

from azml_dist.emulator.wire import Reply, Request

VERSION = "2019-12-12"
"""The storage version whose strings-to-sign are used here; newer ones only add fields."""


@dataclass
class Account(ABC):
    """One storage account: its name, its key, and what is kept in it."""

    name: str
    key: str
    sas_minutes: float = field(default=60, kw_only=True)
    """How long a signature is valid that says nothing else; below 0, it has expired already."""
    skew: float = field(default=0.0, kw_only=True)
    """How many seconds the service's clock is ahead."""

    kept_by = ""
    """Who keeps the blobs, for people."""

    @property
    def host(self) -> str:
        """The account's host name, as in Azure."""
        return f"{self.name}.blob.core.windows.net"

    def url(self, container: str, blob: str = "", *, sas: str = "") -> str:
        """The address a client uses."""
        path = f"/{container}/{quote(blob)}" if blob else f"/{container}"
        return f"https://{self.host}{path}" + (f"?{sas}" if sas else "")

    def sas(self, container: str, blob: str | None = None, *, permissions: str = "r") -> str:
        """A service SAS for one blob, or for a container."""
        start, expiry = self._window(self.sas_minutes)
        resource = f"/blob/{self.name}/{container}" + (f"/{blob}" if blob else "")
        kind = "b" if blob else "c"
        fields = [permissions, start, expiry, resource, "", "", "", VERSION, kind, "", "", "", "", "", ""]
        return urlencode(
            {"sv": VERSION, "sr": kind, "sp": permissions, "st": start, "se": expiry, "sig": self.sign(fields)}
        )

    def account_sas(self, *, minutes: float | None = None) -> str:
        """A SAS for all of the account, as a datastore's `listSecrets` hands out."""
        start, expiry = self._window(self.sas_minutes if minutes is None else minutes)
        fields = [self.name, "rwdlacu", "b", "sco", start, expiry, "", "", VERSION, ""]
        return urlencode(
            {"sv": VERSION, "ss": "b", "srt": "sco", "sp": "rwdlacu", "st": start, "se": expiry}
            | {"sig": self.sign(fields)}
        )

    def sign(self, fields: list[str]) -> str:
        """The signature of a string-to-sign, by its lines."""
        digest = hmac.new(base64.b64decode(self.key), "\n".join(fields).encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()

    @abstractmethod
    def serve(self, request: Request, *, trusted: bool) -> Reply:
        """Answer a client's request; a `trusted` one carried a bearer token that was checked before."""

    @abstractmethod
    def create_container(self, container: str) -> None:
        """Make a container; it may exist."""

    @abstractmethod
    def put(self, container: str, blob: str, data: bytes) -> None:
        """Write a whole blob."""

    @abstractmethod
    def append(self, container: str, blob: str, data: bytes) -> None:
        """Append to a log blob, which is created if it does not exist."""

    @abstractmethod
    def create_append(self, container: str, blob: str) -> None:
        """An empty blob that can be appended to."""

    @abstractmethod
    def get(self, container: str, blob: str) -> bytes:
        """The content of a blob."""

    @abstractmethod
    def exists(self, container: str, blob: str) -> bool:
        """Whether there is such a blob."""

    @abstractmethod
    def names(self, container: str, prefix: str = "") -> Iterator[str]:
        """Names of the blobs under a prefix, in order."""

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Let go of what is open."""

    def _window(self, minutes: float) -> tuple[str, str]:
        now = datetime.now(timezone.utc) + timedelta(seconds=self.skew)
        stamp = "%Y-%m-%dT%H:%M:%SZ"
        return (now - timedelta(minutes=5)).strftime(stamp), (now + timedelta(minutes=minutes)).strftime(stamp)
