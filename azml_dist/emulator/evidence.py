"""How it is known that the service answers as the emulator does: for each route, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from azml_dist.emulator.routing import Host, Route

DOCUMENTED, SEEN, INFERRED, OWN = "documented", "seen", "inferred", "the emulator's own"


class Evidence(NamedTuple):
    """How sure an answer is, and where that is from."""

    how: str
    source: str


_ARM = "REST API of Azure ML, `2025-12-01`; bodies are checked with azure-ai-ml's models of it"
_OF_ROUTES = {
    "jobs.cancelResult": Evidence(INFERRED, "documented is a `202` with a `Location`, not its path"),
    "permissions.list": Evidence(DOCUMENTED, "REST API of Azure RBAC, *Permissions - List for resource*"),
    "login.*": Evidence(DOCUMENTED, "Microsoft identity platform, client credentials; OpenID Connect discovery"),
    "discovery": Evidence(SEEN, "azure-ai-ml asks it for the address of run history"),
    "runs.dataOfMany": Evidence(
        INFERRED, "azure-ai-ml's generated client of run history has it; no code that asks it is known"
    ),
    "runs.*": Evidence(SEEN, "azure-ai-ml's generated client of run history; fields are those that it reads"),
    "data.resolve": Evidence(SEEN, "azure-ai-ml's generated client `dataset_dataplane`; spelling as in its issues"),
    "metrics.*": Evidence(DOCUMENTED, "REST API of MLflow; the path before it as in `mlFlowTrackingUri`"),
    "artifacts.*": Evidence(INFERRED, "MLflow's own artifact protocol, where Azure ML has `azureml://` addresses"),
    "insights.*": Evidence(DOCUMENTED, "REST API of Azure Monitor, *Metrics - List*"),
}
"""Of the routes that match a pattern; the first counts."""
_OF_HOSTS = {
    Host.ARM: Evidence(DOCUMENTED, _ARM),
    Host.API: Evidence(SEEN, "azure-ai-ml's generated clients"),
    Host.LOGIN: Evidence(DOCUMENTED, "Microsoft identity platform"),
    Host.SELF: Evidence(OWN, "no part of Azure ML"),
}


def of(route: Route) -> Evidence:
    """The evidence for a route."""
    found = (known for pattern, known in _OF_ROUTES.items() if fnmatchcase(route.name, pattern))
    return next(found, _OF_HOSTS[route.host])


def tables(routes: list[Route]) -> Iterator[str]:
    """All routes by host, as Markdown."""
    for host in Host:
        usual = _OF_HOSTS[host]
        yield f"## {host.value or 'The emulator itself'}\n"
        yield f"Unless the table says otherwise: {usual.how}, {usual.source}.\n"
        yield "| route | request | answers | evidence |"
        yield "|---|---|---|---|"
        for route in sorted((one for one in routes if one.host is host), key=lambda one: (one.path, one.method)):
            known = of(route)
            does = (route.answer.__doc__ or "").strip().partition("\n")[0]
            how = "" if known == usual else f"{known.how}: {known.source}"
            yield f"| `{route.name}` | `{route.method} {route.path}` | {does} | {how} |"
        yield ""
