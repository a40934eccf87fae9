"""The storage of the emulated workspace, by azure-storage-blob: the emulator's own and Azurite pass the same tests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS, either_storage

from azml_dist.emulator import Emulator
from azml_dist.emulator.service import own_account

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(one) for one in SDK_WARNINGS)]


storage = either_storage


@pytest.fixture
def container(emulator: Emulator) -> Iterator[Any]:
    """A container, with the account's key."""
    from azure.storage.blob import BlobServiceClient

    account = emulator.account
    with BlobServiceClient(f"https://{account.host}", credential=account.key, max_block_size=4 << 20) as service:
        yield service.create_container("things")


def refused(call: Any, *arguments: Any, **options: Any) -> tuple[int, str]:
    """Status and code of a refusal."""
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as caught:
        call(*arguments, **options)
    code = getattr(caught.value, "error_code", "")
    return caught.value.status_code or 0, str(getattr(code, "value", code))


def test_a_blob_with_its_properties_and_metadata(container: Any) -> None:
    from azure.storage.blob import ContentSettings

    blob = container.get_blob_client("folder one/ü+&?.txt")
    blob.upload_blob(b"text", metadata={"kind": "a"}, content_settings=ContentSettings(content_type="text/plain"))

    found = blob.get_blob_properties()

    assert (found.size, found.content_settings.content_type, found.metadata) == (4, "text/plain", {"kind": "a"})
    assert bytes(found.content_settings.content_md5) == hashlib.md5(b"text").digest()
    blob.set_blob_metadata({"kind": "b"})
    assert blob.get_blob_properties().metadata == {"kind": "b"}
    assert blob.download_blob().readall() == b"text"
    assert blob.exists()
    blob.delete_blob()
    assert not blob.exists()
    assert refused(blob.download_blob) == (404, "BlobNotFound")


def test_lists_with_folders_and_pages(container: Any) -> None:
    for name in ("a/1", "a/2", "a/b/3", "c", "d&<"):
        container.upload_blob(name, b"x", metadata={"of": "me"})

    assert [blob.name for blob in container.list_blobs()] == ["a/1", "a/2", "a/b/3", "c", "d&<"]
    assert [blob.name for blob in container.list_blobs("a/")] == ["a/1", "a/2", "a/b/3"]
    assert [one.name for one in container.walk_blobs()] == ["a/", "c", "d&<"]
    assert [one.name for one in container.walk_blobs("a/")] == ["a/b/", "a/1", "a/2"] or [
        one.name for one in container.walk_blobs("a/")
    ] == ["a/1", "a/2", "a/b/"]
    pages = container.list_blobs(results_per_page=2).by_page()
    assert [[blob.name for blob in page] for page in pages] == [["a/1", "a/2"], ["a/b/3", "c"], ["d&<"]]
    assert next(iter(container.list_blobs(include=["metadata"]))).metadata == {"of": "me"}


def test_blocks_ranges_and_what_is_appended(container: Any) -> None:
    data = os.urandom(9 << 20)
    blob = container.get_blob_client("large")
    blob.upload_blob(data, max_concurrency=2, overwrite=True, length=len(data), validate_content=True)
    staged = container.get_blob_client("staged")
    for name, piece in (("MDE=", b"one "), ("MDI=", b"two ")):
        staged.stage_block(name, piece)
    from azure.storage.blob import BlobBlock

    assert [block.id for block in staged.get_block_list("uncommitted")[1]] == ["MDE=", "MDI="]
    staged.commit_block_list([BlobBlock("MDI="), BlobBlock("MDE=")])
    log = container.get_blob_client("log")
    log.create_append_blob()
    log.append_block(b"first ")
    log.append_block(b"second")

    assert blob.download_blob(max_concurrency=2).readall() == data
    assert blob.download_blob(offset=5_000_000, length=1000).readall() == data[5_000_000:5_001_000]
    assert staged.download_blob().readall() == b"two one "
    assert log.download_blob(offset=6).readall() == b"second"
    assert refused(log.download_blob, offset=100)[0] == 416
    assert refused(staged.commit_block_list, [BlobBlock("bm9uZQ==")]) == (400, "InvalidBlockList")


