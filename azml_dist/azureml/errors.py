"""Turns Azure's errors into one line and a hint: what was refused, with the value, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any, NamedTuple, Protocol

from azml_dist.azureml.answers import BrokenAnswerError
from azml_dist.azureml.network import speaks_of_a_connection, trouble
from azml_dist.errors import AuthError, DistError, NotFound, SubmitError
from azml_dist.plan.world import FROM_YOUR_ENVIRONMENT
from azml_dist.words import did_you_mean, like

_STATUS = re.compile(r"^\([\w.]+\) |\nCode: .*", re.DOTALL)
_BARE = re.compile(r"^Operation returned an invalid status '([^']*)'.*", re.DOTALL)
"""azure-core's message for an answer that is not the service's: the status text, then the page itself."""
_OF_BLOBS = re.compile(r"<Message>([^<\n]*)")
"""The sentence in an answer of Blob Storage; further lines repeat the request id and the time."""
_LOGIN = "`az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of a service principal"
_OUTAGE = "wait a few minutes; https://status.azure.com shows outages"
_QUOTA = re.compile(r"(?i)\b(cores?|vcpu|enough|exceed\w*) quota\b|\bquota (of|limits?|available|reached|exceeded)\b")
"""Such as "a vCPU quota of 6", "not enough quota available", "exceeding approved Cores quota", from public logs."""
_OUT_OF_TIME = re.compile("earlier than current UTC time|not yet valid")
_STORAGE = {
    "AuthorizationPermissionMismatch": (
        "your login may not write to the workspace's storage",
        "ask its owner for the role Storage Blob Data Contributor",
    ),
    "AuthorizationFailure": (
        "the workspace's storage blocks access from this network",
        "connect from inside its private network, or ask its owner to allow your address in its firewall",
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "the workspace's storage does not accept keys",
        "ask the workspace's owner to switch its datastores to identity-based access (`az ml datastore update`)",
    ),
}
"""Messages and hints for 403 from Blob Storage, by error code ("Common REST API error codes")."""


_ATTEMPT = re.compile(r"\n\t?(?=\w+Credential: )")
"""The separator between the logins that `DefaultAzureCredential` tried."""
_ENTRA = re.compile(r"AADSTS(\d+): [^.]*\.")
_BUSY = re.compile(r"HTTP Error: (5\d\d|429)\b")
"""How azure-identity says that the login service gave no answer of its own."""
_FAILED = re.compile(r"^\w+Credential: Authentication failed: (.+?)(?:\. | To mitigate |$)")
"""A login that was set up, and did not work."""
_REFUSED = {
    "7000215": ("the secret of the service principal is wrong", "set AZURE_CLIENT_SECRET to its value, not its id"),
    "7000222": (
        "the secret of the service principal has expired",
        "create a new one, and set AZURE_CLIENT_SECRET to it",
    ),
    "700016": ("the tenant has no such service principal", "check AZURE_CLIENT_ID and AZURE_TENANT_ID"),
    "90002": ("the tenant does not exist", "check AZURE_TENANT_ID"),
    "700024": (
        "the login is not valid at this time: the clock of this machine is wrong",
        "set the clock (check it with `date`)",
    ),
    **dict.fromkeys(
        ("700082", "70043", "50173", "50076", "50078", "50079", "65001"),
        ("your login has expired, or needs a second factor", "run `az login` again"),
    ),
    "53003": (
        "your organisation's conditional access blocks the login from this machine or network",
        "ask your administrator",
    ),
}
"""Messages and hints for errors of Microsoft Entra, by their documented codes."""


class Place(Protocol):
    """The part of `Workspace` that errors need, since they are below it."""

    @property
    def client(self) -> Any: ...
    @property
    def arm(self) -> Any: ...
    @property
    def subscription_id(self) -> str: ...


class _Said(NamedTuple):
    kind: type[SubmitError]
    message: str
    hint: str | None = None
    before: str = "cannot {what}: "
    """The beginning of the message."""


@contextmanager
def translated(what: str, workspace: Place | None = None, secrets: tuple[str, ...] = ()) -> Iterator[None]:
    """Raise errors of Azure's packages in this block as ours. `what` is the action, such as "submit job a-1".

    `secrets` are texts that must not appear in a message. With a workspace, hints suggest similar names that exist.
    """
    try:
        yield
    except DistError:
        raise
    except Exception as error:
        said = _in_words(error, workspace)
        if said is None:
            raise
        request_id = _request_id(error)
        hint = "; ".join(filter(None, [said.hint, f"request id for Azure support: {request_id}" if request_id else ""]))
        message = said.before.format(what=what) + said.message
        ours = said.kind(_without(message, secrets), hint=_without(hint, secrets) or None)
        ours.request_id = request_id
        # The cause is printed with the error; it is dropped if it quotes a secret.
        raise ours from (None if any(secret in str(error) for secret in secrets) else error)


def nearest(name: str, names: Callable[[], list[str]]) -> str:
    """A hint with similar names that exist; empty if they cannot be listed."""
    try:
        known = names()
    except Exception:
        return ""
    there = f"existing ones: {', '.join(sorted(known)[:8])}" if known else ""
    return did_you_mean(like(name, known, most=3, cutoff=0.5)) or there


def _in_words(error: Exception, workspace: Place | None) -> _Said | None:
    from azure.core.exceptions import (
        AzureError,
        ClientAuthenticationError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )

    if isinstance(error, BrokenAnswerError):
        return _of_broken_answer(error, workspace)
    if isinstance(error, HttpResponseError) and error.status_code:
        return _of_status(error, workspace)
    if isinstance(error, ClientAuthenticationError):  # includes CredentialUnavailableError
        return _of_login(error)
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return _of_connection(error, workspace)
    if isinstance(error, AzureError) or _module(error).startswith(("azure.", "marshmallow")):
        return _of_sdk(error)
    if _module(error).startswith(("requests", "urllib3")):
        return _of_connection(error, workspace)
    if _comes_of_azure(error):
        return _of_broken_answer(BrokenAnswerError(f"azure-ai-ml failed on it ({_brief(error)})"), workspace)
    return None


def _comes_of_azure(error: BaseException) -> bool:
    """Whether an error was raised in Azure's packages or below: they read answers without checking them."""
    if isinstance(error, OSError):  # such as an unreadable file
        return False
    names = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    ours = max((i for i, name in enumerate(names) if name.startswith("azml_dist.")), default=-1)
    return any(name.startswith("azure.") for name in names[ours + 1 :])


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def _of_broken_answer(error: Exception, workspace: Place | None) -> _Said:
    return _Said(
        SubmitError,
        f"the answer is not from Azure ML: {error}",
        "try again; a proxy or a sign-in page may have answered instead"
        + (f" (open {workspace.arm.host} in a browser to see it)" if workspace else ""),
    )


