"""The environment of a job in the workspace: looked up, or registered under a name of its content's hash."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

from azml_dist.azureml.arm import retrying
from azml_dist.azureml.command import environment_entity
from azml_dist.azureml.inputs import stored
from azml_dist.azureml.workspace import Workspace
from azml_dist.values import is_remote

if TYPE_CHECKING:
    from azml_dist.parts import Environment

_ANONYMOUS = "CliV2AnonymousEnvironment"
"""The name that azure-ai-ml gives to what is written out in a job; its version is a hash."""


def environment_id(workspace: Workspace, environment: Environment | str | None, stop: threading.Event) -> str:
    """The environment's id, so that no job has to ask for it; a name with its version is one."""
    environments = workspace.client.environments
    if environment is None or isinstance(environment, str):
        reference = (environment or "").removeprefix("azureml:")
        name, at, label = reference.partition("@")
        if not at or "/" in reference:
            return environment or ""
        found = retrying(lambda: environments.get(name, label=label), stop=stop)
    else:
        entity = _entity(workspace, environment, stop)
        # A name of its content's hash, so that twice is once.
        found = retrying(lambda: environments.create_or_update(entity), stop=stop)
    return str(found.id)


def _entity(workspace: Workspace, environment: Environment, stop: threading.Event) -> Any:
    build = environment.build
    if build is None or is_remote(build.path):
        return environment_entity(environment)
    # azure-ai-ml's own upload of the folder goes on after Ctrl-C, and shows nothing.
    place = stored(workspace, build.path, "Docker build", "environment.build.path", stop)
    entity = environment_entity(environment.with_(build=build.with_(path=f"{place.url}/")))
    if environment.name is None:
        # A version of our own hash: under azure-ai-ml's, the service would have the folder in another place.
        entity.name = _ANONYMOUS
        entity.version = hashlib.sha256(f"{place.digest} {build.dockerfile_path or ''}".encode()).hexdigest()
    return entity
