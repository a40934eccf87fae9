"""Azure's errors in one line and a hint: what was refused, the value in it, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.errors import AuthError, DistError, NotFound, SubmitError

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace

_STATUS = re.compile(r"^\([\w.]+\) |\nCode: .*", re.DOTALL)
_OF_BLOBS = re.compile(r"<Message>([^<\n]*)")
"""The sentence in an answer of Blob Storage; further lines repeat the request's id and the time."""
_LOGIN = "`az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of a service principal"
_QUOTA = re.compile(r"(?i)\b(cores?|vcpu|enough|exceed\w*) quota\b|\bquota (of|limits?|available|reached|exceeded)\b")
"""As in "a vCPU quota of 6", "not enough quota available", "exceeding approved Cores quota": seen in public logs."""
_STORAGE = {
    "AuthorizationPermissionMismatch": (
        "your login may not write to the workspace's storage",
        "ask its owner for the role Storage Blob Data Contributor",
    ),
    "AuthorizationFailure": (
        "the workspace's storage lets nobody in from here",
        "a firewall or private network guards it: try from inside, or ask its owner to allow your address",
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "the workspace's storage takes no keys",
        "its datastores have to go by identity (`az ml datastore update`): ask the workspace's owner",
    ),
}
"""What Blob Storage refuses with 403, by its error code ("Common REST API error codes"): words and a hint."""


class _Said(NamedTuple):
    kind: type[SubmitError]
    message: str
    hint: str | None


@contextmanager
def translated(what: str, workspace: Workspace | None = None, secrets: tuple[str, ...] = ()) -> Iterator[None]:
    """Errors of Azure's packages leave this block as ours; `what` was being done, as "submit job a-1".

    `secrets` are texts that must not be in a message. With a workspace, what was not found is compared with what
    is there.
    """
    try:
        yield
    except DistError:
        raise
    except Exception as error:
        said = _in_words(error, what, workspace)
        if said is None:
            raise
        request_id = _request_id(error)
        hint = "; ".join(
            filter(None, [said.hint, f"request id for Azure's support: {request_id}" if request_id else ""])
        )
        ours = said.kind(_without(said.message, secrets), hint=_without(hint, secrets) or None)
        ours.request_id = request_id
        # A cause is printed with its error; where it quotes a secret, it is left out.
        raise ours from (None if any(secret in str(error) for secret in secrets) else error)