def _of_status(error: Any, workspace: Place | None) -> _Said:
    refusal = _Refusal.of(error, workspace)
    return next(in_words(refusal) for applies, in_words in _REFUSALS if applies(refusal))


class _Refusal(NamedTuple):
    """The service's answer, and the workspace."""

    status: int
    code: str
    message: str
    body: str
    workspace: Place | None

    @classmethod
    def of(cls, error: Any, workspace: Place | None) -> _Refusal:
        code = str(getattr(error.error, "code", None) or _headers(error).get("x-ms-error-code") or "")
        return cls(error.status_code, code, _message(error), _body(error), workspace)

    @property
    def is_out_of_time(self) -> bool:
        return self.status == 401 and _OUT_OF_TIME.search(self.message) is not None

    @property
    def is_quota(self) -> bool:
        says_so = "quota" in self.code.lower() or _QUOTA.search(self.message) is not None
        return says_so and self.status in (400, 403, 409)

    @property
    def is_not_found(self) -> bool:
        names_no_compute = "UnknownComputeTarget" in self.body or "Unknown compute target" in self.message
        return self.status == 404 or names_no_compute

    @property
    def is_taken(self) -> bool:
        return "JobPropertyImmutable" in self.body or "A job with this name already exists" in self.message


def _words(kind: type[SubmitError], message: str, hint: str | None = None) -> Callable[[_Refusal], _Said]:
    """The message for a refusal; `{status}` and `{message}` are the service's."""
    return lambda it: _Said(kind, message.format(status=it.status, message=it.message), hint)


