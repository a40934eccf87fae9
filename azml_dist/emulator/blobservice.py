"""Blob Storage as azure-storage-blob uses it, over the blobs in a folder. Nothing is kept in memory but names.

From the REST reference of Blob Storage. Operations that are not here answer 501 with their name.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from azml_dist.emulator.account import Account
from azml_dist.emulator.bloblists import http_date, listed_blobs, listed_blocks, listed_containers
from azml_dist.emulator.blobstore import APPEND, BLOCK, Blob, BlobStore, Container
from azml_dist.emulator.signatures import check
from azml_dist.emulator.wire import Part, Refusal, Reply, Request, invalid_range

_KEPT = ("content-type", "content-encoding", "content-language", "content-md5", "cache-control", "content-disposition")
_CONTAINER = re.compile(r"\$?[a-z0-9](-?[a-z0-9]){1,62}")
_BLOCK_IN_LIST = re.compile(r"<(Committed|Uncommitted|Latest)>([^<]+)</")

_NO_COMP = "Value for one of the query parameters specified in the request URI is invalid."
"""What the storage answers where an account is asked for nothing in particular: `comp` is missing."""


class BlobService:
    """Answers requests to one account."""

    def __init__(self, account: Account, store: BlobStore) -> None:
        self._account, self._store = account, store
        self._operations: dict[str, tuple[str, Callable[[Request, str, str], Reply]]] = {
            "GET service list": ("l", self._list_containers),
            "GET service properties": ("", self._account_properties),
            "HEAD service properties": ("", self._account_properties),
            "PUT container": ("cw", self._create_container),
            "GET container": ("r", self._container_properties),
            "HEAD container": ("r", self._container_properties),
            "GET container metadata": ("r", self._container_properties),
            "PUT container metadata": ("w", self._set_container_metadata),
            "DELETE container": ("d", self._delete_container),
            "GET container list": ("l", self._list_blobs),
            "PUT blob": ("cw", self._put),
            "PUT blob block": ("cw", self._put_block),
            "PUT blob blocklist": ("cw", self._put_block_list),
            "GET blob blocklist": ("r", self._block_list),
            "PUT blob appendblock": ("aw", self._append),
            "PUT blob metadata": ("w", self._set_metadata),
            "GET blob metadata": ("r", self._head),
            "HEAD blob metadata": ("r", self._head),
            "PUT blob properties": ("w", self._set_properties),
            "GET blob": ("r", self._get),
            "HEAD blob": ("r", self._head),
            "DELETE blob": ("d", self._delete),
        }

    @property
    def operations(self) -> list[str]:
        """The names of all that it plays."""
        return list(self._operations)

    def answer(self, request: Request, *, trusted: bool) -> Reply:
        """Answer one request; a `trusted` one has shown that it may do everything."""
        container, _, blob = request.path[1:].partition("/")
        name, on = operation(request)
        try:
            if name == "GET service":
                raise Refusal(400, "InvalidQueryParameterValue", _NO_COMP)
            if name not in self._operations:
                raise Refusal(501, "NotEmulated", f"The emulator does not play this operation of the storage: {name}")
            needs, function = self._operations[name]
            if not trusted:
                check(self._account, request, needs, on=on, skew=self._account.skew)
            with self._store.lock:
                reply = function(request, container, blob)
        except Refusal as refusal:
            reply = refusal.storage_reply()
        except ValueError as error:
            reply = Refusal(400, "InvalidInput", f"One of the request inputs is not valid: {error}").storage_reply()
        reply.headers.setdefault("x-ms-version", request.headers.get("x-ms-version") or "2019-12-12")
        if client := request.headers.get("x-ms-client-request-id"):
            reply.headers["x-ms-client-request-id"] = client
        return reply

    # Containers

    def _list_containers(self, request: Request, container: str, blob: str) -> Reply:
        return _xml(listed_containers(self._account, self._store, request.query))

    def _account_properties(self, request: Request, container: str, blob: str) -> Reply:
        if request.query.get("restype") == "account":
            headers = {
                "x-ms-sku-name": "Standard_LRS",
                "x-ms-account-kind": "StorageV2",
                "x-ms-is-hns-enabled": "false",
            }
            return Reply(200, headers=headers)
        return _xml("<StorageServiceProperties></StorageServiceProperties>")

    def _create_container(self, request: Request, container: str, blob: str) -> Reply:
        if not 3 <= len(container) <= 63 or not _CONTAINER.fullmatch(container):
            raise Refusal(400, "InvalidResourceName", "The specified resource name contains invalid characters.")
        if not self._store.create_container(container, _metadata(request)):
            raise Refusal(409, "ContainerAlreadyExists", "The specified container already exists.")
        return Reply(201, headers=_tags(self._store.containers[container]))

    def _container(self, name: str) -> Container:
        if name not in self._store.containers:
            raise Refusal(404, "ContainerNotFound", "The specified container does not exist.")
        return self._store.containers[name]

    def _container_properties(self, request: Request, container: str, blob: str) -> Reply:
        here = self._container(container)
        state = {"x-ms-lease-status": "unlocked", "x-ms-lease-state": "available"}
        return Reply(200, headers={**_tags(here), **state, **_told(here.metadata)})

    def _set_container_metadata(self, request: Request, container: str, blob: str) -> Reply:
        here = self._container(container)
        here.metadata = _metadata(request)
        self._store.note(container)
        return Reply(200, headers=_tags(here))

    def _delete_container(self, request: Request, container: str, blob: str) -> Reply:
        self._container(container)
        self._store.delete_container(container)
        return Reply(202)

    def _list_blobs(self, request: Request, container: str, blob: str) -> Reply:
        self._container(container)
        return _xml(listed_blobs(self._account, self._store, container, request.query))

    # Writing

    def _put(self, request: Request, container: str, blob: str) -> Reply:
        self._writable(request, container, blob)
        if "x-ms-copy-source" in request.headers:
            return self._copy(request, container, blob)
        kind = request.headers.get("x-ms-blob-type", "")
        if kind not in (BLOCK, APPEND):
            raise Refusal(501, "NotEmulated", f"The emulator does not play blobs of type {kind or '(none)'}.")
        digest = _checked_digest(request)
        headers = _content_headers(request)
        if digest and kind == BLOCK:
            headers.setdefault("Content-MD5", digest)
        made = self._store.write(
            container, blob, request.content, kind=kind, headers=headers, metadata=_metadata(request)
        )
        sums = {"Content-MD5": digest} if digest else {}
        return Reply(201, headers={**_tags(made), **sums, "x-ms-request-server-encrypted": "true"})

    def _put_block(self, request: Request, container: str, blob: str) -> Reply:
        self._container(container)
        block = request.query.get("blockid", "")
        staged = self._container(container).staged.setdefault(blob, {})
        path = self._store.path(self._store.new_file())
        if "x-ms-copy-source" in request.headers:
            source = self._source(request)
            shutil.copyfile(self._store.path(source.file), path)
        elif request.upload:
            _checked_digest(request)
            shutil.move(request.upload, path)
        else:
            _checked_digest(request)
            path.write_bytes(request.body)
        if block in staged:
            staged[block].unlink(missing_ok=True)
        staged[block] = path
        return Reply(201, headers={"x-ms-request-server-encrypted": "true"})

    def _put_block_list(self, request: Request, container: str, blob: str) -> Reply:
        self._writable(request, container, blob)
        here = self._container(container)
        staged, before = here.staged.get(blob, {}), here.blobs.get(blob)
        wanted = _BLOCK_IN_LIST.findall(request.body.decode(errors="replace"))
        file = self._store.new_file()
        target = self._store.path(file)
        if len(wanted) == 1 and wanted[0][1] in staged and wanted[0][0] != "Committed":
            blocks = [(wanted[0][1], staged[wanted[0][1]].stat().st_size)]
            staged.pop(wanted[0][1]).rename(target)
        else:
            blocks = self._joined(wanted, staged, before, target)
        for path in here.staged.pop(blob, {}).values():
            path.unlink(missing_ok=True)
        made = Blob(
            file,
            target.stat().st_size,
            headers=_content_headers(request, own=False),
            metadata=_metadata(request),
            blocks=blocks,
        )
        return Reply(201, headers=_tags(self._store.set(container, blob, made)))

    def _joined(
        self, wanted: list[tuple[str, str]], staged: Mapping[str, Path], before: Blob | None, target: Path
    ) -> list[tuple[str, int]]:
        """The blocks of a list, one after another in a file."""
        committed: dict[str, tuple[int, int]] = {}
        start = 0
        for block, size in before.blocks if before else []:
            committed[block] = (start, size)
            start += size
        blocks: list[tuple[str, int]] = []
        with target.open("wb") as whole:
            for where, block in wanted:
                if block in staged and where != "Committed":
                    with staged[block].open("rb") as piece:
                        shutil.copyfileobj(piece, whole, 1 << 20)
                    blocks.append((block, staged[block].stat().st_size))
                elif before and block in committed and where != "Uncommitted":
                    start, size = committed[block]
                    with self._store.path(before.file).open("rb") as piece:
                        piece.seek(start)
                        whole.write(piece.read(size))
                    blocks.append((block, size))
                else:
                    target.unlink()
                    raise Refusal(400, "InvalidBlockList", "The specified block list is invalid.")
        return blocks

    def _append(self, request: Request, container: str, blob: str) -> Reply:
        found = self._blob(container, blob)
        if found.kind != APPEND:
            raise Refusal(409, "InvalidBlobType", "The blob type is invalid for this operation.")
        at = request.headers.get("x-ms-blob-condition-appendpos")
        if at is not None and int(at) != found.size:
            raise Refusal(412, "AppendPositionConditionNotMet", "The append position condition specified was not met.")
        offset = found.size
        self._store.append(container, blob, request.content)
        return Reply(201, headers={**_tags(found), "x-ms-blob-append-offset": str(offset)})

    def _copy(self, request: Request, container: str, blob: str) -> Reply:
        source = self._source(request)
        path = self._store.path(self._store.new_file())
        shutil.copyfile(self._store.path(source.file), path)
        made = self._store.write(
            container,
            blob,
            path,
            kind=source.kind,
            headers=dict(source.headers),
            metadata=_metadata(request) or dict(source.metadata),
            blocks=list(source.blocks),
        )
        copied = {"x-ms-copy-id": str(uuid4()), "x-ms-copy-status": "success"}
        return Reply(201 if "x-ms-blob-type" in request.headers else 202, headers={**_tags(made), **copied})

    def _source(self, request: Request) -> Blob:
        """What is to be copied: a blob of this account, as no request leaves the machine."""
        url = urlsplit(request.headers["x-ms-copy-source"] or "")
        container, _, blob = unquote(url.path)[1:].partition("/")
        if url.hostname != self._account.host:
            raise Refusal(404, "CannotVerifyCopySource", f"The emulator copies only within {self._account.host}.")
        return self._blob(container, blob)

    def _set_metadata(self, request: Request, container: str, blob: str) -> Reply:
        found = self._writable(request, container, blob) or self._blob(container, blob)
        found.metadata = _metadata(request)
        return self._changed(container, blob, found)

    def _set_properties(self, request: Request, container: str, blob: str) -> Reply:
        found = self._writable(request, container, blob) or self._blob(container, blob)
        found.headers = _content_headers(request, own=False)
        return self._changed(container, blob, found)

    def _changed(self, container: str, blob: str, found: Blob) -> Reply:
        found.touch()
        self._store.note(container, blob)
        return Reply(200, headers=_tags(found))

    def _delete(self, request: Request, container: str, blob: str) -> Reply:
        if not self._writable(request, container, blob):
            self._blob(container, blob)
        self._store.delete(container, blob)
        return Reply(202)

    # Reading

    def _blob(self, container: str, blob: str) -> Blob:
        found = self._container(container).blobs.get(blob)
        if found is None:
            raise Refusal(404, "BlobNotFound", "The specified blob does not exist.")
        return found

    def _head(self, request: Request, container: str, blob: str) -> Reply:
        found = self._readable(request, container, blob)
        return Reply(200, headers={**_described(found), "Content-Length": str(found.size)})

    def _get(self, request: Request, container: str, blob: str) -> Reply:
        found = self._readable(request, container, blob)
        path, headers = self._store.path(found.file), _described(found)
        asked = request.headers.get("x-ms-range") or request.headers.get("Range")
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        if span is None:
            return Reply(200, self._content(path, 0, found.size), headers)
        start, end = int(span[1]), min(int(span[2] or found.size), found.size - 1)
        if start >= found.size or end < start:
            raise invalid_range(found.size)
        content = self._content(path, start, end - start + 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{found.size}"
        if md5 := headers.pop("Content-MD5", None):
            headers["x-ms-blob-content-md5"] = md5
        if request.headers.get("x-ms-range-get-content-md5") == "true" and isinstance(content, bytes):
            headers["Content-MD5"] = _md5(content)
        return Reply(206, content, headers)

    def _content(self, path: Path, start: int, length: int) -> bytes | Part:
        """Read while nobody can change it, unless it is large."""
        if length > 4 << 20:
            return Part(path.open("rb"), start, length)
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def _block_list(self, request: Request, container: str, blob: str) -> Reply:
        here = self._container(container)
        staged = {block: path.stat().st_size for block, path in here.staged.get(blob, {}).items()}
        if not staged:
            self._blob(container, blob)
        found = here.blobs.get(blob)
        return _xml(
            listed_blocks(found.blocks if found else [], staged, request.query.get("blocklisttype", "committed"))
        )

    # Conditions

    def _readable(self, request: Request, container: str, blob: str) -> Blob:
        found = self._blob(container, blob)
        wanted, unwanted = request.headers.get("If-Match"), request.headers.get("If-None-Match")
        if wanted not in (None, "*", found.etag):
            raise _condition_not_met()
        if unwanted is not None and unwanted in ("*", found.etag):
            raise Refusal(304, "ConditionNotMet", "")
        return found

    def _writable(self, request: Request, container: str, blob: str) -> Blob | None:
        """What is there now, if the conditions of the request let it be changed."""
        found = self._container(container).blobs.get(blob)
        wanted, unwanted = request.headers.get("If-Match"), request.headers.get("If-None-Match")
        if found and unwanted == "*":
            raise Refusal(409, "BlobAlreadyExists", "The specified blob already exists.")
        if found and unwanted == found.etag:
            raise _condition_not_met()
        if wanted is not None and (found is None or wanted not in ("*", found.etag)):
            raise _condition_not_met()
        return found


def operation(request: Request) -> tuple[str, str]:
    """The name of what a request asks of the storage, and on what: `b`lob, `c`ontainer or the `s`ervice."""
    container, _, blob = request.path[1:].partition("/")
    query = request.query
    if blob or (container and "restype" not in query):
        noun, on = "blob", "b"
    elif container:
        noun, on = "container", "c"
    else:
        noun, on = "service", "s"
    return " ".join(filter(None, (request.method, noun, query.get("comp")))), on


def _condition_not_met() -> Refusal:
    return Refusal(412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")


def _tags(thing: Blob | Container) -> dict[str, str]:
    return {"ETag": thing.etag, "Last-Modified": http_date(thing.modified)}


def _described(blob: Blob) -> dict[str, str]:
    return {
        **_tags(blob),
        "Content-Type": "application/octet-stream",
        **blob.headers,
        **_told(blob.metadata),
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": blob.kind,
        "x-ms-creation-time": http_date(blob.created),
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-server-encrypted": "true",
        **({"x-ms-access-tier": "Hot", "x-ms-access-tier-inferred": "true"} if blob.kind == BLOCK else {}),
        **({"x-ms-blob-committed-block-count": "1"} if blob.kind == APPEND else {}),
    }


def _metadata(request: Request) -> dict[str, str]:
    prefix = "x-ms-meta-"
    return {name[len(prefix) :]: value for name, value in request.headers.items() if name.lower().startswith(prefix)}


def _told(metadata: Mapping[str, str]) -> dict[str, str]:
    return {f"x-ms-meta-{name}": value for name, value in metadata.items()}


def _content_headers(request: Request, *, own: bool = True) -> dict[str, str]:
    """What the blob is to be answered with: `x-ms-blob-content-type` and its kind, or the request's own."""
    found = {}
    for name in _KEPT:
        value = request.headers.get(f"x-ms-blob-{name}")
        if value is None and own and name != "content-md5":
            value = request.headers.get(name)
        if value:
            found["-".join("MD5" if part == "md5" else part.capitalize() for part in name.split("-"))] = value
    return found


def _checked_digest(request: Request) -> str | None:
    """The MD5 of a body in memory, or one that was sent along; 400 if those differ."""
    sent = request.headers.get("Content-MD5")
    if request.upload and not sent:
        return None
    digest = hashlib.md5(usedforsecurity=False)
    with request.opened() as body:
        while piece := body.read(1 << 20):
            digest.update(piece)
    found = base64.b64encode(digest.digest()).decode()
    if sent not in (None, found):
        raise Refusal(400, "Md5Mismatch", "The MD5 value specified in the request did not match the calculated value.")
    return found


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _xml(text: str) -> Reply:
    body = f'<?xml version="1.0" encoding="utf-8"?>{text}'
    return Reply(200, body.encode(), {"Content-Type": "application/xml"})
