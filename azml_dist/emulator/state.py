"""The emulated workspace before any request; tests may change it."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase

from azml_dist.emulator.account import Account
from azml_dist.emulator.wire import Json, Refusal, Request
from azml_dist.emulator.world import RUNTIME, Runtime

TENANT = "7e4a47e4-0000-4000-8000-000000000002"


def _jwt(claims: Json) -> str:
    """Not signed, but shaped like a token of the real service: the client reads the tenant from it."""
    parts = (json.dumps(part).encode() for part in ({"typ": "JWT", "alg": "none"}, claims))
    return ".".join((*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2lnbmF0dXJl"))


def _claims(audience: str) -> Json:
    return {"aud": audience, "tid": TENANT, "oid": TENANT}


def new_token(**claims: float) -> str:
    """A bearer token that nobody else has."""
    return _jwt({**_claims("https://management.azure.com"), "jti": str(uuid.uuid4()), **claims})


TOKEN = _jwt(_claims("https://management.azure.com"))
"""The bearer token that the emulator takes in tests of this process, where it is the only one that can be asked."""
ML_TOKEN = _jwt(_claims("https://ml.azure.com"))
"""What a pipeline is sent with, beside the bearer token."""


@dataclass(frozen=True)
class VmSize:
    """A machine size of the region."""

    name: str
    family: str
    v_cpus: int
    gpus: int
    memory_gb: float
    price: float | None = 1.0
    """Of an hour under Linux; None where the service names no prices."""
    disk_mb: int = 2_048_000


VM_SIZES = (
    VmSize("STANDARD_DS3_V2", "standardDSv2Family", 4, 0, 14.0, 0.25, 28_672),
    VmSize("STANDARD_D2_V2", "standardDv2Family", 2, 0, 7.0, 0.125, 102_400),
    VmSize("STANDARD_NC6S_V3", "standardNCSv3Family", 6, 1, 112.0, 3.0, 344_064),
    VmSize("STANDARD_NC24S_V3", "standardNCSv3Family", 24, 4, 448.0, 12.0, 1_376_256),
    VmSize("STANDARD_NC24ADS_A100_V4", "StandardNCADSA100v4Family", 24, 1, 220.0, 4.0, 65_536),
    VmSize("STANDARD_ND40RS_V2", "standardNDSv2Family", 40, 8, 672.0, 22.0, 2_969_600),
    VmSize("STANDARD_ND96AMSR_A100_V4", "standardNDAMSA100v4Family", 96, 8, 1900.0, 32.0),
)
"""Figures of tests: prices are round, so that sums can be seen."""


@dataclass
class Cluster:
    """A compute of the workspace: a cluster, if `kind` names nothing else."""

    vm_size: str = "STANDARD_ND96AMSR_A100_V4"
    max_nodes: int = 4
    min_nodes: int = 0
    priority: str = "Dedicated"
    state: str = "Succeeded"
    idle: int | None = None
    """Nodes that are there and do nothing; every free one by default."""
    runs: dict[str, int] = field(default_factory=dict)
    """How many nodes each run holds."""
    preparing: int = 0
    leaving: int = 0
    unusable: int = 0
    preempted: int = 0
    errors: tuple[str, ...] = ()
    """Why it could not be created, in the service's words."""
    kind: str = "AmlCompute"
    location: str | None = None
    """The region, where it is not the workspace's."""
    instance_types: dict[str, Json] = field(default_factory=dict)
    """Of a Kubernetes cluster: what each may use."""
    vm_state: str = "Running"
    """Of a compute instance."""

    @property
    def idle_nodes(self) -> int:
        return max(0, self.max_nodes - self._taken) if self.idle is None else self.idle

    @property
    def allocated(self) -> int:
        """Nodes that count for the quota."""
        return self.idle_nodes + self._taken

    @property
    def _taken(self) -> int:
        return sum(self.runs.values()) + self.preparing + self.leaving + self.unusable


@dataclass
class Datastore:
    """A datastore, and how it answers who asks for its secrets."""

    container: str
    secrets: str = "key"
    """`key`: an account key · `sas`: an account SAS · `none`: identity only, the caller's own token must do."""


TOTAL_DEDICATED, TOTAL_LOW = (f"Total Cluster {kind} Regional vCPUs" for kind in ("Dedicated", "Low Priority"))


def family_row(family: str, kind: str = "Dedicated") -> str:
    """The name of a family's row of the quota, as the service spells it."""
    name = family[len("standard") : -len("Family")]
    return f"Standard {name} Family Cluster {kind} vCPUs"


def _plenty() -> Iterator[tuple[str, tuple[int, int]]]:
    yield TOTAL_DEDICATED, (0, 2000)
    yield TOTAL_LOW, (0, 2000)
    for family in dict.fromkeys(size.family for size in VM_SIZES):
        yield family_row(family), (0, 960)
        yield family_row(family, "LowPriority"), (0, -1)


