"""What a submission needs from Azure: login, workspace, its services, and the permissions of the login. Only reads."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from azml_dist.azureml.answers import Answer, BrokenAnswerError
from azml_dist.azureml.arm import pages
from azml_dist.azureml.errors import translated
from azml_dist.azureml.network import trouble
from azml_dist.azureml.workspace import Workspace
from azml_dist.configured import source_of_ids
from azml_dist.errors import DistError, SubmitError
from azml_dist.health import Line

_PERMISSIONS = "providers/Microsoft.Authorization/permissions"
_PERMISSIONS_VERSION = "2022-04-01"
_PAGES = 20
_TIMEOUT = 15.0
"""The timeout of one request, in seconds."""
_WORKSPACES = "Microsoft.MachineLearningServices/workspaces"
RIGHTS: Mapping[str, tuple[str, ...]] = {
    "submit": ("jobs/write", "environments/write", "environments/build/action", "environments/readSecrets/action"),
    "logs": ("jobs/read", "experiments/runs/read"),
    "download": ("datastores/listSecrets/action",),
}
"""Actions under `Microsoft.MachineLearningServices/workspaces/` that each command needs.

Source: Azure Machine Learning, "Manage access to workspaces" (how-to-assign-roles), row "Submitting any type of run
(V2)". Inferred from the requests: logs need `experiments/runs/read`, and downloads need the secrets of a datastore that
has some.
"""
_NEEDED = "submit"
_HINT_OF_RIGHTS = "request the role `AzureML Data Scientist` on the workspace"


def of_azure(workspace: Workspace) -> Iterator[Line]:
    """One line for each thing; if something is missing, whatever depends on it is reported as not checked."""
    configured = _configured(workspace)
    yield configured
    if configured.state != "ok":
        yield from _not_checked(("login", "workspace's region", "storage", *RIGHTS), "no workspace is configured")
        return
    login = _login(workspace)
    yield login
    if login.state != "ok":
        yield from _not_checked(("resource manager", "workspace's region", "storage", *RIGHTS), "you are not logged in")
        return
    manager = _tried("resource manager", workspace, lambda: _manager(workspace), is_needed=True)
    yield manager
    if manager.state != "ok":
        yield from _not_checked(("workspace's region", "storage", *RIGHTS), "the workspace could not be read")
        return
    yield _tried("workspace's region", workspace, lambda: _region(workspace), is_needed=True)
    yield _tried("storage", workspace, lambda: _storage(workspace), is_needed=True)
    yield from _rights(workspace)


def _configured(workspace: Workspace) -> Line:
    try:
        name = f"{workspace.name} (resource group {workspace.resource_group}, subscription {workspace.subscription_id})"
    except DistError as error:
        return Line("workspace", "missing", error.problems[0].message, error.hint, is_needed=True)
    return Line("workspace", "ok", f"{name}, from {source_of_ids(workspace.given)}")


def _login(workspace: Workspace) -> Line:
    try:
        with translated("log in", workspace):
            token = workspace.arm.log_in()
    except DistError as error:
        return Line("login", "missing", error.problems[0].message, error.hint, is_needed=True)
    way = type(getattr(workspace.credential, "_successful_credential", None) or workspace.credential).__name__
    return Line("login", "ok", f"{_who(token)}, by {way}")


def _who(token: str) -> str:
    """The account of a token, if it says so; Azure's tokens are JSON Web Tokens, which may change (documented)."""
    parts = token.split(".")
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError):
        return "an unknown account: the token does not say which"
    if not isinstance(claims, Mapping):
        return "an unknown account: the token does not say which"
    names = ("upn", "unique_name", "preferred_username", "app_displayname", "appid", "oid")
    name = next((str(claims[key]) for key in names if claims.get(key)), "somebody")
    return f"{name}, tenant {claims['tid']}" if claims.get("tid") else name


def _tried(name: str, workspace: Workspace, check: Callable[[], str], *, is_needed: bool) -> Line:
    try:
        with translated("read the workspace", workspace):
            return Line(name, "ok", check())
    except DistError as error:
        message = error.problems[0].message.removeprefix("cannot read the workspace: ")
        return Line(name, "missing", message, error.hint, is_needed=is_needed)


