"""What people read when Azure says no, or says nothing: one line with the value, a hint, and no traceback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator, answer, reset_before
from emulator.fixtures import SDK_WARNINGS
from needs import needs
from submitting import code_in, job, workspace_of

from azml_dist import AuthError, AzureML, Input, NotFound, SubmitError, Workspace

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


def refused(azure: AzureML, **fields: Any) -> SubmitError:
    """The error of a job that is not submitted, checked for what every one must be."""
    with pytest.raises(SubmitError) as caught:
        azure.submit(job(**{"name": "one", **fields}))
    error = caught.value
    (problem,) = error.problems
    assert "\n" not in problem.message
    assert "\n" not in (problem.hint or "")
    assert not re.search(r"\bCode: |Operation returned|Exception|<class|azure\.core|HTTPSConnectionPool", str(error))
    return error


# What is not there


def test_an_unknown_compute_and_the_nearest(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, compute="gpu-clutser")

    assert isinstance(error, NotFound)
    assert str(error).startswith(
        "cannot submit job one: there is no compute `gpu-clutser` in the workspace\n\nhint: did you mean `gpu-cluster`?"
    )


def test_an_unknown_environment_and_the_nearest(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, environment="azureml:torhc:1")

    assert isinstance(error, NotFound)
    assert "there is no environment `torhc:1`\n\nhint: did you mean `torch`?" in str(error)


def test_an_unknown_label(emulator: Emulator, azure: AzureML) -> None:
    assert "nope" in str(refused(azure, environment="azureml:nope@latest"))


def test_an_environment_without_a_version(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, environment="azureml:torch")

    assert "`torch` has no version" in str(error)
    assert "`azureml:torch@latest`" in str(error.hint)


def test_unknown_data(emulator: Emulator, azure: AzureML) -> None:
    emulator.assets.add_data("cifar10", "1", {})

    error = refused(azure, inputs={"d": Input(path="azureml:cifar:1")})

    assert isinstance(error, NotFound)
    assert "there is no data `cifar:1`\n\nhint: did you mean `cifar10`?" in str(error)


def test_an_unknown_workspace(emulator: Emulator, azure_sdk: None) -> None:
    here = emulator.workspace
    place = workspace_of(emulator)
    other = Workspace(here.subscription_id, here.resource_group, "emulatd-workspace", credential=place.credential)

    error = refused(AzureML(other))

    assert isinstance(error, NotFound)
    assert f"there is no workspace `emulatd-workspace` in resource group `{here.resource_group}`" in str(error)
    assert f"did you mean `{here.name}`?" in str(error.hint)


def test_an_unknown_resource_group_and_subscription(emulator: Emulator, azure_sdk: None) -> None:
    here, place = emulator.workspace, workspace_of(emulator)
    group = Workspace(here.subscription_id, "nogroup", here.name, credential=place.credential)
    subscription = Workspace("nosub", here.resource_group, here.name, credential=place.credential)

    assert "there is no resource group `nogroup`" in str(refused(AzureML(group)))
    assert "there is no subscription `nosub`" in str(refused(AzureML(subscription)))


# Who asks


def test_an_expired_login(emulator: Emulator, azure: AzureML) -> None:
    azure.submit(job())
    credential: Any = azure.workspace.credential
    token = credential.get_token("x")
    emulator.workspace.token = "another"
    credential.get_token = lambda *_, **__: token

    error = refused(azure)

    assert isinstance(error, AuthError)
    assert "Azure does not take the login" in str(error)
    assert "`az login`" in str(error.hint)


@pytest.mark.parametrize("route", ["codes.list", "jobs.put"])
def test_no_permission(emulator: Emulator, azure: AzureML, tmp_path: Path, route: str) -> None:
    emulator.workspace.forbidden = {route}

    error = refused(azure, code=code_in(tmp_path / "code"))

    assert isinstance(error, AuthError)
    assert re.search(
        r"may not do Microsoft\.MachineLearningServices/workspaces/\w+/\w+ in emulated-workspace", str(error)
    )
    assert "AzureML Data Scientist" in str(error.hint)


STORAGE = {
    # Messages as in "Common REST API error codes" of Azure Storage, and in public logs of uploads that failed.
    "AuthorizationPermissionMismatch": (
        "This request is not authorized to perform this operation using this permission.",
        "your login may not write to the workspace's storage",
        "Storage Blob Data Contributor",
    ),
    "AuthorizationFailure": (
        "This request is not authorized to perform this operation.",
        "the workspace's storage lets nobody in from here",
        "firewall",
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "Key based authentication is not permitted on this storage account.",
        "the workspace's storage takes no keys",
        "az ml datastore",
    ),
}


@pytest.mark.parametrize("code", STORAGE)
@pytest.mark.parametrize("what", ["code", "inputs"])
def test_what_the_storage_refuses(emulator: Emulator, azure: AzureML, tmp_path: Path, code: str, what: str) -> None:
    message, words, hint = STORAGE[code]
    emulator.inject(answer(403, code=code, message=message), route="blobs.put", times=None)
    data = code_in(tmp_path / "data")

    error = refused(azure, **{what: data if what == "code" else {"d": Input(path=str(data))}})

    assert isinstance(error, AuthError)
    assert words in str(error)
    assert hint in str(error.hint)
    assert emulator.jobs.jobs == {}


# What Azure has too little of


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (answer(409, code="Conflict"), "it clashes with what is there"),
        (answer(429, retry_after=0), "Azure is asked too often"),
        (answer(500), "Azure answered 500"),
        (answer(503), "Azure answered 503"),
        (answer(400, code="BadRequest"), "Azure refused it: Injected fault 400."),
        (answer(407), "the proxy wants a login"),
        (reset_before(), "broke"),
    ],
    ids=lambda value: str(value),
)
def test_what_stays_wrong_is_said(emulator: Emulator, azure: AzureML, fault: Any, words: str) -> None:
    emulator.inject(fault, route="jobs.put", times=None)

    error = refused(azure, name=None)

    assert words in str(error)
    assert emulator.counts()["jobs.put"] <= 8
    assert emulator.jobs.jobs == {}


QUOTA = {
    # As seen in public logs of Azure ML and of Azure Resource Manager.
    "of a family, for a cluster": answer(
        400,
        code="ClusterMinNodesExceedCoreQuota",
        message="The specified subscription has a Standard NCSv3 Family vCPU quota of 6 and cannot accomodate for at "
        "least 1 requested managed compute nodes which maps to 24 vCPUs.",
    ),
    "of a size": answer(
        400,
        code="BadRequest",
        message="Not enough quota available for Standard_NC24s_v3 in SubscriptionId 5ca1ab1e. Current usage/limit: "
        "0/6. Additional needed: 24",
    ),
    "of cores": answer(
        409,
        code="QuotaExceeded",
        message="Operation could not be completed as it results in exceeding approved standardNCSv3Family Cores quota. "
        "Additional details - Location: eastus, Current Limit: 6, Current Usage: 0, Additional Required: 24, (Minimum) "
        "New Limit Required: 24.",
    ),
}


@pytest.mark.parametrize("fault", QUOTA.values(), ids=QUOTA)
def test_what_the_quota_does_not_allow(emulator: Emulator, azure: AzureML, fault: Any) -> None:
    emulator.inject(fault, route="jobs.put", times=None)

    error = refused(azure)

    assert "cannot submit job one: the quota does not allow it: " in str(error)
    assert "24" in str(error)
    assert "az ml compute list-usage" in str(error.hint)
    assert emulator.counts()["jobs.put"] == 1


def test_a_name_with_quota_in_it_is_no_quota(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, environment="azureml:quota-study:1")

    assert isinstance(error, NotFound)
    assert "there is no environment `quota-study:1`" in str(error)


def test_azure_is_asked_again_when_it_said_and_not_before(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    emulator.inject(answer(429, retry_after=1), route="codes.list")
    emulator.inject(answer(503, retry_after=1), route="jobs.put")
    began = time.monotonic()

    azure.submit(job(code=code_in(tmp_path / "code")))

    assert time.monotonic() - began >= 2
    assert (emulator.counts()["codes.list"], emulator.counts()["jobs.put"]) == (2, 2)


@pytest.mark.parametrize("route", ["codes.list", "environments.list", "jobs.put"])
def test_nobody_waits_for_an_hour_because_azure_says_so(
    emulator: Emulator, azure: AzureML, tmp_path: Path, route: str
) -> None:
    emulator.inject(answer(429, retry_after=3600), route=route, times=None)

    error = refused(azure, code=code_in(tmp_path / "code"), environment="azureml:torch@latest")

    assert "Azure is asked too often" in str(error)
    assert emulator.counts()[route] == 1


def test_the_request_id_is_kept(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, compute="nope")

    assert re.fullmatch("[0-9a-f-]{36}", str(error.request_id))
    assert str(error.request_id) in str(error.hint)


def test_the_cause_is_kept(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, compute="nope")

    assert "HttpResponseError" in "".join(traceback.format_exception(error))


# What is in between


def test_an_untrusted_certificate(
    emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import certifi

    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, certifi.where())

    error = refused(azure, code=code_in(tmp_path / "code"))

    assert "the certificate of management.azure.com is not trusted here" in str(error)
    assert "REQUESTS_CA_BUNDLE" in str(error.hint)


def test_a_certificate_of_another_host(emulator: Emulator, azure: AzureML) -> None:
    """As of somebody in between, whose authority is trusted."""
    emulator.certify_as("elsewhere.example")

    error = refused(azure)

    assert "the certificate of management.azure.com is not trusted here" in str(error)


@needs("openssl")
def test_a_folder_of_authorities(
    emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As `openssl rehash` leaves it; azure-ai-ml's own connections take it too.
    bundle = Path(os.environ["REQUESTS_CA_BUNDLE"])
    subject = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", bundle], stdout=-1, text=True, check=True)
    (tmp_path / "authorities").mkdir()
    shutil.copy(bundle, tmp_path / "authorities" / f"{subject.stdout.strip()}.0")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authorities"))

    assert azure.submit(job(code=code_in(tmp_path / "code"))).name in emulator.jobs.jobs


@pytest.mark.parametrize("there", [True, False])
def test_authorities_that_cannot_be_read(
    emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    file = tmp_path / "authorities.pem"
    if there:
        file.write_text("no certificate\n")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))

    error = refused(azure, code=code_in(tmp_path / "code"))

    assert f"cannot read certificates of authorities from {file}" in str(error)
    assert "REQUESTS_CA_BUNDLE" in str(error.hint)


def test_a_name_that_is_not_known(emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZUREML_DEV_URL_MFE", "https://does-not-exist.invalid")

    error = refused(azure)

    assert "does-not-exist.invalid" in str(error)
    assert "DNS" in str(error)


def test_a_proxy_that_is_not_there(emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    error = refused(azure)

    assert "the proxy of HTTPS_PROXY" in str(error)