def _of_403(it: _Refusal) -> _Said:
    found = re.search(r"perform action '([^']+)' over scope '([^']+)'", it.message)
    if it.code in _STORAGE:
        words, hint = _STORAGE[it.code]
        return _Said(AuthError, words, hint)
    if found:
        place = found[2].rpartition("/")[2]
        return _Said(
            AuthError,
            f"your login is not allowed to do {found[1]} in {place}",
            "ask the workspace's owner for the role AzureML Data Scientist",
        )
    return _Said(
        AuthError,
        f"not allowed: {it.message}",
        "the workspace's firewall or private network may be the reason: try from inside it",
    )


def _of_404(it: _Refusal) -> _Said:
    message, workspace = it.message, it.workspace
    client = workspace.client if workspace else None
    if found := re.search(r"(?:Unknown compute target '|/computes/)([\w-]+)", message):
        hint = nearest(found[1], lambda: [one.name for one in client.compute.list()]) if client else ""
        return _Said(NotFound, f"the workspace has no compute `{found[1]}`", hint or None)
    if found := re.search(r"Environment (?:asset )?([\w.-]+)(?::([\w.-]+))? not found", message):
        name, version = found[1], found[2]
        hint = nearest(name, lambda: [str(one.name) for one in client.environments.list()]) if client else ""
        named = f"`{name}`" if not version else f"`{name}:{version}`"
        return _Said(NotFound, f"there is no environment {named}", hint or "`az ml environment list` shows them")
    if found := re.search(r"(Data|Code|Model) asset ([\w.-]+):([\w.-]+) not found", message):
        listing = getattr(client, {"Data": "data", "Model": "models"}.get(found[1], ""), None)
        hint = nearest(found[2], lambda: [str(one.name) for one in listing.list()]) if listing else ""
        return _Said(NotFound, f"there is no {found[1].lower()} `{found[2]}:{found[3]}`", hint or None)
    if found := re.search(r"workspaces/([\w-]+)' under resource group '([^']+)' was not found", message):
        hint = "check its name, resource group and subscription with `az ml workspace list`"
        if workspace:
            near = nearest(found[1], lambda: [str(one.name) for one in workspace.client.workspaces.list()])
            hint = near or f"searched in subscription {workspace.subscription_id}; {hint}"
        return _Said(NotFound, f"there is no workspace `{found[1]}` in resource group `{found[2]}`", hint)
    if found := re.search(r"(?i)(resource group|subscription) '([^']+)' could not be found", message):
        hint = (
            "`az account list` shows your subscriptions"
            if found[1].lower() == "subscription"
            else "`az group list` shows your resource groups"
        )
        return _Said(NotFound, f"there is no {found[1].lower()} `{found[2]}`", hint)
    if found := re.search(r"Job ([\w-]+) not found", message):
        message = f"the workspace has no run `{found[1]}`"
        return _Said(NotFound, message, "`azml-dist list` shows the runs", before="")
    return _Said(NotFound, f"not found: {message}")


def _of_proxy(_: _Refusal) -> _Said:
    found = trouble("Tunnel connection failed: 407", "Azure")
    return _Said(SubmitError, found.message, found.hint)


_REFUSALS: tuple[tuple[Callable[[_Refusal], bool], Callable[[_Refusal], _Said]], ...] = (
    (
        lambda it: it.status < 400,
        _words(
            SubmitError,
            "the answer is not from Azure ML (HTTP {status})",
            "a proxy or a sign-in page may have answered instead: open https://management.azure.com in a browser",
        ),
    ),
    (lambda it: it.status == 407, _of_proxy),
    (
        lambda it: it.is_out_of_time,
        _words(
            AuthError,
            "the login is not valid at this time ({message})",
            "the clock of this machine may be wrong (check it with `date`); otherwise run `az login` again",
        ),
    ),
    (
        lambda it: it.status == 401,
        _words(AuthError, "Azure rejected the login ({message})", f"{_LOGIN}; a login expires after some hours"),
    ),
    (
        lambda it: it.is_quota,
        _words(
            SubmitError,
            "the quota is too small: {message}",
            "`az ml compute list-usage` shows it; request more in the portal, or use fewer or smaller nodes",
        ),
    ),
    (lambda it: it.status == 403, _of_403),
    (lambda it: it.is_not_found, _of_404),
    (
        lambda it: it.status == 409,
        _words(
            SubmitError,
            "it conflicts with something that exists: {message}",
            "use another name or version, or wait until the other change is done",
        ),
    ),
    (
        lambda it: it.status == 429,
        _words(
            SubmitError,
            "Azure received too many requests, and kept refusing after several attempts",
            "wait a few minutes; submit many jobs as one list, which needs fewer requests",
        ),
    ),
    (
        lambda it: it.status >= 500,
        _words(
            SubmitError,
            "Azure answered {status}: {message}",
            _OUTAGE,
        ),
    ),
    (
        lambda it: it.is_taken,
        _words(
            SubmitError,
            "a job with this name but different content exists",
            "change the `name` of the job, or leave it out so that each run gets a new one",
        ),
    ),
    (lambda it: True, _words(SubmitError, "Azure refused it: {message}")),
)
"""The service's refusals and our messages for them; the first match counts."""


