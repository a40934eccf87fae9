"""What is known about a workspace: its computes, sizes, quota, assets, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")

CLUSTER, INSTANCE, KUBERNETES = "AmlCompute", "ComputeInstance", "Kubernetes"
"""Kinds of computes that accept jobs, in the words of the API."""


class Unknown(NamedTuple):
    """Something that could not be read."""

    why: str


NOT_ASKED = Unknown("it was not requested")


class Missing(NamedTuple):
    """Something that does not exist, according to the workspace."""

    near: tuple[str, ...] = ()
    """Existing names of its kind, the most similar first."""
    latest: str | None = None
    """Its latest version, if only this one is missing."""


class NotChecked(NamedTuple):
    """What was not checked, and why."""

    what: str
    why: str


class Nodes(NamedTuple):
    """How many nodes of a cluster do what (`nodeStateCounts`)."""

    idle: int = 0
    running: int = 0
    preparing: int = 0
    leaving: int = 0
    unusable: int = 0

    @property
    def allocated(self) -> int:
        """Existing nodes, which count towards the quota whatever they do."""
        return sum(self)


class Compute(NamedTuple):
    """A compute of the workspace."""

    name: str
    kind: str
    state: str
    """Its `provisioningState`: `Succeeded`, `Failed`, `Creating`, …"""
    location: str
    errors: tuple[str, ...] = ()
    """Why it failed, in the service's words."""
    size: str | None = None
    is_spot: bool = False
    max_nodes: int | None = None
    min_nodes: int = 0
    idle_seconds: int | None = None
    """How long an idle node stays before the cluster releases it."""
    nodes: Nodes | None = None
    """None if the service does not say."""
    instance_types: Mapping[str, int | None] = {}
    """The instance types of a Kubernetes cluster, with how many GPUs each has, if known."""
    default_type: str | None = None
    vm_state: str | None = None
    """Of a compute instance: `Running`, `Stopped`, …"""

    @property
    def free(self) -> int | None:
        """How many nodes a job could get, now or once they have started: those that no run uses."""
        if self.max_nodes is None or self.nodes is None:
            return None
        return max(0, self.max_nodes - self.nodes.allocated) + self.nodes.idle


class Holder(NamedTuple):
    """A run that uses nodes of a cluster."""

    run: str
    nodes: int
    submitted: float | None = None
    """When it was submitted, in seconds since 1970; ARM does not say when it got its nodes."""
    started: float | None = None
    """When it started, as the run history has it."""


class HourPrice(NamedTuple):
    """The price of one node for an hour, from the workspace's own list of sizes (`estimatedVMPrices`)."""

    amount: float
    currency: str


class Size(NamedTuple):
    """A VM size, as the region lists it."""

    name: str
    family: str
    vcpus: int
    gpus: int
    memory_gb: float
    disk_mb: int | None
    price: HourPrice | None
    """For a dedicated Linux VM; a spot node costs at most this."""


class Usage(NamedTuple):
    """A row of the quota."""

    row: str
    used: int
    limit: int
    """-1 means no limit."""


class Asset(NamedTuple):
    """Something that a job refers to by its name."""

    kind: str
    """As in the API: `environments`, `data`, `models`, `components`, `codes`, `datastores`."""
    name: str
    version: str | None = None
    """None for the latest, or if there are no versions."""

    def __str__(self) -> str:
        return f"{self.noun} `{self.name}{f':{self.version}' if self.version else ''}`"

    @property
    def noun(self) -> str:
        return NOUNS[self.kind]


NOUNS = {
    "environments": "environment",
    "data": "data",
    "models": "model",
    "components": "component",
    "codes": "code",
    "datastores": "datastore",
}


class Here(NamedTuple):
    """Something that exists."""


@dataclass(frozen=True)
class Facts:
    """What was read from a workspace for some jobs; only what was requested."""

    region: str | Unknown = NOT_ASKED
    """The workspace's own."""
    computes: Mapping[str, Compute | Missing | Unknown] = field(default_factory=dict)
    all_computes: Sequence[Compute] | Unknown = ()
    holders: Mapping[str, Sequence[Holder] | Unknown] = field(default_factory=dict)
    """By compute."""
    sizes: Mapping[str, Mapping[str, Size] | Unknown] = field(default_factory=dict)
    """By region, then by name in lower case."""
    usages: Mapping[str, Sequence[Usage] | Unknown] = field(default_factory=dict)
    """By region."""
    own_limits: Mapping[str, Sequence[Usage] | Unknown] = field(default_factory=dict)
    """The limits that were set for this workspace only, by region; their use is not known."""
    assets: Mapping[Asset, Here | Missing | Unknown] = field(default_factory=dict)
    written_out: Mapping[str, Asset] = field(default_factory=dict)
    """The names under which environments defined in a job are registered, by their `repr`."""
    on: str = ""
    """The day on which this was read, such as `2026-11-28`."""