def test_conditions_are_kept_and_copies_have_the_same_content(container: Any) -> None:
    from azure.core import MatchConditions

    blob = container.get_blob_client("one")
    blob.upload_blob(b"old", metadata={"kind": "a"})
    etag = blob.get_blob_properties().etag

    assert refused(blob.upload_blob, b"new") == (409, "BlobAlreadyExists")
    blob.upload_blob(b"new", overwrite=True, metadata={"kind": "b"})
    changed = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
    assert refused(blob.delete_blob, **changed) == (412, "ConditionNotMet")
    copy = container.get_blob_client("copy")
    assert copy.start_copy_from_url(blob.url)["copy_status"] == "success"
    assert copy.download_blob().readall() == b"new"
    assert copy.get_blob_properties().metadata == {"kind": "b"}
    assert refused(container.create_container) == (409, "ContainerAlreadyExists")


@pytest.mark.parametrize("scope", ["blob", "container", "account"])
def test_signatures_of_azures_own_library(emulator: Emulator, container: Any, scope: str) -> None:
    """Not made by the emulator: this compares two readings of the documentation."""
    from azure.storage.blob import (
        AccountSasPermissions,
        BlobClient,
        BlobSasPermissions,
        ContainerSasPermissions,
        ResourceTypes,
        generate_account_sas,
        generate_blob_sas,
        generate_container_sas,
    )

    container.upload_blob("a b", b"text")
    account, soon = emulator.account, datetime.now(timezone.utc) + timedelta(minutes=5)

    def sas(expiry: datetime) -> str:
        if scope == "blob":
            may: Any = BlobSasPermissions(read=True)
            given = {"account_key": account.key, "permission": may, "expiry": expiry}
            return str(generate_blob_sas(account.name, "things", "a b", **given))
        if scope == "container":
            may = ContainerSasPermissions(read=True)
            return str(generate_container_sas(account.name, "things", account.key, permission=may, expiry=expiry))
        may, on = AccountSasPermissions(read=True), ResourceTypes(object=True)
        return str(generate_account_sas(account.name, account.key, on, may, expiry))

    def with_sas(signature: str) -> Any:
        return BlobClient(f"https://{account.host}", "things", "a b", credential=signature)

    good = with_sas(sas(soon))
    assert good.download_blob().readall() == b"text"
    assert refused(good.upload_blob, b"x", overwrite=True)[0] == 403
    assert refused(with_sas(sas(soon - timedelta(hours=1))).download_blob)[0] == 403
    torn = sas(soon).replace("sp=r", "sp=rw")
    assert refused(with_sas(torn).download_blob)[0] == 403
    assert refused(BlobClient(f"https://{account.host}", "things", "a b").download_blob)[0] in (403, 404, 409)


def test_two_gigabytes_go_to_the_disk_and_not_into_memory(tmp_path: Path) -> None:
    """As one request, and read back as one; the file has holes, so that it costs no disk."""
    import http.client
    import resource

    size = 2 << 30
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Emulator(own_account(tmp_path / "blobs")) as emulator:
        emulator.account.create_container("things")
        path = f"/-/{emulator.account.host}/things/large?{emulator.account.account_sas()}"
        connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=120)
        with (tmp_path / "holes").open("rb") as body:
            headers = {"x-ms-blob-type": "BlockBlob", "Content-Length": str(size)}
            connection.request("PUT", path, body=body, headers=headers)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (201, b"")
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.getheader("Content-Length") == str(size)
        read = 0
        while read < 300 << 20:
            read += len(answer.read(1 << 20))
        connection.close()
        assert not emulator.problems
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
