"""Routes of the workspace itself: its description, datastores and their secrets, computes, VM sizes and quota."""

from __future__ import annotations

from .routing import Host, route
from .state import Cluster, Datastore, VmSize, Workspace
from .wire import Json, Refusal, Reply, Request, not_found, user_error

_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
_LOCATION = "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"


class WorkspaceRoutes:
    """The workspace and what it owns."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @route("workspaces.get", "GET", Host.ARM, "{WS}")
    def get(self, request: Request) -> Reply:
        """The workspace."""
        here = self._workspace
        group = here.arm_id.partition("/providers/")[0]
        properties = {
            "friendlyName": here.name,
            "workspaceId": here.workspace_id,
            "tenantId": here.tenant_id,
            "discoveryUrl": f"{here.api_url}/discovery",
            "mlFlowTrackingUri": f"azureml://{here.region}.api.azureml.ms/mlflow/v1.0{here.arm_id}",
            "storageAccount": f"{group}/providers/Microsoft.Storage/storageAccounts/{here.account.name}",
            "keyVault": f"{group}/providers/Microsoft.Keyvault/vaults/{here.name}",
            "applicationInsights": f"{group}/providers/Microsoft.insights/components/{here.name}",
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
            "hbiWorkspace": False,
        }
        return Reply(
            body={
                "id": here.arm_id,
                "name": here.name,
                "type": "Microsoft.MachineLearningServices/workspaces",
                "location": here.region,
                "kind": "Default",
                "sku": {"name": "Basic", "tier": "Basic"},
                "identity": {"type": "SystemAssigned", "tenantId": here.tenant_id, "principalId": here.workspace_id},
                "properties": properties,
                "systemData": here.system_data(),
            }
        )

    @route("workspaces.list", "GET", Host.ARM, _GROUP + "/providers/Microsoft.MachineLearningServices/workspaces")
    def list_workspaces(self, request: Request, subscription: str, group: str) -> Reply:
        """The workspaces of a resource group: this one."""
        return Reply(body={"value": [self.get(request).body] if group == self._workspace.resource_group else []})

    @route("discovery", "GET", Host.API, "/discovery", anonymous=True)
    def discovery(self, request: Request) -> Reply:
        """The addresses of the region's services."""
        names = ("api", "experimentation", "history", "hyperdrive", "modelmanagement", "pipelines", "catalog")
        return Reply(body={**dict.fromkeys(names, self._workspace.api_url), "studio": "https://ml.azure.com"})

    @route("datastores.list", "GET", Host.ARM, "{WS}/datastores")
    def list_datastores(self, request: Request) -> Reply:
        """All datastores, or the default one."""
        names = list(self._workspace.datastores)
        if request.query.get("isDefault", "").lower() == "true":
            names = names[:1]
        return Reply(body={"value": [self._datastore(name) for name in names]})

    @route("datastores.get", "GET", Host.ARM, "{WS}/datastores/{name}")
    def get_datastore(self, request: Request, name: str) -> Reply:
        """One datastore."""
        self._known(name)
        return Reply(body=self._datastore(name))

    @route("datastores.listSecrets", "POST", Host.ARM, "{WS}/datastores/{name}/listSecrets")
    def list_secrets(self, request: Request, name: str) -> Reply:
        """The secrets of a datastore: account key or SAS."""
        account = self._workspace.account
        match self._known(name).secrets:
            case "key":
                return Reply(body={"secretsType": "AccountKey", "key": account.key})
            case "sas":
                return Reply(body={"secretsType": "Sas", "sasToken": account.account_sas()})
        raise user_error(f"No secrets are stored for datastore {name}.")

    def _known(self, name: str) -> Datastore:
        found = self._workspace.datastores.get(name)
        if found is None:
            raise not_found(f"Could not find datastore: {name} (Could not find datastore: {name})")
        return found

    def _datastore(self, name: str) -> Json:
        here, store = self._workspace, self._workspace.datastores[name]
        kind = {"key": "AccountKey", "sas": "Sas", "none": "None"}[store.secrets]
        properties = {
            "datastoreType": "AzureBlob",
            "accountName": here.account.name,
            "containerName": store.container,
            "endpoint": "core.windows.net",
            "protocol": "https",
            "serviceDataAccessAuthIdentity": "None",
            "credentials": {"credentialsType": kind},
            "isDefault": name == next(iter(here.datastores)),
            "tags": {},
            "properties": {},
        }
        return {
            "id": f"{here.arm_id}/datastores/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/datastores",
            "properties": properties,
            "systemData": here.system_data(),
        }

    @route("computes.list", "GET", Host.ARM, "{WS}/computes")
    def list_computes(self, request: Request) -> Reply:
        """All computes."""
        computes = self._workspace.computes.items()
        return Reply(body={"value": [self._compute(name, cluster) for name, cluster in computes]})

    @route("computes.get", "GET", Host.ARM, "{WS}/computes/{name}")
    def get_compute(self, request: Request, name: str) -> Reply:
        """One compute."""
        cluster = self._workspace.computes.get(name)
        if cluster is None:
            kind = f"Microsoft.MachineLearningServices/workspaces/{self._workspace.name}/computes/{name}"
            raise Refusal(404, "ResourceNotFound", f"The Resource '{kind}' was not found.")
        return Reply(body=self._compute(name, cluster))

    def _compute(self, name: str, cluster: Cluster) -> Json:
        here = self._workspace
        scale = {
            "minNodeCount": cluster.min_nodes,
            "maxNodeCount": cluster.max_nodes,
            "nodeIdleTimeBeforeScaleDown": "PT2M",
        }
        properties = {
            "computeType": "AmlCompute",
            "computeLocation": here.region,
            "provisioningState": cluster.state,
            "isAttachedCompute": False,
            "disableLocalAuth": True,
            "createdOn": here.now(),
            "modifiedOn": here.now(),
            "properties": {
                "vmSize": cluster.vm_size,
                "vmPriority": cluster.priority,
                "osType": "Linux",
                "scaleSettings": scale,
                "allocationState": "Steady",
                "currentNodeCount": 0,
                "targetNodeCount": 0,
            },
        }
        return {
            "id": f"{here.arm_id}/computes/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            "location": here.region,
            "properties": properties,
        }

    @route("vmSizes.list", "GET", Host.ARM, _LOCATION + "/vmSizes")
    def list_sizes(self, request: Request, subscription: str, location: str) -> Reply:
        """The machine sizes of a region."""
        return Reply(body={"value": [_size(size) for size in self._workspace.vm_sizes]})

    @route("usages.list", "GET", Host.ARM, _LOCATION + "/usages")
    def list_usages(self, request: Request, subscription: str, location: str) -> Reply:
        """How much of the quota is in use."""
        prefix = f"/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"
        usages = [
            {
                "id": f"{prefix}/vmFamilies/{family}/usages",
                "amlWorkspaceLocation": location,
                "type": "Microsoft.MachineLearningServices/vmFamily/dedicatedCores/usages",
                "unit": "Count",
                "currentValue": used,
                "limit": limit,
                "name": {"value": family, "localizedValue": family},
            }
            for family, (used, limit) in self._workspace.quota.items()
        ]
        return Reply(body={"value": usages})


def _size(size: VmSize) -> Json:
    return {
        "name": size.name,
        "family": size.family,
        "vCPUs": size.v_cpus,
        "gpus": size.gpus,
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": 28672,
        "memoryGB": size.memory_gb,
        "lowPriorityCapable": True,
        "premiumIO": True,
        "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
    }
