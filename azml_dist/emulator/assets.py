"""Versions of code, environments and data: their routes, look-up by hash, and room to upload into."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from azml_dist.emulator.models import check
from azml_dist.emulator.routing import Host, route
from azml_dist.emulator.state import Workspace
from azml_dist.emulator.wire import Json, Reply, Request, not_found, user_error

_MODELS = {
    "codes": "CodeVersion",
    "environments": "EnvironmentVersion",
    "data": "DataVersionBase",
    "components": "ComponentVersion",
    "models": "ModelVersion",
}
_URIS = {"codes": "codeUri", "data": "dataUri", "models": "modelUri"}


_FIXED = ("image", "build", "condaFile")
"""What makes an environment what it is."""


@dataclass
class AssetRoutes:
    """Assets, by kind (`codes`, `environments`, `data`, `models`) and name, versions in order of creation."""

    workspace: Workspace
    assets: dict[tuple[str, str], dict[str, Json]] = field(default_factory=dict)

    def version(self, kind: str, name: str, version: str) -> Json:
        """One version, as the service describes it."""
        found = self.assets.get((kind, name), {}).get(version)
        if found is None:
            noun = kind.removesuffix("s").capitalize()
            raise not_found(f"{noun} asset {name}:{version} not found in workspace {self.workspace.name}.")
        return found

    def by_id(self, arm_id: str) -> Json:
        """One version, by the ARM id that a job refers to it with."""
        prefix = f"{self.workspace.arm_id}/"
        parts = arm_id[len(prefix) :].split("/") if arm_id.lower().startswith(prefix.lower()) else []
        if len(parts) != 4 or parts[2] != "versions":
            raise user_error(f"Resource id {arm_id} is not valid in this workspace.")
        kind, name, _, version = parts
        return self.version(kind, name, version)

    def add(self, kind: str, name: str, version: str, properties: Json) -> Json:
        """Store a version; tests use it for what is there before any request."""
        usual: Json = {"tags": {}, "properties": {}, "isArchived": False, "isAnonymous": False}
        usual |= {"flavors": {}} if kind == "models" else {}
        if "componentSpec" in properties:  # azure-ai-ml reads a component's version there
            spec = {**properties["componentSpec"], "name": name, "version": version}
            properties = {**properties, "componentSpec": spec}
        resource = {
            "id": f"{self.workspace.arm_id}/{kind}/{name}/versions/{version}",
            "name": version,
            "type": f"Microsoft.MachineLearningServices/workspaces/{kind}/versions",
            "properties": {**usual, **properties},
            "systemData": self.workspace.system_data(),
        }
        self.assets.setdefault((kind, name), {})[version] = resource
        return resource

    def add_environment(self, name: str, version: str = "1", image: str = "mcr.microsoft.com/azureml/base") -> Json:
        """A registered environment."""
        properties = {"image": image, "osType": "Linux", "environmentType": "UserCreated"}
        return self.add("environments", name, version, properties)

    def add_data(self, name: str, version: str, files: dict[str, bytes]) -> Json:
        """A registered `uri_folder` with these files in the default datastore."""
        store, folder = next(iter(self.workspace.datastores.items())), f"data/{name}/{version}"
        for path, content in files.items():
            self.workspace.account.put(store[1].container, f"{folder}/{path}", content)
        uri = f"azureml:/{self.workspace.arm_id}/datastores/{store[0]}/paths/{folder}/"
        return self.add("data", name, version, {"dataType": "uri_folder", "dataUri": uri})

    def add_model(self, name: str, version: str = "1") -> Json:
        """A registered model, whose files are nowhere."""
        uri = f"azureml:/{self.workspace.arm_id}/datastores/workspaceblobstore/paths/models/{name}"
        return self.add("models", name, version, {"modelType": "custom_model", "modelUri": uri})

    def add_output(self, name: str, version: str | None, kind: str, uri: str) -> Json:
        """What a job wrote, as a new version of a model or of data."""
        is_model = kind.endswith("_model")
        plural = "models" if is_model else "data"
        fields = {"modelType": kind, "modelUri": uri} if is_model else {"dataType": kind, "dataUri": uri}
        return self.add(plural, name, version or self._next(plural, name), fields)

    def _next(self, kind: str, name: str) -> str:
        numbers = [int(version) for version in self.assets.get((kind, name), {}) if version.isdigit()]
        return str(max(numbers, default=0) + 1)

    def _list(self, kind: str, request: Request, name: str) -> Reply:
        versions = list(self.assets.get((kind, name), {}).values())[::-1]
        top = int(request.query.get("$top") or len(versions))
        return Reply(body={"value": versions[:top]})

    def _put(self, kind: str, request: Request, name: str, version: str) -> Reply:
        body = request.json()
        check(_MODELS[kind], body)
        with self.workspace.changed:
            before = self.assets.get((kind, name), {}).get(version)
            properties = {key: value for key, value in body["properties"].items() if value is not None}
            if before is None:
                return Reply(201, self.add(kind, name, version, properties))
            _refuse_change(kind, f"{name}:{version}", before["properties"], properties)
            before["properties"].update(properties)
            return Reply(200, before)

    def _containers(self, kind: str) -> Reply:
        return Reply(body={"value": [self._container(kind, name).body for found, name in self.assets if found == kind]})

    def _container(self, kind: str, name: str) -> Reply:
        versions = self.assets.get((kind, name))
        if not versions:
            raise not_found(f"{kind} container {name} not found in workspace {self.workspace.name}.")
        properties = {
            "latestVersion": list(versions)[-1],
            "nextVersion": self._next(kind, name),
            "tags": {},
            "properties": {},
            "isArchived": False,
        }
        if kind == "data":
            properties["dataType"] = next(iter(versions.values()))["properties"]["dataType"]
        return Reply(
            body={
                "id": f"{self.workspace.arm_id}/{kind}/{name}",
                "name": name,
                "type": f"Microsoft.MachineLearningServices/workspaces/{kind}",
                "properties": properties,
                "systemData": self.workspace.system_data(),
            }
        )

    @route("codes.list", "GET", Host.ARM, "{WS}/codes/{name}/versions")
    def list_codes(self, request: Request, name: str) -> Reply:
        """Versions of a code asset; with `hash`, every code asset of this content, whatever its name."""
        wanted = request.query.get("hash")
        if wanted is None:
            return self._list("codes", request, name)
        found = [
            resource
            for (kind, _), versions in list(self.assets.items())
            if kind == "codes"
            for resource in list(versions.values())
            if resource["properties"]["properties"].get("hash_sha256") == wanted
            and str(resource["properties"]["properties"].get("hash_version")) == request.query.get("hashVersion")
        ]
        return Reply(body={"value": found})

    @route("codes.startPendingUpload", "POST", Host.ARM, "{WS}/codes/{name}/versions/{version}/startPendingUpload")
    def start_code_upload(self, request: Request, name: str, version: str) -> Reply:
        """A new container for a code version, and a SAS to fill it."""
        check("PendingUploadRequestDto", request.json())
        account = self.workspace.account
        container = f"{self.workspace.workspace_id[:10]}-{uuid.uuid4()}"
        account.create_container(container)
        group = self.workspace.arm_id.partition("/providers/")[0]
        reference = {
            "blobUri": account.url(container),
            "storageAccountArmId": f"{group}/providers/Microsoft.Storage/storageAccounts/{account.name}",
            "credential": {
                "credentialType": "SAS",
                "sasUri": account.url(container, sas=account.sas(container, permissions="racwl")),
            },
        }
        return Reply(
            body={
                "blobReferenceForConsumption": reference,
                "pendingUploadId": str(uuid.uuid4()),
                "pendingUploadType": "TemporaryBlobReference",
            }
        )

    @route("codes.put", "PUT", Host.ARM, "{WS}/codes/{name}/versions/{version}")
    def put_code(self, request: Request, name: str, version: str) -> Reply:
        """Register code that was uploaded."""
        return self._put("codes", request, name, version)

    @route("codes.get", "GET", Host.ARM, "{WS}/codes/{name}/versions/{version}")
    def get_code(self, request: Request, name: str, version: str) -> Reply:
        """One code version."""
        return Reply(body=self.version("codes", name, version))

    @route("components.container", "GET", Host.ARM, "{WS}/components/{name}")
    def get_component_container(self, request: Request, name: str) -> Reply:
        """What the versions of a component have in common."""
        return self._container("components", name)

    @route("components.containers", "GET", Host.ARM, "{WS}/components")
    def list_component_containers(self, request: Request) -> Reply:
        """All of them, each without its versions."""
        return self._containers("components")

    @route("models.container", "GET", Host.ARM, "{WS}/models/{name}")
    def get_model_container(self, request: Request, name: str) -> Reply:
        """What the versions of a model have in common."""
        return self._container("models", name)

    @route("models.containers", "GET", Host.ARM, "{WS}/models")
    def list_model_containers(self, request: Request) -> Reply:
        """All of them, each without its versions."""
        return self._containers("models")

    @route("codes.container", "GET", Host.ARM, "{WS}/codes/{name}")
    def get_code_container(self, request: Request, name: str) -> Reply:
        """What the versions of a code have in common."""
        return self._container("codes", name)

    @route("codes.containers", "GET", Host.ARM, "{WS}/codes")
    def list_code_containers(self, request: Request) -> Reply:
        """All of them, each without its versions."""
        return self._containers("codes")

    @route("models.list", "GET", Host.ARM, "{WS}/models/{name}/versions")
    def list_models(self, request: Request, name: str) -> Reply:
        """Versions of a model, newest first."""
        return self._list("models", request, name)

    @route("models.put", "PUT", Host.ARM, "{WS}/models/{name}/versions/{version}")
    def put_model(self, request: Request, name: str, version: str) -> Reply:
        """Register a model: files in a datastore, or what a job wrote."""
        return self._put("models", request, name, version)

    @route("models.get", "GET", Host.ARM, "{WS}/models/{name}/versions/{version}")
    def get_model(self, request: Request, name: str, version: str) -> Reply:
        """One model version."""
        return Reply(body=self.version("models", name, version))

    @route("environments.containers", "GET", Host.ARM, "{WS}/environments")
    def list_environment_containers(self, request: Request) -> Reply:
        """All environments, each without its versions."""
        return self._containers("environments")

    @route("data.containers", "GET", Host.ARM, "{WS}/data")
    def list_data_containers(self, request: Request) -> Reply:
        """All data assets, each without its versions."""
        return self._containers("data")

    @route("environments.container", "GET", Host.ARM, "{WS}/environments/{name}")
    def get_environment_container(self, request: Request, name: str) -> Reply:
        """What an environment's versions have in common."""
        return self._container("environments", name)

    @route("environments.list", "GET", Host.ARM, "{WS}/environments/{name}/versions")
    def list_environments(self, request: Request, name: str) -> Reply:
        """Versions of an environment, newest first."""
        return self._list("environments", request, name)

    @route("environments.put", "PUT", Host.ARM, "{WS}/environments/{name}/versions/{version}")
    def put_environment(self, request: Request, name: str, version: str) -> Reply:
        """Register an environment."""
        return self._put("environments", request, name, version)

    @route("environments.get", "GET", Host.ARM, "{WS}/environments/{name}/versions/{version}")
    def get_environment(self, request: Request, name: str, version: str) -> Reply:
        """One environment version."""
        return Reply(body=self.version("environments", name, version))

    @route("data.container", "GET", Host.ARM, "{WS}/data/{name}")
    def get_data_container(self, request: Request, name: str) -> Reply:
        """What a data asset's versions have in common."""
        return self._container("data", name)

    @route("data.list", "GET", Host.ARM, "{WS}/data/{name}/versions")
    def list_data(self, request: Request, name: str) -> Reply:
        """Versions of a data asset, newest first."""
        return self._list("data", request, name)

    @route("data.put", "PUT", Host.ARM, "{WS}/data/{name}/versions/{version}")
    def put_data(self, request: Request, name: str, version: str) -> Reply:
        """Register data."""
        return self._put("data", request, name, version)

    @route("data.get", "GET", Host.ARM, "{WS}/data/{name}/versions/{version}")
    def get_data(self, request: Request, name: str, version: str) -> Reply:
        """One data version."""
        return Reply(body=self.version("data", name, version))

    @route("components.list", "GET", Host.ARM, "{WS}/components/{name}/versions")
    def list_components(self, request: Request, name: str) -> Reply:
        """Versions of a component, newest first."""
        return self._list("components", request, name)

    @route("components.put", "PUT", Host.ARM, "{WS}/components/{name}/versions/{version}")
    def put_component(self, request: Request, name: str, version: str) -> Reply:
        """Register a component."""
        return self._put("components", request, name, version)

    @route("components.get", "GET", Host.ARM, "{WS}/components/{name}/versions/{version}")
    def get_component(self, request: Request, name: str, version: str) -> Reply:
        """One component version."""
        return Reply(body=self.version("components", name, version))


def _refuse_change(kind: str, name: str, before: Json, after: Json) -> None:
    """A version is immutable: the same content again is fine, other content is not."""
    if kind == "environments":
        if any(before.get(key) != after.get(key) for key in _FIXED):
            # 409, for which the client waits to take the next version where none was asked for.
            raise user_error(f"Environment {name} already exists with another definition.", "Conflict", status=409)
    elif kind in _URIS and before.get(_URIS[kind]) != after.get(_URIS[kind]):
        raise user_error("Asset paths cannot be updated.", "Immutable", "AssetPathImmutable")