def _of_login(error: Exception) -> _Said:
    """Why no login worked. Several may have been tried; the one that was set up matters."""
    attempts = [" ".join(one.split()) for one in _ATTEMPT.split(str(error))]
    if refused := next((code for one in attempts if (code := _ENTRA.search(one))), None):
        words, hint = _REFUSED.get(refused[1], (f"the login failed: {refused[0]}", _LOGIN))
        return _Said(AuthError, words, hint)
    # Without a managed identity, the request to its address always fails.
    ways = [one for one in attempts if not one.startswith("ManagedIdentityCredential")]
    if failed := next((one for one in ways if speaks_of_a_connection(one)), None):
        found = trouble(failed, "the login service")
        return _Said(SubmitError, found.message, found.hint, before="cannot log in to {what}: ")
    if busy := next((said for one in ways if (said := _BUSY.search(one))), None):
        return _Said(SubmitError, f"the login service answers {busy[1]}", _OUTAGE, before="cannot log in to {what}: ")
    if failure := next((said for one in ways if (said := _FAILED.match(one))), None):
        return _Said(AuthError, f"the login failed: {failure[1][:200]}", _LOGIN)
    text = " ".join(str(error).split())
    if "failed to retrieve a token" in text or "Unavailable" in type(error).__name__ or "az login" in text:
        return _Said(AuthError, "you are not logged in to Azure", _LOGIN)
    return _Said(AuthError, f"the login failed: {text[:200]}", _LOGIN)


def _of_connection(error: Exception, workspace: Place | None) -> _Said:
    found = trouble(" ".join(map(str, _chain(error))), workspace.arm.host if workspace else "Azure")
    return _Said(SubmitError, found.message, found.hint)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: azure-core's outer errors omit the host."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_sdk(error: Exception) -> _Said:
    text = " ".join(str(getattr(error, "message", None) or error).split())
    found = re.search(r"(?:parsing asset|asset) (\S+) .*Version must be provided", text)
    if found:
        name = found[1].removeprefix("azureml:")
        return _Said(
            SubmitError,
            f"`{name}` has no version",
            f"`azureml:{name}@latest`, or a number: `azureml:{name}:1`",
        )
    if found := re.match(r"Asset (\S+) does not exist in workspace ([\w-]+)", text):
        return _Said(
            NotFound,
            f"workspace {found[2]} has no `{found[1]}`",
            "`az ml environment list` shows what exists; an environment of a registry is"
            " `azureml://registries/azureml/environments/NAME/labels/latest`",
        )
    return _Said(SubmitError, f"azure-ai-ml refused it: {text[:300]}")


def _message(error: Any) -> str:
    """The service's own sentence, without azure-core's additions."""
    of_blobs = _OF_BLOBS.search(_body(error))
    said = of_blobs[1] if of_blobs else getattr(error.error, "message", None)
    text = said or _BARE.sub(r"\1", _STATUS.sub("", str(error.message or error)))
    return " ".join(str(text).split())[:400]


def _body(error: Any) -> str:
    try:
        return str(error.response.text())
    except Exception:
        return ""


def _headers(error: Any) -> Mapping[str, str]:
    return getattr(getattr(error, "response", None), "headers", None) or {}


def _request_id(error: Any) -> str | None:
    headers = _headers(error)
    return headers.get("x-ms-request-id") or headers.get("x-ms-correlation-request-id")


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, FROM_YOUR_ENVIRONMENT)
    return text


def _module(error: Exception) -> str:
    return type(error).__module__
