"""Where the attempts of a run take place on this machine: addresses, ports, working directories, inputs and outputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from azml_dist.local import staging
from azml_dist.local.hosts import FIRST_ADDRESS_APART, LOOPBACK, has_network
from azml_dist.local.ports import AZURE_MASTER_PORT, MPI_PORT_OF_ONE_NODE, Ports
from azml_dist.parts import Ray, TensorFlow
from azml_dist.plan import LaunchPlan, Place
from azml_dist.runs import own_variables

HOST = "127.0.0.1"
_FIRST_ADDRESS = {"Mpi": HOST, "Ray": "127.0.0.2"}
"""Of the distributions that take nodes of one address for one node. 127.0.0.1 Ray would take for the machine's own."""


def places(
    plan: LaunchPlan, folder: Path, temp: Path, ports: Ports, attempts: int, *, apart: bool = False
) -> Iterator[Place]:
    """The place of each attempt: nodes and ports of its own, and the inputs and outputs of the run.

    `apart` where each node has a network of its own.
    """
    first = _first_place(plan, folder, temp, ports, apart)
    yield first
    for retry in range(1, attempts):
        port = str(ports.take())
        yield replace(
            first,
            master_port=port,
            mpi_master_port=port,
            ports=_ports(plan, ports, apart, first),
            working_dirs=_working_dirs(plan, folder / "nodes" / f"retry_{retry:03}"),
        )


def usual_port(plan: LaunchPlan) -> int:
    """The port where the processes of the world meet on Azure ML."""
    if plan.world.distribution == "Mpi":
        return plan.service.mpi_master_port if plan.world.node_count > 1 else MPI_PORT_OF_ONE_NODE
    return AZURE_MASTER_PORT


def _first_place(plan: LaunchPlan, folder: Path, temp: Path, ports: Ports, apart: bool) -> Place:
    job = plan.job
    experiment = job.experiment_name or "Default"
    port = str(ports.take(usual_port(plan)))
    return Place(
        run_id=folder.name,
        experiment_id=staging.MLFLOW_EXPERIMENT,
        experiment_name=experiment,
        tracking_uri=staging.create_mlflow_store(
            folder / "mlruns", folder.name, experiment, job.display_name or folder.name
        ),
        addresses=_addresses(plan, apart),
        master_port=port,
        mpi_master_port=port,
        nccl_socket_ifname=None if apart or has_network() else LOOPBACK,
        ports=_ports(plan, ports, apart),
        working_dirs=_working_dirs(plan, folder / "nodes"),
        inputs=staging.link_inputs(job, temp / "inputs"),
        outputs=staging.stage_outputs(job, folder / "outputs"),
        own_variables=own_variables(job),
    )


def _addresses(plan: LaunchPlan, apart: bool) -> list[str]:
    """Where nodes are not apart, all are this machine; on Linux, so is all of 127.0.0.0/8."""
    first = FIRST_ADDRESS_APART if apart else _FIRST_ADDRESS.get(plan.world.distribution or "")
    if first and sys.platform == "linux":
        return [str(ip_address(first) + node) for node in range(plan.world.node_count)]
    return [HOST] * plan.world.node_count


def _ports(plan: LaunchPlan, ports: Ports, apart: bool, before: Place | None = None) -> list[int]:
    """Ports that the plan gives to processes; one that the job itself names stays that one in each attempt."""
    distribution = plan.job.distribution
    if isinstance(distribution, Ray) and not distribution.address:
        if distribution.port:
            return list(before.ports) if before else [ports.take_exactly(distribution.port, "Ray's head")]
        return [ports.take(plan.service.ray_port)]
    # Nodes that are apart have the ports that the plan gives them on Azure ML.
    return [ports.take() for _ in plan.processes] if isinstance(distribution, TensorFlow) and not apart else []


def _working_dirs(plan: LaunchPlan, folder: Path) -> list[str]:
    return [str(folder / str(node)) for node in range(plan.world.node_count)]
