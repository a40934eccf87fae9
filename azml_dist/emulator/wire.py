"""What travels: a recorded request, a reply, and the refusals Azure words its own way."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

Json = dict[str, Any]
Headers: TypeAlias = "Message[str, str]"
"""Headers of a request; looked up without regard to case."""


@dataclass
class Request:
    """One request as it arrived, and what became of it. `emulator.requests` holds them in order of arrival."""

    index: int
    method: str
    host: str
    target: str
    """Path and query exactly as sent."""
    headers: Headers
    body: bytes = field(repr=False)
    route: str | None = None
    """The route that matched, such as `jobs.put`; None where the emulator knows no such route."""
    fault: str | None = None
    """The fault that was injected here, in words."""
    upload: Path | None = field(default=None, repr=False)
    """The body of a large upload, in a file that is gone after the answer; `body` is empty then."""
    status: int | None = None
    """The status that was answered; None where the connection was reset."""
    bytes_in: int = 0
    bytes_out: int = 0

    def __post_init__(self) -> None:
        self.bytes_in = self.upload.stat().st_size if self.upload else len(self.body)

    def opened(self) -> BinaryIO:
        """The body, to be read piece by piece."""
        return self.upload.open("rb") if self.upload else io.BytesIO(self.body)

    @property
    def content(self) -> bytes | Path:
        """The body, or the file that holds it."""
        return self.upload or self.body

    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """The query parameters; of a repeated one the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def json(self) -> Json:
        """The body as a JSON object."""
        try:
            parsed = json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refusal(400, "InvalidRequestContent", f"The request content was invalid: {error}") from error
        if not isinstance(parsed, dict):
            raise Refusal(400, "InvalidRequestContent", "The request content was invalid: not a JSON object")
        return parsed

    def __str__(self) -> str:
        answer = self.fault or self.status
        return f"#{self.index} {self.method} {self.host}{self.path} [{self.route or 'no such route'}] -> {answer}"


@dataclass(frozen=True)
class Part:
    """A part of an open file, sent from there."""

    file: BinaryIO
    start: int
    length: int


@dataclass
class Reply:
    """An answer: a JSON value, bytes that go out as they are, or a part of a file."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How many bytes the body has."""
        return self.body.length if isinstance(self.body, Part) else len(self.encoded())

    def encoded(self) -> bytes:
        """The body as it is sent; sets the content type if there is none."""
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        self.headers.setdefault("Content-Type", "application/json; charset=utf-8")
        return json.dumps(self.body).encode()


class Refusal(Exception):
    """The service says no. Raised anywhere below a route; becomes an error body in Azure's shape."""

    def __init__(
        self, status: int, code: str, message: str, *, inner: Json | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.inner, self.headers = status, code, message, inner, headers or {}

    def reply(self) -> Reply:
        """The error body as Azure Resource Manager and Azure ML send it."""
        error: Json = {"code": self.code, "message": self.message}
        if self.inner:
            error["innerError"] = self.inner
            error["additionalInfo"] = [{"type": "ComponentName", "info": {"value": "managementfrontend"}}]
        return Reply(self.status, {"error": error}, self.headers)

    def storage_reply(self) -> Reply:
        """The same refusal as Blob Storage words it."""
        error = f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        body = f'<?xml version="1.0" encoding="utf-8"?>{error}'
        headers = {"Content-Type": "application/xml", "x-ms-error-code": self.code, **self.headers}
        return Reply(self.status, body.encode(), headers)


def user_error(message: str, *inner: str, status: int = 400) -> Refusal:
    """Azure ML's own refusal: code `UserError`, the reason in nested inner errors."""
    nested: Json | None = None
    for code in reversed(inner):
        nested = {"code": code, "innerError": nested}
    return Refusal(status, "UserError", message, inner=nested or {"code": "BadArgument", "innerError": None})


def not_found(message: str) -> Refusal:
    """Azure ML's 404."""
    return user_error(message, "NotFound", status=404)


def new_request_id() -> str:
    """The id that Azure sends with each answer, for its support."""
    return str(uuid.uuid4())


def invalid_range(size: int | str) -> Refusal:
    """Storage's answer to a range that begins where the blob ends, or later."""
    message = "The range specified is invalid for the current size of the resource."
    return Refusal(416, "InvalidRange", message, headers={"Content-Range": f"bytes */{size}"})
