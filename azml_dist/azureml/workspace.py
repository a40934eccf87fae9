"""`Workspace`: an Azure ML workspace, and one client for it."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

from azml_dist.as_job import as_job
from azml_dist.azureml.addresses import is_service
from azml_dist.azureml.answers import Answer, json_of
from azml_dist.azureml.arm import Arm, no_redirects, retry_policy, retrying
from azml_dist.azureml.witness import witness
from azml_dist.configured import VARIABLES, Ids, configured_ids
from azml_dist.errors import AuthError, SubmitError
from azml_dist.sdk.load import import_sdk

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

    from azml_dist.check.report import Check


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
"""Login, resource manager and studio of the clouds that MLClient knows by name."""


class Workspace:
    """An Azure ML workspace: by its ids, or those from the environment or a `config.json` in this folder or above.

    Args:
        subscription_id, resource_group, name: the workspace's ids; those that you leave out are looked up.
        credential: any `TokenCredential`; by default `DefaultAzureCredential`, which works after `az login`.
        client: an `MLClient` to use instead of all of these.
        cloud: `AzureCloud`, `AzureUSGovernment` or `AzureChinaCloud`, as for `MLClient`.
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
        self.is_witnessed = client is None
        """Whether answers to the client's requests are recorded (`witness`), as only a client created here allows."""
        self._cloud = cloud
        self._lock = threading.RLock()
        self._uploads: dict[str, threading.Lock] = {}
        self.known: dict[str, str] = {}
        """What this process knows to be in the workspace: ids of code by content, addresses of data."""

    @property
    def given(self) -> dict[str, str | None]:
        """The ids that were given, None for those that are looked for; all of them come from a given client."""
        if self._client:
            return dict(zip(self._given, self._ids, strict=True))
        return dict(self._given)

    @property
    def is_configured(self) -> bool:
        """Whether the workspace is known; sends no request."""
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
        """The name of the workspace's cloud."""
        given = self._cloud or getattr(self._client, "_cloud", None) or os.environ.get("AZUREML_CURRENT_CLOUD")
        return given or "AzureCloud"

    @property
    def credential(self) -> TokenCredential:
        """The credential for the workspace."""
        with self._lock:
            if self._credential is None:
                # azure-ai-ml has no public attribute for the credential of a client.
                self._credential = self._client._credential if self._client else self._default_credential()
            return self._credential

    @property
    def client(self) -> MLClient:
        """azure-ai-ml's client for this workspace, used for all calls."""
        with self._lock:
            if self._client is None:
                import_sdk()
                from azure.ai.ml import MLClient

                cloud = {"cloud": self._cloud} if self._cloud else {}
                self._client = MLClient(
                    self.credential,
                    self.subscription_id,
                    self.resource_group,
                    self.name,
                    show_progress=False,
                    enable_telemetry=False,  # azure-ai-ml would send telemetry from notebooks without asking
                    retry_policy=retry_policy(),
                    custom_hook_policy=witness(),
                    # Azure does not redirect; azure-core would keep the login even if only `https` becomes `http`.
                    redirect_policy=no_redirects(),
                    **cloud,
                )
            return self._client

    @cached_property
    def arm(self) -> Arm:
        """Requests to the documented REST API for which azure-ai-ml has no public method."""
        manager = _CLOUDS.get(self.cloud, _CLOUDS["AzureCloud"])[1]
        endpoint = getattr(self.client, "_base_url", None) or manager
        known = self.cloud in _CLOUDS
        return Arm(self.credential, endpoint.rstrip("/"), (manager if known else endpoint).rstrip("/"), self.arm_id)

    def check(self, job: Any, *, script: bool = True) -> Check:
        """Hold a job, sweep or pipeline against this workspace: `print` it. Nothing is sent, changed or started.

        What may not be read is in `not_checked`. With `script=False`, the training script is not read. Raises
        `SubmitError` where the workspace cannot be asked at all.
        """
        from azml_dist.azureml.checking import check

        plan = as_job(job).plan()
        return check(self, plan if script else plan.without_script())

    def lock_of(self, content: str) -> threading.Lock:
        """Held while this content is uploaded: other threads wait, and then need not upload it."""
        with self._lock:
            return self._uploads.setdefault(content, threading.Lock())

    @cached_property
    def history(self) -> Arm:
        """The workspace's run history, in its region: the service that azure-ai-ml streams logs from."""
        return Arm(self.credential, self._region, self._audience, f"/history/v1.0{self.arm_id}", api_version=None)

    @cached_property
    def mlflow(self) -> Arm:
        """The workspace's MLflow tracking server."""
        path = f"/mlflow/v1.0{self.arm_id}/api/2.0/mlflow"
        return Arm(self.credential, self._region, self._audience, path, api_version=None)

    @cached_property
    def data(self) -> Arm:
        """The regional data API, which knows where the outputs of pipelines are."""
        return Arm(self.credential, self._region, self._audience, f"/data/v1.0{self.arm_id}", api_version=None)

    @cached_property
    def _region(self) -> str:
        """The address of the regional services, from the workspace's discovery document."""
        from azure.core import PipelineClient
        from azure.core.rest import HttpRequest

        url = self._own_service(self.arm.read().object("properties").needed("discoveryUrl"))
        client: Any = PipelineClient(url, policies=[])

        def ask() -> str:
            response = client.send_request(HttpRequest("GET", url), connection_timeout=10, read_timeout=30)
            response.raise_for_status()
            return Answer(json_of(response.content, response.headers.get("Content-Type") or "")).needed("api")

        return self._own_service(retrying(ask)).rstrip("/")

    def _own_service(self, url: str) -> str:
        """Check an address before the login is sent there: it comes from an answer, which can be forged or broken."""
        if not is_service(url, self.cloud):
            raise SubmitError(
                f"the workspace says that its service is at {url[:200]}, which is not Azure ML in {self.cloud}",
                hint="your login was not sent there; choose another cloud with `AZUREML_CURRENT_CLOUD`",
            )
        return url

    @property
    def _audience(self) -> str:
        return _CLOUDS.get(self.cloud, _CLOUDS["AzureCloud"])[1]

    def studio_url(self, run_name: str) -> str:
        """The page of a run in Azure ML studio."""
        studio = _CLOUDS.get(self.cloud, _CLOUDS["AzureCloud"])[2]
        return f"{studio}/runs/{run_name}?wsid={self.arm_id}"

    @property
    def ids(self) -> dict[str, str]:
        """What `Workspace(**ids)` makes the same workspace of."""
        return {"subscription_id": self._ids[0], "resource_group": self._ids[1], "name": self._ids[2]}

    @property
    def variables(self) -> dict[str, str]:
        """Variables by which another process finds this workspace; empty if it does so without them."""
        found = Workspace()
        elsewhere = not (found.is_configured and found._ids == self._ids)
        ids = self._ids._asdict() if elsewhere else {}
        cloud = {"AZUREML_CURRENT_CLOUD": self.cloud} if self.cloud != found.cloud else {}
        return {VARIABLES[key][0]: value for key, value in ids.items()} | cloud

    def __repr__(self) -> str:
        return f"Workspace({', '.join(f'{k}={v!r}' for k, v in self._ids._asdict().items())})"

    @cached_property
    def _ids(self) -> Ids:
        if self._client:
            client = self._client
            if not client.workspace_name:
                raise SubmitError("the MLClient has no workspace", hint="`MLClient(..., workspace_name=...)`")
            return Ids(client.subscription_id, client.resource_group_name, client.workspace_name)
        found = configured_ids(self._given)
        if missing := [key for key, value in found.items() if not value]:
            raise _no_workspace(missing)
        return Ids(**{key: str(value) for key, value in found.items()})

    def _default_credential(self) -> TokenCredential:
        from azure.identity import DefaultAzureCredential

        authority = None if os.environ.get("AZURE_AUTHORITY_HOST") else _CLOUDS.get(self.cloud, (None,))[0]
        try:
            credential: TokenCredential = DefaultAzureCredential(**({"authority": authority} if authority else {}))
        except ValueError as error:  # such as for an empty AZURE_CLIENT_ID
            raise AuthError(f"the login in the AZURE_ variables cannot be used: {error}") from error
        return credential


def _no_workspace(missing: list[str]) -> SubmitError:
    variables = ", ".join(VARIABLES[key][0] for key in missing)
    return SubmitError(
        "no Azure ML workspace is configured: no config.json in this folder or above, and none in the environment",
        hint="download config.json from the workspace's page in the portal; or set "
        f"{variables}; or use `Workspace(subscription_id, resource_group, name)`, "
        "`--subscription`, `--resource-group`, `--workspace`",
    )
