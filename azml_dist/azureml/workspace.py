"""`Workspace`: which workspace is meant, and one client of it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.errors import AuthError, SubmitError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

    from azml_dist.azureml.arm import Arm

_VARIABLES = {
    "subscription_id": ("AZUREML_ARM_SUBSCRIPTION", "AZURE_SUBSCRIPTION_ID"),
    "resource_group": ("AZUREML_ARM_RESOURCEGROUP", "AZURE_RESOURCE_GROUP", "AZURE_DEFAULTS_GROUP"),
    "name": ("AZUREML_ARM_WORKSPACE_NAME", "AZURE_ML_WORKSPACE_NAME", "AZURE_DEFAULTS_WORKSPACE"),
}
"""Set inside Azure ML's own machines, customary elsewhere, and read by the Azure CLI, in this order."""
_FILES = tuple(product((".azureml", "aml_config", ""), ("config.json", "project.json")))
"""Where `MLClient.from_config` looks, in this order, each from here upwards."""
_CONFIG_KEYS = ("subscription_id", "resource_group", "workspace_name")
_LEVELS = 20

_CLOUDS = {
    "AzureCloud": ("https://login.microsoftonline.com", "https://management.azure.com", "https://ml.azure.com"),
    "AzureUSGovernment": (
        "https://login.microsoftonline.us",
        "https://management.usgovcloudapi.net",
        "https://ml.azure.us",
    ),
    "AzureChinaCloud": (
        "https://login.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
        "https://studio.ml.azure.cn",
    ),
}
"""Login, resource manager and studio of the clouds that MLClient has by name."""
_import_lock = threading.Lock()


class _Ids(NamedTuple):
    subscription_id: str
    resource_group: str
    name: str


