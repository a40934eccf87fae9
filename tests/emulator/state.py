"""What the emulated workspace is and has, before any request: tests change it as they like."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .blobs import Account
from .wire import Json, Refusal, Request

TENANT = "7e4a47e4-0000-4000-8000-000000000002"


def _jwt(claims: Json) -> str:
    """Not signed, but shaped like a token of the real service: the client reads the tenant from it."""
    parts = (json.dumps(part).encode() for part in ({"typ": "JWT", "alg": "none"}, claims))
    return ".".join((*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2lnbmF0dXJl"))


TOKEN = _jwt({"aud": "https://management.azure.com", "tid": TENANT, "oid": TENANT})
"""The bearer token that the emulator takes."""
ML_TOKEN = _jwt({"aud": "https://ml.azure.com", "tid": TENANT, "oid": TENANT})
"""What a pipeline is sent with, beside the bearer token."""


@dataclass(frozen=True)
class VmSize:
    """A machine size of the region."""

    name: str
    family: str
    v_cpus: int
    gpus: int
    memory_gb: float


VM_SIZES = (
    VmSize("STANDARD_DS3_V2", "standardDSv2Family", 4, 0, 14.0),
    VmSize("STANDARD_D2_V2", "standardDv2Family", 2, 0, 7.0),
    VmSize("STANDARD_NC6S_V3", "standardNCSv3Family", 6, 1, 112.0),
    VmSize("STANDARD_NC24S_V3", "standardNCSv3Family", 24, 4, 448.0),
    VmSize("STANDARD_ND40RS_V2", "standardNDSv2Family", 40, 8, 672.0),
    VmSize("STANDARD_ND96AMSR_A100_V4", "standardNDAMSA100v4Family", 96, 8, 1900.0),
)


@dataclass
class Cluster:
    """A compute cluster of the workspace."""

    vm_size: str = "STANDARD_NC24S_V3"
    max_nodes: int = 4
    min_nodes: int = 0
    priority: str = "Dedicated"
    state: str = "Succeeded"


@dataclass
class Datastore:
    """A datastore, and how it answers who asks for its secrets."""

    container: str
    secrets: str = "key"
    """`key`: an account key · `sas`: an account SAS · `none`: identity only, the caller's own token must do."""


@dataclass
class Workspace:
    """The workspace: ids, computes, datastores, quota, and who may do what."""

    account: Account
    subscription_id: str = "5ca1ab1e-0000-4000-8000-000000000001"
    tenant_id: str = TENANT
    resource_group: str = "emulated-group"
    name: str = "emulated-workspace"
    region: str = "eastus"
    workspace_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    computes: dict[str, Cluster] = field(default_factory=lambda: {"gpu-cluster": Cluster()})
    datastores: dict[str, Datastore] = field(default_factory=dict)
    vm_sizes: tuple[VmSize, ...] = VM_SIZES
    quota: dict[str, tuple[int, int]] = field(default_factory=lambda: {"standardNCSv3Family": (0, 96)})
    """Used and limit of vCPUs by VM family."""
    registry_environments: set[str] = field(
        default_factory=lambda: {"acpt-pytorch-2.8-cuda12.6", "tensorflow-2.16-cuda12", "sklearn-1.5"}
    )
    """Names of the environments that public registries hold."""
    forbidden: set[str] = field(default_factory=set)
    """Names of routes, or `*`, for which the caller has no permission (403)."""
    token: str = TOKEN
    """The token that is valid now; change it, and every other one is refused as expired (401)."""
    signed_logs: bool = True
    """Whether the addresses of logs carry a SAS; without it they are read by who is logged in."""
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    """Guards everything that requests change; notified when a job moves."""
    _clock: int = 0

    def __post_init__(self) -> None:
        if not self.datastores:
            self.datastores = {
                "workspaceblobstore": Datastore(f"azureml-blobstore-{self.workspace_id}"),
                "workspaceartifactstore": Datastore("azureml"),
            }

    @property
    def arm_id(self) -> str:
        """The workspace's ARM id."""
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"

    @property
    def api_url(self) -> str:
        """The address of the region's own API, which holds run history."""
        return f"https://{self.region}.api.azureml.ms"

    def check_token(self, request: Request) -> None:
        """401 unless the request carries the token."""
        sent = request.headers.get("Authorization", "")
        if sent == f"Bearer {self.token}":
            return
        challenge = {"WWW-Authenticate": f'Bearer authorization_uri="https://login.windows.net/{self.tenant_id}"'}
        if not sent:
            message = "Authentication failed. The 'Authorization' header is missing."
            raise Refusal(401, "AuthenticationFailed", message, headers=challenge)
        message = "The access token has expired."
        raise Refusal(401, "ExpiredAuthenticationToken", message, headers=challenge)

    def check_permission(self, route: str) -> None:
        """403 where the test took the permission away."""
        if not self.forbidden & {route, "*"}:
            return
        kind, _, verb = route.partition(".")
        action = f"Microsoft.MachineLearningServices/workspaces/{kind}/{'write' if verb == 'put' else 'read'}"
        raise Refusal(
            403,
            "AuthorizationFailed",
            f"The client 'someone@example.com' with object id '{self.tenant_id}' does not have authorization to "
            f"perform action '{action}' over scope '{self.arm_id}' or the scope is invalid. If access was recently "
            "granted, please refresh your credentials.",
        )

    def now(self) -> str:
        """A time stamp; no two are the same, so that newest-first has one meaning."""
        self._clock += 1
        stamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{stamp}.{self._clock % 10_000_000:07d}+00:00"

    def system_data(self) -> Json:
        """Who made a resource, and when."""
        now = self.now()
        made = {"createdAt": now, "createdBy": "Someone", "createdByType": "User"}
        return {**made, "lastModifiedAt": now, "lastModifiedBy": "Someone", "lastModifiedByType": "User"}
