"""Routes: which method of which service answers a request.

A service is an object whose methods carry `@route`. In a path template `{WS}` stands for the workspace's ARM path and
`{name}` for one segment, handed to the method under that name; a name that ends with `_path` takes all that is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from azml_dist.emulator.state import Workspace
from azml_dist.emulator.wire import Refusal, Reply, Request

_Method = TypeVar("_Method", bound=Callable[..., Reply])
_WS = (
    r"/subscriptions/(?P<ws_subscription>[^/]+)/resourceGroups/(?P<ws_group>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<ws_name>[^/]+)"
)


class Host(Enum):
    """The host names of the service."""

    ARM = "management.azure.com"
    API = "REGION.api.azureml.ms"
    LOGIN = "login.microsoftonline.com"
    SELF = ""
    """The emulator itself, asked without a tunnel."""


def route(name: str, method: str, host: Host, path: str, *, anonymous: bool = False) -> Callable[[_Method], _Method]:
    """Mark a method as the answer to a route; `anonymous` ones need no token."""

    def mark(function: _Method) -> _Method:
        function.route = (name, method, host, path, anonymous)  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True)
class Route:
    """One route, bound to the object that answers it."""

    name: str
    method: str
    host: Host
    pattern: re.Pattern[str]
    anonymous: bool
    path: str
    """As it was written, with `{WS}` for the path of the workspace."""
    answer: Callable[..., Reply]


class Router:
    """Finds the route of a request."""

    def __init__(self, workspace: Workspace, services: Iterable[object]) -> None:
        self._workspace = workspace
        self.routes = [route for service in services for route in _routes_of(service)]

    def find(self, request: Request) -> tuple[Route, dict[str, str]] | None:
        """The route and its path parameters; None if no route matches."""
        host = self.host_of(request.host)
        for candidate in self.routes:
            if candidate.method == request.method and candidate.host is host:
                found = candidate.pattern.fullmatch(request.path)
                if found:
                    return candidate, found.groupdict()
        return None

    def host_of(self, host: str) -> Host | None:
        """Which of the service's hosts this is."""
        if host == f"{self._workspace.region}.api.azureml.ms":
            return Host.API
        return next((known for known in (Host.ARM, Host.LOGIN, Host.SELF) if known.value == host), None)

    def call(self, found: Route, request: Request, parameters: dict[str, str]) -> Reply:
        """Answer, after the checks that every route has in common."""
        if not found.anonymous:
            self._workspace.check_token(request)
        if "ws_name" in parameters:
            self._check_scope(*(parameters.pop(key) for key in ("ws_subscription", "ws_group", "ws_name")))
        self._workspace.check_permission(found.name)
        return found.answer(request, **parameters)

    def _check_scope(self, subscription: str, group: str, name: str) -> None:
        here = self._workspace
        if subscription.lower() != here.subscription_id.lower():
            raise Refusal(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
        if group.lower() != here.resource_group.lower():
            raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        if name.lower() != here.name.lower():
            kind = f"Microsoft.MachineLearningServices/workspaces/{name}"
            hint = "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
            raise Refusal(
                404, "ResourceNotFound", f"The Resource '{kind}' under resource group '{group}' was not found. {hint}"
            )


def _routes_of(service: Any) -> Iterable[Route]:
    for attribute in dir(type(service)):
        marked = getattr(getattr(type(service), attribute), "route", None)
        if marked:
            name, method, host, path, anonymous = marked
            yield Route(name, method, host, _pattern(path), anonymous, path, getattr(service, attribute))


def _pattern(path: str) -> re.Pattern[str]:
    written = (
        _WS if part == "{WS}" else _segment(part[1:-1]) if part.startswith("{") else re.escape(part)
        for part in re.split(r"(\{\w+\})", path)
    )
    return re.compile("".join(written), re.IGNORECASE)


def _segment(name: str) -> str:
    return rf"(?P<{name}>{'.+' if name.endswith('_path') else '[^/]+'})"
