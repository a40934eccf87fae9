"""The interactive services of a run on Azure ML, as run history knows them."""

from __future__ import annotations

from urllib.parse import quote

from azml_dist.azureml.errors import translated
from azml_dist.azureml.workspace import Workspace
from azml_dist.plan.requested import SERVICES, plain_word
from azml_dist.runs.services import RunService

_NODE = "<nodeIndex>"
"""In addresses; azure-ai-ml fills it in."""


def services_of(workspace: Workspace, run: str, node: int = 0) -> dict[str, RunService]:
    """The services on a node of a run, with what azure-ai-ml's `show_services` reads."""
    with translated(f"find the services of run {run}", workspace):
        asked = workspace.history.read(f"runs/{quote(run, safe='')}/serviceinstances/{node}")
        found = {}
        for name, one in asked.object("instances").each_object():
            address, kind = one.text("endpoint"), one.text("type") or ""
            url = address.replace(_NODE, str(node)) if address else None
            error = one.object("error").object("error").text("message")
            found[name] = RunService(SERVICES.get(plain_word(kind), kind), url, one.text("status"), error)
        return found