CONTRIBUTOR = (("*",), ("Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write"))
"""`actions` and `notActions` of the built-in role, those that matter here."""


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
    quota: dict[str, tuple[int, int]] = field(default_factory=lambda: dict(_plenty()))
    """vCPUs by row: those in use beside this workspace's clusters, and the limit; -1 for none."""
    own_limits: dict[str, int] = field(default_factory=dict)
    """vCPUs that this workspace may use, by row, whatever the region has left; they have no effect on jobs."""
    registry_environments: set[str] = field(
        default_factory=lambda: {"acpt-pytorch-2.8-cuda12.6", "tensorflow-2.16-cuda12", "sklearn-1.5"}
    )
    """Names of the environments that public registries hold; `*` for whatever is asked for."""
    roles: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=lambda: [CONTRIBUTOR])
    """`actions` and `notActions` of each role that the caller has; what they say has no effect on other routes."""
    forbidden: set[str] = field(default_factory=set)
    """Names of routes, or `*`, for which the caller has no permission (403)."""
    figures: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """What Azure Monitor has: by run, then by node or `node/device`, the value of each metric, every minute."""
    token: str = TOKEN
    """The token that is valid now; change it, and every other one is refused as expired (401)."""
    run_token: str = field(default_factory=new_token, repr=False)
    """What jobs get; the service renews theirs."""
    client_secret: str | None = None
    """What the login asks for; None takes any."""
    token_seconds: float | None = None
    """How long a token that is handed out is valid; None for as long as `token` stays the same."""
    skew: float = 0.0
    """How many seconds the service's clock is ahead."""
    entry: str = ""
    """The emulator's own address."""
    on_change: Callable[[], None] | None = field(default=None, repr=False)
    """Called after anything that should be kept has changed."""
    signed_logs: bool = True
    """Whether the addresses of logs carry a SAS; without it they are read by who is logged in."""
    other_case: bool = False
    """Whether words of the API and ids of resource groups are answered in another case than clients send them."""
    runtime: Runtime = RUNTIME
    """What jobs that run here find where the documentation leaves it open."""
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    """Guards everything that requests change; notified when a job moves."""
    _clock: int = 0
    """The last time stamp, in ten millionths of a second as the service has them."""
    _issued: dict[str, float] = field(default_factory=dict, repr=False)

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

    def issue_token(self) -> tuple[str, int]:
        """A token for who has logged in, and for how many seconds it is valid."""
        if self.token_seconds is None:
            return self.token, 3600
        now = time.time()
        token = _jwt(
            {**_claims("https://management.azure.com"), "exp": now + self.token_seconds, "jti": str(uuid.uuid4())}
        )
        self._issued = {kept: until for kept, until in self._issued.items() if until > now} | {
            token: now + self.token_seconds
        }
        return token, int(self.token_seconds)

    def _is_valid(self, token: str) -> bool:
        if hmac.compare_digest(token.encode(), self.run_token.encode()):
            return True
        if self.token_seconds is None and hmac.compare_digest(token.encode(), self.token.encode()):
            return True
        return self._issued.get(token, 0) > time.time()

    def check_token(self, request: Request) -> None:
        """401 unless the request carries a token that is valid."""
        sent = request.headers.get("Authorization", "")
        if sent.startswith("Bearer ") and self._is_valid(sent[len("Bearer ") :]):
            return
        challenge = {"WWW-Authenticate": f'Bearer authorization_uri="https://login.windows.net/{self.tenant_id}"'}
        if not sent:
            message = "Authentication failed. The 'Authorization' header is missing."
            raise Refusal(401, "AuthenticationFailed", message, headers=challenge)
        message = "The access token has expired."
        raise Refusal(401, "ExpiredAuthenticationToken", message, headers=challenge)

    def check_permission(self, route: str) -> None:
        """403 if the test has revoked the permission."""
        if not any(fnmatchcase(route, one) for one in self.forbidden):
            return
        kind, _, verb = route.partition(".")
        done = {"put": "write", "listNodes": "listNodes/action"}.get(verb, "read")
        is_regional = kind in ("vmSizes", "usages", "quotas")
        place = f"locations/{self.region}" if is_regional else "workspaces"
        action = f"Microsoft.MachineLearningServices/{place}/{kind}/{done}"
        scope = f"/subscriptions/{self.subscription_id}" if is_regional else self.arm_id
        raise Refusal(
            403,
            "AuthorizationFailed",
            f"The client 'someone@example.com' with object id '{self.tenant_id}' does not have authorization to "
            f"perform action '{action}' over scope '{scope}' or the scope is invalid. If access was recently "
            "granted, please refresh your credentials.",
        )

    def now(self) -> str:
        """A time stamp; no two are the same, so that newest-first has one meaning."""
        self._clock = max(self._clock + 1, time.time_ns() // 100 + round(self.skew * 10**7))
        seconds, rest = divmod(self._clock, 10**7)
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{rest:07d}+00:00"

    def system_data(self) -> Json:
        """Who created a resource, and when."""
        now = self.now()
        made = {"createdAt": now, "createdBy": "Someone", "createdByType": "User"}
        return {**made, "lastModifiedAt": now, "lastModifiedBy": "Someone", "lastModifiedByType": "User"}
