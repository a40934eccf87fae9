"""Routes of the workspace itself: its description, datastores and their secrets, computes, VM sizes and quota."""

from __future__ import annotations

from collections.abc import Callable

from azml_dist.emulator.quota import in_use
from azml_dist.emulator.routing import Host, route
from azml_dist.emulator.state import TOTAL_DEDICATED, TOTAL_LOW, Cluster, Datastore, VmSize, Workspace
from azml_dist.emulator.wire import Json, Refusal, Reply, Request, not_found, user_error

_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
_LOCATION = "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"
_ROLES_ON_A_PAGE = 10


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

    @route("permissions.list", "GET", Host.ARM, "{WS}/providers/Microsoft.Authorization/permissions")
    def permissions(self, request: Request) -> Reply:
        """What the caller's roles allow, one entry for each, in pages."""
        start = int(request.query.get("$skip") or 0)
        end = start + _ROLES_ON_A_PAGE
        rights = [
            {"actions": list(allowed), "notActions": list(denied), "dataActions": [], "notDataActions": []}
            for allowed, denied in self._workspace.roles[start:end]
        ]
        more = f"https://{request.host}{request.path}?api-version={request.query.get('api-version', '')}&$skip={end}"
        return Reply(body={"value": rights, **({"nextLink": more} if end < len(self._workspace.roles) else {})})

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
                return Reply(body={"secretsType": self._word("AccountKey"), "key": account.key})
            case "sas":
                return Reply(body={"secretsType": self._word("Sas"), "sasToken": account.account_sas()})
        raise user_error(f"No secrets are stored for datastore {name}.")

    def _word(self, word: str) -> str:
        """A word of the API, whose enumerations know no case."""
        return word.lower() if self._workspace.other_case else word

    def _known(self, name: str) -> Datastore:
        found = self._workspace.datastores.get(name)
        if found is None:
            raise not_found(f"Could not find datastore: {name} (Could not find datastore: {name})")
        return found

    def _datastore(self, name: str) -> Json:
        here, store = self._workspace, self._workspace.datastores[name]
        kind = {"key": "AccountKey", "sas": "Sas", "none": "None"}[store.secrets]
        properties = {
            "datastoreType": self._word("AzureBlob"),
            "accountName": here.account.name,
            "containerName": store.container,
            "endpoint": "core.windows.net",
            "protocol": "https",
            "serviceDataAccessAuthIdentity": "None",
            "credentials": {"credentialsType": self._word(kind)},
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

    @route("computes.listNodes", "POST", Host.ARM, "{WS}/computes/{name}/listNodes")
    def list_nodes(self, request: Request, name: str) -> Reply:
        """The nodes of a cluster, and which run is on each."""
        self.get_compute(request, name)
        cluster = self._workspace.computes[name]
        if cluster.kind != "AmlCompute":
            raise user_error(f"Listing nodes is not supported for compute {name} of type {cluster.kind}.")
        held = [(run, "running") for run, count in cluster.runs.items() for _ in range(count)]
        states = ("preparing", "leaving", "unusable")
        others = [(None, "idle")] * cluster.idle_nodes
        others += [(None, state) for state in states for _ in range(getattr(cluster, state))]
        nodes = [
            {
                "nodeId": f"tvmps_{index:064x}_d",
                "privateIpAddress": f"10.0.0.{index + 4}",
                "publicIpAddress": None,
                "port": 50000 + index,
                "nodeState": state,
                "runId": run,
            }
            for index, (run, state) in enumerate([*held, *others])
        ]
        return Reply(body={"nodes": nodes})

    def _compute(self, name: str, cluster: Cluster) -> Json:
        here = self._workspace
        properties = {
            "computeType": cluster.kind,
            "computeLocation": cluster.location or here.region,
            "provisioningState": cluster.state,
            "provisioningErrors": [
                {"error": {"code": "BadRequest", "message": message, "details": []}} for message in cluster.errors
            ]
            or None,
            "isAttachedCompute": cluster.kind not in ("AmlCompute", "ComputeInstance"),
            "disableLocalAuth": True,
            "createdOn": here.now(),
            "modifiedOn": here.now(),
            "properties": _PROPERTIES.get(cluster.kind, _of_another_kind)(cluster),
        }
        return {
            "id": f"{here.arm_id}/computes/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            "location": cluster.location or here.region,
            "properties": properties,
        }

    @route("vmSizes.list", "GET", Host.ARM, _LOCATION + "/vmSizes")
    def list_sizes(self, request: Request, subscription: str, location: str) -> Reply:
        """The machine sizes of a region."""
        return Reply(body={"value": [_size(size) for size in self._workspace.vm_sizes]})

    @route("usages.list", "GET", Host.ARM, _LOCATION + "/usages")
    def list_usages(self, request: Request, subscription: str, location: str) -> Reply:
        """How much of the quota is in use."""
        place = f"/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"
        return Reply(body={"value": [self._usage(place, location, row) for row in self._workspace.quota]})

    @route("quotas.list", "GET", Host.ARM, _LOCATION + "/quotas")
    def list_quotas(self, request: Request, subscription: str, location: str) -> Reply:
        """The limits of single workspaces: of this one, and of another one."""
        own = self._workspace.own_limits
        here = [_limit(self._workspace.arm_id, location, row, limit) for row, limit in own.items()]
        elsewhere = [_limit(f"{self._workspace.arm_id}-2", location, row, 0) for row in self._workspace.quota]
        return Reply(body={"value": [*here, *elsewhere]})

    def _usage(self, place: str, location: str, row: str) -> Json:
        elsewhere, limit = self._workspace.quota[row]
        kind = "lowPriorityCores" if "low" in row.lower() else "dedicatedCores"
        return {
            "id": f"{place}/usages/{row}",
            "amlWorkspaceLocation": location,
            "type": f"Microsoft.MachineLearningServices/{'' if row in _TOTALS else 'vmFamily/'}{kind}/usages",
            "unit": "Count",
            "currentValue": elsewhere + in_use(self._workspace, row),
            "limit": limit,
            "name": {"value": row, "localizedValue": row},
        }


_TOTALS = (TOTAL_DEDICATED, TOTAL_LOW)


def _limit(workspace: str, location: str, row: str, limit: int) -> Json:
    return {
        "id": f"{workspace}/quotas/{row.replace(' ', '_')}",
        "amlWorkspaceLocation": location,
        "type": "Microsoft.MachineLearningServices/workspaces/dedicatedCores/quotas",
        "unit": "Count",
        "limit": limit,
        "name": {"value": row, "localizedValue": row},
    }


def _of_a_cluster(cluster: Cluster) -> Json:
    counts = {
        "idle": cluster.idle_nodes,
        "running": sum(cluster.runs.values()),
        "preparing": cluster.preparing,
        "unusable": cluster.unusable,
        "leaving": cluster.leaving,
        "preempted": cluster.preempted,
    }
    return {
        "vmSize": cluster.vm_size,
        "vmPriority": cluster.priority,
        "osType": "Linux",
        "scaleSettings": {
            "minNodeCount": cluster.min_nodes,
            "maxNodeCount": cluster.max_nodes,
            "nodeIdleTimeBeforeScaleDown": "PT2M",
        },
        "allocationState": "Resizing" if cluster.preparing or cluster.leaving else "Steady",
        "currentNodeCount": cluster.allocated,
        "targetNodeCount": cluster.allocated - cluster.leaving,
        "nodeStateCounts": {f"{state}NodeCount": count for state, count in counts.items()},
        "errors": None,
    }


def _of_an_instance(cluster: Cluster) -> Json:
    return {"vmSize": cluster.vm_size, "state": cluster.vm_state, "applicationSharingPolicy": "Personal"}


def _of_kubernetes(cluster: Cluster) -> Json:
    types = cluster.instance_types
    return {"namespace": "default", "defaultInstanceType": next(iter(types), None), "instanceTypes": types}


def _of_another_kind(cluster: Cluster) -> Json:
    return {"address": "10.0.0.9", "sshPort": 22}


_PROPERTIES: dict[str, Callable[[Cluster], Json]] = {
    "AmlCompute": _of_a_cluster,
    "ComputeInstance": _of_an_instance,
    "Kubernetes": _of_kubernetes,
}


def _size(size: VmSize) -> Json:
    found: Json = {
        "name": size.name,
        "family": size.family,
        "vCPUs": size.v_cpus,
        "gpus": size.gpus,
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": size.disk_mb,
        "memoryGB": size.memory_gb,
        "lowPriorityCapable": True,
        "premiumIO": True,
        "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
    }
    if size.price is not None:
        prices = [(size.price, "Linux", "Standard"), (2 * size.price, "Windows", "Standard")]
        prices += [(size.price / 4, "Linux", "LowPriority"), (size.price / 2, "Linux", "Spot")]
        found["estimatedVMPrices"] = {
            "billingCurrency": "USD",
            "unitOfMeasure": "OneHour",
            "values": [{"retailPrice": price, "osType": os, "vmTier": tier} for price, os, tier in prices],
        }
    return found
