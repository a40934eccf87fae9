"""Reads the blobs of a datastore, with the datastore's own secret if the login may have it, else with the login."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from azml_dist.azureml.addresses import in_a_container, in_a_datastore, is_signed, is_storage
from azml_dist.azureml.answers import Answer, BrokenAnswerError
from azml_dist.azureml.connections import TIMEOUTS, transport
from azml_dist.errors import SubmitError

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace

PIECE = 4 << 20
"""Bytes per request."""
_CONTAINERS = {"azureblob": "containerName", "azuredatalakegen2": "filesystem"}
"""Datastore types that the Blob Storage API can read, in lower case, and their name for a container."""
_SECRETS = {"accountkey": "key", "sas": "sasToken"}
_MOST_FILES = 5_000_000


class Blob(NamedTuple):
    """A file in a container."""

    name: str
    path: str
    """Path relative to the requested address."""
    size: int
    md5: str | None = None
    """The MD5 of its content in hexadecimal digits, as the storage has it: whoever uploaded it may have made it up."""
    etag: str = ""
    """Changes whenever the file does."""
    grows: bool = False
    """It can only be appended to, as logs are."""

    @property
    def version(self) -> str:
        """Differs for each content that the file has had."""
        return f"{self.etag} {self.size}"


class ChangedError(SubmitError):
    """A file was changed while it was read."""


class Blobs:
    """All files below an address."""

    def __init__(self, workspace: Workspace, address: str, at_a_time: int, key: str | None = None) -> None:
        """`key` is that of the account, if this login may have it."""
        from azure.storage.blob import ContainerClient, LinearRetry

        url, prefix, secret = _place(workspace, address)
        secret = secret or key
        self.url, self.prefix = url.partition("?")[0], prefix.rstrip("/")
        if not is_storage(url, workspace.cloud):
            raise SubmitError(f"{url[:200]} is not storage of {workspace.cloud}: your login was not sent there")
        self._container: Any = ContainerClient.from_container_url(
            url,
            credential=secret or (None if is_signed(url) else workspace.credential),
            transport=transport(url, at_a_time),
            # azure-storage-blob's default starts with a pause of 15 s.
            retry_policy=LinearRetry(backoff=0.4, retry_total=4, random_jitter_range=0),
            max_single_get_size=PIECE,
            max_chunk_get_size=PIECE,
            permit_redirects=False,  # azure-storage-blob would send the login to the target of a redirect
            **TIMEOUTS,
        )

    def listed(self) -> list[Blob]:
        """The file at the address, or the files in the folder there; `model` does not match `model_2`."""
        prefix = self.prefix
        inside = f"{prefix}/" if prefix else ""
        found = []
        for name, one in self._all(prefix):
            if name.endswith("/") or (one.metadata or {}).get("hdi_isfolder"):
                continue  # a folder, as Data Lake stores it
            if name == prefix:
                found.append(_blob(one, name.rpartition("/")[2]))
            elif name.startswith(inside):
                found.append(_blob(one, name[len(inside) :]))
        return found

    def renewed(self, blob: Blob) -> Blob:
        """The same file as it is now."""
        return _blob(self._container.get_blob_client(blob.name).get_blob_properties(), blob.path)

    def _all(self, prefix: str) -> Iterator[tuple[str, Any]]:
        names: set[str] = set()
        try:
            for one in self._container.list_blobs(name_starts_with=prefix or None, include=["metadata"]):
                if one.name in names:
                    raise BrokenAnswerError("the list of files does not end")
                if len(names) == _MOST_FILES:
                    raise BrokenAnswerError(f"has more than {_MOST_FILES:,} files")
                names.add(one.name)
                yield str(one.name), one
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # azure-storage-blob would read any answer as a list of blobs.
            raise BrokenAnswerError("is not a list of files") from error

    def chunks(self, blob: Blob, begin: int = 0) -> Iterator[bytes]:
        """The contents of a file, in chunks, from a position on.

        Of one that grows, only what was there when it was listed; `ChangedError` if another one has been replaced.
        """
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError

        if begin >= blob.size:
            return
        how = {"etag": f'"{blob.etag}"', "match_condition": MatchConditions.IfNotModified}
        same = how if blob.etag and not blob.grows else {}
        try:
            found = self._container.download_blob(blob.name, offset=begin, length=blob.size - begin, **same)
            yield from found.chunks()
        except ResourceModifiedError as error:
            raise ChangedError(f"{blob.name} has changed while it was read", hint="try again") from error

    def address(self, blob: Blob) -> str:
        """The https address of a file; it has a signature, and needs no login, if there is a secret."""
        url, _, sas = self._container.url.partition("?")
        return f"{url}/{quote(blob.name, safe='~/')}" + (f"?{sas or self._sas}" if sas or self._sas else "")

    @cached_property
    def _sas(self) -> str:
        """A signature that allows reading, made with the key of the account; empty without one."""
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        key = getattr(self._container.credential, "account_key", None)
        if key is None:
            return ""
        until = datetime.now(timezone.utc) + timedelta(days=1)
        place = (self._container.account_name, self._container.container_name)
        signed: str = generate_container_sas(
            *place, account_key=key, permission=ContainerSasPermissions(read=True, list=True), expiry=until
        )
        return signed


def _blob(one: Any, path: str) -> Blob:
    md5 = getattr(one.content_settings, "content_md5", None)
    grows = str(one.blob_type or "").endswith("AppendBlob")
    etag = str(one.etag or "").strip('"')
    return Blob(str(one.name), path, int(one.size), bytes(md5).hex() if md5 and not grows else None, etag, grows)


def account_key(workspace: Workspace, url: str) -> str | None:
    """The key of the storage account of an address, if a datastore has it and this login may have it too."""
    account = re.match(r"https://([^./]+)\.", url)
    for store in workspace.arm.read("datastores").objects("value"):
        properties = store.object("properties")
        has_key = (properties.object("credentials").text("credentialsType") or "").lower() == "accountkey"
        if has_key and account and properties.text("accountName") == account[1]:
            return _secret(workspace, store.needed("name"))
    return None


def _place(workspace: Workspace, address: str) -> tuple[str, str, str | None]:
    """The address of the container, the path in it, and its key or SAS, if any."""
    if found := in_a_datastore(address):
        store, path = found
        elsewhere = re.search(r"(?i)/workspaces/([^/]+)/", address)
        if elsewhere and elsewhere[1].lower() != workspace.name.lower():
            raise SubmitError(f"it is in workspace {elsewhere[1]}", hint="name that workspace with `--workspace`")
        url, secret = _container(workspace, store)
        return url, path, secret
    if found := in_a_container(address):
        signature = address.partition("?")[2] if is_signed(address) else None
        return *found, signature
    raise SubmitError(f"{address[:200]} is not an address of blobs", hint="see the run's page in the studio")


def _container(workspace: Workspace, store: str) -> tuple[str, str | None]:
    properties = workspace.arm.read(f"datastores/{store}").object("properties")
    kind = properties.needed("datastoreType")
    if kind.lower() not in _CONTAINERS:
        raise SubmitError(f"datastore {store} is of type {kind}, which azml_dist cannot read")
    container, account = properties.needed(_CONTAINERS[kind.lower()]), properties.needed("accountName")
    protocol, endpoint = properties.text("protocol") or "https", properties.needed("endpoint")
    has_secret = (properties.object("credentials").text("credentialsType") or "").lower() in _SECRETS
    return f"{protocol}://{account}.blob.{endpoint}/{container}", _secret(workspace, store) if has_secret else None


def _secret(workspace: Workspace, store: str) -> str | None:
    """The datastore's own secret; None if the login may not have it and is used instead."""
    from azure.core.exceptions import HttpResponseError

    try:
        secrets = Answer(workspace.arm.call("POST", f"datastores/{store}/listSecrets"))
    except HttpResponseError as error:
        if (error.status_code or 500) >= 500:
            raise
        return None
    found = _SECRETS.get(secrets.needed("secretsType").lower())
    return secrets.needed(found).lstrip("?") if found else None