class Workspace:
    """An Azure ML workspace: the given ids, or those in the environment, or in a `config.json` here or above.

    Args:
        subscription_id, resource_group, name: the workspace's ids; those not given are looked for.
        credential: any `TokenCredential`; `DefaultAzureCredential`, as after `az login`, if not given.
        client: an `MLClient` to use, in place of all of these.
        cloud: as `MLClient` has it: `AzureCloud`, `AzureUSGovernment`, `AzureChinaCloud`.
    """

    def __init__(
        self,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        name: str | None = None,
        *,
        credential: TokenCredential | None = None,
        client: MLClient | None = None,
        cloud: str | None = None,
    ) -> None:
        self._given = {"subscription_id": subscription_id, "resource_group": resource_group, "name": name}
        self._credential = credential
        self._client = client
        self._cloud = cloud
        self._lock = threading.RLock()
        self._uploads: dict[str, threading.Lock] = {}
        self.known: dict[str, str] = {}
        """What this process knows to be in the workspace: ids of code by its content, addresses of data."""

    @property
    def is_configured(self) -> bool:
        """Whether it is known which workspace is meant; asks nobody."""
        try:
            return bool(self._ids)
        except SubmitError:
            return False

    @property
    def subscription_id(self) -> str:
        return self._ids.subscription_id

    @property
    def resource_group(self) -> str:
        return self._ids.resource_group

    @property
    def name(self) -> str:
        return self._ids.name

    @property
    def arm_id(self) -> str:
        """The workspace's id in Azure Resource Manager."""
        ids = self._ids
        group = f"/subscriptions/{ids.subscription_id}/resourceGroups/{ids.resource_group}"
        return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{ids.name}"

    @property
    def cloud(self) -> str:
        """The name of the cloud that the workspace is in."""
        given = self._cloud or getattr(self._client, "_cloud", None) or os.environ.get("AZUREML_CURRENT_CLOUD")
        return given or "AzureCloud"

    @property
    def credential(self) -> TokenCredential:
        """What gives tokens for the workspace."""
        with self._lock:
            if self._credential is None:
                # azure-ai-ml has no public name for the credential of a client.
                self._credential = self._client._credential if self._client else self._default_credential()
            return self._credential

    @property
    def client(self) -> MLClient:
        """azure-ai-ml's client of this workspace; one for all calls."""
        with self._lock:
            if self._client is None:
                import_sdk()
                from azure.ai.ml import MLClient

                from azml_dist.azureml.arm import retry_policy

                cloud = {"cloud": self._cloud} if self._cloud else {}
                self._client = MLClient(
                    self.credential,
                    self.subscription_id,
                    self.resource_group,
                    self.name,
                    show_progress=False,
                    enable_telemetry=False,  # azure-ai-ml would send it from notebooks, and ask nobody
                    retry_policy=retry_policy(),
                    **cloud,
                )
            return self._client

    @cached_property
    def arm(self) -> Arm:
        """Requests of the documented REST API that azure-ai-ml has no public method for."""
        from azml_dist.azureml.arm import Arm

        manager = _CLOUDS.get(self.cloud, _CLOUDS["AzureCloud"])[1]
        endpoint = getattr(self.client, "_base_url", None) or manager
        known = self.cloud in _CLOUDS
        return Arm(self.credential, endpoint.rstrip("/"), (manager if known else endpoint).rstrip("/"), self.arm_id)

    def lock_of(self, content: str) -> threading.Lock:
        """Held while that content is uploaded: the other threads wait, and need not."""
        with self._lock:
            return self._uploads.setdefault(content, threading.Lock())

    @cached_property
    def history(self) -> Arm:
        """The workspace's run history, in its region: the service that azure-ai-ml streams logs from."""
        from azml_dist.azureml.arm import Arm

        return Arm(self.credential, self._region, self._audience, f"/history/v1.0{self.arm_id}", api_version=None)

    @cached_property
    def mlflow(self) -> Arm:
        """The workspace's MLflow tracking server."""
        from azml_dist.azureml.arm import Arm

        path = f"/mlflow/v1.0{self.arm_id}/api/2.0/mlflow"
        return Arm(self.credential, self._region, self._audience, path, api_version=None)

    @cached_property
    def _region(self) -> str:
        """The address of the region's services, as the workspace's discovery document has it."""
        from azure.core import PipelineClient
        from azure.core.rest import HttpRequest

        from azml_dist.azureml.arm import retrying

        url = str(self.client.workspaces.get(self.name).discovery_url)
        client: Any = PipelineClient(url, policies=[])

        def ask() -> str:
            response = client.send_request(HttpRequest("GET", url), connection_timeout=10, read_timeout=30)
            response.raise_for_status()
            return str(response.json()["api"])

        return retrying(ask).rstrip("/")

    @property
    def _audience(self) -> str:
        return _CLOUDS.get(self.cloud, _CLOUDS["AzureCloud"])[1]

    def studio_url(self, run_name: str) -> str:
        """The page of a run in Azure ML studio."""
        studio = _CLOUDS.get(self.cloud, _CLOUDS["AzureCloud"])[2]
        return f"{studio}/runs/{run_name}?wsid={self.arm_id}"

    @property
    def variables(self) -> dict[str, str]:
        """Variables by which another process finds this workspace; none where it finds it without them."""
        found = Workspace()
        elsewhere = not (found.is_configured and found._ids == self._ids)
        ids = self._ids._asdict() if elsewhere else {}
        cloud = {"AZUREML_CURRENT_CLOUD": self.cloud} if self.cloud != found.cloud else {}
        return {_VARIABLES[key][0]: value for key, value in ids.items()} | cloud

    def __repr__(self) -> str:
        return f"Workspace({', '.join(f'{k}={v!r}' for k, v in self._ids._asdict().items())})"

    @cached_property
    def _ids(self) -> _Ids:
        if self._client:
            client = self._client
            if not client.workspace_name:
                raise SubmitError("the MLClient has no workspace", hint="`MLClient(..., workspace_name=...)`")
            return _Ids(client.subscription_id, client.resource_group_name, client.workspace_name)
        found = {key: value or _variable(key) for key, value in self._given.items()}
        if not all(found.values()):
            # Ids of one place: a subscription of the environment does not go with a workspace of a file.
            given = {key: value for key, value in self._given.items() if value}
            found = {**(_from_file() or found), **given}
        if missing := [key for key, value in found.items() if not value]:
            raise _no_workspace(missing)
        return _Ids(**{key: str(value) for key, value in found.items()})

    def _default_credential(self) -> TokenCredential:
        from azure.identity import DefaultAzureCredential

        authority = None if os.environ.get("AZURE_AUTHORITY_HOST") else _CLOUDS.get(self.cloud, (None,))[0]
        try:
            credential: TokenCredential = DefaultAzureCredential(**({"authority": authority} if authority else {}))
        except ValueError as error:  # of an empty AZURE_CLIENT_ID, say
            raise AuthError(f"the login in the AZURE_ variables cannot be used: {error}") from error
        return credential


def import_sdk() -> None:
    """Import azure-ai-ml without what it and its dependencies say while they are imported."""
    import warnings

    with _import_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import azure.ai.ml
        import azure.ai.ml.entities  # noqa: F401


def _variable(key: str) -> str | None:
    return next((os.environ[name] for name in _VARIABLES[key] if os.environ.get(name)), None)


def _from_file() -> dict[str, str | None] | None:
    here = Path.cwd()
    for folder, file in _FILES:
        for parent in [here, *here.parents][:_LEVELS]:
            if found := _read(parent / folder / file):
                return found
    return None


def _read(path: Path) -> dict[str, str | None] | None:
    """The ids in a file; None where it is another `config.json`, as every model of Hugging Face has one."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, Mapping):
        return None
    scope: Any = config.get("Scope")
    if isinstance(scope, str) and len(parts := scope.split("/")) > 8:
        return dict(zip(_VARIABLES, (parts[2], parts[4], parts[8]), strict=True))
    if not all(isinstance(config.get(key), str) for key in _CONFIG_KEYS):
        return None
    return dict(zip(_VARIABLES, (config[key] for key in _CONFIG_KEYS), strict=True))


def _no_workspace(missing: list[str]) -> SubmitError:
    variables = ", ".join(_VARIABLES[key][0] for key in missing)
    return SubmitError(
        "which Azure ML workspace? There is no config.json in this folder or above, and the environment names none",
        hint="download config.json from the workspace's page in the portal; or set "
        f"{variables}; or `Workspace(subscription_id, resource_group, name)`, "
        "`--subscription`, `--resource-group`, `--workspace`",
    )
