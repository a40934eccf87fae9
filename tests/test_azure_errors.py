"""What people read when Azure says no, or says nothing: one line with the value, a hint, and no traceback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from submitting import code_in, job, workspace_of

from azml_dist import AuthError, AzureML, Input, NotFound, SubmitError, Workspace
from azml_dist.emulator import Emulator, answer, reset_before

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
        "cannot submit job one: the workspace has no compute `gpu-clutser`\n\nhint: did you mean `gpu-cluster`?"
    )


def test_an_unknown_environment_and_the_nearest(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, environment="azureml:torhc:1")

    assert isinstance(error, NotFound)
    assert "there is no environment `torhc:1`\n\nhint: did you mean `torch`?" in str(error)


def test_a_label_that_no_environment_has_is_named(emulator: Emulator, azure: AzureML) -> None:
    assert "nope" in str(refused(azure, environment="azureml:nope@latest"))


def test_an_environment_without_a_version(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, environment="azureml:torch")

    assert "`torch` has no version" in str(error)
    assert "`azureml:torch@latest`" in str(error.hint)


def test_data_that_is_not_there_is_named_with_the_nearest_name(emulator: Emulator, azure: AzureML) -> None:
    emulator.assets.add_data("cifar10", "1", {})

    error = refused(azure, inputs={"d": Input(path="azureml:cifar:1")})

    assert isinstance(error, NotFound)
    assert "there is no data `cifar:1`\n\nhint: did you mean `cifar10`?" in str(error)


def test_a_workspace_that_is_not_there_is_named_with_the_nearest_name(emulator: Emulator, azure_sdk: None) -> None:
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


def test_an_expired_login_is_told_to_log_in_again(emulator: Emulator, azure: AzureML) -> None:
    azure.submit(job())
    credential: Any = azure.workspace.credential
    token = credential.get_token("x")
    emulator.workspace.token = "another"
    credential.get_token = lambda *_, **__: token

    error = refused(azure)

    assert isinstance(error, AuthError)
    assert "Azure rejected the login" in str(error)
    assert "`az login`" in str(error.hint)


@pytest.mark.parametrize("route", ["codes.list", "jobs.put"])
def test_a_login_without_permission_is_told_the_action_and_the_role(
    emulator: Emulator, azure: AzureML, tmp_path: Path, route: str
) -> None:
    emulator.workspace.forbidden = {route}

    error = refused(azure, code=code_in(tmp_path / "code"))

    assert isinstance(error, AuthError)
    assert re.search(
        r"is not allowed to do Microsoft\.MachineLearningServices/workspaces/\w+/\w+ in emulated-workspace", str(error)
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
        "the workspace's storage blocks access from this network",
        "firewall",
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "Key based authentication is not permitted on this storage account.",
        "the workspace's storage does not accept keys",
        "az ml datastore",
    ),
}


@pytest.mark.parametrize("code", STORAGE)
@pytest.mark.parametrize("what", ["code", "inputs"])
def test_what_the_storage_refuses_has_its_cause_and_a_way_out(
    emulator: Emulator, azure: AzureML, tmp_path: Path, code: str, what: str
) -> None:
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
        (answer(409, code="Conflict"), "it conflicts with something that exists"),
        (answer(429, retry_after=0), "Azure received too many requests"),
        (answer(500), "Azure answered 500"),
        (answer(503), "Azure answered 503"),
        (answer(400, code="BadRequest"), "Azure refused it: Injected fault 400."),
        (answer(407), "the proxy requires a login"),
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

    assert "cannot submit job one: the quota is too small: " in str(error)
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

    assert "Azure received too many requests" in str(error)
    assert emulator.counts()[route] == 1


def test_the_request_id_is_kept(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, compute="nope")

    assert re.fullmatch("[0-9a-f-]{36}", str(error.request_id))
    assert str(error.request_id) in str(error.hint)


def test_the_cause_is_kept(emulator: Emulator, azure: AzureML) -> None:
    error = refused(azure, compute="nope")

    assert "HttpResponseError" in "".join(traceback.format_exception(error))


# What is in between


def test_an_untrusted_certificate_is_said_to_be_that(
    emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import certifi

    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, certifi.where())

    error = refused(azure, code=code_in(tmp_path / "code"))

    assert "the certificate of management.azure.com is not trusted" in str(error)
    assert "REQUESTS_CA_BUNDLE" in str(error.hint)


def test_a_certificate_of_another_host_is_not_trusted(emulator: Emulator, azure: AzureML) -> None:
    """As of somebody in between, whose authority is trusted."""
    emulator.certify_as("elsewhere.example")

    error = refused(azure)

    assert "the certificate of management.azure.com is not trusted" in str(error)


@needs("openssl")
def test_authorities_may_be_a_folder(
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

    assert f"cannot read root certificates from {file}" in str(error)
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

    assert "the proxy in HTTPS_PROXY, 127.0.0.1:9, cannot be reached" in str(error)


def test_a_certificate_that_is_out_of_time(emulator: Emulator, azure: AzureML) -> None:
    """As all are, seen from a machine whose clock is wrong."""
    for times in ({"not_after": datetime(2001, 1, 1)}, {"not_before": datetime(2101, 1, 1)}):
        emulator.certify_for(**{"not_before": datetime(2000, 1, 1), "not_after": datetime(2102, 1, 1), **times})

        error = refused(AzureML(workspace_of(emulator)))

        assert "the certificate of management.azure.com is not valid at this machine's time, 20" in str(error)
        assert "clock" in str(error.hint)


# On the way to the login


@pytest.fixture
def principal(emulator: Emulator, azure_sdk: None, monkeypatch: pytest.MonkeyPatch) -> AzureML:
    """Whoever logs in as a service principal, with the credential that everybody has, and without its patience."""
    from azure.identity import DefaultAzureCredential

    here = emulator.workspace
    for name, value in (("TENANT_ID", here.tenant_id), ("CLIENT_ID", "someone"), ("CLIENT_SECRET", "secret")):
        monkeypatch.setenv(f"AZURE_{name}", value)
    ids = (here.subscription_id, here.resource_group, here.name)
    return AzureML(Workspace(*ids, credential=DefaultAzureCredential(retry_total=0)))


def test_a_login_through_a_proxy_that_is_not_there(principal: AzureML, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, place in (
        ("http://127.0.0.1:9", "127.0.0.1:9"),
        ("http://someone:secret@nowhere.invalid:8080", "nowhere.invalid:8080"),
    ):
        monkeypatch.setenv("HTTPS_PROXY", address)
        monkeypatch.setenv("https_proxy", address)

        error = refused(principal)

        assert f"cannot log in to submit job one: the proxy in HTTPS_PROXY, {place}, cannot be reached" in str(error)
        assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("407 Proxy Authentication Required", "the proxy requires a login"),
        ("403 Forbidden", "blocks the login service"),
    ],
)
def test_a_login_through_a_proxy_that_refuses(
    principal: AzureML, monkeypatch: pytest.MonkeyPatch, status: str, words: str
) -> None:
    with refusing_proxy(status) as address:
        monkeypatch.setenv("HTTPS_PROXY", address)
        monkeypatch.setenv("https_proxy", address)

        assert words in str(refused(principal))


@contextmanager
def refusing_proxy(status: str) -> Iterator[str]:
    """A proxy that opens no tunnel."""

    class Refusing(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            code, _, reason = status.partition(" ")
            self.send_response(int(code), reason)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_login_through_a_proxy_that_opens_tls(principal: AzureML, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, certifi.where())

    error = refused(principal)

    assert "cannot log in to submit job one: the certificate of the login service is not trusted" in str(error)
    assert "REQUESTS_CA_BUNDLE" in str(error.hint)


def test_a_login_host_that_is_not_known(emulator: Emulator, azure_sdk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.identity import ClientSecretCredential

    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name)
    here = emulator.workspace
    options: dict[str, Any] = {"authority": "login.nowhere.invalid", "disable_instance_discovery": True}
    elsewhere = ClientSecretCredential(here.tenant_id, "someone", "secret", retry_total=0, **options)
    azure = AzureML(Workspace(here.subscription_id, here.resource_group, here.name, credential=elsewhere))

    assert "cannot log in to submit job one: the host name login.nowhere.invalid was not found (DNS)" in str(
        refused(azure)
    )


@pytest.mark.parametrize(
    ("said", "words", "hint"),
    [
        ("AADSTS7000215: Invalid client secret provided. Send the value.", "is wrong", "AZURE_CLIENT_SECRET"),
        ("AADSTS7000222: The provided client secret keys are expired.", "has expired", "AZURE_CLIENT_SECRET"),
        ("AADSTS700016: Application 'x' was not found in the directory 'y'.", "no such service", "AZURE_CLIENT_ID"),
        ("AADSTS700024: Client assertion is not within its valid time range.", "the clock", "`date`"),
        (
            "AADSTS53003: Access has been blocked by Conditional Access policies.",
            "conditional access blocks",
            "administrator",
        ),
        ("AADSTS12345: Something new. And more.", "the login failed: AADSTS12345: Something new.", "az login"),
    ],
)
def test_a_login_that_is_refused_says_why(
    emulator: Emulator, principal: AzureML, said: str, words: str, hint: str
) -> None:
    emulator.login.refusal = said

    error = refused(principal)

    assert isinstance(error, AuthError)
    assert words in str(error)
    assert hint in str(error.hint)


@pytest.mark.parametrize("status", [500, 503])
def test_a_login_service_that_is_busy_does_not_mean_that_nobody_is_logged_in(
    emulator: Emulator, principal: AzureML, status: int
) -> None:
    emulator.inject(answer(status), route="login.token", times=None)

    error = refused(principal)

    assert str(error).startswith(f"cannot log in to submit job one: the login service answers {status}")
    assert "status.azure.com" in str(error.hint)


def test_a_login_that_was_set_up_and_failed_is_none_that_is_missing(emulator: Emulator, principal: AzureML) -> None:
    emulator.inject(answer(429), route="login.openid", times=None)

    assert "the login failed: Unable to get authority configuration" in str(refused(principal))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Please run 'az login' to setup account.", "you are not logged in to Azure"),
        (
            "HTTPSConnectionPool(host='login.microsoftonline.com', port=443): Max retries exceeded (Caused by "
            "ProxyError('Unable to connect to proxy', NewConnectionError('Failed: [Errno 111] Connection refused')))",
            "the proxy in HTTPS_PROXY, 127.0.0.1:9, cannot be reached",
        ),
        (
            "HTTPSConnectionPool(host='login.microsoftonline.com', port=443): Max retries exceeded (Caused by "
            "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate')))",
            "the certificate of login.microsoftonline.com is not trusted",
        ),
        ("AADSTS700082: The refresh token has expired due to inactivity.", "your login has expired"),
    ],
)
def test_what_the_azure_cli_says_of_its_login_is_said(
    emulator: Emulator, azure_sdk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, words: str
) -> None:
    """Also beside the ways to log in that nobody set up, whose words are of connections, too."""
    from azure.identity import DefaultAzureCredential

    (tmp_path / "az").write_text(f'#!/bin/sh\ncat >&2 <<"END"\nERROR: {said}\nEND\nexit 1\n')
    (tmp_path / "az").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    here = emulator.workspace
    credential = DefaultAzureCredential(exclude_managed_identity_credential=True)
    azure = AzureML(Workspace(here.subscription_id, here.resource_group, here.name, credential=credential))

    assert words in str(refused(azure))
