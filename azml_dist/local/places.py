"""The addresses, ports, working directories, inputs and outputs of each attempt of a local run."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from azml_dist.configured import configured_ids
from azml_dist.local import staging
from azml_dist.local.gpus import gpus_of_a_node
from azml_dist.local.launchers.hosts import FIRST_ADDRESS_APART, interface_for_nccl
from azml_dist.local.ports import AZURE_MASTER_PORT, MPI_PORT_OF_ONE_NODE, Ports
from azml_dist.local.tracking.begin import Tracking
from azml_dist.model.given import own_variables
from azml_dist.model.parts import Ray, TensorFlow
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.world import Place

HOST = "127.0.0.1"
_HOST_OF_RAY = "127.0.0.2"
"""Ray would take 127.0.0.1 for the address of the machine itself."""
_NOT_CONFIGURED = "<{}:no-workspace-is-configured>"
"""A placeholder for ids if neither a `config.json` nor the environment names a workspace."""


def places(
    plan: LaunchPlan,
    folder: Path,
    temp: Path,
    ports: Ports,
    attempts: int,
    tracking: Tracking,
    *,
    apart: bool = False,
    linked: Collection[str] = (),
    secrets: Mapping[str, str] | None = None,
) -> Iterator[Place]:
    """The place of each attempt: its own nodes and ports, and the inputs and outputs of the run.

    `apart` if each node has its own network; `linked` are inputs that always get a link; `secrets` are values of the
    caller's own variables, where the caller has none.
    """
    own = own_variables(plan.job, secrets)
    first = replace(_first_place(plan, folder, temp, ports, tracking, apart, linked), own_variables=own)
    yield first
    for retry in range(1, attempts):
        yield replace(
            first,
            # Another port, because the processes before may still have theirs; in MPI jobs, nothing says which to use.
            master_port=first.master_port if plan.world.distribution == "Mpi" else str(ports.take()),
            batch_master_port=str(ports.take()) if first.batch_master_port else None,
            attempt=retry + 1,
            ports=_ports(plan, ports, apart, first),
            working_dirs=_of_each_node(plan, folder / "nodes" / f"retry_{retry:03}"),
            capabilities=_capabilities(plan, folder / "capabilities" / f"retry_{retry:03}", first),
        )


def usual_port(plan: LaunchPlan) -> int:
    """The port on which the processes meet on Azure ML."""
    is_one_node_of_mpi = plan.world.distribution == "Mpi" and plan.world.node_count == 1
    return MPI_PORT_OF_ONE_NODE if is_one_node_of_mpi else AZURE_MASTER_PORT


def _first_place(
    plan: LaunchPlan, folder: Path, temp: Path, ports: Ports, tracking: Tracking, apart: bool, linked: Collection[str]
) -> Place:
    job = plan.job
    ids = configured_ids()
    several, usual = plan.world.node_count > 1, usual_port(plan)
    master_port = str(ports.take(usual))
    is_in_the_way = plan.world.distribution == "Mpi" and master_port != str(usual)
    place = Place(
        run_id=folder.name,
        experiment_id=tracking.experiment_id,
        experiment_name=tracking.experiment,
        tracking_uri=tracking.uri,
        addresses=_addresses(plan, apart),
        master_port=master_port,
        mpi_master_port=master_port if is_in_the_way else None,
        batch_master_port=str(ports.take(plan.service.batch_master_port)) if several else None,
        nccl_socket_ifname=None if apart else interface_for_nccl(plan.service.nccl_socket_ifname),
        subscription=ids["subscription_id"] or _NOT_CONFIGURED.format("subscription"),
        resource_group=ids["resource_group"] or _NOT_CONFIGURED.format("resource-group"),
        workspace=ids["name"] or _NOT_CONFIGURED.format("workspace"),
        gpu_count=gpus_of_a_node(plan.world.node_count, plan.world.process_count_per_node),
        ports=_ports(plan, ports, apart),
        working_dirs=_of_each_node(plan, folder / "nodes"),
        inputs=staging.link_inputs(job, temp / "inputs", linked),
        outputs=staging.stage_outputs(job, folder / "outputs"),
    )
    return replace(place, capabilities=_capabilities(plan, folder / "capabilities", place))


def _capabilities(plan: LaunchPlan, folder: Path, place: Place) -> list[str]:
    """A folder for each node, deleted with the node, as on Azure ML."""
    folders = _of_each_node(plan, folder)
    return [staging.make_capability(Path(one), place.inputs, place.outputs) for one in folders]


def _addresses(plan: LaunchPlan, apart: bool) -> list[str]:
    """The addresses of nodes that share this machine; on Linux, all of 127.0.0.0/8 is this machine.

    Scripts find their node by its address in the list of all, so each node has a different one.
    """
    first = FIRST_ADDRESS_APART if apart else _HOST_OF_RAY if plan.world.distribution == "Ray" else HOST
    if sys.platform == "linux":
        return [str(ip_address(first) + node) for node in range(plan.world.node_count)]
    return [HOST] * plan.world.node_count


def _ports(plan: LaunchPlan, ports: Ports, apart: bool, before: Place | None = None) -> list[int]:
    """Ports that the plan gives to processes. A port that the job itself names is the same in every attempt."""
    distribution = plan.job.distribution
    if isinstance(distribution, Ray) and not distribution.address:
        if distribution.port:
            return list(before.ports) if before else [ports.take_exactly(distribution.port, "Ray's head")]
        return [ports.take(plan.service.ray_port)]
    # Nodes with their own networks use the ports that they have on Azure ML.
    return [ports.take() for _ in plan.processes] if isinstance(distribution, TensorFlow) and not apart else []


def _of_each_node(plan: LaunchPlan, folder: Path) -> list[str]:
    return [str(folder / str(node)) for node in range(plan.world.node_count)]