def _manager(workspace: Workspace) -> str:
    workspace.arm.call("GET", "", attempts=2, timeout=_TIMEOUT)
    return workspace.arm.host


def _region(workspace: Workspace) -> str:
    """Whether the services of the region respond; refusing a run without a name is a response too."""
    from azure.core.exceptions import HttpResponseError

    try:
        workspace.history.call("GET", "runs/azml-dist-doctor/details", attempts=2, timeout=_TIMEOUT)
    except HttpResponseError as error:
        if error.status_code not in (400, 404):
            raise
    return workspace.history.host


def _storage(workspace: Workspace) -> str:
    """Whether the account of the default datastore responds, whatever it answers without a login."""
    from azure.core import PipelineClient
    from azure.core.exceptions import AzureError
    from azure.core.pipeline.policies import ProxyPolicy
    from azure.core.rest import HttpRequest

    stores = workspace.arm.read("datastores", query={"isDefault": "true"}).objects("value")
    if not stores:
        raise SubmitError(
            "the workspace has no default datastore", hint="code is uploaded there: set a default datastore"
        )
    store = stores[0].object("properties")
    if not store.has("accountName"):
        raise SubmitError("the default datastore is not a blob container", hint="code is uploaded there")
    host = f"{store.needed('accountName')}.blob.{store.needed('endpoint')}"
    client: Any = PipelineClient(f"https://{host}", policies=[ProxyPolicy()])
    try:
        client.send_request(HttpRequest("GET", f"https://{host}/"), connection_timeout=10, read_timeout=_TIMEOUT)
    except AzureError as error:
        found = trouble(str(error), host)
        raise SubmitError(found.message, hint=found.hint) from error
    return host


class Permission(NamedTuple):
    """The actions that one role allows; `*` stands for any text, also with slashes.

    Source: Azure RBAC, "Understand Azure role definitions".
    """

    actions: Sequence[str]
    not_actions: Sequence[str]

    def allows(self, action: str) -> bool:
        """Whether it allows an action; another role may still allow what `notActions` excludes (documented)."""
        return _any(self.actions, action) and not _any(self.not_actions, action)


def _any(patterns: Sequence[str], action: str) -> bool:
    return any(re.fullmatch(re.escape(one).replace(r"\*", ".*"), action, re.IGNORECASE) for one in patterns)


def _rights(workspace: Workspace) -> Iterator[Line]:
    try:
        with translated("read the roles of this login", workspace):
            permissions = _permissions(workspace)
    except DistError as error:
        yield from _not_checked(RIGHTS, error.problems[0].message)
        return
    for command, actions in RIGHTS.items():
        wanted = [f"{_WORKSPACES}/{action}" for action in actions]
        missing = [action for action in wanted if not any(one.allows(action) for one in permissions)]
        if missing:
            needed = command == _NEEDED
            yield Line(
                command,
                "missing",
                f"this login is not allowed to {', '.join(missing)}",
                _HINT_OF_RIGHTS,
                is_needed=needed,
            )
        else:
            yield Line(command, "ok", "the roles of this login allow it")


def _permissions(workspace: Workspace) -> list[Permission]:
    """Of all roles: the list may have several pages (documented), and the next one may have what the first lacks."""

    def ask(query: dict[str, str]) -> Answer:
        query = {"api-version": _PERMISSIONS_VERSION, **query}
        return Answer(workspace.arm.call("GET", _PERMISSIONS, query=query, attempts=2, timeout=_TIMEOUT))

    found = [*pages(ask, _PAGES)]
    if found[-1].text("nextLink"):
        raise BrokenAnswerError("the list of roles does not end")
    roles = (one for page in found for one in page.objects("value"))
    return [Permission(one.strings("actions"), one.strings("notActions")) for one in roles]


def _not_checked(names: Sequence[str] | Mapping[str, Any], why: str) -> Iterator[Line]:
    for name in names:
        yield Line(name, "not checked", why)