def nearest(name: str, names: Callable[[], list[str]]) -> str:
    """The names that exist and are like this one, as a hint; nothing where they cannot be read."""
    try:
        known = names()
    except Exception:
        return ""
    by_lower = {one.lower(): one for one in known}
    close = [by_lower[one] for one in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    if close:
        return f"did you mean {' or '.join(f'`{one}`' for one in close)}?"
    return f"there are: {', '.join(sorted(known)[:8])}" if known else ""


def _in_words(error: Exception, what: str, workspace: Workspace | None) -> _Said | None:
    from azure.core.exceptions import (
        AzureError,
        ClientAuthenticationError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )

    if isinstance(error, HttpResponseError) and error.status_code:
        return _of_status(error, what, workspace)
    if isinstance(error, ClientAuthenticationError):  # CredentialUnavailableError is one
        return _of_login(error, what)
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return _of_connection(error, what, workspace)
    if isinstance(error, AzureError) or _module(error).startswith(("azure.", "marshmallow")):
        return _of_sdk(error, what)
    if _module(error).startswith(("requests", "urllib3")):
        return _of_connection(error, what, workspace)
    return None


def _of_status(error: Any, what: str, workspace: Workspace | None) -> _Said:
    status, message = error.status_code, _message(error)
    code = str(getattr(error.error, "code", None) or _headers(error).get("x-ms-error-code") or "")
    if status == 407:
        return _Said(
            SubmitError, f"cannot {what}: the proxy wants a login", "put it into HTTPS_PROXY: http://USER:PASSWORD@HOST"
        )
    if status == 401:
        return _Said(
            AuthError,
            f"cannot {what}: Azure does not take the login ({message})",
            f"{_LOGIN}; a login lasts some hours",
        )
    if status in (400, 403, 409) and _is_quota(code, message):
        return _Said(
            SubmitError,
            f"cannot {what}: the quota does not allow it: {message}",
            "`az ml compute list-usage` shows it; ask for more in the portal, or take fewer or smaller nodes",
        )
    if status == 403:
        return _of_403(what, code, message)
    if status == 404 or "UnknownComputeTarget" in _body(error) or "Unknown compute target" in message:
        return _of_404(error, what, message, workspace)
    if status == 409:
        return _Said(
            SubmitError,
            f"cannot {what}: it clashes with what is there: {message}",
            "give it another name or version, or wait until the other change is through",
        )
    if status == 429:
        return _Said(
            SubmitError,
            f"cannot {what}: Azure is asked too often, and did not relent",
            "wait some minutes; submit many jobs as one list, which asks less",
        )
    if status >= 500:
        return _Said(
            SubmitError,
            f"cannot {what}: Azure answered {status}: {message}",
            "wait some minutes; https://status.azure.com shows outages",
        )
    if "JobPropertyImmutable" in _body(error) or "A job with this name already exists" in message:
        return _Said(
            SubmitError,
            f"cannot {what}: there is a job of this name with other content",
            "give the job another `name`, or none, and each run gets its own",
        )
    return _Said(SubmitError, f"cannot {what}: Azure refused it: {message}", None)


def _of_403(what: str, code: str, message: str) -> _Said:
    found = re.search(r"perform action '([^']+)' over scope '([^']+)'", message)
    if code in _STORAGE:
        words, hint = _STORAGE[code]
        return _Said(AuthError, f"cannot {what}: {words}", hint)
    if found:
        place = found[2].rpartition("/")[2]
        return _Said(
            AuthError,
            f"cannot {what}: your login may not do {found[1]} in {place}",
            "ask the workspace's owner for the role AzureML Data Scientist",
        )
    return _Said(
        AuthError,
        f"cannot {what}: not allowed: {message}",
        "a firewall or private network of the workspace says this too: try from inside it",
    )


def _of_404(error: Any, what: str, message: str, workspace: Workspace | None) -> _Said:
    client = workspace.client if workspace else None
    if found := re.search(r"(?:Unknown compute target '|/computes/)([\w-]+)", message):
        hint = nearest(found[1], lambda: [one.name for one in client.compute.list()]) if client else ""
        return _Said(NotFound, f"cannot {what}: there is no compute `{found[1]}` in the workspace", hint or None)
    if found := re.search(r"Environment (?:asset )?([\w.-]+)(?::([\w.-]+))? not found", message):
        name, version = found[1], found[2]
        hint = nearest(name, lambda: [str(one.name) for one in client.environments.list()]) if client else ""
        named = f"`{name}`" if not version else f"`{name}:{version}`"
        return _Said(
            NotFound, f"cannot {what}: there is no environment {named}", hint or "`az ml environment list` shows them"
        )
    if found := re.search(r"(Data|Code|Model) asset ([\w.-]+):([\w.-]+) not found", message):
        listing = getattr(client, {"Data": "data", "Model": "models"}.get(found[1], ""), None)
        hint = nearest(found[2], lambda: [str(one.name) for one in listing.list()]) if listing else ""
        return _Said(NotFound, f"cannot {what}: there is no {found[1].lower()} `{found[2]}:{found[3]}`", hint or None)
    if found := re.search(r"workspaces/([\w-]+)' under resource group '([^']+)' was not found", message):
        hint = "its name, group and subscription must belong together; `az ml workspace list` shows them"
        if workspace:
            near = nearest(found[1], lambda: [str(one.name) for one in workspace.client.workspaces.list()])
            hint = near or f"it was looked for in subscription {workspace.subscription_id}; {hint}"
        return _Said(
            NotFound, f"cannot {what}: there is no workspace `{found[1]}` in resource group `{found[2]}`", hint
        )
    if found := re.search(r"(?i)(resource group|subscription) '([^']+)' could not be found", message):
        hint = (
            "`az account list` shows your subscriptions"
            if found[1].lower() == "subscription"
            else "`az group list` shows the groups"
        )
        return _Said(NotFound, f"cannot {what}: there is no {found[1].lower()} `{found[2]}`", hint)
    if found := re.search(r"Job ([\w-]+) not found", message):
        return _Said(NotFound, f"there is no run `{found[1]}` in the workspace", "`azml-dist list` shows runs")
    return _Said(NotFound, f"cannot {what}: not found: {message}", None)


def _of_login(error: Exception, what: str) -> _Said:
    text = " ".join(str(error).split())
    if "failed to retrieve a token" in text or "Unavailable" in type(error).__name__ or "az login" in text:
        return _Said(AuthError, f"cannot {what}: nobody is logged in to Azure", _LOGIN)
    found = re.search(r"AADSTS\d+: [^.]*\.", text)
    return _Said(AuthError, f"cannot {what}: the login failed: {found[0] if found else text[:200]}", _LOGIN)


def _of_connection(error: Exception, what: str, workspace: Workspace | None) -> _Said:
    text = " ".join(map(str, _chain(error)))
    host = re.search(r"host='([^']+)'", text)
    place = host[1] if host else workspace.arm.host if workspace else "Azure"
    low = " ".join(text.lower().split())
    if "certificate" in low or "ssl" in low:
        return _Said(
            SubmitError,
            f"cannot {what}: the certificate of {place} is not trusted here",
            "behind a proxy that opens TLS, set REQUESTS_CA_BUNDLE to the file with its authority",
        )
    if "proxy" in low and ("tunnel connection failed" in low or "refused" in low or "resolve" in low):
        return _Said(
            SubmitError,
            f"cannot {what}: the proxy of HTTPS_PROXY does not let {place} through",
            "check HTTPS_PROXY and NO_PROXY",
        )
    if "resolve" in low or "name or service not known" in low or "nodename nor servname" in low or "getaddrinfo" in low:
        return _Said(
            SubmitError,
            f"cannot {what}: the name {place} is not known here (DNS)",
            "are you online? A private workspace is known inside its own network only",
        )
    if "timed out" in low or "timeout" in low:
        return _Said(
            SubmitError,
            f"cannot {what}: {place} does not answer",
            "a firewall may be in the way; HTTPS_PROXY names a proxy",
        )
    return _Said(
        SubmitError,
        f"cannot {what}: the connection to {place} broke again and again",
        "try again; a proxy or firewall in between may end connections",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of: the outer ones of azure-core leave out the host."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_sdk(error: Exception, what: str) -> _Said:
    text = " ".join(str(getattr(error, "message", None) or error).split())
    found = re.search(r"(?:parsing asset|asset) (\S+) .*Version must be provided", text)
    if found:
        name = found[1].removeprefix("azureml:")
        return _Said(
            SubmitError,
            f"cannot {what}: `{name}` has no version",
            f"`azureml:{name}@latest`, or a number: `azureml:{name}:1`",
        )
    return _Said(SubmitError, f"cannot {what}: azure-ai-ml refused it: {text[:300]}", None)


def _message(error: Any) -> str:
    """The service's own sentence, without what azure-core puts around it."""
    of_blobs = _OF_BLOBS.search(_body(error))
    said = of_blobs[1] if of_blobs else getattr(error.error, "message", None)
    text = said or _STATUS.sub("", str(error.message or error))
    return " ".join(str(text).split())[:400]


def _body(error: Any) -> str:
    try:
        return str(error.response.text())
    except Exception:
        return ""


def _is_quota(code: str, message: str) -> bool:
    return "quota" in code.lower() or _QUOTA.search(message) is not None


def _headers(error: Any) -> Mapping[str, str]:
    return getattr(getattr(error, "response", None), "headers", None) or {}


def _request_id(error: Any) -> str | None:
    headers = _headers(error)
    return headers.get("x-ms-request-id") or headers.get("x-ms-correlation-request-id")


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "<from your environment>")
    return text


def _module(error: Exception) -> str:
    return type(error).__module__
