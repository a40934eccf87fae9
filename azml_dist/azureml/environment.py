"""The environment of a job in the workspace: looked up, or registered under a hash of its content."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from azml_dist.azureml.arm import retrying
from azml_dist.azureml.content import ANONYMOUS, build_version
from azml_dist.azureml.inputs import stored
from azml_dist.azureml.workspace import Workspace
from azml_dist.notation.expressions import is_remote
from azml_dist.sdk.command import environment_entity

if TYPE_CHECKING:
    from azml_dist.model.parts import Environment


def environment_id(workspace: Workspace, environment: Environment | str | None, stop: threading.Event) -> str:
    """The environment's id, so that no job has to look it up; a name with a version is already one."""
    environments = workspace.client.environments
    if environment is None or isinstance(environment, str):
        reference = (environment or "").removeprefix("azureml:")
        name, at, label = reference.partition("@")
        if not at or "/" in reference:
            return environment or ""
        found = retrying(lambda: environments.get(name, label=label), stop=stop)
    else:
        entity = _entity(workspace, environment, stop)
        # Named by a hash of its content, so that the same environment is registered only once.
        found = retrying(lambda: environments.create_or_update(entity), stop=stop)
    return str(found.id)


def _entity(workspace: Workspace, environment: Environment, stop: threading.Event) -> Any:
    build = environment.build
    if build is None or is_remote(build.path):
        return environment_entity(environment)
    # azure-ai-ml's own upload of the folder continues after Ctrl-C, and shows no progress.
    place = stored(workspace, build.path, "Docker build", "environment.build.path", stop)
    entity = environment_entity(environment.with_(build=build.with_(path=f"{place.url}/")))
    if environment.name is None:
        # A version with our own hash: for azure-ai-ml's, the service would have the folder in another place.
        entity.name = ANONYMOUS
        entity.version = build_version(place.digest, build.dockerfile_path)
    return entity
